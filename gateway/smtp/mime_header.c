/*
 * mime_header: finds the fields of an entity that say how its body is to be read: Content-Type with
 * its boundary, Content-Transfer-Encoding, MIME-Version (RFC 2045). Comments, folding and quoted
 * strings are understood; a field that stands twice or cannot be read makes the entity malformed.
 */
#include "gateway/smtp/mime.h"

/* -- the header -- */

/* Length of the line at the start of s with its LF (or all of it). */
static size_t line_len(struct span s) {
    ptrdiff_t lf = span_find(s, '\n');
    return lf < 0 ? s.len : (size_t)lf + 1;
}

static bool is_empty_line(struct span s, size_t len) {
    return len > 0 && (s.at[0] == '\n' || (s.at[0] == '\r' && len == 2 && s.at[1] == '\n'));
}

/* Length of a field with its continuation lines. */
static size_t field_len(struct span s) {
    size_t len = line_len(s);
    while (len < s.len && (s.at[len] == ' ' || s.at[len] == '\t'))
        len += line_len(span_from(s, len));
    return len;
}

/* -- tokens of a structured field -- */

static bool is_token_char(char c) {
    return c > 0x20 && c < 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

/* Skips spaces, line folds and comments; false: a comment does not end. */
static bool skip_space(struct span *s) {
    int depth = 0;
    while (s->len) {
        char c = s->at[0];
        if (c == '(')
            depth++;
        else if (depth && c == ')')
            depth--;
        else if (depth && c == '\\' && s->len > 1)
            *s = span_from(*s, 1);
        else if (!depth && c != ' ' && c != '\t' && c != '\r' && c != '\n')
            return true;
        *s = span_from(*s, 1);
    }
    return depth == 0;
}

static struct span take_token(struct span *s) {
    size_t n = 0;
    while (n < s->len && is_token_char(s->at[n]))
        n++;
    struct span token = span_first(*s, n);
    *s = span_from(*s, n);
    return token;
}

static bool take_char(struct span *s, char c) {
    if (!skip_space(s) || !s->len || s->at[0] != c)
        return false;
    *s = span_from(*s, 1);
    return skip_space(s);
}

/* A token or quoted string into to (size octets with the NUL); false: malformed or too long. */
static bool take_value(struct span *s, char *to, size_t size) {
    size_t len = 0;
    if (s->len && s->at[0] != '"') {
        struct span token = take_token(s);
        if (!token.len || token.len >= size)
            return false;
        span_copy(token, to, size);
        return true;
    }
    for (*s = span_from(*s, 1); s->len && s->at[0] != '"'; *s = span_from(*s, 1)) {
        if (s->at[0] == '\\')
            *s = span_from(*s, 1);
        if (!s->len || len + 1 >= size)
            return false;
        if (s->at[0] != '\r' && s->at[0] != '\n')
            to[len++] = s->at[0];
    }
    if (!s->len)
        return false;
    *s = span_from(*s, 1);
    to[len] = '\0';
    return true;
}

/* -- the three fields -- */

static bool read_type(struct mime_type *t, struct span s) {
    char value[1024];
    bool bounded = false;
    t->given = true;
    if (!skip_space(&s))
        return false;
    t->type = take_token(&s);
    if (!t->type.len || !take_char(&s, '/'))
        return false;
    t->subtype = take_token(&s);
    if (!t->subtype.len || !skip_space(&s))
        return false;
    while (s.len) {
        if (!take_char(&s, ';'))
            return false;
        if (!s.len)
            break; /* a last ';' with nothing behind it is common and harmless */
        struct span name = take_token(&s);
        if (!name.len || !take_char(&s, '=') || !take_value(&s, value, sizeof value) || !skip_space(&s))
            return false;
        if (!span_eq_nocase(name, SPAN("boundary")))
            continue;
        size_t len = strlen(value);
        if (bounded || len == 0 || len >= sizeof t->boundary || value[len - 1] == ' ')
            return false;
        bounded = true;
        memcpy(t->boundary, value, len + 1);
    }
    return true;
}

static enum mime_encoding read_encoding(struct span s) {
    static const struct {
        const char *name;
        enum mime_encoding encoding;
    } names[] = {{"7bit", MIME_7BIT},
                 {"8bit", MIME_8BIT},
                 {"binary", MIME_BINARY},
                 {"base64", MIME_BASE64},
                 {"quoted-printable", MIME_QP}};
    if (!skip_space(&s))
        return MIME_UNKNOWN;
    struct span token = take_token(&s);
    if (!skip_space(&s) || s.len)
        return MIME_UNKNOWN;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (span_eq_nocase(token, span_of(names[i].name)))
            return names[i].encoding;
    }
    return MIME_UNKNOWN;
}

static int read_field(struct mime_header *h, struct span field, const char **why) {
    struct span value;
    struct span name = span_trim(span_cut(field, ':', &value));
    if (span_eq_nocase(name, SPAN("MIME-Version"))) {
        h->version = true;
    } else if (span_eq_nocase(name, SPAN("Content-Type"))) {
        if (h->type.given || !read_type(&h->type, value)) {
            *why = "a Content-Type field is malformed or stands twice";
            return ERR_INVALID;
        }
    } else if (span_eq_nocase(name, SPAN("Content-Transfer-Encoding"))) {
        if (h->encoding_field.len) {
            *why = "a Content-Transfer-Encoding field stands twice";
            return ERR_INVALID;
        }
        h->encoding_field = field;
        h->encoding = read_encoding(value);
    }
    return ERR_OK;
}

int mime_read_header(struct mime_header *h, struct span entity, const char **why) {
    *h = (struct mime_header){.encoding = MIME_NONE};
    size_t at = 0;
    while (at < entity.len) {
        struct span rest = span_from(entity, at);
        size_t len = line_len(rest);
        if (is_empty_line(rest, len)) {
            h->fields = span_first(entity, at);
            h->body = span_from(entity, at + len);
            return ERR_OK;
        }
        len = field_len(rest);
        int err = read_field(h, span_first(rest, len), why);
        if (err != ERR_OK)
            return err;
        at += len;
    }
    h->fields = entity;
    h->body = span_from(entity, entity.len);
    return ERR_OK;
}
