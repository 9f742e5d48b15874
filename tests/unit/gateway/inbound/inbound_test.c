/*
 * inbound as a whole, from outside: start, reload, drain, stop, and the operator's questions, with clients on
 * loopback. What a client may say is tested by the dialogues.
 */
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "gateway/inbound/inbound.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

static struct {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard;
    struct bus_hub *scheduler, *admin;
    struct inbound *inbound;
    struct recipients *recipients;
    struct inbound_settings settings;
    struct tcp_net trusted;
    struct buf scratch;
    struct arena mem;
    char desk[BUS_PEER_MAX];
    size_t desk_len;
    bool silent; /* Submit is not answered */
    unsigned submits, replies;
    char text[256]; /* of the last admin reply */
    uint32_t code, error;
    size_t steps, figures;
    uint16_t port;
    atomic_int drained;
} t;

/* -- the roles that are played -- */

static void on_scheduler(void *arg, struct span peer, const struct bus_message *m) {
    struct frame f;
    (void)arg;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    if (f.kind == FRAME_HELLO) {
        Words__Welcome w = WORDS__WELCOME__INIT;
        w.credit = 1 << 20;
        assert_int_equal(frame_send_hub(t.scheduler, peer, FRAME_WELCOME, 0, 0, &w.base, NULL, &t.scratch), ERR_OK);
    } else if (f.kind == FRAME_SUBMIT && ++t.submits && !t.silent) {
        Words__Answer a = WORDS__ANSWER__INIT;
        a.verdict = VERDICT_STORED;
        a.credit = FRAME_COST(f.meta.len, bus_bytes_span(f.body).len);
        assert_int_equal(frame_send_hub(t.scheduler, peer, FRAME_ANSWER, f.correlation, 0, &a.base, NULL, &t.scratch),
                         ERR_OK);
    }
}

static void on_admin(void *arg, struct span peer, const struct bus_message *m) {
    struct frame f;
    (void)arg;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    if (f.kind == FRAME_HELLO) {
        t.desk_len = span_copy(peer, t.desk, sizeof t.desk);
        return;
    }
    assert_int_equal(f.kind, FRAME_ADMIN_REPLY);
    Words__AdminReply *r = frame_unpack(&words__admin_reply__descriptor, f.meta, &t.mem);
    assert_non_null(r);
    assert_true(r->last);
    t.replies++;
    t.code = r->code;
    t.error = r->error;
    t.steps = r->n_steps;
    t.figures = r->n_figures;
    span_copy(frame_span(r->text), t.text, sizeof t.text);
    arena_reset(&t.mem);
}

static void on_guard(void *arg) {
    (void)arg;
    loop_stop(t.loop);
}

/* The played roles work for so long. */
static void turn(uint64_t ms) {
    loop_timer_set(t.guard, ms);
    loop_run(t.loop);
}

#define WAIT(condition)                                                                                                \
    do {                                                                                                               \
        for (int i_ = 0; i_ < 500 && !(condition); i_++)                                                               \
            turn(10);                                                                                                  \
        assert_true(condition);                                                                                        \
    } while (0)

/* -- a client -- */

struct client {
    int fd;
    char text[4096];
};

static void client_open(struct client *c) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, SPAN("127.0.0.1"), t.port), ERR_OK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a.storage, a.len), 0);
}

/* Sends, and gathers what comes until `wanted` is in it (or the server closes, with wanted NULL). */
static void say(struct client *c, const char *text, const char *wanted) {
    size_t have = 0;
    c->text[0] = '\0';
    if (*text)
        assert_int_equal(write(c->fd, text, strlen(text)), (ssize_t)strlen(text));
    for (int i = 0; i < 500; i++) {
        ssize_t got = recv(c->fd, c->text + have, sizeof c->text - 1 - have, MSG_DONTWAIT);
        if (got == 0) {
            assert_null(wanted);
            return;
        }
        have += got > 0 ? (size_t)got : 0;
        c->text[have] = '\0';
        if (wanted && strstr(c->text, wanted))
            return;
        turn(10);
    }
    print_message("wanted %s, got %s\n", wanted ? wanted : "(end)", c->text);
    fail();
}

/* -- start and end -- */

static int bind_port(void) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, SPAN("127.0.0.1"), 0), ERR_OK);
    int fd = tcp_bind(&a, true);
    assert_true(fd >= 0);
    a.len = sizeof a.storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a.storage, &a.len), 0);
    t.port = tcp_addr_port(&a);
    return fd;
}

static void use_domain(const char *name, struct recipients **r) {
    struct recipients_domain_config d = {.name = name, .directory = RECIPIENTS_ANY};
    struct recipients_config c = {
        .domains = &d, .count = 1, .postmaster = "postmaster@any.example", .hostname = "mx.example"};
    struct buf problems;
    buf_init(&problems, 4096);
    assert_int_equal(recipients_new(r, &c, &problems), ERR_OK);
    buf_deinit(&problems);
}

static int setup(void **state) {
    (void)state;
    memset(&t, 0, sizeof t);
    t.bus = bus_new(1);
    t.loop = loop_new();
    t.guard = loop_timer_new(t.loop, on_guard, NULL);
    buf_init(&t.scratch, FRAME_META_MAX);
    arena_init(&t.mem, 4096, 1 << 20);
    assert_int_equal(tcp_net_parse(&t.trusted, SPAN("198.51.100.0/24")), ERR_OK);
    t.settings =
        (struct inbound_settings){.hostname = "mx.example", .name = "mx", .trusted = &t.trusted, .trusted_count = 1};
    t.settings.limits = (struct inbound_limits){.message_size = 70000,
                                                .recipients = 100,
                                                .connections = 100,
                                                .connections_per_client = 100,
                                                .received_headers = 50,
                                                .commands_bad = 20,
                                                .memory = 4 << 20,
                                                .idle_ms = 300000};
    assert_int_equal(
        bus_hub_open(&t.scheduler, t.bus, t.loop, "inproc://scheduler", FRAME_PART_MAX, 16 << 20, on_scheduler, NULL),
        ERR_OK);
    assert_int_equal(bus_hub_open(&t.admin, t.bus, t.loop, "inproc://admin", FRAME_PART_MAX, 16 << 20, on_admin, NULL),
                     ERR_OK);
    use_domain("any.example", &t.recipients);
    int fds[1][16] = {{bind_port()}};
    struct inbound_config c = {.bus = t.bus,
                               .scheduler = "inproc://scheduler",
                               .admin = "inproc://admin",
                               .loops = 1,
                               .fds = (const int(*)[16])fds,
                               .listeners = 1};
    struct inbound_parts parts = {.recipients = t.recipients};
    assert_int_equal(inbound_start(&t.inbound, &c, &t.settings, &parts), ERR_OK);
    WAIT(t.desk_len > 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    if (t.inbound)
        inbound_stop(t.inbound);
    recipients_unref(t.recipients);
    bus_hub_close(t.scheduler);
    bus_hub_close(t.admin);
    loop_timer_close(t.guard);
    loop_free(t.loop);
    bus_free(t.bus);
    buf_deinit(&t.scratch);
    arena_deinit(&t.mem);
    return 0;
}

#define MESSAGE "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@any.example>\r\nDATA\r\n"

static void test_message_and_stop(void **state) {
    struct client c, idle;
    (void)state;
    client_open(&c);
    client_open(&idle);
    say(&c, "", "220 mx.example");
    say(&idle, "", "220");
    assert_int_equal(inbound_sessions(t.inbound), 2);
    say(&c, "EHLO c.example\r\n", "250 HELP");
    say(&c, MESSAGE, "354");
    say(&c, "hello\r\n.\r\n", "250 2.0.0 queued as");
    say(&c, "QUIT\r\n", NULL);
    close(c.fd);
    WAIT(inbound_sessions(t.inbound) == 1);
    inbound_stop(t.inbound); /* cuts off the other one */
    say(&idle, "", NULL);
    close(idle.fd);
    t.inbound = NULL;
}

/* A reload shows at the next transaction, and not inside one. */
static void test_reload(void **state) {
    struct client c;
    struct recipients *fresh;
    (void)state;
    client_open(&c);
    say(&c, "EHLO c.example\r\n", "SIZE 70000");
    say(&c, "MAIL FROM:<a@b.example>\r\n", "250 2.1.0");
    t.settings.limits.message_size = 80000;
    t.settings.hostname = "new.example";
    use_domain("new.example", &fresh);
    struct inbound_parts parts = {.recipients = fresh};
    assert_int_equal(inbound_reconfigure(t.inbound, &t.settings, &parts), ERR_OK);
    recipients_unref(t.recipients);
    t.recipients = fresh;
    turn(100);
    say(&c, "RCPT TO:<x@new.example>\r\n", "550 5.7.1");
    say(&c, "RCPT TO:<x@any.example>\r\n", "250 2.1.5");
    say(&c, "RSET\r\n", "250 2.0.0");
    say(&c, "EHLO c.example\r\n", "SIZE 80000");
    assert_non_null(strstr(c.text, "250-new.example"));
    say(&c, "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@new.example>\r\n", "250 2.1.5");
    say(&c, "RCPT TO:<x@any.example>\r\n", "550 5.7.1");
    close(c.fd);
}

static void on_drained(void *arg) {
    (void)arg;
    atomic_fetch_add(&t.drained, 1);
}

static void test_drain(void **state) {
    struct client idle, body;
    (void)state;
    client_open(&idle);
    client_open(&body);
    say(&idle, "EHLO c.example\r\n", "250 HELP");
    say(&body, "EHLO c.example\r\n" MESSAGE, "354");
    inbound_drain(t.inbound, 10000, on_drained, NULL);
    say(&idle, "", "421 4.3.2");
    assert_int_equal(atomic_load(&t.drained), 0);
    say(&body, "x\r\n.\r\n", "421 4.3.2");
    assert_non_null(strstr(body.text, "250 2.0.0 queued"));
    WAIT(atomic_load(&t.drained) == 1);
    close(idle.fd);
    close(body.fd);
}

/* A session that waits for the scheduler does not hold up the end for ever. */
static void test_drain_timeout(void **state) {
    struct client c;
    (void)state;
    t.silent = true;
    client_open(&c);
    say(&c, "EHLO c.example\r\n" MESSAGE, "354");
    say(&c, "x\r\n.\r\nNOOP\r\n", "");
    WAIT(t.submits == 1);
    uint64_t start = clock_mono_ms();
    inbound_drain(t.inbound, 1000, on_drained, NULL);
    WAIT(atomic_load(&t.drained) == 1);
    assert_in_range(clock_mono_ms() - start, 900, 4000);
    assert_int_equal(inbound_sessions(t.inbound), 1);
    close(c.fd);
}

/* A client that goes away while its message is on the way: the answer meets nobody, and nothing is harmed. */
static void test_client_leaves(void **state) {
    struct client c;
    (void)state;
    t.silent = true;
    client_open(&c);
    say(&c, "EHLO c.example\r\n" MESSAGE, "354");
    say(&c, "x\r\n.\r\n", "");
    WAIT(t.submits == 1);
    struct linger reset = {1, 0};
    assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(c.fd);
    WAIT(inbound_sessions(t.inbound) == 0);
    t.silent = false;
    client_open(&c);
    say(&c, "EHLO c.example\r\n" MESSAGE, "354");
    say(&c, "x\r\n.\r\nQUIT\r\n", "221");
    close(c.fd);
}

/* -- the operator -- */

static void ask(Words__AdminVerb verb, const char *address, const char *client) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    unsigned before = t.replies;
    q.verb = verb;
    q.has_address = address != NULL;
    q.address = frame_bytes(span_of(address));
    q.has_client = client != NULL;
    q.client = frame_bytes(span_of(client));
    assert_int_equal(
        frame_send_hub(t.admin, span_make(t.desk, t.desk_len), FRAME_ADMIN_REQUEST, 5, 0, &q.base, NULL, &t.scratch),
        ERR_OK);
    WAIT(t.replies == before + 1);
}

static void test_verify(void **state) {
    (void)state;
    ask(WORDS__ADMIN_VERB__ADMIN_VERIFY, "x@any.example", NULL);
    assert_int_equal(t.code, 250);
    assert_true(t.steps > 0);
    ask(WORDS__ADMIN_VERB__ADMIN_VERIFY, "<x@other.example>", NULL);
    assert_int_equal(t.code, 550);
    assert_non_null(strstr(t.text, "5.7.1"));
    ask(WORDS__ADMIN_VERB__ADMIN_VERIFY, "x@other.example", "198.51.100.7");
    assert_int_equal(t.code, 250);
    ask(WORDS__ADMIN_VERB__ADMIN_VERIFY, "x@other.example", "192.0.2.1");
    assert_int_equal(t.code, 550);
    static const char *const bad[] = {"", "x", "<x@any.example", "<x@any.example>y", "@", "x@any.example\r\nRCPT"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ask(WORDS__ADMIN_VERB__ADMIN_VERIFY, bad[i], NULL);
        assert_int_equal(t.error, -ERR_INVALID);
    }
    ask(WORDS__ADMIN_VERB__ADMIN_ROUTE, "x@any.example", NULL);
    assert_int_equal(t.error, -ERR_UNSUPPORTED);
}

static void test_status(void **state) {
    (void)state;
    ask(WORDS__ADMIN_VERB__ADMIN_STATUS, NULL, NULL);
    assert_int_equal(t.error, 0);
    assert_true(t.figures > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_message_and_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_leaves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
