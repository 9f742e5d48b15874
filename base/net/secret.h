/*
 * secret: the door to OpenSSL for what is no stream: digests, HMAC, comparison in constant time, wiping.
 */
#ifndef BASE_NET_SECRET_H
#define BASE_NET_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

void secret_sha256(struct span s, uint8_t to[32]);
/* For what a standard asks it of (BATV); not for anything new. */
void secret_hmac_sha1(struct span key, struct span s, uint8_t to[20]);
void secret_hmac_sha256(struct span key, struct span s, uint8_t to[32]);
/* Time does not tell where they differ; lengths are not secret. */
bool secret_equal(struct span a, struct span b);
void secret_wipe(void *at, size_t len);

#endif
