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

/* -- keys of session tickets: made once, counted, shared by contexts, thread-safe -- */
struct tls_tickets;
/* file NULL: random keys in memory, a new one each rotate_ms, old ones open for two periods. Else a file (mode 0600 or
 * 0640) of base64 lines of 80 octets each (name 16, AES-256 key 32, HMAC key 32): the first line seals, all open;
 * shared by the gateways of a cluster. problems gets "file:line: what". ERR_INVALID, ERR_NOT_FOUND, ERR_DENIED,
 * ERR_NOMEM. */
int tls_tickets_new(struct tls_tickets **t, const char *file, uint64_t rotate_ms, struct buf *problems) MUST_CHECK;
/* Reads the file again when it changed; a bad one is named and the old keys stay. Blocking, any thread. */
int tls_tickets_reload(struct tls_tickets *t, struct buf *problems) MUST_CHECK;
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
void tls_tickets_unref(struct tls_tickets *t);
/* Whether these settings would make the same. */
bool tls_tickets_is(const struct tls_tickets *t, const char *file, uint64_t rotate_ms);

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
    struct tls_tickets *tickets;  /* NULL: no tickets */
};
struct tls_server;
/* Blocking (reads files). Certificates are chosen by SNI against their subjectAltNames, "*." wildcards included; an
 * exact name before a wildcard, an earlier pair before a later one. Pairs with the same names and keys of different
 * kinds (RSA, EC) serve together. problems: lines "FILE: what", or "FILE: warning: what" for what does not hinder
 * (expired or soon so, a key that every user may read). ERR_INVALID (also: key and certificate do not match),
 * ERR_NOT_FOUND, ERR_DENIED, ERR_IO, ERR_NOMEM. */
int tls_server_new(struct tls_server **t, const struct tls_server_config *c, struct buf *problems) MUST_CHECK;
struct tls_server *tls_server_ref(struct tls_server *t);
void tls_server_unref(struct tls_server *t);
/* Any of its files changed since. Asks the file system. */
bool tls_server_is_stale(const struct tls_server *t);
/* When the certificate that expires first does so: seconds since 1970. */
int64_t tls_server_not_after(const struct tls_server *t);

struct tls_client_config {
    const char *ca_file;           /* NULL: the system's */
    bool verify;                   /* chain and name must be good, else the handshake fails; false: a wish may ask it */
    const char *certificate, *key; /* of ours, or NULL */
    uint32_t sessions_max;         /* keys that sessions are remembered under, see tls_wish; 0: none are */
};
struct tls_client;
int tls_client_new(struct tls_client **t, const struct tls_client_config *c, struct buf *problems) MUST_CHECK;
struct tls_client *tls_client_ref(struct tls_client *t);
void tls_client_unref(struct tls_client *t);

/* -- what a client demands of one connection: borrowed during the call that it is given to -- */
struct tls_dane_record { /* of a TLSA record (RFC 6698) */
    uint8_t usage, selector, matching;
    const uint8_t *data;
    size_t len;
};
#define TLS_FINGERPRINTS_MAX 64
struct tls_wish {
    const char *sni;  /* or NULL: none is sent; the same for an address */
    bool must_verify; /* chain to an authority and one of names, else the handshake fails */
    /* Reference names (no wildcards): besides them nothing is accepted. Without any only the chain is looked at, and
     * must_verify fails. A certificate may have wildcards; its common name counts for DANE only, and there only
     * without subjectAltNames. */
    const char *const *names;
    size_t name_count;
    /* DANE (RFC 7672), when > 0: one record must match, for usage 2 one of the names too; for usage 3 neither names nor
     * dates count. Usages 0 and 1 are passed over, as is what is malformed; when nothing is left the records demand
     * nothing (tls_info.dane_matched stays false). With usable records authorities are not asked, whatever must_verify
     * says. */
    const struct tls_dane_record *dane;
    size_t dane_count;
    /* SHA-256 in hex (colons allowed) of the certificate or of its public key (SubjectPublicKeyInfo); when > 0 one must
     * match, whoever signed it. More than TLS_FINGERPRINTS_MAX are not looked at. */
    const char *const *fingerprints;
    size_t fingerprint_count;
    /* Sessions are remembered under this key for resumption, or NULL. Only one with an equal wish takes them up, so a
     * key such as "HOST:PORT" is enough. */
    const char *session_key;
};
/* What is wrong with the peer, in the words of reports (RFC 8460). */
enum tls_fault {
    TLS_FAULT_NONE,
    TLS_FAULT_NAME,    /* it is for other names */
    TLS_FAULT_EXPIRED, /* or not yet valid */
    TLS_FAULT_TRUST,   /* leads to no authority of ours, or has another fingerprint */
    TLS_FAULT_DANE,    /* no TLSA record matches */
    TLS_FAULT_OTHER    /* not of the certificate: no common version or cipher, broken stream */
};

/* -- one connection, no sockets -- */
struct tls_info {
    char version[12]; /* "TLSv1.3" */
    char cipher[64];  /* OpenSSL's name, as filters know it */
    char suite[64];   /* the registered name (IANA), for Received (RFC 8314) */
    uint32_t bits;
    bool resumed;
    char sni[256];      /* as the client named it, cleaned; "" none */
    bool has_peer;      /* the other side gave a certificate */
    bool peer_verified; /* its chain leads to an authority that we know (and for clients its name fits), or DANE */
    bool dane_matched, fingerprint_matched;
    enum tls_fault fault;                     /* what is wrong with the certificate although it was let pass */
    char verify_error[128];                   /* the same in words, "" when verified or when there is none */
    char peer_subject[256], peer_issuer[256]; /* RFC 2253 text, cleaned */
    char peer_fingerprint[65];                /* SHA-256 of the certificate, lower-case hex */
    char peer_email[256];                     /* first rfc822Name of a verified peer, or "" */
};
struct tls;
/* NULL: no memory. */
struct tls *tls_accept(struct tls_server *t) MUST_CHECK;
/* name: for SNI and verification; NULL: none. */
struct tls *tls_connect(struct tls_client *t, const char *name) MUST_CHECK;
/* The same by a wish. One that cannot be read (a bad name) fails at the handshake. */
struct tls *tls_connect_with(struct tls_client *t, const struct tls_wish *w) MUST_CHECK;
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
/* What was wrong when it failed; else tls_info's fault. */
enum tls_fault tls_fault_of(const struct tls *t);
/* Channel binding (RFC 9266 tls-exporter in 1.3, RFC 5929 tls-unique in 1.2; *type names it). False: none. */
bool tls_binding(struct tls *t, const char **type, uint8_t to[64], size_t *len);

#endif
