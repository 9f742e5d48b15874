/*
 * ask: one request to the daemon's admin RPC and all its replies, joined.
 */
#include <string.h>
#include <sysexits.h>

#include "admin/tool/tool.h"

#define TIMEOUT_MS 65000u

/* Appends n pointers to an array in the arena. */
static bool append(struct arena *mem, void *array_ptr, size_t *count, size_t *cap, void *const *more, size_t n) {
    void *old;
    memcpy(&old, array_ptr, sizeof old);
    if (*count + n > *cap) {
        size_t bigger = (*count + n) * 2 + 16;
        void *fresh = arena_alloc(mem, bigger * sizeof(void *));
        if (!fresh)
            return false;
        if (*count)
            memcpy(fresh, old, *count * sizeof(void *));
        memcpy(array_ptr, &fresh, sizeof fresh);
        old = fresh;
        *cap = bigger;
    }
    if (n)
        memcpy((char *)old + *count * sizeof(void *), more, n * sizeof(void *));
    *count += n;
    return true;
}

static bool join(struct answer *a, Words__AdminReply *r) {
    struct arena *mem = &a->tool->mem;
    if (r->has_error && r->error && !a->r.error) {
        a->r.has_error = true;
        a->r.error = r->error;
        a->r.has_text = r->has_text;
        a->r.text = r->text;
    }
    if (r->has_text && !a->r.has_text) {
        a->r.has_text = true;
        a->r.text = r->text;
    }
    if (r->has_code) {
        a->r.has_code = true;
        a->r.code = r->code;
    }
    if (r->has_count) {
        a->r.has_count = true;
        a->r.count += r->count;
    }
    if (r->envelope)
        a->r.envelope = r->envelope;
    a->r.number = r->has_number ? r->number : a->r.number;
    a->r.missed += r->missed;
    a->r.more = r->has_more && r->more;
    return append(mem, &a->r.lines, &a->r.n_lines, &a->line_cap, (void *const *)r->lines, r->n_lines) &&
           append(mem, &a->r.rows, &a->r.n_rows, &a->row_cap, (void *const *)r->rows, r->n_rows) &&
           append(mem, &a->r.traces, &a->r.n_traces, &a->trace_cap, (void *const *)r->traces, r->n_traces) &&
           append(mem, &a->r.figures, &a->r.n_figures, &a->figure_cap, (void *const *)r->figures, r->n_figures) &&
           append(mem, &a->r.steps, &a->r.n_steps, &a->step_cap, (void *const *)r->steps, r->n_steps);
}

static bool on_reply(void *arg, const struct bus_message *m) {
    struct answer *a = arg;
    struct frame f;
    if (frame_read(&f, m) != ERR_OK || f.kind != FRAME_ADMIN_REPLY)
        return false;
    struct span meta = arena_dup(&a->tool->mem, f.meta);
    Words__AdminReply *r = meta.at ? frame_unpack(&words__admin_reply__descriptor, meta, &a->tool->mem) : NULL;
    if (!r || !join(a, r))
        return false;
    a->complete = !r->has_last || r->last;
    return !a->complete;
}

static int status_of(int err) {
    switch (err) {
    case ERR_OK:
        return EX_OK;
    case ERR_NOT_FOUND:
        return EX_NOINPUT;
    case ERR_INVALID:
    case ERR_RANGE:
        return EX_DATAERR;
    case ERR_UNREACHABLE:
        return EX_UNAVAILABLE;
    case ERR_DENIED:
        return EX_NOPERM;
    default:
        return EX_TEMPFAIL;
    }
}

int tool_ask(struct tool *t, const Words__AdminRequest *q, struct answer *a) {
    uint8_t header[FRAME_HEADER_LEN];
    struct buf meta;
    *a = (struct answer){.r = WORDS__ADMIN_REPLY__INIT, .tool = t};
    buf_init(&meta, FRAME_META_MAX);
    if (frame_pack(&q->base, &meta) != ERR_OK) {
        fputs("posthouse: the request is too long\n", stderr);
        return EX_DATAERR;
    }
    frame_header(header, FRAME_ADMIN_REQUEST, 1, 0, buf_span(&meta));
    int err =
        bus_call(t->server, FRAME_PART_MAX, span_make(header, sizeof header), buf_span(&meta), TIMEOUT_MS, on_reply, a);
    buf_deinit(&meta);
    if (err != ERR_OK) {
        fprintf(stderr, "posthouse: no answer from %s: %s (is posthoused running, and is this its admin.rpc?)\n",
                t->server, err_text(err));
        return EX_UNAVAILABLE;
    }
    if (a->r.error) {
        fputs("posthouse: ", stderr);
        print_span(stderr, a->r.has_text ? frame_span(a->r.text) : span_of(err_text(-(int)a->r.error)));
        fputs("\n", stderr);
        return status_of(-(int)a->r.error);
    }
    if (!a->complete) {
        fputs("posthouse: the answer is not complete or not of this version\n", stderr);
        return EX_PROTOCOL;
    }
    return EX_OK;
}
