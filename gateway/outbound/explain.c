/*
 * explain: the operator's question which way an address goes, answered line by line: the rule, the
 * MX records, what is left out and why, and the addresses in the order in which an attempt made now would try
 * them. It asks the same questions by the same functions as a delivery, and delivers nothing.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gateway/outbound/explain_in.h"
#include "gateway/smtp/address.h"

enum { EXPLAINS_MAX = 64, ARENA_MAX = 1024 * 1024 };

static void end(struct explain *x) {
    if (x->asking)
        mxcache_cancel(x->o->cache, x);
    sts_cancel(&x->sts);
    probe_end(x);
    if (x->has_demand)
        tls_demand_deinit(&x->demand);
    group_end(&x->group);
    mx_list_deinit(&x->list);
    setup_free(x->setup);
    list_remove(&x->o->explains, &x->in_all);
    arena_deinit(&x->mem);
    free(x);
}

void explain_end_all(struct outbound *o) {
    while (!list_is_empty(&o->explains))
        end(LIST_ENTRY(list_first(&o->explains), struct explain, in_all));
}

Words__AdminStep *explain_add(struct explain *x, const char *text) {
    Words__AdminStep *s = x->count < EXPLAIN_STEPS_MAX ? arena_alloc(&x->mem, sizeof *s) : NULL;
    if (!s || !text)
        return NULL;
    words__admin_step__init(s);
    s->text = frame_bytes(span_of(text));
    x->steps[x->count++] = s;
    return s;
}

static void add_host(struct explain *x, const char *text, const char *host, uint32_t preference) {
    Words__AdminStep *s = explain_add(x, text);
    if (!s)
        return;
    s->has_host = s->has_preference = true;
    s->host = frame_bytes(arena_dup(&x->mem, span_of(host)));
    s->preference = preference;
}

static void add_address(struct explain *x, const char *text, const char *host, const struct tcp_addr *a,
                        uint32_t preference) {
    char ip[128];
    size_t len = tcp_addr_ip(a, ip, sizeof ip);
    add_host(x, text, host, preference);
    if (!x->count)
        return;
    Words__AdminStep *s = x->steps[x->count - 1];
    s->has_address = s->has_port = true;
    s->address = frame_bytes(arena_dup(&x->mem, span_make(ip, len)));
    s->port = a->storage.ss_family == AF_UNIX ? 0 : tcp_addr_port(a);
}

void explain_answer(struct explain *x, const char *verdict) {
    Words__AdminReply r = WORDS__ADMIN_REPLY__INIT;
    r.has_text = r.has_last = r.last = true;
    r.text = frame_bytes(span_of(verdict ? verdict : "no memory for the answer"));
    r.steps = x->steps;
    r.n_steps = x->count;
    if (!x->domain) { /* the question itself was malformed */
        r.has_error = true;
        r.error = (uint32_t)-ERR_INVALID;
    }
    int err = frame_send_peer(x->o->admin, FRAME_ADMIN_REPLY, x->correlation, 0, &r.base, NULL, &x->o->scratch);
    if (err != ERR_OK)
        LOG_WARN("admin_reply_unsent", LOG_ERR("reason", err));
    end(x);
}

static void answer_failure(struct explain *x, enum outcome_local what) {
    struct outcome_verdict v = outcome_local(what);
    explain_answer(x, arena_printf(&x->mem, "%s: %s %s", v.outcome == OUTCOME_FAILED ? "fails" : "is deferred",
                                   v.enhanced, v.text));
}

static void answer_way(struct explain *x) {
    if (x->addresses == 0) {
        const struct walk w = {.own = x->own || x->list.own,
                               .list = x->list,
                               .own_is_worse = x->own && x->group_from > 0,
                               .tempfail = x->tempfail,
                               .bad = x->bad};
        answer_failure(x, walk_reason(&w));
        return;
    }
    explain_tls(x);
}

/* -- addresses -- */

static void add_family(struct explain *x, const char *host, uint32_t preference, const struct mxset *set, bool v6) {
    for (uint32_t i = 0; set && set->status == DNS_OK && i < set->count; i++) {
        struct tcp_addr a = mx_address(set->records[i].addr, v6, x->policy.port);
        switch (mx_judge_address(&x->policy, &a)) {
        case MX_ADDRESS_UNUSABLE:
            add_address(x, "never used: an address that no mail goes to", host, &a, preference);
            break;
        case MX_ADDRESS_LOOPBACK:
            add_address(x, "never used: a loopback address", host, &a, preference);
            break;
        case MX_ADDRESS_OWN:
            add_address(x, "our own address: its preference and all worse ones are left out", host, &a, preference);
            break;
        case MX_ADDRESS_GOOD:
            break;
        }
    }
}

static void add_found(struct explain *x, uint32_t i, uint32_t preference) {
    const struct mxset *a = x->group.a[i].set, *aaaa = x->group.aaaa[i].set;
    const char *host = x->group.hosts[i];
    bool none = !(a && a->status == DNS_OK) && !(aaaa && aaaa->status == DNS_OK);
    bool failing = !a || !aaaa || a->status == DNS_TEMPFAIL || aaaa->status == DNS_TEMPFAIL || a->status == DNS_LOOP;
    if (none)
        add_host(x, failing ? "cannot be found now" : "has no address", host, preference);
    add_family(x, host, preference, aaaa, true);
    add_family(x, host, preference, a, false);
}

static void next_group(struct explain *x);

static void on_group(void *arg) {
    struct explain *x = arg;
    struct mx_group_result found;
    uint32_t preference = x->list.hosts[x->group_from].preference;
    group_order(&x->group, &x->policy, &x->o->rand, &found);
    for (uint32_t i = 0; i < x->group.count; i++)
        add_found(x, i, preference);
    uint64_t now = loop_now_ms(x->o->loop);
    for (uint32_t i = 0; i < found.count; i++) {
        bool dead = dead_is(&x->o->dead, &found.targets[i].addr, now);
        add_address(x, dead ? "tried last: did not answer a moment ago" : "tried", found.targets[i].host,
                    &found.targets[i].addr, preference);
        if (x->addresses + i < WALK_TRIES_MAX)
            x->targets[x->addresses + i] = found.targets[i];
    }
    x->addresses += found.count;
    x->cut |= found.cut;
    x->tempfail |= found.tempfail;
    x->bad |= found.bad;
    group_end(&x->group);
    if (found.own) {
        x->own = true;
        x->group_next = x->list.count;
    }
    next_group(x);
}

static void next_group(struct explain *x) {
    if (x->group_next >= x->list.count || x->addresses >= WALK_TRIES_MAX || x->count == EXPLAIN_STEPS_MAX) {
        x->cut |= x->group_next < x->list.count;
        answer_way(x);
        return;
    }
    x->group_from = x->group_next;
    group_start(&x->group, x->o->cache, &x->list, x->group_from, &x->o->rand, loop_now_ms(x->o->loop), &x->group_next,
                &x->cut, on_group, x);
}

/* -- the way -- */

static void on_mx(void *arg, struct mxset *set) {
    struct explain *x = arg;
    enum outcome_local what;
    char name[MX_SITE_MAX + 1];
    x->asking = false;
    x->mx_authentic = set && set->authentic;
    uint32_t ttl = set ? mxset_ttl_s(set, loop_now_ms(x->o->loop)) : 0;
    for (uint32_t i = 0; set && set->status == DNS_OK && i < set->count; i++)
        add_host(x, arena_printf(&x->mem, "MX record, kept for %u s", ttl), set->records[i].name,
                 set->records[i].preference);
    if (set && set->truncated)
        explain_add(x, "more MX records than are looked at");
    int err = mx_list_init(&x->list, set, x->asked, &x->policy, &what);
    if (x->list.implicit)
        explain_add(x, "no MX record: the domain itself is the host");
    for (uint32_t i = 0; i < x->list.dropped; i++) {
        const struct mx_host *h = &x->list.hosts[x->list.count + i];
        add_host(x,
                 mx_is_own_name(&x->policy, h->name) ? "left out: our own name"
                                                     : "left out: not better than our own host",
                 h->name, h->preference);
    }
    if (err != ERR_OK) {
        answer_failure(x, what);
        return;
    }
    mx_site_name(&x->list, name);
    x->site = arena_strdup(&x->mem, name);
    next_group(x);
}

static void explain_fixed(struct explain *x, const struct tcp_addr *addr, const char *host) {
    enum mx_address verdict = addr->storage.ss_family == AF_UNIX ? MX_ADDRESS_GOOD : mx_judge_address(&x->policy, addr);
    if (verdict == MX_ADDRESS_GOOD) {
        add_address(x, "tried", host, addr, 0);
        x->targets[0] = (struct mx_target){.host = host, .addr = *addr};
        x->addresses = 1;
        answer_way(x);
    } else {
        answer_failure(x, verdict == MX_ADDRESS_OWN ? OUTCOME_OWN_HOST : OUTCOME_BAD_ADDRESS);
    }
}

/* A route with several hosts, in an order drawn for this answer. */
static void explain_targets(struct explain *x) {
    const struct outbound_route *rule = x->rule;
    char hosts[MX_SITE_MAX + 1];
    if (way_list_targets(&x->list, rule, &x->o->rand) != ERR_OK) {
        explain_answer(x, NULL);
        return;
    }
    for (size_t i = 0; i < rule->target_count; i++)
        add_host(x, arena_printf(&x->mem, "of the route, weight %u", rule->targets[i].weight), rule->targets[i].host,
                 0);
    mx_site_name(&x->list, hosts);
    x->site =
        arena_printf(&x->mem, "%s:%s:%u", rule->route.kind == ROUTE_SMTP ? "smtp" : "lmtp", hosts, x->policy.port);
    if (x->site)
        next_group(x);
    else
        explain_answer(x, NULL);
}

static void explain_route(struct explain *x, const struct route *r) {
    struct tcp_addr addr;
    char name[SITE_NAME_MAX];
    x->policy = x->setup->fixed;
    x->policy.port = r->port ? r->port : r->kind == ROUTE_LMTP ? ROUTE_LMTP_PORT : x->setup->s.port;
    if (x->rule->target_count) {
        explain_targets(x);
        return;
    }
    route_format(r, x->policy.port, name, sizeof name);
    x->site = arena_strdup(&x->mem, name);
    x->asked = arena_strdup(&x->mem, r->host);
    if (x->asked && tcp_addr_parse(&addr, span_of(r->host), x->policy.port) == ERR_OK)
        explain_fixed(x, &addr, x->asked);
    else if (x->asked && mx_list_single(&x->list, x->asked) == ERR_OK)
        next_group(x);
    else
        explain_answer(x, NULL);
}

static void start(struct explain *x) {
    struct tcp_addr addr;
    const struct outbound_route *rule = x->rule = routes_find(x->setup->routes, span_of(x->domain));
    char name[SITE_NAME_MAX];
    explain_add(x, arena_printf(&x->mem, "destination %s", x->domain));
    if (rule) {
        route_format(&rule->route, x->setup->s.port, name, sizeof name);
        explain_add(x, arena_printf(&x->mem, "rule for %s: %s", rule->domain, name));
    } else {
        explain_add(x, "no rule: by MX");
    }
    x->policy = x->setup->mx;
    if (rule && rule->route.kind != ROUTE_MX) {
        explain_route(x, &rule->route);
        return;
    }
    x->asked = rule && rule->route.host[0] ? arena_strdup(&x->mem, rule->route.host) : x->domain;
    if (x->asked == x->domain && x->domain[0] == '[') {
        x->site = x->domain;
        if (attempt_read_literal(span_of(x->domain), x->policy.port, &addr))
            explain_fixed(x, &addr, x->domain);
        else
            answer_failure(x, OUTCOME_BAD_DESTINATION);
        return;
    }
    if (!x->asked) {
        explain_answer(x, NULL);
        return;
    }
    x->asking = true;
    mxcache_ask(x->o->cache, x->asked, DNS_MX, loop_now_ms(x->o->loop), on_mx, x);
}

static bool read_domain(struct explain *x, struct span address) {
    ptrdiff_t at = span_rfind(address, '@');
    struct span domain = at < 0 ? address : span_from(address, (size_t)at + 1), canonical;
    if (domain.len > 2 && domain.len < 300 && domain.at[0] == '[')
        canonical = domain;
    else if (address_parse_domain(&canonical, domain, &x->mem) != ERR_OK)
        return false;
    x->domain = arena_dup(&x->mem, canonical).at;
    return x->domain && !memchr(canonical.at, 0, canonical.len);
}

void explain_start(struct outbound *o, uint64_t correlation, uint32_t verb, struct span address) {
    struct explain *x = o->explains.count < EXPLAINS_MAX ? calloc(1, sizeof *x) : NULL;
    if (!x) {
        LOG_WARN("admin_questions_full");
        return; /* the service tells that nobody answered */
    }
    x->o = o;
    x->setup = setup_ref(o->setup);
    x->correlation = correlation;
    x->verb = verb;
    arena_init(&x->mem, 4096, ARENA_MAX);
    list_push_back(&o->explains, &x->in_all);
    if (read_domain(x, address))
        start(x);
    else
        explain_answer(x, "not a domain or an address");
}
