/*
 * sts_policy: the texts of MTA-STS (RFC 8461): the TXT record that announces a policy, the policy itself, and whether
 * it allows a host. Pure: spans in, an immutable counted policy out; time is an argument.
 *
 * Strict where a mistake would weaken the policy, lenient where the RFC says so: lines may end in LF alone, unknown
 * fields are skipped, of a repeated field (but mx) the first counts.
 */
#ifndef GATEWAY_SMTP_STS_POLICY_H
#define GATEWAY_SMTP_STS_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define STS_ID_MAX 32               /* octets of an id */
#define STS_TEXT_MAX (64u * 1024u)  /* octets of a policy */
#define STS_MX_MAX 500              /* patterns; a policy with more is invalid */
#define STS_LINES_MAX 1000          /* lines; a policy with more is invalid */
#define STS_MAX_AGE_S_MAX 31557600u /* one year (RFC 8461 section 3.2); more is cut to it */

enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE };

/* Immutable; counted on one thread. */
struct sts_policy {
    uint32_t refs;
    enum sts_mode mode;
    char id[STS_ID_MAX + 1]; /* of the TXT record that announced it */
    uint32_t max_age_s;
    uint64_t fetched_ms, expires_ms; /* wall clock */
    const char *const *mx;           /* lower case: a host, or "*." and a domain */
    size_t mx_count;
    const char *const *lines; /* the fields as they stood, trimmed, for reports; no empty ones */
    size_t line_count;
    size_t bytes; /* of memory, all told */
};

/* One TXT record (its strings joined). ERR_OK: *id lies in txt. ERR_NOT_FOUND: not of MTA-STS. ERR_INVALID: it is, and
 * malformed. Records are counted before they are judged: two of them are none (section 3.1). */
int sts_record_parse(struct span txt, struct span *id) MUST_CHECK;
/* Reads a policy. id: from the record. ERR_INVALID and *why (static); ERR_RANGE: over STS_TEXT_MAX; ERR_NOMEM. */
int sts_policy_parse(struct sts_policy **p, struct span text, struct span id, uint64_t wall_ms,
                     const char **why) MUST_CHECK;
struct sts_policy *sts_policy_ref(struct sts_policy *p); /* NULL stays NULL */
void sts_policy_unref(struct sts_policy *p);             /* NULL is fine */
/* Does a pattern match? host: a name of any case, a final dot is ignored. The mode is not looked at. A wildcard stands
 * for exactly one label (section 4.1). */
bool sts_allows(const struct sts_policy *p, const char *host);
const char *sts_mode_name(enum sts_mode m); /* "none", "testing", "enforce" */

#endif
