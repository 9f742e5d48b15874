/* base64: the vectors of RFC 4648, every length, and strictness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/rand.h"

static void as_in_the_rfc(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"},
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"},
                                          {"\xfb\xff\xbf", "+/+/"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b;
        buf_init(&b, 64);
        assert_int_equal(base64_encode(span_of(rows[i][0]), &b), ERR_OK);
        assert_string_equal(buf_cstr(&b), rows[i][1]);
        buf_clear(&b);
        assert_int_equal(base64_decode(span_of(rows[i][1]), &b), ERR_OK);
        assert_string_equal(buf_cstr(&b), rows[i][0]);
        buf_deinit(&b);
    }
}

static void there_and_back(void **state) {
    (void)state;
    struct rand r;
    struct buf text, back;
    rand_init(&r, 7);
    buf_init(&text, 1024);
    buf_init(&back, 1024);
    for (size_t len = 0; len < 300; len++) {
        char bytes[300];
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)rand_u64(&r);
        buf_clear(&text);
        buf_clear(&back);
        assert_int_equal(base64_encode(span_make(bytes, len), &text), ERR_OK);
        assert_int_equal(buf_len(&text), (len + 2) / 3 * 4);
        assert_int_equal(base64_decode(buf_span(&text), &back), ERR_OK);
        assert_true(span_eq(buf_span(&back), span_make(bytes, len)));
    }
    buf_deinit(&text);
    buf_deinit(&back);
}

/* Two texts never mean the same octets. */
static void anything_else_is_refused(void **state) {
    (void)state;
    static const char *const rows[] = {
        "A",       "AA",    "AAA",  "AAAAA", "====",     "A===",     "Zg=a",       "Zg==Zg==",
        "=Zg=",    "Zh==",  "Zm9=", "Zm 9v", "Zm9v\n",   "Zm9v\r\n", "Zm9_",       "Zm9-",
        "Zm\x80v", "Zg= =", "Z===", "AA=A",  "AAAA====", "AAAA=AAA", "Z\xc3\xa4v", " Zm9"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b;
        buf_init(&b, 64);
        assert_int_equal(base64_decode(span_of(rows[i]), &b), ERR_INVALID);
        buf_deinit(&b);
    }
    struct buf b;
    buf_init(&b, 64);
    assert_int_equal(base64_decode(SPAN("Zm\0v"), &b), ERR_INVALID);
    buf_deinit(&b);
}

static void only_one_text_for_each_octet(void **state) {
    (void)state;
    size_t good = 0;
    for (int a = 0; a < 256; a++) {
        for (int c = 0; c < 256; c++) {
            char text[4] = {(char)a, (char)c, '=', '='};
            struct buf b;
            buf_init(&b, 8);
            good += base64_decode(span_make(text, 4), &b) == ERR_OK;
            buf_deinit(&b);
        }
    }
    assert_int_equal(good, 256);
}

static void the_buffer_bounds_it(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 5);
    assert_int_equal(base64_encode(SPAN("abcd"), &b), ERR_FULL);
    buf_clear(&b);
    assert_int_equal(base64_decode(SPAN("Zm9vYmFy"), &b), ERR_FULL);
    buf_clear(&b);
    assert_int_equal(base64_decode(SPAN("Zm9vYmE="), &b), ERR_OK);
    assert_string_equal(buf_cstr(&b), "fooba");
    buf_deinit(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_in_the_rfc),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(only_one_text_for_each_octet),
        cmocka_unit_test(the_buffer_bounds_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
