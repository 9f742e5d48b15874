/*
 * rules: one configuration of guard as all sessions share it: copied, checked, defaults filled in. A session that
 * judges by it holds a reference, so that a reload never takes it away under a question that waits.
 */
#include <stdlib.h>
#include <string.h>

#include "base/net/dns_parse.h"

#include "gateway/guard/guard_inner.h"

enum { HOUR_MS = 3600 * 1000 };

static uint64_t or_default(uint64_t n, uint64_t otherwise) {
    return n ? n : otherwise;
}

static void fill_defaults(struct guard_config *c) {
    c->dns_ms = or_default(c->dns_ms, 5000);
    c->per_client.window_ms = or_default(c->per_client.window_ms, HOUR_MS);
    c->per_account.window_ms = or_default(c->per_account.window_ms, HOUR_MS);
    c->v4_bits = (uint8_t)or_default(c->v4_bits, 32);
    c->v6_bits = (uint8_t)or_default(c->v6_bits, 64);
    c->rate_entries = (uint32_t)or_default(c->rate_entries, 1000000);
    c->grey_delay_ms = or_default(c->grey_delay_ms, 5 * 60 * 1000);
    c->grey_retry_ms = or_default(c->grey_retry_ms, 24 * (uint64_t)HOUR_MS);
    c->grey_keep_ms = or_default(c->grey_keep_ms, 35 * 24 * (uint64_t)HOUR_MS);
    c->grey_entries = (uint32_t)or_default(c->grey_entries, 1000000);
    c->slow_ms = or_default(c->slow_ms, 2000);
    c->slow_after_errors = (uint32_t)or_default(c->slow_after_errors, 5);
    c->good_entries = (uint32_t)or_default(c->good_entries, 100000);
}

static bool in_loopback(const struct tcp_net *n) {
    return n->bits >= 96 + 8 && n->bytes[10] == 0xff && n->bytes[11] == 0xff && n->bytes[12] == 127;
}

static const char *list_is_wrong(const struct guard_dnslist *l) {
    struct span zone = span_of(l->zone);
    struct tcp_net net;
    if (!dns_name_is_good(zone))
        return "the zone of a DNS list is no domain name";
    if (zone.len > DNS_REVERSE_ZONE_MAX)
        return "the zone of a DNS list is longer than 189 octets";
    if (l->answer && tcp_net_parse(&net, span_of(l->answer)))
        return "the answer of a DNS list is no address and no network";
    if (l->answer && !in_loopback(&net))
        return "the answer of a DNS list lies outside of 127.0.0.0/8";
    return NULL;
}

const char *guard_config_is_wrong(const struct guard_config *c) {
    struct guard_config filled = *c;
    fill_defaults(&filled);
    if (c->dnslist_count > GUARD_DNSLISTS_MAX)
        return "more than 32 DNS lists";
    for (unsigned i = 0; i < c->dnslist_count; i++) {
        const char *why = list_is_wrong(&c->dnslists[i]);
        if (why)
            return why;
    }
    if (c->v4_bits > 32 || c->v6_bits > 128)
        return "a network with more bits than an address";
    if (c->reserved_percent > 100)
        return "more than 100 percent of the sessions reserved";
    if (filled.grey_delay_ms > filled.grey_retry_ms)
        return "the delay of greylisting is longer than the time for a retry: nobody would pass";
    return NULL;
}

static int copy_list(struct guard_rules *r, unsigned i, const struct guard_dnslist *from) {
    struct guard_list *to = &r->lists[i];
    to->zone = strdup(from->zone);
    if (!to->zone)
        return ERR_NOMEM;
    to->any = !from->answer;
    to->score = from->score;
    if (from->answer && tcp_net_parse(&to->answer, span_of(from->answer)))
        return ERR_INVALID;
    while (!span_eq_nocase(span_of(r->lists[to->first].zone), span_of(from->zone))) /* ends at itself */
        to->first++;
    return ERR_OK;
}

static int copy_all(struct guard_rules *r, const struct guard_config *c) {
    r->c.dnslists = NULL; /* r->lists has them */
    r->c.grey_file = NULL;
    if (guard_config_is_wrong(c))
        return ERR_INVALID;
    for (unsigned i = 0; i < c->dnslist_count; i++) {
        int err = copy_list(r, i, &c->dnslists[i]);
        if (err)
            return err;
    }
    if (c->grey_file && !(r->c.grey_file = strdup(c->grey_file)))
        return ERR_NOMEM;
    fill_defaults(&r->c);
    return ERR_OK;
}

static void rules_free(struct guard_rules *r) {
    for (unsigned i = 0; i < GUARD_DNSLISTS_MAX; i++)
        free(r->lists[i].zone);
    free((char *)r->c.grey_file);
    free(r);
}

struct guard_rules *guard_rules_new(const struct guard_config *c, int *err) {
    struct guard_rules *r = calloc(1, sizeof *r);
    *err = ERR_NOMEM;
    if (!r)
        return NULL;
    r->c = *c;
    atomic_init(&r->references, 1);
    *err = copy_all(r, c);
    if (!*err)
        return r;
    rules_free(r);
    return NULL;
}

struct guard_rules *guard_rules_take(struct guard *g) {
    pthread_mutex_lock(&g->lock);
    struct guard_rules *r = g->rules;
    atomic_fetch_add_explicit(&r->references, 1, memory_order_relaxed);
    pthread_mutex_unlock(&g->lock);
    return r;
}

void guard_rules_release(struct guard_rules *r) {
    if (atomic_fetch_sub_explicit(&r->references, 1, memory_order_acq_rel) == 1)
        rules_free(r);
}
