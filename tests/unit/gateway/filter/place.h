/*
 * place: a held message made from text, for the unit tests of this room.
 */
#ifndef TESTS_UNIT_GATEWAY_FILTER_PLACE_H
#define TESTS_UNIT_GATEWAY_FILTER_PLACE_H

#include <stdlib.h>

#include "gateway/filter/held.h"

static inline struct held *held_of(struct span octets) {
    struct held *h = held_new("/var/tmp");
    if (!h || held_append(h, octets) || held_finish(h))
        abort();
    return h;
}

static inline struct held *held_of_text(const char *text) {
    return held_of(span_of(text));
}

/* The whole message on the heap, with a NUL. */
static inline char *held_text(struct held *h) {
    size_t size = (size_t)held_size(h), len = 0;
    char *to = malloc(size + 1);
    while (to && len < size) {
        ptrdiff_t n = held_read(h, len, to + len, size - len);
        if (n <= 0)
            abort();
        len += (size_t)n;
    }
    if (!to)
        abort();
    to[len] = 0;
    return to;
}

#endif
