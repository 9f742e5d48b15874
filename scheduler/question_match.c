/*
 * question_match: which recipients an operator's filter names. The store knows most of what a filter asks for; what is
 * under way, and which site a destination belongs to, only the cores know: both are copied at the beginning, so that
 * the walk over the store needs no core. What changes while the walk lasts is shown as it was.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/core/survey.h"
#include "scheduler/question_in.h"

#define ASSIGNED_MAX 200000u /* recipients under way that are told apart from ready ones */
#define COPY_MAX (16u * 1024u * 1024u)

struct assigned {
    uint64_t message;
    uint32_t index;
};
struct destination {
    struct map_node by_name;
    struct span name;
};
struct question_match {
    struct filter *filter;
    uint64_t now_ms;
    struct assigned *assigned; /* sorted */
    size_t assigned_count, assigned_cap;
    struct span site; /* that the filter names, or empty */
    struct arena mem;
    struct map destinations; /* of that site */
    bool no_memory;
};

/* -- what the cores know -- */

static void on_attempt(void *arg, uint64_t message, const uint32_t *indexes, uint32_t count) {
    struct question_match *k = arg;
    for (uint32_t i = 0; i < count && k->assigned_count < ASSIGNED_MAX; i++) {
        if (k->assigned_count == k->assigned_cap) {
            size_t cap = k->assigned_cap ? k->assigned_cap * 2 : 256;
            struct assigned *grown = realloc(k->assigned, cap * sizeof *grown);
            if (!grown) {
                k->no_memory = true;
                return;
            }
            k->assigned = grown;
            k->assigned_cap = cap;
        }
        k->assigned[k->assigned_count++] = (struct assigned){message, indexes[i]};
    }
}

static int by_message(const void *a, const void *b) {
    const struct assigned *x = a, *y = b;
    if (x->message != y->message)
        return x->message < y->message ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static bool is_name(const struct map_node *n, const void *key) {
    return span_eq(LIST_ENTRY(n, struct destination, by_name)->name, *(const struct span *)key);
}

static void on_destination(void *arg, struct span name) {
    struct question_match *k = arg;
    struct destination *d = arena_calloc(&k->mem, 1, sizeof *d);
    if (d)
        d->name = arena_dup(&k->mem, name);
    if (!d || !d->name.at || map_insert(&k->destinations, &d->by_name, hash_span(name, 0)) != ERR_OK)
        k->no_memory = true;
}

static void ask_cores(struct question_match *k, struct scheduler *sc) {
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        const struct sched *core = shard_core(sc->shards[i]);
        survey_attempts(core, on_attempt, k);
        if (k->site.len)
            survey_destinations(core, k->site, on_destination, k);
    }
    if (k->assigned_count)
        qsort(k->assigned, k->assigned_count, sizeof *k->assigned, by_message);
}

int question_match_new(struct question_match **out, struct scheduler *sc, struct span text, const char **problem) {
    struct question_match *k = calloc(1, sizeof *k);
    *problem = NULL;
    *out = NULL;
    if (!k)
        return ERR_NOMEM;
    k->now_ms = scheduler_now(sc);
    arena_init(&k->mem, 4096, COPY_MAX);
    map_init(&k->destinations);
    int err = text.len ? filter_parse(&k->filter, text, problem) : ERR_OK;
    if (err == ERR_OK) {
        k->site = k->filter ? filter_site(k->filter) : SPAN_EMPTY;
        ask_cores(k, sc);
        err = k->no_memory ? ERR_NOMEM : ERR_OK;
    }
    if (err != ERR_OK) {
        question_match_free(k);
        return err;
    }
    *out = k;
    return ERR_OK;
}

void question_match_free(struct question_match *k) {
    if (!k)
        return;
    filter_free(k->filter);
    map_deinit(&k->destinations);
    arena_deinit(&k->mem);
    free(k->assigned);
    free(k);
}

/* -- on any thread -- */

bool question_matches(const struct question_match *k, Words__AdminRow *row) {
    struct assigned wanted = {row->message, row->index};
    struct span way = question_way(row);
    if (row->state == SCHED_SETTLED)
        return false;
    if (k->assigned_count && bsearch(&wanted, k->assigned, k->assigned_count, sizeof wanted, by_message))
        row->state = SCHED_ASSIGNED;
    if (k->site.len && map_find(&k->destinations, hash_span(way, 0), is_name, &way)) {
        row->has_site = true;
        row->site = frame_bytes(k->site);
    }
    struct filter_subject s = {
        .message = row->message,
        .sender = frame_span(row->sender),
        .recipient = frame_span(row->recipient),
        .destination = frame_span(row->destination),
        .site = row->has_site ? frame_span(row->site) : SPAN_EMPTY,
        .state = row->state,
        .received_ms = row->received_ms,
    };
    return !k->filter || filter_matches(k->filter, &s, k->now_ms);
}

uint64_t question_match_id(const struct question_match *k) {
    return k->filter ? filter_id(k->filter) : 0;
}

bool question_match_all(const struct question_match *k) {
    return !k->filter;
}
