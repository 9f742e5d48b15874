/*
 * explain_in: one question of the operator about the way of an address, as explain.c (hosts), explain_tls.c (TLS,
 * limits) and probe.c (a try at TLS) share it. Nobody else includes it.
 */
#ifndef GATEWAY_OUTBOUND_EXPLAIN_IN_H
#define GATEWAY_OUTBOUND_EXPLAIN_IN_H

#include "gateway/outbound/attempt.h"

#define EXPLAIN_STEPS_MAX 400

struct probe;
struct explain {
    struct list_node in_all;
    struct outbound *o;
    struct setup *setup;
    uint64_t correlation;
    uint32_t verb; /* ADMIN_ROUTE, ADMIN_LIMITS, ADMIN_TLS_PROBE */
    struct arena mem;
    const char *domain; /* of the address */
    const char *asked;  /* the domain whose MX is asked for, or the route's host */
    const struct outbound_route *rule;
    struct mx_policy policy;
    bool asking; /* for the MX */
    bool mx_authentic;
    struct mx_list list;
    struct group group;
    uint32_t group_from, group_next;
    bool cut, own, tempfail, bad; /* as a walk would see it */
    uint32_t addresses;
    struct mx_target targets[WALK_TRIES_MAX]; /* the first of them */
    const char *site;
    struct sts_wait sts;
    struct tls_demand demand;
    bool has_demand;
    struct probe *probe;
    Words__AdminStep *steps[EXPLAIN_STEPS_MAX];
    size_t count;
};
/* One line; NULL when there is no room (the answer is cut there). */
Words__AdminStep *explain_add(struct explain *x, const char *text);
/* The answer, and the end of x. */
void explain_answer(struct explain *x, const char *verdict);

/* explain_tls.c: what TLS must be like, and whatever else the question wants; then the answer. */
void explain_tls(struct explain *x);
/* explain_pace.c: pauses, rates and sources, for ADMIN_LIMITS. */
void explain_pace(struct explain *x);
/* explain_pace.c: the rates of the site and of the domain. */
void explain_rates(struct explain *x);
/* explain_pace.c: the addresses of ours that mail may go out from, and how; which pool it is depends on the sender. */
void explain_sources(struct explain *x);
/* probe.c: tries the addresses one after the other; then the answer. */
void probe_start(struct explain *x);
void probe_end(struct explain *x);

#endif
