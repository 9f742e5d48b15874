/*
 * smtp_transcript: an owner for the SMTP server core that writes down what happens: replies as "S: …",
 * steps as "[MAIL a@b.example]", bodies joined. For unit tests and fuzzers. The input can be cut anywhere; the
 * transcript must not depend on it.
 *
 * It refuses recipients whose local part is "unknown" (550) or "later" (451), senders "refused", and messages that
 * hold the word REJECT (554).
 */
#ifndef TESTS_SUPPORT_SMTP_TRANSCRIPT_H
#define TESTS_SUPPORT_SMTP_TRANSCRIPT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "gateway/smtp/server.h"

struct transcript {
    struct server server;
    struct buf in, out, text, body, last_body;
    bool in_body, closed;
    unsigned accepted, steps_without_use;
};

static inline void transcript_config(struct server_config *c) {
    *c = (struct server_config){.hostname = "mx.example",
                                .message_size = 100000,
                                .recipients = 100,
                                .received_headers = 50,
                                .commands_bad = 20,
                                .extensions = SERVER_EXT_BASIC,
                                .release_max_ms = 86400000};
}

static inline void transcript_open(struct transcript *t, const struct server_settings *settings, bool refuse) {
    memset(t, 0, sizeof *t);
    server_init(&t->server, settings);
    buf_init(&t->in, 1u << 24);
    buf_init(&t->out, SERVER_OUT_MAX);
    buf_init(&t->text, 1u << 24);
    buf_init(&t->body, 1u << 24);
    buf_init(&t->last_body, 1u << 24);
    struct server_reply refusal = {554, SPAN_EMPTY, SPAN("no mail service for you here")};
    server_greet(&t->server, refuse ? &refusal : NULL, &t->out);
}

static inline void transcript_close(struct transcript *t) {
    server_deinit(&t->server);
    buf_deinit(&t->in);
    buf_deinit(&t->out);
    buf_deinit(&t->text);
    buf_deinit(&t->body);
    buf_deinit(&t->last_body);
}

static inline void transcript_flush(struct transcript *t) {
    CHECK(t->out.err == ERR_OK);
    struct span out = buf_span(&t->out);
    CHECK(out.len == 0 || (out.len >= 2 && memcmp(out.at + out.len - 2, "\r\n", 2) == 0));
    while (out.len) {
        struct span rest;
        struct span line = span_cut(out, '\r', &rest);
        buf_printf(&t->text, "S: %.*s\n", SPAN_FMT(line));
        out = span_from(rest, 1);
    }
    buf_clear(&t->out);
}

static inline struct server_reply transcript_reply(unsigned code, const char *enhanced, const char *text) {
    return (struct server_reply){(uint16_t)code, span_of(enhanced), span_of(text)};
}

static inline struct server_reply transcript_judge(const struct address *a) {
    if (span_eq(a->key, SPAN("unknown")))
        return transcript_reply(550, "5.1.1", "unknown");
    if (span_eq(a->key, SPAN("later")))
        return transcript_reply(451, "4.3.0", "later");
    return transcript_reply(250, "2.1.5", "ok");
}

static inline struct server_reply transcript_judge_name(struct span name) {
    return span_eq(name, SPAN("refused.example")) ? transcript_reply(550, "5.7.1", "not you")
                                                  : transcript_reply(250, "", "");
}

static inline struct server_reply transcript_judge_login(struct span response) {
    return span_ends_nocase(response, SPAN("good")) ? transcript_reply(235, "2.7.0", "welcome")
                                                    : transcript_reply(535, "5.7.8", "no");
}

static inline void transcript_end(struct transcript *t) {
    const struct data *d = &t->server.data;
    struct span body = buf_span(&t->body);
    CHECK(body.len == d->size);
    bool refuse = body.len && memmem(body.at, body.len, "REJECT", 6);
    buf_printf(&t->text, "[END %zu%s hops=%u]\n", body.len, d->eight_bit ? " 8bit" : "", d->received);
    buf_clear(&t->last_body);
    buf_add(&t->last_body, body);
    buf_add_escaped(&t->text, body);
    buf_add_byte(&t->text, '\n');
    t->accepted += !refuse;
    t->in_body = false;
    server_answer(&t->server,
                  refuse ? transcript_reply(554, "5.7.1", "refused") : transcript_reply(250, "2.0.0", "stored"),
                  &t->out);
}

/* One step; false: no more input can be used now. */
static inline bool transcript_step(struct transcript *t) {
    struct server *s = &t->server;
    struct server_step step;
    struct span in = buf_span(&t->in);
    server_next(s, in, &t->out, &step);
    CHECK(step.used <= in.len);
    CHECK(s->mem.used <= SERVER_ARENA_MAX);
    if (step.kind == SERVER_STEP_BODY)
        buf_add(&t->body, step.span);
    transcript_flush(t);
    switch (step.kind) {
    case SERVER_STEP_INPUT:
        buf_consume(&t->in, step.used);
        return false;
    case SERVER_STEP_MAIL:
        buf_printf(&t->text, "[MAIL %.*s size=%llu%s]\n", SPAN_FMT(s->mail.sender.text),
                   (unsigned long long)s->mail.size, s->mail.smtputf8 ? " utf8" : "");
        if (span_eq(s->mail.sender.key, SPAN("refused")))
            server_answer(s, transcript_reply(550, "5.7.1", "no"), &t->out);
        else
            server_answer(s, transcript_reply(250, "2.1.0", "ok"), &t->out);
        break;
    case SERVER_STEP_RCPT:
        buf_printf(&t->text, "[RCPT %.*s notify=%u orcpt=%.*s]\n", SPAN_FMT(s->rcpt.address.text), s->rcpt.notify,
                   SPAN_FMT(s->rcpt.orcpt));
        server_answer(s, transcript_judge(&s->rcpt.address), &t->out);
        break;
    case SERVER_STEP_VRFY:
        buf_printf(&t->text, "[VRFY %.*s]\n", SPAN_FMT(step.span));
        server_answer(s, transcript_reply(250, "2.1.5", "known"), &t->out);
        break;
    case SERVER_STEP_HELO:
        buf_printf(&t->text, "[HELO %.*s]\n", SPAN_FMT(step.span));
        server_answer(s, transcript_judge_name(step.span), &t->out);
        break;
    case SERVER_STEP_DATA:
        buf_add_str(&t->text, "[DATA]\n");
        server_answer(s,
                      span_eq(s->mail.sender.key, SPAN("nodata")) ? transcript_reply(451, "4.7.1", "not now")
                                                                  : transcript_reply(354, "", ""),
                      &t->out);
        break;
    case SERVER_STEP_STARTTLS:
        buf_printf(&t->text, "[TLS]\n");
        server_secured(s, SPAN("PLAIN LOGIN"));
        break;
    case SERVER_STEP_AUTH:
        buf_printf(&t->text, "[AUTH %.*s%s%.*s]\n", SPAN_FMT(s->auth.mechanism), s->auth.initial.at ? " " : "",
                   SPAN_FMT(s->auth.initial));
        if (s->auth.initial.at)
            server_answer(s, transcript_judge_login(s->auth.initial), &t->out);
        else
            server_challenge(s, SPAN("who?"), &t->out);
        break;
    case SERVER_STEP_RESPONSE:
        buf_printf(&t->text, "[RESPONSE %.*s]\n", SPAN_FMT(step.span));
        server_answer(s, transcript_judge_login(step.span), &t->out);
        break;
    case SERVER_STEP_CANCEL:
        buf_add_str(&t->text, "[CANCEL]\n");
        break;
    case SERVER_STEP_XCLIENT:
        buf_printf(&t->text, "[XCLIENT %.*s]\n", SPAN_FMT(step.span));
        server_answer(s,
                      span_find(step.span, '=') > 0 ? transcript_reply(220, "", "")
                                                    : transcript_reply(501, "5.5.4", "bad attributes"),
                      &t->out);
        break;
    case SERVER_STEP_BEGIN:
        CHECK(!t->in_body && s->rcpt_count > 0);
        t->in_body = true;
        buf_clear(&t->body);
        break;
    case SERVER_STEP_BODY:
        CHECK(t->in_body);
        break;
    case SERVER_STEP_END:
        CHECK(t->in_body);
        transcript_end(t);
        break;
    case SERVER_STEP_ABORT:
        t->in_body = false;
        buf_add_str(&t->text, "[ABORT]\n");
        break;
    case SERVER_STEP_CLOSE:
        buf_add_str(&t->text, "[CLOSE]\n");
        t->closed = true;
        break;
    case SERVER_STEP_FLUSH:
        break;
    case SERVER_STEP_ANSWER:
        CHECK(!"an answer is owed and none is due");
    }
    buf_consume(&t->in, step.used);
    /* Steps that use nothing must lead to one that does. */
    t->steps_without_use = step.used ? 0 : t->steps_without_use + 1;
    CHECK(t->steps_without_use < 16);
    return !t->closed;
}

static inline void transcript_feed(struct transcript *t, struct span bytes) {
    if (t->closed)
        return;
    buf_add(&t->in, bytes);
    while (transcript_step(t)) {
    }
    transcript_flush(t);
    t->steps_without_use = 0;
}

#endif
