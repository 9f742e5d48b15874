/*
 * change: what an operator does to recipients: hold, release, bounce, delete, reroute, and retry.
 *
 * A recipient that is READY is first taken out of its lane, so that every verb begins at DEFERRED or HELD. One that is
 * ASSIGNED keeps its attempt, for a node may be about to deliver it; the wish is remembered as its order, written into
 * its record, and done when it comes back (core_order_apply). What was delivered stays delivered, what has failed for
 * good stays failed.
 *
 * A HELD recipient has no due time and does not expire. Once released it is due; its age counts as if it had never been
 * held, so that an old one has one more attempt.
 */
#include <stdlib.h>

#include "base/buf.h"
#include "scheduler/core/core.h"

bool sched_verb_applies(enum sched_operator_verb verb, enum sched_state state) {
    bool waits = state == SCHED_READY || state == SCHED_DEFERRED;
    switch (verb) {
    case SCHED_OP_RETRY:
        return waits;
    case SCHED_OP_HOLD:
        return waits || state == SCHED_ASSIGNED;
    case SCHED_OP_RELEASE:
        return state == SCHED_HELD || state == SCHED_ASSIGNED;
    case SCHED_OP_BOUNCE:
    case SCHED_OP_DELETE:
    case SCHED_OP_REROUTE:
        return waits || state == SCHED_ASSIGNED || state == SCHED_HELD;
    }
    return false;
}

bool core_change_is_valid(const struct sched_operator *e, uint64_t id, uint32_t count) {
    if (e->message != id || e->verb < SCHED_OP_RETRY || e->verb > SCHED_OP_REROUTE)
        return false;
    if (e->verb == SCHED_OP_REROUTE && (e->destination.len ? e->destination.len > CORE_NAME_MAX : !e->homes))
        return false;
    for (uint32_t i = 0; e->indexes && i < e->count; i++)
        if (e->indexes[i] >= count || (i > 0 && e->indexes[i] <= e->indexes[i - 1]))
            return false;
    return true;
}

bool core_change_names(const struct sched_operator *e, uint32_t *at, uint32_t i) {
    if (!e->indexes)
        return true;
    if (*at >= e->count || e->indexes[*at] != i)
        return false;
    ++*at;
    return true;
}

/* -- orders -- */

void core_order_drop(struct sched *s, struct recipient *r) {
    if (r->order && r->order->dest)
        core_dest_drop(s, r->order->dest);
    free(r->order);
    r->order = NULL;
}

void core_order_set(struct recipient *r, uint32_t wish, struct span note) {
    note = span_first(note, SCHED_NOTE_MAX);
    struct order *o = core_must_alloc(sizeof *o + note.len);
    if (r->order) {
        o->dest = r->order->dest;
        o->routed = r->order->routed;
    }
    o->wish = (uint8_t)wish;
    o->len = (uint16_t)note.len;
    if (note.len)
        memcpy(o->note, note.at, note.len);
    free(r->order);
    r->order = o;
}

/* -- what a recipient becomes that is DEFERRED or HELD -- */

/* A delay that has not been told yet need not be told any more. */
static void unwant_delay(struct message *m, struct recipient *r) {
    if (!r->delay_wanted || r->reporting || !m->news)
        return;
    r->delay_wanted = 0;
    m->news->delays--;
}

static void hold(struct sched *s, struct message *m, struct recipient *r, struct span note) {
    core_set_state(s, m, r, SCHED_HELD);
    r->due_ms = s->now;
    core_order_set(r, 0, note);
    unwant_delay(m, r);
    core_mark_dirty(s, r);
    core_trace(s, m, SCHED_TRACE_HELD, r->index, 0, 0, note, NULL);
}

static void delete_(struct sched *s, struct message *m, struct recipient *r, struct span note) {
    core_trace(s, m, SCHED_TRACE_DELETED, r->index, 0, 0, note, NULL);
    core_order_drop(s, r);
    unwant_delay(m, r);
    core_set_state(s, m, r, SCHED_SETTLED);
    core_mark_dirty(s, r);
}

/* ": WHY" of a note, or nothing. */
static struct span reason_of(struct span note) {
    for (size_t i = 0; i + 1 < note.len; i++)
        if (note.at[i] == ':' && note.at[i + 1] == ' ')
            return span_from(note, i);
    return SPAN_EMPTY;
}

static void bounce(struct sched *s, struct message *m, struct recipient *r, struct span note) {
    char text[SCHED_NOTE_MAX + 64];
    struct buf b;
    buf_init(&b, sizeof text);
    buf_add_str(&b, "returned by the postmaster");
    buf_add(&b, reason_of(note)); /* the sender is told why, and not by whom */
    size_t len = span_copy(buf_span(&b), text, sizeof text);
    buf_deinit(&b);
    const struct sched_result result = {
        .outcome = SCHED_OUT_FAILED,
        .scope = SCHED_SCOPE_RECIPIENT,
        .enhanced = SPAN("5.7.0"),
        .text = {text, len},
    };
    s->counts.failed++;
    core_trace(s, m, SCHED_TRACE_BOUNCED, r->index, 0, 0, note, &result);
    core_set_result(r, &result);
    core_order_drop(s, r);
    unwant_delay(m, r);
    core_set_state(s, m, r, SCHED_FAILED);
    core_report_failure(s, m, r);
}

static enum core_admission admission(const struct sched *s, enum core_admission with_room) {
    return s->active > s->config.active_max ? CORE_ADMIT_FULL : with_room;
}

static void release(struct sched *s, struct message *m, struct recipient *r, struct span note) {
    core_trace(s, m, SCHED_TRACE_RELEASED, r->index, 0, 0, note, NULL);
    core_order_drop(s, r);
    core_admit(s, m, r, admission(s, CORE_ADMIT));
    core_mark_dirty(s, r);
}

static void retry(struct sched *s, struct message *m, struct recipient *r, struct span note) {
    core_trace(s, m, SCHED_TRACE_RETRIED, r->index, 0, 0, span_first(note, SCHED_NOTE_MAX), NULL);
    core_admit(s, m, r, admission(s, CORE_ADMIT_FORCED));
    core_mark_dirty(s, r);
    if (r->state == SCHED_READY && r->dest->stop)
        core_site_spill_soon(s, r->dest->site); /* more than may wait in memory */
}

static void trace_reroute(struct sched *s, struct message *m, struct recipient *r, const struct sched_operator *e) {
    struct buf b;
    buf_init(&b, 2048);
    buf_add(&b, e->note);
    buf_add_str(&b, e->destination.len ? "; to " : "; to its own destination again");
    buf_add(&b, e->destination);
    core_trace(s, m, SCHED_TRACE_REROUTED, r->index, 0, 0, buf_span(&b), NULL);
    buf_deinit(&b);
}

/* Where e sends r, with a reference. NULL: no memory, or it goes there already. */
static struct dest *take_target(struct sched *s, const struct recipient *r, const struct sched_operator *e) {
    struct dest *to = core_dest_take(s, e->destination.len ? e->destination : e->homes[r->index]);
    const struct dest *now = r->order && r->order->dest ? r->order->dest : r->dest;
    if (to && to == now) {
        core_dest_drop(s, to);
        return NULL;
    }
    return to;
}

static void reroute(struct sched *s, struct message *m, struct recipient *r, const struct sched_operator *e) {
    struct dest *to = take_target(s, r, e);
    if (to) {
        core_dest_drop(s, r->dest);
        r->dest = to;
        r->routed = e->destination.len > 0;
        trace_reroute(s, m, r, e);
        core_mark_dirty(s, r);
        s->changed++;
    }
    if (r->state == SCHED_HELD)
        return;
    if (to || r->due_ms <= s->now)
        core_admit(s, m, r, admission(s, CORE_ADMIT));
}

/* -- verbs -- */

static void carry_out(struct sched *s, struct message *m, struct recipient *r, uint32_t verb, struct span note) {
    note = core_keep_span(s, span_first(note, SCHED_NOTE_MAX)); /* it may be the order's own */
    if (verb == SCHED_OP_HOLD)
        hold(s, m, r, note);
    else if (verb == SCHED_OP_DELETE)
        delete_(s, m, r, note);
    else
        bounce(s, m, r, note);
}

bool core_order_apply(struct sched *s, struct message *m, struct recipient *r) {
    struct order *o = r->order;
    if (!o)
        return false;
    if (o->dest) {
        core_dest_drop(s, r->dest);
        r->dest = o->dest;
        r->routed = o->routed;
        o->dest = NULL;
    }
    if (!o->wish) {
        core_order_drop(s, r);
        return false;
    }
    if (r->state == SCHED_ASSIGNED)
        core_set_state(s, m, r, SCHED_DEFERRED);
    carry_out(s, m, r, o->wish, core_order_note(r));
    return true;
}

/* Under way: remembered, when it can be. */
static bool remember(struct sched *s, struct message *m, struct recipient *r, const struct sched_operator *e) {
    uint32_t wish = r->order ? r->order->wish : 0;
    if (wish == SCHED_OP_BOUNCE || wish == SCHED_OP_DELETE)
        return false;
    if (e->verb == SCHED_OP_REROUTE) {
        struct dest *to = take_target(s, r, e);
        if (!to)
            return false;
        if (!r->order)
            core_order_set(r, 0, SPAN_EMPTY);
        if (r->order->dest)
            core_dest_drop(s, r->order->dest);
        r->order->dest = to;
        r->order->routed = e->destination.len > 0;
        trace_reroute(s, m, r, e);
    } else if (e->verb == SCHED_OP_RELEASE) {
        if (wish != SCHED_OP_HOLD)
            return false;
        r->order->wish = 0;
        r->order->len = 0;
        core_trace(s, m, SCHED_TRACE_RELEASED, r->index, 0, 0, e->note, NULL);
    } else {
        if (wish == (uint32_t)e->verb)
            return false;
        core_order_set(r, e->verb, e->note);
    }
    core_mark_dirty(s, r);
    return true;
}

static void change_one(struct sched *s, struct message *m, struct recipient *r, const struct sched_operator *e) {
    if (r->state == SCHED_ASSIGNED) {
        s->changed += remember(s, m, r, e);
        return;
    }
    if (e->verb == SCHED_OP_RETRY) {
        if (r->state == SCHED_DEFERRED) {
            retry(s, m, r, e->note);
            s->changed++;
        } else {
            s->changed += r->dest->site->resume_ms > s->now;
        }
        if (r->state == SCHED_READY)
            core_site_probe_now(s, r->dest->site);
        return;
    }
    if (r->state == SCHED_READY) {
        core_ready_take(s, r);
        core_set_state(s, m, r, SCHED_DEFERRED);
        r->due_ms = s->now;
    }
    if (e->verb == SCHED_OP_REROUTE) {
        reroute(s, m, r, e);
        return;
    }
    s->changed++;
    if (e->verb == SCHED_OP_RELEASE)
        release(s, m, r, e->note);
    else
        carry_out(s, m, r, e->verb, e->note);
}

void core_change(struct sched *s, struct message *m, const struct sched_operator *e) {
    uint32_t named = 0;
    for (uint32_t i = 0; i < m->count; i++)
        if (core_change_names(e, &named, i) && sched_verb_applies(e->verb, m->at[i].state))
            change_one(s, m, &m->at[i], e);
}

int core_on_operator(struct sched *s, const struct sched_operator *e) {
    struct message *m = core_message_find(s, e->message);
    if (!m)
        return ERR_NOT_FOUND;
    if (!core_change_is_valid(e, m->id, m->count))
        return ERR_INVALID;
    core_change(s, m, e);
    core_message_check(s, m);
    return ERR_OK;
}
