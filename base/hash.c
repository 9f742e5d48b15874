/*
 * hash: the only file that includes xxHash. XXH3 is stable since 0.8.0, so its values may
 * be stored and sent to other machines. Folding is ASCII only, piece by piece on the stack.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/hash.h"

uint64_t hash_bytes(const void *bytes, size_t len, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, len, seed);
}

uint64_t hash_span(struct span s, uint64_t seed) {
    return XXH3_64bits_withSeed(s.at, s.len, seed);
}

uint64_t hash_span_nocase(struct span s, uint64_t seed) {
    char folded[256]; /* one piece for every domain; longer spans chain the pieces through the seed */
    if (s.len == 0)
        return XXH3_64bits_withSeed("", 0, seed);
    while (s.len) {
        size_t len = s.len < sizeof folded ? s.len : sizeof folded;
        for (size_t i = 0; i < len; i++) {
            char c = s.at[i];
            folded[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
        }
        seed = XXH3_64bits_withSeed(folded, len, seed);
        s = span_from(s, len);
    }
    return seed;
}

uint32_t hash_checksum(const void *bytes, size_t len) {
    return (uint32_t)XXH3_64bits(bytes, len);
}

struct hash_stream {
    XXH3_state_t *state; /* from xxHash, since it needs an alignment that malloc does not give */
};

struct hash_stream *hash_stream_new(void) {
    struct hash_stream *h = malloc(sizeof *h);
    if (!h)
        return NULL;
    h->state = XXH3_createState();
    if (!h->state) {
        free(h);
        return NULL;
    }
    hash_stream_reset(h);
    return h;
}

void hash_stream_reset(struct hash_stream *h) {
    CHECK(XXH3_64bits_reset(h->state) == XXH_OK);
}

void hash_stream_add(struct hash_stream *h, const void *bytes, size_t len) {
    if (len)
        CHECK(XXH3_64bits_update(h->state, bytes, len) == XXH_OK);
}

uint32_t hash_stream_checksum(const struct hash_stream *h) {
    return (uint32_t)XXH3_64bits_digest(h->state);
}

void hash_stream_free(struct hash_stream *h) {
    if (!h)
        return;
    XXH3_freeState(h->state);
    free(h);
}
