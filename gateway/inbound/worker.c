/*
 * worker: the turns of one loop of the front end: time, reload, drain and stop.
 *
 * One timer serves all sessions of the loop. It runs only while there is a session or a submission, once a
 * second, and faster while sessions wait for memory or for their greeting. Sessions stand in lists by what they wait
 * for, the oldest first, so a tick looks at the few that are due and never at all of them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

#include "gateway/inbound/desk.h"
#include "gateway/inbound/session.h"
#include "gateway/inbound/worker.h"

enum { TICK_MS = 1000, TICK_STALLED_MS = 20, TICK_GREETING_MS = 50, BACKLOG = 4096 };
enum { OPENING_MS = 30000, DNS_TIMEOUT_MS = 2000, DNS_TRIES = 2 };

void worker_need_tick(struct worker *w) {
    uint64_t period = !list_is_empty(&w->stalled)                                ? TICK_STALLED_MS
                      : list_is_empty(&w->greeting) && list_is_empty(&w->slowed) ? TICK_MS
                                                                                 : TICK_GREETING_MS;
    if (w->tick_ms && w->tick_ms <= period)
        return;
    w->tick_ms = period;
    loop_timer_set(w->tick, period);
}

static void expire_idle(struct worker *w) {
    uint64_t now = loop_now_ms(w->loop);
    struct list_node *node;
    while ((node = list_first(&w->idle))) {
        struct session *s = LIST_ENTRY(node, struct session, link);
        if (now - s->since_ms < s->front->settings.limits.idle_ms)
            return;
        session_farewell(s, 421, "4.4.2", "idle too long, closing");
    }
}

/* No longer than anybody may be idle. */
static uint64_t opening_ms(const struct session *s) {
    uint64_t idle = s->front->settings.limits.idle_ms;
    return idle < OPENING_MS ? idle : OPENING_MS;
}

/* Who has not come to the greeting by now does not want to. */
static void expire_opening(struct worker *w) {
    uint64_t now = loop_now_ms(w->loop);
    struct list_node *node;
    while ((node = list_first(&w->opening))) {
        struct session *s = LIST_ENTRY(node, struct session, link);
        if (now - s->since_ms < opening_ms(s))
            return;
        session_lose(s, s->expects_proxy ? "no PROXY header in time" : "no TLS handshake in time");
    }
}

static void hasten_slowed(struct worker *w) {
    uint64_t now = loop_now_ms(w->loop);
    for (size_t n = w->slowed.count; n; n--) {
        struct list_node *node = list_first(&w->slowed);
        struct session *s = node ? LIST_ENTRY(node, struct session, link) : NULL;
        if (!s || now - s->since_ms < s->slow_ms)
            return;
        session_hasten(s);
    }
}

static void retry_stalled(struct worker *w) {
    for (size_t n = w->stalled.count; n; n--) {
        struct list_node *node = list_first(&w->stalled);
        if (!node)
            return;
        session_retry(LIST_ENTRY(node, struct session, link));
    }
}

static void report_drained(struct worker *w) {
    struct inbound *in = w->in;
    if (w->drained)
        return;
    w->drained = true;
    bool last = atomic_fetch_add(&in->drained, 1) + 1 == in->worker_count;
    bool late = w->sessions > 0;
    if ((last || late) && !atomic_exchange(&in->done_called, true))
        in->done(in->done_arg);
}

static void check_drained(struct worker *w) {
    if (!w->draining || w->drained)
        return;
    if (w->sessions == 0 || loop_now_ms(w->loop) >= w->drain_until_ms)
        report_drained(w);
}

void worker_lost_session(struct worker *w) {
    w->sessions--;
    atomic_fetch_sub(&w->in->sessions, 1);
    check_drained(w);
}

static void policies_end(struct worker_policies *p) {
    if (!p)
        return;
    policies_free(p->services);
    front_unref(p->front);
    free(p);
}

/* Those of which nobody waits for an answer any more. */
static void free_retired(struct worker *w) {
    for (struct worker_policies **at = &w->retired, *p; (p = *at);) {
        if (p->users == 0) {
            *at = p->next;
            policies_end(p);
        } else {
            at = &p->next;
        }
    }
}

static void on_tick(void *arg) {
    struct worker *w = arg;
    w->tick_ms = 0;
    listener_greet(w);
    expire_idle(w);
    expire_opening(w);
    hasten_slowed(w);
    retry_stalled(w);
    submit_tick(w->submit);
    free_retired(w);
    check_drained(w);
    bool welcome = submit_is_ready(w->submit);
    if (w->sessions || submit_pending(w->submit) || !welcome || (w->draining && !w->drained))
        worker_need_tick(w);
}

/* The first worker lets time pass for what all share, with or without sessions. */
static void on_guard(void *arg) {
    struct worker *w = arg;
    guard_tick(w->in->guard, loop_now_ms(w->loop));
    loop_timer_set(w->guard_tick, TICK_MS);
}

/* Credit came. */
static void on_room(void *arg) {
    retry_stalled(arg);
}

/* Those who wait one turn for their greeting keep the loop from sleeping; the turn then reads what they said. */
static bool before_turn(void *arg) {
    struct worker *w = arg;
    w->turn++;
    return !list_is_empty(&w->greeting) && w->front->settings.pregreet_ms == 0;
}

static void after_turn(void *arg) {
    listener_greet(arg);
}

/* -- what other threads ask for -- */

static bool same_policies(const struct inbound_settings *a, const struct inbound_settings *b) {
    if (a->policy_count != b->policy_count)
        return false;
    for (size_t i = 0; i < a->policy_count; i++) {
        const struct policy_config *x = &a->policies[i], *y = &b->policies[i];
        if (strcmp(x->name, y->name) != 0 || memcmp(&x->address, &y->address, sizeof x->address) != 0 ||
            x->stage != y->stage || x->failure != y->failure || x->timeout_ms != y->timeout_ms)
            return false;
    }
    return true;
}

static struct worker_policies *policies_begin(struct worker *w) {
    const struct inbound_settings *fresh = &w->front->settings;
    struct worker_policies *p = calloc(1, sizeof *p);
    if (p)
        p->services = policies_new(w->loop, fresh->policies, fresh->policy_count);
    if (!p || !p->services) {
        free(p);
        return NULL;
    }
    p->front = front_ref(w->front);
    return p;
}

/* The services of the front in force. */
static int take_policies(struct worker *w) {
    const struct inbound_settings *fresh = &w->front->settings;
    struct worker_policies *old = w->policies, *p = NULL;
    if (old ? same_policies(&old->front->settings, fresh) : fresh->policy_count == 0)
        return ERR_OK;
    if (fresh->policy_count && !(p = policies_begin(w)))
        return ERR_NOMEM;
    w->policies = p;
    if (old) {
        old->next = w->retired;
        w->retired = old;
        free_retired(w);
    }
    return ERR_OK;
}

static void take_front(struct worker *w) {
    struct front *old = w->front;
    pthread_mutex_lock(&w->in->lock);
    w->front = front_ref(w->in->front);
    pthread_mutex_unlock(&w->in->lock);
    front_unref(old);
    if (take_policies(w) != ERR_OK)
        LOG_ERROR("reload_incomplete", LOG_STR("part", "policy services"));
}

static void close_listeners(struct worker *w) {
    for (uint32_t i = 0; i < w->listener_count; i++)
        tcp_listener_close(w->listeners[i]);
    w->listener_count = 0;
}

static void each_session(struct worker *w, void (*visit)(struct session *s)) {
    struct list *lists[] = {&w->idle, &w->waiting, &w->stalled, &w->greeting, &w->opening, &w->slowed};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        LIST_FOREACH(node, next, lists[i])
        visit(LIST_ENTRY(node, struct session, link));
    }
}

static void drain(struct worker *w) {
    w->draining = true;
    w->drain_until_ms = loop_now_ms(w->loop) + w->in->drain_ms;
    close_listeners(w);
    each_session(w, session_drain);
    check_drained(w);
    worker_need_tick(w);
}

/* The listeners stay: they say 421. */
static void take_pause(struct worker *w) {
    bool before = w->paused;
    w->paused = atomic_load(&w->in->paused);
    if (w->paused && !before)
        each_session(w, session_drain);
}

/* After the sessions, which may wait for them. */
static void close_helpers(struct worker *w) {
    CHECK(w->sessions == 0);
    policies_end(w->policies);
    w->policies = NULL;
    free_retired(w);
    dns_free(w->dns);
    w->dns = NULL;
}

static void stop(struct worker *w) {
    w->stopping = true;
    close_listeners(w);
    each_session(w, session_kill);
    CHECK(w->sessions == 0);
    submit_close(w->submit);
    w->submit = NULL;
    if (w->desk)
        desk_close(w->desk);
    w->desk = NULL;
    close_helpers(w);
    loop_hook_close(w->hook);
    loop_timer_close(w->tick);
    if (w->guard_tick)
        loop_timer_close(w->guard_tick);
    loop_wake_close(w->wake);
    loop_stop(w->loop);
}

static void on_wake(void *arg) {
    struct worker *w = arg;
    if (w->stopping)
        return;
    take_front(w);
    take_pause(w);
    if (atomic_load(&w->in->draining) && !w->draining)
        drain(w);
    if (atomic_load(&w->in->stopping))
        stop(w);
}

void worker_poke(struct worker *w) {
    loop_wake_send(w->wake);
}

/* -- life -- */

int worker_open(struct worker *w, struct inbound *in, unsigned number) {
    char name[40];
    *w = (struct worker){.in = in, .number = number};
    list_init(&w->idle);
    list_init(&w->waiting);
    list_init(&w->stalled);
    list_init(&w->greeting);
    list_init(&w->opening);
    list_init(&w->slowed);
    buf_init(&w->out, SERVER_OUT_MAX);
    w->front = front_ref(in->front);
    w->loop = loop_new();
    if (!w->loop)
        return ERR_NOMEM;
    w->wake = loop_wake_new(w->loop, on_wake, w);
    w->tick = loop_timer_new(w->loop, on_tick, w);
    w->hook = loop_hook_new(w->loop, before_turn, after_turn, w);
    w->post = post_new(w->loop);
    if (number == 0 && (w->guard_tick = loop_timer_new(w->loop, on_guard, w)))
        loop_timer_set(w->guard_tick, TICK_MS);
    if (!w->wake || !w->tick || !w->hook || !w->post)
        return ERR_NOMEM;
    int err = dns_new(&w->dns, w->loop, in->front->settings.dns, DNS_TIMEOUT_MS, DNS_TRIES);
    if (err == ERR_OK)
        err = take_policies(w);
    if (err)
        return err;
    snprintf(name, sizeof name, "%.24s.gateway%u", in->front->settings.name, number);
    err = submit_open(&w->submit, in->config.bus, w->loop, in->config.scheduler, name, on_room, w);
    if (err == ERR_OK && number == 0 && in->config.admin)
        err = desk_open(&w->desk, w, in->config.admin, name);
    worker_need_tick(w);
    return err;
}

int worker_listen(struct worker *w, const int *fds, uint32_t count) {
    CHECK(count <= WORKER_LISTENERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return ERR_FULL;
        w->places[i] = (struct worker_listener){w, i};
        struct tcp_listener *t = tcp_listen(w->loop, fd, BACKLOG, listener_accept, &w->places[i]);
        if (!t)
            return ERR_IO;
        w->listeners[w->listener_count++] = t;
    }
    return ERR_OK;
}

static void *run(void *arg) {
    struct worker *w = arg;
    loop_run(w->loop);
    return NULL;
}

int worker_run(struct worker *w) {
    if (pthread_create(&w->thread, NULL, run, w))
        return ERR_NOMEM;
    w->running = true;
    return ERR_OK;
}

void worker_join(struct worker *w) {
    if (w->running)
        pthread_join(w->thread, NULL);
    w->joined |= w->running;
    w->running = false;
}

void worker_close(struct worker *w) {
    worker_join(w);
    if (!w->joined) {
        close_listeners(w);
        if (w->desk)
            desk_close(w->desk);
        if (w->submit)
            submit_close(w->submit);
        close_helpers(w);
    }
    if (w->post)
        post_free(w->post);
    if (w->loop)
        loop_free(w->loop);
    buf_deinit(&w->out);
    front_unref(w->front);
}
