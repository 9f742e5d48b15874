/*
 * xtext: decodes ENVID and ORCPT.
 *
 * The value ends in the headers of a report that we write later, so the check is stricter than the
 * grammar: nothing that could end a line, start one, or change the direction of writing leaves
 * this room. A value that breaks the rule is refused as a whole; nothing is cleaned in silence.
 */
#include "base/utf8.h"

#include "gateway/smtp/xtext.h"

/* Upper case only, as the grammar says. */
static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The octet that "+HH" at the start of s stands for, or -1. */
static int decode_one(struct span s) {
    if (s.len < 3)
        return -1;
    int high = hex_value(s.at[1]), low = hex_value(s.at[2]);
    if (high < 0 || low < 0)
        return -1;
    int octet = high * 16 + low;
    return octet >= 0x20 && octet <= 0x7e ? octet : -1;
}

static bool is_harmless(uint32_t cp) {
    bool c1 = cp >= 0x80 && cp <= 0x9f;
    bool separator = cp == 0x2028 || cp == 0x2029;
    bool direction = (cp >= 0x202a && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0x200e || cp == 0x200f;
    return !c1 && !separator && !direction;
}

int xtext_decode(struct span s, bool raw_utf8, struct arena *mem, struct span *out) {
    char *to = arena_alloc(mem, s.len + 1);
    size_t len = 0;
    if (!to)
        return ERR_NOMEM;
    while (s.len) {
        unsigned char c = (unsigned char)s.at[0];
        size_t used = 1;
        if (c == '+') {
            int octet = decode_one(s);
            if (octet < 0)
                return ERR_INVALID;
            to[len++] = (char)octet;
            used = 3;
        } else if (c >= 0x80) {
            uint32_t cp = 0;
            used = raw_utf8 ? utf8_next(s, &cp) : 0;
            if (used == 0 || !is_harmless(cp))
                return ERR_INVALID;
            memcpy(to + len, s.at, used);
            len += used;
        } else if (c > 0x20 && c < 0x7f && c != '=') {
            to[len++] = (char)c;
        } else {
            return ERR_INVALID;
        }
        s = span_from(s, used);
    }
    to[len] = '\0';
    *out = span_make(to, len);
    return ERR_OK;
}
