/*
 * ask: one request to the daemon's admin RPC and all its replies, joined.
 */
#include <pwd.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/tool/tool.h"
#include "base/clock.h"

#define TIMEOUT_MS 65000u
#define PROGRESS_MS 500u

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
    if (a->text && r->has_text && !a->r.error)
        a->text(a->tool, frame_span(r->text));
    else if (r->has_text && !a->r.has_text) {
        a->r.has_text = true;
        a->r.text = r->text;
    }
    if (r->has_code) {
        a->r.has_code = true;
        a->r.code = r->code;
    }
    if (r->has_count) {
        a->r.has_count = true;
        a->r.count = r->count; /* of several, the last counts: the others told how far it was */
    }
    if (r->has_cursor) {
        a->r.has_cursor = true;
        a->r.cursor = r->cursor;
    }
    if (r->envelope)
        a->r.envelope = r->envelope;
    a->r.number = r->has_number ? r->number : a->r.number;
    a->r.missed += r->missed;
    a->r.more = r->has_more && r->more;
    return append(mem, &a->r.audits, &a->r.n_audits, &a->audit_cap, (void *const *)r->audits, r->n_audits) &&
           append(mem, &a->r.lines, &a->r.n_lines, &a->line_cap, (void *const *)r->lines, r->n_lines) &&
           append(mem, &a->r.rows, &a->r.n_rows, &a->row_cap, (void *const *)r->rows, r->n_rows) &&
           append(mem, &a->r.traces, &a->r.n_traces, &a->trace_cap, (void *const *)r->traces, r->n_traces) &&
           append(mem, &a->r.figures, &a->r.n_figures, &a->figure_cap, (void *const *)r->figures, r->n_figures) &&
           append(mem, &a->r.steps, &a->r.n_steps, &a->step_cap, (void *const *)r->steps, r->n_steps);
}

/* How far a long change is, on a terminal. */
static void show_progress(struct tool *t, const Words__AdminReply *r) {
    uint64_t now_ms = clock_mono_ms();
    if (!isatty(STDERR_FILENO) || t->json || now_ms - t->told_ms < PROGRESS_MS)
        return;
    t->told_ms = now_ms;
    t->progress = true;
    fprintf(stderr, "\r%llu ...", (unsigned long long)r->count);
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
    if (!a->complete && r->has_count)
        show_progress(a->tool, r);
    a->next_len = a->text && r->has_cursor && r->cursor.len <= sizeof a->next ? r->cursor.len : 0;
    if (a->next_len)
        memcpy(a->next, r->cursor.data, a->next_len);
    if (a->text && !a->r.error) /* nothing of it is kept */
        arena_reset(&a->tool->mem);
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

/* *a is set up. */
static int ask(struct tool *t, const Words__AdminRequest *q, struct answer *a) {
    uint8_t header[FRAME_HEADER_LEN];
    struct buf meta;
    buf_init(&meta, FRAME_META_MAX);
    if (frame_pack(&q->base, &meta) != ERR_OK) {
        fputs("posthouse: the request is too long\n", stderr);
        return EX_DATAERR;
    }
    frame_header(header, FRAME_ADMIN_REQUEST, 1, 0, buf_span(&meta));
    int status = tool_call(t, span_make(header, sizeof header), buf_span(&meta), TIMEOUT_MS, on_reply, a);
    buf_deinit(&meta);
    if (t->progress)
        fputs("\r\033[K", stderr);
    t->progress = false;
    if (status != EX_OK)
        return status;
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

int tool_ask(struct tool *t, const Words__AdminRequest *q, struct answer *a) {
    *a = (struct answer){.r = WORDS__ADMIN_REPLY__INIT, .tool = t};
    return ask(t, q, a);
}

int tool_ask_text(struct tool *t, const Words__AdminRequest *q, struct answer *a,
                  void (*text)(struct tool *t, struct span part)) {
    *a = (struct answer){.r = WORDS__ADMIN_REPLY__INIT, .tool = t, .text = text};
    return ask(t, q, a);
}

int tool_ask_and_print(struct tool *t, const Words__AdminRequest *q, uint64_t id,
                       void (*print)(const struct tool *t, const struct answer *a)) {
    struct answer a;
    int status = tool_ask(t, q, &a);
    if (status != EX_OK)
        return status;
    if (t->json)
        return json_print(&a, id);
    print(t, &a);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

Words__AdminRequest tool_request(struct tool *t, Words__AdminVerb verb) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    struct passwd *user = getpwuid(getuid());
    q.verb = verb;
    q.has_actor = user != NULL;
    q.actor = frame_bytes(user ? arena_dup(&t->mem, span_of(user->pw_name)) : SPAN_EMPTY);
    return q;
}
