/*
 * walk: leads one attempt from host to host: the next address to try, group by group, until
 * there is none, and then why. It knows no connection and no mail.
 */
#ifndef GATEWAY_OUTBOUND_WALK_H
#define GATEWAY_OUTBOUND_WALK_H

#include "gateway/outbound/dead.h"
#include "gateway/outbound/group.h"

#define WALK_TRIES_MAX 15 /* addresses of one attempt */

/* What a walk needs of the node; borrowed. */
struct walk_world {
    struct mxcache *cache;
    struct rand *rand;
    const struct dead *dead;
    struct loop *loop;
};
typedef void (*walk_cb)(void *arg, const struct mx_target *target); /* NULL: no more */
struct walk {
    struct walk_world world;
    struct mx_policy policy;
    struct mx_list list; /* empty: only what is in .found */
    struct group group;
    struct mx_group_result found; /* the current group */
    uint32_t at;                  /* next of found.targets */
    uint32_t group_from, next_group;
    struct tcp_addr tried[WALK_TRIES_MAX];
    uint32_t tries;
    bool own, tempfail, bad, cut; /* over all groups */
    bool own_is_worse;            /* hosts better than ourselves were in the list */
    bool ended;
    walk_cb cb;
    void *arg;
};
/* Takes over the list (it may be empty). policy: copied, its pointers are borrowed. */
void walk_init(struct walk *w, const struct walk_world *world, const struct mx_policy *policy, struct mx_list *list);
/* A walk with one address and no questions. */
void walk_init_address(struct walk *w, const struct walk_world *world, const struct mx_policy *policy, const char *host,
                       const struct tcp_addr *addr);
void walk_deinit(struct walk *w);
/* Asks for the next target; cb comes once, possibly before it returns. The target is borrowed until the next call. */
void walk_next(struct walk *w, walk_cb cb, void *arg);
/* Another address of the same host that was not tried yet, or NULL: to be tried beside the first, which is slow. It
 * counts as tried. */
const struct mx_target *walk_rival(struct walk *w, const char *host);
/* This address was tried by other means: it does not come again. */
void walk_mark(struct walk *w, const struct tcp_addr *a);
/* It may come again after all. */
void walk_unmark(struct walk *w, const struct tcp_addr *a);
/* From the first host again, without those that were tried; walk_forget: with them. */
void walk_restart(struct walk *w);
void walk_forget(struct walk *w);
/* After the end: why no target was tried at all. */
enum outcome_local walk_reason(const struct walk *w);
/* False: some hosts or addresses of the list were not among the targets. */
bool walk_is_complete(const struct walk *w);

#endif
