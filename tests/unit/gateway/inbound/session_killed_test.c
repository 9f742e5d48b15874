/*
 * A session may end while it waits for anybody: its client goes away, or the front end stops. Whoever was asked forgets
 * it, and what it had borrowed is given back.
 */
#include <netinet/in.h>

#include "tests/unit/gateway/inbound/session_world.h"

static struct played server;
static struct directory_config directory;
static struct mailauth_config mailauth;
static struct guard_dnslist list;
static char dns_text[64];
static int dns_fd = -1;

static int setup(void **state) {
    dns_fd = -1;
    return world_setup(state);
}

static int teardown(void **state) {
    world_stop();
    play_end(&server);
    if (w.parts.mailauth)
        mailauth_unref(w.parts.mailauth);
    if (dns_fd >= 0)
        close(dns_fd);
    int status = world_teardown(state);
    directory_settle();
    return status;
}

#define ENVELOPE "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@any.example>\r\n"
#define MESSAGE ENVELOPE "DATA\r\n"
#define BODY "From: a@b.example\r\nSubject: x\r\n\r\nhello\r\n.\r\n"

static void greeted(struct client *c) {
    client_open(c);
    say(c, "", "220");
    say(c, "EHLO c.example\r\n", "250 HELP");
}

/* One that never answers. */
static void use_silent_dns(void) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    dns_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(dns_fd, (struct sockaddr *)&in, len), 0);
    assert_int_equal(getsockname(dns_fd, (struct sockaddr *)&in, &len), 0);
    snprintf(dns_text, sizeof dns_text, "127.0.0.1:%u", ntohs(in.sin_port));
    w.settings.dns = dns_text;
}

static bool dns_was_asked(void) {
    char octets[512];
    return recv(dns_fd, octets, sizeof octets, MSG_DONTWAIT | MSG_PEEK) > 0;
}

static void use_silent_directory(void) {
    static char uri[64];
    server.silent = true;
    play(&server);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/", tcp_addr_port(&server.address));
    directory = (struct directory_config){.kind = DIRECTORY_HTTP, .name = "silent", .uri = uri, .timeout_ms = 1500};
    w.source = (struct recipients_source){.kind = RECIPIENTS_DIRECTORY, .directory = &directory};
    w.domain.sources = &w.source;
    w.domain.source_count = 1;
}

/* The client leaves while its session waits; another one is served, and one more waits when the front end stops. */
static void leave_and_stop(struct client *first, struct client *second) {
    client_reset(first);
    WAIT(inbound_sessions(w.inbound) == 1);
    world_stop();
    close(second->fd);
}

static void test_dns_lists(void **state) {
    struct client a, b;
    (void)state;
    use_silent_dns();
    list = (struct guard_dnslist){.zone = "list.example", .score = 10};
    w.settings.guard = (struct guard_config){.dnslist_mode = GUARD_ENFORCE,
                                             .dnslists = &list,
                                             .dnslist_count = 1,
                                             .refuse_score = 10,
                                             .dns_ms = 60000,
                                             .names = true};
    world_start();
    client_open(&a);
    WAIT(dns_was_asked());
    client_open(&b);
    WAIT(inbound_sessions(w.inbound) == 2);
    leave_and_stop(&a, &b);
}

static void until_milter_holds(char command, const char *first, const char *second) {
    struct client a, b;
    use_milter(&server);
    server.hold = command;
    world_start();
    client_open(&a);
    client_send(&a, first, strlen(first));
    if (second) {
        expect(&a, "354");
        client_send(&a, second, strlen(second));
    }
    WAIT(server.held_count == 1);
    client_open(&b);
    client_send(&b, first, strlen(first));
    if (second) {
        expect(&b, "354");
        client_send(&b, second, strlen(second));
    }
    WAIT(server.held_count == 2);
    leave_and_stop(&a, &b);
}

static void test_milter_connect(void **state) {
    (void)state;
    until_milter_holds('C', "EHLO c.example\r\n", NULL);
}

static void test_milter_helo(void **state) {
    (void)state;
    until_milter_holds('H', "EHLO c.example\r\n", NULL);
}

static void test_milter_mail(void **state) {
    (void)state;
    until_milter_holds('M', "EHLO c.example\r\n" ENVELOPE, NULL);
}

static void test_milter_rcpt(void **state) {
    (void)state;
    until_milter_holds('R', "EHLO c.example\r\n" ENVELOPE, NULL);
}

static void test_milter_data(void **state) {
    (void)state;
    until_milter_holds('T', "EHLO c.example\r\n" MESSAGE, NULL);
}

static void test_milter_end(void **state) {
    (void)state;
    until_milter_holds('E', "EHLO c.example\r\n" MESSAGE, BODY);
}

static void until_policy_is_asked(enum check_stage stage, const char *body) {
    struct client a, b;
    server.silent = true;
    use_policy(&server, stage, "DUNNO");
    world_start();
    greeted(&a);
    say(&a, stage == CHECK_RCPT ? ENVELOPE : MESSAGE, body ? "354" : "");
    say(&a, body ? body : "", "");
    WAIT(server.questions == 1);
    greeted(&b);
    say(&b, stage == CHECK_RCPT ? ENVELOPE : MESSAGE, body ? "354" : "");
    say(&b, body ? body : "", "");
    WAIT(server.questions == 2);
    leave_and_stop(&a, &b);
}

static void test_policy_rcpt(void **state) {
    (void)state;
    until_policy_is_asked(CHECK_RCPT, NULL);
}

static void test_policy_data(void **state) {
    (void)state;
    until_policy_is_asked(CHECK_DATA, NULL);
}

static void test_policy_end(void **state) {
    (void)state;
    until_policy_is_asked(CHECK_END, BODY);
}

static void test_directory(void **state) {
    struct client a, b;
    (void)state;
    use_silent_directory();
    world_start();
    greeted(&a);
    say(&a, ENVELOPE, "");
    WAIT(server.count == 1);
    greeted(&b);
    say(&b, ENVELOPE, "250 2.1.0");
    leave_and_stop(&a, &b);
}

/* It does not wait for ever for a directory that does not speak. */
static void test_directory_hangs(void **state) {
    struct client c;
    (void)state;
    use_silent_directory();
    world_start();
    greeted(&c);
    say(&c, ENVELOPE "RCPT TO:<x@other.example>\r\nRSET\r\n", "250 2.0.0");
    assert_non_null(strstr(c.text, "451 4."));
    assert_true(strstr(c.text, "451 4.") < strstr(c.text, "550 5.7.1"));
    close(c.fd);
}

static void test_vrfy(void **state) {
    struct client a, b, late;
    (void)state;
    use_silent_directory();
    w.settings.vrfy = true;
    world_start();
    greeted(&a);
    say(&a, "VRFY x@any.example\r\n", "");
    WAIT(server.count == 1);
    greeted(&late);
    say(&late, "VRFY <x@any.example>\r\nNOOP\r\n", "252 2.0.0 cannot tell now\r\n250 2.0.0 ok");
    close(late.fd);
    WAIT(inbound_sessions(w.inbound) == 1);
    greeted(&b);
    say(&b, "VRFY y@any.example\r\n", "");
    turn(100);
    leave_and_stop(&a, &b);
}

static void use_mail_authentication(void) {
    struct buf problems;
    use_silent_dns();
    mailauth = (struct mailauth_config){.authserv_id = "mx.example",
                                        .spf = true,
                                        .dkim = true,
                                        .dmarc = MAILAUTH_REPORT,
                                        .dns = dns_text,
                                        .timeout_ms = 2000,
                                        .threads = 1};
    buf_init(&problems, 4096);
    if (mailauth_new(&w.parts.mailauth, &mailauth, &problems) != ERR_OK)
        fail_msg("%.*s", (int)buf_len(&problems), buf_span(&problems).at);
    buf_deinit(&problems);
}

static void test_mail_authentication(void **state) {
    struct client a, b;
    (void)state;
    use_mail_authentication();
    world_start();
    greeted(&a);
    say(&a, MESSAGE, "354");
    say(&a, BODY, "");
    WAIT(dns_was_asked());
    greeted(&b); /* behind it in the line of the one thread */
    say(&b, MESSAGE, "354");
    say(&b, BODY, "");
    turn(100);
    leave_and_stop(&a, &b);
    assert_int_equal(w.submits, 0);
}

/* What the thread of the front end asked so far. */
static bool dns_was_asked_for(const char *label, size_t *have, char *all, size_t size) {
    ssize_t got;
    while (size - *have > 512 && (got = recv(dns_fd, all + *have, 512, MSG_DONTWAIT)) > 0)
        *have += (size_t)got;
    return memmem(all, *have, label, strlen(label)) != NULL;
}

static void send_from(struct client *c, const char *domain) {
    char text[200];
    greeted(c);
    say(c, MESSAGE, "354");
    snprintf(text, sizeof text, "From: a@%s\r\n\r\nx\r\n.\r\n", domain);
    say(c, text, "");
}

/* Nobody's question takes the time of those behind it: slow domains and early ends must not crowd out verification. */
static void test_nobody_waits_for_the_gone(void **state) {
    static char all[1 << 16];
    struct client first, gone, third;
    size_t have = 0;
    (void)state;
    use_mail_authentication();
    world_start();
    send_from(&first, "first.example");
    WAIT(dns_was_asked_for("first", &have, all, sizeof all));
    send_from(&gone, "gone.example");
    turn(100);
    client_reset(&gone);
    WAIT(inbound_sessions(w.inbound) == 1);
    send_from(&third, "third.example");
    WAIT(dns_was_asked_for("third", &have, all, sizeof all));
    assert_false(dns_was_asked_for("gone", &have, all, sizeof all));
    world_stop();
    close(first.fd);
    close(third.fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_dns_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_milter_connect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_milter_helo, setup, teardown),
        cmocka_unit_test_setup_teardown(test_milter_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_milter_rcpt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_milter_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_milter_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_rcpt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vrfy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mail_authentication, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_waits_for_the_gone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
