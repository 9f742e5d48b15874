/*
 * ready: the order in which READY recipients are served.
 *
 * Three levels, each by deficit round robin with credit: classes of priority (9 : 3 : 1, so that the
 * lower ones never starve), turns of destinations inside a class, lanes of senders inside a turn;
 * first in, first out inside a lane. Who gets a job served is charged its recipients (and size); who
 * has used up its quantum goes to the end.
 *
 * A sender with few READY recipients makes the turn fast: fast turns are picked first, at most
 * three in a row before one of the others. So a bulk sender with 10,000 destinations does not stand
 * before the one message of a small sender to yet another one.
 *
 * A turn stands in the line of its site's home while the site takes more jobs, else in the waiting
 * line of the site. docs/scheduling.md tells why.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "scheduler/core/core.h"

#define FAST_ROW_MAX 3

static const int32_t weights[CORE_CLASSES] = {1, 3, 9};

/* -- senders -- */

static bool match_fair(const struct map_node *n, const void *key) {
    const struct fair *f = LIST_ENTRY(n, const struct fair, by_name);
    const struct span *name = key;
    return f->len == name->len && memcmp(f->name, name->at, f->len) == 0;
}

struct fair *core_fair_take(struct sched *s, struct span name) {
    name = span_first(name, CORE_NAME_MAX);
    if (!name.at)
        name = SPAN("");
    uint64_t hash = hash_span(name, s->config.seed);
    struct map_node *n = map_find(&s->fairs, hash, match_fair, &name);
    if (n) {
        struct fair *f = LIST_ENTRY(n, struct fair, by_name);
        f->refs++;
        return f;
    }
    struct fair *f = calloc(1, sizeof *f + name.len);
    if (!f)
        return NULL;
    if (map_insert(&s->fairs, &f->by_name, hash) != ERR_OK) {
        free(f);
        return NULL;
    }
    f->refs = 1;
    f->serial = ++s->last_serial;
    f->len = (uint32_t)name.len;
    memcpy(f->name, name.at, name.len);
    return f;
}

void core_fair_drop(struct sched *s, struct fair *f) {
    if (--f->refs)
        return;
    map_remove(&s->fairs, &f->by_name);
    free(f);
}

/* -- lines -- */

void core_line_init(struct line *l) {
    *l = (struct line){0};
    for (int c = 0; c < CORE_CLASSES; c++) {
        list_init(&l->ring[c][0]);
        list_init(&l->ring[c][1]);
    }
}

static bool has_class(const struct line *l, int c) {
    return !list_is_empty(&l->ring[c][0]) || !list_is_empty(&l->ring[c][1]);
}

/* Smooth weighted round robin over the classes that have someone. */
static int pick_class(struct line *l) {
    int best = -1;
    int32_t total = 0;
    for (int c = CORE_CLASSES - 1; c >= 0; c--) {
        if (!has_class(l, c)) {
            l->credit[c] = 0;
            continue;
        }
        total += weights[c];
        l->credit[c] += weights[c];
        if (best < 0 || l->credit[c] > l->credit[best])
            best = c;
    }
    l->credit[best] -= total;
    return best;
}

struct turn *core_line_pick(struct line *l) {
    if (!l->count)
        return NULL;
    int c = pick_class(l);
    bool fast = !list_is_empty(&l->ring[c][1]);
    if (fast && !list_is_empty(&l->ring[c][0]) && l->row[c] >= FAST_ROW_MAX)
        fast = false;
    l->row[c] = fast ? (uint8_t)(l->row[c] < FAST_ROW_MAX ? l->row[c] + 1 : FAST_ROW_MAX) : 0;
    struct list *ring = &l->ring[c][fast];
    struct turn *t = LIST_ENTRY(list_first(ring), struct turn, node);
    while (t->deficit <= 0) {
        t->deficit += CORE_QUANTUM;
        list_remove(ring, &t->node);
        list_push_back(ring, &t->node);
        t = LIST_ENTRY(list_first(ring), struct turn, node);
    }
    return t;
}

/* -- turns -- */

struct dest *core_turn_dest(const struct turn *t) {
    return CONTAINER_OF((struct turn *)(uintptr_t)t - t->class, struct dest, turn);
}

static struct line *line_of(const struct turn *t) {
    struct site *site = core_turn_dest(t)->site;
    return t->place == TURN_RING ? &site->home->line : &site->wait;
}

static void enter(struct turn *t, enum turn_place place) {
    t->place = (uint8_t)place;
    t->fast = t->express > 0;
    struct line *l = line_of(t);
    list_push_back(&l->ring[t->class][t->fast], &t->node);
    l->count++;
    if (place == TURN_RING)
        core_turn_dest(t)->site->ringed++;
}

void core_turn_unplace(struct turn *t) {
    if (t->place == TURN_NONE)
        return;
    struct line *l = line_of(t);
    list_remove(&l->ring[t->class][t->fast], &t->node);
    l->count--;
    if (t->place == TURN_RING)
        core_turn_dest(t)->site->ringed--;
    t->place = TURN_NONE;
}

void core_turn_place(struct sched *s, struct turn *t) {
    if (t->ready && !core_turn_dest(t)->stop)
        enter(t, core_site_free_slots(s, core_turn_dest(t)->site) ? TURN_RING : TURN_WAIT);
}

void core_turn_rotate(struct turn *t) {
    enum turn_place place = t->place;
    core_turn_unplace(t);
    enter(t, place);
}

struct lane *core_turn_lane(struct turn *t) {
    struct lane *l = LIST_ENTRY(list_first(&t->lanes), struct lane, ring);
    while (l->deficit <= 0) {
        l->deficit += CORE_QUANTUM;
        list_remove(&t->lanes, &l->ring);
        list_push_back(&t->lanes, &l->ring);
        l = LIST_ENTRY(list_first(&t->lanes), struct lane, ring);
    }
    return l;
}

/* A sender that has grown loses the fast ring. */
static void check_small(struct turn *t, struct lane *l) {
    if (!l->small || l->fair->ready <= CORE_SMALL_SENDER)
        return;
    l->small = false;
    t->express--;
}

void core_turn_charge(struct sched *s, struct turn *t, struct lane *l, uint32_t cost) {
    check_small(t, l);
    t->deficit -= (int32_t)cost;
    l->deficit -= (int32_t)cost;
    if (l->deficit <= 0) {
        l->deficit += CORE_QUANTUM;
        list_remove(&t->lanes, &l->ring);
        list_push_back(&t->lanes, &l->ring);
    }
    if (t->deficit > 0)
        return;
    t->deficit += CORE_QUANTUM;
    struct site *site = core_turn_dest(t)->site;
    if (site->wait.count) {
        /* Those of its site that wait for a place in the line come first. */
        core_turn_unplace(t);
        enter(t, TURN_WAIT);
        core_site_wake(s, site);
    } else {
        core_turn_rotate(t);
    }
}

/* -- lanes -- */

struct lane_key {
    const struct dest *dest;
    const struct fair *fair;
    uint8_t class;
};

static bool match_lane(const struct map_node *n, const void *key) {
    const struct lane *l = LIST_ENTRY(n, const struct lane, by_key);
    const struct lane_key *k = key;
    return l->dest == k->dest && l->fair == k->fair && l->class == k->class;
}

static struct lane *lane_get(struct sched *s, struct dest *d, struct fair *f, uint8_t class) {
    struct lane_key key = {d, f, class};
    uint64_t hash = core_mix(d->serial * 3 + class) ^ core_mix(~f->serial);
    struct map_node *n = map_find(&s->lanes, hash, match_lane, &key);
    if (n)
        return LIST_ENTRY(n, struct lane, by_key);
    struct turn *t = &d->turn[class];
    struct lane *l = core_must_alloc(sizeof *l);
    CHECK(map_insert(&s->lanes, &l->by_key, hash) == ERR_OK);
    list_init(&l->fifo);
    l->dest = d;
    l->fair = f;
    l->class = class;
    l->deficit = CORE_QUANTUM;
    l->small = f->ready < CORE_SMALL_SENDER;
    t->express += l->small;
    list_push_back(&t->lanes, &l->ring);
    return l;
}

static void lane_free(struct sched *s, struct turn *t, struct lane *l) {
    t->express -= l->small;
    list_remove(&t->lanes, &l->ring);
    map_remove(&s->lanes, &l->by_key);
    free(l);
}

void core_ready_put(struct sched *s, struct message *m, struct recipient *r, bool front) {
    struct dest *d = r->dest;
    struct turn *t = &d->turn[m->priority];
    struct lane *l = lane_get(s, d, m->fair, m->priority);
    if (front)
        list_push_front(&l->fifo, &r->queue);
    else
        list_push_back(&l->fifo, &r->queue);
    r->lane = l;
    r->due_ms = s->now;
    if (!d->ready++)
        list_push_back(&d->site->stocked, &d->stock);
    d->site->ready++;
    if (d->stop)
        d->stop->ready++;
    t->ready++;
    m->fair->ready++;
    check_small(t, l);
    if (t->place == TURN_NONE)
        core_turn_place(s, t);
    else if (t->express && !t->fast)
        core_turn_rotate(t);
}

void core_ready_take(struct sched *s, struct recipient *r) {
    struct lane *l = r->lane;
    struct dest *d = l->dest;
    struct turn *t = &d->turn[l->class];
    list_remove(&l->fifo, &r->queue);
    r->lane = NULL;
    l->fair->ready--;
    if (!--d->ready)
        list_remove(&d->site->stocked, &d->stock);
    d->site->ready--;
    if (d->stop)
        d->stop->ready--;
    t->ready--;
    if (list_is_empty(&l->fifo))
        lane_free(s, t, l);
    if (!t->ready) {
        core_turn_unplace(t);
        core_site_wake(s, d->site);
    }
}
