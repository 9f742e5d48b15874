/*
 * operator: what the admin service asks the delivery node: figures, and the way of an address.
 */
#include "gateway/outbound/attempt.h"

enum { REQUEST_MAX = 64 * 1024, HELLO_PAUSE_MS = 1000, HELLO_PAUSE_MAX_MS = 60000 };

void operator_send_hello(struct outbound *o) {
    Words__Hello hello = WORDS__HELLO__INIT;
    o->admin_hello_ms = loop_now_ms(o->loop);
    uint64_t pause = o->admin_pause_ms ? o->admin_pause_ms * 2 : HELLO_PAUSE_MS;
    o->admin_pause_ms = pause < HELLO_PAUSE_MAX_MS ? pause : HELLO_PAUSE_MAX_MS;
    hello.role = ROLE_DELIVERY;
    hello.name = frame_bytes(span_of(o->setup->s.name));
    int err = frame_send_peer(o->admin, FRAME_HELLO, 0, 0, &hello.base, NULL, &o->scratch);
    if (err != ERR_OK)
        LOG_WARN("admin_unreachable", LOG_ERR("reason", err));
}

static void reply(struct outbound *o, uint64_t correlation, Words__AdminReply *r) {
    r->has_last = r->last = true;
    int err = frame_send_peer(o->admin, FRAME_ADMIN_REPLY, correlation, 0, &r->base, NULL, &o->scratch);
    if (err != ERR_OK)
        LOG_WARN("admin_reply_unsent", LOG_ERR("reason", err));
}

static void reply_error(struct outbound *o, uint64_t correlation, int err) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_error = r.has_text = true;
    r.error = (uint32_t)-err;
    r.text = frame_bytes(span_of(err_text(err)));
    reply(o, correlation, &r);
}

static void on_status(struct outbound *o, uint64_t correlation) {
    uint32_t on_wire = 0;
    LIST_FOREACH(n, next, &o->running)
    on_wire += LIST_ENTRY(n, struct attempt, in_all)->state == ATTEMPT_SENDING;
    const struct {
        const char *name;
        double value;
    } figures[] = {
        {"delivery.jobs", (double)o->running.count},
        {"delivery.jobs_max", (double)o->config.jobs_max},
        {"delivery.jobs_sending", (double)on_wire},
        {"delivery.body_bytes", (double)o->job_bytes},
        {"delivery.connections", (double)o->slots},
        {"delivery.connections_max", (double)o->setup->s.connections},
        {"delivery.connections_idle", (double)o->idle.count},
        {"delivery.sites", (double)o->sites.count},
        {"delivery.sites_waiting", (double)o->hungry.count},
        {"delivery.reports_unacknowledged", (double)reports_count(&o->reports)},
        {"delivery.dns_entries", (double)mxcache_count(o->cache)},
        {"delivery.converting_bytes", (double)o->converting},
        {"delivery.draining", o->draining},
    };
    enum { COUNT = sizeof figures / sizeof *figures };
    Words__AdminFigure at[COUNT], *pointers[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        words__admin_figure__init(&at[i]);
        at[i].name = frame_bytes(span_of(figures[i].name));
        at[i].value = figures[i].value;
        pointers[i] = &at[i];
    }
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.figures = pointers;
    r.n_figures = COUNT;
    reply(o, correlation, &r);
}

static bool is_explained(uint32_t verb) {
    return verb == WORDS__ADMIN_VERB__ADMIN_ROUTE || verb == WORDS__ADMIN_VERB__ADMIN_LIMITS ||
           verb == WORDS__ADMIN_VERB__ADMIN_TLS_PROBE;
}

static void on_request(struct outbound *o, const struct frame *f, struct arena *mem) {
    const Words__AdminRequest *q = frame_unpack(&words__admin_request__descriptor, f->meta, mem);
    if (!q)
        reply_error(o, f->correlation, ERR_INVALID);
    else if (q->verb == WORDS__ADMIN_VERB__ADMIN_STATUS)
        on_status(o, f->correlation);
    else if (is_explained(q->verb) && q->has_address)
        explain_start(o, f->correlation, q->verb, frame_span(q->address));
    else
        reply_error(o, f->correlation, ERR_UNSUPPORTED);
}

void operator_on_message(void *arg, const struct bus_message *m) {
    struct outbound *o = arg;
    struct frame f;
    struct arena mem;
    if (frame_read(&f, m) != ERR_OK)
        return;
    arena_init(&mem, 1024, REQUEST_MAX);
    if (f.kind == FRAME_WELCOME || f.kind == FRAME_ADMIN_REQUEST)
        o->admin_welcome = true;
    if (f.kind == FRAME_ADMIN_REQUEST)
        on_request(o, &f, &mem);
    arena_deinit(&mem);
}
