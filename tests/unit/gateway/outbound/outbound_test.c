/*
 * The delivery node over real sockets: a scheduler's hub gives it jobs, scripted mail servers and a name server on
 * loopback answer it, and what it reports is held against smtp-rules lines 32 to 49 and 53.
 */
#include "tests/unit/gateway/outbound/world.h"

#include "base/clock.h"
#include "base/log.h"

enum { JOBS_MAX = 64, WAIT_MS = 8000 };

struct heard {
    bool come;
    uint32_t count, outcome[8], scope[8], code[8], hop[8], reports;
    char enhanced[8][16], text[8][600], remote[8][310];
    char site[400];
    bool site_failed;
};
struct world {
    struct bus *bus;
    struct loop *loop;
    struct bus_hub *hub, *admin;
    struct outbound *out;
    struct names names;
    char dns[64], peer[BUS_PEER_MAX + 1], admin_peer[BUS_PEER_MAX + 1];
    struct loop_timer *timer;
    struct heard verdicts[JOBS_MAX];
    uint64_t jobs; /* given out; attempt numbers begin at 1 */
    uint32_t missing, hellos, held, jobs_max;
    bool no_ack, timed_out;
    const char *body; /* of chunked messages */
    size_t body_len;
    uint32_t chunk_missing, fetches;
    char answer[16384]; /* of the admin peer */
    bool answered;
    struct buf scratch;
};

static void send_ack(struct world *w, struct span peer, uint64_t attempt) {
    Words__ReportAck ack = WORDS__REPORT_ACK__INIT;
    ack.attempt = attempt;
    assert_int_equal(frame_send_hub(w->hub, peer, FRAME_REPORT_ACK, 0, 7, &ack.base, NULL, &w->scratch), ERR_OK);
}

static void on_report(struct world *w, struct span peer, const Words__Report *r) {
    assert_in_range(r->attempt, 1, w->jobs);
    struct heard *v = &w->verdicts[r->attempt - 1];
    assert_int_equal(r->n_indexes, r->n_results);
    assert_int_equal(r->message, r->attempt + 1000);
    v->reports++;
    v->count = (uint32_t)r->n_results;
    for (size_t i = 0; i < r->n_results; i++) {
        const Words__Result *x = r->results[i];
        assert_int_equal(r->indexes[i], i + 10);
        v->outcome[i] = x->outcome;
        v->scope[i] = x->scope;
        v->code[i] = x->code;
        v->hop[i] = x->has_hop ? x->hop : 0;
        assert_true(x->text.len <= RESULT_TEXT_MAX);
        span_copy(frame_span(x->enhanced), v->enhanced[i], sizeof v->enhanced[i]);
        span_copy(frame_span(x->text), v->text[i], sizeof v->text[i]);
        span_copy(frame_span(x->remote), v->remote[i], sizeof v->remote[i]);
    }
    if (r->has_site)
        span_copy(frame_span(r->site), v->site, sizeof v->site);
    v->site_failed = r->site_failed;
    if (!v->come) {
        v->come = true;
        w->missing--;
    }
    if (!w->no_ack)
        send_ack(w, peer, r->attempt);
    if (w->missing == 0)
        loop_stop(w->loop);
}

static void on_fetch(struct world *w, struct span peer, const struct frame *f, const Words__Fetch *q) {
    Words__Fetched r = WORDS__FETCHED__INIT;
    size_t start = (size_t)q->number * FRAME_BODY_MAX, left = w->body_len - start;
    struct bus_bytes *chunk = bus_bytes_copy(span_make(w->body + start, left < FRAME_BODY_MAX ? left : FRAME_BODY_MAX));
    w->fetches++;
    r.message = q->message;
    r.number = q->number;
    r.has_missing = r.missing = w->chunk_missing && q->number + 1 == w->chunk_missing;
    assert_int_equal(
        frame_send_hub(w->hub, peer, FRAME_FETCHED, f->correlation, 7, &r.base, r.missing ? NULL : chunk, &w->scratch),
        ERR_OK);
    bus_bytes_free(chunk);
}

static void on_hello(struct world *w, struct span peer, const Words__Hello *h) {
    Words__Welcome welcome = WORDS__WELCOME__INIT;
    w->hellos++;
    w->held = (uint32_t)h->n_held;
    assert_int_equal(h->role, ROLE_DELIVERY);
    assert_true(h->jobs_max > 0 && h->bytes_max > 0);
    welcome.epoch = 7;
    span_copy(peer, w->peer, sizeof w->peer);
    assert_int_equal(frame_send_hub(w->hub, peer, FRAME_WELCOME, 0, 7, &welcome.base, NULL, &w->scratch), ERR_OK);
    if (w->missing == 0)
        loop_stop(w->loop);
}

static void on_hub(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    struct frame f;
    struct arena mem;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    arena_init(&mem, 4096, 0);
    if (f.kind == FRAME_HELLO)
        on_hello(w, peer, frame_unpack(&words__hello__descriptor, f.meta, &mem));
    else if (f.kind == FRAME_REPORT)
        on_report(w, peer, frame_unpack(&words__report__descriptor, f.meta, &mem));
    else if (f.kind == FRAME_FETCH)
        on_fetch(w, peer, &f, frame_unpack(&words__fetch__descriptor, f.meta, &mem));
    else
        fail_msg("frame of kind %u", f.kind);
    arena_deinit(&mem);
}

static void on_admin(void *arg, struct span peer, const struct bus_message *m) {
    struct world *w = arg;
    struct frame f;
    struct arena mem;
    assert_int_equal(frame_read(&f, m), ERR_OK);
    if (f.kind == FRAME_HELLO) {
        span_copy(peer, w->admin_peer, sizeof w->admin_peer);
        loop_stop(w->loop);
        return;
    }
    assert_int_equal(f.kind, FRAME_ADMIN_REPLY);
    arena_init(&mem, 4096, 0);
    const Words__AdminReply *r = frame_unpack(&words__admin_reply__descriptor, f.meta, &mem);
    assert_non_null(r);
    assert_true(r->last);
    assert_int_equal(f.correlation, 99);
    struct buf text;
    buf_init(&text, sizeof w->answer - 1);
    if (r->has_error)
        buf_printf(&text, "error %u ", r->error);
    buf_add(&text, frame_span(r->text));
    for (size_t i = 0; i < r->n_steps; i++) {
        const Words__AdminStep *s = r->steps[i];
        buf_printf(&text, "\n%.*s", SPAN_FMT(frame_span(s->text)));
        if (s->has_host)
            buf_printf(&text, " [%u %.*s %.*s]", s->preference, SPAN_FMT(frame_span(s->host)),
                       SPAN_FMT(frame_span(s->address)));
    }
    for (size_t i = 0; i < r->n_figures; i++)
        buf_printf(&text, "\n%.*s=%g", SPAN_FMT(frame_span(r->figures[i]->name)), r->figures[i]->value);
    span_copy(buf_span(&text), w->answer, sizeof w->answer);
    buf_deinit(&text);
    arena_deinit(&mem);
    w->answered = true;
    loop_stop(w->loop);
}

static void on_timeout(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

/* Runs until a callback stops it, at most for ms. */
static void run(struct world *w, uint64_t ms) {
    w->timed_out = false;
    loop_timer_set(w->timer, ms);
    next_turn();
    loop_run(w->loop);
    loop_timer_stop(w->timer);
}

static const char *const own_names[] = {"me.example"};

static struct outbound_settings settings_of(struct world *w, uint16_t port) {
    struct outbound_settings s = {0};
    outbound_defaults(&s);
    snprintf(w->dns, sizeof w->dns, "127.0.0.1:%u", w->names.port);
    s.hostname = "me.example";
    s.own_names = own_names;
    s.own_name_count = 1;
    s.dns = w->dns;
    s.port = port;
    s.loopback_targets = true;
    s.timeouts = (struct outbound_timeouts){.connect_ms = 500,
                                            .greeting_ms = 300,
                                            .ehlo_ms = 300,
                                            .mail_ms = 300,
                                            .rcpt_ms = 300,
                                            .data_ms = 300,
                                            .block_ms = 1000,
                                            .dot_ms = 300,
                                            .quit_ms = 300,
                                            .idle_ms = 2000};
    return s;
}

static struct world *world_start(const char *const *rows) {
    struct world *w = calloc(1, sizeof *w);
    buf_init(&w->scratch, 1 << 20);
    w->bus = bus_new(1);
    w->loop = loop_new();
    w->timer = loop_timer_new(w->loop, on_timeout, w);
    assert_int_equal(bus_hub_open(&w->hub, w->bus, w->loop, "inproc://scheduler", FRAME_PART_MAX, 64 << 20, on_hub, w),
                     ERR_OK);
    assert_int_equal(bus_hub_open(&w->admin, w->bus, w->loop, "inproc://admin", FRAME_PART_MAX, 64 << 20, on_admin, w),
                     ERR_OK);
    names_start(&w->names, rows);
    return w;
}

static void world_go(struct world *w, const struct outbound_settings *s) {
    struct outbound_config c = {
        .bus = w->bus, .scheduler = "inproc://scheduler", .admin = "inproc://admin", .jobs_max = w->jobs_max};
    assert_int_equal(outbound_start(&w->out, &c, s), ERR_OK);
    while (!w->peer[0] || !w->admin_peer[0]) {
        run(w, WAIT_MS);
        assert_false(w->timed_out);
    }
}

static void world_stop(struct world *w) {
    next_turn();
    outbound_stop(w->out);
    bus_hub_close(w->hub);
    bus_hub_close(w->admin);
    loop_timer_close(w->timer);
    loop_free(w->loop);
    bus_free(w->bus);
    names_stop(&w->names);
    buf_deinit(&w->scratch);
    free(w);
}

/* What a job is made of; the rest has defaults. */
struct job {
    const char *destination, *body;
    const char *to[8];
    uint64_t chunked; /* size, body from the world */
    bool eight_bit, smtputf8;
    uint32_t concurrency, notify, ret;
    const char *envid, *orcpt;
    const char *return_path[8];
    bool requiretls, local, by_notify, by_trace;
    int64_t by_ms; /* DELIVERBY from now; 0: none */
    const char *priority;
};

static struct heard *give(struct world *w, struct job j) {
    Words__Job job = WORDS__JOB__INIT;
    Words__Recipient r[8], *at[8];
    uint32_t indexes[8];
    assert_true(w->jobs < JOBS_MAX);
    job.attempt = ++w->jobs;
    job.message = job.attempt + 1000;
    job.sender = frame_bytes(SPAN("sender@me.example"));
    job.destination = frame_bytes(span_of(j.destination));
    for (; j.to[job.n_recipients]; job.n_recipients++) {
        size_t i = job.n_recipients;
        words__recipient__init(&r[i]);
        r[i].address = frame_bytes(span_of(j.to[i]));
        r[i].destination = job.destination;
        r[i].has_notify = j.notify != 0;
        r[i].notify = j.notify;
        r[i].has_orcpt = j.orcpt != NULL;
        r[i].orcpt = frame_bytes(span_of(j.orcpt));
        r[i].has_return_path = j.return_path[i] != NULL;
        r[i].return_path = frame_bytes(span_of(j.return_path[i]));
        r[i].has_local = r[i].local = j.local;
        at[i] = &r[i];
        indexes[i] = (uint32_t)i + 10;
    }
    job.n_indexes = job.n_recipients;
    job.recipients = at;
    job.indexes = indexes;
    struct span body = span_of(j.body ? j.body : "Subject: x\r\n\r\nhello\r\n");
    job.size = j.chunked ? j.chunked : body.len;
    job.has_chunked = job.chunked = j.chunked != 0;
    job.has_eight_bit = job.eight_bit = j.eight_bit;
    job.has_smtputf8 = job.smtputf8 = j.smtputf8;
    job.has_concurrency = j.concurrency != 0;
    job.concurrency = j.concurrency;
    job.has_requiretls = job.requiretls = j.requiretls;
    job.has_deliver_by_ms = j.by_ms != 0;
    job.deliver_by_ms = clock_wall_ms() + (uint64_t)j.by_ms;
    job.has_deliver_by_notify = job.deliver_by_notify = j.by_notify;
    job.has_deliver_by_trace = job.deliver_by_trace = j.by_trace;
    job.has_mt_priority = j.priority != NULL;
    job.mt_priority = j.priority ? (int32_t)strtol(j.priority, NULL, 10) : 0;
    job.has_ret = true;
    job.ret = j.ret;
    job.has_envid = j.envid != NULL;
    job.envid = frame_bytes(span_of(j.envid));
    struct bus_bytes *bytes = j.chunked ? NULL : bus_bytes_copy(body);
    assert_int_equal(frame_send_hub(w->hub, span_of(w->peer), FRAME_JOB, 0, 7, &job.base, bytes, &w->scratch), ERR_OK);
    bus_bytes_free(bytes);
    w->missing++;
    return &w->verdicts[w->jobs - 1];
}

static void wait_for_all(struct world *w) {
    while (w->missing > 0) {
        run(w, WAIT_MS);
        if (w->timed_out)
            fail_msg("%u reports did not come", w->missing);
    }
}

static struct heard *deliver(struct world *w, struct job j) {
    struct heard *v = give(w, j);
    wait_for_all(w);
    return v;
}
#define ONE(domain) ((struct job){.destination = (domain), .to = {"a@" domain}})

static void expect(const struct heard *v, uint32_t i, enum outcome outcome, enum outcome_scope scope, unsigned code,
                   const char *enhanced) {
    if (v->outcome[i] != outcome || v->scope[i] != scope || v->code[i] != code || strcmp(v->enhanced[i], enhanced) != 0)
        fail_msg("recipient %u: outcome %u scope %u code %u %s (%s) from %s", i, v->outcome[i], v->scope[i], v->code[i],
                 v->enhanced[i], v->text[i], v->remote[i]);
    assert_true(v->text[i][0] != '\0');
}

static void ask(struct world *w, Words__AdminVerb verb, const char *address) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    q.verb = verb;
    q.has_address = address != NULL;
    q.address = frame_bytes(span_of(address));
    w->answered = false;
    assert_int_equal(
        frame_send_hub(w->admin, span_of(w->admin_peer), FRAME_ADMIN_REQUEST, 99, 0, &q.base, NULL, &w->scratch),
        ERR_OK);
    while (!w->answered) {
        run(w, WAIT_MS);
        assert_false(w->timed_out);
    }
}

static void has_text(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in: %s", part, text);
}

/* -- names -- */

static const char *const rows[] = {"MX two.example 10 mx1.example",
                                   "MX two.example 20 mx2.example",
                                   "A mx1.example 127.0.0.2",
                                   "A mx2.example 127.0.0.3",
                                   "MX one.example 10 mx2.example",
                                   "A plain.example 127.0.0.3",
                                   "MX null.example 0 .",
                                   "FAIL broken.example",
                                   "MX half.example 10 gone.example",
                                   "MX own.example 10 me.example",
                                   "MX own.example 20 mx2.example",
                                   "MX backup.example 10 gone.example",
                                   "MX backup.example 20 me.example",
                                   "MX zero.example 10 z.example",
                                   "A z.example 0.0.0.0",
                                   "MX dead.example 10 d.example",
                                   "A d.example 127.0.0.9",
                                   "MX nofallback.example 10 g.example",
                                   "A nofallback.example 127.0.0.3",
                                   "MX temp.example 10 broken.example",
                                   "A relay.example 127.0.0.2",
                                   "MX slow.example 10 s.example",
                                   "A s.example 127.0.0.8",
                                   "A s.example 127.0.0.2",
                                   "MX worse.example 10 mx2.example",
                                   "MX worse.example 20 me.example",
                                   NULL};

struct pair {
    struct world *w;
    struct server *one, *two;
};

/* Two servers, at mx1 and mx2. */
static struct pair pair_start(struct script one, struct script two) {
    struct pair p;
    uint16_t port = 0;
    p.one = server_start("127.0.0.2", &port, one);
    p.two = server_start("127.0.0.3", &port, two);
    p.w = world_start(rows);
    struct outbound_settings s = settings_of(p.w, port);
    world_go(p.w, &s);
    return p;
}

static void pair_stop(struct pair *p) {
    world_stop(p->w);
    server_stop(p->one);
    server_stop(p->two);
}

static const struct script fine = {0};

static void test_delivers(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    struct heard *v = deliver(p.w, (struct job){.destination = "two.example",
                                                .to = {"a@two.example", "b@two.example"},
                                                .body = "Subject: x\r\n\r\n.dot\r\nend",
                                                .notify = 6,
                                                .ret = 2,
                                                .envid = "e+1",
                                                .orcpt = "rfc822;a@old.example"});
    for (uint32_t i = 0; i < 2; i++)
        expect(v, i, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    has_text(v->text[0], "2.0.0 taken");
    has_text(v->remote[0], "mx1.example [127.0.0.2]:");
    assert_string_equal(v->site, "mx1.example+mx2.example");
    assert_false(v->site_failed);
    assert_int_equal(p.one->messages, 1);
    assert_int_equal(p.two->connections, 0);
    assert_memory_equal(still(p.one)->body, "Subject: x\r\n\r\n..dot\r\nend\r\n", still(p.one)->body_len);
    has_text(still(p.one)->commands, "MAIL FROM:<sender@me.example> SIZE=23 RET=HDRS ENVID=e+2B1\r\n");
    has_text(still(p.one)->commands, "RCPT TO:<b@two.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@old.example\r\n");
    pair_stop(&p);
}

/* A listener whose queue is full: the kernel drops what knocks, and says nothing. */
struct wall {
    int fd, fill[8];
};

static void wall_build(struct wall *wall, const char *ip, uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, ip, &at.sin_addr), 1);
    wall->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(wall->fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(wall->fd, 0), 0);
    for (size_t i = 0; i < 8; i++) {
        wall->fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(wall->fill[i], (struct sockaddr *)&at, sizeof at);
    }
}

static void wall_drop(struct wall *wall) {
    for (size_t i = 0; i < 8; i++)
        close(wall->fill[i]);
    close(wall->fd);
}

/* A host whose first address does not answer: the other one is tried beside it, long before the time for a connection
 * is over, whichever comes first. */
static void test_race(void **state) {
    (void)state;
    uint16_t port = 0;
    struct wall wall;
    struct server *one = server_start("127.0.0.2", &port, fine);
    struct world *w = world_start(rows);
    struct outbound_settings s = settings_of(w, port);
    wall_build(&wall, "127.0.0.8", port);
    s.timeouts.connect_ms = 60000;
    s.messages_per_connection = 1;
    world_go(w, &s);
    for (int i = 0; i < 6; i++) /* the first address is drawn by lot */
        expect(deliver(w, ONE("slow.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(one->messages, 6);
    world_stop(w);
    server_stop(one);
    wall_drop(&wall);
}

/* Lines 34 to 39: what the DNS says, without any connection. */
static void test_names(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    expect(deliver(p.w, ONE("nowhere.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.1.2");
    expect(deliver(p.w, ONE("broken.example")), 0, OUTCOME_DEFERRED, SCOPE_DESTINATION, 0, "4.4.3");
    expect(deliver(p.w, ONE("temp.example")), 0, OUTCOME_DEFERRED, SCOPE_DESTINATION, 0, "4.4.3");
    expect(deliver(p.w, ONE("null.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.1.10");
    expect(deliver(p.w, ONE("half.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.4.4");
    expect(deliver(p.w, ONE("nofallback.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.4.4");
    expect(deliver(p.w, ONE("own.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.4.6");
    expect(deliver(p.w, ONE("backup.example")), 0, OUTCOME_DEFERRED, SCOPE_DESTINATION, 0, "4.4.4");
    expect(deliver(p.w, ONE("zero.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.4.6");
    expect(deliver(p.w, (struct job){.destination = "[0.0.0.0]", .to = {"a@[0.0.0.0]"}}), 0, OUTCOME_FAILED,
           SCOPE_DESTINATION, 0, "5.4.6");
    expect(deliver(p.w, (struct job){.destination = "[nonsense]", .to = {"a@[nonsense]"}}), 0, OUTCOME_FAILED,
           SCOPE_DESTINATION, 0, "5.1.2");
    assert_int_equal(p.one->connections + p.two->connections, 0);
    struct heard *v = deliver(p.w, ONE("plain.example"));
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_string_equal(v->site, "plain.example");
    expect(deliver(p.w, ONE("worse.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    v = deliver(p.w, (struct job){.destination = "[127.0.0.2]", .to = {"a@[127.0.0.2]"}});
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    uint32_t asked = p.w->names.asked;
    expect(deliver(p.w, ONE("null.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.1.10");
    assert_int_equal(p.w->names.asked, asked); /* from the cache */
    pair_stop(&p);
}

/* Each way in which the first host can fail, and whether the second is asked (lines 42 to 46). */
struct failing {
    struct script script;
    enum outcome outcome;
    enum outcome_scope scope;
    unsigned code;
    const char *enhanced;
    uint32_t asked_second;
};

static void run_failing(const struct failing *f, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct pair p = pair_start(f[i].script, fine);
        struct heard *v = deliver(p.w, ONE("two.example"));
        if (p.two->connections != f[i].asked_second)
            fail_msg("row %zu: %u connections to the second host", i, p.two->connections);
        expect(v, 0, f[i].outcome, f[i].scope, f[i].code, f[i].enhanced);
        assert_false(v->site_failed);
        pair_stop(&p);
    }
}

#define DELIVERED_BY_SECOND OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0", 1

static void test_next_host(void **state) {
    (void)state;
    static const struct failing f[] = {
        {{.greeting = "554 5.7.1 no"}, DELIVERED_BY_SECOND},
        {{.greeting = "421 busy"}, DELIVERED_BY_SECOND},
        {{.greeting = "850 odd"}, DELIVERED_BY_SECOND},
        {{.greeting = "hello"}, DELIVERED_BY_SECOND},
        {{.greeting = ENDLESS}, DELIVERED_BY_SECOND},
        {{.greeting = SILENT}, DELIVERED_BY_SECOND},
        {{.greeting = CLOSE}, DELIVERED_BY_SECOND},
        {{.ehlo = "554 no"}, DELIVERED_BY_SECOND},
        {{.ehlo = SILENT}, DELIVERED_BY_SECOND},
        {{.ehlo = ENDLESS}, DELIVERED_BY_SECOND},
        {{.ehlo = "250-a\r\n550 b"}, DELIVERED_BY_SECOND},
        {{.mail = "451 4.3.0 no"}, DELIVERED_BY_SECOND},
        {{.mail = "421 bye"}, DELIVERED_BY_SECOND},
        {{.mail = CLOSE}, DELIVERED_BY_SECOND},
        {{.mail = SILENT}, DELIVERED_BY_SECOND},
        {{.rcpt = CLOSE}, DELIVERED_BY_SECOND},
        {{.rcpt = "421 bye"}, DELIVERED_BY_SECOND},
        {{.data = "451 no"}, DELIVERED_BY_SECOND},
        {{.data = CLOSE}, DELIVERED_BY_SECOND},
        {{.data = "250 what"}, DELIVERED_BY_SECOND},
        {{.data = SILENT}, DELIVERED_BY_SECOND},
        {{.dot = "451 4.3.0 no"}, DELIVERED_BY_SECOND},
        {{.dot = "850 odd"}, DELIVERED_BY_SECOND},
        {{.dot = "421 bye"}, DELIVERED_BY_SECOND},
    };
    run_failing(f, sizeof f / sizeof *f);
}

static void test_no_next_host(void **state) {
    (void)state;
    static const struct failing f[] = {
        {{.mail = "550 5.7.1 no"}, OUTCOME_FAILED, SCOPE_MESSAGE, 550, "5.7.1", 0},
        {{.rcpt = "550 5.1.1 no"}, OUTCOME_FAILED, SCOPE_RECIPIENT, 550, "5.1.1", 0},
        {{.rcpt = "450 4.2.1 no"}, OUTCOME_DEFERRED, SCOPE_RECIPIENT, 450, "4.2.1", 0},
        {{.data = "554 no"}, OUTCOME_FAILED, SCOPE_MESSAGE, 554, "5.0.0", 0},
        {{.dot = "554 5.7.1 spam"}, OUTCOME_FAILED, SCOPE_MESSAGE, 554, "5.7.1", 0},
        {{.dot = CLOSE}, OUTCOME_IN_DOUBT, SCOPE_HOST, 0, "4.4.2", 0},
        {{.dot = SILENT}, OUTCOME_IN_DOUBT, SCOPE_HOST, 0, "4.4.2", 0},
        {{.dot = ENDLESS}, OUTCOME_IN_DOUBT, SCOPE_HOST, 0, "4.4.2", 0},
        {{.dot = "250-a\r\n550 b"}, OUTCOME_IN_DOUBT, SCOPE_HOST, 0, "4.4.2", 0},
    };
    run_failing(f, sizeof f / sizeof *f);
}

/* Line 43: a permanent greeting counts when every host gives it. */
static void test_all_hosts_fail(void **state) {
    (void)state;
    struct pair p = pair_start((struct script){.greeting = "554 5.7.1 no"}, (struct script){.greeting = "550 never"});
    struct heard *v = deliver(p.w, ONE("two.example"));
    expect(v, 0, OUTCOME_FAILED, SCOPE_DESTINATION, 550, "5.3.2");
    assert_true(v->site_failed);
    pair_stop(&p);
    p = pair_start((struct script){.greeting = "554 5.7.1 no"}, (struct script){.greeting = SILENT});
    v = deliver(p.w, ONE("two.example"));
    expect(v, 0, OUTCOME_DEFERRED, SCOPE_DESTINATION, 0, "4.4.2");
    assert_true(v->site_failed);
    pair_stop(&p);
    /* the mail's own deferral outlives a dead host behind it */
    p = pair_start((struct script){.dot = "451 4.7.1 later"}, (struct script){.greeting = CLOSE});
    v = deliver(p.w, ONE("two.example"));
    expect(v, 0, OUTCOME_DEFERRED, SCOPE_MESSAGE, 451, "4.7.1");
    assert_false(v->site_failed);
    pair_stop(&p);
    p = pair_start(fine, fine); /* refused connections */
    v = deliver(p.w, ONE("dead.example"));
    expect(v, 0, OUTCOME_DEFERRED, SCOPE_DESTINATION, 0, "4.4.1");
    assert_true(v->site_failed);
    assert_string_equal(v->site, "d.example");
    has_text(v->remote[0], "d.example [127.0.0.9]:");
    pair_stop(&p);
}

static void test_recipients(void **state) {
    (void)state;
    /* lines 44, 45: each recipient by itself */
    struct pair p = pair_start((struct script){.rcpt = "250 ok|550 5.1.1 no|450 4.2.1 full|250 ok"}, fine);
    struct job four = {.destination = "two.example",
                       .to = {"a@two.example", "b@two.example", "c@two.example", "d@two.example"}};
    struct heard *v = deliver(p.w, four);
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    expect(v, 1, OUTCOME_FAILED, SCOPE_RECIPIENT, 550, "5.1.1");
    expect(v, 2, OUTCOME_DEFERRED, SCOPE_RECIPIENT, 450, "4.2.1");
    expect(v, 3, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.two->connections, 0);
    pair_stop(&p);
    /* line 47 */
    p = pair_start((struct script){.rcpt = "250 ok|250 ok|552 too many|452 4.5.3 too many|250 ok"}, fine);
    v = deliver(p.w, four);
    for (uint32_t i = 0; i < 4; i++)
        expect(v, i, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.one->messages, 2);
    assert_int_equal(p.one->connections, 1);
    pair_stop(&p);
    /* line 48 */
    p = pair_start((struct script){.ehlo = "250-s\r\n250 LIMITS RCPTMAX=3"}, fine);
    v = deliver(p.w, four);
    for (uint32_t i = 0; i < 4; i++)
        expect(v, i, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.one->messages, 2);
    assert_int_equal(p.one->recipients, 4);
    pair_stop(&p);
    /* nobody accepted, and yet 354 */
    p = pair_start((struct script){.rcpt = "550 5.1.1 no", .data = "354 go"}, fine);
    expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_FAILED, SCOPE_RECIPIENT, 550, "5.1.1");
    assert_int_equal(still(p.one)->body_len, 0);
    assert_int_equal(p.one->resets, 1);
    pair_stop(&p);
}

/* Line 53. */
static void test_reuse(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    for (int i = 0; i < 5; i++)
        expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.one->connections, 1);
    assert_int_equal(p.one->messages, 5);
    assert_int_equal(p.one->resets, 0);
    pair_stop(&p);
    static const struct script closing[] = {
        {.close_after_dot_reply = true}, {.mail = "250 ok|421 enough"}, {.mail = "250 ok|" CLOSE}};
    for (size_t k = 0; k < sizeof closing / sizeof *closing; k++) {
        p = pair_start(closing[k], fine);
        for (int i = 0; i < 4; i++)
            expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
        assert_int_equal(p.one->messages, 4);
        assert_int_equal(p.one->connections, 4);
        assert_int_equal(p.two->connections, 0); /* it is no failure of the host */
        pair_stop(&p);
    }
    /* a refused mail leaves the connection usable */
    p = pair_start((struct script){.mail = "550 5.7.1 no|250 ok"}, fine);
    expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_FAILED, SCOPE_MESSAGE, 550, "5.7.1");
    expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.one->connections, 1);
    pair_stop(&p);
    /* MAILMAX and messages_per_connection */
    p = pair_start((struct script){.ehlo = "250-s\r\n250 LIMITS MAILMAX=2"}, fine);
    for (int i = 0; i < 5; i++)
        expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.one->connections, 3);
    pair_stop(&p);
}

static void expect_all_delivered(const struct world *w) {
    for (uint64_t i = 0; i < w->jobs; i++)
        expect(&w->verdicts[i], 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
}

static void test_concurrency(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    for (int i = 0; i < 40; i++) {
        struct job j = ONE("two.example");
        j.concurrency = 3;
        give(p.w, j);
    }
    wait_for_all(p.w);
    expect_all_delivered(p.w);
    assert_int_equal(p.one->messages, 40);
    assert_in_range(p.one->open_max, 1, 3);
    assert_in_range(p.one->connections, 1, 3);
    pair_stop(&p);
    /* a server that takes two at a time and refuses the rest: the others wait for those */
    p = pair_start((struct script){.accept_max = 2}, (struct script){.accept_max = 1});
    for (int i = 0; i < 30; i++)
        give(p.w, ONE("two.example"));
    wait_for_all(p.w);
    expect_all_delivered(p.w);
    pair_stop(&p);
    /* the same when it refuses before those that it took are through EHLO */
    p = pair_start((struct script){.accept_max = 2, .ehlo_ms = 100}, (struct script){.accept_max = 1, .ehlo_ms = 100});
    for (int i = 0; i < 30; i++)
        give(p.w, ONE("two.example"));
    wait_for_all(p.w);
    expect_all_delivered(p.w);
    pair_stop(&p);
    /* the node's own limit: two sites share one connection */
    uint16_t port = 0;
    struct server *one = server_start("127.0.0.2", &port, fine), *two = server_start("127.0.0.3", &port, fine);
    struct world *w = world_start(rows);
    struct outbound_settings s = settings_of(w, port);
    s.connections = 1;
    world_go(w, &s);
    for (int i = 0; i < 10; i++) {
        give(w, ONE("two.example"));
        give(w, ONE("one.example"));
    }
    wait_for_all(w);
    expect_all_delivered(w);
    assert_int_equal(one->open_max, 1);
    assert_int_equal(two->open_max, 1);
    world_stop(w);
    server_stop(one);
    server_stop(two);
}

/* When the whole site is dead, jobs that wait for it go back as they came. */
static void test_site_fails(void **state) {
    (void)state;
    struct pair p = pair_start((struct script){.greeting = SILENT}, (struct script){.greeting = SILENT});
    uint32_t failed = 0, returned = 0, deferred = 0;
    for (int i = 0; i < 20; i++) {
        struct job j = ONE("two.example");
        j.concurrency = 2;
        give(p.w, j);
    }
    wait_for_all(p.w);
    for (int i = 0; i < 20; i++) {
        const struct heard *v = &p.w->verdicts[i];
        failed += v->site_failed;
        returned += v->outcome[0] == OUTCOME_RETURNED;
        deferred += v->outcome[0] == OUTCOME_DEFERRED;
        assert_string_equal(v->site, "mx1.example+mx2.example");
    }
    assert_int_equal(failed, 1);
    assert_int_equal(deferred, 1); /* the last of those that tried; the others go back to the queue */
    assert_int_equal(returned, 19);
    /* the next one, a probe, is heard again */
    assert_true(deliver(p.w, ONE("two.example"))->site_failed);
    pair_stop(&p);
}

static char *big_body(size_t len) {
    char *body = malloc(len);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)('a' + i % 26);
    for (size_t i = 100; i + 3 < len; i += 101)
        memcpy(body + i, "\r\n.", 3);
    memcpy(body + len - 2, "\r\n", 2);
    return body;
}

static void test_chunks(void **state) {
    (void)state;
    static const size_t sizes[] = {FRAME_BODY_MAX, FRAME_BODY_MAX + 1, 3 * FRAME_BODY_MAX + 12345, 8 * FRAME_BODY_MAX};
    struct pair p = pair_start(fine, fine);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        char *body = big_body(sizes[k]);
        p.w->body = body;
        p.w->body_len = sizes[k];
        p.w->fetches = 0;
        struct job j = ONE("two.example");
        j.chunked = sizes[k];
        expect(deliver(p.w, j), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
        assert_int_equal(p.w->fetches, (sizes[k] + FRAME_BODY_MAX - 1) / FRAME_BODY_MAX);
        /* unstuffed it is the same */
        size_t n = 0;
        bool bol = true;
        for (size_t i = 0; i < still(p.one)->body_len; i++) {
            char c = still(p.one)->body[i];
            if (bol && c == '.') {
                bol = false;
                continue;
            }
            assert_true(n < sizes[k] && body[n] == c);
            n++;
            bol = c == '\n';
        }
        assert_int_equal(n, sizes[k]);
        free(body);
    }
    /* a chunk that the scheduler does not have: deferred, and nothing is delivered */
    uint32_t messages = p.one->messages;
    char *body = big_body(sizes[2]);
    p.w->body = body;
    p.w->body_len = sizes[2];
    p.w->chunk_missing = 3;
    struct job j = ONE("two.example");
    j.chunked = sizes[2];
    expect(deliver(p.w, j), 0, OUTCOME_DEFERRED, SCOPE_MESSAGE, 0, "4.3.0");
    assert_int_equal(p.one->messages, messages);
    assert_int_equal(p.two->connections, 0);
    pair_stop(&p);
    /* a server that closes in the middle of a long body has not got it: the next one is asked */
    p = pair_start((struct script){.data = "354 go"}, fine);
    shutdown(p.one->fd, SHUT_RDWR);
    free(body);
    pair_stop(&p);
}

#define E "\xc3\xa9"

/* Line 49. */
static void test_eight_bit(void **state) {
    (void)state;
    struct script old = {.ehlo = "250 old"};
    struct pair p = pair_start(old, fine);
    struct job j = ONE("two.example");
    j.eight_bit = true;
    j.body = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
             "8bit\r\n\r\nlong enough line with " E "\r\n";
    expect(deliver(p.w, j), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    span_copy(span_make(still(p.one)->body, still(p.one)->body_len), p.w->answer, sizeof p.w->answer);
    has_text(p.w->answer, "=C3=A9\r\n");
    has_text(p.w->answer, "Content-Transfer-Encoding: quoted-printable\r\n");
    /* the same in chunks */
    size_t len = 2 * FRAME_BODY_MAX;
    char *body = malloc(len);
    memset(body, 'x', len);
    for (size_t i = 80; i + 2 < len; i += 80)
        memcpy(body + i, "\r\n", 2);
    memcpy(body, j.body, strlen(j.body));
    memcpy(body + len - 4, E "\r\n", 4);
    p.w->body = body;
    p.w->body_len = len;
    struct job chunked = j;
    chunked.chunked = len;
    expect(deliver(p.w, chunked), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_memory_equal(still(p.one)->body + still(p.one)->body_len - 8, "=C3=A9\r\n", 8);
    assert_true(still(p.one)->body_len > len);
    free(body);
    /* not convertible */
    j.body = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" E "\r\n--b--\r\n";
    struct heard *v = deliver(p.w, j);
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.6.3");
    has_text(v->text[0], "signed");
    /* SMTPUTF8 needed by an address, by the header, not at all */
    struct job utf8 = {.destination = "two.example", .to = {"a@two.example", E "@two.example"}, .smtputf8 = true};
    v = deliver(p.w, utf8);
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    expect(v, 1, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.6.7");
    utf8.body = "Subject: " E "\r\n\r\nx\r\n";
    v = deliver(p.w, utf8);
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.6.7");
    assert_int_equal(p.one->messages, 3);
    assert_int_equal(p.two->connections, 0);
    assert_int_equal(p.one->connections, 1);
    pair_stop(&p);
    p = pair_start((struct script){.ehlo = "250-new\r\n250-8BITMIME\r\n250 SMTPUTF8"}, fine);
    utf8.eight_bit = true;
    v = deliver(p.w, utf8);
    expect(v, 1, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    has_text(still(p.one)->commands, "MAIL FROM:<sender@me.example> BODY=8BITMIME SMTPUTF8\r\n");
    pair_stop(&p);
    p = pair_start((struct script){.ehlo = "250-s\r\n250 SIZE 10"}, fine);
    expect(deliver(p.w, ONE("two.example")), 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.3.4");
    assert_int_equal(p.one->transactions, 0);
    pair_stop(&p);
}

static void test_routes(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *relay = server_start("127.0.0.2", &port, fine);
    struct server *store =
        server_start("127.0.0.3", &port, (struct script){.dot = "250 2.1.5 taken|452 4.2.2 full|250 2.1.5 taken"});
    struct world *w = world_start(rows);
    struct outbound_settings s = settings_of(w, 1); /* nobody listens there */
    char host[64];
    snprintf(host, sizeof host, "lmtp:127.0.0.3:%u", port);
    struct outbound_route routes[4] = {
        {.domain = "local.example"}, {.domain = "*"}, {.domain = "two.example"}, {.domain = "loop.example"}};
    assert_int_equal(route_parse(&routes[0].route, span_of(host)), ERR_OK);
    snprintf(host, sizeof host, "smtp:relay.example:%u", port);
    assert_int_equal(route_parse(&routes[1].route, span_of(host)), ERR_OK);
    assert_int_equal(route_parse(&routes[2].route, SPAN("mx:null.example")), ERR_OK);
    assert_int_equal(route_parse(&routes[3].route, SPAN("smtp:127.0.0.7:2525")), ERR_OK);
    struct tcp_addr own;
    assert_int_equal(tcp_addr_parse(&own, SPAN("127.0.0.7"), 2525), ERR_OK);
    s.routes = routes;
    s.route_count = 4;
    s.own_listen = &own;
    s.own_listen_count = 1;
    world_go(w, &s);
    struct heard *v = deliver(w, ONE("anything.example"));
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    snprintf(host, sizeof host, "smtp:relay.example:%u", port);
    assert_string_equal(v->site, host);
    expect(deliver(w, ONE("two.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.1.10");
    expect(deliver(w, ONE("loop.example")), 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.4.6");
    v = deliver(w, (struct job){.destination = "local.example",
                                .to = {"a@local.example", "b@local.example", "c@local.example"}});
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.1.5");
    expect(v, 1, OUTCOME_DEFERRED, SCOPE_RECIPIENT, 452, "4.2.2");
    expect(v, 2, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.1.5");
    has_text(still(store)->commands, "LHLO me.example\r\n");
    assert_int_equal(relay->messages, 1);
    world_stop(w);
    server_stop(relay);
    server_stop(store);
}

/* -- bus and life -- */

/* Recipients with different return paths go in transactions of their own, over one connection. */
static void test_return_paths(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    struct heard *v = deliver(
        p.w, (struct job){.destination = "two.example",
                          .to = {"a@two.example", "b@two.example", "c@two.example", "d@two.example", "e@two.example"},
                          .return_path = {NULL, "SRS0=x@me.example", NULL, "SRS0=y@me.example", "SRS0=x@me.example"}});
    for (uint32_t i = 0; i < 5; i++)
        expect(v, i, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(p.one->connections, 1);
    assert_int_equal(p.one->messages, 3);
    has_text(still(p.one)->commands, "MAIL FROM:<sender@me.example> SIZE=21\r\nRCPT TO:<a@two.example>\r\n"
                                     "RCPT TO:<c@two.example>\r\nDATA\r\n");
    has_text(still(p.one)->commands, "MAIL FROM:<SRS0=x@me.example> SIZE=21\r\nRCPT TO:<b@two.example>\r\n"
                                     "RCPT TO:<e@two.example>\r\nDATA\r\n");
    has_text(still(p.one)->commands, "MAIL FROM:<SRS0=y@me.example> SIZE=21\r\nRCPT TO:<d@two.example>\r\nDATA\r\n");
    /* One that cannot be sent fails those that have it, and no others. */
    v = deliver(p.w, (struct job){.destination = "two.example",
                                  .to = {"a@two.example", "b@two.example"},
                                  .return_path = {"x\ny@me.example", NULL}});
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.1.3");
    expect(v, 1, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    pair_stop(&p);
    /* Nor does one that needs SMTPUTF8 where there is none. */
    p = pair_start((struct script){.ehlo = "250 server"}, fine);
    v = deliver(p.w, (struct job){.destination = "two.example",
                                  .to = {"a@two.example", "b@two.example"},
                                  .return_path = {"j\xc3\xb6@me.example", NULL}});
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.6.7");
    expect(v, 1, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    /* Refused at MAIL: only those of that transaction. */
    pair_stop(&p);
    p = pair_start((struct script){.mail = "550 5.7.1 not from there|250 ok"}, fine);
    v = deliver(p.w, (struct job){.destination = "two.example",
                                  .to = {"a@two.example", "b@two.example"},
                                  .return_path = {"SRS0=x@me.example", NULL}});
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 550, "5.7.1");
    expect(v, 1, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    pair_stop(&p);
}

/* Line 50: without a private way nothing is sent; a unix socket leads nowhere else. */
static void test_requiretls(void **state) {
    (void)state;
    char path[64], route[80];
    uint16_t port = 0;
    snprintf(path, sizeof path, "/tmp/posthouse_wish.%d", (int)getpid());
    struct server *relay = server_start("127.0.0.2", &port, fine), *store = server_start_unix(path, fine);
    struct world *w = world_start(rows);
    struct outbound_settings s = settings_of(w, port);
    struct outbound_route routes[2] = {{.domain = "box.example"}, {.domain = "relayed.example"}};
    snprintf(route, sizeof route, "lmtp:unix:%s", path);
    assert_int_equal(route_parse(&routes[0].route, span_of(route)), ERR_OK);
    assert_int_equal(route_parse(&routes[1].route, SPAN("smtp:relay.example")), ERR_OK);
    s.routes = routes;
    s.route_count = 2;
    world_go(w, &s);
    struct heard *v = deliver(
        w, (struct job){.destination = "two.example", .to = {"a@two.example", "b@two.example"}, .requiretls = true});
    for (uint32_t i = 0; i < 2; i++) {
        expect(v, i, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.7.10");
        assert_string_equal(v->text[i], "REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the name of this host");
    }
    assert_int_equal(relay->connections, 0);
    v = deliver(w, (struct job){.destination = "relayed.example", .to = {"a@relayed.example"}, .requiretls = true});
    expect(v, 0, OUTCOME_FAILED, SCOPE_DESTINATION, 0, "5.7.10"); /* a route is named by us, but it has no TLS */
    v = deliver(w, (struct job){.destination = "box.example", .to = {"a@box.example"}, .requiretls = true});
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    expect(deliver(w, ONE("two.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    world_stop(w);
    server_stop(relay);
    server_stop(store);
    unlink(path);
}

#define OFFERS "250-server\r\n250-DSN\r\n250-DELIVERBY 60\r\n250 MT-PRIORITY"
enum { HOUR_MS = 3600000 };

static void test_deliver_by(void **state) {
    (void)state;
    struct pair p = pair_start((struct script){.ehlo = OFFERS}, fine); /* mx2 has DSN, and no DELIVERBY */
    struct job j = {.destination = "two.example", .to = {"a@two.example"}, .by_ms = HOUR_MS + 500};
    struct heard *v = deliver(p.w, j);
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(v->hop[0], HOP_REPORTS);
    if (!strstr(still(p.one)->commands, " BY=3600;R\r\n"))
        has_text(still(p.one)->commands, " BY=3599;R\r\n");
    j.by_trace = j.by_notify = true;
    v = deliver(p.w, j);
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(v->hop[0], HOP_RELAYED);
    has_text(still(p.one)->commands, ";NT\r\n");
    /* Less than the server needs, or nothing, is left. */
    j = (struct job){.destination = "two.example", .to = {"a@two.example"}, .by_ms = 30000};
    expect(deliver(p.w, j), 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.4.7");
    j.by_ms = -5000;
    v = deliver(p.w, j);
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.4.7");
    assert_string_equal(v->text[0], "delivery time expired");
    j.by_notify = true; /* a late one goes on, and says so */
    expect(deliver(p.w, j), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    has_text(still(p.one)->commands, " BY=-5;N\r\n");
    assert_int_equal(p.one->messages, 3);
    /* A server that does not offer it: no way for mode R, but for the end of the way; N is told of. */
    j = (struct job){.destination = "one.example", .to = {"a@one.example"}, .by_ms = HOUR_MS};
    v = deliver(p.w, j);
    expect(v, 0, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.3.3");
    has_text(v->remote[0], "mx2.example");
    assert_int_equal(p.two->transactions, 0);
    j.local = true;
    v = deliver(p.w, j);
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(v->hop[0], HOP_REPORTS);
    j.local = false;
    j.by_notify = true;
    v = deliver(p.w, j);
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(v->hop[0], HOP_RELAYED);
    assert_null(strstr(still(p.two)->commands, "BY="));
    has_text(still(p.two)->commands, "RCPT TO:<a@one.example> NOTIFY=FAILURE,DELAY\r\n");
    j.to[0] = "never@one.example";
    j.notify = NOTIFY_NEVER;
    deliver(p.w, j);
    has_text(still(p.two)->commands, "RCPT TO:<never@one.example> NOTIFY=NEVER\r\n");
    j.to[0] = "success@one.example";
    j.notify = NOTIFY_SUCCESS;
    deliver(p.w, j);
    has_text(still(p.two)->commands, "RCPT TO:<success@one.example> NOTIFY=SUCCESS,DELAY\r\n");
    pair_stop(&p);
}

static void test_priority(void **state) {
    (void)state;
    struct pair p = pair_start((struct script){.ehlo = OFFERS}, fine);
    struct job j = {.destination = "two.example", .to = {"a@two.example"}, .priority = "-3"};
    deliver(p.w, j);
    has_text(still(p.one)->commands, " MT-PRIORITY=-3\r\n");
    j.priority = "10"; /* what cannot be said is not */
    deliver(p.w, j);
    assert_null(strstr(still(p.one)->commands, "PRIORITY=10"));
    j = (struct job){.destination = "one.example", .to = {"a@one.example"}, .priority = "0"};
    expect(deliver(p.w, j), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_null(strstr(still(p.two)->commands, "PRIORITY"));
    pair_stop(&p);
}

static void on_drained(void *arg) {
    __atomic_store_n((bool *)arg, true, __ATOMIC_SEQ_CST);
}

static void run_for(struct world *w, uint64_t ms) {
    uint64_t end = clock_mono_ms() + ms;
    while (clock_mono_ms() < end)
        run(w, end - clock_mono_ms() + 1);
}

static void test_reports_are_repeated(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    p.w->no_ack = true;
    struct heard *v = deliver(p.w, ONE("two.example"));
    run_for(p.w, 6500);
    assert_in_range(v->reports, 2, 3);
    bool drained = false;
    outbound_drain(p.w->out, 10000, on_drained, &drained);
    run_for(p.w, 300);
    assert_false(__atomic_load_n(&drained, __ATOMIC_SEQ_CST)); /* not while a report waits */
    send_ack(p.w, span_of(p.w->peer), 1);
    run_for(p.w, 300);
    assert_true(__atomic_load_n(&drained, __ATOMIC_SEQ_CST));
    v = deliver(p.w, ONE("two.example"));
    expect(v, 0, OUTCOME_RETURNED, SCOPE_HOST, 0, "4.3.2");
    pair_stop(&p);
}

static void test_drain(void **state) {
    (void)state;
    struct pair p = pair_start((struct script){.dot = SILENT}, fine);
    struct heard *on_wire, *waiting;
    struct job j = ONE("two.example");
    j.concurrency = 1;
    on_wire = give(p.w, j);
    waiting = give(p.w, j);
    run_for(p.w, 150);
    bool drained = false;
    outbound_drain(p.w->out, 10000, on_drained, &drained);
    wait_for_all(p.w);
    expect(on_wire, 0, OUTCOME_IN_DOUBT, SCOPE_HOST, 0, "4.4.2"); /* finished as it would have been */
    expect(waiting, 0, OUTCOME_RETURNED, SCOPE_HOST, 0, "4.3.2");
    run_for(p.w, 300);
    assert_true(__atomic_load_n(&drained, __ATOMIC_SEQ_CST));
    pair_stop(&p);
    /* the time limit */
    p = pair_start((struct script){.dot = SILENT}, fine);
    give(p.w, ONE("two.example"));
    run_for(p.w, 100);
    drained = false;
    outbound_drain(p.w->out, 0, on_drained, &drained);
    run_for(p.w, 100);
    assert_true(__atomic_load_n(&drained, __ATOMIC_SEQ_CST));
    pair_stop(&p); /* stops with a job under way */
}

static void test_bad_jobs(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    struct world *w = p.w;
    /* no recipients; destination missing; garbage: dropped without harm */
    Words__Job job = WORDS__JOB__INIT;
    job.attempt = 5000;
    job.destination = frame_bytes(SPAN("two.example"));
    assert_int_equal(frame_send_hub(w->hub, span_of(w->peer), FRAME_JOB, 0, 7, &job.base, NULL, &w->scratch), ERR_OK);
    uint8_t header[FRAME_HEADER_LEN];
    for (uint16_t kind = 0; kind < 40; kind++) {
        frame_header(header, kind, 0, 7, SPAN("\xff\xff\xff"));
        assert_int_equal(
            bus_hub_send(w->hub, span_of(w->peer), span_make(header, sizeof header), SPAN("\xff\xff\xff"), NULL),
            ERR_OK);
    }
    /* an address that would add a command fails alone */
    struct heard *v =
        deliver(w, (struct job){.destination = "two.example", .to = {"a@two.example", "b@x\r\nRCPT TO:<c@x>"}});
    expect(v, 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    expect(v, 1, OUTCOME_FAILED, SCOPE_MESSAGE, 0, "5.1.3");
    assert_null(strstr(still(p.one)->commands, "c@x"));
    pair_stop(&p);
    /* more jobs than we said that we take */
    uint16_t port = 0;
    struct server *s = server_start("127.0.0.3", &port, (struct script){.dot = SILENT});
    w = world_start(rows);
    w->jobs_max = 2;
    struct outbound_settings settings = settings_of(w, port);
    world_go(w, &settings);
    for (int i = 0; i < 4; i++)
        give(w, ONE("one.example"));
    wait_for_all(w);
    uint32_t returned = 0;
    for (int i = 0; i < 4; i++)
        returned += w->verdicts[i].outcome[0] == OUTCOME_RETURNED;
    assert_int_equal(returned, 2);
    world_stop(w);
    server_stop(s);
}

static void test_reconfigure(void **state) {
    (void)state;
    uint16_t port = 0, other = 0;
    struct server *one = server_start("127.0.0.3", &port, fine), *two = server_start("127.0.0.3", &other, fine);
    struct world *w = world_start(rows);
    struct outbound_settings s = settings_of(w, port);
    world_go(w, &s);
    expect(deliver(w, ONE("plain.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    struct outbound_route route = {.domain = "plain.example"};
    char text[64];
    snprintf(text, sizeof text, "smtp:127.0.0.3:%u", other);
    assert_int_equal(route_parse(&route.route, span_of(text)), ERR_OK);
    s.routes = &route;
    s.route_count = 1;
    s.dns = NULL;
    assert_int_equal(outbound_reconfigure(w->out, &s), ERR_OK);
    run_for(w, 50);
    expect(deliver(w, ONE("plain.example")), 0, OUTCOME_DELIVERED, SCOPE_RECIPIENT, 250, "2.0.0");
    assert_int_equal(one->messages, 1);
    assert_int_equal(two->messages, 1);
    world_stop(w);
    server_stop(one);
    server_stop(two);
}

static void test_operator(void **state) {
    (void)state;
    struct pair p = pair_start(fine, fine);
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "someone@Two.example");
    has_text(p.w->answer, "2 addresses, site mx1.example+mx2.example");
    has_text(p.w->answer, "no rule: by MX");
    has_text(p.w->answer, "destination two.example");
    has_text(p.w->answer, "home of the site: ");
    has_text(p.w->answer, "connections to a site");
    has_text(p.w->answer, "[10 mx1.example ]");
    const char *first = strstr(p.w->answer, "tried [10 mx1.example 127.0.0.2]"),
               *second = strstr(p.w->answer, "tried [20 mx2.example 127.0.0.3]");
    assert_true(first && second && first < second);
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "own.example");
    has_text(p.w->answer, "fails: 5.4.6");
    has_text(p.w->answer, "left out: our own name [10 me.example ]");
    has_text(p.w->answer, "left out: not better than our own host [20 mx2.example ]");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "backup.example");
    has_text(p.w->answer, "is deferred: 4.4.4");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "zero.example");
    has_text(p.w->answer, "fails: 5.4.6");
    has_text(p.w->answer, "never used: an address that no mail goes to [10 z.example 0.0.0.0]");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "null.example");
    has_text(p.w->answer, "fails: 5.1.10");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "plain.example");
    has_text(p.w->answer, "no MX record: the domain itself is the host");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "a@[127.0.0.4]");
    has_text(p.w->answer, "1 address, site [127.0.0.4]");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "not a domain\r\n");
    has_text(p.w->answer, "not a domain");
    deliver(p.w, ONE("dead.example"));
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_ROUTE, "dead.example");
    has_text(p.w->answer, "tried last: did not answer a moment ago [10 d.example 127.0.0.9]");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_STATUS, NULL);
    has_text(p.w->answer, "delivery.jobs=0");
    has_text(p.w->answer, "delivery.connections_max=1000");
    ask(p.w, WORDS__ADMIN_VERB__ADMIN_RETRY, NULL);
    has_text(p.w->answer, "error 13");
    pair_stop(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delivers),     cmocka_unit_test(test_race),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_next_host),
        cmocka_unit_test(test_no_next_host), cmocka_unit_test(test_all_hosts_fail),
        cmocka_unit_test(test_recipients),   cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_concurrency),  cmocka_unit_test(test_site_fails),
        cmocka_unit_test(test_chunks),       cmocka_unit_test(test_eight_bit),
        cmocka_unit_test(test_routes),       cmocka_unit_test(test_return_paths),
        cmocka_unit_test(test_requiretls),   cmocka_unit_test(test_deliver_by),
        cmocka_unit_test(test_priority),     cmocka_unit_test(test_reports_are_repeated),
        cmocka_unit_test(test_drain),        cmocka_unit_test(test_bad_jobs),
        cmocka_unit_test(test_reconfigure),  cmocka_unit_test(test_operator),
    };
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
