/*
 * buf: a growing byte buffer with a maximum.
 *
 * Bytes are appended at the end and consumed from the front. It never grows over its
 * maximum: then ERR_FULL and the content stays as it was. After a failed append the
 * buffer remembers the first error (buf->err), so that a row of appends can be
 * checked once at its end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct buf {
    char *mem;    /* heap, or NULL while empty and never grown */
    size_t start; /* first byte not consumed */
    size_t end;   /* one past the last byte */
    size_t cap;   /* bytes usable in mem, <= max; one more is allocated for a NUL */
    size_t max;   /* most bytes that it may hold */
    int err;      /* first error of an append, ERR_OK so far */
};

/* An empty buffer of at most max bytes; allocates nothing yet. */
void buf_init(struct buf *b, size_t max);
/* Frees the memory; the buffer is empty and usable again with the same maximum. */
void buf_deinit(struct buf *b);
/* Empties it and clears the error; keeps the memory. */
void buf_clear(struct buf *b);
static inline size_t buf_len(const struct buf *b) {
    return b->end - b->start;
}
/* The unconsumed bytes; valid until the next append, consume or clear. */
static inline struct span buf_span(const struct buf *b) {
    return (struct span){b->mem ? b->mem + b->start : NULL, b->end - b->start};
}
/* Drops n (<= length) bytes from the front. */
void buf_consume(struct buf *b, size_t n);
/* Appends. ERR_OK, ERR_FULL, ERR_NOMEM; also kept in b->err, and once b->err is set all
 * appends are refused with it until buf_clear. */
int buf_append_slow(struct buf *b, const void *bytes, size_t len); /* the part of buf_append that grows */
static inline int buf_append(struct buf *b, const void *bytes, size_t len) {
    /* len - 1 wraps for 0, so that one comparison sorts out both the empty and the too long. */
    if (__builtin_expect(b->err == ERR_OK && len - 1 < b->cap - b->end, 1)) {
        memcpy(b->mem + b->end, bytes, len);
        b->end += len;
        return ERR_OK;
    }
    return buf_append_slow(b, bytes, len);
}
static inline int buf_add(struct buf *b, struct span s) {
    return buf_append(b, s.at, s.len);
}
static inline int buf_add_str(struct buf *b, const char *text) {
    return buf_append(b, text, strlen(text));
}
static inline int buf_add_byte(struct buf *b, char c) {
    return buf_append(b, &c, 1);
}
int buf_add_u64(struct buf *b, uint64_t n); /* decimal */
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *format, va_list args);
/* Room for len more bytes: a pointer to write at, then buf_commit(written). NULL: full or
 * no memory (b->err is set). */
char *buf_reserve(struct buf *b, size_t len) MUST_CHECK;
void buf_commit(struct buf *b, size_t len);
/* Shortens to the first len bytes (counted from the unconsumed start). */
void buf_truncate(struct buf *b, size_t len);
/* The next two append piece by piece: after a failure what fitted stays in the buffer.
 * Appends s with hostile bytes made visible: C0, DEL, C1, ESC, backslash and invalid UTF-8
 * become \xHH (\\ for the backslash); valid UTF-8 passes, except bidi controls. */
int buf_add_escaped(struct buf *b, struct span s);
/* Appends s as the inside of a JSON string (quotes not included); invalid UTF-8 becomes U+FFFD. */
int buf_add_json(struct buf *b, struct span s);
/* A NUL-terminated view (the NUL is not counted); never NULL, "" when empty. */
const char *buf_cstr(struct buf *b);

#endif
