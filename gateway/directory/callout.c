/*
 * callout: the directory that asks the mailbox server itself, by RCPT TO. On a thread with a loop of its own; this file
 * finds the server's addresses and hands the questions that wait to connections: first to one that is idle, then to a
 * new one while fewer than `connections` are open. See callout.h for the other parts.
 */
#include <netinet/in.h>
#include <stdlib.h>

#include "base/check.h"

#include "gateway/directory/callout.h"

enum {
    CONNECTIONS_DEFAULT = 4,
    PORT_SMTP = 25,
    PORT_LMTP = 24,
    DNS_TIMEOUT_MS = 2000,
    DNS_TRIES = 2,
    TTL_MIN_S = 10,
    TTL_MAX_S = 300,
};

bool callout_needs_postmaster(const struct callout *c) {
    return loop_now_ms(c->run.loop) < c->postmaster_until_ms;
}

/* -- the server's addresses -- */

static void fail_waiting(struct callout *c, const char *why) {
    struct backend_question *q;
    struct buf text;
    buf_init(&text, 600);
    buf_printf(&text, "%s: no address: %s", c->host, why);
    while ((q = backend_loop_take(&c->run)))
        backend_fail(q, ERR_UNREACHABLE, buf_cstr(&text));
    buf_deinit(&text);
}

static void take_addresses(struct callout *c) {
    uint64_t now = loop_now_ms(c->run.loop);
    uint32_t ttl = c->fresh_ttl_s < TTL_MIN_S ? TTL_MIN_S : c->fresh_ttl_s > TTL_MAX_S ? TTL_MAX_S : c->fresh_ttl_s;
    if (c->fresh_count) {
        memcpy(c->addresses, c->fresh, sizeof c->addresses);
        c->address_count = c->fresh_count;
    } else if (c->address_count) {
        ttl = TTL_MIN_S; /* the old ones are better than none */
    } else {
        fail_waiting(c, c->lookup_why);
        return;
    }
    c->addresses_until_ms = now + ttl * 1000u;
    callout_pump(c);
}

static void add_address(struct callout *c, const struct dns_record *r, bool v6) {
    struct tcp_addr a = {0};
    if (c->fresh_count == CALLOUT_ADDRESSES)
        return;
    if (v6) {
        struct sockaddr_in6 *s = (struct sockaddr_in6 *)&a.storage;
        *s = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(c->port)};
        memcpy(&s->sin6_addr, r->addr, 16);
        a.len = sizeof *s;
    } else {
        struct sockaddr_in *s = (struct sockaddr_in *)&a.storage;
        *s = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(c->port)};
        memcpy(&s->sin_addr, r->addr, 4);
        a.len = sizeof *s;
    }
    c->fresh[c->fresh_count++] = a;
}

static void on_records(struct callout *c, const struct dns_answer *a, bool v6) {
    for (size_t i = 0; a->status == DNS_OK && i < a->count; i++)
        add_address(c, &a->records[i], v6);
    if (a->status == DNS_OK && a->ttl_s < c->fresh_ttl_s)
        c->fresh_ttl_s = a->ttl_s;
    if (a->status == DNS_TEMPFAIL || a->status == DNS_LOOP)
        c->lookup_why = a->why;
    if (--c->lookups == 0)
        take_addresses(c);
}

static void on_a(void *arg, const struct dns_answer *a) {
    on_records(arg, a, false);
}

static void on_aaaa(void *arg, const struct dns_answer *a) {
    on_records(arg, a, true);
}

static void look_up(struct callout *c) {
    c->lookups = 2;
    c->fresh_count = 0;
    c->fresh_ttl_s = TTL_MAX_S;
    c->lookup_why = "the name has none";
    dns_query(c->dns, c->host, DNS_AAAA, on_aaaa, c);
    dns_query(c->dns, c->host, DNS_A, on_a, c);
}

/* -- the questions -- */

void callout_pump(struct callout *c) {
    while (!list_is_empty(&c->run.waiting)) {
        if (callout_conn_reuse(c))
            continue;
        if (c->conns.count >= c->most || c->lookups)
            return;
        if (c->dns && loop_now_ms(c->run.loop) >= c->addresses_until_ms) {
            look_up(c);
            return;
        }
        if (!callout_conn_open(c))
            return;
    }
}

static void work(void *arg) {
    callout_pump(arg);
}

/* -- the backend -- */

static void callout_ask(struct backend *base, struct backend_question *q) {
    struct callout *c = CONTAINER_OF(base, struct callout, base);
    q->backend_data = NULL;
    backend_loop_ask(&c->run, q);
}

static void on_loop_end(void *arg) {
    struct callout *c = arg;
    callout_conns_close(c);
    if (c->dns) {
        dns_cancel(c->dns, c);
        dns_free(c->dns);
        c->dns = NULL;
    }
}

static void callout_free(struct callout *c) {
    if (c->dns)
        dns_free(c->dns);
    backend_loop_deinit(&c->run);
    callout_domains_free(c);
    free(c);
}

static void callout_close(struct backend *base) {
    struct callout *c = CONTAINER_OF(base, struct callout, base);
    backend_loop_stop(&c->run);
    callout_free(c);
}

static int add_fixed(struct callout *c, const struct tcp_addr *a) {
    c->addresses[0] = *a;
    c->address_count = 1;
    return ERR_OK;
}

static int set_port(struct callout *c, struct span text) {
    uint64_t port;
    if (!span_u64(text, &port) || port == 0 || port > 65535)
        return ERR_INVALID;
    c->port = (uint16_t)port;
    return ERR_OK;
}

/* HOST, HOST:PORT, [V6]:PORT or unix:/PATH. */
static int parse_server(struct callout *c, struct span s) {
    struct tcp_addr a;
    c->port = c->protocol == CLIENT_LMTP ? PORT_LMTP : PORT_SMTP;
    if (span_starts_nocase(s, SPAN("unix:"))) {
        span_copy(s, c->host, sizeof c->host);
        return tcp_addr_parse(&a, s, 0) == ERR_OK ? add_fixed(c, &a) : ERR_INVALID;
    }
    ptrdiff_t colon = span_rfind(s, ':');
    if (colon >= 0 && s.at[s.len - 1] != ']') {
        if (set_port(c, span_from(s, (size_t)colon + 1)) != ERR_OK)
            return ERR_INVALID;
        s = span_first(s, (size_t)colon);
    }
    if (s.len == 0 || s.len >= sizeof c->host)
        return ERR_INVALID;
    span_copy(s, c->host, sizeof c->host);
    if (tcp_addr_parse(&a, s, c->port) == ERR_OK)
        return add_fixed(c, &a);
    struct arena mem;
    struct span name;
    arena_init(&mem, 1024, 64 * 1024);
    int err = address_parse_domain(&name, s, &mem);
    if (err == ERR_OK)
        span_copy(name, c->host, sizeof c->host);
    arena_deinit(&mem);
    return err;
}

static int parse_uri(struct callout *c, const char *uri) {
    struct span s = span_of(uri);
    if (span_starts_nocase(s, SPAN("lmtp:")))
        c->protocol = CLIENT_LMTP;
    else if (span_starts_nocase(s, SPAN("smtp:")))
        c->protocol = CLIENT_SMTP;
    else
        return ERR_INVALID;
    return parse_server(c, span_from(s, 5));
}

static int check_config(struct callout *c, const struct directory_config *config, struct buf *problems) {
    if (parse_uri(c, config->uri) != ERR_OK) {
        buf_printf(problems, "%s: a callout asks smtp:HOST[:PORT], lmtp:HOST[:PORT] or lmtp:unix:/PATH, not: %.200s\n",
                   config->name, config->uri ? config->uri : "");
        return ERR_INVALID;
    }
    if (!config->hostname || !*config->hostname) {
        buf_printf(problems, "%s: a callout needs the name of this host\n", config->name);
        return ERR_INVALID;
    }
    return ERR_OK;
}

int backend_callout_new(struct backend **out, const struct directory_config *config, struct buf *problems) {
    struct callout *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return ERR_NOMEM;
    static const struct backend_ops ops = {callout_ask, callout_close};
    c->base.ops = &ops;
    c->config = config;
    c->most = config->connections ? config->connections : CONNECTIONS_DEFAULT;
    list_init(&c->conns);
    list_init(&c->domain_order);
    map_init(&c->domains);
    int err = backend_loop_init(&c->run);
    c->run.work = work;
    c->run.end = on_loop_end;
    c->run.arg = c;
    if (!err)
        err = check_config(c, config, problems);
    if (!err && !c->address_count) {
        err = dns_new(&c->dns, c->run.loop, config->dns, DNS_TIMEOUT_MS, DNS_TRIES);
        if (err)
            buf_printf(problems, "%s: dns: %s\n", config->name, err_text(err));
    }
    if (!err)
        err = backend_loop_start(&c->run);
    if (err) {
        callout_free(c);
        return err;
    }
    *out = &c->base;
    return ERR_OK;
}
