/*
 * The server core: dialogues, each run whole, octet by octet and with every cut into two, must give the
 * same replies and steps; and the rules that a table of dialogues cannot show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/support/smtp_transcript.h"

static struct server_settings settings, normal, full, strict;

static int setup(void **state) {
    struct server_config c;
    (void)state;
    transcript_config(&c);
    assert_int_equal(server_settings_init(&settings, &c), ERR_OK);
    c.normalize = true;
    c.vrfy = true;
    assert_int_equal(server_settings_init(&normal, &c), ERR_OK);
    transcript_config(&c);
    c.extensions = ~0u;
    c.deliverby_min_s = 60;
    assert_int_equal(server_settings_init(&full, &c), ERR_OK);
    c.tls_required = c.auth_required = c.ask_helo = c.ask_data = true;
    assert_int_equal(server_settings_init(&strict, &c), ERR_OK);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    server_settings_deinit(&settings);
    server_settings_deinit(&normal);
    server_settings_deinit(&full);
    server_settings_deinit(&strict);
    return 0;
}

/* The transcript of input cut at `cut` (SIZE_MAX: octet by octet). The caller frees. */
static char *run(const struct server_settings *with, struct span input, size_t cut) {
    struct transcript t;
    transcript_open(&t, with, false);
    transcript_flush(&t);
    if (cut == SIZE_MAX) {
        for (size_t i = 0; i < input.len; i++)
            transcript_feed(&t, span_make(input.at + i, 1));
    } else {
        transcript_feed(&t, span_first(input, cut));
        transcript_feed(&t, span_from(input, cut));
    }
    char *text = strdup(buf_cstr(&t.text));
    transcript_close(&t);
    return text;
}

/* Every way to cut gives one transcript; returns it. */
static char *run_all(const struct server_settings *with, struct span input) {
    char *whole = run(with, input, input.len);
    for (size_t cut = 0; cut < input.len; cut++) {
        char *again = run(with, input, cut);
        if (strcmp(again, whole) != 0)
            print_message("cut at %zu:\n%s", cut, again);
        assert_string_equal(again, whole);
        free(again);
    }
    char *octets = run(with, input, SIZE_MAX);
    assert_string_equal(octets, whole);
    free(octets);
    return whole;
}

#define HELLO "EHLO client.example\r\n"
#define BEGIN HELLO "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\n"

static void expect(const char *name, struct span input, const char *wanted, const char *unwanted,
                   const struct server_settings *with) {
    char *text = run_all(with, input);
    if ((wanted && !strstr(text, wanted)) || (unwanted && strstr(text, unwanted)))
        print_message("%s:\n%s\n", name, text);
    if (wanted)
        assert_non_null(strstr(text, wanted));
    if (unwanted)
        assert_null(strstr(text, unwanted));
    free(text);
}
#define EXPECT(input, wanted, unwanted) expect(#input, SPAN(input), wanted, unwanted, &settings)
#define EXPECT_NORMAL(input, wanted, unwanted) expect(#input, SPAN(input), wanted, unwanted, &normal)
#define EXPECT_FULL(input, wanted, unwanted) expect(#input, SPAN(input), wanted, unwanted, &full)
#define EXPECT_STRICT(input, wanted, unwanted) expect(#input, SPAN(input), wanted, unwanted, &strict)

#define SECURE HELLO "STARTTLS\r\n" HELLO
#define GOOD "AGdvb2Q=" /* NUL good */

/* RFC 3207: everything is forgotten behind the handshake. */
static void test_starttls(void **state) {
    (void)state;
    EXPECT_FULL(HELLO, "250-STARTTLS\n", "250-AUTH");
    EXPECT_FULL(SECURE, "S: 220 2.0.0 ready for TLS\n[TLS]\nS: 250-mx.example\n", NULL);
    EXPECT_FULL(SECURE, "S: 250-AUTH PLAIN LOGIN\nS: 250-REQUIRETLS\n", NULL);
    EXPECT_FULL(SECURE "STARTTLS\r\n", "S: 503 5.5.1 TLS is on already", NULL);
    EXPECT_FULL(HELLO "STARTTLS now\r\n", "S: 501 5.5.4", "[TLS]");
    EXPECT_FULL(HELLO "STARTTLS\r\nMAIL FROM:<a@b.example>\r\n", "[TLS]\nS: 503 5.5.1", "[MAIL");
    EXPECT_FULL(BEGIN "STARTTLS\r\nRCPT TO:<x@y.example>\r\nDATA\r\n", "[TLS]\n[ABORT]\nS: 503 5.5.1 command out of",
                "354");
    EXPECT_FULL(SECURE "AUTH PLAIN " GOOD "\r\nSTARTTLS\r\nEHLO x\r\n", "S: 235", "S: 235 2.7.0 welcome\n[TLS]");
}

/* Its exchange must not stay with the owner, who may be asked for the next one at once. */
static void test_response_too_long(void) {
    static char input[16384];
    size_t len = span_copy(SPAN(SECURE "AUTH LOGIN\r\n"), input, sizeof input);
    memset(input + len, 'A', 13000);
    len += 13000;
    len += span_copy(SPAN("\r\nNOOP\r\n"), input + len, sizeof input - len);
    expect("a response without end", span_make(input, len), "S: 500 5.5.2 line too long\n[CANCEL]\nS: 250", "[RESPONSE",
           &full);
}

static void test_auth(void **state) {
    (void)state;
    EXPECT_FULL(HELLO "AUTH PLAIN " GOOD "\r\n", "S: 538 5.7.11", "[AUTH");
    EXPECT_FULL(SECURE "AUTH PLAIN " GOOD "\r\n", "[AUTH PLAIN ", NULL);
    EXPECT_FULL(SECURE "AUTH plain " GOOD "\r\nAUTH PLAIN " GOOD "\r\n",
                "S: 235 2.7.0 welcome\nS: 503 5.5.1 you are authenticated already\n", NULL);
    EXPECT_FULL(SECURE "AUTH PLAIN " GOOD "\r\nEHLO again\r\n", "S: 235", "again\n250-AUTH");
    EXPECT_FULL(SECURE "AUTH LOGIN\r\n" GOOD "\r\n", "[AUTH LOGIN]\nS: 334 d2hvPw==\n[RESPONSE ", NULL);
    EXPECT_FULL(SECURE "AUTH LOGIN\r\n*\r\nNOOP\r\n", "S: 501 5.0.0 authentication canceled\n[CANCEL]\nS: 250",
                "[RESPONSE");
    EXPECT_FULL(SECURE "AUTH LOGIN\r\n!!!!\r\nNOOP\r\n", "S: 501 5.5.2 that is not base64\n[CANCEL]\nS: 250",
                "[RESPONSE");
    test_response_too_long();
    EXPECT_FULL(SECURE "AUTH LOGIN\r\nQUIT\r\nNOOP\r\n", "[RESPONSE ", "221"); /* four base64 digits, no command */
    EXPECT_FULL(SECURE "AUTH LOGIN\r\nRSET x\r\nNOOP\r\n", "S: 501 5.5.2", "[RESPONSE");
    EXPECT_FULL(SECURE "AUTH PLAIN =\r\n", "[AUTH PLAIN ]\nS: 535", NULL);
    EXPECT_FULL(SECURE "AUTH PLAIN a=b=\r\n", "S: 501 5.5.2", "[AUTH");
    EXPECT_FULL(SECURE "AUTH CRAM-MD5\r\n", "S: 504 5.5.4", "[AUTH");
    EXPECT_FULL(SECURE "AUTH\r\n", "S: 501 5.5.4", "[AUTH");
    EXPECT_FULL("AUTH PLAIN\r\n", "S: 503 5.5.1", "[AUTH");
    EXPECT_FULL(SECURE "MAIL FROM:<a@b.example>\r\nAUTH PLAIN " GOOD "\r\n", "S: 503 5.5.1 command out of order",
                "[AUTH");
    EXPECT_FULL(SECURE "AUTH PLAIN YQ==\r\nAUTH PLAIN YQ==\r\nAUTH PLAIN YQ==\r\nNOOP\r\n",
                "S: 535 5.7.8 no\nS: 421 4.7.0 too many failed logins\n[CLOSE]\n", "S: 250 2.0.0");
    EXPECT_FULL(SECURE "MAIL FROM:<a@b.example> AUTH=<>\r\n", "[MAIL a@b.example", "555");
    EXPECT_FULL(SECURE "MAIL FROM:<a@b.example> AUTH=a+3\r\n", "S: 501 5.5.4 bad AUTH", "[MAIL");
}

static void test_required(void **state) {
    (void)state;
    EXPECT_STRICT(HELLO "MAIL FROM:<a@b.example>\r\n", "S: 530 5.7.0 say STARTTLS first", "[MAIL");
    EXPECT_STRICT(HELLO "AUTH LOGIN\r\n", "S: 530 5.7.0 say STARTTLS first", "[AUTH");
    EXPECT_STRICT(SECURE "MAIL FROM:<a@b.example>\r\n", "S: 530 5.7.0 authentication is required", "[MAIL");
    EXPECT_STRICT(SECURE "AUTH PLAIN " GOOD "\r\nMAIL FROM:<a@b.example>\r\n", "[MAIL a@b.example", NULL);
}

/* The owner is asked where it wants to be, and its no leaves a clean state. */
static void test_asked(void **state) {
    (void)state;
    EXPECT_STRICT("EHLO refused.example\r\nMAIL FROM:<a@b.example>\r\n",
                  "[HELO refused.example]\nS: 550 5.7.1 not you\nS: 503", "250-");
    EXPECT_STRICT("HELO client.example\r\n", "[HELO client.example]\nS: 250 mx.example\n", NULL);
#define LOGGED_IN SECURE "AUTH PLAIN " GOOD "\r\n"
    EXPECT_STRICT(LOGGED_IN "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\nhi\r\n.\r\n",
                  "[DATA]\nS: 354 end with CRLF.CRLF\n[END 4 hops=0]\nhi\\x0d\\x0a\nS: 250", NULL);
    EXPECT_STRICT(LOGGED_IN "MAIL FROM:<nodata@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\nNOOP\r\n",
                  "[DATA]\nS: 451 4.7.1 not now\n[ABORT]\nS: 250 2.0.0 ok\n", "354");
    EXPECT_STRICT(LOGGED_IN "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nBDAT 4 LAST\r\nhi\r\n",
                  "[DATA]\n[END 4 hops=0]\nhi", NULL);
    EXPECT_STRICT(LOGGED_IN "MAIL FROM:<nodata@b.example>\r\nRCPT TO:<x@y.example>\r\nBDAT 4\r\nhi\r\nBDAT 0 LAST\r\n",
                  "[DATA]\n[ABORT]\nS: 451 4.7.1 not now\nS: 503", "[END");
}

static void test_newer_extensions(void **state) {
    (void)state;
    EXPECT_FULL(HELLO, "S: 250-MT-PRIORITY MIXER\nS: 250-DELIVERBY 60\n", "REQUIRETLS");
    EXPECT_FULL(HELLO, "S: 250-FUTURERELEASE 86400 1970-01-02T00:00:00Z\n", NULL);
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> REQUIRETLS\r\n", "S: 555 5.5.4", "[MAIL");
    EXPECT_FULL(SECURE "MAIL FROM:<a@b.example> REQUIRETLS\r\n", "[MAIL a@b.example", NULL);
    EXPECT_FULL(SECURE "MAIL FROM:<a@b.example> REQUIRETLS=1\r\n", "S: 501 5.5.4", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> MT-PRIORITY=-9\r\n", "[MAIL", NULL);
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> MT-PRIORITY=10\r\n", "S: 501", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> MT-PRIORITY=+1\r\n", "S: 501", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> BY=120;R\r\n", "[MAIL", NULL);
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> BY=-5;NT\r\n", "[MAIL", NULL);
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> BY=59;R\r\n", "S: 501 5.5.4 BY is too short", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> BY=-5;R\r\n", "S: 501 5.5.4 bad BY", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> BY=5\r\n", "S: 501 5.5.4 bad BY", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> BY=1234567890;R\r\n", "S: 501 5.5.4 bad BY", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> HOLDFOR=3600\r\n", "[MAIL", NULL);
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> HOLDFOR=90000\r\n", "S: 501 5.5.4 HOLDFOR is too long", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> HOLDUNTIL=1970-01-01T12:00:00Z\r\n", "[MAIL", NULL);
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> HOLDUNTIL=2070-01-01T12:00:00Z\r\n", "S: 501", "[MAIL");
    EXPECT_FULL(HELLO "MAIL FROM:<a@b.example> HOLDFOR=9 HOLDUNTIL=1970-01-01T12:00:00Z\r\n", "S: 501", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> HOLDFOR=3600\r\n", "S: 555", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> BY=120;R\r\n", "S: 555", "[MAIL");
}

static void test_xclient(void **state) {
    struct transcript t;
    (void)state;
    EXPECT_FULL(HELLO "XCLIENT ADDR=192.0.2.1\r\n", "S: 550 5.7.0", "[XCLIENT");
    transcript_open(&t, &full, false);
    t.server.xclient = true;
    transcript_flush(&t);
    transcript_feed(&t, SPAN(HELLO "XCLIENT ADDR=192.0.2.1\r\nMAIL FROM:<a@b.example>\r\n" HELLO "XCLIENT x\r\n"));
    assert_non_null(strstr(buf_cstr(&t.text), "250-XCLIENT NAME ADDR"));
    assert_non_null(strstr(buf_cstr(&t.text), "[XCLIENT ADDR=192.0.2.1]\nS: 220 mx.example ESMTP Posthouse\nS: 503"));
    assert_non_null(strstr(buf_cstr(&t.text), "S: 501 5.5.4 bad attributes"));
    transcript_close(&t);
}

static void test_simple_message(void **state) {
    (void)state;
    EXPECT(BEGIN "DATA\r\nSubject: hi\r\n\r\n..dot\r\n.x\r\nend\r\n.\r\nQUIT\r\n",
           "S: 354 end with CRLF.CRLF\n[END 29 hops=0]\n"
           "Subject: hi\\x0d\\x0a\\x0d\\x0a.dot\\x0d\\x0ax\\x0d\\x0aend\\x0d\\x0a\n"
           "S: 250 2.0.0 stored\nS: 221 2.0.0 bye\n[CLOSE]\n",
           NULL);
}

static void test_two_messages_pipelined(void **state) {
    (void)state;
    EXPECT(BEGIN "DATA\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nDATA\r\nb\r\n.\r\n",
           "[END 0 hops=0]\n\nS: 250 2.0.0 stored\n[MAIL  size=0]\nS: 250 2.1.0 ok\n", "ABORT");
}

static void test_ehlo_and_helo(void **state) {
    (void)state;
    EXPECT(HELLO, "S: 250-SIZE 100000\n", NULL);
    EXPECT(HELLO, "S: 250-LIMITS RCPTMAX=100\n", "STARTTLS");
    EXPECT("HELO me\r\nMAIL FROM:<a@b.example> SIZE=3\r\n", "S: 250 mx.example\nS: 555 5.5.4", "PIPELINING");
    EXPECT("EHLO\r\n", "S: 501 5.5.4", "250");
    EXPECT("EHLO a\x80\r\n", "S: 501 5.5.4", "250");
    EXPECT(BEGIN "EHLO again\r\nDATA\r\n", "[ABORT]\nS: 503 5.5.1", "354");
}

static void test_order(void **state) {
    (void)state;
    EXPECT("MAIL FROM:<a@b.example>\r\n", "S: 503 5.5.1", "[MAIL");
    EXPECT("NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\nQUIT\r\n", "S: 250 2.0.0 ok\nS: 250 2.0.0 ok\nS: 252 2.0.0", "503");
    EXPECT(HELLO "RCPT TO:<x@y.example>\r\n", "S: 503 5.5.1", "[RCPT");
    EXPECT(BEGIN "MAIL FROM:<c@d.example>\r\nDATA\r\n.\r\n", "S: 503 5.5.1 command out of order\nS: 354",
           "c@d.example");
    EXPECT(HELLO "MAIL FROM:<a@b.example>\r\nDATA\r\n", "S: 503 5.5.1", "354");
    EXPECT(HELLO "MAIL FROM:<a@b.example>\r\nRCPT TO:<unknown@y.example>\r\nDATA\r\n", "S: 550 5.1.1 unknown\nS: 503",
           "354");
    EXPECT("DATA x\r\nRSET x\r\nQUIT x\r\nNOOP x\r\n", "S: 503 5.5.1 command out of order\nS: 501 5.5.4", "221");
    EXPECT("FOO\r\nSTARTTLS\r\nAUTH PLAIN\r\n",
           "S: 500 5.5.2 unknown command\nS: 502 5.5.1 command not implemented\nS: 502", NULL);
}

static void test_parameters(void **state) {
    (void)state;
    EXPECT(HELLO "MAIL FROM:<a@b.example> SIZE=100001\r\n", "S: 552 5.3.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> SIZE=99999999999999999999\r\n", "S: 552 5.3.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> SIZE=1x\r\n", "S: 501 5.5.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> SIZE=1 SIZE=2\r\n", "S: 501 5.5.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> FOO=1\r\n", "S: 555 5.5.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> BODY=BINARYMIME\r\n", "S: 501 5.5.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<a@b.example> BODY=8BITMIME RET=HDRS ENVID=x+2By\r\n", "[MAIL a@b.example size=0]", NULL);
    EXPECT(HELLO "MAIL FROM:<a@b.example> ENVID=x+0D+0Ay\r\n", "S: 501 5.5.4", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<\xc3\xa9@b.example>\r\n", "S: 553 5.6.7", "[MAIL");
    EXPECT(HELLO "MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8\r\n", "utf8]", "553");
    EXPECT(HELLO "MAIL FROM:a@b.example\r\n", "S: 501 5.1.7", "[MAIL");
    EXPECT(BEGIN "RCPT TO:<z@y.example> NOTIFY=NEVER,FAILURE\r\n", "S: 501 5.5.4", "z@y");
    EXPECT(BEGIN "RCPT TO:<z@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Z+40y.example\r\n",
           "[RCPT z@y.example notify=10 orcpt=rfc822;Z@y.example]", NULL);
    EXPECT(BEGIN "RCPT TO:<z@y.example> ORCPT=rfc822;a+0Ab\r\n", "S: 501 5.5.4", "z@y");
    EXPECT(BEGIN "RCPT TO:<z@y.example>x\r\n", "S: 501 5.5.4", "[RCPT z@y");
    EXPECT(BEGIN "RCPT TO:<>\r\n", "S: 501 5.1.3", NULL);
    EXPECT(HELLO "MAIL FROM:<refused@b.example>\r\nRCPT TO:<x@y.example>\r\n", "S: 550 5.7.1 no\nS: 503", "[RCPT");
}

static void test_bare_newlines_in_commands(void **state) {
    (void)state;
    EXPECT("NOOP\nQUIT\r\n", "S: 500 5.5.2 bare CR or LF in a command\n[CLOSE]", "221");
    EXPECT("NOOP\rQUIT\r\nNOOP\r\n", "S: 500 5.5.2 bare CR or LF in a command\n[CLOSE]", "250 2");
    EXPECT("NOOP\r\r\n", "S: 500 5.5.2 bare CR or LF in a command\n[CLOSE]", NULL);
    EXPECT_NORMAL("NOOP\nQUIT\r\n", "S: 250 2.0.0 ok\nS: 221", NULL);
    EXPECT("NO\0OP\r\nNOOP\r\n", "S: 500 5.5.2 NUL in a command\nS: 250 2.0.0 ok", NULL);
}

/* Every form of an end of data that is not CRLF.CRLF: one message at most, and the smuggled commands never run. */
#define SMUGGLED "MAIL FROM:<evil@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\nevil\r\n.\r\n"
static void test_smuggling(void **state) {
    static const char *const ends[] = {"\n.\n",         "\n.\r\n",   "\r\n.\n",     "\r.\r",
                                       "\r.\r\n",       "\r\n.\r",   "\n.\r",       "\r.\n",
                                       "\r\r\n.\r\r\n", "\n\n.\n\n", "\r\n\r.\r\n", "\r\n.\r\r\n",
                                       "\r\n.\n\r\n",   "\n\r.\n\r", "\r\n\n.\r\n", "\r\n.\0\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char input[512];
        int len = snprintf(input, sizeof input, BEGIN "DATA\r\nfirst%s" SMUGGLED "QUIT\r\n", ends[i]);
        char *text = run_all(&settings, span_make(input, (size_t)len));
        if (!strstr(text, "S: 554 5.6.0 message holds a bare CR or LF\n[CLOSE]") && i != 15)
            print_message("form %zu:\n%s", i, text);
        if (i != 15) /* cut at the NUL: an ordinary text line */
            assert_non_null(strstr(text, "[ABORT]\nS: 554 5.6.0 message holds a bare CR or LF\n[CLOSE]"));
        assert_null(strstr(text, "[MAIL evil"));
        free(text);
        text = run_all(&normal, span_make(input, (size_t)len));
        assert_null(strstr(text, "[MAIL evil"));
        assert_null(strstr(text, "[ABORT]"));
        free(text);
    }
}

static void test_normalized_body(void **state) {
    (void)state;
    EXPECT_NORMAL(BEGIN "DATA\r\na\nb\rc\r\r\n\n.\n.d\r\n.\r\n",
                  "a\\x0d\\x0ab\\x0d\\x0ac\\x0d\\x0a\\x0d\\x0a\\x0d\\x0a.\\x0d\\x0ad\\x0d\\x0a\n", NULL);
}

static void test_bdat(void **state) {
    (void)state;
    EXPECT(BEGIN "BDAT 4\r\nab\r\nBDAT 5 LAST\r\n.\r\nz\nQUIT\r\n", "[ABORT]\nS: 554 5.6.0", NULL);
    EXPECT(BEGIN "BDAT 4\r\nab\r\nBDAT 6 LAST\r\n.\r\nz\r\nQUIT\r\n",
           "S: 250 2.0.0 octets received: 4\n[END 10 hops=0]\nab\\x0d\\x0a.\\x0d\\x0az\\x0d\\x0a\nS: 250 2.0.0 "
           "stored\nS: 221",
           NULL);
    EXPECT(BEGIN "BDAT 3\r\nab\rBDAT 2 LAST\r\n\nzQUIT\r\n",
           "[END 7 hops=0]\nab\\x0d\\x0az\\x0d\\x0a\nS: 250 2.0.0 stored\nS: 221", NULL);
    EXPECT(BEGIN "BDAT 3\r\nab\rBDAT 1 LAST\r\nzQUIT\r\n", "[ABORT]\nS: 554 5.6.0", "221");
    EXPECT(BEGIN "BDAT 3 LAST\r\nab\rQUIT\r\n", "S: 554 5.6.0", "221");
    EXPECT(BEGIN "BDAT 0 LAST\r\nQUIT\r\n", "[END 0 hops=0]\n\nS: 250 2.0.0 stored\nS: 221", NULL);
    EXPECT(BEGIN "BDAT 0\r\nDATA\r\nRSET\r\n",
           "S: 250 2.0.0 octets received: 0\nS: 503 5.5.1 command out of order\nS: 250 2.0.0 ok\n[ABORT]", "354");
    EXPECT(BEGIN "BDAT 6\r\nQUIT\r\nMAIL FROM:<q@b.example>\r\n", "S: 250 2.0.0 octets received: 6\nS: 503", "221");
}

static void test_bdat_refused(void **state) {
    (void)state;
    EXPECT(BEGIN "BDAT 99999999999999999999\r\nNOOP\r\nBDAT 2\r\nxyRSET\r\nMAIL FROM:<c@d.example>\r\n",
           "S: 501 5.5.4 expected BDAT SIZE [LAST]\n[ABORT]\nS: 250 2.0.0 ok\nS: 503 5.5.1 no valid recipients, or the "
           "transaction has failed\n"
           "S: 250 2.0.0 ok\n[MAIL c@d.example",
           NULL);
    EXPECT(BEGIN "BDAT -1\r\nMAIL FROM:<c@d.example>\r\n", "S: 501 5.5.4", "[MAIL c@d");
    EXPECT(BEGIN "BDAT 1 FIRST\r\n", "S: 501 5.5.4", NULL);
    EXPECT(BEGIN "BDAT\r\n", "S: 501 5.5.4", NULL);
    EXPECT(HELLO "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
           "S: 503 5.5.1 no valid recipients, or the transaction has failed\nS: 250 2.0.0 ok", "221");
    EXPECT(
        HELLO
        "MAIL FROM:<a@b.example>\r\nBDAT 2\r\nxyRCPT TO:<x@y.example>\r\nMAIL FROM:<c@d.example>\r\nBDAT 2 LAST\r\nzz",
        "[ABORT]\nS: 503 5.5.1 no valid recipients, or the transaction has failed\nS: 503 5.5.1 command out of order\n"
        "S: 503 5.5.1 command out of order\nS: 503",
        "[END");
    EXPECT(BEGIN "BDAT 9223372036854775808 LAST\r\n", "S: 501 5.5.4", "[END");
    EXPECT(BEGIN "BDAT 100001 LAST\r\nabc", "[ABORT]", "S: 552");
}

static void test_long_lines(void **state) {
    char input[8000];
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) { /* 998 octets of text fit, 999 do not */
        int at = snprintf(input, sizeof input, BEGIN "DATA\r\n..");
        memset(input + at, 'x', 997 + extra);
        snprintf(input + at + 997 + extra, 32, "\r\n.\r\n");
        char *text = run(&settings, span_of(input), SIZE_MAX);
        assert_non_null(strstr(text, extra ? "S: 554 5.6.0 message holds a line" : "[END 1000 hops=0]"));
        free(text);
    }
    for (size_t len = 500; len < 5000; len += 1500) {
        int at = snprintf(input, sizeof input, "NOOP ");
        memset(input + at, 'x', len);
        snprintf(input + at + len, 32, "\r\nHELP\r\n");
        char *text = run_all(&settings, span_of(input));
        assert_non_null(strstr(text, len == 500 ? "S: 250 2.0.0 ok\nS: 214" : "S: 500 5.5.2 line too long\nS: 214"));
        free(text);
    }
}

static void test_size_and_loop(void **state) {
    (void)state;
    struct buf in;
    buf_init(&in, 1u << 20);
    buf_add_str(&in, BEGIN "DATA\r\n");
    for (int i = 0; i < 1100; i++)
        buf_printf(&in, "%0100d\r\n", i);
    buf_add_str(&in, ".\r\nNOOP\r\n");
    char *text = run(&settings, buf_span(&in), 1000);
    assert_non_null(strstr(text, "[ABORT]\nS: 552 5.3.4 message is over the size limit\nS: 250 2.0.0 ok"));
    free(text);
    for (int hops = 49; hops <= 50; hops++) {
        buf_clear(&in);
        buf_add_str(&in, BEGIN "DATA\r\n");
        for (int i = 0; i < hops; i++)
            buf_add_str(&in, i & 1 ? "RECEIVED: x\r\n\tmore\r\n" : "Received: y\r\n");
        buf_add_str(&in, "Receive: z\r\n\r\nReceived: body\r\n.\r\n");
        text = run_all(&settings, buf_span(&in));
        assert_non_null(strstr(text, hops == 50 ? "S: 554 5.4.6" : "hops=49]"));
        free(text);
    }
    buf_deinit(&in);
}

static void test_eight_bit(void **state) {
    (void)state;
    EXPECT(BEGIN "DATA\r\nplain\r\n.\r\n", "[END 7 hops", "8bit");
    EXPECT(BEGIN "DATA\r\nplain text of more than thirty-two octets and \xff\r\n.\r\n", " 8bit", NULL);
    EXPECT(BEGIN "DATA\r\nnul\0\r\n.\r\n", " 8bit", NULL);
}

static void test_recipients_limit(void **state) {
    struct buf in;
    (void)state;
    buf_init(&in, 1u << 20);
    buf_add_str(&in, HELLO "MAIL FROM:<a@b.example>\r\n");
    for (int i = 0; i < 101; i++)
        buf_printf(&in, "RCPT TO:<r%d@y.example>\r\n", i);
    buf_add_str(&in, "DATA\r\nx\r\n.\r\n");
    char *text = run(&settings, buf_span(&in), 0);
    assert_non_null(strstr(text, "[RCPT r99@"));
    assert_null(strstr(text, "[RCPT r100@"));
    assert_non_null(strstr(text, "S: 452 4.5.3 too many recipients\nS: 354"));
    free(text);
    buf_deinit(&in);
}

/* The count begins anew with each transaction, however the one before ended. */
static void test_recipients_limit_is_per_transaction(void **state) {
    static const char *const ends[] = {"DATA\r\nx\r\n.\r\n", "RSET\r\n", "EHLO again\r\n", "BDAT x\r\nRSET\r\n"};
    struct buf in;
    (void)state;
    buf_init(&in, 1u << 20);
    buf_add_str(&in, HELLO);
    for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
        buf_add_str(&in, "MAIL FROM:<a@b.example>\r\n");
        for (int i = 0; i < 100; i++)
            buf_printf(&in, "RCPT TO:<r%d@y.example>\r\n", i);
        buf_add_str(&in, ends[e]);
    }
    char *text = run(&settings, buf_span(&in), 0);
    assert_null(strstr(text, "S: 452"));
    free(text);
    buf_deinit(&in);
}

static void test_too_many_errors(void **state) {
    (void)state;
    struct buf in;
    buf_init(&in, 1u << 20);
    for (int i = 0; i < 25; i++)
        buf_add_str(&in, "BAD\r\n");
    char *text = run_all(&settings, buf_span(&in));
    assert_non_null(strstr(text, "S: 421 4.7.0 too many errors\n[CLOSE]"));
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, "S: 500")); at++)
        count++;
    assert_int_equal(count, 20);
    free(text);
    buf_deinit(&in);
}

static void test_refused_greeting(void **state) {
    struct transcript t;
    (void)state;
    transcript_open(&t, &settings, true);
    transcript_feed(&t, SPAN("EHLO x\r\nFOO\r\nNOOP\r\nQUIT\r\n"));
    assert_string_equal(buf_cstr(&t.text), "S: 554 no mail service for you here\nS: 503 5.5.1 command out of order\n"
                                           "S: 503 5.5.1 only QUIT is allowed\nS: 503 5.5.1 command out of order\n"
                                           "S: 221 2.0.0 bye\n[CLOSE]\n");
    transcript_close(&t);
}

static void test_drain(void **state) {
    struct transcript t;
    (void)state;
    transcript_open(&t, &settings, false);
    transcript_feed(&t, SPAN(BEGIN "DATA\r\nhalf"));
    server_drain(&t.server);
    assert_false(server_is_between(&t.server));
    transcript_feed(&t, SPAN("\r\n.\r\nMAIL FROM:<c@d.example>\r\n"));
    assert_non_null(strstr(buf_cstr(&t.text), "S: 250 2.0.0 stored\nS: 421 4.3.2 shutting down, try again\n[CLOSE]"));
    transcript_close(&t);
}

static void test_owner_fails_body(void **state) {
    struct transcript t;
    (void)state;
    transcript_open(&t, &settings, false);
    transcript_feed(&t, SPAN(BEGIN "DATA\r\nhalf"));
    server_fail_body(&t.server, transcript_reply(452, "4.3.1", "no room"));
    t.in_body = false;
    transcript_feed(&t, SPAN("\r\nmore\r\n.\r\nNOOP\r\n"));
    assert_non_null(strstr(buf_cstr(&t.text), "S: 452 4.3.1 no room\nS: 250 2.0.0 ok"));
    assert_null(strstr(buf_cstr(&t.text), "ABORT"));
    transcript_close(&t);
}

static void test_endless_line(void **state) {
    struct transcript t;
    static char block[65536];
    (void)state;
    memset(block, 'x', sizeof block);
    transcript_open(&t, &settings, false);
    for (int i = 0; i < 80 && !t.closed; i++) {
        transcript_feed(&t, span_make(block, sizeof block));
        assert_true(t.closed || buf_len(&t.in) == 0);
    }
    assert_true(t.closed);
    transcript_close(&t);
}

static void test_million_chunks(void **state) {
    struct transcript t;
    struct server_config c;
    struct server_settings large;
    (void)state;
    transcript_config(&c);
    c.message_size = 2000000;
    assert_int_equal(server_settings_init(&large, &c), ERR_OK);
    transcript_open(&t, &large, false);
    transcript_feed(&t, SPAN(BEGIN));
    size_t before = t.server.mem.used;
    for (int i = 0; i < 1000000; i++) {
        transcript_feed(&t, SPAN("BDAT 1\r\nx"));
        if (i % 900 == 899)
            transcript_feed(&t, SPAN("BDAT 2\r\n\r\n"));
        buf_clear(&t.text);
    }
    assert_int_equal(t.server.mem.used, before);
    transcript_feed(&t, SPAN("BDAT 0 LAST\r\n"));
    assert_non_null(strstr(buf_cstr(&t.text), "[END 1002224 hops=0]"));
    transcript_close(&t);
    server_settings_deinit(&large);
}

static void test_hostile_local_parts(void **state) {
    (void)state;
    EXPECT(BEGIN "RCPT TO:<\";sh\"@y.example>\r\nRCPT TO:<\"${run{/bin/sh}}\"@y.example>\r\n",
           "[RCPT \";sh\"@y.example", NULL);
    EXPECT(BEGIN "RCPT TO:<;sh@y.example>\r\n", "S: 501 5.1.3", NULL);
}

/* A refused body is read to its end, so that the reply is heard; but not for ever. */
static void test_endless_refused_body(void **state) {
    (void)state;
    for (int bdat = 0; bdat < 2; bdat++) {
        struct transcript t;
        transcript_open(&t, &settings, false);
        transcript_feed(&t, SPAN(BEGIN));
        transcript_feed(&t, bdat ? SPAN("BDAT 999999999\r\n") : SPAN("DATA\r\n"));
        char line[1000];
        memset(line, 'x', sizeof line);
        memcpy(line + 998, "\r\n", 2);
        for (int i = 0; i < 1000 && !t.closed; i++)
            transcript_feed(&t, span_make(line, sizeof line));
        transcript_flush(&t);
        assert_true(t.closed);
        assert_non_null(strstr(buf_cstr(&t.text), "S: 552 5.3.4 message is over the size limit\n[CLOSE]"));
        transcript_close(&t);
    }
}

/* Who never has anything to send is sent away; who sends may do as it likes in between. */
static void test_endless_noops(void **state) {
    (void)state;
    struct transcript t;
    transcript_open(&t, &settings, false);
    transcript_feed(&t, SPAN(HELLO));
    for (int i = 0; i < 300 && !t.closed; i++)
        transcript_feed(&t, SPAN("NOOP\r\n"));
    transcript_flush(&t);
    assert_true(t.closed);
    assert_non_null(strstr(buf_cstr(&t.text), "S: 421 4.7.0 too many errors\n[CLOSE]"));
    transcript_close(&t);
    transcript_open(&t, &settings, false);
    transcript_feed(&t, SPAN(HELLO));
    for (int i = 0; i < 300; i++) {
        if (i % 50 == 0)
            transcript_feed(&t, SPAN("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\n.\r\n"));
        transcript_feed(&t, SPAN("NOOP\r\n"));
    }
    assert_false(t.closed);
    transcript_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endless_refused_body),
        cmocka_unit_test(test_endless_noops),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_auth),
        cmocka_unit_test(test_required),
        cmocka_unit_test(test_asked),
        cmocka_unit_test(test_newer_extensions),
        cmocka_unit_test(test_xclient),
        cmocka_unit_test(test_simple_message),
        cmocka_unit_test(test_two_messages_pipelined),
        cmocka_unit_test(test_ehlo_and_helo),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_bare_newlines_in_commands),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_normalized_body),
        cmocka_unit_test(test_bdat),
        cmocka_unit_test(test_bdat_refused),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_size_and_loop),
        cmocka_unit_test(test_eight_bit),
        cmocka_unit_test(test_recipients_limit),
        cmocka_unit_test(test_recipients_limit_is_per_transaction),
        cmocka_unit_test(test_too_many_errors),
        cmocka_unit_test(test_refused_greeting),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_owner_fails_body),
        cmocka_unit_test(test_endless_line),
        cmocka_unit_test(test_million_chunks),
        cmocka_unit_test(test_hostile_local_parts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
