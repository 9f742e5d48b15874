/*
 * guard: life of the room (making, reloading, the file of greylisting), and the verdicts that need nobody's answer:
 * greylisting, slow answers, kept slots. dnslist.c asks the DNS, rates.c counts.
 *
 * All tables live as long as guard; a reload changes the rules and the bounds. Disk work runs on one helper thread.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#include "gateway/guard/guard_inner.h"
#include "gateway/guard/rates.h"

enum { WRITE_EVERY_MS = 5 * 60 * 1000, GREY_V4_BITS = 24, GREY_V6_BITS = 64 };
#define GOOD_MS (7ull * 24 * 3600 * 1000)
#define NETWORK_SEED 0x6e6574776f726b21ull /* part of the format of grey_file */

#define VERDICTS(var, reason)                                                                                          \
    METRIC_COUNTER_L(var##_enforced, "posthouse_guard_verdicts_total", "reason=\"" reason "\",action=\"enforced\"",    \
                     "Clients, messages and recipients that guard held off, or would have.");                          \
    METRIC_COUNTER_L(var##_logged, "posthouse_guard_verdicts_total", "reason=\"" reason "\",action=\"logged\"",        \
                     "Clients, messages and recipients that guard held off, or would have.")
VERDICTS(by_dnslist, "dnslist");
VERDICTS(by_client_rate, "client_rate");
VERDICTS(by_account_rate, "account_rate");
VERDICTS(by_greylist, "greylist");
VERDICTS(by_slow, "slow");
VERDICTS(by_slot, "slot");
METRIC_GAUGE(rate_entries, "posthouse_guard_rate_entries", "Networks and accounts whose rates are remembered.");
METRIC_GAUGE(grey_entries, "posthouse_guard_greylist_entries", "Triplets and networks that greylisting remembers.");
METRIC_GAUGE(good_entries, "posthouse_guard_good_entries", "Networks remembered as good.");
METRIC_COUNTER(file_failures, "posthouse_guard_greylist_file_failures_total",
               "Times that the file of greylisting could not be read or written.");

void guard_tally(enum guard_reason reason, bool enforced) {
    static struct metric *const all[GUARD_REASONS][2] = {
        {&by_dnslist_logged, &by_dnslist_enforced},
        {&by_client_rate_logged, &by_client_rate_enforced},
        {&by_account_rate_logged, &by_account_rate_enforced},
        {&by_greylist_logged, &by_greylist_enforced},
        {&by_slow_logged, &by_slow_enforced},
        {&by_slot_logged, &by_slot_enforced},
    };
    metric_add(all[reason][enforced], 1);
}

const char *guard_action(enum guard_mode mode) {
    return mode == GUARD_ENFORCE ? "refused" : "would refuse";
}

/* -- the file -- */

struct file_job {
    struct pool_job job;
    struct guard *guard;
    bool read;
    char path[];
};

static void tell_failure(const char *event, const char *path, int err) {
    metric_add(&file_failures, 1);
    /* events: greylist_file_ignored, greylist_file_not_written */
    LOG_ERROR(event, LOG_STR("file", path), LOG_ERR("why", err));
}

static void read_file(struct guard *g, const char *path) {
    int err = greylist_read(g->grey, path);
    if (err && err != ERR_NOT_FOUND)
        tell_failure("greylist_file_ignored", path, err);
}

static void write_file(struct guard *g, const char *path) {
    int err = greylist_write(g->grey, path);
    if (err)
        tell_failure("greylist_file_not_written", path, err);
}

static void run_file_job(struct pool_job *job, void *state) {
    struct file_job *j = CONTAINER_OF(job, struct file_job, job);
    (void)state;
    if (j->read) {
        read_file(j->guard, j->path);
    } else {
        write_file(j->guard, j->path);
        atomic_store(&j->guard->writing, false);
    }
    free(j);
}

/* False: it was not taken. */
static bool send_file_job(struct guard *g, const char *path, bool read) {
    size_t len = strlen(path) + 1;
    struct file_job *j = calloc(1, sizeof *j + len);
    if (!j)
        return false;
    *j = (struct file_job){.job = {.run = run_file_job}, .guard = g, .read = read};
    memcpy(j->path, path, len);
    if (pool_send(g->pool, &j->job) == ERR_OK)
        return true;
    free(j);
    return false;
}

/* -- life -- */

static size_t account_share(const struct guard_config *c) {
    return c->rate_entries / 4;
}

static int make_tables(struct guard *g, const struct guard_config *c) {
    static const struct pool_config pool = {.threads = 1, .waiting = 4, .name = "greylist"};
    size_t accounts = account_share(c);
    int err = shelf_new(&g->clients, c->rate_entries - accounts, sizeof(struct rate_cell));
    if (!err)
        err = shelf_new(&g->accounts, accounts, sizeof(struct rate_cell));
    if (!err)
        err = shelf_new(&g->good, c->good_entries, sizeof(uint64_t));
    if (!err)
        err = greylist_new(&g->grey, c->grey_entries);
    return err ? err : pool_new(&g->pool, &pool);
}

static bool has_limit(const struct guard_rate *r) {
    return r->connections || r->messages || r->recipients || r->octets;
}

/* What is on, as atomics: those who ask for what is off need no lock. */
static void publish(struct guard *g, const struct guard_config *c) {
    unsigned on = 0;
    if (c->dnslist_mode != GUARD_OFF && c->dnslist_count)
        on |= GUARD_ON_LISTS;
    if (c->names)
        on |= GUARD_ON_NAMES;
    if (c->rate_mode != GUARD_OFF && (has_limit(&c->per_client) || has_limit(&c->per_account)))
        on |= GUARD_ON_RATES;
    if (c->greylist_mode != GUARD_OFF)
        on |= GUARD_ON_GREY;
    atomic_store(&g->slow_mode, (unsigned)c->slow_mode);
    atomic_store(&g->slow_after, c->slow_after_errors);
    atomic_store(&g->slow_ms, c->slow_ms);
    atomic_store(&g->on, on);
}

/* With the lock. The file that is to be read, if it was not the last one that was; remembers it. */
static bool is_new_file(struct guard *g, const struct guard_config *c) {
    if (c->greylist_mode == GUARD_OFF || !c->grey_file || (g->grey_path && strcmp(g->grey_path, c->grey_file) == 0))
        return false;
    char *copy = strdup(c->grey_file);
    if (!copy)
        return false;
    free(g->grey_path);
    g->grey_path = copy;
    return true;
}

int guard_new(struct guard **to, const struct guard_config *c) {
    struct guard *g = calloc(1, sizeof *g);
    int err;
    if (!g)
        return ERR_NOMEM;
    if (pthread_mutex_init(&g->lock, NULL)) {
        free(g);
        return ERR_NOMEM;
    }
    g->rules = guard_rules_new(c, &err);
    if (!err)
        err = make_tables(g, &g->rules->c);
    if (err) {
        guard_free(g);
        return err;
    }
    publish(g, &g->rules->c);
    if (is_new_file(g, &g->rules->c))
        read_file(g, g->grey_path);
    *to = g;
    return ERR_OK;
}

int guard_reconfigure(struct guard *g, const struct guard_config *c) {
    int err;
    struct guard_rules *fresh = guard_rules_new(c, &err);
    if (!fresh)
        return err;
    pthread_mutex_lock(&g->lock);
    struct guard_rules *old = g->rules;
    g->rules = fresh;
    publish(g, &fresh->c);
    shelf_set_most(g->clients, fresh->c.rate_entries - account_share(&fresh->c));
    shelf_set_most(g->accounts, account_share(&fresh->c));
    shelf_set_most(g->good, fresh->c.good_entries);
    greylist_set_most(g->grey, fresh->c.grey_entries);
    if (is_new_file(g, &fresh->c) && !send_file_job(g, g->grey_path, true))
        tell_failure("greylist_file_ignored", g->grey_path, ERR_NOMEM);
    pthread_mutex_unlock(&g->lock);
    guard_rules_release(old);
    return ERR_OK;
}

void guard_free(struct guard *g) {
    if (!g)
        return;
    pool_free(g->pool);
    const struct guard_config *c = g->rules ? &g->rules->c : NULL;
    if (g->grey && c->greylist_mode != GUARD_OFF && c->grey_file && greylist_is_changed(g->grey))
        write_file(g, c->grey_file);
    greylist_free(g->grey);
    shelf_free(g->clients);
    shelf_free(g->accounts);
    shelf_free(g->good);
    if (g->rules)
        guard_rules_release(g->rules);
    free(g->grey_path);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

void guard_tick(struct guard *g, uint64_t now_ms) {
    metric_set(&rate_entries, shelf_count(g->clients) + shelf_count(g->accounts));
    metric_set(&grey_entries, greylist_count(g->grey));
    metric_set(&good_entries, shelf_count(g->good));
    if (g->write_next_ms == 0)
        g->write_next_ms = now_ms + WRITE_EVERY_MS;
    if (now_ms < g->write_next_ms)
        return;
    g->write_next_ms = now_ms + WRITE_EVERY_MS;
    struct guard_rules *r = guard_rules_take(g);
    bool wanted = r->c.greylist_mode != GUARD_OFF && r->c.grey_file && greylist_is_changed(g->grey);
    if (wanted && !atomic_exchange(&g->writing, true) && !send_file_job(g, r->c.grey_file, false))
        atomic_store(&g->writing, false); /* at the next time */
    guard_rules_release(r);
}

/* -- verdicts -- */

bool guard_network(const struct tcp_addr *client, unsigned v4_bits, unsigned v6_bits, struct shelf_key *to) {
    uint8_t ip[17] = {0}; /* the last: bits of the network, so that a /24 is not its own first /32 */
    if (client->storage.ss_family == AF_INET) {
        ip[10] = ip[11] = 0xff;
        memcpy(ip + 12, &((const struct sockaddr_in *)&client->storage)->sin_addr, 4);
    } else if (client->storage.ss_family == AF_INET6) {
        memcpy(ip, &((const struct sockaddr_in6 *)&client->storage)->sin6_addr, 16);
    } else {
        return false;
    }
    unsigned bits = tcp_addr_is_v6(client) ? v6_bits : 96 + v4_bits;
    for (unsigned i = bits / 8; i < 16; i++)
        ip[i] = i == bits / 8 ? (uint8_t)(ip[i] & ~(0xff >> bits % 8)) : 0;
    ip[16] = (uint8_t)bits;
    *to = shelf_key_of(ip, sizeof ip, NETWORK_SEED);
    return true;
}

static void defer(const struct guard_rules *r, const struct check_facts *f, enum greylist_answer answer,
                  uint64_t wait_ms, struct check_verdict *v) {
    bool enforce = r->c.greylist_mode == GUARD_ENFORCE;
    guard_tally(GUARD_BY_GREYLIST, enforce);
    LOG_INFO("greylisted", LOG_SPAN("id", f->id), LOG_SPAN("client", f->client_ip), LOG_SPAN("from", f->sender),
             LOG_SPAN("to", f->recipient), LOG_STR("why", answer == GREYLIST_NEW ? "first seen" : "too early"),
             LOG_U64("wait_ms", wait_ms), LOG_STR("action", guard_action(r->c.greylist_mode)));
    if (!enforce)
        return;
    v->action = CHECK_REFUSE;
    v->reply = (struct server_reply){451, SPAN("4.7.1"), SPAN("Greylisted, please try again in some minutes")};
    v->by = SPAN("greylist");
}

void guard_greylist(struct guard *g, const struct check_facts *f, const struct guard_client *gc, uint64_t wall_ms,
                    struct check_verdict *v) {
    struct shelf_key network;
    uint64_t wait_ms;
    *v = (struct check_verdict){.action = CHECK_PASS};
    if (!(atomic_load_explicit(&g->on, memory_order_relaxed) & GUARD_ON_GREY) || f->trusted || f->account.len ||
        gc->good || !guard_network(f->client, GREY_V4_BITS, GREY_V6_BITS, &network))
        return;
    struct guard_rules *r = guard_rules_take(g);
    struct greylist_times times = {r->c.grey_delay_ms, r->c.grey_retry_ms, r->c.grey_keep_ms};
    if (r->c.greylist_mode != GUARD_OFF) {
        enum greylist_answer answer =
            greylist_judge(g->grey, network, f->sender, f->recipient, &times, wall_ms, &wait_ms);
        if (answer == GREYLIST_NEW || answer == GREYLIST_EARLY)
            defer(r, f, answer, wait_ms, v);
    }
    guard_rules_release(r);
}

uint64_t guard_slow_ms(const struct guard *g, struct guard_client *gc, uint32_t errors) {
    unsigned mode = atomic_load_explicit(&g->slow_mode, memory_order_relaxed);
    bool by_errors = errors >= atomic_load_explicit(&g->slow_after, memory_order_relaxed);
    if (mode == GUARD_OFF || !(gc->slow || by_errors))
        return 0;
    if (!by_errors && gc->only_logged)
        mode = GUARD_LOG;
    bool *told = mode == GUARD_ENFORCE ? &gc->slow_told : &gc->slow_would_told;
    if (!*told) {
        *told = true;
        guard_tally(GUARD_BY_SLOW, mode == GUARD_ENFORCE);
        LOG_INFO("client_slowed", LOG_STR("client", gc->ip), LOG_STR("why", by_errors ? "errors" : "dnslist"),
                 LOG_U64("errors", errors), LOG_I64("score", gc->score),
                 LOG_STR("action", mode == GUARD_ENFORCE ? "slowed" : "would slow"));
    }
    return mode == GUARD_ENFORCE ? atomic_load_explicit(&g->slow_ms, memory_order_relaxed) : 0;
}

/* The key of the client in the table of good networks. */
static bool good_key(struct guard *g, const struct tcp_addr *client, struct shelf_key *k) {
    struct guard_rules *r = guard_rules_take(g);
    bool found = guard_network(client, r->c.v4_bits, r->c.v6_bits, k);
    guard_rules_release(r);
    return found;
}

void guard_praise(struct guard *g, const struct check_facts *f, uint64_t now_ms) {
    struct shelf_key k;
    if (f->trusted || !good_key(g, f->client, &k)) /* the trusted are let in anyway */
        return;
    uint64_t *until = shelf_enter(g->good, k, true);
    if (until)
        *until = now_ms + GOOD_MS;
    shelf_leave(g->good, k);
}

static bool is_good(struct guard *g, const struct tcp_addr *client, uint64_t now_ms) {
    struct shelf_key k;
    if (!good_key(g, client, &k))
        return false;
    const uint64_t *until = shelf_enter(g->good, k, false);
    bool good = until && now_ms < *until;
    shelf_leave(g->good, k);
    return good;
}

bool guard_may_enter(struct guard *g, const struct tcp_addr *client, bool trusted, uint32_t used, uint32_t max,
                     uint64_t now_ms) {
    struct guard_rules *r = guard_rules_take(g);
    uint64_t kept = (uint64_t)max * r->c.reserved_percent / 100;
    guard_rules_release(r);
    if (used >= max)
        return false;
    if (used < max - kept || trusted || is_good(g, client, now_ms))
        return true;
    guard_tally(GUARD_BY_SLOT, true);
    return false;
}
