/*
 * tally: see tally.h. One look-up in a map for each recipient; totals are kept beside.
 */
#include "scheduler/tally.h"

#include <stdlib.h>

#include "base/hash.h"
#include "scheduler/core/sched.h"

#define MINUTE_MS 60000u
#define MEMORY_MAX (256u * 1024u * 1024u)

void tally_init(struct tally *t, uint64_t now_ms) {
    *t = (struct tally){.now_ms = now_ms};
    t->total.oldest_ms = t->others.oldest_ms = UINT64_MAX;
    t->total.name = SPAN("TOTAL");
    t->others.name = SPAN(TALLY_OTHERS);
    arena_init(&t->mem, 64 * 1024, MEMORY_MAX);
    map_init(&t->by_name);
}

void tally_deinit(struct tally *t) {
    map_deinit(&t->by_name);
    arena_deinit(&t->mem);
    free(t->rows);
    t->rows = NULL;
}

static bool match_name(const struct map_node *n, const void *key) {
    return span_eq(LIST_ENTRY(n, struct tally_row, by_name)->name, *(const struct span *)key);
}

static bool has_room(struct tally *t) {
    if (t->row_count < t->row_cap)
        return true;
    uint32_t cap = t->row_cap ? t->row_cap * 2 : 64;
    struct tally_row **grown = realloc(t->rows, cap * sizeof *grown);
    if (!grown)
        return false;
    t->rows = grown;
    t->row_cap = cap;
    return true;
}

static struct tally_row *new_row(struct tally *t, struct span name, uint64_t hash) {
    struct tally_row *row = has_room(t) ? arena_calloc(&t->mem, 1, sizeof *row) : NULL;
    if (!row)
        return NULL;
    row->oldest_ms = UINT64_MAX;
    row->name = arena_dup(&t->mem, name);
    if (!row->name.at || map_insert(&t->by_name, &row->by_name, hash) != ERR_OK)
        return NULL;
    t->rows[t->row_count++] = row;
    return row;
}

static void count(struct tally_row *row, uint32_t state, uint64_t received_ms, unsigned age) {
    row->count++;
    row->ready += state != SCHED_DEFERRED && state != TALLY_HELD;
    row->deferred += state == SCHED_DEFERRED;
    row->held += state == TALLY_HELD;
    row->ages[age]++;
    if (received_ms < row->oldest_ms)
        row->oldest_ms = received_ms;
}

/* The column: 0 up to 5 minutes, 1 up to 10, then doubling. */
static unsigned age_of(const struct tally *t, uint64_t received_ms) {
    uint64_t minutes = t->now_ms > received_ms ? (t->now_ms - received_ms + MINUTE_MS - 1) / MINUTE_MS : 0;
    unsigned age = 0;
    for (uint64_t bound = 5; age < TALLY_AGES - 1 && minutes > bound; bound *= 2)
        age++;
    return age;
}

int tally_add(struct tally *t, struct span destination, uint32_t state, uint64_t received_ms) {
    uint64_t hash = hash_span(destination, 0);
    struct map_node *n = map_find(&t->by_name, hash, match_name, &destination);
    struct tally_row *row = n ? LIST_ENTRY(n, struct tally_row, by_name) : NULL;
    if (!row)
        row = t->row_count < TALLY_NAMES_MAX ? new_row(t, destination, hash) : &t->others;
    if (!row)
        return ERR_NOMEM;
    unsigned age = age_of(t, received_ms);
    count(row, state, received_ms, age);
    count(&t->total, state, received_ms, age);
    return ERR_OK;
}

static int by_count(const void *a, const void *b) {
    const struct tally_row *x = *(struct tally_row *const *)a, *y = *(struct tally_row *const *)b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return span_cmp(x->name, y->name);
}

int tally_sort(struct tally *t) {
    if (t->others.count) {
        if (!has_room(t))
            return ERR_NOMEM;
        t->rows[t->row_count++] = &t->others;
    }
    if (t->row_count)
        qsort(t->rows, t->row_count, sizeof *t->rows, by_count);
    return ERR_OK;
}
