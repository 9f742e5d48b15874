/* A body in chunks: two ahead at most, repeats ignored, wrong lengths refused, overdue ones asked again, given up in
 * time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/outbound/content.h"
#include "gateway/outbound/dead.h"
#include "proto/frame.h"

struct asked {
    uint32_t numbers[32], count;
};

static void on_fetch(void *arg, uint32_t number) {
    struct asked *a = arg;
    assert_true(a->count < 32);
    a->numbers[a->count++] = number;
}

static struct bus_bytes *chunk(size_t len, char c) {
    struct bus_bytes *b = bus_bytes_new(len);
    memset(bus_bytes_mem(b), c, len);
    return b;
}

static int come(struct content *c, uint32_t number, size_t len, char fill, uint64_t now) {
    struct bus_bytes *b = chunk(len, fill);
    int err = content_on_chunk(c, number, b, now);
    bus_bytes_free(b);
    return err;
}

enum { SIZE = 3 * FRAME_BODY_MAX + 10 };

static void test_window(void **state) {
    (void)state;
    struct asked a = {.count = 0};
    struct content c;
    content_init(&c, SIZE, NULL, true, on_fetch, &a);
    content_rewind(&c, false, 0);
    assert_int_equal(a.count, 2); /* and no more before one is used up */
    assert_int_equal(content_at(&c, 0).len, 0);
    assert_int_equal(come(&c, 2, FRAME_BODY_MAX, 'c', 0), ERR_NOT_FOUND);   /* not asked for */
    assert_int_equal(come(&c, 1, FRAME_BODY_MAX - 1, 'b', 0), ERR_CORRUPT); /* short */
    assert_int_equal(come(&c, 1, FRAME_BODY_MAX, 'b', 0), ERR_OK);          /* out of order */
    assert_int_equal(content_at(&c, 0).len, 0);
    assert_int_equal(come(&c, 0, FRAME_BODY_MAX, 'a', 0), ERR_OK);
    assert_int_equal(come(&c, 0, FRAME_BODY_MAX, 'x', 0), ERR_NOT_FOUND); /* a repeat */
    assert_int_equal(content_at(&c, 0).at[0], 'a');
    content_take(&c, FRAME_BODY_MAX - 1, 0);
    assert_int_equal(a.count, 2);
    assert_int_equal(content_at(&c, 0).len, 1);
    content_take(&c, 1, 0);
    assert_int_equal(a.count, 3);
    assert_int_equal(content_at(&c, 0).at[0], 'b');
    assert_int_equal(come(&c, 0, FRAME_BODY_MAX, 'a', 0), ERR_NOT_FOUND); /* used up */
    content_take(&c, FRAME_BODY_MAX, 0);
    assert_int_equal(a.count, 4);
    assert_int_equal(come(&c, 3, FRAME_BODY_MAX, 'd', 0), ERR_CORRUPT); /* the last one is short */
    assert_int_equal(come(&c, 3, 10, 'd', 0), ERR_OK);
    assert_int_equal(come(&c, 2, FRAME_BODY_MAX, 'c', 0), ERR_OK);
    content_take(&c, FRAME_BODY_MAX, 0);
    assert_false(content_is_end(&c));
    content_take(&c, 10, 0);
    assert_true(content_is_end(&c));
    assert_int_equal(content_at(&c, 0).len, 0);
    assert_int_equal(a.count, 4);
    content_rewind(&c, false, 0); /* another host: all of it again */
    assert_int_equal(a.count, 6);
    assert_int_equal(a.numbers[4], 0);
    content_deinit(&c);
}

static void test_overdue(void **state) {
    (void)state;
    struct asked a = {.count = 0};
    struct content c;
    content_init(&c, SIZE, NULL, true, on_fetch, &a);
    content_rewind(&c, false, 1000);
    assert_true(content_tick(&c, 1000 + BODY_REPEAT_MS - 1));
    assert_int_equal(a.count, 2);
    assert_int_equal(come(&c, 1, FRAME_BODY_MAX, 'b', 1000), ERR_OK);
    assert_true(content_tick(&c, 1000 + BODY_REPEAT_MS));
    assert_int_equal(a.count, 3); /* only the one that is missing */
    assert_int_equal(a.numbers[2], 0);
    assert_true(content_tick(&c, 1000 + BODY_WAIT_MS - 1));
    assert_false(content_tick(&c, 1000 + BODY_WAIT_MS));
    content_deinit(&c);
}

static void test_whole_and_converted(void **state) {
    (void)state;
    struct content c;
    struct bus_bytes *b = bus_bytes_copy(SPAN("hello"));
    content_init(&c, 5, b, false, on_fetch, NULL);
    bus_bytes_free(b);
    content_rewind(&c, false, 0);
    content_take(&c, 2, 0);
    assert_memory_equal(content_at(&c, 0).at, "llo", 3);
    assert_true(content_tick(&c, 1u << 30));
    buf_init(&c.converted, 100);
    assert_int_equal(buf_add(&c.converted, SPAN("other form")), ERR_OK);
    content_rewind(&c, true, 0);
    assert_int_equal(content_size(&c), 10);
    content_take(&c, 10, 0);
    assert_true(content_is_end(&c));
    content_rewind(&c, false, 0);
    assert_int_equal(content_size(&c), 5);
    content_deinit(&c);
    content_init(&c, 0, NULL, false, on_fetch, NULL); /* an empty message */
    content_rewind(&c, false, 0);
    assert_true(content_is_end(&c));
    content_deinit(&c);
}

static void test_dead_addresses(void **state) {
    (void)state;
    static struct dead d;
    struct tcp_addr a, other_port, other;
    assert_int_equal(tcp_addr_parse(&a, SPAN("192.0.2.1"), 25), ERR_OK);
    assert_int_equal(tcp_addr_parse(&other_port, SPAN("192.0.2.1"), 26), ERR_OK);
    assert_int_equal(tcp_addr_parse(&other, SPAN("2001:db8::1"), 25), ERR_OK);
    assert_false(dead_is(&d, &a, 0));
    dead_mark(&d, &a, 100);
    assert_true(dead_is(&d, &a, 100 + DEAD_MS - 1));
    assert_false(dead_is(&d, &a, 100 + DEAD_MS));
    assert_false(dead_is(&d, &other_port, 100));
    assert_false(dead_is(&d, &other, 100));
    dead_clear(&d, &other);
    assert_true(dead_is(&d, &a, 100));
    dead_clear(&d, &a);
    assert_false(dead_is(&d, &a, 100));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_overdue),
        cmocka_unit_test(test_whole_and_converted),
        cmocka_unit_test(test_dead_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
