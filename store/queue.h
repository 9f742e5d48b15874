/*
 * queue: the mail's own operations on the store: keys, records, and the batches that make them.
 *
 * The scheduler speaks in messages, recipients and due times; this room turns that into families,
 * keys and records (mail.proto), and back. Keys are big-endian, prefixed by the shard (2 octets).
 */
#ifndef STORE_QUEUE_H
#define STORE_QUEUE_H

#include "base/arena.h"
#include "proto/mail.pb-c.h"
#include "store/store.h"

/* -- writing: into a batch -- */
/* A message with its body (written in chunks of FRAME_BODY_MAX), or with none when its chunks are staged already.
 * envelope: packed Envelope. */
void queue_put_message(struct store_batch *b, uint32_t shard, uint64_t id, struct span envelope, struct span body,
                       struct span submission /* 16 octets or empty */, uint64_t now_ms);
/* Stages chunk `number` of a long body under its id-to-be, with a mark in meta that queue_seal_chunks removes. */
void queue_put_chunk(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t number, struct span octets);
void queue_seal_chunks(struct store_batch *b, uint32_t shard, uint64_t id);
/* Undoes one queue_put_chunk (the mark stays; see queue_seal_chunks), and the submission of one queue_put_message. */
void queue_drop_chunk(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t number);
void queue_drop_submission(struct store_batch *b, uint32_t shard, struct span submission, uint64_t now_ms);
/* Forgets staged chunks [0, count). */
void queue_drop_chunks(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t count);
/* Removes envelope, body chunks (size tells how many) and the state records of count recipients when states. */
void queue_drop_message(struct store_batch *b, uint32_t shard, uint64_t id, uint64_t size, uint32_t count, bool states);
void queue_put_recipient(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t index,
                         const Words__RecipientState *state);
void queue_put_due(struct store_batch *b, uint32_t shard, uint64_t due_ms, struct span destination, uint64_t id,
                   uint32_t index);
void queue_put_inflight(struct store_batch *b, uint32_t shard, uint64_t attempt, const Words__Inflight *record);
void queue_drop_inflight(struct store_batch *b, uint32_t shard, uint64_t attempt);
void queue_put_trace(struct store_batch *b, uint32_t shard, const Words__Trace *record, uint32_t number);
/* meta numbers */
enum queue_number { QUEUE_EPOCH, QUEUE_LAST_ID, QUEUE_LAST_ATTEMPT, QUEUE_DUE_WATERMARK, QUEUE_TRACE_WATERMARK };
void queue_put_number(struct store_batch *b, uint32_t shard, enum queue_number n, uint64_t value);
/* Removes all due buckets before the minute of ms, and moves the watermark. */
void queue_drop_due(struct store_batch *b, uint32_t shard, uint64_t before_ms);
/* Drops trace and submission hours before ms. */
void queue_drop_trace(struct store_batch *b, uint32_t shard, uint64_t before_ms);

/* -- reading -- */
int queue_get_number(struct store *s, uint32_t shard, enum queue_number n,
                     uint64_t *value) MUST_CHECK; /* ERR_NOT_FOUND */
/* All memory from the arena. ERR_NOT_FOUND, ERR_CORRUPT (named in the log), ERR_NOMEM, ERR_IO. */
int queue_get_envelope(struct store *s, uint32_t shard, uint64_t id, struct arena *a, Words__Envelope **e) MUST_CHECK;
/* States of all recipients that have a record: states[n] is NULL for the others. count is the envelope's. */
int queue_get_states(struct store *s, uint32_t shard, uint64_t id, uint32_t count, struct arena *a,
                     Words__RecipientState ***states) MUST_CHECK;
/* Both of the above. */
int queue_get_message(struct store *s, uint32_t shard, uint64_t id, struct arena *a, Words__Envelope **e,
                      Words__RecipientState ***states) MUST_CHECK;
int queue_get_chunk(struct store *s, uint32_t shard, uint64_t id, uint32_t number, struct buf *to) MUST_CHECK;
/* The id stored for a submission in the last two days, or ERR_NOT_FOUND. */
int queue_get_submission(struct store *s, uint32_t shard, struct span submission, uint64_t now_ms,
                         uint64_t *id) MUST_CHECK;

/* Due hints from a cursor on: key order, at most `max` and only with due <= until_ms. The caller checks each against
 * the recipient's state. */
struct queue_due {
    uint64_t due_minute, id;
    uint32_t index;
};
struct queue_due_cursor {
    char key[320];
    size_t len; /* 0: start at the watermark */
};
int queue_read_due(struct store *s, uint32_t shard, uint64_t until_ms, struct queue_due_cursor *at,
                   struct queue_due *to, size_t max, size_t *count) MUST_CHECK;
/* Message ids in order, > after and <= upto, at most max. */
int queue_read_ids(struct store *s, uint32_t shard, uint64_t after, uint64_t upto, uint64_t *to, size_t max,
                   size_t *count) MUST_CHECK;
/* All inflight records (they are few): each is called with memory valid for the call. */
int queue_each_inflight(struct store *s, uint32_t shard,
                        void (*each)(void *arg, uint64_t attempt, const Words__Inflight *r), void *arg) MUST_CHECK;
/* The history of one message in time order, hours from its id to now. */
int queue_each_trace(struct store *s, uint32_t shard, uint64_t id, uint64_t now_ms,
                     void (*each)(void *arg, const Words__Trace *t), void *arg) MUST_CHECK;
/* At start: drops chunks that were staged and never sealed. */
int queue_clean_chunks(struct store *s, uint32_t shard, uint64_t *dropped) MUST_CHECK;

#endif
