/*
 * site: slots and queues. What a job or a connection does when it is called may end it, free
 * slots and call back here; site_pump therefore never runs inside itself, and a site is kept while
 * a function of this file uses it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/conn.h"
#include "gateway/outbound/site.h"

METRIC_GAUGE(sites, "posthouse_delivery_sites", "Sites with jobs or connections");

static bool matches(const struct map_node *n, const void *key) {
    return strcmp(CONTAINER_OF(n, struct site, in_map)->name, key) == 0;
}

struct site *site_open(struct outbound *o, const char *name) {
    size_t len = strlen(name);
    uint64_t hash = hash_bytes(name, len, 0);
    struct map_node *n = map_find(&o->sites, hash, matches, name);
    if (n) {
        struct site *found = CONTAINER_OF(n, struct site, in_map);
        found->users++;
        return found;
    }
    struct site *s = calloc(1, sizeof *s + len + 1);
    if (!s)
        return NULL;
    s->o = o;
    s->users = 1;
    list_init(&s->waiting);
    list_init(&s->idle);
    memcpy(s->name, name, len + 1);
    if (map_insert(&o->sites, &s->in_map, hash) != ERR_OK) {
        free(s);
        return NULL;
    }
    metric_add(&sites, 1);
    return s;
}

void site_close(struct site *s) {
    CHECK(s->users > 0);
    if (--s->users > 0 || s->slots > 0)
        return;
    CHECK(list_is_empty(&s->waiting) && list_is_empty(&s->idle));
    if (list_is_linked(&s->in_hungry))
        list_remove(&s->o->hungry, &s->in_hungry);
    map_remove(&s->o->sites, &s->in_map);
    pace_put(s->pace);
    pace_put(s->shared);
    pace_put(s->hosts);
    setup_free(s->setup);
    metric_sub(&sites, 1);
    free(s);
}

/* What nothing that was seen or said changes: of all sites with these servers together. */
static uint32_t hosts_limit(const struct site *s) {
    return s->rate_connections ? s->rate_connections : s->o->setup->s.per_site;
}

uint32_t site_limit(const struct site *s) {
    uint32_t limit = hosts_limit(s);
    if (s->hint && s->hint < limit)
        limit = s->hint;
    if (s->cap && s->cap < limit && loop_now_ms(s->o->loop) < s->cap_until_ms)
        limit = s->cap;
    return health_connections(s, throttle_site_limit(s, limit));
}

void site_cap(struct site *s) {
    s->cap = s->slots ? s->slots : 1;
    s->cap_until_ms = loop_now_ms(s->o->loop) + SITE_CAP_MS;
}

/* -- slots -- */

static bool has_sharers(const struct site *s) {
    return (s->shared && s->shared->refs > 1) || (s->hosts && s->hosts->refs > 1);
}

static bool are_sharers(const struct site *a, const struct site *b) {
    return a != b && ((a->shared && a->shared == b->shared) || (a->hosts && a->hosts == b->hosts));
}

/* Sites to the same servers, of other pools of addresses or with another demand for TLS, may wait for what is free
 * now. */
static void wake_sharers(struct site *s) {
    if (has_sharers(s) && !list_is_empty(&s->o->hungry))
        throttle_wake(s->o, 0);
}

void site_free_slot(struct site *s) {
    CHECK(s->slots > 0 && s->o->slots > 0);
    s->slots--;
    s->o->slots--;
    if (s->shared)
        s->shared->busy--;
    if (s->hosts)
        s->hosts->busy--;
    wake_sharers(s);
}

static bool is_shared_full(const struct site *s) {
    return s->shared && s->shared->busy >= site_limit(s);
}

static bool are_hosts_full(const struct site *s) {
    return s->hosts && s->hosts->busy >= hosts_limit(s);
}

/* Closes the longest idle connection of a sharer; `pools`: only one of another pool, with the same demand. */
static void drop_sibling(const struct site *s, bool pools) {
    LIST_FOREACH(n, next, &s->o->idle) {
        struct conn *c = CONTAINER_OF(n, struct conn, in_idle);
        if (!are_sharers(s, c->site) || (pools && c->site->shared != s->shared))
            continue;
        conn_drop(c);
        return;
    }
}

/* May close an idle connection that stands in the way; `fresh`: also one of this site. */
static bool take_slot(struct site *s, bool fresh) {
    struct outbound *o = s->o;
    if (throttle_site_left_ms(s))
        return false;
    if (s->slots >= site_limit(s)) {
        if (!fresh || list_is_empty(&s->idle))
            return false;
        conn_drop(CONTAINER_OF(list_first(&s->idle), struct conn, in_site));
    }
    if (o->slots >= o->setup->s.connections) {
        if (list_is_empty(&o->idle))
            return false;
        conn_drop(CONTAINER_OF(list_first(&o->idle), struct conn, in_idle));
    }
    if (is_shared_full(s))
        drop_sibling(s, true);
    if (are_hosts_full(s))
        drop_sibling(s, false);
    if (s->slots >= site_limit(s) || o->slots >= o->setup->s.connections || is_shared_full(s) || are_hosts_full(s))
        return false;
    s->slots++;
    o->slots++;
    if (s->shared)
        s->shared->busy++;
    if (s->hosts)
        s->hosts->busy++;
    return true;
}

/* -- waiting -- */

static void wait_in(struct site *s, struct attempt *a, bool front) {
    if (front)
        list_push_front(&s->waiting, &a->in_site);
    else
        list_push_back(&s->waiting, &a->in_site);
    if (!list_is_linked(&s->in_hungry))
        list_push_back(&s->o->hungry, &s->in_hungry);
    if (throttle_site_left_ms(s))
        throttle_wake(s->o, 0);
}

void site_unwait(struct site *s, struct attempt *a) {
    list_remove(&s->waiting, &a->in_site);
    if (list_is_empty(&s->waiting))
        list_remove(&s->o->hungry, &s->in_hungry);
}

static struct attempt *first_waiting(struct site *s, bool fresh_too) {
    LIST_FOREACH(n, next, &s->waiting) {
        struct attempt *a = LIST_ENTRY(n, struct attempt, in_site);
        if ((fresh_too || !a->fresh) && throttle_may_go(a))
            return a;
    }
    return NULL;
}

bool site_want_slot(struct site *s, struct attempt *a) {
    if (take_slot(s, true)) {
        throttle_admit(a);
        return true;
    }
    wait_in(s, a, true);
    return false;
}

bool site_keep_slot(struct site *s) {
    return take_slot(s, false);
}

/* One job to what is free; false: nothing is. */
static bool serve(struct site *s, struct attempt *a) {
    struct conn *worn;
    if (throttle_site_left_ms(s))
        return false;
    while (!a->fresh && !list_is_empty(&s->idle) && (worn = CONTAINER_OF(list_last(&s->idle), struct conn, in_site)) &&
           throttle_conn_is_worn(worn))
        conn_quit(worn);
    if (!a->fresh && !list_is_empty(&s->idle)) {
        struct conn *c = CONTAINER_OF(list_last(&s->idle), struct conn, in_site);
        site_unwait(s, a);
        throttle_admit(a);
        conn_take(c);
        attempt_use(a, c);
        if (!c->attempt && !c->gone)
            site_conn_ready(s, c);
        return true;
    }
    if (!take_slot(s, a->fresh))
        return false;
    site_unwait(s, a);
    throttle_admit(a);
    attempt_use_slot(a);
    return true;
}

static void pump_one(struct site *s) {
    if (s->pumping || s->o->draining) { /* a node that drains gives out nothing */
        s->pump_again = true;
        return;
    }
    s->pumping = true;
    s->users++;
    struct attempt *a;
    do {
        s->pump_again = false;
        while ((a = first_waiting(s, true)) && serve(s, a))
            continue;
    } while (s->pump_again);
    s->pumping = false;
    site_close(s);
}

/* They share the connections by turns: where one's connection has ended, another one comes first. */
static void pump_sharer(struct site *s) {
    LIST_FOREACH(n, next, &s->o->hungry) {
        struct site *other = CONTAINER_OF(n, struct site, in_hungry);
        if (!are_sharers(s, other))
            continue;
        list_remove(&s->o->hungry, &other->in_hungry);
        list_push_back(&s->o->hungry, &other->in_hungry);
        pump_one(other);
        return;
    }
}

void site_pump(struct site *s) {
    struct outbound *o = s->o;
    bool was_full = o->slots + 1 >= o->setup->s.connections;
    if (has_sharers(s))
        pump_sharer(s);
    pump_one(s); /* s may be gone now */
    if (!was_full)
        return;
    for (size_t n = o->hungry.count; n > 0 && !list_is_empty(&o->hungry) && o->slots < o->setup->s.connections; n--) {
        struct site *hungry = CONTAINER_OF(list_first(&o->hungry), struct site, in_hungry);
        list_remove(&o->hungry, &hungry->in_hungry);
        list_push_back(&o->hungry, &hungry->in_hungry);
        pump_one(hungry);
    }
}

void site_submit(struct site *s, struct attempt *a) {
    wait_in(s, a, false);
    pump_one(s);
}

void site_conn_ready(struct site *s, struct conn *c) {
    struct attempt *a;
    s->users++;
    while (!c->gone && !c->attempt) {
        if (s->o->draining || throttle_site_left_ms(s) || s->slots > site_limit(s) || conn_is_worn(c)) {
            conn_quit(c);
            break;
        }
        a = first_waiting(s, false);
        if (!a) {
            conn_rest(c);
            wake_sharers(s);
            break;
        }
        site_unwait(s, a);
        throttle_admit(a);
        attempt_use(a, c);
    }
    if (!list_is_empty(&s->waiting))
        pump_one(s); /* a fresh job may use the slot of a connection that rests */
    site_close(s);
}

/* Those that wait; fresh ones have a host yet to ask. */
static void hand_back_waiting(struct site *s, bool fresh_too) {
    bool found = true;
    while (found) {
        found = false;
        LIST_FOREACH(n, next, &s->waiting) {
            struct attempt *a = LIST_ENTRY(n, struct attempt, in_site);
            if (a->fresh && !fresh_too)
                continue;
            site_unwait(s, a);
            throttle_hand_back(a);
            found = true;
            break;
        }
    }
}

bool site_fail(struct site *s, uint64_t joined_ms) {
    bool first = !s->has_failed || joined_ms > s->failed_ms;
    s->has_failed = true;
    s->failed_ms = loop_now_ms(s->o->loop);
    s->users++;
    hand_back_waiting(s, false);
    site_close(s);
    return first;
}

void sites_wake(struct outbound *o) {
    for (size_t n = o->hungry.count; n > 0 && !list_is_empty(&o->hungry); n--) {
        struct site *s = CONTAINER_OF(list_first(&o->hungry), struct site, in_hungry);
        list_remove(&o->hungry, &s->in_hungry);
        list_push_back(&o->hungry, &s->in_hungry);
        s->users++;
        if (throttle_site_left_ms(s))
            hand_back_waiting(s, true);
        pump_one(s);
        site_close(s);
    }
}
