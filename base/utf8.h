/*
 * utf8: strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing over U+10FFFF.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

bool utf8_is_valid(struct span s);
bool utf8_is_ascii(struct span s);
/* Decodes the first code point of s into *cp and returns its length in bytes; 0 when s is
 * empty or does not start with a valid sequence. */
size_t utf8_next(struct span s, uint32_t *cp);

#endif
