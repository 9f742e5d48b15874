/*
 * attempt: one job: some recipients of one message at one destination. It finds the site, waits for
 * a connection, goes host by host while the outcome table says so, and ends when every recipient has a
 * result, which is reported.
 *
 *     RESOLVING -> WAITING -> (WALKING -> JUDGING -> OPENING)* -> SENDING -> ENDED
 *     WAITING -> SENDING                          a connection was open
 *     SENDING -> WALKING, WAITING                 the next host, or the same again
 *
 * way.c finds the hosts, attempt.c goes from one to the next, secure.c says what TLS must be like on it, transact.c
 * holds the transactions and their verdicts, convert.c makes a message fit for 7 bit.
 */
#ifndef GATEWAY_OUTBOUND_ATTEMPT_H
#define GATEWAY_OUTBOUND_ATTEMPT_H

#include "base/base32.h"
#include "gateway/outbound/content.h"
#include "gateway/outbound/conn.h"
#include "gateway/outbound/delivery.h"
#include "gateway/outbound/secure.h"
#include "gateway/outbound/throttle.h"

#define ATTEMPT_RECIPIENTS_MAX 1000u
#define ATTEMPT_AGAIN_MAX 3 /* times a reused connection may fail without counting */
#define ATTEMPT_REQUEUE_MAX 3
#define ATTEMPT_RIVALS_MAX 3
#define ATTEMPT_RACE_MS 250 /* before the next address of the host is tried beside the first (RFC 8305) */

enum attempt_state {
    ATTEMPT_RESOLVING,
    ATTEMPT_WAITING,
    ATTEMPT_WALKING,
    ATTEMPT_JUDGING, /* what TLS must show with the next host is asked for */
    ATTEMPT_OPENING,
    ATTEMPT_SENDING, /* on a connection, also while the body is prepared */
    ATTEMPT_ENDED,
};
enum attempt_fate {
    FATE_PENDING, /* to be sent */
    FATE_SENT,    /* in the transaction under way */
    FATE_RETRY,   /* the next host is to be asked; .result stands when there is none */
    FATE_DONE,
};
struct attempt_result {
    struct outcome_verdict verdict;
    uint32_t code;
    uint32_t hop;                       /* enum outcome_hop, of a delivery */
    struct span enhanced, text, remote; /* in the attempt's arena, or static */
    const char *tls, *source;           /* of the connection that it was heard on; NULL: no TLS, the system's choice */
    bool has_category;                  /* a rule has said it */
    enum bounce_category category;
};
struct attempt_recipient {
    enum attempt_fate fate;
    bool judged;
    struct attempt_result result;
};

struct conversion;
struct attempt {
    struct map_node in_map;
    struct list_node in_all;  /* .running or .spare of the node */
    struct list_node in_site; /* waiting */
    struct list_node in_tick;
    struct outbound *o;
    struct arena mem;
    struct setup *setup; /* those of its beginning; referenced */
    enum attempt_state state;
    Words__Job *job;
    struct content body;
    uint32_t count, open; /* recipients; those that are not DONE */
    struct attempt_recipient *recipients;
    /* the way */
    const char *destination;
    const struct outbound_route *rule; /* of the setup; NULL: by MX */
    struct route route;
    struct site *site;
    uint32_t site_ttl_s;
    uint64_t begun_ms, joined_ms;
    struct walk walk;
    bool has_walk, has_target, slot, asking;
    uint32_t targets; /* hosts that the walk has named */
    bool judging;     /* secure_target has returned, its answer comes later */
    struct secure secure;
    struct throttle throttle;
    struct health health;
    struct mx_target target;
    struct conn *conn;
    struct conn *rivals[ATTEMPT_RIVALS_MAX]; /* to other addresses of the same host; the first to connect is .conn */
    uint32_t rival_count;
    bool fresh; /* wants a new connection */
    uint32_t again;
    /* the transaction under way */
    struct client_mail mail;
    struct client_recipient *sending;
    uint32_t *sent; /* recipient of each place in .sending */
    bool in_transaction, reused;
    bool introducing; /* XCLIENT is under way on .conn */
    struct client_attrs attrs;
    char ident[BASE32_ID_LEN + 1];
    struct conversion *conversion;
    bool converted; /* body.converted holds the 7-bit form */
    /* what was seen */
    bool answered;              /* some server got as far as judging the mail */
    uint32_t requeued;          /* times it went back to wait for a connection of others */
    uint32_t tried, fatal;      /* hosts that failed; of them with a permanent greeting */
    struct attempt_result last; /* of the last host that failed */
    bool has_last, site_failed;
    uint32_t source_failures; /* connections that failed by our own fault */
    bool source_failed;       /* some host was not reached by our own fault: nothing is said of the site */
};

/* -- for jobs.c -- */
/* Takes the job from a frame and starts. False: malformed, nothing was taken. */
bool attempt_start(struct outbound *o, struct span meta, struct bus_bytes *body);
struct attempt *attempt_find(struct outbound *o, uint64_t number);
void attempt_on_chunk(struct attempt *a, uint32_t number, struct bus_bytes *bytes, bool missing);
/* Once a second. */
void attempt_tick(struct attempt *a);
/* Drops it without a report (the node stops). */
void attempt_abandon(struct attempt *a);
/* Frees the memory that is kept for coming attempts. */
void attempts_free_spare(struct outbound *o);

/* -- for site.c -- */
/* This open connection is yours (READY). */
void attempt_use(struct attempt *a, struct conn *c);
/* A slot is yours. */
void attempt_use_slot(struct attempt *a);
/* Not now: the job goes back as it came. */
void attempt_hand_back(struct attempt *a);

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]": a destination that is an address. */
bool attempt_read_literal(struct span text, uint16_t port, struct tcp_addr *addr);

/* -- for conn.c -- */
bool attempt_is_lmtp(const struct attempt *a);
/* MAIL FROM for this recipient: its own return path, else the message's. */
struct span attempt_sender(const struct attempt *a, uint32_t recipient);
struct content *attempt_body(struct attempt *a);
void attempt_on_event(struct attempt *a, struct conn *c, const struct client_event *e);
/* race.c: it does not connect quickly; another address of the host may. */
void attempt_on_slow(struct attempt *a);
/* race.c: it is connected: the others go. */
void attempt_on_connected(struct attempt *a, struct conn *c);
/* race.c: it has failed to connect. True: others are still trying. */
bool attempt_lost_rival(struct attempt *a, struct conn *c);
void attempt_drop_rivals(struct attempt *a);
/* The server wants the body. */
void attempt_on_body(struct attempt *a);
/* READY: the first time, or a transaction is over. Leaves c->attempt NULL when it needs the connection no more. */
void attempt_on_ready(struct attempt *a, struct conn *c);
/* The connection is gone; err: why, when it failed. */
void attempt_on_end(struct attempt *a, struct conn *c, const struct client_event *e, int err);

/* -- for secure.c -- */
/* The site is named. */
void attempt_join(struct attempt *a, const char *site);
/* The target is judged fine. */
void attempt_go_to_target(struct attempt *a);
/* This host is not connected to: on to the next one. a may have ended when it returns. */
void attempt_skip_host(struct attempt *a, const struct attempt_result *r);

/* -- between attempt.c, way.c, transact.c and convert.c -- */
/* Finds the hosts and calls secure_begin, at once or later; or ends the attempt. */
void way_find(struct attempt *a);
/* The hosts of a route that has several, in an order drawn by weight. */
int way_list_targets(struct mx_list *list, const struct outbound_route *rule, struct rand *rand) MUST_CHECK;
/* All recipients get this verdict of ours, and the attempt ends. */
void attempt_fail(struct attempt *a, enum outcome_local what);
/* The same host again, at once. */
void attempt_same_target(struct attempt *a);
/* All recipients without a verdict get this one. */
void attempt_judge_all(struct attempt *a, const struct attempt_result *r);
void attempt_judge(struct attempt *a, uint32_t recipient, const struct attempt_result *r);
struct attempt_result attempt_local_result(enum outcome_local what);
/* Goes on after a transaction or a failed host: the next transaction, the next host, or the end. */
void attempt_go_on(struct attempt *a);
/* All recipients are DONE: reports and ends. */
void attempt_finish(struct attempt *a);
/* Begins a transaction on a->conn, converting first if need be. */
void transact_begin(struct attempt *a);
/* Starts the conversion to 7 bit; transact_begin is called when it is done. */
void convert_start(struct attempt *a);
/* A chunk has come for a conversion that gathers. */
void convert_on_chunk(struct attempt *a);
/* Stops it. */
void convert_cancel(struct attempt *a);

#endif
