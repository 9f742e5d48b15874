/*
 * milter: a client of the Sendmail mail filter protocol, version 6 (and 2 to 5 where a filter is older): OpenDKIM,
 * OpenDMARC, Rspamd, ClamAV. Several filters in order; each sees what the ones before it made of the message.
 *
 * One connection for each filter and session, opened when the session's first stage needs it, on the session's loop.
 * What happens when a filter cannot be reached, breaks the protocol or is too slow is the operator's choice: tempfail
 * (451 4.7.1), accept (the filter is left out for the rest of the session) or reject (550 5.7.1).
 *
 * Filters may add, change and remove header fields and replace the body. The envelope is not theirs: a filter that
 * changes it, or quarantines, has failed. The held message is as the client sent it, without our own Received field,
 * which filters count as position 0.
 */
#ifndef GATEWAY_FILTER_MILTER_H
#define GATEWAY_FILTER_MILTER_H

#include "gateway/filter/check.h"
#include "gateway/filter/held.h"

enum milter_failure { MILTER_TEMPFAIL, MILTER_ACCEPT, MILTER_REJECT };
struct milter_config {
    const char *name;        /* for logs and metrics */
    struct tcp_addr address; /* HOST:PORT as numbers, or unix:/path */
    enum milter_failure failure;
    uint64_t connect_ms; /* default 10 s */
    uint64_t command_ms; /* for a reply to one command, default 30 s */
    uint64_t end_ms;     /* for the reply to the end of the message, default 300 s */
    bool skip_trusted;   /* not for clients of trusted_networks */
    bool skip_authenticated;
};
#define MILTERS_MAX 8

/* The filters of one session. */
struct milters;
/* configs are borrowed and outlive it. NULL: no memory. */
struct milters *milters_new(struct loop *l, const struct milter_config *configs, size_t count) MUST_CHECK;
void milters_free(struct milters *m); /* QUIT to each; a pending check is canceled */
/* Whether any filter is still interested: else the message need not be held. */
bool milters_want_message(const struct milters *m);
/* One stage. f must stay until the session is over (it may change between stages). `held` for CHECK_END only: it is
 * read, and changed as the filters ask; NULL only where milters_want_message was false. *wait is set with ERR_AGAIN. At
 * CHECK_RCPT CHECK_REFUSE concerns that recipient. Other errors do not come: failures are verdicts. */
int milters_check(struct milters *m, enum check_stage stage, const struct check_facts *f, struct held *held,
                  struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) MUST_CHECK;
/* The transaction is over without CHECK_END (RSET, refused, lost): SMFIC_ABORT. Not while a check waits. */
void milters_abort(struct milters *m);
/* AUTH or STARTTLS changed the session: macros are sent anew with the next stage (they always are); after STARTTLS the
 * filters must hear HELO again. */
void milters_reset(struct milters *m);

#endif
