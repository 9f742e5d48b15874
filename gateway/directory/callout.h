/*
 * callout: the inside of the callout directory, shared by callout.c (the backend: addresses of the server, who asks
 * when), callout_conn.c (one connection) and callout_domain.c (does the server's yes mean anything?).
 *
 * Everything runs on the loop's thread. A connection takes a batch of questions when it is opened or free again, and
 * asks them in one transaction: MAIL FROM:<>, a RCPT TO for each, RSET.
 */
#ifndef GATEWAY_DIRECTORY_CALLOUT_H
#define GATEWAY_DIRECTORY_CALLOUT_H

#include "base/map.h"
#include "base/net/dns.h"
#include "base/net/tcp.h"

#include "gateway/directory/backend_loop.h"
#include "gateway/smtp/address.h"
#include "gateway/smtp/client.h"

enum {
    CALLOUT_BATCH = 20, /* questions of one transaction: many servers grow nasty after more unknown ones */
    CALLOUT_SLOTS = 2 * CALLOUT_BATCH,
    CALLOUT_ADDRESSES = 16,
    CALLOUT_DOMAINS = 4096,
};

struct callout_domain {
    struct map_node node;
    struct list_node order; /* least recently asked first */
    uint64_t asked_ms;      /* when the random address was asked; 0: never, or without a verdict */
    bool accepts_all;
    unsigned users; /* transactions under way that name it */
    size_t len;
    char name[ADDRESS_DOMAIN_MAX + 1];
};
struct callout {
    struct backend base;
    const struct directory_config *config;
    struct backend_loop run;
    enum client_protocol protocol;
    char host[ADDRESS_DOMAIN_MAX + 1];
    uint16_t port;
    struct dns *dns; /* NULL: the address stands in the settings */
    struct tcp_addr addresses[CALLOUT_ADDRESSES];
    size_t address_count;
    uint64_t addresses_until_ms; /* loop_now_ms; 0: to be looked up */
    struct tcp_addr fresh[CALLOUT_ADDRESSES];
    size_t fresh_count;
    uint32_t fresh_ttl_s;
    unsigned lookups; /* under way */
    const char *lookup_why;
    struct list conns;
    uint32_t most;
    struct map domains;
    struct list domain_order;
    uint64_t postmaster_until_ms; /* until then MAIL FROM:<postmaster@hostname> is said at once */
};

/* -- callout.c -- */
/* Gives the questions that wait to connections. */
void callout_pump(struct callout *c);
/* Whether the null sender was refused lately. */
bool callout_needs_postmaster(const struct callout *c);

/* -- callout_conn.c -- */
struct callout_conn;
/* Opens a connection with a first batch. False: no memory or descriptors, and the batch was answered so. */
bool callout_conn_open(struct callout *c);
/* An idle connection begins with a batch. False: none is idle. */
bool callout_conn_reuse(struct callout *c);
void callout_conns_close(struct callout *c);

/* -- callout_domain.c -- */
/* The domain's entry with one more user; NULL: no memory, or too many in use. */
struct callout_domain *callout_domain_use(struct callout *c, struct span name);
/* Whether the random address should be asked now; the caller then does so. */
bool callout_domain_is_due(struct callout *c, struct callout_domain *d);
/* What the server said to it. Logs and counts a server that accepts everything. */
void callout_domain_learn(struct callout *c, struct callout_domain *d, enum client_answer answer);
void callout_domain_leave(struct callout_domain *d);
void callout_domains_free(struct callout *c);

#endif
