/*
 * units: sizes and durations as people write them. "50MiB", "64k", "5m", "4h", "1500ms".
 * Sizes: none, B, K/KB/KiB, M.., G.., T.. (all powers of 1024). Durations: ms, s, m, h, d, w;
 * a bare number is refused for durations except 0. No fractions, no signs, no spaces.
 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include "base/err.h"
#include "base/span.h"

int units_size(struct span text, uint64_t *bytes) MUST_CHECK;  /* ERR_INVALID, ERR_RANGE */
int units_duration(struct span text, uint64_t *ms) MUST_CHECK; /* ERR_INVALID, ERR_RANGE */
/* "4h 12m", "35s", "250ms": at most two units. Returns length. size >= 32. */
size_t units_format_duration(uint64_t ms, char *to, size_t size);
/* "3.4 MiB", "812 B". size >= 16. */
size_t units_format_size(uint64_t bytes, char *to, size_t size);

#endif
