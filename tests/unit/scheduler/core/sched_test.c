/* sched: ids, batches, settings, and numbers shared with the wire. */
#include "proto/outcome.h"
#include "tests/unit/scheduler/core/world.h"

static void ids_never_repeat(void **state) {
    (void)state;
    struct sched_config c = world_config();
    struct sched *s = sched_new(&c, 0, 0);
    assert_non_null(s);
    uint64_t last = 0, now = WORLD_START_MS;
    for (int i = 0; i < 20000; i++) {
        uint64_t id = sched_reserve_id(s, now);
        assert_true(id > last);
        assert_int_equal(id >> 12 & 1023, 3);
        last = id;
        if (i % 5000 == 4999)
            now -= 1000; /* a clock that goes back */
    }
    assert_true(last >> 22 >= WORLD_START_MS + 4); /* ran ahead of the clock: 4096 to the millisecond */
    sched_free(s);
    s = sched_new(&c, last, 0);
    assert_non_null(s);
    assert_true(sched_reserve_id(s, now) > last);
    last = sched_last_id(s);
    assert_true(sched_reserve_id(s, now) > last && sched_last_id(s) > last);
    sched_free(s);
}

static void batches_end_in_order(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    struct sched_event e = {.kind = SCHED_DURABLE, .batch = 1};
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* not cut yet */
    assert_int_equal(sched_cut(w.core), 1);
    assert_int_equal(sched_cut(w.core), 2);
    assert_int_equal(sched_cut(w.core), 3);
    e.batch = 0;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.kind = SCHED_REJECTED;
    e.batch = 2;
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* out of turn */
    e.kind = SCHED_DURABLE;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* twice */
    e.kind = SCHED_REJECTED;
    e.batch = 3;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    e.kind = (enum sched_event_kind)99;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    world_deinit(&w);
}

static void settings_are_checked(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    struct sched_event e = {.kind = SCHED_RECONFIGURED, .config = c};
    e.config.active_max = 0;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.config = c;
    e.config.per_site = 0;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.config = c;
    e.config.retry.first_ms = 0;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.config = c;
    e.config.retry.max_ms = 1;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.config = c;
    e.config.active_max = 40;
    e.config.epoch = 1000;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(sched_room(w.core), 35);
    assert_int_equal(sched_next_ms(w.core), UINT64_MAX);
    world_deinit(&w);
}

static void numbers_equal_those_of_the_wire(void **state) {
    (void)state;
    assert_int_equal(SCHED_OUT_DELIVERED, OUTCOME_DELIVERED);
    assert_int_equal(SCHED_OUT_DEFERRED, OUTCOME_DEFERRED);
    assert_int_equal(SCHED_OUT_FAILED, OUTCOME_FAILED);
    assert_int_equal(SCHED_OUT_IN_DOUBT, OUTCOME_IN_DOUBT);
    assert_int_equal(SCHED_OUT_RETURNED, OUTCOME_RETURNED);
    assert_int_equal(SCHED_SCOPE_RECIPIENT, SCOPE_RECIPIENT);
    assert_int_equal(SCHED_SCOPE_MESSAGE, SCOPE_MESSAGE);
    assert_int_equal(SCHED_SCOPE_HOST, SCOPE_HOST);
    assert_int_equal(SCHED_SCOPE_DESTINATION, SCOPE_DESTINATION);
    assert_int_equal(SCHED_NOTIFY_NEVER, NOTIFY_NEVER);
    assert_int_equal(SCHED_NOTIFY_SUCCESS, NOTIFY_SUCCESS);
    assert_int_equal(SCHED_NOTIFY_FAILURE, NOTIFY_FAILURE);
    assert_int_equal(SCHED_NOTIFY_DELAY, NOTIFY_DELAY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_never_repeat),
        cmocka_unit_test(batches_end_in_order),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(numbers_equal_those_of_the_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
