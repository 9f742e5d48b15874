/*
 * dsn_clean: makes strangers' octets harmless inside a report, and encodes what is not ASCII.
 *
 * A remote reply or an address may hold anything. Inside a field or a paragraph it must stay on its
 * line: control octets are made visible, never passed; length is bounded; folding happens only here,
 * so that a continuation line always begins with a space that we wrote.
 */
#include "base/utf8.h"
#include "scheduler/dsn_part.h"

#define LINE_SOFT 76u
#define LINE_HARD 900u
#define LINE_MAX 998u

static void add_ascii(struct buf *b, struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c < 32 || c > 126)
            buf_printf(b, "\\x%02X", c);
        else
            buf_add_byte(b, (char)c);
    }
}

/* At most `most` octets of s, not ending inside a character. */
static struct span cut(struct span s, size_t most) {
    if (s.len <= most)
        return s;
    s.len = most;
    while (s.len && ((unsigned char)s.at[s.len] & 0xc0) == 0x80 && most - s.len < 4)
        s.len--;
    return s;
}

void dsn_add_clean(struct buf *b, struct span s, size_t most, bool ascii) {
    struct span shown = cut(s, most);
    if (ascii)
        add_ascii(b, shown);
    else
        buf_add_escaped(b, shown);
    if (shown.len < s.len)
        buf_add_str(b, "...");
}

/* How much of s goes on a line that has `used` columns: up to a space if there is one, else to the hard limit. */
static size_t line_part(struct span s, size_t used) {
    size_t room = used < LINE_SOFT ? LINE_SOFT - used : 1;
    if (s.len <= room)
        return s.len;
    for (size_t i = room; i > 0; i--)
        if (s.at[i] == ' ' && s.at[i - 1] != ' ')
            return i;
    for (size_t i = room + 1; i < s.len && i < LINE_HARD; i++)
        if (s.at[i] == ' ')
            return i;
    return s.len < LINE_HARD ? s.len : cut(s, LINE_HARD).len;
}

void dsn_add_field(struct buf *b, const char *name, struct span value) {
    buf_add_str(b, name);
    buf_add_str(b, ": ");
    size_t used = strlen(name) + 2;
    value = span_trim(value);
    for (;;) {
        size_t n = line_part(value, used);
        buf_add(b, span_first(value, n));
        buf_add_str(b, "\r\n");
        value = span_trim(span_from(value, n));
        if (!value.len)
            return;
        buf_add_byte(b, ' ');
        used = 1;
    }
}

void dsn_add_field_of(struct buf *b, const char *name, struct buf *v) {
    dsn_add_field(b, name, buf_span(v));
    if (v->err != ERR_OK && b->err == ERR_OK)
        b->err = v->err;
    buf_deinit(v);
}

void dsn_add_lines(struct buf *b, struct span text) {
    size_t column = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (c == '\r' || c == '\n') {
            if (c == '\r' && i + 1 < text.len && text.at[i + 1] == '\n')
                i++;
            buf_add_str(b, "\r\n");
            column = 0;
            continue;
        }
        if (column == LINE_MAX) {
            buf_add_str(b, "\r\n");
            column = 0;
        }
        buf_add_byte(b, c ? c : '?');
        column++;
    }
    if (column)
        buf_add_str(b, "\r\n");
}

void dsn_add_base64(struct buf *b, struct span octets) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = (const unsigned char *)octets.at;
    for (size_t i = 0; i < octets.len; i += 3) {
        size_t left = octets.len - i;
        uint32_t v = (uint32_t)at[i] << 16 | (left > 1 ? (uint32_t)at[i + 1] << 8 : 0) | (left > 2 ? at[i + 2] : 0u);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=',
                        left > 2 ? digits[v & 63] : '='};
        buf_append(b, four, 4);
        if (i % 57 == 54 && left > 3)
            buf_add_str(b, "\r\n");
    }
    if (octets.len)
        buf_add_str(b, "\r\n");
}

void dsn_add_quoted(struct buf *b, struct span text) {
    size_t column = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (c == '\r' && i + 1 < text.len && text.at[i + 1] == '\n') {
            buf_add_str(b, "\r\n");
            i++;
            column = 0;
            continue;
        }
        bool before_end = i + 1 == text.len || text.at[i + 1] == '\r';
        bool plain = (c > 32 && c < 127 && c != '=') || ((c == ' ' || c == '\t') && !before_end);
        if (column + (plain ? 1 : 3) > LINE_SOFT - 1) {
            buf_add_str(b, "=\r\n");
            column = 0;
        }
        if (plain)
            buf_add_byte(b, (char)c);
        else
            buf_printf(b, "=%02X", c);
        column += plain ? 1 : 3;
    }
    if (column)
        buf_add_str(b, "\r\n");
}
