/* outcome: what each result, each silence and each crash makes of a recipient. */
#include "tests/unit/scheduler/core/world.h"

static uint64_t submit_three(struct world *w) {
    struct wdest d[] = {{"a.test", 0}, {"a.test", 0}, {"a.test", 0}};
    uint64_t id = world_submit_as(w, "s", 1, d, 3);
    world_flush(w);
    return id;
}

static struct sched_event report_of(const struct wjob *j, const uint32_t *indexes, const struct sched_result *results,
                                    uint32_t count) {
    struct sched_event e = {.kind = SCHED_REPORTED};
    e.report = (struct sched_report){.worker = j->worker,
                                     .attempt = j->attempt,
                                     .message = j->id,
                                     .indexes = indexes,
                                     .results = results,
                                     .count = count};
    return e;
}

static void each_recipient_its_own(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    uint64_t id = submit_three(&w);
    struct wjob *j = world_job(&w, NULL);
    assert_int_equal(j->count, 3);
    const uint32_t indexes[] = {2, 0, 1};
    const struct sched_result results[] = {
        {.outcome = SCHED_OUT_FAILED, .scope = 1, .code = 550, .enhanced = SPAN("5.1.1"), .text = SPAN("no")},
        {.outcome = SCHED_OUT_DELIVERED, .scope = 1, .code = 250},
        {.outcome = SCHED_OUT_DEFERRED, .scope = 1, .code = 452, .text = SPAN("full")},
    };
    struct sched_event e = report_of(j, indexes, results, 3);
    assert_int_equal(world_step(&w, &e), ERR_OK);
    world_flush(&w);
    struct stored *r = world_by_id(&w, id)->at;
    assert_int_equal(r[0].state, SCHED_SETTLED);
    assert_int_equal(r[1].state, SCHED_DEFERRED);
    assert_int_equal(r[1].code, 452);
    assert_int_equal(r[2].state, SCHED_FAILED);
    assert_int_equal(r[2].code, 550);
    assert_true(span_eq(r[2].text, SPAN("no")));
    assert_true(world_counts(&w).delivered == 1 && world_counts(&w).deferrals == 1 && world_counts(&w).failed == 1);
    assert_int_equal(w.flights[0].open, false);
    assert_int_equal(w.ack_count, 1);
    world_deinit(&w);
}

/* Silence, doubled and foreign indexes, unknown outcomes: every recipient gets exactly one outcome. */
static void crooked_reports_do_no_harm(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    uint64_t id = submit_three(&w);
    const uint32_t indexes[] = {0, 0, 77, 1, UINT32_MAX};
    const struct sched_result results[] = {
        {.outcome = SCHED_OUT_DELIVERED}, {.outcome = SCHED_OUT_FAILED}, {.outcome = SCHED_OUT_FAILED}, {.outcome = 99},
        {.outcome = SCHED_OUT_FAILED},
    };
    struct sched_event e = report_of(world_job(&w, NULL), indexes, results, 5);
    assert_int_equal(world_step(&w, &e), ERR_OK);
    world_flush(&w);
    struct stored *r = world_by_id(&w, id)->at;
    assert_int_equal(r[0].state, SCHED_SETTLED);
    assert_int_equal(r[1].state, SCHED_DEFERRED); /* what we do not know */
    assert_int_equal(r[2].state, SCHED_DEFERRED); /* silence */
    assert_true(r[2].text.len > 0);
    assert_int_equal(world_counts(&w).failed, 0);
    world_deinit(&w);
}

static void strangers_are_refused_and_answered(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    world_worker(&w, 2, 10);
    struct wdest d = {"a.test", 0};
    uint64_t id = world_submit_as(&w, "s", 1, &d, 1);
    const struct sched_action *a = world_act(&w, SCHED_ASSIGN, 0);
    const uint32_t index = 0;
    const struct sched_result ok = {.outcome = SCHED_OUT_DELIVERED};
    struct wjob early = {.attempt = a->attempt.attempt, .id = id, .worker = a->attempt.worker};
    struct sched_event e = report_of(&early, &index, &ok, 1);
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* it was not even sent yet */
    world_flush(&w);
    e.report.worker = 3 - e.report.worker;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    assert_int_equal(world_acts(&w, SCHED_REPORT_ACK), 1);
    e.report.worker = 3 - e.report.worker;
    e.report.message++;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.report.message--;
    e.report.attempt++;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.report.attempt--;
    e.report.results = NULL;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.report.results = &ok;
    assert_int_equal(world_counts(&w).assigned, 1);
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* repeated: acknowledged again */
    assert_int_equal(world_acts(&w, SCHED_REPORT_ACK), 1);
    assert_int_equal(world_counts(&w).delivered, 1);
    world_deinit(&w);
}

static void doubt_counts_and_waits(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    uint64_t id = submit_three(&w);
    struct wreport lost = {.outcome = SCHED_OUT_IN_DOUBT, .scope = SCHED_SCOPE_MESSAGE, .text = "lost after the dot"};
    assert_int_equal(world_report(&w, world_job(&w, NULL), lost), ERR_OK);
    const struct sched_action *t = world_act(&w, SCHED_TRACE, 0);
    assert_int_equal(t->trace.kind, SCHED_TRACE_IN_DOUBT);
    assert_int_equal(t->trace.count, 3); /* one line for all that share their fate */
    assert_true(span_eq(t->trace.result.text, SPAN("lost after the dot")));
    assert_int_equal(world_counts(&w).in_doubt, 3);
    assert_true(t->trace.next_ms >= w.now + 300000);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[2].due_ms, t->trace.next_ms);
    world_deinit(&w);
}

static void long_texts_are_cut(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d = {"a.test", 0};
    uint64_t id = world_submit_as(&w, "s", 1, &d, 1);
    world_flush(&w);
    static char text[5000];
    memset(text, 'x', sizeof text);
    const uint32_t index = 0;
    const struct sched_result r = {.outcome = SCHED_OUT_DEFERRED,
                                   .enhanced = span_make(text, 100),
                                   .text = span_make(text, sizeof text),
                                   .remote = span_make(text, sizeof text)};
    struct sched_event e = report_of(world_job(&w, NULL), &index, &r, 1);
    assert_int_equal(world_step(&w, &e), ERR_OK);
    const struct sched_action *a = world_act(&w, SCHED_PUT_RECIPIENT, 0);
    assert_int_equal(a->recipient.last.text.len, 512);
    assert_int_equal(a->recipient.last.remote.len, 300);
    assert_int_equal(a->recipient.last.enhanced.len, 16);
    assert_int_equal(a->recipient.id, id);
    world_deinit(&w);
}

/* Given up when the next attempt would come too late, with the last thing that was heard. */
static void gives_up_in_time(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.retry = (struct sched_retry){MINUTE_MS, MINUTE_MS, 5 * MINUTE_MS, 0};
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d = {"a.test", 0};
    uint64_t id = world_submit_as(&w, "s", 1, &d, 1);
    int attempts = 0;
    while (!world_open_compose(&w)) {
        world_flush(&w);
        assert_true(++attempts < 10);
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
        world_flush(&w);
        if (world_open_compose(&w))
            break;
        w.now = world_by_id(&w, id)->at[0].due_ms;
        assert_true(w.now <= WORLD_START_MS + 5 * MINUTE_MS);
        assert_int_equal(world_load(&w, id), ERR_OK);
    }
    assert_in_range(attempts, 5, 6);
    struct stored *r = &world_by_id(&w, id)->at[0];
    assert_int_equal(r->state, SCHED_FAILED);
    assert_int_equal(r->code, 0);
    assert_true(span_eq(r->enhanced, SPAN("4.4.7")));
    assert_true(span_eq(r->text, SPAN("not delivered within 5m: not now")));
    assert_int_equal(world_counts(&w).expired, 1);
    assert_int_equal(world_counts(&w).failed, 1);
    assert_int_equal(w.traces[SCHED_TRACE_EXPIRED], 1);
    world_deinit(&w);
}

/* After a crash: those that were under way are in doubt, those that failed are reported, the rest goes on. */
static void crash_keeps_the_books(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}, {"c.test", 0}, {"d.test", 0}, {"e.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 5);
    world_flush(&w);
    assert_int_equal(world_fail(&w, world_job(&w, "a.test")), ERR_OK);
    assert_int_equal(world_deliver(&w, world_job(&w, "b.test")), ERR_OK);
    assert_int_equal(world_defer(&w, world_job(&w, "c.test")), ERR_OK);
    world_flush(&w);
    assert_null(world_open_compose(&w));                                  /* others are still under way */
    assert_int_equal(world_deliver(&w, world_job(&w, "e.test")), ERR_OK); /* not durable: lost with the crash */
    world_crash(&w, true);
    assert_int_equal(world_counts(&w).in_doubt, 2);
    struct wcompose *k = world_open_compose(&w);
    assert_non_null(k);
    assert_int_equal(k->count, 1);
    assert_int_equal(k->indexes[0], 0);
    world_flush(&w);
    struct stored *r = world_by_id(&w, id)->at;
    assert_int_equal(r[0].state, SCHED_FAILED);
    assert_int_equal(r[1].state, SCHED_SETTLED);
    assert_int_equal(r[2].attempts, 1);
    for (int i = 3; i < 5; i++) {
        assert_int_equal(r[i].state, SCHED_DEFERRED);
        assert_int_equal(r[i].attempts, 1);
        assert_true(r[i].due_ms >= w.now + 300000);
    }
    for (uint32_t i = 0; i < w.flight_count; i++)
        assert_false(w.flights[i].open);
    world_deinit(&w);
}

/* A late record of an attempt, of a message that is in memory already. */
static void late_doubt_is_counted(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    uint64_t id = world_submit(&w, "a.test");
    world_flush(&w);
    w.flights = arena_calloc(&w.mem, 4, sizeof *w.flights);
    w.flight_count = 2;
    const uint32_t index = 0;
    w.flights[0] = (struct wflight){5, id, 1, &index, true};
    w.flights[1] = (struct wflight){6, id, 1, &index, true};
    const struct sched_stored_recipient r = {.destination = SPAN("a.test"), .state = SCHED_READY};
    struct sched_event e = {.kind = SCHED_LOADED};
    e.load = (struct sched_load){.id = id,
                                 .priority = 1,
                                 .recipients = &r,
                                 .count = 1,
                                 .inflight = 5,
                                 .inflight_recipients = &index,
                                 .inflight_count = 1};
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_counts(&w).in_doubt, 1);
    assert_int_equal(world_act(&w, SCHED_PUT_RECIPIENT, 0)->recipient.state, SCHED_DEFERRED);
    world_flush(&w);
    w.now = world_by_id(&w, id)->at[0].due_ms;
    assert_int_equal(world_load(&w, id), ERR_OK);
    world_worker(&w, 1, 1);
    e.load.inflight = 6;
    assert_int_equal(world_step(&w, &e), ERR_OK); /* it is under way again: only counted */
    assert_int_equal(world_counts(&w).in_doubt, 2);
    assert_int_equal(world_counts(&w).assigned, 1);
    world_flush(&w);
    assert_false(w.flights[0].open || w.flights[1].open);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_recipient_its_own),
        cmocka_unit_test(crooked_reports_do_no_harm),
        cmocka_unit_test(strangers_are_refused_and_answered),
        cmocka_unit_test(doubt_counts_and_waits),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(gives_up_in_time),
        cmocka_unit_test(crash_keeps_the_books),
        cmocka_unit_test(late_doubt_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
