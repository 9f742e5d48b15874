/* audit: records come back newest first and page by page, keep their order when the clock goes back, and are bounded.
 */
#include "tests/unit/store/place.h"

#include "proto/frame.h"
#include "store/audit.h"
#include "store/keys.h"
#include "store/memory.h"
#include "store/verify.h"

static const uint64_t start_ms = UINT64_C(1790000000000);

static int setup(void **state) {
    return store_memory_open((struct store **)state);
}

static int teardown(void **state) {
    store_close(*state);
    return 0;
}

static void fill(Words__AdminAudit *r, uint64_t n, char name[24]) {
    words__admin_audit__init(r);
    snprintf(name, 24, "actor%llu", (unsigned long long)n);
    r->at_ms = n;
    r->actor = frame_bytes(span_of(name));
    r->role = 2;
    r->verb = WORDS__ADMIN_VERB__ADMIN_HOLD;
    r->stage = 2;
}

static int put_record(struct audit *a, struct store *s, struct store_batch *b, uint64_t n, uint64_t now_ms) {
    Words__AdminAudit r;
    char name[24];
    fill(&r, n, name);
    int err = audit_put(a, b, &r, now_ms);
    if (s && err == ERR_OK) {
        err = store_write(s, b, true);
        store_batch_clear(b);
    }
    return err;
}

struct seen {
    uint64_t numbers[16];
    size_t count, max;
    char cursor[AUDIT_CURSOR_LEN];
};

static bool on_record(void *arg, const Words__AdminAudit *r, struct span cursor) {
    struct seen *seen = arg;
    seen->numbers[seen->count++] = r->at_ms;
    assert_int_equal(cursor.len, AUDIT_CURSOR_LEN);
    memcpy(seen->cursor, cursor.at, cursor.len);
    return seen->count < seen->max;
}

static void on_problem(void *arg, const char *problem) {
    print_error("%s\n", problem);
    ++*(int *)arg;
}

static int problems_in(struct store *s) {
    int problems = 0;
    uint64_t messages;
    assert_int_equal(verify_store(s, on_problem, &problems, &messages), ERR_OK);
    return problems;
}

static void newest_first_by_pages(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct audit a;
    assert_int_equal(audit_open(&a, s), ERR_OK);
    assert_int_equal(a.count, 0);
    for (uint64_t n = 1; n <= 7; n++)
        assert_int_equal(put_record(&a, s, b, n, start_ms + n / 3), ERR_OK);
    struct seen seen = {.max = 4};
    assert_int_equal(audit_read(s, SPAN_EMPTY, on_record, &seen), ERR_OK);
    assert_int_equal(seen.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(seen.numbers[i], 7 - i);
    struct seen rest = {.max = 16};
    assert_int_equal(audit_read(s, span_make(seen.cursor, sizeof seen.cursor), on_record, &rest), ERR_OK);
    assert_int_equal(rest.count, 3);
    assert_int_equal(rest.numbers[0], 3);
    assert_int_equal(rest.numbers[2], 1);
    assert_int_equal(audit_read(s, SPAN("short"), on_record, &rest), ERR_INVALID);
    assert_int_equal(problems_in(s), 0);
    store_batch_free(b);
}

/* Also over a new start, whose clock was set back. */
static void order_survives_the_clock(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct audit a;
    assert_int_equal(audit_open(&a, s), ERR_OK);
    assert_int_equal(put_record(&a, s, b, 1, start_ms), ERR_OK);
    assert_int_equal(put_record(&a, s, b, 2, start_ms - 5000), ERR_OK);
    assert_int_equal(audit_open(&a, s), ERR_OK);
    assert_int_equal(a.count, 2);
    assert_int_equal(put_record(&a, s, b, 3, start_ms - 9000), ERR_OK);
    assert_int_equal(put_record(&a, s, b, 4, start_ms + 1), ERR_OK);
    struct seen seen = {.max = 16};
    assert_int_equal(audit_read(s, SPAN_EMPTY, on_record, &seen), ERR_OK);
    assert_int_equal(seen.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(seen.numbers[i], 4 - i);
    store_batch_free(b);
}

static void long_texts_are_cut(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct audit a;
    Words__AdminAudit r;
    char name[24], *text = malloc(AUDIT_TEXT_MAX * 4);
    assert_non_null(text);
    memset(text, 'x', AUDIT_TEXT_MAX * 4);
    fill(&r, 1, name);
    r.has_reason = true;
    r.reason = frame_bytes(span_make(text, AUDIT_TEXT_MAX * 4));
    assert_int_equal(audit_open(&a, s), ERR_OK);
    assert_int_equal(audit_put(&a, b, &r, start_ms), ERR_OK);
    assert_true(store_batch_bytes(b) < AUDIT_TEXT_MAX + 1024);
    free(text);
    store_batch_free(b);
}

static void remove_old(struct audit *a, struct store *s, struct store_batch *b, uint64_t now_ms, uint64_t expected) {
    uint64_t found, wrong;
    assert_int_equal(audit_find_old(s, b, a->count, now_ms, &found, &wrong), ERR_OK);
    assert_int_equal(found, expected);
    assert_int_equal(wrong, 0);
    audit_removed(a, b, found);
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_clear(b);
}

static void the_oldest_go(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct audit a;
    assert_int_equal(audit_open(&a, s), ERR_OK);
    for (uint64_t n = 0; n < AUDIT_RECORDS_MAX; n++) {
        assert_int_equal(put_record(&a, NULL, b, n, start_ms + n), ERR_OK);
        if (n == 1000)
            assert_false(audit_is_crowded(&a));
    }
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_clear(b);
    assert_true(audit_is_crowded(&a));
    assert_int_equal(put_record(&a, s, b, 1, start_ms * 2), ERR_AGAIN); /* and nothing of it is written */
    assert_int_equal(store_batch_count(b), 0);
    remove_old(&a, s, b, start_ms + AUDIT_RECORDS_MAX, 1500);
    assert_false(audit_is_crowded(&a));
    assert_int_equal(put_record(&a, s, b, 12345678, start_ms + AUDIT_RECORDS_MAX), ERR_OK);
    struct seen seen = {.max = 1};
    assert_int_equal(audit_read(s, SPAN_EMPTY, on_record, &seen), ERR_OK);
    assert_int_equal(seen.numbers[0], 12345678);
    struct key last = key_audit(start_ms + 1501, 0); /* the record before is the oldest that is left */
    struct seen oldest = {.max = 16};
    assert_int_equal(audit_read(s, span_from(key_span(&last), 3), on_record, &oldest), ERR_OK);
    assert_int_equal(oldest.count, 1);
    assert_int_equal(oldest.numbers[0], 1500);
    assert_int_equal(problems_in(s), 0);
    /* By age: half of them, in lots; then nothing more. */
    uint64_t now_ms = start_ms + AUDIT_KEEP_MS + 7500;
    remove_old(&a, s, b, now_ms, 5000);
    remove_old(&a, s, b, now_ms, 1000);
    remove_old(&a, s, b, now_ms, 0);
    assert_int_equal(problems_in(s), 0);
    assert_int_equal(audit_open(&a, s), ERR_OK);
    assert_int_equal(a.count, AUDIT_RECORDS_MAX - 7500 + 1);
    store_batch_free(b);
}

/* A count that says too much is put right, else the log would be full for ever. */
static void a_wrong_count_is_put_right(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct audit a;
    uint64_t found, wrong;
    assert_int_equal(audit_open(&a, s), ERR_OK);
    for (uint64_t n = 0; n < 10; n++)
        assert_int_equal(put_record(&a, s, b, n, start_ms + n), ERR_OK);
    a.count = AUDIT_RECORDS_MAX;
    assert_int_equal(put_record(&a, s, b, 1, start_ms), ERR_AGAIN);
    assert_int_equal(audit_find_old(s, b, a.count, start_ms, &found, &wrong), ERR_OK);
    assert_int_equal(found, 0);
    audit_removed(&a, b, found + wrong);
    assert_int_equal(a.count, 10);
    assert_int_equal(store_write(s, b, true), ERR_OK);
    store_batch_clear(b);
    assert_int_equal(put_record(&a, s, b, 11, start_ms + 11), ERR_OK);
    assert_int_equal(problems_in(s), 0);
    store_batch_free(b);
}

static void damage_is_found(void **state) {
    struct store *s = *state;
    struct store_batch *b = store_batch_new();
    struct audit a;
    assert_int_equal(audit_open(&a, s), ERR_OK);
    assert_int_equal(put_record(&a, s, b, 1, start_ms), ERR_OK);
    struct key k = key_audit(start_ms - 1, 0);
    store_put(b, STORE_META, key_span(&k), SPAN("\xff\xff\xff"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    assert_int_equal(problems_in(s), 2); /* the record, and the count */
    struct seen seen = {.max = 16};
    assert_int_equal(audit_read(s, SPAN_EMPTY, on_record, &seen), ERR_CORRUPT);
    assert_int_equal(seen.count, 1);
    assert_true(store_is_damaged(s));
    store_batch_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(newest_first_by_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(order_survives_the_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(long_texts_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(the_oldest_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wrong_count_is_put_right, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_found, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
