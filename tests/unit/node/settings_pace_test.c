/* settings of pace: rates, sources and reply rules as read from a file, and every kind of error with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/outbound/rules.h"
#include "node/settings.h"

static char dir[64], path[128], rules[128], secret[128];

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/settings_pace_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/posthouse.yaml", dir);
    snprintf(rules, sizeof rules, "%s/rules.txt", dir);
    snprintf(secret, sizeof secret, "%s/secret", dir);
    return 0;
}

static int drop_dir(void **state) {
    (void)state;
    unlink(path);
    unlink(rules);
    unlink(secret);
    return rmdir(dir);
}

static void put(const char *file, const char *text) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int load(const char *delivery, struct settings **s, struct buf *problems) {
    char text[4096];
    snprintf(text, sizeof text, "node: {hostname: mx1.example.net}\ndelivery:\n%s\n", delivery);
    put(path, text);
    buf_init(problems, 65536);
    return settings_load(s, path, problems);
}

static void all_is_read(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    put(rules, "suspend 10m /x/\nslow 2 1h /y/\n");
    int err = load("  reply_rules: rules.txt\n"
                   "  rates:\n"
                   "    - {site: .Google.com, messages: 6000, window: 1h, connections: 10, per_connection: 50}\n"
                   "    - {domain: \"*\", messages: 5, recipients: 10}\n"
                   "  sources:\n"
                   "    - name: news\n"
                   "      senders: [a.example, b@c.example, .d.example]\n"
                   "      accounts: [alice, \"@tenant.example\"]\n"
                   "      addresses:\n"
                   "        - {address: 192.0.2.1, ehlo: out1.example, weight: 3}\n"
                   "        - {address: \"2001:db8::1\", warm_up: {start: 2026-03-01, messages_first_day: 20}}\n",
                   &s, &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    const struct outbound_settings *o = &s->outbound;
    assert_int_equal(rules_count(o->rules), 2);
    assert_int_equal(o->rate_count, 2);
    assert_string_equal(o->rates[0].site, ".google.com");
    assert_null(o->rates[0].domain);
    assert_int_equal(o->rates[0].messages, 6000);
    assert_int_equal(o->rates[0].window_ms, 3600000);
    assert_int_equal(o->rates[0].connections, 10);
    assert_int_equal(o->rates[0].per_connection, 50);
    assert_string_equal(o->rates[1].domain, "*");
    assert_int_equal(o->rates[1].recipients, 10);
    assert_int_equal(o->pool_count, 1);
    assert_string_equal(o->pools[0].name, "news");
    assert_int_equal(o->pools[0].sender_count, 3);
    assert_int_equal(o->pools[0].account_count, 2);
    assert_string_equal(o->pools[0].accounts[1], "@tenant.example");
    assert_int_equal(o->pools[0].source_count, 2);
    const struct outbound_source *a = o->pools[0].sources;
    assert_string_equal(a[0].ehlo, "out1.example");
    assert_int_equal(a[0].weight, 3);
    assert_int_equal(a[0].warm_first, 0);
    assert_null(a[1].ehlo);
    assert_int_equal(a[1].weight, 1);
    assert_int_equal(a[1].warm_first, 20);
    assert_int_equal(a[1].warm_growth, 50);
    assert_int_equal(a[1].warm_day, 20513);
    settings_free(s);
    buf_deinit(&problems);
}

static void egress_is_read(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    put(secret, "from a file\n");
    char text[2000];
    snprintf(text, sizeof text,
             "  sources:\n"
             "    - name: all\n"
             "      addresses:\n"
             "        - {address: 192.0.2.1, egress: {socks5: \"10.0.0.7:1080\", user: joe, password: secret}}\n"
             "        - {address: 192.0.2.2, egress: {socks5: \"[::1]:1081\", user: j, password_file: %s}}\n"
             "        - {address: 192.0.2.3, egress: {socks5: \"10.0.0.7:1080\"}}\n"
             "        - {address: 192.0.2.4, egress: {proxy_v2: \"10.0.0.8:2525\"}}\n"
             "        - {address: 192.0.2.5}\n",
             secret);
    int err = load(text, &s, &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    const struct outbound_source *a = s->outbound.pools[0].sources;
    assert_int_equal(a[0].egress.kind, EGRESS_SOCKS5);
    assert_string_equal(a[0].egress.user, "joe");
    assert_string_equal(a[0].egress.password, "secret");
    assert_int_equal(tcp_addr_port(&a[0].egress.address), 1080);
    assert_true(tcp_addr_is_v6(&a[1].egress.address));
    assert_string_equal(a[1].egress.password, "from a file");
    assert_null(a[2].egress.user);
    assert_null(a[2].egress.password);
    assert_int_equal(a[3].egress.kind, EGRESS_PROXY_V2);
    assert_int_equal(tcp_addr_port(&a[3].egress.address), 2525);
    assert_int_equal(a[4].egress.kind, EGRESS_DIRECT);
    settings_free(s);
    buf_deinit(&problems);
}

static void long_password(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    char text[300];
    memset(text, 'x', sizeof text);
    text[256] = '\n';
    text[257] = '\0';
    put(secret, text);
    char delivery[400];
    snprintf(delivery, sizeof delivery,
             "  sources: [{name: a, addresses: [{address: 192.0.2.1, egress: {socks5: \"10.0.0.7:1\", "
             "user: j, password_file: %s}}]}]",
             secret);
    assert_int_equal(load(delivery, &s, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "egress.password: at most 255 octets"));
    buf_deinit(&problems);
}

static void nothing_by_default(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    assert_int_equal(load("  port: 25", &s, &problems), ERR_OK);
    assert_null(s->outbound.rules);
    assert_int_equal(s->outbound.rate_count + s->outbound.pool_count, 0);
    settings_free(s);
    buf_deinit(&problems);
}

static void errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"  reply_rules: missing.txt", ":3: delivery.reply_rules: "},
        {"  reply_rules: rules.txt", "rules.txt:2: "},
        {"  rates: [{messages: 3}]", ":3: delivery.rates: each takes either site or domain"},
        {"  rates:\n    - {site: a.example, domain: b.example}", ":4: delivery.rates: each takes either"},
        {"  rates: [{domain: a.example, per_connection: 3}]", "delivery.rates.per_connection: goes with site"},
        {"  rates: [{domain: a.example, window: 2d}]", "delivery.rates.window: out of range"},
        {"  rates: [{domain: a.example, odd: 2}]", "delivery.rates.odd: unknown key"},
        {"  rates: [{domain: [a]}]", "delivery.rates.domain: takes one value"},
        {"  rates: 5", "delivery.rates: "},
        {"  sources: [{addresses: [{address: 192.0.2.1}]}]", ":3: delivery.sources.name: takes letters"},
        {"  sources: [{name: a b, addresses: [{address: 192.0.2.1}]}]", "delivery.sources.name: takes letters"},
        {"  sources: [{name: a}]", "delivery.sources.addresses: missing"},
        {"  sources: [{name: a, addresses: [{weight: 3}]}]", "delivery.sources.addresses.address: missing"},
        {"  sources: [{name: a, addresses: [{address: host}]}]", "addresses.address: takes an IPv4 or IPv6"},
        {"  sources: [{name: a, addresses: [{address: \"unix:/x\"}]}]", "addresses.address: takes an IPv4 or IPv6"},
        {"  sources: [{name: a, addresses: [{address: 192.0.2.1}, {address: 192.0.2.1}]}]", "is there twice"},
        {"  sources: [{name: a, addresses: [{address: 192.0.2.1, weight: 0}]}]", "weight: out of range"},
        {"  sources:\n    - {name: a, addresses: [{address: 192.0.2.1}]}\n    - {name: a, addresses: [{address: "
         "192.0.2.2}]}",
         ":5: delivery.sources.name: is there twice"},
        {"  sources: [{name: a, addresses: [{address: 192.0.2.1, warm_up: {start: 2026-02-30}}]}]",
         "warm_up.start: takes a day"},
        {"  sources: [{name: a, addresses: [{address: 192.0.2.1, warm_up: {growth: 10}}]}]", "warm_up.start: missing"},
#define EGRESS(text) "  sources: [{name: a, addresses: [{address: 192.0.2.1, egress: " text "}]}]"
        {EGRESS("{socks5: \"proxy.example:1080\"}"),
         ":3: delivery.sources.addresses.egress.socks5: takes an IP address"},
        {EGRESS("{socks5: [a, b]}"), "egress.socks5: takes an IP address (no name) and a port"},
        {EGRESS("{proxy_v2: \"unix:/x\"}"), "egress.proxy_v2: takes an IP address (no name) and a port"},
        {EGRESS("{proxy_v2: 10.0.0.8}"), "egress.proxy_v2: takes an IP address (no name) and a port"},
        {EGRESS("{socks5: \"10.0.0.7:1\", user: joe}"), "egress: takes user and password together"},
        {EGRESS("{proxy_v2: \"10.0.0.7:1\", user: j, password: s}"), "egress.user: goes with socks5"},
        {EGRESS("{socks5: \"10.0.0.7:1\", proxy_v2: \"10.0.0.7:1\"}"), "egress: takes either socks5 or proxy_v2"},
        {EGRESS("{}"), "egress: takes socks5 or proxy_v2"},
        {EGRESS("{socks: \"10.0.0.7:1\"}"), "egress.socks: unknown key"},
        {"  sources: [{name: a, senders: [\"a@\"], addresses: [{address: 192.0.2.1}]}]", "senders: takes addresses"},
        {"  sources: [{name: a, accounts: [\"@\"], addresses: [{address: 192.0.2.1}]}]", "accounts: takes names"},
        {"  sources: [{name: a, accounts: [\"a b\"], addresses: [{address: 192.0.2.1}]}]", "accounts: takes names"},
    };
    put(rules, "suspend 10m /x/\nsuspend 10m /(/\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct settings *s;
        struct buf problems;
        assert_int_equal(load(rows[i].text, &s, &problems), ERR_INVALID);
        if (!strstr(buf_cstr(&problems), rows[i].says))
            fail_msg("%s: %s, not %s", rows[i].text, buf_cstr(&problems), rows[i].says);
        buf_deinit(&problems);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(egress_is_read),     cmocka_unit_test(long_password), cmocka_unit_test(all_is_read),
        cmocka_unit_test(nothing_by_default), cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
