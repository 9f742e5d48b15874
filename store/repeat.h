/*
 * repeat: makes a batch safe to write when parts of it may be on disk already.
 *
 * Putting or deleting twice is the same as once, but for the families that are written once and single-deleted: there a
 * single delete takes away the newest put only, and an older one of the same key would come back. So before a write is
 * repeated, the store is asked, and puts of keys that are there and single deletes of keys that are
 * not are left out.
 */
#ifndef STORE_REPEAT_H
#define STORE_REPEAT_H

#include "store/store.h"

/* Appends to `to` what of b is still to be done. ERR_NOMEM, ERR_CORRUPT, ERR_IO. */
int repeat_batch(struct store *s, const struct store_batch *b, struct store_batch *to) MUST_CHECK;

#endif
