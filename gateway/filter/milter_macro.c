/*
 * milter_macro: the macros (in Sendmail's sense) that go in front of a command: what a filter may want to know of the
 * session besides the command itself. A filter may name those that it wants (SETSYMLIST); else it gets our list.
 * What is not known is left out.
 */
#include <stdio.h>

#include "gateway/filter/milter_inner.h"

static const char *const lists[MILTER_LISTS] = {
    [MILTER_LIST_CONNECT] = "j {daemon_name} v _ {client_addr} {client_name} {client_ptr} {client_port}",
    [MILTER_LIST_HELO] = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    [MILTER_LIST_MAIL] = "i {auth_type} {auth_authen} {mail_addr} {mail_host} {mail_mailer}",
    [MILTER_LIST_RCPT] = "{rcpt_addr} {rcpt_host} {rcpt_mailer}",
    [MILTER_LIST_DATA] = "i",
    [MILTER_LIST_EOM] = "i",
    [MILTER_LIST_EOH] = "i",
};
enum { VALUE_MAX = 1024, NAMES_MAX = 64 };

static struct span host_of(struct span address) {
    ptrdiff_t at = span_rfind(address, '@');
    return at < 0 ? SPAN_EMPTY : span_from(address, (size_t)at + 1);
}

static struct span name_or_ip(struct span name, const struct check_facts *f, char *to, size_t size) {
    if (name.len)
        return name;
    int len = snprintf(to, size, "[%.*s]", SPAN_FMT(f->client_ip));
    return span_make(to, len > 0 && (size_t)len < size ? (size_t)len : 0);
}

static struct span number(uint64_t n, char *to, size_t size) {
    return span_make(to, (size_t)snprintf(to, size, "%llu", (unsigned long long)n));
}

static struct span known_host(const struct check_facts *f, char *to, size_t size) {
    int len = snprintf(to, size, "%.*s [%.*s]", SPAN_FMT(f->client_name), SPAN_FMT(f->client_ip));
    return span_trim(span_make(to, len > 0 && (size_t)len < size ? (size_t)len : 0));
}

static struct span of_session(struct span name, const struct check_facts *f, char *to, size_t size) {
    if (span_eq(name, SPAN("j")))
        return f->hostname;
    if (span_eq(name, SPAN("daemon_name")))
        return f->submission ? SPAN("MSA") : SPAN("MTA");
    if (span_eq(name, SPAN("v")))
        return SPAN("Posthouse " POSTHOUSE_VERSION);
    if (span_eq(name, SPAN("_")))
        return known_host(f, to, size);
    if (span_eq(name, SPAN("client_addr")))
        return f->client_ip;
    if (span_eq(name, SPAN("client_name")))
        return name_or_ip(f->client_name, f, to, size);
    if (span_eq(name, SPAN("client_ptr")))
        return name_or_ip(f->reverse_name, f, to, size);
    if (span_eq(name, SPAN("client_port")))
        return number(tcp_addr_port(f->client), to, size);
    return SPAN_EMPTY;
}

static struct span of_tls(struct span name, const struct tls_info *t, char *to, size_t size) {
    if (span_eq(name, SPAN("tls_version")))
        return span_of(t->version);
    if (span_eq(name, SPAN("cipher")))
        return span_of(t->cipher);
    if (span_eq(name, SPAN("cipher_bits")))
        return number(t->bits, to, size);
    if (span_eq(name, SPAN("cert_subject")) && t->has_peer)
        return span_of(t->peer_subject);
    if (span_eq(name, SPAN("cert_issuer")) && t->has_peer)
        return span_of(t->peer_issuer);
    return SPAN_EMPTY;
}

static struct span of_transaction(struct span name, const struct check_facts *f) {
    if (span_eq(name, SPAN("i")))
        return f->id;
    if (span_eq(name, SPAN("auth_type")))
        return f->mechanism;
    if (span_eq(name, SPAN("auth_authen")))
        return f->account;
    if (span_eq(name, SPAN("mail_addr")))
        return f->sender;
    if (span_eq(name, SPAN("mail_host")))
        return host_of(f->sender);
    if (span_eq(name, SPAN("rcpt_addr")))
        return f->recipient;
    if (span_eq(name, SPAN("rcpt_host")))
        return host_of(f->recipient);
    if (span_eq(name, SPAN("mail_mailer")) || span_eq(name, SPAN("rcpt_mailer")))
        return SPAN("smtp");
    return SPAN_EMPTY;
}

static struct span value_of(struct span name, const struct check_facts *f, char *to, size_t size) {
    if (name.len > 2 && name.at[0] == '{' && name.at[name.len - 1] == '}')
        name = span_make(name.at + 1, name.len - 2);
    struct span value = of_session(name, f, to, size);
    if (!value.len && f->tls)
        value = of_tls(name, f->tls, to, size);
    return value.len ? value : of_transaction(name, f);
}

void milter_pack_macros(struct buf *to, const char *named, enum milter_list list, char command,
                        const struct check_facts *f) {
    char text[VALUE_MAX];
    struct span names = span_of(named ? named : lists[list]);
    size_t place = milter_pack_begin(to, MILTER_MACRO);
    buf_add_byte(to, command);
    for (unsigned n = 0; names.len && n < NAMES_MAX; n++) {
        struct span name = span_cut(names, ' ', &names);
        struct span value = value_of(name, f, text, sizeof text);
        if (!value.len)
            continue;
        milter_pack_string(to, name, VALUE_MAX);
        milter_pack_string(to, value, VALUE_MAX);
    }
    milter_pack_end(to, place);
}
