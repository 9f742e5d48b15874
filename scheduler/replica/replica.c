/*
 * replica: role, epoch and lease of one replica, its writes on their way to the disk, and the way of each event to
 * the side (leader or follower) that it is for.
 *
 * The state exists twice: as accepted (all that was given to the owner to write) and as synced. What others are told
 * is the synced one. Writes are synced in their order, so the newer promise of a mark is on disk with all before it.
 */
#include <stdlib.h>

#include "base/check.h"
#include "scheduler/replica/replica_in.h"

/* -- life -- */

static void free_buried(struct replica *r) {
    while (r->buried_count)
        free(r->buried[--r->buried_count]);
}

static bool config_is_valid(const struct replica_config *c) {
    return c->self && c->min_in_sync >= 1 && c->min_in_sync <= REPLICA_SET_MAX && c->window_count >= 1 &&
           c->window_count <= REPLICA_WINDOW_MAX && c->flight_count >= 1 && c->flight_count <= 1024 && c->keep_count;
}

struct replica *replica_new(const struct replica_config *c, const struct replica_mark *mark) {
    CHECK(config_is_valid(c));
    struct replica *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->config = *c;
    r->action_cap = (c->flight_count + 8) * PEERS_MAX + ACTIONS_SPARE;
    r->actions = calloc(r->action_cap, sizeof *r->actions);
    uint32_t cap = c->keep_count + 2 * REPLICA_WINDOW_MAX;
    if (!r->actions || oplog_init(&r->log, cap, c->keep_count, c->keep_bytes) != ERR_OK) {
        replica_free(r);
        return NULL;
    }
    r->state = (struct state){.promised = mark->promised, .complete = mark->complete, .last = mark->last};
    if (FAULT(FAULT_PROMISE))
        r->state.promised = mark->last.epoch;
    r->durable = r->state;
    r->history = mark->history;
    return r;
}

void replica_free(struct replica *r) {
    if (!r)
        return;
    leader_end(r);
    free_buried(r);
    oplog_deinit(&r->log);
    free(r->actions);
    free(r);
}

int replica_remember(struct replica *r, struct replica_operation *o) {
    uint64_t before = r->log.count ? r->log.ring[(r->log.start + r->log.count - 1) % r->log.cap]->number : 0;
    if (o->number == 0 || (before && o->number != before + 1) || o->number > r->state.last.number)
        return ERR_INVALID;
    oplog_push(&r->log, o, r->state.last.number);
    return ERR_OK;
}

/* -- actions and writes -- */

void replica_bury(struct replica *r, void *memory) {
    if (!memory)
        return;
    CHECK(r->buried_count < sizeof r->buried / sizeof r->buried[0]);
    r->buried[r->buried_count++] = memory;
}

struct replica_action *replica_act(struct replica *r, enum replica_action_kind kind) {
    CHECK(r->action_count < r->action_cap);
    struct replica_action *a = &r->actions[r->action_count++];
    *a = (struct replica_action){.kind = kind};
    return a;
}

void replica_send(struct replica *r, uint32_t to, const struct replica_message *m) {
    struct replica_action *a = replica_act(r, REPLICA_SEND);
    a->send.to = to;
    a->send.message = *m;
}

bool replica_can_write(const struct replica *r, uint32_t spare) {
    return r->last_write - r->done_write + spare < REPLICA_WRITES_MAX;
}

struct replica_action *replica_write(struct replica *r, enum replica_action_kind kind, bool with_history) {
    CHECK(replica_can_write(r, 0));
    struct replica_action *a = replica_act(r, kind);
    a->write.write = ++r->last_write;
    a->write.promised = r->state.promised;
    a->write.complete = r->state.complete;
    a->write.last = r->state.last;
    a->write.history = with_history ? &r->history : NULL;
    r->writes[r->last_write % REPLICA_WRITES_MAX].state = r->state;
    return a;
}

static int on_written(struct replica *r, uint64_t write) {
    if (write <= r->done_write || write > r->last_write)
        return ERR_INVALID;
    r->done_write = write;
    r->durable = r->writes[write % REPLICA_WRITES_MAX].state;
    if (!r->leading)
        follower_tell(r, false);
    return ERR_OK;
}

/* -- epochs -- */

bool replica_set_has(const struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node)
            return true;
    return false;
}

void replica_step_down(struct replica *r, enum replica_why why) {
    CHECK(r->leading);
    leader_end(r);
    r->leading = r->ready = r->accepting = r->pending = false;
    r->leader = r->handing = 0;
    replica_act(r, REPLICA_STEPPED_DOWN)->why = why;
}

void replica_adopt(struct replica *r, uint64_t epoch, uint32_t leader) {
    CHECK(!r->leading);
    r->leader = leader;
    r->probe = 0;
    if (epoch == r->state.promised)
        return;
    r->state.promised = epoch;
    r->state.copy = 0;
    r->state.chunks = 0;
    r->copied = false;
    replica_write(r, REPLICA_WRITE_MARK, false);
}

bool replica_hears(struct replica *r, uint32_t from, uint64_t epoch) {
    if (FAULT(FAULT_EPOCH) && epoch < r->state.promised && !r->leading && replica_can_write(r, 1)) {
        replica_adopt(r, epoch, from);
        return true;
    }
    if (epoch < r->state.promised) {
        r->stale++;
        replica_send(r, from, &(struct replica_message){.kind = REPLICA_STALE, .epoch = r->state.promised});
        return false;
    }
    if (epoch > r->state.promised) {
        if (!replica_can_write(r, 1))
            return false;
        if (r->leading)
            replica_step_down(r, REPLICA_WHY_FENCED);
        replica_adopt(r, epoch, from);
        return true;
    }
    if (r->leading)
        return false;
    if (!r->leader)
        replica_adopt(r, epoch, from);
    return r->leader == from;
}

static void on_stale(struct replica *r, uint64_t epoch) {
    if (epoch <= r->state.promised || !replica_can_write(r, 1))
        return;
    if (r->leading)
        replica_step_down(r, REPLICA_WHY_FENCED);
    replica_adopt(r, epoch, 0);
}

/* -- the record -- */

static void lead(struct replica *r) {
    r->state.promised = r->record.epoch;
    r->state.copy = 0;
    r->state.chunks = 0;
    r->copied = false;
    r->leading = true;
    r->leader = r->config.self;
    replica_write(r, REPLICA_WRITE_MARK, false);
    leader_begin(r);
}

/* The epoch that the record gives us was led before this start, or is that of a new shard: asks for the next one. */
static void claim(struct replica *r) {
    if (r->claimed == r->record.version || !r->durable.complete)
        return;
    r->claimed = r->record.version;
    struct replica_action *a = replica_act(r, REPLICA_PROPOSE);
    a->record = r->record;
    a->record.epoch++;
}

/* Whether the record wants us to lead, and whether we can. */
static void consider(struct replica *r) {
    const struct replica_record *rec = &r->record;
    if (r->leading || r->broken || !rec->version || rec->leader != r->config.self || rec->epoch < r->state.promised ||
        !replica_can_write(r, 2))
        return;
    if (rec->epoch == 0 && !r->state.complete && r->state.promised == 0 && r->state.last.number == 0) {
        r->state.complete = true; /* a new shard: nothing is the whole of it */
        replica_write(r, REPLICA_WRITE_MARK, false);
        return;
    }
    bool fit = (r->state.complete || FAULT(FAULT_UNFIT)) && replica_set_has(&rec->in_sync, r->config.self);
    if (!fit && r->unfit_version != rec->version) {
        r->unfit_version = rec->version;
        replica_act(r, REPLICA_UNFIT)->record = *rec;
    }
    /* Whoever has said so keeps to it: somebody else may have been chosen for it. */
    if (!fit || r->unfit_version == rec->version || r->now >= r->lease_ms)
        return;
    if (rec->epoch > r->state.promised || (FAULT(FAULT_TWICE) && rec->epoch))
        lead(r);
    else
        claim(r);
}

static int on_record(struct replica *r, const struct replica_record *rec) {
    if (rec->version == 0 || rec->in_sync.count > REPLICA_SET_MAX || rec->replicas.count > REPLICA_SET_MAX)
        return ERR_INVALID;
    if (rec->version <= r->record.version || !replica_can_write(r, 2))
        return ERR_OK;
    r->record = *rec;
    r->claimed = 0;
    bool ours = rec->leader == r->config.self;
    if (r->leading && (rec->epoch > r->state.promised || (rec->epoch == r->state.promised && !ours)))
        replica_step_down(r, REPLICA_WHY_FENCED);
    if (r->leading)
        leader_on_record(r);
    else if (!ours && rec->epoch > r->state.promised)
        replica_adopt(r, rec->epoch, rec->leader);
    return ERR_OK;
}

static int on_propose_failed(struct replica *r) {
    r->claimed = 0;
    r->pending = false;
    r->propose_after_ms = r->now + r->config.resend_ms;
    return ERR_OK;
}

/* -- one step -- */

static int on_message(struct replica *r, uint32_t from, const struct replica_message *m) {
    if (from == 0 || from == r->config.self)
        return ERR_INVALID;
    switch (m->kind) {
    case REPLICA_OPEN:
        follower_on_open(r, from, m);
        return ERR_OK;
    case REPLICA_POSITION:
        if (m->epoch > r->state.promised)
            on_stale(r, m->epoch);
        else if (r->leading && m->epoch == r->state.promised)
            leader_on_position(r, from, m);
        return ERR_OK;
    case REPLICA_OPERATION:
        if (!m->operation)
            return ERR_INVALID;
        follower_on_operation(r, from, m);
        return ERR_OK;
    case REPLICA_COPY_BEGIN:
        if (!m->history || !history_is_valid(m->history))
            return ERR_INVALID;
        copy_on_begin(r, from, m);
        return ERR_OK;
    case REPLICA_COPY_CHUNK:
        copy_on_chunk(r, from, m);
        return ERR_OK;
    case REPLICA_STALE:
        on_stale(r, m->epoch);
        return ERR_OK;
    }
    return ERR_INVALID;
}

static int dispatch(struct replica *r, const struct replica_event *e) {
    switch (e->kind) {
    case REPLICA_RECORD:
        return on_record(r, &e->record);
    case REPLICA_PROPOSE_FAILED:
        return on_propose_failed(r);
    case REPLICA_LEASE:
        if (e->until_ms > r->lease_ms)
            r->lease_ms = e->until_ms;
        return ERR_OK;
    case REPLICA_BATCH:
        return r->leading ? leader_batch(r, e->batch.octets, e->batch.must) : ERR_CLOSED;
    case REPLICA_WRITTEN:
        return on_written(r, e->write);
    case REPLICA_WRITE_FAILED:
        r->broken = true;
        if (r->leading)
            replica_step_down(r, REPLICA_WHY_WRITE);
        return ERR_OK;
    case REPLICA_MESSAGE:
        return on_message(r, e->from, &e->message);
    case REPLICA_CHUNK:
        return copy_on_read(r, e);
    case REPLICA_KEPT:
        r->kept_from = e->kept_from;
        return ERR_OK;
    case REPLICA_FETCHED:
        return leader_on_fetched(r, e);
    case REPLICA_HAND_OVER:
        return r->leading ? leader_hand_over(r, e->to) : ERR_INVALID;
    case REPLICA_GONE:
        if (r->leading)
            leader_on_gone(r, e->to);
        return ERR_OK;
    case REPLICA_TICK:
        return ERR_OK;
    }
    return ERR_INVALID;
}

int replica_step(struct replica *r, const struct replica_event *e, uint64_t now_ms, struct replica_actions *out) {
    r->action_count = 0;
    free_buried(r);
    if (now_ms > r->now)
        r->now = now_ms;
    oplog_trim(&r->log, r->committed);
    /* Before anything else: what comes after the end of the lease finds no leader here. */
    if (r->leading && r->now >= r->lease_ms && !FAULT(FAULT_LEASE))
        replica_step_down(r, REPLICA_WHY_LEASE);
    int err = r->broken ? ERR_INVALID : dispatch(r, e);
    consider(r);
    if (r->leading)
        leader_drive(r);
    *out = (struct replica_actions){r->actions, r->action_count};
    return err;
}

/* -- looking in -- */

bool replica_is_leader(const struct replica *r, uint64_t now_ms) {
    return r->leading && (now_ms < r->lease_ms || FAULT(FAULT_LEASE));
}

struct replica_position replica_last(const struct replica *r) {
    return r->state.last;
}

void replica_status(const struct replica *r, uint64_t now_ms, struct replica_status *out) {
    *out = (struct replica_status){.leader = replica_is_leader(r, now_ms),
                                   .ready = r->ready,
                                   .accepting = r->accepting,
                                   .complete = r->state.complete,
                                   .broken = r->broken,
                                   .epoch = r->state.promised,
                                   .version = r->record.version,
                                   .leader_node = r->leader,
                                   .last = r->state.last,
                                   .synced = r->durable.last.number,
                                   .committed = r->committed,
                                   .full = r->full,
                                   .bad = r->bad,
                                   .stale = r->stale,
                                   .peer_count = r->peer_count};
    for (uint32_t i = 0; i < r->peer_count; i++) {
        const struct peer *p = r->peers[i];
        out->peers[i] = (struct replica_peer_status){.node = p->node,
                                                     .state = p->state,
                                                     .in_sync = replica_set_has(&r->record.in_sync, p->node),
                                                     .overdue = p->gone || now_ms > p->caught_ms + r->config.slow_ms,
                                                     .acked = p->acked};
    }
}
