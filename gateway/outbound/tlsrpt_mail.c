/*
 * tlsrpt_mail: a report as mail (RFC 8460 section 5.3): multipart/report with a text and the packed report. It asks to
 * be sent whatever TLS says ("TLS-Required: No", RFC 8689), since it may be about the very thing that hinders it.
 */
#include <stdio.h>

#include "base/base64.h"
#include "base/clock.h"

#include "gateway/outbound/tlsrpt_in.h"

enum { LINE_OCTETS = 57 }; /* 76 characters of base64 */

static void add_base64(struct buf *to, struct span s) {
    for (; s.len; s = span_from(s, LINE_OCTETS)) {
        base64_encode(span_first(s, LINE_OCTETS), to);
        buf_add_str(to, "\r\n");
    }
}

static void add_header(const struct tlsrpt *t, const struct tlsrpt_domain *d, const char *address, uint64_t wall_ms,
                       const char *id, struct buf *to) {
    char date[40];
    clock_rfc5322(wall_ms, date, sizeof date);
    buf_printf(to, "From: <%s>\r\nTo: <%s>\r\nDate: %s\r\nMessage-ID: <tlsrpt.%s>\r\n", t->c.from, address, date, id);
    buf_printf(to, "Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>\r\n", d->name, t->c.hostname, id);
    buf_printf(to, "TLS-Report-Domain: %s\r\nTLS-Report-Submitter: %s\r\n", d->name, t->c.hostname);
    buf_add_str(to, "TLS-Required: No\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n");
    buf_printf(to, "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"=_%.27s\"\r\n\r\n", id);
}

int tlsrpt_mail_write(const struct tlsrpt *t, const struct tlsrpt_domain *d, const char *to_address, struct span packed,
                      uint64_t wall_ms, struct buf *to) {
    char id[300], day[32];
    tlsrpt_report_id(t, d, id, sizeof id);
    clock_rfc3339(d->start_ms, day, sizeof day);
    add_header(t, d, to_address, wall_ms, id, to);
    /* The id begins with a day and 16 hex digits, so that it is a boundary that base64 and this text cannot hold. */
    buf_printf(to, "--=_%.27s\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
               id);
    buf_printf(to, "This is a report about TLS between %s\r\nand the mail servers of %s\r\non %.10s (UTC).\r\n\r\n",
               t->c.hostname, d->name, day);
    buf_printf(to, "--=_%.27s\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n", id);
    buf_printf(to, "Content-Disposition: attachment;\r\n filename=\"%s!%s!%llu!%llu.json.gz\"\r\n\r\n", t->c.hostname,
               d->name, (unsigned long long)(d->start_ms / 1000),
               (unsigned long long)((d->start_ms + TLSRPT_DAY_MS) / 1000 - 1));
    add_base64(to, packed);
    buf_printf(to, "--=_%.27s--\r\n", id);
    return to->err;
}
