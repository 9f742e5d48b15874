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

static void add_address(struct buf *b, const char *name, struct span type, struct span address, bool global) {
    struct buf v;
    buf_init(&v, 8192);
    address = span_first(address, ADDRESS_MAX);
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
