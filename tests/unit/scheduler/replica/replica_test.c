/*
 * replica: each rule alone, step by step: what a leader commits and when, how members leave and join, what a follower
 * takes and says, epochs, leases, takeover, full copy, and everything that is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "scheduler/replica/replica.h"

#define SELF 1u
#define LEADER 7u /* another node, when we follow */

struct rig {
    struct replica *r;
    uint64_t now, write;
    struct replica_actions out;
    struct replica_record record;
    uint64_t probe[10];
};

static struct replica_config config(void) {
    struct replica_config c = REPLICA_CONFIG_DEFAULT;
    c.self = SELF;
    c.life = 100;
    c.window_count = 4;
    c.window_bytes = 1000;
    c.heartbeat_ms = 100;
    c.resend_ms = 50;
    c.slow_ms = 1000;
    return c;
}

static int step(struct rig *g, const struct replica_event *e) {
    int err = replica_step(g->r, e, g->now, &g->out);
    for (uint32_t i = 0; i < g->out.count; i++) {
        const struct replica_action *a = &g->out.at[i];
        if (a->kind <= REPLICA_WRITE_CHUNK)
            g->write = a->write.write;
        if (a->kind == REPLICA_SEND && a->send.message.kind == REPLICA_OPEN)
            g->probe[a->send.to] = a->send.message.probe;
    }
    return err;
}

/* The n-th action of this kind in the last step, or NULL. */
static const struct replica_action *act(const struct rig *g, enum replica_action_kind kind, uint32_t n) {
    for (uint32_t i = 0; i < g->out.count; i++)
        if (g->out.at[i].kind == kind && n-- == 0)
            return &g->out.at[i];
    return NULL;
}

static const struct replica_message *sent(const struct rig *g, uint32_t to, enum replica_message_kind kind) {
    for (uint32_t i = 0; i < g->out.count; i++)
        if (g->out.at[i].kind == REPLICA_SEND && g->out.at[i].send.to == to && g->out.at[i].send.message.kind == kind)
            return &g->out.at[i].send.message;
    return NULL;
}

static void tick(struct rig *g, uint64_t after_ms) {
    g->now += after_ms;
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_TICK}), ERR_OK);
}

static void written(struct rig *g) {
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_WRITTEN, .write = g->write}), ERR_OK);
}

static void lease(struct rig *g, uint64_t until_ms) {
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_LEASE, .until_ms = until_ms}), ERR_OK);
}

static void record(struct rig *g, uint64_t epoch, uint32_t leader, struct replica_set in_sync) {
    g->record.version++;
    g->record.epoch = epoch;
    g->record.leader = leader;
    g->record.in_sync = in_sync;
    assert_int_equal(step(g, &(struct replica_event){.kind = REPLICA_RECORD, .record = g->record}), ERR_OK);
}

static int message(struct rig *g, uint32_t from, const struct replica_message *m) {
    struct replica_event e = {.kind = REPLICA_MESSAGE};
    e.from = from;
    e.message = *m;
    return step(g, &e);
}

/* A member says where it is; the fields that matter here. */
static void position(struct rig *g, uint32_t from, uint64_t epoch, uint64_t at_epoch, uint64_t number) {
    struct replica_message m = {.kind = REPLICA_POSITION,
                                .epoch = epoch,
                                .probe = g->probe[from],
                                .life = 1,
                                .position = {at_epoch, number},
                                .complete = true};
    assert_int_equal(message(g, from, &m), ERR_OK);
}

static int batch(struct rig *g, size_t len, bool must) {
    static const char octets[2000];
    struct replica_event e = {.kind = REPLICA_BATCH};
    e.batch.octets = (struct span){octets, len};
    e.batch.must = must;
    return step(g, &e);
}

static struct rig begin(struct replica_config c, const struct replica_mark *mark) {
    struct rig g = {.now = 10000};
    g.record.replicas = (struct replica_set){4, {1, 2, 3, LEADER}};
    g.r = replica_new(&c, mark);
    assert_non_null(g.r);
    return g;
}

static const struct replica_mark at_five = {.promised = 3, .complete = true, .last = {3, 5}, .history = {1, {{3, 1}}}};

/* Leads epoch 4 with operations 1 to 5 of epoch 3; the members have been asked and have not answered. */
static struct rig leading_with(struct replica_config c, struct replica_set in_sync) {
    struct rig g = begin(c, &at_five);
    lease(&g, g.now + 100000);
    record(&g, 4, SELF, in_sync);
    assert_non_null(act(&g, REPLICA_WRITE_MARK, 0));
    assert_null(act(&g, REPLICA_SEND, 0)); /* not before the promise is on disk */
    written(&g);
    return g;
}

/* The same with members 2 and 3, who have all. */
static struct rig leading(void) {
    struct replica_config c = config();
    c.min_in_sync = 2;
    struct rig g = leading_with(c, (struct replica_set){3, {1, 2, 3}});
    assert_non_null(sent(&g, 2, REPLICA_OPEN));
    position(&g, 2, 4, 3, 5);
    assert_null(act(&g, REPLICA_LEAD, 0));
    position(&g, 3, 4, 3, 5);
    assert_int_equal(act(&g, REPLICA_LEAD, 0)->number, 5);
    assert_non_null(act(&g, REPLICA_ACCEPT, 0));
    return g;
}

/* -- the leader -- */

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

/* -- the follower -- */

static int operation(struct rig *g, uint32_t from, uint64_t leads, uint64_t epoch, uint64_t number, uint64_t previous) {
    struct replica_operation *o = replica_operation_new(
        epoch, number, previous, replica_checksum(epoch, number, previous, SPAN("data")), SPAN("data"));
    struct replica_message m = {.kind = REPLICA_OPERATION, .epoch = leads, .operation = o};
    int err = message(g, from, &m);
    for (uint32_t i = 0; i < g->out.count; i++) /* as an owner who keeps it would */
        assert_true(g->out.at[i].kind != REPLICA_WRITE || g->out.at[i].write.operation == o);
    replica_operation_release(o);
    return err;
}

static struct rig following(void) {
    struct rig g = begin(config(), &at_five);
    struct replica_message m = {.kind = REPLICA_OPEN, .epoch = 4, .probe = 8};
    assert_int_equal(message(&g, LEADER, &m), ERR_OK);
    assert_null(act(&g, REPLICA_SEND, 0));
    written(&g);
    const struct replica_message *p = sent(&g, LEADER, REPLICA_POSITION);
    assert_int_equal(p->epoch, 4);
    assert_int_equal(p->probe, 8);
    assert_int_equal(p->life, 100);
    assert_int_equal(p->position.epoch, 3);
    assert_int_equal(p->position.number, 5);
    assert_true(p->complete);
    return g;
}

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

/* -- the copy -- */

static void chunk(struct rig *g, uint32_t node, uint64_t copy, uint32_t n, const char *octets, bool last) {
    struct replica_event e = {.kind = REPLICA_CHUNK};
    e.read.node = node;
    e.read.copy = copy;
    e.read.chunk = n;
    e.read.octets = span_of(octets);
    e.read.cursor = SPAN("next");
    e.read.last = last;
    assert_int_equal(step(g, &e), ERR_OK);
}

static void copied(struct rig *g, uint32_t from, uint64_t copy, uint32_t chunks, uint64_t number, bool complete) {
    struct replica_message m = {.kind = REPLICA_POSITION,
                                .epoch = 4,
                                .probe = g->probe[from],
                                .life = 1,
                                .position = {number > 5 ? 4 : 3, number},
                                .complete = complete,
                                .copy = copy,
                                .chunk = chunks};
    assert_int_equal(message(g, from, &m), ERR_OK);
}

static void test_copy_is_woven_into_the_row(void **unused) {
    (void)unused;
    struct rig g = leading_with(config(), (struct replica_set){1, {1}});
    position(&g, 2, 4, 3, 4); /* 5 is not kept */
    uint64_t copy = sent(&g, 2, REPLICA_COPY_BEGIN)->copy;
    tick(&g, 50);
    assert_non_null(sent(&g, 2, REPLICA_COPY_BEGIN)); /* again until it is answered */
    copied(&g, 2, copy, 0, 5, false);
    const struct replica_action *a = act(&g, REPLICA_READ_CHUNK, 0);
    assert_int_equal(a->read.cursor.len, 0);
    /* An operation while the chunk is read: it waits behind the chunk. */
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    assert_null(sent(&g, 2, REPLICA_OPERATION));
    written(&g);
    assert_int_equal(act(&g, REPLICA_COMMITTED, 0)->number, 6); /* it is no member */
    chunk(&g, 2, copy, 0, "first", false);
    const struct replica_message *m = sent(&g, 2, REPLICA_COPY_CHUNK);
    assert_int_equal(m->position.number, 5);
    assert_false(m->last);
    copied(&g, 2, copy, 1, 5, false);
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->number, 6);
    tick(&g, 500);                               /* credit for another one */
    assert_null(act(&g, REPLICA_READ_CHUNK, 0)); /* 6 is not there yet */
    copied(&g, 2, copy, 1, 6, false);
    a = act(&g, REPLICA_READ_CHUNK, 0);
    assert_int_equal(a->read.chunk, 1);
    assert_true(span_eq(a->read.cursor, SPAN("next")));
    assert_int_equal(batch(&g, 10, false), ERR_OK);
    written(&g);
    chunk(&g, 2, copy, 1, "second", true);
    m = sent(&g, 2, REPLICA_COPY_CHUNK);
    assert_true(m->last);
    assert_int_equal(m->position.number, 6);
    assert_int_equal(m->complete_at, 7); /* it may have seen that one */
    copied(&g, 2, copy, 2, 6, false);
    assert_int_equal(sent(&g, 2, REPLICA_OPERATION)->operation->number, 7);
    assert_null(act(&g, REPLICA_PROPOSE, 0)); /* it is not whole */
    copied(&g, 2, copy, 2, 7, true);
    assert_int_equal(act(&g, REPLICA_PROPOSE, 0)->record.in_sync.count, 2);
    replica_free(g.r);
}

static void test_copy_keeps_its_pace(void **unused) {
    (void)unused;
    struct replica_config c = config();
    c.copy_per_s = 10;
    struct rig g = leading_with(c, (struct replica_set){1, {1}});
    position(&g, 2, 4, 3, 4);
    uint64_t copy = sent(&g, 2, REPLICA_COPY_BEGIN)->copy;
    copied(&g, 2, copy, 0, 5, false);
    assert_non_null(act(&g, REPLICA_READ_CHUNK, 0));
    chunk(&g, 2, copy, 0, "twenty octets of it", false);
    copied(&g, 2, copy, 1, 5, false);
    for (uint32_t i = 0; i < 18; i++) {
        assert_null(act(&g, REPLICA_READ_CHUNK, 0));
        tick(&g, 100);
    }
    tick(&g, 300);
    assert_non_null(act(&g, REPLICA_READ_CHUNK, 0));
    replica_free(g.r);
}

static void copy_begins(struct rig *g, uint64_t life, uint64_t copy, uint64_t number) {
    static const struct replica_history history = {2, {{3, 1}, {4, 6}}};
    struct replica_message m = {.kind = REPLICA_COPY_BEGIN,
                                .epoch = 4,
                                .life = life,
                                .position = {4, number},
                                .copy = copy,
                                .history = &history};
    assert_int_equal(message(g, LEADER, &m), ERR_OK);
}

static void test_order_to_wipe_is_for_one_life_and_once(void **unused) {
    (void)unused;
    struct rig g = following();
    copy_begins(&g, 99, 1, 6);
    assert_null(act(&g, REPLICA_WIPE, 0));
    copy_begins(&g, 100, 2, 6);
    const struct replica_action *a = act(&g, REPLICA_WIPE, 0);
    assert_false(a->write.complete);
    assert_int_equal(a->write.last.number, 6);
    assert_int_equal(a->write.history->count, 2);
    written(&g);
    assert_int_equal(sent(&g, LEADER, REPLICA_POSITION)->copy, 2);
    assert_false(sent(&g, LEADER, REPLICA_POSITION)->complete);
    copy_begins(&g, 100, 2, 6);
    assert_null(act(&g, REPLICA_WIPE, 0));
    copy_begins(&g, 100, 1, 6);
    assert_null(act(&g, REPLICA_WIPE, 0));
    struct replica_history bad = {2, {{3, 1}, {2, 6}}};
    struct replica_message m = {.kind = REPLICA_COPY_BEGIN, .epoch = 4, .life = 100, .copy = 3, .history = &bad};
    assert_int_equal(message(&g, LEADER, &m), ERR_INVALID);
    replica_free(g.r);
}

/* A leader that copies to a follower, each step by hand: what one says the other hears. */
static void test_follower_is_whole_after_the_copy(void **unused) {
    (void)unused;
    struct rig l = leading_with(config(), (struct replica_set){1, {1}});
    struct replica_config c = config();
    c.self = 2;
    c.life = 1;
    struct rig f = begin(c, &(struct replica_mark){0});
    struct replica_message open = {.kind = REPLICA_OPEN, .epoch = 4, .probe = l.probe[2]};
    assert_int_equal(message(&f, SELF, &open), ERR_OK);
    written(&f);
    struct replica_message said = *sent(&f, SELF, REPLICA_POSITION);
    assert_int_equal(message(&l, 2, &said), ERR_OK);
    assert_int_equal(message(&f, SELF, sent(&l, 2, REPLICA_COPY_BEGIN)), ERR_OK);
    written(&f);
    said = *sent(&f, SELF, REPLICA_POSITION);
    assert_int_equal(message(&l, 2, &said), ERR_OK);
    assert_int_equal(batch(&l, 10, false), ERR_OK);
    chunk(&l, 2, said.copy, 0, "all of it", true);
    struct replica_message m = *sent(&l, 2, REPLICA_COPY_CHUNK);
    struct replica_message broken = m;
    broken.octets = SPAN("all of id");
    assert_int_equal(message(&f, SELF, &broken), ERR_OK);
    assert_null(act(&f, REPLICA_WRITE_CHUNK, 0));
    broken = m;
    broken.position.number++;
    assert_int_equal(message(&f, SELF, &broken), ERR_OK);
    assert_null(act(&f, REPLICA_WRITE_CHUNK, 0));
    assert_int_equal(message(&f, SELF, &m), ERR_OK);
    assert_true(span_eq(act(&f, REPLICA_WRITE_CHUNK, 0)->write.octets, SPAN("all of it")));
    assert_false(act(&f, REPLICA_WRITE_CHUNK, 0)->write.complete);
    written(&f);
    assert_int_equal(message(&f, SELF, &m), ERR_OK); /* twice */
    assert_null(act(&f, REPLICA_WRITE_CHUNK, 0));
    said = *sent(&f, SELF, REPLICA_POSITION);
    assert_int_equal(message(&l, 2, &said), ERR_OK);
    m = *sent(&l, 2, REPLICA_OPERATION);
    assert_int_equal(message(&f, SELF, &m), ERR_OK);
    const struct replica_action *a = act(&f, REPLICA_WRITE, 0);
    assert_true(a->write.complete);
    assert_true(a->write.again);
    assert_false(a->write.copying);
    replica_free(f.r);
    replica_free(l.r);
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
        cmocka_unit_test(test_diverged_member_leaves_and_is_copied),
        cmocka_unit_test(test_restarted_member_is_asked_anew),
        cmocka_unit_test(test_hand_over),
        cmocka_unit_test(test_leader_that_is_no_replica_any_more_hands_over),
        cmocka_unit_test(test_unwanted_member_leaves),
        cmocka_unit_test(test_what_is_not_whole_does_not_lead),
        cmocka_unit_test(test_restart_claims_the_next_epoch),
        cmocka_unit_test(test_failed_write_breaks_it),
        cmocka_unit_test(test_late_record_is_ignored),
        cmocka_unit_test(test_follower_acknowledges_what_is_synced),
        cmocka_unit_test(test_follower_takes_only_the_next),
        cmocka_unit_test(test_follower_checks_the_checksum),
        cmocka_unit_test(test_older_epochs_are_stale),
        cmocka_unit_test(test_record_is_a_promise_too),
        cmocka_unit_test(test_copy_is_woven_into_the_row),
        cmocka_unit_test(test_copy_keeps_its_pace),
        cmocka_unit_test(test_order_to_wipe_is_for_one_life_and_once),
        cmocka_unit_test(test_follower_is_whole_after_the_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
