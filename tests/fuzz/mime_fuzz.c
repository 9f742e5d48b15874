/*
 * Fuzzes the conversion to 7 bit: what it accepts comes out without an octet over 127, and converting
 * the result again changes nothing.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "gateway/smtp/mime.h"
#include "gateway/smtp/stuff.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The body as it would be sent: no lone dot but the last. */
static void check_stuffed(struct span body) {
    struct stuff s;
    struct span pieces[STUFF_PIECES_MIN];
    stuff_init(&s);
    while (body.len) {
        size_t used, count = stuff_next(&s, body, pieces, STUFF_PIECES_MIN, &used);
        CHECK(count <= STUFF_PIECES_MIN && used > 0 && used <= body.len);
        body = span_from(body, used);
    }
    CHECK(span_ends_nocase(stuff_end(&s), SPAN(".\r\n")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span in = span_make(data, size);
    struct buf out, again;
    const char *why;
    check_stuffed(in);
    buf_init(&out, 16u << 20);
    buf_init(&again, 16u << 20);
    if (mime_to_7bit(in, &out, &why) == ERR_OK) {
        CHECK(!mime_has_8bit(buf_span(&out)));
        CHECK(mime_to_7bit(buf_span(&out), &again, &why) == ERR_OK);
        CHECK(span_eq(buf_span(&out), buf_span(&again)));
    } else {
        CHECK(why && why[0]);
    }
    buf_deinit(&out);
    buf_deinit(&again);
    return 0;
}
