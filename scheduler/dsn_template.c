/*
 * dsn_template: see dsn_template.h. Reading, checking and choosing; filling in is dsn_text.c.
 *
 * The syntax is small on purpose: sections, variables, one loop. What a line should say only sometimes is told by its
 * variables: a line whose variables are all empty is left out.
 */
#include "scheduler/dsn_template.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "scheduler/dsn_words.h"

static const char *const section_names[] = {"[failure]", "[delay]", "[success]"}; /* by enum dsn_kind */
static const char *const variable_names[DSN_VARIABLES] = {
    [DSN_VAR_RECIPIENT] = "recipient", [DSN_VAR_ORIGINAL] = "original",
    [DSN_VAR_STATUS] = "status",       [DSN_VAR_HOST] = "host",
    [DSN_VAR_ADVICE] = "advice",       [DSN_VAR_REASON] = "reason",
    [DSN_VAR_HOSTNAME] = "hostname",   [DSN_VAR_POSTMASTER] = "postmaster",
    [DSN_VAR_SENDER] = "sender",       [DSN_VAR_TIME] = "time",
    [DSN_VAR_WAITED] = "waited",       [DSN_VAR_EXPIRES] = "expires",
    [DSN_VAR_ENVID] = "envid",         [DSN_VAR_MORE] = "more",
    [DSN_VAR_ATTACHED] = "attached",
};

/* -- lines and pieces -- */

bool dsn_template_line(struct span *rest, struct span *line) {
    if (!rest->len)
        return false;
    ptrdiff_t end = span_find(*rest, '\n');
    size_t len = end < 0 ? rest->len : (size_t)end;
    *line = span_first(*rest, len);
    *rest = span_from(*rest, end < 0 ? len : len + 1);
    while (line->len && (line->at[line->len - 1] == '\r' || line->at[line->len - 1] == ' '))
        line->len--;
    return true;
}

static int section_of(struct span line) {
    for (int i = 0; i < 3; i++)
        if (span_eq(line, span_of(section_names[i])))
            return i;
    return -1;
}

bool dsn_template_is_each(struct span line) {
    return span_eq(span_trim(line), SPAN("{{each}}"));
}

bool dsn_template_is_end(struct span line) {
    return span_eq(span_trim(line), SPAN("{{end}}"));
}

static enum dsn_variable variable_of(struct span name) {
    int v = 0;
    name = span_trim(name);
    while (v < DSN_VARIABLES && !span_eq(name, span_of(variable_names[v])))
        v++;
    return (enum dsn_variable)v;
}

/* Where the text begins; at its end: nowhere. */
static size_t find_text(struct span s, const char *text) {
    const char *at = s.len ? memmem(s.at, s.len, text, 2) : NULL;
    return at ? (size_t)(at - s.at) : s.len;
}

bool dsn_template_piece(struct span *line, struct span *piece, enum dsn_variable *v) {
    *v = DSN_VARIABLES;
    if (!line->len)
        return false;
    size_t open = find_text(*line, "{{");
    if (open == 0) {
        size_t close = find_text(*line, "}}");
        struct span name = close > 2 && close < line->len ? span_first(span_from(*line, 2), close - 2) : SPAN_EMPTY;
        *v = variable_of(name);
        size_t used = *v < DSN_VARIABLES ? close + 2 : 2;
        *piece = span_first(*line, used);
        *line = span_from(*line, used);
        return true;
    }
    *piece = span_first(*line, open);
    *line = span_from(*line, open);
    return true;
}

static bool find_section(struct span text, enum dsn_kind kind, struct span *out) {
    struct span rest = text, line, found = SPAN_EMPTY;
    bool inside = false;
    while (dsn_template_line(&rest, &line)) {
        if (section_of(line) < 0)
            continue;
        if (inside) {
            *out = span_first(found, (size_t)(line.at - found.at));
            return true;
        }
        inside = section_of(line) == (int)kind;
        found = rest;
    }
    *out = found;
    return inside;
}

struct span dsn_template_section(const struct dsn_template *t, enum dsn_kind kind) {
    struct span section = SPAN_EMPTY;
    if (!t->text.len || !find_section(t->text, kind, &section))
        (void)find_section(span_of(dsn_words(t->language)->text), kind, &section);
    return section;
}

/* -- checking -- */

struct check {
    const char *name;
    struct buf *problems;
    unsigned line;
    int section; /* -1: before the first */
    bool seen[3], subject, each, bad;
};

static void complain(struct check *c, const char *what, struct span shown) {
    c->bad = true;
    buf_printf(c->problems, "%s:%u: %s", c->name, c->line, what);
    if (shown.len) {
        buf_add_str(c->problems, ": ");
        buf_add_escaped(c->problems, span_first(shown, 80));
    }
    buf_add_str(c->problems, "\n");
}

static void check_variables(struct check *c, struct span line) {
    while (line.len) {
        size_t open = find_text(line, "{{"), close = find_text(line, "}}");
        if (open == line.len && close == line.len)
            return;
        if (close < open || close == line.len) {
            complain(c, close == line.len ? "{{ without }}" : "}} without {{", line);
            return;
        }
        struct span name = span_first(span_from(line, open + 2), close - open - 2);
        enum dsn_variable v = variable_of(name);
        if (v == DSN_VARIABLES)
            complain(c, "no such variable (or {{each}}, {{end}} not alone on its line)", name);
        else if (v <= DSN_VAR_REASON && !c->each)
            complain(c, "tells of one recipient: it belongs between {{each}} and {{end}}", name);
        line = span_from(line, close + 2);
    }
}

static void end_section(struct check *c) {
    if (c->section >= 0 && !c->subject)
        complain(c, "a section without \"Subject:\"", span_of(section_names[c->section]));
    if (c->each)
        complain(c, "{{each}} without {{end}}", SPAN_EMPTY);
    c->each = c->subject = false;
}

static void check_subject(struct check *c, struct span line) {
    struct span value = span_starts_nocase(line, SPAN("Subject:")) ? span_trim(span_from(line, 8)) : SPAN_EMPTY;
    if (!value.len)
        complain(c, "a section begins with \"Subject: TEXT\"", line);
    else if (value.len > 200)
        complain(c, "the subject is longer than 200 octets", SPAN_EMPTY);
    check_variables(c, value);
    c->subject = true;
}

static void check_octets(struct check *c, struct span line) {
    if (!utf8_is_valid(line))
        complain(c, "not UTF-8", line);
    if (line.len > DSN_TEMPLATE_LINE_MAX)
        complain(c, "the line is longer than 900 octets", SPAN_EMPTY);
    for (size_t i = 0; i < line.len; i++) {
        if ((unsigned char)line.at[i] < 32 || line.at[i] == 127) {
            complain(c, "a control character", line);
            return;
        }
    }
}

static void check_line(struct check *c, struct span line) {
    int section = section_of(line);
    check_octets(c, line);
    if (section >= 0) {
        end_section(c);
        if (c->seen[section])
            complain(c, "the section stands twice", line);
        c->seen[section] = true;
        c->section = section;
    } else if (c->section < 0 && (!line.len || line.at[0] == '#')) {
        return; /* a remark at the top */
    } else if (c->section < 0) {
        complain(c, "text before [failure], [delay] or [success]", line);
    } else if (!c->subject) {
        check_subject(c, line);
    } else if (dsn_template_is_each(line) || dsn_template_is_end(line)) {
        if (c->each == dsn_template_is_each(line))
            complain(c, c->each ? "{{each}} inside {{each}}" : "{{end}} without {{each}}", SPAN_EMPTY);
        c->each = dsn_template_is_each(line);
    } else {
        check_variables(c, line);
    }
}

int dsn_template_check(const char *name, struct span text, struct buf *problems) {
    struct check c = {.name = name, .problems = problems, .section = -1};
    struct span line, rest = text;
    if (text.len > DSN_TEMPLATE_MAX) {
        complain(&c, "longer than 64 KiB", SPAN_EMPTY);
        return ERR_INVALID;
    }
    while (dsn_template_line(&rest, &line)) {
        c.line++;
        check_line(&c, line);
    }
    if (c.section < 0)
        complain(&c, "no section: [failure], [delay] or [success]", SPAN_EMPTY);
    end_section(&c);
    return c.bad ? ERR_INVALID : ERR_OK;
}

/* -- choosing -- */

struct rule {
    struct span domain;
    struct dsn_template template;
};
struct dsn_texts {
    struct arena mem;
    uint32_t refs;
    struct dsn_template others;
    struct rule *rules;
    size_t count;
};

static enum dsn_language language_of(int n) {
    return n >= 0 && n < DSN_LANGUAGES ? (enum dsn_language)n : DSN_ENGLISH;
}

int dsn_texts_new(struct dsn_texts **out, const struct dsn_texts_config *c) {
    struct dsn_texts *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return ERR_NOMEM;
    arena_init(&t->mem, 4096, 0);
    t->refs = 1;
    t->others.language = language_of(c->language);
    t->rules = arena_calloc(&t->mem, c->count + 1, sizeof *t->rules);
    for (; t->rules && t->count < c->count; t->count++) {
        const struct dsn_texts_rule *from = &c->rules[t->count];
        struct rule *to = &t->rules[t->count];
        to->domain = arena_dup(&t->mem, span_of(from->domain));
        to->template = (struct dsn_template){.language = language_of(from->language)};
        if (from->text)
            to->template.text = arena_dup(&t->mem, span_of(from->text));
        if (!to->domain.at || (from->text && !to->template.text.at))
            break;
    }
    if (!t->rules || t->count < c->count) {
        dsn_texts_unref(t);
        return ERR_NOMEM;
    }
    *out = t;
    return ERR_OK;
}

struct dsn_texts *dsn_texts_ref(struct dsn_texts *t) {
    if (t)
        t->refs++;
    return t;
}

void dsn_texts_unref(struct dsn_texts *t) {
    if (!t || --t->refs)
        return;
    arena_deinit(&t->mem);
    free(t);
}

/* How well the rule fits: 0 not at all. */
static size_t fit(struct span rule, struct span domain) {
    if (span_eq(rule, SPAN("*")))
        return 1;
    if (span_eq_nocase(rule, domain))
        return SIZE_MAX;
    if (rule.len < 2 || rule.at[0] != '.')
        return 0;
    return span_eq_nocase(span_from(rule, 1), domain) || (domain.len > rule.len && span_ends_nocase(domain, rule))
               ? rule.len
               : 0;
}

struct dsn_template dsn_texts_for(const struct dsn_texts *t, struct span sender) {
    struct dsn_template best = t ? t->others : (struct dsn_template){.language = DSN_ENGLISH};
    ptrdiff_t at = span_rfind(sender, '@');
    struct span domain = at < 0 ? SPAN_EMPTY : span_from(sender, (size_t)at + 1);
    size_t most = 0;
    for (size_t i = 0; t && i < t->count; i++) {
        size_t n = fit(t->rules[i].domain, domain);
        if (n > most) {
            most = n;
            best = t->rules[i].template;
        }
    }
    return best;
}
