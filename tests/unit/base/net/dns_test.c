/* dns: the resolver against a small server on loopback that answers over UDP, and over TCP after a cut answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/net/tcp.h"
#include "tests/unit/base/net/dns_packet.h"

struct world {
    struct loop *loop;
    struct loop_timer *guard;
    struct loop_poll *poll;
    struct tcp_listener *listener;
    struct dns *dns;
    int fd;
    unsigned asked, answered;
    bool timed_out, saw_ad, saw_edns;
    enum dns_status status;
    char why[64], first[DNS_NAME_MAX + 1];
    uint32_t ttl_s;
    size_t count;
};

static struct packet packet;

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

/* What the server says is told by the name it is asked for. */
static bool make_answer(const char *name, uint16_t id, enum dns_type type, bool over_tcp) {
    put_question(&packet, id, 0, name, type);
    if (strcmp(name, "sorted.test") == 0) {
        put_mx(&packet, NULL, 300, 20, "b.test");
        put_mx(&packet, NULL, 200, 10, "a.test");
    } else if (strcmp(name, "null.test") == 0) {
        put_mx(&packet, NULL, 300, 0, "");
    } else if (strcmp(name, "gone.test") == 0) {
        packet.bytes[3] |= 3;
        put_soa(&packet, "test", 600, 77);
    } else if (strcmp(name, "loop.test") == 0) {
        put_alias(&packet, NULL, 60, "loop.test");
    } else if (strcmp(name, "cut.test") == 0) {
        put_mx(&packet, NULL, 300, 20, "b.test");
        packet.len -= 3;
    } else if (strcmp(name, "fail.test") == 0) {
        packet.bytes[3] |= 2;
    } else if (strcmp(name, "big.test") == 0) {
        if (!over_tcp)
            packet.bytes[2] |= 2;
        char target[32];
        for (unsigned i = 0; over_tcp && i < 150; i++) {
            snprintf(target, sizeof target, "mx%u.test", i);
            put_mx(&packet, NULL, 60, i, target);
        }
    } else if (strcmp(name, "wide.test") == 0) { /* more than 512 bytes, less than EDNS allows */
        char target[32];
        for (unsigned i = 0; i < 30; i++) {
            snprintf(target, sizeof target, "mx%u.test", i);
            put_mx(&packet, NULL, 60, i, target);
        }
    } else if (strcmp(name, "host.test") == 0) {
        put_address(&packet, NULL, 60, "\x7f\0\0\x1", 4);
    } else {
        return false; /* silence */
    }
    return true;
}

/* Reads a question and makes the answer; false: none is given. */
static bool answer_to(struct world *w, const unsigned char *question, size_t len, bool over_tcp) {
    char name[256];
    size_t at = 12, used = 0;
    assert_true(len > 17);
    while (question[at]) {
        if (used)
            name[used++] = '.';
        memcpy(name + used, question + at + 1, question[at]);
        used += question[at];
        at += question[at] + 1u;
    }
    name[used] = '\0';
    w->asked++;
    w->saw_ad = question[3] & 0x20;
    w->saw_edns = question[11] == 1 && len == at + 5 + 11;
    return make_answer(name, (uint16_t)(question[0] << 8 | question[1]), question[at + 1] << 8 | question[at + 2],
                       over_tcp);
}

static void on_question(void *arg, int events, bool failed) {
    struct world *w = arg;
    unsigned char question[1500];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    (void)events;
    (void)failed;
    ssize_t len = recvfrom(w->fd, question, sizeof question, 0, (struct sockaddr *)&from, &from_len);
    if (len > 0 && answer_to(w, question, (size_t)len, false))
        assert_true(sendto(w->fd, packet.bytes, packet.len, 0, (struct sockaddr *)&from, from_len) > 0);
}

static void on_stream(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct world *w = arg;
    struct span in = buf_span(tcp_in(c));
    (void)err;
    if (event != TCP_READ) {
        tcp_close(c);
        return;
    }
    size_t len = in.len < 2 ? SIZE_MAX : (size_t)((unsigned char)in.at[0] << 8 | (unsigned char)in.at[1]);
    if (in.len < 2 || in.len < 2 + len || !answer_to(w, (const unsigned char *)in.at + 2, len, true))
        return;
    buf_consume(tcp_in(c), 2 + len);
    char size[2] = {(char)(packet.len >> 8), (char)packet.len};
    struct span pieces[] = {{size, 2}, {(const char *)packet.bytes, packet.len}};
    assert_int_equal(tcp_writev(c, pieces, 2), ERR_OK);
}

static void on_accept(void *arg, struct tcp *c, const struct tcp_addr *peer) {
    (void)peer;
    assert_int_equal(tcp_start(c, 65536, 131072, on_stream, arg), ERR_OK);
}

/* A UDP and a TCP socket on the same free port. */
static uint16_t open_server(struct world *w) {
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    struct tcp_addr a;
    for (int tries = 0; tries < 20; tries++) {
        sin.sin_port = 0;
        w->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_int_equal(bind(w->fd, (struct sockaddr *)&sin, sizeof sin), 0);
        assert_int_equal(getsockname(w->fd, (struct sockaddr *)&sin, &len), 0);
        assert_int_equal(tcp_addr_parse(&a, SPAN("127.0.0.1"), ntohs(sin.sin_port)), ERR_OK);
        int fd = tcp_bind(&a, false);
        if (fd >= 0) {
            w->listener = tcp_listen(w->loop, fd, 16, on_accept, w);
            return ntohs(sin.sin_port);
        }
        close(w->fd);
    }
    fail_msg("no free port");
    return 0;
}

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof *w);
    char servers[32];
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", open_server(w));
    w->poll = loop_poll_new(w->loop, w->fd, on_question, w);
    loop_poll_set(w->poll, LOOP_READABLE);
    assert_int_equal(dns_new(&w->dns, w->loop, servers, 100, 2), ERR_OK);
    return w;
}

static void world_free(struct world *w) {
    dns_free(w->dns);
    loop_poll_close(w->poll);
    tcp_listener_close(w->listener);
    loop_free(w->loop);
    close(w->fd);
    free(w);
}

static void on_answer(void *arg, const struct dns_answer *a) {
    struct world *w = arg;
    w->answered++;
    w->status = a->status;
    w->ttl_s = a->ttl_s;
    w->count = a->count;
    snprintf(w->why, sizeof w->why, "%s", a->why);
    snprintf(w->first, sizeof w->first, "%s", a->count ? a->records[0].name : "-");
    loop_stop(w->loop);
}

static void ask(struct world *w, const char *name, enum dns_type type) {
    w->answered = 0;
    w->asked = 0;
    loop_timer_set(w->guard, 10000);
    dns_query(w->dns, name, type, on_answer, w);
    if (!w->answered)
        loop_run(w->loop);
    assert_false(w->timed_out);
    assert_int_equal(w->answered, 1);
}

static void answers_arrive(void **state) {
    (void)state;
    struct world *w = world_new();
    ask(w, "sorted.test", DNS_MX);
    assert_int_equal(w->status, DNS_OK);
    assert_int_equal(w->count, 2);
    assert_string_equal(w->first, "a.test");
    assert_int_equal(w->ttl_s, 200);
    assert_true(w->saw_ad);
    assert_true(w->saw_edns);
    ask(w, "null.test", DNS_MX);
    assert_int_equal(w->status, DNS_OK);
    assert_string_equal(w->first, "");
    ask(w, "gone.test", DNS_MX);
    assert_int_equal(w->status, DNS_NXDOMAIN);
    assert_int_equal(w->ttl_s, 77);
    ask(w, "loop.test", DNS_A);
    assert_int_equal(w->status, DNS_LOOP);
    ask(w, "host.test", DNS_A);
    assert_int_equal(w->status, DNS_OK);
    world_free(w);
}

static void failures_are_temporary(void **state) {
    (void)state;
    struct world *w = world_new();
    ask(w, "cut.test", DNS_MX);
    assert_int_equal(w->status, DNS_TEMPFAIL);
    assert_string_equal(w->why, "malformed answer");
    ask(w, "fail.test", DNS_MX);
    assert_int_equal(w->status, DNS_TEMPFAIL);
    assert_string_equal(w->why, "server failure");
    ask(w, "silent.test", DNS_MX);
    assert_int_equal(w->status, DNS_TEMPFAIL);
    assert_string_equal(w->why, "timeout");
    assert_int_equal(w->asked, 2); /* as many as tries */
    ask(w, "sorted.test", DNS_MX); /* and the resolver still works */
    assert_int_equal(w->status, DNS_OK);
    ask(w, "bad name.test", DNS_MX);
    assert_int_equal(w->status, DNS_NXDOMAIN);
    assert_string_equal(w->why, "bad name");
    ask(w, "a.test", DNS_SOA);
    assert_int_equal(w->status, DNS_TEMPFAIL);
    assert_int_equal(w->asked, 0);
    world_free(w);
}

static void large_answers_arrive(void **state) {
    (void)state;
    struct world *w = world_new();
    ask(w, "wide.test", DNS_MX);
    assert_int_equal(w->status, DNS_OK);
    assert_int_equal(w->count, 30);
    assert_int_equal(w->asked, 1); /* over UDP */
    ask(w, "big.test", DNS_MX);
    assert_int_equal(w->status, DNS_OK);
    assert_int_equal(w->count, 150);
    assert_int_equal(w->asked, 2); /* once more, over TCP */
    world_free(w);
}

static void a_closed_port_fails_at_once(void **state) {
    (void)state;
    struct world *w = world_new();
    struct dns *other = w->dns;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* a port that nobody reads: bound, then closed */
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    close(fd);
    char servers[32];
    snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(sin.sin_port));
    assert_int_equal(dns_new(&w->dns, w->loop, servers, 5000, 2), ERR_OK);
    uint64_t begin = loop_now_ms(w->loop);
    ask(w, "sorted.test", DNS_MX);
    assert_int_equal(w->status, DNS_TEMPFAIL);
    assert_true(loop_now_ms(w->loop) - begin < 4000);
    dns_free(w->dns);
    char both[64];
    len = sizeof sin;
    snprintf(both, sizeof both, "%s,127.0.0.1:", servers);
    assert_int_equal(getsockname(w->fd, (struct sockaddr *)&sin, &len), 0);
    snprintf(both + strlen(both), 8, "%u", ntohs(sin.sin_port));
    assert_int_equal(dns_new(&w->dns, w->loop, both, 5000, 2), ERR_OK);
    ask(w, "sorted.test", DNS_MX); /* the second server answers */
    assert_int_equal(w->status, DNS_OK);
    dns_free(w->dns);
    w->dns = other;
    world_free(w);
}

static void count_answer(void *arg, const struct dns_answer *a) {
    unsigned *counts = arg;
    counts[a->status == DNS_TEMPFAIL && strcmp(a->why, "canceled") == 0]++;
}

static void many_at_once_and_abandoned_ones(void **state) {
    (void)state;
    struct world *w = world_new();
    unsigned kept[2] = {0}, dropped[2] = {0};
    for (int i = 0; i < 200; i++)
        dns_query(w->dns, "sorted.test", DNS_MX, count_answer, i % 2 ? kept : dropped);
    dns_cancel(w->dns, dropped);
    loop_timer_set(w->guard, 300);
    loop_run(w->loop);
    w->timed_out = false;
    assert_int_equal(kept[0], 100);
    assert_int_equal(dropped[0] + dropped[1], 0);
    for (int i = 0; i < 10; i++)
        dns_query(w->dns, "silent.test", DNS_MX, count_answer, kept);
    dns_free(w->dns); /* ends what is pending */
    assert_int_equal(kept[1], 10);
    w->dns = NULL;
    world_free(w);
}

static void bad_servers_are_refused(void **state) {
    (void)state;
    struct loop *l = loop_new();
    struct dns *d = NULL;
    static const char *const bad[] = {"",  "localhost", "127.0.0.1:99999",    "127.0.0.1,",
                                      ",", "unix:/a",   "127.0.0.1;127.0.0.2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(dns_new(&d, l, bad[i], 100, 1), ERR_INVALID);
    assert_int_equal(dns_new(&d, l, "127.0.0.1", 0, 1), ERR_INVALID);
    assert_int_equal(dns_new(&d, l, "127.0.0.1:5302,[::1]:53", 100, 1), ERR_OK);
    dns_free(d);
    loop_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_arrive),
        cmocka_unit_test(failures_are_temporary),
        cmocka_unit_test(large_answers_arrive),
        cmocka_unit_test(a_closed_port_fails_at_once),
        cmocka_unit_test(many_at_once_and_abandoned_ones),
        cmocka_unit_test(bad_servers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
