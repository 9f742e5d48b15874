/*
 * template: settings with places for the account: %s the whole, %u what is before the last '@', %d what is behind it,
 * %% a percent sign; each escaped for where it stands.
 */
#ifndef GATEWAY_AUTH_TEMPLATE_H
#define GATEWAY_AUTH_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

/* Appends. escape: ldap_escape_dn and the like. ERR_FULL, ERR_NOMEM. */
int template_fill(const char *text, struct span account, int (*escape)(struct span s, struct buf *to),
                  struct buf *to) MUST_CHECK;
/* NULL, or what is wrong with it. */
const char *template_problem(const char *text);

#endif
