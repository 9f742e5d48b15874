/*
 * ring: the newest lines of what happens in this process, kept in memory for those who watch it live: the events
 * of the log, and dialogues with clients. Like the metrics it is one for the process, in static memory.
 *
 * Nobody watches: a feeder pays one relaxed atomic load (ring_is_on). Somebody asks (ring_read): it is on, and stays so
 * while asked at least every 10 seconds. Each kind keeps at most RING_LINES lines and RING_BYTES octets, the newest;
 * what a reader was too slow for is counted. Lines are numbered from 1 on, each kind by itself.
 *
 * Feeders blank secrets and escape hostile octets: what is added is shown as it is.
 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

enum ring_kind {
    RING_EVENTS,  /* the lines of the log from level info on, whatever the log itself shows */
    RING_SMTP_IN,  /* what clients say and hear */
    RING_SMTP_OUT, /* what servers hear and say */
    RING_KINDS
};
#define RING_LINES 4096u
#define RING_BYTES (2u * 1024u * 1024u)
#define RING_LINE_MAX 4096u /* octets of a line; the rest is cut */

/* From any thread. */
bool ring_is_on(enum ring_kind kind);
/* A line without its end; dropped when it is not on. From any thread, never waits for a reader's work. */
void ring_add(enum ring_kind kind, struct span line);

struct ring_line {
    uint64_t number;
    struct span text;
};
struct ring_reading {
    size_t count;    /* lines given */
    uint64_t last;   /* number of the last line looked at: where to go on */
    uint64_t missed; /* lines behind `after` that were overwritten, matching or not */
    bool more;       /* stopped since to is full */
};
/* Keeps it on, and gives the lines behind number `after` that hold all words of the filter (in any case), copied to
 * mem: at most max lines. after over the last number (another process had it): from the oldest. ERR_NOMEM: mem is full;
 * *r holds for what was given. */
int ring_read(enum ring_kind kind, uint64_t after, struct span filter, struct ring_line *to, size_t max,
              struct arena *mem, struct ring_reading *r) MUST_CHECK;
/* Keeps it on; the number of its newest line, 0 when there was none. */
uint64_t ring_newest(enum ring_kind kind);
/* Does the line hold all words of the filter, in any case? */
bool ring_matches(struct span line, struct span filter);

#endif
