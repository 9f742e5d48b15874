/*
 * milter against real filters: OpenDKIM signs what a trusted client submits, and Rspamd (alone, without network or
 * store) refuses its test pattern and passes other mail. Each runs in a directory of its own; where a program is not
 * installed its test is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/filter/milter.h"

static char dir[64];
static struct tcp_addr addr;
static pid_t child;

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/milter_real.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int run_program(const char *const *argv) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int remove_dir(void **state) {
    (void)state;
    return run_program((const char *const[]){"/bin/rm", "-rf", dir, NULL});
}

static void write_file(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A port that is free now. */
static unsigned pick_port(void) {
    assert_int_equal(tcp_addr_parse_port(&addr, SPAN("127.0.0.1:0")), ERR_OK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr.storage, addr.len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr.storage, &addr.len), 0);
    close(fd);
    return tcp_addr_port(&addr);
}

static void start_program(const char *const *argv) {
    child = fork();
    if (child == 0) {
        char log[256];
        snprintf(log, sizeof log, "%s/log", dir);
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    for (int i = 0; i < 600; i++) { /* until it listens: a minute at most */
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        int refused = connect(fd, (struct sockaddr *)&addr.storage, addr.len);
        close(fd);
        if (!refused)
            return;
        assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
        usleep(100000);
    }
    fail_msg("%s does not listen", argv[0]);
}

static int stop_program(void **state) {
    (void)state;
    if (child > 0) {
        kill(child, SIGTERM);
        waitpid(child, NULL, 0);
    }
    child = 0;
    return 0;
}

/* -- a session -- */

struct session {
    struct loop *loop;
    struct milter_config config;
    struct milters *m;
    struct tcp_addr client;
    struct check_facts facts;
    struct check_verdict v;
};

static void on_verdict(void *arg, const struct check_verdict *v) {
    struct session *s = arg;
    s->v = *v;
    loop_stop(s->loop);
}

static enum check_action ask(struct session *s, enum check_stage stage, struct held *h) {
    struct check_wait *wait;
    if (milters_check(s->m, stage, &s->facts, h, &s->v, &wait, on_verdict, s) == ERR_AGAIN)
        loop_run(s->loop);
    return s->v.action;
}

static void session_init(struct session *s) {
    *s = (struct session){.loop = loop_new(), .config = {.name = "real", .address = addr, .failure = MILTER_TEMPFAIL}};
    s->m = milters_new(s->loop, &s->config, 1);
    assert_int_equal(tcp_addr_parse(&s->client, SPAN("127.0.0.1"), 4321), ERR_OK);
    s->facts = (struct check_facts){.client = &s->client,
                                    .local = &s->client,
                                    .client_ip = SPAN("127.0.0.1"),
                                    .client_name = SPAN("localhost"),
                                    .helo = SPAN("client.example"),
                                    .esmtp = true,
                                    .hostname = SPAN("mx.example"),
                                    .id = SPAN("0123456789ABC"),
                                    .sender = SPAN("a@sender.example"),
                                    .recipient = SPAN("b@rcpt.example")};
}

static void session_deinit(struct session *s) {
    milters_free(s->m);
    loop_run(s->loop);
    loop_free(s->loop);
}

static struct held *held_of(const char *text) {
    struct held *h = held_new(dir);
    assert_int_equal(held_append(h, span_of(text)), ERR_OK);
    assert_int_equal(held_finish(h), ERR_OK);
    return h;
}

static enum check_action judge(struct session *s, struct held *h) {
    for (enum check_stage stage = CHECK_MAIL; stage <= CHECK_DATA; stage++)
        assert_int_equal(ask(s, stage, NULL), CHECK_PASS);
    return ask(s, CHECK_END, h);
}

/* -- OpenDKIM -- */

static void opendkim_signs_and_verifies(void **state) {
    (void)state;
    char text[1024], config[128];
    if (access("/usr/sbin/opendkim", X_OK) || access("/usr/sbin/opendkim-genkey", X_OK))
        skip();
    assert_int_equal(run_program((const char *const[]){"/usr/sbin/opendkim-genkey", "-b", "2048", "-d",
                                                       "sender.example", "-s", "sel", "-D", dir, NULL}),
                     0);
    snprintf(text, sizeof text,
             "Socket inet:%u@127.0.0.1\nMode sv\nDomain sender.example\nSelector sel\nKeyFile %s/sel.private\n"
             "InternalHosts 127.0.0.1\nRequireSafeKeys no\nAlwaysAddARHeader yes\nSyslog no\n",
             pick_port(), dir);
    write_file("opendkim.conf", text);
    snprintf(config, sizeof config, "%s/opendkim.conf", dir);
    start_program((const char *const[]){"/usr/sbin/opendkim", "-f", "-x", config, NULL});
    struct session s;
    session_init(&s);
    assert_int_equal(ask(&s, CHECK_CONNECT, NULL), CHECK_PASS);
    assert_int_equal(ask(&s, CHECK_HELO, NULL), CHECK_PASS);
    for (int i = 0; i < 3; i++) { /* several messages in one session */
        struct held *h =
            held_of("From: a@sender.example\r\nTo: b@rcpt.example\r\nSubject: folded\r\n subject\r\n"
                    "Date: Tue, 24 Nov 2026 08:15:07 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\nhello\r\n");
        assert_int_equal(judge(&s, h), CHECK_PASS);
        struct span name, value;
        assert_int_equal(held_count(h), 6);
        held_field(h, 0, &name, &value);
        assert_true(span_eq(name, SPAN("DKIM-Signature")));
        assert_non_null(memmem(value.at, value.len, "d=sender.example", 16));
        assert_non_null(memmem(value.at, value.len, "b=", 2));
        for (size_t n = 0; n < value.len; n++) /* folds are CRLF and a blank */
            assert_true(value.at[n] != '\n' || (value.at[n - 1] == '\r' && strchr(" \t", value.at[n + 1])));
        assert_int_equal(held_body_size(h), 7);
        held_free(h);
        milters_abort(s.m);
    }
    session_deinit(&s);

    session_init(&s); /* a stranger's mail is verified instead */
    assert_int_equal(tcp_addr_parse(&s.client, SPAN("192.0.2.7"), 4321), ERR_OK);
    s.facts.client_ip = SPAN("192.0.2.7");
    s.facts.client_name = SPAN_EMPTY;
    assert_int_equal(ask(&s, CHECK_CONNECT, NULL), CHECK_PASS);
    assert_int_equal(ask(&s, CHECK_HELO, NULL), CHECK_PASS);
    struct held *h = held_of("From: a@sender.example\r\nMessage-ID: <1@sender.example>\r\n\r\nhello\r\n");
    assert_int_equal(judge(&s, h), CHECK_PASS);
    assert_int_equal(held_find(h, SPAN("DKIM-Signature"), 0), -1);
    assert_true(held_find(h, SPAN("Authentication-Results"), 0) >= 0);
    held_free(h);
    session_deinit(&s);
}

/* -- Rspamd -- */

static void rspamd_judges(void **state) {
    (void)state;
    char text[1024], config[128];
    if (access("/usr/bin/rspamd", X_OK))
        skip();
    snprintf(text, sizeof text,
             "options { tempdir = \"%s\"; rundir = \"%s\"; pidfile = \"%s/pid\"; hs_cache_dir = \"%s\";\n"
             "  url_tld = \"/dev/null\"; filters = \"\";\n"
             "  dns { nameserver = [\"127.0.0.1:9\"]; timeout = 0.1s; retransmits = 1; } }\n"
             "logging { type = \"console\"; level = \"notice\"; }\n"
             "worker \"rspamd_proxy\" { bind_socket = \"127.0.0.1:%u\"; milter = yes; timeout = 20s; count = 1;\n"
             "  upstream \"local\" { default = yes; self_scan = yes; } }\n"
             "metric \"default\" { actions { reject = 15; \"add header\" = 6; } }\n",
             dir, dir, dir, dir, pick_port());
    write_file("rspamd.conf", text);
    snprintf(config, sizeof config, "%s/rspamd.conf", dir);
    start_program((const char *const[]){"/usr/bin/rspamd", "-f", "-i", "-c", config, NULL});
    struct session s;
    session_init(&s);
    assert_int_equal(ask(&s, CHECK_CONNECT, NULL), CHECK_PASS);
    assert_int_equal(ask(&s, CHECK_HELO, NULL), CHECK_PASS);
    struct held *h =
        held_of("From: a@sender.example\r\nTo: b@rcpt.example\r\nSubject: x\r\n"
                "Date: Tue, 24 Nov 2026 08:15:07 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\nhello\r\n");
    assert_int_equal(judge(&s, h), CHECK_PASS);
    held_free(h);
    /* the pattern is written in two pieces so that scanners do not take this file for spam */
    h = held_of("From: a@sender.example\r\nTo: b@rcpt.example\r\nSubject: x\r\n\r\n"
                "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD"
                "-ANTI-UBE-TEST-EMAIL*C.34X\r\n");
    assert_int_equal(judge(&s, h), CHECK_REFUSE);
    assert_int_equal(s.v.reply.code, 554);
    assert_true(span_eq(s.v.by, SPAN("milter real")));
    held_free(h);
    session_deinit(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(opendkim_signs_and_verifies, stop_program),
        cmocka_unit_test_teardown(rspamd_judges, stop_program),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
