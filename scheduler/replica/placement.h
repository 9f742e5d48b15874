/*
 * placement: which nodes shall hold and lead which shards, and the next single steps towards it. A pure function: the
 * elected controller calls it with what the agreement service says, does the steps, and calls it again.
 *
 * Goals, in this order: what operators wish; nobody on nodes that leave; as many replicas as wanted; different failure
 * zones; balance by capacity; least movement from what is. A step adds or removes one replica of a shard or moves its
 * leadership, and there is at most one for each shard. Nothing is removed before the rest is in sync, and only members
 * of the in-sync set become leader. Who is away for a short time keeps its replicas.
 */
#ifndef SCHEDULER_REPLICA_PLACEMENT_H
#define SCHEDULER_REPLICA_PLACEMENT_H

#include "scheduler/replica/replica.h"

#define PLACEMENT_NODES_MAX 256u
#define PLACEMENT_SHARDS_MAX 1024u

struct placement_node { /* with the role of a scheduler */
    uint32_t node;      /* as in the records; not 0 */
    uint32_t zone;      /* failure zone; 0: none given, counts as a zone of its own */
    uint32_t capacity;  /* weight, at least 1 */
    uint32_t version;   /* of the program: leaderships go to an older one only when there is no other */
    bool live;          /* a member now */
    bool draining;      /* leads nothing and gets nothing more, keeps its replicas (a restart) */
    bool leaving;       /* its replicas go elsewhere: removed by an operator, or away for too long */
};
struct placement_shard {
    struct replica_record record;
    struct replica_set unfit; /* members that have said that they cannot lead this version of the record */
    uint32_t wish;            /* an operator's: this node shall lead it; 0: none */
};
struct placement_goal {
    uint32_t leader; /* 0: nobody can */
    struct replica_set replicas;
};
enum placement_step_kind {
    PLACEMENT_FAIL_OVER =
        1, /* the leader is gone or unfit: by compare-and-swap, node leads the next epoch; in_sync stays */
    PLACEMENT_HAND_OVER, /* the leader is to hand over to node (REPLICA_HAND_OVER) */
    PLACEMENT_ADD,       /* by compare-and-swap, node joins replicas; it will be copied to */
    PLACEMENT_REMOVE,    /* by compare-and-swap, node leaves replicas; the leader takes it out of the in-sync set */
};
struct placement_step {
    enum placement_step_kind kind;
    uint32_t shard; /* index in the input */
    uint32_t node;
};
struct placement {
    const struct placement_node *nodes;
    uint32_t node_count;
    const struct placement_shard *shards;
    uint32_t shard_count;
    uint32_t wanted;     /* replicas of a shard, 1 to REPLICA_SET_MAX - 1 */
    uint32_t copies_max; /* shards that may have a replica which is not yet in sync, more than which none are added
                          * (a shard with no other whole replica is not held back) */
};
/* Fills goals (one for each shard, or NULL) and at most steps_max steps. ERR_NOMEM; ERR_INVALID: the input is out of
 * bounds, or names a node twice. */
int placement_plan(const struct placement *p, struct placement_goal *goals, struct placement_step *steps,
                   uint32_t steps_max, uint32_t *step_count) MUST_CHECK;

#endif
