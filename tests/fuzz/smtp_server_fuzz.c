/*
 * Feeds the SMTP server core strangers' octets, cut at places that the input itself chooses, and checks that it
 * stays inside its bounds (smtp_transcript.h holds the checks), and that one piece and many give one transcript.
 */
#include "tests/support/smtp_transcript.h"

static void feed(struct transcript *t, struct span input, uint8_t piece) {
    while (input.len && !t->closed) {
        struct span part = span_first(input, piece ? piece : input.len);
        transcript_feed(t, part);
        input = span_from(input, part.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len < 2)
        return 0;
    struct server_config c;
    struct server_settings settings;
    struct transcript whole, cut;
    transcript_config(&c);
    c.normalize = bytes[0] & 1;
    c.vrfy = bytes[0] & 2;
    c.extensions |= bytes[0] & 8 ? ~0u : 0;
    c.ask_helo = c.ask_data = bytes[0] & 16;
    c.tls_required = bytes[0] & 32;
    c.auth_required = bytes[0] & 64;
    c.message_size = 500;
    CHECK(server_settings_init(&settings, &c) == ERR_OK);
    struct span input = span_make(bytes + 2, len - 2);
    transcript_open(&whole, &settings, bytes[0] & 4);
    transcript_open(&cut, &settings, bytes[0] & 4);
    feed(&whole, input, 0);
    feed(&cut, input, bytes[1]);
    CHECK(span_eq(buf_span(&whole.text), buf_span(&cut.text)));
    transcript_close(&whole);
    transcript_close(&cut);
    server_settings_deinit(&settings);
    return 0;
}
