/*
 * shard: one shard's core and the writing around it. It turns events into steps of the core, the core's
 * actions into operations of a batch, and holds what others may see until that batch is on disk.
 *
 * No thread, no loop, no bus: batches and visible actions leave through struct shard_out, so that the
 * daemon (scheduler.c) and the crash tests (in-memory store) run the very same code.
 *
 * One batch gathers over one turn of the loop (shard_flush cuts it); several may be under way at once;
 * they complete in order.
 */
#ifndef SCHEDULER_SHARD_H
#define SCHEDULER_SHARD_H

#include "base/arena.h"
#include "scheduler/core/sched.h"
#include "scheduler/payload.h"
#include "store/commit.h"
#include "store/queue.h"

struct shard;

/* One batch on its way to the disk. */
struct shard_batch {
    struct commit_request request; /* request.arg is the batch */
    struct shard *shard;
    uint64_t number;
    struct arena arena; /* of the held actions */
    struct held *held, *held_last;
    struct gone *gone;      /* messages that left memory in this batch */
    uint64_t gone_bits[16]; /* a bit, by hash, for each of them: what has none is not looked for */
    uint64_t opened_ms;
    bool refusable;                /* holds submissions */
    struct shard_batch *next;      /* of the batches under way, or of the pool */
    struct shard_batch *done_next; /* for the owner of the commit: completed ones */
    int result;                    /* likewise */
    void *owner;                   /* likewise */
};

/* An attempt to be sent to a delivery node; spans live for the call. */
struct shard_assign {
    uint64_t attempt, id;
    uint32_t worker;
    const uint32_t *indexes;
    uint32_t count, attempts, concurrency;
    struct span destination;
};
/* A report to be composed; everything is copied memory of `arena`, which the callee owns and frees with the struct. */
struct shard_compose {
    struct arena arena;
    struct shard *shard;
    uint64_t id, compose;
    enum sched_report_kind kind;
    uint32_t *indexes;
    struct sched_result *results;
    uint32_t count;
    uint64_t will_retry_until_ms;
};

struct shard_out {
    void *arg;
    /* Takes the batch to the disk; shard_done follows, on the shard's thread. */
    void (*commit)(void *arg, struct shard_batch *b);
    /* The end of a submission: verdict is enum verdict. The payload is freed or cached after the call. */
    void (*answer)(void *arg, const struct payload *l, uint32_t verdict, uint64_t id);
    /* Credit for staged chunks that are on disk. */
    void (*credit)(void *arg, struct hub_peer *peer, uint64_t bytes);
    void (*assign)(void *arg, struct shard *s, const struct shard_assign *a);
    void (*ack)(void *arg, uint32_t worker, uint64_t attempt);
    void (*compose)(void *arg, struct shard_compose *c);
};

struct shard_config {
    struct sched_config core; /* core.epoch is set by shard_open */
    uint64_t cache_bytes;
    uint32_t pending_max;
};

struct shard_totals { /* of the whole queue, on disk too */
    uint64_t messages;
    uint64_t counted_to; /* last id of an earlier life that the scan has counted */
};

/* A reading of the store that is on its way. What leaves memory while it lasts, or had left and was not yet on
 * disk when it began, is stale in it: shard_load refuses such a message, so that nothing settled comes back. */
struct shard_reading {
    struct list_node link;
    uint64_t begun;
};

/* Reads epoch and last id from the store, cleans unfinished chunks, begins a new epoch. */
int shard_open(struct shard **s, const struct shard_config *c, struct store *store, const struct shard_out *out,
               uint64_t now_ms) MUST_CHECK;
/* No batch may be under way. */
void shard_close(struct shard *s);

/* Hands a complete submission to the core; takes l. fair: see sched_submit. Answers through out.answer, also when
 * refused. */
void shard_submit(struct shard *s, struct payload *l, const Words__Envelope *e, uint64_t now_ms);
/* A staged chunk: written at once, sealed by the submission. The payload must have been made by shard_stage. */
struct payload *shard_stage(struct shard *s, const uint8_t *submission, struct hub_peer *peer,
                            uint64_t now_ms) MUST_CHECK;
void shard_chunk(struct shard *s, struct payload *l, struct span octets, uint64_t credit, uint64_t now_ms);
/* Forgets a staged payload and its chunks. */
void shard_abort(struct shard *s, struct payload *l);
/* A composed report (or none with a reason): l is NULL for none. Takes l. */
void shard_composed(struct shard *s, uint64_t id, uint64_t compose, struct payload *l, const Words__Envelope *e,
                    struct span reason, uint64_t now_ms);
/* Any other event. The same errors as sched_step. */
int shard_step(struct shard *s, const struct sched_event *e, uint64_t now_ms) MUST_CHECK;
void shard_reading_begin(struct shard *s, struct shard_reading *r);
void shard_reading_end(struct shard *s, struct shard_reading *r);
/* The message has left the queue since the reading began, or shortly before. */
bool shard_was_dropped(const struct shard *s, uint64_t id);
/* A message read from the store by reading r: makes the LOADED event of it. states as from queue_get_states. change: of
 * an operator, done in the same step, or NULL. ERR_AGAIN: what was read is stale (the message was settled or deferred
 * meanwhile). */
int shard_load(struct shard *s, const struct shard_reading *r, uint64_t id, const Words__Envelope *e,
               Words__RecipientState *const *states, uint64_t inflight, const uint32_t *inflight_recipients,
               uint32_t inflight_count, const struct sched_operator *change, uint64_t now_ms) MUST_CHECK;
/* Calls then(arg, err) when all that was done so far is on disk: ERR_OK, or ERR_CANCELED when nobody knows. Not within
 * the call. */
void shard_after(struct shard *s, void (*then)(void *arg, int err), void *arg);
/* What was read of the message by a reading under way is stale. */
bool shard_is_stale(const struct shard *s, uint64_t id);
/* Cuts the current batch if it holds anything, and sends it off. Once for each turn of the loop. */
void shard_flush(struct shard *s, uint64_t now_ms);
/* A batch ended (in order). Frees or reuses b. */
void shard_done(struct shard *s, struct shard_batch *b, int result, uint64_t now_ms);

/* A batch under way whose owner has died with it (crash tests): frees it, completes nothing. */
void shard_abandon(struct shard *s, struct shard_batch *b);

/* Writes of the shell's own (watermarks, dropped buckets) go with the current batch. */
struct store_batch *shard_keep(struct shard *s);
struct sched *shard_core(struct shard *s);
struct payloads *shard_payloads(struct shard *s);
uint32_t shard_number(const struct shard *s);
struct shard_totals *shard_totals(struct shard *s);
/* Largest id when the shard was opened: older messages are found by the start-up scan. */
uint64_t shard_first_scan_end(const struct shard *s);
/* Wall time when the oldest batch under way was opened; UINT64_MAX: none. */
uint64_t shard_oldest_open_ms(const struct shard *s);
bool shard_is_idle(const struct shard *s); /* nothing gathered, nothing under way */
/* Looks at the message again in a second. False: no room to remember it. */
bool shard_near_again(struct shard *s, uint64_t id, uint64_t now_ms);
/* The next moment when a recipient deferred for less than the due index resolves is due; pops it. 0: none due. */
uint64_t shard_near_pop(struct shard *s, uint64_t now_ms);
uint64_t shard_near_next_ms(const struct shard *s); /* UINT64_MAX: none */

#endif
