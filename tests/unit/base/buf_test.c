/* buf: growth up to the maximum, the sticky error, consuming, formatted and escaped appends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"

static void assert_text(const struct buf *b, const char *text) {
    struct span s = buf_span(b);
    if (!span_eq(s, span_of(text)))
        fail_msg("got \"%.*s\", expected \"%s\"", SPAN_FMT(s), text);
}

static void appends_and_consumes(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(buf_len(&b), 0);
    assert_string_equal(buf_cstr(&b), "");
    assert_int_equal(buf_append(&b, NULL, 0), ERR_OK);
    assert_null(b.mem);
    assert_int_equal(buf_add(&b, SPAN("hello ")), ERR_OK);
    buf_add_str(&b, "world");
    buf_add_byte(&b, '!');
    buf_add_u64(&b, 0);
    buf_add_u64(&b, UINT64_MAX);
    assert_text(&b, "hello world!018446744073709551615");
    buf_consume(&b, 6);
    buf_truncate(&b, 6);
    assert_text(&b, "world!");
    assert_string_equal(buf_cstr(&b), "world!");
    buf_printf(&b, "%s-%d", "abc", 42);
    assert_text(&b, "world!abc-42");
    buf_consume(&b, buf_len(&b));
    assert_int_equal(b.start, 0);
    buf_deinit(&b);
    assert_int_equal(b.max, 1000);
}

static void never_grows_over_its_maximum(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(buf_add_byte(&b, 'x'), ERR_OK);
    assert_int_equal(buf_add_byte(&b, 'y'), ERR_FULL);
    assert_int_equal(buf_len(&b), 100);
    buf_consume(&b, 50);
    assert_int_equal(buf_add_byte(&b, 'y'), ERR_FULL); /* the first error stays */
    assert_null(buf_reserve(&b, 1));
    assert_int_equal(buf_printf(&b, "z"), ERR_FULL);
    assert_int_equal(buf_len(&b), 50);
    buf_clear(&b);
    assert_int_equal(buf_add_byte(&b, 'y'), ERR_OK);
    assert_text(&b, "y");
    buf_deinit(&b);
    buf_init(&b, 10);
    assert_int_equal(buf_printf(&b, "%s", "12345678901"), ERR_FULL);
    assert_int_equal(buf_len(&b), 0);
    buf_clear(&b);
    assert_int_equal(buf_printf(&b, "%s", "1234567890"), ERR_OK);
    assert_text(&b, "1234567890");
    assert_string_equal(buf_cstr(&b), "1234567890");
    buf_deinit(&b);
}

static void a_row_of_consumes_keeps_the_bytes_in_order(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 64);
    unsigned char in = 0, out = 0;
    for (int i = 0; i < 10000; i++) {
        size_t put = (size_t)(i * 7 % 23);
        if (put > 64 - buf_len(&b))
            put = 64 - buf_len(&b);
        for (size_t k = 0; k < put; k++)
            assert_int_equal(buf_add_byte(&b, (char)in++), ERR_OK);
        size_t take = (size_t)(i * 5 % 17);
        if (take > buf_len(&b))
            take = buf_len(&b);
        for (size_t k = 0; k < take; k++)
            assert_int_equal((unsigned char)buf_span(&b).at[k], out++);
        buf_consume(&b, take);
        assert_true(b.cap <= 64);
    }
    buf_deinit(&b);
}

static void reserves_and_commits(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 4096);
    char *to = buf_reserve(&b, 4096);
    assert_non_null(to);
    memset(to, 'a', 4096);
    buf_commit(&b, 4096);
    assert_int_equal(buf_len(&b), 4096);
    buf_consume(&b, 4000);
    to = buf_reserve(&b, 4000); /* shifts instead of growing */
    assert_non_null(to);
    assert_int_equal(b.cap, 4096);
    assert_int_equal(b.start, 0);
    assert_null(buf_reserve(&b, 4001));
    assert_int_equal(b.err, ERR_FULL);
    buf_deinit(&b);
}

static void hostile_bytes_become_visible(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_add_escaped(&b, SPAN("a\r\n\x1b[0m\\ \x7f\0z"));
    assert_text(&b, "a\\x0d\\x0a\\x1b[0m\\\\ \\x7f\\x00z");
    buf_clear(&b);
    buf_add_escaped(&b, SPAN("gr\xc3\xbc\xc3\x9f\xe2\x82\xac \xc2\x9b \xe2\x80\xae \xff\xc3"));
    assert_text(&b, "gr\xc3\xbc\xc3\x9f\xe2\x82\xac \\xc2\\x9b \\xe2\\x80\\xae \\xff\\xc3");
    buf_clear(&b);
    buf_add_json(&b, SPAN("q\"b\\n\n\x01\xff\xc3\xbc\x1f"));
    assert_text(&b, "q\\\"b\\\\n\\n\\u0001\xef\xbf\xbd\xc3\xbc\\u001f");
    buf_deinit(&b);
    buf_init(&b, 5);
    assert_int_equal(buf_add_escaped(&b, SPAN("abc\n")), ERR_FULL);
    assert_text(&b, "abc");
    buf_deinit(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_and_consumes),
        cmocka_unit_test(never_grows_over_its_maximum),
        cmocka_unit_test(a_row_of_consumes_keeps_the_bytes_in_order),
        cmocka_unit_test(reserves_and_commits),
        cmocka_unit_test(hostile_bytes_become_visible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
