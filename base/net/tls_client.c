/*
 * tls_client: contexts of clients: delivery, LDAP-like helpers, probes. The peer's chain and name are always looked at,
 * so that logs can tell; whether a bad one ends the handshake is the context's choice. Without verification anybody may
 * be in the middle, so weak keys of the other side are let pass too: a poor lock is better than none.
 */
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "base/net/tls_in.h"

static int load_authorities(SSL_CTX *ctx, const char *file, struct buf *problems) {
    if (!file)
        return SSL_CTX_set_default_verify_paths(ctx) == 1 ? ERR_OK : ERR_NOMEM;
    struct buf text;
    struct tls_mark mark;
    buf_init(&text, TLS_FILE_MAX);
    int err = tls_file_read(file, &text, &mark, problems);
    if (!err)
        err = tls_pem_authorities(buf_span(&text), file, SSL_CTX_get_cert_store(ctx), NULL, problems);
    tls_mark_deinit(&mark);
    buf_deinit(&text);
    return err;
}

static int load_pair(SSL_CTX *ctx, const struct tls_client_config *c, struct buf *problems) {
    struct tls_pair pair = {c->certificate, c->key ? c->key : c->certificate};
    struct tls_pem p;
    if (!c->certificate)
        return ERR_OK;
    int err = tls_pem_init(&p, &pair, problems);
    if (!err && SSL_CTX_use_cert_and_key(ctx, p.leaf, p.key, p.chain, 0) != 1) {
        const char *why = ERR_reason_error_string(ERR_peek_error());
        tls_problem(problems, pair.certificate, why ? why : "cannot be used");
        err = ERR_INVALID;
    }
    tls_pem_deinit(&p);
    return err;
}

static int on_session(SSL *ssl, SSL_SESSION *session) {
    const struct tls *t = SSL_get_app_data(ssl);
    if (t->remembers && !t->failed)
        tls_sessions_put(t->client->sessions, t->session_key, session);
    return 0; /* what was put is a copy */
}

static int remember_sessions(struct tls_client *t, uint32_t keys_max) {
    t->sessions = tls_sessions_new(keys_max);
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(t->ctx, on_session);
    return t->sessions ? ERR_OK : ERR_NOMEM;
}

static int set_up(struct tls_client *t, const struct tls_client_config *c, struct buf *problems) {
    if (!t->ctx || !t->bio)
        return ERR_NOMEM;
    SSL_CTX_set_security_level(t->ctx, c->verify ? 2 : 1);
    SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, tls_on_verify);
    if (SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(t->ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(t->ctx,
                                "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:"
                                "!aNULL:!eNULL:!PSK:!SRP") != 1)
        return ERR_NOMEM;
    int err = tls_ctx_common(t->ctx);
    if (!err && SSL_CTX_dane_enable(t->ctx) != 1)
        err = ERR_NOMEM;
    if (!err && c->sessions_max)
        err = remember_sessions(t, c->sessions_max);
    if (!err)
        err = load_authorities(t->ctx, c->ca_file, problems);
    return err ? err : load_pair(t->ctx, c, problems);
}

int tls_client_new(struct tls_client **to, const struct tls_client_config *c, struct buf *problems) {
    struct tls_client *t = calloc(1, sizeof *t);
    *to = NULL;
    if (!t)
        return ERR_NOMEM;
    ERR_clear_error();
    atomic_init(&t->refs, 1);
    t->verify = c->verify;
    t->bio = tls_bio_method();
    t->ctx = SSL_CTX_new(TLS_client_method());
    int err = set_up(t, c, problems);
    ERR_clear_error();
    if (err) {
        tls_client_unref(t);
        return err;
    }
    *to = t;
    return ERR_OK;
}

struct tls_client *tls_client_ref(struct tls_client *t) {
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void tls_client_unref(struct tls_client *t) {
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    SSL_CTX_free(t->ctx);
    tls_sessions_free(t->sessions);
    BIO_meth_free(t->bio);
    free(t);
}
