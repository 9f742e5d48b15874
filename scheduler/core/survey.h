/*
 * survey: looking over a whole core for operators, without changing it: its sites, and what is under way. Names are
 * valid until the next step.
 */
#ifndef SCHEDULER_CORE_SURVEY_H
#define SCHEDULER_CORE_SURVEY_H

#include "scheduler/core/sched.h"

struct survey_site {
    struct span name; /* own: of the one destination whose site is not known */
    bool own;
    uint32_t ready;       /* recipients */
    uint32_t busy;        /* jobs under way */
    uint32_t concurrency; /* jobs allowed now */
    bool suspended;       /* it rests, or is probed after a rest, or an operator wants it so */
    uint64_t resume_ms;   /* 0: it does not rest, or until it is resumed */
};
/* Calls each for every site in memory that has work or is suspended. */
void survey_sites(const struct sched *s, void (*each)(void *arg, const struct survey_site *v), void *arg);
/* Calls each for every destination of the site of this name. */
void survey_destinations(const struct sched *s, struct span site, void (*each)(void *arg, struct span destination),
                         void *arg);
/* Calls each for every attempt under way: indexes of the recipients of a message. */
void survey_attempts(const struct sched *s,
                     void (*each)(void *arg, uint64_t message, const uint32_t *indexes, uint32_t count), void *arg);
uint64_t survey_epoch(const struct sched *s);

#endif
