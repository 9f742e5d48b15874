/*
 * received: composes the Received header.
 *
 * The name from HELO is the one value here that a stranger chose freely. It is written with every octet
 * that a domain or address literal cannot hold replaced by '?', so a hostile name stays visible and
 * harmless. The recipient was parsed by address.c, but a quoted local part may hold nearly all of
 * ASCII, so controls are replaced there too, and a recipient too long for the line is left out.
 */
#include "base/clock.h"

#include "gateway/smtp/received.h"

enum { HELO_SHOWN = 255, RECIPIENT_SHOWN = 320 };

struct span received_protocol(bool esmtp, bool tls, bool authenticated, bool utf8) {
    static const char *const plain[] = {"ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"};
    static const char *const wide[] = {"UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"};
    if (!esmtp)
        return SPAN("SMTP");
    return span_of((utf8 ? wide : plain)[(tls ? 2 : 0) + (authenticated ? 1 : 0)]);
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == ':' || c == '[' || c == ']';
}

static void add_name(struct buf *to, struct span name) {
    char clean[HELO_SHOWN];
    name = span_first(name, sizeof clean);
    for (size_t i = 0; i < name.len; i++)
        clean[i] = is_name(name.at[i]) ? name.at[i] : '?';
    if (name.len)
        buf_append(to, clean, name.len);
    else
        buf_add_str(to, "unknown");
}

static void add_recipient(struct buf *to, struct span recipient) {
    if (recipient.len == 0 || recipient.len > RECIPIENT_SHOWN)
        return;
    buf_add_str(to, "\r\n\tfor <");
    for (size_t i = 0; i < recipient.len; i++) {
        unsigned char c = (unsigned char)recipient.at[i];
        buf_add_byte(to, c < 0x20 || c == 0x7f ? '?' : (char)c);
    }
    buf_add_byte(to, '>');
}

/* "helo (name [address])"; of our own users only that they are. */
static void add_client(struct buf *to, const struct received *r) {
    if (r->hidden) {
        buf_add(to, r->by);
        buf_add_str(to, " (submission)");
        return;
    }
    add_name(to, r->helo);
    buf_add_str(to, " (");
    if (r->client_name.len) {
        add_name(to, r->client_name);
        buf_add_byte(to, ' ');
    }
    buf_add_str(to, span_find(r->client, ':') >= 0 ? "[IPv6:" : "[");
    buf_add(to, r->client);
    buf_add_str(to, "])");
}

int received_write(const struct received *r, struct buf *to) {
    char date[32];
    size_t date_len = clock_rfc5322(r->wall_ms, date, sizeof date);
    buf_add_str(to, "Received: from ");
    add_client(to, r);
    buf_add_str(to, "\r\n\tby ");
    buf_add(to, r->by);
    buf_add_str(to, " (Posthouse) with ");
    buf_add(to, r->with);
    buf_add_str(to, " id ");
    buf_add(to, r->id);
    add_recipient(to, r->recipient);
    if (r->tls.len) {
        buf_add_str(to, "\r\n\ttls ");
        add_name(to, r->tls);
    }
    buf_add_str(to, ";\r\n\t");
    buf_append(to, date, date_len);
    return buf_add_str(to, "\r\n");
}
