/*
 * leader: sends operations to the other replicas, says what is committed, and changes the in-sync set.
 *
 * Nobody is counted on before it has said where it is and that was found in our history. A member that falls behind
 * leaves the set by a proposal; until the record says so nothing is committed without it. A member is not taken out for
 * being slow when too few would remain: nothing could be committed then either, and it can still become leader. A
 * replica that has caught up joins: first commits wait for it, then it is proposed, so that the record never names one
 * that lacks something.
 */
#include <stdlib.h>

#include "base/check.h"
#include "scheduler/replica/replica_in.h"

/* -- peers -- */

struct peer *leader_peer(struct replica *r, uint32_t node) {
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i]->node == node)
            return r->peers[i];
    return NULL;
}

static bool is_member(const struct replica *r, const struct peer *p) {
    return replica_set_has(&r->record.in_sync, p->node);
}

bool leader_needs(const struct replica *r, uint32_t node) {
    if (replica_set_has(&r->record.in_sync, node) &&
        !(FAULT(FAULT_SHRINK) && r->pending && !replica_set_has(&r->proposed, node)))
        return true;
    if (FAULT(FAULT_GROW))
        return false;
    if (r->pending && replica_set_has(&r->proposed, node))
        return true;
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i]->node == node)
            return r->peers[i]->joining;
    return false;
}

static bool is_overdue(const struct replica *r, const struct peer *p) {
    return p->gone || r->now > p->caught_ms + r->config.slow_ms;
}

void leader_on_gone(struct replica *r, uint32_t node) {
    struct peer *p = leader_peer(r, node);
    if (p)
        p->gone = true;
}

static void peer_free(struct replica *r, struct peer *p) {
    copy_drop_chunk(r, p);
    replica_bury(r, p);
}

/* Asks anew where it is; what it said before does not count. */
static void peer_probe(struct replica *r, struct peer *p) {
    copy_drop_chunk(r, p);
    p->state = REPLICA_PROBING;
    p->probe = ++r->probes;
    p->opened = p->complete = p->joining = false;
    p->acked = p->sent = p->fetching = 0;
    p->copy = 0;
}

static void peer_lost(struct replica *r, struct peer *p) {
    copy_drop_chunk(r, p);
    p->state = REPLICA_LOST;
    p->acked = p->sent = p->fetching = 0;
    p->joining = p->complete = false;
}

static void peer_add(struct replica *r, uint32_t node) {
    if (node == 0 || node == r->config.self || leader_peer(r, node) || r->peer_count == PEERS_MAX)
        return;
    struct peer *p = calloc(1, sizeof *p);
    if (!p) { /* tried again at the next step; a member without a peer lets nothing be committed */
        r->peers_lacking = true;
        return;
    }
    p->node = node;
    p->caught_ms = r->now;
    peer_probe(r, p);
    r->peers[r->peer_count++] = p;
}

/* Peers are those that the record names. */
static void peers_match(struct replica *r) {
    for (uint32_t i = 0; i < r->peer_count;) {
        struct peer *p = r->peers[i];
        if (is_member(r, p) || replica_set_has(&r->record.replicas, p->node)) {
            i++;
            continue;
        }
        peer_free(r, p);
        r->peers[i] = r->peers[--r->peer_count];
    }
    r->peers_lacking = false;
    for (uint32_t i = 0; i < r->record.in_sync.count; i++)
        peer_add(r, r->record.in_sync.nodes[i]);
    for (uint32_t i = 0; i < r->record.replicas.count; i++)
        peer_add(r, r->record.replicas.nodes[i]);
}

void leader_begin(struct replica *r) {
    r->takeover = r->state.last.number;
    if (r->committed > r->takeover)
        r->committed = r->takeover;
    r->window_bytes = 0;
    r->ready = r->accepting = r->pending = false;
    r->handing = 0;
    r->propose_after_ms = 0;
    r->peer_count = 0;
    peers_match(r);
}

void leader_end(struct replica *r) {
    for (uint32_t i = 0; i < r->peer_count; i++)
        peer_free(r, r->peers[i]);
    r->peer_count = 0;
}

void leader_on_record(struct replica *r) {
    r->pending = false;
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct peer *p = r->peers[i];
        if (p->joining && !is_member(r, p))
            p->join_after_ms = r->now + r->config.resend_ms;
        p->joining = false;
    }
    peers_match(r);
}

/* -- batches -- */

int leader_batch(struct replica *r, struct span octets, bool must) {
    if (octets.len > REPLICA_OPERATION_MAX)
        return ERR_RANGE;
    if (!r->ready || r->handing || (!must && !r->accepting))
        return ERR_AGAIN;
    uint64_t waiting = r->state.last.number - r->committed;
    if (waiting >= r->config.window_count || !replica_can_write(r, WRITES_SPARE) ||
        (waiting && r->window_bytes + octets.len > r->config.window_bytes)) {
        r->full++;
        return ERR_FULL;
    }
    uint64_t epoch = r->state.promised, number = r->state.last.number + 1, before = r->state.last.epoch;
    struct replica_operation *o =
        replica_operation_new(epoch, number, before, replica_checksum(epoch, number, before, octets), octets);
    if (!o)
        return ERR_NOMEM;
    oplog_push(&r->log, o, r->committed);
    r->window_bytes += octets.len;
    r->state.last = (struct replica_position){epoch, number};
    bool first = history_note(&r->history, r->state.last);
    replica_write(r, REPLICA_WRITE, first)->write.operation = o;
    replica_operation_release(o); /* the log has it */
    return ERR_OK;
}

/* Up to which number all have synced that must have. False: somebody has not said where it is. */
static bool synced_by_all(struct replica *r, uint64_t *n) {
    uint32_t found = 1, skipped = 0;
    *n = FAULT(FAULT_SYNC) ? r->state.last.number : r->durable.last.number;
    for (uint32_t i = 0; i < r->peer_count; i++) {
        const struct peer *p = r->peers[i];
        found += is_member(r, p);
        if (!leader_needs(r, p->node) || (FAULT(FAULT_MEMBER) && skipped++ == 0))
            continue;
        if (p->state != REPLICA_STREAMING)
            return false;
        if (p->acked < *n)
            *n = p->acked;
    }
    return found == r->record.in_sync.count;
}

static void commit(struct replica *r) {
    uint64_t n, before = r->committed;
    if (r->record.in_sync.count < r->config.min_in_sync || !synced_by_all(r, &n) || n < before)
        return;
    for (uint64_t i = before > r->takeover ? before + 1 : r->takeover + 1; i <= n; i++) {
        const struct replica_operation *o = oplog_get(&r->log, i);
        r->window_bytes -= o ? o->len : 0;
    }
    r->committed = n;
    if (!r->ready && n >= r->takeover) {
        r->ready = true;
        replica_act(r, REPLICA_LEAD)->number = n;
    } else if (r->ready && n > before) {
        replica_act(r, REPLICA_COMMITTED)->number = n;
    }
}

/* -- sending -- */

static void open_peer(struct replica *r, struct peer *p) {
    if (p->opened && r->now < p->opened_ms + r->config.heartbeat_ms)
        return;
    struct replica_message m = {
        .kind = REPLICA_OPEN, .epoch = r->state.promised, .probe = p->probe, .committed = r->committed};
    replica_send(r, p->node, &m);
    p->opened = true;
    p->opened_ms = r->now;
}

static void send_operation(struct replica *r, struct peer *p, struct replica_operation *o) {
    if (p->sent == p->acked)
        p->moved_ms = r->now;
    struct replica_message m = {
        .kind = REPLICA_OPERATION, .epoch = r->state.promised, .committed = r->committed, .operation = o};
    replica_send(r, p->node, &m);
    p->sent++;
}

static bool is_on_disk(const struct replica *r, uint64_t number) {
    return r->kept_from && number >= r->kept_from && number <= r->durable.last.number;
}

static uint64_t limit_of(const struct replica *r, const struct peer *p) {
    return p->state == REPLICA_COPYING && !FAULT(FAULT_CHUNK) ? p->hold : r->state.last.number;
}

static void stream(struct replica *r, struct peer *p) {
    uint64_t limit = limit_of(r, p), flight = 0;
    if (p->sent > p->acked && r->now >= p->moved_ms + r->config.resend_ms) {
        p->sent = p->acked;
        p->moved_ms = r->now;
    }
    for (uint64_t n = p->acked + 1; n <= p->sent; n++) {
        const struct replica_operation *o = oplog_get(&r->log, n);
        flight += o ? o->len : 0;
    }
    while (p->sent < limit && p->sent - p->acked < r->config.flight_count && flight < r->config.flight_bytes &&
           r->action_count + ACTIONS_SPARE < r->action_cap) {
        struct replica_operation *o = oplog_get(&r->log, p->sent + 1);
        if (!o && !is_on_disk(r, p->sent + 1)) {
            peer_lost(r, p);
            return;
        }
        if (!o) {
            if (p->fetching)
                return;
            p->fetching = p->sent + 1;
            struct replica_action *a = replica_act(r, REPLICA_FETCH);
            a->fetch.node = p->node;
            a->fetch.number = p->fetching;
            return;
        }
        send_operation(r, p, o);
        flight += o->len;
    }
}

int leader_on_fetched(struct replica *r, const struct replica_event *e) {
    struct peer *p = r->leading ? leader_peer(r, e->fetched.node) : NULL;
    struct replica_operation *o = e->fetched.operation;
    if (!p || !p->fetching || p->fetching != e->fetched.number || (o && o->number != p->fetching))
        return ERR_INVALID;
    p->fetching = 0;
    if (!o)
        peer_lost(r, p);
    else if (o->number == p->sent + 1 && o->number <= limit_of(r, p))
        send_operation(r, p, o); /* the event's: sent before the owner lets go of it */
    return ERR_OK;
}

static void pump(struct replica *r, struct peer *p) {
    open_peer(r, p);
    if (p->state == REPLICA_LOST && replica_set_has(&r->record.replicas, p->node) &&
        (!leader_needs(r, p->node) || FAULT(FAULT_WIPE_MEMBER)))
        copy_begin(r, p);
    if (p->state == REPLICA_COPYING)
        copy_drive(r, p);
    if (p->state == REPLICA_STREAMING || (p->state == REPLICA_COPYING && p->begun))
        stream(r, p);
}

/* -- what the others say -- */

/* The first word of a peer in this epoch: whether it has something that we do not have. */
static void judge(struct replica *r, struct peer *p, const struct replica_message *m) {
    p->copy = m->copy;
    p->complete = m->complete;
    bool ours = history_has(&r->history, r->state.last, m->position) || FAULT(FAULT_WIPE);
    uint64_t number = m->position.number;
    if (FAULT(FAULT_WIPE) && number > r->state.last.number)
        number = r->state.last.number;
    if (!m->complete || !ours ||
        (number < r->state.last.number && !oplog_get(&r->log, number + 1) && !is_on_disk(r, number + 1))) {
        peer_lost(r, p);
        return;
    }
    p->state = REPLICA_STREAMING;
    p->acked = p->sent = number;
    p->moved_ms = r->now;
}

static void note_caught(struct replica *r, struct peer *p) {
    if (p->state != REPLICA_STREAMING || p->acked < p->caught_number)
        return;
    p->caught_number = r->state.last.number;
    p->caught_ms = r->now;
}

static void on_progress(struct replica *r, struct peer *p, const struct replica_message *m) {
    if (m->copy != p->copy)
        return; /* said before the copy */
    p->complete = m->complete;
    if (!history_has(&r->history, r->state.last, m->position) && !FAULT(FAULT_WIPE)) {
        peer_lost(r, p);
        return;
    }
    if (m->position.number > p->acked) {
        p->acked = m->position.number;
        p->sent = p->sent < p->acked ? p->acked : p->sent;
        p->moved_ms = r->now;
    } else if (m->gap && p->sent > p->acked && r->now >= p->moved_ms + r->config.resend_ms / 4) {
        p->sent = p->acked; /* one was lost on the way */
        p->moved_ms = r->now;
    }
}

void leader_on_position(struct replica *r, uint32_t from, const struct replica_message *m) {
    struct peer *p = leader_peer(r, from);
    if (!p || m->life < p->life)
        return;
    if (m->life > p->life) { /* it began anew: what it had synced may be gone with its disk */
        bool first = p->life == 0;
        p->life = m->life;
        if (!first)
            peer_probe(r, p);
    }
    if (m->probe != p->probe)
        return;
    p->gone = false;
    switch (p->state) {
    case REPLICA_PROBING:
        judge(r, p, m);
        break;
    case REPLICA_STREAMING:
        on_progress(r, p, m);
        break;
    case REPLICA_COPYING:
        if (m->copy == p->copy)
            copy_on_position(r, p, m);
        break;
    case REPLICA_LOST:
        break;
    }
    note_caught(r, p);
}

/* -- the set -- */

static void propose(struct replica *r, const struct replica_set *s) {
    r->pending = true;
    r->proposed = *s;
    struct replica_action *a = replica_act(r, REPLICA_PROPOSE);
    a->record = r->record;
    a->record.in_sync = *s;
}

static void set_remove(struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node) {
            s->nodes[i] = s->nodes[--s->count];
            return;
        }
}

/* Members that cannot be repaired in the set, and those that are too slow or unwanted while enough remain. */
static bool propose_less(struct replica *r) {
    struct replica_set s = r->record.in_sync;
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i]->state == REPLICA_LOST)
            set_remove(&s, r->peers[i]->node);
    for (uint32_t i = 0; i < r->peer_count; i++) {
        bool unwanted = !replica_set_has(&r->record.replicas, r->peers[i]->node);
        if ((is_overdue(r, r->peers[i]) || unwanted) && s.count > r->config.min_in_sync)
            set_remove(&s, r->peers[i]->node);
    }
    if (s.count == r->record.in_sync.count)
        return false;
    propose(r, &s);
    return true;
}

static uint64_t floor_to_join(const struct replica *r) {
    /* What a new leader has taken over may all be committed, though it does not know. */
    return r->ready || FAULT(FAULT_FLOOR) ? r->committed : r->takeover;
}

static bool is_near(const struct replica *r, const struct peer *p) {
    return p->state == REPLICA_STREAMING && p->complete && !is_overdue(r, p) && !is_member(r, p) &&
           replica_set_has(&r->record.replicas, p->node) && r->state.last.number - p->acked <= r->config.flight_count;
}

static void propose_more(struct replica *r) {
    struct replica_set s = r->record.in_sync;
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct peer *p = r->peers[i];
        if (p->joining && (!is_near(r, p) || r->now > p->joining_ms + r->config.slow_ms)) {
            p->joining = false;
            p->join_after_ms = r->now + r->config.slow_ms;
        } else if (!p->joining && is_near(r, p) && r->now >= p->join_after_ms) {
            p->joining = true;
            p->joining_ms = r->now;
        }
        if (p->joining && p->acked >= floor_to_join(r) && s.count < REPLICA_SET_MAX)
            s.nodes[s.count++] = p->node;
    }
    if (s.count > r->record.in_sync.count)
        propose(r, &s);
}

int leader_hand_over(struct replica *r, uint32_t to) {
    const struct peer *p = leader_peer(r, to);
    if (!p || !r->ready || r->handing || !is_member(r, p) || p->state != REPLICA_STREAMING || is_overdue(r, p))
        return ERR_INVALID;
    r->handing = to;
    r->handing_ms = r->now;
    return ERR_OK;
}

/* True: handed over, no leader any more. */
static bool hand_over(struct replica *r) {
    const struct peer *p = leader_peer(r, r->handing);
    if (!p || !is_member(r, p) || p->state != REPLICA_STREAMING || r->now > r->handing_ms + r->config.slow_ms) {
        r->handing = 0;
        return false;
    }
    if (r->pending || r->committed < r->state.last.number)
        return false;
    struct replica_action *a = replica_act(r, REPLICA_PROPOSE);
    a->record = r->record;
    a->record.epoch++;
    a->record.leader = r->handing;
    r->claimed = r->record.version;
    replica_step_down(r, REPLICA_WHY_HANDED_OVER);
    return true;
}

/* No replica of this shard any more: whoever is well takes over, and will take us out of the set. */
static void retire(struct replica *r) {
    if (r->handing || !r->ready || replica_set_has(&r->record.replicas, r->config.self))
        return;
    for (uint32_t i = 0; i < r->peer_count && !r->handing; i++)
        if (replica_set_has(&r->record.replicas, r->peers[i]->node) && leader_hand_over(r, r->peers[i]->node) == ERR_OK)
            return;
}

static void tell_accepting(struct replica *r) {
    uint32_t well = 1;
    for (uint32_t i = 0; i < r->peer_count; i++) {
        const struct peer *p = r->peers[i];
        well += is_member(r, p) && p->state == REPLICA_STREAMING && !is_overdue(r, p);
    }
    bool accepting = r->ready && !r->handing && well >= r->config.min_in_sync;
    if (accepting == r->accepting)
        return;
    r->accepting = accepting;
    replica_act(r, accepting ? REPLICA_ACCEPT : REPLICA_REFUSE);
}

void leader_drive(struct replica *r) {
    if (r->durable.promised == r->state.promised || FAULT(FAULT_TWICE)) {
        if (r->peers_lacking)
            peers_match(r);
        for (uint32_t i = 0; i < r->peer_count; i++)
            pump(r, r->peers[i]);
        commit(r);
        if (!r->pending && r->now >= r->propose_after_ms && !r->handing && !propose_less(r))
            propose_more(r);
        retire(r);
        if (r->handing && hand_over(r))
            return;
    }
    tell_accepting(r);
}
