/*
 * attempt: from the job to the site, from host to host, to the report. See attempt.h.
 *
 * An attempt that has ended keeps its memory in the node's spare list until the next job
 * comes, so that whoever called for it can still see its state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base32.h"
#include "base/check.h"
#include "proto/bounce.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/wish.h"

enum { ARENA_BLOCK = 4096, ARENA_MAX = 16 * 1024 * 1024, SPARE_MAX = 256 };

METRIC_HISTOGRAM_MS(metric_attempt, "posthouse_attempt_seconds", "Time from a job to its report")
METRIC_GAUGE(jobs_now, "posthouse_delivery_jobs", "Jobs held by the delivery node");
METRIC_COUNTER_L(out_delivered, "posthouse_delivery_recipients_total", "outcome=\"delivered\"",
                 "Recipients by the outcome of an attempt");
METRIC_COUNTER_L(out_deferred, "posthouse_delivery_recipients_total", "outcome=\"deferred\"",
                 "Recipients by the outcome of an attempt");
METRIC_COUNTER_L(out_failed, "posthouse_delivery_recipients_total", "outcome=\"failed\"",
                 "Recipients by the outcome of an attempt");
METRIC_COUNTER_L(out_in_doubt, "posthouse_delivery_recipients_total", "outcome=\"in_doubt\"",
                 "Recipients by the outcome of an attempt");
METRIC_COUNTER_L(out_returned, "posthouse_delivery_recipients_total", "outcome=\"returned\"",
                 "Recipients by the outcome of an attempt");
METRIC_COUNTER(sites_failed, "posthouse_delivery_sites_failed_total", "Times that no host of a site could be reached");

/* -- memory -- */

static bool matches(const struct map_node *n, const void *key) {
    return CONTAINER_OF(n, struct attempt, in_map)->job->attempt == *(const uint64_t *)key;
}

struct attempt *attempt_find(struct outbound *o, uint64_t number) {
    struct map_node *n = map_find(&o->attempts, delivery_hash(number), matches, &number);
    return n ? CONTAINER_OF(n, struct attempt, in_map) : NULL;
}

static void release(struct attempt *a) {
    arena_deinit(&a->mem);
    free(a);
}

void attempts_free_spare(struct outbound *o) {
    struct list_node *n;
    while ((n = list_pop_front(&o->spare)))
        release(LIST_ENTRY(n, struct attempt, in_all));
}

static struct attempt *take_memory(struct outbound *o) {
    struct list_node *n;
    while (o->spare.count > SPARE_MAX)
        release(LIST_ENTRY(list_pop_front(&o->spare), struct attempt, in_all));
    n = list_pop_front(&o->spare);
    struct attempt *a = n ? LIST_ENTRY(n, struct attempt, in_all) : calloc(1, sizeof *a);
    if (!a)
        return NULL;
    struct arena mem = a->mem;
    if (n)
        arena_reset(&mem);
    else
        arena_init(&mem, ARENA_BLOCK, ARENA_MAX);
    *a = (struct attempt){.o = o, .mem = mem};
    return a;
}

/* Leaves everything; the struct goes to the spare ones. */
static void let_go(struct attempt *a) {
    struct outbound *o = a->o;
    struct site *s = a->site;
    if (a->conversion)
        convert_cancel(a);
    if (a->asking)
        mxcache_cancel(o->cache, a);
    attempt_drop_rivals(a);
    secure_end(a);
    throttle_end(a);
    if (a->has_walk)
        walk_deinit(&a->walk);
    if (list_is_linked(&a->in_site))
        site_unwait(s, a);
    if (list_is_linked(&a->in_tick))
        list_remove(&o->ticking, &a->in_tick);
    if (a->conn)
        a->conn->attempt = NULL;
    o->job_bytes -= a->body.chunked ? 0 : a->body.size;
    content_deinit(&a->body);
    setup_free(a->setup);
    map_remove(&o->attempts, &a->in_map);
    list_remove(&o->running, &a->in_all);
    list_push_back(&o->spare, &a->in_all);
    metric_sub(&jobs_now, 1);
    a->state = ATTEMPT_ENDED;
    a->conn = NULL;
    a->site = NULL;
    a->asking = a->has_walk = false;
    if (!s)
        return;
    if (a->slot) {
        a->slot = false;
        site_free_slot(s);
        site_pump(s);
    }
    site_close(s);
}

void attempt_abandon(struct attempt *a) {
    struct conn *c = a->conn;
    if (c) {
        a->conn = NULL;
        c->attempt = NULL;
        conn_drop(c);
    }
    let_go(a);
}

/* -- the report -- */

static const struct {
    const char *event;
    struct metric *count;
} outcomes[] = {
    [OUTCOME_DELIVERED] = {"delivered", &out_delivered}, [OUTCOME_DEFERRED] = {"deferred", &out_deferred},
    [OUTCOME_FAILED] = {"failed", &out_failed},          [OUTCOME_IN_DOUBT] = {"in_doubt", &out_in_doubt},
    [OUTCOME_RETURNED] = {"returned", &out_returned},
};

static void log_outcome(const struct attempt *a, uint32_t i) {
    const struct attempt_result *r = &a->recipients[i].result;
    char id[BASE32_ID_LEN + 1];
    metric_add(outcomes[r->verdict.outcome].count, 1);
    if (!log_is_on(LOG_LEVEL_INFO))
        return;
    base32_encode(a->job->message, id);
    enum bounce_category category = r->has_category ? r->category : bounce_classify(r->code, r->enhanced, r->text);
    bool is_bad = r->verdict.outcome == OUTCOME_FAILED || r->verdict.outcome == OUTCOME_DEFERRED;
    /* events: delivered, deferred, failed, in_doubt, returned */
    LOG_INFO(outcomes[r->verdict.outcome].event, LOG_STR("id", id),
             LOG_SPAN("to", frame_span(a->job->recipients[i]->address)), LOG_SPAN("from", attempt_sender(a, i)),
             LOG_SPAN("remote", r->remote), LOG_U64("code", r->code), LOG_SPAN("status", r->enhanced),
             LOG_SPAN("text", r->text), LOG_STR("category", is_bad ? bounce_name(category) : ""),
             LOG_STR("tls", r->tls ? r->tls : "no"), LOG_STR("site", a->site ? a->site->name : ""),
             LOG_STR("source", r->source ? r->source : ""));
}

static void send_report(struct attempt *a) {
    metric_observe(&metric_attempt, loop_now_ms(a->o->loop) - a->begun_ms);
    Words__Report report = WORDS__REPORT__INIT;
    Words__Result *results = arena_calloc(&a->mem, a->count, sizeof *results);
    Words__Result **at = arena_calloc(&a->mem, a->count, sizeof *at);
    if (!results || !at) /* the scheduler hears of it when it asks who holds what */
        return;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct attempt_result *r = &a->recipients[i].result;
        words__result__init(&results[i]);
        results[i].outcome = r->verdict.outcome;
        results[i].has_scope = true;
        results[i].has_hop = r->hop != 0;
        results[i].hop = r->hop;
        results[i].scope = r->verdict.scope;
        results[i].has_code = r->code != 0;
        results[i].code = r->code;
        results[i].has_enhanced = results[i].has_text = true;
        results[i].enhanced = frame_bytes(r->enhanced);
        results[i].text = frame_bytes(span_first(r->text, RESULT_TEXT_MAX));
        results[i].has_remote = r->remote.len > 0;
        results[i].remote = frame_bytes(r->remote);
        at[i] = &results[i];
        log_outcome(a, i);
    }
    report.attempt = a->job->attempt;
    report.message = a->job->message;
    report.indexes = a->job->indexes;
    report.n_indexes = report.n_results = a->count;
    report.results = at;
    bool usual = !a->secure.has_demand || !a->secure.demand.of_message;
    if (a->site && usual) { /* not where one message alone has to go */
        report.has_site = report.has_site_ttl_s = true;
        report.site = frame_bytes(span_of(a->throttle.plain));
        report.site_ttl_s = a->site_ttl_s;
    }
    report.has_site_failed = report.site_failed = a->site_failed && usual;
    report.has_pause_ms = a->throttle.pause_ms > 0;
    report.pause_ms = a->throttle.pause_ms;
    report.has_wait_ms = a->throttle.wait_ms > 0;
    report.wait_ms = a->throttle.wait_ms;
    report.has_why = a->throttle.why != NULL;
    report.why = frame_bytes(span_of(a->throttle.why));
    buf_clear(&a->o->scratch);
    if (frame_pack(&report.base, &a->o->scratch) == ERR_OK)
        reports_add(a->o, a->job->attempt, buf_span(&a->o->scratch));
}

void attempt_finish(struct attempt *a) {
    CHECK(a->open == 0 && a->state != ATTEMPT_ENDED);
    send_report(a);
    let_go(a);
}

/* -- verdicts -- */

struct attempt_result attempt_local_result(enum outcome_local what) {
    struct outcome_verdict v = outcome_local(what);
    return (struct attempt_result){.verdict = v, .enhanced = span_of(v.enhanced), .text = span_of(v.text)};
}

void attempt_judge(struct attempt *a, uint32_t recipient, const struct attempt_result *r) {
    struct attempt_recipient *to = &a->recipients[recipient];
    CHECK(to->fate != FATE_DONE && r->verdict.next != OUTCOME_NEXT_AGAIN);
    /* what a server said of the mail tells more than that another could not be reached */
    bool keep = to->judged && r->verdict.outcome == OUTCOME_DEFERRED && r->verdict.scope >= SCOPE_HOST &&
                to->result.verdict.scope < SCOPE_HOST;
    if (!keep)
        to->result = *r;
    if (r->verdict.outcome == OUTCOME_DELIVERED)
        to->result.hop = wish_hop(a, recipient, r->hop);
    to->judged = true;
    if (r->verdict.next == OUTCOME_NEXT_HOST) {
        to->fate = FATE_RETRY;
    } else {
        to->fate = FATE_DONE;
        a->open--;
    }
}

void attempt_judge_all(struct attempt *a, const struct attempt_result *r) {
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate != FATE_DONE)
            attempt_judge(a, i, r);
    }
}

void attempt_fail(struct attempt *a, enum outcome_local what) {
    struct attempt_result r = attempt_local_result(what);
    attempt_judge_all(a, &r);
    attempt_finish(a);
}

void attempt_hand_back(struct attempt *a) {
    for (uint32_t i = 0; i < a->count; i++) {
        struct attempt_recipient *to = &a->recipients[i];
        if (to->judged && to->fate != FATE_DONE) { /* some host has answered: that is an attempt */
            to->fate = FATE_DONE;
            a->open--;
        }
    }
    attempt_fail(a, OUTCOME_HANDED_BACK);
}

/* -- no more hosts -- */

/* The code of one host that refuses for good, while others may not. */
static struct span for_now(struct attempt *a, struct span enhanced) {
    if (!enhanced.len || enhanced.at[0] != '5')
        return enhanced;
    const char *text = arena_printf(&a->mem, "4%.*s", SPAN_FMT(span_from(enhanced, 1)));
    return text ? span_of(text) : SPAN("4.0.0");
}

/* Gives those that are left the result of the last host, or the reason why there was none. */
static void give_up(struct attempt *a) {
    bool refused = a->tried > 0 && a->fatal == a->tried && walk_is_complete(&a->walk); /* line 43 */
    struct attempt_result rest = a->has_last ? a->last : attempt_local_result(walk_reason(&a->walk));
    bool host_level = a->has_last && !a->answered && !a->source_failed;
    bool is_ours = host_level && health_excuses_site(a);
    refused = refused && !is_ours;
    for (uint32_t i = 0; i < a->count; i++) {
        struct attempt_recipient *to = &a->recipients[i];
        if (to->fate == FATE_DONE)
            continue;
        if (!to->judged)
            to->result = rest;
        to->judged = true;
        to->fate = FATE_DONE;
        a->open--;
        if (refused) {
            to->result.verdict.outcome = OUTCOME_FAILED;
            if (!to->result.enhanced.len || to->result.enhanced.at[0] != '5')
                to->result.enhanced = SPAN("5.3.2");
        } else if (to->result.verdict.outcome == OUTCOME_DEFERRED) {
            to->result.enhanced = for_now(a, to->result.enhanced);
        }
        if (host_level && to->result.verdict.scope == SCOPE_HOST)
            to->result.verdict.scope = is_ours ? SCOPE_MESSAGE : SCOPE_DESTINATION;
    }
    if (host_level && !is_ours) {
        a->site_failed = site_fail(a->site, a->joined_ms);
        if (a->site_failed) {
            metric_add(&sites_failed, 1);
            LOG_WARN("site_failed", LOG_STR("site", a->site->name), LOG_SPAN("text", rest.text),
                     LOG_SPAN("remote", rest.remote));
        }
    }
    attempt_finish(a);
}

/* Every host failed this one, but others have connections, or are still trying: the servers may take so many and no
 * more, and say so before those others are through. It waits for one of theirs; when they all fail, the last one says
 * so. */
static bool wait_for_others(struct attempt *a) {
    if (a->answered || a->source_failed || a->requeued == ATTEMPT_REQUEUE_MAX || !a->has_last)
        return false;
    if (a->slot) {
        a->slot = false;
        site_free_slot(a->site);
    }
    if (a->site->slots == 0)
        return false;
    site_cap(a->site);
    a->requeued++;
    a->fresh = a->has_last = false;
    a->tried = a->fatal = 0;
    walk_forget(&a->walk);
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate == FATE_PENDING)
            a->recipients[i].judged = false;
    }
    a->state = ATTEMPT_WAITING;
    site_submit(a->site, a);
    return true;
}

/* -- from host to host -- */

static void step(struct attempt *a);

static void on_target(void *arg, const struct mx_target *t) {
    struct attempt *a = arg;
    if (!t) {
        if (!wait_for_others(a))
            give_up(a);
        return;
    }
    a->target = *t;
    a->has_target = true;
    a->targets++;
    a->secure.judged = a->secure.plain = false;
    step(a);
}

void attempt_same_target(struct attempt *a) {
    a->has_target = true;
    step(a);
}

void attempt_go_to_target(struct attempt *a) {
    step(a);
}

void attempt_skip_host(struct attempt *a, const struct attempt_result *r) {
    a->has_target = false;
    a->tried++;
    a->fatal += r->verdict.fatal_if_all;
    a->last = *r;
    a->has_last = true;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate == FATE_PENDING)
            attempt_judge(a, i, r);
    }
    attempt_go_on(a);
}

/* Towards a connection: needs a target, then a slot. */
static void step(struct attempt *a) {
    if (!a->has_target) {
        a->state = ATTEMPT_WALKING;
        walk_next(&a->walk, on_target, a); /* a may have ended when it returns */
        return;
    }
    if (!secure_target(a) || !throttle_target(a))
        return;
    if (!a->slot) {
        a->state = ATTEMPT_WAITING;
        a->slot = site_want_slot(a->site, a);
        if (!a->slot)
            return;
    }
    a->has_target = false;
    a->conn = conn_open(a->o, a->site, a, &a->target);
    if (!a->conn) {
        attempt_fail(a, OUTCOME_NO_MEMORY);
        return;
    }
    a->slot = false; /* the connection has it */
    a->state = ATTEMPT_OPENING;
}

void attempt_use_slot(struct attempt *a) {
    a->slot = true;
    step(a);
}

static void leave_conn_to_site(struct attempt *a) {
    if (a->conn)
        a->conn->attempt = NULL;
    a->conn = NULL;
}

void attempt_go_on(struct attempt *a) {
    bool host = !a->conn; /* it has ended: on to the next address */
    if (a->open == 0) {
        attempt_finish(a);
        return;
    }
    if (throttle_site_left_ms(a->site)) { /* what has an answer keeps it */
        leave_conn_to_site(a);
        throttle_hand_back(a);
        return;
    }
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->recipients[i].fate == FATE_RETRY || a->recipients[i].fate == FATE_SENT) {
            a->recipients[i].fate = FATE_PENDING;
            host = true;
        }
    }
    if (a->conn && !host && !conn_is_worn(a->conn)) {
        transact_begin(a); /* recipients that had no place in the last transaction */
        return;
    }
    leave_conn_to_site(a);
    if (!host) { /* the connection was worn: another to the same hosts */
        walk_forget(&a->walk);
    }
    a->fresh = true;
    if (a->o->draining) {
        attempt_hand_back(a);
        return;
    }
    step(a);
}

void attempt_join(struct attempt *a, const char *plain) {
    const char *name = plain ? throttle_name(a, plain) : NULL;
    a->site = name ? site_open(a->o, name) : NULL;
    if (!a->site) {
        attempt_fail(a, OUTCOME_NO_MEMORY);
        return;
    }
    if (a->job->has_concurrency && a->job->concurrency)
        a->site->hint = a->job->concurrency;
    a->joined_ms = loop_now_ms(a->o->loop);
    if (!throttle_join(a))
        return;
    a->state = ATTEMPT_WAITING;
    site_submit(a->site, a);
}

/* -- beginning -- */

static void fetch(void *arg, uint32_t number) {
    struct attempt *a = arg;
    jobs_fetch(a->o, a->job->attempt, a->job->message, number);
}

static bool is_sound(const Words__Job *job) {
    if (!job || job->n_recipients == 0 || job->n_recipients > ATTEMPT_RECIPIENTS_MAX ||
        job->n_indexes != job->n_recipients)
        return false;
    return job->destination.len > 0 && job->destination.len <= 300 &&
           !memchr(job->destination.data, 0, job->destination.len);
}

static bool alloc_parts(struct attempt *a) {
    struct arena *mem = &a->mem;
    struct span destination = frame_span(a->job->destination);
    a->destination = arena_dup(mem, destination).at;
    a->recipients = arena_calloc(mem, a->count, sizeof *a->recipients);
    a->sending = arena_calloc(mem, a->count, sizeof *a->sending);
    a->sent = arena_calloc(mem, a->count, sizeof *a->sent);
    return a->destination && a->recipients && a->sending && a->sent;
}

bool attempt_start(struct outbound *o, struct span meta, struct bus_bytes *bytes) {
    struct attempt *a = take_memory(o);
    if (!a)
        return false;
    a->job = frame_unpack(&words__job__descriptor, meta, &a->mem);
    if (is_sound(a->job)) {
        a->count = a->open = (uint32_t)a->job->n_recipients;
        bool chunked = a->job->has_chunked && a->job->chunked;
        uint64_t size = chunked ? a->job->size : bus_bytes_span(bytes).len;
        bool known = attempt_find(o, a->job->attempt) || reports_has(&o->reports, a->job->attempt);
        if (!known && alloc_parts(a) &&
            map_insert(&o->attempts, &a->in_map, delivery_hash(a->job->attempt)) == ERR_OK) {
            content_init(&a->body, size, bytes, chunked, fetch, a);
            o->job_bytes += chunked ? 0 : size;
            a->begun_ms = loop_now_ms(o->loop);
            a->setup = setup_ref(o->setup);
            list_push_back(&o->running, &a->in_all);
            metric_add(&jobs_now, 1);
            bool full = o->attempts.count > o->config.jobs_max || o->job_bytes > o->config.bytes_max;
            if (o->draining || full)
                attempt_hand_back(a);
            else if (size != a->job->size)
                attempt_fail(a, OUTCOME_NO_BODY);
            else
                way_find(a);
            return true;
        }
    }
    list_push_back(&o->spare, &a->in_all);
    return false;
}

struct span attempt_sender(const struct attempt *a, uint32_t recipient) {
    const Words__Recipient *r = a->job->recipients[recipient];
    return frame_span(r->has_return_path ? r->return_path : a->job->sender);
}

bool attempt_is_lmtp(const struct attempt *a) {
    return a->route.kind == ROUTE_LMTP;
}

struct content *attempt_body(struct attempt *a) {
    return &a->body;
}
