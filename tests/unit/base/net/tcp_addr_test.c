/* tcp_addr: reading, writing and comparing addresses; networks; what is never a target. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/net/tcp.h"

static struct tcp_addr addr(const char *text) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, span_of(text), 25), ERR_OK);
    return a;
}

static void reads_and_writes(void **state) {
    (void)state;
    static const struct {
        const char *text, *formatted;
        bool v6;
    } good[] = {{"127.0.0.1", "127.0.0.1:25", false},
                {"::1", "[::1]:25", true},
                {"[2001:db8::1]", "[2001:db8::1]:25", true},
                {"::ffff:192.0.2.1", "192.0.2.1:25", false},
                {"unix:/run/a", "unix:/run/a", false}};
    char text[128];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct tcp_addr a = addr(good[i].text);
        assert_int_equal(tcp_addr_format(&a, text, sizeof text), strlen(good[i].formatted));
        assert_string_equal(text, good[i].formatted);
        assert_int_equal(tcp_addr_is_v6(&a), good[i].v6);
    }
    struct tcp_addr a = addr("::ffff:192.0.2.1");
    tcp_addr_ip(&a, text, sizeof text);
    assert_string_equal(text, "192.0.2.1");
    static const char *const bad[] = {"",     "1.2.3",     "1.2.3.4.5",  "1.2.3.256", ":::",      "[1.2.3.4]", "[::1",
                                      "::1]", "localhost", "fe80::1%lo", "unix:",     "1.2.3.4 ", " 1.2.3.4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tcp_addr_parse(&a, span_of(bad[i]), 0), ERR_INVALID);
    char longest[140] = "unix:/";
    memset(longest + 6, 'x', 120);
    assert_int_equal(tcp_addr_parse(&a, span_of(longest), 0), ERR_INVALID);
    longest[5 + 107] = '\0';
    assert_int_equal(tcp_addr_parse(&a, span_of(longest), 0), ERR_OK);
    assert_int_equal(tcp_addr_parse(&a, SPAN("1.2.3.4\0"), 0), ERR_INVALID);
}

static void reads_ports(void **state) {
    (void)state;
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse_port(&a, SPAN("127.0.0.1:2525")), ERR_OK);
    assert_int_equal(tcp_addr_port(&a), 2525);
    assert_int_equal(tcp_addr_parse_port(&a, SPAN("[::1]:65535")), ERR_OK);
    assert_int_equal(tcp_addr_port(&a), 65535);
    static const char *const bad[] = {"127.0.0.1", "127.0.0.1:",    ":25",        "::1:25",
                                      "[::1]",     "1.2.3.4:65536", "1.2.3.4:-1", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tcp_addr_parse_port(&a, span_of(bad[i])), ERR_INVALID);
}

static void sorts_kinds(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool loopback, unusable, local;
    } kinds[] = {{"127.0.0.1", true, false, true},   {"127.9.9.9", true, false, true},
                 {"::1", true, false, true},         {"::ffff:127.0.0.1", true, false, true},
                 {"0.0.0.0", false, true, false},    {"0.1.2.3", false, true, false},
                 {"::", false, true, false},         {"::ffff:0.0.0.0", false, true, false},
                 {"224.0.0.1", false, true, false},  {"240.0.0.1", false, true, false},
                 {"ff02::1", false, true, false},    {"255.255.255.255", false, true, false},
                 {"192.0.2.1", false, false, false}, {"2001:db8::1", false, false, false}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct tcp_addr a = addr(kinds[i].text);
        assert_int_equal(tcp_addr_is_loopback(&a), kinds[i].loopback);
        assert_int_equal(tcp_addr_is_unusable(&a), kinds[i].unusable);
        assert_int_equal(tcp_addr_is_local(&a), kinds[i].local);
    }
    struct tcp_addr a = addr("192.0.2.1"), b = addr("::ffff:192.0.2.1"), c = addr("192.0.2.2"), u = addr("unix:/a");
    assert_true(tcp_addr_same_ip(&a, &b));
    assert_false(tcp_addr_same_ip(&a, &c));
    assert_false(tcp_addr_same_ip(&u, &u));
}

static void networks_hold_their_addresses(void **state) {
    (void)state;
    static const struct {
        const char *net, *in, *out;
    } cases[] = {{"127.0.0.0/8", "127.255.0.1", "128.0.0.1"},
                 {"192.0.2.128/25", "192.0.2.129", "192.0.2.127"},
                 {"192.0.2.1", "192.0.2.1", "192.0.2.2"},
                 {"2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"},
                 {"2001:db8::/33", "2001:db8::1", "2001:db8:8000::"},
                 {"0.0.0.0/0", "1.2.3.4", "::1"},
                 {"::1", "::1", "::2"},
                 {"10.0.0.0/8", "::ffff:10.1.2.3", "11.0.0.0"}};
    struct tcp_net n;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tcp_net_parse(&n, span_of(cases[i].net)), ERR_OK);
        struct tcp_addr in = addr(cases[i].in), out = addr(cases[i].out);
        assert_true(tcp_net_has(&n, &in));
        assert_false(tcp_net_has(&n, &out));
    }
    struct tcp_addr u = addr("unix:/a");
    assert_false(tcp_net_has(&n, &u));
    static const char *const bad[] = {"",       "127.0.0.1/8", "127.0.0.0/", "127.0.0.0/33", "::/129", "127.0.0.0/x",
                                      "::1/64", "unix:/a",     "10/8"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tcp_net_parse(&n, span_of(bad[i])), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_writes),
        cmocka_unit_test(reads_ports),
        cmocka_unit_test(sorts_kinds),
        cmocka_unit_test(networks_hold_their_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
