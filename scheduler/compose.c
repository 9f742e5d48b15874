/*
 * compose: a report that the core asks for is read together on a helper thread, composed (dsn.h), and handed back
 * as a message of our own, which the core enqueues in the batch that settles the recipients.
 *
 * What cannot be composed is none, with the reason for the trace; the recipients are settled all the same. Here, where
 * the header of the message is at hand, automatic mail is recognised: it gets neither notices of delay nor reports of
 * success.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/outcome.h"
#include "scheduler/dsn_auto.h"
#include "scheduler/dsn_template.h"
#include "scheduler/shell.h"

#define REPORT_MAX (16u * 1024u * 1024u)

METRIC_COUNTER(metric_composed, "posthouse_reports_composed_total", "Delivery status notifications that were written")

METRIC_COUNTER_L(withheld_feedback, "posthouse_reports_withheld_total", "why=\"feedback\"",
                 "Notices of delay and success that were not written about automatic mail")
METRIC_COUNTER_L(withheld_report, "posthouse_reports_withheld_total", "why=\"report\"",
                 "Notices of delay and success that were not written about automatic mail")
METRIC_COUNTER_L(withheld_auto, "posthouse_reports_withheld_total", "why=\"auto_submitted\"",
                 "Notices of delay and success that were not written about automatic mail")
METRIC_COUNTER_L(withheld_bulk, "posthouse_reports_withheld_total", "why=\"precedence\"",
                 "Notices of delay and success that were not written about automatic mail")

struct composing {
    struct scheduler *sc;
    struct shard_compose *c;
    char *hostname, *postmaster;
    struct dsn_texts *texts;
    struct batv *batv;
    enum dsn_auto withheld;
    uint64_t now_ms;
    struct arena mem;
    Words__Envelope *original;
    struct buf text;
    struct dsn_form form;
    const char *problem; /* NULL: composed */
};

/* -- on the helper thread -- */

static void fill_recipient(struct dsn_recipient *to, const Words__Recipient *r, const struct sched_result *result,
                           enum sched_report_kind kind) {
    *to = (struct dsn_recipient){.address = frame_span(r->address),
                                 .code = result->code,
                                 .enhanced = result->enhanced,
                                 .text = result->text,
                                 .remote = result->remote,
                                 .relayed = kind == SCHED_REPORT_DELIVERED && result->hop != SCHED_HOP_FINAL};
    if (r->has_orcpt)
        to->orcpt = frame_span(r->orcpt);
    if (r->has_original)
        to->original = frame_span(r->original);
}

/* The targets of one address are told of as that address, once: delivered there and expanded (RFC 3461 section
 * 5.2.7.2). True: r is one of them that need not be told. */
static bool join_expanded(const Words__Envelope *e, const struct shard_compose *c, uint32_t i,
                          struct dsn_recipient *r) {
    if (c->kind != SCHED_REPORT_DELIVERED || !job_is_expanded(e, c->indexes[i]))
        return false;
    struct span original = frame_span(e->recipients[c->indexes[i]]->original);
    if (i > 0 && job_is_expanded(e, c->indexes[i - 1]) &&
        span_eq(original, frame_span(e->recipients[c->indexes[i - 1]]->original)))
        return true;
    *r = (struct dsn_recipient){.address = original, .orcpt = r->orcpt, .expanded = true};
    return false;
}

static enum dsn_kind kind_of(enum sched_report_kind kind) {
    return kind == SCHED_REPORT_FAILED ? DSN_FAILED : kind == SCHED_REPORT_DELAYED ? DSN_DELAYED : DSN_DELIVERED;
}

static const char *write_report(struct composing *k, struct span content) {
    const struct shard_compose *c = k->c;
    const Words__Envelope *e = k->original;
    struct dsn_recipient *r = arena_calloc(&k->mem, c->count + 1u, sizeof *r);
    if (!r)
        return "no memory for the report";
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->indexes[i] >= e->n_recipients)
            return "the stored envelope does not fit";
        fill_recipient(&r[count], e->recipients[c->indexes[i]], &c->results[i], c->kind);
        count += !join_expanded(e, c, i, &r[count]);
    }
    struct dsn d = {
        .kind = kind_of(c->kind),
        .number = c->id ^ c->compose << 48,
        .now_ms = k->now_ms,
        .hostname = span_of(k->hostname),
        .postmaster = span_of(k->postmaster),
        .sender = frame_span(e->sender),
        .received_ms = e->received_ms,
        .size = e->size,
        .smtputf8 = e->has_smtputf8 && e->smtputf8,
        .retry_until_ms = c->will_retry_until_ms,
        .template = dsn_texts_for(k->texts, frame_span(e->sender)),
        .recipients = r,
        .count = count,
        .content = content,
    };
    if (e->has_envid)
        d.envid = frame_span(e->envid);
    if (e->has_ret)
        d.ret = e->ret == 1 ? DSN_RET_FULL : e->ret == 2 ? DSN_RET_HDRS : DSN_RET_NONE;
    if (e->has_requiretls && e->requiretls) /* the report goes without TLS: it shows no body (RFC 8689 section 5) */
        d.ret = DSN_RET_HDRS;
    int err = dsn_compose(&d, &k->text, &k->form);
    return err == ERR_OK ? NULL : err == ERR_INVALID ? "the return path takes no report" : err_text(err);
}

/* Automatic mail: a failure is told, since else the mail would vanish; nothing else is (docs/reports.md). */
static const char *withhold(struct composing *k, struct span content) {
    static const char *const why[DSN_AUTO_KINDS] = {
        NULL, "the message is feedback of a mailbox provider", "the message is a report itself",
        "the message is automatic (Auto-Submitted)", "the message is bulk mail (Precedence)"};
    if (k->c->kind != SCHED_REPORT_FAILED)
        k->withheld = dsn_recognise(content);
    return why[k->withheld];
}

/* A signature that is not to be had does not keep a report from going. */
static void sign_report(struct composing *k) {
    const struct scheduler_config *c = &k->sc->config;
    struct buf whole;
    if (!c->sign)
        return;
    buf_init(&whole, REPORT_MAX);
    if (c->sign(c->sign_arg, k->postmaster, buf_span(&k->text), &whole) != ERR_OK || !buf_len(&whole) ||
        buf_append(&whole, buf_span(&k->text).at, buf_len(&k->text)) != ERR_OK) {
        buf_deinit(&whole);
        return;
    }
    buf_deinit(&k->text);
    k->text = whole;
}

static void work(void *arg) {
    struct composing *k = arg;
    uint32_t shard = shard_number(k->c->shard);
    struct buf content;
    buf_init(&content, FRAME_BODY_MAX);
    int err = queue_get_envelope(k->sc->store, shard, k->c->id, &k->mem, &k->original);
    if (err == ERR_OK)
        err = queue_get_chunk(k->sc->store, shard, k->c->id, 0, &content);
    if (err == ERR_OK) { /* its owner knows the address without a tag */
        struct span sender = batv_strip(k->batv, frame_span(k->original->sender), &k->mem);
        err = sender.at ? ERR_OK : ERR_NOMEM;
        k->original->sender = frame_bytes(sender);
    }
    k->problem = err == ERR_OK ? withhold(k, buf_span(&content)) : err_text(err);
    if (!k->problem)
        k->problem = write_report(k, buf_span(&content));
    if (!k->problem)
        sign_report(k);
    buf_deinit(&content);
}

/* -- back on the loop -- */

static void composing_free(struct composing *k) {
    arena_deinit(&k->c->arena);
    free(k->c);
    arena_deinit(&k->mem);
    buf_deinit(&k->text);
    dsn_texts_unref(k->texts);
    batv_unref(k->batv);
    free(k->hostname);
    free(k->postmaster);
    free(k);
}

/* The routing domain of the return path, in lower case; empty: there is none. */
static struct span destination_of(struct composing *k, struct span sender) {
    ptrdiff_t at = span_rfind(sender, '@');
    struct span domain = at < 0 ? SPAN_EMPTY : arena_dup(&k->mem, span_from(sender, (size_t)at + 1));
    for (size_t i = 0; i < domain.len; i++) {
        char *c = (char *)(uintptr_t)domain.at + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
    }
    return domain;
}

static void fill_envelope(struct composing *k, Words__Envelope *e, Words__Recipient *r, Words__Recipient **rs) {
    struct span text = buf_span(&k->text);
    words__envelope__init(e);
    words__recipient__init(r);
    r->address = k->original->sender;
    r->destination = frame_bytes(destination_of(k, frame_span(k->original->sender)));
    r->has_notify = true;
    r->notify = NOTIFY_NEVER;
    rs[0] = r;
    e->sender = frame_bytes(SPAN(""));
    e->n_recipients = 1;
    e->recipients = rs;
    e->received_ms = k->now_ms;
    e->size = text.len;
    e->has_eight_bit = e->has_smtputf8 = e->has_report = e->has_priority = e->has_checksum = true;
    e->eight_bit = k->form.eight_bit;
    e->smtputf8 = k->form.smtputf8;
    e->report = true;
    e->priority = 1;
    e->checksum = hash_checksum(text.at, text.len);
}

/* The payload of the report; NULL: no memory. */
static struct payload *make_payload(struct composing *k, const Words__Envelope *e) {
    struct payload *l = payload_new(shard_payloads(k->c->shard), NULL);
    buf_clear(&k->sc->pack2);
    if (!l)
        return NULL;
    l->report = true;
    l->recipients = 1;
    l->body = bus_bytes_copy(buf_span(&k->text));
    if (l->body && frame_pack(&e->base, &k->sc->pack2) == ERR_OK) {
        struct span packed = buf_span(&k->sc->pack2);
        l->envelope = malloc(packed.len + 1);
        l->envelope_len = packed.len;
        if (l->envelope) {
            memcpy(l->envelope, packed.at, packed.len);
            return l;
        }
    }
    payload_free(shard_payloads(k->c->shard), l);
    return NULL;
}

static void count_withheld(const struct composing *k) {
    static struct metric *const metrics[DSN_AUTO_KINDS] = {NULL, &withheld_feedback, &withheld_report, &withheld_auto,
                                                           &withheld_bulk};
    char id[BASE32_ID_LEN + 1];
    if (!metrics[k->withheld])
        return;
    metric_add(metrics[k->withheld], 1);
    base32_encode(k->c->id, id);
    LOG_INFO("report_withheld", LOG_STR("id", id),
             LOG_STR("kind", k->c->kind == SCHED_REPORT_DELAYED ? "delay" : "success"),
             LOG_STR("why", dsn_auto_name(k->withheld)));
}

static void done(void *arg) {
    struct composing *k = arg;
    count_withheld(k);
    struct shard *s = k->c->shard;
    Words__Envelope e;
    Words__Recipient r, *rs[1];
    struct payload *l = NULL;
    if (!k->problem) {
        fill_envelope(k, &e, &r, rs);
        if (r.destination.len)
            l = make_payload(k, &e);
        k->problem = l ? NULL : r.destination.len ? "no memory for the report" : "the return path has no domain";
    }
    if (l)
        metric_add(&metric_composed, 1);
    shard_composed(s, k->c->id, k->c->compose, l, l ? &e : NULL, l ? SPAN_EMPTY : span_of(k->problem),
                   scheduler_now(k->sc));
    composing_free(k);
}

void compose_start(void *arg, struct shard_compose *c) {
    struct scheduler *sc = arg;
    struct composing *k = calloc(1, sizeof *k);
    CHECK(k);
    *k = (struct composing){.sc = sc, .c = c, .now_ms = scheduler_now(sc)};
    k->texts = dsn_texts_ref(sc->texts);
    k->batv = batv_ref(sc->batv);
    k->hostname = strdup(sc->settings.hostname);
    k->postmaster = strdup(sc->settings.postmaster);
    CHECK(k->hostname && k->postmaster);
    arena_init(&k->mem, 4096, 0);
    buf_init(&k->text, REPORT_MAX);
    CHECK(scheduler_work(sc, work, done,
                         k)); /* bookkeeping of accepted mail: without memory, start anew from the store */
}
