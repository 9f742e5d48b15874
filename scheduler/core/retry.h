/*
 * retry: when to try again, and when no more. Pure: settings, counts and a random draw in, a time out.
 */
#ifndef SCHEDULER_CORE_RETRY_H
#define SCHEDULER_CORE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/core/sched.h"

#define RETRY_BY_LEAST_MS 15000u

/* The pause after that many attempts (1 or more), without jitter: first, twice that, ... up to max. */
uint64_t retry_interval_ms(const struct sched_retry *r, uint32_t attempts);
/* base plus or minus a tenth, as the draw says. */
uint64_t retry_jitter_ms(uint64_t base_ms, uint64_t draw);
/* Wall time of the next attempt. */
uint64_t retry_due_ms(const struct sched_retry *r, uint32_t attempts, uint64_t now_ms, uint64_t draw);
/* The same after an attempt in doubt: never sooner than the whole interval. */
uint64_t retry_doubt_due_ms(const struct sched_retry *r, uint32_t attempts, uint64_t now_ms, uint64_t draw);
/* The same for a message with a DELIVERBY time (by_ms 0: none). While by_ms has not come, pauses are at most until
 * then; when it fails then, also at most half of what is left, unless that is less than RETRY_BY_LEAST_MS. */
uint64_t retry_by_ms(uint64_t due_ms, uint64_t now_ms, uint64_t by_ms, bool by_notify);
/* No attempt may be made at due_ms any more. */
bool retry_is_over(const struct sched_retry *r, uint64_t received_ms, uint64_t due_ms);
/* The sender is to hear of the delay by now. */
bool retry_is_late(const struct sched_retry *r, uint64_t received_ms, uint64_t now_ms);

#endif
