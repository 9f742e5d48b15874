/*
 * tlsrpt: TLS reports (RFC 8460): counts how TLS went with each recipient domain, and once a day tells those domains
 * that want to hear (TXT _smtp._tls.DOMAIN) by HTTPS and by mail.
 *
 * Sessions are counted per UTC day, domain, policy and result, in bounded memory: over TLSRPT_DOMAINS or TLSRPT_BYTES
 * new domains go uncounted (a metric says how many sessions); over TLSRPT_ROWS failures of one domain lose their
 * details and keep their number. When a day is over its reports go out, spread over the hours that `jitter_ms` gives;
 * what could not be handed over is tried again for a day, then dropped and logged. Belongs to one loop; the wall clock
 * is an argument.
 */
#ifndef GATEWAY_OUTBOUND_TLSRPT_H
#define GATEWAY_OUTBOUND_TLSRPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/net/http.h"
#include "base/net/loop.h"
#include "base/span.h"
#include "gateway/outbound/mxcache.h"
#include "gateway/outbound/tlsrpt_rua.h"

#define TLSRPT_DOMAINS 50000u
#define TLSRPT_ROWS 100u   /* kinds of failure with details, for one domain */
#define TLSRPT_POLICIES 8u /* different policies of one domain in one day */
#define TLSRPT_BYTES ((size_t)64 << 20)
#define TLSRPT_JITTER_MS (4u * 3600000u)
#define TLSRPT_RETRY_MS (24u * 3600000u)

enum tlsrpt_policy { TLSRPT_NO_POLICY, TLSRPT_STS, TLSRPT_TLSA };
enum tlsrpt_result { /* RFC 8460 section 4.3 */
                     TLSRPT_SUCCESS,
                     TLSRPT_STARTTLS_NOT_SUPPORTED,
                     TLSRPT_CERTIFICATE_HOST_MISMATCH,
                     TLSRPT_CERTIFICATE_EXPIRED,
                     TLSRPT_CERTIFICATE_NOT_TRUSTED,
                     TLSRPT_VALIDATION_FAILURE,
                     TLSRPT_TLSA_INVALID,
                     TLSRPT_DNSSEC_INVALID,
                     TLSRPT_DANE_REQUIRED,
                     TLSRPT_STS_POLICY_FETCH_ERROR,
                     TLSRPT_STS_POLICY_INVALID,
                     TLSRPT_STS_WEBPKI_INVALID,
                     TLSRPT_RESULTS
};
/* One session, or one that was not begun. Borrowed; texts may be NULL and may hold any octets. */
struct tlsrpt_event {
    const char *domain; /* the recipient's */
    enum tlsrpt_policy policy;
    const char *const *lines; /* of the policy: sts_policy's lines, or TLSA records as text */
    size_t line_count;
    enum tlsrpt_result result;
    const char *mx; /* host that was to be spoken to */
    const char *sending_ip, *receiving_ip;
    const char *reason; /* failure-reason-code: one line */
};

/* A report as mail, ready to go but for its signature. Borrowed for the call. */
struct tlsrpt_mail {
    const char *from, *to; /* addresses, local@domain */
    struct span message;   /* header and body, CRLF */
};
typedef void (*tlsrpt_mailed_cb)(void *arg, bool kept); /* false: try later */
/* Takes a mail over; cb exactly once, never inside the call, unless an error is returned. It signs (RFC 8460
 * section 3 wants DKIM) or sees to it that somebody does: post_mail. */
typedef int (*tlsrpt_mailer)(void *arg, const struct tlsrpt_mail *m, tlsrpt_mailed_cb cb, void *cb_arg);

struct tlsrpt_config {
    const char *organization; /* organization-name */
    const char *contact;      /* contact-info: an address or a URL */
    const char *hostname;     /* TLS-Report-Submitter, and in file names */
    const char *name;         /* of the node: reports of two nodes are two reports */
    const char *from;         /* address that mailed reports come from; NULL or "": none are mailed */
    const char *file;         /* counts are kept across restarts, or NULL */
    uint64_t offset_ms;       /* how long after midnight UTC reports begin to go */
    uint64_t jitter_ms;       /* spread over this much more; TLSRPT_JITTER_MS is usual, 0 is none */
    uint64_t seed;            /* of the jitter */
    uint64_t retry_first_ms;  /* 0: 10 minutes; doubles */
    const char *connect_to;   /* tests: "host:port" of all HTTPS destinations; NULL */
    mxcache_query query;      /* for TXT: dns_query, or a test's */
    void *dns;
    tlsrpt_mailer mailer; /* NULL: none are mailed */
    void *mailer_arg;
};
struct tlsrpt;
/* Copies the texts; borrows http, which must outlive it. Reads the file: a missing or damaged one begins empty, which
 * is logged. ERR_NOMEM. */
int tlsrpt_new(struct tlsrpt **t, struct loop *l, struct http *http, const struct tlsrpt_config *c,
               uint64_t wall_ms) MUST_CHECK;
/* Writes the file. No DNS query and no mail may be under way (free the resolver and close the mailer first). */
void tlsrpt_free(struct tlsrpt *t);
void tlsrpt_set_dns(struct tlsrpt *t, void *dns);
void tlsrpt_count(struct tlsrpt *t, uint64_t wall_ms, const struct tlsrpt_event *e);
/* About once a second: ends the day, sends what is due, writes the file when something changed. */
void tlsrpt_tick(struct tlsrpt *t, uint64_t wall_ms);
/* Domains of the day under way, and of days whose reports are not out yet. */
size_t tlsrpt_domains(const struct tlsrpt *t);
size_t tlsrpt_pending(const struct tlsrpt *t);
const char *tlsrpt_result_name(enum tlsrpt_result r); /* "success", "starttls-not-supported", … */

#endif
