/*
 * hash: the door to xxHash. Checksums of frames and records, keys of maps, rendezvous.
 * Not for secrets (OpenSSL has those).
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdint.h>

#include "base/span.h"

/* XXH3, 64 bits, seeded. Stable across machines and versions: may be stored. */
uint64_t hash_bytes(const void *bytes, size_t len, uint64_t seed);
uint64_t hash_span(struct span s, uint64_t seed);
/* ASCII letters folded before hashing (for domains). */
uint64_t hash_span_nocase(struct span s, uint64_t seed);
/* The low 32 bits of XXH3 with seed 0: the checksum of frames and stored records. */
uint32_t hash_checksum(const void *bytes, size_t len);

/* Running checksum over pieces; equal to hash_checksum over their concatenation. */
struct hash_stream;
struct hash_stream *hash_stream_new(void); /* NULL: no memory */
void hash_stream_reset(struct hash_stream *h);
void hash_stream_add(struct hash_stream *h, const void *bytes, size_t len);
uint32_t hash_stream_checksum(const struct hash_stream *h);
void hash_stream_free(struct hash_stream *h);

#endif
