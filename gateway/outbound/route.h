/*
 * route: which way the mail for a domain goes: the table of the settings, most specific first.
 * "example.net" matches the domain, ".example.net" the domain and all below it, "*" everything.
 */
#ifndef GATEWAY_OUTBOUND_ROUTE_H
#define GATEWAY_OUTBOUND_ROUTE_H

#include "gateway/outbound/outbound.h"

#define ROUTE_LMTP_PORT 24

struct routes;
/* Copies; of two rules for one domain the first counts. NULL: no memory. */
struct routes *routes_new(const struct outbound_route *at, size_t count) MUST_CHECK;
void routes_free(struct routes *r);
/* The rule for a destination, or NULL: by MX. Borrowed. */
const struct outbound_route *routes_find(const struct routes *r, struct span domain);
/* "mx", "mx:example.net", "smtp:host:25", "lmtp:unix:/path": as text, for people and as a site's name. */
size_t route_format(const struct route *r, uint16_t port, char *to, size_t size);

#endif
