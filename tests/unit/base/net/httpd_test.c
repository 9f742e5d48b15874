/* httpd: whole requests reach the loop, answers come back, and what is too large, too slow or too many is turned away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/net/httpd.h"

struct rig {
    struct loop *loop;
    struct loop_wake *stop, *go;
    struct httpd *h;
    struct tcp_addr at;
    pthread_t thread;
    struct httpd_request *held;
};

static void answer_text(struct httpd_request *r, unsigned status, struct buf *text) {
    const struct httpd_field fields[] = {{"Content-Type", "text/plain"}, {"X-Test", "yes"}, {NULL, NULL}};
    httpd_answer(r, &(struct httpd_answer){.status = status, .fields = fields, .body = text});
}

static void on_request(void *arg, struct httpd_request *r) {
    struct rig *g = arg;
    struct buf b;
    struct span q = SPAN_EMPTY, agent = SPAN_EMPTY;
    char ip[128];
    if (strcmp(httpd_path(r), "/held") == 0) {
        g->held = r;
        return;
    }
    buf_init(&b, 20u << 20);
    if (strcmp(httpd_path(r), "/huge") == 0) {
        char *at = buf_reserve(&b, HTTPD_ANSWER_MAX + 1);
        memset(at, 'x', HTTPD_ANSWER_MAX + 1);
        buf_commit(&b, HTTPD_ANSWER_MAX + 1);
        answer_text(r, 200, &b);
        return;
    }
    httpd_argument(r, "q", &q);
    httpd_header(r, "x-agent", &agent);
    tcp_addr_ip(httpd_client(r), ip, sizeof ip);
    buf_printf(&b, "%s %s q=%.*s agent=%.*s from=%s body=%zu", httpd_method(r), httpd_path(r), SPAN_FMT(q),
               SPAN_FMT(agent), ip, httpd_body(r).len);
    answer_text(r, 200, &b);
}

static void on_stop(void *arg) {
    loop_stop(arg);
}

static void on_go(void *arg) {
    struct rig *g = arg;
    struct buf b;
    if (!g->held)
        return;
    buf_init(&b, 100);
    buf_add_str(&b, "at last");
    answer_text(g->held, 200, &b);
    g->held = NULL;
}

static void *run(void *arg) {
    struct rig *g = arg;
    loop_run(g->loop);
    return NULL;
}

static void rig_open(struct rig *g, uint32_t connections, uint64_t read_ms) {
    *g = (struct rig){.loop = loop_new()};
    assert_int_equal(tcp_addr_parse(&g->at, SPAN("127.0.0.1"), 0), ERR_OK);
    int fd = tcp_bind(&g->at, false);
    assert_true(fd >= 0);
    g->at.len = sizeof g->at.storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&g->at.storage, &g->at.len), 0);
    g->stop = loop_wake_new(g->loop, on_stop, g->loop);
    g->go = loop_wake_new(g->loop, on_go, g);
    struct httpd_config c = {
        .loop = g->loop, .fd = fd, .connections_max = connections, .read_ms = read_ms, .cb = on_request, .arg = g};
    assert_int_equal(httpd_open(&g->h, &c), ERR_OK);
    assert_int_equal(pthread_create(&g->thread, NULL, run, g), 0);
}

static void rig_stop_loop(struct rig *g) {
    loop_wake_send(g->stop);
    pthread_join(g->thread, NULL);
}

static void rig_close(struct rig *g) {
    httpd_close(g->h);
    loop_wake_close(g->stop);
    loop_wake_close(g->go);
    loop_free(g->loop);
}

static int dial(const struct rig *g) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&g->at.storage, g->at.len), 0);
    return fd;
}

static void say(int fd, const char *text, size_t len) {
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the server has said what it thinks already */
        text += n;
        len -= (size_t)n;
    }
}

/* All until the server closes. */
static const char *hear(int fd) {
    static char all[8192];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof all - 1 && (n = recv(fd, all + len, sizeof all - 1 - len, 0)) > 0)
        len += (size_t)n;
    all[len] = '\0';
    close(fd);
    return all;
}

static const char *ask(const struct rig *g, const char *text) {
    int fd = dial(g);
    say(fd, text, strlen(text));
    return hear(fd);
}

#define END "Host: localhost\r\nConnection: close\r\n\r\n"

static void test_questions(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 0, 0);
    const char *a = ask(&g, "GET /a%2Fb%00c?q=x%26y+z&q=2 HTTP/1.1\r\nX-Agent: me\r\n" END);
    assert_non_null(strstr(a, "HTTP/1.1 200 "));
    assert_non_null(strstr(a, "X-Test: yes"));
    assert_non_null(strstr(a, "GET /a/b%00c q=x&y z agent=me from=127.0.0.1 body=0"));
    a = ask(&g, "POST /p HTTP/1.1\r\nContent-Length: 5\r\n" END "hello");
    assert_non_null(strstr(a, "POST /p q= agent= from=127.0.0.1 body=5"));
    a = ask(&g, "HEAD /h HTTP/1.1\r\n" END);
    assert_non_null(strstr(a, "200 OK"));
    assert_null(strstr(a, "HEAD /h"));
    assert_non_null(strstr(ask(&g, "GET /huge HTTP/1.1\r\n" END), " 500 "));
    assert_non_null(strstr(ask(&g, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), " 400 ")); /* no Host */
    assert_null(strstr(ask(&g, "\1\2 garbage\r\n\r\n"), " 200 "));
    rig_stop_loop(&g);
    rig_close(&g);
}

static void test_bounds(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 0, 0);
    assert_non_null(strstr(ask(&g, "POST /p HTTP/1.1\r\nContent-Length: 65537\r\n" END), " 413 "));
    assert_null(strstr(ask(&g, "POST /p HTTP/1.1\r\nContent-Length: -1\r\n" END), " 200 "));
    assert_null(strstr(ask(&g, "POST /p HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n" END), " 200 "));
    char *big = malloc(200000);
    assert_non_null(big);
    int len = snprintf(big, 200000, "POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "11170\r\n");
    memset(big + len, 'x', 0x11170);
    len += 0x11170 + snprintf(big + len + 0x11170, 100, "\r\n0\r\n\r\n");
    int fd = dial(&g);
    say(fd, big, (size_t)len);
    assert_non_null(strstr(hear(fd), " 413 "));
    len = snprintf(big, 200000, "GET /p HTTP/1.1\r\nX-Long: ");
    memset(big + len, 'y', 100000);
    memcpy(big + len + 100000, "\r\n" END, strlen("\r\n" END));
    fd = dial(&g);
    say(fd, big, (size_t)len + 100000 + strlen("\r\n" END));
    assert_null(strstr(hear(fd), " 200 "));
    len = snprintf(big, 200000, "GET /p HTTP/1.1\r\n");
    for (int i = 0; i < 200; i++)
        len += snprintf(big + len, 100, "X-%d: y\r\n", i);
    snprintf(big + len, 100, END);
    assert_non_null(strstr(ask(&g, big), " 413 "));
    free(big);
    assert_non_null(strstr(ask(&g, "GET /p HTTP/1.1\r\n" END), " 200 ")); /* and it serves on */
    rig_stop_loop(&g);
    rig_close(&g);
}

/* One octet now and then keeps nobody's connection. */
static void test_slow(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 0, 300);
    int fd = dial(&g), octets = 0;
    char c;
    say(fd, "GET / HTTP/1.1\r\nX: ", 19);
    while (recv(fd, &c, 1, MSG_DONTWAIT) != 0 && octets++ < 2000) {
        say(fd, "y", 1);
        usleep(10000);
    }
    assert_true(octets < 2000);
    close(fd);
    rig_stop_loop(&g);
    rig_close(&g);
}

/* Two connections of one client, the third waits. */
static void test_many(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 4, 0);
    static const char question[] = "GET /held HTTP/1.1\r\n" END;
    int first = dial(&g), second = dial(&g);
    say(first, question, sizeof question - 1);
    usleep(200000);
    char c;
    int third = dial(&g);
    say(third, "GET /p HTTP/1.1\r\n" END, strlen("GET /p HTTP/1.1\r\n" END));
    assert_false(recv(third, &c, 1, 0) == 1); /* over the client's share: closed */
    close(third);
    close(second);
    loop_wake_send(g.go);
    assert_non_null(strstr(hear(first), "at last"));
    rig_stop_loop(&g);
    rig_close(&g);
}

static void test_close(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 0, 0);
    static const char question[] = "GET /held HTTP/1.1\r\n" END;
    int held = dial(&g);
    say(held, question, sizeof question - 1);
    usleep(200000);
    rig_stop_loop(&g);
    int unseen = dial(&g); /* its letter lies unopened */
    say(unseen, question, sizeof question - 1);
    usleep(200000);
    rig_close(&g);
    assert_null(strstr(hear(held), " 200 "));
    assert_null(strstr(hear(unseen), " 200 "));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions), cmocka_unit_test(test_bounds), cmocka_unit_test(test_slow),
        cmocka_unit_test(test_many),      cmocka_unit_test(test_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
