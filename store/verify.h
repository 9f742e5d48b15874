/*
 * verify: the check of store_verify on a store that is open already, of either backend; also for simulation.
 */
#ifndef STORE_VERIFY_H
#define STORE_VERIFY_H

#include "store/store.h"

/* Reads everything and calls found for every problem. ERR_OK: read to the end. Staged chunks are no problem. */
int verify_store(struct store *s, void (*found)(void *arg, const char *problem), void *arg,
                 uint64_t *messages) MUST_CHECK;

#endif
