/*
 * history: which epoch wrote which numbers. Positions are judged by it: a replica whose last position is not in the
 * leader's history has operations that were never committed.
 */
#ifndef SCHEDULER_REPLICA_HISTORY_H
#define SCHEDULER_REPLICA_HISTORY_H

#include "scheduler/replica/replica.h"

/* Notes that the epoch wrote this number; true: it is the first of its epoch. The oldest entry goes when it is full. */
bool history_note(struct replica_history *h, struct replica_position p);
/* Whether the log with this history, whose last operation is `last`, contains the operation p. */
bool history_has(const struct replica_history *h, struct replica_position last, struct replica_position p);
/* Takes away all behind the number. */
void history_cut(struct replica_history *h, uint64_t number);
/* Ascending in both columns, and within bounds (it comes from another node). */
bool history_is_valid(const struct replica_history *h);

#endif
