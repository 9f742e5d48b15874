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

static int copy_list(struct guard_rules *r, unsigned i, const struct guard_dnslist *from) {
    struct guard_list *to = &r->lists[i];
    struct span zone = span_of(from->zone);
    if (!dns_name_is_good(zone) || zone.len > DNS_REVERSE_ZONE_MAX)
        return ERR_INVALID;
    to->zone = strdup(from->zone);
    if (!to->zone)
        return ERR_NOMEM;
    to->any = !from->answer;
    to->score = from->score;
    if (from->answer && (tcp_net_parse(&to->answer, span_of(from->answer)) || !in_loopback(&to->answer)))
        return ERR_INVALID;
    while (!span_eq_nocase(span_of(r->lists[to->first].zone), zone)) /* ends at itself */
        to->first++;
    return ERR_OK;
}

static int copy_all(struct guard_rules *r, const struct guard_config *c) {
    if (c->dnslist_count > GUARD_DNSLISTS_MAX || c->v4_bits > 32 || c->v6_bits > 128 || c->reserved_percent > 100)
        return ERR_INVALID;
    r->c.dnslists = NULL; /* r->lists has them */
    r->c.grey_file = NULL;
    for (unsigned i = 0; i < c->dnslist_count; i++) {
        int err = copy_list(r, i, &c->dnslists[i]);
        if (err)
            return err;
    }
    if (c->grey_file && !(r->c.grey_file = strdup(c->grey_file)))
        return ERR_NOMEM;
    fill_defaults(&r->c);
    return r->c.grey_delay_ms <= r->c.grey_retry_ms ? ERR_OK : ERR_INVALID;
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
