/*
 * client_attrs: XCLIENT and XFORWARD: telling a server who the client was that a message came from. Pure: it composes
 * the commands from what is known of the client, and reads from EHLO which attributes the server takes.
 *
 * The values come from strangers. Each goes out as xtext (RFC 3461 section 4), and one that is missing, holds control
 * characters, does not fit its attribute's syntax or would become longer than Postfix takes it is sent as
 * [UNAVAILABLE]. No command is longer than 512 octets: attributes go out in groups that fit one, as many groups to a
 * command as there is room for. HELO, PROTO and LOGIN are one group, the last: a server may forget those with the
 * next XCLIENT.
 */
#ifndef GATEWAY_SMTP_CLIENT_ATTRS_H
#define GATEWAY_SMTP_CLIENT_ATTRS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

#define CLIENT_ATTRS_LINE_MAX 512u /* with CRLF */

struct client_attrs { /* borrowed texts; empty: unknown */
    struct span addr; /* "192.0.2.1", "2001:db8::1" */
    struct span name; /* confirmed */
    struct span helo;
    struct span protocol; /* as in Received: "ESMTPSA" */
    struct span login;
    struct span ident; /* of the message, here */
    uint32_t port;     /* 0: unknown */
    bool local;        /* it was submitted, not received from elsewhere */
};
enum client_attrs_verb { CLIENT_ATTRS_XCLIENT, CLIENT_ATTRS_XFORWARD };
/* Which of our attributes stand in the parameters of an EHLO line, as bits; 0: none. */
uint32_t client_attrs_offered(enum client_attrs_verb verb, struct span parameters);
/* Appends the next command with its CRLF. *group is 0 at first. False: there are no more. */
bool client_attrs_put(struct buf *out, enum client_attrs_verb verb, uint32_t offered, const struct client_attrs *a,
                      uint32_t *group);
/* May stand in EHLO as it is: a host name or an address literal, of sound characters and length. */
bool client_attrs_is_hello(struct span helo);

#endif
