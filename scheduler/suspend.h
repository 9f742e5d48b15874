/*
 * suspend: an operator's suspensions of domains and sites, of the whole node: kept in the store, in force in every
 * shard's core, and known here with who asked for them and why. Private to scheduler/.
 */
#ifndef SCHEDULER_SUSPEND_H
#define SCHEDULER_SUSPEND_H

#include "scheduler/shell.h"

struct suspended {
    struct map_node by_name;
    struct list_node link; /* sc->suspended, oldest first */
    uint32_t scope;        /* enum sched_suspension_scope */
    uint64_t serial;       /* for paging */
    uint64_t at_ms, until_ms;
    char *name, *actor, *reason;
};

/* Reads them from the store, before anything is assigned. */
int suspend_open(struct scheduler *sc) MUST_CHECK;
void suspend_close(struct scheduler *sc);
/* Suspend, resume, and the list of suspensions. */
void suspend_on_request(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
/* Ends those whose time has come. */
void suspend_tick(struct scheduler *sc, uint64_t now_ms);
/* NULL: not there. */
const struct suspended *suspend_find(const struct scheduler *sc, uint32_t scope, struct span name);
/* What stops a destination (in lower case) in this shard, as its core does it; or NULL. */
const struct suspended *suspend_in(struct scheduler *sc, struct span destination, struct shard *s);

#endif
