/*
 * log: one line per event to standard error, as text or JSON, from any thread.
 *
 *   LOG_INFO("delivered", LOG_STR("id", id), LOG_U64("size", n), LOG_SPAN("to", rcpt));
 *
 * Text: `2026-11-24T08:15:07.123Z info delivered id=0ABC size=12 to=<a@b>`; values with
 * spaces or quotes are quoted; hostile bytes are escaped (buf_add_escaped). A line holds at
 * most 4 KiB; longer values are cut and marked "...". The same event repeated more than
 * 100 times a second at level warn or error is counted, and the count logged. While somebody
 * watches (base/ring.h), lines from info on go there too, as text, whatever level is set. docs/events.md lists all
 * events from info on with their fields; where the name is no literal, a comment `events: NAME, NAME` says which.
 * When standard error is the journal's (JOURNAL_STREAM), each line has its syslog priority in front: <6>.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"
#include "base/span.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };
enum log_kind { LOG_KIND_SPAN, LOG_KIND_U64, LOG_KIND_I64 };
struct log_field {
    const char *name; /* static, [a-z0-9_]+ */
    enum log_kind kind;
    struct span span;
    uint64_t u64;
};

#define LOG_SPAN(n, s) ((struct log_field){.name = (n), .kind = LOG_KIND_SPAN, .span = (s)})
#define LOG_STR(n, s) ((struct log_field){.name = (n), .kind = LOG_KIND_SPAN, .span = span_of(s)})
#define LOG_U64(n, v) ((struct log_field){.name = (n), .kind = LOG_KIND_U64, .u64 = (uint64_t)(v)})
#define LOG_I64(n, v) ((struct log_field){.name = (n), .kind = LOG_KIND_I64, .u64 = (uint64_t)(int64_t)(v)})
#define LOG_ERR(n, e) LOG_STR(n, err_text(e))

#define LOG_AT(level, event, ...)                                                                                      \
    do {                                                                                                               \
        if (log_is_on(level)) {                                                                                        \
            const struct log_field log_fields_[] = {{0}, __VA_ARGS__};                                                 \
            log_write(level, event, log_fields_ + 1, sizeof log_fields_ / sizeof *log_fields_ - 1);                    \
        }                                                                                                              \
    } while (0)
#define LOG_DEBUG(event, ...) LOG_AT(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#define LOG_INFO(event, ...) LOG_AT(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define LOG_WARN(event, ...) LOG_AT(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define LOG_ERROR(event, ...) LOG_AT(LOG_LEVEL_ERROR, event, __VA_ARGS__)

/* May be called at any time, from any thread. The default is info, text. */
void log_setup(enum log_level level, enum log_format format);
bool log_is_on(enum log_level level);
/* event: a static text. */
void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t count);
/* Writes the counts of lines held back in past seconds. Every log_write does so; call it from a
 * tick and before the end, so that a count does not wait for the next event. */
void log_flush(void);

#define LOG_LINE_MAX 4096
/* Hears every event from info on, whatever level is set, on the thread where it happens, before repeats are held back:
 * it must be quick, never wait, and log nothing. Nobody listens: one relaxed load. NULL: nobody from now on; a call
 * that is under way may still be running. */
typedef void (*log_tap)(enum log_level level, const char *event, const struct log_field *fields, size_t count);
void log_set_tap(log_tap tap);
/* The line as JSON, with its end, in mem. */
struct span log_compose_json(char mem[LOG_LINE_MAX], enum log_level level, const char *event,
                             const struct log_field *fields, size_t count);

/* "debug" | "info" | "warn" | "error": true and *level. */
bool log_level_parse(struct span name, enum log_level *level);

#endif
