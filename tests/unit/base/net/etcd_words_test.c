/* etcd_words: questions as etcd wants them, answers as it gives them, and all that is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/net/etcd_words.h"

#define HEADER "\"header\":{\"cluster_id\":\"14841639068965178418\",\"revision\":\"3\"}"

static struct buf text;
static struct arena arena;
static struct etcd_reply reply;

static int setup(void **state) {
    (void)state;
    buf_init(&text, 4 << 20);
    arena_init(&arena, 4096, 64 << 20);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    buf_deinit(&text);
    arena_deinit(&arena);
    return 0;
}

#define assert_text(err, wanted)                                                                                       \
    do {                                                                                                               \
        buf_clear(&text);                                                                                              \
        assert_int_equal(err, ERR_OK);                                                                                 \
        assert_string_equal(buf_cstr(&text), wanted);                                                                  \
    } while (0)
#define assert_refused(err)                                                                                            \
    do {                                                                                                               \
        buf_clear(&text);                                                                                              \
        assert_int_equal(err, ERR_INVALID);                                                                            \
    } while (0)

static void ranges(void **state) {
    (void)state;
    static char longest[ETCD_KEY_MAX + 1] = {1};
    struct etcd_range r = {.key = SPAN("a/1")};
    assert_text(etcd_words_range(&r, &text), "{\"key\":\"YS8x\"}");
    r = (struct etcd_range){.key = SPAN("a/"), .prefix = true, .revision = 7, .limit = 10};
    assert_text(etcd_words_range(&r, &text),
                "{\"key\":\"YS8=\",\"range_end\":\"YTA=\",\"revision\":\"7\",\"limit\":\"10\"}");
    r = (struct etcd_range){.key = SPAN("a/"), .prefix = true, .after = SPAN("a/1")};
    assert_text(etcd_words_range(&r, &text), "{\"key\":\"YS8xAA==\",\"range_end\":\"YTA=\"}");
    r = (struct etcd_range){.key = SPAN("a\xff\xff"), .prefix = true, .count_only = true};
    assert_text(etcd_words_range(&r, &text), "{\"key\":\"Yf//\",\"range_end\":\"Yg==\",\"count_only\":true}");
    r = (struct etcd_range){.key = SPAN("\xff"), .prefix = true}; /* there is no end */
    assert_text(etcd_words_range(&r, &text), "{\"key\":\"/w==\",\"range_end\":\"AA==\"}");
    r = (struct etcd_range){0};
    assert_refused(etcd_words_range(&r, &text));
    r.key = span_make(longest, ETCD_KEY_MAX);
    buf_clear(&text);
    assert_int_equal(etcd_words_range(&r, &text), ERR_OK);
    r.key.len++;
    assert_refused(etcd_words_range(&r, &text));
}

static void transactions(void **state) {
    (void)state;
    const struct etcd_compare compares[] = {
        {.key = SPAN("a"), .target = ETCD_MOD_REVISION, .number = 5},
        {.key = SPAN("b"), .target = ETCD_VALUE, .relation = ETCD_NOT_EQUAL, .value = SPAN("v")},
        {.key = SPAN("c"), .target = ETCD_VERSION, .relation = ETCD_GREATER},
        {.key = SPAN("d"), .target = ETCD_CREATE_REVISION, .relation = ETCD_LESS, .number = INT64_MAX}};
    const struct etcd_op then[] = {{.verb = ETCD_PUT, .key = SPAN("a"), .value = SPAN("x"), .lease = 9},
                                   {.verb = ETCD_DELETE, .key = SPAN("b"), .prefix = true}};
    const struct etcd_op otherwise[] = {{.verb = ETCD_GET, .key = SPAN("a")}};
    const struct etcd_txn t = {compares, 4, then, otherwise, 2, 1};
    assert_text(
        etcd_words_txn(&t, &text),
        "{\"compare\":[{\"key\":\"YQ==\",\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":\"5\"},"
        "{\"key\":\"Yg==\",\"target\":\"VALUE\",\"result\":\"NOT_EQUAL\",\"value\":\"dg==\"},"
        "{\"key\":\"Yw==\",\"target\":\"VERSION\",\"result\":\"GREATER\",\"version\":\"0\"},"
        "{\"key\":\"ZA==\",\"target\":\"CREATE\",\"result\":\"LESS\",\"create_revision\":\"9223372036854775807\"}],"
        "\"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"eA==\",\"lease\":\"9\"}},"
        "{\"request_delete_range\":{\"key\":\"Yg==\",\"range_end\":\"Yw==\"}}],"
        "\"failure\":[{\"request_range\":{\"key\":\"YQ==\"}}]}");
}

static int txn_of(struct etcd_op a, struct etcd_op b) {
    struct etcd_op ops[] = {a, b};
    buf_clear(&text);
    return etcd_words_txn(&(struct etcd_txn){.then = ops, .then_count = 2}, &text);
}

static void transactions_refused(void **state) {
    (void)state;
    static char large[ETCD_VALUE_MAX + 1];
    static struct etcd_op many[ETCD_OPS_MAX + 1];
    const struct etcd_op put = {.verb = ETCD_PUT, .key = SPAN("ab")}, get = {.verb = ETCD_GET, .key = SPAN("ab")},
                         other = {.verb = ETCD_PUT, .key = SPAN("b")},
                         deletion = {.verb = ETCD_DELETE, .key = SPAN("ab")},
                         all = {.verb = ETCD_DELETE, .key = SPAN("a"), .prefix = true};
    assert_int_equal(txn_of(put, put), ERR_INVALID);
    assert_int_equal(txn_of(put, deletion), ERR_INVALID);
    assert_int_equal(txn_of(all, put), ERR_INVALID);
    assert_int_equal(txn_of(all, other), ERR_OK);
    assert_int_equal(txn_of(all, deletion), ERR_OK);
    assert_int_equal(txn_of(put, get), ERR_OK);
    assert_int_equal(txn_of(put, (struct etcd_op){.verb = ETCD_GET}), ERR_INVALID);
    struct etcd_op big = {.verb = ETCD_PUT, .key = SPAN("big"), .value = span_make(large, ETCD_VALUE_MAX)};
    assert_int_equal(txn_of(put, big), ERR_OK);
    big.value.len++;
    assert_int_equal(txn_of(put, big), ERR_INVALID);
    big = (struct etcd_op){.verb = ETCD_PUT, .key = SPAN("c"), .lease = (uint64_t)INT64_MAX + 1};
    assert_int_equal(txn_of(put, big), ERR_INVALID);
    for (size_t i = 0; i < ETCD_OPS_MAX + 1; i++)
        many[i] = get;
    struct etcd_txn t = {.otherwise = many, .otherwise_count = ETCD_OPS_MAX};
    buf_clear(&text);
    assert_int_equal(etcd_words_txn(&t, &text), ERR_OK);
    t.otherwise_count++;
    assert_refused(etcd_words_txn(&t, &text));
    const struct etcd_compare nothing = {0};
    assert_refused(etcd_words_txn(&(struct etcd_txn){.compares = &nothing, .compares_count = 1}, &text));
}

static void other_questions(void **state) {
    (void)state;
    assert_text(etcd_words_grant(10, &text), "{\"TTL\":\"10\"}");
    assert_text(etcd_words_lease(7587899129976748042u, &text), "{\"ID\":\"7587899129976748042\"}");
    assert_text(etcd_words_watch(SPAN("a/"), 12, &text),
                "{\"create_request\":{\"key\":\"YS8=\",\"range_end\":\"YTA=\",\"start_revision\":\"12\","
                "\"progress_notify\":true,\"fragment\":true}}");
    assert_refused(etcd_words_watch(SPAN_EMPTY, 12, &text));
    assert_text(etcd_words_login("jo\"e", "p\\w\n", &text), "{\"name\":\"jo\\\"e\",\"password\":\"p\\\\w\\n\"}");
    buf_deinit(&text);
    buf_init(&text, 10); /* too small for any */
    assert_int_equal(etcd_words_range(&(struct etcd_range){.key = SPAN("a/"), .prefix = true}, &text), ERR_FULL);
    buf_deinit(&text);
    buf_init(&text, 4 << 20);
}

/* -- answers -- */

static int read_as(enum etcd_kind kind, const char *answer) {
    arena_reset(&arena);
    return etcd_words_read(span_of(answer), kind, &arena, &reply);
}

static void read_good_ranges(void **state) {
    (void)state;
    assert_int_equal(read_as(ETCD_KIND_RANGE, "{" HEADER "}"), ERR_OK);
    assert_int_equal(reply.count, 0);
    assert_true(reply.cluster == 14841639068965178418u && reply.revision == 3 && !reply.more && !reply.fault);
    assert_int_equal(read_as(ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{\"key\":\"YS8x\",\"create_revision\":\"1\","
                                              "\"mod_revision\":\"2\",\"version\":\"4\",\"value\":\"aGkA\",\"lease\":"
                                              "\"7587899129976748042\"},{\"key\":\"YS8y\",\"mod_revision\":3}],"
                                              "\"more\":true,\"count\":\"9\",\"news\":{\"of\":[1.5,null]}}"),
                     ERR_OK);
    assert_int_equal(reply.count, 2);
    assert_true(span_eq(reply.kvs[0].key, SPAN("a/1")) && span_eq(reply.kvs[0].value, SPAN("hi\0")));
    assert_true(reply.kvs[0].create_revision == 1 && reply.kvs[0].mod_revision == 2 && reply.kvs[0].version == 4);
    assert_true(reply.kvs[0].lease == 7587899129976748042u && reply.more);
    assert_true(span_eq(reply.kvs[1].key, SPAN("a/2")) && !reply.kvs[1].value.len && reply.kvs[1].mod_revision == 3);
}

static void read_other_answers(void **state) {
    (void)state;
    assert_int_equal(read_as(ETCD_KIND_TXN,
                             "{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_put\":{}},"
                             "{\"response_range\":{\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"1\"}]}},"
                             "{\"response_range\":{}},"
                             "{\"response_range\":{\"kvs\":[{\"key\":\"Yg==\",\"mod_revision\":\"1\"},"
                             "{\"key\":\"Yw==\",\"mod_revision\":\"1\"}]}}]}"),
                     ERR_OK);
    assert_true(reply.succeeded && reply.count == 3 && span_eq(reply.kvs[2].key, SPAN("c")));
    assert_int_equal(read_as(ETCD_KIND_TXN, "{" HEADER "}"), ERR_OK);
    assert_false(reply.succeeded);
    assert_int_equal(read_as(ETCD_KIND_LEASE, "{\"result\":{" HEADER ",\"ID\":\"12\",\"TTL\":\"10\"}}"), ERR_OK);
    assert_true(reply.lease == 12 && reply.ttl_s == 10);
    assert_int_equal(read_as(ETCD_KIND_LEASE, "{\"result\":{\"ID\":\"12\"}}"), ERR_OK);
    assert_true(reply.lease == 12 && reply.ttl_s == 0);
    assert_int_equal(read_as(ETCD_KIND_LEASE, "{\"ID\":\"12\",\"TTL\":\"9999999999999\"}"), ERR_OK);
    assert_true(reply.ttl_s == UINT32_MAX);
    assert_int_equal(read_as(ETCD_KIND_TOKEN, "{\"token\":\"abc.7\"}"), ERR_OK);
    assert_string_equal(reply.token, "abc.7");
    assert_int_equal(read_as(ETCD_KIND_WATCH, "{\"result\":{" HEADER ",\"created\":true}}"), ERR_OK);
    assert_true(reply.created && !reply.canceled && !reply.events_count);
    assert_int_equal(read_as(ETCD_KIND_WATCH, "{\"result\":{" HEADER ",\"canceled\":true,\"compact_revision\":\"9\"}}"),
                     ERR_OK);
    assert_true(reply.canceled && reply.compact_revision == 9);
    assert_int_equal(
        read_as(ETCD_KIND_WATCH,
                "{\"result\":{" HEADER
                ",\"fragment\":true,\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"4\","
                "\"value\":\"eA==\"}},{\"type\":\"DELETE\",\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"5\"}}]}}"),
        ERR_OK);
    assert_true(reply.fragment && reply.events_count == 2 && !reply.events[0].deleted && reply.events[1].deleted);
    assert_true(reply.events[1].kv.mod_revision == 5 && span_eq(reply.events[0].kv.value, SPAN("x")));
}

static void faults(void **state) {
    (void)state;
    static const struct {
        const char *answer, *why;
        int fault;
        bool undone, token;
    } cases[] = {
        {"{\"error\":\"etcdserver: permission denied\",\"message\":\"etcdserver: permission denied\",\"code\":7}",
         "etcdserver: permission denied", ERR_DENIED, true, false},
        {"{\"error\":{\"grpc_code\":14,\"message\":\"etcdserver: no leader\"}}", "etcdserver: no leader",
         ERR_UNREACHABLE, true, false},
        {"{\"code\":14,\"message\":\"etcdserver: leader changed\"}", "etcdserver: leader changed", ERR_UNREACHABLE,
         false, false},
        {"{\"code\":14,\"message\":\"etcdserver: request timed out\",\"error\":\"x\"}", "etcdserver: request timed out",
         ERR_TIMEOUT, false, false},
        {"{\"code\":16,\"message\":\"etcdserver: invalid auth token\"}", "etcdserver: invalid auth token", ERR_DENIED,
         true, true},
        {"{\"code\":3,\"message\":\"etcdserver: user name is empty\"}", "etcdserver: user name is empty", ERR_INVALID,
         true, true},
        {"{\"code\":3,\"message\":\"etcdserver: authentication failed, invalid user ID or password\"}",
         "etcdserver: authentication failed, invalid user ID or password", ERR_DENIED, true, false},
        {"{\"code\":8,\"message\":\"etcdserver: mvcc: database space exceeded\"}",
         "etcdserver: mvcc: database space exceeded", ERR_NO_SPACE, true, false},
        {"{\"code\":8,\"message\":\"etcdserver: too many requests\"}", "etcdserver: too many requests", ERR_AGAIN, true,
         false},
        {"{\"code\":5,\"message\":\"etcdserver: requested lease not found\"}", "etcdserver: requested lease not found",
         ERR_NOT_FOUND, true, false},
        {"{\"code\":11,\"message\":\"compacted\"}", "compacted", ERR_RANGE, true, false},
        {"{\"code\":77,\"message\":\"new\"}", "new", ERR_IO, false, false},
        {"{\"code\":0,\"message\":\"none\"}", "none", ERR_IO, false, false},
        {"{\"error\":[]}", "a fault without a text", ERR_IO, false, false},
        {"{\"error\":\"only\\r\\nthis \\u001b[0m\"}", "only\\x0d\\x0athis \\x1b[0m", ERR_IO, false, false},
    };
    for (enum etcd_kind kind = 0; kind <= ETCD_KIND_WATCH; kind++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            assert_int_equal(read_as(kind, cases[i].answer), ERR_OK);
            assert_string_equal(reply.why.at, cases[i].why);
            assert_int_equal(reply.fault, cases[i].fault);
            assert_int_equal(etcd_words_is_undone(reply.fault, reply.why), cases[i].undone);
            assert_int_equal(etcd_words_is_token_fault(reply.why), cases[i].token);
        }
    }
}

static void refused_answers(void **state) {
    (void)state;
    static const struct {
        enum etcd_kind kind;
        const char *answer;
    } cases[] = {
        {ETCD_KIND_RANGE, ""},
        {ETCD_KIND_RANGE, "{"},
        {ETCD_KIND_RANGE, "[]"},
        {ETCD_KIND_RANGE, "{}"},
        {ETCD_KIND_RANGE, "{} {}"},
        {ETCD_KIND_RANGE, "{\"header\":[]}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"revision\":\"-3\"}}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"revision\":-3}}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"revision\":3.5}}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"revision\":\"9223372036854775808\"}}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"revision\":\"\"}}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"cluster_id\":7,\"revision\":\"3\"}}"},
        {ETCD_KIND_RANGE, "{\"header\":{\"revision\":\"3\"},\"header\":{\"revision\":\"3\"}}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":{}}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[7]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{}]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\"}]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{\"key\":\"YQ=\",\"mod_revision\":\"1\"}]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{\"key\":7,\"mod_revision\":\"1\"}]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"1\",\"value\":\"a\\u0000b\"}]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"kvs\":[{\"key\":\"Yg==\",\"mod_revision\":\"1\"},"
                          "{\"key\":\"YQ==\",\"mod_revision\":\"1\"}]}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"more\":true}"},
        {ETCD_KIND_RANGE, "{" HEADER ",\"more\":\"yes\",\"kvs\":[]}"},
        {ETCD_KIND_RANGE, "{\"result\":7}"},
        {ETCD_KIND_TXN, "{\"succeeded\":true}"},
        {ETCD_KIND_TXN, "{" HEADER ",\"succeeded\":1}"},
        {ETCD_KIND_TXN, "{" HEADER ",\"responses\":{}}"},
        {ETCD_KIND_TXN, "{" HEADER ",\"responses\":[{\"response_range\":[]}]}"},
        {ETCD_KIND_TXN, "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[[]]}}]}"},
        {ETCD_KIND_LEASE, "{\"TTL\":\"10\"}"},
        {ETCD_KIND_LEASE, "{\"ID\":[],\"TTL\":\"10\"}"},
        {ETCD_KIND_TOKEN, "{}"},
        {ETCD_KIND_TOKEN, "{\"token\":\"\"}"},
        {ETCD_KIND_TOKEN, "{\"token\":\"a\\r\\nX: y\"}"},
        {ETCD_KIND_TOKEN, "{\"token\":\"a b\"}"},
        {ETCD_KIND_TOKEN, "{\"token\":\"a\\u0000b\"}"},
        {ETCD_KIND_TOKEN, "{\"token\":\"\\u00e9\"}"},
        {ETCD_KIND_WATCH, "{}"},
        {ETCD_KIND_WATCH, "{\"created\":true}"},
        {ETCD_KIND_WATCH, "{\"result\":{\"events\":[{}]}}"},
        {ETCD_KIND_WATCH, "{\"result\":{\"events\":[{\"type\":\"PUT\"}]}}"},
        {ETCD_KIND_WATCH, "{\"result\":{\"events\":[{\"type\":\"X\",\"kv\":{\"key\":\"YQ==\",\"mod_revision\":1}}]}}"},
        {ETCD_KIND_WATCH, "{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":2}},"
                          "{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":1}}]}}"},
        {ETCD_KIND_WATCH, "{\"result\":{\"cancel_reason\":7}}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int err = read_as(cases[i].kind, cases[i].answer);
        if (err != ERR_CORRUPT)
            print_error("%s\n", cases[i].answer);
        assert_int_equal(err, ERR_CORRUPT);
        assert_null(reply.kvs);
    }
}

static void bounded_answers(void **state) {
    (void)state;
    size_t len = ETCD_ANSWER_MAX + 1;
    char *large = malloc(len);
    assert_non_null(large);
    memset(large, '1', len);
    assert_int_equal(etcd_words_read(span_make(large, len), ETCD_KIND_RANGE, &arena, &reply), ERR_FULL);
    for (size_t i = 1; i < len; i += 2)
        large[i] = ',';
    large[0] = '[';
    assert_int_equal(etcd_words_read(span_make(large, 2 * ETCD_VALUES_MAX), ETCD_KIND_RANGE, &arena, &reply), ERR_FULL);
    memset(large, '[', len);
    assert_int_equal(etcd_words_read(span_make(large, 100000), ETCD_KIND_RANGE, &arena, &reply), ERR_CORRUPT);
    struct arena small;
    arena_init(&small, 64, 64);
    assert_int_equal(etcd_words_read(SPAN("{" HEADER ",\"kvs\":[{\"key\":\"YS8x\",\"mod_revision\":\"2\"}]}"),
                                     ETCD_KIND_RANGE, &small, &reply),
                     ERR_FULL);
    arena_deinit(&small);
    free(large);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges),          cmocka_unit_test(transactions),     cmocka_unit_test(transactions_refused),
        cmocka_unit_test(other_questions), cmocka_unit_test(read_good_ranges), cmocka_unit_test(read_other_answers),
        cmocka_unit_test(faults),          cmocka_unit_test(refused_answers),  cmocka_unit_test(bounded_answers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
