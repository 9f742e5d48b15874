/*
 * body: the octets of one message on their way from a client to the scheduler.
 *
 * A body of at most FRAME_BODY_MAX leaves as one piece. A longer one leaves as pieces of exactly that
 * length, the last one excepted, while it still arrives; so a session holds a bounded part of a message of any
 * length. Memory is borrowed from limits before it is filled. Belongs to one session.
 */
#ifndef GATEWAY_INBOUND_BODY_H
#define GATEWAY_INBOUND_BODY_H

#include "base/buf.h"
#include "base/hash.h"
#include "base/net/bus.h"
#include "gateway/inbound/limits.h"

#define BODY_SHORT_MAX (32u * 1024u) /* what a body may hold before it needs LIMITS_POOL_LONG */

struct body {
    struct limits *limits;
    struct buf head;         /* the whole body while it is short */
    struct bus_bytes *piece; /* the piece that fills; NULL while short */
    size_t filled;
    struct bus_bytes *full;   /* a full piece that has to leave before more octets come */
    struct hash_stream *hash; /* once there is a piece */
    uint64_t size;            /* of all octets */
    uint32_t left;            /* pieces that have left */
    bool has_short, has_long; /* borrowed */
};

void body_init(struct body *b, struct limits *limits);
/* Frees and gives back. Safe on a zeroed body. */
void body_deinit(struct body *b);
/* How many octets may be appended now; 0: memory is not there now (or body_full waits): ask again later. Never
 * between 0 and 64, so that a scanner can look ahead. */
size_t body_room(struct body *b);
/* Appends at most body_room octets and a CRLF. ERR_NOMEM. */
int body_append(struct body *b, struct span octets) MUST_CHECK;
/* The full piece, or NULL; body_gone says that it has been sent. */
struct bus_bytes *body_full(const struct body *b);
void body_gone(struct body *b);
/* No more octets come: makes what is held one full piece of its exact length (ERR_NOMEM), and computes the checksum.
 * When body_full is set already, send that first and call again; with nothing held, nothing changes. */
int body_finish(struct body *b, uint32_t *checksum) MUST_CHECK;

#endif
