/*
 * admin: see admin.h. Two hubs on the main loop: one for tools (ipc://), one for the roles of this node
 * (inproc://). A request is checked, sent to every role that knows something about it, and the replies are passed
 * back to the tool that asked, under the correlation id that it chose.
 *
 * Bounded: at most CALLS_MAX requests at once; a role that has not finished its answer in TIMEOUT_MS is an error
 * to the tool. Tools are let in by the mode of the socket's file (0600).
 */
#include "admin/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"

#include "admin/watch.h"

#define ROLES_MAX 64u
#define CALLS_MAX 64u
#define TIMEOUT_MS 60000u
#define SWEEP_MS 1000u
#define QUEUE_MAX (64u * 1024u * 1024u)
#define FIGURES_MAX 512u

METRIC_COUNTER(metric_requests, "posthouse_admin_requests_total", "Requests of operators' tools")

struct role_peer {
    char name[BUS_PEER_MAX];
    size_t name_len;
    uint32_t role;
};

struct call {
    struct list_node link;
    char tool[BUS_PEER_MAX];
    size_t tool_len;
    uint64_t tool_correlation;
    uint64_t correlation; /* ours, to the roles */
    uint64_t until_ms;
    uint32_t waiting; /* roles that have not finished */
};

struct admin {
    struct bus_hub *tools, *roles;
    struct loop_timer *timer;
    struct role_peer peers[ROLES_MAX];
    size_t peer_count;
    struct list calls;
    uint64_t last_correlation;
    char *name, *version;
    uint64_t started_ms;
    struct buf pack;
    struct ask_desk *desk; /* of questions from inside: calls of the tool with the empty name */
};

/* -- to the tool -- */

static struct span tool_of(const struct call *c) {
    return span_make(c->tool, c->tool_len);
}

static void reply(struct admin *a, struct span tool, uint64_t correlation, Words__AdminReply *r, bool last) {
    r->has_last = true;
    r->last = last;
    if (!tool.len) {
        ask_put(a->desk, correlation, r);
        return;
    }
    int err = frame_send_hub(a->tools, tool, FRAME_ADMIN_REPLY, correlation, 0, &r->base, NULL, &a->pack);
    if (err != ERR_OK) /* the tool has gone */
        LOG_DEBUG("admin_reply_unsent", LOG_ERR("why", err));
}

static void reply_error(struct admin *a, struct span tool, uint64_t correlation, int err, const char *text) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = true;
    r.error = (uint32_t)-err;
    r.has_text = true;
    r.text = frame_bytes(span_of(text));
    reply(a, tool, correlation, &r, true);
}

static void call_end(struct admin *a, struct call *c) {
    list_remove(&a->calls, &c->link);
    free(c);
}

/* -- the node's own figures -- */

static void add_figure(Words__AdminReply *r, Words__AdminFigure *figures, struct span name, double value) {
    if (r->n_figures == FIGURES_MAX)
        return;
    Words__AdminFigure *f = &figures[r->n_figures];
    words__admin_figure__init(f);
    f->name = frame_bytes(name);
    f->value = value;
    r->figures[r->n_figures++] = f;
}

static void reply_own_figures(struct admin *a, const struct call *c) {
    static Words__AdminFigure figures[FIGURES_MAX]; /* too large for the stack; the main loop only */
    static Words__AdminFigure *pointers[FIGURES_MAX];
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct arena mem;
    char text[512];
    arena_init(&mem, 4096, 0);
    snprintf(text, sizeof text, "%s %s", a->name, a->version);
    r.has_text = true;
    r.text = frame_bytes(span_of(text));
    r.figures = pointers;
    add_figure(&r, figures, SPAN("uptime_seconds"), (double)(clock_mono_ms() - a->started_ms) / 1000.0);
    for (const struct metric *m = metric_first(); m; m = m->next) {
        if (m->kind == METRIC_KIND_HISTOGRAM)
            continue;
        char *name = m->labels ? arena_printf(&mem, "%s{%s}", m->name, m->labels) : arena_strdup(&mem, m->name);
        if (name)
            add_figure(&r, figures, span_of(name), (double)metric_value(m));
    }
    reply(a, tool_of(c), c->tool_correlation, &r, c->waiting == 0);
    arena_deinit(&mem);
}

/* -- the node's live lines -- */

static void reply_watch(struct admin *a, const struct call *c, const Words__AdminRequest *m) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    struct arena mem;
    arena_init(&mem, 64 * 1024, WATCH_REPLY_MAX);
    int err = watch_answer(m, &r, &mem);
    if (err == ERR_OK)
        reply(a, tool_of(c), c->tool_correlation, &r, true);
    else
        reply_error(a, tool_of(c), c->tool_correlation, err, "malformed question for live lines");
    arena_deinit(&mem);
}

/* -- roles -- */

static struct role_peer *find_role(struct admin *a, struct span name) {
    for (size_t i = 0; i < a->peer_count; i++)
        if (span_eq(span_make(a->peers[i].name, a->peers[i].name_len), name))
            return &a->peers[i];
    return NULL;
}

static void on_role_hello(struct admin *a, struct span name, const struct frame *f) {
    struct arena mem;
    arena_init(&mem, 1024, 65536);
    const Words__Hello *h = frame_unpack(&words__hello__descriptor, f->meta, &mem);
    struct role_peer *p = find_role(a, name);
    if (h && !p && a->peer_count < ROLES_MAX && name.len <= BUS_PEER_MAX) {
        p = &a->peers[a->peer_count++];
        memcpy(p->name, name.at, name.len);
        p->name_len = name.len;
    }
    if (h && p)
        p->role = h->role;
    else
        LOG_WARN("admin_role_refused", LOG_SPAN("peer", name));
    arena_deinit(&mem);
}

static struct call *find_call(struct admin *a, uint64_t correlation) {
    LIST_FOREACH(it, next, &a->calls) {
        struct call *c = LIST_ENTRY(it, struct call, link);
        if (c->correlation == correlation)
            return c;
    }
    return NULL;
}

static void on_role_reply(struct admin *a, const struct frame *f) {
    struct call *c = find_call(a, f->correlation);
    if (!c)
        return; /* the tool was told of a time-out */
    struct arena mem;
    arena_init(&mem, 64 * 1024, FRAME_META_MAX * 8u);
    Words__AdminReply *r = frame_unpack(&words__admin_reply__descriptor, f->meta, &mem);
    if (!r) {
        reply_error(a, tool_of(c), c->tool_correlation, ERR_CORRUPT, "a role answered with a malformed reply");
        call_end(a, c);
    } else {
        bool ends = !r->has_last || r->last;
        if (ends)
            c->waiting--;
        c->until_ms = clock_mono_ms() + TIMEOUT_MS;
        reply(a, tool_of(c), c->tool_correlation, r, ends && c->waiting == 0);
        if (ends && c->waiting == 0)
            call_end(a, c);
    }
    arena_deinit(&mem);
}

static void on_role(void *arg, struct span peer, const struct bus_message *m) {
    struct admin *a = arg;
    struct frame f;
    int err = frame_read(&f, m);
    if (err == ERR_OK && f.kind == FRAME_HELLO)
        on_role_hello(a, peer, &f);
    else if (err == ERR_OK && f.kind == FRAME_ADMIN_REPLY && find_role(a, peer))
        on_role_reply(a, &f);
    else
        LOG_WARN("admin_frame_refused", LOG_SPAN("peer", peer), LOG_ERR("why", err));
}

/* -- tools -- */

#define ROLE_NODE UINT32_MAX

/* Which role answers; 0: all of them; ROLE_NODE: none, it is known here. */
static uint32_t role_for(Words__AdminVerb verb) {
    switch (verb) {
    case WORDS__ADMIN_VERB__ADMIN_STATUS:
        return 0;
    case WORDS__ADMIN_VERB__ADMIN_WATCH:
        return ROLE_NODE;
    case WORDS__ADMIN_VERB__ADMIN_ROUTE:
    case WORDS__ADMIN_VERB__ADMIN_LIMITS:
    case WORDS__ADMIN_VERB__ADMIN_TLS_PROBE:
        return ROLE_DELIVERY;
    case WORDS__ADMIN_VERB__ADMIN_VERIFY:
        return ROLE_GATEWAY;
    default:
        return ROLE_SCHEDULER;
    }
}

static uint32_t pass_on(struct admin *a, const struct call *c, uint32_t role, const Words__AdminRequest *m) {
    uint32_t sent = 0;
    for (size_t i = 0; i < a->peer_count; i++) {
        struct role_peer *p = &a->peers[i];
        if (role && p->role != role)
            continue;
        int err = frame_send_hub(a->roles, span_make(p->name, p->name_len), FRAME_ADMIN_REQUEST, c->correlation, 0,
                                 &m->base, NULL, &a->pack);
        if (err == ERR_OK)
            sent++;
        if (err == ERR_OK && role)
            break; /* one of them knows it all */
    }
    return sent;
}

static const char *const role_names[] = {[ROLE_GATEWAY] = "the gateway is not running here",
                                         [ROLE_SCHEDULER] =
                                             "the scheduler is not running here (see the log for a damaged store)",
                                         [ROLE_DELIVERY] = "the delivery node is not running here"};

static void start_call(struct admin *a, struct span tool, const struct frame *f, const Words__AdminRequest *m) {
    struct call *c = a->calls.count < CALLS_MAX && tool.len <= BUS_PEER_MAX ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        reply_error(a, tool, f->correlation, ERR_FULL, "too many requests at once");
        return;
    }
    if (tool.len)
        memcpy(c->tool, tool.at, tool.len);
    c->tool_len = tool.len;
    c->tool_correlation = f->correlation;
    c->correlation = ++a->last_correlation;
    c->until_ms = clock_mono_ms() + TIMEOUT_MS;
    list_push_back(&a->calls, &c->link);
    uint32_t role = role_for(m->verb);
    if (role == ROLE_NODE) {
        reply_watch(a, c, m);
        call_end(a, c);
        return;
    }
    c->waiting = pass_on(a, c, role, m);
    if (!role)
        reply_own_figures(a, c);
    else if (!c->waiting)
        reply_error(a, tool, f->correlation, ERR_UNREACHABLE, role_names[role]);
    if (!c->waiting)
        call_end(a, c);
}

static void on_tool(void *arg, struct span peer, const struct bus_message *m) {
    struct admin *a = arg;
    struct frame f;
    int err = frame_read(&f, m);
    metric_add(&metric_requests, 1);
    if (err != ERR_OK || f.kind != FRAME_ADMIN_REQUEST) {
        LOG_WARN("admin_request_refused", LOG_ERR("why", err));
        if (err == ERR_VERSION)
            reply_error(a, peer, f.correlation, err, "the tool speaks another version than the daemon");
        return;
    }
    struct arena mem;
    arena_init(&mem, 4096, FRAME_META_MAX * 2u);
    const Words__AdminRequest *r = frame_unpack(&words__admin_request__descriptor, f.meta, &mem);
    if (r)
        start_call(a, peer, &f, r);
    else
        reply_error(a, peer, f.correlation, ERR_INVALID, "malformed request");
    arena_deinit(&mem);
}

int admin_ask(struct admin *a, const Words__AdminRequest *q, const struct admin_caller *who, admin_answer_cb cb,
              void *arg, uint64_t *number) {
    struct frame f = {.kind = FRAME_ADMIN_REQUEST, .correlation = ask_begin(a->desk, cb, arg)};
    *number = f.correlation;
    if (!f.correlation)
        return ERR_FULL;
    metric_add(&metric_requests, 1);
    LOG_DEBUG("admin_asked", LOG_STR("actor", who->actor), LOG_STR("origin", who->origin));
    start_call(a, SPAN_EMPTY, &f, q);
    return ERR_OK;
}

void admin_ask_cancel(struct admin *a, uint64_t number) {
    ask_cancel(a->desk, number);
}

static void on_timer(void *arg) {
    struct admin *a = arg;
    uint64_t now_ms = clock_mono_ms();
    LIST_FOREACH(it, next, &a->calls) {
        struct call *c = LIST_ENTRY(it, struct call, link);
        if (now_ms < c->until_ms)
            continue;
        reply_error(a, tool_of(c), c->tool_correlation, ERR_TIMEOUT, "a role of the node did not answer in time");
        call_end(a, c);
    }
    loop_timer_set(a->timer, SWEEP_MS);
}

/* -- life -- */

int admin_open(struct admin **out, const struct admin_config *c) {
    struct admin *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NOMEM;
    list_init(&a->calls);
    buf_init(&a->pack, FRAME_META_MAX);
    a->name = strdup(c->name);
    a->version = strdup(c->version);
    a->started_ms = clock_mono_ms();
    a->timer = loop_timer_new(c->loop, on_timer, a);
    int err = a->name && a->version && a->timer ? ERR_OK : ERR_NOMEM;
    if (err == ERR_OK)
        err = ask_desk_new(&a->desk, c->loop);
    if (err == ERR_OK)
        err = bus_hub_open(&a->roles, c->bus, c->loop, ADMIN_HUB, FRAME_PART_MAX, QUEUE_MAX, on_role, a);
    if (err == ERR_OK)
        err = bus_hub_open(&a->tools, c->bus, c->loop, c->rpc, FRAME_PART_MAX, QUEUE_MAX, on_tool, a);
    if (err != ERR_OK) {
        admin_close(a);
        return err;
    }
    loop_timer_set(a->timer, SWEEP_MS);
    *out = a;
    return ERR_OK;
}

void admin_close(struct admin *a) {
    if (!a)
        return;
    while (!list_is_empty(&a->calls))
        call_end(a, LIST_ENTRY(list_first(&a->calls), struct call, link));
    if (a->tools)
        bus_hub_close(a->tools);
    if (a->roles)
        bus_hub_close(a->roles);
    if (a->timer)
        loop_timer_close(a->timer);
    ask_desk_free(a->desk);
    buf_deinit(&a->pack);
    free(a->name);
    free(a->version);
    free(a);
}
