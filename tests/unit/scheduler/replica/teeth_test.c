/*
 * teeth: the model of cluster.h finds planted faults. The replica is compiled into this program a second time with the
 * switches for them; each fault must be found within so many seeds, and without any fault nothing is found.
 */
#define REPLICA_FAULTS
#include "scheduler/replica/copy.c"
#include "scheduler/replica/follower.c"
#include "scheduler/replica/history.c"
#include "scheduler/replica/leader.c"
#include "scheduler/replica/oplog.c"
#include "scheduler/replica/replica.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/scheduler/replica/cluster.h"

enum replica_fault replica_fault;
static struct cluster world;

static const struct {
    enum replica_fault fault;
    const char *name;
    uint32_t seeds;
} faults[] = {
    {FAULT_EPOCH, "older epochs are heard", 200},
    {FAULT_SYNC, "acknowledged before it is synced", 200},
    {FAULT_MEMBER, "committed without one member", 200},
    {FAULT_WIPE, "a diverged replica is not wiped", 200},
    {FAULT_LEASE, "leads on when the lease is over", 200},
    {FAULT_FLOOR, "joins a new leader without all that it has", 200},
    {FAULT_SHRINK, "goes on before a removal is agreed", 200},
    {FAULT_GROW, "does not wait for one that joins", 200},
    {FAULT_LIFE, "obeys a late order to wipe", 200},
    {FAULT_PROMISE, "forgets its promise at a restart", 200},
    {FAULT_TWICE, "leads one epoch twice", 200},
    {FAULT_CHUNK, "takes a chunk at any place", 200},
    {FAULT_WIPE_MEMBER, "wipes a member of the set", 200},
    {FAULT_UNFIT, "leads without being whole", 200},
};

static void test_faults_are_found(void **unused) {
    (void)unused;
    uint32_t missed = 0;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        uint64_t seed = 1;
        replica_fault = faults[i].fault;
        while (seed <= faults[i].seeds && cluster_run(&world, seed))
            seed++;
        bool found = seed <= faults[i].seeds;
        missed += !found;
        if (found)
            print_message("%-45s seed %3llu: %s\n", faults[i].name, (unsigned long long)seed, world.why);
        else
            print_error("%-45s not found in %u seeds\n", faults[i].name, faults[i].seeds);
    }
    replica_fault = FAULT_NONE;
    assert_int_equal(missed, 0);
}

static void test_nothing_is_found_without_one(void **unused) {
    (void)unused;
    replica_fault = FAULT_NONE;
    for (uint64_t seed = 1; seed <= 100; seed++)
        assert_true(cluster_run(&world, seed));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_are_found),
        cmocka_unit_test(test_nothing_is_found_without_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
