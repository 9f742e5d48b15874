/*
 * outcome: the numbers that travel inside the words of bus.proto and mail.proto: verdicts on
 * submissions and outcomes of attempts. Values are part of the wire and of the store: never reused.
 */
#ifndef PROTO_OUTCOME_H
#define PROTO_OUTCOME_H

/* What became of a submission; the gateway turns it into the reply to the final dot. */
enum verdict {
    VERDICT_STORED = 0,   /* durable: 250 */
    VERDICT_TEMPFAIL = 1, /* not stored, try again: 451 4.3.0 */
    VERDICT_NO_SPACE = 2, /* not stored, no room: 452 4.3.1 */
    VERDICT_REFUSED = 3,  /* not stored, malformed submission: 554 5.3.0 */
};

/* What became of one recipient in one attempt. */
enum outcome {
    OUTCOME_DELIVERED = 1, /* 2yz to the final dot (LMTP: to this recipient) */
    OUTCOME_DEFERRED = 2,  /* try again later */
    OUTCOME_FAILED = 3,    /* permanent */
    OUTCOME_IN_DOUBT = 4,  /* connection lost between the final dot and its reply: deferred, and counted */
    OUTCOME_RETURNED = 5,  /* not attempted (drain, hand-over, site busy): back to the queue, no attempt counted */
};

/* How far the reason reaches (smtp-rules.md 42-47). */
enum outcome_scope {
    SCOPE_RECIPIENT = 1,
    SCOPE_MESSAGE = 2,
    SCOPE_HOST = 3,        /* this host only; others were tried or there are none */
    SCOPE_DESTINATION = 4, /* all hosts, or the DNS of the domain */
};

/* Who took the message, as far as success reports are concerned (RFC 3461 section 5.2.2). */
enum outcome_hop {
    HOP_PLAIN = 0,   /* a server without DSN: we report "relayed" */
    HOP_REPORTS = 1, /* a server with DSN: it reports, we do not */
    HOP_FINAL = 2,   /* a mailbox (LMTP): we report "delivered" */
    HOP_RELAYED = 3, /* DELIVERBY wants a report that it was relayed, unless NOTIFY=NEVER (RFC 2852 section 4.1) */
};

/* DSN NOTIFY bits (RFC 3461 section 4.1), as in Recipient.notify. */
enum notify { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

#define RESULT_TEXT_MAX 512
#define RESULT_REMOTE_MAX 300

#endif
