/*
 * tls: contexts of servers: which versions and ciphers, which certificate for which name, tickets, client certificates.
 * A server context is one SSL_CTX per set of names, all set up alike; a connection begins with the first one and is
 * moved to another by the name that the client asks for. Pairs with the same names and different kinds of keys share
 * one, and the client's offer decides between them.
 *
 * Nothing in a context changes after it was made, so every thread may use it. Sessions are resumed by tickets only;
 * what is remembered in a ticket (the client's certificate and that it was good) counts only where the same
 * authorities are asked: they are part of the session id context.
 */
#include <ctype.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/net/secret.h"
#include "base/net/tls_in.h"

enum { SESSION_S = 7200, PAIRS_MAX = 10000, NAMES_MAX = 1000, SCOPE_LEN = 32 };

static const char ciphers_intermediate[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char ciphers_old[] = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES:"
                                  "!aNULL:!eNULL:!MD5:!DSS:!PSK:!SRP:@SECLEVEL=0";

struct profile {
    const char *name;
    int version_min, level;
    const char *ciphers; /* of 1.2 and before */
};
static const struct profile profiles[] = {
    {"intermediate", TLS1_2_VERSION, 2, ciphers_intermediate},
    {"modern", TLS1_3_VERSION, 2, ciphers_intermediate},
    {"old", TLS1_VERSION, 0, ciphers_old},
};

static const struct profile *profile_of(const char *name) {
    if (!name)
        return &profiles[0];
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        if (strcmp(profiles[i].name, name) == 0)
            return &profiles[i];
    }
    return NULL;
}

int tls_ctx_common(SSL_CTX *ctx) {
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1 ? ERR_OK : ERR_NOMEM;
}

/* -- which certificate -- */

/* "mx.example.net" fits "*.example.net"; "a.mx.example.net" and "example.net" do not. */
static bool name_fits(const char *pattern, struct span host, bool wild) {
    if (!wild)
        return span_eq_nocase(span_of(pattern), host);
    ptrdiff_t dot = span_find(host, '.');
    return pattern[0] == '*' && dot > 0 && span_eq_nocase(span_of(pattern + 1), span_from(host, (size_t)dot));
}

static const struct tls_ident *ident_for(const struct tls_server *t, struct span host) {
    for (int wild = 0; wild < 2; wild++) {
        for (size_t i = 0; i < t->count; i++) {
            for (size_t n = 0; n < t->idents[i].count; n++) {
                if (name_fits(t->idents[i].names[n], host, wild == 1))
                    return &t->idents[i];
            }
        }
    }
    return NULL;
}

static int on_servername(SSL *ssl, int *alert, void *arg) {
    const struct tls_server *t = arg;
    struct span host = span_of(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    (void)alert;
    if (host.len > 1 && host.at[host.len - 1] == '.')
        host.len--;
    const struct tls_ident *ident = host.len ? ident_for(t, host) : NULL;
    if (ident && ident->ctx != SSL_get_SSL_CTX(ssl))
        (void)SSL_set_SSL_CTX(ssl, ident->ctx); /* for want of memory the first certificate stays */
    return host.len ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* -- making -- */

/* What is shared by all pairs while a server is made. */
struct making {
    const struct tls_server_config *config;
    const struct profile *profile;
    X509_STORE *store;
    STACK_OF(X509_NAME) * authorities;
    uint8_t scope[SCOPE_LEN];
    struct buf *problems;
};

static int read_client_ca(struct tls_server *t, struct making *m) {
    struct buf text;
    buf_init(&text, TLS_FILE_MAX + 64);
    buf_add_str(&text, m->config->ask_client ? "posthouse ask\n" : "posthouse\n");
    size_t head = buf_len(&text);
    int err = text.err;
    if (!err && m->config->client_ca) {
        err = tls_file_read(m->config->client_ca, &text, &t->marks[t->mark_count++], m->problems);
        if (!err)
            err = tls_pem_authorities(span_from(buf_span(&text), head), m->config->client_ca, m->store, m->authorities,
                                      m->problems);
    }
    if (!err)
        secret_sha256(buf_span(&text), m->scope);
    buf_deinit(&text);
    return err;
}

static int set_tickets(SSL_CTX *ctx, struct tls_tickets *tickets) {
    if (!tickets) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        return SSL_CTX_set_num_tickets(ctx, 0) == 1 ? ERR_OK : ERR_NOMEM;
    }
    SSL_CTX_set_timeout(ctx, SESSION_S);
    if (SSL_CTX_set_num_tickets(ctx, 1) != 1 || SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tls_tickets_on_key) != 1)
        return ERR_NOMEM;
    return ERR_OK;
}

static int set_clients(SSL_CTX *ctx, const struct making *m) {
    if (SSL_CTX_set1_cert_store(ctx, m->store), !m->config->ask_client)
        return ERR_OK;
    STACK_OF(X509_NAME) *names = sk_X509_NAME_deep_copy(m->authorities, X509_NAME_dup, X509_NAME_free);
    if (!names)
        return ERR_NOMEM;
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, tls_on_verify);
    return ERR_OK;
}

static SSL_CTX *make_ctx(struct tls_server *t, const struct making *m) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return NULL;
    SSL_CTX_set_security_level(ctx, m->profile->level);
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_app_data(ctx, t);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_servername);
    SSL_CTX_set_tlsext_servername_arg(ctx, t);
    SSL_CTX_set_dh_auto(ctx, 1);
    bool good = SSL_CTX_set_min_proto_version(ctx, m->profile->version_min) == 1 &&
                SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                SSL_CTX_set_cipher_list(ctx, m->profile->ciphers) == 1 &&
                SSL_CTX_set_session_id_context(ctx, m->scope, SCOPE_LEN) == 1 && tls_ctx_common(ctx) == ERR_OK &&
                set_tickets(ctx, t->tickets) == ERR_OK && set_clients(ctx, m) == ERR_OK;
    if (good)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

static unsigned kind_of(const EVP_PKEY *key) {
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
        return 1;
    case EVP_PKEY_EC:
        return 2;
    default:
        return 4;
    }
}

static void free_names(struct tls_ident *ident) {
    for (size_t i = 0; i < ident->count; i++)
        free(ident->names[i]);
    free(ident->names);
}

/* The host names of a certificate; one with a NUL inside is a trick, and none. */
static int names_of(X509 *x, struct tls_ident *to) {
    GENERAL_NAMES *all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    int count = sk_GENERAL_NAME_num(all), err = ERR_OK;
    if (count > NAMES_MAX)
        count = NAMES_MAX;
    to->names = count > 0 ? calloc((size_t)count, sizeof *to->names) : NULL;
    if (count > 0 && !to->names)
        err = ERR_NOMEM;
    for (int i = 0; i < count && !err; i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(all, i);
        if (n->type != GEN_DNS)
            continue;
        struct span s = span_make(ASN1_STRING_get0_data(n->d.ia5), (size_t)ASN1_STRING_length(n->d.ia5));
        if (s.len == 0 || s.len > TLS_NAME_MAX || span_find(s, '\0') >= 0)
            continue;
        char *name = strndup(s.at, s.len);
        if (!name)
            err = ERR_NOMEM;
        else
            to->names[to->count++] = name;
    }
    GENERAL_NAMES_free(all);
    return err;
}

static bool same_names(const struct tls_ident *a, const struct tls_ident *b) {
    if (a->count != b->count || a->count == 0)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (!span_eq_nocase(span_of(a->names[i]), span_of(b->names[i])))
            return false;
    }
    return true;
}

/* One that has these names already and lacks this kind of key; or a new one. NULL: no memory. */
static struct tls_ident *place_for(struct tls_server *t, struct tls_ident *wanted, const struct making *m) {
    for (size_t i = 0; i < t->count; i++) {
        if (same_names(&t->idents[i], wanted) && !(t->idents[i].kinds & wanted->kinds)) {
            t->idents[i].kinds |= wanted->kinds;
            free_names(wanted);
            return &t->idents[i];
        }
    }
    wanted->ctx = make_ctx(t, m);
    if (!wanted->ctx) {
        free_names(wanted);
        return NULL;
    }
    t->idents[t->count] = *wanted;
    return &t->idents[t->count++];
}

static int add_pem(struct tls_server *t, const struct making *m, const struct tls_pem *p, const char *path) {
    struct tls_ident wanted = {.kinds = kind_of(p->key)};
    int err = names_of(p->leaf, &wanted);
    if (err) {
        free_names(&wanted);
        return err;
    }
    struct tls_ident *ident = place_for(t, &wanted, m);
    if (!ident)
        return ERR_NOMEM;
    ERR_clear_error();
    if (SSL_CTX_use_cert_and_key(ident->ctx, p->leaf, p->key, p->chain, 0) != 1) {
        const char *why = ERR_reason_error_string(ERR_peek_error());
        tls_problem(m->problems, path, why ? why : "cannot be used");
        ERR_clear_error();
        return ERR_INVALID;
    }
    int64_t ends = tls_pem_not_after(p->leaf);
    if (t->not_after == 0 || ends < t->not_after)
        t->not_after = ends;
    return ERR_OK;
}

static int add_pair(struct tls_server *t, const struct making *m, const struct tls_pair *pair) {
    struct tls_pem p;
    int err = tls_pem_init(&p, pair, m->problems);
    if (!err)
        err = add_pem(t, m, &p, pair->certificate);
    for (int i = 0; i < 2; i++) {
        if (p.marks[i].path)
            t->marks[t->mark_count++] = p.marks[i];
        p.marks[i].path = NULL;
    }
    tls_pem_deinit(&p);
    return err;
}

/* Every pair is looked at, so that all that is wrong is named at once. */
static int make(struct tls_server *t, struct making *m) {
    if (!t->bio || !t->idents || !t->marks || !m->store || !m->authorities)
        return ERR_NOMEM;
    int first = read_client_ca(t, m);
    for (size_t i = 0; i < m->config->count; i++) {
        int err = add_pair(t, m, &m->config->pairs[i]);
        if (!first)
            first = err;
    }
    return first;
}

int tls_server_new(struct tls_server **to, const struct tls_server_config *c, struct buf *problems) {
    struct making m = {.config = c, .profile = profile_of(c->profile), .problems = problems};
    CHECK(c->count >= 1);
    *to = NULL;
    if (!m.profile || c->count > PAIRS_MAX) {
        buf_add_str(problems, m.profile ? "too many certificates\n" : "no such profile: modern, intermediate, old\n");
        return ERR_INVALID;
    }
    struct tls_server *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    atomic_init(&t->refs, 1);
    t->bio = tls_bio_method();
    t->tickets = c->tickets ? tls_tickets_ref(c->tickets) : NULL;
    t->idents = calloc(c->count, sizeof *t->idents);
    t->marks = calloc(2 * c->count + 1, sizeof *t->marks);
    m.store = X509_STORE_new();
    m.authorities = sk_X509_NAME_new_null();
    int err = make(t, &m);
    sk_X509_NAME_pop_free(m.authorities, X509_NAME_free);
    X509_STORE_free(m.store);
    ERR_clear_error();
    if (err) {
        tls_server_unref(t);
        return err;
    }
    *to = t;
    return ERR_OK;
}

struct tls_server *tls_server_ref(struct tls_server *t) {
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void tls_server_unref(struct tls_server *t) {
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    for (size_t i = 0; i < t->count; i++) {
        SSL_CTX_free(t->idents[i].ctx);
        free_names(&t->idents[i]);
    }
    for (size_t i = 0; i < t->mark_count; i++)
        tls_mark_deinit(&t->marks[i]);
    BIO_meth_free(t->bio);
    tls_tickets_unref(t->tickets);
    free(t->idents);
    free(t->marks);
    free(t);
}

bool tls_server_is_stale(const struct tls_server *t) {
    for (size_t i = 0; i < t->mark_count; i++) {
        if (tls_mark_is_stale(&t->marks[i]))
            return true;
    }
    return false;
}

int64_t tls_server_not_after(const struct tls_server *t) {
    return t->not_after;
}
