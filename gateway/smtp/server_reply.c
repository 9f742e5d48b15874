/*
 * server_reply: composes replies, and the texts that are the same for all sessions.
 *
 * Every reply but the greeting, 354 and the answers to HELO and EHLO carries an enhanced code (RFC 2034).
 * Texts may hold what came from a stranger or from another room, so only printable ASCII leaves.
 */
#include <stdio.h>

#include "gateway/smtp/server_inner.h"

enum { TEXT_MAX = 400 };

static void add_clean(struct buf *out, struct span text) {
    char clean[TEXT_MAX];
    text = span_first(text, sizeof clean);
    for (size_t i = 0; i < text.len; i++)
        clean[i] = text.at[i] >= 0x20 && text.at[i] < 0x7f ? text.at[i] : '?';
    buf_append(out, clean, text.len);
}

static void add_code(struct buf *out, unsigned code) {
    char digits[4] = {(char)('0' + code / 100 % 10), (char)('0' + code / 10 % 10), (char)('0' + code % 10), ' '};
    buf_append(out, digits, sizeof digits);
}

void server_say(struct buf *out, unsigned code, const char *enhanced, const char *text) {
    add_code(out, code);
    if (*enhanced) {
        buf_add_str(out, enhanced);
        buf_add_byte(out, ' ');
    }
    buf_add_str(out, text);
    buf_append(out, "\r\n", 2);
}

void server_say_reply(struct buf *out, const struct server_reply *reply) {
    add_code(out, reply->code);
    if (reply->enhanced.len) {
        add_clean(out, span_first(reply->enhanced, 11));
        buf_add_byte(out, ' ');
    }
    add_clean(out, reply->text);
    buf_append(out, "\r\n", 2);
}

struct server_reply server_fault_reply(const struct server *s) {
    switch (s->fault) {
    case SERVER_FAULT_BARE:
        return server_reply_make(554, "5.6.0", "message holds a bare CR or LF");
    case SERVER_FAULT_LINE:
        return server_reply_make(554, "5.6.0", "message holds a line of over 1000 octets");
    case SERVER_FAULT_SIZE:
        return server_reply_make(552, "5.3.4", "message is over the size limit");
    case SERVER_FAULT_LOOP:
        return server_reply_make(554, "5.4.6", "too many hops, the message loops");
    case SERVER_FAULT_ORDER:
        return server_reply_make(503, "5.5.1", "no valid recipients, or the transaction has failed");
    case SERVER_FAULT_OWNER:
        return s->owner_fault;
    case SERVER_FAULT_NONE:
        break;
    }
    return server_reply_make(451, "4.3.0", "local error");
}

/* The EHLO lines that do not depend on the state of a session. */
static char *make_ehlo(struct arena *mem, const struct server_config *c, const char *host) {
    uint32_t on = c->extensions;
    unsigned long long size = c->message_size;
    char limits[48] = "", by[48] = "";
    if (on & SERVER_EXT_LIMITS)
        snprintf(limits, sizeof limits, "250-LIMITS RCPTMAX=%u\r\n", (unsigned)c->recipients);
    if ((on & SERVER_EXT_DELIVERBY) && c->deliverby_min_s)
        snprintf(by, sizeof by, "250-DELIVERBY %u\r\n", (unsigned)c->deliverby_min_s);
    else if (on & SERVER_EXT_DELIVERBY)
        snprintf(by, sizeof by, "250-DELIVERBY\r\n");
    const char *sizes = on & SERVER_EXT_SIZE ? arena_printf(mem, "250-SIZE %llu\r\n", size) : "";
    if (!sizes)
        return NULL;
    return arena_printf(mem, "250-%s\r\n%s%s%s250-ENHANCEDSTATUSCODES\r\n%s%s%s250-VRFY\r\n%s%s%s", host,
                        on & SERVER_EXT_PIPELINING ? "250-PIPELINING\r\n" : "", sizes,
                        on & SERVER_EXT_8BITMIME ? "250-8BITMIME\r\n" : "",
                        on & SERVER_EXT_SMTPUTF8 ? "250-SMTPUTF8\r\n" : "", on & SERVER_EXT_DSN ? "250-DSN\r\n" : "",
                        on & SERVER_EXT_CHUNKING ? "250-CHUNKING\r\n" : "", limits,
                        on & SERVER_EXT_MT_PRIORITY ? "250-MT-PRIORITY MIXER\r\n" : "", by);
}

int server_settings_init(struct server_settings *s, const struct server_config *c) {
    *s = (struct server_settings){.config = *c};
    arena_init(&s->mem, 1024, 0);
    const char *host = arena_strdup(&s->mem, c->hostname);
    const char *greeting = host ? arena_printf(&s->mem, "220 %s ESMTP Posthouse\r\n", host) : NULL;
    const char *ehlo = host ? make_ehlo(&s->mem, c, host) : NULL;
    if (!greeting || !ehlo) {
        arena_deinit(&s->mem);
        return ERR_NOMEM;
    }
    s->config.hostname = host;
    s->hostname = span_of(host);
    s->greeting = span_of(greeting);
    s->ehlo = span_of(ehlo);
    return ERR_OK;
}

void server_settings_deinit(struct server_settings *s) {
    arena_deinit(&s->mem);
}
