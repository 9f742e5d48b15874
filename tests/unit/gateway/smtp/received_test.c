/* received: the form of the header, and that nothing hostile adds a line or leaves a comment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/smtp/received.h"

static struct received sample(void) {
    return (struct received){.helo = SPAN("client.example"),
                             .client = SPAN("192.0.2.1"),
                             .by = SPAN("mx.example"),
                             .with = SPAN("ESMTP"),
                             .id = SPAN("0ABC"),
                             .recipient = SPAN("x@y.example"),
                             .wall_ms = 1795507200000};
}

static void check(const struct received *r, const char *text) {
    struct buf to;
    buf_init(&to, RECEIVED_MAX);
    assert_int_equal(received_write(r, &to), ERR_OK);
    assert_string_equal(buf_cstr(&to), text);
    buf_deinit(&to);
}

static void test_form(void **state) {
    struct received r = sample();
    (void)state;
    check(&r, "Received: from client.example ([192.0.2.1])\r\n\tby mx.example (Posthouse) with ESMTP id 0ABC\r\n"
              "\tfor <x@y.example>;\r\n\tTue, 24 Nov 2026 08:00:00 +0000\r\n");
    r.recipient = SPAN_EMPTY;
    r.client = SPAN("2001:db8::1");
    check(&r,
          "Received: from client.example ([IPv6:2001:db8::1])\r\n\tby mx.example (Posthouse) with ESMTP id 0ABC;\r\n"
          "\tTue, 24 Nov 2026 08:00:00 +0000\r\n");
}

static void test_protocols(void **state) {
    (void)state;
    assert_true(span_eq(received_protocol(false, false, false, false), SPAN("SMTP")));
    assert_true(span_eq(received_protocol(true, false, false, false), SPAN("ESMTP")));
    assert_true(span_eq(received_protocol(true, true, false, false), SPAN("ESMTPS")));
    assert_true(span_eq(received_protocol(true, false, true, false), SPAN("ESMTPA")));
    assert_true(span_eq(received_protocol(true, true, true, false), SPAN("ESMTPSA")));
    assert_true(span_eq(received_protocol(true, false, false, true), SPAN("UTF8SMTP")));
    assert_true(span_eq(received_protocol(true, true, true, true), SPAN("UTF8SMTPSA")));
}

/* Whatever octets the name holds: the header keeps its four lines and its parentheses. */
static void test_hostile_values(void **state) {
    char helo[300], rcpt[320];
    struct received r = sample();
    struct buf to;
    (void)state;
    for (size_t i = 0; i < sizeof helo; i++)
        helo[i] = (char)(i & 0xff);
    for (size_t i = 0; i < sizeof rcpt; i++)
        rcpt[i] = (char)(i & 0x1f);
    buf_init(&to, RECEIVED_MAX);
    for (size_t from = 0; from < 256; from++) {
        r.helo = span_make(helo + from, sizeof helo - from);
        r.recipient = span_make(rcpt, sizeof rcpt);
        buf_clear(&to);
        assert_int_equal(received_write(&r, &to), ERR_OK);
        unsigned cr = 0, lf = 0, open = 0, shut = 0;
        struct span all = buf_span(&to);
        for (size_t i = 0; i < all.len; i++) {
            char c = all.at[i];
            cr += c == '\r';
            lf += c == '\n';
            open += c == '(';
            shut += c == ')';
            assert_true(c == '\r' || c == '\n' || c == '\t' || (c >= 0x20 && c < 0x7f));
        }
        assert_int_equal(cr, 4);
        assert_int_equal(lf, 4);
        assert_int_equal(open, 2);
        assert_int_equal(shut, 2);
    }
    buf_deinit(&to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_hostile_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
