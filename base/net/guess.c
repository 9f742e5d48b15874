/*
 * guess: see guess.h. One map under one lock. A counter with no failures and no try under way is dropped; the others
 * are in a list by the time of their last use unless a try is under way, so that the oldest makes room when the map is
 * full.
 *
 * Names are not kept: a counter's key is 128 bits of hash under a seed of the process, which strangers cannot aim at.
 */
#include "base/net/guess.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/rand.h"

enum { DELAY_MAX_MS = 16000 };

struct counter {
    struct map_node node;
    struct list_node lru; /* linked only while open is 0 */
    struct guess_key key;
    uint64_t since_ms; /* of the window: the first failure */
    uint32_t failures, open;
};
struct guess {
    atomic_uint refs;
    pthread_mutex_t lock;
    struct map map;
    struct list lru; /* oldest first */
    uint32_t max;
    uint64_t seeds[2];
};

struct guess *guess_new(uint32_t entries) {
    struct guess *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    atomic_init(&g->refs, 1);
    CHECK(pthread_mutex_init(&g->lock, NULL) == 0);
    map_init(&g->map);
    list_init(&g->lru);
    g->max = entries;
    rand_secure(g->seeds, sizeof g->seeds);
    return g;
}

struct guess *guess_ref(struct guess *g) {
    atomic_fetch_add(&g->refs, 1);
    return g;
}

static void drop(struct guess *g, struct counter *c) {
    if (list_is_linked(&c->lru))
        list_remove(&g->lru, &c->lru);
    map_remove(&g->map, &c->node);
    free(c);
}

void guess_unref(struct guess *g) {
    if (!g || atomic_fetch_sub(&g->refs, 1) != 1)
        return;
    struct map_node *n;
    while ((n = map_next(&g->map, NULL)))
        drop(g, CONTAINER_OF(n, struct counter, node));
    map_deinit(&g->map);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static struct guess_key key_of(const struct guess *g, const void *bytes, size_t len) {
    return (struct guess_key){hash_bytes(bytes, len, g->seeds[0]), hash_bytes(bytes, len, g->seeds[1])};
}

struct guess_key guess_key_client(const struct guess *g, const struct tcp_addr *client) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t bytes[17] = {0};
    if (client->storage.ss_family == AF_INET) {
        bytes[0] = 4;
        memcpy(bytes + 1, &((const struct sockaddr_in *)&client->storage)->sin_addr, 4);
    } else if (client->storage.ss_family == AF_INET6) {
        const uint8_t *v6 = ((const struct sockaddr_in6 *)&client->storage)->sin6_addr.s6_addr;
        bool is_v4 = memcmp(v6, mapped, sizeof mapped) == 0;
        bytes[0] = is_v4 ? 4 : 6;
        memcpy(bytes + 1, is_v4 ? v6 + 12 : v6, is_v4 ? 4 : 8);
    }
    return key_of(g, bytes, sizeof bytes);
}

struct guess_key guess_key_account(const struct guess *g, struct span account) {
    return (struct guess_key){hash_span_nocase(account, g->seeds[0] + 1), hash_span_nocase(account, g->seeds[1] + 1)};
}

static bool match(const struct map_node *n, const void *key) {
    const struct counter *c = CONTAINER_OF(n, struct counter, node);
    const struct guess_key *k = key;
    return c->key.a == k->a && c->key.b == k->b;
}

/* With the lock; the window of a counter that has passed is closed. */
static struct counter *find(struct guess *g, struct guess_key key, uint64_t window_ms, uint64_t now_ms) {
    struct map_node *n = map_find(&g->map, key.a, match, &key);
    struct counter *c = n ? CONTAINER_OF(n, struct counter, node) : NULL;
    if (c && c->failures && now_ms - c->since_ms >= window_ms)
        c->failures = 0;
    return c;
}

static struct counter *make(struct guess *g, struct guess_key key) {
    if (g->map.count >= g->max) {
        struct list_node *oldest = list_first(&g->lru);
        if (!oldest)
            return NULL;
        drop(g, CONTAINER_OF(oldest, struct counter, lru));
    }
    struct counter *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->key = key;
    if (map_insert(&g->map, &c->node, key.a) != ERR_OK) {
        free(c);
        return NULL;
    }
    return c;
}

enum guess_verdict guess_admit(struct guess *g, struct guess_key key, uint32_t cap, uint64_t window_ms,
                               uint64_t now_ms) {
    enum guess_verdict verdict = GUESS_REFUSED;
    pthread_mutex_lock(&g->lock);
    struct counter *c = find(g, key, window_ms, now_ms);
    if (!c)
        c = make(g, key);
    if (c && c->failures < cap) {
        verdict = (uint64_t)c->failures + c->open < cap ? GUESS_GO : GUESS_WAIT;
        if (verdict == GUESS_GO && c->open++ == 0 && list_is_linked(&c->lru))
            list_remove(&g->lru, &c->lru);
    }
    pthread_mutex_unlock(&g->lock);
    return verdict;
}

uint32_t guess_end(struct guess *g, struct guess_key key, bool bad, uint64_t window_ms, uint64_t now_ms) {
    pthread_mutex_lock(&g->lock);
    struct counter *c = find(g, key, window_ms, now_ms);
    CHECK(c && c->open > 0);
    c->open--;
    if (bad && c->failures++ == 0)
        c->since_ms = now_ms;
    uint32_t failures = c->failures;
    if (c->open == 0 && failures == 0)
        drop(g, c);
    else if (c->open == 0)
        list_push_back(&g->lru, &c->lru);
    pthread_mutex_unlock(&g->lock);
    return failures;
}

bool guess_is_over(struct guess *g, struct guess_key key, uint32_t cap, uint64_t window_ms, uint64_t now_ms) {
    pthread_mutex_lock(&g->lock);
    const struct counter *c = find(g, key, window_ms, now_ms);
    bool over = c && c->failures >= cap;
    pthread_mutex_unlock(&g->lock);
    return over;
}

size_t guess_count(struct guess *g) {
    pthread_mutex_lock(&g->lock);
    size_t count = g->map.count;
    pthread_mutex_unlock(&g->lock);
    return count;
}

uint64_t guess_delay_ms(uint32_t failures, uint64_t base_ms) {
    uint64_t delay = base_ms;
    if (base_ms == 0 || base_ms >= DELAY_MAX_MS)
        return base_ms;
    for (uint32_t i = 1; i < failures && delay < DELAY_MAX_MS; i++)
        delay *= 2;
    return delay < DELAY_MAX_MS ? delay : DELAY_MAX_MS;
}
