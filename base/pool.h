/*
 * pool: threads for work that blocks (directories, password hashes, libraries that resolve names by themselves), with a
 * bounded queue. Each thread has a state of its own, such as a connection.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"

/* Lies in the caller's struct; borrowed until run has been called. */
struct pool_job {
    struct list_node node;
    void (*run)(struct pool_job *job, void *state); /* on a thread of the pool; may free the job */
};
struct pool_config {
    uint32_t threads;                      /* >= 1 */
    uint32_t waiting;                      /* jobs in the queue at most */
    void *(*open)(void *arg);              /* the state of a thread, made on it; may be NULL */
    void (*close)(void *state, void *arg); /* may be NULL */
    void *arg;
    const char *name; /* of the threads, at most 15 octets */
};
struct pool;
/* ERR_NOMEM. Threads start at the first job. */
int pool_new(struct pool **p, const struct pool_config *c) MUST_CHECK;
/* Any thread. ERR_FULL: the queue is full, the job was not taken; ERR_NOMEM: no thread. */
int pool_send(struct pool *p, struct pool_job *job) MUST_CHECK;
size_t pool_waiting(struct pool *p);
/* Runs what waits, joins, frees. Not on a thread of the pool. */
void pool_free(struct pool *p);

#endif
