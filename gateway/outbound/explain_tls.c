/*
 * explain_tls: the second half of the answer: what TLS must be like on the way and why, the site with its policy, and
 * for `limits explain` what holds mail for it back in this node.
 */
#include "base/clock.h"

#include "gateway/outbound/explain_in.h"

/* -- limits -- */

static const struct site *find_site(const struct outbound *o, const char *name) {
    for (struct map_node *n = map_next(&o->sites, NULL); n; n = map_next(&o->sites, n)) {
        const struct site *s = CONTAINER_OF(n, struct site, in_map);
        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

static void add_site(struct explain *x, const struct site *s) {
    uint64_t now = loop_now_ms(x->o->loop);
    explain_add(x, arena_printf(&x->mem, "site: %u of %u connections open, %zu of them idle, %zu jobs wait", s->slots,
                                site_limit(s), s->idle.count, s->waiting.count));
    if (s->hint && s->hint < x->setup->s.per_site)
        explain_add(
            x, arena_printf(&x->mem, "the scheduler allows %u connections now, after what the site answered", s->hint));
    if (s->cap && now < s->cap_until_ms)
        explain_add(x, arena_printf(&x->mem, "its servers took no more than %u connections; tried again in %llu s",
                                    s->cap, (unsigned long long)(s->cap_until_ms - now) / 1000));
    if (s->has_failed)
        explain_add(x, arena_printf(&x->mem, "no host of it could be reached %llu s ago",
                                    (unsigned long long)(now - s->failed_ms) / 1000));
}

static void add_settings(struct explain *x) {
    const struct outbound_settings *s = &x->setup->s;
    explain_add(x, arena_printf(&x->mem,
                                "settings: %u connections to a site, %u messages to a connection, %u recipients to a "
                                "transaction",
                                s->per_site, s->messages_per_connection, s->recipients_per_transaction));
}

static void add_limits(struct explain *x) {
    const struct outbound *o = x->o;
    const struct outbound_settings *s = &x->setup->s;
    add_settings(x);
    explain_add(x, arena_printf(&x->mem, "node: %u of %u connections to all sites together, %zu of %u jobs", o->slots,
                                s->connections, o->running.count, o->config.jobs_max));
    const struct site *site = find_site(o, x->site);
    if (site)
        add_site(x, site);
    else
        explain_add(x, "site: this node has neither jobs nor connections for it now");
}

/* -- TLS -- */

static void finish(struct explain *x) {
    if (x->verb == WORDS__ADMIN_VERB__ADMIN_TLS_PROBE) {
        probe_start(x);
        return;
    }
    if (x->verb == WORDS__ADMIN_VERB__ADMIN_LIMITS) {
        add_limits(x);
        explain_pace(x);
    } else {
        explain_add(x, arena_printf(&x->mem, "home of the site: %s", x->setup->s.name));
        add_settings(x);
        explain_rates(x);
        if (!x->rule || x->rule->route.kind != ROUTE_LMTP)
            explain_sources(x);
    }
    explain_answer(x,
                   arena_printf(&x->mem, "%u address%s, site %s%s", x->addresses, x->addresses == 1 ? "" : "es",
                                x->site, x->cut ? "; some hosts or addresses are beyond what one attempt tries" : ""));
}

static void add_sts(struct explain *x, const struct sts_policy *p, const char *why) {
    if (p)
        explain_add(x,
                    arena_printf(&x->mem, "MTA-STS policy %s, mode %s, for %llu s more", p->id, sts_mode_name(p->mode),
                                 (unsigned long long)(p->expires_ms - clock_wall_ms()) / 1000));
    else if (*why)
        explain_add(x, arena_printf(&x->mem, "MTA-STS: no policy: %s", why));
    for (size_t i = 0; p && i < p->mx_count && i < 20; i++)
        explain_add(
            x, arena_printf(&x->mem, "MTA-STS policy: %s %s", p->mode == STS_ENFORCE ? "only" : "expects", p->mx[i]));
}

static void on_sts(void *arg, struct sts_policy *policy, const char *why) {
    struct explain *x = arg;
    char tag[TLSPOLICY_TAG_MAX];
    bool is_route = x->rule && x->rule->route.kind != ROUTE_MX;
    struct tls_demand_question q = {.domain = x->domain,
                                    .is_route = is_route,
                                    .within_host = x->targets[0].addr.storage.ss_family == AF_UNIX,
                                    .mx_authentic = x->mx_authentic,
                                    .sts = policy};
    tls_demand_init(&x->demand, &x->setup->s.tls, &q);
    x->has_demand = true;
    add_sts(x, policy, why);
    tls_demand_tag(&x->demand, tag);
    explain_add(x, arena_printf(&x->mem, "TLS: %s, by %s%s", tls_level_name(x->demand.level), x->demand.why,
                                x->demand.dane ? "; DANE where a host has TLSA records" : ""));
    const struct outbound_login *login = x->rule ? x->rule->login : NULL;
    if (login)
        explain_add(x, arena_printf(&x->mem, "logs in as %s", login->user));
    const char *site = login_site(&x->mem, x->site, login, x->o->login_key);
    site = site ? arena_printf(&x->mem, "%s%s", site, tag) : NULL;
    x->site = site ? site : x->site;
    finish(x);
}

void explain_tls(struct explain *x) {
    struct tls_demand_question q = {.domain = x->domain, .is_route = x->rule && x->rule->route.kind != ROUTE_MX};
    if (x->o->sts && tls_demand_wants_sts(&x->setup->s.tls, &q))
        sts_ask(x->o->sts, &x->sts, x->domain, clock_wall_ms(), on_sts, x);
    else
        on_sts(x, NULL, "");
}
