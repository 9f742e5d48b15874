/*
 * dkimauth: DKIM signatures (RFC 6376) of a held message, verified and made, by libopendkim. (The library owns all
 * names that begin with dkim_.) The library handles are immutable once made; any thread may use them.
 */
#ifndef GATEWAY_FILTER_DKIMAUTH_H
#define GATEWAY_FILTER_DKIMAUTH_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/net/resolver.h"
#include "gateway/filter/authres.h"
#include "gateway/filter/held.h"
#include "gateway/filter/mailauth.h"

#define DKIMAUTH_FIELDS_MAX 2000u         /* a message with more header fields is not judged */
#define DKIMAUTH_SIGNATURE_MAX 8192u      /* octets; longer DKIM-Signature fields are passed over */
#define DKIMAUTH_KEY_BITS_MIN 1024u       /* of signatures that are verified */
#define DKIMAUTH_BODY_PIECE (64u * 1024u) /* octets of the body in memory at a time */

/* -- verifying -- */
struct dkimauth;
struct dkimauth *dkimauth_new(void) MUST_CHECK; /* NULL: no memory */
void dkimauth_free(struct dkimauth *d);
/* The topmost AUTHRES_DKIM_MAX signatures; results lie in mem. *count 0: not signed. */
void dkimauth_verify(struct dkimauth *d, struct resolver *r, uint64_t deadline_ms, struct held *h, struct arena *mem,
                     struct authres_dkim *results, size_t *count);

/* -- signing -- */
struct dkimkeys;
/* Reads and tries each key. A line in `problems` for each that is missing, readable by others, too small, not a key, or
 * not fit to be named: then ERR_INVALID. ERR_NOMEM. */
int dkimkeys_new(struct dkimkeys **k, const struct mailauth_key *keys, size_t count, struct buf *problems) MUST_CHECK;
void dkimkeys_free(struct dkimkeys *k);
bool dkimkeys_is_stale(const struct dkimkeys *k); /* a file is not the one that was read */
/* Index of the key whose domain is `domain` or its longest parent; -1: none. */
ptrdiff_t dkimkeys_find(const struct dkimkeys *k, struct span domain);
/* The value of a DKIM-Signature field by key n. ERR_INVALID: the message cannot be signed; ERR_IO, ERR_NOMEM. */
int dkimkeys_sign(struct dkimkeys *k, size_t n, struct held *h, struct buf *value) MUST_CHECK;

#endif
