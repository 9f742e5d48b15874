/*
 * rand: xoroshiro128++ for decisions that must be repeatable from a seed, and the kernel
 * for what must not be guessed. The first is never used for ids or secrets.
 */
#include <errno.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/rand.h"

/* splitmix64: spreads a seed of few bits over the whole state; never gives two zeros in a row. */
static uint64_t spread(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void rand_init(struct rand *r, uint64_t seed) {
    r->state[0] = spread(&seed);
    r->state[1] = spread(&seed);
}

static uint64_t rotate(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

uint64_t rand_u64(struct rand *r) {
    uint64_t a = r->state[0], b = r->state[1];
    uint64_t result = rotate(a + b, 17) + a;
    b ^= a;
    r->state[0] = rotate(a, 49) ^ b ^ (b << 21);
    r->state[1] = rotate(b, 28);
    return result;
}

uint64_t rand_below(struct rand *r, uint64_t bound) {
    CHECK(bound > 0);
    /* The high half of a product is uniform once the few low halves that fall short are redrawn. */
    unsigned __int128 product = (unsigned __int128)rand_u64(r) * bound;
    if ((uint64_t)product < bound) {
        uint64_t least = -bound % bound;
        while ((uint64_t)product < least)
            product = (unsigned __int128)rand_u64(r) * bound;
    }
    return (uint64_t)(product >> 64);
}

void rand_secure(void *to, size_t len) {
    char *at = to;
    while (len) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got > 0);
        at += got;
        len -= (size_t)got;
    }
}
