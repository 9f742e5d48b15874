/*
 * guard_inner: what the files of this room share: the rules of one configuration, which live as long as someone
 * judges by them, and the tables that outlive all configurations.
 */
#ifndef GATEWAY_GUARD_GUARD_INNER_H
#define GATEWAY_GUARD_GUARD_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/metrics.h"
#include "base/pool.h"

#include "gateway/guard/greylist.h"
#include "gateway/guard/guard.h"
#include "gateway/guard/shelf.h"

struct guard_list {
    char *zone;
    bool any; /* any answer in 127/8 */
    struct tcp_net answer;
    int32_t score;
    unsigned first;                  /* the first list of the same zone: its query serves all */
    atomic_uint_fast64_t told_until; /* errors of the zone are not logged before */
};
/* Immutable but for told_until; shared by reference. */
struct guard_rules {
    atomic_uint references;
    struct guard_config c; /* defaults filled in; strings are ours */
    struct guard_list lists[GUARD_DNSLISTS_MAX];
};
struct guard_rules *guard_rules_new(const struct guard_config *c, int *err);
void guard_rules_release(struct guard_rules *r);

enum { GUARD_ON_LISTS = 1, GUARD_ON_NAMES = 2, GUARD_ON_RATES = 4, GUARD_ON_GREY = 8 };

struct guard {
    pthread_mutex_t lock; /* of rules and grey_path */
    struct guard_rules *rules;
    char *grey_path; /* of the file that was read last */
    atomic_uint on;  /* which rules are on, so that those that are off cost no lock */
    atomic_uint slow_mode, slow_after;
    atomic_uint_fast64_t slow_ms;
    struct shelf *clients, *accounts, *good;
    struct greylist *grey;
    struct pool *pool;   /* one thread, for grey_file */
    atomic_bool writing; /* a job waits or runs */
    uint64_t write_next_ms;
};
/* A reference to the rules in force. */
struct guard_rules *guard_rules_take(struct guard *g);

/* The key of the client's network; false: no IP address. */
bool guard_network(const struct tcp_addr *client, unsigned v4_bits, unsigned v6_bits, struct shelf_key *to);

enum guard_reason {
    GUARD_BY_DNSLIST,
    GUARD_BY_CLIENT_RATE,
    GUARD_BY_ACCOUNT_RATE,
    GUARD_BY_GREYLIST,
    GUARD_BY_SLOW,
    GUARD_BY_SLOT,
    GUARD_REASONS
};
void guard_tally(enum guard_reason reason, bool enforced);
/* "refused", or "would refuse" while the rule only logs. */
const char *guard_action(enum guard_mode mode);

#endif
