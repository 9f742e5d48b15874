/*
 * web_failures: the newest failed deliveries of this process, for the console: taken from the live events
 * (base/ring.h) while the HTTP face is on, as the fields that the log has. After a start it is empty; the history of
 * each message is in the store.
 */
#ifndef ADMIN_WEB_FAILURES_H
#define ADMIN_WEB_FAILURES_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/loop.h"

#define WEB_FAILURES_MAX 200u

struct web_failures {
    struct loop_timer *timer;
    struct { /* a kind of event, and how far it was read */
        uint64_t number;
    } cursors[2];
    char *lines[WEB_FAILURES_MAX]; /* a ring of those kept */
    size_t next, count;
    uint64_t missed;
};
int web_failures_init(struct web_failures *f, struct loop *l) MUST_CHECK; /* ERR_NOMEM */
void web_failures_deinit(struct web_failures *f);
/* As a JSON object, newest first. */
int web_failures_dump(struct web_failures *f, size_t max, struct buf *to) MUST_CHECK;
/* Appends one line of the events as a JSON object. */
int web_failure_line(struct span line, struct buf *to) MUST_CHECK;

#endif
