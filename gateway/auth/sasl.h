/*
 * sasl: what clients send, as values: the message of PLAIN (RFC 4616), the first message of SCRAM (RFC 5802), names of
 * accounts. Pure: borrowed spans, nothing kept.
 */
#ifndef GATEWAY_AUTH_SASL_H
#define GATEWAY_AUTH_SASL_H

#include "base/err.h"
#include "base/span.h"

#include "gateway/auth/backend.h"

struct sasl_plain {
    struct span authorization, account, password;
};
/* ERR_INVALID: not exactly two NULs, no account. ERR_RANGE: a part is too long. The password may be empty. */
int sasl_parse_plain(struct sasl_plain *p, struct span message) MUST_CHECK;

struct sasl_scram {
    char account[AUTH_ACCOUNT_MAX + 1]; /* unescaped, not normalised */
    char authorization[AUTH_ACCOUNT_MAX + 1];
};
/* client-first-message. ERR_INVALID, ERR_RANGE. What it leaves unchecked (nonce, binding) the library checks. */
int sasl_parse_scram(struct sasl_scram *s, struct span message) MUST_CHECK;

/* The one form of an account's name: ASCII letters in lower case, realm (may be NULL) appended when there is no '@'.
 * ERR_INVALID: empty, control characters, not UTF-8; ERR_RANGE: over 255 octets. */
int sasl_account(struct span name, const char *realm, char to[AUTH_ACCOUNT_MAX + 1]) MUST_CHECK;

#endif
