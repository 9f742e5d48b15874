/* http: against a real server that answers as its paths tell, plain and with TLS, well and badly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/net/http.h"
#include "tests/support/child.h"

static struct child plain, tls;
static char dir[] = "/tmp/posthouse-http-XXXXXX", ca_file[64];

struct world {
    struct loop *loop;
    struct loop_timer *guard;
    struct http *http;
    unsigned wanted, answered;
    bool timed_out, ask_again, free_inside, sent;
    unsigned parts, cancel_at, free_at;
    uint32_t part_status;
    struct http_request *stream;
    char pieces[256];
    int err;
    uint32_t status;
    char body[4096], why[400], type[64];
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static void start(struct world *w, const struct http_config *c) {
    *w = (struct world){0};
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    loop_timer_set(w->guard, 30000);
    assert_int_equal(http_new(&w->http, w->loop, c), ERR_OK);
}

static void stop(struct world *w) {
    http_free(w->http);
    loop_timer_close(w->guard);
    loop_free(w->loop);
}

static const char *url(const struct child *c, const char *scheme, const char *host, const char *path) {
    static char text[200];
    snprintf(text, sizeof text, "%s://%s:%u%s", scheme, host, c->port, path);
    return text;
}

static void on_answer(void *arg, const struct http_answer *a) {
    struct world *w = arg;
    w->err = a->err;
    w->status = a->status;
    w->sent = a->sent;
    span_copy(a->body, w->body, sizeof w->body);
    span_copy(a->content_type, w->type, sizeof w->type);
    snprintf(w->why, sizeof w->why, "%s", a->why);
    if (w->free_inside) {
        http_free(w->http);
        w->http = NULL;
    }
    if (w->ask_again) {
        const struct http_question q = {.method = "GET",
                                        .url = url(&plain, "http", "127.0.0.1", "/status/418"),
                                        .timeout_ms = 5000,
                                        .answer_max = 99};
        w->ask_again = false;
        assert_non_null(http_ask(w->http, &q, on_answer, w));
        w->wanted++;
    }
    if (++w->answered >= w->wanted)
        loop_stop(w->loop);
}

/* Asks and waits. */
static void ask(struct world *w, const struct http_question *q) {
    w->wanted = 1;
    w->answered = 0;
    assert_non_null(http_ask(w->http, q, on_answer, w));
    assert_int_equal(w->answered, 0);
    loop_run(w->loop);
    assert_false(w->timed_out);
    assert_int_equal(w->answered, w->wanted);
}

static void get(struct world *w, const char *path) {
    const struct http_question q = {
        .method = "GET", .url = url(&plain, "http", "127.0.0.1", path), .timeout_ms = 5000, .answer_max = 4000};
    ask(w, &q);
}

static void test_get_and_post(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    get(&w, "/echo");
    assert_int_equal(w.err, ERR_OK);
    assert_int_equal(w.status, 200);
    assert_string_equal(w.type, "application/json");
    assert_non_null(strstr(w.body, "\"method\": \"GET\""));
    assert_string_equal(w.why, "");
    const char *const heads[] = {"X-Test: yes", "Content-Type: text/odd", NULL};
    char words[] = "some words";
    const struct http_question q = {.method = "POST",
                                    .url = url(&plain, "http", "127.0.0.1", "/echo"),
                                    .headers = heads,
                                    .body = span_of(words),
                                    .timeout_ms = 5000,
                                    .answer_max = 4000};
    w.wanted = 1;
    w.answered = 0;
    assert_non_null(http_ask(w.http, &q, on_answer, &w));
    memset(words, 'x', sizeof words - 1); /* it was copied */
    loop_run(w.loop);
    assert_non_null(strstr(w.body, "\"method\": \"POST\""));
    assert_non_null(strstr(w.body, "\"body\": \"some words\""));
    assert_non_null(strstr(w.body, "\"X-Test\": \"yes\""));
    assert_non_null(strstr(w.body, "text/odd"));
    assert_non_null(strstr(w.body, "\"Expect\": null"));
    stop(&w);
}

static void test_statuses_are_answers(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    static const struct {
        const char *path;
        uint32_t status;
    } cases[] = {{"/status/404", 404}, {"/status/500", 500}, {"/status/204", 204}, {"/redirect", 302}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        get(&w, cases[i].path);
        assert_int_equal(w.err, ERR_OK);
        assert_int_equal(w.status, cases[i].status);
    }
    stop(&w);
}

static void test_bad_servers(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    get(&w, "/cut");
    assert_int_equal(w.err, ERR_IO);
    assert_true(w.why[0]);
    get(&w, "/huge");
    assert_int_equal(w.err, ERR_FULL);
    assert_string_equal(w.why, "the answer is too long");
    get(&w, "/heads");
    assert_int_equal(w.err, ERR_FULL);
    get(&w, "/garbage");
    assert_int_equal(w.err, ERR_IO);
    struct http_question q = {
        .method = "GET", .url = url(&plain, "http", "127.0.0.1", "/slow"), .timeout_ms = 100, .answer_max = 100};
    ask(&w, &q);
    assert_int_equal(w.err, ERR_TIMEOUT);
    q.url = url(&plain, "http", "127.0.0.1", "/silent");
    ask(&w, &q);
    assert_int_equal(w.err, ERR_TIMEOUT);
    q.url = "http://127.0.0.1:1/";
    q.timeout_ms = 5000;
    ask(&w, &q);
    assert_int_equal(w.err, ERR_UNREACHABLE);
    assert_true(w.why[0]);
    get(&w, "/echo"); /* and it still works */
    assert_int_equal(w.status, 200);
    stop(&w);
}

static void test_bad_questions(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    static const char *const urls[] = {"",        "nonsense",   "ftp://127.0.0.1/", "file:///etc/hostname",
                                       "http://", "http://a b/"};
    struct http_question q = {.method = "GET", .timeout_ms = 1000, .answer_max = 100};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        q.url = urls[i];
        assert_null(http_ask(w.http, &q, on_answer, &w));
    }
    q.url = "http://127.0.0.1/";
    q.headers = (const char *const[]){"X: a\r\nY: b", NULL};
    assert_null(http_ask(w.http, &q, on_answer, &w));
    stop(&w);
}

/* One connection serves many; those that wait for it do so within their own time. */
static void test_connections(void **state) {
    (void)state;
    struct world w;
    char before[16];
    start(&w, &(struct http_config){.connections_max = 1});
    get(&w, "/count");
    snprintf(before, sizeof before, "%.10s", w.body);
    struct http_question q = {
        .method = "GET", .url = url(&plain, "http", "127.0.0.1", "/count"), .timeout_ms = 20000, .answer_max = 100};
    w.wanted = 50;
    w.answered = 0;
    for (unsigned i = 0; i < w.wanted; i++)
        assert_non_null(http_ask(w.http, &q, on_answer, &w));
    loop_run(w.loop);
    assert_int_equal(w.answered, 50);
    assert_string_equal(w.body, before);
    char slow[200];
    snprintf(slow, sizeof slow, "%s", url(&plain, "http", "127.0.0.1", "/slow"));
    q.url = slow;
    struct http_request *first = http_ask(w.http, &q, on_answer, &w);
    assert_non_null(first);
    q.timeout_ms = 200;
    ask(&w, &q);
    assert_int_equal(w.err, ERR_TIMEOUT);
    http_cancel(first);
    get(&w, "/echo"); /* the connection's place is free again */
    assert_int_equal(w.status, 200);
    stop(&w);
}

static void test_ends_inside_callbacks(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    w.ask_again = true;
    get(&w, "/echo");
    assert_int_equal(w.answered, 2);
    assert_int_equal(w.status, 418);
    const struct http_question q = {
        .method = "GET", .url = url(&plain, "http", "127.0.0.1", "/slow"), .timeout_ms = 5000, .answer_max = 100};
    for (int i = 0; i < 3; i++) /* dropped without a callback */
        assert_non_null(http_ask(w.http, &q, on_answer, &w));
    w.free_inside = true;
    get(&w, "/echo");
    assert_int_equal(w.answered, 1);
    assert_null(w.http);
    stop(&w);
    start(&w, &(struct http_config){0});
    w.free_inside = true;
    struct http_question late = q;
    late.url = url(&plain, "http", "127.0.0.1", "/slow");
    late.timeout_ms = 50;
    ask(&w, &late);
    assert_int_equal(w.err, ERR_TIMEOUT);
    stop(&w);
}

static void test_certificates(void **state) {
    (void)state;
    struct world w;
    char to[64];
    snprintf(to, sizeof to, "127.0.0.1:%u", tls.port);
    struct http_question q = {.method = "GET", .url = "https://good.test/echo", .timeout_ms = 5000, .answer_max = 4000};
    q.connect_to = to;
    start(&w, &(struct http_config){0}); /* not signed by anybody the system knows */
    ask(&w, &q);
    assert_int_equal(w.err, ERR_DENIED);
    assert_true(w.why[0]);
    stop(&w);
    start(&w, &(struct http_config){.ca_file = ca_file});
    ask(&w, &q);
    assert_int_equal(w.err, ERR_OK);
    assert_int_equal(w.status, 200);
    assert_non_null(strstr(w.body, "\"Host\": \"good.test\""));
    q.url = "https://other.test/echo"; /* not its name */
    ask(&w, &q);
    assert_int_equal(w.err, ERR_DENIED);
    q.url = url(&plain, "https", "127.0.0.1", "/echo"); /* does not speak TLS */
    q.connect_to = NULL;
    ask(&w, &q);
    assert_int_equal(w.err, ERR_DENIED);
    stop(&w);
}

static void test_password(void **state) {
    (void)state;
    struct world w;
    struct child c;
    const char *const argv[] = {"python3", SOURCE_DIR "/tests/support/http_server.py", "--user", "me:secret:1", NULL};
    assert_true(child_start(&c, argv));
    start(&w, &(struct http_config){0});
    struct http_question q = {
        .method = "GET", .url = url(&c, "http", "127.0.0.1", "/echo"), .timeout_ms = 5000, .answer_max = 4000};
    ask(&w, &q);
    assert_int_equal(w.status, 401);
    q.user = "me";
    q.password = "secret:1";
    ask(&w, &q);
    assert_int_equal(w.status, 200);
    stop(&w);
    child_end(&c);
}

static void on_part(void *arg, uint32_t status, struct span octets) {
    struct world *w = arg;
    size_t len = strlen(w->pieces);
    w->parts++;
    w->part_status = status;
    if (len + octets.len < sizeof w->pieces)
        span_copy(octets, w->pieces + len, sizeof w->pieces - len);
    if (w->parts == w->cancel_at) {
        http_cancel(w->stream);
        w->stream = NULL;
        loop_stop(w->loop);
    }
    if (w->parts == w->free_at) {
        http_free(w->http);
        w->http = NULL;
        loop_stop(w->loop);
    }
}

static struct http_question stream_of(const char *path, size_t answer_max) {
    return (struct http_question){
        .method = "GET", .url = url(&plain, "http", "127.0.0.1", path), .answer_max = answer_max, .part = on_part};
}

static void test_streams(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    struct http_question q = stream_of("/pieces/10", 1000); /* without a time-out */
    ask(&w, &q);
    assert_int_equal(w.err, ERR_OK);
    assert_true(w.sent && w.parts > 1 && w.part_status == 200);
    assert_string_equal(w.body, "");
    assert_string_equal(w.pieces, "piece 0\npiece 1\npiece 2\npiece 3\npiece 4\npiece 5\npiece 6\npiece 7\npiece 8\n"
                                  "piece 9\n");
    w.pieces[0] = 0;
    q = stream_of("/status/404", 1000);
    ask(&w, &q);
    assert_true(w.err == ERR_OK && w.status == 404 && w.part_status == 404);
    assert_string_equal(w.pieces, "as asked");
    q = stream_of("/huge", 10); /* too much in one turn */
    ask(&w, &q);
    assert_int_equal(w.err, ERR_FULL);
    q = stream_of("/slow", 1000);
    q.timeout_ms = 100;
    ask(&w, &q);
    assert_int_equal(w.err, ERR_TIMEOUT);
    stop(&w);
}

static void test_streams_end_inside(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){0});
    struct http_question q = stream_of("/pieces/1000", 1000);
    w.cancel_at = 3;
    w.stream = http_ask(w.http, &q, on_answer, &w);
    assert_non_null(w.stream);
    loop_run(w.loop);
    assert_true(!w.timed_out && w.parts == 3 && !w.answered);
    get(&w, "/echo");
    assert_int_equal(w.status, 200);
    q = stream_of("/pieces/1000", 1000);
    w.free_at = 5;
    assert_non_null(http_ask(w.http, &q, on_answer, &w));
    loop_run(w.loop);
    assert_true(!w.timed_out && w.parts == 5);
    stop(&w);
}

/* libcurl sends a question again when a kept connection ends without an answer: not those that must go once. */
static void test_once(void **state) {
    (void)state;
    struct world w;
    start(&w, &(struct http_config){.connections_max = 1});
    for (int once = 0; once < 2; once++) {
        get(&w, "/hangups");
        long before = strtol(w.body, NULL, 10);
        struct http_question q = {.method = "POST",
                                  .url = url(&plain, "http", "127.0.0.1", "/hangup"),
                                  .timeout_ms = 5000,
                                  .answer_max = 99,
                                  .once = once};
        ask(&w, &q);
        assert_true(w.err == ERR_IO && w.sent);
        get(&w, "/hangups");
        assert_int_equal(strtol(w.body, NULL, 10) - before, once ? 1 : 2);
    }
    struct http_question refused = {
        .method = "GET", .url = "http://127.0.0.1:1/", .timeout_ms = 5000, .answer_max = 99, .once = true};
    ask(&w, &refused);
    assert_true(w.err == ERR_UNREACHABLE && !w.sent);
    stop(&w);
}

/* A host that takes no more connections does not even say so. */
static void test_connect_time(void **state) {
    (void)state;
    struct world w;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fillers[8];
    assert_int_equal(bind(listener, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    for (size_t i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fillers[i], (struct sockaddr *)&a, len);
    }
    start(&w, &(struct http_config){0});
    const struct child full = {.port = ntohs(a.sin_port)};
    struct http_question q = {.method = "GET",
                              .url = url(&full, "http", "127.0.0.1", "/"),
                              .timeout_ms = 1000000, /* the guard would come first */
                              .connect_ms = 200,
                              .answer_max = 99};
    ask(&w, &q);
    assert_true(w.err == ERR_TIMEOUT && !w.sent);
    stop(&w);
    for (size_t i = 0; i < 8; i++)
        close(fillers[i]);
    close(listener);
}

static int run_openssl(const char *key, const char *cert) {
    pid_t pid = fork();
    int status = -1;
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        execlp("openssl", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
               "-days", "30", "-subj", "/CN=good.test", "-addext", "subjectAltName=DNS:good.test", "-keyout", key,
               "-out", cert, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return status;
}

static int setup(void **state) {
    (void)state;
    char key[64];
    if (!mkdtemp(dir))
        return -1;
    snprintf(ca_file, sizeof ca_file, "%s/cert.pem", dir);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    if (run_openssl(key, ca_file) != 0)
        return -1;
    const char *const one[] = {"python3", SOURCE_DIR "/tests/support/http_server.py", NULL};
    const char *const two[] = {"python3", SOURCE_DIR "/tests/support/http_server.py", "--tls", ca_file, key, NULL};
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* must not matter */
    return child_start(&plain, one) && child_start(&tls, two) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    char key[64];
    child_end(&plain);
    child_end(&tls);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    unlink(key);
    unlink(ca_file);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_and_post), cmocka_unit_test(test_statuses_are_answers),
        cmocka_unit_test(test_bad_servers),  cmocka_unit_test(test_bad_questions),
        cmocka_unit_test(test_connections),  cmocka_unit_test(test_ends_inside_callbacks),
        cmocka_unit_test(test_certificates), cmocka_unit_test(test_password),
        cmocka_unit_test(test_streams),      cmocka_unit_test(test_streams_end_inside),
        cmocka_unit_test(test_once),         cmocka_unit_test(test_connect_time),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
