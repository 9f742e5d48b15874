/* look: what the core tells of a message in memory, and its counts. */
#include "tests/unit/scheduler/core/world.h"

static void tells_where_it_stands(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1);
    uint64_t first = world_submit(&w, "a.test");
    struct wdest d = {"a.test", 0};
    for (int i = 0; i < 3; i++)
        assert_true(world_submit_as(&w, "one", 1, &d, 1) != 0);
    for (int i = 0; i < 7; i++)
        assert_true(world_submit_as(&w, "two", 1, &d, 1) != 0);
    assert_true(world_submit_as(&w, "urgent", 2, &d, 1) != 0);
    uint64_t last = world_submit_as(&w, "one", 1, &d, 1);
    struct sched_view v = world_look(&w, last, 0);
    assert_int_equal(v.state, SCHED_READY);
    assert_int_equal(v.ahead, 3 + 3 + 1);
    struct wview glance = {.index = 0};
    assert_int_equal(sched_glance(w.core, last, world_on_view, &glance), ERR_OK);
    assert_int_equal(glance.v.state, SCHED_READY);
    assert_int_equal(glance.v.ahead, 0); /* it does not walk the line */
    assert_int_equal(sched_glance(w.core, 1, world_on_view, &glance), ERR_NOT_FOUND);
    assert_int_equal(v.site_busy, 1);
    assert_int_equal(v.site_concurrency, 5);
    assert_int_equal(v.site.len, 0);
    assert_true(span_eq(v.destination, SPAN("a.test")));
    assert_int_equal(world_look(&w, first, 0).state, SCHED_ASSIGNED);
    struct sched_counts n = world_counts(&w);
    assert_true(n.messages == 13 && n.ready == 12 && n.assigned == 1 && n.workers == 1 && n.destinations == 1);
    assert_int_equal(sched_look(w.core, last + 1, world_on_view, &v), ERR_NOT_FOUND);
    world_deinit(&w);
}

static void shows_the_last_result(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 2);
    world_flush(&w);
    assert_int_equal(world_defer(&w, world_job(&w, "a.test")), ERR_OK);
    struct sched_view v = world_look(&w, id, 0);
    assert_int_equal(v.state, SCHED_DEFERRED);
    assert_int_equal(v.attempts, 1);
    assert_true(v.due_ms > w.now && v.has_result);
    assert_true(span_eq(v.last.text, SPAN("not now")) && span_eq(v.last.remote, SPAN("mx.test")));
    assert_true(span_eq(v.last.enhanced, SPAN("4.3.0")));
    assert_int_equal(v.last.code, 451);
    assert_int_equal(world_counts(&w).deferred_here, 1);
    assert_false(world_look(&w, id, 1).has_result);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_where_it_stands),
        cmocka_unit_test(shows_the_last_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
