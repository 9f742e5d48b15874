/*
 * tls: the door to OpenSSL for streams: contexts of servers and clients, and the engine of one connection without
 * sockets (octets in, octets out). tcp.h puts it on a connection: tcp_secure_server, tcp_secure_client.
 *
 * TLS 1.2 and 1.3 only, unless the profile "old" is asked for. A context is immutable and counted: a reload makes a
 * new one, and sessions keep the one that they began with. Errors of certificates and keys are named with the file.
 */
#ifndef BASE_NET_TLS_H
#define BASE_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

/* -- keys of session tickets: made once, outlive contexts, thread-safe -- */
struct tls_tickets;
/* file NULL: random keys in memory, a new one each rotate_ms, old ones open for two periods. Else a file (mode 0600 or
 * 0640) of base64 lines of 80 octets each (name 16, AES-256 key 32, HMAC key 32): the first line seals, all open;
 * shared by the gateways of a cluster. problems gets "file:line: what". ERR_INVALID, ERR_NOT_FOUND, ERR_DENIED,
 * ERR_NOMEM. */
int tls_tickets_new(struct tls_tickets **t, const char *file, uint64_t rotate_ms, struct buf *problems) MUST_CHECK;
/* Reads the file again when it changed; a bad one is named and the old keys stay. Blocking, any thread. */
int tls_tickets_reload(struct tls_tickets *t, struct buf *problems) MUST_CHECK;
void tls_tickets_free(struct tls_tickets *t);

/* -- contexts -- */
struct tls_pair {
    const char *certificate, *key; /* PEM files; the certificate file holds the chain, leaf first */
};
struct tls_server_config {
    const struct tls_pair *pairs; /* the first one answers clients that name no host or an unknown one */
    size_t count;                 /* >= 1 */
    const char *profile;          /* "modern": 1.3 only; "intermediate" (the default): 1.2 with AEAD and ECDHE, and 1.3;
                                   * "old": 1.0 and on, for museums */
    const char *client_ca;        /* PEM file of authorities of client certificates, or NULL */
    bool ask_client;              /* ask for a client certificate (never demanded at this level) */
    struct tls_tickets *tickets;  /* borrowed, or NULL: no tickets */
};
struct tls_server;
/* Blocking (reads files). Certificates are chosen by SNI against their subjectAltNames, "*." wildcards included; an
 * exact name before a wildcard, an earlier pair before a later one. Pairs with the same names and keys of different
 * kinds (RSA, EC) serve together. problems: lines "FILE: what", or "FILE: warning: what" for what does not hinder
 * (expired, a key that every user may read). ERR_INVALID (also: key and certificate do not match), ERR_NOT_FOUND,
 * ERR_DENIED, ERR_IO, ERR_NOMEM. */
int tls_server_new(struct tls_server **t, const struct tls_server_config *c, struct buf *problems) MUST_CHECK;
struct tls_server *tls_server_ref(struct tls_server *t);
void tls_server_unref(struct tls_server *t);
/* Any of its files changed since. Asks the file system. */
bool tls_server_is_stale(const struct tls_server *t);
/* When the certificate that expires first does so: seconds since 1970. */
int64_t tls_server_not_after(const struct tls_server *t);

struct tls_client_config {
    const char *ca_file;           /* NULL: the system's */
    bool verify;                   /* chain and name must be good, else the handshake fails */
    const char *certificate, *key; /* of ours, or NULL */
};
struct tls_client;
int tls_client_new(struct tls_client **t, const struct tls_client_config *c, struct buf *problems) MUST_CHECK;
struct tls_client *tls_client_ref(struct tls_client *t);
void tls_client_unref(struct tls_client *t);

/* -- one connection, no sockets -- */
struct tls_info {
    char version[12]; /* "TLSv1.3" */
    char cipher[64];
    uint32_t bits;
    bool resumed;
    char sni[256];      /* as the client named it, cleaned; "" none */
    bool has_peer;      /* the other side gave a certificate */
    bool peer_verified; /* its chain leads to an authority that we know (and for clients its name fits) */
    char peer_subject[256], peer_issuer[256]; /* RFC 2253 text, cleaned */
    char peer_fingerprint[65];                /* SHA-256 of the certificate, lower-case hex */
    char peer_email[256];                     /* first rfc822Name of a verified peer, or "" */
};
struct tls;
/* NULL: no memory. */
struct tls *tls_accept(struct tls_server *t) MUST_CHECK;
/* name: for SNI and verification; NULL: none. */
struct tls *tls_connect(struct tls_client *t, const char *name) MUST_CHECK;
void tls_free(struct tls *t);
/* Octets from the network go in: all are taken, or none (ERR_FULL: 8 MiB wait unread, ERR_NOMEM). */
int tls_put(struct tls *t, struct span octets) MUST_CHECK;
/* Goes on with the handshake. ERR_OK: it is done; ERR_AGAIN: needs octets; ERR_DENIED: failed (tls_why tells). Call
 * after tls_put, and once first for a client. What is to be sent afterwards is in tls_out, also after a failure (the
 * alert). */
int tls_handshake(struct tls *t) MUST_CHECK;
/* Plain octets to `to`, at most room. ERR_OK with some appended; ERR_AGAIN: needs octets; ERR_CLOSED: the peer said
 * close_notify; ERR_DENIED: broken. */
int tls_read(struct tls *t, struct buf *to, size_t room) MUST_CHECK;
/* The network has ended before the handshake was done: it has failed. */
void tls_cut(struct tls *t);
/* Seals plain octets into tls_out. ERR_FULL: 8 MiB would wait, nothing was taken; ERR_NOMEM, ERR_DENIED: broken. */
int tls_write(struct tls *t, struct span octets) MUST_CHECK;
/* close_notify into tls_out. */
void tls_end(struct tls *t);
/* What the network is to get: take by tls_out_taken. Valid until the next call. */
struct span tls_out(struct tls *t);
void tls_out_taken(struct tls *t, size_t len);
/* After the handshake. */
const struct tls_info *tls_info(const struct tls *t);
/* Why it failed, one clean line. */
const char *tls_why(const struct tls *t);
/* Channel binding (RFC 9266 tls-exporter in 1.3, RFC 5929 tls-unique in 1.2; *type names it). False: none. */
bool tls_binding(struct tls *t, const char **type, uint8_t to[64], size_t *len);

#endif
