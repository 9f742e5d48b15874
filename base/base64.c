/*
 * base64: see base64.h. A table each way; strict, since what two readers read in two ways is a way in.
 */
#include "base/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct span s, struct buf *to) {
    const unsigned char *at = (const unsigned char *)s.at;
    size_t left = s.len;
    for (; left; at += 3) {
        size_t n = left < 3 ? left : 3;
        uint32_t three = (uint32_t)at[0] << 16 | (n > 1 ? (uint32_t)at[1] << 8 : 0) | (n > 2 ? at[2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], n > 1 ? digits[three >> 6 & 63] : '=',
                        n > 2 ? digits[three & 63] : '='};
        buf_append(to, four, 4);
        left -= n;
    }
    return to->err;
}

static int value_of(char c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four digits, of which the last `pad` are '='. */
static bool take_four(const char *at, unsigned pad, struct buf *to) {
    uint32_t bits = 0;
    for (unsigned i = 0; i < 4; i++) {
        int v = i < 4 - pad ? value_of(at[i]) : 0;
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
    }
    if ((pad == 1 && bits & 0xff) || (pad == 2 && bits & 0xffff))
        return false;
    char three[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
    buf_append(to, three, 3 - pad);
    return true;
}

int base64_decode(struct span text, struct buf *to) {
    if (text.len % 4)
        return ERR_INVALID;
    for (size_t i = 0; i < text.len; i += 4) {
        bool last = i + 4 == text.len;
        unsigned pad = !last || text.at[i + 3] != '=' ? 0 : text.at[i + 2] == '=' ? 2 : 1;
        if (!take_four(text.at + i, pad, to))
            return ERR_INVALID;
    }
    return to->err;
}
