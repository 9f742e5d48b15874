/* The callout directory against mailbox servers that know their users, and against all kinds of bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/support/child.h"
#include "tests/unit/base/net/dns_packet.h"
#include "tests/unit/gateway/directory/backend_world.h"

struct world {
    struct child server;
    struct directory_config config;
    struct backend *b;
    char uri[200];
};

/* A server with these arguments, and a callout that asks it. */
static void start_with(struct world *w, const char *scheme, const char *const *arguments, bool postmaster) {
    const char *argv[12] = {"python3", SOURCE_DIR "/tests/support/mailbox_server.py"};
    struct buf problems;
    for (size_t i = 0; arguments[i]; i++)
        argv[i + 2] = arguments[i];
    *w = (struct world){0};
    assert_true(child_start(&w->server, argv));
    if (strcmp(arguments[0] ? arguments[0] : "", "--unix") == 0)
        snprintf(w->uri, sizeof w->uri, "%sunix:%s", scheme, arguments[1]);
    else
        snprintf(w->uri, sizeof w->uri, "%s127.0.0.1:%u", scheme, w->server.port);
    w->config = (struct directory_config){
        .kind = DIRECTORY_CALLOUT, .name = "mailstore", .uri = w->uri, .hostname = "mx.test", .connections = 1};
    w->config.sender_postmaster = postmaster;
    buf_init(&problems, 1000);
    assert_int_equal(backend_callout_new(&w->b, &w->config, &problems), ERR_OK);
    buf_deinit(&problems);
}
#define START(w, scheme, ...) start_with(w, scheme, (const char *const[]){__VA_ARGS__, NULL}, false)

static void stop(struct world *w) {
    w->b->ops->close(w->b);
    child_end(&w->server);
}

static void expect(struct world *w, const char *local, int err, enum directory_status status, const char *why) {
    struct asked_once *a = world_expect(w->b, local, err, status);
    if (!strstr(a->why, why))
        fail_msg("%s: '%s' lacks '%s'", local, a->why, why);
    assert_int_equal(a->kind, TABLE_MAILBOX);
    free(a);
}

static void ask_usual(struct world *w) {
    expect(w, "box", ERR_OK, DIRECTORY_FOUND, "said to RCPT TO: 250");
    expect(w, "nobody", ERR_OK, DIRECTORY_UNKNOWN, "550 5.1.1 no such user");
    expect(w, "later", ERR_OK, DIRECTORY_TEMPFAIL, "450 4.2.0 not now");
    expect(w, "box of \"odd\" things", ERR_OK, DIRECTORY_FOUND, "250");
    /* The random address once; EHLO, and MAIL, RCPT, RSET for each of five; all on one connection. */
    expect(w, "box-tell", ERR_OK, DIRECTORY_FOUND, "connections=1 commands=16 sender=<>");
}

static void test_verdicts(void **state) {
    (void)state;
    struct world w;
    START(&w, "smtp:", "--extensions", "PIPELINING,SMTPUTF8");
    ask_usual(&w);
    expect(&w, "b\xc3\xbcx", ERR_OK, DIRECTORY_FOUND, "250");
    expect(&w, "", ERR_OK, DIRECTORY_UNKNOWN, "is not asked for catch-alls");
    stop(&w);
    START(&w, "smtp:", "--extensions", ""); /* step by step */
    ask_usual(&w);
    expect(&w, "b\xc3\xbcx", ERR_OK, DIRECTORY_UNKNOWN, "takes no addresses beyond ASCII");
    stop(&w);
    START(&w, "lmtp:", "--lmtp");
    ask_usual(&w);
    stop(&w);
    START(&w, "smtp:", "ehlo=500 what"); /* HELO only */
    expect(&w, "box", ERR_OK, DIRECTORY_FOUND, "250");
    stop(&w);
    char path[] = "/tmp/posthouse-callout-XXXXXX", socket_path[64];
    assert_non_null(mkdtemp(path));
    snprintf(socket_path, sizeof socket_path, "%s/lmtp", path);
    START(&w, "lmtp:", "--unix", socket_path, "--lmtp");
    ask_usual(&w);
    stop(&w);
    unlink(socket_path);
    rmdir(path);
}

static void test_many_at_once(void **state) {
    (void)state;
    enum { N = 300 };
    static struct asked_once *asked[N];
    static const char *const limits[] = {"0", "1", "7"};
    for (size_t l = 0; l < 3; l++) {
        struct world w;
        START(&w, "smtp:", "--rcpt-max", limits[l]);
        for (int i = 0; i < N; i++)
            asked[i] = world_ask(w.b, i % 2 ? "box" : "nobody", "example.net", 25000);
        for (int i = 0; i < N; i++) {
            world_wait(asked[i]);
            if (asked[i]->status != (i % 2 ? DIRECTORY_FOUND : DIRECTORY_UNKNOWN))
                fail_msg("%d: %s", i, asked[i]->why);
            free(asked[i]);
        }
        expect(&w, "box-tell", ERR_OK, DIRECTORY_FOUND, "connections=1 ");
        stop(&w);
    }
}

/* The stated limit of the server is kept without being told by a refusal. */
static void test_stated_limit(void **state) {
    (void)state;
    struct world w;
    START(&w, "smtp:", "--rcpt-max", "1", "--extensions", "PIPELINING,LIMITS RCPTMAX=1");
    struct asked_once *a[5];
    for (int i = 0; i < 5; i++)
        a[i] = world_ask(w.b, "box", "example.net", 10000);
    for (int i = 0; i < 5; i++) {
        world_wait(a[i]);
        assert_int_equal(a[i]->status, DIRECTORY_FOUND);
        free(a[i]);
    }
    stop(&w);
}

static void test_accepts_all(void **state) {
    (void)state;
    struct world w;
    START(&w, "smtp:", "--accept-all");
    expect(&w, "box", ERR_OK, DIRECTORY_FOUND, "(the server accepts every address)");
    expect(&w, "nobody", ERR_OK, DIRECTORY_FOUND, "(the server accepts every address)");
    expect(&w, "later", ERR_OK, DIRECTORY_TEMPFAIL, "450");
    struct asked_once *a = world_ask(w.b, "other", "example.org", 10000); /* each domain is tried for itself */
    world_wait(a);
    assert_non_null(strstr(a->why, "accepts every address"));
    free(a);
    /* box, nobody, later, other: MAIL, RCPT, RSET; EHLO; two random addresses; MAIL and RCPT of this one. */
    expect(&w, "box-tell", ERR_OK, DIRECTORY_FOUND, "commands=17 ");
    stop(&w);
    START(&w, "smtp:", "--extensions", "PIPELINING");
    struct asked_once *honest = world_expect(w.b, "box", ERR_OK, DIRECTORY_FOUND);
    assert_null(strstr(honest->why, "every"));
    free(honest);
    stop(&w);
}

static void test_null_sender(void **state) {
    (void)state;
    struct world w;
    static const char *const extensions[] = {"", "PIPELINING"};
    for (size_t i = 0; i < 2; i++) {
        START(&w, "smtp:", "--refuse-null", "--extensions", extensions[i]);
        expect(&w, "box", ERR_DENIED, DIRECTORY_TEMPFAIL, "refused MAIL FROM:<>: 550 5.7.1 null sender not taken");
        expect(&w, "box", ERR_DENIED, DIRECTORY_TEMPFAIL, "refused MAIL FROM:<>: 550");
        stop(&w);
        const char *const arguments[] = {"--refuse-null", "--extensions", extensions[i], NULL};
        start_with(&w, "smtp:", arguments, true);
        expect(&w, "box-tell", ERR_OK, DIRECTORY_FOUND, "sender=<postmaster@mx.test>");
        expect(&w, "nobody", ERR_OK, DIRECTORY_UNKNOWN, "550 5.1.1");
        expect(&w, "box-tell", ERR_OK, DIRECTORY_FOUND, "connections=1 ");
        stop(&w);
    }
    const char *const never[] = {"mail=550 5.7.1 nobody", NULL};
    start_with(&w, "smtp:", never, true);
    expect(&w, "box", ERR_DENIED, DIRECTORY_TEMPFAIL, "refused MAIL FROM:<postmaster@...>: 550 5.7.1 nobody");
    stop(&w);
    const char *const not_now[] = {"mail=451 4.3.0 not now", NULL};
    start_with(&w, "smtp:", not_now, true);
    expect(&w, "box", ERR_DENIED, DIRECTORY_TEMPFAIL, "refused MAIL FROM:<>: 451");
    stop(&w);
}

/* Servers that do not let us ask. */
static void test_refusing_servers(void **state) {
    (void)state;
    struct world w;
    static const struct {
        const char *script;
        int err;
        const char *why;
    } cases[] = {
        {"greeting=554 5.7.1 not you", ERR_DENIED, "did not greet: 554 5.7.1 not you"},
        {"greeting=421 4.3.2 busy", ERR_DENIED, "did not greet: 421"},
        {"greeting=@close", ERR_CLOSED, "did not greet: closed the connection"},
        {"greeting=@mixed", ERR_DENIED, "did not greet:"},
        {"greeting=@long", ERR_DENIED, "did not greet:"},
        {"ehlo=550 5.7.1 who", ERR_DENIED, "refused to talk: 550"},
        {"ehlo=@endless", ERR_DENIED, "refused to talk:"},
        {"ehlo=@close", ERR_CLOSED, "refused to talk: closed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        START(&w, "smtp:", cases[i].script);
        expect(&w, "box", cases[i].err, DIRECTORY_TEMPFAIL, cases[i].why);
        stop(&w);
    }
    START(&w, "smtp:", "greeting=@silent");
    struct asked_once *a = world_ask(w.b, "box", "example.net", 200);
    world_wait(a);
    assert_int_equal(a->err, ERR_TIMEOUT);
    free(a);
    stop(&w);
}

/* Servers that lose their way while we ask. */
static void test_bad_replies(void **state) {
    (void)state;
    struct world w;
    START(&w, "smtp:", "--extensions", "PIPELINING");
    expect(&w, "close", ERR_OK, DIRECTORY_TEMPFAIL, "closed the connection");
    expect(&w, "odd", ERR_OK, DIRECTORY_TEMPFAIL, "354 what");
    expect(&w, "mixed", ERR_OK, DIRECTORY_TEMPFAIL, "");
    expect(&w, "once", ERR_OK, DIRECTORY_FOUND, "250"); /* asked again on another connection */
    struct asked_once *a = world_ask(w.b, "silent", "example.net", 300),
                      *b = world_ask(w.b, "box", "example.net", 9000);
    world_wait(a);
    assert_int_equal(a->err, ERR_TIMEOUT);
    world_wait(b); /* it was behind the silence, and is asked elsewhere */
    assert_int_equal(b->status, DIRECTORY_FOUND);
    free(a);
    free(b);
    stop(&w);
    START(&w, "smtp:", "rset=421 4.3.2 enough"); /* the verdicts came before */
    expect(&w, "box", ERR_OK, DIRECTORY_FOUND, "250");
    expect(&w, "nobody", ERR_OK, DIRECTORY_UNKNOWN, "550");
    stop(&w);
    START(&w, "smtp:", "rcpt=421 4.3.2 going down");
    expect(&w, "box", ERR_OK, DIRECTORY_TEMPFAIL, "");
    stop(&w);
}

/* The server goes away while the connection rests, and comes back. */
static void test_idle_loss(void **state) {
    (void)state;
    struct world w;
    START(&w, "smtp:", "--extensions", "PIPELINING");
    expect(&w, "box", ERR_OK, DIRECTORY_FOUND, "250");
    child_end(&w.server);
    expect(&w, "box", ERR_UNREACHABLE, DIRECTORY_TEMPFAIL, "cannot be connected to");
    w.b->ops->close(w.b);
}

static void test_addresses(void **state) {
    (void)state;
    struct directory_config c = {.name = "mailstore", .hostname = "mx.test"};
    struct backend *b;
    struct buf problems;
    buf_init(&problems, 1000);
    static const char *const bad[] = {NULL,
                                      "",
                                      "127.0.0.1:25",
                                      "smtp:",
                                      "smtp:127.0.0.1:0",
                                      "smtp:127.0.0.1:99999",
                                      "smtp:host name:25",
                                      "http:127.0.0.1:25",
                                      "lmtp:unix:"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        buf_clear(&problems);
        c.uri = bad[i];
        if (backend_callout_new(&b, &c, &problems) != ERR_INVALID)
            fail_msg("taken: %s", bad[i] ? bad[i] : "NULL");
        assert_non_null(strstr(buf_cstr(&problems), "mailstore: "));
    }
    static const struct {
        const char *uri, *dns;
        int err;
        const char *why;
    } dead[] = {
        {"lmtp:unix:/nonexistent/socket", NULL, ERR_NOT_FOUND, "cannot be connected to"},
        {"smtp:[::1]:1", NULL, ERR_UNREACHABLE, "cannot be connected to"},
        {"smtp:mailstore.test", "127.0.0.1:1", ERR_UNREACHABLE, "mailstore.test: no address"},
    };
    for (size_t i = 0; i < sizeof dead / sizeof *dead; i++) {
        c.uri = dead[i].uri;
        c.dns = dead[i].dns;
        assert_int_equal(backend_callout_new(&b, &c, &problems), ERR_OK);
        struct asked_once *a = world_ask(b, "box", "example.net", 20000);
        world_wait(a);
        assert_int_equal(a->status, DIRECTORY_TEMPFAIL);
        if (a->err == ERR_OK || !strstr(a->why, dead[i].why))
            fail_msg("%s: %d %s", dead[i].uri, a->err, a->why);
        free(a);
        b->ops->close(b);
    }
    c.uri = "smtp:127.0.0.1:25";
    c.hostname = NULL;
    assert_int_equal(backend_callout_new(&b, &c, &problems), ERR_INVALID);
    buf_deinit(&problems);
}

/* A name server of one name: the mailbox server listens on the last of its three addresses only. */
static void *serve_dns(void *arg) {
    const int fd = *(const int *)arg;
    static struct packet p;
    unsigned char question[512];
    struct sockaddr_in from;
    for (;;) {
        socklen_t from_len = sizeof from;
        ssize_t len = recvfrom(fd, question, sizeof question, 0, (struct sockaddr *)&from, &from_len);
        if (len <= 0 || len < 12)
            return NULL; /* the end of the test sends an empty one */
        size_t at = 12;
        while (question[at])
            at += question[at] + 1u;
        enum dns_type type = question[at + 1] << 8 | question[at + 2];
        bool known = at == 12 + 15 && memcmp(question + 12,
                                             "\x9"
                                             "mailstore"
                                             "\x4"
                                             "test",
                                             15) == 0;
        put_question(&p, (uint16_t)(question[0] << 8 | question[1]), known ? 0 : 3,
                     known ? "mailstore.test" : "absent.test", type);
        if (known && type == DNS_AAAA) {
            put_address(&p, NULL, 60, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x1", 16);
        } else if (known) {
            put_address(&p, NULL, 60, "\x7f\0\0\x2", 4);
            put_address(&p, NULL, 60, "\x7f\0\0\x1", 4);
        }
        (void)!sendto(fd, p.bytes, p.len, 0, (struct sockaddr *)&from, from_len);
    }
}

static void test_names(void **state) {
    (void)state;
    struct sockaddr_in here = {.sin_family = AF_INET};
    socklen_t len = sizeof here;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    pthread_t thread;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&here, &len), 0);
    assert_int_equal(pthread_create(&thread, NULL, serve_dns, &fd), 0);
    struct child server;
    const char *const argv[] = {"python3", SOURCE_DIR "/tests/support/mailbox_server.py", NULL};
    assert_true(child_start(&server, argv));
    char uri[64], dns[64];
    snprintf(uri, sizeof uri, "smtp:MailStore.test:%u", server.port);
    snprintf(dns, sizeof dns, "127.0.0.1:%u", ntohs(here.sin_port));
    struct directory_config c = {.name = "mailstore", .hostname = "mx.test", .uri = uri, .dns = dns};
    struct backend *b;
    struct buf problems;
    buf_init(&problems, 1000);
    assert_int_equal(backend_callout_new(&b, &c, &problems), ERR_OK);
    struct asked_once *a = world_expect(b, "box", ERR_OK, DIRECTORY_FOUND);
    assert_non_null(strstr(a->why, "127.0.0.1:"));
    free(a);
    free(world_expect(b, "nobody", ERR_OK, DIRECTORY_UNKNOWN));
    b->ops->close(b);
    c.uri = "smtp:absent.test";
    assert_int_equal(backend_callout_new(&b, &c, &problems), ERR_OK);
    a = world_expect(b, "box", ERR_UNREACHABLE, DIRECTORY_TEMPFAIL);
    assert_non_null(strstr(a->why, "absent.test: no address: the name has none"));
    free(a);
    b->ops->close(b);
    child_end(&server);
    assert_int_equal(sendto(fd, "", 0, 0, (struct sockaddr *)&here, len), 0);
    pthread_join(thread, NULL);
    close(fd);
    buf_deinit(&problems);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),         cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_stated_limit),     cmocka_unit_test(test_accepts_all),
        cmocka_unit_test(test_null_sender),      cmocka_unit_test(test_bad_replies),
        cmocka_unit_test(test_refusing_servers), cmocka_unit_test(test_idle_loss),
        cmocka_unit_test(test_addresses),        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
