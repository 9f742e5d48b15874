/*
 * bus_socket: one ZeroMQ socket driven by a loop; hubs and peers are both built on it.
 *
 * The descriptor of a ZeroMQ socket only says "something has changed since you last asked",
 * once, and a send on the same socket may swallow that. So it serves as a wake-up and
 * nothing else: before the loop blocks, the socket's events are read if ZeroMQ was called
 * or has signalled since they were last read. When input is pending the loop does not block,
 * and after it has polled, a bounded number of messages is taken, so that one busy socket
 * does not starve the rest of the loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/base32.h"
#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/net/bus_keys.h"
#include "base/net/bus_zap.h"
#include "base/net/bus_zmq.h"
#include "base/net/tcp.h"
#include "base/rand.h"

enum { MESSAGES_PER_TURN = 256 };
enum { HANDSHAKE_MS = 10000, HEARTBEAT_MS = 10000, SILENCE_MS = 30000 };

METRIC_COUNTER(refused_total, "posthouse_bus_refused_total",
               "Messages dropped because of their size or number of parts.");
METRIC_COUNTER(denied_total, "posthouse_bus_denied_total", "Messages dropped because their key is not on the list.");

/* -- queue -- */

struct waiting {
    struct list_node node;
    struct bus_parts parts;
};

void bus_queue_init(struct bus_queue *q, size_t max) {
    list_init(&q->list);
    q->bytes = 0;
    q->max = max;
}

int bus_queue_push(struct bus_queue *q, struct bus_parts *p) {
    if (p->bytes > q->max || q->bytes > q->max - p->bytes)
        return ERR_FULL;
    struct waiting *w = malloc(sizeof *w);
    if (!w)
        return ERR_NOMEM;
    w->node = (struct list_node){0};
    w->parts.count = p->count;
    w->parts.bytes = p->bytes;
    for (unsigned i = 0; i < p->count; i++) {
        zmq_msg_init(&w->parts.part[i]);
        CHECK(zmq_msg_move(&w->parts.part[i], &p->part[i]) == 0);
    }
    bus_parts_close(p);
    list_push_back(&q->list, &w->node);
    q->bytes += w->parts.bytes;
    return ERR_OK;
}

static void drop_first(struct bus_queue *q) {
    struct waiting *w = LIST_ENTRY(list_pop_front(&q->list), struct waiting, node);
    q->bytes -= w->parts.bytes;
    bus_parts_close(&w->parts);
    free(w);
}

void bus_queue_drop(struct bus_queue *q) {
    while (!list_is_empty(&q->list))
        drop_first(q);
}

int bus_socket_send_queue(struct bus_socket *s, struct span id, struct bus_queue *q, bool *sent) {
    while (!list_is_empty(&q->list)) {
        struct waiting *w = LIST_ENTRY(list_first(&q->list), struct waiting, node);
        int err = bus_socket_send(s, id, &w->parts);
        if (err)
            return err;
        *sent = true;
        drop_first(q);
    }
    return ERR_OK;
}

/* -- sending -- */

static int err_of_send(int error) {
    switch (error) {
    case EAGAIN:
    case EINTR:
        return ERR_AGAIN;
    case EHOSTUNREACH:
        return ERR_NOT_FOUND;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

#ifdef BUS_TSAN
char bus_handed_over;
#endif

int bus_socket_send(struct bus_socket *s, struct span id, struct bus_parts *p) {
    s->touched = true;
    BUS_HAND_OVER();
    if (s->has_ids) {
        zmq_msg_t first;
        if (zmq_msg_init_size(&first, id.len))
            return ERR_NOMEM;
        memcpy(zmq_msg_data(&first), id.at, id.len);
        if (zmq_msg_send(&first, s->zmq, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
            int err = err_of_send(errno);
            zmq_msg_close(&first);
            return err;
        }
    }
    for (unsigned i = 0; i < p->count; i++) {
        int more = i + 1 < p->count ? ZMQ_SNDMORE : 0;
        if (zmq_msg_send(&p->part[i], s->zmq, ZMQ_DONTWAIT | more) >= 0)
            continue;
        if (i == 0 && !s->has_ids)
            return err_of_send(errno);
        /* The first part was taken, so the rest can fail only with the socket itself. */
        LOG_ERROR("bus_send_failed", LOG_STR("reason", zmq_strerror(errno)));
        return ERR_IO;
    }
    p->count = 0;
    return ERR_OK;
}

/* -- receiving -- */

static bool has_more(zmq_msg_t *m) {
    return zmq_msg_more(m);
}

/* The rest of a message that is not wanted. */
static void skip_rest(struct bus_socket *s, bool more) {
    while (more) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        more = zmq_msg_recv(&m, s->zmq, ZMQ_DONTWAIT) >= 0 && has_more(&m);
        zmq_msg_close(&m);
    }
}

static struct span span_of_message(zmq_msg_t *m) {
    return (struct span){zmq_msg_data(m), zmq_msg_size(m)};
}

/* Whose message it is: the key that the handshake has proven, if it is still on the list. Only of guarded sockets: on
 * others a peer may call itself anything. */
static bool find_user(struct bus_socket *s, zmq_msg_t *part, char user[BUS_ZAP_USER_MAX + 1]) {
    const char *key = zmq_msg_gets(part, "User-Id");
    if (key && bus_zap_user(s->guarded, s->domain, span_of(key), user))
        return true;
    metric_add(&denied_total, 1);
    LOG_WARN("bus_message_denied", LOG_STR("domain", s->domain), LOG_STR("key", key ? key : ""),
             LOG_STR("why", "its key is not on the list"));
    return false;
}

static void deliver(struct bus_socket *s, zmq_msg_t *parts, unsigned count) {
    unsigned first = s->has_ids ? 1 : 0;
    char user[BUS_ZAP_USER_MAX + 1] = "";
    struct bus_message m = {.header = span_of_message(&parts[first])};
    if (s->guarded && !find_user(s, &parts[first], user))
        return;
    m.user = span_of(user);
    if (count > first + 1)
        m.meta = span_of_message(&parts[first + 1]);
    if (count > first + 2 && zmq_msg_size(&parts[first + 2])) {
        m.body = bus_bytes_wrap(&parts[first + 2]);
        if (!m.body) {
            LOG_ERROR("bus_message_dropped", LOG_ERR("reason", ERR_NOMEM));
            return;
        }
    }
    s->cb(s->owner, first ? span_of_message(&parts[0]) : SPAN_EMPTY, &m);
    bus_bytes_free(m.body);
}

int bus_socket_receive(struct bus_socket *s) {
    zmq_msg_t parts[1 + BUS_PARTS_MAX];
    unsigned count = 0, most = BUS_PARTS_MAX + s->has_ids, least = 1 + s->has_ids;
    bool more = true, good = true;
    s->touched = true;
    while (more && count < most) {
        zmq_msg_init(&parts[count]);
        if (zmq_msg_recv(&parts[count], s->zmq, ZMQ_DONTWAIT) < 0)
            break; /* only before the first part: messages arrive whole */
        more = has_more(&parts[count]);
        good = good && zmq_msg_size(&parts[count]) <= s->message_max;
        count++;
    }
    if (count == 0) {
        zmq_msg_close(&parts[0]);
        return ERR_AGAIN;
    }
    BUS_TAKE_OVER();
    if (!good || more || count < least) {
        skip_rest(s, more);
        metric_add(&refused_total, 1);
        LOG_WARN("bus_message_refused", LOG_U64("parts", count));
    } else {
        deliver(s, parts, count);
    }
    for (unsigned i = 0; i < count; i++)
        zmq_msg_close(&parts[i]);
    return ERR_OK;
}

/* -- on the loop -- */

static void finish_close(struct bus_socket *s) {
    if (s->poll)
        loop_poll_close(s->poll);
    if (s->hook)
        loop_hook_close(s->hook);
    if (s->zmq)
        zmq_close(s->zmq);
    s->poll = NULL;
    s->hook = NULL;
    s->zmq = NULL;
    s->release(s->owner);
}

void bus_socket_close(struct bus_socket *s) {
    s->closed = true;
    if (!s->draining)
        finish_close(s);
}

static bool read_events(struct bus_socket *s) {
    int events = 0;
    size_t size = sizeof events;
    s->touched = false;
    if (zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &size)) {
        s->touched = errno == EINTR; /* a signal came between: ask again */
        return s->touched;
    }
    return events & ZMQ_POLLIN;
}

static bool before_block(void *arg) {
    struct bus_socket *s = arg;
    if (!s->touched)
        return s->pending;
    s->pending = read_events(s); /* which also learns where there is room again */
    if (s->waiting && s->flush(s->owner))
        s->pending = read_events(s);
    return s->pending;
}

static void after_poll(void *arg) {
    struct bus_socket *s = arg;
    if (!s->pending && !s->touched)
        return;
    s->pending = false;
    s->draining = true;
    for (int i = 0; i < MESSAGES_PER_TURN && !s->closed; i++) {
        if (bus_socket_receive(s))
            break;
    }
    s->draining = false;
    if (s->closed)
        finish_close(s);
}

static void on_signalled(void *arg, int events, bool failed) {
    struct bus_socket *s = arg;
    (void)events;
    s->touched = true;
    if (failed)
        loop_poll_set(s->poll, LOOP_READABLE);
}

int bus_socket_open(struct bus_socket *s, void *context, int type, size_t message_max) {
    int zero = 0, hwm = BUS_HWM_MESSAGES;
    int64_t size_max = message_max < INT64_MAX ? (int64_t)message_max : INT64_MAX;
    s->zmq = zmq_socket(context, type);
    if (!s->zmq)
        return ERR_NOMEM;
    s->message_max = message_max;
    s->has_ids = type == ZMQ_ROUTER;
    bool good = zmq_setsockopt(s->zmq, ZMQ_LINGER, &zero, sizeof zero) == 0 &&
                zmq_setsockopt(s->zmq, ZMQ_SNDHWM, &hwm, sizeof hwm) == 0 &&
                zmq_setsockopt(s->zmq, ZMQ_RCVHWM, &hwm, sizeof hwm) == 0 &&
                zmq_setsockopt(s->zmq, ZMQ_MAXMSGSIZE, &size_max, sizeof size_max) == 0;
    if (good)
        return ERR_OK;
    zmq_close(s->zmq);
    s->zmq = NULL;
    return ERR_IO;
}

int bus_socket_start(struct bus_socket *s, struct loop *l) {
    int fd;
    size_t size = sizeof fd;
    if (zmq_getsockopt(s->zmq, ZMQ_FD, &fd, &size))
        return ERR_IO;
    s->poll = loop_poll_new(l, fd, on_signalled, s);
    s->hook = loop_hook_new(l, before_block, after_poll, s);
    if (!s->poll || !s->hook)
        return ERR_NOMEM;
    s->touched = true;
    loop_poll_set(s->poll, LOOP_READABLE);
    return ERR_OK;
}

int bus_err_of_open(int error) {
    switch (error) {
    case EADDRINUSE:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOENT:
    case ENOTDIR:
    case EADDRNOTAVAIL:
    case ENODEV:
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

/* -- tcp and CURVE -- */

static bool set_number(struct bus_socket *s, int option, int value) {
    return zmq_setsockopt(s->zmq, option, &value, sizeof value) == 0;
}

int bus_socket_use_tcp(struct bus_socket *s, const char *endpoint) {
    bool good = set_number(s, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) && set_number(s, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS) &&
                set_number(s, ZMQ_HEARTBEAT_TIMEOUT, SILENCE_MS) && set_number(s, ZMQ_HEARTBEAT_TTL, SILENCE_MS) &&
                set_number(s, ZMQ_IPV6, strchr(endpoint, '[') != NULL);
    return good ? ERR_OK : ERR_IO;
}

int bus_socket_log_in(struct bus_socket *s, const struct bus_login *login) {
    const struct bus_key *k = login->key;
    if (!bus_key_is_good(span_of(login->server)) || !bus_key_is_good(span_of(k->public_key)) ||
        !bus_key_is_good(span_of(k->secret_key)))
        return ERR_INVALID;
    bool good = zmq_setsockopt(s->zmq, ZMQ_CURVE_SERVERKEY, login->server, BUS_KEY_LEN + 1) == 0 &&
                zmq_setsockopt(s->zmq, ZMQ_CURVE_PUBLICKEY, k->public_key, BUS_KEY_LEN + 1) == 0 &&
                zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, k->secret_key, BUS_KEY_LEN + 1) == 0;
    return good ? ERR_OK : ERR_UNSUPPORTED;
}

/* The id is new in each life, so that a hub never takes a new peer for the one that died. */
int bus_socket_connect(struct bus_socket *s, const char *endpoint, struct span name) {
    char id[BUS_PEER_MAX];
    uint64_t incarnation;
    rand_secure(&incarnation, sizeof incarnation);
    size_t len = span_copy(name, id, BUS_PEER_MAX);
    id[len++] = '.';
    base32_encode(incarnation, id + len);
    if (zmq_setsockopt(s->zmq, ZMQ_ROUTING_ID, id, len + BASE32_ID_LEN))
        return ERR_IO;
    return zmq_connect(s->zmq, endpoint) ? bus_err_of_open(errno) : ERR_OK;
}

/* -- endpoints -- */

static const char *ipc_path(const char *endpoint) {
    return strncmp(endpoint, "ipc://", 6) == 0 ? endpoint + 6 : NULL;
}

bool bus_endpoint_is_good(const char *endpoint) {
    const char *path = ipc_path(endpoint);
    if (path)
        return *path == '/' && strlen(path) < sizeof((struct sockaddr_un *)0)->sun_path;
    return strncmp(endpoint, "inproc://", 9) == 0 && endpoint[9] != '\0';
}

static bool is_host_name(struct span host) {
    for (size_t i = 0; i < host.len; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.", host.at[i]))
            return false;
    return host.len > 0 && host.len < 256;
}

bool bus_endpoint_is_tcp(const char *endpoint, bool bound) {
    struct span text = span_of(endpoint);
    struct tcp_addr a;
    uint64_t port;
    if (!span_starts_nocase(text, SPAN("tcp://")))
        return false;
    text = span_from(text, 6);
    ptrdiff_t colon = span_rfind(text, ':');
    if (colon <= 0 || !span_u64(span_from(text, (size_t)colon + 1), &port) || port > 65535)
        return false;
    if (tcp_addr_parse_port(&a, text) == ERR_OK)
        return a.storage.ss_family != AF_UNIX;
    return !bound && is_host_name(span_first(text, (size_t)colon));
}

int bus_endpoint_probe(const char *endpoint) {
    const char *path = ipc_path(endpoint);
    if (!path)
        return ERR_OK;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    span_copy(span_of(path), sun.sun_path, sizeof sun.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_IO;
    int error = connect(fd, (const struct sockaddr *)&sun, sizeof sun) ? errno : 0;
    close(fd);
    if (error == 0 || error == EAGAIN || error == EINPROGRESS)
        return ERR_OK;
    if (error == EACCES || error == EPERM)
        return ERR_DENIED;
    return error == ENOENT ? ERR_NOT_FOUND : ERR_UNREACHABLE;
}
