/*
 * health: how our addresses fare, each at each site. A server that one address of a pool cannot reach is asked from
 * another at once: when that one gets through, the fault is the first address's, and it rests at this site, longer each
 * time; when it does not, the fault is the server's. So a site is not held to be dead for one bad address of ours.
 *
 * An address also has a window at each site, of connections: a site that fails it in mid-dialogue makes the window
 * smaller, mail that is taken makes it grow. The windows of the others do not change, and the mail goes on from them.
 */
#ifndef GATEWAY_OUTBOUND_HEALTH_H
#define GATEWAY_OUTBOUND_HEALTH_H

#include "gateway/outbound/outbound.h"
#include "gateway/outbound/pace.h"

#define HEALTH_REST_FIRST_MS 30000u /* doubled each time, with up to an eighth of chance on top */
#define HEALTH_REST_MAX_MS 3600000u
#define HEALTH_KEEP_MS 7200000u /* failures and windows are remembered for so long after the last */
#define HEALTH_WELL_MS 600000u  /* so long a success at a site vouches for it */
#define HEALTH_AGAIN_MS 60000u  /* after two addresses failed with a server, no more are compared for so long */
#define HEALTH_COMPARISONS 2    /* for one server, in one attempt; after a time-out one */
#define HEALTH_KEY_MAX 400

struct outbound;
struct attempt;
struct attempt_result;
struct client_event;
struct conn;
struct site;

/* What an attempt knows of it; zeroed with it. Bits are places in its pool. */
struct health {
    struct tcp_addr target; /* a server that failed the suspects, one after the other: others of the pool may try */
    uint64_t suspects;
    uint64_t barred; /* never got as far as a session, on some host, or failed in it as the only one */
    uint64_t failed; /* the same, or later */
    bool throttled;  /* the last one failed in a session */
    const char *why; /* of the last one barred */
};

/* "from 192.0.2.1 at mx.example", "from 192.0.2.1"; false: too long. */
bool health_key(char key[HEALTH_KEY_MAX], const struct site *site, const struct outbound_source *s);

/* A rest after so many failures in a row before this one, without the chance on top. */
uint64_t health_rest_ms(uint32_t failures);

/* -- choosing -- */
uint64_t health_left_ms(const struct outbound *o, const struct site *site, const struct outbound_source *s);
/* Below its window. */
bool health_has_room(const struct outbound *o, const struct site *site, const struct outbound_source *s);
/* It has failed with this server in this attempt. */
bool health_is_suspect(const struct attempt *a, const struct tcp_addr *to, const struct outbound_source *s);
/* Another source has failed with this server in this attempt: this one should be known to be well. */
bool health_is_comparing(const struct attempt *a, const struct tcp_addr *to);
bool health_is_well(const struct outbound *o, const struct site *site, const struct outbound_source *s);
/* Connections that the windows of the site's pool allow together, of those that would be allowed. */
uint32_t health_connections(const struct site *s, uint32_t allowed);
/* The address is, or is not, this host's now: logged when it changes. */
void health_note_here(struct outbound *o, const struct outbound_source *s, bool here);

/* -- for conn.c -- */
void health_on_open(struct conn *c);
void health_on_close(struct conn *c);
/* The session has begun. */
void health_on_established(struct conn *c);

/* -- for transact.c and attempt.c -- */
/* Something was answered, or the connection has ended. */
void health_on_result(struct attempt *a, const struct conn *c, const struct client_event *e,
                      const struct attempt_result *r);
/* The connection has ended before its session began. True: the same server is asked from another address, and a may
 * have ended. */
bool health_compare(struct attempt *a, const struct conn *c, const struct client_event *e,
                    const struct attempt_result *r, int err);
/* Every host has failed this attempt. True: others of our addresses get through, so that nothing is said of the site.
 */
bool health_excuses_site(struct attempt *a);

#endif
