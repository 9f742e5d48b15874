/*
 * command_auth: STARTTLS, AUTH and XCLIENT: the commands that change who the client is.
 *
 * AUTH (RFC 4954) only carries octets here: the line is checked, base64 is taken off, and the owner runs the mechanism.
 * PLAIN and LOGIN are refused outside TLS before the owner hears of them, because the password has then already been
 * seen by others and must not be found to be right.
 */
#include "base/base64.h"

#include "gateway/smtp/server_inner.h"

enum { RESPONSE_MAX = 12288 };

static void refuse(struct server *s, uint32_t *tally, unsigned code, const char *enhanced, const char *text,
                   struct buf *out) {
    server_say(out, code, enhanced, text);
    s->errors++;
    ++*tally;
}

/* -- STARTTLS (RFC 3207) -- */

void command_starttls(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)args;
    if (s->tls) {
        refuse(s, &s->tally.order, 503, "5.5.1", "TLS is on already", out);
        return;
    }
    server_say(out, 220, "2.0.0", "ready for TLS");
    server_abort(s);
    s->wait = SERVER_WAIT_TLS;
    step->kind = SERVER_STEP_STARTTLS;
}

void server_secured(struct server *s, struct span mechanisms) {
    s->wait = SERVER_WAIT_NONE;
    command_forget(s);
    s->tls = true;
    s->authenticated = false;
    s->mechanisms = mechanisms;
}

/* -- AUTH (RFC 4954) -- */

static bool is_offered(const struct server *s, struct span mechanism) {
    struct span rest = s->mechanisms;
    while (rest.len) {
        if (span_eq_nocase(span_cut(rest, ' ', &rest), mechanism))
            return true;
    }
    return false;
}

/* A base64 text as octets in the arena; "=" is the empty response where an initial one is meant. */
static int decode(struct server *s, struct span text, struct span *octets) {
    struct buf b;
    buf_init(&b, RESPONSE_MAX);
    int err = base64_decode(text, &b);
    *octets = err ? SPAN_EMPTY : arena_dup(&s->mem, buf_len(&b) ? buf_span(&b) : SPAN(""));
    buf_deinit(&b);
    return err ? ERR_INVALID : octets->at ? ERR_OK : ERR_NOMEM;
}

static void refuse_base64(struct server *s, int err, struct buf *out) {
    s->in_auth = false;
    s->stale = true;
    if (err == ERR_NOMEM)
        server_say(out, 454, "4.7.0", "out of memory");
    else
        refuse(s, &s->tally.syntax, 501, "5.5.2", "that is not base64", out);
}

static bool may_begin(struct server *s, struct span mechanism, struct buf *out) {
    bool plain = span_eq_nocase(mechanism, SPAN("PLAIN")) || span_eq_nocase(mechanism, SPAN("LOGIN"));
    if (s->authenticated)
        refuse(s, &s->tally.order, 503, "5.5.1", "you are authenticated already", out);
    else if (!s->esmtp)
        refuse(s, &s->tally.order, 503, "5.5.1", "say EHLO first", out);
    else if (s->settings->config.tls_required && !s->tls)
        refuse(s, &s->tally.order, 530, "5.7.0", "say STARTTLS first", out);
    else if (plain && !s->tls)
        refuse(s, &s->tally.refused, 538, "5.7.11", "encryption is needed for this mechanism", out);
    else if (!is_offered(s, mechanism))
        refuse(s, &s->tally.unknown, 504, "5.5.4", "mechanism not offered", out);
    else
        return true;
    return false;
}

void command_auth(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    struct span initial;
    bool has_initial = span_find(args, ' ') >= 0;
    struct span mechanism = span_cut(args, ' ', &initial);
    s->auth = (struct server_auth){0};
    if (!may_begin(s, mechanism, out))
        return;
    initial = span_trim(initial);
    s->auth.mechanism = arena_dup(&s->mem, mechanism);
    int err = s->auth.mechanism.at ? ERR_OK : ERR_NOMEM;
    if (!err && has_initial)
        err = decode(s, span_eq(initial, SPAN("=")) ? SPAN_EMPTY : initial, &s->auth.initial);
    if (err) {
        refuse_base64(s, err, out);
        return;
    }
    s->wait = SERVER_WAIT_AUTH;
    step->kind = SERVER_STEP_AUTH;
}

void server_challenge(struct server *s, struct span text, struct buf *out) {
    s->wait = SERVER_WAIT_NONE;
    s->in_auth = s->stale = true;
    buf_add_str(out, "334 ");
    base64_encode(text, out);
    buf_append(out, "\r\n", 2);
}

void command_response(struct server *s, struct span line, struct buf *out, struct server_step *step) {
    struct span octets;
    step->kind = SERVER_STEP_CANCEL;
    if (span_eq(line, SPAN("*"))) {
        s->in_auth = false;
        refuse(s, &s->tally.refused, 501, "5.0.0", "authentication canceled", out);
        return;
    }
    int err = decode(s, line, &octets);
    if (err) {
        refuse_base64(s, err, out);
        return;
    }
    s->in_auth = false;
    s->wait = SERVER_WAIT_AUTH;
    step->kind = SERVER_STEP_RESPONSE;
    step->span = octets;
}

void command_auth_end(struct server *s, unsigned code) {
    s->in_auth = false;
    s->stale = true;
    s->auth = (struct server_auth){0};
    s->authenticated = code == 235;
    if (code < 500)
        return;
    s->errors++;
    s->tally.refused++;
    if (code == 535)
        s->auth_failures++;
}

bool command_must_wait(const struct server *s, struct server_reply *why) {
    const struct server_config *c = &s->settings->config;
    if (c->tls_required && !s->tls)
        *why = server_reply_make(530, "5.7.0", "say STARTTLS first");
    else if (c->auth_required && !s->authenticated)
        *why = server_reply_make(530, "5.7.0", "authentication is required");
    else
        return false;
    return true;
}

/* -- XCLIENT (Postfix) -- */

void command_xclient(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    if (!s->xclient) {
        refuse(s, &s->tally.refused, 550, "5.7.0", "not for you", out);
        return;
    }
    s->wait = SERVER_WAIT_XCLIENT;
    step->kind = SERVER_STEP_XCLIENT;
    step->span = args;
}
