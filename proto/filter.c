/*
 * filter: see filter.h. A filter is a short list of terms over a copy of its text.
 */
#include "proto/filter.h"

#include <stdlib.h>
#include <string.h>

#include "base/base32.h"
#include "base/units.h"

enum term_kind { TERM_TO, TERM_FROM, TERM_DOMAIN, TERM_SITE, TERM_STATE, TERM_OLDER, TERM_ID };
struct term {
    enum term_kind kind;
    struct span text;
    uint64_t number;
};
struct filter {
    struct term terms[FILTER_TERMS_MAX];
    size_t count;
    char text[FILTER_TEXT_MAX];
};

static const struct {
    const char *name;
    enum term_kind kind;
} term_names[] = {
    {"to", TERM_TO},       {"from", TERM_FROM},   {"domain", TERM_DOMAIN}, {"site", TERM_SITE},
    {"state", TERM_STATE}, {"older", TERM_OLDER}, {"id", TERM_ID},
};

static const char *const state_names[] = {[1] = "ready",  [2] = "assigned", [3] = "deferred", [4] = "delivered",
                                          [5] = "failed", [6] = "settled",  [7] = "held"};
#define STATES (sizeof state_names / sizeof *state_names)

const char *filter_state_name(uint32_t state) {
    return state > 0 && state < STATES ? state_names[state] : "?";
}

static int parse_value(struct term *t, const char **problem) {
    switch (t->kind) {
    case TERM_STATE:
        for (uint32_t i = 1; i < STATES; i++)
            if (span_eq_nocase(t->text, span_of(state_names[i])))
                t->number = i;
        *problem = "state: takes ready, assigned, deferred, delivered, failed or held";
        return t->number ? ERR_OK : ERR_INVALID;
    case TERM_OLDER:
        *problem = "older: takes a duration such as 30m, 4h or 2d";
        return units_duration(t->text, &t->number);
    case TERM_ID:
        *problem = "id: takes a message id of 13 characters";
        return base32_decode(t->text, &t->number) && t->number ? ERR_OK : ERR_INVALID;
    default:
        *problem = "a value is missing behind the colon";
        return t->text.len ? ERR_OK : ERR_INVALID;
    }
}

static int parse_term(struct term *t, struct span name, struct span value, const char **problem) {
    *problem = "unknown term; known are to: from: domain: site: state: older: id:";
    for (size_t i = 0; i < sizeof term_names / sizeof *term_names; i++) {
        if (!span_eq(name, span_of(term_names[i].name)))
            continue;
        *t = (struct term){.kind = term_names[i].kind, .text = value};
        return parse_value(t, problem);
    }
    return ERR_INVALID;
}

/* A value ends at a space that is not inside quotes; a local part may have quotes of its own, and a backslash in them.
 * False: the quotes do not end. */
static bool value_ends(struct span rest, size_t *len) {
    bool quoted = false;
    size_t i = 0;
    for (; i < rest.len && (quoted || rest.at[i] != ' '); i++) {
        if (rest.at[i] == '"')
            quoted = !quoted;
        else if (quoted && rest.at[i] == '\\' && i + 1 < rest.len)
            i++;
    }
    *len = i;
    return !quoted;
}

/* Quotes round a whole value are the grammar's; "odd name"@example.net keeps its own. */
static struct span unquoted(struct span value) {
    struct span inner = span_from(value, 1);
    ptrdiff_t end = value.len && value.at[0] == '"' ? span_find(inner, '"') : -1;
    return end >= 0 && (size_t)end + 1 == inner.len ? span_first(inner, (size_t)end) : value;
}

/* Cuts the next name:value off the rest. */
static int next_term(struct span *rest, struct span *name, struct span *value, const char **problem) {
    ptrdiff_t colon = span_find(*rest, ':');
    *problem = "a term has the form name:value";
    if (colon <= 0 || span_find(span_first(*rest, (size_t)colon), ' ') >= 0)
        return ERR_INVALID;
    *name = span_first(*rest, (size_t)colon);
    *rest = span_from(*rest, (size_t)colon + 1);
    size_t len;
    if (!value_ends(*rest, &len)) {
        *problem = "a quoted value does not end";
        return ERR_INVALID;
    }
    *value = unquoted(span_first(*rest, len));
    *rest = span_from(*rest, len);
    *rest = span_trim(*rest);
    return ERR_OK;
}

static int parse_all(struct filter *f, struct span rest, const char **problem) {
    while (rest.len) {
        struct span name, value;
        if (f->count == FILTER_TERMS_MAX) {
            *problem = "too many terms";
            return ERR_FULL;
        }
        int err = next_term(&rest, &name, &value, problem);
        if (err == ERR_OK)
            err = parse_term(&f->terms[f->count++], name, value, problem);
        if (err != ERR_OK)
            return err;
    }
    *problem = NULL;
    return ERR_OK;
}

int filter_parse(struct filter **out, struct span text, const char **problem) {
    *problem = "too long";
    *out = NULL;
    if (text.len >= FILTER_TEXT_MAX)
        return ERR_FULL;
    struct filter *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    memcpy(f->text, text.at ? text.at : "", text.len);
    int err = parse_all(f, span_trim(span_make(f->text, text.len)), problem);
    if (err != ERR_OK) {
        free(f);
        return err;
    }
    *out = f;
    return ERR_OK;
}

static bool address_matches(struct span address, struct span wanted) {
    if (span_eq(wanted, SPAN("<>")))
        return address.len == 0;
    if (wanted.at[0] == '@')
        return span_ends_nocase(address, wanted);
    return span_eq_nocase(address, wanted);
}

static bool domain_matches(struct span domain, struct span wanted) {
    if (wanted.at[0] == '.')
        return span_ends_nocase(domain, wanted);
    return span_eq_nocase(domain, wanted);
}

static bool term_matches(const struct term *t, const struct filter_subject *s, uint64_t now_ms) {
    switch (t->kind) {
    case TERM_TO:
        return address_matches(s->recipient, t->text);
    case TERM_FROM:
        return address_matches(s->sender, t->text);
    case TERM_DOMAIN:
        return domain_matches(s->destination, t->text);
    case TERM_SITE:
        return span_eq_nocase(s->site, t->text);
    case TERM_STATE:
        return s->state == t->number;
    case TERM_OLDER:
        return s->received_ms + t->number <= now_ms;
    case TERM_ID:
        return s->message == t->number;
    }
    return false;
}

bool filter_matches(const struct filter *f, const struct filter_subject *s, uint64_t now_ms) {
    for (size_t i = 0; i < f->count; i++)
        if (!term_matches(&f->terms[i], s, now_ms))
            return false;
    return true;
}

bool filter_may_match(const struct filter *f, const struct filter_subject *s, uint64_t now_ms) {
    for (size_t i = 0; i < f->count; i++) {
        enum term_kind kind = f->terms[i].kind;
        if (kind != TERM_STATE && kind != TERM_SITE && !term_matches(&f->terms[i], s, now_ms))
            return false;
    }
    return true;
}

uint64_t filter_id(const struct filter *f) {
    for (size_t i = 0; i < f->count; i++)
        if (f->terms[i].kind == TERM_ID)
            return f->terms[i].number;
    return 0;
}

struct span filter_site(const struct filter *f) {
    for (size_t i = 0; i < f->count; i++)
        if (f->terms[i].kind == TERM_SITE)
            return f->terms[i].text;
    return SPAN_EMPTY;
}

void filter_free(struct filter *f) {
    free(f);
}
