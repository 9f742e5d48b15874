/* Recipients in a real PostgreSQL: what rows mean, hostile addresses, wrong settings, and a server that is frozen,
 * killed and comes back under questions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/net/pg.h"
#include "gateway/directory/backend.h"
#include "tests/support/directory_asker.h"
#include "tests/support/real_servers.h"

static struct real_server server;
static struct asker asker;
static struct buf problems;

static void ignore(void *arg, const struct span *columns, size_t count) {
    (void)arg;
    (void)columns;
    (void)count;
}

static bool fill(void) {
    static const char *const statements[] = {
        "CREATE TABLE mail (local text, domain text, target text, kind text)",
        "INSERT INTO mail VALUES ('alice', 'example.net', NULL, NULL), ('empty', 'example.net', '', NULL),"
        "('box', 'example.net', NULL, 'mailbox'), ('team', 'example.net', 'alice@example.net', NULL),"
        "('team', 'example.net', 'bob', NULL), ('moved', 'example.net', 'm@far.example', 'forward'),"
        "('keeps', 'example.net', 'k@far.example', 'forward_keep'), ('both', 'example.net', 'k@far.example', "
        "'forward'),"
        "('both', 'example.net', NULL, 'mailbox'), ('self', 'example.net', 'Self@example.net', 'forward'),"
        "('self', 'example.net', 's@far.example', 'forward'), ('odd', 'example.net', 'x@far.example', 'nonsense'),"
        "('hollow', 'example.net', NULL, 'alias')",
    };
    struct pg_link *l = NULL;
    for (int i = 0; i < 200 && !l; i++) {
        if (pg_link_open(&l, server.uri, 10000, NULL) != ERR_OK)
            usleep(50 * 1000);
    }
    bool ok = l != NULL;
    for (size_t i = 0; ok && i < 2; i++)
        ok = pg_link_query(l, statements[i], NULL, 0, ignore, NULL, 10000, NULL) == ERR_OK;
    pg_link_close(l);
    return ok;
}

static int setup(void **state) {
    (void)state;
    buf_init(&problems, 4000);
    directory_asker_begin(&asker);
    return postgres_start(&server) && fill() ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    directory_asker_end(&asker);
    real_end(&server);
    buf_deinit(&problems);
    return 0;
}

static struct directory_config usual(void) {
    return (struct directory_config){.kind = DIRECTORY_POSTGRES,
                                     .name = "people",
                                     .uri = server.uri,
                                     .query = "SELECT target, kind FROM mail WHERE local = $2 AND domain = $3",
                                     .timeout_ms = 20000};
}

static struct directory *opened(struct directory_config c) {
    struct directory *d;
    buf_clear(&problems);
    assert_int_equal(directory_new(&d, &c, &problems), ERR_OK);
    return d;
}

static const char *ask(struct directory *d, const char *key) {
    return directory_ask(&asker, d, key, "example.net");
}

static void rows(void **state) {
    (void)state;
    struct directory *d = opened(usual());
    assert_string_equal(ask(d, "alice"), "found mailbox");
    assert_string_equal(asker.why, "1 row");
    assert_string_equal(ask(d, "empty"), "found mailbox");
    assert_string_equal(ask(d, "box"), "found mailbox");
    assert_string_equal(ask(d, "nobody"), "unknown");
    assert_string_equal(ask(d, "team"), "found alias alice@example.net, bob");
    assert_string_equal(ask(d, "moved"), "found forward m@far.example");
    assert_string_equal(ask(d, "keeps"), "found forward_keep k@far.example");
    assert_string_equal(ask(d, "both"), "found forward_keep k@far.example");
    assert_string_equal(ask(d, "self"), "found forward_keep s@far.example");
    assert_string_equal(ask(d, "odd"), "tempfail");
    assert_string_equal(ask(d, "hollow"), "tempfail");
    assert_string_equal(ask(d, "x' OR 'a' = 'a"), "unknown");
    directory_unref(d);
    struct directory_config c = usual();
    c.query = "SELECT FROM mail WHERE local || '@' || domain = $1"; /* no column at all */
    d = opened(c);
    assert_string_equal(ask(d, "team"), "found mailbox");
    assert_string_equal(ask(d, "nobody"), "unknown");
    directory_unref(d);
}

static void no_answers(void **state) {
    (void)state;
    struct directory_config c = usual();
    c.query = "SELECT nonsense FROM mail WHERE local = $2";
    struct directory *d = opened(c);
    for (int i = 0; i < 10; i++) /* and does not count as a failing server */
        assert_string_equal(ask(d, "alice"), "tempfail");
    assert_non_null(strstr(asker.why, "nonsense"));
    directory_unref(d);
    char uri[200];
    snprintf(uri, sizeof uri, "postgresql://postgres:wr0ng@127.0.0.1:%u/postgres", server.port);
    c = usual();
    c.uri = uri;
    d = opened(c);
    assert_string_equal(ask(d, "alice"), "tempfail");
    assert_null(strstr(asker.why, "wr0ng"));
    directory_unref(d);
}

static void wrong_settings(void **state) {
    (void)state;
    static const char *const queries[] = {NULL, "SELECT 1", "SELECT $4", "SELECT $1, $10"};
    struct directory *d;
    for (size_t i = 0; i < 4; i++) {
        struct directory_config c = usual();
        c.query = queries[i];
        buf_clear(&problems);
        assert_int_equal(directory_new(&d, &c, &problems), ERR_INVALID);
        assert_non_null(strstr(buf_cstr(&problems), "directory people: query: "));
    }
    struct directory_config c = usual();
    c.uri = NULL;
    assert_int_equal(directory_new(&d, &c, &problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&problems), "directory people: uri: "));
}

static void server_dies(void **state) {
    (void)state;
    struct directory_config c = usual();
    c.breaker_ms = 1;
    c.positive_ms = 1;
    struct directory *d = opened(c);
    assert_string_equal(ask(d, "alice"), "found mailbox");
    real_kill(&server);
    usleep(5000);
    assert_string_equal(ask(d, "alice"), "stale found mailbox");
    assert_string_equal(ask(d, "moved"), "tempfail");
    assert_true(postgres_begin(&server));
    assert_true(directory_ask_until(&asker, d, "moved", "example.net", "found forward m@far.example"));
    directory_unref(d);
}

static void server_freezes(void **state) {
    (void)state;
    struct directory_config c = usual();
    c.timeout_ms = 300;
    c.breaker_failures = 1000;
    c.breaker_ms = 1;
    struct directory *d = opened(c);
    char key[20];
    assert_string_equal(ask(d, "alice"), "found mailbox");
    real_signal(&server, SIGSTOP);
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "user%d", i);
        directory_asker_put(&asker, d, key, "example.net");
    }
    assert_string_equal(ask(d, "moved"), "tempfail");
    assert_string_equal(ask(d, "alice"), "found mailbox");
    real_signal(&server, SIGCONT);
    assert_true(directory_ask_until(&asker, d, "moved", "example.net", "found forward m@far.example"));
    assert_true(directory_ask_until(&asker, d, "user1", "example.net", "unknown"));
    directory_unref(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows),        cmocka_unit_test(no_answers),     cmocka_unit_test(wrong_settings),
        cmocka_unit_test(server_dies), cmocka_unit_test(server_freezes),
    };
    return cmocka_run_group_tests_name("directory_postgres", tests, setup, teardown);
}
