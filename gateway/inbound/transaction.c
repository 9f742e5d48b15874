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
METRIC_COUNTER_L(metric_rcpt_forged, "posthouse_smtp_recipients_total", "verdict=\"forged\"", "Verdicts at RCPT TO")
METRIC_COUNTER_L(metric_rcpt_tempfail, "posthouse_smtp_recipients_total", "verdict=\"tempfail\"", "Verdicts at RCPT TO")

enum {
    ARENA_FREE = 8 * 1024,   /* not counted against the shared memory: every small transaction has it */
    PREPEND_MAX = 16 * 1024, /* with Received less than a short body may hold */
    HELD_STEP = 32 * 1024,   /* held messages borrow memory in steps */
};

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
    [RECIPIENTS_FORGED] = {550, "5.7.1", "not about mail of ours", &metric_rcpt_forged},
    [RECIPIENTS_TEMPFAIL] = {451, "4.3.0", "recipient cannot be checked now", &metric_rcpt_tempfail},
};

struct transaction *transaction_new(struct session *s) {
    struct transaction *t = arena_calloc(&s->server.mem, 1, sizeof *t);
    if (!t)
        return NULL;
    t->last = &t->first;
    buf_init(&t->prepend, PREPEND_MAX);
    t->started_ms = loop_now_ms(s->worker->loop);
    return t;
}

static void drop_held(struct session *s, struct transaction *t) {
    held_free(t->held);
    t->held = NULL;
    if (t->held_charged)
        limits_give_back(&s->worker->in->limits, LIMITS_POOL_SHORT, t->held_charged);
    t->held_charged = 0;
}

void transaction_end(struct session *s) {
    struct transaction *t = s->transaction;
    if (!t)
        return;
    if (t->submission)
        submission_drop(t->submission);
    body_deinit(&t->body);
    drop_held(s, t);
    buf_deinit(&t->prepend);
    if (t->charged)
        limits_give_back(&s->worker->in->limits, LIMITS_POOL_SHORT, t->charged);
    s->transaction = NULL;
}

int transaction_name(struct session *s) {
    struct transaction *t = s->transaction;
    if (t->submission)
        return ERR_OK;
    t->submission = submission_new(s->worker->submit);
    if (!t->submission)
        return ERR_NOMEM;
    submission_name(t->submission, t->name);
    return ERR_OK;
}

void transaction_discard(struct session *s, const struct check_verdict *v) {
    struct span by = arena_dup(&s->server.mem, v->by);
    s->transaction->discarded_by = by.at ? by : SPAN("a filter");
}

/* -- recipients -- */

/* What the envelope will need besides what is there. */
static size_t envelope_memory(const struct transaction *t, size_t more) {
    return (t->targets + more) * (sizeof(Words__Recipient) + 2 * sizeof(void *) + 32) + 4096;
}

bool transaction_charge(struct session *s) {
    struct transaction *t = s->transaction;
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
    t->meta +=
        target->address.len + target->destination.len + target->return_path.len + k->original.len + k->orcpt.len + 48;
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

void transaction_judged(struct session *s, const struct recipients_answer *a, struct check_verdict *v) {
    CHECK((size_t)a->verdict < sizeof verdicts / sizeof *verdicts);
    struct server_reply r =
        session_reply(verdicts[a->verdict].code, verdicts[a->verdict].enhanced, verdicts[a->verdict].text);
    if (a->enhanced.len)
        r.enhanced = a->enhanced;
    if (a->text.len)
        r.text = a->text;
    metric_add(verdicts[a->verdict].metric, 1);
    s->transaction->judged = *a;
    *v =
        (struct check_verdict){.action = r.code < 300 ? CHECK_PASS : CHECK_REFUSE, .reply = r, .by = SPAN("directory")};
}

struct server_reply transaction_keep(struct session *s) {
    const struct recipients_answer *a = &s->transaction->judged;
    struct server_reply r = {250, a->enhanced, a->text};
    if (!r.enhanced.len || !r.text.len)
        r = session_reply(250, verdicts[a->verdict].enhanced, verdicts[a->verdict].text);
    return keep_all(s, s->transaction, a) == ERR_OK ? r : session_reply(452, "4.5.3", "too many recipients");
}

/* -- the body -- */

/* Received and what policy services prepend are the first octets. ERR_AGAIN: no memory to borrow now. */
static int begin(struct session *s) {
    struct transaction *t = s->transaction;
    const struct tls_info *tls = tcp_tls_info(s->tcp);
    struct buf text;
    if (!t->body.limits)
        body_init(&t->body, &s->worker->in->limits);
    if (!body_room(&t->body))
        return ERR_AGAIN;
    int err = transaction_name(s);
    if (err)
        return err;
    t->received_ms = clock_wall_ms();
    struct received r = {.helo = s->server.helo,
                         .client = session_ip(s),
                         .client_name = span_of(s->guard.name),
                         .hidden = s->listener->hide_client && s->authenticated,
                         .tls = span_of(tls ? tls->suite : ""),
                         .by = span_of(s->front->settings.hostname),
                         .id = span_of(t->name),
                         .with =
                             received_protocol(s->server.esmtp, tls != NULL, s->authenticated, s->server.mail.smtputf8),
                         .recipient = t->only,
                         .wall_ms = t->received_ms};
    buf_init(&text, RECEIVED_MAX + PREPEND_MAX);
    err = received_write(&r, &text);
    if (err == ERR_OK)
        err = buf_add(&text, buf_span(&t->prepend));
    if (err == ERR_OK)
        err = body_append(&t->body, buf_span(&text));
    buf_deinit(&text);
    t->began = err == ERR_OK;
    return err;
}

/* Memory for what the held message has grown to. What it needs to stream on is borrowed first: messages that wait for
 * each other's memory to leave would wait for ever. */
static int hold(struct session *s, struct transaction *t, size_t *most) {
    *most = 0;
    if (!t->body.limits)
        body_init(&t->body, &s->worker->in->limits);
    if (!body_room(&t->body))
        return ERR_OK;
    if (!t->held)
        t->held = held_new(s->front->settings.spool);
    if (!t->held)
        return ERR_NOMEM;
    if (held_memory(t->held) + HELD_STEP > t->held_charged) {
        if (!limits_borrow(&s->worker->in->limits, LIMITS_POOL_SHORT, HELD_STEP))
            return ERR_OK;
        t->held_charged += HELD_STEP;
    }
    *most = HELD_STEP;
    return ERR_OK;
}

/* The full piece leaves. */
static void send_full(struct transaction *t) {
    struct bus_bytes *full = body_full(&t->body);
    if (full && submission_chunk(t->submission, full) == ERR_OK)
        body_gone(&t->body);
}

int transaction_room(struct session *s, size_t *most) {
    struct transaction *t = s->transaction;
    if (t->held || (!t->began && session_holds_message(s)))
        return hold(s, t, most);
    *most = 0;
    if (!t->began) {
        int err = begin(s);
        if (err)
            return err == ERR_AGAIN ? ERR_OK : err;
    }
    send_full(t);
    *most = body_room(&t->body);
    return ERR_OK;
}

int transaction_append(struct transaction *t, struct span octets) {
    if (t->held)
        return held_append(t->held, octets);
    int err = body_append(&t->body, octets);
    if (err)
        return ERR_NOMEM;
    struct bus_bytes *full = body_full(&t->body);
    err = full ? submission_chunk(t->submission, full) : ERR_AGAIN;
    if (err == ERR_OK)
        body_gone(&t->body);
    return err == ERR_AGAIN ? ERR_OK : err == ERR_NOMEM || err == ERR_FULL ? ERR_CLOSED : err;
}

/* What filters made of the message streams on, as memory and credit allow. ERR_AGAIN: not all of it yet. */
static int emit(struct session *s, struct transaction *t) {
    char piece[16 * 1024];
    int err = t->began ? ERR_OK : begin(s);
    while (!err) {
        send_full(t);
        size_t room = body_room(&t->body);
        if (room == 0)
            return ERR_AGAIN;
        ptrdiff_t got = held_read(t->held, t->emitted, piece, room < sizeof piece ? room : sizeof piece);
        if (got <= 0)
            return got < 0 ? ERR_IO : ERR_OK;
        err = body_append(&t->body, span_make(piece, (size_t)got));
        t->emitted += (size_t)got;
    }
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
    r->has_return_path = k->target->return_path.len > 0;
    r->return_path = frame_bytes(k->target->return_path);
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

/* What the sender asked for besides delivery. Priority above normal is for those whom we know (RFC 6710 section 4.2).
 */
static void fill_wishes(const struct session *s, Words__Envelope *e) {
    const struct server_mail *mail = &s->server.mail;
    int8_t priority = mail->priority > 0 && !s->trusted && !s->authenticated ? 0 : mail->priority;
    e->has_requiretls = e->requiretls = mail->requiretls;
    e->has_tls_required_no = e->tls_required_no = s->server.data.tls_required_no && !mail->requiretls;
    if (mail->has_priority) {
        e->has_mt_priority = e->has_priority = true;
        e->mt_priority = priority;
        e->priority = priority < 0 ? 0 : priority > 3 ? 2 : 1;
    }
    if (mail->has_by) {
        int64_t by = (int64_t)e->received_ms + (int64_t)mail->by_s * 1000;
        e->has_deliver_by_ms = true;
        e->deliver_by_ms = by > 0 ? (uint64_t)by : 0;
        e->has_deliver_by_notify = e->deliver_by_notify = mail->by_notify;
        e->has_deliver_by_trace = e->deliver_by_trace = mail->by_trace;
    }
    if (mail->hold_for_ms || mail->hold_until_ms) {
        e->has_release_ms = true;
        e->release_ms = mail->hold_until_ms ? mail->hold_until_ms : e->received_ms + mail->hold_for_ms;
    }
}

static int make_envelope(struct session *s) {
    struct transaction *t = s->transaction;
    const struct server_mail *mail = &s->server.mail;
    const struct tls_info *tls = tcp_tls_info(s->tcp);
    Words__Envelope *e = arena_alloc(&s->server.mem, sizeof *e);
    if (!e)
        return ERR_NOMEM;
    words__envelope__init(e);
    e->sender = frame_bytes(mail->sender.text);
    e->received_ms = t->received_ms;
    e->size = t->body.size;
    e->has_envid = mail->envid.at != NULL;
    e->envid = frame_bytes(mail->envid);
    e->has_ret = mail->ret != 0;
    e->ret = mail->ret;
    e->has_eight_bit = true;
    e->eight_bit = t->held ? held_eight_bit(t->held) : s->server.data.eight_bit;
    e->has_smtputf8 = e->smtputf8 = mail->smtputf8;
    e->has_client = e->has_helo = e->has_protocol = true;
    e->client = frame_bytes(session_ip(s)); /* session outlives the answer */
    e->helo = frame_bytes(s->server.helo);
    e->protocol = frame_bytes(received_protocol(s->server.esmtp, tls != NULL, s->authenticated, mail->smtputf8));
    e->has_client_name = s->guard.name[0] != 0;
    e->client_name = frame_bytes(span_of(s->guard.name));
    e->has_client_port = true;
    e->client_port = tcp_addr_port(&s->peer);
    e->has_submitted = e->submitted = s->trusted || s->authenticated;
    e->has_account = s->authenticated;
    e->account = frame_bytes(span_of(s->account));
    e->has_checksum = true;
    e->checksum = t->checksum;
    fill_wishes(s, e);
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
    int err = t->held ? emit(s, t) : ERR_OK;
    if (err == ERR_OK)
        err = send_pieces(t);
    if (err == ERR_OK)
        err = make_envelope(s);
    if (err == ERR_OK)
        err = submission_commit(t->submission, t->envelope, body_full(&t->body), cb, s);
    if (err)
        return err;
    body_deinit(&t->body);
    drop_held(s, t);
    return ERR_OK;
}
