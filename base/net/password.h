/*
 * password: stored hashes: which kind one is, and whether a password fits. Slow by purpose: for threads of a pool,
 * never for a loop (except password_kind and verifier_parse, which only read text).
 */
#ifndef BASE_NET_PASSWORD_H
#define BASE_NET_PASSWORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum password_kind {
    PASSWORD_BAD,    /* not a hash, or of a kind that is too weak to keep (DES, MD5, plain text) */
    PASSWORD_LOCKED, /* begins with '!' or '*': fits no password */
    PASSWORD_CRYPT,  /* $2a$ $2b$ $2y$ $y$ $gy$ $7$ $6$ $5$ of crypt(3) */
    PASSWORD_ARGON2, /* $argon2id$, $argon2i$ */
    PASSWORD_SCRAM,  /* SCRAM-SHA-256$iterations:salt$stored:server */
};
enum password_kind password_kind(const char *hash);

enum { VERIFIER_SALT_MAX = 128, VERIFIER_ITERATIONS_MAX = 10000000 };
struct verifier { /* of SCRAM-SHA-256 */
    uint32_t iterations;
    char salt[VERIFIER_SALT_MAX + 1]; /* base64 */
    char stored[45], server[45];      /* base64 of 32 octets */
};
bool verifier_parse(struct verifier *v, struct span hash);

/* Memory that crypt(3) works in; one for each thread. NULL: no memory. */
void *password_scratch_new(void);
void password_scratch_free(void *scratch);
/* ERR_OK: fits; ERR_DENIED: does not, or is locked; ERR_INVALID: the hash is no hash; ERR_NOMEM. */
int password_verify(const char *hash, const char *password, void *scratch) MUST_CHECK;
/* A hash that no password is known for, as costly as the usual ones. False: no room. */
bool password_decoy(char *to, size_t size);

#endif
