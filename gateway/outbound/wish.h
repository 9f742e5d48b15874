/*
 * wish: what a sender asked for beyond delivery, and what that means at this hop: REQUIRETLS (RFC 8689), DELIVERBY
 * (RFC 2852), MT-PRIORITY (RFC 6710).
 *
 * REQUIRETLS: a route that does not leave this host (LMTP over a unix socket) is private enough; over any other the
 * next hop must be reached over verified TLS (tlspolicy.h), and must offer REQUIRETLS itself.
 *
 * DELIVERBY: a server that offers it is told the time that is left; with mode R not when that is less than it needs. A
 * server without it is a dead end for mode R; for mode N it takes the message, is asked to report delays, and the
 * sender is told that it was relayed (as with the trace modifier at each hop). The mailbox server of a domain of ours
 * (LMTP, or a local recipient) is where delivery ends: it is asked nothing, and what it takes in time was delivered in
 * time.
 */
#ifndef GATEWAY_OUTBOUND_WISH_H
#define GATEWAY_OUTBOUND_WISH_H

#include <stdbool.h>
#include <stdint.h>

struct attempt;
struct client_mail;

/* Judges recipients that its server must not be given. False: nothing is left. */
bool wish_check(struct attempt *a);
/* The parameters of MAIL FROM. */
void wish_fill(const struct attempt *a, struct client_mail *m);
/* NOTIFY for this recipient: what the sender gave (0: nothing), with DELAY where a relay of mode N cannot know the
 * time. */
uint32_t wish_notify(const struct attempt *a, uint32_t recipient, uint32_t given);
/* Who reports on a delivered recipient: usual (enum outcome_hop), or HOP_RELAYED. */
uint32_t wish_hop(const struct attempt *a, uint32_t recipient, uint32_t usual);

#endif
