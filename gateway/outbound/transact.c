/*
 * transact: the transactions of an attempt: which recipients go into one, whether the server can
 * take the message at all, and what its answers mean for whom.
 */
#include "base/check.h"
#include "base/utf8.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/forward_attrs.h"
#include "gateway/outbound/wish.h"
#include "gateway/smtp/mime.h"

METRIC_COUNTER(transactions, "posthouse_delivery_transactions_total", "Transactions begun");

/* -- what the server can take -- */

/* Does the message itself, with or without any recipient, need SMTPUTF8? */
static bool needs_utf8(struct attempt *a) {
    if (!a->job->has_smtputf8 || !a->job->smtputf8)
        return false;
    if (a->body.chunked) /* its header is not at hand: believe the client that asked for SMTPUTF8 */
        return a->job->has_eight_bit && a->job->eight_bit;
    return mime_has_8bit_header(bus_bytes_span(a->body.whole));
}

static void judge_pending(struct attempt *a, enum outcome_local what) {
    struct attempt_result r = attempt_local_result(what);
    r.remote = arena_dup(&a->mem, span_of(a->conn->remote));
    attempt_judge_all(a, &r);
}

/* False: nothing is left that this server can take. */
static bool check_utf8(struct attempt *a) {
    if (a->conn->client.ext.smtputf8)
        return true;
    if (needs_utf8(a)) {
        judge_pending(a, OUTCOME_NO_SMTPUTF8);
        return false;
    }
    struct attempt_result r = attempt_local_result(OUTCOME_NO_SMTPUTF8);
    r.remote = arena_dup(&a->mem, span_of(a->conn->remote));
    for (uint32_t i = 0; i < a->count; i++) {
        bool ascii = !mime_has_8bit(frame_span(a->job->recipients[i]->address)) && !mime_has_8bit(attempt_sender(a, i));
        if (a->recipients[i].fate == FATE_PENDING && !ascii)
            attempt_judge(a, i, &r);
    }
    return a->open > 0;
}

static bool is_8bit(const struct attempt *a) {
    return a->job->has_eight_bit && a->job->eight_bit;
}

static bool check_size(struct attempt *a, uint64_t size) {
    const struct client_extensions *ext = &a->conn->client.ext;
    if (!ext->size || !ext->size_max || size <= ext->size_max)
        return true;
    judge_pending(a, OUTCOME_TOO_BIG);
    return false;
}

/* -- beginning -- */

/* Recipients with one return path travel together; those with another have their own transaction. */
static void gather(struct attempt *a) {
    const struct client_extensions *ext = &a->conn->client.ext;
    struct span sender = SPAN_EMPTY;
    uint32_t max = throttle_recipients(a, a->o->setup->s.recipients_per_transaction), n = 0;
    if (ext->rcpt_max && ext->rcpt_max < max)
        max = ext->rcpt_max;
    if (max > CLIENT_RCPT_MAX)
        max = CLIENT_RCPT_MAX;
    for (uint32_t i = 0; i < a->count && n < max; i++) {
        if (a->recipients[i].fate != FATE_PENDING)
            continue;
        const Words__Recipient *r = a->job->recipients[i];
        if (n == 0)
            sender = attempt_sender(a, i);
        else if (!span_eq(sender, attempt_sender(a, i)))
            continue;
        a->sending[n] = (struct client_recipient){.address = frame_span(r->address)};
        if (r->has_orcpt)
            a->sending[n].orcpt = frame_span(r->orcpt);
        a->sending[n].notify = wish_notify(a, i, r->has_notify ? r->notify : 0);
        a->sent[n++] = i;
    }
    a->mail = (struct client_mail){
        .sender = sender,
        .size = content_size(&a->body),
        .eight_bit = is_8bit(a) && !a->body.use_converted,
        .smtputf8 = a->job->has_smtputf8 && a->job->smtputf8,
        .ret = a->job->has_ret ? a->job->ret : 0,
        .envid = a->job->has_envid ? frame_span(a->job->envid) : SPAN_EMPTY,
        .recipients = a->sending,
        .count = n,
    };
    wish_fill(a, &a->mail);
    a->mail.forward = forward_attrs_of(a);
}

/* Fails those whose address cannot be put in a command; all of the transaction, when it is the sender's. */
static void judge_unsendable(struct attempt *a) {
    struct attempt_result r = attempt_local_result(OUTCOME_UNSENDABLE);
    bool found = false;
    for (uint32_t n = 0; n < a->mail.count; n++) {
        buf_clear(&a->o->scratch);
        if (client_put_rcpt(&a->o->scratch, &a->conn->client.ext, &a->mail, &a->sending[n]) == ERR_INVALID) {
            attempt_judge(a, a->sent[n], &r);
            found = true;
        }
    }
    for (uint32_t n = 0; !found && n < a->mail.count; n++)
        attempt_judge(a, a->sent[n], &r);
}

static void leave_conn(struct attempt *a) {
    a->conn->attempt = NULL;
    a->conn = NULL;
}

/* All were judged without a word to the server: the connection is as it was. */
static void finish_unsent(struct attempt *a) {
    leave_conn(a);
    attempt_finish(a);
}

void transact_begin(struct attempt *a) {
    struct conn *c = a->conn;
    bool convert = is_8bit(a) && !c->client.ext.eight_bit;
    a->state = ATTEMPT_SENDING;
    if (forward_attrs_introduce(a))
        return;
    if (!check_utf8(a) || !wish_check(a)) {
        finish_unsent(a);
        return;
    }
    if (convert && !a->converted) {
        convert_start(a);
        return;
    }
    content_rewind(&a->body, convert, loop_now_ms(a->o->loop));
    if (!check_size(a, content_size(&a->body))) {
        finish_unsent(a);
        return;
    }
    for (;;) {
        gather(a);
        int err = conn_begin(c, &a->mail);
        if (err == ERR_OK)
            break;
        if (err == ERR_INVALID)
            judge_unsendable(a);
        else
            judge_pending(a, OUTCOME_NO_MEMORY);
        if (a->open == 0) {
            finish_unsent(a);
            return;
        }
    }
    for (uint32_t n = 0; n < a->mail.count; n++)
        a->recipients[a->sent[n]].fate = FATE_SENT;
    a->in_transaction = true;
    a->reused = c->client.transactions > 1;
    metric_add(&transactions, 1);
    throttle_count(a);
}

void attempt_use(struct attempt *a, struct conn *c) {
    a->conn = c;
    c->attempt = a;
    transact_begin(a);
}

/* -- answers -- */

static char class_of(enum outcome o) {
    return o == OUTCOME_DELIVERED ? '2' : o == OUTCOME_FAILED ? '5' : '4';
}

/* What is said of it in the report: the server's words, or ours. */
static struct attempt_result result_of(struct attempt *a, const struct conn *c, struct outcome_verdict v,
                                       const struct client_event *e, int err) {
    struct attempt_result r = {.verdict = v, .enhanced = span_of(v.enhanced)};
    r.remote = arena_dup(&a->mem, span_of(c->remote));
    r.tls = *c->tls_text ? arena_strdup(&a->mem, c->tls_text) : NULL;
    if (c->source) {
        char ip[128];
        tcp_addr_ip(&c->source->address, ip, sizeof ip);
        r.source = arena_strdup(&a->mem, ip);
    }
    if (v.outcome == OUTCOME_DELIVERED)
        r.hop = attempt_is_lmtp(a) ? HOP_FINAL : c->client.ext.dsn ? HOP_REPORTS : HOP_PLAIN;
    if (e->reply) {
        r.code = e->reply->code;
        r.text = arena_dup(&a->mem, reply_text(e->reply));
        if (e->reply->enhanced[0] == class_of(v.outcome) || (v.fatal_if_all && e->reply->enhanced[0] == '5'))
            r.enhanced = arena_dup(&a->mem, span_of(e->reply->enhanced));
    }
    if (!r.text.len) {
        const char *said =
            e->stage == CLIENT_CONNECT && *c->egress.why ? arena_printf(&a->mem, "cannot connect: %s", c->egress.why)
            : e->stage == CLIENT_CONNECT && err          ? arena_printf(&a->mem, "%s: %s", v.text, err_text(err))
            : e->stage == CLIENT_SHAKING && *c->tls_why  ? arena_printf(&a->mem, "%s: %s", v.text, c->tls_why)
            : e->stage == CLIENT_AUTH && c->login.why
                ? arena_printf(&a->mem, "%s: %s", v.text, c->login.why)
                : arena_printf(&a->mem, "%s (%s)", v.text, client_stage_name(e->stage));
        r.text = span_of(said ? said : v.text);
    }
    return r;
}

/* XCLIENT was used: a stranger, and how it calls itself, is no reason to think ill of the server. */
static bool stands_for_client(const struct attempt *a, const struct conn *c) {
    return a->introducing || buf_len(&c->client.introduced) > 0;
}

static struct outcome_verdict verdict_of(const struct attempt *a, const struct conn *c, const struct client_event *e) {
    bool lmtp_dot = attempt_is_lmtp(a) && e->kind == CLIENT_EV_RECIPIENT;
    struct outcome_verdict v = outcome_of(e->stage, e->answer, lmtp_dot, a->reused && a->again < ATTEMPT_AGAIN_MAX);
    if (v.scope == SCOPE_HOST && v.outcome == OUTCOME_DEFERRED && stands_for_client(a, c))
        v.scope = SCOPE_MESSAGE;
    return v;
}

/* This host comes first again. */
static void ask_again(struct attempt *a, const struct tcp_addr *addr) {
    walk_unmark(&a->walk, addr);
    walk_restart(&a->walk);
}

void attempt_on_event(struct attempt *a, struct conn *c, const struct client_event *e) {
    if (e->kind == CLIENT_EV_LATER) {
        a->recipients[a->sent[e->index]].fate = FATE_PENDING;
        return;
    }
    struct attempt_result r = result_of(a, c, verdict_of(a, c, e), e, ERR_OK);
    throttle_judge(a, c, e, &r);
    a->answered = a->answered || r.verdict.scope < SCOPE_HOST;
    if (e->kind == CLIENT_EV_RECIPIENT) {
        attempt_judge(a, a->sent[e->index], &r);
        return;
    }
    for (uint32_t n = 0; n < a->mail.count; n++) {
        if (a->recipients[a->sent[n]].fate == FATE_SENT)
            attempt_judge(a, a->sent[n], &r);
    }
    if (r.verdict.next == OUTCOME_NEXT_HOST) {
        a->last = r;
        a->has_last = true;
        a->tried++;
        walk_mark(&a->walk, &c->addr);
        if (throttle_goes_elsewhere(a, c))
            ask_again(a, &c->addr);
    }
}

void attempt_on_body(struct attempt *a) {
    a->answered = true;
}

void attempt_on_ready(struct attempt *a, struct conn *c) {
    a->conn = c;
    if (!a->in_transaction && !a->introducing)
        secure_count(a, c, NULL);
    forward_attrs_count(a);
    if (a->in_transaction) {
        a->in_transaction = a->reused = false;
        attempt_go_on(a);
    } else {
        transact_begin(a);
    }
}

/* The same again on a new connection: nothing was lost, nothing is held against the host. */
static void start_again(struct attempt *a, const struct tcp_addr *addr) {
    a->again++;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate == FATE_SENT)
            a->recipients[i].fate = FATE_PENDING;
    }
    ask_again(a, addr);
    attempt_go_on(a);
}

void attempt_on_end(struct attempt *a, struct conn *c, const struct client_event *e, int err) {
    bool before = !a->in_transaction && c->established; /* while the body was prepared */
    if (a->conversion)
        convert_cancel(a);
    if (egress_on_end(a, c))
        return;
    struct outcome_verdict v = verdict_of(a, c, e);
    if (e->stage == CLIENT_CONNECT && attempt_lost_rival(a, c)) {
        a->tried++;
        a->last = result_of(a, c, v, e, err);
        a->has_last = true;
        return;
    }
    a->conn = NULL;
    a->in_transaction = a->reused = a->introducing = false;
    a->slot = site_keep_slot(a->site); /* on to the next host before others begin with the first */
    if (!c->established)
        secure_count(a, c, e);
    if (!c->established && secure_may_fall_back(a, e)) {
        attempt_same_target(a);
        return;
    }
    if (v.next == OUTCOME_NEXT_AGAIN || (before && a->again < ATTEMPT_AGAIN_MAX)) {
        start_again(a, &c->addr);
        return;
    }
    bool never = secure_is_final(a, e);
    v.fatal_if_all |= never;
    struct attempt_result r = result_of(a, c, v, e, err);
    if (never)
        r.enhanced = SPAN("5.7.10");
    else
        throttle_judge(a, c, e, &r);
    v = r.verdict;
    bool by_rule = v.outcome == OUTCOME_FAILED && v.scope == SCOPE_HOST;
    bool elsewhere = throttle_goes_elsewhere(a, c);
    if (!elsewhere && health_compare(a, c, e, &r, err))
        return;
    bool dot = e->stage == CLIENT_DOT;
    a->answered = a->answered || v.scope < SCOPE_HOST || dot;
    a->fatal += v.fatal_if_all;
    a->tried++;
    a->last = r;
    if (v.outcome == OUTCOME_IN_DOUBT) /* those that were not in the transaction are not in doubt */
        a->last.verdict.outcome = OUTCOME_DEFERRED;
    a->has_last = true;
    walk_mark(&a->walk, &c->addr);
    if (elsewhere)
        ask_again(a, &c->addr);
    for (uint32_t i = 0; i < a->count; i++) {
        struct attempt_recipient *to = &a->recipients[i];
        /* a verdict on one transaction says nothing of those that were not in it, but that this host is done with */
        if (to->fate == FATE_SENT)
            attempt_judge(a, i, &r);
        else if (to->fate == FATE_PENDING && (v.outcome == OUTCOME_DEFERRED || by_rule) && !dot)
            attempt_judge(a, i, &r);
    }
    attempt_go_on(a);
}

/* -- the body -- */

/* The scheduler does not give us the body: what is on the wire without its dot is nothing. */
static void give_up_body(struct attempt *a) {
    struct attempt_result r = attempt_local_result(OUTCOME_NO_BODY);
    struct conn *c = a->conn;
    struct site *s = c->site;
    s->users++;
    leave_conn(a);
    conn_drop(c);
    attempt_judge_all(a, &r);
    attempt_finish(a);
    site_pump(s);
    site_close(s);
}

/* Reading the body: on a connection, and not yet at the answer to the dot. */
static bool is_reading(const struct attempt *a) {
    return a->state == ATTEMPT_SENDING && a->conn && a->conn->client.state != CLIENT_DOT && !content_is_end(&a->body);
}

void attempt_on_chunk(struct attempt *a, uint32_t number, struct bus_bytes *bytes, bool missing) {
    if (!is_reading(a))
        return;
    int err = missing ? ERR_CORRUPT : content_on_chunk(&a->body, number, bytes, loop_now_ms(a->o->loop));
    if (err == ERR_NOT_FOUND)
        return;
    if (err != ERR_OK)
        give_up_body(a);
    else if (a->conversion)
        convert_on_chunk(a);
    else
        conn_body_moved(a->conn);
}

void attempt_tick(struct attempt *a) {
    if (is_reading(a) && !content_tick(&a->body, loop_now_ms(a->o->loop)))
        give_up_body(a);
}
