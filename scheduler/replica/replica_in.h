/*
 * replica_in: what the files of this room share: the replica's memory, and who does what.
 *
 * replica.c dispatches, keeps role, epoch, lease and writes; leader.c sends, commits and changes the set; follower.c
 * takes operations; copy.c is the full copy, both sides of it.
 */
#ifndef SCHEDULER_REPLICA_REPLICA_IN_H
#define SCHEDULER_REPLICA_REPLICA_IN_H

#include "scheduler/replica/history.h"
#include "scheduler/replica/oplog.h"
#include "scheduler/replica/replica.h"

#define PEERS_MAX (REPLICA_SET_MAX * 2)
#define ACTIONS_SPARE 64u /* kept free for all but operations on their way */
#define WRITES_SPARE 16u  /* likewise */

/* Faults that a test plants; not in any other build. */
enum replica_fault {
    FAULT_NONE,
    FAULT_EPOCH,       /* older epochs are heard */
    FAULT_SYNC,        /* acknowledged before it is synced */
    FAULT_MEMBER,      /* committed without one member */
    FAULT_WIPE,        /* a diverged replica is not wiped */
    FAULT_LEASE,       /* leads on when the lease is over */
    FAULT_FLOOR,       /* joins with what is known to be committed, which a new leader does not know */
    FAULT_SHRINK,      /* goes on without a member before the record says so */
    FAULT_GROW,        /* commits without the one that is proposed */
    FAULT_LIFE,        /* a late COPY_BEGIN is obeyed */
    FAULT_PROMISE,     /* the promise is not kept on disk, and older epochs are heard after a restart */
    FAULT_TWICE,       /* an epoch is led again after a restart */
    FAULT_CHUNK,       /* a chunk is taken at any place in the row of operations */
    FAULT_PREVIOUS,    /* an operation is taken on top of any other */
    FAULT_WIPE_MEMBER, /* a diverged replica is wiped while it is in the set */
    FAULT_UNFIT,       /* a replica that is not whole leads */
    FAULT_LAST
};
#ifdef REPLICA_FAULTS
extern enum replica_fault replica_fault;
#define FAULT(f) (replica_fault == (f))
#else
#define FAULT(f) false
#endif

struct state {
    uint64_t promised;
    bool complete;
    struct replica_position last;
    uint64_t copy; /* that runs or ran in this epoch; 0: none */
    uint32_t chunks;
};

struct peer {
    uint32_t node;
    enum replica_peer_state state;
    uint64_t life, probe;
    bool opened, complete, joining, gone;
    uint64_t opened_ms, moved_ms;
    uint64_t acked, sent;
    uint64_t fetching;                 /* number of the operation that the owner reads for it; 0: none */
    uint64_t caught_number, caught_ms; /* it had all up to caught_number at caught_ms */
    uint64_t joining_ms, join_after_ms;
    /* the copy */
    uint64_t copy;
    struct replica_position base;
    uint64_t hold; /* operations behind it wait for the next chunk */
    uint32_t chunks;
    bool begun, reading, chunk_last;
    char *chunk;
    uint32_t chunk_len;
    uint64_t chunk_at, complete_at, chunk_checksum;
    int64_t credit;
    uint64_t credit_ms;
    struct {
        uint32_t len;
        char at[REPLICA_CURSOR_MAX];
    } cursor, next;
};

struct replica {
    struct replica_config config;
    uint64_t now;
    bool leading, broken;
    uint32_t leader; /* 0: not known */
    uint64_t probe;  /* last one heard in this epoch */
    uint64_t lease_ms;
    struct replica_record record;
    /* as accepted, and as synced */
    struct state state, durable;
    struct replica_history history;
    struct oplog log;
    struct {
        struct state state;
    } writes[REPLICA_WRITES_MAX]; /* of write number n at n % MAX */
    uint64_t last_write, done_write;
    uint64_t committed; /* as far as known */
    uint64_t kept_from; /* operations on disk; 0: none */
    /* follower's side of a copy */
    bool copied; /* all chunks are taken */
    uint64_t complete_at;
    uint64_t claimed; /* version of the record that a proposal of ours is based on, while no leader */
    uint64_t unfit_version;
    /* leader */
    uint64_t takeover, copies, probes;
    uint64_t window_bytes;
    bool ready, accepting, pending;
    struct replica_set proposed;
    uint64_t propose_after_ms, handing_ms;
    uint32_t handing;
    struct peer *peers[PEERS_MAX];
    uint32_t peer_count;
    bool peers_lacking; /* no memory for one that the record names */
    uint64_t full, bad, stale;
    /* What actions of this step may point at is freed by the next one. */
    void *buried[PEERS_MAX * 6];
    uint32_t buried_count;
    /* actions of this step */
    struct replica_action *actions;
    uint32_t action_count, action_cap;
};

/* replica.c */
struct replica_action *replica_act(struct replica *r, enum replica_action_kind kind);
void replica_send(struct replica *r, uint32_t to, const struct replica_message *m);
/* A write action with the state as it is now. There is room (replica_can_write). */
struct replica_action *replica_write(struct replica *r, enum replica_action_kind kind, bool with_history);
bool replica_can_write(const struct replica *r, uint32_t spare);
void replica_step_down(struct replica *r, enum replica_why why);
void replica_adopt(struct replica *r, uint64_t epoch, uint32_t leader);
/* What a leader says: false: it is none, and its message is not for us. */
bool replica_hears(struct replica *r, uint32_t from, uint64_t epoch);
/* Frees at the next step. */
void replica_bury(struct replica *r, void *memory);
bool replica_set_has(const struct replica_set *s, uint32_t node);

/* leader.c */
void leader_begin(struct replica *r);
void leader_end(struct replica *r);
void leader_on_record(struct replica *r);
int leader_batch(struct replica *r, struct span octets, bool must) MUST_CHECK;
void leader_on_position(struct replica *r, uint32_t from, const struct replica_message *m);
int leader_hand_over(struct replica *r, uint32_t to) MUST_CHECK;
int leader_on_fetched(struct replica *r, const struct replica_event *e) MUST_CHECK;
void leader_on_gone(struct replica *r, uint32_t node);
/* Sends, commits, proposes what can be now. */
void leader_drive(struct replica *r);
struct peer *leader_peer(struct replica *r, uint32_t node);
/* Whether nothing may be committed without this node. */
bool leader_needs(const struct replica *r, uint32_t node);

/* follower.c */
void follower_on_open(struct replica *r, uint32_t from, const struct replica_message *m);
void follower_on_operation(struct replica *r, uint32_t from, const struct replica_message *m);
void follower_tell(struct replica *r, bool gap);

/* copy.c */
void copy_begin(struct replica *r, struct peer *p);
void copy_drop_chunk(struct replica *r, struct peer *p);
void copy_drive(struct replica *r, struct peer *p);
void copy_on_position(struct replica *r, struct peer *p, const struct replica_message *m);
int copy_on_read(struct replica *r, const struct replica_event *e) MUST_CHECK;
void copy_on_begin(struct replica *r, uint32_t from, const struct replica_message *m);
void copy_on_chunk(struct replica *r, uint32_t from, const struct replica_message *m);

#endif
