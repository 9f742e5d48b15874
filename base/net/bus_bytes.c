/*
 * bus_bytes: counted references to the bytes of a body, and messages as ZeroMQ parts.
 *
 * A body is copied when it is small and otherwise never: it is given to ZeroMQ by its
 * address, with a reference that ZeroMQ's free callback drops on whatever thread reads it
 * last. A received body keeps the ZeroMQ message that holds it. Over inproc both ends so
 * see the same memory.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/net/bus_zmq.h"

enum { COPY_MAX = 1024 };

struct bus_bytes {
    atomic_size_t refs;
    char *at;
    size_t len;
    bool received; /* the bytes are those of `message`, else those of mem */
    zmq_msg_t message;
    char mem[];
};

struct bus_bytes *bus_bytes_new(size_t len) {
    struct bus_bytes *b = len < SIZE_MAX - sizeof *b ? malloc(sizeof *b + len) : NULL;
    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    b->at = b->mem;
    b->len = len;
    b->received = false;
    return b;
}

struct bus_bytes *bus_bytes_copy(struct span s) {
    struct bus_bytes *b = bus_bytes_new(s.len);
    if (b && s.len)
        memcpy(b->mem, s.at, s.len);
    return b;
}

struct bus_bytes *bus_bytes_wrap(zmq_msg_t *m) {
    struct bus_bytes *b = bus_bytes_new(0);
    if (!b)
        return NULL;
    zmq_msg_init(&b->message);
    CHECK(zmq_msg_move(&b->message, m) == 0);
    b->received = true;
    b->at = zmq_msg_data(&b->message);
    b->len = zmq_msg_size(&b->message);
    return b;
}

char *bus_bytes_mem(struct bus_bytes *b) {
    return b->at;
}

struct span bus_bytes_span(const struct bus_bytes *b) {
    return b ? (struct span){b->at, b->len} : SPAN_EMPTY;
}

struct bus_bytes *bus_bytes_ref(struct bus_bytes *b) {
    if (b)
        atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void bus_bytes_free(struct bus_bytes *b) {
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    BUS_HAND_OVER();
    if (b->received)
        zmq_msg_close(&b->message);
    free(b);
}

static void on_body_sent(void *at, void *body) {
    (void)at;
    BUS_TAKE_OVER();
    bus_bytes_free(body);
}

static int add_copy(struct bus_parts *p, struct span s) {
    zmq_msg_t *m = &p->part[p->count];
    if (zmq_msg_init_size(m, s.len))
        return ERR_NOMEM;
    if (s.len)
        memcpy(zmq_msg_data(m), s.at, s.len);
    p->count++;
    p->bytes += s.len;
    return ERR_OK;
}

static int add_body(struct bus_parts *p, struct bus_bytes *body) {
    if (body->len <= COPY_MAX)
        return add_copy(p, bus_bytes_span(body));
    if (zmq_msg_init_data(&p->part[p->count], body->at, body->len, on_body_sent, body))
        return ERR_NOMEM;
    bus_bytes_ref(body);
    p->count++;
    p->bytes += body->len;
    return ERR_OK;
}

int bus_parts_make(struct bus_parts *p, struct span header, struct span meta, struct bus_bytes *body) {
    p->count = 0;
    p->bytes = 0;
    int err = add_copy(p, header);
    if (!err)
        err = add_copy(p, meta);
    if (!err && body && body->len)
        err = add_body(p, body);
    if (err)
        bus_parts_close(p);
    return err;
}

void bus_parts_close(struct bus_parts *p) {
    for (unsigned i = 0; i < p->count; i++)
        zmq_msg_close(&p->part[i]);
    p->count = 0;
}
