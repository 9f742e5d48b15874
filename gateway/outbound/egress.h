/*
 * egress: connections from an address that another host has: through a SOCKS5 proxy, or through a relay that is told
 * both addresses in a PROXY header. conn.c asks at each turn of a connection; a connection without an egress is told
 * to go on at once.
 *
 * Whose fault a failure is decides what it costs: the server's counts as a connect that failed; the proxy's makes the
 * source rest, and neither the server nor its site hear of it.
 */
#ifndef GATEWAY_OUTBOUND_EGRESS_H
#define GATEWAY_OUTBOUND_EGRESS_H

#include "gateway/outbound/outbound.h"
#include "gateway/smtp/socks5.h"

/* How long a source whose proxy failed is not used, besides twice the time of a connect. */
#define EGRESS_REST_MS 20000u
#define EGRESS_TRIES_MAX 4 /* sources that fail one attempt before it is deferred */
#define EGRESS_NAME_MAX 140

struct attempt;
struct conn;

enum egress_fault {
    EGRESS_FAULT_NONE, /* or the server's */
    EGRESS_FAULT_HERE, /* of the source, with this site: others may be no matter */
    EGRESS_FAULT_SOURCE,
};
/* Of one connection; zeroed: none. */
struct egress {
    struct socks5 socks;
    enum egress_fault fault;
    char why[256]; /* what went wrong, with the name of the proxy; "": nothing */
};
enum egress_step {
    EGRESS_WAIT,
    EGRESS_UP, /* the mail server is at the other end */
    EGRESS_DOWN,
};

/* "socks5 192.0.2.1:1080", "" when it has none. */
const char *egress_name(const struct outbound_source *s, char to[EGRESS_NAME_MAX]);
/* Whom to connect to first, and from which address of ours (NULL: any). source may be NULL. */
const struct tcp_addr *egress_first_hop(const struct outbound_source *s, const struct tcp_addr *server);
const struct tcp_addr *egress_local(const struct outbound_source *s);

/* The first hop is connected. */
enum egress_step egress_begin(struct conn *c);
/* EGRESS_WAIT, and octets have come. What belongs to the server stays in tcp_in. */
enum egress_step egress_hear(struct conn *c);
/* It ended before it was up. True: not by the fault of the server. */
bool egress_blame(struct conn *c, bool timeout, int err);
/* The attempt of c hears that it ended. True: by the fault of the source; all is done. */
bool egress_on_end(struct attempt *a, struct conn *c);

#endif
