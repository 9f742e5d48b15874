/*
 * Answers that come late, in a turn of their own: nothing of the dialogue may be lost, wait for ever, or be said with
 * words that are gone by then.
 */
#include "tests/unit/gateway/inbound/session_world.h"

static struct played server;

static int teardown(void **state) {
    world_stop();
    if (w.loop)
        play_end(&server);
    return world_teardown(state);
}

#define ENVELOPE "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@any.example>\r\n"

/* A message over the credit, judged by a filter: it streams on as credit comes. */
static void test_long_message_under_filter(void **state) {
    enum { LINES = 40000, LINE = 78 };
    struct client c;
    char line[LINE + 1];
    (void)state;
    w.credit = 300 * 1024; /* little more than one chunk */
    char spool[] = "/tmp/posthouse_spool_XXXXXX";
    w.settings.spool = mkdtemp(spool);
    use_milter(&server);
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "EHLO c.example\r\n", "250 HELP");
    say(&c, ENVELOPE "DATA\r\n", "354");
    say(&c, "Subject: long\r\n\r\n", "");
    memset(line, 'x', LINE - 2);
    memcpy(line + LINE - 2, "\r\n", 3);
    for (int i = 0; i < LINES; i++)
        client_send(&c, line, LINE);
    say(&c, ".\r\n", "250 2.0.0 queued");
    assert_int_equal(w.submits, 1);
    assert_true(buf_len(&w.bodies) > (size_t)LINES * LINE);
    close(c.fd);
    assert_int_equal(rmdir(spool), 0);
}

/* Messages that were judged need memory to leave; those that wait to be judged must not have taken all of it. */
static void test_held_messages_leave(void **state) {
    enum { CLIENTS = 30 };
    static struct client all[CLIENTS];
    (void)state;
    w.settings.limits.memory = 1; /* the least there is: 1 MiB of each kind */
    use_milter(&server);
    server.hold = 'E';
    world_start();
    for (int i = 0; i < CLIENTS; i++) {
        client_open(&all[i]);
        say(&all[i], "", "220");
        say(&all[i], "EHLO c.example\r\n", "250 HELP");
        say(&all[i], ENVELOPE "DATA\r\n", "354");
        say(&all[i], "Subject: short\r\n\r\nx\r\n.\r\n", "");
    }
    turn(200);
    milter_release(&server, 'c');
    for (int i = 0; i < CLIENTS; i++) {
        expect(&all[i], "250 2.0.0 queued");
        close(all[i].fd);
    }
}

static size_t count(const char *in, const char *what) {
    size_t n = 0;
    for (const char *at = in; (at = strstr(at, what)); at++)
        n++;
    return n;
}

/* One step of a client that sends all it can, and reads only when it is told to. False: nothing went. */
static bool pump(struct client *c, struct span *input, struct buf *replies) {
    static char piece[65536];
    ssize_t sent = send(c->fd, input->at, input->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    *input = span_from(*input, sent > 0 ? (size_t)sent : 0);
    ssize_t got = replies ? recv(c->fd, piece, sizeof piece, MSG_DONTWAIT) : 0;
    if (got > 0)
        assert_int_equal(buf_append(replies, piece, (size_t)got), ERR_OK);
    if (sent > 0 || got > 0)
        return true;
    turn(5);
    return false;
}

/* Replies for a client that does not read stand in line, whoever gave them and when. */
static void test_no_reply_is_lost(void **state) {
    enum { CYCLES = 600, HELPS = 150, IDLE = 60 };
    struct client c;
    struct buf input, replies;
    int small = 4096;
    struct tcp_addr a;
    (void)state;
    use_policy(&server, CHECK_RCPT, "450 4.7.1 not now");
    w.settings.limits.commands_bad = 2 * CYCLES * HELPS; /* HELP without end counts as errors */
    world_start();
    assert_int_equal(tcp_addr_parse(&a, SPAN("127.0.0.1"), w.port), ERR_OK);
    c.fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&a.storage, a.len), 0);
    say(&c, "", "220");
    say(&c, "EHLO c.example\r\n", "250 HELP");
    buf_init(&input, 4 << 20);
    buf_init(&replies, 64 << 20);
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        for (int i = 0; i < HELPS; i++)
            buf_add_str(&input, "HELP\r\n");
        buf_add_str(&input, ENVELOPE "RSET\r\n");
    }
    struct span rest = buf_span(&input);
    for (int idle = 0; idle < IDLE;)
        idle = pump(&c, &rest, NULL) ? 0 : idle + 1;
    for (int idle = 0; idle < IDLE;)
        idle = pump(&c, &rest, &replies) ? 0 : idle + 1;
    assert_int_equal(rest.len, 0);
    assert_int_equal(buf_append(&replies, "", 1), ERR_OK);
    assert_int_equal(count(buf_span(&replies).at, "250 2.0.0 ok"), CYCLES);
    assert_int_equal(count(buf_span(&replies).at, "450 4.7.1 not now"), CYCLES);
    buf_deinit(&input);
    buf_deinit(&replies);
    close(c.fd);
}

/* A chunk that is refused before it has come is refused with the words of that time. */
static void test_refused_chunk(void **state) {
    struct client c;
    (void)state;
    use_policy(&server, CHECK_DATA, "550 5.7.1 the words of the service");
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "EHLO c.example\r\n", "250 HELP");
    say(&c, ENVELOPE "BDAT 20\r\n", "250 2.1.5");
    WAIT(server.questions == 1);
    turn(50);
    say(&c, "0123456789", "");
    say(&c, "0123456789", "550 5.7.1 the words of the service");
    say(&c, "BDAT 3 LAST\r\nabc", "503");
    say(&c, "RSET\r\nNOOP\r\n", "250 2.0.0 ok\r\n250 2.0.0 ok");
    close(c.fd);
}

/* Whoever is slowed down is not kept for ever when he stops in the middle of a command. */
static void test_slowed_silence_ends(void **state) {
    struct client c;
    (void)state;
    w.settings.guard.slow_mode = GUARD_ENFORCE;
    w.settings.guard.slow_ms = 50;
    w.settings.guard.slow_after_errors = 1;
    w.settings.limits.idle_ms = 1500;
    world_start();
    client_open(&c);
    say(&c, "", "220");
    say(&c, "EHLO c.example\r\n", "250 HELP");
    say(&c, "BAD\r\n", "500");
    say(&c, "BAD\r\n", "500");
    say(&c, "NO", "421 4.4.2");
    close(c.fd);
}

/* What filters say of a client at once is said in the words of a greeting. */
static void test_greeting_of_the_refused(void **state) {
    struct client c;
    (void)state;
    use_milter(&server);
    server.about = 'C';
    server.answer = 't';
    world_start();
    client_open(&c);
    say(&c, "", "421 4.7.1");
    expect(&c, NULL);
    close(c.fd);
    server.answer = 'r';
    client_open(&c);
    say(&c, "", "554 5.7.1");
    say(&c, "EHLO c.example\r\n", "503");
    say(&c, "QUIT\r\n", "221");
    close(c.fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_long_message_under_filter, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_held_messages_leave, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_reply_is_lost, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_chunk, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_slowed_silence_ends, world_setup, teardown),
        cmocka_unit_test_setup_teardown(test_greeting_of_the_refused, world_setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
