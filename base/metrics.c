/*
 * metrics: the list of all metrics of the process and its exposition. The list is built by constructors before main;
 * later it only grows, one link at a time, so reading it needs no lock. Values are relaxed atomics: each is right, a
 * row of them is not a snapshot.
 *
 * A histogram has 23 buckets with the bounds 1, 2, 4 ... 2^22 units and one for everything above;
 * its count is the sum of the buckets. It is exposed in seconds, whatever its unit.
 */
#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "base/metrics.h"

static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct metric *) registry; /* sorted by name, then labels */

static int order(const struct metric *a, const struct metric *b) {
    int by_name = strcmp(a->name, b->name);
    return by_name ? by_name : strcmp(a->labels ? a->labels : "", b->labels ? b->labels : "");
}

void metric_register(struct metric *m) {
    pthread_mutex_lock(&registering);
    _Atomic(struct metric *) *link = &registry;
    struct metric *at;
    while ((at = *link) && order(at, m) <= 0) {
        CHECK(at != m);
        link = &at->next;
    }
    m->next = at;
    *link = m; /* whoever reads the list sees all of m, or not yet */
    pthread_mutex_unlock(&registering);
}

struct metric *metric_first(void) {
    return registry;
}

void metric_add(struct metric *m, uint64_t n) {
    atomic_fetch_add_explicit(&m->value, n, memory_order_relaxed);
}

void metric_sub(struct metric *m, uint64_t n) {
    atomic_fetch_sub_explicit(&m->value, n, memory_order_relaxed);
}

void metric_set(struct metric *m, uint64_t value) {
    atomic_store_explicit(&m->value, value, memory_order_relaxed);
}

uint64_t metric_value(const struct metric *m) {
    return atomic_load_explicit(&m->value, memory_order_relaxed);
}

void metric_observe(struct metric *m, uint64_t value) {
    /* The smallest i with value <= 2^i. */
    unsigned i = value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(value - 1);
    if (i > METRIC_BUCKETS - 1)
        i = METRIC_BUCKETS - 1;
    atomic_fetch_add_explicit(&m->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->value, value, memory_order_relaxed);
}

/* So many units as seconds, exactly, without zeros at the end. */
static void add_seconds(struct buf *to, const struct metric *m, uint64_t units) {
    uint64_t rest = units % m->per_second;
    buf_add_u64(to, units / m->per_second);
    if (rest)
        buf_add_byte(to, '.');
    for (uint64_t unit = m->per_second / 10; rest; rest %= unit, unit /= 10)
        buf_add_u64(to, rest / unit);
}

static void expose_histogram(struct buf *to, const struct metric *m) {
    const char *labels = m->labels ? m->labels : "";
    const char *comma = m->labels ? "," : "";
    const char *open = m->labels ? "{" : "", *close = m->labels ? "}" : "";
    uint64_t count = 0;
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        count += atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
        buf_printf(to, "%s_bucket{%s%sle=\"", m->name, labels, comma);
        if (i == METRIC_BUCKETS - 1)
            buf_add_str(to, "+Inf");
        else
            add_seconds(to, m, (uint64_t)1 << i);
        buf_add_str(to, "\"} ");
        buf_add_u64(to, count);
        buf_add_byte(to, '\n');
    }
    buf_printf(to, "%s_sum%s%s%s ", m->name, open, labels, close);
    add_seconds(to, m, metric_value(m));
    buf_add_byte(to, '\n');
    buf_printf(to, "%s_count%s%s%s %llu\n", m->name, open, labels, close, (unsigned long long)count);
}

int metric_expose(struct buf *to) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const char *family = "";
    for (const struct metric *m = registry; m; m = m->next) {
        if (strcmp(family, m->name) != 0) {
            buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kinds[m->kind]);
            family = m->name;
        }
        if (m->kind == METRIC_KIND_HISTOGRAM)
            expose_histogram(to, m);
        else if (m->labels)
            buf_printf(to, "%s{%s} %llu\n", m->name, m->labels, (unsigned long long)metric_value(m));
        else
            buf_printf(to, "%s %llu\n", m->name, (unsigned long long)metric_value(m));
    }
    return to->err;
}
