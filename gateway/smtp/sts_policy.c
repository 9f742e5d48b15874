/*
 * sts_policy: see sts_policy.h. A policy is read twice: the first pass judges every line and counts, the second fills
 * one block of memory that holds the struct, its pointers and its texts, so that a policy is one allocation and one
 * free.
 */
#include <stdlib.h>

#include "gateway/smtp/sts_policy.h"

enum { HOST_MAX = 253, LABEL_MAX = 63, EXTENSION_MAX = 32 };

static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

static bool span_starts(struct span s, struct span prefix) {
    return s.len >= prefix.len && memcmp(s.at, prefix.at, prefix.len) == 0;
}

/* -- the TXT record -- */

static bool is_id(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (!is_alnum(s.at[i]))
            return false;
    return s.len >= 1 && s.len <= STS_ID_MAX;
}

static bool is_extension_name(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (!is_alnum(s.at[i]) && (i == 0 || !strchr("_-.", s.at[i])))
            return false;
    return s.len >= 1 && s.len <= EXTENSION_MAX;
}

static bool is_extension_value(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] < 0x21 || s.at[i] > 0x7e || s.at[i] == ';' || s.at[i] == '=')
            return false;
    return s.len > 0;
}

int sts_record_parse(struct span txt, struct span *id) {
    struct span rest, version = span_cut(txt, ';', &rest);
    *id = SPAN_EMPTY;
    if (!span_starts(txt, SPAN("v=STSv1")) || version.len == txt.len || span_trim(span_from(version, 7)).len)
        return ERR_NOT_FOUND;
    while (rest.len) {
        struct span next, field = span_trim(span_cut(rest, ';', &next)), value, name = span_cut(field, '=', &value);
        bool last = field.len == 0 && next.len == 0; /* one delimiter may end the record */
        rest = next;
        if (last)
            break;
        if (name.len == field.len || !is_extension_name(name))
            return ERR_INVALID;
        if (!span_eq(name, SPAN("id"))) {
            if (!is_extension_value(value))
                return ERR_INVALID;
        } else if (!is_id(value) || id->len) {
            return ERR_INVALID;
        } else {
            *id = value;
        }
    }
    return id->len ? ERR_OK : ERR_INVALID;
}

/* -- the policy -- */

struct draft { /* what the first pass found */
    bool has_version, has_mode, has_age;
    enum sts_mode mode;
    uint32_t max_age_s;
    size_t mx_count, line_count, text_len; /* text_len: of lines and patterns with their NULs */
    const char *why;
};

static bool is_host(struct span s) {
    struct span label;
    if (s.len == 0 || s.len > HOST_MAX || s.at[s.len - 1] == '.')
        return false;
    while (s.len) {
        label = span_cut(s, '.', &s);
        if (label.len == 0 || label.len > LABEL_MAX || label.at[0] == '-' || label.at[label.len - 1] == '-')
            return false;
        for (size_t i = 0; i < label.len; i++)
            if (!is_alnum(label.at[i]) && label.at[i] != '-' && label.at[i] != '_')
                return false;
    }
    return true;
}

static bool is_pattern(struct span s) {
    return is_host(span_starts(s, SPAN("*.")) ? span_from(s, 2) : s);
}

/* The next line that is not empty, trimmed. False: no more. */
static bool next_line(struct span *text, struct span *line) {
    while (text->len) {
        *line = span_cut(*text, '\n', text);
        if (line->len && line->at[line->len - 1] == '\r')
            line->len--;
        *line = span_trim(*line);
        if (line->len)
            return true;
    }
    return false;
}

static bool read_age(struct span value, uint32_t *age) {
    uint64_t n;
    if (value.len > 10 || !span_u64(value, &n))
        return false;
    *age = n > STS_MAX_AGE_S_MAX ? STS_MAX_AGE_S_MAX : (uint32_t)n;
    return true;
}

static bool read_mode(struct span value, enum sts_mode *mode) {
    for (int m = STS_NONE; m <= STS_ENFORCE; m++)
        if (span_eq(value, span_of(sts_mode_name((enum sts_mode)m)))) {
            *mode = (enum sts_mode)m;
            return true;
        }
    return false;
}

/* A field that is not repeatable counts once: the first. NULL, or what is wrong. */
static const char *take_field(struct draft *d, struct span name, struct span value) {
    if (span_eq(name, SPAN("mx"))) {
        d->mx_count++;
        d->text_len += value.len + 1;
        return !is_pattern(value) ? "a bad mx pattern" : d->mx_count > STS_MX_MAX ? "too many mx patterns" : NULL;
    }
    if (span_eq(name, SPAN("version")) && !d->has_version) {
        d->has_version = true;
        return span_eq(value, SPAN("STSv1")) ? NULL : "a version other than STSv1";
    }
    if (span_eq(name, SPAN("mode")) && !d->has_mode) {
        d->has_mode = true;
        return read_mode(value, &d->mode) ? NULL : "a bad mode";
    }
    if (span_eq(name, SPAN("max_age")) && !d->has_age) {
        d->has_age = true;
        return read_age(value, &d->max_age_s) ? NULL : "a bad max_age";
    }
    return is_extension_name(name) ? NULL : "a bad field name";
}

static bool has_control(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.at[i] < 0x20 && s.at[i] != '\t') || s.at[i] == 0x7f)
            return true;
    return false;
}

static const char *judge(struct draft *d, struct span text) {
    struct span line, value;
    while (next_line(&text, &line)) {
        struct span name = span_cut(line, ':', &value);
        if (has_control(line))
            return "control characters";
        if (name.len == line.len)
            return "a line that is no field";
        if (++d->line_count > STS_LINES_MAX)
            return "too many lines";
        d->text_len += line.len + 1;
        const char *why = take_field(d, name, span_trim(value));
        if (why)
            return why;
    }
    if (!d->has_version || !d->has_mode || !d->has_age)
        return !d->has_version ? "no version" : !d->has_mode ? "no mode" : "no max_age";
    return d->mode != STS_NONE && d->mx_count == 0 ? "no mx" : NULL;
}

static char *put(char *to, struct span s, bool lowered) {
    for (size_t i = 0; i < s.len; i++)
        to[i] = lowered ? lower(s.at[i]) : s.at[i];
    to[s.len] = '\0';
    return to + s.len + 1;
}

static void fill(struct sts_policy *p, const char **pointers, char *texts, struct span text) {
    struct span line, value;
    const char **mx = pointers, **lines = pointers + p->mx_count;
    p->mx = mx;
    p->lines = lines;
    while (next_line(&text, &line)) {
        *lines++ = texts;
        texts = put(texts, line, false);
        if (!span_eq(span_cut(line, ':', &value), SPAN("mx")))
            continue;
        *mx++ = texts;
        texts = put(texts, span_trim(value), true);
    }
}

int sts_policy_parse(struct sts_policy **out, struct span text, struct span id, uint64_t wall_ms, const char **why) {
    struct draft d = {0};
    *out = NULL;
    *why = text.len > STS_TEXT_MAX ? "too long" : !is_id(id) ? "a bad id" : judge(&d, text);
    if (*why)
        return text.len > STS_TEXT_MAX ? ERR_RANGE : ERR_INVALID;
    *why = "";
    size_t count = d.mx_count + d.line_count, bytes = sizeof **out + count * sizeof(char *) + d.text_len;
    struct sts_policy *p = calloc(1, bytes);
    if (!p)
        return ERR_NOMEM;
    *p = (struct sts_policy){.refs = 1,
                             .mode = d.mode,
                             .max_age_s = d.max_age_s,
                             .fetched_ms = wall_ms,
                             .expires_ms = wall_ms + d.max_age_s * (uint64_t)1000,
                             .mx_count = d.mx_count,
                             .line_count = d.line_count,
                             .bytes = bytes};
    span_copy(id, p->id, sizeof p->id);
    const char **pointers = (const char **)(p + 1);
    fill(p, pointers, (char *)(pointers + count), text);
    *out = p;
    return ERR_OK;
}

struct sts_policy *sts_policy_ref(struct sts_policy *p) {
    if (p)
        p->refs++;
    return p;
}

void sts_policy_unref(struct sts_policy *p) {
    if (p && --p->refs == 0)
        free(p);
}

bool sts_allows(const struct sts_policy *p, const char *host) {
    struct span name = span_of(host);
    if (name.len && name.at[name.len - 1] == '.')
        name.len--;
    ptrdiff_t dot = span_find(name, '.');
    for (size_t i = 0; i < p->mx_count; i++) {
        struct span pattern = span_of(p->mx[i]);
        bool wild = span_starts(pattern, SPAN("*."));
        if (wild ? dot > 0 && span_eq_nocase(span_from(name, (size_t)dot), span_from(pattern, 1))
                 : span_eq_nocase(name, pattern))
            return true;
    }
    return false;
}

const char *sts_mode_name(enum sts_mode m) {
    static const char *const names[] = {"none", "testing", "enforce"};
    return names[m];
}
