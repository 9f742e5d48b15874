/*
 * authres: what SPF, DKIM and DMARC found, as words, and the Authentication-Results field (RFC 8601) that carries it.
 *
 * Values come from strangers: each is written as a token, quoted, or left out with its property, so that it can never
 * begin a line or another result.
 */
#ifndef GATEWAY_FILTER_AUTHRES_H
#define GATEWAY_FILTER_AUTHRES_H

#include "base/buf.h"
#include "base/span.h"
#include "gateway/filter/held.h"

#define AUTHRES_MAX 16384u  /* octets of one field */
#define AUTHRES_DKIM_MAX 10 /* signatures judged */

enum authres_result {
    AUTHRES_NONE,
    AUTHRES_NEUTRAL,
    AUTHRES_PASS,
    AUTHRES_FAIL,
    AUTHRES_SOFTFAIL,
    AUTHRES_POLICY, /* good by itself, not accepted by a rule of ours */
    AUTHRES_TEMPERROR,
    AUTHRES_PERMERROR,
};
const char *authres_text(enum authres_result r); /* "none", ... */

struct authres_spf {
    enum authres_result result;
    bool by_helo;         /* the identity is the HELO name (null sender) */
    struct span identity; /* as it is shown: local@domain or the name */
    struct span domain;   /* for alignment */
    const char *why;      /* static, or NULL */
};
struct authres_dkim {
    enum authres_result result;
    struct span domain, selector, algorithm, hash; /* hash: first 8 characters of b= */
    const char *why;                               /* static, or NULL */
};
enum authres_ask { AUTHRES_ASK_NOTHING, AUTHRES_ASK_NONE, AUTHRES_ASK_QUARANTINE, AUTHRES_ASK_REJECT };
struct authres_dmarc {
    enum authres_result result;
    struct span from;             /* domain of the From field */
    enum authres_ask published;   /* what the domain asks to do with failures */
    enum authres_ask disposition; /* after pct=; for failures only */
    const char *why;              /* static, or NULL */
};
struct authres {
    const struct authres_spf *spf; /* NULL: not asked */
    const struct authres_dkim *dkim;
    size_t dkim_count;
    bool dkim_asked;
    const struct authres_dmarc *dmarc; /* NULL: not asked */
};
/* The value of the field, folded with CRLF, beginning with a space. ERR_FULL, ERR_NOMEM. */
int authres_compose(struct buf *to, struct span authserv_id, const struct authres *a) MUST_CHECK;
/* Whether an Authentication-Results field with this value claims to be ours: its authserv-id is ours in any case,
 * behind any comments and folds, quoted, with a final dot, as a U-label or with a version; or nobody can tell whose. */
bool authres_is_ours(struct span value, struct span authserv_id);
/* Removes the fields that do (RFC 8601 section 5); how many. */
size_t authres_strip(struct held *h, struct span authserv_id);

#endif
