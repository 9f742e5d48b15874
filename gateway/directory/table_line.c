/*
 * table_line: cuts a line of a recipients table: comment, name, operator, targets. It judges only
 * the form; whether names are good addresses is judged by table_load.
 *
 * '#' is a letter of local parts too, so it begins a comment only at the start of a line or
 * behind a blank, and never inside quotes.
 */
#include "gateway/directory/table_line.h"

/* 1: may stand in an ASCII dot-string; 2: the same, but smells of relaying; 3: an octet of UTF-8. */
static const unsigned char class_of[256] = {
    ['!'] = 2,         ['#'] = 1, ['$'] = 1,         ['%'] = 2, ['&'] = 1, ['\''] = 1,
    ['*'] = 1,         ['+'] = 1, ['-'] = 1,         ['.'] = 1, ['/'] = 1, ['0' ... '9'] = 1,
    ['='] = 1,         ['?'] = 1, ['A' ... 'Z'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1,
    ['a' ... 'z'] = 1, ['{'] = 1, ['|'] = 1,         ['}'] = 1, ['~'] = 1, [0x80 ... 0xff] = 3,
};

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* One past the closing quote of the quoted string at the start of s; 0: it is not closed. */
static size_t quoted_len(struct span s) {
    for (size_t i = 1; i < s.len; i++) {
        if (s.at[i] == '\\')
            i++;
        else if (s.at[i] == '"')
            return i + 1;
    }
    return 0;
}

static struct span without_comment(struct span s) {
    if (span_find(s, '#') < 0)
        return s;
    bool quoted = false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (c == '#' && !quoted && (i == 0 || is_blank(s.at[i - 1])))
            return span_first(s, i);
    }
    return s;
}

static struct span skip_blanks(struct span s) {
    while (s.len && is_blank(s.at[0]))
        s = span_from(s, 1);
    return s;
}

/* The local part at the start of *s. */
static const char *cut_local(struct span *s, struct table_line *out) {
    size_t len = 0;
    out->plain = true;
    if (s->at[0] == '"') {
        out->plain = false;
        len = quoted_len(*s);
        if (len == 0)
            return "the quoted string is not closed";
    } else {
        char last = '.';
        for (; len < s->len && class_of[(unsigned char)s->at[len]]; len++) {
            out->plain &= class_of[(unsigned char)s->at[len]] == 1 && !(s->at[len] == '.' && last == '.');
            last = s->at[len];
        }
        out->plain &= last != '.';
    }
    out->local = span_first(*s, len);
    *s = span_from(*s, len);
    return NULL;
}

static const char *cut_name(struct span *s, struct table_line *out) {
    const char *problem = s->at[0] == '@' ? NULL : cut_local(s, out);
    if (problem || s->len == 0 || s->at[0] != '@') {
        if (!problem && out->local.len == 0)
            return "a name is expected here";
        return problem;
    }
    *s = span_from(*s, 1);
    size_t len = 0;
    while (len < s->len && !is_blank(s->at[len]) && s->at[len] != ':' && s->at[len] != '>')
        len++;
    out->catch_all = out->local.at == NULL;
    out->domain = span_first(*s, len);
    *s = span_from(*s, len);
    if (!out->catch_all && out->local.len == 0)
        return "a name is expected before '@'";
    return len ? NULL : "a domain is expected behind '@'";
}

static const char *cut_operator(struct span *s, struct table_line *out) {
    size_t len = 1;
    if (s->at[0] == ':') {
        out->kind = TABLE_ALIAS;
    } else if (s->at[0] == '>') {
        len = s->len > 1 && s->at[1] == '>' ? 2 : 1;
        out->kind = len == 2 ? TABLE_FORWARD_KEEP : TABLE_FORWARD;
    } else {
        return "behind the name, only ':', '>', '>>' or a comment is expected";
    }
    out->targets = span_trim(span_from(*s, len));
    return out->targets.len ? NULL : "no targets";
}

const char *table_line_cut(struct span line, struct table_line *out) {
    *out = (struct table_line){.kind = TABLE_MAILBOX};
    if (line.len && line.at[line.len - 1] == '\r')
        line.len--;
    struct span s = span_trim(without_comment(line));
    if (s.len == 0) {
        out->empty = true;
        return NULL;
    }
    const char *problem = cut_name(&s, out);
    if (problem)
        return problem;
    s = skip_blanks(s);
    return s.len ? cut_operator(&s, out) : NULL;
}

bool table_next_target(struct span *targets, struct span *target) {
    struct span s = *targets;
    bool quoted = false;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (quoted && s.at[i] == '\\') {
            i++;
        } else if (s.at[i] == '"') {
            quoted = !quoted;
        } else if (s.at[i] == ',' && !quoted) {
            *target = span_trim(span_first(s, i));
            *targets = skip_blanks(span_from(s, i + 1));
            return true;
        }
    }
    *target = span_trim(s);
    *targets = SPAN_EMPTY;
    return true;
}

bool table_target_has_domain(struct span target) {
    size_t from = target.len && target.at[0] == '"' ? quoted_len(target) : 0;
    return span_find(span_from(target, from), '@') >= 0;
}
