/* site: how much a site takes, when it is suspended and probed, what goes to disk, and who its home is. */
#include "tests/unit/scheduler/core/world.h"

static struct wreport delivered_at(const char *site) {
    return (struct wreport){.outcome = SCHED_OUT_DELIVERED, .code = 250, .site = site};
}

static struct wreport dead(const char *site) {
    return (struct wreport){.outcome = SCHED_OUT_DEFERRED,
                            .scope = SCHED_SCOPE_DESTINATION,
                            .site = site,
                            .text = "connection refused",
                            .enhanced = "4.4.1",
                            .site_failed = true};
}

static void submit_many(struct world *w, const char *destination, int count) {
    for (int i = 0; i < count; i++)
        assert_true(world_submit(w, destination) != 0);
    world_flush(w);
}

static void window_grows_and_shrinks(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "a.test", 600);
    assert_int_equal(world_open_jobs(&w), 10); /* 5 connections, 2 jobs each */
    uint32_t most = 0;
    for (int i = 0; i < 400; i++) {
        assert_int_equal(world_report(&w, world_job(&w, NULL), delivered_at("site")), ERR_OK);
        world_flush(&w);
        uint32_t open = world_open_jobs(&w);
        assert_true(open <= 40);
        most = open > most ? open : most;
    }
    assert_int_equal(most, 40); /* 20 connections: the operator's limit */
    struct wreport shaky = {.outcome = SCHED_OUT_DEFERRED, .scope = SCHED_SCOPE_HOST, .code = 421, .site = "site"};
    for (int i = 0; i < 5; i++)
        assert_int_equal(world_report(&w, world_job(&w, NULL), shaky), ERR_OK);
    world_flush(&w);
    uint64_t id = world_job(&w, NULL)->id;
    assert_in_range(world_look(&w, id, 0).site_concurrency, 5, 14);
    for (int i = 0; i < 30; i++)
        assert_int_equal(world_report(&w, world_job(&w, NULL), shaky), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_look(&w, world_job(&w, NULL)->id, 0).site_concurrency, 1);
    assert_int_equal(world_open_jobs(&w), 5); /* what was under way goes on; nothing new */
    world_deinit(&w);
}

static void limit_below_the_start_holds(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.per_site = 2;
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "a.test", 100);
    assert_int_equal(world_open_jobs(&w), 4);
    assert_int_equal(world_job(&w, NULL)->concurrency, 2);
    struct sched_event e = {.kind = SCHED_RECONFIGURED, .config = c};
    e.config.per_site = 1;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
        world_flush(&w);
    }
    assert_int_equal(world_open_jobs(&w), 2);
    world_deinit(&w);
}

/* Destinations that share a site share its window. */
static void destinations_share_a_site(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "a.test", 1);
    submit_many(&w, "b.test", 1);
    assert_int_equal(world_report(&w, world_job(&w, "a.test"), delivered_at("shared")), ERR_OK);
    assert_int_equal(world_report(&w, world_job(&w, "b.test"), delivered_at("shared")), ERR_OK);
    assert_int_equal(world_counts(&w).sites, 1);
    submit_many(&w, "a.test", 50);
    submit_many(&w, "b.test", 50);
    assert_int_equal(world_open_jobs(&w), 10);
    struct sched_view v = world_look(&w, world_job(&w, NULL)->id, 0);
    assert_true(span_eq(v.site, SPAN("shared")));
    assert_int_equal(v.site_busy, 10);
    world_deinit(&w);
}

static void suspends_and_probes(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "a.test", 40);
    assert_int_equal(world_open_jobs(&w), 10);
    for (int i = 0; i < 10; i++) /* of one moment: they count as one failure */
        assert_int_equal(world_report(&w, world_job(&w, NULL), dead("s")), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_open_jobs(&w), 0);
    uint64_t pause = 60000;
    for (int i = 0; i < 7; i++) {
        uint64_t resume = sched_next_ms(w.core);
        assert_in_range(resume, w.now + pause * 9 / 10, w.now + pause * 11 / 10);
        world_tick(&w, resume - w.now - 1);
        assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
        world_tick(&w, 1);
        assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1); /* the probe, alone */
        assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.concurrency, 1);
        world_flush(&w);
        world_tick(&w, 1000);
        assert_int_equal(world_open_jobs(&w), 1);
        assert_int_equal(world_report(&w, world_job(&w, NULL), dead("s")), ERR_OK);
        pause = pause * 2 < 1800000 ? pause * 2 : 1800000;
        world_flush(&w);
    }
    world_tick(&w, sched_next_ms(w.core) - w.now);
    world_flush(&w);
    assert_int_equal(world_report(&w, world_job(&w, NULL), delivered_at("s")), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_open_jobs(&w), 10); /* open again, from the start of the window */
    world_deinit(&w);
}

/* A dead site keeps a hundred READY; the rest goes to disk with no attempt counted, a step's worth at a time. */
static void dead_site_goes_to_disk(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "dead.test", 2000);
    assert_int_equal(world_report(&w, world_job(&w, NULL), dead("s")), ERR_OK);
    assert_in_range(w.acts.count, 512, 3000); /* bounded */
    assert_int_equal(sched_next_ms(w.core), w.now);
    for (int i = 0; i < 10; i++)
        world_tick(&w, 0);
    world_flush(&w);
    assert_int_equal(world_counts(&w).ready, 100);
    uint64_t resume = sched_next_ms(w.core);
    uint32_t put_off = 0;
    for (uint32_t i = 0; i < w.msg_count; i++) {
        struct stored *r = &w.msgs[i].at[0];
        if (!r->record || r->attempts)
            continue;
        put_off++;
        assert_int_equal(r->state, SCHED_DEFERRED);
        assert_in_range(r->due_ms, resume, resume + 66000);
    }
    assert_int_equal(put_off, 2000 - 10 - 100);
    assert_true(w.traces[SCHED_TRACE_SUSPENDED] > 0);
    /* The newest went, the oldest stayed. */
    assert_false(w.msgs[11].at[0].record);
    assert_true(w.msgs[1999].at[0].record);
    uint64_t id = world_submit(&w, "dead.test");
    const struct sched_action *a = world_act(&w, SCHED_PUT_RECIPIENT, 0);
    assert_non_null(a);
    assert_int_equal(a->recipient.id, id);
    assert_true(a->recipient.due_ms >= resume);
    /* Others are not hindered. */
    assert_true(world_submit(&w, "alive.test") != 0);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    world_deinit(&w);
}

/* A suspended recipient that would come back after its time is given up. */
static void suspended_too_long_is_given_up(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.retry.give_up_ms = 10 * MINUTE_MS;
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "dead.test", 300);
    world_tick(&w, 9 * MINUTE_MS + 30000);
    assert_int_equal(world_report(&w, world_job(&w, NULL), dead("s")), ERR_OK);
    for (int i = 0; i < 5; i++)
        world_tick(&w, 0);
    assert_true(world_counts(&w).expired >= 190);
    assert_true(world_counts(&w).failed_waiting >= 190);
    assert_non_null(world_open_compose(&w));
    world_deinit(&w);
}

/* Many destinations of one dead site share what it may keep. */
static void dead_site_of_many_destinations(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    for (int k = 0; k < 60; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        submit_many(&w, name, 1);
        assert_int_equal(world_report(&w, world_job(&w, NULL), delivered_at("s")), ERR_OK);
    }
    for (int k = 0; k < 60; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        submit_many(&w, name, 60);
    }
    assert_true(world_counts(&w).ready > 3000);
    assert_int_equal(world_report(&w, world_job(&w, NULL), dead("s")), ERR_OK);
    for (int i = 0; i < 10; i++)
        world_tick(&w, 0);
    assert_int_equal(world_counts(&w).ready, 1000);
    world_deinit(&w);
}

/* When the name of a suspended site has grown old, new mail resolves its destination anew. */
static void old_name_is_resolved_anew(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    submit_many(&w, "a.test", 1);
    struct wreport r = dead("old");
    r.ttl_ms = 70000;
    for (int i = 0; i < 6; i++) { /* to a long pause */
        assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
        submit_many(&w, "a.test", 1);
        world_tick(&w, sched_next_ms(w.core) - w.now);
        world_flush(&w);
    }
    assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
    world_flush(&w);
    assert_true(sched_next_ms(w.core) > w.now + 20 * MINUTE_MS);
    world_tick(&w, 60000);
    assert_true(world_submit(&w, "a.test") != 0);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    world_tick(&w, 11000);
    assert_true(world_submit(&w, "a.test") != 0);
    assert_true(world_acts(&w, SCHED_ASSIGN) > 0);
    world_flush(&w);
    assert_int_equal(world_report(&w, world_job(&w, NULL), delivered_at("new")), ERR_OK);
    assert_int_equal(world_counts(&w).sites, 1);
    world_deinit(&w);
}

/* Handed back: READY again, at the front, nothing counted; a node that does so at once does not spin. */
static void returned_goes_back(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1);
    submit_many(&w, "a.test", 5);
    uint64_t first = world_job(&w, NULL)->id;
    assert_int_equal(world_report(&w, world_job(&w, NULL), (struct wreport){.outcome = SCHED_OUT_RETURNED}), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    assert_int_equal(world_acts(&w, SCHED_PUT_RECIPIENT), 0);
    assert_int_equal(sched_next_ms(w.core), w.now + 250);
    world_tick(&w, 250);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.id, first);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.attempts, 0);
    world_flush(&w);
    /* With the news of another site it need not wait. */
    struct wreport other = {.outcome = SCHED_OUT_RETURNED, .site = "home.elsewhere"};
    assert_int_equal(world_report(&w, world_job(&w, NULL), other), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    world_flush(&w);
    other.site_failed = true;
    assert_int_equal(world_report(&w, world_job(&w, NULL), other), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    assert_true(sched_next_ms(w.core) >= w.now + 54000);
    assert_true(world_look(&w, first, 0).site_suspended);
    world_deinit(&w);
}

/* Each site has one home; when a node joins, a site moves only when nothing of it is under way. */
static void home_moves_when_idle(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 1000);
    for (int k = 0; k < 40; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        submit_many(&w, name, 15);
    }
    world_worker(&w, 2, 1000);
    uint32_t of[3] = {0};
    for (struct wjob *j; (j = world_job(&w, NULL));) {
        for (uint32_t i = 0; i < w.job_count; i++)
            if (w.jobs[i].open && span_eq(w.jobs[i].destination, j->destination))
                assert_int_equal(w.jobs[i].worker, j->worker); /* never two at a time */
        of[j->worker]++;
        assert_int_equal(world_deliver(&w, j), ERR_OK);
        world_flush(&w);
    }
    assert_int_equal(of[1] + of[2], 600);
    assert_int_equal(of[2], 0); /* never idle: never moved */
    for (int k = 0; k < 40; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        submit_many(&w, name, 1);
    }
    of[1] = of[2] = 0;
    for (uint32_t i = 0; i < w.job_count; i++)
        if (w.jobs[i].open)
            of[w.jobs[i].worker]++;
    assert_int_equal(of[1] + of[2], 40);
    assert_in_range(of[2], 10, 30);
    /* One that drains takes nothing new. */
    world_worker(&w, 2, 0);
    for (struct wjob *j; (j = world_job(&w, NULL));)
        assert_int_equal(world_deliver(&w, j), ERR_OK);
    for (int k = 0; k < 40; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        submit_many(&w, name, 1);
    }
    for (uint32_t i = 0; i < w.job_count; i++)
        assert_true(!w.jobs[i].open || w.jobs[i].worker == 1);
    assert_int_equal(world_open_jobs(&w), 40);
    world_deinit(&w);
}

static void idle_destinations_are_forgotten(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 30000);
    for (int k = 0; k < 21000; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        assert_true(world_submit(&w, name) != 0);
    }
    world_flush(&w);
    assert_int_equal(world_counts(&w).destinations, 21000);
    for (uint32_t i = 0; i < w.job_count; i++)
        assert_int_equal(world_deliver(&w, &w.jobs[i]), ERR_OK);
    world_tick(&w, 1);
    assert_int_equal(world_counts(&w).destinations, 20000);
    world_tick(&w, HOUR_MS);
    assert_int_equal(world_counts(&w).destinations, 0);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_grows_and_shrinks),
        cmocka_unit_test(limit_below_the_start_holds),
        cmocka_unit_test(destinations_share_a_site),
        cmocka_unit_test(suspends_and_probes),
        cmocka_unit_test(dead_site_goes_to_disk),
        cmocka_unit_test(suspended_too_long_is_given_up),
        cmocka_unit_test(dead_site_of_many_destinations),
        cmocka_unit_test(old_name_is_resolved_anew),
        cmocka_unit_test(returned_goes_back),
        cmocka_unit_test(home_moves_when_idle),
        cmocka_unit_test(idle_destinations_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
