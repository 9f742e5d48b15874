/*
 * question_now: what the cores know at this moment: status, the busiest sites, and a row for each shard.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/core/survey.h"
#include "scheduler/question_in.h"

#define SITES_DEFAULT 20u
#define SITES_MAX 1000u
#define SITE_NAME_MAX 1024u
#define FIGURES_MAX 32u

/* -- status -- */

struct status_question {
    struct scheduler *sc;
    uint64_t correlation;
    struct store_stats stats;
};

static void add_figure(Words__AdminReply *r, Words__AdminFigure *figures, const char *name, double value) {
    CHECK(r->n_figures < FIGURES_MAX);
    Words__AdminFigure *f = &figures[r->n_figures];
    words__admin_figure__init(f);
    f->name = frame_bytes(span_of(name));
    f->value = value;
    r->figures[r->n_figures++] = f;
}

static struct sched_counts sum_of_shards(const struct scheduler *sc, uint64_t *messages, uint64_t *scanned) {
    struct sched_counts sum = {0}, c;
    *messages = *scanned = 0;
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        sched_counts(shard_core(sc->shards[i]), &c);
        *messages += shard_totals(sc->shards[i])->messages;
        *scanned += loader_has_scanned(sc->loaders[i]);
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
    return sum;
}

static void add_census(Words__AdminReply *r, Words__AdminFigure *figures, struct scheduler *sc) {
    struct census_result last;
    uint64_t now_ms = scheduler_now(sc);
    if (!census_last(sc->census, &last))
        return;
    uint64_t oldest_ms = last.all->total.oldest_ms;
    add_figure(r, figures, "queue_deferred", (double)last.all->total.deferred);
    add_figure(r, figures, "queue_held", (double)last.all->total.held);
    add_figure(r, figures, "queue_oldest_age_seconds", oldest_ms < now_ms ? (double)(now_ms - oldest_ms) / 1000.0 : 0);
}

static void send_status(const struct status_question *q) {
    struct scheduler *sc = q->sc;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    Words__AdminFigure figures[FIGURES_MAX], *pointers[FIGURES_MAX];
    uint64_t messages, scanned;
    struct sched_counts sum = sum_of_shards(sc, &messages, &scanned);
    r.figures = pointers;
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
    add_census(&r, figures, sc);
    question_reply(sc, q->correlation, &r, true);
}

static void read_stats(void *arg) {
    struct status_question *q = arg;
    store_stats(q->sc->store, &q->stats); /* reads a directory, and waits while the store is opened again */
}

static void stats_read(void *arg) {
    send_status(arg);
    free(arg);
}

void question_status(struct scheduler *sc, uint64_t correlation) {
    struct status_question *q = calloc(1, sizeof *q);
    CHECK(q);
    *q = (struct status_question){.sc = sc, .correlation = correlation};
    if (scheduler_work(sc, read_stats, stats_read, q))
        return;
    question_error(sc, correlation, ERR_NOMEM, NULL);
    free(q);
}

/* -- sites -- */

struct busy_site {
    struct survey_site v;
    uint64_t weight; /* ready, and many times the jobs under way */
};
/* The busiest ones of each shard. The least busy stands first: a heap. Names borrow from the cores. */
struct busiest {
    struct busy_site *at;
    size_t count, max;
};

static void sift_down(struct busiest *b, size_t i) {
    for (;;) {
        size_t least = i, left = 2 * i + 1, right = left + 1;
        if (left < b->count && b->at[left].weight < b->at[least].weight)
            least = left;
        if (right < b->count && b->at[right].weight < b->at[least].weight)
            least = right;
        if (least == i)
            return;
        struct busy_site other = b->at[i];
        b->at[i] = b->at[least];
        b->at[least] = other;
        i = least;
    }
}

static void on_site(void *arg, const struct survey_site *v) {
    struct busiest *b = arg;
    struct busy_site s = {*v, (uint64_t)v->ready + (uint64_t)v->busy * 100u + v->suspended};
    if (b->count < b->max) {
        b->at[b->count++] = s;
        for (size_t i = b->count / 2; b->count == b->max && i-- > 0;)
            sift_down(b, i);
    } else if (s.weight > b->at[0].weight) {
        b->at[0] = s;
        sift_down(b, 0);
    }
}

static int by_name(const void *a, const void *b) {
    return span_cmp(((const struct busy_site *)a)->v.name, ((const struct busy_site *)b)->v.name);
}

static int by_weight(const void *a, const void *b) {
    const struct busy_site *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return span_cmp(x->v.name, y->v.name);
}

/* The same site in several shards becomes one. */
static size_t join_sites(struct busy_site *at, size_t count) {
    size_t kept = 0;
    qsort(at, count, sizeof *at, by_name);
    for (size_t i = 0; i < count; i++) {
        struct busy_site *last = kept ? &at[kept - 1] : NULL;
        if (!last || !span_eq(last->v.name, at[i].v.name)) {
            at[kept++] = at[i];
            continue;
        }
        last->weight += at[i].weight;
        last->v.ready += at[i].v.ready;
        last->v.busy += at[i].v.busy;
        last->v.concurrency += at[i].v.concurrency;
        last->v.suspended |= at[i].v.suspended;
        last->v.resume_ms = last->v.resume_ms > at[i].v.resume_ms ? last->v.resume_ms : at[i].v.resume_ms;
    }
    qsort(at, kept, sizeof *at, by_weight);
    return kept;
}

static void send_sites(struct scheduler *sc, uint64_t correlation, const struct busy_site *sites, size_t count) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct arena mem;
    arena_init(&mem, 64 * 1024, 0);
    Words__AdminRow *rows = arena_calloc(&mem, count + 1, sizeof *rows);
    r.rows = arena_calloc(&mem, count + 1, sizeof *r.rows);
    CHECK(rows && r.rows);
    for (size_t i = 0; i < count; i++) {
        const struct survey_site *v = &sites[i].v;
        Words__AdminRow *row = r.rows[r.n_rows++] = &rows[i];
        words__admin_row__init(row);
        row->has_site = row->has_ready = row->has_assigned = row->has_concurrency = row->has_suspended = true;
        row->site = frame_bytes(v->name);
        row->ready = v->ready;
        row->assigned = v->busy;
        row->concurrency = v->concurrency;
        row->suspended = v->suspended;
        row->has_resume_ms = v->resume_ms != 0;
        row->resume_ms = v->resume_ms;
    }
    question_reply(sc, correlation, &r, true);
    arena_deinit(&mem);
}

void question_sites(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    size_t limit = m->has_limit && m->limit ? m->limit : SITES_DEFAULT, count = 0;
    if (limit > SITES_MAX)
        limit = SITES_MAX;
    struct busy_site *all = calloc(limit * sc->config.shards, sizeof *all);
    CHECK(all);
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        struct busiest b = {.at = all + count, .max = limit};
        survey_sites(shard_core(sc->shards[i]), on_site, &b);
        count += b.count;
    }
    count = join_sites(all, count);
    send_sites(sc, correlation, all, count < limit ? count : limit);
    free(all);
}

/* -- shards -- */

void question_shards(struct scheduler *sc, uint64_t correlation) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct census_result last = {0};
    struct arena mem;
    bool counted = census_last(sc->census, &last);
    arena_init(&mem, 64 * 1024, 0);
    Words__AdminRow *rows = arena_calloc(&mem, sc->config.shards, sizeof *rows);
    r.rows = arena_calloc(&mem, sc->config.shards, sizeof *r.rows);
    CHECK(rows && r.rows);
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        Words__AdminRow *row = r.rows[r.n_rows++] = &rows[i];
        struct sched_counts c;
        sched_counts(shard_core(sc->shards[i]), &c);
        words__admin_row__init(row);
        row->has_shard = row->has_messages = row->has_epoch = row->has_ready = row->has_assigned = true;
        row->shard = i;
        row->messages = shard_totals(sc->shards[i])->messages;
        row->epoch = survey_epoch(shard_core(sc->shards[i]));
        row->ready = c.ready;
        row->assigned = c.assigned;
        row->has_deferred = row->has_held = counted;
        row->deferred = counted ? last.shards[i].deferred : 0;
        row->held = counted ? last.shards[i].held : 0;
    }
    question_reply(sc, correlation, &r, true);
    arena_deinit(&mem);
}
