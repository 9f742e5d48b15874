/*
 * shard: see shard.h. The rule of this room: make it durable, then speak. Everything that others can
 * see (answers, jobs, acknowledgements, credit for chunks) is held in the batch that it waits for and
 * released by shard_done; nothing else sends.
 *
 * A batch has two parts. `keep` holds what must be written sooner or later (states, settlements,
 * reports); `refusable` holds new submissions, which may be turned away with 451 or 452 when the disk
 * does not take them; `undo` removes them again should the failed write have left a trace.
 */
#include "scheduler/shard.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"
#include "proto/id.h"
#include "proto/outcome.h"
#include "scheduler/near.h"

#define ID_MARK_AHEAD_MS 10000u /* the stored last id runs ahead by this, so that it is seldom written */

METRIC_COUNTER(metric_stored, "posthouse_messages_stored_total", "Messages made durable, our own reports included")
METRIC_COUNTER(metric_rejected, "posthouse_submissions_rejected_total", "Submissions that the disk did not take")
METRIC_COUNTER(metric_batches, "posthouse_batches_total", "Batches sent to the commit thread")

enum held_kind { HELD_ANSWER, HELD_ASSIGN, HELD_ACK, HELD_CREDIT };
struct held {
    struct held *next;
    enum held_kind kind;
    uint64_t token, id;          /* ANSWER */
    struct shard_assign assign;  /* ASSIGN, ACK */
    struct hub_peer *peer;       /* CREDIT */
    uint64_t bytes;
};

struct gone { /* a message that left memory; in the arena of its batch */
    struct gone *next;
    uint64_t id;
};
struct stale { /* the same, on disk, while readings last that began before */
    struct map_node by_id;
    struct list_node link;       /* oldest first */
    uint64_t id, durable;
};

struct shard {
    struct sched *core;
    struct shard_out out;
    struct store *store;
    uint32_t number;
    struct payloads payloads;
    struct shard_batch *current, *pool;
    uint64_t last_id_mark, scan_end;
    uint32_t trace_number;
    struct shard_totals totals;
    struct near near;
    struct arena scratch;        /* of one event */
    struct shard_batch *sent, *sent_last; /* under way, oldest first */
    struct list readings;        /* oldest first */
    struct map stale;
    struct list stale_list;
    uint64_t sequence;           /* counts completed batches */
    uint64_t put_id;             /* message submitted by the step that runs: its records may be refused with it */
    uint64_t now_ms;
};

/* -- batches -- */

static struct shard_batch *batch_get(struct shard *s)
{
    struct shard_batch *b = s->pool;
    if (b) {
        s->pool = b->next;
        b->next = NULL;
        return b;
    }
    b = calloc(1, sizeof *b);
    CHECK(b);
    b->shard = s;
    b->request.arg = b;
    b->request.keep = store_batch_new();
    b->request.refusable = store_batch_new();
    b->request.undo = store_batch_new();
    CHECK(b->request.keep && b->request.refusable && b->request.undo);
    arena_init(&b->arena, 16 * 1024, 0);
    return b;
}

static void batch_recycle(struct shard *s, struct shard_batch *b)
{
    store_batch_clear(b->request.keep);
    store_batch_clear(b->request.refusable);
    store_batch_clear(b->request.undo);
    arena_reset(&b->arena);
    b->held = b->held_last = NULL;
    b->gone = NULL;
    b->opened_ms = 0;
    b->refusable = false;
    b->next = s->pool;
    s->pool = b;
}

static void batch_free(struct shard_batch *b)
{
    store_batch_free(b->request.keep);
    store_batch_free(b->request.refusable);
    store_batch_free(b->request.undo);
    arena_deinit(&b->arena);
    free(b);
}

static struct held *hold(struct shard *s, enum held_kind kind)
{
    struct shard_batch *b = s->current;
    struct held *h = arena_calloc(&b->arena, 1, sizeof *h);
    CHECK(h);
    h->kind = kind;
    if (b->held_last)
        b->held_last->next = h;
    else
        b->held = h;
    b->held_last = h;
    return h;
}

static void touch(struct shard *s)
{
    if (!s->current->opened_ms)
        s->current->opened_ms = s->now_ms ? s->now_ms : 1;
}

struct store_batch *shard_keep(struct shard *s)
{
    touch(s);
    return s->current->request.keep;
}

/* -- what left memory, and readings that may not know it yet -- */

static void note_gone(struct shard *s, uint64_t id)
{
    touch(s);
    if (s->current->gone && s->current->gone->id == id)
        return;
    struct gone *g = arena_alloc(&s->current->arena, sizeof *g);
    CHECK(g);
    *g = (struct gone){.next = s->current->gone, .id = id};
    s->current->gone = g;
}

static bool match_stale(const struct map_node *n, const void *key)
{
    return LIST_ENTRY(n, struct stale, by_id)->id == *(const uint64_t *)key;
}

static void stale_add(struct shard *s, uint64_t id)
{
    struct stale *t = calloc(1, sizeof *t);
    CHECK(t);
    t->id = id;
    t->durable = s->sequence;
    CHECK(map_insert(&s->stale, &t->by_id, hash_bytes(&id, sizeof id, 0)) == ERR_OK);
    list_push_back(&s->stale_list, &t->link);
}

static void stale_prune(struct shard *s)
{
    struct list_node *oldest = list_first(&s->readings);
    uint64_t begun = oldest ? LIST_ENTRY(oldest, struct shard_reading, link)->begun : UINT64_MAX;
    while (!list_is_empty(&s->stale_list)) {
        struct stale *t = LIST_ENTRY(list_first(&s->stale_list), struct stale, link);
        if (t->durable > begun)
            return;
        map_remove(&s->stale, &t->by_id);
        list_remove(&s->stale_list, &t->link);
        free(t);
    }
}

static bool has_gone(const struct shard_batch *b, uint64_t id)
{
    for (const struct gone *g = b->gone; g; g = g->next)
        if (g->id == id)
            return true;
    return false;
}

static bool is_stale(const struct shard *s, uint64_t id)
{
    if (map_find(&s->stale, hash_bytes(&id, sizeof id, 0), match_stale, &id) || has_gone(s->current, id))
        return true;
    for (const struct shard_batch *b = s->sent; b; b = b->next)
        if (has_gone(b, id))
            return true;
    return false;
}

void shard_reading_begin(struct shard *s, struct shard_reading *r)
{
    *r = (struct shard_reading){.begun = s->sequence};
    list_push_back(&s->readings, &r->link);
}

void shard_reading_end(struct shard *s, struct shard_reading *r)
{
    list_remove(&s->readings, &r->link);
    stale_prune(s);
}

/* The part of the batch that records of this message belong to. */
static struct store_batch *part_for(struct shard *s, uint64_t id)
{
    touch(s);
    return id == s->put_id ? s->current->request.refusable : s->current->request.keep;
}

/* -- actions of the core -- */

static ProtobufCBinaryData bytes_of(struct span s)
{
    return frame_bytes(s);
}

static void fill_result(Words__Result *to, const struct sched_result *from)
{
    words__result__init(to);
    to->outcome = from->outcome;
    to->has_code = from->code != 0;
    to->code = from->code;
    to->has_enhanced = from->enhanced.len > 0;
    to->enhanced = bytes_of(from->enhanced);
    to->has_text = from->text.len > 0;
    to->text = bytes_of(from->text);
    to->has_remote = from->remote.len > 0;
    to->remote = bytes_of(from->remote);
    to->has_scope = from->scope != 0;
    to->scope = from->scope;
}

static void mark_id(struct shard *s, uint64_t id)
{
    if (id <= s->last_id_mark)
        return;
    s->last_id_mark = id + ((uint64_t)ID_MARK_AHEAD_MS << (ID_SHARD_BITS + ID_COUNTER_BITS));
    queue_put_number(shard_keep(s), s->number, QUEUE_LAST_ID, s->last_id_mark);
}

static void on_put_message(struct shard *s, const struct sched_action *a)
{
    struct payload *l = payload_by_token(&s->payloads, a->put.token);
    CHECK(l);
    CHECK(!l->id || l->id == a->put.id);
    l->id = a->put.id;
    mark_id(s, l->id);
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

static void on_put_recipient(struct shard *s, const struct sched_action *a)
{
    Words__RecipientState state = WORDS__RECIPIENT_STATE__INIT;
    Words__Result last;
    state.state = a->recipient.state;
    state.has_attempts = a->recipient.attempts != 0;
    state.attempts = a->recipient.attempts;
    state.has_due_ms = a->recipient.due_ms != 0;
    state.due_ms = a->recipient.due_ms;
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

static void on_put_inflight(struct shard *s, const struct sched_action *a)
{
    Words__Inflight record = WORDS__INFLIGHT__INIT;
    record.message = a->attempt.id;
    record.n_recipients = a->attempt.count;
    record.recipients = (uint32_t *)(uintptr_t)a->attempt.indexes;
    queue_put_inflight(shard_keep(s), s->number, a->attempt.attempt, &record);
}

static void on_trace(struct shard *s, const struct sched_action *a)
{
    Words__Trace t = WORDS__TRACE__INIT;
    Words__Result result;
    t.at_ms = s->now_ms;
    t.message = a->trace.id;
    t.kind = a->trace.kind;
    t.n_recipients = a->trace.count;
    t.recipients = (uint32_t *)(uintptr_t)a->trace.indexes;
    t.has_text = a->trace.text.len > 0;
    t.text = bytes_of(a->trace.text);
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

/* A message of an earlier life counts only once the scan has seen it. */
static void count_down(struct shard *s, uint64_t id)
{
    if ((id > s->scan_end || id <= s->totals.counted_to) && s->totals.messages)
        s->totals.messages--;
}

static void on_drop_message(struct shard *s, const struct sched_action *a)
{
    queue_drop_message(shard_keep(s), s->number, a->drop.id, a->drop.size, a->drop.count, a->drop.states);
    cached_drop(&s->payloads, a->drop.id);
    note_gone(s, a->drop.id);
    count_down(s, a->drop.id);
}

static void hold_attempt(struct shard *s, enum held_kind kind, const struct sched_action *a)
{
    struct held *h = hold(s, kind);
    uint32_t *indexes = arena_alloc(&s->current->arena, a->attempt.count * sizeof *indexes + 1);
    CHECK(indexes);
    if (a->attempt.count)
        memcpy(indexes, a->attempt.indexes, a->attempt.count * sizeof *indexes);
    struct span destination = arena_dup(&s->current->arena, a->attempt.destination);
    h->assign = (struct shard_assign){
        .attempt = a->attempt.attempt, .id = a->attempt.id, .worker = a->attempt.worker, .indexes = indexes,
        .count = a->attempt.count, .attempts = a->attempt.attempts, .concurrency = a->attempt.concurrency,
        .destination = destination,
    };
}

static struct sched_result copy_result(struct arena *mem, const struct sched_result *from)
{
    struct sched_result r = *from;
    r.enhanced = arena_dup(mem, from->enhanced);
    r.text = arena_dup(mem, from->text);
    r.remote = arena_dup(mem, from->remote);
    return r;
}

static void on_compose(struct shard *s, const struct sched_action *a)
{
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

static void apply(struct shard *s, const struct sched_action *a)
{
    if (a->kind < SCHED_COMPOSE)
        touch(s);
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
        struct held *h = hold(s, HELD_ANSWER);
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
        note_gone(s, a->id);
        cached_drop(&s->payloads, a->id);
        return;
    }
    CHECK_UNREACHABLE();
}

int shard_step(struct shard *s, const struct sched_event *e, uint64_t now_ms)
{
    struct sched_actions actions = {0};
    if (now_ms > s->now_ms)
        s->now_ms = now_ms;
    int err = sched_step(s->core, e, s->now_ms, &actions);
    s->put_id = 0;
    for (uint32_t i = 0; i < actions.count; i++)
        apply(s, &actions.at[i]);
    return err;
}

/* -- events -- */

/* Whose share of the pace a message uses: the account, else the sender's domain, else the client. */
static struct span fair_key(const Words__Envelope *e)
{
    if (e->has_account && e->account.len)
        return frame_span(e->account);
    struct span sender = frame_span(e->sender), domain;
    span_cut(sender, '@', &domain);
    if (domain.len)
        return domain;
    return e->has_client ? frame_span(e->client) : SPAN_EMPTY;
}

static int fill_submit(struct shard *s, struct sched_submit *to, const struct payload *l, const Words__Envelope *e)
{
    struct sched_new_recipient *r = arena_calloc(&s->scratch, e->n_recipients, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < e->n_recipients; i++) {
        r[i].destination = frame_span(e->recipients[i]->destination);
        r[i].notify = e->recipients[i]->has_notify ? e->recipients[i]->notify : 0;
    }
    *to = (struct sched_submit){
        .token = l->token, .id = l->chunks ? l->id : 0, .sender = frame_span(e->sender), .fair = fair_key(e),
        .priority = e->has_priority && e->priority <= 2 ? e->priority : 1, .size = e->size,
        .received_ms = e->received_ms, .report = e->has_report && e->report, .recipients = r,
        .count = (uint32_t)e->n_recipients,
    };
    return ERR_OK;
}

static void refuse(struct shard *s, struct payload *l, uint32_t verdict)
{
    metric_add(&metric_rejected, 1);
    if (l->chunks)
        queue_drop_chunks(shard_keep(s), s->number, l->id, l->chunks);
    s->out.answer(s->out.arg, l, verdict, 0);
    payload_free(&s->payloads, l);
}

void shard_submit(struct shard *s, struct payload *l, const Words__Envelope *e, uint64_t now_ms)
{
    l->submitted = true;
    l->recipients = (uint32_t)e->n_recipients;
    if (l->chunks_waiting)
        return; /* goes on in release_chunk */
    l->phase = PAYLOAD_PENDING;
    if (l->failed) {
        refuse(s, l, l->failed == ERR_NO_SPACE ? VERDICT_NO_SPACE : VERDICT_TEMPFAIL);
        return;
    }
    struct sched_event event = {.kind = SCHED_SUBMITTED};
    arena_reset(&s->scratch);
    int err = fill_submit(s, &event.submit, l, e);
    if (err == ERR_OK)
        err = shard_step(s, &event, now_ms);
    if (err != ERR_OK) {
        LOG_WARN("submit_refused", LOG_ERR("why", err));
        refuse(s, l, err == ERR_INVALID ? VERDICT_REFUSED : VERDICT_TEMPFAIL);
        return;
    }
}

struct payload *shard_stage(struct shard *s, const uint8_t *submission, struct hub_peer *peer, uint64_t now_ms)
{
    struct payload *l = payload_new(&s->payloads, submission);
    if (!l)
        return NULL;
    l->phase = PAYLOAD_STAGING;
    l->peer = peer;
    l->id = sched_reserve_id(s->core, now_ms);
    mark_id(s, l->id);
    return l;
}

void shard_chunk(struct shard *s, struct payload *l, struct span octets, uint64_t credit, uint64_t now_ms)
{
    touch(s);
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
    struct held *h = hold(s, HELD_CREDIT);
    h->token = l->token;
    h->peer = l->peer;
    h->bytes = credit;
}

void shard_abort(struct shard *s, struct payload *l)
{
    CHECK(l->phase == PAYLOAD_STAGING);
    l->aborted = true;
    if (l->chunks_waiting)
        return; /* goes on in release_chunk: a removal must not overtake the chunk in one batch */
    if (l->chunks)
        queue_drop_chunks(shard_keep(s), s->number, l->id, l->chunks);
    payload_free(&s->payloads, l);
}

void shard_composed(struct shard *s, uint64_t id, uint64_t compose, struct payload *l, const Words__Envelope *e,
                    struct span reason, uint64_t now_ms)
{
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
    int err = shard_step(s, &event, now_ms);
    if (err != ERR_OK && l) /* the message is gone meanwhile */
        payload_free(&s->payloads, l);
}

static struct sched_result result_of(const Words__Result *r)
{
    return (struct sched_result){
        .outcome = r->outcome, .scope = r->has_scope ? r->scope : 0, .code = r->has_code ? r->code : 0,
        .enhanced = r->has_enhanced ? frame_span(r->enhanced) : SPAN_EMPTY,
        .text = r->has_text ? frame_span(r->text) : SPAN_EMPTY,
        .remote = r->has_remote ? frame_span(r->remote) : SPAN_EMPTY,
    };
}

static void fill_stored(struct sched_stored_recipient *to, const Words__Recipient *r, const Words__RecipientState *state)
{
    *to = (struct sched_stored_recipient){
        .destination = frame_span(r->destination), .notify = r->has_notify ? r->notify : 0, .state = SCHED_READY};
    if (!state)
        return;
    to->state = state->state;
    to->attempts = state->has_attempts ? state->attempts : 0;
    to->due_ms = state->has_due_ms ? state->due_ms : 0;
    to->delay_notified = state->has_delay_notified && state->delay_notified;
    if (state->last) {
        to->has_result = true;
        to->last = result_of(state->last);
    }
}

int shard_load(struct shard *s, const struct shard_reading *reading, uint64_t id, const Words__Envelope *e, Words__RecipientState *const *states,
               uint64_t inflight, const uint32_t *inflight_recipients, uint32_t inflight_count, uint64_t now_ms)
{
    CHECK(list_is_linked(&reading->link));
    if (is_stale(s, id))
        return ERR_AGAIN;
    arena_reset(&s->scratch);
    struct sched_stored_recipient *r = arena_calloc(&s->scratch, e->n_recipients, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < e->n_recipients; i++)
        fill_stored(&r[i], e->recipients[i], states[i]);
    struct sched_event event = {.kind = SCHED_LOADED};
    event.load = (struct sched_load){
        .id = id, .sender = frame_span(e->sender), .fair = fair_key(e),
        .priority = e->has_priority && e->priority <= 2 ? e->priority : 1, .size = e->size,
        .received_ms = e->received_ms, .report = e->has_report && e->report, .inflight = inflight,
        .inflight_recipients = inflight_recipients, .inflight_count = inflight_count, .recipients = r,
        .count = (uint32_t)e->n_recipients,
    };
    return shard_step(s, &event, now_ms);
}

/* -- batches leave and come back -- */

void shard_flush(struct shard *s, uint64_t now_ms)
{
    struct shard_batch *b = s->current;
    if (now_ms > s->now_ms)
        s->now_ms = now_ms;
    if (!b->opened_ms)
        return;
    b->number = sched_cut(s->core);
    s->current = batch_get(s);
    if (s->sent)
        s->sent_last->next = b;
    else
        s->sent = b;
    s->sent_last = b;
    metric_add(&metric_batches, 1);
    s->out.commit(s->out.arg, b);
}

static bool is_rejected(const struct shard *s, const struct shard_batch *b, uint64_t id)
{
    for (const struct held *h = b->held; h; h = h->next) {
        if (h->kind != HELD_ANSWER || h->id != id)
            continue;
        const struct payload *l = payload_by_token(&s->payloads, h->token);
        return l && !l->report;
    }
    return false;
}

static void release_answer(struct shard *s, struct held *h, int result)
{
    struct payload *l = payload_by_token(&s->payloads, h->token);
    if (!l)
        return;
    if (result != ERR_OK && !l->report) {
        count_down(s, l->id);
        refuse(s, l, result == ERR_NO_SPACE ? VERDICT_NO_SPACE : VERDICT_TEMPFAIL);
        return;
    }
    metric_add(&metric_stored, 1);
    s->out.answer(s->out.arg, l, VERDICT_STORED, h->id);
    payload_keep(&s->payloads, l);
}

/* A chunk is on disk, or never will be. A submission that waited for its last one goes on now. */
static void release_chunk(struct shard *s, struct held *h, int result)
{
    struct payload *l = payload_by_token(&s->payloads, h->token);
    s->out.credit(s->out.arg, h->peer, h->bytes);
    CHECK(l && l->chunks_waiting > 0);
    if (result != ERR_OK)
        l->failed = result;
    if (--l->chunks_waiting > 0)
        return;
    if (l->aborted) {
        shard_abort(s, l);
        return;
    }
    if (!l->submitted)
        return;
    struct arena mem;
    arena_init(&mem, 4096, 0);
    Words__Envelope *e = frame_unpack(&words__envelope__descriptor, span_make(l->envelope, l->envelope_len), &mem);
    CHECK(e); /* packed by this process */
    shard_submit(s, l, e, s->now_ms);
    arena_deinit(&mem);
}

static void release(struct shard *s, struct shard_batch *b, struct held *h, int result)
{
    switch (h->kind) {
    case HELD_ANSWER:
        release_answer(s, h, result);
        return;
    case HELD_ASSIGN:
        if (result == ERR_OK || !is_rejected(s, b, h->assign.id))
            s->out.assign(s->out.arg, s, &h->assign);
        return;
    case HELD_ACK:
        s->out.ack(s->out.arg, h->assign.worker, h->assign.attempt);
        return;
    case HELD_CREDIT:
        release_chunk(s, h, result);
        return;
    }
    CHECK_UNREACHABLE();
}

void shard_done(struct shard *s, struct shard_batch *b, int result, uint64_t now_ms)
{
    struct sched_event event = {.kind = result == ERR_OK || !b->refusable ? SCHED_DURABLE : SCHED_REJECTED};
    event.batch = b->number;
    int err = shard_step(s, &event, now_ms);
    if (err != ERR_OK)
        LOG_ERROR("batch_event_refused", LOG_U64("batch", b->number), LOG_ERR("why", err));
    CHECK(s->sent == b);
    s->sent = b->next;
    s->sequence++;
    if (!list_is_empty(&s->readings))
        for (const struct gone *g = b->gone; g; g = g->next)
            stale_add(s, g->id);
    /* Assignments first: they look at the answers of this batch to see what was rejected. */
    for (struct held *h = b->held; h; h = h->next)
        if (h->kind == HELD_ASSIGN && result != ERR_OK)
            release(s, b, h, result);
    for (struct held *h = b->held; h; h = h->next)
        if (h->kind != HELD_ASSIGN || result == ERR_OK)
            release(s, b, h, result);
    batch_recycle(s, b);
}

/* -- life -- */

static int read_number(struct store *store, uint32_t shard, enum queue_number n, uint64_t *value)
{
    int err = queue_get_number(store, shard, n, value);
    if (err != ERR_NOT_FOUND)
        return err;
    *value = 0;
    return ERR_OK;
}

int shard_open(struct shard **out, const struct shard_config *c, struct store *store, const struct shard_out *to,
               uint64_t now_ms)
{
    uint64_t epoch, last_id, dropped = 0;
    struct sched_config core = c->core;
    int err = read_number(store, core.shard, QUEUE_EPOCH, &epoch);
    if (err == ERR_OK)
        err = read_number(store, core.shard, QUEUE_LAST_ID, &last_id);
    if (err == ERR_OK)
        err = queue_clean_chunks(store, core.shard, &dropped);
    if (err != ERR_OK)
        return err;
    struct shard *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    core.epoch = epoch + 1;
    s->core = sched_new(&core, last_id, 0);
    if (!s->core) {
        free(s);
        return ERR_NOMEM;
    }
    s->out = *to;
    s->store = store;
    s->number = core.shard;
    s->now_ms = now_ms;
    s->last_id_mark = s->scan_end = last_id;
    s->trace_number = (uint32_t)(core.epoch << 24); /* no clash with an earlier life in the same hour */
    payloads_init(&s->payloads, c->cache_bytes, c->pending_max);
    near_init(&s->near);
    map_init(&s->stale);
    list_init(&s->stale_list);
    list_init(&s->readings);
    arena_init(&s->scratch, 64 * 1024, 0);
    s->current = batch_get(s);
    queue_put_number(shard_keep(s), s->number, QUEUE_EPOCH, core.epoch);
    LOG_INFO("shard_open", LOG_U64("shard", s->number), LOG_U64("epoch", core.epoch), LOG_U64("chunks_dropped", dropped));
    *out = s;
    return ERR_OK;
}

void shard_close(struct shard *s)
{
    if (!s)
        return;
    CHECK(!s->sent && list_is_empty(&s->readings));
    sched_free(s->core);
    payloads_deinit(&s->payloads);
    near_deinit(&s->near);
    stale_prune(s);
    map_deinit(&s->stale);
    arena_deinit(&s->scratch);
    batch_free(s->current);
    for (struct shard_batch *b = s->pool, *next; b; b = next) {
        next = b->next;
        batch_free(b);
    }
    free(s);
}

struct sched *shard_core(struct shard *s)
{
    return s->core;
}

struct payloads *shard_payloads(struct shard *s)
{
    return &s->payloads;
}

uint32_t shard_number(const struct shard *s)
{
    return s->number;
}

struct store *shard_store(struct shard *s)
{
    return s->store;
}

struct shard_totals *shard_totals(struct shard *s)
{
    return &s->totals;
}

uint64_t shard_first_scan_end(const struct shard *s)
{
    return s->scan_end;
}

uint64_t shard_oldest_open_ms(const struct shard *s)
{
    if (s->sent)
        return s->sent->opened_ms;
    return s->current->opened_ms ? s->current->opened_ms : UINT64_MAX;
}

bool shard_is_idle(const struct shard *s)
{
    return !s->sent && !s->current->opened_ms;
}

uint64_t shard_near_pop(struct shard *s, uint64_t now_ms)
{
    return near_next_ms(&s->near) <= now_ms ? near_pop(&s->near) : 0;
}

void shard_near_again(struct shard *s, uint64_t id, uint64_t now_ms)
{
    near_add(&s->near, now_ms + NEAR_SETTLE_MS, id);
}

uint64_t shard_near_next_ms(const struct shard *s)
{
    return near_next_ms(&s->near);
}
