/* survey: sites with work or at rest, their destinations, and what is under way. */
#include "tests/unit/scheduler/core/world.h"

#include "scheduler/core/survey.h"

struct seen {
    struct survey_site sites[8];
    char names[8][32];
    uint32_t count, recipients, attempts;
    uint64_t last;
};

static void keep_name(struct seen *seen, struct span name) {
    assert_true(seen->count < 8 && name.len < 32);
    memcpy(seen->names[seen->count], name.at, name.len);
    seen->names[seen->count++][name.len] = '\0';
}

static void on_site(void *arg, const struct survey_site *v) {
    struct seen *seen = arg;
    seen->sites[seen->count] = *v;
    keep_name(seen, v->name);
}

static void on_destination(void *arg, struct span name) {
    keep_name(arg, name);
}

static void on_attempt(void *arg, uint64_t message, const uint32_t *indexes, uint32_t count) {
    struct seen *seen = arg;
    seen->attempts++;
    seen->recipients += count;
    seen->last = message;
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(indexes[i], i);
}

static struct seen sites_of(const struct world *w) {
    struct seen seen = {0};
    survey_sites(w->core, on_site, &seen);
    return seen;
}

static const struct survey_site *find(const struct seen *seen, const char *name) {
    for (uint32_t i = 0; i < seen->count; i++)
        if (strcmp(seen->names[i], name) == 0)
            return &seen->sites[i];
    return NULL;
}

static void sites_with_work_and_at_rest(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    assert_int_equal(sites_of(&w).count, 0);
    for (int i = 0; i < 30; i++)
        assert_true(world_submit(&w, "a.test") != 0);
    assert_true(world_submit(&w, "b.test") != 0);
    world_flush(&w);
    struct seen seen = sites_of(&w); /* nobody delivers yet: each destination is a site of its own */
    assert_int_equal(seen.count, 2);
    assert_true(seen.sites[0].own && !seen.sites[0].suspended);
    assert_string_equal(seen.names[0], "a.test");
    assert_int_equal(seen.sites[0].ready, 30);
    assert_int_equal(seen.sites[0].busy, 0);
    world_worker(&w, 1, 100);
    world_flush(&w);
    struct wreport done = {.outcome = SCHED_OUT_DELIVERED, .code = 250, .site = "mx.shared"};
    assert_int_equal(world_report(&w, world_job(&w, "a.test"), done), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_report(&w, world_job(&w, "b.test"), done), ERR_OK);
    world_flush(&w);
    /* Jobs that went out before count for the site that the destination had then. */
    seen = sites_of(&w);
    uint32_t busy = 0, ready = 0;
    for (uint32_t i = 0; i < seen.count; i++) {
        busy += seen.sites[i].busy;
        ready += seen.sites[i].ready;
    }
    assert_int_equal(busy, world_open_jobs(&w));
    assert_int_equal(ready + busy, 29);
    const struct survey_site *shared = find(&seen, "mx.shared");
    assert_non_null(shared);
    assert_false(shared->own);
    assert_true(shared->ready > 0 && shared->concurrency > 0);
    struct wreport dead = {.outcome = SCHED_OUT_DEFERRED,
                           .scope = SCHED_SCOPE_DESTINATION,
                           .site = "mx.shared",
                           .text = "connection refused",
                           .enhanced = "4.4.1",
                           .site_failed = true};
    assert_int_equal(world_report(&w, world_job(&w, "a.test"), dead), ERR_OK);
    world_flush(&w);
    seen = sites_of(&w);
    shared = find(&seen, "mx.shared");
    assert_non_null(shared);
    assert_true(shared->suspended);
    assert_true(shared->resume_ms > w.now);
    assert_int_equal(shared->concurrency, 1);
    world_deinit(&w);
}

static void destinations_of_a_site(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 100);
    struct wreport done = {.outcome = SCHED_OUT_DELIVERED, .code = 250, .site = "mx.shared"};
    struct wreport other = {.outcome = SCHED_OUT_DELIVERED, .code = 250, .site = "mx.other"};
    static const char *const names[] = {"a.test", "b.test", "c.test"};
    for (int i = 0; i < 3; i++) {
        assert_true(world_submit(&w, names[i]) != 0);
        world_flush(&w);
        assert_int_equal(world_report(&w, world_job(&w, names[i]), i < 2 ? done : other), ERR_OK);
        world_flush(&w);
    }
    struct seen seen = {0};
    survey_destinations(w.core, SPAN("mx.shared"), on_destination, &seen);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.names[0], "a.test");
    assert_string_equal(seen.names[1], "b.test");
    seen = (struct seen){0};
    survey_destinations(w.core, SPAN("mx.nowhere"), on_destination, &seen);
    assert_int_equal(seen.count, 0);
    world_deinit(&w);
}

static void what_an_operator_suspends_shows(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    assert_true(world_submit(&w, "a.test") != 0);
    struct sched_event e = {.kind = SCHED_SUSPEND};
    e.suspension = (struct sched_suspension){.scope = SCHED_SUSPEND_DOMAIN, .name = SPAN("a.test")};
    assert_int_equal(world_step(&w, &e), ERR_OK);
    struct seen seen = sites_of(&w);
    assert_int_equal(seen.count, 1);
    assert_true(seen.sites[0].suspended);
    assert_int_equal(seen.sites[0].resume_ms, 0); /* until it is resumed */
    e.kind = SCHED_RESUME;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_false(sites_of(&w).sites[0].suspended);
    world_deinit(&w);
}

static void attempts_under_way(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    struct seen seen = {0};
    world_init(&w, &c);
    survey_attempts(w.core, on_attempt, &seen);
    assert_int_equal(seen.attempts, 0);
    world_worker(&w, 1, 100);
    uint64_t id = world_submit(&w, "a.test");
    assert_true(id != 0);
    world_flush(&w);
    survey_attempts(w.core, on_attempt, &seen);
    assert_int_equal(seen.attempts, 1);
    assert_int_equal(seen.recipients, 1);
    assert_int_equal(seen.last, id);
    assert_int_equal(survey_epoch(w.core), 7);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sites_with_work_and_at_rest),
        cmocka_unit_test(destinations_of_a_site),
        cmocka_unit_test(what_an_operator_suspends_shows),
        cmocka_unit_test(attempts_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
