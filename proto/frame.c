/*
 * frame: see frame.h. The codec of the bus: pure but for the two send helpers at the end.
 *
 * The header is written and read octet by octet in little-endian order, so that nodes of different
 * machines agree. Unpacking takes all memory from the caller's arena: a frame costs no heap call
 * and needs no freeing.
 */
#include "proto/frame.h"

#include "base/hash.h"

static void put_u16(uint8_t *to, uint16_t n) {
    to[0] = (uint8_t)n;
    to[1] = (uint8_t)(n >> 8);
}

static void put_u32(uint8_t *to, uint32_t n) {
    put_u16(to, (uint16_t)n);
    put_u16(to + 2, (uint16_t)(n >> 16));
}

static void put_u64(uint8_t *to, uint64_t n) {
    put_u32(to, (uint32_t)n);
    put_u32(to + 4, (uint32_t)(n >> 32));
}

static uint16_t get_u16(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get_u32(const uint8_t *at) {
    return get_u16(at) | (uint32_t)get_u16(at + 2) << 16;
}

static uint64_t get_u64(const uint8_t *at) {
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

void frame_header(uint8_t to[FRAME_HEADER_LEN], uint16_t kind, uint64_t correlation, uint64_t epoch, struct span meta) {
    put_u16(to, FRAME_MAGIC);
    put_u16(to + 2, FRAME_VERSION);
    put_u16(to + 4, kind);
    put_u16(to + 6, 0);
    put_u64(to + 8, correlation);
    put_u64(to + 16, epoch);
    put_u32(to + 24, (uint32_t)meta.len);
    put_u32(to + 28, hash_checksum(meta.at, meta.len));
}

int frame_read(struct frame *f, const struct bus_message *m) {
    const uint8_t *h = (const uint8_t *)m->header.at;
    if (m->header.len != FRAME_HEADER_LEN || get_u16(h) != FRAME_MAGIC)
        return ERR_INVALID;
    f->version = get_u16(h + 2);
    if (f->version != FRAME_VERSION && f->version + 1u != FRAME_VERSION)
        return ERR_VERSION;
    if (m->meta.len > FRAME_META_MAX)
        return ERR_RANGE;
    if (get_u32(h + 24) != m->meta.len || get_u32(h + 28) != hash_checksum(m->meta.at, m->meta.len))
        return ERR_CORRUPT;
    f->kind = get_u16(h + 4);
    f->correlation = get_u64(h + 8);
    f->epoch = get_u64(h + 16);
    f->meta = m->meta;
    f->body = m->body;
    return ERR_OK;
}

static void *arena_take(void *data, size_t size) {
    return arena_alloc(data, size);
}

static void arena_leave(void *data, void *pointer) {
    (void)data;
    (void)pointer;
}

void *frame_unpack(const ProtobufCMessageDescriptor *d, struct span meta, struct arena *a) {
    ProtobufCAllocator allocator = {.alloc = arena_take, .free = arena_leave, .allocator_data = a};
    return protobuf_c_message_unpack(d, &allocator, meta.len, (const uint8_t *)meta.at);
}

int frame_pack(const ProtobufCMessage *m, struct buf *to) {
    size_t len = protobuf_c_message_get_packed_size(m);
    char *at = buf_reserve(to, len);
    if (!at)
        return to->err;
    protobuf_c_message_pack(m, (uint8_t *)at);
    buf_commit(to, len);
    return ERR_OK;
}

/* The meta part into scratch, and the header for it. */
static int make_frame(uint8_t header[FRAME_HEADER_LEN], uint16_t kind, uint64_t correlation, uint64_t epoch,
                      const ProtobufCMessage *m, struct buf *scratch) {
    buf_clear(scratch);
    int err = frame_pack(m, scratch);
    if (err == ERR_OK)
        frame_header(header, kind, correlation, epoch, buf_span(scratch));
    return err;
}

int frame_send_hub(struct bus_hub *h, struct span peer, uint16_t kind, uint64_t correlation, uint64_t epoch,
                   const ProtobufCMessage *m, struct bus_bytes *body, struct buf *scratch) {
    uint8_t header[FRAME_HEADER_LEN];
    int err = make_frame(header, kind, correlation, epoch, m, scratch);
    if (err != ERR_OK)
        return err;
    return bus_hub_send(h, peer, span_make(header, sizeof header), buf_span(scratch), body);
}

int frame_send_peer(struct bus_peer *p, uint16_t kind, uint64_t correlation, uint64_t epoch, const ProtobufCMessage *m,
                    struct bus_bytes *body, struct buf *scratch) {
    uint8_t header[FRAME_HEADER_LEN];
    int err = make_frame(header, kind, correlation, epoch, m, scratch);
    if (err != ERR_OK)
        return err;
    return bus_peer_send(p, span_make(header, sizeof header), buf_span(scratch), body);
}
