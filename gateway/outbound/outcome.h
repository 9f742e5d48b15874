/*
 * outcome: the one place that says what a step of a delivery, answered in some way, means for the
 * mail (smtp-rules lines 34-49 and 53). A table and nothing else: no state, no I/O.
 */
#ifndef GATEWAY_OUTBOUND_OUTCOME_H
#define GATEWAY_OUTBOUND_OUTCOME_H

#include <stdbool.h>

#include "gateway/smtp/client.h"
#include "proto/outcome.h"

/* What is to be done with the recipients that a verdict is about. */
enum outcome_next {
    OUTCOME_NEXT_NONE,  /* that is all for this attempt */
    OUTCOME_NEXT_HOST,  /* ask the next host; without one the verdict stands */
    OUTCOME_NEXT_AGAIN, /* nothing was sent that counts: the same on a fresh connection, no verdict */
};
struct outcome_verdict {
    enum outcome outcome;
    enum outcome_scope scope;
    enum outcome_next next;
    bool fatal_if_all;    /* permanent when every host of the list answered so (line 43) */
    const char *enhanced; /* when the server gave none */
    const char *text;     /* when there is no reply: what happened */
};

/* lmtp_dot: the answer is to one recipient after the final dot of LMTP. reused: the connection has already carried
 * a transaction, and nothing of this one was answered before. */
struct outcome_verdict outcome_of(enum client_stage stage, enum client_answer answer, bool lmtp_dot, bool reused);

/* What is found without a server. */
enum outcome_local {
    OUTCOME_NXDOMAIN,        /* line 35 */
    OUTCOME_DNS_TEMPFAIL,    /* line 35 */
    OUTCOME_CNAME_LOOP,      /* line 36 */
    OUTCOME_NULL_MX,         /* line 38 */
    OUTCOME_NO_ADDRESS,      /* no MX, and no address either */
    OUTCOME_MX_NOWHERE,      /* line 34: MX records whose hosts do not exist */
    OUTCOME_OWN_HOST,        /* line 37: nothing better than ourselves */
    OUTCOME_OWN_UNRESOLVED,  /* line 37: something better, but it cannot be found */
    OUTCOME_BAD_ADDRESS,     /* line 39: only addresses that mail never goes to */
    OUTCOME_BAD_DESTINATION, /* the destination is no domain and no usable literal */
    OUTCOME_BAD_ROUTE,       /* an operator's route that cannot be read */
    OUTCOME_NOT_CONVERTIBLE, /* line 49 */
    OUTCOME_NO_SMTPUTF8,     /* line 49 */
    OUTCOME_TOO_BIG,         /* over the SIZE that the server states */
    OUTCOME_UNSENDABLE,      /* an address that cannot be put in a command */
    OUTCOME_NO_BODY,         /* the scheduler did not give us the body */
    OUTCOME_NO_MEMORY,
    OUTCOME_NO_REQUIRETLS, /* line 50 */
    OUTCOME_TIME_OVER,     /* DELIVERBY, mode R: nothing is left, */
    OUTCOME_TIME_SHORT,    /* less than the server needs, */
    OUTCOME_NO_DELIVERBY,  /* or it does not know of it */
    OUTCOME_HANDED_BACK,   /* drain, or the site has just failed */
    OUTCOME_LOCALS
};
struct outcome_verdict outcome_local(enum outcome_local what);

#endif
