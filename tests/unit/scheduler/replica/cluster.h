/*
 * cluster: a world for replicas, in one thread under one seed: nodes with disks, a network, an agreement service with
 * leases, clients, and everything that can go wrong; and oracles that keep their own books.
 *
 * The network drops, delays, doubles, reorders and parts. A crash loses what was not synced, and may or may not keep
 * what was on its way to the disk. Disks are lost whole, as long as another member of the in-sync set keeps its own.
 * Nodes freeze past their lease and thaw. The agreement service can be away, and answers can be lost on their way.
 *
 * The oracles:
 *  - a position (epoch, number) is given out once;
 *  - what is committed at a number never changes, and is on the synced disk of every member of the record's set;
 *  - nobody commits in an epoch after a newer one has a leader, nor two in one; two never lead at one time;
 *  - a new leader's disk has every batch that a client was told of;
 *  - two whole disks at the same position are equal;
 *  - when all is healed: a leader accepts, all replicas are in sync, new batches are committed, all disks are equal to
 *    the replay of the committed batches.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_H
#define TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_H

#include "tests/unit/scheduler/replica/cluster_node.h"

/* -- clients and chaos -- */

static void client_submit(struct cluster *w) {
    for (uint32_t i = 1; i <= w->count; i++) {
        struct wnode *n = &w->node[i];
        if (!n->up || n->frozen_until > w->now || (!n->accepting && !chance(w, 5)) || w->batches + 1 >= BATCHES)
            continue;
        char octets[64];
        uint32_t batch = w->batches + 1;
        memset(octets, (int)batch, sizeof octets);
        memcpy(octets, &batch, sizeof batch);
        struct replica_event e = {.kind = REPLICA_BATCH};
        e.batch.octets = (struct span){octets, sizeof batch + dice(w, sizeof octets - sizeof batch)};
        e.batch.must = chance(w, 20);
        w->batches++;
        int err;
        node_step(w, n, &e, &err);
        w->fulls += err == ERR_FULL;
        w->refused += err == ERR_AGAIN;
    }
}

static void client(struct cluster *w) {
    for (uint64_t n = chance(w, 4) ? 20 : 1; n > 0 && !w->quiet; n--)
        client_submit(w);
    heap_put(w, event_new(w, W_CLIENT, 0, 4 + dice(w, 40)));
}

static void chaos_replicas(struct cluster *w) {
    struct replica_record *rec = &w->record;
    uint32_t x = 1 + (uint32_t)dice(w, w->count);
    if (w->away || rec->epoch == 0 || x == rec->leader)
        return;
    if (!set_has(&rec->replicas, x)) {
        rec->replicas.nodes[rec->replicas.count++] = x;
    } else if (rec->replicas.count > w->config.min_in_sync + 1) {
        set_drop(&rec->replicas, x);
    } else {
        return;
    }
    service_changed(w, &rec->in_sync);
}

static void chaos_part(struct cluster *w) {
    memset(w->parted, 0, sizeof w->parted);
    if (chance(w, 50))
        return;
    uint64_t side = rand_u64(&w->rand); /* two sides; the service is on one of them */
    bool one_way = chance(w, 20);
    for (uint32_t i = 0; i <= w->count; i++)
        for (uint32_t k = 0; k <= w->count; k++)
            w->parted[i][k] = (side >> i & 1) != (side >> k & 1) && (!one_way || i < k);
}

static void chaos(struct cluster *w) {
    struct wnode *n = &w->node[1 + dice(w, w->count)];
    switch (dice(w, 14)) {
    case 0:
    case 1:
        node_crash(w, n);
        break;
    case 2:
        n->frozen_until = w->now + dice(w, 2 * TTL_MS);
        break;
    case 3:
    case 4:
        chaos_part(w);
        break;
    case 5:
        w->away = true;
        w->away_until = w->now + dice(w, 1500);
        break;
    case 6:
        if (chance(w, 60))
            node_lose_disk(w, n);
        break;
    case 7:
        for (uint32_t i = 1; i <= w->count; i++)
            if (w->node[i].up && w->node[i].frozen_until <= w->now && replica_is_leader(w->node[i].r, w->now)) {
                struct replica_event e = {.kind = REPLICA_HAND_OVER, .to = n->id};
                int ignored;
                node_step(w, &w->node[i], &e, &ignored);
            }
        break;
    case 8:
    case 9:
        chaos_replicas(w);
        break;
    case 10:
        w->drop = chance(w, 50) ? 0 : (uint32_t)dice(w, 30);
        w->doubled = chance(w, 50) ? 0 : (uint32_t)dice(w, 30);
        w->delay_ms = chance(w, 50) ? 0 : (uint32_t)dice(w, 2000);
        break;
    case 11:
        n->disk_slow_ms = chance(w, 50) ? 0 : dice(w, 200);
        break;
    case 12: /* power for all */
        if (chance(w, 20))
            for (uint32_t i = 1; i <= w->count; i++)
                node_crash(w, &w->node[i]);
        break;
    default: /* a write fails */
        if (n->up && n->frozen_until <= w->now && chance(w, 30)) {
            node_step(w, n, &(struct replica_event){.kind = REPLICA_WRITE_FAILED}, NULL);
            node_crash(w, n);
        }
        break;
    }
}

static void chaos_turn(struct cluster *w) {
    for (uint32_t i = 1; i <= w->count; i++)
        if (!w->node[i].up && (w->now >= w->node[i].up_at || w->healed))
            node_start(w, &w->node[i]);
    if (w->away && w->now >= w->away_until)
        w->away = false;
    check_disks(w);
    if (!w->healed && chance(w, 60))
        chaos(w);
    heap_put(w, event_new(w, W_CHAOS, 0, 30 + dice(w, 100)));
}

static void heal(struct cluster *w) {
    w->healed = true;
    w->away = false;
    w->drop = w->doubled = w->delay_ms = 0;
    memset(w->parted, 0, sizeof w->parted);
    for (uint32_t i = 1; i <= w->count; i++) {
        w->node[i].disk_slow_ms = 0;
        if (w->node[i].frozen_until > w->now)
            w->node[i].frozen_until = w->now;
    }
}

/* -- a run -- */

static void handle(struct cluster *w, struct wevent *e) {
    struct wnode *n = &w->node[e->node];
    int ignored;
    if (e->node && e->kind != W_CAS && e->kind != W_LEASE_ASK) {
        if (!n->up || e->life != n->life)
            if (e->kind != W_MESSAGE || !n->up) /* what was sent to its earlier life reaches the new one */
                return;
        if (n->frozen_until > w->now) {
            struct wevent *later = event_new(w, e->kind, e->node, 0);
            uint64_t order = later->order;
            *later = *e;
            later->order = order;
            later->at = n->frozen_until;
            e->message.operation = NULL;
            e->history = NULL;
            e->octets = NULL;
            heap_put(w, later);
            return;
        }
    }
    switch (e->kind) {
    case W_MESSAGE: {
        struct replica_event r = {.kind = REPLICA_MESSAGE};
        r.from = e->from;
        r.message = e->message;
        node_step(w, n, &r, &ignored);
        break;
    }
    case W_DISK:
        node_disk(w, n);
        break;
    case W_READ:
        node_read(w, n, e);
        break;
    case W_FETCH:
        node_fetch(w, n, e);
        break;
    case W_TICK:
        node_tick(w, n);
        break;
    case W_CAS:
        service_cas(w, e);
        break;
    case W_RECORD:
        node_record(w, n, e);
        break;
    case W_LEASE_ASK: {
        if (w->away || w->parted[e->node][0])
            break;
        struct wevent *answer = event_new(w, W_LEASE, e->node, 1 + dice(w, 20));
        n->session += !session_holds(w, e->node);
        answer->copy = n->session;
        if (n->session != e->copy) /* a new lease: the record is read behind it */
            answer->record = w->record;
        n->session_until = w->now + TTL_MS;
        answer->number = e->number + TTL_MS;
        heap_put(w, answer);
        break;
    }
    case W_LEASE:
        if (e->record.version)
            node_record(w, n, e);
        n->session_known = e->copy;
        node_step(w, n, &(struct replica_event){.kind = REPLICA_LEASE, .until_ms = e->number}, NULL);
        break;
    case W_CHAOS:
        chaos_turn(w);
        break;
    case W_CLIENT:
        client(w);
        break;
    case W_CONTROL:
        service_control(w);
        heap_put(w, event_new(w, W_CONTROL, 0, 50 + dice(w, 50)));
        break;
    }
}

static void run_until(struct cluster *w, uint64_t end) {
    while (!w->failed && w->heap_count && w->heap[0]->at <= end) {
        struct wevent *e = heap_take(w);
        w->now = e->at > w->now ? e->at : w->now;
        handle(w, e);
        event_free(e);
    }
    w->now = end > w->now ? end : w->now;
}

static void check_end(struct cluster *w) {
    static uint64_t expected[KEYS];
    memset(expected, 0, sizeof expected);
    for (uint64_t i = 1; i <= w->committed; i++) {
        if (!w->committed_batch[i])
            return cluster_fail(w, "what was committed at %llu is not known", (unsigned long long)i);
        batch_apply(expected, w->committed_batch[i], KEYS);
    }
    if (w->record.in_sync.count != w->record.replicas.count)
        return cluster_fail(w, "healed, and %u of %u are in sync", w->record.in_sync.count, w->record.replicas.count);
    for (uint32_t i = 0; i < w->record.in_sync.count; i++) {
        struct wnode *n = &w->node[w->record.in_sync.nodes[i]];
        if (n->disk.mark.last.number != w->committed)
            return cluster_fail(w, "node %u is at %llu of %llu", n->id, (unsigned long long)n->disk.mark.last.number,
                                (unsigned long long)w->committed);
        if (!n->disk.mark.complete || memcmp(n->disk.kv, expected, sizeof expected) != 0)
            return cluster_fail(w, "node %u is not what was committed", n->id);
    }
    for (uint32_t b = 1; b <= w->batches; b++)
        if (w->told[b] && expected[b] != batch_hash(b, 0))
            return cluster_fail(w, "batch %u was committed and is lost", b);
}

static void cluster_begin(struct cluster *w, uint64_t seed) {
    memset(w, 0, sizeof *w);
    rand_init(&w->rand, seed);
    w->seed = seed;
    w->count = 3 + (uint32_t)dice(w, NODES_MAX - 2);
    w->keeps = chance(w, 50);
    w->fetches_kept = w->keeps && chance(w, 50);
    w->skips = chance(w, 50);
    w->in_order = chance(w, 50);
    struct replica_config *c = &w->config; /* one by one: the order of chance is the same for all compilers */
    c->min_in_sync = 1 + (uint32_t)dice(w, 2);
    c->window_count = 4 + (uint32_t)dice(w, 30);
    c->window_bytes = 200 + dice(w, 2000);
    c->keep_count = 1 + (uint32_t)dice(w, w->skips ? 20 : 300);
    c->keep_bytes = 100 + dice(w, 20000);
    c->heartbeat_ms = 40 + dice(w, 60);
    c->resend_ms = 30 + dice(w, 60);
    c->slow_ms = 200 + dice(w, 300);
    c->copy_per_s = 20000 + dice(w, 200000);
    c->flight_count = 8 + (uint32_t)dice(w, 30);
    c->flight_bytes = 500 + dice(w, 2000);
    w->record = (struct replica_record){.version = 1, .leader = 1, .in_sync = {1, {1}}};
    for (uint32_t i = 1; i <= w->count; i++) {
        w->node[i].id = i;
        if (i == 1 || i <= w->config.min_in_sync || chance(w, 80))
            w->record.replicas.nodes[w->record.replicas.count++] = i;
    }
    w->node[1].intact = true;
    for (uint32_t i = 1; i <= w->count; i++)
        node_start(w, &w->node[i]);
    heap_put(w, event_new(w, W_CHAOS, 0, 500));
    heap_put(w, event_new(w, W_CLIENT, 0, 100));
    heap_put(w, event_new(w, W_CONTROL, 0, 50));
}

static void cluster_end(struct cluster *w) {
    while (w->heap_count)
        event_free(heap_take(w));
    free(w->heap);
    for (uint32_t i = 1; i <= w->count; i++) {
        struct wnode *n = &w->node[i];
        while (n->write_count)
            write_done(w, n, false);
        replica_free(n->r);
        kept_clear(&n->disk);
    }
}

static void cluster_show(const struct cluster *w) {
    const struct replica_record *c = &w->record;
    fprintf(stderr, "record v%llu e%llu leader %u set", (unsigned long long)c->version, (unsigned long long)c->epoch,
            c->leader);
    for (uint32_t i = 0; i < c->in_sync.count; i++)
        fprintf(stderr, " %u", c->in_sync.nodes[i]);
    fprintf(stderr, " of");
    for (uint32_t i = 0; i < c->replicas.count; i++)
        fprintf(stderr, " %u", c->replicas.nodes[i]);
    fprintf(stderr, "; committed %llu, min %u\n", (unsigned long long)w->committed, w->config.min_in_sync);
    for (uint32_t i = 1; i <= w->count; i++) {
        struct replica_status s;
        if (!w->node[i].up)
            continue;
        replica_status(w->node[i].r, w->now, &s);
        fprintf(stderr,
                "node %u: leader %d ready %d accepting %d complete %d broken %d promised %llu v%llu last %llu.%llu "
                "synced %llu "
                "committed %llu proposing %d unfit %llu intact %d\n",
                i, s.leader, s.ready, s.accepting, s.complete, s.broken, (unsigned long long)s.epoch,
                (unsigned long long)s.version, (unsigned long long)s.last.epoch, (unsigned long long)s.last.number,
                (unsigned long long)s.synced, (unsigned long long)s.committed, w->node[i].proposing,
                (unsigned long long)w->node[i].unfit_version, w->node[i].intact);
        for (uint32_t k = 0; k < s.peer_count; k++)
            fprintf(stderr, "    peer %u state %d in_sync %d overdue %d acked %llu\n", s.peers[k].node,
                    (int)s.peers[k].state, s.peers[k].in_sync, s.peers[k].overdue,
                    (unsigned long long)s.peers[k].acked);
    }
}

/* False: w->why says what was found. */
static bool cluster_run(struct cluster *w, uint64_t seed) {
    cluster_begin(w, seed);
    run_until(w, CHAOS_MS);
    heal(w);
    run_until(w, CHAOS_MS + HEAL_MS);
    uint64_t before = w->committed;
    bool accepted = false;
    for (uint32_t i = 1; i <= w->count; i++)
        accepted = accepted || w->node[i].accepting;
    if (!w->failed && !accepted)
        cluster_fail(w, "healed, and nobody accepts");
    for (uint32_t i = 0; i < 3 && !w->failed; i++)
        client_submit(w);
    w->quiet = true;
    run_until(w, w->now + 2000);
    if (!w->failed && w->committed <= before && w->batches + 4 < BATCHES)
        cluster_fail(w, "healed, and nothing more is committed");
    if (!w->failed)
        check_end(w);
    bool good = !w->failed;
    if (!good && getenv("CLUSTER_SHOW"))
        cluster_show(w);
    cluster_end(w);
    return good;
}

/* The same, and a failure is told with its seed. */
static inline bool cluster_run_told(struct cluster *w, uint64_t seed) {
    if (cluster_run(w, seed))
        return true;
    print_error("seed %llu: %s (at %llu ms)\n", (unsigned long long)seed, w->why, (unsigned long long)w->now);
    return false;
}

/* FROM [TO] of the command line: an exit status. */
static inline int cluster_run_row(int argc, char **argv, bool (*run)(uint64_t seed)) {
    uint64_t from = strtoull(argv[1], NULL, 10), to = argc > 2 ? strtoull(argv[2], NULL, 10) : from, bad = 0;
    for (uint64_t seed = from; seed <= to; seed++)
        bad += !run(seed);
    printf("%llu of %llu failed\n", (unsigned long long)bad, (unsigned long long)(to - from + 1));
    return bad != 0;
}

#endif
