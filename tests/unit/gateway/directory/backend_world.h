/*
 * backend_world: asks a backend directly and catches its answers: takes the place of the engine (directory.c), so that
 * every answer of the backend itself is seen. Each question must be answered exactly once.
 */
#ifndef TESTS_BACKEND_WORLD_H
#define TESTS_BACKEND_WORLD_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "gateway/directory/backend.h"

struct asked_once {
    struct backend_question q;
    char text[400];
    unsigned answers;
    int err;
    enum directory_status status;
    enum table_kind kind;
    char targets[300000], why[1000];
};

static pthread_mutex_t world_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t world_told = PTHREAD_COND_INITIALIZER;

void backend_answer(struct backend_question *q, const struct backend_reply *r) {
    struct asked_once *a = CONTAINER_OF(q, struct asked_once, q);
    pthread_mutex_lock(&world_lock);
    a->answers++;
    a->err = r->err;
    a->status = r->status;
    a->kind = r->kind;
    span_copy(r->targets, a->targets, sizeof a->targets);
    span_copy(r->why, a->why, sizeof a->why);
    pthread_cond_broadcast(&world_told);
    pthread_mutex_unlock(&world_lock);
}

static struct asked_once *world_ask(struct backend *b, const char *local, const char *domain, uint64_t timeout_ms) {
    struct asked_once *a = calloc(1, sizeof *a);
    assert_non_null(a);
    int len = snprintf(a->text, sizeof a->text, "%s@%s", local, domain);
    a->q.address = span_make(a->text, (size_t)len);
    a->q.key = span_first(a->q.address, strlen(local));
    a->q.domain = span_from(a->q.address, strlen(local) + 1);
    a->q.deadline_ms = clock_mono_ms() + timeout_ms;
    b->ops->ask(b, &a->q);
    return a;
}

/* Waits for the answer; it is a bug when none comes in half a minute. */
static void world_wait(struct asked_once *a) {
    struct timespec until;
    int err = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&world_lock);
    while (a->answers == 0 && err == 0)
        err = pthread_cond_timedwait(&world_told, &world_lock, &until);
    assert_int_equal(a->answers, 1);
    pthread_mutex_unlock(&world_lock);
}

/* Asks, waits and checks; the caller frees. */
static struct asked_once *world_expect(struct backend *b, const char *local, int err, enum directory_status status) {
    struct asked_once *a = world_ask(b, local, "example.net", 10000);
    world_wait(a);
    if (a->err != err || a->status != status)
        fail_msg("%s: error %d, status %d, %s", local, a->err, (int)a->status, a->why);
    return a;
}

#endif
