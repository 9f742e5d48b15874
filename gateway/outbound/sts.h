/*
 * sts: MTA-STS policies of recipient domains (RFC 8461, smtp-rules line 51): asks the DNS whether there is one, fetches
 * it over HTTPS, keeps it until its max_age is over, also across restarts.
 *
 * A policy that is at hand is told at once, and looked after behind the caller's back: when its TXT record's time is
 * over it is asked again, and a new id fetches anew; once a day a domain in use is fetched anew whatever its id.
 * Neither a lost record nor a dead host ends a cached policy before its time; only a fetched one of mode none
 * does. One look-up is under way per domain, however many ask. Entries and octets are bounded; the least recently used
 * go first. Belongs to one loop; the wall clock is an argument.
 */
#ifndef GATEWAY_OUTBOUND_STS_H
#define GATEWAY_OUTBOUND_STS_H

#include "base/list.h"
#include "base/net/http.h"
#include "base/net/loop.h"
#include "gateway/outbound/mxcache.h"
#include "gateway/smtp/sts_policy.h"

#define STS_ENTRIES 10000u
#define STS_BYTES ((size_t)32 << 20)
#define STS_WAIT_MS 10000u           /* default of fetch_timeout_ms */
#define STS_FETCH_MS 60000u          /* how long a fetch may take, whoever still waits (section 3.3) */
#define STS_FAILURE_MS (5u * 60000u) /* a failed fetch is not repeated before */
#define STS_REFRESH_MS (24u * 3600000u)
#define STS_IN_USE_MS (7u * STS_REFRESH_MS) /* asked for within: refreshed */

/* Why a policy that the DNS announced is not known; the names of RFC 8460 section 4.3. */
enum sts_failure { STS_FETCH_ERROR, STS_POLICY_BAD, STS_WEBPKI };
/* Told once for each fetch that failed. Borrowed texts. Must not call sts_ask, sts_cancel or sts_free. */
typedef void (*sts_failed_cb)(void *arg, const char *domain, enum sts_failure failure, const char *why);

struct sts_config {
    const char *file;          /* kept across restarts, or NULL */
    const char *connect_to;    /* tests: "host:port" for all policy hosts; NULL: as the DNS says */
    uint64_t fetch_timeout_ms; /* how long callers wait for a first policy; 0: STS_WAIT_MS */
    uint64_t failure_ms;       /* 0: STS_FAILURE_MS */
    uint32_t entries;          /* 0: STS_ENTRIES */
    mxcache_query query;       /* for TXT: dns_query, or a test's */
    void *dns;
    sts_failed_cb failed; /* or NULL */
    void *failed_arg;
};
struct sts;
/* Borrows http (its ca_file is the trust), which must outlive it. Reads the file: a missing or damaged one begins
 * empty, which is logged. wall_ms: policies that are over are left out. ERR_NOMEM. */
int sts_new(struct sts **s, struct loop *l, struct http *http, const struct sts_config *c, uint64_t wall_ms) MUST_CHECK;
/* Writes the file, forgets waits without calling back. No DNS query may be under way (free the resolver first). Not
 * from inside a callback. */
void sts_free(struct sts *s);
/* Another resolver for queries from now on. */
void sts_set_dns(struct sts *s, void *dns);

/* policy: NULL: none is known, and mail goes on without (why: a static text, "" when the domain has none). Else it is
 * not over, of mode testing or enforce, and borrowed for the call: sts_policy_ref keeps it. */
typedef void (*sts_cb)(void *arg, struct sts_policy *policy, const char *why);
struct sts_wait { /* in the caller's struct, zeroed before its first use */
    struct list_node node;
    struct list *in; /* NULL: it waits for nothing */
    sts_cb cb;
    void *arg;
    struct sts_policy *policy; /* once there is an answer */
    const char *why;
};
/* domain: the recipient's, canonical (A-labels); any case. cb exactly once, possibly before this returns; the wait may
 * be used again inside its cb. */
void sts_ask(struct sts *s, struct sts_wait *w, const char *domain, uint64_t wall_ms, sts_cb cb, void *arg);
/* No callback comes any more. A wait that is over or was never used is fine. */
void sts_cancel(struct sts_wait *w);
/* A policy that is at hand, borrowed until the next call, or NULL. Asks nobody. */
struct sts_policy *sts_peek(struct sts *s, const char *domain, uint64_t wall_ms);
/* About once a second: refreshes, forgets what is over, writes the file when something changed. */
void sts_tick(struct sts *s, uint64_t wall_ms);
size_t sts_count(const struct sts *s);

#endif
