/* sources: the pool of a sender; draws by weight, family and health; a warm-up over its days; days as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "gateway/outbound/sources.h"

static void test_pools(void **state) {
    (void)state;
    static const char *const of_a[] = {"news@a.example", ".bulk.example"}, *const of_b[] = {"a.example"};
    static const struct outbound_pool pools[] = {{.name = "rest"},
                                                 {.name = "a", .senders = of_a, .sender_count = 2},
                                                 {.name = "b", .senders = of_b, .sender_count = 1},
                                                 {.name = "never"}};
    static const struct {
        const char *sender, *pool;
    } rows[] = {
        {"news@a.example", "a"},       {"NEWS@A.example", "a"},
        {"x@a.example", "b"},          {"x@bulk.example", "a"},
        {"x@y.bulk.example", "a"},     {"x@c.example", "rest"},
        {"x@notbulk.example", "rest"}, {"", "rest"},
        {"news@b.example", "rest"},    {"\"a@a.example\"@c.example", "rest"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(sources_pool(pools, 4, SPAN_EMPTY, span_of(rows[i].sender))->name, rows[i].pool);
    assert_null(sources_pool(pools + 1, 2, SPAN_EMPTY, SPAN("x@c.example")));
    assert_null(sources_pool(NULL, 0, SPAN("x"), SPAN("x@c.example")));
}

/* Who logged in comes before the sender, the sender before the pool of all others. */
static void test_accounts(void **state) {
    (void)state;
    static const char *const of_s[] = {"a.example"}, *const of_t[] = {"alice@x.example", "@tenant.example", "carol"},
                             *const both[] = {"bob@tenant.example"}, *const of_b[] = {"b.example"};
    static const struct outbound_pool pools[] = {
        {.name = "sender", .senders = of_s, .sender_count = 1},
        {.name = "both", .senders = of_b, .sender_count = 1, .accounts = both, .account_count = 1},
        {.name = "tenant", .accounts = of_t, .account_count = 3},
        {.name = "rest"}};
    static const struct {
        const char *account, *sender, *pool;
    } rows[] = {
        {"alice@x.example", "z@a.example", "tenant"},
        {"ALICE@X.example", "z@c.example", "tenant"},
        {"dan@tenant.example", "z@a.example", "tenant"},
        {"bob@tenant.example", "z@a.example", "both"},
        {"carol", "z@a.example", "tenant"},
        {"carol@else.example", "z@a.example", "sender"},
        {"dan@sub.tenant.example", "z@c.example", "rest"},
        {"tenant.example", "z@b.example", "both"},
        {"", "z@b.example", "both"},
        {"", "z@c.example", "rest"},
        {"xcarol", "", "rest"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(sources_pool(pools, 4, span_of(rows[i].account), span_of(rows[i].sender))->name,
                            rows[i].pool);
    assert_null(
        sources_pool(pools + 2, 1, SPAN("nobody"), SPAN("z@a.example"))); /* one of accounts is no pool of all */
}

static struct outbound_source source(const char *ip, uint32_t weight) {
    struct outbound_source s = {.weight = weight};
    assert_int_equal(tcp_addr_parse(&s.address, span_of(ip), 0), ERR_OK);
    return s;
}

static bool all(void *arg, const struct outbound_source *s) {
    (void)arg;
    (void)s;
    return true;
}

static bool all_but(void *arg, const struct outbound_source *s) {
    return s != arg;
}

static bool none(void *arg, const struct outbound_source *s) {
    (void)arg;
    (void)s;
    return false;
}

/* Chi-square over draws with a seed: 3 degrees of freedom, 16.3 is the 0.1% point. */
static void test_weights(void **state) {
    (void)state;
    const struct outbound_source at[] = {source("192.0.2.1", 1), source("192.0.2.2", 2), source("192.0.2.3", 3),
                                         source("192.0.2.4", 4), source("2001:db8::1", 90)};
    const struct outbound_pool p = {.sources = at, .source_count = 5};
    const struct outbound_source to = source("198.51.100.1", 1);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rand r;
        double count[5] = {0}, chi = 0;
        rand_init(&r, seed);
        for (int i = 0; i < 10000; i++)
            count[sources_draw(&p, &to.address, all, NULL, &r) - at]++;
        for (int i = 0; i < 4; i++)
            chi += (count[i] - 1000.0 * (i + 1)) * (count[i] - 1000.0 * (i + 1)) / (1000.0 * (i + 1));
        assert_true(count[4] == 0 && chi < 16.3);
    }
}

static void test_choice(void **state) {
    (void)state;
    struct rand r;
    const struct outbound_source at[] = {source("192.0.2.1", 1), source("192.0.2.2", 1), source("2001:db8::1", 1)};
    const struct outbound_pool p = {.sources = at, .source_count = 3}, v4 = {.sources = at, .source_count = 2};
    const struct outbound_source to4 = source("198.51.100.1", 1), to6 = source("2001:db8::9", 1);
    rand_init(&r, 5);
    for (int i = 0; i < 100; i++) {
        assert_ptr_equal(sources_draw(&p, &to6.address, all, NULL, &r), &at[2]);
        assert_ptr_equal(sources_draw(&p, &to4.address, all_but, (void *)(uintptr_t)&at[0], &r), &at[1]);
    }
    assert_null(sources_draw(&v4, &to6.address, all, NULL, &r));
    assert_null(sources_draw(&p, &to4.address, none, NULL, &r));
    assert_non_null(sources_draw(&v4, NULL, all, NULL, &r));
    assert_true(sources_has_family(&p, &to6.address) && sources_has_family(&p, &to4.address));
    assert_false(sources_has_family(&v4, &to6.address));
    assert_true(sources_has(&p, &p.sources[0].address) && !sources_has(&p, &to6.address));
}

static void test_warm_up(void **state) {
    (void)state;
    struct outbound_source s = source("192.0.2.1", 1);
    assert_int_equal(sources_limit(&s, 0), SOURCES_UNLIMITED);
    s.warm_first = 50;
    s.warm_growth = 50;
    s.warm_day = 100;
    assert_int_equal(sources_limit(&s, 99), 0);
    assert_int_equal(sources_limit(&s, 100), 50);
    assert_int_equal(sources_limit(&s, 101), 75);
    assert_int_equal(sources_limit(&s, 102), 112);
    uint32_t before = 0, days = 0;
    for (uint32_t day = 100; sources_limit(&s, day) != SOURCES_UNLIMITED; day++, days++) {
        assert_true(sources_limit(&s, day) > before && sources_limit(&s, day) < SOURCES_GROWN);
        before = sources_limit(&s, day);
    }
    assert_in_range(days, 24, 26); /* 50 * 1.5^24.4 is a million */
    assert_int_equal(sources_limit(&s, UINT32_MAX), SOURCES_UNLIMITED);
    s.warm_first = s.warm_growth = 1; /* less than one a day more is one */
    assert_int_equal(sources_limit(&s, 105), 6);
}

static void test_read_day(void **state) {
    (void)state;
    uint32_t day = 0;
    static const struct {
        const char *text;
        uint32_t day;
    } rows[] = {{"1970-01-01", 0}, {"2000-02-29", 11016}, {"2024-03-01", 19783}, {"2026-12-31", 20818}};
    static const char *const bad[] = {"",           "2026-1-1",    "2026-13-01", "2026-00-10",
                                      "2025-02-29", "2026-04-31",  "2026-01-00", "1969-12-31",
                                      "2026/01/01", "2026-01-01 ", "abcd-01-01"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(sources_read_day(span_of(rows[i].text), &day), ERR_OK);
        assert_int_equal(day, rows[i].day);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(sources_read_day(span_of(bad[i]), &day), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pools),  cmocka_unit_test(test_accounts), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_choice), cmocka_unit_test(test_warm_up),  cmocka_unit_test(test_read_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
