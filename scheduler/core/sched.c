/*
 * sched: the step of the scheduler core: takes one event, hands it to the file that knows it, and
 * returns the actions that came of it.
 *
 * A step is: forget what is idle, let pass what the time brought (sites that may be tried again,
 * reports that waited long enough), the event itself, then put to disk what a suspended site
 * cannot take, and assign while nodes have room. Everything a step allocates for its actions
 * lives in one arena until the next step.
 *
 * Determinism: orders come from lists and serial numbers only. Maps are for finding, never for
 * walking; pointers are never compared.
 */
#include "scheduler/core/sched.h"

#include <stdlib.h>

#include "scheduler/core/core.h"

#define ID_COUNTER_BITS 12
#define ID_SHARD_BITS 10
#define ID_MS_SHIFT (ID_COUNTER_BITS + ID_SHARD_BITS)
/* An attempt's id: epoch (20 bits), shard (10), counter: delivery nodes serve all shards, and know it by this alone. */
#define ATTEMPT_SHARD_BITS 10
#define ATTEMPT_COUNTER_BITS 34
#define ARENA_BLOCK 65536u

void *core_must_alloc(size_t size) {
    void *p = calloc(1, size);
    CHECK(p);
    return p;
}

/* -- actions -- */

struct sched_action *core_act(struct sched *s, enum sched_action_kind kind) {
    if (s->action_count == s->action_cap) {
        uint32_t cap = s->action_cap ? s->action_cap * 2 : 64;
        void *grown = realloc(s->actions, cap * sizeof *s->actions);
        CHECK(grown);
        s->actions = grown;
        s->action_cap = cap;
    }
    struct sched_action *a = &s->actions[s->action_count++];
    *a = (struct sched_action){.kind = kind, .batch = s->batch};
    s->trace_cap = 0;
    return a;
}

void *core_arena(struct sched *s, size_t size) {
    void *p = arena_alloc(&s->arena, size);
    CHECK(p);
    return p;
}

struct span core_keep_span(struct sched *s, struct span from) {
    if (from.len == 0)
        return SPAN_EMPTY;
    struct span to = arena_dup(&s->arena, from);
    CHECK(to.at);
    return to;
}

struct sched_result core_copy_result(struct sched *s, const struct sched_result *r) {
    struct sched_result to = *r;
    to.enhanced = core_keep_span(s, r->enhanced);
    to.text = core_keep_span(s, r->text);
    to.remote = core_keep_span(s, r->remote);
    return to;
}

static bool same_result(const struct sched_result *a, const struct sched_result *b) {
    return a->outcome == b->outcome && a->code == b->code && a->scope == b->scope && a->hop == b->hop &&
           span_eq(a->enhanced, b->enhanced) && span_eq(a->text, b->text) && span_eq(a->remote, b->remote);
}

/* The trace that was emitted last, when this one says the same of another recipient. */
static struct sched_action *mergeable(struct sched *s, uint64_t id, enum sched_trace_kind kind, uint64_t attempt,
                                      uint64_t next_ms, struct span text, const struct sched_result *result) {
    if (!s->trace_cap || !s->action_count)
        return NULL;
    struct sched_action *a = &s->actions[s->action_count - 1];
    bool same = a->kind == SCHED_TRACE && a->trace.id == id && a->trace.kind == kind && a->trace.attempt == attempt &&
                a->trace.next_ms == next_ms && a->trace.has_result == (result != NULL) && span_eq(a->trace.text, text);
    return same && (!result || same_result(&a->trace.result, result)) ? a : NULL;
}

static void add_index(struct sched *s, struct sched_action *a, uint32_t index) {
    if (a->trace.count == s->trace_cap) {
        uint32_t *grown = core_arena(s, 2 * s->trace_cap * sizeof *grown);
        memcpy(grown, a->trace.indexes, a->trace.count * sizeof *grown);
        a->trace.indexes = grown;
        s->trace_cap *= 2;
    }
    ((uint32_t *)(uintptr_t)a->trace.indexes)[a->trace.count++] = index;
}

void core_trace(struct sched *s, const struct message *m, enum sched_trace_kind kind, uint32_t index, uint64_t attempt,
                uint64_t next_ms, struct span text, const struct sched_result *result) {
    struct sched_action *a = index == UINT32_MAX ? NULL : mergeable(s, m->id, kind, attempt, next_ms, text, result);
    if (!a) {
        a = core_act(s, SCHED_TRACE);
        a->trace.id = m->id;
        a->trace.kind = kind;
        a->trace.attempt = attempt;
        a->trace.next_ms = next_ms;
        a->trace.text = core_keep_span(s, text);
        a->trace.has_result = result != NULL;
        if (result)
            a->trace.result = core_copy_result(s, result);
        if (index == UINT32_MAX)
            return;
        s->trace_cap = 4;
        a->trace.indexes = core_arena(s, s->trace_cap * sizeof(uint32_t));
    }
    add_index(s, a, index);
}

/* -- life -- */

static bool is_sound(const struct sched_config *c) {
    return c->shard < 1u << ID_SHARD_BITS && c->active_max > 0 && c->per_site > 0 && c->retry.first_ms > 0 &&
           c->retry.max_ms >= c->retry.first_ms && c->retry.max_ms < UINT64_MAX / 4;
}

static void fill_defaults(struct sched_config *c) {
    if (!c->recipients_per_job)
        c->recipients_per_job = 100;
    if (!c->jobs_per_connection)
        c->jobs_per_connection = 2;
    if (!c->report_delay_ms)
        c->report_delay_ms = 60000;
    if (!c->suspend_first_ms)
        c->suspend_first_ms = 60000;
    if (c->suspend_max_ms < c->suspend_first_ms)
        c->suspend_max_ms = c->suspend_first_ms > 1800000 ? c->suspend_first_ms : 1800000;
}

static bool resumes_before(const struct heap_node *a, const struct heap_node *b) {
    const struct site *x = LIST_ENTRY(a, const struct site, resume), *y = LIST_ENTRY(b, const struct site, resume);
    return x->resume_ms != y->resume_ms ? x->resume_ms < y->resume_ms : x->serial < y->serial;
}

static bool is_due_before(const struct heap_node *a, const struct heap_node *b) {
    const struct message *x = LIST_ENTRY(a, const struct message, deadline);
    const struct message *y = LIST_ENTRY(b, const struct message, deadline);
    return x->by_ms != y->by_ms ? x->by_ms < y->by_ms : x->id < y->id;
}

struct sched *sched_new(const struct sched_config *c, uint64_t last_id, uint64_t last_attempt) {
    CHECK(is_sound(c));
    struct sched *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->config = *c;
    fill_defaults(&s->config);
    rand_init(&s->rand, c->seed);
    s->last_id = last_id;
    uint64_t first = ((c->epoch & 0xfffff) << ATTEMPT_SHARD_BITS | c->shard) << ATTEMPT_COUNTER_BITS;
    s->last_attempt = last_attempt > first && last_attempt >> ATTEMPT_COUNTER_BITS == first >> ATTEMPT_COUNTER_BITS
                          ? last_attempt
                          : first;
    s->batch = 1;
    struct map *maps[] = {&s->messages, &s->attempts, &s->dests, &s->sites, &s->fairs, &s->lanes, &s->suspensions};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        map_init(maps[i]);
    struct list *lists[] = {&s->workers, &s->all_sites, &s->idle,           &s->pins,
                            &s->timers,  &s->spills,    &s->suspension_list};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    heap_init(&s->resumes, resumes_before);
    heap_init(&s->deadlines, is_due_before);
    core_line_init(&s->nobody.line);
    list_init(&s->nobody.attempts);
    arena_init(&s->arena, ARENA_BLOCK, 0);
    return s;
}

void sched_free(struct sched *s) {
    if (!s)
        return;
    s->visitor = NULL;
    core_worker_free_all(s);
    for (struct map_node *n; (n = map_next(&s->messages, NULL));)
        core_message_free(s, LIST_ENTRY(n, struct message, by_id));
    core_dest_free_all(s);
    core_suspension_free_all(s);
    struct map *maps[] = {&s->messages, &s->attempts, &s->dests, &s->sites, &s->fairs, &s->lanes, &s->suspensions};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        map_deinit(maps[i]);
    heap_deinit(&s->resumes);
    heap_deinit(&s->deadlines);
    arena_deinit(&s->arena);
    free(s->actions);
    free(s->dirty);
    free(s);
}

/* -- ids -- */

uint64_t sched_reserve_id(struct sched *s, uint64_t now_ms) {
    uint64_t ms = s->last_id >> ID_MS_SHIFT, counter = s->last_id & ((1u << ID_COUNTER_BITS) - 1);
    if (now_ms > ms) {
        ms = now_ms;
        counter = 0;
    } else if (++counter == 1u << ID_COUNTER_BITS) {
        ms++;
        counter = 0;
    }
    s->last_id = ms << ID_MS_SHIFT | (uint64_t)s->config.shard << ID_COUNTER_BITS | counter;
    return s->last_id;
}

uint64_t sched_last_id(const struct sched *s) {
    return s->last_id;
}

/* -- steps -- */

static int on_reconfigured(struct sched *s, const struct sched_config *c) {
    struct sched_config to = s->config;
    to.retry = c->retry;
    to.per_site = c->per_site;
    to.active_max = c->active_max;
    if (!is_sound(&to))
        return ERR_INVALID;
    s->config = to;
    LIST_FOREACH(n, tmp, &s->all_sites) {
        struct site *site = LIST_ENTRY(n, struct site, all);
        if (site->concurrency > to.per_site)
            site->concurrency = to.per_site;
        core_site_wake(s, site);
    }
    return ERR_OK;
}

static int on_batch(struct sched *s, uint64_t batch, bool rejected) {
    if (batch <= s->done || batch >= s->batch || (rejected && batch != s->done + 1))
        return ERR_INVALID;
    s->done = batch;
    if (rejected)
        core_on_rejected(s);
    else
        core_on_durable(s);
    return ERR_OK;
}

static int dispatch(struct sched *s, const struct sched_event *e) {
    switch (e->kind) {
    case SCHED_SUBMITTED:
        return core_on_submit(s, &e->submit);
    case SCHED_LOADED:
        return core_on_load(s, &e->load);
    case SCHED_DURABLE:
    case SCHED_REJECTED:
        return on_batch(s, e->batch, e->kind == SCHED_REJECTED);
    case SCHED_WORKER_UP:
        return core_on_worker_up(s, &e->worker);
    case SCHED_WORKER_DOWN:
        return core_on_worker_down(s, e->worker.worker);
    case SCHED_REPORTED:
        return core_on_reported(s, &e->report);
    case SCHED_COMPOSED:
        return core_on_composed(s, &e->composed);
    case SCHED_RECONFIGURED:
        return on_reconfigured(s, &e->config);
    case SCHED_OPERATOR:
        return core_on_operator(s, &e->operator_);
    case SCHED_SUSPEND:
        return core_on_suspend(s, &e->suspension);
    case SCHED_RESUME:
        return core_on_resume(s, &e->suspension);
    case SCHED_TICK:
        return ERR_OK;
    }
    return ERR_INVALID;
}

/* A visitor stays for the one step that follows its loading. */
static void let_go(struct sched *s, struct message *visitor) {
    if (!visitor || s->visitor != visitor)
        return;
    s->visitor = NULL;
    core_message_check(s, visitor);
}

int sched_step(struct sched *s, const struct sched_event *e, uint64_t now_ms, struct sched_actions *out) {
    s->action_count = 0;
    s->trace_cap = 0;
    s->changed = 0;
    arena_reset(&s->arena);
    if (now_ms > s->now)
        s->now = now_ms;
    core_dest_evict(s);
    core_site_resume_due(s);
    core_report_timers(s);
    core_deadlines(s);
    struct message *visitor = s->visitor;
    if (visitor && e->kind == SCHED_LOADED && e->load.id != visitor->id) {
        let_go(s, visitor);
        visitor = NULL;
    }
    int err = dispatch(s, e);
    if (e->kind != SCHED_LOADED)
        let_go(s, visitor);
    core_suspension_age(s);
    core_site_spill(s);
    core_assign(s);
    *out = (struct sched_actions){s->actions, s->action_count};
    return err;
}

uint64_t sched_cut(struct sched *s) {
    return s->batch++;
}

uint32_t sched_room(const struct sched *s) {
    uint32_t max = s->config.active_max;
    if (s->active >= max - max / 4)
        return 0;
    return max - max / 8 - s->active;
}

uint32_t sched_changed(const struct sched *s) {
    return s->changed;
}

uint64_t sched_next_ms(const struct sched *s) {
    if (!list_is_empty(&s->spills))
        return s->now;
    uint64_t next = UINT64_MAX;
    struct heap_node *n = heap_first(&s->resumes);
    if (n)
        next = LIST_ENTRY(n, struct site, resume)->resume_ms;
    n = heap_first(&s->deadlines);
    if (n && LIST_ENTRY(n, struct message, deadline)->by_ms < next)
        next = LIST_ENTRY(n, struct message, deadline)->by_ms;
    struct list_node *t = list_first(&s->timers);
    if (t) {
        uint64_t due = LIST_ENTRY(t, struct news, timer)->since_ms + s->config.report_delay_ms;
        next = due < next ? due : next;
    }
    return next;
}
