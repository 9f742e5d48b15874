/*
 * clock: the only place that reads the time. Decisions take time as an argument.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

uint64_t clock_wall_ms(void); /* since 1970, may step */
uint64_t clock_mono_ms(void); /* monotonic, from an arbitrary start */
uint64_t clock_mono_us(void);
uint64_t clock_boot_ms(void); /* monotonic, and goes on while the machine sleeps: for leases that others measure */
/* RFC 5322 date-time ("Tue, 24 Nov 2026 08:15:07 +0000", always UTC); size >= 32. Returns length. */
size_t clock_rfc5322(uint64_t wall_ms, char *to, size_t size);
/* RFC 3339 with milliseconds, UTC ("2026-11-24T08:15:07.123Z"); size >= 25. Returns length. */
size_t clock_rfc3339(uint64_t wall_ms, char *to, size_t size);
/* RFC 3339 date-time with seconds, an optional fraction, and Z or an offset: *wall_ms. ERR_INVALID. */
int clock_parse_rfc3339(struct span text, uint64_t *wall_ms) MUST_CHECK;

#endif
