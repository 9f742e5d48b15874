/* sts_policy: the texts of MTA-STS, as RFC 8461 sections 3.1, 3.2 and 4.1 have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "gateway/smtp/sts_policy.h"

static void test_records(void **state) {
    (void)state;
    static const struct {
        const char *txt;
        int err;
        const char *id;
    } cases[] = {
        {"v=STSv1; id=20160831085700Z;", ERR_OK, "20160831085700Z"},
        {"v=STSv1;id=a", ERR_OK, "a"},
        {"v=STSv1 \t; \tid=a \t; ", ERR_OK, "a"},
        {"v=STSv1; x-y.z_1=#a!; id=1;", ERR_OK, "1"},
        {"v=STSv1; id=12345678901234567890123456789012;", ERR_OK, "12345678901234567890123456789012"},
        {"v=STSv1; id=123456789012345678901234567890123;", ERR_INVALID, NULL},
        {"v=STSv1; id=;", ERR_INVALID, NULL},
        {"v=STSv1; id=a-b;", ERR_INVALID, NULL},
        {"v=STSv1; id=a; id=b;", ERR_INVALID, NULL},
        {"v=STSv1; id = a;", ERR_INVALID, NULL},
        {"v=STSv1; id=a;; x=y", ERR_INVALID, NULL},
        {"v=STSv1; id=a; junk", ERR_INVALID, NULL},
        {"v=STSv1; id=a; x=", ERR_INVALID, NULL},
        {"v=STSv1; id=a; _x=1", ERR_INVALID, NULL},
        {"v=STSv1;", ERR_INVALID, NULL},
        {"v=STSv1", ERR_NOT_FOUND, NULL},
        {"v=STSv12; id=a;", ERR_NOT_FOUND, NULL},
        {"v=stsv1; id=a;", ERR_NOT_FOUND, NULL},
        {" v=STSv1; id=a;", ERR_NOT_FOUND, NULL},
        {"v=TLSRPTv1; rua=mailto:a@b.example", ERR_NOT_FOUND, NULL},
        {"", ERR_NOT_FOUND, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span id;
        int err = sts_record_parse(span_of(cases[i].txt), &id);
        if (err != cases[i].err)
            fail_msg("%s: %d", cases[i].txt, err);
        if (cases[i].id)
            assert_true(span_eq(id, span_of(cases[i].id)));
    }
}

static struct sts_policy *parse(const char *text) {
    struct sts_policy *p;
    const char *why;
    assert_int_equal(sts_policy_parse(&p, span_of(text), SPAN("id1"), 1000, &why), ERR_OK);
    assert_string_equal(why, "");
    return p;
}

static void test_policy(void **state) {
    (void)state;
    struct sts_policy *p = parse("version: STSv1\r\nmode: enforce\r\nmx: Mail.Example.com\r\nmx:*.example.net \t\r\n"
                                 "\r\nmax_age: 604800\r\nextra_1: \xc3\xa9 : b");
    assert_int_equal(p->mode, STS_ENFORCE);
    assert_string_equal(p->id, "id1");
    assert_int_equal(p->max_age_s, 604800);
    assert_int_equal(p->fetched_ms, 1000);
    assert_int_equal(p->expires_ms, 604801000);
    assert_int_equal(p->mx_count, 2);
    assert_string_equal(p->mx[0], "mail.example.com");
    assert_string_equal(p->mx[1], "*.example.net");
    assert_int_equal(p->line_count, 6);
    assert_string_equal(p->lines[0], "version: STSv1");
    assert_string_equal(p->lines[3], "mx:*.example.net");
    assert_string_equal(p->lines[5], "extra_1: \xc3\xa9 : b");
    assert_ptr_equal(sts_policy_ref(p), p);
    sts_policy_unref(p);
    assert_int_equal(p->refs, 1);
    sts_policy_unref(p);
    sts_policy_unref(NULL);
    assert_null(sts_policy_ref(NULL));
    /* the first of a repeated field counts, even before a bad one; a year is the most */
    p = parse(
        "version: STSv1\nmode: testing\nmode: enforce\nmode: bad\nmx: a.example\nmax_age: 9999999999\nmax_age: x");
    assert_int_equal(p->mode, STS_TESTING);
    assert_int_equal(p->max_age_s, STS_MAX_AGE_S_MAX);
    sts_policy_unref(p);
    p = parse("max_age: 0\nmode: none\nversion: STSv1\n");
    assert_int_equal(p->mode, STS_NONE);
    assert_int_equal(p->expires_ms, p->fetched_ms);
    sts_policy_unref(p);
}

#define HEAD "version: STSv1\nmode: enforce\nmax_age: 1\n"

static void test_bad_policies(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "no version"},
        {"mode: enforce\nmx: a.example\nmax_age: 1", "no version"},
        {"version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1", "a version other than STSv1"},
        {"version: STSv1\nmx: a.example\nmax_age: 1", "no mode"},
        {"version: STSv1\nmode: Enforce\nmx: a.example\nmax_age: 1", "a bad mode"},
        {"version: STSv1\nmode: enforce\nmx: a.example", "no max_age"},
        {"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1", "a bad max_age"},
        {"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 10000000000", "a bad max_age"},
        {HEAD, "no mx"},
        {HEAD "mx: ", "a bad mx pattern"},
        {HEAD "mx: *", "a bad mx pattern"},
        {HEAD "mx: *.", "a bad mx pattern"},
        {HEAD "mx: *.*.example", "a bad mx pattern"},
        {HEAD "mx: a.*.example", "a bad mx pattern"},
        {HEAD "mx: .example", "a bad mx pattern"},
        {HEAD "mx: a..example", "a bad mx pattern"},
        {HEAD "mx: a.example.", "a bad mx pattern"},
        {HEAD "mx: -a.example", "a bad mx pattern"},
        {HEAD "mx: a b.example", "a bad mx pattern"},
        {HEAD "mx: b\xc3\xbc.example", "a bad mx pattern"},
        {HEAD "mx: a.example\n<html>", "a line that is no field"},
        {HEAD "mx: a.example\nx\x01: y", "control characters"},
        {HEAD "mx: a.example\rmx: b.example", "control characters"},
        {HEAD "mx: a.example\n: y", "a bad field name"},
        {HEAD "mx: a.example\nx y: z", "a bad field name"},
    };
    struct sts_policy *p;
    const char *why;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sts_policy_parse(&p, span_of(cases[i].text), SPAN("1"), 0, &why), ERR_INVALID);
        assert_null(p);
        assert_string_equal(why, cases[i].why);
    }
    assert_int_equal(sts_policy_parse(&p, SPAN(HEAD "mx: a.example"), SPAN("a b"), 0, &why), ERR_INVALID);
    assert_string_equal(why, "a bad id");
}

static void test_bounds(void **state) {
    (void)state;
    struct sts_policy *p;
    const char *why;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_add_str(&b, HEAD);
    for (unsigned i = 0; i < STS_MX_MAX; i++)
        buf_printf(&b, "mx: mx%u.example.com\n", i);
    assert_int_equal(sts_policy_parse(&p, buf_span(&b), SPAN("1"), 0, &why), ERR_OK);
    assert_int_equal(p->mx_count, STS_MX_MAX);
    assert_true(sts_allows(p, "mx499.example.com"));
    assert_false(sts_allows(p, "mx500.example.com"));
    sts_policy_unref(p);
    size_t full = buf_len(&b);
    buf_add_str(&b, "mx: one.more.example\n");
    assert_int_equal(sts_policy_parse(&p, buf_span(&b), SPAN("1"), 0, &why), ERR_INVALID);
    assert_string_equal(why, "too many mx patterns");
    buf_truncate(&b, full);
    for (unsigned i = 0; i < STS_LINES_MAX; i++)
        buf_add_str(&b, "a: b\n");
    assert_int_equal(sts_policy_parse(&p, buf_span(&b), SPAN("1"), 0, &why), ERR_INVALID);
    assert_string_equal(why, "too many lines");
    while (buf_len(&b) <= STS_TEXT_MAX)
        buf_add_str(&b, "a: b\n");
    assert_int_equal(sts_policy_parse(&p, buf_span(&b), SPAN("1"), 0, &why), ERR_RANGE);
    assert_string_equal(why, "too long");
    buf_deinit(&b);
}

static void test_hosts(void **state) {
    (void)state;
    struct sts_policy *p = parse("version: STSv1\nmode: enforce\nmax_age: 1\nmx: mail.example.com\nmx: *.Example.NET");
    static const char *const good[] = {"mail.example.com", "MAIL.Example.Com", "mail.example.com.", "a.example.net",
                                       "A.EXAMPLE.net."};
    static const char *const bad[] = {
        "example.com", "x.mail.example.com", "example.net",   "a.b.example.net", ".example.net",   "",
        ".",           "mail.example.com..", "*.example.org", "aexample.net",    "mail.example.co"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(sts_allows(p, good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(sts_allows(p, bad[i]));
    sts_policy_unref(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records), cmocka_unit_test(test_policy), cmocka_unit_test(test_bad_policies),
        cmocka_unit_test(test_bounds),  cmocka_unit_test(test_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
