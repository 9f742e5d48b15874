/*
 * placement: see placement.h. The goal grows out of what is: replicas that may stay do, missing ones go where there is
 * most room, and then single moves are made as long as each makes the whole more even. So a goal that is reached is the
 * goal of itself, and each move ends at a more even state, so that they come to an end.
 *
 * Loads are compared as count / capacity, crosswise, without division.
 */
#include <stdlib.h>

#include "base/check.h"
#include "scheduler/replica/placement.h"

struct load {
    uint32_t replicas, leads;
};
struct plan {
    const struct placement *in;
    struct load *loads;           /* by place in nodes */
    struct placement_goal *goals; /* .leader and .replicas hold places + 1 while planning */
};

static const struct placement_node *node_at(const struct plan *p, uint32_t place) {
    return &p->in->nodes[place - 1];
}

static struct load *load_at(struct plan *p, uint32_t place) {
    return &p->loads[place - 1];
}

static uint32_t place_of(const struct plan *p, uint32_t node) {
    for (uint32_t i = 0; i < p->in->node_count; i++)
        if (p->in->nodes[i].node == node)
            return i + 1;
    return 0;
}

static bool contains(const struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node)
            return true;
    return false;
}

static void take_out(struct replica_set *s, uint32_t node) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] != node)
            s->nodes[kept++] = s->nodes[i];
    s->count = kept;
}

static uint64_t weight(const struct placement_node *n) {
    return n->capacity ? n->capacity : 1;
}

static bool may_stay(const struct placement_node *n) {
    return !n->leaving;
}

static bool may_take(const struct placement_node *n) {
    return n->live && !n->draining && !n->leaving;
}

/* -- replicas -- */

static bool same_zone(const struct plan *p, uint32_t a, uint32_t b) {
    return a == b || (node_at(p, a)->zone && node_at(p, a)->zone == node_at(p, b)->zone);
}

/* Failure zones among the set, with one node left out and another one added (0: none). */
static uint32_t zones_of(const struct plan *p, const struct replica_set *s, uint32_t without, uint32_t with) {
    uint32_t seen[REPLICA_SET_MAX + 1], count = 0;
    for (uint32_t i = 0; i <= s->count; i++) {
        uint32_t place = i < s->count ? s->nodes[i] : with;
        bool known = place == 0 || place == without;
        for (uint32_t k = 0; k < count && !known; k++)
            known = same_zone(p, seen[k], place);
        if (!known)
            seen[count++] = place;
    }
    return count;
}

/* a is fuller than b; also when b had one more. */
static bool is_fuller(struct plan *p, uint32_t a, uint32_t b, uint32_t more) {
    return load_at(p, a)->replicas * weight(node_at(p, b)) > (load_at(p, b)->replicas + more) * weight(node_at(p, a));
}

/* With one replica more, a would be emptier than b with one more. */
static bool would_be_emptier(struct plan *p, uint32_t a, uint32_t b) {
    return (load_at(p, a)->replicas + 1) * weight(node_at(p, b)) <
           (load_at(p, b)->replicas + 1) * weight(node_at(p, a));
}

static void goal_add(struct plan *p, struct placement_goal *g, uint32_t place) {
    g->replicas.nodes[g->replicas.count++] = place;
    load_at(p, place)->replicas++;
}

static void goal_drop(struct plan *p, struct placement_goal *g, uint32_t place) {
    take_out(&g->replicas, place);
    load_at(p, place)->replicas--;
}

/* The place that gains most zones, and of those the emptiest; 0: none. */
static uint32_t best_to_add(struct plan *p, const struct placement_goal *g) {
    uint32_t best = 0, most = 0;
    for (uint32_t i = 1; i <= p->in->node_count; i++) {
        if (!may_take(node_at(p, i)) || contains(&g->replicas, i))
            continue;
        uint32_t zones = zones_of(p, &g->replicas, 0, i);
        bool emptier = best && would_be_emptier(p, i, best);
        if (!best || zones > most || (zones == most && emptier)) {
            best = i;
            most = zones;
        }
    }
    return best;
}

/* The place whose loss costs fewest zones; then one that is away, then the fullest, rather not the leader. */
static uint32_t best_to_drop(struct plan *p, const struct placement_goal *g, uint32_t leader, uint32_t wish) {
    uint32_t best = 0, most = 0;
    for (uint32_t i = 0; i < g->replicas.count; i++) {
        uint32_t place = g->replicas.nodes[i];
        if (place == wish)
            continue;
        uint32_t zones = zones_of(p, &g->replicas, place, 0);
        bool away = !node_at(p, place)->live, best_away = best && !node_at(p, best)->live;
        bool better = !best || zones > most;
        if (best && zones == most && away != best_away)
            better = away;
        else if (best && zones == most)
            better = is_fuller(p, place, best, 0) || (!is_fuller(p, best, place, 0) && best == leader);
        if (better) {
            best = place;
            most = zones;
        }
    }
    return best;
}

static uint32_t wish_of(const struct plan *p, uint32_t shard) {
    uint32_t place = place_of(p, p->in->shards[shard].wish);
    return place && may_take(node_at(p, place)) ? place : 0;
}

static void keep_what_may_stay(struct plan *p, uint32_t shard) {
    const struct replica_record *r = &p->in->shards[shard].record;
    for (uint32_t i = 0; i < r->replicas.count; i++) {
        uint32_t place = place_of(p, r->replicas.nodes[i]);
        if (place && may_stay(node_at(p, place)) && !contains(&p->goals[shard].replicas, place))
            goal_add(p, &p->goals[shard], place);
    }
}

static void fill(struct plan *p, uint32_t shard) {
    struct placement_goal *g = &p->goals[shard];
    uint32_t wish = wish_of(p, shard), leader = place_of(p, p->in->shards[shard].record.leader), place;
    if (wish && !contains(&g->replicas, wish)) {
        if (g->replicas.count == REPLICA_SET_MAX)
            goal_drop(p, g, best_to_drop(p, g, leader, wish));
        goal_add(p, g, wish);
    }
    while (g->replicas.count > p->in->wanted)
        goal_drop(p, g, best_to_drop(p, g, leader, wish));
    while (g->replicas.count < p->in->wanted && (place = best_to_add(p, g)) != 0)
        goal_add(p, g, place);
}

struct move {
    uint32_t shard, from, to, zones; /* to 0: none; zones: that it gains */
};

/* Gains more zones; or else goes from a fuller place, or from the same to one that would be emptier with it. */
static bool is_better(struct plan *p, const struct move *m, const struct move *than) {
    if (!than->to || m->zones != than->zones)
        return !than->to || m->zones > than->zones;
    return is_fuller(p, m->from, than->from, 0) ||
           (!is_fuller(p, than->from, m->from, 0) && would_be_emptier(p, m->to, than->to));
}

/* It has one replica more than it needs: that move comes to its end before another one is thought of. */
static bool is_moving(const struct plan *p, uint32_t shard) {
    const struct replica_set *is = &p->in->shards[shard].record.replicas;
    uint32_t staying = 0;
    for (uint32_t i = 0; i < is->count; i++) {
        uint32_t place = place_of(p, is->nodes[i]);
        staying += place && may_stay(node_at(p, place));
    }
    return staying > p->in->wanted;
}

/* One replica of the shard goes to another place, when it gains a zone, or evens the load without losing one. here:
 * only to where there is one already, which costs nothing. */
static void find_move(struct plan *p, uint32_t shard, bool here, struct move *best) {
    const struct replica_set *is = &p->in->shards[shard].record.replicas, *s = &p->goals[shard].replicas;
    uint32_t wish = wish_of(p, shard), zones = zones_of(p, s, 0, 0);
    for (uint32_t i = 0; i < s->count; i++)
        for (uint32_t b = 1; b <= p->in->node_count && s->nodes[i] != wish; b++) {
            if (!may_take(node_at(p, b)) || contains(s, b) || (here && !contains(is, node_at(p, b)->node)))
                continue;
            uint32_t then = zones_of(p, s, s->nodes[i], b);
            struct move m = {shard, s->nodes[i], b, then - zones};
            if ((then > zones || (then == zones && is_fuller(p, m.from, b, 1))) && is_better(p, &m, best))
                *best = m;
        }
}

/* The best move of all is made first; bounded, since each gains a zone or makes the whole more even. */
static void improve_all(struct plan *p, bool here) {
    for (uint32_t n = 0; n < PLACEMENT_SHARDS_MAX * REPLICA_SET_MAX; n++) {
        struct move best = {0};
        for (uint32_t i = 0; i < p->in->shard_count; i++)
            if (here || !is_moving(p, i))
                find_move(p, i, here, &best);
        if (!best.to)
            return;
        goal_drop(p, &p->goals[best.shard], best.from);
        goal_add(p, &p->goals[best.shard], best.to);
    }
}

static void plan_replicas(struct plan *p) {
    for (uint32_t i = 0; i < p->in->shard_count; i++)
        keep_what_may_stay(p, i);
    for (uint32_t i = 0; i < p->in->shard_count; i++)
        fill(p, i);
    improve_all(p, true);
    improve_all(p, false);
}

/* -- leaders -- */

static bool can_lead(const struct plan *p, uint32_t shard, uint32_t place) {
    const struct placement_shard *s = &p->in->shards[shard];
    const struct placement_node *n = node_at(p, place);
    return n->live && contains(&s->record.in_sync, n->node) && !contains(&s->unfit, n->node);
}

/* 3: it should; 2: it drains and stays; 1: it leaves; 0: it cannot. */
static uint32_t fitness(const struct plan *p, uint32_t shard, uint32_t place) {
    if (!can_lead(p, shard, place))
        return 0;
    if (!contains(&p->goals[shard].replicas, place))
        return 1;
    return may_take(node_at(p, place)) ? 3 : 2;
}

static bool should_lead(const struct plan *p, uint32_t shard, uint32_t place) {
    return fitness(p, shard, place) == 3;
}

static bool leads_less(struct plan *p, uint32_t a, uint32_t b, uint32_t more) {
    return (load_at(p, a)->leads + more) * weight(node_at(p, b)) < load_at(p, b)->leads * weight(node_at(p, a));
}

/* Whoever can lead, best first: by fitness, not an older version, the one that leads least. 0: nobody. */
static uint32_t best_leader(struct plan *p, uint32_t shard) {
    uint32_t best = 0, most = 0;
    for (uint32_t i = 1; i <= p->in->node_count; i++) {
        uint32_t fit = fitness(p, shard, i);
        if (!fit || fit < most)
            continue;
        bool newer = best && node_at(p, i)->version > node_at(p, best)->version;
        bool older = best && node_at(p, i)->version < node_at(p, best)->version;
        if (fit > most || newer || (!older && leads_less(p, i, best, 0)))
            best = i;
        most = fit;
    }
    return best;
}

static bool may_move_to(const struct plan *p, uint32_t shard, uint32_t from, uint32_t to) {
    return !wish_of(p, shard) && should_lead(p, shard, to) && node_at(p, to)->version >= node_at(p, from)->version;
}

/* Moves leaderships along a row of nodes from one that leads much to one that leads less: breadth first. */
static bool even_leaders_from(struct plan *p, uint32_t from) {
    uint32_t before[PLACEMENT_NODES_MAX + 1] = {0}, by[PLACEMENT_NODES_MAX + 1], row[PLACEMENT_NODES_MAX + 1];
    uint32_t first = 0, last = 0;
    row[last++] = from;
    before[from] = from;
    while (first < last) {
        uint32_t at = row[first++];
        if (at != from && leads_less(p, at, from, 1)) {
            load_at(p, from)->leads--;
            load_at(p, at)->leads++;
            for (; at != from; at = before[at])
                p->goals[by[at]].leader = at;
            return true;
        }
        for (uint32_t s = 0; s < p->in->shard_count; s++) {
            if (p->goals[s].leader != at)
                continue;
            const struct replica_set *r = &p->goals[s].replicas;
            for (uint32_t i = 0; i < r->count; i++)
                if (!before[r->nodes[i]] && may_move_to(p, s, at, r->nodes[i])) {
                    before[r->nodes[i]] = at;
                    by[r->nodes[i]] = s;
                    row[last++] = r->nodes[i];
                }
        }
    }
    return false;
}

static void plan_leaders(struct plan *p) {
    for (uint32_t i = 0; i < p->in->shard_count; i++) {
        uint32_t leader = place_of(p, p->in->shards[i].record.leader), wish = wish_of(p, i);
        if (wish && should_lead(p, i, wish))
            p->goals[i].leader = wish;
        else if (leader && should_lead(p, i, leader))
            p->goals[i].leader = leader;
        if (p->goals[i].leader)
            load_at(p, p->goals[i].leader)->leads++;
    }
    for (uint32_t i = 0; i < p->in->shard_count; i++) {
        if (p->goals[i].leader)
            continue;
        uint32_t leader = place_of(p, p->in->shards[i].record.leader), best = best_leader(p, i);
        /* From one that drains to another one that drains nothing is won. */
        if (leader && best && fitness(p, i, leader) == fitness(p, i, best))
            best = leader;
        if ((p->goals[i].leader = best) != 0)
            load_at(p, best)->leads++;
    }
    bool moved = true;
    for (uint32_t round = 0; moved && round < PLACEMENT_SHARDS_MAX; round++) {
        moved = false;
        for (uint32_t i = 1; i <= p->in->node_count; i++)
            moved = even_leaders_from(p, i) || moved;
    }
}

/* -- steps -- */

static bool is_wanted(const struct plan *p, uint32_t shard, uint32_t node) {
    uint32_t place = place_of(p, node);
    return place && contains(&p->goals[shard].replicas, place);
}

/* A replica that is wanted, is there, and is not yet in sync. */
static bool is_copying(const struct plan *p, uint32_t shard) {
    const struct replica_record *r = &p->in->shards[shard].record;
    for (uint32_t i = 0; i < r->replicas.count; i++) {
        uint32_t place = place_of(p, r->replicas.nodes[i]);
        if (place && node_at(p, place)->live && is_wanted(p, shard, r->replicas.nodes[i]) &&
            !contains(&r->in_sync, r->replicas.nodes[i]))
            return true;
    }
    return false;
}

/* The one that is missed least: not in sync, then not the leader. */
static uint32_t extra_replica(const struct plan *p, uint32_t shard) {
    const struct replica_record *r = &p->in->shards[shard].record;
    uint32_t found = 0, least = 3;
    for (uint32_t i = 0; i < r->replicas.count; i++) {
        uint32_t node = r->replicas.nodes[i];
        uint32_t missed = node == r->leader ? 2 : contains(&r->in_sync, node);
        if (!is_wanted(p, shard, node) && missed < least) {
            found = node;
            least = missed;
        }
    }
    return found;
}

static uint32_t missing_replica(const struct plan *p, uint32_t shard) {
    const struct placement_goal *g = &p->goals[shard];
    for (uint32_t i = 0; i < g->replicas.count; i++)
        if (!contains(&p->in->shards[shard].record.replicas, node_at(p, g->replicas.nodes[i])->node))
            return node_at(p, g->replicas.nodes[i])->node;
    return 0;
}

/* Enough remain in sync without it, or all that are to stay are in sync (but for those that are away). */
static bool may_remove(const struct plan *p, uint32_t shard, uint32_t node) {
    const struct replica_record *r = &p->in->shards[shard].record;
    if (!node || node == r->leader)
        return false;
    return r->in_sync.count >= p->in->wanted + contains(&r->in_sync, node) ||
           (r->replicas.count == REPLICA_SET_MAX && !contains(&r->in_sync, node)) ||
           (missing_replica(p, shard) == 0 && !is_copying(p, shard));
}

static struct placement_step next_step(struct plan *p, uint32_t shard, uint32_t *copies) {
    const struct replica_record *r = &p->in->shards[shard].record;
    uint32_t leader = place_of(p, r->leader), goal = p->goals[shard].leader;
    struct placement_step step = {.shard = shard};
    if (!leader || !can_lead(p, shard, leader)) {
        if (goal && goal != leader && r->epoch) {
            step.kind = PLACEMENT_FAIL_OVER;
            step.node = node_at(p, goal)->node;
        }
        return step;
    }
    if (goal && goal != leader && !may_take(node_at(p, leader))) { /* first of all it gives up the lead */
        step.kind = PLACEMENT_HAND_OVER;
        step.node = node_at(p, goal)->node;
        return step;
    }
    uint32_t missing = missing_replica(p, shard), extra = extra_replica(p, shard);
    bool free_to_copy = *copies < p->in->copies_max || r->in_sync.count < 2;
    if (may_remove(p, shard, extra)) {
        step.kind = PLACEMENT_REMOVE;
        step.node = extra;
    } else if (missing && r->replicas.count < REPLICA_SET_MAX && !is_copying(p, shard) && free_to_copy) {
        step.kind = PLACEMENT_ADD;
        step.node = missing;
        ++*copies;
    } else if (goal && goal != leader) {
        step.kind = PLACEMENT_HAND_OVER;
        step.node = node_at(p, goal)->node;
    }
    return step;
}

/* -- the whole -- */

static bool input_is_valid(const struct placement *p) {
    if (p->node_count > PLACEMENT_NODES_MAX || p->shard_count > PLACEMENT_SHARDS_MAX || p->wanted < 1 ||
        p->wanted >= REPLICA_SET_MAX)
        return false;
    for (uint32_t i = 0; i < p->node_count; i++)
        for (uint32_t k = 0; k <= i; k++)
            if (p->nodes[i].node == 0 || (k < i && p->nodes[i].node == p->nodes[k].node))
                return false;
    for (uint32_t i = 0; i < p->shard_count; i++)
        if (p->shards[i].record.in_sync.count > REPLICA_SET_MAX ||
            p->shards[i].record.replicas.count > REPLICA_SET_MAX || p->shards[i].unfit.count > REPLICA_SET_MAX)
            return false;
    return true;
}

static void tell_goals(const struct plan *p, struct placement_goal *goals) {
    for (uint32_t i = 0; i < p->in->shard_count; i++) {
        const struct placement_goal *g = &p->goals[i];
        goals[i] = (struct placement_goal){.replicas.count = g->replicas.count};
        goals[i].leader = g->leader ? node_at(p, g->leader)->node : 0;
        for (uint32_t k = 0; k < g->replicas.count; k++)
            goals[i].replicas.nodes[k] = node_at(p, g->replicas.nodes[k])->node;
    }
}

int placement_plan(const struct placement *in, struct placement_goal *goals, struct placement_step *steps,
                   uint32_t steps_max, uint32_t *step_count) {
    *step_count = 0;
    if (!input_is_valid(in))
        return ERR_INVALID;
    struct plan p = {.in = in};
    p.loads = calloc(in->node_count + 1, sizeof *p.loads);
    p.goals = calloc(in->shard_count + 1, sizeof *p.goals);
    int err = p.loads && p.goals ? ERR_OK : ERR_NOMEM;
    if (err == ERR_OK) {
        uint32_t copies = 0;
        plan_replicas(&p);
        plan_leaders(&p);
        for (uint32_t i = 0; i < in->shard_count; i++)
            copies += is_copying(&p, i);
        for (uint32_t i = 0; i < in->shard_count && *step_count < steps_max; i++) {
            struct placement_step step = next_step(&p, i, &copies);
            if (step.kind)
                steps[(*step_count)++] = step;
        }
        if (goals)
            tell_goals(&p, goals);
    }
    free(p.loads);
    free(p.goals);
    return err;
}
