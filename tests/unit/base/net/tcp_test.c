/* tcp: real sockets on loopback: echo, both kinds of back-pressure, refusal, ends, limits, memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/net/tcp.h"

enum { MIB = 1 << 20 };

/* A server and a client on one loop; each test sets what the two sides do. */
struct side {
    struct world *world;
    struct tcp *c;
    void (*on_event)(struct side *s, enum tcp_event event, int err);
    size_t got, sent, most;
    int reads, drained, eofs, failures, connects, last_err;
};
struct world {
    struct loop *loop;
    struct loop_timer *guard, *timer;
    struct tcp_listener *listener;
    struct tcp_addr addr;
    struct side server, client;
    size_t in_max, out_max, goal, accepted;
    uint64_t finish_ms;
    bool timed_out, hold;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct side *s = arg;
    assert_ptr_equal(s->c, c);
    s->connects += event == TCP_CONNECTED;
    s->reads += event == TCP_READ;
    s->drained += event == TCP_DRAINED;
    s->eofs += event == TCP_EOF;
    s->failures += event == TCP_FAILED;
    s->last_err = err;
    if (s->on_event)
        s->on_event(s, event, err);
}

static void on_accept(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct world *w = arg;
    assert_true(tcp_addr_is_loopback(peer));
    w->accepted++;
    w->server.c = c;
    if (!w->hold)
        assert_int_equal(tcp_start(c, w->in_max, w->out_max, on_event, &w->server), ERR_OK);
}

static struct world *world_of(const char *address) {
    struct world *w = calloc(1, sizeof *w);
    w->in_max = w->out_max = 64 * 1024;
    w->server.world = w->client.world = w;
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    assert_int_equal(tcp_addr_parse(&w->addr, span_of(address), 0), ERR_OK);
    int fd = tcp_bind(&w->addr, false);
    assert_true(fd >= 0);
    w->addr.len = sizeof w->addr.storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&w->addr.storage, &w->addr.len), 0);
    w->listener = tcp_listen(w->loop, fd, 128, on_accept, w);
    assert_non_null(w->listener);
    return w;
}

static struct world *world_new(void) {
    return world_of("127.0.0.1");
}

static void connect_client(struct world *w) {
    w->client.c = tcp_connect(w->loop, &w->addr, NULL, w->in_max, w->out_max, on_event, &w->client);
    assert_non_null(w->client.c);
    assert_int_equal(w->client.connects, 0);
}

static void run(struct world *w) {
    loop_timer_set(w->guard, 20000);
    loop_run(w->loop);
    assert_false(w->timed_out);
}

/* Lets the loop turn for a while. */
static void run_for(struct world *w, uint64_t ms) {
    loop_timer_set(w->guard, ms);
    loop_run(w->loop);
    w->timed_out = false;
}

static void world_free(struct world *w) {
    if (w->listener)
        tcp_listener_close(w->listener);
    if (w->client.c)
        tcp_close(w->client.c);
    if (w->server.c)
        tcp_close(w->server.c);
    loop_free(w->loop);
    free(w);
}

static char pattern(size_t at) {
    return (char)(at * 31 + at / 251);
}

static void close_side(struct side *s) {
    tcp_close(s->c);
    s->c = NULL;
}

/* Checks and consumes what has come. */
static void take_pattern(struct side *s, size_t most) {
    struct buf *in = tcp_in(s->c);
    struct span bytes = span_first(buf_span(in), most);
    for (size_t i = 0; i < bytes.len; i++)
        assert_int_equal(bytes.at[i], pattern(s->got + i));
    s->got += bytes.len;
    buf_consume(in, bytes.len);
}

/* Writes the pattern until the goal or until the queue is full. */
static void pump(struct side *s) {
    char piece[5000];
    while (s->sent < s->world->goal) {
        size_t len = s->world->goal - s->sent < sizeof piece ? s->world->goal - s->sent : sizeof piece;
        for (size_t i = 0; i < len; i++)
            piece[i] = pattern(s->sent + i);
        struct span pieces[] = {{piece, len / 3}, {NULL, 0}, {piece + len / 3, len - len / 3}};
        int err = tcp_writev(s->c, pieces, 3);
        if (err == ERR_FULL)
            break;
        assert_int_equal(err, ERR_OK);
        s->sent += len;
    }
    if (tcp_queued(s->c) > s->most)
        s->most = tcp_queued(s->c);
}

/* -- echo -- */

static void echo(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_EOF) {
        tcp_finish(s->c, 1000);
        s->c = NULL;
        return;
    }
    struct buf *in = tcp_in(s->c);
    struct span bytes = buf_span(in);
    size_t room = s->world->out_max - tcp_queued(s->c);
    bytes = span_first(bytes, room);
    assert_int_equal(tcp_write(s->c, bytes.at, bytes.len), ERR_OK);
    buf_consume(in, bytes.len);
}

static void echo_client(struct side *s, enum tcp_event event, int err) {
    (void)err;
    assert_true(event == TCP_CONNECTED || event == TCP_READ || event == TCP_DRAINED);
    take_pattern(s, SIZE_MAX);
    pump(s);
    if (s->got == s->world->goal)
        loop_stop(s->world->loop);
}

static void echo_over(const char *address) {
    struct world *w = world_of(address);
    w->goal = 4 * MIB;
    w->server.on_event = echo;
    w->client.on_event = echo_client;
    connect_client(w);
    run(w);
    assert_int_equal(w->client.got, 4 * MIB);
    assert_true(w->client.most <= w->out_max);
    assert_true(tcp_addr_same_ip(tcp_peer(w->client.c), &w->addr) || w->addr.storage.ss_family == AF_UNIX);
    if (w->addr.storage.ss_family != AF_UNIX) {
        assert_int_equal(tcp_addr_port(tcp_peer(w->server.c)), tcp_addr_port(tcp_local(w->client.c)));
        assert_int_equal(tcp_addr_port(tcp_local(w->server.c)), tcp_addr_port(&w->addr));
    }
    close_side(&w->client);
    while (w->server.c) /* the end of the client ends the server's side */
        run_for(w, 10);
    world_free(w);
}

static void echoes_over_each_family(void **state) {
    (void)state;
    char path[64];
    echo_over("127.0.0.1");
    echo_over("::1");
    snprintf(path, sizeof path, "unix:/tmp/posthouse_tcp_%d", (int)getpid());
    echo_over(path);
    echo_over(path); /* the file of the first, which is dead, is replaced */
    unlink(path + 5);
}

/* -- back-pressure -- */

static void pump_when_drained(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_CONNECTED || event == TCP_DRAINED)
        pump(s);
}

static void stop_at_goal(struct side *s, enum tcp_event event, int err) {
    (void)err;
    assert_int_equal(event, TCP_READ);
    take_pattern(s, SIZE_MAX);
    if (s->got == s->world->goal)
        loop_stop(s->world->loop);
}

static void a_slow_reader_stops_the_writer(void **state) {
    (void)state;
    struct world *w = world_new();
    w->hold = true; /* the server accepts and does not read */
    w->goal = 32 * MIB;
    w->client.on_event = pump_when_drained;
    w->server.on_event = stop_at_goal;
    connect_client(w);
    run_for(w, 300);
    assert_true(w->client.sent < 16 * MIB);
    assert_true(w->client.most > 0 && w->client.most <= w->out_max);
    char byte = 0;
    assert_int_equal(tcp_write(w->client.c, &byte, SIZE_MAX), ERR_FULL);
    assert_int_equal(tcp_start(w->server.c, w->in_max, w->out_max, on_event, &w->server), ERR_OK);
    run(w);
    assert_int_equal(w->server.got, w->goal);
    assert_true(w->client.drained > 0);
    assert_int_equal(tcp_queued(w->client.c), 0);
    world_free(w);
}

static void keep_all(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_READ && buf_len(tcp_in(s->c)) > s->most)
        s->most = buf_len(tcp_in(s->c));
}

static void take_some(void *arg) {
    struct world *w = arg;
    take_pattern(&w->server, 1 + w->server.got % 9001); /* outside of any callback of the connection */
    if (w->server.got == w->goal)
        loop_stop(w->loop);
    else
        loop_timer_set(w->timer, 0);
}

static void reading_pauses_at_in_max_and_goes_on_with_room(void **state) {
    (void)state;
    struct world *w = world_new();
    w->in_max = 10000;
    w->goal = MIB;
    w->client.on_event = pump_when_drained;
    w->server.on_event = keep_all;
    connect_client(w);
    run_for(w, 200);
    assert_int_equal(w->server.most, 10000);
    int reads = w->server.reads;
    run_for(w, 100);
    assert_int_equal(w->server.reads, reads); /* full: it really stands still */
    w->timer = loop_timer_new(w->loop, take_some, w);
    loop_timer_set(w->timer, 0);
    run(w);
    assert_int_equal(w->server.got, MIB);
    assert_int_equal(w->server.most, 10000);
    world_free(w);
}

static void pause_after_first(struct side *s, enum tcp_event event, int err) {
    (void)err;
    assert_int_equal(event, TCP_READ);
    take_pattern(s, s->reads == 1 ? 10 : SIZE_MAX);
    tcp_pause(s->c);
}

static void pause_holds_and_resume_brings_old_bytes(void **state) {
    (void)state;
    struct world *w = world_new();
    w->goal = 30;
    w->server.on_event = pause_after_first;
    w->client.on_event = pump_when_drained;
    connect_client(w);
    run_for(w, 100);
    assert_int_equal(w->server.reads, 1);
    assert_int_equal(buf_len(tcp_in(w->server.c)), 20);
    w->goal = 40;
    pump(&w->client);
    run_for(w, 100);
    assert_int_equal(w->server.reads, 1);
    tcp_resume(w->server.c);
    assert_int_equal(w->server.reads, 1); /* not inside the call */
    run_for(w, 100);
    assert_int_equal(w->server.reads, 2); /* the old bytes; the callback paused again */
    assert_int_equal(w->server.got, 30);
    tcp_resume(w->server.c);
    tcp_pause(w->server.c);
    run_for(w, 50);
    assert_int_equal(w->server.reads, 2);
    tcp_resume(w->server.c);
    run_for(w, 100);
    assert_int_equal(w->server.reads, 3);
    assert_int_equal(w->server.got, 40);
    world_free(w);
}

/* -- ends and failures -- */

static void stop_on_failure(struct side *s, enum tcp_event event, int err) {
    (void)err;
    assert_int_equal(event, TCP_FAILED);
    close_side(s);
    loop_stop(s->world->loop);
}

static void a_refused_connect_fails(void **state) {
    (void)state;
    struct world *w = world_new();
    tcp_listener_close(w->listener);
    w->listener = NULL;
    w->client.on_event = stop_on_failure;
    connect_client(w);
    assert_int_equal(tcp_write(w->client.c, "x", 1), ERR_OK); /* waits for the connect, goes with it */
    run(w);
    assert_int_equal(w->client.failures, 1);
    assert_int_equal(w->client.last_err, ERR_UNREACHABLE);
    struct tcp_addr from; /* fails at once inside the kernel, and yet not inside the call */
    assert_int_equal(tcp_addr_parse(&from, SPAN("192.0.2.77"), 0), ERR_OK);
    w->client.c = tcp_connect(w->loop, &w->addr, &from, 100, 100, on_event, &w->client);
    assert_int_equal(w->client.failures, 1);
    assert_int_equal(tcp_write(w->client.c, "x", 1), ERR_CLOSED);
    run(w);
    assert_int_equal(w->client.failures, 2);
    assert_int_equal(w->client.last_err, ERR_UNREACHABLE);
    world_free(w);
}

static void a_chosen_source_address_is_used(void **state) {
    (void)state;
    struct world *w = world_new();
    struct tcp_addr from;
    assert_int_equal(tcp_addr_parse(&from, SPAN("127.0.0.9"), 0), ERR_OK);
    w->client.c = tcp_connect(w->loop, &w->addr, &from, 100, 100, on_event, &w->client);
    run_for(w, 100);
    assert_int_equal(w->client.connects, 1);
    assert_true(tcp_addr_same_ip(tcp_peer(w->server.c), &from));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    close(fd);
    int on = 0;
    socklen_t len = sizeof on;
    for (int i = 3; i < fd; i++) { /* every stream socket of the loop has Nagle's algorithm off */
        struct sockaddr_in sin;
        socklen_t sin_len = sizeof sin;
        if (getpeername(i, (struct sockaddr *)&sin, &sin_len) == 0 && sin.sin_family == AF_INET) {
            assert_int_equal(getsockopt(i, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
            assert_true(on);
        }
    }
    world_free(w);
}

static void on_eof_answer(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_EOF) {
        assert_int_equal(tcp_write(s->c, "late", 4), ERR_OK); /* a half-closed peer still hears us */
        loop_stop(s->world->loop);
    }
}

static void eof_leaves_the_other_way_open(void **state) {
    (void)state;
    struct world *w = world_new();
    w->server.on_event = on_eof_answer;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w->addr.storage, w->addr.len), 0);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    run(w);
    assert_int_equal(w->server.eofs, 1);
    char text[8] = "";
    assert_int_equal(read(fd, text, sizeof text), 4);
    assert_string_equal(text, "late");
    struct linger hard = {1, 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(fd); /* a reset */
    run_for(w, 50);
    int err = ERR_OK;
    for (int i = 0; i < 10 && err == ERR_OK; i++)
        err = tcp_write(w->server.c, "x", 1);
    assert_int_equal(err, ERR_CLOSED);
    world_free(w);
}

static void a_reset_fails_the_stream(void **state) {
    (void)state;
    struct world *w = world_new();
    w->server.on_event = stop_on_failure;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w->addr.storage, w->addr.len), 0);
    run_for(w, 50);
    struct linger hard = {1, 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(fd);
    run(w);
    assert_int_equal(w->server.failures, 1);
    assert_int_equal(w->server.last_err, ERR_CLOSED);
    world_free(w);
}

static void write_and_finish(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event != TCP_READ)
        return;
    pump(s);
    assert_int_equal(s->sent, s->world->goal);
    assert_true(tcp_queued(s->c) > 0);
    tcp_finish(s->c, s->world->finish_ms); /* with bytes unread, which must not become a reset */
    s->c = NULL;
}

static void client_reads_to_the_end(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_CONNECTED) {
        assert_int_equal(tcp_write(s->c, "go, and more that is never read", 31), ERR_OK);
        tcp_pause(s->c);
        return;
    }
    take_pattern(s, SIZE_MAX);
    if (event == TCP_EOF) {
        close_side(s);
        loop_stop(s->world->loop);
    } else {
        assert_int_equal(event, TCP_READ);
        s->last_err = tcp_write(s->c, "chatter", 7); /* nobody reads it: it may fail */
    }
}

static void finish_sends_all_before_it_closes(void **state) {
    (void)state;
    struct world *w = world_new();
    w->goal = w->out_max = 24 * MIB; /* more than the kernel takes at once */
    w->finish_ms = 10000;
    w->server.on_event = write_and_finish;
    w->client.on_event = client_reads_to_the_end;
    connect_client(w);
    run_for(w, 200);
    assert_null(w->server.c);
    tcp_resume(w->client.c);
    run(w);
    assert_int_equal(w->client.got, w->goal);
    assert_int_equal(w->client.eofs, 1);
    world_free(w);
}

static void finish_gives_up_after_its_time(void **state) {
    (void)state;
    struct world *w = world_new();
    w->goal = w->out_max = 24 * MIB;
    w->finish_ms = 200;
    w->server.on_event = write_and_finish;
    w->client.on_event = client_reads_to_the_end; /* pauses, and is never resumed */
    connect_client(w);
    run_for(w, 100);
    assert_null(w->server.c);
    tcp_listener_close(w->listener);
    w->listener = NULL;
    loop_timer_stop(w->guard);
    uint64_t begin = loop_now_ms(w->loop);
    loop_run(w->loop); /* ends when only the paused client is left */
    assert_true(loop_now_ms(w->loop) - begin < 5000);
    tcp_resume(w->client.c);
    run(w);
    assert_true(w->client.got < w->goal);
    world_free(w);
}

static void finish_while_connecting_still_sends(void **state) {
    (void)state;
    struct world *w = world_new();
    tcp_listener_close(w->listener);
    w->listener = NULL;
    int fd = tcp_bind(&w->addr, false);
    assert_true(fd >= 0);
    assert_int_equal(listen(fd, 4), 0);
    for (w->goal = 0; w->goal <= 5; w->goal += 5) { /* nothing to send, then something */
        connect_client(w);
        pump(&w->client);
        tcp_finish(w->client.c, 1000);
        w->client.c = NULL;
        run_for(w, 50);
        int peer = accept(fd, NULL, NULL);
        char text[16];
        assert_int_equal(recv(peer, text, sizeof text, MSG_WAITALL), w->goal); /* up to the end of the stream */
        close(peer);
    }
    close(fd);
    assert_int_equal(w->client.connects, 0);
    world_free(w);
}

static void close_in_read(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_READ) {
        struct span seen = buf_span(tcp_in(s->c));
        close_side(s);
        assert_true(seen.len > 0);
        loop_stop(s->world->loop);
    }
}

static void may_be_closed_in_its_own_callback(void **state) {
    (void)state;
    struct world *w = world_new();
    w->goal = 100000;
    w->server.on_event = close_in_read;
    w->client.on_event = pump_when_drained;
    connect_client(w);
    run(w);
    assert_int_equal(w->server.reads, 1);
    world_free(w);
}

/* -- listener -- */

static void close_listener(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct world *w = arg;
    (void)peer;
    tcp_close(c);
    w->accepted++;
    tcp_listener_close(w->listener);
    w->listener = NULL;
    loop_stop(w->loop);
}

static void listener_may_close_itself(void **state) {
    (void)state;
    struct world *w = world_new();
    tcp_listener_close(w->listener);
    int fd = tcp_bind(&w->addr, false); /* the same port, free again */
    assert_true(fd >= 0);
    w->listener = tcp_listen(w->loop, fd, 16, close_listener, w);
    assert_non_null(w->listener);
    assert_int_equal(tcp_bind(&w->addr, false), ERR_EXISTS);
    connect_client(w);
    run(w);
    assert_int_equal(w->accepted, 1);
    world_free(w);
    struct tcp_addr foreign;
    assert_int_equal(tcp_addr_parse(&foreign, SPAN("192.0.2.77"), 0), ERR_OK);
    assert_int_equal(tcp_bind(&foreign, false), ERR_UNREACHABLE);
}

static void without_descriptors_clients_wait(void **state) {
    (void)state;
    struct world *w = world_new();
    struct rlimit old, few;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = (rlim_t)fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w->addr.storage, w->addr.len), 0);
    fflush(stderr);
    run_for(w, 350);
    assert_int_equal(w->accepted, 0);
    assert_null(tcp_connect(w->loop, &w->addr, NULL, 100, 100, on_event, &w->client));
    assert_int_equal(tcp_bind(&w->addr, false), ERR_FULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    run_for(w, 350);
    assert_int_equal(w->accepted, 1);
    close(fd);
    world_free(w);
}

/* -- memory -- */

enum { IDLE = 1000 };

static void collect(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct tcp ***next = arg;
    (void)peer;
    *(*next)++ = c;
}

static void answer(void *arg, struct tcp *c, enum tcp_event event, int err) {
    (void)arg;
    (void)err;
    if (event == TCP_READ) {
        assert_int_equal(tcp_write(c, "250 OK\r\n", 8), ERR_OK);
        buf_consume(tcp_in(c), buf_len(tcp_in(c)));
    }
}

static void an_idle_connection_costs_little(void **state) {
    (void)state;
    struct world *w = world_new();
    struct tcp *all[IDLE], **next = all;
    int fds[IDLE];
    tcp_listener_close(w->listener);
    int fd = tcp_bind(&w->addr, false);
    w->listener = tcp_listen(w->loop, fd, IDLE, collect, &next);
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < IDLE; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&w->addr.storage, w->addr.len), 0);
        if (i % 100 == 99)
            run_for(w, 5);
    }
    while (next < all + IDLE)
        run_for(w, 5);
    for (int i = 0; i < IDLE; i++)
        assert_int_equal(tcp_start(all[i], 256 * 1024, 256 * 1024, answer, NULL), ERR_OK);
    for (int round = 0; round < 2; round++) { /* each has talked, then is idle */
        for (int i = 0; i < IDLE; i++)
            assert_int_equal(write(fds[i], "EHLO there\r\n", 12), 12);
        run_for(w, 20);
    }
    char text[64];
    for (int i = 0; i < IDLE; i++)
        assert_int_equal(recv(fds[i], text, sizeof text, MSG_DONTWAIT), 16);
    size_t each = (mallinfo2().uordblks - before) / IDLE;
    if (each > 2048)
        fail_msg("%zu bytes for an idle connection", each);
    for (int i = 0; i < IDLE; i++) {
        tcp_close(all[i]);
        close(fds[i]);
    }
    world_free(w);
}

static void reads_what_an_adopted_pair_sends(void **state) {
    (void)state;
    struct world *w = world_new();
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    w->goal = 5;
    w->server.on_event = stop_at_goal;
    w->server.c = tcp_adopt(w->loop, fds[0], NULL);
    assert_non_null(w->server.c);
    assert_int_equal(tcp_start(w->server.c, 1, 1, on_event, &w->server), ERR_OK); /* the smallest of all buffers */
    for (size_t i = 0; i < 5; i++) {
        char byte = pattern(i);
        assert_int_equal(write(fds[1], &byte, 1), 1);
    }
    run(w);
    assert_int_equal(w->server.reads, 5);
    close(fds[1]);
    world_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echoes_over_each_family),
        cmocka_unit_test(a_slow_reader_stops_the_writer),
        cmocka_unit_test(reading_pauses_at_in_max_and_goes_on_with_room),
        cmocka_unit_test(pause_holds_and_resume_brings_old_bytes),
        cmocka_unit_test(a_refused_connect_fails),
        cmocka_unit_test(a_chosen_source_address_is_used),
        cmocka_unit_test(eof_leaves_the_other_way_open),
        cmocka_unit_test(a_reset_fails_the_stream),
        cmocka_unit_test(finish_sends_all_before_it_closes),
        cmocka_unit_test(finish_gives_up_after_its_time),
        cmocka_unit_test(finish_while_connecting_still_sends),
        cmocka_unit_test(may_be_closed_in_its_own_callback),
        cmocka_unit_test(listener_may_close_itself),
        cmocka_unit_test(without_descriptors_clients_wait),
        cmocka_unit_test(an_idle_connection_costs_little),
        cmocka_unit_test(reads_what_an_adopted_pair_sends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
