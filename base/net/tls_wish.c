/*
 * tls_wish: what a client demands of one connection, turned into OpenSSL's terms, and judged when the handshake is
 * done. One context serves all demands: it looks at every chain, and each connection decides whether a complaint ends
 * the handshake (strict: must_verify, or DANE with a record that can be used).
 *
 * Of DANE OpenSSL does the matching; here is decided what it is given. Usages 0 and 1 are kept from it, since for mail
 * they are no more than what everybody knows already (RFC 7672 section 3.1.3), and without usable records its plain
 * verification is let pass as ever.
 */
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "base/net/tls_in.h"

enum { DIGEST = 32, USAGE_AUTHORITY = 2, USAGE_SERVER = 3 };

static bool is_address(const char *name) {
    uint8_t address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

/* -- names -- */

/* Without the root's dot. False: no host name; OpenSSL would take ".example" for all below it. */
static bool host_of(const char *name, char to[TLS_NAME_MAX + 1]) {
    struct span s = span_of(name);
    if (s.len > 1 && s.at[s.len - 1] == '.')
        s.len--;
    if (s.len == 0 || s.len > TLS_NAME_MAX || s.at[0] == '.' || span_find(s, '*') >= 0)
        return false;
    span_copy(s, to, TLS_NAME_MAX + 1);
    return true;
}

static bool set_names(struct tls *t, const struct tls_wish *w) {
    char host[TLS_NAME_MAX + 1];
    if (w->name_count == 1 && is_address(w->names[0]))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), w->names[0]) == 1;
    SSL_set_hostflags(t->ssl,
                      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | (t->dane ? 0 : X509_CHECK_FLAG_NEVER_CHECK_SUBJECT));
    for (size_t i = 0; i < w->name_count; i++) {
        /* An address beside names would have to fit as well as one of them. */
        if (!host_of(w->names[i], host) || is_address(host))
            tls_fail(t, TLS_FAULT_OTHER, "a name to verify is no host name");
        else if (SSL_add1_host(t->ssl, host) != 1)
            return false;
    }
    return true;
}

static bool set_sni(struct tls *t, const struct tls_wish *w) {
    char host[TLS_NAME_MAX + 1];
    if (!w->sni || is_address(w->sni))
        return true;
    if (host_of(w->sni, host))
        return SSL_set_tlsext_host_name(t->ssl, host) == 1;
    tls_fail(t, TLS_FAULT_OTHER, "the server's name is no host name");
    return true;
}

/* -- DANE -- */

static bool may_use(const struct tls_dane_record *r) {
    return (r->usage == USAGE_AUTHORITY || r->usage == USAGE_SERVER) && r->len > 0;
}

/* Before the names, which SSL_dane_enable resets. False: no memory. */
static bool set_dane(struct tls *t, const struct tls_wish *w) {
    bool authority = false;
    if (w->dane_count == 0)
        return true;
    if (SSL_dane_enable(t->ssl, NULL) <= 0)
        return false;
    SSL_dane_set_flags(t->ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    for (size_t i = 0; i < w->dane_count; i++) {
        const struct tls_dane_record *r = &w->dane[i];
        int added = may_use(r) ? SSL_dane_tlsa_add(t->ssl, r->usage, r->selector, r->matching, r->data, r->len) : 0;
        if (added < 0)
            return false;
        t->dane |= added > 0;
        authority |= added > 0 && r->usage == USAGE_AUTHORITY;
    }
    ERR_clear_error();
    if (authority && w->name_count == 0)
        tls_fail(t, TLS_FAULT_OTHER, "TLSA records of an authority demand a name to verify");
    return true;
}

/* -- fingerprints -- */

static int nibble(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool digest_of_text(const char *text, uint8_t to[DIGEST]) {
    size_t digits = 0;
    for (; *text; text++) {
        int n = nibble(*text);
        if (*text == ':' && digits > 0 && digits % 2 == 0)
            continue;
        if (n < 0 || digits == 2 * DIGEST)
            return false;
        to[digits / 2] = (uint8_t)(digits % 2 ? to[digits / 2] | n : n << 4);
        digits++;
    }
    return digits == 2 * DIGEST;
}

/* One that cannot be read matches nothing. */
static bool set_fingerprints(struct tls *t, const struct tls_wish *w) {
    size_t count = w->fingerprint_count < TLS_FINGERPRINTS_MAX ? w->fingerprint_count : TLS_FINGERPRINTS_MAX;
    if (count == 0)
        return true;
    t->fingerprints = calloc(count, DIGEST);
    if (!t->fingerprints)
        return false;
    for (size_t i = 0; i < count; i++)
        t->fingerprint_count += digest_of_text(w->fingerprints[i], t->fingerprints[t->fingerprint_count]);
    return true;
}

static bool is_listed(const struct tls *t, const uint8_t digest[DIGEST]) {
    for (size_t i = 0; i < t->fingerprint_count; i++) {
        if (memcmp(t->fingerprints[i], digest, DIGEST) == 0)
            return true;
    }
    return false;
}

static bool has_fingerprint(const struct tls *t, const X509 *x) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned char *key = NULL;
    if (X509_digest(x, EVP_sha256(), digest, NULL) == 1 && is_listed(t, digest))
        return true;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &key);
    bool listed =
        len > 0 && EVP_Digest(key, (size_t)len, digest, NULL, EVP_sha256(), NULL) == 1 && is_listed(t, digest);
    OPENSSL_free(key);
    return listed;
}

/* -- sessions -- */

/* Its length too, so that no two lists of parts look the same. */
static bool add_part(EVP_MD_CTX *m, const void *bytes, size_t len) {
    uint64_t size = len;
    return EVP_DigestUpdate(m, &size, sizeof size) == 1 && (len == 0 || EVP_DigestUpdate(m, bytes, len) == 1);
}

static bool add_text(EVP_MD_CTX *m, const char *text) {
    return add_part(m, text ? text : "", text ? strlen(text) + 1 : 0);
}

static bool add_wish(EVP_MD_CTX *m, const struct tls_wish *w) {
    uint64_t numbers[] = {w->must_verify, w->name_count, w->dane_count, w->fingerprint_count};
    bool good = add_part(m, numbers, sizeof numbers) && add_text(m, w->session_key) && add_text(m, w->sni);
    for (size_t i = 0; good && i < w->name_count; i++)
        good = add_text(m, w->names[i]);
    for (size_t i = 0; good && i < w->dane_count; i++) {
        const struct tls_dane_record *r = &w->dane[i];
        uint8_t kind[] = {r->usage, r->selector, r->matching};
        good = add_part(m, kind, sizeof kind) && add_part(m, r->data, r->len);
    }
    for (size_t i = 0; good && i < w->fingerprint_count; i++)
        good = add_text(m, w->fingerprints[i]);
    return good;
}

static bool set_session(struct tls *t, const struct tls_wish *w) {
    if (!w->session_key || !t->client->sessions)
        return true;
    EVP_MD_CTX *m = EVP_MD_CTX_new();
    bool good = m && EVP_DigestInit_ex(m, EVP_sha256(), NULL) == 1 && add_wish(m, w) &&
                EVP_DigestFinal_ex(m, t->session_key, NULL) == 1;
    EVP_MD_CTX_free(m);
    if (!good)
        return false;
    t->remembers = true;
    SSL_SESSION *session = tls_sessions_take(t->client->sessions, t->session_key);
    if (session)
        (void)SSL_set_session(t->ssl, session); /* without it the handshake is a whole one */
    SSL_SESSION_free(session);
    ERR_clear_error();
    return true;
}

/* -- the whole -- */

struct tls *tls_connect_with(struct tls_client *client, const struct tls_wish *w) {
    ERR_clear_error();
    struct tls *t = tls_conn_new(client->ctx, client->bio);
    if (!t)
        return NULL;
    t->client = tls_client_ref(client);
    SSL_set_connect_state(t->ssl);
    if (!set_dane(t, w) || !set_names(t, w) || !set_sni(t, w) || !set_fingerprints(t, w)) {
        tls_free(t);
        return NULL;
    }
    bool verifies = (w->must_verify || client->verify) && !t->dane;
    t->strict = t->dane || verifies;
    if (verifies)
        SSL_set_security_level(t->ssl, 2);
    if (w->must_verify && !t->dane && w->name_count == 0)
        tls_fail(t, TLS_FAULT_OTHER, "there is no name to verify");
    if (!set_session(t, w)) {
        tls_free(t);
        return NULL;
    }
    return t;
}

bool tls_wish_judge(struct tls *t) {
    X509 *x = SSL_get0_peer_certificate(t->ssl);
    long err = t->verify_err == X509_V_OK ? SSL_get_verify_result(t->ssl) : t->verify_err;
    /* A resumed session brings its verdict along. */
    if (t->strict && (!x || err != X509_V_OK)) {
        tls_fail(t, x ? tls_fault_of_verify(err, t->dane) : TLS_FAULT_TRUST,
                 x ? X509_verify_cert_error_string(err) : "the server has no certificate");
        return false;
    }
    if (!t->fingerprints)
        return true;
    t->fingerprint_matched = x && has_fingerprint(t, x);
    if (!t->fingerprint_matched)
        tls_fail(t, TLS_FAULT_TRUST, "neither certificate nor key has a fingerprint that was asked for");
    return t->fingerprint_matched;
}
