/*
 * Pauses that a delivery node asks for: a site rests for exactly that long, whatever else succeeds or fails there, and
 * is probed then; recipients that come back with a time of their own wait for it, and no attempt is counted.
 */
#include "tests/unit/scheduler/core/world.h"

enum { PAUSE_MS = 600000 };

static struct wreport resting(const char *site, uint64_t ms) {
    return (struct wreport){.outcome = SCHED_OUT_DEFERRED,
                            .scope = SCHED_SCOPE_HOST,
                            .code = 421,
                            .enhanced = "4.7.0",
                            .text = "try again later",
                            .site = site,
                            .pause_ms = ms};
}

static const struct wreport worked = {.outcome = SCHED_OUT_DELIVERED, .code = 250, .site = "site"};

static uint64_t start(struct world *w, int count) {
    struct sched_config c = world_config();
    uint64_t last = 0;
    world_init(w, &c);
    world_worker(w, 1, 1000);
    for (int i = 0; i < count; i++)
        last = world_submit(w, "a.test");
    world_flush(w);
    assert_int_equal(world_report(w, world_job(w, NULL), worked), ERR_OK); /* the site has its name */
    world_flush(w);
    return last;
}

static void rests_exactly(void **state) {
    (void)state;
    struct world w;
    uint64_t last = start(&w, 40);
    uint64_t asked = w.now;
    assert_int_equal(world_report(&w, world_job(&w, NULL), resting("site", PAUSE_MS)), ERR_OK);
    assert_int_equal(world_look(&w, last, 0).site_resume_ms, asked + PAUSE_MS);
    assert_true(world_look(&w, last, 0).site_suspended);
    /* those under way: success, failure and a shorter pause change nothing */
    assert_int_equal(world_report(&w, world_job(&w, NULL), worked), ERR_OK);
    struct wreport dead = resting("site", 0);
    dead.site_failed = true;
    assert_int_equal(world_report(&w, world_job(&w, NULL), dead), ERR_OK);
    assert_int_equal(world_report(&w, world_job(&w, NULL), resting("site", 1000)), ERR_OK);
    assert_int_equal(world_look(&w, last, 0).site_resume_ms, asked + PAUSE_MS);
    while (world_job(&w, NULL))
        assert_int_equal(world_report(&w, world_job(&w, NULL), worked), ERR_OK);
    world_flush(&w);
    world_tick(&w, PAUSE_MS - 1);
    world_flush(&w);
    assert_null(world_job(&w, NULL));
    world_tick(&w, 1);
    world_flush(&w);
    assert_int_equal(world_open_jobs(&w), 1); /* a probe */
    assert_int_equal(world_report(&w, world_job(&w, NULL), worked), ERR_OK);
    world_flush(&w);
    assert_true(world_open_jobs(&w) > 1);
    assert_false(world_look(&w, last, 0).site_suspended);
    world_deinit(&w);
}

static void longer_one_holds(void **state) {
    (void)state;
    struct world w;
    uint64_t last = start(&w, 20);
    uint64_t asked = w.now;
    assert_int_equal(world_report(&w, world_job(&w, NULL), resting("site", 1000)), ERR_OK);
    assert_int_equal(world_report(&w, world_job(&w, NULL), resting("site", PAUSE_MS)), ERR_OK);
    assert_int_equal(world_look(&w, last, 0).site_resume_ms, asked + PAUSE_MS);
    /* nonsense from a node is a day at most */
    assert_int_equal(world_report(&w, world_job(&w, NULL), resting("site", UINT64_MAX)), ERR_OK);
    assert_int_equal(world_look(&w, last, 0).site_resume_ms, asked + 86400000);
    world_deinit(&w);
}

static void operator_ends_it(void **state) {
    (void)state;
    struct world w;
    start(&w, 20);
    uint64_t last;
    assert_int_equal(world_report(&w, world_job(&w, NULL), resting("site", PAUSE_MS)), ERR_OK);
    while (world_job(&w, NULL))
        assert_int_equal(world_report(&w, world_job(&w, NULL), worked), ERR_OK);
    world_flush(&w);
    last = world_submit(&w, "a.test");
    world_flush(&w);
    assert_null(world_job(&w, NULL));
    struct sched_event e = {.kind = SCHED_OPERATOR, .operator_ = {.verb = SCHED_OP_RETRY, .message = last}};
    assert_int_equal(world_step(&w, &e), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_open_jobs(&w), 1);
    world_deinit(&w);
}

static void waits_without_an_attempt(void **state) {
    (void)state;
    struct world w;
    start(&w, 2);
    struct wjob *job = world_job(&w, NULL);
    uint64_t id = job->id, asked = w.now;
    const struct wreport later = {.outcome = SCHED_OUT_RETURNED, .site = "site", .wait_ms = 30000};
    assert_int_equal(world_report(&w, job, later), ERR_OK);
    world_flush(&w);
    const struct stored *r = &world_by_id(&w, id)->at[0];
    assert_int_equal(r->state, SCHED_DEFERRED);
    assert_int_equal(r->attempts, 0);
    assert_int_equal(r->due_ms, asked + 30000);
    /* others go on */
    assert_true(world_submit(&w, "a.test") != 0);
    world_flush(&w);
    assert_int_equal(world_open_jobs(&w), 1);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rests_exactly),
        cmocka_unit_test(longer_one_holds),
        cmocka_unit_test(operator_ends_it),
        cmocka_unit_test(waits_without_an_attempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
