/*
 * tlspolicy: see tlspolicy.h. Pure: settings and what was found out are arguments.
 */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/net/secret.h"

#include "gateway/outbound/tlspolicy.h"

enum { STS_MARK = 10 /* octets */ };

const char *tls_level_name(enum tls_level level) {
    static const char *const names[] = {"none", "may", "encrypt", "verify", "dane", "fingerprint"};
    return (size_t)level < sizeof names / sizeof *names ? names[level] : "?";
}

/* How much of the domain a rule's domain names; 0: it is not for it. */
static size_t fit(struct span rule, struct span domain) {
    if (span_eq(rule, SPAN("*")))
        return 1;
    if (rule.len && rule.at[0] == '.') {
        struct span bare = span_from(rule, 1);
        return span_eq(domain, bare) || span_ends_nocase(domain, rule) ? 1 + bare.len : 0;
    }
    return span_eq(rule, domain) ? 2 + rule.len : 0;
}

const struct outbound_tls_rule *tls_rule_find(const struct outbound_tls *settings, struct span domain) {
    const struct outbound_tls_rule *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < settings->rule_count; i++) {
        size_t f = fit(span_of(settings->rules[i].domain), domain);
        if (f > most) {
            most = f;
            best = &settings->rules[i];
        }
    }
    return best;
}

bool tls_demand_wants_sts(const struct outbound_tls *settings, const struct tls_demand_question *q) {
    return settings->mta_sts && !q->is_route && !q->tls_required_no && !tls_rule_find(settings, span_of(q->domain));
}

static bool verifies(enum tls_level level) {
    return level >= TLS_LEVEL_VERIFY;
}

void tls_demand_init(struct tls_demand *d, const struct outbound_tls *settings, const struct tls_demand_question *q) {
    *d = (struct tls_demand){
        .level = settings->level, .domain = q->domain, .why = "the default", .vouched = q->mx_authentic || q->is_route};
    d->rule = q->within_host ? NULL : tls_rule_find(settings, span_of(q->domain));
    if (q->within_host) {
        d->level = TLS_LEVEL_NONE;
        d->why = "it stays on this host";
    } else if (d->rule) {
        d->level = d->rule->level;
        d->why = "a setting";
        d->dane = d->level == TLS_LEVEL_DANE;
    } else if (q->is_route) {
        d->level = settings->route_level;
        d->why = "the default for routes";
    } else if (q->tls_required_no) {
        d->level = TLS_LEVEL_MAY;
        d->why = "TLS-Required: no";
        d->of_message = true;
    } else {
        d->dane = settings->dane && q->mx_authentic && d->level != TLS_LEVEL_NONE;
        if (q->sts && q->sts->mode != STS_NONE)
            d->sts = sts_policy_ref(q->sts);
        if (d->sts && d->sts->mode == STS_ENFORCE && !verifies(d->level)) {
            d->level = TLS_LEVEL_VERIFY;
            d->why = "MTA-STS";
        }
    }
    d->requiretls = q->requiretls && !q->within_host;
    d->of_message |= d->requiretls;
    if (d->requiretls && !verifies(d->level)) {
        d->level = TLS_LEVEL_VERIFY;
        d->why = "REQUIRETLS";
    }
}

void tls_demand_deinit(struct tls_demand *d) {
    if (d->sts)
        sts_policy_unref(d->sts);
    d->sts = NULL;
}

/* The patterns of a policy decide which connections serve it. Strangers choose them: nobody may find other patterns
 * with the same mark, and take mail for the hosts of somebody else's. */
static void sts_mark(const struct sts_policy *p, char to[2 * STS_MARK + 1]) {
    uint8_t both[64] = {0};
    for (size_t i = 0; i < p->mx_count; i++) {
        secret_sha256(span_of(p->mx[i]), both + 32);
        secret_sha256(span_make((const char *)both, sizeof both), both);
    }
    for (size_t i = 0; i < STS_MARK; i++)
        snprintf(to + 2 * i, 3, "%02x", both[i]);
}

static uint32_t rule_mark(const struct outbound_tls_rule *r) {
    uint64_t h = hash_span(span_of(r->domain), 0);
    for (size_t i = 0; i < r->name_count; i++)
        h = hash_span(span_of(r->names[i]), h);
    for (size_t i = 0; i < r->fingerprint_count; i++)
        h = hash_span(span_of(r->fingerprints[i]), h);
    return (uint32_t)h;
}

/* A level above MAY is always a part: messages may ask for less, and new settings for more. */
void tls_demand_tag(const struct tls_demand *d, char to[TLSPOLICY_TAG_MAX]) {
    const char *required = d->requiretls ? "+requiretls" : "";
    bool strict = d->level > TLS_LEVEL_MAY && !d->requiretls;
    char mark[2 * STS_MARK + 1];
    if (d->rule && (d->rule->name_count || d->rule->fingerprint_count)) {
        snprintf(to, TLSPOLICY_TAG_MAX, "+%s:%08x%s", tls_level_name(d->level), rule_mark(d->rule), required);
    } else if (d->rule) {
        snprintf(to, TLSPOLICY_TAG_MAX, "+%s%s", tls_level_name(d->level), required);
    } else if (d->sts && d->sts->mode == STS_ENFORCE) {
        sts_mark(d->sts, mark);
        snprintf(to, TLSPOLICY_TAG_MAX, "+sts:%s%s", mark, required);
    } else {
        snprintf(to, TLSPOLICY_TAG_MAX, "%s%s%s%s", strict ? "+" : "", strict ? tls_level_name(d->level) : "",
                 d->dane ? "+tlsa" : "", required);
    }
}

enum tls_host_verdict tls_judge_host(const struct tls_demand *d, const char *host, const struct dane_answer *dane,
                                     struct tls_target *out) {
    *out = (struct tls_target){.level = d->level, .demand = d};
    if (d->sts && d->sts->mode == STS_ENFORCE && !sts_allows(d->sts, host))
        return TLS_HOST_NOT_IN_POLICY;
    if (dane && dane->status == DANE_FAILED)
        return TLS_HOST_NO_TLSA;
    if (dane && dane->status == DANE_USABLE && d->level != TLS_LEVEL_FINGERPRINT) {
        out->level = TLS_LEVEL_DANE;
        out->dane = dane;
        return TLS_HOST_FINE;
    }
    if (d->level == TLS_LEVEL_DANE)
        return TLS_HOST_NEEDS_TLSA;
    if (dane && dane->status == DANE_UNUSABLE && d->level < TLS_LEVEL_ENCRYPT)
        out->level = TLS_LEVEL_ENCRYPT;
    /* A name that anybody could have put into the DNS is worth nothing (RFC 8689 section 4.2.1). */
    bool named = d->vouched || d->rule || (d->sts && d->sts->mode == STS_ENFORCE);
    return d->requiretls && !named ? TLS_HOST_NOT_VOUCHED : TLS_HOST_FINE;
}

const char *tls_host_verdict_text(enum tls_host_verdict v) {
    static const char *const texts[] = {
        [TLS_HOST_FINE] = "fine",
        [TLS_HOST_NOT_IN_POLICY] = "the domain's MTA-STS policy does not name this host",
        [TLS_HOST_NO_TLSA] = "the TLSA records of this host cannot be had",
        [TLS_HOST_NEEDS_TLSA] = "DANE is demanded, and this host has no TLSA record that the DNS vouches for",
        [TLS_HOST_NOT_VOUCHED] = "REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the name of this host",
    };
    return texts[v];
}

bool tls_make_wish(const struct tls_target *t, const char *host, const char *tag, struct tls_wish *w,
                   const char *names[3], char session_key[400]) {
    const struct outbound_tls_rule *rule = t->demand->rule;
    *w = (struct tls_wish){.sni = host};
    if (t->level == TLS_LEVEL_NONE)
        return false;
    names[0] = host;
    w->names = names;
    w->name_count = 1;
    snprintf(session_key, 400, "%.260s %s%s", host, tls_level_name(t->level), tag);
    w->session_key = session_key;
    if (t->level == TLS_LEVEL_VERIFY) {
        w->must_verify = true;
        if (rule && rule->name_count) {
            w->names = rule->names;
            w->name_count = rule->name_count;
        }
    } else if (t->level == TLS_LEVEL_FINGERPRINT) {
        w->fingerprints = rule->fingerprints;
        w->fingerprint_count = rule->fingerprint_count;
    } else if (t->level == TLS_LEVEL_DANE) {
        w->sni = t->dane->base;
        w->dane = t->dane->records;
        w->dane_count = t->dane->count;
        names[0] = t->dane->base; /* usage 2 (RFC 7672 section 3.2.2): the TLSA base, and the names that led there */
        names[1] = host;
        names[2] = t->demand->domain;
        w->name_count = 3;
    }
    return true;
}
