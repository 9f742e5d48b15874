/*
 * walks: work that reads long stretches of the store for operators, on threads of its own: the helper threads belong to
 * delivery. Such a thread gives way to all others (a lower priority); only a few run at once.
 */
#ifndef SCHEDULER_WALKS_H
#define SCHEDULER_WALKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/net/loop.h"

#define WALKS_MAX 4u

struct walks;
struct walks *walks_new(struct loop *l) MUST_CHECK; /* NULL: no memory */
/* None may be under way. */
void walks_free(struct walks *w);
/* Runs work(arg) on a thread, then done(arg) on the loop. ERR_AGAIN: WALKS_MAX run already (not so for a walk of the
 * house, which is one more); ERR_NOMEM. */
int walks_start(struct walks *w, bool house, void (*work)(void *arg), void (*done)(void *arg), void *arg) MUST_CHECK;
uint32_t walks_count(const struct walks *w); /* under way, those of the house included */
/* The walks are to end soon. From the loop's thread. */
void walks_stop(struct walks *w);
/* Asked by work, from its thread, now and then: true after walks_stop. */
bool walks_is_stopped(const struct walks *w);

#endif
