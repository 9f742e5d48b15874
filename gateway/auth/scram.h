/*
 * scram: one exchange of SCRAM-SHA-256 on the server's side, run by GNU SASL (RFC 5802, RFC 7677, RFC 9266). Small and
 * quick: a step costs a few digests, so it runs on a loop.
 */
#ifndef GATEWAY_AUTH_SCRAM_H
#define GATEWAY_AUTH_SCRAM_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/password.h"
#include "base/span.h"

/* The library's context: one for each auth, read by all loops. */
struct scram_context;
int scram_context_new(struct scram_context **c) MUST_CHECK;
void scram_context_free(struct scram_context *c);

/* What an account without a verifier is answered with: the same salt each time, derived from secret, and keys that
 * nothing fits. salt_len: octets, at most 64, as the real ones have. */
void scram_fake(struct verifier *v, struct span secret, struct span account, uint32_t iterations, size_t salt_len);

struct scram;
/* plus: the client chose -PLUS. binding_type NULL: the connection has no binding, or -PLUS was not offered; otherwise a
 * client that says that the server could not bind ("y") was lied to, and fails. ERR_NOMEM, ERR_UNSUPPORTED (a type that
 * is not known). */
int scram_new(struct scram **s, struct scram_context *c, bool plus, const struct verifier *v, const char *binding_type,
              struct span binding) MUST_CHECK;
void scram_free(struct scram *s);
/* ERR_OK: proven, out is the last word, to be sent before the success. ERR_AGAIN: out is the challenge. ERR_DENIED: not
 * proven. ERR_INVALID: malformed. ERR_NOMEM. */
int scram_step(struct scram *s, struct span in, struct buf *out) MUST_CHECK;

#endif
