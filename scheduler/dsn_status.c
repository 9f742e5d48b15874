/*
 * dsn_status: the part of a report that programs read: message/delivery-status (RFC 3464), or
 * message/global-delivery-status (RFC 6533); dsn.c says when.
 *
 * Outside the global form an address that is not ASCII is written as utf-8-addr-xtext, \x{HEX} for each
 * character, which any mail system can carry.
 */
#include "base/clock.h"
#include "base/utf8.h"
#include "scheduler/dsn_part.h"

#define DIAGNOSTIC_MAX 512u
#define ADDRESS_MAX 600u

static bool is_digits(struct span s) {
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    return s.len >= 1 && s.len <= 3;
}

static bool is_status(struct span s) {
    struct span rest, detail;
    struct span class = span_cut(s, '.', &rest);
    struct span subject = span_cut(rest, '.', &detail);
    return class.len == 1 && (class.at[0] == '2' || class.at[0] == '4' || class.at[0] == '5') && is_digits(subject) &&
           is_digits(detail);
}

struct span dsn_status_of(const struct dsn *d, const struct dsn_recipient *r) {
    bool fits = is_status(r->enhanced);
    if (d->kind == DSN_DELIVERED)
        return fits && r->enhanced.at[0] == '2' ? r->enhanced : SPAN("2.0.0");
    if (d->kind == DSN_DELAYED)
        return fits && r->enhanced.at[0] == '4' ? r->enhanced : SPAN("4.0.0");
    return fits && r->enhanced.at[0] != '2' ? r->enhanced : SPAN("5.0.0");
}

static const char *action_of(const struct dsn *d, const struct dsn_recipient *r) {
    switch (d->kind) {
    case DSN_FAILED:
        return "failed";
    case DSN_DELAYED:
        return "delayed";
    case DSN_DELIVERED:
        return r->expanded ? "expanded" : r->relayed ? "relayed" : "delivered";
    }
    return "failed";
}

/* As utf-8-addr-xtext: printable ASCII but + = \ as it is. */
static void add_unitext(struct buf *b, struct span s) {
    while (s.len) {
        uint32_t cp;
        size_t n = utf8_next(s, &cp);
        if (!n) { /* not UTF-8: the octet by itself */
            cp = (unsigned char)s.at[0];
            n = 1;
        }
        if (cp > 32 && cp < 127 && cp != '+' && cp != '=' && cp != '\\')
            buf_add_byte(b, (char)cp);
        else
            buf_printf(b, "\\x{%02X}", cp);
        s = span_from(s, n);
    }
}

static void add_utf8(struct buf *b, uint32_t cp) {
    if (cp < 0x80) {
        buf_add_byte(b, (char)cp);
    } else if (cp < 0x800) {
        buf_add_byte(b, (char)(0xc0 | cp >> 6));
    } else if (cp < 0x10000) {
        buf_add_byte(b, (char)(0xe0 | cp >> 12));
        buf_add_byte(b, (char)(0x80 | (cp >> 6 & 63)));
    } else {
        buf_add_byte(b, (char)(0xf0 | cp >> 18));
        buf_add_byte(b, (char)(0x80 | (cp >> 12 & 63)));
        buf_add_byte(b, (char)(0x80 | (cp >> 6 & 63)));
    }
    if (cp >= 0x80)
        buf_add_byte(b, (char)(0x80 | (cp & 63)));
}

/* The character of "\x{HEX}" at the start of s and how long that is; 0: there is none. */
static size_t embedded(struct span s, uint32_t *cp) {
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 3;
    *cp = 0;
    if (s.len < 6 || memcmp(s.at, "\\x{", 3) != 0)
        return 0;
    for (const char *d; n < s.len && n < 9 && (d = memchr(digits, s.at[n], 16)); n++)
        *cp = *cp << 4 | (uint32_t)(d - digits);
    bool fine = n >= 5 && n < s.len && s.at[n] == '}' && *cp && *cp <= 0x10ffff && (*cp < 0xd800 || *cp > 0xdfff);
    return fine ? n + 1 : 0;
}

/* An address of the type utf-8 as UTF-8: a client may write characters as \x{HEX}, too. */
static void add_decoded(struct buf *b, struct span s) {
    while (s.len) {
        uint32_t cp;
        size_t n = embedded(s, &cp);
        if (n)
            add_utf8(b, cp);
        else
            buf_add_byte(b, s.at[0]);
        s = span_from(s, n ? n : 1);
    }
}

static void add_address(struct buf *b, const char *name, struct span type, struct span address, bool global) {
    struct buf v, decoded;
    buf_init(&v, 8192);
    buf_init(&decoded, 8192);
    address = span_first(address, ADDRESS_MAX);
    if (span_eq_nocase(type, SPAN("utf-8"))) {
        add_decoded(&decoded, address);
        address = buf_span(&decoded);
    }
    bool ascii = utf8_is_ascii(address);
    bool coded = !global && span_eq_nocase(type, SPAN("utf-8")); /* then +, = and \ are too */
    if (ascii && !coded) {
        buf_add(&v, type);
        buf_add_str(&v, "; ");
        dsn_add_clean(&v, address, ADDRESS_MAX, true);
    } else {
        buf_add_str(&v, "utf-8; ");
        if (global && utf8_is_valid(address))
            buf_add_escaped(&v, address);
        else
            add_unitext(&v, address);
    }
    dsn_add_field_of(b, name, &v);
    buf_deinit(&decoded);
}

static bool is_type(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return s.len >= 1 && s.len <= 40;
}

static void add_original(struct buf *b, const struct dsn_recipient *r, bool global) {
    if (!r->orcpt.len) {
        if (r->original.len)
            add_address(b, "Original-Recipient", SPAN("rfc822"), r->original, global);
        return;
    }
    struct span address, type = span_trim(span_cut(r->orcpt, ';', &address));
    address = span_trim(address);
    if (address.len && is_type(type))
        add_address(b, "Original-Recipient", type, address, global);
}

/* The name at the start of `remote`, when it can be one. */
static struct span remote_name(struct span remote) {
    struct span rest, name = span_cut(remote, ' ', &rest);
    ptrdiff_t literal = name.len && name.at[0] == '[' ? span_find(name, ']') : -1;
    if (literal > 0)
        name = span_first(name, (size_t)literal + 1); /* no port */
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
              c == '_' || c == ':' || c == '[' || c == ']'))
            return SPAN_EMPTY;
    }
    return name.len <= 255 ? name : SPAN_EMPTY;
}

static void add_diagnostic(struct buf *b, const struct dsn_recipient *r, bool global) {
    struct buf v;
    buf_init(&v, 8192);
    if (r->code >= 100 && r->code <= 999) {
        buf_printf(&v, "smtp; %u ", r->code); /* the server's own words, its enhanced code among them */
    } else {
        buf_add_str(&v, "x-posthouse; ");
    }
    dsn_add_clean(&v, r->text, DIAGNOSTIC_MAX, !global);
    dsn_add_field_of(b, "Diagnostic-Code", &v);
}

static void add_date(struct buf *b, const char *name, uint64_t ms) {
    char date[32];
    size_t len = clock_rfc5322(ms, date, sizeof date);
    dsn_add_field(b, name, span_make(date, len));
}

static void add_recipient(struct buf *b, const struct dsn *d, const struct dsn_recipient *r, bool global) {
    buf_add_str(b, "\r\n");
    add_original(b, r, global);
    add_address(b, "Final-Recipient", SPAN("rfc822"), r->address, global);
    buf_printf(b, "Action: %s\r\n", action_of(d, r));
    dsn_add_field(b, "Status", dsn_status_of(d, r));
    struct span remote = remote_name(r->remote);
    if (remote.len && r->code)
        buf_printf(b, "Remote-MTA: dns; %.*s\r\n", SPAN_FMT(remote));
    if (r->code || r->text.len)
        add_diagnostic(b, r, global);
    if (d->kind == DSN_DELAYED)
        add_date(b, "Will-Retry-Until", d->retry_until_ms);
}

void dsn_add_status(struct buf *b, const struct dsn *d, bool global) {
    if (d->envid.len) {
        struct buf v;
        buf_init(&v, 4096);
        dsn_add_clean(&v, d->envid, 400, !global);
        dsn_add_field_of(b, "Original-Envelope-Id", &v);
    }
    buf_printf(b, "Reporting-MTA: dns; %.*s\r\n", SPAN_FMT(d->hostname));
    add_date(b, "Arrival-Date", d->received_ms);
    for (uint32_t i = 0; i < d->count; i++)
        add_recipient(b, d, &d->recipients[i], global);
}
