/*
 * session_client: who the client is. Its address is the connection's, unless a balancer that we believe says otherwise
 * by PROXY or XCLIENT; its name comes from AUTH or from a verified certificate. Whatever is learned here is what the
 * checks, the log, Received and the envelope then say.
 */
#include <netinet/in.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/units.h"

#include "gateway/inbound/session.h"
#include "gateway/inbound/transaction.h"
#include "gateway/smtp/proxy.h"

METRIC_COUNTER(metric_secured, "posthouse_smtp_tls_total", "TLS handshakes done")
METRIC_COUNTER(metric_resumed, "posthouse_smtp_tls_resumed_total", "TLS handshakes resumed by a ticket")

/* -- addresses -- */

void session_set_peer(struct session *s, const struct tcp_addr *peer) {
    s->peer = *peer;
    s->ip_len = tcp_addr_ip(&s->peer, s->ip, sizeof s->ip);
    s->trusted = front_trusts(s->front, &s->peer);
}

/* Our own address costs a question to the kernel: it is asked for those only who want to know. */
static const struct tcp_addr *local_of(const struct session *s) {
    return s->local.len ? &s->local : tcp_local(s->tcp);
}

/* Most of these are empty, and asked for at every stage. */
static inline struct span known(const char *text) {
    return span_make(text, *text ? strlen(text) : 0);
}

void session_refresh_facts(struct session *s) {
    const struct server *v = &s->server;
    const struct transaction *t = s->transaction;
    const struct inbound_settings *settings = &s->front->settings;
    s->facts = (struct check_facts){
        .client = &s->peer,
        .local = s->worker->policies ? local_of(s) : NULL,
        .client_ip = session_ip(s),
        .client_name = known(s->guard.name),
        .reverse_name = known(s->guard.reverse),
        .helo = v->helo,
        .esmtp = v->esmtp,
        .tls = tcp_tls_info(s->tcp),
        .mechanism = known(s->mechanism),
        .account = known(s->account),
        .trusted = s->trusted,
        .submission = s->listener->submission,
        .hostname = span_of(settings->hostname),
        .sender = v->mail.sender.text,
        .id = t ? known(t->name) : SPAN_EMPTY,
        .size = v->wait == SERVER_WAIT_END ? v->data.size : v->mail.size,
        .smtputf8 = v->mail.smtputf8,
        .eight_bit_given = v->mail.eight_bit,
        .recipient = v->rcpt.address.text,
        .recipients = v->rcpt_count,
    };
}

/* The limits count who it really is. */
static bool recount(struct session *s) {
    struct limits_client *fresh;
    const struct inbound_limits *l = &s->front->settings.limits;
    struct limits *limits = &s->worker->in->limits;
    if (s->client)
        limits_leave(limits, s->client);
    s->client = NULL;
    if (limits_enter(limits, &s->peer, l->connections, l->connections_per_client, &fresh) != LIMITS_WELCOME)
        return false;
    s->client = fresh;
    return true;
}

static void make_addr(struct tcp_addr *to, bool v6, const uint8_t bytes[16], uint16_t port) {
    memset(to, 0, sizeof *to);
    if (v6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to->storage;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        memcpy(&in6->sin6_addr, bytes, 16);
        to->len = sizeof *in6;
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)&to->storage;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, bytes, 4);
        to->len = sizeof *in;
    }
}

int session_read_proxy(struct session *s) {
    struct proxy_header h;
    struct tcp_addr client;
    size_t used;
    if (!front_believes(s->front, tcp_peer(s->tcp)))
        return ERR_DENIED;
    int err = proxy_read(&h, buf_span(tcp_in(s->tcp)), &used);
    if (err)
        return err;
    if (!h.local) { /* before the octets go: h may point into them */
        make_addr(&client, h.v6, h.client, h.client_port);
        make_addr(&s->local, h.v6, h.server, h.server_port);
        session_set_peer(s, &client);
    }
    buf_consume(tcp_in(s->tcp), used);
    s->expects_proxy = false;
    return recount(s) ? ERR_OK : ERR_FULL;
}

static struct server_reply xclient_refused(const char *why) {
    return session_reply(501, "5.5.4", why);
}

/* "IPV6:…" or as it is. */
static int parse_xclient_addr(struct tcp_addr *a, struct span text, uint16_t port) {
    if (span_starts_nocase(text, SPAN("IPV6:")))
        text = span_from(text, 5);
    return tcp_addr_parse(a, text, port);
}

static void take_name(char *to, size_t size, struct span name) {
    if (name.at)
        span_copy(name, to, size);
}

static struct server_reply take_xclient(struct session *s, struct span args) {
    struct xclient x;
    struct tcp_addr peer = s->peer;
    uint64_t port = tcp_addr_port(&s->peer);
    if (xclient_read(&x, args, &s->server.mem) != ERR_OK)
        return xclient_refused("bad XCLIENT attributes");
    if (x.port.len && (!span_u64(x.port, &port) || port > 65535))
        return xclient_refused("bad PORT");
    if (x.addr.len && parse_xclient_addr(&peer, x.addr, (uint16_t)port) != ERR_OK)
        return xclient_refused("bad ADDR");
    memset(&s->guard, 0, sizeof s->guard);
    session_set_peer(s, &peer);
    take_name(s->guard.name, sizeof s->guard.name, x.name);
    take_name(s->guard.reverse, sizeof s->guard.reverse, x.reverse_name);
    bool by_balancer = s->authenticated && strcmp(s->mechanism, "XCLIENT") != 0;
    if (!x.login.at && x.addr.len && by_balancer)
        x.login = SPAN(""); /* what it has proven of itself is not true of others */
    if (x.login.at) {
        take_name(s->account, sizeof s->account, x.login);
        s->authenticated = s->server.authenticated = x.login.len > 0;
        span_copy(x.login.len ? SPAN("XCLIENT") : SPAN(""), s->mechanism, sizeof s->mechanism);
    }
    milters_free(s->milters); /* they have heard of another client */
    s->milters = NULL;
    s->server.stale = true; /* what xclient_read took of the arena */
    return session_reply(220, "", "");
}

bool session_xclient(struct session *s, struct span args, struct buf *out) {
    struct server_reply r = take_xclient(s, args);
    if (r.code >= 300) {
        server_answer(&s->server, r, out);
        return true;
    }
    session_offer_auth(s);
    if (recount(s))
        return session_check(s, CHECK_CONNECT, out);
    server_farewell(&s->server, session_reply(421, "4.7.0", "too many connections from your network"), out);
    return true;
}

/* -- TLS -- */

int session_secure(struct session *s) {
    if (!s->front->parts.tls)
        return ERR_DENIED;
    if (s->listener->proxy && s->server.state == SERVER_START) /* the header may have brought some of the handshake */
        return tcp_secure_server_early(s->tcp, s->front->parts.tls);
    return tcp_secure_server(s->tcp, s->front->parts.tls);
}

/* A verified certificate is as good as a password, where the listener says so. */
static void take_certificate(struct session *s, const struct tls_info *info) {
    if (!s->listener->client_certificate || !info->peer_verified)
        return;
    const char *name = *info->peer_email ? info->peer_email : info->peer_subject;
    span_copy(span_of(name), s->account, sizeof s->account);
    span_copy(SPAN("EXTERNAL"), s->mechanism, sizeof s->mechanism);
    s->authenticated = s->server.authenticated = *name != '\0';
    LOG_INFO("certificate_accepted", LOG_SPAN("client", session_ip(s)), LOG_STR("account", s->account),
             LOG_STR("fingerprint", info->peer_fingerprint));
}

void session_secured(struct session *s) {
    const struct tls_info *info = tcp_tls_info(s->tcp);
    s->account[0] = s->mechanism[0] = '\0';
    s->authenticated = false;
    if (s->server.state == SERVER_START)
        s->server.tls = true;
    else
        server_secured(&s->server, SPAN_EMPTY);
    if (s->milters)
        milters_reset(s->milters);
    s->secured = true;
    metric_add(&metric_secured, 1);
    if (info->resumed)
        metric_add(&metric_resumed, 1);
    take_certificate(s, info);
    session_offer_auth(s);
    LOG_DEBUG("secured", LOG_SPAN("client", session_ip(s)), LOG_STR("version", info->version),
              LOG_STR("cipher", info->cipher), LOG_STR("sni", info->sni), LOG_U64("resumed", info->resumed));
}

/* -- AUTH -- */

void session_offer_auth(struct session *s) {
    const struct auth *a = s->front->parts.auth;
    const char *type;
    uint8_t binding[64];
    size_t len;
    bool offered = a && s->listener->auth != INBOUND_AUTH_OFF && !s->authenticated;
    bool bound = offered && s->secured && tcp_tls_binding(s->tcp, &type, binding, &len);
    s->server.mechanisms = offered ? auth_mechanisms(a, s->secured, bound) : SPAN_EMPTY;
    s->server.xclient = front_believes(s->front, tcp_peer(s->tcp)) && !s->listener->proxy;
}

static struct server_reply auth_reply(enum auth_event event) {
    switch (event) {
    case AUTH_SUCCESS:
        return session_reply(235, "2.7.0", "authentication succeeded");
    case AUTH_FAILURE:
        return session_reply(535, "5.7.8", "authentication failed");
    case AUTH_MALFORMED:
        return session_reply(501, "5.5.2", "malformed response");
    default:
        return session_tempfail(454, "4.7.0", "authentication cannot be checked now");
    }
}

static void on_auth(void *arg, enum auth_event event, struct span text) {
    struct session *s = arg;
    struct buf *out = &s->worker->out;
    buf_clear(out);
    session_go_to(s, SESSION_IDLE);
    if (event == AUTH_CHALLENGE) {
        server_challenge(&s->server, text, out);
        session_run(s);
        return;
    }
    s->exchange = NULL;
    if (event == AUTH_SUCCESS) {
        span_copy(text, s->account, sizeof s->account);
        s->authenticated = true;
    } else {
        s->mechanism[0] = '\0';
    }
    server_answer(&s->server, auth_reply(event), out);
    session_run(s);
}

bool session_auth_begin(struct session *s, struct buf *out) {
    struct auth_client *c = &s->auth_client;
    *c = (struct auth_client){.loop = s->worker->loop,
                              .client = &s->peer,
                              .local = local_of(s),
                              .client_ip = session_ip(s),
                              .tls = s->secured,
                              .trusted = s->trusted};
    if (!s->secured || !tcp_tls_binding(s->tcp, &c->binding_type, c->binding, &c->binding_len))
        c->binding_type = NULL;
    int err = auth_begin(&s->exchange, s->front->parts.auth, s->worker->post, c, s->server.auth.mechanism,
                         s->server.auth.initial, on_auth, s);
    if (err == ERR_OK) {
        /* the arena goes with the first challenge; the mechanism's name is still wanted at the end */
        span_copy(s->server.auth.mechanism, s->mechanism, sizeof s->mechanism);
        session_go_to(s, SESSION_WAITING);
        return false;
    }
    s->exchange = NULL;
    struct server_reply r = err == ERR_UNSUPPORTED ? session_reply(504, "5.5.4", "mechanism not offered")
                            : err == ERR_DENIED
                                ? session_reply(538, "5.7.11", "encryption is needed for this mechanism")
                                : auth_reply(AUTH_TEMPFAIL);
    server_answer(&s->server, r, out);
    return true;
}

void session_auth_response(struct session *s, struct span response) {
    session_go_to(s, SESSION_WAITING);
    auth_answer(s->exchange, response);
}
