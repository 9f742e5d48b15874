/*
 * Feeds the SMTP server core messages in chunks. Each octet of an operation names what comes next: a chunk, the last
 * one, RSET and a new transaction, or a line of the input itself. As long as only whole chunks came, a message that is
 * accepted must be its chunks joined; and the places where the stream is cut must never change what happens.
 */
#include "tests/support/smtp_transcript.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct run {
    struct transcript whole, cut;
    struct buf sent; /* octets of the chunks of this transaction */
    size_t piece;
    bool known; /* what is sent is what we think: no line of the input was sent yet */
};

static void feed(struct run *r, struct span s) {
    transcript_feed(&r->whole, s);
    while (s.len) {
        struct span part = span_first(s, r->piece);
        transcript_feed(&r->cut, part);
        s = span_from(s, part.len);
    }
}

static void begin(struct run *r) {
    feed(r, SPAN("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"));
    buf_clear(&r->sent);
}

static struct span take(struct span *in, size_t n) {
    struct span part = span_first(*in, n);
    *in = span_from(*in, part.len);
    return part;
}

static void send_chunk(struct run *r, struct span octets, bool last) {
    char command[48];
    unsigned before = r->whole.accepted;
    int n = snprintf(command, sizeof command, "BDAT %zu%s\r\n", octets.len, last ? " LAST" : "");
    feed(r, span_make(command, (size_t)n));
    feed(r, octets);
    CHECK(buf_add(&r->sent, octets) == ERR_OK);
    if (!last)
        return;
    if (r->known && r->whole.accepted != before) {
        struct span got = buf_span(&r->whole.last_body), sent = buf_span(&r->sent);
        CHECK(got.len >= sent.len && span_eq(span_first(got, sent.len), sent));
        struct span more = span_from(got, sent.len); /* the end of a last line without one */
        CHECK(more.len == 0 || span_eq(more, SPAN("\r\n")));
    }
    begin(r);
}

static void operate(struct run *r, struct span *in) {
    unsigned op = (unsigned char)take(in, 1).at[0];
    struct span rest, line;
    switch (op & 7) {
    case 6:
        feed(r, SPAN("RSET\r\n"));
        begin(r);
        return;
    case 7:
        line = span_cut(*in, '\n', &rest);
        *in = rest;
        r->known = false;
        feed(r, line);
        feed(r, SPAN("\r\n"));
        return;
    default:
        send_chunk(r, take(in, op >> 3), (op & 7) >= 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct server_config c;
    struct server_settings settings;
    struct run r = {.known = true};
    if (len < 1)
        return 0;
    struct span in = span_make(bytes + 1, len - 1);
    transcript_config(&c);
    c.message_size = 300;
    r.piece = bytes[0] % 16 + 1;
    CHECK(server_settings_init(&settings, &c) == ERR_OK);
    buf_init(&r.sent, 1 << 24);
    transcript_open(&r.whole, &settings, false);
    transcript_open(&r.cut, &settings, false);
    feed(&r, SPAN("EHLO client.example\r\n"));
    begin(&r);
    while (in.len && !r.whole.closed)
        operate(&r, &in);
    CHECK(span_eq(buf_span(&r.whole.text), buf_span(&r.cut.text)));
    CHECK(r.whole.closed == r.cut.closed && r.whole.accepted == r.cut.accepted);
    transcript_close(&r.whole);
    transcript_close(&r.cut);
    buf_deinit(&r.sent);
    server_settings_deinit(&settings);
    return 0;
}
