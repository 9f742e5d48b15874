/* wish: what a sender asked for as to time: held until its release, failed or told of at its DELIVERBY time. */
#include "scheduler/core/retry.h"
#include "tests/unit/scheduler/core/world.h"

static void start(struct world *w) {
    struct sched_config c = world_config();
    world_init(w, &c);
    world_worker(w, 1, 10);
}

static uint64_t submit(struct world *w, struct sched_wish wish, uint32_t notify, const char *sender) {
    struct wdest d[] = {{"a.test", notify}, {"b.test", notify}};
    struct sched_event e = {.kind = SCHED_SUBMITTED};
    e.submit = world_payload(w, sender, "s", d, 2);
    struct wmsg *m = &w->msgs[w->msg_count - 1];
    e.submit.wish = m->submit.wish = wish;
    assert_int_equal(world_step(w, &e), ERR_OK);
    world_flush(w);
    return m->id;
}

static struct sched_wish fails_in(struct world *w, uint64_t ms) {
    return (struct sched_wish){.by_ms = w->now + ms};
}

static struct sched_wish tells_in(struct world *w, uint64_t ms) {
    return (struct sched_wish){.by_ms = w->now + ms, .by_notify = true};
}

static void assert_expired(struct world *w, uint64_t id) {
    struct stored *r = world_by_id(w, id)->at;
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(r[i].state, SCHED_FAILED);
        assert_true(span_eq(r[i].enhanced, SPAN("5.4.7")));
        assert_true(span_starts_nocase(r[i].text, SPAN("delivery time expired")));
    }
    struct wcompose *c = world_open_compose(w);
    assert_non_null(c);
    assert_int_equal(c->kind, SCHED_REPORT_FAILED);
    assert_int_equal(c->count, 2);
    assert_int_equal(world_counts(w).expired, 2);
}

/* Ready ones that got no turn fail at their time, and those put off before then too. */
static void fails_at_its_time(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c); /* there is no node */
    uint64_t id = submit(&w, fails_in(&w, 2 * MINUTE_MS), 0, "a@s.test");
    assert_int_equal(sched_next_ms(w.core), w.now + 2 * MINUTE_MS);
    world_tick(&w, 2 * MINUTE_MS - 1);
    assert_int_equal(world_counts(&w).ready, 2);
    world_tick(&w, 1);
    world_flush(&w);
    assert_expired(&w, id);
    assert_int_equal(sched_next_ms(w.core), UINT64_MAX);
    world_deinit(&w);
}

/* Pauses are shortened so that it is tried before its time; then it fails, also when it was read from the store. */
static void pauses_fit_into_the_time(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t by = w.now + 2 * MINUTE_MS;
    uint64_t id = submit(&w, fails_in(&w, 2 * MINUTE_MS), 0, "a@s.test");
    uint32_t tries = 0;
    while (w.now < by) {
        for (; world_job(&w, NULL); tries++)
            assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
        world_flush(&w);
        struct stored *r = world_by_id(&w, id)->at;
        assert_true(r[0].state == SCHED_DEFERRED && r[0].due_ms > w.now && r[0].due_ms <= by);
        world_tick(&w, r[0].due_ms - w.now);
        assert_int_equal(world_load(&w, id), ERR_OK);
        world_flush(&w);
    }
    assert_in_range(tries, 6, 10);
    assert_expired(&w, id);
    assert_int_equal(world_by_id(&w, id)->at[0].attempts, tries / 2);
    world_deinit(&w);
}

/* What a node holds at that time has this last try. What it hands back untried has not. */
static void the_last_try_counts(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t id = submit(&w, fails_in(&w, MINUTE_MS), 0, "a@s.test");
    world_tick(&w, 2 * MINUTE_MS);
    assert_int_equal(world_counts(&w).assigned, 2);
    assert_int_equal(world_deliver(&w, world_job(&w, "a.test")), ERR_OK);
    assert_int_equal(world_report(&w, world_job(&w, "b.test"), (struct wreport){.outcome = SCHED_OUT_RETURNED}),
                     ERR_OK);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_SETTLED);
    assert_int_equal(world_by_id(&w, id)->at[1].state, SCHED_FAILED);
    assert_null(world_job(&w, NULL));
    id = submit(&w, fails_in(&w, MINUTE_MS), 0, "a@s.test");
    world_tick(&w, 2 * MINUTE_MS);
    for (; world_job(&w, NULL);)
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_FAILED);
    assert_true(span_ends_nocase(world_by_id(&w, id)->at[0].text, SPAN("not now")));
    world_deinit(&w);
}

/* An attempt in doubt never comes again sooner than its whole interval: it fails at its time instead. */
static void doubt_is_not_hurried(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t by = w.now + 2 * MINUTE_MS;
    uint64_t id = submit(&w, fails_in(&w, 2 * MINUTE_MS), 0, "a@s.test");
    world_worker_down(&w, 1);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[0].due_ms, by);
    id = submit(&w, tells_in(&w, 2 * MINUTE_MS), 0, "a@s.test");
    world_worker(&w, 1, 10);
    world_flush(&w);
    world_worker_down(&w, 1);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->at[0].due_ms >= w.now + 5 * MINUTE_MS);
    world_deinit(&w);
}

/* It came too late already; and it was read too late, though it was to be tried later still. */
static void too_late_from_the_start(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t id = submit(&w, (struct sched_wish){.by_ms = w.now - 1}, 0, "a@s.test");
    assert_null(world_job(&w, NULL));
    assert_expired(&w, id);
    uint64_t silent = submit(&w, (struct sched_wish){.by_ms = w.now - 1}, 0, "");
    assert_true(world_by_id(&w, silent)->dropped); /* no return path, no report */
    world_deinit(&w);
}

static void a_crash_keeps_the_time(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    uint64_t id = submit(&w, fails_in(&w, MINUTE_MS), 0, "a@s.test");
    world_crash(&w, true);
    world_flush(&w);
    assert_int_equal(sched_next_ms(w.core), w.now + MINUTE_MS);
    world_tick(&w, MINUTE_MS);
    world_flush(&w);
    assert_expired(&w, id);
    id = submit(&w, fails_in(&w, MINUTE_MS), 0, "a@s.test");
    w.now += HOUR_MS;
    world_crash(&w, true);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[1].state, SCHED_FAILED);
    world_deinit(&w);
}

/* Mode N: one notice at that time, none at the general one, and delivery goes on. */
static void tells_once_and_goes_on(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t received = w.now, by = w.now + 2 * MINUTE_MS;
    uint64_t id = submit(&w, tells_in(&w, 2 * MINUTE_MS), 0, "a@s.test");
    for (; world_job(&w, NULL);)
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_null(world_open_compose(&w));
    assert_int_equal(world_by_id(&w, id)->at[0].due_ms, by);
    world_tick(&w, 2 * MINUTE_MS);
    assert_int_equal(world_load(&w, id), ERR_OK);
    world_flush(&w);
    for (; world_job(&w, NULL);)
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    struct wcompose *c = world_open_compose(&w);
    assert_non_null(c);
    assert_int_equal(c->kind, SCHED_REPORT_DELAYED);
    assert_int_equal(c->count, 2);
    assert_int_equal(c->until_ms, received + 120 * HOUR_MS);
    assert_true(world_composed(&w, c, false) != 0);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->at[0].notified);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_DEFERRED);
    assert_int_equal(world_deliver(&w, world_job(&w, "sender.test")), ERR_OK);
    world_tick(&w, 5 * HOUR_MS);
    assert_int_equal(world_load(&w, id), ERR_OK);
    world_flush(&w);
    for (; world_job(&w, NULL);)
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    assert_null(world_open_compose(&w));
    world_deinit(&w);
}

/* Mode N while it waits in memory; NOTIFY may forbid the notice. */
static void tells_while_it_waits(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    submit(&w, tells_in(&w, 2 * MINUTE_MS), SCHED_NOTIFY_FAILURE, "a@s.test");
    submit(&w, tells_in(&w, 2 * MINUTE_MS), 0, "a@s.test");
    world_tick(&w, 2 * MINUTE_MS);
    world_tick(&w, 2 * MINUTE_MS);
    assert_int_equal(w.compose_count, 1);
    assert_int_equal(w.composes[0].count, 2);
    assert_int_equal(world_counts(&w).ready, 4);
    world_deinit(&w);
}

static void held_until_its_release(void **state) {
    (void)state;
    struct world w;
    start(&w);
    uint64_t release = w.now + 200 * HOUR_MS; /* longer than give_up */
    uint64_t id = submit(&w, (struct sched_wish){.release_ms = release}, 0, "a@s.test");
    assert_null(world_job(&w, NULL));
    assert_true(world_by_id(&w, id)->answered);
    struct stored *r = world_by_id(&w, id)->at;
    assert_true(r[0].record && r[0].state == SCHED_DEFERRED && r[0].due_ms == release);
    assert_int_equal(world_counts(&w).messages, 0); /* it has left memory */
    w.now = release;
    assert_int_equal(world_load(&w, id), ERR_OK);
    world_flush(&w);
    for (; world_job(&w, NULL);)
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_int_equal(r[0].state, SCHED_DEFERRED); /* neither given up nor late: its time has just begun */
    assert_null(world_open_compose(&w));
    w.now = release + 119 * HOUR_MS;
    assert_int_equal(world_load(&w, id), ERR_OK);
    world_flush(&w);
    for (; world_job(&w, NULL);)
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_true(r[0].state == SCHED_DEFERRED);
    assert_int_equal(world_open_compose(&w)->until_ms, release + 120 * HOUR_MS);
    world_deinit(&w);
}

/* A release in the past is none; one behind the DELIVERBY time is never reached. */
static void release_and_time_together(void **state) {
    (void)state;
    struct world w;
    start(&w);
    submit(&w, (struct sched_wish){.release_ms = w.now}, 0, "a@s.test");
    assert_int_equal(world_open_jobs(&w), 2);
    for (; world_job(&w, NULL);)
        assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    struct sched_wish both = {.release_ms = w.now + HOUR_MS, .by_ms = w.now + MINUTE_MS};
    uint64_t id = submit(&w, both, 0, "a@s.test");
    assert_int_equal(world_by_id(&w, id)->at[0].due_ms, both.by_ms);
    w.now = both.by_ms;
    assert_int_equal(world_load(&w, id), ERR_OK);
    world_flush(&w);
    assert_expired(&w, id);
    world_deinit(&w);
}

/* DELIVERBY wants to know that it was relayed, but for NOTIFY=NEVER and the null return path. */
static void relayed_is_reported(void **state) {
    (void)state;
    static const struct {
        uint32_t notify;
        const char *sender;
        bool told;
    } rows[] = {{0, "a@s.test", true}, {4, "a@s.test", true}, {1, "a@s.test", false}, {0, "", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct world w;
        start(&w);
        submit(&w, tells_in(&w, HOUR_MS), rows[i].notify, rows[i].sender);
        struct wjob *j = world_job(&w, "a.test");
        const struct sched_result ok = {
            .outcome = SCHED_OUT_DELIVERED, .scope = 1, .code = 250, .hop = SCHED_HOP_RELAYED, .text = SPAN("ok")};
        struct sched_event e = {.kind = SCHED_REPORTED};
        e.report = (struct sched_report){.worker = j->worker,
                                         .attempt = j->attempt,
                                         .message = j->id,
                                         .indexes = j->indexes,
                                         .results = &ok,
                                         .count = 1};
        assert_int_equal(world_step(&w, &e), ERR_OK);
        assert_int_equal(world_deliver(&w, world_job(&w, "b.test")), ERR_OK);
        struct wcompose *c = world_open_compose(&w);
        assert_int_equal(c != NULL, rows[i].told);
        if (c) {
            assert_int_equal(c->kind, SCHED_REPORT_DELIVERED);
            assert_int_equal(c->count, 1);
            assert_int_equal(c->results[0].hop, SCHED_HOP_RELAYED);
            assert_int_equal(c->results[0].code, 250);
        }
        world_deinit(&w);
    }
}

static void pauses_by_the_table(void **state) {
    (void)state;
    assert_int_equal(retry_by_ms(900, 100, 0, false), 900);
    assert_int_equal(retry_by_ms(900, 100, 100, false), 900); /* its time has come: another judges */
    assert_int_equal(retry_by_ms(900000, 100000, 200000, false), 150000);
    assert_int_equal(retry_by_ms(120000, 100000, 200000, false), 120000);
    assert_int_equal(retry_by_ms(900000, 100000, 120000, false), 120000); /* no hurry at the end */
    assert_int_equal(retry_by_ms(900000, 100000, 200000, true), 200000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_at_its_time),       cmocka_unit_test(pauses_fit_into_the_time),
        cmocka_unit_test(the_last_try_counts),     cmocka_unit_test(doubt_is_not_hurried),
        cmocka_unit_test(too_late_from_the_start), cmocka_unit_test(a_crash_keeps_the_time),
        cmocka_unit_test(tells_once_and_goes_on),  cmocka_unit_test(tells_while_it_waits),
        cmocka_unit_test(held_until_its_release),  cmocka_unit_test(release_and_time_together),
        cmocka_unit_test(relayed_is_reported),     cmocka_unit_test(pauses_by_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
