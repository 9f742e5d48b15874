/*
 * desk: the gateway's end of the admin RPC. Requests are answered from what the worker holds, at once, or when a
 * slow directory has spoken; a question that is malformed or not ours is answered with an error and never ignored.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"

#include "gateway/inbound/desk.h"

enum { VERIFIES_MAX = 1000, STEPS_MAX = 256, FIGURES_MAX = 96, MEM_MAX = 4 * 1024 * 1024 };
#define DESK_QUEUE_MAX ((size_t)16 << 20)

struct desk {
    struct worker *worker;
    struct bus_peer *peer;
    struct buf scratch;
    struct arena mem;
    struct list verifies;
};

static void send_reply(struct desk *d, uint64_t correlation, Words__AdminReply *r) {
    r->has_last = r->last = true;
    int err = frame_send_peer(d->peer, FRAME_ADMIN_REPLY, correlation, 0, &r->base, NULL, &d->scratch);
    if (err)
        LOG_WARN("admin_reply_failed", LOG_ERR("why", err));
}

static void send_error(struct desk *d, uint64_t correlation, int err, const char *text) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = r.has_text = true;
    r.error = (uint32_t)-err;
    r.text = frame_bytes(span_of(text));
    send_reply(d, correlation, &r);
}

/* -- status -- */

static void add_figure(Words__AdminReply *r, Words__AdminFigure *all, struct span name, double value) {
    if (r->n_figures >= FIGURES_MAX)
        return;
    Words__AdminFigure *f = &all[r->n_figures];
    words__admin_figure__init(f);
    f->name = frame_bytes(name);
    f->value = value;
    r->figures[r->n_figures++] = f;
}

/* The counters of the front end, by the names that /metrics has. */
static void add_counters(struct desk *d, Words__AdminReply *r, Words__AdminFigure *all) {
    const struct span prefix = SPAN("posthouse_");
    for (const struct metric *m = metric_first(); m; m = m->next) {
        struct span name = span_of(m->name);
        bool ours =
            span_starts_nocase(name, SPAN("posthouse_smtp_")) || span_starts_nocase(name, SPAN("posthouse_subm"));
        if (!ours || m->kind == METRIC_KIND_HISTOGRAM)
            continue;
        const char *text =
            m->labels ? arena_printf(&d->mem, "%s{%s}", m->name + prefix.len, m->labels) : m->name + prefix.len;
        if (text)
            add_figure(r, all, span_of(text), (double)metric_value(m));
    }
}

static void answer_status(struct desk *d, uint64_t correlation) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    Words__AdminFigure all[FIGURES_MAX], *pointers[FIGURES_MAX];
    struct inbound *in = d->worker->in;
    r.figures = pointers;
    add_figure(&r, all, SPAN("sessions"), (double)atomic_load(&in->sessions));
    add_figure(&r, all, SPAN("queue_reachable"), submit_is_ready(d->worker->submit));
    add_figure(&r, all, SPAN("gateway_draining"), atomic_load(&in->draining) || atomic_load(&in->paused));
    add_figure(&r, all, SPAN("body_memory_bytes"),
               (double)(atomic_load(&in->limits.used[0]) + atomic_load(&in->limits.used[1])));
    add_counters(d, &r, all);
    send_reply(d, correlation, &r);
}

/* -- verify -- */

static bool client_may_relay(const struct desk *d, struct span client) {
    struct tcp_addr a;
    return client.len && tcp_addr_parse(&a, client, 0) == ERR_OK && front_trusts(d->worker->front, &a);
}

static unsigned code_of(enum recipients_verdict v) {
    switch (v) {
    case RECIPIENTS_LOCAL:
    case RECIPIENTS_RELAY:
        return 250;
    case RECIPIENTS_TEMPFAIL:
        return 451;
    default:
        return 550;
    }
}

static void add_step(Words__AdminReply *r, Words__AdminStep *all, struct span text) {
    if (r->n_steps >= STEPS_MAX || text.len == 0)
        return;
    Words__AdminStep *step = &all[r->n_steps];
    words__admin_step__init(step);
    step->text = frame_bytes(text);
    r->steps[r->n_steps++] = step;
}

static void send_verdict(struct desk *d, uint64_t correlation, const struct recipients_answer *a, struct span steps) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    Words__AdminStep all[STEPS_MAX], *pointers[STEPS_MAX];
    r.steps = pointers;
    while (steps.len) {
        struct span line = span_cut(steps, '\n', &steps);
        add_step(&r, all, line);
    }
    for (size_t i = 0; i < a->count; i++) {
        const struct recipients_target *t = &a->targets[i];
        const char *text = arena_printf(&d->mem, "goes to <%.*s>, routed by %.*s%s", SPAN_FMT(t->address),
                                        SPAN_FMT(t->destination), t->local ? ", ours" : "");
        add_step(&r, all, span_of(text));
    }
    const char *text = arena_printf(&d->mem, "%.*s %.*s", SPAN_FMT(a->enhanced), SPAN_FMT(a->text));
    r.has_code = r.has_text = true;
    r.code = code_of(a->verdict);
    r.text = frame_bytes(span_of(text));
    send_reply(d, correlation, &r);
}

/* A question whose directories may take their time. */
struct verify {
    struct list_node node;
    struct desk *desk;
    uint64_t correlation;
    struct arena mem;
    struct buf steps;
    struct recipients_wait *wait;
};

static void verify_free(struct verify *v) {
    list_remove(&v->desk->verifies, &v->node);
    arena_deinit(&v->mem);
    buf_deinit(&v->steps);
    free(v);
}

static void on_verified(void *arg, const struct recipients_answer *a) {
    struct verify *v = arg;
    send_verdict(v->desk, v->correlation, a, buf_span(&v->steps));
    arena_deinit(&v->desk->mem);
    verify_free(v);
}

static int parse_address(struct address *a, struct span given, struct arena *mem) {
    size_t used = given.len;
    bool bracketed = given.len && given.at[0] == '<';
    int err = bracketed ? address_parse_path(a, given, false, true, mem, &used) : address_parse(a, given, mem);
    return err || used != given.len ? ERR_INVALID : ERR_OK;
}

static struct verify *verify_new(struct desk *d, uint64_t correlation) {
    struct verify *v = d->verifies.count < VERIFIES_MAX ? calloc(1, sizeof *v) : NULL;
    if (!v)
        return NULL;
    v->desk = d;
    v->correlation = correlation;
    arena_init(&v->mem, 4096, MEM_MAX);
    buf_init(&v->steps, 65536);
    list_push_back(&d->verifies, &v->node);
    return v;
}

static void answer_verify(struct desk *d, uint64_t correlation, const Words__AdminRequest *q) {
    struct recipients_answer answer = {0};
    struct address a;
    struct verify *v = verify_new(d, correlation);
    if (!v) {
        send_error(d, correlation, ERR_FULL, "too many questions at once");
        return;
    }
    struct recipients_caller who = {.may_relay =
                                        client_may_relay(d, q->has_client ? frame_span(q->client) : SPAN_EMPTY),
                                    .wall_ms = clock_wall_ms()};
    int err = parse_address(&a, q->has_address ? frame_span(q->address) : SPAN_EMPTY, &v->mem);
    if (err) {
        send_error(d, correlation, ERR_INVALID, "not a mail address");
        verify_free(v);
        return;
    }
    err = recipients_ask(d->worker->front->parts.recipients, d->worker->post, &a, &who, &v->mem, &answer, &v->wait,
                         on_verified, v, &v->steps);
    if (err == ERR_AGAIN)
        return;
    if (err)
        send_error(d, correlation, err, err_text(err));
    else
        send_verdict(d, correlation, &answer, buf_span(&v->steps));
    verify_free(v);
}

/* -- what arrives -- */

static void on_message(void *arg, const struct bus_message *m) {
    struct desk *d = arg;
    struct frame f;
    int err = frame_read(&f, m);
    if (err) {
        LOG_WARN("admin_frame_refused", LOG_ERR("why", err));
        return;
    }
    if (f.kind != FRAME_ADMIN_REQUEST)
        return;
    const Words__AdminRequest *q = frame_unpack(&words__admin_request__descriptor, f.meta, &d->mem);
    if (!q)
        send_error(d, f.correlation, ERR_INVALID, "malformed request");
    else if (q->verb == WORDS__ADMIN_VERB__ADMIN_STATUS)
        answer_status(d, f.correlation);
    else if (q->verb == WORDS__ADMIN_VERB__ADMIN_VERIFY)
        answer_verify(d, f.correlation, q);
    else
        send_error(d, f.correlation, ERR_UNSUPPORTED, "not a question for the gateway");
    arena_deinit(&d->mem);
}

int desk_open(struct desk **out, struct worker *w, const char *endpoint, const char *name) {
    struct desk *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    d->worker = w;
    list_init(&d->verifies);
    buf_init(&d->scratch, FRAME_META_MAX);
    arena_init(&d->mem, 4096, MEM_MAX);
    Words__Hello hello = WORDS__HELLO__INIT;
    hello.role = ROLE_GATEWAY;
    hello.name = frame_bytes(span_of(name));
    int err = bus_peer_open(&d->peer, w->in->config.bus, w->loop, endpoint, name, FRAME_PART_MAX, DESK_QUEUE_MAX,
                            on_message, d);
    if (err == ERR_OK)
        err = frame_send_peer(d->peer, FRAME_HELLO, 0, 0, &hello.base, NULL, &d->scratch);
    if (err) {
        desk_close(d);
        return err;
    }
    *out = d;
    return ERR_OK;
}

void desk_close(struct desk *d) {
    LIST_FOREACH(node, next, &d->verifies) {
        struct verify *v = LIST_ENTRY(node, struct verify, node);
        if (v->wait)
            recipients_cancel(v->wait);
        verify_free(v);
    }
    if (d->peer)
        bus_peer_close(d->peer);
    buf_deinit(&d->scratch);
    arena_deinit(&d->mem);
    free(d);
}
