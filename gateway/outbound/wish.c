/*
 * wish: see wish.h. Nothing here speaks to a server: it reads the job, the wall clock and what the server offered.
 */
#include "base/clock.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/wish.h"

enum { BY_MAX_S = 999999999 }; /* RFC 2852 section 4: nine digits */

/* -- REQUIRETLS -- */

/* LMTP over a unix socket stays on this host. */
static bool is_within_host(const struct route *r) {
    return r->kind == ROUTE_LMTP && span_starts_nocase(span_of(r->host), SPAN("unix:"));
}

/* A server that does not know REQUIRETLS would not keep it (RFC 8689 section 4.2.1). */
static bool keeps_requiretls(const struct attempt *a) {
    bool wanted = a->job->has_requiretls && a->job->requiretls;
    return !wanted || is_within_host(&a->route) || a->conn->client.ext.requiretls;
}

/* -- DELIVERBY -- */

static bool has_time(const struct attempt *a) {
    return a->job->has_deliver_by_ms;
}

static bool is_notify(const struct attempt *a) {
    return a->job->has_deliver_by_notify && a->job->deliver_by_notify;
}

static bool is_trace(const struct attempt *a) {
    return a->job->has_deliver_by_trace && a->job->deliver_by_trace;
}

/* The next hop would pass it on. */
static bool is_relayed(const struct attempt *a, uint32_t i) {
    const Words__Recipient *r = a->job->recipients[i];
    return !attempt_is_lmtp(a) && !(r->has_local && r->local);
}

/* Whole seconds, negative when the time has passed. */
static int64_t left_s(const struct attempt *a) {
    uint64_t now = clock_wall_ms(), by = a->job->deliver_by_ms;
    uint64_t s = (by > now ? by - now : now - by) / 1000;
    int64_t left = s < BY_MAX_S ? (int64_t)s : BY_MAX_S;
    return by > now ? left : -left;
}

bool wish_check(struct attempt *a) {
    const struct client_extensions *ext = &a->conn->client.ext;
    if (!keeps_requiretls(a)) {
        struct attempt_result r = attempt_local_result(OUTCOME_NO_REQUIRETLS);
        attempt_judge_all(a, &r);
        return false;
    }
    if (!has_time(a) || is_notify(a))
        return true;
    int64_t left = left_s(a);
    bool over = a->job->deliver_by_ms <= clock_wall_ms();
    enum outcome_local what = OUTCOME_LOCALS;
    if (left <= 0) /* a relay cannot be given BY=0: for it the last second counts as over */
        what = OUTCOME_TIME_OVER;
    else if (!ext->deliver_by)
        what = OUTCOME_NO_DELIVERBY;
    else if ((uint64_t)left < ext->deliver_by_min_s)
        what = OUTCOME_TIME_SHORT;
    if (what == OUTCOME_LOCALS)
        return true;
    struct attempt_result r = attempt_local_result(what);
    r.remote = arena_dup(&a->mem, span_of(a->conn->remote));
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate == FATE_PENDING && (over || is_relayed(a, i)))
            attempt_judge(a, i, &r);
    }
    return a->open > 0;
}

/* Mode N, to be relayed by a server that will not know of the time. */
static bool is_forgotten(const struct attempt *a, uint32_t i) {
    return has_time(a) && is_notify(a) && is_relayed(a, i) && !a->conn->client.ext.deliver_by;
}

uint32_t wish_notify(const struct attempt *a, uint32_t recipient, uint32_t given) {
    if ((given & NOTIFY_NEVER) || !is_forgotten(a, recipient))
        return given;
    return (given ? given : (uint32_t)NOTIFY_FAILURE) | NOTIFY_DELAY;
}

uint32_t wish_hop(const struct attempt *a, uint32_t recipient, uint32_t usual) {
    const Words__Recipient *r = a->job->recipients[recipient];
    if (r->has_expanded && r->expanded && usual == HOP_REPORTS)
        usual = HOP_PLAIN; /* it was not asked to report success */
    if (!has_time(a) || !a->conn || !is_relayed(a, recipient))
        return usual;
    return is_forgotten(a, recipient) || is_trace(a) ? HOP_RELAYED : usual;
}

/* -- parameters -- */

void wish_fill(const struct attempt *a, struct client_mail *m) {
    const Words__Job *j = a->job;
    if (has_time(a)) {
        m->has_by = true;
        m->by_s = left_s(a);
        m->by_notify = is_notify(a);
        m->by_trace = is_trace(a);
    }
    m->has_mt_priority = j->has_mt_priority && j->mt_priority >= -9 && j->mt_priority <= 9;
    m->mt_priority = m->has_mt_priority ? j->mt_priority : 0;
    m->requiretls = j->has_requiretls && j->requiretls;
}
