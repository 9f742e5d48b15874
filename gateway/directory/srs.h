/*
 * srs: the Sender Rewriting Scheme: the return path of forwarded mail names a domain of ours, so that SPF holds at the
 * next hop, and carries the original sender under a keyed digest and a date, so that its bounces find the way back and
 * nobody else can use it.
 *
 *   forward:  user@origin         -> SRS0=HHHH=TT=origin=user@srs.example
 *             SRS0=...@hop        -> SRS1=HHHH=hop==...@srs.example     (one indirection, never more)
 *   reverse:  SRS0=HHHH=TT=origin=user@srs.example -> user@origin
 *             SRS1=HHHH=hop==...@srs.example       -> SRS0=...@hop
 */
#ifndef GATEWAY_DIRECTORY_SRS_H
#define GATEWAY_DIRECTORY_SRS_H

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "gateway/smtp/address.h"

struct srs_config {
    const char *domain;         /* of the rewritten senders; must be one of ours; NULL: no SRS */
    const char *const *secrets; /* the first one signs, all verify; each >= 16 octets */
    size_t secret_count;
    uint32_t max_age_days; /* default 21 */
};
/* ERR_UNSUPPORTED: needs no rewriting (null path, or its domain is already ours by srs domain); ERR_RANGE: the result
 * would be longer than a local part may be (then the sender is kept as it is, and this is logged); ERR_NOMEM. */
int srs_forward(const struct srs_config *c, const struct address *sender, uint64_t wall_ms, struct arena *mem,
                struct span *out) MUST_CHECK;
/* Whether the local part looks like SRS0 or SRS1 (any case). */
bool srs_is_srs(struct span key);
/* ERR_INVALID: not ours, altered; ERR_TIMEOUT: too old; ERR_NOMEM. */
int srs_reverse(const struct srs_config *c, const struct address *recipient, uint64_t wall_ms, struct arena *mem,
                struct span *out) MUST_CHECK;

#endif
