/*
 * shard: the daemon's own shard code over the in-memory store, killed at every step. Proves promises 1 to 3: what was
 * answered is kept, every accepted recipient ends, and a second copy comes only with an attempt that was in doubt.
 *
 * A world runs under a seed: it submits, writes batches without syncing them, syncs, delivers, reports, lets time pass,
 * fails writes, and at a random moment loses everything that is not synced (or a part of it). Then the shard is opened
 * anew, the queue is loaded as the daemon does it, and everything must drain. A failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/rand.h"
#include "proto/frame.h"
#include "proto/id.h"
#include "proto/outcome.h"
#include "scheduler/shard.h"
#include "store/memory.h"

#define MAILS 40u
#define JOBS_MAX 512u

struct mail {
    uint32_t recipients;
    bool answered, rejected;
    uint64_t id;
    uint32_t delivered[3];
    bool ended[3];
};
struct job {
    uint64_t attempt, id;
    uint32_t mail, count, indexes[3];
};
struct world {
    struct rand rand;
    uint64_t seed, now_ms;
    struct store *store;
    struct shard *shard;
    struct mail mails[MAILS];
    uint32_t mail_count;
    struct shard_batch *batches[256]; /* cut, oldest first; [0, written) are written, not synced */
    uint32_t batch_count, written;
    struct job jobs[JOBS_MAX];
    uint32_t job_count;
    uint32_t duplicates, in_doubt, crashes;
    struct shard_compose *composing[64];
    uint32_t composing_count;
    uint64_t release_ms, by_ms; /* of mails submitted from now on; 0: none */
    uint32_t changed;           /* recipients that an operator took hold of */
    char sent_to[32];           /* destination of the last job */
};

#define CHECK_SEED(w, cond)                                                                                            \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            fail_msg("seed %llu: %s", (unsigned long long)(w)->seed, #cond);                                           \
    } while (0)

/* The mail's number is its size, so that an id found in the store leads back to it. */
static uint32_t mail_of(struct world *w, uint64_t id) {
    struct arena mem;
    Words__Envelope *e;
    arena_init(&mem, 4096, 0);
    CHECK_SEED(w, queue_get_envelope(w->store, 0, id, &mem, &e) == ERR_OK);
    uint32_t n = (uint32_t)(e->received_ms % 1000);
    arena_deinit(&mem);
    return n;
}

/* -- what the shard lets out -- */

static void on_commit(void *arg, struct shard_batch *b) {
    struct world *w = arg;
    CHECK_SEED(w, w->batch_count < 256);
    w->batches[w->batch_count++] = b;
}

static void on_answer(void *arg, const struct payload *l, uint32_t verdict, uint64_t id) {
    struct world *w = arg;
    if (l->report)
        return;
    struct mail *m = &w->mails[l->correlation];
    CHECK_SEED(w, !m->answered && !m->rejected);
    m->answered = verdict == VERDICT_STORED;
    m->rejected = !m->answered;
    m->id = id;
}

static void on_credit(void *arg, struct hub_peer *peer, uint64_t bytes) {
    (void)arg, (void)peer, (void)bytes;
}

static void on_assign(void *arg, struct shard *s, const struct shard_assign *a) {
    struct world *w = arg;
    (void)s;
    CHECK_SEED(w, w->job_count < JOBS_MAX && a->count <= 3);
    struct job *j = &w->jobs[w->job_count++];
    *j = (struct job){.attempt = a->attempt, .id = a->id, .mail = mail_of(w, a->id), .count = a->count};
    memcpy(j->indexes, a->indexes, a->count * sizeof *a->indexes);
    span_copy(a->destination, w->sent_to, sizeof w->sent_to);
    CHECK_SEED(w, !w->mails[j->mail].rejected); /* 451 was said: never delivered later */
}

static void on_ack(void *arg, uint32_t worker, uint64_t attempt) {
    (void)arg, (void)worker, (void)attempt;
}

static void on_compose(void *arg, struct shard_compose *c) {
    struct world *w = arg;
    CHECK_SEED(w, w->composing_count < 64);
    w->composing[w->composing_count++] = c;
}

/* -- a life of the shard -- */

static void open_shard(struct world *w) {
    struct shard_out out = {w, on_commit, on_answer, on_credit, on_assign, on_ack, on_compose};
    struct shard_config c = {.cache_bytes = 0, .pending_max = 1000};
    c.core = (struct sched_config){.active_max = 30,
                                   .per_site = 5,
                                   .seed = w->seed,
                                   .report_delay_ms = 1000,
                                   .suspend_first_ms = 1000,
                                   .suspend_max_ms = 2000,
                                   .retry = {.first_ms = 2000, .max_ms = 8000, .give_up_ms = 600000}};
    CHECK_SEED(w, shard_open(&w->shard, &c, w->store, &out, w->now_ms) == ERR_OK);
    struct sched_event up = {.kind = SCHED_WORKER_UP,
                             .worker = {.worker = 1, .name = SPAN("d"), .jobs_max = 50, .bytes_max = 1 << 20}};
    CHECK_SEED(w, shard_step(w->shard, &up, w->now_ms) == ERR_OK);
}

struct flights {
    struct shard *shard;
    uint64_t id, attempt;
    uint32_t indexes[8], count;
};

static void on_flight(void *arg, uint64_t attempt, const Words__Inflight *r) {
    struct flights *f = arg;
    if (r->message != f->id)
        return;
    if (f->attempt) /* only the last one goes to the core; the record of this one is the shell's to drop */
        queue_drop_inflight(shard_keep(f->shard), 0, f->attempt);
    f->attempt = attempt;
    for (size_t i = 0; i < r->n_recipients && f->count < 8; i++)
        f->indexes[f->count++] = r->recipients[i];
}

/* An attempt of a message that was refused while the attempt was held. */
static void drop_stray(void *arg, uint64_t attempt, const Words__Inflight *r) {
    struct world *w = arg;
    struct arena mem;
    Words__Envelope *e;
    arena_init(&mem, 4096, 0);
    if (queue_get_envelope(w->store, 0, r->message, &mem, &e) == ERR_NOT_FOUND)
        queue_drop_inflight(shard_keep(w->shard), 0, attempt);
    arena_deinit(&mem);
}

/* Everything in the store that is not in memory, as the loader does it (with the minute index left out). */
static void load_all(struct world *w, bool start) {
    uint64_t ids[512];
    size_t count;
    struct shard_reading reading;
    CHECK_SEED(w, queue_read_ids(w->store, 0, 0, UINT64_MAX, ids, 512, &count) == ERR_OK && count < 512);
    shard_reading_begin(w->shard, &reading);
    for (size_t i = 0; i < count; i++) {
        struct arena mem;
        Words__Envelope *e;
        Words__RecipientState **states;
        struct flights f = {.shard = w->shard, .id = ids[i]};
        arena_init(&mem, 4096, 0);
        if (!start && sched_room(shard_core(w->shard)) == 0)
            break;
        CHECK_SEED(w, queue_get_envelope(w->store, 0, ids[i], &mem, &e) == ERR_OK);
        CHECK_SEED(w, queue_get_states(w->store, 0, ids[i], (uint32_t)e->n_recipients, &mem, &states) == ERR_OK);
        if (start)
            CHECK_SEED(w, queue_each_inflight(w->store, 0, on_flight, &f) == ERR_OK);
        int err = shard_load(w->shard, &reading, ids[i], e, states, f.attempt, f.indexes, f.count, NULL, w->now_ms);
        CHECK_SEED(w, err == ERR_OK || err == ERR_AGAIN);
        arena_deinit(&mem);
    }
    shard_reading_end(w->shard, &reading);
    if (start)
        CHECK_SEED(w, queue_each_inflight(w->store, 0, drop_stray, w) == ERR_OK);
}

static void note_state(void *arg, const struct sched_view *v) {
    ((uint32_t *)arg)[v->index] = v->state == SCHED_ASSIGNED ? 100 + v->wish : v->state;
}

/* An operator's change as operator.c does it: to the core, or with a loading. False: it is between the two. */
static bool change(struct world *w, uint32_t verb, uint64_t id) {
    struct sched_event e = {.kind = SCHED_OPERATOR};
    struct shard_reading reading;
    struct arena mem;
    Words__Envelope *envelope;
    Words__RecipientState **states;
    e.operator_ = (struct sched_operator){
        .verb = verb, .message = id, .note = SPAN("by op: why"), .destination = SPAN("smtp:r.example:25")};
    uint32_t now[3] = {0};
    if (sched_look(shard_core(w->shard), id, note_state, now) == ERR_OK) {
        CHECK_SEED(w, shard_step(w->shard, &e, w->now_ms) == ERR_OK);
        w->changed += sched_changed(shard_core(w->shard));
        return true;
    }
    arena_init(&mem, 4096, 0);
    shard_reading_begin(w->shard, &reading);
    int err = queue_get_message(w->store, 0, id, &mem, &envelope, &states);
    if (err == ERR_OK)
        err = shard_load(w->shard, &reading, id, envelope, states, 0, NULL, 0, &e.operator_, w->now_ms);
    CHECK_SEED(w, err == ERR_OK || err == ERR_AGAIN || err == ERR_NOT_FOUND);
    shard_reading_end(w->shard, &reading);
    arena_deinit(&mem);
    if (err == ERR_OK)
        w->changed += sched_changed(shard_core(w->shard));
    return err == ERR_OK;
}

/* Of any message that is in the store: it may end by this. */
static void change_any(struct world *w, uint32_t verb) {
    uint64_t ids[512];
    size_t count;
    CHECK_SEED(w, queue_read_ids(w->store, 0, 0, UINT64_MAX, ids, 512, &count) == ERR_OK);
    if (!count)
        return;
    uint64_t id = ids[rand_below(&w->rand, count)];
    struct mail *m = &w->mails[mail_of(w, id)];
    if (change(w, verb, id) && (verb == SCHED_OP_DELETE || verb == SCHED_OP_BOUNCE))
        memset(m->ended, true, sizeof m->ended);
}

static void release_all(struct world *w) {
    uint64_t ids[512];
    size_t count;
    CHECK_SEED(w, queue_read_ids(w->store, 0, 0, UINT64_MAX, ids, 512, &count) == ERR_OK);
    for (size_t i = 0; i < count; i++)
        change(w, SCHED_OP_RELEASE, ids[i]);
}

/* -- steps of the world -- */

static void submit(struct world *w) {
    if (w->mail_count == MAILS)
        return;
    uint32_t n = w->mail_count++;
    struct mail *m = &w->mails[n];
    Words__Envelope e = WORDS__ENVELOPE__INIT;
    Words__Recipient r[3], *rs[3];
    struct buf packed;
    m->recipients = 1 + (uint32_t)rand_below(&w->rand, 3);
    for (uint32_t i = 0; i < m->recipients; i++) {
        static const char *const domains[] = {"a.example", "b.example", "c.example"};
        words__recipient__init(&r[i]);
        r[i].address = frame_bytes(SPAN("x@y.example"));
        r[i].destination = frame_bytes(span_of(domains[rand_below(&w->rand, 3)]));
        rs[i] = &r[i];
    }
    e.sender = frame_bytes(SPAN("s@s.example"));
    e.n_recipients = m->recipients;
    e.recipients = rs;
    e.received_ms = w->now_ms - w->now_ms % 1000 + n;
    e.size = 4;
    e.has_release_ms = w->release_ms != 0;
    e.release_ms = w->release_ms;
    e.has_deliver_by_ms = w->by_ms != 0;
    e.deliver_by_ms = w->by_ms;
    uint8_t submission[16] = {(uint8_t)(n + 1)};
    struct payload *l = payload_new(shard_payloads(w->shard), submission);
    CHECK_SEED(w, l != NULL);
    buf_init(&packed, 65536);
    CHECK_SEED(w, frame_pack(&e.base, &packed) == ERR_OK);
    l->envelope_len = buf_len(&packed);
    l->envelope = malloc(l->envelope_len);
    memcpy(l->envelope, buf_span(&packed).at, l->envelope_len);
    l->correlation = n;
    l->body = bus_bytes_copy(SPAN("body"));
    shard_submit(w->shard, l, &e, w->now_ms);
    buf_deinit(&packed);
}

static int write_batch(struct world *w, struct shard_batch *b, bool repair) {
    struct store_batch *all = store_batch_new();
    store_batch_add(all, b->request.keep);
    store_batch_add(all, repair ? b->request.undo : b->request.refusable);
    int err = store_write(w->store, all, false);
    store_batch_free(all);
    return err;
}

static void write_one(struct world *w) {
    if (w->written < w->batch_count && write_batch(w, w->batches[w->written], false) == ERR_OK)
        w->written++;
}

static void complete(struct world *w, uint32_t count, int result) {
    struct shard_batch *done[256];
    memcpy(done, w->batches, count * sizeof(struct shard_batch *));
    w->batch_count -= count;
    w->written -= count;
    memmove(w->batches, w->batches + count, w->batch_count * sizeof(struct shard_batch *));
    for (uint32_t i = 0; i < count; i++)
        shard_done(w->shard, done[i], result, w->now_ms);
}

static void sync_written(struct world *w) {
    struct store_batch *none = store_batch_new();
    CHECK_SEED(w, store_write(w->store, none, true) == ERR_OK);
    store_batch_free(none);
    complete(w, w->written, ERR_OK);
}

/* A write fails, with or without a trace of it on disk; the commit thread's repair follows, and 451. */
static void fail_write(struct world *w) {
    sync_written(w);
    if (!w->batch_count)
        return;
    struct store_report report;
    store_memory_fail(w->store, 1, ERR_IO, rand_below(&w->rand, 2));
    CHECK_SEED(w, write_batch(w, w->batches[0], false) == ERR_IO);
    CHECK_SEED(w, store_reopen(w->store, &report) == ERR_OK);
    CHECK_SEED(w, write_batch(w, w->batches[0], true) == ERR_OK);
    w->written = 1;
    struct store_batch *none = store_batch_new();
    CHECK_SEED(w, store_write(w->store, none, true) == ERR_OK);
    store_batch_free(none);
    complete(w, 1, ERR_IO);
}

/* The delivery node does its work and reports; `silent`: it delivers and dies before the report is heard. */
static void deliver(struct world *w, bool silent, bool only_good) {
    if (!w->job_count)
        return;
    struct job j = w->jobs[0];
    struct sched_result results[3];
    struct mail *m = &w->mails[j.mail];
    memmove(w->jobs, w->jobs + 1, --w->job_count * sizeof *w->jobs);
    for (uint32_t i = 0; i < j.count; i++) {
        uint64_t dice = only_good ? 0 : rand_below(&w->rand, 10);
        uint32_t outcome = dice < 6   ? SCHED_OUT_DELIVERED
                           : dice < 8 ? SCHED_OUT_DEFERRED
                           : dice < 9 ? SCHED_OUT_FAILED
                                      : SCHED_OUT_RETURNED;
        results[i] = (struct sched_result){
            .outcome = outcome, .scope = SCHED_SCOPE_RECIPIENT, .code = 250, .text = SPAN("text")};
        CHECK_SEED(w, j.indexes[i] < m->recipients);
        if (outcome == SCHED_OUT_DELIVERED && m->delivered[j.indexes[i]]++)
            w->duplicates++;
        if (outcome == SCHED_OUT_FAILED && !silent)
            m->ended[j.indexes[i]] = true;
    }
    if (silent)
        return;
    struct sched_event e = {.kind = SCHED_REPORTED};
    e.report = (struct sched_report){.worker = 1,
                                     .attempt = j.attempt,
                                     .message = j.id,
                                     .site = SPAN("site"),
                                     .site_ttl_ms = 60000,
                                     .indexes = j.indexes,
                                     .results = results,
                                     .count = j.count};
    CHECK_SEED(w, shard_step(w->shard, &e, w->now_ms) == ERR_OK);
}

static void compose_one(struct world *w) {
    if (!w->composing_count)
        return;
    struct shard_compose *c = w->composing[--w->composing_count];
    shard_composed(w->shard, c->id, c->compose, NULL, NULL, SPAN("the test writes none"), w->now_ms);
    arena_deinit(&c->arena);
    free(c);
}

static void tick(struct world *w, uint64_t ms) {
    struct sched_event e = {.kind = SCHED_TICK};
    w->now_ms += ms;
    CHECK_SEED(w, shard_step(w->shard, &e, w->now_ms) == ERR_OK);
}

/* The process dies, and the disk forgets a part of what was not synced. */
static void crash(struct world *w) {
    struct sched_counts counts;
    sched_counts(shard_core(w->shard), &counts);
    w->in_doubt += (uint32_t)counts.in_doubt;
    store_memory_crash(w->store, rand_below(&w->rand, 4));
    for (uint32_t i = 0; i < w->batch_count; i++) {
        shard_abandon(w->shard, w->batches[i]);
    }
    while (w->composing_count) {
        struct shard_compose *c = w->composing[--w->composing_count];
        arena_deinit(&c->arena);
        free(c);
    }
    shard_close(w->shard);
    w->batch_count = w->written = 0;
    /* Jobs that were out are delivered or not; nobody hears of it. */
    while (w->job_count)
        deliver(w, true, false);
    w->crashes++;
    w->now_ms += 1000;
    open_shard(w);
    load_all(w, true);
}

static void step(struct world *w) {
    switch (rand_below(&w->rand, 17)) {
    case 0:
    case 1:
    case 2:
    case 3:
        submit(w);
        break;
    case 4:
    case 5:
        shard_flush(w->shard, w->now_ms);
        break;
    case 6:
    case 7:
        write_one(w);
        break;
    case 8:
    case 9:
        sync_written(w);
        break;
    case 10:
    case 11:
    case 12:
        deliver(w, false, false);
        break;
    case 13:
        compose_one(w);
        break;
    case 14:
        tick(w, rand_below(&w->rand, 3000));
        if (rand_below(&w->rand, 3) == 0)
            load_all(w, false);
        break;
    case 15:
        change_any(w, 1 + (uint32_t)rand_below(&w->rand, 6));
        break;
    default:
        if (rand_below(&w->rand, 4) == 0)
            fail_write(w);
    }
}

static void drain(struct world *w) {
    for (int i = 0; i < 3000; i++) {
        shard_flush(w->shard, w->now_ms);
        while (w->written < w->batch_count)
            write_one(w);
        sync_written(w);
        deliver(w, false, true);
        compose_one(w);
        if (i % 5 == 0)
            tick(w, 1500);
        if (i % 5 == 0)
            load_all(w, false);
        release_all(w);
        if (!store_memory_count(w->store, STORE_ENVELOPE) && !w->job_count && shard_is_idle(w->shard))
            return;
    }
    fail_msg("seed %llu: does not drain: %zu envelopes, %u jobs", (unsigned long long)w->seed,
             store_memory_count(w->store, STORE_ENVELOPE), w->job_count);
}

static void check_books(struct world *w) {
    struct sched_counts counts;
    sched_counts(shard_core(w->shard), &counts);
    w->in_doubt += (uint32_t)counts.in_doubt;
    for (uint32_t i = 0; i < w->mail_count; i++) {
        const struct mail *m = &w->mails[i];
        for (uint32_t k = 0; k < m->recipients && m->answered; k++)
            CHECK_SEED(w, m->delivered[k] || m->ended[k]);
        for (uint32_t k = 0; k < m->recipients && m->rejected; k++)
            CHECK_SEED(w, !m->delivered[k]);
    }
    CHECK_SEED(w, w->duplicates <= w->in_doubt);
    static const enum store_family empty[] = {STORE_ENVELOPE, STORE_BODY, STORE_RECIPIENT, STORE_INFLIGHT};
    for (size_t i = 0; i < 4; i++)
        if (store_memory_count(w->store, empty[i]))
            fail_msg("seed %llu: %zu records left in %s", (unsigned long long)w->seed,
                     store_memory_count(w->store, empty[i]), store_family_name(empty[i]));
}

static void run_world(uint64_t seed, uint32_t steps, uint32_t crash_every, uint32_t *duplicates, uint32_t *in_doubt) {
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->seed = seed;
    w->now_ms = 1764000000000ULL;
    rand_init(&w->rand, seed);
    CHECK_SEED(w, store_memory_open(&w->store) == ERR_OK);
    open_shard(w);
    for (uint32_t i = 0; i < steps; i++) {
        step(w);
        if (crash_every && rand_below(&w->rand, crash_every) == 0)
            crash(w);
    }
    drain(w);
    check_books(w);
    *duplicates += w->duplicates;
    *in_doubt += w->in_doubt;
    shard_close(w->shard);
    store_close(w->store);
    free(w);
}

static void without_a_crash_nothing_comes_twice(void **state) {
    uint32_t duplicates = 0, in_doubt = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++)
        run_world(seed, 400, 0, &duplicates, &in_doubt);
    assert_int_equal(duplicates, 0);
    assert_int_equal(in_doubt, 0);
}

static void killed_anywhere_the_books_balance(void **state) {
    uint32_t duplicates = 0, in_doubt = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++)
        run_world(seed, 300, 60, &duplicates, &in_doubt);
    print_message("%u duplicates, %u in doubt\n", duplicates, in_doubt);
    assert_true(duplicates > 0); /* the test reaches the ambiguous ends */
}

/* One life, killed after every single step of it. */
static void killed_after_every_step(void **state) {
    uint32_t duplicates = 0, in_doubt = 0;
    (void)state;
    for (uint32_t at = 1; at <= 250; at++) {
        struct world *w = calloc(1, sizeof *w);
        w->seed = 77;
        w->now_ms = 1764000000000ULL;
        rand_init(&w->rand, w->seed);
        CHECK_SEED(w, store_memory_open(&w->store) == ERR_OK);
        open_shard(w);
        for (uint32_t i = 0; i < at; i++)
            step(w);
        crash(w);
        drain(w);
        check_books(w);
        duplicates += w->duplicates;
        in_doubt += w->in_doubt;
        shard_close(w->shard);
        store_close(w->store);
        free(w);
    }
    assert_true(duplicates <= in_doubt);
}

static void settle(struct world *w) {
    for (int i = 0; i < 5; i++) {
        shard_flush(w->shard, w->now_ms);
        while (w->written < w->batch_count)
            write_one(w);
        sync_written(w);
    }
}

/* What the envelope says of times reaches the core, from a submission and from a reading after a crash. */
static void times_of_the_envelope_are_kept(void **state) {
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    w->now_ms = 1764000000000ULL;
    rand_init(&w->rand, 1);
    assert_int_equal(store_memory_open(&w->store), ERR_OK);
    open_shard(w);
    w->release_ms = w->now_ms + 20000;
    submit(w);
    w->release_ms = 0;
    w->by_ms = w->now_ms - 1;
    submit(w);
    settle(w);
    assert_true(w->mails[0].answered && w->mails[1].answered);
    assert_int_equal(w->job_count, 0); /* one is held, the other came too late */
    assert_int_equal(w->composing_count, 1);
    crash(w);
    settle(w);
    assert_int_equal(w->job_count, 0);
    assert_int_equal(w->composing_count, 1);
    tick(w, 20000);
    load_all(w, false);
    settle(w);
    assert_true(w->job_count > 0);
    assert_int_equal(w->jobs[0].mail, 0);
    drain(w);
    for (uint32_t k = 0; k < 3; k++)
        assert_int_equal(w->mails[1].delivered[k], 0);
    assert_int_equal(w->mails[0].delivered[0], 1);
    shard_close(w->shard);
    store_close(w->store);
    free(w);
}

struct look {
    uint32_t state;
    Words__RecipientState kept;
    char note[64], route[64];
};

/* The first recipient of the only message in the store; state 0: there is none. */
static struct look look(struct world *w) {
    struct look l = {0};
    uint64_t id;
    size_t count;
    struct arena mem;
    Words__Envelope *e;
    Words__RecipientState **states;
    assert_int_equal(queue_read_ids(w->store, 0, 0, UINT64_MAX, &id, 1, &count), ERR_OK);
    if (!count)
        return l;
    arena_init(&mem, 4096, 0);
    assert_int_equal(queue_get_message(w->store, 0, id, &mem, &e, &states), ERR_OK);
    l.state = states[0] ? states[0]->state : (uint32_t)SCHED_READY;
    if (states[0]) {
        l.kept = *states[0];
        span_copy(frame_span(states[0]->note), l.note, sizeof l.note);
        span_copy(states[0]->has_destination ? frame_span(states[0]->destination) : SPAN_EMPTY, l.route,
                  sizeof l.route);
    }
    arena_deinit(&mem);
    return l;
}

/* Each verb on mail that is deferred, and on mail under way; the process dies when it is durable. */
static void a_change_survives_a_crash(void **state) {
    (void)state;
    for (uint32_t way = 0; way < 8; way++) {
        static const uint32_t verbs[] = {SCHED_OP_HOLD, SCHED_OP_DELETE, SCHED_OP_BOUNCE, SCHED_OP_REROUTE};
        uint32_t verb = verbs[way / 2];
        bool under_way = way % 2;
        struct world *w = calloc(1, sizeof *w);
        w->now_ms = 1764000000000ULL;
        rand_init(&w->rand, 3);
        assert_int_equal(store_memory_open(&w->store), ERR_OK);
        open_shard(w);
        w->release_ms = under_way ? 0 : w->now_ms + 3600000;
        do { /* a mail of one recipient */
            submit(w);
            settle(w);
            if (w->mails[w->mail_count - 1].recipients > 1) {
                assert_true(change(w, SCHED_OP_DELETE, w->mails[w->mail_count - 1].id));
                while (w->job_count)
                    deliver(w, false, true);
                settle(w);
            }
        } while (w->mails[w->mail_count - 1].recipients > 1);
        uint64_t id = w->mails[w->mail_count - 1].id;
        assert_int_equal(w->job_count, under_way);
        w->changed = 0;
        assert_true(change(w, verb, id));
        assert_int_equal(w->changed, 1);
        settle(w);
        crash(w); /* the job under way may have been delivered; it is in doubt */
        settle(w);
        struct look l = look(w);
        if (verb == SCHED_OP_HOLD) {
            assert_int_equal(l.state, SCHED_HELD);
            assert_true(l.kept.has_since_ms);
            assert_string_equal(l.note, "by op: why");
            tick(w, 3600000);
            load_all(w, false);
            settle(w);
            assert_int_equal(w->job_count, 0);
            assert_true(change(w, SCHED_OP_RELEASE, id));
        } else if (verb == SCHED_OP_DELETE) {
            assert_int_equal(l.state, 0);
        } else if (verb == SCHED_OP_BOUNCE) {
            assert_int_equal(l.state, SCHED_FAILED);
            assert_int_equal(w->composing_count, 1);
            assert_string_equal(w->composing[0]->results[0].text.at ? "text" : "", "text");
        } else {
            assert_string_equal(l.route, "smtp:r.example:25");
            tick(w, 3600000);
            load_all(w, false);
            settle(w);
            assert_int_equal(w->job_count, 1);
            assert_string_equal(w->sent_to, "smtp:r.example:25");
        }
        drain(w);
        shard_close(w->shard);
        store_close(w->store);
        free(w);
    }
}

static void on_called(void *arg, int err) {
    int *said = arg;
    said[said[0]++] = err;
}

/* What waits for the disk hears of it once, in order, and of the end of the process. */
static void after_is_called_when_it_is_durable(void **state) {
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    int said[8] = {1};
    w->now_ms = 1764000000000ULL;
    rand_init(&w->rand, 1);
    assert_int_equal(store_memory_open(&w->store), ERR_OK);
    open_shard(w);
    settle(w);
    submit(w);
    shard_after(w->shard, on_called, said);
    shard_flush(w->shard, w->now_ms);
    write_one(w);
    assert_int_equal(said[0], 1);
    sync_written(w);
    assert_int_equal(said[0], 2);
    assert_int_equal(said[1], ERR_OK);
    shard_after(w->shard, on_called, said);
    fail_write(w); /* nothing was sent off */
    shard_flush(w->shard, w->now_ms);
    fail_write(w);
    assert_int_equal(said[0], 3);
    assert_int_equal(said[2], ERR_OK); /* what must be written was written by the repair */
    shard_after(w->shard, on_called, said);
    shard_flush(w->shard, w->now_ms);
    shard_after(w->shard, on_called, said);
    crash(w);
    assert_int_equal(said[0], 5);
    assert_int_equal(said[3], ERR_CANCELED);
    assert_int_equal(said[4], ERR_CANCELED);
    drain(w);
    shard_close(w->shard);
    store_close(w->store);
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_survives_a_crash),
        cmocka_unit_test(after_is_called_when_it_is_durable),
        cmocka_unit_test(without_a_crash_nothing_comes_twice),
        cmocka_unit_test(killed_anywhere_the_books_balance),
        cmocka_unit_test(killed_after_every_step),
        cmocka_unit_test(times_of_the_envelope_are_kept),
    };
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT); /* thousands of openings */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
