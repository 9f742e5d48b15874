/*
 * tls_info: what is worth knowing of a connection after its handshake, as plain text for logs, trace headers and
 * policy. Everything that the peer chose (names, subjects) is cleaned to printable ASCII here, once, so that no reader
 * has to think of it again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/net/tls_in.h"

void tls_clean(struct span s, char *to, size_t size) {
    size_t len = s.len < size ? s.len : size - 1;
    for (size_t i = 0; i < len; i++)
        to[i] = s.at[i] >= 0x20 && s.at[i] < 0x7f ? s.at[i] : '?';
    to[len] = '\0';
}

static void name_text(const X509_NAME *name, char *to, size_t size) {
    char *bytes = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio)
        return;
    if (X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        long len = BIO_get_mem_data(bio, &bytes);
        tls_clean(span_make(bytes, len > 0 ? (size_t)len : 0), to, size);
    }
    BIO_free(bio);
}

/* An address with a NUL inside is a trick, and none. */
static void email_of(X509 *x, char *to, size_t size) {
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type != GEN_EMAIL)
            continue;
        struct span s = span_make(ASN1_STRING_get0_data(n->d.ia5), (size_t)ASN1_STRING_length(n->d.ia5));
        if (s.len >= size || span_find(s, '\0') >= 0)
            continue;
        tls_clean(s, to, size);
        break;
    }
    GENERAL_NAMES_free(names);
}

static void fingerprint_of(const X509 *x, char to[65]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (X509_digest(x, EVP_sha256(), digest, &len) != 1)
        return;
    for (unsigned i = 0; i < len && i < 32; i++)
        snprintf(to + 2 * i, 3, "%02x", digest[i]);
}

enum tls_fault tls_fault_of_verify(long err, bool dane) {
    switch (err) {
    case X509_V_OK:
        return TLS_FAULT_NONE;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return TLS_FAULT_NAME;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return TLS_FAULT_EXPIRED;
    default: /* that no chain was found says of DANE that no record fits */
        return dane || err == X509_V_ERR_DANE_NO_MATCH ? TLS_FAULT_DANE : TLS_FAULT_TRUST;
    }
}

static void verdict_of(const struct tls *t, struct tls_info *info) {
    /* The result is part of a resumed session; verify_err holds what was let pass just now. */
    long err = t->verify_err == X509_V_OK ? SSL_get_verify_result(t->ssl) : t->verify_err;
    info->peer_verified = err == X509_V_OK;
    info->dane_matched = t->dane && info->peer_verified;
    info->fingerprint_matched = t->fingerprint_matched;
    info->fault = tls_fault_of_verify(err, t->dane);
    if (err != X509_V_OK)
        tls_clean(span_of(X509_verify_cert_error_string(err)), info->verify_error, sizeof info->verify_error);
}

static void peer_of(struct tls *t, X509 *x, struct tls_info *info) {
    info->has_peer = true;
    verdict_of(t, info);
    name_text(X509_get_subject_name(x), info->peer_subject, sizeof info->peer_subject);
    name_text(X509_get_issuer_name(x), info->peer_issuer, sizeof info->peer_issuer);
    fingerprint_of(x, info->peer_fingerprint);
    if (info->peer_verified)
        email_of(x, info->peer_email, sizeof info->peer_email);
}

struct tls_info *tls_info_of(struct tls *t) {
    struct tls_info *info = calloc(1, sizeof *info);
    if (!info)
        return NULL;
    int bits = SSL_get_cipher_bits(t->ssl, NULL);
    tls_clean(span_of(SSL_get_version(t->ssl)), info->version, sizeof info->version);
    tls_clean(span_of(SSL_get_cipher_name(t->ssl)), info->cipher, sizeof info->cipher);
    tls_clean(span_of(SSL_CIPHER_standard_name(SSL_get_current_cipher(t->ssl))), info->suite, sizeof info->suite);
    info->bits = bits > 0 ? (uint32_t)bits : 0;
    info->resumed = SSL_session_reused(t->ssl) == 1;
    tls_clean(span_of(SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name)), info->sni, sizeof info->sni);
    X509 *x = SSL_get0_peer_certificate(t->ssl);
    if (x)
        peer_of(t, x, info);
    return info;
}
