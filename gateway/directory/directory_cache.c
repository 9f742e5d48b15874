/*
 * directory_cache: see directory_cache.h. An entry is one block with its texts behind it.
 */
#include "gateway/directory/directory_cache.h"

#include <stdlib.h>

#include "base/check.h"

enum { UNIT = 512 };

struct entry {
    struct map_node node;
    struct list_node used;
    uint64_t until_ms;
    size_t units;
    enum directory_status status;
    enum table_kind kind;
    struct span key, domain, targets, why; /* in text */
    char text[];
};
struct entry_key {
    struct span key, domain;
};

static bool entry_match(const struct map_node *n, const void *key) {
    const struct entry *e = CONTAINER_OF(n, struct entry, node);
    const struct entry_key *k = key;
    return span_eq(e->key, k->key) && span_eq(e->domain, k->domain);
}

static struct entry *entry_find(struct directory_cache *c, uint64_t hash, struct span key, struct span domain) {
    struct map_node *n = map_find(&c->map, hash, entry_match, &(struct entry_key){key, domain});
    return n ? CONTAINER_OF(n, struct entry, node) : NULL;
}

static struct list *list_of(struct directory_cache *c, const struct entry *e) {
    return e->status == DIRECTORY_FOUND ? &c->known : &c->unknown;
}

static size_t *units_of(struct directory_cache *c, const struct entry *e) {
    return e->status == DIRECTORY_FOUND ? &c->units_known : &c->units_unknown;
}

static void drop(struct directory_cache *c, struct entry *e) {
    map_remove(&c->map, &e->node);
    list_remove(list_of(c, e), &e->used);
    *units_of(c, e) -= e->units;
    free(e);
}

static void make_room(struct directory_cache *c) {
    while (c->units_known + c->units_unknown > c->units_max) {
        bool from_unknown = list_is_empty(&c->known) || c->units_unknown * 2 > c->units_max;
        struct list_node *last = list_last(from_unknown ? &c->unknown : &c->known);
        drop(c, LIST_ENTRY(last, struct entry, used));
    }
}

void directory_cache_init(struct directory_cache *c, const struct directory_config *config, size_t units_max) {
    *c = (struct directory_cache){.units_max = units_max,
                                  .positive_ms = config->positive_ms,
                                  .negative_ms = config->negative_ms,
                                  .stale_ms = config->stale_ms};
    map_init(&c->map);
    list_init(&c->known);
    list_init(&c->unknown);
}

void directory_cache_deinit(struct directory_cache *c) {
    c->units_max = 0;
    make_room(c);
    CHECK(c->map.count == 0);
    map_deinit(&c->map);
}

bool directory_cache_get(struct directory_cache *c, uint64_t hash, struct span key, struct span domain, uint64_t now,
                         bool stale_ok, struct directory_answer *a) {
    struct entry *e = entry_find(c, hash, key, domain);
    if (!e)
        return false;
    bool fresh = now < e->until_ms, usable = e->status == DIRECTORY_FOUND && now < e->until_ms + c->stale_ms;
    if (!fresh && !usable) {
        drop(c, e);
        return false;
    }
    if (!fresh && !stale_ok)
        return false;
    list_remove(list_of(c, e), &e->used);
    list_push_front(list_of(c, e), &e->used);
    *a = (struct directory_answer){
        .status = e->status, .kind = e->kind, .targets = e->targets, .cached = true, .stale = !fresh, .why = e->why};
    return true;
}

static struct span put_text(char **at, struct span s) {
    struct span here = span_make(*at, s.len);
    if (s.len)
        memcpy(*at, s.at, s.len);
    *at += s.len;
    return here;
}

void directory_cache_put(struct directory_cache *c, uint64_t hash, struct span key, struct span domain,
                         const struct directory_answer *a, uint64_t now) {
    size_t size = sizeof(struct entry) + key.len + domain.len + a->targets.len + a->why.len;
    struct entry *old = entry_find(c, hash, key, domain), *e = malloc(size);
    if (old)
        drop(c, old);
    if (!e)
        return;
    *e = (struct entry){.until_ms = now + (a->status == DIRECTORY_FOUND ? c->positive_ms : c->negative_ms),
                        .units = (size + UNIT - 1) / UNIT,
                        .status = a->status,
                        .kind = a->kind};
    char *at = e->text;
    e->key = put_text(&at, key);
    e->domain = put_text(&at, domain);
    e->targets = put_text(&at, a->targets);
    e->why = put_text(&at, a->why);
    if (map_insert(&c->map, &e->node, hash) != ERR_OK) {
        free(e);
        return;
    }
    list_push_front(list_of(c, e), &e->used);
    *units_of(c, e) += e->units;
    make_room(c);
}
