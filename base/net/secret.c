/*
 * secret: see secret.h. Thin over OpenSSL; what fails here fails for want of memory only, and nothing sensible can be
 * done with half a digest, so that is the end of the process.
 */
#include "base/net/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/check.h"

void secret_sha256(struct span s, uint8_t to[32]) {
    CHECK(EVP_Digest(s.len ? s.at : "", s.len, to, NULL, EVP_sha256(), NULL) == 1);
}

static void hmac(const EVP_MD *md, struct span key, struct span s, uint8_t *to, unsigned want) {
    unsigned len = 0;
    CHECK(key.len <= INT32_MAX);
    CHECK(HMAC(md, key.len ? key.at : "", (int)key.len, (const unsigned char *)(s.len ? s.at : ""), s.len, to, &len) &&
          len == want);
}

void secret_hmac_sha1(struct span key, struct span s, uint8_t to[20]) {
    hmac(EVP_sha1(), key, s, to, 20);
}

void secret_hmac_sha256(struct span key, struct span s, uint8_t to[32]) {
    hmac(EVP_sha256(), key, s, to, 32);
}

bool secret_equal(struct span a, struct span b) {
    return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.at, b.at, a.len) == 0);
}

void secret_wipe(void *at, size_t len) {
    OPENSSL_cleanse(at, len);
}
