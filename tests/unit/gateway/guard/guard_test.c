/* guard: slow answers, kept slots, configurations that are refused, and that what is off says nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "gateway/guard/guard.h"

#define DAY (24ull * 3600 * 1000)

static struct guard *g;

static struct tcp_addr addr_of(const char *ip) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, span_of(ip), 25), ERR_OK);
    return a;
}

static void bad_clients_are_slowed(void **state) {
    (void)state;
    struct guard_config c = {.slow_mode = GUARD_ENFORCE, .slow_after_errors = 3};
    struct guard_client gc = {.ip = "192.0.2.1"};
    assert_int_equal(guard_new(&g, &c), ERR_OK);
    assert_int_equal(guard_slow_ms(g, &gc, 0), 0);
    assert_int_equal(guard_slow_ms(g, &gc, 2), 0);
    assert_false(gc.slow_told);
    assert_int_equal(guard_slow_ms(g, &gc, 3), 2000);
    assert_true(gc.slow_told);
    gc.slow = true;
    assert_int_equal(guard_slow_ms(g, &gc, 0), 2000);
    c.slow_ms = 70;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_int_equal(guard_slow_ms(g, &gc, 0), 70);
    gc.only_logged = true; /* lists that only log slow nobody; errors do */
    assert_int_equal(guard_slow_ms(g, &gc, 0), 0);
    assert_true(gc.slow_would_told);
    assert_int_equal(guard_slow_ms(g, &gc, 3), 70);
    c.slow_mode = GUARD_LOG;
    gc.slow_told = gc.slow_would_told = false;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_int_equal(guard_slow_ms(g, &gc, 9), 0);
    assert_true(gc.slow_would_told);
    c.slow_mode = GUARD_OFF;
    gc.slow_would_told = false;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_int_equal(guard_slow_ms(g, &gc, 9), 0);
    assert_false(gc.slow_told || gc.slow_would_told);
    guard_free(g);
}

static void slots_are_kept_for_the_good(void **state) {
    (void)state;
    struct guard_config c = {.reserved_percent = 10};
    struct tcp_addr good = addr_of("2001:db8::1"), neighbour = addr_of("2001:db8::2"), bad = addr_of("192.0.2.1");
    struct check_facts f = {.client = &good};
    assert_int_equal(guard_new(&g, &c), ERR_OK);
    assert_true(guard_may_enter(g, &bad, false, 89, 100, 5));
    assert_false(guard_may_enter(g, &bad, false, 90, 100, 5));
    assert_false(guard_may_enter(g, &good, false, 90, 100, 5));
    assert_true(guard_may_enter(g, &bad, true, 90, 100, 5)); /* trusted */
    guard_praise(g, &f, 5);
    assert_true(guard_may_enter(g, &good, false, 99, 100, 5));
    assert_true(guard_may_enter(g, &neighbour, false, 99, 100, 5)); /* the same network */
    assert_false(guard_may_enter(g, &bad, false, 99, 100, 5));
    assert_false(guard_may_enter(g, &good, true, 100, 100, 5)); /* full is full */
    assert_true(guard_may_enter(g, &good, false, 99, 100, 4 + 7 * DAY));
    assert_false(guard_may_enter(g, &good, false, 99, 100, 5 + 7 * DAY));
    c.reserved_percent = 0;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_true(guard_may_enter(g, &bad, false, 99, 100, 5));
    c.reserved_percent = 100;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_false(guard_may_enter(g, &bad, false, 0, 100, 5));
    assert_true(guard_may_enter(g, &bad, true, 0, 100, 5));
    guard_free(g);
}

static void good_networks_are_bounded(void **state) {
    (void)state;
    struct guard_config c = {.reserved_percent = 10, .good_entries = 64};
    char ip[32];
    struct tcp_addr a = addr_of("192.0.2.1");
    struct check_facts f = {.client = &a};
    assert_int_equal(guard_new(&g, &c), ERR_OK);
    guard_praise(g, &f, 5);
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(ip, sizeof ip, "10.0.%u.%u", i / 256, i % 256);
        a = addr_of(ip);
        guard_praise(g, &f, 5);
    }
    assert_true(guard_may_enter(g, &a, false, 99, 100, 5));
    a = addr_of("192.0.2.1");
    assert_false(guard_may_enter(g, &a, false, 99, 100, 5));
    guard_free(g);
}

static void bad_configurations_are_refused(void **state) {
    (void)state;
    static const struct guard_dnslist wrong[] = {
        {.zone = "bl example"},
        {.zone = ""},
        {.zone = "bl.example", .answer = "here"},
        {.zone = "bl.example", .answer = "192.0.2.1"}, /* outside of 127/8 */
        {.zone = "bl.example", .answer = "0.0.0.0/0"},
        {.zone = "bl.example", .answer = "::1"},
        {.zone = "a123456789.a123456789.a123456789.a123456789.a123456789.a123456789.a123456789.a123456789.a123456789."
                 "a123456789.a123456789.a123456789.a123456789.a123456789.a123456789.a123456789.a123456789.a12"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct guard_config c = {.dnslist_mode = GUARD_ENFORCE, .dnslists = &wrong[i], .dnslist_count = 1};
        assert_int_equal(guard_new(&g, &c), ERR_INVALID);
        assert_non_null(guard_config_is_wrong(&c));
    }
    struct guard_config many = {.dnslists = wrong, .dnslist_count = GUARD_DNSLISTS_MAX + 1};
    assert_int_equal(guard_new(&g, &many), ERR_INVALID);
    struct guard_config bits = {.v4_bits = 33};
    assert_int_equal(guard_new(&g, &bits), ERR_INVALID);
    bits = (struct guard_config){.v6_bits = 129};
    assert_int_equal(guard_new(&g, &bits), ERR_INVALID);
    bits = (struct guard_config){.reserved_percent = 101};
    assert_int_equal(guard_new(&g, &bits), ERR_INVALID);
    bits = (struct guard_config){.grey_retry_ms = 60000}; /* the default delay is longer */
    assert_int_equal(guard_new(&g, &bits), ERR_INVALID);
    bits = (struct guard_config){.reserved_percent = 100};
    assert_null(guard_config_is_wrong(&bits));
}

static void what_is_off_says_nothing(void **state) {
    (void)state;
    struct guard_config c = {.per_client = {.messages = 1, .connections = 1}};
    struct tcp_addr a = addr_of("192.0.2.1");
    struct check_facts f = {.client = &a, .client_ip = SPAN("192.0.2.1"), .recipient = SPAN("b@y.example")};
    struct guard_client gc;
    struct check_verdict v;
    struct check_wait *wait = NULL;
    assert_int_equal(guard_new(&g, &c), ERR_OK);
    assert_int_equal(guard_connect(g, NULL, NULL, &f, &gc, &v, &wait, NULL, NULL), ERR_OK);
    assert_int_equal(v.action, CHECK_PASS);
    assert_null(wait);
    assert_string_equal(gc.ip, "192.0.2.1");
    for (int i = 0; i < 3; i++) {
        guard_count_connection(g, &f, 5, &v);
        assert_int_equal(v.action, CHECK_PASS);
        guard_count_mail(g, &f, 5, &v);
        assert_int_equal(v.action, CHECK_PASS);
        guard_greylist(g, &f, &gc, 5, &v);
        assert_int_equal(v.action, CHECK_PASS);
    }
    guard_free(g);
    guard_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_clients_are_slowed),    cmocka_unit_test(slots_are_kept_for_the_good),
        cmocka_unit_test(good_networks_are_bounded), cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(what_is_off_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
