/*
 * suspension: destinations and sites that an operator has stopped.
 *
 * A destination that is stopped keeps its READY recipients out of every line, so that nothing of it is assigned; what
 * is under way goes on. All but a few of its recipients go to disk (site.c), as those of a failed site do, and look
 * again now and then. The others are looked at now and then in memory, for nothing else would tell of them or give them
 * up. Each destination knows what stops it: found by its name and by its parents' with a leading dot,
 * and by its site's, when it is made, when it moves to another site, and when a suspension comes or goes.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "scheduler/core/core.h"

struct suspension_key {
    uint32_t scope;
    struct span name;
};

static bool match_suspension(const struct map_node *n, const void *key) {
    const struct suspension *p = LIST_ENTRY(n, const struct suspension, by_name);
    const struct suspension_key *k = key;
    return p->scope == k->scope && p->len == k->name.len && memcmp(p->name, k->name.at, p->len) == 0;
}

static struct suspension *find(const struct sched *s, uint32_t scope, struct span name) {
    struct suspension_key key = {scope, name};
    struct map_node *n = map_find(&s->suspensions, hash_span(name, s->config.seed + scope), match_suspension, &key);
    return n ? LIST_ENTRY(n, struct suspension, by_name) : NULL;
}

/* A site's name may be followed by "+" and what keeps its connections apart: each such name means all that begin with
 * it. The next one longer than `from`. */
static size_t site_end(struct span site, size_t from) {
    ptrdiff_t plus = span_find(span_from(site, from + 1), '+');
    return plus < 0 ? site.len : from + 1 + (size_t)plus;
}

static struct suspension *find_for(const struct sched *s, const struct dest *d) {
    if (!s->suspensions.count)
        return NULL;
    struct span name = core_dest_name(d);
    struct suspension *found = find(s, SCHED_SUSPEND_DOMAIN, name);
    for (ptrdiff_t dot; !found && (dot = span_find(name, '.')) >= 0;) {
        found = find(s, SCHED_SUSPEND_DOMAIN, span_from(name, (size_t)dot));
        name = span_from(name, (size_t)dot + 1);
    }
    struct span site = span_make(d->site->name, d->site->own ? 0 : d->site->len);
    for (size_t end = 0; !found && end < site.len;) {
        end = site_end(site, end);
        found = find(s, SCHED_SUSPEND_SITE, span_first(site, end));
    }
    return found;
}

static void set_stop(struct dest *d, struct suspension *to) {
    if (d->stop)
        d->stop->ready -= d->ready;
    d->stop = to;
    if (to)
        to->ready += d->ready;
}

void core_suspension_choose(struct sched *s, struct dest *d) {
    set_stop(d, find_for(s, d));
}

static bool is_under(const struct dest *d, uint32_t scope, struct span name) {
    struct span of = core_dest_name(d);
    struct span site = span_make(d->site->name, d->site->len);
    if (scope == SCHED_SUSPEND_SITE)
        return !d->site->own && span_eq(span_first(site, name.len), name) &&
               (site.len == name.len || site.at[name.len] == '+');
    return name.at[0] == '.' ? of.len > name.len && span_eq(span_from(of, of.len - name.len), name) : span_eq(of, name);
}

/* p has come (then it stops what nothing else does), or it goes (then something else may stop what it did). */
static void judge_all(struct sched *s, struct suspension *p, bool comes) {
    LIST_FOREACH(n, tmp, &s->all_sites) {
        struct site *site = LIST_ENTRY(n, struct site, all);
        LIST_FOREACH(i, tmp2, &site->dests) {
            struct dest *d = LIST_ENTRY(i, struct dest, of_site);
            if (comes ? d->stop || !is_under(d, p->scope, span_make(p->name, p->len)) : d->stop != p)
                continue;
            struct suspension *to = comes ? p : find_for(s, d);
            core_site_lift(d);
            set_stop(d, to);
            core_site_lay(s, d);
            if (to && d->ready)
                core_site_spill_soon(s, site);
        }
        core_site_wake(s, site);
    }
}

uint64_t sched_ready_under(const struct sched *s, const struct sched_suspension *of) {
    uint64_t ready = 0;
    LIST_FOREACH(n, tmp, &s->all_sites) {
        LIST_FOREACH(i, tmp2, &LIST_ENTRY(n, struct site, all)->stocked) {
            const struct dest *d = LIST_ENTRY(i, const struct dest, stock);
            ready += is_under(d, of->scope, of->name) ? d->ready : 0;
        }
    }
    return ready;
}

int core_on_suspend(struct sched *s, const struct sched_suspension *e) {
    bool known = e->scope == SCHED_SUSPEND_DOMAIN || e->scope == SCHED_SUSPEND_SITE;
    if (!known || !e->name.len || e->name.len > CORE_SITE_NAME_MAX)
        return ERR_INVALID;
    struct suspension *p = find(s, e->scope, e->name);
    if (p) {
        p->until_ms = e->until_ms;
        return ERR_OK;
    }
    if (s->suspensions.count >= SCHED_SUSPENSIONS_MAX)
        return ERR_FULL;
    p = calloc(1, sizeof *p + e->name.len);
    if (!p)
        return ERR_NOMEM;
    p->scope = e->scope;
    p->until_ms = e->until_ms;
    p->len = (uint32_t)e->name.len;
    memcpy(p->name, e->name.at, e->name.len);
    if (map_insert(&s->suspensions, &p->by_name, hash_span(e->name, s->config.seed + e->scope)) != ERR_OK) {
        free(p);
        return ERR_NOMEM;
    }
    list_push_back(&s->suspension_list, &p->link);
    judge_all(s, p, true);
    return ERR_OK;
}

int core_on_resume(struct sched *s, const struct sched_suspension *e) {
    struct suspension *p = find(s, e->scope, e->name);
    if (!p)
        return ERR_NOT_FOUND;
    map_remove(&s->suspensions, &p->by_name);
    list_remove(&s->suspension_list, &p->link);
    judge_all(s, p, false);
    CHECK(!p->ready);
    free(p);
    return ERR_OK;
}

/* -- age -- */

static struct recipient *next_of(const struct lane *l, struct recipient *r) {
    return r->queue.next == &l->fifo.head ? NULL : LIST_ENTRY(r->queue.next, struct recipient, queue);
}

/* The lane may be gone afterwards. */
static void age_lane(struct sched *s, struct lane *l, uint32_t *budget) {
    struct recipient *next;
    for (struct recipient *r = LIST_ENTRY(list_first(&l->fifo), struct recipient, queue); r && *budget; r = next) {
        struct message *m = core_message_of(r);
        next = next_of(l, r);
        if (!core_is_over(s, m, s->now)) {
            core_report_delay(s, m, r);
            continue;
        }
        --*budget;
        core_ready_take(s, r);
        core_put_off(s, m, r, s->now, CORE_WANT_SITE);
        core_message_check(s, m);
    }
}

void core_suspension_age(struct sched *s) {
    uint32_t budget = CORE_SPILL_STEP;
    if (s->now < s->aged_ms + CORE_AGE_EVERY_MS)
        return;
    LIST_FOREACH(n, tmp, &s->all_sites) {
        struct site *site = LIST_ENTRY(n, struct site, all);
        bool suspended = core_site_is_suspended(s, site);
        LIST_FOREACH(i, tmp2, &site->stocked) {
            struct dest *d = LIST_ENTRY(i, struct dest, stock);
            for (int c = 0; c < CORE_CLASSES && (d->stop || suspended); c++) {
                LIST_FOREACH(k, tmp3, &d->turn[c].lanes)
                age_lane(s, LIST_ENTRY(k, struct lane, ring), &budget);
            }
        }
    }
    if (budget)
        s->aged_ms = s->now;
}

void core_suspension_free_all(struct sched *s) {
    for (struct list_node *n; (n = list_pop_front(&s->suspension_list));) {
        struct suspension *p = LIST_ENTRY(n, struct suspension, link);
        map_remove(&s->suspensions, &p->by_name);
        free(p);
    }
}
