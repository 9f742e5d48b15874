/*
 * hook_socket: a hook's lines to a unix socket, of a stream or of datagrams, as the one that listens has it. The kernel
 * tells how many octets the other side has not read (SIOCOUTQ): a batch is taken when there are none. A reader that
 * dies with octets unread resets the connection, and the batch comes again.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/hook_sink.h"

enum { LOOK_FIRST_MS = 1, LOOK_MAX_MS = 50 };

struct hook_socket {
    struct loop *loop;
    const char *path;
    uint64_t timeout_ms, deadline_ms;
    hook_sink_cb cb;
    void *arg;
    int fd; /* -1: none */
    bool datagrams;
    struct loop_poll *poll;
    struct loop_timer *timer; /* the next look, or the end of the time */
    uint64_t look_ms;
    struct span rest; /* to be written */
    bool busy, written;
    const char *broken; /* cannot even begin; told by the timer */
};

static void disconnect(struct hook_socket *s) {
    if (s->poll)
        loop_poll_close(s->poll);
    s->poll = NULL;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void end(struct hook_socket *s, bool taken, const char *why) {
    loop_timer_stop(s->timer);
    if (!taken)
        disconnect(s);
    else
        loop_poll_set(s->poll, 0);
    s->busy = false;
    s->cb(s->arg, taken, why);
}

/* -- the end of a batch -- */

/* 0, or the errno of a connection that is no more; EPIPE: closed in good order. */
static int error_of(const struct hook_socket *s) {
    int error = 0;
    socklen_t len = sizeof error;
    char c;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return errno;
    if (error)
        return error;
    ssize_t got = recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got == 0 && !s->datagrams)
        return EPIPE;
    return got >= 0 || errno == EAGAIN || errno == EINTR ? 0 : errno;
}

static void look(struct hook_socket *s) {
    int unread = 0;
    if (ioctl(s->fd, SIOCOUTQ, &unread) != 0) /* not told: what is written counts */
        unread = 0;
    int error = error_of(s);
    if (error && !(error == EPIPE && !unread)) {
        end(s, false, error == EPIPE ? "closed before all was read" : strerror(error));
        return;
    }
    if (!unread) {
        end(s, true, "");
        if (error && !s->busy) /* all was read, then it was closed */
            disconnect(s);
        return;
    }
    s->look_ms = s->look_ms * 2 < LOOK_MAX_MS ? s->look_ms * 2 : LOOK_MAX_MS;
    loop_timer_set(s->timer, s->look_ms);
}

static void on_timer(void *arg) {
    struct hook_socket *s = arg;
    if (s->broken)
        end(s, false, s->broken);
    else if (!s->written || loop_now_ms(s->loop) >= s->deadline_ms)
        end(s, false, s->written ? "not read in time" : "takes nothing");
    else
        look(s);
}

/* -- writing -- */

static ssize_t write_some(struct hook_socket *s) {
    struct span piece = s->rest;
    if (!s->datagrams)
        return send(s->fd, piece.at, piece.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct span after;
    piece = span_cut(s->rest, '\n', &after);
    ssize_t n = send(s->fd, piece.at, piece.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? n : (ssize_t)(s->rest.len - after.len);
}

static void go_on(struct hook_socket *s) {
    while (s->rest.len) {
        ssize_t n = write_some(s);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            loop_poll_set(s->poll, LOOP_WRITABLE);
            return;
        }
        if (n < 0) {
            end(s, false, strerror(errno));
            return;
        }
        s->rest = span_from(s->rest, (size_t)n);
    }
    s->written = true;
    s->look_ms = LOOK_FIRST_MS;
    loop_poll_set(s->poll, 0);
    look(s);
}

static void on_poll(void *arg, int events, bool failed) {
    struct hook_socket *s = arg;
    (void)events;
    (void)failed;
    if (s->busy && !s->written)
        go_on(s);
}

/* NULL, or why not. */
static const char *connect_as(struct hook_socket *s, int type) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", s->path);
    s->fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return strerror(errno);
    if (connect(s->fd, (const struct sockaddr *)&a, sizeof a) == 0)
        s->poll = loop_poll_new(s->loop, s->fd, on_poll, s);
    if (s->poll) {
        s->datagrams = type == SOCK_DGRAM;
        return NULL;
    }
    int error = errno;
    disconnect(s);
    if (error == EPROTOTYPE && type == SOCK_STREAM)
        return connect_as(s, SOCK_DGRAM);
    return strerror(error);
}

void hook_socket_send(struct hook_socket *s, struct span lines) {
    if (s->fd >= 0 && error_of(s)) /* the reader was started anew */
        disconnect(s);
    s->broken = s->fd < 0 ? connect_as(s, SOCK_STREAM) : NULL;
    s->busy = true;
    s->written = false;
    s->rest = lines;
    s->deadline_ms = loop_now_ms(s->loop) + s->timeout_ms;
    if (s->broken) {
        loop_timer_set(s->timer, 1);
        return;
    }
    loop_poll_set(s->poll, LOOP_WRITABLE);
    loop_timer_set(s->timer, s->timeout_ms);
}

struct hook_socket *hook_socket_new(struct loop *l, const char *path, uint64_t timeout_ms, hook_sink_cb cb, void *arg) {
    struct hook_socket *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    *s = (struct hook_socket){.loop = l, .path = path, .timeout_ms = timeout_ms, .cb = cb, .arg = arg, .fd = -1};
    s->timer = loop_timer_new(l, on_timer, s);
    if (s->timer)
        return s;
    free(s);
    return NULL;
}

void hook_socket_free(struct hook_socket *s) {
    if (!s)
        return;
    disconnect(s);
    loop_timer_close(s->timer);
    free(s);
}
