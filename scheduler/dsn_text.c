/*
 * dsn_text: the part of a report that people read: a template (dsn_template.h) with what happened filled in.
 *
 * Whatever is filled in is cleaned and cut, and lines are broken only here. Long lists are cut; the part for programs
 * has all.
 */
#include "base/clock.h"
#include "base/units.h"
#include "base/utf8.h"
#include "scheduler/dsn_part.h"
#include "scheduler/dsn_words.h"

#define LISTED_MAX 50u
#define WORDS_MAX 600u   /* octets of a remote text that are shown */
#define ADDRESS_MAX 320u /* of an address */
#define LINE_WIDTH 72u
#define LINE_HARD 900u
#define SUBJECT_MAX 400u

struct telling {
    const struct dsn *d;
    const struct dsn_words *words;
    const struct dsn_recipient *r; /* inside {{each}} */
    struct buf *to;
    bool blank; /* an empty line is due */
};

/* -- values -- */

static void add_advice(struct buf *b, const struct telling *t) {
    const struct dsn_recipient *r = t->r;
    if (t->d->kind == DSN_DELIVERED) {
        buf_add_str(b, r->expanded ? t->words->expanded : r->relayed ? t->words->relayed : t->words->delivered);
        return;
    }
    enum bounce_category c = bounce_classify(r->code, dsn_status_of(t->d, r), r->text);
    buf_add_str(b, t->words->what[c]);
    if (t->d->kind == DSN_FAILED)
        buf_printf(b, " %s", t->words->then[dsn_then_of(c)]);
}

static void add_reason(struct buf *b, const struct dsn_recipient *r) {
    if (r->code)
        buf_printf(b, r->text.len ? "%u " : "%u", r->code);
    dsn_add_clean(b, r->text, WORDS_MAX, false);
}

static void add_recipient_value(struct buf *b, const struct telling *t, enum dsn_variable v) {
    const struct dsn_recipient *r = t->r;
    if (!r)
        return;
    if (v == DSN_VAR_RECIPIENT)
        dsn_add_clean(b, r->address, ADDRESS_MAX, false);
    else if (v == DSN_VAR_ORIGINAL)
        dsn_add_clean(b, r->original, ADDRESS_MAX, false);
    else if (v == DSN_VAR_STATUS)
        buf_add(b, dsn_status_of(t->d, r));
    else if (v == DSN_VAR_ADVICE)
        add_advice(b, t);
    else if (v == DSN_VAR_REASON)
        add_reason(b, r);
    else if (r->code || r->text.len) { /* who said it, where something was said */
        if (r->remote.len && r->code)
            dsn_add_clean(b, r->remote, 300, false);
        else
            buf_add_str(b, t->words->ourselves);
    }
}

static void add_message_value(struct buf *b, const struct telling *t, enum dsn_variable v) {
    const struct dsn *d = t->d;
    char text[64];
    switch (v) {
    case DSN_VAR_HOSTNAME:
        buf_add(b, d->hostname);
        return;
    case DSN_VAR_POSTMASTER:
        dsn_add_clean(b, d->postmaster, ADDRESS_MAX, false);
        return;
    case DSN_VAR_SENDER:
        dsn_add_clean(b, d->sender, ADDRESS_MAX, false);
        return;
    case DSN_VAR_TIME:
        buf_add(b, span_make(text, clock_rfc5322(d->received_ms, text, sizeof text)));
        return;
    case DSN_VAR_WAITED:
        units_format_duration(d->now_ms > d->received_ms ? d->now_ms - d->received_ms : 0, text, sizeof text);
        buf_add_str(b, text);
        return;
    case DSN_VAR_EXPIRES:
        if (d->kind == DSN_DELAYED)
            buf_add(b, span_make(text, clock_rfc5322(d->retry_until_ms, text, sizeof text)));
        return;
    case DSN_VAR_ENVID:
        dsn_add_clean(b, d->envid, 100, false);
        return;
    case DSN_VAR_MORE:
        if (d->count > LISTED_MAX)
            buf_printf(b, "%u", d->count - LISTED_MAX);
        return;
    case DSN_VAR_ATTACHED:
        buf_add_str(b, dsn_is_whole(d) ? t->words->whole : t->words->header);
        return;
    default:
        add_recipient_value(b, t, v);
    }
}

/* The line with its values. False: it names variables, and all are empty. */
static bool fill(struct buf *b, const struct telling *t, struct span line) {
    struct span piece;
    enum dsn_variable v;
    bool named = false, said = false;
    while (dsn_template_piece(&line, &piece, &v)) {
        if (v == DSN_VARIABLES) {
            buf_add(b, piece);
            continue;
        }
        size_t before = buf_len(b);
        add_message_value(b, t, v);
        named = true;
        said = said || buf_len(b) > before;
    }
    return said || !named;
}

/* -- lines -- */

/* Where the line is to be broken: at a space if there is one, else behind a character. */
static size_t break_at(struct span s, size_t width) {
    if (s.len <= width)
        return s.len;
    size_t n = width;
    while (n > 0 && s.at[n] != ' ')
        n--;
    if (n == 0) /* one long word */
        for (n = width; n < s.len && n < LINE_HARD && s.at[n] != ' ';)
            n++;
    while (n < s.len && n > 1 && ((unsigned char)s.at[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static void put_line(struct telling *t, struct span s) {
    size_t indent = 0;
    while (indent < s.len && indent < LINE_WIDTH / 2 && s.at[indent] == ' ')
        indent++;
    struct span margin = span_first(s, indent);
    s = span_trim(s);
    if (!s.len) { /* several are one, and none stands at the ends */
        t->blank = buf_len(t->to) > 0;
        return;
    }
    if (t->blank)
        buf_add_str(t->to, "\r\n");
    t->blank = false;
    while (s.len) {
        size_t n = break_at(s, LINE_WIDTH - indent);
        buf_add(t->to, margin);
        buf_add(t->to, span_trim(span_first(s, n)));
        buf_add_str(t->to, "\r\n");
        s = span_trim(span_from(s, n));
    }
}

static void tell_line(struct telling *t, struct span line) {
    struct buf filled;
    buf_init(&filled, 65536);
    if (fill(&filled, t, line))
        put_line(t, buf_span(&filled));
    if (filled.err != ERR_OK && t->to->err == ERR_OK)
        t->to->err = filled.err;
    buf_deinit(&filled);
}

/* The lines between {{each}} and {{end}}, for each recipient; rest moves behind {{end}}. */
static void tell_each(struct telling *t, struct span *rest) {
    const struct dsn *d = t->d;
    struct span line, start = *rest;
    for (uint32_t i = 0; i < d->count && i < LISTED_MAX; i++) {
        t->r = &d->recipients[i];
        *rest = start;
        while (dsn_template_line(rest, &line) && !dsn_template_is_end(line))
            tell_line(t, line);
    }
    t->r = NULL;
}

void dsn_add_text(struct buf *b, const struct dsn *d) {
    struct telling t = {.d = d, .words = dsn_words(d->template.language), .to = b};
    struct span line, rest = dsn_template_section(&d->template, d->kind);
    (void)dsn_template_line(&rest, &line); /* the subject */
    while (dsn_template_line(&rest, &line)) {
        if (dsn_template_is_each(line))
            tell_each(&t, &rest);
        else
            tell_line(&t, line);
    }
}

/* -- subject -- */

/* RFC 2047 words of whole characters. */
static void add_encoded(struct buf *b, struct span s) {
    while (s.len) {
        size_t n = s.len < 42 ? s.len : 42;
        while (n < s.len && n > 1 && ((unsigned char)s.at[n] & 0xc0) == 0x80)
            n--;
        struct buf coded;
        buf_init(&coded, 256);
        dsn_add_base64(&coded, span_first(s, n));
        buf_printf(b, "=?UTF-8?B?%.*s?=", SPAN_FMT(span_first(buf_span(&coded), buf_len(&coded) - 2))); /* no CRLF */
        buf_deinit(&coded);
        s = span_from(s, n);
        if (s.len)
            buf_add_byte(b, ' ');
    }
}

void dsn_add_subject(struct buf *b, const struct dsn *d, bool utf8) {
    struct telling t = {.d = d, .words = dsn_words(d->template.language)};
    struct span line = SPAN_EMPTY, rest = dsn_template_section(&d->template, d->kind);
    struct buf filled, value;
    buf_init(&filled, 65536);
    buf_init(&value, 65536);
    (void)dsn_template_line(&rest, &line);
    (void)fill(&filled, &t, span_trim(span_from(line, 8)));
    struct span s = buf_span(&filled);
    s = span_first(s, SUBJECT_MAX);
    while (s.len && !utf8_is_valid(s)) /* cut inside a character */
        s.len--;
    if (utf8 || utf8_is_ascii(s))
        buf_add(&value, s);
    else
        add_encoded(&value, s);
    dsn_add_field_of(b, "Subject", &value);
    buf_deinit(&filled);
}
