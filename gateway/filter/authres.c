/*
 * authres: see authres.h. Composing and recognising; no DNS, no clock. What is removed and what is written must agree:
 * whatever a reader down the line could take for our word is either ours or gone. So recognition errs on the side of
 * removal, and composing on the side of silence.
 */
#include "gateway/filter/authres.h"

#include "base/utf8.h"

#include "gateway/smtp/address.h"

#define VALUE_MAX 320 /* octets of one value: an address at most */

const char *authres_text(enum authres_result r) {
    static const char *const texts[] = {"none",     "neutral", "pass",      "fail",
                                        "softfail", "policy",  "temperror", "permerror"};
    return texts[r];
}

static const char *ask_text(enum authres_ask a) {
    static const char *const texts[] = {"", "none", "quarantine", "reject"};
    return texts[a];
}

/* -- composing -- */
static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("._-+@", c));
}

/* " name=value", or nothing when the value is not fit to be shown. */
static void add_property(struct buf *to, const char *name, struct span value) {
    bool plain = true;
    if (!value.len || value.len > VALUE_MAX)
        return;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < 0x20 || value.at[i] > 0x7e)
            return;
        plain = plain && is_plain(value.at[i]);
    }
    buf_add_byte(to, ' ');
    buf_add_str(to, name);
    buf_add_byte(to, '=');
    if (plain) {
        buf_add(to, value);
        return;
    }
    buf_add_byte(to, '"');
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] == '"' || value.at[i] == '\\')
            buf_add_byte(to, '\\');
        buf_add_byte(to, value.at[i]);
    }
    buf_add_byte(to, '"');
}

static void add_result(struct buf *to, const char *method, enum authres_result r, const char *why) {
    buf_add_str(to, ";\r\n\t");
    buf_add_str(to, method);
    buf_add_byte(to, '=');
    buf_add_str(to, authres_text(r));
    if (why) {
        buf_add_str(to, " reason=\"");
        buf_add_str(to, why);
        buf_add_byte(to, '"');
    }
}

static void add_dkim(struct buf *to, const struct authres_dkim *d) {
    add_result(to, "dkim", d->result, d->why);
    add_property(to, "header.d", d->domain);
    add_property(to, "header.s", d->selector);
    add_property(to, "header.a", d->algorithm);
    add_property(to, "header.b", d->hash);
}

static void add_dmarc(struct buf *to, const struct authres_dmarc *d) {
    add_result(to, "dmarc", d->result, d->why);
    if (d->published != AUTHRES_ASK_NOTHING) {
        buf_printf(to, " (p=%s", ask_text(d->published));
        if (d->result == AUTHRES_FAIL && d->disposition != AUTHRES_ASK_NOTHING)
            buf_printf(to, " dis=%s", ask_text(d->disposition));
        buf_add_byte(to, ')');
    }
    add_property(to, "header.from", d->from);
}

int authres_compose(struct buf *to, struct span authserv_id, const struct authres *a) {
    buf_add_byte(to, ' ');
    buf_add(to, authserv_id);
    if (!a->spf && !a->dkim_asked && !a->dmarc)
        buf_add_str(to, "; none");
    if (a->spf) {
        add_result(to, "spf", a->spf->result, a->spf->why);
        add_property(to, a->spf->by_helo ? "smtp.helo" : "smtp.mailfrom", a->spf->identity);
    }
    if (a->dkim_asked && !a->dkim_count)
        add_result(to, "dkim", AUTHRES_NONE, NULL);
    for (size_t i = 0; i < a->dkim_count; i++)
        add_dkim(to, &a->dkim[i]);
    if (a->dmarc)
        add_dmarc(to, a->dmarc);
    return to->err;
}

/* -- recognising -- */
/* Blanks, folds and nested comments; false: a comment does not end. */
static bool skip_cfws(struct span *s) {
    size_t depth = 0, i = 0;
    for (; i < s->len; i++) {
        char c = s->at[i];
        if (depth && c == '\\' && i + 1 < s->len)
            i++;
        else if (c == '(')
            depth++;
        else if (depth && c == ')')
            depth--;
        else if (!depth && !(c == ' ' || c == '\t' || c == '\r' || c == '\n'))
            break;
    }
    *s = span_from(*s, i);
    return depth == 0;
}

/* The name at the start of s, unquoted; false: none, or too long to be a name. */
static bool read_id(struct span s, char *to, size_t size, size_t *len) {
    size_t n = 0, i = 0;
    bool quoted = s.len && s.at[0] == '"';
    for (i = quoted; i < s.len; i++) {
        char c = s.at[i];
        if (quoted ? c == '"' : (c <= ' ' && c >= 0) || strchr(";(/\"=\x7f", c))
            break;
        if (quoted && c == '\\' && i + 1 < s.len)
            c = s.at[++i];
        if (quoted && (c == '\r' || c == '\n'))
            continue;
        if (n == size)
            return false;
        to[n++] = c;
    }
    while (n && to[n - 1] == '.')
        n--;
    *len = n;
    return n > 0 && (!quoted || i < s.len);
}

bool authres_is_ours(struct span value, struct span authserv_id) {
    char id[512];
    size_t len;
    if (!skip_cfws(&value))
        return true;
    if (value.len && strchr(";=", value.at[0]))
        return true;
    if (!read_id(value, id, sizeof id, &len))
        return true;
    struct span s = span_trim(span_make(id, len)), name;
    if (span_eq_nocase(s, authserv_id))
        return true;
    if (utf8_is_ascii(s))
        return false;
    struct arena mem;
    arena_init(&mem, 1024, 65536);
    bool ours = address_parse_domain(&name, s, &mem) != ERR_OK || span_eq_nocase(name, authserv_id);
    arena_deinit(&mem);
    return ours;
}

size_t authres_strip(struct held *h, struct span authserv_id) {
    size_t removed = 0;
    for (size_t n = held_count(h); n-- > 0;) {
        struct span name, value;
        held_field(h, n, &name, &value);
        if (span_eq_nocase(span_trim(name), SPAN("Authentication-Results")) && authres_is_ours(value, authserv_id)) {
            held_remove(h, n);
            removed++;
        }
    }
    return removed;
}
