/*
 * delivery: the delivery node as its own files see it. One thread owns all of it, except for what
 * stands under `lock`. outbound.c holds thread, bus and clock ticks; jobs.c the words of the bus;
 * attempt.c one job; site.c who may have a connection; conn.c one connection.
 */
#ifndef GATEWAY_OUTBOUND_DELIVERY_H
#define GATEWAY_OUTBOUND_DELIVERY_H

#include <pthread.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metrics.h"
#include "base/net/dns.h"
#include "base/rand.h"
#include "gateway/outbound/dead.h"
#include "gateway/outbound/mxcache.h"
#include "gateway/outbound/outbound.h"
#include "gateway/outbound/pace.h"
#include "gateway/outbound/report.h"
#include "gateway/outbound/setup.h"
#include "gateway/outbound/sts.h"
#include "gateway/outbound/tlsrpt.h"
#include "gateway/outbound/walk.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"

#define DELIVERY_CONVERTING_MAX (128u * 1024u * 1024u) /* octets of messages that are being converted */
#define DELIVERY_CACHE_ENTRIES 20000u
#define DELIVERY_CACHE_BYTES (32u * 1024u * 1024u)
#define DELIVERY_ROUTE_TTL_S 300u /* how long the scheduler may rely on a route's site */

struct outbound {
    struct outbound_config config;
    struct arena mem; /* of the config's texts */
    pthread_t thread;
    struct loop *loop;
    struct loop_wake *wake;
    struct loop_timer *tick; /* once a second */

    pthread_mutex_t lock;
    struct setup *incoming; /* settings to take over */
    bool want_drain, want_stop, want_pause;
    uint64_t drain_timeout_ms;
    void (*drained)(void *arg);
    void *drained_arg;

    struct setup *setup;
    struct bus_peer *scheduler, *admin;
    bool welcome, admin_welcome;
    uint64_t hello_ms, admin_hello_ms, admin_pause_ms; /* last sent; pause before the next to the admin hub */
    uint64_t epoch;
    struct dns *dns;
    struct mxcache *cache;
    mxcache_query query; /* of the resolver; NULL resolver: failures */
    struct http *http;
    struct sts *sts;       /* NULL: MTA-STS is off */
    struct tlsrpt *tlsrpt; /* NULL: no TLS reports */
    struct post_mail *post_mail; /* submits them; NULL: none are mailed */
    struct rand rand;
    uint64_t login_key; /* of login_site */
    struct dead dead;
    struct pace pace;
    struct loop_timer *pace_timer; /* looks at sites whose jobs may go again */
    uint64_t wake_ms;              /* what it was set for; 0: it is not */
    uint32_t pace_ticks;
    struct map attempts;    /* by number */
    struct list running;    /* the same, in the order of arrival */
    struct list spare;      /* attempts' memory, kept */
    struct list ticking;    /* those that the tick has still to look at */
    struct map sites;       /* by name */
    struct list hungry;     /* sites with jobs that wait */
    struct list idle;       /* connections without work, the longest idle first */
    struct list conns;      /* all of them */
    struct list gone_conns; /* ended ones, freed at the top of a turn */
    uint32_t slots;         /* connections open or being opened */
    struct reports reports;
    struct list explains;
    uint64_t job_bytes;
    size_t converting;
    struct buf scratch;
    bool draining, drain_done, paused; /* paused: draining without an end */
    uint64_t drain_end_ms;
};

static inline uint64_t delivery_hash(uint64_t number) {
    return hash_bytes(&number, sizeof number, 0);
}
static inline struct walk_world delivery_world(struct outbound *o) {
    return (struct walk_world){.cache = o->cache, .rand = &o->rand, .dead = &o->dead, .loop = o->loop};
}

/* jobs.c: what the scheduler says. */
void jobs_on_message(void *arg, const struct bus_message *m);
void jobs_send_hello(struct outbound *o);
/* jobs.c: asks for a chunk in the name of an attempt. */
void jobs_fetch(struct outbound *o, uint64_t attempt, uint64_t message, uint32_t number);
/* operator.c: what the admin hub says. */
void operator_on_message(void *arg, const struct bus_message *m);
void operator_send_hello(struct outbound *o);
/* explain.c: ADMIN_ROUTE, ADMIN_LIMITS, ADMIN_TLS_PROBE; answers by itself. */
void explain_start(struct outbound *o, uint64_t correlation, uint32_t verb, struct span address);
void explain_end_all(struct outbound *o);

#endif
