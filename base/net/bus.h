/*
 * bus: the door to ZeroMQ: multipart messages between roles: over inproc:// in one process, over ipc:// for the
 * operators of the machine, over tcp:// with CURVE (keys, encryption) for those of other machines.
 *
 * A hub (ROUTER) is bound by the role that serves; peers (DEALER) connect to it. Each socket
 * lives on one loop. Nothing is ever lost in silence: the hub uses MANDATORY and DONTWAIT and
 * keeps a bounded queue of its own per peer; what does not fit is reported to the caller.
 * Flow is bounded by the credit that the roles count (proto/credit.h), so a full queue is a
 * breach of contract, and its owner closes the peer. Messages to one peer arrive in the order
 * in which they were sent. What a socket has sent and the other end has not yet received is
 * gone when the socket is closed: roles wait for their answers before they close.
 *
 * A socket may be closed inside its own callback; no callback comes after.
 */
#ifndef BASE_NET_BUS_H
#define BASE_NET_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/net/loop.h"
#include "base/span.h"

struct bus_key; /* base/net/bus_keys.h */

/* The context; one per process, shared by threads. io_threads is 1 unless tcp is busy. */
struct bus;
struct bus *bus_new(int io_threads) MUST_CHECK;
void bus_free(struct bus *b); /* after all sockets are closed */

/* A reference to bytes that sockets, caches and batches share without copying. Thread-safe
 * count. bus_bytes_free drops one reference. */
struct bus_bytes;
struct bus_bytes *bus_bytes_new(size_t len) MUST_CHECK; /* writable through bus_bytes_mem until shared */
struct bus_bytes *bus_bytes_copy(struct span s) MUST_CHECK;
char *bus_bytes_mem(struct bus_bytes *b);
struct span bus_bytes_span(const struct bus_bytes *b); /* NULL gives the empty span */
struct bus_bytes *bus_bytes_ref(struct bus_bytes *b);  /* NULL stays NULL */
void bus_bytes_free(struct bus_bytes *b);              /* NULL is fine */

/* What arrives: header and meta are borrowed for the callback; body may be kept by bus_bytes_ref. */
struct bus_message {
    struct span header;     /* first part */
    struct span meta;       /* second part (protobuf) */
    struct bus_bytes *body; /* third part, or NULL when empty or absent */
    struct span user;       /* of a hub with CURVE: whose key it is (bus_zap.h); else empty */
};

/* Routing id of a peer as the hub sees it: chosen by the peer, "name.incarnation". */
#define BUS_PEER_MAX 64
typedef void (*bus_hub_cb)(void *arg, struct span peer, const struct bus_message *m);
struct bus_hub;
/* endpoint "inproc://…" or "ipc://…". message_max bounds each part, in bytes. queue_max bounds
 * the bytes waiting per peer. ERR_EXISTS: address in use; ERR_INVALID: no such kind of endpoint;
 * ERR_NOT_FOUND, ERR_DENIED: the folder of an ipc socket; ERR_NOMEM; ERR_IO. ipc sockets are made
 * with mode 0600; one that a dead process left is replaced. Messages with a part over message_max,
 * or of more than three parts, are dropped and counted. */
int bus_hub_open(struct bus_hub **h, struct bus *b, struct loop *l, const char *endpoint, size_t message_max,
                 size_t queue_max, bus_hub_cb cb, void *arg) MUST_CHECK;
/* The same on "tcp://ADDRESS:PORT" with CURVE; with c NULL it is bus_hub_open. Only messages of keys on the list of the
 * domain arrive, each with its user. ERR_CLOSED: no handler was started (bus_zap_start); ERR_UNSUPPORTED. The key is
 * copied. */
struct bus_curve {
    const struct bus_key *key; /* of the hub */
    const char *domain;        /* of the list of those who may enter */
    /* For guests, who might ask much and read little; 0: as without CURVE. */
    size_t receive_max;    /* of each part that arrives */
    size_t waiting_max;    /* bytes waiting for all peers together */
    uint32_t messages_max; /* that ZeroMQ holds for a peer, each way; at least 2, with 1 it passes on none */
};
int bus_hub_open_curve(struct bus_hub **h, struct bus *b, struct loop *l, const char *endpoint,
                       const struct bus_curve *c, size_t message_max, size_t queue_max, bus_hub_cb cb,
                       void *arg) MUST_CHECK;
/* Where it is bound, with the port that the kernel chose for port 0. */
int bus_hub_endpoint(const struct bus_hub *h, char *to, size_t size) MUST_CHECK;
void bus_hub_close(struct bus_hub *h);
/* Queues or sends. header and meta are copied; body is referenced (the caller keeps its own
 * reference). ERR_NOT_FOUND: no such peer now (nothing is queued). ERR_FULL: over queue_max.
 * ERR_RANGE: a part over message_max. ERR_NOMEM. What is queued for a peer that then goes away is
 * dropped, which is logged. */
int bus_hub_send(struct bus_hub *h, struct span peer, struct span header, struct span meta,
                 struct bus_bytes *body) MUST_CHECK;

typedef void (*bus_peer_cb)(void *arg, const struct bus_message *m);
struct bus_peer;
/* Connects to a hub, which may be opened later, and over ipc reconnects (an inproc peer ends with
 * its hub). name: 1..40 bytes; a random incarnation is added. ERR_INVALID, ERR_NOMEM. */
int bus_peer_open(struct bus_peer **p, struct bus *b, struct loop *l, const char *endpoint, const char *name,
                  size_t message_max, size_t queue_max, bus_peer_cb cb, void *arg) MUST_CHECK;
/* The same to "tcp://HOST:PORT" with CURVE; with login NULL it is bus_peer_open. */
struct bus_login {
    const struct bus_key *key; /* ours */
    const char *server;        /* public key of the hub, Z85 */
};
int bus_peer_open_curve(struct bus_peer **p, struct bus *b, struct loop *l, const char *endpoint,
                        const struct bus_login *login, const char *name, size_t message_max, size_t queue_max,
                        bus_peer_cb cb, void *arg) MUST_CHECK;
void bus_peer_close(struct bus_peer *p);
/* As bus_hub_send; ERR_FULL when more than queue_max bytes wait. */
int bus_peer_send(struct bus_peer *p, struct span header, struct span meta, struct bus_bytes *body) MUST_CHECK;

/* A plain blocking call for tools: connects, sends one message, gets answers until `more`
 * returns false or timeout_ms passes without one. For the operator's tool only. login: for tcp://, else NULL.
 * ERR_TIMEOUT; ERR_UNREACHABLE: nobody listens there; ERR_DENIED: the socket file is not ours to open, or our key is
 * not known there, or the server's key is another; ERR_CLOSED: the connection ended before the answer; ERR_INVALID;
 * ERR_NOMEM; ERR_IO. */
typedef bool (*bus_more_cb)(void *arg, const struct bus_message *m);
int bus_call_curve(const char *endpoint, const struct bus_login *login, size_t message_max, struct span header,
                   struct span meta, uint64_t timeout_ms, bus_more_cb more, void *arg) MUST_CHECK;
/* The same without login: over ipc. */
int bus_call(const char *endpoint, size_t message_max, struct span header, struct span meta, uint64_t timeout_ms,
             bus_more_cb more, void *arg) MUST_CHECK;

#endif
