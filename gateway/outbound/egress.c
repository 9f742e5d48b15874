/*
 * egress: see egress.h. A time-out of the reply to CONNECT is the server's, since a proxy waits for a silent server as
 * long as we would; all that comes earlier is the proxy's. A relay that takes a PROXY header says nothing at all: when
 * it cannot reach the server it closes, as a server would that does not like us.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/egress.h"
#include "gateway/smtp/proxy.h"

METRIC_COUNTER(failures, "posthouse_delivery_egress_failures_total",
               "Connections that failed at the proxy of a source, not at the mail server");

static bool has_egress(const struct outbound_source *s) {
    return s && s->egress.kind != EGRESS_DIRECT;
}

const char *egress_name(const struct outbound_source *s, char to[EGRESS_NAME_MAX]) {
    char address[128];
    *to = '\0';
    if (!has_egress(s))
        return to;
    tcp_addr_format(&s->egress.address, address, sizeof address);
    snprintf(to, EGRESS_NAME_MAX, "%s %s", s->egress.kind == EGRESS_SOCKS5 ? "socks5" : "proxy_v2", address);
    return to;
}

const struct tcp_addr *egress_first_hop(const struct outbound_source *s, const struct tcp_addr *server) {
    return has_egress(s) ? &s->egress.address : server;
}

const struct tcp_addr *egress_local(const struct outbound_source *s) {
    return s && !has_egress(s) ? &s->address : NULL;
}

/* In network order; whether it is IPv6. */
static bool octets_of(const struct tcp_addr *a, uint8_t to[16]) {
    memset(to, 0, 16);
    if (a->storage.ss_family == AF_INET6) {
        memcpy(to, &((const struct sockaddr_in6 *)&a->storage)->sin6_addr, 16);
        return true;
    }
    CHECK(a->storage.ss_family == AF_INET);
    memcpy(to, &((const struct sockaddr_in *)&a->storage)->sin_addr, 4);
    return false;
}

static void say_why(struct conn *c, const char *what, const char *detail) {
    char name[EGRESS_NAME_MAX];
    egress_name(c->source, name);
    snprintf(c->egress.why, sizeof c->egress.why, "%s%s%s (through %s)", what, *detail ? ": " : "", detail, name);
}

/* -- the way there -- */

/* The port of ours is left to the relay. */
static enum egress_step send_header(struct conn *c) {
    char header[PROXY_WRITTEN_MAX];
    struct proxy_header h = {.server_port = tcp_addr_port(&c->addr)};
    h.v6 = octets_of(&c->source->address, h.client);
    CHECK(octets_of(&c->addr, h.server) == h.v6); /* a source is drawn by the family of the server */
    size_t len = proxy_write_v2(&h, header);
    return tcp_write(c->tcp, header, len) == ERR_OK ? EGRESS_UP : EGRESS_DOWN;
}

/* Takes what there is as far as it goes. */
static enum egress_step talk(struct conn *c) {
    char out[SOCKS5_OUT_MAX];
    struct span in = buf_span(tcp_in(c->tcp));
    size_t out_len, all = in.len;
    enum socks5_verdict verdict;
    bool sent = true;
    do {
        verdict = socks5_next(&c->egress.socks, &in, out, &out_len);
        if (out_len)
            sent = tcp_write(c->tcp, out, out_len) == ERR_OK;
    } while (verdict == SOCKS5_MORE && out_len && sent);
    buf_consume(tcp_in(c->tcp), all - in.len);
    if (verdict == SOCKS5_OPEN)
        return EGRESS_UP;
    return verdict == SOCKS5_MORE && sent ? EGRESS_WAIT : EGRESS_DOWN;
}

enum egress_step egress_begin(struct conn *c) {
    uint8_t ip[16];
    if (!has_egress(c->source))
        return EGRESS_UP;
    const struct outbound_egress *e = &c->source->egress;
    if (e->kind == EGRESS_PROXY_V2)
        return send_header(c);
    bool v6 = octets_of(&c->addr, ip);
    socks5_init(&c->egress.socks, e->user, e->password, v6, ip, tcp_addr_port(&c->addr));
    return talk(c);
}

enum egress_step egress_hear(struct conn *c) {
    return talk(c);
}

/* -- whose fault it is -- */

/* The dialogue with the proxy was cut off. */
static enum egress_fault blame_cut(struct conn *c, bool timeout, int err) {
    enum socks5_state at = c->egress.socks.state;
    if (at == SOCKS5_REPLY && timeout) {
        say_why(c, "no answer to the connection", "");
        return EGRESS_FAULT_NONE;
    }
    if (at == SOCKS5_START)
        say_why(c, "cannot connect to the proxy", err_text(err));
    else
        say_why(c, timeout ? "the proxy did not answer in time" : "the proxy has closed the connection", "");
    return at == SOCKS5_REPLY ? EGRESS_FAULT_HERE : EGRESS_FAULT_SOURCE;
}

bool egress_blame(struct conn *c, bool timeout, int err) {
    struct egress *e = &c->egress;
    if (!has_egress(c->source) || c->connected)
        return false;
    switch (e->socks.verdict) {
    case SOCKS5_TARGET:
        say_why(c, e->socks.why, "");
        break;
    case SOCKS5_REFUSED:
        say_why(c, e->socks.why, "");
        e->fault = EGRESS_FAULT_HERE;
        break;
    case SOCKS5_PROXY:
        say_why(c, "the proxy cannot be used", e->socks.why);
        e->fault = EGRESS_FAULT_SOURCE;
        break;
    default:
        e->fault = blame_cut(c, timeout, err);
        break;
    }
    return e->fault != EGRESS_FAULT_NONE;
}

/* -- what follows from it -- */

/* Longer than a try takes, so that proxies that do not answer are not tried in turn without end. */
static uint64_t rest_ms(const struct attempt *a) {
    return EGRESS_REST_MS + 2 * a->setup->s.timeouts.connect_ms;
}

static void log_failure(const struct attempt *a, const struct conn *c) {
    char ip[128];
    tcp_addr_ip(&c->source->address, ip, sizeof ip);
    bool here = c->egress.fault == EGRESS_FAULT_HERE;
    LOG_WARN("source_failed", LOG_STR("source", ip), LOG_STR("at", here ? a->site->name : "all sites"),
             LOG_U64("for_ms", rest_ms(a)), LOG_STR("remote", c->remote), LOG_STR("text", c->egress.why));
}

/* A verdict on our own way out: other hosts may be reached by another source, and nothing that they say is covered. */
static struct attempt_result result_of_failure(struct attempt *a, const struct conn *c) {
    enum outcome_next next = a->source_failures < EGRESS_TRIES_MAX ? OUTCOME_NEXT_HOST : OUTCOME_NEXT_NONE;
    return (struct attempt_result){
        .verdict = {OUTCOME_DEFERRED, SCOPE_MESSAGE, next, false, "4.4.0", ""},
        .enhanced = SPAN("4.4.0"),
        .text = arena_dup(&a->mem, span_of(c->egress.why)),
        .remote = arena_dup(&a->mem, span_of(c->remote)),
    };
}

bool egress_on_end(struct attempt *a, struct conn *c) {
    if (c->egress.fault == EGRESS_FAULT_NONE)
        return false;
    metric_add(&failures, 1);
    a->source_failures++;
    log_failure(a, c);
    throttle_rest_source(a, c->source, c->egress.fault == EGRESS_FAULT_HERE ? a->site->name : NULL, rest_ms(a));
    if (attempt_lost_rival(a, c)) {
        a->source_failed = true;
        return true;
    }
    a->conn = NULL;
    a->slot = site_keep_slot(a->site);
    if (a->source_failures < EGRESS_TRIES_MAX && throttle_has_source(a, &c->addr)) {
        a->target.addr = c->addr;
        attempt_same_target(a);
        return true;
    }
    struct attempt_result r = result_of_failure(a, c);
    a->source_failed = true;
    a->tried++; /* this host has not refused it */
    a->last = r;
    a->has_last = true;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate == FATE_PENDING)
            attempt_judge(a, i, &r);
    }
    attempt_go_on(a);
    return true;
}
