/* tcp_tls: TLS on real sockets: handshakes, back-pressure, ends, injection, hostile peers, memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/net/tcp.h"
#include "base/net/tls.h"

#include "tests/unit/base/net/tls_certs.h"

enum { MIB = 1 << 20 };

static struct authority good;
static struct tls_server *server;
static struct tls_client *client, *strict;

/* A server and a client on one loop; each test sets what the two sides do. */
struct side {
    struct world *world;
    struct tcp *c;
    void (*on_event)(struct side *s, enum tcp_event event, int err);
    size_t got, sent, most_in;
    int reads, drained, eofs, failures, secured, last_err;
    char why[160];
};
struct world {
    struct loop *loop;
    struct loop_timer *guard;
    struct tcp_listener *listener;
    struct tcp_addr addr;
    struct side server, client;
    size_t in_max, out_max, goal;
    bool timed_out, plain_server, plain_client;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct side *s = arg;
    assert_ptr_equal(s->c, c);
    s->secured += event == TCP_SECURED;
    s->reads += event == TCP_READ;
    s->drained += event == TCP_DRAINED;
    s->eofs += event == TCP_EOF;
    s->failures += event == TCP_FAILED;
    s->last_err = err;
    assert_true(buf_len(tcp_in(c)) <= s->world->in_max);
    if (event == TCP_FAILED)
        span_copy(span_of(tcp_tls_why(c)), s->why, sizeof s->why);
    if (s->on_event)
        s->on_event(s, event, err);
}

static void on_accept(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct world *w = arg;
    (void)peer;
    w->server.c = c;
    assert_int_equal(tcp_start(c, w->in_max, w->out_max, on_event, &w->server), ERR_OK);
    if (!w->plain_server)
        assert_int_equal(tcp_secure_server(c, server), ERR_OK);
}

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof *w);
    w->in_max = w->out_max = 64 * 1024;
    w->server.world = w->client.world = w;
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    assert_int_equal(tcp_addr_parse(&w->addr, SPAN("127.0.0.1"), 0), ERR_OK);
    int fd = tcp_bind(&w->addr, false);
    assert_true(fd >= 0);
    w->addr.len = sizeof w->addr.storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&w->addr.storage, &w->addr.len), 0);
    w->listener = tcp_listen(w->loop, fd, 2048, on_accept, w);
    assert_non_null(w->listener);
    return w;
}

static void connect_with(struct world *w, struct tls_client *t, const char *name) {
    w->client.c = tcp_connect(w->loop, &w->addr, NULL, w->in_max, w->out_max, on_event, &w->client);
    assert_non_null(w->client.c);
    if (!w->plain_client) /* before the connect has succeeded: implicit TLS */
        assert_int_equal(tcp_secure_client(w->client.c, t, name), ERR_OK);
    assert_int_equal(w->client.secured, 0);
}

static void run(struct world *w) {
    loop_timer_set(w->guard, 30000);
    loop_run(w->loop);
    assert_false(w->timed_out);
}

static void run_for(struct world *w, uint64_t ms) {
    loop_timer_set(w->guard, ms);
    loop_run(w->loop);
    w->timed_out = false;
}

static void run_until(struct world *w, const int *count) {
    for (int i = 0; i < 3000 && *count == 0; i++)
        run_for(w, 10);
    assert_int_not_equal(*count, 0);
}

static void close_side(struct side *s) {
    if (s->c)
        tcp_close(s->c);
    s->c = NULL;
}

static void world_free(struct world *w) {
    if (w->listener)
        tcp_listener_close(w->listener);
    close_side(&w->client);
    close_side(&w->server);
    loop_free(w->loop);
    free(w);
}

static char pattern(size_t at) {
    return (char)(at * 31 + at / 251);
}

static void take_pattern(struct side *s, size_t most) {
    struct buf *in = tcp_in(s->c);
    struct span bytes = span_first(buf_span(in), most);
    for (size_t i = 0; i < bytes.len; i++)
        assert_int_equal(bytes.at[i], pattern(s->got + i));
    s->got += bytes.len;
    buf_consume(in, bytes.len);
}

static void pump(struct side *s) {
    static char piece[20000];
    while (s->sent < s->world->goal) {
        size_t len = s->world->goal - s->sent < sizeof piece ? s->world->goal - s->sent : sizeof piece;
        if (len > s->world->out_max / 2)
            len = s->world->out_max / 2;
        for (size_t i = 0; i < len; i++)
            piece[i] = pattern(s->sent + i);
        struct span pieces[] = {{piece, len / 3}, {NULL, 0}, {piece + len / 3, len - len / 3}};
        int err = tcp_writev(s->c, pieces, 3);
        if (err == ERR_FULL)
            break;
        assert_int_equal(err, ERR_OK);
        s->sent += len;
    }
    assert_true(tcp_queued(s->c) <= s->world->out_max + s->world->out_max / 8 + 256);
}

static void done_when_both(struct world *w) {
    if (w->client.got == w->goal && w->server.got == w->goal)
        loop_stop(w->loop);
}

/* -- both ways at once -- */

static void both_ways(struct side *s, enum tcp_event event, int err) {
    assert_int_equal(err, ERR_OK);
    assert_int_not_equal(event, TCP_FAILED);
    take_pattern(s, SIZE_MAX);
    if (s->secured)
        pump(s);
    done_when_both(s->world);
}

static void carry(size_t in_max, size_t out_max, size_t goal) {
    struct world *w = world_new();
    w->in_max = in_max;
    w->out_max = out_max;
    w->goal = goal;
    w->server.on_event = w->client.on_event = both_ways;
    connect_with(w, strict, "one.example");
    assert_null(tcp_tls_info(w->client.c));
    assert_int_equal(tcp_write(w->client.c, "x", 1), ERR_AGAIN);
    assert_int_equal(tcp_secure_client(w->client.c, client, NULL), ERR_INVALID);
    run(w);
    assert_int_equal(w->client.secured, 1);
    assert_int_equal(w->server.secured, 1);
    assert_int_equal(w->client.got, goal);
    const struct tls_info *info = tcp_tls_info(w->server.c);
    uint8_t a[64], b[64];
    const char *type;
    size_t len, n;
    assert_string_equal(info->version, "TLSv1.3");
    assert_string_equal(info->sni, "one.example");
    assert_true(tcp_tls_info(w->client.c)->peer_verified);
    assert_true(tcp_tls_binding(w->server.c, &type, a, &len));
    assert_true(tcp_tls_binding(w->client.c, &type, b, &n));
    assert_int_equal(len, n);
    assert_memory_equal(a, b, len);
    assert_string_equal(tcp_tls_why(w->server.c), "");
    world_free(w);
}

static void carries_both_ways(void **state) {
    (void)state;
    carry(64 * 1024, 64 * 1024, 4 * MIB);
    carry(256 * 1024, 256 * 1024, 4 * MIB);
    carry(MIB, 1000, 200000);
    carry(100, 64 * 1024, 500000); /* a read buffer far below a record */
    carry(1, 4096, 3000);
}

/* -- back-pressure -- */

static void writes_all_it_can(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_SECURED || event == TCP_DRAINED)
        pump(s);
}

static void reads_at_its_leisure(struct side *s, enum tcp_event event, int err) {
    (void)err;
    assert_true(event == TCP_READ || event == TCP_SECURED);
    (void)s;
}

static void a_slow_reader_stops_the_writer(void **state) {
    (void)state;
    struct world *w = world_new();
    w->in_max = 3000;
    w->goal = 32 * MIB;
    w->client.on_event = writes_all_it_can;
    w->server.on_event = reads_at_its_leisure;
    connect_with(w, client, "one.example");
    run_for(w, 300);
    size_t sent = w->client.sent;
    assert_true(sent > 0 && sent < 20 * MIB);
    size_t held = mallinfo2().uordblks;
    run_for(w, 200);
    assert_true(w->client.sent == sent); /* stands still */
    assert_int_equal(buf_len(tcp_in(w->server.c)), 3000);
    for (int i = 0; i < 300; i++) { /* bit by bit */
        take_pattern(&w->server, 1000);
        run_for(w, 1);
    }
    assert_true(w->server.got == 300000);
    assert_true(mallinfo2().uordblks < held + 64 * 1024);
    world_free(w);
}

/* Leaves some each time; pauses once on the way. */
static void pauses_midway(struct side *s, enum tcp_event event, int err) {
    assert_int_equal(err, ERR_OK);
    assert_int_not_equal(event, TCP_FAILED);
    bool before = s->got < s->world->goal / 2;
    take_pattern(s, 700);
    if (s->got == s->world->goal) {
        loop_stop(s->world->loop);
    } else if (before && s->got >= s->world->goal / 2) {
        tcp_pause(s->c);
        loop_stop(s->world->loop);
    } else if (event == TCP_READ) {
        tcp_resume(s->c);
    }
}

static void reads_on_after_a_pause(void **state) {
    (void)state;
    struct world *w = world_new();
    w->in_max = 5000;
    w->goal = 400000;
    w->client.on_event = writes_all_it_can;
    w->server.on_event = pauses_midway;
    connect_with(w, client, "one.example");
    run(w);
    int reads = w->server.reads;
    size_t got = w->server.got;
    assert_true(got >= 200000 && got < 201000);
    run_for(w, 50);
    assert_int_equal(w->server.reads, reads);
    assert_int_equal(w->server.got, got);
    tcp_resume(w->server.c);
    run(w);
    assert_int_equal(w->server.got, w->goal);
    world_free(w);
}

/* -- ends -- */

static void finishes_after_pump(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_SECURED || event == TCP_DRAINED)
        pump(s);
    if (s->sent == s->world->goal) {
        tcp_finish(s->c, 20000);
        s->c = NULL;
    }
}

static void drains_then_ends(struct side *s, enum tcp_event event, int err) {
    assert_int_equal(err, ERR_OK);
    assert_true(s->eofs == 0 || event == TCP_EOF);
    take_pattern(s, SIZE_MAX);
    if (event == TCP_EOF)
        loop_stop(s->world->loop);
}

static void finish_loses_nothing(void **state) {
    (void)state;
    struct world *w = world_new();
    w->in_max = 1000;
    w->goal = 2 * MIB;
    w->client.on_event = finishes_after_pump;
    w->server.on_event = drains_then_ends;
    connect_with(w, client, "one.example");
    run(w);
    assert_int_equal(w->server.got, w->goal);
    assert_int_equal(w->server.eofs, 1);
    world_free(w);
}

static void half_closes(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_EOF) { /* the end came while octets waited for room; ours may still be written */
        take_pattern(s, SIZE_MAX);
        assert_int_equal(tcp_write(s->c, "221 bye\r\n", 9), ERR_OK);
        tcp_finish(s->c, 1000);
        s->c = NULL;
        loop_stop(s->world->loop);
    }
}

static void the_end_waits_for_what_came_before(void **state) {
    (void)state;
    struct world *w = world_new();
    w->in_max = 1000;
    w->goal = 9000;
    w->client.on_event = finishes_after_pump;
    w->server.on_event = reads_at_its_leisure;
    connect_with(w, client, "one.example");
    run_until(w, &w->server.reads);
    run_for(w, 50);
    assert_int_equal(w->server.eofs, 0);
    w->server.on_event = half_closes;
    for (int i = 0; i < 1000 && w->server.c; i++) {
        take_pattern(&w->server, 300);
        assert_true(w->server.eofs == 0);
        run_for(w, 2);
    }
    assert_int_equal(w->server.got, w->goal);
    assert_int_equal(w->server.eofs, 1);
    world_free(w);
}

/* -- STARTTLS -- */

static void offers_starttls(struct side *s, enum tcp_event event, int err) {
    (void)err;
    struct buf *in = tcp_in(s->c);
    if (event == TCP_READ && !s->secured) {
        assert_string_equal(buf_cstr(in), "STARTTLS\r\n");
        buf_consume(in, buf_len(in));
        assert_int_equal(tcp_write(s->c, "220 go ahead\r\n", 14), ERR_OK);
        assert_int_equal(tcp_secure_server(s->c, server), ERR_OK);
        assert_int_equal(tcp_write(s->c, "x", 1), ERR_AGAIN);
    } else if (event == TCP_READ) {
        assert_string_equal(buf_cstr(in), "EHLO there\r\n");
        buf_consume(in, buf_len(in));
        assert_int_equal(tcp_write(s->c, "250 hello\r\n", 11), ERR_OK);
    }
}

static void takes_starttls(struct side *s, enum tcp_event event, int err) {
    (void)err;
    struct buf *in = tcp_in(s->c);
    if (event == TCP_CONNECTED) {
        assert_int_equal(tcp_write(s->c, "STARTTLS\r\n", 10), ERR_OK);
    } else if (event == TCP_READ && !s->secured) {
        assert_string_equal(buf_cstr(in), "220 go ahead\r\n");
        assert_int_equal(tcp_secure_client(s->c, strict, "one.example"), ERR_INVALID); /* not consumed yet */
        buf_consume(in, buf_len(in));
        assert_int_equal(tcp_secure_client(s->c, strict, "one.example"), ERR_OK);
    } else if (event == TCP_SECURED) {
        assert_int_equal(tcp_write(s->c, "EHLO there\r\n", 12), ERR_OK);
    } else if (event == TCP_READ) {
        assert_string_equal(buf_cstr(in), "250 hello\r\n");
        loop_stop(s->world->loop);
    }
}

static void starttls_goes_in_order(void **state) {
    (void)state;
    struct world *w = world_new();
    w->plain_server = w->plain_client = true;
    w->server.on_event = offers_starttls;
    w->client.on_event = takes_starttls;
    connect_with(w, NULL, NULL);
    run(w);
    assert_int_equal(w->client.failures + w->server.failures, 0);
    world_free(w);
}

static void refuses_early_octets(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_READ && buf_len(tcp_in(s->c)) > 10) {
        buf_consume(tcp_in(s->c), 10);
        s->last_err = tcp_secure_server(s->c, server);
        loop_stop(s->world->loop);
    }
}

static void octets_behind_starttls_are_refused(void **state) {
    (void)state;
    struct world *w = world_new();
    w->plain_server = w->plain_client = true;
    w->server.on_event = refuses_early_octets;
    connect_with(w, NULL, NULL);
    run_for(w, 20);
    assert_int_equal(tcp_write(w->client.c, "STARTTLS\r\nRSET\r\n", 16), ERR_OK);
    run(w);
    assert_int_equal(w->server.last_err, ERR_INVALID);
    assert_null(tcp_tls_info(w->server.c));
    world_free(w);
}

/* Those that arrive after the 220 but before it was read are no TLS: the handshake fails. */
static void octets_injected_later_fail_the_handshake(void **state) {
    (void)state;
    struct world *w = world_new();
    w->plain_server = w->plain_client = true;
    w->server.on_event = offers_starttls;
    connect_with(w, NULL, NULL);
    run_for(w, 20);
    assert_int_equal(tcp_write(w->client.c, "STARTTLS\r\n", 10), ERR_OK);
    run_for(w, 50);
    assert_int_equal(tcp_write(w->client.c, "MAIL FROM:<evil@example>\r\n", 26), ERR_OK);
    run_until(w, &w->server.failures);
    assert_int_equal(w->server.last_err, ERR_DENIED);
    assert_int_equal(w->server.reads, 1);
    assert_int_not_equal(strlen(w->server.why), 0);
    assert_int_equal(tcp_write(w->server.c, "x", 1), ERR_CLOSED);
    world_free(w);
}

/* -- failures -- */

static void a_cut_handshake_fails(void **state) {
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        struct world *w = world_new();
        w->plain_client = true;
        connect_with(w, NULL, NULL);
        run_for(w, 20);
        assert_int_equal(tcp_write(w->client.c, "\x16\x03\x01", 3), ERR_OK);
        run_for(w, 20);
        tcp_finish(w->client.c, 1000);
        w->client.c = NULL;
        run_until(w, &w->server.failures);
        assert_int_equal(w->server.last_err, ERR_DENIED);
        assert_string_equal(w->server.why, "the connection ended during the handshake");
        assert_int_equal(w->server.eofs, 0);
        if (reset) { /* an end after the failure is harmless too */
            tcp_finish(w->server.c, 100);
            w->server.c = NULL;
            run_for(w, 20);
        }
        world_free(w);
    }
}

static void a_client_refuses_a_wrong_name(void **state) {
    (void)state;
    struct world *w = world_new();
    connect_with(w, strict, "two.example");
    run_until(w, &w->client.failures);
    assert_int_equal(w->client.last_err, ERR_DENIED);
    assert_string_equal(w->client.why, "certificate verify failed: hostname mismatch");
    assert_int_equal(w->client.secured, 0);
    run_until(w, &w->server.failures); /* the alert came over */
    world_free(w);
    w = world_new();
    connect_with(w, strict, "");
    run_until(w, &w->client.failures);
    run_for(w, 20);
    assert_int_equal(w->client.last_err, ERR_DENIED);
    assert_int_equal(w->client.failures, 1);
    world_free(w);
}

static void meet_with(const struct tls_wish *w, int err, enum tls_fault fault) {
    struct world *world = world_new();
    world->plain_client = true;
    connect_with(world, NULL, NULL);
    assert_int_equal(tcp_tls_fault(world->client.c), TLS_FAULT_NONE);
    assert_int_equal(tcp_secure_client_with(world->client.c, client, w), ERR_OK);
    assert_int_equal(tcp_secure_client_with(world->client.c, client, w), ERR_INVALID);
    run_until(world, err ? &world->client.failures : &world->client.secured);
    assert_int_equal(world->client.secured, !err);
    assert_int_equal(world->client.last_err, err);
    assert_int_equal(tcp_tls_fault(world->client.c), fault);
    assert_int_equal(world->client.why[0] != '\0', err != ERR_OK);
    world_free(world);
}

static void a_wish_decides_over_a_lenient_context(void **state) {
    (void)state;
    const char *const right[] = {"one.example"}, *const wrong[] = {"two.example"}, *const none[] = {"00"};
    const uint8_t digest[32] = {0};
    struct tls_dane_record record = {3, 1, 1, digest, sizeof digest};
    meet_with(&(struct tls_wish){.must_verify = true, .names = right, .name_count = 1}, ERR_OK, TLS_FAULT_NONE);
    meet_with(&(struct tls_wish){.names = wrong, .name_count = 1}, ERR_OK, TLS_FAULT_NAME);
    meet_with(&(struct tls_wish){.must_verify = true, .names = wrong, .name_count = 1}, ERR_DENIED, TLS_FAULT_NAME);
    meet_with(&(struct tls_wish){.must_verify = true}, ERR_DENIED, TLS_FAULT_OTHER);
    meet_with(&(struct tls_wish){.dane = &record, .dane_count = 1}, ERR_DENIED, TLS_FAULT_DANE);
    meet_with(&(struct tls_wish){.fingerprints = none, .fingerprint_count = 1}, ERR_DENIED, TLS_FAULT_TRUST);
}

static void closes_at(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if ((event == TCP_SECURED && s->world->goal == 1) || (event == TCP_READ && s->world->goal == 2)) {
        tcp_close(s->c);
        s->c = NULL;
        loop_stop(s->world->loop);
    } else if ((event == TCP_SECURED && s->world->goal == 3) || (event == TCP_READ && s->world->goal == 4)) {
        tcp_finish(s->c, 1000);
        s->c = NULL;
        loop_stop(s->world->loop);
    }
}

static void greets(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_SECURED)
        assert_int_equal(tcp_write(s->c, "EHLO there\r\nand more\r\n", 22), ERR_OK);
}

static void may_be_closed_in_its_own_callback(void **state) {
    (void)state;
    for (size_t when = 1; when <= 4; when++) {
        struct world *w = world_new();
        w->goal = when;
        w->in_max = 5;
        w->client.on_event = greets;
        w->server.on_event = closes_at;
        connect_with(w, client, NULL);
        run(w);
        assert_null(w->server.c);
        run_for(w, 50);
        world_free(w);
    }
}

static void an_unsecured_end_is_an_end(void **state) {
    (void)state;
    struct world *w = world_new();
    connect_with(w, client, NULL);
    run_until(w, &w->server.secured);
    run_until(w, &w->client.secured);
    close_side(&w->client); /* no close_notify */
    run_until(w, &w->server.eofs);
    assert_int_equal(w->server.failures, 0);
    assert_int_equal(tcp_secure_server(w->server.c, server), ERR_INVALID);
    world_free(w);
}

/* -- memory -- */

enum { IDLE = 2000, PER_CONNECTION_MAX = 24 * 1024 };

struct many {
    struct world *world;
    struct tcp *all[IDLE];
    size_t count, talked;
};

static void answers(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct many *m = arg;
    assert_int_equal(err, ERR_OK);
    if (event == TCP_READ) {
        buf_consume(tcp_in(c), buf_len(tcp_in(c)));
        assert_int_equal(tcp_write(c, "250 hello\r\n", 11), ERR_OK);
        m->talked++;
    }
}

static void collect(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct many *m = arg;
    (void)peer;
    assert_int_equal(tcp_start(c, 256 * 1024, 256 * 1024, answers, m), ERR_OK);
    assert_int_equal(tcp_secure_server(c, server), ERR_OK);
    m->all[m->count++] = c;
}

static void talks_once(struct side *s, enum tcp_event event, int err) {
    (void)err;
    if (event == TCP_SECURED)
        assert_int_equal(tcp_write(s->c, "EHLO there\r\n", 12), ERR_OK);
    if (event == TCP_READ)
        loop_stop(s->world->loop);
}

/* The clients go at once, so what is counted is the server's side; its eyes are closed for the end of the client. */
static void idle_connections_cost_little(void **state) {
    (void)state;
    struct world *w = world_new();
    struct many m = {.world = w};
    struct rlimit limit;
    struct tcp *clients[IDLE];
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    tcp_listener_close(w->listener);
    int fd = tcp_bind(&w->addr, false);
    w->listener = tcp_listen(w->loop, fd, IDLE, collect, &m);
    w->client.on_event = talks_once;
    size_t before = 0;
    for (int i = 0; i < IDLE + 10; i++) {
        if (i == 10) { /* what is shared is there by now */
            m.count = m.talked = 0;
            before = mallinfo2().uordblks;
        }
        w->client.secured = 0;
        connect_with(w, client, "one.example");
        run(w);
        if (i >= 10)
            clients[i - 10] = w->client.c;
        else
            tcp_close(w->client.c);
        if (i < 10)
            tcp_close(m.all[i]);
        w->client.c = NULL;
        run_for(w, 0);
    }
    assert_int_equal(m.talked, IDLE);
    size_t both = mallinfo2().uordblks;
    for (int i = 0; i < IDLE; i++) {
        tcp_pause(m.all[i]);
        tcp_close(clients[i]);
    }
    run_for(w, 100);
    size_t each = (mallinfo2().uordblks - before) / IDLE;
    print_message("a secured idle connection holds %zu octets, of a client %zu\n", each, (both - before) / IDLE - each);
    assert_true(each <= PER_CONNECTION_MAX); /* under AddressSanitizer all figures are 0 */
    for (int i = 0; i < IDLE; i++)
        tcp_close(m.all[i]);
    world_free(w);
}

static int begin(void **state) {
    (void)state;
    struct buf problems;
    buf_init(&problems, 4096);
    certs_begin();
    good = certs_authority("good");
    certs_pair("one", "DNS:one.example", &good, false, 90);
    struct tls_pair pair = {certs_path("one.pem"), certs_path("one.key")};
    struct tls_server_config sc = {.pairs = &pair, .count = 1};
    struct tls_client_config cc = {.ca_file = certs_path("good.pem")};
    assert_int_equal(tls_server_new(&server, &sc, &problems), ERR_OK);
    assert_int_equal(tls_client_new(&client, &cc, &problems), ERR_OK);
    cc.verify = true;
    assert_int_equal(tls_client_new(&strict, &cc, &problems), ERR_OK);
    buf_deinit(&problems);
    return 0;
}

static int end(void **state) {
    (void)state;
    tls_server_unref(server);
    tls_client_unref(client);
    tls_client_unref(strict);
    certs_authority_free(&good);
    certs_end();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carries_both_ways),
        cmocka_unit_test(a_slow_reader_stops_the_writer),
        cmocka_unit_test(reads_on_after_a_pause),
        cmocka_unit_test(finish_loses_nothing),
        cmocka_unit_test(the_end_waits_for_what_came_before),
        cmocka_unit_test(starttls_goes_in_order),
        cmocka_unit_test(octets_behind_starttls_are_refused),
        cmocka_unit_test(octets_injected_later_fail_the_handshake),
        cmocka_unit_test(a_cut_handshake_fails),
        cmocka_unit_test(a_client_refuses_a_wrong_name),
        cmocka_unit_test(a_wish_decides_over_a_lenient_context),
        cmocka_unit_test(may_be_closed_in_its_own_callback),
        cmocka_unit_test(an_unsecured_end_is_an_end),
        cmocka_unit_test(idle_connections_cost_little),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
