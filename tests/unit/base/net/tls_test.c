/* tls: contexts and engine against OpenSSL itself as the other side: versions, names, tickets, certificates, hostile
 * octets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "base/base64.h"
#include "base/net/tls.h"

#include "tests/unit/base/net/tls_certs.h"

static struct authority good, other;
static struct buf problems;

static bool named(const char *what) {
    return strstr(buf_cstr(&problems), what) != NULL;
}

/* -- the other side: OpenSSL with memory BIOs -- */

static SSL_CTX *raw_ctx(bool server, int version) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    SSL_CTX_set_security_level(ctx, version && version < TLS1_2_VERSION ? 0 : 1);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    if (server) {
        assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, certs_path("one.pem")), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, certs_path("one.key"), SSL_FILETYPE_PEM), 1);
    }
    return ctx;
}

static void use_pair(SSL_CTX *ctx, const char *certificate, const char *key) {
    assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, certs_path(certificate)), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, certs_path(key), SSL_FILETYPE_PEM), 1);
}

static SSL *raw_new(SSL_CTX *ctx, bool server) {
    SSL *ssl = SSL_new(ctx);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    if (server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

static bool to_raw(struct tls *t, SSL *ssl) {
    struct span out = tls_out(t);
    if (out.len == 0)
        return false;
    assert_int_equal(BIO_write(SSL_get_rbio(ssl), out.at, (int)out.len), (int)out.len);
    tls_out_taken(t, out.len);
    return true;
}

/* In pieces of `most`, so that records come torn. */
static bool from_raw(struct tls *t, SSL *ssl, int most) {
    char bytes[4096];
    int got = BIO_read(SSL_get_wbio(ssl), bytes, most);
    if (got <= 0)
        return false;
    assert_int_equal(tls_put(t, span_make(bytes, (size_t)got)), ERR_OK);
    return true;
}

/* Until both are done or nothing moves. The verdict of ours. */
static int shake_by(struct tls *t, SSL *ssl, int most) {
    int err = tls_handshake(t);
    for (bool moved = true; moved;) {
        moved = to_raw(t, ssl);
        ERR_clear_error();
        SSL_do_handshake(ssl);
        moved |= from_raw(t, ssl, most);
        err = tls_handshake(t);
    }
    return err;
}

static int shake(struct tls *t, SSL *ssl) {
    return shake_by(t, ssl, 4096);
}

static void exchange(struct tls *t, SSL *ssl) {
    char text[64];
    struct buf in;
    buf_init(&in, 64);
    assert_int_equal(tls_write(t, SPAN("220 hello\r\n")), ERR_OK);
    to_raw(t, ssl);
    assert_int_equal(SSL_read(ssl, text, sizeof text), 11);
    assert_memory_equal(text, "220 hello\r\n", 11);
    assert_int_equal(tls_read(t, &in, 64), ERR_AGAIN);
    assert_int_equal(SSL_write(ssl, "EHLO there\r\n", 12), 12);
    while (from_raw(t, ssl, 4096))
        continue;
    assert_int_equal(tls_read(t, &in, 5), ERR_OK);
    assert_string_equal(buf_cstr(&in), "EHLO ");
    assert_int_equal(tls_read(t, &in, 59), ERR_OK);
    assert_string_equal(buf_cstr(&in), "EHLO there\r\n");
    buf_deinit(&in);
}

/* -- ours -- */

static struct tls_server *server_of(struct tls_server_config c) {
    struct tls_server *t;
    struct tls_pair pair = {certs_path("one.pem"), certs_path("one.key")};
    if (!c.pairs) {
        c.pairs = &pair;
        c.count = 1;
    }
    int err = tls_server_new(&t, &c, &problems);
    assert_string_equal(buf_cstr(&problems), "");
    assert_int_equal(err, ERR_OK);
    return t;
}

static struct tls_client *client_of(struct tls_client_config c) {
    struct tls_client *t;
    assert_int_equal(tls_client_new(&t, &c, &problems), ERR_OK);
    return t;
}

/* -- versions -- */

static void check_binding(struct tls *t, SSL *ssl, bool ssl_is_server) {
    uint8_t ours[64], theirs[64];
    const char *type;
    size_t len, n;
    assert_true(tls_binding(t, &type, ours, &len));
    if (SSL_version(ssl) == TLS1_3_VERSION) {
        assert_string_equal(type, "tls-exporter");
        n = 32;
        assert_int_equal(SSL_export_keying_material(ssl, theirs, 32, "EXPORTER-Channel-Binding", 24, NULL, 0, 1), 1);
    } else {
        bool of_client = !SSL_session_reused(ssl);
        assert_string_equal(type, "tls-unique");
        n = of_client == !ssl_is_server ? SSL_get_finished(ssl, theirs, 64) : SSL_get_peer_finished(ssl, theirs, 64);
    }
    assert_int_equal(len, n);
    assert_memory_equal(ours, theirs, n);
}

static void serves_both_versions(void **state) {
    (void)state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    const char *names[] = {"TLSv1.2", "TLSv1.3"};
    struct tls_server *s = server_of((struct tls_server_config){0});
    for (int i = 0; i < 2; i++) {
        SSL_CTX *ctx = raw_ctx(false, versions[i]);
        SSL *ssl = raw_new(ctx, false);
        struct tls *t = tls_accept(s);
        SSL_set_tlsext_host_name(ssl, "One.example");
        assert_int_equal(shake_by(t, ssl, i == 0 ? 1 : 4096), ERR_OK); /* octet by octet, and whole */
        const struct tls_info *info = tls_info(t);
        assert_string_equal(info->version, names[i]);
        assert_string_equal(info->cipher, SSL_get_cipher_name(ssl));
        assert_true(info->bits >= 128);
        assert_string_equal(info->sni, "One.example");
        assert_false(info->resumed || info->has_peer || info->peer_verified);
        assert_string_equal(tls_why(t), "");
        exchange(t, ssl);
        check_binding(t, ssl, false);
        SSL_free(ssl);
        SSL_CTX_free(ctx);
        tls_free(t);
    }
    tls_server_unref(s);
}

static void speaks_both_versions(void **state) {
    (void)state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    const char *names[] = {"TLSv1.2", "TLSv1.3"};
    struct tls_client *c = client_of((struct tls_client_config){.ca_file = certs_path("good.pem"), .verify = true});
    for (int i = 0; i < 2; i++) {
        SSL_CTX *ctx = raw_ctx(true, versions[i]);
        SSL *ssl = raw_new(ctx, true);
        struct tls *t = tls_connect(c, "one.example.");
        assert_int_equal(shake(t, ssl), ERR_OK);
        const struct tls_info *info = tls_info(t);
        assert_string_equal(info->version, names[i]);
        assert_string_equal(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name), "one.example");
        assert_true(info->has_peer && info->peer_verified);
        assert_string_equal(info->peer_subject, "CN=one");
        assert_string_equal(info->peer_issuer, "CN=good");
        assert_int_equal(strlen(info->peer_fingerprint), 64);
        exchange(t, ssl);
        check_binding(t, ssl, true);
        SSL_free(ssl);
        SSL_CTX_free(ctx);
        tls_free(t);
    }
    tls_client_unref(c);
}

static int verdict(const char *profile, int version, char *why, size_t size) {
    struct tls_server *s = server_of((struct tls_server_config){.profile = profile});
    SSL_CTX *ctx = raw_ctx(false, version);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    int err = shake(t, ssl);
    span_copy(span_of(tls_why(t)), why, size);
    if (err)
        assert_int_equal(tls_handshake(t), ERR_DENIED);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
    tls_server_unref(s);
    return err;
}

static void profiles_bound_the_versions(void **state) {
    (void)state;
    char why[160];
    assert_int_equal(verdict(NULL, TLS1_1_VERSION, why, sizeof why), ERR_DENIED);
    assert_non_null(strstr(why, "protocol"));
    assert_int_equal(verdict("intermediate", TLS1_2_VERSION, why, sizeof why), ERR_OK);
    assert_int_equal(verdict("modern", TLS1_2_VERSION, why, sizeof why), ERR_DENIED);
    assert_int_equal(verdict("modern", TLS1_3_VERSION, why, sizeof why), ERR_OK);
    assert_int_equal(verdict("old", TLS1_VERSION, why, sizeof why), ERR_OK);
    assert_int_equal(verdict("old", TLS1_3_VERSION, why, sizeof why), ERR_OK);
}

static void renegotiation_is_refused(void **state) {
    (void)state;
    struct tls_server *s = server_of((struct tls_server_config){0});
    SSL_CTX *ctx = raw_ctx(false, TLS1_2_VERSION);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    struct buf in;
    buf_init(&in, 64);
    assert_int_equal(shake(t, ssl), ERR_OK);
    assert_int_equal(SSL_renegotiate(ssl), 1);
    SSL_do_handshake(ssl);
    assert_true(from_raw(t, ssl, 4096));
    assert_int_not_equal(tls_read(t, &in, 64), ERR_OK);
    assert_true(tls_out(t).len > 0 && tls_out(t).len < 100); /* an alert, no handshake */
    to_raw(t, ssl);
    assert_int_not_equal(SSL_do_handshake(ssl), 1);
    buf_deinit(&in);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
    tls_server_unref(s);
}

/* -- names -- */

static void served(struct tls_server *s, const char *host, const char *algorithms, const char *common_name) {
    SSL_CTX *ctx = raw_ctx(false, 0);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    char cn[64] = "";
    if (host)
        SSL_set_tlsext_host_name(ssl, host);
    if (algorithms)
        assert_int_equal(SSL_set1_sigalgs_list(ssl, algorithms), 1);
    assert_int_equal(shake(t, ssl), ERR_OK);
    X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(ssl)), NID_commonName, cn, sizeof cn);
    assert_string_equal(cn, common_name);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
}

static void the_name_chooses_the_certificate(void **state) {
    (void)state;
    struct tls_pair pairs[] = {{certs_path("one.pem"), certs_path("one.key")},
                               {certs_path("wild.pem"), certs_path("wild.key")},
                               {certs_path("rsa.pem"), certs_path("rsa.key")},
                               {certs_path("ec.pem"), certs_path("ec.key")}};
    struct tls_server *s = server_of((struct tls_server_config){.pairs = pairs, .count = 4});
    served(s, NULL, NULL, "one");
    served(s, "unknown.example", NULL, "one");
    served(s, "one.example", NULL, "one");
    served(s, "two.example", NULL, "wild");
    served(s, "MX.Two.Example", NULL, "wild");
    served(s, "mx.two.example.", NULL, "wild");
    served(s, "a.mx.two.example", NULL, "one"); /* a wildcard is one label */
    served(s, ".two.example", NULL, "one");
    served(s, "mx.both.example", NULL, "ec"); /* an exact name before a wildcard; the better key first */
    served(s, "mx.both.example", "RSA-PSS+SHA256:RSA+SHA256", "rsa");
    served(s, "mx.both.example", "ECDSA+SHA256", "ec");
    tls_server_unref(s);
}

static void what_the_client_names_is_cleaned(void **state) {
    (void)state;
    struct tls_server *s = server_of((struct tls_server_config){0});
    SSL_CTX *ctx = raw_ctx(false, 0);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    SSL_set_tlsext_host_name(ssl, "a\x1b[31m\r\nfoo: \xc3\xa4");
    assert_int_equal(shake(t, ssl), ERR_OK);
    assert_string_equal(tls_info(t)->sni, "a?[31m??foo: ??");
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
    tls_server_unref(s);
}

/* -- tickets -- */

static SSL_SESSION *kept;

/* One connection, with the session given; what the server's engine says of it is in *info. Its new ticket is kept. */
static void visit(struct tls_server *s, SSL_CTX *ctx, SSL_SESSION *with, struct tls_info *info) {
    char text[16];
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    if (with)
        assert_int_equal(SSL_set_session(ssl, with), 1);
    assert_int_equal(shake(t, ssl), ERR_OK);
    assert_int_equal(tls_info(t)->resumed, SSL_session_reused(ssl));
    *info = *tls_info(t);
    if (SSL_version(ssl) == TLS1_2_VERSION)
        check_binding(t, ssl, false);
    assert_true(SSL_read(ssl, text, sizeof text) <= 0); /* takes the tickets of 1.3 */
    SSL_SESSION_free(kept);
    kept = SSL_get1_session(ssl);
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    tls_free(t);
}

static bool resumed(struct tls_server *s, SSL_CTX *ctx, SSL_SESSION *with) {
    struct tls_info info;
    visit(s, ctx, with, &info);
    return info.resumed;
}

/* The session of a first visit; the caller frees. */
static SSL_SESSION *first_visit(struct tls_server *s, SSL_CTX *ctx) {
    assert_false(resumed(s, ctx, NULL));
    SSL_SESSION *session = kept;
    kept = NULL;
    return session;
}

static void write_keys(const char *name, const char *seeds) {
    struct buf text;
    buf_init(&text, 4096);
    for (; *seeds; seeds++) {
        char key[80];
        memset(key, *seeds, sizeof key);
        base64_encode(span_make(key, sizeof key), &text);
        buf_add_byte(&text, '\n');
    }
    certs_write(name, buf_cstr(&text), buf_len(&text), 0600);
    buf_deinit(&text);
}

static struct tls_tickets *tickets_of(const char *file) {
    struct tls_tickets *t;
    assert_int_equal(tls_tickets_new(&t, file ? certs_path(file) : NULL, 3600000, &problems), ERR_OK);
    return t;
}

static void gateways_that_share_keys_resume_each_other(void **state) {
    (void)state;
    write_keys("keys", "a");
    write_keys("strange", "z");
    struct tls_tickets *k1 = tickets_of("keys"), *k2 = tickets_of("keys"), *k3 = tickets_of("strange");
    struct tls_server *s1 = server_of((struct tls_server_config){.tickets = k1});
    struct tls_server *s2 = server_of((struct tls_server_config){.tickets = k2});
    struct tls_server *s3 = server_of((struct tls_server_config){.tickets = k3});
    struct tls_server *s4 = server_of((struct tls_server_config){0});
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *ctx = raw_ctx(false, version);
        SSL_SESSION *session = first_visit(s1, ctx);
        assert_non_null(session);
        assert_true(SSL_SESSION_has_ticket(session));
        assert_true(resumed(s1, ctx, session));
        assert_true(resumed(s2, ctx, session));
        assert_false(resumed(s3, ctx, session));
        assert_false(resumed(s4, ctx, session));
        SSL_SESSION_free(session);
        session = first_visit(s4, ctx);
        assert_true(!session || !SSL_SESSION_has_ticket(session));
        assert_true(!session || !resumed(s4, ctx, session));
        SSL_SESSION_free(session);
        SSL_CTX_free(ctx);
    }
    tls_server_unref(s1);
    tls_server_unref(s2);
    tls_server_unref(s3);
    tls_server_unref(s4);
    tls_tickets_unref(k1);
    tls_tickets_unref(k2);
    tls_tickets_unref(k3);
}

/* Clients use a ticket of TLS 1.3 once, so every session must bring the next one. */
static void each_session_brings_the_next_ticket(void **state) {
    (void)state;
    struct tls_tickets *keys = tickets_of(NULL);
    struct tls_server *s = server_of((struct tls_server_config){.tickets = keys});
    SSL_CTX *ctx = raw_ctx(false, 0);
    SSL_SESSION *session = first_visit(s, ctx);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT); /* a used session is no more resumable */
    for (unsigned i = 0; i < 4; i++) {
        assert_true(resumed(s, ctx, session));
        assert_false(SSL_SESSION_is_resumable(session));
        SSL_SESSION_free(session);
        session = kept;
        kept = NULL;
        assert_true(SSL_SESSION_is_resumable(session));
    }
    SSL_SESSION_free(session);
    SSL_CTX_free(ctx);
    tls_server_unref(s);
    tls_tickets_unref(keys);
}

static void keys_of_a_file_turn(void **state) {
    (void)state;
    write_keys("turn", "a");
    struct tls_tickets *keys = tickets_of("turn");
    struct tls_server *s = server_of((struct tls_server_config){.tickets = keys});
    SSL_CTX *ctx = raw_ctx(false, TLS1_2_VERSION);
    SSL_SESSION *old = first_visit(s, ctx);
    write_keys("turn", "ba");
    assert_int_equal(tls_tickets_reload(keys, &problems), ERR_OK);
    assert_true(resumed(s, ctx, old));
    SSL_SESSION *renewed = kept; /* an old key's ticket is replaced by one of the new key */
    kept = NULL;
    assert_non_null(renewed);
    certs_write("turn", "rubbish\n", 8, 0600);
    assert_int_equal(tls_tickets_reload(keys, &problems), ERR_INVALID);
    assert_true(named("turn:1: "));
    buf_clear(&problems);
    assert_true(resumed(s, ctx, old)); /* the old keys stay */
    write_keys("turn", "b");
    assert_int_equal(tls_tickets_reload(keys, &problems), ERR_OK);
    assert_int_equal(tls_tickets_reload(keys, &problems), ERR_OK);
    assert_false(resumed(s, ctx, old));
    assert_true(resumed(s, ctx, renewed));
    unlink(certs_path("turn"));
    assert_int_equal(tls_tickets_reload(keys, &problems), ERR_NOT_FOUND);
    assert_true(named("turn: "));
    buf_clear(&problems);
    assert_true(resumed(s, ctx, renewed));
    SSL_SESSION_free(old);
    SSL_SESSION_free(renewed);
    SSL_CTX_free(ctx);
    tls_server_unref(s);
    tls_tickets_unref(keys);
}

static void sleep_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static void keys_in_memory_turn(void **state) {
    (void)state;
    struct tls_tickets *slow = tickets_of(NULL), *fast;
    assert_int_equal(tls_tickets_new(&fast, NULL, 50, &problems), ERR_OK);
    assert_int_equal(tls_tickets_reload(fast, &problems), ERR_OK);
    struct tls_server *s1 = server_of((struct tls_server_config){.tickets = slow});
    struct tls_server *s2 = server_of((struct tls_server_config){.tickets = fast});
    SSL_CTX *ctx = raw_ctx(false, TLS1_3_VERSION);
    SSL_SESSION *a = first_visit(s1, ctx), *b = first_visit(s2, ctx);
    sleep_ms(200);
    assert_true(resumed(s1, ctx, a));
    assert_false(resumed(s2, ctx, b));
    assert_false(resumed(s2, ctx, a)); /* two sets of random keys are not the same */
    SSL_SESSION_free(a);
    SSL_SESSION_free(b);
    SSL_CTX_free(ctx);
    tls_server_unref(s1);
    tls_server_unref(s2);
    tls_tickets_unref(slow);
    tls_tickets_unref(fast);
}

static void bad_ticket_files_are_named(void **state) {
    (void)state;
    struct tls_tickets *t;
    static const struct {
        const char *seeds, *text, *what;
        mode_t mode;
        int err;
    } rows[] = {
        {NULL, "", "holds no key", 0600, ERR_INVALID},
        {NULL, "# only\n\n", "holds no key", 0600, ERR_INVALID},
        {NULL, "\nAAAA\n", "bad:2: ", 0600, ERR_INVALID},
        {NULL, "!!!!\n", "bad:1: ", 0600, ERR_INVALID},
        {"aa", NULL, "bad:2: ", 0600, ERR_INVALID},
        {"abcdefghijklmnopq", NULL, "bad:17: ", 0600, ERR_INVALID},
        {"a", NULL, "mode", 0644, ERR_DENIED},
        {"a", NULL, "mode", 0660, ERR_DENIED},
        {"abcdefghijklmnop", NULL, "", 0640, ERR_OK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].text)
            certs_write("bad", rows[i].text, strlen(rows[i].text), rows[i].mode);
        else
            write_keys("bad", rows[i].seeds);
        assert_int_equal(chmod(certs_path("bad"), rows[i].mode), 0);
        assert_int_equal(tls_tickets_new(&t, certs_path("bad"), 0, &problems), rows[i].err);
        assert_true(named(rows[i].what));
        tls_tickets_unref(t);
        buf_clear(&problems);
    }
    assert_int_equal(tls_tickets_new(&t, certs_path("none"), 0, &problems), ERR_NOT_FOUND);
    assert_true(named("none: "));
    assert_null(t);
}

/* -- certificates -- */

static int try_server(const char *certificate, const char *key, const char *ca) {
    struct tls_server *s = NULL;
    struct tls_pair pair = {certs_path(certificate), certs_path(key)};
    struct tls_server_config c = {.pairs = &pair, .count = 1, .client_ca = ca ? certs_path(ca) : NULL};
    buf_clear(&problems);
    int err = tls_server_new(&s, &c, &problems);
    assert_true(err ? s == NULL : s != NULL);
    if (err)
        assert_true(buf_len(&problems) > 0);
    tls_server_unref(s);
    return err;
}

static void bad_files_are_named(void **state) {
    (void)state;
    struct buf cut;
    buf_init(&cut, 10000);
    FILE *f = fopen(certs_path("one.pem"), "r");
    char *at = buf_reserve(&cut, 9000);
    buf_commit(&cut, fread(at, 1, 9000, f));
    fclose(f);
    certs_write("cut.pem", buf_span(&cut).at, 300, 0644);
    certs_write("halfchain.pem", buf_span(&cut).at, buf_len(&cut) - 60, 0644);
    buf_deinit(&cut);
    certs_write("garbage", "hello\n", 6, 0644);
    assert_int_equal(try_server("none.pem", "one.key", NULL), ERR_NOT_FOUND);
    assert_true(named("none.pem: "));
    assert_int_equal(try_server("one.pem", "none.key", NULL), ERR_NOT_FOUND);
    assert_true(named("none.key: "));
    assert_int_equal(try_server("garbage", "one.key", NULL), ERR_INVALID);
    assert_true(named("garbage: holds no certificate"));
    assert_int_equal(try_server("cut.pem", "one.key", NULL), ERR_INVALID);
    assert_true(named("cut.pem: "));
    assert_int_equal(try_server("halfchain.pem", "one.key", NULL), ERR_INVALID);
    assert_true(named("halfchain.pem: holds a damaged certificate"));
    assert_int_equal(try_server("one.pem", "garbage", NULL), ERR_INVALID);
    assert_true(named("garbage: holds no private key"));
    assert_int_equal(try_server("one.pem", "wild.key", NULL), ERR_INVALID);
    assert_true(named("wild.key: the key does not belong to the certificate in "));
    assert_int_equal(try_server("one.pem", "secret.key", NULL), ERR_INVALID);
    assert_true(named("secret.key: is encrypted"));
    assert_int_equal(try_server("", "one.key", NULL), ERR_INVALID);
    assert_true(named("is not a regular file"));
    assert_int_equal(try_server("one.pem", "one.key", "garbage"), ERR_INVALID);
    assert_true(named("garbage: holds no certificate"));
    assert_int_equal(try_server("one.pem", "one.key", "none"), ERR_NOT_FOUND);
    if (geteuid() != 0) {
        certs_write("closed.key", "x", 1, 0);
        assert_int_equal(try_server("one.pem", "closed.key", NULL), ERR_DENIED);
    }
    buf_clear(&problems);
}

static void warnings_do_not_hinder(void **state) {
    (void)state;
    assert_int_equal(try_server("expired.pem", "expired.key", NULL), ERR_OK);
    assert_true(named("expired.pem: warning: the certificate has expired"));
    assert_int_equal(chmod(certs_path("expired.key"), 0644), 0);
    assert_int_equal(try_server("expired.pem", "expired.key", NULL), ERR_OK);
    assert_true(named("expired.key: warning: the private key is readable by every user"));
    buf_clear(&problems);
}

static void odd_configs_are_refused(void **state) {
    (void)state;
    struct tls_server *s;
    struct tls_client *c;
    struct tls_pair pairs[] = {{"/none/a", "/none/b"}, {"/none/c", "/none/d"}};
    struct tls_server_config sc = {.pairs = pairs, .count = 2, .profile = "best"};
    assert_int_equal(tls_server_new(&s, &sc, &problems), ERR_INVALID);
    assert_true(named("profile"));
    sc.profile = NULL;
    assert_int_equal(tls_server_new(&s, &sc, &problems), ERR_NOT_FOUND);
    assert_true(named("/none/a: ") && named("/none/c: ")); /* all that is wrong at once */
    struct tls_client_config cc = {.ca_file = "/none/e"};
    assert_int_equal(tls_client_new(&c, &cc, &problems), ERR_NOT_FOUND);
    assert_true(named("/none/e: "));
    cc = (struct tls_client_config){.certificate = certs_path("one.pem"), .key = certs_path("wild.key")};
    assert_int_equal(tls_client_new(&c, &cc, &problems), ERR_INVALID);
    cc = (struct tls_client_config){.certificate = "/none/f"};
    assert_int_equal(tls_client_new(&c, &cc, &problems), ERR_NOT_FOUND);
    buf_clear(&problems);
}

static void changed_files_make_it_stale(void **state) {
    (void)state;
    certs_pair("fresh", "DNS:fresh.example", &good, false, 20);
    struct tls_pair pairs[] = {{certs_path("one.pem"), certs_path("one.key")},
                               {certs_path("fresh.pem"), certs_path("fresh.key")}};
    struct tls_server *s = server_of((struct tls_server_config){.pairs = pairs, .count = 2});
    int64_t left = tls_server_not_after(s) - (int64_t)time(NULL);
    assert_true(left > 19 * 86400 && left <= 20 * 86400);
    assert_false(tls_server_is_stale(s));
    certs_pair("fresh", "DNS:fresh.example", &good, false, 20);
    assert_true(tls_server_is_stale(s));
    served(s, "fresh.example", NULL, "fresh"); /* the old one goes on */
    unlink(certs_path("fresh.pem"));
    assert_true(tls_server_is_stale(s));
    tls_server_unref(s);
}

/* -- certificates of the peer -- */

static void clients_show_certificates(void **state) {
    (void)state;
    write_keys("keys", "a");
    struct tls_tickets *keys = tickets_of("keys");
    struct tls_server_config c = {.client_ca = certs_path("good.pem"), .ask_client = true, .tickets = keys};
    struct tls_server *s = server_of(c);
    c.client_ca = certs_path("other.pem");
    struct tls_server *stranger = server_of(c);
    c.client_ca = NULL;
    struct tls_server *naive = server_of(c);
    struct tls_info info;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *ctx = raw_ctx(false, version);
        visit(s, ctx, NULL, &info);
        assert_false(info.has_peer || info.peer_verified);
        use_pair(ctx, "client.pem", "client.key");
        SSL_SESSION *session = first_visit(s, ctx);
        visit(s, ctx, session, &info);
        assert_true(info.resumed && info.has_peer && info.peer_verified);
        assert_string_equal(info.peer_subject, "CN=client");
        assert_string_equal(info.peer_issuer, "CN=good");
        assert_string_equal(info.peer_email, "relay@client.example");
        visit(stranger, ctx, session, &info); /* what one authority vouched for is no voucher of another's */
        assert_true(!info.resumed && info.has_peer && !info.peer_verified);
        visit(naive, ctx, session, &info);
        assert_true(!info.resumed && info.has_peer && !info.peer_verified);
        assert_string_equal(info.peer_email, "");
        assert_string_equal(info.peer_subject, "CN=client");
        assert_int_equal(strspn(info.peer_fingerprint, "0123456789abcdef"), 64);
        SSL_SESSION_free(session);
        SSL_CTX_free(ctx);
        ctx = raw_ctx(false, version);
        use_pair(ctx, "impostor.pem", "impostor.key");
        session = first_visit(s, ctx);
        visit(s, ctx, session, &info); /* a resumed stranger is still one */
        assert_true(info.resumed && info.has_peer && !info.peer_verified);
        assert_string_equal(info.peer_email, "");
        SSL_SESSION_free(session);
        SSL_CTX_free(ctx);
    }
    tls_server_unref(s);
    tls_server_unref(stranger);
    tls_server_unref(naive);
    tls_tickets_unref(keys);
}

/* Our client against a server with a certificate. */
static int meet(const char *stem, const char *ca, bool verify, const char *name, struct tls_info *info, char why[160]) {
    char certificate[64], key[64];
    struct tls_client *c = client_of((struct tls_client_config){.ca_file = certs_path(ca),
                                                                .verify = verify,
                                                                .certificate = certs_path("client.pem"),
                                                                .key = certs_path("client.key")});
    SSL_CTX *ctx = raw_ctx(true, 0);
    snprintf(certificate, sizeof certificate, "%s.pem", stem);
    snprintf(key, sizeof key, "%s.key", stem);
    use_pair(ctx, certificate, key);
    SSL *ssl = raw_new(ctx, true);
    struct tls *t = tls_connect(c, name);
    tls_client_unref(c);
    int err = shake(t, ssl);
    if (!err)
        *info = *tls_info(t);
    else
        assert_int_not_equal(SSL_is_init_finished(ssl), 1); /* the alert came over */
    span_copy(span_of(tls_why(t)), why, 160);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
    return err;
}

static void servers_are_verified(void **state) {
    (void)state;
    struct tls_info info;
    char why[160];
    assert_int_equal(meet("one", "good.pem", true, "one.example", &info, why), ERR_OK);
    assert_true(info.peer_verified);
    assert_int_equal(meet("one", "good.pem", true, "192.0.2.7", &info, why), ERR_OK);
    assert_int_equal(meet("one", "good.pem", true, "192.0.2.8", &info, why), ERR_DENIED);
    assert_int_equal(meet("one", "good.pem", true, NULL, &info, why), ERR_OK);
    assert_int_equal(meet("one", "good.pem", true, "two.example", &info, why), ERR_DENIED);
    assert_string_equal(why, "certificate verify failed: hostname mismatch");
    assert_int_equal(meet("one", "other.pem", true, "one.example", &info, why), ERR_DENIED);
    assert_non_null(strstr(why, "certificate verify failed: "));
    assert_int_equal(meet("expired", "good.pem", true, "expired.example", &info, why), ERR_DENIED);
    assert_string_equal(why, "certificate verify failed: certificate has expired");
    assert_int_equal(meet("wild", "good.pem", true, "mx.two.example", &info, why), ERR_OK);
    assert_int_equal(meet("one", "good.pem", false, "two.example", &info, why), ERR_OK);
    assert_true(info.has_peer && !info.peer_verified);
    assert_int_equal(meet("one", "other.pem", false, "one.example", &info, why), ERR_OK);
    assert_true(info.has_peer && !info.peer_verified);
    assert_int_equal(meet("one", "good.pem", false, "", &info, why), ERR_DENIED);
    assert_string_equal(why, "the server's name is empty or too long");
}

/* -- hostile octets, ends -- */

static void garbage_is_no_handshake(void **state) {
    (void)state;
    static const char *const texts[] = {"EHLO there\r\nMAIL FROM:<a@b>\r\n", "GET / HTTP/1.0\r\n\r\n",
                                        "\x16\x03\x01\xff\xff\x01\x02\x03\x04\x05\x06"};
    struct tls_server *s = server_of((struct tls_server_config){0});
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct tls *t = tls_accept(s);
        assert_int_equal(tls_handshake(t), ERR_AGAIN);
        assert_int_equal(tls_put(t, span_of(texts[i])), ERR_OK);
        assert_int_equal(tls_handshake(t), ERR_DENIED);
        assert_int_not_equal(strlen(tls_why(t)), 0);
        assert_int_equal(tls_handshake(t), ERR_DENIED);
        assert_null(tls_info(t));
        tls_free(t);
    }
    struct tls *t = tls_accept(s);
    assert_int_equal(tls_put(t, SPAN("\x16\x03\x01")), ERR_OK);
    assert_int_equal(tls_handshake(t), ERR_AGAIN);
    tls_cut(t);
    assert_int_equal(tls_handshake(t), ERR_DENIED);
    assert_string_equal(tls_why(t), "the connection ended during the handshake");
    tls_free(t);
    tls_server_unref(s);
}

static void damage_breaks_the_stream(void **state) {
    (void)state;
    struct tls_server *s = server_of((struct tls_server_config){0});
    SSL_CTX *ctx = raw_ctx(false, 0);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    char bytes[256];
    struct buf in;
    buf_init(&in, 256);
    assert_int_equal(shake(t, ssl), ERR_OK);
    tls_server_unref(s); /* the session keeps its context */
    exchange(t, ssl);
    assert_int_equal(SSL_write(ssl, "DATA\r\n", 6), 6);
    int got = BIO_read(SSL_get_wbio(ssl), bytes, sizeof bytes);
    bytes[got - 1] ^= 1;
    assert_int_equal(tls_put(t, span_make(bytes, (size_t)got)), ERR_OK);
    assert_int_equal(tls_read(t, &in, 256), ERR_DENIED);
    assert_int_equal(buf_len(&in), 0);
    assert_int_not_equal(strlen(tls_why(t)), 0);
    assert_int_equal(tls_read(t, &in, 256), ERR_DENIED);
    assert_int_equal(tls_write(t, SPAN("x")), ERR_DENIED);
    assert_true(tls_out(t).len > 0); /* the alert */
    buf_deinit(&in);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
}

static void close_notify_ends_the_input(void **state) {
    (void)state;
    struct tls_server *s = server_of((struct tls_server_config){0});
    SSL_CTX *ctx = raw_ctx(false, 0);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    char text[16];
    struct buf in;
    buf_init(&in, 256);
    assert_int_equal(shake(t, ssl), ERR_OK);
    SSL_write(ssl, "QUIT\r\n", 6);
    SSL_shutdown(ssl);
    while (from_raw(t, ssl, 4096))
        continue;
    assert_int_equal(tls_put(t, SPAN("MAIL FROM:<>\r\n")), ERR_OK); /* plain octets behind the end are nobody's */
    assert_int_equal(tls_read(t, &in, 256), ERR_OK);
    assert_int_equal(tls_read(t, &in, 250), ERR_CLOSED);
    assert_int_equal(tls_read(t, &in, 250), ERR_CLOSED);
    assert_string_equal(buf_cstr(&in), "QUIT\r\n");
    assert_int_equal(tls_write(t, SPAN("221 bye\r\n")), ERR_OK); /* our side goes on */
    tls_end(t);
    to_raw(t, ssl);
    assert_int_equal(SSL_read(ssl, text, sizeof text), 9);
    assert_int_equal(SSL_read(ssl, text, sizeof text), 0);
    assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN);
    buf_deinit(&in);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
    tls_server_unref(s);
}

static void what_waits_is_bounded(void **state) {
    (void)state;
    struct tls_server *s = server_of((struct tls_server_config){0});
    SSL_CTX *ctx = raw_ctx(false, 0);
    SSL *ssl = raw_new(ctx, false);
    struct tls *t = tls_accept(s);
    char *mib = calloc(1, 1 << 20);
    int err = ERR_OK, rounds = 0;
    assert_int_equal(shake(t, ssl), ERR_OK);
    while (!err && rounds++ < 100)
        err = tls_write(t, span_make(mib, 1 << 20));
    assert_int_equal(err, ERR_FULL);
    assert_true(tls_out(t).len <= 8 << 20);
    tls_out_taken(t, tls_out(t).len);
    assert_int_equal(tls_write(t, SPAN("goes on")), ERR_OK);
    for (err = ERR_OK, rounds = 0; !err && rounds < 100; rounds++)
        err = tls_put(t, span_make(mib, 1 << 20));
    assert_int_equal(err, ERR_FULL);
    assert_int_equal(rounds, 9);
    free(mib);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_free(t);
    tls_server_unref(s);
}

/* -- threads -- */

enum { THREADS = 4, VISITS = 25 };

struct shared {
    struct tls_server *server;
    struct tls_client *client;
    atomic_int good;
};

static void move(struct tls *from, struct tls *to) {
    struct span out = tls_out(from);
    if (out.len && tls_put(to, out) == ERR_OK)
        tls_out_taken(from, out.len);
}

/* No asserts here: they belong to the main thread. */
static void *visits(void *arg) {
    struct shared *s = arg;
    for (int i = 0; i < VISITS; i++) {
        struct tls *a = tls_accept(s->server), *b = tls_connect(s->client, "one.example");
        int at_server = ERR_AGAIN, at_client = ERR_AGAIN;
        for (int n = 0; n < 5; n++) {
            at_client = tls_handshake(b);
            move(b, a);
            at_server = tls_handshake(a);
            move(a, b);
        }
        s->good += at_server == ERR_OK && at_client == ERR_OK && tls_info(b)->peer_verified;
        tls_free(a);
        tls_free(b);
    }
    return NULL;
}

static void contexts_serve_all_threads(void **state) {
    (void)state;
    struct tls_tickets *keys;
    pthread_t threads[THREADS];
    assert_int_equal(tls_tickets_new(&keys, NULL, 1, &problems), ERR_OK);
    struct shared s = {.server = server_of((struct tls_server_config){.tickets = keys}),
                       .client =
                           client_of((struct tls_client_config){.ca_file = certs_path("good.pem"), .verify = true})};
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, visits, &s), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(s.good, THREADS * VISITS);
    tls_server_unref(s.server);
    tls_client_unref(s.client);
    tls_tickets_unref(keys);
}

static int begin(void **state) {
    (void)state;
    certs_begin();
    buf_init(&problems, 65536);
    good = certs_authority("good");
    other = certs_authority("other");
    certs_pair("one", "DNS:one.example,IP:192.0.2.7", &good, false, 90);
    certs_pair("wild", "DNS:two.example,DNS:*.two.example,DNS:*.both.example", &good, false, 90);
    certs_pair("rsa", "DNS:mx.both.example", &good, true, 90);
    certs_pair("ec", "DNS:MX.both.example", &good, false, 90);
    certs_pair("expired", "DNS:expired.example", &good, false, -1);
    certs_pair("client", "DNS:client.example,email:relay@client.example,email:second@client.example", &good, false, 90);
    certs_pair("impostor", "email:relay@client.example", &other, false, 90);
    EVP_PKEY *key = certs_key(false);
    certs_write_key("secret.key", key, "phrase", 0600);
    EVP_PKEY_free(key);
    return 0;
}

static int end(void **state) {
    (void)state;
    certs_authority_free(&good);
    certs_authority_free(&other);
    SSL_SESSION_free(kept);
    buf_deinit(&problems);
    certs_end();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serves_both_versions),
        cmocka_unit_test(speaks_both_versions),
        cmocka_unit_test(profiles_bound_the_versions),
        cmocka_unit_test(renegotiation_is_refused),
        cmocka_unit_test(the_name_chooses_the_certificate),
        cmocka_unit_test(what_the_client_names_is_cleaned),
        cmocka_unit_test(gateways_that_share_keys_resume_each_other),
        cmocka_unit_test(each_session_brings_the_next_ticket),
        cmocka_unit_test(keys_of_a_file_turn),
        cmocka_unit_test(keys_in_memory_turn),
        cmocka_unit_test(bad_ticket_files_are_named),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(warnings_do_not_hinder),
        cmocka_unit_test(odd_configs_are_refused),
        cmocka_unit_test(changed_files_make_it_stale),
        cmocka_unit_test(clients_show_certificates),
        cmocka_unit_test(servers_are_verified),
        cmocka_unit_test(garbage_is_no_handshake),
        cmocka_unit_test(damage_breaks_the_stream),
        cmocka_unit_test(close_notify_ends_the_input),
        cmocka_unit_test(what_waits_is_bounded),
        cmocka_unit_test(contexts_serve_all_threads),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
