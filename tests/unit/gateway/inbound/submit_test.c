/*
 * submit: against a scheduler that is played on the same loop: welcome, answers, credit, chunks taken back,
 * answers that come too late or to nobody.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/inbound/submit.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

enum { SEEN_MAX = 64 };
struct seen {
    uint16_t kind;
    uint64_t correlation, cost;
    uint8_t submission[16];
    bool chunked;
};
static struct {
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *guard;
    struct bus_hub *hub;
    struct submit *submit;
    struct buf scratch;
    struct arena mem;
    char peer[BUS_PEER_MAX];
    size_t peer_len;
    struct seen seen[SEEN_MAX];
    size_t count;
    uint64_t credit;
    bool automatic; /* answers Submit and Chunk at once */
    unsigned answers, room;
    uint32_t verdict;
    uint64_t message;
    bool timed_out;
} t;

static void send(uint16_t kind, uint64_t correlation, const ProtobufCMessage *m) {
    assert_int_equal(frame_send_hub(t.hub, span_make(t.peer, t.peer_len), kind, correlation, 0, m, NULL, &t.scratch),
                     ERR_OK);
}

static void send_answer(const struct seen *s, uint32_t verdict) {
    Words__Answer a = WORDS__ANSWER__INIT;
    a.verdict = verdict;
    a.has_message = true;
    a.message = 77;
    a.credit = s->cost;
    send(FRAME_ANSWER, s->correlation, &a.base);
}

static void send_credit(uint64_t bytes) {
    Words__Credit c = WORDS__CREDIT__INIT;
    c.bytes = bytes;
    send(FRAME_CREDIT, 0, &c.base);
}

static void on_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct frame f;
    (void)arg;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    assert_true(t.count < SEEN_MAX);
    struct seen *s = &t.seen[t.count++];
    *s = (struct seen){
        .kind = f.kind, .correlation = f.correlation, .cost = FRAME_COST(f.meta.len, bus_bytes_span(f.body).len)};
    if (f.kind == FRAME_HELLO) {
        t.peer_len = span_copy(peer, t.peer, sizeof t.peer);
        Words__Welcome w = WORDS__WELCOME__INIT;
        w.epoch = 1;
        w.credit = t.credit;
        send(FRAME_WELCOME, 0, &w.base);
    } else if (f.kind == FRAME_SUBMIT) {
        Words__Submit *submit = frame_unpack(&words__submit__descriptor, f.meta, &t.mem);
        assert_non_null(submit);
        memcpy(s->submission, submit->submission.data, 16);
        s->chunked = submit->chunked;
        if (t.automatic)
            send_answer(s, VERDICT_STORED);
    } else if (f.kind == FRAME_CHUNK && t.automatic) {
        send_credit(s->cost);
    }
    arena_reset(&t.mem);
    loop_stop(t.loop);
}

static void on_answer(void *arg, uint32_t verdict, uint64_t message, struct span text) {
    (void)text;
    *(unsigned *)arg += 1;
    t.verdict = verdict;
    t.message = message;
    loop_stop(t.loop);
}

static void on_room(void *arg) {
    (void)arg;
    t.room++;
    loop_stop(t.loop);
}

static void on_guard(void *arg) {
    (void)arg;
    t.timed_out = true;
    loop_stop(t.loop);
}

/* Turns the loop until the condition holds, or for `ms`. */
#define UNTIL(condition, ms)                                                                                           \
    do {                                                                                                               \
        t.timed_out = false;                                                                                           \
        loop_timer_set(t.guard, ms);                                                                                   \
        while (!(condition) && !t.timed_out)                                                                           \
            loop_run(t.loop);                                                                                          \
        loop_timer_stop(t.guard);                                                                                      \
    } while (0)
#define WAIT(condition)                                                                                                \
    do {                                                                                                               \
        UNTIL(condition, 5000);                                                                                        \
        assert_true(condition);                                                                                        \
    } while (0)

static void open_with(uint64_t credit, bool automatic) {
    memset(&t, 0, sizeof t);
    t.credit = credit;
    t.automatic = automatic;
    t.bus = bus_new(1);
    t.loop = loop_new();
    t.guard = loop_timer_new(t.loop, on_guard, NULL);
    buf_init(&t.scratch, FRAME_META_MAX);
    arena_init(&t.mem, 4096, 1 << 20);
    assert_int_equal(bus_hub_open(&t.hub, t.bus, t.loop, "inproc://scheduler", FRAME_PART_MAX, 16 << 20, on_hub, NULL),
                     ERR_OK);
    assert_int_equal(submit_open(&t.submit, t.bus, t.loop, "inproc://scheduler", "mx.gateway0", on_room, NULL), ERR_OK);
    assert_false(submit_is_ready(t.submit));
    UNTIL(submit_is_ready(t.submit), 300); /* nothing stops the loop when the welcome comes */
    assert_true(submit_is_ready(t.submit));
}

static void shut(void) {
    submit_close(t.submit);
    bus_hub_close(t.hub);
    loop_timer_close(t.guard);
    loop_free(t.loop);
    bus_free(t.bus);
    buf_deinit(&t.scratch);
    arena_deinit(&t.mem);
}

static Words__Recipient recipient;
static Words__Recipient *recipients[1] = {&recipient};
static Words__Envelope *envelope(Words__Envelope *e) {
    words__envelope__init(e);
    words__recipient__init(&recipient);
    recipient.address = frame_bytes(SPAN("x@y.example"));
    recipient.destination = frame_bytes(SPAN("y.example"));
    e->recipients = recipients;
    e->n_recipients = 1;
    return e;
}

static struct submission *commit(const Words__Envelope *e, size_t body_len, unsigned *answers) {
    struct submission *m = submission_new(t.submit);
    struct bus_bytes *body = bus_bytes_new(body_len);
    assert_non_null(m);
    assert_non_null(body);
    memset(bus_bytes_mem(body), 'x', body_len);
    assert_int_equal(submission_commit(m, e, body, on_answer, answers), ERR_OK);
    bus_bytes_free(body);
    return m;
}

static void test_stored(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    (void)state;
    open_with(1 << 20, true);
    commit(envelope(&e), 100, &answers);
    assert_int_equal(submit_pending(t.submit), 1);
    WAIT(answers == 1);
    assert_int_equal(t.verdict, VERDICT_STORED);
    assert_int_equal(t.message, 77);
    assert_int_equal(submit_pending(t.submit), 0);
    commit(envelope(&e), 100, &answers);
    WAIT(answers == 2);
    assert_memory_not_equal(t.seen[1].submission, t.seen[2].submission, 16); /* ids differ, the prefix does not */
    assert_memory_equal(t.seen[1].submission, t.seen[2].submission, 8);
    shut();
}

/* Only as much as the credit is on the way; the others stand in line and go in order. */
static void test_credit(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    (void)state;
    open_with(3000, false);
    for (int i = 0; i < 4; i++)
        commit(envelope(&e), 800, &answers);
    WAIT(t.count == 3);
    UNTIL(t.count > 3, 200);
    assert_int_equal(t.count, 3); /* hello and two of about 1,400 octets */
    assert_int_equal(submit_pending(t.submit), 4);
    send_answer(&t.seen[1], VERDICT_STORED);
    WAIT(t.count == 4);
    send_answer(&t.seen[3], VERDICT_NO_SPACE);
    WAIT(t.count == 5);
    send_answer(&t.seen[2], VERDICT_STORED);
    send_answer(&t.seen[4], VERDICT_STORED);
    WAIT(answers == 4);
    shut();
}

/* A frame over the whole credit goes alone. */
static void test_frame_over_credit(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    (void)state;
    open_with(100, true);
    commit(envelope(&e), 5000, &answers);
    commit(envelope(&e), 5000, &answers);
    WAIT(answers == 2);
    shut();
}

static void test_chunks(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    (void)state;
    open_with(2000, false);
    struct submission *m = submission_new(t.submit);
    struct bus_bytes *octets = bus_bytes_new(1000);
    memset(bus_bytes_mem(octets), 'x', 1000);
    assert_int_equal(submission_chunk(m, octets), ERR_OK);
    assert_int_equal(submission_chunk(m, octets), ERR_AGAIN);
    WAIT(t.count == 2);
    assert_int_equal(t.room, 0);
    send_credit(t.seen[1].cost);
    WAIT(t.room == 1);
    assert_int_equal(submission_chunk(m, octets), ERR_OK);
    assert_int_equal(submission_commit(m, envelope(&e), NULL, on_answer, &answers), ERR_OK);
    WAIT(t.count == 3);
    send_credit(t.seen[2].cost);
    WAIT(t.count == 4);
    assert_int_equal(t.seen[3].kind, FRAME_SUBMIT);
    assert_true(t.seen[3].chunked);
    send_answer(&t.seen[3], VERDICT_STORED);
    WAIT(answers == 1);
    bus_bytes_free(octets);
    shut();
}

static void test_drop(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    (void)state;
    open_with(1 << 20, false);
    struct bus_bytes *octets = bus_bytes_copy(SPAN("octets"));
    struct submission *m = submission_new(t.submit);
    submission_drop(m); /* nothing was sent: nothing is said */
    m = submission_new(t.submit);
    assert_int_equal(submission_chunk(m, octets), ERR_OK);
    submission_drop(m);
    WAIT(t.count == 3);
    assert_int_equal(t.seen[2].kind, FRAME_ABORT);
    m = commit(envelope(&e), 100, &answers); /* submitted: it goes its way, and its answer meets nobody */
    WAIT(t.count == 4);
    submission_drop(m);
    send_answer(&t.seen[3], VERDICT_STORED);
    UNTIL(submit_pending(t.submit) == 0, 300);
    assert_int_equal(submit_pending(t.submit), 0);
    assert_int_equal(answers, 0);
    bus_bytes_free(octets);
    shut();
}

/* One that stands in line can be dropped, and those behind it move up. */
static void test_drop_in_line(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    (void)state;
    open_with(1500, false);
    commit(envelope(&e), 800, &answers);
    struct submission *second = commit(envelope(&e), 800, &answers);
    commit(envelope(&e), 800, &answers);
    submission_drop(second);
    WAIT(t.count == 2);
    send_answer(&t.seen[1], VERDICT_STORED);
    WAIT(t.count == 3);
    send_answer(&t.seen[2], VERDICT_STORED);
    WAIT(answers == 2);
    shut();
}

/* Strangers' octets on the bus change nothing. */
static void test_malformed_frames(void **state) {
    Words__Envelope e;
    unsigned answers = 0;
    uint8_t header[FRAME_HEADER_LEN];
    (void)state;
    open_with(1 << 20, false);
    struct span peer = span_make(t.peer, t.peer_len);
    static const uint16_t kinds[] = {FRAME_ANSWER, FRAME_CREDIT, FRAME_WELCOME, FRAME_JOB, 999};
    commit(envelope(&e), 100, &answers);
    WAIT(t.count == 2);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        frame_header(header, kinds[i], t.seen[1].correlation, 0, SPAN("\xff\xff"));
        assert_int_equal(bus_hub_send(t.hub, peer, span_make(header, sizeof header), SPAN("\xff\xff"), NULL), ERR_OK);
        assert_int_equal(bus_hub_send(t.hub, peer, span_make(header, 5), SPAN("\xff\xff"), NULL), ERR_OK);
    }
    struct seen unknown = {.correlation = 12345, .cost = UINT64_MAX};
    send_answer(&unknown, VERDICT_STORED);
    UNTIL(answers, 200);
    assert_int_equal(answers, 0);
    send_answer(&t.seen[1], VERDICT_STORED);
    WAIT(answers == 1);
    shut();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_credit),
        cmocka_unit_test(test_frame_over_credit),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_drop_in_line),
        cmocka_unit_test(test_malformed_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
