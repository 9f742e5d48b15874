/*
 * directory_answer: what comes back of a question: the backend's answer, or nothing in time.
 *
 * An answer goes into the cache and to all who wait, in one block that they share. Where the backend failed, an old
 * answer from the cache takes its place.
 *
 * A backend answers within the deadline of a question, but for what it cannot help, such as the system's resolver. So a
 * thread of the directory, started with the first question, looks over the open ones and answers those who waited long
 * enough; the question stays open until the backend is done with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

#include "gateway/directory/directory_inner.h"

enum {
    WHY_MAX = 300,
    TARGETS_MAX = 512 * 1024,
    RETRY_MS_MIN = 20,
    GRACE_MS = 250 /* that a backend gets beyond a deadline, to give its own reason */
};

/* -- results -- */

/* An answer in one piece; why is cut to its size. NULL: no memory. */
static struct directory_result *result_new(const struct directory_answer *a) {
    struct directory_result *r = calloc(1, sizeof *r + a->targets.len + a->why.len);
    if (!r)
        return NULL;
    char *text = (char *)(r + 1);
    atomic_init(&r->refs, 1);
    r->answer = *a;
    if (a->targets.len)
        memcpy(text, a->targets.at, a->targets.len);
    if (a->why.len)
        memcpy(text + a->targets.len, a->why.at, a->why.len);
    r->answer.targets = span_make(text, a->targets.len);
    r->answer.why = span_make(text + a->targets.len, a->why.len);
    return r;
}

static void result_unref(struct directory_result *r) {
    if (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        free(r);
}

static void open_letter(struct post_letter *letter) {
    static const struct directory_answer none = {.status = DIRECTORY_TEMPFAIL};
    struct directory_wait *w = CONTAINER_OF(letter, struct directory_wait, letter);
    if (!w->canceled)
        w->cb(w->arg, w->result ? &w->result->answer : &none);
    result_unref(w->result);
    free(w);
}

/* With the shard's lock: the question has its answer, which goes to all who wait. */
static void post_all(struct directory_question *q, struct directory_result *r) {
    struct list_node *node;
    while ((node = list_pop_front(&q->waits))) {
        struct directory_wait *w = LIST_ENTRY(node, struct directory_wait, node);
        w->question = NULL;
        w->result = r;
        if (r)
            atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
        w->letter.open = open_letter;
        post_send(w->home, &w->letter);
    }
}

void directory_leave(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    if (atomic_fetch_sub(&d->open, 1) == 1)
        pthread_cond_broadcast(&d->idle);
    pthread_mutex_unlock(&d->lock);
}

/* -- the backend's answer -- */

static bool may_retry(const struct directory_question *q, const struct backend_reply *r) {
    return r->err != ERR_OK && r->err != ERR_FULL && r->err != ERR_TIMEOUT && !q->retried && !q->probe &&
           clock_mono_ms() + RETRY_MS_MIN < q->q.deadline_ms && directory_breaker_is_closed(&q->d->breaker);
}

/* What goes to those who wait, with clean texts in why. */
static struct directory_answer answer_of(struct directory *d, const struct backend_reply *r, struct buf *why) {
    struct directory_answer a = {.status = r->err ? DIRECTORY_TEMPFAIL : r->status, .kind = r->kind};
    struct span text = r->why.len ? r->why : r->err ? span_of(err_text(r->err)) : SPAN_EMPTY;
    (void)buf_add_escaped(why, span_first(text, WHY_MAX));
    a.why = buf_span(why);
    if (a.status == DIRECTORY_FOUND && a.kind != TABLE_MAILBOX) {
        a.targets = r->targets;
        if (r->targets.len == 0 || r->targets.len > TARGETS_MAX) {
            a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL, .why = SPAN("it gave no targets, or too many")};
            LOG_WARN("directory_bad_targets", LOG_STR("directory", d->config.name), LOG_U64("octets", r->targets.len));
        }
    }
    return a;
}

static void count_reply(struct directory *d, const struct backend_reply *r, enum directory_status status) {
    directory_count(d, r->err                        ? COUNT_FAILED
                       : status == DIRECTORY_FOUND   ? COUNT_FOUND
                       : status == DIRECTORY_UNKNOWN ? COUNT_UNKNOWN
                                                     : COUNT_TEMPFAIL);
}

void backend_answer(struct backend_question *bq, const struct backend_reply *r) {
    struct directory_question *q = CONTAINER_OF(bq, struct directory_question, q);
    struct directory *d = q->d;
    if (may_retry(q, r)) {
        q->retried = true;
        directory_count(d, COUNT_RETRIED);
        d->backend->ops->ask(d->backend, bq);
        return;
    }
    uint64_t hash = q->node.hash, now = clock_mono_ms();
    struct directory_shard *s = &d->shards[hash >> 60];
    struct buf why;
    buf_init(&why, 4 * WHY_MAX);
    struct directory_answer a = answer_of(d, r, &why), old;
    if (r->err != ERR_FULL) /* the queue was full: says nothing of the backend */
        directory_breaker_report(&d->breaker, d->config.name, now, q->probe, r->err == ERR_OK, a.why);
    else if (q->probe)
        directory_breaker_forget(&d->breaker);
    count_reply(d, r, a.status);
    directory_count_time(clock_mono_us() - q->started_us);
    pthread_mutex_lock(&s->lock);
    map_remove(&s->open, &q->node);
    if (a.status != DIRECTORY_TEMPFAIL) {
        directory_cache_put(&s->cache, hash, bq->key, bq->domain, &a, now);
    } else if (directory_cache_get(&s->cache, hash, bq->key, bq->domain, now, true, &old)) {
        old.why = a.why; /* what the backend has to say now matters more */
        a = old;
        directory_count(d, COUNT_STALE);
    }
    struct directory_result *result = list_is_empty(&q->waits) ? NULL : result_new(&a);
    post_all(q, result);
    pthread_mutex_unlock(&s->lock);
    result_unref(result);
    buf_deinit(&why);
    free(q);
    directory_count_open(false);
    directory_leave(d);
}

/* -- who waited long enough -- */

static void expire_shard(struct directory *d, struct directory_shard *s, uint64_t now) {
    pthread_mutex_lock(&s->lock);
    for (struct map_node *n = map_next(&s->open, NULL); n; n = map_next(&s->open, n)) {
        struct directory_question *q = CONTAINER_OF(n, struct directory_question, node);
        struct directory_answer a;
        if (list_is_empty(&q->waits) || now < q->q.deadline_ms + GRACE_MS)
            continue;
        if (directory_cache_get(&s->cache, n->hash, q->q.key, q->q.domain, now, true, &a))
            directory_count(d, COUNT_STALE);
        else
            a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL};
        a.why = SPAN("no answer in time");
        directory_count(d, COUNT_OVERDUE);
        struct directory_result *r = result_new(&a);
        post_all(q, r);
        result_unref(r);
    }
    pthread_mutex_unlock(&s->lock);
}

static void *watch(void *arg) {
    struct directory *d = arg;
    pthread_mutex_lock(&d->lock);
    while (!d->ending) {
        d->sleeping = atomic_load(&d->open) == 0;
        if (d->sleeping) {
            pthread_cond_wait(&d->busy, &d->lock);
            continue;
        }
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_nsec += GRACE_MS * 1000000l;
        at.tv_sec += at.tv_nsec / 1000000000l;
        at.tv_nsec %= 1000000000l;
        if (pthread_cond_timedwait(&d->busy, &d->lock, &at) != ETIMEDOUT)
            continue; /* began, or ends */
        pthread_mutex_unlock(&d->lock);
        for (size_t i = 0; i < DIRECTORY_SHARDS; i++)
            expire_shard(d, &d->shards[i], clock_mono_ms());
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

void directory_wake_watcher(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    if (!d->watched && pthread_create(&d->watcher, NULL, watch, d) == 0)
        d->watched = true;
    else if (d->sleeping)
        pthread_cond_signal(&d->busy);
    pthread_mutex_unlock(&d->lock);
}

void directory_end_watcher(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    d->ending = true;
    pthread_cond_signal(&d->busy);
    pthread_mutex_unlock(&d->lock);
    if (d->watched)
        pthread_join(d->watcher, NULL);
}
