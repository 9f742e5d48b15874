/*
 * dmarc: see dmarc.h. libopendmarc is used as a reader of records only, so its process-wide list of suffixes is never
 * made; libpsl's list is a value that threads share.
 */
#include "gateway/filter/dmarc.h"

#include <stdlib.h>

#include <libpsl.h>
#include <opendmarc/dmarc.h>

struct dmarc {
    psl_ctx_t *suffixes;
};
struct policy {
    enum authres_ask p, sp;
    bool strict_dkim, strict_spf;
    int pct;
};
enum found { FOUND, FOUND_NONE, FOUND_TEMPORARY, FOUND_BROKEN };

int dmarc_new(struct dmarc **out, const char *suffixes) {
    struct dmarc *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    d->suffixes = psl_load_file(suffixes);
    if (!d->suffixes || psl_suffix_count(d->suffixes) == 0) {
        dmarc_free(d);
        return ERR_NOT_FOUND;
    }
    *out = d;
    return ERR_OK;
}

void dmarc_free(struct dmarc *d) {
    if (!d)
        return;
    psl_free(d->suffixes);
    free(d);
}

struct span dmarc_organization(const struct dmarc *d, struct span domain, struct arena *mem) {
    struct span copy = arena_dup(mem, domain);
    const char *org = copy.at ? psl_registrable_domain(d->suffixes, copy.at) : NULL;
    return org ? span_of(org) : domain; /* a public suffix itself stands for itself */
}

/* -- the record -- */
static enum authres_ask ask_of(int p) {
    return p == DMARC_RECORD_P_REJECT       ? AUTHRES_ASK_REJECT
           : p == DMARC_RECORD_P_QUARANTINE ? AUTHRES_ASK_QUARANTINE
           : p == DMARC_RECORD_P_NONE       ? AUTHRES_ASK_NONE
                                            : AUTHRES_ASK_NOTHING;
}

static enum found read_record(struct span record, struct span domain, struct arena *mem, struct policy *to) {
    struct span text = arena_dup(mem, record), name = arena_dup(mem, domain);
    DMARC_POLICY_T *p = text.at && name.at ? opendmarc_policy_connect_init((u_char *)(uintptr_t) "", 0) : NULL;
    if (!p)
        return FOUND_TEMPORARY;
    int ask = 0, sub = 0, adkim = 0, aspf = 0;
    enum found found = FOUND_BROKEN;
    if (opendmarc_policy_store_dmarc(p, (u_char *)(uintptr_t)text.at, (u_char *)(uintptr_t)name.at, NULL) ==
            DMARC_PARSE_OKAY &&
        opendmarc_policy_fetch_p(p, &ask) == DMARC_PARSE_OKAY &&
        opendmarc_policy_fetch_sp(p, &sub) == DMARC_PARSE_OKAY &&
        opendmarc_policy_fetch_adkim(p, &adkim) == DMARC_PARSE_OKAY &&
        opendmarc_policy_fetch_aspf(p, &aspf) == DMARC_PARSE_OKAY &&
        opendmarc_policy_fetch_pct(p, &to->pct) == DMARC_PARSE_OKAY && ask_of(ask) != AUTHRES_ASK_NOTHING) {
        to->p = ask_of(ask);
        to->sp = ask_of(sub);
        to->strict_dkim = adkim == DMARC_RECORD_A_STRICT;
        to->strict_spf = aspf == DMARC_RECORD_A_STRICT;
        found = FOUND;
    }
    opendmarc_policy_connect_shutdown(p);
    return found;
}

static bool is_record(struct span text) {
    struct span version = SPAN("v=DMARC1");
    if (!span_starts_nocase(text, version))
        return false;
    struct span rest = span_trim(span_from(text, version.len));
    return !rest.len || rest.at[0] == ';';
}

static enum found fetch(struct resolver *r, struct span domain, uint64_t deadline_ms, struct arena *mem,
                        struct policy *to) {
    struct resolver_answer a;
    struct span record = SPAN_EMPTY;
    size_t records = 0;
    char *name = arena_printf(mem, "_dmarc.%.*s", SPAN_FMT(domain));
    if (!name)
        return FOUND_TEMPORARY;
    switch (resolver_ask(r, name, RESOLVER_TXT, deadline_ms, mem, &a)) {
    case RESOLVER_FOUND:
        break;
    case RESOLVER_TEMPORARY:
        return FOUND_TEMPORARY;
    default:
        return FOUND_NONE;
    }
    for (size_t i = 0; i < a.count; i++) {
        if (is_record(a.records[i].text)) {
            record = a.records[i].text;
            records++;
        }
    }
    if (!records)
        return FOUND_NONE;
    if (records > 1 || record.len > DMARC_RECORD_MAX || memchr(record.at, 0, record.len))
        return FOUND_BROKEN;
    return read_record(record, domain, mem, to);
}

/* -- alignment -- */
struct view {
    const struct dmarc *d;
    struct arena *mem;
    struct span from, organization;
};

static bool is_aligned(const struct view *v, struct span domain, bool strict) {
    if (!domain.len)
        return false;
    if (span_eq_nocase(domain, v->from))
        return true;
    if (strict)
        return false;
    char *lower = arena_alloc(v->mem, domain.len + 1);
    if (!lower)
        return false;
    for (size_t i = 0; i < domain.len; i++)
        lower[i] = domain.at[i] >= 'A' && domain.at[i] <= 'Z' ? (char)(domain.at[i] | 0x20) : domain.at[i];
    return span_eq(dmarc_organization(v->d, span_make(lower, domain.len), v->mem), v->organization);
}

/* PASS, FAIL, or TEMPERROR: what might have passed could not be judged now. */
static enum authres_result align(const struct view *v, const struct policy *p, const struct dmarc_question *q) {
    bool temporary = false;
    if (q->spf && is_aligned(v, q->spf->domain, p->strict_spf)) {
        if (q->spf->result == AUTHRES_PASS)
            return AUTHRES_PASS;
        temporary = q->spf->result == AUTHRES_TEMPERROR;
    }
    for (size_t i = 0; i < q->dkim_count; i++) {
        const struct authres_dkim *k = &q->dkim[i];
        if (k->result == AUTHRES_TEMPERROR && !k->domain.len)
            temporary = true;
        if (!is_aligned(v, k->domain, p->strict_dkim))
            continue;
        if (k->result == AUTHRES_PASS)
            return AUTHRES_PASS;
        temporary |= k->result == AUTHRES_TEMPERROR;
    }
    return temporary ? AUTHRES_TEMPERROR : AUTHRES_FAIL;
}

/* RFC 7489 section 6.6.4: what is not in the sample gets the next milder treatment. */
static enum authres_ask sample(enum authres_ask ask, int pct, unsigned roll) {
    return (int)roll < pct || ask <= AUTHRES_ASK_NONE ? ask : (enum authres_ask)(ask - 1);
}

static void judge_one(const struct dmarc *d, struct resolver *r, uint64_t deadline_ms, const struct dmarc_question *q,
                      struct span domain, struct arena *mem, struct authres_dmarc *out) {
    struct policy p = {.p = AUTHRES_ASK_NOTHING};
    struct view v = {d, mem, domain, dmarc_organization(d, domain, mem)};
    *out = (struct authres_dmarc){.result = AUTHRES_NONE, .from = domain};
    enum found found = fetch(r, domain, deadline_ms, mem, &p);
    bool inherited = found == FOUND_NONE && !span_eq(v.organization, domain);
    if (inherited)
        found = fetch(r, v.organization, deadline_ms, mem, &p);
    if (found == FOUND_NONE)
        return;
    if (found != FOUND) {
        out->result = found == FOUND_TEMPORARY ? AUTHRES_TEMPERROR : AUTHRES_PERMERROR;
        out->why = found == FOUND_TEMPORARY ? "no answer for the policy" : "malformed policy record";
        return;
    }
    out->published = inherited && p.sp != AUTHRES_ASK_NOTHING ? p.sp : p.p;
    out->result = align(&v, &p, q);
    if (out->result == AUTHRES_FAIL)
        out->disposition = sample(out->published, p.pct, q->roll);
}

/* The strictest first: a failure that is to be rejected, other failures, what is not known, passes. */
static int severity(const struct authres_dmarc *r) {
    switch (r->result) {
    case AUTHRES_FAIL:
        return 10 + (int)r->disposition;
    case AUTHRES_TEMPERROR:
        return 5;
    case AUTHRES_PERMERROR:
        return 4;
    case AUTHRES_PASS:
        return 1;
    default:
        return 2;
    }
}

void dmarc_judge(const struct dmarc *d, struct resolver *r, uint64_t deadline_ms, const struct dmarc_question *q,
                 struct arena *mem, struct authres_dmarc *out) {
    const struct dmarc_from *from = q->from;
    *out = (struct authres_dmarc){.result = AUTHRES_PERMERROR};
    if (from->missing || from->ambiguous || !from->count) {
        out->why = from->missing ? "no From field" : "no single author domain";
        if (from->count == 1)
            out->from = from->domains[0];
        return;
    }
    for (size_t i = 0; i < from->count; i++) {
        struct authres_dmarc one;
        judge_one(d, r, deadline_ms, q, from->domains[i], mem, &one);
        if (i == 0 || severity(&one) > severity(out))
            *out = one;
    }
}
