/*
 * dns: the door to c-ares: asks for MX, A, AAAA, PTR, TXT and TLSA without blocking.
 *
 * It asks and parses; caching and meaning belong to the callers (gateway/outbound/mxcache).
 * Answers are parsed by our own bounded parser (dns_parse.h, no c-ares in it), since
 * c-ares 1.18 gives no TTL for MX and no SOA for NXDOMAIN.
 */
#ifndef BASE_NET_DNS_H
#define BASE_NET_DNS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/net/loop.h"
#include "base/net/tcp.h"
#include "base/span.h"

enum dns_type {
    DNS_A = 1,
    DNS_CNAME = 5,
    DNS_SOA = 6,
    DNS_PTR = 12,
    DNS_MX = 15,
    DNS_TXT = 16,
    DNS_AAAA = 28,
    DNS_TLSA = 52
};
enum dns_status {
    DNS_OK,       /* records of the asked type follow (count >= 1) */
    DNS_NODATA,   /* the name exists, no such record; ttl_s is the negative TTL */
    DNS_NXDOMAIN, /* the name does not exist; ttl_s is the negative TTL */
    DNS_TEMPFAIL, /* SERVFAIL, REFUSED, timeout, cut or malformed answer; why tells which */
    DNS_LOOP,     /* the CNAME chain loops or is longer than 8 */
};
#define DNS_NAME_MAX 255    /* text form, without the final dot */
#define DNS_RECORDS_MAX 200 /* more are cut off, lowest preference kept; `truncated` is set */

#define DNS_PENDING_MAX 10000

struct dns_record {
    uint16_t preference;         /* MX */
    char name[DNS_NAME_MAX + 1]; /* MX, PTR or CNAME target, lower case, no final dot; "" is the root (null MX) */
    uint8_t addr[16];            /* A (4 bytes) or AAAA (16 bytes) */
    struct span data;            /* TXT, TLSA: as it stands in the packet; valid in the callback only */
};
/* Of a TXT record: its strings joined, as octets of strangers (any octet may be there), with a NUL behind them. Returns
 * the whole length; what is over size - 1 was cut. size > 0. */
size_t dns_record_text(const struct dns_record *r, char *to, size_t size);
/* Of a TLSA record. association lies in the packet and is never empty. */
struct dns_tlsa {
    uint8_t usage, selector, matching;
    struct span association;
};
struct dns_tlsa dns_record_tlsa(const struct dns_record *r);

/* The longest zone that has room for every address before it. */
#define DNS_REVERSE_ZONE_MAX 189
/* The name under which an address stands in a zone: "4.3.2.1.zone", or 32 nibbles for IPv6 (IPv4-mapped counts as
 * IPv4). zone NULL: in-addr.arpa or ip6.arpa. ERR_INVALID: no IP address; ERR_RANGE: the name would be too long. */
int dns_reverse_name(const struct tcp_addr *a, const char *zone, char to[DNS_NAME_MAX + 1]) MUST_CHECK;

struct dns_answer {
    enum dns_status status;
    const char *why; /* static text for TEMPFAIL, LOOP and a bad name, else "" */
    uint32_t ttl_s;  /* the smallest of all records used; bounded to [0, 7 days] */
    bool authentic;  /* AD bit: the whole answer was validated, every link of its CNAME chain included */
    bool truncated;  /* more than DNS_RECORDS_MAX records */
    char canonical[DNS_NAME_MAX + 1]; /* the name at the end of the CNAME chain, "" when there is no chain */
    size_t count;
    struct dns_record *records; /* MX: sorted by preference, then name; valid in the callback only */
};

struct dns;
/* servers: "127.0.0.1:5302,[::1]:53", or NULL for the system's. ERR_INVALID for bad text. */
int dns_new(struct dns **d, struct loop *l, const char *servers, uint32_t timeout_ms, uint32_t tries) MUST_CHECK;
/* Pending queries end with DNS_TEMPFAIL "canceled". Not from inside a dns_cb. */
void dns_free(struct dns *d);
typedef void (*dns_cb)(void *arg, const struct dns_answer *a);
/* For A, AAAA, MX, PTR, TXT, TLSA and CNAME (others end with DNS_TEMPFAIL); CNAME: the alias itself. At most
 * DNS_PENDING_MAX queries wait at a time; more end with DNS_TEMPFAIL. Always answers through cb, possibly before it
 * returns. name without trailing dot; labels with bytes other than letters, digits, '-', '_' are refused as
 * DNS_NXDOMAIN "bad name". */
void dns_query(struct dns *d, const char *name, enum dns_type type, dns_cb cb, void *arg);
/* Abandons all queries of this arg: no callback comes. */
void dns_cancel(struct dns *d, void *arg);

#endif
