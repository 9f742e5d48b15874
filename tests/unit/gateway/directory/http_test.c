/* The http directory against a real server: every documented answer, and everything that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/support/child.h"
#include "tests/unit/gateway/directory/backend_world.h"

static struct child server;
static char uri[100];

static struct backend *start(const struct directory_config *c) {
    struct backend *b;
    struct buf problems;
    buf_init(&problems, 1000);
    assert_int_equal(backend_http_new(&b, c, &problems), ERR_OK);
    assert_int_equal(buf_len(&problems), 0);
    buf_deinit(&problems);
    return b;
}

static struct directory_config config(void) {
    return (struct directory_config){.kind = DIRECTORY_HTTP, .name = "people", .uri = uri};
}

static void test_verdicts(void **state) {
    (void)state;
    const struct directory_config c = config();
    struct backend *b = start(&c);
    static const struct {
        const char *local;
        enum directory_status status;
        enum table_kind kind;
        const char *targets;
    } cases[] = {
        {"box", DIRECTORY_FOUND, TABLE_MAILBOX, ""},
        {"alias", DIRECTORY_FOUND, TABLE_ALIAS, "a@example.net, \"b, c\"@example.org"},
        {"forward", DIRECTORY_FOUND, TABLE_FORWARD, "f@elsewhere.example"},
        {"keep", DIRECTORY_FOUND, TABLE_FORWARD_KEEP, "f@elsewhere.example"},
        {"nobody", DIRECTORY_UNKNOWN, TABLE_MAILBOX, ""},
        {"missing", DIRECTORY_UNKNOWN, TABLE_MAILBOX, ""},
        {"odd \"name\", \\ \xc3\xbc", DIRECTORY_UNKNOWN, TABLE_MAILBOX, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct asked_once *a = world_expect(b, cases[i].local, ERR_OK, cases[i].status);
        if (a->status == DIRECTORY_FOUND)
            assert_int_equal(a->kind, cases[i].kind);
        assert_string_equal(a->targets, cases[i].targets);
        assert_non_null(strstr(a->why, uri));
        free(a);
    }
    struct asked_once *a = world_expect(b, "thousand", ERR_OK, DIRECTORY_FOUND);
    struct span rest = span_of(a->targets), target;
    unsigned count = 0;
    while (table_next_target(&rest, &target))
        count++;
    assert_int_equal(count, 1000);
    free(a);
    b->ops->close(b);
}

/* Nothing of this may ever read as "unknown". */
static void test_failures(void **state) {
    (void)state;
    const struct directory_config c = config();
    struct backend *b = start(&c);
    static const struct {
        const char *local, *why;
    } cases[] = {
        {"denied", "answered 403"},
        {"broken", "answered 500"},
        {"accepted", "answered 202"},
        {"odd", "none of mailbox"},
        {"noresult", "no \"result\""},
        {"list", "no \"result\""},
        {"notargets", "not a list"},
        {"empty", "not a list"},
        {"badtarget", "not a mail address"},
        {"nodomain", "not a mail address"},
        {"newline", "not a mail address"},
        {"numbers", "not a string"},
        {"many", "more than 1000"},
        {"badkeep", "neither true nor false"},
        {"malformed", "not JSON"},
        {"twice", "not JSON"},
        {"nothing", "not JSON"},
        {"latin", "not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct asked_once *a = world_expect(b, cases[i].local, ERR_INVALID, DIRECTORY_TEMPFAIL);
        if (!strstr(a->why, cases[i].why))
            fail_msg("%s: %s", cases[i].local, a->why);
        assert_string_equal(a->targets, "");
        free(a);
    }
    free(world_expect(b, "huge", ERR_FULL, DIRECTORY_TEMPFAIL));
    b->ops->close(b);
}

static void test_slow_and_dead(void **state) {
    (void)state;
    struct directory_config c = config();
    c.connections = 1;
    struct backend *b = start(&c);
    struct asked_once *slow = world_ask(b, "slow", "example.net", 300);
    struct asked_once *behind = world_ask(b, "box", "example.net", 100); /* never comes to the turn in its time */
    struct asked_once *late = world_ask(b, "box", "example.net", 20000);
    world_wait(slow);
    world_wait(behind);
    world_wait(late);
    assert_int_equal(slow->err, ERR_TIMEOUT);
    assert_int_equal(behind->err, ERR_TIMEOUT);
    assert_non_null(strstr(behind->why, "waited too long"));
    assert_int_equal(late->err, ERR_OK);
    assert_int_equal(late->status, DIRECTORY_FOUND);
    free(slow);
    free(behind);
    free(late);
    b->ops->close(b);
    c.uri = "http://127.0.0.1:1/";
    b = start(&c);
    free(world_expect(b, "box", ERR_UNREACHABLE, DIRECTORY_TEMPFAIL));
    b->ops->close(b);
}

static void test_many_at_once(void **state) {
    (void)state;
    const struct directory_config c = config();
    struct backend *b = start(&c);
    enum { N = 200 };
    static struct asked_once *asked[N];
    for (int i = 0; i < N; i++)
        asked[i] = world_ask(b, i % 2 ? "box" : "nobody", "example.net", 25000);
    for (int i = 0; i < N; i++) {
        world_wait(asked[i]);
        assert_int_equal(asked[i]->err, ERR_OK);
        assert_int_equal(asked[i]->status, i % 2 ? DIRECTORY_FOUND : DIRECTORY_UNKNOWN);
        free(asked[i]);
    }
    b->ops->close(b);
}

static void test_bad_settings(void **state) {
    (void)state;
    struct directory_config c = config();
    struct backend *b;
    struct buf problems;
    buf_init(&problems, 1000);
    static const char *const bad[] = {NULL, "", "ldap://127.0.0.1/", "nonsense", "http://me:secret@127.0.0.1/x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        buf_clear(&problems);
        c.uri = bad[i];
        assert_int_equal(backend_http_new(&b, &c, &problems), ERR_INVALID);
        assert_non_null(strstr(buf_cstr(&problems), "people: "));
        assert_null(strstr(buf_cstr(&problems), "secret"));
    }
    buf_deinit(&problems);
}

static int setup(void **state) {
    (void)state;
    const char *const argv[] = {"python3", SOURCE_DIR "/tests/support/http_server.py", NULL};
    if (!child_start(&server, argv))
        return -1;
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/directory", server.port);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    child_end(&server);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),     cmocka_unit_test(test_failures),     cmocka_unit_test(test_slow_and_dead),
        cmocka_unit_test(test_many_at_once), cmocka_unit_test(test_bad_settings),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
