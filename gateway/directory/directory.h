/*
 * directory: who is a recipient here? The one interface in front of slow backends (ldap, postgres, http, callout):
 * cache, merging of equal questions, time-out, retry, circuit breaker, metrics. Tables and CDB files answer in the call
 * and do not come here.
 *
 * A directory is shared by all loops and thread-safe. What a backend says goes into the cache: found for positive_ms,
 * unknown for negative_ms, "cannot tell" never. While a backend fails, answers past their time are still given for
 * stale_ms (found only); else the verdict is TEMPFAIL: 451, never 250, never 550.
 */
#ifndef GATEWAY_DIRECTORY_DIRECTORY_H
#define GATEWAY_DIRECTORY_DIRECTORY_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/net/post.h"
#include "base/span.h"
#include "gateway/directory/table.h"

enum directory_kind { DIRECTORY_LDAP, DIRECTORY_POSTGRES, DIRECTORY_HTTP, DIRECTORY_CALLOUT };
struct directory_config {
    enum directory_kind kind;
    const char *name; /* for logs and verify; should be unique */
    /* common; 0: the default */
    uint64_t timeout_ms;               /* one question with its retry, 5 s */
    uint64_t positive_ms, negative_ms; /* 5 min, 1 min */
    uint64_t stale_ms;                 /* 1 h */
    uint32_t cache_entries;            /* 100,000 */
    uint32_t connections;              /* to the backend at once, 4 (callout: 4, http: 16) */
    uint32_t waiting;                  /* questions waiting at most, 10,000; more are TEMPFAIL at once */
    uint32_t breaker_failures;         /* failures in a row after which the backend rests, 5 */
    uint64_t breaker_ms;               /* for so long, then one question tries it, 5 s */
    bool catch_all;                    /* it knows catch-alls: an unknown address is asked again with an empty key */
    /* where and what */
    const char *uri; /* ldap://HOST:PORT, ldaps://, ldapi://; postgres: a libpq connection string; http: the URL;
                      * callout: smtp:HOST:PORT or lmtp:HOST:PORT or lmtp:unix:/path */
    const char *user, *password;   /* ldap bind DN; http basic authentication */
    bool starttls;                 /* ldap */
    const char *ca_file;           /* ldap, http */
    const char *base, *filter;     /* ldap: %s address, %u local part, %d domain, all escaped (RFC 4515); default
                                    * (|(mail=%s)(mailAlternateAddress=%s)) */
    const char *forward_attribute; /* ldap: when it has values, they are forwards (no copy) */
    const char *alias_attribute;   /* ldap: when it has values, they are the addresses that it becomes */
    const char *query;      /* postgres: $1 address, $2 local part, $3 domain; rows: column 1 (optional) a target;
                             * a row with NULL or an empty string: a mailbox; column 2 (optional) mailbox, alias,
                             * forward or forward_keep */
    const char *dns;        /* callout: servers; NULL: the system's */
    const char *hostname;   /* callout: for EHLO */
    bool sender_postmaster; /* callout: MAIL FROM:<postmaster@hostname> where the null sender is refused */
};

enum directory_status { DIRECTORY_FOUND, DIRECTORY_UNKNOWN, DIRECTORY_TEMPFAIL };
struct directory_answer {
    enum directory_status status;
    enum table_kind kind; /* FOUND */
    struct span targets;  /* FOUND, not MAILBOX: "a@b, c@d" as in tables (table_next_target) */
    bool cached, stale;
    struct span why; /* one line for verify and the log: what was asked and said */
};

struct directory;
/* problems: one line each. The backend is not contacted here: a dead one makes 451, not a refusal to start. */
int directory_new(struct directory **d, const struct directory_config *c, struct buf *problems) MUST_CHECK;
struct directory *directory_ref(struct directory *d);
/* The last one stops its threads; pending questions have been canceled. Never waits for a backend: while one still
 * works on a question, another thread closes it. */
void directory_unref(struct directory *d);
/* Waits until no directory is being closed any more: before the process ends. */
void directory_settle(void);
const char *directory_name(const struct directory *d);
bool directory_has_catch_all(const struct directory *d); /* it may be asked with an empty key */
/* The same configuration, so that a reload may keep the living one with its cache. */
bool directory_fits(const struct directory *d, const struct directory_config *c);

/* key: local part without quoting, as it is to be asked for; domain: canonical. The caller holds a reference until the
 * answer has come or was canceled; cancel is called on home's thread. At once from the cache, ERR_OK, texts into mem;
 * or ERR_AGAIN: it is asked, and cb comes on home's loop, once, never inside the call (the answer's texts live for the
 * call). ERR_NOMEM. */
typedef void (*directory_cb)(void *arg, const struct directory_answer *a);
struct directory_wait;
int directory_find(struct directory *d, struct post *home, struct span key, struct span domain, struct arena *mem,
                   struct directory_answer *a, struct directory_wait **wait, directory_cb cb, void *arg) MUST_CHECK;
void directory_cancel(struct directory_wait *w);

#endif
