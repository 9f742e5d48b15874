/* tally: counts by destination, state and age; bounded; sorted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "scheduler/core/sched.h"
#include "scheduler/tally.h"

#define MINUTE_MS 60000u
static const uint64_t now_ms = UINT64_C(1790000000000);

static void counts_states_and_sorts(void **state) {
    struct tally t;
    (void)state;
    tally_init(&t, now_ms);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(tally_add(&t, SPAN("b.example"), SCHED_DEFERRED, now_ms - i), ERR_OK);
    assert_int_equal(tally_add(&t, SPAN("a.example"), SCHED_READY, now_ms - 50), ERR_OK);
    assert_int_equal(tally_add(&t, SPAN("c.example"), TALLY_HELD, now_ms), ERR_OK);
    assert_int_equal(tally_add(&t, SPAN("c.example"), SCHED_ASSIGNED, now_ms), ERR_OK);
    assert_int_equal(tally_add(&t, SPAN("d.example"), SCHED_FAILED, now_ms), ERR_OK);
    assert_int_equal(tally_sort(&t), ERR_OK);
    assert_int_equal(t.row_count, 4);
    static const char *const names[] = {"b.example", "c.example", "a.example", "d.example"};
    for (unsigned i = 0; i < 4; i++)
        assert_true(span_eq(t.rows[i]->name, span_of(names[i])));
    assert_int_equal(t.rows[0]->count, 3);
    assert_int_equal(t.rows[0]->deferred, 3);
    assert_int_equal(t.rows[0]->ready, 0);
    assert_int_equal(t.rows[0]->oldest_ms, now_ms - 2);
    assert_int_equal(t.rows[1]->held, 1);
    assert_int_equal(t.rows[1]->ready, 1);
    assert_int_equal(t.total.count, 7);
    assert_int_equal(t.total.ready, 3);
    assert_int_equal(t.total.deferred, 3);
    assert_int_equal(t.total.held, 1);
    assert_int_equal(t.total.oldest_ms, now_ms - 50);
    tally_deinit(&t);
}

static void ages_fall_into_columns(void **state) {
    struct tally t;
    (void)state;
    tally_init(&t, now_ms);
    static const struct {
        uint64_t age_ms;
        unsigned column;
    } ages[] = {
        {0, 0},
        {5 * MINUTE_MS, 0},
        {5 * MINUTE_MS + 1, 1},
        {10 * MINUTE_MS, 1},
        {10 * MINUTE_MS + 1, 2},
        {20 * MINUTE_MS, 2},
        {40 * MINUTE_MS, 3},
        {80 * MINUTE_MS, 4},
        {160 * MINUTE_MS, 5},
        {320 * MINUTE_MS, 6},
        {640 * MINUTE_MS, 7},
        {1280 * MINUTE_MS, 8},
        {1280 * MINUTE_MS + 1, 9},
        {99999999 * (uint64_t)MINUTE_MS, 9},
    };
    for (size_t i = 0; i < sizeof ages / sizeof *ages; i++) {
        uint32_t before[TALLY_AGES];
        for (unsigned k = 0; k < TALLY_AGES; k++)
            before[k] = t.total.ages[k];
        uint64_t received_ms = ages[i].age_ms < now_ms ? now_ms - ages[i].age_ms : 0;
        assert_int_equal(tally_add(&t, SPAN("a.example"), SCHED_DEFERRED, received_ms), ERR_OK);
        for (unsigned k = 0; k < TALLY_AGES; k++)
            assert_int_equal(t.total.ages[k], before[k] + (k == ages[i].column));
    }
    /* from the future: the clock was set back */
    assert_int_equal(tally_add(&t, SPAN("b.example"), SCHED_DEFERRED, now_ms + 999999), ERR_OK);
    assert_int_equal(t.total.ages[0], 3);
    tally_deinit(&t);
}

static void too_many_names_share_a_row(void **state) {
    struct tally t;
    char name[32];
    (void)state;
    tally_init(&t, now_ms);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < TALLY_NAMES_MAX + 500; i++) {
            snprintf(name, sizeof name, "d%u.example", i);
            assert_int_equal(tally_add(&t, span_of(name), SCHED_DEFERRED, now_ms), ERR_OK);
        }
    assert_int_equal(t.row_count, TALLY_NAMES_MAX);
    assert_int_equal(tally_sort(&t), ERR_OK);
    assert_int_equal(t.row_count, TALLY_NAMES_MAX + 1);
    assert_true(span_eq(t.rows[0]->name, SPAN(TALLY_OTHERS)));
    assert_int_equal(t.rows[0]->count, 1000);
    assert_int_equal(t.rows[1]->count, 2);
    assert_int_equal(t.total.count, 2 * (TALLY_NAMES_MAX + 500));
    tally_deinit(&t);
}

static void an_empty_one_is_fine(void **state) {
    struct tally t;
    (void)state;
    tally_init(&t, now_ms);
    assert_int_equal(tally_sort(&t), ERR_OK);
    assert_int_equal(t.row_count, 0);
    assert_int_equal(t.total.count, 0);
    assert_true(t.total.oldest_ms == UINT64_MAX);
    tally_deinit(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_states_and_sorts),
        cmocka_unit_test(ages_fall_into_columns),
        cmocka_unit_test(too_many_names_share_a_row),
        cmocka_unit_test(an_empty_one_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
