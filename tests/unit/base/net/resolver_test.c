/*
 * resolver: against a real server for what is right, and against a small one for what is not: cut, foreign, malformed
 * and missing answers. Names and server lists that cannot be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>

#include "tests/unit/gateway/filter/nsd.h"

static const struct zone zones[] = {{"dns.test", "t TXT \"one \" \"two\"\nt TXT \"three\"\n"
                                                 "a A 192.0.2.1\na A 192.0.2.2\na AAAA 2001:db8::5\n"
                                                 "mx MX 20 b\nmx MX 10 a\nc1 CNAME c2\nc2 CNAME a\n"
                                                 "p PTR a.dns.test.\nlost CNAME nowhere\n"
                                                 "big TXT \"XX\"\n"}};

struct world {
    struct nsd nsd;
    struct resolver *r;
    struct arena mem;
    struct resolver_answer a;
    char *records;
    struct zone zone;
};

static int start(void **state) {
    struct world *w = calloc(1, sizeof *w);
    *state = w;
    arena_init(&w->mem, 8192, 0);
    w->records = calloc(1, 65536);
    size_t len = (size_t)snprintf(w->records, 65536, "%s", zones[0].records);
    for (int i = 0; i < 60; i++)
        len += (size_t)snprintf(w->records + len, 65536 - len, "big TXT \"%03d-%0200d\"\n", i, 0);
    for (int i = 0; i < 120; i++)
        len += (size_t)snprintf(w->records + len, 65536 - len, "many A 198.18.1.%d\n", i);
    w->zone = (struct zone){zones[0].name, w->records};
    nsd_start(&w->nsd, &w->zone, 1);
    return resolver_new(&w->r, w->nsd.servers);
}

static int stop(void **state) {
    struct world *w = *state;
    resolver_free(w->r);
    arena_deinit(&w->mem);
    nsd_stop(&w->nsd);
    free(w->records);
    free(w);
    return 0;
}

static enum resolver_status ask_at(struct world *w, struct resolver *r, const char *name, enum resolver_type type,
                                   uint64_t patience_ms) {
    return resolver_ask(r, name, type, clock_mono_ms() + patience_ms, &w->mem, &w->a);
}

static enum resolver_status ask(struct world *w, const char *name, enum resolver_type type) {
    return ask_at(w, w->r, name, type, 5000);
}

static void test_found(void **state) {
    struct world *w = *state;
    assert_int_equal(ask(w, "t.dns.test", RESOLVER_TXT), RESOLVER_FOUND);
    assert_int_equal(w->a.count, 2);
    bool first = span_eq(w->a.records[0].text, SPAN("three"));
    assert_true(span_eq(w->a.records[first].text, SPAN("one two")));
    assert_int_equal(ask(w, "A.dns.test.", RESOLVER_A), RESOLVER_FOUND);
    assert_int_equal(w->a.count, 2);
    assert_int_equal(w->a.records[0].addr[0], 192);
    assert_int_equal(ask(w, "a.dns.test", RESOLVER_AAAA), RESOLVER_FOUND);
    assert_int_equal(w->a.records[0].addr[15], 5);
    assert_int_equal(ask(w, "mx.dns.test", RESOLVER_MX), RESOLVER_FOUND);
    for (size_t i = 0; i < 2; i++) {
        const struct resolver_record *r = &w->a.records[i];
        assert_true(span_eq(r->text, r->preference == 10 ? SPAN("a.dns.test") : SPAN("b.dns.test")));
    }
    assert_int_equal(ask(w, "p.dns.test", RESOLVER_PTR), RESOLVER_FOUND);
    assert_string_equal(w->a.records[0].text.at, "a.dns.test");
    assert_int_equal(ask(w, "c1.dns.test", RESOLVER_A), RESOLVER_FOUND);
    assert_int_equal(w->a.count, 2);
}

static void test_not_found(void **state) {
    struct world *w = *state;
    assert_int_equal(ask(w, "gone.dns.test", RESOLVER_TXT), RESOLVER_NXDOMAIN);
    assert_int_equal(ask(w, "a.dns.test", RESOLVER_TXT), RESOLVER_NO_DATA);
    assert_int_equal(ask(w, "c1.dns.test", RESOLVER_TXT), RESOLVER_NO_DATA);
    assert_int_equal(ask(w, "lost.dns.test", RESOLVER_A), RESOLVER_NXDOMAIN);
    assert_int_equal(ask(w, "not.ours.example", RESOLVER_A), RESOLVER_TEMPORARY); /* REFUSED */
    assert_int_equal(w->a.count, 0);
}

static void test_long_answers_come_over_tcp(void **state) {
    struct world *w = *state;
    assert_int_equal(ask(w, "big.dns.test", RESOLVER_TXT), RESOLVER_FOUND);
    assert_int_equal(w->a.count, 61);
    assert_int_equal(ask(w, "many.dns.test", RESOLVER_A), RESOLVER_FOUND);
    assert_int_equal(w->a.count, RESOLVER_RECORDS_MAX);
}

static void test_names_that_cannot_be(void **state) {
    struct world *w = *state;
    const char *names[] = {"",         ".",
                           "a..test",  ".test",
                           "a b.test", "a\\.test",
                           "\x80",     "a\ntest",
                           "a.test..", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test"};
    char longest[300];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(ask(w, names[i], RESOLVER_A), RESOLVER_NXDOMAIN);
    memset(longest, 'a', sizeof longest);
    for (size_t i = 50; i < sizeof longest; i += 50)
        longest[i] = '.';
    longest[299] = 0;
    assert_int_equal(ask(w, longest, RESOLVER_A), RESOLVER_NXDOMAIN);
}

static void test_lists_of_servers(void **state) {
    struct resolver *r;
    const char *bad[] = {"", "x", "127.0.0.1:99999", "127.0.0.1,x", "1.1.1.1,1.1.1.1,1.1.1.1,x", "unix:/x"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(resolver_new(&r, bad[i]), ERR_INVALID);
    assert_int_equal(resolver_new(&r, "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4"), ERR_OK);
    resolver_free(r);
    assert_int_equal(resolver_new(&r, "127.0.0.1, [::1]:53"), ERR_OK);
    resolver_free(r);
    assert_int_equal(resolver_new(&r, NULL), ERR_OK);
    resolver_free(r);
}

static void test_next_server_is_asked(void **state) {
    struct world *w = *state;
    uint16_t port = 0;
    char servers[80];
    struct resolver *r;
    int dead = nsd_socket(SOCK_DGRAM, &port);
    snprintf(servers, sizeof servers, "[::1]:%u,127.0.0.1:%u,%s", port, port, w->nsd.servers);
    assert_int_equal(resolver_new(&r, servers), ERR_OK);
    assert_int_equal(ask_at(w, r, "a.dns.test", RESOLVER_A, 9000), RESOLVER_FOUND);
    resolver_free(r);
    close(dead);
}

/* -- a server that misbehaves, as the name it is asked for says -- */
struct liar {
    pthread_t thread;
    int udp, tcp, end[2];
    uint16_t port;
};

static size_t lie(const char *name, unsigned char *m, size_t len) {
    m[2] |= 0x80;
    m[10] = m[11] = 0; /* no EDNS */
    for (len = 12; m[len]; len += m[len] + 1u)
        ;
    len += 5;
    static const unsigned char owned[] = {0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 3, 2, 'o', 'k'};
    memcpy(m + len, owned, sizeof owned);
    m[7] = 1;
    switch (name[0]) {
    case 'g': /* good */
        return len + sizeof owned;
    case 's': /* a string longer than its record */
        m[len + 12] = 9;
        return len + sizeof owned;
    case 'c': /* fewer records than it says */
        m[7] = 9;
        return len + sizeof owned;
    case 'f':            /* the record of another name */
        m[len + 1] = 20; /* "test" of "foreign.test" */
        return len + sizeof owned;
    case 'p': /* a pointer to itself */
        m[len + 1] = (unsigned char)len;
        return len + sizeof owned;
    case 'e':
        m[7] = 0;
        m[3] |= 2;
        return len;
    case 't': /* cut: over TCP nothing comes */
        m[7] = 0;
        m[2] |= 2;
        return len;
    default:
        return 0;
    }
}

static void *lies(void *arg) {
    struct liar *l = arg;
    struct pollfd p[] = {{.fd = l->udp, .events = POLLIN}, {.fd = l->end[0], .events = POLLIN}};
    unsigned char m[2048];
    while (poll(p, 2, -1) > 0 && !p[1].revents) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(l->udp, m, 512, 0, (struct sockaddr *)&from, &size);
        size_t len = n > 13 ? lie((char *)m + 13, m, (size_t)n) : 0;
        if (len)
            sendto(l->udp, m, len, 0, (struct sockaddr *)&from, size);
    }
    return NULL;
}

static void test_bad_answers(void **state) {
    struct world *w = *state;
    struct liar l = {.port = 0};
    struct resolver *r;
    char servers[32];
    l.udp = nsd_socket(SOCK_DGRAM, &l.port);
    l.tcp = nsd_socket(SOCK_STREAM, &l.port);
    assert_true(l.tcp >= 0 && !listen(l.tcp, 4) && !pipe(l.end)); /* accepts, and says nothing */
    assert_int_equal(pthread_create(&l.thread, NULL, lies, &l), 0);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", l.port);
    assert_int_equal(resolver_new(&r, servers), ERR_OK);
    assert_int_equal(ask_at(w, r, "good.test", RESOLVER_TXT, 3000), RESOLVER_FOUND);
    assert_true(span_eq(w->a.records[0].text, SPAN("ok")));
    assert_int_equal(ask_at(w, r, "string.test", RESOLVER_TXT, 3000), RESOLVER_NO_DATA);
    assert_int_equal(ask_at(w, r, "count.test", RESOLVER_TXT, 3000), RESOLVER_TEMPORARY);
    assert_int_equal(ask_at(w, r, "foreign.test", RESOLVER_TXT, 3000), RESOLVER_NO_DATA);
    assert_int_equal(ask_at(w, r, "pointer.test", RESOLVER_TXT, 3000), RESOLVER_TEMPORARY);
    assert_int_equal(ask_at(w, r, "error.test", RESOLVER_TXT, 1000), RESOLVER_TEMPORARY);
    assert_int_equal(ask_at(w, r, "tcp.test", RESOLVER_TXT, 500), RESOLVER_TEMPORARY);
    assert_int_equal(ask_at(w, r, "nothing.test", RESOLVER_TXT, 500), RESOLVER_TEMPORARY);
    assert_int_equal(ask_at(w, r, "late.test", RESOLVER_TXT, 0), RESOLVER_TEMPORARY);
    resolver_free(r);
    assert_int_equal(write(l.end[1], "x", 1), 1);
    pthread_join(l.thread, NULL);
    close(l.udp);
    close(l.tcp);
    close(l.end[0]);
    close(l.end[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_long_answers_come_over_tcp),
        cmocka_unit_test(test_names_that_cannot_be),
        cmocka_unit_test(test_lists_of_servers),
        cmocka_unit_test(test_next_server_is_asked),
        cmocka_unit_test(test_bad_answers),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
