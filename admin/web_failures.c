/*
 * web_failures: see web_failures.h. Asking the ring is what keeps it on, so it is asked every second and a half; under
 * a storm some lines are overwritten before that, and counted.
 */
#include "admin/web_failures.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/ring.h"

#define POLL_MS 1500u
#define LINES_AT_ONCE 200u

static const char *const failure_events[2] = {"failed", "given_up"};

/* "2026-11-24T08:15:07.123Z info failed id=...": rest is what follows the event. */
static struct span event_of(struct span line, struct span *rest) {
    (void)span_cut(line, ' ', &line);
    (void)span_cut(line, ' ', &line);
    return span_cut(line, ' ', rest);
}

static void keep_line(struct web_failures *f, struct span line) {
    char *copy = malloc(line.len + 1);
    if (!copy)
        return;
    span_copy(line, copy, line.len + 1);
    free(f->lines[f->next]);
    f->lines[f->next] = copy;
    f->next = (f->next + 1) % WEB_FAILURES_MAX;
    f->count += f->count < WEB_FAILURES_MAX;
}

static void read_kind(struct web_failures *f, size_t kind) {
    struct ring_line lines[LINES_AT_ONCE];
    struct ring_reading got;
    struct span event = span_of(failure_events[kind]), rest;
    struct arena mem;
    arena_init(&mem, 64 * 1024, 2u * 1024u * 1024u);
    int err = ring_read(RING_EVENTS, f->cursors[kind].number, event, lines, LINES_AT_ONCE, &mem, &got);
    if (err == ERR_OK || got.count) {
        f->cursors[kind].number = got.last;
        f->missed += kind == 0 ? got.missed : 0;
    }
    for (size_t i = 0; i < got.count; i++)
        if (span_eq(event_of(lines[i].text, &rest), event))
            keep_line(f, lines[i].text);
    arena_deinit(&mem);
}

static void read_all(struct web_failures *f) {
    for (size_t kind = 0; kind < 2; kind++)
        read_kind(f, kind);
}

static void on_timer(void *arg) {
    struct web_failures *f = arg;
    read_all(f);
    loop_timer_set(f->timer, POLL_MS);
}

int web_failures_init(struct web_failures *f, struct loop *l) {
    *f = (struct web_failures){.timer = loop_timer_new(l, on_timer, f)};
    if (!f->timer)
        return ERR_NOMEM;
    f->cursors[0].number = f->cursors[1].number = ring_newest(RING_EVENTS);
    loop_timer_set(f->timer, POLL_MS);
    return ERR_OK;
}

void web_failures_deinit(struct web_failures *f) {
    if (f->timer)
        loop_timer_close(f->timer);
    for (size_t i = 0; i < WEB_FAILURES_MAX; i++)
        free(f->lines[i]);
    *f = (struct web_failures){0};
}

/* The value at the front of *rest, which moves behind it and the space: a word, or text in quotes where \" is a quote.
 */
static void add_value(struct buf *to, struct span *rest) {
    struct span s = *rest;
    if (!s.len || s.at[0] != '"') {
        buf_add_json(to, span_cut(s, ' ', rest));
        return;
    }
    size_t i = 1, from = 1;
    for (; i < s.len && s.at[i] != '"'; i++) {
        if (s.at[i] != '\\' || i + 1 == s.len)
            continue;
        if (s.at[i + 1] == '"') {
            buf_add_json(to, span_make(s.at + from, i - from));
            from = i + 1;
        }
        i++;
    }
    buf_add_json(to, span_make(s.at + from, i - from));
    *rest = span_from(s, i + 2);
}

int web_failure_line(struct span line, struct buf *to) {
    struct span rest, time = span_cut(line, ' ', &rest), event = event_of(line, &rest);
    buf_add_str(to, "{\"time\":\"");
    buf_add_json(to, time);
    buf_add_str(to, "\",\"event\":\"");
    buf_add_json(to, event);
    buf_add_str(to, "\"");
    while (rest.len) {
        ptrdiff_t equal = span_find(rest, '=');
        if (equal <= 0)
            break;
        buf_add_str(to, ",\"");
        buf_add_json(to, span_first(rest, (size_t)equal));
        buf_add_str(to, "\":\"");
        rest = span_from(rest, (size_t)equal + 1);
        add_value(to, &rest);
        buf_add_str(to, "\"");
    }
    return buf_add_str(to, "}");
}

int web_failures_dump(struct web_failures *f, size_t max, struct buf *to) {
    read_all(f);
    buf_add_str(to, "{\"failures\":[");
    for (size_t i = 0; i < f->count && i < max && to->err == ERR_OK; i++) {
        size_t at = (f->next + WEB_FAILURES_MAX - 1 - i) % WEB_FAILURES_MAX;
        if (i)
            buf_add_byte(to, ',');
        int err = web_failure_line(span_of(f->lines[at]), to);
        if (err != ERR_OK)
            return err;
    }
    buf_add_str(to, "],\"missed\":");
    buf_add_u64(to, f->missed);
    buf_add_str(to, "}");
    return to->err;
}
