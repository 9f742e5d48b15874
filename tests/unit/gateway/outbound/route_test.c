/* Routes: what reads and what does not, and that the most specific rule wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/outbound/route.h"

static void good(const char *text, enum route_kind kind, const char *host, unsigned port, const char *shown) {
    struct route r;
    char to[512];
    assert_int_equal(route_parse(&r, span_of(text)), ERR_OK);
    assert_int_equal(r.kind, kind);
    assert_string_equal(r.host, host);
    assert_int_equal(r.port, port);
    assert_int_equal(route_format(&r, 25, to, sizeof to), strlen(shown));
    assert_string_equal(to, shown);
}

static void test_good(void **state) {
    (void)state;
    good("mx", ROUTE_MX, "", 0, "mx");
    good("mx:Example.NET", ROUTE_MX, "example.net", 0, "mx:example.net");
    good("smtp:Relay.example", ROUTE_SMTP, "relay.example", 0, "smtp:relay.example:25");
    good("smtp:relay.example:2525", ROUTE_SMTP, "relay.example", 2525, "smtp:relay.example:2525");
    good("smtp:127.0.0.1:65535", ROUTE_SMTP, "127.0.0.1", 65535, "smtp:127.0.0.1:65535");
    good("smtp:[::1]", ROUTE_SMTP, "::1", 0, "smtp:[::1]:25");
    good("smtp:[2001:db8::1]:26", ROUTE_SMTP, "2001:db8::1", 26, "smtp:[2001:db8::1]:26");
    good("lmtp:store.example:24", ROUTE_LMTP, "store.example", 24, "lmtp:store.example:24");
    good("lmtp:unix:/run/lmtp", ROUTE_LMTP, "unix:/run/lmtp", 0, "lmtp:unix:/run/lmtp");
}

static void test_bad(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "MX",
                                      "mx:",
                                      "mx:a..b",
                                      "mx:.a",
                                      "mx:a.",
                                      "mx:a b",
                                      "mx:a:25",
                                      "smtp",
                                      "smtp:",
                                      "smtp:a:",
                                      "smtp:a:0",
                                      "smtp:a:65536",
                                      "smtp:a:-1",
                                      "smtp:a:2:3",
                                      "smtp:::1",
                                      "smtp:[::1",
                                      "smtp:[]",
                                      "smtp:[127.0.0.1]",
                                      "smtp:[::1]25",
                                      "smtp:[::1]:",
                                      "smtp:[x]",
                                      "smtp:unix:/a",
                                      "lmtp:unix:",
                                      "lmtp:unix:a",
                                      "lmtp:",
                                      "http:a",
                                      " mx",
                                      "smtp:a\n",
                                      "smtp:-a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct route r;
        if (route_parse(&r, span_of(bad[i])) != ERR_INVALID)
            fail_msg("accepted: %s", bad[i]);
    }
    struct route r;
    char path[300] = "lmtp:unix:/";
    memset(path + 11, 'a', 200);
    assert_int_equal(route_parse(&r, span_of(path)), ERR_INVALID); /* longer than the kernel takes */
    char host[300] = "smtp:";
    memset(host + 5, 'a', 254);
    assert_int_equal(route_parse(&r, span_of(host)), ERR_INVALID);
}

static const char *find(const struct routes *r, const char *domain) {
    const struct outbound_route *found = routes_find(r, span_of(domain));
    return found ? found->route.host : "none";
}

static void test_most_specific(void **state) {
    (void)state;
    static const struct outbound_route rules[] = {
        {.domain = ".example", .route = {ROUTE_SMTP, "below", 1}},
        {.domain = "example", .route = {ROUTE_SMTP, "exact", 1}},
        {.domain = "a.b.example", .route = {ROUTE_SMTP, "deep", 1}},
        {.domain = ".b.example", .route = {ROUTE_SMTP, "below-b", 1}},
        {.domain = ".net", .route = {ROUTE_SMTP, "net", 1}},
        {.domain = "a.b.example", .route = {ROUTE_SMTP, "second", 1}},
    };
    struct routes *r = routes_new(rules, sizeof rules / sizeof *rules);
    assert_non_null(r);
    assert_string_equal(find(r, "example"), "exact");
    assert_string_equal(find(r, "x.example"), "below");
    assert_string_equal(find(r, "X.y.Example"), "below");
    assert_string_equal(find(r, "a.b.example"), "deep");
    assert_string_equal(find(r, "b.example"), "below-b");
    assert_string_equal(find(r, "c.b.example"), "below-b");
    assert_string_equal(find(r, "net"), "net"); /* a leading dot means the domain itself too */
    assert_string_equal(find(r, "xexample"), "none");
    assert_string_equal(find(r, "example.org"), "none");
    assert_string_equal(find(r, ""), "none");
    assert_string_equal(find(r, "[127.0.0.1]"), "none");
    routes_free(r);
    r = routes_new(NULL, 0);
    assert_string_equal(find(r, "example"), "none");
    routes_free(r);
    static const struct outbound_route all[] = {{.domain = "*", .route = {ROUTE_SMTP, "all", 1}},
                                                {.domain = "a.example", .route = {ROUTE_SMTP, "one", 1}}};
    r = routes_new(all, 2);
    assert_string_equal(find(r, "a.example"), "one");
    assert_string_equal(find(r, "b.a.example"), "all");
    assert_string_equal(find(r, "[127.0.0.1]"), "all");
    routes_free(r);
}

/* Several hosts with shares; the port is for all. */
static void test_targets(void **state) {
    (void)state;
    struct outbound_target t[OUTBOUND_TARGETS_MAX];
    struct route r;
    size_t count;
    assert_int_equal(route_parse_targets(&r, SPAN("smtp:a.example*3,b.example,[2001:db8::1]:587"), t, &count), ERR_OK);
    assert_int_equal(count, 3);
    assert_int_equal(r.kind, ROUTE_SMTP);
    assert_int_equal(r.port, 587);
    assert_string_equal(r.host, "a.example");
    assert_int_equal(t[0].weight, 3);
    assert_int_equal(t[1].weight, 1);
    assert_string_equal(t[2].host, "2001:db8::1");
    assert_int_equal(route_parse_targets(&r, SPAN("lmtp:192.0.2.1,192.0.2.2"), t, &count), ERR_OK);
    assert_int_equal(count, 2);
    assert_int_equal(r.port, 0);
    assert_int_equal(route_parse_targets(&r, SPAN("mx"), t, &count), ERR_OK);
    assert_int_equal(count, 0);
    static const char *const bad[] = {"smtp:a,",     "smtp:,a", "smtp:a*0,b", "smtp:a*x,b", "smtp:a*1001,b",
                                      "smtp:a:25,b", "mx:a,b",  "smtp:a,b:0", "smtp:a,b:x", "lmtp:unix:/x,unix:/y",
                                      "smtp:a b,c"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (route_parse_targets(&r, span_of(bad[i]), t, &count) != ERR_INVALID)
            fail_msg("%s was taken", bad[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_most_specific),
        cmocka_unit_test(test_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
