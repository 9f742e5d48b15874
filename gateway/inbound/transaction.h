/*
 * transaction: what one session gathers between MAIL and the answer to the final dot: recipients, body,
 * submission. It lives in the arena of the session's protocol core.
 *
 * The octets of a message stream through to the scheduler as they come. Where a filter must see or may change the
 * message it is held (gateway/filter/held.h) until its checks are done, and streams then.
 */
#ifndef GATEWAY_INBOUND_TRANSACTION_H
#define GATEWAY_INBOUND_TRANSACTION_H

#include "gateway/filter/held.h"
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
    char name[14];        /* of the submission, once it has one */
    uint64_t received_ms; /* wall clock */
    uint64_t started_ms;  /* monotonic */
    uint64_t ended_us;    /* monotonic: its last octet came */
    uint32_t checksum;
    const Words__Envelope *envelope; /* once it is complete */
    /* under filters */
    struct recipients_answer judged; /* of the RCPT under way */
    struct held *held;               /* the message, while filters judge it */
    size_t held_charged;             /* memory borrowed for it */
    uint64_t emitted;                /* octets of it that went on */
    struct buf prepend;              /* header fields of policy services, CRLF lines */
    bool began;                      /* Received and what is prepended are written */
    struct span discarded_by;        /* .at: an operator's filter wants it dropped */
};

/* NULL: no memory. */
struct transaction *transaction_new(struct session *s) MUST_CHECK;
/* Gives back body, memory and submission; the struct itself goes with the arena. */
void transaction_end(struct session *s);
/* Gives it its name now. ERR_NOMEM. */
int transaction_name(struct session *s) MUST_CHECK;
/* Memory for one more recipient. */
bool transaction_charge(struct session *s) MUST_CHECK;
/* What the directories said of the RCPT under way, as a verdict. */
void transaction_judged(struct session *s, const struct recipients_answer *a, struct check_verdict *v);
/* All have agreed: its targets are kept. The reply for the client: 250, or 452. */
struct server_reply transaction_keep(struct session *s);
/* A filter wants the message dropped at its end. */
void transaction_discard(struct session *s, const struct check_verdict *v);
/* How much of the body may come now. ERR_OK with 0: memory or credit is missing, ask again later. ERR_NOMEM, ERR_FULL.
 */
int transaction_room(struct session *s, size_t *most) MUST_CHECK;
/* At most that much, and a CRLF. ERR_NOMEM, ERR_FULL (header too large), ERR_NO_SPACE, ERR_IO; others: the queue. */
int transaction_append(struct transaction *t, struct span octets) MUST_CHECK;
/* The body is whole: sends or queues it. ERR_AGAIN: memory or credit is missing: call again later. */
int transaction_commit(struct session *s, submit_answer_cb cb) MUST_CHECK;

#endif
