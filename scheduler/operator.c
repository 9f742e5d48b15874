/*
 * operator: the operator's changes of the queue by filter or message: retry, hold, release, bounce, delete, reroute.
 *
 * A change goes over the store page by page: a helper thread reads a page and leaves out what cannot match; the loop's
 * thread looks at each message again as it is at this moment (in its core, or as it was read when it is not in memory
 * and has not been meanwhile), asks the filter once more, and makes one event of the recipients that match. So what
 * changed since the walk is judged by what it has become. A page is on disk before the next one is read, and before any
 * count is told.
 *
 * It works in slices and rests many times as long after each, and after a page half as long as that took, so that
 * reception and delivery go on beside it: the busier the node, the longer its rests.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/filter.h"
#include "scheduler/operator_in.h"
#include "scheduler/suspend.h"

#define SLICE_US 120u
#define SLICE_REST 20u /* times as long as a slice */
#define PAGE_REST 2u   /* as a part of what a page took */
#define REST_MAX_MS 100u
#define PROGRESS_MS 500u
#define CHANGES_MAX 8u
#define AGAIN_MAX 200u /* pages in a row of messages that were stale */
#define ACTOR_MAX 64u
#define REASON_MAX 200u

/* -- the end -- */

static void change_free(struct change *c) {
    if (c->is_reading)
        shard_reading_end(c->sc->shards[c->shard], &c->reading);
    if (list_is_linked(&c->link))
        list_remove(&c->sc->changes, &c->link);
    if (c->timer)
        loop_timer_close(c->timer);
    filter_free(c->filter);
    arena_deinit(&c->mem);
    arena_deinit(&c->look);
    free(c);
}

static const char *verb_name(enum sched_operator_verb verb) {
    static const char *const names[] = {"?", "retry", "hold", "release", "bounce", "delete", "reroute"};
    return names[verb];
}

static void finish(struct change *c, int err, const char *text) {
    LOG_INFO("operator_change", LOG_STR("verb", verb_name(c->verb)), LOG_U64("recipients", c->done),
             LOG_U64("dry_run", c->dry_run), LOG_STR("note", c->note), LOG_ERR("end", err));
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_count = true;
    r.count = c->done;
    r.has_error = err != ERR_OK;
    r.error = (uint32_t)-err;
    r.has_text = err != ERR_OK;
    r.text = frame_bytes(span_of(text ? text : err_text(err)));
    if (c->correlation)
        question_reply(c->sc, c->correlation, &r, true);
    change_free(c);
}

static void tell_progress(struct change *c) {
    uint64_t mono_ms = clock_mono_ms();
    if (!c->correlation || mono_ms < c->told_ms + PROGRESS_MS)
        return;
    c->told_ms = mono_ms;
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_count = true;
    r.count = c->done;
    question_reply(c->sc, c->correlation, &r, false);
}

/* -- changing, on the loop -- */

static void later(struct change *c, uint64_t ms, void (*go_on)(struct change *c)) {
    c->go_on = go_on;
    loop_timer_set(c->timer, ms);
}

struct judge { /* of one message */
    const struct change *change;
    const struct page_message *message;
    uint32_t *indexes;
    uint32_t count, most;
};

/* Beside what its state allows: what is under way may have such a wish already, and so on. */
static bool would_change(const struct change *c, const struct sched_view *v, struct span home) {
    bool under_way = v->state == SCHED_ASSIGNED;
    bool final = v->wish == SCHED_OP_BOUNCE || v->wish == SCHED_OP_DELETE;
    switch (c->verb) {
    case SCHED_OP_RETRY:
        return v->state == SCHED_DEFERRED || v->site_resume_ms;
    case SCHED_OP_RELEASE:
        return !under_way || v->wish == SCHED_OP_HOLD;
    case SCHED_OP_REROUTE:
        return !(under_way && final) && (under_way || !span_eq(v->destination, c->route[0] ? span_of(c->route) : home));
    default:
        return !under_way || (!final && v->wish != (uint32_t)c->verb);
    }
}

static void on_view(void *arg, const struct sched_view *v) {
    struct judge *j = arg;
    const struct change *c = j->change;
    const Words__Envelope *e = j->message->envelope;
    if (v->index >= e->n_recipients || j->count == j->most || !sched_verb_applies(c->verb, v->state))
        return;
    const Words__Recipient *r = e->recipients[v->index];
    struct filter_subject s = {
        .message = j->message->id,
        .sender = frame_span(e->sender),
        .recipient = frame_span(r->address),
        .destination = frame_span(r->destination),
        .site = v->site,
        .state = v->state,
        .received_ms = e->received_ms,
    };
    if (would_change(c, v, frame_span(r->destination)) && (!c->filter || filter_matches(c->filter, &s, c->now_ms)))
        j->indexes[j->count++] = v->index;
}

/* The message is not in memory: as it was read. */
static void view_stored(const struct sched *core, struct judge *j) {
    const struct page_message *m = j->message;
    for (uint32_t i = 0; i < m->envelope->n_recipients; i++) {
        const Words__RecipientState *s = m->states[i];
        struct sched_view v = {.index = i, .state = s ? (enum sched_state)s->state : SCHED_READY};
        v.destination = frame_span(s && s->has_destination ? s->destination : m->envelope->recipients[i]->destination);
        v.site = sched_site_of(core, v.destination);
        on_view(j, &v);
    }
}

static int change_message(struct change *c, const struct page_message *m, const struct judge *j, bool in_memory) {
    struct shard *s = c->sc->shards[c->shard];
    struct sched_event e = {.kind = SCHED_OPERATOR};
    size_t n = m->envelope->n_recipients;
    struct span *homes = c->verb == SCHED_OP_REROUTE ? arena_alloc(&c->mem, n * sizeof *homes) : NULL;
    if (c->verb == SCHED_OP_REROUTE && !homes)
        return ERR_NOMEM;
    for (size_t i = 0; homes && i < n; i++)
        homes[i] = frame_span(m->envelope->recipients[i]->destination);
    e.operator_ = (struct sched_operator){
        .verb = c->verb,
        .message = m->id,
        .indexes = j->indexes,
        .count = j->count,
        .note = span_of(c->note),
        .destination = span_of(c->route),
        .homes = homes,
    };
    int err = in_memory
                  ? shard_step(s, &e, scheduler_now(c->sc))
                  : loader_take(c->sc->loaders[c->shard], &c->reading, m->id, m->envelope, m->states, &e.operator_);
    if (err == ERR_OK) {
        c->done += sched_changed(shard_core(s));
        c->page_changed = true;
    }
    return err;
}

static void apply(struct change *c, const struct page_message *m) {
    struct shard *s = c->sc->shards[c->shard];
    struct judge j = {.change = c, .message = m, .most = (uint32_t)m->envelope->n_recipients};
    j.indexes = arena_alloc(&c->mem, (m->envelope->n_recipients + 1) * sizeof *j.indexes);
    if (!j.indexes) {
        c->err = ERR_NOMEM;
        return;
    }
    if (c->limit && c->limit - c->done < j.most)
        j.most = (uint32_t)(c->limit - c->done);
    bool in_memory = sched_glance(shard_core(s), m->id, on_view, &j) == ERR_OK;
    if (!in_memory && shard_is_stale(s, m->id)) {
        if (!shard_was_dropped(s, m->id))
            c->again[c->again_count++] = m->id;
        return;
    }
    if (!in_memory)
        view_stored(shard_core(s), &j);
    if (!j.count)
        return;
    if (c->dry_run)
        c->done += j.count;
    else
        c->err = change_message(c, m, &j, in_memory);
}

static void begin_page(struct change *c);

static void page_over(struct change *c) {
    c->page_changed = false;
    tell_progress(c);
    if (c->limit && c->done >= c->limit) {
        finish(c, ERR_OK, NULL);
        return;
    }
    if (c->again_count && ++c->again_rounds == AGAIN_MAX) {
        finish(c, ERR_AGAIN, "a message came and went each time that it was looked at; what was counted is changed");
        return;
    }
    if (c->again_count) {
        later(c, 10, begin_page);
        return;
    }
    c->again_rounds = 0;
    if (c->shard_over && (c->only || ++c->shard == c->sc->config.shards)) {
        finish(c, ERR_OK, NULL);
        return;
    }
    if (c->shard_over) {
        c->next_id = 0;
        c->shard_over = false;
    }
    uint64_t rest_ms = 1 + (clock_mono_ms() - c->begun_ms) / PAGE_REST;
    later(c, rest_ms < REST_MAX_MS ? rest_ms : REST_MAX_MS, begin_page);
}

static void on_disk(void *arg, int err) {
    struct change *c = arg;
    c->waits = false;
    if (err != ERR_OK)
        return; /* the process ends: operator_close frees it */
    later(c, 0, page_over);
}

static void slice(struct change *c) {
    uint64_t begun_us = clock_mono_us(), spent_us = 0;
    while (c->at < c->count && c->err == ERR_OK && spent_us < SLICE_US && !(c->limit && c->done >= c->limit)) {
        apply(c, &c->page[c->at++]);
        spent_us = clock_mono_us() - begun_us;
    }
    bool over = c->at == c->count || c->err != ERR_OK || (c->limit && c->done >= c->limit);
    tell_progress(c);
    if (!over) {
        later(c, 1 + SLICE_REST * spent_us / 1000, slice);
        return;
    }
    shard_reading_end(c->sc->shards[c->shard], &c->reading);
    c->is_reading = false;
    if (c->err != ERR_OK) {
        finish(c, c->err, NULL);
    } else if (c->page_changed || c->again_count) { /* what is stale has left memory, and is read when it is on disk */
        c->waits = true;
        shard_after(c->sc->shards[c->shard], on_disk, c);
    } else {
        later(c, 1 + SLICE_REST * spent_us / 1000, page_over);
    }
}

static void page_read(void *arg) {
    struct change *c = arg;
    c->is_working = false;
    if (c->err != ERR_OK)
        c->count = 0;
    c->at = 0;
    later(c, 0, slice);
}

static void begin_page(struct change *c) {
    if (c->shard >= c->sc->config.shards) { /* the message that the filter names cannot be here */
        finish(c, ERR_OK, NULL);
        return;
    }
    if (c->sc->draining) {
        finish(c, ERR_AGAIN, "the scheduler ends; what was counted is changed");
        return;
    }
    if (!loader_knows_flights(c->sc->loaders[c->shard])) {
        later(c, 20, begin_page);
        return;
    }
    if (!c->next_id)
        c->last_id = sched_last_id(shard_core(c->sc->shards[c->shard]));
    arena_reset(&c->mem);
    c->count = 0;
    c->begun_ms = clock_mono_ms();
    shard_reading_begin(c->sc->shards[c->shard], &c->reading);
    c->is_reading = true;
    c->is_working = scheduler_work(c->sc, operator_read_page, page_read, c);
    if (!c->is_working)
        finish(c, ERR_NOMEM, NULL);
}

static void on_timer(void *arg) {
    struct change *c = arg;
    c->go_on(c);
}

/* -- requests -- */

static struct change *change_new(struct scheduler *sc, uint64_t correlation, enum sched_operator_verb verb) {
    struct change *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->sc = sc;
    c->correlation = correlation;
    c->verb = verb;
    c->now_ms = scheduler_now(sc);
    c->told_ms = clock_mono_ms();
    arena_init(&c->mem, 64 * 1024, 512u * 1024u * 1024u);
    arena_init(&c->look, 64 * 1024, 0);
    c->timer = loop_timer_new(sc->loop, on_timer, c);
    if (!c->timer) {
        change_free(c);
        return NULL;
    }
    list_push_back(&sc->changes, &c->link);
    return c;
}

/* One line of text without control characters. In a name nothing looks like the colon and blank before the reason. */
static void add_clean(struct buf *to, struct span text, bool name) {
    for (size_t i = 0; i < text.len; i++) {
        unsigned char ch = (unsigned char)text.at[i];
        bool ends = name && ch == ':' && (i + 1 == text.len || text.at[i + 1] == ' ');
        buf_add_byte(to, (char)(ch < 0x20 || ch == 0x7f ? ' ' : ends ? '/' : ch));
    }
}

size_t operator_note(struct span actor, struct span reason, char *to, size_t size) {
    struct buf b;
    buf_init(&b, 1024);
    buf_add_str(&b, "by ");
    add_clean(&b, span_first(actor.len ? actor : SPAN("an operator"), ACTOR_MAX), true);
    if (reason.len) {
        buf_add_str(&b, ": ");
        add_clean(&b, span_first(reason, REASON_MAX), false);
    }
    size_t len = span_copy(buf_span(&b), to, size);
    buf_deinit(&b);
    return len;
}

/* HOST[:PORT] or [IPv6][:PORT], about. */
static bool is_target(struct span host) {
    ptrdiff_t close = host.len && host.at[0] == '[' ? span_find(host, ']') : -1;
    struct span rest = close >= 0 ? span_from(host, (size_t)close + 1) : host, port = SPAN_EMPTY;
    bool has_port = span_find(rest, ':') >= 0;
    uint64_t number = 25;
    rest = span_cut(rest, ':', &port);
    return (close > 1 ? !rest.len : rest.len > 0) && (!has_port || (span_u64(port, &number) && number <= 65535)) &&
           number > 0;
}

/* A route as the settings have it, as far as it can be told here; delivery reads it for good. */
static bool read_route(struct span from, char *to) {
    struct span rest, kind = span_cut(from, ':', &rest);
    bool mail = span_eq_nocase(kind, SPAN("smtp")) || span_eq_nocase(kind, SPAN("lmtp"));
    bool known = span_starts_nocase(from, SPAN("lmtp:unix:/")) || (mail && is_target(rest)) ||
                 (span_eq_nocase(kind, SPAN("mx")) && rest.len && span_find(rest, ':') < 0);
    if (from.len > ROUTE_MAX)
        return false;
    bool path = span_starts_nocase(from, SPAN("lmtp:unix:"));
    for (size_t i = 0; i < from.len; i++) {
        char ch = from.at[i];
        if (ch <= 0x20 || ch >= 0x7f)
            return false;
        to[i] = ch >= 'A' && ch <= 'Z' && (!path || i < 10) ? (char)(ch - 'A' + 'a') : ch;
    }
    to[from.len] = 0;
    return known;
}

static int fill(struct change *c, const Words__AdminRequest *m, const char **problem) {
    struct span filter = span_trim(m->has_filter ? frame_span(m->filter) : SPAN_EMPTY);
    operator_note(m->has_actor ? frame_span(m->actor) : SPAN_EMPTY, m->has_reason ? frame_span(m->reason) : SPAN_EMPTY,
                  c->note, sizeof c->note);
    c->dry_run = m->has_dry_run && m->dry_run;
    c->limit = m->has_limit ? m->limit : 0;
    c->only = m->has_message ? m->message : 0;
    if (filter.len) {
        int err = filter_parse(&c->filter, filter, problem);
        if (err != ERR_OK)
            return err;
        c->must_be = c->only && !filter_id(c->filter);
        c->only = filter_id(c->filter) ? filter_id(c->filter) : c->only;
    } else if (!c->only && !m->has_filter) {
        *problem = "a filter or a message is needed (an empty filter matches everything)";
        return ERR_INVALID;
    } else {
        c->must_be = c->only != 0;
    }
    bool elsewhere = c->only && !scheduler_shard_of(c->sc, c->only);
    if (elsewhere && c->must_be)
        return ERR_NOT_FOUND;
    c->shard = elsewhere ? c->sc->config.shards : c->only ? id_shard(c->only) : 0;
    if (c->verb == SCHED_OP_REROUTE && m->has_target && m->target.len && !read_route(frame_span(m->target), c->route)) {
        *problem = "a route is smtp:HOST[:PORT], lmtp:HOST[:PORT], lmtp:unix:/PATH or mx:DOMAIN";
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void begin(struct scheduler *sc, uint64_t correlation, enum sched_operator_verb verb,
                  const Words__AdminRequest *m) {
    const char *problem = NULL;
    int err = ERR_NOMEM;
    if (sc->changes.count >= CHANGES_MAX) {
        question_error(sc, correlation, ERR_AGAIN, "as many changes as are made at once are under way; try again");
        return;
    }
    struct change *c = change_new(sc, correlation, verb);
    if (c)
        err = fill(c, m, &problem);
    if (err == ERR_OK) {
        begin_page(c);
        return;
    }
    question_error(sc, correlation, err, problem);
    if (c)
        change_free(c);
}

void operator_retry(struct scheduler *sc, struct span filter) {
    const char *problem;
    struct change *c = sc->changes.count < CHANGES_MAX ? change_new(sc, 0, SCHED_OP_RETRY) : NULL;
    if (!c)
        return;
    if (filter_parse(&c->filter, filter, &problem) == ERR_OK)
        begin_page(c);
    else
        change_free(c);
}

bool operator_on_request(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m) {
    switch (m->verb) {
    case WORDS__ADMIN_VERB__ADMIN_RETRY:
        begin(sc, correlation, SCHED_OP_RETRY, m);
        return true;
    case WORDS__ADMIN_VERB__ADMIN_HOLD:
        begin(sc, correlation, SCHED_OP_HOLD, m);
        return true;
    case WORDS__ADMIN_VERB__ADMIN_RELEASE:
        begin(sc, correlation, SCHED_OP_RELEASE, m);
        return true;
    case WORDS__ADMIN_VERB__ADMIN_BOUNCE:
        begin(sc, correlation, SCHED_OP_BOUNCE, m);
        return true;
    case WORDS__ADMIN_VERB__ADMIN_DELETE:
        begin(sc, correlation, SCHED_OP_DELETE, m);
        return true;
    case WORDS__ADMIN_VERB__ADMIN_REROUTE:
        begin(sc, correlation, SCHED_OP_REROUTE, m);
        return true;
    case WORDS__ADMIN_VERB__ADMIN_SUSPEND:
    case WORDS__ADMIN_VERB__ADMIN_RESUME:
    case WORDS__ADMIN_VERB__ADMIN_SUSPENSIONS:
        suspend_on_request(sc, correlation, m);
        return true;
    default:
        return false;
    }
}

void operator_close(struct scheduler *sc) {
    LIST_FOREACH(n, tmp, &sc->changes) {
        struct change *c = LIST_ENTRY(n, struct change, link);
        CHECK(!c->is_working);
        change_free(c);
    }
}
