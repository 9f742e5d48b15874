/*
 * census: see census.h. The walk runs on a thread of its own (scheduler/walks.h) and reads records packed; its result
 * takes the place of the last one on the loop.
 */
#include "scheduler/census.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "scheduler/shell.h"
#include "scheduler/walks.h"
#include "store/queue_walk.h"

#define EVERY_MIN_MS 5000u
#define EVERY_FACTOR 50u    /* the walk takes at most this part of the time */
#define FRESH_FACTOR 20u    /* a result is fresh for so many times the length of its walk, */
#define FRESH_MAX_MS 30000u /* at most */
#define FAILED_PAUSE_MS 60000u
#define STOP_EVERY 1024u /* messages between two looks whether the walk is to end */

METRIC_GAUGE(gauge_messages, "posthouse_queue_messages", "Messages in the queue")
METRIC_GAUGE(gauge_ready, "posthouse_queue_ready", "Recipients in memory that wait for their turn")
METRIC_GAUGE(gauge_assigned, "posthouse_queue_assigned", "Recipients that are being delivered")
METRIC_GAUGE(gauge_deferred, "posthouse_queue_deferred", "Recipients that wait for their next attempt")
METRIC_GAUGE(gauge_held, "posthouse_queue_held", "Recipients that an operator holds")
METRIC_GAUGE(gauge_age, "posthouse_queue_oldest_age_seconds", "Age of the oldest message in the queue")

struct count { /* one walk and what it found */
    struct census *census;
    struct tally tally;
    struct census_shard *shards;
    uint64_t took_ms;
    int err;
};
struct census {
    struct scheduler *sc;
    struct count *last;
    uint64_t last_at_ms; /* monotonic, as the next */
    uint64_t next_at_ms;
    bool running;
    struct list waiting; /* for the walk that runs */
};

static void count_free(struct count *k) {
    if (!k)
        return;
    tally_deinit(&k->tally);
    free(k->shards);
    free(k);
}

/* -- on the thread -- */

static int add_message(struct count *k, struct census_shard *shard, const struct queue_walk *w,
                       struct queue_glance *g) {
    uint32_t at = 0;
    int err = ERR_OK;
    k->tally.messages++;
    for (uint32_t i = 0; i < g->count && err == ERR_OK; i++) {
        struct span packed = queue_walk_state(w, i, &at);
        uint32_t state = packed.len ? queue_glance_state(packed, &g->destinations[i]) : (uint32_t)SCHED_READY;
        if (state == 0)
            return ERR_CORRUPT;
        if (state == SCHED_SETTLED)
            continue;
        shard->deferred += state == SCHED_DEFERRED;
        shard->held += state == TALLY_HELD;
        shard->ready += state != SCHED_DEFERRED && state != TALLY_HELD;
        err = tally_add(&k->tally, g->destinations[i], state, g->received_ms);
    }
    return err;
}

static int count_shard(struct count *k, uint32_t shard, struct queue_glance *g) {
    struct scheduler *sc = k->census->sc;
    struct queue_walk w;
    int err = ERR_OK;
    queue_walk_init(&w, sc->store, shard, 0);
    for (uint64_t n = 1; err == ERR_OK && queue_walk_next(&w); n++) {
        err = queue_glance_envelope(g, w.envelope);
        if (err == ERR_OK)
            err = add_message(k, &k->shards[shard], &w, g);
        if (err == ERR_CORRUPT)
            err = queue_walk_corrupt(&w);
        if (n % STOP_EVERY == 0 && walks_is_stopped(sc->walks))
            err = ERR_CANCELED;
    }
    if (err == ERR_OK)
        err = w.err;
    queue_walk_deinit(&w);
    return err;
}

static void work(void *arg) {
    struct count *k = arg;
    struct queue_glance g = {0};
    uint64_t begun_ms = clock_mono_ms();
    for (uint32_t i = 0; i < k->census->sc->config.shards && k->err == ERR_OK; i++)
        k->err = count_shard(k, i, &g);
    if (k->err == ERR_OK)
        k->err = tally_sort(&k->tally);
    queue_glance_deinit(&g);
    k->took_ms = clock_mono_ms() - begun_ms;
}

/* -- on the loop -- */

static void done(void *arg) {
    struct count *k = arg;
    struct census *c = k->census;
    struct census_result r = {0};
    int err = k->err;
    uint64_t every_ms = k->took_ms * EVERY_FACTOR;
    every_ms = err != ERR_OK ? FAILED_PAUSE_MS : every_ms > EVERY_MIN_MS ? every_ms : EVERY_MIN_MS;
    c->running = false;
    c->next_at_ms = clock_mono_ms() + every_ms;
    if (err == ERR_OK) {
        count_free(c->last);
        c->last = k;
        c->last_at_ms = clock_mono_ms();
        (void)census_last(c, &r);
    } else {
        LOG_WARN("queue_not_counted", LOG_ERR("why", err));
        count_free(k);
    }
    for (struct list_node *n; (n = list_pop_front(&c->waiting));) {
        struct census_waiter *w = LIST_ENTRY(n, struct census_waiter, link);
        w->then(w, err, &r);
    }
}

static int start(struct census *c) {
    struct count *k = calloc(1, sizeof *k);
    if (!k)
        return ERR_NOMEM;
    k->census = c;
    tally_init(&k->tally, scheduler_now(c->sc));
    k->shards = calloc(c->sc->config.shards, sizeof *k->shards);
    int err = k->shards ? walks_start(c->sc->walks, true, work, done, k) : ERR_NOMEM;
    if (err != ERR_OK) {
        count_free(k);
        return err;
    }
    c->running = true;
    return ERR_OK;
}

bool census_last(const struct census *c, struct census_result *r) {
    if (!c->last)
        return false;
    *r = (struct census_result){&c->last->tally, c->last->shards};
    return true;
}

bool census_fresh(const struct census *c, struct census_result *r) {
    uint64_t fresh_ms = c->last ? c->last->took_ms * FRESH_FACTOR : 0;
    if (fresh_ms > FRESH_MAX_MS)
        fresh_ms = FRESH_MAX_MS;
    return c->last && clock_mono_ms() - c->last_at_ms < fresh_ms && census_last(c, r);
}

int census_wait(struct census *c, struct census_waiter *w) {
    int err = c->running ? ERR_OK : start(c);
    if (err == ERR_OK)
        list_push_back(&c->waiting, &w->link);
    return err;
}

static void set_gauges(const struct census *c) {
    uint64_t messages = 0, ready = 0, assigned = 0, oldest_ms = UINT64_MAX, now_ms = scheduler_now(c->sc);
    for (uint32_t i = 0; i < c->sc->config.shards; i++) {
        struct sched_counts counts;
        sched_counts(shard_core(c->sc->shards[i]), &counts);
        messages += shard_totals(c->sc->shards[i])->messages;
        ready += counts.ready;
        assigned += counts.assigned;
    }
    metric_set(&gauge_messages, messages);
    metric_set(&gauge_ready, ready);
    metric_set(&gauge_assigned, assigned);
    if (c->last) {
        metric_set(&gauge_deferred, c->last->tally.total.deferred);
        metric_set(&gauge_held, c->last->tally.total.held);
        oldest_ms = c->last->tally.total.oldest_ms;
    }
    metric_set(&gauge_age, oldest_ms < now_ms ? (now_ms - oldest_ms) / 1000u : 0);
}

void census_poll(struct census *c) {
    set_gauges(c);
    if (c->running || c->sc->draining || clock_mono_ms() < c->next_at_ms || !commit_is_healthy(c->sc->commit))
        return;
    if (start(c) != ERR_OK)
        c->next_at_ms = clock_mono_ms() + FAILED_PAUSE_MS;
}

struct census *census_new(struct scheduler *sc) {
    struct census *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->sc = sc;
    list_init(&c->waiting);
    c->next_at_ms = clock_mono_ms() + EVERY_MIN_MS; /* the start belongs to the scan */
    return c;
}

void census_free(struct census *c) {
    if (!c)
        return;
    count_free(c->last);
    free(c);
}
