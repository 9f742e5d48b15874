/*
 * placement: single goals by hand, and random clusters that are driven, step by step, until nothing is to be done: then
 * replicas and leaderships are balanced within 1, zones are spread, nothing is on nodes that leave, and on the way
 * never more than one replica of a shard moved, nobody led without being in sync, and enough stayed in sync.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rand.h"
#include "scheduler/replica/placement.h"

#define NODES 12u
#define SHARDS 40u

static struct placement_node nodes[NODES];
static struct placement_shard shards[SHARDS];
static struct placement_goal goals[SHARDS];
static struct placement_step steps[SHARDS];
static uint32_t step_count;
static uint64_t seed_now;

static bool has(const struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node)
            return true;
    return false;
}

static void drop(struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node)
            s->nodes[i--] = s->nodes[--s->count];
}

static struct placement world(uint32_t node_count, uint32_t shard_count, uint32_t wanted) {
    for (uint32_t i = 0; i < NODES; i++)
        nodes[i] = (struct placement_node){.node = i + 1, .capacity = 1, .live = true, .version = 1};
    for (uint32_t i = 0; i < SHARDS; i++)
        shards[i] = (struct placement_shard){
            .record = {.version = 1, .epoch = 1, .leader = 1, .in_sync = {1, {1}}, .replicas = {1, {1}}}};
    return (struct placement){.nodes = nodes,
                              .node_count = node_count,
                              .shards = shards,
                              .shard_count = shard_count,
                              .wanted = wanted,
                              .copies_max = SHARDS};
}

static void plan(const struct placement *p) {
    assert_int_equal(placement_plan(p, goals, steps, SHARDS, &step_count), ERR_OK);
}

/* Does one step as leader and controller would; the checks hold for each. */
static void apply(const struct placement *p, const struct placement_step *s) {
    struct replica_record *r = &shards[s->shard].record;
    struct placement_node *n = NULL;
    for (uint32_t i = 0; i < p->node_count; i++)
        if (nodes[i].node == s->node)
            n = &nodes[i];
    switch (s->kind) {
    case PLACEMENT_FAIL_OVER:
    case PLACEMENT_HAND_OVER:
        assert_non_null(n);
        assert_true(n->live && has(&r->in_sync, s->node) && s->node != r->leader);
        r->leader = s->node;
        r->epoch++;
        break;
    case PLACEMENT_ADD:
        assert_non_null(n);
        assert_true(n->live && !n->draining && !n->leaving && !has(&r->replicas, s->node));
        assert_true(r->replicas.count < REPLICA_SET_MAX);
        for (uint32_t i = 0; i < p->node_count; i++) /* one at a time */
            assert_true(!nodes[i].live || !has(&r->replicas, nodes[i].node) || has(&r->in_sync, nodes[i].node) ||
                        !has(&goals[s->shard].replicas, nodes[i].node));
        r->replicas.nodes[r->replicas.count++] = s->node;
        break;
    case PLACEMENT_REMOVE:
        assert_true(has(&r->replicas, s->node) && s->node != r->leader);
        drop(&r->replicas, s->node);
        if (has(&r->in_sync, s->node)) {
            uint32_t live = 0;
            for (uint32_t i = 0; i < p->node_count; i++)
                live += nodes[i].live && !nodes[i].draining && !nodes[i].leaving;
            assert_true(r->in_sync.count - 1 >= (p->wanted < live ? p->wanted : live) || r->in_sync.count > 1);
        }
        drop(&r->in_sync, s->node);
        break;
    }
    r->version++;
}

/* Some of those that copy are whole now. */
static void catch_up(const struct placement *p, struct rand *rand) {
    for (uint32_t i = 0; i < p->shard_count; i++) {
        struct replica_record *r = &shards[i].record;
        for (uint32_t k = 0; k < p->node_count; k++)
            if (nodes[k].live && has(&r->replicas, nodes[k].node) && !has(&r->in_sync, nodes[k].node) &&
                rand_below(rand, 2))
                r->in_sync.nodes[r->in_sync.count++] = nodes[k].node;
    }
}

static uint32_t drive(const struct placement *p, struct rand *rand) {
    uint32_t moves = 0, idle = 0;
    for (uint32_t round = 0; round < 4000; round++) {
        plan(p);
        bool seen[SHARDS] = {false};
        for (uint32_t i = 0; i < step_count; i++) {
            assert_false(seen[steps[i].shard]); /* one for each shard */
            seen[steps[i].shard] = true;
            if (rand_below(rand, 4) == 0)
                continue; /* it did not work out this time */
            apply(p, &steps[i]);
            moves += steps[i].kind == PLACEMENT_ADD;
        }
        catch_up(p, rand);
        idle = step_count ? 0 : idle + 1;
        if (idle > 20)
            return moves;
    }
    fail_msg("it does not come to an end");
    return 0;
}

static uint32_t replicas_of(const struct placement *p, uint32_t node) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->shard_count; i++)
        n += has(&shards[i].record.replicas, node);
    return n;
}

static uint32_t leads_of(const struct placement *p, uint32_t node) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->shard_count; i++)
        n += shards[i].record.leader == node;
    return n;
}

static bool takes(const struct placement_node *n) {
    return n->live && !n->draining && !n->leaving;
}

/* Whether some shard's replica (or leadership) could go from a to b. */
static bool could_move(const struct placement *p, uint32_t a, uint32_t b, bool leaders) {
    for (uint32_t i = 0; i < p->shard_count; i++) {
        const struct replica_record *r = &shards[i].record;
        if (leaders ? r->leader == a && has(&r->in_sync, b) : has(&r->replicas, a) && !has(&r->replicas, b))
            return true;
    }
    return false;
}

/* No single move would make it more even: for equal capacities that is within 1. */
static void assert_balanced(const struct placement *p, bool leaders) {
    for (uint32_t a = 0; a < p->node_count; a++)
        for (uint32_t b = 0; b < p->node_count; b++) {
            if (!takes(&nodes[a]) || !takes(&nodes[b]))
                continue;
            uint64_t of_a = leaders ? leads_of(p, nodes[a].node) : replicas_of(p, nodes[a].node);
            uint64_t of_b = leaders ? leads_of(p, nodes[b].node) : replicas_of(p, nodes[b].node);
            if (of_a * nodes[b].capacity > (of_b + 1) * nodes[a].capacity &&
                could_move(p, nodes[a].node, nodes[b].node, leaders))
                fail_msg("%s: node %u has %u, node %u has %u", leaders ? "leaders" : "replicas", nodes[a].node,
                         (unsigned)of_a, nodes[b].node, (unsigned)of_b);
        }
}

/* Within 1, whatever could move. */
static void assert_within_one(const struct placement *p, bool leaders) {
    uint32_t least = UINT32_MAX, most = 0;
    for (uint32_t i = 0; i < p->node_count; i++) {
        uint32_t n = leaders ? leads_of(p, nodes[i].node) : replicas_of(p, nodes[i].node);
        if (!takes(&nodes[i]))
            continue;
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    assert_true(most <= least + 1);
}

static uint32_t able(const struct placement *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->node_count; i++)
        n += takes(&nodes[i]);
    return n;
}

static void assert_at_goal(const struct placement *p) {
    uint32_t wanted = able(p) < p->wanted ? able(p) : p->wanted;
    for (uint32_t i = 0; i < p->shard_count; i++) {
        assert_int_equal(shards[i].record.replicas.count, wanted);
        assert_true(has(&shards[i].record.replicas, shards[i].record.leader));
        assert_int_equal(goals[i].leader, shards[i].record.leader);
        for (uint32_t k = 0; k < goals[i].replicas.count; k++)
            assert_true(has(&shards[i].record.replicas, goals[i].replicas.nodes[k]));
    }
}

/* -- by hand -- */

static void test_new_cluster_fills_and_spreads(void **unused) {
    (void)unused;
    struct placement p = world(3, 6, 2);
    struct rand rand;
    rand_init(&rand, 1);
    plan(&p);
    assert_int_equal(step_count, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(steps[i].kind, PLACEMENT_ADD);
    drive(&p, &rand);
    assert_at_goal(&p);
    for (uint32_t n = 1; n <= 3; n++) {
        assert_int_equal(replicas_of(&p, n), 4);
        assert_int_equal(leads_of(&p, n), 2);
    }
}

static void test_dead_leader_is_replaced_by_a_member(void **unused) {
    (void)unused;
    struct placement p = world(3, 1, 3);
    shards[0].record.replicas = (struct replica_set){3, {1, 2, 3}};
    shards[0].record.in_sync = (struct replica_set){2, {1, 3}};
    nodes[0].live = false;
    plan(&p);
    assert_int_equal(step_count, 1);
    assert_int_equal(steps[0].kind, PLACEMENT_FAIL_OVER);
    assert_int_equal(steps[0].node, 3);
    shards[0].record.in_sync = (struct replica_set){1, {1}}; /* nobody has all */
    plan(&p);
    assert_int_equal(step_count, 0);
    nodes[0].live = true;
    shards[0].record.in_sync = (struct replica_set){2, {1, 2}};
    shards[0].unfit = (struct replica_set){1, {1}};
    plan(&p);
    assert_int_equal(steps[0].kind, PLACEMENT_FAIL_OVER);
    assert_int_equal(steps[0].node, 2);
}

static void test_short_absence_moves_nothing(void **unused) {
    (void)unused;
    struct placement p = world(4, 4, 2);
    struct rand rand;
    rand_init(&rand, 2);
    drive(&p, &rand);
    nodes[3].live = false;
    for (uint32_t i = 0; i < 4; i++)
        if (shards[i].record.leader == 4) {
            plan(&p);
            assert_int_equal(steps[0].kind, PLACEMENT_FAIL_OVER);
            apply(&p, &steps[0]);
        }
    for (uint32_t i = 0; i < 4; i++)
        drop(&shards[i].record.in_sync, 4);
    uint32_t moves = drive(&p, &rand);
    assert_int_equal(moves, 0);
    nodes[3].leaving = true; /* it does not come back */
    moves = drive(&p, &rand);
    assert_true(moves >= 2);
    assert_int_equal(replicas_of(&p, 4), 0);
    assert_at_goal(&p);
}

static void test_draining_gives_up_leaderships_only(void **unused) {
    (void)unused;
    struct placement p = world(3, 6, 3);
    struct rand rand;
    rand_init(&rand, 3);
    drive(&p, &rand);
    nodes[1].draining = true;
    plan(&p);
    assert_int_equal(step_count, 2);
    assert_int_equal(steps[0].kind, PLACEMENT_HAND_OVER);
    uint32_t moves = drive(&p, &rand);
    assert_int_equal(moves, 0);
    assert_int_equal(leads_of(&p, 2), 0);
    assert_int_equal(replicas_of(&p, 2), 6);
}

static void test_leaving_gives_up_leaderships_first(void **unused) {
    (void)unused;
    struct placement p = world(4, 2, 2);
    struct rand rand;
    rand_init(&rand, 4);
    drive(&p, &rand);
    uint32_t leader = shards[0].record.leader;
    nodes[leader - 1].leaving = true;
    plan(&p);
    for (uint32_t i = 0; i < step_count; i++)
        if (steps[i].shard == 0)
            assert_int_equal(steps[i].kind, PLACEMENT_HAND_OVER);
    drive(&p, &rand);
    assert_int_equal(replicas_of(&p, leader), 0);
    assert_at_goal(&p);
}

static void test_zones(void **unused) {
    (void)unused;
    struct placement p = world(6, 12, 2);
    struct rand rand;
    rand_init(&rand, 5);
    for (uint32_t i = 0; i < 6; i++)
        nodes[i].zone = 1 + i / 3;
    drive(&p, &rand);
    for (uint32_t i = 0; i < 12; i++) {
        const struct replica_set *r = &shards[i].record.replicas;
        assert_int_not_equal(nodes[r->nodes[0] - 1].zone, nodes[r->nodes[1] - 1].zone);
    }
    assert_balanced(&p, false);
}

static void test_wish_of_an_operator(void **unused) {
    (void)unused;
    struct placement p = world(4, 4, 2);
    struct rand rand;
    rand_init(&rand, 6);
    drive(&p, &rand);
    for (uint32_t i = 0; i < 4; i++)
        shards[i].wish = 3;
    drive(&p, &rand);
    assert_int_equal(leads_of(&p, 3), 4);
    assert_at_goal(&p);
    nodes[2].draining = true; /* it cannot be now */
    drive(&p, &rand);
    assert_int_equal(leads_of(&p, 3), 0);
}

static void test_older_version_leads_only_when_there_is_no_other(void **unused) {
    (void)unused;
    struct placement p = world(3, 6, 3);
    struct rand rand;
    rand_init(&rand, 7);
    nodes[0].version = 2; /* leads all */
    drive(&p, &rand);
    assert_int_equal(leads_of(&p, 1), 6);
    nodes[0].draining = true;
    drive(&p, &rand);
    assert_int_equal(leads_of(&p, 1), 0);
    assert_int_equal(leads_of(&p, 2), 3);
}

static void test_few_copies_at_once(void **unused) {
    (void)unused;
    struct placement p = world(4, 10, 3);
    for (uint32_t i = 0; i < 10; i++)
        shards[i].record.replicas = shards[i].record.in_sync = (struct replica_set){2, {1, 2}};
    p.copies_max = 2;
    plan(&p);
    uint32_t adds = 0;
    for (uint32_t i = 0; i < step_count; i++)
        adds += steps[i].kind == PLACEMENT_ADD;
    assert_int_equal(adds, 2);
    shards[9].record.in_sync = shards[9].record.replicas = (struct replica_set){1, {1}};
    plan(&p); /* the one that has no second is not held back */
    adds = 0;
    for (uint32_t i = 0; i < step_count; i++)
        adds += steps[i].kind == PLACEMENT_ADD;
    assert_int_equal(adds, 3);
}

static void test_refuses_what_is_out_of_bounds(void **unused) {
    (void)unused;
    struct placement p = world(3, 1, 0);
    assert_int_equal(placement_plan(&p, NULL, steps, SHARDS, &step_count), ERR_INVALID);
    p.wanted = REPLICA_SET_MAX;
    assert_int_equal(placement_plan(&p, NULL, steps, SHARDS, &step_count), ERR_INVALID);
    p.wanted = 2;
    nodes[1].node = 1;
    assert_int_equal(placement_plan(&p, NULL, steps, SHARDS, &step_count), ERR_INVALID);
    nodes[1].node = 0;
    assert_int_equal(placement_plan(&p, NULL, steps, SHARDS, &step_count), ERR_INVALID);
    nodes[1].node = 2;
    p.shard_count = PLACEMENT_SHARDS_MAX + 1;
    assert_int_equal(placement_plan(&p, NULL, steps, SHARDS, &step_count), ERR_INVALID);
    p.shard_count = p.node_count = 0;
    assert_int_equal(placement_plan(&p, NULL, steps, SHARDS, &step_count), ERR_OK);
    assert_int_equal(step_count, 0);
}

/* -- at random -- */

static void change(const struct placement *p, struct rand *rand) {
    struct placement_node *n = &nodes[rand_below(rand, p->node_count)];
    bool last = able(p) <= 2;
    switch (rand_below(rand, 4)) {
    case 0:
        n->draining = !n->draining && !last;
        break;
    case 1:
        n->leaving = !n->leaving && !last;
        break;
    case 2:
        if (!n->live || last) {
            n->live = true;
            break;
        }
        n->live = false;
        for (uint32_t i = 0; i < p->shard_count; i++)
            if (shards[i].record.in_sync.count > 1 && rand_below(rand, 2))
                drop(&shards[i].record.in_sync, shards[i].record.leader == n->node ? 0 : n->node);
        break;
    default:
        break;
    }
}

static void test_random_clusters(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rand rand;
        rand_init(&rand, seed);
        seed_now = seed;
        uint32_t node_count = 2 + (uint32_t)rand_below(&rand, NODES - 1);
        uint32_t shard_count = 1 + (uint32_t)rand_below(&rand, SHARDS);
        struct placement p = world(node_count, shard_count, 1 + (uint32_t)rand_below(&rand, 4));
        bool weighted = rand_below(&rand, 2);
        uint32_t zones = rand_below(&rand, 2) ? 2 + (uint32_t)rand_below(&rand, 3) : 0;
        for (uint32_t i = 0; i < p.node_count; i++) {
            nodes[i].capacity = weighted ? 1 + (uint32_t)rand_below(&rand, 4) : 1;
            nodes[i].zone = zones ? 1 + i % zones : 0;
        }
        drive(&p, &rand);
        for (uint32_t i = 0; i < 6; i++) {
            change(&p, &rand);
            for (uint32_t k = rand_below(&rand, 2) ? 1000 : 3; k > 0; k--) { /* on the way, or to the end */
                plan(&p);
                for (uint32_t s = 0; s < step_count; s++)
                    apply(&p, &steps[s]);
                catch_up(&p, &rand);
                if (!step_count)
                    break;
            }
        }
        for (uint32_t i = 0; i < p.node_count; i++)
            nodes[i].live = true;
        drive(&p, &rand);
        bool kept_by_draining = false;
        for (uint32_t i = 0; i < p.node_count; i++) {
            kept_by_draining = kept_by_draining || nodes[i].draining;
            if (nodes[i].leaving)
                assert_int_equal(replicas_of(&p, nodes[i].node), 0);
            for (uint32_t k = 0; k < p.shard_count && !takes(&nodes[i]); k++) {
                bool other = false; /* who could lead instead */
                for (uint32_t o = 0; o < p.node_count; o++)
                    other = other || (takes(&nodes[o]) && has(&shards[k].record.in_sync, nodes[o].node));
                assert_true(shards[k].record.leader != nodes[i].node || !other);
            }
        }
        if (!zones)
            assert_balanced(&p, false);
        assert_balanced(&p, true);
        if (!zones && !weighted)
            assert_within_one(&p, false);
        if (!kept_by_draining)
            assert_at_goal(&p);
        if (!weighted && !kept_by_draining && p.wanted >= able(&p))
            assert_within_one(&p, true);
        /* The same again gives nothing new, and the goal is what is. */
        plan(&p);
        assert_int_equal(step_count, 0);
    }
}

/* One node more takes its share, and little else moves. */
static void test_least_movement(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct rand rand;
        rand_init(&rand, seed);
        seed_now = seed;
        uint32_t count = 3 + (uint32_t)rand_below(&rand, 6);
        struct placement p = world(count, SHARDS, 2);
        drive(&p, &rand);
        p.node_count = count + 1;
        uint32_t moves = drive(&p, &rand), share = (SHARDS * 2 + count) / (count + 1);
        if (moves > share + share / 4)
            fail_msg("seed %llu: %u nodes, %u moves, share %u", (unsigned long long)seed, count, moves, share);
        assert_true(replicas_of(&p, count + 1) + 1 >= SHARDS * 2 / (count + 1));
        assert_within_one(&p, false);
        assert_within_one(&p, true);
        /* And one that leaves gives only what it has. */
        uint32_t had = replicas_of(&p, count);
        nodes[count - 1].leaving = true;
        moves = drive(&p, &rand);
        assert_true(moves >= had && moves <= had + had / 4);
    }
}

static int tell_seed(void **unused) {
    (void)unused;
    print_message("last seed: %llu\n", (unsigned long long)seed_now);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_cluster_fills_and_spreads),
        cmocka_unit_test(test_dead_leader_is_replaced_by_a_member),
        cmocka_unit_test(test_short_absence_moves_nothing),
        cmocka_unit_test(test_draining_gives_up_leaderships_only),
        cmocka_unit_test(test_leaving_gives_up_leaderships_first),
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_wish_of_an_operator),
        cmocka_unit_test(test_older_version_leads_only_when_there_is_no_other),
        cmocka_unit_test(test_few_copies_at_once),
        cmocka_unit_test(test_refuses_what_is_out_of_bounds),
        cmocka_unit_test_teardown(test_random_clusters, tell_seed),
        cmocka_unit_test_teardown(test_least_movement, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
