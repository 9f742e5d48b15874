/*
 * race: the addresses of one host, tried in the manner of happy eyeballs (RFC 8305): when the first does not connect in
 * ATTEMPT_RACE_MS, the next one is tried beside it, and whichever connects first is used. Each holds a slot of the
 * site; where none is free the first one is waited for. Addresses that did not answer a moment ago (dead.h) do not
 * race.
 */
#include "gateway/outbound/attempt.h"

METRIC_COUNTER(rivals_opened, "posthouse_delivery_rivals_total",
               "Connections to a second address of a host that was slow to connect");

void attempt_on_slow(struct attempt *a) {
    if (a->state != ATTEMPT_OPENING || a->rival_count == ATTEMPT_RIVALS_MAX)
        return;
    const struct mx_target *t = walk_rival(&a->walk, a->target.host);
    if (!t)
        return;
    struct mx_target target = *t;
    if (!site_keep_slot(a->site)) {
        walk_unmark(&a->walk, &target.addr);
        return;
    }
    struct conn *c = conn_open(a->o, a->site, a, &target);
    if (!c) {
        site_free_slot(a->site);
        return;
    }
    a->rivals[a->rival_count++] = c;
    metric_add(&rivals_opened, 1);
}

/* Nobody is told, and its address may be tried again: it was slow, not refused. */
static void drop(struct attempt *a, struct conn *c) {
    walk_unmark(&a->walk, &c->addr);
    c->attempt = NULL;
    conn_drop(c);
}

void attempt_on_connected(struct attempt *a, struct conn *c) {
    if (a->conn != c && a->conn)
        drop(a, a->conn);
    for (uint32_t i = 0; i < a->rival_count; i++) {
        if (a->rivals[i] != c)
            drop(a, a->rivals[i]);
    }
    a->rival_count = 0;
    a->conn = c;
    a->target.addr = c->addr;
}

bool attempt_lost_rival(struct attempt *a, struct conn *c) {
    if (a->rival_count == 0)
        return false;
    if (a->conn == c) {
        a->conn = a->rivals[--a->rival_count];
        return true;
    }
    for (uint32_t i = 0; i < a->rival_count; i++) {
        if (a->rivals[i] == c)
            a->rivals[i] = a->rivals[--a->rival_count];
    }
    return true;
}

void attempt_drop_rivals(struct attempt *a) {
    while (a->rival_count)
        drop(a, a->rivals[--a->rival_count]);
}
