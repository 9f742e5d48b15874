/* spf: verdicts over records of a real DNS server: each result, the limits over all includes, order, hostile records.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/filter/spf.h"
#include "tests/unit/gateway/filter/nsd.h"

static const struct zone zones[] = {
    {"spf.test",
     "@ TXT \"v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all\"\n"
     "soft TXT \"v=spf1 ip4:192.0.2.0/24 ~all\"\n"
     "neutral TXT \"v=spf1 ?all\"\n"
     "ends TXT \"v=spf1 ip4:192.0.2.1\"\n"
     "none TXT \"just words\"\n"
     "two TXT \"v=spf1 -all\"\ntwo TXT \"v=spf1 +all\"\n"
     "syntax TXT \"v=spf1 ipv4:192.0.2.1 -all\"\n"
     "badip TXT \"v=spf1 ip4:999.0.2.1 -all\"\n"
     "a TXT \"v=spf1 a:host.spf.test -all\"\nhost A 192.0.2.9\n"
     "mx TXT \"v=spf1 mx -all\"\nmx MX 5 host\n"
     "exists TXT \"v=spf1 exists:%{ir}.list.spf.test -all\"\n1.2.0.192.list A 127.0.0.2\n"
     "user TXT \"v=spf1 exists:%{l}.user.spf.test -all\"\njoe.user A 127.0.0.2\n"
     "inc TXT \"v=spf1 include:spf.test -all\"\n"
     "incnone TXT \"v=spf1 include:gone.spf.test -all\"\n"
     "red TXT \"v=spf1 redirect=spf.test\"\n"
     "redfirst TXT \"v=spf1 redirect=spf.test ip4:198.51.100.7\"\n"
     "redall TXT \"v=spf1 redirect=spf.test ?all\"\n"
     "redtwo TXT \"v=spf1 redirect=spf.test redirect=spf.test\"\n"
     "exp TXT \"v=spf1 exp=why.spf.test -all\"\nwhy TXT \"go away %{i}\"\n"
     "loop1 TXT \"v=spf1 include:loop2.spf.test -all\"\n"
     "loop2 TXT \"v=spf1 include:loop1.spf.test -all\"\n"
     "self TXT \"v=spf1 include:self.spf.test -all\"\n"
     "eleven TXT \"v=spf1 a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test \" "
     "\"a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test "
     "-all\"\n"
     "ten TXT \"v=spf1 a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test \" "
     "\"a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test -all\"\n"
     "six TXT \"v=spf1 a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test a:host.spf.test "
     "?all\"\n"
     "nested TXT \"v=spf1 include:six.spf.test include:six.spf.test -all\"\n"
     "voids2 TXT \"v=spf1 a:v1.spf.test a:v2.spf.test -all\"\n"
     "voids3 TXT \"v=spf1 a:v1.spf.test a:v2.spf.test a:v3.spf.test -all\"\n"
     "mxhosts TXT \"v=spf1 mx mx mx a -all\"\nmxhosts A 192.0.2.77\n"
     "mxhosts MX 1 host\nmxhosts MX 2 host2\nmxhosts MX 3 host3\nmxhosts MX 4 host4\n"
     "host2 A 192.0.2.12\nhost3 A 192.0.2.13\nhost4 A 192.0.2.14\n"
     "ptr TXT \"v=spf1 ptr -all\"\n"
     "helo TXT \"v=spf1 ip4:198.51.100.7 -all\"\n"
     "alias CNAME @\n"
     "eight TXT \"v=spf1 \\226 -all\"\n"},
    {"2.0.192.in-addr.arpa", "44 PTR host44.ptr.spf.test.\n"},
};

struct world {
    struct nsd nsd;
    struct resolver *resolver;
    struct spf *spf;
    struct arena mem;
    struct authres_spf result;
};

static int start(void **state) {
    struct world *w = calloc(1, sizeof *w);
    *state = w;
    arena_init(&w->mem, 8192, 0);
    nsd_start(&w->nsd, zones, 2);
    assert_int_equal(resolver_new(&w->resolver, w->nsd.servers), ERR_OK);
    w->spf = spf_new(w->resolver);
    return w->spf ? 0 : 1;
}

static int stop(void **state) {
    struct world *w = *state;
    spf_free(w->spf);
    resolver_free(w->resolver);
    arena_deinit(&w->mem);
    nsd_stop(&w->nsd);
    free(w);
    return 0;
}

static const char *full(struct world *w, const char *ip, const char *sender, const char *helo, struct spf *spf) {
    struct tcp_addr client;
    assert_int_equal(tcp_addr_parse(&client, span_of(ip), 25), ERR_OK);
    struct spf_question q = {&client, span_of(sender), span_of(helo), SPAN("mx.our.test")};
    spf_check(spf, &q, clock_mono_ms() + 5000, &w->mem, &w->result);
    return authres_text(w->result.result);
}

static const char *ask(void **state, const char *ip, const char *domain) {
    struct world *w = *state;
    char sender[300];
    snprintf(sender, sizeof sender, "joe@%s", domain);
    return full(w, ip, sender, "helo.spf.test", w->spf);
}

static void test_results(void **state) {
    assert_string_equal(ask(state, "192.0.2.1", "spf.test"), "pass");
    assert_string_equal(ask(state, "2001:db8::1", "spf.test"), "pass");
    assert_string_equal(ask(state, "::ffff:192.0.2.1", "spf.test"), "pass");
    assert_string_equal(ask(state, "198.51.100.7", "spf.test"), "fail");
    assert_string_equal(ask(state, "::ffff:198.51.100.7", "spf.test"), "fail");
    assert_string_equal(ask(state, "198.51.100.7", "soft.spf.test"), "softfail");
    assert_string_equal(ask(state, "198.51.100.7", "neutral.spf.test"), "neutral");
    assert_string_equal(ask(state, "198.51.100.7", "ends.spf.test"), "neutral");
    assert_string_equal(ask(state, "198.51.100.7", "none.spf.test"), "none");
    assert_string_equal(ask(state, "198.51.100.7", "gone.spf.test"), "none");
    assert_string_equal(ask(state, "192.0.2.1", "alias.spf.test"), "pass");
    assert_string_equal(ask(state, "192.0.2.1", "SPF.Test"), "pass");
}

static void test_errors_in_records(void **state) {
    assert_string_equal(ask(state, "192.0.2.1", "two.spf.test"), "permerror");
    assert_string_equal(ask(state, "192.0.2.1", "syntax.spf.test"), "permerror");
    assert_string_equal(ask(state, "192.0.2.1", "badip.spf.test"), "permerror");
    assert_string_equal(ask(state, "192.0.2.1", "incnone.spf.test"), "permerror");
    assert_string_equal(ask(state, "192.0.2.1", "redtwo.spf.test"), "permerror");
    assert_string_equal(ask(state, "192.0.2.1", "eight.spf.test"), "permerror");
}

static void test_mechanisms(void **state) {
    assert_string_equal(ask(state, "192.0.2.9", "a.spf.test"), "pass");
    assert_string_equal(ask(state, "192.0.2.10", "a.spf.test"), "fail");
    assert_string_equal(ask(state, "192.0.2.9", "mx.spf.test"), "pass");
    assert_string_equal(ask(state, "192.0.2.1", "exists.spf.test"), "pass");
    assert_string_equal(ask(state, "192.0.2.2", "exists.spf.test"), "fail");
    assert_string_equal(ask(state, "192.0.2.2", "user.spf.test"), "pass");
    assert_string_equal(ask(state, "192.0.2.1", "inc.spf.test"), "pass");
    assert_string_equal(ask(state, "198.51.100.7", "inc.spf.test"), "fail");
    assert_string_equal(ask(state, "192.0.2.44", "ptr.spf.test"), "fail");
}

static void test_redirect_stands_last(void **state) {
    assert_string_equal(ask(state, "192.0.2.1", "red.spf.test"), "pass");
    assert_string_equal(ask(state, "198.51.100.7", "red.spf.test"), "fail");
    assert_string_equal(ask(state, "198.51.100.7", "redfirst.spf.test"), "pass");
    assert_string_equal(ask(state, "198.51.100.7", "redall.spf.test"), "neutral");
}

static void test_explanation_is_not_asked_for(void **state) {
    struct world *w = *state;
    assert_string_equal(ask(state, "198.51.100.7", "exp.spf.test"), "fail");
    assert_null(w->result.why);
}

static void test_limits(void **state) {
    struct world *w = *state;
    assert_string_equal(ask(state, "198.51.100.7", "ten.spf.test"), "fail");
    assert_string_equal(ask(state, "198.51.100.7", "eleven.spf.test"), "permerror");
    assert_string_equal(w->result.why, "too many DNS look-ups");
    assert_string_equal(ask(state, "198.51.100.7", "nested.spf.test"), "permerror");
    assert_string_equal(ask(state, "198.51.100.7", "loop1.spf.test"), "permerror");
    assert_string_equal(ask(state, "198.51.100.7", "self.spf.test"), "permerror");
    assert_string_equal(ask(state, "198.51.100.7", "voids2.spf.test"), "fail");
    assert_string_equal(ask(state, "198.51.100.7", "voids3.spf.test"), "permerror");
    /* three terms and the addresses of four hosts each: the hosts do not count */
    assert_string_equal(ask(state, "192.0.2.77", "mxhosts.spf.test"), "pass");
}

static void test_identities(void **state) {
    struct world *w = *state;
    assert_string_equal(full(w, "198.51.100.7", "", "helo.spf.test", w->spf), "pass");
    assert_true(w->result.by_helo);
    assert_string_equal(full(w, "192.0.2.1", "", "helo.spf.test", w->spf), "fail");
    assert_string_equal(full(w, "192.0.2.1", "", "[192.0.2.1]", w->spf), "none");
    assert_string_equal(full(w, "192.0.2.1", "", "localhost", w->spf), "none");
    assert_string_equal(full(w, "192.0.2.1", "", "", w->spf), "none");
    assert_string_equal(full(w, "192.0.2.1", "a@[192.0.2.1]", "helo.spf.test", w->spf), "none");
    assert_string_equal(full(w, "127.0.0.1", "a@spf.test", "helo.spf.test", w->spf), "none");
    assert_string_equal(full(w, "192.0.2.1", "\"a b%{s}\\\"\"@user.spf.test", "h", w->spf), "fail");
}

static void test_no_answer(void **state) {
    struct world *w = *state;
    uint16_t port = 0;
    char servers[32];
    struct resolver *r;
    int fd = nsd_socket(SOCK_DGRAM, &port);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", port);
    assert_int_equal(resolver_new(&r, servers), ERR_OK);
    struct spf *s = spf_new(r);
    struct tcp_addr client;
    assert_int_equal(tcp_addr_parse(&client, SPAN("192.0.2.1"), 25), ERR_OK);
    struct spf_question q = {&client, SPAN("a@spf.test"), SPAN("h.test"), SPAN("mx.our.test")};
    spf_check(s, &q, clock_mono_ms() + 500, &w->mem, &w->result);
    assert_string_equal(authres_text(w->result.result), "temperror");
    spf_free(s);
    resolver_free(r);
    close(fd);
}

static int tidy(const char *record, char *to, size_t size, bool *big) {
    struct buf out;
    buf_init(&out, 65536);
    int err = spf_record_tidy(span_of(record), &out, big);
    span_copy(buf_span(&out), to, size);
    buf_deinit(&out);
    return err;
}

static void test_records_are_put_in_order(void **state) {
    char to[8192], record[8192];
    bool big;
    (void)state;
    assert_true(spf_record_is(SPAN("v=spf1")));
    assert_true(spf_record_is(SPAN("V=SPF1 -all")));
    assert_false(spf_record_is(SPAN("v=spf10 -all")));
    assert_int_equal(tidy("v=spf1  a exp=x.test redirect=y.test mx x-y=%{l}", to, sizeof to, &big), ERR_OK);
    assert_string_equal(to, "v=spf1 a mx redirect=y.test");
    assert_int_equal(tidy("v=spf1 redirect=y.test -ALL mx", to, sizeof to, &big), ERR_OK);
    assert_string_equal(to, "v=spf1 -ALL");
    assert_int_equal(tidy("v=spf1 a\tb", to, sizeof to, &big), ERR_INVALID);
    /* the macros of one term that would fill the compiler's buffer */
    size_t len = (size_t)snprintf(record, sizeof record, "v=spf1 exists:");
    for (int i = 0; i < 60; i++)
        len += (size_t)snprintf(record + len, sizeof record - len, "%%{d}");
    assert_int_equal(tidy(record, to, sizeof to, &big), ERR_INVALID);
    len = (size_t)snprintf(record, sizeof record, "v=spf1 exists:%%{i}.%%{d}");
    assert_int_equal(tidy(record, to, sizeof to, &big), ERR_OK);
    assert_false(big);
    len = (size_t)snprintf(record, sizeof record, "v=spf1");
    for (int i = 0; i < 60; i++)
        len += (size_t)snprintf(record + len, sizeof record - len, " ip4:198.18.0.%d", i);
    assert_int_equal(tidy(record, to, sizeof to, &big), ERR_OK);
    assert_true(big);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_errors_in_records),
        cmocka_unit_test(test_mechanisms),
        cmocka_unit_test(test_redirect_stands_last),
        cmocka_unit_test(test_explanation_is_not_asked_for),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_no_answer),
        cmocka_unit_test(test_records_are_put_in_order),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
