/*
 * tls_in: what the files behind tls.h share: OpenSSL itself, the insides of contexts, reading of PEM files. Nobody else
 * includes it.
 */
#ifndef BASE_NET_TLS_IN_H
#define BASE_NET_TLS_IN_H

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/net/tls.h"

enum { TLS_FILE_MAX = 4 << 20, TLS_NAME_MAX = 253 };

/* -- files (tls_pem.c) -- */
/* What tells one state of a file from another. */
struct tls_mark {
    char *path;
    dev_t device;
    ino_t inode;
    off_t size;
    int64_t changed_s, changed_ns;
    mode_t mode;
};
/* The whole file, at most TLS_FILE_MAX, and its mark (path is copied). ERR_NOT_FOUND, ERR_DENIED, ERR_INVALID, ERR_IO,
 * ERR_NOMEM, named in problems. */
int tls_file_read(const char *path, struct buf *to, struct tls_mark *mark, struct buf *problems) MUST_CHECK;
bool tls_mark_is_stale(const struct tls_mark *mark);
void tls_mark_deinit(struct tls_mark *mark);
/* "FILE: what" with a line end. */
void tls_problem(struct buf *problems, const char *path, const char *what);

/* A certificate with its chain, and the key that belongs to it. */
struct tls_pem {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    struct tls_mark marks[2];
};
/* ERR_INVALID, ERR_NOT_FOUND, ERR_DENIED, ERR_IO, ERR_NOMEM. Deinit also after a failure. */
int tls_pem_init(struct tls_pem *p, const struct tls_pair *pair, struct buf *problems) MUST_CHECK;
void tls_pem_deinit(struct tls_pem *p);
/* Adds every certificate of the file to the store, and their names to names (may be NULL). */
int tls_pem_authorities(struct span text, const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names,
                        struct buf *problems) MUST_CHECK;
int64_t tls_pem_not_after(const X509 *x);

/* -- contexts -- */
struct tls_ident {
    SSL_CTX *ctx;
    char **names; /* dNSNames, lower case */
    size_t count;
    unsigned kinds; /* bits of the key types that it has certificates for */
};
struct tls_server {
    atomic_uint refs;
    BIO_METHOD *bio;
    struct tls_tickets *tickets;
    struct tls_ident *idents;
    size_t count;
    struct tls_mark *marks;
    size_t mark_count;
    int64_t not_after;
};
struct tls_sessions;
struct tls_client {
    atomic_uint refs;
    BIO_METHOD *bio;
    SSL_CTX *ctx;
    bool verify;
    struct tls_sessions *sessions; /* or NULL: none are remembered */
};
/* The connection's buffers as a BIO; NULL: no memory (tls_conn.c). */
BIO_METHOD *tls_bio_method(void) MUST_CHECK;
/* Notes the first complaint about the peer's certificate; lets it pass unless the connection is strict. */
int tls_on_verify(int good, X509_STORE_CTX *store);
/* What servers and clients have in common. */
int tls_ctx_common(SSL_CTX *ctx) MUST_CHECK;
/* For SSL_CTX_set_tlsext_ticket_key_evp_cb; the app data of the context is its server. */
int tls_tickets_on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                       int sealing);

/* -- sessions of clients for resumption (tls_sessions.c); thread-safe -- */
enum { TLS_SESSION_KEY = 32 };
/* At most keys_max keys, the least recently used go first. NULL: no memory. */
struct tls_sessions *tls_sessions_new(uint32_t keys_max) MUST_CHECK;
void tls_sessions_free(struct tls_sessions *s);
/* One to resume, or NULL: a new reference. Those of TLS 1.3 are given out once. */
SSL_SESSION *tls_sessions_take(struct tls_sessions *s, const uint8_t key[TLS_SESSION_KEY]) MUST_CHECK;
/* Keeps a copy, if it can. */
void tls_sessions_put(struct tls_sessions *s, const uint8_t key[TLS_SESSION_KEY], const SSL_SESSION *session);

/* -- a connection -- */
struct tls {
    SSL *ssl;
    struct buf in, out; /* sealed octets */
    struct tls_server *server;
    struct tls_client *client;
    struct tls_info *info; /* from the end of the handshake */
    int verify_err;        /* first complaint of tls_on_verify */
    bool strict;           /* complaints end the handshake */
    bool dane;             /* TLSA records that can be used decide */
    bool remembers;        /* sessions, under session_key */
    bool fingerprint_matched;
    bool done, failed, closed;
    enum tls_fault fault;
    size_t fingerprint_count;
    uint8_t (*fingerprints)[32]; /* NULL: not asked for */
    uint8_t session_key[TLS_SESSION_KEY];
    char why[160];
};
/* A connection without a side. NULL: no memory. */
struct tls *tls_conn_new(SSL_CTX *ctx, BIO_METHOD *method) MUST_CHECK;
/* It has failed, unless it had before. */
void tls_fail(struct tls *t, enum tls_fault fault, const char *why);
/* After a client's handshake: false: what was demanded is not there, and it has failed (tls_wish.c). */
bool tls_wish_judge(struct tls *t) MUST_CHECK;
/* What a complaint of the verification (X509_V_ERR_*) is. */
enum tls_fault tls_fault_of_verify(long err, bool dane);
/* NULL: no memory (tls_info.c). */
struct tls_info *tls_info_of(struct tls *t) MUST_CHECK;
/* Printable ASCII only, truncated; the rest becomes '?'. */
void tls_clean(struct span s, char *to, size_t size);

#endif
