/*
 * question_message: one message: its envelope and the states of its recipients (`msg show`), its history (`msg trace`),
 * and why it is where it is (`msg why`). What the store says is read on a helper thread; what the core knows better is
 * laid over it on the loop.
 */
#include <stdlib.h>

#include "base/check.h"
#include "proto/id.h"
#include "scheduler/question_in.h"
#include "scheduler/why.h"

#define TRACES_MAX 1000u
#define MEMORY_MAX (64u * 1024u * 1024u)

struct message_question {
    struct scheduler *sc;
    uint64_t correlation, id, now_ms;
    Words__AdminVerb verb;
    struct arena mem;
    Words__Envelope *envelope;
    Words__RecipientState **states;
    Words__Trace **traces;
    size_t trace_count, trace_cap, trace_max;
    int err;
};

/* -- on a helper thread -- */

static void on_trace(void *arg, const Words__Trace *t) {
    struct message_question *q = arg;
    Words__Trace *copy = q->trace_count < q->trace_max ? question_copy(&q->mem, &t->base) : NULL;
    if (copy && question_grow(&q->mem, &q->traces, &q->trace_cap, q->trace_count))
        q->traces[q->trace_count++] = copy;
}

static void read_message(void *arg) {
    struct message_question *q = arg;
    uint32_t shard = id_shard(q->id);
    int err = queue_get_message(q->sc->store, shard, q->id, &q->mem, &q->envelope, &q->states);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        q->err = err;
        return;
    }
    q->err = queue_each_trace(q->sc->store, shard, q->id, q->now_ms, on_trace, q);
    if (q->err == ERR_OK && !q->envelope && !q->trace_count)
        q->err = ERR_NOT_FOUND;
}

/* -- back on the loop -- */

static void send_message(struct message_question *q) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    size_t cap = 0;
    struct buf text;
    r.envelope = q->envelope;
    for (uint32_t i = 0; q->envelope && i < q->envelope->n_recipients; i++) {
        Words__AdminRow *row = question_row(&q->mem, q->id, i, q->envelope, q->states[i]);
        if (row && question_grow(&q->mem, &r.rows, &cap, r.n_rows))
            r.rows[r.n_rows++] = row;
    }
    why_overlay(q->sc, q->id, r.rows, r.n_rows);
    r.n_traces = q->trace_count;
    r.traces = q->traces;
    buf_init(&text, 64 * 1024);
    if (q->verb == WORDS__ADMIN_VERB__ADMIN_MSG_WHY) {
        why_write(&text, q->sc, q->id, &r, q->now_ms);
        r.has_text = true;
        r.text = frame_bytes(buf_span(&text));
    }
    question_reply(q->sc, q->correlation, &r, true);
    buf_deinit(&text);
}

static void message_read(void *arg) {
    struct message_question *q = arg;
    if (q->err == ERR_OK)
        send_message(q);
    else
        question_error(q->sc, q->correlation, q->err, NULL);
    arena_deinit(&q->mem);
    free(q);
}

void question_message(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    struct message_question *q = calloc(1, sizeof *q);
    CHECK(q);
    *q = (struct message_question){.sc = sc, .correlation = correlation, .verb = m->verb, .trace_max = TRACES_MAX};
    q->id = m->has_message ? m->message : 0;
    q->now_ms = scheduler_now(sc);
    if (m->has_limit && m->limit && m->limit < q->trace_max)
        q->trace_max = m->limit;
    arena_init(&q->mem, 64 * 1024, MEMORY_MAX);
    int err = scheduler_shard_of(sc, q->id) ? ERR_OK : ERR_NOT_FOUND;
    if (err == ERR_OK && !scheduler_work(sc, read_message, message_read, q))
        err = ERR_NOMEM;
    if (err == ERR_OK)
        return;
    question_error(sc, correlation, err, NULL);
    arena_deinit(&q->mem);
    free(q);
}
