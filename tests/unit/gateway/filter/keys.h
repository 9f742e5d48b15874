/*
 * keys: private keys in files, their DKIM records, and signatures made with the library directly, so that tests can
 * make what posthouse itself never would.
 */
#ifndef TESTS_UNIT_GATEWAY_FILTER_KEYS_H
#define TESTS_UNIT_GATEWAY_FILTER_KEYS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <opendkim/dkim.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "gateway/filter/held.h"

struct signing_key {
    char path[80];
    char pem[8192];
    char record[1400]; /* value of the TXT record, strings quoted */
};

static inline void keys_write(const char *path, const char *text, mode_t mode) {
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) || chmod(path, mode))
        abort();
}

/* bits 0: Ed25519. */
static inline void keys_make(struct signing_key *k, const char *directory, const char *name, unsigned bits) {
    EVP_PKEY *key = bits ? EVP_RSA_gen(bits) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    unsigned char der[2048], raw[32], *at = der;
    char base64[1200];
    size_t raw_len = sizeof raw;
    BIO *mem = BIO_new(BIO_s_mem());
    if (!key || !mem || !PEM_write_bio_PrivateKey(mem, key, NULL, NULL, 0, NULL, NULL))
        abort();
    int len = BIO_read(mem, k->pem, sizeof k->pem - 1);
    k->pem[len] = 0;
    if (bits) {
        len = i2d_PUBKEY(key, &at);
        EVP_EncodeBlock((unsigned char *)base64, der, len);
    } else {
        EVP_PKEY_get_raw_public_key(key, raw, &raw_len);
        EVP_EncodeBlock((unsigned char *)base64, raw, (int)raw_len);
    }
    snprintf(k->record, sizeof k->record, "\"v=DKIM1; k=%s; p=%.200s\" \"%s\"", bits ? "rsa" : "ed25519", base64,
             strlen(base64) > 200 ? base64 + 200 : "");
    snprintf(k->path, sizeof k->path, "%s/%s.pem", directory, name);
    keys_write(k->path, k->pem, 0600);
    BIO_free(mem);
    EVP_PKEY_free(key);
}

struct raw_signing {
    const char *pem, *domain, *selector;
    ssize_t length; /* -1: all */
    dkim_alg_t algorithm;
    uint64_t now_s, lifetime_s; /* 0: now, none */
};

/* The library leaks when it makes Ed25519 signatures; a leak checker need not say so in a test of verifying. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

/* Puts a signature in front. False: the library does not sign so. */
static inline bool keys_sign(struct held *h, const struct raw_signing *s) {
    DKIM_STAT stat;
    DKIM_LIB *lib = dkim_init(NULL, NULL);
    u_char *text;
    size_t len;
    char piece[4096];
    if (s->now_s)
        dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_FIXEDTIME, (void *)(uintptr_t)&s->now_s, sizeof s->now_s);
    if (s->lifetime_s)
        dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_SIGNATURETTL, (void *)(uintptr_t)&s->lifetime_s,
                     sizeof s->lifetime_s);
    bool leaks = s->algorithm == DKIM_SIGN_ED25519SHA256;
    if (leaks && __lsan_disable)
        __lsan_disable();
    u_int flags = s->length >= 0 ? DKIM_LIBFLAGS_SIGNLEN : 0, bits = 512;
    dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_MINKEYBITS, &bits, sizeof bits);
    dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_FLAGS, &flags, sizeof flags);
    DKIM *d =
        dkim_sign(lib, (const u_char *)"test", NULL, (dkim_sigkey_t)(uintptr_t)s->pem, (const u_char *)s->selector,
                  (const u_char *)s->domain, DKIM_CANON_RELAXED, DKIM_CANON_SIMPLE, s->algorithm, s->length, &stat);
    bool ok = d != NULL;
    for (size_t n = 0; ok && n < held_count(h); n++) {
        struct span name, value;
        char *line;
        held_field(h, n, &name, &value);
        int size = asprintf(&line, "%.*s:%.*s", SPAN_FMT(name), SPAN_FMT(value));
        ok = dkim_header(d, (u_char *)line, (size_t)size) == DKIM_STAT_OK;
        free(line);
    }
    ok = ok && dkim_eoh(d) == DKIM_STAT_OK;
    ptrdiff_t n;
    for (uint64_t at = 0; ok && (n = held_body_read(h, at, piece, sizeof piece)) > 0; at += (uint64_t)n)
        ok = dkim_body(d, (u_char *)piece, (size_t)n) == DKIM_STAT_OK;
    ok = ok && dkim_eom(d, NULL) == DKIM_STAT_OK && dkim_getsighdr_d(d, 16, &text, &len) == DKIM_STAT_OK &&
         held_insert(h, 0, SPAN("DKIM-Signature"), span_make(text, len)) == ERR_OK;
    if (!ok)
        fprintf(stderr, "not signed by %s: %s\n", s->selector, d && dkim_geterror(d) ? dkim_geterror(d) : "");
    if (d)
        dkim_free(d);
    dkim_close(lib);
    if (leaks && __lsan_enable)
        __lsan_enable();
    return ok;
}

#endif
