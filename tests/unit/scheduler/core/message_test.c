/* message: the way in and out of memory: submission, rejection, the full hot set, duplicates, limits. */
#include "tests/unit/scheduler/core/world.h"

static void fast_path_writes_little(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    uint64_t id = world_submit(&w, "a.test");
    const enum sched_action_kind in[] = {SCHED_PUT_MESSAGE, SCHED_TRACE, SCHED_ANSWER, SCHED_PUT_INFLIGHT,
                                         SCHED_ASSIGN};
    assert_int_equal(w.acts.count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(w.acts.at[i].kind, in[i]);
        assert_int_equal(w.acts.at[i].batch, 1);
    }
    assert_int_equal(w.acts.at[1].trace.kind, SCHED_TRACE_ACCEPTED);
    assert_int_equal(w.acts.at[4].attempt.id, id);
    assert_int_equal(w.acts.at[4].attempt.attempts, 0);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->answered);
    assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    const enum sched_action_kind out[] = {SCHED_REPORT_ACK, SCHED_TRACE, SCHED_DROP_INFLIGHT, SCHED_DROP_MESSAGE};
    assert_int_equal(w.acts.count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(w.acts.at[i].kind, out[i]);
    assert_int_equal(w.acts.at[1].trace.kind, SCHED_TRACE_DELIVERED);
    assert_false(w.acts.at[3].drop.states);
    assert_int_equal(w.acts.at[3].drop.size, 1000);
    world_flush(&w);
    assert_false(world_by_id(&w, id)->there);
    assert_int_equal(world_counts(&w).messages, 0);
    assert_int_equal(world_counts(&w).delivered, 1);
    world_deinit(&w);
}

static void refuses_malformed_submissions(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    struct sched_event e = {.kind = SCHED_SUBMITTED};
    struct wdest d = {"a.test", 0};
    e.submit = world_payload(&w, "a@b.test", "b.test", &d, 1);
    struct sched_submit good = e.submit;
    e.submit.count = 0;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.submit = good;
    e.submit.priority = 3;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    e.submit = good;
    e.submit.count = 100001;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    static const char many[400] = {'x'};
    struct sched_new_recipient r = {span_make(many, 321), 0};
    e.submit = good;
    e.submit.recipients = &r;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    r.destination = SPAN_EMPTY;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    r = (struct sched_new_recipient){SPAN("a.test"), 16};
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    assert_int_equal(w.acts.count, 0);
    assert_int_equal(world_counts(&w).messages, 0);
    world_deinit(&w);
}

static void reserved_id_is_used_once(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    uint64_t id = sched_reserve_id(w.core, w.now);
    struct sched_event e = {.kind = SCHED_SUBMITTED};
    struct wdest d = {"a.test", 0};
    e.submit = world_payload(&w, "a@b.test", "b.test", &d, 1);
    e.submit.id = id;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(w.msgs[0].id, id);
    e.submit = world_payload(&w, "a@b.test", "b.test", &d, 1);
    e.submit.id = id;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    assert_true(world_submit(&w, "a.test") > id);
    world_deinit(&w);
}

/* A rejected batch takes its submissions back, assigned or not, and nothing else. */
static void rejection_forgets_its_messages(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 3);
    uint64_t kept = world_submit(&w, "a.test");
    world_flush(&w);
    uint64_t assigned = world_submit(&w, "a.test"), other = world_submit(&w, "b.test");
    uint64_t ready = world_submit(&w, "a.test");
    assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK); /* its slot goes to `ready` */
    world_cut(&w);
    uint64_t later = world_submit(&w, "c.test");
    world_cut(&w);
    assert_int_equal(world_counts(&w).messages, 4);
    world_end_batch(&w, true);
    assert_int_equal(world_acts(&w, SCHED_DROP_INFLIGHT), 3);
    assert_int_equal(world_acts(&w, SCHED_FORGET), 3);
    assert_int_equal(world_acts(&w, SCHED_DROP_MESSAGE), 0);
    assert_int_equal(world_act(&w, SCHED_DROP_INFLIGHT, 0)->batch, 4 - 0);
    assert_int_equal(world_counts(&w).messages, 1);
    world_flush(&w);
    assert_true(world_by_id(&w, assigned)->refused && world_by_id(&w, other)->refused &&
                world_by_id(&w, ready)->refused);
    assert_true(world_by_id(&w, kept)->dropped);
    assert_true(world_by_id(&w, later)->answered);
    assert_int_equal(world_open_jobs(&w), 1); /* that of `later` only */
    assert_int_equal(world_job(&w, NULL)->id, later);
    for (uint32_t i = 0; i < w.flight_count; i++)
        assert_int_equal(w.flights[i].open, w.flights[i].id == later);
    world_deinit(&w);
}

/* An ASSIGN of a later batch for a rejected message is void; what was written of it apart is dropped. */
static void rejection_reaches_later_batches(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    uint64_t id = world_submit(&w, "a.test"), other = world_submit(&w, "b.test");
    world_cut(&w);
    world_worker(&w, 1, 5); /* assigns in batch 2 */
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 2);
    world_worker_down(&w, 1); /* and DEFERRED records in batch 2 */
    assert_int_equal(world_acts(&w, SCHED_PUT_RECIPIENT), 2);
    assert_int_equal(world_counts(&w).messages, 2); /* pinned: they stay */
    assert_int_equal(world_acts(&w, SCHED_FORGET), 0);
    world_cut(&w);
    world_end_batch(&w, true);
    assert_int_equal(world_acts(&w, SCHED_DROP_MESSAGE), 2);
    assert_true(world_act(&w, SCHED_DROP_MESSAGE, 0)->drop.states);
    assert_int_equal(world_counts(&w).messages, 0);
    world_flush(&w);
    assert_int_equal(w.job_count, 0);
    assert_false(world_by_id(&w, id)->there || world_by_id(&w, other)->there);
    world_deinit(&w);
}

static void pinned_message_leaves_when_durable(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 5);
    uint64_t id = world_submit(&w, "a.test");
    world_worker_down(&w, 1);
    assert_int_equal(world_counts(&w).messages, 1);
    world_flush(&w);
    assert_int_equal(w.forgotten, id);
    assert_int_equal(world_counts(&w).messages, 0);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_DEFERRED);
    assert_int_equal(w.job_count, 0); /* the node is gone: the job was void */
    world_deinit(&w);
}

static void full_hot_set_puts_to_disk(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.active_max = 8;
    world_init(&w, &c);
    assert_int_equal(sched_room(w.core), 7);
    uint64_t id[12];
    for (int i = 0; i < 12; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d.test", i);
        id[i] = world_submit(&w, name);
        assert_int_equal(world_acts(&w, SCHED_ANSWER), 1);
        assert_int_equal(world_acts(&w, SCHED_PUT_RECIPIENT), i >= 8);
        assert_int_equal(world_acts(&w, SCHED_FORGET), i >= 8);
    }
    const struct sched_action *a = world_act(&w, SCHED_PUT_RECIPIENT, 0);
    assert_int_equal(a->recipient.state, SCHED_DEFERRED);
    assert_int_equal(a->recipient.attempts, 0);
    assert_int_equal(a->recipient.due_ms, w.now);
    assert_int_equal(world_counts(&w).messages, 8);
    assert_int_equal(sched_room(w.core), 0);
    world_flush(&w);
    /* A loading without room writes it anew for a little later, rather than losing its time. */
    assert_int_equal(world_load(&w, id[11]), ERR_OK);
    assert_in_range(world_act(&w, SCHED_PUT_RECIPIENT, 0)->recipient.due_ms, w.now + 5000, w.now + 10000);
    world_tick(&w, 0);
    assert_int_equal(world_counts(&w).messages, 8);
    world_flush(&w);
    world_worker(&w, 1, 100);
    world_flush(&w);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sched_room(w.core), 0);
        assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    }
    assert_int_equal(sched_room(w.core), 0); /* 6 of 8: not yet under three quarters */
    assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    assert_int_equal(sched_room(w.core), 2);
    assert_int_equal(world_load(&w, id[8]), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.attempts, 0);
    world_deinit(&w);
}

/* One destination holds at most half of the hot set. */
static void one_destination_keeps_to_its_share(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    c.active_max = 100;
    world_init(&w, &c);
    for (int i = 0; i < 80; i++)
        assert_true(world_submit(&w, "big.test") != 0);
    struct sched_counts n = world_counts(&w);
    assert_int_equal(n.ready, 51);
    assert_int_equal(n.messages, 51);
    assert_true(world_act(&w, SCHED_PUT_RECIPIENT, 0)->recipient.due_ms >= w.now + 5000);
    assert_true(world_submit(&w, "small.test") != 0);
    assert_int_equal(world_counts(&w).ready, 52);
    world_deinit(&w);
}

static void loading_never_doubles(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 2);
    world_flush(&w);
    assert_int_equal(w.job_count, 2);
    assert_int_equal(world_load(&w, id), ERR_OK); /* nothing is due */
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    assert_int_equal(world_defer(&w, world_job(&w, "a.test")), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    w.now = world_look(&w, id, 0).due_ms - 1;
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    w.now++;
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.attempts, 1);
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 0);
    world_flush(&w);
    while (world_job(&w, NULL))
        assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_true(world_by_id(&w, id)->dropped);
    world_deinit(&w);
}

static void leaves_memory_and_comes_back_when_due(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    uint64_t id = world_submit(&w, "a.test");
    world_flush(&w);
    assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_FORGET), 1);
    world_flush(&w);
    struct stored *r = &world_by_id(&w, id)->at[0];
    assert_int_equal(r->state, SCHED_DEFERRED);
    assert_int_equal(r->attempts, 1);
    assert_in_range(r->due_ms, w.now + 270000, w.now + 330000);
    assert_int_equal(world_counts(&w).messages, 0);
    w.now = r->due_ms;
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    assert_int_equal(world_act(&w, SCHED_TRACE, 0)->trace.kind, SCHED_TRACE_ASSIGNED);
    world_flush(&w);
    assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_in_range(r->due_ms, w.now + 540000, w.now + 660000);
    world_deinit(&w);
}

static void refuses_malformed_loads(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    struct sched_stored_recipient r = {.destination = SPAN("a.test"), .state = 8};
    struct sched_event e = {.kind = SCHED_LOADED};
    e.load = (struct sched_load){.id = 5, .priority = 1, .recipients = &r, .count = 1};
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    r.state = 0;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    r.state = SCHED_READY;
    e.load.inflight = 9;
    e.load.inflight_count = 1;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    uint32_t beyond = 77;
    e.load.inflight_recipients = &beyond;
    w.flights = arena_calloc(&w.mem, 1, sizeof *w.flights);
    assert_int_equal(world_step(&w, &e), ERR_OK); /* an index that is none is passed over */
    assert_int_equal(world_acts(&w, SCHED_DROP_INFLIGHT), 1);
    assert_int_equal(world_counts(&w).ready, 1);
    assert_int_equal(world_counts(&w).in_doubt, 0);
    /* A message of which nothing is left to do is dropped at once. */
    r.state = SCHED_SETTLED;
    e.load = (struct sched_load){.id = 6, .priority = 1, .recipients = &r, .count = 1};
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_DROP_MESSAGE), 1);
    w.current = NULL;
    world_deinit(&w);
}

static void operator_retries_a_visitor(void **state) {
    (void)state;
    struct world w;
    struct sched_config c = world_config();
    world_init(&w, &c);
    world_worker(&w, 1, 10);
    struct wdest d[] = {{"a.test", 0}, {"b.test", 0}};
    uint64_t id = world_submit_as(&w, "s", 1, d, 2);
    world_flush(&w);
    while (world_job(&w, NULL))
        assert_int_equal(world_defer(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    struct sched_event e = {.kind = SCHED_OPERATOR};
    e.operator_ = (struct sched_operator){.verb = SCHED_OP_RETRY, .message = id};
    assert_int_equal(world_step(&w, &e), ERR_NOT_FOUND);
    assert_int_equal(world_load(&w, id), ERR_OK);
    assert_int_equal(world_counts(&w).messages, 1);
    const uint32_t beyond = 2, second = 1;
    e.operator_.indexes = &beyond;
    e.operator_.count = 1;
    assert_int_equal(world_step(&w, &e), ERR_INVALID);
    assert_int_equal(w.forgotten, id); /* the visit is over */
    assert_int_equal(world_counts(&w).messages, 0);
    assert_int_equal(world_load(&w, id), ERR_OK);
    e.operator_.indexes = &second;
    assert_int_equal(world_step(&w, &e), ERR_OK);
    assert_int_equal(world_acts(&w, SCHED_ASSIGN), 1);
    assert_int_equal(world_act(&w, SCHED_ASSIGN, 0)->attempt.indexes[0], 1);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[1].state, SCHED_READY);
    assert_int_equal(world_by_id(&w, id)->at[1].attempts, 1);
    assert_int_equal(world_by_id(&w, id)->at[0].state, SCHED_DEFERRED);
    assert_int_equal(w.traces[SCHED_TRACE_RETRIED], 1);
    assert_int_equal(world_deliver(&w, world_job(&w, NULL)), ERR_OK);
    world_flush(&w);
    assert_int_equal(world_by_id(&w, id)->at[1].state, SCHED_SETTLED);
    assert_int_equal(world_counts(&w).messages, 0);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_path_writes_little),         cmocka_unit_test(refuses_malformed_submissions),
        cmocka_unit_test(reserved_id_is_used_once),        cmocka_unit_test(rejection_forgets_its_messages),
        cmocka_unit_test(rejection_reaches_later_batches), cmocka_unit_test(pinned_message_leaves_when_durable),
        cmocka_unit_test(full_hot_set_puts_to_disk),       cmocka_unit_test(one_destination_keeps_to_its_share),
        cmocka_unit_test(loading_never_doubles),           cmocka_unit_test(leaves_memory_and_comes_back_when_due),
        cmocka_unit_test(refuses_malformed_loads),         cmocka_unit_test(operator_retries_a_visitor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
