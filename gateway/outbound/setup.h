/*
 * setup: the settings in force: a deep copy with what is made from them. Replaced as a whole by
 * outbound_reconfigure; what began under the old ones keeps them by reference.
 */
#ifndef GATEWAY_OUTBOUND_SETUP_H
#define GATEWAY_OUTBOUND_SETUP_H

#include "base/arena.h"
#include "base/net/tls.h"
#include "gateway/outbound/mx.h"
#include "gateway/outbound/outbound.h"
#include "gateway/outbound/route.h"

struct setup {
    uint32_t refs; /* counted on the delivery thread only */
    struct arena mem;
    struct outbound_settings s;
    struct routes *routes;
    struct tls_client *tls;
    struct mx_policy mx;    /* for hosts that the DNS names */
    struct mx_policy fixed; /* for hosts that the operator names: loopback is fine, our own listeners are not */
};
/* Numbers that are 0 get their default. NULL: no memory. */
struct setup *setup_new(const struct outbound_settings *s) MUST_CHECK;
struct setup *setup_ref(struct setup *s);
void setup_free(struct setup *s); /* drops one reference; NULL is fine */

#endif
