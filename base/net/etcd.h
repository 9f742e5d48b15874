/*
 * etcd: the door to etcd (v3), through its JSON gateway: get, transactions, leases, watches, on one loop and without
 * blocking. The cluster (scheduler and node) keeps there who owns what.
 *
 * Several endpoints are members of one cluster. One of them is spoken to at a time; when it fails, everything moves to
 * the next, and round again, for as long as it takes. What was asked and can be asked again without harm goes on there
 * within its time; a transaction that may have happened is never repeated, but says so (in_doubt): read back.
 *
 * Only monotonic clocks are looked at, so steps of the wall clock do not matter. Answers are bounded
 * (ETCD_ANSWER_MAX), and what is asked at a time too. An answer that breaks the rules counts as a failure of its
 * endpoint. So does one from another cluster than the first that answered: after a restore of etcd into a new cluster
 * the client must be opened anew.
 *
 * Callbacks never run inside the call that started something. In each, everything may be asked, canceled and closed,
 * the client too.
 */
#ifndef BASE_NET_ETCD_H
#define BASE_NET_ETCD_H

#include "base/buf.h"
#include "base/err.h"

#include "base/net/etcd_words.h"
#include "base/net/loop.h"

#define ETCD_ENDPOINTS_MAX 16u
#define ETCD_CALLS_MAX 1000u /* asked and not yet answered */
#define ETCD_LEASES_MAX 16u
#define ETCD_WATCHES_MAX 32u
#define ETCD_PREFIX_KEYS_MAX 200000u
#define ETCD_TIMEOUT_MS 5000u
#define ETCD_PROBE_MS 2000u

struct etcd;
struct etcd_config {
    const char *const *endpoints; /* "https://host:2379", copied */
    size_t endpoints_count;
    uint32_t first;                /* index of the endpoint to begin with (modulo the count): spreads clients */
    const char *ca_file;           /* NULL: the system's */
    const char *certificate, *key; /* of ours, or NULL */
    const char *user, *password;   /* or NULL */
    uint64_t timeout_ms;           /* of a question with all its repetitions; 0: ETCD_TIMEOUT_MS */
    uint64_t probe_ms;             /* with a watch, an endpoint is asked at least so often; 0: ETCD_PROBE_MS */
};
/* ERR_INVALID with a line in `problems` for each wrong setting; ERR_NOMEM. Nothing is connected yet. */
int etcd_open(struct etcd **e, struct loop *l, const struct etcd_config *c, struct buf *problems) MUST_CHECK;
/* Drops everything without a callback; calls, leases and watches are gone. Leases end by themselves: revoke them before
 * to end them at once. */
void etcd_close(struct etcd *e);

/* For the operator (the log tells each endpoint that fails, and answers again): whether the last question had an
 * answer; the endpoint spoken to; what went wrong last, or "". */
bool etcd_is_up(const struct etcd *e);
const char *etcd_endpoint(const struct etcd *e);
const char *etcd_trouble(const struct etcd *e);

/* -- get and transactions -- */

struct etcd_answer {
    int err;         /* ERR_OK: the rest counts */
    const char *why; /* one clean line for an err, else "" */
    /* With an err of a transaction: it may have been done, or may yet be done. */
    bool in_doubt;
    uint64_t revision; /* of the whole store, as of this answer: watch from revision + 1 */
    bool succeeded;    /* a transaction: the comparisons held, `then` was done */
    const struct etcd_kv *kvs;
    size_t count;
};
/* What is behind `a` is valid in the callback. */
typedef void (*etcd_cb)(void *arg, const struct etcd_answer *a);
struct etcd_call;
/* All these: cb exactly once unless canceled. NULL: no memory, ETCD_CALLS_MAX, or a question beyond the bounds of
 * etcd_words.h. Reads are linearizable: they never miss what was answered before.
 * Errors: ERR_TIMEOUT, ERR_UNREACHABLE (no endpoint; no leader), ERR_DENIED (password, permission, TLS), ERR_FULL (the
 * answer), ERR_CORRUPT (an answer), ERR_NOT_FOUND (the lease of a put), ERR_NO_SPACE, ERR_INVALID, ERR_AGAIN, ERR_IO,
 * ERR_RANGE, ERR_NOMEM. */
struct etcd_call *etcd_get(struct etcd *e, struct span key, etcd_cb cb, void *arg) MUST_CHECK;
/* All keys that begin with the prefix (not empty), in their order, as of one revision, read in pages. More than
 * ETCD_PREFIX_KEYS_MAX keys or ETCD_ANSWER_MAX octets: ERR_FULL. */
struct etcd_call *etcd_get_prefix(struct etcd *e, struct span prefix, etcd_cb cb, void *arg) MUST_CHECK;
/* kvs: what the gets of the branch that was taken found, in their order. */
struct etcd_call *etcd_txn(struct etcd *e, const struct etcd_txn *t, etcd_cb cb, void *arg) MUST_CHECK;
/* Not after its callback has begun. A transaction may be done all the same. */
void etcd_cancel(struct etcd_call *c);
/* The pair of this key, or NULL. */
const struct etcd_kv *etcd_find(const struct etcd_answer *a, struct span key);

/* -- leases -- */

/*
 * A lease is asked for until it is granted, and then kept alive. It certainly holds until the moment at which the
 * question that renewed it was sent, plus its time, minus a margin. When that moment passes without a renewal, or etcd
 * says that it is gone, it is lost, for good: close it and open another one. The clock goes on while the process, or
 * the machine, stands still.
 */
struct etcd_lease;
enum etcd_lease_event {
    ETCD_LEASE_GRANTED, /* once */
    ETCD_LEASE_LOST,    /* once; nothing comes after it */
};
typedef void (*etcd_lease_cb)(void *arg, enum etcd_lease_event event, const char *why);
#define ETCD_TTL_MIN_S 2u
#define ETCD_TTL_MAX_S 3600u
/* etcd may grant a longer time; ttl_s is what counts here. NULL: no memory, ETCD_LEASES_MAX, ttl_s out of bounds. */
struct etcd_lease *etcd_lease_open(struct etcd *e, uint32_t ttl_s, etcd_lease_cb cb, void *arg) MUST_CHECK;
uint64_t etcd_lease_id(const struct etcd_lease *l); /* for puts; 0: not granted yet, or lost */
/* How long it certainly still holds; 0: it does not, whether or not LOST was told already. Looks at the clock. */
uint64_t etcd_lease_left_ms(const struct etcd_lease *l);
/* Leaves it to its time. */
void etcd_lease_close(struct etcd_lease *l);
/* Ends it, and the keys bound to it go; l is gone at once (one that was not granted yet is left to its time). cb (may
 * be NULL) hears how it went: ERR_OK also when there was nothing to end. ERR_FULL (ETCD_CALLS_MAX, or no memory): no cb
 * comes, and it is left to its time. */
int etcd_lease_revoke(struct etcd_lease *l, etcd_cb cb, void *arg) MUST_CHECK;

/* -- watches -- */

struct etcd_news {
    int err; /* ERR_OK: events. Else nothing comes any more: close it */
    const char *why;
    const struct etcd_event *events; /* by mod_revision, each once, none missed; valid in the callback */
    size_t count;
    /* All changes up to this revision were told. Events of a later one may be told in several pieces: it does not
     * count them before the last piece. */
    uint64_t revision;
};
typedef void (*etcd_watch_cb)(void *arg, const struct etcd_news *n);
struct etcd_watch;
/*
 * Tells what happens to keys with this prefix from `revision` (> 0) on: that of a get of the prefix plus one. It goes
 * on over lost connections and failed endpoints, for as long as it takes. It ends with ERR_RANGE when the revisions
 * that it needs are gone (compacted), or when the store went back (restored from a copy): read the prefix anew and
 * watch from there; with ERR_DENIED when the user may not
 * read the prefix. NULL: no memory, ETCD_WATCHES_MAX, a prefix out of bounds.
 */
struct etcd_watch *etcd_watch_open(struct etcd *e, struct span prefix, uint64_t revision, etcd_watch_cb cb,
                                   void *arg) MUST_CHECK;
/* Whether etcd is heard now; a dead member is noticed within probe_ms and a question's time. */
bool etcd_watch_is_live(const struct etcd_watch *w);
void etcd_watch_close(struct etcd_watch *w);

#endif
