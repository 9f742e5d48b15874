/* keys: every key comes back from its octets, the order of keys is the order of numbers, shards lie apart. */
#include "tests/unit/store/place.h"

#include "base/rand.h"
#include "store/keys.h"

static const uint64_t numbers[] = {0,
                                   1,
                                   255,
                                   256,
                                   65535,
                                   65536,
                                   UINT64_C(0xffffffff),
                                   UINT64_C(0x100000000),
                                   UINT64_C(0x7fffffffffffffff),
                                   UINT64_C(0x8000000000000000),
                                   UINT64_MAX};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static int compare(struct key a, struct key b) {
    int order = span_cmp(key_span(&a), key_span(&b));
    return (order > 0) - (order < 0);
}

static int sign(uint64_t a, uint64_t b) {
    return (a > b) - (a < b);
}

static void message_keys_come_back_in_order(void **state) {
    (void)state;
    for (int i = 0; i < NUMBERS; i++) {
        struct key k = key_message(1023, numbers[i]), flight = key_inflight(7, numbers[i]);
        assert_int_equal(k.len, 10);
        assert_int_equal(key_get_u16(key_span(&k), 0), 1023);
        assert_int_equal(key_get_u64(key_span(&k), 2), numbers[i]);
        assert_int_equal(flight.len, 10);
        assert_int_equal(key_get_u64(key_span(&flight), 2), numbers[i]);
        for (int j = 0; j < NUMBERS; j++) {
            assert_int_equal(compare(key_message(1, numbers[i]), key_message(1, numbers[j])),
                             sign(numbers[i], numbers[j]));
            assert_int_equal(compare(key_message(1, numbers[i]), key_message(2, numbers[j])), -1);
            assert_int_equal(compare(key_chunk(1, numbers[i], 65535), key_chunk(1, numbers[j], 0)),
                             i == j ? 1 : sign(numbers[i], numbers[j]));
        }
    }
}

static void chunk_and_recipient_keys_come_back_in_order(void **state) {
    (void)state;
    for (uint32_t n = 0; n < 65536; n += 255) {
        struct key k = key_chunk(3, 77, n);
        assert_int_equal(k.len, 12);
        assert_int_equal(key_get_u16(key_span(&k), 10), n);
        if (n)
            assert_int_equal(compare(key_chunk(3, 77, n - 1), k), -1);
    }
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < 7; j++) {
            struct key k = key_recipient(3, 77, (uint32_t)numbers[i]);
            assert_int_equal(k.len, 14);
            assert_int_equal(key_get_u32(key_span(&k), 10), numbers[i]);
            assert_int_equal(compare(k, key_recipient(3, 77, (uint32_t)numbers[j])), sign(numbers[i], numbers[j]));
        }
}

static void due_keys_come_back_in_order(void **state) {
    (void)state;
    struct rand r;
    char name[KEY_DESTINATION_MAX + 20];
    rand_init(&r, 7);
    memset(name, 'x', sizeof name);
    for (int i = 0; i < 2000; i++) {
        uint32_t minute = (uint32_t)rand_u64(&r), index = (uint32_t)rand_u64(&r), m, n;
        uint64_t id = rand_u64(&r), back;
        struct span destination = span_make(name, rand_below(&r, sizeof name + 1));
        struct key k = key_due(5, minute, destination, id, index);
        assert_true(k.len <= KEY_MAX);
        assert_true(key_read_due(key_span(&k), &m, &back, &n));
        assert_int_equal(m, minute);
        assert_int_equal(back, id);
        assert_int_equal(n, index);
        if (minute < UINT32_MAX) {
            assert_int_equal(compare(k, key_due_minute(5, minute + 1)), -1);
            assert_int_equal(compare(k, key_due_minute(5, minute)), 1);
        }
        for (size_t cut = 0; cut < k.len; cut++)
            assert_false(key_read_due(span_make(k.at, cut), &m, &back, &n));
    }
}

static void hour_keys_come_back_in_order(void **state) {
    (void)state;
    struct span submission = SPAN("0123456789abcdef");
    for (int i = 0; i < 7; i++) {
        uint32_t hour = (uint32_t)numbers[i];
        struct key t = key_trace(9, hour, numbers[8], 42), s = key_submission(9, hour, submission);
        assert_int_equal(t.len, 18);
        assert_int_equal(key_get_u32(key_span(&t), 2), hour);
        assert_int_equal(key_get_u64(key_span(&t), 6), numbers[8]);
        assert_int_equal(key_get_u32(key_span(&t), 14), 42);
        assert_int_equal(s.len, 22);
        assert_int_equal(key_get_u32(key_span(&s), 2), hour);
        assert_memory_equal(s.at + 6, submission.at, 16);
        assert_int_equal(compare(key_hour(9, hour), t), -1);
        assert_int_equal(compare(key_hour(9, hour), s), -1);
        if (hour < UINT32_MAX) {
            assert_int_equal(compare(key_hour(9, hour + 1), t), 1);
            assert_int_equal(compare(key_hour(9, hour + 1), s), 1);
        }
    }
    assert_int_equal(compare(key_trace(9, 1, 5, 1), key_trace(9, 1, 5, 2)), -1);
    assert_int_equal(compare(key_trace(9, 1, 5, UINT32_MAX), key_trace(9, 1, 6, 0)), -1);
}

static void the_node_lies_behind_all_shards(void **state) {
    (void)state;
    struct key number = key_number(0, 3), staged = key_staged(0, 99);
    assert_int_equal(number.len, 4);
    assert_int_equal(staged.len, 11);
    assert_int_equal(key_get_u64(key_span(&staged), 3), 99);
    assert_int_not_equal(compare(number, staged), 0);
    assert_int_equal(compare(key_meta(KEY_NODE, KEY_TAG_IDENTITY), key_shard(KEY_SHARDS)), 1);
    assert_int_equal(compare(key_number(KEY_SHARDS - 1, 255), key_shard(KEY_SHARDS)), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_keys_come_back_in_order),
        cmocka_unit_test(chunk_and_recipient_keys_come_back_in_order),
        cmocka_unit_test(due_keys_come_back_in_order),
        cmocka_unit_test(hour_keys_come_back_in_order),
        cmocka_unit_test(the_node_lies_behind_all_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
