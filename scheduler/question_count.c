/*
 * question_count: `queue summary` and `queue shape`: rows by destination, most recipients first. Without a filter they
 * come from the census that all who ask share; with one from a walk of their own.
 *
 * The rows go out in replies of QUESTION_ROWS_MAX; a summary has all destinations unless fewer are asked for.
 */
#include <stdlib.h>

#include "base/check.h"
#include "proto/id.h"
#include "scheduler/question_in.h"
#include "store/queue_walk.h"

#define SHAPE_DEFAULT 50u

struct counting {
    struct scheduler *sc;
    uint64_t correlation;
    bool shape;
    uint32_t limit;
    struct question_match *match;
    struct census_waiter waiter;
    struct tally tally; /* with a filter */
    int err;
};

/* -- replies -- */

static void fill_row(Words__AdminRow *r, const struct tally_row *t, uint64_t ages[TALLY_AGES]) {
    words__admin_row__init(r);
    r->has_destination = r->has_count = r->has_ready = r->has_deferred = r->has_held = true;
    r->destination = frame_bytes(t->name);
    r->count = t->count;
    r->ready = t->ready;
    r->deferred = t->deferred;
    r->held = t->held;
    r->has_oldest_ms = t->oldest_ms != UINT64_MAX;
    r->oldest_ms = t->oldest_ms;
    if (!ages)
        return;
    for (size_t i = 0; i < TALLY_AGES; i++)
        ages[i] = t->ages[i];
    r->n_ages = TALLY_AGES;
    r->ages = ages;
}

/* Row 0 of a shape is its total. */
static void send_rows(const struct counting *k, const struct tally *t) {
    Words__AdminRow *rows = calloc(QUESTION_ROWS_MAX, sizeof *rows),
                    **pointers = calloc(QUESTION_ROWS_MAX, sizeof *pointers);
    uint64_t(*ages)[TALLY_AGES] = calloc(QUESTION_ROWS_MAX, sizeof *ages);
    uint32_t next = 0, end = t->row_count < k->limit ? t->row_count : k->limit;
    bool total = k->shape;
    CHECK(rows && pointers && ages);
    do {
        Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
        r.rows = pointers;
        for (; r.n_rows < QUESTION_ROWS_MAX && (total || next < end); total = false) {
            pointers[r.n_rows] = &rows[r.n_rows];
            fill_row(&rows[r.n_rows], total ? &t->total : t->rows[next++], k->shape ? ages[r.n_rows] : NULL);
            r.n_rows++;
        }
        r.has_count = next == end;
        r.count = t->total.count;
        question_reply(k->sc, k->correlation, &r, next == end);
    } while (next < end);
    free(rows);
    free(pointers);
    free(ages);
}

static void counting_free(struct counting *k) {
    question_match_free(k->match);
    tally_deinit(&k->tally);
    free(k);
}

static void on_census(struct census_waiter *w, int err, const struct census_result *r) {
    struct counting *k = CONTAINER_OF(w, struct counting, waiter);
    if (err == ERR_OK)
        send_rows(k, r->all);
    else
        question_error(k->sc, k->correlation, err, NULL);
    counting_free(k);
}

/* -- with a filter: on the walk's thread -- */

static int add_message(struct counting *k, const struct queue_walk *w, struct arena *mem) {
    const Words__Envelope *e = frame_unpack(&words__envelope__descriptor, w->envelope, mem);
    uint32_t at = 0;
    int err = e && e->n_recipients ? ERR_OK : ERR_CORRUPT;
    for (uint32_t i = 0; err == ERR_OK && i < e->n_recipients; i++) {
        struct span packed = queue_walk_state(w, i, &at);
        const Words__RecipientState *s =
            packed.len ? frame_unpack(&words__recipient_state__descriptor, packed, mem) : NULL;
        if (packed.len && !s)
            return ERR_CORRUPT;
        Words__AdminRow *r = question_row(mem, w->id, i, e, s);
        if (!r)
            return ERR_NOMEM;
        if (question_matches(k->match, r))
            err = tally_add(&k->tally, question_way(r), r->state, r->received_ms);
    }
    return err;
}

static void count_shard(struct counting *k, uint32_t shard) {
    uint64_t only = question_match_id(k->match);
    struct queue_walk w;
    struct arena mem;
    if (only && id_shard(only) != shard)
        return;
    arena_init(&mem, 64 * 1024, 0);
    queue_walk_init(&w, k->sc->store, shard, only);
    while (k->err == ERR_OK && queue_walk_next(&w) && (!only || w.id == only)) {
        k->err = add_message(k, &w, &mem);
        if (k->err == ERR_CORRUPT)
            k->err = queue_walk_corrupt(&w);
        if (walks_is_stopped(k->sc->walks))
            k->err = ERR_CANCELED;
        arena_reset(&mem);
    }
    if (k->err == ERR_OK)
        k->err = w.err;
    queue_walk_deinit(&w);
    arena_deinit(&mem);
}

static void count_all(void *arg) {
    struct counting *k = arg;
    for (uint32_t i = 0; i < k->sc->config.shards && k->err == ERR_OK; i++)
        count_shard(k, i);
    if (k->err == ERR_OK)
        k->err = tally_sort(&k->tally);
}

/* -- back on the loop -- */

static void counted(void *arg) {
    struct counting *k = arg;
    if (k->err == ERR_OK)
        send_rows(k, &k->tally);
    else
        question_error(k->sc, k->correlation, k->err, NULL);
    counting_free(k);
}

/* ERR_OK: it was answered, or will be. */
static int begin(struct counting *k) {
    struct census_result r;
    if (!question_match_all(k->match))
        return walks_start(k->sc->walks, false, count_all, counted, k);
    if (!census_fresh(k->sc->census, &r)) {
        k->waiter.then = on_census;
        return census_wait(k->sc->census, &k->waiter);
    }
    send_rows(k, r.all);
    counting_free(k);
    return ERR_OK;
}

void question_count(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    const char *problem = NULL;
    struct counting *k = calloc(1, sizeof *k);
    CHECK(k);
    *k = (struct counting){.sc = sc, .correlation = correlation, .limit = UINT32_MAX};
    k->shape = m->verb == WORDS__ADMIN_VERB__ADMIN_QUEUE_SHAPE;
    if (k->shape)
        k->limit = SHAPE_DEFAULT;
    if (m->has_limit && m->limit)
        k->limit = m->limit;
    tally_init(&k->tally, scheduler_now(sc));
    int err = question_match_new(&k->match, sc, m->has_filter ? frame_span(m->filter) : SPAN_EMPTY, &problem);
    if (err == ERR_OK)
        err = begin(k);
    if (err == ERR_OK)
        return;
    question_error(sc, correlation, err, err == ERR_AGAIN ? QUESTION_BUSY : problem);
    counting_free(k);
}
