/*
 * span: comparing, searching and cutting borrowed bytes. Pure functions; nothing here
 * allocates or keeps a pointer. Folding of letters is ASCII only and does not depend on
 * the locale. The smallest functions are inline in span.h.
 */
#include <string.h>

#include "base/span.h"

struct span span_of(const char *text) {
    return (struct span){text, text ? strlen(text) : 0};
}

static unsigned char fold(char c) {
    unsigned char u = (unsigned char)c;
    return u >= 'A' && u <= 'Z' ? (unsigned char)(u | 0x20) : u;
}

bool span_eq_nocase(struct span a, struct span b) {
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (a.at[i] != b.at[i] && fold(a.at[i]) != fold(b.at[i]))
            return false;
    }
    return true;
}

int span_cmp(struct span a, struct span b) {
    size_t shorter = a.len < b.len ? a.len : b.len;
    int order = shorter ? memcmp(a.at, b.at, shorter) : 0;
    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

bool span_starts_nocase(struct span s, struct span prefix) {
    return s.len >= prefix.len && span_eq_nocase(span_first(s, prefix.len), prefix);
}

bool span_ends_nocase(struct span s, struct span suffix) {
    return s.len >= suffix.len && span_eq_nocase(span_from(s, s.len - suffix.len), suffix);
}

ptrdiff_t span_find(struct span s, char c) {
    const char *found = s.len ? memchr(s.at, c, s.len) : NULL;
    return found ? found - s.at : -1;
}

ptrdiff_t span_rfind(struct span s, char c) {
    const char *found = s.len ? memrchr(s.at, c, s.len) : NULL;
    return found ? found - s.at : -1;
}

struct span span_trim(struct span s) {
    while (s.len && (s.at[0] == ' ' || s.at[0] == '\t'))
        s = span_from(s, 1);
    while (s.len && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
        s.len--;
    return s;
}

struct span span_cut(struct span s, char c, struct span *rest) {
    ptrdiff_t place = span_find(s, c);
    if (place < 0) {
        *rest = span_from(s, s.len);
        return s;
    }
    *rest = span_from(s, (size_t)place + 1);
    return span_first(s, (size_t)place);
}

bool span_u64(struct span s, uint64_t *out) {
    uint64_t n = 0;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(s.at[i] - '0'), &n))
            return false;
    }
    *out = n;
    return true;
}

size_t span_copy(struct span s, char *to, size_t size) {
    if (size == 0)
        return 0;
    size_t len = s.len < size - 1 ? s.len : size - 1;
    if (len)
        memcpy(to, s.at, len);
    to[len] = '\0';
    return len;
}
