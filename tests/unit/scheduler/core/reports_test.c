/* reports: when one is composed, what it gathers, what forbids it, and that it settles in its own batch. */
#include "tests/unit/scheduler/core/world.h"

static void start(struct world *w) {
    struct sched_config c = world_config();
    world_init(w, &c);
    world_worker(w, 1, 10);
}

static void one_report_for_all_that_failed(void **state) {
    (void)state;
    struct world w;
    start(&w);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}, {"c.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 3);
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, "a.test")), ERR_OK);
    assert_int_equal(world_deliver(&w, world_job(&w, "b.test")), ERR_OK);
    assert_null(world_open_compose(&w));
    assert_int_equal(world_fail(&w, world_job(&w, "c.test")), ERR_OK);
    struct wcompose *c = world_open_compose(&w);
    assert_non_null(c);
    assert_int_equal(c->kind, SCHED_REPORT_FAILED);
    assert_int_equal(c->count, 2);
    assert_int_equal(c->indexes[0], 0);
    assert_int_equal(c->indexes[1], 2);
    assert_int_equal(c->results[1].code, 550);
    assert_true(span_eq(c->results[1].text, SPAN("no such user")));
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_FAILED);
    uint64_t report = world_composed(&w, c, false);
    /* The report is enqueued and the message dropped in one batch. */
    assert_int_equal(world_act(&w, SCHED_PUT_MESSAGE, 0)->put.id, report);
    assert_int_equal(world_act(&w, SCHED_DROP_MESSAGE, 0)->drop.id, id);
    assert_true(world_act(&w, SCHED_DROP_MESSAGE, 0)->drop.states);
    assert_int_equal(world_act(&w, SCHED_PUT_MESSAGE, 0)->batch, world_act(&w, SCHED_DROP_MESSAGE, 0)->batch);
    assert_int_equal(w.traces[SCHED_TRACE_REPORTED], 1);
    assert_int_equal(world_acts(&w, SCHED_ANSWER), 1);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    assert_int_equal(world_counts(&w).reports, 1);
    /* And it is delivered as mail is; should it fail, there is no report on it. */
    assert_int_equal(world_job(&w, NULL)->id, report);
    assert_int_equal(world_fail(&w, world_job(&w, NULL)), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_COMPOSE), 0);
    assert_int_equal(world_acts(&w, SCHED_DROP_MESSAGE), 1);
    assert_int_equal(w.traces[SCHED_TRACE_NO_REPORT], 1);
    assert_int_equal(world_counts(&w).no_reports, 1);
    world_deinit(&w);
}

/* When some recipients hang, the others are reported after report_delay_ms; later failures make a second report. */
static void waits_only_so_long(void **state) {
    (void)state;
    struct world w;
    start(&w);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}, {"c.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 3);
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, "a.test")), ERR_OK);
    assert_int_equal(sched_next_ms(w.core), w.now + 60000);
    world_tick(&w, 59999);
    assert_null(world_open_compose(&w));
    world_tick(&w, 1);
    struct wcompose *c = world_open_compose(&w);
    assert_non_null(c);
    assert_int_equal(c->count, 1);
    assert_int_equal(world_fail(&w, world_job(&w, "b.test")), ERR_OK); /* while it is composed */
    assert_int_equal(world_acts(&w, SCHED_COMPOSE), 0);
    world_flush(&w);
    assert_true(world_composed(&w, c, false) != 0);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_SETTLED);
    assert_int_equal(world_by_id(&w, id)->at[1].state, SCHED_FAILED);
    assert_null(world_open_compose(&w));
    assert_int_equal(world_deliver(&w, world_job(&w, "c.test")), ERR_OK);
    c = world_open_compose(&w);
    assert_int_equal(c->count, 1);
    assert_int_equal(c->indexes[0], 1);
    assert_true(world_composed(&w, c, false) != 0);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    world_deinit(&w);
}

static void deferred_ones_do_not_hold_it_up(void **state) {
    (void)state;
    struct world w;
    start(&w);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 2);
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, "a.test")), ERR_OK);
    assert_int_equal(world_defer(&w, world_job(&w, "b.test")), ERR_OK);
    struct wcompose *c = world_open_compose(&w);
    assert_non_null(c);
    assert_int_equal(world_counts(&w).messages, 1); /* waits for its report */
    assert_true(world_composed(&w, c, false) != 0);
    assert_int_equal(w.forgotten, id);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_SETTLED);
    assert_int_equal(world_by_id(&w, id)->at[1].state, SCHED_DEFERRED);
    world_deinit(&w);
}

/* Rules of NOTIFY, the null path, and what is never reported on. */
static void rules_forbid_reports(void **state) {
    (void)state;
    static const struct {
        const char *sender;
        uint32_t notify;
        bool report, fail;
        int composed; /* kind, or -1 */
    } cases[] = {
        {"a@s.test", 0, false, true, SCHED_REPORT_FAILED},
        {"a@s.test", SCHED_NOTIFY_FAILURE, false, true, SCHED_REPORT_FAILED},
        {"a@s.test", SCHED_NOTIFY_NEVER, false, true, -1},
        {"a@s.test", SCHED_NOTIFY_SUCCESS, false, true, -1},
        {"a@s.test", SCHED_NOTIFY_DELAY, false, true, -1},
        {"", SCHED_NOTIFY_FAILURE, false, true, -1},
        {"a@s.test", SCHED_NOTIFY_FAILURE, true, true, -1},
        {"a@s.test", 0, false, false, -1},
        {"a@s.test", SCHED_NOTIFY_FAILURE, false, false, -1},
        {"a@s.test", SCHED_NOTIFY_SUCCESS, false, false, SCHED_REPORT_DELIVERED},
        {"", SCHED_NOTIFY_SUCCESS, false, false, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        start(&w);
        struct wdest d = {"a.test", cases[i].notify};
        struct sched_event e = {.kind = SCHED_SUBMITTED};
        e.submit = world_payload(&w, cases[i].sender, "s", &d, 1);
        e.submit.report = cases[i].report;
        assert_int_equal(world_step(&w, &e), ERR_OK);
        world_flush(&w);
        struct wjob *j = world_job(&w, NULL);
        assert_int_equal(cases[i].fail ? world_fail(&w, j) : world_deliver(&w, j), ERR_OK);
        struct wcompose *c = world_open_compose(&w);
        if (cases[i].composed < 0) {
            assert_null(c);
            assert_int_equal(world_acts(&w, SCHED_DROP_MESSAGE), 1);
            assert_int_equal(w.traces[SCHED_TRACE_NO_REPORT], cases[i].fail);
        } else {
            assert_non_null(c);
            assert_int_equal(c->kind, cases[i].composed);
            assert_int_equal(world_act(&w, SCHED_PUT_RECIPIENT, 0)->recipient.state,
                             cases[i].fail ? SCHED_FAILED : SCHED_DELIVERED);
            assert_true(world_composed(&w, c, false) != 0);
            world_flush(&w);
            assert_true(w.msgs[0].dropped);
        }
        world_deinit(&w);
    }
}

static void delay_is_told_once(void **state) {
    (void)state;
    struct world w;
    start(&w);
    struct wdest d[] = {{"a.test", 0}, {"a.test", SCHED_NOTIFY_FAILURE}, {"a.test", SCHED_NOTIFY_DELAY}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 3);
    uint32_t told = 0;
    for (int i = 0; i < 12; i++) {
        world_flush(&w);
        assert_int_equal(world_defer(&w, world_job(&w, "a.test")), ERR_OK);
        struct wcompose *c = world_open_compose(&w);
        if (c) {
            told++;
            assert_int_equal(c->kind, SCHED_REPORT_DELAYED);
            assert_true(w.now - WORLD_START_MS >= 4 * HOUR_MS);
            assert_int_equal(c->count, 2);
            assert_int_equal(c->indexes[1], 2);
            assert_int_equal(c->until_ms, WORLD_START_MS + 120 * HOUR_MS);
            assert_true(world_composed(&w, c, false) != 0);
            assert_int_equal(world_job(&w, "sender.test") != NULL, 0);
            world_flush(&w);
            assert_true(world_by_id(&w, id)->at[0].notified && world_by_id(&w, id)->at[2].notified);
            assert_false(world_by_id(&w, id)->at[1].notified);
            assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_DEFERRED);
            assert_int_equal(world_deliver(&w, world_job(&w, "sender.test")), ERR_OK);
        }
        world_flush(&w);
        w.now = world_by_id(&w, id)->at[0].due_ms;
        assert_int_equal(world_load(&w, id), ERR_OK);
    }
    assert_int_equal(told, 1);
    world_deinit(&w);
}

/* Not composed: the reason is traced and the recipients are settled all the same. */
static void none_is_an_answer(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t id = world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, NULL)), ERR_OK);
    struct wcompose *c = world_open_compose(&w);
    assert_int_equal(world_composed(&w, c, true), 1);
    const struct sched_action *t = world_act(&w, SCHED_TRACE, 0);
    assert_int_equal(t->trace.kind, SCHED_TRACE_NO_REPORT);
    assert_true(span_eq(t->trace.text, SPAN("cannot be composed")));
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    assert_int_equal(world_composed(&w, c, true), 0); /* a second answer finds nothing */
    assert_int_equal(w.err, ERR_INVALID);
    world_deinit(&w);
}

static void bad_report_settles_with_a_reason(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t id = world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, NULL)), ERR_OK);
    struct wcompose *c = world_open_compose(&w);
    struct sched_event e = {.kind = SCHED_COMPOSED};
    e.composed = (struct sched_composed){.message = id, .compose = c->compose + 1, .none = true};
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* another number */
    assert_int_equal(w.acts.count, 0);
    e.composed.compose--;
    e.composed.none = false;
    e.composed.submit.count = 0; /* a report without a recipient */
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    assert_int_equal(world_acts(&w, SCHED_PUT_MESSAGE), 0);
    assert_int_equal(world_acts(&w, SCHED_DROP_MESSAGE), 1);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    world_deinit(&w);
}

/* A crash between failure and report: the report is asked for again. */
static void crash_asks_again(void **state) {
    (void)state;
    struct world w;
    start(&w);
    struct wdest d[] = {{"a.test", 0}, {"b.test", SCHED_NOTIFY_SUCCESS}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 2);
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, "a.test")), ERR_OK);
    assert_int_equal(world_deliver(&w, world_job(&w, "b.test")), ERR_OK);
    world_flush(&w);
    assert_true(world_composed(&w, world_open_compose(&w), false) != 0); /* and its batch is lost */
    world_crash(&w, true);
    struct wcompose *c = world_open_compose(&w);
    assert_non_null(c);
    assert_int_equal(c->kind, SCHED_REPORT_FAILED);
    assert_true(world_composed(&w, c, false) != 0);
    c = world_open_compose(&w); /* then the other kind */
    assert_non_null(c);
    assert_int_equal(c->kind, SCHED_REPORT_DELIVERED);
    assert_int_equal(c->indexes[0], 1);
    assert_true(world_composed(&w, c, false) != 0);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    world_deinit(&w);
}

/* A message that might still be rejected is not reported on. */
static void pinned_message_is_not_reported_on(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.retry = (struct sched_retry){MINUTE_MS, MINUTE_MS, 1000, 0}; /* given up after the first attempt */
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    uint64_t id = world_submit(&w, "a.test");
    world_worker_down(&w, 1);
    assert_int_equal(world_counts(&w).failed_waiting, 1);
    assert_null(world_open_compose(&w));
    world_tick(&w, 120000);
    assert_null(world_open_compose(&w));
    world_cut(&w);
    world_end_batch(&w, false);
    assert_non_null(world_open_compose(&w));
    assert_int_equal(world_open_compose(&w)->id, id);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_report_for_all_that_failed),
        cmocka_unit_test(waits_only_so_long),
        cmocka_unit_test(deferred_ones_do_not_hold_it_up),
        cmocka_unit_test(rules_forbid_reports),
        cmocka_unit_test(delay_is_told_once),
        cmocka_unit_test(none_is_an_answer),
        cmocka_unit_test(bad_report_settles_with_a_reason),
        cmocka_unit_test(crash_asks_again),
        cmocka_unit_test(pinned_message_is_not_reported_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
