/*
 * Who a client is: PROXY in front of TLS, AUTH that is cut off, and XCLIENT, after which a client is checked as one
 * that has just connected.
 */
#include "tests/unit/gateway/inbound/session_world.h"

#include "tests/unit/base/net/tls_certs.h"

static struct played server, filter;
static struct tls_client *tls_client;
static char accounts[100];

/* A client that speaks TLS, on the loop of the played roles. */
static struct {
    struct tcp *tcp;
    const char *header; /* in front of TLS */
    bool secured, over;
} peer;

static void on_peer(void *arg, struct tcp *c, enum tcp_event event, int err) {
    (void)arg;
    (void)err;
    if (event == TCP_CONNECTED) {
        assert_int_equal(tcp_write(c, peer.header, strlen(peer.header)), ERR_OK);
        assert_int_equal(tcp_secure_client(c, tls_client, NULL), ERR_OK);
    }
    peer.secured = peer.secured || event == TCP_SECURED;
    peer.over = peer.over || event == TCP_EOF || event == TCP_FAILED;
}

static bool peer_heard(const char *wanted) {
    struct span in = buf_span(tcp_in(peer.tcp));
    return in.len && memmem(in.at, in.len, wanted, strlen(wanted)) != NULL;
}

static void peer_say(const char *text, const char *wanted) {
    if (*text) {
        buf_clear(tcp_in(peer.tcp));
        assert_int_equal(tcp_write(peer.tcp, text, strlen(text)), ERR_OK);
    }
    WAIT(peer_heard(wanted));
}

static void peer_open(const char *header) {
    struct tcp_addr a;
    assert_int_equal(tcp_addr_parse(&a, SPAN("127.0.0.1"), w.port), ERR_OK);
    memset(&peer, 0, sizeof peer);
    peer.header = header;
    peer.tcp = tcp_connect(w.loop, &a, NULL, 1 << 16, 1 << 16, on_peer, NULL);
    assert_non_null(peer.tcp);
    WAIT(peer.secured || peer.over);
}

static void peer_close(void) {
    tcp_close(peer.tcp);
    peer.tcp = NULL;
}

static void use_tls(void) {
    struct authority ca = certs_authority("ca");
    struct tls_client_config cc = {.verify = false};
    struct buf problems;
    certs_pair("mx", "DNS:mx.example", &ca, false, 30);
    struct tls_pair pair = {certs_path("mx.pem"), certs_path("mx.key")};
    struct tls_server_config sc = {.pairs = &pair, .count = 1};
    buf_init(&problems, 4096);
    if (tls_server_new(&w.parts.tls, &sc, &problems) != ERR_OK || tls_client_new(&tls_client, &cc, &problems) != ERR_OK)
        fail_msg("%.*s", (int)buf_len(&problems), buf_span(&problems).at);
    buf_deinit(&problems);
    certs_authority_free(&ca);
}

static void use_auth(uint64_t delay_ms) {
    struct buf problems;
    snprintf(accounts, sizeof accounts, "%s/accounts", certs_dir);
    static const char line[] =
        "nobody:$6$aaaaaaaa$06PB.fGyPBdKBqjlZzkA6.18zXC5QDqnI8U3j75YlYvi1EUE8llF44xjSYoSQHv0S51cvd"
        "hOjBFk9CKp3sXwY/\n";
    certs_write("accounts", line, sizeof line - 1, 0600);
    struct auth_backend_config backend = {.kind = AUTH_FILE, .name = "file", .file = accounts};
    struct auth_config c = {.backends = &backend,
                            .count = 1,
                            .hostname = "mx.example",
                            .fail_delay_ms = delay_ms,
                            .failure_window_ms = 60000};
    buf_init(&problems, 4096);
    if (auth_new(&w.parts.auth, &c, &problems) != ERR_OK)
        fail_msg("%.*s", (int)buf_len(&problems), buf_span(&problems).at);
    buf_deinit(&problems);
    w.settings.listeners[0].auth = INBOUND_AUTH_OFFERED;
}

static int setup(void **state) {
    certs_begin();
    return world_setup(state);
}

static int teardown(void **state) {
    if (peer.tcp)
        peer_close();
    world_stop();
    play_end(&server);
    play_end(&filter);
    if (w.parts.tls)
        tls_server_unref(w.parts.tls);
    if (w.parts.auth)
        auth_unref(w.parts.auth);
    if (tls_client)
        tls_client_unref(tls_client);
    tls_client = NULL;
    certs_end();
    return world_teardown(state);
}

static void believe(const char *net) {
    assert_int_equal(tcp_net_parse(&w.balancer, span_of(net)), ERR_OK);
    w.settings.balancer_count = 1;
}

#define ENVELOPE "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@any.example>\r\n"
#define V1 "PROXY TCP4 198.51.100.7 192.0.2.1 40000 465\r\n"

static void test_proxy_then_tls(void **state) {
    (void)state;
    use_tls();
    believe("127.0.0.0/8");
    w.settings.listeners[0].proxy = true;
    w.settings.listeners[0].tls = INBOUND_TLS_IMPLICIT;
    use_policy(&server, CHECK_RCPT, "DUNNO");
    world_start();
    peer_open(V1);
    peer_say("", "220");
    peer_say("EHLO c.example\r\n", "250 HELP");
    assert_false(peer_heard("XCLIENT"));
    peer_say(ENVELOPE, "250 2.1.5");
    assert_non_null(strstr(server.question, "client_address=198.51.100.7\n"));
    peer_say("DATA\r\n", "354");
    peer_say("x\r\n.\r\n", "250 2.0.0 queued");
    assert_int_equal(buf_append(&w.bodies, "", 1), ERR_OK);
    assert_non_null(strstr(buf_span(&w.bodies).at, "[198.51.100.7])"));
    assert_non_null(strstr(buf_span(&w.bodies).at, "with ESMTPS"));
    peer_close();
}

/* Without the header there is no handshake, and from others the header is not believed. */
static void test_proxy_is_needed(void **state) {
    (void)state;
    use_tls();
    believe("127.0.0.0/8");
    w.settings.listeners[0].proxy = true;
    w.settings.listeners[0].tls = INBOUND_TLS_IMPLICIT;
    world_start();
    peer_open("");
    assert_false(peer.secured);
    peer_close();
    believe("192.0.2.0/24");
    assert_int_equal(inbound_reconfigure(w.inbound, &w.settings, &w.parts), ERR_OK);
    turn(100);
    peer_open(V1);
    assert_false(peer.secured);
    peer_close();
    WAIT(inbound_sessions(w.inbound) == 0);
}

/* While a failure is held back, and between two messages of an exchange. */
static void test_auth_is_cut_off(void **state) {
    (void)state;
    use_tls();
    use_auth(60000);
    w.settings.listeners[0].tls = INBOUND_TLS_IMPLICIT;
    world_start();
    peer_open("");
    peer_say("", "220");
    peer_say("EHLO c.example\r\n", "250-AUTH ");
    peer_say("AUTH LOGIN\r\n", "334 ");
    peer_close();
    WAIT(inbound_sessions(w.inbound) == 0);
    peer_open("");
    peer_say("", "220");
    peer_say("EHLO c.example\r\n", "250 HELP");
    assert_int_equal(tcp_write(peer.tcp, "AUTH PLAIN AG5vYm9keQB5\r\n", 25), ERR_OK);
    turn(1000); /* for the hash */
    assert_int_equal(inbound_sessions(w.inbound), 1);
    world_stop();
}

/* A reload between challenge and response: the exchange goes on with what it began with. */
static void test_reload_inside_auth(void **state) {
    (void)state;
    use_tls();
    use_auth(1);
    w.settings.listeners[0].tls = INBOUND_TLS_IMPLICIT;
    world_start();
    peer_open("");
    peer_say("", "220");
    peer_say("EHLO c.example\r\n", "250 HELP");
    peer_say("AUTH LOGIN\r\n", "334 ");
    auth_unref(w.parts.auth);
    w.parts.auth = NULL;
    assert_int_equal(inbound_reconfigure(w.inbound, &w.settings, &w.parts), ERR_OK);
    turn(100);
    peer_say("bm9ib2R5\r\n", "334 ");
    peer_say("eQ==\r\n", "535 5.7.8");
    peer_say("AUTH LOGIN\r\n", "502");
    peer_close();
}

static void test_xclient(void **state) {
    struct client c;
    (void)state;
    believe("127.0.0.0/8");
    assert_int_equal(tcp_net_parse(&w.trusted, SPAN("198.51.100.0/24")), ERR_OK);
    w.settings.trusted_count = 1;
    use_policy(&server, CHECK_RCPT, "DUNNO");
    use_milter(&filter);
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "EHLO lb.example\r\n", "250-XCLIENT ");
    WAIT(strcmp(filter.heard, "CH") == 0);
    say(&c, "XCLIENT ADDR=198.51.100.7 NAME=one.example\r\n", "220 ");
    WAIT(strcmp(filter.heard, "CHCQ") == 0 || strcmp(filter.heard, "CHQC") == 0); /* two connections */
    say(&c, "EHLO one.example\r\n", "250 HELP");
    say(&c, "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\n", "250 2.1.5 recipient ok, will relay");
    assert_non_null(strstr(server.question, "client_address=198.51.100.7\n"));
    assert_non_null(strstr(server.question, "client_name=one.example\n"));
    say(&c, "XCLIENT ADDR=203.0.113.7\r\n", "503");
    say(&c, "RSET\r\nXCLIENT ADDR=203.0.113.7 NAME=two.example\r\n", "220 ");
    say(&c, "EHLO two.example\r\n", "250 HELP");
    say(&c, "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\n", "550 5.7.1");
    say(&c, "RCPT TO:<x@any.example>\r\n", "250 2.1.5");
    assert_non_null(strstr(server.question, "client_name=two.example\n"));
    filter.about = 'C';
    filter.answer = 'r';
    say(&c, "RSET\r\nXCLIENT ADDR=203.0.113.8\r\n", "554 5.7.1");
    expect(&c, NULL);
    close(c.fd);
}

/* What a balancer has proven of itself is not true of the clients that it then names. */
static void test_xclient_forgets_auth(void **state) {
    (void)state;
    use_tls();
    use_auth(1);
    believe("127.0.0.1/32");
    w.settings.listeners[0].tls = INBOUND_TLS_IMPLICIT;
    world_start();
    peer_open("");
    peer_say("", "220");
    peer_say("EHLO lb.example\r\n", "250 HELP");
    peer_say("AUTH PLAIN AG5vYm9keQB4\r\n", "235 2.7.0");
    peer_say("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\nRSET\r\n", "will relay");
    peer_say("XCLIENT ADDR=203.0.113.7\r\n", "220 ");
    peer_say("EHLO c.example\r\n", "250-AUTH ");
    peer_say("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\nRSET\r\n", "550 5.7.1");
    peer_say("XCLIENT LOGIN=me\r\n", "220 ");
    peer_say("XCLIENT ADDR=203.0.113.8\r\n", "220 "); /* said in two lines */
    peer_say("EHLO c.example\r\n", "250 HELP");
    peer_say("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\nRSET\r\n", "will relay");
    peer_close();
}

/* Its limits hold for clients behind it, and nobody else may say it. */
static void test_xclient_limits(void **state) {
    struct client c, first, second;
    (void)state;
    believe("127.0.0.1/32");
    w.settings.limits.connections_per_client = 3;
    world_start();
    client_open(&first);
    client_open(&second);
    client_open(&c);
    say(&first, "", "220");
    say(&second, "", "220");
    say(&c, "", "220");
    w.settings.limits.connections_per_client = 1;
    assert_int_equal(inbound_reconfigure(w.inbound, &w.settings, &w.parts), ERR_OK);
    turn(100);
    say(&first, "XCLIENT ADDR=198.51.100.7\r\n", "220");
    say(&second, "XCLIENT ADDR=198.51.100.7\r\n", "421 4.7.0");
    expect(&second, NULL);
    w.settings.balancer_count = 0;
    assert_int_equal(inbound_reconfigure(w.inbound, &w.settings, &w.parts), ERR_OK);
    turn(100);
    say(&c, "XCLIENT ADDR=198.51.100.8\r\n", "550 5.7.0");
    close(c.fd);
    close(first.fd);
    close(second.fd);
}

/* Where an account must own its senders and nothing tells which, it owns its name. */
static void test_sender_login_without_auth(void **state) {
    struct client c;
    (void)state;
    believe("127.0.0.1/32");
    w.settings.listeners[0].sender_login = true;
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "XCLIENT LOGIN=me@any.example\r\n", "220");
    say(&c, "EHLO c.example\r\n", "250 HELP");
    say(&c, "MAIL FROM:<you@any.example>\r\n", "553 5.7.1");
    say(&c, "MAIL FROM:<me@any.example>\r\nRSET\r\n", "250 2.1.0");
    say(&c, "MAIL FROM:<>\r\n", "250 2.1.0");
    close(c.fd);
}

/* Where mail is taken from those only who have said who they are, questions are, too. */
static void test_vrfy_waits_for_auth(void **state) {
    struct client c;
    (void)state;
    w.settings.vrfy = true;
    w.settings.listeners[0].auth = INBOUND_AUTH_REQUIRED;
    believe("127.0.0.1/32");
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "EHLO c.example\r\nVRFY x@any.example\r\n", "530 5.7.0");
    say(&c, "XCLIENT LOGIN=me@any.example\r\n", "220");
    say(&c, "EHLO c.example\r\nVRFY x@any.example\r\n", "250 2.1.5 x@any.example");
    close(c.fd);
}

/* A network that a reload no longer trusts is not trusted by the sessions that it has. */
static void test_trust_ends_by_reload(void **state) {
    struct client c;
    (void)state;
    assert_int_equal(tcp_net_parse(&w.trusted, SPAN("127.0.0.0/8")), ERR_OK);
    w.settings.trusted_count = 1;
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "EHLO c.example\r\n", "250 HELP");
    say(&c, "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\n", "250 2.1.5 recipient ok, will relay");
    w.settings.trusted_count = 0;
    assert_int_equal(inbound_reconfigure(w.inbound, &w.settings, &w.parts), ERR_OK);
    turn(100);
    say(&c, "RSET\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\n", "550 5.7.1");
    close(c.fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_proxy_then_tls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_proxy_is_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_auth_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reload_inside_auth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_xclient, setup, teardown),
        cmocka_unit_test_setup_teardown(test_xclient_forgets_auth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_xclient_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sender_login_without_auth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vrfy_waits_for_auth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trust_ends_by_reload, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
