/*
 * session: one client: moves octets between its connection and the protocol core, and answers what the
 * core asks: recipients, memory, the scheduler. Belongs to one worker.
 */
#ifndef GATEWAY_INBOUND_SESSION_H
#define GATEWAY_INBOUND_SESSION_H

#include "gateway/inbound/worker.h"
#include "gateway/smtp/server.h"

/* What a client may have in our buffers, unread by us; and what we may have for it, unread by it. */
#define SESSION_IN_MAX (32u * 1024u)
#define SESSION_OUT_MAX (64u * 1024u)

struct transaction;
enum session_place { SESSION_NOWHERE, SESSION_IDLE, SESSION_WAITING, SESSION_STALLED, SESSION_GREETING };

struct session {
    struct worker *worker;
    struct tcp *tcp;
    struct front *front; /* a reference; renewed between transactions */
    struct server server;
    struct limits_client *client;
    struct transaction *transaction; /* in the server's arena */
    struct list_node link;           /* of the worker's list that `place` names */
    enum session_place place;
    uint64_t since_ms; /* in this place, or silent */
    uint64_t opened_ms, opened_turn;
    uint32_t messages;         /* accepted */
    bool eof, blocked, ending; /* client spoke its last; replies wait for it; close when written */
    const char *why;           /* it ended, for the log */
};

/* Takes the accepted connection. NULL: no memory (the caller keeps c). It waits to be greeted. */
struct session *session_new(struct worker *w, struct tcp *c, struct limits_client *client) MUST_CHECK;
/* Greets and begins. */
void session_greet(struct session *s);
/* A reply out of turn, then the end: idle, early talker. */
void session_farewell(struct session *s, unsigned code, const char *enhanced, const char *text);
/* Memory or credit may have come. */
void session_retry(struct session *s);
/* The worker drains: 421 at the next command boundary, which may be now. */
void session_drain(struct session *s);
/* At once, without a word. */
void session_kill(struct session *s);

#endif
