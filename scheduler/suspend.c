/*
 * suspend: see suspend.h. A suspension is in force in the cores before its record is written, and answered when the
 * record is on disk; it ends in the cores first, too, so that nobody is told of an end that a crash takes back.
 *
 * The end of a suspension by its time comes from here, with the tick.
 */
#include "scheduler/suspend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/suspension.h"

#define REASON_MAX 200u
#define ACTOR_MAX 64u
#define ROWS_AT_ONCE 64u

struct suspended_key {
    uint32_t scope;
    struct span name;
};

static bool match_suspended(const struct map_node *n, const void *key) {
    const struct suspended *p = LIST_ENTRY(n, const struct suspended, by_name);
    const struct suspended_key *k = key;
    return p->scope == k->scope && span_eq(span_of(p->name), k->name);
}

const struct suspended *suspend_find(const struct scheduler *sc, uint32_t scope, struct span name) {
    struct suspended_key key = {scope, name};
    struct map_node *n = map_find(&sc->suspended_by_name, hash_span(name, scope), match_suspended, &key);
    return n ? LIST_ENTRY(n, struct suspended, by_name) : NULL;
}

const struct suspended *suspend_in(struct scheduler *sc, struct span destination, struct shard *s) {
    struct span name = destination, site = sched_site_of(shard_core(s), destination);
    const struct suspended *p = suspend_find(sc, SCHED_SUSPEND_DOMAIN, name);
    for (ptrdiff_t dot; !p && (dot = span_find(name, '.')) >= 0; name = span_from(name, (size_t)dot + 1))
        p = suspend_find(sc, SCHED_SUSPEND_DOMAIN, span_from(name, (size_t)dot));
    for (size_t end = 0; !p && end < site.len;) {
        ptrdiff_t plus = span_find(span_from(site, end + 1), '+');
        end = plus < 0 ? site.len : end + 1 + (size_t)plus;
        p = suspend_find(sc, SCHED_SUSPEND_SITE, span_first(site, end));
    }
    return p;
}

static void suspended_free(struct suspended *p) {
    free(p->name);
    free(p->actor);
    free(p->reason);
    free(p);
}

static char *copy(struct span s) {
    char *to = malloc(s.len + 1);
    if (to)
        span_copy(s, to, s.len + 1);
    return to;
}

/* -- in the cores -- */

static int step_all(struct scheduler *sc, enum sched_event_kind kind, const struct suspended *p) {
    struct sched_event e = {.kind = kind};
    int err = ERR_OK;
    e.suspension = (struct sched_suspension){
        .scope = (enum sched_suspension_scope)p->scope, .name = span_of(p->name), .until_ms = p->until_ms};
    for (uint32_t i = 0; i < sc->config.shards; i++) {
        int one = shard_step(sc->shards[i], &e, scheduler_now(sc));
        if (one != ERR_OK && !(kind == SCHED_RESUME && one == ERR_NOT_FOUND))
            err = one;
    }
    return err;
}

static void forget(struct scheduler *sc, struct suspended *p) {
    map_remove(&sc->suspended_by_name, &p->by_name);
    list_remove(&sc->suspended, &p->link);
    suspended_free(p);
}

/* In memory and in the cores. One of that name is replaced. */
static int begin(struct scheduler *sc, const Words__Suspension *record) {
    struct suspended *old = (struct suspended *)(uintptr_t)suspend_find(sc, record->scope, frame_span(record->name));
    if (!old && sc->suspended.count >= SCHED_SUSPENSIONS_MAX)
        return ERR_FULL;
    struct suspended *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    p->scope = record->scope;
    p->serial = ++sc->suspended_serial;
    p->at_ms = record->at_ms;
    p->until_ms = record->has_until_ms ? record->until_ms : 0;
    p->name = copy(frame_span(record->name));
    p->actor = copy(record->has_actor ? frame_span(record->actor) : SPAN_EMPTY);
    p->reason = copy(record->has_reason ? frame_span(record->reason) : SPAN_EMPTY);
    int err = p->name && p->actor && p->reason ? ERR_OK : ERR_NOMEM;
    if (err == ERR_OK)
        err = step_all(sc, SCHED_SUSPEND, p);
    if (err == ERR_OK)
        err = map_insert(&sc->suspended_by_name, &p->by_name, hash_span(span_of(p->name), p->scope));
    if (err != ERR_OK) {
        if (!old && p->name && step_all(sc, SCHED_RESUME, p) != ERR_OK)
            LOG_ERROR("suspension_stuck", LOG_STR("name", p->name));
        suspended_free(p);
        return err;
    }
    list_push_back(&sc->suspended, &p->link);
    if (old)
        forget(sc, old);
    return ERR_OK;
}

static void end(struct scheduler *sc, struct suspended *p) {
    if (step_all(sc, SCHED_RESUME, p) != ERR_OK)
        LOG_ERROR("suspension_stuck", LOG_STR("name", p->name));
    suspension_drop(shard_keep(sc->shards[0]), p->scope, span_of(p->name));
    forget(sc, p);
}

void suspend_tick(struct scheduler *sc, uint64_t now_ms) {
    LIST_FOREACH(n, tmp, &sc->suspended) {
        struct suspended *p = LIST_ENTRY(n, struct suspended, link);
        if (!p->until_ms || p->until_ms > now_ms)
            continue;
        LOG_INFO("suspension_over", LOG_STR("name", p->name), LOG_STR("actor", p->actor));
        end(sc, p);
    }
}

/* -- start and end -- */

struct opening {
    struct scheduler *sc;
    int err;
};

static void on_record(void *arg, const Words__Suspension *record) {
    struct opening *o = arg;
    int err = begin(o->sc, record);
    if (err != ERR_OK)
        o->err = err;
}

int suspend_open(struct scheduler *sc) {
    struct opening o = {.sc = sc};
    int err = suspension_each(sc->store, on_record, &o);
    if (err == ERR_OK)
        err = o.err;
    if (err != ERR_OK)
        LOG_ERROR("suspensions_unreadable", LOG_ERR("why", err));
    suspend_tick(sc, scheduler_now(sc));
    return err;
}

void suspend_close(struct scheduler *sc) {
    LIST_FOREACH(n, tmp, &sc->suspended)
    forget(sc, LIST_ENTRY(n, struct suspended, link));
    map_deinit(&sc->suspended_by_name);
}

/* -- requests -- */

struct answer { /* that waits for the disk */
    struct scheduler *sc;
    uint64_t correlation, count;
};

static void send_count(struct scheduler *sc, uint64_t correlation, uint64_t count) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_count = true;
    r.count = count;
    question_reply(sc, correlation, &r, true);
}

static void on_disk(void *arg, int err) {
    struct answer *a = arg;
    if (err == ERR_OK)
        send_count(a->sc, a->correlation, a->count);
    free(a);
}

static void answer_durable(struct scheduler *sc, uint64_t correlation, uint64_t count) {
    struct answer *a = malloc(sizeof *a);
    CHECK(a);
    *a = (struct answer){sc, correlation, count};
    shard_after(sc->shards[0], on_disk, a);
}

/* What the count of an answer tells: those that are ready, in memory. */
static uint64_t ready_under(const struct scheduler *sc, uint32_t scope, const char *name) {
    struct sched_suspension of = {.scope = (enum sched_suspension_scope)scope, .name = span_of(name)};
    uint64_t ready = 0;
    for (uint32_t i = 0; i < sc->config.shards; i++)
        ready += sched_ready_under(shard_core(sc->shards[i]), &of);
    return ready;
}

/* Lower case; a domain may have a leading dot. */
static bool read_name(struct span from, uint32_t scope, char *to) {
    bool dot = false;
    if (!from.len || from.len > SUSPENSION_NAME_MAX || span_eq(from, SPAN(".")))
        return false;
    for (size_t i = 0; i < from.len; i++) {
        char ch = from.at[i];
        if (ch <= 0x20 || ch >= 0x7f || ch == '"' || ch == '@')
            return false;
        dot = scope == SCHED_SUSPEND_DOMAIN && ch == '.' && (i + 1 == from.len || from.at[i + 1] == '.');
        if (dot)
            return false;
        to[i] = ch >= 'A' && ch <= 'Z' && scope == SCHED_SUSPEND_DOMAIN ? (char)(ch - 'A' + 'a') : ch;
    }
    to[from.len] = 0;
    return true;
}

static void suspend(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m, const char *name,
                    uint64_t ready) {
    Words__Suspension record = WORDS__SUSPENSION__INIT;
    record.scope = m->scope;
    record.name = frame_bytes(span_of(name));
    record.at_ms = scheduler_now(sc);
    record.has_until_ms = m->has_for_ms && m->for_ms;
    record.until_ms = m->for_ms < UINT64_MAX / 2 ? record.at_ms + m->for_ms : UINT64_MAX / 2;
    record.has_actor = m->has_actor;
    record.actor = frame_bytes(span_first(frame_span(m->actor), ACTOR_MAX));
    record.has_reason = m->has_reason;
    record.reason = frame_bytes(span_first(frame_span(m->reason), REASON_MAX));
    int err = begin(sc, &record);
    if (err != ERR_OK) {
        question_error(sc, correlation, err,
                       err == ERR_FULL ? "as many suspensions as can be are in force; resume some" : NULL);
        return;
    }
    LOG_INFO("suspension", LOG_STR("name", name), LOG_SPAN("actor", frame_span(record.actor)),
             LOG_SPAN("reason", frame_span(record.reason)),
             LOG_U64("until_ms", record.has_until_ms ? record.until_ms : 0));
    suspension_put(shard_keep(sc->shards[0]), &record);
    answer_durable(sc, correlation, ready);
}

static void resume(struct scheduler *sc, uint64_t correlation, struct suspended *p, uint64_t ready) {
    struct buf filter;
    buf_init(&filter, 1024);
    LOG_INFO("suspension_over", LOG_STR("name", p->name), LOG_STR("actor", p->actor));
    buf_printf(&filter, "%s:\"%s\" state:deferred", p->scope == SCHED_SUSPEND_DOMAIN ? "domain" : "site", p->name);
    end(sc, p);
    answer_durable(sc, correlation, ready);
    operator_retry(sc, buf_span(&filter)); /* what waits on disk did not know when this would be */
    buf_deinit(&filter);
}

static void fill_row(Words__AdminRow *row, const struct suspended *p) {
    words__admin_row__init(row);
    row->has_scope = row->has_received_ms = true;
    row->scope = (Words__AdminScope)p->scope;
    row->received_ms = p->at_ms;
    row->has_destination = p->scope == SCHED_SUSPEND_DOMAIN;
    row->has_site = !row->has_destination;
    row->destination = row->site = frame_bytes(span_of(p->name));
    row->has_resume_ms = p->until_ms != 0;
    row->resume_ms = p->until_ms;
    row->has_reason = p->reason[0] != 0;
    row->reason = frame_bytes(span_of(p->reason));
    row->has_actor = p->actor[0] != 0;
    row->actor = frame_bytes(span_of(p->actor));
}

/* All of them; or those that stop the destination of this address, in some shard. */
static bool is_asked_for(struct scheduler *sc, const struct suspended *p, struct span address) {
    ptrdiff_t at = span_rfind(address, '@');
    struct span domain = at < 0 ? address : span_from(address, (size_t)at + 1);
    bool found = !domain.len;
    for (uint32_t i = 0; i < sc->config.shards && !found; i++)
        found = suspend_in(sc, domain, sc->shards[i]) == p;
    return found;
}

/* With a limit a page, and a cursor when there is more; else all, in several replies. */
static void list_all(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    Words__AdminRow rows[ROWS_AT_ONCE], *pointers[ROWS_AT_ONCE];
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct span address = m->has_address ? frame_span(m->address) : SPAN_EMPTY;
    uint64_t after = 0, last = 0;
    char cursor[24];
    size_t sent = 0;
    r.rows = pointers;
    if (m->has_after && m->after.len && !span_u64(frame_span(m->after), &after)) {
        question_error(sc, correlation, ERR_INVALID, "the cursor is not one of ours");
        return;
    }
    LIST_FOREACH(n, tmp, &sc->suspended) {
        const struct suspended *p = LIST_ENTRY(n, const struct suspended, link);
        if (p->serial <= after || !is_asked_for(sc, p, address))
            continue;
        if (m->has_limit && m->limit && sent == m->limit) {
            r.has_cursor = true;
            r.cursor = frame_bytes(
                span_make(cursor, (size_t)snprintf(cursor, sizeof cursor, "%llu", (unsigned long long)last)));
            break;
        }
        if (r.n_rows == ROWS_AT_ONCE) {
            question_reply(sc, correlation, &r, false);
            r.n_rows = 0;
        }
        pointers[r.n_rows] = &rows[r.n_rows];
        fill_row(&rows[r.n_rows++], p);
        last = p->serial;
        sent++;
    }
    r.has_count = true;
    r.count = sc->suspended.count;
    question_reply(sc, correlation, &r, true);
}

void suspend_on_request(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    char name[SUSPENSION_NAME_MAX + 1];
    bool dry_run = m->has_dry_run && m->dry_run;
    if (m->verb == WORDS__ADMIN_VERB__ADMIN_SUSPENSIONS) {
        list_all(sc, correlation, m);
        return;
    }
    if (!m->has_scope || !m->has_address || !read_name(frame_span(m->address), m->scope, name)) {
        question_error(sc, correlation, ERR_INVALID, "the name of a domain, .domain for all below it, or of a site");
        return;
    }
    const struct suspended *p = suspend_find(sc, m->scope, span_of(name));
    uint64_t ready = ready_under(sc, m->scope, name);
    if (m->verb == WORDS__ADMIN_VERB__ADMIN_RESUME && !p)
        question_error(sc, correlation, ERR_NOT_FOUND, "it is not suspended");
    else if (dry_run)
        send_count(sc, correlation, ready);
    else if (m->verb == WORDS__ADMIN_VERB__ADMIN_SUSPEND)
        suspend(sc, correlation, m, name, ready);
    else
        resume(sc, correlation, (struct suspended *)(uintptr_t)p, ready);
}
