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
        assert_int_equal(lines_with(r->part_header[i], "Content-"), 3);
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

static void ascii_sender_gets_seven_bits(void **state) {
    (void)state;
    struct dsn_recipient umlaut = bob;
    umlaut.address = SPAN("j\xc3\xbcrgen@b\xc3\xbc"
                          "cher.test");
    umlaut.orcpt = SPAN("utf-8;j\xc3\xbcrgen+x@b\xc3\xbc"
                        "cher.test");
    umlaut.text = SPAN("kein Empf\xc3\xa4nger");
    struct report r;
    struct dsn d = usual(DSN_FAILED);
    d.smtputf8 = true;
    d.recipients = &umlaut;
    d.content = SPAN("Subject: Gr\xc3\xbc\xc3\x9f"
                     "e\r\n\r\nbody\r\n");
    d.size = d.content.len;
    compose(&r, &d);
    assert_false(r.form.eight_bit || r.form.smtputf8);
    assert_true(has(r.part_header[0], "quoted-printable"));
    assert_true(has(r.part[0], "j=C3=BCrgen@b=C3=BCcher.test"));
    assert_true(has(r.part_header[1], "Content-Type: message/delivery-status\r\n"));
    assert_true(has(r.part[1], "Final-Recipient: utf-8; j\\x{FC}rgen@b\\x{FC}cher.test\r\n"));
    assert_true(has(r.part[1], "Original-Recipient: utf-8; j\\x{FC}rgen\\x{2B}x@b\\x{FC}cher.test\r\n"));
    assert_true(has(r.part[1], "kein Empf\\xC3\\xA4nger"));
    assert_true(has(r.part_header[2], "Content-Type: message/global\r\n"));
    assert_true(has(r.part_header[2], "base64"));
    assert_true(span_eq(r.part[2], SPAN("U3ViamVjdDogR3LDvMOfZQ0KDQpib2R5DQo=\r\n")));
    buf_deinit(&r.text);
    d.ret = DSN_RET_HDRS;
    compose(&r, &d);
    assert_true(has(r.part_header[2], "Content-Type: message/global-headers\r\n"));
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
        cmocka_unit_test(ascii_sender_gets_seven_bits),
        cmocka_unit_test(utf8_sender_gets_the_global_form),
        cmocka_unit_test(eight_bit_originals),
        cmocka_unit_test(huge_header_is_cut_at_a_line),
        cmocka_unit_test(thousand_recipients_stay_bounded),
        cmocka_unit_test(refuses_what_it_cannot_send),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
