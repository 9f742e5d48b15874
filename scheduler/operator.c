/*
 * operator: the operator's changes of the queue.
 *
 * The walk over the store finds the messages on a helper thread; the changes themselves are events of the cores, on the
 * loop's thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "proto/filter.h"
#include "scheduler/shell.h"

#define IDS_AT_ONCE 512u
#define MESSAGES_MAX 100000u /* of one request */

struct change {
    struct scheduler *sc;
    uint64_t correlation;
    struct filter *filter;
    uint32_t limit;
    bool dry_run;
    uint64_t now_ms;
    uint64_t *ids; /* messages that match */
    size_t id_count, id_cap, next;
    uint64_t done;
    int err;
};

/* -- on the helper thread -- */

static bool matches(const struct change *c, uint64_t id, const Words__Envelope *e, Words__RecipientState **states) {
    for (uint32_t i = 0; i < e->n_recipients; i++) {
        struct filter_subject s = {
            .message = id,
            .sender = frame_span(e->sender),
            .recipient = frame_span(e->recipients[i]->address),
            .destination = frame_span(e->recipients[i]->destination),
            .state = states[i] ? states[i]->state : (uint32_t)SCHED_READY,
            .received_ms = e->received_ms,
        };
        if (s.state != SCHED_SETTLED && (!c->filter || filter_matches(c->filter, &s, c->now_ms)))
            return true;
    }
    return false;
}

static void note_id(struct change *c, uint64_t id) {
    if (c->id_count >= c->limit) {
        c->err = ERR_FULL;
        return;
    }
    if (c->id_count == c->id_cap) {
        size_t cap = c->id_cap ? c->id_cap * 2 : 64;
        uint64_t *grown = realloc(c->ids, cap * sizeof *grown);
        if (!grown) {
            c->err = ERR_NOMEM;
            return;
        }
        c->ids = grown;
        c->id_cap = cap;
    }
    c->ids[c->id_count++] = id;
}

static void judge_message(struct change *c, uint32_t shard, uint64_t id, struct arena *mem) {
    Words__Envelope *e;
    Words__RecipientState **states;
    int err = queue_get_message(c->sc->store, shard, id, mem, &e, &states);
    if (err == ERR_OK && matches(c, id, e, states))
        note_id(c, id);
    else if (err != ERR_OK && err != ERR_NOT_FOUND)
        c->err = err;
    arena_reset(mem);
}

static void walk_shard(struct change *c, uint32_t shard, struct arena *mem) {
    uint64_t ids[IDS_AT_ONCE], after = 0, only = c->filter ? filter_id(c->filter) : 0;
    size_t count = 0;
    if (only) {
        if (id_shard(only) == shard)
            judge_message(c, shard, only, mem);
        return;
    }
    do {
        c->err = queue_read_ids(c->sc->store, shard, after, UINT64_MAX, ids, IDS_AT_ONCE, &count);
        for (size_t i = 0; i < count && c->err == ERR_OK; i++)
            judge_message(c, shard, after = ids[i], mem);
    } while (c->err == ERR_OK && count == IDS_AT_ONCE);
}

static void work(void *arg) {
    struct change *c = arg;
    struct arena mem;
    arena_init(&mem, 64 * 1024, 0);
    for (uint32_t i = 0; i < c->sc->config.shards && c->err == ERR_OK; i++)
        walk_shard(c, i, &mem);
    arena_deinit(&mem);
}

/* -- back on the loop -- */

static void change_free(struct change *c) {
    filter_free(c->filter);
    free(c->ids);
    free(c);
}

static void finish(struct change *c, uint64_t count) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_count = true;
    r.count = count;
    question_reply(c->sc, c->correlation, &r, true);
    change_free(c);
}

static void retry_next(struct change *c);

static void brought(void *arg, int err) {
    struct change *c = arg;
    uint64_t id = c->ids[c->next++];
    struct sched_event e = {.kind = SCHED_OPERATOR};
    e.operator_ = (struct sched_operator){.verb = SCHED_OP_RETRY, .message = id, .recipient = UINT32_MAX};
    if (err == ERR_OK && shard_step(scheduler_shard_of(c->sc, id), &e, scheduler_now(c->sc)) == ERR_OK)
        c->done++;
    retry_next(c);
}

static void retry_next(struct change *c) {
    while (c->next < c->id_count && sched_room(shard_core(scheduler_shard_of(c->sc, c->ids[c->next]))) == 0)
        c->next = c->id_count; /* no room for more now: the count tells how far it came */
    if (c->next < c->id_count && !c->sc->draining) {
        loader_bring(c->sc->loaders[id_shard(c->ids[c->next])], c->ids[c->next], brought, c);
        return;
    }
    LOG_INFO("operator_retry", LOG_U64("matched", c->id_count), LOG_U64("messages", c->done));
    finish(c, c->done);
}

static void done(void *arg) {
    struct change *c = arg;
    if (c->err != ERR_OK) {
        question_error(c->sc, c->correlation, c->err,
                       c->err == ERR_FULL ? "more than the limit match; narrow the filter" : NULL);
        change_free(c);
    } else if (c->dry_run) {
        finish(c, c->id_count);
    } else {
        retry_next(c);
    }
}

bool operator_on_request(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    const char *problem = NULL;
    if (m->verb != WORDS__ADMIN_VERB__ADMIN_RETRY)
        return false;
    struct change *c = calloc(1, sizeof *c);
    CHECK(c);
    *c = (struct change){.sc = sc, .correlation = correlation, .now_ms = scheduler_now(sc)};
    c->limit = m->has_limit && m->limit ? m->limit : MESSAGES_MAX;
    c->dry_run = m->has_dry_run && m->dry_run;
    int err = m->has_filter && m->filter.len ? filter_parse(&c->filter, frame_span(m->filter), &problem) : ERR_OK;
    if (err == ERR_OK && !scheduler_work(sc, work, done, c))
        err = ERR_NOMEM;
    if (err != ERR_OK) {
        question_error(sc, correlation, err, problem);
        change_free(c);
    }
    return true;
}
