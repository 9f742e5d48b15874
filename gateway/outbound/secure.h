/*
 * secure: the TLS side of an attempt: finds out what the destination demands (tlspolicy.h) before the site is named,
 * judges each host before it is connected to, and counts how it went for reports (RFC 8460).
 */
#ifndef GATEWAY_OUTBOUND_SECURE_H
#define GATEWAY_OUTBOUND_SECURE_H

#include "gateway/outbound/tlspolicy.h"

struct attempt;
struct conn;
struct attempt_result;

/* What an attempt knows of TLS; zeroed with it. */
struct secure {
    struct sts_wait sts;
    struct dane_ask dane;
    struct tls_demand demand;
    bool has_demand;
    bool mx_authentic;
    const char *site;            /* its name without the tag; in the attempt's arena */
    char tag[TLSPOLICY_TAG_MAX]; /* of the demand */
    bool judged;                 /* .target is what the next host must show */
    bool plain;                  /* TLS failed with this host, and it may be done without */
    struct tls_target target;
};

/* The hosts are known: site is their name. Calls attempt_join, at once or when the MTA-STS policy is known. */
void secure_begin(struct attempt *a, const char *site, bool mx_authentic);
/* Judges a->target before it is connected to. True: go on; false: secure_judged was, or will be, called. */
bool secure_target(struct attempt *a);
/* TLS failed or is refused: true where the same host may be asked again in the clear; .plain is set then. */
bool secure_may_fall_back(struct attempt *a, const struct client_event *e);
/* REQUIRETLS, and no TLS with this host: permanent when it is so with all (RFC 8689 section 4.2.1). */
bool secure_is_final(const struct attempt *a, const struct client_event *e);
/* How TLS went with this connection: it is up, or ended at this event. */
void secure_count(struct attempt *a, const struct conn *c, const struct client_event *end);
void secure_end(struct attempt *a);
/* Reads the settings for the node: client context, MTA-STS, reports. */
struct outbound;
int secure_open(struct outbound *o) MUST_CHECK;
void secure_tick(struct outbound *o);
void secure_close(struct outbound *o);

#endif
