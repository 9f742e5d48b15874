/*
 * shard_write: the core's actions become operations of the current batch, or are held in it until
 * it is on disk. The one place that knows which record belongs to which part of a batch:
 *
 * `keep` holds what must be written sooner or later (states, settlements, reports, and everything of
 * messages that are already stored); `refusable` holds new submissions with all their records, which may
 * be turned away with 451 or 452 when the disk does not take them; `undo` removes those again should the failed
 * write have left a trace.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"
#include "proto/id.h"
#include "scheduler/bounce_count.h"
#include "scheduler/shard_in.h"

#define TRACE_RECIPIENTS_MAX 400u /* octets of addresses in the trace of an acceptance, about */
#define ID_MARK_AHEAD_MS 10000u   /* the stored last id runs ahead by this, so that it is seldom written */

METRIC_COUNTER(metric_held, "posthouse_operator_held_total", "Recipients held by an operator")
METRIC_COUNTER(metric_released, "posthouse_operator_released_total", "Recipients released by an operator")
METRIC_COUNTER(metric_deleted, "posthouse_operator_deleted_total", "Recipients that ended by an operator's deletion")
METRIC_COUNTER(metric_bounced, "posthouse_operator_bounced_total", "Recipients that failed by an operator's bounce")
METRIC_COUNTER(metric_rerouted, "posthouse_operator_rerouted_total", "Recipients that an operator gave another route")
METRIC_COUNTER(metric_retried, "posthouse_operator_retried_total", "Recipients made due by an operator")

/* The part of the batch that records of this message belong to. */
static struct store_batch *part_for(struct shard *s, uint64_t id) {
    shard_touch(s);
    return id == s->put_id ? s->current->request.refusable : s->current->request.keep;
}

static void fill_result(Words__Result *to, const struct sched_result *from) {
    words__result__init(to);
    to->outcome = from->outcome;
    to->has_code = from->code != 0;
    to->code = from->code;
    to->has_enhanced = from->enhanced.len > 0;
    to->enhanced = frame_bytes(from->enhanced);
    to->has_text = from->text.len > 0;
    to->text = frame_bytes(from->text);
    to->has_remote = from->remote.len > 0;
    to->remote = frame_bytes(from->remote);
    to->has_scope = from->scope != 0;
    to->scope = from->scope;
    to->has_hop = from->hop != 0;
    to->hop = from->hop;
}

void shard_mark_id(struct shard *s, uint64_t id) {
    if (id <= s->last_id_mark)
        return;
    s->last_id_mark = id + ((uint64_t)ID_MARK_AHEAD_MS << (ID_SHARD_BITS + ID_COUNTER_BITS));
    queue_put_number(shard_keep(s), s->number, QUEUE_LAST_ID, s->last_id_mark);
}

static void on_put_message(struct shard *s, const struct sched_action *a) {
    struct payload *l = payload_by_token(&s->payloads, a->put.token);
    CHECK(l);
    CHECK(!l->id || l->id == a->put.id);
    l->id = a->put.id;
    shard_mark_id(s, l->id);
    struct commit_request *r = &s->current->request;
    /* A report is written with what it settles, whatever happens to the submissions of this batch. */
    s->put_id = l->report ? 0 : l->id;
    struct span submission = l->report ? SPAN_EMPTY : span_make(l->submission, sizeof l->submission);
    struct store_batch *b = part_for(s, l->id);
    queue_put_message(b, s->number, l->id, span_make(l->envelope, l->envelope_len), bus_bytes_span(l->body), submission,
                      s->now_ms);
    if (l->chunks)
        queue_seal_chunks(b, s->number, l->id);
    s->totals.messages++;
    if (l->report)
        return;
    s->current->refusable = true;
    uint64_t size = l->chunks ? l->staged_bytes : bus_bytes_span(l->body).len;
    queue_drop_message(r->undo, s->number, l->id, size, l->recipients, true);
    queue_drop_submission(r->undo, s->number, submission, s->now_ms);
    if (l->chunks)
        queue_seal_chunks(r->undo, s->number, l->id);
}

static void on_put_recipient(struct shard *s, const struct sched_action *a) {
    Words__RecipientState state = WORDS__RECIPIENT_STATE__INIT;
    Words__Result last;
    state.state = a->recipient.state;
    state.has_attempts = a->recipient.attempts != 0;
    state.attempts = a->recipient.attempts;
    bool held = a->recipient.state == SCHED_HELD;
    state.has_due_ms = !held && a->recipient.due_ms != 0;
    state.due_ms = a->recipient.due_ms;
    state.has_since_ms = held;
    state.since_ms = a->recipient.due_ms;
    state.has_wish = a->recipient.wish != 0;
    state.wish = a->recipient.wish;
    state.has_note = a->recipient.note.len > 0;
    state.note = frame_bytes(a->recipient.note);
    state.has_destination = a->recipient.routed;
    state.destination = frame_bytes(a->recipient.destination);
    state.has_delay_notified = a->recipient.delay_notified;
    state.delay_notified = a->recipient.delay_notified;
    if (a->recipient.has_result) {
        fill_result(&last, &a->recipient.last);
        state.last = &last;
    }
    queue_put_recipient(part_for(s, a->recipient.id), s->number, a->recipient.id, a->recipient.index, &state);
    if (a->recipient.state != SCHED_DEFERRED)
        return;
    uint64_t due_ms = a->recipient.due_ms > s->now_ms ? a->recipient.due_ms : s->now_ms;
    queue_put_due(part_for(s, a->recipient.id), s->number, due_ms, a->recipient.destination, a->recipient.id,
                  a->recipient.index);
    if (due_ms < s->now_ms + NEAR_SETTLE_MS)
        due_ms = s->now_ms + NEAR_SETTLE_MS; /* not before the record can be read back */
    if (due_ms < s->now_ms + NEAR_HORIZON_MS)
        near_add(&s->near, due_ms, a->recipient.id);
}

static void on_put_inflight(struct shard *s, const struct sched_action *a) {
    Words__Inflight record = WORDS__INFLIGHT__INIT;
    record.message = a->attempt.id;
    record.n_recipients = a->attempt.count;
    record.recipients = (uint32_t *)(uintptr_t)a->attempt.indexes;
    queue_put_inflight(part_for(s, a->attempt.id), s->number, a->attempt.attempt, &record);
    if (a->attempt.id == s->put_id)
        queue_drop_inflight(s->current->request.undo, s->number, a->attempt.attempt);
}

static void add_part(struct buf *text, const char *before, bool has, ProtobufCBinaryData part, const char *behind) {
    if (!has || !part.len)
        return;
    buf_add_str(text, before);
    buf_add(text, frame_span(part));
    buf_add_str(text, behind);
}

/* What the gateway found at RCPT TO: ours, proven; or elsewhere, for a client that may relay. */
static void add_verdict(struct buf *text, const Words__Envelope *e) {
    size_t ours = 0;
    for (size_t i = 0; i < e->n_recipients; i++)
        ours += e->recipients[i]->local;
    if (ours == e->n_recipients)
        buf_add_str(text, "; in our domains");
    else if (!ours)
        buf_add_str(text, "; relayed");
    else
        buf_printf(text, "; %zu in our domains, %zu relayed", ours, e->n_recipients - ours);
}

/* "from <a@b> to <c@d>, <e@f> and 3 more, 4096 octets, client 192.0.2.1 (client.example) by ESMTPS as joe; relayed;
 * shard 0": what is left to read when the envelope is gone. */
static struct span acceptance(const struct shard *s, const Words__Envelope *e, struct buf *text) {
    buf_add_str(text, "from <");
    buf_add(text, frame_span(e->sender));
    buf_add_str(text, "> to ");
    for (size_t i = 0; i < e->n_recipients; i++) {
        if (i && buf_len(text) > TRACE_RECIPIENTS_MAX) {
            buf_printf(text, " and %zu more", e->n_recipients - i);
            break;
        }
        buf_add_str(text, i ? ", <" : "<");
        buf_add(text, frame_span(e->recipients[i]->address));
        buf_add_byte(text, '>');
    }
    buf_printf(text, ", %llu octets", (unsigned long long)e->size);
    add_part(text, ", client ", e->has_client, e->client, "");
    add_part(text, " (", e->has_helo, e->helo, ")");
    add_part(text, " by ", e->has_protocol, e->protocol, "");
    add_part(text, " as ", e->has_account, e->account, "");
    if (!e->report)
        add_verdict(text, e);
    buf_printf(text, "; shard %u", s->number);
    return buf_span(text);
}

/* Doubt that no delivery node could log: it was gone, or the process was, before it reported. */
static void log_doubt(const struct sched_action *a) {
    char id[BASE32_ID_LEN + 1];
    if (a->trace.has_result && a->trace.result.remote.len)
        return;
    base32_encode(a->trace.id, id);
    LOG_WARN("in_doubt", LOG_STR("id", id), LOG_U64("recipients", a->trace.count),
             LOG_STR("text", "the attempt under way was lost before its report; a second copy may arrive"));
}

/* The end of recipients by an operator's hand; the log knows the others from those who tried. */
static void log_end_by_operator(const struct sched_action *a) {
    char id[BASE32_ID_LEN + 1];
    base32_encode(a->trace.id, id);
    /* events: bounced, deleted */
    LOG_INFO(a->trace.kind == SCHED_TRACE_BOUNCED ? "bounced" : "deleted", LOG_STR("id", id),
             LOG_U64("recipients", a->trace.count), LOG_SPAN("text", a->trace.text));
}

static void count_change(const struct sched_action *a) {
    if (a->trace.kind == SCHED_TRACE_BOUNCED || a->trace.kind == SCHED_TRACE_DELETED)
        log_end_by_operator(a);
    if (a->trace.kind == SCHED_TRACE_HELD)
        metric_add(&metric_held, a->trace.count);
    else if (a->trace.kind == SCHED_TRACE_RELEASED)
        metric_add(&metric_released, a->trace.count);
    else if (a->trace.kind == SCHED_TRACE_DELETED)
        metric_add(&metric_deleted, a->trace.count);
    else if (a->trace.kind == SCHED_TRACE_BOUNCED)
        metric_add(&metric_bounced, a->trace.count);
    else if (a->trace.kind == SCHED_TRACE_REROUTED)
        metric_add(&metric_rerouted, a->trace.count);
    else if (a->trace.kind == SCHED_TRACE_RETRIED)
        metric_add(&metric_retried, a->trace.count);
}

static void on_trace(struct shard *s, const struct sched_action *a) {
    Words__Trace t = WORDS__TRACE__INIT;
    Words__Result result;
    struct span words = a->trace.text;
    buf_clear(&s->text);
    bounce_count(a);
    count_change(a);
    if (a->trace.kind == SCHED_TRACE_IN_DOUBT)
        log_doubt(a);
    if (a->trace.kind == SCHED_TRACE_ACCEPTED && s->submitting)
        words = acceptance(s, s->submitting, &s->text);
    t.at_ms = s->now_ms;
    t.message = a->trace.id;
    t.kind = a->trace.kind;
    t.n_recipients = a->trace.count;
    t.recipients = (uint32_t *)(uintptr_t)a->trace.indexes;
    t.has_text = words.len > 0;
    t.text = frame_bytes(words);
    t.has_next_ms = a->trace.next_ms != 0;
    t.next_ms = a->trace.next_ms;
    t.has_attempt = a->trace.attempt != 0;
    t.attempt = a->trace.attempt;
    if (a->trace.has_result) {
        fill_result(&result, &a->trace.result);
        t.result = &result;
    }
    queue_put_trace(part_for(s, a->trace.id), s->number, &t, s->trace_number++);
}

static void on_drop_message(struct shard *s, const struct sched_action *a) {
    queue_drop_message(shard_keep(s), s->number, a->drop.id, a->drop.size, a->drop.count, a->drop.states);
    cached_drop(&s->payloads, a->drop.id);
    shard_note_gone(s, a->drop.id, true);
    shard_count_down(s, a->drop.id);
}

static void hold_attempt(struct shard *s, enum held_kind kind, const struct sched_action *a) {
    struct held *h = shard_hold(s, kind);
    uint32_t *indexes = arena_alloc(&s->current->arena, a->attempt.count * sizeof *indexes + 1);
    CHECK(indexes);
    if (a->attempt.count)
        memcpy(indexes, a->attempt.indexes, a->attempt.count * sizeof *indexes);
    struct span destination = arena_dup(&s->current->arena, a->attempt.destination);
    h->assign = (struct shard_assign){
        .attempt = a->attempt.attempt,
        .id = a->attempt.id,
        .worker = a->attempt.worker,
        .indexes = indexes,
        .count = a->attempt.count,
        .attempts = a->attempt.attempts,
        .concurrency = a->attempt.concurrency,
        .destination = destination,
    };
}

static struct sched_result copy_result(struct arena *mem, const struct sched_result *from) {
    struct sched_result r = *from;
    r.enhanced = arena_dup(mem, from->enhanced);
    r.text = arena_dup(mem, from->text);
    r.remote = arena_dup(mem, from->remote);
    return r;
}

static void on_compose(struct shard *s, const struct sched_action *a) {
    struct shard_compose *c = calloc(1, sizeof *c);
    CHECK(c);
    arena_init(&c->arena, 4096, 0);
    c->shard = s;
    c->id = a->compose.id;
    c->compose = a->compose.compose;
    c->kind = a->compose.kind;
    c->count = a->compose.count;
    c->will_retry_until_ms = a->compose.will_retry_until_ms;
    c->indexes = arena_calloc(&c->arena, c->count + 1u, sizeof *c->indexes);
    c->results = arena_calloc(&c->arena, c->count + 1u, sizeof *c->results);
    CHECK(c->indexes && c->results);
    for (uint32_t i = 0; i < c->count; i++) {
        c->indexes[i] = a->compose.indexes[i];
        c->results[i] = copy_result(&c->arena, &a->compose.results[i]);
    }
    s->out.compose(s->out.arg, c);
}

void shard_apply(struct shard *s, const struct sched_action *a) {
    if (a->kind < SCHED_COMPOSE)
        shard_touch(s);
    switch (a->kind) {
    case SCHED_PUT_MESSAGE:
        on_put_message(s, a);
        return;
    case SCHED_DROP_MESSAGE:
        on_drop_message(s, a);
        return;
    case SCHED_PUT_RECIPIENT:
        on_put_recipient(s, a);
        return;
    case SCHED_PUT_INFLIGHT:
        on_put_inflight(s, a);
        return;
    case SCHED_DROP_INFLIGHT:
        queue_drop_inflight(shard_keep(s), s->number, a->attempt.attempt);
        return;
    case SCHED_TRACE:
        on_trace(s, a);
        return;
    case SCHED_ANSWER: {
        struct held *h = shard_hold(s, HELD_ANSWER);
        h->token = a->answer.token;
        h->id = a->answer.id;
        return;
    }
    case SCHED_ASSIGN:
        hold_attempt(s, HELD_ASSIGN, a);
        return;
    case SCHED_REPORT_ACK:
        hold_attempt(s, HELD_ACK, a);
        return;
    case SCHED_COMPOSE:
        on_compose(s, a);
        return;
    case SCHED_FORGET:
        shard_note_gone(s, a->id, false);
        cached_drop(&s->payloads, a->id);
        return;
    }
    CHECK_UNREACHABLE();
}
