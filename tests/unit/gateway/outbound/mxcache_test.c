/* The DNS cache: lives, bounds, one query for many waiters, and callbacks that ask and cancel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "gateway/outbound/mxcache.h"

/* A resolver that answers when the test says so. */
struct resolver {
    uint32_t asked;
    bool at_once;
    struct {
        dns_cb cb;
        void *arg;
        char name[64];
        enum dns_type type;
    } open[64];
    uint32_t count;
    struct dns_answer answer;
};

static void query(void *dns, const char *name, enum dns_type type, dns_cb cb, void *arg) {
    struct resolver *r = dns;
    r->asked++;
    if (r->at_once) {
        cb(arg, &r->answer);
        return;
    }
    CHECK(r->count < 64);
    r->open[r->count].cb = cb;
    r->open[r->count].arg = arg;
    r->open[r->count].type = type;
    snprintf(r->open[r->count++].name, 64, "%s", name);
}

static void answer(struct resolver *r, enum dns_status status, uint32_t ttl_s, const char *target) {
    struct dns_record record = {.preference = 10};
    snprintf(record.name, sizeof record.name, "%s", target);
    struct dns_answer a = {.status = status, .why = "", .ttl_s = ttl_s, .count = status == DNS_OK, .records = &record};
    assert_true(r->count > 0);
    dns_cb cb = r->open[0].cb;
    void *arg = r->open[0].arg;
    memmove(r->open, r->open + 1, --r->count * sizeof *r->open);
    cb(arg, &a);
}

struct asker {
    uint32_t answers;
    enum dns_status status;
    char target[64];
};

static void on_set(void *arg, struct mxset *s) {
    struct asker *a = arg;
    a->answers++;
    assert_non_null(s);
    a->status = s->status;
    snprintf(a->target, sizeof a->target, "%s", s->count ? s->records[0].name : "");
}

static void test_lives(void **state) {
    (void)state;
    static const struct {
        enum dns_status status;
        uint32_t ttl_s;
        uint64_t lives_ms;
    } rows[] = {
        {DNS_OK, 300, 300000},
        {DNS_OK, 604800, MXCACHE_KEEP_MS_MAX},
        {DNS_NODATA, 60, 60000},
        {DNS_NXDOMAIN, 86400, MXCACHE_NEGATIVE_MS_MAX},
        {DNS_TEMPFAIL, 0, MXCACHE_FAILURE_MS},
        {DNS_LOOP, 0, MXCACHE_FAILURE_MS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct resolver r = {0};
        struct asker a = {0};
        struct mxcache *c = mxcache_new(10, 1 << 20, query, &r);
        mxcache_ask(c, "x.example", DNS_MX, 1000, on_set, &a);
        assert_int_equal(a.answers, 0);
        assert_null(mxcache_peek(c, "x.example", DNS_MX, 1000));
        answer(&r, rows[i].status, rows[i].ttl_s, "mx.x.example");
        assert_int_equal(a.answers, 1);
        assert_int_equal(a.status, rows[i].status);
        uint64_t last = 1000 + rows[i].lives_ms - 1;
        mxcache_ask(c, "x.example", DNS_MX, last, on_set, &a);
        assert_int_equal(a.answers, 2);
        assert_int_equal(r.asked, 1);
        assert_int_equal(mxset_ttl_s(mxcache_peek(c, "x.example", DNS_MX, 1000), 1000), rows[i].lives_ms / 1000);
        assert_null(mxcache_peek(c, "x.example", DNS_A, last));
        mxcache_ask(c, "x.example", DNS_MX, last + 1, on_set, &a);
        assert_int_equal(r.asked, 2);
        answer(&r, DNS_OK, 1, "other.example");
        assert_int_equal(a.answers, 3);
        assert_string_equal(a.target, "other.example");
        mxcache_free(c);
    }
}

/* An answer without life is shared by those who wait, and asked for again by the next. */
static void test_no_life(void **state) {
    (void)state;
    struct resolver r = {0};
    struct asker a = {0}, b = {0};
    struct mxcache *c = mxcache_new(10, 1 << 20, query, &r);
    mxcache_ask(c, "x.example", DNS_A, 5, on_set, &a);
    mxcache_ask(c, "x.example", DNS_A, 6, on_set, &b);
    mxcache_ask(c, "x.example", DNS_AAAA, 6, on_set, &b);
    assert_int_equal(r.asked, 2);
    answer(&r, DNS_OK, 0, "");
    assert_int_equal(a.answers, 1);
    assert_int_equal(b.answers, 1);
    mxcache_ask(c, "x.example", DNS_A, 6, on_set, &a);
    assert_int_equal(r.asked, 3);
    answer(&r, DNS_OK, 9, "");
    answer(&r, DNS_OK, 9, "");
    mxcache_free(c);
}

static void test_cancel(void **state) {
    (void)state;
    struct resolver r = {0};
    struct asker a = {0}, b = {0};
    struct mxcache *c = mxcache_new(10, 1 << 20, query, &r);
    mxcache_ask(c, "x.example", DNS_A, 5, on_set, &a);
    mxcache_ask(c, "x.example", DNS_A, 5, on_set, &b);
    mxcache_cancel(c, &a);
    answer(&r, DNS_OK, 9, "");
    assert_int_equal(a.answers, 0);
    assert_int_equal(b.answers, 1);
    mxcache_free(c);
}

static struct mxcache *the_cache;
static struct asker after;

/* The first one told cancels the second, and asks again itself. */
static void on_set_and_act(void *arg, struct mxset *s) {
    on_set(arg, s);
    mxcache_cancel(the_cache, &after);
    if (((struct asker *)arg)->answers < 3)
        mxcache_ask(the_cache, "x.example", DNS_A, 5, on_set_and_act, arg);
}

static void test_inside_callbacks(void **state) {
    (void)state;
    for (int at_once = 0; at_once < 2; at_once++) {
        struct dns_record record = {0};
        struct resolver r = {.at_once = at_once,
                             .answer = {.status = DNS_OK, .why = "", .count = 1, .records = &record}};
        struct asker a = {0};
        after = (struct asker){0};
        the_cache = mxcache_new(10, 1 << 20, query, &r);
        mxcache_ask(the_cache, "x.example", DNS_A, 5, on_set_and_act, &a);
        if (!at_once) {
            mxcache_ask(the_cache, "x.example", DNS_A, 5, on_set, &after);
            for (int i = 0; i < 3; i++)
                answer(&r, DNS_OK, 0, "");
        }
        assert_int_equal(a.answers, 3);
        assert_int_equal(r.asked, 3);
        assert_int_equal(after.answers, 0);
        mxcache_free(the_cache);
    }
}

static void test_bounds(void **state) {
    (void)state;
    struct dns_record *records = calloc(DNS_RECORDS_MAX, sizeof *records);
    for (size_t i = 0; i < DNS_RECORDS_MAX; i++)
        memset(records[i].name, 'a', DNS_NAME_MAX);
    struct resolver r = {.at_once = true,
                         .answer = {.status = DNS_OK, .why = "", .ttl_s = 1000, .count = 1, .records = records}};
    struct asker a = {0};
    struct mxcache *c = mxcache_new(100, 1 << 20, query, &r);
    char name[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "d%d.example", i);
        mxcache_ask(c, name, DNS_MX, 5, on_set, &a);
        mxcache_ask(c, "hot.example", DNS_MX, 5, on_set, &a);
        assert_true(mxcache_count(c) <= 101);
    }
    assert_int_equal(a.answers, 2000);
    assert_int_equal(r.asked, 1001); /* what is used often stays */
    /* large answers push out by octets */
    r.answer.count = DNS_RECORDS_MAX;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "e%d.example", i);
        mxcache_ask(c, name, DNS_MX, 5, on_set, &a);
    }
    assert_true(mxcache_count(c) < 25);
    mxcache_free(c);
    free(records);
}

static void on_kept(void *arg, struct mxset *s) {
    *(struct mxset **)arg = mxset_ref(s);
}

/* Copies that outlive the packet. */
static void test_texts_and_tlsa(void **state) {
    (void)state;
    char text[] = "\3v=S\0\5TSv1\0", tlsa[] = "\3\1\2abc", tlsa2[] = "\2\0\0x";
    struct dns_record records[2] = {{.data = span_make(text, 11)}, {.data = span_make("", 0)}};
    struct resolver r = {.at_once = true,
                         .answer = {.status = DNS_OK,
                                    .why = "",
                                    .ttl_s = 9,
                                    .authentic = true,
                                    .canonical = "real.example",
                                    .count = 1,
                                    .records = records}};
    struct mxset *txt = NULL, *keys = NULL, *alias = NULL;
    struct mxcache *c = mxcache_new(10, 1 << 20, query, &r);
    mxcache_ask(c, "x.example", DNS_TXT, 5, on_kept, &txt);
    records[0].data = span_make(tlsa, 6);
    records[1].data = span_make(tlsa2, 4);
    r.answer.count = 2;
    r.answer.authentic = false;
    mxcache_ask(c, "x.example", DNS_TLSA, 5, on_kept, &keys);
    r.answer.count = 1;
    r.answer.canonical[0] = '\0';
    snprintf(records[0].name, sizeof records[0].name, "target.example");
    mxcache_ask(c, "x.example", DNS_CNAME, 5, on_kept, &alias);
    memset(text, '!', sizeof text);
    memset(tlsa, '!', sizeof tlsa);
    memset(records, 0, sizeof records);
    mxcache_free(c); /* references keep the answers */
    assert_int_equal(txt->count, 1);
    assert_true(txt->authentic);
    assert_string_equal(txt->canonical, "real.example");
    assert_int_equal(txt->records[0].data.len, 8);
    assert_memory_equal(txt->records[0].data.at, "v=STSv1\0", 9);
    assert_false(keys->authentic);
    assert_int_equal(keys->records[0].usage, 3);
    assert_int_equal(keys->records[0].selector, 1);
    assert_int_equal(keys->records[0].matching, 2);
    assert_int_equal(keys->records[0].data.len, 3);
    assert_memory_equal(keys->records[0].data.at, "abc", 3);
    assert_int_equal(keys->records[1].usage, 2);
    assert_memory_equal(keys->records[1].data.at, "x", 1);
    assert_string_equal(alias->records[0].name, "target.example");
    assert_string_equal(alias->canonical, "");
    mxset_free(txt);
    mxset_free(keys);
    mxset_free(alias);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lives),  cmocka_unit_test(test_no_life),
        cmocka_unit_test(test_cancel), cmocka_unit_test(test_inside_callbacks),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_texts_and_tlsa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
