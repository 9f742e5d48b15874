/*
 * question: the scheduler's answers to the admin RPC (proto/admin.proto): status, the queue's rows and
 * summary, one message's envelope, history and reasons. Changes of the queue are in operator.c.
 *
 * Questions that walk the store run on a helper thread, send their rows in replies of at most PAGE rows,
 * and stop at the limit of the request. One question at a time is read for each correlation; their
 * number at once is bounded by the admin service.
 */
#include "scheduler/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/units.h"
#include "proto/filter.h"
#include "scheduler/why.h"

#define PAGE 200u
#define LIMIT_DEFAULT 1000u
#define IDS_AT_ONCE 512u
#define SUMMARY_MAX 100000u /* destinations of one summary */

struct summary_row {
    struct map_node by_name;
    struct list_node link;
    struct span name;
    uint64_t count, ready, deferred, oldest_ms;
};

struct question {
    struct scheduler *sc;
    uint64_t correlation;
    Words__AdminVerb verb;
    uint64_t message;
    uint32_t limit;
    uint64_t now_ms;
    struct filter *filter;
    /* the answer, made on the helper thread */
    struct arena mem;
    Words__AdminRow **rows;
    size_t row_count, row_cap;
    Words__Trace **traces;
    size_t trace_count, trace_cap;
    Words__Envelope *envelope;
    Words__RecipientState **states;
    uint64_t matched;
    struct map summary;
    struct list summary_rows;
    struct store_stats stats;
    int err;
};

/* -- replies -- */

void question_reply(struct scheduler *sc, uint64_t correlation, Words__AdminReply *r, bool last) {
    r->has_last = true;
    r->last = last;
    int err = frame_send_peer(sc->admin, FRAME_ADMIN_REPLY, correlation, 0, &r->base, NULL, &sc->pack);
    if (err == ERR_OK)
        return;
    LOG_WARN("admin_reply_unsent", LOG_ERR("why", err));
    if (!r->has_error) /* too long for one frame: a short answer gets through */
        question_error(sc, correlation, err, "the answer is too long to be shown");
}

void question_error(struct scheduler *sc, uint64_t correlation, int err, const char *text) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = true;
    r.error = (uint32_t)-err;
    r.has_text = true;
    r.text = frame_bytes(span_of(text ? text : err_text(err)));
    question_reply(sc, correlation, &r, true);
}

/* -- rows, on the helper thread -- */

/* Room for one more in an array of pointers or ids (both of 8 octets) that lives in the arena. */
static bool grow(struct arena *mem, void *array_ptr, size_t *cap, size_t count) {
    if (count < *cap)
        return true;
    size_t bigger = *cap ? *cap * 2 : 64;
    void *old, *fresh = arena_alloc(mem, bigger * sizeof(uint64_t));
    if (!fresh)
        return false;
    memcpy(&old, array_ptr, sizeof old);
    if (count)
        memcpy(fresh, old, count * sizeof(uint64_t));
    memcpy(array_ptr, &fresh, sizeof fresh);
    *cap = bigger;
    return true;
}

static uint32_t state_of(const Words__RecipientState *s) {
    return s ? s->state : SCHED_READY;
}

static Words__AdminRow *make_row(struct arena *mem, uint64_t id, uint32_t index, const Words__Envelope *e,
                                 const Words__RecipientState *s) {
    Words__AdminRow *r = arena_alloc(mem, sizeof *r);
    if (!r)
        return NULL;
    words__admin_row__init(r);
    r->has_message = r->has_index = r->has_sender = r->has_recipient = r->has_destination = r->has_state = true;
    r->has_received_ms = r->has_size = true;
    r->message = id;
    r->index = index;
    r->sender = e->sender;
    r->recipient = e->recipients[index]->address;
    r->destination = e->recipients[index]->destination;
    r->state = state_of(s);
    r->received_ms = e->received_ms;
    r->size = e->size;
    if (s) {
        r->has_attempts = s->has_attempts;
        r->attempts = s->attempts;
        r->has_due_ms = s->has_due_ms;
        r->due_ms = s->due_ms;
        r->last = s->last;
    }
    return r;
}

static bool row_matches(const struct question *q, const Words__AdminRow *r) {
    struct filter_subject s = {
        .message = r->message,
        .sender = frame_span(r->sender),
        .recipient = frame_span(r->recipient),
        .destination = frame_span(r->destination),
        .state = r->state,
        .received_ms = r->received_ms,
    };
    return r->state != SCHED_SETTLED && (!q->filter || filter_matches(q->filter, &s, q->now_ms));
}

static bool match_row(const struct map_node *n, const void *key) {
    return span_eq(LIST_ENTRY(n, struct summary_row, by_name)->name, *(const struct span *)key);
}

static void summarise(struct question *q, const Words__AdminRow *r) {
    struct span name = frame_span(r->destination);
    uint64_t hash = hash_span(name, 0);
    struct map_node *n = map_find(&q->summary, hash, match_row, &name);
    struct summary_row *row = n ? LIST_ENTRY(n, struct summary_row, by_name) : NULL;
    if (!row && q->summary.count < SUMMARY_MAX) {
        row = arena_calloc(&q->mem, 1, sizeof *row);
        if (row)
            row->name = arena_dup(&q->mem, name);
        if (!row || map_insert(&q->summary, &row->by_name, hash) != ERR_OK) {
            q->err = ERR_NOMEM;
            return;
        }
        row->oldest_ms = UINT64_MAX;
        list_push_back(&q->summary_rows, &row->link);
    }
    if (!row) {
        q->err = ERR_FULL;
        return;
    }
    row->count++;
    if (r->state == SCHED_DEFERRED)
        row->deferred++;
    else
        row->ready++;
    if (r->received_ms < row->oldest_ms)
        row->oldest_ms = r->received_ms;
}

/* A copy of m in the arena of the answer; NULL: no memory. */
static void *keep_copy(struct question *q, const ProtobufCMessage *m) {
    struct buf packed;
    buf_init(&packed, FRAME_META_MAX);
    void *copy = NULL;
    if (frame_pack(m, &packed) == ERR_OK) {
        struct span bytes = arena_dup(&q->mem, buf_span(&packed));
        copy = bytes.at ? frame_unpack(m->descriptor, bytes, &q->mem) : NULL;
    }
    buf_deinit(&packed);
    return copy;
}

static void keep_row(struct question *q, Words__AdminRow *r) {
    if (q->row_count >= q->limit)
        return;
    q->matched++;
    r = keep_copy(q, &r->base);
    if (!r || !grow(&q->mem, &q->rows, &q->row_cap, q->row_count))
        q->err = ERR_NOMEM;
    else
        q->rows[q->row_count++] = r;
}

/* One message, read into mem; what belongs to the answer is copied. */
static void judge_message(struct question *q, uint32_t shard, uint64_t id, struct arena *mem) {
    Words__Envelope *e;
    Words__RecipientState **states;
    int err = queue_get_message(q->sc->store, shard, id, mem, &e, &states);
    if (err == ERR_NOT_FOUND)
        return; /* delivered meanwhile */
    if (err != ERR_OK) {
        q->err = err;
        return;
    }
    for (uint32_t i = 0; i < e->n_recipients && q->err == ERR_OK; i++) {
        Words__AdminRow *r = make_row(mem, id, i, e, states[i]);
        if (!r) {
            q->err = ERR_NOMEM;
        } else if (row_matches(q, r)) {
            if (q->verb == WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY)
                summarise(q, r);
            else
                keep_row(q, r);
        }
    }
}

static void walk_shard(struct question *q, uint32_t shard) {
    uint64_t ids[IDS_AT_ONCE], after = 0;
    size_t count = 0;
    struct arena mem;
    bool keeps = q->verb == WORDS__ADMIN_VERB__ADMIN_QUEUE_LIST;
    arena_init(&mem, 64 * 1024, 0);
    if (q->filter && filter_id(q->filter)) {
        if (id_shard(filter_id(q->filter)) == shard)
            judge_message(q, shard, filter_id(q->filter), &mem);
        arena_deinit(&mem);
        return;
    }
    do {
        q->err = queue_read_ids(q->sc->store, shard, after, UINT64_MAX, ids, IDS_AT_ONCE, &count);
        for (size_t i = 0; i < count && q->err == ERR_OK; i++) {
            judge_message(q, shard, ids[i], &mem);
            arena_reset(&mem);
            after = ids[i];
        }
    } while (q->err == ERR_OK && count == IDS_AT_ONCE && !(keeps && q->row_count >= q->limit));
    arena_deinit(&mem);
}

static void on_trace_record(void *arg, const Words__Trace *t) {
    struct question *q = arg;
    Words__Trace *copy = q->trace_count < q->limit ? keep_copy(q, &t->base) : NULL;
    if (copy && grow(&q->mem, &q->traces, &q->trace_cap, q->trace_count))
        q->traces[q->trace_count++] = copy;
}

static void read_one(struct question *q) {
    uint32_t shard = id_shard(q->message);
    struct store *s = q->sc->store;
    int err = queue_get_message(s, shard, q->message, &q->mem, &q->envelope, &q->states);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        q->err = err;
        return;
    }
    q->err = queue_each_trace(s, shard, q->message, q->now_ms, on_trace_record, q);
    if (q->err == ERR_OK && !q->envelope && !q->trace_count)
        q->err = ERR_NOT_FOUND;
}

static void work(void *arg) {
    struct question *q = arg;
    switch (q->verb) {
    case WORDS__ADMIN_VERB__ADMIN_QUEUE_LIST:
    case WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY:
        for (uint32_t i = 0; i < q->sc->config.shards && q->err == ERR_OK; i++)
            walk_shard(q, i);
        return;
    case WORDS__ADMIN_VERB__ADMIN_STATUS:
        store_stats(q->sc->store, &q->stats); /* reads a directory, and waits while the store is opened again */
        return;
    default:
        read_one(q);
    }
}

/* -- back on the loop -- */

static void question_free(struct question *q) {
    filter_free(q->filter);
    map_deinit(&q->summary);
    arena_deinit(&q->mem);
    free(q);
}

static void send_rows(struct question *q) {
    size_t at = 0;
    do {
        Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
        size_t n = q->row_count - at < PAGE ? q->row_count - at : PAGE;
        r.n_rows = n;
        r.rows = q->rows ? q->rows + at : NULL;
        at += n;
        r.has_count = at == q->row_count;
        r.count = q->matched;
        question_reply(q->sc, q->correlation, &r, at == q->row_count);
    } while (at < q->row_count);
}

static int by_count(const void *a, const void *b) {
    const Words__AdminRow *x = *(Words__AdminRow *const *)a, *y = *(Words__AdminRow *const *)b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return span_cmp(frame_span(x->destination), frame_span(y->destination));
}

static void send_summary(struct question *q) {
    LIST_FOREACH(it, next, &q->summary_rows) {
        const struct summary_row *s = LIST_ENTRY(it, struct summary_row, link);
        Words__AdminRow *r = arena_alloc(&q->mem, sizeof *r);
        if (!r || !grow(&q->mem, &q->rows, &q->row_cap, q->row_count))
            break;
        words__admin_row__init(r);
        r->has_destination = r->has_count = r->has_ready = r->has_deferred = r->has_oldest_ms = true;
        r->destination = frame_bytes(s->name);
        r->count = s->count;
        r->ready = s->ready;
        r->deferred = s->deferred;
        r->oldest_ms = s->oldest_ms;
        q->matched += s->count;
        q->rows[q->row_count++] = r;
    }
    if (q->row_count)
        qsort(q->rows, q->row_count, sizeof(Words__AdminRow *), by_count);
    if (q->row_count > q->limit)
        q->row_count = q->limit;
    send_rows(q);
}

static void send_message(struct question *q) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.envelope = q->envelope;
    for (uint32_t i = 0; q->envelope && i < q->envelope->n_recipients; i++) {
        Words__AdminRow *row = make_row(&q->mem, q->message, i, q->envelope, q->states[i]);
        if (row && grow(&q->mem, &q->rows, &q->row_cap, q->row_count))
            q->rows[q->row_count++] = row;
    }
    why_overlay(q->sc, q->message, q->rows, q->row_count);
    r.n_rows = q->row_count;
    r.rows = q->rows;
    r.n_traces = q->trace_count;
    r.traces = q->traces;
    struct buf text;
    buf_init(&text, 64 * 1024);
    if (q->verb == WORDS__ADMIN_VERB__ADMIN_MSG_WHY) {
        why_write(&text, q->sc, q->message, &r, q->now_ms);
        r.has_text = true;
        r.text = frame_bytes(buf_span(&text));
    }
    question_reply(q->sc, q->correlation, &r, true);
    buf_deinit(&text);
}

static void add_figure(Words__AdminReply *r, Words__AdminFigure *figures, const char *name, double value) {
    Words__AdminFigure *f = &figures[r->n_figures];
    words__admin_figure__init(f);
    f->name = frame_bytes(span_of(name));
    f->value = value;
    r->figures[r->n_figures++] = f;
}

static void send_status(const struct question *q) {
    struct scheduler *sc = q->sc;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    Words__AdminFigure figures[32], *pointers[32];
    struct sched_counts sum = {0}, c;
    uint64_t messages = 0, scanned = 0;
    r.figures = pointers;
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        sched_counts(shard_core(sc->shards[i]), &c);
        messages += shard_totals(sc->shards[i])->messages;
        scanned += loader_has_scanned(sc->loaders[i]);
        sum.messages += c.messages;
        sum.ready += c.ready;
        sum.assigned += c.assigned;
        sum.in_doubt += c.in_doubt;
        sum.delivered += c.delivered;
        sum.deferrals += c.deferrals;
        sum.failed += c.failed;
        sum.expired += c.expired;
        sum.reports += c.reports;
        sum.no_reports += c.no_reports;
        sum.destinations += c.destinations;
        sum.sites += c.sites;
        sum.workers = c.workers;
    }
    add_figure(&r, figures, "queue_messages", (double)messages);
    add_figure(&r, figures, "queue_active_messages", (double)sum.messages);
    add_figure(&r, figures, "queue_ready", (double)sum.ready);
    add_figure(&r, figures, "queue_assigned", (double)sum.assigned);
    add_figure(&r, figures, "queue_scanned", scanned == sc->config.shards);
    add_figure(&r, figures, "delivered", (double)sum.delivered);
    add_figure(&r, figures, "deferrals", (double)sum.deferrals);
    add_figure(&r, figures, "failed", (double)sum.failed);
    add_figure(&r, figures, "expired", (double)sum.expired);
    add_figure(&r, figures, "in_doubt", (double)sum.in_doubt);
    add_figure(&r, figures, "reports", (double)sum.reports);
    add_figure(&r, figures, "reports_none", (double)sum.no_reports);
    add_figure(&r, figures, "destinations", sum.destinations);
    add_figure(&r, figures, "sites", sum.sites);
    add_figure(&r, figures, "delivery_nodes", sum.workers);
    add_figure(&r, figures, "store_healthy", commit_is_healthy(sc->commit));
    add_figure(&r, figures, "store_damaged", store_is_damaged(sc->store));
    add_figure(&r, figures, "store_disk_bytes", (double)q->stats.disk_bytes);
    add_figure(&r, figures, "store_memory_bytes", (double)q->stats.memory_bytes);
    question_reply(sc, q->correlation, &r, true);
}

static void done(void *arg) {
    struct question *q = arg;
    if (q->err != ERR_OK) {
        question_error(q->sc, q->correlation, q->err,
                   q->err == ERR_FULL ? "more than the limit match; narrow the filter" : NULL);
    } else if (q->verb == WORDS__ADMIN_VERB__ADMIN_QUEUE_LIST) {
        send_rows(q);
    } else if (q->verb == WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY) {
        send_summary(q);
    } else if (q->verb == WORDS__ADMIN_VERB__ADMIN_STATUS) {
        send_status(q);
    } else {
        send_message(q);
    }
    question_free(q);
}

/* -- requests -- */

static void ask(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    const char *problem = NULL;
    struct question *q = calloc(1, sizeof *q);
    CHECK(q);
    *q = (struct question){.sc = sc, .correlation = correlation, .verb = m->verb, .now_ms = scheduler_now(sc)};
    q->limit = m->has_limit && m->limit ? m->limit : LIMIT_DEFAULT;
    if (m->verb == WORDS__ADMIN_VERB__ADMIN_QUEUE_SUMMARY)
        q->limit = m->has_limit && m->limit ? m->limit : SUMMARY_MAX;
    q->message = m->has_message ? m->message : 0;
    arena_init(&q->mem, 64 * 1024, 512 * 1024 * 1024);
    map_init(&q->summary);
    list_init(&q->summary_rows);
    int err = ERR_OK;
    if (m->has_filter && m->filter.len)
        err = filter_parse(&q->filter, frame_span(m->filter), &problem);
    if (err == ERR_OK && q->message && !scheduler_shard_of(sc, q->message))
        err = ERR_NOT_FOUND;
    if (err == ERR_OK && !scheduler_work(sc, work, done, q))
        err = ERR_NOMEM;
    if (err != ERR_OK) {
        question_error(sc, correlation, err, problem);
        question_free(q);
    }
}

void question_on_message(void *arg, const struct bus_message *msg) {
    struct scheduler *sc = arg;
    struct frame f;
    if (frame_read(&f, msg) != ERR_OK || f.kind != FRAME_ADMIN_REQUEST)
        return;
    struct arena mem;
    arena_init(&mem, 4096, FRAME_META_MAX * 2u);
    const Words__AdminRequest *m = frame_unpack(&words__admin_request__descriptor, f.meta, &mem);
    if (!m)
        question_error(sc, f.correlation, ERR_INVALID, NULL);
    else if (m->verb == WORDS__ADMIN_VERB__ADMIN_ROUTE || m->verb == WORDS__ADMIN_VERB__ADMIN_VERIFY)
        question_error(sc, f.correlation, ERR_UNSUPPORTED, NULL);
    else if (!operator_on_request(sc, f.correlation, m))
        ask(sc, f.correlation, m);
    arena_deinit(&mem);
}
