/*
 * tally: counts of recipients by destination: how many, in which state, how old. What `queue summary` and `queue shape`
 * show, and what the gauges of the queue are made of.
 *
 * Bounded: at most TALLY_NAMES_MAX destinations have a row of their own; the recipients of all others are counted
 * together in a row of the name "*". One thread at a time.
 */
#ifndef SCHEDULER_TALLY_H
#define SCHEDULER_TALLY_H

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"

#define TALLY_NAMES_MAX 100000u
#define TALLY_AGES 10u /* at most 5, 10, 20, 40, 80, 160, 320, 640, 1280 minutes, and older */
#define TALLY_OTHERS "*"
#define TALLY_HELD 7u /* number of the state in which an operator holds a recipient */

struct tally_row {
    struct map_node by_name;
    struct span name;
    uint64_t count, ready, deferred, held;
    uint64_t oldest_ms; /* received; UINT64_MAX: none */
    uint32_t ages[TALLY_AGES];
};
struct tally {
    struct arena mem;
    struct map by_name;
    struct tally_row **rows; /* in the order of their first recipient; sorted by tally_sort */
    uint32_t row_count, row_cap;
    struct tally_row others, total;
    uint64_t messages;
    uint64_t now_ms; /* ages count from it */
};

void tally_init(struct tally *t, uint64_t now_ms);
void tally_deinit(struct tally *t);
/* One recipient that is not settled. state: enum sched_state, or 7: held. ERR_NOMEM. */
int tally_add(struct tally *t, struct span destination, uint32_t state, uint64_t received_ms) MUST_CHECK;
/* Most recipients first; the others, if there are any, get a row too. ERR_NOMEM. */
int tally_sort(struct tally *t) MUST_CHECK;

#endif
