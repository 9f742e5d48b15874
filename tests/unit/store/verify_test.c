/* verify: a whole store has no problems; each thing that can be wrong is found and named. */
#include "tests/unit/store/place.h"

#include "base/hash.h"
#include "proto/frame.h"
#include "store/keys.h"
#include "store/memory.h"
#include "store/queue.h"
#include "store/verify.h"

enum { SHARD = 5, BODY_LEN = 6000 };

struct problems {
    int count;
    char text[4000];
};

static void on_problem(void *arg, const char *problem) {
    struct problems *p = arg;
    size_t have = strlen(p->text);
    p->count++;
    snprintf(p->text + have, sizeof p->text - have, "%s\n", problem);
}

static uint64_t id_of(int n) {
    return UINT64_C(1790000000000) << 22 | SHARD << 12 | (uint64_t)n;
}

static void fill_body(char *to, int n) {
    memset(to, 'a' + n % 26, BODY_LEN);
    snprintf(to, 16, "message %06u", (unsigned)n % 1000000);
}

static void put_mail(struct store_batch *b, int n, size_t size, uint32_t checksum, size_t pieces) {
    char body[BODY_LEN];
    struct buf packed;
    Words__Recipient r = WORDS__RECIPIENT__INIT, *list[] = {&r, &r};
    Words__Envelope e = WORDS__ENVELOPE__INIT;
    fill_body(body, n);
    r.address = frame_bytes(SPAN("a@b.example"));
    r.destination = frame_bytes(SPAN("b.example"));
    e.sender = frame_bytes(SPAN("c@d.example"));
    e.n_recipients = 2;
    e.recipients = list;
    e.size = size ? size : BODY_LEN;
    e.has_checksum = true;
    e.checksum = checksum ? checksum : hash_checksum(body, BODY_LEN);
    buf_init(&packed, 4096);
    assert_int_equal(frame_pack(&e.base, &packed), ERR_OK);
    queue_put_message(b, SHARD, id_of(n), buf_span(&packed), pieces ? span_make(body, BODY_LEN) : SPAN_EMPTY,
                      SPAN("0123456789abcdef"), UINT64_C(1790000000000));
    buf_deinit(&packed);
}

static void put_state(struct store_batch *b, int n, uint32_t index) {
    Words__RecipientState state = WORDS__RECIPIENT_STATE__INIT;
    state.state = 3;
    queue_put_recipient(b, SHARD, id_of(n), index, &state);
    queue_put_due(b, SHARD, UINT64_C(1790000300000), SPAN("b.example"), id_of(n), index);
}

static void put_flight(struct store_batch *b, int n) {
    uint32_t index = 0;
    Words__Inflight flight = WORDS__INFLIGHT__INIT;
    flight.message = id_of(n);
    flight.n_recipients = 1;
    flight.recipients = &index;
    queue_put_inflight(b, SHARD, (uint64_t)n, &flight);
}

static void put_whole(struct store_batch *b, int n) {
    Words__Trace trace = WORDS__TRACE__INIT;
    put_mail(b, n, 0, 0, 1);
    put_state(b, n, 1);
    put_flight(b, n);
    trace.at_ms = UINT64_C(1790000000000);
    trace.message = id_of(n);
    trace.kind = 1;
    queue_put_trace(b, SHARD, &trace, (uint32_t)n);
}

static void put_all(struct store *s) {
    struct store_batch *b = store_batch_new();
    for (int i = 0; i < 50; i++)
        put_whole(b, i);
    queue_put_number(b, SHARD, QUEUE_EPOCH, 3);
    queue_put_chunk(b, SHARD, id_of(900), 0, SPAN("staged")); /* a submission that was not finished is no problem */
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_free(b);
}

static int setup(void **state) {
    int err = store_memory_open((struct store **)state);
    if (err == ERR_OK)
        put_all(*state);
    return err;
}

static int teardown(void **state) {
    store_close(*state);
    return 0;
}

static void finds_nothing_in_a_whole_store(void **state) {
    struct problems p = {0};
    uint64_t messages = 0;
    assert_int_equal(verify_store(*state, on_problem, &p, &messages), ERR_OK);
    assert_string_equal(p.text, "");
    assert_int_equal(messages, 50);
}

static struct store_batch *wrong;

static void expect(struct store *s, const char *text) {
    struct problems p = {0};
    uint64_t messages;
    assert_int_equal(store_write(s, wrong, true), ERR_OK);
    assert_int_equal(verify_store(s, on_problem, &p, &messages), ERR_OK);
    if (p.count != 1 || !strstr(p.text, text))
        fail_msg("expected one problem with \"%s\", found %d: %s", text, p.count, p.text);
    assert_int_equal(store_memory_crash(s, 0), 0);
    store_batch_clear(wrong);
}

/* Each case has a store of its own. */
static void next_case(struct store **s) {
    store_close(*s);
    assert_int_equal(store_memory_open(s), ERR_OK);
    put_all(*s);
}

static void raw(enum store_family f, struct key k, struct span value) {
    store_put(wrong, f, key_span(&k), value);
}

static void finds_each_problem(void **state) {
    struct store **s = (struct store **)state;
    struct key k;
    wrong = store_batch_new();
    put_mail(wrong, 100, 0, 0, 0);
    expect(*s, "body chunk 0: ");
    next_case(s);
    put_mail(wrong, 100, BODY_LEN - 1, 0, 1);
    expect(*s, "body has 6000 octets, the envelope says 5999");
    next_case(s);
    put_mail(wrong, 100, 0, 12345, 1);
    expect(*s, "checksum");
    next_case(s);
    put_state(wrong, 100, 0);
    expect(*s, "the state of recipient 0 without an envelope");
    next_case(s);
    put_state(wrong, 10, 2);
    expect(*s, "a state of recipient 2 of 2");
    next_case(s);
    put_flight(wrong, 100);
    expect(*s, "an attempt under way without an envelope");
    next_case(s);
    k = key_chunk(SHARD, id_of(100), 0);
    raw(STORE_BODY, k, SPAN("x"));
    expect(*s, "a body chunk without an envelope");
    next_case(s);
    raw(STORE_ENVELOPE, key_message(SHARD, id_of(100)), SPAN("\xff"));
    expect(*s, "the envelope does not decode");
    next_case(s);
    raw(STORE_RECIPIENT, key_recipient(SHARD, id_of(1), 0), SPAN("\xff"));
    expect(*s, "does not decode");
    next_case(s);
    raw(STORE_INFLIGHT, key_inflight(SHARD, 7000), SPAN("\xff"));
    expect(*s, "does not decode");
    next_case(s);
    raw(STORE_TRACE, key_trace(SHARD, 1, id_of(1), 0), SPAN("\xff"));
    expect(*s, "trace: ");
    next_case(s);
    raw(STORE_SUBMISSION, key_hour(SHARD, 1), SPAN("12345678"));
    expect(*s, "submission: ");
    next_case(s);
    raw(STORE_DUE, key_due_minute(SHARD, 9), SPAN_EMPTY);
    expect(*s, "due: ");
    next_case(s);
    raw(STORE_META, key_meta(SHARD, KEY_TAG_NUMBER), SPAN("1"));
    expect(*s, "meta: ");
    store_batch_free(wrong);
}

/* -- on disk -- */

static int disk_setup(void **state) {
    place_setup(state);
    struct place *p = *state;
    put_all(p->store);
    place_close(p);
    place_open(p); /* into tables and blob files */
    place_close(p);
    return 0;
}

static void reads_a_store_on_disk(void **state) {
    struct place *p = *state;
    struct problems found = {0};
    uint64_t messages = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_verify(p->path, on_problem, &found, &messages), ERR_OK);
        assert_string_equal(found.text, "");
        assert_int_equal(messages, 50);
    }
    place_open(p);
    struct store_batch *b = store_batch_new();
    put_whole(b, 60); /* in the log only */
    assert_int_equal(store_write(p->store, b, true), ERR_OK);
    store_batch_free(b);
    place_close(p);
    assert_int_equal(store_verify(p->path, on_problem, &found, &messages), ERR_OK);
    assert_string_equal(found.text, "");
    assert_int_equal(messages, 51);
    assert_int_equal(store_verify(p->root, on_problem, &found, &messages), ERR_NOT_FOUND);
    assert_int_equal(store_verify("/nonexistent", on_problem, &found, &messages), ERR_NOT_FOUND);
}

static void names_a_damaged_blob_file(void **state) {
    struct place *p = *state;
    char path[400];
    uint64_t messages;
    assert_true(find_file(p->path, ".blob", true, path));
    off_t size = size_of(path);
    assert_true(size > 50 * BODY_LEN);
    for (off_t at = 40; at < size - 4; at += size / 37) {
        struct problems found = {0};
        flip(path, at);
        assert_int_equal(store_verify(p->path, on_problem, &found, &messages), ERR_OK);
        if (!strstr(found.text, base_name(path)))
            fail_msg("flip at %ld of %s: %s", (long)at, path, found.text);
        flip(path, at);
    }
    struct problems found = {0};
    assert_int_equal(truncate(path, size - 7000), 0);
    assert_int_equal(store_verify(p->path, on_problem, &found, &messages), ERR_OK);
    assert_non_null(strstr(found.text, base_name(path)));
}

static void names_a_damaged_table(void **state) {
    struct place *p = *state;
    DIR *d = opendir(p->path);
    int tables = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct problems found = {0};
        char path[400];
        uint64_t messages;
        size_t len = strlen(e->d_name);
        if (len < 4 || strcmp(e->d_name + len - 4, ".sst") != 0)
            continue;
        join(path, p->path, e->d_name);
        flip(path, 30); /* in the first data block */
        assert_int_equal(store_verify(p->path, on_problem, &found, &messages), ERR_OK);
        if (!strstr(found.text, e->d_name))
            fail_msg("%s: %s", path, found.text);
        flip(path, 30);
        tables++;
    }
    closedir(d);
    assert_true(tables >= 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_nothing_in_a_whole_store, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_each_problem, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_a_store_on_disk, disk_setup, place_teardown),
        cmocka_unit_test_setup_teardown(names_a_damaged_blob_file, disk_setup, place_teardown),
        cmocka_unit_test_setup_teardown(names_a_damaged_table, disk_setup, place_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
