/*
 * units: reading and writing sizes and durations for settings and the tool. Reading is
 * strict (no fractions, signs or spaces), so that a typing error in a setting is refused
 * and not guessed at.
 */
#include <stdio.h>

#include "base/check.h"
#include "base/units.h"

/* Splits "50MiB" into 50 and "MiB". */
static int split(struct span text, uint64_t *number, struct span *unit) {
    size_t digits = 0;
    while (digits < text.len && text.at[digits] >= '0' && text.at[digits] <= '9')
        digits++;
    if (digits == 0)
        return ERR_INVALID;
    *unit = span_from(text, digits);
    return span_u64(span_first(text, digits), number) ? ERR_OK : ERR_RANGE;
}

int units_size(struct span text, uint64_t *bytes) {
    static const struct {
        char letter;
        int shift;
    } units[] = {{'k', 10}, {'m', 20}, {'g', 30}, {'t', 40}};
    uint64_t n;
    struct span unit;
    int err = split(text, &n, &unit);
    if (err == ERR_INVALID)
        return err;
    int shift = unit.len == 0 || span_eq_nocase(unit, SPAN("b")) ? 0 : -1;
    for (size_t i = 0; i < sizeof units / sizeof *units && shift < 0; i++) {
        struct span rest = span_from(unit, 1);
        if ((unit.at[0] | 0x20) == units[i].letter &&
            (rest.len == 0 || span_eq_nocase(rest, SPAN("b")) || span_eq_nocase(rest, SPAN("ib"))))
            shift = units[i].shift;
    }
    if (shift < 0)
        return ERR_INVALID;
    if (err || n > UINT64_MAX >> shift)
        return ERR_RANGE;
    *bytes = n << shift;
    return ERR_OK;
}

static const struct {
    const char *name;
    uint64_t ms;
} durations[] = {{"w", 604800000}, {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
enum { DURATION_DAYS = 1, DURATION_COUNT = 6 };

int units_duration(struct span text, uint64_t *ms) {
    uint64_t n;
    struct span unit;
    int err = split(text, &n, &unit);
    if (err == ERR_INVALID)
        return err;
    if (unit.len == 0 && !err && n == 0) {
        *ms = 0;
        return ERR_OK;
    }
    for (size_t i = 0; i < DURATION_COUNT; i++) {
        if (!span_eq(unit, span_of(durations[i].name)))
            continue;
        return err || __builtin_mul_overflow(n, durations[i].ms, ms) ? ERR_RANGE : ERR_OK;
    }
    return ERR_INVALID;
}

size_t units_format_duration(uint64_t ms, char *to, size_t size) {
    CHECK(size >= 32);
    size_t at = DURATION_DAYS; /* weeks are read, but "10d" says more than "1w 3d" */
    while (at < DURATION_COUNT - 1 && ms < durations[at].ms)
        at++;
    unsigned long long first = ms / durations[at].ms;
    unsigned long long second = at + 1 < DURATION_COUNT ? ms % durations[at].ms / durations[at + 1].ms : 0;
    int len = second ? snprintf(to, size, "%llu%s %llu%s", first, durations[at].name, second, durations[at + 1].name)
                     : snprintf(to, size, "%llu%s", first, durations[at].name);
    return (size_t)len;
}

size_t units_format_size(uint64_t bytes, char *to, size_t size) {
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    CHECK(size >= 16);
    if (bytes < 1024)
        return (size_t)snprintf(to, size, "%u B", (unsigned)bytes);
    unsigned unit = 0;
    double n = (double)bytes;
    while (n >= 1023.95) { /* what would be rounded to 1024.0 is one of the next unit */
        n /= 1024;
        unit++;
    }
    return (size_t)snprintf(to, size, "%.1f %s", n, names[unit]);
}
