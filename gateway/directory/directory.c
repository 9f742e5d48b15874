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
 * The last reference of a directory with open questions is closed by a thread of its own, since closing joins the
 * backend's threads, and those may be waiting for a dead server; no loop waits for that.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"

#include "gateway/directory/directory_inner.h"

/* -- questions -- */

struct question_key {
    struct span key, domain;
};

static bool question_match(const struct map_node *n, const void *key) {
    const struct directory_question *q = CONTAINER_OF(n, struct directory_question, node);
    const struct question_key *k = key;
    return span_eq(q->q.key, k->key) && span_eq(q->q.domain, k->domain);
}

static struct directory_question *question_new(struct directory *d, struct span key, struct span domain) {
    struct directory_question *q = calloc(1, sizeof *q + key.len + domain.len + 2);
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

/* Whether a question may be put now; *why when not. Counts it as open. */
static bool admit(struct directory *d, bool *probe, const char **why) {
    if (atomic_fetch_add(&d->open, 1) >= d->config.waiting)
        *why = "too many questions are waiting for the directory";
    else if (!directory_breaker_admits(&d->breaker, clock_mono_ms(), probe))
        *why = "the directory failed and is left alone for a while";
    else
        return true;
    directory_leave(d);
    return false;
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
static int find_or_wait(struct directory *d, struct directory_shard *s, struct directory_question *fresh, uint64_t hash,
                        struct directory_wait *w, struct directory_answer *a, struct directory_question **put) {
    struct question_key k = {fresh->q.key, fresh->q.domain};
    const char *why = NULL;
    struct map_node *same = map_find(&s->open, hash, question_match, &k);
    if (same) {
        w->question = CONTAINER_OF(same, struct directory_question, node);
        list_push_back(&w->question->waits, &w->node);
        directory_count(d, COUNT_MERGED);
        return ERR_AGAIN;
    }
    if (admit(d, &fresh->probe, &why)) {
        if (map_insert(&s->open, &fresh->node, hash) == ERR_OK) {
            directory_count_open(true);
            w->question = *put = fresh;
            list_push_back(&fresh->waits, &w->node);
            return ERR_AGAIN;
        }
        if (fresh->probe)
            directory_breaker_forget(&d->breaker);
        directory_leave(d);
        return ERR_NOMEM;
    }
    directory_count(d, COUNT_REFUSED);
    if (directory_cache_get(&s->cache, hash, k.key, k.domain, clock_mono_ms(), true, a))
        directory_count(d, COUNT_STALE);
    else
        *a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL};
    a->why = span_of(why);
    return ERR_OK;
}

static bool find_cached(struct directory *d, struct directory_shard *s, uint64_t hash, struct question_key k,
                        struct arena *mem, struct directory_answer *a, int *err) {
    pthread_mutex_lock(&s->lock);
    bool found = directory_cache_get(&s->cache, hash, k.key, k.domain, clock_mono_ms(), false, a);
    if (found)
        *err = copy_answer(a, mem);
    pthread_mutex_unlock(&s->lock);
    if (found)
        directory_count(d, COUNT_CACHED);
    return found;
}

int directory_find(struct directory *d, struct post *home, struct span key, struct span domain, struct arena *mem,
                   struct directory_answer *a, struct directory_wait **wait, directory_cb cb, void *arg) {
    uint64_t hash = hash_of(key, domain);
    struct directory_shard *s = &d->shards[hash >> 60];
    struct directory_question *put = NULL;
    int err = ERR_NOMEM;
    *wait = NULL;
    if (find_cached(d, s, hash, (struct question_key){key, domain}, mem, a, &err))
        return err;
    *a = (struct directory_answer){.status = DIRECTORY_TEMPFAIL};
    struct directory_question *fresh = question_new(d, key, domain);
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
        directory_wake_watcher(d);
        d->backend->ops->ask(d->backend, &put->q);
    }
    return ERR_AGAIN;
}

void directory_cancel(struct directory_wait *w) {
    if (!w)
        return;
    struct directory_shard *s = w->shard; /* there while somebody may cancel: he holds the directory */
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
    directory_end_watcher(d);
    for (size_t i = 0; i < DIRECTORY_SHARDS; i++) {
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
    for (size_t i = 0; i < DIRECTORY_SHARDS; i++) {
        CHECK(pthread_mutex_init(&d->shards[i].lock, NULL) == 0);
        map_init(&d->shards[i].open);
        directory_cache_init(&d->shards[i].cache, &d->config, 1 + d->config.cache_entries / DIRECTORY_SHARDS);
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
