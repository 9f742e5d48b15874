/*
 * look: looking into the core without changing it: counts, and where the recipients of one message stand.
 */
#include "scheduler/core/core.h"

void sched_counts(const struct sched *s, struct sched_counts *out) {
    *out = s->counts;
}

/* READY recipients of the destination that are served before r, about: lanes of one class take turns. */
static uint32_t ahead_of(const struct recipient *r) {
    const struct lane *own = r->lane;
    const struct dest *d = r->dest;
    uint64_t in_lane = 0, ahead = 0;
    LIST_FOREACH(n, tmp, &own->fifo) {
        if (n == &r->queue)
            break;
        in_lane++;
    }
    LIST_FOREACH(n, tmp, &d->turn[own->class].lanes) {
        const struct lane *l = LIST_ENTRY(n, const struct lane, ring);
        ahead += l == own || l->fifo.count > in_lane ? in_lane : l->fifo.count;
    }
    for (int c = own->class + 1; c < CORE_CLASSES; c++)
        ahead += d->turn[c].ready;
    return ahead < UINT32_MAX ? (uint32_t)ahead : UINT32_MAX;
}

static void view_one(const struct sched *s, const struct recipient *r, struct sched_view *v) {
    const struct site *site = r->dest->site;
    *v = (struct sched_view){
        .index = r->index,
        .state = r->state,
        .attempts = r->attempts,
        .due_ms = r->state == SCHED_DEFERRED ? r->due_ms : 0,
        .since_ms = r->state == SCHED_HELD ? r->due_ms : 0,
        .routed = r->routed,
        .wish = r->order ? r->order->wish : 0,
        .note = core_order_note(r),
        .site_suspended = site->failures > 0,
        .site_resume_ms = site->resume_ms > s->now ? site->resume_ms : 0,
        .site_concurrency = site->failures ? 1 : site->concurrency,
        .site_busy = site->busy,
        .site = site->own ? SPAN_EMPTY : span_make(site->name, site->len),
        .destination = core_dest_name(r->dest),
    };
    if (r->dest->stop) {
        v->stop_scope = r->dest->stop->scope;
        v->stop_name = span_make(r->dest->stop->name, r->dest->stop->len);
    }
    v->has_result = core_view_result(r, &v->last);
}

static int view_all(const struct sched *s, uint64_t id, bool places,
                    void (*each)(void *arg, const struct sched_view *v), void *arg) {
    const struct message *m = core_message_find(s, id);
    if (!m)
        return ERR_NOT_FOUND;
    for (uint32_t i = 0; i < m->count; i++) {
        struct sched_view v;
        view_one(s, &m->at[i], &v);
        if (places && v.state == SCHED_READY)
            v.ahead = ahead_of(&m->at[i]);
        each(arg, &v);
    }
    return ERR_OK;
}

int sched_look(const struct sched *s, uint64_t id, void (*each)(void *arg, const struct sched_view *v), void *arg) {
    return view_all(s, id, true, each, arg);
}

int sched_glance(const struct sched *s, uint64_t id, void (*each)(void *arg, const struct sched_view *v), void *arg) {
    return view_all(s, id, false, each, arg);
}
