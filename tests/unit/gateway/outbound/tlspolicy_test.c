/*
 * tlspolicy: what a domain demands of TLS, by settings, MTA-STS, REQUIRETLS, TLS-Required and DANE; what a host must
 * show; and that two different demands never share a site's name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/outbound/tlspolicy.h"

static const char *const prints[] = {"00"}, *const names[] = {"cert.example"};
static const struct outbound_tls_rule rules[] = {
    {.domain = "clear.example", .level = TLS_LEVEL_NONE},
    {.domain = ".strict.example", .level = TLS_LEVEL_VERIFY, .names = names, .name_count = 1},
    {.domain = "a.strict.example", .level = TLS_LEVEL_ENCRYPT},
    {.domain = "dane.example", .level = TLS_LEVEL_DANE},
    {.domain = "print.example", .level = TLS_LEVEL_FINGERPRINT, .fingerprints = prints, .fingerprint_count = 1},
};
static const struct outbound_tls settings = {.level = TLS_LEVEL_MAY,
                                             .route_level = TLS_LEVEL_MAY,
                                             .dane = true,
                                             .mta_sts = true,
                                             .rules = rules,
                                             .rule_count = sizeof rules / sizeof *rules};

static struct sts_policy *policy(const char *text) {
    struct sts_policy *p = NULL;
    const char *why = "";
    if (sts_policy_parse(&p, span_of(text), SPAN("1"), 1000, &why) != ERR_OK)
        fail_msg("%s", why);
    return p;
}

#define ENFORCE "version: STSv1\nmode: enforce\nmx: mx1.example\nmx: *.mail.example\nmax_age: 86400\n"
#define TESTING "version: STSv1\nmode: testing\nmx: mx1.example\nmax_age: 86400\n"

static enum tls_level level_of(struct tls_demand_question q, const char *want_tag) {
    struct tls_demand d;
    char tag[TLSPOLICY_TAG_MAX];
    tls_demand_init(&d, &settings, &q);
    tls_demand_tag(&d, tag);
    if (want_tag)
        assert_string_equal(tag, want_tag);
    tls_demand_deinit(&d);
    return d.level;
}

#define Q(...) ((struct tls_demand_question){__VA_ARGS__})

static void test_settings(void **state) {
    (void)state;
    assert_int_equal(level_of(Q(.domain = "any.example"), ""), TLS_LEVEL_MAY);
    assert_int_equal(level_of(Q(.domain = "clear.example"), "+none"), TLS_LEVEL_NONE);
    assert_int_equal(level_of(Q(.domain = "a.strict.example"), "+encrypt"), TLS_LEVEL_ENCRYPT);
    assert_int_equal(level_of(Q(.domain = "b.strict.example"), NULL), TLS_LEVEL_VERIFY);
    assert_int_equal(level_of(Q(.domain = "strict.example"), NULL), TLS_LEVEL_VERIFY);
    assert_int_equal(level_of(Q(.domain = "xstrict.example"), ""), TLS_LEVEL_MAY);
    assert_int_equal(level_of(Q(.domain = "dane.example"), "+dane"), TLS_LEVEL_DANE);
    assert_int_equal(level_of(Q(.domain = "any.example", .is_route = true), ""), TLS_LEVEL_MAY);
    assert_int_equal(level_of(Q(.domain = "b.strict.example", .within_host = true), ""), TLS_LEVEL_NONE);
    assert_int_equal(level_of(Q(.domain = "any.example", .mx_authentic = true), "+tlsa"), TLS_LEVEL_MAY);
}

static void test_wishes_of_senders(void **state) {
    (void)state;
    struct sts_policy *p = policy(ENFORCE);
    assert_int_equal(level_of(Q(.domain = "any.example", .requiretls = true), "+requiretls"), TLS_LEVEL_VERIFY);
    assert_int_equal(level_of(Q(.domain = "any.example", .requiretls = true, .within_host = true), ""), TLS_LEVEL_NONE);
    assert_int_equal(level_of(Q(.domain = "any.example", .sts = p, .mx_authentic = true, .tls_required_no = true), ""),
                     TLS_LEVEL_MAY);
    /* A setting of ours is not the sender's to lift. */
    assert_int_equal(level_of(Q(.domain = "b.strict.example", .tls_required_no = true), NULL), TLS_LEVEL_VERIFY);
    struct tls_demand_question q = Q(.domain = "any.example");
    assert_true(tls_demand_wants_sts(&settings, &q));
    q.tls_required_no = true;
    assert_false(tls_demand_wants_sts(&settings, &q));
    q = Q(.domain = "b.strict.example");
    assert_false(tls_demand_wants_sts(&settings, &q));
    q = Q(.domain = "any.example", .is_route = true);
    assert_false(tls_demand_wants_sts(&settings, &q));
    sts_policy_unref(p);
}

static void tag_under(const struct outbound_tls *under, struct tls_demand_question q, char tag[TLSPOLICY_TAG_MAX]) {
    struct tls_demand d;
    tls_demand_init(&d, under, &q);
    tls_demand_tag(&d, tag);
    tls_demand_deinit(&d);
}

/* A connection that was good enough for one demand never serves a stronger one: of another message, or of settings
 * that came later. */
static void test_demands_do_not_mix(void **state) {
    (void)state;
    char one[TLSPOLICY_TAG_MAX], two[TLSPOLICY_TAG_MAX];
    static const enum tls_level levels[] = {TLS_LEVEL_ENCRYPT, TLS_LEVEL_VERIFY};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        struct outbound_tls strict = settings;
        strict.level = strict.route_level = levels[i];
        tag_under(&strict, Q(.domain = "any.example", .tls_required_no = true), one);
        tag_under(&strict, Q(.domain = "any.example"), two);
        assert_string_not_equal(one, two);
        tag_under(&settings, Q(.domain = "any.example"), one);
        assert_string_not_equal(one, two);
        for (int route = 0; route < 2; route++) {
            struct tls_demand_question q = Q(.domain = "any.example", .is_route = route, .mx_authentic = !route);
            tag_under(&settings, q, one);
            tag_under(&strict, q, two);
            assert_string_not_equal(one, two);
        }
    }
    static const char *const other_names[] = {"other.example"};
    struct outbound_tls_rule was = rules[1], is = rules[1];
    is.names = other_names;
    struct outbound_tls before = {.rules = &was, .rule_count = 1}, after = {.rules = &is, .rule_count = 1};
    tag_under(&before, Q(.domain = "strict.example"), one);
    tag_under(&after, Q(.domain = "strict.example"), two);
    assert_string_not_equal(one, two);
}

/* Two policies whose marks of 32 bits were alike: whoever can choose the patterns finds such ones in minutes. */
static void test_marks_of_policies(void **state) {
    (void)state;
    char one[TLSPOLICY_TAG_MAX], two[TLSPOLICY_TAG_MAX];
    struct sts_policy *a = policy("version: STSv1\nmode: enforce\nmx: mx1.example\nmax_age: 86400\n");
    struct sts_policy *b = policy("version: STSv1\nmode: enforce\nmx: mjwdjxlh.evil.example\nmax_age: 86400\n");
    tag_under(&settings, Q(.domain = "any.example", .sts = a, .requiretls = true), one);
    tag_under(&settings, Q(.domain = "any.example", .sts = b, .requiretls = true), two);
    assert_string_not_equal(one, two);
    assert_non_null(strstr(one, "+requiretls")); /* all of it fits */
    sts_policy_unref(a);
    sts_policy_unref(b);
}

static void test_sts(void **state) {
    (void)state;
    struct sts_policy *enforce = policy(ENFORCE), *testing = policy(TESTING);
    struct tls_demand d;
    struct tls_target t;
    char one[TLSPOLICY_TAG_MAX], two[TLSPOLICY_TAG_MAX];
    struct tls_demand_question q = Q(.domain = "any.example", .sts = enforce);
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(d.level, TLS_LEVEL_VERIFY);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_FINE);
    assert_int_equal(t.level, TLS_LEVEL_VERIFY);
    assert_int_equal(tls_judge_host(&d, "a.mail.example", NULL, &t), TLS_HOST_FINE);
    assert_int_equal(tls_judge_host(&d, "mail.example", NULL, &t), TLS_HOST_NOT_IN_POLICY);
    assert_int_equal(tls_judge_host(&d, "a.b.mail.example", NULL, &t), TLS_HOST_NOT_IN_POLICY);
    tls_demand_tag(&d, one);
    tls_demand_deinit(&d);
    q.sts = testing; /* tells, and refuses nothing */
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(d.level, TLS_LEVEL_MAY);
    assert_int_equal(tls_judge_host(&d, "elsewhere.example", NULL, &t), TLS_HOST_FINE);
    tls_demand_tag(&d, two);
    assert_string_not_equal(one, two);
    tls_demand_deinit(&d);
    struct sts_policy *other = policy("version: STSv1\nmode: enforce\nmx: mx2.example\nmax_age: 86400\n");
    q.sts = other;
    tls_demand_init(&d, &settings, &q);
    tls_demand_tag(&d, two);
    assert_string_not_equal(one, two); /* one domain's policy does not hide behind another's */
    tls_demand_deinit(&d);
    sts_policy_unref(other);
    sts_policy_unref(enforce);
    sts_policy_unref(testing);
}

static void test_dane(void **state) {
    (void)state;
    static const uint8_t digest[32];
    const struct tls_dane_record record = {3, 1, 1, digest, sizeof digest};
    struct dane_answer usable = {DANE_USABLE, &record, 1, "mx1.example", ""},
                       unusable = {.status = DANE_UNUSABLE, .base = "mx1.example"},
                       failed = {.status = DANE_FAILED, .base = "mx1.example"},
                       none = {.status = DANE_NONE, .base = "mx1.example"};
    struct sts_policy *enforce = policy(ENFORCE);
    struct tls_demand d;
    struct tls_target t;
    struct tls_wish w;
    const char *at[3];
    char key[400];
    struct tls_demand_question q = Q(.domain = "any.example", .mx_authentic = true, .sts = enforce);
    tls_demand_init(&d, &settings, &q);
    assert_true(d.dane);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &usable, &t), TLS_HOST_FINE);
    assert_int_equal(t.level, TLS_LEVEL_DANE); /* RFC 8461 section 2: not MTA-STS */
    assert_true(tls_make_wish(&t, "mx1.example", "", &w, at, key));
    assert_int_equal(w.dane_count, 1);
    assert_false(w.must_verify);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &failed, &t), TLS_HOST_NO_TLSA);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &none, &t), TLS_HOST_FINE);
    assert_int_equal(t.level, TLS_LEVEL_VERIFY);
    tls_demand_deinit(&d);
    q.sts = NULL;
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &unusable, &t), TLS_HOST_FINE);
    assert_int_equal(t.level, TLS_LEVEL_ENCRYPT);
    assert_true(tls_make_wish(&t, "mx1.example", "", &w, at, key));
    assert_int_equal(w.dane_count, 0);
    tls_demand_deinit(&d);
    q.mx_authentic = false; /* nobody vouches for the hosts' names */
    tls_demand_init(&d, &settings, &q);
    assert_false(d.dane);
    tls_demand_deinit(&d);
    q.domain = "dane.example"; /* demanded by a setting */
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &none, &t), TLS_HOST_NEEDS_TLSA);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &unusable, &t), TLS_HOST_NEEDS_TLSA);
    assert_int_equal(tls_judge_host(&d, "mx1.example", &usable, &t), TLS_HOST_FINE);
    tls_demand_deinit(&d);
    sts_policy_unref(enforce);
}

static void test_requiretls_needs_a_name(void **state) {
    (void)state;
    struct tls_demand d;
    struct tls_target t;
    struct tls_demand_question q = Q(.domain = "any.example", .requiretls = true);
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_NOT_VOUCHED);
    tls_demand_deinit(&d);
    q.mx_authentic = true;
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_FINE);
    assert_int_equal(t.level, TLS_LEVEL_VERIFY);
    tls_demand_deinit(&d);
    struct sts_policy *enforce = policy(ENFORCE);
    q = Q(.domain = "any.example", .requiretls = true, .sts = enforce);
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_FINE);
    tls_demand_deinit(&d);
    sts_policy_unref(enforce);
}

static void test_wishes_of_connections(void **state) {
    (void)state;
    struct tls_demand d;
    struct tls_target t;
    struct tls_wish w;
    const char *at[3];
    char key[400], other[400];
    struct tls_demand_question q = Q(.domain = "b.strict.example");
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_FINE);
    assert_true(tls_make_wish(&t, "mx1.example", "+verify", &w, at, key));
    assert_true(w.must_verify);
    assert_int_equal(w.name_count, 1);
    assert_string_equal(w.names[0], "cert.example");
    assert_string_equal(w.sni, "mx1.example");
    tls_demand_deinit(&d);
    q.domain = "print.example";
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_FINE);
    assert_true(tls_make_wish(&t, "mx1.example", "+fingerprint", &w, at, other));
    assert_int_equal(w.fingerprint_count, 1);
    assert_string_not_equal(key, other);
    tls_demand_deinit(&d);
    q.domain = "clear.example";
    tls_demand_init(&d, &settings, &q);
    assert_int_equal(tls_judge_host(&d, "mx1.example", NULL, &t), TLS_HOST_FINE);
    assert_false(tls_make_wish(&t, "mx1.example", "", &w, at, key));
    tls_demand_deinit(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_wishes_of_senders),
        cmocka_unit_test(test_demands_do_not_mix),
        cmocka_unit_test(test_marks_of_policies),
        cmocka_unit_test(test_sts),
        cmocka_unit_test(test_dane),
        cmocka_unit_test(test_requiretls_needs_a_name),
        cmocka_unit_test(test_wishes_of_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
