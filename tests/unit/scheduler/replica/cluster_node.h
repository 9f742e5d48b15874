/*
 * cluster_node: the nodes of cluster.h: each is the owner of one replica, does what it asks for, crashes and starts.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_NODE_H
#define TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_NODE_H

#include "tests/unit/scheduler/replica/cluster_service.h"

/* -- nodes -- */

static void node_propose(struct cluster *w, struct wnode *n) {
    n->proposed_ms = w->now;
    if (!n->sent && chance(w, 3)) { /* it never left: certainly not done */
        n->proposing = false;
        node_step(w, n, &(struct replica_event){.kind = REPLICA_PROPOSE_FAILED}, NULL);
        return;
    }
    n->sent = true;
    if (service_lost(w, n->id))
        return;
    struct wevent *e = event_new(w, W_CAS, n->id, 2 + dice(w, 30));
    e->record = n->proposal;
    e->number = n->losses;
    heap_put(w, e);
}

static void node_act(struct cluster *w, struct wnode *n, const struct replica_action *a) {
    switch (a->kind) {
    case REPLICA_WIPE:
        w->wipes++;
        write_begin(w, n, a);
        return;
    case REPLICA_WRITE_CHUNK:
        w->chunks++;
        write_begin(w, n, a);
        return;
    case REPLICA_WRITE:
    case REPLICA_WRITE_MARK:
        write_begin(w, n, a);
        return;
    case REPLICA_SEND:
        network_send(w, n->id, a->send.to, &a->send.message);
        return;
    case REPLICA_LEAD:
        w->leads++;
        book_committed(w, n, a->number);
        book_lead(w, n);
        return;
    case REPLICA_COMMITTED:
        book_committed(w, n, a->number);
        return;
    case REPLICA_ACCEPT:
        n->accepting = true;
        return;
    case REPLICA_REFUSE:
        n->accepting = false;
        return;
    case REPLICA_STEPPED_DOWN:
        n->accepting = false;
        w->step_downs++;
        w->handed += a->why == REPLICA_WHY_HANDED_OVER;
        return;
    case REPLICA_PROPOSE:
        if (n->proposing && n->proposal.version == a->record.version && n->proposal.epoch == a->record.epoch)
            cluster_fail(w, "node %u proposes twice on one version", n->id);
        n->proposing = true;
        n->sent = false;
        n->proposal = a->record;
        n->proposed_ms = 0; /* goes with the next tick, or at once */
        return;
    case REPLICA_UNFIT:
        n->unfit_version = a->record.version;
        return;
    case REPLICA_READ_CHUNK: {
        struct wevent *e = event_new(w, W_READ, n->id, 1 + dice(w, 10));
        e->from = a->read.node;
        e->copy = a->read.copy;
        e->chunk = a->read.chunk;
        if (a->read.cursor.len == sizeof(uint32_t)) {
            uint32_t at;
            memcpy(&at, a->read.cursor.at, sizeof at);
            e->number = at;
        }
        heap_put(w, e);
        return;
    }
    case REPLICA_FETCH: {
        struct wevent *e = event_new(w, W_FETCH, n->id, 1 + dice(w, 10));
        e->from = a->fetch.node;
        e->number = a->fetch.number;
        w->fetches++;
        heap_put(w, e);
        return;
    }
    }
}

static void node_step(struct cluster *w, struct wnode *n, const struct replica_event *e, int *result) {
    struct replica_actions out;
    int err = replica_step(n->r, e, w->now, &out);
    if (result)
        *result = err;
    if (e->kind == REPLICA_BATCH && err == ERR_OK) {
        uint32_t batch;
        memcpy(&batch, e->batch.octets.at, sizeof batch);
        struct replica_position p = replica_last(n->r);
        book_made(w, p.epoch, p.number, batch);
    }
    w->hash = hash_bytes(&(uint64_t[3]){w->now, out.count, (uint64_t)e->kind << 8 | n->id}, 24, w->hash);
    check_leaders(w);
    for (uint32_t i = 0; i < out.count && !w->failed; i++) {
        w->hash = hash_bytes(&out.at[i].kind, sizeof out.at[i].kind, w->hash);
        node_act(w, n, &out.at[i]);
    }
    if (n->proposing && !n->proposed_ms && !w->failed)
        node_propose(w, n);
}

/* The first of the operations that are kept without a gap up to the last one. */
static uint64_t kept_from(const struct wnode *n) {
    uint64_t from = n->disk.mark.last.number + 1;
    while (from > 1 && n->disk.kept[from - 1])
        from--;
    return from;
}

static void node_start(struct cluster *w, struct wnode *n) {
    n->up = true;
    n->life++;
    n->accepting = n->proposing = false;
    n->frozen_until = n->lease_asked_ms = n->session_known = 0;
    n->disk_free_at = w->now;
    struct replica_config c = w->config;
    c.self = n->id;
    c.life = n->life;
    while (!(n->r = replica_new(&c, &n->disk.mark))) {
    }
    uint64_t last = n->disk.mark.last.number, from = kept_from(n);
    if (w->fetches_kept && last > from + 3) /* the others stay on the disk */
        from = last - 3;
    for (uint64_t i = from; w->keeps && i <= last; i++)
        if (replica_remember(n->r, n->disk.kept[i]) != ERR_OK)
            cluster_fail(w, "kept operations are refused");
    heap_put(w, event_new(w, W_TICK, n->id, dice(w, REPLICA_TICK_MS)));
    service_tell(w, n->id, false);
}

static void node_crash(struct cluster *w, struct wnode *n) {
    if (!n->up)
        return;
    uint64_t kept = dice(w, n->write_count + 1);
    while (n->write_count) {
        write_done(w, n, kept > 0);
        kept -= kept > 0;
    }
    replica_free(n->r);
    n->r = NULL;
    n->up = n->accepting = n->proposing = false;
    n->life++; /* nothing that is on its way to it counts */
    n->up_at = w->now + 10 + dice(w, chance(w, 50) ? 300 : 2500);
}

/* The disk is lost, when another member of the set keeps all that is committed. */
static void node_lose_disk(struct cluster *w, struct wnode *n) {
    bool other = !set_has(&w->record.in_sync, n->id);
    for (uint32_t i = 0; i < w->record.in_sync.count; i++)
        other = other || (w->record.in_sync.nodes[i] != n->id && w->node[w->record.in_sync.nodes[i]].intact);
    if (!other)
        return;
    node_crash(w, n);
    kept_clear(&n->disk);
    memset(&n->disk, 0, sizeof n->disk);
    n->intact = false;
    n->losses++;
    w->lost_disks++;
}

static void node_tick(struct cluster *w, struct wnode *n) {
    if (w->now >= n->lease_asked_ms + TTL_MS / 4 || !n->lease_asked_ms) {
        n->lease_asked_ms = w->now;
        if (!service_lost(w, n->id)) {
            struct wevent *e = event_new(w, W_LEASE_ASK, n->id, 1 + dice(w, 20));
            e->number = w->now;
            e->copy = n->session_known;
            heap_put(w, e);
        }
    }
    if (n->proposing && w->now >= n->proposed_ms + 200)
        node_propose(w, n);
    if (w->fetches_kept && chance(w, 20)) {
        struct replica_event e = {.kind = REPLICA_KEPT, .kept_from = kept_from(n)};
        node_step(w, n, &e, NULL);
    }
    node_step(w, n, &(struct replica_event){.kind = REPLICA_TICK}, NULL);
    heap_put(w, event_new(w, W_TICK, n->id, REPLICA_TICK_MS / 2 + dice(w, REPLICA_TICK_MS / 2)));
}

static void node_fetch(struct cluster *w, struct wnode *n, const struct wevent *e) {
    struct replica_event r = {.kind = REPLICA_FETCHED};
    r.fetched.node = e->from;
    r.fetched.number = e->number;
    r.fetched.operation = chance(w, 1) ? NULL : n->disk.kept[e->number]; /* or it was just dropped */
    int ignored;
    node_step(w, n, &r, &ignored);
}

static void node_read(struct cluster *w, struct wnode *n, const struct wevent *e) {
    uint32_t from = (uint32_t)e->number, to = from + CHUNK_KEYS < KEYS ? from + CHUNK_KEYS : KEYS;
    char chunk[8 + CHUNK_KEYS * 8];
    memcpy(chunk, &(uint32_t[2]){from, to}, 8);
    memcpy(chunk + 8, &n->disk.kv[from], (to - from) * 8);
    struct replica_event r = {.kind = REPLICA_CHUNK};
    r.read.node = e->from;
    r.read.copy = e->copy;
    r.read.chunk = e->chunk;
    r.read.octets = (struct span){chunk, 8 + (to - from) * 8};
    r.read.cursor = (struct span){(const char *)&to, sizeof to};
    r.read.last = to == KEYS;
    node_step(w, n, &r, NULL);
}

static void node_record(struct cluster *w, struct wnode *n, const struct wevent *e) {
    if (n->proposing && e->record.version > n->proposal.version)
        n->proposing = false;
    struct replica_event r = {.kind = REPLICA_RECORD, .record = e->record};
    node_step(w, n, &r, NULL);
}

static void node_disk(struct cluster *w, struct wnode *n) {
    uint64_t write = write_first(n)->write;
    write_done(w, n, true);
    struct replica_event r = {.kind = REPLICA_WRITTEN, .write = write};
    if (n->write_count == 0 || chance(w, 70)) /* else told with a later one */
        node_step(w, n, &r, NULL);
}

#endif
