/*
 * The clock's dates: what RFC 3339 allows is read, what it does not is refused, and a date written is read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rand.h"

static void assert_read(const char *text, uint64_t ms) {
    uint64_t got = 1;
    assert_int_equal(clock_parse_rfc3339(span_of(text), &got), ERR_OK);
    assert_int_equal(got, ms);
}

static void test_read(void **state) {
    (void)state;
    assert_read("1970-01-01T00:00:00Z", 0);
    assert_read("2000-02-29T12:34:56z", 951827696000u);
    assert_read("2026-11-24T08:15:07.999Z", 1795508107000u);
    assert_read("2026-11-24T10:15:07+02:00", 1795508107000u);
    assert_read("2026-11-24t03:45:07-04:30", 1795508107000u);
}

static void test_refused(void **state) {
    static const char *const bad[] = {"",
                                      "2026-11-24",
                                      "2026-11-24T08:15Z",
                                      "2026-11-24 08:15:07Z",
                                      "2026-02-29T00:00:00Z",
                                      "2026-13-01T00:00:00Z",
                                      "2026-00-01T00:00:00Z",
                                      "2026-01-00T00:00:00Z",
                                      "2026-01-01T24:00:00Z",
                                      "2026-01-01T00:60:00Z",
                                      "2026-01-01T00:00:61Z",
                                      "2026-01-01T00:00:00",
                                      "2026-01-01T00:00:00.Z",
                                      "2026-01-01T00:00:00Z ",
                                      "2026-01-01T00:00:00+2:00",
                                      "2026-01-01T00:00:00+24:00",
                                      "1969-12-31T23:59:59Z",
                                      "+026-01-01T00:00:00Z"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t got;
        assert_int_equal(clock_parse_rfc3339(span_of(bad[i]), &got), ERR_INVALID);
    }
}

static void test_round_trip(void **state) {
    struct rand r;
    (void)state;
    rand_init(&r, 7);
    for (int i = 0; i < 20000; i++) {
        char text[40];
        uint64_t ms = rand_below(&r, 253402300800u) * 1000;
        size_t len = clock_rfc3339(ms, text, sizeof text);
        uint64_t got = 0;
        assert_int_equal(clock_parse_rfc3339(span_make(text, len), &got), ERR_OK);
        assert_int_equal(got, ms);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_read), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
