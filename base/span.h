/*
 * span: borrowed bytes with a length. Not NUL-terminated, may hold NUL, never owns.
 *
 * The way strings travel between parsers, records and frames. The memory belongs to
 * whoever made the span; each function that keeps one says whose arena it copies it to.
 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const char *at;
    size_t len;
};

#define SPAN_EMPTY ((struct span){NULL, 0})
/* A span over a string literal. */
#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})
/* For printf: "%.*s", SPAN_FMT(s) (only for bytes known to be printable). */
#define SPAN_FMT(s) (int)(s).len, (s).at ? (s).at : ""

/* Over a NUL-terminated string (NULL gives the empty span). */
struct span span_of(const char *text);
static inline struct span span_make(const void *at, size_t len) {
    return (struct span){(const char *)at, len};
}
static inline bool span_eq(struct span a, struct span b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}
/* Equal when ASCII letters are folded; other bytes compare as they are. */
bool span_eq_nocase(struct span a, struct span b);
/* memcmp order, the shorter first when one is a prefix: <0, 0, >0. */
int span_cmp(struct span a, struct span b);
bool span_starts_nocase(struct span s, struct span prefix);
bool span_ends_nocase(struct span s, struct span suffix);
/* Index of byte c, or -1. */
ptrdiff_t span_find(struct span s, char c);
/* Index of the last byte c, or -1. */
ptrdiff_t span_rfind(struct span s, char c);
/* Bytes from (clamped to the length) to the end. */
static inline struct span span_from(struct span s, size_t from) {
    if (from > s.len)
        from = s.len;
    return (struct span){s.at ? s.at + from : NULL, s.len - from};
}
/* The first n bytes (clamped). */
static inline struct span span_first(struct span s, size_t n) {
    return (struct span){s.at, n < s.len ? n : s.len};
}
/* Without leading and trailing spaces and tabs. */
struct span span_trim(struct span s);
/* Cuts s at the first c: returns the part before it, *rest the part after it
 * (empty when c does not occur; then the whole of s is returned). */
struct span span_cut(struct span s, char c, struct span *rest);
/* Unsigned decimal of the whole span: true and *out, or false (empty, other bytes, overflow). */
bool span_u64(struct span s, uint64_t *out);
/* Copies to a NUL-terminated buffer of size bytes, truncating; returns bytes copied. */
size_t span_copy(struct span s, char *to, size_t size);

#endif
