/*
 * heap: intrusive binary min-heap over an array of pointers; each node knows its place,
 * so removal and change of key are O(log n). The order is total when `less` is
 * (ties must be broken by the caller, for determinism).
 */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct heap_node {
    size_t index; /* place + 1; 0: in no heap (start zeroed) */
};
typedef bool (*heap_less)(const struct heap_node *a, const struct heap_node *b);
struct heap {
    struct heap_node **nodes;
    size_t count, cap;
    heap_less less;
};

void heap_init(struct heap *h, heap_less less);
void heap_deinit(struct heap *h);                              /* frees the array, not the nodes */
int heap_push(struct heap *h, struct heap_node *n) MUST_CHECK; /* ERR_NOMEM */
struct heap_node *heap_first(const struct heap *h);            /* NULL when empty */
struct heap_node *heap_pop(struct heap *h);
void heap_remove(struct heap *h, struct heap_node *n); /* n must be in h */
void heap_update(struct heap *h, struct heap_node *n); /* after its key changed */
bool heap_is_linked(const struct heap_node *n);

#endif
