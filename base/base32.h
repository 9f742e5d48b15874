/*
 * base32: Crockford's base32 of 64-bit ids: 13 characters, time-sortable as text.
 */
#ifndef BASE_BASE32_H
#define BASE_BASE32_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define BASE32_ID_LEN 13

/* Writes 13 characters and a NUL. */
void base32_encode(uint64_t id, char to[BASE32_ID_LEN + 1]);
/* Accepts either case, and i, l as 1 and o as 0. False: other length or characters, overflow. */
bool base32_decode(struct span text, uint64_t *id);

#endif
