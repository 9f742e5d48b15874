/*
 * commit: the one thread that writes. Batches from all shards of a node are queued here, gathered
 * while the last sync runs (by bytes and count), written with one sync, and completed in order.
 *
 * When a write fails the store is reopened and what must be kept is written again: all operations
 * marked COMMIT_KEEP; batches marked COMMIT_REFUSABLE (submissions) are undone by their `undo` batch
 * and completed with the error, so that nothing that was refused is ever found later. While the
 * store cannot be opened, refusable batches fail at once with ERR_IO or ERR_NO_SPACE and the others wait.
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
    /* On the commit thread: result is ERR_OK when all is on disk; else keep is on disk and refusable is certainly not
     * (ERR_NO_SPACE, ERR_IO, ERR_NOMEM). */
    void (*done)(struct commit_request *r, int result);
    void *arg;
    struct commit_request *next; /* of the queue */
};

/* gather_bytes and gather_count bound one write (about 1 MiB, 64 requests). */
int commit_new(struct commit **c, struct store *s, size_t gather_bytes, size_t gather_count) MUST_CHECK;
/* From any thread. Never blocks; the queue is bounded by the callers' own credit. */
void commit_submit(struct commit *c, struct commit_request *r);
/* False while the store waits to be reopened after a failed write: new submissions are better refused at once. */
bool commit_is_healthy(const struct commit *c);
/* Writes what is queued, stops the thread. Requests that cannot be written are completed with their error. */
void commit_free(struct commit *c);

#endif
