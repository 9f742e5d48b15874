/*
 * body: a small buffer first, then pieces.
 *
 * Most mail is small and arrives in one or two reads: it is gathered in an ordinary buffer and copied
 * once into a piece of its exact length. A body that outgrows the buffer fills pieces of FRAME_BODY_MAX
 * directly. A piece counts as full only when another octet follows it, so that a body of exactly
 * FRAME_BODY_MAX still leaves in one piece, and no piece is empty.
 */
#include "base/check.h"
#include "proto/frame.h"

#include "gateway/inbound/body.h"

enum {
    AHEAD = 64, /* least room that is ever offered */
    SHORT_COST = BODY_SHORT_MAX + 4 * 1024,
    LONG_COST = 2 * FRAME_BODY_MAX, /* one piece fills while one waits for credit */
};

void body_init(struct body *b, struct limits *limits) {
    *b = (struct body){.limits = limits};
    buf_init(&b->head, BODY_SHORT_MAX + AHEAD);
}

static void return_short(struct body *b) {
    buf_deinit(&b->head);
    if (b->has_short)
        limits_give_back(b->limits, LIMITS_POOL_SHORT, SHORT_COST);
    b->has_short = false;
}

void body_deinit(struct body *b) {
    if (!b->limits)
        return;
    return_short(b);
    bus_bytes_free(b->piece);
    bus_bytes_free(b->full);
    hash_stream_free(b->hash);
    if (b->has_long)
        limits_give_back(b->limits, LIMITS_POOL_LONG, LONG_COST);
    *b = (struct body){0};
}

/* From the buffer to pieces. */
static int become_long(struct body *b) {
    b->hash = hash_stream_new();
    b->piece = bus_bytes_new(FRAME_BODY_MAX);
    if (!b->hash || !b->piece)
        return ERR_NOMEM;
    struct span head = buf_span(&b->head);
    memcpy(bus_bytes_mem(b->piece), head.at, head.len);
    hash_stream_add(b->hash, head.at, head.len);
    b->filled = head.len;
    return_short(b);
    return ERR_OK;
}

size_t body_room(struct body *b) {
    if (b->full)
        return 0;
    if (b->has_long)
        return FRAME_BODY_MAX - AHEAD;
    if (!b->has_short)
        b->has_short = limits_borrow(b->limits, LIMITS_POOL_SHORT, SHORT_COST);
    if (!b->has_short)
        return 0;
    size_t held = buf_len(&b->head);
    if (held + AHEAD <= BODY_SHORT_MAX)
        return BODY_SHORT_MAX - held;
    b->has_long = limits_borrow(b->limits, LIMITS_POOL_LONG, LONG_COST);
    return b->has_long ? FRAME_BODY_MAX - AHEAD : 0;
}

static int append_long(struct body *b, struct span octets) {
    if (!b->hash) {
        int err = become_long(b);
        if (err)
            return err;
    }
    hash_stream_add(b->hash, octets.at, octets.len);
    while (octets.len) {
        if (b->piece && b->filled == FRAME_BODY_MAX) {
            CHECK(!b->full);
            b->full = b->piece;
            b->piece = NULL;
        }
        if (!b->piece) {
            b->piece = bus_bytes_new(FRAME_BODY_MAX);
            b->filled = 0;
        }
        if (!b->piece)
            return ERR_NOMEM;
        struct span part = span_first(octets, FRAME_BODY_MAX - b->filled);
        memcpy(bus_bytes_mem(b->piece) + b->filled, part.at, part.len);
        b->filled += part.len;
        octets = span_from(octets, part.len);
    }
    return ERR_OK;
}

int body_append(struct body *b, struct span octets) {
    if (octets.len == 0)
        return ERR_OK;
    b->size += octets.len;
    if (b->has_long)
        return append_long(b, octets);
    return buf_add(&b->head, octets);
}

struct bus_bytes *body_full(const struct body *b) {
    return b->full;
}

void body_gone(struct body *b) {
    bus_bytes_free(b->full);
    b->full = NULL;
    b->left++;
}

int body_finish(struct body *b, uint32_t *checksum) {
    if (b->full)
        return ERR_OK;
    struct span held = b->piece ? span_make(bus_bytes_mem(b->piece), b->filled) : buf_span(&b->head);
    if (held.len == 0)
        return ERR_OK;
    *checksum = b->hash ? hash_stream_checksum(b->hash) : hash_checksum(held.at, held.len);
    if (b->piece && b->filled == FRAME_BODY_MAX) {
        b->full = b->piece;
    } else {
        b->full = bus_bytes_copy(held);
        bus_bytes_free(b->piece);
        buf_clear(&b->head);
    }
    b->piece = NULL;
    b->filled = 0;
    return b->full ? ERR_OK : ERR_NOMEM;
}
