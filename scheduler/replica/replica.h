/*
 * replica: one shard's replica on one node: a deterministic state machine of primary and backups with an in-sync set.
 *
 *     replica_step(replica, event, now) -> actions
 *
 * It numbers the leader's batches of operations, sends them to the followers while the owner writes them, says when
 * they are committed, lets replicas leave and join the in-sync set, and brings back those that return. It reads no
 * clock, draws no randomness, knows no store, no bus and no agreement service: the owner moves bytes, writes, and
 * changes the shard's record by compare-and-swap. The same events at the same times give the same actions.
 *
 * Words. An operation is one batch of opaque octets with a position (epoch of the leader that made it, number).
 * Numbers go up by one without a gap, through all epochs. The history says with which number each epoch began. The
 * mark is what a replica must find again after a restart. The record is the shard's entry in the agreement service.
 *
 * Why nothing committed is lost (the model test holds it against the code):
 *  1. An epoch has one leader, for one life of it: it leads only an epoch that its own disk has not yet promised, and
 *     sends nothing in it before the promise is synced. So a position names one operation for ever.
 *  2. A follower takes operation n only on top of exactly the operation before it (epoch and number). So two replicas
 *     with the same position at n are equal up to n.
 *  3. The leader commits n when every member of the record's set, of the set it has proposed, and of those that are
 *     about to be proposed has synced it. So whichever of its proposals the record holds, all members have n.
 *  4. A member joins only with all that is committed (a new leader: with all that it has). A new leader is one of the
 *     set, so it has all that is committed, and its history contains it. What it lacks was never committed, and a
 *     replica that has something outside its history is first taken out of the set, then wiped and copied afresh.
 *  5. A replica that has promised an epoch (synced) answers older ones with STALE. The next leader is one whose answer
 *     the old leader needs, so the old one commits nothing more, even when its clock is wrong. The lease keeps two
 *     from serving at one time.
 *
 * States, and the only transitions: FOLLOWER -> LEADER (record names us with a new epoch, and the lease holds);
 * LEADER -> FOLLOWER (lease over, newer epoch heard, handed over, or write failed). BROKEN after a failed write: the
 * owner frees it and makes a new one from what the store says.
 */
#ifndef SCHEDULER_REPLICA_REPLICA_H
#define SCHEDULER_REPLICA_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define REPLICA_SET_MAX 7u
#define REPLICA_HISTORY_MAX 64u
#define REPLICA_CURSOR_MAX 512u
#define REPLICA_OPERATION_MAX (16u * 1024 * 1024)
#define REPLICA_CHUNK_MAX (4u * 1024 * 1024)
#define REPLICA_WRITES_MAX 512u /* writes on their way to the disk */
#define REPLICA_WINDOW_MAX (REPLICA_WRITES_MAX / 2)
#define REPLICA_TICK_MS 50u /* the owner ticks at least so often */

/* Nodes are small numbers that the owner gives to names, on each node for itself; 0: none. */
struct replica_set {
    uint32_t count;
    uint32_t nodes[REPLICA_SET_MAX];
};
struct replica_position {
    uint64_t epoch, number; /* 0, 0: before the first operation */
};
struct replica_history { /* ascending; of a longer one the newest entries */
    uint32_t count;
    struct {
        uint64_t epoch, first;
    } at[REPLICA_HISTORY_MAX];
};
/* What is on disk beside the shard's data, always written in one batch with what it speaks of. */
struct replica_mark {
    uint64_t promised; /* no older epoch is heard any more */
    bool complete;     /* the data is a whole state of the shard, at `last` */
    struct replica_position last;
    struct replica_history history;
};
/* shards/N in the agreement service. version goes up with each change (etcd's mod_revision). A new shard has epoch 0,
 * a leader, and that leader alone in sync. Only the leader changes in_sync, by PROPOSE: nobody else can know which
 * members are whole (one whose disk was lost is in the set until the leader has heard it). Others change replicas, and
 * a leader that is gone: another member and the next epoch, with in_sync as it was. */
struct replica_record {
    uint64_t version, epoch;
    uint32_t leader;
    struct replica_set in_sync, replicas;
};

/* One batch of operations; counted references, all of one thread. */
struct replica_operation {
    uint32_t references;
    uint32_t len;
    uint64_t epoch, number, previous_epoch;
    uint64_t checksum; /* of all of the above and the octets */
    char octets[];
};
/* For owners who receive one: copies octets. NULL: no memory, or longer than REPLICA_OPERATION_MAX. */
struct replica_operation *replica_operation_new(uint64_t epoch, uint64_t number, uint64_t previous_epoch,
                                                uint64_t checksum, struct span octets) MUST_CHECK;
struct replica_operation *replica_operation_hold(struct replica_operation *o);
void replica_operation_release(struct replica_operation *o);
uint64_t replica_checksum(uint64_t epoch, uint64_t number, uint64_t previous_epoch, struct span octets);

/* -- words between replicas; they may be lost, late, doubled and out of order -- */
enum replica_message_kind {
    REPLICA_OPEN = 1,       /* leader: I lead this epoch; where are you? Also the heartbeat */
    REPLICA_POSITION = 2,   /* follower: so far I have synced */
    REPLICA_OPERATION = 3,  /* leader */
    REPLICA_COPY_BEGIN = 4, /* leader: wipe, and begin at .position */
    REPLICA_COPY_CHUNK = 5, /* leader */
    REPLICA_STALE = 6,      /* anybody: your epoch is over, .epoch is known here */
};
struct replica_message {
    enum replica_message_kind kind;
    uint64_t epoch;                        /* of the leader, or the one answered */
    uint64_t probe;                        /* OPEN, and echoed in POSITION: tells answers to an earlier question */
    uint64_t life;                         /* POSITION: of the sender; COPY_*: of the receiver */
    uint64_t committed;                    /* OPEN, OPERATION */
    struct replica_position position;      /* POSITION, COPY_BEGIN; COPY_CHUNK: where it must be applied */
    bool complete, gap;                    /* POSITION; gap: an operation came too early */
    uint64_t copy;                         /* POSITION, COPY_*: number of the copy in this epoch; 0: none */
    uint32_t chunk;                        /* POSITION: chunks synced; COPY_CHUNK: index */
    bool last;                             /* COPY_CHUNK */
    uint64_t complete_at;                  /* COPY_CHUNK, last: whole from this number on */
    uint64_t checksum;                     /* COPY_CHUNK */
    struct span octets;                    /* COPY_CHUNK */
    struct replica_operation *operation;   /* OPERATION; in events borrowed, held by the replica if it keeps it */
    const struct replica_history *history; /* COPY_BEGIN; borrowed */
};

/* -- events -- */
enum replica_event_kind {
    REPLICA_RECORD,         /* .record as read or watched; older versions are ignored. Ends a proposal based on an older
                             * version, whatever became of it */
    REPLICA_PROPOSE_FAILED, /* the last PROPOSE was certainly not done and never will be, the record is unchanged. When
                             * its fate is not known the owner tries the same again, or reads the record */
    REPLICA_LEASE,          /* .until_ms: the node's own lease certainly holds until then (monotonic): counted from when
                             * the renewal was sent. Of a new lease (not a renewal) it is told only after the record
                             * was read behind its grant: somebody may have been chosen while there was none */
    REPLICA_BATCH,          /* .batch: of the owner, who leads. Becomes operation replica_last().number */
    REPLICA_WRITTEN,        /* .write and all before it are synced */
    REPLICA_WRITE_FAILED,   /* some write not yet told of has failed: the replica is broken */
    REPLICA_MESSAGE,        /* .from, .message */
    REPLICA_CHUNK,          /* .read: what READ_CHUNK asked for */
    REPLICA_KEPT,           /* .kept_from: the owner has operations on disk too, from this number on without a gap;
                             * 0: it has none. A wipe sets it to 0 */
    REPLICA_FETCHED,        /* .fetched: what FETCH asked for; operation NULL: it is not there */
    REPLICA_HAND_OVER,      /* .to: the leader shall make this member the leader. ERR_INVALID: it cannot be now */
    REPLICA_GONE,           /* .to: the membership of this node has ended: not waited for until it speaks again */
    REPLICA_TICK
};
struct replica_event {
    enum replica_event_kind kind;
    union {
        struct replica_record record;
        uint64_t until_ms;
        struct {
            struct span octets;
            bool must; /* no submission in it (settlements): also taken below min_in_sync, and waits */
        } batch;
        uint64_t write;
        struct {
            uint32_t from;
            struct replica_message message;
        };
        struct {
            uint32_t node;
            uint64_t copy;
            uint32_t chunk;
            struct span octets;
            struct span cursor; /* where the next chunk begins */
            bool last;
        } read;
        uint32_t to;
        uint64_t kept_from;
        struct {
            uint32_t node;
            uint64_t number;
            struct replica_operation *operation; /* borrowed */
        } fetched;
    };
};

/* -- actions -- */
enum replica_action_kind {
    /* Writes go to the disk in this order, each atomically and synced; WRITTEN follows. Each carries .write, and
     * .mark (with .history, or NULL: as before), which is written in the same batch. */
    REPLICA_WRITE,       /* .operation. .again: it may be there in part already (store/repeat.h). .copying: keys behind
                          * the last chunk may be left out, a later chunk brings them */
    REPLICA_WRITE_MARK,  /* the mark alone */
    REPLICA_WIPE,        /* all data of the shard goes, the mark is written */
    REPLICA_WRITE_CHUNK, /* .octets: replaces all keys of its range */
    /* the rest */
    REPLICA_SEND,         /* .to, .message */
    REPLICA_LEAD,         /* .number: all up to it is committed; the owner opens the shard's core from the store */
    REPLICA_COMMITTED,    /* .number: this batch and all before it */
    REPLICA_ACCEPT,       /* batches with submissions are taken from now on */
    REPLICA_REFUSE,       /* they are not (451); those under way wait */
    REPLICA_STEPPED_DOWN, /* .why: the fate of all that is not committed is not known; the core is dropped */
    REPLICA_PROPOSE,      /* .record: put it (but replicas) in the place of the record of .record.version, if that is
                           * still the version. A RECORD or PROPOSE_FAILED follows */
    REPLICA_UNFIT,        /* .record names us, but what is here is not whole: somebody else of the set must lead */
    REPLICA_READ_CHUNK,   /* .read: read the next chunk from the cursor on (empty: from the beginning) in the state on
                           * disk now or later; CHUNK follows */
    REPLICA_FETCH,        /* .fetch: read one operation that is kept on disk; FETCHED follows */
};
enum replica_why { REPLICA_WHY_LEASE = 1, REPLICA_WHY_FENCED, REPLICA_WHY_HANDED_OVER, REPLICA_WHY_WRITE };
struct replica_action {
    enum replica_action_kind kind;
    union {
        struct {
            uint64_t write;
            uint64_t promised;
            bool complete;
            struct replica_position last;
            const struct replica_history *history;
            struct replica_operation *operation;
            struct span octets;
            bool again, copying;
        } write;
        struct {
            uint32_t to;
            struct replica_message message;
        } send;
        uint64_t number;
        enum replica_why why;
        struct replica_record record;
        struct {
            uint32_t node;
            uint64_t copy;
            uint32_t chunk;
            struct span cursor;
        } read;
        struct {
            uint32_t node;
            uint64_t number;
        } fetch;
    };
};
/* Of one step; live until the next. Operations may be held longer. */
struct replica_actions {
    const struct replica_action *at;
    uint32_t count;
};

struct replica_config {
    uint32_t self;
    uint64_t life; /* greater at each start of the node, also after its disk was lost (wall time) */
    uint32_t min_in_sync;
    uint32_t window_count; /* operations not yet committed, at most REPLICA_WINDOW_MAX */
    uint64_t window_bytes;
    uint32_t keep_count; /* committed operations kept in memory for those who return */
    uint64_t keep_bytes;
    uint64_t heartbeat_ms, resend_ms;
    uint64_t slow_ms;      /* a member that is so long behind leaves the set */
    uint64_t copy_per_s;   /* octets of a full copy to one node per second */
    uint32_t flight_count; /* operations on the way to one node */
    uint64_t flight_bytes;
};
#define REPLICA_CONFIG_DEFAULT                                                                                         \
    ((struct replica_config){.min_in_sync = 1,                                                                         \
                             .window_count = 128,                                                                      \
                             .window_bytes = 64u << 20,                                                                \
                             .keep_count = 4096,                                                                       \
                             .keep_bytes = 64u << 20,                                                                  \
                             .heartbeat_ms = 200,                                                                      \
                             .resend_ms = 300,                                                                         \
                             .slow_ms = 2000,                                                                          \
                             .copy_per_s = 32u << 20,                                                                  \
                             .flight_count = 64,                                                                       \
                             .flight_bytes = 16u << 20})

struct replica;
/* mark: as found on disk; all zero: nothing there (a new node, or its disk was lost). NULL: no memory. */
struct replica *replica_new(const struct replica_config *c, const struct replica_mark *mark) MUST_CHECK;
void replica_free(struct replica *r);
/* At start, before the first step: an operation that the owner has kept on disk too, ascending, up to the mark's last.
 * Spares those who return a full copy (so does REPLICA_KEPT, with less memory). ERR_NOMEM, ERR_INVALID (no neighbour of
 * the one before, or behind the mark). */
int replica_remember(struct replica *r, struct replica_operation *o) MUST_CHECK;
/* One step. now_ms is monotonic. ERR_OK. Of REPLICA_BATCH: ERR_FULL: the window is full, try again after COMMITTED;
 * ERR_AGAIN: refused for now (451); ERR_CLOSED: not the leader; ERR_RANGE: too long; ERR_NOMEM. Else ERR_INVALID: the
 * event was refused without harm. The actions are valid after an error too (time may have made some). */
int replica_step(struct replica *r, const struct replica_event *e, uint64_t now_ms,
                 struct replica_actions *out) MUST_CHECK;

/* -- looking in -- */
bool replica_is_leader(const struct replica *r, uint64_t now_ms); /* and the lease holds */
struct replica_position replica_last(const struct replica *r);
enum replica_peer_state {
    REPLICA_PROBING,   /* asked, has not answered */
    REPLICA_STREAMING, /* gets the operations */
    REPLICA_LOST,      /* needs a copy */
    REPLICA_COPYING
};
struct replica_peer_status {
    uint32_t node;
    enum replica_peer_state state;
    bool in_sync, overdue;
    uint64_t acked;
};
struct replica_status {
    bool leader, ready, accepting, complete, broken;
    uint64_t epoch, version; /* promised; of the record */
    uint32_t leader_node;
    struct replica_position last;
    uint64_t synced, committed;
    uint64_t full, bad, stale; /* counted: refusals of a full window, broken checksums, messages of older epochs */
    uint32_t peer_count;
    struct replica_peer_status peers[REPLICA_SET_MAX * 2];
};
void replica_status(const struct replica *r, uint64_t now_ms, struct replica_status *out);

#endif
