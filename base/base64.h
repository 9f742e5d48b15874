/*
 * base64: RFC 4648 section 4, strict: no line breaks, padding demanded, no stray bits.
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/buf.h"
#include "base/span.h"

/* Appends the encoding. */
int base64_encode(struct span s, struct buf *to);
/* Appends the octets. ERR_INVALID (nothing certain was appended), ERR_FULL, ERR_NOMEM. Empty text gives nothing. */
int base64_decode(struct span text, struct buf *to) MUST_CHECK;

#endif
