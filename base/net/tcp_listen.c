/*
 * tcp_listen: sockets that wait for connections. Accepting is done here and not by libuv,
 * because accept4 then gives the peer's address in the same call, and because out of
 * memory and out of descriptors must be met in a way that keeps the listener alive.
 *
 * A listener takes a bounded number of connections a turn, so that a storm of new ones does
 * not starve those that are being served.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net/tcp.h"

enum { ACCEPTS_PER_TURN = 64, REST_MS = 100 };

static int err_of_bind(int error) {
    switch (error) {
    case EADDRINUSE:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case EADDRNOTAVAIL:
        return ERR_UNREACHABLE;
    case EMFILE:
    case ENFILE:
        return ERR_FULL;
    default:
        return ERR_IO;
    }
}

/* A socket file that nobody listens on is left over from a process that died. */
static void remove_stale(const struct tcp_addr *a) {
    const char *path = ((const struct sockaddr_un *)&a->storage)->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&a->storage, a->len) != 0 && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

static int set_options(int fd, int family, bool reuse_port) {
    int on = 1;
    if (family == AF_UNIX)
        return 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on))
        return -1;
    if (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on))
        return -1;
    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on))
        return -1;
    /* Accepted sockets inherit it: one call here instead of one for each connection. */
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int tcp_bind(const struct tcp_addr *a, bool reuse_port) {
    int family = a->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_of_bind(errno);
    if (family == AF_UNIX)
        remove_stale(a);
    if (set_options(fd, family, reuse_port) || bind(fd, (const struct sockaddr *)&a->storage, a->len)) {
        int error = errno;
        close(fd);
        errno = error;
        return err_of_bind(error);
    }
    return fd;
}

struct tcp_listener {
    struct loop *loop;
    int fd;
    struct loop_poll *poll;
    struct loop_timer *rest;
    tcp_accept_cb cb;
    void *arg;
    bool accepting, closed; /* closed inside the accept callback: freed when it returns */
};

static void listener_free(struct tcp_listener *t) {
    if (t->poll)
        loop_poll_close(t->poll);
    if (t->rest)
        loop_timer_close(t->rest);
    close(t->fd);
    free(t);
}

static void on_rested(void *arg) {
    struct tcp_listener *t = arg;
    loop_poll_set(t->poll, LOOP_READABLE);
}

static void rest(struct tcp_listener *t, int error) {
    LOG_WARN("accepting_paused", LOG_STR("reason", strerror(error)));
    loop_poll_set(t->poll, 0);
    loop_timer_set(t->rest, REST_MS);
}

/* False: nothing more to accept now. */
static bool accept_one(struct tcp_listener *t) {
    struct tcp_addr peer = {.len = sizeof peer.storage};
    int fd = accept4(t->fd, (struct sockaddr *)&peer.storage, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            rest(t, errno);
        /* A connection that died in the queue (ECONNABORTED and its kin) does not end the row. */
        return errno == ECONNABORTED || errno == EINTR || errno == EPROTO;
    }
    struct tcp *c = tcp_adopt(t->loop, fd, &peer);
    if (c)
        t->cb(t->arg, c, &peer);
    else
        LOG_WARN("connection_dropped", LOG_ERR("reason", ERR_NOMEM));
    return true;
}

static void on_acceptable(void *arg, int events, bool failed) {
    struct tcp_listener *t = arg;
    (void)events;
    t->accepting = true;
    for (int i = 0; i < ACCEPTS_PER_TURN && !t->closed && accept_one(t); i++) {
    }
    t->accepting = false;
    if (t->closed)
        listener_free(t);
    else if (failed)
        loop_poll_set(t->poll, LOOP_READABLE);
}

struct tcp_listener *tcp_listen(struct loop *l, int fd, int backlog, tcp_accept_cb cb, void *arg) {
    struct tcp_listener *t = calloc(1, sizeof *t);
    if (!t) {
        close(fd);
        return NULL;
    }
    *t = (struct tcp_listener){.loop = l, .fd = fd, .cb = cb, .arg = arg};
    if (listen(fd, backlog) == 0) {
        t->poll = loop_poll_new(l, fd, on_acceptable, t);
        t->rest = loop_timer_new(l, on_rested, t);
    }
    if (!t->poll || !t->rest) {
        listener_free(t);
        return NULL;
    }
    loop_poll_set(t->poll, LOOP_READABLE);
    return t;
}

void tcp_listener_close(struct tcp_listener *t) {
    t->closed = true;
    if (!t->accepting)
        listener_free(t);
}
