/* web_session: sessions end by idleness, age, number and will; tokens are long, random, and found whole or not at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "admin/web_session.h"

static struct web_session *begin(struct web_sessions *s, const char *name, uint64_t now_ms) {
    struct web_session *session = web_session_begin(s, name, 2, now_ms);
    assert_non_null(session);
    return session;
}

static void test_tokens(void **state) {
    (void)state;
    struct web_sessions s;
    web_sessions_init(&s);
    struct web_session *a = begin(&s, "anna", 1000), *b = begin(&s, "bert", 1000);
    assert_int_equal(strlen(a->token), WEB_TOKEN_LEN);
    assert_int_equal(strlen(a->csrf), WEB_TOKEN_LEN);
    assert_int_equal(strspn(a->token, "0123456789abcdef"), WEB_TOKEN_LEN);
    assert_string_not_equal(a->token, b->token);
    assert_string_not_equal(a->token, a->csrf);
    assert_ptr_equal(web_session_find(&s, span_of(a->token), true, 2000), a);
    assert_ptr_equal(web_session_find(&s, span_of(b->token), true, 2000), b);
    assert_null(web_session_find(&s, span_first(span_of(a->token), 63), true, 2000));
    assert_null(web_session_find(&s, span_of(a->csrf), true, 2000));
    assert_null(web_session_find(&s, SPAN_EMPTY, true, 2000));
    web_session_end(&s, a);
    assert_int_equal(s.all.count, 1);
    web_sessions_deinit(&s);
}

static void test_time(void **state) {
    (void)state;
    struct web_sessions s;
    char token[WEB_TOKEN_LEN + 1];
    web_sessions_init(&s);
    memcpy(token, begin(&s, "anna", 0)->token, sizeof token);
    assert_non_null(web_session_find(&s, span_of(token), true, WEB_SESSION_IDLE_MS - 1));
    /* looking is not using: a page that refreshes itself keeps nobody signed in */
    assert_non_null(web_session_find(&s, span_of(token), false, 2 * WEB_SESSION_IDLE_MS - 2));
    assert_null(web_session_find(&s, span_of(token), true, 2 * WEB_SESSION_IDLE_MS - 1));
    assert_int_equal(s.all.count, 0);
    memcpy(token, begin(&s, "anna", 0)->token, sizeof token);
    for (uint64_t now = 0; now < WEB_SESSION_LIFE_MS; now += WEB_SESSION_IDLE_MS / 2)
        assert_non_null(web_session_find(&s, span_of(token), true, now));
    assert_null(web_session_find(&s, span_of(token), true, WEB_SESSION_LIFE_MS));
    web_sessions_deinit(&s);
}

static void test_number(void **state) {
    (void)state;
    struct web_sessions s;
    char first[WEB_TOKEN_LEN + 1], second[WEB_TOKEN_LEN + 1];
    web_sessions_init(&s);
    memcpy(first, begin(&s, "anna", 0)->token, sizeof first);
    memcpy(second, begin(&s, "bert", 0)->token, sizeof second);
    for (unsigned i = 2; i < WEB_SESSIONS_MAX; i++) {
        char name[8];
        snprintf(name, sizeof name, "carl%u", i / WEB_SESSIONS_OF_ONE);
        begin(&s, name, 1);
    }
    assert_non_null(web_session_find(&s, span_of(first), true, 2));
    begin(&s, "dora", 3); /* the one used longest ago makes room */
    assert_int_equal(s.all.count, WEB_SESSIONS_MAX);
    assert_non_null(web_session_find(&s, span_of(first), true, 4));
    assert_null(web_session_find(&s, span_of(second), true, 4));
    web_session_end_user(&s, "carl3");
    assert_int_equal(s.all.count, WEB_SESSIONS_MAX - WEB_SESSIONS_OF_ONE);
    web_sessions_deinit(&s);
}

/* Who signs in again and again signs out himself alone. */
static void test_number_of_one(void **state) {
    (void)state;
    struct web_sessions s;
    char other[WEB_TOKEN_LEN + 1], first[WEB_TOKEN_LEN + 1], second[WEB_TOKEN_LEN + 1];
    web_sessions_init(&s);
    memcpy(other, begin(&s, "anna", 0)->token, sizeof other);
    memcpy(first, begin(&s, "carl", 1)->token, sizeof first);
    memcpy(second, begin(&s, "carl", 1)->token, sizeof second);
    for (unsigned i = 2; i < WEB_SESSIONS_OF_ONE; i++)
        begin(&s, "carl", 2);
    assert_non_null(web_session_find(&s, span_of(first), true, 3));
    begin(&s, "carl", 4);
    assert_non_null(web_session_find(&s, span_of(first), true, 5));
    assert_null(web_session_find(&s, span_of(second), true, 5));
    for (unsigned i = 0; i < 2 * WEB_SESSIONS_MAX; i++)
        begin(&s, "carl", 6);
    assert_int_equal(s.all.count, 1 + WEB_SESSIONS_OF_ONE);
    assert_non_null(web_session_find(&s, span_of(other), true, 7));
    web_sessions_deinit(&s);
}

static void test_cookie(void **state) {
    (void)state;
    assert_true(span_eq(web_cookie(SPAN("a=1; b=2; c=3"), "b"), SPAN("2")));
    assert_true(span_eq(web_cookie(SPAN("b=x=y"), "b"), SPAN("x=y")));
    assert_true(span_eq(web_cookie(SPAN("b=1; b=2"), "b"), SPAN("1")));
    static const char *const none[] = {"", "b", ";", "=;=", "bb=1", "a=b=1", "b =1x;c"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(web_cookie(span_of(none[i]), "b").len, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),        cmocka_unit_test(test_time),   cmocka_unit_test(test_number),
        cmocka_unit_test(test_number_of_one), cmocka_unit_test(test_cookie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
