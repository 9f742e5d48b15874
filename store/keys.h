/*
 * keys: how the queue's keys are written: big-endian, so that the order of octets is the order of numbers;
 * prefixed by the shard (2 octets), so that one shard is one range of every family.
 *
 *   meta        S tag(1) [rest]      envelope   S id(8)          body   S id(8) chunk(2)
 *   recipient   S id(8) n(4)         inflight   S attempt(8)
 *   due         S minute(4) length(1) destination id(8) n(4)
 *   trace       S hour(4) id(8) number(4)
 *   submission  S hour(4) submission(16)
 *   audit       S tag(1) ms(8) serial(4) of meta, S being the node's own, all bits of ms and serial inverted: the
 *               newest stands first
 */
#ifndef STORE_KEYS_H
#define STORE_KEYS_H

#include <string.h>

#include "base/span.h"

#define KEY_MAX 320
#define KEY_DESTINATION_MAX 255
#define KEY_SHARDS 1024u /* shard numbers are below this; 0xffff is the node's own */
#define KEY_NODE 0xffffu

enum key_tag {
    KEY_TAG_IDENTITY = 'i',
    KEY_TAG_SCHEMA = 's',
    KEY_TAG_NUMBER = 'n',
    KEY_TAG_STAGED = 'c',
    KEY_TAG_AUDIT = 'a',
    KEY_TAG_AUDIT_COUNT = 'A',
    KEY_TAG_SUSPENSION = 'p'
};

struct key {
    size_t len;
    uint8_t at[KEY_MAX];
};

static inline struct span key_span(const struct key *k) {
    return (struct span){(const char *)k->at, k->len};
}
static inline void key_u8(struct key *k, uint8_t n) {
    k->at[k->len++] = n;
}
static inline void key_u16(struct key *k, uint32_t n) {
    key_u8(k, (uint8_t)(n >> 8));
    key_u8(k, (uint8_t)n);
}
static inline void key_u32(struct key *k, uint32_t n) {
    key_u16(k, n >> 16);
    key_u16(k, n & 0xffffu);
}
static inline void key_u64(struct key *k, uint64_t n) {
    key_u32(k, (uint32_t)(n >> 32));
    key_u32(k, (uint32_t)n);
}
static inline void key_bytes(struct key *k, struct span s) {
    if (s.len)
        memcpy(k->at + k->len, s.at, s.len);
    k->len += s.len;
}
/* Reads a number at an offset; the caller has checked the length. */
static inline uint32_t key_get_u16(struct span s, size_t at) {
    const uint8_t *p = (const uint8_t *)s.at + at;
    return (uint32_t)p[0] << 8 | p[1];
}
static inline uint32_t key_get_u32(struct span s, size_t at) {
    return key_get_u16(s, at) << 16 | key_get_u16(s, at + 2);
}
static inline uint64_t key_get_u64(struct span s, size_t at) {
    return (uint64_t)key_get_u32(s, at) << 32 | key_get_u32(s, at + 4);
}

/* Minutes and hours of keys; times that no key can hold count as the last one. */
static inline uint32_t key_minute(uint64_t ms) {
    return ms / 60000u < UINT32_MAX ? (uint32_t)(ms / 60000u) : UINT32_MAX - 1;
}
static inline uint32_t key_hour_of(uint64_t ms) {
    return ms / 3600000u < UINT32_MAX ? (uint32_t)(ms / 3600000u) : UINT32_MAX - 1;
}

/* Begins a key of this shard. */
struct key key_shard(uint32_t shard);
struct key key_meta(uint32_t shard, enum key_tag tag);
struct key key_number(uint32_t shard, uint8_t number);
struct key key_staged(uint32_t shard, uint64_t id);
struct key key_message(uint32_t shard, uint64_t id); /* envelope; also the prefix of body and recipient */
struct key key_chunk(uint32_t shard, uint64_t id, uint32_t number);
struct key key_recipient(uint32_t shard, uint64_t id, uint32_t index);
struct key key_inflight(uint32_t shard, uint64_t attempt);
struct key key_due_minute(uint32_t shard, uint32_t minute);
struct key key_due(uint32_t shard, uint32_t minute, struct span destination, uint64_t id, uint32_t index);
struct key key_hour(uint32_t shard, uint32_t hour); /* prefix of trace and submission */
struct key key_trace(uint32_t shard, uint32_t hour, uint64_t id, uint32_t number);
struct key key_submission(uint32_t shard, uint32_t hour, struct span submission);
struct key key_audit(uint64_t ms, uint32_t serial);
/* Takes an audit key apart. False: malformed. */
bool key_read_audit(struct span key, uint64_t *ms, uint32_t *serial);
/* Takes a due key apart. False: malformed. */
bool key_read_due(struct span key, uint32_t *minute, uint64_t *id, uint32_t *index);

#endif
