/*
 * shard_stale: keeps what was settled from coming back. A reading of the store takes time; a message
 * that leaves memory meanwhile (settled or deferred), or had left when the reading began but was not yet on
 * disk, is stale in what was read. Such a message is refused by shard_load.
 *
 * Costs nothing while no reading lasts: then the ids live in the arenas of the batches under way, and go with them.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/shard_in.h"

static uint64_t bit_of(uint64_t hash, unsigned *word) {
    *word = (unsigned)(hash >> 6) & 15;
    return UINT64_C(1) << (hash & 63);
}

void shard_note_gone(struct shard *s, uint64_t id, bool dropped) {
    unsigned word;
    shard_touch(s);
    if (s->current->gone && s->current->gone->id == id) {
        s->current->gone->dropped |= dropped;
        return;
    }
    struct gone *g = arena_alloc(&s->current->arena, sizeof *g);
    CHECK(g);
    *g = (struct gone){.next = s->current->gone, .id = id, .dropped = dropped};
    s->current->gone = g;
    uint64_t bit = bit_of(hash_bytes(&id, sizeof id, 0), &word);
    s->current->gone_bits[word] |= bit;
}

static bool match_stale(const struct map_node *n, const void *key) {
    return LIST_ENTRY(n, struct stale, by_id)->id == *(const uint64_t *)key;
}

static void stale_add(struct shard *s, const struct gone *g) {
    uint64_t id = g->id;
    struct stale *t = calloc(1, sizeof *t);
    CHECK(t);
    t->id = id;
    t->dropped = g->dropped;
    t->durable = s->sequence;
    CHECK(map_insert(&s->stale, &t->by_id, hash_bytes(&id, sizeof id, 0)) == ERR_OK);
    list_push_back(&s->stale_list, &t->link);
}

void shard_stale_prune(struct shard *s) {
    struct list_node *oldest = list_first(&s->readings);
    uint64_t begun = oldest ? LIST_ENTRY(oldest, struct shard_reading, link)->begun : UINT64_MAX;
    while (!list_is_empty(&s->stale_list)) {
        struct stale *t = LIST_ENTRY(list_first(&s->stale_list), struct stale, link);
        if (t->durable > begun)
            return;
        map_remove(&s->stale, &t->by_id);
        list_remove(&s->stale_list, &t->link);
        free(t);
    }
}

static const struct gone *find_gone(const struct shard_batch *b, uint64_t id, uint64_t hash) {
    unsigned word;
    uint64_t bit = bit_of(hash, &word);
    const struct gone *g = b->gone_bits[word] & bit ? b->gone : NULL;
    while (g && g->id != id)
        g = g->next;
    return g;
}

/* The message has left memory; *dropped: in one of these cases for good. */
static bool look_up(const struct shard *s, uint64_t id, bool *dropped) {
    uint64_t hash = hash_bytes(&id, sizeof id, 0);
    const struct map_node *n = map_find(&s->stale, hash, match_stale, &id);
    const struct gone *g = find_gone(s->current, id, hash);
    bool found = n || g;
    *dropped = (n && LIST_ENTRY(n, struct stale, by_id)->dropped) || (g && g->dropped);
    for (const struct shard_batch *b = s->sent; b; b = b->next) {
        g = find_gone(b, id, hash);
        found = found || g;
        *dropped = *dropped || (g && g->dropped);
    }
    return found;
}

bool shard_is_stale(const struct shard *s, uint64_t id) {
    bool dropped;
    return look_up(s, id, &dropped);
}

bool shard_was_dropped(const struct shard *s, uint64_t id) {
    bool dropped;
    return look_up(s, id, &dropped) && dropped;
}

void shard_reading_begin(struct shard *s, struct shard_reading *r) {
    *r = (struct shard_reading){.begun = s->sequence};
    list_push_back(&s->readings, &r->link);
}

void shard_reading_end(struct shard *s, struct shard_reading *r) {
    list_remove(&s->readings, &r->link);
    shard_stale_prune(s);
}

void shard_stale_settle(struct shard *s, const struct shard_batch *b) {
    s->sequence++;
    if (list_is_empty(&s->readings))
        return;
    for (const struct gone *g = b->gone; g; g = g->next)
        stale_add(s, g);
}
