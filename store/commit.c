/*
 * commit: see commit.h. One thread, one queue, one sync for all that wait. While a sync runs the next
 * write gathers by itself: the queue fills.
 *
 * A failed write leaves open what is on disk. So the store is opened again, and a repair is written: what must be kept
 * once more (all operations are absolute), and the undo of every submission of that write. Only then is each
 * request told; so a client that hears 451 can be sure that its message is not delivered later.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/backend.h"
#include "store/commit.h"
#include "store/repeat.h"

/* Under load the next write begins at the earliest so long after the last one began, so that more share a sync. */
#define LINGER_US 1500u
#define LINGER_OPS 24u /* operations of the last write from which on there is load */
#define PAUSE_FIRST_MS 100u
#define PAUSE_MAX_MS 5000u

METRIC_COUNTER(metric_syncs, "posthouse_store_syncs_total", "Synced writes to the store")
METRIC_COUNTER(metric_failures, "posthouse_store_write_failures_total", "Writes to the store that failed")
METRIC_COUNTER(metric_bytes, "posthouse_store_written_bytes_total", "Bytes of keys and values given to the store")
METRIC_HISTOGRAM(metric_time, "posthouse_commit_seconds", "Time of one synced write to the store")

struct commit {
    struct store *store;
    size_t gather_bytes, gather_count;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct commit_request *first, *last; /* queue, under lock */
    bool stopping;                       /* under lock */
    bool waiting;                        /* the thread sleeps, under lock */
    atomic_bool healthy;
    atomic_bool gives_up; /* a write that fails is not repaired any more */
    bool over;            /* one was not: nothing is written behind the gap */
    uint64_t pause_ms;
    const struct store_batch **parts; /* of the write under way: two for each request at most */
    size_t part_count;
    struct store_batch *repair, *rest; /* what a repair writes, and what of it is still to be done */
    uint64_t write_began_us;           /* the last write */
    size_t write_ops;
};

static size_t request_bytes(const struct commit_request *r) {
    return (r->keep ? store_batch_bytes(r->keep) : 0) + (r->refusable ? store_batch_bytes(r->refusable) : 0);
}

/* Takes what is written together: at least one request. NULL: stop. */
static struct commit_request *gather(struct commit *c) {
    size_t bytes = 0, count = 0;
    pthread_mutex_lock(&c->lock);
    while (!c->first && !c->stopping) {
        c->waiting = true;
        pthread_cond_wait(&c->wake, &c->lock);
        c->waiting = false;
    }
    struct commit_request *head = c->first, *end = head;
    for (; end; end = end->next) {
        bytes += request_bytes(end);
        if (++count >= c->gather_count || bytes >= c->gather_bytes || !end->next)
            break;
    }
    if (end) {
        c->first = end->next;
        end->next = NULL;
        if (!c->first)
            c->last = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    return head;
}

static void linger(const struct commit *c) {
    uint64_t now_us = clock_mono_us(), until_us = c->write_began_us + LINGER_US;
    if (c->write_ops < LINGER_OPS || now_us >= until_us)
        return;
    struct timespec wait = {.tv_nsec = (long)(until_us - now_us) * 1000};
    nanosleep(&wait, NULL);
}

static bool is_empty(const struct store_batch *b) {
    return !b || store_batch_count(b) == 0;
}

static void complete(struct commit_request *head) {
    for (struct commit_request *r = head, *next; r; r = next) {
        next = r->next;
        r->next = NULL;
        r->done(r, r->result);
    }
}

static void add_part(struct commit *c, const struct store_batch *b) {
    if (!is_empty(b))
        c->parts[c->part_count++] = b;
}

/* Whether the submissions of this request are part of the write. */
static bool was_tried(const struct commit_request *r) {
    return !is_empty(r->refusable) && r->result == ERR_OK;
}

/* Writes the parts with one sync. */
static int write_parts(struct commit *c) {
    size_t bytes = 0;
    c->write_ops = 0;
    for (size_t i = 0; i < c->part_count; i++) {
        bytes += store_batch_bytes(c->parts[i]);
        c->write_ops += store_batch_count(c->parts[i]);
    }
    if (c->part_count == 0)
        return ERR_OK;
    uint64_t start_us = c->write_began_us = clock_mono_us();
    int err = store_write_all(c->store, c->parts, c->part_count, true);
    if (err != ERR_OK) {
        metric_add(&metric_failures, 1);
        return err;
    }
    metric_add(&metric_syncs, 1);
    metric_add(&metric_bytes, bytes);
    metric_observe(&metric_time, clock_mono_us() - start_us);
    return ERR_OK;
}

static bool is_stopping(struct commit *c) {
    pthread_mutex_lock(&c->lock);
    bool stopping = c->stopping;
    pthread_mutex_unlock(&c->lock);
    return stopping;
}

static void pause(struct commit *c) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(c->pause_ms / 1000);
    until.tv_nsec += (long)(c->pause_ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&c->lock);
    if (!c->stopping && !atomic_load(&c->gives_up))
        pthread_cond_timedwait(&c->wake, &c->lock, &until);
    pthread_mutex_unlock(&c->lock);
    c->pause_ms = c->pause_ms * 2 < PAUSE_MAX_MS ? c->pause_ms * 2 : PAUSE_MAX_MS;
}

static void set_health(struct commit *c, bool healthy, int err) {
    if (atomic_exchange(&c->healthy, healthy) == healthy)
        return;
    if (healthy)
        LOG_INFO("store_recovered", LOG_STR("effect", "mail is accepted again"));
    else
        LOG_ERROR("store_not_writable", LOG_ERR("why", err), LOG_STR("effect", "mail is answered 451 or 452"));
}

/* Writes what must be kept and the undo of what was tried, without what is there already. */
static int write_repair(struct commit *c, const struct commit_request *head) {
    store_batch_clear(c->repair);
    store_batch_clear(c->rest);
    for (const struct commit_request *r = head; r; r = r->next) {
        if (!is_empty(r->keep))
            store_batch_add(c->repair, r->keep);
        if (was_tried(r) && !is_empty(r->undo))
            store_batch_add(c->repair, r->undo);
    }
    int err = repeat_batch(c->store, c->repair, c->rest);
    c->part_count = 0;
    add_part(c, c->rest);
    return err == ERR_OK ? write_parts(c) : err;
}

/* Opens the store again and writes the repair of these requests. Tries until it holds, or the process stops. */
static int repair(struct commit *c, struct commit_request *head, int why) {
    set_health(c, false, why);
    c->pause_ms = PAUSE_FIRST_MS;
    for (;;) {
        struct store_report report;
        int err = store_reopen(c->store, &report);
        if (err == ERR_OK)
            err = write_repair(c, head);
        else
            LOG_ERROR("store_not_reopened", LOG_ERR("why", err), LOG_STR("damage", report.damage));
        if (err == ERR_OK)
            return ERR_OK;
        if (is_stopping(c) || atomic_load(&c->gives_up))
            return err;
        pause(c);
    }
}

static bool has_refusable(const struct commit_request *head) {
    for (const struct commit_request *r = head; r; r = r->next)
        if (!is_empty(r->refusable))
            return true;
    return false;
}

/* Refuses submissions that need not be tried. */
static void judge(struct commit *c, struct commit_request *head) {
    size_t bytes = 0;
    for (const struct commit_request *r = head; r; r = r->next)
        bytes += request_bytes(r);
    bool room = !has_refusable(head) || store_has_room(c->store, bytes);
    if (!room)
        LOG_WARN("store_full", LOG_STR("effect", "new mail is answered 452"));
    for (struct commit_request *r = head; r; r = r->next) {
        r->result = ERR_OK;
        if (r->refusable && store_batch_error(r->refusable) != ERR_OK)
            r->result = ERR_NOMEM;
        else if (!room && !is_empty(r->refusable))
            r->result = ERR_NO_SPACE;
    }
}

static void cancel(struct commit_request *head) {
    for (struct commit_request *r = head; r; r = r->next)
        r->result = ERR_CANCELED;
    complete(head);
}

static void commit_all(struct commit *c, struct commit_request *head) {
    if (c->over) {
        cancel(head);
        return;
    }
    judge(c, head);
    c->part_count = 0;
    for (const struct commit_request *r = head; r; r = r->next) {
        if (was_tried(r)) /* first: what is kept may change what the same step, or an earlier one, has brought */
            add_part(c, r->refusable);
        add_part(c, r->keep);
    }
    int err = write_parts(c);
    bool certain = err == ERR_OK || repair(c, head, err) == ERR_OK;
    for (struct commit_request *r = head; r && err != ERR_OK; r = r->next)
        r->result = !certain ? ERR_CANCELED : was_tried(r) ? err : r->result;
    c->over = !certain;
    if (!certain)
        LOG_ERROR("store_writes_lost",
                  LOG_STR("effect", "the process ends before they were written; none was acknowledged"));
    else if (err != ERR_OK)
        set_health(c, true, ERR_OK);
    complete(head);
}

static void *run(void *arg) {
    struct commit *c = arg;
    for (struct commit_request *head; (head = gather(c)); linger(c))
        commit_all(c, head);
    return NULL;
}

static void commit_deinit(struct commit *c) {
    store_batch_free(c->repair);
    store_batch_free(c->rest);
    free(c->parts);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
    free(c);
}

int commit_new(struct commit **out, struct store *s, size_t gather_bytes, size_t gather_count) {
    struct commit *c = calloc(1, sizeof *c);
    CHECK(gather_count > 0);
    if (!c)
        return ERR_NOMEM;
    c->store = s;
    c->gather_bytes = gather_bytes;
    c->gather_count = gather_count;
    c->repair = store_batch_new();
    c->rest = store_batch_new();
    c->parts = calloc(2 * gather_count, sizeof *c->parts);
    atomic_init(&c->healthy, true);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
    if (!c->repair || !c->rest || !c->parts || pthread_create(&c->thread, NULL, run, c) != 0) {
        commit_deinit(c);
        return ERR_NOMEM;
    }
    pthread_setname_np(c->thread, "commit");
    *out = c;
    return ERR_OK;
}

void commit_submit(struct commit *c, struct commit_request *r) {
    CHECK(!r->keep || store_batch_error(r->keep) == ERR_OK);
    CHECK(!r->undo || store_batch_error(r->undo) == ERR_OK);
    r->next = NULL;
    pthread_mutex_lock(&c->lock);
    if (c->last)
        c->last->next = r;
    else
        c->first = r;
    c->last = r;
    bool wake = c->waiting;
    pthread_mutex_unlock(&c->lock);
    if (wake)
        pthread_cond_signal(&c->wake);
}

void commit_stop_repair(struct commit *c) {
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->gives_up, true);
    pthread_mutex_unlock(&c->lock);
    pthread_cond_signal(&c->wake);
}

bool commit_is_healthy(const struct commit *c) {
    return atomic_load(&c->healthy);
}

void commit_free(struct commit *c) {
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_mutex_unlock(&c->lock);
    pthread_cond_signal(&c->wake);
    pthread_join(c->thread, NULL);
    commit_deinit(c);
}
