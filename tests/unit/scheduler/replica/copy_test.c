/*
 * copy: chunks woven into the row of operations, their pace, and what a receiver obeys.
 */
#include "tests/unit/scheduler/replica/rig.h"

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
        cmocka_unit_test(test_copy_is_woven_into_the_row),
        cmocka_unit_test(test_copy_keeps_its_pace),
        cmocka_unit_test(test_order_to_wipe_is_for_one_life_and_once),
        cmocka_unit_test(test_follower_is_whole_after_the_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
