/*
 * little: numbers of 1 to 8 octets as files hold them, the lowest octet first.
 */
#ifndef BASE_LITTLE_H
#define BASE_LITTLE_H

#include <stdint.h>

static inline void little_put(char *to, uint64_t n, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        to[i] = (char)(n >> 8 * i);
}
static inline uint64_t little_get(const char *from, unsigned size) {
    uint64_t n = 0;
    while (size--)
        n = n << 8 | (unsigned char)from[size];
    return n;
}

#endif
