/*
 * tls_conn: the engine of one connection: an SSL object between two buffers, no sockets. OpenSSL reads from `in` and
 * writes to `out` through a BIO of ours, which gives the memory back when a buffer is empty; so an idle connection
 * holds OpenSSL's objects and nothing else.
 *
 * A failure is final: it is kept with its reason, and every later call says ERR_DENIED. The error queue of OpenSSL
 * belongs to the thread, not to the connection, so it is cleared before each operation whose error is asked for.
 */
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "base/check.h"
#include "base/net/tls_in.h"

/* Sealed octets that may wait each way. */
enum { WAITING_MAX = 8 << 20, RECORD_OVERHEAD = 256, RECORD_SIZE = 16384, REASON_MAX = 128 };

/* -- the BIO -- */

static int on_bio_read(BIO *bio, char *to, size_t room, size_t *got) {
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    struct span waiting = span_first(buf_span(&t->in), room);
    *got = waiting.len;
    if (waiting.len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(to, waiting.at, waiting.len);
    buf_consume(&t->in, waiting.len);
    return 1;
}

static int on_bio_write(BIO *bio, const char *bytes, size_t len, size_t *put) {
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *put = len;
    return buf_append(&t->out, bytes, len) == ERR_OK;
}

static long on_bio_ctrl(BIO *bio, int command, long number, void *arg) {
    (void)bio;
    (void)number;
    (void)arg;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_bio_method(void) {
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "buffers");
    if (m)
        (void)(BIO_meth_set_read_ex(m, on_bio_read) && BIO_meth_set_write_ex(m, on_bio_write) &&
               BIO_meth_set_ctrl(m, on_bio_ctrl));
    return m;
}

/* -- making -- */

struct tls *tls_conn_new(SSL_CTX *ctx, BIO_METHOD *method) {
    struct tls *t = calloc(1, sizeof *t);
    BIO *bio = BIO_new(method);
    if (t)
        t->ssl = SSL_new(ctx);
    if (!t || !bio || !t->ssl) {
        if (t)
            SSL_free(t->ssl);
        BIO_free(bio);
        free(t);
        return NULL;
    }
    buf_init(&t->in, WAITING_MAX);
    buf_init(&t->out, WAITING_MAX);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    return t;
}

struct tls *tls_accept(struct tls_server *server) {
    ERR_clear_error();
    struct tls *t = tls_conn_new(server->idents[0].ctx, server->bio);
    if (!t)
        return NULL;
    t->server = tls_server_ref(server);
    SSL_set_accept_state(t->ssl);
    return t;
}

/* The name for SNI (a host only, without the root's dot) and for verification. */
static bool set_name(struct tls *t, const char *name) {
    char host[TLS_NAME_MAX + 1];
    uint8_t address[16];
    size_t len = strlen(name);
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name) == 1;
    if (len > 1 && name[len - 1] == '.')
        len--;
    if (len == 0 || len > TLS_NAME_MAX) {
        tls_fail(t, TLS_FAULT_OTHER, "the server's name is empty or too long");
        return true;
    }
    span_copy(span_make(name, len), host, sizeof host);
    SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(t->ssl, host) == 1 && SSL_set1_host(t->ssl, host) == 1;
}

struct tls *tls_connect(struct tls_client *client, const char *name) {
    ERR_clear_error();
    struct tls *t = tls_conn_new(client->ctx, client->bio);
    if (!t)
        return NULL;
    t->client = tls_client_ref(client);
    t->strict = client->verify;
    SSL_set_connect_state(t->ssl);
    if (name && !set_name(t, name)) {
        tls_free(t);
        return NULL;
    }
    return t;
}

void tls_free(struct tls *t) {
    if (!t)
        return;
    SSL_free(t->ssl);
    buf_deinit(&t->in);
    buf_deinit(&t->out);
    tls_server_unref(t->server);
    tls_client_unref(t->client);
    free(t->info);
    free(t->fingerprints);
    free(t);
}

/* -- failure -- */

void tls_fail(struct tls *t, enum tls_fault fault, const char *why) {
    if (t->failed)
        return;
    t->failed = true;
    t->fault = fault;
    tls_clean(span_of(why), t->why, sizeof t->why);
}

int tls_on_verify(int good, X509_STORE_CTX *store) {
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);
    if (!good && t->verify_err == X509_V_OK)
        t->verify_err = X509_STORE_CTX_get_error(store);
    return good || !t->client || !t->strict;
}

static bool is_verify_failure(unsigned long err) {
    return ERR_GET_LIB(err) == ERR_LIB_SSL && ERR_GET_REASON(err) == SSL_R_CERTIFICATE_VERIFY_FAILED;
}

static int deny(struct tls *t) {
    char text[REASON_MAX];
    enum tls_fault fault = TLS_FAULT_OTHER;
    unsigned long err = ERR_peek_error();
    const char *reason = err ? ERR_reason_error_string(err) : NULL;
    if (is_verify_failure(ERR_peek_last_error())) { /* a signature that did not fit may stand before it */
        snprintf(text, sizeof text, "certificate verify failed: %s", X509_verify_cert_error_string(t->verify_err));
        reason = text;
        fault = tls_fault_of_verify(t->verify_err, t->dane);
    } else if (!reason) {
        snprintf(text, sizeof text, "error %lx", err);
        reason = err ? text : "the stream is broken";
    }
    tls_fail(t, fault, reason);
    ERR_clear_error();
    return ERR_DENIED;
}

void tls_cut(struct tls *t) {
    tls_fail(t, TLS_FAULT_OTHER, t->done ? "the connection ended" : "the connection ended during the handshake");
}

/* What a call of OpenSSL that did not succeed means. */
static int err_of(struct tls *t, int result) {
    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return ERR_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        t->closed = true;
        return ERR_CLOSED;
    default:
        return deny(t);
    }
}

static void give_back(struct buf *b) {
    if (buf_len(b) == 0)
        buf_deinit(b);
}

/* -- the stream -- */

int tls_put(struct tls *t, struct span octets) {
    return buf_add(&t->in, octets);
}

int tls_handshake(struct tls *t) {
    if (t->failed)
        return ERR_DENIED;
    if (t->done)
        return ERR_OK;
    ERR_clear_error();
    int result = SSL_do_handshake(t->ssl);
    int err = result == 1 ? ERR_OK : err_of(t, result);
    give_back(&t->in);
    if (err == ERR_CLOSED) { /* close_notify instead of a handshake */
        tls_cut(t);
        return ERR_DENIED;
    }
    if (err)
        return err;
    if (t->client && !tls_wish_judge(t))
        return ERR_DENIED;
    t->info = tls_info_of(t);
    if (!t->info)
        return ERR_NOMEM;
    t->done = true;
    return ERR_OK;
}

int tls_read(struct tls *t, struct buf *to, size_t room) {
    CHECK(t->done && room > 0);
    if (t->failed)
        return ERR_DENIED;
    if (t->closed)
        return ERR_CLOSED;
    char *at = buf_reserve(to, room);
    size_t got = 0;
    if (!at)
        return to->err;
    ERR_clear_error();
    int result = SSL_read_ex(t->ssl, at, room, &got);
    buf_commit(to, got);
    int err = result == 1 ? ERR_OK : err_of(t, result);
    give_back(&t->in);
    return err;
}

int tls_write(struct tls *t, struct span octets) {
    size_t put = 0, records = octets.len / RECORD_SIZE + 1;
    CHECK(t->done);
    if (t->failed)
        return ERR_DENIED;
    if (octets.len == 0)
        return ERR_OK;
    if (octets.len > WAITING_MAX || octets.len + records * RECORD_OVERHEAD > WAITING_MAX - buf_len(&t->out))
        return ERR_FULL;
    ERR_clear_error();
    if (SSL_write_ex(t->ssl, octets.at, octets.len, &put) == 1)
        return ERR_OK;
    int err = t->out.err;
    (void)deny(t);
    return err == ERR_NOMEM ? ERR_NOMEM : ERR_DENIED;
}

void tls_end(struct tls *t) {
    if (!t->done || t->failed)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
}

struct span tls_out(struct tls *t) {
    return buf_span(&t->out);
}

void tls_out_taken(struct tls *t, size_t len) {
    buf_consume(&t->out, len);
    give_back(&t->out);
}

/* -- asking -- */

const struct tls_info *tls_info(const struct tls *t) {
    return t->info;
}

const char *tls_why(const struct tls *t) {
    return t->why;
}

enum tls_fault tls_fault_of(const struct tls *t) {
    return t->failed || !t->info ? t->fault : t->info->fault;
}

/* The first Finished message of the handshake: the client's, or the server's when the session was resumed. */
static size_t first_finished(struct tls *t, uint8_t to[64]) {
    bool of_client = !SSL_session_reused(t->ssl);
    bool ours = of_client == !SSL_is_server(t->ssl);
    return ours ? SSL_get_finished(t->ssl, to, 64) : SSL_get_peer_finished(t->ssl, to, 64);
}

bool tls_binding(struct tls *t, const char **type, uint8_t to[64], size_t *len) {
    static const char label[] = "EXPORTER-Channel-Binding";
    if (!t->done || t->failed)
        return false;
    ERR_clear_error();
    if (SSL_version(t->ssl) == TLS1_3_VERSION) {
        *type = "tls-exporter";
        *len = 32;
        return SSL_export_keying_material(t->ssl, to, 32, label, sizeof label - 1, NULL, 0, 1) == 1;
    }
    /* Without the extended master secret a man in the middle can make two sessions with the same Finished. */
    if (SSL_get_extms_support(t->ssl) != 1)
        return false;
    *type = "tls-unique";
    *len = first_finished(t, to);
    return *len > 0 && *len <= 64;
}
