/*
 * dsn: composes delivery status notifications (RFC 3461, 3464, 6522, 6533) as a whole message.
 *
 * Pure: facts in, octets out; no store, no clock, no generated type. It is called by compose.c with what
 * the store says of the message, and its output is enqueued like any other message, with the null
 * return path. Whether a report may be sent at all was decided before (core/reports.c).
 *
 * Everything that a stranger wrote (addresses, envelope id, replies of remote hosts, the
 * original header) is cleaned, cut and folded: it never adds a field, a line or a part to the report.
 */
#ifndef SCHEDULER_DSN_H
#define SCHEDULER_DSN_H

#include "base/buf.h"

#define DSN_FULL_MAX 51200u /* the original is returned whole up to this size; its header always, cut to this */

enum dsn_kind { DSN_FAILED, DSN_DELAYED, DSN_DELIVERED };
enum dsn_language { DSN_ENGLISH, DSN_GERMAN, DSN_FRENCH, DSN_SPANISH, DSN_LANGUAGES };
enum dsn_ret { DSN_RET_NONE, DSN_RET_FULL, DSN_RET_HDRS };

struct dsn_template { /* dsn_template.h */
    enum dsn_language language;
    struct span text; /* empty: the one built in */
};
struct dsn_recipient {
    struct span address;  /* local@domain that was tried */
    struct span orcpt;    /* ORCPT decoded, "type;address"; empty: not given */
    struct span original; /* address given in RCPT TO when we expanded it; used when orcpt is empty */
    bool relayed;         /* DSN_DELIVERED: handed to a host that sends no reports of its own */
    bool expanded;        /* DSN_DELIVERED: the address became several others (RFC 3461 section 5.2.7) */
    uint32_t code;        /* three digits of the remote reply; 0: none */
    struct span enhanced; /* "5.1.1"; our own where the server named none */
    struct span text;     /* remote text or our reason */
    struct span remote;   /* host that decided: name, then anything; empty: ourselves */
};
struct dsn {
    enum dsn_kind kind;
    uint64_t number; /* unique for each report: names it in Message-ID */
    uint64_t now_ms;
    struct span hostname; /* ours */
    struct span postmaster;
    struct span sender; /* reverse-path of the original, without brackets */
    struct span envid;  /* decoded */
    uint64_t received_ms;
    uint64_t size; /* octets of the original */
    enum dsn_ret ret;
    bool smtputf8;           /* it was submitted with SMTPUTF8 */
    uint64_t retry_until_ms; /* DSN_DELAYED */
    struct dsn_template template;
    const struct dsn_recipient *recipients;
    uint32_t count;
    struct span content; /* the original from its first octet: all of it, or as much as is at hand */
};
struct dsn_form { /* what the composed report needs on its way */
    bool eight_bit, smtputf8;
};

/* Appends the report to `to`, with CRLF line ends. ERR_INVALID: no return path, one with control octets or
 * longer than 320, or no recipients. ERR_FULL, ERR_NOMEM: of the buffer. */
int dsn_compose(const struct dsn *d, struct buf *to, struct dsn_form *form) MUST_CHECK;

#endif
