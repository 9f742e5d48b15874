/* bus_zap: CURVE on tcp: who is let in, what is refused (unknown key, other domain, malformed questions), removal of a
 * key from a living connection, and that nothing gets through without the handler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/net/bus_keys.h"
#include "base/net/bus_zap.h"
#include "base/net/bus_zmq.h"

enum { QUIET_MS = 700, LONG_MS = 20000 };

struct world {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard;
    struct bus_hub *hub;
    struct bus_peer *peer;
    struct bus_key server, known, stranger;
    char endpoint[128];
    unsigned hub_got, peer_got, unsent;
    char user[BUS_ZAP_USER_MAX + 1];
    char ids[4][BUS_PEER_MAX];
    unsigned id_count;
    bool timed_out;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static void on_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    w->hub_got++;
    if (w->id_count < 4)
        span_copy(peer, w->ids[w->id_count++], BUS_PEER_MAX);
    span_copy(m->user, w->user, sizeof w->user);
    if (bus_hub_send(w->hub, peer, SPAN("answer"), SPAN_EMPTY, NULL) != ERR_OK)
        w->unsent++;
}

static void on_peer(void *arg, const struct bus_message *m) {
    struct world *w = arg;
    (void)m;
    w->peer_got++;
    loop_stop(w->loop);
}

/* Until something came, or the time is over: true when it came. */
static bool run(struct world *w, uint64_t ms) {
    w->timed_out = false;
    loop_timer_set(w->guard, ms);
    loop_run(w->loop);
    return !w->timed_out;
}

static void allow(struct world *w, const char *domain, const struct bus_key *k, const char *user) {
    struct bus_grant g = {k->public_key, user};
    assert_int_equal(bus_zap_allow(w->bus, domain, &g, 1), ERR_OK);
}

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof *w);
    w->bus = bus_new(1);
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    assert_int_equal(bus_key_new(&w->server), ERR_OK);
    assert_int_equal(bus_key_new(&w->known), ERR_OK);
    assert_int_equal(bus_key_new(&w->stranger), ERR_OK);
    return w;
}

static struct world *world_serving(const char *domain) {
    struct world *w = world_new();
    assert_int_equal(bus_zap_start(w->bus), ERR_OK);
    struct bus_curve c = {.key = &w->server, .domain = domain};
    assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, "tcp://127.0.0.1:0", &c, 1000, 100000, on_hub, w),
                     ERR_OK);
    assert_int_equal(bus_hub_endpoint(w->hub, w->endpoint, sizeof w->endpoint), ERR_OK);
    return w;
}

static void world_free(struct world *w) {
    bus_peer_close(w->peer);
    bus_hub_close(w->hub);
    loop_free(w->loop);
    bus_free(w->bus);
    free(w);
}

static void connect_with(struct world *w, const struct bus_key *k, const char *server) {
    struct bus_login login = {k, server};
    bus_peer_close(w->peer);
    w->peer = NULL;
    assert_int_equal(bus_peer_open_curve(&w->peer, w->bus, w->loop, w->endpoint, &login, "p", 1000, 100000, on_peer, w),
                     ERR_OK);
    assert_int_equal(bus_peer_send(w->peer, SPAN("question"), SPAN("meta"), NULL), ERR_OK);
}

static void known_keys_come_in_with_their_names(void **state) {
    (void)state;
    struct world *w = world_serving("admin");
    allow(w, "admin", &w->known, "ops");
    connect_with(w, &w->known, w->server.public_key);
    assert_true(run(w, LONG_MS));
    assert_int_equal(w->peer_got, 1);
    assert_string_equal(w->user, "ops");
    allow(w, "admin", &w->known, "renamed");
    assert_int_equal(bus_peer_send(w->peer, SPAN("question"), SPAN("meta"), NULL), ERR_OK);
    assert_true(run(w, LONG_MS));
    assert_string_equal(w->user, "renamed");
    world_free(w);
}

static void others_get_nothing(void **state) {
    (void)state;
    struct world *w = world_serving("admin");
    allow(w, "admin", &w->known, "ops");
    connect_with(w, &w->stranger, w->server.public_key); /* unknown key */
    assert_false(run(w, QUIET_MS));
    connect_with(w, &w->known, w->stranger.public_key); /* another server's key */
    assert_false(run(w, QUIET_MS));
    allow(w, "cluster", &w->stranger, "node");
    connect_with(w, &w->stranger, w->server.public_key); /* known, but for another domain */
    assert_false(run(w, QUIET_MS));
    assert_int_equal(w->hub_got, 0);
    connect_with(w, &w->known, w->server.public_key); /* and the hub still serves */
    assert_true(run(w, LONG_MS));
    world_free(w);
}

static void plain_peers_get_nothing(void **state) {
    (void)state;
    struct world *w = world_serving("admin");
    void *plain = zmq_socket(w->bus->context, ZMQ_DEALER);
    int zero = 0;
    zmq_setsockopt(plain, ZMQ_LINGER, &zero, sizeof zero);
    assert_int_equal(zmq_connect(plain, w->endpoint), 0);
    assert_int_equal(zmq_send(plain, "question", 8, 0), 8);
    assert_false(run(w, QUIET_MS));
    assert_int_equal(w->hub_got, 0);
    zmq_close(plain);
    world_free(w);
}

static void a_removed_key_is_not_heard_any_more(void **state) {
    (void)state;
    struct world *w = world_serving("admin");
    allow(w, "admin", &w->known, "ops");
    connect_with(w, &w->known, w->server.public_key);
    assert_true(run(w, LONG_MS));
    allow(w, "admin", &w->stranger, "ops"); /* the name lives on, with another key */
    assert_int_equal(bus_peer_send(w->peer, SPAN("question"), SPAN("meta"), NULL), ERR_OK);
    assert_false(run(w, QUIET_MS));
    assert_int_equal(w->hub_got, 1);
    connect_with(w, &w->stranger, w->server.public_key);
    assert_true(run(w, LONG_MS));
    assert_string_equal(w->user, "ops");
    world_free(w);
}

static void without_the_handler_nothing_opens_and_nobody_is_heard(void **state) {
    (void)state;
    struct world *w = world_new();
    struct bus_curve c = {.key = &w->server, .domain = "admin"};
    assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, "tcp://127.0.0.1:0", &c, 1000, 100000, on_hub, w),
                     ERR_CLOSED);
    world_free(w);
    w = world_serving("admin");
    allow(w, "admin", &w->known, "ops");
    connect_with(w, &w->known, w->server.public_key);
    assert_true(run(w, LONG_MS));
    bus_zap_stop(w->bus);
    assert_int_equal(bus_peer_send(w->peer, SPAN("question"), SPAN("meta"), NULL), ERR_OK); /* old connection */
    assert_false(run(w, QUIET_MS));
    connect_with(w, &w->known, w->server.public_key); /* ZeroMQ lets it in */
    assert_false(run(w, QUIET_MS));
    connect_with(w, &w->stranger, w->server.public_key);
    assert_false(run(w, QUIET_MS));
    assert_int_equal(w->hub_got, 1);
    assert_int_equal(bus_zap_start(w->bus), ERR_EXISTS); /* who came in meanwhile was never asked about */
    struct bus_grant g = {w->known.public_key, "ops"};
    assert_int_equal(bus_zap_allow(w->bus, "admin", &g, 1), ERR_CLOSED);
    world_free(w);
}

static void lists_are_checked(void **state) {
    (void)state;
    struct world *w = world_new();
    char user[BUS_ZAP_USER_MAX + 1];
    char long_name[BUS_ZAP_USER_MAX + 2];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    struct bus_grant bad[][2] = {
        {{w->known.public_key, "a"}, {w->known.public_key, "b"}},
        {{w->known.public_key, ""}, {w->stranger.public_key, "b"}},
        {{w->known.public_key, long_name}, {w->stranger.public_key, "b"}},
        {{"no key", "a"}, {w->stranger.public_key, "b"}},
    };
    assert_int_equal(bus_zap_allow(w->bus, "admin", bad[0], 1), ERR_CLOSED);
    assert_int_equal(bus_zap_start(w->bus), ERR_OK);
    allow(w, "admin", &w->known, "ops");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(bus_zap_allow(w->bus, "admin", bad[i], 2), ERR_INVALID);
    assert_int_equal(bus_zap_allow(w->bus, "a domain of more than thirty-one characters", bad[0], 1), ERR_INVALID);
    assert_int_equal(bus_zap_allow(w->bus, "admin", bad[0], BUS_ZAP_GRANTS_MAX + 1), ERR_FULL);
    assert_true(bus_zap_user(w->bus, "admin", span_of(w->known.public_key), user));
    assert_string_equal(user, "ops");
    assert_false(bus_zap_user(w->bus, "other", span_of(w->known.public_key), user));
    assert_false(bus_zap_user(w->bus, "admin", SPAN("nonsense"), user));
    assert_int_equal(bus_zap_allow(w->bus, "admin", NULL, 0), ERR_OK);
    assert_false(bus_zap_user(w->bus, "admin", span_of(w->known.public_key), user));
    world_free(w);
}

/* Guests who ask and do not read. */
static void what_waits_for_all_peers_is_bounded(void **state) {
    (void)state;
    enum { PEERS = 4, PART = 60000, WAITING = 500000 };
    static char part[PART];
    struct world *w = world_new();
    struct bus_peer *peers[PEERS];
    assert_int_equal(bus_zap_start(w->bus), ERR_OK);
    struct bus_curve c = {
        .key = &w->server, .domain = "admin", .receive_max = 100, .waiting_max = WAITING, .messages_max = 2};
    assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, "tcp://127.0.0.1:0", &c, PART, 1u << 30, on_hub, w),
                     ERR_OK);
    assert_int_equal(bus_hub_endpoint(w->hub, w->endpoint, sizeof w->endpoint), ERR_OK);
    allow(w, "admin", &w->known, "ops");
    /* Peers of a context of their own, whose loop does not run: they never read. */
    struct bus *elsewhere = bus_new(1);
    struct loop *asleep = loop_new();
    struct bus_login login = {&w->known, w->server.public_key};
    for (int i = 0; i < PEERS; i++) {
        assert_int_equal(
            bus_peer_open_curve(&peers[i], elsewhere, asleep, w->endpoint, &login, "p", PART, 1u << 30, on_peer, w),
            ERR_OK);
        assert_int_equal(bus_peer_send(peers[i], SPAN("q"), SPAN("m"), NULL), ERR_OK);
    }
    while (w->id_count < PEERS)
        run(w, QUIET_MS);
    int err = ERR_OK;
    size_t sent = 0;
    for (; err == ERR_OK && sent < (1u << 30); sent += PART)
        err = bus_hub_send(w->hub, span_of(w->ids[(sent / PART) % PEERS]), SPAN("h"), span_make(part, PART), NULL);
    assert_int_equal(err, ERR_FULL);
    assert_int_equal(bus_peer_send(peers[0], SPAN("q"), span_make(part, 3000), NULL), ERR_OK); /* over receive_max */
    unsigned got = w->hub_got;
    run(w, QUIET_MS);
    assert_int_equal(w->hub_got, got);
    for (int i = 0; i < PEERS; i++)
        bus_peer_close(peers[i]);
    loop_free(asleep);
    bus_free(elsewhere);
    world_free(w);
}

/* -- questions as ZeroMQ asks them, and as it never would -- */

struct part {
    const void *at;
    size_t len;
};

/* The status of the answer; its request id must be ours when there was one. */
static int ask(struct world *w, const struct part *parts, int count, char key[BUS_KEY_LEN + 1]) {
    void *s = zmq_socket(w->bus->context, ZMQ_REQ);
    int wait_ms = LONG_MS, zero = 0, status = 0;
    char got[6][256] = {{0}};
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(s, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    assert_int_equal(zmq_connect(s, "inproc://zeromq.zap.01"), 0);
    for (int i = 0; i < count; i++)
        assert_int_equal(zmq_send(s, parts[i].at, parts[i].len, i + 1 < count ? ZMQ_SNDMORE : 0), (int)parts[i].len);
    for (int i = 0, more = 1; more; i++) {
        size_t size = sizeof more;
        assert_true(i < 6);
        assert_true(zmq_recv(s, got[i], sizeof got[i] - 1, 0) >= 0);
        zmq_getsockopt(s, ZMQ_RCVMORE, &more, &size);
    }
    assert_string_equal(got[0], "1.0");
    if (count > 1 && parts[1].len < 255)
        assert_memory_equal(got[1], parts[1].at, parts[1].len);
    status = atoi(got[2]);
    snprintf(key, BUS_KEY_LEN + 1, "%.40s", got[4]);
    zmq_close(s);
    return status;
}

#define TEXT(s)                                                                                                        \
    { (s), sizeof(s) - 1 }
static void malformed_questions_are_refused(void **state) {
    (void)state;
    struct world *w = world_new();
    static char big[300000];
    uint8_t binary[32];
    char key[BUS_KEY_LEN + 1];
    assert_int_equal(bus_zap_start(w->bus), ERR_OK);
    allow(w, "admin", &w->known, "ops");
    assert_non_null(zmq_z85_decode(binary, w->known.public_key));
    const struct part good[9] = {TEXT("1.0"),   TEXT("7"),    TEXT("admin"), TEXT("127.0.0.1"), TEXT("id"),
                                 TEXT("CURVE"), {binary, 32}, TEXT("extra"), TEXT("extra")};
    assert_int_equal(ask(w, good, 7, key), 200);
    assert_string_equal(key, w->known.public_key);
    for (int count = 1; count <= 9; count++)
        if (count != 7)
            assert_int_equal(ask(w, good, count, key), 400);
    static const struct {
        int at;
        struct part part;
    } bad[] = {{0, TEXT("2.0")},   {0, TEXT("")},         {0, {"1.0\0", 4}}, {1, {big, sizeof big}}, {2, TEXT("other")},
               {2, TEXT("")},      {2, {"admin\0", 6}},   {2, {big, 5000}},  {3, {big, 5000}},       {5, TEXT("NULL")},
               {5, TEXT("PLAIN")}, {5, TEXT("")},         {6, TEXT("")},     {6, {big, 31}},         {6, {big, 33}},
               {6, {big, 32}},     {6, {big, sizeof big}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct part parts[7];
        memcpy(parts, good, sizeof parts);
        parts[bad[i].at] = bad[i].part;
        assert_int_equal(ask(w, parts, 7, key), 400);
        assert_string_equal(key, "");
    }
    assert_int_equal(ask(w, good, 7, key), 200);
    world_free(w);
}

/* -- the call of the tool -- */

static bool one(void *arg, const struct bus_message *m) {
    ++*(unsigned *)arg;
    (void)m;
    return false;
}

static void *serve(void *arg) {
    struct world *w = arg;
    run(w, 4000);
    return NULL;
}

static int call(struct world *w, const struct bus_key *k, const char *server, unsigned *got) {
    struct bus_login login = {k, server};
    *got = 0;
    return bus_call_curve(w->endpoint, &login, 1000, SPAN("question"), SPAN_EMPTY, 2000, one, got);
}

static void the_call_says_at_once_what_is_wrong(void **state) {
    (void)state;
    struct world *w = world_serving("admin");
    pthread_t thread;
    unsigned got;
    allow(w, "admin", &w->known, "ops");
    assert_int_equal(pthread_create(&thread, NULL, serve, w), 0);
    assert_int_equal(call(w, &w->known, w->server.public_key, &got), ERR_OK);
    assert_int_equal(got, 1);
    assert_int_equal(call(w, &w->stranger, w->server.public_key, &got), ERR_DENIED);
    assert_int_equal(call(w, &w->known, w->stranger.public_key, &got), ERR_DENIED);
    assert_int_equal(call(w, &w->known, "nonsense", &got), ERR_INVALID);
    pthread_join(thread, NULL);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound and not listening: nobody else gets the port */
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    snprintf(w->endpoint, sizeof w->endpoint, "tcp://127.0.0.1:%u", ntohs(a.sin_port));
    assert_int_equal(call(w, &w->known, w->server.public_key, &got), ERR_UNREACHABLE);
    close(fd);
    world_free(w);
}

static void endpoints_are_checked(void **state) {
    (void)state;
    struct world *w = world_new();
    static const char *const bad[] = {"tcp://",
                                      "tcp://127.0.0.1",
                                      "tcp://127.0.0.1:70000",
                                      "tcp://*:1",
                                      "tcp://host:1",
                                      "tcp://unix:/x",
                                      "ipc:///tmp/x",
                                      "inproc://x",
                                      "tcp://1.2.3.4:x",
                                      "tcp://::1:25",
                                      ""};
    assert_int_equal(bus_zap_start(w->bus), ERR_OK);
    struct bus_curve c = {.key = &w->server, .domain = "admin"}, nameless = {.key = &w->server, .domain = ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, bad[i], &c, 1, 1, on_hub, w), ERR_INVALID);
    assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, "tcp://127.0.0.1:0", NULL, 1, 1, on_hub, w),
                     ERR_INVALID);
    assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, "tcp://127.0.0.1:0", &nameless, 1, 1, on_hub, w),
                     ERR_INVALID);
    w->hub = NULL;
    assert_int_equal(bus_hub_open_curve(&w->hub, w->bus, w->loop, "tcp://[::1]:0", &c, 1000, 100000, on_hub, w),
                     ERR_OK);
    assert_int_equal(bus_hub_endpoint(w->hub, w->endpoint, sizeof w->endpoint), ERR_OK);
    allow(w, "admin", &w->known, "ops");
    connect_with(w, &w->known, w->server.public_key);
    assert_true(run(w, LONG_MS));
    world_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_keys_come_in_with_their_names),
        cmocka_unit_test(others_get_nothing),
        cmocka_unit_test(plain_peers_get_nothing),
        cmocka_unit_test(a_removed_key_is_not_heard_any_more),
        cmocka_unit_test(without_the_handler_nothing_opens_and_nobody_is_heard),
        cmocka_unit_test(lists_are_checked),
        cmocka_unit_test(what_waits_for_all_peers_is_bounded),
        cmocka_unit_test(malformed_questions_are_refused),
        cmocka_unit_test(the_call_says_at_once_what_is_wrong),
        cmocka_unit_test(endpoints_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
