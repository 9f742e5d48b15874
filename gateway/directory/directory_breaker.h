/*
 * directory_breaker: after a number of failures in a row a backend is left alone for a while; then one question tries
 * it, and its end decides. Thread-safe. Inner to the directory.
 */
#ifndef GATEWAY_DIRECTORY_DIRECTORY_BREAKER_H
#define GATEWAY_DIRECTORY_DIRECTORY_BREAKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* closed -> open (enough failures) -> half open (the time is over, one probe) -> closed | open; an answer of a question
 * that was under way closes it from everywhere. */
enum directory_breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
struct directory_breaker {
    pthread_mutex_t lock;
    enum directory_breaker_state state;
    uint32_t failures, failures_max;
    uint64_t rest_ms, until_ms;
};

void directory_breaker_init(struct directory_breaker *b, uint32_t failures_max, uint64_t rest_ms);
void directory_breaker_deinit(struct directory_breaker *b);
bool directory_breaker_is_closed(struct directory_breaker *b);
/* Whether a question may be put; *probe: it is the one that tries. */
bool directory_breaker_admits(struct directory_breaker *b, uint64_t now, bool *probe);
/* The end of a question: ok or failed. Logs a change with the directory's name. */
void directory_breaker_report(struct directory_breaker *b, const char *name, uint64_t now, bool probe, bool ok,
                              struct span why);
/* The probe was not put after all: the next question tries. */
void directory_breaker_forget(struct directory_breaker *b);

#endif
