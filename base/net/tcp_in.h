/*
 * tcp_in: the inside of a connection, shared by tcp.c (the stream) and tcp_tls.c (TLS on it). Nobody else includes it.
 *
 * The stream knows TLS by a handful of calls: what was read goes to tcp_tls_on_read, what was written comes back by
 * tcp_send, and tcp_tls_pump moves opened octets to the owner whenever there is room again.
 */
#ifndef BASE_NET_TCP_IN_H
#define BASE_NET_TCP_IN_H

#include <uv.h>

#include "base/net/loop_uv.h"
#include "base/net/tcp.h"
#include "base/net/tls.h"

/* Where a connection waits for the next turn. */
enum tcp_waiting { WAITING_NOT, WAITING_RESUMED, WAITING_FULL };

struct tcp {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv; /* first: the release callback casts */
    struct loop *loop;
    tcp_cb cb;
    void *arg;
    struct buf in, out, flying;
    size_t out_max;
    uv_write_t write;
    struct list_node turn;
    enum tcp_waiting waiting;
    int pending_err; /* of a connect that failed at once */
    bool writing;    /* `flying` is with libuv */
    bool broken;     /* nothing can be written any more */
    bool started, paused, eof, failed;
    bool finishing;           /* tcp_finish was called */
    bool ended;               /* finishing, and our side is shut down */
    bool secured;             /* the handshake is done */
    bool tls_ended;           /* the peer ended the stream below TLS */
    struct tls *tls;          /* NULL: plain */
    struct loop_timer *timer; /* of tcp_finish */
    struct tcp_addr peer, local;
};

static inline bool tcp_is_closing(const struct tcp *c) {
    return uv_is_closing(&c->uv.handle);
}
/* Whether the read buffer is the loop's memory. */
static inline bool tcp_in_is_lent(const struct tcp *c) {
    return c->in.mem && c->in.mem == c->loop->lent;
}

/* -- of tcp.c -- */
/* Lends the loop's memory to an empty read buffer. */
void tcp_in_borrow(struct tcp *c);
/* After the owner has consumed: keeps what is left in memory of the connection's own, or none. */
int tcp_in_settle(struct tcp *c);
void tcp_in_drop(struct tcp *c);
/* False: the owner has closed it, nothing of c may be touched. */
bool tcp_emit(struct tcp *c, enum tcp_event event, int err);
void tcp_fail(struct tcp *c, int err);
void tcp_start_reading(struct tcp *c);
void tcp_wait_for_turn(struct tcp *c, enum tcp_waiting waiting);
/* Octets for the kernel as they are, queued behind what waits. ERR_CLOSED, ERR_FULL, ERR_NOMEM: broken for writing. */
int tcp_send(struct tcp *c, const struct span *pieces, size_t count);

/* -- of tcp_tls.c -- */
/* How many sealed octets to read at most. */
size_t tcp_tls_room(const struct tcp *c);
void tcp_tls_on_read(struct tcp *c, struct span sealed);
void tcp_tls_on_eof(struct tcp *c);
/* Goes on with the handshake, and gives the owner what can be opened while there is room. False: it was closed, failed
 * or has ended, there is nothing to read. */
bool tcp_tls_pump(struct tcp *c);
int tcp_tls_write(struct tcp *c, const struct span *pieces, size_t count);
/* close_notify. */
void tcp_tls_end(struct tcp *c);

#endif
