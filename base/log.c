/*
 * log: composes a line on the stack and gives it to the kernel with one write, so that
 * lines of several threads do not mix and a line costs no allocation. A line that the
 * reader does not take (a full pipe) is dropped and counted, never waited for.
 *
 * Bytes of strangers pass through the escapes of buf.c on their way; a line is always one
 * line. A storm of the same warning is held back: 100 lines a second, then a count.
 * The level, the format, the listener and the table of repeats are the only state, shared by the process.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/ring.h"

enum {
    LOG_LINE_END = 16,    /* kept free for the mark of a cut value and the closing marks */
    LOG_VALUE_MAX = 1024, /* bytes of one value, so that one does not push out all others */
    LOG_PER_SECOND = 100,
    LOG_SLOTS = 64,
};

METRIC_COUNTER(lines_dropped, "posthouse_log_dropped_total", "Log lines that standard error did not take.");

static atomic_int level_now = LOG_LEVEL_INFO;
static atomic_int format_now = LOG_FORMAT_TEXT;
static atomic_bool to_journal;
static _Atomic(log_tap) tap_now;

/* The journal's daemon names the stream that it reads, so that programs know whether theirs is still that one. */
static bool is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == (dev_t)device && st.st_ino == (ino_t)inode;
}

void log_setup(enum log_level level, enum log_format format) {
    atomic_store(&level_now, level);
    atomic_store(&format_now, format);
    atomic_store(&to_journal, is_journal());
}

void log_set_tap(log_tap tap) {
    atomic_store_explicit(&tap_now, tap, memory_order_release);
}

static bool is_shown(enum log_level level) {
    return (int)level >= atomic_load_explicit(&level_now, memory_order_relaxed);
}

static bool is_watched(enum log_level level) {
    return level >= LOG_LEVEL_INFO && ring_is_on(RING_EVENTS);
}

static bool is_tapped(enum log_level level) {
    return level >= LOG_LEVEL_INFO && atomic_load_explicit(&tap_now, memory_order_relaxed);
}

bool log_is_on(enum log_level level) {
    return is_shown(level) || is_watched(level) || is_tapped(level);
}

static const char *const level_names[] = {"debug", "info", "warn", "error"};

bool log_level_parse(struct span name, enum log_level *level) {
    for (int i = 0; i < 4; i++) {
        if (span_eq(name, span_of(level_names[i]))) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* Shortens to at most max bytes without cutting a UTF-8 sequence. */
static struct span cut(struct span s, size_t max) {
    if (s.len <= max)
        return s;
    size_t len = max;
    for (int i = 0; i < 3 && len && ((unsigned char)s.at[len] & 0xc0) == 0x80; i++)
        len--;
    return span_first(s, len);
}

static bool needs_quotes(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] == ' ' || s.at[i] == '"' || s.at[i] == '=')
            return true;
    }
    return s.len == 0;
}

static void add_quoted(struct buf *line, struct span s) {
    struct span rest;
    while (s.len) {
        struct span part = span_cut(s, '"', &rest);
        buf_add_escaped(line, part);
        if (part.len < s.len)
            buf_add_str(line, "\\\"");
        s = rest;
    }
}

/* The end of the line is kept free while fields are added; this gives it back for the closing marks. */
static void open_end(struct buf *line) {
    line->err = ERR_OK;
    line->cap = line->max = LOG_LINE_MAX - 1;
}

/* Adds a value; false when the line is full, which is then closed behind the mark. */
static bool add_value(struct buf *line, bool json, struct span value) {
    bool quotes = json || needs_quotes(value);
    if (quotes)
        buf_add_byte(line, '"');
    size_t room = line->cap - line->end;
    struct span shown = cut(value, room < LOG_VALUE_MAX ? room : LOG_VALUE_MAX);
    if (json)
        buf_add_json(line, shown);
    else if (quotes)
        add_quoted(line, shown);
    else
        buf_add_escaped(line, shown);
    bool full = line->err || line->cap - line->end < sizeof "...\"" || (shown.len < value.len && room < LOG_VALUE_MAX);
    if (full)
        open_end(line);
    if (full || shown.len < value.len)
        buf_add_str(line, "...");
    if (quotes)
        buf_add_byte(line, '"');
    return !full && !line->err;
}

static bool add_field(struct buf *line, bool json, const struct log_field *f) {
    size_t before = buf_len(line);
    buf_add_str(line, json ? ",\"" : " ");
    buf_add_str(line, f->name);
    buf_add_str(line, json ? "\":" : "=");
    if (line->err || line->cap - line->end < LOG_LINE_END) { /* no place for a value worth reading */
        buf_truncate(line, before);
        return false;
    }
    if (f->kind == LOG_KIND_SPAN)
        return add_value(line, json, f->span);
    if (f->kind == LOG_KIND_I64 && (int64_t)f->u64 < 0) {
        buf_add_byte(line, '-');
        buf_add_u64(line, -f->u64);
    } else {
        buf_add_u64(line, f->u64);
    }
    if (line->err)
        buf_truncate(line, before);
    return !line->err;
}

/* The whole line with its end, in LOG_LINE_MAX octets at mem. */
static struct span compose(char *mem, bool json, enum log_level level, const char *event,
                           const struct log_field *fields, size_t count) {
    struct buf line = {.mem = mem, .cap = LOG_LINE_MAX - LOG_LINE_END, .max = LOG_LINE_MAX - LOG_LINE_END};
    char when[32];
    clock_rfc3339(clock_wall_ms(), when, sizeof when);
    buf_add_str(&line, json ? "{\"time\":\"" : "");
    buf_add_str(&line, when);
    buf_add_str(&line, json ? "\",\"level\":\"" : " ");
    buf_add_str(&line, level_names[level]);
    buf_add_str(&line, json ? "\",\"event\":\"" : " ");
    struct span name = cut(span_of(event), LOG_VALUE_MAX);
    if (json)
        buf_add_json(&line, name);
    else
        buf_add_escaped(&line, name);
    buf_add_str(&line, json ? "\"" : "");
    for (size_t i = 0; i < count && add_field(&line, json, &fields[i]); i++) {
    }
    open_end(&line);
    buf_add_str(&line, json ? "}\n" : "\n");
    return buf_span(&line);
}

struct span log_compose_json(char mem[LOG_LINE_MAX], enum log_level level, const char *event,
                             const struct log_field *fields, size_t count) {
    return compose(mem, true, level, event, fields, count);
}

/* One write, so that lines do not mix. */
static void put(enum log_level level, struct span line) {
    static const char *const priorities[] = {"<7>", "<6>", "<4>", "<3>"}; /* of syslog, as the journal reads them */
    char marked[LOG_LINE_MAX + 4];
    if (atomic_load_explicit(&to_journal, memory_order_relaxed)) {
        size_t len = span_copy(span_of(priorities[level]), marked, sizeof marked);
        memcpy(marked + len, line.at, line.len);
        line = span_make(marked, len + line.len);
    }
    if (write(STDERR_FILENO, line.at, line.len) != (ssize_t)line.len)
        metric_add(&lines_dropped, 1);
}

static void write_line(enum log_level level, const char *event, const struct log_field *fields, size_t count) {
    char mem[LOG_LINE_MAX];
    struct span line = SPAN_EMPTY;
    bool json = atomic_load_explicit(&format_now, memory_order_relaxed) == LOG_FORMAT_JSON;
    if (is_shown(level)) {
        line = compose(mem, json, level, event, fields, count);
        put(level, line);
    }
    if (!is_watched(level))
        return;
    if (json || !line.len)
        line = compose(mem, false, level, event, fields, count);
    ring_add(RING_EVENTS, span_first(line, line.len - 1));
}

/* -- repeats -- */

struct repeat {
    const char *event;
    uint64_t hash;
    uint64_t second; /* of the monotonic clock */
    uint64_t count;  /* in that second */
    uint64_t held;   /* not written */
    enum log_level level;
};
static pthread_mutex_t repeat_lock = PTHREAD_MUTEX_INITIALIZER;
static struct repeat repeats[LOG_SLOTS];
static atomic_bool repeats_held;

static void write_held(const struct repeat *r) {
    const struct log_field fields[] = {LOG_STR("held", r->event), LOG_U64("count", r->held)};
    write_line(r->level, "log_held_back", fields, 2);
}

void log_flush(void) {
    if (!atomic_load_explicit(&repeats_held, memory_order_relaxed))
        return;
    uint64_t second = clock_mono_ms() / 1000;
    struct repeat due[LOG_SLOTS];
    size_t count = 0;
    bool more = false;
    pthread_mutex_lock(&repeat_lock);
    for (size_t i = 0; i < LOG_SLOTS; i++) {
        if (repeats[i].held && repeats[i].second != second) {
            due[count++] = repeats[i];
            repeats[i].held = 0;
        }
        more |= repeats[i].held != 0;
    }
    atomic_store_explicit(&repeats_held, more, memory_order_relaxed);
    pthread_mutex_unlock(&repeat_lock);
    for (size_t i = 0; i < count; i++)
        write_held(&due[i]);
}

/* False: this line is held back. */
static bool may_write(enum log_level level, const char *event) {
    uint64_t hash = hash_span(span_of(event), 0);
    uint64_t second = clock_mono_ms() / 1000;
    struct repeat *r = &repeats[hash % LOG_SLOTS];
    struct repeat old = {0};
    pthread_mutex_lock(&repeat_lock);
    if (r->hash != hash || r->second != second) {
        old = *r;
        *r = (struct repeat){.event = event, .hash = hash, .second = second, .level = level};
    }
    bool may = r->count++ < LOG_PER_SECOND;
    if (!may) {
        r->held++;
        atomic_store_explicit(&repeats_held, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&repeat_lock);
    if (old.held)
        write_held(&old);
    return may;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t count) {
    if (!log_is_on(level))
        return;
    if (is_tapped(level)) {
        log_tap tap = atomic_load_explicit(&tap_now, memory_order_acquire);
        if (tap)
            tap(level, event, fields, count);
    }
    if (!is_shown(level) && !is_watched(level))
        return;
    log_flush();
    if (level < LOG_LEVEL_WARN || may_write(level, event))
        write_line(level, event, fields, count);
}
