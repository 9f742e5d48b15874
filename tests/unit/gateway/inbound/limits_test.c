/* limits: counting of connections by network, and the two pools of memory, from many threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/inbound/limits.h"

static struct tcp_addr address(const char *text) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, span_of(text), 4000), ERR_OK);
    return a;
}

static void test_per_client(void **state) {
    struct limits l;
    struct limits_client *c[4], *none;
    struct tcp_addr a = address("192.0.2.1"), b = address("192.0.2.2");
    (void)state;
    limits_init(&l);
    assert_int_equal(limits_enter(&l, &a, 10, 2, &c[0]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &a, 10, 2, &c[1]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &a, 10, 2, &none), LIMITS_CLIENT);
    assert_null(none);
    assert_int_equal(limits_enter(&l, &b, 10, 2, &c[2]), LIMITS_WELCOME);
    limits_leave(&l, c[0]);
    assert_int_equal(limits_enter(&l, &a, 10, 2, &c[3]), LIMITS_WELCOME);
    for (int i = 1; i < 4; i++)
        limits_leave(&l, c[i]);
    assert_int_equal(limits_enter(&l, &a, 10, 0, &none), LIMITS_CLIENT);
    limits_deinit(&l);
}

static void test_total(void **state) {
    struct limits l;
    struct limits_client *c[2], *none;
    struct tcp_addr a = address("192.0.2.1"), b = address("192.0.2.2");
    (void)state;
    limits_init(&l);
    assert_int_equal(limits_enter(&l, &a, 2, 9, &c[0]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &b, 2, 9, &c[1]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &b, 2, 9, &none), LIMITS_TOTAL);
    limits_leave(&l, c[0]);
    limits_leave(&l, c[1]);
    limits_deinit(&l);
}

/* IPv6 clients count by /64, and an IPv4-mapped address as the IPv4 address. */
static void test_networks(void **state) {
    struct limits l;
    struct limits_client *c[3], *none;
    struct tcp_addr a = address("2001:db8:1:2::1"), b = address("2001:db8:1:2:ffff::9"),
                    other = address("2001:db8:1:3::1");
    struct tcp_addr four = address("192.0.2.1"), mapped = address("::ffff:192.0.2.1");
    (void)state;
    limits_init(&l);
    assert_int_equal(limits_enter(&l, &a, 9, 1, &c[0]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &b, 9, 1, &none), LIMITS_CLIENT);
    assert_int_equal(limits_enter(&l, &other, 9, 1, &c[1]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &four, 9, 1, &c[2]), LIMITS_WELCOME);
    assert_int_equal(limits_enter(&l, &mapped, 9, 1, &none), LIMITS_CLIENT);
    for (int i = 0; i < 3; i++)
        limits_leave(&l, c[i]);
    limits_deinit(&l);
}

static void test_memory(void **state) {
    struct limits l;
    (void)state;
    limits_init(&l);
    limits_set_memory(&l, 0); /* never below what one long body needs */
    assert_true(limits_borrow(&l, LIMITS_POOL_LONG, 1 << 20));
    assert_false(limits_borrow(&l, LIMITS_POOL_LONG, 1));
    assert_true(limits_borrow(&l, LIMITS_POOL_SHORT, 1 << 20));
    limits_set_memory(&l, 4 << 20);
    assert_true(limits_borrow(&l, LIMITS_POOL_LONG, 1 << 20));
    assert_false(limits_borrow(&l, LIMITS_POOL_LONG, 1));
    limits_set_memory(&l, 0); /* what is lent stays lent */
    assert_false(limits_borrow(&l, LIMITS_POOL_LONG, 1));
    limits_give_back(&l, LIMITS_POOL_LONG, 2 << 20);
    assert_true(limits_borrow(&l, LIMITS_POOL_LONG, 1));
    assert_false(limits_borrow(&l, LIMITS_POOL_LONG, UINT64_MAX));
    limits_deinit(&l);
}

static void *hammer(void *arg) {
    struct limits *l = arg;
    struct tcp_addr a = address("192.0.2.1");
    for (int i = 0; i < 20000; i++) {
        struct limits_client *c;
        if (limits_enter(l, &a, 3, 2, &c) == LIMITS_WELCOME)
            limits_leave(l, c);
        if (limits_borrow(l, LIMITS_POOL_SHORT, 600000))
            limits_give_back(l, LIMITS_POOL_SHORT, 600000);
    }
    return NULL;
}

static void test_threads(void **state) {
    struct limits l;
    pthread_t threads[4];
    (void)state;
    limits_init(&l);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &l), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(l.connections, 0);
    assert_int_equal(atomic_load(&l.used[LIMITS_POOL_SHORT]), 0);
    limits_deinit(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_per_client), cmocka_unit_test(test_total),   cmocka_unit_test(test_networks),
        cmocka_unit_test(test_memory),     cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
