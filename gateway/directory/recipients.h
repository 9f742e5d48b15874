/*
 * recipients: what RCPT TO answers, and why: own domains, aliases, forwards, relaying.
 *
 * A verdict is found before the recipient is accepted, so that we never have to bounce what we
 * could have refused (no backscatter). Aliases and forwards are expanded here, at RCPT TO; an
 * expansion that cannot be routed refuses the recipient.
 *
 * The directory of a domain may be slow (ldap, http, ...; later), so the answer comes through a
 * callback; the table and `any` directories answer at once. The set of domains and tables is immutable
 * and reference-counted: a reload makes a new one, sessions keep the one that they hold.
 */
#ifndef GATEWAY_INBOUND_RECIPIENTS_H
#define GATEWAY_INBOUND_RECIPIENTS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/net/loop.h"
#include "base/span.h"
#include "gateway/smtp/address.h"

#define RECIPIENTS_EXPANSION_MAX 1000 /* final addresses of one RCPT TO */
#define RECIPIENTS_DEPTH_MAX 20       /* aliases of aliases */

enum recipients_directory { RECIPIENTS_TABLE, RECIPIENTS_ANY };
struct recipients_domain_config {
    const char *name; /* any case, U-labels allowed */
    enum recipients_directory directory;
    const char *table; /* path of the file, for RECIPIENTS_TABLE */
};
struct recipients_config {
    const struct recipients_domain_config *domains;
    size_t count;
    const char *postmaster; /* address for <Postmaster> */
    const char *hostname;
};

/* The set: shared by all gateway loops, thread-safe for reading. problems: lines "file:line: what" appended
 * when the set cannot be made (ERR_INVALID). */
struct recipients;
int recipients_new(struct recipients **r, const struct recipients_config *c, struct buf *problems) MUST_CHECK;
struct recipients *recipients_ref(struct recipients *r);
void recipients_unref(struct recipients *r);
/* Reads the table files that changed since; *fresh is a new set (or NULL when nothing changed). Blocking: on a helper
 * thread. A broken file keeps the old table of that domain and is reported in problems; other domains are renewed. */
int recipients_reload(struct recipients *r, struct recipients **fresh, struct buf *problems) MUST_CHECK;
/* Paths of all table files, for watching; NULL after the last. */
const char *recipients_file(const struct recipients *r, size_t n);

enum recipients_verdict {
    RECIPIENTS_LOCAL,      /* ours and known: 250; targets are what it became */
    RECIPIENTS_RELAY,      /* elsewhere, and this client may relay: 250; one target, itself */
    RECIPIENTS_UNKNOWN,    /* ours, unknown: 550 5.1.1 */
    RECIPIENTS_NO_RELAY,   /* elsewhere, and this client may not: 550 5.7.1 */
    RECIPIENTS_UNROUTABLE, /* alias or forward into a loop, too deep or too wide, or with a bad target: 550 5.4.6
                              / 5.1.1 … */
    RECIPIENTS_TEMPFAIL,   /* not knowable now: 451 4.3.0 */
};
struct recipients_target {
    struct span address;     /* local@domain */
    struct span destination; /* routing domain */
    bool local;              /* in an own domain */
};
struct recipients_answer {
    enum recipients_verdict verdict;
    struct span enhanced; /* "2.1.5", "5.1.1", ... */
    struct span text;     /* for the reply and the log */
    const struct recipients_target *targets;
    size_t count;
};
/* Judges one address. may_relay: the client is in trusted_networks or authenticated. Memory of the answer from mem.
 * steps (may be NULL) gets one line for each step of the reasoning (for `posthouse verify`). */
int recipients_judge(struct recipients *r, const struct address *a, bool may_relay, struct arena *mem,
                     struct recipients_answer *out, struct buf *steps) MUST_CHECK;

#endif
