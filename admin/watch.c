/*
 * watch: see watch.h. Runs on the main loop; a ring is locked for the copy of at most one reply. When the
 * memory of a reply is used up, what fitted is sent, and the tool is told that there is more.
 */
#include "admin/watch.h"

#include "base/ring.h"
#include "proto/frame.h"

static int read_lines(const Words__AdminRequest *m, Words__AdminReply *r, enum ring_kind kind, struct span filter,
                      struct arena *mem) {
    struct ring_line *lines = arena_calloc(mem, WATCH_LINES_MAX, sizeof *lines);
    Words__AdminLine *at = arena_calloc(mem, WATCH_LINES_MAX, sizeof *at);
    struct ring_reading got;
    r->lines = arena_calloc(mem, WATCH_LINES_MAX, sizeof(Words__AdminLine *));
    if (!lines || !at || !r->lines)
        return ERR_NOMEM;
    int err = ring_read(kind, m->number, filter, lines, WATCH_LINES_MAX, mem, &got);
    if (err != ERR_OK && !got.count)
        return err;
    for (; r->n_lines < got.count; r->n_lines++) {
        Words__AdminLine *line = &at[r->n_lines];
        words__admin_line__init(line);
        line->number = lines[r->n_lines].number;
        line->text = frame_bytes(lines[r->n_lines].text);
        r->lines[r->n_lines] = line;
    }
    r->number = got.last;
    r->has_missed = got.missed != 0;
    r->missed = got.missed;
    r->has_more = r->more = got.more || err != ERR_OK;
    return ERR_OK;
}

int watch_answer(const Words__AdminRequest *m, Words__AdminReply *r, struct arena *mem) {
    uint32_t kind = m->has_ring ? m->ring : (uint32_t)RING_EVENTS;
    struct span filter = m->has_filter ? frame_span(m->filter) : SPAN_EMPTY;
    if (kind >= RING_KINDS || filter.len > WATCH_FILTER_MAX)
        return ERR_INVALID;
    r->has_number = true;
    if (m->has_number)
        return read_lines(m, r, (enum ring_kind)kind, filter, mem);
    r->number = ring_newest((enum ring_kind)kind);
    return ERR_OK;
}
