/*
 * XCLIENT and XFORWARD: the commands, whose values come from strangers, and the client core that sends them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/smtp/client.h"

#define ALL "NAME ADDR PORT PROTO HELO LOGIN SOURCE IDENT DESTADDR"

static const struct client_attrs alice = {.addr = {"192.0.2.7", 9},
                                          .name = {"a.example", 9},
                                          .helo = {"alice-pc", 8},
                                          .protocol = {"ESMTPSA", 7},
                                          .login = {"alice@example.net", 17},
                                          .ident = {"0ABC", 4},
                                          .port = 4711,
                                          .local = true};

static const char *commands(enum client_attrs_verb verb, const struct client_attrs *a) {
    static char all[4096];
    struct buf out;
    uint32_t group = 0;
    buf_init(&out, sizeof all);
    while (client_attrs_put(&out, verb, client_attrs_offered(verb, SPAN(ALL)), a, &group))
        continue;
    assert_int_equal(out.err, ERR_OK);
    snprintf(all, sizeof all, "%s", buf_cstr(&out));
    buf_deinit(&out);
    for (const char *at = all; *at; at = strstr(at, "\r\n") + 2)
        assert_true((size_t)(strstr(at, "\r\n") + 2 - at) <= CLIENT_ATTRS_LINE_MAX);
    return all;
}

static void test_commands(void **state) {
    (void)state;
    assert_string_equal(
        commands(CLIENT_ATTRS_XCLIENT, &alice),
        "XCLIENT NAME=a.example ADDR=192.0.2.7 PORT=4711 HELO=alice-pc PROTO=ESMTP LOGIN=alice@example.net\r\n");
    assert_string_equal(
        commands(CLIENT_ATTRS_XFORWARD, &alice),
        "XFORWARD NAME=a.example ADDR=192.0.2.7 PORT=4711 SOURCE=LOCAL IDENT=0ABC HELO=alice-pc PROTO=ESMTP\r\n");
    const struct client_attrs nobody = {.addr = SPAN("2001:db8::1"), .protocol = SPAN("SMTP")};
    assert_string_equal(commands(CLIENT_ATTRS_XCLIENT, &nobody),
                        "XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] "
                        "PROTO=SMTP LOGIN=[UNAVAILABLE]\r\n");
}

/* Only what the server listed, and nothing at all where that is nothing of ours. */
static void test_offered(void **state) {
    (void)state;
    struct buf out;
    uint32_t group = 0, some = client_attrs_offered(CLIENT_ATTRS_XCLIENT, SPAN("addr DESTADDR IDENT helo"));
    buf_init(&out, 4096);
    assert_true(client_attrs_put(&out, CLIENT_ATTRS_XCLIENT, some, &alice, &group));
    assert_string_equal(buf_cstr(&out), "XCLIENT ADDR=192.0.2.7 HELO=alice-pc\r\n");
    assert_false(client_attrs_put(&out, CLIENT_ATTRS_XCLIENT, some, &alice, &group));
    assert_string_equal(buf_cstr(&out), "XCLIENT ADDR=192.0.2.7 HELO=alice-pc\r\n");
    buf_deinit(&out);
    assert_int_equal(client_attrs_offered(CLIENT_ATTRS_XCLIENT, SPAN("IDENT SOURCE")), 0);
    assert_int_equal(client_attrs_offered(CLIENT_ATTRS_XFORWARD, SPAN("LOGIN")), 0);
    assert_int_equal(client_attrs_offered(CLIENT_ATTRS_XFORWARD, SPAN_EMPTY), 0);
}

static void test_hostile(void **state) {
    (void)state;
    const struct client_attrs coded = {.addr = SPAN("unix:/x"),
                                       .name = SPAN("a b"),
                                       .helo = SPAN("x+y=z \xc3\xa9"),
                                       .protocol = SPAN("ESMTP"),
                                       .login = SPAN("a\r\nMAIL FROM:<x@y>")};
    assert_string_equal(commands(CLIENT_ATTRS_XCLIENT, &coded),
                        "XCLIENT NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=x+2By+3Dz+20+C3+A9 "
                        "PROTO=ESMTP LOGIN=[UNAVAILABLE]\r\n");
    char octets[1000];
    for (int c = 0; c < 256; c++) { /* no octet adds a line or an attribute */
        memset(octets, c, sizeof octets);
        for (size_t len = 1; len <= sizeof octets; len += len < 300 ? 7 : 233) {
            struct span s = span_make(octets, len);
            const struct client_attrs a = {s, s, s, s, s, s, 65535, false};
            for (int verb = 0; verb < 2; verb++) {
                const char *said = commands((enum client_attrs_verb)verb, &a);
                size_t lines = 0;
                for (const char *at = said; *at; at++) {
                    assert_true(*at == '\r' || *at == '\n' || (*at >= 0x20 && *at < 0x7f));
                    lines += *at == '\n';
                }
                assert_in_range(lines, 1, 3);
            }
        }
    }
}

static void fill_name(char *name, size_t len, char c) {
    for (size_t i = 0; i < len; i++)
        name[i] = i % 64 == 63 ? '.' : c;
}

/* Names that Postfix refuses with the whole command, which would make the mail look like ours. */
static void test_names(void **state) {
    (void)state;
    static const char *const bad[] = {"-a.example", "a-.example", "a.-b", "a.b-", "a..example",
                                      ".example",   "example.",   "-",    "."};
    struct client_attrs a = alice;
    char label[80];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        a.name = span_of(bad[i]);
        assert_non_null(strstr(commands(CLIENT_ATTRS_XCLIENT, &a), " NAME=[UNAVAILABLE] ADDR=192.0.2.7 "));
        assert_false(client_attrs_is_hello(a.name));
    }
    memset(label, 'x', 64);
    snprintf(label + 64, sizeof label - 64, ".example");
    a.name = span_of(label);
    assert_non_null(strstr(commands(CLIENT_ATTRS_XCLIENT, &a), " NAME=[UNAVAILABLE] "));
    a.name = span_of(label + 1);
    assert_non_null(strstr(commands(CLIENT_ATTRS_XCLIENT, &a), " NAME=xxx"));
    a.name = SPAN("a_b.4-2.example");
    assert_non_null(strstr(commands(CLIENT_ATTRS_XCLIENT, &a), " NAME=a_b.4-2.example "));
}

/* What is long goes out in several commands; HELO, PROTO and LOGIN in the last one together. */
static void test_split(void **state) {
    (void)state;
    char name[256], helo[256];
    fill_name(name, 255, 'n');
    fill_name(helo, 255, 'h');
    struct client_attrs a = alice;
    a.name = span_make(name, 255);
    a.helo = span_make(helo, 255);
    const char *said = commands(CLIENT_ATTRS_XCLIENT, &a), *second = strstr(said, "\r\n") + 2;
    assert_memory_equal(said, "XCLIENT NAME=nnnn", 17);
    assert_memory_equal(second, "XCLIENT HELO=hhhh", 17);
    assert_non_null(strstr(second, " PROTO=ESMTP LOGIN=alice@example.net\r\n"));
    assert_null(strstr(second, "\r\nX"));
    assert_non_null(strstr(said, " ADDR=192.0.2.7"));
    a.helo = span_make(helo, 200);
    char spaces[200];
    memset(spaces, ' ', sizeof spaces); /* three octets each */
    a.login = span_make(spaces, 60);
    assert_non_null(strstr(commands(CLIENT_ATTRS_XCLIENT, &a), " LOGIN=+20+20"));
    a.login = span_make(spaces, 67);
    assert_non_null(strstr(commands(CLIENT_ATTRS_XCLIENT, &a), " LOGIN=[UNAVAILABLE]\r\n"));
}

static void test_hello(void **state) {
    (void)state;
    assert_true(client_attrs_is_hello(SPAN("mail.example.net")) && client_attrs_is_hello(SPAN("[192.0.2.1]")));
    assert_true(client_attrs_is_hello(SPAN("[IPv6:2001:db8::1]")) && client_attrs_is_hello(SPAN("my_pc")));
    assert_false(client_attrs_is_hello(SPAN("")) || client_attrs_is_hello(SPAN("a b")));
    assert_false(client_attrs_is_hello(SPAN("[a b]")) || client_attrs_is_hello(SPAN("a\r\nb")));
    assert_false(client_attrs_is_hello(SPAN("[]")) || client_attrs_is_hello(SPAN("\xc3\xa9")));
}

/* -- in the dialogue -- */

struct talk {
    struct client c;
    struct client_event e;
};

/* The server says it; what the core says then. */
static const char *say(struct talk *t, const char *text) {
    static char said[8192];
    struct span in = span_of(text);
    client_next(&t->c, &in, &t->e);
    snprintf(said, sizeof said, "%s", buf_cstr(&t->c.out));
    buf_clear(&t->c.out);
    return said;
}

#define EHLO_LINES "250-mx\r\n250-XCLIENT NAME ADDR HELO\r\n250 XFORWARD NAME IDENT\r\n"
#define INTRO "XCLIENT NAME=a.example ADDR=192.0.2.7 HELO=alice-pc\r\n"

static void open_session(struct talk *t, const char *ehlo) {
    memset(t, 0, sizeof *t);
    client_init(&t->c, CLIENT_SMTP, "me.example");
    assert_string_equal(say(t, "220 mx\r\n"), "EHLO me.example\r\n");
    say(t, ehlo);
    assert_int_equal(t->e.kind, CLIENT_EV_READY);
}

static const char *introduce(struct talk *t, const struct client_attrs *a) {
    assert_int_equal(client_speaks_for(&t->c, a), CLIENT_SPEAKS_MAY_ASK);
    client_introduce(&t->c, a);
    return say(t, "");
}

static void test_introduction(void **state) {
    (void)state;
    struct talk t;
    struct client_attrs bob = alice;
    bob.helo = SPAN("bob pc"); /* not for EHLO */
    open_session(&t, EHLO_LINES);
    assert_int_equal(client_speaks_for(&t.c, NULL), CLIENT_SPEAKS_PLAIN);
    assert_string_equal(introduce(&t, &alice), INTRO);
    assert_string_equal(say(&t, "220 mx again\r\n"), "EHLO alice-pc\r\n");
    assert_string_equal(say(&t, EHLO_LINES), "");
    assert_int_equal(t.e.kind, CLIENT_EV_READY);
    assert_int_equal(client_speaks_for(&t.c, &alice), CLIENT_SPEAKS_FOR_IT);
    assert_int_equal(client_speaks_for(&t.c, NULL), CLIENT_SPEAKS_OTHER);
    assert_string_equal(introduce(&t, &bob), "XCLIENT NAME=a.example ADDR=192.0.2.7 HELO=bob+20pc\r\n");
    assert_string_equal(say(&t, "220 mx again\r\n"), "EHLO me.example\r\n");
    say(&t, "250-mx\r\n250 XCLIENT ADDR\r\n"); /* it lists fewer now: all that were told are told again */
    assert_int_equal(client_speaks_for(&t.c, &bob), CLIENT_SPEAKS_FOR_IT);
    assert_string_equal(introduce(&t, &alice), INTRO);
    say(&t, "220 mx again\r\n");
    say(&t, "250 mx\r\n"); /* and now it has none of it */
    assert_int_equal(client_speaks_for(&t.c, &alice), CLIENT_SPEAKS_FOR_IT);
    assert_int_equal(client_speaks_for(&t.c, &bob), CLIENT_SPEAKS_OTHER);
    client_deinit(&t.c);
}

static void test_introduction_refused(void **state) {
    (void)state;
    static const char *const refusals[] = {"501 5.5.4 bad\r\n", "503 5.5.1 not now\r\n", "550 5.7.0 no\r\n",
                                           "450 later\r\n"};
    struct client_attrs bob = alice;
    bob.name = SPAN("b.example");
    for (size_t i = 0; i < 4; i++) {
        struct talk t;
        open_session(&t, EHLO_LINES);
        introduce(&t, &alice);
        assert_string_equal(say(&t, refusals[i]), "");
        assert_int_equal(t.e.kind, CLIENT_EV_READY); /* goes on without */
        assert_int_equal(client_speaks_for(&t.c, &alice), CLIENT_SPEAKS_PLAIN);
        client_deinit(&t.c);
        open_session(&t, EHLO_LINES); /* but not in the name of another client */
        introduce(&t, &alice);
        say(&t, "220 mx\r\n");
        say(&t, EHLO_LINES);
        introduce(&t, &bob);
        assert_string_equal(say(&t, refusals[i]), "QUIT\r\n");
        assert_int_equal(t.e.kind, CLIENT_EV_END);
        assert_int_equal(t.e.stage, CLIENT_XCLIENT);
        client_deinit(&t.c);
    }
    struct talk t;
    open_session(&t, "250 mx\r\n");
    assert_int_equal(client_speaks_for(&t.c, &alice), CLIENT_SPEAKS_PLAIN);
    client_deinit(&t.c);
    for (size_t i = 0; i < 2; i++) {
        open_session(&t, EHLO_LINES);
        introduce(&t, &alice);
        say(&t, i ? "354 what\r\n" : "421 bye\r\n");
        assert_int_equal(t.e.kind, CLIENT_EV_END);
        client_deinit(&t.c);
    }
}

/* Of two commands the second is refused: what was taken holds, and the session is never given to another client. */
static void test_half_introduced(void **state) {
    (void)state;
    char name[255], helo[255];
    struct talk t;
    struct client_attrs a = alice, bob = alice;
    fill_name(name, sizeof name, 'n');
    fill_name(helo, sizeof helo, 'h');
    a.name = span_make(name, sizeof name);
    a.helo = span_make(helo, sizeof helo);
    open_session(&t, EHLO_LINES);
    assert_memory_equal(introduce(&t, &a), "XCLIENT NAME=nn", 15);
    assert_memory_equal(say(&t, "220 mx\r\n"), "XCLIENT HELO=hh", 15);
    assert_memory_equal(say(&t, "501 no\r\n"), "EHLO hh", 7);
    say(&t, EHLO_LINES);
    assert_int_equal(client_speaks_for(&t.c, &a), CLIENT_SPEAKS_FOR_IT);
    assert_int_equal(client_speaks_for(&t.c, &bob), CLIENT_SPEAKS_OTHER);
    client_deinit(&t.c);
}

/* Values of one client that a server does not like are no reason to let the next one pass for us. */
static void test_declined(void **state) {
    (void)state;
    struct talk t;
    struct client_attrs bob = alice;
    bob.name = SPAN("b.example");
    open_session(&t, EHLO_LINES);
    assert_int_equal(client_speaks_for(&t.c, &alice), CLIENT_SPEAKS_MAY_ASK);
    introduce(&t, &alice);
    assert_string_equal(say(&t, "501 5.5.4 bad NAME\r\n"), "");
    assert_int_equal(client_speaks_for(&t.c, &alice), CLIENT_SPEAKS_PLAIN);
    assert_int_equal(client_speaks_for(&t.c, NULL), CLIENT_SPEAKS_PLAIN);
    assert_int_equal(client_speaks_for(&t.c, &bob), CLIENT_SPEAKS_MAY_ASK);
    introduce(&t, &bob);
    assert_memory_equal(say(&t, "220 mx\r\n"), "EHLO ", 5);
    say(&t, EHLO_LINES);
    assert_int_equal(client_speaks_for(&t.c, &bob), CLIENT_SPEAKS_FOR_IT);
    client_deinit(&t.c);
    open_session(&t, EHLO_LINES);
    introduce(&t, &alice);
    say(&t, "550 5.7.0 not from you\r\n");
    assert_int_equal(client_speaks_for(&t.c, &bob), CLIENT_SPEAKS_PLAIN);
    client_deinit(&t.c);
}

static void test_forward(void **state) {
    (void)state;
    static const struct client_recipient to = {.address = {"b@x.example", 11}};
    static const struct client_mail mail = {
        .sender = {"a@x.example", 11}, .recipients = &to, .count = 1, .forward = &alice};
    struct talk t;
    open_session(&t, EHLO_LINES);
    assert_int_equal(client_begin(&t.c, &mail), ERR_OK);
    assert_string_equal(say(&t, ""), "XFORWARD NAME=a.example IDENT=0ABC\r\n");
    assert_string_equal(say(&t, "250 fine\r\n"), "MAIL FROM:<a@x.example>\r\n");
    say(&t, "550 no\r\n");
    say(&t, "");
    assert_int_equal(t.c.state, CLIENT_READY);
    assert_int_equal(client_begin(&t.c, &mail), ERR_OK); /* for each message */
    assert_string_equal(say(&t, ""), "XFORWARD NAME=a.example IDENT=0ABC\r\n");
    assert_string_equal(say(&t, "501 5.5.4 no\r\n"), "MAIL FROM:<a@x.example>\r\n");
    say(&t, "550 no\r\n");
    say(&t, "");
    assert_int_equal(client_begin(&t.c, &mail), ERR_OK); /* and never again where it is refused */
    assert_string_equal(say(&t, ""), "MAIL FROM:<a@x.example>\r\n");
    client_deinit(&t.c);
    open_session(&t, EHLO_LINES);
    assert_int_equal(client_begin(&t.c, &mail), ERR_OK);
    say(&t, "");
    say(&t, "421 bye\r\n");
    assert_int_equal(t.e.kind, CLIENT_EV_END);
    assert_int_equal(t.e.stage, CLIENT_XFORWARD);
    client_deinit(&t.c);
    static const struct client_recipient bad = {.address = {"b\n@x.example", 12}};
    static const struct client_mail unsendable = {
        .sender = {"a@x.example", 11}, .recipients = &bad, .count = 1, .forward = &alice};
    open_session(&t, EHLO_LINES);
    assert_int_equal(client_begin(&t.c, &unsendable), ERR_INVALID); /* before a word of it */
    assert_string_equal(say(&t, ""), "");
    client_deinit(&t.c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),        cmocka_unit_test(test_offered),
        cmocka_unit_test(test_hostile),         cmocka_unit_test(test_names),
        cmocka_unit_test(test_split),           cmocka_unit_test(test_hello),
        cmocka_unit_test(test_introduction),    cmocka_unit_test(test_introduction_refused),
        cmocka_unit_test(test_half_introduced), cmocka_unit_test(test_declined),
        cmocka_unit_test(test_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
