/*
 * outcome: what a report, a lost node or a late hour makes of a recipient.
 *
 * Each recipient of an attempt gets exactly one outcome: the one reported for it, or "deferred" when
 * the report is silent about it. Outcomes of one job share one draw for their jitter, so that
 * recipients of one message to one destination stay together. What a report tells of the site
 * is taken after its recipients: the site learns once per job.
 */
#include <stdio.h>

#include "base/buf.h"
#include "base/units.h"
#include "scheduler/core/core.h"
#include "scheduler/core/retry.h"

#define WAIT_MOST_MS 86400000u
#define RETURNED_PAUSE_MS 250u /* so that a node that hands back at once does not spin */

struct judge { /* of one attempt */
    uint64_t attempt, draw;
    bool host_failed, worked;
};

/* Gives up: the sender gets the last thing that was heard. */
static void expire_as(struct sched *s, struct message *m, struct recipient *r, uint64_t attempt, struct span enhanced,
                      const char *why) {
    struct sched_result last = {0};
    bool known = core_view_result(r, &last);
    char text[1024];
    struct buf b;
    buf_init(&b, 2048);
    buf_add_str(&b, why);
    if (known && last.text.len) {
        buf_add_str(&b, ": ");
        buf_add(&b, last.text);
    }
    size_t len = span_copy(buf_span(&b), text, sizeof text);
    buf_deinit(&b);
    struct sched_result result = {
        .outcome = SCHED_OUT_FAILED,
        .scope = known ? last.scope : (uint32_t)SCHED_SCOPE_DESTINATION,
        .enhanced = enhanced,
        .text = {text, len},
        .remote = known ? last.remote : SPAN_EMPTY,
    };
    s->counts.failed++;
    s->counts.expired++;
    core_trace(s, m, SCHED_TRACE_EXPIRED, r->index, attempt, 0, SPAN_EMPTY, &result);
    result = core_copy_result(s, &result); /* it borrows from what is replaced now */
    core_set_result(r, &result);
    core_set_state(s, m, r, SCHED_FAILED);
    core_report_failure(s, m, r);
}

/* Its time is over: that of the settings, or that of the sender's wish. */
static void expire(struct sched *s, struct message *m, struct recipient *r, uint64_t attempt) {
    char period[32], why[64];
    if (core_message_is_overdue(s, m)) {
        expire_as(s, m, r, attempt, SPAN("5.4.7"), "delivery time expired");
        return;
    }
    units_format_duration(s->config.retry.give_up_ms, period, sizeof period);
    snprintf(why, sizeof why, "not delivered within %s", period);
    expire_as(s, m, r, attempt, SPAN("4.4.7"), why);
}

bool core_is_over(const struct sched *s, const struct message *m, uint64_t due_ms) {
    return core_message_is_overdue(s, m) || retry_is_over(&s->config.retry, m->from_ms, due_ms);
}

void core_put_off(struct sched *s, struct message *m, struct recipient *r, uint64_t due_ms, enum core_want want) {
    if (m->by_ms > s->now && due_ms > m->by_ms)
        due_ms = m->by_ms;
    core_set_state(s, m, r, SCHED_DEFERRED);
    bool later = want == CORE_WANT_SITE && r->dest->stop && !core_is_over(s, m, s->now);
    if (later && core_is_over(s, m, due_ms))
        due_ms = m->from_ms + s->config.retry.give_up_ms; /* it may be resumed before that */
    if (want == CORE_WANT_SITE && core_is_over(s, m, due_ms)) {
        expire(s, m, r, 0);
        return;
    }
    r->due_ms = due_ms;
    core_mark_dirty(s, r);
    if (want != CORE_WANT_SITE)
        return;
    core_trace(s, m, SCHED_TRACE_SUSPENDED, r->index, 0, due_ms, SPAN_EMPTY, NULL);
    core_report_delay(s, m, r);
}

/* After an attempt: until due_ms, unless that is too late. The result is kept in r. */
static void retry_at(struct sched *s, struct message *m, struct recipient *r, uint64_t due_ms,
                     enum sched_trace_kind kind, uint64_t attempt) {
    struct sched_result result;
    bool known = core_view_result(r, &result);
    bool ordered = r->order && r->order->wish, rerouted = r->order && r->order->dest;
    core_set_state(s, m, r, SCHED_DEFERRED);
    if (rerouted && kind == SCHED_TRACE_DEFERRED)
        due_ms = s->now; /* another way, at once */
    bool over = core_is_over(s, m, due_ms);
    core_trace(s, m, kind, r->index, attempt, over || ordered ? 0 : due_ms, SPAN_EMPTY, known ? &result : NULL);
    if (core_order_apply(s, m, r))
        return;
    if (over) {
        expire(s, m, r, attempt);
        return;
    }
    r->due_ms = due_ms;
    core_mark_dirty(s, r);
    core_report_delay(s, m, r);
}

/* -- DELIVERBY -- */

void core_overdue(struct sched *s, struct message *m, struct recipient *r) {
    CHECK(core_message_is_overdue(s, m));
    if (r->state == SCHED_READY)
        core_set_state(s, m, r, SCHED_DEFERRED);
    expire(s, m, r, 0);
}

static void pass_deadline(struct sched *s, struct message *m) {
    for (uint32_t i = 0; i < m->count; i++) {
        struct recipient *r = &m->at[i];
        if (r->state != SCHED_READY && r->state != SCHED_ASSIGNED && r->state != SCHED_DEFERRED)
            continue;
        if (m->by_notify) {
            core_report_delay(s, m, r);
        } else if (r->state != SCHED_ASSIGNED) { /* that one has its last try */
            if (r->state == SCHED_READY)
                core_ready_take(s, r);
            core_overdue(s, m, r);
        }
    }
    core_message_check(s, m);
}

void core_deadlines(struct sched *s) {
    struct heap_node *n;
    for (uint32_t left = CORE_DEADLINES_STEP; left-- > 0 && (n = heap_first(&s->deadlines));) {
        struct message *m = LIST_ENTRY(n, struct message, deadline);
        if (m->by_ms > s->now)
            return;
        heap_remove(&s->deadlines, n);
        pass_deadline(s, m);
    }
}

static void add_attempt(struct recipient *r) {
    if (r->attempts < UINT16_MAX)
        r->attempts++;
}

/* Never sooner than a whole interval, but for giving it up. */
static void doubt_until(struct sched *s, struct message *m, struct recipient *r, uint64_t draw, uint64_t attempt) {
    uint64_t due_ms = retry_doubt_due_ms(&s->config.retry, r->attempts, s->now, draw);
    if (m->by_ms && !m->by_notify && due_ms > m->by_ms)
        due_ms = m->by_ms > s->now ? m->by_ms : s->now;
    retry_at(s, m, r, due_ms, SCHED_TRACE_IN_DOUBT, attempt);
}

void core_in_doubt(struct sched *s, struct message *m, struct recipient *r, uint64_t attempt, uint64_t draw) {
    const struct sched_result lost = {
        .outcome = SCHED_OUT_IN_DOUBT,
        .scope = SCHED_SCOPE_MESSAGE,
        .enhanced = SPAN("4.4.2"),
        .text = SPAN("the delivery node went away before it reported; the message may have arrived"),
    };
    add_attempt(r);
    s->counts.in_doubt++;
    core_set_result(r, &lost);
    doubt_until(s, m, r, draw, attempt);
}

static void on_delivered(struct sched *s, struct message *m, struct recipient *r, const struct sched_result *result,
                         const struct judge *j) {
    add_attempt(r);
    s->counts.delivered++;
    core_trace(s, m, SCHED_TRACE_DELIVERED, r->index, j->attempt, 0, SPAN_EMPTY, result);
    if ((r->notify & SCHED_NOTIFY_SUCCESS) || result->hop == SCHED_HOP_RELAYED)
        core_set_result(r, result);
    core_order_drop(s, r);
    core_set_state(s, m, r, SCHED_DELIVERED);
    core_report_success(s, m, r, result->hop);
}

static void on_failed(struct sched *s, struct message *m, struct recipient *r, const struct sched_result *result,
                      const struct judge *j) {
    add_attempt(r);
    s->counts.failed++;
    core_trace(s, m, SCHED_TRACE_FAILED, r->index, j->attempt, 0, SPAN_EMPTY, result);
    core_order_drop(s, r);
    core_set_result(r, result);
    core_set_state(s, m, r, SCHED_FAILED);
    core_report_failure(s, m, r);
}

static void on_deferred(struct sched *s, struct message *m, struct recipient *r, const struct sched_result *result,
                        const struct judge *j) {
    add_attempt(r);
    s->counts.deferrals++;
    core_set_result(r, result);
    uint64_t due_ms = retry_due_ms(&s->config.retry, r->attempts, s->now, j->draw);
    due_ms = retry_by_ms(due_ms, s->now, m->by_ms, m->by_notify);
    retry_at(s, m, r, due_ms, SCHED_TRACE_DEFERRED, j->attempt);
}

static void on_doubt(struct sched *s, struct message *m, struct recipient *r, const struct sched_result *result,
                     const struct judge *j) {
    add_attempt(r);
    s->counts.in_doubt++;
    core_set_result(r, result);
    doubt_until(s, m, r, j->draw, j->attempt);
}

static void judge_one(struct sched *s, struct message *m, struct recipient *r, const struct sched_result *result,
                      struct judge *j) {
    bool wide = result->scope == SCHED_SCOPE_HOST || result->scope == SCHED_SCOPE_DESTINATION;
    switch (result->outcome) {
    case SCHED_OUT_RETURNED:
        r->returned = 1; /* goes back when all are known, so that their order stays */
        return;
    case SCHED_OUT_DELIVERED:
        j->worked = true;
        on_delivered(s, m, r, result, j);
        return;
    case SCHED_OUT_FAILED:
        j->worked = j->worked || !wide;
        on_failed(s, m, r, result, j);
        return;
    case SCHED_OUT_IN_DOUBT:
        j->host_failed = true;
        on_doubt(s, m, r, result, j);
        return;
    default: /* deferred, and what we do not know */
        j->host_failed = j->host_failed || wide;
        j->worked = j->worked || !wide;
        on_deferred(s, m, r, result, j);
        return;
    }
}

/* The recipients that the report was silent about, and those handed back. */
static uint32_t settle_rest(struct sched *s, struct attempt *a, struct judge *j, uint64_t wait_ms) {
    const struct sched_result silent = {
        .outcome = SCHED_OUT_DEFERRED,
        .scope = SCHED_SCOPE_RECIPIENT,
        .enhanced = SPAN("4.3.0"),
        .text = SPAN("the delivery node gave no result for this recipient"),
    };
    struct message *m = a->message;
    uint32_t returned = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        struct recipient *r = &m->at[a->indexes[i]];
        if (r->state == SCHED_ASSIGNED && r->attempt == a && !r->returned)
            on_deferred(s, m, r, &silent, j);
        else if (r->state == SCHED_ASSIGNED && r->attempt == a)
            core_trace(s, m, SCHED_TRACE_RETURNED, r->index, a->id, 0, SPAN_EMPTY, NULL);
    }
    for (uint32_t i = a->count; i-- > 0;) {
        struct recipient *r = &m->at[a->indexes[i]];
        if (r->state != SCHED_ASSIGNED || r->attempt != a)
            continue;
        r->returned = 0;
        if (core_order_apply(s, m, r))
            continue;
        if (core_message_is_overdue(s, m)) {
            core_set_state(s, m, r, SCHED_DEFERRED);
            core_overdue(s, m, r);
            continue;
        }
        if (wait_ms) {
            core_put_off(s, m, r, s->now + (wait_ms < WAIT_MOST_MS ? wait_ms : WAIT_MOST_MS), CORE_WANT_SITE);
            continue;
        }
        core_set_state(s, m, r, SCHED_READY);
        core_ready_put(s, m, r, true);
        returned++;
    }
    return returned;
}

static void tell_site(struct sched *s, struct dest *d, const struct sched_report *e, const struct judge *j,
                      bool handed_back) {
    struct site *site = d->site;
    if (e->pause_ms)
        core_site_suspend(s, site, e->pause_ms);
    else if (e->site_failed)
        core_site_fail(s, site);
    else if (j->host_failed)
        core_site_shrink(s, site);
    else if (j->worked)
        core_site_success(s, site);
    if (handed_back && !e->site_failed && !e->wait_ms)
        core_site_pause(s, site, RETURNED_PAUSE_MS);
}

static struct attempt *find_reported(struct sched *s, const struct sched_report *e) {
    struct attempt *a = core_attempt_find(s, e->attempt);
    /* An attempt whose batch is not durable was not sent yet: nobody can know of it. */
    if (!a || a->worker->number != e->worker || a->message->id != e->message || a->batch > s->done)
        return NULL;
    return a;
}

int core_on_reported(struct sched *s, const struct sched_report *e) {
    struct attempt *a = find_reported(s, e);
    struct sched_action *ack = core_act(s, SCHED_REPORT_ACK);
    ack->attempt.attempt = e->attempt;
    ack->attempt.worker = e->worker;
    if (!a || (e->count && (!e->indexes || !e->results)))
        return ERR_INVALID;
    struct message *m = a->message;
    struct dest *d = a->dest;
    struct judge j = {.attempt = a->id, .draw = rand_u64(&s->rand)};
    struct site *before = d->site;
    core_site_name(s, d, e->site, e->site_ttl_ms);
    bool moved = before != d->site;
    for (uint32_t i = 0; i < e->count; i++) {
        struct recipient *r = e->indexes[i] < m->count ? &m->at[e->indexes[i]] : NULL;
        if (r && r->state == SCHED_ASSIGNED && r->attempt == a && !r->returned)
            judge_one(s, m, r, &e->results[i], &j);
    }
    uint32_t returned = settle_rest(s, a, &j, e->wait_ms);
    tell_site(s, d, e, &j, returned && !moved);
    core_attempt_end(s, a);
    core_message_check(s, m);
    return ERR_OK;
}
