/*
 * client_attrs: see client_attrs.h. The table below says for each attribute which commands know it, which group it is
 * of and how long its value may become; the longest group with the longest verb is shorter than a line.
 */
#include <stdio.h>

#include "gateway/smtp/client_attrs.h"

enum { LABEL_MAX = 63, VALUE_MAX = 255, WORD_MAX = VALUE_MAX + 16, GROUPS = 4 };
enum { IN_XCLIENT = 1, IN_XFORWARD = 2 };
enum attr { ATTR_NAME, ATTR_ADDR, ATTR_PORT, ATTR_SOURCE, ATTR_IDENT, ATTR_HELO, ATTR_PROTO, ATTR_LOGIN, ATTRS };

static const struct {
    const char *name;
    uint8_t verbs;
    uint8_t group;
    uint8_t max; /* of the value as xtext */
} attrs[ATTRS] = {
    [ATTR_NAME] = {"NAME", IN_XCLIENT | IN_XFORWARD, 0, 255},
    [ATTR_ADDR] = {"ADDR", IN_XCLIENT | IN_XFORWARD, 1, 64},
    [ATTR_PORT] = {"PORT", IN_XCLIENT | IN_XFORWARD, 1, 16},
    [ATTR_SOURCE] = {"SOURCE", IN_XFORWARD, 2, 16},
    [ATTR_IDENT] = {"IDENT", IN_XFORWARD, 2, 100},
    [ATTR_HELO] = {"HELO", IN_XCLIENT | IN_XFORWARD, 3, 255},
    [ATTR_PROTO] = {"PROTO", IN_XCLIENT | IN_XFORWARD, 3, 16},
    [ATTR_LOGIN] = {"LOGIN", IN_XCLIENT, 3, 200},
};
static const struct span unavailable = {"[UNAVAILABLE]", 13};

uint32_t client_attrs_offered(enum client_attrs_verb verb, struct span parameters) {
    uint32_t bits = 0;
    uint8_t mine = verb == CLIENT_ATTRS_XCLIENT ? IN_XCLIENT : IN_XFORWARD;
    while (parameters.len) {
        struct span word = span_cut(parameters, ' ', &parameters);
        for (int i = 0; i < ATTRS; i++) {
            if ((attrs[i].verbs & mine) && span_eq_nocase(word, span_of(attrs[i].name)))
                bits |= 1u << i;
        }
    }
    return bits;
}

static bool holds_only(struct span s, const char *more) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        bool fine = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        for (const char *m = more; *m && !fine; m++)
            fine = *m == c;
        if (!fine)
            return false;
    }
    return s.len > 0;
}

/* As Postfix has it; the last label is no number, so that it is no address either. */
static bool is_host_name(struct span s) {
    struct span rest = s;
    uint64_t number;
    bool fine = holds_only(s, ".-_") && s.at[s.len - 1] != '.';
    while (fine && rest.len) {
        struct span label = span_cut(rest, '.', &rest);
        fine = label.len > 0 && label.len <= LABEL_MAX && label.at[0] != '-' && label.at[label.len - 1] != '-' &&
               (rest.len || !span_u64(label, &number));
    }
    return fine;
}

bool client_attrs_is_hello(struct span helo) {
    if (helo.len > VALUE_MAX || !helo.len)
        return false;
    bool literal = helo.len > 2 && helo.at[0] == '[' && helo.at[helo.len - 1] == ']';
    return literal ? holds_only(span_first(span_from(helo, 1), helo.len - 2), ".:") : is_host_name(helo);
}

/* The value before it is coded; text is room for what has to be written. */
static struct span value_of(enum attr which, const struct client_attrs *a, char *text, size_t size) {
    int n = 0;
    switch (which) {
    case ATTR_NAME:
        return is_host_name(a->name) ? a->name : SPAN_EMPTY;
    case ATTR_ADDR:
        if (!holds_only(a->addr, ".:"))
            return SPAN_EMPTY;
        n = snprintf(text, size, "%s%.*s", span_find(a->addr, ':') >= 0 ? "IPV6:" : "", SPAN_FMT(a->addr));
        break;
    case ATTR_PORT:
        n = a->port ? snprintf(text, size, "%u", a->port) : 0;
        break;
    case ATTR_SOURCE:
        return a->local ? SPAN("LOCAL") : SPAN("REMOTE");
    case ATTR_IDENT:
        return a->ident;
    case ATTR_HELO:
        return a->helo;
    case ATTR_PROTO: /* Postfix knows these two */
        return !a->protocol.len ? SPAN_EMPTY : span_eq(a->protocol, SPAN("SMTP")) ? SPAN("SMTP") : SPAN("ESMTP");
    case ATTR_LOGIN:
        return a->login;
    case ATTRS:
        break;
    }
    return n > 0 && (size_t)n < size ? span_make(text, (size_t)n) : SPAN_EMPTY;
}

/* The length of the value as xtext, or 0: it cannot be said. */
static size_t code(struct span value, char to[VALUE_MAX], size_t max) {
    static const char hex[] = "0123456789ABCDEF";
    size_t len = 0;
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        bool plain = c > 0x20 && c < 0x7f && c != '+' && c != '=';
        if (c < 0x20 || c == 0x7f || len + (plain ? 1 : 3) > max)
            return 0;
        if (!plain) {
            to[len++] = '+';
            to[len++] = hex[c >> 4];
            to[len++] = hex[c & 15];
        } else {
            to[len++] = (char)c;
        }
    }
    return len;
}

static void put_group(struct buf *to, uint32_t group, uint32_t offered, const struct client_attrs *a) {
    char text[VALUE_MAX], coded[VALUE_MAX];
    for (int i = 0; i < ATTRS; i++) {
        if (attrs[i].group != group || !(offered >> i & 1))
            continue;
        size_t len = code(value_of((enum attr)i, a, text, sizeof text), coded, attrs[i].max);
        struct span said = len ? span_make(coded, len) : unavailable;
        buf_printf(to, " %s=%.*s", attrs[i].name, SPAN_FMT(said));
    }
}

bool client_attrs_put(struct buf *out, enum client_attrs_verb verb, uint32_t offered, const struct client_attrs *a,
                      uint32_t *group) {
    size_t start = buf_len(out), begun;
    buf_add_str(out, verb == CLIENT_ATTRS_XCLIENT ? "XCLIENT" : "XFORWARD");
    begun = buf_len(out);
    for (; *group < GROUPS; ++*group) {
        size_t before = buf_len(out);
        put_group(out, *group, offered, a);
        if (before > begun && buf_len(out) - start + 2 > CLIENT_ATTRS_LINE_MAX) {
            buf_truncate(out, before); /* opens the next command */
            break;
        }
    }
    if (buf_len(out) == begun) {
        buf_truncate(out, start);
        return false;
    }
    buf_add(out, SPAN("\r\n"));
    return true;
}
