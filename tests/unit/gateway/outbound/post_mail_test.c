/*
 * post_mail: against a scheduler that is played on the same loop, and that checks each frame as a real one would:
 * hello, welcome, submissions, refusals, credit, silence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/hash.h"
#include "gateway/outbound/post_mail.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

static struct {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard, *pause;
    struct bus_hub *hub;
    struct post_mail *post;
    struct buf scratch, body;
    struct arena mem;
    char peer[BUS_PEER_MAX];
    size_t peer_len;
    uint64_t credit, correlation, cost;
    uint32_t verdict;
    bool silent, timed_out;
    const char *wrong; /* what a callback saw first */
    char sender[100], recipient[100], destination[100];
    unsigned hellos, submits, told, kept;
    int sign_err;
} t;

/* A callback must not jump out of the loop and the bus, as an assertion does: closing them would wait for ever. */
static void note(bool fine, const char *what) {
    if (fine)
        return;
    t.wrong = t.wrong ? t.wrong : what;
    loop_stop(t.loop);
}
#define EXPECT(condition) note(condition, #condition)

static void on_guard(void *arg) {
    (void)arg;
    t.timed_out = true;
    loop_stop(t.loop);
}

static void on_pause(void *arg) {
    (void)arg;
    loop_stop(t.loop);
}

static void run(uint64_t ms) {
#ifdef __SANITIZE_THREAD__
    ms *= 10;
#endif
    loop_timer_set(t.pause, ms);
    loop_run(t.loop);
    assert_false(t.timed_out);
    if (t.wrong)
        fail_msg("not so: %s", t.wrong);
}

static void reply(uint16_t kind, uint64_t correlation, const ProtobufCMessage *m) {
    EXPECT(frame_send_hub(t.hub, span_make(t.peer, t.peer_len), kind, correlation, 0, m, NULL, &t.scratch) == ERR_OK);
}

static void welcome(void) {
    Words__Welcome w = WORDS__WELCOME__INIT;
    w.epoch = 1;
    w.credit = t.credit;
    reply(FRAME_WELCOME, 0, &w.base);
}

static void answer(void) {
    Words__Answer a = WORDS__ANSWER__INIT;
    a.verdict = t.verdict;
    a.credit = t.cost;
    reply(FRAME_ANSWER, t.correlation, &a.base);
}

static void on_submit(const struct frame *f) {
    const Words__Submit *m = frame_unpack(&words__submit__descriptor, f->meta, &t.mem);
    struct span body = bus_bytes_span(f->body);
    EXPECT(m != NULL);
    if (!m)
        return;
    EXPECT(m->submission.len == 16);
    EXPECT(m->envelope->n_recipients == 1);
    EXPECT(m->envelope->size == body.len);
    EXPECT(m->envelope->checksum == hash_checksum(body.at, body.len));
    EXPECT(m->envelope->received_ms > 0);
    EXPECT(m->envelope->priority == 0);
    EXPECT(m->envelope->has_tls_required_no && m->envelope->tls_required_no); /* as its header says */
    EXPECT(m->envelope->recipients[0]->notify == NOTIFY_NEVER);
    span_copy(frame_span(m->envelope->sender), t.sender, sizeof t.sender);
    span_copy(frame_span(m->envelope->recipients[0]->address), t.recipient, sizeof t.recipient);
    span_copy(frame_span(m->envelope->recipients[0]->destination), t.destination, sizeof t.destination);
    buf_clear(&t.body);
    buf_add(&t.body, body);
    t.submits++;
    t.correlation = f->correlation;
    t.cost = FRAME_COST(f->meta.len, body.len);
    if (!t.silent)
        answer();
}

static void on_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct frame f;
    (void)arg;
    if (frame_read(&f, m) != ERR_OK) {
        note(false, "a frame");
        return;
    }
    arena_reset(&t.mem);
    t.peer_len = span_copy(peer, t.peer, sizeof t.peer);
    if (f.kind == FRAME_HELLO) {
        const Words__Hello *h = frame_unpack(&words__hello__descriptor, f.meta, &t.mem);
        EXPECT(h->role == ROLE_GATEWAY);
        EXPECT(span_eq(frame_span(h->name), SPAN("reports")));
        t.hellos++;
        welcome();
    } else {
        EXPECT(f.kind == FRAME_SUBMIT);
        on_submit(&f);
    }
}

static int sign(void *arg, const char *from, struct span message, struct buf *to) {
    EXPECT(arg == &t);
    buf_printf(to, "DKIM-Signature: of %s, %zu octets\r\n", from, message.len);
    return t.sign_err;
}

static void on_mailed(void *arg, bool kept) {
    EXPECT(arg == &t);
    t.told++;
    t.kept += kept;
}

static int send_mail(const char *from, const char *to, struct span message) {
    return post_mail_send(t.post, &(struct tlsrpt_mail){.from = from, .to = to, .message = message}, on_mailed, &t);
}

static int set_up(void **state) {
    (void)state;
    memset(&t, 0, sizeof t);
    t.bus = bus_new(1);
    t.loop = loop_new();
    t.guard = loop_timer_new(t.loop, on_guard, NULL);
    t.pause = loop_timer_new(t.loop, on_pause, NULL);
    loop_timer_set(t.guard, 30000);
    t.credit = 1 << 20;
    buf_init(&t.scratch, FRAME_META_MAX);
    buf_init(&t.body, FRAME_BODY_MAX);
    arena_init(&t.mem, 4096, FRAME_META_MAX);
    if (bus_hub_open(&t.hub, t.bus, t.loop, "inproc://post-mail", FRAME_PART_MAX, 8 << 20, on_hub, NULL) != ERR_OK)
        return -1;
    return post_mail_open(&t.post, t.bus, t.loop, "inproc://post-mail", "reports", sign, &t);
}

static int tear_down(void **state) {
    (void)state;
    post_mail_close(t.post);
    bus_hub_close(t.hub);
    loop_timer_close(t.guard);
    loop_timer_close(t.pause);
    loop_free(t.loop);
    bus_free(t.bus);
    buf_deinit(&t.scratch);
    buf_deinit(&t.body);
    arena_deinit(&t.mem);
    return 0;
}

static void test_sent(void **state) {
    (void)state;
    assert_int_equal(send_mail("a@b.example", "c@d.example", SPAN("x")), ERR_AGAIN); /* no welcome yet */
    run(50);
    assert_int_equal(t.hellos, 1);
    assert_int_equal(send_mail("reports@b.example", "c@D.example", SPAN("Subject: x\r\n\r\ntext\r\n")), ERR_OK);
    assert_int_equal(t.told, 0);
    run(50);
    assert_int_equal(t.kept, 1);
    assert_string_equal(t.sender, "reports@b.example");
    assert_string_equal(t.recipient, "c@d.example");
    assert_string_equal(t.destination, "d.example");
    assert_string_equal(buf_cstr(&t.body),
                        "DKIM-Signature: of reports@b.example, 20 octets\r\nSubject: x\r\n\r\ntext\r\n");
}

static void test_refused(void **state) {
    (void)state;
    static char long_message[FRAME_BODY_MAX + 1];
    run(50);
    memset(long_message, 'x', sizeof long_message);
    assert_int_equal(send_mail("a@b.example", "not an address", SPAN("x")), ERR_INVALID);
    assert_int_equal(send_mail("", "c@d.example", SPAN("x")), ERR_INVALID);
    assert_int_equal(send_mail("a@b.example", "c@d.example", span_make(long_message, sizeof long_message)), ERR_RANGE);
    t.sign_err = ERR_NOT_FOUND;
    assert_int_equal(send_mail("a@b.example", "c@d.example", SPAN("x")), ERR_NOT_FOUND);
    t.sign_err = ERR_OK;
    t.verdict = VERDICT_TEMPFAIL;
    assert_int_equal(send_mail("a@b.example", "c@d.example", SPAN("x")), ERR_OK);
    run(50);
    assert_int_equal(t.submits, 1);
    assert_int_equal(t.told, 1);
    assert_int_equal(t.kept, 0);
    t.credit = 0; /* the queue takes nothing now */
    welcome();
    run(50);
    assert_int_equal(send_mail("a@b.example", "c@d.example", SPAN("x")), ERR_AGAIN);
}

static void test_bounds(void **state) {
    (void)state;
    static char message[100000];
    run(50);
    memset(message, 'x', sizeof message);
    t.silent = true;
    unsigned sent = 0;
    while (sent < 100 && send_mail("a@b.example", "c@d.example", span_make(message, sizeof message)) == ERR_OK)
        sent++;
    assert_in_range(sent, 9, 11); /* one megabyte is lent */
    run(50);
    assert_int_equal(t.submits, sent);
    answer(); /* the last one gives its share back */
    run(50);
    assert_int_equal(t.told, 1);
    assert_int_equal(send_mail("a@b.example", "c@d.example", span_make(message, sizeof message)), ERR_OK);
    assert_int_equal(send_mail("a@b.example", "c@d.example", span_make(message, sizeof message)), ERR_AGAIN);
    for (unsigned i = 0; i < POST_MAIL_PENDING_MAX - sent; i++)
        (void)send_mail("a@b.example", "c@d.example", SPAN("x"));
    assert_int_not_equal(send_mail("a@b.example", "c@d.example", SPAN("x")), ERR_OK);
    post_mail_tick(t.post); /* nothing is overdue, and welcome was said */
    run(50);
    assert_int_equal(t.told, 1);
    assert_int_equal(t.hellos, 1);
}

static void test_bad_frames(void **state) {
    (void)state;
    run(50);
    Words__Hello hello = WORDS__HELLO__INIT;
    hello.role = ROLE_SCHEDULER;
    reply(FRAME_JOB, 0, &hello.base);
    reply(FRAME_ANSWER, 99, &hello.base); /* of no kind that is known, and to nobody */
    t.verdict = VERDICT_STORED;
    t.correlation = 12345;
    answer();
    run(50);
    assert_int_equal(t.told, 0);
    assert_int_equal(send_mail("a@b.example", "c@d.example", SPAN("x")), ERR_OK);
    run(50);
    assert_int_equal(t.kept, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_frames, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
