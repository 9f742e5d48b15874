/*
 * directory_count: the metrics of directories: a series for each kind, so that names do not make them grow.
 */
#include "base/metrics.h"

#include "gateway/directory/directory_inner.h"

#define BY_KIND(var, name, extra, help)                                                                                \
    METRIC_COUNTER_L(var##_ldap, name, "kind=\"ldap\"" extra, help)                                                    \
    METRIC_COUNTER_L(var##_postgres, name, "kind=\"postgres\"" extra, help)                                            \
    METRIC_COUNTER_L(var##_http, name, "kind=\"http\"" extra, help)                                                    \
    METRIC_COUNTER_L(var##_callout, name, "kind=\"callout\"" extra, help)                                              \
    static struct metric *const var[] = {&var##_ldap, &var##_postgres, &var##_http, &var##_callout};

BY_KIND(metric_cached, "posthouse_directory_answers_total", ",from=\"cache\"", "Answers of slow directories")
BY_KIND(metric_stale, "posthouse_directory_answers_total", ",from=\"stale\"", "Answers of slow directories")
BY_KIND(metric_found, "posthouse_directory_answers_total", ",from=\"backend\",result=\"found\"",
        "Answers of slow directories")
BY_KIND(metric_unknown, "posthouse_directory_answers_total", ",from=\"backend\",result=\"unknown\"",
        "Answers of slow directories")
BY_KIND(metric_tempfail, "posthouse_directory_answers_total", ",from=\"backend\",result=\"tempfail\"",
        "Answers of slow directories")
BY_KIND(metric_failed, "posthouse_directory_answers_total", ",from=\"backend\",result=\"failed\"",
        "Answers of slow directories")
BY_KIND(metric_merged, "posthouse_directory_merged_total", "", "Questions that joined an equal one under way")
BY_KIND(metric_refused, "posthouse_directory_refused_total", "", "Questions not put: backend at rest, or too many open")
BY_KIND(metric_retried, "posthouse_directory_retries_total", "", "Questions put a second time")
BY_KIND(metric_overdue, "posthouse_directory_overdue_total", "", "Questions given up while the backend went on")
METRIC_GAUGE(metric_open, "posthouse_directory_questions_open", "Questions that wait for a backend")
METRIC_HISTOGRAM(metric_time, "posthouse_directory_question_seconds",
                 "Time of a question to a directory, retry included")

void directory_count(const struct directory *d, enum directory_event event) {
    static struct metric *const *const events[] = {
        [COUNT_CACHED] = metric_cached,   [COUNT_STALE] = metric_stale,       [COUNT_FOUND] = metric_found,
        [COUNT_UNKNOWN] = metric_unknown, [COUNT_TEMPFAIL] = metric_tempfail, [COUNT_FAILED] = metric_failed,
        [COUNT_MERGED] = metric_merged,   [COUNT_REFUSED] = metric_refused,   [COUNT_RETRIED] = metric_retried,
        [COUNT_OVERDUE] = metric_overdue,
    };
    metric_add(events[event][d->config.kind], 1);
}

void directory_count_open(bool more) {
    if (more)
        metric_add(&metric_open, 1);
    else
        metric_sub(&metric_open, 1);
}

void directory_count_time(uint64_t us) {
    metric_observe(&metric_time, us);
}
