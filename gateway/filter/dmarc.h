/*
 * dmarc: does the domain that the reader sees stand behind this mail (RFC 7489)? libopendmarc reads the records;
 * libpsl knows where organizational domains begin; the comparison is ours, because libopendmarc takes one domain for
 * aligned with another whenever one is the other's parent, public suffixes included, and reads wildcard suffixes wrong.
 */
#ifndef GATEWAY_FILTER_DMARC_H
#define GATEWAY_FILTER_DMARC_H

#include "base/arena.h"
#include "base/net/resolver.h"
#include "gateway/filter/authres.h"
#include "gateway/filter/held.h"

#define DMARC_DOMAINS_MAX 8    /* different domains in From that are judged */
#define DMARC_RECORD_MAX 4096u /* octets of a record that is read */

/* -- the From field (dmarc_from.c) -- */
struct dmarc_from {
    struct span domains[DMARC_DOMAINS_MAX]; /* lower-case A-labels, each once */
    size_t count;
    bool several;   /* From fields; only the first was read */
    bool missing;   /* no From field */
    bool ambiguous; /* two From fields, an address without a valid domain, or too many domains */
};
/* ERR_NOMEM. */
int dmarc_from(const struct held *h, struct arena *mem, struct dmarc_from *from) MUST_CHECK;

/* -- the verdict -- */
struct dmarc;
/* Immutable, any thread. ERR_NOT_FOUND: no such list, or nothing in it. ERR_NOMEM. */
int dmarc_new(struct dmarc **d, const char *suffixes) MUST_CHECK;
void dmarc_free(struct dmarc *d);
/* Organizational domain of a lower-case name: a part of it. */
struct span dmarc_organization(const struct dmarc *d, struct span domain, struct arena *mem);

struct dmarc_question {
    const struct dmarc_from *from;
    const struct authres_spf *spf;
    const struct authres_dkim *dkim;
    size_t dkim_count;
    unsigned roll; /* 0..99, by chance: messages below pct= are treated as asked */
};
/* Several domains in From: the strictest result counts. Results lie in mem. */
void dmarc_judge(const struct dmarc *d, struct resolver *r, uint64_t deadline_ms, const struct dmarc_question *q,
                 struct arena *mem, struct authres_dmarc *out);

#endif
