/*
 * rendezvous: shares are proportional to weights, who comes or goes moves its own share alone, and the numbers are the
 * same on all machines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rendezvous.h"

#define KEYS 20000u

static uint32_t winner(uint32_t key, const uint32_t *weights, uint32_t count) {
    uint32_t best = 0;
    struct rendezvous most = {0};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t pair[2] = {key, i};
        struct rendezvous r = {hash_bytes(pair, sizeof pair, 0), weights[i]};
        if (i == 0 || rendezvous_wins(r, most)) {
            best = i;
            most = r;
        }
    }
    return best;
}

static void test_shares_follow_weights(void **unused) {
    (void)unused;
    static const uint32_t weights[4] = {1, 2, 3, 4};
    uint32_t shares[4] = {0};
    for (uint32_t key = 0; key < KEYS; key++)
        shares[winner(key, weights, 4)]++;
    for (uint32_t i = 0; i < 4; i++)
        assert_in_range(shares[i], KEYS / 10 * weights[i] * 9 / 10, KEYS / 10 * weights[i] * 11 / 10);
}

static void test_only_its_own_share_moves(void **unused) {
    (void)unused;
    static const uint32_t before[4] = {100, 100, 100, 0}, after[4] = {100, 100, 100, 50};
    uint32_t moved = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        uint32_t a = winner(key, before, 4), b = winner(key, after, 4);
        assert_int_not_equal(a, 3); /* weight 0 wins nothing */
        assert_true(a == b || b == 3);
        moved += a != b;
    }
    assert_in_range(moved, KEYS / 7 * 9 / 10, KEYS / 7 * 11 / 10);
}

static void test_equal_weights_go_by_hash(void **unused) {
    (void)unused;
    struct rendezvous a = {UINT64_MAX, 7}, b = {UINT64_MAX - 1, 7};
    assert_true(rendezvous_wins(a, b));
    assert_false(rendezvous_wins(b, a));
    assert_false(rendezvous_wins(a, a));
    a.weight = 0;
    assert_false(rendezvous_wins(a, b));
    assert_true(rendezvous_wins(b, a));
    assert_false(rendezvous_wins(a, a));
}

static void test_logarithm(void **unused) {
    (void)unused;
    assert_true(rendezvous_log(0) == (uint64_t)64 << 32);
    assert_in_range(rendezvous_log((uint64_t)1 << 63), ((uint64_t)1 << 32) - 2, ((uint64_t)1 << 32) + 2);
    assert_in_range(rendezvous_log((uint64_t)1 << 60), ((uint64_t)4 << 32) - 2, ((uint64_t)4 << 32) + 2);
    /* -log2(3/4) = 0.41503749927884 */
    assert_in_range(rendezvous_log((uint64_t)3 << 62), 1782572480, 1782572490);
    assert_in_range(rendezvous_log(UINT64_MAX), 1, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_follow_weights),
        cmocka_unit_test(test_only_its_own_share_moves),
        cmocka_unit_test(test_equal_weights_go_by_hash),
        cmocka_unit_test(test_logarithm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
