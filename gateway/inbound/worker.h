/*
 * worker: one loop of the front end: a thread with its listeners, its sessions and its peers to the scheduler
 * and (the first worker only) to the admin hub. Everything here belongs to that thread, except worker_poke.
 */
#ifndef GATEWAY_INBOUND_WORKER_H
#define GATEWAY_INBOUND_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "gateway/inbound/front.h"
#include "gateway/inbound/limits.h"
#include "gateway/inbound/submit.h"

#define WORKER_LISTENERS_MAX 16
#define INBOUND_OLDER_MAX 8

struct desk;
struct inbound;

/* What a listening socket tells of the connections that it takes. */
struct worker_listener {
    struct worker *worker;
    uint32_t index; /* in the settings */
};

/* The policy services of one generation of settings, which they borrow. */
struct worker_policies {
    struct worker_policies *next; /* retired ones */
    struct policies *services;
    struct front *front;
    size_t users; /* sessions that wait for them */
};

struct worker {
    struct inbound *in;
    unsigned number;
    pthread_t thread;
    bool running, joined;
    struct loop *loop;
    struct loop_wake *wake;
    struct loop_timer *tick;
    uint64_t tick_ms;              /* of the timer; 0: it does not run */
    struct loop_timer *guard_tick; /* of the first worker; else NULL */
    struct loop_hook *hook;        /* greets those that waited a turn */
    struct submit *submit;
    struct desk *desk;                /* answers the admin hub; NULL on all but the first */
    struct post *post;                /* answers of directories and others that run on threads */
    struct dns *dns;                  /* names and lists */
    struct worker_policies *policies; /* NULL: none */
    struct worker_policies *retired;  /* replaced by reloads, and still asked by somebody */
    struct tcp_listener *listeners[WORKER_LISTENERS_MAX];
    struct worker_listener places[WORKER_LISTENERS_MAX];
    uint32_t listener_count;
    struct front *front;  /* for new transactions */
    struct list idle;     /* sessions whose client is to speak, longest silent first */
    struct list waiting;  /* sessions that wait for the scheduler */
    struct list stalled;  /* sessions that wait for memory or credit */
    struct list greeting; /* sessions not yet greeted, oldest first */
    struct list opening;  /* sessions before the end of their PROXY header or TLS handshake */
    struct list slowed;   /* sessions whose next command is kept waiting */
    size_t sessions;
    uint64_t turn;
    struct buf out; /* replies of the session that runs */
    bool draining, drained, stopping, paused;
    uint64_t drain_until_ms;
};

struct inbound {
    struct inbound_config config;
    struct limits limits;
    struct guard *guard;
    struct mailauth *older[INBOUND_OLDER_MAX]; /* replaced by reloads; their threads may still work for a session */
    size_t older_count;
    pthread_mutex_t lock; /* guards front */
    struct front *front;
    struct worker *workers;
    uint32_t worker_count;
    atomic_uint_fast64_t sessions;
    atomic_bool draining, stopping, done_called, paused;
    atomic_uint drained;
    uint64_t drain_ms;
    void (*done)(void *arg);
    void *done_arg;
};

/* Everything but the thread. On failure the caller calls worker_close. fds are duplicated. */
int worker_open(struct worker *w, struct inbound *in, unsigned number) MUST_CHECK;
int worker_listen(struct worker *w, const int *fds, uint32_t count) MUST_CHECK;
int worker_run(struct worker *w) MUST_CHECK;
/* Any thread: looks at the front, at draining and at stopping soon. */
void worker_poke(struct worker *w);
/* Waits for the end of its thread, if there is one. */
void worker_join(struct worker *w);
/* After its thread has ended, or when it never ran. */
void worker_close(struct worker *w);
/* There are sessions: time must pass for them. */
void worker_need_tick(struct worker *w);
/* A session is gone. */
void worker_lost_session(struct worker *w);

/* -- listener.c -- */
void listener_accept(void *arg, struct tcp *c, const struct tcp_addr *peer);
/* Greets those whose time of silence is over. */
void listener_greet(struct worker *w);

#endif
