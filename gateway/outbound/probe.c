/*
 * probe: `posthouse tls probe`: a try at TLS with each address that mail would go to, in order: EHLO, STARTTLS, the
 * handshake under the policy in force, QUIT. It sends no mail and judges nobody's; what it finds is told line by line.
 */
#include <stdlib.h>

#include "gateway/outbound/explain_in.h"

enum { PROBE_TARGETS = 5, PROBE_MS = 15000, IN_MAX = 16 * 1024, OUT_MAX = 16 * 1024 };

struct probe {
    struct explain *x;
    uint32_t at; /* target */
    struct dane_ask dane;
    struct tls_target target;
    struct tcp *tcp;
    struct client client;
    bool has_client;
    struct loop_timer *timer;
    bool shaken;
    uint32_t good;
};

static void next(struct probe *p);

static const struct mx_target *target_of(const struct probe *p) {
    return &p->x->targets[p->at];
}

static void tell(struct probe *p, const char *what) {
    const struct mx_target *t = target_of(p);
    char ip[128];
    tcp_addr_ip(&t->addr, ip, sizeof ip);
    explain_add(p->x, arena_printf(&p->x->mem, "%s [%s]: %s", t->host, ip, what ? what : "no memory to tell"));
}

static void hang_up(struct probe *p) {
    if (p->tcp)
        tcp_finish(p->tcp, 1000);
    p->tcp = NULL;
    if (p->has_client)
        client_deinit(&p->client);
    p->has_client = false;
    loop_timer_stop(p->timer);
}

/* This address is done with. */
static void go_on(struct probe *p, const char *what) {
    tell(p, what);
    hang_up(p);
    dane_cancel(&p->dane);
    p->at++;
    next(p);
}

static void on_time(void *arg) {
    struct probe *p = arg;
    go_on(p, "no answer in time");
}

static void send_out(struct probe *p) {
    struct buf *out = &p->client.out;
    if (buf_len(out) && tcp_write(p->tcp, buf_span(out).at, buf_len(out)) != ERR_OK)
        loop_timer_set(p->timer, 0); /* told as silence */
    buf_clear(out);
}

static void begin_tls(struct probe *p) {
    struct tls_wish wish;
    const char *names[3];
    char key[400];
    struct tls_target t = p->target;
    if (t.level < TLS_LEVEL_ENCRYPT) /* a probe tries it whether mail needs it or not */
        t.level = TLS_LEVEL_ENCRYPT;
    (void)tls_make_wish(&t, target_of(p)->host, "", &wish, names, key);
    wish.session_key = NULL;
    if (tcp_secure_client_with(p->tcp, p->x->setup->tls, &wish) != ERR_OK)
        go_on(p, "the server talked before the handshake");
}

static void on_secured(struct probe *p) {
    const struct tls_info *i = tcp_tls_info(p->tcp);
    struct arena *mem = &p->x->mem;
    const char *how = i->dane_matched          ? "matches its TLSA records"
                      : i->fingerprint_matched ? "has the fingerprint that is set"
                      : i->peer_verified       ? "verified"
                                               : "not verified";
    p->good++;
    bool poor = !i->peer_verified && !i->dane_matched && !i->fingerprint_matched && *i->verify_error;
    tell(p, arena_printf(mem, "%s, %s, certificate %s%s%s", i->version, i->cipher, how, poor ? ": " : "",
                         poor ? i->verify_error : ""));
    tell(p, arena_printf(mem, "certificate of %s, by %s", i->peer_subject, i->peer_issuer));
    p->shaken = true;
    client_secured(&p->client);
    send_out(p);
}

static void hear(struct probe *p) {
    struct client_event e;
    struct span in = buf_span(tcp_in(p->tcp));
    size_t len = in.len;
    client_next(&p->client, &in, &e);
    buf_consume(tcp_in(p->tcp), len - in.len);
    send_out(p);
    switch (e.kind) {
    case CLIENT_EV_SECURE:
        begin_tls(p);
        return;
    case CLIENT_EV_READY:
        client_quit(&p->client);
        send_out(p);
        go_on(p, p->client.ext.requiretls ? "offers REQUIRETLS" : "does not offer REQUIRETLS");
        return;
    case CLIENT_EV_END:
        go_on(p, e.stage == CLIENT_STARTTLS && !e.reply ? "does not offer STARTTLS"
                 : e.reply
                     ? arena_printf(&p->x->mem, "%s: %.*s", client_stage_name(e.stage), SPAN_FMT(reply_text(e.reply)))
                     : client_stage_name(e.stage));
        return;
    default:
        return;
    }
}

static void on_tcp(void *arg, struct tcp *t, enum tcp_event event, int err) {
    struct probe *p = arg;
    switch (event) {
    case TCP_READ:
        hear(p);
        return;
    case TCP_SECURED:
        on_secured(p);
        return;
    case TCP_EOF:
        go_on(p, "the server closed the connection");
        return;
    case TCP_FAILED:
        go_on(p, *tcp_tls_why(t) ? arena_printf(&p->x->mem, "TLS failed: %s", tcp_tls_why(t)) : err_text(err));
        return;
    default:
        return;
    }
}

static void knock(struct probe *p) {
    const struct mx_target *t = target_of(p);
    p->tcp = tcp_connect(p->x->o->loop, &t->addr, NULL, IN_MAX, OUT_MAX, on_tcp, p);
    if (!p->tcp) {
        go_on(p, err_text(ERR_NOMEM));
        return;
    }
    client_init(&p->client, p->x->rule && p->x->rule->route.kind == ROUTE_LMTP ? CLIENT_LMTP : CLIENT_SMTP,
                p->x->setup->s.hostname);
    p->has_client = true;
    p->client.tls = CLIENT_TLS_MUST;
    loop_timer_set(p->timer, PROBE_MS);
}

static void on_dane(void *arg, const struct dane_answer *answer) {
    struct probe *p = arg;
    if (answer)
        tell(p, arena_printf(&p->x->mem, "TLSA records: %s%s%s", dane_status_text(answer->status),
                             *answer->why ? ", " : "", answer->why));
    enum tls_host_verdict v = tls_judge_host(&p->x->demand, target_of(p)->host, answer, &p->target);
    if (v != TLS_HOST_FINE)
        go_on(p, tls_host_verdict_text(v));
    else
        knock(p);
}

static void next(struct probe *p) {
    struct explain *x = p->x;
    if (p->at >= x->addresses || p->at >= PROBE_TARGETS) {
        explain_answer(x, arena_printf(&x->mem, "TLS with %u of %u addresses", p->good, p->at));
        return;
    }
    const struct mx_target *t = target_of(p);
    if (t->addr.storage.ss_family == AF_UNIX)
        go_on(p, "stays on this host: no TLS");
    else if (x->demand.dane)
        dane_start(&p->dane, x->o->cache, t->host, tcp_addr_port(&t->addr), loop_now_ms(x->o->loop), on_dane, p);
    else
        on_dane(p, NULL);
}

void probe_start(struct explain *x) {
    struct probe *p = x->probe = calloc(1, sizeof *p);
    if (p)
        p->timer = loop_timer_new(x->o->loop, on_time, p);
    if (!p || !p->timer) {
        explain_answer(x, NULL);
        return;
    }
    p->x = x;
    next(p);
}

void probe_end(struct explain *x) {
    struct probe *p = x->probe;
    if (!p)
        return;
    x->probe = NULL;
    if (p->tcp)
        tcp_finish(p->tcp, 1000);
    if (p->has_client)
        client_deinit(&p->client);
    dane_cancel(&p->dane);
    if (p->timer)
        loop_timer_close(p->timer);
    free(p);
}
