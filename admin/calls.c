/*
 * calls: what becomes of a request: who asks and whether they may, the audit of a change before it is made, the role
 * that answers, and its replies on their way back under the number that the tool chose.
 *
 * Bounded: ADMIN_CALLS_MAX requests at once, and ADMIN_CALLS_OF_ONE of one asker, so that a tool that never waits does
 * not starve the others; a role that has not finished its answer in ADMIN_TIMEOUT_MS is an error to the tool, not a
 * hang. What is refused is refused before anything is passed on, and recorded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include "admin/admin_in.h"
#include "admin/figures.h"
#include "admin/watch.h"

METRIC_COUNTER(metric_requests, "posthouse_admin_requests_total", "Requests of operators' tools")

/* -- to the tool -- */

static struct span tool_of(const struct call *c) {
    return span_make(c->tool, c->tool_len);
}

/* False: the tool has gone. */
static bool send_reply(struct admin *a, const struct call *c, Words__AdminReply *r, bool last) {
    r->has_last = true;
    r->last = last;
    if (!c->door) {
        ask_put(a->desk, c->tool_correlation, r);
        return true;
    }
    int err =
        frame_send_hub(c->door->hub, tool_of(c), FRAME_ADMIN_REPLY, c->tool_correlation, 0, &r->base, NULL, &a->pack);
    if (err != ERR_OK)
        LOG_DEBUG("admin_reply_unsent", LOG_ERR("why", err));
    return err == ERR_OK;
}

static Words__AdminReply error_reply(int err, const char *text) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = r.has_text = true;
    r.error = (uint32_t)-err;
    r.text = frame_bytes(span_of(text));
    return r;
}

static void call_end(struct admin *a, struct call *c) {
    list_remove(&a->calls, &c->link);
    free(c->request);
    free(c);
}

void calls_reply(struct admin *a, struct call *c, Words__AdminReply *r, bool ends) {
    if (r->has_count) {
        c->has_count = true;
        c->count = r->count;
    }
    if (r->has_error && r->error)
        c->error = -(int)r->error;
    if (ends && c->change)
        admin_audit_done(a, c);
    bool there = send_reply(a, c, r, ends);
    if (ends || (!there && !c->change)) /* the end of a change is awaited for the audit's sake */
        call_end(a, c);
}

void calls_fail(struct admin *a, struct call *c, int err, const char *text) {
    Words__AdminReply r = error_reply(err, text);
    if (c->state == CALL_AUDITING) {
        c->change = false; /* nothing was changed */
        struct arena mem;
        arena_init(&mem, 4096, ADMIN_REQUEST_MAX * 4u);
        admin_audit_refused(
            a, &c->asker, frame_unpack(&words__admin_request__descriptor, span_make(c->request, c->request_len), &mem),
            err);
        arena_deinit(&mem);
    }
    calls_reply(a, c, &r, true);
}

/* -- who asks what -- */

struct call *calls_find(struct admin *a, uint64_t correlation) {
    LIST_FOREACH(it, next, &a->calls) {
        struct call *c = LIST_ENTRY(it, struct call, link);
        if (c->correlation == correlation)
            return c;
    }
    return NULL;
}

/* Over ipc everybody who can open the socket is an admin, and the name is what the tool says. */
static void identify(struct admin *a, struct call *c, struct span user, const Words__AdminRequest *q) {
    struct admin_asker *who = &c->asker;
    if (!c->door->tcp) {
        struct span claim = q && q->has_actor ? span_first(frame_span(q->actor), 64) : SPAN("?");
        snprintf(who->actor, sizeof who->actor, "unix:%.*s", SPAN_FMT(claim));
        snprintf(who->origin, sizeof who->origin, "ipc");
        who->role = ADMIN_ROLE_ADMIN;
        return;
    }
    span_copy(user, who->actor, sizeof who->actor);
    snprintf(who->origin, sizeof who->origin, "tcp");
    who->role = ADMIN_ROLE_NONE;
    for (size_t i = 0; i < a->key_count; i++)
        if (span_eq(span_of(a->keys[i].name), user))
            who->role = a->keys[i].role;
}

static bool is_same_asker(const struct call *x, const struct call *y) {
    if (x->door != y->door)
        return false;
    if (!x->door || x->door->tcp)
        return strcmp(x->asker.actor, y->asker.actor) == 0;
    return span_eq(tool_of(x), tool_of(y));
}

static bool is_under_way(const struct admin *a, const struct call *fresh) {
    LIST_FOREACH(it, next, &a->calls) {
        const struct call *c = LIST_ENTRY(it, struct call, link);
        if (c->door == fresh->door && c->tool_correlation == fresh->tool_correlation &&
            span_eq(tool_of(c), tool_of(fresh)))
            return true;
    }
    return false;
}

static bool has_room(const struct admin *a, const struct call *fresh) {
    size_t own = 0;
    LIST_FOREACH(it, next, &a->calls)
    own += is_same_asker(LIST_ENTRY(it, struct call, link), fresh);
    return a->calls.count < ADMIN_CALLS_MAX && own < ADMIN_CALLS_OF_ONE;
}

/* Of a request that never became a call. q is NULL when it is malformed. */
static void refuse(struct admin *a, struct call *fresh, const Words__AdminRequest *q, int err, const char *text) {
    Words__AdminReply r = error_reply(err, text);
    admin_audit_refused(a, &fresh->asker, q, err);
    (void)send_reply(a, fresh, &r, true);
}

/* 0, or an error with its text. */
static int judge(const struct call *fresh, const Words__AdminRequest *q, char text[400]) {
    const struct admin_asker *who = &fresh->asker;
    enum admin_role needed = access_needed(q);
    if (!fresh->verb || needed == ADMIN_ROLE_NONE) {
        snprintf(text, 400, "no such request");
        return ERR_UNSUPPORTED;
    }
    if (who->role < (unsigned)needed) {
        snprintf(text, 400, "the %s %s (%s) may not %s: it takes the role %s", fresh->door ? "key" : "user", who->actor,
                 access_role_name(who->role), fresh->verb->name, access_role_name(needed));
        return ERR_DENIED;
    }
    if (q->has_dry_run && q->dry_run && fresh->verb->change && !fresh->verb->dry) {
        snprintf(text, 400, "there is no dry run of %s", fresh->verb->name);
        return ERR_UNSUPPORTED;
    }
    return ERR_OK;
}

/* -- the way of a call -- */

static const char *const role_names[] = {[ROLE_GATEWAY] = "the gateway is not running here",
                                         [ROLE_SCHEDULER] =
                                             "the scheduler is not running here (see the log for a damaged store)",
                                         [ROLE_DELIVERY] = "the delivery node is not running here"};

static void answer_watch(struct admin *a, struct call *c, const Words__AdminRequest *q) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct arena mem;
    arena_init(&mem, 64 * 1024, WATCH_REPLY_MAX);
    int err = watch_answer(q, &r, &mem);
    if (err == ERR_OK)
        calls_reply(a, c, &r, true);
    else
        calls_fail(a, c, err, "malformed question for live lines");
    arena_deinit(&mem);
}

static void answer_figures(struct admin *a, struct call *c) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct arena mem;
    arena_init(&mem, 64 * 1024, FIGURES_REPLY_MAX);
    figures_answer(&r, a->name, a->version, clock_mono_ms() - a->started_ms, &mem);
    calls_reply(a, c, &r, c->waiting == 0);
    arena_deinit(&mem);
}

static void ask_node(struct admin *a, struct call *c, const Words__AdminRequest *q) {
    c->waiting = 1;
    if (q->verb == WORDS__ADMIN_VERB__ADMIN_WATCH)
        answer_watch(a, c, q);
    else if (a->ask_node)
        a->ask_node(a->node_arg, c->correlation, q);
    else
        calls_fail(a, c, ERR_UNSUPPORTED, "not answered by this node");
}

static void ask(struct admin *a, struct call *c, const Words__AdminRequest *q) {
    uint32_t role = c->verb->answers;
    c->state = CALL_ASKED;
    c->until_ms = clock_mono_ms() + ADMIN_TIMEOUT_MS;
    if (role == ACCESS_NODE) {
        ask_node(a, c, q);
        return;
    }
    c->waiting = roles_ask(a, role, c->correlation, q);
    if (role == ACCESS_ALL)
        answer_figures(a, c);
    else if (!c->waiting)
        calls_fail(a, c, ERR_UNREACHABLE, role_names[role]);
}

void calls_go_on(struct admin *a, struct call *c) {
    struct arena mem;
    arena_init(&mem, 4096, ADMIN_REQUEST_MAX * 4u);
    const Words__AdminRequest *q =
        frame_unpack(&words__admin_request__descriptor, span_make(c->request, c->request_len), &mem);
    if (q)
        ask(a, c, q);
    else
        calls_fail(a, c, ERR_NOMEM, err_text(ERR_NOMEM));
    arena_deinit(&mem);
}

/* A change: kept until the audit has its beginning. */
static void begin_change(struct admin *a, struct call *c, const Words__AdminRequest *q) {
    buf_clear(&a->pack);
    int err = frame_pack(&q->base, &a->pack);
    c->request = err == ERR_OK ? malloc(buf_len(&a->pack) + 1) : NULL;
    if (!c->request) {
        Words__AdminReply r = error_reply(ERR_NOMEM, err_text(ERR_NOMEM));
        calls_reply(a, c, &r, true);
        return;
    }
    c->request_len = buf_len(&a->pack);
    memcpy(c->request, buf_span(&a->pack).at, c->request_len);
    c->change = true;
    err = admin_audit_begun(a, c, q);
    if (err == ERR_NOT_FOUND)
        ask(a, c, q);
    else if (err != ERR_OK)
        calls_fail(a, c, err, "the audit cannot be kept, so nothing was changed");
}

static void begin(struct admin *a, const struct call *fresh, Words__AdminRequest *q) {
    struct call *c = malloc(sizeof *c);
    CHECK(c);
    *c = *fresh;
    c->correlation = ++a->last_correlation;
    c->until_ms = clock_mono_ms() + ADMIN_TIMEOUT_MS;
    c->state = CALL_AUDITING;
    list_push_back(&a->calls, &c->link);
    q->audit = NULL; /* the service's own */
    q->has_actor = true;
    q->actor = frame_bytes(span_of(c->asker.actor));
    if (access_is_change(q))
        begin_change(a, c, q);
    else
        ask(a, c, q);
}

static void take(struct admin *a, struct call *fresh, Words__AdminRequest *q) {
    char text[400];
    fresh->verb = access_verb(q->verb);
    int err = judge(fresh, q, text);
    if (err != ERR_OK)
        refuse(a, fresh, q, err, text);
    else if (!has_room(a, fresh))
        refuse(a, fresh, q, ERR_FULL, "too many requests at once");
    else
        begin(a, fresh, q);
}

void calls_on_tool(void *arg, struct span peer, const struct bus_message *m) {
    struct admin_door *door = arg;
    struct admin *a = door->admin;
    struct call fresh = {.door = door};
    struct frame f;
    struct arena mem;
    metric_add(&metric_requests, 1);
    int err = frame_read(&f, m);
    fresh.tool_len = span_copy(peer, fresh.tool, sizeof fresh.tool);
    fresh.tool_correlation = err == ERR_OK || err == ERR_VERSION ? f.correlation : 0;
    identify(a, &fresh, m->user, NULL);
    if ((err == ERR_OK && f.kind != FRAME_ADMIN_REQUEST) || (err != ERR_OK && err != ERR_VERSION)) {
        LOG_WARN("admin_request_refused", LOG_ERR("why", err ? err : ERR_INVALID), LOG_STR("actor", fresh.asker.actor),
                 LOG_STR("origin", fresh.asker.origin));
        admin_audit_refused(a, &fresh.asker, NULL, err ? err : ERR_INVALID);
        return; /* there is nobody who would understand an answer */
    }
    if (err == ERR_VERSION) {
        refuse(a, &fresh, NULL, err, "the tool speaks another version than the daemon");
        return;
    }
    if (is_under_way(a, &fresh)) { /* an answer would be taken for that of the first */
        LOG_WARN("admin_request_repeated", LOG_STR("actor", fresh.asker.actor), LOG_STR("origin", fresh.asker.origin));
        admin_audit_refused(a, &fresh.asker, NULL, ERR_EXISTS);
        return;
    }
    arena_init(&mem, 4096, ADMIN_REQUEST_MAX * 8u);
    Words__AdminRequest *q =
        f.meta.len <= ADMIN_REQUEST_MAX ? frame_unpack(&words__admin_request__descriptor, f.meta, &mem) : NULL;
    if (q) {
        identify(a, &fresh, m->user, q);
        take(a, &fresh, q);
    } else {
        refuse(a, &fresh, NULL, f.meta.len <= ADMIN_REQUEST_MAX ? ERR_INVALID : ERR_RANGE,
               f.meta.len <= ADMIN_REQUEST_MAX ? "malformed request" : "the request is too long");
    }
    arena_deinit(&mem);
}

void calls_begin_inside(struct admin *a, uint64_t number, const Words__AdminRequest *q,
                        const struct admin_caller *who) {
    struct call fresh = {.tool_correlation = number};
    Words__AdminRequest copy = *q;
    metric_add(&metric_requests, 1);
    snprintf(fresh.asker.actor, sizeof fresh.asker.actor, "%s", who->actor);
    snprintf(fresh.asker.origin, sizeof fresh.asker.origin, "%s", who->origin);
    fresh.asker.role = who->role;
    take(a, &fresh, &copy);
}

void calls_sweep(struct admin *a, uint64_t now_ms) {
    LIST_FOREACH(it, next, &a->calls) {
        struct call *c = LIST_ENTRY(it, struct call, link);
        if (now_ms >= c->until_ms)
            calls_fail(a, c, ERR_TIMEOUT,
                       c->state == CALL_AUDITING ? "the audit was not kept in time, so nothing was changed"
                                                 : "a role of the node did not answer in time");
    }
}

void calls_drop_all(struct admin *a) {
    while (!list_is_empty(&a->calls))
        call_end(a, LIST_ENTRY(list_first(&a->calls), struct call, link));
}
