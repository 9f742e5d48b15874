/*
 * clock: reads the two clocks and writes dates. Nobody else calls clock_gettime, so that a
 * simulation can hand out its own time. The calendar is computed here: gmtime takes a lock
 * in the C library, and every accepted mail needs a date for its Received line.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"

static uint64_t read_us(clockid_t id) {
    struct timespec ts;
    CHECK(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t clock_wall_ms(void) {
    return read_us(CLOCK_REALTIME) / 1000;
}

uint64_t clock_mono_ms(void) {
    return read_us(CLOCK_MONOTONIC) / 1000;
}

uint64_t clock_mono_us(void) {
    return read_us(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ms(void) {
    return read_us(CLOCK_BOOTTIME) / 1000;
}

struct date {
    unsigned year, month, day; /* month and day from 1 */
    unsigned hour, minute, second, ms;
    unsigned weekday; /* 0 is Sunday */
};

#define WALL_MS_MAX 253402300799999u /* the end of the year 9999 */

static struct date date_of(uint64_t wall_ms) {
    if (wall_ms > WALL_MS_MAX)
        wall_ms = WALL_MS_MAX;
    uint64_t days = wall_ms / 86400000;
    unsigned in_day = (unsigned)(wall_ms % 86400000);
    /* Years that begin on 1 March have the leap day at their end; cycles of 400 years are alike. */
    uint64_t shifted = days + 719468;
    uint64_t era = shifted / 146097;
    unsigned day_of_era = (unsigned)(shifted % 146097);
    unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month = (5 * day_of_year + 2) / 153; /* 0 is March */
    struct date d = {
        .day = day_of_year - (153 * month + 2) / 5 + 1,
        .month = month < 10 ? month + 3 : month - 9,
        .hour = in_day / 3600000,
        .minute = in_day / 60000 % 60,
        .second = in_day / 1000 % 60,
        .ms = in_day % 1000,
        .weekday = (unsigned)((days + 4) % 7),
    };
    d.year = (unsigned)(era * 400) + year_of_era + (d.month <= 2);
    return d;
}

size_t clock_rfc5322(uint64_t wall_ms, char *to, size_t size) {
    static const char weekdays[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct date d = date_of(wall_ms);
    CHECK(size >= 32);
    int len = snprintf(to, size, "%s, %u %s %04u %02u:%02u:%02u +0000", weekdays[d.weekday], d.day, months[d.month - 1],
                       d.year, d.hour, d.minute, d.second);
    return (size_t)len;
}

size_t clock_rfc3339(uint64_t wall_ms, char *to, size_t size) {
    struct date d = date_of(wall_ms);
    CHECK(size >= 25);
    int len = snprintf(to, size, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", d.year, d.month, d.day, d.hour, d.minute,
                       d.second, d.ms);
    return (size_t)len;
}

/* Takes `len` digits off the front, then one of `ends` (NULL: nothing). */
static bool take_digits(struct span *text, size_t len, const char *ends, unsigned *to) {
    uint64_t n;
    if (text->len < len + (ends != NULL) || !span_u64(span_first(*text, len), &n))
        return false;
    if (ends && !strchr(ends, text->at[len]))
        return false;
    *to = (unsigned)n;
    *text = span_from(*text, len + (ends != NULL));
    return true;
}

static uint64_t days_before(const struct date *d) {
    unsigned month = d->month > 2 ? d->month - 3 : d->month + 9; /* 0 is March */
    uint64_t year = d->year - (d->month <= 2);
    return year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + d->day - 1 - 719468;
}

/* "Z", or "+02:00": minutes to subtract. */
static bool take_zone(struct span text, int *minutes) {
    unsigned hour, minute;
    *minutes = 0;
    if (span_eq_nocase(text, SPAN("Z")))
        return true;
    if (text.len != 6 || (text.at[0] != '+' && text.at[0] != '-'))
        return false;
    bool east = text.at[0] == '+';
    text = span_from(text, 1);
    if (!take_digits(&text, 2, ":", &hour) || !take_digits(&text, 2, NULL, &minute) || hour > 23 || minute > 59)
        return false;
    *minutes = (int)(hour * 60 + minute) * (east ? 1 : -1);
    return true;
}

int clock_parse_rfc3339(struct span text, uint64_t *wall_ms) {
    static const unsigned lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct date d = {0};
    int zone;
    bool fine = take_digits(&text, 4, "-", &d.year) && take_digits(&text, 2, "-", &d.month) &&
                take_digits(&text, 2, "Tt", &d.day) && take_digits(&text, 2, ":", &d.hour) &&
                take_digits(&text, 2, ":", &d.minute) && take_digits(&text, 2, NULL, &d.second);
    if (!fine || d.year < 1970 || d.month < 1 || d.month > 12 || d.hour > 23 || d.minute > 59 || d.second > 60)
        return ERR_INVALID;
    bool leap = d.month == 2 && d.year % 4 == 0 && (d.year % 100 || d.year % 400 == 0);
    if (d.day < 1 || d.day > lengths[d.month - 1] + leap)
        return ERR_INVALID;
    if (text.len && text.at[0] == '.') {
        size_t digits = 1;
        while (digits < text.len && text.at[digits] >= '0' && text.at[digits] <= '9')
            digits++;
        if (digits == 1)
            return ERR_INVALID;
        text = span_from(text, digits);
    }
    if (!take_zone(text, &zone))
        return ERR_INVALID;
    int64_t seconds = (int64_t)(days_before(&d) * 86400 + d.hour * 3600 + d.minute * 60 + d.second) - zone * 60;
    *wall_ms = (uint64_t)seconds * 1000;
    return ERR_OK;
}
