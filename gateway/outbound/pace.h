/*
 * pace: how much may go where, and what must rest: a bounded table of notes by name, kept longer than the connections
 * that they are about: pauses, fewer connections, messages for each window, messages of today. Time is an argument.
 *
 * A rate is kept as one instant, the time at which its next message would be due if all went evenly (GCRA): never more
 * than `messages` in any window, a tenth of them at once.
 */
#ifndef GATEWAY_OUTBOUND_PACE_H
#define GATEWAY_OUTBOUND_PACE_H

#include <stdbool.h>

#include "base/map.h"
#include "base/rand.h"

#define PACE_ENTRIES_MAX 50000u
#define PACE_PROMISE_MAX_MS UINT64_C(3600000) /* nobody is told to come later than this for a rate */

struct pace_rate {
    uint32_t messages; /* over 0 */
    uint64_t window_ms;
};
struct pace_entry {
    struct map_node in_map;
    uint32_t refs;
    uint64_t pause_until_ms;
    uint64_t slow_until_ms;
    uint32_t slow_max;    /* connections, while slow */
    uint64_t due_us;      /* of the rate */
    uint64_t promised_us; /* to those that were sent away */
    uint32_t busy, held;  /* jobs with a connection; jobs that wait here for the rate */
    uint32_t day, today;  /* messages of that day */
    /* of an address of ours (health.h) */
    uint64_t rest_until_ms, well_ms;
    uint32_t failures, up;  /* in a row; connections with a session */
    uint32_t window, grown; /* connections, 0: as many as the site may have; successes since it last grew */
    bool away;              /* not this host's, and that was told */
    /* of a site */
    uint64_t vouched_by[2], vouched_ms[2], compare_after_ms;
    uint64_t keep_until_ms; /* for what it knows, unless there is no room */
    char key[];
};
struct pace {
    struct map entries;
};
void pace_init(struct pace *p);
/* All references are given back. */
void pace_deinit(struct pace *p);
/* Finds or makes it, with a reference. NULL: no memory, or the table is full of what is in force. */
struct pace_entry *pace_get(struct pace *p, const char *key, uint64_t now_ms, uint32_t day);
/* Only finds it; no reference. */
struct pace_entry *pace_find(const struct pace *p, const char *key);
void pace_put(struct pace_entry *e); /* NULL is fine */
/* Forgets what is not in force any more. */
void pace_sweep(struct pace *p, uint64_t now_ms, uint32_t day);

/* -- pauses; e may be NULL: none -- */
void pace_pause(struct pace_entry *e, uint64_t until_ms);
uint64_t pace_pause_left_ms(const struct pace_entry *e, uint64_t now_ms);
/* Most connections, of those that would be allowed. */
uint32_t pace_connections(const struct pace_entry *e, uint32_t allowed, uint64_t now_ms);

/* -- rates -- */
/* Until the next message may go, behind the `ahead` that wait already; 0: now. */
uint64_t pace_wait_ms(const struct pace_entry *e, const struct pace_rate *r, uint32_t ahead, uint64_t now_ms);
/* One goes, allowed or not: what was too much is paid by those that follow. */
void pace_take(struct pace_entry *e, const struct pace_rate *r, uint64_t now_ms);
/* For one that is sent away: when it should come again; each one a step later than the one before. */
uint64_t pace_promise_ms(struct pace_entry *e, const struct pace_rate *r, uint64_t now_ms, struct rand *rand);

/* -- days -- */
uint32_t pace_today(const struct pace_entry *e, uint32_t day);
void pace_count(struct pace_entry *e, uint32_t day);

#endif
