/*
 * pace: rates are never exceeded in any window and are reached in the long run; those that are sent away come back
 * spread; pauses, slowness and days; and the table forgets only what is over.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "gateway/outbound/pace.h"

enum { SENT_MAX = 100000 };
static uint64_t sent[SENT_MAX];

/* Sends whenever it may; the clock moves by up to step_ms. Returns how many went. */
static uint32_t run(const struct pace_rate *r, uint64_t for_ms, uint64_t step_ms, uint64_t seed) {
    struct pace p;
    struct rand rand;
    uint32_t count = 0;
    uint64_t start = 1000000, now = start;
    rand_init(&rand, seed);
    pace_init(&p);
    struct pace_entry *e = pace_get(&p, "x", now, 1);
    assert_non_null(e);
    for (; now < start + for_ms && count < SENT_MAX; now += rand_below(&rand, step_ms + 1)) {
        while (pace_wait_ms(e, r, 0, now) == 0 && count < SENT_MAX) {
            pace_take(e, r, now);
            sent[count++] = now;
        }
    }
    pace_put(e);
    pace_deinit(&p);
    return count;
}

static void test_rates(void **state) {
    (void)state;
    static const struct pace_rate rates[] = {{1, 1000},    {2, 1000},      {9, 60000},    {10, 1000},    {11, 7000},
                                             {100, 60000}, {999, 3600000}, {5000, 10000}, {20, 86400000}};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        const struct pace_rate *r = &rates[i];
        uint64_t windows = r->messages > 1000 ? 10 : 30;
        for (uint64_t step = 1; step <= r->window_ms; step *= 37) {
            if (r->window_ms * windows / step > 20000000)
                continue;
            uint32_t count = run(r, r->window_ms * windows, step, i + 1);
            for (uint32_t a = 0, b = 0; b < count; b++) {
                while (sent[b] - sent[a] >= r->window_ms)
                    a++;
                if (b - a + 1 > r->messages)
                    fail_msg("%u in a window of %u", b - a + 1, r->messages);
            }
            if (step < r->window_ms / r->messages / 4)
                assert_true(count >= r->messages * windows * 8 / 10);
        }
    }
}

static void test_wait(void **state) {
    (void)state;
    struct pace p;
    const struct pace_rate r = {10, 10000}; /* one at once, then each second */
    pace_init(&p);
    struct pace_entry *e = pace_get(&p, "x", 5000, 1);
    assert_int_equal(pace_wait_ms(e, &r, 0, 5000), 0);
    assert_int_equal(pace_wait_ms(e, &r, 2, 5000), 2000);
    pace_take(e, &r, 5000);
    assert_int_equal(pace_wait_ms(e, &r, 0, 5000), 1000);
    assert_int_equal(pace_wait_ms(e, &r, 0, 5600), 400);
    assert_int_equal(pace_wait_ms(e, &r, 0, 6000), 0);
    pace_take(e, &r, 5000); /* a debt: the next one pays */
    assert_int_equal(pace_wait_ms(e, &r, 0, 6000), 1000);
    pace_put(e);
    pace_deinit(&p);
}

static void test_promises(void **state) {
    (void)state;
    struct pace p;
    struct rand rand;
    const struct pace_rate r = {10, 10000};
    rand_init(&rand, 3);
    pace_init(&p);
    struct pace_entry *e = pace_get(&p, "x", 0, 1);
    pace_take(e, &r, 0);
    uint64_t before = 0;
    for (int i = 0; i < 3000; i++) { /* each a step later */
        uint64_t wait = pace_promise_ms(e, &r, 0, &rand);
        assert_true(wait >= before + 1000 && wait <= before + 1002);
        before = wait;
    }
    while (before + 1001 < PACE_PROMISE_MAX_MS)
        before = pace_promise_ms(e, &r, 0, &rand);
    for (int i = 0; i < 1000; i++) {
        uint64_t wait = pace_promise_ms(e, &r, 0, &rand);
        assert_in_range(wait, PACE_PROMISE_MAX_MS / 2, PACE_PROMISE_MAX_MS + 1002);
    }
    /* one that comes when its time has come goes, whatever was promised to others */
    assert_int_equal(pace_wait_ms(e, &r, 0, 1000), 0);
    pace_put(e);
    pace_deinit(&p);
}

static void test_pauses(void **state) {
    (void)state;
    struct pace p;
    pace_init(&p);
    struct pace_entry *e = pace_get(&p, "x", 0, 1);
    assert_int_equal(pace_pause_left_ms(e, 0), 0);
    pace_pause(e, 1000);
    pace_pause(e, 500); /* the longer one holds */
    assert_int_equal(pace_pause_left_ms(e, 400), 600);
    assert_int_equal(pace_pause_left_ms(e, 1000), 0);
    assert_int_equal(pace_pause_left_ms(NULL, 0), 0);
    e->slow_until_ms = 100;
    e->slow_max = 3;
    assert_int_equal(pace_connections(e, 20, 99), 3);
    assert_int_equal(pace_connections(e, 2, 99), 2);
    assert_int_equal(pace_connections(e, 20, 100), 20);
    assert_int_equal(pace_connections(NULL, 20, 0), 20);
    pace_pause(NULL, 5);
    pace_put(e);
    pace_deinit(&p);
}

static void test_days(void **state) {
    (void)state;
    struct pace p;
    pace_init(&p);
    struct pace_entry *e = pace_get(&p, "x", 0, 7);
    for (int i = 0; i < 5; i++)
        pace_count(e, 7);
    assert_int_equal(pace_today(e, 7), 5);
    assert_int_equal(pace_today(e, 8), 0);
    pace_count(e, 8);
    assert_int_equal(pace_today(e, 8), 1);
    assert_int_equal(pace_today(NULL, 8), 0);
    pace_put(e);
    pace_sweep(&p, 0, 8);
    assert_non_null(pace_find(&p, "x")); /* of today */
    pace_sweep(&p, 0, 9);
    assert_null(pace_find(&p, "x"));
    pace_deinit(&p);
}

static void test_table(void **state) {
    (void)state;
    struct pace p;
    char key[40];
    const struct pace_rate r = {1, 100000};
    pace_init(&p);
    struct pace_entry *e = pace_get(&p, "a", 0, 1);
    assert_ptr_equal(pace_get(&p, "a", 0, 1), e);
    pace_put(e);
    pace_sweep(&p, 0, 1);
    assert_ptr_equal(pace_find(&p, "a"), e); /* somebody holds it */
    pace_put(e);
    pace_pause(e, 10);
    pace_sweep(&p, 9, 1);
    assert_ptr_equal(pace_find(&p, "a"), e); /* it rests */
    pace_sweep(&p, 10, 1);
    assert_null(pace_find(&p, "a"));
    e = pace_get(&p, "b", 20, 1);
    e->keep_until_ms = 100;
    e->rest_until_ms = 50;
    pace_put(e);
    pace_sweep(&p, 99, 1);
    assert_non_null(pace_find(&p, "b"));
    pace_sweep(&p, 100, 1);
    assert_null(pace_find(&p, "b"));
    for (uint32_t i = 0; i < PACE_ENTRIES_MAX; i++) {
        snprintf(key, sizeof key, "k%u", i);
        e = pace_get(&p, key, 0, 1);
        assert_non_null(e);
        if (i % 2)
            pace_take(e, &r, 0);
        pace_put(e);
    }
    assert_non_null(e = pace_get(&p, "one more", 0, 1)); /* in the place of what is over */
    assert_int_equal(p.entries.count, PACE_ENTRIES_MAX / 2 + 1);
    pace_put(e);
    for (uint32_t i = 0; p.entries.count < PACE_ENTRIES_MAX; i++) {
        snprintf(key, sizeof key, "l%u", i);
        e = pace_get(&p, key, 0, 1);
        pace_pause(e, 1000);
        pace_put(e);
    }
    pace_pause(pace_find(&p, "one more"), 1000);
    assert_null(pace_get(&p, "too many", 0, 1)); /* all of it is in force */
    assert_non_null(e = pace_get(&p, "too many", 200000, 1));
    pace_put(e);
    for (uint32_t i = 0; p.entries.count < PACE_ENTRIES_MAX; i++) { /* what is good to know goes before it is over */
        snprintf(key, sizeof key, "m%u", i);
        e = pace_get(&p, key, 200000, 1);
        e->keep_until_ms = 900000;
        pace_put(e);
    }
    assert_non_null(e = pace_get(&p, "in its place", 200000, 1));
    pace_put(e);
    pace_deinit(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),  cmocka_unit_test(test_wait), cmocka_unit_test(test_promises),
        cmocka_unit_test(test_pauses), cmocka_unit_test(test_days), cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
