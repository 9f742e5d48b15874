/*
 * memory: the model of cluster.h while allocations of the replicas fail at random: nothing is lost, nothing crashes,
 * and when memory is there again all is healed. The replica is compiled into this program a second time.
 * `unit_scheduler_replica_memory FROM TO` runs any row of seeds.
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
#include "tests/unit/scheduler/replica/rig.h"

static struct cluster world;
static struct rand luck;
static uint64_t refused;
static bool none; /* no memory at all */

static bool refuses(void) {
    bool no = none || (!world.healed && world.now > 0 && rand_below(&luck, 10) == 0);
    refused += no;
    return no;
}

static bool run(uint64_t seed) {
    rand_init(&luck, seed);
    return cluster_run_told(&world, seed);
}

static void test_nothing_is_lost(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 100; seed++)
        assert_true(run(seed));
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

/* Who could not be remembered as a peer is asked when there is memory again, member or not, alone or one of many. */
static void test_peers_later(void **unused) {
    (void)unused;
    memset(&world, 0, sizeof world);
    struct rig g = begin(config(), &at_five);
    g.record.replicas = (struct replica_set){3, {1, 3, LEADER}};
    lease(&g, g.now + 100000);
    none = true;
    record(&g, 4, SELF, (struct replica_set){1, {SELF}});
    written(&g);
    assert_null(sent(&g, 3, REPLICA_OPEN));
    none = false;
    tick(&g, 10);
    assert_non_null(sent(&g, 3, REPLICA_OPEN));
    assert_non_null(sent(&g, LEADER, REPLICA_OPEN));
    none = true;
    g.record.replicas = (struct replica_set){4, {1, 2, 3, LEADER}};
    record(&g, 4, SELF, (struct replica_set){2, {SELF, 2}});
    none = false;
    assert_null(sent(&g, 2, REPLICA_OPEN));
    tick(&g, 10);
    assert_non_null(sent(&g, 2, REPLICA_OPEN));
    replica_free(g.r);
}

int main(int argc, char **argv) {
    if (argc > 1)
        return cluster_run_row(argc, argv, run);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_peers_later),
        cmocka_unit_test(test_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
