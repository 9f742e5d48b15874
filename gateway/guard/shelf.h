/*
 * shelf: a table of small values by 128-bit keys, bounded, shared by threads. When it is full the entry that was
 * touched longest ago makes room. Memory comes as entries do, and stays.
 *
 * Entries are spread over shards with a lock each, by a secret of the process, so that nobody can choose keys that
 * fall into one chain.
 */
#ifndef GATEWAY_GUARD_SHELF_H
#define GATEWAY_GUARD_SHELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct shelf_key {
    uint64_t word[2];
};
/* Of octets as they are. */
struct shelf_key shelf_key_of(const void *bytes, size_t len, uint64_t seed);
/* Chained from a key: the same texts in the same order give the same key; ASCII letters are folded. */
struct shelf_key shelf_key_add(struct shelf_key k, struct span s, uint64_t seed);

struct shelf;
/* most: entries. value_size: octets of a value, > 0. ERR_NOMEM. */
int shelf_new(struct shelf **s, size_t most, size_t value_size) MUST_CHECK;
void shelf_free(struct shelf *s);
/* The bound from now on; what is over it goes, the oldest first. */
void shelf_set_most(struct shelf *s, size_t most);
size_t shelf_count(struct shelf *s);

/* The value of the key, or NULL when there is none; with make, a new one is zeroed, and NULL means that there is no
 * memory and nothing to make room. A value that was found becomes the youngest. The shard stays locked until
 * shelf_leave, in either case: one at a time, briefly. */
void *shelf_enter(struct shelf *s, struct shelf_key k, bool make);
void shelf_leave(struct shelf *s, struct shelf_key k);
/* Between enter and leave of this key, which is there. */
void shelf_remove(struct shelf *s, struct shelf_key k);

/* Calls see for each entry, a shard at a time with its lock held, oldest first. */
typedef void (*shelf_see)(void *arg, struct shelf_key k, const void *value);
#define SHELF_SHARDS 64u
void shelf_walk(struct shelf *s, unsigned shard, shelf_see see, void *arg);

#endif
