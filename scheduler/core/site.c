/*
 * site: where mail goes: destinations, the sites that serve them, and how much each site takes.
 *
 * A destination starts with a site of its own; the first report that names the real one moves it
 * there. A site allows a number of connections that grows by one with each window of successes and
 * shrinks when a host fails; when the whole site could not be reached it is suspended for pauses that
 * double, and after each pause one job probes it. While it is suspended, all but a few of its READY
 * recipients go to disk, so that a dead site never fills the hot set.
 *
 * Each site has a home among the delivery nodes, by rendezvous hash; the home changes only while
 * nothing is under way, so that two nodes never serve one site at a time.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "base/rendezvous.h"
#include "scheduler/core/core.h"
#include "scheduler/core/retry.h"

#define CONCURRENCY_START 5u
#define TTL_LEAST_MS 60000u
#define TTL_MOST_MS 86400000u
#define SUSPEND_MOST_MS 86400000u

/* -- sites -- */

static bool match_site(const struct map_node *n, const void *key) {
    const struct site *site = LIST_ENTRY(n, const struct site, by_name);
    const struct span *name = key;
    return site->len == name->len && memcmp(site->name, name->at, site->len) == 0;
}

static uint32_t start_concurrency(const struct sched *s) {
    return s->config.per_site < CONCURRENCY_START ? s->config.per_site : CONCURRENCY_START;
}

/* Rendezvous of site and live nodes, weighted by what they take. All leaders of a cluster must come to the same, so it
 * depends on names and weights alone. */
static struct worker *choose_home(struct sched *s, const struct site *site) {
    struct worker *best = &s->nobody;
    struct rendezvous most = {0};
    uint64_t of_site = hash_bytes(site->name, site->len, 0);
    LIST_FOREACH(n, tmp, &s->workers) {
        struct worker *w = LIST_ENTRY(n, struct worker, all);
        struct rendezvous draw = {core_mix(of_site ^ w->hash), w->jobs_max};
        if (w->jobs_max && (best == &s->nobody || rendezvous_wins(draw, most))) {
            best = w;
            most = draw;
        }
    }
    return best;
}

static struct site *site_new(struct sched *s, struct span name, bool own) {
    struct site *site = calloc(1, sizeof *site + name.len);
    if (!site)
        return NULL;
    site->len = (uint32_t)name.len;
    memcpy(site->name, name.at, name.len);
    site->own = own;
    if (!own && map_insert(&s->sites, &site->by_name, hash_span(name, s->config.seed)) != ERR_OK) {
        free(site);
        return NULL;
    }
    list_init(&site->dests);
    list_init(&site->stocked);
    core_line_init(&site->wait);
    site->serial = ++s->last_serial;
    site->concurrency = start_concurrency(s);
    site->home = choose_home(s, site);
    list_push_back(&s->all_sites, &site->all);
    if (!own)
        s->counts.sites++;
    return site;
}

static void site_let_go(struct sched *s, struct site *site) {
    if (site->dests.count || site->busy)
        return;
    if (heap_is_linked(&site->resume))
        heap_remove(&s->resumes, &site->resume);
    if (list_is_linked(&site->spill))
        list_remove(&s->spills, &site->spill);
    list_remove(&s->all_sites, &site->all);
    if (!site->own) {
        map_remove(&s->sites, &site->by_name);
        s->counts.sites--;
    }
    free(site);
}

bool core_site_is_suspended(const struct sched *s, const struct site *site) {
    return site->failures && site->resume_ms > s->now;
}

bool core_site_is_stuffed(const struct sched *s, const struct dest *d, bool over) {
    if (!d->stop && !core_site_is_suspended(s, d->site))
        return false;
    bool pressed = s->active > s->config.active_max / 2;
    uint32_t of_dest = (pressed ? CORE_KEEP_PRESSED : CORE_KEEP_DEST) + over;
    uint32_t of_site = (pressed ? CORE_KEEP_PRESSED : CORE_KEEP_SITE) + over;
    return d->ready >= of_dest || (d->stop ? d->stop->ready : d->site->ready) >= of_site;
}

uint64_t core_site_back_ms(struct sched *s, const struct dest *d) {
    if (!d->stop)
        return d->site->resume_ms + rand_below(&s->rand, d->site->pause_ms + 1);
    /* It may be resumed at any time: what waits on disk looks again now and then. */
    uint64_t wait_ms = s->config.suspend_max_ms, until_ms = d->stop->until_ms;
    if (until_ms && until_ms < s->now + wait_ms)
        wait_ms = until_ms > s->now + 1000 ? until_ms - s->now : 1000;
    return s->now + wait_ms + rand_below(&s->rand, wait_ms / 2 + 1);
}

uint32_t core_site_free_slots(const struct sched *s, const struct site *site) {
    if (site->resume_ms > s->now)
        return 0;
    uint32_t slots = site->failures ? 1 : site->concurrency * s->config.jobs_per_connection;
    return slots > site->busy ? slots - site->busy : 0;
}

void core_site_wake(struct sched *s, struct site *site) {
    while (site->wait.count && site->ringed < core_site_free_slots(s, site)) {
        struct turn *t = core_line_pick(&site->wait);
        core_turn_unplace(t);
        core_turn_place(s, t);
    }
}

void core_site_lift(struct dest *d) {
    for (int c = 0; c < CORE_CLASSES; c++)
        core_turn_unplace(&d->turn[c]);
}

void core_site_lay(struct sched *s, struct dest *d) {
    for (int c = CORE_CLASSES - 1; c >= 0; c--)
        core_turn_place(s, &d->turn[c]);
}

/* Takes all turns of the site out of their lines, or puts them back. */
static void lift(struct site *site) {
    LIST_FOREACH(n, tmp, &site->stocked)
    core_site_lift(LIST_ENTRY(n, struct dest, stock));
}

static void lay(struct sched *s, struct site *site) {
    LIST_FOREACH(n, tmp, &site->stocked)
    core_site_lay(s, LIST_ENTRY(n, struct dest, stock));
}

void core_site_rehome(struct sched *s, struct site *site) {
    struct worker *home = choose_home(s, site);
    site->rehome = home != site->home && site->busy;
    if (home == site->home || site->rehome)
        return;
    lift(site);
    site->home = home;
    lay(s, site);
}

void core_site_leave(struct sched *s, struct site *site) {
    CHECK(site->busy);
    site->busy--;
    if (site->rehome && !site->busy)
        core_site_rehome(s, site);
    core_site_wake(s, site);
    site_let_go(s, site);
}

/* -- what a site takes -- */

static void set_resume(struct sched *s, struct site *site, uint64_t at_ms) {
    site->resume_ms = at_ms;
    if (!at_ms) {
        if (heap_is_linked(&site->resume))
            heap_remove(&s->resumes, &site->resume);
    } else if (heap_is_linked(&site->resume)) {
        heap_update(&s->resumes, &site->resume);
    } else {
        CHECK(heap_push(&s->resumes, &site->resume) == ERR_OK);
    }
}

void core_site_success(struct sched *s, struct site *site) {
    if (site->held) /* it was under way before */
        return;
    if (site->failures) {
        site->failures = 0;
        site->concurrency = start_concurrency(s);
        site->successes = 0;
        set_resume(s, site, 0);
    } else if (++site->successes >= site->concurrency) {
        site->successes = 0;
        if (site->concurrency < s->config.per_site)
            site->concurrency++;
    }
    core_site_wake(s, site);
}

void core_site_shrink(struct sched *s, struct site *site) {
    (void)s;
    site->successes = 0;
    uint32_t step = 1 + site->concurrency / 8;
    site->concurrency = site->concurrency > step ? site->concurrency - step : 1;
}

void core_site_spill_soon(struct sched *s, struct site *site) {
    if (!list_is_linked(&site->spill))
        list_push_back(&s->spills, &site->spill);
}

void core_site_fail(struct sched *s, struct site *site) {
    if (core_site_is_suspended(s, site))
        return; /* the others of the same moment */
    site->concurrency = 1;
    site->successes = 0;
    uint64_t ms = s->config.suspend_first_ms;
    for (uint32_t i = 0; i < site->failures && ms < s->config.suspend_max_ms; i++)
        ms *= 2;
    ms = ms < s->config.suspend_max_ms ? ms : s->config.suspend_max_ms;
    site->failures++;
    site->pause_ms = retry_jitter_ms(ms, rand_u64(&s->rand));
    set_resume(s, site, s->now + site->pause_ms);
    core_site_spill_soon(s, site);
}

void core_site_suspend(struct sched *s, struct site *site, uint64_t ms) {
    ms = ms < SUSPEND_MOST_MS ? ms : SUSPEND_MOST_MS;
    if (core_site_is_suspended(s, site) && site->resume_ms >= s->now + ms)
        return;
    site->concurrency = 1;
    site->successes = 0;
    site->failures = site->failures ? site->failures : 1;
    site->held = true;
    site->pause_ms = ms;
    set_resume(s, site, s->now + ms);
    core_site_spill_soon(s, site);
}

void core_site_pause(struct sched *s, struct site *site, uint64_t ms) {
    if (site->resume_ms < s->now + ms)
        set_resume(s, site, s->now + ms);
}

void core_site_probe_now(struct sched *s, struct site *site) {
    site->held = false;
    set_resume(s, site, 0);
    core_site_wake(s, site);
}

void core_site_resume_due(struct sched *s) {
    struct heap_node *n;
    while ((n = heap_first(&s->resumes))) {
        struct site *site = LIST_ENTRY(n, struct site, resume);
        if (site->resume_ms > s->now)
            return;
        site->held = false;
        set_resume(s, site, 0);
        core_site_wake(s, site);
    }
}

/* -- to disk -- */

/* The newest of the next lane of the lowest class: lanes take turns here too. */
static struct recipient *newest(struct dest *d) {
    struct turn *t = d->turn;
    while (!t->ready)
        t++;
    struct lane *l = LIST_ENTRY(list_first(&t->lanes), struct lane, ring);
    list_remove(&t->lanes, &l->ring);
    list_push_back(&t->lanes, &l->ring);
    return LIST_ENTRY(list_last(&l->fifo), struct recipient, queue);
}

static bool spill_dest(struct sched *s, struct dest *d, uint32_t *budget) {
    while (d->ready && core_site_is_stuffed(s, d, true)) {
        if (!*budget)
            return false;
        --*budget;
        struct recipient *r = newest(d);
        struct message *m = core_message_of(r);
        core_ready_take(s, r);
        core_put_off(s, m, r, core_site_back_ms(s, d), CORE_WANT_SITE);
        core_message_check(s, m);
    }
    return true;
}

void core_site_spill(struct sched *s) {
    uint32_t budget = CORE_SPILL_STEP;
    struct list_node *n;
    while ((n = list_first(&s->spills))) {
        struct site *site = LIST_ENTRY(n, struct site, spill);
        LIST_FOREACH(d, tmp, &site->stocked) {
            if (!spill_dest(s, LIST_ENTRY(d, struct dest, stock), &budget))
                return;
        }
        list_remove(&s->spills, &site->spill);
    }
}

/* -- destinations -- */

static bool match_dest(const struct map_node *n, const void *key) {
    const struct dest *d = LIST_ENTRY(n, const struct dest, by_name);
    const struct span *name = key;
    return d->len == name->len && memcmp(d->name, name->at, d->len) == 0;
}

static struct dest *dest_new(struct sched *s, struct span name, uint64_t hash) {
    struct dest *d = calloc(1, sizeof *d + name.len);
    if (!d)
        return NULL;
    d->len = (uint32_t)name.len;
    memcpy(d->name, name.at, name.len);
    d->site = site_new(s, name, true);
    if (d->site && map_insert(&s->dests, &d->by_name, hash) != ERR_OK) {
        site_let_go(s, d->site);
        d->site = NULL;
    }
    if (!d->site) {
        free(d);
        return NULL;
    }
    d->serial = ++s->last_serial;
    for (int c = 0; c < CORE_CLASSES; c++) {
        d->turn[c].class = (uint8_t)c;
        d->turn[c].deficit = CORE_QUANTUM;
        list_init(&d->turn[c].lanes);
    }
    list_push_back(&d->site->dests, &d->of_site);
    s->counts.destinations++;
    core_suspension_choose(s, d);
    return d;
}

struct dest *core_dest_take(struct sched *s, struct span name) {
    uint64_t hash = hash_span(name, s->config.seed);
    struct map_node *n = map_find(&s->dests, hash, match_dest, &name);
    struct dest *d = n ? LIST_ENTRY(n, struct dest, by_name) : dest_new(s, name, hash);
    if (!d)
        return NULL;
    if (!d->refs++ && list_is_linked(&d->idle))
        list_remove(&s->idle, &d->idle);
    return d;
}

struct span sched_site_of(const struct sched *s, struct span destination) {
    struct map_node *n = map_find(&s->dests, hash_span(destination, s->config.seed), match_dest, &destination);
    const struct site *site = n ? LIST_ENTRY(n, const struct dest, by_name)->site : NULL;
    return site && !site->own ? span_make(site->name, site->len) : SPAN_EMPTY;
}

void core_dest_drop(struct sched *s, struct dest *d) {
    if (--d->refs)
        return;
    d->idle_since_ms = s->now;
    list_push_back(&s->idle, &d->idle);
}

static void dest_free(struct sched *s, struct dest *d) {
    core_site_lift(d);
    if (list_is_linked(&d->idle))
        list_remove(&s->idle, &d->idle);
    map_remove(&s->dests, &d->by_name);
    list_remove(&d->site->dests, &d->of_site);
    site_let_go(s, d->site);
    s->counts.destinations--;
    free(d);
}

void core_dest_evict(struct sched *s) {
    struct list_node *n;
    while ((n = list_first(&s->idle))) {
        struct dest *d = LIST_ENTRY(n, struct dest, idle);
        if (s->idle.count <= CORE_IDLE_MAX && d->idle_since_ms + CORE_IDLE_MS > s->now)
            return;
        dest_free(s, d);
    }
}

void core_dest_free_all(struct sched *s) {
    for (struct list_node *n; (n = list_first(&s->idle));)
        dest_free(s, LIST_ENTRY(n, struct dest, idle));
}

/* Moves d, whose turns follow it. to may be a site without destinations so far. */
static void dest_move(struct sched *s, struct dest *d, struct site *to) {
    struct site *from = d->site;
    core_site_lift(d);
    list_remove(&from->dests, &d->of_site);
    if (d->ready) {
        list_remove(&from->stocked, &d->stock);
        list_push_back(&to->stocked, &d->stock);
    }
    from->ready -= d->ready;
    to->ready += d->ready;
    d->site = to;
    list_push_back(&to->dests, &d->of_site);
    core_suspension_choose(s, d);
    core_site_lay(s, d);
    if (d->stop || core_site_is_suspended(s, to))
        core_site_spill_soon(s, to);
    core_site_wake(s, from);
    site_let_go(s, from);
}

void core_site_name(struct sched *s, struct dest *d, struct span name, uint64_t ttl_ms) {
    if (!name.len || name.len > CORE_SITE_NAME_MAX)
        return;
    ttl_ms = ttl_ms < TTL_LEAST_MS ? TTL_LEAST_MS : ttl_ms > TTL_MOST_MS ? TTL_MOST_MS : ttl_ms;
    d->site_until_ms = s->now + ttl_ms;
    if (!d->site->own && span_eq(span_make(d->site->name, d->site->len), name))
        return;
    struct map_node *n = map_find(&s->sites, hash_span(name, s->config.seed), match_site, &name);
    struct site *to = n ? LIST_ENTRY(n, struct site, by_name) : site_new(s, name, false);
    if (to) /* without memory it goes on where it is */
        dest_move(s, d, to);
}

void core_site_refresh(struct sched *s, struct dest *d) {
    if (d->site->own || d->site_until_ms > s->now || !core_site_is_suspended(s, d->site))
        return;
    struct site *to = site_new(s, core_dest_name(d), true);
    if (to)
        dest_move(s, d, to);
}
