/* The price of guessing: caps, windows, tries under way, networks, bounds, delays. Time is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/net/guess.h"

enum { WINDOW = 1000 };

static struct guess_key key(struct guess *g, const char *ip) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, span_of(ip), 1), ERR_OK);
    return guess_key_client(g, &a);
}

static bool same(struct guess *g, const char *a, const char *b) {
    struct guess_key x = key(g, a), y = key(g, b);
    return x.a == y.a && x.b == y.b;
}

static void test_keys(void **state) {
    (void)state;
    struct guess *g = guess_new(10);
    assert_false(same(g, "192.0.2.1", "192.0.2.2"));
    assert_true(same(g, "192.0.2.1", "::ffff:192.0.2.1"));
    assert_true(same(g, "2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
    assert_false(same(g, "2001:db8:1:2::1", "2001:db8:1:3::1"));
    assert_true(same(g, "unix:/a", "unix:/b"));
    struct guess_key a = guess_key_account(g, SPAN("Alice@example")), b = guess_key_account(g, SPAN("aLICE@example"));
    assert_true(a.a == b.a && a.b == b.b);
    guess_unref(g);
}

static void test_cap_and_window(void **state) {
    (void)state;
    struct guess *g = guess_new(10);
    struct guess_key k = key(g, "192.0.2.1");
    for (uint32_t i = 1; i <= 3; i++) {
        assert_false(guess_is_over(g, k, 3, WINDOW, 100 + i));
        assert_int_equal(guess_admit(g, k, 3, WINDOW, 100 + i), GUESS_GO);
        assert_int_equal(guess_end(g, k, true, WINDOW, 100 + i), i);
    }
    assert_true(guess_is_over(g, k, 3, WINDOW, 200));
    assert_int_equal(guess_admit(g, k, 3, WINDOW, 200), GUESS_REFUSED);
    assert_int_equal(guess_admit(g, k, 3, WINDOW, 100 + WINDOW), GUESS_REFUSED); /* the first failure was at 101 */
    assert_int_equal(guess_admit(g, k, 3, WINDOW, 101 + WINDOW), GUESS_GO);
    assert_int_equal(guess_end(g, k, false, WINDOW, 101 + WINDOW), 0);
    assert_int_equal(guess_count(g), 0); /* nothing bad is known of it any more */
    guess_unref(g);
}

static void test_under_way(void **state) {
    (void)state;
    struct guess *g = guess_new(10);
    struct guess_key k = key(g, "192.0.2.1");
    assert_int_equal(guess_admit(g, k, 2, WINDOW, 1), GUESS_GO);
    assert_int_equal(guess_admit(g, k, 2, WINDOW, 1), GUESS_GO);
    assert_int_equal(guess_admit(g, k, 2, WINDOW, 1), GUESS_WAIT);
    assert_int_equal(guess_end(g, k, false, WINDOW, 2), 0);
    assert_int_equal(guess_admit(g, k, 2, WINDOW, 2), GUESS_GO);
    assert_int_equal(guess_end(g, k, true, WINDOW, 3), 1);
    assert_int_equal(guess_admit(g, k, 2, WINDOW, 3), GUESS_WAIT);
    assert_int_equal(guess_end(g, k, true, WINDOW, 3), 2);
    assert_int_equal(guess_admit(g, k, 2, WINDOW, 3), GUESS_REFUSED);
    guess_unref(g);
}

static void test_bound(void **state) {
    (void)state;
    struct guess *g = guess_new(3);
    char ip[32];
    for (int i = 0; i < 3; i++) {
        snprintf(ip, sizeof ip, "192.0.2.%d", i);
        assert_int_equal(guess_admit(g, key(g, ip), 9, WINDOW, 1), GUESS_GO);
    }
    struct guess_key more = key(g, "198.51.100.1");
    assert_int_equal(guess_admit(g, more, 9, WINDOW, 1), GUESS_REFUSED); /* all are under way */
    guess_end(g, key(g, "192.0.2.1"), true, WINDOW, 1);
    guess_end(g, key(g, "192.0.2.0"), true, WINDOW, 1);
    assert_int_equal(guess_admit(g, more, 9, WINDOW, 1), GUESS_GO); /* the oldest made room */
    assert_int_equal(guess_count(g), 3);
    assert_true(guess_is_over(g, key(g, "192.0.2.0"), 1, WINDOW, 1));
    assert_false(guess_is_over(g, key(g, "192.0.2.1"), 1, WINDOW, 1));
    guess_unref(g);
}

static void test_delay(void **state) {
    (void)state;
    assert_int_equal(guess_delay_ms(0, 1000), 1000);
    assert_int_equal(guess_delay_ms(1, 1000), 1000);
    assert_int_equal(guess_delay_ms(2, 1000), 2000);
    assert_int_equal(guess_delay_ms(5, 1000), 16000);
    assert_int_equal(guess_delay_ms(6, 1000), 16000);
    assert_int_equal(guess_delay_ms(UINT32_MAX, 1000), 16000);
    assert_int_equal(guess_delay_ms(4, 3000), 16000);
    assert_int_equal(guess_delay_ms(UINT32_MAX, 0), 0);
    assert_int_equal(guess_delay_ms(9, 60000), 60000); /* as configured */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),  cmocka_unit_test(test_cap_and_window), cmocka_unit_test(test_under_way),
        cmocka_unit_test(test_bound), cmocka_unit_test(test_delay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
