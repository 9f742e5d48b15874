/* The small rooms that turn values into text and back: base32, utf8, units, clock, hash, rand, err. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>

#include "base/base32.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/rand.h"
#include "base/units.h"
#include "base/utf8.h"

static void base32_round_trip(void **state) {
    (void)state;
    static const uint64_t ids[] = {0, 1, 31, 32, UINT64_MAX, 0x0123456789abcdef, 1ull << 63};
    char text[BASE32_ID_LEN + 1], last[BASE32_ID_LEN + 1] = "";
    uint64_t id;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        base32_encode(ids[i], text);
        assert_int_equal(strlen(text), 13);
        assert_true(base32_decode(span_of(text), &id));
        assert_true(id == ids[i]);
    }
    for (uint64_t n = 1; n < (1ull << 62); n = n * 3 + 1) { /* sorts as text */
        base32_encode(n, text);
        assert_true(strcmp(last, text) < 0);
        memcpy(last, text, sizeof last);
    }
    assert_true(base32_decode(SPAN("000000000000z"), &id));
    assert_int_equal(id, 31);
    assert_true(base32_decode(SPAN("00000000000iO"), &id));
    assert_int_equal(id, 32);
    static const char *const bad[] = {"",
                                      "000000000000",
                                      "00000000000000",
                                      "G000000000000",
                                      "ZZZZZZZZZZZZZ",
                                      "00000000000U0",
                                      "000000-000000",
                                      "000000000 000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(base32_decode(span_of(bad[i]), &id));
}

static void utf8_is_strict(void **state) {
    (void)state;
    static const char *const good[] = {"",
                                       "ascii only, and long enough for words",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xe2\x82",
                                      "\xc3(",
                                      "12345678\xc3",
                                      "\xf0\x9f\x98"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(utf8_is_valid(span_of(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(utf8_is_valid(span_of(bad[i])));
    uint32_t cp;
    assert_int_equal(utf8_next(SPAN("\xe2\x82\xacx"), &cp), 3);
    assert_int_equal(cp, 0x20ac);
    assert_int_equal(utf8_next(SPAN("\xf0\x9f\x98\x80"), &cp), 4);
    assert_int_equal(cp, 0x1f600);
    assert_int_equal(utf8_next(SPAN_EMPTY, &cp), 0);
    assert_true(utf8_is_ascii(SPAN("0123456789\0")));
    assert_false(utf8_is_ascii(SPAN("0123456789\xc3\xbc")));
}

static void units_are_strict(void **state) {
    (void)state;
    uint64_t n;
    static const struct {
        const char *text;
        uint64_t value;
    } sizes[] = {{"0", 0},      {"812", 812},        {"812B", 812},      {"64k", 65536},
                 {"1KB", 1024}, {"50MiB", 52428800}, {"2G", 2147483648}, {"3tib", 3298534883328}},
      times[] = {{"0", 0},         {"1500ms", 1500},  {"5s", 5000},      {"5m", 300000},
                 {"4h", 14400000}, {"5d", 432000000}, {"2w", 1209600000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(units_size(span_of(sizes[i].text), &n), ERR_OK);
        assert_int_equal(n, sizes[i].value);
    }
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        assert_int_equal(units_duration(span_of(times[i].text), &n), ERR_OK);
        assert_int_equal(n, times[i].value);
    }
    static const char *const bad_sizes[] = {"", "k", "-1", "1.5M", "1 k", "1kk", "1x", "1i", "1ib", "1kibb"};
    static const char *const bad_times[] = {"", "5", "5M", "m", "5 m", "1h30m", "1.5h", "-1s", "5x"};
    for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; i++)
        assert_int_equal(units_size(span_of(bad_sizes[i]), &n), ERR_INVALID);
    for (size_t i = 0; i < sizeof bad_times / sizeof *bad_times; i++)
        assert_int_equal(units_duration(span_of(bad_times[i]), &n), ERR_INVALID);
    assert_int_equal(units_size(SPAN("99999999T"), &n), ERR_RANGE);
    assert_int_equal(units_size(SPAN("99999999999999999999"), &n), ERR_RANGE);
    assert_int_equal(units_duration(SPAN("99999999999999w"), &n), ERR_RANGE);
    assert_int_equal(units_duration(SPAN("99999999999999999999s"), &n), ERR_RANGE);
}

static void units_format(void **state) {
    (void)state;
    char text[32];
    static const struct {
        uint64_t value;
        const char *text;
    } times[] = {{0, "0ms"},           {250, "250ms"},       {35000, "35s"},  {35250, "35s 250ms"},
                 {15120000, "4h 12m"}, {15120999, "4h 12m"}, {3600000, "1h"}, {864000000, "10d"}},
      sizes[] = {{0, "0 B"},           {812, "812 B"},       {1024, "1.0 KiB"},
                 {3565159, "3.4 MiB"}, {1048575, "1.0 MiB"}, {UINT64_MAX, "16.0 EiB"}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        assert_int_equal(units_format_duration(times[i].value, text, sizeof text), strlen(times[i].text));
        assert_string_equal(text, times[i].text);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(units_format_size(sizes[i].value, text, sizeof text), strlen(sizes[i].text));
        assert_string_equal(text, sizes[i].text);
    }
    units_format_duration(UINT64_MAX, text, sizeof text);
}

static void clock_writes_dates(void **state) {
    (void)state;
    char text[64], expected[64];
    assert_int_equal(clock_rfc5322(1795508107123, text, sizeof text), 31);
    assert_string_equal(text, "Tue, 24 Nov 2026 08:15:07 +0000");
    assert_int_equal(clock_rfc3339(1795508107123, text, sizeof text), 24);
    assert_string_equal(text, "2026-11-24T08:15:07.123Z");
    for (uint64_t day = 0; day < 200000; day += 13) { /* the calendar of the C library as the model */
        time_t t = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(expected, sizeof expected, "%a, X%d %b %Y %H:%M:%S +0000", &tm);
        char *digit = strchr(expected, 'X'); /* no leading zero of the day */
        memmove(digit, digit + (digit[1] == '0' ? 2 : 1), strlen(digit));
        clock_rfc5322((uint64_t)t * 1000, text, sizeof text);
        assert_string_equal(text, expected);
    }
    assert_int_equal(clock_rfc3339(UINT64_MAX, text, sizeof text), 24);
    uint64_t before = clock_mono_us();
    assert_true(clock_mono_us() >= before);
    assert_true(clock_mono_ms() >= before / 1000);
    assert_true(clock_wall_ms() > 1600000000000);
}

static void hash_is_stable(void **state) {
    (void)state;
    assert_true(hash_span_nocase(SPAN("Example.NET"), 1) == hash_span(SPAN("example.net"), 1));
    assert_true(hash_span(SPAN("a"), 1) != hash_span(SPAN("a"), 2));
    assert_true(hash_span(SPAN_EMPTY, 0) == 0x2d06800538d394c2); /* the published value for no bytes */
    assert_true(hash_span_nocase(SPAN_EMPTY, 3) == hash_span(SPAN_EMPTY, 3));
    char big[10000];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7);
    struct hash_stream *h = hash_stream_new();
    for (int round = 0; round < 2; round++) {
        for (size_t at = 0, step = 1; at < sizeof big; at += step, step = step * 2 % 1013 + 1) {
            size_t len = step < sizeof big - at ? step : sizeof big - at;
            hash_stream_add(h, big + at, len);
            hash_stream_add(h, NULL, 0);
        }
        assert_int_equal(hash_stream_checksum(h), hash_checksum(big, sizeof big));
        hash_stream_reset(h);
    }
    assert_int_equal(hash_stream_checksum(h), hash_checksum("", 0));
    hash_stream_free(h);
    hash_stream_free(NULL);
    char upper[600], lower[600];
    memset(upper, 'Q', sizeof upper);
    memset(lower, 'q', sizeof lower);
    assert_true(hash_span_nocase(span_make(upper, 600), 9) == hash_span_nocase(span_make(lower, 600), 9));
}

static void rand_repeats_from_its_seed(void **state) {
    (void)state;
    struct rand a, b;
    rand_init(&a, 1);
    rand_init(&b, 1);
    unsigned counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t n = rand_below(&a, 7);
        assert_int_equal(n, rand_below(&b, 7));
        counts[n]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(counts[i], 9500, 10500);
    assert_int_equal(rand_below(&a, 1), 0);
    assert_true(rand_below(&a, UINT64_MAX) < UINT64_MAX);
    rand_init(&b, 2);
    assert_true(rand_u64(&a) != rand_u64(&b));
    uint64_t x = 0, y = 0;
    rand_secure(&x, sizeof x);
    rand_secure(&y, sizeof y);
    assert_true(x != y);
}

static void every_error_has_a_text(void **state) {
    (void)state;
    for (int e = 0; e >= ERR_VERSION; e--)
        assert_string_not_equal(err_text(e), "unknown error");
    assert_string_equal(err_text(ERR_VERSION - 1), "unknown error");
    assert_string_equal(err_text(1), "unknown error");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base32_round_trip),          cmocka_unit_test(utf8_is_strict),
        cmocka_unit_test(units_are_strict),           cmocka_unit_test(units_format),
        cmocka_unit_test(clock_writes_dates),         cmocka_unit_test(hash_is_stable),
        cmocka_unit_test(rand_repeats_from_its_seed), cmocka_unit_test(every_error_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
