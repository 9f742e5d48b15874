/*
 * frame: what travels on the bus: a fixed header, a protobuf part (meta) and a raw body.
 *
 * Header, 32 octets, little-endian: magic u16, version u16, kind u16, flags u16, correlation
 * u64, epoch u64, meta length u32, checksum of the meta part u32 (hash_checksum). A node accepts
 * FRAME_VERSION and the one before. Everything that does not fit is refused without harm:
 * frame_read tells why, and the receiver counts it and drops the frame.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/net/bus.h"

#define FRAME_MAGIC 0x4850u
#define FRAME_VERSION 1u
#define FRAME_HEADER_LEN 32u
#define FRAME_BODY_MAX (256u * 1024u) /* longer bodies travel in chunks of this size */
#define FRAME_META_MAX (2u * 1024u * 1024u)
#define FRAME_PART_MAX FRAME_META_MAX /* for bus_*_open: largest part of any frame */
#define FRAME_COST(meta_len, body_len) ((uint64_t)(meta_len) + (uint64_t)(body_len) + 512u) /* credit bytes */

enum frame_role { ROLE_GATEWAY = 1, ROLE_SCHEDULER = 2, ROLE_DELIVERY = 3, ROLE_ADMIN = 4 };

enum frame_kind {
    FRAME_HELLO = 1,          /* Hello, peer to hub */
    FRAME_WELCOME = 2,        /* Welcome, hub to peer */
    FRAME_SUBMIT = 10,        /* Submit + body */
    FRAME_CHUNK = 11,         /* Chunk + body */
    FRAME_ABORT = 12,         /* Abort */
    FRAME_ANSWER = 13,        /* Answer; correlation of the Submit */
    FRAME_CREDIT = 14,        /* Credit */
    FRAME_JOB = 20,           /* Job + body */
    FRAME_REPORT = 21,        /* Report */
    FRAME_REPORT_ACK = 22,    /* ReportAck */
    FRAME_FETCH = 23,         /* Fetch; correlation chosen by the delivery node */
    FRAME_FETCHED = 24,       /* Fetched + body; the same correlation */
    FRAME_ADMIN_REQUEST = 30, /* AdminRequest (admin.proto), hub to role or tool to admin */
    FRAME_ADMIN_REPLY = 31,   /* AdminReply; `last` ends the answer */
};

struct frame {
    uint16_t version;
    uint16_t kind; /* enum frame_kind */
    uint64_t correlation;
    uint64_t epoch;
    struct span meta;       /* borrowed from the message */
    struct bus_bytes *body; /* borrowed; NULL: none */
};

/* Checks and opens a message that arrived. ERR_INVALID (length, magic), ERR_VERSION, ERR_CORRUPT
 * (checksum, length mismatch), ERR_RANGE (over FRAME_META_MAX). Kinds are not judged here. */
int frame_read(struct frame *f, const struct bus_message *m) MUST_CHECK;
/* Writes the 32 octets of a header for this meta part. */
void frame_header(uint8_t to[FRAME_HEADER_LEN], uint16_t kind, uint64_t correlation, uint64_t epoch, struct span meta);

/* Unpacks meta as the message of this descriptor, all memory from the arena (nothing to free).
 * NULL: malformed or out of memory. Callers still check ranges and lengths of fields. */
void *frame_unpack(const ProtobufCMessageDescriptor *d, struct span meta, struct arena *a);
/* Packs a message behind what `to` holds. ERR_FULL, ERR_NOMEM. */
int frame_pack(const ProtobufCMessage *m, struct buf *to) MUST_CHECK;

/* Packs m and sends it with a header. `scratch` is cleared and used. Errors of the bus calls. */
int frame_send_hub(struct bus_hub *h, struct span peer, uint16_t kind, uint64_t correlation, uint64_t epoch,
                   const ProtobufCMessage *m, struct bus_bytes *body, struct buf *scratch) MUST_CHECK;
int frame_send_peer(struct bus_peer *p, uint16_t kind, uint64_t correlation, uint64_t epoch, const ProtobufCMessage *m,
                    struct bus_bytes *body, struct buf *scratch) MUST_CHECK;

/* protobuf bytes <-> span */
static inline struct span frame_span(ProtobufCBinaryData b) {
    return (struct span){(const char *)b.data, b.len};
}
static inline ProtobufCBinaryData frame_bytes(struct span s) {
    return (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.at};
}

#endif
