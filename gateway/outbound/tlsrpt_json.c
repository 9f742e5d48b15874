/*
 * tlsrpt_json: a report as the JSON of RFC 8460 section 4.4. Texts of strangers are escaped; what is not known is
 * left out, not written as an empty text.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/hash.h"

#include "gateway/outbound/tlsrpt_in.h"

static void add_text(struct buf *to, const char *text) {
    buf_add_byte(to, '"');
    buf_add_json(to, span_of(text));
    buf_add_byte(to, '"');
}

/* A member that is not the first of its object. */
static void add_member(struct buf *to, const char *name, const char *text) {
    if (!text[0])
        return;
    buf_printf(to, ",\"%s\":", name);
    add_text(to, text);
}

static void add_time(struct buf *to, const char *name, uint64_t wall_ms) {
    char time[32];
    clock_rfc3339(wall_ms, time, sizeof time);
    buf_printf(to, "\"%s\":\"%.19sZ\"", name, time); /* whole seconds */
}

/* Two nodes report the same domain and day as two reports; one that is repeated keeps its id. */
void tlsrpt_report_id(const struct tlsrpt *t, const struct tlsrpt_domain *d, char *to, size_t size) {
    char time[32];
    clock_rfc3339(d->start_ms, time, sizeof time);
    uint64_t hash = hash_bytes(d->name, strlen(d->name), hash_bytes(t->c.name, strlen(t->c.name), d->start_ms));
    snprintf(to, size, "%.10s.%016llx@%.200s", time, (unsigned long long)hash, t->c.hostname);
}

static void add_lines(struct buf *to, const struct tlsrpt_rules *r) {
    buf_add_str(to, ",\"policy-string\":[");
    for (size_t i = 0; i < r->line_count; i++) {
        buf_add_str(to, i ? "," : "");
        add_text(to, r->lines[i]);
    }
    buf_add_byte(to, ']');
}

/* The patterns of an MTA-STS policy. */
static void add_patterns(struct buf *to, const struct tlsrpt_rules *r) {
    bool any = false;
    for (size_t i = 0; i < r->line_count; i++) {
        struct span value, name = span_cut(span_of(r->lines[i]), ':', &value);
        if (!span_eq(name, SPAN("mx")))
            continue;
        buf_add_str(to, any ? ",\"" : ",\"mx-host\":[\"");
        buf_add_json(to, span_trim(value));
        buf_add_byte(to, '"');
        any = true;
    }
    buf_add_str(to, any ? "]" : "");
}

static void add_row(struct buf *to, const struct tlsrpt_row *row) {
    buf_printf(to, "{\"result-type\":\"%s\"", tlsrpt_result_name(row->result));
    add_member(to, "sending-mta-ip", row->sending_ip);
    add_member(to, "receiving-mx-hostname", row->mx);
    add_member(to, "receiving-ip", row->receiving_ip);
    buf_printf(to, ",\"failed-session-count\":%llu", (unsigned long long)row->count);
    add_member(to, "failure-reason-code", row->reason);
    buf_add_byte(to, '}');
}

static void add_rules(struct buf *to, const struct tlsrpt_domain *d, const struct tlsrpt_rules *r) {
    static const char *const types[] = {"no-policy-found", "sts", "tlsa"};
    buf_printf(to, "{\"policy\":{\"policy-type\":\"%s\"", types[r->policy]);
    if (r->policy != TLSRPT_NO_POLICY)
        add_lines(to, r);
    add_member(to, "policy-domain", d->name);
    if (r->policy == TLSRPT_STS)
        add_patterns(to, r);
    buf_printf(to, "},\"summary\":{\"total-successful-session-count\":%llu,\"total-failure-session-count\":%llu}",
               (unsigned long long)r->good, (unsigned long long)r->bad);
    if (r->rows) {
        buf_add_str(to, ",\"failure-details\":[");
        for (const struct tlsrpt_row *row = r->rows; row; row = row->next) {
            add_row(to, row);
            buf_add_str(to, row->next ? "," : "]");
        }
    }
    buf_add_byte(to, '}');
}

void tlsrpt_json(const struct tlsrpt *t, const struct tlsrpt_domain *d, struct buf *to) {
    char id[300];
    tlsrpt_report_id(t, d, id, sizeof id);
    buf_add_str(to, "{\"organization-name\":");
    add_text(to, t->c.organization);
    buf_add_str(to, ",\"date-range\":{");
    add_time(to, "start-datetime", d->start_ms);
    buf_add_byte(to, ',');
    add_time(to, "end-datetime", d->start_ms + TLSRPT_DAY_MS - 1000);
    buf_add_byte(to, '}');
    add_member(to, "contact-info", t->c.contact);
    add_member(to, "report-id", id);
    buf_add_str(to, ",\"policies\":[");
    for (const struct tlsrpt_rules *r = d->rules; r; r = r->next) {
        add_rules(to, d, r);
        buf_add_str(to, r->next ? "," : "");
    }
    buf_add_str(to, "]}\n");
}
