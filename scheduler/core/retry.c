/*
 * retry: the timetable of smtp-rules line 41. The first pause doubles with each attempt up to a
 * maximum; a tenth of jitter keeps the mail of one bad hour from coming back in one lump. Mail
 * that could only be tried after its time is given up now, not later: the sender should know.
 */
#include "scheduler/core/retry.h"

uint64_t retry_interval_ms(const struct sched_retry *r, uint32_t attempts) {
    uint64_t ms = r->first_ms;
    for (uint32_t i = 1; i < attempts && ms < r->max_ms; i++)
        ms = ms > UINT64_MAX / 2 ? UINT64_MAX : ms * 2;
    return ms < r->max_ms ? ms : r->max_ms;
}

uint64_t retry_jitter_ms(uint64_t base_ms, uint64_t draw) {
    uint64_t tenth = base_ms / 10;
    return base_ms - tenth + draw % (2 * tenth + 1);
}

uint64_t retry_due_ms(const struct sched_retry *r, uint32_t attempts, uint64_t now_ms, uint64_t draw) {
    return now_ms + retry_jitter_ms(retry_interval_ms(r, attempts), draw);
}

uint64_t retry_doubt_due_ms(const struct sched_retry *r, uint32_t attempts, uint64_t now_ms, uint64_t draw) {
    uint64_t ms = retry_interval_ms(r, attempts);
    return now_ms + ms + draw % (ms / 10 + 1);
}

uint64_t retry_by_ms(uint64_t due_ms, uint64_t now_ms, uint64_t by_ms, bool by_notify) {
    if (by_ms <= now_ms)
        return due_ms;
    uint64_t half = (by_ms - now_ms) / 2;
    uint64_t most = by_notify || half < RETRY_BY_LEAST_MS ? by_ms : now_ms + half;
    return due_ms < most ? due_ms : most;
}

bool retry_is_over(const struct sched_retry *r, uint64_t received_ms, uint64_t due_ms) {
    return due_ms > received_ms && due_ms - received_ms > r->give_up_ms;
}

bool retry_is_late(const struct sched_retry *r, uint64_t received_ms, uint64_t now_ms) {
    return r->delay_notice_ms && now_ms > received_ms && now_ms - received_ms >= r->delay_notice_ms;
}
