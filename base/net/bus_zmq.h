/*
 * bus_zmq: what the files of the ZeroMQ door share. Only base/net/bus*.c include this.
 */
#ifndef BASE_NET_BUS_ZMQ_H
#define BASE_NET_BUS_ZMQ_H

#include <zmq.h>

#include "base/list.h"
#include "base/net/bus.h"

struct bus_zap;
struct bus {
    void *context;
    struct bus_zap *zap; /* NULL: none was started; it stays until bus_free */
};

/* -- bus_zap.c -- */
bool bus_zap_is_running(const struct bus *b);
void bus_zap_free(struct bus *b);

/* -- bus_bytes.c: messages as parts -- */

enum { BUS_PARTS_MAX = 3 };
struct bus_parts {
    zmq_msg_t part[BUS_PARTS_MAX]; /* header, meta, body */
    unsigned count;
    size_t bytes;
};
int bus_parts_make(struct bus_parts *p, struct span header, struct span meta, struct bus_bytes *body) MUST_CHECK;
void bus_parts_close(struct bus_parts *p);
/* Takes the content of a received message, without a copy. NULL: no memory (m keeps it). */
struct bus_bytes *bus_bytes_wrap(zmq_msg_t *m) MUST_CHECK;

/* -- bus_socket.c: one ZeroMQ socket on a loop -- */
enum { BUS_HWM_MESSAGES = 1000 };

/* Messages that the socket does not take now, with a bound on their bytes. */
struct bus_queue {
    struct list list;
    size_t bytes, max;
};
void bus_queue_init(struct bus_queue *q, size_t max);
/* Takes the parts when it succeeds. ERR_FULL, ERR_NOMEM. */
int bus_queue_push(struct bus_queue *q, struct bus_parts *p) MUST_CHECK;
void bus_queue_drop(struct bus_queue *q);

struct bus_socket;
/* A message has come. id is empty on a peer's socket. */
typedef void (*bus_socket_cb)(void *owner, struct span id, const struct bus_message *m);
/* The socket may take more now: true when anything was sent. */
typedef bool (*bus_flush_cb)(void *owner);
struct bus_socket {
    void *zmq;
    struct loop_poll *poll;
    struct loop_hook *hook;
    size_t message_max;
    bool has_ids;        /* ROUTER: an id comes first */
    struct bus *guarded; /* CURVE server: each message must be that of a key on the list of `domain`; else NULL */
    const char *domain;
    bool touched;  /* ZeroMQ was called or has signalled since its events were read: they must be read again */
    bool pending;  /* input was seen */
    bool waiting;  /* the owner's queues are not empty; the owner sets and clears it */
    bool draining; /* inside a callback: a close is finished when it returns */
    bool closed;
    bus_socket_cb cb;
    bus_flush_cb flush;
    void (*release)(void *owner); /* frees the owner when the socket is closed */
    void *owner;
};
/* Makes the socket with its options; the caller sets its own, then binds or connects, then starts. */
int bus_socket_open(struct bus_socket *s, void *context, int type, size_t message_max) MUST_CHECK;
int bus_socket_start(struct bus_socket *s, struct loop *l) MUST_CHECK;
/* Closes now or, inside a callback of the socket, when that returns; then calls release. */
void bus_socket_close(struct bus_socket *s);
/* ERR_OK (the parts are gone); ERR_AGAIN, ERR_NOT_FOUND, ERR_NOMEM, ERR_IO: the parts are still the caller's. */
int bus_socket_send(struct bus_socket *s, struct span id, struct bus_parts *p) MUST_CHECK;
/* Sends from the queue until it is empty or the socket refuses; *sent is set when anything went. */
int bus_socket_send_queue(struct bus_socket *s, struct span id, struct bus_queue *q, bool *sent) MUST_CHECK;
/* Receives one message without blocking and hands it to cb, which may be the owner's own for a
 * blocking call. ERR_OK (also when the message was malformed and dropped), ERR_AGAIN: none. */
int bus_socket_receive(struct bus_socket *s) MUST_CHECK;

/* inproc:// and ipc://, which need no key. */
bool bus_endpoint_is_good(const char *endpoint);
/* tcp://ADDRESS:PORT, with numbers where it is bound; for connecting the name of a host will do. Only with CURVE: it
 * would be open to strangers. */
bool bus_endpoint_is_tcp(const char *endpoint, bool bound);
/* Sees peers that have gone without a word, and gives up on handshakes that do not end. */
int bus_socket_use_tcp(struct bus_socket *s, const char *endpoint) MUST_CHECK;
/* Makes it a CURVE client. */
struct bus_login;
int bus_socket_log_in(struct bus_socket *s, const struct bus_login *login) MUST_CHECK;
/* Connects a DEALER under a name that is new in each life. */
int bus_socket_connect(struct bus_socket *s, const char *endpoint, struct span name) MUST_CHECK;
/* Of errno, after a bind or connect. */
int bus_err_of_open(int error);
/* For ipc: ERR_OK when somebody listens there, ERR_UNREACHABLE, ERR_DENIED, ERR_NOT_FOUND. Others: ERR_OK. */
int bus_endpoint_probe(const char *endpoint);

/* ThreadSanitizer does not see how ZeroMQ, which is not built for it, hands a message from thread to thread. These say
 * so where it happens; otherwise they are nothing. */
#if defined(__SANITIZE_THREAD__)
#define BUS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BUS_TSAN 1
#endif
#endif
#ifdef BUS_TSAN
void __tsan_acquire(void *at);
void __tsan_release(void *at);
extern char bus_handed_over;
#define BUS_HAND_OVER() __tsan_release(&bus_handed_over)
#define BUS_TAKE_OVER() __tsan_acquire(&bus_handed_over)
#else
#define BUS_HAND_OVER() ((void)0)
#define BUS_TAKE_OVER() ((void)0)
#endif

#endif
