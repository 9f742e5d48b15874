/*
 * shard: see shard.h. The rule of this room: make it durable, then speak. Everything that others can
 * see (answers, jobs, acknowledgements, credit for chunks) is held in the batch that it waits for and
 * released by shard_done; nothing else sends.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"
#include "proto/outcome.h"
#include "scheduler/shard_in.h"

METRIC_COUNTER(metric_stored, "posthouse_messages_stored_total", "Messages made durable, our own reports included")
METRIC_COUNTER(metric_batches, "posthouse_batches_total", "Batches sent to the commit thread")

/* -- batches -- */

static struct shard_batch *batch_get(struct shard *s) {
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

static void batch_recycle(struct shard *s, struct shard_batch *b) {
    store_batch_clear(b->request.keep);
    store_batch_clear(b->request.refusable);
    store_batch_clear(b->request.undo);
    arena_reset(&b->arena);
    b->held = b->held_last = NULL;
    b->gone = NULL;
    memset(b->gone_bits, 0, sizeof b->gone_bits);
    b->opened_ms = 0;
    b->refusable = false;
    b->next = s->pool;
    s->pool = b;
}

static void batch_free(struct shard_batch *b) {
    store_batch_free(b->request.keep);
    store_batch_free(b->request.refusable);
    store_batch_free(b->request.undo);
    arena_deinit(&b->arena);
    free(b);
}

struct held *shard_hold(struct shard *s, enum held_kind kind) {
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

void shard_touch(struct shard *s) {
    if (!s->current->opened_ms)
        s->current->opened_ms = s->now_ms ? s->now_ms : 1;
}

struct store_batch *shard_keep(struct shard *s) {
    shard_touch(s);
    return s->current->request.keep;
}

/* A message of an earlier life counts only once the scan has seen it. */
void shard_count_down(struct shard *s, uint64_t id) {
    if ((id > s->scan_end || id <= s->totals.counted_to) && s->totals.messages)
        s->totals.messages--;
}

int shard_step(struct shard *s, const struct sched_event *e, uint64_t now_ms) {
    struct sched_actions actions = {0};
    if (now_ms > s->now_ms)
        s->now_ms = now_ms;
    int err = sched_step(s->core, e, s->now_ms, &actions);
    s->put_id = 0;
    for (uint32_t i = 0; i < actions.count; i++)
        shard_apply(s, &actions.at[i]);
    return err;
}

/* -- batches leave and come back -- */

void shard_flush(struct shard *s, uint64_t now_ms) {
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

static void release_answer(struct shard *s, struct held *h, int result) {
    struct payload *l = payload_by_token(&s->payloads, h->token);
    if (!l)
        return;
    if (result != ERR_OK && !l->report) {
        shard_count_down(s, l->id);
        shard_refuse(s, l, result == ERR_NO_SPACE ? VERDICT_NO_SPACE : VERDICT_TEMPFAIL);
        return;
    }
    metric_add(&metric_stored, 1);
    s->out.answer(s->out.arg, l, VERDICT_STORED, h->id);
    payload_keep(&s->payloads, l);
}

/* A chunk is on disk, or never will be. A submission that waited for its last one goes on now. */
static void release_chunk(struct shard *s, struct held *h, int result) {
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

static void release(struct shard *s, struct held *h, int result) {
    switch (h->kind) {
    case HELD_ANSWER:
        release_answer(s, h, result);
        return;
    case HELD_ASSIGN: /* void when its message was rejected or its node went away meanwhile */
        if (sched_is_assigned(s->core, h->assign.attempt))
            s->out.assign(s->out.arg, s, &h->assign);
        return;
    case HELD_ACK:
        s->out.ack(s->out.arg, h->assign.worker, h->assign.attempt);
        return;
    case HELD_CREDIT:
        release_chunk(s, h, result);
        return;
    case HELD_CALL: /* what it waits for is in the part that is written whatever happens */
        h->then(h->arg, ERR_OK);
        return;
    }
    CHECK_UNREACHABLE();
}

static void cancel_calls(const struct shard_batch *b) {
    for (struct held *h = b->held; h; h = h->next)
        if (h->kind == HELD_CALL)
            h->then(h->arg, ERR_CANCELED);
}

void shard_after(struct shard *s, void (*then)(void *arg, int err), void *arg) {
    shard_touch(s);
    struct held *h = shard_hold(s, HELD_CALL);
    h->then = then;
    h->arg = arg;
}

void shard_abandon(struct shard *s, struct shard_batch *b) {
    CHECK(s->sent == b);
    s->sent = b->next;
    cancel_calls(b);
    batch_free(b);
}

void shard_done(struct shard *s, struct shard_batch *b, int result, uint64_t now_ms) {
    if (result == ERR_CANCELED) { /* the process ends, and nobody knows what is on disk: nothing is said */
        shard_abandon(s, b);
        return;
    }
    struct sched_event event = {.kind = result == ERR_OK || !b->refusable ? SCHED_DURABLE : SCHED_REJECTED};
    event.batch = b->number;
    int err = shard_step(s, &event, now_ms);
    if (err != ERR_OK)
        LOG_ERROR("batch_event_refused", LOG_U64("batch", b->number), LOG_ERR("why", err));
    CHECK(s->sent == b);
    s->sent = b->next;
    shard_stale_settle(s, b);
    for (struct held *h = b->held; h; h = h->next)
        release(s, h, result);
    batch_recycle(s, b);
}

/* -- life -- */

static int read_number(struct store *store, uint32_t shard, enum queue_number n, uint64_t *value) {
    int err = queue_get_number(store, shard, n, value);
    if (err != ERR_NOT_FOUND)
        return err;
    *value = 0;
    return ERR_OK;
}

int shard_open(struct shard **out, const struct shard_config *c, struct store *store, const struct shard_out *to,
               uint64_t now_ms) {
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
    buf_init(&s->text, 65536);
    map_init(&s->stale);
    list_init(&s->stale_list);
    list_init(&s->readings);
    arena_init(&s->scratch, 64 * 1024, 0);
    s->current = batch_get(s);
    queue_put_number(shard_keep(s), s->number, QUEUE_EPOCH, core.epoch);
    LOG_INFO("shard_open", LOG_U64("shard", s->number), LOG_U64("epoch", core.epoch),
             LOG_U64("chunks_dropped", dropped));
    *out = s;
    return ERR_OK;
}

void shard_close(struct shard *s) {
    if (!s)
        return;
    CHECK(!s->sent && list_is_empty(&s->readings));
    sched_free(s->core);
    payloads_deinit(&s->payloads);
    near_deinit(&s->near);
    shard_stale_prune(s);
    buf_deinit(&s->text);
    map_deinit(&s->stale);
    arena_deinit(&s->scratch);
    cancel_calls(s->current);
    batch_free(s->current);
    for (struct shard_batch *b = s->pool, *next; b; b = next) {
        next = b->next;
        batch_free(b);
    }
    free(s);
}

struct sched *shard_core(struct shard *s) {
    return s->core;
}

struct payloads *shard_payloads(struct shard *s) {
    return &s->payloads;
}

uint32_t shard_number(const struct shard *s) {
    return s->number;
}

struct shard_totals *shard_totals(struct shard *s) {
    return &s->totals;
}

uint64_t shard_first_scan_end(const struct shard *s) {
    return s->scan_end;
}

uint64_t shard_oldest_open_ms(const struct shard *s) {
    if (s->sent)
        return s->sent->opened_ms;
    return s->current->opened_ms ? s->current->opened_ms : UINT64_MAX;
}

bool shard_is_idle(const struct shard *s) {
    return !s->sent && !s->current->opened_ms;
}

uint64_t shard_near_pop(struct shard *s, uint64_t now_ms) {
    return near_next_ms(&s->near) <= now_ms ? near_pop(&s->near) : 0;
}

bool shard_near_again(struct shard *s, uint64_t id, uint64_t now_ms) {
    return near_add(&s->near, now_ms + NEAR_SETTLE_MS, id);
}

uint64_t shard_near_next_ms(const struct shard *s) {
    return near_next_ms(&s->near);
}
