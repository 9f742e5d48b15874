/* body: pieces of the right lengths at every size around their bounds, the checksum, and what is borrowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/inbound/body.h"
#include "proto/frame.h"

static char *text;
enum { TEXT_LEN = 3 * FRAME_BODY_MAX + 1000 };

static int setup(void **state) {
    (void)state;
    text = malloc(TEXT_LEN);
    for (size_t i = 0; i < TEXT_LEN; i++)
        text[i] = (char)(i * 7 + i / 251);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(text);
    return 0;
}

/* What has left, put together. */
struct taken {
    struct buf all;
    uint32_t pieces;
    size_t last;
};

static void take(struct body *b, struct taken *t) {
    struct span piece = bus_bytes_span(body_full(b));
    assert_true(t->pieces == 0 || t->last == FRAME_BODY_MAX); /* only the last may be shorter */
    assert_true(piece.len > 0 && piece.len <= FRAME_BODY_MAX);
    t->pieces++;
    t->last = piece.len;
    assert_int_equal(buf_add(&t->all, piece), ERR_OK);
    body_gone(b);
}

static void run(size_t len, size_t step) {
    struct limits l;
    struct body b;
    struct taken t = {0};
    uint32_t checksum = 0;
    limits_init(&l);
    body_init(&b, &l);
    buf_init(&t.all, TEXT_LEN);
    for (size_t at = 0; at < len;) {
        size_t room = body_room(&b);
        if (!room) {
            take(&b, &t);
            continue;
        }
        assert_true(room >= 64);
        struct span part = span_first(span_make(text + at, len - at), room < step ? room : step);
        assert_int_equal(body_append(&b, part), ERR_OK);
        at += part.len;
    }
    assert_int_equal(b.size, len);
    for (;;) {
        bool more = body_full(&b) != NULL;
        if (more)
            take(&b, &t);
        assert_int_equal(body_finish(&b, &checksum), ERR_OK);
        if (!body_full(&b))
            break;
    }
    assert_int_equal(t.pieces, (len + FRAME_BODY_MAX - 1) / FRAME_BODY_MAX);
    assert_int_equal(buf_len(&t.all), len);
    assert_memory_equal(buf_span(&t.all).at, text, len);
    assert_int_equal(checksum, hash_checksum(text, len));
    body_deinit(&b);
    buf_deinit(&t.all);
    assert_int_equal(atomic_load(&l.used[0]) + atomic_load(&l.used[1]), 0);
    limits_deinit(&l);
}

static void test_sizes(void **state) {
    static const size_t bounds[] = {1, BODY_SHORT_MAX, FRAME_BODY_MAX, 2 * FRAME_BODY_MAX, 3 * FRAME_BODY_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        for (size_t len = bounds[i] > 66 ? bounds[i] - 66 : 1; len < bounds[i] + 66; len += 1 + (i > 0) * 5) {
            run(len, 32 * 1024);
            run(len, 4096);
        }
        run(bounds[i], SIZE_MAX);
    }
    run(3000, 1);
}

/* Two CRLFs more than the room are taken everywhere, because the scanner may add one. */
static void test_append_over_room(void **state) {
    struct limits l;
    struct body b;
    (void)state;
    limits_init(&l);
    body_init(&b, &l);
    for (size_t size = 0, room; size < 2 * FRAME_BODY_MAX; size = b.size) {
        while (!(room = body_room(&b))) {
            assert_non_null(body_full(&b));
            body_gone(&b);
        }
        assert_int_equal(body_append(&b, span_make(text, room)), ERR_OK);
        assert_int_equal(body_append(&b, SPAN("\r\n")), ERR_OK);
    }
    body_deinit(&b);
    limits_deinit(&l);
}

/* Short bodies take what there is; a long one waits for memory, and comes to its end once it has it. */
static void test_waits_for_memory(void **state) {
    struct limits l;
    struct body longs[3], shorts[60];
    size_t got = 0;
    (void)state;
    limits_init(&l); /* 1 MiB for each pool: two long bodies */
    for (int i = 0; i < 3; i++) {
        body_init(&longs[i], &l);
        assert_int_not_equal(body_room(&longs[i]), 0);
        assert_int_equal(body_append(&longs[i], span_make(text, BODY_SHORT_MAX)), ERR_OK);
    }
    assert_int_not_equal(body_room(&longs[0]), 0);
    assert_int_not_equal(body_room(&longs[1]), 0);
    assert_int_equal(body_room(&longs[2]), 0);
    for (int i = 0; i < 60; i++) {
        body_init(&shorts[i], &l);
        got += body_room(&shorts[i]) > 0;
    }
    assert_in_range(got, 20, 30);
    body_deinit(&longs[0]);
    assert_int_not_equal(body_room(&longs[2]), 0);
    for (int i = 1; i < 3; i++)
        body_deinit(&longs[i]);
    for (int i = 0; i < 60; i++)
        body_deinit(&shorts[i]);
    assert_int_equal(atomic_load(&l.used[0]) + atomic_load(&l.used[1]), 0);
    limits_deinit(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_append_over_room),
        cmocka_unit_test(test_waits_for_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
