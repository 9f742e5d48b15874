/*
 * content: chunks are pulled: the next one is asked for when there is a free place, so memory per
 * message is two chunks however long it is, and a slow server slows the fetching down.
 */
#include "base/check.h"

#include "gateway/outbound/content.h"
#include "proto/frame.h"

void content_init(struct content *b, uint64_t size, struct bus_bytes *whole, bool chunked, content_fetch fetch,
                  void *arg) {
    *b = (struct content){.size = size, .chunked = chunked, .fetch = fetch, .arg = arg};
    b->whole = chunked ? NULL : bus_bytes_ref(whole);
    b->chunks = chunked ? (uint32_t)((size + FRAME_BODY_MAX - 1) / FRAME_BODY_MAX) : 0;
    buf_init(&b->converted, 0);
}

static void drop_chunks(struct content *b) {
    for (uint32_t i = 0; i < BODY_AHEAD; i++) {
        bus_bytes_free(b->ahead[i]);
        b->ahead[i] = NULL;
    }
}

void content_deinit(struct content *b) {
    drop_chunks(b);
    bus_bytes_free(b->whole);
    b->whole = NULL;
    buf_deinit(&b->converted);
}

static bool is_fetching(const struct content *b) {
    return b->chunked && !b->use_converted;
}

static void ask_ahead(struct content *b, uint64_t now_ms) {
    while (b->asked < b->chunks && b->asked < b->current + BODY_AHEAD) {
        b->asked_ms = now_ms;
        b->fetch(b->arg, b->asked++);
    }
}

void content_rewind(struct content *b, bool converted, uint64_t now_ms) {
    drop_chunks(b);
    b->use_converted = converted;
    b->read = 0;
    b->current = b->asked = 0;
    b->moved_ms = now_ms;
    if (is_fetching(b))
        ask_ahead(b, now_ms);
}

struct span content_at(struct content *b, uint64_t now_ms) {
    if (b->use_converted)
        return span_from(buf_span(&b->converted), (size_t)b->read);
    if (!b->chunked)
        return span_from(bus_bytes_span(b->whole), (size_t)b->read);
    ask_ahead(b, now_ms);
    if (b->current >= b->chunks)
        return SPAN_EMPTY;
    return span_from(bus_bytes_span(b->ahead[b->current % BODY_AHEAD]),
                     (size_t)(b->read - (uint64_t)b->current * FRAME_BODY_MAX));
}

void content_take(struct content *b, size_t len, uint64_t now_ms) {
    b->read += len;
    if (!is_fetching(b))
        return;
    uint32_t place = b->current % BODY_AHEAD;
    if (b->read == (uint64_t)b->current * FRAME_BODY_MAX + bus_bytes_span(b->ahead[place]).len) {
        bus_bytes_free(b->ahead[place]);
        b->ahead[place] = NULL;
        b->current++;
        b->moved_ms = now_ms;
        ask_ahead(b, now_ms);
    }
}

uint64_t content_size(const struct content *b) {
    if (b->use_converted)
        return buf_len(&b->converted);
    return b->size;
}

bool content_is_end(const struct content *b) {
    return b->read == content_size(b);
}

int content_on_chunk(struct content *b, uint32_t number, struct bus_bytes *bytes, uint64_t now_ms) {
    if (!is_fetching(b) || number < b->current || number >= b->asked || b->ahead[number % BODY_AHEAD])
        return ERR_NOT_FOUND;
    uint64_t start = (uint64_t)number * FRAME_BODY_MAX, left = b->size - start;
    if (bus_bytes_span(bytes).len != (left < FRAME_BODY_MAX ? left : FRAME_BODY_MAX))
        return ERR_CORRUPT;
    b->ahead[number % BODY_AHEAD] = bus_bytes_ref(bytes);
    b->moved_ms = now_ms;
    return ERR_OK;
}

bool content_tick(struct content *b, uint64_t now_ms) {
    if (!is_fetching(b))
        return true;
    bool waiting = false;
    bool overdue = now_ms - b->asked_ms >= BODY_REPEAT_MS;
    for (uint32_t n = b->current; n < b->asked; n++) {
        if (b->ahead[n % BODY_AHEAD])
            continue;
        waiting = true;
        if (overdue) {
            b->asked_ms = now_ms;
            b->fetch(b->arg, n);
        }
    }
    return !waiting || now_ms - b->moved_ms < BODY_WAIT_MS;
}
