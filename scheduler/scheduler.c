/*
 * scheduler: see scheduler.h. The thread around the shards: one loop that gathers what has arrived in a
 * turn, lets the cores step, and at the end of the turn sends one batch of each shard to the commit thread.
 *
 * Nothing here decides anything about mail. The commit thread hands completed batches back through a
 * list and a wake-up; reading is done by helper threads (scheduler_work).
 */
#include "scheduler/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "scheduler/census.h"
#include "scheduler/suspend.h"
#include "scheduler/walks.h"

#define TICK_MS 1000u
#define JOB_RECIPIENTS_LEAST 100u
#define JOB_RECIPIENTS_MOST 1000u /* that a delivery node takes */
#define GATHER_BYTES (1024u * 1024u)
#define GATHER_COUNT 256u
#define PENDING_MAX 65536u
#define STAGED_MAX_MS (30u * 60u * 1000u) /* a submission whose chunks stop coming is forgotten */

/* -- time and helpers -- */

/* When the wall clock was set back, time goes on from where it was at the pace of the monotonic clock. */
uint64_t scheduler_now(struct scheduler *sc) {
    uint64_t wall_ms = clock_wall_ms(), mono_ms = clock_mono_ms();
    uint64_t on_ms = sc->now_ms + (mono_ms - sc->mono_ms);
    sc->mono_ms = mono_ms;
    sc->now_ms = wall_ms > on_ms ? wall_ms : on_ms;
    return sc->now_ms;
}

struct shard *scheduler_shard_of(struct scheduler *sc, uint64_t message) {
    uint32_t n = id_shard(message);
    return n < sc->config.shards ? sc->shards[n] : NULL;
}

struct task {
    struct scheduler *sc;
    void (*work)(void *arg);
    void (*done)(void *arg);
    void *arg;
};

static void task_work(void *arg) {
    struct task *t = arg;
    t->work(t->arg);
}

static void task_done(void *arg) {
    struct task *t = arg;
    t->sc->work--;
    t->done(t->arg);
    free(t);
}

bool scheduler_work(struct scheduler *sc, void (*work)(void *arg), void (*done)(void *arg), void *arg) {
    struct task *t = malloc(sizeof *t);
    if (!t)
        return false;
    *t = (struct task){.sc = sc, .work = work, .done = done, .arg = arg};
    if (loop_work(sc->loop, task_work, task_done, t) != ERR_OK) {
        free(t);
        return false;
    }
    sc->work++;
    return true;
}

/* -- batches to and from the commit thread -- */

static void on_committed(struct commit_request *r, int result) /* on the commit thread */
{
    struct shard_batch *b = r->arg;
    struct scheduler *sc = b->owner;
    b->result = result;
    b->done_next = NULL;
    pthread_mutex_lock(&sc->lock);
    bool first = !sc->done;
    if (sc->done)
        sc->done_last->done_next = b;
    else
        sc->done = b;
    sc->done_last = b;
    pthread_mutex_unlock(&sc->lock);
    if (first)
        loop_wake_send(sc->wake);
}

static void on_commit(void *arg, struct shard_batch *b) {
    struct scheduler *sc = arg;
    b->owner = sc;
    b->request.done = on_committed;
    commit_submit(sc->commit, &b->request);
}

static void take_done(struct scheduler *sc) {
    pthread_mutex_lock(&sc->lock);
    struct shard_batch *b = sc->done;
    sc->done = sc->done_last = NULL;
    pthread_mutex_unlock(&sc->lock);
    for (struct shard_batch *next; b; b = next) {
        next = b->done_next;
        shard_done(b->shard, b, b->result, scheduler_now(sc));
    }
}

/* -- settings -- */

static void free_settings(char *hostname, char *postmaster, struct dsn_texts *texts, struct verp *verp,
                          struct batv *batv) {
    free(hostname);
    free(postmaster);
    dsn_texts_unref(texts);
    verp_free(verp);
    batv_unref(batv);
}

static int stage_settings(struct scheduler *sc, const struct scheduler_settings *settings) {
    char *hostname = strdup(settings->hostname ? settings->hostname : "localhost");
    char *postmaster = strdup(settings->postmaster ? settings->postmaster : "postmaster");
    struct dsn_texts *texts = NULL;
    struct verp *verp = NULL;
    struct batv *batv = NULL;
    if (!hostname || !postmaster || dsn_texts_new(&texts, &settings->reports) != ERR_OK ||
        verp_new(&verp, settings->verp, settings->verp_count) != ERR_OK || batv_new(&batv, &settings->batv) != ERR_OK) {
        free_settings(hostname, postmaster, texts, verp, batv);
        return ERR_NOMEM;
    }
    pthread_mutex_lock(&sc->lock);
    free_settings(sc->next_hostname, sc->next_postmaster, sc->next_texts, sc->next_verp, sc->next_batv);
    sc->next = *settings;
    sc->next_hostname = hostname;
    sc->next_postmaster = postmaster;
    sc->next_texts = texts;
    sc->next_verp = verp;
    sc->next_batv = batv;
    atomic_store(&sc->has_next, true);
    pthread_mutex_unlock(&sc->lock);
    return ERR_OK;
}

static void adopt_settings(struct scheduler *sc) {
    free_settings(sc->hostname, sc->postmaster, sc->texts, sc->verp, sc->batv);
    pthread_mutex_lock(&sc->lock);
    CHECK(sc->next_hostname);
    atomic_store(&sc->has_next, false); /* under the lock: two reloads in a row are not adopted twice */
    sc->settings = sc->next;
    sc->hostname = sc->next_hostname;
    sc->postmaster = sc->next_postmaster;
    sc->texts = sc->next_texts;
    sc->verp = sc->next_verp;
    sc->batv = sc->next_batv;
    sc->next_hostname = sc->next_postmaster = NULL;
    sc->next_texts = NULL;
    sc->next_verp = NULL;
    sc->next_batv = NULL;
    pthread_mutex_unlock(&sc->lock);
    sc->settings.reports = (struct dsn_texts_config){0}; /* copied, and borrowed no more */
    sc->settings.verp = NULL;
    sc->settings.verp_count = 0;
    sc->settings.batv = (struct batv_config){0};
    sc->settings.hostname = sc->hostname;
    sc->settings.postmaster = sc->postmaster;
}

/* Fewer than a hundred are no reason for smaller jobs: one job has many transactions. */
static uint32_t job_recipients(const struct scheduler *sc) {
    uint32_t n = sc->settings.recipients_per_transaction;
    return n < JOB_RECIPIENTS_LEAST ? JOB_RECIPIENTS_LEAST : n < JOB_RECIPIENTS_MOST ? n : JOB_RECIPIENTS_MOST;
}

static struct sched_config core_config(const struct scheduler *sc, uint32_t shard) {
    return (struct sched_config){
        .shard = shard,
        .active_max = sc->settings.active_max,
        .retry = sc->settings.retry,
        .per_site = sc->settings.per_site,
        .recipients_per_job = job_recipients(sc),
        .jobs_per_connection = 2,
        .report_delay_ms = 60000,
        .suspend_first_ms = 60000,
        .suspend_max_ms = 30 * 60000,
    };
}

static void apply_settings(struct scheduler *sc) {
    adopt_settings(sc);
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        struct sched_event e = {.kind = SCHED_RECONFIGURED, .config = core_config(sc, i)};
        if (shard_step(sc->shards[i], &e, scheduler_now(sc)) != ERR_OK)
            LOG_ERROR("settings_refused", LOG_U64("shard", i));
    }
}

int scheduler_reconfigure(struct scheduler *sc, const struct scheduler_settings *settings) {
    int err = stage_settings(sc, settings);
    if (err == ERR_OK)
        loop_wake_send(sc->wake);
    return err;
}

/* -- the turn of the loop -- */

static void sweep_staged(struct scheduler *sc, struct shard *s) {
    LIST_FOREACH(it, next, &shard_payloads(s)->all) {
        struct payload *l = LIST_ENTRY(it, struct payload, link);
        bool idle = l->phase == PAYLOAD_STAGING && !l->submitted && !l->aborted;
        if (idle && scheduler_now(sc) - l->touched_ms > STAGED_MAX_MS)
            shard_abort(s, l);
    }
}

static bool is_drained(struct scheduler *sc) {
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        struct sched_counts c;
        sched_counts(shard_core(sc->shards[i]), &c);
        if (!shard_is_idle(sc->shards[i]) || c.assigned > 0 || loader_is_busy(sc->loaders[i]))
            return false;
    }
    return sc->work == 0;
}

/* Stop waits for what is under way: helper threads and batches. Nothing new begins. A store that does not take writes
 * is not waited for: its batches come back as canceled. */
static void poll_stop(struct scheduler *sc) {
    bool idle = sc->work == 0 && walks_count(sc->walks) == 0 && audit_log_is_idle(sc->audit);
    for (uint32_t i = 0; i < sc->config.shards; i++)
        idle = idle && shard_is_idle(sc->shards[i]);
    if (sc->stopping && idle)
        loop_stop(sc->loop);
    else if (sc->stopping)
        commit_stop_repair(sc->commit);
}

static void poll_drain(struct scheduler *sc) {
    if (!sc->draining || !sc->drain_done || sc->drained || /* .draining first: the rest was written before it */
        !(is_drained(sc) || scheduler_now(sc) >= sc->drain_deadline_ms))
        return;
    sc->drained = true;
    sc->drain_done(sc->drain_arg);
}

static void on_wake(void *arg) {
    struct scheduler *sc = arg;
    take_done(sc);
    if (atomic_load(&sc->has_next))
        apply_settings(sc);
    if (atomic_load(&sc->wants_drain) && !sc->draining) {
        sc->draining = true;
        hub_stop_jobs(sc);
        sc->drain_deadline_ms = scheduler_now(sc) + sc->drain_timeout_ms;
    }
    if (atomic_load(&sc->wants_stop)) {
        sc->draining = sc->stopping = true;
        walks_stop(sc->walks);
    }
}

/* Damage that a reading met: what can be read is delivered, but nothing new is entrusted to this store. */
static void check_store(struct scheduler *sc) {
    if (sc->closed || !store_is_damaged(sc->store))
        return;
    LOG_ERROR("queue_closed", LOG_STR("why", "the store is damaged, see above"),
              LOG_STR("effect", "mail is answered 451 until the store is repaired and the process started again"),
              LOG_STR("hint", "posthouse store verify"));
    hub_close_to_mail(sc);
}

static void on_tick(void *arg) {
    struct scheduler *sc = arg;
    sc->tick_at_ms = 0; /* set again before the loop blocks */
    struct sched_event e = {.kind = SCHED_TICK};
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        if (shard_step(sc->shards[i], &e, scheduler_now(sc)) != ERR_OK)
            LOG_ERROR("tick_refused", LOG_U64("shard", i));
        sweep_staged(sc, sc->shards[i]);
        loader_poll(sc->loaders[i], scheduler_now(sc));
    }
    suspend_tick(sc, scheduler_now(sc));
    census_poll(sc->census);
    audit_log_poll(sc->audit);
    poll_drain(sc);
}

/* When the core or a near recipient wants to be looked at before the next tick. */
static void set_tick(struct scheduler *sc) {
    uint64_t now_ms = scheduler_now(sc), next_ms = now_ms + TICK_MS;
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        uint64_t core_ms = sched_next_ms(shard_core(sc->shards[i]));
        uint64_t near_ms = shard_near_next_ms(sc->shards[i]);
        next_ms = core_ms < next_ms ? core_ms : next_ms;
        next_ms = near_ms < next_ms ? near_ms : next_ms;
    }
    uint64_t wait_ms = next_ms > now_ms ? next_ms - now_ms : 0;
    wait_ms = wait_ms < 20 ? 20 : wait_ms; /* a step that is late by this is on time */
    if (!sc->tick_at_ms || now_ms + wait_ms < sc->tick_at_ms) {
        sc->tick_at_ms = now_ms + wait_ms;
        loop_timer_set(sc->tick, wait_ms);
    }
}

static bool before_block(void *arg) {
    struct scheduler *sc = arg;
    for (uint32_t i = 0; i < sc->config.shards; i++)
        shard_flush(sc->shards[i], scheduler_now(sc));
    poll_drain(sc);
    poll_stop(sc);
    check_store(sc);
    set_tick(sc);
    return false;
}

/* -- the thread -- */

static void say_hello(struct scheduler *sc) {
    Words__Hello h = WORDS__HELLO__INIT;
    h.role = ROLE_SCHEDULER;
    h.name = frame_bytes(SPAN("scheduler"));
    if (sc->admin && frame_send_peer(sc->admin, FRAME_HELLO, 0, 0, &h.base, NULL, &sc->pack) != ERR_OK)
        LOG_WARN("admin_unreachable", LOG_STR("from", "scheduler"));
}

static void *run(void *arg) {
    struct scheduler *sc = arg;
    loop_run(sc->loop);
    return NULL;
}

static void close_all(struct scheduler *sc) {
    if (sc->commit)
        commit_free(sc->commit);
    operator_close(sc);
    suspend_close(sc);
    for (uint32_t i = 0; sc->loaders && i < sc->config.shards; i++)
        loader_free(sc->loaders[i]);
    for (uint32_t i = 0; sc->shards && i < sc->config.shards; i++)
        shard_close(sc->shards[i]);
    hub_close(sc);
    audit_log_close(sc->audit);
    census_free(sc->census);
    walks_free(sc->walks);
    if (sc->admin)
        bus_peer_close(sc->admin);
    if (sc->tick)
        loop_timer_close(sc->tick);
    if (sc->wake)
        loop_wake_close(sc->wake);
    if (sc->hook)
        loop_hook_close(sc->hook);
    if (sc->loop)
        loop_free(sc->loop);
    free(sc->loaders);
    free(sc->shards);
    free_settings(sc->hostname, sc->postmaster, sc->texts, sc->verp, sc->batv);
    free_settings(sc->next_hostname, sc->next_postmaster, sc->next_texts, sc->next_verp, sc->next_batv);
    free(sc->endpoint);
    free(sc->admin_endpoint);
    arena_deinit(&sc->scratch);
    buf_deinit(&sc->pack);
    buf_deinit(&sc->pack2);
    pthread_mutex_destroy(&sc->lock);
    free(sc);
}

int scheduler_begin_time(struct scheduler *sc) {
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        uint64_t watermark_ms = 0;
        int err = queue_get_number(sc->store, i, QUEUE_DUE_WATERMARK, &watermark_ms);
        if (err != ERR_OK && err != ERR_NOT_FOUND)
            return err;
        if (err == ERR_OK && watermark_ms > scheduler_now(sc)) {
            LOG_WARN("clock_set_back", LOG_U64("ms", watermark_ms - sc->now_ms));
            sc->now_ms = watermark_ms;
        }
    }
    return ERR_OK;
}

static int open_shards(struct scheduler *sc) {
    struct shard_out out = {.arg = sc,
                            .commit = on_commit,
                            .answer = hub_answer,
                            .credit = hub_credit,
                            .assign = job_assign,
                            .ack = hub_ack,
                            .compose = compose_start};
    sc->shards = calloc(sc->config.shards, sizeof(struct shard *));
    sc->loaders = calloc(sc->config.shards, sizeof(struct loader *));
    if (!sc->shards || !sc->loaders)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        struct shard_config c = {.core = core_config(sc, i),
                                 .pending_max = PENDING_MAX,
                                 .cache_bytes = sc->config.body_cache / sc->config.shards};
        rand_secure(&c.core.seed, sizeof c.core.seed);
        int err = shard_open(&sc->shards[i], &c, sc->store, &out, scheduler_now(sc));
        if (err != ERR_OK)
            return err;
        sc->loaders[i] = loader_new(sc, sc->shards[i]);
        if (!sc->loaders[i])
            return ERR_NOMEM;
    }
    return ERR_OK;
}

static int open_loop(struct scheduler *sc) {
    sc->loop = loop_new();
    if (!sc->loop)
        return ERR_NOMEM;
    sc->wake = loop_wake_new(sc->loop, on_wake, sc);
    sc->tick = loop_timer_new(sc->loop, on_tick, sc);
    sc->hook = loop_hook_new(sc->loop, before_block, NULL, sc);
    sc->walks = walks_new(sc->loop);
    sc->census = census_new(sc);
    return sc->wake && sc->tick && sc->hook && sc->walks && sc->census ? ERR_OK : ERR_NOMEM;
}

static struct scheduler *scheduler_new(const struct scheduler_config *c, struct store *s) {
    struct scheduler *sc = calloc(1, sizeof *sc);
    if (!sc)
        return NULL;
    sc->config = *c;
    sc->config.shards = c->shards ? c->shards : 1;
    sc->config.gateway_credit = c->gateway_credit ? c->gateway_credit : 16 * 1024 * 1024;
    sc->config.body_cache = c->body_cache ? c->body_cache : 64 * 1024 * 1024;
    sc->store = s;
    sc->endpoint = strdup(c->endpoint);
    sc->admin_endpoint = c->admin ? strdup(c->admin) : NULL;
    pthread_mutex_init(&sc->lock, NULL);
    map_init(&sc->peers);
    list_init(&sc->peer_list);
    list_init(&sc->changes);
    list_init(&sc->suspended);
    map_init(&sc->suspended_by_name);
    arena_init(&sc->scratch, 64 * 1024, 64 * 1024 * 1024);
    buf_init(&sc->pack, FRAME_META_MAX);
    buf_init(&sc->pack2, FRAME_META_MAX);
    sc->mono_ms = clock_mono_ms();
    sc->started_ms = scheduler_now(sc);
    return sc;
}

int scheduler_start(struct scheduler **out, const struct scheduler_config *c, const struct scheduler_settings *settings,
                    struct store *s) {
    struct scheduler *sc = scheduler_new(c, s);
    if (!sc)
        return ERR_NOMEM;
    int err = sc->endpoint ? stage_settings(sc, settings) : ERR_NOMEM;
    if (err == ERR_OK) {
        adopt_settings(sc);
        err = open_loop(sc);
    }
    if (err == ERR_OK)
        err = commit_new(&sc->commit, s, GATHER_BYTES, GATHER_COUNT);
    if (err == ERR_OK)
        err = scheduler_begin_time(sc);
    if (err == ERR_OK)
        err = audit_log_open(&sc->audit, sc);
    if (err == ERR_OK)
        err = open_shards(sc);
    if (err == ERR_OK)
        err = suspend_open(sc);
    if (err == ERR_OK)
        err = hub_open(sc);
    if (err == ERR_OK && sc->admin_endpoint)
        err = bus_peer_open(&sc->admin, c->bus, sc->loop, sc->admin_endpoint, "scheduler", FRAME_PART_MAX,
                            HUB_QUEUE_MAX, question_on_message, sc);
    if (err == ERR_OK) {
        say_hello(sc);
        sc->tick_at_ms = scheduler_now(sc) + 1; /* the scan begins at once */
        loop_timer_set(sc->tick, 1);
        err = pthread_create(&sc->thread, NULL, run, sc) == 0 ? ERR_OK : ERR_NOMEM;
    }
    if (err != ERR_OK) {
        close_all(sc);
        return err;
    }
    pthread_setname_np(sc->thread, "scheduler");
    *out = sc;
    return ERR_OK;
}

void scheduler_drain(struct scheduler *sc, uint64_t timeout_ms, void (*done)(void *arg), void *arg) {
    sc->drain_timeout_ms = timeout_ms;
    sc->drain_done = done;
    sc->drain_arg = arg;
    atomic_store(&sc->wants_drain, true);
    loop_wake_send(sc->wake);
}

void scheduler_stop(struct scheduler *sc) {
    atomic_store(&sc->wants_stop, true);
    loop_wake_send(sc->wake);
    pthread_join(sc->thread, NULL);
    close_all(sc);
}
