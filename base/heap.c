/*
 * heap: sifting in an array of node pointers. Each node carries its place plus one, so a
 * zeroed node is in no heap, and removal from the middle needs no search. The array grows
 * by doubling and does not shrink: a heap that was large once is likely to be so again.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/heap.h"

enum { HEAP_CAP_FIRST = 16 };

void heap_init(struct heap *h, heap_less less) {
    *h = (struct heap){.less = less};
}

void heap_deinit(struct heap *h) {
    free(h->nodes);
    h->nodes = NULL;
    h->count = h->cap = 0;
}

static void put(struct heap *h, size_t at, struct heap_node *n) {
    h->nodes[at] = n;
    n->index = at + 1;
}

static void sift_up(struct heap *h, size_t at, struct heap_node *n) {
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!h->less(n, h->nodes[parent]))
            break;
        put(h, at, h->nodes[parent]);
        at = parent;
    }
    put(h, at, n);
}

static void sift_down(struct heap *h, size_t at, struct heap_node *n) {
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->less(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!h->less(h->nodes[child], n))
            break;
        put(h, at, h->nodes[child]);
        at = child;
    }
    put(h, at, n);
}

/* Finds the place of n, which may be wrong at `at` in either direction. */
static void settle(struct heap *h, size_t at, struct heap_node *n) {
    if (at > 0 && h->less(n, h->nodes[(at - 1) / 2]))
        sift_up(h, at, n);
    else
        sift_down(h, at, n);
}

int heap_push(struct heap *h, struct heap_node *n) {
    CHECK(n->index == 0);
    if (h->count == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : HEAP_CAP_FIRST;
        struct heap_node **nodes = reallocarray(h->nodes, cap, sizeof *nodes);
        if (!nodes)
            return ERR_NOMEM;
        h->nodes = nodes;
        h->cap = cap;
    }
    sift_up(h, h->count++, n);
    return ERR_OK;
}

struct heap_node *heap_first(const struct heap *h) {
    return h->count ? h->nodes[0] : NULL;
}

struct heap_node *heap_pop(struct heap *h) {
    struct heap_node *n = heap_first(h);
    if (n)
        heap_remove(h, n);
    return n;
}

void heap_remove(struct heap *h, struct heap_node *n) {
    CHECK(n->index > 0 && n->index <= h->count && h->nodes[n->index - 1] == n);
    size_t at = n->index - 1;
    struct heap_node *last = h->nodes[--h->count];
    n->index = 0;
    if (last != n)
        settle(h, at, last);
}

void heap_update(struct heap *h, struct heap_node *n) {
    CHECK(n->index > 0 && n->index <= h->count && h->nodes[n->index - 1] == n);
    settle(h, n->index - 1, n);
}

bool heap_is_linked(const struct heap_node *n) {
    return n->index != 0;
}
