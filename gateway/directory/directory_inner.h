/*
 * directory_inner: the inside of a directory, shared by directory.c (asking, making, closing), directory_answer.c (what
 * comes back, or does not) and directory_count.c (metrics).
 *
 * Locks: a shard's before the directory's own and the breaker's; none is held while the backend is called.
 */
#ifndef GATEWAY_DIRECTORY_DIRECTORY_INNER_H
#define GATEWAY_DIRECTORY_DIRECTORY_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"

#include "gateway/directory/backend.h"
#include "gateway/directory/directory_breaker.h"
#include "gateway/directory/directory_cache.h"
#include "gateway/directory/directory_config.h"

#define DIRECTORY_SHARDS 16 /* by the upper four bits of a hash; maps take the lower ones */

/* One for all waits of a question. */
struct directory_result {
    atomic_uint refs;
    struct directory_answer answer; /* texts behind the struct */
};

struct directory_question {
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
    struct directory_shard *shard;       /* of the question */
    struct directory_question *question; /* NULL once posted */
    struct directory_result *result;     /* NULL: no memory for one */
    directory_cb cb;
    void *arg;
    bool canceled;
};

struct directory_shard {
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
    struct directory_shard shards[DIRECTORY_SHARDS];
};

/* directory_answer.c: a question less is open. Nothing of d may be touched behind it. */
void directory_leave(struct directory *d);
/* A question is open: the watcher looks. Without a thread for it the backend's own deadlines must do. */
void directory_wake_watcher(struct directory *d);
void directory_end_watcher(struct directory *d);

/* directory_count.c */
enum directory_event {
    COUNT_CACHED,
    COUNT_STALE,
    COUNT_FOUND,
    COUNT_UNKNOWN,
    COUNT_TEMPFAIL,
    COUNT_FAILED,
    COUNT_MERGED,
    COUNT_REFUSED,
    COUNT_RETRIED,
    COUNT_OVERDUE,
    COUNT_EVENTS
};
void directory_count(const struct directory *d, enum directory_event event);
void directory_count_open(bool more);
void directory_count_time(uint64_t us);

#endif
