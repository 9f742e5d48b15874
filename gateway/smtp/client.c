/*
 * client: the order of the dialogue (client.h). Every reply is handled by the one function of
 * its state; each returns the event to tell, or EV_MORE to go on reading.
 *
 * What is decided here: where the dialogue goes next, and that the server and we agree on where
 * it is. A reply that cannot be in its place ends the session: after it nobody knows which
 * command the next reply belongs to. What a reply means for a mail is decided elsewhere
 * (gateway/outbound/outcome.c).
 */
#include "gateway/smtp/client.h"
#include "base/base64.h"
#include "base/check.h"

enum { CLIENT_CHALLENGE_MAX = 8192, CLIENT_INTRODUCED_MAX = 4 * CLIENT_ATTRS_LINE_MAX };

const char *client_stage_name(enum client_stage stage) {
    static const char *const names[CLIENT_STAGES] = {
        [CLIENT_CONNECT] = "connecting", [CLIENT_GREETING] = "the greeting",
        [CLIENT_EHLO] = "EHLO",          [CLIENT_HELO] = "HELO",
        [CLIENT_STARTTLS] = "STARTTLS",  [CLIENT_SHAKING] = "the TLS handshake",
        [CLIENT_AUTH] = "AUTH",          [CLIENT_READY] = "waiting",
        [CLIENT_XCLIENT] = "XCLIENT",    [CLIENT_XFORWARD] = "XFORWARD",
        [CLIENT_MAIL] = "MAIL FROM",     [CLIENT_RCPT] = "RCPT TO",
        [CLIENT_DATA] = "DATA",          [CLIENT_BODY] = "sending the message",
        [CLIENT_DOT] = "end of data",    [CLIENT_DRAIN] = "an empty message",
        [CLIENT_RSET] = "RSET",          [CLIENT_QUIT] = "QUIT",
        [CLIENT_END] = "the end",
    };
    return stage < CLIENT_STAGES ? names[stage] : "?";
}

static void on_line(void *arg, uint32_t number, struct span text) {
    struct client *c = arg;
    if (c->ehlo_lines && number > 0) /* the first line is the server's name */
        client_ehlo_line(&c->ext, text);
}

void client_init(struct client *c, enum client_protocol protocol, const char *hostname) {
    c->protocol = protocol;
    c->state = CLIENT_GREETING;
    c->hostname = hostname;
    c->ext = (struct client_extensions){0};
    buf_init(&c->out, CLIENT_OUT_MAX);
    reply_init(&c->parser);
    c->parser.on_line = on_line;
    c->parser.arg = c;
    c->mail = NULL;
    c->next_rcpt = c->accepted = c->transactions = 0;
    c->announce = c->failed = c->ehlo_lines = c->secured = false;
    c->tls = CLIENT_TLS_NEVER;
    c->login = NULL;
    c->attrs = NULL;
    c->attrs_offered = c->attrs_group = 0;
    c->attrs_taken = c->attrs_bad = c->xclient_refused = c->xforward_refused = false;
    buf_init(&c->introduced, CLIENT_INTRODUCED_MAX);
    buf_init(&c->declined, CLIENT_INTRODUCED_MAX);
}

void client_deinit(struct client *c) {
    buf_deinit(&c->out);
    buf_deinit(&c->introduced);
    buf_deinit(&c->declined);
}

static enum client_answer classify(const struct reply *r) {
    switch (reply_class(r)) {
    case 2:
        return CLIENT_ANSWER_2;
    case 4:
        return r->code == 421 ? CLIENT_ANSWER_421 : CLIENT_ANSWER_4;
    case 5:
        return CLIENT_ANSWER_5;
    default:
        return CLIENT_ANSWER_BAD;
    }
}

/* -- leaving a state -- */

static enum client_event_kind become_ready(struct client *c) {
    c->state = CLIENT_READY;
    c->announce = true;
    c->mail = NULL;
    c->attrs = NULL;
    return CLIENT_EV_MORE;
}

static enum client_event_kind end(struct client *c) {
    c->state = CLIENT_END;
    return CLIENT_EV_END;
}

/* Ends the session with a QUIT whose reply nobody waits for. */
static enum client_event_kind leave(struct client *c) {
    buf_add(&c->out, SPAN("QUIT\r\n"));
    return end(c);
}

static void reset(struct client *c) {
    buf_add(&c->out, SPAN("RSET\r\n"));
    c->state = CLIENT_RSET;
}

static void set_accepted(struct client *c, uint32_t index) {
    c->accepted_bits[index / 64] |= UINT64_C(1) << (index % 64);
    c->accepted++;
}

static bool is_accepted(const struct client *c, uint32_t index) {
    return c->accepted_bits[index / 64] >> (index % 64) & 1;
}

/* -- the opening -- */

static void put_hello(struct client *c, const char *verb) {
    buf_add_str(&c->out, verb);
    buf_add_str(&c->out, c->hostname);
    buf_add(&c->out, SPAN("\r\n"));
}

/* The name of the client that we stand for, where it can be said. */
static void put_ehlo(struct client *c) {
    const char *verb = c->protocol == CLIENT_LMTP ? "LHLO " : "EHLO ";
    if (c->attrs && client_attrs_is_hello(c->attrs->helo))
        buf_printf(&c->out, "%s%.*s\r\n", verb, SPAN_FMT(c->attrs->helo));
    else
        put_hello(c, verb);
    c->ehlo_lines = true;
    c->state = CLIENT_EHLO;
}

static enum client_event_kind on_greeting(struct client *c, struct client_event *e) {
    if (e->answer != CLIENT_ANSWER_2)
        return e->answer == CLIENT_ANSWER_421 ? end(c) : leave(c);
    put_ehlo(c);
    return CLIENT_EV_MORE;
}

/* The session cannot go on for a reason that no reply told. */
static enum client_event_kind leave_at(struct client *c, enum client_stage stage, struct client_event *e) {
    e->stage = stage;
    e->answer = CLIENT_ANSWER_5;
    e->reply = NULL;
    return leave(c);
}

static enum client_event_kind begin_login(struct client *c, struct client_event *e) {
    if (!c->login || buf_len(&c->introduced))
        return become_ready(c);
    size_t before = buf_len(&c->out);
    buf_add(&c->out, SPAN("AUTH "));
    if (!c->login->begin(c->login, span_of(c->ext.auth), &c->out)) {
        buf_truncate(&c->out, before);
        return leave_at(c, CLIENT_AUTH, e);
    }
    buf_add(&c->out, SPAN("\r\n"));
    c->state = CLIENT_AUTH;
    return CLIENT_EV_MORE;
}

/* The server is known: TLS next, or the login, or mail. */
static enum client_event_kind after_hello(struct client *c, struct client_event *e) {
    if (c->secured || c->tls == CLIENT_TLS_NEVER)
        return begin_login(c, e);
    if (c->ext.starttls) {
        buf_add(&c->out, SPAN("STARTTLS\r\n"));
        c->state = CLIENT_STARTTLS;
        return CLIENT_EV_MORE;
    }
    return c->tls == CLIENT_TLS_MUST ? leave_at(c, CLIENT_STARTTLS, e) : begin_login(c, e);
}

static enum client_event_kind on_ehlo(struct client *c, struct client_event *e) {
    c->ehlo_lines = false;
    if (e->answer == CLIENT_ANSWER_2) {
        c->ext.esmtp = true;
        return after_hello(c, e);
    }
    c->ext = (struct client_extensions){0};
    if (c->protocol == CLIENT_SMTP && (e->reply->code == 500 || e->reply->code == 502)) {
        put_hello(c, "HELO ");
        c->state = CLIENT_HELO;
        return CLIENT_EV_MORE;
    }
    return e->answer == CLIENT_ANSWER_421 ? end(c) : leave(c);
}

static enum client_event_kind on_helo(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_2)
        return after_hello(c, e);
    return e->answer == CLIENT_ANSWER_421 ? end(c) : leave(c);
}

static enum client_event_kind on_starttls(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_2) {
        c->state = CLIENT_SHAKING;
        return CLIENT_EV_SECURE;
    }
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    return c->tls == CLIENT_TLS_MUST ? leave(c) : begin_login(c, e);
}

void client_secured(struct client *c) {
    CHECK(c->state == CLIENT_SHAKING || c->state == CLIENT_GREETING);
    c->secured = true;
    if (c->state == CLIENT_GREETING) /* TLS from the first octet on */
        return;
    c->ext = (struct client_extensions){0};
    put_ehlo(c);
}

/* 334: the decoded challenge goes to the login, and its answer back. */
static enum client_event_kind on_auth(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_2)
        return become_ready(c);
    if (e->reply->code != 334)
        return e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD ? end(c) : leave(c);
    struct buf challenge;
    struct span text = reply_text(e->reply);
    buf_init(&challenge, CLIENT_CHALLENGE_MAX);
    bool fine = base64_decode(span_trim(text), &challenge) == ERR_OK &&
                c->login->respond(c->login, buf_span(&challenge), &c->out);
    buf_deinit(&challenge);
    if (!fine)
        return leave_at(c, CLIENT_AUTH, e);
    buf_add(&c->out, SPAN("\r\n"));
    return CLIENT_EV_MORE;
}

/* -- XCLIENT -- */

/* All commands; with the attributes that the server took at first, so that nothing of an earlier client is left. */
static void render_introduction(uint32_t offered, const struct client_attrs *a, struct buf *to) {
    uint32_t group = 0;
    while (client_attrs_put(to, CLIENT_ATTRS_XCLIENT, offered, a, &group))
        continue;
}

enum client_speaks client_speaks_for(const struct client *c, const struct client_attrs *a) {
    struct buf wanted;
    bool own = buf_len(&c->introduced) == 0;
    if (!a || (own && (!c->ext.xclient || c->xclient_refused)))
        return own ? CLIENT_SPEAKS_PLAIN : CLIENT_SPEAKS_OTHER;
    buf_init(&wanted, CLIENT_INTRODUCED_MAX);
    render_introduction(c->attrs_offered, a, &wanted);
    bool same =
        !wanted.err && buf_len(&wanted) && span_eq(buf_span(&wanted), buf_span(own ? &c->declined : &c->introduced));
    buf_deinit(&wanted);
    if (same)
        return own ? CLIENT_SPEAKS_PLAIN : CLIENT_SPEAKS_FOR_IT;
    return c->ext.xclient && !c->xclient_refused ? CLIENT_SPEAKS_MAY_ASK : CLIENT_SPEAKS_OTHER;
}

void client_introduce(struct client *c, const struct client_attrs *a) {
    CHECK(c->state == CLIENT_READY && c->ext.xclient);
    c->attrs = a;
    if (!buf_len(&c->introduced))
        c->attrs_offered = c->ext.xclient;
    c->attrs_group = 0;
    c->attrs_taken = c->announce = false;
    c->attrs_bad = true;
    client_attrs_put(&c->out, CLIENT_ATTRS_XCLIENT, c->attrs_offered, a, &c->attrs_group);
    c->state = CLIENT_XCLIENT;
}

/* Nothing was taken. Where the values were at fault, the next client may fare better: no stranger is to bring it about
 * that others pass for us. */
static enum client_event_kind go_on_plain(struct client *c) {
    buf_clear(&c->declined);
    if (c->attrs_bad)
        render_introduction(c->attrs_offered, c->attrs, &c->declined);
    c->xclient_refused = !c->attrs_bad || c->declined.err;
    return become_ready(c);
}

/* Each accepted command has begun the session anew; the last one is followed by EHLO. A session that stood for
 * another client is no good when one is refused: some of that other's attributes may still hold. */
static enum client_event_kind on_xclient(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    bool taken = e->answer == CLIENT_ANSWER_2;
    c->xclient_refused |= !taken;
    c->attrs_bad &= taken || e->reply->code == 501;
    if (!taken && buf_len(&c->introduced))
        return leave(c);
    c->attrs_taken |= taken;
    if (client_attrs_put(&c->out, CLIENT_ATTRS_XCLIENT, c->attrs_offered, c->attrs, &c->attrs_group))
        return CLIENT_EV_MORE;
    if (!c->attrs_taken)
        return go_on_plain(c);
    buf_clear(&c->introduced);
    render_introduction(c->attrs_offered, c->attrs, &c->introduced);
    if (c->introduced.err)
        return end(c);
    c->ext = (struct client_extensions){0};
    put_ehlo(c);
    return CLIENT_EV_MORE;
}

/* -- the transaction -- */

/* Puts the commands that may go now: all of the envelope when pipelining, else one. */
static int put_envelope(struct client *c, const struct client_mail *m) {
    int err = client_put_mail(&c->out, &c->ext, m);
    for (uint32_t i = 0; err == ERR_OK && i < m->count; i++) {
        if (c->ext.pipelining) {
            err = client_put_rcpt(&c->out, &c->ext, m, &m->recipients[i]);
        } else { /* only to find a bad address before MAIL is sent */
            size_t len = buf_len(&c->out);
            err = client_put_rcpt(&c->out, &c->ext, m, &m->recipients[i]);
            if (err == ERR_OK)
                buf_truncate(&c->out, len);
        }
    }
    if (err == ERR_OK && c->ext.pipelining && !m->probe)
        err = buf_add(&c->out, SPAN("DATA\r\n"));
    return err;
}

int client_begin(struct client *c, const struct client_mail *m) {
    CHECK(c->state == CLIENT_READY && m->count >= 1 && m->count <= CLIENT_RCPT_MAX);
    size_t before = buf_len(&c->out);
    int err = put_envelope(c, m);
    if (err != ERR_OK) {
        buf_truncate(&c->out, before);
        c->out.err = ERR_OK;
        return err;
    }
    c->mail = m;
    c->state = CLIENT_MAIL;
    if (m->forward && c->ext.xforward && !c->xforward_refused) { /* the envelope was only tried */
        buf_truncate(&c->out, before);
        c->attrs_group = 0;
        client_attrs_put(&c->out, CLIENT_ATTRS_XFORWARD, c->ext.xforward, m->forward, &c->attrs_group);
        c->state = CLIENT_XFORWARD;
    }
    c->announce = c->failed = false;
    c->next_rcpt = c->accepted = 0;
    c->transactions++;
    memset(c->accepted_bits, 0, (m->count + 63) / 64 * sizeof *c->accepted_bits);
    return ERR_OK;
}

/* Mail goes on without what the server does not take. */
static enum client_event_kind on_xforward(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    c->xforward_refused |= e->answer != CLIENT_ANSWER_2;
    if (!c->xforward_refused &&
        client_attrs_put(&c->out, CLIENT_ATTRS_XFORWARD, c->ext.xforward, c->mail->forward, &c->attrs_group))
        return CLIENT_EV_MORE;
    int err = put_envelope(c, c->mail);
    CHECK(err != ERR_INVALID); /* tried in client_begin; any other error shows in out.err */
    c->state = CLIENT_MAIL;
    return CLIENT_EV_MORE;
}

static void put_next_rcpt(struct client *c) {
    int err = client_put_rcpt(&c->out, &c->ext, c->mail, &c->mail->recipients[c->next_rcpt]);
    CHECK(err != ERR_INVALID); /* tried in put_envelope; any other error shows in out.err */
}

static enum client_event_kind on_mail(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    c->state = CLIENT_RCPT;
    if (e->answer == CLIENT_ANSWER_2) {
        if (!c->ext.pipelining)
            put_next_rcpt(c);
        return CLIENT_EV_MORE;
    }
    c->failed = true;
    if (!c->ext.pipelining)
        become_ready(c); /* a refused MAIL opened nothing */
    return CLIENT_EV_ALL;
}

/* After the last recipient's reply, where DATA has not been sent with them. */
static void after_recipients(struct client *c) {
    if (c->accepted > 0 && !c->mail->probe) {
        buf_add(&c->out, SPAN("DATA\r\n"));
        c->state = CLIENT_DATA;
    } else {
        reset(c);
    }
}

/* A server that takes no more recipients says 552 (RFC 821) or 452 (RFC 5321 section 4.5.3.1.10). A 452
 * whose enhanced code speaks of something else is about this recipient. */
static bool is_too_many(const struct client *c, const struct reply *r) {
    if (c->accepted == 0)
        return false;
    return r->code == 552 || (r->code == 452 && (!r->enhanced[0] || span_eq(span_of(r->enhanced), SPAN("4.5.3"))));
}

static enum client_event_kind on_rcpt(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    enum client_event_kind kind = CLIENT_EV_MORE;
    e->index = c->next_rcpt++;
    if (e->answer == CLIENT_ANSWER_2)
        set_accepted(c, e->index);
    else if (!c->failed)
        kind = is_too_many(c, e->reply) ? CLIENT_EV_LATER : CLIENT_EV_RECIPIENT;
    if (c->mail->probe && !c->failed && kind == CLIENT_EV_MORE)
        kind = CLIENT_EV_RECIPIENT;
    if (c->next_rcpt < c->mail->count) {
        if (!c->ext.pipelining)
            put_next_rcpt(c);
    } else if (c->ext.pipelining && !c->mail->probe) {
        c->state = CLIENT_DATA;
    } else {
        after_recipients(c);
    }
    return kind;
}

/* 354 though nobody was accepted: RFC 2920 section 3.1 has us send an empty message. */
static enum client_event_kind drain(struct client *c) {
    if (c->accepted > 0) /* MAIL was refused and yet a RCPT accepted: an empty message could be delivered */
        return end(c);
    buf_add(&c->out, SPAN(".\r\n"));
    if (c->protocol == CLIENT_LMTP)
        reset(c); /* no recipients, no replies to the dot */
    else
        c->state = CLIENT_DRAIN;
    return CLIENT_EV_MORE;
}

static enum client_event_kind on_data(struct client *c, struct client_event *e) {
    bool go = reply_class(e->reply) == 3;
    if (e->answer == CLIENT_ANSWER_421 || (e->answer == CLIENT_ANSWER_BAD && !go) || e->answer == CLIENT_ANSWER_2)
        return end(c);
    bool nobody = c->failed || c->accepted == 0;
    if (go && nobody)
        return drain(c);
    if (go) {
        c->state = CLIENT_BODY;
        return CLIENT_EV_BODY;
    }
    reset(c);
    return nobody ? CLIENT_EV_MORE : CLIENT_EV_ALL;
}

/* A reply while the body goes out: the server has given up on it, the stream cannot be mended. */
static enum client_event_kind on_early(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_2)
        e->answer = CLIENT_ANSWER_BAD;
    return end(c);
}

/* Index of the next accepted recipient at or after `from`, or count. */
static uint32_t next_accepted(const struct client *c, uint32_t from) {
    while (from < c->mail->count && !is_accepted(c, from))
        from++;
    return from;
}

static enum client_event_kind on_dot(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    if (c->protocol == CLIENT_SMTP) {
        become_ready(c);
        return CLIENT_EV_ALL;
    }
    e->index = next_accepted(c, c->next_rcpt);
    c->next_rcpt = e->index + 1;
    if (next_accepted(c, c->next_rcpt) == c->mail->count)
        become_ready(c);
    return CLIENT_EV_RECIPIENT;
}

void client_body_sent(struct client *c) {
    CHECK(c->state == CLIENT_BODY);
    c->state = CLIENT_DOT;
    c->next_rcpt = 0; /* LMTP: from here on the recipient whose reply to the dot is due */
}

static enum client_event_kind on_drain(struct client *c, struct client_event *e) {
    if (e->answer == CLIENT_ANSWER_421 || e->answer == CLIENT_ANSWER_BAD)
        return end(c);
    reset(c);
    return CLIENT_EV_MORE;
}

static enum client_event_kind on_rset(struct client *c, struct client_event *e) {
    return e->answer == CLIENT_ANSWER_2 ? become_ready(c) : end(c);
}

/* An unasked reply between transactions (421 as a rule), or the reply to QUIT. */
static enum client_event_kind on_other(struct client *c, struct client_event *e) {
    (void)e;
    return end(c);
}

static enum client_event_kind on_reply(struct client *c, struct client_event *e) {
    static enum client_event_kind (*const handlers[CLIENT_STAGES])(struct client *, struct client_event *) = {
        [CLIENT_CONNECT] = on_other,     [CLIENT_GREETING] = on_greeting, [CLIENT_EHLO] = on_ehlo,
        [CLIENT_HELO] = on_helo,         [CLIENT_STARTTLS] = on_starttls, [CLIENT_SHAKING] = on_other,
        [CLIENT_AUTH] = on_auth,         [CLIENT_READY] = on_other,       [CLIENT_XCLIENT] = on_xclient,
        [CLIENT_XFORWARD] = on_xforward, [CLIENT_MAIL] = on_mail,         [CLIENT_RCPT] = on_rcpt,
        [CLIENT_DATA] = on_data,         [CLIENT_BODY] = on_early,        [CLIENT_DOT] = on_dot,
        [CLIENT_DRAIN] = on_drain,       [CLIENT_RSET] = on_rset,         [CLIENT_QUIT] = on_other,
        [CLIENT_END] = on_other,
    };
    e->answer = classify(e->reply);
    return handlers[e->stage](c, e);
}

void client_next(struct client *c, struct span *in, struct client_event *e) {
    *e = (struct client_event){.stage = c->state};
    while (c->state != CLIENT_END) {
        if (c->announce) {
            c->announce = false;
            e->kind = CLIENT_EV_READY;
            return;
        }
        if (!in->len)
            return;
        enum reply_status status;
        *in = span_from(*in, reply_feed(&c->parser, *in, &status));
        if (status == REPLY_MORE)
            return;
        e->stage = c->state;
        e->reply = &c->parser.reply;
        if (status == REPLY_BROKEN) {
            e->answer = CLIENT_ANSWER_NONE;
            e->kind = end(c);
            return;
        }
        e->kind = on_reply(c, e);
        if (e->kind != CLIENT_EV_MORE)
            return;
        e->reply = NULL;
    }
    if (c->state == CLIENT_END)
        e->kind = CLIENT_EV_END;
}

void client_quit(struct client *c) {
    CHECK(c->state == CLIENT_READY);
    buf_add(&c->out, SPAN("QUIT\r\n"));
    c->state = CLIENT_QUIT;
    c->announce = false;
}
