/*
 * recipients: what RCPT TO answers, and why: own domains, aliases, forwards, relaying.
 *
 * A verdict is found before the recipient is accepted, so that we never have to bounce what we
 * could have refused (no backscatter). Aliases and forwards are expanded here, at RCPT TO; an
 * expansion that cannot be routed refuses the recipient.
 *
 * A domain asks its sources in order: tables and CDB files answer in the call, directories (ldap, postgres, http,
 * callout) later, through a callback. The set of domains, tables and directories is immutable and reference-counted: a
 * reload makes a new one, sessions keep the one that they hold; living directories move to the new set with their
 * caches.
 */
#ifndef GATEWAY_DIRECTORY_RECIPIENTS_H
#define GATEWAY_DIRECTORY_RECIPIENTS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/net/batv.h"
#include "base/net/loop.h"
#include "base/net/post.h"
#include "base/span.h"
#include "gateway/directory/directory.h"
#include "gateway/directory/srs.h"
#include "gateway/smtp/address.h"

#define RECIPIENTS_EXPANSION_MAX 1000 /* final addresses of one RCPT TO */
#define RECIPIENTS_DEPTH_MAX 20       /* aliases of aliases */
#define RECIPIENTS_QUESTIONS_MAX 200  /* to slow directories, for one RCPT TO */
#define RECIPIENTS_SOURCES_MAX 16     /* of one domain */

enum recipients_directory { RECIPIENTS_TABLE, RECIPIENTS_ANY, RECIPIENTS_CDB, RECIPIENTS_DIRECTORY };
struct recipients_source {
    enum recipients_directory kind;
    const char *table;                        /* path of the file, for RECIPIENTS_TABLE and RECIPIENTS_CDB */
    const struct directory_config *directory; /* for RECIPIENTS_DIRECTORY; equal ones are one, shared */
};
struct recipients_domain_config {
    const char *name;                    /* any case, U-labels allowed */
    enum recipients_directory directory; /* with table: the one source, where sources is NULL */
    const char *table;
    const struct recipients_source *sources; /* asked in this order: the first that knows the address decides; one
                                              * that cannot tell is 451, unless an earlier one knew */
    size_t source_count;
    const char *tag;     /* every octet of it separates "user" from its tag; NULL: "+"; "": no tags */
    bool case_sensitive; /* directories get local parts as given, not in lower case; tables never mind the case */
};
struct recipients_config {
    const struct recipients_domain_config *domains;
    size_t count;
    const char *postmaster; /* address for <Postmaster> */
    const char *hostname;
    const struct srs_config *srs;   /* NULL: no SRS; its domain must be one of domains */
    const struct batv_config *batv; /* NULL: no BATV; its domains must be among them */
};

/* The set: shared by all gateway loops, thread-safe for reading. problems: lines "file:line: what" appended
 * when the set cannot be made (ERR_INVALID). */
struct recipients;
int recipients_new(struct recipients **r, const struct recipients_config *c, struct buf *problems) MUST_CHECK;
/* The same; directories that did not change are taken over from old (may be NULL) with all that they know. */
int recipients_renew(struct recipients **r, const struct recipients_config *c, struct recipients *old,
                     struct buf *problems) MUST_CHECK;
struct recipients *recipients_ref(struct recipients *r);
void recipients_unref(struct recipients *r);
/* Reads the table files that changed since; *fresh is a new set (or NULL when nothing changed). Blocking: on a helper
 * thread. A broken file keeps the old table of that domain and is reported in problems; other domains are renewed. */
int recipients_reload(struct recipients *r, struct recipients **fresh, struct buf *problems) MUST_CHECK;
/* Paths of all table and CDB files, for watching; NULL after the last. */
const char *recipients_file(const struct recipients *r, size_t n);
/* What works and is yet unwise, one line each, such as "domains: a.example: any recipient is accepted: ..."; returns
 * the number of lines. For `posthoused --check`. */
size_t recipients_warnings(const struct recipients *r, struct buf *lines);
/* The directories of the set in turn, for the status; NULL after the last. */
const struct directory *recipients_directory_at(const struct recipients *r, size_t n);

enum recipients_verdict {
    RECIPIENTS_LOCAL,      /* ours and known: 250; targets are what it became */
    RECIPIENTS_RELAY,      /* elsewhere, and this client may relay: 250; one target, itself */
    RECIPIENTS_UNKNOWN,    /* ours, unknown: 550 5.1.1 */
    RECIPIENTS_NO_RELAY,   /* elsewhere, and this client may not: 550 5.7.1 */
    RECIPIENTS_UNROUTABLE, /* alias or forward into a loop, too deep or too wide, or with a bad target: 550 5.4.6
                              / 5.1.1 … */
    RECIPIENTS_FORGED, /* a known address under a BATV tag that is not good, or without one that it needs: 550 5.7.1 */
    RECIPIENTS_TEMPFAIL, /* not knowable now: 451 4.3.0 */
};
struct recipients_target {
    struct span address;     /* local@domain */
    struct span destination; /* routing domain */
    bool local;              /* in an own domain */
    struct span return_path; /* SRS: the sender for this target; empty: the sender as it is */
};
struct recipients_answer {
    enum recipients_verdict verdict;
    struct span enhanced; /* "2.1.5", "5.1.1", ... */
    struct span text;     /* for the reply and the log */
    const struct recipients_target *targets;
    size_t count;
};
/* Who asks. */
struct recipients_caller {
    bool may_relay;               /* the client is in trusted_networks or authenticated */
    uint64_t wall_ms;             /* now, for SRS and BATV */
    const struct address *sender; /* of the transaction; empty: the null path; NULL: there is none, it is only asked */
};

/* Judges one address. ERR_OK: *out is the answer. ERR_AGAIN: a slow directory is asked; cb comes on home's loop, once,
 * never inside this call, unless recipients_cancel(*wait) comes before. To be called on home's thread. ERR_NOMEM: out
 * says TEMPFAIL.
 *
 * The memory of the answer is from mem. mem and steps must live until cb or cancel; *a and *who need not (the texts are
 * copied), and the wait holds the set. steps (may be NULL) gets one line for each step of the reasoning, with what the
 * directories were asked and said (for `posthouse verify`). */
typedef void (*recipients_cb)(void *arg, const struct recipients_answer *answer);
struct recipients_wait;
int recipients_ask(struct recipients *r, struct post *home, const struct address *a,
                   const struct recipients_caller *who, struct arena *mem, struct recipients_answer *out,
                   struct recipients_wait **wait, recipients_cb cb, void *arg, struct buf *steps) MUST_CHECK;
void recipients_cancel(struct recipients_wait *w);

/* Judges without asking slow directories: where one is needed the verdict is TEMPFAIL. */
int recipients_judge(struct recipients *r, const struct address *a, bool may_relay, struct arena *mem,
                     struct recipients_answer *out, struct buf *steps) MUST_CHECK;

#endif
