/*
 * session_trace: the dialogue of a session for `posthouse trace smtp in`, while somebody listens: "C:" what the client
 * said, "S:" what we answered, "*" what happened. Octets of messages are not shown.
 */
#include <stdio.h>

#include "base/dialogue.h"

#include "gateway/inbound/session.h"

enum { WHO_MAX = 400 };

/* "192.0.2.1:4711", and the account. */
static struct span who(const struct session *s, char to[WHO_MAX]) {
    int len = snprintf(to, WHO_MAX, "%.*s:%u%s%s", SPAN_FMT(session_ip(s)), tcp_addr_port(&s->peer),
                       *s->account ? " " : "", s->account);
    return span_make(to, len < 0 ? 0 : len < WHO_MAX ? (size_t)len : WHO_MAX - 1);
}

void session_trace_in(struct session *s, struct span octets, bool secret) {
    char name[WHO_MAX];
    if (!ring_is_on(RING_SMTP_IN))
        return;
    if (secret)
        dialogue_add_secret(RING_SMTP_IN, who(s, name), "C:");
    else
        dialogue_add(RING_SMTP_IN, who(s, name), "C:", octets);
}

void session_trace_out(struct session *s, struct span replies) {
    char name[WHO_MAX];
    if (ring_is_on(RING_SMTP_IN))
        dialogue_add(RING_SMTP_IN, who(s, name), "S:", replies);
}

void session_trace_event(struct session *s, const char *what) {
    char name[WHO_MAX];
    if (ring_is_on(RING_SMTP_IN))
        dialogue_add(RING_SMTP_IN, who(s, name), "*", span_of(what));
}
