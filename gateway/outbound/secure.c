/*
 * secure: see secure.h. Questions about TLS stand between the hosts and the site (MTA-STS), and between a host and its
 * connection (DANE); their answers may come at once, and an attempt may have ended when a call returns.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/rand.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/post_mail.h"

METRIC_COUNTER_L(skipped_sts, "posthouse_delivery_hosts_skipped_total", "why=\"mta_sts\"",
                 "Hosts that TLS policy did not let us ask")
METRIC_COUNTER_L(skipped_dane, "posthouse_delivery_hosts_skipped_total", "why=\"dane\"",
                 "Hosts that TLS policy did not let us ask")
METRIC_COUNTER_L(skipped_requiretls, "posthouse_delivery_hosts_skipped_total", "why=\"requiretls\"",
                 "Hosts that TLS policy did not let us ask")

/* -- the domain -- */

static bool is_within_host(const struct attempt *a) {
    return a->route.kind == ROUTE_LMTP && span_starts_nocase(span_of(a->route.host), SPAN("unix:"));
}

static struct tls_demand_question question(const struct attempt *a) {
    return (struct tls_demand_question){.domain = a->destination,
                                        .is_route = a->route.kind != ROUTE_MX,
                                        .within_host = is_within_host(a),
                                        .mx_authentic = a->secure.mx_authentic,
                                        .requiretls = a->job->has_requiretls && a->job->requiretls,
                                        .tls_required_no = a->job->has_tls_required_no && a->job->tls_required_no};
}

static void decide(struct attempt *a, struct sts_policy *policy) {
    struct secure *s = &a->secure;
    struct tls_demand_question q = question(a);
    q.sts = policy;
    tls_demand_init(&s->demand, &a->setup->s.tls, &q);
    s->has_demand = true;
    tls_demand_tag(&s->demand, s->tag);
    const char *name = *s->tag ? arena_printf(&a->mem, "%s%s", s->site, s->tag) : s->site;
    attempt_join(a, name);
}

static void on_sts(void *arg, struct sts_policy *policy, const char *why) {
    (void)why;
    decide(arg, policy);
}

void secure_begin(struct attempt *a, const char *site, bool mx_authentic) {
    struct secure *s = &a->secure;
    s->mx_authentic = mx_authentic;
    s->site = login_site(&a->mem, site, a->rule ? a->rule->login : NULL, a->o->login_key);
    struct tls_demand_question q = question(a);
    if (s->site && a->o->sts && tls_demand_wants_sts(&a->setup->s.tls, &q))
        sts_ask(a->o->sts, &s->sts, a->destination, clock_wall_ms(), on_sts, a);
    else
        decide(a, NULL);
}

void secure_end(struct attempt *a) {
    sts_cancel(&a->secure.sts);
    dane_cancel(&a->secure.dane);
    if (a->secure.has_demand)
        tls_demand_deinit(&a->secure.demand);
    a->secure.has_demand = false;
}

/* -- the host -- */

static void count_skipped(enum tls_host_verdict v) {
    metric_add(v == TLS_HOST_NOT_IN_POLICY ? &skipped_sts
               : v == TLS_HOST_NOT_VOUCHED ? &skipped_requiretls
                                           : &skipped_dane,
               1);
}

static void report(struct attempt *a, enum tlsrpt_result result, const char *mx, const struct tcp_addr *to,
                   const char *reason);

/* This host is not asked: as one that did not answer, or for REQUIRETLS one that never will. */
static void skip_host(struct attempt *a, enum tls_host_verdict v) {
    bool never = v == TLS_HOST_NOT_VOUCHED;
    struct attempt_result r = {
        .verdict = {OUTCOME_DEFERRED, SCOPE_HOST, OUTCOME_NEXT_HOST, never, "4.7.5", tls_host_verdict_text(v)},
        .enhanced = never ? SPAN("5.7.10") : SPAN("4.7.5"),
        .text = span_of(tls_host_verdict_text(v)),
        .remote = arena_dup(&a->mem, span_of(a->target.host))};
    count_skipped(v);
    if (v == TLS_HOST_NO_TLSA)
        report(a, TLSRPT_DNSSEC_INVALID, a->target.host, &a->target.addr, a->secure.dane.answer.why);
    else if (v == TLS_HOST_NEEDS_TLSA)
        report(a, TLSRPT_DANE_REQUIRED, a->target.host, &a->target.addr, NULL);
    else if (v == TLS_HOST_NOT_IN_POLICY)
        report(a, TLSRPT_VALIDATION_FAILURE, a->target.host, &a->target.addr, "host not in MTA-STS policy");
    attempt_skip_host(a, &r);
}

static bool judge(struct attempt *a, const struct dane_answer *dane) {
    struct secure *s = &a->secure;
    enum tls_host_verdict v = tls_judge_host(&s->demand, a->target.host, dane, &s->target);
    s->judged = v == TLS_HOST_FINE;
    if (!s->judged)
        skip_host(a, v);
    return s->judged;
}

static void on_dane(void *arg, const struct dane_answer *answer) {
    struct attempt *a = arg;
    bool later = a->judging; /* the call that asked has returned */
    a->judging = false;
    if (judge(a, answer) && later)
        attempt_go_to_target(a);
}

bool secure_target(struct attempt *a) {
    struct secure *s = &a->secure;
    bool named = a->target.addr.storage.ss_family != AF_UNIX && a->target.host[0] != '[';
    if (s->judged)
        return true;
    if (!s->demand.dane || !named)
        return judge(a, NULL);
    dane_cancel(&s->dane);
    a->judging = false;
    a->state = ATTEMPT_JUDGING;
    uint64_t number = a->job->attempt;
    uint32_t target = a->targets;
    struct outbound *o = a->o;
    dane_start(&s->dane, o->cache, a->target.host, tcp_addr_port(&a->target.addr), loop_now_ms(o->loop), on_dane, a);
    if (attempt_find(o, number) != a || a->targets != target) /* it has ended in the call, or gone on by itself */
        return false;
    a->judging = !s->judged;
    return s->judged;
}

bool secure_may_fall_back(struct attempt *a, const struct client_event *e) {
    struct secure *s = &a->secure;
    bool tls = e->stage == CLIENT_STARTTLS || e->stage == CLIENT_SHAKING;
    if (!tls || s->plain || s->target.level != TLS_LEVEL_MAY || e->answer == CLIENT_ANSWER_421)
        return false;
    s->plain = true;
    return true;
}

bool secure_is_final(const struct attempt *a, const struct client_event *e) {
    return a->secure.demand.requiretls && (e->stage == CLIENT_STARTTLS || e->stage == CLIENT_SHAKING);
}

/* -- reports -- */

static enum tlsrpt_result result_of_fault(enum tls_fault f) {
    switch (f) {
    case TLS_FAULT_NAME:
        return TLSRPT_CERTIFICATE_HOST_MISMATCH;
    case TLS_FAULT_EXPIRED:
        return TLSRPT_CERTIFICATE_EXPIRED;
    case TLS_FAULT_TRUST:
        return TLSRPT_CERTIFICATE_NOT_TRUSTED;
    default:
        return TLSRPT_VALIDATION_FAILURE;
    }
}

enum { TLSA_LINES = 8, TLSA_LINE_MAX = 200 };

/* "3 1 1 hex…": what the DNS demands. */
static size_t tlsa_lines(const struct dane_answer *d, char lines[TLSA_LINES][TLSA_LINE_MAX]) {
    size_t count = 0;
    for (size_t i = 0; d && i < d->count && count < TLSA_LINES; i++) {
        const struct tls_dane_record *r = &d->records[i];
        int len = snprintf(lines[count], TLSA_LINE_MAX, "%u %u %u ", r->usage, r->selector, r->matching);
        for (size_t k = 0; k < r->len && len + 3 < TLSA_LINE_MAX; k++)
            len += snprintf(lines[count] + len, TLSA_LINE_MAX - (size_t)len, "%02x", r->data[k]);
        count++;
    }
    return count;
}

static void report(struct attempt *a, enum tlsrpt_result result, const char *mx, const struct tcp_addr *to,
                   const char *reason) {
    char lines[TLSA_LINES][TLSA_LINE_MAX], ip[128] = "";
    const char *at[TLSA_LINES];
    const struct secure *s = &a->secure;
    if (!a->o->tlsrpt || a->route.kind != ROUTE_MX)
        return;
    struct tlsrpt_event e = {
        .domain = a->destination, .result = result, .mx = mx, .receiving_ip = ip, .reason = reason};
    tcp_addr_ip(to, ip, sizeof ip);
    if (s->target.dane) {
        e.policy = TLSRPT_TLSA;
        e.line_count = tlsa_lines(s->target.dane, lines);
        for (size_t i = 0; i < e.line_count; i++)
            at[i] = lines[i];
        e.lines = at;
    } else if (s->demand.sts) {
        e.policy = TLSRPT_STS;
        e.lines = s->demand.sts->lines;
        e.line_count = s->demand.sts->line_count;
    }
    tlsrpt_count(a->o->tlsrpt, clock_wall_ms(), &e);
}

void secure_count(struct attempt *a, const struct conn *c, const struct client_event *end) {
    const char *mx = a->target.host ? a->target.host : "";
    if (!end && c->client.secured)
        report(a, c->secure_sts_failed ? result_of_fault(tcp_tls_info(c->tcp)->fault) : TLSRPT_SUCCESS, mx, &c->addr,
               NULL);
    else if (!end && !a->secure.plain && c->client.tls != CLIENT_TLS_NEVER)
        report(a, TLSRPT_STARTTLS_NOT_SUPPORTED, mx, &c->addr, NULL);
    else if (end && end->stage == CLIENT_STARTTLS)
        report(a, TLSRPT_STARTTLS_NOT_SUPPORTED, mx, &c->addr, NULL);
    else if (end && end->stage == CLIENT_SHAKING)
        report(a, result_of_fault(c->fault), mx, &c->addr, c->tls_why);
}

/* -- the node -- */

static void on_sts_failed(void *arg, const char *domain, enum sts_failure failure, const char *why) {
    static const enum tlsrpt_result results[] = {[STS_FETCH_ERROR] = TLSRPT_STS_POLICY_FETCH_ERROR,
                                                 [STS_POLICY_BAD] = TLSRPT_STS_POLICY_INVALID,
                                                 [STS_WEBPKI] = TLSRPT_STS_WEBPKI_INVALID};
    struct outbound *o = arg;
    if (!o->tlsrpt)
        return;
    struct tlsrpt_event e = {.domain = domain, .policy = TLSRPT_STS, .result = results[failure], .reason = why};
    tlsrpt_count(o->tlsrpt, clock_wall_ms(), &e);
}

/* Reports that are mailed are submitted as a gateway submits. */
static int open_reports(struct outbound *o) {
    const struct outbound_tls_reports *r = &o->setup->s.tls.reports;
    struct tlsrpt_config c = {.organization = r->organization,
                              .contact = r->contact,
                              .hostname = o->setup->s.hostname,
                              .name = o->setup->s.name,
                              .from = r->from,
                              .file = r->file,
                              .jitter_ms = r->spread_ms,
                              .query = o->query,
                              .dns = o->dns};
    rand_secure(&c.seed, sizeof c.seed);
    if (!r->organization)
        return ERR_OK;
    if (r->from) {
        const struct outbound_config *k = &o->config;
        int err = post_mail_open(&o->post_mail, k->bus, o->loop, k->scheduler, "tls reports", k->sign, k->sign_arg);
        if (err)
            return err;
        c.mailer = post_mail_send;
        c.mailer_arg = o->post_mail;
    }
    return tlsrpt_new(&o->tlsrpt, o->loop, o->http, &c, clock_wall_ms());
}

int secure_open(struct outbound *o) {
    const struct outbound_tls *t = &o->setup->s.tls;
    const struct http_config h = {.ca_file = t->ca_file};
    const struct sts_config c = {.file = t->sts_file,
                                 .connect_to = t->sts_connect_to,
                                 .query = o->query,
                                 .dns = o->dns,
                                 .failed = on_sts_failed,
                                 .failed_arg = o};
    int err = http_new(&o->http, o->loop, &h);
    if (!err && t->mta_sts)
        err = sts_new(&o->sts, o->loop, o->http, &c, clock_wall_ms());
    if (!err)
        err = open_reports(o);
    return err;
}

void secure_tick(struct outbound *o) {
    uint64_t now = clock_wall_ms();
    if (o->sts)
        sts_tick(o->sts, now);
    if (o->post_mail)
        post_mail_tick(o->post_mail);
    if (o->tlsrpt)
        tlsrpt_tick(o->tlsrpt, now);
}

void secure_close(struct outbound *o) {
    if (o->sts)
        sts_free(o->sts);
    if (o->post_mail)
        post_mail_close(o->post_mail);
    if (o->tlsrpt)
        tlsrpt_free(o->tlsrpt);
    if (o->http)
        http_free(o->http);
    o->sts = NULL;
    o->tlsrpt = NULL;
    o->post_mail = NULL;
    o->http = NULL;
}
