/*
 * limits: one small map of client networks under a lock, and two counters.
 *
 * The lock is held for a look-up at the start and end of a connection, never for longer. A client
 * network has an entry only while it has a connection, so the map is bounded by the total.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/list.h"

#include "gateway/inbound/limits.h"

enum { POOL_MIN = 1024 * 1024 };

struct limits_client {
    struct map_node by_network;
    uint8_t network[16];
    uint32_t connections;
};

void limits_init(struct limits *l) {
    memset(l, 0, sizeof *l);
    CHECK(pthread_mutex_init(&l->lock, NULL) == 0);
    map_init(&l->clients);
    limits_set_memory(l, 0);
}

void limits_deinit(struct limits *l) {
    CHECK(l->clients.count == 0);
    map_deinit(&l->clients);
    pthread_mutex_destroy(&l->lock);
}

void limits_set_memory(struct limits *l, uint64_t bytes) {
    uint64_t pool = bytes / 2 > POOL_MIN ? bytes / 2 : POOL_MIN;
    atomic_store_explicit(&l->pool_max, pool, memory_order_relaxed);
}

/* IPv4 as ::ffff:a.b.c.d, whole; IPv6 cut to its /64; anything else is one network. */
static void network_of(const struct tcp_addr *peer, uint8_t to[16]) {
    memset(to, 0, 16);
    if (peer->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&peer->storage;
        to[10] = to[11] = 0xff;
        memcpy(to + 12, &in->sin_addr, 4);
    } else if (peer->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&peer->storage;
        memcpy(to, &in6->sin6_addr, tcp_addr_is_v6(peer) ? 8 : 16);
    }
}

static bool match_network(const struct map_node *n, const void *key) {
    return memcmp(CONTAINER_OF(n, struct limits_client, by_network)->network, key, 16) == 0;
}

static struct limits_client *find_or_add(struct limits *l, const uint8_t network[16]) {
    uint64_t hash = hash_bytes(network, 16, 0);
    struct map_node *n = map_find(&l->clients, hash, match_network, network);
    if (n)
        return CONTAINER_OF(n, struct limits_client, by_network);
    struct limits_client *c = calloc(1, sizeof *c);
    if (!c || map_insert(&l->clients, &c->by_network, hash)) {
        free(c);
        return NULL;
    }
    memcpy(c->network, network, 16);
    return c;
}

enum limits_verdict limits_enter(struct limits *l, const struct tcp_addr *peer, uint32_t total_max, uint32_t client_max,
                                 struct limits_client **client) {
    uint8_t network[16];
    enum limits_verdict verdict = LIMITS_WELCOME;
    network_of(peer, network);
    pthread_mutex_lock(&l->lock);
    struct limits_client *c = l->connections < total_max ? find_or_add(l, network) : NULL;
    if (l->connections >= total_max)
        verdict = LIMITS_TOTAL;
    else if (!c)
        verdict = LIMITS_NO_MEMORY;
    else if (c->connections >= client_max)
        verdict = LIMITS_CLIENT;
    if (verdict == LIMITS_WELCOME) {
        c->connections++;
        l->connections++;
    } else if (c && c->connections == 0) {
        map_remove(&l->clients, &c->by_network);
        free(c);
    }
    pthread_mutex_unlock(&l->lock);
    *client = verdict == LIMITS_WELCOME ? c : NULL;
    return verdict;
}

uint32_t limits_connections(struct limits *l) {
    pthread_mutex_lock(&l->lock);
    uint32_t n = l->connections;
    pthread_mutex_unlock(&l->lock);
    return n;
}

void limits_leave(struct limits *l, struct limits_client *client) {
    pthread_mutex_lock(&l->lock);
    l->connections--;
    if (--client->connections == 0) {
        map_remove(&l->clients, &client->by_network);
        free(client);
    }
    pthread_mutex_unlock(&l->lock);
}

bool limits_borrow(struct limits *l, enum limits_pool pool, uint64_t bytes) {
    uint64_t max = atomic_load_explicit(&l->pool_max, memory_order_relaxed);
    uint64_t used = atomic_load_explicit(&l->used[pool], memory_order_relaxed);
    do {
        if (bytes > max || used > max - bytes)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&l->used[pool], &used, used + bytes, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void limits_give_back(struct limits *l, enum limits_pool pool, uint64_t bytes) {
    atomic_fetch_sub_explicit(&l->used[pool], bytes, memory_order_relaxed);
}
