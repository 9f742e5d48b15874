/*
 * hub: the scheduler's side of the bus. It opens every frame that gateways and delivery nodes send, checks
 * it, and hands it to the shard; and sends the answers, credit, jobs and acknowledgements that shards release.
 *
 * A frame that is malformed or comes from a peer that has not said hello is counted and dropped: it changes nothing.
 * A peer is known by its routing id (name and incarnation) until the end of the process, up to HUB_PEERS_MAX.
 */
#include "scheduler/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/outcome.h"

METRIC_COUNTER(metric_bad, "posthouse_frames_refused_total", "Frames that were malformed or out of place")
METRIC_COUNTER(metric_lost, "posthouse_frames_unsent_total", "Frames for peers that are gone")

/* -- peers -- */

static bool match_name(const struct map_node *n, const void *key) {
    const struct hub_peer *p = LIST_ENTRY(n, struct hub_peer, by_name);
    return span_eq(span_make(p->name, p->name_len), *(const struct span *)key);
}

static struct hub_peer *find_peer(struct scheduler *sc, struct span name) {
    struct map_node *n = map_find(&sc->peers, hash_span(name, 0), match_name, &name);
    return n ? LIST_ENTRY(n, struct hub_peer, by_name) : NULL;
}

static struct hub_peer *add_peer(struct scheduler *sc, struct span name) {
    if (sc->peers.count >= HUB_PEERS_MAX || name.len > BUS_PEER_MAX)
        return NULL;
    struct hub_peer *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    memcpy(p->name, name.at, name.len);
    p->name_len = name.len;
    if (map_insert(&sc->peers, &p->by_name, hash_span(name, 0)) != ERR_OK) {
        free(p);
        return NULL;
    }
    list_push_back(&sc->peer_list, &p->link);
    return p;
}

struct hub_peer *hub_worker(const struct scheduler *sc, uint32_t worker) {
    return worker < sc->worker_count ? sc->workers[worker] : NULL;
}

static uint32_t new_worker(struct scheduler *sc, struct hub_peer *p) {
    if (sc->worker_count == sc->worker_cap) {
        uint32_t cap = sc->worker_cap ? sc->worker_cap * 2 : 16;
        struct hub_peer **grown = realloc(sc->workers, cap * sizeof *grown);
        if (!grown)
            return 0;
        sc->workers = grown;
        sc->worker_cap = cap;
        if (!sc->worker_count)
            sc->workers[sc->worker_count++] = NULL;
    }
    sc->workers[sc->worker_count] = p;
    return sc->worker_count++;
}

static void worker_down(struct scheduler *sc, struct hub_peer *p) {
    struct sched_event e = {.kind = SCHED_WORKER_DOWN, .worker = {.worker = p->worker}};
    LOG_WARN("delivery_node_gone", LOG_SPAN("name", span_make(p->name, p->name_len)));
    sc->workers[p->worker] = NULL;
    p->worker = 0;
    for (uint32_t i = 0; i < sc->config.shards; i++)
        if (shard_step(sc->shards[i], &e, scheduler_now(sc)) != ERR_OK)
            LOG_ERROR("worker_down_refused", LOG_U64("shard", i));
}

/* The part of a routing id before the incarnation. */
static struct span stem(const struct hub_peer *p) {
    struct span name = span_make(p->name, p->name_len);
    ptrdiff_t dot = span_rfind(name, '.');
    return dot < 0 ? name : span_first(name, (size_t)dot);
}

static void tell_worker(struct scheduler *sc, const struct sched_worker *w) {
    struct sched_event e = {.kind = SCHED_WORKER_UP, .worker = *w};
    for (uint32_t i = 0; i < sc->config.shards; i++)
        if (shard_step(sc->shards[i], &e, scheduler_now(sc)) != ERR_OK)
            LOG_ERROR("worker_up_refused", LOG_U64("shard", i));
}

static void worker_up(struct scheduler *sc, struct hub_peer *p, const Words__Hello *h) {
    LIST_FOREACH(it, next, &sc->peer_list) {
        struct hub_peer *old = LIST_ENTRY(it, struct hub_peer, link);
        if (old != p && old->worker && span_eq(stem(old), stem(p)))
            worker_down(sc, old); /* the same node in an earlier incarnation */
    }
    if (!p->worker)
        p->worker = new_worker(sc, p);
    if (!p->worker)
        return;
    uint32_t jobs = h->has_jobs_max ? h->jobs_max : 100;
    uint64_t bytes = h->has_bytes_max ? h->bytes_max : 16 * 1024 * 1024;
    uint32_t shards = sc->config.shards;
    struct sched_worker w = {.worker = p->worker,
                             .name = frame_span(h->name),
                             .jobs_max = jobs / shards || !jobs ? jobs / shards : 1, /* 0: it drains */
                             .bytes_max = bytes / shards};
    if (sc->draining)
        w.jobs_max = 0;
    tell_worker(sc, &w);
}

void hub_stop_jobs(struct scheduler *sc) {
    for (uint32_t n = 1; n < sc->worker_count; n++)
        if (sc->workers[n])
            tell_worker(sc, &(struct sched_worker){.worker = n});
}

/* -- sending -- */

int hub_send(struct scheduler *sc, struct hub_peer *peer, uint16_t kind, uint64_t correlation,
             const ProtobufCMessage *m, struct bus_bytes *body) {
    struct span name = span_make(peer->name, peer->name_len);
    int err = frame_send_hub(sc->hub, name, kind, correlation, 0, m, body, &sc->pack);
    if (err == ERR_OK)
        return err;
    metric_add(&metric_lost, 1);
    LOG_WARN("peer_unreachable", LOG_SPAN("name", name), LOG_U64("kind", kind), LOG_ERR("why", err));
    if (peer->worker)
        worker_down(sc, peer);
    return err;
}

void hub_answer(void *arg, const struct payload *l, uint32_t verdict, uint64_t id) {
    struct scheduler *sc = arg;
    if (!l->peer)
        return;
    Words__Answer a = WORDS__ANSWER__INIT;
    a.verdict = verdict;
    a.has_message = verdict == VERDICT_STORED;
    a.message = id;
    a.credit = l->credit;
    (void)hub_send(sc, l->peer, FRAME_ANSWER, l->correlation, &a.base, NULL);
}

void hub_credit(void *arg, struct hub_peer *peer, uint64_t bytes) {
    struct scheduler *sc = arg;
    Words__Credit c = WORDS__CREDIT__INIT;
    c.bytes = bytes;
    if (peer)
        (void)hub_send(sc, peer, FRAME_CREDIT, 0, &c.base, NULL);
}

void hub_ack(void *arg, uint32_t worker, uint64_t attempt) {
    struct scheduler *sc = arg;
    struct hub_peer *p = hub_worker(sc, worker);
    if (!p)
        return;
    Words__ReportAck a = WORDS__REPORT_ACK__INIT;
    a.attempt = attempt;
    (void)hub_send(sc, p, FRAME_REPORT_ACK, 0, &a.base, NULL);
}

/* -- what arrives -- */

static void on_hello(struct scheduler *sc, struct hub_peer *p, const struct frame *f) {
    const Words__Hello *h = frame_unpack(&words__hello__descriptor, f->meta, &sc->scratch);
    if (!h || (h->role != ROLE_GATEWAY && h->role != ROLE_DELIVERY)) {
        metric_add(&metric_bad, 1);
        return;
    }
    p->role = h->role;
    Words__Welcome w = WORDS__WELCOME__INIT;
    w.epoch = 0;
    w.credit = sc->closed ? 0 : sc->config.gateway_credit;
    if (hub_send(sc, p, FRAME_WELCOME, f->correlation, &w.base, NULL) == ERR_OK && h->role == ROLE_DELIVERY)
        worker_up(sc, p, h);
}

void hub_close_to_mail(struct scheduler *sc) {
    Words__Welcome w = WORDS__WELCOME__INIT;
    sc->closed = true;
    LIST_FOREACH(it, next, &sc->peer_list) {
        struct hub_peer *p = LIST_ENTRY(it, struct hub_peer, link);
        if (p->role == ROLE_GATEWAY)
            (void)hub_send(sc, p, FRAME_WELCOME, 0, &w.base, NULL);
    }
}

static struct shard *shard_for(struct scheduler *sc, const uint8_t *submission) {
    return sc->shards[hash_bytes(submission, PAYLOAD_SUBMISSION_LEN, 0) % sc->config.shards];
}

static void answer_now(struct scheduler *sc, struct hub_peer *p, uint64_t correlation, uint32_t verdict, uint64_t id,
                       uint64_t credit) {
    struct payload l = {.peer = p, .correlation = correlation, .credit = credit};
    hub_answer(sc, &l, verdict, id);
}

static bool take_envelope(struct scheduler *sc, struct payload *l, const Words__Envelope *e) {
    buf_clear(&sc->pack2);
    if (frame_pack(&e->base, &sc->pack2) != ERR_OK)
        return false;
    struct span packed = buf_span(&sc->pack2);
    l->envelope = malloc(packed.len + 1);
    if (!l->envelope)
        return false;
    memcpy(l->envelope, packed.at, packed.len);
    l->envelope_len = packed.len;
    return true;
}

static bool envelope_is_sane(const Words__Envelope *e) {
    if (e->n_recipients == 0 || e->n_recipients > 100000 || e->sender.len > 1024)
        return false;
    for (size_t i = 0; i < e->n_recipients; i++) {
        const Words__Recipient *r = e->recipients[i];
        if (r->address.len == 0 || r->address.len > 1024 || r->destination.len == 0 || r->destination.len > 300)
            return false;
    }
    return true;
}

struct lookup { /* of a submission that may have been stored before */
    struct scheduler *sc;
    struct hub_peer *peer;
    struct payload *payload;
    struct shard *shard;
    uint64_t id;
    int err;
};

static void lookup_work(void *arg) {
    struct lookup *k = arg;
    struct span submission = span_make(k->payload->submission, sizeof k->payload->submission);
    k->err = queue_get_submission(k->sc->store, shard_number(k->shard), submission, k->payload->touched_ms, &k->id);
}

static void lookup_done(void *arg) {
    struct lookup *k = arg;
    struct payload *l = k->payload;
    if (k->err == ERR_OK) {
        answer_now(k->sc, l->peer, l->correlation, VERDICT_STORED, k->id, l->credit);
        payload_free(shard_payloads(k->shard), l);
    } else if (k->err == ERR_NOT_FOUND) {
        arena_reset(&k->sc->scratch);
        Words__Envelope *e =
            frame_unpack(&words__envelope__descriptor, span_make(l->envelope, l->envelope_len), &k->sc->scratch);
        CHECK(e);
        shard_submit(k->shard, l, e, scheduler_now(k->sc));
    } else {
        answer_now(k->sc, l->peer, l->correlation, VERDICT_TEMPFAIL, 0, l->credit);
        payload_free(shard_payloads(k->shard), l);
    }
    free(k);
}

static bool look_up(struct scheduler *sc, struct shard *s, struct payload *l) {
    struct lookup *k = calloc(1, sizeof *k);
    if (!k)
        return false;
    *k = (struct lookup){.sc = sc, .shard = s, .payload = l};
    l->touched_ms = scheduler_now(sc);
    if (scheduler_work(sc, lookup_work, lookup_done, k))
        return true;
    free(k);
    return false;
}

/* The payload of a Submit frame, staged before or made now; NULL: refused (verdict says how). */
static struct payload *submit_payload(struct scheduler *sc, struct hub_peer *p, struct shard *s, const Words__Submit *m,
                                      uint32_t *verdict) {
    struct payload *l = payload_by_submission(shard_payloads(s), m->submission.data);
    *verdict = VERDICT_TEMPFAIL;
    bool chunked = m->has_chunked && m->chunked;
    if (l && (l->phase != PAYLOAD_STAGING || !chunked || l->submitted || l->aborted || l->peer != p))
        return NULL; /* under way already: the first one answers */
    if (!l && chunked)
        return NULL; /* its chunks were never seen */
    bool closed = sc->draining || store_is_damaged(sc->store) || !commit_is_healthy(sc->commit);
    if (closed || !envelope_is_sane(m->envelope)) {
        *verdict = closed ? VERDICT_TEMPFAIL : VERDICT_REFUSED;
        if (l)
            shard_abort(s, l);
        return NULL;
    }
    if (!l)
        l = payload_new(shard_payloads(s), m->submission.data);
    if (l && take_envelope(sc, l, m->envelope))
        return l;
    if (l && l->phase == PAYLOAD_STAGING && l->chunks)
        shard_abort(s, l);
    else if (l)
        payload_free(shard_payloads(s), l);
    return NULL;
}

static void on_submit(struct scheduler *sc, struct hub_peer *p, const struct frame *f) {
    const Words__Submit *m = frame_unpack(&words__submit__descriptor, f->meta, &sc->scratch);
    uint64_t cost = FRAME_COST(f->meta.len, bus_bytes_span(f->body).len);
    uint32_t verdict;
    if (!m || m->submission.len != PAYLOAD_SUBMISSION_LEN || bus_bytes_span(f->body).len > FRAME_BODY_MAX) {
        metric_add(&metric_bad, 1);
        answer_now(sc, p, f->correlation, VERDICT_REFUSED, 0, cost);
        return;
    }
    struct shard *s = shard_for(sc, m->submission.data);
    struct payload *l = submit_payload(sc, p, s, m, &verdict);
    if (!l) {
        answer_now(sc, p, f->correlation, verdict, 0, cost);
        return;
    }
    l->peer = p;
    l->correlation = f->correlation;
    l->credit = cost;
    l->body = l->chunks ? NULL : bus_bytes_ref(f->body);
    l->phase = l->chunks ? PAYLOAD_STAGING : PAYLOAD_PENDING;
    if (m->has_repeat && m->repeat && !l->chunks) {
        if (look_up(sc, s, l))
            return;
        answer_now(sc, p, f->correlation, VERDICT_TEMPFAIL, 0, cost);
        payload_free(shard_payloads(s), l);
        return;
    }
    shard_submit(s, l, m->envelope, scheduler_now(sc));
}

static void on_chunk(struct scheduler *sc, struct hub_peer *p, const struct frame *f) {
    const Words__Chunk *m = frame_unpack(&words__chunk__descriptor, f->meta, &sc->scratch);
    struct span octets = bus_bytes_span(f->body);
    uint64_t cost = FRAME_COST(f->meta.len, octets.len);
    if (!m || m->submission.len != PAYLOAD_SUBMISSION_LEN || octets.len == 0 || octets.len > FRAME_BODY_MAX) {
        metric_add(&metric_bad, 1);
        hub_credit(sc, p, cost);
        return;
    }
    struct shard *s = shard_for(sc, m->submission.data);
    struct payload *l = payload_by_submission(shard_payloads(s), m->submission.data);
    if (!l && m->number == 0)
        l = shard_stage(s, m->submission.data, p, scheduler_now(sc));
    bool fits = l && l->phase == PAYLOAD_STAGING && !l->submitted && !l->aborted && l->peer == p &&
                (l->failed || l->chunks == m->number);
    if (!fits) {
        metric_add(&metric_bad, 1);
        hub_credit(sc, p, cost);
        return;
    }
    shard_chunk(s, l, octets, cost, scheduler_now(sc));
}

static void on_abort(struct scheduler *sc, struct hub_peer *p, const struct frame *f) {
    const Words__Abort *m = frame_unpack(&words__abort__descriptor, f->meta, &sc->scratch);
    if (!m || m->submission.len != PAYLOAD_SUBMISSION_LEN) {
        metric_add(&metric_bad, 1);
        return;
    }
    struct shard *s = shard_for(sc, m->submission.data);
    struct payload *l = payload_by_submission(shard_payloads(s), m->submission.data);
    if (l && l->phase == PAYLOAD_STAGING && !l->submitted && !l->aborted && l->peer == p)
        shard_abort(s, l);
}

static void fill_report_result(struct sched_result *to, const Words__Result *r) {
    *to = (struct sched_result){.outcome = r->outcome,
                                .scope = r->has_scope ? r->scope : 0,
                                .code = r->has_code && r->code < 1000 ? r->code : 0};
    to->hop = r->has_hop ? r->hop : 0;
    if (r->has_enhanced)
        to->enhanced = span_first(frame_span(r->enhanced), 16);
    if (r->has_text)
        to->text = span_first(frame_span(r->text), RESULT_TEXT_MAX);
    if (r->has_remote)
        to->remote = span_first(frame_span(r->remote), RESULT_REMOTE_MAX);
}

static void on_report(struct scheduler *sc, struct hub_peer *p, const struct frame *f) {
    const Words__Report *m = frame_unpack(&words__report__descriptor, f->meta, &sc->scratch);
    struct shard *s = m ? scheduler_shard_of(sc, m->message) : NULL;
    struct sched_result *results = m ? arena_calloc(&sc->scratch, m->n_results + 1, sizeof *results) : NULL;
    if (!s || !results || m->n_indexes != m->n_results || !p->worker) {
        metric_add(&metric_bad, 1);
        return;
    }
    for (size_t i = 0; i < m->n_results; i++)
        fill_report_result(&results[i], m->results[i]);
    struct sched_event e = {.kind = SCHED_REPORTED};
    e.report = (struct sched_report){
        .worker = p->worker,
        .attempt = m->attempt,
        .message = m->message,
        .site = m->has_site ? span_first(frame_span(m->site), 300) : SPAN_EMPTY,
        .site_ttl_ms = m->has_site_ttl_s ? (uint64_t)m->site_ttl_s * 1000u : 0,
        .site_failed = m->has_site_failed && m->site_failed,
        .pause_ms = m->has_pause_ms ? m->pause_ms : 0,
        .wait_ms = m->has_wait_ms ? m->wait_ms : 0,
        .indexes = m->indexes,
        .results = results,
        .count = (uint32_t)m->n_results,
    };
    if (m->has_pause_ms)
        LOG_INFO("site_rests", LOG_SPAN("site", e.report.site), LOG_U64("for_ms", m->pause_ms),
                 LOG_SPAN("why", m->has_why ? frame_span(m->why) : SPAN_EMPTY));
    int err = shard_step(s, &e, scheduler_now(sc));
    if (err != ERR_OK)
        LOG_WARN("report_refused", LOG_U64("attempt", m->attempt), LOG_ERR("why", err));
}

static void on_fetch(struct scheduler *sc, struct hub_peer *p, const struct frame *f) {
    const Words__Fetch *m = frame_unpack(&words__fetch__descriptor, f->meta, &sc->scratch);
    if (m && p->worker)
        job_fetch(sc, p, f->correlation, m);
    else
        metric_add(&metric_bad, 1);
}

static void refuse_frame(struct span peer, int err) {
    metric_add(&metric_bad, 1);
    LOG_WARN("frame_refused", LOG_SPAN("peer", peer), LOG_ERR("why", err));
}

void hub_on_message(void *arg, struct span name, const struct bus_message *m) {
    struct scheduler *sc = arg;
    struct frame f;
    int err = frame_read(&f, m);
    if (err != ERR_OK) {
        refuse_frame(name, err);
        return;
    }
    struct hub_peer *p = find_peer(sc, name);
    if (!p && f.kind == FRAME_HELLO)
        p = add_peer(sc, name);
    if (!p || (!p->role && f.kind != FRAME_HELLO)) {
        refuse_frame(name, p ? ERR_DENIED : ERR_NOT_FOUND);
        return;
    }
    arena_reset(&sc->scratch);
    bool gateway = p->role == ROLE_GATEWAY, delivery = p->role == ROLE_DELIVERY;
    if (f.kind == FRAME_HELLO)
        on_hello(sc, p, &f);
    else if (f.kind == FRAME_SUBMIT && gateway)
        on_submit(sc, p, &f);
    else if (f.kind == FRAME_CHUNK && gateway)
        on_chunk(sc, p, &f);
    else if (f.kind == FRAME_ABORT && gateway)
        on_abort(sc, p, &f);
    else if (f.kind == FRAME_REPORT && delivery)
        on_report(sc, p, &f);
    else if (f.kind == FRAME_FETCH && delivery)
        on_fetch(sc, p, &f);
    else
        refuse_frame(name, ERR_UNSUPPORTED);
}

int hub_open(struct scheduler *sc) {
    return bus_hub_open(&sc->hub, sc->config.bus, sc->loop, sc->endpoint, FRAME_PART_MAX, HUB_QUEUE_MAX, hub_on_message,
                        sc);
}

void hub_close(struct scheduler *sc) {
    if (sc->hub)
        bus_hub_close(sc->hub);
    while (!list_is_empty(&sc->peer_list))
        free(LIST_ENTRY(list_pop_front(&sc->peer_list), struct hub_peer, link));
    map_deinit(&sc->peers);
    free(sc->workers);
}
