/*
 * dmarc_from: the domains of the From field, as a mail reader would find the addresses in it (RFC 5322 section 3.4,
 * RFC 6854 for groups). Display names, comments and quoted strings count for nothing, whatever they look like.
 * Anything that two readers could read in two ways is ambiguous, and said to be.
 */
#include "gateway/filter/dmarc.h"
#include "gateway/smtp/address.h"

#define TEXT_MAX 1024 /* of one address */

struct reader {
    struct dmarc_from *from;
    struct arena *mem;
    char text[TEXT_MAX]; /* the address, or what may become one */
    size_t len;
    ptrdiff_t at; /* of the last @ that stands outside quotes */
    bool angle;   /* inside <> */
    bool taken;   /* this mailbox had its <> */
    int err;
};

static void forget(struct reader *r) {
    r->len = 0;
    r->at = -1;
}

static void put(struct reader *r, char c) {
    if (r->len == TEXT_MAX) {
        r->from->ambiguous = true;
        return;
    }
    r->text[r->len++] = c;
}

static void take(struct reader *r) {
    struct span domain;
    struct dmarc_from *from = r->from;
    struct span text = r->at < 0 ? SPAN_EMPTY : span_from(span_make(r->text, r->len), (size_t)r->at);
    forget(r);
    if (text.len && text.at[text.len - 1] == '.')
        text.len--;
    int err = address_parse_domain(&domain, text, r->mem);
    if (err == ERR_NOMEM)
        r->err = err;
    if (err || domain.at[0] == '[') {
        from->ambiguous = true;
        return;
    }
    for (size_t i = 0; i < from->count; i++) {
        if (span_eq(from->domains[i], domain))
            return;
    }
    if (from->count == DMARC_DOMAINS_MAX)
        from->ambiguous = true;
    else
        from->domains[from->count++] = domain;
}

/* The end of a mailbox without <>. */
static void end_mailbox(struct reader *r) {
    if (r->angle)
        r->from->ambiguous = true;
    else if (!r->taken && r->len)
        take(r);
    else if (r->taken && r->at >= 0) /* an address behind an address */
        r->from->ambiguous = true;
    forget(r);
    r->angle = r->taken = false;
}

/* Index behind a comment or quoted string that begins at i; the length of s when it does not end. */
static size_t skip_quoted(struct span s, size_t i) {
    size_t depth = s.at[i] == '(' ? 1 : 0;
    for (i++; i < s.len; i++) {
        if (s.at[i] == '\\')
            i++;
        else if (!depth && s.at[i] == '"')
            return i + 1;
        else if (depth && s.at[i] == '(')
            depth++;
        else if (depth && s.at[i] == ')' && --depth == 0)
            return i + 1;
    }
    return s.len;
}

static void step(struct reader *r, char c) {
    switch (c) {
    case '<':
        if (r->angle)
            r->from->ambiguous = true;
        forget(r);
        r->angle = true;
        break;
    case '>':
        if (r->angle)
            take(r);
        else
            r->from->ambiguous = true;
        r->angle = false;
        r->taken = true;
        break;
    case ',':
    case ';':
        if (!r->angle)
            end_mailbox(r);
        break;
    case ':': /* the end of a group's name, or of a source route */
        forget(r);
        break;
    case '@':
        put(r, c);
        r->at = (ptrdiff_t)r->len;
        break;
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        break;
    default:
        put(r, c);
    }
}

static int read_value(struct span s, struct arena *mem, struct dmarc_from *from) {
    struct reader r = {.from = from, .mem = mem, .at = -1};
    for (size_t i = 0; i < s.len && !r.err;) {
        if (s.at[i] != '"' && s.at[i] != '(') {
            step(&r, s.at[i++]);
            continue;
        }
        size_t end = skip_quoted(s, i);
        if (end == s.len && !strchr("\")", s.at[end - 1]))
            from->ambiguous = true;
        if (s.at[i] == '"')
            put(&r, 'q'); /* stands for the string */
        i = end;
    }
    end_mailbox(&r);
    return r.err;
}

int dmarc_from(const struct held *h, struct arena *mem, struct dmarc_from *from) {
    struct span name, value = SPAN_EMPTY;
    size_t fields = 0;
    *from = (struct dmarc_from){.count = 0};
    for (size_t n = 0; n < held_count(h); n++) {
        struct span v;
        held_field(h, n, &name, &v);
        if (!span_eq_nocase(span_trim(name), SPAN("From")))
            continue;
        if (!fields++)
            value = v;
    }
    from->missing = fields == 0;
    from->several = from->ambiguous = fields > 1;
    return read_value(value, mem, from);
}
