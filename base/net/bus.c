/*
 * bus: hubs, peers and the operator's blocking call.
 *
 * A hub keeps nothing for a peer that takes its messages: a record is made for one when
 * ZeroMQ refuses a message, holds what must wait, and goes when that has been sent or the
 * peer has gone. So neither the number of peers nor their coming and going costs memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base32.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "base/net/bus.h"
#include "base/net/bus_zmq.h"
#include "base/rand.h"

enum { NAME_MAX_BYTES = 40 };

struct bus *bus_new(int io_threads) {
    struct bus *b = malloc(sizeof *b);
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
    while (zmq_ctx_term(b->context) && errno == EINTR) {
    }
    free(b);
}

static int err_of_open(int error) {
    switch (error) {
    case EADDRINUSE:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EINVAL:
    case EPROTONOSUPPORT:
    case ENAMETOOLONG:
        return ERR_INVALID;
    case ENOMEM:
    case EMFILE:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
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
    size_t queue_max;
    bus_hub_cb cb;
    void *arg;
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
    return failed ? err_of_open(error) : ERR_OK;
}

static int start_hub(struct bus_hub *h, struct bus *b, struct loop *l, const char *endpoint, size_t message_max) {
    int on = 1;
    int err = bus_socket_open(&h->socket, b->context, ZMQ_ROUTER, message_max);
    if (err)
        return err;
    if (zmq_setsockopt(h->socket.zmq, ZMQ_ROUTER_MANDATORY, &on, sizeof on))
        return ERR_IO;
    err = bind_private(h->socket.zmq, endpoint);
    return err ? err : bus_socket_start(&h->socket, l);
}

int bus_hub_open(struct bus_hub **to, struct bus *b, struct loop *l, const char *endpoint, size_t message_max,
                 size_t queue_max, bus_hub_cb cb, void *arg) {
    if (!bus_endpoint_is_good(endpoint))
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
    int err = start_hub(h, b, l, endpoint, message_max);
    if (err) {
        bus_socket_close(&h->socket);
        return err;
    }
    *to = h;
    return ERR_OK;
}

void bus_hub_close(struct bus_hub *h) {
    if (h)
        bus_socket_close(&h->socket);
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
        err = bus_queue_push(&p->queue, &parts);
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

/* The id is new in each life, so that a hub never takes a new peer for the one that died. */
static size_t make_id(char to[BUS_PEER_MAX], struct span name) {
    uint64_t incarnation;
    rand_secure(&incarnation, sizeof incarnation);
    size_t len = span_copy(name, to, BUS_PEER_MAX);
    to[len++] = '.';
    base32_encode(incarnation, to + len);
    return len + BASE32_ID_LEN;
}

static int connect_as(void *zmq, const char *endpoint, struct span name) {
    char id[BUS_PEER_MAX];
    size_t len = make_id(id, name);
    if (zmq_setsockopt(zmq, ZMQ_ROUTING_ID, id, len))
        return ERR_IO;
    return zmq_connect(zmq, endpoint) ? err_of_open(errno) : ERR_OK;
}

int bus_peer_open(struct bus_peer **to, struct bus *b, struct loop *l, const char *endpoint, const char *name,
                  size_t message_max, size_t queue_max, bus_peer_cb cb, void *arg) {
    struct span text = span_of(name);
    if (!bus_endpoint_is_good(endpoint) || text.len == 0 || text.len > NAME_MAX_BYTES)
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
    int err = bus_socket_open(&p->socket, b->context, ZMQ_DEALER, message_max);
    if (!err)
        err = connect_as(p->socket.zmq, endpoint, text);
    if (!err)
        err = bus_socket_start(&p->socket, l);
    if (err) {
        bus_socket_close(&p->socket);
        return err;
    }
    *to = p;
    return ERR_OK;
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

/* -- the blocking call -- */

struct call {
    struct bus_socket socket;
    bus_more_cb more;
    void *arg;
    bool done;
};

static void on_call_message(void *owner, struct span id, const struct bus_message *m) {
    struct call *c = owner;
    (void)id;
    c->done = !c->more(c->arg, m);
}

static void release_call(void *owner) {
    (void)owner;
}

/* Waits for what `events` asks, until the deadline. */
static int call_wait(struct call *c, short events, uint64_t deadline_ms) {
    uint64_t now_ms = clock_mono_ms();
    zmq_pollitem_t item = {.socket = c->socket.zmq, .events = events};
    int ready = now_ms < deadline_ms ? zmq_poll(&item, 1, (long)(deadline_ms - now_ms)) : 0;
    if (ready < 0)
        return errno == EINTR ? ERR_AGAIN : ERR_IO;
    return ready ? ERR_OK : ERR_TIMEOUT;
}

static int call_send(struct call *c, struct bus_parts *parts, uint64_t timeout_ms) {
    uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
    int err;
    while ((err = bus_socket_send(&c->socket, SPAN_EMPTY, parts)) == ERR_AGAIN) {
        err = call_wait(c, ZMQ_POLLOUT, deadline_ms);
        if (err && err != ERR_AGAIN)
            return err;
    }
    return err;
}

static int call_receive(struct call *c, uint64_t timeout_ms) {
    uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
    while (!c->done) {
        int err = bus_socket_receive(&c->socket);
        if (err == ERR_OK)
            deadline_ms = clock_mono_ms() + timeout_ms;
        else
            err = call_wait(c, ZMQ_POLLIN, deadline_ms);
        if (err && err != ERR_AGAIN)
            return err;
    }
    return ERR_OK;
}

int bus_call(const char *endpoint, size_t message_max, struct span header, struct span meta, uint64_t timeout_ms,
             bus_more_cb more, void *arg) {
    if (!bus_endpoint_is_good(endpoint) || strncmp(endpoint, "ipc:", 4) != 0)
        return ERR_INVALID; /* inproc has nobody to call: the context is the call's own */
    int err = bus_endpoint_probe(endpoint);
    if (err)
        return err == ERR_NOT_FOUND ? ERR_UNREACHABLE : err;
    struct bus *b = bus_new(1);
    if (!b)
        return ERR_NOMEM;
    struct call c = {.more = more, .arg = arg};
    struct bus_parts parts = {.count = 0};
    c.socket.owner = &c;
    c.socket.cb = on_call_message;
    c.socket.release = release_call;
    err = bus_socket_open(&c.socket, b->context, ZMQ_DEALER, message_max);
    if (!err)
        err = connect_as(c.socket.zmq, endpoint, SPAN("call"));
    if (!err)
        err = bus_parts_make(&parts, header, meta, NULL);
    if (!err)
        err = call_send(&c, &parts, timeout_ms);
    if (!err)
        err = call_receive(&c, timeout_ms);
    bus_parts_close(&parts);
    bus_socket_close(&c.socket);
    bus_free(b);
    return err;
}
