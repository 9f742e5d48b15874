/*
 * conn: one connection to a mail server: a stream, the client core and the clock, from connect to close. It
 * carries one attempt at a time and tells it what the server said; it judges nothing.
 *
 * A connection that has ended keeps its memory until the loop comes round, so that whoever
 * called for it can still see .gone.
 */
#ifndef GATEWAY_OUTBOUND_CONN_H
#define GATEWAY_OUTBOUND_CONN_H

#include "base/net/tls.h"
#include "gateway/outbound/egress.h"
#include "gateway/outbound/login.h"
#include "gateway/outbound/site.h"
#include "gateway/smtp/client.h"
#include "gateway/smtp/stuff.h"

struct conn {
    struct list_node in_all;  /* of the node's connections, or of those that are gone */
    struct list_node in_site; /* of the site's idle ones */
    struct list_node in_idle; /* of the node's idle ones */
    struct outbound *o;
    struct site *site;
    struct setup *setup;                  /* holds our name and .source; referenced */
    const struct outbound_source *source; /* NULL: the system's choice */
    struct pace_entry *health;            /* of .source at this site, see health.h; may be NULL */
    struct attempt *attempt;              /* NULL: none */
    struct tcp *tcp;
    struct loop_timer *timer;
    struct client client;
    struct stuff stuff;
    struct login login; /* .core.begin NULL: none */
    struct egress egress;
    struct tcp_addr addr;
    char host[DNS_NAME_MAX + 1]; /* name of the server */
    uint32_t messages;           /* bodies sent */
    enum client_stage timed;     /* what the timer was set for */
    uint32_t timed_rcpt;
    /* connected: to the server, behind the egress if there is one */
    bool connected, established;
    bool raced;              /* the time of being the only one is over */
    bool ready, body_wanted; /* events to be acted on once the input is used up */
    bool dot_queued;         /* the final dot is not yet with the kernel */
    bool write_failed;
    bool bound; /* stands for another client (XCLIENT), and cannot for the next one */
    bool gone;
    bool shaking;                       /* TLS is being agreed on */
    bool secure_sts_failed;             /* MTA-STS in testing: what enforce would have refused */
    enum tls_fault fault;               /* of a failed handshake */
    char tls_why[160];                  /* the same in words */
    char tls_text[80];                  /* "TLSv1.3 TLS_AES_256_GCM_SHA384 verified"; "" in the clear */
    char remote[RESULT_REMOTE_MAX + 1]; /* "mx.example [192.0.2.1]:25" */
};

/* Starts a connect for this attempt, which gives it its slot. NULL: no memory or descriptors; the slot stays
 * with the caller. */
struct conn *conn_open(struct outbound *o, struct site *s, struct attempt *a, const struct mx_target *t) MUST_CHECK;
/* READY: takes it out of its rest. */
void conn_take(struct conn *c);
/* READY: keeps it warm until its time is over. */
void conn_rest(struct conn *c);
/* READY: has carried as much as one connection should. */
bool conn_is_worn(const struct conn *c);
/* READY: begins a transaction for .attempt. Errors of client_begin. */
int conn_begin(struct conn *c, const struct client_mail *m) MUST_CHECK;
/* READY: XCLIENT; attempt_on_ready follows, or attempt_on_end. */
void conn_introduce(struct conn *c, const struct client_attrs *a);
/* The body has more to read. */
void conn_body_moved(struct conn *c);
/* READY: says QUIT and waits for the answer; holds its slot until then. */
void conn_quit(struct conn *c);
/* Closes at once, frees the slot; nobody is told. */
void conn_drop(struct conn *c);
/* Frees the memory of those that are gone. Only from the top of a callback. */
void conns_reap(struct outbound *o);

#endif
