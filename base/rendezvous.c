/*
 * rendezvous: the draw of a node is weight / -ln(u), with u uniform from the hash; the greatest is each node's with a
 * probability proportional to its weight. The logarithm is made by squaring, so that it is the same everywhere.
 */
#include "base/rendezvous.h"

#define FRACTION_BITS 32u

uint64_t rendezvous_log(uint64_t hash) {
    if (hash == 0)
        return (uint64_t)64 << FRACTION_BITS;
    unsigned shift = (unsigned)__builtin_clzll(hash);
    uint64_t x = hash << shift, fraction = 0; /* x / 2^64 is in [1/2, 1) */
    for (unsigned i = 0; i < FRACTION_BITS; i++) {
        x = (uint64_t)((unsigned __int128)x * x >> 64);
        fraction <<= 1;
        if (x < (uint64_t)1 << 63) {
            fraction |= 1;
            x <<= 1;
        }
    }
    return ((uint64_t)shift << FRACTION_BITS | fraction) + 1;
}

bool rendezvous_wins(struct rendezvous a, struct rendezvous b) {
    if (a.weight == b.weight) /* the usual case needs no logarithm */
        return a.weight && a.hash > b.hash;
    unsigned __int128 of_a = (unsigned __int128)a.weight * rendezvous_log(b.hash);
    unsigned __int128 of_b = (unsigned __int128)b.weight * rendezvous_log(a.hash);
    return of_a != of_b ? of_a > of_b : a.weight && a.hash > b.hash;
}
