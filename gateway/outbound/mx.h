/*
 * mx: from the answers of the DNS to the addresses that are tried, in order (smtp-rules lines 32-39). Pure: answers,
 * our own names and addresses, and chance are arguments.
 *
 *     mx_list_init: the MX answer -> hosts, best first, without ourselves and what is worse
 *     mx_group:     the next hosts of equal preference
 *     mx_order:     their addresses -> at most MX_TARGETS_MAX targets, or why there are none
 */
#ifndef GATEWAY_OUTBOUND_MX_H
#define GATEWAY_OUTBOUND_MX_H

#include "base/net/tcp.h"
#include "base/rand.h"
#include "gateway/outbound/mxcache.h"
#include "gateway/outbound/outcome.h"

#define MX_HOSTS_MAX DNS_RECORDS_MAX
#define MX_GROUP_LOOKED_AT 10 /* hosts of one preference whose addresses are asked for */
#define MX_GROUP_HOSTS 3      /* of them tried in one attempt */
#define MX_TARGETS_MAX 5      /* addresses of one preference tried in one attempt */
#define MX_SITE_MAX 200       /* octets of a site's name */

/* Who we are, and where mail may go. Borrowed. */
struct mx_policy {
    const char *const *own_names;
    size_t own_name_count;
    const struct tcp_addr *own_listen;
    size_t own_listen_count;
    bool (*is_local)(const struct tcp_addr *a); /* tcp_addr_is_local, or a test's */
    bool loopback_targets, prefer_ipv4;
    uint16_t port;
};
bool mx_is_own_name(const struct mx_policy *p, const char *name);
enum mx_address {
    MX_ADDRESS_GOOD,
    MX_ADDRESS_UNUSABLE, /* 0.0.0.0/8, ::, multicast, ... */
    MX_ADDRESS_LOOPBACK, /* and loopback targets are not allowed */
    MX_ADDRESS_OWN,      /* we listen there */
};
/* With loopback_targets a listener is ours only at its own port, so that servers for tests can share its address. */
enum mx_address mx_judge_address(const struct mx_policy *p, const struct tcp_addr *a);

/* From the octets of a record. */
struct tcp_addr mx_address(const uint8_t *bytes, bool v6, uint16_t port);

struct mx_host {
    const char *name; /* in the answer, or the domain itself */
    uint16_t preference;
};
struct mx_list {
    struct mxset *set;     /* holds the names; referenced */
    uint32_t count;        /* usable hosts, sorted by preference, then name */
    uint32_t dropped;      /* behind them in `hosts`: our own name, and what is not better */
    bool implicit;         /* no MX record: the domain itself */
    bool own;              /* our own name or address was in the list */
    struct mx_host *hosts; /* heap */
};
/* name: the domain asked for; it must outlive the list. ERR_OK: l->count >= 1. ERR_NOT_FOUND: nobody to ask, *what
 * tells why. ERR_NOMEM. mx_list_deinit in any case. set NULL: no memory. */
int mx_list_init(struct mx_list *l, struct mxset *set, const char *name, const struct mx_policy *p,
                 enum outcome_local *what) MUST_CHECK;
/* A list of one host without preference, such as a route's. */
int mx_list_single(struct mx_list *l, const char *host) MUST_CHECK;
/* A list of several, in an order drawn by weight, each with a preference of its own. names are borrowed. */
int mx_list_weighted(struct mx_list *l, const char *const *names, const uint32_t *weights, size_t count,
                     struct rand *r) MUST_CHECK;
void mx_list_deinit(struct mx_list *l);
/* The hosts of the group that starts at `from`: their number, and the hosts to be looked at, chosen afresh each time
 * when there are more than MX_GROUP_LOOKED_AT; out must hold as many. */
uint32_t mx_group(const struct mx_list *l, uint32_t from, struct rand *r, uint32_t out[MX_GROUP_LOOKED_AT],
                  uint32_t *looked_at);
/* The list's hosts joined: "mx1.example.net+mx2.example.net"; a long one is cut and gets a hash. Returns its length. */
size_t mx_site_name(const struct mx_list *l, char to[MX_SITE_MAX + 1]);

/* One host of a group with its answers; NULL: no memory. */
struct mx_found {
    const char *host;
    const struct mxset *a, *aaaa;
};
struct mx_target {
    const char *host;
    struct tcp_addr addr;
};
struct mx_group_result {
    uint32_t count; /* targets */
    struct mx_target targets[MX_TARGETS_MAX];
    bool own;      /* an address of ours: the group and all worse ones are out, count is 0 */
    bool tempfail; /* some host's addresses could not be found now */
    bool bad;      /* some address was one that mail never goes to */
    bool cut;      /* some hosts or addresses are not among the targets */
};
/* Shuffles the hosts, alternates families, cuts so that both families survive. */
void mx_order(const struct mx_found *found, uint32_t count, const struct mx_policy *p, struct rand *r,
              struct mx_group_result *out);

#endif
