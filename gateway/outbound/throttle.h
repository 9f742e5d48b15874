/*
 * throttle: pace.h, rules.h and sources.h as attempts, sites and connections meet them: who may go now, who waits
 * here for a moment, who is sent back until later, from which of our addresses, and what a reply changes in this.
 */
#ifndef GATEWAY_OUTBOUND_THROTTLE_H
#define GATEWAY_OUTBOUND_THROTTLE_H

#include "gateway/outbound/health.h"
#include "gateway/outbound/pace.h"
#include "gateway/outbound/rules.h"
#include "gateway/outbound/sources.h"

#define THROTTLE_HOLD_MS 2000u /* a job that may go this soon waits here */
#define THROTTLE_PLAIN_MAX 400 /* octets of a name of a note */

struct outbound;
struct attempt;
struct attempt_result;
struct conn;
struct site;

enum { THROTTLE_SITE, THROTTLE_DOMAIN, THROTTLE_RATES };
/* What an attempt knows of it; zeroed with it. */
struct throttle {
    const struct outbound_pool *pool; /* of the attempt's setup; NULL: the system's address */
    const char *plain;                /* the site's name as the scheduler knows it: without the pool */
    const struct outbound_rate *rate[THROTTLE_RATES];
    struct pace_entry *entry[THROTTLE_RATES];
    bool admitted, held, charged;
    uint32_t elsewhere; /* times it went on from another address */
    uint64_t pause_ms;  /* for the report: the site rests for so long */
    uint64_t wait_ms;   /* for the report: these recipients come again after so long */
    const char *why;
};

/* A note about pace by this name, with a reference; NULL: no room. */
struct pace_entry *throttle_note(struct outbound *o, const char *key);
/* The name under which the attempt's connections are kept; NULL: no memory. */
const char *throttle_name(struct attempt *a, const char *site);
/* a->site is known. False: it may not go now and was handed back. */
bool throttle_join(struct attempt *a);
/* It waits for its turn: may it have it? */
bool throttle_may_go(struct attempt *a);
/* It has its turn. */
void throttle_admit(struct attempt *a);
/* The attempt ends. */
void throttle_end(struct attempt *a);
/* Some address of ours can reach the target. False: attempt_skip_host was called. */
bool throttle_target(struct attempt *a);
/* Some address of the pool may be used with this server now. */
bool throttle_has_source(struct attempt *a, const struct tcp_addr *to);
/* It is not used for so long, at this site or (NULL) at all: not the server has failed, but the way from us. */
void throttle_rest_source(struct attempt *a, const struct outbound_source *s, const char *site, uint64_t ms);
/* For a new connection; NULL: the system's choice. */
const struct outbound_source *throttle_source(struct attempt *a, const struct tcp_addr *to);
/* Some address of its pool may be used with this server that has not failed with it in this attempt. proven: and that
 * is known to be well at this site. */
bool throttle_has_other(struct attempt *a, const struct tcp_addr *to, bool proven);
/* Where no address of its pool is left, the site rests for this pool until the first one comes back. */
void throttle_rest_pool(struct attempt *a);
/* A transaction begins on a->conn. */
void throttle_count(struct attempt *a);
uint32_t throttle_recipients(const struct attempt *a, uint32_t max);
/* The address of this connection should carry no more. */
bool throttle_conn_is_worn(const struct conn *c);
/* A server has answered: the rules may change the verdict, pause and slow. */
void throttle_judge(struct attempt *a, struct conn *c, const struct client_event *e, struct attempt_result *r);
/* After throttle_judge: true, once or twice, when the same host should be asked from another address. */
bool throttle_goes_elsewhere(struct attempt *a, const struct conn *c);

/* Does some host in the name of a site match? */
bool throttle_site_matches(const char *pattern, const char *site);
uint64_t throttle_site_left_ms(const struct site *s);
uint32_t throttle_site_limit(const struct site *s, uint32_t allowed);
/* It was paused: its job is handed back, with the time that is left. */
void throttle_hand_back(struct attempt *a);
/* Looks at the sites that wait again after so long. */
void throttle_wake(struct outbound *o, uint64_t ms);

int throttle_open(struct outbound *o) MUST_CHECK;
void throttle_tick(struct outbound *o);
void throttle_close(struct outbound *o);

#endif
