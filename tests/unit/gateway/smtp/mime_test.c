/* Conversion to 7 bit: what MIME allows is converted, what it does not is refused, and nothing 8-bit ever comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/smtp/mime.h"

static void expect(const char *in, const char *out) {
    struct buf b;
    const char *why;
    buf_init(&b, 1 << 20);
    assert_int_equal(mime_to_7bit(span_of(in), &b, &why), ERR_OK);
    assert_string_equal(why, "");
    assert_string_equal(buf_cstr(&b), out);
    assert_false(mime_has_8bit(buf_span(&b)));
    buf_deinit(&b);
}

static void refuse(const char *in, int err) {
    struct buf b;
    const char *why;
    buf_init(&b, 1 << 20);
    assert_int_equal(mime_to_7bit(span_of(in), &b, &why), err);
    assert_true(strlen(why) > 0);
    buf_deinit(&b);
}

#define E "\xc3\xa9"
#define Q "=C3=A9"
#define V "MIME-Version: 1.0\r\n"
#define TEXT8 "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
#define TEXTQ "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
#define LONG "this is a line of some length"

static void test_single(void **state) {
    (void)state;
    expect(V TEXT8 "\r\n" LONG E "\r\n", V TEXTQ "\r\n" LONG Q "\r\n");
    expect("content-transfer-encoding:\r\n\t (what) 8BIT\r\n" V "Content-Type: text/plain\r\n\r\n" LONG E,
           "Content-Transfer-Encoding: quoted-printable\r\n" V "Content-Type: text/plain\r\n\r\n" LONG Q);
    expect(V "Content-Type: text/plain\r\n\r\n" LONG E " \r\n.= \t\r\n",
           V "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" LONG Q
             "=20\r\n.=3D =09\r\n");
    expect(V "\r\n" LONG E, V "Content-Transfer-Encoding: quoted-printable\r\n\r\n" LONG Q);
    /* pure ASCII stays what it is, labels and all */
    expect(V TEXT8 "\r\nhello\r\n", V TEXT8 "\r\nhello\r\n");
    expect("", "");
    /* not MIME: labelled (RFC 1428) */
    expect("Subject: x\r\n\r\n" LONG E "\r\n",
           "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
           "Content-Transfer-Encoding: quoted-printable\r\n\r\n" LONG Q "\r\n");
    expect("\r\n" LONG E, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
                          "Content-Transfer-Encoding: quoted-printable\r\n\r\n" LONG Q);
}

static void test_base64(void **state) {
    (void)state;
    expect(V "Content-Type: image/x; name=\"a;b\"\r\nContent-Transfer-Encoding: binary\r\n\r\n" E "a",
           V "Content-Type: image/x; name=\"a;b\"\r\nContent-Transfer-Encoding: base64\r\n\r\nw6lh\r\n");
    struct buf b;
    buf_init(&b, 4096);
    static const char *const rows[][2] = {
        {"", ""}, {"f", "Zg==\r\n"}, {"fo", "Zm8=\r\n"}, {"foo", "Zm9v\r\n"}, {"foob", "Zm9vYg==\r\n"}};
    for (size_t i = 0; i < 5; i++) {
        buf_clear(&b);
        mime_add_base64(&b, span_of(rows[i][0]));
        assert_string_equal(buf_cstr(&b), rows[i][1]);
    }
    char many[58];
    memset(many, 'a', 58);
    buf_clear(&b);
    mime_add_base64(&b, span_make(many, 58));
    assert_int_equal(buf_len(&b), 78 + 6);
    buf_deinit(&b);
}

static void test_qp_lines(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 16);
    for (size_t len = 1; len < 400; len++) {
        char text[400];
        for (size_t i = 0; i < len; i++)
            text[i] = i % 7 == 3 ? '\xe9' : i % 11 == 5 ? ' ' : 'x';
        buf_clear(&b);
        mime_add_qp(&b, span_make(text, len));
        struct span out = buf_span(&b);
        /* every line short, and decoding gives the source */
        size_t line = 0, n = 0;
        for (size_t i = 0; i < out.len; i++) {
            if (out.at[i] == '=' && out.at[i + 1] == '\r') {
                assert_true(line + 1 <= 76);
                line = 0;
                i += 2;
                continue;
            }
            char c = out.at[i];
            line += c == '=' ? 3 : 1;
            if (c == '=') {
                char hex[3] = {out.at[i + 1], out.at[i + 2], 0};
                c = (char)strtol(hex, NULL, 16);
                i += 2;
            }
            assert_int_equal(c, text[n++]);
        }
        assert_int_equal(n, len);
        assert_true(line <= 76);
    }
    buf_clear(&b);
    mime_add_qp(&b, SPAN("a\rb\nc\r\nd\r"));
    assert_string_equal(buf_cstr(&b), "a=0Db=0Ac\r\nd=0D");
    buf_deinit(&b);
}

#define MULTI(type) V "Content-Type: multipart/" type "; boundary=\"b 1\"\r\n"

static void test_multipart(void **state) {
    (void)state;
    expect(MULTI("mixed") "Content-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n--b 1\r\n" TEXT8 "\r\n" LONG E
                          "\r\n--b 1 \t\r\n\r\nplain\r\n"
                          "--b 1x\r\n--b 1--\r\nepilogue\r\n",
           MULTI("mixed") "Content-Transfer-Encoding: 7bit\r\n\r\npreamble\r\n--b 1\r\n" TEXTQ "\r\n" LONG Q
                          "\r\n--b 1 \t\r\n\r\nplain\r\n"
                          "--b 1x\r\n--b 1--\r\nepilogue\r\n");
    /* multipart in multipart, without Content-Transfer-Encoding of their own */
    expect(
        MULTI(
            "mixed") "\r\n--b 1\r\nContent-Type: multipart/alternative; boundary=in(comment)\r\n\r\n--in\r\n\r\n" LONG E
                     "\r\n--in--\r\n--b 1--",
        MULTI("mixed") "\r\n--b 1\r\nContent-Type: multipart/alternative; "
                       "boundary=in(comment)\r\n\r\n--in\r\nContent-Transfer-Encoding: "
                       "quoted-printable\r\n\r\n" LONG Q "\r\n--in--\r\n--b 1--");
    /* empty parts */
    expect(MULTI("mixed") "\r\n--b 1\r\n--b 1\r\n\r\n" LONG E "\r\n--b 1--",
           MULTI("mixed") "\r\n--b 1\r\n--b 1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" LONG Q
                          "\r\n--b 1--");
}

static void test_messages(void **state) {
    (void)state;
    expect(V "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: in\r\n" V TEXT8
             "\r\n" LONG E,
           V "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: in\r\n" V TEXTQ
             "\r\n" LONG Q);
    expect(MULTI("digest") "\r\n--b 1\r\n\r\nSubject: in\r\n" V TEXT8 "\r\n" LONG E "\r\n--b 1--",
           MULTI("digest") "\r\n--b 1\r\n\r\nSubject: in\r\n" V TEXTQ "\r\n" LONG Q "\r\n--b 1--");
    refuse(V "Content-Type: message/partial; id=x\r\n\r\n" E, ERR_UNSUPPORTED);
    refuse(V "Content-Type: message/delivery-status\r\n\r\n" E, ERR_UNSUPPORTED);
    refuse(V "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" E, ERR_INVALID);
}

static void test_sealed(void **state) {
    (void)state;
    refuse(MULTI("signed") "\r\n--b 1\r\n" TEXT8 "\r\n" E "\r\n--b 1--", ERR_UNSUPPORTED);
    refuse(MULTI("encrypted") "\r\n--b 1\r\n" TEXT8 "\r\n" E "\r\n--b 1--", ERR_UNSUPPORTED);
    refuse(V "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n" E, ERR_UNSUPPORTED);
    refuse(V "Content-Type: Application/X-PKCS7-MIME\r\nContent-Transfer-Encoding: binary\r\n\r\n" E, ERR_UNSUPPORTED);
    refuse(MULTI("mixed") "\r\n--b 1\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n" E
                          "\r\n--s--\r\n--b 1--",
           ERR_UNSUPPORTED);
    /* a signed part that is 7 bit stays as it is, beside one that is converted */
    expect(MULTI("mixed") "\r\n--b 1\r\nContent-Type: multipart/signed; boundary=s\r\nContent-Transfer-Encoding: "
                          "8bit\r\n\r\n--s\r\n\r\nx"
                          "\r\n--s--\r\n--b 1\r\n\r\n" LONG E "\r\n--b 1--",
           MULTI("mixed") "\r\n--b 1\r\nContent-Type: multipart/signed; boundary=s\r\nContent-Transfer-Encoding: "
                          "8bit\r\n\r\n--s\r\n\r\nx"
                          "\r\n--s--\r\n--b 1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" LONG Q
                          "\r\n--b 1--");
}

static void test_malformed(void **state) {
    (void)state;
    refuse("Subject: " E "\r\n\r\nx", ERR_INVALID);
    refuse(V "Content-Type: text\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Type: text/plain; charset\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Type: text/plain; charset=\"x\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Type: text/plain (x\r\n\r\n" E, ERR_INVALID);
    refuse(V TEXT8 "Content-Type: text/html\r\n\r\n" E, ERR_INVALID);
    refuse(V TEXT8 "Content-Transfer-Encoding: 8bit\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Transfer-Encoding: base64\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Transfer-Encoding: quoted-printable\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Transfer-Encoding: x-own\r\n\r\n" E, ERR_INVALID);
    refuse("Content-Type: text/plain\r\n\r\n" E, ERR_INVALID);
    refuse(V "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n" E "\r\n--b--", ERR_INVALID);
    refuse(V "Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--b\r\n\r\n" E "\r\n--b--", ERR_INVALID);
    refuse(V "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\n" E "\r\n----", ERR_INVALID);
    refuse(MULTI("mixed") "\r\n" E, ERR_INVALID);
    refuse(MULTI("mixed") "\r\n--b 1--\r\n" E, ERR_INVALID);
    refuse(MULTI("mixed") "\r\n--b 1\r\n\r\n" E, ERR_INVALID);
    refuse(MULTI("mixed") "\r\n" E "\r\n--b 1\r\n\r\nx\r\n--b 1--", ERR_INVALID);
    refuse(MULTI("mixed") "\r\n--b 1\r\n\r\nx\r\n--b 1--"
                          "\r\n" E,
           ERR_INVALID);
    refuse(MULTI("mixed") "Content-Transfer-Encoding: quoted-printable\r\n\r\n--b 1\r\n\r\n" E "\r\n--b 1--",
           ERR_INVALID);
    /* the outer boundary inside an open inner multipart ends it: the inner one lacks its end */
    refuse(MULTI("mixed") "\r\n--b 1\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\n" E
                          "\r\n--b 1--\r\n--in--",
           ERR_INVALID);
}

static void test_bounds(void **state) {
    (void)state;
    struct buf b;
    const char *why;
    /* nested deeper than anybody needs */
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 100; i++)
        buf_add(&b, SPAN(V "Content-Type: message/rfc822\r\n\r\n"));
    buf_add(&b, SPAN(E));
    char *deep = strdup(buf_cstr(&b));
    refuse(deep, ERR_INVALID);
    free(deep);
    buf_deinit(&b);
    /* no room for the result */
    buf_init(&b, 64);
    assert_int_equal(mime_to_7bit(SPAN(V TEXT8 "\r\n" LONG E), &b, &why), ERR_FULL);
    assert_true(strlen(why) > 0);
    buf_deinit(&b);
    buf_init(&b, 64);
    assert_int_equal(mime_to_7bit(span_make("", (size_t)MIME_MESSAGE_MAX + 1), &b, &why), ERR_RANGE);
    buf_deinit(&b);
    assert_true(mime_has_8bit_header(SPAN("a: " E "\r\n\r\nb")));
    assert_false(mime_has_8bit_header(SPAN("a: b\r\n\r\n" E)));
    assert_false(mime_has_8bit_header(SPAN("\r\n" E)));
    assert_true(mime_has_8bit_header(SPAN("a: " E)));
    assert_false(mime_has_8bit_header(SPAN_EMPTY));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),    cmocka_unit_test(test_base64),   cmocka_unit_test(test_qp_lines),
        cmocka_unit_test(test_multipart), cmocka_unit_test(test_messages), cmocka_unit_test(test_sealed),
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
