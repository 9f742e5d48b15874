/*
 * watch: answers ADMIN_WATCH from the rings of this process (base/ring.h). A tool asks again and again, each time
 * with the number of the last line that it has seen; asking is what keeps the ring on.
 */
#ifndef ADMIN_WATCH_H
#define ADMIN_WATCH_H

#include "base/arena.h"
#include "base/err.h"
#include "proto/admin.pb-c.h"

#define WATCH_LINES_MAX 500u
#define WATCH_REPLY_MAX (1024u * 1024u) /* of mem: keeps the reply well under one frame */
#define WATCH_FILTER_MAX 1000u

/* Fills r, whose lines are in mem. Without a number: no lines, but where to go on. ERR_INVALID: no such ring, or too
 * long a filter; ERR_NOMEM. */
int watch_answer(const Words__AdminRequest *m, Words__AdminReply *r, struct arena *mem) MUST_CHECK;

#endif
