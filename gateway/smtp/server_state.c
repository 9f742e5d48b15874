/*
 * server_state: the states of the SMTP dialogue and the only function that changes them.
 *
 * The table says what server.h says in words. A transition outside of it cannot be caused by a client,
 * whatever it sends; it is a bug of this room, so it stops the process before mail is harmed.
 */
#include <stdlib.h>

#include "base/check.h"

#include "gateway/smtp/server_inner.h"

#define TO(state) (1u << (state))

static const uint16_t transitions[] = {
    [SERVER_START] = TO(SERVER_HELLO) | TO(SERVER_REFUSED),
    [SERVER_REFUSED] = 0,
    [SERVER_HELLO] = TO(SERVER_HELLO) | TO(SERVER_READY) | TO(SERVER_CHUNK),
    [SERVER_READY] = TO(SERVER_READY) | TO(SERVER_HELLO) | TO(SERVER_MAIL) | TO(SERVER_CHUNK),
    [SERVER_MAIL] = TO(SERVER_READY) | TO(SERVER_HELLO) | TO(SERVER_RCPT) | TO(SERVER_CHUNK) | TO(SERVER_DEAD),
    [SERVER_RCPT] = TO(SERVER_READY) | TO(SERVER_HELLO) | TO(SERVER_DATA) | TO(SERVER_CHUNK) | TO(SERVER_DEAD),
    [SERVER_DATA] = TO(SERVER_READY),
    [SERVER_CHUNK] = TO(SERVER_HELLO) | TO(SERVER_READY) | TO(SERVER_BDAT) | TO(SERVER_DEAD),
    [SERVER_BDAT] = TO(SERVER_READY) | TO(SERVER_HELLO) | TO(SERVER_CHUNK) | TO(SERVER_DEAD),
    [SERVER_DEAD] = TO(SERVER_READY) | TO(SERVER_HELLO) | TO(SERVER_CHUNK),
    [SERVER_CLOSED] = 0,
};

void server_set_state(struct server *s, enum server_state state) {
    CHECK(state == SERVER_CLOSED || (transitions[s->state] & TO(state)));
    s->state = state;
}

void server_clear(struct server *s) {
    arena_deinit(&s->mem);
    s->mail = (struct server_mail){0};
    s->rcpt = (struct server_rcpt){0};
    s->rcpt_count = 0;
    s->stale = false;
}

void server_abort(struct server *s) {
    s->abort_due = s->abort_due || s->open;
    s->open = false;
    s->stale = true;
}

static enum server_fault fault_of(const struct server *s) {
    const struct server_config *c = &s->settings->config;
    if (s->data.faults & DATA_FAULT_BARE)
        return SERVER_FAULT_BARE;
    if (s->data.faults & DATA_FAULT_LINE)
        return SERVER_FAULT_LINE;
    if (s->data.size > c->message_size)
        return SERVER_FAULT_SIZE;
    return s->data.received >= c->received_headers ? SERVER_FAULT_LOOP : SERVER_FAULT_NONE;
}

void server_take_fault(struct server *s, struct server_reply reply) {
    size_t len = reply.enhanced.len;
    free(s->owner_words);
    s->owner_words = malloc(len + reply.text.len + 2);
    s->fault = SERVER_FAULT_OWNER;
    s->owner_fault = server_reply_make(451, "4.3.0", "out of memory");
    if (!s->owner_words)
        return;
    s->owner_fault.code = reply.code;
    s->owner_fault.enhanced = span_make(s->owner_words, span_copy(reply.enhanced, s->owner_words, len + 1));
    char *text = s->owner_words + len + 1;
    s->owner_fault.text = span_make(text, span_copy(reply.text, text, reply.text.len + 1));
}

void server_find_fault(struct server *s) {
    /* A bare newline that comes late still decides: the connection must end. */
    if (s->fault != SERVER_FAULT_NONE && !(s->data.faults & DATA_FAULT_BARE))
        return;
    s->fault = fault_of(s);
    if (s->fault != SERVER_FAULT_NONE)
        server_abort(s);
}
