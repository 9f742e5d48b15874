/*
 * dane: two questions for the host's addresses, perhaps one for its alias, and one or two for TLSA records; see dane.h
 * for when which is asked. Whether an answer is vouched for is the AD bit of the resolver, so the resolver and the way
 * to it must be trusted; that is the operator's to arrange.
 *
 * A failure is never taken for an absence: who can hold back answers could otherwise switch DANE off.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/outbound/dane.h"

enum {
    USAGE_AUTHORITY = 2,
    USAGE_SERVER = 3,
    SELECTOR_KEY = 1,
    MATCHING_FULL = 0,
    MATCHING_SHA256 = 1,
    MATCHING_SHA512 = 2
};

static void ask_tlsa(struct dane_ask *ask);

const char *dane_status_text(enum dane_status s) {
    static const char *const texts[] = {"none", "usable", "unusable", "failed"};
    return texts[s];
}

/* -- the end -- */

/* ask may be gone afterwards. */
static void finish(struct dane_ask *ask, enum dane_status status, const char *why) {
    ask->done = true;
    ask->answer.status = status;
    ask->answer.why = why;
    ask->answer.base = status == DANE_NONE || !ask->base[0] ? ask->host : ask->base;
    ask->cb(ask->arg, &ask->answer);
}

static bool is_usable(const struct mxrecord *r) {
    if ((r->usage != USAGE_AUTHORITY && r->usage != USAGE_SERVER) || r->selector > SELECTOR_KEY)
        return false;
    switch (r->matching) {
    case MATCHING_FULL:
        return r->data.len > 0;
    case MATCHING_SHA256:
        return r->data.len == 32;
    case MATCHING_SHA512:
        return r->data.len == 64;
    default:
        return false;
    }
}

static void finish_with_records(struct dane_ask *ask) {
    const struct mxset *set = ask->tlsa;
    size_t count = 0;
    ask->records = calloc(set->count, sizeof *ask->records);
    if (!ask->records) {
        finish(ask, DANE_FAILED, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < set->count; i++) {
        const struct mxrecord *r = &set->records[i];
        if (is_usable(r))
            ask->records[count++] = (struct tls_dane_record){.usage = r->usage,
                                                             .selector = r->selector,
                                                             .matching = r->matching,
                                                             .data = (const uint8_t *)r->data.at,
                                                             .len = r->data.len};
    }
    if (count == 0) {
        finish(ask, DANE_UNUSABLE, "no TLSA record is one that mail can use");
        return;
    }
    ask->answer.records = ask->records;
    ask->answer.count = count;
    finish(ask, DANE_USABLE, "TLSA records are vouched for");
}

/* -- TLSA -- */

/* The host's own name when the one at the end of its chain has no records; false: it was asked already. */
static bool turn_to_host(struct dane_ask *ask) {
    if (strcmp(ask->base, ask->host) == 0)
        return false;
    snprintf(ask->base, sizeof ask->base, "%s", ask->host);
    mxset_free(ask->tlsa);
    ask->tlsa = NULL;
    ask_tlsa(ask);
    return true;
}

static void on_tlsa(void *arg, struct mxset *set) {
    struct dane_ask *ask = arg;
    ask->tlsa = mxset_ref(set);
    if (!set)
        finish(ask, DANE_FAILED, "out of memory");
    else if (set->status == DNS_TEMPFAIL || set->status == DNS_LOOP)
        finish(ask, DANE_FAILED, "TLSA records cannot be looked up, or are bogus");
    else if (set->status == DNS_OK && set->authentic)
        finish_with_records(ask);
    else if (!turn_to_host(ask))
        finish(ask, DANE_NONE,
               set->status == DNS_OK ? "TLSA records are not vouched for" : "there are no TLSA records");
}

static void ask_tlsa(struct dane_ask *ask) {
    char name[DNS_NAME_MAX + 16];
    if (snprintf(name, sizeof name, "_%u._tcp.%s", ask->port, ask->base) > DNS_NAME_MAX) {
        finish(ask, DANE_NONE, "the host's name leaves no room for TLSA records");
        return;
    }
    mxcache_ask(ask->cache, name, DNS_TLSA, ask->now_ms, on_tlsa, ask);
}

/* -- addresses -- */

/* The alias of a host whose addresses nobody vouches for: it may itself be vouched for. */
static void on_alias(void *arg, struct mxset *set) {
    struct dane_ask *ask = arg;
    if (!set) {
        finish(ask, DANE_FAILED, "out of memory");
    } else if (set->status == DNS_TEMPFAIL || set->status == DNS_LOOP) {
        finish(ask, DANE_FAILED, "the host's alias cannot be looked up, or is bogus");
    } else if (set->status != DNS_OK || !set->authentic) {
        finish(ask, DANE_NONE, "the host's addresses are not vouched for");
    } else {
        snprintf(ask->base, sizeof ask->base, "%s", ask->host);
        ask_tlsa(ask);
    }
}

static bool has_failed(const struct mxset *s) {
    return !s || s->status == DNS_TEMPFAIL || s->status == DNS_LOOP;
}

static bool has_addresses(const struct mxset *s) {
    return s && s->status == DNS_OK;
}

static void judge_addresses(struct dane_ask *ask) {
    const struct mxset *a = has_addresses(ask->a) ? ask->a : NULL, *aaaa = has_addresses(ask->aaaa) ? ask->aaaa : NULL;
    const struct mxset *one = a ? a : aaaa;
    if (!one) {
        bool failed = has_failed(ask->a) || has_failed(ask->aaaa);
        finish(ask, failed ? DANE_FAILED : DANE_NONE,
               failed ? "the host's addresses cannot be looked up, or are bogus" : "the host has no addresses");
        return;
    }
    bool secure = (!a || a->authentic) && (!aaaa || aaaa->authentic);
    bool is_alias = one->canonical[0] != '\0';
    if (secure) {
        snprintf(ask->base, sizeof ask->base, "%s", is_alias ? one->canonical : ask->host);
        ask_tlsa(ask);
    } else if (is_alias) {
        mxcache_ask(ask->cache, ask->host, DNS_CNAME, ask->now_ms, on_alias, ask);
    } else {
        finish(ask, DANE_NONE, "the host's addresses are not vouched for");
    }
}

static void on_address(struct dane_ask *ask, struct mxset **to, struct mxset *set) {
    *to = mxset_ref(set);
    if (--ask->missing == 0)
        judge_addresses(ask);
}

static void on_a(void *arg, struct mxset *set) {
    struct dane_ask *ask = arg;
    on_address(ask, &ask->a, set);
}

static void on_aaaa(void *arg, struct mxset *set) {
    struct dane_ask *ask = arg;
    on_address(ask, &ask->aaaa, set);
}

/* -- beginning and ending -- */

void dane_start(struct dane_ask *ask, struct mxcache *cache, const char *host, uint16_t port, uint64_t now_ms,
                dane_cb cb, void *arg) {
    *ask = (struct dane_ask){.cache = cache, .cb = cb, .arg = arg, .now_ms = now_ms, .port = port, .missing = 2};
    size_t len = strlen(host);
    if (len > DNS_NAME_MAX) {
        finish(ask, DANE_NONE, "the host's name is too long");
        return;
    }
    for (size_t i = 0; i < len; i++)
        ask->host[i] = (char)(host[i] >= 'A' && host[i] <= 'Z' ? host[i] | 0x20 : host[i]);
    /* Only the second answer can end it. */
    mxcache_ask(cache, ask->host, DNS_AAAA, now_ms, on_aaaa, ask);
    mxcache_ask(cache, ask->host, DNS_A, now_ms, on_a, ask);
}

void dane_cancel(struct dane_ask *ask) {
    if (ask->cache && !ask->done)
        mxcache_cancel(ask->cache, ask);
    mxset_free(ask->a);
    mxset_free(ask->aaaa);
    mxset_free(ask->tlsa);
    free(ask->records);
    *ask = (struct dane_ask){0};
}
