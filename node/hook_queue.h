/*
 * hook_queue: from the log to the thread that feeds the hooks. It listens to the log (log_set_tap), takes the events
 * that some hook wants as lines of JSON, and keeps at most HOOK_QUEUE_BYTES of them. What comes when it is full is
 * dropped, and counted for each hook that wanted it. Whoever logs waits for nothing but a lock that is held for a copy.
 *
 * One for the process, as the log is. Most events are told apart by one bit of a table, without a lock.
 */
#ifndef NODE_HOOK_QUEUE_H
#define NODE_HOOK_QUEUE_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/log.h"

#define HOOK_QUEUE_BYTES (4u * 1024u * 1024u)

/* What a hook wants. */
struct hook_wish {
    const char *const *events; /* names; "*" is all from level info on */
    size_t event_count;
    struct metric *dropped; /* stays for good */
};
bool hook_wants(const struct hook_wish *w, struct span event);

/* Begins to listen. wake(arg) comes from any thread when there is something to take, merged. */
void hook_queue_open(void (*wake)(void *arg), void *arg);
/* What is wanted from now on; copied. ERR_NOMEM: as before. */
int hook_queue_want(const struct hook_wish *wishes, size_t count) MUST_CHECK;
/* All lines since the last time, for hook_queue_next; what `lines` held is gone. */
void hook_queue_take(struct buf *lines);
/* The next event and its line, without its end; false: none is left. Valid until the buffer is changed. */
bool hook_queue_next(struct buf *lines, struct span *event, struct span *line);
/* Nobody listens any more, and wake is not called again. What was not taken stays to be taken. */
void hook_queue_close(void);

#endif
