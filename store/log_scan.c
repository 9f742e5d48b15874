/*
 * log_scan: see log_scan.h. One pass over each log, in the order of their numbers.
 *
 * The judgement. Writes are synced one after the other, each before the next begins; so a crash can tear only the last
 * record. Where a piece does not check, the rest is searched for the beginning of a later record (one with a
 * sequence number that fits): if there is one, the damage is in data that was acknowledged. Later pieces of the
 * same record prove nothing: pages of one write reach the disk in any order.
 *
 * A torn tail may also lie in an older log, when the process died again before that log was removed. Then the next
 * record of a later log must go on exactly where the whole records end.
 */
#include "store/log_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "store/crc32c.h"

#define BLOCK 32768u
#define BLOCKS_AT_ONCE 32u
#define PIECE_HEAD 7u
#define RECORD_HEAD 12u
#define SEQUENCE_AHEAD_MAX (UINT64_C(1) << 24) /* a later record lies at most this many operations ahead */
#define LOGS_MAX 65536u

enum piece { PIECE_WHOLE = 1, PIECE_FIRST = 2, PIECE_MIDDLE = 3, PIECE_LAST = 4 };

struct scan {
    struct log_scan *out;
    char name[64];
    uint64_t last;      /* sequence of the last whole record of all logs so far; 0: none yet */
    bool inside;        /* between a first and a last piece */
    uint64_t record_at; /* where the record under way began */
    uint8_t head[RECORD_HEAD];
    size_t head_len;
    bool collecting; /* of the record's first octets */
    bool damaged;
    uint64_t damage_at;
    const char *damage_why;
    char broken[64]; /* an earlier log with a torn tail: the next record must follow `last` */
    bool stop;
};

static uint32_t get_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get_u64(const uint8_t *at) {
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

static void name_damage(struct scan *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void name_damage(struct scan *s, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(s->out->damage, sizeof s->out->damage, format, args);
    va_end(args);
    s->stop = true;
}

static void damage(struct scan *s, uint64_t at, const char *why) {
    if (s->damaged)
        return;
    s->damaged = true;
    s->damage_at = at;
    s->damage_why = why;
    s->inside = s->collecting = false;
}

static bool is_later(const struct scan *s, uint64_t sequence) {
    return sequence > s->last && (s->last == 0 || sequence - s->last < SEQUENCE_AHEAD_MAX);
}

/* The first octets of a record are there. Before damage: it must go on where the last one ended. */
static void on_head(struct scan *s) {
    uint64_t sequence = get_u64(s->head);
    s->collecting = false;
    if (s->damaged) {
        if (is_later(s, sequence))
            name_damage(s, "%s: %s at octet %llu, and whole records follow it", s->name, s->damage_why,
                        (unsigned long long)s->damage_at);
    } else if (s->broken[0] && s->last && sequence != s->last + 1) {
        name_damage(s, "%s: cut off after operation %llu, but %s goes on at operation %llu", s->broken,
                    (unsigned long long)s->last, s->name, (unsigned long long)sequence);
    }
}

static void on_record_end(struct scan *s) {
    s->inside = false;
    if (s->head_len < RECORD_HEAD) {
        damage(s, s->record_at, "a record without its head");
        return;
    }
    uint64_t end = get_u64(s->head) + get_u32(s->head + 8);
    if (end > s->last + 1 || s->last == 0)
        s->last = end - 1;
    s->out->records++;
    s->broken[0] = '\0';
}

static void on_piece(struct scan *s, enum piece type, const uint8_t *payload, size_t len, uint64_t at) {
    bool begins = type == PIECE_WHOLE || type == PIECE_FIRST;
    if (!s->damaged && begins && s->inside)
        damage(s, s->record_at, "a record that does not end");
    if (!s->damaged && !begins && !s->inside)
        damage(s, at, "a piece without its beginning");
    if (begins) {
        s->head_len = 0;
        s->collecting = true;
        s->record_at = at;
    }
    if (s->collecting) {
        size_t take = RECORD_HEAD - s->head_len < len ? RECORD_HEAD - s->head_len : len;
        memcpy(s->head + s->head_len, payload, take);
        s->head_len += take;
        if (s->head_len == RECORD_HEAD)
            on_head(s);
    }
    if (s->damaged || s->stop)
        return;
    s->inside = type == PIECE_FIRST || type == PIECE_MIDDLE;
    if (!s->inside)
        on_record_end(s);
}

/* Length of a valid piece's payload at this place, or -1. */
static int piece_at(const uint8_t *at, size_t room) {
    if (room < PIECE_HEAD || at[6] < PIECE_WHOLE || at[6] > PIECE_LAST)
        return -1;
    uint32_t len = (uint32_t)at[4] | (uint32_t)at[5] << 8, crc = get_u32(at) - 0xa282ead8u;
    if (len > room - PIECE_HEAD)
        return -1;
    crc = crc >> 17 | crc << 15;
    return crc32c(0, at + 6, 1u + len) == crc ? (int)len : -1;
}

static bool is_zero(const uint8_t *at, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (at[i])
            return false;
    return true;
}

static void scan_block(struct scan *s, const uint8_t *block, size_t len, uint64_t offset) {
    for (size_t at = 0; at < len && !s->stop;) {
        if (BLOCK - at < PIECE_HEAD) { /* too little for a piece: padding */
            if (!is_zero(block + at, len - at))
                damage(s, offset + at, "padding that is not zero");
            return;
        }
        int payload = piece_at(block + at, len - at);
        if (payload >= 0) {
            on_piece(s, (enum piece)block[at + 6], block + at + PIECE_HEAD, (size_t)payload, offset + at);
            at += PIECE_HEAD + (size_t)payload;
        } else {
            damage(s, s->inside ? s->record_at : offset + at, "a record that does not check");
            at++; /* the length may be what is wrong: look at every place for the next piece */
        }
    }
}

/* Adds what this log has to the judgement. */
static void end_of_log(struct scan *s, uint64_t size) {
    if (s->inside)
        damage(s, s->record_at, "a record that does not end");
    if (!s->damaged || s->stop)
        return;
    snprintf(s->broken, sizeof s->broken, "%s", s->name);
    snprintf(s->out->torn, sizeof s->out->torn, "%s", s->name);
    s->out->torn_bytes = size - s->damage_at;
}

static int scan_log(struct scan *s, int directory, uint8_t *memory) {
    int fd = openat(directory, s->name, O_RDONLY | O_CLOEXEC);
    uint64_t offset = 0;
    size_t have = 0;
    ssize_t n = -1;
    if (fd < 0) {
        LOG_ERROR("store_log_unreadable", LOG_STR("file", s->name), LOG_STR("why", strerror(errno)));
        return ERR_IO;
    }
    s->inside = s->collecting = s->damaged = false;
    while (!s->stop && (n = read(fd, memory + have, BLOCK * BLOCKS_AT_ONCE - have)) > 0) {
        have += (size_t)n;
        if (have < BLOCK * BLOCKS_AT_ONCE)
            continue;
        for (size_t i = 0; i < BLOCKS_AT_ONCE && !s->stop; i++)
            scan_block(s, memory + i * BLOCK, BLOCK, offset + i * BLOCK);
        offset += have;
        have = 0;
    }
    if (n < 0 && !s->stop)
        LOG_ERROR("store_log_unreadable", LOG_STR("file", s->name), LOG_STR("why", strerror(errno)));
    close(fd);
    if (n < 0 && !s->stop)
        return ERR_IO;
    for (size_t at = 0; at < have && !s->stop; at += BLOCK)
        scan_block(s, memory + at, have - at < BLOCK ? have - at : BLOCK, offset + at);
    end_of_log(s, offset + have);
    s->out->bytes += offset + have;
    return ERR_OK;
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int list_logs(DIR *d, uint64_t **numbers, size_t *count) {
    size_t cap = 0;
    *numbers = NULL;
    *count = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct span name = span_of(e->d_name);
        uint64_t number;
        if (!span_ends_nocase(name, SPAN(".log")) || !span_u64(span_first(name, name.len - 4), &number))
            continue;
        if (*count == LOGS_MAX)
            return ERR_FULL;
        if (*count == cap) {
            cap = cap ? cap * 2 : 64;
            uint64_t *more = realloc(*numbers, cap * sizeof *more);
            if (!more)
                return ERR_NOMEM;
            *numbers = more;
        }
        (*numbers)[(*count)++] = number;
    }
    if (*count)
        qsort(*numbers, *count, sizeof **numbers, by_number);
    return ERR_OK;
}

int log_scan(const char *directory, uint64_t acknowledged, struct log_scan *out) {
    *out = (struct log_scan){0};
    struct scan s = {.out = out};
    uint64_t *numbers = NULL;
    size_t count = 0;
    DIR *d = opendir(directory);
    uint8_t *memory = malloc((size_t)BLOCK * BLOCKS_AT_ONCE);
    int err = !d ? ERR_IO : !memory ? ERR_NOMEM : list_logs(d, &numbers, &count);
    for (size_t i = 0; err == ERR_OK && i < count && !s.stop; i++) {
        snprintf(s.name, sizeof s.name, "%06llu.log", (unsigned long long)numbers[i]);
        err = scan_log(&s, dirfd(d), memory);
    }
    out->last_sequence = s.last;
    snprintf(out->newest, sizeof out->newest, "%s", s.name);
    if (err == ERR_OK && !s.stop && s.broken[0] && s.last && s.last < acknowledged)
        name_damage(&s, "%s: cut off after operation %llu at octet %llu, but operations up to %llu were acknowledged",
                    s.broken, (unsigned long long)s.last, (unsigned long long)s.damage_at,
                    (unsigned long long)acknowledged);
    if (d)
        closedir(d);
    free(memory);
    free(numbers);
    return err != ERR_OK ? err : s.stop ? ERR_CORRUPT : ERR_OK;
}
