/*
 * transaction: what one session gathers between MAIL and the answer to the final dot: recipients, body,
 * submission. It lives in the arena of the session's protocol core.
 */
#ifndef GATEWAY_INBOUND_TRANSACTION_H
#define GATEWAY_INBOUND_TRANSACTION_H

#include "gateway/inbound/body.h"
#include "gateway/inbound/session.h"

/* Most bytes that the recipients of one envelope take on the bus (FRAME_META_MAX less room for the rest). */
#define TRANSACTION_META_MAX (1536u * 1024u)

struct transaction_target;
struct transaction {
    struct transaction_target *first, **last; /* final addresses in the order given */
    struct span only;                         /* the address of the only RCPT, for Received */
    uint32_t rcpts, targets;
    size_t meta;    /* estimate of the packed size */
    size_t charged; /* memory borrowed for the arena */
    struct body body;
    struct submission *submission;
    char name[14];        /* of the submission */
    uint64_t received_ms; /* wall clock */
    uint64_t started_ms;  /* monotonic */
    uint32_t checksum;
    const Words__Envelope *envelope; /* once it is complete */
};

/* NULL: no memory. */
struct transaction *transaction_new(struct session *s) MUST_CHECK;
/* Gives back body, memory and submission; the struct itself goes with the arena. */
void transaction_end(struct session *s);
/* Judges server.rcpt, keeps its targets; the reply for the client. */
struct server_reply transaction_recipient(struct session *s);
/* The body begins: Received comes first. ERR_NOMEM, ERR_AGAIN (no memory to borrow now). */
int transaction_begin(struct session *s) MUST_CHECK;
/* The body is whole: sends or queues it. ERR_AGAIN: credit is missing for a chunk: call again later. */
int transaction_commit(struct session *s, submit_answer_cb cb) MUST_CHECK;

#endif
