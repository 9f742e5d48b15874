/*
 * hygiene: what a submission server adds to mail that a client left incomplete (RFC 6409 section 8): Date and
 * Message-ID. Fields that are there are never touched, whatever is in them.
 */
#ifndef GATEWAY_FILTER_HYGIENE_H
#define GATEWAY_FILTER_HYGIENE_H

#include "gateway/filter/check.h"
#include "gateway/filter/held.h"

/* Before signing. The id is made of the submission's name and chance, at our host name; only of f->id and f->hostname.
 * ERR_FULL, ERR_NOMEM, ERR_INVALID (a host name that no field can hold). */
int hygiene_apply(struct held *h, const struct check_facts *f, uint64_t wall_ms) MUST_CHECK;

#endif
