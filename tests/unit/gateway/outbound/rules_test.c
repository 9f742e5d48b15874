/*
 * Reply rules: what a file may say, with the line of each error; which rule a reply meets; that hostile replies and
 * costly expressions end soon; and that the starter file means what it says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "gateway/outbound/rules.h"

static struct rules *read_good(const char *text) {
    struct rules *r;
    struct buf problems;
    buf_init(&problems, 65536);
    if (rules_parse(&r, "f", span_of(text), &problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_int_equal(buf_span(&problems).len, 0);
    buf_deinit(&problems);
    return r;
}

static const struct rule *ask(const struct rules *r, uint32_t code, const char *enhanced, const char *text,
                              const char *host, enum client_stage stage) {
    return rules_match(r, &(struct rules_question){.code = code,
                                                   .enhanced = span_of(enhanced),
                                                   .text = span_of(text),
                                                   .host = host,
                                                   .domain = "d.example",
                                                   .stage = stage});
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"hold 10m /x/", "f:1: hold: begins with none"},
        {"\n# c\nsuspend 10 /x/", "f:3: takes a duration"},
        {"suspend /x/", "f:1: takes a duration"},
        {"suspend 2d /x/", "f:1: takes a duration from 1s to 1d"},
        {"suspend 10m", "f:1: lacks its expression"},
        {"suspend 10m /x", "f:1: lacks its expression"},
        {"suspend 10m /", "f:1: lacks its expression"},
        {"suspend 10m //", "f:1: the expression is empty"},
        {"suspend 10m x /y/", "f:1: x: takes KEY=VALUE"},
        {"suspend 10m size=3 /y/", "f:1: size: unknown"},
        {"suspend 10m status=7.1 /y/", "f:1: status: unknown, or not for this action"},
        {"suspend 10m stage= /y/", "f:1: stage: is empty"},
        {"suspend 10m stage=mail,dot /y/", "f:1: stage: takes connect"},
        {"suspend 10m site= /y/", "f:1: site: takes a name"},
        {"slow 10m /x/", "f:1: slow: takes a number"},
        {"slow 0 10m /x/", "f:1: slow: takes a number"},
        {"slow 100% 10m /x/", "f:1: slow: takes a number"},
        {"slow 2 /x/", "f:1: takes a duration"},
        {"permanent status=7 /x/", "f:1: status: takes"},
        {"permanent status=0000000007.1 /x/", "f:1: status: takes"},
        {"permanent status=7.0000001 /x/", "f:1: status: takes"},
        {"permanent status=x.1 /x/", "f:1: status: takes"},
        {"permanent category=odd /x/", "f:1: category: odd is none"},
        {"temporary /a(b/", "f:1: expression, at character"},
        {"temporary /[/", "f:1: expression, at character"},
        {"temporary /((((((((((((((((((((((((x))))))))))))))))))))))))/", "f:1: expression, at character"},
        {"temporary /(x{60000}){60000}/", "f:1: expression, at character"},
        {"temporary /(*UTF)x/", "f:1: expression, at character"},
        {"temporary /\\C/", "f:1: expression, at character"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rules *r;
        struct buf problems;
        buf_init(&problems, 65536);
        assert_int_equal(rules_parse(&r, "f", span_of(rows[i].text), &problems), ERR_INVALID);
        if (strncmp(buf_cstr(&problems), rows[i].says, strlen(rows[i].says)) != 0)
            fail_msg("%s: %s, not %s", rows[i].text, buf_cstr(&problems), rows[i].says);
        assert_null(r);
        buf_deinit(&problems);
    }
}

static void test_all_errors_at_once(void **state) {
    (void)state;
    struct rules *r;
    struct buf problems;
    buf_init(&problems, 65536);
    assert_int_equal(rules_parse(&r, "f", SPAN("odd\ntemporary /x/\nsuspend 1m\n"), &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "f:1: "));
    assert_null(strstr(buf_cstr(&problems), "f:2: "));
    assert_non_null(strstr(buf_cstr(&problems), "f:3: "));
    buf_deinit(&problems);
}

static void test_bounds(void **state) {
    (void)state;
    struct rules *r;
    struct buf text, problems;
    buf_init(&text, RULES_FILE_MAX + 10);
    buf_init(&problems, 65536);
    for (unsigned i = 0; i < RULES_MAX; i++)
        buf_add_str(&text, "temporary /x/\n");
    r = read_good(buf_cstr(&text));
    assert_int_equal(rules_count(r), RULES_MAX);
    rules_unref(r);
    buf_add_str(&text, "temporary /y/\n");
    assert_int_equal(rules_parse(&r, "f", buf_span(&text), &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "f:1001: more than 1000 rules"));
    buf_clear(&text);
    buf_clear(&problems);
    for (unsigned i = 0; i < RULES_LINE_MAX + 1; i++)
        buf_add_str(&text, "x");
    assert_int_equal(rules_parse(&r, "f", buf_span(&text), &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "f:1: a line takes 2000 octets"));
    while (buf_span(&text).len <= RULES_FILE_MAX)
        buf_add_str(&text, "x");
    assert_int_equal(rules_parse(&r, "f", buf_span(&text), &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "longer than"));
    buf_deinit(&text);
    buf_deinit(&problems);
}

static void test_files(void **state) {
    (void)state;
    struct rules *r;
    struct buf problems;
    buf_init(&problems, 4096);
    assert_int_equal(rules_load(&r, "/nonexistent/rules", &problems), ERR_NOT_FOUND);
    assert_non_null(strstr(buf_cstr(&problems), "/nonexistent/rules: "));
    assert_int_equal(rules_load(&r, "/tmp", &problems), ERR_IO);
    assert_int_equal(rules_load(&r, "/dev/zero", &problems), ERR_IO);
    buf_deinit(&problems);
}

static void test_matching(void **state) {
    (void)state;
    struct rules *r = read_good("# first match wins\r\n"
                                "suspend 10m stage=connect,mail site=.big.example /^421 4\\.7\\.0 .*try again LATER/\n"
                                "slow 50% 1h domain=d.example stage=ehlo /slow down/\n"
                                "slow 3 1h /slow down/\n"
                                "permanent status=1.1 category=unknown_recipient /^450 4\\.1\\.1 a\\/b /\n"
                                "temporary /^550 no status$/\n"
                                "temporary /(?-i)Case/\n");
    const struct rule *one = ask(r, 421, "4.7.0", "Try Again Later", "mx1.BIG.example", CLIENT_GREETING);
    assert_non_null(one);
    assert_int_equal(one->action, RULE_SUSPEND);
    assert_int_equal(one->line, 2);
    assert_int_equal(one->for_ms, 600000);
    /* the text may carry the status already: it does not stand twice */
    assert_ptr_equal(ask(r, 421, "4.7.0", "4.7.0 try again later", "big.example", CLIENT_MAIL), one);
    assert_null(ask(r, 421, "4.7.0", "try again later", "notbig.example", CLIENT_MAIL));
    assert_null(ask(r, 421, "4.7.0", "try again later", "mx.big.example", CLIENT_RCPT));
    assert_null(ask(r, 421, "4.7.1", "try again later", "mx.big.example", CLIENT_MAIL));
    one = ask(r, 450, "", "slow down", "x.example", CLIENT_HELO);
    assert_int_equal(one->percent, 50);
    one = ask(r, 450, "", "slow down", "x.example", CLIENT_DOT);
    assert_int_equal(one->connections, 3);
    one = ask(r, 450, "4.1.1", "a/b x", "x.example", CLIENT_RCPT);
    assert_string_equal(one->status, "1.1");
    assert_true(one->has_category && one->category == BOUNCE_UNKNOWN_RECIPIENT);
    assert_int_equal(ask(r, 550, "", "no status", "x.example", CLIENT_RCPT)->line, 6);
    assert_non_null(ask(r, 550, "", "a Case", "x.example", CLIENT_RCPT));
    assert_null(ask(r, 550, "", "a case", "x.example", CLIENT_RCPT));
    assert_null(rules_match(NULL, &(struct rules_question){.code = 450}));
    struct rules *other = rules_ref(r);
    rules_unref(r);
    assert_int_equal(rules_count(other), 6);
    rules_unref(other);
}

static void test_patterns(void **state) {
    (void)state;
    assert_true(rules_pattern("*", SPAN("any.thing")));
    assert_true(rules_pattern(".example", SPAN("a.Example")) && rules_pattern(".example", SPAN("example")));
    assert_false(rules_pattern(".example", SPAN("badexample")));
    assert_true(rules_pattern("a.example", SPAN("A.EXAMPLE")));
    assert_false(rules_pattern("a.example", SPAN("b.a.example")));
}

/* Expressions that would run for ages over texts made for them: each call returns, and what comes behind a costly
 * rule is still looked at, until the reply has cost enough. */
static void test_hostile(void **state) {
    (void)state;
    static const char *const costly[] = {"(a+)+$x",     "(a|aa)+!",    "(.*)*(.*)*(.*)*y",
                                         "(x+x+)+[yz]", "(a|a?)+[bc]", "^(([a-z])+.)+[A-Z]([a-z])+$"};
    char text[60000];
    for (size_t i = 0; i < sizeof costly / sizeof *costly; i++) {
        char file[400];
        snprintf(file, sizeof file, "temporary /%s/\npermanent /a|x|\\xff/\n", costly[i]);
        struct rules *r = read_good(file);
        for (int c = 0; c < 3; c++) {
            memset(text, "ax\xff"[c], sizeof text - 1);
            text[sizeof text - 1] = '\0';
            const struct rule *found = ask(r, 450, "4.0.0", text, "mx.example", CLIENT_MAIL);
            assert_true(found && found->action == RULE_PERMANENT);
        }
        rules_unref(r);
    }
    struct buf file;
    buf_init(&file, 65536);
    for (int i = 0; i < 900; i++)
        buf_add_str(&file, "temporary /(x+x+)+[yz]/\n");
    buf_add_str(&file, "permanent /x/\n");
    struct rules *r = read_good(buf_cstr(&file));
    memset(text, 'x', sizeof text - 1);
    assert_null(ask(r, 450, "", text, "mx.example", CLIENT_MAIL)); /* three were too much: no further */
    rules_unref(r);
    buf_deinit(&file);
    r = read_good("temporary /late/");
    memset(text, ' ', sizeof text - 1);
    memcpy(text + RULES_SUBJECT_MAX, "late", 4); /* behind what is looked at */
    assert_null(ask(r, 450, "", text, "mx.example", CLIENT_MAIL));
    memcpy(text + RULES_SUBJECT_MAX - 10, "late", 4);
    assert_non_null(ask(r, 450, "", text, "mx.example", CLIENT_MAIL));
    rules_unref(r);
}

static void test_starter_file(void **state) {
    (void)state;
    static const struct {
        uint32_t code;
        const char *enhanced, *text, *host;
        enum client_stage stage;
        int action; /* -1: none */
        uint64_t for_ms;
    } rows[] = {
        {421, "4.7.0", "Try again later, closing connection. (MAIL)", "gmail-smtp-in.l.google.com", CLIENT_MAIL,
         RULE_SUSPEND, 600000},
        {421, "4.7.28", "Gmail has detected an unusual rate of unsolicited mail originating from your IP address.",
         "alt1.gmail-smtp-in.l.google.com", CLIENT_DOT, RULE_SUSPEND, 900000},
        {550, "5.1.1", "The email account that you tried to reach does not exist.", "aspmx.l.google.com", CLIENT_RCPT,
         -1, 0},
        {550, "5.7.1",
         "Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since "
         "part of their network is on our block list (S3150).",
         "outlook-com.olc.protection.outlook.com", CLIENT_MAIL, RULE_SUSPEND, 4 * 3600000},
        {421, "", "RP-001 (BAY004) Unfortunately, some messages from 192.0.2.1 weren't sent.",
         "hotmail-com.olc.protection.outlook.com", CLIENT_MAIL, RULE_SUSPEND, 900000},
        {421, "4.7.0", "[TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints",
         "mta5.am0.yahoodns.net", CLIENT_MAIL, RULE_SUSPEND, 1800000},
        {554, "5.7.1", "[HM08] Message rejected due to local policy.", "mx01.mail.icloud.com", CLIENT_DOT, -1, 0},
        {421, "", "mx-ha02.web.de Service closing transmission channel, too many connections", "mx-ha02.web.de",
         CLIENT_GREETING, RULE_SUSPEND, 1800000},
        {421, "", "opmta1mto02nd1 smtp.orange.fr Service refuse. Veuillez essayer plus tard. OFR004_104 [104]",
         "smtp-in.orange.fr", CLIENT_GREETING, RULE_SLOW, 900000},
        {421, "4.7.0", "too many connections from your host", "mx.other.example", CLIENT_GREETING, RULE_SLOW, 600000},
        {552, "5.2.2", "mailbox full", "mx.other.example", CLIENT_RCPT, RULE_TEMPORARY, 0},
        {450, "4.1.1", "<a@b.example>: user unknown", "mx.other.example", CLIENT_RCPT, RULE_PERMANENT, 0},
        {450, "4.2.0", "greylisted, come again in 5 minutes", "mx.other.example", CLIENT_RCPT, -1, 0},
        {550, "5.7.1", "spam", "mx.other.example", CLIENT_DOT, -1, 0},
    };
    struct rules *r;
    struct buf problems;
    buf_init(&problems, 65536);
    if (rules_load(&r, SOURCE_DIR "/deploy/reply-rules.txt", &problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_true(rules_count(r) > 40);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct rule *one = ask(r, rows[i].code, rows[i].enhanced, rows[i].text, rows[i].host, rows[i].stage);
        if ((one ? (int)one->action : -1) != rows[i].action || (one && one->for_ms != rows[i].for_ms))
            fail_msg("%u %s: rule of line %u", rows[i].code, rows[i].text, one ? one->line : 0);
    }
    rules_unref(r);
    buf_deinit(&problems);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),  cmocka_unit_test(test_all_errors_at_once), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_files),   cmocka_unit_test(test_matching),           cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_starter_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
