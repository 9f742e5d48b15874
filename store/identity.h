/*
 * identity: whose store this is, and in which schema it is written: two records of the node in the family meta.
 */
#ifndef STORE_IDENTITY_H
#define STORE_IDENTITY_H

#include "store/store.h"

#define IDENTITY_SCHEMA 1u

/* Reads and checks the identity, or writes a new one when the store is fresh (nothing was ever written to it).
 * node "": any. ERR_DENIED: of another node; ERR_VERSION: a newer schema; ERR_CORRUPT: malformed, or missing from a
 * store that is not fresh; the reason goes to report->damage. */
int identity_check(struct store *s, const char *node, bool fresh, struct store_report *report) MUST_CHECK;

#endif
