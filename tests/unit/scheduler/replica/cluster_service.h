/*
 * cluster_service: the network of cluster.h, and its agreement service with leases and a controller.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_SERVICE_H
#define TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_SERVICE_H

#include "tests/unit/scheduler/replica/cluster_books.h"

/* -- the network and the agreement service -- */

static void node_step(struct cluster *w, struct wnode *n, const struct replica_event *e, int *result);

static void network_put(struct cluster *w, uint32_t from, uint32_t to, const struct replica_message *m,
                        uint64_t delay) {
    struct wevent *e = event_new(w, W_MESSAGE, to, delay);
    e->from = from;
    e->message = *m;
    if (m->operation)
        e->message.operation = replica_operation_hold(m->operation);
    if (m->history) {
        e->history = copy_of(m->history, sizeof *m->history);
        e->message.history = e->history;
    }
    if (m->octets.len) {
        e->octets = copy_of(m->octets.at, m->octets.len);
        e->message.octets.at = e->octets;
    }
    heap_put(w, e);
}

static void network_send(struct cluster *w, uint32_t from, uint32_t to, const struct replica_message *m) {
    uint32_t copies = chance(w, w->doubled) ? 2 : 1;
    if (w->parted[from][to] || to == 0 || to > w->count)
        return;
    while (copies--) {
        if (chance(w, w->drop))
            continue;
        uint64_t delay = 1 + dice(w, 5);
        if (w->delay_ms && chance(w, 10))
            delay += dice(w, w->delay_ms);
        if (w->in_order || w->healed) {
            uint64_t *last = &w->link[from][to];
            *last = w->now + delay > *last ? w->now + delay : *last;
            delay = *last - w->now;
        }
        network_put(w, from, to, m, delay);
    }
    /* The most dangerous word comes again, late. */
    if (m->kind == REPLICA_COPY_BEGIN && !w->in_order && !w->healed && chance(w, 50))
        network_put(w, from, to, m, dice(w, 3000));
}

static bool service_lost(struct cluster *w, uint32_t node) {
    return w->away || w->parted[node][0] || chance(w, w->drop / 2);
}

static void service_tell(struct cluster *w, uint32_t node, bool answer) {
    if (service_lost(w, node) && !w->healed)
        return;
    struct wevent *e = event_new(w, W_RECORD, node, 2 + dice(w, 20));
    e->record = w->record;
    e->answer = answer;
    heap_put(w, e);
}

/* Who joins has all that clients were told of, unless its disk was lost meanwhile. */
static void check_joins(struct cluster *w, struct wnode *n) {
    for (uint32_t b = 1; b <= w->batches && n->intact; b++)
        if (w->told[b] && n->disk.kv[b] != batch_hash(b, 0))
            return cluster_fail(w, "node %u joins the set without batch %u", n->id, b);
}

static void service_changed(struct cluster *w, const struct replica_set *before) {
    w->record.version++;
    w->sets++;
    for (uint32_t i = 1; i <= w->count; i++) {
        struct wnode *n = &w->node[i];
        bool in = set_has(&w->record.in_sync, i);
        if (in && !set_has(before, i)) {
            n->intact = n->disk.mark.complete;
            check_joins(w, n);
        }
        service_tell(w, i, false);
    }
}

static void service_cas(struct cluster *w, const struct wevent *e) {
    struct wnode *n = &w->node[e->node];
    if (w->away || w->parted[e->node][0] || e->number != n->losses)
        return;
    if (e->record.version == w->record.version) {
        struct replica_set before = w->record.in_sync;
        w->record.epoch = e->record.epoch;
        w->record.leader = e->record.leader;
        w->record.in_sync = e->record.in_sync;
        service_changed(w, &before);
    }
    service_tell(w, e->node, true);
}

static bool session_holds(const struct cluster *w, uint32_t node) {
    return w->now < w->node[node].session_until;
}

/* A dead or unfit leader: another member of the set takes over. */
static void service_control(struct cluster *w) {
    struct replica_record *rec = &w->record;
    if (w->away || rec->epoch == 0)
        return;
    struct wnode *leader = &w->node[rec->leader];
    bool unfit = leader->unfit_version == rec->version;
    if (session_holds(w, rec->leader) && !unfit) {
        /* Who has missed the news reads it now and then. */
        service_tell(w, 1 + (uint32_t)dice(w, w->count), false);
        for (uint32_t i = 1; i <= w->count; i++)
            if (!session_holds(w, i) && leader->up && leader->frozen_until <= w->now && chance(w, 20))
                node_step(w, leader, &(struct replica_event){.kind = REPLICA_GONE, .to = i}, NULL);
        return;
    }
    uint32_t fit = 0, chosen = 0;
    for (uint32_t i = 0; i < rec->in_sync.count; i++)
        if (session_holds(w, rec->in_sync.nodes[i]) && !(unfit && rec->in_sync.nodes[i] == rec->leader) &&
            dice(w, ++fit) == 0)
            chosen = rec->in_sync.nodes[i];
    if (!chosen)
        return;
    rec->leader = chosen;
    rec->epoch++;
    service_changed(w, &rec->in_sync);
}

#endif
