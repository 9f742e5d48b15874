/*
 * queue_walk: walks over the whole queue of a shard in the order of message ids, envelopes and states side by side, for
 * those who count or list: one pass over two families instead of a look-up for each message. What it reads is not kept
 * in the cache.
 *
 * Records are handed out packed; those who count glance at them (queue_glance_*), which reads only the few fields that
 * are asked for and allocates nothing for each message; those who list unpack what they show.
 *
 * A message that is settled while the walk goes on is seen or not; no state is newer than its message.
 */
#ifndef STORE_QUEUE_WALK_H
#define STORE_QUEUE_WALK_H

#include "base/buf.h"
#include "store/store.h"

struct queue_state { /* a packed RecipientState */
    uint32_t index;
    size_t at, len; /* in the buffer of the walk */
};
struct queue_walk {
    struct store *store;
    uint32_t shard;
    struct store_iter *envelopes, *recipients;
    uint64_t next_id;       /* where the walk goes on */
    uint32_t records;       /* read since the iterators were opened */
    struct span key, value; /* of the recipients' iterator: read, and not handed out */
    bool has_key, states_end;
    /* what queue_walk_next found */
    uint64_t id;
    struct span envelope; /* packed; valid until the next call, as the states */
    struct queue_state *states;
    uint32_t state_count, state_cap;
    struct buf values;
    int err;
};

/* Opens nothing yet. from: the first id that is wanted. */
void queue_walk_init(struct queue_walk *w, struct store *s, uint32_t shard, uint64_t from);
void queue_walk_deinit(struct queue_walk *w);
/* The next message is in w. False at the end, or on an error (w->err: ERR_IO, ERR_CORRUPT, ERR_NOMEM). */
bool queue_walk_next(struct queue_walk *w);
/* The packed state of a recipient, empty when it has none. Indexes are asked for in rising order: *at starts at 0. */
struct span queue_walk_state(const struct queue_walk *w, uint32_t index, uint32_t *at);
/* The record just handed out does not decode: noted, named in the log, ERR_CORRUPT. */
int queue_walk_corrupt(struct queue_walk *w);

/* -- glances at packed records -- */
struct queue_glance { /* of an envelope */
    uint64_t received_ms;
    struct span *destinations; /* of its recipients, in order; they borrow from the record */
    uint32_t count, cap;
};
void queue_glance_deinit(struct queue_glance *g);
/* Reuses the memory of g, which starts zeroed. ERR_CORRUPT, ERR_NOMEM. */
int queue_glance_envelope(struct queue_glance *g, struct span packed) MUST_CHECK;
/* The number of the state; 0: malformed. *destination, where one takes the place of the envelope's, is changed. */
uint32_t queue_glance_state(struct span packed, struct span *destination);

#endif
