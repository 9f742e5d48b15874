/*
 * transaction: recipients are staged here and merged into one envelope when the body is whole, so a
 * message reaches the scheduler complete or not at all.
 *
 * The same final address may be named twice (two aliases, or twice by the client); it gets one copy. What one
 * transaction may take is bounded: its arena, the packed envelope, and both against the memory that all
 * sessions share.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/frame.h"

#include "gateway/inbound/transaction.h"
#include "gateway/smtp/received.h"

METRIC_COUNTER_L(metric_rcpt_local, "posthouse_smtp_recipients_total", "verdict=\"local\"", "Verdicts at RCPT TO")
METRIC_COUNTER_L(metric_rcpt_relay, "posthouse_smtp_recipients_total", "verdict=\"relay\"", "Verdicts at RCPT TO")
METRIC_COUNTER_L(metric_rcpt_unknown, "posthouse_smtp_recipients_total", "verdict=\"unknown\"", "Verdicts at RCPT TO")
METRIC_COUNTER_L(metric_rcpt_no_relay, "posthouse_smtp_recipients_total", "verdict=\"no_relay\"", "Verdicts at RCPT TO")
METRIC_COUNTER_L(metric_rcpt_unroutable, "posthouse_smtp_recipients_total", "verdict=\"unroutable\"",
                 "Verdicts at RCPT TO")
METRIC_COUNTER_L(metric_rcpt_tempfail, "posthouse_smtp_recipients_total", "verdict=\"tempfail\"", "Verdicts at RCPT TO")

enum { ARENA_FREE = 8 * 1024 }; /* not counted against the shared memory: every small transaction has it */

struct transaction_target {
    struct transaction_target *next;
    const struct recipients_target *target;
    struct span original; /* empty: unchanged */
    struct span orcpt;
    uint8_t notify;
};

/* What the client hears for each verdict, when the directory has no words of its own. */
static const struct {
    uint16_t code;
    const char *enhanced, *text;
    struct metric *metric;
} verdicts[] = {
    [RECIPIENTS_LOCAL] = {250, "2.1.5", "ok", &metric_rcpt_local},
    [RECIPIENTS_RELAY] = {250, "2.1.5", "ok, will relay", &metric_rcpt_relay},
    [RECIPIENTS_UNKNOWN] = {550, "5.1.1", "no such recipient here", &metric_rcpt_unknown},
    [RECIPIENTS_NO_RELAY] = {550, "5.7.1", "relaying denied", &metric_rcpt_no_relay},
    [RECIPIENTS_UNROUTABLE] = {550, "5.4.6", "recipient leads nowhere", &metric_rcpt_unroutable},
    [RECIPIENTS_TEMPFAIL] = {451, "4.3.0", "recipient cannot be checked now", &metric_rcpt_tempfail},
};

static struct server_reply reply(unsigned code, const char *enhanced, const char *text) {
    return (struct server_reply){(uint16_t)code, span_of(enhanced), span_of(text)};
}

struct transaction *transaction_new(struct session *s) {
    struct transaction *t = arena_calloc(&s->server.mem, 1, sizeof *t);
    if (!t)
        return NULL;
    t->last = &t->first;
    t->started_ms = loop_now_ms(s->worker->loop);
    return t;
}

void transaction_end(struct session *s) {
    struct transaction *t = s->transaction;
    if (!t)
        return;
    if (t->submission)
        submission_drop(t->submission);
    body_deinit(&t->body);
    if (t->charged)
        limits_give_back(&s->worker->in->limits, LIMITS_POOL_SHORT, t->charged);
    s->transaction = NULL;
}

/* -- recipients -- */

/* What the envelope will need besides what is there. */
static size_t envelope_memory(const struct transaction *t, size_t more) {
    return (t->targets + more) * (sizeof(Words__Recipient) + 2 * sizeof(void *) + 32) + 4096;
}

static bool charge(struct session *s, struct transaction *t) {
    size_t needed = s->server.mem.used + envelope_memory(t, 0);
    if (needed <= ARENA_FREE + t->charged)
        return true;
    size_t more = needed - ARENA_FREE - t->charged;
    if (!limits_borrow(&s->worker->in->limits, LIMITS_POOL_SHORT, more))
        return false;
    t->charged += more;
    return true;
}

static int keep_target(struct session *s, struct transaction *t, const struct recipients_target *target) {
    const struct server_rcpt *rcpt = &s->server.rcpt;
    struct transaction_target *k = arena_calloc(&s->server.mem, 1, sizeof *k);
    if (!k)
        return ERR_NOMEM;
    k->target = target;
    if (!span_eq(target->address, rcpt->address.text))
        k->original = rcpt->address.text;
    k->orcpt = rcpt->orcpt;
    k->notify = rcpt->notify;
    t->meta += target->address.len + target->destination.len + k->original.len + k->orcpt.len + 48;
    t->targets++;
    *t->last = k;
    t->last = &k->next;
    return ERR_OK;
}

static int keep_all(struct session *s, struct transaction *t, const struct recipients_answer *a) {
    size_t room = envelope_memory(t, a->count);
    if (t->meta > TRANSACTION_META_MAX || s->server.mem.used > SERVER_ARENA_MAX - room)
        return ERR_FULL;
    struct transaction_target **last = t->last;
    struct transaction before = *t;
    for (size_t i = 0; i < a->count; i++) {
        int err = keep_target(s, t, &a->targets[i]);
        if (err == ERR_OK && t->meta > TRANSACTION_META_MAX)
            err = ERR_FULL;
        if (err) { /* all of a recipient or nothing of it */
            *last = NULL;
            t->last = last;
            t->targets = before.targets;
            t->meta = before.meta;
            return err;
        }
    }
    t->only = ++t->rcpts == 1 ? s->server.rcpt.address.text : SPAN_EMPTY;
    return ERR_OK;
}

static void log_refusal(struct session *s, const struct server_reply *r) {
    char ip[128];
    size_t len = tcp_addr_ip(tcp_peer(s->tcp), ip, sizeof ip);
    LOG_INFO("recipient_refused", LOG_SPAN("client", span_make(ip, len)), LOG_SPAN("helo", s->server.helo),
             LOG_SPAN("from", s->server.mail.sender.text), LOG_SPAN("to", s->server.rcpt.address.text),
             LOG_U64("code", r->code), LOG_SPAN("enhanced", r->enhanced), LOG_SPAN("reason", r->text));
}

struct server_reply transaction_recipient(struct session *s) {
    struct transaction *t = s->transaction;
    struct recipients_answer a = {0};
    if (!charge(s, t))
        return reply(452, "4.3.1", "out of memory, try again");
    int err = recipients_judge(s->front->recipients, &s->server.rcpt.address, front_trusts(s->front, tcp_peer(s->tcp)),
                               &s->server.mem, &a, NULL);
    if (err)
        return reply(err == ERR_NOMEM ? 452 : 451, err == ERR_NOMEM ? "4.3.1" : "4.3.0",
                     "recipient cannot be checked now");
    CHECK((size_t)a.verdict < sizeof verdicts / sizeof *verdicts);
    struct server_reply r = reply(verdicts[a.verdict].code, verdicts[a.verdict].enhanced, verdicts[a.verdict].text);
    if (a.enhanced.len)
        r.enhanced = a.enhanced;
    if (a.text.len)
        r.text = a.text;
    metric_add(verdicts[a.verdict].metric, 1);
    if (r.code < 300 && keep_all(s, t, &a) != ERR_OK)
        r = reply(452, "4.5.3", "too many recipients");
    if (r.code >= 300)
        log_refusal(s, &r);
    return r;
}

/* -- the body -- */

int transaction_begin(struct session *s) {
    struct transaction *t = s->transaction;
    char ip[128];
    struct buf text;
    if (!t->body.limits)
        body_init(&t->body, &s->worker->in->limits);
    if (!body_room(&t->body))
        return ERR_AGAIN;
    t->submission = submission_new(s->worker->submit);
    if (!t->submission)
        return ERR_NOMEM;
    submission_name(t->submission, t->name);
    t->received_ms = clock_wall_ms();
    struct received r = {.helo = s->server.helo,
                         .by = s->front->server.hostname,
                         .id = span_of(t->name),
                         .with = received_protocol(s->server.esmtp, false, false, s->server.mail.smtputf8),
                         .recipient = t->only,
                         .wall_ms = t->received_ms};
    r.client = span_make(ip, tcp_addr_ip(tcp_peer(s->tcp), ip, sizeof ip));
    buf_init(&text, RECEIVED_MAX);
    int err = received_write(&r, &text);
    if (err == ERR_OK)
        err = body_append(&t->body, buf_span(&text));
    buf_deinit(&text);
    return err;
}

/* -- the envelope -- */

/* Marks each address in a table of hashes; true: it was there before. */
struct seen {
    const struct transaction_target **slots;
    size_t mask;
};

static bool seen_before(struct seen *seen, const struct transaction_target *k) {
    struct span address = k->target->address;
    size_t at = (size_t)hash_span(address, 0) & seen->mask;
    for (; seen->slots[at]; at = (at + 1) & seen->mask) {
        if (span_eq(seen->slots[at]->target->address, address))
            return true;
    }
    seen->slots[at] = k;
    return false;
}

static int seen_init(struct seen *seen, struct arena *mem, size_t count) {
    size_t slots = 4;
    while (slots < 2 * count)
        slots *= 2;
    seen->slots = arena_calloc(mem, slots, sizeof *seen->slots);
    seen->mask = slots - 1;
    return seen->slots ? ERR_OK : ERR_NOMEM;
}

static void fill_recipient(Words__Recipient *r, const struct transaction_target *k) {
    words__recipient__init(r);
    r->address = frame_bytes(k->target->address);
    r->destination = frame_bytes(k->target->destination);
    r->has_local = r->local = k->target->local;
    r->has_original = k->original.len > 0;
    r->original = frame_bytes(k->original);
    r->has_orcpt = k->orcpt.len > 0;
    r->orcpt = frame_bytes(k->orcpt);
    r->has_notify = k->notify != 0;
    r->notify = k->notify;
}

static int fill_recipients(struct session *s, Words__Envelope *e) {
    struct transaction *t = s->transaction;
    struct arena *mem = &s->server.mem;
    struct seen seen = {0};
    Words__Recipient *all = arena_alloc(mem, t->targets * sizeof *all);
    e->recipients = arena_alloc(mem, t->targets * sizeof *e->recipients);
    if (!all || !e->recipients || (t->targets > 1 && seen_init(&seen, mem, t->targets)))
        return ERR_NOMEM;
    for (const struct transaction_target *k = t->first; k; k = k->next) {
        if (t->targets > 1 && seen_before(&seen, k))
            continue;
        Words__Recipient *r = &all[e->n_recipients];
        fill_recipient(r, k);
        e->recipients[e->n_recipients++] = r;
    }
    return ERR_OK;
}

static int make_envelope(struct session *s) {
    struct transaction *t = s->transaction;
    const struct server_mail *mail = &s->server.mail;
    char ip[128];
    Words__Envelope *e = arena_alloc(&s->server.mem, sizeof *e);
    struct span client = arena_dup(&s->server.mem, span_make(ip, tcp_addr_ip(tcp_peer(s->tcp), ip, sizeof ip)));
    if (!e || !client.at)
        return ERR_NOMEM;
    words__envelope__init(e);
    e->sender = frame_bytes(mail->sender.text);
    e->received_ms = t->received_ms;
    e->size = t->body.size;
    e->has_envid = mail->envid.at != NULL;
    e->envid = frame_bytes(mail->envid);
    e->has_ret = mail->ret != 0;
    e->ret = mail->ret;
    e->has_eight_bit = e->eight_bit = s->server.data.eight_bit;
    e->has_smtputf8 = e->smtputf8 = mail->smtputf8;
    e->has_client = e->has_helo = e->has_protocol = true;
    e->client = frame_bytes(client);
    e->helo = frame_bytes(s->server.helo);
    e->protocol = frame_bytes(received_protocol(s->server.esmtp, false, false, mail->smtputf8));
    e->has_checksum = true;
    e->checksum = t->checksum;
    int err = fill_recipients(s, e);
    t->envelope = e;
    return err;
}

/* Sends what is full; then what is left, as the last chunk when there were others. */
static int send_pieces(struct transaction *t) {
    for (;;) {
        struct bus_bytes *full = body_full(&t->body);
        if (full) {
            int err = submission_chunk(t->submission, full);
            if (err)
                return err;
            body_gone(&t->body);
        }
        int err = body_finish(&t->body, &t->checksum);
        if (err)
            return err;
        if (!body_full(&t->body) || t->body.left == 0)
            return ERR_OK;
    }
}

int transaction_commit(struct session *s, submit_answer_cb cb) {
    struct transaction *t = s->transaction;
    int err = send_pieces(t);
    if (err == ERR_OK)
        err = make_envelope(s);
    if (err == ERR_OK)
        err = submission_commit(t->submission, t->envelope, body_full(&t->body), cb, s);
    if (err == ERR_OK)
        body_deinit(&t->body);
    return err;
}
