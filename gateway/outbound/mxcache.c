/*
 * mxcache: a map of entries, a list of them by last use, and the waiters of each entry whose
 * query is under way. Answers are handed out from one queue in the cache itself, so that a
 * waiter may ask, cancel or be canceled while another is being told.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/net/tcp.h"

#include "gateway/outbound/mxcache.h"

struct entry {
    struct map_node in_map;
    struct list_node in_use; /* in .used, or in .pending while a query is under way */
    struct mxcache *cache;
    struct list waiters;
    struct mxset *set; /* NULL before the first answer */
    uint64_t asked_ms;
    bool pending;
    enum dns_type type;
    char name[];
};
struct waiter {
    struct list_node node;
    struct mxset *set; /* once answered */
    mxcache_cb cb;
    void *arg;
};
struct mxcache {
    struct map entries;
    struct list used; /* oldest use first */
    struct list pending;
    struct list told; /* waiters that have their answer */
    size_t entries_max, bytes_max, bytes;
    mxcache_query query;
    void *dns;
};

/* -- answers -- */

struct mxset *mxset_ref(struct mxset *s) {
    if (s)
        s->refs++;
    return s;
}

struct mxset *mxset_address(const struct tcp_addr *a) {
    struct mxset *s = calloc(1, sizeof *s + sizeof *s->records);
    if (!s)
        return NULL;
    *s = (struct mxset){.refs = 1, .status = DNS_OK, .why = "", .expires_ms = UINT64_MAX, .canonical = "", .count = 1};
    s->records[0].name = "";
    if (a->storage.ss_family == AF_INET6)
        memcpy(s->records[0].addr, &((const struct sockaddr_in6 *)&a->storage)->sin6_addr, 16);
    else
        memcpy(s->records[0].addr, &((const struct sockaddr_in *)&a->storage)->sin_addr, 4);
    return s;
}

void mxset_free(struct mxset *s) {
    if (s && --s->refs == 0)
        free(s);
}

uint32_t mxset_ttl_s(const struct mxset *s, uint64_t now_ms) {
    return s->expires_ms > now_ms ? (uint32_t)((s->expires_ms - now_ms) / 1000) : 0;
}

static uint64_t keep_ms(const struct dns_answer *a) {
    uint64_t ms = (uint64_t)a->ttl_s * 1000;
    switch (a->status) {
    case DNS_OK:
        return ms < MXCACHE_KEEP_MS_MAX ? ms : MXCACHE_KEEP_MS_MAX;
    case DNS_NODATA:
    case DNS_NXDOMAIN:
        return ms < MXCACHE_NEGATIVE_MS_MAX ? ms : MXCACHE_NEGATIVE_MS_MAX;
    default:
        return strcmp(a->why, "canceled") == 0 ? 0 : MXCACHE_FAILURE_MS;
    }
}

/* The octets of a record that lie behind the array: a name with its NUL, an association, a text with a NUL. */
static size_t tail_of(const struct dns_record *r, enum dns_type type) {
    char none[1];
    switch (type) {
    case DNS_MX:
    case DNS_CNAME:
        return strlen(r->name) + 1;
    case DNS_TLSA:
        return dns_record_tlsa(r).association.len;
    case DNS_TXT:
        return dns_record_text(r, none, sizeof none) + 1;
    default:
        return 0;
    }
}

/* Fills one record; len octets at `at` are its tail. */
static void fill(struct mxrecord *to, const struct dns_record *r, enum dns_type type, char *at, size_t len) {
    *to = (struct mxrecord){.preference = r->preference, .name = ""};
    memcpy(to->addr, r->addr, sizeof to->addr);
    if (type == DNS_MX || type == DNS_CNAME) {
        memcpy(at, r->name, len);
        to->name = at;
    } else if (type == DNS_TLSA) {
        struct dns_tlsa t = dns_record_tlsa(r);
        memcpy(at, t.association.at, len);
        to->usage = t.usage;
        to->selector = t.selector;
        to->matching = t.matching;
        to->data = span_make(at, len);
    } else if (type == DNS_TXT) {
        to->data = span_make(at, dns_record_text(r, at, len));
    }
}

/* A compact copy: the records, then what they point to. NULL: no memory. */
static struct mxset *set_of(const struct dns_answer *a, enum dns_type type, uint64_t asked_ms) {
    size_t alias = strlen(a->canonical) + 1;
    size_t bytes = sizeof(struct mxset) + a->count * sizeof(struct mxrecord) + alias;
    for (size_t i = 0; i < a->count; i++)
        bytes += tail_of(&a->records[i], type);
    struct mxset *s = calloc(1, bytes);
    if (!s)
        return NULL;
    *s = (struct mxset){.refs = 1,
                        .status = a->status,
                        .why = a->why,
                        .expires_ms = asked_ms + keep_ms(a),
                        .authentic = a->authentic,
                        .truncated = a->truncated,
                        .bytes = bytes,
                        .count = (uint32_t)a->count};
    char *at = (char *)(s->records + a->count);
    memcpy(at, a->canonical, alias);
    s->canonical = at;
    at += alias;
    for (size_t i = 0; i < a->count; i++) {
        size_t len = tail_of(&a->records[i], type);
        fill(&s->records[i], &a->records[i], type, at, len);
        at += len;
    }
    return s;
}

/* -- the cache -- */

struct mxcache *mxcache_new(size_t entries_max, size_t bytes_max, mxcache_query query, void *dns) {
    struct mxcache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    map_init(&c->entries);
    list_init(&c->used);
    list_init(&c->pending);
    list_init(&c->told);
    c->entries_max = entries_max;
    c->bytes_max = bytes_max;
    c->query = query;
    c->dns = dns;
    return c;
}

void mxcache_set_dns(struct mxcache *c, void *dns) {
    c->dns = dns;
}

size_t mxcache_count(const struct mxcache *c) {
    return c->entries.count;
}

static void drop_set(struct entry *e) {
    if (e->set)
        e->cache->bytes -= e->set->bytes;
    mxset_free(e->set);
    e->set = NULL;
}

static void drop_entry(struct entry *e) {
    drop_set(e);
    map_remove(&e->cache->entries, &e->in_map);
    list_remove(&e->cache->used, &e->in_use);
    free(e);
}

static void free_waiters(struct list *l) {
    struct list_node *n;
    while ((n = list_pop_front(l))) {
        struct waiter *w = LIST_ENTRY(n, struct waiter, node);
        mxset_free(w->set);
        free(w);
    }
}

void mxcache_free(struct mxcache *c) {
    if (!c)
        return;
    struct map_node *n, *next;
    for (n = map_next(&c->entries, NULL); n; n = next) {
        next = map_next(&c->entries, n);
        struct entry *e = CONTAINER_OF(n, struct entry, in_map);
        CHECK(!e->pending);
        free_waiters(&e->waiters);
        drop_set(e);
        free(e);
    }
    free_waiters(&c->told);
    map_deinit(&c->entries);
    free(c);
}

/* Entries whose query is under way stay: their number is bounded by that of the jobs that wait. */
static void make_room(struct mxcache *c) {
    while ((c->entries.count > c->entries_max || c->bytes > c->bytes_max) && !list_is_empty(&c->used))
        drop_entry(LIST_ENTRY(list_first(&c->used), struct entry, in_use));
}

struct key {
    const char *name;
    enum dns_type type;
};

static bool matches(const struct map_node *n, const void *key) {
    const struct entry *e = CONTAINER_OF(n, struct entry, in_map);
    const struct key *k = key;
    return e->type == k->type && strcmp(e->name, k->name) == 0;
}

static struct entry *find(struct mxcache *c, const char *name, enum dns_type type) {
    struct map_node *n =
        map_find(&c->entries, hash_bytes(name, strlen(name), type), matches, &(struct key){name, type});
    return n ? CONTAINER_OF(n, struct entry, in_map) : NULL;
}

static struct entry *add(struct mxcache *c, const char *name, enum dns_type type) {
    size_t len = strlen(name);
    struct entry *e = calloc(1, sizeof *e + len + 1);
    if (!e)
        return NULL;
    e->cache = c;
    e->type = type;
    list_init(&e->waiters);
    memcpy(e->name, name, len + 1);
    if (map_insert(&c->entries, &e->in_map, hash_bytes(name, len, type)) != ERR_OK) {
        free(e);
        return NULL;
    }
    list_push_back(&c->used, &e->in_use);
    return e;
}

static bool is_fresh(const struct entry *e, uint64_t now_ms) {
    return !e->pending && e->set && e->set->expires_ms > now_ms;
}

static void touch(struct entry *e) {
    list_remove(&e->cache->used, &e->in_use);
    list_push_back(&e->cache->used, &e->in_use);
}

struct mxset *mxcache_peek(struct mxcache *c, const char *name, enum dns_type type, uint64_t now_ms) {
    struct entry *e = find(c, name, type);
    if (!e || !is_fresh(e, now_ms))
        return NULL;
    touch(e);
    return e->set;
}

static void tell(struct mxcache *c) {
    struct list_node *n;
    while ((n = list_pop_front(&c->told))) {
        struct waiter w = *LIST_ENTRY(n, struct waiter, node);
        free(LIST_ENTRY(n, struct waiter, node));
        w.cb(w.arg, w.set);
        mxset_free(w.set);
    }
}

static void on_answer(void *arg, const struct dns_answer *a) {
    struct entry *e = arg;
    struct mxcache *c = e->cache;
    struct list_node *n;
    e->pending = false;
    list_remove(&c->pending, &e->in_use);
    list_push_back(&c->used, &e->in_use);
    drop_set(e);
    e->set = set_of(a, e->type, e->asked_ms);
    if (e->set)
        c->bytes += e->set->bytes;
    while ((n = list_pop_front(&e->waiters))) {
        LIST_ENTRY(n, struct waiter, node)->set = mxset_ref(e->set);
        list_push_back(&c->told, n);
    }
    make_room(c); /* may drop e */
    tell(c);
}

void mxcache_ask(struct mxcache *c, const char *name, enum dns_type type, uint64_t now_ms, mxcache_cb cb, void *arg) {
    struct entry *e = find(c, name, type);
    if (e && is_fresh(e, now_ms)) {
        struct mxset *set = mxset_ref(e->set);
        touch(e);
        cb(arg, set);
        mxset_free(set);
        return;
    }
    struct waiter *w = calloc(1, sizeof *w);
    if (!e)
        e = add(c, name, type);
    if (!w || !e) {
        free(w);
        cb(arg, NULL);
        return;
    }
    w->cb = cb;
    w->arg = arg;
    list_push_back(&e->waiters, &w->node);
    if (e->pending)
        return;
    e->pending = true;
    e->asked_ms = now_ms;
    list_remove(&c->used, &e->in_use);
    list_push_back(&c->pending, &e->in_use);
    c->query(c->dns, e->name, type, on_answer, e);
}

static void cancel_in(struct list *l, void *arg) {
    LIST_FOREACH(n, next, l) {
        struct waiter *w = LIST_ENTRY(n, struct waiter, node);
        if (w->arg == arg) {
            list_remove(l, n);
            mxset_free(w->set);
            free(w);
        }
    }
}

void mxcache_cancel(struct mxcache *c, void *arg) {
    LIST_FOREACH(n, next, &c->pending)
    cancel_in(&LIST_ENTRY(n, struct entry, in_use)->waiters, arg);
    cancel_in(&c->told, arg);
}
