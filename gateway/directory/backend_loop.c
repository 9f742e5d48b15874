/*
 * backend_loop: see backend_loop.h. Questions come in through a list under a lock and a wake-up, and wait in a list of
 * the loop's own until the backend takes them. Deadlines are looked at ten times a second while something waits: what
 * is under way is the backend's to end.
 */
#include "base/check.h"
#include "base/clock.h"

#include "gateway/directory/backend_loop.h"

enum { EXPIRY_MS = 100 };

static struct backend_question *question_of(struct list_node *n) {
    return n ? LIST_ENTRY(n, struct backend_question, node) : NULL;
}

uint64_t backend_loop_left_ms(const struct backend_question *q) {
    uint64_t now = clock_mono_ms();
    return q->deadline_ms > now ? q->deadline_ms - now : 0;
}

void backend_fail(struct backend_question *q, int err, const char *why) {
    const struct backend_reply r = {.err = err, .status = DIRECTORY_TEMPFAIL, .why = span_of(why)};
    backend_answer(q, &r);
}

static void on_expiry(void *arg) {
    struct backend_loop *b = arg;
    LIST_FOREACH(n, next, &b->waiting) {
        struct backend_question *q = question_of(n);
        if (backend_loop_left_ms(q) > 0)
            continue;
        list_remove(&b->waiting, n);
        backend_fail(q, ERR_TIMEOUT, "waited too long for a connection");
    }
    if (!list_is_empty(&b->waiting))
        loop_timer_set(b->expiry, EXPIRY_MS);
}

static void close_own(struct backend_loop *b) {
    loop_wake_close(b->wake);
    loop_timer_close(b->expiry);
    b->wake = NULL;
    b->expiry = NULL;
}

static void on_wake(void *arg) {
    struct backend_loop *b = arg;
    struct list_node *n;
    bool was_empty = list_is_empty(&b->waiting);
    pthread_mutex_lock(&b->lock);
    while ((n = list_pop_front(&b->arrived)))
        list_push_back(&b->waiting, n);
    bool stopping = b->stopping;
    pthread_mutex_unlock(&b->lock);
    if (stopping) {
        CHECK(list_is_empty(&b->waiting));
        b->end(b->arg);
        close_own(b);
        loop_stop(b->loop);
        return;
    }
    if (was_empty && !list_is_empty(&b->waiting))
        loop_timer_set(b->expiry, EXPIRY_MS);
    b->work(b->arg);
}

int backend_loop_init(struct backend_loop *b) {
    *b = (struct backend_loop){.loop = loop_new()};
    pthread_mutex_init(&b->lock, NULL);
    list_init(&b->arrived);
    list_init(&b->waiting);
    b->wake = b->loop ? loop_wake_new(b->loop, on_wake, b) : NULL;
    b->expiry = b->loop ? loop_timer_new(b->loop, on_expiry, b) : NULL;
    return b->wake && b->expiry ? ERR_OK : ERR_NOMEM;
}

static void *run(void *arg) {
    struct backend_loop *b = arg;
    loop_run(b->loop);
    return NULL;
}

int backend_loop_start(struct backend_loop *b) {
    return pthread_create(&b->thread, NULL, run, b) == 0 ? ERR_OK : ERR_NOMEM;
}

void backend_loop_ask(struct backend_loop *b, struct backend_question *q) {
    pthread_mutex_lock(&b->lock);
    list_push_back(&b->arrived, &q->node);
    pthread_mutex_unlock(&b->lock);
    loop_wake_send(b->wake);
}

struct backend_question *backend_loop_take(struct backend_loop *b) {
    struct backend_question *q;
    while ((q = question_of(list_pop_front(&b->waiting)))) {
        if (backend_loop_left_ms(q) > 0)
            return q;
        backend_fail(q, ERR_TIMEOUT, "waited too long for a connection");
    }
    return NULL;
}

void backend_loop_return(struct backend_loop *b, struct backend_question *q) {
    list_push_front(&b->waiting, &q->node);
    loop_timer_set(b->expiry, EXPIRY_MS);
}

void backend_loop_stop(struct backend_loop *b) {
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_mutex_unlock(&b->lock);
    loop_wake_send(b->wake);
    pthread_join(b->thread, NULL);
}

void backend_loop_deinit(struct backend_loop *b) {
    if (b->wake)
        loop_wake_close(b->wake);
    if (b->expiry)
        loop_timer_close(b->expiry);
    if (b->loop)
        loop_free(b->loop);
    pthread_mutex_destroy(&b->lock);
}
