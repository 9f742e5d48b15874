/*
 * worker: the turns of one loop of the front end: time, reload, drain and stop.
 *
 * One timer serves all sessions of the loop. It runs only while there is a session or a submission, once a
 * second, and faster while sessions wait for memory or for their greeting. Sessions stand in lists by what they wait
 * for, the oldest first, so a tick looks at the few that are due and never at all of them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

#include "gateway/inbound/desk.h"
#include "gateway/inbound/session.h"
#include "gateway/inbound/worker.h"

enum { TICK_MS = 1000, TICK_STALLED_MS = 20, TICK_GREETING_MS = 50, BACKLOG = 4096 };

void worker_need_tick(struct worker *w) {
    uint64_t period = !list_is_empty(&w->stalled)    ? TICK_STALLED_MS
                      : !list_is_empty(&w->greeting) ? TICK_GREETING_MS
                                                     : TICK_MS;
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

static void on_tick(void *arg) {
    struct worker *w = arg;
    w->tick_ms = 0;
    listener_greet(w);
    expire_idle(w);
    retry_stalled(w);
    submit_tick(w->submit);
    check_drained(w);
    bool welcome = submit_is_ready(w->submit);
    if (w->sessions || submit_pending(w->submit) || !welcome || (w->draining && !w->drained))
        worker_need_tick(w);
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

static void take_front(struct worker *w) {
    struct front *old = w->front;
    pthread_mutex_lock(&w->in->lock);
    w->front = front_ref(w->in->front);
    pthread_mutex_unlock(&w->in->lock);
    front_unref(old);
}

static void close_listeners(struct worker *w) {
    for (uint32_t i = 0; i < w->listener_count; i++)
        tcp_listener_close(w->listeners[i]);
    w->listener_count = 0;
}

static void each_session(struct worker *w, void (*visit)(struct session *s)) {
    struct list *lists[] = {&w->idle, &w->waiting, &w->stalled, &w->greeting};
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
    loop_hook_close(w->hook);
    loop_timer_close(w->tick);
    loop_wake_close(w->wake);
    loop_stop(w->loop);
}

static void on_wake(void *arg) {
    struct worker *w = arg;
    if (w->stopping)
        return;
    take_front(w);
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
    buf_init(&w->out, SERVER_OUT_MAX);
    w->front = front_ref(in->front);
    w->loop = loop_new();
    if (!w->loop)
        return ERR_NOMEM;
    w->wake = loop_wake_new(w->loop, on_wake, w);
    w->tick = loop_timer_new(w->loop, on_tick, w);
    w->hook = loop_hook_new(w->loop, before_turn, after_turn, w);
    if (!w->wake || !w->tick || !w->hook)
        return ERR_NOMEM;
    snprintf(name, sizeof name, "%.24s.gateway%u", in->front->settings.name, number);
    int err = submit_open(&w->submit, in->config.bus, w->loop, in->config.scheduler, name, on_room, w);
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
        struct tcp_listener *t = tcp_listen(w->loop, fd, BACKLOG, listener_accept, w);
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

void worker_close(struct worker *w) {
    if (w->running) {
        pthread_join(w->thread, NULL);
    } else {
        close_listeners(w);
        if (w->desk)
            desk_close(w->desk);
        if (w->submit)
            submit_close(w->submit);
    }
    if (w->loop)
        loop_free(w->loop);
    buf_deinit(&w->out);
    front_unref(w->front);
}
