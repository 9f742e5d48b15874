/*
 * base32: ids as people read and type them. 64 bits need 13 digits of 5 bits; the first
 * digit carries the upper 4 bits, so that the text sorts as the number does. Crockford's
 * alphabet has no I, L, O and U; the first three are read as the digits they look like.
 */
#include "base/base32.h"

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void base32_encode(uint64_t id, char to[BASE32_ID_LEN + 1]) {
    for (int i = BASE32_ID_LEN - 1; i >= 0; i--) {
        to[i] = digits[id & 31];
        id >>= 5;
    }
    to[BASE32_ID_LEN] = '\0';
}

static int digit_of(char c) {
    if (c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    if (c == 'I' || c == 'L')
        return 1;
    if (c == 'O')
        return 0;
    for (int i = 0; i < 32; i++) {
        if (digits[i] == c)
            return i;
    }
    return -1;
}

bool base32_decode(struct span text, uint64_t *id) {
    if (text.len != BASE32_ID_LEN)
        return false;
    uint64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        int digit = digit_of(text.at[i]);
        if (digit < 0 || (i == 0 && digit > 15))
            return false;
        n = n << 5 | (uint64_t)digit;
    }
    *id = n;
    return true;
}
