/*
 * memory: the model of cluster.h while allocations of the replicas fail at random: nothing is lost, nothing crashes,
 * and when memory is there again all is healed. The replica is compiled into this program a second time.
 */
#include <stdbool.h>
#include <stdlib.h>

static bool refuses(void);
#define malloc(n) (refuses() ? NULL : malloc(n))
#define calloc(n, size) (refuses() ? NULL : calloc(n, size))
#include "scheduler/replica/copy.c"
#include "scheduler/replica/follower.c"
#include "scheduler/replica/history.c"
#include "scheduler/replica/leader.c"
#include "scheduler/replica/oplog.c"
#include "scheduler/replica/replica.c"
#undef malloc
#undef calloc

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/scheduler/replica/cluster.h"

static struct cluster world;
static struct rand luck;
static uint64_t refused;

static bool refuses(void) {
    bool no = !world.healed && world.now > 0 && rand_below(&luck, 10) == 0;
    refused += no;
    return no;
}

static void test_nothing_is_lost(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        rand_init(&luck, seed);
        bool good = cluster_run(&world, seed);
        if (!good)
            print_error("seed %llu: %s\n", (unsigned long long)seed, world.why);
        assert_true(good);
    }
    assert_true(refused > 1000);
}

/* A start without memory fails as a whole. */
static void test_start(void **unused) {
    (void)unused;
    struct replica_config c = REPLICA_CONFIG_DEFAULT;
    c.self = 1;
    uint32_t made = 0;
    rand_init(&luck, 1);
    memset(&world, 0, sizeof world);
    world.now = 1;
    for (uint32_t i = 0; i < 200; i++) {
        struct replica *r = replica_new(&c, &(struct replica_mark){0});
        made += r != NULL;
        replica_free(r);
    }
    assert_in_range(made, 1, 199);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
