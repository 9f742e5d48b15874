/*
 * dead: a short memory of addresses that did not take a connection, so that they are tried last
 * for a while (never not at all). A fixed table: a newer address may push out an older one.
 */
#ifndef GATEWAY_OUTBOUND_DEAD_H
#define GATEWAY_OUTBOUND_DEAD_H

#include "base/net/tcp.h"

#define DEAD_SLOTS 1024u
#define DEAD_MS 60000u

struct dead {
    struct {
        uint64_t key, until_ms;
    } slots[DEAD_SLOTS];
};
void dead_mark(struct dead *d, const struct tcp_addr *a, uint64_t now_ms);
void dead_clear(struct dead *d, const struct tcp_addr *a);
bool dead_is(const struct dead *d, const struct tcp_addr *a, uint64_t now_ms);

#endif
