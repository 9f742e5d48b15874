/*
 * shard_in: what the files of one shard share. Private to scheduler/shard*.c.
 *
 *   shard.c        batches leave and come back; opening and closing
 *   shard_write.c  actions of the core become operations of the current batch, or are held in it
 *   shard_feed.c   submissions, chunks, reports and loaded messages become events of the core
 *   shard_stale.c  messages that left memory, and readings that may not know it yet
 */
#ifndef SCHEDULER_SHARD_IN_H
#define SCHEDULER_SHARD_IN_H

#include "scheduler/near.h"
#include "scheduler/shard.h"

enum held_kind { HELD_ANSWER, HELD_ASSIGN, HELD_ACK, HELD_CREDIT, HELD_CALL };
struct held {
    struct held *next;
    enum held_kind kind;
    uint64_t token, id;         /* ANSWER */
    struct shard_assign assign; /* ASSIGN, ACK */
    struct hub_peer *peer;      /* CREDIT */
    uint64_t bytes;
    void (*then)(void *arg, int err); /* CALL */
    void *arg;
};

struct gone { /* a message that left memory; in the arena of its batch */
    struct gone *next;
    uint64_t id;
    bool dropped; /* and the queue */
};
struct stale { /* the same, on disk, while readings last that began before */
    struct map_node by_id;
    struct list_node link; /* oldest first */
    uint64_t id, durable;
    bool dropped;
};

struct shard {
    struct sched *core;
    struct shard_out out;
    struct store *store;
    uint32_t number;
    struct payloads payloads;
    struct shard_batch *current, *pool;
    uint64_t last_id_mark, scan_end;
    uint32_t trace_number;
    struct shard_totals totals;
    struct near near;
    struct buf text;                      /* of one trace */
    struct arena scratch;                 /* of one event */
    struct shard_batch *sent, *sent_last; /* under way, oldest first */
    struct list readings;                 /* oldest first */
    struct map stale;
    struct list stale_list;
    uint64_t sequence;                 /* counts completed batches */
    const Words__Envelope *submitting; /* what the step that runs may enqueue; NULL: nothing */
    uint64_t put_id;                   /* message submitted by the step that runs: its records may be refused with it */
    uint64_t now_ms;
};

/* -- shard.c -- */
/* Marks the current batch as holding something. */
void shard_touch(struct shard *s);
/* A message left the queue: an older one counts only once the scan has seen it. */
void shard_count_down(struct shard *s, uint64_t id);
/* A new held action at the end of the current batch, zeroed. */
struct held *shard_hold(struct shard *s, enum held_kind kind);

/* -- shard_write.c -- */
void shard_apply(struct shard *s, const struct sched_action *a);
/* Keeps the mark of the last id in the store ahead of this id. */
void shard_mark_id(struct shard *s, uint64_t id);

/* -- shard_feed.c -- */
/* Answers a submission that is not stored, and forgets it and its chunks. */
void shard_refuse(struct shard *s, struct payload *l, uint32_t verdict);

/* -- shard_stale.c -- */
void shard_note_gone(struct shard *s, uint64_t id, bool dropped);
/* The batch is on disk: what it let go stays known while older readings last. */
void shard_stale_settle(struct shard *s, const struct shard_batch *b);
void shard_stale_prune(struct shard *s);

#endif
