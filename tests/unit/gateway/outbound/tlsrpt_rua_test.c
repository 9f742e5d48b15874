/* tlsrpt_rua: who wants TLS reports, as RFC 8460 section 3 has it; and what strangers write there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/outbound/tlsrpt_rua.h"

static void test_records(void **state) {
    (void)state;
    static const struct {
        const char *txt;
        int err;
        const char *to; /* "m:" or "h:" and the address, apart by blanks */
    } cases[] = {
        {"v=TLSRPTv1; rua=mailto:reports@example.com", ERR_OK, "m:reports@example.com"},
        {"v=TLSRPTv1;rua=https://reports.example.com/v1/tlsrpt;", ERR_OK, "h:https://reports.example.com/v1/tlsrpt"},
        {"v=TLSRPTv1; rua=mailto:a@example.com , https://b.example/x?y=z", ERR_OK,
         "m:a@example.com h:https://b.example/x?y=z"},
        {"v=TLSRPTv1; ext=1; rua=MAILTO:a%2Cb@example.com?subject=x; other=2;", ERR_OK, "m:a,b@example.com"},
        {"v=TLSRPTv1; rua=ftp://a.example/,mailto:a@example.com", ERR_OK, "m:a@example.com"},
        {"v=TLSRPTv1; rua=http://a.example/", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=https://", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=https://a.example/a b", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=mailto:", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=mailto:a%0d%0aX:%20y@example.com", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=mailto:a%4", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=mailto:a%zz@example.com", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=mailto:\xc3\xa9@example.com", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua=mailto:a@example.com; rua=mailto:b@example.com", ERR_INVALID, NULL},
        {"v=TLSRPTv1; rua", ERR_INVALID, NULL},
        {"v=TLSRPTv1;", ERR_INVALID, NULL},
        {"v=TLSRPTv1", ERR_NOT_FOUND, NULL},
        {"v=TLSRPTv11; rua=mailto:a@example.com", ERR_NOT_FOUND, NULL},
        {"v=tlsrptv1; rua=mailto:a@example.com", ERR_NOT_FOUND, NULL},
        {"v=spf1 -all", ERR_NOT_FOUND, NULL},
        {"", ERR_NOT_FOUND, NULL},
    };
    struct tlsrpt_rua rua[TLSRPT_RUA_MAX];
    size_t count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int err = tlsrpt_rua_parse(span_of(cases[i].txt), rua, &count);
        if (err != cases[i].err)
            fail_msg("%s: %d", cases[i].txt, err);
        struct span wanted = span_of(cases[i].to);
        for (size_t n = 0; err == ERR_OK && n < count; n++) {
            struct span one = span_cut(wanted, ' ', &wanted);
            assert_int_equal(one.at[0], rua[n].mail ? 'm' : 'h');
            assert_true(span_eq(span_from(one, 2), span_of(rua[n].to)));
        }
        assert_int_equal(wanted.len, 0);
    }
}

static void test_bounds(void **state) {
    (void)state;
    struct tlsrpt_rua rua[TLSRPT_RUA_MAX];
    size_t count;
    assert_int_equal(tlsrpt_rua_parse(SPAN("v=TLSRPTv1; rua=mailto:a@b.example,mailto:c@b.example,mailto:d@b.example,"
                                           "mailto:e@b.example,mailto:f@b.example"),
                                      rua, &count),
                     ERR_OK);
    assert_int_equal(count, TLSRPT_RUA_MAX);
    char text[700] = "v=TLSRPTv1; rua=https://a.example/";
    size_t len = strlen(text), uri = len - 16;
    memset(text + len, 'x', TLSRPT_RUA_LEN_MAX - uri);
    assert_int_equal(tlsrpt_rua_parse(span_of(text), rua, &count), ERR_OK);
    assert_int_equal(strlen(rua[0].to), TLSRPT_RUA_LEN_MAX);
    text[strlen(text)] = 'x';
    assert_int_equal(tlsrpt_rua_parse(span_of(text), rua, &count), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_records), cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
