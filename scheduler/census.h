/*
 * census: the count of the whole queue by destination and age, for `queue summary` and `queue shape` without a filter
 * and for the gauges of the queue. It is taken by walking over the store (store/queue_walk.h), as nothing that is kept
 * beside the queue could contradict it; a short queue is counted every few seconds, a long one seldom, so that counting
 * takes a small part of one processor. Those who ask share one walk, and its result while it is fresh.
 */
#ifndef SCHEDULER_CENSUS_H
#define SCHEDULER_CENSUS_H

#include "base/list.h"
#include "scheduler/tally.h"

struct scheduler;
struct census;

struct census_shard {
    uint64_t ready, deferred, held;
};
struct census_result {       /* borrowed: valid until the loop's next turn */
    const struct tally *all; /* sorted */
    const struct census_shard *shards;
};
struct census_waiter { /* the caller's memory, until then is called */
    struct list_node link;
    /* On the loop. err other than ERR_OK: no result. */
    void (*then)(struct census_waiter *w, int err, const struct census_result *r);
};

struct census *census_new(struct scheduler *sc) MUST_CHECK; /* NULL: no memory */
/* Nobody may wait any more. */
void census_free(struct census *c);
/* The last result; false: there is none yet. */
bool census_last(const struct census *c, struct census_result *r);
/* The same as long as it is fresh. */
bool census_fresh(const struct census *c, struct census_result *r);
/* Waits for the next one. ERR_NOMEM: w is not taken. */
int census_wait(struct census *c, struct census_waiter *w) MUST_CHECK;
/* Once a tick: takes it anew when it is time, and sets the gauges. */
void census_poll(struct census *c);

#endif
