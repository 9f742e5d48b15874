/*
 * front: one generation of what a reload may change: settings, composed texts, recipients. Immutable and
 * counted: sessions keep the generation that they began a transaction with.
 */
#ifndef GATEWAY_INBOUND_FRONT_H
#define GATEWAY_INBOUND_FRONT_H

#include <stdatomic.h>

#include "gateway/inbound/inbound.h"
#include "gateway/smtp/server.h"

struct front {
    atomic_uint references;
    struct inbound_settings settings;                     /* deep copy */
    struct server_settings server[INBOUND_LISTENERS_MAX]; /* of each listener; at least one */
    size_t server_count;
    struct inbound_parts parts; /* a reference each */
    struct arena mem;
};

int front_new(struct front **f, const struct inbound_settings *s, const struct inbound_parts *parts) MUST_CHECK;
struct front *front_ref(struct front *f);
void front_unref(struct front *f);
/* The client's address is in trusted_networks. */
bool front_trusts(const struct front *f, const struct tcp_addr *client);
/* ... in balancers: PROXY and XCLIENT are believed. */
bool front_believes(const struct front *f, const struct tcp_addr *peer);

#endif
