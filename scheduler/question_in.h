/*
 * question_in: what the files of the scheduler's questions share. Private to scheduler/question*.c.
 *
 *   question.c          dispatch, replies, rows
 *   question_list.c     queue list: rows by pages
 *   question_count.c    queue summary and queue shape
 *   question_message.c  one message: envelope and states, history, why
 *   question_text.c     header and body of one message
 *   question_audit.c    the audit log: put, list
 *   question_now.c      status, sites, shards: what the cores know at this moment
 */
#ifndef SCHEDULER_QUESTION_IN_H
#define SCHEDULER_QUESTION_IN_H

#include "proto/filter.h"
#include "scheduler/census.h"
#include "scheduler/shell.h"
#include "scheduler/walks.h"

#define QUESTION_ROWS_MAX 1000u /* of one reply */
#define QUESTION_BUSY "too many questions walk over the queue now; ask again in a moment"

/* A row of one recipient, in mem; its texts borrow from e and s (NULL: it has no state record). NULL: no memory. */
Words__AdminRow *question_row(struct arena *mem, uint64_t id, uint32_t index, const Words__Envelope *e,
                              const Words__RecipientState *s) MUST_CHECK;
/* Where it goes: the route that an operator gave it, or its destination. */
static inline struct span question_way(const Words__AdminRow *r) {
    return frame_span(r->has_route && r->route.len ? r->route : r->destination);
}
/* A copy of m in mem; NULL: no memory. */
void *question_copy(struct arena *mem, const ProtobufCMessage *m) MUST_CHECK;
/* Room for one more in an array of pointers that lives in the arena. */
bool question_grow(struct arena *mem, void *array_ptr, size_t *cap, size_t count) MUST_CHECK;

/* Answers; m lives for the call. */
void question_list(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_count(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_message(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_text(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_audit_put(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_audit_list(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_status(struct scheduler *sc, uint64_t correlation);
void question_sites(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
void question_shards(struct scheduler *sc, uint64_t correlation);

/* -- question_match.c: which recipients a filter names -- */
struct question_match; /* a filter, and what of the cores it needs to know */
/* text may be empty: then all match. ERR_INVALID and the like with *problem, a static sentence or NULL. */
int question_match_new(struct question_match **out, struct scheduler *sc, struct span text,
                       const char **problem) MUST_CHECK;
void question_match_free(struct question_match *k);
/* On any thread. Sets the row's state to ASSIGNED where an attempt is under way, and its site where the filter names
 * one; false: it does not match, or is settled. */
bool question_matches(const struct question_match *k, Words__AdminRow *row);
uint64_t question_match_id(const struct question_match *k); /* of the one message that can match; 0: any */
bool question_match_all(const struct question_match *k);    /* there is no filter */

#endif
