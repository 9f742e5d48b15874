/* dsn: the shape of reports, what they pass on, and that strangers' octets never add a line, a field or a part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "scheduler/dsn.h"
#include "scheduler/dsn_auto.h"
#include "scheduler/dsn_template.h"
#include "scheduler/dsn_words.h"

static const char original[] = "Received: from a by b; Tue, 24 Nov 2026 08:15:07 +0000\r\n"
                               "From: Alice <alice@sender.test>\r\n"
                               "Subject: hello\r\n"
                               "\r\n"
                               "The secret body.\r\n";

static const struct dsn_recipient bob = {
    .address = {"bob@example.test", 16},
    .orcpt = {"rfc822;Bob+x@example.test", 25},
    .code = 550,
    .enhanced = {"5.1.1", 5},
    .text = {"5.1.1 No such user here", 23},
    .remote = {"mx1.example.test [192.0.2.25]:25", 32},
};

static struct dsn usual(enum dsn_kind kind) {
    return (struct dsn){
        .kind = kind,
        .number = 77,
        .now_ms = 1795508107000,
        .hostname = SPAN("mx.post.test"),
        .postmaster = SPAN("postmaster@post.test"),
        .sender = SPAN("alice@sender.test"),
        .envid = SPAN("QQ314159"),
        .received_ms = 1795500000000,
        .size = sizeof original - 1,
        .ret = DSN_RET_FULL,
        .retry_until_ms = 1795932000000,
        .recipients = &bob,
        .count = 1,
        .content = SPAN(original),
    };
}

struct report {
    struct buf text;
    struct dsn_form form;
    char boundary[64];
    struct span header, part[3], part_header[3]; /* of the parts: content and header */
    size_t parts;
};

static const char *find(struct span s, const char *needle) {
    return s.len ? memmem(s.at, s.len, needle, strlen(needle)) : NULL;
}

static bool has(struct span s, const char *needle) {
    return find(s, needle) != NULL;
}

/* The same for a text whose lines may be broken anywhere. */
static bool says(struct span s, const char *needle) {
    char text[8192];
    size_t len = 0;
    for (size_t i = 0; i < s.len && len < sizeof text; i++) {
        bool space = s.at[i] == ' ' || s.at[i] == '\r' || s.at[i] == '\n';
        if (!space || (len && text[len - 1] != ' '))
            text[len++] = space ? ' ' : s.at[i];
    }
    return has(span_make(text, len), needle);
}

/* How many lines of s begin so. */
static int lines_with(struct span s, const char *start) {
    int n = 0;
    for (const char *at = s.at; at && at < s.at + s.len;) {
        size_t left = (size_t)(s.at + s.len - at);
        n += left >= strlen(start) && strncasecmp(at, start, strlen(start)) == 0;
        const char *end = memchr(at, '\n', left);
        at = end ? end + 1 : NULL;
    }
    return n;
}

/* Every line ends with CRLF, none is over 998, none holds a control octet but tab. */
static void check_lines(struct span s) {
    size_t column = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c == '\r') {
            assert_true(i + 1 < s.len && s.at[i + 1] == '\n');
            i++;
            column = 0;
            continue;
        }
        assert_true(c >= 32 || c == '\t');
        assert_true(c != 127);
        assert_true(++column <= 998);
    }
    assert_int_equal(column, 0);
}

/* A reading of its own: splits the report as RFC 2046 says. */
static void split(struct report *r) {
    struct span all = buf_span(&r->text);
    const char *end = find(all, "\r\n\r\n");
    assert_non_null(end);
    r->header = span_first(all, (size_t)(end - all.at) + 2);
    const char *b = find(r->header, "boundary=\"");
    assert_non_null(b);
    b += 10;
    const char *quote = strchr(b, '"');
    assert_true(quote && quote - b < 60);
    snprintf(r->boundary, sizeof r->boundary, "\r\n--%.*s", (int)(quote - b), b);
    const char *at = find(all, r->boundary);
    while (at) {
        at += strlen(r->boundary);
        if (strncmp(at, "--\r\n", 4) == 0) {
            assert_ptr_equal(at + 4, all.at + all.len); /* nothing behind the end */
            break;
        }
        assert_true(strncmp(at, "\r\n", 2) == 0);
        assert_true(r->parts < 3);
        struct span rest = span_from(all, (size_t)(at + 2 - all.at));
        const char *next = find(rest, r->boundary), *blank = find(rest, "\r\n\r\n");
        assert_true(next && blank && blank < next);
        r->part_header[r->parts] = span_make(rest.at, (size_t)(blank - rest.at) + 2);
        r->part[r->parts++] = span_make(blank + 4, (size_t)(next - blank - 4));
        at = next;
    }
    assert_non_null(at);
    assert_int_equal(r->parts, 3);
}

static void compose(struct report *r, const struct dsn *d) {
    memset(r, 0, sizeof *r);
    buf_init(&r->text, 4 << 20);
    assert_int_equal(dsn_compose(d, &r->text, &r->form), ERR_OK);
    (void)buf_cstr(&r->text);
    check_lines(buf_span(&r->text));
    split(r);
    assert_int_equal(r->form.eight_bit, !utf8_is_ascii(buf_span(&r->text)));
    assert_int_equal(r->form.smtputf8, !utf8_is_ascii(r->header));
    static const char *once[] = {"From:",       "To:",           "Subject:",      "Date:",
                                 "Message-ID:", "MIME-Version:", "Content-Type:", "Auto-Submitted: auto-replied\r\n"};
    for (size_t i = 0; i < sizeof once / sizeof *once; i++)
        assert_int_equal(lines_with(r->header, once[i]), 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(lines_with(r->part_header[i], "Content-"), i == 0 ? 4 : 3); /* with the language */
    assert_true(has(r->header, "multipart/report; report-type=delivery-status;"));
}

static void failure_has_its_three_parts(void **state) {
    (void)state;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    compose(&r, &d);
    assert_true(has(r.header, "From: Mail Delivery System <MAILER-DAEMON@mx.post.test>\r\n"));
    assert_true(has(r.header, "To: <alice@sender.test>\r\n"));
    assert_true(has(r.header, "Subject: Your message could not be delivered\r\n"));
    assert_true(has(r.part_header[0], "text/plain; charset=us-ascii"));
    assert_true(has(r.part[0], "<bob@example.test>"));
    assert_true(has(r.part[0], "There is no such mailbox there."));
    assert_true(has(r.part[0], "check the spelling"));
    assert_true(has(r.part[0], "mx1.example.test [192.0.2.25]:25 said: 550 5.1.1"));
    assert_true(has(r.part[0], "No such user here"));
    assert_true(has(r.part[0], "postmaster@post.test"));
    assert_true(has(r.part_header[1], "Content-Type: message/delivery-status\r\n"));
    static const char status[] = "Original-Envelope-Id: QQ314159\r\n"
                                 "Reporting-MTA: dns; mx.post.test\r\n"
                                 "Arrival-Date: Tue, 24 Nov 2026 06:00:00 +0000\r\n"
                                 "\r\n"
                                 "Original-Recipient: rfc822; Bob+x@example.test\r\n"
                                 "Final-Recipient: rfc822; bob@example.test\r\n"
                                 "Action: failed\r\n"
                                 "Status: 5.1.1\r\n"
                                 "Remote-MTA: dns; mx1.example.test\r\n"
                                 "Diagnostic-Code: smtp; 550 5.1.1 No such user here\r\n";
    assert_true(span_eq(r.part[1], SPAN(status)));
    assert_true(has(r.part_header[2], "Content-Type: message/rfc822\r\n"));
    assert_true(span_eq(r.part[2], SPAN(original)));
    assert_false(r.form.eight_bit || r.form.smtputf8);
    buf_deinit(&r.text);
}

static void returns_what_ret_asks(void **state) {
    (void)state;
    static const struct {
        enum dsn_kind kind;
        enum dsn_ret ret;
        uint64_t size;
        bool whole;
    } cases[] = {
        {DSN_FAILED, DSN_RET_FULL, sizeof original - 1, true},
        {DSN_FAILED, DSN_RET_HDRS, sizeof original - 1, false},
        {DSN_FAILED, DSN_RET_NONE, sizeof original - 1, false},
        {DSN_FAILED, DSN_RET_FULL, 51201, false},               /* too large */
        {DSN_FAILED, DSN_RET_FULL, sizeof original + 9, false}, /* not all of it is at hand */
        {DSN_DELAYED, DSN_RET_FULL, sizeof original - 1, false},
        {DSN_DELIVERED, DSN_RET_FULL, sizeof original - 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct report r;
        struct dsn d = usual(cases[i].kind);
        d.ret = cases[i].ret;
        d.size = cases[i].size;
        compose(&r, &d);
        assert_int_equal(has(r.part[2], "secret"), cases[i].whole);
        assert_true(has(r.part[2], "Subject: hello\r\n"));
        assert_int_equal(has(r.part_header[2], "text/rfc822-headers"), !cases[i].whole);
        assert_int_equal(has(r.part_header[2], "message/rfc822"), cases[i].whole);
        buf_deinit(&r.text);
    }
}

static void delay_says_until_when(void **state) {
    (void)state;
    struct report r;
    struct dsn_recipient slow = bob;
    slow.code = 451;
    slow.enhanced = SPAN("4.2.2");
    slow.text = SPAN("4.2.2 not now");
    struct dsn d = usual(DSN_DELAYED);
    d.recipients = &slow;
    compose(&r, &d);
    assert_true(has(r.header, "Subject: Your message is delayed\r\n"));
    assert_true(has(r.part[0], "You need do nothing"));
    assert_true(has(r.part[0], "The mailbox is full."));
    assert_true(has(r.part[1], "Action: delayed\r\nStatus: 4.2.2\r\n"));
    assert_int_equal(lines_with(r.part[1], "Will-Retry-Until: Sun, 29 Nov 2026 06:00:00 +0000\r\n"), 1);
    buf_deinit(&r.text);
    d = usual(DSN_FAILED);
    compose(&r, &d);
    assert_int_equal(lines_with(r.part[1], "Will-Retry-Until"), 0);
    buf_deinit(&r.text);
}

static void success_is_delivered_or_relayed(void **state) {
    (void)state;
    struct dsn_recipient two[] = {bob, bob};
    two[0].code = two[1].code = 250;
    two[0].enhanced = SPAN("2.1.5");
    two[1].enhanced = SPAN("");
    two[1].relayed = true;
    struct report r;
    struct dsn d = usual(DSN_DELIVERED);
    d.recipients = two;
    d.count = 2;
    compose(&r, &d);
    assert_true(has(r.part[1], "Action: delivered\r\nStatus: 2.1.5\r\n"));
    assert_true(has(r.part[1], "Action: relayed\r\nStatus: 2.0.0\r\n"));
    assert_int_equal(lines_with(r.part[1], "Final-Recipient:"), 2);
    assert_true(has(r.part[0], "handed to the next mail"));
    buf_deinit(&r.text);
    two[0] = (struct dsn_recipient){.address = SPAN("team@example.test"), .expanded = true};
    d.count = 1;
    compose(&r, &d);
    assert_true(has(r.part[1], "Final-Recipient: rfc822; team@example.test\r\nAction: expanded\r\nStatus: 2.0.0\r\n"));
    assert_true(says(r.part[0], "goes on to those behind it"));
    buf_deinit(&r.text);
}

static void status_passes_through_or_defaults(void **state) {
    (void)state;
    static const struct {
        enum dsn_kind kind;
        const char *enhanced, *status;
    } cases[] = {
        {DSN_FAILED, "5.7.1", "5.7.1"},    {DSN_FAILED, "4.4.7", "4.4.7"},  {DSN_FAILED, "", "5.0.0"},
        {DSN_FAILED, "2.0.0", "5.0.0"},    {DSN_FAILED, "5.1", "5.0.0"},    {DSN_FAILED, "5.1.1.1", "5.0.0"},
        {DSN_FAILED, "5.1.1000", "5.0.0"}, {DSN_FAILED, "5.x.1", "5.0.0"},  {DSN_FAILED, "55.1.1", "5.0.0"},
        {DSN_DELAYED, "", "4.0.0"},        {DSN_DELAYED, "4.3.2", "4.3.2"}, {DSN_DELAYED, "5.3.2", "4.0.0"},
        {DSN_DELIVERED, "5.0.0", "2.0.0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dsn_recipient one = bob;
        one.enhanced = span_of(cases[i].enhanced);
        struct report r;
        struct dsn d = usual(cases[i].kind);
        d.recipients = &one;
        compose(&r, &d);
        char line[64];
        snprintf(line, sizeof line, "\r\nStatus: %s\r\n", cases[i].status);
        assert_true(has(r.part[1], line));
        buf_deinit(&r.text);
    }
}

/* Everything a stranger can write, at its worst: the number of lines, fields and parts stays what it is. */
static void hostile_octets_add_nothing(void **state) {
    (void)state;
    static const char evil[] =
        "x\r\nBcc: victim@example.test\r\n\r\n--=_report_0000000000000\r\nX: y\n\nZ: \x1b[2J\x7f\xc2\x85\xe2\x80\xae"
        "\xff\xfe.\r\n.\r\n";
    struct dsn_recipient worst = {.address = SPAN(evil),
                                  .orcpt = SPAN(evil),
                                  .original = SPAN(evil),
                                  .code = 550,
                                  .enhanced = SPAN(evil),
                                  .text = SPAN(evil),
                                  .remote = SPAN(evil)};
    struct dsn_recipient types[] = {worst, worst, worst};
    types[1].orcpt = SPAN("rfc822\r\nX-Evil: 1;a@b");
    types[2].orcpt = SPAN("rfc822;a\r\n\r\nX-Evil: 1");
    types[2].enhanced = SPAN("5.1.1\r\nX-Evil: 1");
    types[2].remote = SPAN("mx.test\r\nX-Evil: 1");
    for (int kind = DSN_FAILED; kind <= DSN_DELIVERED; kind++) {
        struct report r;
        struct dsn d = usual((enum dsn_kind)kind);
        d.envid = SPAN(evil);
        d.recipients = types;
        d.count = 3;
        d.content = SPAN_EMPTY;
        compose(&r, &d);
        assert_int_equal(lines_with(buf_span(&r.text), "Bcc"), 0);
        assert_int_equal(lines_with(buf_span(&r.text), "X"), 0);
        assert_int_equal(lines_with(buf_span(&r.text), "Z"), 0);
        assert_int_equal(lines_with(r.part[1], "Final-Recipient: "), 3);
        assert_int_equal(lines_with(r.part[1], "Status: "), 3);
        assert_int_equal(lines_with(r.part[1], "\r\n"), 3); /* one empty line before each recipient */
        assert_int_equal(lines_with(r.part[1], "Remote-MTA"), 0);
        buf_deinit(&r.text);
    }
}

static void long_replies_are_cut_and_folded(void **state) {
    (void)state;
    static char words[20000], one[20000];
    for (size_t i = 0; i < sizeof words; i++) {
        words[i] = i % 7 == 6 ? ' ' : 'w';
        one[i] = 'x';
    }
    const struct span texts[] = {span_make(words, sizeof words), span_make(one, sizeof one)};
    for (int i = 0; i < 2; i++) {
        struct dsn_recipient talker = bob;
        talker.text = texts[i];
        talker.address = i ? span_make(one, 5000) : bob.address;
        struct report r;
        struct dsn d = usual(DSN_FAILED);
        d.recipients = &talker;
        compose(&r, &d);
        assert_true(r.part[1].len < 2500);
        assert_true(r.part[0].len < 4000);
        for (const char *at = r.part[1].at, *end; i == 0 && at < r.part[1].at + r.part[1].len; at = end + 1) {
            end = memchr(at, '\n', (size_t)(r.part[1].at + r.part[1].len - at));
            assert_true(end - at <= 78);
        }
        buf_deinit(&r.text);
    }
}

/* A boundary that stands in the original is not used again. */
static void boundary_is_not_in_the_content(void **state) {
    (void)state;
    struct report first, second;
    struct dsn d = usual(DSN_FAILED);
    compose(&first, &d);
    char content[512];
    snprintf(content, sizeof content, "Subject: x\r\n\r\ntext%s\r\nContent-Type: text/plain\r\n\r\nnested%s--\r\n",
             first.boundary, first.boundary);
    d.content = span_of(content);
    d.size = d.content.len;
    compose(&second, &d);
    assert_string_not_equal(first.boundary, second.boundary);
    assert_true(span_eq(second.part[2], span_of(content)));
    buf_deinit(&first.text);
    buf_deinit(&second.text);
}

static const struct dsn_recipient umlaut_recipient = {
    .address = {"j\xc3\xbcrgen@b\xc3\xbc"
                "cher.test",
                20},
    .orcpt = {"utf-8;j\xc3\xbcrgen+x@b\xc3\xbc"
              "cher.test",
              28},
    .code = 550,
    .enhanced = {"5.1.1", 5},
    .text = {"kein Empf\xc3\xa4nger", 16},
    .remote = {"mx1.example.test [192.0.2.25]:25", 32},
};

/* A sender of plain mail, whose recipient turned out to have other letters. */
static void plain_sender_gets_addresses_in_ascii(void **state) {
    (void)state;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.recipients = &umlaut_recipient;
    compose(&r, &d);
    assert_false(r.form.eight_bit || r.form.smtputf8);
    assert_true(has(r.part_header[0], "quoted-printable"));
    assert_true(has(r.part[0], "j=C3=BCrgen@b=C3=BCcher.test"));
    assert_true(has(r.part_header[1], "Content-Type: message/delivery-status\r\n"));
    assert_true(has(r.part_header[1], "7bit"));
    assert_true(has(r.part[1], "Final-Recipient: utf-8; j\\x{FC}rgen@b\\x{FC}cher.test\r\n"));
    assert_true(has(r.part[1], "Original-Recipient: utf-8; j\\x{FC}rgen\\x{2B}x@b\\x{FC}cher.test\r\n"));
    assert_true(has(r.part[1], "kein Empf\\xC3\\xA4nger"));
    buf_deinit(&r.text);
    struct dsn_recipient ascii = bob;
    ascii.orcpt = SPAN("UTF-8;bob+x=y@example.test"); /* ASCII, but of the type that writes + and = apart */
    d.recipients = &ascii;
    compose(&r, &d);
    assert_true(has(r.part[1], "Original-Recipient: utf-8; bob\\x{2B}x\\x{3D}y@example.test\r\n"));
    buf_deinit(&r.text);
}

/* ORCPT may come with characters written as \\x{HEX}; what only looks like that stays. */
static void embedded_characters_are_read(void **state) {
    (void)state;
    static const struct {
        const char *orcpt, *plain, *global;
    } cases[] = {
        {"utf-8;b\\x{FC}cher@x.test", "b\\x{FC}cher@x.test",
         "b\xc3\xbc"
         "cher@x.test"},
        {"utf-8;\\x{20AC}\\x{1F600}@x.test", "\\x{20AC}\\x{1F600}@x.test", "\xe2\x82\xac\xf0\x9f\x98\x80@x.test"},
        {"utf-8;a\\x{0D}\\x{0A}Bcc:x@x.test", "a\\x{0D}\\x{0A}Bcc:x@x.test", "a\\x0D\\x0ABcc:x@x.test"},
        {"utf-8;\\x{D800}\\x{110000}\\x{F@x.test", "\\x{5C}x{D800}\\x{5C}x{110000}\\x{5C}x{F@x.test", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct report r;
        struct dsn_recipient one = bob;
        struct dsn d = usual(DSN_FAILED);
        char line[200];
        one.orcpt = span_of(cases[i].orcpt);
        d.recipients = &one;
        compose(&r, &d);
        snprintf(line, sizeof line, "Original-Recipient: utf-8; %s\r\n", cases[i].plain);
        if (!has(r.part[1], line))
            fail_msg("%zu: %.*s", i, SPAN_FMT(r.part[1]));
        assert_true(has(r.part_header[1], "message/delivery-status"));
        buf_deinit(&r.text);
        if (!cases[i].global)
            continue;
        d.sender = SPAN("\xc3\xa4lice@sender.test");
        d.smtputf8 = true;
        compose(&r, &d);
        snprintf(line, sizeof line, "Original-Recipient: utf-8; %s\r\n", cases[i].global);
        assert_true(has(r.part[1], line));
        buf_deinit(&r.text);
    }
}

/* Who sent with SMTPUTF8 from an ASCII address reads UTF-8 forms; they pass any server as 7-bit. */
static void smtputf8_message_gets_the_global_form_encoded(void **state) {
    (void)state;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.smtputf8 = true;
    d.recipients = &umlaut_recipient;
    d.content = SPAN("Subject: Gr\xc3\xbc\xc3\x9f"
                     "e\r\n\r\nbody\r\n");
    d.size = d.content.len;
    compose(&r, &d);
    assert_false(r.form.eight_bit || r.form.smtputf8);
    assert_true(has(r.part_header[1], "Content-Type: message/global-delivery-status\r\n"));
    assert_true(has(r.part_header[1], "quoted-printable"));
    assert_true(has(r.part[1], "Final-Recipient: utf-8; j=C3=BCrgen@b=C3=BCcher.test\r\n"));
    assert_true(has(r.part[1], "Original-Recipient: utf-8; j=C3=BCrgen+x@b=C3=BCcher.test\r\n"));
    assert_true(has(r.part[1], "kein Empf=C3=A4nger"));
    assert_true(has(r.part_header[2], "Content-Type: message/global\r\n"));
    assert_true(has(r.part_header[2], "base64"));
    assert_true(span_eq(r.part[2], SPAN("U3ViamVjdDogR3LDvMOfZQ0KDQpib2R5DQo=\r\n")));
    buf_deinit(&r.text);
    d.ret = DSN_RET_HDRS;
    compose(&r, &d);
    assert_true(has(r.part_header[2], "Content-Type: message/global-headers\r\n"));
    buf_deinit(&r.text);
    d.recipients = &bob; /* nothing to say in UTF-8: the form that everybody reads */
    compose(&r, &d);
    assert_true(has(r.part_header[1], "Content-Type: message/delivery-status\r\n"));
    buf_deinit(&r.text);
}

static void utf8_sender_gets_the_global_form(void **state) {
    (void)state;
    struct dsn_recipient umlaut = bob;
    umlaut.address = SPAN("j\xc3\xbcrgen@example.test");
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.smtputf8 = true;
    d.sender = SPAN("\xc3\xa4lice@sender.test");
    d.recipients = &umlaut;
    d.content = SPAN("Subject: Gr\xc3\xbc\xc3\x9f"
                     "e\r\n\r\nbody\r\n");
    d.size = d.content.len;
    compose(&r, &d);
    assert_true(r.form.eight_bit && r.form.smtputf8);
    assert_true(has(r.header, "To: <\xc3\xa4lice@sender.test>\r\n"));
    assert_true(has(r.part_header[1], "Content-Type: message/global-delivery-status\r\n"));
    assert_true(has(r.part[1], "Final-Recipient: utf-8; j\xc3\xbcrgen@example.test\r\n"));
    assert_true(has(r.part_header[2], "Content-Type: message/global\r\n"));
    assert_true(has(r.part_header[2], "8bit"));
    assert_true(span_eq(r.part[2], d.content));
    buf_deinit(&r.text);
}

static void eight_bit_originals(void **state) {
    (void)state;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.content = SPAN("Subject: x\r\n\r\nna\xefve\r\n"); /* an 8-bit body */
    d.size = d.content.len;
    compose(&r, &d);
    assert_true(r.form.eight_bit && !r.form.smtputf8);
    assert_true(has(r.part_header[2], "message/rfc822"));
    assert_true(has(r.part_header[2], "8bit"));
    buf_deinit(&r.text);
    d.content = SPAN("Subject: \xff\xfe\r\n\r\nx\r\n"); /* a header that is no UTF-8 */
    d.size = d.content.len;
    compose(&r, &d);
    assert_false(r.form.eight_bit);
    assert_true(has(r.part_header[2], "text/rfc822-headers; charset=unknown-8bit"));
    assert_true(span_eq(r.part[2], SPAN("Subject: =FF=FE\r\n")));
    buf_deinit(&r.text);
    /* Bare line ends, NUL and a line without end are mended. */
    static const char crooked[] = "Subject: a\nX: b\rY: c\0d\r\n\r\nno end";
    d.content = span_make(crooked, sizeof crooked - 1);
    d.size = d.content.len;
    compose(&r, &d);
    assert_true(span_eq(r.part[2], SPAN("Subject: a\r\nX: b\r\nY: c?d\r\n\r\nno end\r\n")));
    buf_deinit(&r.text);
}

static void huge_header_is_cut_at_a_line(void **state) {
    (void)state;
    struct buf content;
    buf_init(&content, 1 << 20);
    for (int i = 0; i < 4000; i++)
        buf_printf(&content, "X-Line-%d: some text to fill the line\r\n", i);
    buf_add_str(&content, "\r\nbody\r\n");
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.content = buf_span(&content);
    d.size = d.content.len;
    compose(&r, &d);
    assert_in_range(r.part[2].len, 50000, DSN_FULL_MAX);
    assert_true(span_ends_nocase(r.part[2], SPAN("line\r\n")));
    buf_deinit(&r.text);
    buf_deinit(&content);
}

static void thousand_recipients_stay_bounded(void **state) {
    (void)state;
    static struct dsn_recipient many[1000];
    for (size_t i = 0; i < 1000; i++)
        many[i] = bob;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.recipients = many;
    d.count = 1000;
    compose(&r, &d);
    assert_int_equal(lines_with(r.part[1], "Final-Recipient:"), 1000);
    assert_int_equal(lines_with(r.part[0], "<bob@"), 50);
    assert_true(has(r.part[0], "and 950 more"));
    buf_deinit(&r.text);
}

static void refuses_what_it_cannot_send(void **state) {
    (void)state;
    static const char *senders[] = {"", "a\r\nBcc: x@y", "a@b\x01", "a>b@c", "a\xff@b"};
    struct dsn_form form;
    struct buf to;
    buf_init(&to, 1 << 20);
    for (size_t i = 0; i < sizeof senders / sizeof *senders; i++) {
        struct dsn d = usual(DSN_FAILED);
        d.sender = span_of(senders[i]);
        assert_int_equal(dsn_compose(&d, &to, &form), ERR_INVALID);
    }
    static char longest[400];
    memset(longest, 'a', sizeof longest);
    struct dsn d = usual(DSN_FAILED);
    d.sender = span_make(longest, 321);
    assert_int_equal(dsn_compose(&d, &to, &form), ERR_INVALID);
    d = usual(DSN_FAILED);
    d.count = 0;
    assert_int_equal(dsn_compose(&d, &to, &form), ERR_INVALID);
    assert_int_equal(buf_len(&to), 0);
    buf_deinit(&to);
    buf_init(&to, 500); /* no room for a report */
    d = usual(DSN_FAILED);
    assert_int_equal(dsn_compose(&d, &to, &form), ERR_FULL);
    buf_deinit(&to);
}

/* -- words -- */

static void every_language_tells_everything(void **state) {
    (void)state;
    static const char *const tags[] = {"en", "de", "fr", "es"};
    static const enum dsn_kind kinds[] = {DSN_FAILED, DSN_DELAYED, DSN_DELIVERED};
    for (int l = 0; l < DSN_LANGUAGES; l++) {
        const struct dsn_words *w = dsn_words((enum dsn_language)l);
        struct buf problems;
        buf_init(&problems, 65536);
        assert_int_equal(dsn_template_check("built in", span_of(w->text), &problems), ERR_OK);
        buf_deinit(&problems);
        for (int c = 0; c < BOUNCE_CATEGORIES; c++)
            assert_true(w->what[c] && w->what[c][0] && utf8_is_valid(span_of(w->what[c])));
        for (int n = 0; n < DSN_THENS; n++)
            assert_true(w->then[n] && w->then[n][0] && utf8_is_valid(span_of(w->then[n])));
        for (int k = 0; k < 3; k++) {
            struct report r;
            struct dsn d = usual(kinds[k]);
            struct dsn_recipient one = bob;
            one.original = SPAN("team@example.test");
            d.recipients = &one;
            d.template.language = (enum dsn_language)l;
            d.sender = SPAN("\xc3\xa4lice@sender.test"); /* as it is, not encoded */
            compose(&r, &d);
            char language[40];
            snprintf(language, sizeof language, "Content-Language: %s\r\n", tags[l]);
            assert_true(has(r.part_header[0], language));
            assert_true(says(r.part[0], "<bob@example.test>") && says(r.part[0], "<team@example.test>"));
            assert_true(has(r.part[0], "mx.post.test") && has(r.part[0], "postmaster@post.test"));
            assert_true(has(r.part[0], "24 Nov 2026"));
            assert_int_equal(says(r.part[0], "No such user here"), k < 2);
            assert_int_equal(has(r.part[0], "29 Nov 2026"), k == 1);
            assert_false(has(r.part[0], "{{") || has(r.part[0], "}}") || has(r.part[0], "[delay]"));
            assert_false(has(r.part[0], "\r\n\r\n\r\n"));
            buf_deinit(&r.text);
        }
    }
}

static void subjects_are_encoded_when_they_must(void **state) {
    (void)state;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.template.language = DSN_FRENCH;
    compose(&r, &d);
    assert_true(has(r.header, "Subject: =?UTF-8?B?Vm90cmUgbWVzc2FnZSBuJ2EgcGFzIHB1IMOqdHJlIHJlbWlz?=\r\n"));
    assert_true(has(r.part_header[0], "quoted-printable"));
    buf_deinit(&r.text);
    d.sender = SPAN("\xc3\xa4lice@sender.test");
    compose(&r, &d);
    assert_true(has(r.header, "Subject: Votre message n'a pas pu \xc3\xaatre remis\r\n"));
    buf_deinit(&r.text);
    char text[700] = "[failure]\nSubject: "; /* at the limit, of two octets each */
    for (int i = 0; i < 95; i++)
        strncat(text, "\xc3\xa9", 3);
    strncat(text, "\nbody\n", 7);
    d = usual(DSN_FAILED);
    d.template.text = span_of(text);
    compose(&r, &d); /* check_lines knows how long a line may be */
    assert_true(has(r.header, "Subject: =?UTF-8?B?w6nDqcOp"));
    buf_deinit(&r.text);
}

static const char own_text[] = "# what we say\r\n"
                               "[failure]\r\n"
                               "Subject: No luck at {{hostname}}\r\n"
                               "Dear {{sender}} of {{ envid }}: {{nonsense\r\n"
                               "{{each}}\r\n"
                               "* {{recipient}} {{status}}\r\n"
                               "  was {{original}}\r\n"
                               "  {{host}}: {{reason}}\r\n"
                               "{{end}}\r\n"
                               "{{more}} more\r\n"
                               "Ask {{postmaster}}.\r\n";

static void own_templates_are_filled_in(void **state) {
    (void)state;
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    struct dsn_recipient two[] = {bob, bob};
    two[1].code = 0;
    two[1].text = SPAN("no server\r\nBcc: x");
    two[1].original = SPAN("old@example.test");
    d.recipients = two;
    d.count = 2;
    d.template = (struct dsn_template){.language = DSN_GERMAN, .text = SPAN(own_text)};
    compose(&r, &d);
    assert_true(has(r.header, "Subject: No luck at mx.post.test\r\n"));
    static const char expected[] = "Dear alice@sender.test of QQ314159: {{nonsense\r\n"
                                   "* bob@example.test 5.1.1\r\n"
                                   "  mx1.example.test [192.0.2.25]:25: 550 5.1.1 No such user here\r\n"
                                   "* bob@example.test 5.1.1\r\n"
                                   "  was old@example.test\r\n"
                                   "  Unser System: no server\\x0d\\x0aBcc: x\r\n"
                                   "Ask postmaster@post.test.\r\n";
    if (!span_eq(r.part[0], SPAN(expected)))
        fail_msg("got %.*s", SPAN_FMT(r.part[0]));
    buf_deinit(&r.text);
    d.kind = DSN_DELAYED; /* not in the file: that of its language */
    compose(&r, &d);
    assert_true(has(r.part[0], "Sie m=C3=BCssen nichts tun"));
    buf_deinit(&r.text);
}

/* What a stranger wrote is no template. */
static void values_are_not_read_again(void **state) {
    (void)state;
    struct report r;
    struct dsn_recipient one = bob;
    one.text = SPAN("{{postmaster}} {{each}} {{sender}}");
    one.address = SPAN("{{hostname}}@example.test");
    struct dsn d = usual(DSN_FAILED);
    d.recipients = &one;
    compose(&r, &d);
    assert_true(says(r.part[0], "{{postmaster}} {{each}} {{sender}}"));
    assert_true(has(r.part[0], "<{{hostname}}@example.test>"));
    buf_deinit(&r.text);
}

static void broken_templates_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"", "t:0: no section"},
        {"hello\n", "t:1: text before [failure], [delay] or [success]: hello"},
        {"[failure]\nhello\n", "t:2: a section begins with \"Subject: TEXT\": hello"},
        {"[failure]\nSubject:  \n", "t:2: a section begins"},
        {"[failure]\nSubject: x\n[delay]\n", "t:3: a section without \"Subject:\": [delay]"},
        {"[failure]\nSubject: x\n[failure]\nSubject: y\n", "t:3: the section stands twice"},
        {"[failure]\nSubject: x\n{{who}}\n", "t:3: no such variable (or {{each}}, {{end}} not alone on its line): who"},
        {"[failure]\nSubject: x\na {{each}}\n", "t:3: no such variable"},
        {"[failure]\nSubject: x\n{{recipient}}\n", "t:3: tells of one recipient"},
        {"[failure]\nSubject: {{reason}}\n", "t:2: tells of one recipient"},
        {"[failure]\nSubject: x\n{{time\n", "t:3: {{ without }}"},
        {"[failure]\nSubject: x\ntime}}\n", "t:3: }} without {{"},
        {"[failure]\nSubject: x\n{{each}}\n{{each}}\n{{end}}\n", "t:4: {{each}} inside {{each}}"},
        {"[failure]\nSubject: x\n\n{{end}}\n", "t:4: {{end}} without {{each}}"},
        {"[failure]\nSubject: x\n{{each}}\n", "t:3: {{each}} without {{end}}"},
        {"[failure]\nSubject: x\n{{each}}\n[delay]\nSubject: x\n", "t:4: {{each}} without {{end}}"},
        {"[failure]\nSubject: x\n\xff\n", "t:3: not UTF-8"},
        {"[failure]\nSubject: x\n\n\n\x1b[2J\n", "t:5: a control character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf problems;
        buf_init(&problems, 65536);
        assert_int_equal(dsn_template_check("t", span_of(cases[i].text), &problems), ERR_INVALID);
        assert_non_null(strstr(buf_cstr(&problems), cases[i].problem));
        buf_deinit(&problems);
    }
    static char large[DSN_TEMPLATE_MAX + 2];
    memset(large, '\n', sizeof large - 1);
    memcpy(large, "[failure]\nSubject: x\n", 21);
    struct buf problems;
    buf_init(&problems, 65536);
    assert_int_equal(dsn_template_check("t", span_of(own_text), &problems), ERR_INVALID); /* {{nonsense */
    assert_int_equal(dsn_template_check("t", span_make(large, DSN_TEMPLATE_MAX), &problems), ERR_OK);
    assert_int_equal(dsn_template_check("t", span_make(large, DSN_TEMPLATE_MAX + 1), &problems), ERR_INVALID);
    memset(large + 30, 'a', 901);
    assert_int_equal(dsn_template_check("t", span_make(large, 2000), &problems), ERR_INVALID);
    buf_deinit(&problems);
}

static void templates_follow_the_sender(void **state) {
    (void)state;
    static const struct dsn_texts_rule rules[] = {
        {"*", DSN_SPANISH, NULL, NULL},
        {".example.net", DSN_FRENCH, NULL, NULL},
        {".sub.example.net", DSN_GERMAN, NULL, NULL},
        {"example.org", DSN_ENGLISH, "f", own_text},
    };
    static const struct {
        const char *sender;
        enum dsn_language language;
    } cases[] = {
        {"a@example.com", DSN_SPANISH},      {"a@example.net", DSN_FRENCH},
        {"a@x.EXAMPLE.net", DSN_FRENCH},     {"a@sub.example.net", DSN_GERMAN},
        {"a@y.sub.example.net", DSN_GERMAN}, {"a@xexample.net", DSN_SPANISH},
        {"a@sub.example.org", DSN_SPANISH},  {"a", DSN_SPANISH},
        {"a@b\"@example.net", DSN_FRENCH},
    };
    struct dsn_texts *t;
    struct dsn_texts_config config = {.language = DSN_GERMAN, .rules = rules, .count = 4};
    assert_int_equal(dsn_texts_new(&t, &config), ERR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dsn_template chosen = dsn_texts_for(t, span_of(cases[i].sender));
        assert_int_equal(chosen.language, cases[i].language);
        assert_int_equal(chosen.text.len, 0);
    }
    struct dsn_texts *second = dsn_texts_ref(t);
    dsn_texts_unref(t);
    assert_true(span_eq(dsn_texts_for(second, SPAN("a@example.org")).text, SPAN(own_text)));
    dsn_texts_unref(second);
    config.count = 0;
    assert_int_equal(dsn_texts_new(&t, &config), ERR_OK);
    assert_int_equal(dsn_texts_for(t, SPAN("a@example.org")).language, DSN_GERMAN);
    dsn_texts_unref(t);
    assert_int_equal(dsn_texts_for(NULL, SPAN("a@b")).language, DSN_ENGLISH);
    dsn_texts_unref(NULL);
}

/* -- automatic mail -- */

static void automatic_mail_is_recognised(void **state) {
    (void)state;
    static const struct {
        const char *kind, *content;
    } cases[] = {
        {"none", ""},
        {"none", "Subject: x\r\n\r\nPrecedence: bulk\r\n"},
        {"none", "Auto-Submitted: no\r\n\r\n"},
        {"none", "Auto-Submitted: (auto) NO (really)\r\n\r\n"},
        {"none", "Auto-Submitted:\r\n\r\n"},
        {"none", "Precedence: first-class\r\n\r\n"},
        {"none", "Content-Type: multipart/mixed; report-type=feedback-report\r\n\r\n"},
        {"none", "X-Precedence: bulk\r\nPrecedences: bulk\r\n\r\n"},
        {"auto_submitted", "auto-submitted: auto-replied (vacation)\r\n\r\n"},
        {"auto_submitted", "Subject: x\nAuto-Submitted:\n auto-generated; owner-email=\"a@b\"\n\n"},
        {"auto_submitted", "Precedence: bulk\r\nAuto-Submitted: auto-notified\r\n\r\n"},
        {"precedence", "Precedence: BULK\r\n"},
        {"precedence", "PRECEDENCE : list\r\n\r\n"},
        {"precedence", "Precedence: junk"},
        {"report", "Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n"},
        {"report", "Content-Type: multipart/report;\r\n\tboundary=\"; report-type\"\r\n\r\n"},
        {"report", "Auto-Submitted: auto-replied\r\nContent-Type: Multipart/Report (x)\r\n\r\n"},
        {"feedback", "Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n"},
        {"feedback", "Precedence: list\r\nContent-Type: multipart/report; boundary=\"x\";\r\n"
                     " Report-Type = \"Feedback-Report\"\r\n\r\n"},
        {"feedback", "Content-Type: multipart/report; (a (nested\\) ) remark) report-type=feedback-report\r\n\r\n"},
        {"none", "Content-Type: ((((multipart/report\r\n\r\n"},
        {"none", "no field at all\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(dsn_auto_name(dsn_recognise(span_of(cases[i].content))), cases[i].kind);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_has_its_three_parts),
        cmocka_unit_test(returns_what_ret_asks),
        cmocka_unit_test(delay_says_until_when),
        cmocka_unit_test(success_is_delivered_or_relayed),
        cmocka_unit_test(status_passes_through_or_defaults),
        cmocka_unit_test(hostile_octets_add_nothing),
        cmocka_unit_test(long_replies_are_cut_and_folded),
        cmocka_unit_test(boundary_is_not_in_the_content),
        cmocka_unit_test(plain_sender_gets_addresses_in_ascii),
        cmocka_unit_test(embedded_characters_are_read),
        cmocka_unit_test(smtputf8_message_gets_the_global_form_encoded),
        cmocka_unit_test(utf8_sender_gets_the_global_form),
        cmocka_unit_test(eight_bit_originals),
        cmocka_unit_test(huge_header_is_cut_at_a_line),
        cmocka_unit_test(thousand_recipients_stay_bounded),
        cmocka_unit_test(refuses_what_it_cannot_send),
        cmocka_unit_test(every_language_tells_everything),
        cmocka_unit_test(subjects_are_encoded_when_they_must),
        cmocka_unit_test(own_templates_are_filled_in),
        cmocka_unit_test(values_are_not_read_again),
        cmocka_unit_test(broken_templates_are_refused),
        cmocka_unit_test(templates_follow_the_sender),
        cmocka_unit_test(automatic_mail_is_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
