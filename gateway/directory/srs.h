/*
 * srs: the Sender Rewriting Scheme: the return path of forwarded mail names a domain of ours, so that SPF holds at the
 * next hop, and carries the original sender under a keyed digest and a date, so that its bounces find the way back and
 * nobody else can use it.
 *
 *   forward:  user@origin         -> SRS0=HHHHHHHH=TT=origin=user@srs.example
 *             SRS0=...@hop        -> SRS1=HHHHHHHH=hop==...@srs.example     (one indirection, never more)
 *             SRS1=...=hop==...@x -> SRS1=HHHHHHHH=hop==...@srs.example
 *   reverse:  SRS0=HHHHHHHH=TT=origin=user@srs.example -> user@origin
 *             SRS1=HHHHHHHH=hop==...@srs.example       -> SRS0=...@hop
 *
 * HHHHHHHH is the first 40 bits of HMAC-SHA256 over the date, domain and local part in lower case, in base32 (RFC
 * 4648), which hops that fold the case of a local part do not harm. TT is the day, modulo 1024, in two characters of
 * the same alphabet. SRS1 has no date: the SRS0 inside it has, and its own hop checks it. Senders that need quotes or
 * are not ASCII are kept as they are.
 */
#ifndef GATEWAY_DIRECTORY_SRS_H
#define GATEWAY_DIRECTORY_SRS_H

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "gateway/smtp/address.h"

#define SRS_SECRET_MIN 16u  /* octets of a secret */
#define SRS_AGE_MAX 1000u   /* days: the date repeats after 1024 */
#define SRS_AGE_DEFAULT 21u /* days */

struct srs_config {
    const char *domain;         /* of the rewritten senders; must be one of ours; NULL: no SRS */
    const char *const *secrets; /* the first one signs, all verify; each >= 16 octets */
    size_t secret_count;
    uint32_t max_age_days; /* 0: SRS_AGE_DEFAULT; at most SRS_AGE_MAX */
};
/* *out: local@domain. ERR_UNSUPPORTED: needs no rewriting (null path, no SRS, or its domain is already ours by srs
 * domain); ERR_RANGE: the result would be longer than a local part may be, or could not be written without quotes (then
 * the sender is kept as it is, and this is logged); ERR_NOMEM. */
int srs_forward(const struct srs_config *c, const struct address *sender, uint64_t wall_ms, struct arena *mem,
                struct span *out) MUST_CHECK;
/* Whether the local part looks like SRS0 or SRS1 (any case). */
bool srs_is_srs(struct span key);
/* *out: where it goes. ERR_INVALID: not ours, altered; ERR_TIMEOUT: too old; ERR_NOMEM. */
int srs_reverse(const struct srs_config *c, const struct address *recipient, uint64_t wall_ms, struct arena *mem,
                struct span *out) MUST_CHECK;

#endif
