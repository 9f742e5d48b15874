/*
 * Fuzzes base64 in both directions: what is encoded decodes to itself, and a text that is accepted is the only one that
 * stands for its octets (two texts for one password would pass a filter of logs).
 */
#include <stddef.h>
#include <stdint.h>

#include "base/base64.h"
#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span in = span_make(data, size);
    struct buf octets, text;
    buf_init(&octets, 1 << 20);
    buf_init(&text, 1 << 21);
    CHECK(base64_encode(in, &text) == ERR_OK);
    CHECK(buf_len(&text) == (size + 2) / 3 * 4);
    CHECK(base64_decode(buf_span(&text), &octets) == ERR_OK && span_eq(buf_span(&octets), in));
    buf_clear(&octets);
    buf_clear(&text);
    int err = base64_decode(in, &octets);
    CHECK(err == ERR_OK || err == ERR_INVALID);
    if (err == ERR_OK) {
        CHECK(buf_len(&octets) <= size / 4 * 3);
        CHECK(base64_encode(buf_span(&octets), &text) == ERR_OK && span_eq(buf_span(&text), in));
    }
    buf_deinit(&octets);
    buf_init(&octets, size % 7); /* a bound that is too small is kept, too */
    err = base64_decode(in, &octets);
    CHECK(err == ERR_OK || err == ERR_INVALID || err == ERR_FULL);
    CHECK(buf_len(&octets) <= size % 7);
    buf_deinit(&octets);
    buf_deinit(&text);
    return 0;
}
