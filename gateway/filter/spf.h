/*
 * spf: may this client send mail in this domain's name (RFC 7208)? libspf2 evaluates; around it stands what it lacks:
 * limits over all includes, records in the order of the RFC, and a screen before its compiler. For one thread.
 */
#ifndef GATEWAY_FILTER_SPF_H
#define GATEWAY_FILTER_SPF_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/net/resolver.h"
#include "base/net/tcp.h"
#include "gateway/filter/authres.h"

#define SPF_TERMS_MAX 10 /* terms that ask the DNS, in the record and all that it includes */
#define SPF_VOIDS_MAX 2  /* of their questions that may find nothing */

struct spf_question {
    const struct tcp_addr *client;
    struct span sender; /* local@domain; empty: the null path, then postmaster at the HELO name */
    struct span helo;
    struct span hostname; /* ours, for %{r} */
};
struct spf;
struct spf *spf_new(struct resolver *r) MUST_CHECK; /* NULL: no memory; r is borrowed */
void spf_free(struct spf *s);
/* The result and what it points at lie in mem. A client on a loopback address has no SPF: none. */
void spf_check(struct spf *s, const struct spf_question *q, uint64_t deadline_ms, struct arena *mem,
               struct authres_spf *out);

/* Whether a TXT record is an SPF record at all. */
bool spf_record_is(struct span text);
/* Rewrites a record to what libspf2 evaluates rightly: modifiers but redirect are left out (exp= is a stranger's text
 * that we never show), redirect= stands last and only where there is no `all`. *big: it is longer than libspf2 keeps,
 * which would drop its end in silence. ERR_INVALID: a syntax error, or a term that its compiler cannot be trusted with;
 * ERR_FULL, ERR_NOMEM of `out`. */
int spf_record_tidy(struct span record, struct buf *out, bool *big) MUST_CHECK;

#endif
