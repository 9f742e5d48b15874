/*
 * mailboxes: addresses in the fields of a header, as senders write them: `Name <a@b>`, `a@b (name)`, groups, quoted
 * local parts. What stands in display names and comments is skipped; each address must be one by the strict parser
 * (gateway/smtp/address.h).
 */
#include <string.h>

#include "admin/sendmail/sendmail.h"
#include "gateway/smtp/address.h"

#define TEXT_MAX 1024u

int recipient_list_add(struct recipient_list *l, struct span address, struct arena *mem) {
    for (size_t i = 0; i < l->count; i++)
        if (span_eq(l->at[i], address))
            return ERR_OK;
    if (l->count == SENDMAIL_RECIPIENTS_MAX)
        return ERR_FULL;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        struct span *more = arena_alloc(mem, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        if (l->count)
            memcpy(more, l->at, l->count * sizeof *more);
        l->at = more;
        l->cap = cap;
    }
    l->at[l->count] = arena_dup(mem, address);
    return l->at[l->count++].at ? ERR_OK : ERR_NOMEM;
}

struct reader {
    struct recipient_list *list;
    const char *domain;
    struct arena *mem;
    struct span *bad;
    char text[TEXT_MAX]; /* the address, or what may become one */
    size_t len;
    bool angle, taken; /* inside <>; this mailbox had its <> */
};

static int put(struct reader *r, char c) {
    if (r->len == TEXT_MAX)
        return ERR_INVALID;
    r->text[r->len++] = c;
    return ERR_OK;
}

/* The mailbox ends here. */
static int take(struct reader *r) {
    char whole[TEXT_MAX + 256];
    struct address a;
    struct span text = span_trim(span_make(r->text, r->len));
    r->len = 0;
    if (r->taken && !r->angle) { /* what stands behind the <> is nothing */
        r->taken = false;
        return ERR_OK;
    }
    if (!text.len)
        return r->angle ? ERR_INVALID : ERR_OK;
    if (span_rfind(text, '@') < 0 && r->domain) {
        int len = snprintf(whole, sizeof whole, "%.*s@%s", (int)text.len, text.at, r->domain);
        text = span_make(whole, (size_t)len < sizeof whole ? (size_t)len : sizeof whole - 1);
    }
    int err = address_parse(&a, text, r->mem);
    if (err == ERR_OK)
        return recipient_list_add(r->list, a.text, r->mem);
    *r->bad = arena_dup(r->mem, text);
    return err == ERR_NOMEM ? ERR_NOMEM : ERR_INVALID;
}

/* Past a comment, which may hold others. At the end of s or behind it: the comment does not end. */
static size_t skip_comment(struct span s, size_t i) {
    unsigned depth = 0;
    for (; i < s.len; i++) {
        if (s.at[i] == '\\')
            i++;
        else if (s.at[i] == '(')
            depth++;
        else if (s.at[i] == ')' && --depth == 0)
            break;
    }
    return i;
}

/* Past a quoted string, which is kept: it may be a local part. */
static int take_quoted(struct reader *r, struct span s, size_t *i) {
    int err = put(r, '"');
    for (++*i; err == ERR_OK && *i < s.len && s.at[*i] != '"'; ++*i) {
        if (s.at[*i] == '\\' && *i + 1 < s.len)
            err = put(r, s.at[(*i)++]);
        if (err == ERR_OK && s.at[*i] != '\r' && s.at[*i] != '\n')
            err = put(r, s.at[*i]);
    }
    if (err == ERR_OK && *i >= s.len) /* what stands behind would be lost in silence */
        return ERR_INVALID;
    return err == ERR_OK ? put(r, '"') : err;
}

static int take_special(struct reader *r, char c) {
    int err = ERR_OK;
    switch (c) {
    case '<':
        r->len = 0; /* what stood before was a name */
        r->angle = true;
        return ERR_OK;
    case '>':
        err = take(r);
        r->angle = false;
        r->taken = true;
        return err;
    case ':':
        if (r->angle) /* of an address literal */
            return put(r, c);
        r->len = 0; /* the name of a group */
        return ERR_OK;
    default: /* , ; */
        err = take(r);
        r->taken = false;
        return err;
    }
}

int mailboxes_add(struct recipient_list *l, struct span value, const char *domain, struct arena *mem,
                  struct span *bad) {
    struct reader r = {.list = l, .domain = domain, .mem = mem, .bad = bad};
    bool literal = false; /* inside [] */
    int err = ERR_OK;
    *bad = value;
    for (size_t i = 0; i < value.len && err == ERR_OK; i++) {
        char c = value.at[i];
        if (c == '(' && !literal) {
            i = skip_comment(value, i);
            err = i < value.len ? ERR_OK : ERR_INVALID;
        } else if (c == '"' && !literal) {
            err = take_quoted(&r, value, &i);
        } else if (c == '[' || c == ']') {
            literal = c == '[';
            err = put(&r, c);
        } else if (!literal && strchr("<>,;:", c)) {
            err = take_special(&r, c);
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            if (!r.angle && r.len && r.text[r.len - 1] != ' ')
                err = put(&r, ' ');
        } else {
            err = put(&r, c);
        }
    }
    if (err == ERR_OK && r.angle)
        err = ERR_INVALID;
    return err == ERR_OK ? take(&r) : err;
}
