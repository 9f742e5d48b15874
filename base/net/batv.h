/*
 * batv: Bounce Address Tag Validation (draft-levine-smtp-batv): the return path of mail that leaves us carries a keyed
 * tag with a date, prvs=KDDDSSSSSS=local@domain, so that a report that comes back proves that it is about mail of ours.
 *
 *   K       number of the key: 0 from us; all secrets are tried whatever it says, since it is part of what is hashed
 *   DDD     the last day on which the tag is good, in days since 1970 modulo 1000
 *   SSSSSS  the first three octets, in hex, of HMAC-SHA1 over KDDD and the address without its tag, in lower case:
 *           hops may fold the case of a local part
 *
 * Immutable once made and counted by reference; thread-safe. Time and memory are arguments.
 */
#ifndef BASE_NET_BATV_H
#define BASE_NET_BATV_H

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

#define BATV_SECRET_MIN 16u /* octets of a secret */
#define BATV_SECRETS_MAX 16u
#define BATV_AGE_MAX 365u /* days: the date repeats after 1000 */
#define BATV_AGE_DEFAULT 7u

struct batv_config {
    const char *const *domains; /* of senders whose mail is tagged; canonical */
    size_t domain_count;        /* 0: none */
    const char *const *secrets; /* the first one signs, all are believed */
    size_t secret_count;
    uint32_t max_age_days; /* 0: BATV_AGE_DEFAULT */
    bool require;          /* reports to addresses of the domains without a tag are refused */
};
struct batv;
/* Copies. *out is NULL where there are no domains or no secrets. ERR_NOMEM. */
int batv_new(struct batv **out, const struct batv_config *c) MUST_CHECK;
struct batv *batv_ref(struct batv *b); /* of NULL: NULL */
void batv_unref(struct batv *b);       /* NULL is fine */

/* All take b NULL for: no domain has tags. address: local@domain. */

/* It has a tag, good or not, and its domain is one of them. */
bool batv_is_tagged(const struct batv *b, struct span address);
/* The address without its tag, part of which is in mem; as it is where it has none. .at NULL: no memory. */
struct span batv_strip(const struct batv *b, struct span address, struct arena *mem);
/* The sender with a tag; empty: it gets none: another domain, the null path, tagged already, not plain ASCII, too long
 * with a tag, or no memory. */
struct span batv_sign(const struct batv *b, struct span sender, uint64_t wall_ms, struct arena *mem);
/* *plain: the address without its tag, also of a bad one. ERR_UNSUPPORTED: not tagged; ERR_INVALID: not ours, or
 * altered; ERR_TIMEOUT: too old; ERR_NOMEM. */
int batv_check(const struct batv *b, struct span address, uint64_t wall_ms, struct arena *mem,
               struct span *plain) MUST_CHECK;
/* Mail from the null path to this address must have a tag: it has none, though we would have given it one. */
bool batv_misses(const struct batv *b, struct span address);

#endif
