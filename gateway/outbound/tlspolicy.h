/*
 * tlspolicy: how private the way to a domain's servers must be, and why: settings, MTA-STS (RFC 8461), REQUIRETLS
 * and TLS-Required (RFC 8689) for the domain, DANE (RFC 7672) for each host. Judged for the recipient domain before its
 * hosts are taken together as a site, and a part of the site's name, so that no domain's policy hides behind another's.
 *
 *     settings for the domain          as they say
 *     else TLS-Required: no            MAY, whatever the domain publishes
 *     else a route                     the level for routes
 *     else MTA-STS enforce             VERIFY, hosts of the policy only
 *     else                             the level for MX; DANE where hosts have TLSA records
 *     and REQUIRETLS                   at least VERIFY by DANE, MTA-STS or an MX that the DNS vouches for
 *
 * DANE that is usable for a host takes the place of MTA-STS for it (RFC 8461 section 2).
 */
#ifndef GATEWAY_OUTBOUND_TLSPOLICY_H
#define GATEWAY_OUTBOUND_TLSPOLICY_H

#include "gateway/outbound/dane.h"
#include "gateway/outbound/outbound.h"
#include "gateway/outbound/sts.h"

#define TLSPOLICY_TAG_MAX 40

/* What a domain demands. */
struct tls_demand {
    enum tls_level level;
    const struct outbound_tls_rule *rule; /* of the settings; NULL: none */
    struct sts_policy *sts;               /* referenced; NULL: none, or not heeded */
    bool dane;                            /* ask for TLSA records of hosts */
    bool vouched;                         /* the MX records are vouched for by DNSSEC, or are a setting of ours */
    bool requiretls;
    bool of_message;    /* the message asked for it; others for the domain go another way */
    const char *domain; /* of the recipients; borrowed */
    const char *why;    /* static: "the default", "a setting", "MTA-STS", "REQUIRETLS", ... */
};
struct tls_demand_question {
    const char *domain; /* of the recipients */
    bool is_route, within_host;
    bool mx_authentic;
    bool requiretls, tls_required_no;
    struct sts_policy *sts; /* what sts_ask found, or NULL; a reference is taken */
};
void tls_demand_init(struct tls_demand *d, const struct outbound_tls *settings, const struct tls_demand_question *q);
void tls_demand_deinit(struct tls_demand *d);
/* Whether sts_ask is to be asked for this domain. */
bool tls_demand_wants_sts(const struct outbound_tls *settings, const struct tls_demand_question *q);
/* What tells this demand from others in the name of a site: "" for the plain default, else "+verify", "+sts:" and 20
 * hexadecimal digits, "+encrypt+tlsa", "+tlsa+requiretls", ... */
void tls_demand_tag(const struct tls_demand *d, char to[TLSPOLICY_TAG_MAX]);
/* The rule for a domain, most specific first, or NULL. */
const struct outbound_tls_rule *tls_rule_find(const struct outbound_tls *settings, struct span domain);
const char *tls_level_name(enum tls_level level);

/* What one host must show. */
struct tls_target {
    enum tls_level level;
    const struct dane_answer *dane; /* DANE: borrowed */
    const struct tls_demand *demand;
};
enum tls_host_verdict {
    TLS_HOST_FINE,
    TLS_HOST_NOT_IN_POLICY, /* MTA-STS enforce does not name it */
    TLS_HOST_NO_TLSA,       /* the lookup failed or is bogus */
    TLS_HOST_NEEDS_TLSA,    /* a setting demands DANE, and there is none */
    TLS_HOST_NOT_VOUCHED,   /* REQUIRETLS, and nobody vouches for the host's name */
};
/* dane: the answer for this host, or NULL when it was not asked for. */
enum tls_host_verdict tls_judge_host(const struct tls_demand *d, const char *host, const struct dane_answer *dane,
                                     struct tls_target *out);
const char *tls_host_verdict_text(enum tls_host_verdict v);
/* The wish for a connection; names and records are borrowed from the target, host must outlive it. session_key must
 * hold 400 octets. False: no TLS. */
bool tls_make_wish(const struct tls_target *t, const char *host, const char *tag, struct tls_wish *w,
                   const char *names[3], char session_key[400]);

#endif
