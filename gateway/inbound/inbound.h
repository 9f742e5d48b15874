/*
 * inbound: the SMTP front end of one node: its loops, listeners and sessions.
 *
 * Owned by node/, which calls it from the main thread. Starts `loops` threads, each with its own
 * event loop, listeners (SO_REUSEPORT) and bus peer to the scheduler's hub and to the admin hub.
 * It keeps no mail: what it has not submitted is lost with it, and was never acknowledged.
 */
#ifndef GATEWAY_INBOUND_INBOUND_H
#define GATEWAY_INBOUND_INBOUND_H

#include "base/err.h"
#include "base/net/bus.h"
#include "base/net/tcp.h"
#include "base/net/tls.h"
#include "gateway/auth/auth.h"
#include "gateway/directory/recipients.h"
#include "gateway/filter/mailauth.h"
#include "gateway/filter/milter.h"
#include "gateway/filter/policy.h"
#include "gateway/guard/guard.h"

enum inbound_bare_newline { INBOUND_BARE_REJECT, INBOUND_BARE_NORMALIZE };
enum inbound_pregreet { INBOUND_PREGREET_OFF, INBOUND_PREGREET_LOG, INBOUND_PREGREET_REFUSE };
struct inbound_limits {
    uint64_t message_size;           /* octets; 0 is refused by the settings */
    uint32_t recipients;             /* per transaction, >= 100 */
    uint32_t connections;            /* all loops together */
    uint32_t connections_per_client; /* IPv4 /32, IPv6 /64 */
    uint32_t received_headers;       /* 50 */
    uint32_t commands_bad;           /* errors before 421 and close, 20 */
    uint64_t memory;                 /* bytes of buffered bodies, all loops together */
    uint64_t idle_ms;                /* 5 min */
};
enum inbound_tls {
    INBOUND_TLS_OFF,
    INBOUND_TLS_OFFERED,  /* STARTTLS */
    INBOUND_TLS_REQUIRED, /* STARTTLS before MAIL and AUTH */
    INBOUND_TLS_IMPLICIT, /* from the first octet on (RFC 8314) */
};
enum inbound_auth { INBOUND_AUTH_OFF, INBOUND_AUTH_OFFERED, INBOUND_AUTH_REQUIRED };
#define INBOUND_LISTENERS_MAX 16
struct inbound_listener {
    struct tcp_addr address;
    enum inbound_tls tls;
    enum inbound_auth auth;
    bool submission;         /* adds missing Date and Message-ID; milters and policies are told */
    bool sender_login;       /* an account may only use its own sender addresses */
    bool hide_client;        /* Received names neither client nor HELO */
    bool client_certificate; /* a verified client certificate authenticates */
    bool proxy;              /* PROXY protocol, from `balancers` only */
    bool sign;               /* DKIM, for mail of authenticated and trusted clients */
    uint32_t extensions;     /* enum server_extension, STARTTLS and AUTH aside */
};
struct inbound_settings {        /* replaced as a whole on reload; copied by inbound */
    const char *hostname, *name; /* greeting; node name */
    struct inbound_limits limits;
    const struct tcp_net *trusted;
    size_t trusted_count;
    enum inbound_bare_newline bare_newline;
    enum inbound_pregreet pregreet;
    uint64_t pregreet_ms;                                     /* how long to wait for an early talker; 0: only look */
    bool vrfy;                                                /* tell the truth at VRFY */
    struct inbound_listener listeners[INBOUND_LISTENERS_MAX]; /* in the order of inbound_config.fds */
    size_t listener_count;
    const struct tcp_net *balancers; /* may say PROXY and XCLIENT */
    size_t balancer_count;
    const char *dns;   /* servers for names and lists; NULL: the system's */
    const char *spool; /* directory for long messages under filters; NULL: none */
    const struct milter_config *milters;
    size_t milter_count;
    const struct policy_config *policies;
    size_t policy_count;
    struct guard_config guard;
    uint64_t release_max_ms;  /* FUTURERELEASE */
    uint32_t deliverby_min_s; /* DELIVERBY */
};
/* What a reload makes anew besides the settings; a reference of each that is not NULL is taken. */
struct inbound_parts {
    struct recipients *recipients;
    struct tls_server *tls;    /* NULL: no TLS */
    struct auth *auth;         /* NULL: no AUTH */
    struct mailauth *mailauth; /* NULL: neither verified nor signed */
};
struct inbound_config {
    struct bus *bus;
    const char *scheduler; /* endpoint of the scheduler's hub */
    const char *admin;     /* endpoint of the admin hub, or NULL */
    uint32_t loops;
    const int (*fds)[16]; /* bound sockets: fds[loop][listener], made before root was dropped */
    uint32_t listeners;   /* <= 16 */
};

struct inbound;
int inbound_start(struct inbound **in, const struct inbound_config *c, const struct inbound_settings *s,
                  const struct inbound_parts *parts) MUST_CHECK;
/* Thread-safe. New settings and parts for commands from now on; sessions keep theirs until their transaction ends. */
int inbound_reconfigure(struct inbound *in, const struct inbound_settings *s,
                        const struct inbound_parts *parts) MUST_CHECK;
/* Stops listening; sessions get 421 at the next command boundary, complete bodies are finished first. done is called
 * on some loop's thread when the last session is gone, or after timeout_ms. */
void inbound_drain(struct inbound *in, uint64_t timeout_ms, void (*done)(void *arg), void *arg);
/* Thread-safe. While paused new connections get 421, and sessions at their next command boundary, so that clients go to
 * another host; the sockets stay open, since their ports may be out of reach without root. */
void inbound_pause(struct inbound *in, bool paused);
/* Closes what is left, joins the threads, frees. */
void inbound_stop(struct inbound *in);
/* Thread-safe. The scheduler has answered every loop: mail can be accepted, or 451 is the answer that will stay. */
bool inbound_is_ready(const struct inbound *in);
uint64_t inbound_sessions(const struct inbound *in);

#endif
