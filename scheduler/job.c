/*
 * job: an assigned attempt becomes a Job frame for its delivery node.
 *
 * The envelope and body of a message that has just arrived are still in the cache; those of an older one
 * are read from the store on a helper thread, since a read may wait for the disk. A body longer than one
 * frame is not sent along: the delivery node fetches its chunks as it needs them.
 */
#include "scheduler/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/outcome.h"

METRIC_HISTOGRAM_MS(metric_delay, "posthouse_queue_delay_seconds",
                    "Time from the acceptance of a message to the assignment of its first attempt")

/* An attempt whose message is read aside; or a chunk that is fetched. */
struct job_read {
    struct scheduler *sc;
    struct shard *shard;
    struct shard_assign assign;
    struct arena mem;
    Words__Envelope *envelope;
    struct buf body;
    int err;
};
struct fetch_read {
    struct scheduler *sc;
    uint32_t worker, number;
    uint64_t correlation, message;
    struct buf body;
    int err;
};

static bool is_chunked(const Words__Envelope *e) {
    return e->size > FRAME_BODY_MAX;
}

/* One of several that an address became, whose sender asked to hear of success: we tell that it was expanded, and the
 * next hop is not asked to report on each (RFC 3461 section 5.2.7.2). They stand side by side. */
bool job_is_expanded(const Words__Envelope *e, uint32_t i) {
    const Words__Recipient *r = e->recipients[i];
    if (!r->has_original || !r->has_notify || !(r->notify & NOTIFY_SUCCESS))
        return false;
    for (int side = 0; side < 2; side++) {
        const Words__Recipient *other = side    ? i + 1 < e->n_recipients ? e->recipients[i + 1] : NULL
                                        : i > 0 ? e->recipients[i - 1]
                                                : NULL;
        if (other && other->has_original && span_eq(frame_span(other->original), frame_span(r->original)))
            return true;
    }
    return false;
}

/* The return path with a tag (BATV), for mail that a user of ours has submitted and that leaves our domains: over the
 * VERP path where both fit, else over the sender's own. Empty: as it is. */
static struct span tag_return_path(struct scheduler *sc, struct arena *mem, const Words__Envelope *e,
                                   const Words__Recipient *r, struct span verp_path) {
    bool leaves = e->has_submitted && e->submitted && !(r->has_local && r->local);
    if (!sc->batv || !leaves || r->has_return_path || (e->has_report && e->report))
        return SPAN_EMPTY;
    uint64_t now = scheduler_now(sc);
    struct span path = verp_path.len ? batv_sign(sc->batv, verp_path, now, mem) : SPAN_EMPTY;
    return path.len ? path : batv_sign(sc->batv, frame_span(e->sender), now, mem);
}

/* The recipient as the delivery node sees it. NULL: no memory. */
static Words__Recipient *view_recipient(struct scheduler *sc, struct arena *mem, const Words__Envelope *e, uint32_t i) {
    Words__Recipient *r = e->recipients[i];
    bool expanded = job_is_expanded(e, i);
    struct span path = r->has_return_path || (e->has_report && e->report)
                           ? SPAN_EMPTY
                           : verp_return_path(sc->verp, frame_span(e->sender),
                                              frame_span(r->has_original ? r->original : r->address), mem);
    struct span tagged = tag_return_path(sc, mem, e, r, path);
    path = tagged.len ? tagged : path;
    if (!expanded && !path.len)
        return r;
    Words__Recipient *view = arena_alloc(mem, sizeof *view);
    if (!view)
        return NULL;
    *view = *r;
    if (path.len) {
        view->has_return_path = true;
        view->return_path = frame_bytes(path);
    }
    if (expanded) {
        view->has_expanded = view->expanded = true;
        view->notify &= ~(uint32_t)NOTIFY_SUCCESS;
        if (!view->notify)
            view->notify = NOTIFY_NEVER;
    }
    return view;
}

static bool fill_job(struct scheduler *sc, struct arena *mem, Words__Job *j, const struct shard_assign *a,
                     const Words__Envelope *e) {
    Words__Recipient **r = arena_calloc(mem, a->count, sizeof(Words__Recipient *));
    if (!r)
        return false;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->indexes[i] >= e->n_recipients)
            return false;
        r[i] = view_recipient(sc, mem, e, a->indexes[i]);
        if (!r[i])
            return false;
    }
    words__job__init(j);
    j->attempt = a->attempt;
    j->message = a->id;
    j->sender = e->sender;
    j->n_recipients = j->n_indexes = a->count;
    j->recipients = r;
    j->indexes = (uint32_t *)(uintptr_t)a->indexes;
    j->destination = frame_bytes(a->destination);
    j->size = e->size;
    j->has_envid = e->has_envid;
    j->envid = e->envid;
    j->has_ret = e->has_ret;
    j->ret = e->ret;
    j->has_eight_bit = e->has_eight_bit;
    j->eight_bit = e->eight_bit;
    j->has_smtputf8 = e->has_smtputf8;
    j->smtputf8 = e->smtputf8;
    j->has_concurrency = true;
    j->concurrency = a->concurrency;
    j->has_attempts = a->attempts != 0;
    j->attempts = a->attempts;
    j->has_report = e->has_report;
    j->report = e->report;
    j->has_requiretls = e->has_requiretls;
    j->requiretls = e->requiretls;
    j->has_tls_required_no = e->has_tls_required_no;
    j->tls_required_no = e->tls_required_no;
    j->has_mt_priority = e->has_mt_priority;
    j->mt_priority = e->mt_priority;
    j->has_deliver_by_ms = e->has_deliver_by_ms;
    j->deliver_by_ms = e->deliver_by_ms;
    j->has_deliver_by_notify = e->has_deliver_by_notify;
    j->deliver_by_notify = e->deliver_by_notify;
    j->has_deliver_by_trace = e->has_deliver_by_trace;
    j->deliver_by_trace = e->deliver_by_trace;
    j->has_account = e->has_account;
    j->account = e->account;
    j->has_client = e->has_client;
    j->client = e->client;
    j->has_client_name = e->has_client_name;
    j->client_name = e->client_name;
    j->has_client_port = e->has_client_port;
    j->client_port = e->client_port;
    j->has_helo = e->has_helo;
    j->helo = e->helo;
    j->has_protocol = e->has_protocol;
    j->protocol = e->protocol;
    j->has_submitted = e->has_submitted;
    j->submitted = e->submitted;
    j->has_chunked = is_chunked(e);
    j->chunked = is_chunked(e);
    return true;
}

/* The job cannot be sent: the store has no such message any more, or cannot be read. The recipients are
 * put off; the trace says why. */
static void give_up(struct scheduler *sc, struct shard *s, const struct shard_assign *a, int why) {
    struct sched_result *results = calloc(a->count, sizeof *results);
    CHECK(results);
    for (uint32_t i = 0; i < a->count; i++)
        results[i] = (struct sched_result){.outcome = SCHED_OUT_DEFERRED,
                                           .scope = SCHED_SCOPE_MESSAGE,
                                           .enhanced = SPAN("4.3.0"),
                                           .text = span_of(err_text(why))};
    struct sched_event e = {.kind = SCHED_REPORTED};
    e.report = (struct sched_report){.worker = a->worker,
                                     .attempt = a->attempt,
                                     .message = a->id,
                                     .indexes = a->indexes,
                                     .results = results,
                                     .count = a->count};
    char name[BASE32_ID_LEN + 1];
    base32_encode(a->id, name);
    LOG_ERROR("message_unreadable", LOG_STR("id", name), LOG_ERR("why", why));
    if (shard_step(s, &e, scheduler_now(sc)) != ERR_OK)
        LOG_WARN("attempt_vanished", LOG_U64("attempt", a->attempt));
    free(results);
}

static void send_job(struct scheduler *sc, struct shard *s, const struct shard_assign *a, const Words__Envelope *e,
                     struct bus_bytes *body, struct arena *mem) {
    Words__Job j;
    struct hub_peer *p = hub_worker(sc, a->worker);
    if (!p)
        return; /* the core has been told: its attempts are in doubt */
    if (!fill_job(sc, mem, &j, a, e)) {
        give_up(sc, s, a, ERR_CORRUPT);
        return;
    }
    (void)hub_send(sc, p, FRAME_JOB, a->attempt, &j.base, body);
}

static void read_work(void *arg) {
    struct job_read *k = arg;
    uint32_t shard = shard_number(k->shard);
    k->err = queue_get_envelope(k->sc->store, shard, k->assign.id, &k->mem, &k->envelope);
    if (k->err == ERR_OK && !is_chunked(k->envelope))
        k->err = queue_get_chunk(k->sc->store, shard, k->assign.id, 0, &k->body);
}

static void read_free(struct job_read *k) {
    arena_deinit(&k->mem);
    buf_deinit(&k->body);
    free(k);
}

static void read_done(void *arg) {
    struct job_read *k = arg;
    struct bus_bytes *body = NULL;
    if (k->err == ERR_OK && !is_chunked(k->envelope)) {
        body = bus_bytes_copy(buf_span(&k->body));
        k->err = body ? ERR_OK : ERR_NOMEM;
    }
    if (k->err == ERR_OK)
        send_job(k->sc, k->shard, &k->assign, k->envelope, body, &k->mem);
    else
        give_up(k->sc, k->shard, &k->assign, k->err);
    bus_bytes_free(body);
    read_free(k);
}

static void read_aside(struct scheduler *sc, struct shard *s, const struct shard_assign *a) {
    struct job_read *k = calloc(1, sizeof *k);
    CHECK(k);
    k->sc = sc;
    k->shard = s;
    k->assign = *a;
    arena_init(&k->mem, 4096, 0);
    buf_init(&k->body, FRAME_BODY_MAX);
    uint32_t *indexes = arena_alloc(&k->mem, a->count * sizeof *indexes);
    CHECK(indexes);
    memcpy(indexes, a->indexes, a->count * sizeof *indexes);
    k->assign.indexes = indexes;
    k->assign.destination = arena_dup(&k->mem, a->destination);
    if (scheduler_work(sc, read_work, read_done, k))
        return;
    give_up(sc, s, a, ERR_NOMEM);
    read_free(k);
}

/* From its acceptance, which its id names; of what is tried for the first time. */
static void count_delay(struct scheduler *sc, const struct shard_assign *a) {
    uint64_t accepted_ms = id_ms(a->id), now_ms = scheduler_now(sc);
    if (a->attempts == 0)
        metric_observe(&metric_delay, now_ms > accepted_ms ? now_ms - accepted_ms : 0);
}

void job_assign(void *arg, struct shard *s, const struct shard_assign *a) {
    count_delay(arg, a);
    struct scheduler *sc = arg;
    struct cached *c = cached_get(shard_payloads(s), a->id);
    if (!c) {
        read_aside(sc, s, a);
        return;
    }
    struct arena mem;
    arena_init(&mem, 4096, 0);
    Words__Envelope *e = frame_unpack(&words__envelope__descriptor, span_make(c->envelope, c->envelope_len), &mem);
    CHECK(e); /* packed by this process */
    struct bus_bytes *body = is_chunked(e) ? NULL : bus_bytes_ref(c->body);
    if (!body && !is_chunked(e))
        read_aside(sc, s, a);
    else
        send_job(sc, s, a, e, body, &mem);
    bus_bytes_free(body);
    arena_deinit(&mem);
}

/* -- chunks -- */

static void fetch_work(void *arg) {
    struct fetch_read *k = arg;
    struct shard *s = scheduler_shard_of(k->sc, k->message);
    k->err = s ? queue_get_chunk(k->sc->store, shard_number(s), k->message, k->number, &k->body) : ERR_NOT_FOUND;
}

static void fetch_done(void *arg) {
    struct fetch_read *k = arg;
    struct hub_peer *p = hub_worker(k->sc, k->worker);
    Words__Fetched m = WORDS__FETCHED__INIT;
    m.message = k->message;
    m.number = k->number;
    struct bus_bytes *body = k->err == ERR_OK ? bus_bytes_copy(buf_span(&k->body)) : NULL;
    m.has_missing = m.missing = !body;
    if (p)
        (void)hub_send(k->sc, p, FRAME_FETCHED, k->correlation, &m.base, body);
    bus_bytes_free(body);
    buf_deinit(&k->body);
    free(k);
}

void job_fetch(struct scheduler *sc, struct hub_peer *peer, uint64_t correlation, const Words__Fetch *f) {
    struct fetch_read *k = calloc(1, sizeof *k);
    CHECK(k);
    *k = (struct fetch_read){
        .sc = sc, .worker = peer->worker, .number = f->number, .correlation = correlation, .message = f->message};
    buf_init(&k->body, FRAME_BODY_MAX);
    if (scheduler_work(sc, fetch_work, fetch_done, k))
        return;
    k->err = ERR_NOMEM;
    fetch_done(k);
}
