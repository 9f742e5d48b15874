/*
 * group: two questions per host, counted down.
 */
#include "gateway/outbound/group.h"

static void on_set(void *arg, struct mxset *set) {
    struct group_ask *ask = arg;
    struct group *g = ask->group;
    ask->set = mxset_ref(set);
    ask->answered = true;
    if (--g->missing == 0)
        g->cb(g->arg);
}

/* A host of a route may be an address: nobody is asked. */
static bool take_literal(struct group *g, uint32_t i) {
    struct tcp_addr addr;
    if (tcp_addr_parse(&addr, span_of(g->hosts[i]), 0) != ERR_OK || addr.storage.ss_family == AF_UNIX)
        return false;
    bool v6 = tcp_addr_is_v6(&addr);
    g->a[i].set = v6 ? NULL : mxset_address(&addr);
    g->aaaa[i].set = v6 ? mxset_address(&addr) : NULL;
    g->a[i].answered = g->aaaa[i].answered = true;
    g->missing -= 2;
    return true;
}

void group_start(struct group *g, struct mxcache *cache, const struct mx_list *list, uint32_t from, struct rand *r,
                 uint64_t now_ms, uint32_t *next, bool *cut, group_cb cb, void *arg) {
    uint32_t chosen[MX_GROUP_LOOKED_AT];
    *g = (struct group){.cache = cache, .cb = cb, .arg = arg};
    uint32_t size = mx_group(list, from, r, chosen, &g->count);
    *next = from + size;
    *cut |= g->count < size;
    uint32_t count = g->count;
    g->missing = 2 * count + 1; /* one of our own, so that cb comes once, after the last question */
    for (uint32_t i = 0; i < count; i++) {
        g->hosts[i] = list->hosts[chosen[i]].name;
        g->a[i].group = g->aaaa[i].group = g;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (take_literal(g, i))
            continue;
        mxcache_ask(cache, g->hosts[i], DNS_AAAA, now_ms, on_set, &g->aaaa[i]);
        mxcache_ask(cache, g->hosts[i], DNS_A, now_ms, on_set, &g->a[i]);
    }
    if (--g->missing == 0)
        cb(arg);
}

void group_order(const struct group *g, const struct mx_policy *p, struct rand *r, struct mx_group_result *out) {
    struct mx_found found[MX_GROUP_LOOKED_AT];
    for (uint32_t i = 0; i < g->count; i++)
        found[i] = (struct mx_found){.host = g->hosts[i], .a = g->a[i].set, .aaaa = g->aaaa[i].set};
    mx_order(found, g->count, p, r, out);
}

static void end_ask(struct group *g, struct group_ask *ask) {
    if (!ask->answered)
        mxcache_cancel(g->cache, ask);
    mxset_free(ask->set);
    *ask = (struct group_ask){0};
}

void group_end(struct group *g) {
    for (uint32_t i = 0; i < g->count; i++) {
        end_ask(g, &g->a[i]);
        end_ask(g, &g->aaaa[i]);
    }
    g->count = 0;
}
