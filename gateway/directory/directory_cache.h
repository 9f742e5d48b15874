/*
 * directory_cache: what a backend said, for a while. Not thread-safe: the directory has one in each shard, under its
 * lock. Inner to the directory.
 *
 * Bounded by units: an entry counts one for each 512 octets that it takes. The least recently used goes first. Unknown
 * addresses may fill at most half, so that a stranger who tries names does not push out the ones that exist.
 */
#ifndef GATEWAY_DIRECTORY_DIRECTORY_CACHE_H
#define GATEWAY_DIRECTORY_DIRECTORY_CACHE_H

#include "base/list.h"
#include "base/map.h"
#include "gateway/directory/directory.h"

struct directory_cache {
    struct map map;
    struct list known, unknown; /* the most recently used first */
    size_t units_known, units_unknown, units_max;
    uint64_t positive_ms, negative_ms, stale_ms;
};

void directory_cache_init(struct directory_cache *c, const struct directory_config *config, size_t units_max);
void directory_cache_deinit(struct directory_cache *c);
/* stale_ok: also what is past its time and found. The texts are the cache's, until the next put. */
bool directory_cache_get(struct directory_cache *c, uint64_t hash, struct span key, struct span domain, uint64_t now,
                         bool stale_ok, struct directory_answer *a);
/* a: FOUND or UNKNOWN. Replaces what was there. Without memory nothing is kept. */
void directory_cache_put(struct directory_cache *c, uint64_t hash, struct span key, struct span domain,
                         const struct directory_answer *a, uint64_t now);

#endif
