/*
 * dane: what the DNS demands of a mail host's TLS (RFC 7672): the TLSA records of a host and port, when a validating
 * resolver vouches for them.
 *
 * They are asked for only when the host's address records are vouched for, under the name at the end of its CNAME
 * chain, and when that has none, under the host's own; or when at least the host's own alias is vouched for, under the
 * host's own name. Whether the MX records were vouched for is the caller's to judge, as are the consequences; it also
 * adds the destination to the names that a certificate of usage 2 may have.
 */
#ifndef GATEWAY_OUTBOUND_DANE_H
#define GATEWAY_OUTBOUND_DANE_H

#include "base/net/tls.h"
#include "gateway/outbound/mxcache.h"

enum dane_status {
    DANE_NONE,     /* no TLSA records, or nobody vouches for them: nothing is demanded */
    DANE_USABLE,   /* one of records must match */
    DANE_UNUSABLE, /* vouched for, but none that we can use: encrypt, and do not authenticate */
    DANE_FAILED,   /* the lookup failed, or the answer is bogus: do not use this host now */
};
struct dane_answer {
    enum dane_status status;
    const struct tls_dane_record *records; /* the usable ones (usages 2 and 3) */
    size_t count;                          /* 0 unless DANE_USABLE */
    const char *base; /* the name that the records belong to, for SNI and as a reference name; the host when there are
                       * none */
    const char *why;  /* static text: what led to the status */
};
const char *dane_status_text(enum dane_status s); /* "none", "usable", "unusable", "failed" */

struct dane_ask;
/* The answer is borrowed until dane_cancel, which may come from inside. */
typedef void (*dane_cb)(void *arg, const struct dane_answer *a);
/* Lies in the caller's struct; zeroed before the first use. */
struct dane_ask {
    struct mxcache *cache;
    dane_cb cb;
    void *arg;
    uint64_t now_ms;
    uint16_t port;
    bool done;
    unsigned missing; /* answers about addresses */
    struct mxset *a, *aaaa, *tlsa;
    struct tls_dane_record *records;
    struct dane_answer answer;
    char host[DNS_NAME_MAX + 1], base[DNS_NAME_MAX + 1];
};
/* Ask each host once per delivery: the cache remembers. The answer comes through cb, possibly before this returns. host
 * (a name without a final dot) is copied. */
void dane_start(struct dane_ask *ask, struct mxcache *cache, const char *host, uint16_t port, uint64_t now_ms,
                dane_cb cb, void *arg);
/* No callback comes any more; the answer is forgotten. Fine on a zeroed or canceled one. */
void dane_cancel(struct dane_ask *ask);

#endif
