/*
 * loaded: messages that come from the store: at start, when something is due, or for an operator's change,
 * which is done before any of its recipients can be assigned.
 *
 * A message already in memory is newer there than in the store: loading only wakes what is due. What was
 * loaded stays for one step as the visitor, even with nothing to do, so that an operator's event can follow.
 */
#include "scheduler/core/core.h"

/* -- loaded -- */

static bool is_valid_load(const struct sched_load *e) {
    if (!e->id || !e->count || e->count > CORE_RECIPIENTS_MAX || !e->recipients || e->priority >= CORE_CLASSES)
        return false;
    for (uint32_t i = 0; i < e->count; i++) {
        const struct sched_stored_recipient *r = &e->recipients[i];
        if (!r->destination.len || r->destination.len > CORE_NAME_MAX || r->notify > 15 || r->state < SCHED_READY ||
            r->state > SCHED_HELD)
            return false;
    }
    return !e->change || core_change_is_valid(e->change, e->id, e->count);
}

static bool fill_loaded(struct sched *s, struct message *m, const struct sched_load *e) {
    m->size = e->size;
    m->priority = (uint8_t)e->priority;
    m->report = e->report;
    m->null_sender = e->sender.len == 0;
    m->states = true;
    if (!core_message_set_times(s, m, e->received_ms, &e->wish))
        return false;
    for (uint32_t i = 0; i < e->count; i++) {
        const struct sched_stored_recipient *from = &e->recipients[i];
        struct recipient *r = &m->at[i];
        r->notify = from->notify & 15u;
        r->attempts = from->attempts < UINT16_MAX ? (uint16_t)from->attempts : UINT16_MAX;
        r->delay_notified = from->delay_notified;
        r->due_ms = from->due_ms;
        r->dest = core_dest_take(s, from->destination);
        if (!r->dest)
            return false;
        if (from->has_result)
            core_set_result(r, &from->last);
        r->routed = from->routed;
        bool waits = from->state == SCHED_READY || from->state == SCHED_DEFERRED;
        bool wished = from->wish == SCHED_OP_HOLD || from->wish == SCHED_OP_BOUNCE || from->wish == SCHED_OP_DELETE;
        if (from->state == SCHED_HELD || (waits && wished))
            core_order_set(r, waits ? from->wish : 0, from->note);
    }
    return true;
}

/* Recipients of an attempt whose end the last process did not see. Those that a loading without the attempt's
 * record has sent on their way meanwhile can only be counted. */
static void load_doubts(struct sched *s, struct message *m, const struct sched_load *e, bool in_memory) {
    if (!e->inflight)
        return;
    uint64_t draw = rand_u64(&s->rand);
    for (uint32_t i = 0; i < e->inflight_count; i++) {
        if (e->inflight_recipients[i] >= m->count)
            continue;
        struct recipient *r = &m->at[e->inflight_recipients[i]];
        if (in_memory && r->state != SCHED_READY) {
            s->counts.in_doubt++;
            core_trace(s, m, SCHED_TRACE_IN_DOUBT, r->index, e->inflight, 0, SPAN_EMPTY, NULL);
            continue;
        }
        if (in_memory)
            core_ready_take(s, r);
        else if (r->state == 0 && e->recipients[r->index].state <= SCHED_DEFERRED)
            core_set_state(s, m, r, SCHED_DEFERRED);
        else
            continue;
        core_in_doubt(s, m, r, e->inflight, draw);
    }
    struct sched_action *a = core_act(s, SCHED_DROP_INFLIGHT);
    a->attempt.attempt = e->inflight;
    a->attempt.id = m->id;
}

/* In the state from which the operator's change takes it on. */
static void park_loaded(struct sched *s, struct message *m, struct recipient *r, enum sched_state state) {
    if (state == SCHED_READY)
        r->due_ms = s->now;
    core_set_state(s, m, r, state == SCHED_READY ? SCHED_DEFERRED : state);
}

static void admit_loaded(struct sched *s, struct message *m, const struct sched_load *e, bool full) {
    uint32_t named = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        struct recipient *r = &m->at[i];
        enum sched_state state = e->recipients[i].state;
        bool changes = e->change && core_change_names(e->change, &named, i);
        if (r->state) /* in doubt, just now */
            continue;
        if (state == SCHED_FAILED || state == SCHED_DELIVERED || state == SCHED_SETTLED || state == SCHED_HELD) {
            core_set_state(s, m, r, state);
        } else if (r->order) { /* the attempt's own record is gone */
            core_set_state(s, m, r, SCHED_DEFERRED);
            core_order_apply(s, m, r);
        } else if (changes && sched_verb_applies(e->change->verb, state)) {
            park_loaded(s, m, r, state);
        } else if (state == SCHED_DEFERRED && r->due_ms > s->now && !core_message_is_overdue(s, m)) {
            core_set_state(s, m, r, SCHED_DEFERRED);
        } else {
            core_admit(s, m, r, full ? CORE_ADMIT_FULL : CORE_ADMIT);
        }
    }
}

static void wake(struct sched *s, struct message *m) {
    for (uint32_t i = 0; i < m->count; i++)
        if (m->at[i].state == SCHED_DEFERRED && m->at[i].due_ms <= s->now)
            core_admit(s, m, &m->at[i], CORE_ADMIT);
}

int core_on_load(struct sched *s, const struct sched_load *e) {
    if (!is_valid_load(e) || (e->inflight_count && !e->inflight_recipients))
        return ERR_INVALID;
    bool full = s->active >= s->config.active_max;
    struct message *m = core_message_find(s, e->id);
    if (e->id > s->last_id)
        s->last_id = e->id;
    if (m) {
        s->visitor = m;
        load_doubts(s, m, e, true);
        wake(s, m);
        if (e->change)
            core_change(s, m, e->change);
        core_message_check(s, m);
        return ERR_OK;
    }
    m = core_message_new(s, e->id, e->fair, e->count);
    if (!m)
        return ERR_NOMEM;
    if (!fill_loaded(s, m, e)) {
        core_message_free(s, m);
        return ERR_NOMEM;
    }
    load_doubts(s, m, e, false); /* before anything else is READY */
    admit_loaded(s, m, e, full);
    if (e->change)
        core_change(s, m, e->change);
    if (m->waiting && !m->news)
        core_report_open(s, m);
    s->visitor = m;
    core_message_check(s, m);
    return ERR_OK;
}
