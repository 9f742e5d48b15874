/*
 * What operators' filters hear of a session, in which order, and what becomes of a message that they discard; and that
 * a reload reaches them whoever waits.
 */
#include "tests/unit/gateway/inbound/session_world.h"

static struct played server, other, third;

static int teardown(void **state) {
    world_stop();
    play_end(&server);
    play_end(&other);
    play_end(&third);
    return world_teardown(state);
}

#define ENVELOPE "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@any.example>\r\n"
#define BODY "Subject: x\r\n\r\nhello\r\n.\r\n"

static void greeted(struct client *c) {
    client_open(c);
    say(c, "", "220");
    say(c, "EHLO c.example\r\n", "250 HELP");
}

static void send_message(struct client *c, const char *wanted) {
    say(c, ENVELOPE "DATA\r\n", "354");
    say(c, BODY, wanted);
}

static void test_order(void **state) {
    struct client c;
    (void)state;
    use_milter(&server);
    world_start();
    greeted(&c);
    send_message(&c, "250 2.0.0 queued");
    assert_string_equal(server.heard, "CHMRTLNBE");
    say(&c, ENVELOPE "RCPT TO:<y@any.example>\r\nRSET\r\n", "250 2.0.0");
    WAIT(strcmp(server.heard, "CHMRTLNBEMRRA") == 0);
    say(&c, "RSET\r\nEHLO c.example\r\n", "250 HELP");
    assert_string_equal(server.heard, "CHMRTLNBEMRRAH");
    say(&c, "QUIT\r\n", "221");
    WAIT(strcmp(server.heard, "CHMRTLNBEMRRAHQ") == 0);
    close(c.fd);
}

/* Who is refused at one stage leaves no trace in the next message. */
static void test_refusals(void **state) {
    struct client c;
    static const char stages[] = "MRTE";
    (void)state;
    use_milter(&server);
    world_start();
    greeted(&c);
    server.answer = 'r';
    for (const char *at = stages; *at; at++) {
        server.about = *at;
        say(&c, "MAIL FROM:<a@b.example>\r\n", *at == 'M' ? "550 5.7.1" : "250 2.1.0");
        say(&c, "RCPT TO:<x@any.example>\r\n", *at == 'M' ? "503" : *at == 'R' ? "550 5.7.1" : "250 2.1.5");
        say(&c, "DATA\r\n", *at == 'T' ? "550 5.7.1" : *at == 'E' ? "354" : "503");
        if (*at == 'E')
            say(&c, BODY, "550 5.7.1");
        server.about = 0;
        say(&c, "RSET\r\n", "250 2.0.0");
        send_message(&c, "250 2.0.0 queued");
    }
    assert_int_equal(w.submits, 4);
    close(c.fd);
}

static void discarded_and_kept(struct client *c) {
    send_message(c, "250 2.0.0 ok");
    assert_int_equal(w.submits, 0);
    server.about = 0;
    server.action = "DUNNO";
    send_message(c, "250 2.0.0 queued");
    assert_int_equal(w.submits, 1);
    close(c->fd);
}

static void test_discard_by_milter(void **state) {
    static const char stages[] = "MRTE";
    struct client c;
    (void)state;
    use_milter(&server);
    server.answer = 'd';
    world_start();
    for (const char *at = stages; *at; at++) {
        w.submits = 0;
        server.about = *at;
        greeted(&c);
        discarded_and_kept(&c);
    }
}

static void test_discard_by_policy(void **state) {
    static const enum check_stage stages[] = {CHECK_RCPT, CHECK_DATA, CHECK_END};
    struct client c;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        use_policy(&server, stages[i], "DISCARD");
        world_start();
        greeted(&c);
        discarded_and_kept(&c);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(world_setup(state), 0);
    }
    world_start();
}

/* Discarded by one recipient's check, and then given up: the next message is not touched by it. */
static void test_discard_is_forgotten(void **state) {
    struct client c;
    (void)state;
    use_policy(&server, CHECK_RCPT, "DISCARD");
    world_start();
    greeted(&c);
    say(&c, ENVELOPE, "250 2.1.5");
    server.action = "DUNNO";
    say(&c, "RSET\r\n", "250 2.0.0");
    send_message(&c, "250 2.0.0 queued");
    close(c.fd);
}

static void reload_to(struct played *p) {
    w.policy.address = p->address;
    assert_int_equal(inbound_reconfigure(w.inbound, &w.settings, &w.parts), ERR_OK);
    turn(100);
}

/* The services in force are those of the last reload, also while somebody waits for those of the first. */
static void test_reloads_while_one_waits(void **state) {
    struct client waiting, c;
    (void)state;
    server.silent = true;
    use_policy(&server, CHECK_RCPT, "DUNNO");
    other.action = "450 4.7.1 second";
    third.action = "450 4.7.1 third";
    play(&other);
    play(&third);
    world_start();
    greeted(&waiting);
    say(&waiting, ENVELOPE, "");
    WAIT(server.questions == 1);
    reload_to(&other);
    greeted(&c);
    say(&c, ENVELOPE, "450 4.7.1 second");
    reload_to(&third);
    say(&c, "RSET\r\n" ENVELOPE, "450 4.7.1 third");
    assert_int_equal(tcp_write(server.ends[0], "action=DUNNO\n\n", 14), ERR_OK);
    expect(&waiting, "250 2.1.5");
    turn(1200); /* the first ones are freed by time */
    say(&waiting, "RSET\r\n" ENVELOPE, "450 4.7.1 third");
    close(c.fd);
    close(waiting.fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_by_milter, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_by_policy, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_is_forgotten, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_reloads_while_one_waits, world_setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
