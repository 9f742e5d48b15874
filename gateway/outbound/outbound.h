/*
 * outbound: the delivery node: takes jobs from the scheduler, resolves the hosts, delivers, and
 * reports every recipient once. It keeps connections and what it has not yet reported, nothing else.
 *
 * Owned by node/, which calls it from the main thread. One thread with one event loop; a bus peer
 * to the scheduler's hub and one to the admin hub.
 */
#ifndef GATEWAY_OUTBOUND_OUTBOUND_H
#define GATEWAY_OUTBOUND_OUTBOUND_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/bus.h"
#include "base/net/tcp.h"

enum route_kind { ROUTE_MX, ROUTE_SMTP, ROUTE_LMTP };
struct route {
    enum route_kind kind;
    char host[256]; /* smtp, lmtp: host or address; mx: domain to ask instead, "" for the destination itself.
                       lmtp may be "unix:/path" */
    uint16_t port;  /* 0: the default port */
};
/* "mx", "mx:DOMAIN", "smtp:HOST[:PORT]", "lmtp:HOST[:PORT]", "lmtp:unix:/PATH"; IPv6 in brackets. ERR_INVALID */
int route_parse(struct route *r, struct span text) MUST_CHECK;

struct outbound_login {
    const char *user, *password; /* XOAUTH2: the password is the token */
    const char *mechanisms;      /* "SCRAM-SHA-256 PLAIN"; NULL: SCRAM-SHA-256, PLAIN or LOGIN */
};
struct outbound_target { /* one of several hosts of a route */
    char host[256];
    uint32_t weight; /* its share of the first tries */
};
#define OUTBOUND_TARGETS_MAX 16
/* As route_parse, and "smtp:HOST[*WEIGHT],HOST...[:PORT]" for several hosts, tried in an order drawn by weight; the
 * port is for all. *count is 0 for a single one. ERR_INVALID. */
int route_parse_targets(struct route *r, struct span text, struct outbound_target targets[OUTBOUND_TARGETS_MAX],
                        size_t *count) MUST_CHECK;
struct outbound_route {
    const char *domain;                    /* canonical; ".example" also matches below example */
    struct route route;                    /* its host is that of the first target */
    const struct outbound_target *targets; /* smtp, lmtp: all of them, when there are several */
    size_t target_count;
    const struct outbound_login *login; /* NULL: none */
    bool xclient, xforward;             /* tell its servers of the client, where they have it */
};
/* How private the way to a server must be (delivery.tls). */
enum tls_level {
    TLS_LEVEL_NONE,        /* in the clear */
    TLS_LEVEL_MAY,         /* encrypted when the server can, whoever it is */
    TLS_LEVEL_ENCRYPT,     /* encrypted, whoever it is */
    TLS_LEVEL_VERIFY,      /* and its certificate is good for its name */
    TLS_LEVEL_DANE,        /* and the DNS vouches for its certificate (RFC 7672) */
    TLS_LEVEL_FINGERPRINT, /* and its certificate or key is one of these */
};
struct outbound_tls_rule {
    const char *domain; /* canonical; ".example" also matches below example; "*" */
    enum tls_level level;
    const char *const *names; /* VERIFY: that the certificate may be good for; none: the host's own */
    size_t name_count;
    const char *const *fingerprints; /* SHA-256, hex, of the certificate or its public key */
    size_t fingerprint_count;
};
struct outbound_tls_reports { /* RFC 8460 */
    const char *organization; /* who we are; NULL: nothing is counted and none are sent */
    const char *contact;      /* address or URL */
    const char *from;         /* address that mailed reports come from; NULL: by HTTPS only */
    const char *file;         /* counts are kept in it across restarts, or NULL */
    uint64_t spread_ms;       /* over how long after midnight UTC they go out */
};
struct outbound_tls {
    enum tls_level level;          /* where no rule says otherwise, by MX */
    enum tls_level route_level;    /* the same on smtp: and lmtp: routes over the network */
    bool dane, mta_sts;            /* heed TLSA records and MTA-STS policies */
    const char *ca_file;           /* NULL: the system's */
    const char *certificate, *key; /* of ours, for servers that ask; or NULL */
    const char *sts_file;          /* MTA-STS policies are kept in it across restarts, or NULL */
    const char *sts_connect_to;    /* tests: HOST:PORT of all policy hosts */
    const struct outbound_tls_rule *rules;
    size_t rule_count;
    struct outbound_tls_reports reports;
};
struct outbound_rate {  /* of the first entry whose pattern matches (rules_pattern); one for sites, one for domains */
    const char *site;   /* pattern of a host of the site, */
    const char *domain; /* or of the destination */
    uint32_t messages;  /* in each window; 0: any number */
    uint64_t window_ms;
    uint32_t connections, per_connection, recipients; /* 0: those of the limits */
};
#define OUTBOUND_SOURCES_MAX 64 /* addresses of one pool */
enum outbound_egress_kind { EGRESS_DIRECT, EGRESS_SOCKS5, EGRESS_PROXY_V2 };
struct outbound_egress { /* how an address is used that this host does not have */
    enum outbound_egress_kind kind;
    struct tcp_addr address;     /* of the proxy */
    const char *user, *password; /* SOCKS5; or both NULL */
};
struct outbound_source {
    struct tcp_addr address;
    struct outbound_egress egress;
    const char *ehlo; /* NULL: the host name */
    uint32_t weight;
    uint32_t warm_first;  /* messages of the first day; 0: no warm-up */
    uint32_t warm_growth; /* percent more each day */
    uint32_t warm_day;    /* the first day, since 1970 */
};
struct outbound_pool {
    const char *name;
    const struct outbound_source *sources;
    size_t source_count;
    const char *const *senders; /* addresses, domains, .DOMAIN */
    size_t sender_count;
    const char *const *accounts; /* who logged in: names, @DOMAIN; a pool of neither takes all others */
    size_t account_count;
};
struct rules;
struct outbound_timeouts { /* smtp-rules.md line 40, milliseconds */
    uint64_t connect_ms, greeting_ms, ehlo_ms, mail_ms, rcpt_ms, data_ms, block_ms, dot_ms, quit_ms, idle_ms;
};
struct outbound_settings {
    const char *hostname, *name;
    const char *const *own_names; /* hostname and other names of ours, for own-host elimination */
    size_t own_name_count;
    const struct tcp_addr *own_listen; /* our listening addresses (0.0.0.0: all local addresses) */
    size_t own_listen_count;
    const char *dns; /* "127.0.0.1:53,…" or NULL: the system's */
    uint16_t port;   /* 25 */
    bool loopback_targets;
    bool prefer_ipv4;
    const struct outbound_route *routes; /* own domains and routes, most specific wins */
    size_t route_count;
    uint32_t connections, per_site, messages_per_connection, recipients_per_transaction;
    struct outbound_timeouts timeouts;
    struct outbound_tls tls;
    struct rules *rules; /* reply rules, or NULL; a reference is taken */
    const struct outbound_rate *rates;
    size_t rate_count;
    const struct outbound_pool *pools;
    size_t pool_count;
};
/* Fills every number with the documented default. */
void outbound_defaults(struct outbound_settings *s);

struct outbound_config {
    struct bus *bus;
    const char *scheduler, *admin; /* endpoints; admin may be NULL */
    uint32_t jobs_max;             /* jobs held at once, default 2000 */
    uint64_t bytes_max;            /* body bytes inside jobs, default 64 MiB */
    /* Appends whole header fields (a DKIM signature) for mail of our own from this address, or nothing; NULL: unsigned.
     * Called on the node's thread. */
    int (*sign)(void *arg, const char *from, struct span message, struct buf *to);
    void *sign_arg;
};
struct outbound;
int outbound_start(struct outbound **o, const struct outbound_config *c, const struct outbound_settings *s) MUST_CHECK;
int outbound_reconfigure(struct outbound *o, const struct outbound_settings *s) MUST_CHECK; /* thread-safe; copies */
/* Hands back what is not on a connection, finishes what is; done when all is reported and acknowledged or after
 * timeout_ms. */
void outbound_drain(struct outbound *o, uint64_t timeout_ms, void (*done)(void *arg), void *arg);
/* Thread-safe. While paused the scheduler is told that nothing is wanted here, what is not on a connection goes back to
 * it, and the rest is finished. */
void outbound_pause(struct outbound *o, bool paused);
void outbound_stop(struct outbound *o);

#endif
