/*
 * commit: the one thread that writes. Batches from all shards of a node are queued here, gathered
 * while the last sync runs (by bytes and count), written with one sync, and completed in order.
 *
 * When a write fails the store is reopened, and a repair is written: what must be kept (`keep`) once more, and the
 * `undo` of each submission (`refusable`) of that write; so nothing that was refused is ever found later. Only then are
 * those requests completed. While the store cannot be opened all requests wait: callers ask commit_is_healthy and
 * refuse new submissions at once.
 *
 * Before a write with submissions the store is asked for room. Without room they are refused and the rest is written.
 */
#ifndef STORE_COMMIT_H
#define STORE_COMMIT_H

#include "store/store.h"

struct commit;
/* One request. The memory belongs to the caller until done is called (on the commit thread). Two parts are
 * written together in one atomic batch: keep (settlements, states: must be written sooner or later) and
 * refusable (new submissions); undo removes what refusable wrote. Each may be NULL. */
struct commit_request {
    struct store_batch *keep, *refusable, *undo;
    /* On the commit thread, in the order of submission: ERR_OK when all is on disk; ERR_NO_SPACE, ERR_IO, ERR_NOMEM,
     * ERR_CORRUPT: keep is on disk and refusable is certainly not. ERR_CANCELED: the process ends while the store
     * does not take writes: nothing is certain, and nothing may be acknowledged. */
    void (*done)(struct commit_request *r, int result);
    void *arg;
    struct commit_request *next; /* of the queue */
    int result;                  /* the commit thread's own */
};

/* gather_bytes and gather_count bound one write (about 1 MiB, 64 requests). */
int commit_new(struct commit **c, struct store *s, size_t gather_bytes, size_t gather_count) MUST_CHECK;
/* From any thread. Never blocks; the queue is bounded by the callers' own credit. A refusable batch for which memory
 * ran out is refused; a keep or undo batch must be whole (CHECK: then only a new start from the store helps). */
void commit_submit(struct commit *c, struct commit_request *r);
/* False while the store waits to be reopened after a failed write: new submissions are better refused at once. */
bool commit_is_healthy(const struct commit *c);
/* The process is about to end: from now on a write that fails is not repaired but canceled (as all that wait for the
 * repair that is under way). From any thread. */
void commit_stop_repair(struct commit *c);
/* Writes what is queued, stops the thread. Requests that cannot be written are completed with their error. */
void commit_free(struct commit *c);

#endif
