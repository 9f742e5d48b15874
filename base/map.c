/*
 * map: chained hash map of intrusive nodes. Slots double when there are as many nodes as
 * slots. When there is no memory to double, the map goes on with longer chains; only the
 * very first allocation can fail an insert.
 *
 * The order of iteration follows hashes and insertions alone, so that a simulation with
 * the same seed walks the same way. Its maximum is that of the owner of the nodes.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"

enum { MAP_SLOTS_FIRST = 16 };

void map_init(struct map *m) {
    *m = (struct map){0};
}

void map_deinit(struct map *m) {
    free(m->slots);
    map_init(m);
}

struct map_node *map_find(const struct map *m, uint64_t hash, map_match match, const void *key) {
    if (!m->slots)
        return NULL;
    for (struct map_node *n = m->slots[hash & m->mask]; n; n = n->next) {
        if (n->hash == hash && match(n, key))
            return n;
    }
    return NULL;
}

static void grow(struct map *m) {
    size_t count = (m->mask + 1) * 2;
    struct map_node **slots = calloc(count, sizeof *slots);
    if (!slots)
        return;
    for (size_t i = 0; i <= m->mask; i++) {
        struct map_node *next;
        for (struct map_node *n = m->slots[i]; n; n = next) {
            next = n->next;
            n->next = slots[n->hash & (count - 1)];
            slots[n->hash & (count - 1)] = n;
        }
    }
    free(m->slots);
    m->slots = slots;
    m->mask = count - 1;
}

int map_insert(struct map *m, struct map_node *n, uint64_t hash) {
    if (!m->slots) {
        m->slots = calloc(MAP_SLOTS_FIRST, sizeof(struct map_node *));
        if (!m->slots)
            return ERR_NOMEM;
        m->mask = MAP_SLOTS_FIRST - 1;
    } else if (m->count > m->mask) {
        grow(m);
    }
    n->hash = hash;
    n->next = m->slots[hash & m->mask];
    m->slots[hash & m->mask] = n;
    m->count++;
    return ERR_OK;
}

void map_remove(struct map *m, struct map_node *n) {
    CHECK(m->slots);
    struct map_node **link = &m->slots[n->hash & m->mask];
    while (*link && *link != n)
        link = &(*link)->next;
    CHECK(*link == n);
    *link = n->next;
    n->next = NULL;
    m->count--;
}

struct map_node *map_next(const struct map *m, const struct map_node *n) {
    if (n && n->next)
        return n->next;
    if (!m->slots)
        return NULL;
    for (size_t i = n ? (n->hash & m->mask) + 1 : 0; i <= m->mask; i++) {
        if (m->slots[i])
            return m->slots[i];
    }
    return NULL;
}
