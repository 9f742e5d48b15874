/* Certificates for the tests of TLS, made at run time in a directory of their own. */
#ifndef TESTS_TLS_CERTS_H
#define TESTS_TLS_CERTS_H

#include <dirent.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct authority {
    X509 *x;
    EVP_PKEY *key;
};

static char certs_dir[64];

/* Paths live as long as the test: a ring of them. */
static inline const char *certs_path(const char *name) {
    static char ring[32][400];
    static int at;
    char *to = ring[at++ % 32];
    snprintf(to, sizeof ring[0], "%s/%s", certs_dir, name);
    return to;
}

static inline void certs_begin(void) {
    snprintf(certs_dir, sizeof certs_dir, "/tmp/posthouse_tls_XXXXXX");
    assert_non_null(mkdtemp(certs_dir));
}

static inline void certs_end(void) {
    DIR *d = opendir(certs_dir);
    struct dirent *e;
    assert_non_null(d);
    while ((e = readdir(d))) {
        if (e->d_name[0] != '.')
            unlink(certs_path(e->d_name));
    }
    closedir(d);
    assert_int_equal(rmdir(certs_dir), 0);
}

/* Written beside and renamed, so that the file is another one each time. */
static inline void certs_write(const char *name, const void *bytes, size_t len, mode_t mode) {
    char fresh[420];
    snprintf(fresh, sizeof fresh, "%s.new", certs_path(name));
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
    assert_int_equal(rename(fresh, certs_path(name)), 0);
}

static inline X509 *certs_sign(EVP_PKEY *key, const char *cn, const char *san, const struct authority *by, bool ca,
                               int from_days, int to_days) {
    static long serial = 1;
    X509 *x = X509_new();
    X509V3_CTX ctx;
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x), from_days * 86400L);
    X509_gmtime_adj(X509_getm_notAfter(x), to_days * 86400L);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(x, by ? X509_get_subject_name(by->x) : X509_get_subject_name(x));
    X509V3_set_ctx(&ctx, by ? by->x : x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, ca ? "critical,CA:TRUE" : "CA:FALSE");
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    if (san) {
        e = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, san);
        assert_non_null(e);
        X509_add_ext(x, e, -1);
        X509_EXTENSION_free(e);
    }
    assert_true(X509_sign(x, by ? by->key : key, EVP_sha256()) > 0);
    return x;
}

static inline EVP_PKEY *certs_key(bool rsa) {
    return rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
}

static inline void certs_write_x509(const char *name, X509 *x, X509 *more) {
    BIO *b = BIO_new(BIO_s_mem());
    char *at;
    PEM_write_bio_X509(b, x);
    if (more)
        PEM_write_bio_X509(b, more);
    long len = BIO_get_mem_data(b, &at);
    certs_write(name, at, (size_t)len, 0644);
    BIO_free(b);
}

static inline void certs_write_key(const char *name, EVP_PKEY *key, const char *phrase, mode_t mode) {
    BIO *b = BIO_new(BIO_s_mem());
    char *at;
    PEM_write_bio_PrivateKey(b, key, phrase ? EVP_aes_128_cbc() : NULL, (const unsigned char *)phrase,
                             phrase ? (int)strlen(phrase) : 0, NULL, NULL);
    long len = BIO_get_mem_data(b, &at);
    certs_write(name, at, (size_t)len, mode);
    BIO_free(b);
}

/* STEM.pem */
static inline struct authority certs_authority(const char *stem) {
    char file[64];
    struct authority a = {.key = certs_key(false)};
    a.x = certs_sign(a.key, stem, NULL, NULL, true, -1, 100);
    snprintf(file, sizeof file, "%s.pem", stem);
    certs_write_x509(file, a.x, NULL);
    return a;
}

static inline void certs_authority_free(struct authority *a) {
    X509_free(a->x);
    EVP_PKEY_free(a->key);
}

/* STEM.pem and STEM.key */
static inline void certs_pair(const char *stem, const char *san, const struct authority *by, bool rsa, int to_days) {
    char file[64];
    EVP_PKEY *key = certs_key(rsa);
    X509 *x = certs_sign(key, stem, san, by, false, -10, to_days);
    snprintf(file, sizeof file, "%s.pem", stem);
    certs_write_x509(file, x, by->x);
    snprintf(file, sizeof file, "%s.key", stem);
    certs_write_key(file, key, NULL, 0600);
    X509_free(x);
    EVP_PKEY_free(key);
}

#endif
