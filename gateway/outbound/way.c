/*
 * way: from a destination to its hosts: the rule of the settings, an address literal, or the MX records; then secure.c
 * says what TLS must be like, and the attempt joins its site.
 *
 * A destination may also be a route, which an operator gave: it stands in place of the settings' rule. What the
 * settings demand for the recipients' own domain still holds.
 */
#include <string.h>

#include "gateway/outbound/attempt.h"

static void on_mx(void *arg, struct mxset *set) {
    struct attempt *a = arg;
    struct mx_list list;
    enum outcome_local what;
    struct walk_world world = delivery_world(a->o);
    char name[MX_SITE_MAX + 1];
    a->asking = false;
    const char *domain = a->route.host[0] ? a->route.host : a->destination;
    int err = mx_list_init(&list, set, domain, &a->setup->mx, &what);
    if (err != ERR_OK) {
        mx_list_deinit(&list);
        attempt_fail(a, what);
        return;
    }
    mx_site_name(&list, name);
    a->site_ttl_s = mxset_ttl_s(set, loop_now_ms(a->o->loop));
    walk_init(&a->walk, &world, &a->setup->mx, &list);
    a->has_walk = true;
    secure_begin(a, name, set->authentic);
}

bool attempt_read_literal(struct span text, uint16_t port, struct tcp_addr *addr) {
    if (text.len < 3 || text.at[0] != '[' || text.at[text.len - 1] != ']')
        return false;
    text = span_first(span_from(text, 1), text.len - 2);
    bool v6 = span_starts_nocase(text, SPAN("IPv6:"));
    if (v6)
        text = span_from(text, 5);
    if (tcp_addr_parse(addr, text, port) != ERR_OK || addr->storage.ss_family == AF_UNIX)
        return false;
    return (addr->storage.ss_family == AF_INET6) == v6;
}

static void start_literal(struct attempt *a) {
    struct tcp_addr addr;
    struct walk_world world = delivery_world(a->o);
    if (!attempt_read_literal(span_of(a->destination), a->setup->s.port, &addr)) {
        attempt_fail(a, OUTCOME_BAD_DESTINATION);
        return;
    }
    walk_init_address(&a->walk, &world, &a->setup->mx, a->destination, &addr);
    a->has_walk = true;
    a->site_ttl_s = DELIVERY_ROUTE_TTL_S;
    secure_begin(a, a->destination, false);
}

int way_list_targets(struct mx_list *list, const struct outbound_route *rule, struct rand *rand) {
    const char *names[OUTBOUND_TARGETS_MAX];
    uint32_t weights[OUTBOUND_TARGETS_MAX];
    for (size_t i = 0; i < rule->target_count; i++) {
        names[i] = rule->targets[i].host;
        weights[i] = rule->targets[i].weight;
    }
    return mx_list_weighted(list, names, weights, rule->target_count, rand);
}

/* A route with several hosts: their names together are the site. */
static void start_targets(struct attempt *a, const struct walk_world *world, const struct mx_policy *policy) {
    char hosts[MX_SITE_MAX + 1];
    struct mx_list list;
    if (way_list_targets(&list, a->rule, &a->o->rand) != ERR_OK) {
        attempt_fail(a, OUTCOME_NO_MEMORY);
        return;
    }
    mx_site_name(&list, hosts);
    walk_init(&a->walk, world, policy, &list);
    a->has_walk = true;
    a->site_ttl_s = DELIVERY_ROUTE_TTL_S;
    const char *kind = a->route.kind == ROUTE_SMTP ? "smtp" : "lmtp";
    const char *site = arena_printf(&a->mem, "%s:%s:%u", kind, hosts, policy->port);
    if (site)
        secure_begin(a, site, false);
    else
        attempt_fail(a, OUTCOME_NO_MEMORY);
}

static void start_route(struct attempt *a) {
    struct tcp_addr addr;
    struct walk_world world = delivery_world(a->o);
    struct mx_policy policy = a->setup->fixed;
    char name[SITE_NAME_MAX];
    policy.port = a->route.port ? a->route.port : a->route.kind == ROUTE_LMTP ? ROUTE_LMTP_PORT : a->setup->s.port;
    route_format(&a->route, policy.port, name, sizeof name);
    if (a->rule && a->rule->target_count) {
        start_targets(a, &world, &policy);
        return;
    }
    if (tcp_addr_parse(&addr, span_of(a->route.host), policy.port) == ERR_OK) {
        walk_init_address(&a->walk, &world, &policy, a->route.host, &addr);
    } else {
        struct mx_list list;
        if (mx_list_single(&list, a->route.host) != ERR_OK) {
            attempt_fail(a, OUTCOME_NO_MEMORY);
            return;
        }
        walk_init(&a->walk, &world, &policy, &list);
    }
    a->has_walk = true;
    a->site_ttl_s = DELIVERY_ROUTE_TTL_S;
    secure_begin(a, name, false);
}

/* Of the domains that the recipients were sent to, the one that the strictest level of TLS is demanded for. */
static struct span strictest_domain(const struct attempt *a) {
    struct span found = SPAN_EMPTY;
    int most = -1;
    for (size_t i = 0; i < a->job->n_recipients; i++) {
        struct span domain = frame_span(a->job->recipients[i]->destination);
        const struct outbound_tls_rule *rule = tls_rule_find(&a->setup->s.tls, domain);
        int level = (int)(rule ? rule->level : a->setup->s.tls.level);
        if (level > most && domain.len && domain.len <= 300 && !memchr(domain.at, 0, domain.len)) {
            found = domain;
            most = level;
        }
    }
    return found;
}

static bool is_operators(const char *destination) {
    return destination[0] != '[' && strchr(destination, ':');
}

/* False: the attempt has ended. */
static bool take_operators(struct attempt *a) {
    struct span domain = strictest_domain(a);
    if (route_parse(&a->route, span_of(a->destination)) != ERR_OK || !domain.len) {
        attempt_fail(a, OUTCOME_BAD_ROUTE);
        return false;
    }
    a->destination = arena_dup(&a->mem, domain).at;
    if (!a->destination)
        attempt_fail(a, OUTCOME_NO_MEMORY);
    return a->destination != NULL;
}

void way_find(struct attempt *a) {
    a->state = ATTEMPT_RESOLVING;
    if (is_operators(a->destination)) {
        if (!take_operators(a))
            return;
    } else {
        a->rule = routes_find(a->setup->routes, span_of(a->destination));
        a->route = a->rule ? a->rule->route : (struct route){.kind = ROUTE_MX};
    }
    if (a->route.kind != ROUTE_MX) {
        start_route(a);
    } else if (a->destination[0] == '[' && !a->route.host[0]) {
        start_literal(a);
    } else {
        a->asking = true;
        mxcache_ask(a->o->cache, a->route.host[0] ? a->route.host : a->destination, DNS_MX, loop_now_ms(a->o->loop),
                    on_mx, a);
    }
}
