/* The door to libpq against a real PostgreSQL: rows and NULLs, what the server refuses, bounds, a server that is
 * frozen or dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/net/pg.h"
#include "tests/support/real_servers.h"

static struct real_server server;
static struct buf why, seen;

static int setup(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    buf_init(&why, 4000);
    buf_init(&seen, 1 << 20);
    return postgres_start(&server) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    real_end(&server);
    buf_deinit(&why);
    buf_deinit(&seen);
    return 0;
}

static struct pg_link *connected(void) {
    struct pg_link *l = NULL;
    int err = ERR_CLOSED;
    for (int i = 0; i < 100 && err; i++) { /* right after its start it may say that it is starting */
        buf_clear(&why);
        err = pg_link_open(&l, server.uri, 10000, &why);
        if (err)
            usleep(50 * 1000);
    }
    assert_int_equal(err, ERR_OK);
    return l;
}

static void on_row(void *arg, const struct span *columns, size_t count) {
    size_t *rows = arg;
    ++*rows;
    for (size_t i = 0; i < count; i++) {
        buf_add(&seen, columns[i].at ? columns[i] : SPAN("NULL"));
        buf_add_byte(&seen, i + 1 < count ? '|' : '\n');
    }
}

static size_t rows;

static int query(struct pg_link *l, const char *text, struct span a, struct span b, uint64_t timeout_ms) {
    struct span params[] = {a, b};
    buf_clear(&seen);
    buf_clear(&why);
    rows = 0;
    return pg_link_query(l, text, params, 2, on_row, &rows, timeout_ms, &why);
}

static void asks(void **state) {
    (void)state;
    struct pg_link *l = connected();
    assert_int_equal(query(l, "SELECT $1, $2 || 'x', NULL, ''", SPAN("a'; DROP TABLE t; --"), SPAN("b"), 10000),
                     ERR_OK);
    assert_string_equal(buf_cstr(&seen), "a'; DROP TABLE t; --|bx|NULL|\n");
    assert_int_equal(query(l, "SELECT $1 WHERE 1 = 2", SPAN("a"), SPAN("b"), 10000), ERR_OK); /* $2 is not used */
    assert_int_equal(rows, 0);
    assert_int_equal(query(l, "SELECT $2::int FROM generate_series(1, 3)", SPAN_EMPTY, SPAN("7"), 10000), ERR_OK);
    assert_string_equal(buf_cstr(&seen), "7\n7\n7\n");
    assert_int_equal(pg_link_query(l, "", NULL, 0, on_row, &rows, 10000, NULL), ERR_OK);
    /* the link stays good after each of these */
    assert_int_equal(query(l, "SELECT nonsense", SPAN("a"), SPAN("b"), 10000), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&why), "nonsense"));
    assert_true(span_find(buf_span(&why), '\n') < 0);
    assert_int_equal(query(l, "SELECT 1 / ($1::int)", SPAN("0"), SPAN("b"), 10000), ERR_INVALID);
    assert_int_equal(query(l, "SELECT $1::text", SPAN("\xff\xfe"), SPAN("b"), 10000), ERR_INVALID);
    assert_int_equal(query(l, "SELECT $1::text", SPAN("a\0b"), SPAN("b"), 10000), ERR_INVALID);
    assert_int_equal(query(l, "SELECT i FROM generate_series(1, 5000) i", SPAN("a"), SPAN("b"), 10000), ERR_FULL);
    assert_int_equal(rows, 1000);
    assert_int_equal(query(l, "SELECT i FROM generate_series(1, 1000) i", SPAN("a"), SPAN("b"), 10000), ERR_OK);
    assert_int_equal(rows, 1000);
    pg_link_close(l);
    pg_link_close(NULL);
}

static void refuses(void **state) {
    (void)state;
    struct pg_link *l;
    char uri[200];
    snprintf(uri, sizeof uri, "postgresql://postgres:wr0ng@127.0.0.1:%u/postgres", server.port);
    buf_clear(&why);
    assert_int_equal(pg_link_open(&l, uri, 10000, &why), ERR_DENIED);
    assert_null(l);
    assert_null(strstr(buf_cstr(&why), "wr0ng"));
    assert_non_null(strstr(buf_cstr(&why), "password authentication failed"));
    snprintf(uri, sizeof uri, "postgresql://postgres:wr0ng@127.0.0.1:%u/postgres", real_free_port());
    buf_clear(&why);
    assert_int_equal(pg_link_open(&l, uri, 10000, &why), ERR_UNREACHABLE);
    assert_true(buf_len(&why) > 0 && span_find(buf_span(&why), '\n') < 0);
    buf_clear(&why);
    assert_int_equal(pg_link_open(&l, "postgresql://u:wr0ng%zz@h/", 10000, &why), ERR_INVALID);
    assert_null(strstr(buf_cstr(&why), "wr0ng"));
    assert_int_equal(pg_link_open(&l, "nonsense", 10000, NULL), ERR_INVALID);
}

static void loses_the_server(void **state) {
    (void)state;
    struct pg_link *l = connected(), *other;
    assert_int_equal(query(l, "SELECT pg_sleep(600)", SPAN("a"), SPAN("b"), 200), ERR_TIMEOUT);
    pg_link_close(l);
    l = connected();
    real_signal(&server, SIGSTOP);
    assert_int_equal(query(l, "SELECT 1", SPAN("a"), SPAN("b"), 200), ERR_TIMEOUT);
    assert_int_equal(pg_link_open(&other, server.uri, 200, &why), ERR_TIMEOUT);
    real_signal(&server, SIGCONT);
    pg_link_close(l);
    l = connected();
    other = connected();
    assert_int_equal(query(other,
                           "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                           " AND backend_type = 'client backend'",
                           SPAN("a"), SPAN("b"), 10000),
                     ERR_OK);
    assert_int_equal(query(l, "SELECT 1", SPAN("a"), SPAN("b"), 10000), ERR_CLOSED);
    assert_true(buf_len(&why) > 0);
    real_kill(&server);
    assert_int_equal(query(other, "SELECT 1", SPAN("a"), SPAN("b"), 10000), ERR_CLOSED);
    pg_link_close(l);
    pg_link_close(other);
    assert_true(postgres_begin(&server));
    l = connected();
    assert_int_equal(query(l, "SELECT 1", SPAN("a"), SPAN("b"), 10000), ERR_OK);
    pg_link_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asks),
        cmocka_unit_test(refuses),
        cmocka_unit_test(loses_the_server),
    };
    return cmocka_run_group_tests_name("pg", tests, setup, teardown);
}
