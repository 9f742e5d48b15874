/* ask: replies come in later turns and in order, a question ends with its last one, and what is too much ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "admin/ask.h"
#include "proto/frame.h"

struct heard {
    struct ask_desk *d;
    uint64_t number, cancel; /* cancel this one inside the callback */
    unsigned replies, error;
    bool last;
    char texts[200];
};

static void on_reply(void *arg, const Words__AdminReply *r) {
    struct heard *h = arg;
    h->replies++;
    h->last = r->last;
    h->error = r->has_error ? r->error : 0;
    if (r->has_text && r->text.len < 20)
        span_copy(frame_span(r->text), h->texts + strlen(h->texts), 20);
    if (h->cancel)
        ask_cancel(h->d, h->cancel);
}

static void put(struct ask_desk *d, uint64_t number, const char *text, bool last) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_text = r.has_last = true;
    r.text = frame_bytes(span_of(text));
    r.last = last;
    ask_put(d, number, &r);
}

static void on_stop(void *arg) {
    loop_stop(arg);
}

static void turn(struct loop *l) {
    struct loop_timer *t = loop_timer_new(l, on_stop, l);
    loop_timer_set(t, 20);
    loop_run(l);
    loop_timer_close(t);
}

static void test_order(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct ask_desk *d;
    assert_int_equal(ask_desk_new(&d, l), ERR_OK);
    struct heard a = {.d = d}, b = {.d = d};
    a.number = ask_begin(d, on_reply, &a);
    b.number = ask_begin(d, on_reply, &b);
    assert_true(a.number && b.number && a.number != b.number);
    put(d, a.number, "one ", false);
    put(d, b.number, "x ", true);
    put(d, a.number, "two ", false);
    put(d, 999, "nobody", true);
    assert_int_equal(a.replies + b.replies, 0); /* not inside */
    turn(l);
    assert_string_equal(a.texts, "one two ");
    assert_false(a.last);
    assert_true(b.last);
    put(d, b.number, "late", true); /* b has ended */
    put(d, a.number, "three", true);
    put(d, a.number, "four", true);
    turn(l);
    assert_string_equal(a.texts, "one two three");
    assert_int_equal(b.replies, 1);
    ask_desk_free(d);
    loop_free(l);
}

static void test_cancel(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct ask_desk *d;
    assert_int_equal(ask_desk_new(&d, l), ERR_OK);
    struct heard a = {.d = d}, b = {.d = d}, c = {.d = d};
    a.number = a.cancel = ask_begin(d, on_reply, &a); /* ends itself */
    b.number = ask_begin(d, on_reply, &b);
    c.number = ask_begin(d, on_reply, &c);
    a.cancel = a.number;
    put(d, a.number, "1", false);
    put(d, a.number, "2", false);
    put(d, b.number, "1", false);
    b.cancel = c.number; /* b ends c */
    put(d, c.number, "1", true);
    turn(l);
    assert_int_equal(a.replies, 1);
    assert_int_equal(b.replies, 1);
    assert_int_equal(c.replies, 0);
    ask_cancel(d, 12345);
    for (unsigned i = 0; i < ASK_MAX - 1; i++) /* b still waits */
        assert_true(ask_begin(d, on_reply, &c) != 0);
    assert_true(ask_begin(d, on_reply, &c) == 0);
    ask_desk_free(d); /* with questions open */
    loop_free(l);
}

static void test_too_much(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct ask_desk *d;
    char *long_text = malloc(1024 * 1024 + 1);
    assert_non_null(long_text);
    memset(long_text, 'x', 1024 * 1024);
    long_text[1024 * 1024] = '\0';
    assert_int_equal(ask_desk_new(&d, l), ERR_OK);
    struct heard a = {.d = d};
    a.number = ask_begin(d, on_reply, &a);
    for (unsigned i = 0; i < 20; i++)
        put(d, a.number, long_text, false);
    turn(l);
    assert_true(a.last);
    assert_int_equal(a.error, (unsigned)-ERR_FULL);
    assert_int_equal(a.replies, 16);
    ask_desk_free(d);
    loop_free(l);
    free(long_text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
