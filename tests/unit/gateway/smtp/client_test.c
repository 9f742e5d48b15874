/*
 * The client core in scripted dialogues. A script is a row of texts: "S:" the server says, "C:" the core must
 * have put exactly this out since the last look, "E:" the next event, in the words of show().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway/smtp/client.h"

#define GREET "S:220 mx ready", "C:EHLO me.example", "S:250-mx hello"
#define READY "E:ready"

static const char *const answers[CLIENT_ANSWERS] = {"2", "4", "421", "5", "bad", "none", "lost", "timeout"};

static void show(const struct client_event *e, char *to, size_t size) {
    unsigned code = e->reply ? e->reply->code : 0;
    switch (e->kind) {
    case CLIENT_EV_SECURE:
        snprintf(to, size, "secure");
        break;
    case CLIENT_EV_MORE:
        snprintf(to, size, "more");
        break;
    case CLIENT_EV_READY:
        snprintf(to, size, "ready");
        break;
    case CLIENT_EV_RECIPIENT:
        snprintf(to, size, "recipient %u %s %s %u", e->index, client_stage_name(e->stage), answers[e->answer], code);
        break;
    case CLIENT_EV_LATER:
        snprintf(to, size, "later %u", e->index);
        break;
    case CLIENT_EV_ALL:
        snprintf(to, size, "all %s %s %u", client_stage_name(e->stage), answers[e->answer], code);
        break;
    case CLIENT_EV_BODY:
        snprintf(to, size, "body");
        break;
    case CLIENT_EV_END:
        snprintf(to, size, "end %s %s %u", client_stage_name(e->stage), answers[e->answer], code);
        break;
    }
}

struct talk {
    struct client c;
    char input[8192];
    struct span in;
};

static void run(struct talk *t, const char *const *script) {
    char text[512];
    for (; *script; script++) {
        const char *line = *script + 2;
        struct client_event e;
        if ((*script)[0] == 'S') {
            size_t left = t->in.len;
            memmove(t->input, t->in.at, left);
            int n = snprintf(t->input + left, sizeof t->input - left, "%s\r\n", line);
            t->in = span_make(t->input, left + (size_t)n);
        } else if ((*script)[0] == 'E') {
            client_next(&t->c, &t->in, &e);
            show(&e, text, sizeof text);
            assert_string_equal(text, line);
        } else {
            client_next(&t->c, &t->in, &e);
            assert_int_equal(e.kind, CLIENT_EV_MORE);
            char want[1024];
            snprintf(want, sizeof want, "%s%s", line, *line ? "\r\n" : "");
            assert_string_equal(buf_cstr(&t->c.out), want);
            assert_int_equal(t->c.out.err, ERR_OK);
            buf_clear(&t->c.out);
        }
    }
}

static void begin(struct talk *t, enum client_protocol protocol) {
    client_init(&t->c, protocol, "me.example");
    t->in = span_make(t->input, 0);
}

#define RUN(t, ...) run((t), (const char *const[]){__VA_ARGS__, NULL})

static const struct client_recipient three[] = {
    {.address = {"a@x.example", 11}}, {.address = {"b@x.example", 11}}, {.address = {"c@x.example", 11}}};

static struct client_mail mail_of(uint32_t count) {
    return (struct client_mail){.sender = SPAN("s@me.example"), .size = 1000, .recipients = three, .count = count};
}

static void start(struct talk *t, const struct client_mail *m) {
    assert_int_equal(client_begin(&t->c, m), ERR_OK);
}

/* -- the opening -- */

static void test_extensions(void **state) {
    (void)state;
    struct talk t;
    begin(&t, CLIENT_SMTP);
    RUN(&t, GREET, "S:250-SIZE 5000", "S:250-pipelining", "S:250-8BITMIME", "S:250-SMTPUTF8", "S:250-DSN",
        "S:250-CHUNKING", "S:250-STARTTLS", "S:250-X-ODD thing", "S:250 LIMITS MAILMAX=7 RCPTMAX=50 FOO=1", READY,
        "C:");
    const struct client_extensions *x = &t.c.ext;
    assert_true(x->esmtp && x->pipelining && x->eight_bit && x->smtputf8 && x->dsn && x->chunking && x->starttls &&
                x->size);
    assert_int_equal(x->size_max, 5000);
    assert_int_equal(x->rcpt_max, 50);
    assert_int_equal(x->mail_max, 7);
    client_deinit(&t.c);
    begin(&t, CLIENT_SMTP);
    RUN(&t, "S:220 PIPELINING", "C:EHLO me.example", "S:250-PIPELINING", "S:250-SIZE junk",
        "S:250 LIMITS RCPTMAX=0 MAILMAX=99999999999", READY);
    assert_false(x->pipelining); /* the first line is a name */
    assert_true(x->size);
    assert_int_equal(x->size_max, 0);
    assert_int_equal(x->rcpt_max, 0);
    assert_int_equal(x->mail_max, UINT32_MAX);
    client_deinit(&t.c);
}

/* Line 43. */
static void test_opening_failures(void **state) {
    (void)state;
    struct talk t;
    static const char *const scripts[][8] = {
        {"S:554 go away", "E:end the greeting 5 554"},
        {"S:450 not now", "E:end the greeting 4 450"},
        {"S:421 not now", "E:end the greeting 421 421"},
        {"S:354 what", "E:end the greeting bad 354"},
        {"S:850 what", "E:end the greeting bad 850"},
        {"S:hello", "E:end the greeting none 0"},
        {"S:220 mx", "C:EHLO me.example", "S:554 no", "E:end EHLO 5 554"},
        {"S:220 mx", "C:EHLO me.example", "S:451 no", "E:end EHLO 4 451"},
        {"S:220 mx", "C:EHLO me.example", "S:421 no", "E:end EHLO 421 421"},
        {"S:220 mx", "C:EHLO me.example", "S:250-a", "S:550 b", "E:end EHLO none 0"},
        {"S:220 mx", "C:EHLO me.example", "S:500 what", "C:HELO me.example", "S:500 what", "E:end HELO 5 500"},
        {"S:220 mx", "C:EHLO me.example", "S:502 what", "C:HELO me.example", "S:421 bye", "E:end HELO 421 421"},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        begin(&t, CLIENT_SMTP);
        run(&t, scripts[i]);
        client_deinit(&t.c);
    }
    begin(&t, CLIENT_SMTP); /* a refusal is answered with QUIT */
    RUN(&t, "S:554 go away", "E:end the greeting 5 554");
    assert_string_equal(buf_cstr(&t.c.out), "QUIT\r\n");
    client_deinit(&t.c);
}

/* RFC 3207: what was said in the clear is forgotten. */
static void test_starttls(void **state) {
    (void)state;
    struct talk t;
    begin(&t, CLIENT_SMTP);
    t.c.tls = CLIENT_TLS_OFFERED;
    RUN(&t, GREET, "S:250-SIZE 1000", "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "E:secure");
    client_secured(&t.c);
    RUN(&t, "C:EHLO me.example", "S:250-mx", "S:250 DSN", READY);
    assert_true(t.c.ext.dsn && t.c.secured);
    assert_false(t.c.ext.size);
    client_deinit(&t.c);
    begin(&t, CLIENT_SMTP); /* not there, or not now: in the clear, where that is allowed */
    t.c.tls = CLIENT_TLS_OFFERED;
    RUN(&t, GREET, "S:250 DSN", READY, "C:");
    client_deinit(&t.c);
    begin(&t, CLIENT_SMTP);
    t.c.tls = CLIENT_TLS_OFFERED;
    RUN(&t, GREET, "S:250 STARTTLS", "C:STARTTLS", "S:454 not now", READY, "C:");
    client_deinit(&t.c);
    static const char *const musts[][8] = {
        {GREET, "S:250 DSN", "E:end STARTTLS 5 0"},
        {GREET, "S:250 STARTTLS", "C:STARTTLS", "S:454 not now", "E:end STARTTLS 4 454"},
        {GREET, "S:250 STARTTLS", "C:STARTTLS", "S:502 what", "E:end STARTTLS 5 502"},
        {GREET, "S:250 STARTTLS", "C:STARTTLS", "S:421 bye", "E:end STARTTLS 421 421"},
        {GREET, "S:250 STARTTLS", "C:STARTTLS", "S:350 what", "E:end STARTTLS bad 350"},
    };
    for (size_t i = 0; i < sizeof musts / sizeof *musts; i++) {
        begin(&t, CLIENT_SMTP);
        t.c.tls = CLIENT_TLS_MUST;
        run(&t, musts[i]);
        client_deinit(&t.c);
    }
    begin(&t, CLIENT_SMTP); /* a server that answers HELO alone has no TLS */
    t.c.tls = CLIENT_TLS_MUST;
    RUN(&t, "S:220 old", "C:EHLO me.example", "S:500 what", "C:HELO me.example", "S:250 old", "E:end STARTTLS 5 0");
    client_deinit(&t.c);
    begin(&t, CLIENT_SMTP); /* octets of a dialogue that TLS should have hidden */
    t.c.tls = CLIENT_TLS_MUST;
    RUN(&t, GREET, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "E:secure", "S:250 injected",
        "E:end the TLS handshake 2 250");
    client_deinit(&t.c);
}

struct script_login {
    struct client_login login;
    int left; /* responses that it has */
};

static bool login_begin(struct client_login *l, struct span mechanisms, struct buf *line) {
    (void)l;
    return span_starts_nocase(mechanisms, SPAN("LOGIN")) && buf_add_str(line, "LOGIN") == ERR_OK;
}

static bool login_respond(struct client_login *l, struct span challenge, struct buf *line) {
    struct script_login *s = (struct script_login *)l;
    buf_add(line, challenge);
    return s->left-- > 0;
}

static void test_login(void **state) {
    (void)state;
    struct talk t;
    struct script_login l = {{login_begin, login_respond}, 2};
    begin(&t, CLIENT_SMTP);
    t.c.login = &l.login;
    RUN(&t, GREET, "S:250 AUTH LOGIN PLAIN", "C:AUTH LOGIN", "S:334 VXNlcg==", "C:User", "S:334 UGFzcw==", "C:Pass", "S:235 in",
        READY, "C:");
    client_deinit(&t.c);
    static const char *const failures[][8] = {
        {GREET, "S:250 AUTH CRAM-MD5", "E:end AUTH 5 0"},
        {GREET, "S:250 DSN", "E:end AUTH 5 0"},
        {GREET, "S:250 AUTH LOGIN", "C:AUTH LOGIN", "S:535 no", "E:end AUTH 5 535"},
        {GREET, "S:250 AUTH LOGIN", "C:AUTH LOGIN", "S:454 later", "E:end AUTH 4 454"},
        {GREET, "S:250 AUTH LOGIN", "C:AUTH LOGIN", "S:334 no=base64", "E:end AUTH 5 0"},
        {GREET, "S:250 AUTH LOGIN", "C:AUTH LOGIN", "S:354 what", "E:end AUTH bad 354"},
        {GREET, "S:250 AUTH LOGIN", "C:AUTH LOGIN", "S:334 VXNlcg==", "E:end AUTH 5 0"},
    };
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        l.left = 0;
        begin(&t, CLIENT_SMTP);
        t.c.login = &l.login;
        run(&t, failures[i]);
        client_deinit(&t.c);
    }
}

static void test_helo(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(1);
    m.eight_bit = m.smtputf8 = true;
    m.envid = SPAN("x");
    begin(&t, CLIENT_SMTP);
    RUN(&t, "S:220 old", "C:EHLO me.example", "S:500-SIZE 10", "S:500 PIPELINING", "C:HELO me.example", "S:250 old",
        READY);
    assert_false(t.c.ext.esmtp || t.c.ext.pipelining || t.c.ext.size);
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<s@me.example>", "S:250 ok", "C:RCPT TO:<a@x.example>", "S:250 ok", "C:DATA", "S:354 go",
        "E:body");
    client_body_sent(&t.c);
    RUN(&t, "C:", "S:250 done", "E:all end of data 2 250", READY, "C:");
    client_deinit(&t.c);
}

/* -- without pipelining -- */

static void test_step_by_step(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(3);
    begin(&t, CLIENT_SMTP);
    RUN(&t, GREET, "S:250 SIZE", READY);
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<s@me.example> SIZE=1000", "S:250 ok", "C:RCPT TO:<a@x.example>", "S:550 5.1.1 who",
        "E:recipient 0 RCPT TO 5 550", "C:RCPT TO:<b@x.example>", "S:450 later", "E:recipient 1 RCPT TO 4 450",
        "C:RCPT TO:<c@x.example>", "S:251 ok", "C:DATA", "S:354 go", "E:body");
    client_body_sent(&t.c);
    RUN(&t, "S:250 done", "E:all end of data 2 250", READY, "C:");
    /* the next transaction needs no RSET */
    m.count = 1;
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<s@me.example> SIZE=1000", "S:250 ok", "C:RCPT TO:<a@x.example>", "S:550 no",
        "E:recipient 0 RCPT TO 5 550", "C:RSET", "S:250 ok", READY);
    /* a refused MAIL opened nothing */
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<s@me.example> SIZE=1000", "S:452 full", "E:all MAIL FROM 4 452", READY, "C:");
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<s@me.example> SIZE=1000", "S:250 ok", "C:RCPT TO:<a@x.example>", "S:250 ok", "C:DATA",
        "S:554 no", "E:all DATA 5 554", "C:RSET", "S:250 ok", READY);
    client_quit(&t.c);
    RUN(&t, "C:QUIT", "S:221 bye", "E:end QUIT 2 221", "E:end the end 2 0");
    client_deinit(&t.c);
}

/* -- with pipelining -- */

#define P1 "C:MAIL FROM:<s@me.example>\r\nRCPT TO:<a@x.example>\r\nDATA"
#define P3                                                                                                             \
    "C:MAIL FROM:<s@me.example>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA"

static void open_pipelining(struct talk *t, const struct client_mail *m, enum client_protocol protocol) {
    begin(t, protocol);
    if (protocol == CLIENT_LMTP)
        RUN(t, "S:220 mx", "C:LHLO me.example", "S:250-mx", "S:250 PIPELINING", READY);
    else
        RUN(t, GREET, "S:250 PIPELINING", READY);
    start(t, m);
}

static void test_pipelined(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(3);
    open_pipelining(&t, &m, CLIENT_SMTP);
    assert_true(client_is_untouched(&t.c));
    RUN(&t, P3, "S:250 ok", "S:250 ok", "S:550 5.1.1 no", "S:250 ok", "S:354 go", "E:recipient 1 RCPT TO 5 550",
        "E:body");
    assert_false(client_is_untouched(&t.c));
    client_body_sent(&t.c);
    RUN(&t, "S:450 4.3.2 try again", "E:all end of data 4 450", READY, "C:");
    client_deinit(&t.c);
}

/* All recipients refused, DATA accepted: a lone dot, then RSET (RFC 2920). */
static void test_pipelined_nobody(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(1);
    open_pipelining(&t, &m, CLIENT_SMTP);
    RUN(&t, P1, "S:250 ok", "S:550 no", "S:354 go", "E:recipient 0 RCPT TO 5 550", "C:.", "S:554 nobody", "C:RSET",
        "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, P1, "S:250 ok", "S:550 no", "S:503 nobody", "E:recipient 0 RCPT TO 5 550", "C:RSET", "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, P1, "S:451 no", "S:503 no", "S:354 go", "E:all MAIL FROM 4 451", "C:.", "S:250 what", "C:RSET", "S:250 ok",
        READY);
    /* a server that accepts a recipient without MAIL gets no empty message */
    start(&t, &m);
    RUN(&t, P1, "S:451 no", "S:250 yes", "S:354 go", "E:all MAIL FROM 4 451", "E:end DATA bad 354");
    assert_int_equal(buf_len(&t.c.out), 0);
    client_deinit(&t.c);
}

/* Line 44: every stage's refusal comes out as what it is. */
static void test_pipelined_refusals(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(1);
    open_pipelining(&t, &m, CLIENT_SMTP);
    RUN(&t, P1, "S:550 no", "S:503 no", "S:503 no", "E:all MAIL FROM 5 550", "C:RSET", "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, P1, "S:250 ok", "S:250 ok", "S:554 no", "E:all DATA 5 554", "C:RSET", "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body");
    client_body_sent(&t.c);
    RUN(&t, "S:554 spam", "E:all end of data 5 554", READY, "C:");
    start(&t, &m);
    RUN(&t, P1, "S:250 ok", "S:250 ok", "S:451 no", "E:all DATA 4 451", "C:RSET", "S:451 no", "E:end RSET 4 451");
    client_deinit(&t.c);
}

/* Line 53: 421 ends the session at any stage, and says at which. */
static void test_421(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(1);
    static const char *const scripts[][8] = {
        {P1, "S:421 bye", "E:end MAIL FROM 421 421"},
        {P1, "S:250 ok", "S:421 bye", "E:end RCPT TO 421 421"},
        {P1, "S:250 ok", "S:250 ok", "S:421 bye", "E:end DATA 421 421"},
        {P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body", "S:421 bye", "E:end sending the message 421 421"},
        {P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body", "S:552 big", "E:end sending the message 5 552"},
        {P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body", "S:250 fine", "E:end sending the message bad 250"},
        {P1, "S:250 ok", "S:550 no", "E:recipient 0 RCPT TO 5 550", "S:421 bye", "E:end DATA 421 421"},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        open_pipelining(&t, &m, CLIENT_SMTP);
        run(&t, scripts[i]);
        client_deinit(&t.c);
    }
    open_pipelining(&t, &m, CLIENT_SMTP);
    RUN(&t, P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body");
    client_body_sent(&t.c);
    RUN(&t, "S:421 bye", "E:end end of data 421 421");
    client_deinit(&t.c);
    begin(&t, CLIENT_SMTP); /* between transactions */
    RUN(&t, GREET, "S:250 x", READY, "S:421 idle", "E:end waiting 421 421");
    client_deinit(&t.c);
}

/* Line 42: what is not a reply, or not one that fits, ends the session. */
static void test_out_of_step(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(1);
    static const char *const scripts[][8] = {
        {P1, "S:850 x", "E:end MAIL FROM bad 850"},
        {P1, "S:354 x", "E:end MAIL FROM bad 354"},
        {P1, "S:250-x", "S:450 y", "E:end MAIL FROM none 0"},
        {P1, "S:250 ok", "S:354 x", "E:end RCPT TO bad 354"},
        {P1, "S:250 ok", "S:250 ok", "S:250 ok", "E:end DATA 2 250"},
        {P1, "S:250 ok", "S:250 ok", "S:150 ok", "E:end DATA bad 150"},
        {P1, "S:250 ok", "S:250 ok", "S:<html>", "E:end DATA none 0"},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        open_pipelining(&t, &m, CLIENT_SMTP);
        run(&t, scripts[i]);
        client_deinit(&t.c);
    }
    static const char *const after_dot[][3] = {{"S:354 x", "E:end end of data bad 354"},
                                               {"S:x", "E:end end of data none 0"}};
    for (size_t i = 0; i < 2; i++) {
        open_pipelining(&t, &m, CLIENT_SMTP);
        RUN(&t, P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body");
        client_body_sent(&t.c);
        run(&t, after_dot[i]);
        client_deinit(&t.c);
    }
}

/* Line 47: too many recipients is only what comes after an accepted one. */
static void test_too_many(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(3);
    open_pipelining(&t, &m, CLIENT_SMTP);
    RUN(&t, P3, "S:250 ok", "S:250 ok", "S:552 enough", "S:452 4.5.3 enough", "S:354 go", "E:later 1", "E:later 2",
        "E:body");
    client_deinit(&t.c);
    open_pipelining(&t, &m, CLIENT_SMTP);
    RUN(&t, P3, "S:250 ok", "S:552 full", "S:250 ok", "S:452 4.2.2 mailbox full", "E:recipient 0 RCPT TO 5 552",
        "E:recipient 2 RCPT TO 4 452", "S:354 go", "E:body");
    client_deinit(&t.c);
}

static void test_lmtp(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(3);
    open_pipelining(&t, &m, CLIENT_LMTP);
    RUN(&t, P3, "S:250 ok", "S:250 ok", "S:550 no", "S:250 ok", "S:354 go", "E:recipient 1 RCPT TO 5 550", "E:body");
    client_body_sent(&t.c);
    RUN(&t, "S:250 fine", "S:452 4.2.2 full", "E:recipient 0 end of data 2 250", "E:recipient 2 end of data 4 452",
        READY, "C:");
    m.count = 1;
    start(&t, &m);
    RUN(&t, P1, "S:250 ok", "S:550 no", "S:354 go", "E:recipient 0 RCPT TO 5 550", "C:.\r\nRSET", "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, P1, "S:250 ok", "S:250 ok", "S:354 go", "E:body");
    client_body_sent(&t.c);
    RUN(&t, "S:421 bye", "E:end end of data 421 421");
    client_deinit(&t.c);
    begin(&t, CLIENT_LMTP); /* no HELO in LMTP */
    RUN(&t, "S:220 mx", "C:LHLO me.example", "S:500 what", "E:end EHLO 5 500");
    client_deinit(&t.c);
}

/* -- the commands -- */

static void test_parameters(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 4096);
    const struct client_extensions all = {.size = true, .eight_bit = true, .smtputf8 = true, .dsn = true}, none = {0};
    const struct client_recipient r = {
        .address = SPAN("a@x.example"), .orcpt = SPAN("rfc822;a+b=c d@x.example"), .notify = 2 | 4 | 8};
    struct client_mail m = {.sender = SPAN(""),
                            .size = 7,
                            .eight_bit = true,
                            .smtputf8 = true,
                            .ret = 2,
                            .envid = SPAN("i d\r\n+"),
                            .recipients = &r,
                            .count = 1};
    assert_int_equal(client_put_mail(&b, &all, &m), ERR_OK);
    assert_string_equal(buf_cstr(&b), "MAIL FROM:<> SIZE=7 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=i+20d+0D+0A+2B\r\n");
    buf_clear(&b);
    assert_int_equal(client_put_mail(&b, &none, &m), ERR_OK);
    assert_string_equal(buf_cstr(&b), "MAIL FROM:<>\r\n");
    buf_clear(&b);
    assert_int_equal(client_put_rcpt(&b, &all, &m, &r), ERR_OK);
    assert_string_equal(buf_cstr(&b),
                        "RCPT TO:<a@x.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2Bb+3Dc+20d@x.example\r\n");
    buf_clear(&b);
    assert_int_equal(client_put_rcpt(&b, &none, &m, &r), ERR_OK);
    assert_string_equal(buf_cstr(&b), "RCPT TO:<a@x.example>\r\n");
    buf_clear(&b);
    struct client_recipient never = {.address = SPAN("a@x"), .orcpt = SPAN("utf-8;\xc3\xa9@x"), .notify = 1 | 2};
    m.smtputf8 = false;
    assert_int_equal(client_put_rcpt(&b, &all, &m, &never), ERR_OK);
    assert_string_equal(buf_cstr(&b), "RCPT TO:<a@x> NOTIFY=NEVER\r\n");
    buf_deinit(&b);
}

/* What the sender asked for beyond delivery is said where it is offered, and nowhere else. */
static void test_wishes(void **state) {
    (void)state;
    struct buf b;
    struct client_extensions ext = {0};
    const struct client_extensions none = {0};
    struct client_mail m = {.has_by = true,
                            .by_s = -999999999,
                            .by_notify = true,
                            .by_trace = true,
                            .has_mt_priority = true,
                            .mt_priority = -9,
                            .requiretls = true};
    client_ehlo_line(&ext, SPAN("deliverby 240"));
    client_ehlo_line(&ext, SPAN("MT-PRIORITY MIXER"));
    client_ehlo_line(&ext, SPAN("REQUIRETLS"));
    assert_true(ext.deliver_by && ext.mt_priority && ext.requiretls);
    assert_int_equal(ext.deliver_by_min_s, 240);
    buf_init(&b, 4096);
    assert_int_equal(client_put_mail(&b, &ext, &m), ERR_OK);
    assert_string_equal(buf_cstr(&b), "MAIL FROM:<> BY=-999999999;NT MT-PRIORITY=-9 REQUIRETLS\r\n");
    buf_clear(&b);
    assert_int_equal(client_put_mail(&b, &none, &m), ERR_OK);
    assert_string_equal(buf_cstr(&b), "MAIL FROM:<>\r\n");
    buf_clear(&b);
    m = (struct client_mail){.has_by = true, .by_s = 1};
    assert_int_equal(client_put_mail(&b, &ext, &m), ERR_OK);
    assert_string_equal(buf_cstr(&b), "MAIL FROM:<> BY=1;R\r\n");
    buf_deinit(&b);
    client_ehlo_line(&ext, SPAN("DELIVERBY soon"));
    assert_int_equal(ext.deliver_by_min_s, 0);
}

/* Nothing that an address holds can add a command. */
static void test_bad_addresses(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(1);
    for (int pipelining = 0; pipelining < 2; pipelining++) {
        begin(&t, CLIENT_SMTP);
        RUN(&t, GREET, pipelining ? "S:250 PIPELINING" : "S:250 SIZE", READY);
        static const struct span bad[] = {{"a\r\nDATA", 7}, {"a\n", 2}, {"a\0b", 3}, {"a\x7f", 2}};
        for (size_t i = 0; i < 4; i++) {
            m.sender = bad[i];
            assert_int_equal(client_begin(&t.c, &m), ERR_INVALID);
            m.sender = SPAN("");
            const struct client_recipient r = {.address = bad[i]};
            m.recipients = &r;
            assert_int_equal(client_begin(&t.c, &m), ERR_INVALID);
            assert_int_equal(buf_len(&t.c.out), 0);
            assert_int_equal(t.c.out.err, ERR_OK);
            m.recipients = three;
        }
        start(&t, &m);
        client_deinit(&t.c);
    }
}

static void test_many_recipients(void **state) {
    (void)state;
    struct talk t;
    static struct client_recipient many[CLIENT_RCPT_MAX];
    for (size_t i = 0; i < CLIENT_RCPT_MAX; i++)
        many[i] = three[0];
    struct client_mail m = {.sender = SPAN("s@x"), .recipients = many, .count = CLIENT_RCPT_MAX};
    open_pipelining(&t, &m, CLIENT_LMTP);
    buf_clear(&t.c.out);
    RUN(&t, "S:250 ok");
    for (unsigned i = 0; i < CLIENT_RCPT_MAX; i++) {
        char want[64];
        snprintf(want, sizeof want, "E:recipient %u RCPT TO 4 450", i);
        if (i % 3 == 0)
            RUN(&t, "S:250 ok", "C:");
        else
            RUN(&t, "S:450 no", want);
    }
    RUN(&t, "S:354 go", "E:body");
    client_body_sent(&t.c);
    for (unsigned i = 0; i < CLIENT_RCPT_MAX; i += 3) {
        char want[64];
        snprintf(want, sizeof want, "E:recipient %u end of data 2 250", i);
        RUN(&t, "S:250 ok", want);
    }
    RUN(&t, READY);
    client_deinit(&t.c);
}

/* -- asking only -- */

static void test_probe(void **state) {
    (void)state;
    struct talk t;
    struct client_mail m = mail_of(3);
    m.sender = SPAN_EMPTY;
    m.probe = true;
    begin(&t, CLIENT_SMTP);
    RUN(&t, GREET, "S:250 PIPELINING", READY);
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>", "S:250 ok",
        "S:250 ok", "E:recipient 0 RCPT TO 2 250", "S:550 no", "E:recipient 1 RCPT TO 5 550", "S:450 later",
        "E:recipient 2 RCPT TO 4 450", "C:RSET", "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>",
        "S:550 no null", "E:all MAIL FROM 5 550", "S:503 what", "S:503 what", "S:503 what", "C:RSET", "S:250 ok",
        READY);
    client_deinit(&t.c);
    m.count = 2;
    begin(&t, CLIENT_LMTP);
    RUN(&t, "S:220 mx", "C:LHLO me.example", "S:250 mx", READY);
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<>", "S:250 ok", "C:RCPT TO:<a@x.example>", "S:250 ok", "E:recipient 0 RCPT TO 2 250",
        "C:RCPT TO:<b@x.example>", "S:250 ok", "E:recipient 1 RCPT TO 2 250", "C:RSET", "S:250 ok", READY);
    start(&t, &m);
    RUN(&t, "C:MAIL FROM:<>", "S:451 no", "E:all MAIL FROM 4 451", READY, "C:");
    client_deinit(&t.c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_opening_failures),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_helo),
        cmocka_unit_test(test_step_by_step),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_pipelined_nobody),
        cmocka_unit_test(test_pipelined_refusals),
        cmocka_unit_test(test_421),
        cmocka_unit_test(test_out_of_step),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_lmtp),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_wishes),
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_many_recipients),
        cmocka_unit_test(test_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
