/*
 * assign: hands READY recipients to delivery nodes while these have room and sites take jobs.
 *
 * One job is one message with those of its recipients that stand together in a lane, up to
 * recipients_per_job. It is written down (PUT_INFLIGHT) in the batch that its ASSIGN waits for, so
 * that no node ever works on what a restart would not know of. Also here: nodes that come and go.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "scheduler/core/core.h"

#define COST_BYTES 65536u /* of a body that count as much as one recipient */

/* -- attempts -- */

static bool match_attempt(const struct map_node *n, const void *key) {
    return LIST_ENTRY(n, const struct attempt, by_id)->id == *(const uint64_t *)key;
}

struct attempt *core_attempt_find(const struct sched *s, uint64_t id) {
    struct map_node *n = map_find(&s->attempts, core_mix(id), match_attempt, &id);
    return n ? LIST_ENTRY(n, struct attempt, by_id) : NULL;
}

bool sched_is_assigned(const struct sched *s, uint64_t attempt) {
    return core_attempt_find(s, attempt) != NULL;
}

void core_attempt_end(struct sched *s, struct attempt *a) {
    struct sched_action *act = core_act(s, SCHED_DROP_INFLIGHT);
    act->attempt.attempt = a->id;
    act->attempt.id = a->message->id;
    map_remove(&s->attempts, &a->by_id);
    list_remove(&a->worker->attempts, &a->of_worker);
    a->worker->jobs--;
    a->worker->bytes -= a->message->size;
    struct site *site = a->site;
    free(a);
    core_site_leave(s, site);
}

static struct attempt *attempt_new(struct sched *s, struct worker *w, struct dest *d, struct message *m, uint32_t cap) {
    struct attempt *a = core_must_alloc(sizeof *a + cap * sizeof *a->indexes);
    a->id = ++s->last_attempt;
    a->batch = s->batch;
    a->message = m;
    a->dest = d;
    a->site = d->site;
    a->worker = w;
    CHECK(map_insert(&s->attempts, &a->by_id, core_mix(a->id)) == ERR_OK);
    list_push_back(&w->attempts, &a->of_worker);
    w->jobs++;
    w->bytes += m->size;
    d->site->busy++;
    return a;
}

/* -- jobs -- */

static uint32_t together(const struct lane *l, const struct message *m, uint32_t most) {
    uint32_t n = 0;
    LIST_FOREACH(it, tmp, &l->fifo) {
        if (n == most || core_message_of(LIST_ENTRY(it, struct recipient, queue)) != m)
            break;
        n++;
    }
    return n;
}

static uint32_t cost_of(const struct message *m, uint32_t count) {
    uint64_t cost = count + m->size / COST_BYTES;
    return cost < CORE_COST_MAX ? (uint32_t)cost : CORE_COST_MAX;
}

static void act_assign(struct sched *s, enum sched_action_kind kind, const struct attempt *a, uint32_t attempts) {
    struct sched_action *act = core_act(s, kind);
    act->attempt.attempt = a->id;
    act->attempt.id = a->message->id;
    act->attempt.worker = a->worker->number;
    act->attempt.indexes = a->indexes;
    act->attempt.count = a->count;
    act->attempt.attempts = attempts;
    act->attempt.concurrency = a->site->failures ? 1 : a->site->concurrency;
    act->attempt.destination = core_dest_name(a->dest);
}

static void take_recipients(struct sched *s, struct lane *l, struct attempt *a, uint32_t count) {
    struct message *m = a->message;
    for (uint32_t i = 0; i < count; i++) {
        struct recipient *r = LIST_ENTRY(list_first(&l->fifo), struct recipient, queue);
        a->dest->wait_ms = s->now - r->due_ms;
        a->indexes[i] = r->index;
        core_ready_take(s, r);
        core_set_state(s, m, r, SCHED_ASSIGNED);
        r->attempt = a;
        if (r->attempts)
            core_trace(s, m, SCHED_TRACE_ASSIGNED, r->index, a->id, 0, SPAN_EMPTY, NULL);
    }
    a->dest->assigned_ms = s->now;
    a->count = count;
}

/* One job from the turn; false: the node has no room for its size. */
static bool send_one(struct sched *s, struct worker *w, struct turn *t) {
    struct lane *l = core_turn_lane(t);
    struct recipient *first = LIST_ENTRY(list_first(&l->fifo), struct recipient, queue);
    struct message *m = core_message_of(first);
    if (w->jobs && w->bytes_max && w->bytes + m->size > w->bytes_max)
        return false;
    uint32_t attempts = first->attempts;
    uint32_t count = together(l, m, s->config.recipients_per_job);
    struct attempt *a = attempt_new(s, w, core_turn_dest(t), m, count);
    /* Charged before they leave, for the lane may end with them. */
    core_turn_charge(s, t, l, cost_of(m, count));
    take_recipients(s, l, a, count);
    act_assign(s, SCHED_PUT_INFLIGHT, a, attempts);
    act_assign(s, SCHED_ASSIGN, a, attempts);
    return true;
}

static void serve(struct sched *s, struct worker *w) {
    while (w->jobs < w->jobs_max) {
        struct turn *t = core_line_pick(&w->line);
        if (!t)
            return;
        if (!core_site_free_slots(s, core_turn_dest(t)->site)) {
            core_turn_unplace(t);
            core_turn_place(s, t);
        } else if (!send_one(s, w, t)) {
            return;
        }
    }
}

void core_assign(struct sched *s) {
    LIST_FOREACH(n, tmp, &s->workers)
    serve(s, LIST_ENTRY(n, struct worker, all));
}

/* -- nodes -- */

static struct worker *find_worker(struct sched *s, uint32_t number) {
    LIST_FOREACH(n, tmp, &s->workers) {
        struct worker *w = LIST_ENTRY(n, struct worker, all);
        if (w->number == number)
            return w;
    }
    return NULL;
}

static void rehome_all(struct sched *s) {
    LIST_FOREACH(n, tmp, &s->all_sites)
    core_site_rehome(s, LIST_ENTRY(n, struct site, all));
}

int core_on_worker_up(struct sched *s, const struct sched_worker *e) {
    struct worker *w = find_worker(s, e->worker);
    bool moves = !w || !w->jobs_max != !e->jobs_max;
    if (!w) {
        if (s->workers.count == CORE_WORKERS_MAX)
            return ERR_FULL;
        w = calloc(1, sizeof *w);
        if (!w)
            return ERR_NOMEM;
        w->number = e->worker;
        w->hash = hash_span(e->name, 1);
        core_line_init(&w->line);
        list_init(&w->attempts);
        list_push_back(&s->workers, &w->all);
        s->counts.workers++;
    }
    w->jobs_max = e->jobs_max;
    w->bytes_max = e->bytes_max;
    if (moves)
        rehome_all(s);
    return ERR_OK;
}

static void doubt_attempt(struct sched *s, struct attempt *a) {
    struct message *m = a->message;
    uint64_t draw = rand_u64(&s->rand);
    for (uint32_t i = 0; i < a->count; i++) {
        struct recipient *r = &m->at[a->indexes[i]];
        r->attempt = NULL;
        core_in_doubt(s, m, r, a->id, draw);
    }
    core_attempt_end(s, a);
    core_message_check(s, m);
}

int core_on_worker_down(struct sched *s, uint32_t number) {
    struct worker *w = find_worker(s, number);
    if (!w)
        return ERR_INVALID;
    w->jobs_max = 0; /* so that nothing finds its home here again */
    for (struct list_node *n; (n = list_first(&w->attempts));)
        doubt_attempt(s, LIST_ENTRY(n, struct attempt, of_worker));
    rehome_all(s);
    CHECK(!w->line.count && !w->jobs);
    list_remove(&s->workers, &w->all);
    s->counts.workers--;
    free(w);
    return ERR_OK;
}

void core_worker_free_all(struct sched *s) {
    LIST_FOREACH(it, tmp, &s->workers)
    LIST_ENTRY(it, struct worker, all)->jobs_max = 0;
    LIST_FOREACH(it, tmp, &s->workers) {
        struct list *attempts = &LIST_ENTRY(it, struct worker, all)->attempts;
        for (struct list_node *n; (n = list_first(attempts));)
            core_attempt_end(s, LIST_ENTRY(n, struct attempt, of_worker));
    }
    rehome_all(s);
    for (struct list_node *n; (n = list_pop_front(&s->workers));)
        free(LIST_ENTRY(n, struct worker, all));
}
