/*
 * question_audit: the audit log of operators' changes: a record is kept on behalf of the admin service, which is
 * answered when it is on disk; and the log is listed, newest first. What is too old, or too much, goes (store/audit.h).
 *
 * Records are written through the commit thread like all else, as what must be kept: a full disk does not refuse them,
 * for the operator may be about to make room.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "scheduler/question_in.h"
#include "store/audit.h"

#define WRITES_MAX 1000u /* under way at once */
#define LOOK_EVERY_MS (3600u * 1000u)
#define LIST_DEFAULT 100u
#define LIST_BYTES_MAX (1024u * 1024u)
#define WORDS_MAX 16u
#define MEMORY_MAX (32u * 1024u * 1024u)

struct audit_write {
    struct commit_request request; /* request.arg is the write */
    struct audit_log *log;
    uint64_t correlation; /* 0: nobody waits for it */
    struct audit_write *next;
    int result;
};
struct audit_log {
    struct scheduler *sc;
    struct audit audit;
    uint32_t writing;
    bool looking; /* for what is to go */
    uint64_t looked_ms;
    struct loop_wake *wake;
    pthread_mutex_t lock; /* of done */
    struct audit_write *done, *done_last;
};

/* -- writing -- */

static void write_free(struct audit_write *w) {
    store_batch_free(w->request.keep);
    free(w);
}

static void on_written(struct commit_request *r, int result) /* on the commit thread */
{
    struct audit_write *w = r->arg;
    struct audit_log *log = w->log;
    w->result = result;
    pthread_mutex_lock(&log->lock);
    *(log->done ? &log->done_last->next : &log->done) = w;
    log->done_last = w;
    pthread_mutex_unlock(&log->lock);
    loop_wake_send(log->wake);
}

static void on_wake(void *arg) {
    struct audit_log *log = arg;
    pthread_mutex_lock(&log->lock);
    struct audit_write *w = log->done;
    log->done = log->done_last = NULL;
    pthread_mutex_unlock(&log->lock);
    for (struct audit_write *next; w; w = next) {
        next = w->next;
        log->writing--;
        Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
        /* Whatever went wrong on the way: what must be kept is on disk, unless the process ends. */
        if (w->correlation && w->result == ERR_CANCELED)
            question_error(log->sc, w->correlation, w->result, NULL);
        else if (w->correlation)
            question_reply(log->sc, w->correlation, &r, true);
        write_free(w);
    }
}

static struct audit_write *write_new(struct audit_log *log, uint64_t correlation) {
    struct audit_write *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    *w = (struct audit_write){.log = log, .correlation = correlation};
    w->request = (struct commit_request){.keep = store_batch_new(), .done = on_written, .arg = w};
    if (w->request.keep)
        return w;
    free(w);
    return NULL;
}

static void submit(struct audit_write *w) {
    w->log->writing++;
    commit_submit(w->log->sc->commit, &w->request);
}

/* -- what is to go -- */

struct removal {
    struct audit_log *log;
    struct audit_write *write;
    uint64_t have, now_ms, found, wrong;
    int err;
};

static void find_old(void *arg) {
    struct removal *r = arg;
    r->err = audit_find_old(r->log->sc->store, r->write->request.keep, r->have, r->now_ms, &r->found, &r->wrong);
}

static void found_old(void *arg) {
    struct removal *r = arg;
    r->log->looking = false;
    if (r->err == ERR_OK && r->found + r->wrong > 0) {
        audit_removed(&r->log->audit, r->write->request.keep, r->found + r->wrong);
        LOG_INFO("audit_shortened", LOG_U64("records", r->found));
        submit(r->write);
    } else {
        if (r->err != ERR_OK)
            LOG_ERROR("audit_unreadable", LOG_ERR("why", r->err));
        write_free(r->write);
    }
    free(r);
}

void audit_log_poll(struct audit_log *log) {
    uint64_t now_ms = scheduler_now(log->sc);
    if (log->looking || log->sc->draining || !commit_is_healthy(log->sc->commit))
        return;
    if (now_ms - log->looked_ms < LOOK_EVERY_MS && !audit_is_crowded(&log->audit))
        return;
    struct removal *r = calloc(1, sizeof *r);
    CHECK(r);
    *r = (struct removal){.log = log, .write = write_new(log, 0), .have = log->audit.count, .now_ms = now_ms};
    CHECK(r->write);
    log->looked_ms = now_ms;
    log->looking = scheduler_work(log->sc, find_old, found_old, r);
    if (log->looking)
        return;
    write_free(r->write);
    free(r);
}

/* -- put -- */

void question_audit_put(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    struct audit_log *log = sc->audit;
    struct audit_write *w = NULL;
    int err = m->audit ? ERR_OK : ERR_INVALID;
    if (err == ERR_OK && (log->writing >= WRITES_MAX || !commit_is_healthy(sc->commit)))
        err = ERR_AGAIN; /* the store takes no writes at the moment */
    if (err == ERR_OK && !(w = write_new(log, correlation)))
        err = ERR_NOMEM;
    if (err == ERR_OK)
        err = audit_put(&log->audit, w->request.keep, m->audit, scheduler_now(sc));
    if (err == ERR_OK) {
        submit(w);
        return;
    }
    if (w)
        write_free(w);
    question_error(sc, correlation, err, err == ERR_AGAIN ? "the audit log takes no record at the moment" : NULL);
}

/* -- list -- */

struct audit_page {
    struct scheduler *sc;
    uint64_t correlation;
    size_t limit;
    struct span words[WORDS_MAX], after;
    size_t word_count;
    struct arena mem;
    Words__AdminAudit **audits;
    size_t count, cap, bytes;
    char cursor[AUDIT_CURSOR_LEN];
    bool full;
    struct buf line;
    int err;
};

/* "ADMIN_HOLD": "hold". */
static void add_verb(struct buf *to, uint32_t verb) {
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&words__admin_verb__descriptor, (int)verb);
    buf_add_str(to, v ? v->name + sizeof "ADMIN_" - 1 : "?");
    buf_add_byte(to, ' ');
}

static bool holds(struct span line, struct span word) {
    for (size_t i = 0; i + word.len <= line.len; i++)
        if (span_eq_nocase(span_first(span_from(line, i), word.len), word))
            return true;
    return false;
}

/* A record matches when all words stand somewhere in what would be shown of it. */
static bool audit_matches(struct audit_page *p, const Words__AdminAudit *a) {
    static const char *const stages[] = {"?", "begun", "done", "refused"};
    const ProtobufCBinaryData texts[] = {a->actor, a->what, a->reason, a->target, a->origin};
    buf_clear(&p->line);
    add_verb(&p->line, a->verb);
    buf_add_str(&p->line, stages[a->stage < 4 ? a->stage : 0]);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        buf_add_byte(&p->line, ' ');
        buf_add(&p->line, frame_span(texts[i]));
    }
    for (size_t i = 0; i < p->word_count; i++)
        if (!holds(buf_span(&p->line), p->words[i]))
            return false;
    return true;
}

static bool on_record(void *arg, const Words__AdminAudit *a, struct span cursor) {
    struct audit_page *p = arg;
    if (walks_is_stopped(p->sc->walks))
        p->err = ERR_CANCELED;
    if (p->err != ERR_OK || !audit_matches(p, a))
        return p->err == ERR_OK;
    Words__AdminAudit *copy = question_copy(&p->mem, &a->base);
    if (!copy || !question_grow(&p->mem, &p->audits, &p->cap, p->count)) {
        p->err = ERR_NOMEM;
        return false;
    }
    p->audits[p->count++] = copy;
    p->bytes += protobuf_c_message_get_packed_size(&a->base);
    memcpy(p->cursor, cursor.at, sizeof p->cursor);
    p->full = p->count >= p->limit || p->bytes >= LIST_BYTES_MAX;
    return !p->full;
}

static void read_audits(void *arg) {
    struct audit_page *p = arg;
    int err = audit_read(p->sc->store, p->after, on_record, p);
    if (p->err == ERR_OK)
        p->err = err;
}

static void audit_page_free(struct audit_page *p) {
    arena_deinit(&p->mem);
    buf_deinit(&p->line);
    free(p);
}

static void audits_read(void *arg) {
    struct audit_page *p = arg;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.n_audits = p->count;
    r.audits = p->audits;
    r.has_cursor = p->full;
    r.cursor = frame_bytes(span_make(p->cursor, sizeof p->cursor));
    if (p->err == ERR_OK)
        question_reply(p->sc, p->correlation, &r, true);
    else
        question_error(p->sc, p->correlation, p->err, p->err == ERR_INVALID ? "not a cursor of this listing" : NULL);
    audit_page_free(p);
}

static int take_words(struct audit_page *p, struct span text) {
    while ((text = span_trim(text)).len) {
        if (p->word_count == WORDS_MAX)
            return ERR_FULL;
        p->words[p->word_count++] = span_cut(text, ' ', &text);
    }
    return ERR_OK;
}

void question_audit_list(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    struct audit_page *p = calloc(1, sizeof *p);
    CHECK(p);
    *p = (struct audit_page){.sc = sc, .correlation = correlation, .limit = LIST_DEFAULT};
    if (m->has_limit && m->limit)
        p->limit = m->limit < QUESTION_ROWS_MAX ? m->limit : QUESTION_ROWS_MAX;
    arena_init(&p->mem, 64 * 1024, MEMORY_MAX);
    buf_init(&p->line, 8 * AUDIT_TEXT_MAX);
    p->after = m->has_after ? arena_dup(&p->mem, frame_span(m->after)) : SPAN_EMPTY;
    struct span filter = m->has_filter ? frame_span(m->filter) : SPAN_EMPTY;
    int err = filter.len > FILTER_TEXT_MAX ? ERR_FULL : take_words(p, arena_dup(&p->mem, filter));
    const char *problem = err == ERR_FULL ? "too many words to look for" : NULL;
    if (err == ERR_OK)
        err = walks_start(sc->walks, false, read_audits, audits_read, p);
    if (err == ERR_OK)
        return;
    question_error(sc, correlation, err, err == ERR_AGAIN ? QUESTION_BUSY : problem);
    audit_page_free(p);
}

/* -- life -- */

int audit_log_open(struct audit_log **out, struct scheduler *sc) {
    struct audit_log *log = calloc(1, sizeof *log);
    if (!log)
        return ERR_NOMEM;
    log->sc = sc;
    pthread_mutex_init(&log->lock, NULL);
    log->wake = loop_wake_new(sc->loop, on_wake, log);
    int err = log->wake ? audit_open(&log->audit, sc->store) : ERR_NOMEM;
    if (err != ERR_OK) {
        audit_log_close(log);
        return err;
    }
    *out = log;
    return ERR_OK;
}

void audit_log_close(struct audit_log *log) {
    if (!log)
        return;
    for (struct audit_write *w = log->done, *next; w; w = next) { /* written while the thread ended */
        next = w->next;
        write_free(w);
    }
    if (log->wake)
        loop_wake_close(log->wake);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

bool audit_log_is_idle(const struct audit_log *log) {
    return log->writing == 0;
}
