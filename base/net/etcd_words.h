/*
 * etcd_words: the words of etcd's JSON gateway (v3): questions are written, answers are read. Pure: no I/O, no clock.
 *
 * Keys and values travel as base64, 64-bit integers as decimal strings, and members that are zero are left out. An
 * answer that is no JSON, has a member of the wrong kind, or lies beyond the bounds is refused whole; members that are
 * not known are passed over. What comes out lies in the caller's arena.
 */
#ifndef BASE_NET_ETCD_WORDS_H
#define BASE_NET_ETCD_WORDS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/span.h"

#define ETCD_KEY_MAX 1024u             /* octets */
#define ETCD_VALUE_MAX (1024u * 1024u) /* octets; etcd takes questions up to 1.5 MiB by default */
#define ETCD_OPS_MAX 128u              /* comparisons, and steps of each branch, in a transaction: etcd's default */
#define ETCD_ANSWER_MAX (16u * 1024 * 1024u) /* octets of one answer, and of the keys and values of a whole prefix */
#define ETCD_VALUES_MAX 500000u              /* JSON values in one answer */
#define ETCD_TOKEN_MAX 8192u

struct etcd_kv {
    struct span key, value;
    uint64_t create_revision, mod_revision, version; /* version 0: deleted */
    uint64_t lease;                                  /* 0: none */
};

/* -- questions -- */

enum etcd_target { ETCD_CREATE_REVISION, ETCD_MOD_REVISION, ETCD_VERSION, ETCD_VALUE };
enum etcd_relation { ETCD_EQUAL, ETCD_NOT_EQUAL, ETCD_GREATER, ETCD_LESS };
/* A key that is not there has revisions and version 0; its value equals nothing. */
struct etcd_compare {
    struct span key;
    enum etcd_target target;
    enum etcd_relation relation;
    uint64_t number;   /* for ETCD_VALUE: */
    struct span value; /* octets */
};
enum etcd_verb { ETCD_GET, ETCD_PUT, ETCD_DELETE };
struct etcd_op {
    enum etcd_verb verb;
    struct span key;
    bool prefix;       /* get or delete all keys that begin so */
    struct span value; /* put */
    uint64_t lease;    /* put: the key goes when this lease ends; 0: none */
};
struct etcd_txn {
    const struct etcd_compare *compares;
    size_t compares_count;
    const struct etcd_op *then, *otherwise; /* done when all comparisons hold; when not */
    size_t then_count, otherwise_count;
};
struct etcd_range {
    struct span key;
    bool prefix;
    struct span after; /* only keys behind this one (which begins with key); empty: all */
    uint64_t revision; /* as it was then; 0: now */
    uint32_t limit;    /* keys; 0: no limit */
    bool count_only;
};
/* All append to `to`, whose err tells. ERR_INVALID beyond the bounds above, for an empty key and for two puts or
 * deletes of one key in one branch (etcd refuses those too). */
int etcd_words_range(const struct etcd_range *r, struct buf *to) MUST_CHECK;
int etcd_words_txn(const struct etcd_txn *t, struct buf *to) MUST_CHECK;
int etcd_words_grant(uint32_t ttl_s, struct buf *to) MUST_CHECK;
int etcd_words_lease(uint64_t id, struct buf *to) MUST_CHECK; /* keep alive, revoke */
int etcd_words_watch(struct span prefix, uint64_t revision, struct buf *to) MUST_CHECK;
int etcd_words_login(const char *user, const char *password, struct buf *to) MUST_CHECK;

/* -- answers -- */

struct etcd_event {
    bool deleted;
    struct etcd_kv kv; /* deleted: only key and mod_revision */
};
/* What an answer says; each kind fills its part. */
struct etcd_reply {
    uint64_t cluster, revision;
    struct etcd_kv *kvs; /* a range; all gets of a transaction in their order */
    size_t count;
    bool more;      /* a range: there are more keys */
    bool succeeded; /* a transaction: the comparisons held */
    uint64_t lease;
    uint32_t ttl_s; /* 0: there is no such lease (any more) */
    char *token;
    struct etcd_event *events; /* a watch */
    size_t events_count;
    bool created, canceled;
    bool fragment;             /* more events of the same answer follow in the next */
    uint64_t compact_revision; /* over 0: the revisions before it are gone */
    int fault;                 /* ERR_OK, or what etcd says went wrong */
    struct span why;           /* one clean line for a fault, or for a cancellation */
};
enum etcd_kind { ETCD_KIND_RANGE, ETCD_KIND_TXN, ETCD_KIND_LEASE, ETCD_KIND_TOKEN, ETCD_KIND_WATCH };
/* ERR_OK also when etcd reports a fault. ERR_CORRUPT: not such an answer; ERR_FULL: beyond the bounds or the arena. */
int etcd_words_read(struct span text, enum etcd_kind kind, struct arena *a, struct etcd_reply *reply) MUST_CHECK;

/* -- faults: what becomes of a question -- */

bool etcd_words_is_token_fault(struct span why);       /* a new token is needed; nothing was done */
bool etcd_words_is_undone(int fault, struct span why); /* certainly nothing was done */

/* The first key behind all that begin with this prefix, as etcd wants it: appended to `to`. */
int etcd_words_prefix_end(struct span prefix, struct buf *to) MUST_CHECK;

#endif
