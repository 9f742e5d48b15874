/*
 * bus: hubs and peers.
 *
 * A hub keeps nothing for a peer that takes its messages: a record is made for one when
 * ZeroMQ refuses a message, holds what must wait, and goes when that has been sent or the
 * peer has gone. So neither the number of peers nor their coming and going costs memory.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "base/net/bus.h"
#include "base/net/bus_keys.h"
#include "base/net/bus_zap.h"
#include "base/net/bus_zmq.h"

enum { NAME_MAX_BYTES = 40 };

struct bus *bus_new(int io_threads) {
    struct bus *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->context = zmq_ctx_new();
    if (!b->context || zmq_ctx_set(b->context, ZMQ_IO_THREADS, io_threads)) {
        if (b->context)
            zmq_ctx_term(b->context);
        free(b);
        return NULL;
    }
    return b;
}

void bus_free(struct bus *b) {
    if (!b)
        return;
    bus_zap_free(b);
    while (zmq_ctx_term(b->context) && errno == EINTR) {
    }
    free(b);
}

static bool fits(struct span header, struct span meta, const struct bus_bytes *body, size_t message_max) {
    return header.len <= message_max && meta.len <= message_max && bus_bytes_span(body).len <= message_max;
}

/* -- hub -- */

/* A peer that does not take messages at the moment. */
struct blocked {
    struct map_node in_map;
    struct list_node in_list;
    struct bus_queue queue;
    size_t id_len;
    char id[BUS_PEER_MAX];
};

struct bus_hub {
    struct bus_socket socket;
    struct map by_id;
    struct list blocked;
    size_t queue_max, waiting_max; /* of one peer; of all, 0: no bound */
    bus_hub_cb cb;
    void *arg;
    char domain[BUS_ZAP_DOMAIN_MAX + 1];
};

static struct span blocked_id(const struct blocked *p) {
    return (struct span){p->id, p->id_len};
}

static bool blocked_matches(const struct map_node *n, const void *key) {
    return span_eq(blocked_id(CONTAINER_OF(n, struct blocked, in_map)), *(const struct span *)key);
}

static struct blocked *blocked_find(struct bus_hub *h, struct span id) {
    if (list_is_empty(&h->blocked))
        return NULL;
    struct map_node *n = map_find(&h->by_id, hash_span(id, 0), blocked_matches, &id);
    return n ? CONTAINER_OF(n, struct blocked, in_map) : NULL;
}

static struct blocked *blocked_new(struct bus_hub *h, struct span id) {
    struct blocked *p = calloc(1, sizeof *p);
    if (!p || map_insert(&h->by_id, &p->in_map, hash_span(id, 0))) {
        free(p);
        return NULL;
    }
    bus_queue_init(&p->queue, h->queue_max);
    memcpy(p->id, id.at, id.len);
    p->id_len = id.len;
    list_push_back(&h->blocked, &p->in_list);
    h->socket.waiting = true;
    return p;
}

static void blocked_free(struct bus_hub *h, struct blocked *p) {
    map_remove(&h->by_id, &p->in_map);
    list_remove(&h->blocked, &p->in_list);
    bus_queue_drop(&p->queue);
    free(p);
    h->socket.waiting = !list_is_empty(&h->blocked);
}

static bool flush_hub(void *owner) {
    struct bus_hub *h = owner;
    bool sent = false;
    LIST_FOREACH(node, next, &h->blocked) {
        struct blocked *p = LIST_ENTRY(node, struct blocked, in_list);
        int err = bus_socket_send_queue(&h->socket, blocked_id(p), &p->queue, &sent);
        if (err == ERR_AGAIN || err == ERR_NOMEM)
            continue;
        if (err)
            LOG_WARN("bus_peer_gone", LOG_SPAN("peer", blocked_id(p)), LOG_U64("dropped", p->queue.list.count));
        blocked_free(h, p);
    }
    return sent;
}

static void on_hub_message(void *owner, struct span id, const struct bus_message *m) {
    struct bus_hub *h = owner;
    if (id.len <= BUS_PEER_MAX)
        h->cb(h->arg, id, m);
}

static void release_hub(void *owner) {
    struct bus_hub *h = owner;
    while (!list_is_empty(&h->blocked))
        blocked_free(h, LIST_ENTRY(list_first(&h->blocked), struct blocked, in_list));
    map_deinit(&h->by_id);
    free(h);
}

/* A restrictive umask around the bind leaves no moment in which the socket file is open to others. */
static int bind_private(void *zmq, const char *endpoint) {
    mode_t before = umask(0177);
    int failed = zmq_bind(zmq, endpoint);
    int error = errno;
    umask(before);
    return failed ? bus_err_of_open(error) : ERR_OK;
}

/* Encryption makes a part longer, and the handshake needs some. */
enum { CURVE_ROOM = 1024 };

static int be_server(struct bus_hub *h, struct bus *b, const struct bus_curve *c) {
    int on = 1, hwm = c->messages_max ? (int)c->messages_max : BUS_HWM_MESSAGES;
    size_t receive_max = c->receive_max ? c->receive_max : h->socket.message_max;
    int64_t size_max = (int64_t)receive_max + CURVE_ROOM;
    if (!bus_zap_is_running(b))
        return ERR_CLOSED; /* ZeroMQ would let everybody in */
    if (c->messages_max == 1 || c->domain[0] == '\0' || strlen(c->domain) > BUS_ZAP_DOMAIN_MAX ||
        !bus_key_is_good(span_of(c->key->secret_key)))
        return ERR_INVALID;
    snprintf(h->domain, sizeof h->domain, "%s", c->domain);
    h->socket.domain = h->domain;
    h->socket.guarded = b;
    h->waiting_max = c->waiting_max;
    bool good = zmq_setsockopt(h->socket.zmq, ZMQ_CURVE_SERVER, &on, sizeof on) == 0 &&
                zmq_setsockopt(h->socket.zmq, ZMQ_MAXMSGSIZE, &size_max, sizeof size_max) == 0 &&
                zmq_setsockopt(h->socket.zmq, ZMQ_RCVHWM, &hwm, sizeof hwm) == 0 &&
                zmq_setsockopt(h->socket.zmq, ZMQ_SNDHWM, &hwm, sizeof hwm) == 0 &&
                zmq_setsockopt(h->socket.zmq, ZMQ_CURVE_SECRETKEY, c->key->secret_key, BUS_KEY_LEN + 1) == 0 &&
                zmq_setsockopt(h->socket.zmq, ZMQ_ZAP_DOMAIN, h->domain, strlen(h->domain)) == 0;
    return good ? ERR_OK : ERR_UNSUPPORTED;
}

static int start_hub(struct bus_hub *h, struct bus *b, struct loop *l, const char *endpoint, const struct bus_curve *c,
                     size_t message_max) {
    int on = 1;
    int err = bus_socket_open(&h->socket, b->context, ZMQ_ROUTER, message_max);
    if (err)
        return err;
    if (zmq_setsockopt(h->socket.zmq, ZMQ_ROUTER_MANDATORY, &on, sizeof on))
        return ERR_IO;
    if (c)
        err = be_server(h, b, c);
    if (c && !err)
        err = bus_socket_use_tcp(&h->socket, endpoint);
    if (!err)
        err = bind_private(h->socket.zmq, endpoint);
    return err ? err : bus_socket_start(&h->socket, l);
}

int bus_hub_open_curve(struct bus_hub **to, struct bus *b, struct loop *l, const char *endpoint,
                       const struct bus_curve *c, size_t message_max, size_t queue_max, bus_hub_cb cb, void *arg) {
    if (c ? !bus_endpoint_is_tcp(endpoint, true) : !bus_endpoint_is_good(endpoint))
        return ERR_INVALID;
    /* ZeroMQ would replace a living socket file in silence. */
    if (strncmp(endpoint, "ipc:", 4) == 0 && bus_endpoint_probe(endpoint) == ERR_OK)
        return ERR_EXISTS;
    struct bus_hub *h = calloc(1, sizeof *h);
    if (!h)
        return ERR_NOMEM;
    map_init(&h->by_id);
    list_init(&h->blocked);
    h->queue_max = queue_max;
    h->cb = cb;
    h->arg = arg;
    h->socket.owner = h;
    h->socket.cb = on_hub_message;
    h->socket.flush = flush_hub;
    h->socket.release = release_hub;
    int err = start_hub(h, b, l, endpoint, c, message_max);
    if (err) {
        bus_socket_close(&h->socket);
        return err;
    }
    *to = h;
    return ERR_OK;
}

int bus_hub_open(struct bus_hub **to, struct bus *b, struct loop *l, const char *endpoint, size_t message_max,
                 size_t queue_max, bus_hub_cb cb, void *arg) {
    return bus_hub_open_curve(to, b, l, endpoint, NULL, message_max, queue_max, cb, arg);
}

int bus_hub_endpoint(const struct bus_hub *h, char *to, size_t size) {
    return zmq_getsockopt(h->socket.zmq, ZMQ_LAST_ENDPOINT, to, &size) == 0 ? ERR_OK : ERR_RANGE;
}

void bus_hub_close(struct bus_hub *h) {
    if (h)
        bus_socket_close(&h->socket);
}

static bool has_room(const struct bus_hub *h, size_t bytes) {
    size_t waiting = bytes;
    LIST_FOREACH(node, next, &h->blocked)
    waiting += LIST_ENTRY(node, struct blocked, in_list)->queue.bytes;
    return !h->waiting_max || waiting <= h->waiting_max;
}

int bus_hub_send(struct bus_hub *h, struct span peer, struct span header, struct span meta, struct bus_bytes *body) {
    if (!fits(header, meta, body, h->socket.message_max))
        return ERR_RANGE;
    if (peer.len == 0 || peer.len > BUS_PEER_MAX)
        return ERR_NOT_FOUND;
    struct bus_parts parts;
    int err = bus_parts_make(&parts, header, meta, body);
    if (err)
        return err;
    struct blocked *p = blocked_find(h, peer);
    if (!p) {
        err = bus_socket_send(&h->socket, peer, &parts);
        if (err == ERR_AGAIN) {
            p = blocked_new(h, peer);
            err = p ? ERR_OK : ERR_NOMEM;
        }
    }
    if (p)
        err = has_room(h, parts.bytes) ? bus_queue_push(&p->queue, &parts) : ERR_FULL;
    bus_parts_close(&parts);
    return err;
}

/* -- peer -- */

struct bus_peer {
    struct bus_socket socket;
    struct bus_queue queue;
    bus_peer_cb cb;
    void *arg;
};

static bool flush_peer(void *owner) {
    struct bus_peer *p = owner;
    bool sent = false;
    int err = bus_socket_send_queue(&p->socket, SPAN_EMPTY, &p->queue, &sent);
    if (err == ERR_IO) {
        LOG_WARN("bus_peer_failed", LOG_U64("dropped", p->queue.list.count));
        bus_queue_drop(&p->queue);
    }
    p->socket.waiting = !list_is_empty(&p->queue.list);
    return sent;
}

static void on_peer_message(void *owner, struct span id, const struct bus_message *m) {
    struct bus_peer *p = owner;
    (void)id;
    p->cb(p->arg, m);
}

static void release_peer(void *owner) {
    struct bus_peer *p = owner;
    bus_queue_drop(&p->queue);
    free(p);
}

static int start_peer(struct bus_peer *p, struct bus *b, struct loop *l, const char *endpoint,
                      const struct bus_login *login, struct span name, size_t message_max) {
    int err = bus_socket_open(&p->socket, b->context, ZMQ_DEALER, message_max);
    if (login && !err)
        err = bus_socket_log_in(&p->socket, login);
    if (login && !err)
        err = bus_socket_use_tcp(&p->socket, endpoint);
    if (!err)
        err = bus_socket_connect(&p->socket, endpoint, name);
    return err ? err : bus_socket_start(&p->socket, l);
}

int bus_peer_open_curve(struct bus_peer **to, struct bus *b, struct loop *l, const char *endpoint,
                        const struct bus_login *login, const char *name, size_t message_max, size_t queue_max,
                        bus_peer_cb cb, void *arg) {
    struct span text = span_of(name);
    bool good = login ? bus_endpoint_is_tcp(endpoint, false) : bus_endpoint_is_good(endpoint);
    if (!good || text.len == 0 || text.len > NAME_MAX_BYTES)
        return ERR_INVALID;
    struct bus_peer *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    bus_queue_init(&p->queue, queue_max);
    p->cb = cb;
    p->arg = arg;
    p->socket.owner = p;
    p->socket.cb = on_peer_message;
    p->socket.flush = flush_peer;
    p->socket.release = release_peer;
    int err = start_peer(p, b, l, endpoint, login, text, message_max);
    if (err) {
        bus_socket_close(&p->socket);
        return err;
    }
    *to = p;
    return ERR_OK;
}

int bus_peer_open(struct bus_peer **to, struct bus *b, struct loop *l, const char *endpoint, const char *name,
                  size_t message_max, size_t queue_max, bus_peer_cb cb, void *arg) {
    return bus_peer_open_curve(to, b, l, endpoint, NULL, name, message_max, queue_max, cb, arg);
}

void bus_peer_close(struct bus_peer *p) {
    if (p)
        bus_socket_close(&p->socket);
}

int bus_peer_send(struct bus_peer *p, struct span header, struct span meta, struct bus_bytes *body) {
    if (!fits(header, meta, body, p->socket.message_max))
        return ERR_RANGE;
    struct bus_parts parts;
    int err = bus_parts_make(&parts, header, meta, body);
    if (err)
        return err;
    if (!p->socket.waiting)
        err = bus_socket_send(&p->socket, SPAN_EMPTY, &parts);
    if (p->socket.waiting || err == ERR_AGAIN) {
        err = bus_queue_push(&p->queue, &parts);
        p->socket.waiting = !list_is_empty(&p->queue.list);
    }
    bus_parts_close(&parts);
    return err;
}
