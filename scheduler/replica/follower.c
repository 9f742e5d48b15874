/*
 * follower: takes the leader's operations in their order, and says how far they are synced.
 *
 * It takes the next one only, on top of exactly the one before it; all else is answered with where it stands, and the
 * leader goes back to there. What it says is always the synced state, and only after the promise of this epoch is
 * synced, so that nothing of an older epoch is still on its way to the disk.
 */
#include "scheduler/replica/replica_in.h"

void follower_tell(struct replica *r, bool gap) {
    const struct state *s = FAULT(FAULT_SYNC) ? &r->state : &r->durable;
    if (!r->leader || r->leading || s->promised != r->state.promised)
        return;
    struct replica_message m = {.kind = REPLICA_POSITION,
                                .epoch = s->promised,
                                .probe = r->probe,
                                .life = r->config.life,
                                .position = s->last,
                                .complete = s->complete,
                                .gap = gap,
                                .copy = s->copy,
                                .chunk = s->chunks};
    replica_send(r, r->leader, &m);
}

static void note_committed(struct replica *r, uint64_t committed) {
    if (committed > r->committed)
        r->committed = committed;
}

void follower_on_open(struct replica *r, uint32_t from, const struct replica_message *m) {
    if (!replica_hears(r, from, m->epoch))
        return;
    if (m->probe > r->probe)
        r->probe = m->probe;
    note_committed(r, m->committed);
    follower_tell(r, false);
}

void follower_on_operation(struct replica *r, uint32_t from, const struct replica_message *m) {
    struct replica_operation *o = m->operation;
    if (!replica_hears(r, from, m->epoch))
        return;
    note_committed(r, m->committed);
    if (o->number != r->state.last.number + 1 || o->previous_epoch != r->state.last.epoch) {
        follower_tell(r, o->number > r->state.last.number + 1);
        return;
    }
    struct span octets = {o->octets, o->len};
    if (o->epoch > m->epoch || o->epoch < r->state.last.epoch ||
        o->checksum != replica_checksum(o->epoch, o->number, o->previous_epoch, octets)) {
        r->bad++;
        return;
    }
    if (!replica_can_write(r, WRITES_SPARE))
        return; /* it will come again */
    bool again = !r->state.complete;
    oplog_push(&r->log, o, r->committed);
    r->state.last = (struct replica_position){o->epoch, o->number};
    bool first = history_note(&r->history, r->state.last);
    if (r->copied && o->number >= r->complete_at)
        r->state.complete = true;
    struct replica_action *a = replica_write(r, REPLICA_WRITE, first);
    a->write.operation = o;
    a->write.again = again;
    a->write.copying = again && !r->copied;
    if (FAULT(FAULT_SYNC))
        follower_tell(r, false);
}
