/*
 * reply: the parser of replies.
 *
 * The codes of a multi-line reply must agree in their first digit, since that digit decides;
 * the last line's code is taken. Where they do not agree, there is no telling what the server
 * meant: that is no reply. A line may end in LF alone: here nothing can be smuggled, since a
 * reply is never passed on as it came.
 */
#include "gateway/smtp/reply.h"

void reply_init(struct reply_parser *p) {
    p->on_line = NULL;
    p->arg = NULL;
    p->ended = true;
}

static void start(struct reply_parser *p) {
    p->ended = false;
    p->octets = p->lines = 0;
    p->line_len = 0;
    p->reply.code = 0;
    p->reply.text_len = 0;
    p->reply.text[0] = p->reply.enhanced[0] = '\0';
}

static void add_text(struct reply *r, struct span text) {
    for (size_t i = 0; i < text.len && r->text_len < REPLY_TEXT_MAX; i++) {
        unsigned char c = (unsigned char)text.at[i];
        r->text[r->text_len++] = c == '\t' ? ' ' : (c < 0x20 || c > 0x7e) ? '?' : (char)c;
    }
    r->text[r->text_len] = '\0';
}

static size_t digits(struct span s, size_t max) {
    size_t n = 0;
    while (n < s.len && n <= max && s.at[n] >= '0' && s.at[n] <= '9')
        n++;
    return n >= 1 && n <= max ? n : 0;
}

bool reply_enhanced(struct span text, unsigned code, size_t *len) {
    if (text.len < 5 || text.at[0] != (char)('0' + code / 100) || text.at[1] != '.')
        return false;
    if (text.at[0] != '2' && text.at[0] != '4' && text.at[0] != '5')
        return false;
    size_t subject = digits(span_from(text, 2), 3);
    size_t dot = 2 + subject;
    if (!subject || dot >= text.len || text.at[dot] != '.')
        return false;
    size_t detail = digits(span_from(text, dot + 1), 3);
    size_t end = dot + 1 + detail;
    if (!detail || (end < text.len && text.at[end] != ' ' && text.at[end] != '\t'))
        return false;
    *len = end;
    return true;
}

/* Adds one line's text; the enhanced code is named once, not in every line. */
static void take_text(struct reply *r, struct span text, bool first) {
    size_t len;
    bool has = reply_enhanced(text, r->code, &len);
    if (first && has)
        span_copy(span_first(text, len), r->enhanced, sizeof r->enhanced);
    if (!first && has && span_eq(span_first(text, len), span_of(r->enhanced)))
        text = span_from(text, len);
    text = span_trim(text);
    if (r->text_len && text.len)
        add_text(r, SPAN(" "));
    add_text(r, text);
}

static enum reply_status broken(struct reply_parser *p, struct span why, struct span line) {
    p->ended = true;
    p->reply.code = 0;
    p->reply.text_len = 0;
    p->reply.enhanced[0] = '\0';
    add_text(&p->reply, why);
    add_text(&p->reply, span_trim(line));
    return REPLY_BROKEN;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* One line without its LF. */
static enum reply_status take_line(struct reply_parser *p, struct span line) {
    struct reply *r = &p->reply;
    if (line.len && line.at[line.len - 1] == '\r')
        line.len--;
    if (line.len < 3 || !is_digit(line.at[0]) || !is_digit(line.at[1]) || !is_digit(line.at[2]))
        return broken(p, SPAN("not a reply: "), line);
    if (line.len > 3 && line.at[3] != ' ' && line.at[3] != '-')
        return broken(p, SPAN("not a reply: "), line);
    unsigned code =
        (unsigned)(line.at[0] - '0') * 100u + (unsigned)(line.at[1] - '0') * 10u + (unsigned)(line.at[2] - '0');
    if (p->lines && code / 100 != reply_class(r))
        return broken(p, SPAN("reply with mixed codes: "), line);
    bool first = p->lines == 0;
    r->code = (uint16_t)code;
    struct span text = span_from(line, 4);
    take_text(r, text, first);
    if (p->on_line)
        p->on_line(p->arg, p->lines, text);
    p->lines++;
    if (line.len > 3 && line.at[3] == '-')
        return REPLY_MORE;
    p->ended = true;
    return REPLY_DONE;
}

/* Keeps what a line can hold. */
static void keep(struct reply_parser *p, struct span part) {
    size_t room = REPLY_LINE_MAX - p->line_len;
    size_t n = part.len < room ? part.len : room;
    if (n) {
        memcpy(p->line + p->line_len, part.at, n);
        p->line_len = (uint16_t)(p->line_len + n);
    }
}

size_t reply_feed(struct reply_parser *p, struct span in, enum reply_status *status) {
    size_t used = 0;
    *status = REPLY_MORE;
    while (used < in.len) {
        if (p->ended)
            start(p);
        struct span rest = span_from(in, used);
        const char *lf = memchr(rest.at, '\n', rest.len);
        size_t len = lf ? (size_t)(lf - rest.at) + 1 : rest.len;
        used += len;
        p->octets += (uint32_t)(len <= REPLY_OCTETS_MAX ? len : REPLY_OCTETS_MAX + 1);
        if (p->octets > REPLY_OCTETS_MAX) {
            struct span begun = p->line_len ? span_make(p->line, p->line_len) : rest;
            *status = broken(p, SPAN("reply too long: "), span_first(begun, 80));
            return used;
        }
        if (!lf) {
            keep(p, rest);
            return used;
        }
        if (p->line_len) {
            keep(p, span_first(rest, len - 1));
            *status = take_line(p, span_make(p->line, p->line_len));
        } else {
            *status = take_line(p, span_first(rest, len - 1 < REPLY_LINE_MAX ? len - 1 : REPLY_LINE_MAX));
        }
        p->line_len = 0;
        if (*status != REPLY_MORE)
            return used;
    }
    return used;
}
