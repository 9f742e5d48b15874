/*
 * tcp: one connected stream on a loop: reading with back-pressure, writing with a bounded
 * queue, an end that does not lose the last words. Nothing of SMTP in it; TLS is in tcp_tls.c.
 *
 * Reading. A connection without unread bytes owns no buffer: it reads into memory lent by
 * the loop, the same warm 64 KiB for all. What its owner leaves behind is copied to a
 * buffer of its own, which grows up to in_max and goes when it is empty. So an idle
 * connection costs its struct, and a busy one costs no allocation.
 *
 * Writing. The kernel is tried first. What it does not take waits in `flying`, which
 * belongs to the one write request under way; later writes gather in `out` and follow it
 * as one piece. Both are released when the queue has drained.
 *
 * Turns. What must not happen inside a call of the owner (an event after tcp_resume, an
 * immediate failure of connect) is done in the next turn of the loop, by one hook per loop.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/net/tcp_in.h"

enum { READ_MIN = 4096, PIECES_MAX = 64, LINGER_MS = 1000 };

static int err_of_uv(int status) {
    switch (status) {
    case UV_ENOMEM:
    case UV_ENOBUFS:
        return ERR_NOMEM;
    case UV_ECONNREFUSED:
    case UV_ENETUNREACH:
    case UV_EHOSTUNREACH:
    case UV_EADDRNOTAVAIL:
    case UV_ENETDOWN:
    case UV_ENOENT:
        return ERR_UNREACHABLE;
    case UV_ETIMEDOUT:
        return ERR_TIMEOUT;
    case UV_ECONNRESET:
    case UV_ECONNABORTED:
    case UV_EPIPE:
        return ERR_CLOSED;
    case UV_EACCES:
    case UV_EPERM:
        return ERR_DENIED;
    default:
        return ERR_IO;
    }
}

/* -- waiting for a turn -- */

static void leave_turn(struct tcp *c) {
    if (c->waiting == WAITING_RESUMED)
        list_remove(&c->loop->tcp_resumed, &c->turn);
    else if (c->waiting == WAITING_FULL)
        list_remove(&c->loop->tcp_full, &c->turn);
    c->waiting = WAITING_NOT;
}

void tcp_wait_for_turn(struct tcp *c, enum tcp_waiting waiting) {
    leave_turn(c);
    c->waiting = waiting;
    list_push_back(waiting == WAITING_RESUMED ? &c->loop->tcp_resumed : &c->loop->tcp_full, &c->turn);
    if (waiting == WAITING_RESUMED)
        loop_turn_soon(c->loop);
}

/* -- the read buffer -- */

static void give_back(struct tcp *c) {
    c->in.mem = NULL;
    c->in.start = c->in.end = c->in.cap = 0;
}

void tcp_in_borrow(struct tcp *c) {
    buf_deinit(&c->in);
    c->in.mem = c->loop->lent;
    c->in.cap = c->in.max < LOOP_LENT_SIZE ? c->in.max : LOOP_LENT_SIZE;
}

int tcp_in_settle(struct tcp *c) {
    struct span left = buf_span(&c->in);
    if (tcp_in_is_lent(c)) {
        give_back(c);
        buf_add(&c->in, left);
    } else if (left.len == 0) {
        buf_deinit(&c->in);
    }
    return c->in.err;
}

void tcp_in_drop(struct tcp *c) {
    if (tcp_in_is_lent(c))
        give_back(c);
    buf_deinit(&c->in);
}

/* -- events -- */

static void release(uv_handle_t *h) {
    struct tcp *c = (struct tcp *)h;
    leave_turn(c);
    tcp_in_drop(c);
    buf_deinit(&c->out);
    buf_deinit(&c->flying);
    tls_free(c->tls);
    free(c);
}

static void close_now(struct tcp *c) {
    leave_turn(c);
    if (c->timer)
        loop_timer_close(c->timer);
    c->timer = NULL;
    loop_close_handle(&c->uv.handle);
}

bool tcp_emit(struct tcp *c, enum tcp_event event, int err) {
    if (c->finishing || tcp_is_closing(c))
        return false;
    c->cb(c->arg, c, event, err);
    return !tcp_is_closing(c) && !c->finishing;
}

void tcp_fail(struct tcp *c, int err) {
    if (c->failed)
        return;
    c->failed = c->broken = c->eof = true;
    leave_turn(c);
    uv_read_stop(&c->uv.stream);
    tcp_emit(c, TCP_FAILED, err);
}

/* -- reading -- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *room) {
    struct tcp *c = (struct tcp *)h;
    (void)suggested;
    if (c->finishing || c->tls) {
        *room = uv_buf_init(c->loop->lent, c->finishing ? LOOP_LENT_SIZE : (unsigned)tcp_tls_room(c));
        return;
    }
    if (buf_len(&c->in) == 0) {
        tcp_in_borrow(c);
    } else {
        size_t left = c->in.max - buf_len(&c->in);
        if (!buf_reserve(&c->in, left < READ_MIN ? left : READ_MIN)) {
            *room = uv_buf_init(NULL, 0); /* libuv reports it as UV_ENOBUFS */
            return;
        }
    }
    *room = uv_buf_init(c->in.mem + c->in.end, (unsigned)(c->in.cap - c->in.end));
}

static void on_end(struct tcp *c, ssize_t status) {
    if (c->finishing) {
        close_now(c);
    } else if (tcp_in_settle(c)) {
        tcp_fail(c, ERR_NOMEM);
    } else if (status == UV_EOF && c->tls) {
        tcp_tls_on_eof(c);
    } else if (status == UV_EOF) {
        c->eof = true;
        uv_read_stop(&c->uv.stream);
        tcp_emit(c, TCP_EOF, ERR_OK);
    } else {
        tcp_fail(c, err_of_uv((int)status));
    }
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *room) {
    struct tcp *c = (struct tcp *)stream;
    if (tcp_is_closing(c))
        return;
    if (got < 0) {
        on_end(c, got);
        return;
    }
    if (c->finishing)
        return;
    if (c->tls) {
        tcp_tls_on_read(c, span_make(room->base, (size_t)got));
        return;
    }
    c->in.end += (size_t)got;
    if (got > 0)
        tcp_emit(c, TCP_READ, ERR_OK);
    if (tcp_is_closing(c))
        return;
    if (c->finishing)
        tcp_in_drop(c);
    else if (tcp_in_settle(c))
        tcp_fail(c, ERR_NOMEM);
    else if (!c->paused && buf_len(&c->in) >= c->in.max)
        tcp_start_reading(c); /* which finds it full, and lets it wait for room */
}

void tcp_start_reading(struct tcp *c) {
    if (c->paused || c->eof || !c->started)
        return;
    if (buf_len(&c->in) >= c->in.max) {
        uv_read_stop(&c->uv.stream);
        tcp_wait_for_turn(c, WAITING_FULL);
        return;
    }
    if (c->tls_ended)
        return;
    int status = uv_read_start(&c->uv.stream, on_alloc, on_read);
    if (status && status != UV_EALREADY) {
        c->pending_err = err_of_uv(status);
        tcp_wait_for_turn(c, WAITING_RESUMED);
    }
}

void tcp_pause(struct tcp *c) {
    c->paused = true;
    if (!c->pending_err)
        leave_turn(c);
    uv_read_stop(&c->uv.stream);
}

void tcp_resume(struct tcp *c) {
    if (c->finishing || tcp_is_closing(c))
        return;
    c->paused = false;
    tcp_wait_for_turn(c, WAITING_RESUMED);
}

struct buf *tcp_in(struct tcp *c) {
    return &c->in;
}

static void take_turn(struct tcp *c) {
    if (c->pending_err) {
        tcp_fail(c, c->pending_err);
        return;
    }
    if (buf_len(&c->in) && !tcp_emit(c, TCP_READ, ERR_OK))
        return;
    tcp_in_settle(c);
    if (c->tls && !tcp_tls_pump(c))
        return;
    if (c->waiting == WAITING_NOT)
        tcp_start_reading(c);
}

static bool on_turn(void *arg) {
    struct loop *l = arg;
    struct list_node *node;
    for (size_t n = l->tcp_resumed.count; n && (node = list_first(&l->tcp_resumed)); n--) {
        struct tcp *c = LIST_ENTRY(node, struct tcp, turn);
        leave_turn(c);
        take_turn(c);
    }
    for (size_t n = l->tcp_full.count; n && (node = list_first(&l->tcp_full)); n--) {
        struct tcp *c = LIST_ENTRY(node, struct tcp, turn);
        leave_turn(c);
        if (buf_len(&c->in) >= c->in.max)
            tcp_wait_for_turn(c, WAITING_FULL);
        else if (!c->tls || (tcp_tls_pump(c) && c->waiting == WAITING_NOT))
            tcp_start_reading(c);
    }
    return !list_is_empty(&l->tcp_resumed);
}

/* -- writing -- */

static void send_flying(struct tcp *c);

size_t tcp_queued(const struct tcp *c) {
    return uv_stream_get_write_queue_size(&c->uv.stream) + buf_len(&c->out);
}

static void end_our_side(struct tcp *c) {
    uv_os_fd_t fd;
    if (c->eof || c->broken || uv_fileno(&c->uv.handle, &fd) || shutdown(fd, SHUT_WR)) {
        close_now(c);
        return;
    }
    c->ended = true;
    if (c->timer)
        loop_timer_set(c->timer, LINGER_MS);
    c->paused = false;
    if (uv_read_start(&c->uv.stream, on_alloc, on_read))
        close_now(c);
}

static void on_written(uv_write_t *request, int status) {
    struct tcp *c = CONTAINER_OF(request, struct tcp, write);
    if (tcp_is_closing(c))
        return;
    c->writing = false;
    buf_deinit(&c->flying);
    if (status) {
        buf_deinit(&c->out);
        c->broken = true;
        if (c->finishing)
            close_now(c);
        else
            tcp_fail(c, err_of_uv(status));
    } else if (buf_len(&c->out)) {
        send_flying(c);
    } else if (c->finishing) {
        end_our_side(c);
    } else if (!c->tls || c->secured) {
        tcp_emit(c, TCP_DRAINED, ERR_OK);
    }
}

/* Gives all that is gathered in `out` to libuv. */
static void send_flying(struct tcp *c) {
    struct buf empty = c->flying;
    c->flying = c->out;
    c->out = empty;
    struct span bytes = buf_span(&c->flying);
    uv_buf_t piece = uv_buf_init((char *)bytes.at, (unsigned)bytes.len);
    c->writing = true;
    int status = uv_write(&c->write, &c->uv.stream, &piece, 1, on_written);
    if (status) { /* only for a handle that is no stream any more */
        c->writing = false;
        c->broken = true;
        buf_deinit(&c->flying);
        c->pending_err = err_of_uv(status);
        tcp_wait_for_turn(c, WAITING_RESUMED);
    }
}

/* What the kernel takes at once; < 0: an err code. */
static ssize_t try_write(struct tcp *c, const struct span *pieces, size_t count) {
    uv_buf_t bufs[PIECES_MAX];
    size_t used = 0;
    for (size_t i = 0; i < count && used < PIECES_MAX; i++) {
        if (pieces[i].len)
            bufs[used++] = uv_buf_init((char *)pieces[i].at, (unsigned)pieces[i].len);
    }
    int sent = used ? uv_try_write(&c->uv.stream, bufs, (unsigned)used) : 0;
    if (sent == UV_EAGAIN)
        return 0;
    return sent < 0 ? err_of_uv(sent) : sent;
}

static size_t total_of(const struct span *pieces, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += pieces[i].len;
    return total;
}

int tcp_send(struct tcp *c, const struct span *pieces, size_t count) {
    size_t sent = 0, total = total_of(pieces, count);
    if (!c->writing) {
        ssize_t taken = try_write(c, pieces, count);
        if (taken < 0) {
            c->broken = true;
            return ERR_CLOSED;
        }
        sent = (size_t)taken;
        if (sent == total)
            return ERR_OK;
    }
    for (size_t i = 0; i < count; i++) {
        size_t skip = sent < pieces[i].len ? sent : pieces[i].len;
        sent -= skip;
        buf_add(&c->out, span_from(pieces[i], skip));
    }
    if (c->out.err) {
        c->broken = true;
        return c->out.err;
    }
    if (!c->writing)
        send_flying(c);
    return ERR_OK;
}

int tcp_writev(struct tcp *c, const struct span *pieces, size_t count) {
    size_t total = total_of(pieces, count);
    if (c->broken || c->finishing || tcp_is_closing(c))
        return ERR_CLOSED;
    if (c->tls && !c->secured)
        return ERR_AGAIN;
    size_t queued = tcp_queued(c);
    if (total > c->out_max || queued > c->out_max - total)
        return ERR_FULL;
    return c->tls ? tcp_tls_write(c, pieces, count) : tcp_send(c, pieces, count);
}

int tcp_write(struct tcp *c, const void *bytes, size_t len) {
    struct span piece = span_make(bytes, len);
    return tcp_writev(c, &piece, 1);
}

/* -- making -- */

static struct tcp *tcp_new(struct loop *l, int family) {
    if (!l->tcp_hook) {
        l->tcp_hook = loop_hook_new(l, on_turn, NULL, l);
        if (!l->tcp_hook)
            return NULL;
    }
    struct tcp *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->loop = l;
    int status =
        family == AF_UNIX ? uv_pipe_init(&l->uv, &c->uv.pipe, 0) : uv_tcp_init_ex(&l->uv, &c->uv.tcp, (unsigned)family);
    if (status) {
        free(c);
        return NULL;
    }
    loop_set_release(&c->uv.handle, release);
    return c;
}

static void set_bounds(struct tcp *c, size_t in_max, size_t out_max, tcp_cb cb, void *arg) {
    CHECK(in_max > 0);
    buf_init(&c->in, in_max);
    buf_init(&c->out, out_max);
    buf_init(&c->flying, out_max);
    c->out_max = c->out.max;
    c->cb = cb;
    c->arg = arg;
}

static void on_connected(uv_connect_t *request, int status) {
    struct tcp *c = request->data;
    free(request);
    if (tcp_is_closing(c))
        return;
    if (c->finishing) {
        if (status || tcp_queued(c) == 0)
            close_now(c);
        return;
    }
    if (status || c->failed) { /* failed: the TLS of a client that could not even begin */
        tcp_fail(c, err_of_uv(status));
        return;
    }
    c->started = true;
    if (tcp_emit(c, TCP_CONNECTED, ERR_OK))
        tcp_start_reading(c);
}

static int connect_from(struct tcp *c, const struct tcp_addr *local) {
    uv_os_fd_t fd;
    int on = 1;
    /* The kernel then picks the port at connect, when it knows the other end, and runs out of none. */
    if (uv_fileno(&c->uv.handle, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return uv_tcp_bind(&c->uv.tcp, (const struct sockaddr *)&local->storage, 0);
}

struct tcp *tcp_connect(struct loop *l, const struct tcp_addr *to, const struct tcp_addr *local, size_t in_max,
                        size_t out_max, tcp_cb cb, void *arg) {
    uv_connect_t *request = malloc(sizeof *request);
    struct tcp *c = request ? tcp_new(l, to->storage.ss_family) : NULL;
    if (!c) {
        free(request);
        return NULL;
    }
    set_bounds(c, in_max, out_max, cb, arg);
    c->peer = *to;
    request->data = c;
    int status = 0;
    if (to->storage.ss_family == AF_UNIX) {
        const struct sockaddr_un *sun = (const struct sockaddr_un *)&to->storage;
        uv_pipe_connect(request, &c->uv.pipe, sun->sun_path, on_connected);
    } else {
        (void)uv_tcp_nodelay(&c->uv.tcp, 1);
        status = local ? connect_from(c, local) : 0;
        if (!status)
            status = uv_tcp_connect(request, &c->uv.tcp, (const struct sockaddr *)&to->storage, on_connected);
    }
    if (status) {
        free(request);
        c->broken = true;
        c->pending_err = err_of_uv(status);
        tcp_wait_for_turn(c, WAITING_RESUMED);
    }
    return c;
}

struct tcp *tcp_adopt(struct loop *l, int fd, const struct tcp_addr *peer) {
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    name.ss_family = AF_INET;
    if (peer)
        name.ss_family = peer->storage.ss_family;
    else
        (void)getsockname(fd, (struct sockaddr *)&name, &len);
    struct tcp *c = tcp_new(l, name.ss_family == AF_UNIX ? AF_UNIX : AF_UNSPEC);
    if (!c) {
        close(fd);
        return NULL;
    }
    int status = name.ss_family == AF_UNIX ? uv_pipe_open(&c->uv.pipe, fd) : uv_tcp_open(&c->uv.tcp, fd);
    if (status) {
        close(fd);
        loop_close_handle(&c->uv.handle);
        return NULL;
    }
    if (peer)
        c->peer = *peer;
    return c;
}

int tcp_start(struct tcp *c, size_t in_max, size_t out_max, tcp_cb cb, void *arg) {
    CHECK(!c->started && !c->cb);
    set_bounds(c, in_max, out_max, cb, arg);
    c->started = true;
    tcp_start_reading(c);
    return ERR_OK;
}

/* -- the end -- */

static void on_finish_timeout(void *arg) {
    close_now(arg);
}

void tcp_finish(struct tcp *c, uint64_t timeout_ms) {
    if (c->finishing || tcp_is_closing(c))
        return;
    leave_turn(c);
    if (c->secured && !c->broken)
        tcp_tls_end(c);
    c->finishing = true;
    c->cb = NULL;
    uv_read_stop(&c->uv.stream);
    c->timer = loop_timer_new(c->loop, on_finish_timeout, c);
    bool connecting = !c->started && c->uv.stream.connect_req;
    if (!c->timer || c->pending_err || c->broken) {
        close_now(c);
        return;
    }
    loop_timer_set(c->timer, timeout_ms);
    if (!c->writing && !connecting)
        end_our_side(c);
}

void tcp_close(struct tcp *c) {
    c->cb = NULL;
    close_now(c);
}

const struct tcp_addr *tcp_peer(const struct tcp *c) {
    return &c->peer;
}

const struct tcp_addr *tcp_local(const struct tcp *c) {
    struct tcp *known = (struct tcp *)c; /* asked of the kernel once, when first needed */
    uv_os_fd_t fd;
    if (c->local.len == 0 && uv_fileno(&c->uv.handle, &fd) == 0) {
        known->local.len = sizeof known->local.storage;
        if (getsockname(fd, (struct sockaddr *)&known->local.storage, &known->local.len))
            known->local.len = 0;
    }
    return &c->local;
}
