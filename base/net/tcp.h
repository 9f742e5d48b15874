/*
 * tcp: listening and connected stream sockets on a loop (TCP over IPv4 and IPv6, and unix
 * sockets). Part of the libuv door.
 *
 * A connection reads into its own buffer (tcp_in), which the owner consumes; reading pauses
 * by itself at the buffer's maximum and goes on when there is room, so memory is bounded.
 * Writes are tried at once and queued otherwise, up to a maximum. No callback runs inside
 * tcp_write or tcp_close. See loop.h for the rules of close.
 */
#ifndef BASE_NET_TCP_H
#define BASE_NET_TCP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/net/loop.h"

/* An address and port of either family, or a unix path. */
struct tcp_addr {
    struct sockaddr_storage storage;
    socklen_t len;
};
/* "127.0.0.1", "::1" (brackets allowed), with port; or "unix:/path". ERR_INVALID. */
int tcp_addr_parse(struct tcp_addr *a, struct span text, uint16_t port) MUST_CHECK;
/* "HOST:PORT", "[V6]:PORT" with numbers only. ERR_INVALID. */
int tcp_addr_parse_port(struct tcp_addr *a, struct span text) MUST_CHECK;
/* Address without port, no brackets, IPv4-mapped shown as IPv4. Returns length. size >= 110 */
size_t tcp_addr_ip(const struct tcp_addr *a, char *to, size_t size);
/* "1.2.3.4:25", "[::1]:25", "unix:/path". size >= 120 */
size_t tcp_addr_format(const struct tcp_addr *a, char *to, size_t size);
uint16_t tcp_addr_port(const struct tcp_addr *a);
bool tcp_addr_is_v6(const struct tcp_addr *a); /* IPv4-mapped counts as IPv4 */
bool tcp_addr_is_loopback(const struct tcp_addr *a);
/* 0.0.0.0/8, ::, multicast, 240/4 and broadcast: never a target for mail. */
bool tcp_addr_is_unusable(const struct tcp_addr *a);
/* The same address whatever the port. */
bool tcp_addr_same_ip(const struct tcp_addr *a, const struct tcp_addr *b);
/* An address assigned to an interface of this machine (read once at start, refreshed each
 * minute at most). */
bool tcp_addr_is_local(const struct tcp_addr *a);

/* A network such as 127.0.0.0/8 or 2001:db8::/32. */
struct tcp_net {
    uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;      /* 0..128 */
};
int tcp_net_parse(struct tcp_net *n, struct span text) MUST_CHECK; /* ERR_INVALID; host bits must be 0 */
bool tcp_net_has(const struct tcp_net *n, const struct tcp_addr *a);

/* -- listener -- */
struct tcp;
struct tcp_listener;
/* A new connection: the callee owns c and must call tcp_start or tcp_close. */
typedef void (*tcp_accept_cb)(void *arg, struct tcp *c, const struct tcp_addr *peer);
/* A bound, non-blocking socket (SO_REUSEADDR, SO_REUSEPORT when reuse_port; an IPv6 socket takes
 * IPv6 only), not yet listening; made before root is dropped. A stale unix socket is replaced.
 * >= 0, or an err code (ERR_EXISTS: in use, ERR_DENIED, ERR_UNREACHABLE: not an address of this
 * machine, ERR_FULL: no descriptors, ERR_IO); errno is set. */
int tcp_bind(const struct tcp_addr *a, bool reuse_port) MUST_CHECK;
/* Takes fd. NULL on failure (fd is closed then too). A connection for which there is no memory is
 * closed at once; without descriptors accepting rests for a moment and clients wait. */
struct tcp_listener *tcp_listen(struct loop *l, int fd, int backlog, tcp_accept_cb cb, void *arg) MUST_CHECK;
void tcp_listener_close(struct tcp_listener *t);

/* -- connection -- */
enum tcp_event {
    TCP_CONNECTED, /* a connect succeeded */
    TCP_SECURED,   /* the TLS handshake is done: from now on all is plain text for the owner */
    TCP_READ,      /* new bytes are in tcp_in */
    TCP_DRAINED,   /* the write queue has become empty after it was not */
    TCP_EOF,       /* the peer has closed its side; more may be written */
    TCP_FAILED,    /* err tells why (connect or stream); the owner calls tcp_close */
};
typedef void (*tcp_cb)(void *arg, struct tcp *c, enum tcp_event event, int err);

/* Starts a connect, from `local` when not NULL. TCP_CONNECTED or TCP_FAILED follow, never
 * inside this call. in_max and out_max bound the buffers, in bytes. NULL: no memory/descriptors. */
struct tcp *tcp_connect(struct loop *l, const struct tcp_addr *to, const struct tcp_addr *local, size_t in_max,
                        size_t out_max, tcp_cb cb, void *arg) MUST_CHECK;
/* Takes a connected stream socket (accepted, inherited, of a socketpair); as an accepted one it
 * waits for tcp_start. peer may be NULL. NULL: no memory (fd is closed then). */
struct tcp *tcp_adopt(struct loop *l, int fd, const struct tcp_addr *peer) MUST_CHECK;
/* For an accepted connection: sets the bounds and callback, starts reading. */
int tcp_start(struct tcp *c, size_t in_max, size_t out_max, tcp_cb cb, void *arg) MUST_CHECK;
/* The read buffer: consume what you used, append nothing. If bytes are left, no new TCP_READ comes
 * until more arrive. Its bytes may move when the callback returns. */
struct buf *tcp_in(struct tcp *c);
/* Stops and resumes reading (back-pressure). Resume continues at the next turn of the loop;
 * it brings a TCP_READ also when only old bytes are in the buffer. */
void tcp_pause(struct tcp *c);
void tcp_resume(struct tcp *c);
/* Copies what cannot be sent at once; before the connect has succeeded everything waits. ERR_OK;
 * ERR_FULL: len and what is queued are over out_max, nothing was taken; ERR_CLOSED: the stream is
 * broken for writing (what the peer has sent still arrives); ERR_NOMEM: the same, part was sent. */
int tcp_write(struct tcp *c, const void *bytes, size_t len) MUST_CHECK;
/* Several pieces as one write(v). */
int tcp_writev(struct tcp *c, const struct span *pieces, size_t count) MUST_CHECK;
size_t tcp_queued(const struct tcp *c); /* bytes not yet given to the kernel */
/* Sends what is queued (for at most timeout_ms), ends our side, waits a second at most for the
 * peer to end its own (so that our last words are not lost to a reset), then closes. No more
 * callbacks. */
void tcp_finish(struct tcp *c, uint64_t timeout_ms);
/* Drops what is queued and closes. No more callbacks. */
void tcp_close(struct tcp *c);

/* -- TLS on a connection (tls.h) -- */
struct tls_server;
struct tls_client;
struct tls_info;
struct tls_wish;
/* From now on the octets are TLS; what was queued before goes out in front as it is. TCP_SECURED follows, or TCP_FAILED
 * with ERR_DENIED (a failed handshake; later: a broken stream). tcp_in and tcp_write then hold and take plain octets;
 * tcp_queued counts sealed ones, and no TCP_DRAINED comes before TCP_SECURED. tcp_write says ERR_AGAIN until then.
 * close_notify and a bare end are both TCP_EOF; tcp_finish says close_notify. At most once, for a client also before
 * TCP_CONNECTED. ERR_INVALID: octets wait in tcp_in (the peer spoke too early: end it), or TLS is on already;
 * ERR_CLOSED: the connection has ended; ERR_NOMEM. */
int tcp_secure_server(struct tcp *c, struct tls_server *t) MUST_CHECK;
/* The same where TLS begins with what waits in tcp_in: behind a header in plain text, such as PROXY. */
int tcp_secure_server_early(struct tcp *c, struct tls_server *t) MUST_CHECK;
/* name: for SNI and verification, or NULL. */
int tcp_secure_client(struct tcp *c, struct tls_client *t, const char *name) MUST_CHECK;
/* The same by a wish (borrowed during the call). */
int tcp_secure_client_with(struct tcp *c, struct tls_client *t, const struct tls_wish *w) MUST_CHECK;
/* NULL before TCP_SECURED and without TLS. */
const struct tls_info *tcp_tls_info(const struct tcp *c);
/* Why the handshake or the stream failed: one clean line, "" when it did not; until close. */
const char *tcp_tls_why(const struct tcp *c);
/* What was wrong with the peer, also after a failed handshake: an enum tls_fault (tls.h). */
int tcp_tls_fault(const struct tcp *c);
/* Channel binding after TCP_SECURED, see tls_binding. */
bool tcp_tls_binding(struct tcp *c, const char **type, uint8_t to[64], size_t *len);

const struct tcp_addr *tcp_peer(const struct tcp *c);
const struct tcp_addr *tcp_local(const struct tcp *c);

#endif
