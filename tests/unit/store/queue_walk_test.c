/* queue_walk: every message comes with its own states and no others; glances say what unpacking says, also of cut
 * records. */
#include "tests/unit/store/place.h"

#include "proto/frame.h"
#include "store/keys.h"
#include "store/memory.h"
#include "store/queue.h"
#include "store/queue_walk.h"

enum { SHARD = 3 };
static const uint64_t now_ms = UINT64_C(1790000000000);

static int setup(void **state) {
    return store_memory_open((struct store **)state);
}

static int teardown(void **state) {
    store_close(*state);
    return 0;
}

static uint64_t id_of(unsigned n) {
    return (now_ms + n) << 22 | SHARD << 12;
}

static void pack_envelope(struct buf *to, unsigned recipients) {
    Words__Recipient r[8], *list[8];
    Words__Envelope e = WORDS__ENVELOPE__INIT;
    char names[8][32];
    assert_true(recipients <= 8);
    for (unsigned i = 0; i < recipients; i++) {
        words__recipient__init(&r[i]);
        snprintf(names[i], sizeof names[i], "d%u.example", i);
        r[i].address = frame_bytes(SPAN("a@b.example"));
        r[i].destination = frame_bytes(span_of(names[i]));
        r[i].has_local = i % 2;
        list[i] = &r[i];
    }
    e.sender = frame_bytes(SPAN("c@d.example"));
    e.n_recipients = recipients;
    e.recipients = list;
    e.size = 100;
    e.received_ms = now_ms + recipients;
    e.has_client = e.has_checksum = true;
    e.client = frame_bytes(SPAN("192.0.2.1"));
    e.checksum = 77;
    assert_int_equal(frame_pack(&e.base, to), ERR_OK);
}

static void put_message(struct store_batch *b, uint32_t shard, unsigned n, unsigned recipients) {
    struct buf packed;
    buf_init(&packed, 4096);
    pack_envelope(&packed, recipients);
    queue_put_message(b, shard, id_of(n), buf_span(&packed), SPAN_EMPTY, SPAN_EMPTY, now_ms);
    buf_deinit(&packed);
}

static void put_state(struct store_batch *b, uint32_t shard, unsigned n, uint32_t index, uint32_t number) {
    Words__RecipientState s = WORDS__RECIPIENT_STATE__INIT;
    s.state = number;
    s.has_attempts = true;
    s.attempts = n;
    queue_put_recipient(b, shard, id_of(n), index, &s);
}

static void write_and_free(struct store *s, struct store_batch *b) {
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_free(b);
}

static uint32_t state_at(const struct queue_walk *w, uint32_t index, uint32_t *at) {
    struct span packed = queue_walk_state(w, index, at);
    struct span destination = SPAN_EMPTY;
    return packed.len ? queue_glance_state(packed, &destination) : 0;
}

static void check_states(struct store *s) {
    struct store_batch *b = store_batch_new();
    put_message(b, SHARD - 1, 9, 1);
    put_state(b, SHARD - 1, 9, 0, 3);
    put_message(b, SHARD, 1, 3);
    put_state(b, SHARD, 1, 1, 3);
    put_state(b, SHARD, 2, 0, 3); /* of a message that is gone */
    put_message(b, SHARD, 3, 1);
    put_message(b, SHARD, 4, 2);
    put_state(b, SHARD, 4, 0, 6);
    put_state(b, SHARD, 4, 1, 7);
    put_message(b, SHARD + 1, 5, 1);
    put_state(b, SHARD + 1, 5, 0, 3);
    write_and_free(s, b);
    struct queue_walk w;
    uint32_t at = 0;
    queue_walk_init(&w, s, SHARD, 0);
    assert_true(queue_walk_next(&w));
    assert_int_equal(w.id, id_of(1));
    assert_int_equal(w.state_count, 1);
    assert_int_equal(state_at(&w, 0, &at), 0);
    assert_int_equal(state_at(&w, 1, &at), 3);
    assert_int_equal(state_at(&w, 2, &at), 0);
    assert_true(queue_walk_next(&w));
    assert_int_equal(w.id, id_of(3));
    assert_int_equal(w.state_count, 0);
    assert_true(queue_walk_next(&w));
    assert_int_equal(w.id, id_of(4));
    at = 0;
    assert_int_equal(state_at(&w, 1, &at), 7); /* others may be passed over */
    assert_false(queue_walk_next(&w));
    assert_int_equal(w.err, ERR_OK);
    queue_walk_deinit(&w);
    queue_walk_init(&w, s, SHARD, id_of(3) + 1); /* from the middle */
    assert_true(queue_walk_next(&w));
    assert_int_equal(w.id, id_of(4));
    assert_int_equal(w.state_count, 2);
    queue_walk_deinit(&w);
}

static void each_with_its_own_states(void **state) {
    check_states(*state);
}

/* RocksDB's iterators forgive less than those in memory. */
static void each_with_its_own_states_on_disk(void **state) {
    struct place p;
    (void)state;
    place_init(&p);
    place_open(&p);
    check_states(p.store);
    place_deinit(&p);
}

/* More than one pair of iterators reads; nothing comes twice or is left out. */
static void a_long_one(void **state) {
    enum { MANY = 60000 };
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    for (unsigned n = 1; n <= MANY; n++) {
        put_message(b, SHARD, n, 1);
        put_state(b, SHARD, n, 0, 3);
    }
    write_and_free(s, b);
    struct queue_walk w;
    unsigned seen = 0;
    queue_walk_init(&w, s, SHARD, 0);
    while (queue_walk_next(&w)) {
        uint32_t at = 0;
        seen++;
        assert_int_equal(w.id, id_of(seen));
        assert_int_equal(w.state_count, 1);
        assert_int_equal(state_at(&w, 0, &at), 3);
    }
    assert_int_equal(w.err, ERR_OK);
    assert_int_equal(seen, MANY);
    queue_walk_deinit(&w);
}

static void damage_and_failure_end_it(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct key bad = key_message(SHARD, id_of(2));
    put_message(b, SHARD, 1, 1);
    put_message(b, SHARD, 5, 1);
    key_u8(&bad, 1);
    store_put(b, STORE_RECIPIENT, key_span(&bad), SPAN("x"));
    write_and_free(s, b);
    struct queue_walk w;
    queue_walk_init(&w, s, SHARD, 0);
    assert_false(queue_walk_next(&w));
    assert_int_equal(w.err, ERR_CORRUPT);
    assert_false(queue_walk_next(&w));
    queue_walk_deinit(&w);
    assert_true(store_is_damaged(s));
    b = store_batch_new();
    store_memory_fail(s, 1, ERR_IO, false);
    put_message(b, SHARD, 6, 1);
    assert_int_equal(store_write(s, b, true), ERR_IO); /* from now on it cannot be read */
    store_batch_free(b);
    queue_walk_init(&w, s, SHARD, 0);
    assert_false(queue_walk_next(&w));
    assert_int_equal(w.err, ERR_IO);
    queue_walk_deinit(&w);
}

static void glances_agree_with_unpacking(void **state) {
    struct queue_glance g = {0};
    struct arena mem;
    struct buf packed;
    (void)state;
    arena_init(&mem, 4096, 0);
    for (unsigned n = 1; n <= 8; n++) {
        buf_init(&packed, 4096);
        pack_envelope(&packed, n);
        assert_int_equal(queue_glance_envelope(&g, buf_span(&packed)), ERR_OK);
        assert_int_equal(g.count, n);
        assert_int_equal(g.received_ms, now_ms + n);
        const Words__Envelope *e = frame_unpack(&words__envelope__descriptor, buf_span(&packed), &mem);
        for (unsigned i = 0; i < n; i++)
            assert_true(span_eq(g.destinations[i], frame_span(e->recipients[i]->destination)));
        for (size_t cut = 0; cut < buf_len(&packed); cut++) { /* in memory of its own, so that a reader is seen */
            char *copy = malloc(cut + 1);
            assert_non_null(copy);
            memcpy(copy, buf_span(&packed).at, cut);
            char *exact = realloc(copy, cut ? cut : 1);
            int err = queue_glance_envelope(&g, span_make(exact, cut));
            assert_true(err == ERR_CORRUPT || (err == ERR_OK && g.count <= n));
            free(exact);
        }
        buf_deinit(&packed);
        arena_reset(&mem);
    }
    assert_int_equal(queue_glance_envelope(&g, SPAN_EMPTY), ERR_CORRUPT);
    assert_int_equal(queue_glance_envelope(&g, SPAN("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")), ERR_CORRUPT);
    assert_int_equal(queue_glance_envelope(&g, SPAN("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), ERR_CORRUPT);
    struct span destination = SPAN("its own");
    assert_int_equal(queue_glance_state(SPAN("\x08\x07"), &destination), 7);
    assert_true(span_eq(destination, SPAN("its own")));
    assert_int_equal(queue_glance_state(SPAN("\x08\x03\x52\x05there"), &destination), 3);
    assert_true(span_eq(destination, SPAN("there")));
    assert_int_equal(queue_glance_state(SPAN("\x08"), &destination), 0);
    assert_int_equal(queue_glance_state(SPAN("\x0b\x01"), &destination), 0);
    assert_int_equal(queue_glance_state(SPAN("\x10\x05"), &destination), 0);
    assert_int_equal(queue_glance_state(SPAN("\x08\x03\x52\x06there"), &destination), 0);
    assert_int_equal(queue_glance_state(SPAN_EMPTY, &destination), 0);
    queue_glance_deinit(&g);
    arena_deinit(&mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_with_its_own_states, setup, teardown),
        cmocka_unit_test(each_with_its_own_states_on_disk),
        cmocka_unit_test_setup_teardown(a_long_one, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_and_failure_end_it, setup, teardown),
        cmocka_unit_test(glances_agree_with_unpacking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
