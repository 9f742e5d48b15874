/* retry: the row of pauses, the bounds of the jitter, giving up and being late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rand.h"
#include "scheduler/core/retry.h"

static const struct sched_retry usual = {300000, 14400000, 432000000, 14400000};

static void doubles_up_to_the_maximum(void **state) {
    (void)state;
    const uint64_t minutes[] = {5, 10, 20, 40, 80, 160, 240, 240};
    for (uint32_t i = 0; i < sizeof minutes / sizeof *minutes; i++)
        assert_int_equal(retry_interval_ms(&usual, i + 1), minutes[i] * 60000);
    assert_int_equal(retry_interval_ms(&usual, 0), 300000);
    assert_int_equal(retry_interval_ms(&usual, UINT32_MAX), 14400000);
    struct sched_retry flat = {1000, 1000, 5000, 0};
    assert_int_equal(retry_interval_ms(&flat, 9), 1000);
}

static void jitter_stays_within_a_tenth(void **state) {
    (void)state;
    struct rand r;
    rand_init(&r, 1);
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t ms = retry_due_ms(&usual, 1, 1000, rand_u64(&r)) - 1000;
        assert_in_range(ms, 270000, 330000);
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_true(least < 272000 && most > 328000); /* and uses it */
    assert_int_equal(retry_jitter_ms(5, UINT64_MAX), 5);
}

static void doubt_waits_the_whole_interval(void **state) {
    (void)state;
    struct rand r;
    rand_init(&r, 2);
    for (int i = 0; i < 20000; i++)
        assert_in_range(retry_doubt_due_ms(&usual, 2, 0, rand_u64(&r)), 600000, 660000);
}

static void gives_up_and_is_late(void **state) {
    (void)state;
    assert_false(retry_is_over(&usual, 1000, 432001000));
    assert_true(retry_is_over(&usual, 1000, 432001001));
    assert_false(retry_is_over(&usual, 1000, 0)); /* a clock that was set back */
    assert_false(retry_is_late(&usual, 1000, 14400999));
    assert_true(retry_is_late(&usual, 1000, 14401000));
    assert_false(retry_is_late(&usual, 1000, 0));
    struct sched_retry silent = usual;
    silent.delay_notice_ms = 0;
    assert_false(retry_is_late(&silent, 0, UINT64_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doubles_up_to_the_maximum),
        cmocka_unit_test(jitter_stays_within_a_tenth),
        cmocka_unit_test(doubt_waits_the_whole_interval),
        cmocka_unit_test(gives_up_and_is_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
