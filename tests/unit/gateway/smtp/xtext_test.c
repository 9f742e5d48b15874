/* xtext: what decodes, and what must never reach a header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway/smtp/xtext.h"

static void check(struct span in, bool utf8, int err, const char *text) {
    struct arena mem;
    struct span out = SPAN_EMPTY;
    arena_init(&mem, 512, 0);
    assert_int_equal(xtext_decode(in, utf8, &mem, &out), err);
    if (text)
        assert_true(span_eq(out, span_of(text)));
    arena_deinit(&mem);
}

static void test_decodes(void **state) {
    (void)state;
    check(SPAN("plain@x.example"), false, ERR_OK, "plain@x.example");
    check(SPAN("a+2Bb+3Dc+20d"), false, ERR_OK, "a+b=c d");
    check(SPAN_EMPTY, false, ERR_OK, "");
    check(SPAN("\xc3\xa9"), true, ERR_OK, "\xc3\xa9");
}

static void test_refuses(void **state) {
    static const char *const bad[] = {"a b",   "a=b",   "+2b",   "+",     "+4",    "+4G",  "a+0Ab",
                                      "a+0Db", "a+00b", "a+7Fb", "a+1Bb", "a+85b", "a\tb", "\xc3\xa9"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check(span_of(bad[i]), false, ERR_INVALID, NULL);
    check(SPAN("\xc3"), true, ERR_INVALID, NULL);
    check(SPAN("\xc2\x85"), true, ERR_INVALID, NULL);
    check(SPAN("\xe2\x80\xa8"), true, ERR_INVALID, NULL);
    check(SPAN("\xe2\x80\xae"), true, ERR_INVALID, NULL);
}

/* No escape decodes to a control or to an octet that is not ASCII. */
static void test_all_escapes(void **state) {
    (void)state;
    for (int i = 0; i < 256; i++) {
        char in[8];
        snprintf(in, sizeof in, "+%02X", i);
        check(span_of(in), true, i >= 0x20 && i <= 0x7e ? ERR_OK : ERR_INVALID, NULL);
    }
}

static void test_no_memory(void **state) {
    struct arena mem;
    struct span out;
    char in[1000];
    (void)state;
    memset(in, 'x', sizeof in);
    arena_init(&mem, 256, 300);
    assert_int_equal(xtext_decode(span_make(in, sizeof in), false, &mem, &out), ERR_NOMEM);
    arena_deinit(&mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decodes),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_all_escapes),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
