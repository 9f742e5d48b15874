/* metrics: the exposition text, the bounds of histogram buckets, updates from several threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "base/metrics.h"

METRIC_COUNTER_L(refused, "posthouse_test_total", "verdict=\"refused\"", "Test verdicts.");
METRIC_COUNTER_L(accepted, "posthouse_test_total", "verdict=\"accepted\"", "Test verdicts.");
METRIC_GAUGE(level, "posthouse_test_level", "A level.");
METRIC_HISTOGRAM(times, "posthouse_test_wait_seconds", "Times.");
METRIC_HISTOGRAM_MS(long_times, "posthouse_test_wide_seconds", "Long times.");

static void *count_up(void *arg) {
    for (int i = 0; i < 10000; i++)
        metric_add(arg, 1);
    return NULL;
}

static void exposes_sorted_families(void **state) {
    (void)state;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &accepted), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    metric_add(&refused, 3);
    metric_set(&level, 9);
    metric_sub(&level, 2);
    assert_int_equal(metric_value(&level), 7);
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(metric_expose(&b), ERR_OK);
    assert_non_null(strstr(buf_cstr(&b), "# HELP posthouse_test_level A level.\n# TYPE posthouse_test_level gauge\n"
                                         "posthouse_test_level 7\n"
                                         "# HELP posthouse_test_total Test verdicts.\n"
                                         "# TYPE posthouse_test_total counter\n"
                                         "posthouse_test_total{verdict=\"accepted\"} 20000\n"
                                         "posthouse_test_total{verdict=\"refused\"} 3\n"));
    buf_deinit(&b);
    buf_init(&b, 100);
    assert_int_equal(metric_expose(&b), ERR_FULL);
    buf_deinit(&b);
    for (struct metric *m = metric_first(); m && m->next; m = m->next)
        assert_true(strcmp(m->name, m->next->name) <= 0);
}

static void buckets_hold_what_is_not_above_their_bound(void **state) {
    (void)state;
    static const uint64_t values[] = {0, 1, 2, 3, 4, 5, 1 << 22, (1 << 22) + 1, 1ull << 60};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        metric_observe(&times, values[i]);
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(metric_expose(&b), ERR_OK);
    const char *text = buf_cstr(&b);
    static const char *const lines[] = {"# TYPE posthouse_test_wait_seconds histogram\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"0.000001\"} 2\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"0.000002\"} 3\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"0.000004\"} 5\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"0.000008\"} 6\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"1.048576\"} 6\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"4.194304\"} 7\n",
                                        "posthouse_test_wait_seconds_bucket{le=\"+Inf\"} 9\n",
                                        "posthouse_test_wait_seconds_count 9\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_non_null(strstr(text, lines[i]));
    buf_deinit(&b);
}

static void milliseconds_become_seconds_too(void **state) {
    (void)state;
    static const uint64_t values[] = {1, 1500, 100};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        metric_observe(&long_times, values[i]);
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(metric_expose(&b), ERR_OK);
    const char *text = buf_cstr(&b);
    static const char *const lines[] = {"posthouse_test_wide_seconds_bucket{le=\"0.001\"} 1\n",
                                        "posthouse_test_wide_seconds_bucket{le=\"0.128\"} 2\n",
                                        "posthouse_test_wide_seconds_bucket{le=\"2.048\"} 3\n",
                                        "posthouse_test_wide_seconds_bucket{le=\"4194.304\"} 3\n",
                                        "posthouse_test_wide_seconds_sum 1.601\n",
                                        "posthouse_test_wide_seconds_count 3\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_non_null(strstr(text, lines[i]));
    buf_deinit(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exposes_sorted_families),
        cmocka_unit_test(buckets_hold_what_is_not_above_their_bound),
        cmocka_unit_test(milliseconds_become_seconds_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
