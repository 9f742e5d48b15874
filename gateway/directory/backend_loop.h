/*
 * backend_loop: what the backends on a loop of their own (http.c, callout.c) share: the thread, the loop, and the
 * questions that wait. A question that has waited past its deadline is answered here, as a failure.
 *
 * Only backend_loop_ask may be called from any thread; all else runs on the loop's thread, or before it is started.
 */
#ifndef GATEWAY_DIRECTORY_BACKEND_LOOP_H
#define GATEWAY_DIRECTORY_BACKEND_LOOP_H

#include <pthread.h>

#include "base/net/loop.h"
#include "gateway/directory/backend.h"

struct backend_loop {
    struct loop *loop;
    void (*work)(void *arg); /* questions wait: take what can be asked now */
    void (*end)(void *arg);  /* the loop ends: close what keeps it alive */
    void *arg;
    /* inner */
    struct loop_wake *wake;
    struct loop_timer *expiry;
    pthread_t thread;
    pthread_mutex_t lock;
    struct list arrived; /* under the lock */
    bool stopping;       /* under the lock */
    struct list waiting;
};
/* Makes the loop; work, end and arg are set by the caller before backend_loop_start. ERR_NOMEM. */
int backend_loop_init(struct backend_loop *b) MUST_CHECK;
int backend_loop_start(struct backend_loop *b) MUST_CHECK; /* ERR_NOMEM: no thread */
/* Any thread. */
void backend_loop_ask(struct backend_loop *b, struct backend_question *q);
/* The next question that waits, or NULL. */
struct backend_question *backend_loop_take(struct backend_loop *b);
/* Puts one back in front. */
void backend_loop_return(struct backend_loop *b, struct backend_question *q);
/* Milliseconds that are left to a question. */
uint64_t backend_loop_left_ms(const struct backend_question *q);
/* No question is open. Ends and joins the thread when it was started; `end` has run then. */
void backend_loop_stop(struct backend_loop *b);
void backend_loop_deinit(struct backend_loop *b);

/* Answers that the backend has failed (any thread). */
void backend_fail(struct backend_question *q, int err, const char *why);

#endif
