/*
 * command: the commands of SMTP in one table, and the short ones of them.
 *
 * A command line is checked against its row first (known, length, state, arguments) and run only when
 * that holds; so a command out of order changes nothing. A command whose extension this listener does not
 * offer is known but not implemented: 502.
 */
#include <stdlib.h>

#include "base/clock.h"

#include "gateway/smtp/server_inner.h"

typedef void (*run_cb)(struct server *s, struct span args, struct buf *out, struct server_step *step);
enum args { ARGS_NONE, ARGS_ANY, ARGS_NEEDED };
struct command {
    const char *name;
    run_cb run;         /* NULL: not implemented */
    uint32_t extension; /* that must be on; 0: none */
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

void command_forget(struct server *s) {
    server_abort(s);
    free((char *)s->helo.at);
    s->helo = SPAN_EMPTY;
    s->esmtp = false;
    server_set_state(s, SERVER_HELLO);
}

/* What may be offered depends on TLS and on who has authenticated already. */
static void add_ehlo_state(const struct server *s, struct buf *out) {
    const struct server_config *c = &s->settings->config;
    if ((c->extensions & SERVER_EXT_STARTTLS) && !s->tls)
        buf_add_str(out, "250-STARTTLS\r\n");
    if ((c->extensions & SERVER_EXT_AUTH) && s->mechanisms.len && !s->authenticated) {
        buf_add_str(out, "250-AUTH ");
        buf_add(out, s->mechanisms);
        buf_append(out, "\r\n", 2);
    }
    if ((c->extensions & SERVER_EXT_REQUIRETLS) && s->tls)
        buf_add_str(out, "250-REQUIRETLS\r\n");
    if (c->extensions & SERVER_EXT_FUTURERELEASE) {
        char until[32];
        size_t len = clock_rfc3339(s->wall_ms + c->release_max_ms, until, sizeof until);
        buf_printf(out, "250-FUTURERELEASE %llu ", (unsigned long long)c->release_max_ms / 1000);
        buf_append(out, until, len > 5 ? len - 5 : len); /* without milliseconds */
        buf_add_str(out, "Z\r\n");
    }
    if (s->xclient)
        buf_add_str(out, "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT REVERSE_NAME\r\n");
}

void command_hello(struct server *s, struct buf *out) {
    if (!s->esmtp) {
        server_say_reply(out, &(struct server_reply){250, SPAN_EMPTY, s->settings->hostname});
        return;
    }
    buf_add(out, s->settings->ehlo);
    add_ehlo_state(s, out);
    buf_add_str(out, "250 HELP\r\n");
}

static void greet_back(struct server *s, struct span name, bool esmtp, struct buf *out, struct server_step *step) {
    if (!take_helo(s, name, out))
        return;
    s->esmtp = esmtp;
    if (!s->settings->config.ask_helo) {
        command_hello(s, out);
        return;
    }
    s->wait = SERVER_WAIT_HELO;
    step->kind = SERVER_STEP_HELO;
    step->span = s->helo;
}

static void run_ehlo(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    greet_back(s, args, true, out, step);
}

static void run_helo(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    greet_back(s, args, false, out, step);
}

static void begin_data(struct server *s, struct buf *out) {
    server_set_state(s, SERVER_DATA);
    data_init(&s->data, DATA_DOTS, s->settings->config.normalize);
    s->fault = SERVER_FAULT_NONE;
    s->body_octets = 0;
    server_say(out, 354, "", "end with CRLF.CRLF");
}

static void ask_data(struct server *s, bool bdat, struct server_step *step) {
    s->bdat_due = bdat;
    s->wait = SERVER_WAIT_DATA;
    step->kind = SERVER_STEP_DATA;
}

static void run_data(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    (void)args;
    if (s->settings->config.ask_data) {
        ask_data(s, false, step);
        return;
    }
    begin_data(s, out);
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
    s->body_octets = 0;
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
    } else if (before == SERVER_RCPT && s->settings->config.ask_data) {
        ask_data(s, true, step);
    }
}

void command_begin(struct server *s, struct server_reply answer, struct buf *out) {
    if (answer.code < 400) {
        if (!s->bdat_due)
            begin_data(s, out);
        s->begin_due = true;
    } else if (s->bdat_due) { /* the chunk is read to its end, and refused there */
        server_take_fault(s, answer);
        server_abort(s);
    } else {
        server_say_reply(out, &answer);
        s->tally.refused++;
        server_abort(s);
        server_set_state(s, SERVER_READY);
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
    struct server_reply why;
    if (command_must_wait(s, &why)) {
        server_say_reply(out, &why);
        count_error(s, &s->tally.order);
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
    {"MAIL", command_mail, 0, ARGS_NEEDED, IN(SERVER_READY), COMMAND_PATH_MAX},
    {"RCPT", command_rcpt, 0, ARGS_NEEDED, IN(SERVER_MAIL) | IN(SERVER_RCPT), COMMAND_PATH_MAX},
    {"DATA", run_data, 0, ARGS_NONE, IN(SERVER_RCPT), 512},
    {"BDAT", run_bdat, SERVER_EXT_CHUNKING, ARGS_ANY, GREETED, 512},
    {"EHLO", run_ehlo, 0, ARGS_NEEDED, GREETED, 512},
    {"HELO", run_helo, 0, ARGS_NEEDED, GREETED, 512},
    {"RSET", run_rset, 0, ARGS_NONE, GREETED, 512},
    {"NOOP", run_noop, 0, ARGS_ANY, GREETED, 512},
    {"QUIT", run_quit, 0, ARGS_NONE, GREETED | IN(SERVER_REFUSED), 512},
    {"VRFY", run_vrfy, 0, ARGS_NEEDED, GREETED, COMMAND_PATH_MAX},
    {"HELP", run_help, 0, ARGS_ANY, GREETED, 512},
    {"STARTTLS", command_starttls, SERVER_EXT_STARTTLS, ARGS_NONE, GREETED, 512},
    {"AUTH", command_auth, SERVER_EXT_AUTH, ARGS_NEEDED, IN(SERVER_READY), COMMAND_LINE_MAX},
    {"XCLIENT", command_xclient, 0, ARGS_NEEDED, IN(SERVER_HELLO) | IN(SERVER_READY), COMMAND_PATH_MAX},
    {"EXPN", NULL, 0, ARGS_ANY, GREETED, 512},
    {"TURN", NULL, 0, ARGS_ANY, GREETED, 512},
    {"ETRN", NULL, 0, ARGS_ANY, GREETED, 512},
    {"SEND", NULL, 0, ARGS_ANY, GREETED, 512},
    {"SOML", NULL, 0, ARGS_ANY, GREETED, 512},
    {"SAML", NULL, 0, ARGS_ANY, GREETED, 512},
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
    if (s->state == SERVER_REFUSED && !(c->states & IN(s->state))) {
        server_say(out, 503, "5.5.1", "command out of order");
        return &s->tally.order;
    }
    if (!c->run || (c->extension & ~s->settings->config.extensions)) {
        server_say(out, 502, "5.5.1", "command not implemented");
        return &s->tally.unknown;
    }
    if (!(c->states & IN(s->state))) {
        server_say(out, 503, "5.5.1", "command out of order");
        return &s->tally.order;
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
    if (refused) {
        count_error(s, refused);
        return;
    }
    /* Who only ever says NOOP has nothing to send. */
    bool sends = c->run == command_mail || c->run == command_rcpt || c->run == run_data || c->run == run_bdat;
    if (!sends && ++s->idle_commands > SERVER_IDLE_COMMANDS)
        s->errors++;
    c->run(s, args, out, step);
}
