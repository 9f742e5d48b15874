/*
 * utf8: the one decoder of UTF-8. Strict, because a lenient one lets two spellings of the
 * same character through, and with them syntax that the next program reads differently.
 * ASCII is skipped eight bytes at a time: nearly all mail is ASCII.
 */
#include <string.h>

#include "base/utf8.h"

size_t utf8_next(struct span s, uint32_t *cp) {
    if (s.len == 0)
        return 0;
    const unsigned char *p = (const unsigned char *)s.at;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    size_t len;
    uint32_t c, least;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2, c = p[0] & 0x1f, least = 0x80;
    } else if ((p[0] & 0xf0) == 0xe0) {
        len = 3, c = p[0] & 0x0f, least = 0x800;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4, c = p[0] & 0x07, least = 0x10000;
    } else {
        return 0;
    }
    if (s.len < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *cp = c;
    return len;
}

/* Length of the ASCII run at the start. */
static size_t ascii_run(struct span s) {
    size_t n = 0;
    while (s.len - n >= 8) {
        uint64_t word;
        memcpy(&word, s.at + n, 8);
        if (word & 0x8080808080808080u)
            break;
        n += 8;
    }
    while (n < s.len && !((unsigned char)s.at[n] & 0x80))
        n++;
    return n;
}

bool utf8_is_ascii(struct span s) {
    return ascii_run(s) == s.len;
}

bool utf8_is_valid(struct span s) {
    for (;;) {
        s = span_from(s, ascii_run(s));
        if (s.len == 0)
            return true;
        uint32_t cp;
        size_t n = utf8_next(s, &cp);
        if (n == 0)
            return false;
        s = span_from(s, n);
    }
}
