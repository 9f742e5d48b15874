/* tls_client: what a connection may demand of its server, against OpenSSL as the server: DANE, names, fingerprints,
 * sessions, and what is said of the fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/net/tls.h"

#include "tests/unit/base/net/tls_certs.h"

/* What a server shows. */
struct site {
    X509 *leaf, *above[2]; /* above: the rest of the chain */
    EVP_PKEY *key;
};
static struct authority good, middle, other;
static struct site fine, wild, expired, early, self, named_by_cn, strange, deep, weak;
static struct tls_client *client;
static struct buf problems;

struct outcome {
    int err;
    enum tls_fault fault;
    struct tls_info info; /* zero when it failed */
    char why[160], sni[256];
    bool server_resumed;
};

/* -- the server -- */

static SSL_CTX *ctx_of(const struct site *s, int version) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_security_level(ctx, 1);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_use_certificate(ctx, s->leaf), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, s->key), 1);
    for (int i = 0; i < 2 && s->above[i]; i++)
        assert_int_equal(SSL_CTX_add1_chain_cert(ctx, s->above[i]), 1);
    return ctx;
}

static SSL *server_of(SSL_CTX *ctx) {
    SSL *ssl = SSL_new(ctx);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    SSL_set_accept_state(ssl);
    return ssl;
}

static bool to_server(struct tls *t, SSL *ssl) {
    struct span out = tls_out(t);
    if (out.len == 0)
        return false;
    assert_int_equal(BIO_write(SSL_get_rbio(ssl), out.at, (int)out.len), (int)out.len);
    tls_out_taken(t, out.len);
    return true;
}

static bool to_client(struct tls *t, SSL *ssl) {
    char bytes[4096];
    int got = BIO_read(SSL_get_wbio(ssl), bytes, sizeof bytes);
    if (got <= 0)
        return false;
    assert_int_equal(tls_put(t, span_make(bytes, (size_t)got)), ERR_OK);
    return true;
}

/* One connection with a server that serves several; takes what comes behind the handshake, such as tickets. */
static struct outcome meet_by(struct tls_client *c, SSL_CTX *ctx, const struct tls_wish *w) {
    struct outcome o = {.err = ERR_AGAIN};
    struct buf in;
    buf_init(&in, 64);
    SSL *ssl = server_of(ctx);
    struct tls *t = tls_connect_with(c, w);
    assert_non_null(t);
    for (bool moved = true; moved;) {
        ERR_clear_error();
        o.err = tls_handshake(t);
        moved = to_server(t, ssl);
        SSL_do_handshake(ssl);
        moved |= to_client(t, ssl);
    }
    o.err = tls_handshake(t);
    span_copy(span_of(tls_why(t)), o.why, sizeof o.why);
    if (!o.err) {
        o.info = *tls_info(t);
        assert_int_equal(o.info.fault != TLS_FAULT_NONE, o.info.verify_error[0] != '\0');
        assert_int_equal(tls_read(t, &in, 64), ERR_AGAIN);
        o.server_resumed = SSL_session_reused(ssl);
    } else {
        assert_int_equal(o.err, ERR_DENIED);
        assert_string_not_equal(o.why, "");
    }
    o.fault = tls_fault_of(t);
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    span_copy(span_of(sni ? sni : ""), o.sni, sizeof o.sni);
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    tls_free(t);
    buf_deinit(&in);
    return o;
}

static struct outcome meet_version(const struct site *s, const struct tls_wish *w, int version) {
    SSL_CTX *ctx = ctx_of(s, version);
    struct outcome o = meet_by(client, ctx, w);
    SSL_CTX_free(ctx);
    return o;
}

static struct outcome meet(const struct site *s, const struct tls_wish *w) {
    struct outcome old = meet_version(s, w, TLS1_2_VERSION), o = meet_version(s, w, TLS1_3_VERSION);
    assert_int_equal(o.err, old.err);
    assert_int_equal(o.fault, old.fault);
    return o;
}

/* -- records -- */

struct record_bytes {
    uint8_t bytes[4096];
    struct tls_dane_record record;
};

static void record_of(struct record_bytes *r, const X509 *x, uint8_t usage, uint8_t selector, uint8_t matching) {
    unsigned char *der = NULL;
    unsigned len = 0;
    int got = selector == 0 ? i2d_X509(x, &der) : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
    assert_true(got > 0 && (size_t)got <= sizeof r->bytes);
    if (matching == 0) {
        memcpy(r->bytes, der, (size_t)got);
        len = (unsigned)got;
    } else {
        EVP_Digest(der, (size_t)got, r->bytes, &len, matching == 1 ? EVP_sha256() : EVP_sha512(), NULL);
    }
    OPENSSL_free(der);
    r->record = (struct tls_dane_record){usage, selector, matching, r->bytes, len};
}

static const char *const mx_name[] = {"mx.example"}, *const both_names[] = {"elsewhere.example", "MX.example."};

static struct tls_wish dane_wish(const struct tls_dane_record *r, size_t count) {
    return (struct tls_wish){.sni = "mx.example", .names = mx_name, .name_count = 1, .dane = r, .dane_count = count};
}

/* The server at `site`, when the one record is that of x. */
static struct outcome meet_record(const struct site *site, const X509 *x, uint8_t usage, uint8_t selector,
                                  uint8_t matching) {
    struct record_bytes r;
    record_of(&r, x, usage, selector, matching);
    struct tls_wish w = dane_wish(&r.record, 1);
    return meet(site, &w);
}

static void every_kind_of_record_matches_its_own_only(void **state) {
    (void)state;
    for (uint8_t usage = 2; usage <= 3; usage++) {
        for (uint8_t selector = 0; selector <= 1; selector++) {
            for (uint8_t matching = 0; matching <= 2; matching++) {
                struct outcome o = meet_record(&fine, usage == 3 ? fine.leaf : good.x, usage, selector, matching);
                assert_int_equal(o.err, ERR_OK);
                assert_true(o.info.dane_matched && o.info.peer_verified);
                assert_int_equal(o.fault, TLS_FAULT_NONE);
                assert_string_equal(o.sni, "mx.example");
                o = meet_record(&fine, usage == 3 ? wild.leaf : other.x, usage, selector, matching);
                assert_int_equal(o.err, ERR_DENIED);
                assert_int_equal(o.fault, TLS_FAULT_DANE);
                assert_non_null(strstr(o.why, "certificate verify failed"));
            }
        }
    }
}

static void a_record_of_the_server_needs_neither_name_nor_date_nor_authority(void **state) {
    (void)state;
    const struct site *sites[] = {&expired, &early, &self, &strange, &wild, &named_by_cn, &weak};
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        struct outcome o = meet_record(sites[i], sites[i]->leaf, 3, 1, 1);
        assert_int_equal(o.err, ERR_OK);
        assert_true(o.info.dane_matched);
    }
}

static void a_record_of_an_authority_needs_name_and_date(void **state) {
    (void)state;
    assert_int_equal(meet_record(&expired, good.x, 2, 0, 1).fault, TLS_FAULT_EXPIRED);
    assert_int_equal(meet_record(&early, good.x, 2, 0, 1).fault, TLS_FAULT_EXPIRED);
    assert_int_equal(meet_record(&wild, good.x, 2, 0, 1).fault, TLS_FAULT_NAME); /* of *.other.example */
    assert_int_equal(meet_record(&self, good.x, 2, 0, 1).fault, TLS_FAULT_DANE);
    assert_int_equal(meet_record(&strange, other.x, 2, 1, 2).err, ERR_OK); /* one that we do not know otherwise */
    assert_int_equal(meet_record(&named_by_cn, good.x, 2, 0, 1).err, ERR_OK);
    /* in the middle of the chain, and at its end */
    assert_int_equal(meet_record(&deep, middle.x, 2, 1, 1).err, ERR_OK);
    assert_int_equal(meet_record(&deep, middle.x, 2, 0, 0).err, ERR_OK);
    assert_int_equal(meet_record(&deep, good.x, 2, 0, 1).err, ERR_OK);
    assert_int_equal(meet_record(&deep, other.x, 2, 0, 1).fault, TLS_FAULT_DANE);
    struct record_bytes r;
    record_of(&r, good.x, 2, 0, 1);
    struct tls_wish w = dane_wish(&r.record, 1);
    w.names = both_names;
    assert_int_equal(meet(&fine, &w).fault, TLS_FAULT_NAME);
    w.name_count = 2;
    assert_int_equal(meet(&fine, &w).err, ERR_OK);
    w.name_count = 0;
    assert_int_equal(meet(&fine, &w).fault, TLS_FAULT_OTHER);
}

static void one_of_several_records_is_enough(void **state) {
    (void)state;
    struct record_bytes bad, right, pkix;
    record_of(&bad, wild.leaf, 3, 1, 1);
    record_of(&right, fine.leaf, 3, 1, 1);
    record_of(&pkix, fine.leaf, 1, 1, 1);
    struct tls_dane_record rows[] = {bad.record, right.record};
    struct tls_wish w = dane_wish(rows, 2);
    assert_true(meet(&fine, &w).info.dane_matched);
    rows[1] = pkix.record; /* what mail does not use saves nobody */
    assert_int_equal(meet(&fine, &w).fault, TLS_FAULT_DANE);
}

static void records_that_cannot_be_used_demand_nothing(void **state) {
    (void)state;
    struct record_bytes r;
    record_of(&r, wild.leaf, 3, 1, 1);
    struct tls_dane_record rows[8];
    for (size_t i = 0; i < 8; i++)
        rows[i] = r.record;
    rows[0].usage = 0;
    rows[1].usage = 1;
    rows[2].usage = 255;
    rows[3].selector = 2;
    rows[4].matching = 3;
    rows[5].len = 31;
    rows[6].len = 0;
    rows[7] = (struct tls_dane_record){3, 0, 0, (const uint8_t *)"no certificate", 14};
    for (size_t i = 0; i <= 8; i++) { /* each alone, and all */
        struct tls_wish w = dane_wish(i < 8 ? &rows[i] : rows, i < 8 ? 1 : 8);
        struct outcome o = meet(&self, &w);
        assert_int_equal(o.err, ERR_OK);
        assert_false(o.info.dane_matched || o.info.peer_verified);
        assert_int_equal(o.fault, TLS_FAULT_TRUST);
        w.must_verify = true; /* which then counts */
        assert_int_equal(meet(&self, &w).err, ERR_DENIED);
        o = meet(&fine, &w);
        assert_int_equal(o.err, ERR_OK);
        assert_false(o.info.dane_matched);
        assert_true(o.info.peer_verified);
    }
}

/* -- names and authorities -- */

static void verification_wants_chain_name_and_date(void **state) {
    (void)state;
    static const char *const below[] = {"a.other.example"}, *const deeper[] = {"a.b.other.example"};
    static const char *const bare[] = {"other.example"};
    static const struct {
        const struct site *site;
        const char *const *names;
        size_t count;
        int err;
        enum tls_fault fault;
    } rows[] = {
        {&fine, mx_name, 1, ERR_OK, TLS_FAULT_NONE},
        {&fine, both_names, 2, ERR_OK, TLS_FAULT_NONE},
        {&deep, mx_name, 1, ERR_OK, TLS_FAULT_NONE},
        {&fine, both_names, 1, ERR_DENIED, TLS_FAULT_NAME},
        {&wild, below, 1, ERR_OK, TLS_FAULT_NONE},
        {&wild, deeper, 1, ERR_DENIED, TLS_FAULT_NAME},
        {&wild, bare, 1, ERR_DENIED, TLS_FAULT_NAME},
        {&wild, mx_name, 1, ERR_DENIED, TLS_FAULT_NAME},
        {&named_by_cn, mx_name, 1, ERR_DENIED, TLS_FAULT_NAME},
        {&expired, mx_name, 1, ERR_DENIED, TLS_FAULT_EXPIRED},
        {&early, mx_name, 1, ERR_DENIED, TLS_FAULT_EXPIRED},
        {&self, mx_name, 1, ERR_DENIED, TLS_FAULT_TRUST},
        {&strange, mx_name, 1, ERR_DENIED, TLS_FAULT_TRUST},
        {&weak, mx_name, 1, ERR_DENIED, TLS_FAULT_TRUST},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tls_wish w = {
            .sni = "mx.example", .must_verify = true, .names = rows[i].names, .name_count = rows[i].count};
        struct outcome o = meet(rows[i].site, &w);
        assert_int_equal(o.err, rows[i].err);
        assert_int_equal(o.fault, rows[i].fault);
        assert_int_equal(o.info.peer_verified, o.err == ERR_OK);
        w.must_verify = false; /* then the same is only told */
        o = meet(rows[i].site, &w);
        assert_int_equal(o.err, ERR_OK);
        assert_int_equal(o.info.peer_verified, rows[i].err == ERR_OK || rows[i].site == &weak);
        assert_int_equal(o.info.fault, rows[i].site == &weak ? TLS_FAULT_NONE : rows[i].fault);
        assert_false(o.info.dane_matched || o.info.fingerprint_matched);
    }
}

static void wishes_that_make_no_sense_fail(void **state) {
    (void)state;
    static char long_name[300];
    memset(long_name, 'a', sizeof long_name - 1);
    const char *const names[] = {".example", "*.example", "", ".", long_name, "127.0.0.1"};
    const char *two[] = {"mx.example", NULL};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct tls_wish w = {.must_verify = true, .names = two, .name_count = 2};
        two[1] = names[i];
        assert_int_equal(meet(&fine, &w).fault, TLS_FAULT_OTHER);
        if (i < 5) {
            w = (struct tls_wish){.sni = names[i]};
            assert_int_equal(meet(&fine, &w).fault, TLS_FAULT_OTHER);
        }
    }
    struct tls_wish none = {.sni = "mx.example", .must_verify = true};
    struct outcome o = meet(&fine, &none);
    assert_int_equal(o.err, ERR_DENIED);
    assert_int_equal(o.fault, TLS_FAULT_OTHER);
    assert_string_equal(o.why, "there is no name to verify");
}

static void an_address_is_a_name_without_sni(void **state) {
    (void)state;
    const char *const ok[] = {"127.0.0.1"}, *const bad[] = {"127.0.0.2"};
    struct tls_wish w = {.sni = "127.0.0.1", .must_verify = true, .names = ok, .name_count = 1};
    struct outcome o = meet(&fine, &w);
    assert_int_equal(o.err, ERR_OK);
    assert_string_equal(o.sni, "");
    w.names = bad;
    assert_int_equal(meet(&fine, &w).fault, TLS_FAULT_NAME);
}

static void nothing_is_demanded_by_an_empty_wish(void **state) {
    (void)state;
    struct tls_wish w = {0};
    struct outcome o = meet(&self, &w);
    assert_int_equal(o.err, ERR_OK);
    assert_int_equal(o.info.fault, TLS_FAULT_TRUST);
    assert_string_equal(o.sni, "");
    assert_true(meet(&fine, &w).info.peer_verified);
}

/* What is wrong may not be the certificate. */
static void another_failure_is_another_fault(void **state) {
    (void)state;
    SSL_CTX *ctx = ctx_of(&fine, TLS1_2_VERSION);
    assert_int_equal(SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-SHA"), 1);
    struct tls_wish w = {.sni = "mx.example", .must_verify = true, .names = mx_name, .name_count = 1};
    assert_int_equal(meet_by(client, ctx, &w).err, ERR_OK);
    SSL_CTX_set_security_level(ctx, 0);
    assert_int_equal(SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-NULL-SHA"), 1);
    struct outcome o = meet_by(client, ctx, &w);
    assert_int_equal(o.err, ERR_DENIED);
    assert_int_equal(o.fault, TLS_FAULT_OTHER);
    SSL_CTX_free(ctx);
}

/* -- fingerprints -- */

static void hex_of(const uint8_t *bytes, bool colons, bool upper, char to[100]) {
    size_t at = 0;
    for (size_t i = 0; i < 32; i++) {
        if (colons && i)
            to[at++] = ':';
        at += (size_t)snprintf(to + at, 100 - at, upper ? "%02X" : "%02x", bytes[i]);
    }
}

static void a_fingerprint_is_of_certificate_or_key(void **state) {
    (void)state;
    for (uint8_t selector = 0; selector <= 1; selector++) {
        struct record_bytes r, wrong;
        char texts[4][100];
        record_of(&r, self.leaf, 3, selector, 1);
        record_of(&wrong, fine.leaf, 3, selector, 1);
        hex_of(wrong.bytes, false, false, texts[0]);
        hex_of(r.bytes, false, false, texts[1]);
        hex_of(r.bytes, true, true, texts[2]);
        hex_of(r.bytes, false, false, texts[3]);
        texts[3][63] = '\0'; /* one digit short */
        const char *list[3];
        struct tls_wish w = {.names = mx_name, .name_count = 1, .fingerprints = list, .fingerprint_count = 1};
        for (int i = 0; i < 4; i++) {
            list[0] = texts[i];
            struct outcome o = meet(&self, &w);
            assert_int_equal(o.err, i == 1 || i == 2 ? ERR_OK : ERR_DENIED);
            assert_int_equal(o.info.fingerprint_matched, i == 1 || i == 2);
            assert_int_equal(o.fault, TLS_FAULT_TRUST); /* told of the chain, or the reason */
        }
        list[0] = "rubbish";
        list[1] = texts[0];
        list[2] = texts[1];
        w.fingerprint_count = 3;
        assert_true(meet(&self, &w).info.fingerprint_matched);
        w.must_verify = true; /* is asked for besides */
        assert_int_equal(meet(&self, &w).err, ERR_DENIED);
    }
}

/* -- sessions -- */

static struct tls_client *client_with(uint32_t sessions_max) {
    struct tls_client *c;
    struct tls_client_config config = {.ca_file = certs_path("good.pem"), .sessions_max = sessions_max};
    assert_int_equal(tls_client_new(&c, &config, &problems), ERR_OK);
    return c;
}

static bool resumes(struct tls_client *c, SSL_CTX *ctx, const struct tls_wish *w) {
    struct outcome o = meet_by(c, ctx, w);
    assert_int_equal(o.err, ERR_OK);
    assert_int_equal(o.info.resumed, o.server_resumed);
    return o.info.resumed;
}

static void sessions_are_resumed_under_their_key(void **state) {
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_client *c = client_with(10), *other_client = client_with(10), *forgetful = client_with(0);
        SSL_CTX *ctx = ctx_of(&fine, version);
        struct tls_wish w = {.sni = "mx.example", .names = mx_name, .name_count = 1, .session_key = "a:25"};
        assert_false(resumes(c, ctx, &w));
        for (int i = 0; i < 5; i++)
            assert_true(resumes(c, ctx, &w));
        struct outcome o = meet_by(c, ctx, &w);
        assert_true(o.info.resumed && o.info.peer_verified && o.info.has_peer);
        assert_string_equal(o.info.peer_subject, "CN=fine");
        w.session_key = "b:25";
        assert_false(resumes(c, ctx, &w));
        w.session_key = NULL;
        assert_false(resumes(c, ctx, &w));
        assert_false(resumes(c, ctx, &w));
        w.session_key = "a:25";
        assert_false(resumes(other_client, ctx, &w));
        assert_false(resumes(forgetful, ctx, &w));
        assert_false(resumes(forgetful, ctx, &w));
        assert_true(resumes(c, ctx, &w));
        SSL_CTX_free(ctx);
        tls_client_unref(c);
        tls_client_unref(other_client);
        tls_client_unref(forgetful);
    }
}

/* What was let pass for one demand does not serve a stricter one. */
static void a_session_serves_its_own_demand_only(void **state) {
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_client *c = client_with(100);
        SSL_CTX *ctx = ctx_of(&self, version);
        struct record_bytes r, wrong;
        char text[100], wrong_text[100];
        const char *list[] = {text};
        record_of(&r, self.leaf, 3, 0, 1);
        record_of(&wrong, fine.leaf, 3, 0, 1);
        hex_of(r.bytes, false, false, text);
        hex_of(wrong.bytes, false, false, wrong_text);
        struct tls_wish w = {.sni = "mx.example", .names = mx_name, .name_count = 1, .session_key = "a:25"};
        assert_false(resumes(c, ctx, &w));
        struct outcome o = meet_by(c, ctx, &w);
        assert_true(o.info.resumed);
        assert_false(o.info.peer_verified);
        assert_int_equal(o.info.fault, TLS_FAULT_TRUST);
        w.must_verify = true;
        assert_int_equal(meet_by(c, ctx, &w).err, ERR_DENIED);
        w.must_verify = false;
        w.dane = &r.record;
        w.dane_count = 1;
        assert_false(resumes(c, ctx, &w));
        o = meet_by(c, ctx, &w);
        assert_true(o.info.resumed && o.info.dane_matched && o.info.peer_verified);
        w.dane = &wrong.record;
        assert_int_equal(meet_by(c, ctx, &w).fault, TLS_FAULT_DANE);
        w.dane_count = 0;
        w.fingerprints = list;
        w.fingerprint_count = 1;
        assert_false(resumes(c, ctx, &w));
        o = meet_by(c, ctx, &w);
        assert_true(o.info.resumed && o.info.fingerprint_matched);
        list[0] = wrong_text;
        assert_int_equal(meet_by(c, ctx, &w).err, ERR_DENIED);
        SSL_CTX_free(ctx);
        tls_client_unref(c);
    }
}

static void a_bounded_number_of_keys_is_remembered(void **state) {
    (void)state;
    struct tls_client *c = client_with(3);
    SSL_CTX *ctx = ctx_of(&fine, TLS1_3_VERSION);
    struct tls_wish w = {.sni = "mx.example"};
    const char *keys[] = {"a", "b", "c", "a", "d"};
    for (int i = 0; i < 5; i++) {
        w.session_key = keys[i];
        assert_int_equal(resumes(c, ctx, &w), i == 3);
    }
    w.session_key = "a"; /* used lately */
    assert_true(resumes(c, ctx, &w));
    w.session_key = "c";
    assert_true(resumes(c, ctx, &w));
    w.session_key = "b"; /* had to go */
    assert_false(resumes(c, ctx, &w));
    SSL_CTX_free(ctx);
    tls_client_unref(c);
}

enum { THREADS = 4, VISITS = 60 };

static void *visit_often(void *arg) {
    struct tls_client *c = arg;
    static const char *const keys[] = {"a", "b", "c"};
    SSL_CTX *ctx = ctx_of(&fine, TLS1_3_VERSION);
    struct tls_wish w = {.sni = "mx.example", .must_verify = true, .names = mx_name, .name_count = 1};
    for (int i = 0; i < VISITS; i++) {
        w.session_key = keys[i % 3];
        struct outcome o = meet_by(c, ctx, &w);
        assert_true(o.info.peer_verified);
    }
    SSL_CTX_free(ctx);
    return NULL;
}

/* One context serves all loops. */
static void sessions_may_be_shared_by_threads(void **state) {
    (void)state;
    struct tls_client *c = client_with(2);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, visit_often, c), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    tls_client_unref(c);
}

/* -- making -- */

static struct site site_of(const char *cn, const char *san, const struct authority *by, bool rsa, int from, int to) {
    struct site s = {.key = certs_key(rsa)};
    s.leaf = certs_sign(s.key, cn, san, by, false, from, to);
    if (by)
        s.above[0] = by->x;
    return s;
}

static int begin(void **state) {
    (void)state;
    buf_init(&problems, 4096);
    certs_begin();
    good = certs_authority("good");
    other = certs_authority("other");
    middle.key = certs_key(false);
    middle.x = certs_sign(middle.key, "middle", NULL, &good, true, -1, 100);
    fine = site_of("fine", "DNS:mx.example,IP:127.0.0.1", &good, false, -10, 90);
    wild = site_of("wild", "DNS:*.other.example", &good, true, -10, 90);
    expired = site_of("expired", "DNS:mx.example", &good, false, -10, -1);
    early = site_of("early", "DNS:mx.example", &good, false, 1, 10);
    self = site_of("self", "DNS:mx.example", NULL, false, -10, 90);
    strange = site_of("strange", "DNS:mx.example", &other, false, -10, 90);
    named_by_cn = site_of("mx.example", NULL, &good, false, -10, 90);
    deep = site_of("deep", "DNS:mx.example", &middle, false, -10, 90);
    deep.above[1] = good.x;
    weak.key = EVP_RSA_gen(1024);
    weak.leaf = certs_sign(weak.key, "weak", "DNS:mx.example", &good, false, -10, 90);
    weak.above[0] = good.x;
    client = client_with(0);
    return 0;
}

static int end(void **state) {
    (void)state;
    struct site *sites[] = {&fine, &wild, &expired, &early, &self, &strange, &named_by_cn, &deep, &weak};
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        X509_free(sites[i]->leaf);
        EVP_PKEY_free(sites[i]->key);
    }
    tls_client_unref(client);
    certs_authority_free(&good);
    certs_authority_free(&other);
    certs_authority_free(&middle);
    buf_deinit(&problems);
    certs_end();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_record_matches_its_own_only),
        cmocka_unit_test(a_record_of_the_server_needs_neither_name_nor_date_nor_authority),
        cmocka_unit_test(a_record_of_an_authority_needs_name_and_date),
        cmocka_unit_test(one_of_several_records_is_enough),
        cmocka_unit_test(records_that_cannot_be_used_demand_nothing),
        cmocka_unit_test(verification_wants_chain_name_and_date),
        cmocka_unit_test(wishes_that_make_no_sense_fail),
        cmocka_unit_test(an_address_is_a_name_without_sni),
        cmocka_unit_test(nothing_is_demanded_by_an_empty_wish),
        cmocka_unit_test(another_failure_is_another_fault),
        cmocka_unit_test(a_fingerprint_is_of_certificate_or_key),
        cmocka_unit_test(sessions_are_resumed_under_their_key),
        cmocka_unit_test(a_session_serves_its_own_demand_only),
        cmocka_unit_test(a_bounded_number_of_keys_is_remembered),
        cmocka_unit_test(sessions_may_be_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
