/*
 * keys: see keys.h. Pure encoders; a test walks all of them both ways and checks their order.
 */
#include "store/keys.h"

#include "base/check.h"

struct key key_shard(uint32_t shard) {
    struct key k;
    k.len = 0;
    key_u16(&k, shard);
    return k;
}

struct key key_meta(uint32_t shard, enum key_tag tag) {
    struct key k = key_shard(shard);
    key_u8(&k, (uint8_t)tag);
    return k;
}

struct key key_number(uint32_t shard, uint8_t number) {
    struct key k = key_meta(shard, KEY_TAG_NUMBER);
    key_u8(&k, number);
    return k;
}

struct key key_staged(uint32_t shard, uint64_t id) {
    struct key k = key_meta(shard, KEY_TAG_STAGED);
    key_u64(&k, id);
    return k;
}

struct key key_message(uint32_t shard, uint64_t id) {
    struct key k = key_shard(shard);
    key_u64(&k, id);
    return k;
}

struct key key_chunk(uint32_t shard, uint64_t id, uint32_t number) {
    struct key k = key_message(shard, id);
    CHECK(number <= 0xffffu);
    key_u16(&k, number);
    return k;
}

struct key key_recipient(uint32_t shard, uint64_t id, uint32_t index) {
    struct key k = key_message(shard, id);
    key_u32(&k, index);
    return k;
}

struct key key_inflight(uint32_t shard, uint64_t attempt) {
    struct key k = key_shard(shard);
    key_u64(&k, attempt);
    return k;
}

struct key key_due_minute(uint32_t shard, uint32_t minute) {
    struct key k = key_shard(shard);
    key_u32(&k, minute);
    return k;
}

struct key key_due(uint32_t shard, uint32_t minute, struct span destination, uint64_t id, uint32_t index) {
    struct key k = key_due_minute(shard, minute);
    destination = span_first(destination, KEY_DESTINATION_MAX);
    key_u8(&k, (uint8_t)destination.len);
    key_bytes(&k, destination);
    key_u64(&k, id);
    key_u32(&k, index);
    return k;
}

bool key_read_due(struct span key, uint32_t *minute, uint64_t *id, uint32_t *index) {
    if (key.len < 7)
        return false;
    size_t length = (uint8_t)key.at[6];
    if (key.len != 7 + length + 12)
        return false;
    *minute = key_get_u32(key, 2);
    *id = key_get_u64(key, 7 + length);
    *index = key_get_u32(key, 7 + length + 8);
    return true;
}

struct key key_hour(uint32_t shard, uint32_t hour) {
    struct key k = key_shard(shard);
    key_u32(&k, hour);
    return k;
}

struct key key_trace(uint32_t shard, uint32_t hour, uint64_t id, uint32_t number) {
    struct key k = key_hour(shard, hour);
    key_u64(&k, id);
    key_u32(&k, number);
    return k;
}

struct key key_submission(uint32_t shard, uint32_t hour, struct span submission) {
    struct key k = key_hour(shard, hour);
    CHECK(submission.len == 16);
    key_bytes(&k, submission);
    return k;
}

struct key key_audit(uint64_t ms, uint32_t serial) {
    struct key k = key_meta(KEY_NODE, KEY_TAG_AUDIT);
    key_u64(&k, ~ms);
    key_u32(&k, ~serial);
    return k;
}

bool key_read_audit(struct span key, uint64_t *ms, uint32_t *serial) {
    if (key.len != 15 || key.at[2] != KEY_TAG_AUDIT)
        return false;
    *ms = ~key_get_u64(key, 3);
    *serial = ~key_get_u32(key, 11);
    return true;
}
