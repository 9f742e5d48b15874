/* bus: hubs and peers over inproc and ipc: order, bodies without copies, bounds, ends, hostile messages, the call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/net/bus.h"

enum { MESSAGES = 10000, MIB = 1 << 20 };

struct world {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard;
    struct bus_hub *hub;
    struct bus_peer *peer;
    uint64_t hub_got, peer_got, goal;
    const char *at;
    struct bus_bytes *kept;
    char id[BUS_PEER_MAX];
    size_t id_len;
    bool timed_out, echo;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof *w);
    w->bus = bus_new(1);
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    return w;
}

static void run(struct world *w) {
    loop_timer_set(w->guard, 20000);
    loop_run(w->loop);
    assert_false(w->timed_out);
}

static void run_for(struct world *w, uint64_t ms) {
    loop_timer_set(w->guard, ms);
    loop_run(w->loop);
    w->timed_out = false;
}

static void world_free(struct world *w) {
    bus_hub_close(w->hub);
    bus_peer_close(w->peer);
    bus_bytes_free(w->kept);
    loop_free(w->loop);
    bus_free(w->bus);
    free(w);
}

static struct span number(uint64_t *n) {
    return span_make(n, sizeof *n);
}

static uint64_t number_of(struct span s) {
    uint64_t n = 0;
    assert_int_equal(s.len, sizeof n);
    memcpy(&n, s.at, sizeof n);
    return n;
}

static size_t body_len(uint64_t n) {
    return n % 3 == 0 ? 0 : n * 37 % 5000;
}

static struct bus_bytes *body_of(uint64_t n) {
    struct bus_bytes *b = bus_bytes_new(body_len(n));
    assert_non_null(b);
    memset(bus_bytes_mem(b), (int)(n & 255), body_len(n));
    return b;
}

static void check_message(uint64_t n, const struct bus_message *m) {
    assert_int_equal(number_of(m->header), n); /* in order, each once */
    assert_true(span_eq(m->meta, span_first(SPAN("0123456789012345678901234567890123456789"), n % 41)));
    struct span body = bus_bytes_span(m->body);
    assert_int_equal(body.len, body_len(n));
    assert_int_equal(m->body == NULL, body.len == 0);
    for (size_t i = 0; i < body.len; i += 97)
        assert_int_equal((unsigned char)body.at[i], n & 255);
}

static struct span meta_of(uint64_t n) {
    return span_first(SPAN("0123456789012345678901234567890123456789"), n % 41);
}

/* -- both ways, in order -- */

static void on_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    check_message(w->hub_got, m);
    w->hub_got++;
    memcpy(w->id, peer.at, peer.len);
    w->id_len = peer.len;
    if (w->echo)
        assert_int_equal(bus_hub_send(w->hub, peer, m->header, m->meta, m->body), ERR_OK);
    else if (w->hub_got == w->goal)
        loop_stop(w->loop);
}

static void on_peer(void *arg, const struct bus_message *m) {
    struct world *w = arg;
    check_message(w->peer_got, m);
    if (++w->peer_got == w->goal)
        loop_stop(w->loop);
}

static void send_numbered(struct world *w) {
    for (uint64_t n = 0; n < MESSAGES; n++) {
        struct bus_bytes *body = body_of(n);
        assert_int_equal(bus_peer_send(w->peer, number(&n), meta_of(n), body), ERR_OK);
        bus_bytes_free(body);
    }
}

static void both_ways_in_order(void **state) {
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct world *w = world_new();
        w->goal = MESSAGES;
        w->echo = true;
        if (!late)
            assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://order", MIB, 64 * MIB, on_hub, w),
                             ERR_OK);
        assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://order", "peer", MIB, 64 * MIB, on_peer, w),
                         ERR_OK);
        send_numbered(w); /* far more than ZeroMQ holds */
        if (late) {
            run_for(w, 20);
            assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://order", MIB, 64 * MIB, on_hub, w),
                             ERR_OK);
        }
        run(w);
        assert_int_equal(w->hub_got, MESSAGES);
        assert_int_equal(w->peer_got, MESSAGES);
        assert_memory_equal(w->id, "peer.", 5);
        assert_int_equal(w->id_len, 5 + 13);
        world_free(w);
    }
}

/* The hub on a loop and thread of its own. */
static void *hub_thread(void *arg) {
    struct world *w = arg;
    loop_run(w->loop);
    bus_hub_close(w->hub);
    return NULL;
}

static void on_stop(void *arg) {
    struct world *w = arg;
    loop_stop(w->loop);
}

static void both_ways_between_threads(void **state) {
    (void)state;
    struct world *w = world_new(), far = {0};
    far.loop = loop_new();
    far.echo = true;
    struct loop_wake *stop = loop_wake_new(far.loop, on_stop, &far);
    assert_int_equal(bus_hub_open(&far.hub, w->bus, far.loop, "inproc://threads", MIB, 64 * MIB, on_hub, &far), ERR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hub_thread, &far), 0);
    w->goal = MESSAGES;
    assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://threads", "p", MIB, 64 * MIB, on_peer, w),
                     ERR_OK);
    send_numbered(w);
    run(w);
    assert_int_equal(w->peer_got, MESSAGES);
    loop_wake_send(stop);
    pthread_join(thread, NULL);
    loop_free(far.loop);
    world_free(w);
}

/* One at a time: a lost wake-up would hang here. */
static void on_pong(void *arg, const struct bus_message *m) {
    struct world *w = arg;
    on_peer(w, m);
    uint64_t n = w->peer_got;
    struct bus_bytes *body = body_of(n);
    if (n < w->goal)
        assert_int_equal(bus_peer_send(w->peer, number(&n), meta_of(n), body), ERR_OK);
    bus_bytes_free(body);
}

static void no_wake_up_is_lost(void **state) {
    (void)state;
    struct world *w = world_new(), far = {0};
    far.loop = loop_new();
    far.echo = true;
    struct loop_wake *stop = loop_wake_new(far.loop, on_stop, &far);
    assert_int_equal(bus_hub_open(&far.hub, w->bus, far.loop, "inproc://pong", MIB, MIB, on_hub, &far), ERR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hub_thread, &far), 0);
    w->goal = 5000;
    assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://pong", "p", MIB, MIB, on_pong, w), ERR_OK);
    uint64_t zero = 0;
    assert_int_equal(bus_peer_send(w->peer, number(&zero), SPAN_EMPTY, NULL), ERR_OK);
    run(w);
    assert_int_equal(w->peer_got, 5000);
    loop_wake_send(stop);
    pthread_join(thread, NULL);
    loop_free(far.loop);
    world_free(w);
}

/* -- bodies -- */

static void keep_and_echo(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    w->at = bus_bytes_span(m->body).at;
    assert_int_equal(bus_hub_send(w->hub, peer, m->header, SPAN_EMPTY, m->body), ERR_OK);
}

static void keep(void *arg, const struct bus_message *m) {
    struct world *w = arg;
    w->kept = bus_bytes_ref(m->body);
    loop_stop(w->loop);
}

static void big_bodies_pass_without_a_copy(void **state) {
    (void)state;
    struct world *w = world_new();
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://big", 4 * MIB, 8 * MIB, keep_and_echo, w),
                     ERR_OK);
    assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://big", "p", 4 * MIB, 8 * MIB, keep, w), ERR_OK);
    struct bus_bytes *body = bus_bytes_new(4 * MIB);
    memset(bus_bytes_mem(body), 'b', 4 * MIB);
    char *at = bus_bytes_mem(body);
    assert_int_equal(bus_peer_send(w->peer, SPAN("h"), SPAN_EMPTY, body), ERR_OK);
    bus_bytes_free(body);
    run(w);
    assert_ptr_equal(w->at, at);
    struct span back = bus_bytes_span(w->kept);
    assert_ptr_equal(back.at, at); /* the same memory, there and back */
    assert_int_equal(back.len, 4 * MIB);
    bus_hub_close(w->hub);
    bus_peer_close(w->peer);
    w->hub = NULL;
    w->peer = NULL;
    assert_int_equal(back.at[4 * MIB - 1], 'b'); /* the reference outlives the sockets */
    world_free(w);
    assert_null(bus_bytes_ref(NULL));
    assert_int_equal(bus_bytes_span(NULL).len, 0);
    body = bus_bytes_copy(SPAN("copy"));
    assert_true(span_eq(bus_bytes_span(body), SPAN("copy")));
    bus_bytes_free(body);
}

/* -- bounds -- */

static void count_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    memcpy(w->id, peer.at, peer.len);
    w->id_len = peer.len;
    assert_int_equal(number_of(m->header), w->hub_got);
    if (++w->hub_got == w->goal)
        loop_stop(w->loop);
}

static void what_does_not_fit_is_reported(void **state) {
    (void)state;
    struct world *w = world_new();
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://full", 1000, 50000, count_hub, w), ERR_OK);
    assert_int_equal(bus_hub_send(w->hub, SPAN("nobody.0"), SPAN("h"), SPAN_EMPTY, NULL), ERR_NOT_FOUND);
    assert_int_equal(bus_hub_send(w->hub, SPAN_EMPTY, SPAN("h"), SPAN_EMPTY, NULL), ERR_NOT_FOUND);
    assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://full", "p", 1000, 50000, on_peer, w), ERR_OK);
    uint64_t zero = 0;
    w->goal = 1;
    assert_int_equal(bus_peer_send(w->peer, number(&zero), SPAN_EMPTY, NULL), ERR_OK);
    run(w);
    struct bus_bytes *body = bus_bytes_new(1001);
    memset(bus_bytes_mem(body), 0, 1001);
    assert_int_equal(bus_peer_send(w->peer, SPAN("h"), SPAN_EMPTY, body), ERR_RANGE);
    assert_int_equal(bus_hub_send(w->hub, span_make(w->id, w->id_len), SPAN("h"), SPAN_EMPTY, body), ERR_RANGE);
    bus_bytes_free(body);
    /* The loop does not turn: ZeroMQ fills, then our queue, then the caller hears of it. */
    uint64_t to_hub = 1, to_peer = 0;
    int err;
    while ((err = bus_peer_send(w->peer, number(&to_hub), meta_of(to_hub), NULL)) == ERR_OK)
        to_hub++;
    assert_int_equal(err, ERR_FULL);
    while ((err = bus_hub_send(w->hub, span_make(w->id, w->id_len), number(&to_peer), meta_of(to_peer), NULL)) ==
           ERR_OK)
        to_peer++;
    assert_int_equal(err, ERR_FULL);
    assert_in_range(to_hub, 2500, 10000);
    assert_in_range(to_peer, 2500, 10000);
    assert_int_equal(w->hub_got, 1);
    bus_peer_close(w->peer);
    w->peer = NULL;
    run_for(w, 50);
    assert_int_equal(bus_hub_send(w->hub, span_make(w->id, w->id_len), SPAN("h"), SPAN_EMPTY, NULL), ERR_NOT_FOUND);
    world_free(w);
}

static void what_was_accepted_arrives(void **state) {
    (void)state;
    struct world *w = world_new();
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://kept", 1000, 50000, count_hub, w), ERR_OK);
    assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://kept", "p", 1000, 50000, on_peer, w), ERR_OK);
    while (bus_peer_send(w->peer, number(&w->goal), SPAN_EMPTY, NULL) == ERR_OK)
        w->goal++;
    run(w);
    assert_int_equal(w->hub_got, w->goal);
    assert_int_equal(bus_peer_send(w->peer, number(&w->goal), SPAN_EMPTY, NULL), ERR_OK); /* room again */
    world_free(w);
}

/* -- ends -- */

static void close_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    (void)peer;
    assert_true(span_eq(m->header, SPAN("first")));
    bus_hub_close(w->hub);
    w->hub = NULL;
    assert_true(span_eq(m->meta, SPAN("meta"))); /* the message outlives the socket until the return */
    w->hub_got++;
}

static void may_be_closed_in_its_own_callback(void **state) {
    (void)state;
    struct world *w = world_new();
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://close", 1000, 1000, close_hub, w), ERR_OK);
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://close", 1000, 1000, close_hub, w), ERR_EXISTS);
    assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://close", "p", 1000, 1000, on_peer, w), ERR_OK);
    assert_int_equal(bus_peer_send(w->peer, SPAN("first"), SPAN("meta"), NULL), ERR_OK);
    assert_int_equal(bus_peer_send(w->peer, SPAN("second"), SPAN_EMPTY, NULL), ERR_OK);
    run_for(w, 50);
    assert_int_equal(w->hub_got, 1);
    world_free(w);
}

static void bad_endpoints_are_refused(void **state) {
    (void)state;
    struct world *w = world_new();
    static const char *const bad[] = {"tcp://127.0.0.1:1", "inproc://", "ipc://", "ipc://relative",
                                      "nonsense",          "",          "udp://1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, bad[i], 1, 1, on_hub, w), ERR_INVALID);
        assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, bad[i], "p", 1, 1, on_peer, w), ERR_INVALID);
        assert_int_equal(bus_call(bad[i], 1, SPAN("h"), SPAN_EMPTY, 1, NULL, NULL), ERR_INVALID);
    }
    static const char *const names[] = {"", "a name that is longer than forty characters"};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(bus_peer_open(&w->peer, w->bus, w->loop, "inproc://x", names[i], 1, 1, on_peer, w),
                         ERR_INVALID);
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "ipc:///nowhere/at/all", 1, 1, on_hub, w), ERR_NOT_FOUND);
    world_free(w);
}

/* -- ipc, hostile messages, the call -- */

static char endpoint[64];

static void answer_call(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    assert_non_null(memchr(peer.at, '.', peer.len));
    w->hub_got++;
    if (span_eq(m->header, SPAN("stop")))
        loop_stop(w->loop);
    uint64_t answers = span_eq(m->header, SPAN("three")) ? 3 : 0;
    for (uint64_t n = 0; n < answers; n++)
        assert_int_equal(bus_hub_send(w->hub, peer, number(&n), m->meta, NULL), ERR_OK);
}

static bool until_third(void *arg, const struct bus_message *m) {
    uint64_t *got = arg;
    assert_int_equal(number_of(m->header), *got);
    assert_true(span_eq(m->meta, SPAN("meta")));
    return ++*got < 3;
}

static void *ipc_thread(void *arg) {
    struct world *w = arg;
    loop_run(w->loop);
    return NULL;
}

static void send_raw(const char *const *parts, size_t count) {
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    int linger = 500;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(socket, endpoint), 0);
    for (size_t i = 0; i < count; i++)
        assert_true(zmq_send(socket, parts[i], strlen(parts[i]), i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
    zmq_close(socket);
    zmq_ctx_term(context);
}

static void ipc_serves_calls_and_survives_strangers(void **state) {
    (void)state;
    struct world *w = world_new();
    snprintf(endpoint, sizeof endpoint, "ipc:///tmp/posthouse_bus_%d", (int)getpid());
    uint64_t got = 0;
    assert_int_equal(bus_call(endpoint, 1000, SPAN("three"), SPAN("meta"), 5000, until_third, &got), ERR_UNREACHABLE);
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, endpoint, 1000, 50000, answer_call, w), ERR_OK);
    struct stat st;
    assert_int_equal(stat(endpoint + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct bus_hub *second = NULL;
    assert_int_equal(bus_hub_open(&second, w->bus, w->loop, endpoint, 1000, 50000, answer_call, w), ERR_EXISTS);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ipc_thread, w), 0);
    assert_int_equal(bus_call(endpoint, 1000, SPAN("three"), SPAN("meta"), 5000, until_third, &got), ERR_OK);
    assert_int_equal(got, 3);
    assert_int_equal(bus_call(endpoint, 1000, SPAN("none"), SPAN("meta"), 100, until_third, &got), ERR_TIMEOUT);
    static char big[2000];
    memset(big, 'x', sizeof big - 1);
    static const char *const five[] = {"three", "meta", "body", "more", "and more"}, *const huge[] = {"three", big},
                             *const empty[] = {"", "", ""};
    send_raw(five, 5);
    send_raw(huge, 2); /* ZeroMQ itself ends that connection */
    send_raw(empty, 0);
    got = 0;
    assert_int_equal(bus_call(endpoint, 1000, SPAN("three"), SPAN("meta"), 5000, until_third, &got), ERR_OK);
    assert_int_equal(bus_call(endpoint, 1000, SPAN("stop"), SPAN_EMPTY, 100, until_third, &got), ERR_TIMEOUT);
    pthread_join(thread, NULL);
    assert_int_equal(w->hub_got, 4); /* the strangers' messages never came through */
    world_free(w);
    unlink(endpoint + 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_in_order),
        cmocka_unit_test(both_ways_between_threads),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(big_bodies_pass_without_a_copy),
        cmocka_unit_test(what_does_not_fit_is_reported),
        cmocka_unit_test(what_was_accepted_arrives),
        cmocka_unit_test(may_be_closed_in_its_own_callback),
        cmocka_unit_test(bad_endpoints_are_refused),
        cmocka_unit_test(ipc_serves_calls_and_survives_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
