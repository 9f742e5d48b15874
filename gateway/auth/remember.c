/*
 * remember: see remember.h. Entries are in a map by their digest and in a list by age; all live equally long, so the
 * oldest ends first, and makes room when the map is full.
 */
#include "gateway/auth/remember.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"
#include "base/net/secret.h"
#include "base/rand.h"

struct good {
    struct map_node node;
    struct list_node age;
    uint8_t digest[32];
    uint64_t until_ms;
    char canonical[256];
};
struct remember {
    pthread_mutex_t lock;
    struct map map;
    struct list ages; /* oldest first */
    uint32_t max;
    uint64_t keep_ms;
    uint8_t key[32];
};

struct remember *remember_new(uint32_t entries, uint64_t keep_ms) {
    struct remember *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    CHECK(pthread_mutex_init(&r->lock, NULL) == 0);
    map_init(&r->map);
    list_init(&r->ages);
    r->max = entries;
    r->keep_ms = keep_ms;
    rand_secure(r->key, sizeof r->key);
    return r;
}

static void drop(struct remember *r, struct good *g) {
    list_remove(&r->ages, &g->age);
    map_remove(&r->map, &g->node);
    secret_wipe(g, sizeof *g);
    free(g);
}

void remember_free(struct remember *r) {
    if (!r)
        return;
    struct list_node *oldest;
    while ((oldest = list_first(&r->ages)))
        drop(r, CONTAINER_OF(oldest, struct good, age));
    map_deinit(&r->map);
    pthread_mutex_destroy(&r->lock);
    secret_wipe(r->key, sizeof r->key);
    free(r);
}

/* Each part has a digest of its own, so that no two pairs are the same text. */
static void digest_of(struct remember *r, struct span account, struct span password, uint8_t to[32]) {
    uint8_t parts[64];
    struct span key = span_make(r->key, sizeof r->key);
    secret_hmac_sha256(key, account, parts);
    secret_hmac_sha256(key, password, parts + 32);
    secret_hmac_sha256(key, span_make(parts, sizeof parts), to);
    secret_wipe(parts, sizeof parts);
}

static bool match(const struct map_node *n, const void *digest) {
    const struct good *g = CONTAINER_OF(n, struct good, node);
    return secret_equal(span_make(g->digest, 32), span_make(digest, 32));
}

/* With the lock. */
static struct good *find(struct remember *r, const uint8_t digest[32], uint64_t now_ms) {
    struct list_node *oldest;
    while ((oldest = list_first(&r->ages)) && CONTAINER_OF(oldest, struct good, age)->until_ms <= now_ms)
        drop(r, CONTAINER_OF(oldest, struct good, age));
    uint64_t hash;
    memcpy(&hash, digest, sizeof hash);
    struct map_node *n = map_find(&r->map, hash, match, digest);
    return n ? CONTAINER_OF(n, struct good, node) : NULL;
}

static void insert(struct remember *r, const uint8_t digest[32], struct span canonical, uint64_t now_ms) {
    struct list_node *oldest = list_first(&r->ages);
    if (r->map.count >= r->max && oldest)
        drop(r, CONTAINER_OF(oldest, struct good, age));
    struct good *g = calloc(1, sizeof *g);
    if (!g)
        return; /* then it is asked again */
    memcpy(g->digest, digest, sizeof g->digest);
    span_copy(canonical, g->canonical, sizeof g->canonical);
    g->until_ms = now_ms + r->keep_ms;
    uint64_t hash;
    memcpy(&hash, digest, sizeof hash);
    if (map_insert(&r->map, &g->node, hash) == ERR_OK)
        list_push_back(&r->ages, &g->age);
    else
        free(g);
}

void remember_add(struct remember *r, struct span account, struct span password, struct span canonical,
                  uint64_t now_ms) {
    uint8_t digest[32];
    digest_of(r, account, password, digest);
    pthread_mutex_lock(&r->lock);
    struct good *old = find(r, digest, now_ms);
    if (old)
        drop(r, old);
    insert(r, digest, canonical, now_ms);
    pthread_mutex_unlock(&r->lock);
}

bool remember_has(struct remember *r, struct span account, struct span password, char canonical[256], uint64_t now_ms) {
    uint8_t digest[32];
    digest_of(r, account, password, digest);
    pthread_mutex_lock(&r->lock);
    const struct good *g = find(r, digest, now_ms);
    if (g)
        memcpy(canonical, g->canonical, sizeof g->canonical);
    pthread_mutex_unlock(&r->lock);
    return g != NULL;
}
