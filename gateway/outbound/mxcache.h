/*
 * mxcache: what the DNS answered, kept for as long as it said (smtp-rules lines 34-36): MX, A, AAAA, CNAME, TXT and
 * TLSA. Answers by their TTL, at most a day; absence by the SOA's minimum, at most an hour; failures for seconds, so
 * that a broken name server is not asked once per message.
 *
 * One query is under way per name and type, however many wait for it. Entries and octets are
 * bounded; the least recently used go first. Belongs to one loop; it reads no clock.
 */
#ifndef GATEWAY_OUTBOUND_MXCACHE_H
#define GATEWAY_OUTBOUND_MXCACHE_H

#include "base/err.h"
#include "base/net/dns.h"

#define MXCACHE_KEEP_MS_MAX (24u * 3600u * 1000u)
#define MXCACHE_NEGATIVE_MS_MAX (3600u * 1000u)
#define MXCACHE_FAILURE_MS 5000u

/* One answer, shared by reference. */
struct mxrecord {
    uint16_t preference;
    uint8_t usage, selector, matching; /* TLSA */
    const char *name;                  /* MX, CNAME: target, "" is the root */
    uint8_t addr[16];                  /* A (4 octets), AAAA */
    struct span data; /* TLSA: the association; TXT: its strings joined (any octets), NUL behind them */
};
struct mxset {
    uint32_t refs;
    enum dns_status status;
    const char *why;     /* static */
    uint64_t expires_ms; /* in the time of now_ms */
    bool authentic;      /* a validating resolver vouches for the whole answer */
    bool truncated;
    const char *canonical; /* the name that the records belong to when the one asked for is an alias, else "" */
    size_t bytes;
    uint32_t count;
    struct mxrecord records[]; /* MX: sorted by preference, then name */
};
struct mxset *mxset_ref(struct mxset *s); /* NULL stays NULL */
/* An answer of one address, as if the DNS had given it. NULL: no memory. */
struct tcp_addr;
struct mxset *mxset_address(const struct tcp_addr *a) MUST_CHECK;
void mxset_free(struct mxset *s); /* drops one reference; NULL is fine */
/* Whole seconds that it may still be kept. */
uint32_t mxset_ttl_s(const struct mxset *s, uint64_t now_ms);

/* dns_query, or a test's. */
typedef void (*mxcache_query)(void *dns, const char *name, enum dns_type type, dns_cb cb, void *arg);
/* set is borrowed for the call; NULL: no memory. */
typedef void (*mxcache_cb)(void *arg, struct mxset *set);

struct mxcache;
struct mxcache *mxcache_new(size_t entries_max, size_t bytes_max, mxcache_query query, void *dns) MUST_CHECK;
/* No query may be under way (free the resolver first). */
void mxcache_free(struct mxcache *c);
/* Another resolver for queries from now on. */
void mxcache_set_dns(struct mxcache *c, void *dns);
/* Answers through cb, possibly before it returns. Lives are counted from the time of asking. */
void mxcache_ask(struct mxcache *c, const char *name, enum dns_type type, uint64_t now_ms, mxcache_cb cb, void *arg);
/* A fresh answer that is at hand, borrowed until the next call, or NULL. */
struct mxset *mxcache_peek(struct mxcache *c, const char *name, enum dns_type type, uint64_t now_ms);
/* No callback comes for this arg any more. */
void mxcache_cancel(struct mxcache *c, void *arg);
size_t mxcache_count(const struct mxcache *c);

#endif
