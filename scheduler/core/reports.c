/*
 * reports: when a message's sender is told what, and what is not told.
 *
 * A FAILED recipient stays FAILED in the store until its report is enqueued, in the batch that
 * settles it: a crash in between composes it again. All failures of a message are gathered until none
 * of its recipients is READY or ASSIGNED, or report_delay_ms passed since the first. Delay notices
 * (once per recipient) and success reports are gathered the same way. One composition per
 * message is under way at a time: failures first, then delays, then successes.
 *
 * No report is made for a null return path, for NOTIFY rules that forbid it, or on a report;
 * the reason is traced.
 */
#include <stdlib.h>

#include "base/base32.h"
#include "scheduler/core/core.h"
#include "scheduler/core/retry.h"

/* Why there is none of this kind for r; empty: there is one. */
static struct span refusal(const struct message *m, const struct recipient *r, enum sched_report_kind kind) {
    unsigned wanted = kind == SCHED_REPORT_FAILED    ? SCHED_NOTIFY_FAILURE
                      : kind == SCHED_REPORT_DELAYED ? SCHED_NOTIFY_DELAY
                                                     : SCHED_NOTIFY_SUCCESS;
    if (m->report)
        return SPAN("a report is not reported on");
    if (m->null_sender)
        return SPAN("the return path is empty");
    if (r->notify & SCHED_NOTIFY_NEVER)
        return SPAN("the sender asked for none (NOTIFY=NEVER)");
    if (r->notify ? !(r->notify & wanted) : kind == SCHED_REPORT_DELIVERED)
        return SPAN("the sender did not ask for it (NOTIFY)");
    return SPAN_EMPTY;
}

static void open_news(struct sched *s, struct message *m) {
    if (m->news)
        return;
    m->news = core_must_alloc(sizeof *m->news);
    m->news->message = m;
    m->news->since_ms = s->now;
    list_push_back(&s->timers, &m->news->timer);
}

void core_report_open(struct sched *s, struct message *m) {
    open_news(s, m);
}

void core_report_close(struct sched *s, struct message *m) {
    if (list_is_linked(&m->news->timer))
        list_remove(&s->timers, &m->news->timer);
    free(m->news);
    m->news = NULL;
}

/* -- what is to be told -- */

static void settle(struct sched *s, struct message *m, struct recipient *r) {
    core_set_state(s, m, r, SCHED_SETTLED);
    core_mark_dirty(s, r);
}

void core_report_failure(struct sched *s, struct message *m, struct recipient *r) {
    struct span why = refusal(m, r, SCHED_REPORT_FAILED);
    if (why.len) {
        s->counts.no_reports++;
        core_trace(s, m, SCHED_TRACE_NO_REPORT, r->index, 0, 0, why, NULL);
        settle(s, m, r);
        return;
    }
    core_mark_dirty(s, r);
    open_news(s, m);
}

void core_report_success(struct sched *s, struct message *m, struct recipient *r, uint32_t hop) {
    /* A next hop with DSN was handed the NOTIFY and reports itself (RFC 3461 section 5.2.2). */
    bool wanted = hop == SCHED_HOP_RELAYED ? !m->report && !m->null_sender && !(r->notify & SCHED_NOTIFY_NEVER)
                                           : hop != SCHED_HOP_REPORTS && !refusal(m, r, SCHED_REPORT_DELIVERED).len;
    if (!wanted) {
        settle(s, m, r);
        return;
    }
    core_mark_dirty(s, r);
    open_news(s, m);
}

void core_report_delay(struct sched *s, struct message *m, struct recipient *r) {
    bool late = retry_is_late(&s->config.retry, m->from_ms, s->now) || (m->by_ms && m->by_ms <= s->now);
    if (!late || r->delay_notified || r->delay_wanted || refusal(m, r, SCHED_REPORT_DELAYED).len)
        return;
    r->delay_wanted = 1;
    open_news(s, m);
    m->news->delays++;
}

/* -- composing -- */

static bool belongs(const struct recipient *r, enum sched_report_kind kind) {
    switch (kind) {
    case SCHED_REPORT_FAILED:
        return r->state == SCHED_FAILED;
    case SCHED_REPORT_DELIVERED:
        return r->state == SCHED_DELIVERED;
    case SCHED_REPORT_DELAYED:
        return r->delay_wanted && (r->state == SCHED_READY || r->state == SCHED_ASSIGNED || r->state == SCHED_DEFERRED);
    }
    CHECK_UNREACHABLE();
}

static bool compose(struct sched *s, struct message *m, enum sched_report_kind kind) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->count; i++)
        count += belongs(&m->at[i], kind);
    if (!count)
        return false;
    uint32_t *indexes = core_arena(s, count * sizeof *indexes);
    struct sched_result *results = core_arena(s, count * sizeof *results), view;
    count = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        struct recipient *r = &m->at[i];
        if (!belongs(r, kind))
            continue;
        view = (struct sched_result){0};
        if (!core_view_result(r, &view))
            view.outcome = kind == SCHED_REPORT_FAILED    ? SCHED_OUT_FAILED
                           : kind == SCHED_REPORT_DELAYED ? SCHED_OUT_DEFERRED
                                                          : SCHED_OUT_DELIVERED;
        r->reporting = 1;
        indexes[count] = i;
        results[count++] = core_copy_result(s, &view);
    }
    struct sched_action *a = core_act(s, SCHED_COMPOSE);
    m->news->compose = ++s->last_compose;
    m->news->kind = kind;
    a->compose.id = m->id;
    a->compose.compose = m->news->compose;
    a->compose.kind = kind;
    a->compose.indexes = indexes;
    a->compose.results = results;
    a->compose.count = count;
    if (kind == SCHED_REPORT_DELAYED) {
        uint64_t until_ms = m->from_ms + s->config.retry.give_up_ms;
        a->compose.will_retry_until_ms = m->by_ms && !m->by_notify && m->by_ms < until_ms ? m->by_ms : until_ms;
    }
    return true;
}

void core_report_check(struct sched *s, struct message *m) {
    struct news *n = m->news;
    if (n->compose)
        return;
    bool wanted = m->waiting || n->delays;
    if (wanted && m->work && s->now < n->since_ms + s->config.report_delay_ms)
        return;
    static const enum sched_report_kind order[] = {SCHED_REPORT_FAILED, SCHED_REPORT_DELAYED, SCHED_REPORT_DELIVERED};
    for (int i = 0; wanted && i < 3; i++)
        if (compose(s, m, order[i])) {
            if (list_is_linked(&n->timer))
                list_remove(&s->timers, &n->timer);
            return;
        }
    core_report_close(s, m);
}

void core_report_timers(struct sched *s) {
    for (struct list_node *t; (t = list_first(&s->timers));) {
        struct news *n = LIST_ENTRY(t, struct news, timer);
        if (s->now < n->since_ms + s->config.report_delay_ms)
            return;
        /* Out of the list first: a pinned message is looked at again when its batch has ended. */
        list_remove(&s->timers, &n->timer);
        core_message_check(s, n->message);
    }
}

/* -- composed -- */

static void close_one(struct sched *s, struct message *m, struct recipient *r, enum sched_report_kind kind) {
    r->reporting = 0;
    if (kind != SCHED_REPORT_DELAYED) {
        settle(s, m, r);
        return;
    }
    r->delay_wanted = 0;
    r->delay_notified = 1;
    if (r->state == SCHED_READY || r->state == SCHED_ASSIGNED || r->state == SCHED_DEFERRED || r->state == SCHED_HELD)
        core_mark_dirty(s, r);
}

/* The next reports of this message gather from now on. */
static void rearm(struct sched *s, struct news *n) {
    n->compose = 0;
    n->since_ms = s->now;
    if (!list_is_linked(&n->timer))
        list_push_back(&s->timers, &n->timer);
}

static void close_all(struct sched *s, struct message *m, enum sched_trace_kind kind, struct span text) {
    struct news *n = m->news;
    for (uint32_t i = 0; i < m->count; i++) {
        if (!m->at[i].reporting)
            continue;
        core_trace(s, m, kind, i, 0, 0, text, NULL);
        close_one(s, m, &m->at[i], n->kind);
    }
    if (n->kind == SCHED_REPORT_DELAYED) {
        n->delays = 0;
        for (uint32_t i = 0; i < m->count; i++)
            n->delays += m->at[i].delay_wanted;
    }
    rearm(s, n);
    core_message_check(s, m);
}

int core_on_composed(struct sched *s, const struct sched_composed *e) {
    struct message *m = core_message_find(s, e->message);
    if (!m || !m->news || !m->news->compose || m->news->compose != e->compose)
        return ERR_INVALID;
    if (e->none) {
        s->counts.no_reports++;
        close_all(s, m, SCHED_TRACE_NO_REPORT, e->reason);
        return ERR_OK;
    }
    uint64_t id;
    int err = core_enqueue_message(s, &e->submit, true, &id);
    if (err == ERR_INVALID) { /* it would not get better */
        s->counts.no_reports++;
        close_all(s, m, SCHED_TRACE_NO_REPORT, SPAN("the report cannot be sent to this return path"));
        return err;
    }
    if (err != ERR_OK) { /* asked for again after a while */
        for (uint32_t i = 0; i < m->count; i++)
            m->at[i].reporting = 0;
        rearm(s, m->news);
        return err;
    }
    char name[BASE32_ID_LEN + 1];
    base32_encode(id, name);
    s->counts.reports++;
    close_all(s, m, SCHED_TRACE_REPORTED, span_make(name, BASE32_ID_LEN));
    return ERR_OK;
}
