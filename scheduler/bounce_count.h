/*
 * bounce_count: what failures and deferrals are about (proto/bounce.h), counted as they are traced, once for each
 * recipient.
 */
#ifndef SCHEDULER_BOUNCE_COUNT_H
#define SCHEDULER_BOUNCE_COUNT_H

#include "scheduler/core/sched.h"

/* Looks at a SCHED_TRACE action; other kinds than failed, given up and deferred count nothing. */
void bounce_count(const struct sched_action *trace);

#endif
