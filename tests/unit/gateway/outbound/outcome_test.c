/*
 * The outcome table, all of it: every step with every answer, next to the line of smtp-rules that
 * decides it. The test states the whole table once more, in a different form, and compares.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/outbound/outcome.h"

/* One cell: outcome (D delivered, - deferred, F failed, ? in doubt), scope (r m h d), next (. none, > next host). */
struct row {
    enum client_stage stage;
    const char *cells[CLIENT_ANSWERS]; /* 2yz 4yz 421 5yz bad none lost timeout */
};
static const struct row rows[] = {
    {CLIENT_CONNECT, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},  /* 40 */
    {CLIENT_GREETING, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}}, /* 43 */
    {CLIENT_EHLO, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},     /* 43 */
    {CLIENT_HELO, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},     /* 43 */
    {CLIENT_STARTTLS, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_SHAKING, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_AUTH, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_READY, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_XCLIENT, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_XFORWARD, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_MAIL, {"-h>", "-m>", "-h>", "Fm.", "-h>", "-h>", "-h>", "-h>"}}, /* 44, 45, 46 */
    {CLIENT_RCPT, {"-h>", "-r.", "-h>", "Fr.", "-h>", "-h>", "-h>", "-h>"}}, /* 44, 45, 46 */
    {CLIENT_DATA, {"-h>", "-m>", "-h>", "Fm.", "-h>", "-h>", "-h>", "-h>"}}, /* 44, 45, 46 */
    {CLIENT_BODY, {"-h>", "-m>", "-h>", "Fm.", "-h>", "-h>", "-h>", "-h>"}}, /* 46 */
    {CLIENT_DOT, {"Dr.", "-m>", "-m>", "Fm.", "-h>", "?h.", "?h.", "?h."}},  /* 44, 45, 42, 46 */
    {CLIENT_DRAIN, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_RSET, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_QUIT, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
    {CLIENT_END, {"-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>", "-h>"}},
};

static const char *cell(struct outcome_verdict v) {
    static char text[4];
    text[0] = " D-F?R"[v.outcome];
    text[1] = " rmhd"[v.scope];
    text[2] = ".>^"[v.next];
    return text;
}

static void check_words(struct outcome_verdict v) {
    assert_non_null(v.enhanced);
    assert_true(strlen(v.text) > 5);
    char class = v.outcome == OUTCOME_DELIVERED ? '2' : v.outcome == OUTCOME_FAILED ? '5' : '4';
    if (!v.fatal_if_all)
        assert_int_equal(v.enhanced[0], class);
}

static void test_table(void **state) {
    (void)state;
    assert_int_equal(sizeof rows / sizeof *rows, CLIENT_STAGES);
    for (size_t i = 0; i < CLIENT_STAGES; i++) {
        assert_int_equal(rows[i].stage, i);
        for (int a = 0; a < CLIENT_ANSWERS; a++) {
            struct outcome_verdict v = outcome_of(rows[i].stage, (enum client_answer)a, false, false);
            if (strcmp(cell(v), rows[i].cells[a]) != 0)
                fail_msg("%s answered %d: %s, should be %s", client_stage_name(rows[i].stage), a, cell(v),
                         rows[i].cells[a]);
            check_words(v);
            assert_int_equal(v.fatal_if_all, i == CLIENT_GREETING && a == CLIENT_ANSWER_5);
        }
    }
}

/* LMTP answers each recipient by itself; the other answers stay what they are. */
static void test_lmtp(void **state) {
    (void)state;
    for (int s = 0; s < CLIENT_STAGES; s++) {
        for (int a = 0; a < CLIENT_ANSWERS; a++) {
            struct outcome_verdict v = outcome_of((enum client_stage)s, (enum client_answer)a, true, false);
            const char *want = rows[s].cells[a];
            if (s == CLIENT_DOT && a == CLIENT_ANSWER_4)
                want = "-r.";
            if (s == CLIENT_DOT && a == CLIENT_ANSWER_5)
                want = "Fr.";
            assert_string_equal(cell(v), want);
            check_words(v);
        }
    }
}

/* Line 53: a connection that was reused and is closed before it said anything has not failed the mail. */
static void test_reused(void **state) {
    (void)state;
    for (int s = 0; s < CLIENT_STAGES; s++) {
        for (int a = 0; a < CLIENT_ANSWERS; a++) {
            bool again =
                (s == CLIENT_MAIL || s == CLIENT_XFORWARD) && (a == CLIENT_ANSWER_421 || a == CLIENT_ANSWER_LOST);
            struct outcome_verdict v = outcome_of((enum client_stage)s, (enum client_answer)a, false, true);
            assert_int_equal(v.next == OUTCOME_NEXT_AGAIN, again);
            if (!again)
                assert_string_equal(cell(v), rows[s].cells[a]);
        }
    }
}

static void test_local(void **state) {
    (void)state;
    static const struct {
        enum outcome_local what;
        const char *cell, *enhanced;
    } want[] = {
        {OUTCOME_NXDOMAIN, "Fd.", "5.1.2"},     {OUTCOME_DNS_TEMPFAIL, "-d.", "4.4.3"},
        {OUTCOME_CNAME_LOOP, "-d.", "4.4.3"},   {OUTCOME_NULL_MX, "Fd.", "5.1.10"},
        {OUTCOME_NO_ADDRESS, "Fd.", "5.4.4"},   {OUTCOME_MX_NOWHERE, "Fd.", "5.4.4"},
        {OUTCOME_OWN_HOST, "Fd.", "5.4.6"},     {OUTCOME_OWN_UNRESOLVED, "-d.", "4.4.4"},
        {OUTCOME_BAD_ADDRESS, "Fd.", "5.4.6"},  {OUTCOME_BAD_DESTINATION, "Fd.", "5.1.2"},
        {OUTCOME_BAD_ROUTE, "-d.", "4.3.5"},    {OUTCOME_NOT_CONVERTIBLE, "Fm.", "5.6.3"},
        {OUTCOME_NO_SMTPUTF8, "Fm.", "5.6.7"},  {OUTCOME_TOO_BIG, "Fm.", "5.3.4"},
        {OUTCOME_UNSENDABLE, "Fm.", "5.1.3"},   {OUTCOME_NO_BODY, "-m.", "4.3.0"},
        {OUTCOME_NO_MEMORY, "-m.", "4.3.1"},    {OUTCOME_NO_REQUIRETLS, "Fm.", "5.7.30"},
        {OUTCOME_TIME_OVER, "Fm.", "5.4.7"},    {OUTCOME_TIME_SHORT, "Fm.", "5.4.7"},
        {OUTCOME_NO_DELIVERBY, "Fm.", "5.3.3"}, {OUTCOME_HANDED_BACK, "Rh.", "4.3.2"},
    };
    assert_int_equal(sizeof want / sizeof *want, OUTCOME_LOCALS);
    for (size_t i = 0; i < OUTCOME_LOCALS; i++) {
        struct outcome_verdict v = outcome_local(want[i].what);
        assert_int_equal(want[i].what, i);
        assert_string_equal(cell(v), want[i].cell);
        assert_string_equal(v.enhanced, want[i].enhanced);
        check_words(v);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_lmtp),
        cmocka_unit_test(test_reused),
        cmocka_unit_test(test_local),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
