/*
 * shelf: see shelf.h. In a shard entries lie in one array that doubles up to the shard's share of the bound; chains,
 * the order of age and the free ones are linked by index, so that the array may move.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/rand.h"

#include "gateway/guard/shelf.h"

enum { NONE = UINT32_MAX, FIRST_ENTRIES = 8 };

struct entry {
    struct shelf_key key;
    uint32_t chain;          /* next of the same slot; of the free ones */
    uint32_t older, younger; /* order of age */
    uint32_t used;
    char value[];
};
struct shard {
    pthread_mutex_t lock;
    char *entries;
    uint32_t *slots;   /* capacity of them, a power of two */
    uint32_t capacity; /* of both arrays */
    uint32_t most, count, free, oldest, youngest;
};
struct shelf {
    size_t stride;
    uint64_t secret;
    struct shard shards[SHELF_SHARDS];
};

struct shelf_key shelf_key_of(const void *bytes, size_t len, uint64_t seed) {
    return (struct shelf_key){{hash_bytes(bytes, len, seed), hash_bytes(bytes, len, ~seed)}};
}

struct shelf_key shelf_key_add(struct shelf_key k, struct span s, uint64_t seed) {
    /* The length keeps "ab","c" apart from "a","bc". */
    k.word[0] = hash_span_nocase(s, k.word[0] * 0x9e3779b97f4a7c15u + s.len + seed);
    k.word[1] = hash_span_nocase(s, k.word[1] * 0xc2b2ae3d27d4eb4fu + s.len + ~seed);
    return k;
}

static uint64_t place_of(const struct shelf *s, const struct shelf_key *k) {
    return hash_bytes(k, sizeof *k, s->secret);
}

static struct entry *at(const struct shelf *s, const struct shard *d, uint32_t i) {
    return (struct entry *)(void *)(d->entries + (size_t)i * s->stride);
}

static struct shard *shard_of(struct shelf *s, const struct shelf_key *k) {
    return &s->shards[place_of(s, k) % SHELF_SHARDS];
}

static uint32_t *slot_of(const struct shelf *s, const struct shard *d, const struct shelf_key *k) {
    return &d->slots[(place_of(s, k) / SHELF_SHARDS) & (d->capacity - 1)];
}

static uint32_t share_of(size_t most) {
    size_t share = (most + SHELF_SHARDS - 1) / SHELF_SHARDS;
    return share < 1 ? 1 : share > UINT32_MAX / 4 ? UINT32_MAX / 4 : (uint32_t)share;
}

int shelf_new(struct shelf **to, size_t most, size_t value_size) {
    struct shelf *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->stride = (sizeof(struct entry) + value_size + 7) / 8 * 8;
    rand_secure(&s->secret, sizeof s->secret);
    for (unsigned i = 0; i < SHELF_SHARDS; i++) {
        s->shards[i] = (struct shard){.most = share_of(most), .free = NONE, .oldest = NONE, .youngest = NONE};
        CHECK(pthread_mutex_init(&s->shards[i].lock, NULL) == 0);
    }
    *to = s;
    return ERR_OK;
}

void shelf_free(struct shelf *s) {
    if (!s)
        return;
    for (unsigned i = 0; i < SHELF_SHARDS; i++) {
        pthread_mutex_destroy(&s->shards[i].lock);
        free(s->shards[i].entries);
        free(s->shards[i].slots);
    }
    free(s);
}

/* -- with the lock of the shard -- */

static void unlink_age(const struct shelf *s, struct shard *d, uint32_t i) {
    struct entry *e = at(s, d, i);
    *(e->older == NONE ? &d->oldest : &at(s, d, e->older)->younger) = e->younger;
    *(e->younger == NONE ? &d->youngest : &at(s, d, e->younger)->older) = e->older;
}

static void link_youngest(const struct shelf *s, struct shard *d, uint32_t i) {
    struct entry *e = at(s, d, i);
    e->older = d->youngest;
    e->younger = NONE;
    *(d->youngest == NONE ? &d->oldest : &at(s, d, d->youngest)->younger) = i;
    d->youngest = i;
}

static uint32_t find(const struct shelf *s, const struct shard *d, const struct shelf_key *k) {
    uint32_t i = d->capacity ? *slot_of(s, d, k) : NONE;
    while (i != NONE && memcmp(&at(s, d, i)->key, k, sizeof *k) != 0)
        i = at(s, d, i)->chain;
    return i;
}

static void drop(const struct shelf *s, struct shard *d, uint32_t i) {
    struct entry *e = at(s, d, i);
    uint32_t *link = slot_of(s, d, &e->key);
    while (*link != i)
        link = &at(s, d, *link)->chain;
    *link = e->chain;
    unlink_age(s, d, i);
    e->used = 0;
    e->chain = d->free;
    d->free = i;
    d->count--;
}

/* False: no memory; all is as before. */
static bool grow(const struct shelf *s, struct shard *d) {
    uint32_t capacity = d->capacity ? d->capacity * 2 : FIRST_ENTRIES;
    uint32_t *slots = malloc(capacity * sizeof *slots);
    char *entries = slots ? realloc(d->entries, capacity * s->stride) : NULL;
    if (!entries) {
        free(slots);
        return false;
    }
    free(d->slots);
    d->slots = slots;
    d->entries = entries;
    uint32_t before = d->capacity;
    d->capacity = capacity;
    memset(slots, 0xff, capacity * sizeof *slots);
    for (uint32_t i = capacity; i-- > 0;) {
        struct entry *e = at(s, d, i);
        if (i >= before)
            e->used = 0;
        uint32_t *link = e->used ? slot_of(s, d, &e->key) : &d->free;
        e->chain = *link;
        *link = i;
    }
    return true;
}

static uint32_t make(const struct shelf *s, struct shard *d, const struct shelf_key *k) {
    if (d->count >= d->most)
        drop(s, d, d->oldest);
    if (d->free == NONE && !grow(s, d)) {
        if (d->oldest == NONE)
            return NONE;
        drop(s, d, d->oldest);
    }
    uint32_t i = d->free;
    struct entry *e = at(s, d, i);
    d->free = e->chain;
    memset(e, 0, s->stride);
    e->key = *k;
    e->used = 1;
    uint32_t *slot = slot_of(s, d, k);
    e->chain = *slot;
    *slot = i;
    link_youngest(s, d, i);
    d->count++;
    return i;
}

/* -- outside -- */

void *shelf_enter(struct shelf *s, struct shelf_key k, bool want) {
    struct shard *d = shard_of(s, &k);
    pthread_mutex_lock(&d->lock);
    uint32_t i = find(s, d, &k);
    if (i != NONE) {
        unlink_age(s, d, i);
        link_youngest(s, d, i);
    } else if (want) {
        i = make(s, d, &k);
    }
    return i == NONE ? NULL : at(s, d, i)->value;
}

void shelf_leave(struct shelf *s, struct shelf_key k) {
    pthread_mutex_unlock(&shard_of(s, &k)->lock);
}

void shelf_remove(struct shelf *s, struct shelf_key k) {
    struct shard *d = shard_of(s, &k);
    uint32_t i = find(s, d, &k);
    CHECK(i != NONE);
    drop(s, d, i);
}

void shelf_set_most(struct shelf *s, size_t most) {
    for (unsigned i = 0; i < SHELF_SHARDS; i++) {
        struct shard *d = &s->shards[i];
        pthread_mutex_lock(&d->lock);
        d->most = share_of(most);
        while (d->count > d->most)
            drop(s, d, d->oldest);
        pthread_mutex_unlock(&d->lock);
    }
}

size_t shelf_count(struct shelf *s) {
    size_t count = 0;
    for (unsigned i = 0; i < SHELF_SHARDS; i++) {
        pthread_mutex_lock(&s->shards[i].lock);
        count += s->shards[i].count;
        pthread_mutex_unlock(&s->shards[i].lock);
    }
    return count;
}

void shelf_walk(struct shelf *s, unsigned shard, shelf_see see, void *arg) {
    struct shard *d = &s->shards[shard];
    pthread_mutex_lock(&d->lock);
    for (uint32_t i = d->oldest; i != NONE; i = at(s, d, i)->younger)
        see(arg, at(s, d, i)->key, at(s, d, i)->value);
    pthread_mutex_unlock(&d->lock);
}
