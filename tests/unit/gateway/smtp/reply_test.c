/* Replies as servers send them, and as hostile ones do: one clean line, bounded memory, no wrong guess. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/smtp/reply.h"

static enum reply_status feed_all(struct reply_parser *p, const char *text) {
    enum reply_status status;
    size_t used = reply_feed(p, span_of(text), &status);
    assert_int_equal(used, strlen(text));
    return status;
}

static void expect(const char *in, enum reply_status status, unsigned code, const char *enhanced, const char *text) {
    struct reply_parser p;
    reply_init(&p);
    assert_int_equal(feed_all(&p, in), status);
    assert_int_equal(p.reply.code, code);
    assert_string_equal(p.reply.enhanced, enhanced);
    assert_string_equal(p.reply.text, text);
    assert_int_equal(p.reply.text_len, strlen(text));
    /* the same octet by octet */
    reply_init(&p);
    enum reply_status last = REPLY_MORE;
    for (size_t i = 0; in[i]; i++) {
        assert_int_equal(last, REPLY_MORE);
        assert_int_equal(reply_feed(&p, span_make(in + i, 1), &last), 1);
    }
    assert_int_equal(last, status);
    assert_int_equal(p.reply.code, code);
    assert_string_equal(p.reply.text, text);
}

static void test_plain(void **state) {
    (void)state;
    expect("250 ok\r\n", REPLY_DONE, 250, "", "ok");
    expect("250\r\n", REPLY_DONE, 250, "", "");
    expect("250 \r\n", REPLY_DONE, 250, "", "");
    expect("250 ok\n", REPLY_DONE, 250, "", "ok");
    expect("550 5.1.1 no such user\r\n", REPLY_DONE, 550, "5.1.1", "5.1.1 no such user");
    expect("220-one\r\n220-two\r\n220 three\r\n", REPLY_DONE, 220, "", "one two three");
    expect("550-5.7.1 first\r\n550 5.7.1 second\r\n", REPLY_DONE, 550, "5.7.1", "5.7.1 first second");
    expect("550-5.7.1 first\r\n550 5.7.2 second\r\n", REPLY_DONE, 550, "5.7.1", "5.7.1 first 5.7.2 second");
    expect("850 what\r\n", REPLY_DONE, 850, "", "what");
    expect("250-a\r\n251 b\r\n", REPLY_DONE, 251, "", "a b");
}

static void test_enhanced(void **state) {
    (void)state;
    size_t len;
    assert_true(reply_enhanced(SPAN("5.1.1 x"), 550, &len) && len == 5);
    assert_true(reply_enhanced(SPAN("4.999.100"), 450, &len) && len == 9);
    assert_true(reply_enhanced(SPAN("2.0.0"), 250, &len));
    static const char *const bad[] = {"5.1.1",    "4.1",   "4..1",    "4.1.", "4.1.1x", "4.1000.1",
                                      "4.1.1000", "4 1 1", "4.1.1.1", "",     "."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(reply_enhanced(span_of(bad[i]), 450, &len));
    assert_false(reply_enhanced(SPAN("3.1.1"), 354, &len));
    expect("450 5.1.1 other class\r\n", REPLY_DONE, 450, "", "5.1.1 other class");
}

static void test_not_a_reply(void **state) {
    (void)state;
    expect("hello\r\n", REPLY_BROKEN, 0, "", "not a reply: hello");
    expect("\r\n", REPLY_BROKEN, 0, "", "not a reply: ");
    expect("25 ok\r\n", REPLY_BROKEN, 0, "", "not a reply: 25 ok");
    expect("2500 ok\r\n", REPLY_BROKEN, 0, "", "not a reply: 2500 ok");
    expect("-50 ok\r\n", REPLY_BROKEN, 0, "", "not a reply: -50 ok");
    expect("250-ok\r\n550 no\r\n", REPLY_BROKEN, 0, "", "reply with mixed codes: 550 no");
    expect("250-ok\r\nno\r\n", REPLY_BROKEN, 0, "", "not a reply: no");
}

static void test_hostile_octets(void **state) {
    (void)state;
    struct reply_parser p;
    enum reply_status status;
    reply_init(&p);
    static const char in[] = "550 a\0b\x1b[31m\xff\xc3\xa9\tx\ry\r\n";
    assert_int_equal(reply_feed(&p, span_make(in, sizeof in - 1), &status), sizeof in - 1);
    assert_int_equal(status, REPLY_DONE);
    assert_string_equal(p.reply.text, "a?b?[31m??? x?y");
}

static void test_long_line_is_cut(void **state) {
    (void)state;
    struct reply_parser p;
    enum reply_status status = REPLY_MORE;
    reply_init(&p);
    char line[5000];
    memset(line, 'x', sizeof line);
    memcpy(line, "450-", 4);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    reply_feed(&p, span_make(line, sizeof line), &status);
    assert_int_equal(status, REPLY_MORE);
    assert_int_equal(feed_all(&p, "450 end\r\n"), REPLY_DONE);
    assert_int_equal(p.reply.code, 450);
    assert_int_equal(p.reply.text_len, REPLY_LINE_MAX - 4 + 4);
    /* in small steps the same */
    reply_init(&p);
    for (size_t at = 0; at < sizeof line; at += 100)
        reply_feed(&p, span_make(line + at, 100), &status);
    assert_int_equal(feed_all(&p, "450 end\r\n"), REPLY_DONE);
    assert_int_equal(p.reply.text_len, REPLY_LINE_MAX - 4 + 4);
    /* many lines fill the text, and no more */
    reply_init(&p);
    for (int i = 0; i < 100; i++)
        assert_int_equal(feed_all(&p, "450-0123456789\r\n"), REPLY_MORE);
    assert_int_equal(feed_all(&p, "450 end\r\n"), REPLY_DONE);
    assert_int_equal(p.reply.text_len, REPLY_TEXT_MAX);
}

/* Feeds a pattern for ever; returns after how many octets the parser gave up. */
static size_t feed_for_ever(const char *pattern, const char *begins) {
    struct reply_parser p;
    reply_init(&p);
    for (size_t sum = 0; sum < 2000000;) {
        enum reply_status status;
        sum += reply_feed(&p, span_of(pattern), &status);
        if (status == REPLY_BROKEN) {
            assert_memory_equal(p.reply.text, begins, strlen(begins));
            assert_true(p.reply.text_len <= REPLY_TEXT_MAX);
            return sum;
        }
        assert_int_equal(status, REPLY_MORE);
    }
    fail_msg("the parser never gave up");
    return 0;
}

static void test_endless(void **state) {
    (void)state;
    assert_in_range(feed_for_ever("250-and on and on\r\n", "reply too long"), REPLY_OCTETS_MAX, REPLY_OCTETS_MAX + 100);
    assert_in_range(feed_for_ever("250 aaaaaaaaaaaaaaaaaaa", "reply too long: 250 aaaa"), REPLY_OCTETS_MAX,
                    REPLY_OCTETS_MAX + 100);
    /* one megabyte at once */
    char *big = malloc(1 << 20);
    memset(big, 'a', 1 << 20);
    memcpy(big, "250-", 4);
    struct reply_parser p;
    enum reply_status status;
    reply_init(&p);
    reply_feed(&p, span_make(big, 1 << 20), &status);
    assert_int_equal(status, REPLY_BROKEN);
    free(big);
}

static void test_pipelined(void **state) {
    (void)state;
    struct reply_parser p;
    enum reply_status status;
    reply_init(&p);
    struct span in = SPAN("250 one\r\n550-5.1.1 a\r\n550 b\r\n354 go");
    in = span_from(in, reply_feed(&p, in, &status));
    assert_int_equal(status, REPLY_DONE);
    assert_int_equal(p.reply.code, 250);
    in = span_from(in, reply_feed(&p, in, &status));
    assert_int_equal(p.reply.code, 550);
    assert_string_equal(p.reply.text, "5.1.1 a b");
    in = span_from(in, reply_feed(&p, in, &status));
    assert_int_equal(status, REPLY_MORE);
    assert_int_equal(feed_all(&p, "\r\n"), REPLY_DONE);
    assert_int_equal(p.reply.code, 354);
    assert_string_equal(p.reply.enhanced, "");
}

static void count_line(void *arg, uint32_t number, struct span text) {
    char *to = arg;
    assert_int_equal(number, strlen(to) / 2);
    strncat(to, text.at, 2);
}

static void test_lines(void **state) {
    (void)state;
    char seen[64] = "";
    struct reply_parser p;
    reply_init(&p);
    p.on_line = count_line;
    p.arg = seen;
    assert_int_equal(feed_all(&p, "250-aa\r\n250-bb\r\n250 cc\r\n"), REPLY_DONE);
    assert_string_equal(seen, "aabbcc");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_enhanced),
        cmocka_unit_test(test_not_a_reply),
        cmocka_unit_test(test_hostile_octets),
        cmocka_unit_test(test_long_line_is_cut),
        cmocka_unit_test(test_endless),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
