/*
 * session: the pump between one connection and its protocol core.
 *
 * A turn feeds the core all input that there is, gathers the replies in the worker's buffer, and writes them
 * once. The turn ends early when the core waits for the scheduler, when memory or credit for the body is
 * missing (the session is stalled, and its unread input makes TCP slow the client down), or when the client
 * does not read its replies. Whatever ended the turn starts the next one.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/inbound/session.h"
#include "gateway/inbound/transaction.h"

METRIC_GAUGE(metric_sessions, "posthouse_smtp_sessions", "Connections open")
METRIC_COUNTER(metric_tempfail, "posthouse_smtp_tempfails_total", "Transactions answered 4yz for reasons of ours")
METRIC_COUNTER(metric_commands, "posthouse_smtp_commands_total", "Commands read")
METRIC_COUNTER_L(metric_syntax, "posthouse_smtp_errors_total", "class=\"syntax\"", "Commands refused")
METRIC_COUNTER_L(metric_order, "posthouse_smtp_errors_total", "class=\"order\"", "Commands refused")
METRIC_COUNTER_L(metric_unknown, "posthouse_smtp_errors_total", "class=\"unknown\"", "Commands refused")

enum { FINISH_MS = 10000, STALL_MS = 120000 };

/* -- places -- */

static struct list *list_of(struct session *s, enum session_place place) {
    struct worker *w = s->worker;
    switch (place) {
    case SESSION_IDLE:
        return &w->idle;
    case SESSION_OPENING:
        return &w->opening;
    case SESSION_SLOWED:
        return &w->slowed;
    case SESSION_WAITING:
        return &w->waiting;
    case SESSION_STALLED:
        return &w->stalled;
    case SESSION_GREETING:
        return &w->greeting;
    default:
        return NULL;
    }
}

void session_go_to(struct session *s, enum session_place place) {
    bool stays = s->place == place && place == SESSION_STALLED;
    if (s->place != SESSION_NOWHERE)
        list_remove(list_of(s, s->place), &s->link);
    s->place = place;
    if (place != SESSION_NOWHERE)
        list_push_back(list_of(s, place), &s->link);
    if (!stays) /* a stall counts from its beginning */
        s->since_ms = loop_now_ms(s->worker->loop);
}

/* -- the end -- */

static void log_end(struct session *s) {
    const struct server_tally *t = &s->server.tally;
    const struct tls_info *tls = tcp_tls_info(s->tcp);
    metric_add(&metric_commands, t->commands);
    metric_add(&metric_syntax, t->syntax);
    metric_add(&metric_order, t->order);
    metric_add(&metric_unknown, t->unknown);
    if (!log_is_on(LOG_LEVEL_INFO))
        return;
    LOG_INFO("session_closed", LOG_SPAN("client", session_ip(s)), LOG_SPAN("helo", s->server.helo),
             LOG_STR("account", s->account), LOG_STR("tls", tls ? tls->version : ""), LOG_STR("why", s->why),
             LOG_U64("code", s->server.farewell), LOG_U64("messages", s->messages), LOG_U64("commands", t->commands),
             LOG_U64("refused", t->refused), LOG_U64("errors", t->syntax + t->order + t->unknown),
             LOG_U64("ms", loop_now_ms(s->worker->loop) - s->opened_ms));
}

/* Frees everything but the connection. */
static void session_free(struct session *s, const char *why) {
    struct worker *w = s->worker;
    if (!s->why)
        s->why = why;
    log_end(s);
    session_trace_event(s, s->why);
    session_cancel_checks(s);
    transaction_end(s);
    milters_free(s->milters);
    session_go_to(s, SESSION_NOWHERE);
    server_deinit(&s->server);
    if (s->client)
        limits_leave(&w->in->limits, s->client);
    front_unref(s->front);
    free(s);
    metric_sub(&metric_sessions, 1);
    worker_lost_session(w);
}

void session_kill(struct session *s) {
    tcp_close(s->tcp);
    session_free(s, "stopped");
}

static void end_cleanly(struct session *s, const char *why) {
    /* After QUIT the client has nothing more to say, so that its last words cannot cost it our reply: no need to
     * linger. */
    bool over = s->server.farewell == 221 && tcp_queued(s->tcp) == 0 && buf_len(tcp_in(s->tcp)) == 0;
    if (over)
        tcp_close(s->tcp);
    else
        tcp_finish(s->tcp, FINISH_MS);
    session_free(s, why);
}

void session_lose(struct session *s, const char *why) {
    tcp_close(s->tcp);
    session_free(s, why);
}

/* -- replies -- */

bool session_flush(struct session *s) {
    struct buf *out = &s->worker->out;
    struct span replies = buf_span(out);
    CHECK(out->err == ERR_OK);
    if (replies.len)
        session_trace_out(s, replies);
    int err = replies.len ? tcp_write(s->tcp, replies.at, replies.len) : ERR_OK;
    buf_clear(out);
    s->blocked = tcp_queued(s->tcp) > 0;
    return err == ERR_OK;
}

struct server_reply session_tempfail(unsigned code, const char *enhanced, const char *text) {
    metric_add(&metric_tempfail, 1);
    return session_reply(code, enhanced, text);
}

/* -- steps of the core -- */

static const struct inbound_listener *listener_of(const struct front *f, uint32_t index) {
    static const struct inbound_listener plain = {.extensions = SERVER_EXT_BASIC};
    return index < f->settings.listener_count ? &f->settings.listeners[index] : &plain;
}

static void renew_front(struct session *s) {
    if (s->front == s->worker->front || !server_is_idle(&s->server) || s->milters)
        return; /* the milters of a session are those that heard it begin */
    front_unref(s->front);
    s->front = front_ref(s->worker->front);
    s->listener = listener_of(s->front, s->listener_index);
    s->trusted = front_trusts(s->front, &s->peer);
    server_use(&s->server, &s->front->server[s->listener_index < s->front->server_count ? s->listener_index : 0]);
    session_offer_auth(s);
}

static void fail_body(struct session *s, unsigned code, const char *enhanced, const char *text) {
    server_fail_body(&s->server, session_tempfail(code, enhanced, text));
    transaction_end(s);
}

static void take_body(struct session *s, struct span octets) {
    struct transaction *t = s->transaction;
    int err = transaction_append(t, octets);
    if (err == ERR_OK)
        return;
    if (err == ERR_FULL)
        fail_body(s, 552, "5.3.4", "the header of the message is too large");
    else if (err == ERR_NOMEM || err == ERR_NO_SPACE)
        fail_body(s, 452, "4.3.1", "no room, try again");
    else
        fail_body(s, 451, "4.3.0", "cannot reach the queue, try again");
}

/* How much of the body may be read now; 0: memory or credit is missing. */
static size_t room(struct session *s) {
    if (!s->transaction || !server_is_reading_body(&s->server) || s->server.wait != SERVER_WAIT_NONE)
        return SIZE_MAX;
    size_t most = 0;
    int err = transaction_room(s, &most);
    if (err == ERR_OK)
        return most;
    fail_body(s, 452, "4.3.1", "out of memory, try again");
    return SIZE_MAX;
}

static bool begin_tls(struct session *s) {
    session_trace_event(s, "TLS begins");
    if (!session_flush(s))
        return false;
    int err = session_secure(s);
    if (err == ERR_OK) {
        session_go_to(s, SESSION_OPENING);
        return false;
    }
    s->why = err == ERR_INVALID ? "octets behind STARTTLS" : "out of memory";
    LOG_WARN("starttls_refused", LOG_SPAN("client", session_ip(s)), LOG_STR("why", s->why));
    s->ending = true;
    return false;
}

/* False: the turn is over. */
static bool take_step(struct session *s, const struct server_step *step, struct buf *out) {
    switch (step->kind) {
    case SERVER_STEP_HELO:
        return session_check(s, CHECK_HELO, out);
    case SERVER_STEP_MAIL:
        return session_check(s, CHECK_MAIL, out);
    case SERVER_STEP_RCPT:
        return session_check(s, CHECK_RCPT, out);
    case SERVER_STEP_VRFY:
        return session_verify(s, step->span, out);
    case SERVER_STEP_DATA:
        return session_check(s, CHECK_DATA, out);
    case SERVER_STEP_BEGIN:
        return true;
    case SERVER_STEP_BODY:
        take_body(s, step->span);
        return true;
    case SERVER_STEP_END:
        if (s->transaction)
            s->transaction->ended_us = clock_mono_us();
        return session_check(s, CHECK_END, out);
    case SERVER_STEP_ABORT:
        if (s->milters)
            milters_abort(s->milters);
        transaction_end(s);
        return true;
    case SERVER_STEP_FLUSH:
        s->ending = !session_flush(s); /* a reply is lost, and the dialogue with it */
        return !s->ending && !s->blocked;
    case SERVER_STEP_AUTH:
        return session_auth_begin(s, out);
    case SERVER_STEP_RESPONSE:
        session_auth_response(s, step->span);
        return false;
    case SERVER_STEP_CANCEL:
        auth_cancel(s->exchange);
        s->exchange = NULL;
        return true;
    case SERVER_STEP_XCLIENT:
        return session_xclient(s, step->span, out);
    case SERVER_STEP_CLOSE:
        s->ending = true;
        return false;
    case SERVER_STEP_STARTTLS:
    case SERVER_STEP_INPUT:
    case SERVER_STEP_ANSWER:
        break;
    }
    return false;
}

/* Its next command is there, and is to be kept waiting. Half a command is none: silence behind it is idleness. */
static bool is_slowed(struct session *s) {
    const struct server_tally *t = &s->server.tally;
    struct span in = buf_span(tcp_in(s->tcp));
    if (!server_is_between(&s->server) || in.len == 0 || !memchr(in.at, '\n', in.len))
        return false;
    s->slow_ms = guard_slow_ms(s->worker->in->guard, &s->guard, t->syntax + t->order + t->unknown + t->refused);
    return s->slow_ms > 0;
}

static void wait_slowed(struct session *s) {
    session_go_to(s, SESSION_SLOWED);
    worker_need_tick(s->worker);
}

/* The first line, where only one command is to be answered. */
static size_t one_line(struct session *s) {
    struct span in = buf_span(tcp_in(s->tcp));
    const char *lf = in.len ? memchr(in.at, '\n', in.len) : NULL;
    return lf ? (size_t)(lf - in.at) + 1 : in.len;
}

/* One step of the turn; `slowed`: of one command at most. */
static bool advance(struct session *s, struct buf *out, bool slowed, bool *moved) {
    struct server_step step;
    size_t most = room(s);
    if (most == 0) {
        session_go_to(s, SESSION_STALLED);
        worker_need_tick(s->worker);
        return false;
    }
    if (s->place == SESSION_STALLED)
        session_go_to(s, SESSION_IDLE);
    renew_front(s);
    if (slowed && server_is_between(&s->server))
        most = one_line(s);
    struct span given = span_first(buf_span(tcp_in(s->tcp)), most);
    bool spoke = server_is_between(&s->server), secret = s->server.in_auth || s->server.skipping;
    server_next(&s->server, given, out, &step);
    if (spoke && step.used)
        session_trace_in(s, span_first(given, step.used), secret);
    if (step.kind == SERVER_STEP_STARTTLS) { /* nothing may be left in front of the handshake */
        buf_consume(tcp_in(s->tcp), step.used);
        return begin_tls(s);
    }
    bool go_on = take_step(s, &step, out); /* a step may point into the input */
    /* Cut off by `most`, the core may have used all it was given while there is more. */
    go_on = go_on ||
            (step.kind == SERVER_STEP_INPUT && step.used && step.used < buf_len(tcp_in(s->tcp)) && most != SIZE_MAX);
    *moved = *moved || step.used > 0;
    buf_consume(tcp_in(s->tcp), step.used);
    return go_on && !(slowed && is_slowed(s));
}

void session_hasten(struct session *s) {
    session_go_to(s, SESSION_IDLE);
    s->hastened = true;
    buf_clear(&s->worker->out);
    session_run(s);
}

/* One turn. The session may be gone when it returns. Replies that an answer left in `out` go with it. */
void session_run(struct session *s) {
    bool moved = false, slowed = s->hastened;
    if (s->blocked && !session_flush(s)) { /* an answer that came meanwhile stands in line */
        session_lose(s, "connection lost");
        return;
    }
    if (s->blocked || s->ending)
        return;
    s->hastened = false;
    if (s->listener->extensions & SERVER_EXT_FUTURERELEASE)
        s->server.wall_ms = clock_wall_ms();
    if (slowed || !is_slowed(s)) {
        while (advance(s, &s->worker->out, slowed, &moved)) {
        }
    }
    if (!session_flush(s)) {
        session_lose(s, "connection lost");
        return;
    }
    if (moved && s->place == SESSION_IDLE)
        session_go_to(s, SESSION_IDLE);
    if (s->ending)
        end_cleanly(s, s->server.farewell == 221 ? "quit" : "closed by us");
    else if (s->place == SESSION_IDLE && !s->blocked && is_slowed(s))
        wait_slowed(s);
    else if (s->eof && s->place == SESSION_IDLE && !s->blocked)
        end_cleanly(s, "client closed");
    else if (s->worker->draining || s->worker->paused)
        session_drain(s);
}

void session_retry(struct session *s) {
    if (loop_now_ms(s->worker->loop) - s->since_ms >= STALL_MS) {
        bool whole = s->server.wait == SERVER_WAIT_END;
        transaction_end(s);
        buf_clear(&s->worker->out);
        if (whole)
            server_answer(&s->server, session_tempfail(452, "4.3.1", "no room, try again"), &s->worker->out);
        else
            server_fail_body(&s->server, session_tempfail(452, "4.3.1", "no room, try again"));
        session_go_to(s, SESSION_IDLE);
    } else if (s->server.wait == SERVER_WAIT_END) {
        buf_clear(&s->worker->out);
        session_commit(s, &s->worker->out);
        if (s->server.wait == SERVER_WAIT_END)
            return;
        session_go_to(s, SESSION_IDLE);
    }
    session_run(s);
}

/* -- beginning and events -- */

void session_farewell(struct session *s, unsigned code, const char *enhanced, const char *text) {
    buf_clear(&s->worker->out);
    s->why = text;
    server_farewell(&s->server, session_reply(code, enhanced, text), &s->worker->out);
    (void)session_flush(s); /* a client that does not read loses its farewell */
    end_cleanly(s, text);
}

void session_greet(struct session *s) {
    buf_clear(&s->worker->out);
    session_go_to(s, SESSION_IDLE);
    session_offer_auth(s);
    if (session_check(s, CHECK_CONNECT, &s->worker->out))
        session_run(s);
}

void session_drain(struct session *s) {
    server_drain(&s->server);
    bool quiet = s->place == SESSION_IDLE && server_is_between(&s->server) && buf_len(tcp_in(s->tcp)) == 0;
    if (s->place == SESSION_GREETING || s->place == SESSION_OPENING || quiet)
        session_farewell(s, 421, "4.3.2", "shutting down, try again");
}

bool session_is_early(struct session *s) {
    enum inbound_pregreet mode = s->front->settings.pregreet;
    if (mode == INBOUND_PREGREET_OFF || buf_len(tcp_in(s->tcp)) == 0)
        return false;
    LOG_INFO("early_talker", LOG_SPAN("client", session_ip(s)), LOG_U64("octets", buf_len(tcp_in(s->tcp))));
    return mode == INBOUND_PREGREET_REFUSE;
}

/* The connection is ready to be greeted, but for the time that is left to talk too early. */
static void await_greeting(struct session *s) {
    s->opened_ms = loop_now_ms(s->worker->loop);
    s->opened_turn = s->worker->turn;
    session_go_to(s, SESSION_GREETING);
    worker_need_tick(s->worker);
    if (s->front->settings.pregreet == INBOUND_PREGREET_OFF)
        session_greet(s);
}

/* TLS first, where the listener has it from the first octet on. */
static void open_session(struct session *s) {
    if (s->listener->tls != INBOUND_TLS_IMPLICIT) {
        await_greeting(s);
        return;
    }
    int err = session_secure(s);
    if (err)
        session_lose(s, err_text(err));
    else
        session_go_to(s, SESSION_OPENING);
}

static void on_opening(struct session *s, enum tcp_event event) {
    if (s->expects_proxy) {
        int err = event == TCP_READ ? session_read_proxy(s) : s->eof ? ERR_CLOSED : ERR_AGAIN;
        if (err == ERR_OK)
            open_session(s);
        else if (err == ERR_FULL)
            session_farewell(s, 421, "4.7.0", "too many connections from your network");
        else if (err != ERR_AGAIN)
            session_lose(s, err == ERR_CLOSED ? "client closed" : "no valid PROXY header");
        return;
    }
    if (s->eof) {
        session_lose(s, "client closed");
        return;
    }
    if (event != TCP_SECURED)
        return;
    bool implicit = s->server.state == SERVER_START;
    session_secured(s);
    if (implicit) {
        await_greeting(s);
        return;
    }
    session_go_to(s, SESSION_IDLE);
    buf_clear(&s->worker->out);
    session_run(s);
}

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct session *s = arg;
    if (event == TCP_FAILED) {
        bool tls = *tcp_tls_why(c) != '\0';
        if (tls)
            LOG_INFO("tls_failed", LOG_SPAN("client", session_ip(s)), LOG_STR("why", tcp_tls_why(c)));
        session_lose(s, tls ? "TLS failed" : err_text(err));
        return;
    }
    if (event == TCP_EOF)
        s->eof = true;
    if (event == TCP_DRAINED)
        s->blocked = false;
    if (s->place == SESSION_OPENING) {
        on_opening(s, event);
        return;
    }
    if (s->place == SESSION_GREETING) {
        if (event == TCP_READ && session_is_early(s))
            session_farewell(s, 554, "", SESSION_TOO_EARLY);
        else if (event == TCP_READ)
            session_greet(s);
        else if (s->eof)
            session_lose(s, "client closed");
        return;
    }
    if (s->place == SESSION_WAITING || s->place == SESSION_STALLED || s->place == SESSION_SLOWED)
        return; /* their turn comes by other ways */
    buf_clear(&s->worker->out);
    session_run(s);
}

struct session *session_new(struct worker *w, uint32_t listener, struct tcp *c, const struct tcp_addr *peer,
                            struct limits_client *client) {
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->worker = w;
    s->tcp = c;
    s->client = client;
    s->front = front_ref(w->front);
    s->listener_index = listener;
    s->listener = listener_of(s->front, listener);
    s->opened_ms = loop_now_ms(w->loop);
    server_init(&s->server, &s->front->server[listener < s->front->server_count ? listener : 0]);
    if (tcp_start(c, SESSION_IN_MAX, SESSION_OUT_MAX, on_event, s) != ERR_OK) {
        front_unref(s->front);
        free(s);
        return NULL;
    }
    metric_add(&metric_sessions, 1);
    w->sessions++;
    atomic_fetch_add(&w->in->sessions, 1);
    session_set_peer(s, peer);
    s->expects_proxy = s->listener->proxy;
    session_go_to(s, SESSION_OPENING);
    worker_need_tick(w);
    return s;
}

void session_open(struct session *s) {
    if (!s->expects_proxy)
        open_session(s);
}
