/*
 * password: see password.h. One door to libcrypt, libargon2 and the key derivation of GNU SASL. Which prefixes count is
 * decided here, not by what the libraries could do: plain text, DES and MD5 are refused, so that a file never holds
 * what a thief could undo in an hour.
 */
#include "base/net/password.h"

#include <argon2.h>
#include <crypt.h>
#include <gsasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/net/secret.h"
#include "base/rand.h"

static const char *const crypt_prefixes[] = {"$2a$", "$2b$", "$2y$", "$y$", "$gy$", "$7$", "$6$", "$5$"};

static bool starts(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* A bare setting without the hash behind it passes crypt_checksalt and would fit nothing. */
static bool is_crypt(const char *hash) {
    for (size_t i = 0; i < sizeof crypt_prefixes / sizeof *crypt_prefixes; i++) {
        if (!starts(hash, crypt_prefixes[i]))
            continue;
        int salt = crypt_checksalt(hash);
        const char *last = strrchr(hash, '$');
        return (salt == CRYPT_SALT_OK || salt == CRYPT_SALT_TOO_CHEAP) && strlen(last + 1) >= 31 &&
               strlen(hash) < CRYPT_OUTPUT_SIZE;
    }
    return false;
}

/* $argon2id$v=19$m=65536,t=3,p=4$salt$hash: the library tells only when it has spent the time. */
static bool is_argon2(const char *hash) {
    if (!starts(hash, "$argon2id$") && !starts(hash, "$argon2i$"))
        return false;
    int dollars = 0;
    for (const char *p = hash; *p; p++)
        dollars += *p == '$';
    return dollars == 5 && strstr(hash, "$m=") && strrchr(hash, '$')[1] != '\0';
}

enum password_kind password_kind(const char *hash) {
    struct verifier v;
    if (hash[0] == '!' || hash[0] == '*')
        return PASSWORD_LOCKED;
    if (verifier_parse(&v, span_of(hash)))
        return PASSWORD_SCRAM;
    if (is_argon2(hash))
        return PASSWORD_ARGON2;
    return is_crypt(hash) ? PASSWORD_CRYPT : PASSWORD_BAD;
}

static bool octets_of(struct span text, struct buf *to, size_t low, size_t high) {
    buf_clear(to);
    return base64_decode(text, to) == ERR_OK && buf_len(to) >= low && buf_len(to) <= high;
}

bool verifier_parse(struct verifier *v, struct span hash) {
    const struct span prefix = SPAN("SCRAM-SHA-256$");
    struct span iterations, salt, stored, server;
    uint64_t n;
    if (!span_eq(span_first(hash, prefix.len), prefix))
        return false;
    salt = span_cut(span_from(hash, prefix.len), '$', &stored);
    iterations = span_cut(salt, ':', &salt);
    stored = span_cut(stored, ':', &server);
    if (!span_u64(iterations, &n) || n == 0 || n > VERIFIER_ITERATIONS_MAX || salt.len > VERIFIER_SALT_MAX)
        return false;
    struct buf octets;
    buf_init(&octets, 256);
    bool good =
        octets_of(salt, &octets, 1, 96) && octets_of(stored, &octets, 32, 32) && octets_of(server, &octets, 32, 32);
    buf_deinit(&octets);
    v->iterations = (uint32_t)n;
    span_copy(salt, v->salt, sizeof v->salt);
    span_copy(stored, v->stored, sizeof v->stored);
    span_copy(server, v->server, sizeof v->server);
    return good;
}

void *password_scratch_new(void) {
    return calloc(1, sizeof(struct crypt_data));
}

void password_scratch_free(void *scratch) {
    if (scratch)
        secret_wipe(scratch, sizeof(struct crypt_data));
    free(scratch);
}

static int verify_crypt(const char *hash, const char *password, struct crypt_data *data) {
    if (!data)
        return ERR_NOMEM;
    data->initialized = 0;
    const char *made = crypt_rn(password, hash, data, sizeof *data);
    if (!made)
        return ERR_INVALID;
    return secret_equal(span_of(made), span_of(hash)) ? ERR_OK : ERR_DENIED;
}

static int verify_argon2(const char *hash, const char *password) {
    argon2_type type = starts(hash, "$argon2id$") ? Argon2_id : Argon2_i;
    switch (argon2_verify(hash, password, strlen(password), type)) {
    case ARGON2_OK:
        return ERR_OK;
    case ARGON2_VERIFY_MISMATCH:
        return ERR_DENIED;
    case ARGON2_MEMORY_ALLOCATION_ERROR:
    case ARGON2_THREAD_FAIL:
        return ERR_NOMEM;
    default:
        return ERR_INVALID;
    }
}

static int verify_scram(const struct verifier *v, const char *password) {
    char salted[32], client[32], server[32], stored[32];
    struct buf salt, expected;
    buf_init(&salt, 256);
    buf_init(&expected, 256);
    int err = base64_decode(span_of(v->salt), &salt);
    if (!err)
        err = base64_decode(span_of(v->stored), &expected);
    if (!err) {
        int rc = gsasl_scram_secrets_from_password(GSASL_HASH_SHA256, password, v->iterations, buf_span(&salt).at,
                                                   buf_len(&salt), salted, client, server, stored);
        if (rc == GSASL_OK)
            err = secret_equal(span_make(stored, 32), buf_span(&expected)) ? ERR_OK : ERR_DENIED;
        else /* what SASLprep forbids was never made a verifier of */
            err = rc == GSASL_MALLOC_ERROR ? ERR_NOMEM : ERR_DENIED;
        secret_wipe(salted, sizeof salted);
        secret_wipe(client, sizeof client);
    }
    buf_deinit(&salt);
    buf_deinit(&expected);
    return err;
}

int password_verify(const char *hash, const char *password, void *scratch) {
    struct verifier v;
    switch (password_kind(hash)) {
    case PASSWORD_LOCKED:
        return ERR_DENIED;
    case PASSWORD_CRYPT:
        return verify_crypt(hash, password, scratch);
    case PASSWORD_ARGON2:
        return verify_argon2(hash, password);
    case PASSWORD_SCRAM:
        return verifier_parse(&v, span_of(hash)) ? verify_scram(&v, password) : ERR_INVALID;
    case PASSWORD_BAD:
        break;
    }
    return ERR_INVALID;
}

/* Only what is in front of the hash decides what a check costs; the hash itself fits nothing. */
bool password_decoy(char *to, size_t size) {
    char random[16], setting[CRYPT_GENSALT_OUTPUT_SIZE];
    rand_secure(random, sizeof random);
    if (!crypt_gensalt_rn("$2b$", 10, random, sizeof random, setting, sizeof setting))
        return false;
    int len = snprintf(to, size, "%s%s", setting, "...............................");
    return len > 0 && (size_t)len < size;
}
