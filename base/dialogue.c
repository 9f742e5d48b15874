/*
 * dialogue: see dialogue.h.
 */
#include "base/dialogue.h"

#include "base/buf.h"

enum { LINE_SHOWN = 400, WHO_MAX = 600 };

static void add(enum ring_kind kind, struct span who, const char *mark, struct span text) {
    struct buf line;
    buf_init(&line, 4 * LINE_SHOWN + 4 * WHO_MAX);
    buf_add_escaped(&line, span_first(who, WHO_MAX));
    buf_add_byte(&line, ' ');
    buf_add_str(&line, mark);
    buf_add_byte(&line, ' ');
    buf_add_escaped(&line, span_first(text, LINE_SHOWN));
    ring_add(kind, buf_span(&line));
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

void dialogue_add_secret(enum ring_kind kind, struct span who, const char *mark) {
    if (ring_is_on(kind))
        add(kind, who, mark, SPAN("(a secret)"));
}

void dialogue_add(enum ring_kind kind, struct span who, const char *mark, struct span octets) {
    if (!ring_is_on(kind))
        return;
    while (octets.len) {
        struct span line = span_cut(octets, '\n', &octets);
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        struct span shown = without_secret(line);
        add(kind, who, mark, shown);
        if (shown.len != line.len)
            add(kind, who, "*", SPAN("(the rest of that line is a secret)"));
    }
}
