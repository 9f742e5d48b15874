/*
 * inbound: see inbound.h. Starts and ends the workers; sessions live in them, and nothing here touches mail.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

#include "gateway/inbound/worker.h"

static void poke_all(struct inbound *in) {
    for (uint32_t i = 0; i < in->worker_count; i++)
        worker_poke(&in->workers[i]);
}

/* Threads that verify mail write to the loops of sessions: they end first. */
static void stop_mailauth(struct inbound *in) {
    struct mailauth *now = in->front ? in->front->parts.mailauth : NULL;
    if (now)
        mailauth_stop(now);
    for (size_t i = 0; i < in->older_count; i++) {
        mailauth_stop(in->older[i]);
        mailauth_unref(in->older[i]);
    }
}

/* Keeps what a reload replaced until the end, or until so many have followed that its work is long over. */
static void retire_mailauth(struct inbound *in, struct mailauth *m) {
    if (!m)
        return;
    if (in->older_count == INBOUND_OLDER_MAX) {
        mailauth_unref(in->older[0]);
        memmove(in->older, in->older + 1, --in->older_count * sizeof *in->older);
    }
    in->older[in->older_count++] = mailauth_ref(m);
}

static void free_all(struct inbound *in) {
    for (uint32_t i = 0; i < in->worker_count; i++)
        worker_join(&in->workers[i]);
    stop_mailauth(in);
    for (uint32_t i = 0; i < in->worker_count; i++)
        worker_close(&in->workers[i]);
    front_unref(in->front);
    guard_free(in->guard);
    limits_deinit(&in->limits);
    pthread_mutex_destroy(&in->lock);
    free(in->workers);
    free(in);
}

static int open_workers(struct inbound *in, const struct inbound_config *c) {
    for (uint32_t i = 0; i < c->loops; i++) {
        in->worker_count = i + 1;
        int err = worker_open(&in->workers[i], in, i);
        if (err == ERR_OK)
            err = worker_listen(&in->workers[i], c->fds[i], c->listeners);
        if (err)
            return err;
    }
    return ERR_OK;
}

static int run_workers(struct inbound *in) {
    for (uint32_t i = 0; i < in->worker_count; i++) {
        int err = worker_run(&in->workers[i]);
        if (err == ERR_OK)
            continue;
        atomic_store(&in->stopping, true);
        for (uint32_t k = 0; k < i; k++)
            worker_poke(&in->workers[k]);
        return err;
    }
    return ERR_OK;
}

/* The workers listen on duplicates, so that a failed start leaves the caller's sockets as they were. */
static void close_originals(const struct inbound_config *c) {
    for (uint32_t i = 0; i < c->loops; i++) {
        for (uint32_t k = 0; k < c->listeners; k++)
            close(c->fds[i][k]);
    }
}

int inbound_start(struct inbound **out, const struct inbound_config *c, const struct inbound_settings *s,
                  const struct inbound_parts *parts) {
    CHECK(c->loops > 0 && c->listeners <= WORKER_LISTENERS_MAX);
    struct inbound *in = calloc(1, sizeof *in);
    if (!in)
        return ERR_NOMEM;
    in->config = *c;
    limits_init(&in->limits);
    limits_set_memory(&in->limits, s->limits.memory);
    CHECK(pthread_mutex_init(&in->lock, NULL) == 0);
    in->workers = calloc(c->loops, sizeof *in->workers);
    int err = in->workers ? front_new(&in->front, s, parts) : ERR_NOMEM;
    if (err == ERR_OK)
        err = guard_new(&in->guard, &s->guard);
    if (err == ERR_OK)
        err = open_workers(in, c);
    if (err == ERR_OK)
        err = run_workers(in);
    if (err) {
        free_all(in);
        return err;
    }
    close_originals(c);
    LOG_INFO("gateway_open", LOG_U64("loops", c->loops), LOG_U64("listeners", c->listeners));
    *out = in;
    return ERR_OK;
}

int inbound_reconfigure(struct inbound *in, const struct inbound_settings *s, const struct inbound_parts *parts) {
    struct front *fresh;
    int err = front_new(&fresh, s, parts);
    if (err)
        return err;
    err = guard_reconfigure(in->guard, &s->guard);
    if (err) {
        front_unref(fresh);
        return err;
    }
    pthread_mutex_lock(&in->lock);
    struct front *old = in->front;
    in->front = fresh;
    pthread_mutex_unlock(&in->lock);
    if (old->parts.mailauth != parts->mailauth)
        retire_mailauth(in, old->parts.mailauth);
    front_unref(old);
    limits_set_memory(&in->limits, s->limits.memory);
    poke_all(in);
    return ERR_OK;
}

void inbound_drain(struct inbound *in, uint64_t timeout_ms, void (*done)(void *arg), void *arg) {
    in->drain_ms = timeout_ms;
    in->done = done;
    in->done_arg = arg;
    atomic_store(&in->draining, true);
    poke_all(in);
}

void inbound_pause(struct inbound *in, bool paused) {
    atomic_store(&in->paused, paused);
    poke_all(in);
}

void inbound_stop(struct inbound *in) {
    atomic_store(&in->stopping, true);
    poke_all(in);
    free_all(in);
}

bool inbound_is_ready(const struct inbound *in) {
    for (uint32_t i = 0; i < in->worker_count; i++)
        if (!submit_was_heard(in->workers[i].submit))
            return false;
    return true;
}

uint64_t inbound_sessions(const struct inbound *in) {
    return atomic_load(&in->sessions);
}
