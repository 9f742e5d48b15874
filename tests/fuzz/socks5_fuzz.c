/*
 * Fuzzes what a SOCKS5 proxy says. The first octet chooses login, family and the size of the pieces. The verdict and
 * what is sent are the same however the octets are cut, what is sent is bounded, and the octets behind the reply are
 * left alone.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#include "gateway/smtp/socks5.h"

enum { SENT_MAX = 3 + SOCKS5_OUT_MAX + 22 };

struct run {
    enum socks5_verdict verdict;
    const char *why;
    char sent[SENT_MAX];
    size_t sent_len, used;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_step(struct socks5 *s, struct run *r, const uint8_t *data, size_t have, size_t *out_len) {
    char out[SOCKS5_OUT_MAX];
    size_t len = have - r->used;
    char *copy = malloc(len ? len : 1); /* exact, so that every octet read beyond it is seen */
    if (len)
        memcpy(copy, data + r->used, len);
    struct span in = span_make(copy, len);
    r->verdict = socks5_next(s, &in, out, out_len);
    CHECK(in.len <= len && in.at + in.len == copy + len && *out_len <= sizeof out);
    CHECK(r->sent_len + *out_len <= sizeof r->sent);
    memcpy(r->sent + r->sent_len, out, *out_len);
    r->sent_len += *out_len;
    r->used = have - in.len;
    free(copy);
}

static void run(struct run *r, uint8_t how, const uint8_t *data, size_t size, size_t step) {
    static const uint8_t ip[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
    struct socks5 s;
    size_t have = 0, out_len;
    memset(r, 0, sizeof *r);
    socks5_init(&s, how & 1 ? "user" : NULL, how & 1 ? "password" : NULL, how & 2, ip, 25);
    one_step(&s, r, data, 0, &out_len);
    while (r->verdict == SOCKS5_MORE && have < size) {
        have = size - have > step ? have + step : size;
        do
            one_step(&s, r, data, have, &out_len);
        while (r->verdict == SOCKS5_MORE && out_len);
    }
    CHECK((r->verdict == SOCKS5_OPEN) == (s.state == SOCKS5_UP));
    CHECK((r->verdict > SOCKS5_OPEN) == (s.state == SOCKS5_FAILED) && (s.why != NULL) == (s.state == SOCKS5_FAILED));
    r->why = s.why;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct run whole, pieces;
    if (size < 1)
        return 0;
    uint8_t how = data[0];
    run(&whole, how, data + 1, size - 1, size);
    for (size_t step = 1; step <= 3; step++) {
        run(&pieces, how, data + 1, size - 1, step);
        CHECK(pieces.verdict == whole.verdict && pieces.why == whole.why && pieces.used == whole.used);
        CHECK(pieces.sent_len == whole.sent_len && memcmp(pieces.sent, whole.sent, whole.sent_len) == 0);
    }
    return 0;
}
