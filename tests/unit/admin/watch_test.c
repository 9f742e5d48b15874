/* watch: questions for live lines and their answers, within their bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "admin/watch.h"
#include "base/ring.h"
#include "proto/frame.h"

static struct arena mem;
static Words__AdminReply reply;

static int set_up(void **state) {
    (void)state;
    arena_init(&mem, 64 * 1024, WATCH_REPLY_MAX);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    arena_deinit(&mem);
    return 0;
}

static int ask(uint32_t ring, bool has_number, uint64_t number, struct span filter) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    arena_reset(&mem);
    words__admin_reply__init(&reply);
    q.verb = WORDS__ADMIN_VERB__ADMIN_WATCH;
    q.has_ring = q.has_filter = true;
    q.ring = ring;
    q.filter = frame_bytes(filter);
    q.has_number = has_number;
    q.number = number;
    return watch_answer(&q, &reply, &mem);
}

static void from_now_on(void **state) {
    (void)state;
    assert_int_equal(ask(RING_EVENTS, false, 0, SPAN_EMPTY), ERR_OK);
    assert_true(reply.has_number && !reply.n_lines);
    uint64_t from = reply.number;
    ring_add(RING_EVENTS, SPAN("deferred to=<a@b>"));
    ring_add(RING_EVENTS, SPAN("delivered to=<c@d>"));
    assert_int_equal(ask(RING_EVENTS, true, from, SPAN("DELIVERED")), ERR_OK);
    assert_int_equal(reply.n_lines, 1);
    assert_int_equal(reply.lines[0]->number, from + 2);
    assert_true(span_eq(frame_span(reply.lines[0]->text), SPAN("delivered to=<c@d>")));
    assert_int_equal(reply.number, from + 2);
    assert_false(reply.more);
    assert_int_equal(ask(RING_EVENTS, true, reply.number, SPAN_EMPTY), ERR_OK);
    assert_int_equal(reply.n_lines, 0);
}

static void refuses(void **state) {
    static char filter[WATCH_FILTER_MAX + 1];
    (void)state;
    assert_int_equal(ask(RING_KINDS, false, 0, SPAN_EMPTY), ERR_INVALID);
    memset(filter, 'x', sizeof filter);
    assert_int_equal(ask(RING_EVENTS, true, 0, span_make(filter, sizeof filter)), ERR_INVALID);
    assert_int_equal(ask(RING_EVENTS, true, 0, span_make(filter, sizeof filter - 1)), ERR_OK);
}

/* Whatever the ring holds, a reply fits into a frame, and the rest comes with the next ones, each line once. */
static void long_answers_come_in_parts(void **state) {
    static const size_t lengths[] = {10, RING_LINE_MAX};
    static char line[RING_LINE_MAX];
    (void)state;
    memset(line, 'y', sizeof line);
    for (size_t k = 0; k < 2; k++) {
        assert_int_equal(ask(RING_SMTP_IN, false, 0, SPAN_EMPTY), ERR_OK);
        uint64_t from = reply.number, seen = 0, parts = 0;
        for (uint32_t i = 0; i < RING_LINES + 10; i++)
            ring_add(RING_SMTP_IN, span_make(line, lengths[k]));
        do {
            struct buf packed;
            assert_int_equal(ask(RING_SMTP_IN, true, from, SPAN_EMPTY), ERR_OK);
            for (size_t i = 0; i < reply.n_lines; i++)
                assert_int_equal(reply.lines[i]->number, from + reply.missed + i + 1);
            seen += reply.n_lines + reply.missed;
            from = reply.number;
            parts++;
            buf_init(&packed, FRAME_META_MAX);
            assert_int_equal(frame_pack(&reply.base, &packed), ERR_OK);
            buf_deinit(&packed);
        } while (reply.more);
        assert_int_equal(seen, RING_LINES + 10);
        assert_true(parts > 2);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(from_now_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_answers_come_in_parts, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
