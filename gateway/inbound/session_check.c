/*
 * session_check: what is asked at each stage of a session, in which order, and what that order is for: cheap and
 * certain things first, what costs others time last, and nothing after the first no.
 *
 *   connect   rates, names and DNS lists, milters
 *   HELO      milters
 *   MAIL      queue ready, sender_login, rates, milters
 *   RCPT      the directories of our domains, rates, greylisting, policy services, milters
 *   DATA      policy services, milters
 *   the end   octets, SPF, DKIM and DMARC, missing header fields, policy services, milters, our signature
 *
 * A check answers at once or later; meanwhile the session waits and reads nothing, so nothing here can block a loop.
 */
#include "base/clock.h"
#include "base/log.h"

#include "gateway/filter/hygiene.h"
#include "gateway/inbound/session.h"
#include "gateway/inbound/transaction.h"

typedef int (*check_fn)(struct session *s, struct check_verdict *v);

static void on_check(void *arg, const struct check_verdict *v);

static void refuse(struct check_verdict *v, struct server_reply reply, const char *by) {
    *v = (struct check_verdict){.action = CHECK_REFUSE, .reply = reply, .by = span_of(by)};
}

static uint64_t now(const struct session *s) {
    return loop_now_ms(s->worker->loop);
}

/* -- connect -- */

static int check_connections(struct session *s, struct check_verdict *v) {
    guard_count_connection(s->worker->in->guard, &s->facts, now(s), v);
    return ERR_OK;
}

/* Those whom we trust need no name: it would cost them a wait for the DNS. */
static int check_lists(struct session *s, struct check_verdict *v) {
    if (s->trusted)
        return ERR_OK;
    struct guard_client told = s->guard; /* by XCLIENT; what the DNS says is better */
    int err = guard_connect(s->worker->in->guard, s->worker->dns, s->worker->loop, &s->facts, &s->guard, v, &s->check,
                            on_check, s);
    memcpy(s->guard.name, told.name, sizeof told.name);
    memcpy(s->guard.reverse, told.reverse, sizeof told.reverse);
    return err;
}

/* -- milters and policy services -- */

static int check_milters(struct session *s, struct check_verdict *v) {
    const struct inbound_settings *settings = &s->front->settings;
    struct transaction *t = s->transaction;
    if (!settings->milter_count)
        return ERR_OK;
    if (!s->milters)
        s->milters = milters_new(s->worker->loop, settings->milters, settings->milter_count);
    if (!s->milters) {
        refuse(v, session_tempfail(451, "4.3.0", "out of memory, try again"), "memory");
        return ERR_OK;
    }
    return milters_check(s->milters, s->stage, &s->facts, t ? t->held : NULL, v, &s->check, on_check, s);
}

static int check_policies(struct session *s, struct check_verdict *v) {
    struct worker_policies *p = s->worker->policies;
    if (!p)
        return ERR_OK;
    int err = policies_check(p->services, s->stage, &s->facts, &s->transaction->prepend, v, &s->check, on_check, s);
    if (err == ERR_AGAIN) {
        s->policies = p;
        p->users++;
    }
    return err;
}

static void leave_policies(struct session *s) {
    if (s->policies)
        s->policies->users--;
    s->policies = NULL;
}

/* -- MAIL -- */

/* Whether somebody outside hears of the message, and of its name. */
static bool asks_others(const struct session *s) {
    return s->front->settings.milter_count || s->front->settings.policy_count || s->front->parts.mailauth;
}

static int check_queue(struct session *s, struct check_verdict *v) {
    if (!submit_is_ready(s->worker->submit)) {
        refuse(v, session_tempfail(451, "4.3.0", "the queue is not ready, try again"), "queue");
        return ERR_OK;
    }
    s->transaction = transaction_new(s);
    if (!s->transaction || (asks_others(s) && transaction_name(s) != ERR_OK))
        refuse(v, session_tempfail(452, "4.3.1", "out of memory, try again"), "memory");
    else
        s->facts.id = span_of(s->transaction->name);
    return ERR_OK;
}

static int check_sender_login(struct session *s, struct check_verdict *v) {
    const struct auth *auth = s->front->parts.auth;
    struct span sender = s->server.mail.sender.text;
    if (!s->listener->sender_login || !s->authenticated)
        return ERR_OK;
    bool owned = auth ? auth_may_send(auth, span_of(s->account), sender)
                      : sender.len == 0 || span_eq_nocase(sender, span_of(s->account));
    if (!owned)
        refuse(v, session_reply(553, "5.7.1", "sender address not owned by your account"), "sender_login");
    return ERR_OK;
}

static int check_mail_rate(struct session *s, struct check_verdict *v) {
    guard_count_mail(s->worker->in->guard, &s->facts, now(s), v);
    return ERR_OK;
}

/* -- RCPT -- */

static int check_recipient_rate(struct session *s, struct check_verdict *v) {
    guard_count_recipient(s->worker->in->guard, &s->facts, now(s), v);
    return ERR_OK;
}

static void on_recipient(void *arg, const struct recipients_answer *answer) {
    struct session *s = arg;
    struct check_verdict v = {0};
    s->recipients = NULL;
    transaction_judged(s, answer, &v);
    on_check(s, &v);
}

static int check_directory(struct session *s, struct check_verdict *v) {
    struct recipients_answer a = {0};
    struct recipients_caller who = {
        .may_relay = s->trusted || s->authenticated, .wall_ms = clock_wall_ms(), .sender = &s->server.mail.sender};
    if (!transaction_charge(s)) {
        refuse(v, session_tempfail(452, "4.3.1", "out of memory, try again"), "memory");
        return ERR_OK;
    }
    int err = recipients_ask(s->front->parts.recipients, s->worker->post, &s->server.rcpt.address, &who, &s->server.mem,
                             &a, &s->recipients, on_recipient, s, NULL);
    if (err == ERR_AGAIN)
        return err;
    if (err)
        refuse(v,
               session_reply(err == ERR_NOMEM ? 452 : 451, err == ERR_NOMEM ? "4.3.1" : "4.3.0",
                             "recipient cannot be checked now"),
               "directory");
    else
        transaction_judged(s, &a, v);
    return ERR_OK;
}

static int check_greylist(struct session *s, struct check_verdict *v) {
    guard_greylist(s->worker->in->guard, &s->facts, &s->guard, clock_wall_ms(), v);
    return ERR_OK;
}

/* -- the end -- */

static int check_octets(struct session *s, struct check_verdict *v) {
    s->facts.size = s->server.data.size;
    guard_count_octets(s->worker->in->guard, &s->facts, now(s), v);
    if (v->action == CHECK_PASS && s->transaction->held && held_finish(s->transaction->held) != ERR_OK)
        refuse(v, session_tempfail(451, "4.3.0", "the message cannot be kept, try again"), "spool");
    return ERR_OK;
}

static bool is_ours(const struct session *s) {
    return s->authenticated || s->trusted;
}

static int check_authenticity(struct session *s, struct check_verdict *v) {
    struct mailauth *m = s->front->parts.mailauth;
    if (!m || is_ours(s) || !s->transaction->held || !mailauth_verifies(m))
        return ERR_OK;
    return mailauth_verify(m, s->worker->post, &s->facts, s->transaction->held, v, &s->check, on_check, s);
}

static int check_hygiene(struct session *s, struct check_verdict *v) {
    struct held *held = s->transaction->held;
    if (s->listener->submission && held && hygiene_apply(held, &s->facts, clock_wall_ms()) != ERR_OK)
        refuse(v, session_tempfail(452, "4.3.1", "out of memory, try again"), "memory");
    return ERR_OK;
}

static int check_signature(struct session *s, struct check_verdict *v) {
    if (!s->front->parts.mailauth || !s->listener->sign || !is_ours(s) || !s->transaction->held)
        return ERR_OK;
    return mailauth_sign(s->front->parts.mailauth, s->worker->post, &s->facts, s->transaction->held, v, &s->check,
                         on_check, s);
}

bool session_holds_message(const struct session *s) {
    const struct mailauth *m = s->front->parts.mailauth;
    if (s->listener->submission || (s->milters && milters_want_message(s->milters)))
        return true;
    return m && (is_ours(s) ? s->listener->sign : mailauth_verifies(m));
}

/* -- the walk -- */

static const check_fn connect_checks[] = {check_connections, check_lists, check_milters, NULL};
static const check_fn helo_checks[] = {check_milters, NULL};
static const check_fn mail_checks[] = {check_queue, check_sender_login, check_mail_rate, check_milters, NULL};
static const check_fn rcpt_checks[] = {check_directory, check_recipient_rate, check_greylist,
                                       check_policies,  check_milters,        NULL};
static const check_fn data_checks[] = {check_policies, check_milters, NULL};
static const check_fn end_checks[] = {check_octets,  check_authenticity, check_hygiene, check_policies,
                                      check_milters, check_signature,    NULL};
static const check_fn *const stages[] = {
    [CHECK_CONNECT] = connect_checks, [CHECK_HELO] = helo_checks, [CHECK_MAIL] = mail_checks,
    [CHECK_RCPT] = rcpt_checks,       [CHECK_DATA] = data_checks, [CHECK_END] = end_checks,
};

/* Goes on with the checks from check_at. False: one of them answers later. */
static bool go_on(struct session *s, struct check_verdict *v) {
    for (check_fn check; (check = stages[s->stage][s->check_at]);) {
        *v = (struct check_verdict){0};
        s->check_at++;
        s->check = NULL;
        if (check(s, v) == ERR_AGAIN)
            return false;
        if (v->action == CHECK_DISCARD && s->transaction && s->stage != CHECK_END)
            transaction_discard(s, v);
        else if (v->action != CHECK_PASS)
            return true;
    }
    *v = (struct check_verdict){0};
    return true;
}

/* One check has answered on its own time. */
static void on_check(void *arg, const struct check_verdict *said) {
    struct session *s = arg;
    struct check_verdict v = *said;
    s->check = NULL;
    leave_policies(s);
    if (v.action == CHECK_DISCARD && s->transaction && s->stage != CHECK_END) {
        transaction_discard(s, &v);
        v.action = CHECK_PASS;
    }
    if (v.action == CHECK_PASS) {
        session_refresh_facts(s);
        if (!go_on(s, &v))
            return;
    }
    buf_clear(&s->worker->out);
    session_go_to(s, SESSION_IDLE);
    session_answer(s, s->stage, &v, &s->worker->out);
    if (s->place == SESSION_IDLE) /* else the scheduler has the word, or memory and credit are missing */
        session_run(s);
}

bool session_check(struct session *s, enum check_stage stage, struct buf *out) {
    struct check_verdict v;
    s->stage = stage;
    s->check_at = 0;
    session_refresh_facts(s);
    if (!go_on(s, &v)) {
        session_go_to(s, SESSION_WAITING);
        return false;
    }
    session_answer(s, stage, &v, out);
    return s->place == SESSION_IDLE;
}

void session_cancel_checks(struct session *s) {
    check_cancel(s->check);
    leave_policies(s);
    if (s->recipients)
        recipients_cancel(s->recipients);
    if (s->exchange)
        auth_cancel(s->exchange);
    session_verify_cancel(s);
    s->check = NULL;
    s->recipients = NULL;
    s->exchange = NULL;
}
