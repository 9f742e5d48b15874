/*
 * Proves the grammar by which operators name messages: each term, quotes, what matches and what is refused with a
 * sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base32.h"
#include "base/check.h"
#include "proto/filter.h"

#define NOW_MS 10000000u

static const struct filter_subject subject = {
    .message = 77,
    .sender = {"Ann@one.test", 12},
    .recipient = {"\"odd name\"@sub.there.test", 25},
    .destination = {"sub.there.test", 14},
    .site = {"mx1.there.test", 14},
    .state = 3,
    .received_ms = NOW_MS - 3600000u,
};

static bool matches(const char *text, const struct filter_subject *s) {
    struct filter *f;
    const char *problem;
    assert_int_equal(filter_parse(&f, span_of(text), &problem), ERR_OK);
    bool yes = filter_matches(f, s, NOW_MS);
    filter_free(f);
    return yes;
}

static void every_term(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool matches;
    } cases[] = {
        {"", true},
        {"  ", true},
        {"to:\"odd name\"@sub.there.test", true},
        {"to:\"ODD name\"@sub.there.test from:ann@one.test", true},
        {"to:odd@sub.there.test", false},
        {"to:@sub.there.test", true},
        {"to:@there.test", false},
        {"from:ANN@one.test", true},
        {"from:\"ann@one.test\"", true},
        {"from:\"ann@one.test\"   state:deferred", true},
        {"from:<>", false},
        {"from:@one.test", true},
        {"domain:sub.there.test", true},
        {"domain:.there.test", true},
        {"domain:.sub.there.test", false},
        {"domain:there.test", false},
        {"site:MX1.there.test", true},
        {"site:mx2.there.test", false},
        {"state:deferred", true},
        {"state:ready", false},
        {"older:1h", true},
        {"older:61m", false},
        {"state:deferred state:ready", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (matches(cases[i].text, &subject) != cases[i].matches)
            fail_msg("%s", cases[i].text);
}

static void the_null_path(void **state) {
    (void)state;
    struct filter_subject s = subject;
    s.sender = span_make("", 0);
    assert_true(matches("from:<>", &s));
    assert_false(matches("from:@one.test", &s));
}

static void an_id_is_found_without_a_search(void **state) {
    (void)state;
    char text[BASE32_ID_LEN + 1], term[32] = "id:";
    struct filter *f;
    const char *problem;
    base32_encode(77, text);
    memcpy(term + 3, text, sizeof text);
    assert_int_equal(filter_parse(&f, span_of(term), &problem), ERR_OK);
    assert_int_equal(filter_id(f), 77);
    assert_true(filter_matches(f, &subject, NOW_MS));
    filter_free(f);
}

/* What a walk over the store may leave out: state and site are known later. */
static void what_may_match_later(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool may;
    } cases[] = {{"", true},           {"state:held", true},          {"site:elsewhere", true},
                 {"from:<>", false},   {"state:held from:<>", false}, {"older:1ms state:ready site:x", true},
                 {"domain:x.y", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct filter *f;
        const char *problem;
        assert_int_equal(filter_parse(&f, span_of(cases[i].text), &problem), ERR_OK);
        assert_int_equal(filter_may_match(f, &subject, NOW_MS), cases[i].may);
        filter_free(f);
    }
    struct filter *f;
    const char *problem;
    struct filter_subject held = subject;
    held.state = 7;
    assert_int_equal(filter_parse(&f, SPAN("state:HELD"), &problem), ERR_OK);
    assert_true(filter_matches(f, &held, NOW_MS));
    assert_false(filter_matches(f, &subject, NOW_MS));
    assert_string_equal(filter_state_name(7), "held");
    assert_string_equal(filter_state_name(8), "?");
    filter_free(f);
}

static void what_is_no_filter(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "nocolon",      ":",        ":x",         "to:",       "from:",         "domain:", "older:", "older:x",
        "state:purple", "id:short", "colour:red", "to:\"open", "to:\"open\\\"", "a b:c",   "to:\"\""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct filter *f;
        const char *problem = NULL;
        if (filter_parse(&f, span_of(wrong[i]), &problem) == ERR_OK)
            fail_msg("taken: %s", wrong[i]);
        assert_non_null(problem);
        assert_null(f);
    }
}

static void long_ones_are_refused(void **state) {
    (void)state;
    char text[FILTER_TEXT_MAX + 1];
    struct filter *f;
    const char *problem;
    size_t len = 0;
    for (int i = 0; i <= FILTER_TERMS_MAX; i++, len += 9)
        memcpy(text + len, "older:1h ", 9);
    assert_int_equal(filter_parse(&f, span_make(text, len), &problem), ERR_FULL);
    assert_int_equal(filter_parse(&f, span_make(text, len - 9), &problem), ERR_OK);
    filter_free(f);
    memset(text, ' ', sizeof text);
    assert_int_equal(filter_parse(&f, span_make(text, FILTER_TEXT_MAX), &problem), ERR_FULL);
    assert_int_equal(filter_parse(&f, span_make(text, FILTER_TEXT_MAX - 1), &problem), ERR_OK);
    filter_free(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_term),
        cmocka_unit_test(the_null_path),
        cmocka_unit_test(an_id_is_found_without_a_search),
        cmocka_unit_test(what_may_match_later),
        cmocka_unit_test(what_is_no_filter),
        cmocka_unit_test(long_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
