/*
 * bus_zap: who may come in by tcp://: the list of public keys that are allowed, for each domain, and the handler that
 * ZeroMQ asks about each CURVE handshake (ZeroMQ's authentication protocol, RFC 27).
 *
 * It fails closed. ZeroMQ lets every client in where no handler answers, so a hub with CURVE is not opened without one
 * (bus_hub_open_curve), and of each message such a hub takes only what carries a key that the handler has let in and
 * that is on the list at that moment: a key that was removed is refused at once, on living connections too.
 */
#ifndef BASE_NET_BUS_ZAP_H
#define BASE_NET_BUS_ZAP_H

#include "base/net/bus.h"

#define BUS_ZAP_DOMAIN_MAX 31u /* characters */
#define BUS_ZAP_USER_MAX 63u   /* characters */
#define BUS_ZAP_GRANTS_MAX 10000u
struct bus_grant {
    const char *key;  /* public, Z85 */
    const char *user; /* 1 to BUS_ZAP_USER_MAX characters */
};
/* Starts the handler of this context, on a thread of its own, with an empty list. ERR_EXISTS, ERR_NOMEM,
 * ERR_UNSUPPORTED: ZeroMQ was built without CURVE. */
int bus_zap_start(struct bus *b) MUST_CHECK;
/* Ends the handler: from now on nobody new comes in, and nobody is heard. bus_free does it too. */
void bus_zap_stop(struct bus *b);
/* Replaces the list of one domain as a whole; the grants are copied. From any thread. ERR_INVALID: a key, user or
 * domain of another form, or a key twice (the old list stays); ERR_FULL; ERR_NOMEM; ERR_CLOSED: no handler. */
int bus_zap_allow(struct bus *b, const char *domain, const struct bus_grant *grants, size_t count) MUST_CHECK;
/* Whose key it is now, or false: nobody's, or there is no handler. From any thread. */
bool bus_zap_user(struct bus *b, const char *domain, struct span key, char user[BUS_ZAP_USER_MAX + 1]);

#endif
