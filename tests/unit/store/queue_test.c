/* queue: long bodies in chunks, staging and its end, undo, watermarks, paging. The rest is in store_test. */
#include "tests/unit/store/place.h"

#include "proto/frame.h"
#include "store/keys.h"
#include "store/memory.h"
#include "store/queue.h"
#include "store/verify.h"

enum { SHARD = 2 };
static const uint64_t now_ms = UINT64_C(1790000000000);

static int setup(void **state) {
    return store_memory_open((struct store **)state);
}

static int teardown(void **state) {
    assert_int_equal(store_memory_rewrites(*state), 0);
    store_close(*state);
    return 0;
}

static uint64_t id_of(unsigned n) {
    return (now_ms + n) << 22 | SHARD << 12;
}

static void write_and_clear(struct store *s, struct store_batch *b) {
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_clear(b);
}

static struct span envelope_of(struct buf *to, size_t size) {
    Words__Recipient r = WORDS__RECIPIENT__INIT, *list[] = {&r};
    Words__Envelope e = WORDS__ENVELOPE__INIT;
    r.address = frame_bytes(SPAN("a@b.example"));
    r.destination = frame_bytes(SPAN("b.example"));
    e.sender = frame_bytes(SPAN("c@d.example"));
    e.n_recipients = 1;
    e.recipients = list;
    e.size = size;
    buf_init(to, 4096);
    assert_int_equal(frame_pack(&e.base, to), ERR_OK);
    return buf_span(to);
}

static void ignore(void *arg, const char *problem) {
    print_error("%s\n", problem);
    ++*(int *)arg;
}

static int problems_in(struct store *s) {
    int problems = 0;
    uint64_t messages;
    assert_int_equal(verify_store(s, ignore, &problems, &messages), ERR_OK);
    return problems;
}

static void a_long_body_lies_in_chunks(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    size_t size = 2 * FRAME_BODY_MAX + 7;
    char *body = malloc(size);
    struct buf packed, chunk;
    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (char)(i * 31 >> 5);
    queue_put_message(b, SHARD, id_of(1), envelope_of(&packed, size), span_make(body, size), SPAN_EMPTY, now_ms);
    write_and_clear(s, b);
    assert_int_equal(store_memory_count(s, STORE_BODY), 3);
    buf_init(&chunk, size);
    for (uint32_t n = 0; n < 3; n++)
        assert_int_equal(queue_get_chunk(s, SHARD, id_of(1), n, &chunk), ERR_OK);
    assert_int_equal(queue_get_chunk(s, SHARD, id_of(1), 3, &chunk), ERR_NOT_FOUND);
    assert_int_equal(queue_get_chunk(s, SHARD, id_of(1), 1u << 20, &chunk), ERR_NOT_FOUND);
    assert_true(span_eq(buf_span(&chunk), span_make(body, size)));
    assert_int_equal(problems_in(s), 0);
    queue_drop_message(b, SHARD, id_of(1), size, 1, false);
    write_and_clear(s, b);
    assert_int_equal(store_memory_count(s, STORE_BODY) + store_memory_count(s, STORE_ENVELOPE), 0);
    buf_deinit(&packed);
    buf_deinit(&chunk);
    free(body);
    store_batch_free(b);
}

static void staged_chunks_are_sealed_or_cleaned(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct buf packed;
    uint64_t dropped;
    for (unsigned m = 1; m <= 3; m++)
        for (uint32_t n = 0; n < 4; n++) {
            queue_put_chunk(b, SHARD, id_of(m), n, SPAN("octets of a chunk"));
            write_and_clear(s, b);
        }
    queue_put_chunk(b, SHARD + 1, id_of(9), 0, SPAN("of another shard"));
    queue_put_message(b, SHARD, id_of(1), envelope_of(&packed, 68), SPAN_EMPTY, SPAN_EMPTY, now_ms);
    queue_seal_chunks(b, SHARD, id_of(1));
    queue_drop_chunks(b, SHARD, id_of(2), 4);
    write_and_clear(s, b);
    assert_int_equal(store_memory_count(s, STORE_BODY), 9);
    assert_int_equal(queue_clean_chunks(s, SHARD, &dropped), ERR_OK);
    assert_int_equal(dropped, 1);
    assert_int_equal(store_memory_count(s, STORE_BODY), 5); /* of the message, and of the other shard */
    assert_int_equal(queue_clean_chunks(s, SHARD, &dropped), ERR_OK);
    assert_int_equal(dropped, 0);
    buf_deinit(&packed);
    store_batch_free(b);
}

static void undo_leaves_nothing(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct buf packed;
    uint64_t id;
    queue_put_message(b, SHARD, id_of(1), envelope_of(&packed, 4), SPAN("body"), SPAN("0123456789abcdef"), now_ms);
    write_and_clear(s, b);
    assert_int_equal(queue_get_submission(s, SHARD, SPAN("0123456789abcdef"), now_ms, &id), ERR_OK);
    assert_int_equal(id, id_of(1));
    assert_int_equal(queue_get_submission(s, SHARD, SPAN("0123456789abcdef"), now_ms + 47 * 3600000ull, &id), ERR_OK);
    assert_int_equal(queue_get_submission(s, SHARD, SPAN("0123456789abcdef"), now_ms + 50 * 3600000ull, &id),
                     ERR_NOT_FOUND);
    queue_drop_message(b, SHARD, id_of(1), 4, 1, true);
    queue_drop_submission(b, SHARD, SPAN("0123456789abcdef"), now_ms);
    write_and_clear(s, b);
    for (int f = 0; f < STORE_FAMILIES; f++)
        assert_int_equal(store_memory_count(s, (enum store_family)f), 0);
    buf_deinit(&packed);
    store_batch_free(b);
}

static void due_hints_are_paged_from_the_watermark(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct queue_due due[7];
    struct queue_due_cursor at = {.len = 0};
    size_t count, total = 0;
    uint64_t last_minute = 0, watermark;
    for (unsigned i = 0; i < 100; i++) {
        char destination[300];
        memset(destination, 'a' + (int)(i % 26), sizeof destination);
        queue_put_due(b, SHARD, now_ms + i * 30000ull, span_make(destination, 1 + i * 2), id_of(i), i);
    }
    queue_put_due(b, SHARD + 1, now_ms, SPAN("x"), id_of(1), 0);
    write_and_clear(s, b);
    do { /* 20 minutes and the one that has begun: two hints in each minute but for the edges */
        assert_int_equal(queue_read_due(s, SHARD, now_ms + 20 * 60000ull, &at, due, 7, &count), ERR_OK);
        for (size_t i = 0; i < count; i++) {
            assert_true(due[i].due_minute >= last_minute);
            assert_int_equal(due[i].id, id_of(due[i].index));
            last_minute = due[i].due_minute;
        }
        total += count;
    } while (count == 7);
    assert_true(total >= 40 && total <= 42);
    assert_true(last_minute <= (now_ms + 20 * 60000ull) / 60000);
    queue_drop_due(b, SHARD, now_ms + 10 * 60000ull);
    write_and_clear(s, b);
    assert_int_equal(queue_get_number(s, SHARD, QUEUE_DUE_WATERMARK, &watermark), ERR_OK);
    assert_int_equal(watermark, (now_ms + 10 * 60000ull) / 60000 * 60000);
    at.len = 0;
    assert_int_equal(queue_read_due(s, SHARD, UINT32_MAX * 60000ull, &at, due, 1, &count), ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(due[0].due_minute, watermark / 60000);
    store_batch_free(b);
}

static void ids_are_paged(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct buf packed;
    uint64_t ids[8], after = 0;
    size_t count, total = 0;
    struct span envelope = envelope_of(&packed, 4);
    for (unsigned i = 0; i < 50; i++)
        queue_put_message(b, SHARD, id_of(i), envelope, SPAN("body"), SPAN_EMPTY, now_ms);
    queue_put_message(b, SHARD + 1, id_of(3) + 1, envelope, SPAN("body"), SPAN_EMPTY, now_ms);
    queue_put_message(b, SHARD, UINT64_MAX, envelope, SPAN("body"), SPAN_EMPTY, now_ms);
    write_and_clear(s, b);
    do {
        assert_int_equal(queue_read_ids(s, SHARD, after, id_of(40), ids, 8, &count), ERR_OK);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(ids[i], id_of((unsigned)total++));
        after = count ? ids[count - 1] : after;
    } while (count);
    assert_int_equal(total, 41);
    assert_int_equal(queue_read_ids(s, SHARD, id_of(49), UINT64_MAX, ids, 8, &count), ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], UINT64_MAX);
    assert_int_equal(queue_read_ids(s, SHARD, UINT64_MAX, UINT64_MAX, ids, 8, &count), ERR_OK);
    assert_int_equal(count, 0);
    buf_deinit(&packed);
    store_batch_free(b);
}

static void on_flight(void *arg, uint64_t attempt, const Words__Inflight *r) {
    uint64_t *sum = arg;
    *sum += attempt * 1000 + r->message;
}

static void damaged_records_are_told(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct arena mem;
    uint64_t number, sum = 0;
    Words__Envelope *e;
    Words__RecipientState **states;
    struct key k = key_message(SHARD, id_of(1));
    arena_init(&mem, 4096, 0);
    store_put(b, STORE_ENVELOPE, key_span(&k), SPAN("\xff\xff"));
    k = key_recipient(SHARD, id_of(1), 0);
    store_put(b, STORE_RECIPIENT, key_span(&k), SPAN("\xff\xff"));
    k = key_number(SHARD, QUEUE_EPOCH);
    store_put(b, STORE_META, key_span(&k), SPAN("short"));
    k = key_staged(SHARD, id_of(2));
    store_put(b, STORE_META, key_span(&k), SPAN("short"));
    k = key_inflight(SHARD, 1);
    store_put(b, STORE_INFLIGHT, key_span(&k), SPAN("\xff\xff"));
    write_and_clear(s, b);
    assert_int_equal(queue_get_envelope(s, SHARD, id_of(1), &mem, &e), ERR_CORRUPT);
    assert_int_equal(queue_get_states(s, SHARD, id_of(1), 1, &mem, &states), ERR_CORRUPT);
    assert_int_equal(queue_get_number(s, SHARD, QUEUE_EPOCH, &number), ERR_CORRUPT);
    assert_int_equal(queue_clean_chunks(s, SHARD, &number), ERR_CORRUPT);
    assert_int_equal(queue_each_inflight(s, SHARD, on_flight, &sum), ERR_CORRUPT);
    assert_int_equal(sum, 0);
    arena_deinit(&mem);
    store_batch_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_long_body_lies_in_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(staged_chunks_are_sealed_or_cleaned, setup, teardown),
        cmocka_unit_test_setup_teardown(undo_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(due_hints_are_paged_from_the_watermark, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_are_paged, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_records_are_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
