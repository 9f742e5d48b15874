/*
 * remember: good passwords, remembered for a short while as keyed digests, so that a client that logs in for every
 * message does not cost a slow hash or a question to a server each time. Only what was just proven is remembered; the
 * key never leaves the process. Bounded, thread-safe. Time is an argument.
 */
#ifndef GATEWAY_AUTH_REMEMBER_H
#define GATEWAY_AUTH_REMEMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct remember;
struct remember *remember_new(uint32_t entries, uint64_t keep_ms) MUST_CHECK;
void remember_free(struct remember *r);
/* canonical: the account as the backend named it, at most 255 octets. */
void remember_add(struct remember *r, struct span account, struct span password, struct span canonical,
                  uint64_t now_ms);
/* True: this password was good a moment ago; canonical is filled. */
bool remember_has(struct remember *r, struct span account, struct span password, char canonical[256],
                  uint64_t now_ms) MUST_CHECK;

#endif
