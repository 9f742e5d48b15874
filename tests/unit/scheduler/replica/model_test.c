/*
 * model: thousands of random lives of a cluster of replicas against the oracles of cluster.h. A failure prints its
 * seed; `unit_scheduler_replica_model SEED` runs that one alone, `... FROM TO` a row of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/scheduler/replica/cluster.h"

#define SEEDS 400u

static struct cluster world;

static bool run(uint64_t seed) {
    return cluster_run_told(&world, seed);
}

static void test_seeds(void **unused) {
    (void)unused;
    uint64_t commits = 0, leads = 0, wipes = 0, chunks = 0, lost = 0, handed = 0, fulls = 0, refused = 0, sets = 0,
             fetches = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        assert_true(run(seed));
        commits += world.commits;
        leads += world.leads;
        wipes += world.wipes;
        chunks += world.chunks;
        lost += world.lost_disks;
        handed += world.handed;
        fulls += world.fulls;
        refused += world.refused;
        sets += world.sets;
        fetches += world.fetches;
    }
    print_message(
        "%llu commits, %llu takeovers, %llu handed over, %llu changes of the record, %llu wipes, %llu chunks, "
        "%llu disks lost, %llu full, %llu refused\n",
        (unsigned long long)commits, (unsigned long long)leads, (unsigned long long)handed, (unsigned long long)sets,
        (unsigned long long)wipes, (unsigned long long)chunks, (unsigned long long)lost, (unsigned long long)fulls,
        (unsigned long long)refused);
    /* A test that reaches none of these would prove nothing. */
    assert_true(commits > SEEDS * 20 && leads > SEEDS && handed && wipes > SEEDS && chunks > wipes && lost && fetches &&
                fulls && refused);
}

static void test_same_seed_same_run(void **unused) {
    (void)unused;
    for (uint64_t seed = 5000; seed < 5010; seed++) {
        assert_true(run(seed));
        uint64_t hash = world.hash;
        void *other = malloc(100000 + seed); /* another layout of the heap */
        assert_true(run(seed));
        free(other);
        assert_true(hash == world.hash);
    }
}

int main(int argc, char **argv) {
    if (argc > 1)
        return cluster_run_row(argc, argv, run);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_same_seed_same_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
