/*
 * dsn_auto: see dsn_auto.h. Reads three fields of a header, folded as they may be; stops at the empty line, or after
 * HEADER_MAX octets.
 */
#include "scheduler/dsn_auto.h"

#include <string.h>

#define HEADER_MAX 262144u

const char *dsn_auto_name(enum dsn_auto kind) {
    static const char *const names[DSN_AUTO_KINDS] = {"none", "feedback", "report", "auto_submitted", "precedence"};
    return (unsigned)kind < DSN_AUTO_KINDS ? names[kind] : names[0];
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct span skip_space(struct span s) {
    while (s.len && is_space(s.at[0]))
        s = span_from(s, 1);
    return s;
}

/* Behind space and comments, which nest. */
static struct span skip_comments(struct span s) {
    for (s = skip_space(s); s.len && s.at[0] == '('; s = skip_space(s)) {
        size_t depth = 0, i = 0;
        do {
            if (s.at[i] == '\\' && i + 1 < s.len)
                i++;
            else if (s.at[i] == '(')
                depth++;
            else if (s.at[i] == ')')
                depth--;
            i++;
        } while (depth && i < s.len);
        s = span_from(s, i);
    }
    return s;
}

static struct span first_token(struct span s) {
    size_t n = 0;
    s = skip_comments(s);
    while (n < s.len && !is_space(s.at[n]) && s.at[n] != ';' && s.at[n] != '(')
        n++;
    return span_first(s, n);
}

/* The parameter report-type of a Content-Type is feedback-report. */
static bool is_feedback(struct span value) {
    while (value.len) {
        ptrdiff_t next = span_find(value, ';');
        if (next < 0)
            return false;
        value = skip_comments(span_from(value, (size_t)next + 1));
        if (!span_starts_nocase(value, SPAN("report-type")))
            continue;
        struct span s = skip_comments(span_from(value, 11));
        if (!s.len || s.at[0] != '=')
            continue;
        s = skip_comments(span_from(s, 1));
        if (s.len && s.at[0] == '"')
            s = span_from(s, 1);
        return span_starts_nocase(s, SPAN("feedback-report"));
    }
    return false;
}

static enum dsn_auto judge(struct span name, struct span value) {
    struct span word = first_token(value);
    if (span_eq_nocase(name, SPAN("Content-Type")) && span_eq_nocase(word, SPAN("multipart/report")))
        return is_feedback(value) ? DSN_AUTO_FEEDBACK : DSN_AUTO_REPORT;
    if (span_eq_nocase(name, SPAN("Auto-Submitted")) && word.len && !span_eq_nocase(word, SPAN("no")))
        return DSN_AUTO_SUBMITTED;
    if (span_eq_nocase(name, SPAN("Precedence")) &&
        (span_eq_nocase(word, SPAN("bulk")) || span_eq_nocase(word, SPAN("list")) ||
         span_eq_nocase(word, SPAN("junk"))))
        return DSN_AUTO_PRECEDENCE;
    return DSN_AUTO_NONE;
}

/* The field at the start of s with its folded lines, without the last line end; *rest follows it. */
static struct span next_field(struct span s, struct span *rest) {
    size_t end = 0;
    for (;;) {
        const char *lf = end < s.len ? memchr(s.at + end, '\n', s.len - end) : NULL;
        end = lf ? (size_t)(lf - s.at) + 1 : s.len;
        if (end >= s.len || (s.at[end] != ' ' && s.at[end] != '\t'))
            break;
    }
    *rest = span_from(s, end);
    return span_first(s, end);
}

enum dsn_auto dsn_recognise(struct span content) {
    enum dsn_auto found = DSN_AUTO_NONE;
    struct span rest = span_first(content, HEADER_MAX);
    while (rest.len && rest.at[0] != '\r' && rest.at[0] != '\n') {
        struct span field = next_field(rest, &rest);
        ptrdiff_t colon = span_find(field, ':');
        if (colon <= 0)
            continue;
        enum dsn_auto kind = judge(span_trim(span_first(field, (size_t)colon)), span_from(field, (size_t)colon + 1));
        if (kind != DSN_AUTO_NONE && (found == DSN_AUTO_NONE || kind < found))
            found = kind;
    }
    return found;
}
