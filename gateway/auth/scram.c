/*
 * scram: see scram.h. The library gets the verifier and the binding as properties before the first step, so that it
 * never calls back. Messages with a NUL never reach it, since it keeps some of them as C strings.
 */
#include "gateway/auth/scram.h"

#include <gsasl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/net/secret.h"
#include "base/rand.h"

struct scram_context {
    Gsasl *gsasl;
};
struct scram {
    Gsasl_session *session;
};

int scram_context_new(struct scram_context **out) {
    struct scram_context *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    int rc = gsasl_init(&c->gsasl);
    if (rc == GSASL_OK && gsasl_server_support_p(c->gsasl, "SCRAM-SHA-256") &&
        gsasl_server_support_p(c->gsasl, "SCRAM-SHA-256-PLUS")) {
        *out = c;
        return ERR_OK;
    }
    scram_context_free(c);
    return rc == GSASL_OK ? ERR_UNSUPPORTED : ERR_NOMEM;
}

void scram_context_free(struct scram_context *c) {
    if (c && c->gsasl)
        gsasl_done(c->gsasl);
    free(c);
}

static void to_base64(const void *octets, size_t len, char *to, size_t size) {
    struct buf b;
    buf_init(&b, 512);
    base64_encode(span_make(octets, len), &b);
    span_copy(buf_span(&b), to, size);
    buf_deinit(&b);
}

void scram_fake(struct verifier *v, struct span secret, struct span account, uint32_t iterations, size_t salt_len) {
    uint8_t salt[64], keys[64];
    secret_hmac_sha256(secret, account, salt);
    secret_hmac_sha256(secret, span_make(salt, 32), salt + 32);
    rand_secure(keys, sizeof keys);
    v->iterations = iterations;
    to_base64(salt, salt_len < sizeof salt ? salt_len : sizeof salt, v->salt, sizeof v->salt);
    to_base64(keys, 32, v->stored, sizeof v->stored);
    to_base64(keys + 32, 32, v->server, sizeof v->server);
}

static int set(struct scram *s, Gsasl_property property, const char *text) {
    return gsasl_property_set(s->session, property, text) == GSASL_OK ? ERR_OK : ERR_NOMEM;
}

static int set_binding(struct scram *s, const char *type, struct span octets) {
    char text[128];
    if (!type)
        return ERR_OK;
    to_base64(octets.at, octets.len, text, sizeof text);
    if (strcmp(type, "tls-exporter") == 0)
        return set(s, GSASL_CB_TLS_EXPORTER, text);
    return strcmp(type, "tls-unique") == 0 ? set(s, GSASL_CB_TLS_UNIQUE, text) : ERR_UNSUPPORTED;
}

int scram_new(struct scram **out, struct scram_context *c, bool plus, const struct verifier *v,
              const char *binding_type, struct span binding) {
    struct scram *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    char iterations[16];
    snprintf(iterations, sizeof iterations, "%u", v->iterations);
    int err = ERR_NOMEM;
    if (gsasl_server_start(c->gsasl, plus ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256", &s->session) == GSASL_OK) {
        err = set(s, GSASL_SCRAM_ITER, iterations);
        err = err ? err : set(s, GSASL_SCRAM_SALT, v->salt);
        err = err ? err : set(s, GSASL_SCRAM_STOREDKEY, v->stored);
        err = err ? err : set(s, GSASL_SCRAM_SERVERKEY, v->server);
        err = err ? err : set_binding(s, binding_type, binding);
    } else {
        s->session = NULL;
    }
    if (err)
        scram_free(s);
    else
        *out = s;
    return err;
}

void scram_free(struct scram *s) {
    if (s && s->session)
        gsasl_finish(s->session);
    free(s);
}

int scram_step(struct scram *s, struct span in, struct buf *out) {
    char *text = NULL;
    size_t len = 0;
    if (in.len == 0 || span_find(in, '\0') >= 0)
        return ERR_INVALID;
    int rc = gsasl_step(s->session, in.at, in.len, &text, &len);
    int err = ERR_DENIED;
    if (rc == GSASL_OK || rc == GSASL_NEEDS_MORE) {
        err = buf_append(out, text, len);
        err = err ? err : rc == GSASL_OK ? ERR_OK : ERR_AGAIN;
    } else if (rc == GSASL_MECHANISM_PARSE_ERROR || rc == GSASL_BASE64_ERROR) {
        err = ERR_INVALID;
    } else if (rc == GSASL_MALLOC_ERROR) {
        err = ERR_NOMEM;
    }
    if (text)
        gsasl_free(text);
    return err;
}
