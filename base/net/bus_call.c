/*
 * bus_call: the blocking call of the operator's tool: a context, a socket and nothing left behind.
 *
 * Over tcp:// ZeroMQ would try for ever, whatever the reason; a monitor on the socket tells us at once that nobody
 * listens, or that a key was refused.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/net/bus.h"
#include "base/net/bus_zmq.h"

#define MONITOR "inproc://monitor"
#define MONITORED                                                                                                      \
    (ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |               \
     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)

struct call {
    struct bus_socket socket;
    void *monitor; /* tcp; else NULL */
    bool connected;
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

static int judge_event(struct call *c, unsigned event) {
    switch (event) {
    case ZMQ_EVENT_CONNECTED:
        c->connected = true;
        return ERR_OK;
    case ZMQ_EVENT_CLOSED:
        return c->connected ? ERR_OK : ERR_UNREACHABLE;
    case ZMQ_EVENT_DISCONNECTED:
        return ERR_CLOSED;
    default:
        return ERR_DENIED;
    }
}

/* What has happened to the connection. */
static int read_monitor(struct call *c) {
    int err = ERR_OK;
    for (bool first = true, more = true; more;) {
        zmq_msg_t m;
        uint16_t event;
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, c->monitor, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&m);
            break;
        }
        if (first && err == ERR_OK && zmq_msg_size(&m) >= sizeof event) {
            memcpy(&event, zmq_msg_data(&m), sizeof event);
            err = judge_event(c, event);
        }
        first = !zmq_msg_more(&m); /* the part behind it is the address; the next event may follow */
        zmq_msg_close(&m);
    }
    return err;
}

/* Waits for what `events` asks, until the deadline. */
static int call_wait(struct call *c, short events, uint64_t deadline_ms) {
    uint64_t now_ms = clock_mono_ms();
    zmq_pollitem_t items[] = {{.socket = c->socket.zmq, .events = events},
                              {.socket = c->monitor, .events = ZMQ_POLLIN}};
    int ready = now_ms < deadline_ms ? zmq_poll(items, c->monitor ? 2 : 1, (long)(deadline_ms - now_ms)) : 0;
    if (ready < 0)
        return errno == EINTR ? ERR_AGAIN : ERR_IO;
    if (!ready)
        return ERR_TIMEOUT;
    return items[0].revents || !c->monitor ? ERR_OK : read_monitor(c);
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

static int watch_connection(struct call *c, struct bus *b) {
    int zero = 0;
    if (zmq_socket_monitor(c->socket.zmq, MONITOR, MONITORED) < 0)
        return ERR_IO;
    c->monitor = zmq_socket(b->context, ZMQ_PAIR);
    if (!c->monitor)
        return ERR_NOMEM;
    bool good =
        zmq_setsockopt(c->monitor, ZMQ_LINGER, &zero, sizeof zero) == 0 && zmq_connect(c->monitor, MONITOR) == 0;
    return good ? ERR_OK : ERR_IO;
}

static int call_open(struct call *c, struct bus *b, const char *endpoint, const struct bus_login *login,
                     size_t message_max) {
    int err = bus_socket_open(&c->socket, b->context, ZMQ_DEALER, message_max);
    if (login && !err)
        err = bus_socket_log_in(&c->socket, login);
    if (login && !err)
        err = bus_socket_use_tcp(&c->socket, endpoint);
    if (login && !err)
        err = watch_connection(c, b);
    return err ? err : bus_socket_connect(&c->socket, endpoint, SPAN("call"));
}

static void call_close(struct call *c) {
    if (c->monitor) {
        zmq_socket_monitor(c->socket.zmq, NULL, 0);
        zmq_close(c->monitor);
    }
    bus_socket_close(&c->socket);
}

static int check_endpoint(const char *endpoint, const struct bus_login *login) {
    if (login)
        return bus_endpoint_is_tcp(endpoint, false) ? ERR_OK : ERR_INVALID;
    if (!bus_endpoint_is_good(endpoint) || strncmp(endpoint, "ipc:", 4) != 0)
        return ERR_INVALID; /* inproc has nobody to call: the context is the call's own */
    int err = bus_endpoint_probe(endpoint);
    return err == ERR_NOT_FOUND ? ERR_UNREACHABLE : err;
}

int bus_call_curve(const char *endpoint, const struct bus_login *login, size_t message_max, struct span header,
                   struct span meta, uint64_t timeout_ms, bus_more_cb more, void *arg) {
    int err = check_endpoint(endpoint, login);
    if (err)
        return err;
    struct bus *b = bus_new(1);
    if (!b)
        return ERR_NOMEM;
    struct call c = {.more = more, .arg = arg};
    struct bus_parts parts = {.count = 0};
    c.socket.owner = &c;
    c.socket.cb = on_call_message;
    c.socket.release = release_call;
    err = call_open(&c, b, endpoint, login, message_max);
    if (!err)
        err = bus_parts_make(&parts, header, meta, NULL);
    if (!err)
        err = call_send(&c, &parts, timeout_ms);
    if (!err)
        err = call_receive(&c, timeout_ms);
    bus_parts_close(&parts);
    call_close(&c);
    bus_free(b);
    return err;
}

int bus_call(const char *endpoint, size_t message_max, struct span header, struct span meta, uint64_t timeout_ms,
             bus_more_cb more, void *arg) {
    return bus_call_curve(endpoint, NULL, message_max, header, meta, timeout_ms, more, arg);
}
