/*
 * rand: seeded randomness for decisions (deterministic: same seed, same row) and secure
 * randomness from the kernel for ids and secrets.
 */
#ifndef BASE_RAND_H
#define BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

struct rand {
    uint64_t state[2];
};

void rand_init(struct rand *r, uint64_t seed);
uint64_t rand_u64(struct rand *r);
/* Uniform in [0, bound); bound > 0. */
uint64_t rand_below(struct rand *r, uint64_t bound);
/* Fills from getrandom(2); aborts when the kernel cannot. */
void rand_secure(void *to, size_t len);

#endif
