/* store: the contract on both backends; what the RocksDB backend says of damaged files; verify. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/frame.h"
#include "proto/id.h"
#include "store/memory.h"
#include "store/queue.h"

struct world {
    struct store *store;
    char dir[64], path[80];
};

static int open_rocks(struct world *w, struct store_report *report) {
    struct store_config c = {.path = w->path, .node = "n1", .memory_bytes = 32u << 20};
    return store_open(&w->store, &c, report);
}

static void make_dir(struct world *w) {
    strcpy(w->dir, "/tmp/posthouse-store-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/queue", w->dir);
}

static int setup_rocks(void **state) {
    struct world *w = calloc(1, sizeof *w);
    struct store_report report;
    make_dir(w);
    *state = w;
    return open_rocks(w, &report) == ERR_OK && report.created ? 0 : -1;
}

static int setup_memory(void **state) {
    struct world *w = calloc(1, sizeof *w);
    *state = w;
    return store_memory_open(&w->store) == ERR_OK ? 0 : -1;
}

static int teardown(void **state) {
    struct world *w = *state;
    store_close(w->store);
    if (w->dir[0]) {
        DIR *d = opendir(w->path);
        for (struct dirent *e; d && (e = readdir(d));)
            unlinkat(dirfd(d), e->d_name, 0);
        if (d)
            closedir(d);
        rmdir(w->path);
        rmdir(w->dir);
    }
    free(w);
    return 0;
}

static void put(struct store *s, enum store_family f, const char *key, const char *value, bool sync) {
    struct store_batch *b = store_batch_new();
    store_put(b, f, span_of(key), span_of(value));
    assert_int_equal(store_write(s, b, sync), ERR_OK);
    store_batch_free(b);
}

static bool has(struct store *s, enum store_family f, const char *key, const char *value) {
    struct buf b;
    buf_init(&b, 1 << 20);
    int err = store_get(s, f, span_of(key), &b);
    bool same = err == ERR_OK && span_eq(buf_span(&b), span_of(value));
    buf_deinit(&b);
    return same;
}

static void keeps_the_contract(void **state) {
    struct store *s = ((struct world *)*state)->store;
    struct store_batch *b = store_batch_new();
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%03d", i);
        store_put(b, STORE_DUE, span_of(key), span_of("v"));
    }
    store_put(b, STORE_ENVELOPE, SPAN("a"), SPAN("one"));
    store_put(b, STORE_ENVELOPE, SPAN("a"), SPAN("two"));
    store_delete(b, STORE_DUE, SPAN("k050"));
    store_delete_range(b, STORE_DUE, SPAN("k010"), SPAN("k020"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    assert_true(has(s, STORE_ENVELOPE, "a", "two"));
    assert_false(has(s, STORE_BODY, "a", "two"));
    store_batch_clear(b);
    store_single_delete(b, STORE_ENVELOPE, SPAN("a"));
    assert_int_equal(store_write(s, b, true), ERR_OK);
    struct buf none;
    buf_init(&none, 10);
    assert_int_equal(store_get(s, STORE_ENVELOPE, SPAN("a"), &none), ERR_NOT_FOUND);
    struct store_iter *it;
    struct span key, value;
    int count = 0;
    assert_int_equal(store_iter_open(&it, s, STORE_DUE, SPAN("k005"), SPAN("k060")), ERR_OK);
    while (store_iter_next(it, &key, &value)) {
        assert_true(span_eq(value, SPAN("v")));
        count++;
    }
    assert_int_equal(store_iter_error(it), ERR_OK);
    assert_int_equal(count, 55 - 10 - 1);
    store_iter_close(it);
    assert_int_equal(store_iter_open(&it, s, STORE_DUE, SPAN("k000"), SPAN("l")), ERR_OK);
    store_iter_seek(it, SPAN("k0195"));
    assert_true(store_iter_next(it, &key, NULL));
    assert_true(span_eq(key, SPAN("k020")));
    store_iter_close(it);
    store_batch_free(b);
}

static void queue_records_come_back(void **state) {
    struct store *s = ((struct world *)*state)->store;
    struct store_batch *b = store_batch_new();
    struct arena mem;
    struct buf packed, body;
    const uint64_t id = (1764000000000ULL << 22) | (3u << 12) | 7u, now_ms = 1764000000123ULL;
    arena_init(&mem, 4096, 0);
    buf_init(&packed, 65536);
    buf_init(&body, 65536);
    Words__Recipient r = WORDS__RECIPIENT__INIT, *rs[2] = {&r, &r};
    Words__Envelope e = WORDS__ENVELOPE__INIT, *back;
    r.address = frame_bytes(SPAN("a@b.example"));
    r.destination = frame_bytes(SPAN("b.example"));
    e.sender = frame_bytes(SPAN(""));
    e.n_recipients = 2;
    e.recipients = rs;
    e.received_ms = now_ms;
    e.size = 4;
    assert_int_equal(frame_pack(&e.base, &packed), ERR_OK);
    queue_put_message(b, 3, id, buf_span(&packed), SPAN("body"), SPAN("0123456789abcdef"), now_ms);
    Words__RecipientState state1 = WORDS__RECIPIENT_STATE__INIT, **states;
    state1.state = 3;
    state1.has_due_ms = true;
    state1.due_ms = now_ms + 300000;
    queue_put_recipient(b, 3, id, 1, &state1);
    queue_put_due(b, 3, state1.due_ms, SPAN("b.example"), id, 1);
    uint32_t index = 0;
    Words__Inflight flight = WORDS__INFLIGHT__INIT;
    flight.message = id;
    flight.n_recipients = 1;
    flight.recipients = &index;
    queue_put_inflight(b, 3, 99, &flight);
    Words__Trace trace = WORDS__TRACE__INIT;
    trace.at_ms = now_ms + 5 * 3600000ULL;
    trace.message = id;
    trace.kind = 4;
    queue_put_trace(b, 3, &trace, 1);
    trace.at_ms = now_ms;
    trace.kind = 1;
    queue_put_trace(b, 3, &trace, 0);
    queue_put_number(b, 3, QUEUE_LAST_ID, id);
    assert_int_equal(store_write(s, b, true), ERR_OK);

    uint64_t n = 0;
    size_t count = 0;
    assert_int_equal(queue_get_number(s, 3, QUEUE_LAST_ID, &n), ERR_OK);
    assert_int_equal(n, id);
    assert_int_equal(queue_get_number(s, 4, QUEUE_LAST_ID, &n), ERR_NOT_FOUND);
    assert_int_equal(queue_get_envelope(s, 3, id, &mem, &back), ERR_OK);
    assert_int_equal(back->n_recipients, 2);
    assert_int_equal(queue_get_states(s, 3, id, 2, &mem, &states), ERR_OK);
    assert_null(states[0]);
    assert_int_equal(states[1]->due_ms, state1.due_ms);
    assert_int_equal(queue_get_chunk(s, 3, id, 0, &body), ERR_OK);
    assert_true(span_eq(buf_span(&body), SPAN("body")));
    assert_int_equal(queue_get_submission(s, 3, SPAN("0123456789abcdef"), now_ms + 3600000, &n), ERR_OK);
    assert_int_equal(n, id);
    assert_int_equal(queue_get_submission(s, 3, SPAN("0123456789abcdeX"), now_ms, &n), ERR_NOT_FOUND);
    uint64_t ids[4];
    assert_int_equal(queue_read_ids(s, 3, 0, UINT64_MAX, ids, 4, &count), ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], id);
    struct queue_due due[4];
    struct queue_due_cursor at = {.len = 0};
    assert_int_equal(queue_read_due(s, 3, now_ms, &at, due, 4, &count), ERR_OK);
    assert_int_equal(count, 0);
    assert_int_equal(queue_read_due(s, 3, now_ms + 600000, &at, due, 4, &count), ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(due[0].id, id);
    assert_int_equal(due[0].index, 1);
    assert_int_equal(queue_read_due(s, 3, now_ms + 600000, &at, due, 4, &count), ERR_OK);
    assert_int_equal(count, 0); /* the cursor stands behind it */

    store_batch_clear(b);
    queue_drop_due(b, 3, now_ms + 600000);
    queue_drop_inflight(b, 3, 99);
    queue_drop_message(b, 3, id, 4, 2, true);
    assert_int_equal(store_write(s, b, true), ERR_OK);
    assert_int_equal(queue_get_envelope(s, 3, id, &mem, &back), ERR_NOT_FOUND);
    at.len = 0;
    assert_int_equal(queue_read_due(s, 3, now_ms + 900000, &at, due, 4, &count), ERR_OK);
    assert_int_equal(count, 0);
    buf_deinit(&packed);
    buf_deinit(&body);
    arena_deinit(&mem);
    store_batch_free(b);
}

static void on_trace(void *arg, const Words__Trace *t) {
    uint32_t *kinds = arg;
    *kinds = *kinds * 10 + t->kind;
}

static void traces_come_in_order_over_hours(void **state) {
    struct store *s = ((struct world *)*state)->store;
    const uint64_t now_ms = 1764000000123ULL, id = now_ms << 22;
    struct store_batch *b = store_batch_new();
    for (uint32_t i = 0; i < 3; i++) {
        Words__Trace t = WORDS__TRACE__INIT;
        t.at_ms = now_ms + i * 30 * 3600000ULL;
        t.message = id;
        t.kind = i + 1;
        queue_put_trace(b, 0, &t, i);
        t.message = id + 1;
        t.kind = 9;
        queue_put_trace(b, 0, &t, 100 + i);
    }
    assert_int_equal(store_write(s, b, true), ERR_OK);
    uint32_t kinds = 0;
    assert_int_equal(queue_each_trace(s, 0, id, now_ms + 100 * 3600000ULL, on_trace, &kinds), ERR_OK);
    assert_int_equal(kinds, 123);
    store_batch_clear(b);
    queue_drop_trace(b, 0, now_ms + 2 * 3600000ULL);
    assert_int_equal(store_write(s, b, true), ERR_OK);
    kinds = 0;
    assert_int_equal(queue_each_trace(s, 0, id, now_ms + 100 * 3600000ULL, on_trace, &kinds), ERR_OK);
    assert_int_equal(kinds, 23);
    store_batch_free(b);
}

static void memory_loses_what_is_not_synced(void **state) {
    struct store *s = ((struct world *)*state)->store;
    put(s, STORE_META, "a", "1", true);
    put(s, STORE_META, "a", "2", false);
    put(s, STORE_META, "b", "1", false);
    put(s, STORE_META, "c", "1", false);
    assert_int_equal(store_memory_crash(s, 2), 3);
    assert_true(has(s, STORE_META, "a", "2"));
    assert_true(has(s, STORE_META, "b", "1"));
    assert_false(has(s, STORE_META, "c", "1"));
    put(s, STORE_META, "a", "3", false);
    assert_int_equal(store_memory_crash(s, 0), 1);
    assert_true(has(s, STORE_META, "a", "2"));
}

static void memory_fails_on_request(void **state) {
    struct store *s = ((struct world *)*state)->store;
    struct store_batch *b = store_batch_new();
    struct store_report report;
    store_put(b, STORE_META, SPAN("a"), SPAN("1"));
    store_memory_fail(s, 1, ERR_IO, true);
    assert_int_equal(store_write(s, b, true), ERR_IO);
    assert_int_equal(store_write(s, b, true), ERR_IO); /* until it is reopened */
    assert_int_equal(store_reopen(s, &report), ERR_OK);
    assert_true(has(s, STORE_META, "a", "1"));
    store_batch_free(b);
}

static void rocks_keeps_synced_writes_over_a_reopening(void **state) {
    struct world *w = *state;
    struct store_report report;
    put(w->store, STORE_META, "a", "1", true);
    assert_int_equal(store_reopen(w->store, &report), ERR_OK);
    assert_true(has(w->store, STORE_META, "a", "1"));
    store_close(w->store);
    assert_int_equal(open_rocks(w, &report), ERR_OK);
    assert_false(report.created);
    assert_true(has(w->store, STORE_META, "a", "1"));
    struct store *second;
    struct store_config c = {.path = w->path, .node = "n1"};
    assert_int_equal(store_open(&second, &c, &report), ERR_EXISTS);
}

static void rocks_refuses_the_store_of_another_node(void **state) {
    struct world *w = *state;
    struct store_report report;
    struct store_config c = {.path = w->path, .node = "n2"};
    store_close(w->store);
    w->store = NULL;
    assert_int_equal(store_open(&w->store, &c, &report), ERR_DENIED);
    assert_non_null(strstr(report.damage, "n1"));
    w->store = NULL;
}

/* -- damage -- */

static void find_file(const struct world *w, const char *end, bool last, char *to, size_t size) {
    DIR *d = opendir(w->path);
    to[0] = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name), n = strlen(end);
        if (len <= n || strcmp(e->d_name + len - n, end) != 0)
            continue;
        char path[400];
        snprintf(path, sizeof path, "%s/%s", w->path, e->d_name);
        if (!to[0] || (strcmp(path, to) > 0) == last)
            snprintf(to, size, "%s", path);
    }
    closedir(d);
    assert_true(to[0]);
}

static void flip(const char *path, double place) {
    struct stat st;
    char c;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    fstat(fd, &st);
    off_t at = (off_t)((double)st.st_size * place);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 0x55;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void fill(struct world *w, int count) {
    for (int i = 0; i < count; i++) {
        char key[16], value[600];
        snprintf(key, sizeof key, "k%05d", i);
        memset(value, 'a' + i % 26, sizeof value - 1);
        value[sizeof value - 1] = 0;
        put(w->store, STORE_ENVELOPE, key, value, true);
    }
}

static void rocks_tolerates_a_torn_tail(void **state) {
    struct world *w = *state;
    struct store_report report;
    char path[512];
    fill(w, 50);
    store_close(w->store);
    find_file(w, ".log", true, path, sizeof path);
    int fd = open(path, O_WRONLY | O_APPEND); /* a record that began and was never finished, so never acknowledged */
    assert_int_equal(write(fd, "\x12\x34\x56\x78\x00\x02\x01half", 11), 11);
    close(fd);
    assert_int_equal(open_rocks(w, &report), ERR_OK);
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(store_get(w->store, STORE_ENVELOPE, SPAN("k00049"), &b), ERR_OK);
    buf_deinit(&b);
}

static void rocks_names_a_log_that_is_cut(void **state) {
    struct world *w = *state;
    struct store_report report;
    char path[512];
    struct stat st;
    fill(w, 50);
    store_close(w->store);
    w->store = NULL;
    find_file(w, ".log", true, path, sizeof path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 7), 0); /* the last record was acknowledged */
    assert_int_equal(open_rocks(w, &report), ERR_CORRUPT);
    assert_non_null(strstr(report.damage, "acknowledged"));
    w->store = NULL;
}

static void rocks_names_a_damaged_log(void **state) {
    struct world *w = *state;
    struct store_report report;
    char path[512];
    fill(w, 200);
    store_close(w->store);
    w->store = NULL;
    find_file(w, ".log", true, path, sizeof path);
    flip(path, 0.5);
    assert_int_equal(open_rocks(w, &report), ERR_CORRUPT);
    assert_true(report.damage[0]);
    w->store = NULL;
}

static void rocks_names_a_missing_log(void **state) {
    struct world *w = *state;
    struct store_report report;
    char path[512];
    fill(w, 200);
    store_close(w->store);
    w->store = NULL;
    find_file(w, ".log", true, path, sizeof path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(open_rocks(w, &report), ERR_CORRUPT);
    assert_true(report.damage[0]);
    w->store = NULL;
}

static void rocks_names_a_missing_table(void **state) {
    struct world *w = *state;
    struct store_report report;
    char path[512];
    fill(w, 200);
    store_close(w->store);
    assert_int_equal(open_rocks(w, &report), ERR_OK); /* replays the log into tables */
    store_close(w->store);
    w->store = NULL;
    find_file(w, ".sst", true, path, sizeof path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(open_rocks(w, &report), ERR_CORRUPT);
    assert_true(report.damage[0]);
    w->store = NULL;
}

static void count_problem(void *arg, const char *problem) {
    (void)problem;
    ++*(int *)arg;
}

static void verify_finds_a_damaged_table(void **state) {
    struct world *w = *state;
    struct store_report report;
    char path[512];
    int problems = 0;
    uint64_t messages;
    fill(w, 200);
    store_close(w->store);
    assert_int_equal(open_rocks(w, &report), ERR_OK);
    store_close(w->store);
    w->store = NULL;
    find_file(w, ".sst", true, path, sizeof path);
    flip(path, 0.3);
    assert_int_equal(store_verify(w->path, count_problem, &problems, &messages), ERR_OK);
    assert_true(problems > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_the_contract, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(keeps_the_contract, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(queue_records_come_back, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(queue_records_come_back, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(traces_come_in_order_over_hours, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(traces_come_in_order_over_hours, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(memory_loses_what_is_not_synced, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(memory_fails_on_request, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(rocks_keeps_synced_writes_over_a_reopening, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(rocks_refuses_the_store_of_another_node, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(rocks_tolerates_a_torn_tail, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(rocks_names_a_log_that_is_cut, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(rocks_names_a_damaged_log, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(rocks_names_a_missing_log, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(rocks_names_a_missing_table, setup_rocks, teardown),
        cmocka_unit_test_setup_teardown(verify_finds_a_damaged_table, setup_rocks, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
