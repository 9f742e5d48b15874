/*
 * Auth before a Dovecot that is a thread of the test: passwords, a mechanism passed through, refusals, temporary
 * failures, silence, lost connections, lines that break the protocol.
 */
#include "tests/unit/gateway/auth/rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

/* -- the server: one connection at a time -- */
struct server {
    char path[100], uri[140];
    const char *hello;
    int listener;
    pthread_t thread;
    atomic_int cancels, connections;
    atomic_bool saw_addresses, saw_no_resp;
};

static const char *const usual_hello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n"
                                       "MECH\tX-ASK\tdictionary\nMECH\tANONYMOUS\tanonymous\nMECH\tX-HIDDEN\tprivate\n"
                                       "MECH\tGSSAPI\tmutual-auth\nMECH\tbad name\nMECH\tSCRAM-SHA-256-PLUS\n"
                                       "SPID\t1\nCUID\t2\nCOOKIE\t00\nDONE\n";

static void say(int fd, const char *format, const char *id) {
    char line[256];
    int len = snprintf(line, sizeof line, format, id);
    (void)!write(fd, line, (size_t)len);
}

/* False: close. */
static bool on_password(int fd, const char *id, const char *account, const char *password) {
    if (strcmp(password, "close") == 0)
        return false;
    if (strcmp(password, "garbage") == 0)
        say(fd, "OK\tnot-a-number%s\n", "");
    else if (strcmp(password, "temp") == 0)
        say(fd, "FAIL\t%s\tuser=x\ttemp\n", id);
    else if (strcmp(password, "code") == 0)
        say(fd, "FAIL\t%s\tcode=temp_fail\n", id);
    else if (strcmp(password, "more") == 0)
        say(fd, "CONT\t%s\tYWJj\n", id);
    else if (strcmp(password, "noname") == 0)
        say(fd, "OK\t%s\tuser=\x01\n", id);
    else if (strcmp(password, "secret") == 0 && strcmp(account, "alice@example.net") == 0)
        say(fd, "NOTICE\tignored\nFAIL\t999999\nOK\t%s\tuser=Alice.Canonical@example.net\tother=1\n", id);
    else if (strcmp(password, "silent") != 0)
        say(fd, "FAIL\t%s\tuser=alice@example.net\treason=x y\n", id);
    return true;
}

static bool on_auth(struct server *s, int fd, const char *id, const char *line) {
    struct buf plain;
    const char *resp = strstr(line, "\tresp=");
    buf_init(&plain, 4096);
    if (strstr(line, "\tservice=smtp\tnologin\tno-penalty\tsecured\t") && strstr(line, "\tlip=127.0.0.1\tlport=587") &&
        strstr(line, "\trip=192.0.2.1\trport=40000"))
        s->saw_addresses = true;
    if (strstr(line, "\tX-ASK\t")) {
        s->saw_no_resp = s->saw_no_resp || !resp;
        say(fd, "CONT\t%s\tV2hvPw==\n", id); /* "Who?" */
        return true;
    }
    bool go = resp && base64_decode(span_of(resp + 6), &plain) == ERR_OK;
    const char *account = buf_cstr(&plain) + 1;
    go = go && on_password(fd, id, account, account + strlen(account) + 1);
    buf_deinit(&plain);
    return go;
}

static bool on_line(struct server *s, int fd, char *line) {
    char id[32] = "";
    sscanf(line, "%*s\t%31[0-9]", id);
    if (strncmp(line, "AUTH\t", 5) == 0)
        return on_auth(s, fd, id, line);
    if (strncmp(line, "CANCEL\t", 7) == 0)
        s->cancels++;
    if (strncmp(line, "CONT\t", 5) == 0) {
        const char *text = strrchr(line, '\t') + 1;
        if (strcmp(text, "Ym9i") == 0) /* bob */
            say(fd, "OK\t%s\tuser=bob\n", id);
        else if (strcmp(text, "bW9yZQ==") == 0) /* more */
            say(fd, "CONT\t%s\t\n", id);
        else if (strcmp(text, "YmFk") == 0) /* bad */
            say(fd, "CONT\t%s\t!!\n", id);
        else if (strcmp(text, "Y2xvc2U=") == 0) /* close */
            return false;
        else if (strcmp(text, "c2lsZW50") != 0) /* silent */
            say(fd, "FAIL\t%s\tuser=bob\n", id);
    }
    return true;
}

static void *serve(void *arg) {
    struct server *s = arg;
    int fd;
    while ((fd = accept(s->listener, NULL, NULL)) >= 0) {
        s->connections++;
        (void)!write(fd, s->hello, strlen(s->hello));
        FILE *in = fdopen(fd, "r");
        char line[8192];
        while (fgets(line, sizeof line, in)) {
            line[strcspn(line, "\n")] = '\0';
            if (!on_line(s, fd, line))
                break;
        }
        fclose(in);
    }
    return NULL;
}

static void server_open(struct server *s, struct rig *r, const char *hello) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memset(s, 0, sizeof *s);
    s->hello = hello;
    snprintf(s->path, sizeof s->path, "%.80s/auth", r->dir);
    snprintf(s->uri, sizeof s->uri, "unix:%s", s->path);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", s->path);
    s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* The client has gone before. */
static void server_close(struct server *s) {
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    unlink(s->path);
}

static void open_all(struct rig *r, struct server *s, const char *hello, uint64_t timeout_ms) {
    rig_open(r);
    server_open(s, r, hello);
    struct auth_backend_config b = {.kind = AUTH_DOVECOT, .name = "dovecot", .uri = s->uri, .timeout_ms = timeout_ms};
    struct auth_config c = {
        .backends = &b, .count = 1, .realm = "example.net", .fail_delay_ms = 1, .account_failures = 6};
    assert_int_equal(auth_new(&r->auth, &c, &r->problems), ERR_OK);
}

static void close_all(struct rig *r, struct server *s) {
    auth_unref(r->auth);
    r->auth = NULL;
    server_close(s);
    rig_close(r);
}

static void wait_for(struct rig *r, atomic_int *n, int value) {
    for (int i = 0; i < 3000 && *n != value; i++)
        rig_rest(r, 10);
    assert_int_equal(*n, value);
}

static void test_passwords(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, usual_hello, 20000);
    assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_SUCCESS);
    assert_string_equal(r.text, "alice.canonical@example.net");
    assert_true(s.saw_addresses);
    assert_int_equal(rig_plain(&r, "alice", "wrong"), AUTH_FAILURE);
    assert_int_equal(rig_plain(&r, "nobody", "secret"), AUTH_FAILURE);
    assert_int_equal(rig_plain(&r, "alice", "temp"), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "alice", "code"), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "alice", "noname"), AUTH_TEMPFAIL);
    assert_int_equal(s.cancels, 0);
    assert_int_equal(rig_plain(&r, "alice", "more"), AUTH_TEMPFAIL);
    wait_for(&r, &s.cancels, 1);
    /* LOGIN is ours: Dovecot hears PLAIN */
    assert_int_equal(rig_begin(&r, "LOGIN", SPAN("alice")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
    assert_int_equal(rig_answer(&r, SPAN("secret")), AUTH_SUCCESS);
    assert_int_equal(s.connections, 1);
    struct span offers = auth_mechanisms(r.auth, true, true);
    assert_true(span_eq(offers, SPAN("PLAIN LOGIN X-ASK")));
    close_all(&r, &s);
}

static void test_lost(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, usual_hello, 20000);
    assert_int_equal(rig_plain(&r, "alice", "close"), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_SUCCESS); /* over a new connection */
    assert_int_equal(rig_plain(&r, "alice", "garbage"), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_SUCCESS);
    assert_int_equal(s.connections, 3);
    close_all(&r, &s);
}

static void test_silent(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, usual_hello, 300);
    assert_int_equal(rig_plain(&r, "alice", "silent"), AUTH_TEMPFAIL);
    wait_for(&r, &s.cancels, 1);
    /* left while it is asked: its answer goes to nobody */
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("\0alice\0silent")), ERR_OK);
    rig_rest(&r, 20);
    auth_cancel(r.x);
    wait_for(&r, &s.cancels, 2);
    /* and while everything ends */
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("\0alice\0silent")), ERR_OK);
    auth_cancel(r.x);
    close_all(&r, &s);
}

static void test_hello(void **state) {
    (void)state;
    static char endless[40000];
    memset(endless, 'x', sizeof endless - 1);
    static const char *const hellos[] = {"VERSION\t2\t0\n", "", endless};
    for (size_t i = 0; i < sizeof hellos / sizeof *hellos; i++) {
        struct rig r;
        struct server s;
        open_all(&r, &s, hellos[i], 400);
        assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_TEMPFAIL);
        assert_int_equal(rig_begin(&r, "X-ASK", SPAN_EMPTY), ERR_UNSUPPORTED);
        close_all(&r, &s);
    }
}

static void begin_ask(struct rig *r, struct span initial) {
    assert_int_equal(rig_begin(r, "x-ask", initial), ERR_OK);
    assert_int_equal(rig_wait(r), AUTH_CHALLENGE);
    assert_string_equal(r->text, "Who?");
}

static void test_passed(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, usual_hello, 20000);
    assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_SUCCESS); /* so that the offers are known */
    begin_ask(&r, SPAN_EMPTY);
    assert_true(s.saw_no_resp);
    assert_int_equal(rig_answer(&r, SPAN("bob")), AUTH_SUCCESS);
    assert_string_equal(r.text, "bob@example.net");
    begin_ask(&r, SPAN(""));
    assert_int_equal(rig_answer(&r, SPAN("more")), AUTH_CHALLENGE);
    assert_int_equal(r.len, 0);
    assert_int_equal(rig_answer(&r, SPAN("bob")), AUTH_SUCCESS);
    begin_ask(&r, SPAN("x"));
    assert_int_equal(rig_answer(&r, SPAN("bad")), AUTH_TEMPFAIL);
    wait_for(&r, &s.cancels, 1);
    /* left between two steps, too much said: Dovecot hears of it */
    begin_ask(&r, SPAN("x"));
    auth_cancel(r.x);
    wait_for(&r, &s.cancels, 2);
    static char huge[20000];
    begin_ask(&r, SPAN("x"));
    assert_int_equal(rig_answer(&r, span_make(huge, sizeof huge)), AUTH_MALFORMED);
    wait_for(&r, &s.cancels, 3);
    /* the connection is lost between two steps, and within one */
    begin_ask(&r, SPAN("x"));
    struct auth_exchange *x = r.x;
    assert_int_equal(rig_plain(&r, "alice", "close"), AUTH_TEMPFAIL);
    r.x = x;
    r.event = AUTH_CHALLENGE;
    assert_int_equal(rig_answer(&r, SPAN("bob")), AUTH_TEMPFAIL);
    begin_ask(&r, SPAN("x"));
    assert_int_equal(rig_answer(&r, SPAN("close")), AUTH_TEMPFAIL);
    close_all(&r, &s);
}

/* Guesses by a mechanism that Dovecot runs count for the account that it names at the end. */
static void test_passed_cap(void **state) {
    (void)state;
    struct rig r;
    struct server s;
    open_all(&r, &s, usual_hello, 20000);
    assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_SUCCESS);
    for (int i = 0; i < 6; i++) {
        begin_ask(&r, SPAN("x"));
        assert_int_equal(rig_answer(&r, SPAN("wrong")), AUTH_FAILURE);
    }
    begin_ask(&r, SPAN("x"));
    assert_int_equal(rig_answer(&r, SPAN("bob")), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "bob", "secret"), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_SUCCESS);
    close_all(&r, &s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passwords), cmocka_unit_test(test_lost),   cmocka_unit_test(test_silent),
        cmocka_unit_test(test_hello),     cmocka_unit_test(test_passed), cmocka_unit_test(test_passed_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
