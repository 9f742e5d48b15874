/* authres: what is written cannot be broken by values; what claims to be ours is found however it is dressed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "gateway/filter/authres.h"
#include "tests/unit/gateway/filter/place.h"

static const struct span us = {"mx.our.test", 11};

static void check_text(const struct authres *a, const char *want) {
    struct buf to;
    buf_init(&to, AUTHRES_MAX);
    assert_int_equal(authres_compose(&to, us, a), ERR_OK);
    assert_string_equal(buf_cstr(&to), want);
    buf_deinit(&to);
}

static void test_compose(void **state) {
    (void)state;
    struct authres_spf spf = {AUTHRES_PASS, false, SPAN("joe@a.test"), SPAN("a.test"), NULL};
    struct authres_dkim dkim[] = {
        {AUTHRES_PASS, SPAN("a.test"), SPAN("s1"), SPAN("rsa-sha256"), SPAN("AbC+/9=="), NULL},
        {AUTHRES_FAIL, SPAN("b.test"), SPAN("s2"), SPAN("rsa-sha256"), SPAN("q"), "signature mismatch"}};
    struct authres_dmarc dmarc = {AUTHRES_FAIL, SPAN("c.test"), AUTHRES_ASK_REJECT, AUTHRES_ASK_QUARANTINE, NULL};
    struct authres a = {&spf, dkim, 2, true, &dmarc};
    check_text(&a, " mx.our.test;\r\n\tspf=pass smtp.mailfrom=joe@a.test;\r\n\tdkim=pass header.d=a.test header.s=s1 "
                   "header.a=rsa-sha256 header.b=\"AbC+/9==\";\r\n\tdkim=fail reason=\"signature mismatch\" "
                   "header.d=b.test header.s=s2 header.a=rsa-sha256 header.b=q;\r\n\tdmarc=fail (p=reject "
                   "dis=quarantine) header.from=c.test");
    check_text(&(struct authres){.dkim_asked = true}, " mx.our.test;\r\n\tdkim=none");
    check_text(&(struct authres){.dkim_asked = false}, " mx.our.test; none");
}

static void test_hostile_values(void **state) {
    (void)state;
    const struct {
        const char *value, *want;
    } cases[] = {
        {"a@x\r\nSubject: y", ""},
        {"a@x\n", ""},
        {"a\x80@x", ""},
        {"a\x1b@x", ""},
        {"\"a;b\"@x", " smtp.mailfrom=\"\\\"a;b\\\"@x\""},
        {"a;dkim=pass@x", " smtp.mailfrom=\"a;dkim=pass@x\""},
        {"a\" dkim=pass@x", " smtp.mailfrom=\"a\\\" dkim=pass@x\""},
        {"a\\@x", " smtp.mailfrom=\"a\\\\@x\""},
        {"(x)@x", " smtp.mailfrom=\"(x)@x\""},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[300];
        struct authres_spf spf = {AUTHRES_NONE, false, span_of(cases[i].value), SPAN_EMPTY, NULL};
        snprintf(want, sizeof want, " mx.our.test;\r\n\tspf=none%s", cases[i].want);
        check_text(&(struct authres){.spf = &spf}, want);
    }
    char endless[1000];
    memset(endless, 'a', sizeof endless);
    struct authres_spf spf = {AUTHRES_NONE, true, span_make(endless, sizeof endless), SPAN_EMPTY, NULL};
    check_text(&(struct authres){.spf = &spf}, " mx.our.test;\r\n\tspf=none");
}

static void test_ours(void **state) {
    (void)state;
    const char *ours[] = {" mx.our.test; spf=pass",
                          "mx.our.test;spf=pass",
                          " MX.Our.TEST; spf=pass",
                          " mx.our.test",
                          " mx.our.test 1; spf=pass",
                          " mx.our.test/1; spf=pass",
                          " mx.our.test.; spf=pass",
                          " (a (nested \\) ;) comment) mx.our.test; spf=pass",
                          "\r\n\tmx.our.test\r\n\t;spf=pass",
                          " (x)\r\n (y) mx.our.test(z); spf=pass",
                          " \"mx.our.test\"; spf=pass",
                          " \"mx.our\\.test\"; spf=pass",
                          " \"mx.our.te\r\n st",
                          " (never ends mx.our.test; spf=pass",
                          "",
                          " ; spf=pass",
                          " =x",
                          " mx.our.test=1; spf=pass"};
    const char *theirs[] = {" mx.other.test; spf=pass", " amx.our.test; spf=pass", " mx.our.test.evil; spf=pass",
                            " (mx.our.test) mx.other.test; x=mx.our.test", " \"mx.other.test\"; spf=pass"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        assert_true(authres_is_ours(span_of(ours[i]), us));
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++)
        assert_false(authres_is_ours(span_of(theirs[i]), us));
    assert_true(authres_is_ours(span_of(" m\xc3\xbcx.test; spf=pass"), SPAN("xn--mx-xka.test")));
    assert_false(authres_is_ours(span_of(" m\xc3\xb6x.test; spf=pass"), SPAN("xn--mx-xka.test")));
}

static void test_strip(void **state) {
    (void)state;
    struct held *h = held_of_text("AUTHENTICATION-results: mx.our.test; spf=pass\r\nSubject: a\r\n"
                                  "Authentication-Results: other.test; spf=pass\r\n"
                                  "Authentication-Results:\r\n (x)\r\n MX.our.test;\r\n dkim=pass\r\n\r\nbody\r\n");
    assert_int_equal(authres_strip(h, us), 2);
    char *text = held_text(h);
    assert_string_equal(text, "Subject: a\r\nAuthentication-Results: other.test; spf=pass\r\n\r\nbody\r\n");
    free(text);
    held_free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compose),
        cmocka_unit_test(test_hostile_values),
        cmocka_unit_test(test_ours),
        cmocka_unit_test(test_strip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
