/*
 * id: the distinct ids of mail. A message id is 42 bits of milliseconds since 1970, 10 bits of
 * shard, 12 bits of counter: time-sortable, names its shard, shown as 13 base32 characters.
 */
#ifndef PROTO_ID_H
#define PROTO_ID_H

#include "base/base32.h"

#define ID_SHARD_BITS 10
#define ID_COUNTER_BITS 12

static inline uint64_t id_ms(uint64_t message) {
    return message >> (ID_SHARD_BITS + ID_COUNTER_BITS);
}
static inline uint32_t id_shard(uint64_t message) {
    return (uint32_t)(message >> ID_COUNTER_BITS) & ((1u << ID_SHARD_BITS) - 1);
}

#endif
