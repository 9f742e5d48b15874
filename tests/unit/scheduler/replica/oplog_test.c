/*
 * oplog: a row without gaps, bounded: what is committed goes first, what is not only beyond the hard limit. And the
 * history: which positions are in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "scheduler/replica/history.h"
#include "scheduler/replica/oplog.h"

static void push(struct oplog *l, uint64_t number, const char *octets, uint64_t committed) {
    struct replica_operation *o = replica_operation_new(1, number, 1, 0, span_of(octets));
    assert_non_null(o);
    oplog_push(l, o, committed);
    replica_operation_release(o);
}

static void test_keeps_what_is_not_committed(void **unused) {
    (void)unused;
    struct oplog l;
    assert_int_equal(oplog_init(&l, 6, 2, 1000), ERR_OK);
    assert_null(oplog_get(&l, 1));
    for (uint64_t n = 10; n < 15; n++)
        push(&l, n, "x", 0);
    assert_int_equal(l.count, 5);
    assert_int_equal(oplog_get(&l, 10)->number, 10);
    oplog_trim(&l, 12);
    assert_int_equal(l.count, 2); /* two are kept for those who return */
    assert_null(oplog_get(&l, 12));
    assert_int_equal(oplog_get(&l, 13)->number, 13);
    assert_null(oplog_get(&l, 15));
    for (uint64_t n = 15; n < 30; n++)
        push(&l, n, "x", 0);
    assert_int_equal(l.count, 6); /* the hard limit */
    assert_null(oplog_get(&l, 23));
    assert_int_equal(oplog_get(&l, 24)->number, 24);
    assert_int_equal(oplog_get(&l, 29)->number, 29);
    oplog_clear(&l);
    assert_int_equal(l.bytes, 0);
    push(&l, 3, "x", 0); /* anew, anywhere */
    oplog_deinit(&l);
}

static void test_keeps_to_its_octets(void **unused) {
    (void)unused;
    struct oplog l;
    assert_int_equal(oplog_init(&l, 100, 50, 10), ERR_OK);
    for (uint64_t n = 1; n <= 6; n++)
        push(&l, n, "1234", n);
    assert_int_equal(l.count, 2);
    assert_int_equal(l.bytes, 8);
    oplog_deinit(&l);
}

static void test_operation_is_counted(void **unused) {
    (void)unused;
    static const char some[1];
    assert_null(replica_operation_new(1, 1, 0, 0, (struct span){some, REPLICA_OPERATION_MAX + 1}));
    struct oplog l;
    assert_int_equal(oplog_init(&l, 2, 1, 1), ERR_OK);
    struct replica_operation *o = replica_operation_new(1, 1, 0, 0, SPAN("held"));
    oplog_push(&l, o, 0);
    oplog_deinit(&l);
    assert_int_equal(o->references, 1);
    assert_memory_equal(o->octets, "held", 4);
    replica_operation_release(o);
}

static void test_checksum_covers_the_position(void **unused) {
    (void)unused;
    uint64_t sum = replica_checksum(1, 2, 1, SPAN("data"));
    assert_true(sum == replica_checksum(1, 2, 1, SPAN("data")));
    assert_true(sum != replica_checksum(2, 2, 1, SPAN("data")));
    assert_true(sum != replica_checksum(1, 3, 1, SPAN("data")));
    assert_true(sum != replica_checksum(1, 2, 0, SPAN("data")));
    assert_true(sum != replica_checksum(1, 2, 1, SPAN("datb")));
}

static struct replica_position at(uint64_t epoch, uint64_t number) {
    return (struct replica_position){epoch, number};
}

static void test_history(void **unused) {
    (void)unused;
    struct replica_history h = {0};
    assert_true(history_has(&h, at(0, 0), at(0, 0)));
    assert_false(history_has(&h, at(0, 0), at(1, 1)));
    assert_true(history_note(&h, at(1, 1)));
    assert_false(history_note(&h, at(1, 2)));
    assert_true(history_note(&h, at(4, 11)));
    assert_false(history_note(&h, at(4, 12)));
    struct replica_position last = {4, 12};
    assert_true(history_has(&h, last, at(0, 0)));
    assert_true(history_has(&h, last, at(1, 1)));
    assert_true(history_has(&h, last, at(1, 10)));
    assert_false(history_has(&h, last, at(1, 11))); /* of an old leader, never committed */
    assert_true(history_has(&h, last, at(4, 11)));
    assert_false(history_has(&h, last, at(4, 10)));
    assert_false(history_has(&h, last, at(4, 13)));
    assert_false(history_has(&h, last, at(2, 11))); /* of a leader that we have never heard of */
    assert_false(history_has(&h, last, at(5, 12)));
    assert_false(history_has(&h, last, at(1, 0)));
    history_cut(&h, 10);
    assert_int_equal(h.count, 1);
    assert_true(history_is_valid(&h));
    history_cut(&h, 0);
    assert_int_equal(h.count, 0);
}

static void test_history_is_bounded(void **unused) {
    (void)unused;
    struct replica_history h = {0};
    for (uint64_t i = 1; i <= REPLICA_HISTORY_MAX + 3; i++)
        assert_true(history_note(&h, at(i, i)));
    assert_int_equal(h.count, REPLICA_HISTORY_MAX);
    assert_int_equal(h.at[0].epoch, 4);
    assert_true(history_is_valid(&h));
    struct replica_position last = at(REPLICA_HISTORY_MAX + 3, REPLICA_HISTORY_MAX + 3);
    assert_false(history_has(&h, last, at(3, 3))); /* not known any more: a copy */
    assert_true(history_has(&h, last, at(4, 4)));
    h.at[5].first = h.at[4].first;
    assert_false(history_is_valid(&h));
    h.count = REPLICA_HISTORY_MAX + 1;
    assert_false(history_is_valid(&h));
    assert_false(history_is_valid(&(struct replica_history){1, {{0, 1}}}));
    assert_false(history_is_valid(&(struct replica_history){1, {{1, 0}}}));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps_what_is_not_committed),
        cmocka_unit_test(test_keeps_to_its_octets),
        cmocka_unit_test(test_operation_is_counted),
        cmocka_unit_test(test_checksum_covers_the_position),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_history_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
