/*
 * milter_conn: the conversation with one mail filter: connecting, agreeing on options, telling it the stages of a
 * session, and understanding what it answers.
 *
 * A filter hears what it has missed: whoever is connected late is told CONNECT and HELO first. Commands that it does
 * not want are left out, those that it does not answer are not waited for. What it says out of turn, wrongly or too
 * late ends the connection, and from then on the operator's choice stands for its answers.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#include "gateway/filter/milter_inner.h"

enum {
    OUT_MAX = 512 * 1024,    /* of the connection */
    OUT_ENOUGH = 128 * 1024, /* so much waits: nothing more is written until it has gone */
    QUIT_MS = 1000,
    PATIENCE = 10, /* times the time-out, for a filter that tells progress */
    LIST_MAX = 1024,
    CONNECT_MS = 10000,
    COMMAND_MS = 30000,
    END_MS = 300000,
};
static const uint32_t offered_actions =
    MILTER_CAN_ADD_HEADERS | MILTER_CAN_CHANGE_BODY | MILTER_CAN_CHANGE_HEADERS | MILTER_CAN_NAME_MACROS;
static const uint32_t offered_protocol = MILTER_NO_CONNECT | MILTER_NO_HELO | MILTER_NO_MAIL | MILTER_NO_RCPT |
                                         MILTER_NO_BODY | MILTER_NO_HEADERS | MILTER_NO_EOH | MILTER_NR_HEADER |
                                         MILTER_NO_UNKNOWN | MILTER_NO_DATA | MILTER_SKIP | MILTER_NR_CONNECT |
                                         MILTER_NR_HELO | MILTER_NR_MAIL | MILTER_NR_RCPT | MILTER_NR_DATA |
                                         MILTER_NR_UNKNOWN | MILTER_NR_EOH | MILTER_NR_BODY | MILTER_LEADING_SPACE;

/* -- ends -- */

static void close_tcp(struct milter_conn *f) {
    if (f->tcp)
        tcp_close(f->tcp);
    f->tcp = NULL;
    f->awaiting = 0;
    f->draining = false;
    f->told = TOLD_NOTHING;
    for (size_t i = 0; i < MILTER_LISTS; i++) {
        free(f->lists[i]);
        f->lists[i] = NULL;
    }
}

static void quit(struct milter_conn *f) {
    static const char packet[] = {0, 0, 0, 1, MILTER_QUIT};
    bool clean = f->state == MILTER_READY && !f->awaiting;
    if (f->tcp && clean && tcp_write(f->tcp, packet, sizeof packet) == ERR_OK) {
        tcp_finish(f->tcp, QUIT_MS);
        f->tcp = NULL;
    }
    close_tcp(f);
}

void milter_conn_free(struct milter_conn *f) {
    quit(f);
}

void milter_conn_drop(struct milter_conn *f) {
    close_tcp(f);
    if (f->state != MILTER_FAILED && f->state != MILTER_LEFT)
        f->state = MILTER_OUT;
}

/* What the operator wants instead of an answer. */
static enum milter_turn by_choice(struct milter_conn *f) {
    switch (f->config->failure) {
    case MILTER_ACCEPT:
        return TURN_PASS;
    case MILTER_REJECT:
        milters_refuse(f, 550, "5.7.1", "Message filter is not available");
        return TURN_JUDGED;
    default:
        milters_refuse(f, 451, "4.7.1", "Message filter is not available, try again later");
        return TURN_JUDGED;
    }
}

static enum milter_turn fail(struct milter_conn *f, const char *why) {
    char address[128];
    tcp_addr_format(&f->config->address, address, sizeof address);
    LOG_WARN("milter_failed", LOG_STR("name", f->config->name), LOG_STR("why", why), LOG_STR("address", address));
    milters_count_failure();
    close_tcp(f);
    f->state = MILTER_FAILED;
    return by_choice(f);
}

/* -- waiting -- */

static uint64_t wait_ms(const struct milter_conn *f) {
    const struct milter_config *c = f->config;
    if (f->state == MILTER_CONNECTING)
        return c->connect_ms ? c->connect_ms : CONNECT_MS;
    if (f->awaiting == MILTER_BODYEOB)
        return c->end_ms ? c->end_ms : END_MS;
    return c->command_ms ? c->command_ms : COMMAND_MS;
}

void milter_conn_wait(struct milter_conn *f) {
    uint64_t ms = wait_ms(f);
    f->deadline = loop_now_ms(f->owner->loop) + PATIENCE * ms;
    loop_timer_set(f->owner->timer, ms);
}

/* -- what comes next -- */

/* A part of CHECK_END; 0: all was said. */
static char next_part(struct milter_conn *f) {
    const struct held *h = f->owner->held;
    if (f->part == PART_HEADER) {
        if (!(f->protocol & MILTER_NO_HEADERS) && f->place < held_count(h))
            return MILTER_HEADER;
        f->part = PART_EOH;
    }
    if (f->part == PART_EOH) {
        f->part = PART_BODY;
        f->place = 0;
        return MILTER_EOH;
    }
    if (f->part == PART_BODY) {
        if (!(f->protocol & MILTER_NO_BODY) && f->place < held_body_size(h))
            return MILTER_BODY;
        f->part = PART_EOB;
    }
    if (f->part == PART_EOB) {
        f->part = PART_OVER;
        return MILTER_BODYEOB;
    }
    return 0;
}

/* The command that the filter must hear next in this stage; 0: it has heard all. */
static char next_command(struct milter_conn *f) {
    enum check_stage stage = f->owner->stage;
    if (f->told < TOLD_CONNECT) {
        f->told = TOLD_CONNECT;
        return MILTER_CONNECT;
    }
    if (stage >= CHECK_HELO && f->told < TOLD_HELO) {
        f->told = TOLD_HELO;
        if (f->owner->facts->helo.len)
            return MILTER_HELO;
    }
    if (stage >= CHECK_MAIL && f->told < TOLD_MAIL) {
        f->told = TOLD_MAIL;
        return MILTER_MAIL;
    }
    if (stage == CHECK_END)
        return next_part(f);
    if (f->stage_said || stage < CHECK_RCPT)
        return 0;
    f->stage_said = true;
    return stage == CHECK_RCPT ? MILTER_RCPT : MILTER_DATA;
}

void milter_conn_begin(struct milter_conn *f) {
    enum check_stage stage = f->owner->stage;
    if (stage == CHECK_HELO || stage == CHECK_MAIL) {
        milter_conn_abort(f);
        f->message_done = false;
    }
    if (stage == CHECK_HELO && f->told > TOLD_CONNECT)
        f->told = TOLD_CONNECT;
    f->stage_said = false;
    f->part = PART_HEADER;
    f->place = 0;
}

void milter_conn_abort(struct milter_conn *f) {
    f->message_done = false;
    if (f->state != MILTER_READY || f->told < TOLD_MAIL)
        return;
    milter_pack_plain(&f->owner->out, MILTER_ABORT);
    f->told = TOLD_HELO;
    if (milter_flush(f))
        milter_conn_drop(f);
}

/* -- connecting -- */

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err);

static enum milter_turn start_connect(struct milter_conn *f) {
    f->tcp = tcp_connect(f->owner->loop, &f->config->address, NULL, MILTER_PACKET_MAX + 4, OUT_MAX, on_event, f);
    if (!f->tcp)
        return fail(f, "no memory or descriptors");
    f->state = MILTER_CONNECTING;
    milter_conn_wait(f);
    return TURN_AGAIN;
}

static enum milter_turn on_connected(struct milter_conn *f) {
    f->state = MILTER_NEGOTIATING;
    milter_pack_options(&f->owner->out, MILTER_VERSION, offered_actions, offered_protocol);
    const char *why = milter_flush(f);
    if (why)
        return fail(f, why);
    f->awaiting = MILTER_OPTNEG;
    milter_conn_wait(f);
    return TURN_AGAIN;
}

/* Some filters (Rspamd) name all actions there are, whether they will use them or not. What is not offered is left out
 * here; a filter that does it all the same has failed then. */
static const char *agree(struct milter_conn *f, struct span data) {
    struct milter_options o;
    if (milter_unpack_options(data, &o))
        return "malformed options";
    if (o.version < MILTER_VERSION_MIN || o.version > MILTER_VERSION)
        return "protocol version not supported";
    if (o.protocol & ~offered_protocol)
        return "wants protocol options that are not offered";
    for (size_t i = 0; i < MILTER_LISTS; i++) {
        if (!o.lists[i].at)
            continue;
        f->lists[i] = strndup(o.lists[i].at, o.lists[i].len < LIST_MAX ? o.lists[i].len : LIST_MAX);
        if (!f->lists[i])
            return "no memory";
    }
    f->version = o.version;
    f->actions = o.actions & offered_actions;
    f->protocol = o.protocol;
    return NULL;
}

/* -- going on -- */

enum milter_turn milter_conn_go(struct milter_conn *f) {
    if (f->state == MILTER_FAILED)
        return f->skipped ? TURN_PASS : by_choice(f);
    if (f->skipped || f->state == MILTER_LEFT || (f->message_done && f->owner->stage >= CHECK_MAIL))
        return TURN_PASS;
    if (f->state == MILTER_OUT)
        return start_connect(f);
    while (f->state == MILTER_READY && !f->awaiting) {
        if (tcp_queued(f->tcp) > OUT_ENOUGH) {
            f->draining = true;
            milter_conn_wait(f);
            return TURN_AGAIN;
        }
        char command = next_command(f);
        if (!command)
            return TURN_PASS;
        const char *why = milter_say(f, command);
        if (why)
            return fail(f, why);
    }
    return TURN_AGAIN;
}

enum milter_turn milter_conn_timed_out(struct milter_conn *f) {
    return fail(f, f->state == MILTER_CONNECTING ? "connect timed out" : "no reply in time");
}

/* -- answers -- */

static enum milter_turn refuse_as_told(struct milter_conn *f, struct span data) {
    struct milters *m = f->owner;
    if (milter_unpack_answer(data, &m->answer))
        return fail(f, "malformed reply code");
    struct milter_answer *a = &m->answer;
    const char *enhanced = a->enhanced[0] ? a->enhanced : a->code < 500 ? "4.7.1" : "5.7.1";
    milters_refuse(f, a->code, enhanced, a->text[0] ? a->text : "Refused by a message filter");
    return TURN_JUDGED;
}

static enum milter_turn discard(struct milter_conn *f, char asked) {
    if (asked == MILTER_CONNECT || asked == MILTER_HELO)
        return fail(f, "discards a session");
    f->owner->verdict.action = CHECK_DISCARD;
    return TURN_JUDGED;
}

static enum milter_turn accept_it(struct milter_conn *f, char asked) {
    if (asked == MILTER_CONNECT || asked == MILTER_HELO) {
        quit(f);
        f->state = MILTER_LEFT;
    } else {
        f->message_done = true;
    }
    return TURN_PASS;
}

/* The end of the message: what the filter asked for is done. */
static enum milter_turn end_well(struct milter_conn *f) {
    struct milters *m = f->owner;
    int err = milter_changes_apply(&m->changes, m->held);
    if (err == ERR_OK)
        return TURN_PASS;
    if (err == ERR_FULL)
        return fail(f, "makes the header too large");
    (void)fail(f, err_text(err)); /* half done: the message cannot go on, whatever the operator chose */
    milters_refuse(f, 451, "4.3.0", "Out of resources, try again later");
    return TURN_JUDGED;
}

static enum milter_turn tell_progress(struct milter_conn *f) {
    if (!f->awaiting) /* of work on what it does not answer */
        return TURN_AGAIN;
    if (loop_now_ms(f->owner->loop) > f->deadline)
        return fail(f, "tells progress without end");
    loop_timer_set(f->owner->timer, wait_ms(f));
    return TURN_AGAIN;
}

/* An answer that ends the command. */
static enum milter_turn conclude(struct milter_conn *f, const struct milter_packet *p, char asked) {
    switch (p->command) {
    case MILTER_R_CONTINUE:
        return asked == MILTER_BODYEOB ? end_well(f) : TURN_AGAIN;
    case MILTER_R_ACCEPT:
        return asked == MILTER_BODYEOB ? end_well(f) : accept_it(f, asked);
    case MILTER_R_REJECT:
        milters_refuse(f, asked == MILTER_CONNECT ? 554 : 550, "5.7.1", "Refused by a message filter");
        return TURN_JUDGED;
    case MILTER_R_TEMPFAIL:
        milters_refuse(f, 451, "4.7.1", "Refused by a message filter for now, try again later");
        return TURN_JUDGED;
    case MILTER_R_REPLYCODE:
        return refuse_as_told(f, p->data);
    case MILTER_R_SHUTDOWN:
    case MILTER_R_CONN_FAIL:
        milters_refuse(f, 421, "4.7.0", "A message filter ends the session");
        return TURN_JUDGED;
    case MILTER_R_DISCARD:
        return discard(f, asked);
    case MILTER_R_SKIP:
        if (asked != MILTER_BODY || !(f->protocol & MILTER_SKIP))
            return fail(f, "skips what cannot be skipped");
        f->part = PART_EOB;
        return TURN_AGAIN;
    case MILTER_R_ADDRCPT:
    case MILTER_R_ADDRCPT_PAR:
    case MILTER_R_DELRCPT:
    case MILTER_R_CHGFROM:
        return fail(f, "changes the envelope, which is not offered");
    case MILTER_R_QUARANTINE:
        return fail(f, "quarantines, which is not offered");
    default:
        return fail(f, milter_is_change(p->command) ? "changes the message before its end" : "unknown reply");
    }
}

/* Packets that may come any number of times before the one that ends the command. */
static bool is_on_the_way(const struct milter_conn *f, char command) {
    return f->state == MILTER_READY &&
           (command == MILTER_R_PROGRESS || (f->awaiting == MILTER_BODYEOB && milter_is_change(command)));
}

static enum milter_turn on_the_way(struct milter_conn *f, const struct milter_packet *p) {
    struct milters *m = f->owner;
    if (p->command == MILTER_R_PROGRESS)
        return tell_progress(f);
    int err = milter_changes_take(&m->changes, p, f->actions, m->held);
    if (err == ERR_INVALID)
        return fail(f, "a change that is malformed or was not agreed on");
    return err ? fail(f, err_text(err)) : TURN_AGAIN;
}

/* The packet that ends the command. */
static enum milter_turn on_last(struct milter_conn *f, const struct milter_packet *p) {
    char asked = f->awaiting;
    f->awaiting = 0;
    if (f->state == MILTER_NEGOTIATING) {
        const char *why = p->command == MILTER_OPTNEG ? agree(f, p->data) : "no options";
        if (why)
            return fail(f, why);
        f->state = MILTER_READY;
        return TURN_AGAIN;
    }
    enum milter_turn turn = conclude(f, p, asked);
    if (asked == MILTER_BODYEOB && f->state == MILTER_READY)
        f->told = TOLD_HELO;
    return turn;
}

/* -- events -- */

/* All whole packets that have come. AGAIN also when nothing more is known yet. */
static enum milter_turn on_octets(struct milter_conn *f) {
    struct buf *in = tcp_in(f->tcp);
    for (;;) {
        struct milter_packet p;
        size_t used;
        int err = milter_unpack(buf_span(in), &p, &used);
        if (err == ERR_AGAIN)
            return TURN_AGAIN;
        if (err)
            return fail(f, "a packet of a length that cannot be");
        bool last = !is_on_the_way(f, p.command);
        if (last && (!f->awaiting || buf_len(in) > used))
            return fail(f, "speaks out of turn");
        enum milter_turn turn = last ? on_last(f, &p) : on_the_way(f, &p);
        if (f->tcp)
            buf_consume(in, used);
        if (turn != TURN_AGAIN)
            return turn;
        if (last)
            return milter_conn_go(f);
    }
}

/* It is gone. Between transactions that is no fault. */
static enum milter_turn on_lost(struct milter_conn *f, bool active, const char *why) {
    if (f->state == MILTER_CONNECTING || active || (f->told == TOLD_MAIL && !f->message_done))
        return fail(f, why);
    milter_conn_drop(f);
    return TURN_AGAIN;
}

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err) {
    struct milter_conn *f = arg;
    struct milters *m = f->owner;
    (void)c;
    bool active = m->busy && &m->conns[m->at] == f;
    enum milter_turn turn = TURN_AGAIN;
    switch (event) {
    case TCP_SECURED: /* never asked for */
        break;
    case TCP_CONNECTED:
        turn = on_connected(f);
        break;
    case TCP_READ:
        turn = on_octets(f);
        break;
    case TCP_DRAINED:
        if (f->draining) {
            f->draining = false;
            turn = milter_conn_go(f);
        }
        break;
    case TCP_EOF:
        turn = on_lost(f, active, "connection closed");
        break;
    case TCP_FAILED:
        turn = on_lost(f, active, err_text(err));
        break;
    }
    if (active && turn != TURN_AGAIN)
        milters_resume(m, turn);
}
