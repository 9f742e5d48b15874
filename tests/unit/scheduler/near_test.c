/* near: the bounded heap of due times that are too close for the due index. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rand.h"
#include "scheduler/near.h"

static void pops_in_order_of_time(void **state) {
    (void)state;
    struct near n;
    struct rand r;
    near_init(&n);
    rand_init(&r, 7);
    for (uint64_t i = 0; i < 5000; i++) {
        uint64_t due_ms = rand_below(&r, 100000);
        near_add(&n, due_ms, due_ms + 1);
    }
    uint64_t last = 0;
    for (size_t i = 0; i < 5000; i++) {
        uint64_t next = near_next_ms(&n);
        assert_true(next >= last);
        assert_int_equal(near_pop(&n), next + 1);
        last = next;
    }
    assert_int_equal(near_next_ms(&n), UINT64_MAX);
    near_deinit(&n);
}

static void is_bounded(void **state) {
    (void)state;
    struct near n;
    near_init(&n);
    for (uint64_t i = 0; i < NEAR_MAX + 100u; i++)
        assert_int_equal(near_add(&n, i, i + 1), i < NEAR_MAX); /* what does not fit is told */
    assert_int_equal(n.count, NEAR_MAX);
    assert_int_equal(near_pop(&n), 1);
    near_deinit(&n);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pops_in_order_of_time), cmocka_unit_test(is_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
