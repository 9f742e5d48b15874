/*
 * oplog: the operations that a replica keeps in memory: a row without gaps up to its last number, bounded. What is
 * committed goes first when it is too much; what is not yet committed only beyond a hard limit.
 */
#ifndef SCHEDULER_REPLICA_OPLOG_H
#define SCHEDULER_REPLICA_OPLOG_H

#include "scheduler/replica/replica.h"

struct oplog {
    struct replica_operation **ring;
    uint32_t cap, start, count;
    uint32_t keep_count;
    uint64_t bytes, keep_bytes;
};
/* cap: hard limit of operations. ERR_NOMEM. */
int oplog_init(struct oplog *l, uint32_t cap, uint32_t keep_count, uint64_t keep_bytes) MUST_CHECK;
void oplog_deinit(struct oplog *l);
void oplog_clear(struct oplog *l);
/* Takes a reference. The number follows that of the last one (or the log is empty). */
void oplog_push(struct oplog *l, struct replica_operation *o, uint64_t committed);
/* Lets go of what is over the limits and committed. */
void oplog_trim(struct oplog *l, uint64_t committed);
/* Borrowed; NULL: not kept. */
struct replica_operation *oplog_get(const struct oplog *l, uint64_t number);

#endif
