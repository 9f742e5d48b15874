/*
 * login: how we log in to a server of a route (RFC 4954): SCRAM-SHA-256 through GNU SASL, XOAUTH2, PLAIN, LOGIN, in
 * this order of what the server offers and the settings allow. A password leaves us inside TLS only; SCRAM shows
 * none, and may go in the clear.
 */
#ifndef GATEWAY_OUTBOUND_LOGIN_H
#define GATEWAY_OUTBOUND_LOGIN_H

#include "base/arena.h"
#include "base/err.h"
#include "gateway/outbound/outbound.h"
#include "gateway/smtp/client.h"

/* One session's login; .core is what the client core calls. */
struct login {
    struct client_login core;          /* first */
    const struct outbound_login *with; /* borrowed; outlives the session */
    bool secured;                      /* set by the owner before EHLO's answer */
    int step;
    void *scram;     /* of GNU SASL */
    const char *why; /* why begin or respond said no; static */
};
void login_init(struct login *l, const struct outbound_login *with);
void login_deinit(struct login *l);
/* The name of a site for who logs in: connections are not shared between accounts, nor between a good password and a
 * bad one. key: random, so that the name tells nothing of the password. with NULL: site as it is. NULL: no memory. */
const char *login_site(struct arena *mem, const char *site, const struct outbound_login *with, uint64_t key) MUST_CHECK;

#endif
