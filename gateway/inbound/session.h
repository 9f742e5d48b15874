/*
 * session: one client: moves octets between its connection and the protocol core, and answers what the core asks.
 * Belongs to one worker.
 *
 *   session.c           the pump, and how a session ends
 *   session_client.c    who the client is: PROXY, XCLIENT, TLS, its certificate, AUTH
 *   session_check.c     the checks of each stage, at once or later
 *   session_answer.c    what the checks said, as replies; the fate of the message
 *   session_verify.c    VRFY
 *   session_trace.c     the live dialogue for `posthouse trace smtp in`
 */
#ifndef GATEWAY_INBOUND_SESSION_H
#define GATEWAY_INBOUND_SESSION_H

#include "gateway/inbound/worker.h"
#include "gateway/smtp/server.h"

/* What a client may have in our buffers, unread by us; and what we may have for it, unread by it. */
#define SESSION_IN_MAX (32u * 1024u)
#define SESSION_OUT_MAX (64u * 1024u)

struct transaction;
struct verification;
enum session_place {
    SESSION_NOWHERE,
    SESSION_IDLE,
    SESSION_WAITING, /* for the scheduler, or for a check */
    SESSION_STALLED,
    SESSION_GREETING,
    SESSION_OPENING, /* for the PROXY header or the TLS handshake */
    SESSION_SLOWED,  /* its next command is kept from it for a while */
};

struct session {
    struct worker *worker;
    struct tcp *tcp;
    struct front *front;                     /* a reference; renewed between transactions */
    const struct inbound_listener *listener; /* of front */
    uint32_t listener_index;
    struct server server;
    struct limits_client *client;    /* NULL: not counted */
    struct transaction *transaction; /* in the server's arena */
    struct list_node link;           /* of the worker's list that `place` names */
    enum session_place place;
    uint64_t since_ms; /* in this place, or silent */
    uint64_t opened_ms, opened_turn;
    uint32_t messages;         /* accepted */
    bool eof, blocked, ending; /* client spoke its last; replies wait for it; close when written */
    bool expects_proxy, secured;
    const char *why; /* it ended, for the log */
    /* who it is */
    struct tcp_addr peer;  /* the true address, by PROXY or XCLIENT where these are believed */
    struct tcp_addr local; /* by PROXY, else empty: the connection's */
    char ip[112];
    size_t ip_len;
    struct guard_client guard;
    bool trusted, authenticated;
    char account[256], mechanism[32];
    struct check_facts facts;
    struct auth_client auth_client;
    struct milters *milters;
    /* what is waited for: one of these at most */
    struct check_wait *check;
    struct worker_policies *policies; /* that `check` waits for */
    struct recipients_wait *recipients;
    struct auth_exchange *exchange;
    struct verification *verification;
    enum check_stage stage; /* the checks under way */
    size_t check_at;        /* the next one of it */
    uint64_t slow_ms;       /* wait before the next command */
    bool hastened;          /* it has waited: one command */
};

/* -- session.c -- */

/* Takes the accepted connection. NULL: no memory (the caller keeps c). Then session_open. */
struct session *session_new(struct worker *w, uint32_t listener, struct tcp *c, const struct tcp_addr *peer,
                            struct limits_client *client) MUST_CHECK;
/* Begins: PROXY header, TLS or the wait before the greeting. The session may be gone when it returns. */
void session_open(struct session *s);
/* Asks who must be asked about the client, then greets. */
void session_greet(struct session *s);
/* A reply out of turn, then the end: idle, early talker. The session is gone when it returns. */
void session_farewell(struct session *s, unsigned code, const char *enhanced, const char *text);
/* Memory or credit may have come. */
void session_retry(struct session *s);
/* Its time of waiting is over: one command is answered. */
void session_hasten(struct session *s);
/* The worker drains: 421 at the next command boundary, which may be now. */
void session_drain(struct session *s);
/* At once, without a word. */
void session_kill(struct session *s);
/* It talked before its greeting, and is to be refused for it. */
bool session_is_early(struct session *s);
#define SESSION_TOO_EARLY "you talked before the greeting"
/* The connection is of no more use. The session is gone when it returns. */
void session_lose(struct session *s, const char *why);
/* To the young end of the list for this place. */
void session_go_to(struct session *s, enum session_place place);
/* Goes on with the dialogue, from a callback: replies in the worker's `out` go first. The session may be gone then. */
void session_run(struct session *s);
/* Writes what the turn gathered. False: the connection is lost. */
bool session_flush(struct session *s);
static inline struct span session_ip(const struct session *s) {
    return span_make(s->ip, s->ip_len);
}
static inline struct server_reply session_reply(unsigned code, const char *enhanced, const char *text) {
    return (struct server_reply){(uint16_t)code, span_of(enhanced), span_of(text)};
}
/* The same for reasons of ours; counted. */
struct server_reply session_tempfail(unsigned code, const char *enhanced, const char *text);

/* -- session_client.c -- */

/* Sets the addresses and what follows from them. */
void session_set_peer(struct session *s, const struct tcp_addr *peer);
/* Reads the PROXY header. ERR_OK: it was read; ERR_AGAIN; else the client is not to be believed. */
int session_read_proxy(struct session *s) MUST_CHECK;
/* Begins TLS. ERR_INVALID: octets came before it, an attack. */
int session_secure(struct session *s) MUST_CHECK;
/* The handshake is over: certificate, mechanisms. */
void session_secured(struct session *s);
/* A client behind a balancer: it is checked as one that has just connected. As session_check. */
bool session_xclient(struct session *s, struct span args, struct buf *out);
/* The mechanisms that EHLO shows now. */
void session_offer_auth(struct session *s);
/* True: the answer is in `out`; false: it comes later. */
bool session_auth_begin(struct session *s, struct buf *out);
void session_auth_response(struct session *s, struct span response);
/* Facts that may have changed are set anew for the next checks. */
void session_refresh_facts(struct session *s);

/* -- session_check.c -- */

/* Runs the checks of a stage. True: all have passed or one refused, and session_answer was called; false: later. */
bool session_check(struct session *s, enum check_stage stage, struct buf *out);
/* Whoever is asked for this session is told to forget it. */
void session_cancel_checks(struct session *s);
/* Whether the message must be kept whole until its checks are done. */
bool session_holds_message(const struct session *s);

/* -- session_answer.c -- */

/* The end of a stage. */
void session_answer(struct session *s, enum check_stage stage, const struct check_verdict *v, struct buf *out);
/* The body is whole and judged. Credit may be missing for its last chunks: then this is tried again later. */
void session_commit(struct session *s, struct buf *out);

/* -- session_verify.c -- */

/* VRFY: the truth about an address, where the operator allows it. True: answered; false: later. */
bool session_verify(struct session *s, struct span argument, struct buf *out);
void session_verify_cancel(struct session *s);

/* -- session_trace.c -- */

/* secret: the octets are a response of AUTH. */
void session_trace_in(struct session *s, struct span octets, bool secret);
void session_trace_out(struct session *s, struct span replies);
void session_trace_event(struct session *s, const char *what);

#endif
