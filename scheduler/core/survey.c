/*
 * survey: see survey.h. It runs on the thread of the core, between two steps, and touches each site, or each attempt
 * under way, once: recipients in line are never walked over.
 */
#include "scheduler/core/survey.h"

#include "base/hash.h"
#include "scheduler/core/core.h"

/* What an operator has suspended: the whole site, or the one destination that it stands for. */
static const struct suspension *stop_of(const struct site *site) {
    const struct list_node *first = list_first(&site->dests);
    const struct suspension *stop = first ? LIST_ENTRY(first, const struct dest, of_site)->stop : NULL;
    return stop && (site->own || stop->scope == SCHED_SUSPEND_SITE) ? stop : NULL;
}

void survey_sites(const struct sched *s, void (*each)(void *arg, const struct survey_site *v), void *arg) {
    LIST_FOREACH(n, tmp, &s->all_sites) {
        const struct site *site = LIST_ENTRY(n, const struct site, all);
        const struct suspension *stop = stop_of(site);
        struct survey_site v = {
            .name = span_make(site->name, site->len),
            .own = site->own,
            .ready = site->ready,
            .busy = site->busy,
            .concurrency = site->failures ? 1 : site->concurrency,
            .suspended = site->failures > 0 || site->resume_ms > s->now,
            .resume_ms = site->resume_ms > s->now ? site->resume_ms : 0,
        };
        v.suspended |= stop != NULL;
        if (stop && (stop->until_ms == 0 || stop->until_ms > v.resume_ms))
            v.resume_ms = stop->until_ms;
        if (!v.ready && !v.busy && !v.suspended)
            continue;
        each(arg, &v);
    }
}

static bool is_named(const struct map_node *n, const void *key) {
    const struct site *site = LIST_ENTRY(n, const struct site, by_name);
    return span_eq(span_make(site->name, site->len), *(const struct span *)key);
}

void survey_destinations(const struct sched *s, struct span name, void (*each)(void *arg, struct span destination),
                         void *arg) {
    struct map_node *n = map_find(&s->sites, hash_span(name, s->config.seed), is_named, &name);
    if (!n)
        return;
    LIST_FOREACH(it, next, &LIST_ENTRY(n, struct site, by_name)->dests)
    each(arg, core_dest_name(LIST_ENTRY(it, const struct dest, of_site)));
}

static void attempts_of(const struct worker *w,
                        void (*each)(void *arg, uint64_t message, const uint32_t *indexes, uint32_t count), void *arg) {
    LIST_FOREACH(n, tmp, &w->attempts) {
        const struct attempt *a = LIST_ENTRY(n, const struct attempt, of_worker);
        each(arg, a->message->id, a->indexes, a->count);
    }
}

void survey_attempts(const struct sched *s,
                     void (*each)(void *arg, uint64_t message, const uint32_t *indexes, uint32_t count), void *arg) {
    LIST_FOREACH(n, tmp, &s->workers)
    attempts_of(LIST_ENTRY(n, const struct worker, all), each, arg);
}

uint64_t survey_epoch(const struct sched *s) {
    return s->config.epoch;
}
