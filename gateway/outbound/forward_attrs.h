/*
 * forward_attrs: telling the servers of a route who the client of a message was (XCLIENT, XFORWARD), where the settings
 * ask for it. A connection that was introduced by XCLIENT carries mail of that client only: for the next one it is
 * introduced anew where the server allows it, else it is closed. Mail without a client (our own reports), and mail of
 * routes to the same server that tell nothing, goes over connections that were never introduced.
 */
#ifndef GATEWAY_OUTBOUND_FORWARD_ATTRS_H
#define GATEWAY_OUTBOUND_FORWARD_ATTRS_H

#include "gateway/outbound/attempt.h"

/* On a connection that is READY: true when XCLIENT is under way (attempt_on_ready follows) or another connection is
 * needed; a may have ended then. */
bool forward_attrs_introduce(struct attempt *a);
/* READY again: counts how an introduction has ended, and is through with it. */
void forward_attrs_count(struct attempt *a);
/* What XFORWARD is to say, or NULL. */
const struct client_attrs *forward_attrs_of(struct attempt *a);

#endif
