/*
 * directory: the engine in front of a slow backend.
 *
 * A question is looked up in the cache (directory_cache.h), joined to an equal one under way, or put to the backend
 * when the breaker (directory_breaker.h) and the bound of open questions let it. Questions under way lie in shards by
 * the hash of what they ask, each with the waits of those who asked.
 *
 * A wait is either linked to its question or posted to its home loop; both change under the shard's lock, and a letter
 * is sent under that lock. So a cancel, which runs on the home loop as the opening of letters does, either takes
 * the wait off its question or knows that the letter will be opened later and marks it.
 *
 * A backend answers within the deadline of a question, but for what it cannot help, such as the system's resolver. So a
 * thread of the directory, started with the first question, looks over the open ones and answers those who waited long
 * enough; the question stays open until the backend is done with it.
 *
 * The last reference of a directory with open questions is closed by a thread of its own, since closing joins the
 * backend's threads, and those may be waiting for a dead server; no loop waits for that.
 */
#include "gateway/directory/directory.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metrics.h"

#include "gateway/directory/backend.h"
#include "gateway/directory/directory_breaker.h"
#include "gateway/directory/directory_cache.h"
#include "gateway/directory/directory_config.h"

enum {
    SHARDS = 16 /* by the upper four bits of a hash; maps take the lower ones */,
    WHY_MAX = 300,
    TARGETS_MAX = 512 * 1024,
    RETRY_MS_MIN = 20,
    GRACE_MS = 250 /* that a backend gets beyond a deadline, to give its own reason */
};

/* One for all waits of a question. */
struct result {
    atomic_uint refs;
    struct directory_answer answer; /* texts behind the struct */
};

struct question {
    struct backend_question q; /* the backend sees this */
    struct map_node node;      /* in the shard's open questions */
    struct directory *d;
    struct list waits;
    uint64_t started_us;
    bool retried, probe;
    char text[]; /* key@domain */
};

struct directory_wait {
    struct list_node node; /* in the question's waits, until it is posted */
    struct post_letter letter;
    struct post *home;
    struct shard *shard;       /* of the question */
    struct question *question; /* NULL once posted */
    struct result *result;     /* NULL: no memory for one */
    directory_cb cb;
    void *arg;
    bool canceled;
};

struct shard {
    pthread_mutex_t lock;
    struct map open; /* questions at the backend */
    struct directory_cache cache;
};

struct directory {
    atomic_uint refs;
    atomic_size_t open; /* questions at the backend */
    struct arena mem;
    struct directory_config config;
    struct backend *backend;
    struct directory_breaker breaker;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t idle;  /* nothing is open any more */
    pthread_cond_t busy;  /* something is open, or it ends */
    pthread_t watcher;
    bool watched, sleeping, ending;
    struct shard shards[SHARDS];
};

/* -- metrics: a series for each kind of directory, so that names do not make them grow -- */

#define BY_KIND(var, name, extra, help)                                                                                \
    METRIC_COUNTER_L(var##_ldap, name, "kind=\"ldap\"" extra, help)                                                    \
    METRIC_COUNTER_L(var##_postgres, name, "kind=\"postgres\"" extra, help)                                            \
    METRIC_COUNTER_L(var##_http, name, "kind=\"http\"" extra, help)                                                    \
    METRIC_COUNTER_L(var##_callout, name, "kind=\"callout\"" extra, help)                                              \
    static struct metric *const var[] = {&var##_ldap, &var##_postgres, &var##_http, &var##_callout};

BY_KIND(metric_cached, "posthouse_directory_answers_total", ",from=\"cache\"", "Answers of slow directories")
BY_KIND(metric_stale, "posthouse_directory_answers_total", ",from=\"stale\"", "Answers of slow directories")
BY_KIND(metric_found, "posthouse_directory_answers_total", ",from=\"backend\",result=\"found\"",
        "Answers of slow directories")
BY_KIND(metric_unknown, "posthouse_directory_answers_total", ",from=\"backend\",result=\"unknown\"",
        "Answers of slow directories")
BY_KIND(metric_tempfail, "posthouse_directory_answers_total", ",from=\"backend\",result=\"tempfail\"",
        "Answers of slow directories")
BY_KIND(metric_failed, "posthouse_directory_answers_total", ",from=\"backend\",result=\"failed\"",
        "Answers of slow directories")
BY_KIND(metric_merged, "posthouse_directory_merged_total", "", "Questions that joined an equal one under way")
BY_KIND(metric_refused, "posthouse_directory_refused_total", "", "Questions not put: backend at rest, or too many open")
BY_KIND(metric_retried, "posthouse_directory_retries_total", "", "Questions put a second time")
BY_KIND(metric_overdue, "posthouse_directory_overdue_total", "", "Questions given up while the backend went on")
METRIC_GAUGE(metric_open, "posthouse_directory_questions_open", "Questions that wait for a backend")
METRIC_HISTOGRAM(metric_time, "posthouse_directory_question_microseconds", "Time of a question, retry included")

static void count(struct directory *d, struct metric *const *of_kind) {
    metric_add(of_kind[d->config.kind], 1);
}

/* -- results -- */

/* An answer in one piece; why is cut to its size. NULL: no memory. */
static struct result *result_new(const struct directory_answer *a) {
    struct result *r = calloc(1, sizeof *r + a->targets.len + a->why.len);
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

static void result_unref(struct result *r) {
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
static void post_all(struct question *q, struct result *r) {
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

/* -- questions -- */

struct question_key {
    struct span key, domain;
};

static bool question_match(const struct map_node *n, const void *key) {
    const struct question *q = CONTAINER_OF(n, struct question, node);
    const struct question_key *k = key;
    return span_eq(q->q.key, k->key) && span_eq(q->q.domain, k->domain);
}

static struct question *question_new(struct directory *d, struct span key, struct span domain) {
    struct question *q = calloc(1, sizeof *q + key.len + domain.len + 2);
    if (!q)
        return NULL;
    q->d = d;
    list_init(&q->waits);
    if (key.len)
        memcpy(q->text, key.at, key.len);
    q->text[key.len] = '@';
    memcpy(q->text + key.len + 1, domain.at, domain.len);
    q->q.key = span_make(q->text, key.len);
    q->q.domain = span_make(q->text + key.len + 1, domain.len);
    q->q.address = span_make(q->text, key.len + 1 + domain.len);
    q->started_us = clock_mono_us();
    q->q.deadline_ms = q->started_us / 1000 + d->config.timeout_ms;
    return q;
}

static uint64_t hash_of(struct span key, struct span domain) {
    return hash_span(key, hash_span(domain, 0));
}

/* A question less is open. Nothing of d may be touched behind it. */
static void leave(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    if (atomic_fetch_sub(&d->open, 1) == 1)
        pthread_cond_broadcast(&d->idle);
    pthread_mutex_unlock(&d->lock);
}

/* Whether a question may be put now; *why when not. Counts it as open. */
static bool admit(struct directory *d, bool *probe, const char **why) {
    if (atomic_fetch_add(&d->open, 1) >= d->config.waiting)
        *why = "too many questions are waiting for the directory";
    else if (!directory_breaker_admits(&d->breaker, clock_mono_ms(), probe))
        *why = "the directory failed and is left alone for a while";
    else
        return true;
    leave(d);
    return false;
}

/* -- the backend's answer -- */

static bool may_retry(const struct question *q, const struct backend_reply *r) {
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
    count(d, r->err                        ? metric_failed
             : status == DIRECTORY_FOUND   ? metric_found
             : status == DIRECTORY_UNKNOWN ? metric_unknown
                                           : metric_tempfail);
}

void backend_answer(struct backend_question *bq, const struct backend_reply *r) {
    struct question *q = CONTAINER_OF(bq, struct question, q);
    struct directory *d = q->d;
    if (may_retry(q, r)) {
        q->retried = true;
        count(d, metric_retried);
        d->backend->ops->ask(d->backend, bq);
        return;
    }
    uint64_t hash = q->node.hash, now = clock_mono_ms();
    struct shard *s = &d->shards[hash >> 60];
    struct buf why;
    buf_init(&why, 4 * WHY_MAX);
    struct directory_answer a = answer_of(d, r, &why), old;
    if (r->err != ERR_FULL) /* the queue was full: says nothing of the backend */
        directory_breaker_report(&d->breaker, d->config.name, now, q->probe, r->err == ERR_OK, a.why);
    else if (q->probe)
        directory_breaker_forget(&d->breaker);
    count_reply(d, r, a.status);
    metric_observe(&metric_time, clock_mono_us() - q->started_us);
    pthread_mutex_lock(&s->lock);
    map_remove(&s->open, &q->node);
    if (a.status != DIRECTORY_TEMPFAIL) {
        directory_cache_put(&s->cache, hash, bq->key, bq->domain, &a, now);
    } else if (directory_cache_get(&s->cache, hash, bq->key, bq->domain, now, true, &old)) {
        old.why = a.why; /* what the backend has to say now matters more */
        a = old;
        count(d, metric_stale);
    }
    struct result *result = list_is_empty(&q->waits) ? NULL : result_new(&a);
    post_all(q, result);
    pthread_mutex_unlock(&s->lock);
    result_unref(result);
    buf_deinit(&why);
    free(q);
    metric_sub(&metric_open, 1);
    leave(d);
}

/* -- who waited long enough -- */

static void expire_shard(struct directory *d, struct shard *s, uint64_t now) {
    pthread_mutex_lock(&s->lock);
    for (struct map_node *n = map_next(&s->open, NULL); n; n = map_next(&s->open, n)) {
        struct question *q = CONTAINER_OF(n, struct question, node);
        struct directory_answer a;
        if (list_is_empty(&q->waits) || now < q->q.deadline_ms + GRACE_MS)
            continue;
        if (directory_cache_get(&s->cache, n->hash, q->q.key, q->q.domain, now, true, &a))
            count(d, metric_stale);
        else
            a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL};
        a.why = SPAN("no answer in time");
        count(d, metric_overdue);
        struct result *r = result_new(&a);
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
        for (size_t i = 0; i < SHARDS; i++)
            expire_shard(d, &d->shards[i], clock_mono_ms());
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* A question is open: the watcher looks. Without a thread for it the backend's own deadlines must do. */
static void wake_watcher(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    if (!d->watched && pthread_create(&d->watcher, NULL, watch, d) == 0)
        d->watched = true;
    else if (d->sleeping)
        pthread_cond_signal(&d->busy);
    pthread_mutex_unlock(&d->lock);
}

static void end_watcher(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    d->ending = true;
    pthread_cond_signal(&d->busy);
    pthread_mutex_unlock(&d->lock);
    if (d->watched)
        pthread_join(d->watcher, NULL);
}

/* -- asking -- */

static int copy_answer(struct directory_answer *a, struct arena *mem) {
    if (a->targets.len && !(a->targets = arena_dup(mem, a->targets)).at)
        return ERR_NOMEM;
    if (a->why.len && !(a->why = arena_dup(mem, a->why)).at)
        return ERR_NOMEM;
    return ERR_OK;
}

/* With the shard's lock. ERR_OK: *a is the answer, not yet copied. ERR_AGAIN: w waits; *put is to be asked, unless it
 * is NULL, because an equal one is under way. */
static int find_or_wait(struct directory *d, struct shard *s, struct question *fresh, uint64_t hash,
                        struct directory_wait *w, struct directory_answer *a, struct question **put) {
    struct question_key k = {fresh->q.key, fresh->q.domain};
    const char *why = NULL;
    struct map_node *same = map_find(&s->open, hash, question_match, &k);
    if (same) {
        w->question = CONTAINER_OF(same, struct question, node);
        list_push_back(&w->question->waits, &w->node);
        count(d, metric_merged);
        return ERR_AGAIN;
    }
    if (admit(d, &fresh->probe, &why)) {
        if (map_insert(&s->open, &fresh->node, hash) == ERR_OK) {
            metric_add(&metric_open, 1);
            w->question = *put = fresh;
            list_push_back(&fresh->waits, &w->node);
            return ERR_AGAIN;
        }
        if (fresh->probe)
            directory_breaker_forget(&d->breaker);
        leave(d);
        return ERR_NOMEM;
    }
    count(d, metric_refused);
    if (directory_cache_get(&s->cache, hash, k.key, k.domain, clock_mono_ms(), true, a))
        count(d, metric_stale);
    else
        *a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL};
    a->why = span_of(why);
    return ERR_OK;
}

static bool find_cached(struct directory *d, struct shard *s, uint64_t hash, struct question_key k, struct arena *mem,
                        struct directory_answer *a, int *err) {
    pthread_mutex_lock(&s->lock);
    bool found = directory_cache_get(&s->cache, hash, k.key, k.domain, clock_mono_ms(), false, a);
    if (found)
        *err = copy_answer(a, mem);
    pthread_mutex_unlock(&s->lock);
    if (found)
        count(d, metric_cached);
    return found;
}

int directory_find(struct directory *d, struct post *home, struct span key, struct span domain, struct arena *mem,
                   struct directory_answer *a, struct directory_wait **wait, directory_cb cb, void *arg) {
    uint64_t hash = hash_of(key, domain);
    struct shard *s = &d->shards[hash >> 60];
    struct question *put = NULL;
    int err = ERR_NOMEM;
    *wait = NULL;
    if (find_cached(d, s, hash, (struct question_key){key, domain}, mem, a, &err))
        return err;
    *a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL};
    struct question *fresh = question_new(d, key, domain);
    struct directory_wait *w = calloc(1, sizeof *w);
    if (fresh && w) {
        *w = (struct directory_wait){.home = home, .shard = s, .cb = cb, .arg = arg};
        pthread_mutex_lock(&s->lock);
        err = find_or_wait(d, s, fresh, hash, w, a, &put);
        if (!err)
            err = copy_answer(a, mem);
        pthread_mutex_unlock(&s->lock);
    }
    if (!put)
        free(fresh);
    if (err != ERR_AGAIN) {
        free(w);
        return err;
    }
    *wait = w;
    if (put) {
        wake_watcher(d);
        d->backend->ops->ask(d->backend, &put->q);
    }
    return ERR_AGAIN;
}

void directory_cancel(struct directory_wait *w) {
    if (!w)
        return;
    struct shard *s = w->shard; /* there while somebody may cancel: he holds the directory */
    pthread_mutex_lock(&s->lock);
    bool waiting = w->question != NULL;
    if (waiting)
        list_remove(&w->question->waits, &w->node);
    else
        w->canceled = true; /* its letter is on the way, and frees it */
    pthread_mutex_unlock(&s->lock);
    if (waiting)
        free(w);
}

/* -- making and closing -- */

static void release(struct directory *d) {
    if (d->backend)
        d->backend->ops->close(d->backend);
    end_watcher(d);
    for (size_t i = 0; i < SHARDS; i++) {
        CHECK(d->shards[i].open.count == 0);
        map_deinit(&d->shards[i].open);
        directory_cache_deinit(&d->shards[i].cache);
        pthread_mutex_destroy(&d->shards[i].lock);
    }
    directory_breaker_deinit(&d->breaker);
    pthread_cond_destroy(&d->idle);
    pthread_cond_destroy(&d->busy);
    pthread_mutex_destroy(&d->lock);
    arena_deinit(&d->mem);
    free(d);
}

static void init_locks(struct directory *d) {
    pthread_condattr_t monotonic;
    CHECK(pthread_mutex_init(&d->lock, NULL) == 0 && pthread_cond_init(&d->idle, NULL) == 0);
    CHECK(pthread_condattr_init(&monotonic) == 0 && pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&d->busy, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
}

int directory_new_with(struct directory **out, const struct directory_config *c, backend_maker make,
                       struct buf *problems) {
    struct directory *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return ERR_NOMEM;
    atomic_init(&d->refs, 1);
    atomic_init(&d->open, 0);
    arena_init(&d->mem, 1024, 0);
    int err = directory_config_copy(&d->config, c, &d->mem);
    if (!err)
        directory_config_default(&d->config);
    init_locks(d);
    directory_breaker_init(&d->breaker, d->config.breaker_failures, d->config.breaker_ms);
    for (size_t i = 0; i < SHARDS; i++) {
        CHECK(pthread_mutex_init(&d->shards[i].lock, NULL) == 0);
        map_init(&d->shards[i].open);
        directory_cache_init(&d->shards[i].cache, &d->config, 1 + d->config.cache_entries / SHARDS);
    }
    if (!err)
        err = make(&d->backend, &d->config, problems);
    if (err) {
        d->backend = NULL;
        release(d);
        return err;
    }
    *out = d;
    return ERR_OK;
}

struct directory *directory_ref(struct directory *d) {
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    return d;
}

static void wait_and_release(struct directory *d) {
    pthread_mutex_lock(&d->lock);
    while (atomic_load(&d->open) > 0)
        pthread_cond_wait(&d->idle, &d->lock);
    pthread_mutex_unlock(&d->lock);
    release(d);
}

/* How many directories are being closed by threads of their own: only the end of the process asks. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t done;
    size_t count;
} closing = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static void add_closing(size_t n) {
    pthread_mutex_lock(&closing.lock);
    closing.count += n;
    if (closing.count == 0)
        pthread_cond_broadcast(&closing.done);
    pthread_mutex_unlock(&closing.lock);
}

static void *close_later(void *arg) {
    wait_and_release(arg);
    add_closing((size_t)-1);
    return NULL;
}

void directory_settle(void) {
    pthread_mutex_lock(&closing.lock);
    while (closing.count > 0)
        pthread_cond_wait(&closing.done, &closing.lock);
    pthread_mutex_unlock(&closing.lock);
}

void directory_unref(struct directory *d) {
    pthread_t thread;
    if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (atomic_load(&d->open) == 0) {
        wait_and_release(d); /* waits for no backend: only for the last answer to leave the lock */
        return;
    }
    add_closing(1);
    if (pthread_create(&thread, NULL, close_later, d) == 0)
        pthread_detach(thread);
    else
        close_later(d);
}

const char *directory_name(const struct directory *d) {
    return d->config.name;
}

bool directory_has_catch_all(const struct directory *d) {
    return d->config.catch_all;
}

bool directory_fits(const struct directory *d, const struct directory_config *c) {
    struct directory_config other = *c;
    directory_config_default(&other);
    return directory_config_eq(&d->config, &other);
}
