/*
 * shard_feed: what comes from outside becomes events of the core: submissions and their chunks, reports
 * that were composed, and messages read back from the store.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"
#include "proto/outcome.h"
#include "scheduler/shard_in.h"

METRIC_COUNTER(metric_rejected, "posthouse_submissions_rejected_total", "Submissions that were not stored")

/* Whose share of the pace a message uses: the account, else the sender's domain, else the client. */
static struct span fair_key(const Words__Envelope *e) {
    if (e->has_account && e->account.len)
        return frame_span(e->account);
    struct span sender = frame_span(e->sender), domain;
    span_cut(sender, '@', &domain);
    if (domain.len)
        return domain;
    return e->has_client ? frame_span(e->client) : SPAN_EMPTY;
}

static uint32_t priority_of(const Words__Envelope *e) {
    return e->has_priority && e->priority <= 2 ? e->priority : 1;
}

static struct sched_wish wish_of(const Words__Envelope *e) {
    return (struct sched_wish){
        .release_ms = e->has_release_ms ? e->release_ms : 0,
        .by_ms = e->has_deliver_by_ms ? e->deliver_by_ms : 0,
        .by_notify = e->has_deliver_by_notify && e->deliver_by_notify,
    };
}

static int fill_submit(struct shard *s, struct sched_submit *to, const struct payload *l, const Words__Envelope *e) {
    struct sched_new_recipient *r = arena_calloc(&s->scratch, e->n_recipients, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < e->n_recipients; i++) {
        r[i].destination = frame_span(e->recipients[i]->destination);
        r[i].notify = e->recipients[i]->has_notify ? e->recipients[i]->notify : 0;
    }
    *to = (struct sched_submit){
        .token = l->token,
        .id = l->chunks ? l->id : 0,
        .sender = frame_span(e->sender),
        .fair = fair_key(e),
        .priority = priority_of(e),
        .size = e->size,
        .received_ms = e->received_ms,
        .wish = wish_of(e),
        .report = e->has_report && e->report,
        .recipients = r,
        .count = (uint32_t)e->n_recipients,
    };
    return ERR_OK;
}

void shard_refuse(struct shard *s, struct payload *l, uint32_t verdict) {
    metric_add(&metric_rejected, 1);
    if (l->chunks)
        queue_drop_chunks(shard_keep(s), s->number, l->id, l->chunks);
    s->out.answer(s->out.arg, l, verdict, 0);
    payload_free(&s->payloads, l);
}

void shard_submit(struct shard *s, struct payload *l, const Words__Envelope *e, uint64_t now_ms) {
    l->submitted = true;
    l->recipients = (uint32_t)e->n_recipients;
    if (l->chunks_waiting)
        return; /* goes on in release_chunk */
    l->phase = PAYLOAD_PENDING;
    if (l->failed) {
        shard_refuse(s, l, l->failed == ERR_NO_SPACE ? VERDICT_NO_SPACE : VERDICT_TEMPFAIL);
        return;
    }
    struct sched_event event = {.kind = SCHED_SUBMITTED};
    arena_reset(&s->scratch);
    int err = fill_submit(s, &event.submit, l, e);
    s->submitting = e;
    if (err == ERR_OK)
        err = shard_step(s, &event, now_ms);
    s->submitting = NULL;
    if (err != ERR_OK) {
        LOG_WARN("submit_refused", LOG_ERR("why", err));
        shard_refuse(s, l, err == ERR_INVALID ? VERDICT_REFUSED : VERDICT_TEMPFAIL);
        return;
    }
}

struct payload *shard_stage(struct shard *s, const uint8_t *submission, struct hub_peer *peer, uint64_t now_ms) {
    struct payload *l = payload_new(&s->payloads, submission);
    if (!l)
        return NULL;
    l->phase = PAYLOAD_STAGING;
    l->peer = peer;
    l->id = sched_reserve_id(s->core, now_ms);
    shard_mark_id(s, l->id);
    return l;
}

void shard_chunk(struct shard *s, struct payload *l, struct span octets, uint64_t credit, uint64_t now_ms) {
    shard_touch(s);
    l->touched_ms = now_ms;
    struct commit_request *r = &s->current->request;
    l->chunks_waiting++;
    if (!l->failed) {
        queue_put_chunk(r->refusable, s->number, l->id, l->chunks, octets);
        queue_drop_chunk(r->undo, s->number, l->id, l->chunks);
        s->current->refusable = true;
        l->chunks++;
        l->staged_bytes += octets.len;
    }
    struct held *h = shard_hold(s, HELD_CREDIT);
    h->token = l->token;
    h->peer = l->peer;
    h->bytes = credit;
}

void shard_abort(struct shard *s, struct payload *l) {
    CHECK(l->phase == PAYLOAD_STAGING);
    l->aborted = true;
    if (l->chunks_waiting)
        return; /* goes on in release_chunk: a removal must not overtake the chunk in one batch */
    if (l->chunks)
        queue_drop_chunks(shard_keep(s), s->number, l->id, l->chunks);
    payload_free(&s->payloads, l);
}

void shard_composed(struct shard *s, uint64_t id, uint64_t compose, struct payload *l, const Words__Envelope *e,
                    struct span reason, uint64_t now_ms) {
    struct sched_event event = {.kind = SCHED_COMPOSED};
    event.composed = (struct sched_composed){.message = id, .compose = compose, .none = !l, .reason = reason};
    arena_reset(&s->scratch);
    if (l && fill_submit(s, &event.composed.submit, l, e) != ERR_OK) {
        event.composed.none = true;
        event.composed.reason = SPAN("no memory for the report");
        payload_free(&s->payloads, l);
        l = NULL;
    }
    if (l)
        l->phase = PAYLOAD_PENDING;
    s->submitting = l ? e : NULL;
    int err = shard_step(s, &event, now_ms);
    s->submitting = NULL;
    if (err != ERR_OK && l) /* the message is gone meanwhile */
        payload_free(&s->payloads, l);
}

static struct sched_result result_of(const Words__Result *r) {
    return (struct sched_result){
        .outcome = r->outcome,
        .scope = r->has_scope ? r->scope : 0,
        .hop = r->has_hop ? r->hop : 0,
        .code = r->has_code ? r->code : 0,
        .enhanced = r->has_enhanced ? frame_span(r->enhanced) : SPAN_EMPTY,
        .text = r->has_text ? frame_span(r->text) : SPAN_EMPTY,
        .remote = r->has_remote ? frame_span(r->remote) : SPAN_EMPTY,
    };
}

static void fill_stored(struct sched_stored_recipient *to, const Words__Recipient *r,
                        const Words__RecipientState *state) {
    *to = (struct sched_stored_recipient){
        .destination = frame_span(r->destination), .notify = r->has_notify ? r->notify : 0, .state = SCHED_READY};
    if (!state)
        return;
    to->state = state->state;
    to->attempts = state->has_attempts ? state->attempts : 0;
    to->due_ms = state->has_due_ms ? state->due_ms : 0;
    to->delay_notified = state->has_delay_notified && state->delay_notified;
    if (state->state == SCHED_HELD && state->has_since_ms)
        to->due_ms = state->since_ms;
    to->wish = state->has_wish ? state->wish : 0;
    to->note = state->has_note ? frame_span(state->note) : SPAN_EMPTY;
    to->routed = state->has_destination && state->destination.len > 0;
    if (to->routed)
        to->destination = frame_span(state->destination);
    if (state->last) {
        to->has_result = true;
        to->last = result_of(state->last);
    }
}

int shard_load(struct shard *s, const struct shard_reading *reading, uint64_t id, const Words__Envelope *e,
               Words__RecipientState *const *states, uint64_t inflight, const uint32_t *inflight_recipients,
               uint32_t inflight_count, const struct sched_operator *change, uint64_t now_ms) {
    CHECK(list_is_linked(&reading->link));
    if (shard_is_stale(s, id))
        return ERR_AGAIN;
    arena_reset(&s->scratch);
    struct sched_stored_recipient *r = arena_calloc(&s->scratch, e->n_recipients, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < e->n_recipients; i++)
        fill_stored(&r[i], e->recipients[i], states[i]);
    struct sched_event event = {.kind = SCHED_LOADED};
    event.load = (struct sched_load){
        .id = id,
        .sender = frame_span(e->sender),
        .fair = fair_key(e),
        .priority = priority_of(e),
        .size = e->size,
        .received_ms = e->received_ms,
        .wish = wish_of(e),
        .report = e->has_report && e->report,
        .inflight = inflight,
        .inflight_recipients = inflight_recipients,
        .inflight_count = inflight_count,
        .recipients = r,
        .count = (uint32_t)e->n_recipients,
        .change = change,
    };
    return shard_step(s, &event, now_ms);
}
