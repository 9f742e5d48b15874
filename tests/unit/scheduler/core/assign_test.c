/* assign: how jobs are cut, what nodes take, and what happens when they come and go. */
#include "tests/unit/scheduler/core/world.h"

static void recipients_travel_together(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.recipients_per_job = 30;
    world_init(&w, &c);
    struct wdest d[100];
    for (int i = 0; i < 100; i++)
        d[i] = (struct wdest){i % 4 == 3 ? "b.test" : "a.test", 0};
    uint64_t id = world_submit_as(&w, "s", 1, d, 100);
    world_submit(&w, "a.test");
    world_worker(&w, 1, 100);
    assert_int_equal(world_acts(&w, SCHED_PUT_INFLIGHT), 5);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 5);
    world_flush(&w);
    bool seen[100] = {false};
    uint32_t sizes[5], n = 0;
    for (uint32_t i = 0; i < w.job_count; i++) {
        if (w.jobs[i].id != id)
            continue;
        sizes[n++] = w.jobs[i].count;
        for (uint32_t k = 0; k < w.jobs[i].count; k++) {
            uint32_t index = w.jobs[i].indexes[k];
            assert_false(seen[index]);
            assert_true(k == 0 || index > w.jobs[i].indexes[k - 1]);
            assert_true(span_eq(w.jobs[i].destination, span_of(d[index].name)));
            seen[index] = true;
        }
    }
    assert_int_equal(n, 4);
    assert_int_equal(sizes[0] + sizes[1] + sizes[2] + sizes[3], 100);
    for (int i = 0; i < 4; i++)
        assert_true(sizes[i] <= 30);
    /* All of it delivered: one drop and no record of a recipient. */
    for (struct wjob *j; (j = world_job(&w, NULL));)
        assert_int_equal(world_deliver(&w, j), ERR_OK);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    assert_int_equal(w.traces[SCHED_TRACE_DONE], 1);
    world_deinit(&w);
}

static void nothing_goes_without_a_node(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    assert_true(world_submit(&w, "a.test") != 0);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    world_worker(&w, 9, 2);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.worker, 9);
    world_deinit(&w);
}

static void limits_of_a_node_hold(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", i);
        assert_true(world_submit(&w, name) != 0); /* 1000 octets each */
    }
    struct sched_event e = {.kind = SCHED_WORKER_UP};
    e.worker = (struct sched_worker){.worker = 1, .name = SPAN("n"), .jobs_max = 100, .bytes_max = 3500};
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 3);
    e.worker.bytes_max = 500; /* a message larger than all goes alone */
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    world_flush(&w);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
        assert_int_equal(world_acts(&w, SCHED_ASSIGN), i == 2);
    }
    world_flush(&w);
    e.worker.bytes_max = 0; /* no bound by size */
    e.worker.jobs_max = 3;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 2);
    for (uint32_t i = 2; i <= 64; i++)
        world_worker(&w, i, 1);
    e.worker.worker = 65;
    assert_int_equal(world_step(&w, &e), ERR_FULL);
    e.kind = SCHED_WORKER_DOWN;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    world_deinit(&w);
}

static void lost_node_leaves_doubt(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d[] = {{"a.test", 0}, {"a.test", 0}, {"b.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 3);
    world_flush(&w);
    struct wjob *j = world_job(&w, "a.test");
    uint64_t attempt = j->attempt;
    world_worker_down(&w, 1);
    assert_int_equal(world_acts(&w, SCHED_DROP_INFLIGHT), 2);
    assert_int_equal(w.traces[SCHED_TRACE_IN_DOUBT], 2);
    world_flush(&w);
    for (int i = 0; i < 3; i++) {
        struct stored *r = &world_by_id(&w, id)->at[i];
        assert_int_equal(r->state, SCHED_DEFERRED);
        assert_int_equal(r->attempts, 1);
        assert_in_range(r->due_ms, w.now + 300000, w.now + 330000);
    }
    assert_int_equal(world_counts(&w).in_doubt, 3);
    assert_int_equal(world_by_id(&w, id)->at[0].due_ms, world_by_id(&w, id)->at[1].due_ms); /* still together */
    /* A late report of the lost node is acknowledged, and changes nothing. */
    world_worker(&w, 2, 10);
    j->worker = 2;
    assert_int_equal(world_deliver(&w, j), ERR_INVALID);
    assert_int_equal(world_acts(&w, SCHED_REPORT_ACK), 1);
    assert_int_equal(world_act(&w, SCHED_REPORT_ACK, 0)->attempt.attempt, attempt);
    assert_int_equal(world_counts(&w).delivered, 0);
    w.now += 330000;
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 2);
    world_deinit(&w);
}

/* A delivery node knows an attempt by its id alone, and serves all shards. */
static void attempt_ids_name_epoch_and_shard(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    assert_true(world_submit(&w, "a.test") != 0);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.attempt, (7ull << 44 | 3ull << 34) + 1);
    world_flush(&w);
    world_crash(&w, true);
    world_worker(&w, 1, 10);
    assert_true(world_submit(&w, "a.test") != 0);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.attempt, (8ull << 44 | 3ull << 34) + 1);
    world_deinit(&w);
    struct sched *s = sched_new(&c, 0, (7ull << 44 | 3ull << 34) + 99); /* the same epoch again: a floor */
    assert_non_null(s);
    struct sched_event e = {.kind = SCHED_WORKER_UP};
    e.worker = (struct sched_worker){.worker = 1, .name = SPAN("n"), .jobs_max = 1};
    struct sched_actions acts;
    assert_int_equal(sched_step(s, &e, 1, &acts), ERR_OK);
    struct sched_new_recipient r = {SPAN("a.test"), 0};
    e.kind = SCHED_SUBMITTED;
    e.submit = (struct sched_submit){.token = 1, .priority = 1, .recipients = &r, .count = 1};
    assert_int_equal(sched_step(s, &e, 1, &acts), ERR_OK);
    assert_int_equal(acts.at[acts.count - 1].attempt.attempt, (7ull << 44 | 3ull << 34) + 100);
    sched_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipients_travel_together),
        cmocka_unit_test(nothing_goes_without_a_node),
        cmocka_unit_test(limits_of_a_node_hold),
        cmocka_unit_test(lost_node_leaves_doubt),
        cmocka_unit_test(attempt_ids_name_epoch_and_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
