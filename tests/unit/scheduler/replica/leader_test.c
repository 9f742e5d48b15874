/*
 * leader: what it commits and when, how members leave and join, how leadership begins and ends.
 */
#include "tests/unit/scheduler/replica/rig.h"

static void test_new_shard(void **unused) {
    (void)unused;
    struct rig g = begin(config(), &(struct replica_mark){0});
    lease(&g, g.now + 1000);
    record(&g, 0, SELF, (struct replica_set){1, {SELF}});
    assert_true(act(&g, REPLICA_WRITE_MARK, 0)->write.complete);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    written(&g);
    const struct replica_action *a = act(&g, REPLICA_PROPOSE, 0);
    assert_int_equal(a->record.epoch, 1);
    assert_int_equal(a->record.version, 1);
    record(&g, 1, SELF, (struct replica_set){1, {SELF}});
    assert_int_equal(act(&g, REPLICA_WRITE_MARK, 0)->write.promised, 1);
    assert_int_equal(batch(&g, 10, false), ERR_AGAIN);
    written(&g);
    assert_int_equal(act(&g, REPLICA_LEAD, 0)->number, 0);
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    const struct replica_action *write = act(&g, REPLICA_WRITE, 0);
    assert_int_equal(write->write.last.number, 1);
    assert_int_equal(write->write.history->at[0].epoch, 1);
    written(&g);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 1);
    replica_free(g.r);
}

static void test_commits_when_all_have_synced(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    assert_non_null(act(&g, REPLICA_WRITE, 0));
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->number, 6);
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->previous_epoch, 3);
    assert_non_null(sent(&g, 3, REPLICA_OPERATION));
    position(&g, 2, 4, 4, 6);
    position(&g, 3, 4, 4, 6);
    assert_null(act(&g, REPLICA_COMMITTED, 0)); /* we have not */
    written(&g);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 6);
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    position(&g, 2, 4, 4, 8);
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    position(&g, 3, 4, 4, 7);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 7);
    position(&g, 3, 4, 4, 7); /* twice */
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    position(&g, 3, 4, 4, 6); /* late */
    position(&g, 3, 4, 4, 8);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 8);
    replica_free(g.r);
}

static void test_window(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 600, false), ERR_OK);
    assert_int_equal(batch(&g, 600, false), ERR_FULL);
    assert_int_equal(batch(&g, 100, false), ERR_OK);
    assert_int_equal(batch(&g, 100, false), ERR_OK);
    assert_int_equal(batch(&g, 100, false), ERR_OK);
    assert_int_equal(batch(&g, 1, false), ERR_FULL); /* four wait */
    assert_int_equal(batch(&g, 1, true), ERR_FULL);
    assert_int_equal(replica_last(g.r).number, 9);
    written(&g);
    position(&g, 2, 4, 4, 9);
    position(&g, 3, 4, 4, 9);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 9);
    assert_int_equal(batch(&g, 1999, false), ERR_OK); /* alone it may be larger than the window */
    assert_int_equal(batch(&g, REPLICA_OPERATION_MAX + 1, false), ERR_RANGE);
    replica_free(g.r);
}

static void test_slow_member_leaves(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    tick(&g, 600);
    position(&g, 2, 4, 4, 6);
    position(&g, 3, 4, 3, 5); /* it had all that there was when it last spoke */
    tick(&g, 600);
    position(&g, 2, 4, 4, 6);
    position(&g, 3, 4, 3, 5); /* it speaks, but does not come on */
    tick(&g, 400);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    tick(&g, 1);
    const struct replica_action *a = act(&g, REPLICA_PROPOSE, 0);
    assert_int_equal(a->record.version, 1);
    assert_int_equal(a->record.epoch, 4);
    assert_int_equal(a->record.in_sync.count, 2);
    assert_int_equal(a->record.in_sync.nodes[0] + a->record.in_sync.nodes[1], 3);
    position(&g, 2, 4, 4, 6);
    assert_null(act(&g, REPLICA_COMMITTED, 0)); /* not before it is agreed */
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    record(&g, 4, SELF, (struct replica_set){2, {1, 2}});
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 6);
    replica_free(g.r);
}

static void test_the_one_that_is_gone_leaves_at_once(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    position(&g, 2, 4, 4, 6);
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_GONE, .to = 3}), ERR_OK);
    const struct replica_action *a = act(&g, REPLICA_PROPOSE, 0);
    assert_int_equal(a->record.in_sync.count, 2);
    assert_int_equal(a->record.in_sync.nodes[0] + a->record.in_sync.nodes[1], 3);
    record(&g, 4, SELF, (struct replica_set){2, {1, 2}});
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 6);
    /* Too few would remain: nobody leaves, nothing is accepted, what is under way waits. */
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_GONE, .to = 2}), ERR_OK);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    assert_non_null(act(&g, REPLICA_REFUSE, 0));
    assert_int_equal(batch(&g, 10, false), ERR_AGAIN);
    assert_int_equal(batch(&g, 10, true), ERR_OK);
    written(&g);
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    position(&g, 2, 4, 4, 8);
    assert_non_null(act(&g, REPLICA_ACCEPT, 0));
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 8);
    replica_free(g.r);
}

static void test_proposal_that_failed_is_made_again(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_GONE, .to = 3}), ERR_OK);
    assert_non_null(act(&g, REPLICA_PROPOSE, 0));
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_PROPOSE_FAILED}), ERR_OK);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    tick(&g, 50);
    assert_non_null(act(&g, REPLICA_PROPOSE, 0));
    replica_free(g.r);
}

static void test_joins_when_it_has_caught_up(void **unused) {
    (void)unused;
    struct replica_config c = config();
    struct rig g = leading_with(c, (struct replica_set){1, {1}});
    assert_non_null(act(&g, REPLICA_LEAD, 0));
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 6);
    position(&g, 2, 4, 3, 5); /* in our history, and 6 is kept */
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->number, 6);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    assert_null(act(&g, REPLICA_COMMITTED, 0)); /* it is about to join: waited for */
    position(&g, 2, 4, 4, 6);
    struct replica_set two = act(&g, REPLICA_PROPOSE, 0)->record.in_sync;
    assert_int_equal(two.count, 2);
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    record(&g, 4, SELF, two);
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    position(&g, 2, 4, 4, 7);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 7);
    replica_free(g.r);
}

static void test_lost_operations_are_sent_again(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    tick(&g, 20);
    assert_null(sent(&g, 2, REPLICA_OPERATION));
    struct replica_message gap = {
        .kind = REPLICA_POSITION, .epoch = 4, .probe = g.probe[2], .life = 1, .position = {3, 5}, .complete = true};
    gap.gap = true;
    assert_int_equal(message(&g, 2, &gap), ERR_OK);
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->number, 6);
    assert_null(sent(&g, 3, REPLICA_OPERATION));
    tick(&g, 50);
    assert_non_null(sent(&g, 3, REPLICA_OPERATION));
    replica_free(g.r);
}

static void test_lease_ends(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    assert_true(replica_is_leader(g.r, g.now + 99999));
    assert_false(replica_is_leader(g.r, g.now + 100000));
    written(&g);
    position(&g, 2, 4, 4, 6);
    g.now += 100000;
    position(&g, 3, 4, 4, 6); /* one moment too late */
    assert_int_equal(act(&g, REPLICA_STEPPED_DOWN, 0)->why, REPLICA_WHY_LEASE);
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    assert_int_equal(batch(&g, 10, false), ERR_CLOSED);
    /* The lease comes back, nobody else has led: only with a new epoch. */
    lease(&g, g.now + 1000);
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.epoch, 5);
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.leader, SELF);
    tick(&g, 50);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    replica_free(g.r);
}

static void test_newer_epoch_ends_leadership(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(message(&g, 2, &(struct replica_message){.kind = REPLICA_STALE, .epoch = 4}), ERR_OK);
    assert_null(act(&g, REPLICA_STEPPED_DOWN, 0));
    assert_int_equal(message(&g, 2, &(struct replica_message){.kind = REPLICA_STALE, .epoch = 5}), ERR_OK);
    assert_int_equal(act(&g, REPLICA_STEPPED_DOWN, 0)->why, REPLICA_WHY_FENCED);
    assert_int_equal(act(&g, REPLICA_WRITE_MARK, 0)->write.promised, 5);
    replica_free(g.r);

    g = leading();
    record(&g, 5, 2, (struct replica_set){3, {1, 2, 3}});
    assert_int_equal(act(&g, REPLICA_STEPPED_DOWN, 0)->why, REPLICA_WHY_FENCED);
    replica_free(g.r);

    g = leading();
    struct replica_message m = {.kind = REPLICA_OPEN, .epoch = 5, .probe = 1};
    assert_int_equal(message(&g, 2, &m), ERR_OK);
    assert_non_null(act(&g, REPLICA_STEPPED_DOWN, 0));
    assert_null(sent(&g, 2, REPLICA_POSITION)); /* not before the promise is on disk */
    written(&g);
    assert_int_equal(sent(&g, 2, REPLICA_POSITION)->position.number, 5);
    replica_free(g.r);
}

static void test_takeover_sends_again_what_is_not_known_to_be_committed(void **unused) {
    (void)unused;
    struct replica_config c = config();
    struct rig g = begin(c, &at_five);
    struct replica_operation *o = replica_operation_new(3, 5, 3, replica_checksum(3, 5, 3, SPAN("x")), SPAN("x"));
    assert_int_equal(replica_remember(g.r, o), ERR_OK);
    assert_int_equal(replica_remember(g.r, o), ERR_INVALID);
    replica_operation_release(o);
    lease(&g, g.now + 100000);
    record(&g, 4, SELF, (struct replica_set){2, {1, 2}});
    written(&g);
    position(&g, 2, 4, 3, 4);
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->number, 5);
    assert_null(act(&g, REPLICA_LEAD, 0));
    assert_int_equal(batch(&g, 10, true), ERR_AGAIN);
    position(&g, 2, 4, 3, 5);
    assert_int_equal(act(&g, REPLICA_LEAD, 0)->number, 5);
    replica_free(g.r);
}

static void test_what_is_kept_on_disk_is_fetched(void **unused) {
    (void)unused;
    struct rig g = begin(config(), &at_five);
    struct replica_event kept = {.kind = REPLICA_KEPT, .kept_from = 4};
    assert_int_equal(step(&g, &kept), ERR_OK);
    lease(&g, g.now + 100000);
    record(&g, 4, SELF, (struct replica_set){3, {1, 2, 3}});
    written(&g);
    position(&g, 2, 4, 3, 3);
    assert_null(sent(&g, 2, REPLICA_OPERATION));
    assert_int_equal(act(&g, REPLICA_FETCH, 0)->fetch.node, 2);
    assert_int_equal(act(&g, REPLICA_FETCH, 0)->fetch.number, 4);
    tick(&g, 10);
    assert_null(act(&g, REPLICA_FETCH, 0)); /* one at a time */
    struct replica_operation *o = replica_operation_new(3, 4, 3, 0, SPAN("x"));
    struct replica_event e = {.kind = REPLICA_FETCHED};
    e.fetched.node = 2;
    e.fetched.number = 5;
    e.fetched.operation = o;
    assert_int_equal(step(&g, &e), ERR_INVALID);
    e.fetched.number = 4;
    assert_int_equal(step(&g, &e), ERR_OK);
    assert_ptr_equal(sent(&g, 2, REPLICA_OPERATION)->operation, o);
    assert_int_equal(act(&g, REPLICA_FETCH, 0)->fetch.number, 5);
    e.fetched.number = 5; /* it is not there after all: a copy, so it leaves the set */
    e.fetched.operation = NULL;
    assert_int_equal(step(&g, &e), ERR_OK);
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.in_sync.count, 2);
    position(&g, 3, 4, 3, 2); /* 3 is not kept at all */
    assert_null(act(&g, REPLICA_FETCH, 0));
    replica_operation_release(o);
    replica_free(g.r);
}

static void test_diverged_member_leaves_and_is_copied(void **unused) {
    (void)unused;
    struct rig g = leading_with(config(), (struct replica_set){2, {1, 2}});
    position(&g, 2, 4, 3, 6);                     /* we have no 3.6 */
    assert_null(sent(&g, 2, REPLICA_COPY_BEGIN)); /* a member is not wiped */
    assert_null(act(&g, REPLICA_LEAD, 0));
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.in_sync.count, 1);
    record(&g, 4, SELF, (struct replica_set){1, {1}});
    assert_non_null(act(&g, REPLICA_LEAD, 0));
    const struct replica_message *m = sent(&g, 2, REPLICA_COPY_BEGIN);
    assert_int_equal(m->position.number, 5);
    assert_int_equal(m->life, 1);
    assert_int_equal(m->history->count, 1);
    replica_free(g.r);
}

static void test_restarted_member_is_asked_anew(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    position(&g, 2, 4, 4, 6);
    /* Its disk is lost: what it had does not count any more. */
    struct replica_message empty = {.kind = REPLICA_POSITION, .epoch = 4, .probe = g.probe[2], .life = 2};
    assert_int_equal(message(&g, 2, &empty), ERR_OK);
    tick(&g, 0);
    position(&g, 2, 4, 4, 6); /* a late word of its earlier life */
    position(&g, 3, 4, 4, 6);
    assert_null(act(&g, REPLICA_COMMITTED, 0));
    empty.probe = g.probe[2];
    assert_int_equal(message(&g, 2, &empty), ERR_OK);
    struct replica_set two = act(&g, REPLICA_PROPOSE, 0)->record.in_sync;
    assert_int_equal(two.nodes[0] + two.nodes[1], 4);
    record(&g, 4, SELF, two);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 6);
    assert_int_equal(sent(&g, 2, REPLICA_COPY_BEGIN)->life, 2);
    replica_free(g.r);
}

static void test_hand_over(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_HAND_OVER, .to = 9}), ERR_INVALID);
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_HAND_OVER, .to = 2}), ERR_OK);
    assert_non_null(act(&g, REPLICA_REFUSE, 0));
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    assert_int_equal(batch(&g, 10, true), ERR_AGAIN);
    written(&g);
    position(&g, 2, 4, 4, 6);
    position(&g, 3, 4, 4, 6);
    assert_non_null(act(&g, REPLICA_COMMITTED, 0)); /* first what is under way */
    const struct replica_action *a = act(&g, REPLICA_PROPOSE, 0);
    assert_int_equal(a->record.leader, 2);
    assert_int_equal(a->record.epoch, 5);
    assert_int_equal(a->record.in_sync.count, 3);
    assert_int_equal(act(&g, REPLICA_STEPPED_DOWN, 0)->why, REPLICA_WHY_HANDED_OVER);
    /* While its fate is open nothing is claimed; when it was certainly not done we lead on, in a new epoch. */
    lease(&g, g.now + 200000);
    assert_null(act(&g, REPLICA_PROPOSE, 0));
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_PROPOSE_FAILED}), ERR_OK);
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.leader, SELF);
    replica_free(g.r);
}

static void test_leader_that_is_no_replica_any_more_hands_over(void **unused) {
    (void)unused;
    struct rig g = leading();
    g.record.replicas = (struct replica_set){2, {2, 3}};
    record(&g, 4, SELF, (struct replica_set){3, {1, 2, 3}});
    const struct replica_action *a = act(&g, REPLICA_PROPOSE, 0);
    assert_true(a->record.leader == 2 || a->record.leader == 3);
    replica_free(g.r);
}

static void test_unwanted_member_leaves(void **unused) {
    (void)unused;
    struct rig g = leading();
    g.record.replicas = (struct replica_set){2, {1, 3}};
    record(&g, 4, SELF, (struct replica_set){3, {1, 2, 3}});
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.in_sync.count, 2);
    record(&g, 4, SELF, (struct replica_set){2, {1, 3}});
    struct replica_status s;
    replica_status(g.r, g.now, &s);
    assert_int_equal(s.peer_count, 1);
    replica_free(g.r);
}

static void test_what_is_not_whole_does_not_lead(void **unused) {
    (void)unused;
    struct replica_mark half = at_five;
    half.complete = false;
    struct rig g = begin(config(), &half);
    lease(&g, g.now + 1000);
    record(&g, 4, SELF, (struct replica_set){2, {1, 2}});
    assert_int_equal(act(&g, REPLICA_UNFIT, 0)->record.version, 1);
    assert_false(replica_is_leader(g.r, g.now));
    tick(&g, 50);
    assert_null(act(&g, REPLICA_UNFIT, 0)); /* once for each version */
    replica_free(g.r);
    g = begin(config(), &at_five); /* whole, but not in the set */
    lease(&g, g.now + 1000);
    record(&g, 4, SELF, (struct replica_set){1, {2}});
    assert_non_null(act(&g, REPLICA_UNFIT, 0));
    replica_free(g.r);
}

static void test_restart_claims_the_next_epoch(void **unused) {
    (void)unused;
    struct rig g = begin(config(), &at_five);
    record(&g, 3, SELF, (struct replica_set){2, {1, 2}});
    assert_null(act(&g, REPLICA_PROPOSE, 0)); /* not without a lease */
    lease(&g, g.now + 1000);
    const struct replica_action *a = act(&g, REPLICA_PROPOSE, 0);
    assert_int_equal(a->record.epoch, 4);
    assert_int_equal(a->record.leader, SELF);
    assert_int_equal(a->record.in_sync.count, 2);
    assert_false(replica_is_leader(g.r, g.now));
    replica_free(g.r);
}

static void test_failed_write_breaks_it(void **unused) {
    (void)unused;
    struct rig g = leading();
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_WRITE_FAILED}), ERR_OK);
    assert_int_equal(act(&g, REPLICA_STEPPED_DOWN, 0)->why, REPLICA_WHY_WRITE);
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_TICK}), ERR_INVALID);
    struct replica_status s;
    replica_status(g.r, g.now, &s);
    assert_true(s.broken);
    replica_free(g.r);
}

static void test_late_record_is_ignored(void **unused) {
    (void)unused;
    struct rig g = leading();
    struct replica_record old = g.record;
    record(&g, 4, SELF, (struct replica_set){2, {1, 2}});
    old.epoch = 9;
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_RECORD, .record = old}), ERR_OK);
    assert_true(replica_is_leader(g.r, g.now));
    old.version = 0;
    assert_int_equal(step(&g, &(struct replica_event){.kind = REPLICA_RECORD, .record = old}), ERR_INVALID);
    replica_free(g.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_shard),
        cmocka_unit_test(test_commits_when_all_have_synced),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_slow_member_leaves),
        cmocka_unit_test(test_the_one_that_is_gone_leaves_at_once),
        cmocka_unit_test(test_proposal_that_failed_is_made_again),
        cmocka_unit_test(test_joins_when_it_has_caught_up),
        cmocka_unit_test(test_lost_operations_are_sent_again),
        cmocka_unit_test(test_lease_ends),
        cmocka_unit_test(test_newer_epoch_ends_leadership),
        cmocka_unit_test(test_takeover_sends_again_what_is_not_known_to_be_committed),
        cmocka_unit_test(test_what_is_kept_on_disk_is_fetched),
        cmocka_unit_test(test_diverged_member_leaves_and_is_copied),
        cmocka_unit_test(test_restarted_member_is_asked_anew),
        cmocka_unit_test(test_hand_over),
        cmocka_unit_test(test_leader_that_is_no_replica_any_more_hands_over),
        cmocka_unit_test(test_unwanted_member_leaves),
        cmocka_unit_test(test_what_is_not_whole_does_not_lead),
        cmocka_unit_test(test_restart_claims_the_next_epoch),
        cmocka_unit_test(test_failed_write_breaks_it),
        cmocka_unit_test(test_late_record_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
