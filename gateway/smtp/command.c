/*
 * command: the commands of SMTP in one table, and the short ones of them.
 *
 * A command line is checked against its row first (known, length, state, arguments) and run only when
 * that holds; so a command out of order changes nothing. STARTTLS and AUTH have rows, so that they are
 * known but not implemented: they are not offered by EHLO and answered 502.
 */
#include <stdlib.h>

#include "gateway/smtp/server_inner.h"

typedef void (*run_cb)(struct server *s, struct span args, struct buf *out, struct server_step *step);
enum args { ARGS_NONE, ARGS_ANY, ARGS_NEEDED };
struct command {
    const char *name;
    run_cb run; /* NULL: not implemented */
    enum args args;
    uint16_t states;   /* where it is allowed */
    uint16_t line_max; /* octets with CRLF: 512 and what extensions add */
};

#define IN(state) (1u << (state))
#define GREETED                                                                                                        \
    (IN(SERVER_HELLO) | IN(SERVER_READY) | IN(SERVER_MAIL) | IN(SERVER_RCPT) | IN(SERVER_BDAT) | IN(SERVER_DEAD))

static void count_error(struct server *s, uint32_t *tally) {
    s->errors++;
    ++*tally;
}

/* A transaction that may be there ends, and HELO is behind us. */
static void reset(struct server *s) {
    server_abort(s);
    if (s->state != SERVER_HELLO)
        server_set_state(s, SERVER_READY);
}

/* Printable and without spaces; what else it may be is for Received to make harmless. */
static bool is_helo_name(struct span name) {
    for (size_t i = 0; i < name.len; i++) {
        if (name.at[i] <= 0x20 || name.at[i] >= 0x7f)
            return false;
    }
    return name.len > 0 && name.len <= ADDRESS_DOMAIN_MAX;
}

static bool take_helo(struct server *s, struct span name, struct buf *out) {
    if (!is_helo_name(name)) {
        server_say(out, 501, "5.5.4", "give the name of your host");
        count_error(s, &s->tally.syntax);
        return false;
    }
    char *copy = malloc(name.len);
    if (!copy) {
        server_say(out, 451, "4.3.0", "out of memory");
        return false;
    }
    memcpy(copy, name.at, name.len);
    free((char *)s->helo.at);
    s->helo = span_make(copy, name.len);
    server_abort(s);
    server_set_state(s, SERVER_READY);
    return true;
}

static void run_ehlo(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)step;
    if (!take_helo(s, args, out))
        return;
    s->esmtp = true;
    buf_add(out, s->settings->ehlo);
}

static void run_helo(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)step;
    if (!take_helo(s, args, out))
        return;
    s->esmtp = false;
    server_say_reply(out, &(struct server_reply){250, SPAN_EMPTY, s->settings->hostname});
}

static void run_data(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)args;
    server_set_state(s, SERVER_DATA);
    data_init(&s->data, DATA_DOTS, s->settings->config.normalize);
    s->fault = SERVER_FAULT_NONE;
    server_say(out, 354, "", "end with CRLF.CRLF");
    step->kind = SERVER_STEP_BEGIN;
}

/* "SIZE" or "SIZE LAST". */
static bool parse_chunk(struct span args, uint64_t *size, bool *last) {
    struct span rest;
    struct span number = span_cut(args, ' ', &rest);
    rest = span_trim(rest);
    *last = rest.len > 0;
    return span_u64(number, size) && *size <= INT64_MAX && (rest.len == 0 || span_eq_nocase(rest, SPAN("LAST")));
}

static void refuse_chunk(struct server *s, struct buf *out) {
    server_say(out, 501, "5.5.4", "expected BDAT SIZE [LAST]");
    count_error(s, &s->tally.syntax);
    if (s->state == SERVER_HELLO || s->state == SERVER_READY || s->state == SERVER_DEAD)
        return;
    server_abort(s);
    server_set_state(s, SERVER_DEAD);
}

/* The octets follow whatever we think of the command, so they are always read to their end. */
static void run_bdat(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    enum server_state before = s->state;
    if (!parse_chunk(args, &s->chunk_size, &s->chunk_last)) {
        refuse_chunk(s, out);
        return;
    }
    s->chunk_left = s->chunk_size;
    if (before != SERVER_RCPT && before != SERVER_BDAT) {
        s->fault = SERVER_FAULT_ORDER;
        /* A later chunk must not become a message that lacks this one. */
        s->chunk_back = before == SERVER_MAIL ? SERVER_DEAD : before;
        if (before == SERVER_MAIL)
            server_abort(s);
        server_set_state(s, SERVER_CHUNK);
        return;
    }
    server_set_state(s, SERVER_CHUNK);
    if (before == SERVER_RCPT) {
        data_init(&s->data, DATA_OCTETS, s->settings->config.normalize);
        s->fault = SERVER_FAULT_NONE;
        step->kind = SERVER_STEP_BEGIN;
    }
    if (s->chunk_size > s->settings->config.message_size - s->data.size) {
        s->fault = SERVER_FAULT_SIZE;
        server_abort(s);
        step->kind = SERVER_STEP_INPUT;
    }
}

static void run_rset(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)args;
    (void)step;
    reset(s);
    server_say(out, 250, "2.0.0", "ok");
}

static void run_noop(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)s;
    (void)args;
    (void)step;
    server_say(out, 250, "2.0.0", "ok");
}

static void run_vrfy(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    if (!s->settings->config.vrfy) {
        server_say(out, 252, "2.0.0", "send some mail, I will try");
        return;
    }
    s->wait = SERVER_WAIT_VRFY;
    step->kind = SERVER_STEP_VRFY;
    step->span = args;
}

static void run_help(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)s;
    (void)args;
    (void)step;
    server_say(out, 214, "2.0.0", "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT; see RFC 5321");
}

static void run_quit(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)args;
    (void)step;
    server_farewell(s, server_reply_make(221, "2.0.0", "bye"), out);
}

static const struct command commands[] = {
    {"MAIL", command_mail, ARGS_NEEDED, IN(SERVER_READY), COMMAND_LINE_MAX},
    {"RCPT", command_rcpt, ARGS_NEEDED, IN(SERVER_MAIL) | IN(SERVER_RCPT), COMMAND_LINE_MAX},
    {"DATA", run_data, ARGS_NONE, IN(SERVER_RCPT), 512},
    {"BDAT", run_bdat, ARGS_ANY, GREETED, 512},
    {"EHLO", run_ehlo, ARGS_NEEDED, GREETED, 512},
    {"HELO", run_helo, ARGS_NEEDED, GREETED, 512},
    {"RSET", run_rset, ARGS_NONE, GREETED, 512},
    {"NOOP", run_noop, ARGS_ANY, GREETED, 512},
    {"QUIT", run_quit, ARGS_NONE, GREETED | IN(SERVER_REFUSED), 512},
    {"VRFY", run_vrfy, ARGS_NEEDED, GREETED, COMMAND_LINE_MAX},
    {"HELP", run_help, ARGS_ANY, GREETED, 512},
    {"STARTTLS", NULL, ARGS_ANY, GREETED, 512},
    {"AUTH", NULL, ARGS_ANY, GREETED, COMMAND_LINE_MAX},
    {"EXPN", NULL, ARGS_ANY, GREETED, 512},
    {"TURN", NULL, ARGS_ANY, GREETED, 512},
    {"ETRN", NULL, ARGS_ANY, GREETED, 512},
    {"SEND", NULL, ARGS_ANY, GREETED, 512},
    {"SOML", NULL, ARGS_ANY, GREETED, 512},
    {"SAML", NULL, ARGS_ANY, GREETED, 512},
};

static const struct command *find(struct span verb) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (span_eq_nocase(verb, span_of(commands[i].name)))
            return &commands[i];
    }
    return NULL;
}

/* The row against the line; the tally to count a refusal in, or NULL when it may run. */
static uint32_t *check(struct server *s, const struct command *c, size_t line_len, struct span args, struct buf *out) {
    if (line_len + 2 > c->line_max) {
        server_say(out, 500, "5.5.2", "line too long");
        return &s->tally.syntax;
    }
    if (!(c->states & IN(s->state))) {
        server_say(out, 503, "5.5.1", "command out of order");
        return &s->tally.order;
    }
    if (!c->run) {
        server_say(out, 502, "5.5.1", "command not implemented");
        return &s->tally.unknown;
    }
    if ((c->args == ARGS_NONE && args.len) || (c->args == ARGS_NEEDED && !args.len)) {
        server_say(out, 501, "5.5.4", args.len ? "no argument allowed" : "argument missing");
        return &s->tally.syntax;
    }
    return NULL;
}

void command_run(struct server *s, struct span line, struct buf *out, struct server_step *step) {
    s->tally.commands++;
    if (s->draining) {
        server_farewell(s, server_reply_make(421, "4.3.2", "shutting down, try again"), out);
        return;
    }
    if (line.len && memchr(line.at, '\0', line.len)) {
        server_say(out, 500, "5.5.2", "NUL in a command");
        count_error(s, &s->tally.syntax);
        return;
    }
    struct span args;
    struct span verb = span_cut(line, ' ', &args);
    const struct command *c = find(verb);
    args = span_trim(args);
    if (!c) {
        bool refused = s->state == SERVER_REFUSED;
        server_say(out, refused ? 503 : 500, refused ? "5.5.1" : "5.5.2",
                   refused ? "only QUIT is allowed" : "unknown command");
        count_error(s, &s->tally.unknown);
        return;
    }
    uint32_t *refused = check(s, c, line.len, args, out);
    if (refused)
        count_error(s, refused);
    else
        c->run(s, args, out, step);
}
