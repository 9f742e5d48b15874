/*
 * held: a message that waits in the gateway for its filters, in a form that they can change and that comes out again
 * octet by octet as it came in when they do not.
 *
 * The header arrives in one piece of memory, and fields are spans of it; what a filter adds or changes owns its
 * memory. A field is kept without its final CRLF. Lines end with CRLF only: a lone CR or LF is an octet like others.
 * Whatever cannot be a header begins the body. Such a message has no empty line; it gets one with the first change,
 * since otherwise a new field could take the body's first line for its own continuation, or the body become header.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#include "gateway/filter/held.h"
#include "gateway/filter/held_spill.h"
#include "gateway/smtp/mime.h"

enum { PIECE = 16384, NAME_MAX_LEN = 998, CRLF_LEN = 2 };

struct field {
    char *owned;     /* heap, or NULL: lies in the header as it came */
    const char *at;  /* name, colon, value */
    size_t start;    /* while filling: where it begins in the header */
    uint32_t len;    /* all of it, without the final CRLF */
    uint32_t name;   /* length of the name */
    uint32_t behind; /* where the value begins: one past the colon */
};

enum phase { PHASE_HEADER, PHASE_BODY, PHASE_DONE };

struct held {
    atomic_uint owners;
    enum phase phase;
    int err;           /* the first error of an append */
    struct buf raw;    /* the header as it came */
    size_t line, scan; /* in raw: the line under way, and how far it was searched for its end */
    struct field *fields;
    size_t count, room;
    size_t header_len; /* of all fields with their line ends */
    size_t owned_len;  /* heap of changed fields */
    bool separator;    /* there is an empty line */
    bool unterminated; /* the last field came without a line end */
    struct held_spill body;
    size_t cursor; /* held_read: a field, and where it begins in the message */
    uint64_t cursor_at;
};

struct held *held_new(const char *dir) {
    struct held *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    atomic_init(&h->owners, 1);
    buf_init(&h->raw, HELD_HEADER_MAX + PIECE);
    if (held_spill_init(&h->body, dir)) {
        held_free(h);
        return NULL;
    }
    return h;
}

struct held *held_ref(struct held *h) {
    atomic_fetch_add_explicit(&h->owners, 1, memory_order_relaxed);
    return h;
}

void held_free(struct held *h) {
    if (!h || atomic_fetch_sub_explicit(&h->owners, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < h->count; i++)
        free(h->fields[i].owned);
    free(h->fields);
    buf_deinit(&h->raw);
    held_spill_deinit(&h->body);
    free(h);
}

size_t held_memory(const struct held *h) {
    return sizeof *h + h->raw.cap + h->room * sizeof *h->fields + h->owned_len + h->body.memory.cap;
}

/* -- filling -- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static bool is_name_char(char c) {
    return c > ' ' && c < 0x7f && c != ':';
}

enum line_kind { LINE_UNKNOWN, LINE_EMPTY, LINE_FIELD, LINE_FOLD, LINE_BODY };

/* What a line is, as soon as its beginning tells. Fills name and behind of a field. */
static enum line_kind judge(struct span line, bool has_field, bool whole, struct field *f) {
    enum line_kind open = whole ? LINE_BODY : LINE_UNKNOWN;
    if (line.len == 0)
        return open;
    if (line.at[0] == '\r')
        return line.len < CRLF_LEN ? open : line.at[1] == '\n' ? LINE_EMPTY : LINE_BODY;
    if (is_blank(line.at[0]))
        return has_field ? LINE_FOLD : LINE_BODY;
    size_t n = 0;
    while (n < line.len && n <= NAME_MAX_LEN && is_name_char(line.at[n]))
        n++;
    if (n == 0 || n > NAME_MAX_LEN)
        return LINE_BODY;
    f->name = (uint32_t)n;
    while (n < line.len && n <= NAME_MAX_LEN && is_blank(line.at[n]))
        n++;
    if (n == line.len)
        return open;
    if (line.at[n] != ':')
        return LINE_BODY;
    f->behind = (uint32_t)n + 1;
    return LINE_FIELD;
}

static int make_room(struct held *h) {
    if (h->count == HELD_FIELDS_MAX)
        return ERR_FULL;
    if (h->count < h->room)
        return ERR_OK;
    size_t room = h->room ? h->room * 2 : 32;
    struct field *fields = realloc(h->fields, room * sizeof *fields);
    if (!fields)
        return ERR_NOMEM;
    h->fields = fields;
    h->room = room;
    return ERR_OK;
}

/* The header is over; the body begins at this place of raw. */
static int end_header(struct held *h, size_t body) {
    struct span rest = span_from(buf_span(&h->raw), body);
    h->phase = PHASE_BODY;
    int err = held_spill_append(&h->body, rest);
    buf_truncate(&h->raw, body);
    for (size_t i = 0; i < h->count; i++) {
        struct field *f = &h->fields[i];
        f->at = buf_span(&h->raw).at + f->start;
        h->header_len += f->len + CRLF_LEN;
    }
    return err;
}

/* One line, of which the end is known or which is the last one. */
static int take_line(struct held *h, size_t end, const struct field *found, enum line_kind kind) {
    int err = ERR_OK;
    if (kind == LINE_FIELD) {
        err = make_room(h);
        if (err)
            return err;
        h->fields[h->count] = *found;
        h->fields[h->count++].start = h->line;
    }
    struct field *f = &h->fields[h->count - 1];
    f->len = (uint32_t)(end - f->start);
    return err;
}

/* The place of the next CRLF from h->scan on, or -1. */
static ptrdiff_t find_end(struct held *h) {
    struct span raw = buf_span(&h->raw);
    while (h->scan < raw.len) {
        const char *cr = memchr(raw.at + h->scan, '\r', raw.len - h->scan);
        h->scan = cr ? (size_t)(cr - raw.at) : raw.len;
        if (!cr || h->scan + 1 == raw.len)
            return -1;
        if (cr[1] == '\n')
            return (ptrdiff_t)h->scan;
        h->scan++;
    }
    return -1;
}

/* Divides what has come into fields, as far as whole lines reach; `last`: nothing more comes. */
static int divide(struct held *h, bool last) {
    for (;;) {
        struct field found = {0};
        struct span line = span_from(buf_span(&h->raw), h->line);
        if (last && line.len == 0)
            return end_header(h, h->line);
        ptrdiff_t end = find_end(h);
        /* A name may not reach over the end of its own line: a CR is no character of a name. */
        enum line_kind kind = judge(line, h->count > 0, last || end >= 0, &found);
        if (kind == LINE_UNKNOWN)
            return ERR_OK;
        if (kind == LINE_BODY)
            return end_header(h, h->line);
        if (kind == LINE_EMPTY) {
            h->separator = true;
            return end_header(h, h->line + CRLF_LEN);
        }
        if (end < 0 && !last)
            return ERR_OK;
        h->unterminated = end < 0;
        size_t stop = end < 0 ? buf_len(&h->raw) : (size_t)end;
        int err = take_line(h, stop, &found, kind);
        if (err)
            return err;
        h->line = h->scan = end < 0 ? stop : stop + CRLF_LEN;
    }
}

static int append(struct held *h, struct span octets) {
    while (octets.len && h->phase == PHASE_HEADER) {
        struct span piece = span_first(octets, PIECE);
        octets = span_from(octets, piece.len);
        int err = buf_add(&h->raw, piece);
        if (!err)
            err = divide(h, false);
        if (!err && h->phase == PHASE_HEADER && buf_len(&h->raw) > HELD_HEADER_MAX)
            err = ERR_FULL;
        if (err)
            return err;
    }
    return held_spill_append(&h->body, octets);
}

int held_append(struct held *h, struct span octets) {
    CHECK(h->phase != PHASE_DONE);
    if (!h->err)
        h->err = append(h, octets);
    return h->err;
}

int held_finish(struct held *h) {
    CHECK(h->phase != PHASE_DONE);
    if (!h->err && h->phase == PHASE_HEADER)
        h->err = divide(h, true);
    h->phase = PHASE_DONE;
    return h->err;
}

/* -- fields -- */

size_t held_count(const struct held *h) {
    return h->count;
}

void held_field(const struct held *h, size_t n, struct span *name, struct span *value) {
    CHECK(n < h->count);
    const struct field *f = &h->fields[n];
    *name = span_make(f->at, f->name);
    *value = span_make(f->at + f->behind, f->len - f->behind);
}

ptrdiff_t held_find(const struct held *h, struct span name, size_t nth) {
    for (size_t i = 0; i < h->count; i++) {
        const struct field *f = &h->fields[i];
        if (f->name == name.len && span_eq_nocase(span_make(f->at, f->name), name) && nth-- == 0)
            return (ptrdiff_t)i;
    }
    return -1;
}

/* Before a change: from now on the message is what it seems, an empty line between header and body. */
static void straighten(struct held *h) {
    h->unterminated = false;
    if (h->body.size)
        h->separator = true;
    h->cursor = 0;
    h->cursor_at = 0;
}

/* Where a line break stands its length, which must be a fold; 0: none here; ERR_INVALID. */
static int fold_at(struct span value, size_t i) {
    size_t len = value.at[i] == '\n' ? 1 : i + 1 < value.len && value.at[i + 1] == '\n' ? CRLF_LEN : 0;
    bool fold = len && i + len < value.len && is_blank(value.at[i + len]);
    return fold ? (int)len : ERR_INVALID;
}

/* Appends the value in its lawful form. ERR_INVALID, or the error of the buffer. */
static int add_value(struct buf *to, struct span value) {
    if (value.len && !is_blank(value.at[0]) && value.at[0] != '\r' && value.at[0] != '\n')
        buf_add_byte(to, ' ');
    for (size_t i = 0; i < value.len;) {
        char c = value.at[i];
        if (c == '\0')
            return ERR_INVALID;
        if (c != '\r' && c != '\n') {
            buf_add_byte(to, c);
            i++;
            continue;
        }
        int len = fold_at(value, i);
        if (len < 0)
            return len;
        buf_add(to, SPAN("\r\n"));
        i += (size_t)len;
    }
    return to->err;
}

/* Makes a field with memory of its own. head: name, blanks, colon. `used`: what the other fields take. */
static int make_field(struct field *f, struct span head, struct span value, size_t used) {
    struct buf text;
    size_t most = HELD_HEADER_MAX - (used < HELD_HEADER_MAX ? used : HELD_HEADER_MAX);
    if (most <= CRLF_LEN)
        return ERR_FULL;
    buf_init(&text, most - CRLF_LEN);
    buf_add(&text, head);
    int err = add_value(&text, value);
    f->owned = err ? NULL : malloc(buf_len(&text));
    if (f->owned) {
        f->len = (uint32_t)buf_len(&text);
        memcpy(f->owned, buf_span(&text).at, f->len);
        f->at = f->owned;
    } else if (!err) {
        err = ERR_NOMEM;
    }
    buf_deinit(&text);
    return err;
}

static bool is_name(struct span name) {
    for (size_t i = 0; i < name.len; i++) {
        if (!is_name_char(name.at[i]))
            return false;
    }
    return name.len > 0 && name.len < NAME_MAX_LEN;
}

bool held_is_field(struct span name, struct span value) {
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] == '\0')
            return false;
        if (value.at[i] != '\r' && value.at[i] != '\n')
            continue;
        int len = fold_at(value, i);
        if (len < 0)
            return false;
        i += (size_t)len - 1;
    }
    return is_name(name);
}

size_t held_header_size(const struct held *h) {
    return h->header_len;
}

int held_insert(struct held *h, size_t at, struct span name, struct span value) {
    char head[NAME_MAX_LEN + 1];
    if (!is_name(name))
        return ERR_INVALID;
    memcpy(head, name.at, name.len);
    head[name.len] = ':';
    struct field f = {.name = (uint32_t)name.len, .behind = (uint32_t)name.len + 1};
    int err = make_room(h);
    if (!err)
        err = make_field(&f, span_make(head, name.len + 1), value, h->header_len);
    if (err)
        return err;
    straighten(h);
    if (at > h->count)
        at = h->count;
    memmove(h->fields + at + 1, h->fields + at, (h->count - at) * sizeof f);
    h->fields[at] = f;
    h->count++;
    h->header_len += f.len + CRLF_LEN;
    h->owned_len += f.len;
    return ERR_OK;
}

static void forget(struct held *h, struct field *f) {
    h->header_len -= f->len + CRLF_LEN;
    if (f->owned)
        h->owned_len -= f->len;
    free(f->owned);
}

int held_change(struct held *h, size_t n, struct span value) {
    CHECK(n < h->count);
    struct field *old = &h->fields[n], f = {.name = old->name, .behind = old->behind};
    int err = make_field(&f, span_make(old->at, old->behind), value, h->header_len - old->len - CRLF_LEN);
    if (err)
        return err;
    straighten(h);
    forget(h, old);
    *old = f;
    h->header_len += f.len + CRLF_LEN;
    h->owned_len += f.len;
    return ERR_OK;
}

void held_remove(struct held *h, size_t n) {
    CHECK(n < h->count);
    straighten(h);
    forget(h, &h->fields[n]);
    h->count--;
    memmove(h->fields + n, h->fields + n + 1, (h->count - n) * sizeof *h->fields);
}

/* -- body -- */

uint64_t held_body_size(const struct held *h) {
    return h->body.size;
}

ptrdiff_t held_body_read(struct held *h, uint64_t at, char *to, size_t max) {
    return held_spill_read(&h->body, at, to, max);
}

int held_body_replace(struct held *h) {
    straighten(h);
    h->separator = true;
    return held_spill_clear(&h->body);
}

int held_body_append(struct held *h, struct span octets) {
    h->cursor = 0;
    h->cursor_at = 0;
    return held_spill_append(&h->body, octets);
}

const char *held_dir(const struct held *h) {
    return h->body.dir;
}

void held_body_take(struct held *h, struct held_spill *s) {
    straighten(h);
    h->separator = true;
    struct held_spill old = h->body;
    h->body = *s;
    *s = old;
}

/* -- reading -- */

uint64_t held_size(const struct held *h) {
    return h->header_len - (h->unterminated ? CRLF_LEN : 0) + (h->separator ? CRLF_LEN : 0) + h->body.size;
}

/* Octets of this part (a field with its line end, or the empty line) from `at`, at most max. */
static size_t copy_part(struct span text, bool ended, uint64_t at, char *to, size_t max) {
    struct span pieces[2] = {span_from(text, (size_t)at), SPAN_EMPTY};
    size_t done = 0;
    if (ended)
        pieces[1] = span_from(SPAN("\r\n"), at > text.len ? (size_t)at - text.len : 0);
    for (size_t i = 0; i < 2; i++) {
        struct span piece = span_first(pieces[i], max - done);
        if (piece.len)
            memcpy(to + done, piece.at, piece.len);
        done += piece.len;
    }
    return done;
}

static size_t part_len(const struct held *h, size_t n) {
    if (n == h->count)
        return h->separator ? CRLF_LEN : 0;
    return h->fields[n].len + (h->unterminated && n + 1 == h->count ? 0 : CRLF_LEN);
}

ptrdiff_t held_read(struct held *h, uint64_t at, char *to, size_t max) {
    size_t done = 0;
    if (at < h->cursor_at) {
        h->cursor = 0;
        h->cursor_at = 0;
    }
    while (h->cursor <= h->count && done < max) {
        size_t len = part_len(h, h->cursor);
        if (at + done >= h->cursor_at + len) {
            h->cursor_at += len;
            h->cursor++;
            continue;
        }
        struct span text = SPAN_EMPTY;
        if (h->cursor < h->count)
            text = span_make(h->fields[h->cursor].at, h->fields[h->cursor].len);
        done += copy_part(text, len > text.len, at + done - h->cursor_at, to + done, max - done);
    }
    if (done == max || h->cursor <= h->count)
        return (ptrdiff_t)done;
    ptrdiff_t got = held_spill_read(&h->body, at + done - h->cursor_at, to + done, max - done);
    return got < 0 && done == 0 ? got : (ptrdiff_t)done + (got > 0 ? got : 0);
}

bool held_eight_bit(const struct held *h) {
    for (size_t i = 0; i < h->count; i++) {
        if (mime_has_8bit(span_make(h->fields[i].at, h->fields[i].len)))
            return true;
    }
    return h->body.eight_bit;
}
