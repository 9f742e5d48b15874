/*
 * session_answer: what the checks of a stage said, as replies to the client; and the fate of the message, from the last
 * check to the scheduler's answer.
 */
#include "base/base32.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"
#include "proto/outcome.h"

#include "gateway/inbound/session.h"
#include "gateway/inbound/transaction.h"

METRIC_COUNTER(metric_accepted, "posthouse_smtp_messages_total", "Messages accepted")
METRIC_COUNTER(metric_octets, "posthouse_smtp_message_octets_total", "Octets of messages accepted")
METRIC_HISTOGRAM(metric_accept, "posthouse_accept_seconds", "Time from the last octet of a message to its 250")
METRIC_COUNTER(metric_discarded, "posthouse_smtp_discarded_total", "Messages that a filter of the operator discarded")
METRIC_COUNTER_L(metric_refused_connect, "posthouse_smtp_refused_total", "stage=\"connect\"", "Refused by a check")
METRIC_COUNTER_L(metric_refused_helo, "posthouse_smtp_refused_total", "stage=\"helo\"", "Refused by a check")
METRIC_COUNTER_L(metric_refused_mail, "posthouse_smtp_refused_total", "stage=\"mail\"", "Refused by a check")
METRIC_COUNTER_L(metric_refused_rcpt, "posthouse_smtp_refused_total", "stage=\"rcpt\"", "Refused by a check")
METRIC_COUNTER_L(metric_refused_data, "posthouse_smtp_refused_total", "stage=\"data\"", "Refused by a check")
METRIC_COUNTER_L(metric_refused_end, "posthouse_smtp_refused_total", "stage=\"end\"", "Refused by a check")

static struct {
    const char *name;
    struct metric *refused;
} stages[] = {
    [CHECK_CONNECT] = {"connect", &metric_refused_connect}, [CHECK_HELO] = {"helo", &metric_refused_helo},
    [CHECK_MAIL] = {"mail", &metric_refused_mail},          [CHECK_RCPT] = {"rcpt", &metric_refused_rcpt},
    [CHECK_DATA] = {"data", &metric_refused_data},          [CHECK_END] = {"end", &metric_refused_end},
};

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
    const struct tls_info *tls = tcp_tls_info(s->tcp);
    if (!log_is_on(LOG_LEVEL_INFO))
        return;
    struct span to = t->first ? frame_span(t->envelope->recipients[0]->address) : SPAN_EMPTY;
    if (verdict == VERDICT_STORED)
        LOG_INFO("accepted", LOG_STR("id", id), LOG_STR("submission", t->name), LOG_SPAN("client", session_ip(s)),
                 LOG_SPAN("helo", s->server.helo), LOG_STR("account", s->account),
                 LOG_STR("tls", tls ? tls->version : ""), LOG_SPAN("from", s->server.mail.sender.text),
                 LOG_SPAN("to", to), LOG_U64("recipients", t->envelope->n_recipients),
                 LOG_U64("size", t->envelope->size), LOG_U64("ms", loop_now_ms(s->worker->loop) - t->started_ms));
    else
        LOG_WARN("not_queued", LOG_U64("verdict", verdict), LOG_STR("submission", t->name),
                 LOG_SPAN("client", session_ip(s)), LOG_SPAN("from", s->server.mail.sender.text), LOG_SPAN("to", to),
                 LOG_SPAN("reason", text));
}

static void on_fate(void *arg, uint32_t verdict, uint64_t message, struct span text) {
    struct session *s = arg;
    struct transaction *t = s->transaction;
    char id[BASE32_ID_LEN + 1], words[64];
    if (verdict >= sizeof fates / sizeof *fates)
        verdict = VERDICT_TEMPFAIL;
    base32_encode(message, id);
    struct server_reply r = session_reply(fates[verdict].code, fates[verdict].enhanced, fates[verdict].text);
    if (verdict == VERDICT_STORED) {
        size_t len = span_copy(r.text, words, sizeof words);
        len += span_copy(span_of(id), words + len, sizeof words - len);
        r.text = span_make(words, len);
        s->messages++;
        metric_add(&metric_accepted, 1);
        metric_add(&metric_octets, t->envelope->size);
        metric_observe(&metric_accept, clock_mono_us() - t->ended_us);
        guard_praise(s->worker->in->guard, &s->facts, loop_now_ms(s->worker->loop));
    } else if (r.code < 500) {
        r = session_tempfail(r.code, fates[verdict].enhanced, fates[verdict].text);
    }
    log_fate(s, verdict, id, text);
    t->submission = NULL; /* it went with its answer */
    transaction_end(s);
    buf_clear(&s->worker->out);
    server_answer(&s->server, r, &s->worker->out);
    session_go_to(s, SESSION_IDLE);
    session_run(s);
}

void session_commit(struct session *s, struct buf *out) {
    uint64_t emitted = s->transaction->emitted;
    int err = transaction_commit(s, on_fate);
    if (err == ERR_OK) {
        session_go_to(s, SESSION_WAITING);
    } else if (err == ERR_AGAIN) {
        if (s->transaction->emitted != emitted) /* this stall is over, another one begins */
            session_go_to(s, SESSION_IDLE);
        session_go_to(s, SESSION_STALLED);
        worker_need_tick(s->worker);
    } else {
        LOG_WARN("submit_failed", LOG_ERR("why", err));
        transaction_end(s);
        server_answer(&s->server,
                      session_tempfail(err == ERR_NOMEM ? 452 : 451, err == ERR_NOMEM ? "4.3.1" : "4.3.0",
                                       "not queued, try again"),
                      out);
    }
}

/* Said yes to, and dropped, as an operator's filter asked. */
static void discard(struct session *s, struct span by, struct buf *out) {
    LOG_WARN("discarded", LOG_STR("submission", s->transaction->name), LOG_SPAN("by", by),
             LOG_SPAN("client", session_ip(s)), LOG_SPAN("from", s->server.mail.sender.text),
             LOG_U64("recipients", s->server.rcpt_count));
    metric_add(&metric_discarded, 1);
    transaction_end(s);
    server_answer(&s->server, session_reply(250, "2.0.0", "ok"), out);
}

/* -- stages -- */

static void log_refusal(struct session *s, enum check_stage stage, const struct check_verdict *v) {
    metric_add(stages[stage].refused, 1);
    if (stage == CHECK_RCPT)
        LOG_INFO("recipient_refused", LOG_SPAN("client", session_ip(s)), LOG_SPAN("helo", s->server.helo),
                 LOG_STR("account", s->account), LOG_SPAN("from", s->server.mail.sender.text),
                 LOG_SPAN("to", s->server.rcpt.address.text), LOG_SPAN("by", v->by), LOG_U64("code", v->reply.code),
                 LOG_SPAN("enhanced", v->reply.enhanced), LOG_SPAN("reason", v->reply.text));
    else
        LOG_INFO("refused", LOG_STR("stage", stages[stage].name), LOG_SPAN("client", session_ip(s)),
                 LOG_SPAN("helo", s->server.helo), LOG_STR("account", s->account),
                 LOG_SPAN("from", s->server.mail.sender.text), LOG_SPAN("by", v->by), LOG_U64("code", v->reply.code),
                 LOG_SPAN("enhanced", v->reply.enhanced), LOG_SPAN("reason", v->reply.text));
}

static void answer_connect(struct session *s, const struct check_verdict *v, struct buf *out) {
    if (s->server.wait == SERVER_WAIT_XCLIENT && v->action == CHECK_PASS) {
        server_answer(&s->server, session_reply(220, "", ""), out);
    } else if (s->server.wait == SERVER_WAIT_XCLIENT) {
        server_farewell(&s->server, v->reply, out);
    } else if (session_is_early(s)) {
        s->why = SESSION_TOO_EARLY;
        server_farewell(&s->server, session_reply(554, "", SESSION_TOO_EARLY), out);
    } else if (v->action == CHECK_PASS) {
        server_greet(&s->server, NULL, out);
    } else { /* RFC 5321 knows 554 and 421 here */
        struct server_reply r = v->reply;
        r.code = r.code >= 500 ? 554 : 421;
        if (r.code == 554)
            server_greet(&s->server, &r, out);
        else
            server_farewell(&s->server, r, out);
    }
}

static void refuse(struct session *s, enum check_stage stage, const struct check_verdict *v, struct buf *out) {
    log_refusal(s, stage, v);
    if (stage == CHECK_MAIL || stage == CHECK_END)
        transaction_end(s);
    if (v->close || v->reply.code == 421)
        server_farewell(&s->server, v->reply, out);
    else
        server_answer(&s->server, v->reply, out);
}

static void pass_recipient(struct session *s, struct buf *out) {
    struct check_verdict v = {.action = CHECK_REFUSE};
    v.reply = transaction_keep(s);
    if (v.reply.code < 300)
        server_answer(&s->server, v.reply, out);
    else
        refuse(s, CHECK_RCPT, &v, out);
}

void session_answer(struct session *s, enum check_stage stage, const struct check_verdict *v, struct buf *out) {
    if (stage == CHECK_CONNECT) {
        if (v->action != CHECK_PASS)
            log_refusal(s, stage, v);
        answer_connect(s, v, out);
        return;
    }
    if (v->action == CHECK_REFUSE) {
        refuse(s, stage, v, out);
        return;
    }
    switch (stage) {
    case CHECK_RCPT:
        pass_recipient(s, out);
        break;
    case CHECK_END:
        if (v->action == CHECK_DISCARD || s->transaction->discarded_by.at)
            discard(s, v->action == CHECK_DISCARD ? v->by : s->transaction->discarded_by, out);
        else
            session_commit(s, out);
        break;
    case CHECK_DATA:
        server_answer(&s->server, session_reply(354, "", ""), out);
        break;
    default:
        server_answer(&s->server, session_reply(250, "2.1.0", "ok"), out);
    }
}
