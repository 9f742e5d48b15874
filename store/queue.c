/*
 * queue: see queue.h. The writing half: the mail's operations as operations of a batch.
 */
#include "store/queue.h"

#include "base/check.h"
#include "proto/frame.h"
#include "store/keys.h"

#define MINUTE_MS 60000u
#define HOUR_MS 3600000u

static void put_record(struct store_batch *b, enum store_family f, const struct key *k, const ProtobufCMessage *m) {
    uint8_t small[1024], *at = small;
    size_t len = protobuf_c_message_get_packed_size(m);
    struct arena mem;
    arena_init(&mem, 4096, 0);
    if (len > sizeof small)
        at = arena_alloc(&mem, len);
    CHECK(at);
    protobuf_c_message_pack(m, at);
    store_put(b, f, key_span(k), span_make(at, len));
    arena_deinit(&mem);
}

static struct span u64_value(uint8_t to[8], uint64_t n) {
    struct key k = {.len = 0};
    key_u64(&k, n);
    memcpy(to, k.at, 8);
    return span_make(to, 8);
}

void queue_put_message(struct store_batch *b, uint32_t shard, uint64_t id, struct span envelope, struct span body,
                       struct span submission, uint64_t now_ms) {
    uint8_t value[8];
    struct key k = key_message(shard, id);
    store_put(b, STORE_ENVELOPE, key_span(&k), envelope);
    for (uint32_t n = 0; body.len; n++) {
        k = key_chunk(shard, id, n);
        store_put(b, STORE_BODY, key_span(&k), span_first(body, FRAME_BODY_MAX));
        body = span_from(body, FRAME_BODY_MAX);
    }
    if (submission.len) {
        k = key_submission(shard, key_hour_of(now_ms), submission);
        store_put(b, STORE_SUBMISSION, key_span(&k), u64_value(value, id));
    }
}

void queue_put_chunk(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t number, struct span octets) {
    struct key k = key_chunk(shard, id, number);
    store_put(b, STORE_BODY, key_span(&k), octets);
    uint8_t value[8];
    k = key_staged(shard, id);
    store_put(b, STORE_META, key_span(&k), u64_value(value, number + 1u));
}

void queue_seal_chunks(struct store_batch *b, uint32_t shard, uint64_t id) {
    struct key k = key_staged(shard, id);
    store_delete(b, STORE_META, key_span(&k));
}

void queue_drop_chunk(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t number) {
    struct key k = key_chunk(shard, id, number);
    store_single_delete(b, STORE_BODY, key_span(&k));
}

void queue_drop_submission(struct store_batch *b, uint32_t shard, struct span submission, uint64_t now_ms) {
    struct key k = key_submission(shard, key_hour_of(now_ms), submission);
    store_delete(b, STORE_SUBMISSION, key_span(&k));
}

void queue_drop_chunks(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        queue_drop_chunk(b, shard, id, i);
    queue_seal_chunks(b, shard, id);
}

static uint32_t chunks_of(uint64_t size) {
    uint64_t count = size ? (size + FRAME_BODY_MAX - 1) / FRAME_BODY_MAX : 0;
    CHECK(count <= 0xffffu);
    return (uint32_t)count;
}

void queue_drop_message(struct store_batch *b, uint32_t shard, uint64_t id, uint64_t size, uint32_t count,
                        bool states) {
    struct key k = key_message(shard, id);
    store_single_delete(b, STORE_ENVELOPE, key_span(&k));
    for (uint32_t i = 0, n = chunks_of(size); i < n; i++)
        queue_drop_chunk(b, shard, id, i);
    for (uint32_t i = 0; states && i < count; i++) {
        k = key_recipient(shard, id, i);
        store_delete(b, STORE_RECIPIENT, key_span(&k));
    }
}

void queue_put_recipient(struct store_batch *b, uint32_t shard, uint64_t id, uint32_t index,
                         const Words__RecipientState *state) {
    struct key k = key_recipient(shard, id, index);
    put_record(b, STORE_RECIPIENT, &k, &state->base);
}

void queue_put_due(struct store_batch *b, uint32_t shard, uint64_t due_ms, struct span destination, uint64_t id,
                   uint32_t index) {
    struct key k = key_due(shard, key_minute(due_ms), destination, id, index);
    store_put(b, STORE_DUE, key_span(&k), SPAN_EMPTY);
}

void queue_put_inflight(struct store_batch *b, uint32_t shard, uint64_t attempt, const Words__Inflight *record) {
    struct key k = key_inflight(shard, attempt);
    put_record(b, STORE_INFLIGHT, &k, &record->base);
}

void queue_drop_inflight(struct store_batch *b, uint32_t shard, uint64_t attempt) {
    struct key k = key_inflight(shard, attempt);
    store_single_delete(b, STORE_INFLIGHT, key_span(&k));
}

void queue_put_trace(struct store_batch *b, uint32_t shard, const Words__Trace *record, uint32_t number) {
    struct key k = key_trace(shard, key_hour_of(record->at_ms), record->message, number);
    put_record(b, STORE_TRACE, &k, &record->base);
}

void queue_put_number(struct store_batch *b, uint32_t shard, enum queue_number n, uint64_t value) {
    uint8_t octets[8];
    struct key k = key_number(shard, (uint8_t)n);
    store_put(b, STORE_META, key_span(&k), u64_value(octets, value));
}

void queue_drop_due(struct store_batch *b, uint32_t shard, uint64_t before_ms) {
    struct key from = key_due_minute(shard, 0), to = key_due_minute(shard, key_minute(before_ms));
    store_delete_range(b, STORE_DUE, key_span(&from), key_span(&to));
    queue_put_number(b, shard, QUEUE_DUE_WATERMARK, before_ms - before_ms % MINUTE_MS);
}

void queue_drop_trace(struct store_batch *b, uint32_t shard, uint64_t before_ms) {
    struct key from = key_hour(shard, 0), to = key_hour(shard, key_hour_of(before_ms));
    store_delete_range(b, STORE_TRACE, key_span(&from), key_span(&to));
    store_delete_range(b, STORE_SUBMISSION, key_span(&from), key_span(&to));
    queue_put_number(b, shard, QUEUE_TRACE_WATERMARK, before_ms - before_ms % HOUR_MS);
}
