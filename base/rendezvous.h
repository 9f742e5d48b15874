/*
 * rendezvous: weighted rendezvous hashing (highest random weight): each node draws for each key, and the best draw
 * wins. Who draws best depends on the key and that node alone, so that a node that comes or goes moves only its own
 * share, which is proportional to its weight. Integers only: all machines agree.
 */
#ifndef BASE_RENDEZVOUS_H
#define BASE_RENDEZVOUS_H

#include <stdbool.h>
#include <stdint.h>

struct rendezvous {
    uint64_t hash; /* of key and node together, well mixed */
    uint32_t weight;
};
/* The draw of a is better than that of b. Weight 0 never wins; of equal weights the greater hash does. */
bool rendezvous_wins(struct rendezvous a, struct rendezvous b);
/* -log2(hash / 2^64) with 32 bits after the point, at least 1. */
uint64_t rendezvous_log(uint64_t hash);

#endif
