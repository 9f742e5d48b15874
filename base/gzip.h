/*
 * gzip: the door to zlib: octets into the gzip format (RFC 1952), whole, in memory.
 */
#ifndef BASE_GZIP_H
#define BASE_GZIP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

/* Appends the packed form; without a name and a time, so that the same octets give the same result. ERR_NOMEM,
 * ERR_FULL, ERR_RANGE (over 1 GiB). */
int gzip_pack(struct span s, struct buf *to) MUST_CHECK;

#endif
