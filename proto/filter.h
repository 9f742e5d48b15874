/*
 * filter: the one grammar by which operators name messages: `to:`, `from:`, `domain:`, `site:`, `state:`,
 * `older:`, `id:`. Terms are separated by spaces and all must hold; a value may be quoted with "…";
 * a quoted local part is written as it is: to:"odd name"@example.net.
 *
 *   to:ADDRESS        recipient (ASCII case ignored); to:@example.net for a whole domain
 *   from:ADDRESS      reverse-path; from:<> for the null path; from:@example.net
 *   domain:NAME       routing domain of the recipient; domain:.example.net for all below it
 *   site:NAME         site, where it is known
 *   state:NAME        ready | assigned | deferred | delivered | failed | held
 *   older:DURATION    received at least so long ago (30m, 4h, 2d)
 *   id:ID             message id
 *
 * The empty filter matches everything. Pure; used by the tool's checks and by the scheduler.
 */
#ifndef PROTO_FILTER_H
#define PROTO_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define FILTER_TERMS_MAX 16
#define FILTER_TEXT_MAX 2048

struct filter;
struct filter_subject {
    uint64_t message;
    struct span sender, recipient, destination, site;
    uint32_t state; /* enum sched_state numbers */
    uint64_t received_ms;
};

/* ERR_INVALID with *problem a static sentence; ERR_FULL: too long or too many terms; ERR_NOMEM. */
int filter_parse(struct filter **f, struct span text, const char **problem) MUST_CHECK;
bool filter_matches(const struct filter *f, const struct filter_subject *s, uint64_t now_ms);
/* The same without the terms whose truth changes from moment to moment, state: and site:. */
bool filter_may_match(const struct filter *f, const struct filter_subject *s, uint64_t now_ms);
/* The message that an id: term names, or 0: then only this one needs to be read. */
uint64_t filter_id(const struct filter *f);
/* The site that a site: term names, or empty; borrowed from the filter. */
struct span filter_site(const struct filter *f);
void filter_free(struct filter *f); /* NULL is fine */

/* "ready", "assigned", ... for a state number; "?" for others. */
const char *filter_state_name(uint32_t state);

#endif
