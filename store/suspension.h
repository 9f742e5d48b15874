/*
 * suspension: an operator's suspensions of domains and sites in the store: records of the whole node, in meta.
 */
#ifndef STORE_SUSPENSION_H
#define STORE_SUSPENSION_H

#include "proto/mail.pb-c.h"
#include "store/store.h"

#define SUSPENSION_NAME_MAX 300u

/* scope and name (at most SUSPENSION_NAME_MAX octets) are the key: a second one takes the place of the first. */
void suspension_put(struct store_batch *b, const Words__Suspension *record);
void suspension_drop(struct store_batch *b, uint32_t scope, struct span name);
/* All of them; the record lives for the call. ERR_CORRUPT: one does not decode. */
int suspension_each(struct store *s, void (*each)(void *arg, const Words__Suspension *record), void *arg) MUST_CHECK;

#endif
