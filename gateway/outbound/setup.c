/*
 * setup: defaults and the deep copy of the settings.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#include "gateway/outbound/rules.h"
#include "gateway/outbound/setup.h"

enum { SESSIONS_MAX = 10000 };

void outbound_defaults(struct outbound_settings *s) {
    enum { SECOND = 1000, MINUTE = 60 * SECOND };
    s->port = 25;
    s->connections = 1000;
    s->per_site = 20;
    s->messages_per_connection = 100;
    s->recipients_per_transaction = CLIENT_RCPT_DEFAULT;
    s->tls = (struct outbound_tls){.level = TLS_LEVEL_MAY, .route_level = TLS_LEVEL_MAY, .dane = true, .mta_sts = true};
    s->timeouts = (struct outbound_timeouts){
        .connect_ms = 30 * SECOND,
        .greeting_ms = 5 * MINUTE,
        .ehlo_ms = 5 * MINUTE,
        .mail_ms = 5 * MINUTE,
        .rcpt_ms = 5 * MINUTE,
        .data_ms = 2 * MINUTE,
        .block_ms = 3 * MINUTE,
        .dot_ms = 10 * MINUTE,
        .quit_ms = 5 * SECOND,
        .idle_ms = 1 * MINUTE,
    };
}

#define DEFAULT(to, from) ((to) = (to) ? (to) : (from))

static void fill_zeros(struct outbound_settings *s) {
    struct outbound_settings d = {0};
    outbound_defaults(&d);
    DEFAULT(s->port, d.port);
    DEFAULT(s->connections, d.connections);
    DEFAULT(s->per_site, d.per_site);
    DEFAULT(s->messages_per_connection, d.messages_per_connection);
    DEFAULT(s->recipients_per_transaction, d.recipients_per_transaction);
    struct outbound_timeouts *t = &s->timeouts;
    DEFAULT(t->connect_ms, d.timeouts.connect_ms);
    DEFAULT(t->greeting_ms, d.timeouts.greeting_ms);
    DEFAULT(t->ehlo_ms, d.timeouts.ehlo_ms);
    DEFAULT(t->mail_ms, d.timeouts.mail_ms);
    DEFAULT(t->rcpt_ms, d.timeouts.rcpt_ms);
    DEFAULT(t->data_ms, d.timeouts.data_ms);
    DEFAULT(t->block_ms, d.timeouts.block_ms);
    DEFAULT(t->dot_ms, d.timeouts.dot_ms);
    DEFAULT(t->quit_ms, d.timeouts.quit_ms);
    DEFAULT(t->idle_ms, d.timeouts.idle_ms);
}

/* A copy of text that may be NULL; false: no memory. */
static bool keep(struct arena *mem, const char **text) {
    if (!*text)
        return true;
    *text = arena_strdup(mem, *text);
    return *text != NULL;
}

static bool copy_names(struct setup *to) {
    struct outbound_settings *s = &to->s;
    const char **names = arena_calloc(&to->mem, s->own_name_count + 1, sizeof *names);
    struct tcp_addr *listen = arena_calloc(&to->mem, s->own_listen_count + 1, sizeof *listen);
    if (!names || !listen)
        return false;
    for (size_t i = 0; i < s->own_name_count; i++) {
        names[i] = s->own_names[i];
        if (!keep(&to->mem, &names[i]))
            return false;
    }
    if (s->own_listen_count)
        memcpy(listen, s->own_listen, s->own_listen_count * sizeof *listen);
    s->own_names = names;
    s->own_listen = listen;
    return keep(&to->mem, &s->hostname) && keep(&to->mem, &s->name) && keep(&to->mem, &s->dns);
}

static bool copy_texts(struct arena *mem, const char *const **texts, size_t count) {
    const char **copy = arena_calloc(mem, count + 1, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++) {
        copy[i] = (*texts)[i];
        if (!keep(mem, &copy[i]))
            return false;
    }
    *texts = copy;
    return copy != NULL;
}

static bool copy_tls(struct setup *to) {
    struct outbound_tls *t = &to->s.tls;
    struct outbound_tls_rule *rules = arena_calloc(&to->mem, t->rule_count + 1, sizeof *rules);
    for (size_t i = 0; rules && i < t->rule_count; i++) {
        rules[i] = t->rules[i];
        if (!keep(&to->mem, &rules[i].domain) || !copy_texts(&to->mem, &rules[i].names, rules[i].name_count) ||
            !copy_texts(&to->mem, &rules[i].fingerprints, rules[i].fingerprint_count))
            return false;
    }
    t->rules = rules;
    return rules && keep(&to->mem, &t->ca_file) && keep(&to->mem, &t->certificate) && keep(&to->mem, &t->key) &&
           keep(&to->mem, &t->sts_file) && keep(&to->mem, &t->sts_connect_to) &&
           keep(&to->mem, &t->reports.organization) && keep(&to->mem, &t->reports.contact) &&
           keep(&to->mem, &t->reports.from) && keep(&to->mem, &t->reports.file);
}

static bool copy_rates(struct setup *to) {
    struct outbound_settings *s = &to->s;
    struct outbound_rate *rates = arena_calloc(&to->mem, s->rate_count + 1, sizeof *rates);
    for (size_t i = 0; rates && i < s->rate_count; i++) {
        rates[i] = s->rates[i];
        if (!keep(&to->mem, &rates[i].site) || !keep(&to->mem, &rates[i].domain))
            return false;
    }
    s->rates = rates;
    return rates != NULL;
}

static bool copy_pool(struct arena *mem, struct outbound_pool *p) {
    struct outbound_source *sources = arena_calloc(mem, p->source_count + 1, sizeof *sources);
    for (size_t i = 0; sources && i < p->source_count; i++) {
        sources[i] = p->sources[i];
        if (!keep(mem, &sources[i].ehlo) || !keep(mem, &sources[i].egress.user) ||
            !keep(mem, &sources[i].egress.password))
            return false;
        char ip[128];
        tcp_addr_ip(&sources[i].address, ip, sizeof ip);
        if (sources[i].egress.kind == EGRESS_DIRECT && !tcp_addr_is_local(&sources[i].address))
            LOG_WARN("source_not_here", LOG_STR("pool", p->name), LOG_STR("address", ip));
    }
    p->sources = sources;
    return sources && keep(mem, &p->name) && copy_texts(mem, &p->senders, p->sender_count) &&
           copy_texts(mem, &p->accounts, p->account_count);
}

static bool copy_pools(struct setup *to) {
    struct outbound_settings *s = &to->s;
    struct outbound_pool *pools = arena_calloc(&to->mem, s->pool_count + 1, sizeof *pools);
    for (size_t i = 0; pools && i < s->pool_count; i++) {
        pools[i] = s->pools[i];
        if (!copy_pool(&to->mem, &pools[i]))
            return false;
    }
    s->pools = pools;
    return pools != NULL;
}

/* One context serves all levels: what a connection must show is a wish of its own. */
static bool make_tls(struct setup *to) {
    struct buf problems;
    const struct tls_client_config c = {.ca_file = to->s.tls.ca_file,
                                        .certificate = to->s.tls.certificate,
                                        .key = to->s.tls.key,
                                        .sessions_max = SESSIONS_MAX};
    buf_init(&problems, 4096);
    int err = tls_client_new(&to->tls, &c, &problems);
    if (err)
        LOG_ERROR("delivery_tls_refused", LOG_SPAN("why", buf_span(&problems)));
    buf_deinit(&problems);
    return err == ERR_OK;
}

struct setup *setup_new(const struct outbound_settings *s) {
    struct setup *to = calloc(1, sizeof *to);
    if (!to)
        return NULL;
    arena_init(&to->mem, 4096, 0);
    to->refs = 1;
    to->s = *s;
    to->s.hostname = s->hostname ? s->hostname : "localhost";
    to->s.name = s->name ? s->name : to->s.hostname;
    fill_zeros(&to->s);
    to->s.rules = rules_ref(s->rules);
    to->routes = routes_new(s->routes, s->route_count);
    if (!to->routes || !copy_names(to) || !copy_tls(to) || !copy_rates(to) || !copy_pools(to) || !make_tls(to)) {
        setup_free(to);
        return NULL;
    }
    to->s.routes = NULL; /* those of the caller; ours are in .routes */
    to->s.route_count = 0;
    to->mx = (struct mx_policy){
        .own_names = to->s.own_names,
        .own_name_count = to->s.own_name_count,
        .own_listen = to->s.own_listen,
        .own_listen_count = to->s.own_listen_count,
        .is_local = tcp_addr_is_local,
        .loopback_targets = to->s.loopback_targets,
        .prefer_ipv4 = to->s.prefer_ipv4,
        .port = to->s.port,
    };
    to->fixed = to->mx;
    to->fixed.loopback_targets = true;
    return to;
}

struct setup *setup_ref(struct setup *s) {
    s->refs++;
    return s;
}

void setup_free(struct setup *s) {
    if (!s || --s->refs > 0)
        return;
    rules_unref(s->s.rules);
    routes_free(s->routes);
    tls_client_unref(s->tls);
    arena_deinit(&s->mem);
    free(s);
}
