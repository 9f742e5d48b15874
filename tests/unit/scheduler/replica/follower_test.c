/*
 * follower: what it takes, what it says and when, and whom it hears.
 */
#include "tests/unit/scheduler/replica/rig.h"

static void test_follower_acknowledges_what_is_synced(void **unused) {
    (void)unused;
    struct rig g = following();
    assert_int_equal(operation(&g, LEADER, 4, 4, 6, 3), ERR_OK);
    const struct replica_action *a = act(&g, REPLICA_WRITE, 0);
    assert_int_equal(a->write.last.number, 6);
    assert_int_equal(a->write.history->count, 2);
    assert_null(act(&g, REPLICA_SEND, 0));
    struct replica_message open = {.kind = REPLICA_OPEN, .epoch = 4, .probe = 8};
    assert_int_equal(message(&g, LEADER, &open), ERR_OK);
    assert_int_equal(sent(&g, LEADER, REPLICA_POSITION)->position.number, 5);
    assert_int_equal(operation(&g, LEADER, 4, 4, 7, 4), ERR_OK);
    assert_null(act(&g, REPLICA_WRITE, 0)->write.history); /* as before */
    written(&g);
    assert_int_equal(sent(&g, LEADER, REPLICA_POSITION)->position.number, 7);
    replica_free(g.r);
}

static void test_follower_takes_only_the_next(void **unused) {
    (void)unused;
    struct rig g = following();
    assert_int_equal(operation(&g, LEADER, 4, 4, 7, 4), ERR_OK);
    assert_null(act(&g, REPLICA_WRITE, 0));
    assert_true(sent(&g, LEADER, REPLICA_POSITION)->gap);
    assert_int_equal(operation(&g, LEADER, 4, 3, 5, 3), ERR_OK);
    assert_null(act(&g, REPLICA_WRITE, 0));
    assert_false(sent(&g, LEADER, REPLICA_POSITION)->gap);
    assert_int_equal(operation(&g, LEADER, 4, 4, 6, 2), ERR_OK); /* on top of another 5 */
    assert_null(act(&g, REPLICA_WRITE, 0));
    assert_int_equal(operation(&g, LEADER, 4, 5, 6, 3), ERR_OK); /* newer than its sender */
    assert_null(act(&g, REPLICA_WRITE, 0));
    assert_int_equal(operation(&g, 2, 4, 4, 6, 3), ERR_OK); /* from somebody who does not lead */
    assert_null(act(&g, REPLICA_WRITE, 0));
    replica_free(g.r);
}

static void test_follower_checks_the_checksum(void **unused) {
    (void)unused;
    struct rig g = following();
    struct replica_operation *o = replica_operation_new(4, 6, 3, replica_checksum(4, 6, 3, SPAN("data")), SPAN("date"));
    struct replica_message m = {.kind = REPLICA_OPERATION, .epoch = 4, .operation = o};
    assert_int_equal(message(&g, LEADER, &m), ERR_OK);
    replica_operation_release(o);
    assert_null(act(&g, REPLICA_WRITE, 0));
    struct replica_status s;
    replica_status(g.r, g.now, &s);
    assert_int_equal(s.bad, 1);
    m.operation = NULL;
    assert_int_equal(message(&g, LEADER, &m), ERR_INVALID);
    assert_int_equal(message(&g, SELF, &m), ERR_INVALID);
    replica_free(g.r);
}

static void test_older_epochs_are_stale(void **unused) {
    (void)unused;
    struct rig g = following();
    assert_int_equal(operation(&g, 2, 3, 3, 6, 3), ERR_OK);
    assert_null(act(&g, REPLICA_WRITE, 0));
    assert_int_equal(sent(&g, 2, REPLICA_STALE)->epoch, 4);
    struct replica_message m = {.kind = REPLICA_OPEN, .epoch = 3};
    assert_int_equal(message(&g, 2, &m), ERR_OK);
    assert_non_null(sent(&g, 2, REPLICA_STALE));
    replica_free(g.r);
    /* A promise outlives a restart. */
    struct replica_mark mark = at_five;
    mark.promised = 6;
    g = begin(config(), &mark);
    m.epoch = 5;
    assert_int_equal(message(&g, 2, &m), ERR_OK);
    assert_int_equal(sent(&g, 2, REPLICA_STALE)->epoch, 6);
    replica_free(g.r);
}

static void test_record_is_a_promise_too(void **unused) {
    (void)unused;
    struct rig g = following();
    record(&g, 6, 2, (struct replica_set){1, {2}});
    assert_int_equal(act(&g, REPLICA_WRITE_MARK, 0)->write.promised, 6);
    assert_int_equal(operation(&g, LEADER, 4, 4, 6, 3), ERR_OK);
    assert_non_null(sent(&g, LEADER, REPLICA_STALE));
    replica_free(g.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follower_acknowledges_what_is_synced),
        cmocka_unit_test(test_follower_takes_only_the_next),
        cmocka_unit_test(test_follower_checks_the_checksum),
        cmocka_unit_test(test_older_epochs_are_stale),
        cmocka_unit_test(test_record_is_a_promise_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
