/* Auth before a web service that is a thread of the test: what is asked, and what each answer means. */
#include "tests/unit/gateway/auth/rig.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>

struct server {
    int listener;
    pthread_t thread;
    pthread_mutex_t lock;
    char body[4096], head[4096];
};

/* The answer is what the password says: head, an empty line, body. */
static const char *answer_for(const char *body) {
    static const char *const table[][2] = {
        {"good", "200 OK\r\n\n{\"ok\":true}"},
        {"named", "200 OK\r\n\n{\"ok\":true,\"account\":\"Real@Example.ORG\"}"},
        {"bad", "200 OK\r\n\n{\"ok\":false}"},
        {"unknown", "404 Not Found\r\n\n"},
        {"denied", "403 Forbidden\r\n\n"},
        {"broken", "500 Oops\r\n\n{\"ok\":true}"},
        {"moved", "302 Found\r\nLocation: /\r\n\n{\"ok\":true}"},
        {"text", "200 OK\r\n\nok"},
        {"twice", "200 OK\r\n\n{\"ok\":true,\"ok\":false}"},
        {"string", "200 OK\r\n\n{\"ok\":\"true\"}"},
        {"number", "200 OK\r\n\n{\"ok\":true,\"account\":17}"},
        {"control", "200 OK\r\n\n{\"ok\":true,\"account\":\"a\\u000ab\"}"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char member[64];
        snprintf(member, sizeof member, "\"password\":\"%s\"", table[i][0]);
        if (strstr(body, member))
            return table[i][1];
    }
    return NULL;
}

static void one(struct server *s, int fd) {
    char in[8192];
    size_t len = 0;
    char *body = NULL;
    size_t want = 0;
    for (;;) {
        ssize_t n = read(fd, in + len, sizeof in - 1 - len);
        if (n <= 0)
            return;
        len += (size_t)n;
        in[len] = '\0';
        if (!body && (body = strstr(in, "\r\n\r\n"))) {
            body += 4;
            const char *l = strcasestr(in, "content-length:");
            want = l ? strtoul(l + 15, NULL, 10) : 0;
        }
        if (body && (size_t)(in + len - body) >= want)
            break;
    }
    pthread_mutex_lock(&s->lock);
    snprintf(s->body, sizeof s->body, "%s", body);
    snprintf(s->head, sizeof s->head, "%.*s", (int)(body - in), in);
    pthread_mutex_unlock(&s->lock);
    const char *answer = answer_for(body);
    if (answer) {
        char out[1024];
        const char *text = strstr(answer, "\n\n") + 2;
        int n = snprintf(out, sizeof out, "HTTP/1.1 %.*sContent-Length: %zu\r\n\r\n%s", (int)(text - 1 - answer),
                         answer, strlen(text), text);
        (void)!write(fd, out, (size_t)n);
        return;
    }
    while (read(fd, in, sizeof in) > 0) /* silent until the client gives up */
        continue;
}

static void *serve(void *arg) {
    struct server *s = arg;
    int fd;
    while ((fd = accept(s->listener, NULL, NULL)) >= 0) {
        one(s, fd);
        close(fd);
    }
    return NULL;
}

static void open_all(struct rig *r, struct server *s, uint64_t timeout_ms, const char *second) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    static char uri[64];
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    rig_open(r);
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/login", ntohs(a.sin_port));
    struct auth_backend_config b[] = {
        {.kind = AUTH_HTTP, .name = "web", .uri = uri, .user = "us", .password = "them", .timeout_ms = timeout_ms},
        {.kind = AUTH_FILE, .name = "file", .file = second}};
    struct auth_config c = {
        .backends = b, .count = second ? 2 : 1, .realm = "example.net", .fail_delay_ms = 1, .client_failures = 1000};
    if (auth_new(&r->auth, &c, &r->problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&r->problems));
}

static void close_all(struct rig *r, struct server *s) {
    auth_unref(r->auth);
    r->auth = NULL;
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    pthread_mutex_destroy(&s->lock);
    rig_close(r);
}

static void test_answers(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, 20000, NULL);
    assert_int_equal(rig_plain(&r, "a\"b", "good"), AUTH_SUCCESS);
    assert_string_equal(r.text, "a\"b@example.net");
    pthread_mutex_lock(&s.lock);
    assert_string_equal(s.body, "{\"account\":\"a\\\"b@example.net\",\"password\":\"good\",\"client\":\"192.0.2.1\","
                                "\"mechanism\":\"PLAIN\"}");
    assert_memory_equal(s.head, "POST /login HTTP/1.1\r\n", 22);
    assert_non_null(strstr(s.head, "Authorization: Basic dXM6dGhlbQ=="));
    assert_non_null(strstr(s.head, "Content-Type: application/json"));
    pthread_mutex_unlock(&s.lock);
    assert_int_equal(rig_plain(&r, "alice", "named"), AUTH_SUCCESS);
    assert_string_equal(r.text, "real@example.org");
    static const char *const no[] = {"bad", "unknown", "denied", "\xff"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_int_equal(rig_plain(&r, "alice", no[i]), AUTH_FAILURE);
    static const char *const cannot[] = {"broken", "moved", "text", "twice", "string", "number", "control"};
    for (size_t i = 0; i < sizeof cannot / sizeof *cannot; i++)
        assert_int_equal(rig_plain(&r, "alice", cannot[i]), AUTH_TEMPFAIL);
    assert_true(span_eq(auth_mechanisms(r.auth, true, true), SPAN("PLAIN LOGIN")));
    close_all(&r, &s);
}

static void test_silent(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, 300, NULL);
    assert_int_equal(rig_plain(&r, "alice", "silent"), AUTH_TEMPFAIL);
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("\0alice\0silent")), ERR_OK);
    rig_rest(&r, 50);
    auth_cancel(r.x);
    close_all(&r, &s);
}

static void test_next(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    char file[] = "/tmp/auth_http_test.XXXXXX", text[300];
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    close(fd);
    snprintf(text, sizeof text, "unknown:%s\ndenied:%s\n", rig_crypt("unknown", "$2b$", 4),
             rig_crypt("denied", "$2b$", 4));
    rig_write(file, text, 0600);
    open_all(&r, &s, 20000, file);
    assert_int_equal(rig_plain(&r, "unknown", "unknown"), AUTH_SUCCESS); /* 404: the next one is asked */
    assert_int_equal(rig_plain(&r, "denied", "denied"), AUTH_FAILURE);   /* 403: it is not */
    assert_int_equal(rig_plain(&r, "nobody", "unknown"), AUTH_FAILURE);
    close_all(&r, &s);
    unlink(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers), cmocka_unit_test(test_silent),
                                       cmocka_unit_test(test_next)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
