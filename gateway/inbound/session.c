/*
 * session: the pump between one connection and its protocol core.
 *
 * A turn feeds the core all input that there is, gathers the replies in the worker's buffer, and writes them
 * once. The turn ends early when the core waits for the scheduler, when memory or credit for the body is
 * missing (the session is stalled, and its unread input makes TCP slow the client down), or when the client
 * does not read its replies. Whatever ended the turn starts the next one.
 */
#include <stdlib.h>

#include "base/base32.h"
#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"
#include "proto/outcome.h"

#include "gateway/inbound/session.h"
#include "gateway/inbound/transaction.h"

METRIC_COUNTER(metric_accepted, "posthouse_smtp_messages_total", "Messages accepted")
METRIC_GAUGE(metric_sessions, "posthouse_smtp_sessions", "Connections open")
METRIC_COUNTER(metric_octets, "posthouse_smtp_message_octets_total", "Octets of messages accepted")
METRIC_COUNTER(metric_tempfail, "posthouse_smtp_tempfails_total", "Transactions answered 4yz for reasons of ours")
METRIC_COUNTER(metric_commands, "posthouse_smtp_commands_total", "Commands read")
METRIC_COUNTER_L(metric_syntax, "posthouse_smtp_errors_total", "class=\"syntax\"", "Commands refused")
METRIC_COUNTER_L(metric_order, "posthouse_smtp_errors_total", "class=\"order\"", "Commands refused")
METRIC_COUNTER_L(metric_unknown, "posthouse_smtp_errors_total", "class=\"unknown\"", "Commands refused")

enum { FINISH_MS = 10000, STALL_MS = 120000 };

static void run(struct session *s);

/* -- places -- */

static struct list *list_of(struct session *s, enum session_place place) {
    struct worker *w = s->worker;
    switch (place) {
    case SESSION_IDLE:
        return &w->idle;
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

/* To the young end of the list for this place. */
static void go_to(struct session *s, enum session_place place) {
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
    char ip[128];
    metric_add(&metric_commands, t->commands);
    metric_add(&metric_syntax, t->syntax);
    metric_add(&metric_order, t->order);
    metric_add(&metric_unknown, t->unknown);
    if (!log_is_on(LOG_LEVEL_INFO))
        return;
    struct span client = span_make(ip, tcp_addr_ip(tcp_peer(s->tcp), ip, sizeof ip));
    LOG_INFO("session_closed", LOG_SPAN("client", client), LOG_SPAN("helo", s->server.helo), LOG_STR("why", s->why),
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
    transaction_end(s);
    go_to(s, SESSION_NOWHERE);
    server_deinit(&s->server);
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

static void lose(struct session *s, const char *why) {
    tcp_close(s->tcp);
    session_free(s, why);
}

/* -- replies -- */

/* Writes what the turn gathered. False: the connection is lost. */
static bool flush(struct session *s) {
    struct buf *out = &s->worker->out;
    struct span replies = buf_span(out);
    CHECK(out->err == ERR_OK);
    int err = replies.len ? tcp_write(s->tcp, replies.at, replies.len) : ERR_OK;
    buf_clear(out);
    s->blocked = tcp_queued(s->tcp) > 0;
    return err == ERR_OK;
}

static struct server_reply reply(unsigned code, const char *enhanced, const char *text) {
    return (struct server_reply){(uint16_t)code, span_of(enhanced), span_of(text)};
}

static struct server_reply tempfail(unsigned code, const char *enhanced, const char *text) {
    metric_add(&metric_tempfail, 1);
    return reply(code, enhanced, text);
}

/* -- the fate of a message -- */

/* proto/outcome.h: enum verdict, as the client hears it. */
static const struct {
    uint16_t code;
    const char *enhanced, *text;
} fates[] = {
    [VERDICT_STORED] = {250, "2.0.0", "queued as "},
    [VERDICT_TEMPFAIL] = {451, "4.3.0", "not queued, try again"},
    [VERDICT_NO_SPACE] = {452, "4.3.1", "no room in the queue, try again"},
    [VERDICT_REFUSED] = {554, "5.3.0", "message refused"},
};

static void log_fate(struct session *s, uint32_t verdict, const char *id, struct span text) {
    const struct transaction *t = s->transaction;
    char ip[128];
    if (!log_is_on(LOG_LEVEL_INFO))
        return;
    struct span client = span_make(ip, tcp_addr_ip(tcp_peer(s->tcp), ip, sizeof ip));
    struct span to = t->first ? frame_span(t->envelope->recipients[0]->address) : SPAN_EMPTY;
    if (verdict == VERDICT_STORED)
        LOG_INFO("accepted", LOG_STR("id", id), LOG_STR("submission", t->name), LOG_SPAN("client", client),
                 LOG_SPAN("helo", s->server.helo), LOG_SPAN("from", s->server.mail.sender.text), LOG_SPAN("to", to),
                 LOG_U64("recipients", t->envelope->n_recipients), LOG_U64("size", t->envelope->size),
                 LOG_U64("ms", loop_now_ms(s->worker->loop) - t->started_ms));
    else
        LOG_WARN("not_queued", LOG_U64("verdict", verdict), LOG_STR("submission", t->name), LOG_SPAN("client", client),
                 LOG_SPAN("from", s->server.mail.sender.text), LOG_SPAN("to", to), LOG_SPAN("reason", text));
}

static void on_answer(void *arg, uint32_t verdict, uint64_t message, struct span text) {
    struct session *s = arg;
    struct transaction *t = s->transaction;
    char id[BASE32_ID_LEN + 1], words[64];
    if (verdict >= sizeof fates / sizeof *fates)
        verdict = VERDICT_TEMPFAIL;
    base32_encode(message, id);
    struct server_reply r = reply(fates[verdict].code, fates[verdict].enhanced, fates[verdict].text);
    if (verdict == VERDICT_STORED) {
        size_t len = span_copy(r.text, words, sizeof words);
        len += span_copy(span_of(id), words + len, sizeof words - len);
        r.text = span_make(words, len);
        s->messages++;
        metric_add(&metric_accepted, 1);
        metric_add(&metric_octets, t->envelope->size);
    } else if (r.code < 500) {
        metric_add(&metric_tempfail, 1);
    }
    log_fate(s, verdict, id, text);
    t->submission = NULL; /* it went with its answer */
    transaction_end(s);
    buf_clear(&s->worker->out);
    server_answer(&s->server, r, &s->worker->out);
    go_to(s, SESSION_IDLE);
    run(s);
}

/* The body is whole. Credit may be missing for its last chunks: then this is tried again later. */
static void commit(struct session *s, struct buf *out) {
    int err = transaction_commit(s, on_answer);
    if (err == ERR_OK) {
        go_to(s, SESSION_WAITING);
    } else if (err == ERR_AGAIN) {
        go_to(s, SESSION_STALLED);
        worker_need_tick(s->worker);
    } else {
        LOG_WARN("submit_failed", LOG_ERR("why", err));
        transaction_end(s);
        server_answer(
            &s->server,
            tempfail(err == ERR_NOMEM ? 452 : 451, err == ERR_NOMEM ? "4.3.1" : "4.3.0", "not queued, try again"), out);
    }
}

/* -- steps of the core -- */

static void renew_front(struct session *s) {
    if (s->front == s->worker->front || !server_is_idle(&s->server))
        return;
    front_unref(s->front);
    s->front = front_ref(s->worker->front);
    server_use(&s->server, &s->front->server);
}

static struct server_reply begin_transaction(struct session *s) {
    if (!submit_is_ready(s->worker->submit))
        return tempfail(451, "4.3.0", "the queue is not ready, try again");
    s->transaction = transaction_new(s);
    if (!s->transaction)
        return tempfail(452, "4.3.1", "out of memory, try again");
    return reply(250, "2.1.0", "ok");
}

/* The truth about an address, where the operator allows it. */
static void verify(struct session *s, struct span argument, struct buf *out) {
    struct arena mem;
    struct address a;
    struct recipients_answer answer = {0};
    size_t used = 0;
    arena_init(&mem, 2048, 1024 * 1024);
    bool bracketed = argument.len && argument.at[0] == '<';
    int err =
        bracketed ? address_parse_path(&a, argument, false, true, &mem, &used) : address_parse(&a, argument, &mem);
    if (err == ERR_OK && bracketed && used != argument.len)
        err = ERR_INVALID;
    if (err == ERR_OK)
        err = recipients_judge(s->front->recipients, &a, false, &mem, &answer, NULL);
    if (err == ERR_INVALID || err == ERR_RANGE)
        server_answer(&s->server, reply(501, "5.1.3", "bad address syntax"), out);
    else if (err || answer.verdict == RECIPIENTS_TEMPFAIL)
        server_answer(&s->server, reply(252, "2.0.0", "cannot tell now"), out);
    else if (answer.verdict == RECIPIENTS_LOCAL)
        server_answer(&s->server, (struct server_reply){250, SPAN("2.1.5"), a.text}, out);
    else
        server_answer(&s->server, (struct server_reply){550, answer.enhanced, answer.text}, out);
    arena_deinit(&mem);
}

static void fail_body(struct session *s, unsigned code, const char *enhanced, const char *text) {
    server_fail_body(&s->server, tempfail(code, enhanced, text));
    transaction_end(s);
}

static void take_body(struct session *s, struct span octets) {
    struct transaction *t = s->transaction;
    if (body_append(&t->body, octets) != ERR_OK) {
        fail_body(s, 452, "4.3.1", "out of memory, try again");
        return;
    }
    struct bus_bytes *full = body_full(&t->body);
    int err = full ? submission_chunk(t->submission, full) : ERR_AGAIN;
    if (err == ERR_OK)
        body_gone(&t->body);
    else if (err != ERR_AGAIN)
        fail_body(s, 451, "4.3.0", "cannot reach the queue, try again");
}

/* How much of the body may be read now; 0: memory or credit is missing. */
static size_t room(struct session *s) {
    struct transaction *t = s->transaction;
    if (!t || !server_is_reading_body(&s->server))
        return SIZE_MAX;
    if (!t->submission) {
        int err = transaction_begin(s);
        if (err == ERR_AGAIN)
            return 0;
        if (err) {
            fail_body(s, 452, "4.3.1", "out of memory, try again");
            return SIZE_MAX;
        }
    }
    struct bus_bytes *full = body_full(&t->body);
    if (full && submission_chunk(t->submission, full) == ERR_OK)
        body_gone(&t->body);
    return body_room(&t->body);
}

/* False: the turn is over. */
static bool take_step(struct session *s, const struct server_step *step, struct buf *out) {
    switch (step->kind) {
    case SERVER_STEP_MAIL:
        server_answer(&s->server, begin_transaction(s), out);
        return true;
    case SERVER_STEP_RCPT:
        server_answer(&s->server, transaction_recipient(s), out);
        return true;
    case SERVER_STEP_VRFY:
        verify(s, step->span, out);
        return true;
    case SERVER_STEP_BEGIN:
        return true;
    case SERVER_STEP_BODY:
        take_body(s, step->span);
        return true;
    case SERVER_STEP_END:
        commit(s, out);
        return s->place != SESSION_WAITING && s->place != SESSION_STALLED;
    case SERVER_STEP_ABORT:
        transaction_end(s);
        return true;
    case SERVER_STEP_FLUSH:
        return flush(s) && !s->blocked;
    case SERVER_STEP_CLOSE:
        s->ending = true;
        return false;
    case SERVER_STEP_INPUT:
    case SERVER_STEP_ANSWER:
    default:
        break;
    }
    return false;
}

/* One step of the turn. */
static bool advance(struct session *s, struct buf *out, bool *moved) {
    struct server_step step;
    size_t most = room(s);
    if (most == 0) {
        go_to(s, SESSION_STALLED);
        worker_need_tick(s->worker);
        return false;
    }
    if (s->place == SESSION_STALLED)
        go_to(s, SESSION_IDLE);
    renew_front(s);
    server_next(&s->server, span_first(buf_span(tcp_in(s->tcp)), most), out, &step);
    bool go_on = take_step(s, &step, out);
    /* Cut off by `most`, the core may have used all it was given while there is more. */
    go_on = go_on ||
            (step.kind == SERVER_STEP_INPUT && step.used && step.used < buf_len(tcp_in(s->tcp)) && most != SIZE_MAX);
    *moved = *moved || step.used > 0;
    buf_consume(tcp_in(s->tcp), step.used);
    return go_on;
}

/* One turn. The session may be gone when it returns. Replies that an answer left in `out` go with it. */
static void run(struct session *s) {
    bool moved = false;
    if (s->blocked || s->ending)
        return;
    while (advance(s, &s->worker->out, &moved)) {
    }
    if (!flush(s)) {
        lose(s, "connection lost");
        return;
    }
    if (moved && s->place == SESSION_IDLE)
        go_to(s, SESSION_IDLE);
    if (s->ending)
        end_cleanly(s, s->server.farewell == 221 ? "quit" : "closed by us");
    else if (s->eof && s->place == SESSION_IDLE && !s->blocked)
        end_cleanly(s, "client closed");
    else if (s->worker->draining)
        session_drain(s);
}

void session_retry(struct session *s) {
    if (loop_now_ms(s->worker->loop) - s->since_ms >= STALL_MS) {
        bool whole = s->server.wait == SERVER_WAIT_END;
        transaction_end(s);
        buf_clear(&s->worker->out);
        if (whole)
            server_answer(&s->server, tempfail(452, "4.3.1", "no room, try again"), &s->worker->out);
        else
            server_fail_body(&s->server, tempfail(452, "4.3.1", "no room, try again"));
        go_to(s, SESSION_IDLE);
    } else if (s->server.wait == SERVER_WAIT_END) {
        buf_clear(&s->worker->out);
        commit(s, &s->worker->out);
        if (s->server.wait == SERVER_WAIT_END)
            return;
        go_to(s, SESSION_IDLE);
    }
    run(s);
}

/* -- beginning and events -- */

void session_farewell(struct session *s, unsigned code, const char *enhanced, const char *text) {
    buf_clear(&s->worker->out);
    s->why = text;
    server_farewell(&s->server, reply(code, enhanced, text), &s->worker->out);
    (void)flush(s); /* a client that does not read loses its farewell */
    end_cleanly(s, text);
}

void session_greet(struct session *s) {
    buf_clear(&s->worker->out);
    server_greet(&s->server, false, &s->worker->out);
    go_to(s, SESSION_IDLE);
    run(s);
}

void session_drain(struct session *s) {
    server_drain(&s->server);
    bool quiet = s->place == SESSION_IDLE && server_is_between(&s->server) && buf_len(tcp_in(s->tcp)) == 0;
    if (s->place == SESSION_GREETING || quiet)
        session_farewell(s, 421, "4.3.2", "shutting down, try again");
}

/* Octets before the greeting. */
static void on_early(struct session *s) {
    char ip[128];
    struct span client = span_make(ip, tcp_addr_ip(tcp_peer(s->tcp), ip, sizeof ip));
    LOG_INFO("early_talker", LOG_SPAN("client", client), LOG_U64("octets", buf_len(tcp_in(s->tcp))));
    if (s->front->settings.pregreet == INBOUND_PREGREET_REFUSE)
        session_farewell(s, 554, "", "you talked before the greeting");
    else
        session_greet(s);
}

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct session *s = arg;
    (void)c;
    if (event == TCP_FAILED) {
        lose(s, err_text(err));
        return;
    }
    if (event == TCP_EOF)
        s->eof = true;
    if (event == TCP_DRAINED)
        s->blocked = false;
    if (s->place == SESSION_GREETING) {
        if (event == TCP_READ)
            on_early(s);
        else if (s->eof)
            lose(s, "client closed");
        return;
    }
    if (s->place == SESSION_WAITING || s->place == SESSION_STALLED)
        return; /* their turn comes by other ways */
    buf_clear(&s->worker->out);
    run(s);
}

struct session *session_new(struct worker *w, struct tcp *c, struct limits_client *client) {
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->worker = w;
    s->tcp = c;
    s->client = client;
    s->front = front_ref(w->front);
    s->opened_ms = loop_now_ms(w->loop);
    s->opened_turn = w->turn;
    server_init(&s->server, &s->front->server);
    if (tcp_start(c, SESSION_IN_MAX, SESSION_OUT_MAX, on_event, s) != ERR_OK) {
        front_unref(s->front);
        free(s);
        return NULL;
    }
    metric_add(&metric_sessions, 1);
    w->sessions++;
    atomic_fetch_add(&w->in->sessions, 1);
    go_to(s, SESSION_GREETING);
    worker_need_tick(w);
    return s;
}
