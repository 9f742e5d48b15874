/*
 * buf: the slow half of the growing buffer: allocation, growth, formatted and escaped
 * appends. The fast half (an append that fits) is inline in buf.h.
 *
 * Invariants: start <= end <= cap <= max; mem holds cap + 1 bytes, so that buf_cstr always
 * has a place for its NUL; cap <= max makes "fits into cap" imply "fits into max". A buf
 * whose cap equals its max never grows, so it may also sit on memory that is not from the
 * heap (log.c does so); such a one is never deinited.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/utf8.h"

enum { BUF_CAP_FIRST = 64 };

void buf_init(struct buf *b, size_t max) {
    *b = (struct buf){.max = max < SIZE_MAX / 2 ? max : SIZE_MAX / 2};
}

void buf_deinit(struct buf *b) {
    size_t max = b->max;
    free(b->mem);
    buf_init(b, max);
}

void buf_clear(struct buf *b) {
    b->start = b->end = 0;
    b->err = ERR_OK;
}

void buf_consume(struct buf *b, size_t n) {
    CHECK(n <= buf_len(b));
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

void buf_truncate(struct buf *b, size_t len) {
    CHECK(len <= buf_len(b));
    b->end = b->start + len;
}

static int fail(struct buf *b, int err) {
    b->err = err;
    return err;
}

/* Makes room for len more bytes behind end. */
static int grow(struct buf *b, size_t len) {
    size_t held = buf_len(b);
    if (len > b->max - held)
        return fail(b, ERR_FULL);
    /* Shifting is cheap when at least as much was consumed as is left, and the only way at the maximum. */
    bool worth = b->start >= held || b->cap == b->max;
    if (b->start && worth && len <= b->cap - held) {
        memmove(b->mem, b->mem + b->start, held);
        b->start = 0;
        b->end = held;
        return ERR_OK;
    }
    size_t cap = b->cap * 2 > BUF_CAP_FIRST ? b->cap * 2 : BUF_CAP_FIRST;
    if (cap < held + len)
        cap = held + len;
    if (cap > b->max)
        cap = b->max;
    char *mem = malloc(cap + 1);
    if (!mem)
        return fail(b, ERR_NOMEM);
    if (held)
        memcpy(mem, b->mem + b->start, held);
    free(b->mem);
    b->mem = mem;
    b->cap = cap;
    b->start = 0;
    b->end = held;
    return ERR_OK;
}

int buf_append_slow(struct buf *b, const void *bytes, size_t len) {
    if (b->err || len == 0)
        return b->err;
    if (len > b->cap - b->end) {
        int err = grow(b, len);
        if (err)
            return err;
    }
    memcpy(b->mem + b->end, bytes, len);
    b->end += len;
    return ERR_OK;
}

char *buf_reserve(struct buf *b, size_t len) {
    if (b->err)
        return NULL;
    if (!b->mem || len > b->cap - b->end) {
        if (grow(b, len))
            return NULL;
    }
    return b->mem + b->end;
}

void buf_commit(struct buf *b, size_t len) {
    CHECK(len <= b->cap - b->end);
    b->end += len;
}

int buf_add_u64(struct buf *b, uint64_t n) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    return buf_append(b, digits + at, sizeof digits - at);
}

int buf_vprintf(struct buf *b, const char *format, va_list args) {
    if (b->err)
        return b->err;
    va_list again;
    va_copy(again, args);
    /* cap + 1 bytes are allocated, so the terminating NUL has its place. */
    size_t room = b->mem ? b->cap - b->end : 0;
    int len = vsnprintf(b->mem ? b->mem + b->end : NULL, b->mem ? room + 1 : 0, format, args);
    if (len < 0) {
        va_end(again);
        return fail(b, ERR_INVALID);
    }
    if ((size_t)len > room || !b->mem) {
        char *to = buf_reserve(b, (size_t)len);
        if (to)
            vsnprintf(to, (size_t)len + 1, format, again);
    }
    va_end(again);
    if (!b->err)
        b->end += (size_t)len;
    return b->err;
}

int buf_printf(struct buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int err = buf_vprintf(b, format, args);
    va_end(args);
    return err;
}

const char *buf_cstr(struct buf *b) {
    if (!b->mem)
        return "";
    b->mem[b->end] = '\0';
    return b->mem + b->start;
}

/* Controls of writing direction and line breaks that can make a log line lie to its reader. */
static bool is_deceptive(uint32_t cp) {
    return (cp >= 0x80 && cp <= 0x9f) || cp == 0x61c || cp == 0x200e || cp == 0x200f ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
}

static int add_hex(struct buf *b, struct span s) {
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        char text[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};
        buf_append(b, text, sizeof text);
    }
    return b->err;
}

static bool is_plain(char c) {
    return c >= 0x20 && c < 0x7f && c != '\\' && c != '"';
}

static size_t plain_run(struct span s) {
    size_t n = 0;
    while (n < s.len && is_plain(s.at[n]))
        n++;
    return n;
}

int buf_add_escaped(struct buf *b, struct span s) {
    while (s.len && !b->err) {
        uint32_t cp = 0;
        size_t n = plain_run(s);
        if (n) {
            buf_append(b, s.at, n);
        } else if ((n = utf8_next(s, &cp)) == 0) {
            n = 1;
            add_hex(b, span_first(s, 1));
        } else if (cp == '\\') {
            buf_append(b, "\\\\", 2);
        } else if (cp < 0x20 || cp == 0x7f || is_deceptive(cp)) {
            add_hex(b, span_first(s, n));
        } else {
            buf_append(b, s.at, n);
        }
        s = span_from(s, n);
    }
    return b->err;
}

static int add_json_special(struct buf *b, char c) {
    switch (c) {
    case '"':
        return buf_append(b, "\\\"", 2);
    case '\\':
        return buf_append(b, "\\\\", 2);
    case '\n':
        return buf_append(b, "\\n", 2);
    case '\r':
        return buf_append(b, "\\r", 2);
    case '\t':
        return buf_append(b, "\\t", 2);
    default:
        return buf_printf(b, "\\u%04x", (unsigned)(unsigned char)c);
    }
}

int buf_add_json(struct buf *b, struct span s) {
    while (s.len && !b->err) {
        uint32_t cp = 0;
        size_t n = plain_run(s);
        if (n) {
            buf_append(b, s.at, n);
        } else if ((n = utf8_next(s, &cp)) == 0) {
            n = 1;
            buf_append(b, "\xef\xbf\xbd", 3);
        } else if (cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x7f) {
            add_json_special(b, s.at[0]);
        } else {
            buf_append(b, s.at, n);
        }
        s = span_from(s, n);
    }
    return b->err;
}
