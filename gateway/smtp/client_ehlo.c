/*
 * client_ehlo: what the lines of an EHLO reply offer. Keywords that we do not use and
 * parameters that we cannot read are passed over: a server owes us nothing here.
 */
#include "gateway/smtp/client.h"

static uint32_t limit(struct span value) {
    uint64_t n;
    if (!span_u64(value, &n) || n == 0)
        return 0;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* "RCPTMAX=100 MAILMAX=50" (RFC 9422) */
static void read_limits(struct client_extensions *ext, struct span rest) {
    while (rest.len) {
        struct span word = span_cut(rest, ' ', &rest), value;
        struct span name = span_cut(word, '=', &value);
        if (span_eq_nocase(name, SPAN("RCPTMAX")))
            ext->rcpt_max = limit(value);
        else if (span_eq_nocase(name, SPAN("MAILMAX")))
            ext->mail_max = limit(value);
    }
}

void client_ehlo_line(struct client_extensions *ext, struct span line) {
    struct span rest;
    struct span word = span_cut(span_trim(line), ' ', &rest);
    rest = span_trim(rest);
    if (span_eq_nocase(word, SPAN("PIPELINING"))) {
        ext->pipelining = true;
    } else if (span_eq_nocase(word, SPAN("8BITMIME"))) {
        ext->eight_bit = true;
    } else if (span_eq_nocase(word, SPAN("SMTPUTF8"))) {
        ext->smtputf8 = true;
    } else if (span_eq_nocase(word, SPAN("DSN"))) {
        ext->dsn = true;
    } else if (span_eq_nocase(word, SPAN("CHUNKING"))) {
        ext->chunking = true;
    } else if (span_eq_nocase(word, SPAN("STARTTLS"))) {
        ext->starttls = true;
    } else if (span_eq_nocase(word, SPAN("SIZE"))) {
        uint64_t n;
        ext->size = true;
        ext->size_max = span_u64(rest, &n) ? n : 0;
    } else if (span_eq_nocase(word, SPAN("LIMITS"))) {
        read_limits(ext, rest);
    } else if (span_eq_nocase(word, SPAN("DELIVERBY"))) {
        uint64_t n;
        ext->deliver_by = true;
        ext->deliver_by_min_s = span_u64(rest, &n) ? n : 0;
    } else if (span_eq_nocase(word, SPAN("MT-PRIORITY"))) {
        ext->mt_priority = true;
    } else if (span_eq_nocase(word, SPAN("AUTH"))) {
        span_copy(rest, ext->auth, sizeof ext->auth);
    } else if (span_eq_nocase(word, SPAN("REQUIRETLS"))) {
        ext->requiretls = true;
    } else if (span_eq_nocase(word, SPAN("XCLIENT"))) {
        ext->xclient = client_attrs_offered(CLIENT_ATTRS_XCLIENT, rest);
    } else if (span_eq_nocase(word, SPAN("XFORWARD"))) {
        ext->xforward = client_attrs_offered(CLIENT_ATTRS_XFORWARD, rest);
    }
}
