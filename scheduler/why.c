/*
 * why: see why.h. Written for the person awake at night: whole sentences, times as durations from now.
 */
#include "scheduler/why.h"

#include "base/clock.h"
#include "base/units.h"
#include "proto/bounce.h"
#include "proto/outcome.h"
#include "scheduler/suspend.h"

#define SENTENCES_MAX 20u

struct overlay {
    Words__AdminRow **rows;
    size_t count;
};

static void on_view(void *arg, const struct sched_view *v) {
    struct overlay *o = arg;
    if (v->index >= o->count)
        return;
    Words__AdminRow *r = o->rows[v->index];
    r->state = v->state;
    r->has_attempts = true;
    r->attempts = v->attempts;
    r->has_due_ms = v->due_ms != 0;
    r->due_ms = v->due_ms;
    r->has_site = v->site.len > 0;
    r->site = frame_bytes(v->site);
    r->has_suspended = true;
    r->suspended = v->site_suspended;
    r->has_resume_ms = v->site_suspended;
    r->resume_ms = v->site_resume_ms;
    r->has_reason = v->note.len > 0;
    r->reason = frame_bytes(v->note);
    r->has_route = v->routed;
    r->route = frame_bytes(v->destination);
}

void why_overlay(struct scheduler *sc, uint64_t message, Words__AdminRow **rows, size_t count) {
    struct overlay o = {rows, count};
    struct shard *s = scheduler_shard_of(sc, message);
    /* Not in memory: then the store's word stands. */
    if (s && sched_look(shard_core(s), message, on_view, &o) != ERR_OK)
        return;
}

static void add_when(struct buf *to, uint64_t at_ms, uint64_t now_ms) {
    char text[32];
    if (at_ms <= now_ms) {
        buf_add_str(to, "now");
        return;
    }
    units_format_duration(at_ms - now_ms, text, sizeof text);
    buf_printf(to, "in %s", text);
}

static const char *category_of(const Words__Result *r) {
    return bounce_name(bounce_classify(r->has_code ? r->code : 0, frame_span(r->enhanced),
                                       r->has_text ? frame_span(r->text) : SPAN_EMPTY));
}

static void add_last(struct buf *to, const Words__Result *last) {
    if (!last || !last->has_text)
        return;
    buf_add_str(to, " Last answer");
    if (last->has_remote && last->remote.len) {
        buf_add_str(to, " (from ");
        buf_add_escaped(to, frame_span(last->remote));
        buf_add_str(to, ")");
    }
    buf_add_str(to, ": ");
    if (last->has_code && last->code)
        buf_printf(to, "%u ", last->code);
    buf_add_escaped(to, frame_span(last->text));
    buf_add_str(to, ".");
    if (last->outcome == OUTCOME_FAILED || last->outcome == OUTCOME_DEFERRED)
        buf_printf(to, " Category: %s.", category_of(last));
}

struct place {
    uint32_t index, ahead, concurrency, busy, wish;
    bool found;
    const struct suspended *stop;
    const struct scheduler *sc;
};

static void on_place(void *arg, const struct sched_view *v) {
    struct place *p = arg;
    if (v->index != p->index)
        return;
    p->found = true;
    p->ahead = v->ahead;
    p->concurrency = v->site_concurrency;
    p->busy = v->site_busy;
    p->wish = v->wish;
    p->stop = v->stop_scope ? suspend_find(p->sc, v->stop_scope, v->stop_name) : NULL;
}

static struct place place_of(struct scheduler *sc, uint64_t message, uint32_t index) {
    struct place p = {.index = index, .sc = sc};
    struct shard *s = scheduler_shard_of(sc, message);
    if (s && sched_look(shard_core(s), message, on_place, &p) != ERR_OK)
        p.found = false;
    return p;
}

static void add_stop(struct buf *to, const struct suspended *p, uint64_t now_ms) {
    buf_add_str(to, p->scope == SCHED_SUSPEND_DOMAIN ? "the domain " : "the site ");
    buf_add_escaped(to, span_of(p->name));
    buf_add_str(to, " is suspended");
    if (p->actor[0]) {
        buf_add_str(to, " by ");
        buf_add_escaped(to, span_of(p->actor));
    }
    if (p->reason[0]) {
        buf_add_str(to, " (");
        buf_add_escaped(to, span_of(p->reason));
        buf_add_str(to, ")");
    }
    if (p->until_ms) {
        buf_add_str(to, "; that ends ");
        add_when(to, p->until_ms, now_ms);
    } else {
        buf_add_str(to, " until it is resumed");
    }
}

/* When it was done to this recipient last, by its history; 0: not told there. */
static uint64_t traced_ms(const Words__AdminReply *a, uint32_t kind, uint32_t index) {
    uint64_t at_ms = 0;
    for (size_t i = 0; i < a->n_traces; i++)
        for (size_t k = 0; a->traces[i]->kind == kind && k < a->traces[i]->n_recipients; k++)
            if (a->traces[i]->recipients[k] == index)
                at_ms = a->traces[i]->at_ms;
    return at_ms;
}

static void add_held(struct buf *to, const Words__AdminReply *a, const Words__AdminRow *r, uint64_t now_ms) {
    uint64_t since_ms = traced_ms(a, SCHED_TRACE_HELD, r->index);
    buf_add_str(to, "is held ");
    if (r->has_reason && r->reason.len)
        buf_add_escaped(to, frame_span(r->reason));
    else
        buf_add_str(to, "by an operator");
    if (since_ms) {
        char ago[32];
        units_format_duration(now_ms > since_ms ? now_ms - since_ms : 0, ago, sizeof ago);
        buf_printf(to, ", since %s", ago);
    }
    buf_add_str(to, "; it is not tried, and does not expire, until it is released.");
}

/* What an operator wishes of one under way. */
static void add_wish(struct buf *to, uint32_t wish, const Words__AdminRow *r) {
    if (!wish)
        return;
    buf_printf(to, " Unless this attempt ends it, it is then %s",
               wish == SCHED_OP_HOLD     ? "held"
               : wish == SCHED_OP_DELETE ? "deleted"
                                         : "returned to its sender");
    if (r->has_reason && r->reason.len) {
        buf_add_str(to, ", ");
        buf_add_escaped(to, frame_span(r->reason));
    }
    buf_add_str(to, ".");
}

static void add_ready(struct buf *to, struct scheduler *sc, uint64_t message, const Words__AdminRow *r,
                      uint64_t now_ms) {
    struct place p = place_of(sc, message, r->index);
    if (p.stop) {
        buf_add_str(to, "is ready and waits: ");
        add_stop(to, p.stop, now_ms);
        buf_add_str(to, ".");
    } else if (r->has_suspended && r->suspended) {
        buf_add_str(to, "waits since its site is suspended, after failures or a reply rule; the next try is ");
        add_when(to, r->resume_ms, now_ms);
        buf_add_str(to, ".");
    } else if (p.found) {
        buf_printf(to,
                   "is ready and waits for its turn: %u before it to the same destination, %u of %u jobs of its site "
                   "under way.",
                   p.ahead, p.busy, p.concurrency);
    } else {
        buf_add_str(to, "is ready and waits on disk until there is room in memory.");
    }
}

static void add_deferred(struct buf *to, const Words__AdminRow *r, const Words__Envelope *e, uint64_t give_up_ms,
                         uint64_t now_ms) {
    uint64_t from_ms = e->has_release_ms && e->release_ms > r->received_ms ? e->release_ms : r->received_ms;
    uint64_t end_ms = from_ms + give_up_ms;
    bool by = e->has_deliver_by_ms && !(e->has_deliver_by_notify && e->deliver_by_notify) && e->deliver_by_ms < end_ms;
    if (!r->attempts && e->has_release_ms && e->release_ms > now_ms) {
        char date[32];
        clock_rfc5322(e->release_ms, date, sizeof date);
        buf_printf(to, "is held until %s (", date);
        add_when(to, r->due_ms, now_ms);
        buf_add_str(to, ") at the sender's request");
    } else {
        buf_printf(to, "was deferred after %u attempt%s; the next one is due ", r->attempts,
                   r->attempts == 1 ? "" : "s");
        add_when(to, r->due_ms, now_ms);
    }
    buf_add_str(to, ", and it is given up ");
    add_when(to, by ? e->deliver_by_ms : end_ms, now_ms);
    buf_add_str(to, by ? ", the sender's DELIVERBY time." : ".");
}

static void add_recipient(struct buf *to, struct scheduler *sc, uint64_t message, const Words__AdminRow *r,
                          const Words__AdminReply *a, uint64_t now_ms) {
    const Words__Envelope *e = a->envelope;
    const struct suspended *stop;
    buf_add_str(to, "<");
    buf_add_escaped(to, frame_span(r->recipient));
    buf_add_str(to, "> ");
    switch (r->state) {
    case SCHED_READY:
        add_ready(to, sc, message, r, now_ms);
        break;
    case SCHED_ASSIGNED:
        buf_printf(to, "is being delivered now (attempt %u)", (r->has_attempts ? r->attempts : 0) + 1);
        if (r->has_site) {
            buf_add_str(to, " to ");
            buf_add_escaped(to, frame_span(r->site));
        }
        buf_add_str(to, ".");
        add_wish(to, place_of(sc, message, r->index).wish, r);
        break;
    case SCHED_DEFERRED:
        add_deferred(to, r, e, sc->settings.retry.give_up_ms, now_ms);
        stop = suspend_in(sc, frame_span(r->has_route ? r->route : r->destination), scheduler_shard_of(sc, message));
        if (stop) {
            buf_add_str(to, " Until then ");
            add_stop(to, stop, now_ms);
            buf_add_str(to, ".");
        }
        break;
    case SCHED_HELD:
        add_held(to, a, r, now_ms);
        break;
    case SCHED_DELIVERED:
        buf_add_str(to, "was delivered; the report that the sender asked for is being written.");
        break;
    case SCHED_FAILED:
        buf_add_str(to, "has failed for good; its report is being gathered and written within a minute.");
        break;
    default:
        buf_add_str(to, "is settled.");
    }
    if (r->has_route && r->state != SCHED_SETTLED) {
        buf_add_str(to, " An operator has given it the route ");
        buf_add_escaped(to, frame_span(r->route));
        buf_add_str(to, ".");
    }
    add_last(to, r->last);
    buf_add_str(to, "\n");
}

static const char *ending(uint32_t kind) {
    switch (kind) {
    case SCHED_TRACE_DELIVERED:
        return "was delivered";
    case SCHED_TRACE_FAILED:
        return "failed for good";
    case SCHED_TRACE_EXPIRED:
        return "was given up";
    case SCHED_TRACE_DELETED:
        return "was deleted";
    case SCHED_TRACE_BOUNCED:
        return "was returned to its sender";
    case SCHED_TRACE_REPORTED:
        return "was reported to the sender";
    case SCHED_TRACE_NO_REPORT:
        return "ended without a report";
    case SCHED_TRACE_DONE:
        return "was settled";
    default:
        return "was last seen";
    }
}

static void add_ended(struct buf *to, const Words__AdminReply *r, uint64_t now_ms) {
    buf_add_str(to, "The message is no longer in the queue.");
    for (size_t i = 0; i < r->n_traces; i++) {
        const Words__Trace *t = r->traces[i];
        if (t->kind != SCHED_TRACE_DELIVERED && t->kind != SCHED_TRACE_FAILED && t->kind != SCHED_TRACE_EXPIRED &&
            t->kind != SCHED_TRACE_REPORTED && t->kind != SCHED_TRACE_NO_REPORT && t->kind != SCHED_TRACE_DELETED &&
            t->kind != SCHED_TRACE_BOUNCED)
            continue;
        char ago[32];
        units_format_duration(now_ms > t->at_ms ? now_ms - t->at_ms : 0, ago, sizeof ago);
        buf_printf(to, " It %s %s ago", ending(t->kind), ago);
        if (t->result && t->result->has_remote) {
            buf_add_str(to, " (");
            buf_add_escaped(to, frame_span(t->result->remote));
            buf_add_str(to, ")");
        }
        if (t->result && (t->kind == SCHED_TRACE_FAILED || t->kind == SCHED_TRACE_EXPIRED))
            buf_printf(to, " [%s]", category_of(t->result));
        if (t->has_text && t->text.len) {
            buf_add_str(to, ": ");
            buf_add_escaped(to, frame_span(t->text));
        }
        buf_add_str(to, ".");
    }
}

void why_write(struct buf *to, struct scheduler *sc, uint64_t message, const Words__AdminReply *r, uint64_t now_ms) {
    size_t told = 0, left = 0;
    if (!r->envelope) {
        add_ended(to, r, now_ms);
        return;
    }
    for (size_t i = 0; i < r->n_rows; i++) {
        if (r->rows[i]->state == SCHED_SETTLED)
            continue;
        if (told < SENTENCES_MAX) {
            add_recipient(to, sc, message, r->rows[i], r, now_ms);
            told++;
        } else {
            left++;
        }
    }
    if (left)
        buf_printf(to, "%zu more recipients are not settled (see msg show).\n", left);
    if (!told)
        buf_add_str(to, "All recipients are settled.");
}
