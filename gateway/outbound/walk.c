/*
 * walk: see walk.h. Groups are looked up as they are reached, since most mail is delivered by the first.
 */
#include <string.h>

#include "base/check.h"

#include "gateway/outbound/walk.h"

void walk_init(struct walk *w, const struct walk_world *world, const struct mx_policy *policy, struct mx_list *list) {
    *w = (struct walk){.world = *world, .policy = *policy, .list = *list, .own = list->own};
    *list = (struct mx_list){0};
}

void walk_init_address(struct walk *w, const struct walk_world *world, const struct mx_policy *policy, const char *host,
                       const struct tcp_addr *addr) {
    *w = (struct walk){.world = *world, .policy = *policy};
    enum mx_address verdict = addr->storage.ss_family == AF_UNIX ? MX_ADDRESS_GOOD : mx_judge_address(policy, addr);
    if (verdict == MX_ADDRESS_GOOD)
        w->found.targets[w->found.count++] = (struct mx_target){.host = host, .addr = *addr};
    w->own = verdict == MX_ADDRESS_OWN;
    w->bad = verdict != MX_ADDRESS_GOOD && !w->own;
}

void walk_deinit(struct walk *w) {
    group_end(&w->group);
    mx_list_deinit(&w->list);
}

static bool same_place(const struct tcp_addr *a, const struct tcp_addr *b) {
    return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

static bool was_tried(const struct walk *w, const struct tcp_addr *a) {
    for (uint32_t i = 0; i < w->tries; i++) {
        if (same_place(&w->tried[i], a))
            return true;
    }
    return false;
}

void walk_mark(struct walk *w, const struct tcp_addr *a) {
    if (w->tries < WALK_TRIES_MAX && !was_tried(w, a))
        w->tried[w->tries++] = *a;
}

void walk_unmark(struct walk *w, const struct tcp_addr *a) {
    for (uint32_t i = 0; i < w->tries; i++) {
        if (same_place(&w->tried[i], a)) {
            w->tried[i] = w->tried[--w->tries];
            return;
        }
    }
}

void walk_restart(struct walk *w) {
    group_end(&w->group);
    w->at = w->next_group = 0;
    w->ended = false;
    if (w->list.count)
        w->found.count = 0;
}

void walk_forget(struct walk *w) {
    walk_restart(w);
    w->tries = 0;
}

/* The dead go behind the living, each in its order. */
static void put_dead_last(struct walk *w) {
    struct mx_target living[MX_TARGETS_MAX], dead[MX_TARGETS_MAX];
    uint32_t nl = 0, nd = 0;
    uint64_t now = loop_now_ms(w->world.loop);
    for (uint32_t i = 0; i < w->found.count; i++) {
        if (dead_is(w->world.dead, &w->found.targets[i].addr, now))
            dead[nd++] = w->found.targets[i];
        else
            living[nl++] = w->found.targets[i];
    }
    memcpy(w->found.targets, living, nl * sizeof *living);
    memcpy(w->found.targets + nl, dead, nd * sizeof *dead);
}

static void tell(struct walk *w, const struct mx_target *target) {
    walk_cb cb = w->cb;
    w->cb = NULL;
    if (!target)
        w->ended = true;
    cb(w->arg, target);
}

static void go_on(struct walk *w);

static void on_group(void *arg) {
    struct walk *w = arg;
    group_order(&w->group, &w->policy, w->world.rand, &w->found);
    group_end(&w->group);
    w->at = 0;
    w->tempfail |= w->found.tempfail;
    w->bad |= w->found.bad;
    w->cut |= w->found.cut;
    if (w->found.own) {
        w->own = true;
        w->own_is_worse = w->group_from > 0;
        w->next_group = w->list.count; /* all worse ones are out too */
    }
    put_dead_last(w);
    go_on(w);
}

static void go_on(struct walk *w) {
    while (w->at < w->found.count && w->tries < WALK_TRIES_MAX) {
        const struct mx_target *t = &w->found.targets[w->at++];
        if (was_tried(w, &t->addr))
            continue;
        w->tried[w->tries++] = t->addr;
        tell(w, t);
        return;
    }
    if (w->next_group >= w->list.count || w->tries == WALK_TRIES_MAX) {
        w->cut |= w->next_group < w->list.count || w->at < w->found.count;
        tell(w, NULL);
        return;
    }
    w->group_from = w->next_group;
    group_start(&w->group, w->world.cache, &w->list, w->group_from, w->world.rand, loop_now_ms(w->world.loop),
                &w->next_group, &w->cut, on_group, w); /* the answers may be at hand, and w gone when it returns */
}

void walk_next(struct walk *w, walk_cb cb, void *arg) {
    CHECK(!w->cb);
    w->cb = cb;
    w->arg = arg;
    go_on(w);
}

const struct mx_target *walk_rival(struct walk *w, const char *host) {
    for (uint32_t i = 0; i < w->found.count && w->tries < WALK_TRIES_MAX; i++) {
        const struct mx_target *t = &w->found.targets[i];
        if (strcmp(t->host, host) != 0 || was_tried(w, &t->addr) ||
            dead_is(w->world.dead, &t->addr, loop_now_ms(w->world.loop)))
            continue;
        w->tried[w->tries++] = t->addr;
        return t;
    }
    return NULL;
}

enum outcome_local walk_reason(const struct walk *w) {
    if (w->bad && !w->tempfail)
        return OUTCOME_BAD_ADDRESS;
    if (w->own)
        return w->own_is_worse || (w->list.own && w->list.count) ? OUTCOME_OWN_UNRESOLVED : OUTCOME_OWN_HOST;
    if (w->tempfail)
        return OUTCOME_DNS_TEMPFAIL;
    return w->list.implicit ? OUTCOME_NO_ADDRESS : OUTCOME_MX_NOWHERE;
}

bool walk_is_complete(const struct walk *w) {
    return !w->cut && !w->tempfail;
}
