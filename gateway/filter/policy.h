/*
 * policy: a client of Postfix's policy delegation protocol (SMTPD_POLICY_README): name=value lines, an empty line, and
 * action=... back. For postgrey, policyd-spf, policyd-rate-limit and what operators wrote for Postfix.
 *
 * Each loop keeps a few connections to each service, reused. Understood actions: OK, DUNNO, REJECT, DEFER,
 * DEFER_IF_REJECT and DEFER_IF_PERMIT (as DEFER), 4NN text, 5NN text, DISCARD, PREPEND header (CHECK_END and RCPT:
 * gathered), WARN, INFO; all others are failures of the service.
 */
#ifndef GATEWAY_FILTER_POLICY_H
#define GATEWAY_FILTER_POLICY_H

#include "gateway/filter/check.h"
#include "gateway/filter/milter.h"

struct policy_config {
    const char *name;
    struct tcp_addr address;
    enum check_stage stage; /* CHECK_RCPT, CHECK_DATA or CHECK_END */
    enum milter_failure failure;
    uint64_t timeout_ms; /* default 10 s */
};
#define POLICIES_MAX 8

/* One for each loop. */
struct policies;
struct policies *policies_new(struct loop *l, const struct policy_config *configs, size_t count) MUST_CHECK;
void policies_free(struct policies *p);
/* Asks the services of this stage in order until one refuses. prepend (may be NULL) gets "Name: value" lines with CRLF.
 */
int policies_check(struct policies *p, enum check_stage stage, const struct check_facts *f, struct buf *prepend,
                   struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) MUST_CHECK;

#endif
