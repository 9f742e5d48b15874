/*
 * server: the pump of the SMTP core: cuts command lines out of the input, runs the body through data.c, and
 * stops at each step that concerns the owner.
 *
 * Lines end at CRLF only. A bare LF or CR in a command is refused at once and ends the connection: whoever
 * sends one reads the dialogue in another way than we do. A line that is too long is thrown away up
 * to its CRLF in bounded memory, and answered there, so the dialogue stays in step.
 */
#include <stdlib.h>

#include "base/check.h"

#include "gateway/smtp/server_inner.h"

enum { FLUSH_AT = 16 * 1024, SKIP_MAX = 4 * 1024 * 1024, ARENA_BLOCK = 2048, REFUSALS_PER_ERROR = 5 };

void server_init(struct server *s, const struct server_settings *settings) {
    *s = (struct server){.settings = settings, .state = SERVER_START};
    arena_init(&s->mem, ARENA_BLOCK, SERVER_ARENA_MAX);
}

void server_deinit(struct server *s) {
    arena_deinit(&s->mem);
    free((char *)s->helo.at);
    free(s->owner_words);
    s->helo = SPAN_EMPTY;
    s->owner_words = NULL;
}

void server_use(struct server *s, const struct server_settings *settings) {
    CHECK(server_is_idle(s));
    s->settings = settings;
}

void server_greet(struct server *s, const struct server_reply *refusal, struct buf *out) {
    server_set_state(s, refusal ? SERVER_REFUSED : SERVER_HELLO);
    if (refusal)
        server_say_reply(out, refusal);
    else
        buf_add(out, s->settings->greeting);
}

void server_farewell(struct server *s, struct server_reply reply, struct buf *out) {
    server_say_reply(out, &reply);
    s->wait = SERVER_WAIT_NONE;
    s->farewell = reply.code;
    s->closing = true;
}

void server_drain(struct server *s) {
    s->draining = true;
}

static bool has_too_many_errors(const struct server *s) {
    uint32_t most = s->settings->config.commands_bad;
    return s->errors >= most || s->refusals / REFUSALS_PER_ERROR >= most;
}

/* -- command lines -- */

enum line { LINE_WAIT, LINE_WHOLE, LINE_BARE, LINE_LONG };

/* Finds the line at the start of `in`. *used: octets with the newline, or that may be thrown away. */
static enum line cut_line(const struct server *s, struct span in, struct span *line, size_t *used) {
    struct span window = span_first(in, COMMAND_LINE_MAX);
    const char *lf = window.len ? memchr(window.at, '\n', window.len) : NULL;
    size_t len = lf ? (size_t)(lf - window.at) : window.len;
    bool cr = len > 0 && window.at[len - 1] == '\r';
    *used = 0;
    *line = span_first(window, len - cr);
    if (lf && !cr && !s->settings->config.normalize)
        return LINE_BARE;
    if (lf) {
        *used = len + 1;
        return memchr(window.at, '\r', line->len) ? LINE_BARE : LINE_WHOLE;
    }
    if (window.len < COMMAND_LINE_MAX && !s->skipping)
        return LINE_WAIT;
    *used = len - cr; /* a CR at the end waits for its LF */
    return memchr(window.at, '\r', line->len) ? LINE_BARE : LINE_LONG;
}

static void say_bare(struct server *s, struct buf *out) {
    s->tally.syntax++;
    server_farewell(s, server_reply_make(500, "5.5.2", "bare CR or LF in a command"), out);
}

/* A piece of an overlong line. */
static void skip(struct server *s, size_t len, struct buf *out) {
    s->skipping = true;
    s->skipped += len;
    if (s->skipped > SKIP_MAX)
        server_farewell(s, server_reply_make(500, "5.5.2", "line without end"), out);
}

static void end_skip(struct server *s, struct buf *out, struct server_step *step) {
    if (s->in_auth) /* it was a response */
        step->kind = SERVER_STEP_CANCEL;
    s->skipping = s->in_auth = false;
    s->skipped = 0;
    s->errors++;
    s->tally.syntax++;
    server_say(out, 500, "5.5.2", "line too long");
}

/* True: something happened, go on. */
static bool next_command(struct server *s, struct span in, struct buf *out, struct server_step *step, size_t *used) {
    struct span line;
    switch (cut_line(s, in, &line, used)) {
    case LINE_WAIT:
        return false;
    case LINE_BARE:
        *used = in.len;
        say_bare(s, out);
        return true;
    case LINE_LONG:
        skip(s, *used, out);
        return *used > 0;
    case LINE_WHOLE:
        break;
    }
    if (s->skipping)
        end_skip(s, out, step);
    else if (s->in_auth)
        command_response(s, line, out, step);
    else
        command_run(s, line, out, step);
    return true;
}

/* -- bodies -- */

static void end_body(struct server *s, struct buf *out, struct server_step *step) {
    if (s->fault == SERVER_FAULT_NONE) {
        s->wait = SERVER_WAIT_END;
        step->kind = SERVER_STEP_END;
        return;
    }
    struct server_reply reply = server_fault_reply(s);
    server_say_reply(out, &reply);
    s->errors += s->fault != SERVER_FAULT_OWNER;
    if (s->fault == SERVER_FAULT_BARE) {
        s->farewell = reply.code;
        s->closing = true;
    }
    bool order = s->fault == SERVER_FAULT_ORDER;
    if (s->state == SERVER_DATA)
        server_set_state(s, SERVER_READY);
    else
        server_set_state(s, order ? s->chunk_back : SERVER_DEAD);
    s->tally.order += order;
    s->stale = s->stale || !order;
}

static void give_body(struct server *s, struct span body, struct server_step *step) {
    server_find_fault(s);
    if (s->fault != SERVER_FAULT_NONE)
        return;
    step->kind = SERVER_STEP_BODY;
    step->span = body;
}

/* A body that is refused is read to its end, so that the reply is read too; but not for ever. The measure is the octets
 * of the body from its first one, and the reply one for all faults, so that nothing depends on how they came. True: it
 * was too much. */
static bool give_up_body(struct server *s, struct buf *out) {
    if (s->fault == SERVER_FAULT_NONE || s->body_octets <= SERVER_BODY_TIMES * s->settings->config.message_size)
        return false;
    server_farewell(s, server_reply_make(552, "5.3.4", "message is over the size limit"), out);
    return true;
}

static bool next_data(struct server *s, struct span in, struct buf *out, struct server_step *step, size_t *used) {
    struct span body;
    enum data_event event = data_next(&s->data, in, false, used, &body);
    s->body_octets += *used;
    if (event == DATA_BODY)
        give_body(s, body, step);
    else
        server_find_fault(s);
    if (give_up_body(s, out))
        return true;
    if (event == DATA_END)
        end_body(s, out, step);
    return event != DATA_MORE || *used > 0;
}

static void end_chunk(struct server *s, struct buf *out, struct server_step *step) {
    char text[40] = "octets received: ";
    struct buf digits;
    if (s->fault == SERVER_FAULT_NONE && s->chunk_last) {
        struct span rest = data_finish(&s->data);
        if (rest.len) { /* then comes back here */
            give_body(s, rest, step);
            return;
        }
        server_find_fault(s);
    }
    if (s->fault != SERVER_FAULT_NONE || s->chunk_last) {
        end_body(s, out, step);
        return;
    }
    buf_init(&digits, sizeof text);
    buf_add_str(&digits, text);
    buf_add_u64(&digits, s->chunk_size);
    server_say_reply(out, &(struct server_reply){250, SPAN("2.0.0"), buf_span(&digits)});
    buf_deinit(&digits);
    server_set_state(s, SERVER_BDAT);
}

static bool next_chunk(struct server *s, struct span in, struct buf *out, struct server_step *step, size_t *used) {
    struct span body = SPAN_EMPTY;
    struct span octets = s->chunk_left < in.len ? span_first(in, (size_t)s->chunk_left) : in;
    enum data_event event = DATA_MORE;
    *used = octets.len;
    if (s->fault == SERVER_FAULT_NONE)
        event = data_next(&s->data, octets, octets.len == s->chunk_left, used, &body);
    s->chunk_left -= *used;
    s->body_octets += *used;
    if (event == DATA_BODY)
        give_body(s, body, step);
    else
        server_find_fault(s);
    if (give_up_body(s, out))
        return true;
    if (event != DATA_MORE || s->chunk_left > 0)
        return event != DATA_MORE || *used > 0;
    end_chunk(s, out, step);
    return true;
}

/* -- the pump -- */

/* What is due whatever the input says. True: the step is set. */
static bool next_due(struct server *s, struct buf *out, struct server_step *step) {
    if (s->abort_due) {
        s->abort_due = false;
        step->kind = SERVER_STEP_ABORT;
        return true;
    }
    if (s->stale)
        server_clear(s);
    if (!s->closing && s->wait == SERVER_WAIT_NONE && s->state != SERVER_CLOSED && has_too_many_errors(s) &&
        !server_is_reading_body(s))
        server_farewell(s, server_reply_make(421, "4.7.0", "too many errors"), out);
    if (s->closing || s->state == SERVER_CLOSED) {
        server_set_state(s, SERVER_CLOSED);
        step->kind = SERVER_STEP_CLOSE;
        return true;
    }
    if (s->wait != SERVER_WAIT_NONE) {
        step->kind = SERVER_STEP_ANSWER;
    } else if (s->begin_due) {
        s->begin_due = false;
        step->kind = SERVER_STEP_BEGIN;
    } else if (buf_len(out) >= FLUSH_AT) {
        step->kind = SERVER_STEP_FLUSH;
    }
    return step->kind != SERVER_STEP_INPUT;
}

void server_next(struct server *s, struct span in, struct buf *out, struct server_step *step) {
    *step = (struct server_step){.kind = SERVER_STEP_INPUT};
    CHECK(s->state != SERVER_START || s->closing);
    bool go_on = true;
    while (go_on && !next_due(s, out, step)) {
        struct span rest = span_from(in, step->used);
        size_t used = 0;
        if (s->state == SERVER_DATA)
            go_on = next_data(s, rest, out, step, &used);
        else if (s->state == SERVER_CHUNK)
            go_on = next_chunk(s, rest, out, step, &used);
        else
            go_on = next_command(s, rest, out, step, &used);
        step->used += used;
        go_on = go_on && step->kind == SERVER_STEP_INPUT;
    }
}

/* -- answers -- */

static void answer_mail(struct server *s, bool accepted) {
    s->open = accepted;
    if (accepted)
        server_set_state(s, SERVER_MAIL);
    else
        s->stale = true;
}

static void answer_rcpt(struct server *s, bool accepted, unsigned code) {
    if (!accepted) {
        s->tally.refused++;
        s->refusals += code >= 500;
        return;
    }
    s->rcpt_count++;
    if (s->state == SERVER_MAIL)
        server_set_state(s, SERVER_RCPT);
}

/* Questions about addresses are as dear as recipients: both find out who is here. */
static void answer_vrfy(struct server *s, unsigned code) {
    if (code < 500)
        return;
    s->tally.refused++;
    s->refusals++;
}

static void answer_end(struct server *s, bool accepted) {
    s->open = false;
    s->stale = true;
    if (accepted)
        s->errors = s->refusals = s->idle_commands = 0;
    server_set_state(s, SERVER_READY);
}

static void answer_helo(struct server *s, const struct server_reply *reply, struct buf *out) {
    if (reply->code < 300) {
        command_hello(s, out);
        return;
    }
    server_say_reply(out, reply);
    s->tally.refused++;
    s->errors += reply->code >= 500;
    command_forget(s);
}

static void answer_auth(struct server *s, unsigned code, struct buf *out) {
    command_auth_end(s, code);
    if (s->auth_failures >= SERVER_AUTH_TRIES)
        server_farewell(s, server_reply_make(421, "4.7.0", "too many failed logins"), out);
}

static void answer_xclient(struct server *s, const struct server_reply *reply, struct buf *out) {
    if (reply->code < 300) {
        command_forget(s);
        buf_add(out, s->settings->greeting);
        return;
    }
    server_say_reply(out, reply);
    s->errors++;
    s->tally.syntax++;
}

void server_answer(struct server *s, struct server_reply reply, struct buf *out) {
    bool accepted = reply.code < 300;
    enum server_wait wait = s->wait;
    CHECK(wait != SERVER_WAIT_NONE && wait != SERVER_WAIT_TLS);
    s->wait = SERVER_WAIT_NONE;
    if (wait == SERVER_WAIT_HELO || wait == SERVER_WAIT_DATA || wait == SERVER_WAIT_XCLIENT) {
        if (wait == SERVER_WAIT_HELO)
            answer_helo(s, &reply, out);
        else if (wait == SERVER_WAIT_DATA)
            command_begin(s, reply, out);
        else
            answer_xclient(s, &reply, out);
        return;
    }
    server_say_reply(out, &reply);
    if (wait == SERVER_WAIT_MAIL)
        answer_mail(s, accepted);
    else if (wait == SERVER_WAIT_RCPT)
        answer_rcpt(s, accepted, reply.code);
    else if (wait == SERVER_WAIT_VRFY)
        answer_vrfy(s, reply.code);
    else if (wait == SERVER_WAIT_END)
        answer_end(s, accepted);
    else if (wait == SERVER_WAIT_AUTH)
        answer_auth(s, reply.code, out);
}

void server_fail_body(struct server *s, struct server_reply reply) {
    CHECK(server_is_reading_body(s) && s->wait == SERVER_WAIT_NONE);
    s->open = false;
    s->stale = true;
    if (s->fault != SERVER_FAULT_NONE)
        return;
    server_take_fault(s, reply);
}
