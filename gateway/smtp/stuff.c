/*
 * stuff: see stuff.h. One memchr for LF walks the lines; a second looks for a CR that is
 * no part of a line end. The usual line adds nothing to the current piece but its length.
 */
#include "base/check.h"
#include "gateway/smtp/stuff.h"

enum { TURN_PIECES = 4 }; /* a stuffed dot and a bare CR in one line; the last piece needs one more place */

struct cutter {
    struct span *pieces;
    size_t count;
    const char *from; /* start of the piece that is growing */
};

/* Ends the growing piece at `to`, and puts `extra` behind it. */
static void cut(struct cutter *c, const char *to, struct span extra, const char *next) {
    if (to > c->from)
        c->pieces[c->count++] = span_make(c->from, (size_t)(to - c->from));
    if (extra.len)
        c->pieces[c->count++] = extra;
    c->from = next;
}

/* What the CR at the end of the last input turned out to be. Returns where to go on. */
static const char *settle_cr(struct stuff *s, struct cutter *c, const char *at) {
    s->cr = s->inside = false;
    c->pieces[c->count++] = SPAN("\r\n");
    c->from = *at == '\n' ? at + 1 : at;
    return c->from;
}

size_t stuff_next(struct stuff *s, struct span in, struct span *pieces, size_t max, size_t *used) {
    CHECK(max >= STUFF_PIECES_MIN);
    struct cutter c = {.pieces = pieces, .from = in.at};
    const char *at = in.at, *end = in.at + in.len;
    if (s->cr && at < end)
        at = settle_cr(s, &c, at);
    while (at < end && c.count + TURN_PIECES < max) {
        if (!s->inside && *at == '.')
            cut(&c, at, SPAN("."), at);
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        const char *stop = lf ? lf : end;
        const char *cr = memchr(at, '\r', (size_t)(stop - at));
        s->inside = true;
        if (cr && cr + 1 == end) { /* the last octet: what follows decides */
            cut(&c, cr, SPAN_EMPTY, end);
            s->cr = true;
            at = end;
        } else if (cr && cr + 1 != lf) { /* bare CR */
            cut(&c, cr, SPAN("\r\n"), cr + 1);
            s->inside = false;
            at = cr + 1;
        } else if (lf) {
            if (!cr) /* bare LF */
                cut(&c, lf, SPAN("\r\n"), lf + 1);
            s->inside = false;
            at = lf + 1;
        } else {
            at = end;
        }
    }
    cut(&c, at, SPAN_EMPTY, at);
    *used = (size_t)(at - in.at);
    return c.count;
}

struct span stuff_end(struct stuff *s) {
    bool open = s->inside || s->cr;
    stuff_init(s);
    return open ? SPAN("\r\n.\r\n") : SPAN(".\r\n");
}
