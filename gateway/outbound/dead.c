/*
 * dead: addresses by hash; an address forgotten too early costs one connection timeout.
 */
#include "gateway/outbound/dead.h"
#include "base/hash.h"

static uint64_t key_of(const struct tcp_addr *a) {
    char text[128];
    size_t len = tcp_addr_format(a, text, sizeof text);
    return hash_bytes(text, len, 0) | 1;
}

void dead_mark(struct dead *d, const struct tcp_addr *a, uint64_t now_ms) {
    uint64_t key = key_of(a);
    d->slots[key / 2 % DEAD_SLOTS].key = key;
    d->slots[key / 2 % DEAD_SLOTS].until_ms = now_ms + DEAD_MS;
}

void dead_clear(struct dead *d, const struct tcp_addr *a) {
    uint64_t key = key_of(a);
    if (d->slots[key / 2 % DEAD_SLOTS].key == key)
        d->slots[key / 2 % DEAD_SLOTS].key = 0;
}

bool dead_is(const struct dead *d, const struct tcp_addr *a, uint64_t now_ms) {
    uint64_t key = key_of(a);
    return d->slots[key / 2 % DEAD_SLOTS].key == key && d->slots[key / 2 % DEAD_SLOTS].until_ms > now_ms;
}
