/*
 * session_trace: the dialogue of a session as lines for `posthouse trace smtp in`, while somebody listens: "C:" what
 * the client said, "S:" what we answered, "*" what happened. Octets of messages are not shown, and what AUTH sends is
 * blanked: a trace must be safe to show to anyone who may read it.
 */
#include "base/ring.h"

#include "gateway/inbound/session.h"

enum { LINE_SHOWN = 400 };

static void add(struct session *s, const char *mark, struct span text) {
    struct buf line;
    buf_init(&line, 4 * LINE_SHOWN + 200);
    buf_add(&line, session_ip(s));
    buf_printf(&line, ":%u", tcp_addr_port(&s->peer));
    if (*s->account) {
        buf_add_byte(&line, ' ');
        buf_add_escaped(&line, span_of(s->account));
    }
    buf_add_byte(&line, ' ');
    buf_add_str(&line, mark);
    buf_add_byte(&line, ' ');
    buf_add_escaped(&line, span_first(text, LINE_SHOWN));
    ring_add(RING_SMTP_IN, buf_span(&line));
    buf_deinit(&line);
}

/* AUTH with an initial response keeps its mechanism only. */
static struct span without_secret(struct span line) {
    struct span rest, initial;
    if (!span_eq_nocase(span_cut(line, ' ', &rest), SPAN("AUTH")))
        return line;
    struct span mechanism = span_cut(span_trim(rest), ' ', &initial);
    return initial.len ? span_make(line.at, (size_t)(mechanism.at - line.at) + mechanism.len) : line;
}

static void each_line(struct session *s, const char *mark, struct span text, bool blank) {
    while (text.len) {
        struct span line = span_cut(text, '\n', &text);
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        struct span shown = blank ? without_secret(line) : line;
        add(s, mark, shown);
        if (shown.len != line.len)
            add(s, "*", SPAN("(the rest of that line is a secret)"));
    }
}

void session_trace_in(struct session *s, struct span octets, bool secret) {
    if (!ring_is_on(RING_SMTP_IN))
        return;
    if (secret)
        add(s, "C:", SPAN("(a secret)"));
    else
        each_line(s, "C:", octets, true);
}

void session_trace_out(struct session *s, struct span replies) {
    if (ring_is_on(RING_SMTP_IN))
        each_line(s, "S:", replies, false);
}

void session_trace_event(struct session *s, const char *what) {
    if (ring_is_on(RING_SMTP_IN))
        add(s, "*", span_of(what));
}
