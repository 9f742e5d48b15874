/* ready: who is served next: first in first out, senders and destinations in turn, classes by weight, small senders. */
#include "tests/unit/scheduler/core/world.h"

/* A world whose node takes one job at a time, so that the order shows. */
static void one_at_a_time(struct world *w) {
    struct sched_config c = world_config();
    world_init(w, &c);
    world_worker(w, 1, 0);
}

/* Opens the node for one job, and delivers what is under way first. Returns the id that was assigned, or 0. */
static uint64_t serve_next(struct world *w) {
    struct wjob *j = world_job(w, NULL);
    if (j) {
        assert_int_equal(world_deliver(w, j), ERR_OK);
    } else {
        world_worker(w, 1, 1);
    }
    const struct sched_action *a = world_act(w, SCHED_ASSIGN, 0);
    uint64_t id = a ? a->attempt.id : 0;
    world_flush(w);
    return id;
}

static uint64_t submit_as(struct world *w, const char *fair, uint32_t priority, const char *destination) {
    struct wdest d = {destination, 0};
    uint64_t id = world_submit_as(w, fair, priority, &d, 1);
    assert_true(id != 0);
    return id;
}

static void first_in_first_out(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    uint64_t id[20];
    for (int i = 0; i < 20; i++)
        id[i] = submit_as(&w, "s", 1, "a.test");
    for (int i = 0; i < 20; i++)
        assert_int_equal(serve_next(&w), id[i]);
    assert_int_equal(serve_next(&w), 0);
    world_deinit(&w);
}

/* Two senders to one destination: each gets its quantum in turn, whatever the other has queued. */
static void senders_take_turns(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    for (int i = 0; i < 1000; i++)
        submit_as(&w, "bulk", 1, "a.test");
    uint64_t small[5];
    for (int i = 0; i < 5; i++)
        small[i] = submit_as(&w, "small", 1, "a.test");
    int seen = 0;
    for (int i = 0; i < 16; i++) {
        uint64_t id = serve_next(&w);
        if (seen < 5 && id == small[seen])
            seen++;
    }
    assert_int_equal(seen, 5); /* after at most one quantum of the bulk */
    world_deinit(&w);
}

/* 10,000 messages of a bulk sender, to one destination or to 10,000: a small sender's message waits for a few. */
static void bulk_never_buries_the_small(void **state) {
    (void)state;
    for (int many = 0; many < 2; many++) {
        struct world w;
        one_at_a_time(&w);
        for (int i = 0; i < 10000; i++) {
            char name[32];
            snprintf(name, sizeof name, "d%d.test", many ? i : 0);
            submit_as(&w, "bulk", 1, name);
        }
        world_flush(&w);
        assert_true(serve_next(&w) != 0);
        uint64_t id = submit_as(&w, "small", 1, "elsewhere.test");
        int waited = 1;
        while (serve_next(&w) != id)
            assert_true(++waited < 80);
        uint64_t shared = submit_as(&w, "small", 1, "d0.test");
        waited = 1;
        while (serve_next(&w) != shared)
            assert_true(++waited < 80);
        world_deinit(&w);
    }
}

/* Small senders in any number do not starve the bulk. */
static void small_ones_never_starve_the_bulk(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    for (int i = 0; i < 200; i++)
        submit_as(&w, "bulk", 1, "bulk.test");
    int bulk = 0;
    for (int i = 0; i < 400; i++) {
        char fair[32], name[32];
        snprintf(fair, sizeof fair, "small%d", i);
        snprintf(name, sizeof name, "d%d.test", i % 50);
        uint64_t last = submit_as(&w, fair, 1, name);
        uint64_t id = serve_next(&w);
        assert_true(id != 0 && last != 0);
        bulk += span_eq(world_by_id(&w, id)->submit.fair, SPAN("bulk"));
    }
    assert_in_range(bulk, 90, 200);
    world_deinit(&w);
}

static void classes_share_by_weight(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    const char *names[] = {"low.test", "mid.test", "high.test"};
    for (uint32_t i = 0; i < 600; i++)
        submit_as(&w, "s", i % 3, names[i % 3]);
    int count[3] = {0};
    for (int i = 0; i < 130; i++)
        count[world_by_id(&w, serve_next(&w))->submit.priority]++;
    assert_in_range(count[2], 85, 95); /* 9 : 3 : 1 */
    assert_in_range(count[1], 27, 33);
    assert_in_range(count[0], 8, 12);
    world_deinit(&w);
}

static void destinations_take_turns(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    for (int i = 0; i < 300; i++)
        submit_as(&w, "s", 1, "big.test");
    for (int i = 0; i < 20; i++)
        submit_as(&w, "s", 1, "other.test");
    int other = 0;
    for (int i = 0; i < 40; i++)
        other += span_eq(world_by_id(&w, serve_next(&w))->submit.recipients[0].destination, SPAN("other.test"));
    assert_int_equal(other, 20);
    world_deinit(&w);
}

/* A job of many recipients uses up its sender's turns. */
static void large_jobs_are_charged(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    struct wdest d[100];
    for (int i = 0; i < 100; i++)
        d[i] = (struct wdest){"a.test", 0};
    for (int i = 0; i < 10; i++)
        assert_true(world_submit_as(&w, "wide", 1, d, 100) != 0);
    for (int i = 0; i < 100; i++)
        submit_as(&w, "narrow", 1, "a.test");
    int narrow = 0;
    for (int i = 0; i < 60; i++)
        narrow += span_eq(world_by_id(&w, serve_next(&w))->submit.fair, SPAN("narrow"));
    assert_true(narrow > 50);
    world_deinit(&w);
}

/* Destinations of one site that has room for few: those that wait for the site get their turn too. */
static void destinations_of_a_site_take_turns(void **state) {
    (void)state;
    struct world w;
    one_at_a_time(&w);
    for (int k = 0; k < 60; k++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", k);
        submit_as(&w, "s", 1, name);
    }
    world_worker(&w, 1, 60);
    world_flush(&w);
    for (struct wjob *j; (j = world_job(&w, NULL));)
        assert_int_equal(world_report(&w, j, (struct wreport){.outcome = SCHED_OUT_DELIVERED, .site = "one.site"}), 0);
    assert_int_equal(world_counts(&w).sites, 1);
    world_worker(&w, 1, 0);
    for (int i = 0; i < 3000; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", i / 50);
        submit_as(&w, "s", 1, name);
    }
    world_flush(&w);
    int count[60] = {0};
    for (int i = 0; i < 1200; i++) {
        struct span to = world_by_id(&w, serve_next(&w))->submit.recipients[0].destination;
        count[to.len == 7 ? to.at[1] - '0' : (to.at[1] - '0') * 10 + to.at[2] - '0']++;
    }
    for (int k = 0; k < 60; k++)
        assert_in_range(count[k], 10, 30); /* 20 each, give or take a quantum */
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_in_first_out),          cmocka_unit_test(senders_take_turns),
        cmocka_unit_test(bulk_never_buries_the_small), cmocka_unit_test(small_ones_never_starve_the_bulk),
        cmocka_unit_test(classes_share_by_weight),     cmocka_unit_test(destinations_take_turns),
        cmocka_unit_test(large_jobs_are_charged),      cmocka_unit_test(destinations_of_a_site_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
