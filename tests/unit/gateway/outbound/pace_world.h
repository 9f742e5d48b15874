/*
 * pace_world: a delivery node under a hub that hands out jobs and keeps what is reported, for the tests of pace and of
 * our addresses.
 */
#ifndef TESTS_UNIT_GATEWAY_OUTBOUND_PACE_WORLD_H
#define TESTS_UNIT_GATEWAY_OUTBOUND_PACE_WORLD_H

#include "tests/unit/gateway/outbound/world.h"

#include "base/clock.h"
#include "gateway/outbound/rules.h"

enum { JOBS_MAX = 32, WAIT_MS = 10000, HOUR_MS = 3600000 };

struct told {
    bool come;
    uint32_t outcome, code;
    char enhanced[20], text[600], site[400];
    uint64_t pause_ms, wait_ms;
    uint32_t scope;
    bool site_failed;
};
struct hub {
    struct bus *bus;
    struct loop *loop;
    struct bus_hub *hub;
    struct loop_timer *timer;
    struct outbound *out;
    struct names names;
    struct outbound_settings s;
    char dns[64], peer[BUS_PEER_MAX + 1];
    struct told told[JOBS_MAX];
    uint64_t jobs;
    uint32_t missing;
    bool timed_out;
    struct buf scratch;
};

static const char *const rows[] = {"MX one.example 10 mx.host.example",   "MX two.example 10 mx.host.example",
                                   "MX other.example 10 mx.else.example", "A mx.host.example 127.0.0.2",
                                   "A mx.else.example 127.0.0.3",         "MX pair.example 10 mx.host.example",
                                   "MX pair.example 20 mx.else.example",  NULL};

static inline void on_report(struct hub *h, struct span peer, const Words__Report *r) {
    assert_in_range(r->attempt, 1, h->jobs);
    struct told *t = &h->told[r->attempt - 1];
    const Words__Result *x = r->results[0];
    h->missing -= !t->come;
    *t = (struct told){.come = true,
                       .outcome = x->outcome,
                       .code = x->code,
                       .scope = x->scope,
                       .pause_ms = r->has_pause_ms ? r->pause_ms : 0,
                       .wait_ms = r->has_wait_ms ? r->wait_ms : 0,
                       .site_failed = r->site_failed};
    span_copy(frame_span(x->enhanced), t->enhanced, sizeof t->enhanced);
    span_copy(frame_span(x->text), t->text, sizeof t->text);
    if (r->has_site)
        span_copy(frame_span(r->site), t->site, sizeof t->site);
    Words__ReportAck ack = WORDS__REPORT_ACK__INIT;
    ack.attempt = r->attempt;
    assert_int_equal(frame_send_hub(h->hub, peer, FRAME_REPORT_ACK, 0, 7, &ack.base, NULL, &h->scratch), ERR_OK);
    if (!h->missing)
        loop_stop(h->loop);
}

static inline void on_message(void *arg, struct span peer, const struct bus_message *m) {
    struct hub *h = arg;
    struct frame f;
    struct arena mem;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    arena_init(&mem, 4096, 0);
    if (f.kind == FRAME_HELLO) {
        Words__Welcome welcome = WORDS__WELCOME__INIT;
        welcome.epoch = 7;
        span_copy(peer, h->peer, sizeof h->peer);
        assert_int_equal(frame_send_hub(h->hub, peer, FRAME_WELCOME, 0, 7, &welcome.base, NULL, &h->scratch), ERR_OK);
        loop_stop(h->loop);
    } else {
        assert_int_equal(f.kind, FRAME_REPORT);
        on_report(h, peer, frame_unpack(&words__report__descriptor, f.meta, &mem));
    }
    arena_deinit(&mem);
}

static inline void on_timeout(void *arg) {
    struct hub *h = arg;
    h->timed_out = true;
    loop_stop(h->loop);
}

static inline void run(struct hub *h, uint64_t ms) {
    h->timed_out = false;
    loop_timer_set(h->timer, ms);
    next_turn();
    loop_run(h->loop);
    loop_timer_stop(h->timer);
}

/* Settings may be changed until hub_go. */
static inline struct hub *hub_new(uint16_t port) {
    struct hub *h = calloc(1, sizeof *h);
    buf_init(&h->scratch, 1 << 20);
    h->bus = bus_new(1);
    h->loop = loop_new();
    h->timer = loop_timer_new(h->loop, on_timeout, h);
    assert_int_equal(
        bus_hub_open(&h->hub, h->bus, h->loop, "inproc://scheduler", FRAME_PART_MAX, 64 << 20, on_message, h), ERR_OK);
    names_start(&h->names, rows);
    outbound_defaults(&h->s);
    snprintf(h->dns, sizeof h->dns, "127.0.0.1:%u", h->names.port);
    h->s.hostname = "me.example";
    h->s.dns = h->dns;
    h->s.port = port;
    h->s.loopback_targets = true;
    h->s.timeouts.idle_ms = 2000;
    return h;
}

/* Mail goes out from these pools, each message over a connection of its own. They are borrowed. */
static inline void hub_use(struct hub *h, const struct outbound_pool *pools, size_t count) {
    h->s.pools = pools;
    h->s.pool_count = count;
    h->s.messages_per_connection = 1;
}

static inline void hub_go(struct hub *h, const char *rules) {
    struct buf problems;
    struct outbound_config c = {.bus = h->bus, .scheduler = "inproc://scheduler"};
    buf_init(&problems, 4096);
    if (rules && rules_parse(&h->s.rules, "rules", span_of(rules), &problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_int_equal(outbound_start(&h->out, &c, &h->s), ERR_OK);
    rules_unref(h->s.rules);
    buf_deinit(&problems);
    run(h, WAIT_MS);
    assert_false(h->timed_out);
}

static inline void hub_stop(struct hub *h) {
    outbound_stop(h->out);
    bus_hub_close(h->hub);
    loop_timer_close(h->timer);
    loop_free(h->loop);
    bus_free(h->bus);
    names_stop(&h->names);
    buf_deinit(&h->scratch);
    free(h);
}

static inline struct told *give_as(struct hub *h, const char *account, const char *sender, const char *destination,
                                   size_t recipients) {
    Words__Job job = WORDS__JOB__INIT;
    Words__Recipient r[8], *at[8];
    uint32_t indexes[8];
    char address[100];
    assert_true(h->jobs < JOBS_MAX && recipients <= 8);
    snprintf(address, sizeof address, "a@%s", destination);
    job.attempt = ++h->jobs;
    job.message = job.attempt + 1000;
    job.sender = frame_bytes(span_of(sender));
    job.has_account = account != NULL;
    job.account = frame_bytes(span_of(account));
    job.destination = frame_bytes(span_of(destination));
    for (size_t i = 0; i < recipients; i++) {
        words__recipient__init(&r[i]);
        r[i].address = frame_bytes(span_of(address));
        r[i].destination = job.destination;
        at[i] = &r[i];
        indexes[i] = (uint32_t)i;
    }
    job.n_indexes = job.n_recipients = recipients;
    job.recipients = at;
    job.indexes = indexes;
    struct span body = SPAN("Subject: x\r\n\r\nhello\r\n");
    job.size = body.len;
    struct bus_bytes *bytes = bus_bytes_copy(body);
    assert_int_equal(frame_send_hub(h->hub, span_of(h->peer), FRAME_JOB, 0, 7, &job.base, bytes, &h->scratch), ERR_OK);
    bus_bytes_free(bytes);
    h->missing++;
    return &h->told[h->jobs - 1];
}

static inline struct told *give_from(struct hub *h, const char *sender, const char *destination, size_t recipients) {
    return give_as(h, NULL, sender, destination, recipients);
}

static inline struct told *give(struct hub *h, const char *destination) {
    return give_from(h, "sender@me.example", destination, 1);
}

static inline void wait_for_all(struct hub *h) {
    while (h->missing) {
        run(h, WAIT_MS);
        if (h->timed_out)
            fail_msg("%u reports did not come", h->missing);
    }
}

static inline struct told *deliver(struct hub *h, const char *destination) {
    struct told *t = give(h, destination);
    wait_for_all(h);
    return t;
}

static inline void expect(const struct told *t, enum outcome outcome, unsigned code, const char *enhanced) {
    if (t->outcome != outcome || t->code != code || strcmp(t->enhanced, enhanced) != 0)
        fail_msg("outcome %u code %u %s (%s)", t->outcome, t->code, t->enhanced, t->text);
}
#define DELIVERED(t) expect(t, OUTCOME_DELIVERED, 250, "2.0.0")
#define RETURNED(t) assert_int_equal((t)->outcome, OUTCOME_RETURNED)

static inline struct outbound_source source(const char *ip, const char *ehlo) {
    struct outbound_source s = {.ehlo = ehlo, .weight = 1};
    assert_int_equal(tcp_addr_parse(&s.address, span_of(ip), 0), ERR_OK);
    return s;
}

#endif
