/*
 * copy: the full copy of a shard to a replica that has nothing, or something that was never committed.
 *
 * There is no snapshot that would have to live as long as the copy: the copy is a walk over the keys, in chunks, woven
 * into the row of operations. A chunk is read from the state on disk at operation `hold` or later, and is written by
 * the receiver exactly behind operation `hold`. What is not yet copied when an operation comes is brought, with its
 * effect, by a later chunk; what is already copied gets each later operation; and an operation whose effect the chunk
 * had already seen is absolute, so that it may be done again. The replica is whole when it has done all operations
 * that any chunk may have seen (complete_at).
 *
 * One chunk is on its way at a time, and operations behind `hold` wait for it; between chunks all that has come up is
 * sent. The pace is limited by credit that grows with time.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "scheduler/replica/replica_in.h"

/* -- the leader's side -- */

void copy_drop_chunk(struct replica *r, struct peer *p) {
    replica_bury(r, p->chunk);
    p->chunk = NULL;
    p->chunk_len = 0;
    p->reading = false;
}

void copy_begin(struct replica *r, struct peer *p) {
    copy_drop_chunk(r, p);
    p->state = REPLICA_COPYING;
    p->copy = ++r->copies;
    p->base = r->state.last;
    p->hold = p->acked = p->sent = p->base.number;
    p->chunks = 0;
    p->begun = p->complete = p->chunk_last = false;
    p->complete_at = 0;
    p->cursor.len = p->next.len = 0;
    p->credit = 1;
    p->credit_ms = r->now;
    p->moved_ms = r->now >= r->config.resend_ms ? r->now - r->config.resend_ms : 0; /* at once */
    p->opened = true;
}

static bool is_due(const struct replica *r, const struct peer *p) {
    return r->now >= p->moved_ms + r->config.resend_ms || p->moved_ms == 0;
}

static void send_begin(struct replica *r, struct peer *p) {
    struct replica_message m = {.kind = REPLICA_COPY_BEGIN,
                                .epoch = r->state.promised,
                                .life = p->life,
                                .position = p->base,
                                .copy = p->copy,
                                .history = &r->history};
    replica_send(r, p->node, &m);
    p->moved_ms = r->now;
}

static void send_chunk(struct replica *r, struct peer *p) {
    struct replica_message m = {.kind = REPLICA_COPY_CHUNK,
                                .epoch = r->state.promised,
                                .life = p->life,
                                .position = {.number = p->chunk_at},
                                .copy = p->copy,
                                .chunk = p->chunks,
                                .last = p->chunk_last,
                                .complete_at = p->complete_at,
                                .checksum = p->chunk_checksum,
                                .octets = {p->chunk, p->chunk_len}};
    replica_send(r, p->node, &m);
    p->moved_ms = r->now;
}

static void earn(const struct replica *r, struct peer *p) {
    uint64_t rate = r->config.copy_per_s, most = rate / 4 + 1;
    uint64_t ms = r->now - p->credit_ms;
    uint64_t more = ms > 1000 ? rate : rate * ms / 1000;
    if (!more)
        return;
    p->credit_ms = r->now;
    p->credit += (int64_t)more;
    if (p->credit > (int64_t)most)
        p->credit = (int64_t)most;
}

void copy_drive(struct replica *r, struct peer *p) {
    earn(r, p);
    if (!p->begun) {
        if (is_due(r, p))
            send_begin(r, p);
        return;
    }
    if (p->chunk) {
        if (is_due(r, p))
            send_chunk(r, p);
        return;
    }
    if (p->reading)
        return;
    if (p->credit <= 0) {
        p->hold = r->state.last.number;
        return;
    }
    if (p->acked < p->hold || r->durable.last.number < p->hold)
        return;
    p->reading = true;
    struct replica_action *a = replica_act(r, REPLICA_READ_CHUNK);
    a->read.node = p->node;
    a->read.copy = p->copy;
    a->read.chunk = p->chunks;
    a->read.cursor = (struct span){p->cursor.at, p->cursor.len};
}

static uint64_t chunk_checksum(uint64_t copy, uint32_t chunk, uint64_t at, uint64_t complete_at, bool last,
                               struct span octets) {
    uint64_t head[5] = {copy, chunk, at, complete_at, last};
    return hash_bytes(octets.at, octets.len, hash_bytes(head, sizeof head, octets.len));
}

int copy_on_read(struct replica *r, const struct replica_event *e) {
    struct peer *p = r->leading ? leader_peer(r, e->read.node) : NULL;
    if (!p || p->state != REPLICA_COPYING || p->copy != e->read.copy || p->chunks != e->read.chunk || !p->reading)
        return ERR_INVALID;
    if (e->read.octets.len > REPLICA_CHUNK_MAX || e->read.cursor.len > REPLICA_CURSOR_MAX)
        return ERR_RANGE;
    p->reading = false;
    p->chunk = malloc(e->read.octets.len + 1);
    if (!p->chunk)
        return ERR_NOMEM; /* it is read again */
    if (e->read.octets.len)
        memcpy(p->chunk, e->read.octets.at, e->read.octets.len);
    p->chunk_len = (uint32_t)e->read.octets.len;
    p->next.len = (uint32_t)e->read.cursor.len;
    if (p->next.len)
        memcpy(p->next.at, e->read.cursor.at, p->next.len);
    p->chunk_at = p->hold;
    p->chunk_last = e->read.last;
    p->complete_at = r->state.last.number;
    p->credit -= (int64_t)p->chunk_len + 1;
    p->chunk_checksum = chunk_checksum(p->copy, p->chunks, p->chunk_at, p->complete_at, p->chunk_last,
                                       (struct span){p->chunk, p->chunk_len});
    send_chunk(r, p);
    return ERR_OK;
}

void copy_on_position(struct replica *r, struct peer *p, const struct replica_message *m) {
    p->begun = true;
    p->complete = m->complete;
    if (m->position.number > p->acked) {
        p->acked = m->position.number;
        p->sent = p->sent < p->acked ? p->acked : p->sent;
        p->moved_ms = r->now;
    }
    if (p->chunk && m->chunk == p->chunks + 1) {
        bool last = p->chunk_last;
        copy_drop_chunk(r, p);
        p->chunks++;
        p->cursor = p->next;
        p->hold = r->state.last.number;
        p->moved_ms = r->now;
        if (last) {
            p->state = REPLICA_STREAMING;
            p->caught_number = r->state.last.number;
            p->caught_ms = r->now;
        }
    } else if (p->chunk && p->acked > p->chunk_at) {
        /* A late operation has overtaken it: what the chunk says may be older. */
        copy_drop_chunk(r, p);
        p->hold = r->state.last.number;
    }
}

/* -- the follower's side -- */

void copy_on_begin(struct replica *r, uint32_t from, const struct replica_message *m) {
    if (!replica_hears(r, from, m->epoch))
        return;
    /* A late one, to an earlier life or of an earlier copy, would wipe what others count on. */
    if ((m->life != r->config.life || m->copy <= r->state.copy) && !FAULT(FAULT_LIFE)) {
        follower_tell(r, false);
        return;
    }
    if (!replica_can_write(r, 1))
        return;
    oplog_clear(&r->log);
    r->kept_from = 0;
    r->history = *m->history;
    history_cut(&r->history, m->position.number);
    r->state.complete = r->copied = false;
    r->state.last = m->position;
    r->state.copy = m->copy;
    r->state.chunks = 0;
    replica_write(r, REPLICA_WIPE, true);
}

void copy_on_chunk(struct replica *r, uint32_t from, const struct replica_message *m) {
    if (!replica_hears(r, from, m->epoch))
        return;
    bool in_place = m->position.number == r->state.last.number || FAULT(FAULT_CHUNK);
    if (m->life != r->config.life || m->copy != r->state.copy || !m->copy || m->chunk != r->state.chunks || r->copied ||
        !in_place) {
        follower_tell(r, false);
        return;
    }
    if (m->octets.len > REPLICA_CHUNK_MAX ||
        m->checksum != chunk_checksum(m->copy, m->chunk, m->position.number, m->complete_at, m->last, m->octets)) {
        r->bad++;
        return;
    }
    if (!replica_can_write(r, 1))
        return;
    r->state.chunks++;
    if (m->last) {
        r->copied = true;
        r->complete_at = m->complete_at;
        r->state.complete = r->state.last.number >= m->complete_at;
    }
    struct replica_action *a = replica_write(r, REPLICA_WRITE_CHUNK, false);
    a->write.octets = m->octets;
}
