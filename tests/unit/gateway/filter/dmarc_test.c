/* dmarc: authors as readers see them, organizational domains, alignment, and what the domain's record makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/filter/dmarc.h"
#include "tests/unit/gateway/filter/nsd.h"
#include "tests/unit/gateway/filter/place.h"

#define SUFFIXES "/usr/share/publicsuffix/public_suffix_list.dat"

static const struct zone zones[] = {
    {"org.test", "_dmarc TXT \"v=DMARC1; p=reject; sp=quarantine\"\n"
                 "_dmarc.own TXT \"v=DMARC1; p=none\"\n"},
    {"strict.test", "_dmarc TXT \"v=DMARC1; p=reject; adkim=s; aspf=s\"\n"},
    {"none.test", "x A 192.0.2.1\n_dmarc TXT \"v=DMARC2; p=reject\"\n_dmarc TXT \"words\"\n"},
    {"two.test", "_dmarc TXT \"v=DMARC1; p=reject\"\n_dmarc TXT \"v=DMARC1; p=none\"\n"},
    {"bad.test", "_dmarc TXT \"v=DMARC1; p=maybe\"\n_dmarc.nop TXT \"v=DMARC1; pct=3\"\n"},
    {"pct.test", "_dmarc TXT \"v=DMARC1; p=reject; pct=30\"\n"},
    {"inherit.test", "_dmarc TXT \"v=DMARC1;p=quarantine\"\n"},
};

struct world {
    struct nsd nsd;
    struct resolver *r;
    struct arena mem;
    struct dmarc *d;
    struct dmarc_from from;
    struct authres_dmarc result;
};

static int start(void **state) {
    struct world *w = calloc(1, sizeof *w);
    *state = w;
    arena_init(&w->mem, 8192, 0);
    nsd_start(&w->nsd, zones, sizeof zones / sizeof *zones);
    return resolver_new(&w->r, w->nsd.servers) || dmarc_new(&w->d, SUFFIXES);
}

static int stop(void **state) {
    struct world *w = *state;
    dmarc_free(w->d);
    resolver_free(w->r);
    arena_deinit(&w->mem);
    nsd_stop(&w->nsd);
    free(w);
    return 0;
}

/* -- the From field -- */
static const char *read_from(struct world *w, const char *message) {
    static char text[300];
    struct held *h = held_of_text(message);
    assert_int_equal(dmarc_from(h, &w->mem, &w->from), ERR_OK);
    held_free(h);
    text[0] = 0;
    for (size_t i = 0; i < w->from.count; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%.*s", i ? "," : "", SPAN_FMT(w->from.domains[i]));
    }
    if (w->from.ambiguous || w->from.missing)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s", w->from.missing ? "-" : "?");
    return text;
}

static void test_authors(void **state) {
    const struct {
        const char *value, *want;
    } cases[] = {
        {"a@b.test", "b.test"},
        {"A <a@B.Test>", "b.test"},
        {"\"x@evil.test\" <a@b.test>", "b.test"},
        {"x@evil.test <a@b.test>", "b.test"},
        {"(x@evil.test) a@b.test (y <z@evil.test>)", "b.test"},
        {"\"a <x@evil.test>, \\\" b\" <a@b.test>", "b.test"},
        {"\"x@y\"@b.test", "b.test"},
        {"a@(c)b.test", "b.test"},
        {"<a @ b.test>", "b.test"},
        {"<@relay.test:a@b.test>", "b.test"},
        {"a@b.test.", "b.test"},
        {"a@b.test, c@b.test", "b.test"},
        {"a@b.test, C <c@d.test>", "b.test,d.test"},
        {"Team: a@b.test, c@d.test;", "b.test,d.test"},
        {"<a@b.test> <c@d.test>", "b.test,d.test"},
        {"<a@b.test> c@d.test", "b.test?"},
        {"a@m\xc3\xbcller.test", "xn--mller-kva.test"},
        {"a@[192.0.2.1]", "?"},
        {"root", "?"},
        {"<>", "?"},
        {"", ""},
        {"\"never ends <a@b.test>", "?"},
        {"<a@b.test", "?"},
        {"<<a@b.test>>", "b.test?"},
        {"a@b..test", "?"},
        {"a@1.t,a@2.t,a@3.t,a@4.t,a@5.t,a@6.t,a@7.t,a@8.t,a@9.t", "1.t,2.t,3.t,4.t,5.t,6.t,7.t,8.t?"},
    };
    char message[400];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(message, sizeof message, "To: x@y.test\r\nfrom: %s\r\n\r\n", cases[i].value);
        assert_string_equal(read_from(*state, message), cases[i].want);
    }
    assert_string_equal(read_from(*state, "Subject: x\r\n\r\nFrom: a@b.test\r\n"), "-");
    assert_string_equal(read_from(*state, "From: a@b.test\r\nFrom: c@d.test\r\n\r\n"), "b.test?");
    assert_true(((struct world *)*state)->from.several);
    assert_string_equal(read_from(*state, "From:\r\n A\r\n <a@b.test>\r\n\r\n"), "b.test");
    char endless[9000];
    memset(endless, 'a', sizeof endless);
    memcpy(endless, "From: ", 6);
    memcpy(endless + sizeof endless - 12, "@b.test\r\n\r\n", 12);
    assert_string_equal(read_from(*state, endless), "?");
}

static void check_org(struct world *w, const char *domain, const char *want) {
    struct span s = dmarc_organization(w->d, span_of(domain), &w->mem);
    assert_true(span_eq(s, span_of(want)));
}

static void test_organizations(void **state) {
    check_org(*state, "mail.example.com", "example.com");
    check_org(*state, "a.b.example.co.uk", "example.co.uk");
    check_org(*state, "co.uk", "co.uk");
    check_org(*state, "a.b.c.ck", "b.c.ck"); /* *.ck */
    check_org(*state, "x.www.ck", "www.ck"); /* !www.ck */
    check_org(*state, "a.github.io", "a.github.io");
    check_org(*state, "x.unknown.test", "unknown.test");
    struct dmarc *d;
    assert_int_equal(dmarc_new(&d, "/nonexistent"), ERR_NOT_FOUND);
    assert_int_equal(dmarc_new(&d, "/dev/null"), ERR_NOT_FOUND);
}

/* -- verdicts -- */
struct signs {
    enum authres_result spf;
    const char *spf_domain;
    enum authres_result dkim;
    const char *dkim_domain;
};

static const char *judge_with(struct world *w, struct resolver *r, const char *from, struct signs s, unsigned roll) {
    static char text[80];
    char message[300];
    snprintf(message, sizeof message, "From: %s\r\n\r\n", from);
    read_from(w, message);
    struct authres_spf spf = {.result = s.spf, .domain = span_of(s.spf_domain)};
    struct authres_dkim dkim[2] = {{.result = AUTHRES_FAIL, .domain = SPAN("else.test")},
                                   {.result = s.dkim, .domain = span_of(s.dkim_domain)}};
    struct dmarc_question q = {&w->from, &spf, dkim, s.dkim_domain ? 2 : 0, roll};
    static const char *const asks[] = {"-", "none", "quarantine", "reject"};
    dmarc_judge(w->d, r, clock_mono_ms() + 3000, &q, &w->mem, &w->result);
    snprintf(text, sizeof text, "%s %s %s", authres_text(w->result.result), asks[w->result.published],
             asks[w->result.disposition]);
    return text;
}

static const char *judge(void **state, const char *from, struct signs s) {
    struct world *w = *state;
    return judge_with(w, w->r, from, s, 99);
}

static void test_alignment(void **state) {
    const struct signs nothing = {AUTHRES_NONE, NULL, AUTHRES_NONE, NULL};
    assert_string_equal(judge(state, "a@org.test", nothing), "fail reject reject");
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_PASS, "org.test", 0, NULL}), "pass reject -");
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_PASS, "b.ORG.test", 0, NULL}),
                        "pass reject -");
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_SOFTFAIL, "org.test", 0, NULL}),
                        "fail reject reject");
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_PASS, "evilorg.test", 0, NULL}),
                        "fail reject reject");
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_PASS, "test", AUTHRES_PASS, "test"}),
                        "fail reject reject"); /* the parent is a public suffix */
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_FAIL, "org.test", AUTHRES_PASS, "org.test"}),
                        "pass reject -");
    assert_string_equal(judge(state, "a@org.test", (struct signs){0, NULL, AUTHRES_POLICY, "org.test"}),
                        "fail reject reject");
    assert_string_equal(judge(state, "a@strict.test", (struct signs){AUTHRES_PASS, "b.strict.test", 0, NULL}),
                        "fail reject reject");
    assert_string_equal(judge(state, "a@strict.test", (struct signs){0, NULL, AUTHRES_PASS, "b.strict.test"}),
                        "fail reject reject");
    assert_string_equal(judge(state, "a@strict.test", (struct signs){0, NULL, AUTHRES_PASS, "strict.TEST"}),
                        "pass reject -");
}

static void test_records(void **state) {
    const struct signs nothing = {AUTHRES_NONE, NULL, AUTHRES_NONE, NULL};
    assert_string_equal(judge(state, "a@none.test", nothing), "none - -");
    assert_string_equal(judge(state, "a@sub.org.test", nothing), "fail quarantine quarantine");
    assert_string_equal(judge(state, "a@a.b.c.org.test", nothing), "fail quarantine quarantine");
    assert_string_equal(judge(state, "a@own.org.test", nothing), "fail none none");
    assert_string_equal(judge(state, "a@sub.inherit.test", nothing), "fail quarantine quarantine");
    assert_string_equal(judge(state, "a@two.test", nothing), "permerror - -");
    assert_string_equal(judge(state, "a@bad.test", nothing), "permerror - -");
    assert_string_equal(judge(state, "a@nop.bad.test", nothing), "permerror - -");
    assert_string_equal(judge(state, "a@sub.org.test", (struct signs){AUTHRES_PASS, "org.test", 0, NULL}),
                        "pass quarantine -");
}

static void test_sample(void **state) {
    struct world *w = *state;
    const struct signs nothing = {AUTHRES_NONE, NULL, AUTHRES_NONE, NULL};
    assert_string_equal(judge_with(w, w->r, "a@pct.test", nothing, 29), "fail reject reject");
    assert_string_equal(judge_with(w, w->r, "a@pct.test", nothing, 30), "fail reject quarantine");
}

static void test_several_authors(void **state) {
    const struct signs one = {AUTHRES_PASS, "strict.test", AUTHRES_NONE, NULL};
    assert_string_equal(judge(state, "a@strict.test, b@org.test", one), "fail reject reject");
    assert_string_equal(judge(state, "b@org.test, a@strict.test", one), "fail reject reject");
    assert_string_equal(judge(state, "a@strict.test, b@none.test", one), "none - -");
    assert_string_equal(judge(state, "root", one), "permerror - -");
}

static void test_temporary(void **state) {
    struct world *w = *state;
    uint16_t port = 0;
    char servers[32];
    struct resolver *r;
    int fd = nsd_socket(SOCK_DGRAM, &port);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", port);
    assert_int_equal(resolver_new(&r, servers), ERR_OK);
    assert_string_equal(judge_with(w, r, "a@org.test", (struct signs){AUTHRES_PASS, "org.test", 0, NULL}, 0),
                        "temperror - -");
    resolver_free(r);
    close(fd);
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_TEMPERROR, "org.test", 0, NULL}),
                        "temperror reject -");
    assert_string_equal(judge(state, "a@org.test", (struct signs){0, NULL, AUTHRES_TEMPERROR, "s.org.test"}),
                        "temperror reject -");
    assert_string_equal(judge(state, "a@org.test", (struct signs){AUTHRES_TEMPERROR, "other.test", 0, NULL}),
                        "fail reject reject");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_authors),   cmocka_unit_test(test_organizations), cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_records),   cmocka_unit_test(test_sample),        cmocka_unit_test(test_several_authors),
        cmocka_unit_test(test_temporary),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
