/*
 * The world of a session in tests: the front end on its own loop, before a scheduler that is played here, and scripted
 * servers for what a session asks: a policy service, a mail filter, and one that never says a word.
 */
#ifndef TESTS_SESSION_WORLD_H
#define TESTS_SESSION_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/net/bus.h"
#include "gateway/inbound/inbound.h"
#include "gateway/inbound/limits.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

enum { ENDS_MAX = 64, HEARD_MAX = 4096 };

/* A scripted server. */
struct played {
    struct tcp_listener *listener;
    struct tcp_addr address;
    struct tcp *ends[ENDS_MAX];
    size_t count;
    bool milter, silent; /* silent: it takes connections, reads, and says nothing */
    /* policy service */
    const char *action; /* "REJECT no" */
    unsigned questions;
    char question[2048]; /* the last one */
    /* milter */
    char hold; /* this command is not answered; 0: all are */
    struct tcp *held[ENDS_MAX];
    size_t held_count;
    char answer;           /* to `about` */
    char about;            /* 0: continue at all */
    char heard[HEARD_MAX]; /* one letter a command */
    size_t heard_len;
};

static struct world {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard;
    struct bus_hub *scheduler;
    struct inbound *inbound;
    struct recipients *recipients;
    struct inbound_settings settings;
    struct inbound_parts parts;
    struct recipients_domain_config domain;
    struct recipients_source source;
    struct milter_config milter;
    struct policy_config policy;
    struct tcp_net trusted, balancer;
    struct buf scratch;
    struct buf bodies; /* of all that was submitted */
    uint64_t credit;
    bool silent; /* Submit is not answered */
    unsigned submits;
    uint16_t port;
} w;

/* -- the scheduler -- */

static void on_scheduler(void *arg, struct span peer, const struct bus_message *m) {
    struct frame f;
    (void)arg;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    uint64_t cost = FRAME_COST(f.meta.len, bus_bytes_span(f.body).len);
    if (f.kind == FRAME_CHUNK || f.kind == FRAME_SUBMIT)
        buf_add(&w.bodies, bus_bytes_span(f.body));
    if (f.kind == FRAME_HELLO) {
        Words__Welcome welcome = WORDS__WELCOME__INIT;
        welcome.credit = w.credit;
        assert_int_equal(frame_send_hub(w.scheduler, peer, FRAME_WELCOME, 0, 0, &welcome.base, NULL, &w.scratch),
                         ERR_OK);
    } else if (f.kind == FRAME_CHUNK) {
        Words__Credit credit = WORDS__CREDIT__INIT;
        credit.bytes = cost;
        assert_int_equal(frame_send_hub(w.scheduler, peer, FRAME_CREDIT, 0, 0, &credit.base, NULL, &w.scratch), ERR_OK);
    } else if (f.kind == FRAME_SUBMIT && ++w.submits && !w.silent) {
        Words__Answer a = WORDS__ANSWER__INIT;
        a.verdict = VERDICT_STORED;
        a.credit = cost;
        assert_int_equal(frame_send_hub(w.scheduler, peer, FRAME_ANSWER, f.correlation, 0, &a.base, NULL, &w.scratch),
                         ERR_OK);
    }
}

static void on_world_guard(void *arg) {
    (void)arg;
    loop_stop(w.loop);
}

/* The played roles work for so long. */
static inline void turn(uint64_t ms) {
    loop_timer_set(w.guard, ms);
    loop_run(w.loop);
}

#define WAIT(condition)                                                                                                \
    do {                                                                                                               \
        for (int i_ = 0; i_ < 2000 && !(condition); i_++)                                                              \
            turn(5);                                                                                                   \
        assert_true(condition);                                                                                        \
    } while (0)

/* -- scripted servers -- */

static inline void milter_say_back(struct tcp *c, char command) {
    char packet[5] = {0, 0, 0, 1, command};
    assert_int_equal(tcp_write(c, packet, sizeof packet), ERR_OK);
}

static inline void milter_hear(struct played *p, struct tcp *c, char command) {
    static const char options[17] = {0, 0, 0, 13, 'O', 0, 0, 0, 6};
    if (command == 'D')
        return;
    if (command != 'O' && p->heard_len + 1 < HEARD_MAX)
        p->heard[p->heard_len++] = command;
    if (command == 'O')
        assert_int_equal(tcp_write(c, options, sizeof options), ERR_OK);
    else if (command == p->hold)
        p->held[p->held_count++ % ENDS_MAX] = c;
    else if (command != 'A' && command != 'Q')
        milter_say_back(c, command == p->about ? p->answer : 'c');
}

/* Nothing is held back any more. */
static inline void milter_release(struct played *p, char answer) {
    p->hold = 0;
    while (p->held_count)
        milter_say_back(p->held[--p->held_count], answer);
}

static inline void on_milter_octets(struct played *p, struct tcp *c) {
    for (;;) {
        struct span in = buf_span(tcp_in(c));
        const unsigned char *at = (const unsigned char *)in.at;
        size_t len = in.len < 5 ? 0 : (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
        if (in.len < 5 || in.len < 4 + len)
            return;
        char command = in.at[4];
        buf_consume(tcp_in(c), 4 + len);
        milter_hear(p, c, command);
    }
}

static inline void on_policy_octets(struct played *p, struct tcp *c) {
    struct span in = buf_span(tcp_in(c));
    char text[300];
    if (in.len < 2 || memcmp(in.at + in.len - 2, "\n\n", 2) != 0)
        return;
    span_copy(in, p->question, sizeof p->question);
    buf_consume(tcp_in(c), in.len);
    p->questions++;
    if (p->silent)
        return;
    int len = snprintf(text, sizeof text, "action=%s\n\n", p->action);
    assert_int_equal(tcp_write(c, text, (size_t)len), ERR_OK);
}

static void on_end(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct played *p = arg;
    (void)err;
    if (event == TCP_READ && p->milter) {
        on_milter_octets(p, c);
    } else if (event == TCP_READ) {
        on_policy_octets(p, c);
    } else if (event == TCP_EOF || event == TCP_FAILED) {
        for (size_t i = 0; i < p->count; i++) {
            if (p->ends[i] == c)
                p->ends[i] = p->ends[--p->count];
        }
        tcp_close(c);
    }
}

static void on_accept(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    struct played *p = arg;
    (void)peer;
    assert_true(p->count < ENDS_MAX);
    assert_int_equal(tcp_start(c, 1 << 20, 1 << 20, on_end, p), ERR_OK);
    p->ends[p->count++] = c;
}

static inline int bind_any(struct tcp_addr *a) {
    assert_int_equal(tcp_addr_parse(a, SPAN("127.0.0.1"), 0), ERR_OK);
    int fd = tcp_bind(a, true);
    assert_true(fd >= 0);
    a->len = sizeof a->storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a->storage, &a->len), 0);
    return fd;
}

static inline void play(struct played *p) {
    int fd = bind_any(&p->address);
    p->listener = tcp_listen(w.loop, fd, 64, on_accept, p);
    assert_non_null(p->listener);
}

static inline void play_end(struct played *p) {
    if (!p->listener)
        return;
    tcp_listener_close(p->listener);
    while (p->count)
        tcp_close(p->ends[--p->count]);
    *p = (struct played){0};
}

/* -- clients -- */

struct client {
    int fd;
    char text[8192]; /* of the last reply that was waited for */
};

static inline void client_open(struct client *c) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, SPAN("127.0.0.1"), w.port), ERR_OK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a.storage, a.len), 0);
}

static inline void client_send(struct client *c, const char *octets, size_t len) {
    while (len) {
        ssize_t sent = send(c->fd, octets, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            turn(5);
        octets += sent > 0 ? sent : 0;
        len -= sent > 0 ? (size_t)sent : 0;
    }
}

/* Gathers what comes until `wanted` is in it (or the server closes, with wanted NULL). */
static inline void expect(struct client *c, const char *wanted) {
    size_t have = 0;
    c->text[0] = '\0';
    for (int i = 0; i < 2000; i++) {
        ssize_t got = recv(c->fd, c->text + have, sizeof c->text - 1 - have, MSG_DONTWAIT);
        if (got == 0 && !wanted)
            return;
        if (got == 0)
            break;
        have += got > 0 ? (size_t)got : 0;
        c->text[have] = '\0';
        if (wanted && strstr(c->text, wanted))
            return;
        turn(5);
    }
    print_message("wanted %s, got %s\n", wanted ? wanted : "(end)", c->text);
    fail();
}

static inline void say(struct client *c, const char *text, const char *wanted) {
    client_send(c, text, strlen(text));
    expect(c, wanted);
}

/* Goes away at once. */
static inline void client_reset(struct client *c) {
    struct linger reset = {1, 0};
    assert_int_equal(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(c->fd);
}

/* -- start and end -- */

static inline struct recipients *make_recipients(const char *name) {
    struct recipients *r;
    struct buf problems;
    w.domain.name = name;
    struct recipients_config c = {
        .domains = &w.domain, .count = 1, .postmaster = "postmaster@any.example", .hostname = "mx.example"};
    buf_init(&problems, 4096);
    if (recipients_new(&r, &c, &problems) != ERR_OK)
        fail_msg("%.*s", (int)buf_len(&problems), buf_span(&problems).at);
    buf_deinit(&problems);
    return r;
}

/* Everything but the front end, which world_start begins when the settings are as the test wants them. */
static inline int world_setup(void **state) {
    (void)state;
    memset(&w, 0, sizeof w);
    w.bus = bus_new(1);
    w.loop = loop_new();
    w.guard = loop_timer_new(w.loop, on_world_guard, NULL);
    w.credit = 1 << 20;
    buf_init(&w.scratch, FRAME_META_MAX);
    buf_init(&w.bodies, 64 << 20);
    w.domain = (struct recipients_domain_config){.directory = RECIPIENTS_ANY};
    w.settings = (struct inbound_settings){.hostname = "mx.example",
                                           .name = "mx",
                                           .listener_count = 1,
                                           .listeners = {{.extensions = SERVER_EXT_BASIC}},
                                           .trusted = &w.trusted,
                                           .balancers = &w.balancer};
    w.settings.limits = (struct inbound_limits){.message_size = 20 << 20,
                                                .recipients = 1000,
                                                .connections = 100,
                                                .connections_per_client = 100,
                                                .received_headers = 50,
                                                .commands_bad = 20,
                                                .memory = 8 << 20,
                                                .idle_ms = 300000};
    assert_int_equal(
        bus_hub_open(&w.scheduler, w.bus, w.loop, "inproc://scheduler", FRAME_PART_MAX, 16 << 20, on_scheduler, NULL),
        ERR_OK);
    return 0;
}

static inline void world_start(void) {
    struct tcp_addr a;
    w.recipients = make_recipients("any.example");
    w.parts.recipients = w.recipients;
    int fds[1][16] = {{bind_any(&a)}};
    w.port = tcp_addr_port(&a);
    struct inbound_config c = {
        .bus = w.bus, .scheduler = "inproc://scheduler", .loops = 1, .fds = (const int(*)[16])fds, .listeners = 1};
    assert_int_equal(inbound_start(&w.inbound, &c, &w.settings, &w.parts), ERR_OK);
    WAIT(inbound_is_ready(w.inbound));
}

static inline void world_stop(void) {
    if (w.inbound)
        inbound_stop(w.inbound);
    w.inbound = NULL;
}

static inline int world_teardown(void **state) {
    (void)state;
    world_stop();
    recipients_unref(w.recipients);
    bus_hub_close(w.scheduler);
    loop_timer_close(w.guard);
    loop_free(w.loop);
    bus_free(w.bus);
    buf_deinit(&w.scratch);
    buf_deinit(&w.bodies);
    return 0;
}

static inline void use_policy(struct played *p, enum check_stage stage, const char *action) {
    p->action = action;
    play(p);
    w.policy = (struct policy_config){.name = "played", .address = p->address, .stage = stage, .timeout_ms = 60000};
    w.settings.policies = &w.policy;
    w.settings.policy_count = 1;
}

static inline void use_milter(struct played *p) {
    p->milter = true;
    play(p);
    w.milter = (struct milter_config){.name = "played", .address = p->address};
    w.settings.milters = &w.milter;
    w.settings.milter_count = 1;
}

#endif
