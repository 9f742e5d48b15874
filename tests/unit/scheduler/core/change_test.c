/* The operator's changes, verb by verb, in each state; and suspensions. */
#include "tests/unit/scheduler/core/world.h"

#define NOTE "by key:carol: they asked"

static void begin(struct world *w, bool node) {
    struct sched_config c = world_config();
    world_init(w, &c);
    if (node)
        world_worker(w, 1, 10);
}

static struct sched_event event_of(uint32_t verb, uint64_t id) {
    struct sched_event e = {.kind = SCHED_OPERATOR};
    e.operator_ = (struct sched_operator){.verb = verb, .message = id, .note = SPAN(NOTE)};
    return e;
}

/* On a message in memory. Returns how many recipients it changed. */
static uint32_t change(struct world *w, uint32_t verb, uint64_t id) {
    struct sched_event e = event_of(verb, id);
    assert_int_equal(world_step(w, &e), ERR_OK);
    return sched_changed(w->core);
}

static uint32_t change_stored(struct world *w, uint32_t verb, uint64_t id) {
    struct sched_event e = event_of(verb, id);
    assert_int_equal(world_load_with(w, id, &e.operator_), ERR_OK);
    return sched_changed(w->core);
}

static uint32_t reroute(struct world *w, uint64_t id, const char *to, bool stored) {
    static struct span homes[] = {SPAN("a.test"), SPAN("a.test"), SPAN("a.test")};
    struct sched_event e = event_of(SCHED_OP_REROUTE, id);
    e.operator_.destination = span_of(to);
    e.operator_.homes = homes;
    assert_int_equal(stored ? world_load_with(w, id, &e.operator_) : world_step(w, &e), ERR_OK);
    return sched_changed(w->core);
}

static const struct stored *stored_at(struct world *w, uint64_t id, uint32_t i) {
    return &world_by_id(w, id)->at[i];
}

/* A message to a.test that is DEFERRED, on disk alone. */
static uint64_t deferred(struct world *w) {
    uint64_t id = world_submit(w, "a.test");
    world_flush(w);
    assert_int_equal(world_defer(w, world_job(w, NULL)), ERR_OK);
    world_flush(w);
    assert_int_equal(world_look(w, id, 0).state, 0);
    assert_int_equal(stored_at(w, id, 0)->state, SCHED_DEFERRED);
    return id;
}

static uint64_t assigned(struct world *w) {
    uint64_t id = world_submit(w, "a.test");
    world_flush(w);
    assert_int_equal(world_look(w, id, 0).state, SCHED_ASSIGNED);
    return id;
}

static void assert_held(struct world *w, uint64_t id) {
    world_flush(w);
    assert_int_equal(world_look(w, id, 0).state, 0); /* it costs no memory */
    const struct stored *t = stored_at(w, id, 0);
    assert_int_equal(t->state, SCHED_HELD);
    assert_int_equal(t->due_ms, w->now);
    assert_true(span_eq(t->note, SPAN(NOTE)));
    assert_int_equal(w->traces[SCHED_TRACE_HELD], 1);
}

/* -- hold and release -- */

static void ready_is_held_and_released(void **state) {
    (void)state;
    struct world w;
    begin(&w, false);
    uint64_t id = world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(change(&w, SCHED_OP_HOLD, id), 1);
    assert_held(&w, id);
    world_worker(&w, 1, 10);
    assert_int_equal(world_load(&w, id), ERR_OK); /* a stray hint */
    world_tick(&w, 200 * HOUR_MS);                /* far beyond give_up */
    world_flush(&w);
    assert_int_equal(stored_at(&w, id, 0)->state, SCHED_HELD);
    assert_int_equal(w.job_count, 0);
    assert_int_equal(change_stored(&w, SCHED_OP_HOLD, id), 0);
    assert_int_equal(change_stored(&w, SCHED_OP_RETRY, id), 0);
    assert_int_equal(change_stored(&w, SCHED_OP_RELEASE, id), 1);
    world_flush(&w);
    assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    world_deinit(&w);
}

/* It has one more attempt, and then its age counts. */
static void released_too_late_is_tried_once(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = deferred(&w);
    assert_int_equal(change_stored(&w, SCHED_OP_HOLD, id), 1);
    assert_held(&w, id);
    world_tick(&w, 200 * HOUR_MS);
    assert_int_equal(change_stored(&w, SCHED_OP_RELEASE, id), 1);
    world_flush(&w);
    assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    assert_int_equal(w.traces[SCHED_TRACE_EXPIRED], 1);
    world_deinit(&w);
}

/* The store alone knows it: nothing is sent before the change. */
static void due_on_disk_is_held_before_it_is_tried(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = deferred(&w);
    world_tick(&w, HOUR_MS);
    uint32_t before = w.job_count;
    assert_int_equal(change_stored(&w, SCHED_OP_HOLD, id), 1);
    assert_held(&w, id);
    assert_int_equal(w.job_count, before);
    world_deinit(&w);
}

static void assigned_is_held_when_it_comes_back(void **state) {
    (void)state;
    for (uint32_t way = 0; way < 5; way++) {
        struct world w;
        begin(&w, true);
        uint64_t id = assigned(&w);
        assert_int_equal(change(&w, SCHED_OP_HOLD, id), 1);
        assert_int_equal(change(&w, SCHED_OP_HOLD, id), 0);
        world_flush(&w);
        assert_int_equal(stored_at(&w, id, 0)->wish, SCHED_OP_HOLD);
        assert_int_equal(world_look(&w, id, 0).wish, SCHED_OP_HOLD);
        struct wreport r = {.outcome = way == 0   ? SCHED_OUT_DEFERRED
                                       : way == 1 ? SCHED_OUT_RETURNED
                                                  : SCHED_OUT_IN_DOUBT,
                            .text = "x"};
        if (way == 3)
            world_worker_down(&w, 1);
        else if (way == 4)
            world_crash(&w, true); /* the wish was in the store */
        else
            assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
        assert_held(&w, id);
        assert_int_equal(stored_at(&w, id, 0)->wish, 0);
        assert_int_equal(stored_at(&w, id, 0)->attempts, way == 1 ? 0 : 1);
        world_deinit(&w);
    }
}

static void assigned_that_ends_is_not_held(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = assigned(&w);
    assert_int_equal(change(&w, SCHED_OP_HOLD, id), 1);
    assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    id = assigned(&w);
    assert_int_equal(change(&w, SCHED_OP_DELETE, id), 1);
    assert_int_equal(world_fail(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_int_equal(stored_at(&w, id, 0)->state, SCHED_FAILED); /* its report goes out */
    assert_int_equal(w.traces[SCHED_TRACE_DELETED], 0);
    assert_int_equal(change(&w, SCHED_OP_DELETE, id), 0);
    assert_int_equal(change(&w, SCHED_OP_HOLD, id), 0);
    world_deinit(&w);
}

static void release_takes_the_wish_back(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = assigned(&w);
    assert_int_equal(change(&w, SCHED_OP_RELEASE, id), 0);
    assert_int_equal(change(&w, SCHED_OP_HOLD, id), 1);
    assert_int_equal(change(&w, SCHED_OP_RELEASE, id), 1);
    assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_int_equal(stored_at(&w, id, 0)->state, SCHED_DEFERRED);
    assert_int_equal(stored_at(&w, id, 0)->wish, 0);
    world_deinit(&w);
}

static void only_named_recipients_change(void **state) {
    (void)state;
    struct world w;
    begin(&w, false);
    struct wdest d[] = {{"a.test", 0}, {"a.test", 0}, {"b.test", 0}};
    uint32_t two[] = {0, 2}, wrong[] = {2, 0};
    uint64_t id = world_submit_as(&w, "s", 1, d, 3);
    world_flush(&w);
    struct sched_event e = event_of(SCHED_OP_HOLD, id);
    e.operator_.indexes = wrong;
    e.operator_.count = 2;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.operator_.indexes = two;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(sched_changed(w.core), 2);
    assert_int_equal(world_look(&w, id, 0).state, SCHED_HELD);
    assert_int_equal(world_look(&w, id, 1).state, SCHED_READY);
    assert_int_equal(world_look(&w, id, 2).state, SCHED_HELD);
    assert_int_equal(world_act(&w, SCHED_TRACE, 0)->trace.count, 2); /* one line for both */
    e.operator_.verb = 99;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.operator_.verb = SCHED_OP_REROUTE;
    assert_int_equal(world_step(&w, &e), ERR_INVALID); /* where to? */
    world_deinit(&w);
}

/* -- delete and bounce -- */

static void deletes_in_each_state(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = deferred(&w);
    assert_int_equal(change_stored(&w, SCHED_OP_DELETE, id), 1);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    id = deferred(&w);
    assert_int_equal(change_stored(&w, SCHED_OP_HOLD, id), 1);
    world_flush(&w);
    assert_int_equal(change_stored(&w, SCHED_OP_DELETE, id), 1);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    id = assigned(&w);
    assert_int_equal(change(&w, SCHED_OP_DELETE, id), 1);
    assert_int_equal(change(&w, SCHED_OP_HOLD, id), 0); /* it is final */
    assert_int_equal(change(&w, SCHED_OP_BOUNCE, id), 0);
    assert_int_equal(reroute(&w, id, "smtp:r:25", false), 0);
    world_flush(&w);
    world_crash(&w, true);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    assert_int_equal(w.traces[SCHED_TRACE_DELETED], 3);
    assert_int_equal(world_counts(&w).messages, 0);
    uint64_t ready = world_submit(&w, "a.test");
    assert_int_equal(change(&w, SCHED_OP_DELETE, ready), 1); /* not durable yet: pinned */
    world_flush(&w);
    assert_true(world_by_id(&w, ready)->answered && world_by_id(&w, ready)->dropped);
    assert_int_equal(w.compose_count, 0);
    world_deinit(&w);
}

static void rejected_after_a_deletion_leaves_nothing(void **state) {
    (void)state;
    struct world w;
    begin(&w, false);
    uint64_t id = world_submit(&w, "a.test");
    world_cut(&w);
    assert_int_equal(change(&w, SCHED_OP_DELETE, id), 1);
    world_end_batch(&w, true);
    world_flush(&w);
    assert_false(world_by_id(&w, id)->there || world_by_id(&w, id)->answered);
    assert_int_equal(world_counts(&w).messages, 0);
    world_deinit(&w);
}

static void bounces_with_a_report(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    for (int way = 0; way < 4; way++) {
        uint64_t id = way == 0 ? assigned(&w) : deferred(&w);
        if (way == 1)
            assert_int_equal(change_stored(&w, SCHED_OP_HOLD, id), 1);
        world_flush(&w);
        assert_int_equal(way ? change_stored(&w, SCHED_OP_BOUNCE, id) : change(&w, SCHED_OP_BOUNCE, id), 1);
        if (way == 0)
            assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
        world_flush(&w);
        assert_int_equal(stored_at(&w, id, 0)->state, SCHED_FAILED);
        struct wcompose *c = world_open_compose(&w);
        assert_non_null(c);
        assert_int_equal(c->kind, SCHED_REPORT_FAILED);
        assert_true(span_eq(c->results[0].text, SPAN("returned by the postmaster: they asked")));
        assert_true(span_eq(c->results[0].enhanced, SPAN("5.7.0")));
        if (way == 2)
            world_crash(&w, true); /* the report is composed again */
        world_composed(&w, world_open_compose(&w), true);
        world_flush(&w);
        assert_true(world_by_id(&w, id)->dropped);
        if (way == 2)
            world_worker(&w, 1, 10);
    }
    assert_int_equal(w.traces[SCHED_TRACE_BOUNCED], 4);
    assert_int_equal(world_counts(&w).failed, 1); /* since the core was built anew */
    world_deinit(&w);
}

static void a_bounce_without_a_reason_names_nobody(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = deferred(&w);
    struct sched_event e = event_of(SCHED_OP_BOUNCE, id);
    e.operator_.note = SPAN("by key:carol");
    assert_int_equal(world_load_with(&w, id, &e.operator_), ERR_OK);
    world_flush(&w);
    struct wcompose *c = world_open_compose(&w);
    assert_non_null(c);
    assert_true(span_eq(c->results[0].text, SPAN("returned by the postmaster")));
    world_deinit(&w);
}

/* -- reroute -- */

static void reroutes_in_each_state(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t id = deferred(&w);
    assert_int_equal(reroute(&w, id, "smtp:r:25", true), 1); /* tried at once */
    world_flush(&w);
    struct wjob *j = world_job(&w, "smtp:r:25");
    assert_int_equal(world_defer(&w, j), ERR_OK);
    world_flush(&w);
    assert_true(span_eq(stored_at(&w, id, 0)->route, SPAN("smtp:r:25")));
    assert_int_equal(reroute(&w, id, "smtp:r:25", true), 0);
    assert_int_equal(reroute(&w, id, "", true), 1);
    world_flush(&w);
    assert_int_equal(world_deliver(&w, world_job(&w, "a.test")), ERR_OK);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    /* held: stays so */
    id = deferred(&w);
    assert_int_equal(change_stored(&w, SCHED_OP_HOLD, id), 1);
    world_flush(&w);
    assert_int_equal(reroute(&w, id, "smtp:r:25", true), 1);
    world_flush(&w);
    assert_int_equal(stored_at(&w, id, 0)->state, SCHED_HELD);
    assert_null(world_job(&w, NULL));
    assert_int_equal(change_stored(&w, SCHED_OP_RELEASE, id), 1);
    world_flush(&w);
    assert_int_equal(world_deliver(&w, world_job(&w, "smtp:r:25")), ERR_OK);
    /* under way: afterwards, also over a crash */
    for (int crash = 0; crash < 2; crash++) {
        id = assigned(&w);
        assert_int_equal(reroute(&w, id, "smtp:r:25", false), 1);
        assert_int_equal(reroute(&w, id, "smtp:q:25", false), 1);
        world_flush(&w);
        assert_true(span_eq(stored_at(&w, id, 0)->route, SPAN("smtp:q:25")));
        if (crash)
            world_crash(&w, true);
        else
            assert_int_equal(world_defer(&w, world_job(&w, "a.test")), ERR_OK);
        world_flush(&w);
        assert_true(span_eq(stored_at(&w, id, 0)->route, SPAN("smtp:q:25")));
        if (!crash) /* what is in doubt waits for its time */
            assert_int_equal(stored_at(&w, id, 0)->due_ms, w.now);
    }
    world_deinit(&w);
}

static void a_ready_one_changes_its_line(void **state) {
    (void)state;
    struct world w;
    begin(&w, false);
    uint64_t id = world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(reroute(&w, id, "smtp:r:25", false), 1);
    struct sched_view v = world_look(&w, id, 0);
    assert_int_equal(v.state, SCHED_READY);
    assert_true(v.routed && span_eq(v.destination, SPAN("smtp:r:25")));
    world_flush(&w);
    world_crash(&w, true);
    world_worker(&w, 1, 10);
    world_flush(&w);
    assert_non_null(world_job(&w, "smtp:r:25"));
    world_deinit(&w);
}

/* -- suspensions -- */

static int suspend(struct world *w, uint32_t scope, const char *name, uint64_t for_ms) {
    struct sched_event e = {.kind = SCHED_SUSPEND};
    e.suspension = (struct sched_suspension){scope, span_of(name), for_ms ? w->now + for_ms : 0};
    return world_step(w, &e);
}

static int resume(struct world *w, uint32_t scope, const char *name) {
    struct sched_event e = {.kind = SCHED_RESUME};
    e.suspension = (struct sched_suspension){scope, span_of(name), 0};
    return world_step(w, &e);
}

static void a_domain_is_suspended(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "a.test", 0), ERR_OK);
    uint64_t id = world_submit(&w, "a.test");
    uint64_t other = world_submit(&w, "sub.a.test");
    world_flush(&w);
    assert_int_equal(world_look(&w, id, 0).state, SCHED_READY);
    assert_int_equal(world_look(&w, id, 0).stop_scope, SCHED_SUSPEND_DOMAIN);
    assert_true(span_eq(world_look(&w, id, 0).stop_name, SPAN("a.test")));
    assert_int_equal(world_look(&w, other, 0).state, SCHED_ASSIGNED);
    world_tick(&w, HOUR_MS);
    world_flush(&w);
    assert_null(world_job(&w, "a.test"));
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "a.test", HOUR_MS), ERR_OK); /* another time */
    assert_int_equal(resume(&w, SCHED_SUSPEND_SITE, "a.test"), ERR_NOT_FOUND);
    assert_int_equal(resume(&w, SCHED_SUSPEND_DOMAIN, "a.test"), ERR_OK);
    assert_int_equal(resume(&w, SCHED_SUSPEND_DOMAIN, "a.test"), ERR_NOT_FOUND);
    world_flush(&w);
    assert_non_null(world_job(&w, "a.test"));
    world_deinit(&w);
}

static void all_below_a_domain(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    uint64_t before = world_submit(&w, "x.y.a.test"); /* known already */
    world_flush(&w);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, ".a.test", 0), ERR_OK);
    assert_int_equal(world_look(&w, before, 0).state, SCHED_ASSIGNED); /* what is under way goes on */
    uint64_t below = world_submit(&w, "x.y.a.test"), new = world_submit(&w, "z.a.test");
    uint64_t itself = world_submit(&w, "a.test"), near = world_submit(&w, "za.test");
    world_flush(&w);
    assert_int_equal(world_look(&w, below, 0).state, SCHED_READY);
    assert_int_equal(world_look(&w, new, 0).state, SCHED_READY);
    assert_int_equal(world_look(&w, itself, 0).state, SCHED_ASSIGNED);
    assert_int_equal(world_look(&w, near, 0).state, SCHED_ASSIGNED);
    /* two that stop it: each must go */
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "z.a.test", 0), ERR_OK);
    assert_int_equal(resume(&w, SCHED_SUSPEND_DOMAIN, ".a.test"), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_look(&w, below, 0).state, SCHED_ASSIGNED);
    assert_int_equal(world_look(&w, new, 0).state, SCHED_READY);
    assert_int_equal(resume(&w, SCHED_SUSPEND_DOMAIN, "z.a.test"), ERR_OK);
    assert_int_equal(world_look(&w, new, 0).state, SCHED_ASSIGNED);
    world_deinit(&w);
}

static void a_site_is_suspended(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    world_submit(&w, "a.test");
    world_flush(&w);
    struct wreport r = {.outcome = SCHED_OUT_DELIVERED, .code = 250, .text = "ok", .site = "big"};
    assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
    assert_true(span_eq(sched_site_of(w.core, SPAN("a.test")), SPAN("big")));
    assert_int_equal(sched_site_of(w.core, SPAN("b.test")).len, 0);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_SITE, "big", 0), ERR_OK);
    uint64_t id = world_submit(&w, "a.test");
    /* a new destination goes out once, which tells that it is served by the site */
    uint64_t first = world_submit(&w, "b.test");
    world_flush(&w);
    assert_int_equal(world_look(&w, id, 0).state, SCHED_READY);
    assert_int_equal(world_look(&w, first, 0).state, SCHED_ASSIGNED);
    r.outcome = SCHED_OUT_RETURNED;
    assert_int_equal(world_report(&w, world_job(&w, "b.test"), r), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_look(&w, first, 0).state, SCHED_READY);
    assert_int_equal(world_look(&w, first, 0).stop_scope, SCHED_SUSPEND_SITE);
    assert_int_equal(resume(&w, SCHED_SUSPEND_SITE, "big"), ERR_OK);
    world_tick(&w, 1000);
    assert_int_equal(world_look(&w, id, 0).state, SCHED_ASSIGNED);
    assert_int_equal(world_look(&w, first, 0).state, SCHED_ASSIGNED);
    world_deinit(&w);
}

/* A site with several sets of connections is one to the operator. */
static void a_site_is_suspended_whole(void **state) {
    (void)state;
    static const char *const names[] = {"big+from:pool", "big+verify+from:pool", "big", "bigger", "bi"};
    for (size_t i = 0; i < 5; i++) {
        struct world w;
        begin(&w, true);
        world_submit(&w, "a.test");
        world_flush(&w);
        struct wreport r = {.outcome = SCHED_OUT_DELIVERED, .code = 250, .text = "ok", .site = names[i]};
        assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
        if (i % 2) { /* before and after it is known */
            assert_int_equal(suspend(&w, SCHED_SUSPEND_SITE, "big", 0), ERR_OK);
        } else {
            uint64_t id = world_submit(&w, "a.test");
            assert_int_equal(suspend(&w, SCHED_SUSPEND_SITE, "big", 0), ERR_OK);
            world_flush(&w);
            r.outcome = SCHED_OUT_RETURNED;
            r.site = "elsewhere";
            assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
            world_flush(&w);
            world_tick(&w, 1000);
            world_flush(&w);
            r.site = names[i];
            assert_int_equal(world_report(&w, world_job(&w, NULL), r), ERR_OK);
            world_flush(&w);
            world_tick(&w, 1000);
            assert_int_equal(world_look(&w, id, 0).state, i < 3 ? SCHED_READY : SCHED_ASSIGNED);
        }
        uint64_t id = world_submit(&w, "a.test");
        world_flush(&w);
        assert_int_equal(world_look(&w, id, 0).state, i < 3 ? SCHED_READY : SCHED_ASSIGNED);
        assert_int_equal(world_look(&w, id, 0).stop_scope, i < 3 ? SCHED_SUSPEND_SITE : 0);
        world_deinit(&w);
    }
}

/* A suspension of a bulk destination does not fill the memory. */
static void most_of_it_goes_to_disk(void **state) {
    (void)state;
    struct world w;
    begin(&w, false);
    for (int i = 0; i < 1500; i++)
        world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "a.test", 2 * HOUR_MS), ERR_OK);
    world_worker(&w, 1, 10);
    for (int i = 0; i < 10; i++)
        world_tick(&w, 10);
    world_flush(&w);
    assert_int_equal(world_counts(&w).ready, 100);
    struct sched_suspension of = {SCHED_SUSPEND_DOMAIN, SPAN("a.test"), 0},
                            below = {SCHED_SUSPEND_DOMAIN, SPAN(".a.test"), 0};
    assert_int_equal(sched_ready_under(w.core, &of), 100);
    assert_int_equal(sched_ready_under(w.core, &below), 0);
    world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(world_counts(&w).ready, 100);
    assert_int_equal(world_counts(&w).assigned, 0);
    for (uint32_t i = 0; i < w.msg_count; i++) {
        const struct stored *t = &w.msgs[i].at[0];
        assert_true(!t->record || (t->state == SCHED_DEFERRED && t->due_ms > w.now && t->due_ms < w.now + HOUR_MS));
    }
    world_deinit(&w);
}

/* Nor does a retry of all that it holds. */
static void retried_while_suspended_goes_back_to_disk(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "a.test", 0), ERR_OK);
    for (int i = 0; i < 300; i++)
        world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(world_counts(&w).ready, 100);
    for (uint32_t i = 0; i < w.msg_count; i++)
        if (w.msgs[i].at[0].record)
            assert_int_equal(change_stored(&w, SCHED_OP_RETRY, w.msgs[i].id), 1);
    world_flush(&w);
    assert_int_equal(w.traces[SCHED_TRACE_RETRIED], 200);
    assert_int_equal(world_counts(&w).ready, 100);
    world_deinit(&w);
}

/* Time goes on below a suspension, in memory and on disk: not sooner, and not later than without it. */
static void suspended_is_told_of_and_given_up_in_time(void **state) {
    (void)state;
    struct sched_config c = world_config();
    c.retry.give_up_ms = 20 * MINUTE_MS; /* sooner than what is on disk looks again */
    c.retry.delay_notice_ms = 10 * MINUTE_MS;
    struct world w;
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "a.test", 0), ERR_OK);
    for (int i = 0; i < 150; i++)
        world_submit(&w, "a.test");
    uint64_t end_ms = w.now + c.retry.give_up_ms;
    world_flush(&w);
    assert_int_equal(w.traces[SCHED_TRACE_EXPIRED], 0);
    for (uint32_t i = 0; i < w.msg_count; i++)
        assert_true(!w.msgs[i].at[0].record || w.msgs[i].at[0].due_ms <= end_ms);
    for (int i = 0; i < 13; i++)
        world_tick(&w, MINUTE_MS);
    assert_int_equal(w.compose_count, 100); /* those that wait in memory */
    assert_int_equal(w.traces[SCHED_TRACE_EXPIRED], 0);
    for (int i = 0; i < 9; i++)
        world_tick(&w, MINUTE_MS);
    assert_int_equal(w.traces[SCHED_TRACE_EXPIRED], 100);
    for (uint32_t i = 0; i < w.msg_count; i++)
        if (w.msgs[i].at[0].record && w.msgs[i].at[0].state == SCHED_DEFERRED)
            assert_int_equal(world_load(&w, w.msgs[i].id), ERR_OK);
    world_tick(&w, MINUTE_MS);
    assert_int_equal(w.traces[SCHED_TRACE_EXPIRED], 150);
    assert_int_equal(w.job_count, 0);
    world_deinit(&w);
}

static void suspensions_are_bounded(void **state) {
    (void)state;
    struct world w;
    begin(&w, false);
    char name[32];
    for (uint32_t i = 0; i < SCHED_SUSPENSIONS_MAX; i++) {
        snprintf(name, sizeof name, "d%u.test", i);
        assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, name, 0), ERR_OK);
    }
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "more.test", 0), ERR_FULL);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "d7.test", HOUR_MS), ERR_OK);
    assert_int_equal(resume(&w, SCHED_SUSPEND_DOMAIN, "d7.test"), ERR_OK);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "more.test", 0), ERR_OK);
    assert_int_equal(suspend(&w, SCHED_SUSPEND_DOMAIN, "", 0), ERR_INVALID);
    assert_int_equal(suspend(&w, 3, "x.test", 0), ERR_INVALID);
    world_deinit(&w);
}

static void retry_takes_what_is_named_alone(void **state) {
    (void)state;
    struct world w;
    begin(&w, true);
    struct wdest d[] = {{"a.test", 0}, {"a.test", 0}, {"a.test", 0}};
    uint32_t middle = 1;
    uint64_t id = world_submit_as(&w, "s", 1, d, 3);
    world_flush(&w);
    assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    struct sched_event e = event_of(SCHED_OP_RETRY, id);
    e.operator_.indexes = &middle;
    e.operator_.count = 1;
    assert_int_equal(world_load_with(&w, id, &e.operator_), ERR_OK);
    assert_int_equal(sched_changed(w.core), 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.count, 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.indexes[0], 1);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_is_held_and_released),
        cmocka_unit_test(released_too_late_is_tried_once),
        cmocka_unit_test(due_on_disk_is_held_before_it_is_tried),
        cmocka_unit_test(assigned_is_held_when_it_comes_back),
        cmocka_unit_test(assigned_that_ends_is_not_held),
        cmocka_unit_test(release_takes_the_wish_back),
        cmocka_unit_test(only_named_recipients_change),
        cmocka_unit_test(deletes_in_each_state),
        cmocka_unit_test(rejected_after_a_deletion_leaves_nothing),
        cmocka_unit_test(bounces_with_a_report),
        cmocka_unit_test(a_bounce_without_a_reason_names_nobody),
        cmocka_unit_test(reroutes_in_each_state),
        cmocka_unit_test(a_ready_one_changes_its_line),
        cmocka_unit_test(a_domain_is_suspended),
        cmocka_unit_test(all_below_a_domain),
        cmocka_unit_test(a_site_is_suspended),
        cmocka_unit_test(a_site_is_suspended_whole),
        cmocka_unit_test(most_of_it_goes_to_disk),
        cmocka_unit_test(retried_while_suspended_goes_back_to_disk),
        cmocka_unit_test(suspended_is_told_of_and_given_up_in_time),
        cmocka_unit_test(suspensions_are_bounded),
        cmocka_unit_test(retry_takes_what_is_named_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
