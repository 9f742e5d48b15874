/*
 * limits: what all loops of the front end share and must not exceed: connections in total and for each
 * client network, and the memory that buffers message bodies. Thread-safe.
 *
 * Memory is lent from two pools of equal size. A short body borrows LIMITS_SHORT; one that outgrows it
 * borrows LIMITS_LONG, which is enough for a message of any length, since it travels in chunks. Whoever holds
 * LIMITS_LONG never waits for memory again, so long bodies always come to their end and give back; those that
 * wait for it cannot block them. So the front end slows down when memory is tight, and never locks up.
 */
#ifndef GATEWAY_INBOUND_LIMITS_H
#define GATEWAY_INBOUND_LIMITS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "base/map.h"
#include "base/net/tcp.h"

enum limits_pool { LIMITS_POOL_SHORT, LIMITS_POOL_LONG };

struct limits {
    pthread_mutex_t lock; /* guards clients */
    struct map clients;
    uint32_t connections;          /* under lock */
    atomic_uint_fast64_t pool_max; /* of each pool */
    atomic_uint_fast64_t used[2];
};
struct limits_client;

void limits_init(struct limits *l);
void limits_deinit(struct limits *l);
/* Bytes for both pools together; at least 2 MiB are given. May change at any time. */
void limits_set_memory(struct limits *l, uint64_t bytes);

enum limits_verdict { LIMITS_WELCOME, LIMITS_TOTAL, LIMITS_CLIENT, LIMITS_NO_MEMORY };
/* Counts one connection from peer (IPv4 by address, IPv6 by /64). *client is to be given to limits_leave. */
enum limits_verdict limits_enter(struct limits *l, const struct tcp_addr *peer, uint32_t total_max, uint32_t client_max,
                                 struct limits_client **client);
uint32_t limits_connections(struct limits *l); /* now */
void limits_leave(struct limits *l, struct limits_client *client);

/* True: the bytes are yours until limits_give_back. */
bool limits_borrow(struct limits *l, enum limits_pool pool, uint64_t bytes);
void limits_give_back(struct limits *l, enum limits_pool pool, uint64_t bytes);

#endif
