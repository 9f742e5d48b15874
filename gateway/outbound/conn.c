/*
 * conn: see conn.h. Events of the core are passed on as they come; what makes the dialogue go on
 * (the next transaction, the body) waits until the input is used up, so that a reply
 * that nobody asked for is never taken for the answer to what comes next.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/base32.h"
#include "base/check.h"
#include "base/dialogue.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/conn.h"

enum {
    IN_MAX = 64 * 1024,
    OUT_MAX = 2 * 1024 * 1024,
    QUEUED_HIGH = 256 * 1024,
    PIECES = 60,
    FINISH_MS = 5000,
    PREPARE_MS = 300000
};

METRIC_GAUGE(open_now, "posthouse_delivery_connections", "Connections to mail servers, open or being opened");
METRIC_COUNTER(opened, "posthouse_delivery_connections_opened_total", "Connections that were started");
METRIC_COUNTER_L(failed_connect, "posthouse_delivery_connections_failed_total", "stage=\"connect\"",
                 "Connections that ended before QUIT");
METRIC_COUNTER_L(failed_later, "posthouse_delivery_connections_failed_total", "stage=\"session\"",
                 "Connections that ended before QUIT");
METRIC_COUNTER(reused, "posthouse_delivery_connections_reused_total",
               "Transactions on a connection that had carried one before");
METRIC_GAUGE(idle_now, "posthouse_delivery_connections_idle", "Connections kept warm");
METRIC_COUNTER(bytes_sent, "posthouse_delivery_body_bytes_total", "Octets of bodies sent");

static void on_tcp(void *arg, struct tcp *t, enum tcp_event event, int err);
static void on_timer(void *arg);

/* -- beginning and end -- */

static void name_remote(struct conn *c, const struct mx_target *t) {
    char ip[128];
    tcp_addr_ip(&t->addr, ip, sizeof ip);
    snprintf(c->host, sizeof c->host, "%s", t->host);
    if (t->addr.storage.ss_family == AF_UNIX)
        snprintf(c->remote, sizeof c->remote, "%s", ip);
    else if (span_eq(span_of(t->host), span_of(ip)))
        snprintf(c->remote, sizeof c->remote, "[%s]:%u", ip, tcp_addr_port(&t->addr));
    else
        snprintf(c->remote, sizeof c->remote, "%.160s [%s]:%u", t->host, ip, tcp_addr_port(&t->addr));
}

/* The first wait is short: then another address may be tried beside this one. */
static uint64_t race_ms(const struct conn *c) {
    uint64_t whole = c->setup->s.timeouts.connect_ms;
    return whole > ATTEMPT_RACE_MS ? ATTEMPT_RACE_MS : whole;
}

struct conn *conn_open(struct outbound *o, struct site *s, struct attempt *a, const struct mx_target *t) {
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct conn){.o = o, .site = s, .addr = t->addr};
    c->source = throttle_source(a, &t->addr);
    if (a->throttle.pool && !c->source && t->addr.storage.ss_family != AF_UNIX) {
        free(c);
        return NULL;
    }
    c->timer = loop_timer_new(o->loop, on_timer, c);
    const struct tcp_addr *hop = egress_first_hop(c->source, &t->addr), *from = egress_local(c->source);
    c->tcp = c->timer ? tcp_connect(o->loop, hop, from, IN_MAX, OUT_MAX, on_tcp, c) : NULL;
    if (!c->tcp) {
        if (c->timer)
            loop_timer_close(c->timer);
        free(c);
        return NULL;
    }
    c->setup = setup_ref(c->source ? a->setup : o->setup);
    client_init(&c->client, attempt_is_lmtp(a) ? CLIENT_LMTP : CLIENT_SMTP,
                c->source && c->source->ehlo ? c->source->ehlo : c->setup->s.hostname);
    c->client.tls = a->secure.plain || a->secure.target.level == TLS_LEVEL_NONE ? CLIENT_TLS_NEVER
                    : a->secure.target.level == TLS_LEVEL_MAY                   ? CLIENT_TLS_OFFERED
                                                                                : CLIENT_TLS_MUST;
    if (a->rule && a->rule->login) {
        login_init(&c->login, a->rule->login);
        c->client.login = &c->login.core;
    }
    name_remote(c, t);
    health_on_open(c);
    c->attempt = a;
    list_push_back(&o->conns, &c->in_all);
    loop_timer_set(c->timer, race_ms(c));
    metric_add(&open_now, 1);
    metric_add(&opened, 1);
    return c;
}

static void leave_rest(struct conn *c) {
    if (!list_is_linked(&c->in_idle))
        return;
    list_remove(&c->o->idle, &c->in_idle);
    list_remove(&c->site->idle, &c->in_site);
    metric_sub(&idle_now, 1);
}

/* Takes it out of everything. `gently`: what is queued still goes out. */
static void end(struct conn *c, bool gently) {
    if (c->gone)
        return;
    c->gone = true;
    leave_rest(c);
    health_on_close(c);
    if (c->established)
        c->site->established--;
    c->attempt = NULL;
    if (gently)
        tcp_finish(c->tcp, FINISH_MS);
    else
        tcp_close(c->tcp);
    loop_timer_close(c->timer);
    list_remove(&c->o->conns, &c->in_all);
    list_push_back(&c->o->gone_conns, &c->in_all);
    site_free_slot(c->site);
    metric_sub(&open_now, 1);
}

/* What an attempt asks of a connection that has ended is there until now. */
static void conn_free(struct conn *c) {
    client_deinit(&c->client);
    login_deinit(&c->login);
    setup_free(c->setup);
    free(c);
}

void conns_reap(struct outbound *o) {
    struct list_node *n;
    while ((n = list_pop_front(&o->gone_conns)))
        conn_free(LIST_ENTRY(n, struct conn, in_all));
}

/* Ends it and lets others have its slot; the attempt, when there is one, hears `e` first. */
static void end_and_tell(struct conn *c, bool gently, const struct client_event *e, int err) {
    struct site *s = c->site;
    struct attempt *a = c->attempt;
    s->users++;
    end(c, gently);
    if (a)
        attempt_on_end(a, c, e, err);
    site_pump(s);
    site_close(s);
}

void conn_drop(struct conn *c) {
    struct site *s = c->site;
    s->users++;
    if (c->client.state == CLIENT_READY && !c->gone && tcp_write(c->tcp, "QUIT\r\n", 6) == ERR_OK)
        end(c, true);
    else
        end(c, false);
    site_close(s);
}

/* -- the clock -- */

static uint64_t time_for(const struct conn *c) {
    const struct outbound_timeouts *t = &c->o->setup->s.timeouts;
    switch (c->client.state) {
    case CLIENT_GREETING:
        return t->greeting_ms;
    case CLIENT_EHLO:
    case CLIENT_HELO:
    case CLIENT_STARTTLS:
    case CLIENT_SHAKING:
    case CLIENT_AUTH:
    case CLIENT_XCLIENT:
        return t->ehlo_ms;
    case CLIENT_XFORWARD:
    case CLIENT_MAIL:
    case CLIENT_RSET:
        return t->mail_ms;
    case CLIENT_READY: /* the attempt prepares its body: our time, not the server's */
        return PREPARE_MS;
    case CLIENT_RCPT:
        return t->rcpt_ms;
    case CLIENT_DATA:
        return t->data_ms;
    case CLIENT_BODY:
        return t->block_ms;
    case CLIENT_DOT: /* the server's time begins when it has the dot */
        return c->dot_queued ? t->block_ms : t->dot_ms;
    case CLIENT_DRAIN:
        return t->dot_ms;
    default:
        return t->quit_ms;
    }
}

/* Sets the timer when the dialogue has moved; octets that do not complete a reply move nothing. */
static void set_clock(struct conn *c, bool moved) {
    if (c->write_failed || (!moved && c->timed == c->client.state && c->timed_rcpt == c->client.next_rcpt))
        return;
    c->timed = c->client.state;
    c->timed_rcpt = c->client.next_rcpt;
    loop_timer_set(c->timer, time_for(c));
}

/* What went wrong in a call of ours is told from the top of the next turn; a last word of the server may come before.
 */
static void fail_soon(struct conn *c) {
    c->write_failed = true;
    loop_timer_set(c->timer, 0);
}

/* The connection has failed by itself, or out of time. */
static void fail(struct conn *c, enum client_answer answer, int err) {
    enum client_stage stage = c->connected ? c->client.state : CLIENT_CONNECT;
    if (stage == CLIENT_DOT && c->dot_queued)
        stage = CLIENT_BODY; /* the dot never left us */
    if (stage == CLIENT_SHAKING) {
        c->fault = (enum tls_fault)tcp_tls_fault(c->tcp);
        if (!*c->tls_why)
            snprintf(c->tls_why, sizeof c->tls_why, "%s", tcp_tls_why(c->tcp));
    }
    bool ours = egress_blame(c, answer == CLIENT_ANSWER_TIMEOUT, err);
    if (stage <= CLIENT_EHLO && !c->established && !ours)
        dead_mark(&c->o->dead, &c->addr, loop_now_ms(c->o->loop));
    metric_add(stage == CLIENT_CONNECT ? &failed_connect : &failed_later, 1);
    const struct client_event e = {.kind = CLIENT_EV_END, .stage = stage, .answer = answer};
    end_and_tell(c, false, &e, err);
}

static void on_timer(void *arg) {
    struct conn *c = arg;
    conns_reap(c->o);
    if (!c->connected && !c->raced && c->attempt && c->setup->s.timeouts.connect_ms > ATTEMPT_RACE_MS) {
        c->raced = true;
        loop_timer_set(c->timer, c->setup->s.timeouts.connect_ms - ATTEMPT_RACE_MS);
        attempt_on_slow(c->attempt);
        return;
    }
    if (c->write_failed)
        fail(c, CLIENT_ANSWER_LOST, ERR_CLOSED);
    else if (list_is_linked(&c->in_idle))
        conn_quit(c);
    else
        fail(c, CLIENT_ANSWER_TIMEOUT, ERR_TIMEOUT);
}

/* -- sending -- */

/* For `posthouse trace smtp out`: the server, and the message that it is about. */
static void trace(struct conn *c, const char *mark, struct span octets) {
    char who[RESULT_REMOTE_MAX + 40] = "", id[BASE32_ID_LEN + 1] = "";
    if (!octets.len || !ring_is_on(RING_SMTP_OUT))
        return;
    if (c->attempt)
        base32_encode(c->attempt->job->message, id);
    int len = snprintf(who, sizeof who, "%s %s", c->remote, id);
    if (c->client.state == CLIENT_AUTH && *mark == 'C')
        dialogue_add_secret(RING_SMTP_OUT, span_make(who, (size_t)len), mark);
    else
        dialogue_add(RING_SMTP_OUT, span_make(who, (size_t)len), mark, octets);
}

static void flush(struct conn *c) {
    struct buf *out = &c->client.out;
    if (out->err) {
        fail_soon(c);
    } else if (buf_len(out)) {
        trace(c, "C:", buf_span(out));
        int err = tcp_write(c->tcp, buf_span(out).at, buf_len(out));
        buf_clear(out);
        if (err != ERR_OK)
            fail_soon(c);
    }
}

/* One vector write of what is at hand. False: nothing can be written now. */
static bool send_piece(struct conn *c, struct content *b) {
    struct span pieces[PIECES + 1];
    uint64_t now = loop_now_ms(c->o->loop);
    struct span at = content_at(b, now);
    size_t used = 0, count = 0;
    if (tcp_queued(c->tcp) > QUEUED_HIGH || (!at.len && !content_is_end(b)))
        return false;
    if (at.len)
        count = stuff_next(&c->stuff, at, pieces, PIECES, &used);
    bool last = b->read + used == content_size(b);
    if (last)
        pieces[count++] = stuff_end(&c->stuff);
    if (count && tcp_writev(c->tcp, pieces, count) != ERR_OK) {
        fail_soon(c);
        return false;
    }
    content_take(b, used, now);
    metric_add(&bytes_sent, used);
    if (last) {
        c->messages++;
        client_body_sent(&c->client);
        c->dot_queued = tcp_queued(c->tcp) > 0;
    }
    return true;
}

static void send_body(struct conn *c, bool moved) {
    while (c->client.state == CLIENT_BODY && send_piece(c, attempt_body(c->attempt)))
        moved = true;
    set_clock(c, moved);
}

void conn_body_moved(struct conn *c) {
    if (c->client.state == CLIENT_BODY && !c->write_failed)
        send_body(c, false);
}

int conn_begin(struct conn *c, const struct client_mail *m) {
    int err = client_begin(&c->client, m);
    if (err != ERR_OK)
        return err;
    if (c->client.transactions > 1)
        metric_add(&reused, 1);
    c->dot_queued = false;
    flush(c);
    set_clock(c, true);
    return ERR_OK;
}

void conn_introduce(struct conn *c, const struct client_attrs *a) {
    client_introduce(&c->client, a);
    flush(c);
    set_clock(c, true);
}

/* -- hearing -- */

static void on_ready(struct conn *c) {
    c->ready = false;
    if (!c->established) {
        c->established = true;
        c->site->established++;
        c->site->has_failed = false;
        dead_clear(&c->o->dead, &c->addr);
        health_on_established(c);
    }
    if (c->dot_queued) { /* answered before it was sent: what is queued would be read as commands */
        const struct client_event e = {.kind = CLIENT_EV_END, .stage = CLIENT_READY, .answer = CLIENT_ANSWER_BAD};
        end_and_tell(c, false, &e, ERR_INVALID);
        return;
    }
    if (c->attempt)
        attempt_on_ready(c->attempt, c);
    if (c->gone)
        return;
    if (!c->attempt)
        site_conn_ready(c->site, c);
    else if (c->client.state == CLIENT_READY)
        set_clock(c, true);
}

/* -- TLS -- */

/* The server is ready for it. Octets that came behind its word are an attack (NO STARTTLS, CVE-2021-38371). */
static void begin_tls(struct conn *c) {
    struct tls_wish wish;
    const char *names[3];
    char key[400];
    const struct secure *s = &c->attempt->secure;
    bool wanted = tls_make_wish(&s->target, c->host, s->tag, &wish, names, key);
    int err = wanted ? tcp_secure_client_with(c->tcp, c->setup->tls, &wish) : ERR_INVALID;
    c->shaking = err == ERR_OK;
    if (err)
        snprintf(c->tls_why, sizeof c->tls_why, "%s",
                 err == ERR_INVALID ? "the server talked before the handshake" : err_text(err));
    if (err)
        fail_soon(c);
}

static void describe_tls(struct conn *c) {
    const struct tls_info *i = tcp_tls_info(c->tcp);
    const struct tls_demand *d = &c->attempt->secure.demand;
    const char *how = i->dane_matched          ? "DANE"
                      : i->fingerprint_matched ? "fingerprint"
                      : i->peer_verified       ? "verified"
                                               : "unverified";
    snprintf(c->tls_text, sizeof c->tls_text, "%s %.40s %s", i->version, i->cipher, how);
    c->secure_sts_failed = d->sts && d->sts->mode == STS_TESTING && !i->peer_verified && !i->dane_matched;
}

static void on_secured(struct conn *c) {
    c->shaking = false;
    describe_tls(c);
    if (c->attempt->secure.target.level == TLS_LEVEL_DANE && !tcp_tls_info(c->tcp)->dane_matched) {
        snprintf(c->tls_why, sizeof c->tls_why, "no TLSA record matches"); /* none of them could be used after all */
        fail_soon(c);
        return;
    }
    c->login.secured = true;
    trace(c, "*", span_of(c->tls_text));
    client_secured(&c->client);
    flush(c);
    set_clock(c, true);
}

static void hear(struct conn *c) {
    struct client_event e;
    struct span in = buf_span(tcp_in(c->tcp));
    size_t len = in.len;
    trace(c, "S:", in);
    for (;;) {
        client_next(&c->client, &in, &e);
        if (e.kind == CLIENT_EV_MORE || e.kind == CLIENT_EV_END || e.kind == CLIENT_EV_SECURE)
            break;
        if (e.kind == CLIENT_EV_READY)
            c->ready = true;
        else if (e.kind == CLIENT_EV_BODY)
            c->body_wanted = true;
        else
            attempt_on_event(c->attempt, c, &e);
    }
    buf_consume(tcp_in(c->tcp), e.kind == CLIENT_EV_SECURE ? len - in.len : len);
    flush(c);
    if (e.kind == CLIENT_EV_SECURE) {
        begin_tls(c);
        set_clock(c, true);
        return;
    }
    if (e.kind == CLIENT_EV_END) {
        if (e.stage != CLIENT_QUIT && e.stage != CLIENT_READY)
            metric_add(&failed_later, 1);
        end_and_tell(c, !c->dot_queued, &e, ERR_OK); /* a dot that was answered before it went must not go */
        return;
    }
    if (c->body_wanted) {
        c->body_wanted = false;
        attempt_on_body(c->attempt);
        stuff_init(&c->stuff);
        send_body(c, true);
    } else if (c->ready) {
        on_ready(c);
    } else {
        set_clock(c, false);
    }
}

/* The clock of the connect goes on until the server is there. */
static void on_egress(struct conn *c, enum egress_step step) {
    if (step == EGRESS_DOWN)
        fail(c, CLIENT_ANSWER_LOST, ERR_CLOSED);
    if (step != EGRESS_UP)
        return;
    char way[EGRESS_NAME_MAX];
    trace(c, "*", span_of(egress_name(c->source, way)));
    c->connected = true;
    set_clock(c, true);
    if (c->attempt)
        attempt_on_connected(c->attempt, c);
    if (buf_len(tcp_in(c->tcp))) /* came in one piece with the last word of the proxy */
        hear(c);
}

static void on_tcp(void *arg, struct tcp *t, enum tcp_event event, int err) {
    struct conn *c = arg;
    (void)t;
    conns_reap(c->o);
    switch (event) {
    case TCP_CONNECTED:
        on_egress(c, egress_begin(c));
        return;
    case TCP_SECURED:
        on_secured(c);
        return;
    case TCP_READ:
        if (c->connected)
            hear(c);
        else
            on_egress(c, egress_hear(c));
        return;
    case TCP_DRAINED:
        c->dot_queued = false;
        if (c->client.state == CLIENT_BODY && !c->write_failed)
            send_body(c, true);
        else if (c->client.state == CLIENT_DOT)
            set_clock(c, true);
        return;
    case TCP_EOF:
        fail(c, CLIENT_ANSWER_LOST, ERR_CLOSED);
        return;
    case TCP_FAILED:
        fail(c, err == ERR_TIMEOUT && !c->connected ? CLIENT_ANSWER_TIMEOUT : CLIENT_ANSWER_LOST, err);
        return;
    }
}

/* -- between transactions -- */

bool conn_is_worn(const struct conn *c) {
    uint32_t max = c->o->setup->s.messages_per_connection, mail_max = c->client.ext.mail_max;
    return throttle_conn_is_worn(c) || (!c->site->per_connection && c->messages >= max) ||
           (mail_max && c->client.transactions >= mail_max) || c->write_failed || c->bound;
}

void conn_take(struct conn *c) {
    leave_rest(c);
    set_clock(c, true);
}

void conn_rest(struct conn *c) {
    CHECK(!c->attempt && c->client.state == CLIENT_READY);
    list_push_back(&c->o->idle, &c->in_idle);
    list_push_back(&c->site->idle, &c->in_site);
    metric_add(&idle_now, 1);
    c->timed = CLIENT_READY;
    if (!c->write_failed)
        loop_timer_set(c->timer, c->o->setup->s.timeouts.idle_ms);
}

void conn_quit(struct conn *c) {
    CHECK(!c->attempt);
    leave_rest(c);
    if (c->write_failed)
        return; /* its timer ends it */
    client_quit(&c->client);
    flush(c);
    set_clock(c, true);
}
