/* span: comparing, cutting and numbers, with empty and NULL spans at every edge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/span.h"

static void compares(void **state) {
    (void)state;
    assert_true(span_eq(SPAN_EMPTY, SPAN("")));
    assert_true(span_eq(span_of("abc"), SPAN("abc")));
    assert_false(span_eq(SPAN("abc"), SPAN("abd")));
    assert_false(span_eq(SPAN("abc"), SPAN("ab")));
    assert_true(span_eq_nocase(SPAN("aBC.@z[Z"), SPAN("Abc.@Z[z")));
    assert_false(span_eq_nocase(SPAN("@"), SPAN("`"))); /* differ in the case bit only, but are no letters */
    assert_false(span_eq_nocase(SPAN("\xc3\x84"), SPAN("\xc3\xa4")));
    assert_true(span_cmp(SPAN("a"), SPAN("ab")) < 0);
    assert_true(span_cmp(SPAN("b"), SPAN("ab")) > 0);
    assert_true(span_cmp(SPAN("\x80"), SPAN("a")) > 0);
    assert_int_equal(span_cmp(SPAN_EMPTY, SPAN("")), 0);
    assert_true(span_starts_nocase(SPAN("MAIL FROM:<a>"), SPAN("mail from:")));
    assert_false(span_starts_nocase(SPAN("MA"), SPAN("mail")));
    assert_true(span_ends_nocase(SPAN("a.Example.NET"), SPAN(".example.net")));
    assert_false(span_ends_nocase(SPAN("net"), SPAN(".net")));
}

static void finds_and_cuts(void **state) {
    (void)state;
    struct span rest;
    assert_int_equal(span_find(SPAN("a@b@c"), '@'), 1);
    assert_int_equal(span_rfind(SPAN("a@b@c"), '@'), 3);
    assert_int_equal(span_find(SPAN_EMPTY, '@'), -1);
    assert_int_equal(span_rfind(SPAN("abc"), '@'), -1);
    assert_true(span_eq(span_cut(SPAN("a@b@c"), '@', &rest), SPAN("a")));
    assert_true(span_eq(rest, SPAN("b@c")));
    assert_true(span_eq(span_cut(SPAN("abc"), '@', &rest), SPAN("abc")));
    assert_int_equal(rest.len, 0);
    assert_int_equal(span_cut(SPAN_EMPTY, '@', &rest).len, 0);
    assert_true(span_eq(span_trim(SPAN(" \t a b\t ")), SPAN("a b")));
    assert_int_equal(span_trim(SPAN(" \t ")).len, 0);
    assert_int_equal(span_from(SPAN("abc"), 9).len, 0);
    assert_true(span_eq(span_first(SPAN("abc"), 9), SPAN("abc")));
    assert_int_equal(span_of(NULL).len, 0);
}

static void reads_numbers(void **state) {
    (void)state;
    uint64_t n = 7;
    assert_true(span_u64(SPAN("18446744073709551615"), &n));
    assert_true(n == UINT64_MAX);
    assert_true(span_u64(SPAN("007"), &n));
    assert_int_equal(n, 7);
    static const char *const bad[] = {"",  "18446744073709551616", "99999999999999999999", "-1", "+1", "1 ", "0x1",
                                      "1a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(span_u64(span_of(bad[i]), &n));
    assert_int_equal(n, 7);
}

static void copies_with_a_bound(void **state) {
    (void)state;
    char to[4] = "xxx";
    assert_int_equal(span_copy(SPAN("abcdef"), to, sizeof to), 3);
    assert_string_equal(to, "abc");
    assert_int_equal(span_copy(SPAN_EMPTY, to, sizeof to), 0);
    assert_string_equal(to, "");
    assert_int_equal(span_copy(SPAN("a"), to, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares),
        cmocka_unit_test(finds_and_cuts),
        cmocka_unit_test(reads_numbers),
        cmocka_unit_test(copies_with_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
