/*
 * map: intrusive hash map, chained, growing by powers of two. The caller hashes (hash.h)
 * and compares. Iteration order depends on hashes and insertions only, never on pointers.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct map_node {
    struct map_node *next;
    uint64_t hash;
};
struct map {
    struct map_node **slots;
    size_t mask; /* slots - 1; 0 with slots NULL before the first insert */
    size_t count;
};
typedef bool (*map_match)(const struct map_node *n, const void *key);

void map_init(struct map *m);
void map_deinit(struct map *m); /* frees the slots, not the nodes */
/* The node with this hash for which match(node, key) holds, or NULL. */
struct map_node *map_find(const struct map *m, uint64_t hash, map_match match, const void *key);
/* Inserts without looking for an equal one. ERR_NOMEM leaves the map as it was. */
int map_insert(struct map *m, struct map_node *n, uint64_t hash) MUST_CHECK;
void map_remove(struct map *m, struct map_node *n); /* n must be in m */
/* Iteration: pass NULL first; removal of the returned node before the next call is allowed
 * only when `next` was fetched before. NULL at the end. */
struct map_node *map_next(const struct map *m, const struct map_node *n);

#endif
