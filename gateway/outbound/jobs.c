/*
 * jobs: the words between the scheduler and this node: who we are and what we hold, jobs, chunks of
 * bodies, acknowledgements. What cannot be read is dropped and counted.
 */
#include <stdlib.h>

#include "gateway/outbound/attempt.h"

enum { WORDS_MAX = 64 * 1024 }; /* of the small frames; a Job has its attempt's arena */

METRIC_COUNTER(bad_frames, "posthouse_delivery_bad_frames_total", "Frames from the bus that were dropped");
METRIC_COUNTER(received, "posthouse_delivery_jobs_total", "Jobs received");

static void drop(struct outbound *o, const char *why) {
    (void)o;
    metric_add(&bad_frames, 1);
    LOG_WARN("frame_refused", LOG_STR("reason", why));
}

/* Attempts that run, and those whose reports wait. */
static uint64_t *list_held(struct outbound *o, size_t *count) {
    size_t n = 0;
    *count = o->running.count + reports_count(&o->reports);
    uint64_t *held = calloc(*count + 1, sizeof *held);
    if (!held)
        return NULL;
    LIST_FOREACH(node, next, &o->running)
    held[n++] = LIST_ENTRY(node, struct attempt, in_all)->job->attempt;
    reports_list(&o->reports, held + n);
    return held;
}

void jobs_send_hello(struct outbound *o) {
    Words__Hello hello = WORDS__HELLO__INIT;
    size_t count;
    uint64_t *held = list_held(o, &count);
    o->hello_ms = loop_now_ms(o->loop);
    if (!held)
        return; /* the next tick tries again */
    hello.role = ROLE_DELIVERY;
    hello.name = frame_bytes(span_of(o->setup->s.name));
    hello.has_jobs_max = hello.has_bytes_max = true;
    hello.jobs_max = o->draining ? 0 : o->config.jobs_max;
    hello.bytes_max = o->config.bytes_max;
    hello.held = held;
    hello.n_held = count;
    int err = frame_send_peer(o->scheduler, FRAME_HELLO, 0, o->epoch, &hello.base, NULL, &o->scratch);
    if (err != ERR_OK)
        LOG_WARN("scheduler_unreachable", LOG_ERR("reason", err));
    free(held);
}

void jobs_fetch(struct outbound *o, uint64_t attempt, uint64_t message, uint32_t number) {
    Words__Fetch fetch = WORDS__FETCH__INIT;
    fetch.message = message;
    fetch.number = number;
    int err = frame_send_peer(o->scheduler, FRAME_FETCH, attempt, o->epoch, &fetch.base, NULL, &o->scratch);
    if (err != ERR_OK) /* repeated by the body's tick */
        LOG_WARN("fetch_unsent", LOG_ERR("reason", err));
}

static void on_welcome(struct outbound *o, const struct frame *f, struct arena *mem) {
    const Words__Welcome *w = frame_unpack(&words__welcome__descriptor, f->meta, mem);
    if (!w) {
        drop(o, "malformed welcome");
        return;
    }
    bool again = o->welcome;
    o->epoch = w->epoch;
    o->welcome = true;
    if (again)
        reports_repeat(o, 0);
    else
        LOG_INFO("scheduler_found", LOG_U64("epoch", w->epoch));
}

static void on_ack(struct outbound *o, const struct frame *f, struct arena *mem) {
    const Words__ReportAck *ack = frame_unpack(&words__report_ack__descriptor, f->meta, mem);
    if (ack)
        (void)reports_ack(&o->reports, ack->attempt); /* a repeat may have been acknowledged before */
    else
        drop(o, "malformed acknowledgement");
    if (o->draining)
        loop_wake_send(o->wake); /* it may have been the last */
}

static void on_fetched(struct outbound *o, const struct frame *f, struct arena *mem) {
    const Words__Fetched *w = frame_unpack(&words__fetched__descriptor, f->meta, mem);
    if (!w) {
        drop(o, "malformed chunk");
        return;
    }
    struct attempt *a = attempt_find(o, f->correlation);
    if (a && a->job->message == w->message)
        attempt_on_chunk(a, w->number, f->body, w->has_missing && w->missing);
}

static void on_job(struct outbound *o, const struct frame *f) {
    metric_add(&received, 1);
    if (!attempt_start(o, f->meta, f->body))
        drop(o, "a job that is malformed or held already");
}

static void on_small(struct outbound *o, const struct frame *f) {
    struct arena mem;
    arena_init(&mem, 1024, WORDS_MAX);
    switch (f->kind) {
    case FRAME_WELCOME:
        on_welcome(o, f, &mem);
        break;
    case FRAME_REPORT_ACK:
        on_ack(o, f, &mem);
        break;
    case FRAME_FETCHED:
        on_fetched(o, f, &mem);
        break;
    default:
        drop(o, "unknown kind");
    }
    arena_deinit(&mem);
}

void jobs_on_message(void *arg, const struct bus_message *m) {
    struct outbound *o = arg;
    struct frame f;
    int err = frame_read(&f, m);
    if (err != ERR_OK)
        drop(o, err_text(err));
    else if (f.kind == FRAME_JOB)
        on_job(o, &f);
    else
        on_small(o, &f);
}
