/* dkim: what we sign verifies, and what was changed, weak, old, partial or too much does not. Keys from a real server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/filter/dkimauth.h"
#include "tests/unit/gateway/filter/keys.h"
#include "tests/unit/gateway/filter/nsd.h"
#include "tests/unit/gateway/filter/place.h"

struct world {
    struct nsd nsd;
    struct zone zone;
    char directory[40], records[16384];
    struct signing_key key, other, weak, tiny, ed;
    struct resolver *r;
    struct dkimauth *d;
    struct dkimkeys *keys;
    struct arena mem;
    struct authres_dkim results[AUTHRES_DKIM_MAX];
    size_t count;
};

static const char message[] = "From: Joe <joe@dkim.test>\r\nTo: x@y.test\r\nSubject: hello\r\n  there\r\n"
                              "Date: Tue, 24 Nov 2026 08:15:07 +0000\r\n\r\nline one\r\n\r\n.dot \t x\r\n\r\n\r\n";

static int start(void **state) {
    struct world *w = calloc(1, sizeof *w);
    struct buf problems;
    *state = w;
    snprintf(w->directory, sizeof w->directory, "/tmp/posthouse-dkim-XXXXXX");
    if (!mkdtemp(w->directory))
        return 1;
    keys_make(&w->key, w->directory, "key", 2048);
    keys_make(&w->other, w->directory, "other", 2048);
    keys_make(&w->weak, w->directory, "weak", 1024);
    keys_make(&w->tiny, w->directory, "tiny", 768);
    keys_make(&w->ed, w->directory, "ed", 0);
    snprintf(w->records, sizeof w->records,
             "s1._domainkey TXT %s\nwrong._domainkey TXT %s\nweak._domainkey TXT %s\ntiny._domainkey TXT %s\n"
             "ed._domainkey TXT %s\nrevoked._domainkey TXT \"v=DKIM1; p=\"\nbad._domainkey TXT \"v=DKIM1; p=!!\"\n"
             "two._domainkey TXT %s\ntwo._domainkey TXT \"v=DKIM1; p=\"\ns1._domainkey.sub TXT %s\n",
             w->key.record, w->other.record, w->weak.record, w->tiny.record, w->ed.record, w->key.record,
             w->other.record);
    w->zone = (struct zone){"dkim.test", w->records};
    nsd_start(&w->nsd, &w->zone, 1);
    arena_init(&w->mem, 8192, 0);
    buf_init(&problems, 4096);
    const struct mailauth_key keys[] = {{"dkim.test", "s1", w->key.path}, {"sub.dkim.test", "s1", w->other.path}};
    w->d = dkimauth_new();
    return !w->d || resolver_new(&w->r, w->nsd.servers) || dkimkeys_new(&w->keys, keys, 2, &problems);
}

static int stop(void **state) {
    struct world *w = *state;
    const struct signing_key *keys[] = {&w->key, &w->other, &w->weak, &w->tiny, &w->ed};
    dkimkeys_free(w->keys);
    dkimauth_free(w->d);
    resolver_free(w->r);
    arena_deinit(&w->mem);
    nsd_stop(&w->nsd);
    for (size_t i = 0; i < 5; i++)
        unlink(keys[i]->path);
    rmdir(w->directory);
    free(w);
    return 0;
}

/* Results as words. */
static const char *verify_with(struct world *w, struct resolver *r, struct held *h) {
    static char text[300];
    dkimauth_verify(w->d, r, clock_mono_ms() + 3000, h, &w->mem, w->results, &w->count);
    text[0] = 0;
    for (size_t i = 0; i < w->count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "",
                 authres_text(w->results[i].result));
    return text;
}

static const char *verify(struct world *w, struct held *h) {
    return verify_with(w, w->r, h);
}

static void sign(struct world *w, struct held *h, const char *domain) {
    struct buf value;
    ptrdiff_t key = dkimkeys_find(w->keys, span_of(domain));
    buf_init(&value, AUTHRES_MAX);
    assert_true(key >= 0);
    assert_int_equal(dkimkeys_sign(w->keys, (size_t)key, h, &value), ERR_OK);
    assert_int_equal(held_insert(h, 0, SPAN("DKIM-Signature"), buf_span(&value)), ERR_OK);
    buf_deinit(&value);
}

static struct held *signed_message(struct world *w) {
    struct held *h = held_of_text(message);
    sign(w, h, "dkim.test");
    return h;
}

static void check_text(struct world *w, const char *from, const char *to, const char *want) {
    struct held *h = signed_message(w);
    char *text = held_text(h), *at = strstr(text, from), *changed;
    assert_non_null(at);
    assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    struct held *other = held_of_text(changed);
    assert_string_equal(verify(w, other), want);
    held_free(other);
    held_free(h);
    free(text);
    free(changed);
}

static void test_round_trip(void **state) {
    struct world *w = *state;
    struct held *h = held_of_text(message);
    assert_string_equal(verify(w, h), "");
    sign(w, h, "dkim.test");
    assert_string_equal(verify(w, h), "pass");
    assert_true(span_eq(w->results[0].domain, SPAN("dkim.test")));
    assert_true(span_eq(w->results[0].selector, SPAN("s1")));
    assert_true(span_eq(w->results[0].algorithm, SPAN("rsa-sha256")));
    assert_int_equal(w->results[0].hash.len, 8);
    sign(w, h, "mail.sub.dkim.test");
    assert_string_equal(verify(w, h), "pass pass");
    assert_true(span_eq(w->results[0].domain, SPAN("sub.dkim.test")));
    held_free(h);
}

static void test_bodies(void **state) {
    struct world *w = *state;
    char *text = malloc(3u << 20);
    size_t head = (size_t)sprintf(text, "From: a@dkim.test\r\n\r\n");
    for (size_t size = 0; size < (2u << 20); size = size ? size * 31 + 76 : 1) {
        for (size_t i = 0; i < size; i++)
            text[head + i] = i % 76 == 74 ? '\r' : i % 76 == 75 ? '\n' : (char)('a' + i % 23);
        struct held *h = held_of(span_make(text, head + size));
        sign(w, h, "dkim.test");
        assert_string_equal(verify(w, h), "pass");
        held_free(h);
    }
    free(text);
}

static void test_changes(void **state) {
    struct world *w = *state;
    check_text(w, "line one", "line  one", "pass"); /* relaxed */
    check_text(w, "hello\r\n  there", "hello there", "pass");
    check_text(w, "\r\n\r\nline one", "\r\nX-Added: y\r\n\r\nline one", "pass");
    check_text(w, "line one", "line two", "fail");
    check_text(w, "hello", "hallo", "fail");
    check_text(w, "To: x@y.test\r\n", "", "fail");
    check_text(w, "To: x@y.test\r\n", "To: x@y.test\r\nFrom: boss@dkim.test\r\n", "fail"); /* oversigned */
    check_text(w, "From: Joe <joe@dkim.test>\r\n", "From: boss@dkim.test\r\nFrom: Joe <joe@dkim.test>\r\n", "fail");
    check_text(w, "\r\n\r\nline one", "\r\n\r\nadvert\r\nline one", "fail");
    check_text(w, "s=s1", "s=wrong", "fail");
    check_text(w, "s=s1", "s=gone", "permerror");
    check_text(w, "s=s1", "s=revoked", "permerror");
    check_text(w, "s=s1", "s=bad", "permerror");
    check_text(w, "s=s1", "s=two", "permerror");
    check_text(w, "v=1;", "v=9;", "permerror");
    check_text(w, "a=rsa-sha256", "a=rot13", "permerror");
    check_text(w, "d=dkim.test", "d=", "permerror");
    check_text(w, "bh=", "zz=", "permerror");
    check_text(w, "From: Joe <joe@dkim.test>\r\n", "", "permerror");
}

static const char *raw(struct world *w, struct raw_signing s, const char *more) {
    struct held *h = held_of_text(message);
    s.domain = "dkim.test";
    assert_true(keys_sign(h, &s));
    if (more) {
        char *text = held_text(h), *longer;
        assert_true(asprintf(&longer, "%s%s", text, more) > 0);
        held_free(h);
        h = held_of_text(longer);
        free(text);
        free(longer);
    }
    const char *words = verify(w, h);
    held_free(h);
    return words;
}

static void test_rules_of_ours(void **state) {
    struct world *w = *state;
    struct raw_signing s = {.pem = w->key.pem, .selector = "s1", .length = -1, .algorithm = DKIM_SIGN_RSASHA256};
    assert_string_equal(raw(w, s, NULL), "pass");
    assert_string_equal(raw(w, s, "more\r\n"), "fail");
    s.length = (ssize_t)strlen(strstr(message, "line one")) - 4; /* without the blank lines at the end */
    assert_string_equal(raw(w, s, NULL), "pass");
    assert_string_equal(raw(w, s, "more\r\n"), "policy");
    assert_string_equal(w->results[0].why, "body is only partly signed");
    s.length = 3;
    assert_string_equal(raw(w, s, NULL), "policy");
    s.length = -1;
    s.now_s = 1500000000;
    assert_string_equal(raw(w, s, NULL), "pass");
    s.lifetime_s = 3600;
    assert_string_equal(raw(w, s, NULL), "fail");
    s.now_s = 4000000000;
    assert_string_equal(raw(w, s, NULL), "fail"); /* from the future */
    s.now_s = s.lifetime_s = 0;
    s.pem = w->weak.pem;
    s.selector = "weak";
    assert_string_equal(raw(w, s, NULL), "pass"); /* 1024 bits: weak, and still in use */
    s.pem = w->tiny.pem;
    s.selector = "tiny";
    assert_string_equal(raw(w, s, NULL), "policy");
    s.pem = w->key.pem;
    s.selector = "s1";
    s.algorithm = DKIM_SIGN_RSASHA1;
    assert_string_equal(raw(w, s, NULL), "policy");
}

static void test_no_answer(void **state) {
    struct world *w = *state;
    uint16_t port = 0;
    char servers[32];
    struct resolver *r;
    int fd = nsd_socket(SOCK_DGRAM, &port);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", port);
    assert_int_equal(resolver_new(&r, servers), ERR_OK);
    struct held *h = signed_message(w);
    assert_string_equal(verify_with(w, r, h), "temperror");
    assert_true(span_eq(w->results[0].domain, SPAN("dkim.test")));
    held_free(h);
    resolver_free(r);
    close(fd);
}

static void test_too_much(void **state) {
    struct world *w = *state;
    struct held *h = held_of_text(message);
    for (int i = 0; i < 20; i++)
        sign(w, h, "dkim.test");
    assert_string_equal(verify(w, h), "pass pass pass pass pass pass pass pass pass pass");
    held_free(h);
    h = signed_message(w);
    char endless[DKIMAUTH_SIGNATURE_MAX + 2];
    memset(endless, 'a', sizeof endless);
    assert_int_equal(held_insert(h, 0, SPAN("DKIM-Signature"), span_make(endless, sizeof endless)), ERR_OK);
    assert_int_equal(held_insert(h, 0, SPAN("DKIM-Signature"), SPAN("words")), ERR_OK);
    assert_string_equal(verify(w, h), "pass");
    while (held_count(h) <= DKIMAUTH_FIELDS_MAX)
        assert_int_equal(held_insert(h, 99999, SPAN("X-More"), SPAN("y")), ERR_OK);
    assert_string_equal(verify(w, h), "permerror");
    assert_string_equal(w->results[0].why, "too many header fields");
    struct buf value;
    buf_init(&value, AUTHRES_MAX);
    assert_int_equal(dkimkeys_sign(w->keys, 0, h, &value), ERR_INVALID);
    buf_deinit(&value);
    held_free(h);
    h = held_of_text("From: a@dkim.test\r\nDKIM-Signature: words\r\n\r\n");
    assert_string_equal(verify(w, h), "permerror");
    held_free(h);
}

static void test_long_fields(void **state) {
    struct world *w = *state;
    char *text = malloc(600000);
    size_t len = (size_t)sprintf(text, "From: a@dkim.test\r\nSubject: ");
    memset(text + len, 'x', 500000);
    memcpy(text + len + 500000, "\r\n\r\nbody\r\n", 11);
    struct held *h = held_of_text(text);
    sign(w, h, "dkim.test");
    assert_int_equal(held_insert(h, 99, SPAN("X-Long"), span_make(text + len, 400000)), ERR_OK);
    assert_string_equal(verify(w, h), "pass");
    held_free(h);
    free(text);
}

static int load(const char *domain, const char *path, struct buf *problems, struct dkimkeys **k) {
    const struct mailauth_key key = {domain, "s1", path};
    buf_clear(problems);
    return dkimkeys_new(k, &key, 1, problems);
}

static void test_keys(void **state) {
    struct world *w = *state;
    struct dkimkeys *k = NULL;
    struct buf p;
    char path[80];
    buf_init(&p, 4096);
    snprintf(path, sizeof path, "%s/none.pem", w->directory);
    assert_int_equal(load("dkim.test", path, &p, &k), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&p), "No such file"));
    keys_write(path, "not a key\n", 0600);
    assert_int_equal(load("dkim.test", path, &p, &k), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&p), "not an RSA private key"));
    keys_write(path, w->key.pem, 0604);
    assert_int_equal(load("dkim.test", path, &p, &k), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&p), "others may read it"));
    assert_int_equal(load("dkim.test", w->weak.path, &p, &k), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&p), "2048 bits"));
    assert_int_equal(load("*", w->key.path, &p, &k), ERR_INVALID);
    assert_int_equal(load("dkim.test", w->directory, &p, &k), ERR_INVALID);
    keys_write(path, w->key.pem, 0640);
    assert_int_equal(load("dkim.test", path, &p, &k), ERR_OK);
    assert_false(dkimkeys_is_stale(k));
    keys_write(path, "changed\n", 0600);
    assert_true(dkimkeys_is_stale(k));
    unlink(path);
    assert_true(dkimkeys_is_stale(k));
    dkimkeys_free(k);
    assert_int_equal(dkimkeys_new(&k, NULL, 0, &p), ERR_OK);
    assert_int_equal(dkimkeys_find(k, SPAN("dkim.test")), -1);
    dkimkeys_free(k);
    buf_deinit(&p);
    assert_int_equal(dkimkeys_find(w->keys, SPAN("DKIM.test")), 0);
    assert_int_equal(dkimkeys_find(w->keys, SPAN("x.dkim.test")), 0);
    assert_int_equal(dkimkeys_find(w->keys, SPAN("x.sub.dkim.test")), 1);
    assert_int_equal(dkimkeys_find(w->keys, SPAN("evildkim.test")), -1);
    assert_int_equal(dkimkeys_find(w->keys, SPAN("test")), -1);
}

static void test_ed25519(void **state) {
    struct world *w = *state;
    struct dkimkeys *k = NULL;
    struct buf p;
    buf_init(&p, 4096);
    assert_int_equal(load("dkim.test", w->ed.path, &p, &k), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&p), "Ed25519 keys cannot sign here"));
    buf_deinit(&p);
    struct raw_signing s = {.pem = w->ed.pem, .selector = "ed", .length = -1, .algorithm = DKIM_SIGN_ED25519SHA256};
    assert_string_equal(raw(w, s, NULL), "pass");
    assert_string_equal(raw(w, s, "more\r\n"), "fail");
    s.selector = "s1"; /* an RSA key */
    assert_string_equal(raw(w, s, NULL), "permerror");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_bodies),    cmocka_unit_test(test_changes),
        cmocka_unit_test(test_rules_of_ours), cmocka_unit_test(test_no_answer), cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_long_fields),   cmocka_unit_test(test_keys),      cmocka_unit_test(test_ed25519),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
