/*
 * explain_pace: for `limits explain`: what rests, what is slowed, what rates say, and what our addresses have carried
 * today. Looks at the notes as they are (pace.h); asks and changes nothing.
 */
#include <string.h>

#include "base/clock.h"
#include "base/units.h"

#include "gateway/outbound/explain_in.h"

static const char *in_words(uint64_t ms, char to[32]) {
    units_format_duration(ms < 1000 ? ms : ms / 1000 * 1000, to, 32);
    return to;
}

/* Is this the name of the site, for whichever of our pools? */
static bool is_of_site(const char *name, const char *site) {
    size_t len = strlen(site);
    return strncmp(name, site, len) == 0 && (!name[len] || strncmp(name + len, "+from:", 6) == 0);
}

static void add_rest(struct explain *x, const struct pace_entry *e, const char *what) {
    char time[32];
    uint64_t now = loop_now_ms(x->o->loop), left = pace_pause_left_ms(e, now);
    if (left)
        explain_add(x, arena_printf(&x->mem, "%s rests for %s more, after a reply rule%s", what, in_words(left, time),
                                    strncmp(e->key, "from ", 5) == 0 ? " or a failure of its proxy" : ""));
    if (e->slow_until_ms > now)
        explain_add(x, arena_printf(&x->mem, "%s takes at most %u connections for %s more, after a reply rule", what,
                                    e->slow_max, in_words(e->slow_until_ms - now, time)));
}

static void add_health(struct explain *x, const struct pace_entry *e, const char *what) {
    char time[32];
    uint64_t now = loop_now_ms(x->o->loop);
    if (e->rest_until_ms > now)
        explain_add(x, arena_printf(&x->mem, "%s rests for %s more: it failed where others get through (%u in a row)",
                                    what, in_words(e->rest_until_ms - now, time), e->failures));
    if (e->window)
        explain_add(x, arena_printf(&x->mem, "%s has %u connections to the site, of at most %u after failures", what,
                                    e->busy, e->window));
}

static void add_source_notes(struct explain *x, const struct pace_entry *e, const char *what) {
    add_rest(x, e, what);
    add_health(x, e, what);
}

static void add_notes(struct explain *x) {
    for (struct map_node *n = map_next(&x->o->pace.entries, NULL); n; n = map_next(&x->o->pace.entries, n)) {
        const struct pace_entry *e = CONTAINER_OF(n, struct pace_entry, in_map);
        const char *at = strncmp(e->key, "from ", 5) == 0 ? strstr(e->key, " at ") : NULL;
        if (is_of_site(e->key, x->site))
            add_rest(x, e, e->key[strlen(x->site)] ? arena_printf(&x->mem, "the site, for %s,", e->key) : "the site");
        else if (at && is_of_site(at + 4, x->site))
            add_source_notes(x, e, arena_printf(&x->mem, "our address %.*s", (int)(at - e->key - 5), e->key + 5));
    }
}

static void add_rate(struct explain *x, const struct outbound_rate *r, const char *name) {
    char window[32], wait[32];
    const char *kind = r->site ? "site" : "domain", *key = arena_printf(&x->mem, "%s %s", kind, name);
    const struct pace_entry *e = key ? pace_find(&x->o->pace, key) : NULL;
    const struct pace_rate rate = {.messages = r->messages, .window_ms = r->window_ms};
    uint64_t ms = e && r->messages ? pace_wait_ms(e, &rate, e->held, loop_now_ms(x->o->loop)) : 0;
    if (r->messages)
        explain_add(x, arena_printf(&x->mem, "rate of the %s (%s): %u messages in %s; the next one %s%s", kind,
                                    r->site ? r->site : r->domain, r->messages, in_words(r->window_ms, window),
                                    ms ? "in " : "now", ms ? in_words(ms, wait) : ""));
    if (r->connections)
        explain_add(x, arena_printf(&x->mem, "connections of the %s (%s): at most %u", kind,
                                    r->site ? r->site : r->domain, r->connections));
    if (e && (e->busy || e->held))
        explain_add(x, arena_printf(&x->mem, "%u of its messages under way, %u wait in this node", e->busy, e->held));
}

/* As for a message: the first that fits, for the site and for the domain. */
void explain_rates(struct explain *x) {
    bool has_site = false, has_domain = false;
    for (size_t i = 0; i < x->setup->s.rate_count; i++) {
        const struct outbound_rate *r = &x->setup->s.rates[i];
        bool *has = r->site ? &has_site : &has_domain;
        const char *name = r->site ? x->site : x->domain;
        if (*has || !(r->site ? throttle_site_matches(r->site, name) : rules_pattern(r->domain, span_of(name))))
            continue;
        *has = true;
        add_rate(x, r, name);
    }
}

static void add_source(struct explain *x, const struct outbound_pool *p, const struct outbound_source *s) {
    char ip[128];
    uint32_t day = (uint32_t)(clock_wall_ms() / 86400000), limit = sources_limit(s, day);
    tcp_addr_ip(&s->address, ip, sizeof ip);
    const char *key = arena_printf(&x->mem, "from %s", ip);
    uint32_t today = key ? pace_today(pace_find(&x->o->pace, key), day) : 0;
    char way[EGRESS_NAME_MAX], rest[32];
    const struct pace_entry *e = key ? pace_find(&x->o->pace, key) : NULL;
    uint64_t now = loop_now_ms(x->o->loop), left = pace_pause_left_ms(e, now);
    if (e && e->rest_until_ms > now + left)
        left = e->rest_until_ms - now;
    const char *warm =
        limit == SOURCES_UNLIMITED ? "" : arena_printf(&x->mem, ", %u of %u messages of today (warm-up)", today, limit);
    bool away = s->egress.kind == EGRESS_DIRECT && !tcp_addr_is_local(&s->address);
    explain_add(x, arena_printf(&x->mem, "source of pool %s: %s%s%s, weight %u%s%s%s%s", p->name, ip,
                                *egress_name(s, way) ? ", through " : "", way, s->weight, warm ? warm : "",
                                away ? ", not on this host now" : "", left ? ", not used after a failure for " : "",
                                left ? in_words(left, rest) : ""));
}

void explain_sources(struct explain *x) {
    const struct outbound_settings *s = &x->setup->s;
    for (size_t i = 0; i < s->pool_count; i++) {
        for (size_t k = 0; k < s->pools[i].source_count; k++)
            add_source(x, &s->pools[i], &s->pools[i].sources[k]);
    }
}

void explain_pace(struct explain *x) {
    add_notes(x);
    explain_rates(x);
    explain_sources(x);
}
