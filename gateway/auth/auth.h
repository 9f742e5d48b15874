/*
 * auth: AUTH of RFC 4954: mechanisms (PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS through GNU SASL, or whatever
 * Dovecot offers), the credential backends behind them, and the price of guessing.
 *
 * Which is which: auth.c makes and counts, exchange.c and mechanism.c move one exchange on its loop, offer.c says what
 * is offered, sasl.c and scram.c read what clients send, guess.c prices failures, remember.c keeps good passwords for a
 * while, password.c checks hashes, file.c, ldap.c, postgres.c, http.c and dovecot.c are the backends (backend.h), io.c
 * their loop.
 *
 * Backends: a password file (bcrypt, yescrypt and others of crypt(3), argon2id, SCRAM-SHA-256 verifiers), LDAP bind,
 * PostgreSQL, HTTP, Dovecot's auth socket; several in order, the first that knows the account decides. Nothing blocks a
 * loop. A failed try is answered after a delay that grows with the failures of client network and account, and over a
 * cap further tries are refused unseen (454 4.7.0) for a while; an account that does not exist costs the same time as
 * one that does.
 */
#ifndef GATEWAY_AUTH_AUTH_H
#define GATEWAY_AUTH_AUTH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/post.h"
#include "base/net/tcp.h"
#include "base/net/tls.h"
#include "base/span.h"

enum auth_kind { AUTH_FILE, AUTH_LDAP, AUTH_POSTGRES, AUTH_HTTP, AUTH_DOVECOT };
struct auth_backend_config {
    enum auth_kind kind;
    const char *name;     /* for logs and metrics */
    uint64_t timeout_ms;  /* default 5 s */
    uint32_t connections; /* default 4 */
    const char *file;     /* FILE: lines "account:hash", '#' comments; mode not readable by others; read again when it
                           * changes. hash: $2b$…, $y$…, $6$…, $argon2id$…, SCRAM-SHA-256$iter:salt$stored:server */
    const char *uri; /* LDAP, POSTGRES, HTTP as in directory.h; DOVECOT: unix:/run/dovecot/auth-client or HOST:PORT */
    const char *user, *password, *ca_file;
    bool starttls;
    const char *bind_dn; /* LDAP: "uid=%u,ou=people,dc=example"; or search with base and filter, then bind as what was
                          * found */
    const char *base, *filter;
    const char *query; /* POSTGRES: $1 account; first column: hash as in a file */
};
#define AUTH_BACKENDS_MAX 8
/* Copied by auth_new. Where a default is told, 0 stands for it, except for fail_delay_ms and cache_ms. */
struct auth_config {
    const struct auth_backend_config *backends;
    size_t count;
    const char *mechanisms; /* "PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS" (default: all that work) */
    const char *realm;      /* appended as @realm to accounts without '@', or NULL */
    const char *hostname;
    uint64_t fail_delay_ms;     /* should be 1 s; doubles with each failure up to 16 s; 0: none */
    uint32_t client_failures;   /* per client network and window, 20; then refused unseen */
    uint32_t account_failures;  /* per account and window, 50 */
    uint64_t failure_window_ms; /* 15 min */
    uint32_t entries;           /* networks and accounts remembered, 100,000 */
    uint32_t hash_threads;      /* threads that check password hashes, 2 */
    uint32_t hash_waiting;      /* checks waiting for them at most, 1000; more are TEMPFAIL at once */
    uint64_t cache_ms;          /* a good password is remembered (as a keyed digest) for, default 60 s; 0: not */
    const char *sender_login;   /* file of "account: address, @domain, ..." lines ("*": any), or NULL. Where it is
                                 * enforced, an account without a line may use its own name as the address, nothing
                                 * else; one with a line what the line names, nothing else */
};
/* One for the process, shared, thread-safe, counted. Guesses counted survive a reload: auth_inherit. */
struct auth;
int auth_new(struct auth **a, const struct auth_config *c, struct buf *problems) MUST_CHECK;
struct auth *auth_ref(struct auth *a);
void auth_unref(struct auth *a);
/* Before fresh is used. */
void auth_inherit(struct auth *fresh, struct auth *old);
/* Any of its files changed since. */
bool auth_is_stale(const struct auth *a);

/* The words behind "250-AUTH ", or empty: nothing can be offered (as outside TLS). binding: tls_binding works. The text
 * lives as long as a does. */
struct span auth_mechanisms(const struct auth *a, bool tls, bool binding);

enum auth_event {
    AUTH_CHALLENGE, /* text: octets to send after 334 (not encoded); then auth_answer */
    AUTH_SUCCESS,   /* text: the account, canonical */
    AUTH_FAILURE,   /* 535 5.7.8; already delayed */
    AUTH_TEMPFAIL,  /* 454 4.7.0: no backend could tell, or over a cap */
    AUTH_MALFORMED, /* 501 5.5.2 */
};
typedef void (*auth_cb)(void *arg, enum auth_event event, struct span text);
struct auth_client {   /* borrowed during the exchange */
    struct loop *loop; /* home's: delays are timers on it */
    const struct tcp_addr *client, *local;
    struct span client_ip;
    bool tls;
    bool trusted; /* many people behind one address (webmail): its network is not counted, only accounts are */
    const char *binding_type; /* "tls-exporter", "tls-unique" or NULL */
    uint8_t binding[64];
    size_t binding_len;
};
struct auth_exchange;
/* Begins; mechanism in any case; initial.at NULL: no initial response (len 0 with .at set: an empty one), not encoded.
 * Events come through cb on home's loop, never inside a call; after CHALLENGE auth_answer or auth_cancel; the others
 * end the exchange, which is then gone. ERR_UNSUPPORTED: not such a mechanism (504 5.5.4); ERR_DENIED: only inside TLS
 * (538 5.7.11); ERR_NOMEM. */
int auth_begin(struct auth_exchange **x, struct auth *a, struct post *home, const struct auth_client *client,
               struct span mechanism, struct span initial, auth_cb cb, void *arg) MUST_CHECK;
/* The client's response, decoded. */
void auth_answer(struct auth_exchange *x, struct span response);
/* "*", or the session ends. No callback comes. */
void auth_cancel(struct auth_exchange *x);

/* May this account use this sender address (canonical; empty: null path, always)? For `sender_login: enforce`. */
bool auth_may_send(const struct auth *a, struct span account, struct span sender);

#endif
