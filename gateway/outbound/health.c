/*
 * health: see health.h. What is known stands in notes of pace.h, so that its memory is bounded with theirs: one for
 * each of our addresses, one for each at each site where it has connections or has failed, and one for the site.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#include "gateway/outbound/attempt.h"
#include "gateway/outbound/health.h"

METRIC_COUNTER_L(rests_site, "posthouse_delivery_source_rests_total", "why=\"site\"",
                 "Times that an address of ours was given a rest for its failures");
METRIC_COUNTER_L(rests_bind, "posthouse_delivery_source_rests_total", "why=\"bind\"",
                 "Times that an address of ours was given a rest for its failures");
METRIC_COUNTER(compared, "posthouse_delivery_source_comparisons_total",
               "Servers that were asked again from another address of ours");
METRIC_COUNTER(excused, "posthouse_delivery_sites_excused_total",
               "Failed attempts that were not held against the site, since other addresses of ours get through");
METRIC_COUNTER(shrunk, "posthouse_delivery_source_windows_shrunk_total",
               "Times that an address of ours was allowed fewer connections to a site");

/* -- notes -- */

bool health_key(char key[HEALTH_KEY_MAX], const struct site *site, const struct outbound_source *s) {
    char ip[128];
    tcp_addr_ip(&s->address, ip, sizeof ip);
    int n = site ? snprintf(key, HEALTH_KEY_MAX, "from %s at %.*s", ip, (int)site->hosts_len, site->name)
                 : snprintf(key, HEALTH_KEY_MAX, "from %s", ip);
    return n < HEALTH_KEY_MAX;
}

static struct pace_entry *find(const struct outbound *o, const struct site *site, const struct outbound_source *s) {
    char key[HEALTH_KEY_MAX];
    return health_key(key, site, s) ? pace_find(&o->pace, key) : NULL;
}

/* To be given back by pace_put. */
static struct pace_entry *note(struct outbound *o, const struct site *site, const struct outbound_source *s) {
    char key[HEALTH_KEY_MAX];
    return health_key(key, site, s) ? throttle_note(o, key) : NULL;
}

static uint64_t mark_of(const struct outbound_source *s) {
    char ip[128];
    return hash_bytes(ip, tcp_addr_ip(&s->address, ip, sizeof ip), 0) | 1;
}

/* The place in the attempt's pool as a bit; 0: an address that newer settings do not have. */
static uint64_t bit_of(const struct attempt *a, const struct outbound_source *s) {
    const struct outbound_pool *p = a->throttle.pool;
    for (size_t i = 0; p && s && i < p->source_count; i++) {
        if (tcp_addr_same_ip(&p->sources[i].address, &s->address))
            return UINT64_C(1) << i;
    }
    return 0;
}

static unsigned count_of(uint64_t bits) {
    return (unsigned)__builtin_popcountll(bits);
}

static bool is_same_server(const struct tcp_addr *a, const struct tcp_addr *b) {
    return a->len && a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

/* -- choosing -- */

static uint64_t rest_left_ms(const struct outbound *o, const struct pace_entry *e) {
    uint64_t now = loop_now_ms(o->loop);
    return e && e->rest_until_ms > now ? e->rest_until_ms - now : 0;
}

uint64_t health_left_ms(const struct outbound *o, const struct site *site, const struct outbound_source *s) {
    uint64_t here = rest_left_ms(o, find(o, site, s)), all = rest_left_ms(o, find(o, NULL, s));
    return here > all ? here : all;
}

bool health_has_room(const struct outbound *o, const struct site *site, const struct outbound_source *s) {
    const struct pace_entry *e = find(o, site, s);
    return !e || !e->window || e->busy < e->window;
}

bool health_is_comparing(const struct attempt *a, const struct tcp_addr *to) {
    return a->health.suspects && to && is_same_server(&a->health.target, to);
}

bool health_is_suspect(const struct attempt *a, const struct tcp_addr *to, const struct outbound_source *s) {
    return health_is_comparing(a, to) && (a->health.suspects & bit_of(a, s));
}

bool health_is_well(const struct outbound *o, const struct site *site, const struct outbound_source *s) {
    const struct pace_entry *e = find(o, site, s);
    return e && !e->failures && (e->up || (e->well_ms && loop_now_ms(o->loop) - e->well_ms < HEALTH_WELL_MS));
}

uint32_t health_connections(const struct site *s, uint32_t allowed) {
    uint64_t sum = 0;
    for (size_t i = 0; s->pool && i < s->pool->source_count; i++) {
        const struct pace_entry *e = find(s->o, s, &s->pool->sources[i]);
        if (rest_left_ms(s->o, e))
            continue;
        if (!e || !e->window)
            return allowed;
        sum += e->window;
    }
    return sum && sum < allowed ? (uint32_t)sum : allowed;
}

void health_note_here(struct outbound *o, const struct outbound_source *s, bool here) {
    struct pace_entry *e = find(o, NULL, s);
    char ip[128];
    if (here ? !e || !e->away : e && e->away)
        return;
    e = note(o, NULL, s);
    if (!e)
        return;
    tcp_addr_ip(&s->address, ip, sizeof ip);
    if (here)
        LOG_INFO("source_is_back", LOG_STR("source", ip));
    else
        LOG_WARN("source_not_here", LOG_STR("address", ip));
    e->away = !here;
    e->keep_until_ms = loop_now_ms(o->loop) + HEALTH_KEEP_MS;
    pace_put(e);
}

/* -- resting -- */

uint64_t health_rest_ms(uint32_t failures) {
    uint64_t ms = HEALTH_REST_FIRST_MS;
    for (uint32_t i = 0; i < failures && ms < HEALTH_REST_MAX_MS; i++)
        ms *= 2;
    return ms < HEALTH_REST_MAX_MS ? ms : HEALTH_REST_MAX_MS;
}

/* Begins a rest, unless one is under way (they failed in the same moment). False: it is. */
static bool rest(struct outbound *o, struct pace_entry *e) {
    if (!e || rest_left_ms(o, e))
        return false;
    uint64_t ms = health_rest_ms(e->failures++);
    e->rest_until_ms = loop_now_ms(o->loop) + ms + rand_below(&o->rand, ms / 8 + 1);
    e->keep_until_ms = e->rest_until_ms + HEALTH_KEEP_MS;
    return true;
}

static void rest_at(struct outbound *o, const struct site *site, const struct outbound_source *s, const char *why) {
    struct pace_entry *e = note(o, site, s);
    char ip[128];
    tcp_addr_ip(&s->address, ip, sizeof ip);
    if (rest(o, e)) {
        e->window = 1; /* one that comes back is tried with one connection */
        e->grown = 0;
        metric_add(&rests_site, 1);
        LOG_WARN("source_rests", LOG_STR("source", ip), LOG_STR("site", site->name),
                 LOG_U64("for_ms", rest_left_ms(o, e)), LOG_U64("failures", e->failures),
                 LOG_STR("text", why ? why : ""));
    }
    pace_put(e);
}

static void rest_those(struct attempt *a, uint64_t bits) {
    for (size_t i = 0; i < a->throttle.pool->source_count; i++) {
        if (bits >> i & 1)
            rest_at(a->o, a->site, &a->throttle.pool->sources[i], a->health.why);
    }
}

/* The kernel refuses to use it: it rests at all sites, which is told once for as long as it lasts. False: there is no
 * room to note that. */
static bool rest_everywhere(struct outbound *o, const struct outbound_source *s, int err) {
    struct pace_entry *e = note(o, NULL, s);
    char ip[128];
    tcp_addr_ip(&s->address, ip, sizeof ip);
    if (rest(o, e)) {
        metric_add(&rests_bind, 1);
        if (e->failures == 1)
            LOG_WARN("source_cannot_bind", LOG_STR("source", ip), LOG_ERR("why", err));
    }
    pace_put(e);
    return e != NULL;
}

static void forget_failures(struct pace_entry *e, const struct conn *c, const char *where) {
    char ip[128];
    if (!e || !e->failures)
        return;
    tcp_addr_ip(&c->source->address, ip, sizeof ip);
    LOG_INFO("source_works_again", LOG_STR("source", ip), LOG_STR("site", where), LOG_U64("failures", e->failures));
    e->failures = 0;
    e->rest_until_ms = 0;
}

/* -- connections -- */

void health_on_open(struct conn *c) {
    if (!c->source)
        return;
    c->health = note(c->o, c->site, c->source);
    if (c->health)
        c->health->busy++;
}

void health_on_close(struct conn *c) {
    if (!c->health)
        return;
    c->health->busy--;
    c->health->up -= c->established;
    pace_put(c->health);
    c->health = NULL;
}

void health_on_established(struct conn *c) {
    struct attempt *a = c->attempt;
    if (!c->source)
        return;
    if (c->health) {
        c->health->up++;
        c->health->well_ms = loop_now_ms(c->o->loop);
    }
    forget_failures(find(c->o, NULL, c->source), c, "all sites");
    if (!a || !health_is_comparing(a, &c->addr) || health_is_suspect(a, &c->addr, c->source))
        return;
    rest_those(a, a->health.suspects & a->health.barred);
    a->health.suspects = 0;
}

/* -- windows -- */

static void shrink(struct outbound *o, struct pace_entry *e) {
    uint32_t now = e->window && e->window < e->busy + 1 ? e->window : e->busy + 1; /* the one that failed is closed */
    uint32_t step = 1 + now / 8;
    e->window = now > step ? now - step : 1;
    e->grown = 0;
    e->keep_until_ms = loop_now_ms(o->loop) + HEALTH_KEEP_MS;
    metric_add(&shrunk, 1);
}

static void grow(struct pace_entry *e, uint32_t limit) {
    if (!e->window || ++e->grown < e->window)
        return;
    e->grown = 0;
    if (++e->window >= limit)
        e->window = 0;
}

/* The two addresses of ours that were last heard out at this site. */
static void vouch(struct site *s, const struct outbound_source *by, uint64_t now) {
    struct pace_entry *e = s->hosts;
    uint64_t mark = mark_of(by);
    if (!e)
        return;
    if (e->vouched_by[0] != mark) {
        e->vouched_by[1] = e->vouched_by[0];
        e->vouched_ms[1] = e->vouched_ms[0];
        e->vouched_by[0] = mark;
    }
    e->vouched_ms[0] = now;
    e->keep_until_ms = now + HEALTH_WELL_MS;
}

static void suspect(struct attempt *a, const struct conn *c) {
    struct health *h = &a->health;
    if (!is_same_server(&h->target, &c->addr))
        h->suspects = 0;
    h->target = c->addr;
    h->suspects |= bit_of(a, c->source);
}

static void bar(struct attempt *a, const struct conn *c, const struct attempt_result *r) {
    a->health.barred |= bit_of(a, c->source);
    a->health.why = arena_printf(&a->mem, "%.*s", SPAN_FMT(r->text));
}

/* False: it has the smallest window already. */
static bool shrink_at(struct attempt *a, const struct conn *c) {
    struct pace_entry *n = note(a->o, a->site, c->source);
    bool is_least = n && n->window == 1;
    if (n)
        shrink(a->o, n);
    pace_put(n);
    return !is_least;
}

void health_on_result(struct attempt *a, const struct conn *c, const struct client_event *e,
                      const struct attempt_result *r) {
    a->health.throttled = false;
    if (!c->source || r->verdict.next == OUTCOME_NEXT_AGAIN)
        return;
    if (r->verdict.scope < SCOPE_HOST) {
        vouch(a->site, c->source, loop_now_ms(a->o->loop));
        forget_failures(c->health, c, a->site->name);
        if (r->verdict.outcome == OUTCOME_DELIVERED && c->health)
            grow(c->health, a->o->setup->s.per_site);
        return;
    }
    if (e->stage > CLIENT_HELO && e->stage < CLIENT_READY) /* TLS, a login: no matter of addresses */
        return;
    a->health.failed |= bit_of(a, c->source);
    if (!c->established)
        return;
    bool is_least = !shrink_at(a, c);
    a->health.throttled = r->verdict.next == OUTCOME_NEXT_HOST && r->verdict.outcome == OUTCOME_DEFERRED;
    if (a->health.throttled)
        suspect(a, c);
    if (a->health.throttled && is_least)
        bar(a, c, r);
}

/* -- whose fault it is -- */

/* ERR_OK: the kernel takes it, or cannot tell now. */
static int try_bind(const struct outbound_source *s) {
    int fd = tcp_bind(&s->address, false);
    if (fd >= 0)
        close(fd);
    return fd == ERR_UNREACHABLE || fd == ERR_DENIED || fd == ERR_IO ? fd : ERR_OK;
}

static void ask_again(struct attempt *a, const struct conn *c) {
    dead_clear(&a->o->dead, &c->addr); /* not for the fault of an address of ours */
    a->target.addr = c->addr;
    a->fresh = true;
    attempt_same_target(a);
}

static bool has_failed_to_bind(const struct attempt *a, const struct conn *c, const struct client_event *e, int err) {
    if (e->stage != CLIENT_CONNECT || err == ERR_OK || err == ERR_TIMEOUT || c->source->egress.kind != EGRESS_DIRECT)
        return false;
    int why = try_bind(c->source);
    return why && rest_everywhere(a->o, c->source, why); /* else it would be drawn again at once, without end */
}

/* One that has sessions there now and fails with another was told that these are enough. */
static bool has_sessions(const struct attempt *a, const struct conn *c) {
    const struct pace_entry *e = find(a->o, a->site, c->source);
    return e && e->up;
}

static bool may_compare(struct attempt *a, const struct conn *c, const struct client_event *e) {
    unsigned most = e->answer == CLIENT_ANSWER_TIMEOUT ? 1 : HEALTH_COMPARISONS;
    const struct pace_entry *hosts = a->site->hosts;
    if (a->o->draining || count_of(a->health.suspects) > most || throttle_site_left_ms(a->site))
        return false;
    bool lately = hosts && hosts->compare_after_ms > loop_now_ms(a->o->loop);
    return throttle_has_other(a, &c->addr, lately);
}

bool health_compare(struct attempt *a, const struct conn *c, const struct client_event *e,
                    const struct attempt_result *r, int err) {
    struct health *h = &a->health;
    uint64_t bit = bit_of(a, c->source);
    if (!bit || c->established || e->stage > CLIENT_HELO || r->verdict.outcome != OUTCOME_DEFERRED ||
        r->verdict.next != OUTCOME_NEXT_HOST)
        return false;
    if (has_failed_to_bind(a, c, e, err)) {
        h->failed &= ~bit;
        ask_again(a, c);
        return true;
    }
    suspect(a, c);
    if (has_sessions(a, c))
        (void)shrink_at(a, c);
    else
        bar(a, c, r);
    if (may_compare(a, c, e)) {
        metric_add(&compared, 1);
        ask_again(a, c);
        return true;
    }
    if (count_of(h->suspects) > 1 && a->site->hosts) {
        a->site->hosts->compare_after_ms = loop_now_ms(a->o->loop) + HEALTH_AGAIN_MS;
        a->site->hosts->keep_until_ms = loop_now_ms(a->o->loop) + HEALTH_WELL_MS;
    }
    h->suspects = 0;
    return false;
}

/* Of the two that were heard out last, one that has not failed now; those that have vouch no more. */
static bool has_voucher(const struct attempt *a, uint64_t now) {
    struct pace_entry *e = a->site->hosts;
    const struct outbound_pool *p = a->throttle.pool;
    bool found = false;
    for (int k = 0; e && k < 2; k++) {
        bool failed = !e->vouched_by[k] || now - e->vouched_ms[k] >= HEALTH_WELL_MS;
        for (size_t i = 0; i < p->source_count && !failed; i++)
            failed = (a->health.failed >> i & 1) && mark_of(&p->sources[i]) == e->vouched_by[k];
        if (failed)
            e->vouched_by[k] = 0;
        found |= !failed;
    }
    return found;
}

bool health_excuses_site(struct attempt *a) {
    if (!a->throttle.pool || !a->health.failed || !has_voucher(a, loop_now_ms(a->o->loop)))
        return false;
    metric_add(&excused, 1);
    rest_those(a, a->health.barred);
    throttle_rest_pool(a);
    return true;
}
