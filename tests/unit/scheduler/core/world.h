/*
 * world: a toy shell around the scheduler core for its tests: a store that is a table, batches that
 * become durable or are rejected when the test says so, and a list of jobs that a node would hold.
 * It obeys the rules of sched.h, and checks some of them on the way (marked "oracle").
 *
 * All memory of a world comes from one arena and ends with it.
 */
#ifndef TESTS_SCHEDULER_CORE_WORLD_H
#define TESTS_SCHEDULER_CORE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "scheduler/core/sched.h"

#define WORLD_START_MS 1700000000000u
#define MINUTE_MS 60000u
#define HOUR_MS 3600000u

struct stored { /* one recipient in the toy store */
    bool record;
    uint32_t state, attempts;
    uint64_t due_ms;
    bool notified, has_result;
    uint32_t code;
    struct span text, enhanced;
    struct span route, note; /* an operator's; route empty: none */
    uint32_t wish;
};
struct wbook {
    uint32_t arrived; /* copies that a node delivered */
    uint32_t doubts;  /* times it was in doubt */
    uint32_t ended;   /* durable: delivered, failed or expired */
    uint32_t failed, told;
    uint64_t live;   /* attempt that it is in */
    bool held, gone; /* by an operator, durable or not */
    bool deleted;    /* durable */
};
struct wmsg { /* one message ever submitted */
    uint64_t token, id;
    struct sched_submit submit; /* spans and recipients are copies */
    bool composed;              /* a report of the core's own */
    bool there;                 /* in the store */
    bool answered, refused, dropped;
    struct stored *at;
    struct wbook *book; /* per recipient: for oracles of the model test */
};
struct wop {
    struct wop *next;
    struct sched_action a; /* spans and arrays are copies */
    bool refusable;
};
struct wbatch {
    struct wbatch *next;
    uint64_t number;
    struct wop *first, *last;
};
struct wjob {
    uint64_t attempt, id;
    uint32_t worker, count, concurrency, attempts;
    const uint32_t *indexes;
    struct span destination;
    bool open;
};
struct wflight {
    uint64_t attempt, id;
    uint32_t count;
    const uint32_t *indexes;
    bool open;
};
struct wcompose {
    uint64_t id, compose, until_ms;
    enum sched_report_kind kind;
    const uint32_t *indexes;
    const struct sched_result *results;
    uint32_t count;
    bool open;
};
struct world {
    struct arena mem;
    struct sched_config config;
    struct sched *core;
    uint64_t now;
    struct sched_actions acts; /* of the last step */
    int err;
    struct wmsg *msgs;
    uint32_t msg_count;
    struct wjob *jobs;
    uint32_t job_count;
    struct wflight *flights;
    uint32_t flight_count;
    struct wcompose *composes;
    uint32_t compose_count;
    uint64_t *acks;
    uint32_t ack_count;
    struct wbatch *pending, *pending_last, *current;
    uint64_t forgotten; /* id of the last FORGET */
    uint32_t traces[24];
    void (*on_action)(struct world *w, const struct sched_action *a);
    void (*on_write)(struct world *w, const struct sched_action *a);
    void (*on_reborn)(struct world *w); /* a new core, before anything is loaded */
    void *model;
};

#define W_GROW(w, array, count)                                                                                        \
    do {                                                                                                               \
        if (((count) & ((count)-1)) == 0) {                                                                            \
            void *grown_ = arena_calloc(&(w)->mem, (count) ? 2u * (count) : 1u, sizeof *(array));                      \
            assert_non_null(grown_);                                                                                   \
            if (count)                                                                                                 \
                memcpy(grown_, array, (count) * sizeof *(array));                                                      \
            (array) = grown_;                                                                                          \
        }                                                                                                              \
    } while (0)

static inline struct sched_config world_config(void) {
    return (struct sched_config){
        .shard = 3,
        .epoch = 7,
        .seed = 42,
        .active_max = 100000,
        .retry = {5 * MINUTE_MS, 4 * HOUR_MS, 120 * HOUR_MS, 4 * HOUR_MS},
        .per_site = 20,
    };
}

static inline void world_init(struct world *w, const struct sched_config *c) {
    memset(w, 0, sizeof *w);
    arena_init(&w->mem, 1 << 16, 0);
    w->config = *c;
    w->now = WORLD_START_MS;
    w->core = sched_new(c, 0, 0);
    assert_non_null(w->core);
}

static inline void world_deinit(struct world *w) {
    sched_free(w->core);
    arena_deinit(&w->mem);
}

static inline struct wmsg *world_by_id(struct world *w, uint64_t id) {
    for (uint32_t i = w->msg_count; i-- > 0;)
        if (w->msgs[i].id == id)
            return &w->msgs[i];
    return NULL;
}

static inline struct wmsg *world_by_token(struct world *w, uint64_t token) {
    assert_true(token >= 1 && token <= w->msg_count);
    return &w->msgs[token - 1];
}

static inline struct span world_dup(struct world *w, struct span s) {
    return s.len ? arena_dup(&w->mem, s) : SPAN_EMPTY;
}

static inline const uint32_t *world_indexes(struct world *w, const uint32_t *from, uint32_t count) {
    uint32_t *to = arena_calloc(&w->mem, count + 1, sizeof *to);
    if (count)
        memcpy(to, from, count * sizeof *to);
    return to;
}

/* -- actions -- */

static inline void world_gather(struct world *w, const struct sched_action *a, uint64_t put_id) {
    if (!w->current)
        w->current = arena_calloc(&w->mem, 1, sizeof *w->current);
    struct wop *op = arena_calloc(&w->mem, 1, sizeof *op);
    op->a = *a;
    if (a->kind == SCHED_PUT_RECIPIENT) {
        op->a.recipient.destination = world_dup(w, a->recipient.destination);
        op->a.recipient.note = world_dup(w, a->recipient.note);
        op->a.recipient.last.text = world_dup(w, a->recipient.last.text);
        op->a.recipient.last.enhanced = world_dup(w, a->recipient.last.enhanced);
        op->a.recipient.last.remote = world_dup(w, a->recipient.last.remote);
        op->refusable = a->recipient.id == put_id;
    } else if (a->kind == SCHED_ASSIGN || a->kind == SCHED_PUT_INFLIGHT) {
        op->a.attempt.indexes = world_indexes(w, a->attempt.indexes, a->attempt.count);
        op->a.attempt.destination = world_dup(w, a->attempt.destination);
    } else if (a->kind == SCHED_PUT_MESSAGE) {
        op->refusable = a->put.id == put_id;
    } else if (a->kind == SCHED_ANSWER) {
        op->refusable = a->answer.id == put_id;
    } else if (a->kind == SCHED_TRACE) {
        op->a.trace.indexes = world_indexes(w, a->trace.indexes, a->trace.count);
        op->refusable = a->trace.id == put_id;
    }
    if (w->current->last)
        w->current->last->next = op;
    else
        w->current->first = op;
    w->current->last = op;
}

static inline void world_compose(struct world *w, const struct sched_action *a) {
    W_GROW(w, w->composes, w->compose_count);
    struct sched_result *results = arena_calloc(&w->mem, a->compose.count + 1, sizeof *results);
    for (uint32_t i = 0; i < a->compose.count; i++) {
        results[i] = a->compose.results[i];
        results[i].text = world_dup(w, results[i].text);
        results[i].enhanced = world_dup(w, results[i].enhanced);
        results[i].remote = world_dup(w, results[i].remote);
    }
    w->composes[w->compose_count++] =
        (struct wcompose){.id = a->compose.id,
                          .compose = a->compose.compose,
                          .kind = a->compose.kind,
                          .count = a->compose.count,
                          .indexes = world_indexes(w, a->compose.indexes, a->compose.count),
                          .results = results,
                          .until_ms = a->compose.will_retry_until_ms,
                          .open = true};
}

static inline void world_take_actions(struct world *w) {
    uint64_t put_id = 0;
    for (uint32_t i = 0; i < w->acts.count; i++) {
        const struct sched_action *a = &w->acts.at[i];
        if (w->on_action)
            w->on_action(w, a);
        if (a->kind == SCHED_PUT_MESSAGE) {
            struct wmsg *m = world_by_token(w, a->put.token);
            assert_true(m->id == 0 || m->id == a->put.id);
            m->id = a->put.id;
            put_id = m->composed ? 0 : m->id;
        }
        if (a->kind == SCHED_TRACE) {
            assert_true(a->trace.kind >= 1 && a->trace.kind < 24);
            w->traces[a->trace.kind]++;
        }
        if (a->kind == SCHED_COMPOSE) {
            world_compose(w, a);
        } else if (a->kind == SCHED_FORGET) {
            w->forgotten = a->id;
        } else {
            world_gather(w, a, put_id);
        }
    }
}

static inline int world_step(struct world *w, const struct sched_event *e) {
    w->err = sched_step(w->core, e, w->now, &w->acts);
    world_take_actions(w);
    return w->err;
}

static inline void world_tick(struct world *w, uint64_t ms) {
    w->now += ms;
    struct sched_event e = {.kind = SCHED_TICK};
    assert_int_equal(world_step(w, &e), ERR_OK);
}

/* The nth action of a kind in the last step, or NULL. */
static inline const struct sched_action *world_act(const struct world *w, enum sched_action_kind kind, uint32_t nth) {
    for (uint32_t i = 0; i < w->acts.count; i++)
        if (w->acts.at[i].kind == kind && nth-- == 0)
            return &w->acts.at[i];
    return NULL;
}

static inline uint32_t world_acts(const struct world *w, enum sched_action_kind kind) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->acts.count; i++)
        n += w->acts.at[i].kind == kind;
    return n;
}

/* -- batches -- */

static inline void world_cut(struct world *w) {
    if (!w->current)
        return;
    w->current->number = sched_cut(w->core);
    if (w->pending)
        w->pending_last->next = w->current;
    else
        w->pending = w->current;
    w->pending_last = w->current;
    w->current = NULL;
}

static inline void world_write(struct world *w, const struct sched_action *a) {
    if (w->on_write)
        w->on_write(w, a);
    if (a->kind == SCHED_PUT_MESSAGE) {
        struct wmsg *m = world_by_id(w, a->put.id);
        assert_non_null(m);
        assert_false(m->there); /* oracle */
        m->there = true;
        m->at = arena_calloc(&w->mem, m->submit.count, sizeof *m->at);
    } else if (a->kind == SCHED_DROP_MESSAGE) {
        struct wmsg *m = world_by_id(w, a->drop.id);
        assert_non_null(m);
        assert_int_equal(a->drop.count, m->submit.count);
        assert_int_equal(a->drop.size, m->submit.size);
        assert_true(m->there || m->refused); /* oracle */
        for (uint32_t i = 0; m->there && i < a->drop.count; i++)
            assert_true(a->drop.states || !m->at[i].record); /* oracle: no record is left behind */
        m->there = false;
        m->dropped = true;
    } else if (a->kind == SCHED_PUT_RECIPIENT) {
        struct wmsg *m = world_by_id(w, a->recipient.id);
        assert_non_null(m);
        if (!m->there)
            return; /* of a rejected message: a stray record, dropped in the next batch */
        assert_true(a->recipient.routed ||
                    span_eq(a->recipient.destination, m->submit.recipients[a->recipient.index].destination));
        m->at[a->recipient.index] =
            (struct stored){.record = true,
                            .state = a->recipient.state,
                            .attempts = a->recipient.attempts,
                            .due_ms = a->recipient.due_ms,
                            .notified = a->recipient.delay_notified,
                            .has_result = a->recipient.has_result,
                            .code = a->recipient.last.code,
                            .text = a->recipient.last.text,
                            .enhanced = a->recipient.last.enhanced,
                            .route = a->recipient.routed ? a->recipient.destination : SPAN_EMPTY,
                            .note = a->recipient.note,
                            .wish = a->recipient.wish};
    } else if (a->kind == SCHED_PUT_INFLIGHT) {
        W_GROW(w, w->flights, w->flight_count);
        w->flights[w->flight_count++] =
            (struct wflight){a->attempt.attempt, a->attempt.id, a->attempt.count, a->attempt.indexes, true};
    } else if (a->kind == SCHED_DROP_INFLIGHT) {
        bool found = false;
        for (uint32_t i = w->flight_count; i-- > 0 && !found;)
            if (w->flights[i].open && w->flights[i].attempt == a->attempt.attempt) {
                w->flights[i].open = false;
                found = true;
            }
        assert_true(found); /* oracle */
    }
}

static inline void world_release(struct world *w, const struct sched_action *a) {
    if (a->kind == SCHED_ANSWER) {
        world_by_token(w, a->answer.token)->answered = true;
    } else if (a->kind == SCHED_ASSIGN && sched_is_assigned(w->core, a->attempt.attempt)) {
        W_GROW(w, w->jobs, w->job_count);
        w->jobs[w->job_count++] = (struct wjob){.attempt = a->attempt.attempt,
                                                .id = a->attempt.id,
                                                .worker = a->attempt.worker,
                                                .count = a->attempt.count,
                                                .indexes = a->attempt.indexes,
                                                .concurrency = a->attempt.concurrency,
                                                .attempts = a->attempt.attempts,
                                                .destination = a->attempt.destination,
                                                .open = true};
    } else if (a->kind == SCHED_REPORT_ACK) {
        W_GROW(w, w->acks, w->ack_count);
        w->acks[w->ack_count++] = a->attempt.attempt;
    }
}

/* Ends the oldest batch under way. */
static inline void world_end_batch(struct world *w, bool rejected) {
    struct wbatch *b = w->pending;
    w->pending = b->next;
    struct sched_event e = {.kind = rejected ? SCHED_REJECTED : SCHED_DURABLE, .batch = b->number};
    for (struct wop *op = b->first; op; op = op->next) {
        assert_int_equal(op->a.batch, b->number); /* oracle: every action named the batch it went into */
        if (!(rejected && op->refusable))
            world_write(w, &op->a);
        else if (op->a.kind == SCHED_PUT_MESSAGE)
            world_by_id(w, op->a.put.id)->refused = true;
    }
    assert_int_equal(world_step(w, &e), ERR_OK);
    for (struct wop *op = b->first; op; op = op->next)
        if (!(rejected && op->refusable))
            world_release(w, &op->a);
}

static inline void world_flush(struct world *w) {
    do {
        world_cut(w);
        while (w->pending)
            world_end_batch(w, false);
    } while (w->current);
}

/* -- events -- */

struct wdest {
    const char *name;
    uint32_t notify;
};

static inline struct sched_submit world_payload(struct world *w, const char *sender, const char *fair,
                                                const struct wdest *dests, uint32_t count) {
    struct sched_new_recipient *r = arena_calloc(&w->mem, count + 1, sizeof *r);
    for (uint32_t i = 0; i < count; i++)
        r[i] = (struct sched_new_recipient){world_dup(w, span_of(dests[i].name)), dests[i].notify};
    W_GROW(w, w->msgs, w->msg_count);
    struct wmsg *m = &w->msgs[w->msg_count++];
    *m = (struct wmsg){.token = w->msg_count};
    m->book = arena_calloc(&w->mem, count + 1, sizeof *m->book);
    m->submit = (struct sched_submit){.token = w->msg_count,
                                      .sender = world_dup(w, span_of(sender)),
                                      .fair = world_dup(w, span_of(fair)),
                                      .priority = 1,
                                      .size = 1000,
                                      .received_ms = w->now,
                                      .recipients = r,
                                      .count = count};
    return m->submit;
}

/* Returns the id, and 0 when it was refused (w->err). */
static inline uint64_t world_submit_as(struct world *w, const char *fair, uint32_t priority, const struct wdest *dests,
                                       uint32_t count) {
    struct sched_event e = {.kind = SCHED_SUBMITTED};
    e.submit = world_payload(w, "alice@sender.test", fair, dests, count);
    e.submit.priority = w->msgs[w->msg_count - 1].submit.priority = priority;
    return world_step(w, &e) == ERR_OK ? w->msgs[w->msg_count - 1].id : 0;
}

static inline uint64_t world_submit(struct world *w, const char *destination) {
    struct wdest d = {destination, 0};
    return world_submit_as(w, "sender.test", 1, &d, 1);
}

static inline void world_worker(struct world *w, uint32_t number, uint32_t jobs_max) {
    char name[32];
    snprintf(name, sizeof name, "node%u", number);
    struct sched_event e = {.kind = SCHED_WORKER_UP};
    e.worker = (struct sched_worker){.worker = number, .name = span_of(name), .jobs_max = jobs_max};
    assert_int_equal(world_step(w, &e), ERR_OK);
}

static inline void world_worker_down(struct world *w, uint32_t number) {
    struct sched_event e = {.kind = SCHED_WORKER_DOWN};
    e.worker.worker = number;
    assert_int_equal(world_step(w, &e), ERR_OK);
    for (uint32_t i = 0; i < w->job_count; i++)
        if (w->jobs[i].worker == number)
            w->jobs[i].open = false;
}

static inline uint32_t world_open_jobs(const struct world *w) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->job_count; i++)
        n += w->jobs[i].open;
    return n;
}

/* The oldest job that the nodes still hold (to destination, or NULL: to any); NULL: none. */
static inline struct wjob *world_job(struct world *w, const char *destination) {
    for (uint32_t i = 0; i < w->job_count; i++)
        if (w->jobs[i].open && (!destination || span_eq(w->jobs[i].destination, span_of(destination))))
            return &w->jobs[i];
    return NULL;
}

struct wreport {
    uint32_t outcome, scope, code;
    const char *enhanced, *text, *site;
    uint64_t ttl_ms;
    bool site_failed;
    uint64_t pause_ms, wait_ms;
};

/* Reports the same result for all recipients of the job. */
static inline int world_report(struct world *w, struct wjob *j, struct wreport r) {
    assert_non_null(j);
    struct sched_result results[128];
    assert_true(j->count <= 128);
    for (uint32_t i = 0; i < j->count; i++)
        results[i] = (struct sched_result){.outcome = r.outcome,
                                           .scope = r.scope ? r.scope : SCHED_SCOPE_RECIPIENT,
                                           .code = r.code,
                                           .enhanced = span_of(r.enhanced),
                                           .text = span_of(r.text),
                                           .remote = SPAN("mx.test")};
    struct sched_event e = {.kind = SCHED_REPORTED};
    e.report = (struct sched_report){.worker = j->worker,
                                     .attempt = j->attempt,
                                     .message = j->id,
                                     .site = span_of(r.site),
                                     .site_ttl_ms = r.ttl_ms ? r.ttl_ms : HOUR_MS,
                                     .site_failed = r.site_failed,
                                     .pause_ms = r.pause_ms,
                                     .wait_ms = r.wait_ms,
                                     .indexes = j->indexes,
                                     .results = results,
                                     .count = j->count};
    j->open = false;
    return world_step(w, &e);
}

static inline int world_deliver(struct world *w, struct wjob *j) {
    return world_report(w, j, (struct wreport){.outcome = SCHED_OUT_DELIVERED, .code = 250, .text = "ok"});
}

static inline int world_defer(struct world *w, struct wjob *j) {
    return world_report(
        w, j, (struct wreport){.outcome = SCHED_OUT_DEFERRED, .code = 451, .enhanced = "4.3.0", .text = "not now"});
}

static inline int world_fail(struct world *w, struct wjob *j) {
    return world_report(
        w, j, (struct wreport){.outcome = SCHED_OUT_FAILED, .code = 550, .enhanced = "5.1.1", .text = "no such user"});
}

static inline struct sched_stored_recipient *world_stored(struct world *w, const struct wmsg *m) {
    struct sched_stored_recipient *r = arena_calloc(&w->mem, m->submit.count, sizeof *r);
    for (uint32_t i = 0; i < m->submit.count; i++) {
        const struct stored *t = &m->at[i];
        r[i] = (struct sched_stored_recipient){
            .destination = t->route.len ? t->route : m->submit.recipients[i].destination,
            .notify = m->submit.recipients[i].notify,
            .state = t->record ? t->state : SCHED_READY,
            .attempts = t->attempts,
            .due_ms = t->due_ms,
            .delay_notified = t->notified,
            .has_result = t->has_result,
            .last = {.outcome = SCHED_OUT_DEFERRED, .code = t->code, .text = t->text, .enhanced = t->enhanced},
            .routed = t->route.len > 0,
            .wish = t->wish,
            .note = t->note};
    }
    return r;
}

/* Loads a message from the toy store, and does an operator's change in the same step. */
static inline int world_load_with(struct world *w, uint64_t id, const struct sched_operator *change) {
    struct wmsg *m = world_by_id(w, id);
    assert_non_null(m);
    assert_true(m->there);
    struct sched_event e = {.kind = SCHED_LOADED};
    e.load = (struct sched_load){.id = id,
                                 .sender = m->submit.sender,
                                 .fair = m->submit.fair,
                                 .priority = m->submit.priority,
                                 .size = m->submit.size,
                                 .received_ms = m->submit.received_ms,
                                 .wish = m->submit.wish,
                                 .report = m->composed,
                                 .recipients = world_stored(w, m),
                                 .count = m->submit.count,
                                 .change = change};
    return world_step(w, &e);
}

static inline int world_load(struct world *w, uint64_t id) {
    return world_load_with(w, id, NULL);
}

/* A crash: what was not durable is gone; a new core, with a higher epoch, is given all messages of the store. */
static inline void world_crash(struct world *w, bool load_all) {
    uint64_t last_id = 0;
    for (uint32_t i = 0; i < w->msg_count; i++)
        last_id = w->msgs[i].id > last_id ? w->msgs[i].id : last_id;
    sched_free(w->core);
    w->acts.count = 0;
    w->config.epoch++;
    w->core = sched_new(&w->config, last_id, 0);
    assert_non_null(w->core);
    w->pending = w->current = NULL;
    w->job_count = w->compose_count = 0;
    if (w->on_reborn)
        w->on_reborn(w);
    for (uint32_t i = 0; load_all && i < w->msg_count; i++) {
        struct wmsg *m = &w->msgs[i];
        struct wflight *f = NULL;
        uint32_t *all = arena_calloc(&w->mem, 1000, sizeof *all), count = 0;
        for (uint32_t k = 0; m->there && k < w->flight_count; k++) {
            if (!w->flights[k].open || w->flights[k].id != m->id)
                continue;
            if (f)
                f->open = false;
            f = &w->flights[k];
            for (uint32_t n = 0; n < f->count; n++)
                all[count++] = f->indexes[n];
        }
        if (!m->there)
            continue;
        struct sched_event e = {.kind = SCHED_LOADED};
        e.load = (struct sched_load){.id = m->id,
                                     .sender = m->submit.sender,
                                     .fair = m->submit.fair,
                                     .priority = m->submit.priority,
                                     .size = m->submit.size,
                                     .received_ms = m->submit.received_ms,
                                     .wish = m->submit.wish,
                                     .report = m->composed,
                                     .recipients = world_stored(w, m),
                                     .count = m->submit.count,
                                     .inflight = f ? f->attempt : 0,
                                     .inflight_recipients = all,
                                     .inflight_count = count};
        assert_int_equal(world_step(w, &e), ERR_OK);
    }
    for (uint32_t k = 0; k < w->flight_count; k++) { /* the shell drops records of messages that are gone */
        struct wmsg *m = world_by_id(w, w->flights[k].id);
        if (w->flights[k].open && (!m || !m->there))
            w->flights[k].open = false;
    }
}

/* Answers the nth open composition: with a report to the sender, or none. Returns the report's id. */
static inline uint64_t world_composed(struct world *w, struct wcompose *c, bool none) {
    assert_non_null(c);
    c->open = false;
    struct sched_event e = {.kind = SCHED_COMPOSED};
    e.composed = (struct sched_composed){
        .message = c->id, .compose = c->compose, .none = none, .reason = SPAN("cannot be composed")};
    if (none)
        return world_step(w, &e) == ERR_OK ? 1 : 0;
    struct wdest d = {"sender.test", SCHED_NOTIFY_NEVER};
    e.composed.submit = world_payload(w, "", "sender.test", &d, 1);
    w->msgs[w->msg_count - 1].composed = true;
    e.composed.submit.report = true;
    return world_step(w, &e) == ERR_OK ? w->msgs[w->msg_count - 1].id : 0;
}

static inline struct wcompose *world_open_compose(struct world *w) {
    for (uint32_t i = 0; i < w->compose_count; i++)
        if (w->composes[i].open)
            return &w->composes[i];
    return NULL;
}

static inline struct sched_counts world_counts(const struct world *w) {
    struct sched_counts c;
    sched_counts(w->core, &c);
    return c;
}

/* The state of one recipient in memory; 0: it is not there. */
struct wview {
    uint32_t index;
    struct sched_view v;
};
static inline void world_on_view(void *arg, const struct sched_view *v) {
    struct wview *to = arg;
    if (v->index == to->index)
        to->v = *v;
}
static inline struct sched_view world_look(const struct world *w, uint64_t id, uint32_t index) {
    struct wview to = {.index = index};
    if (sched_look(w->core, id, world_on_view, &to) != ERR_OK)
        return (struct sched_view){0};
    return to.v;
}

#endif
