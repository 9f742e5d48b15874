/*
 * metrics: named counters, gauges and histograms, in static memory, updated from any thread
 * with relaxed atomics. A metric is defined once with METRIC_* at file scope and registers
 * itself before main. Exposition is the Prometheus text format 0.0.4.
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"

enum metric_kind { METRIC_KIND_COUNTER, METRIC_KIND_GAUGE, METRIC_KIND_HISTOGRAM };
#define METRIC_BUCKETS 24 /* powers of two from 1 unit: a microsecond or a millisecond */
struct metric {
    const char *name; /* posthouse_..._total for counters, posthouse_..._seconds for histograms */
    const char *help;
    const char *labels; /* fixed label set such as verdict="refused", or NULL */
    enum metric_kind kind;
    uint32_t per_second;                          /* histogram: units of what is observed in a second */
    atomic_uint_fast64_t value;                   /* counter, gauge; sum of a histogram */
    atomic_uint_fast64_t buckets[METRIC_BUCKETS]; /* histogram only */
    _Atomic(struct metric *) next;
};

/* For metrics whose labels are known at run time; from any thread, once for each, and it must stay for good. */
void metric_register(struct metric *m);
#define METRIC_DEFINE_(var, kind_, name_, labels_, help_) METRIC_DEFINE_IN_(var, kind_, name_, labels_, help_, 0)
#define METRIC_DEFINE_IN_(var, kind_, name_, labels_, help_, per_second_)                                              \
    static struct metric var = {                                                                                       \
        .name = name_, .help = help_, .labels = labels_, .kind = kind_, .per_second = per_second_};                    \
    __attribute__((constructor)) static void var##_register_(void) {                                                   \
        metric_register(&var);                                                                                         \
    }
#define METRIC_COUNTER(var, name, help) METRIC_DEFINE_(var, METRIC_KIND_COUNTER, name, NULL, help)
#define METRIC_COUNTER_L(var, name, labels, help) METRIC_DEFINE_(var, METRIC_KIND_COUNTER, name, labels, help)
#define METRIC_GAUGE(var, name, help) METRIC_DEFINE_(var, METRIC_KIND_GAUGE, name, NULL, help)
/* Observed in microseconds (up to 4 s are told apart), or in milliseconds (up to 70 min); exposed in seconds. */
#define METRIC_HISTOGRAM(var, name, help) METRIC_DEFINE_IN_(var, METRIC_KIND_HISTOGRAM, name, NULL, help, 1000000)
#define METRIC_HISTOGRAM_MS(var, name, help) METRIC_DEFINE_IN_(var, METRIC_KIND_HISTOGRAM, name, NULL, help, 1000)

void metric_add(struct metric *m, uint64_t n);
void metric_set(struct metric *m, uint64_t value);
void metric_sub(struct metric *m, uint64_t n); /* gauges */
uint64_t metric_value(const struct metric *m);
void metric_observe(struct metric *m, uint64_t value); /* histogram, in its unit */
/* First registered metric; then ->next. Sorted by name, so that families stay together. */
struct metric *metric_first(void);
/* All metrics in the text exposition format. */
int metric_expose(struct buf *to) MUST_CHECK;

#endif
