/*
 * outbound: the thread of the delivery node: its loop, its peers on the bus, its tick, and the calls
 * that come from other threads, which leave their wish under the lock and wake the loop.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#include "gateway/outbound/attempt.h"

enum {
    TICK_MS = 1000,
    HELLO_MS = 1000,        /* until the scheduler has answered */
    HELLO_AGAIN_MS = 15000, /* while it does not acknowledge reports */
    DNS_TIMEOUT_MS = 5000,
    DNS_TRIES = 3,
    QUEUE_MAX = 64 * 1024 * 1024,
    JOBS_DEFAULT = 2000,
    SCRATCH_MAX = 4 * 1024 * 1024,
};
#define BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)

/* -- settings -- */

static void query(void *dns, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    if (dns) {
        dns_query(dns, name, type, cb, arg);
        return;
    }
    const struct dns_answer none = {.status = DNS_TEMPFAIL, .why = "no resolver"};
    cb(arg, &none);
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* A resolver for these settings; the old one's questions end as failures that are not kept. */
static void open_dns(struct outbound *o) {
    struct dns *dns = NULL, *old = o->dns;
    int err = dns_new(&dns, o->loop, o->setup->s.dns, DNS_TIMEOUT_MS, DNS_TRIES);
    if (err != ERR_OK)
        LOG_ERROR("dns_refused", LOG_STR("servers", o->setup->s.dns ? o->setup->s.dns : "system"),
                  LOG_ERR("reason", err));
    o->dns = dns;
    mxcache_set_dns(o->cache, dns);
    if (o->sts)
        sts_set_dns(o->sts, dns);
    if (o->tlsrpt)
        tlsrpt_set_dns(o->tlsrpt, dns);
    if (old)
        dns_free(old);
}

static void take_settings(struct outbound *o, struct setup *s) {
    bool other_dns = !same_text(o->setup->s.dns, s->s.dns);
    setup_free(o->setup);
    o->setup = s;
    if (other_dns)
        open_dns(o);
    LOG_INFO("delivery_reconfigured");
}

/* -- drain and stop -- */

static void hand_back_waiting(struct outbound *o) {
    for (size_t n = o->running.count; n > 0 && !list_is_empty(&o->running); n--) {
        struct attempt *a = LIST_ENTRY(list_first(&o->running), struct attempt, in_all);
        list_remove(&o->running, &a->in_all);
        list_push_back(&o->running, &a->in_all);
        if (a->state == ATTEMPT_SENDING)
            continue;
        struct conn *c = a->conn;
        if (c) {
            c->attempt = NULL;
            a->conn = NULL;
            conn_drop(c);
        }
        attempt_hand_back(a);
    }
    while (!list_is_empty(&o->idle))
        conn_quit(LIST_ENTRY(list_first(&o->idle), struct conn, in_idle));
}

static void start_drain(struct outbound *o, uint64_t timeout_ms) {
    o->draining = true;
    o->paused = false;
    o->drain_done = false;
    o->drain_end_ms = loop_now_ms(o->loop) + timeout_ms;
    hand_back_waiting(o);
}

static void check_drained(struct outbound *o) {
    if (!o->draining || o->drain_done)
        return;
    bool empty = list_is_empty(&o->running) && reports_count(&o->reports) == 0;
    if (!empty && loop_now_ms(o->loop) < o->drain_end_ms)
        return;
    o->drain_done = true;
    pthread_mutex_lock(&o->lock);
    void (*done)(void *) = o->drained;
    void *arg = o->drained_arg;
    pthread_mutex_unlock(&o->lock);
    LOG_INFO("delivery_drained", LOG_U64("jobs_left", o->running.count),
             LOG_U64("reports_left", reports_count(&o->reports)));
    if (done)
        done(arg);
}

/* Before a drain; after it there is nothing to pause. */
static void take_pause(struct outbound *o, bool pause) {
    if (pause == o->paused || (o->draining && !o->paused))
        return;
    o->paused = o->draining = pause;
    o->drain_done = true; /* nobody waits for its end */
    jobs_send_hello(o);
    if (pause)
        hand_back_waiting(o);
    /* events: delivery_paused, delivery_resumed */
    LOG_INFO(pause ? "delivery_paused" : "delivery_resumed", LOG_U64("jobs", o->running.count));
}

static void close_all(struct outbound *o) {
    o->draining = true;
    explain_end_all(o);
    while (!list_is_empty(&o->running))
        attempt_abandon(LIST_ENTRY(list_first(&o->running), struct attempt, in_all));
    while (!list_is_empty(&o->conns))
        conn_drop(LIST_ENTRY(list_first(&o->conns), struct conn, in_all));
    conns_reap(o);
    attempts_free_spare(o);
    reports_deinit(&o->reports);
    reports_init(&o->reports);
}

static void on_wake(void *arg) {
    struct outbound *o = arg;
    pthread_mutex_lock(&o->lock);
    struct setup *incoming = o->incoming;
    bool drain = o->want_drain, stop = o->want_stop, pause = o->want_pause;
    uint64_t timeout = o->drain_timeout_ms;
    o->incoming = NULL;
    o->want_drain = false;
    pthread_mutex_unlock(&o->lock);
    if (incoming)
        take_settings(o, incoming);
    take_pause(o, pause);
    if (drain)
        start_drain(o, timeout);
    if (stop) {
        close_all(o);
        loop_stop(o->loop);
        return;
    }
    check_drained(o);
}

/* -- the tick -- */

static void greet(struct outbound *o) {
    uint64_t now = loop_now_ms(o->loop);
    uint64_t oldest = reports_oldest_ms(&o->reports);
    bool unheard = oldest != UINT64_MAX && now - oldest > HELLO_AGAIN_MS;
    uint64_t pause = !o->welcome ? HELLO_MS : unheard ? HELLO_AGAIN_MS : UINT64_MAX;
    if (now - o->hello_ms >= pause)
        jobs_send_hello(o);
    if (o->admin && !o->admin_welcome && now - o->admin_hello_ms >= o->admin_pause_ms)
        operator_send_hello(o);
}

static void on_tick(void *arg) {
    struct outbound *o = arg;
    conns_reap(o);
    LIST_FOREACH(n, next, &o->running) {
        struct attempt *a = LIST_ENTRY(n, struct attempt, in_all);
        if (a->state == ATTEMPT_SENDING && a->body.chunked)
            list_push_back(&o->ticking, &a->in_tick);
    }
    struct list_node *n;
    while ((n = list_pop_front(&o->ticking)))
        attempt_tick(LIST_ENTRY(n, struct attempt, in_tick));
    reports_repeat(o, REPORT_REPEAT_MS);
    secure_tick(o);
    throttle_tick(o);
    greet(o);
    check_drained(o);
    loop_timer_set(o->tick, TICK_MS);
}

/* -- the thread -- */

static void *run(void *arg) {
    struct outbound *o = arg;
    loop_run(o->loop);
    return NULL;
}

static int open_parts(struct outbound *o) {
    uint64_t seed;
    rand_secure(&seed, sizeof seed);
    rand_init(&o->rand, seed);
    rand_secure(&o->login_key, sizeof o->login_key);
    o->loop = loop_new();
    if (!o->loop)
        return ERR_NOMEM;
    o->wake = loop_wake_new(o->loop, on_wake, o);
    o->tick = loop_timer_new(o->loop, on_tick, o);
    o->cache = mxcache_new(DELIVERY_CACHE_ENTRIES, DELIVERY_CACHE_BYTES, query, NULL);
    if (!o->wake || !o->tick || !o->cache)
        return ERR_NOMEM;
    int err = dns_new(&o->dns, o->loop, o->setup->s.dns, DNS_TIMEOUT_MS, DNS_TRIES);
    if (err != ERR_OK)
        return err;
    mxcache_set_dns(o->cache, o->dns);
    o->query = query;
    err = secure_open(o);
    if (err == ERR_OK)
        err = throttle_open(o);
    if (err != ERR_OK)
        return err;
    err = bus_peer_open(&o->scheduler, o->config.bus, o->loop, o->config.scheduler, "delivery", FRAME_PART_MAX,
                        QUEUE_MAX, jobs_on_message, o);
    if (err == ERR_OK && o->config.admin)
        err = bus_peer_open(&o->admin, o->config.bus, o->loop, o->config.admin, "delivery", FRAME_PART_MAX, QUEUE_MAX,
                            operator_on_message, o);
    return err;
}

/* The loop does not run. */
static void free_parts(struct outbound *o) {
    if (o->scheduler)
        bus_peer_close(o->scheduler);
    if (o->admin)
        bus_peer_close(o->admin);
    if (o->dns)
        dns_free(o->dns);
    secure_close(o);
    throttle_close(o);
    if (o->wake)
        loop_wake_close(o->wake);
    if (o->tick)
        loop_timer_close(o->tick);
    if (o->loop)
        loop_free(o->loop); /* conversions under way end here */
    mxcache_free(o->cache);
    reports_deinit(&o->reports);
    map_deinit(&o->attempts);
    map_deinit(&o->sites);
    buf_deinit(&o->scratch);
    setup_free(o->setup);
    setup_free(o->incoming);
    arena_deinit(&o->mem);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static struct outbound *make(const struct outbound_config *c, const struct outbound_settings *s) {
    struct outbound *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->config = *c;
    o->config.jobs_max = c->jobs_max ? c->jobs_max : JOBS_DEFAULT;
    o->config.bytes_max = c->bytes_max ? c->bytes_max : BYTES_DEFAULT;
    arena_init(&o->mem, 256, 0);
    pthread_mutex_init(&o->lock, NULL);
    struct list *lists[] = {&o->running, &o->spare,      &o->hungry,   &o->idle,
                            &o->conns,   &o->gone_conns, &o->explains, &o->ticking};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    map_init(&o->attempts);
    map_init(&o->sites);
    reports_init(&o->reports);
    buf_init(&o->scratch, SCRATCH_MAX);
    o->config.scheduler = arena_strdup(&o->mem, c->scheduler);
    o->config.admin = c->admin ? arena_strdup(&o->mem, c->admin) : NULL;
    o->setup = setup_new(s);
    if (!o->setup || !o->config.scheduler || (c->admin && !o->config.admin)) {
        free_parts(o);
        return NULL;
    }
    return o;
}

int outbound_start(struct outbound **out, const struct outbound_config *c, const struct outbound_settings *s) {
    struct outbound *o = make(c, s);
    if (!o)
        return ERR_NOMEM;
    int err = open_parts(o);
    if (err == ERR_OK) {
        jobs_send_hello(o);
        if (o->admin)
            operator_send_hello(o);
        loop_timer_set(o->tick, TICK_MS);
        if (pthread_create(&o->thread, NULL, run, o) != 0)
            err = ERR_NOMEM;
    }
    if (err != ERR_OK) {
        free_parts(o);
        return err;
    }
    *out = o;
    return ERR_OK;
}

int outbound_reconfigure(struct outbound *o, const struct outbound_settings *s) {
    struct setup *to = setup_new(s);
    if (!to)
        return ERR_NOMEM;
    pthread_mutex_lock(&o->lock);
    struct setup *old = o->incoming;
    o->incoming = to;
    pthread_mutex_unlock(&o->lock);
    setup_free(old); /* never came into force */
    loop_wake_send(o->wake);
    return ERR_OK;
}

void outbound_drain(struct outbound *o, uint64_t timeout_ms, void (*done)(void *arg), void *arg) {
    pthread_mutex_lock(&o->lock);
    o->want_drain = true;
    o->drain_timeout_ms = timeout_ms;
    o->drained = done;
    o->drained_arg = arg;
    pthread_mutex_unlock(&o->lock);
    loop_wake_send(o->wake);
}

void outbound_pause(struct outbound *o, bool paused) {
    pthread_mutex_lock(&o->lock);
    o->want_pause = paused;
    pthread_mutex_unlock(&o->lock);
    loop_wake_send(o->wake);
}

void outbound_stop(struct outbound *o) {
    if (!o)
        return;
    pthread_mutex_lock(&o->lock);
    o->want_stop = true;
    pthread_mutex_unlock(&o->lock);
    loop_wake_send(o->wake);
    pthread_join(o->thread, NULL);
    free_parts(o);
}
