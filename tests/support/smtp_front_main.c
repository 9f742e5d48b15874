/*
 * smtp_front: the real front end (gateway/inbound) before a scheduler that is played here. For the dialogues
 * and for measuring the front end alone: what it accepts is written to a directory, and the scheduler can be told to
 * refuse, to be slow, to stay silent or to be short of credit. It also checks that the frames keep their
 * contract (sizes of chunks, checksum, credit), and ends with status 3 when they do not.
 *
 * usage: smtp_front KEY=VALUE...   (keys: see `keys` below). Prints "port N" when it is ready. SIGTERM drains.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/units.h"
#include "gateway/inbound/inbound.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/outcome.h"

#define HUB "inproc://scheduler"
enum { DOMAINS_MAX = 32, TRUSTED_MAX = 16, SLOW_MAX = 1024 };

static struct {
    struct inbound_settings inbound;
    struct recipients_domain_config domains[DOMAINS_MAX];
    size_t domain_count;
    struct tcp_net trusted[TRUSTED_MAX];
    struct tcp_net balancers[TRUSTED_MAX];
    struct tls_pair pair;
    struct auth_backend_config backend;
    struct auth_config auth;
    struct mailauth_config mailauth;
    struct mailauth_key dkim_key;
    struct milter_config milter;
    struct policy_config policy;
    const char *client_ca;
    const char *listen, *store, *postmaster, *verdict;
    uint64_t credit, answer_ms, loops;
    bool welcome;
} options = {
    .inbound = {.hostname = "mx.example.net",
                .name = "mx",
                .trusted = options.trusted,
                .balancers = options.balancers,
                .listener_count = 1,
                .listeners = {{.extensions = SERVER_EXT_BASIC, .sign = true}},
                .release_max_ms = 7u * 86400000u,
                .limits = {.message_size = 50u << 20,
                           .recipients = 1000,
                           .connections = 10000,
                           .connections_per_client = 100,
                           .received_headers = 50,
                           .commands_bad = 20,
                           .memory = 64u << 20,
                           .idle_ms = 300000}},
    .auth = {.hostname = "mx.example.net",
             .fail_delay_ms = 1,
             .client_failures = 1000,
             .account_failures = 1000,
             .failure_window_ms = 60000},
    .listen = "127.0.0.1:0",
    .postmaster = "postmaster@example.net",
    .verdict = "stored",
    .credit = 16u << 20,
    .loops = 1,
    .welcome = true,
};

/* -- options -- */

static void usage(const char *what) {
    fprintf(stderr, "smtp_front: %s\n", what);
    exit(2);
}

static void take_domain(char *text) {
    if (options.domain_count == DOMAINS_MAX)
        usage("too many domains");
    struct recipients_domain_config *d = &options.domains[options.domain_count++];
    char *colon = strchr(text, ':');
    d->name = text;
    d->directory = RECIPIENTS_ANY;
    if (!colon)
        return;
    *colon = '\0';
    if (strncmp(colon + 1, "table:", 6) == 0) {
        d->directory = RECIPIENTS_TABLE;
        d->table = colon + 7;
    } else if (strcmp(colon + 1, "any") != 0) {
        usage("domain=NAME:any or domain=NAME:table:FILE");
    }
}

static void take_trusted(const char *text) {
    size_t n = options.inbound.trusted_count++;
    if (n >= TRUSTED_MAX || tcp_net_parse(&options.trusted[n], span_of(text)) != ERR_OK)
        usage("bad trusted network");
}

static uint64_t number(const char *text) {
    uint64_t n;
    if (units_size(span_of(text), &n) != ERR_OK)
        usage("bad number");
    return n;
}

static void take_balancer(const char *text) {
    size_t n = options.inbound.balancer_count++;
    if (n >= TRUSTED_MAX || tcp_net_parse(&options.balancers[n], span_of(text)) != ERR_OK)
        usage("bad balancer network");
}

static uint32_t extension(const char *name) {
    static const struct {
        const char *name;
        uint32_t bit;
    } all[] = {{"REQUIRETLS", SERVER_EXT_REQUIRETLS}, {"MT-PRIORITY", SERVER_EXT_MT_PRIORITY},
               {"DELIVERBY", SERVER_EXT_DELIVERBY},   {"FUTURERELEASE", SERVER_EXT_FUTURERELEASE},
               {"CHUNKING", SERVER_EXT_CHUNKING},     {"DSN", SERVER_EXT_DSN},
               {"SMTPUTF8", SERVER_EXT_SMTPUTF8},     {"LIMITS", SERVER_EXT_LIMITS},
               {"PIPELINING", SERVER_EXT_PIPELINING}, {"SIZE", SERVER_EXT_SIZE},
               {"8BITMIME", SERVER_EXT_8BITMIME}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!strcmp(all[i].name, name))
            return all[i].bit;
    }
    usage("unknown extension");
    return 0;
}

static int word(const char *value, const char *const *words) {
    for (int i = 0; words[i]; i++) {
        if (!strcmp(words[i], value))
            return i;
    }
    usage("unknown word");
    return 0;
}

/* What the one listener offers. False: no such key. */
static bool take_listener(const char *key, char *value) {
    static const char *const tls[] = {"off", "offered", "required", "implicit", NULL};
    static const char *const auth[] = {"off", "offered", "required", NULL};
    struct inbound_listener *l = &options.inbound.listeners[0];
    bool on = !strcmp(value, "true");
    if (!strcmp(key, "tls"))
        l->tls = (enum inbound_tls)word(value, tls);
    else if (!strcmp(key, "auth"))
        l->auth = (enum inbound_auth)word(value, auth);
    else if (!strcmp(key, "with"))
        l->extensions |= extension(value);
    else if (!strcmp(key, "without"))
        l->extensions &= ~extension(value);
    else if (!strcmp(key, "submission"))
        l->submission = on;
    else if (!strcmp(key, "sender_login"))
        l->sender_login = on;
    else if (!strcmp(key, "hide_client"))
        l->hide_client = on;
    else if (!strcmp(key, "client_certificate"))
        l->client_certificate = on;
    else if (!strcmp(key, "proxy"))
        l->proxy = on;
    else
        return false;
    return true;
}

/* tls_pair=CERT:KEY, auth_file=FILE, milter=ADDRESS:PORT, ... False: no such key. */
static bool take_part(const char *key, char *value) {
    struct inbound_settings *s = &options.inbound;
    char *colon = strchr(value, ':');
    if (!strcmp(key, "tls_pair") && colon) {
        *colon = '\0';
        options.pair = (struct tls_pair){value, colon + 1};
    } else if (!strcmp(key, "client_ca")) {
        options.client_ca = value;
    } else if (!strcmp(key, "auth_file")) {
        options.backend = (struct auth_backend_config){.kind = AUTH_FILE, .name = "file", .file = value};
        options.auth.backends = &options.backend;
        options.auth.count = 1;
    } else if (!strcmp(key, "sender_login_file")) {
        options.auth.sender_login = value;
    } else if (!strcmp(key, "milter")) {
        options.milter.name = "test";
        if (tcp_addr_parse_port(&options.milter.address, span_of(value)) != ERR_OK)
            usage("milter=ADDRESS:PORT");
        s->milters = &options.milter;
        s->milter_count = 1;
    } else if (!strcmp(key, "policy")) {
        options.policy = (struct policy_config){.name = "test", .stage = CHECK_RCPT};
        if (tcp_addr_parse_port(&options.policy.address, span_of(value)) != ERR_OK)
            usage("policy=ADDRESS:PORT");
        s->policies = &options.policy;
        s->policy_count = 1;
    } else if (!strcmp(key, "greylist_ms")) {
        s->guard.greylist_mode = GUARD_ENFORCE;
        s->guard.grey_delay_ms = strtoull(value, NULL, 10);
    } else if (!strcmp(key, "messages_per_client")) {
        s->guard.rate_mode = GUARD_ENFORCE;
        s->guard.per_client.messages = strtoull(value, NULL, 10);
    } else if (!strcmp(key, "slow_after_errors")) {
        s->guard.slow_mode = GUARD_ENFORCE;
        s->guard.slow_ms = 100;
        s->guard.slow_after_errors = (uint32_t)strtoul(value, NULL, 10);
    } else {
        return false;
    }
    return true;
}

static void take_word(const char *key, char *value) {
    struct inbound_settings *s = &options.inbound;
    if (take_listener(key, value) || take_part(key, value))
        return;
    if (!strcmp(key, "bare_newline"))
        s->bare_newline = strcmp(value, "normalize") ? INBOUND_BARE_REJECT : INBOUND_BARE_NORMALIZE;
    else if (!strcmp(key, "pregreet"))
        s->pregreet = !strcmp(value, "refuse") ? INBOUND_PREGREET_REFUSE
                      : !strcmp(value, "log")  ? INBOUND_PREGREET_LOG
                                               : INBOUND_PREGREET_OFF;
    else if (!strcmp(key, "vrfy"))
        s->vrfy = !strcmp(value, "true");
    else if (!strcmp(key, "welcome"))
        options.welcome = !strcmp(value, "true");
    else
        usage(key);
}

static void take_option(char *text) {
    struct inbound_limits *l = &options.inbound.limits;
    const struct {
        const char *key;
        uint64_t *wide;
        uint32_t *narrow;
        const char **text;
    } keys[] = {
        {"message_size", &l->message_size, NULL, NULL},
        {"memory", &l->memory, NULL, NULL},
        {"idle_ms", &l->idle_ms, NULL, NULL},
        {"pregreet_ms", &options.inbound.pregreet_ms, NULL, NULL},
        {"credit", &options.credit, NULL, NULL},
        {"answer_ms", &options.answer_ms, NULL, NULL},
        {"loops", &options.loops, NULL, NULL},
        {"recipients", NULL, &l->recipients, NULL},
        {"connections", NULL, &l->connections, NULL},
        {"connections_per_client", NULL, &l->connections_per_client, NULL},
        {"received_headers", NULL, &l->received_headers, NULL},
        {"commands_bad", NULL, &l->commands_bad, NULL},
        {"deliverby_min_s", NULL, &options.inbound.deliverby_min_s, NULL},
        {"auth_fail_delay_ms", &options.auth.fail_delay_ms, NULL, NULL},
        {"auth_client_failures", NULL, &options.auth.client_failures, NULL},
        {"auth_account_failures", NULL, &options.auth.account_failures, NULL},
        {"hostname", NULL, NULL, &options.inbound.hostname},
        {"listen", NULL, NULL, &options.listen},
        {"store", NULL, NULL, &options.store},
        {"postmaster", NULL, NULL, &options.postmaster},
        {"verdict", NULL, NULL, &options.verdict},
        {"spool", NULL, NULL, &options.inbound.spool},
    };
    char *value = strchr(text, '=');
    if (!value)
        usage(text);
    *value++ = '\0';
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i].key, text))
            continue;
        if (keys[i].wide)
            *keys[i].wide = number(value);
        else if (keys[i].narrow)
            *keys[i].narrow = (uint32_t)number(value);
        else
            *keys[i].text = value;
        return;
    }
    if (!strcmp(text, "domain"))
        take_domain(value);
    else if (!strcmp(text, "trusted"))
        take_trusted(value);
    else if (!strcmp(text, "balancer"))
        take_balancer(value);
    else
        take_word(text, value);
}

/* -- the scheduler that is played -- */

struct staged { /* chunks of one submission */
    struct list_node link;
    uint8_t id[16];
    uint32_t chunks;
    bool odd; /* the last chunk was not whole: nothing may follow */
    struct buf body;
};
struct slow { /* an answer that waits */
    struct list_node link;
    char peer[BUS_PEER_MAX];
    size_t peer_len;
    uint64_t correlation, credit, due_ms, message;
};
static struct {
    struct loop *loop;
    struct bus_hub *hub;
    struct loop_timer *timer;
    struct list staged, slow;
    struct buf scratch;
    struct arena mem;
    uint64_t stored, lent;
} play;

static void breach(const char *what) {
    fprintf(stderr, "smtp_front: contract broken: %s\n", what);
    exit(3);
}

static void send_answer(struct span peer, uint64_t correlation, uint32_t verdict, uint64_t message, uint64_t credit) {
    Words__Answer a = WORDS__ANSWER__INIT;
    a.verdict = verdict;
    a.has_message = verdict == VERDICT_STORED;
    a.message = message;
    a.credit = credit;
    play.lent -= credit;
    int err = frame_send_hub(play.hub, peer, FRAME_ANSWER, correlation, 0, &a.base, NULL, &play.scratch);
    if (err)
        fprintf(stderr, "smtp_front: answer: %s\n", err_text(err));
}

static void on_slow(void *arg) {
    struct list_node *node;
    (void)arg;
    while ((node = list_first(&play.slow))) {
        struct slow *k = LIST_ENTRY(node, struct slow, link);
        if (k->due_ms > loop_now_ms(play.loop)) {
            loop_timer_set(play.timer, k->due_ms - loop_now_ms(play.loop));
            return;
        }
        list_remove(&play.slow, node);
        send_answer(span_make(k->peer, k->peer_len), k->correlation, VERDICT_STORED, k->message, k->credit);
        free(k);
    }
}

static void answer_later(struct span peer, uint64_t correlation, uint64_t message, uint64_t credit) {
    struct slow *k = calloc(1, sizeof *k);
    CHECK(k && play.slow.count < SLOW_MAX);
    k->peer_len = span_copy(peer, k->peer, sizeof k->peer);
    k->correlation = correlation;
    k->credit = credit;
    k->message = message;
    k->due_ms = loop_now_ms(play.loop) + options.answer_ms;
    list_push_back(&play.slow, &k->link);
    if (play.slow.count == 1)
        loop_timer_set(play.timer, options.answer_ms);
}

static struct staged *find_staged(const uint8_t *id) {
    LIST_FOREACH(node, next, &play.staged) {
        struct staged *g = LIST_ENTRY(node, struct staged, link);
        if (memcmp(g->id, id, sizeof g->id) == 0)
            return g;
    }
    return NULL;
}

static void drop_staged(struct staged *g) {
    list_remove(&play.staged, &g->link);
    buf_deinit(&g->body);
    free(g);
}

static void write_recipient(FILE *f, const Words__Recipient *r) {
    fprintf(f, "rcpt: %.*s destination=%.*s local=%d", SPAN_FMT(frame_span(r->address)),
            SPAN_FMT(frame_span(r->destination)), r->local);
    if (r->has_original)
        fprintf(f, " original=%.*s", SPAN_FMT(frame_span(r->original)));
    if (r->has_orcpt)
        fprintf(f, " orcpt=%.*s", SPAN_FMT(frame_span(r->orcpt)));
    if (r->has_notify)
        fprintf(f, " notify=%u", r->notify);
    fputc('\n', f);
}

/* What only some listeners offer. Times as seconds from the acceptance. */
static void write_wishes(FILE *f, const Words__Envelope *e) {
    int64_t from = (int64_t)e->received_ms;
    fprintf(f, "client: %.*s\n", SPAN_FMT(frame_span(e->client)));
    if (e->has_account)
        fprintf(f, "account: %.*s\n", SPAN_FMT(frame_span(e->account)));
    if (e->requiretls)
        fputs("requiretls\n", f);
    if (e->has_mt_priority)
        fprintf(f, "mt_priority: %d class %u\n", (int)e->mt_priority, e->priority);
    if (e->has_deliver_by_ms)
        fprintf(f, "by: %lld%s%s\n", (long long)(((int64_t)e->deliver_by_ms - from) / 1000),
                e->deliver_by_notify ? " N" : " R", e->deliver_by_trace ? "T" : "");
    if (e->has_release_ms)
        fprintf(f, "release: %lld\n", (long long)(((int64_t)e->release_ms - from) / 1000));
}

static void write_message(const Words__Envelope *e, struct span body) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%06llu", options.store, (unsigned long long)play.stored);
    FILE *f = fopen(path, "w");
    if (!f)
        usage(strerror(errno));
    fprintf(f, "sender: %.*s\nsize: %llu\nprotocol: %.*s\nhelo: ", SPAN_FMT(frame_span(e->sender)),
            (unsigned long long)e->size, SPAN_FMT(frame_span(e->protocol)));
    fwrite(e->helo.data, 1, e->helo.len, f);
    fprintf(f, "\neight_bit: %d\nsmtputf8: %d\nret: %u\nenvid: %.*s\n", e->eight_bit, e->smtputf8, e->ret,
            SPAN_FMT(frame_span(e->envid)));
    write_wishes(f, e);
    for (size_t i = 0; i < e->n_recipients; i++)
        write_recipient(f, e->recipients[i]);
    fputs("\n", f);
    fwrite(body.at, 1, body.len, f);
    fclose(f);
}

static uint32_t verdict_word(void) {
    static const char *const words[] = {"stored", "tempfail", "no_space", "refused"};
    for (uint32_t i = 0; i < 4; i++) {
        if (!strcmp(options.verdict, words[i]))
            return i;
    }
    return UINT32_MAX; /* silent */
}

static void check_submit(const Words__Submit *m, const struct staged *g, struct span body) {
    const Words__Envelope *e = m->envelope;
    if (e->n_recipients == 0 || e->size != body.len || e->checksum != hash_checksum(body.at, body.len))
        breach("envelope does not fit its body");
    if (m->chunked != (g != NULL) || (g && g->chunks < 2))
        breach("chunked");
}

static void on_submit(struct span peer, const struct frame *f) {
    const Words__Submit *m = frame_unpack(&words__submit__descriptor, f->meta, &play.mem);
    if (!m || m->submission.len != 16)
        breach("malformed submit");
    uint64_t cost = FRAME_COST(f->meta.len, bus_bytes_span(f->body).len);
    struct staged *g = m->chunked ? find_staged(m->submission.data) : NULL;
    struct span body = g ? buf_span(&g->body) : bus_bytes_span(f->body);
    uint32_t verdict = verdict_word();
    check_submit(m, g, body);
    play.stored += verdict == VERDICT_STORED;
    if (verdict == VERDICT_STORED && options.store)
        write_message(m->envelope, body);
    if (g)
        drop_staged(g);
    if (verdict == UINT32_MAX)
        return;
    if (options.answer_ms && verdict == VERDICT_STORED)
        answer_later(peer, f->correlation, play.stored, cost);
    else
        send_answer(peer, f->correlation, verdict, play.stored, cost);
}

static void on_chunk(struct span peer, const struct frame *f) {
    const Words__Chunk *m = frame_unpack(&words__chunk__descriptor, f->meta, &play.mem);
    struct span octets = bus_bytes_span(f->body);
    if (!m || m->submission.len != 16)
        breach("malformed chunk");
    struct staged *g = find_staged(m->submission.data);
    if (!g) {
        g = calloc(1, sizeof *g);
        CHECK(g);
        memcpy(g->id, m->submission.data, 16);
        buf_init(&g->body, 256u << 20);
        list_push_back(&play.staged, &g->link);
    }
    if (m->number != g->chunks++ || g->odd || octets.len == 0 || octets.len > FRAME_BODY_MAX)
        breach("chunk out of order or of a wrong size");
    g->odd = octets.len < FRAME_BODY_MAX;
    CHECK(buf_add(&g->body, octets) == ERR_OK);
    Words__Credit c = WORDS__CREDIT__INIT;
    c.bytes = FRAME_COST(f->meta.len, octets.len);
    play.lent -= c.bytes;
    (void)!frame_send_hub(play.hub, peer, FRAME_CREDIT, 0, 0, &c.base, NULL, &play.scratch);
}

static void on_abort(const struct frame *f) {
    const Words__Abort *m = frame_unpack(&words__abort__descriptor, f->meta, &play.mem);
    struct staged *g = m && m->submission.len == 16 ? find_staged(m->submission.data) : NULL;
    if (!g)
        breach("abort of what is not there");
    drop_staged(g);
}

static void on_message(void *arg, struct span peer, const struct bus_message *message) {
    struct frame f;
    (void)arg;
    if (frame_read(&f, message) != ERR_OK)
        breach("malformed frame");
    if (f.kind == FRAME_HELLO && options.welcome) {
        Words__Welcome w = WORDS__WELCOME__INIT;
        w.epoch = 1;
        w.credit = options.credit;
        (void)!frame_send_hub(play.hub, peer, FRAME_WELCOME, 0, 0, &w.base, NULL, &play.scratch);
    }
    if (f.kind == FRAME_SUBMIT || f.kind == FRAME_CHUNK) {
        uint64_t cost = FRAME_COST(f.meta.len, bus_bytes_span(f.body).len);
        if (play.lent && play.lent + cost > options.credit * options.loops)
            breach("over the credit");
        play.lent += cost;
    }
    if (f.kind == FRAME_SUBMIT)
        on_submit(peer, &f);
    else if (f.kind == FRAME_CHUNK)
        on_chunk(peer, &f);
    else if (f.kind == FRAME_ABORT)
        on_abort(&f);
    arena_reset(&play.mem);
}

/* -- life -- */

enum { READY_POLL_MS = 5 };
static struct loop_wake *drained_wake;
static struct inbound *inbound;
static struct loop_timer *ready;
static uint16_t port;

/* Whoever waits for this line may then send mail at once. */
static void announce(void *arg) {
    (void)arg;
    if (options.welcome && !inbound_is_ready(inbound)) {
        loop_timer_set(ready, READY_POLL_MS);
        return;
    }
    printf("port %u\n", port);
    fflush(stdout);
}

static void on_drained(void *arg) {
    (void)arg;
    loop_wake_send(drained_wake);
}

static void on_all_gone(void *arg) {
    (void)arg;
    loop_stop(play.loop);
}

static void on_term(void *arg, int signum) {
    (void)arg;
    (void)signum;
    inbound_drain(inbound, 10000, on_drained, NULL);
}

static uint16_t bound_port(int fd) {
    struct tcp_addr a = {.len = sizeof a.storage};
    CHECK(getsockname(fd, (struct sockaddr *)&a.storage, &a.len) == 0);
    return tcp_addr_port(&a);
}

static void make_parts(struct inbound_parts *parts) {
    struct buf problems;
    struct tls_server_config tls = {.pairs = &options.pair,
                                    .count = 1,
                                    .profile = "intermediate",
                                    .client_ca = options.client_ca,
                                    .ask_client = options.client_ca != NULL};
    buf_init(&problems, 65536);
    if (options.pair.certificate && tls_server_new(&parts->tls, &tls, &problems) != ERR_OK)
        usage(buf_cstr(&problems));
    if (options.auth.count && auth_new(&parts->auth, &options.auth, &problems) != ERR_OK)
        usage(buf_cstr(&problems));
    buf_deinit(&problems);
}

static void start_inbound(struct bus *bus) {
    struct recipients_config rc = {.domains = options.domains,
                                   .count = options.domain_count,
                                   .postmaster = options.postmaster,
                                   .hostname = options.inbound.hostname};
    struct recipients *recipients;
    struct buf problems;
    struct tcp_addr address;
    int(*fds)[16] = calloc(options.loops, sizeof *fds);
    CHECK(fds);
    buf_init(&problems, 65536);
    if (recipients_new(&recipients, &rc, &problems) != ERR_OK)
        usage(buf_cstr(&problems));
    buf_deinit(&problems);
    if (tcp_addr_parse_port(&address, span_of(options.listen)) != ERR_OK)
        usage("bad listen address");
    for (uint64_t i = 0; i < options.loops; i++) {
        fds[i][0] = tcp_bind(&address, true);
        if (fds[i][0] < 0)
            usage("cannot bind");
        if (tcp_addr_port(&address) == 0) { /* the other loops take the port of the first */
            struct sockaddr_in *in = (struct sockaddr_in *)&address.storage;
            in->sin_port = htons(bound_port(fds[i][0]));
        }
    }
    struct inbound_config c = {
        .bus = bus, .scheduler = HUB, .loops = (uint32_t)options.loops, .fds = (const int(*)[16])fds, .listeners = 1};
    struct inbound_parts parts = {.recipients = recipients};
    make_parts(&parts);
    CHECK(inbound_start(&inbound, &c, &options.inbound, &parts) == ERR_OK);
    recipients_unref(recipients);
    if (parts.tls)
        tls_server_unref(parts.tls);
    if (parts.auth)
        auth_unref(parts.auth);
    port = tcp_addr_port(&address);
    announce(NULL);
    free(fds);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        take_option(argv[i]);
    struct bus *bus = bus_new(1);
    play.loop = loop_new();
    CHECK(bus && play.loop && options.loops >= 1 && options.loops <= 64);
    list_init(&play.staged);
    list_init(&play.slow);
    buf_init(&play.scratch, FRAME_META_MAX);
    arena_init(&play.mem, 65536, 16u << 20);
    play.timer = loop_timer_new(play.loop, on_slow, NULL);
    ready = loop_timer_new(play.loop, announce, NULL);
    drained_wake = loop_wake_new(play.loop, on_all_gone, NULL);
    struct loop_signal *term = loop_signal_new(play.loop, SIGTERM, on_term, NULL);
    CHECK(play.timer && ready && drained_wake && term);
    CHECK(bus_hub_open(&play.hub, bus, play.loop, HUB, FRAME_PART_MAX, 64u << 20, on_message, NULL) == ERR_OK);
    start_inbound(bus);
    loop_run(play.loop);
    inbound_stop(inbound);
    while (!list_is_empty(&play.staged))
        drop_staged(LIST_ENTRY(list_first(&play.staged), struct staged, link));
    while (!list_is_empty(&play.slow))
        free(LIST_ENTRY(list_pop_front(&play.slow), struct slow, link));
    bus_hub_close(play.hub);
    loop_free(play.loop);
    bus_free(bus);
    buf_deinit(&play.scratch);
    arena_deinit(&play.mem);
    return 0;
}
