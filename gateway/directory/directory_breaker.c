/*
 * directory_breaker: see directory_breaker.h. All state changes are in change(), which logs and counts them.
 */
#include "gateway/directory/directory_breaker.h"

#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"

METRIC_COUNTER(metric_opened, "posthouse_directory_breaker_opened_total", "Times a directory was left alone")
METRIC_GAUGE(metric_down, "posthouse_directory_breakers_open", "Directories that are left alone or tried just now")

void directory_breaker_init(struct directory_breaker *b, uint32_t failures_max, uint64_t rest_ms) {
    *b = (struct directory_breaker){.failures_max = failures_max, .rest_ms = rest_ms};
    CHECK(pthread_mutex_init(&b->lock, NULL) == 0);
}

void directory_breaker_deinit(struct directory_breaker *b) {
    if (b->state != BREAKER_CLOSED)
        metric_sub(&metric_down, 1);
    pthread_mutex_destroy(&b->lock);
}

static void change(struct directory_breaker *b, enum directory_breaker_state state, const char *name, struct span why) {
    enum directory_breaker_state before = b->state;
    b->state = state;
    if (before == BREAKER_CLOSED && state == BREAKER_OPEN) {
        metric_add(&metric_opened, 1);
        metric_add(&metric_down, 1);
        LOG_WARN("directory_down", LOG_STR("directory", name), LOG_SPAN("why", why), LOG_U64("failures", b->failures),
                 LOG_U64("rest_ms", b->rest_ms));
    } else if (before != BREAKER_CLOSED && state == BREAKER_CLOSED) {
        metric_sub(&metric_down, 1);
        LOG_INFO("directory_up", LOG_STR("directory", name));
    } else if (before == BREAKER_HALF_OPEN && state == BREAKER_OPEN && name) {
        LOG_INFO("directory_still_down", LOG_STR("directory", name), LOG_SPAN("why", why));
    }
}

bool directory_breaker_is_closed(struct directory_breaker *b) {
    pthread_mutex_lock(&b->lock);
    bool closed = b->state == BREAKER_CLOSED;
    pthread_mutex_unlock(&b->lock);
    return closed;
}

bool directory_breaker_admits(struct directory_breaker *b, uint64_t now, bool *probe) {
    pthread_mutex_lock(&b->lock);
    bool yes = b->state == BREAKER_CLOSED;
    if (b->state == BREAKER_OPEN && now >= b->until_ms) {
        change(b, BREAKER_HALF_OPEN, NULL, SPAN_EMPTY);
        *probe = yes = true;
    }
    pthread_mutex_unlock(&b->lock);
    return yes;
}

void directory_breaker_report(struct directory_breaker *b, const char *name, uint64_t now, bool probe, bool ok,
                              struct span why) {
    pthread_mutex_lock(&b->lock);
    if (ok) {
        b->failures = 0;
        change(b, BREAKER_CLOSED, name, why);
    } else if (probe || (b->state == BREAKER_CLOSED && ++b->failures >= b->failures_max)) {
        b->until_ms = now + b->rest_ms;
        change(b, BREAKER_OPEN, name, why);
    }
    pthread_mutex_unlock(&b->lock);
}

void directory_breaker_forget(struct directory_breaker *b) {
    pthread_mutex_lock(&b->lock);
    if (b->state == BREAKER_HALF_OPEN)
        change(b, BREAKER_OPEN, NULL, SPAN_EMPTY);
    pthread_mutex_unlock(&b->lock);
}
