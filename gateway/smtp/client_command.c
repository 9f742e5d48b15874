/*
 * client_command: writes MAIL FROM and RCPT TO with the parameters that the server offered.
 *
 * Nothing of what it is given can add a line: addresses with control characters are refused,
 * values of DSN parameters go out as xtext (RFC 3461 section 4).
 */
#include "gateway/smtp/client.h"

static bool is_sendable(struct span address) {
    for (size_t i = 0; i < address.len; i++) {
        unsigned char c = (unsigned char)address.at[i];
        if (c < 0x20 || c == 0x7f)
            return false;
    }
    return true;
}

static bool is_ascii(struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.at[i] > 0x7f)
            return false;
    }
    return true;
}

static void add_xtext(struct buf *out, struct span s) {
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c > 0x7f || (c >= 0x21 && c <= 0x7e && c != '+' && c != '=')) {
            buf_add_byte(out, (char)c);
        } else {
            const char coded[3] = {'+', hex[c >> 4], hex[c & 15]};
            buf_append(out, coded, 3);
        }
    }
}

/* A parameter whose value is xtext; one that cannot be written without SMTPUTF8 is left out. */
static void add_xtext_param(struct buf *out, struct span name, struct span value, bool utf8) {
    if (!value.len || (!utf8 && !is_ascii(value)))
        return;
    buf_add(out, name);
    add_xtext(out, value);
}

static void add_wishes(struct buf *out, const struct client_extensions *ext, const struct client_mail *m) {
    if (m->has_by && ext->deliver_by)
        buf_printf(out, " BY=%lld;%c%s", (long long)m->by_s, m->by_notify ? 'N' : 'R', m->by_trace ? "T" : "");
    if (m->has_mt_priority && ext->mt_priority)
        buf_printf(out, " MT-PRIORITY=%d", (int)m->mt_priority);
    if (m->requiretls && ext->requiretls)
        buf_add(out, SPAN(" REQUIRETLS"));
}

int client_put_mail(struct buf *out, const struct client_extensions *ext, const struct client_mail *m) {
    if (!is_sendable(m->sender))
        return ERR_INVALID;
    buf_add(out, SPAN("MAIL FROM:<"));
    buf_add(out, m->sender);
    buf_add_byte(out, '>');
    if (ext->size) {
        buf_add(out, SPAN(" SIZE="));
        buf_add_u64(out, m->size);
    }
    if (m->eight_bit && ext->eight_bit)
        buf_add(out, SPAN(" BODY=8BITMIME"));
    if (m->smtputf8 && ext->smtputf8)
        buf_add(out, SPAN(" SMTPUTF8"));
    if (ext->dsn) {
        if (m->ret == 1 || m->ret == 2)
            buf_add(out, m->ret == 1 ? SPAN(" RET=FULL") : SPAN(" RET=HDRS"));
        if (is_ascii(m->envid))
            add_xtext_param(out, SPAN(" ENVID="), m->envid, false);
    }
    add_wishes(out, ext, m);
    return buf_add(out, SPAN("\r\n"));
}

static void add_notify(struct buf *out, uint32_t notify) {
    static const struct {
        uint32_t bit;
        const char *word;
    } words[] = {{2, "SUCCESS"}, {4, "FAILURE"}, {8, "DELAY"}};
    if (notify & 1) {
        buf_add(out, SPAN(" NOTIFY=NEVER"));
        return;
    }
    const char *lead = " NOTIFY=";
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (notify & words[i].bit) {
            buf_add_str(out, lead);
            buf_add_str(out, words[i].word);
            lead = ",";
        }
    }
}

int client_put_rcpt(struct buf *out, const struct client_extensions *ext, const struct client_mail *m,
                    const struct client_recipient *r) {
    if (!r->address.len || !is_sendable(r->address))
        return ERR_INVALID;
    buf_add(out, SPAN("RCPT TO:<"));
    buf_add(out, r->address);
    buf_add_byte(out, '>');
    if (ext->dsn) {
        add_notify(out, r->notify);
        /* the type before ';' is an atom and stays as it is; xtext leaves it alone */
        add_xtext_param(out, SPAN(" ORCPT="), r->orcpt, m->smtputf8 && ext->smtputf8);
    }
    return buf_add(out, SPAN("\r\n"));
}
