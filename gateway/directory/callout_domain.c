/*
 * callout_domain: remembers for each domain whether the mailbox server accepts everything. At first use and once an
 * hour an address is asked that nobody can have: if that is accepted, the server's yes means nothing. The operator
 * chose this server, so its yes stays a yes; but the log, a metric and the verdict's reason say what it is worth.
 *
 * Bounded: the domain that was asked longest ago is forgotten, and asked anew when it comes again.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/directory/callout.h"

enum { AGAIN_MS = 3600 * 1000 };

METRIC_COUNTER(accepts_all, "posthouse_callout_accepts_all_total",
               "Times that a mailbox server was found to accept every address of a domain");

static bool is_named(const struct map_node *n, const void *key) {
    const struct callout_domain *d = CONTAINER_OF(n, struct callout_domain, node);
    return span_eq(span_make(d->name, d->len), *(const struct span *)key);
}

static void forget(struct callout *c, struct callout_domain *d) {
    map_remove(&c->domains, &d->node);
    list_remove(&c->domain_order, &d->order);
    free(d);
}

static bool make_room(struct callout *c) {
    if (c->domains.count < CALLOUT_DOMAINS)
        return true;
    LIST_FOREACH(n, next, &c->domain_order) {
        struct callout_domain *d = LIST_ENTRY(n, struct callout_domain, order);
        if (d->users)
            continue;
        forget(c, d);
        return true;
    }
    return false;
}

struct callout_domain *callout_domain_use(struct callout *c, struct span name) {
    uint64_t hash = hash_span(name, 0);
    struct map_node *n = map_find(&c->domains, hash, is_named, &name);
    struct callout_domain *d = n ? CONTAINER_OF(n, struct callout_domain, node) : NULL;
    if (d) {
        list_remove(&c->domain_order, &d->order);
    } else {
        if (name.len > ADDRESS_DOMAIN_MAX || !make_room(c) || !(d = calloc(1, sizeof *d)))
            return NULL;
        d->len = span_copy(name, d->name, sizeof d->name);
        if (map_insert(&c->domains, &d->node, hash) != ERR_OK) {
            free(d);
            return NULL;
        }
    }
    list_push_back(&c->domain_order, &d->order);
    d->users++;
    return d;
}

void callout_domain_leave(struct callout_domain *d) {
    if (d)
        d->users--;
}

bool callout_domain_is_due(struct callout *c, struct callout_domain *d) {
    uint64_t now = loop_now_ms(c->run.loop) + 1; /* never 0 */
    if (d->asked_ms && now - d->asked_ms < AGAIN_MS)
        return false;
    d->asked_ms = now;
    return true;
}

void callout_domain_learn(struct callout *c, struct callout_domain *d, enum client_answer answer) {
    if (answer != CLIENT_ANSWER_2 && answer != CLIENT_ANSWER_5) {
        d->asked_ms = 0;
        return;
    }
    d->accepts_all = answer == CLIENT_ANSWER_2;
    if (!d->accepts_all)
        return;
    metric_add(&accepts_all, 1);
    LOG_WARN("callout_accepts_all", LOG_STR("directory", c->config->name), LOG_STR("domain", d->name),
             LOG_STR("server", c->config->uri));
}

void callout_domains_free(struct callout *c) {
    struct list_node *n;
    while ((n = list_first(&c->domain_order)))
        forget(c, LIST_ENTRY(n, struct callout_domain, order));
    map_deinit(&c->domains);
}
