/*
 * spf_record: what stands between the DNS and libspf2's compiler (see spf.h). The compiler of the Debian version has a
 * known integer underflow when the macros of one term fill its buffer to the brim (CVE-2023-42118), evaluates redirect=
 * where it stands instead of last, and forgets mechanisms over 511 octets of its own form without a word. Records are
 * put in order here, and refused where they come near its limits.
 */
#include <netinet/in.h>
#include <stddef.h>

#include <spf2/spf.h>

#include "gateway/filter/spf.h"

/* Octets in libspf2's form: 4 a macro, 4 and the text a literal, rounded up to 8 to be sure. */
#define TERM_COST_MAX 440
#define TERM_TEXT_MAX 255
#define MECHANISMS_COST_MAX (SPF_MAX_MECH_LEN - 32)

bool spf_record_is(struct span text) {
    struct span version = SPAN("v=spf1");
    return span_starts_nocase(text, version) && (text.len == version.len || text.at[version.len] == ' ');
}

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
}

/* name=... : a modifier. ':' and '/' begin the value of a mechanism. */
static bool is_modifier(struct span term) {
    size_t i = 0;
    while (i < term.len && is_name_char(term.at[i]))
        i++;
    return i > 0 && i < term.len && term.at[i] == '=';
}

static size_t term_cost(struct span term) {
    size_t cost = 8, literal = 0;
    for (size_t i = 0; i < term.len; i++) {
        if (term.at[i] == '%' && i + 1 < term.len && term.at[i + 1] == '{') {
            cost += 8 + 8 + (literal + 7) / 8 * 8;
            literal = 0;
            while (i < term.len && term.at[i] != '}')
                i++;
        } else
            literal += term.at[i] == '%' ? 3 : 1; /* %- becomes three octets */
    }
    return cost + 8 + (literal + 7) / 8 * 8;
}

static size_t mechanism_cost(struct span term) {
    size_t skip = term.len && strchr("+-~?", term.at[0]) ? 1 : 0;
    struct span bare = span_from(term, skip), value, name = span_cut(bare, ':', &value);
    if (span_eq_nocase(name, SPAN("ip4")))
        return sizeof(SPF_mech_t) + 4;
    if (span_eq_nocase(name, SPAN("ip6")))
        return sizeof(SPF_mech_t) + 16;
    return sizeof(SPF_mech_t) + (value.len ? term_cost(value) : 4);
}

static bool is_all(struct span term) {
    return span_eq_nocase(span_from(term, term.len && strchr("+-~?", term.at[0]) ? 1 : 0), SPAN("all"));
}

static bool term_is_safe(struct span term) {
    for (size_t i = 0; i < term.len; i++) {
        if (term.at[i] <= 0x20 || term.at[i] > 0x7e)
            return false;
    }
    return term.len <= TERM_TEXT_MAX && term_cost(term) <= TERM_COST_MAX;
}

int spf_record_tidy(struct span record, struct buf *out, bool *big) {
    struct span redirect = SPAN_EMPTY, rest = record;
    size_t cost = 0;
    bool all = false;
    buf_add(out, span_cut(rest, ' ', &rest));
    while (rest.len) {
        struct span term = span_cut(rest, ' ', &rest);
        if (!term.len)
            continue;
        if (!term_is_safe(term))
            return ERR_INVALID;
        if (is_modifier(term)) {
            if (!span_starts_nocase(term, SPAN("redirect=")))
                continue;
            if (redirect.len)
                return ERR_INVALID;
            redirect = term;
            continue;
        }
        if (all)
            continue; /* nothing is reached behind it */
        all = is_all(term);
        cost += mechanism_cost(term);
        buf_add_byte(out, ' ');
        buf_add(out, term);
    }
    if (redirect.len && !all) {
        cost += mechanism_cost(redirect) + term_cost(redirect);
        buf_add_byte(out, ' ');
        buf_add(out, redirect);
    }
    *big = cost > MECHANISMS_COST_MAX;
    return out->err;
}
