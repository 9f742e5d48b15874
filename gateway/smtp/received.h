/*
 * received: the trace header that a gateway puts before each message (RFC 5321 section 4.4).
 *
 * Pure: values in, octets out. What the client said about itself is written so that it can neither
 * add a line nor end a comment, whatever it holds.
 */
#ifndef GATEWAY_SMTP_RECEIVED_H
#define GATEWAY_SMTP_RECEIVED_H

#include "base/buf.h"

/* Most octets that one header takes. */
#define RECEIVED_MAX 2048

struct received {
    struct span helo;        /* as the client gave it; hostile */
    struct span client;      /* text of its address, "192.0.2.1" or "2001:db8::1" */
    struct span client_name; /* confirmed name of the client, or empty */
    bool hidden;             /* name neither helo nor client: mail of our own users */
    struct span tls;         /* cipher suite (RFC 8314 section 4.3), or empty */
    struct span by;          /* our name */
    struct span with;        /* received_protocol */
    struct span id;
    struct span recipient; /* local@domain, or empty: no `for` clause */
    uint64_t wall_ms;
};

/* The word after `with` (RFC 3848, RFC 6531). */
struct span received_protocol(bool esmtp, bool tls, bool authenticated, bool utf8);
/* Appends the header, folded, with its CRLF. ERR_FULL, ERR_NOMEM. */
int received_write(const struct received *r, struct buf *to) MUST_CHECK;

#endif
