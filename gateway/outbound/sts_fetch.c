/*
 * sts_fetch: one look-up of a policy: the TXT record, and when it announces something new, the policy over HTTPS.
 *
 * A record that is lost, doubled or malformed is no record (RFC 8461 section 3.1): what is cached stays in force. A
 * fetch that fails is not repeated for a while, and is told to whoever counts for TLS reports.
 */
#include <stdio.h>

#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/outbound/sts_in.h"

METRIC_COUNTER(metric_fetches, "posthouse_sts_fetches_total", "MTA-STS policies asked for over HTTPS")
METRIC_COUNTER(metric_failed, "posthouse_sts_fetches_failed_total",
               "MTA-STS policies that did not come or were invalid")

enum { RECORD_MAX = 1024, NAME_BUF = 300, URL_MAX = 400 };
enum { RECORD_MS_MIN = 60000, RECORD_MS_MAX = 24 * 3600000, ABSENT_MS_MAX = 3600000, LOST_MS = 30000 };

/* -- HTTPS -- */

static void fail(struct sts_entry *e, enum sts_failure failure, const char *kind, const char *why) {
    struct sts *s = e->s;
    metric_add(&metric_failed, 1);
    LOG_WARN("sts_fetch_failed", LOG_STR("domain", e->name), LOG_STR("kind", kind), LOG_STR("why", why),
             LOG_STR("cached", e->policy ? "yes" : "no"));
    e->fetch_from_ms = sts_now(s) + s->failure_ms;
    e->why = kind;
    if (s->failed)
        s->failed(s->failed_arg, e->name, failure, why);
    sts_settle(e);
}

/* Guards against hosts where strangers can put files; a server that says nothing is believed. */
static bool is_plain_text(struct span content_type) {
    struct span parameters;
    return content_type.len == 0 ||
           span_eq_nocase(span_trim(span_cut(content_type, ';', &parameters)), SPAN("text/plain"));
}

static void take(struct sts_entry *e, struct span text) {
    struct sts *s = e->s;
    struct sts_policy *p;
    const char *why;
    int err = sts_policy_parse(&p, text, span_of(e->id), sts_now(s), &why);
    if (err) {
        fail(e, STS_POLICY_BAD, "the MTA-STS policy is invalid", err == ERR_NOMEM ? err_text(err) : why);
        return;
    }
    LOG_INFO("sts_policy", LOG_STR("domain", e->name), LOG_STR("mode", sts_mode_name(p->mode)), LOG_STR("id", p->id),
             LOG_U64("max_age", p->max_age_s));
    sts_entry_set_policy(e, p);
    e->fetch_from_ms = sts_now(s) + s->failure_ms; /* one with a short life is not fetched for every mail */
    e->why = "";
    sts_settle(e);
}

static void on_policy(void *arg, const struct http_answer *a) {
    struct sts_entry *e = arg;
    char status[64];
    e->request = NULL;
    if (a->err == ERR_DENIED) {
        fail(e, STS_WEBPKI, "the MTA-STS host's certificate is not valid", a->why);
    } else if (a->err == ERR_FULL) {
        fail(e, STS_POLICY_BAD, "the MTA-STS policy is invalid", a->why);
    } else if (a->err) {
        fail(e, STS_FETCH_ERROR, "the MTA-STS policy cannot be fetched", a->why);
    } else if (a->status != 200) { /* redirects, too (section 3.3) */
        snprintf(status, sizeof status, "HTTP status %u", (unsigned)a->status);
        fail(e, STS_FETCH_ERROR, "the MTA-STS policy cannot be fetched", status);
    } else if (!is_plain_text(a->content_type)) {
        fail(e, STS_POLICY_BAD, "the MTA-STS policy is invalid", "not text/plain");
    } else {
        take(e, a->body);
    }
}

static void fetch(struct sts_entry *e) {
    struct sts *s = e->s;
    char url[URL_MAX];
    snprintf(url, sizeof url, "https://mta-sts.%s/.well-known/mta-sts.txt", e->name);
    const struct http_question q = {.method = "GET",
                                    .url = url,
                                    .timeout_ms = STS_FETCH_MS,
                                    .answer_max = STS_TEXT_MAX,
                                    .connect_to = s->connect_to};
    metric_add(&metric_fetches, 1);
    sts_move(e, STS_FETCH);
    e->request = http_ask(s->http, &q, on_policy, e);
    if (!e->request)
        fail(e, STS_FETCH_ERROR, "the MTA-STS policy cannot be fetched", "too many HTTP requests");
}

void sts_begin_fetch(struct sts_entry *e) {
    if (e->s->fetches < STS_FETCHES_MAX)
        fetch(e);
    else
        sts_move(e, STS_LINE);
}

/* -- TXT -- */

/* The id that the one record announces; NULL and e->why: there is none. */
static bool read_records(struct sts_entry *e, const struct dns_answer *a, char id[STS_ID_MAX + 1]) {
    unsigned found = 0;
    bool valid = false;
    for (size_t i = 0; i < a->count; i++) {
        char text[RECORD_MAX];
        struct span one;
        size_t len = dns_record_text(&a->records[i], text, sizeof text);
        int err = sts_record_parse(span_make(text, len < sizeof text ? len : sizeof text - 1), &one);
        if (err == ERR_NOT_FOUND)
            continue;
        found++;
        valid = err == ERR_OK && len < sizeof text;
        if (valid)
            span_copy(one, id, STS_ID_MAX + 1);
    }
    e->why = found > 1 ? "several MTA-STS records" : found && !valid ? "a malformed MTA-STS record" : "";
    return found == 1 && valid;
}

static uint64_t keep_ms(const struct dns_answer *a, bool found) {
    uint64_t ms = (uint64_t)a->ttl_s * 1000, most = found ? RECORD_MS_MAX : ABSENT_MS_MAX;
    if (a->status == DNS_TEMPFAIL || a->status == DNS_LOOP)
        return LOST_MS;
    return ms < RECORD_MS_MIN ? RECORD_MS_MIN : ms > most ? most : ms;
}

static void on_txt(void *arg, const struct dns_answer *a) {
    struct sts_entry *e = arg;
    uint64_t now = sts_now(e->s);
    char id[STS_ID_MAX + 1] = "";
    bool found = a->status == DNS_OK && read_records(e, a, id);
    bool lost = a->status == DNS_TEMPFAIL || a->status == DNS_LOOP;
    CHECK(e->state == STS_TXT);
    e->record_until_ms = now + keep_ms(a, found);
    if (lost)
        e->why = "the DNS did not say whether there is an MTA-STS policy";
    else if (a->status != DNS_OK)
        e->why = "";
    if (!found) {
        if (!lost)
            e->id[0] = '\0';
        sts_settle(e);
        return;
    }
    bool in_force = e->policy && e->policy->expires_ms > now;
    bool same = in_force && span_eq(span_of(e->policy->id), span_of(id));
    bool announced = span_eq(span_of(e->id), span_of(id));
    span_copy(span_of(id), e->id, sizeof e->id);
    /* A new id may be tried at once after a success, not after a failure. */
    bool may = e->fetch_from_ms <= now ||
               (in_force && !announced && e->policy->fetched_ms + e->s->failure_ms == e->fetch_from_ms);
    if (may && (!same || e->anew))
        sts_begin_fetch(e);
    else
        sts_settle(e);
}

void sts_begin_txt(struct sts_entry *e) {
    struct sts *s = e->s;
    char name[NAME_BUF];
    snprintf(name, sizeof name, "_mta-sts.%s", e->name);
    sts_move(e, STS_TXT);
    s->query(s->dns, name, DNS_TXT, on_txt, e);
}
