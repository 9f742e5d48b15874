/*
 * login: each mechanism's words, what is chosen of what is offered, and that no password goes in the clear. SCRAM is
 * played to its end with the library's own server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <gsasl.h>

#include "base/base64.h"
#include "gateway/outbound/login.h"

static const struct outbound_login joe = {.user = "joe", .password = "secret"};

struct words {
    struct login login;
    struct buf line;
};

static void open_login(struct words *w, const struct outbound_login *with, bool secured) {
    login_init(&w->login, with);
    w->login.secured = secured;
    buf_init(&w->line, 8192);
}

static void close_login(struct words *w) {
    login_deinit(&w->login);
    buf_deinit(&w->line);
}

static bool begins(struct words *w, const char *offered) {
    return w->login.core.begin(&w->login.core, span_of(offered), &w->line);
}

static bool responds(struct words *w, const char *challenge) {
    buf_clear(&w->line);
    return w->login.core.respond(&w->login.core, span_of(challenge), &w->line);
}

static void test_plain(void **state) {
    (void)state;
    struct words w;
    open_login(&w, &joe, true);
    assert_true(begins(&w, "LOGIN PLAIN"));
    assert_string_equal(buf_cstr(&w.line), "PLAIN AGpvZQBzZWNyZXQ=");
    assert_false(responds(&w, "more?"));
    close_login(&w);
}

static void test_login(void **state) {
    (void)state;
    struct words w;
    open_login(&w, &joe, true);
    assert_true(begins(&w, "CRAM-MD5 login"));
    assert_string_equal(buf_cstr(&w.line), "LOGIN");
    assert_true(responds(&w, "Username:"));
    assert_string_equal(buf_cstr(&w.line), "am9l");
    assert_true(responds(&w, "Password:"));
    assert_string_equal(buf_cstr(&w.line), "c2VjcmV0");
    assert_false(responds(&w, "Shoe size:"));
    close_login(&w);
}

static void test_xoauth2(void **state) {
    (void)state;
    struct words w;
    struct outbound_login token = joe;
    open_login(&w, &token, true);
    assert_false(begins(&w, "XOAUTH2")); /* a password is no token */
    close_login(&w);
    token.mechanisms = "XOAUTH2";
    open_login(&w, &token, true);
    assert_true(begins(&w, "PLAIN XOAUTH2"));
    assert_string_equal(buf_cstr(&w.line), "XOAUTH2 dXNlcj1qb2UBYXV0aD1CZWFyZXIgc2VjcmV0AQE=");
    assert_true(responds(&w, "{\"status\":\"401\"}")); /* an empty line brings the 535 */
    assert_int_equal(buf_len(&w.line), 0);
    assert_false(responds(&w, ""));
    close_login(&w);
}

static void test_nothing_in_the_clear(void **state) {
    (void)state;
    struct words w;
    open_login(&w, &joe, false);
    assert_false(begins(&w, "PLAIN LOGIN"));
    assert_string_equal(w.login.why, "the server has no TLS, and a password does not go in the clear");
    assert_int_equal(buf_len(&w.line), 0);
    close_login(&w);
    open_login(&w, &joe, true);
    assert_false(begins(&w, "GSSAPI"));
    assert_string_equal(w.login.why, "the server offers no mechanism that we may use");
    close_login(&w);
}

/* -- SCRAM, with the library as the server -- */

static int on_property(Gsasl *context, Gsasl_session *session, Gsasl_property property) {
    (void)context;
    if (property != GSASL_PASSWORD)
        return GSASL_NO_CALLBACK;
    return gsasl_property_set(session, GSASL_PASSWORD, "secret");
}

/* The server's answer to a base64 text, base64; *done when it is content. */
static void serve(Gsasl_session *server, const char *text, struct buf *out, bool *done) {
    struct buf clear;
    char *answer = NULL;
    size_t len = 0;
    buf_init(&clear, 8192);
    buf_clear(out);
    assert_int_equal(base64_decode(span_of(text), &clear), ERR_OK);
    int status = gsasl_step(server, buf_span(&clear).at ? buf_span(&clear).at : "", buf_len(&clear), &answer, &len);
    *done = status == GSASL_OK;
    if (status == GSASL_OK || status == GSASL_NEEDS_MORE)
        buf_append(out, answer, len);
    gsasl_free(answer);
    buf_deinit(&clear);
}

static bool scram(const char *password, bool secured) {
    struct outbound_login with = {.user = "joe", .password = password};
    struct words w;
    Gsasl *context;
    Gsasl_session *server;
    struct buf said;
    bool done = false;
    buf_init(&said, 8192);
    assert_int_equal(gsasl_init(&context), GSASL_OK);
    gsasl_callback_set(context, on_property);
    assert_int_equal(gsasl_server_start(context, "SCRAM-SHA-256", &server), GSASL_OK);
    open_login(&w, &with, secured);
    assert_true(begins(&w, "PLAIN SCRAM-SHA-256"));
    assert_memory_equal(buf_cstr(&w.line), "SCRAM-SHA-256 ", 14);
    serve(server, buf_cstr(&w.line) + 14, &said, &done);
    bool fine = responds(&w, buf_cstr(&said));
    if (fine) {
        serve(server, buf_cstr(&w.line), &said, &done);
        fine = done && responds(&w, buf_cstr(&said)); /* the server's proof is looked at */
    }
    close_login(&w);
    buf_deinit(&said);
    gsasl_finish(server);
    gsasl_done(context);
    return fine;
}

static void test_scram(void **state) {
    (void)state;
    assert_true(scram("secret", true));
    assert_true(scram("secret", false)); /* it shows no password */
    assert_false(scram("wrong", true));
    struct words w;
    open_login(&w, &joe, true);
    assert_true(begins(&w, "SCRAM-SHA-256"));
    assert_false(responds(&w, "no SCRAM at all"));
    close_login(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),   cmocka_unit_test(test_login),
        cmocka_unit_test(test_xoauth2), cmocka_unit_test(test_nothing_in_the_clear),
        cmocka_unit_test(test_scram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
