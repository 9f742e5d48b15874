/*
 * group: asks for the addresses of the hosts of one preference, all at once, and orders them
 * when the last answer is there. Used by a walk and by the operator's route explanation.
 */
#ifndef GATEWAY_OUTBOUND_GROUP_H
#define GATEWAY_OUTBOUND_GROUP_H

#include "gateway/outbound/mx.h"
#include "gateway/outbound/mxcache.h"

struct group;
struct group_ask {
    struct group *group;
    struct mxset *set;
    bool answered;
};
typedef void (*group_cb)(void *arg);
struct group {
    struct mxcache *cache;
    uint32_t count;   /* hosts looked at */
    uint32_t missing; /* answers */
    const char *hosts[MX_GROUP_LOOKED_AT];
    struct group_ask a[MX_GROUP_LOOKED_AT], aaaa[MX_GROUP_LOOKED_AT];
    group_cb cb;
    void *arg;
};
/* Starts with the hosts of `list` at `from`; *next is the start of the next group, *cut is set when not all are looked
 * at. cb comes when all is answered, possibly before it returns. The names must outlive the group. */
void group_start(struct group *g, struct mxcache *cache, const struct mx_list *list, uint32_t from, struct rand *r,
                 uint64_t now_ms, uint32_t *next, bool *cut, group_cb cb, void *arg);
/* After cb. */
void group_order(const struct group *g, const struct mx_policy *p, struct rand *r, struct mx_group_result *out);
/* Forgets the answers; no cb comes any more. Fine on a zeroed group. */
void group_end(struct group *g);

#endif
