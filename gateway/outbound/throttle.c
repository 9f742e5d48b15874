/*
 * throttle: see throttle.h. Nothing here ends an attempt from within a call about another one: a pause is noted, and
 * the sites that wait are looked at from a timer.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"

#include "gateway/outbound/attempt.h"

enum { DAY_S = 86400, SWEEP_EVERY = 30, ELSEWHERE_MAX = 3, BUSY_AGAIN_MS = 5000, AWAY_AGAIN_MS = 60000 };

METRIC_COUNTER(paused, "posthouse_delivery_pauses_total", "Pauses of a site, or of one of our addresses at a site");
METRIC_COUNTER(slowed, "posthouse_delivery_slowed_total", "Times that a site was slowed by a rule");
METRIC_COUNTER(judged, "posthouse_delivery_rejudged_total", "Replies whose class a rule has changed");
METRIC_COUNTER_L(sent_back_pause, "posthouse_delivery_sent_back_total", "why=\"pause\"", "Jobs given back until later");
METRIC_COUNTER_L(sent_back_rate, "posthouse_delivery_sent_back_total", "why=\"rate\"", "Jobs given back until later");
METRIC_COUNTER_L(sent_back_source, "posthouse_delivery_sent_back_total", "why=\"source\"",
                 "Jobs given back until later");
METRIC_COUNTER(unpaced, "posthouse_delivery_unpaced_total", "Times that there was no room for a note about pace");

static uint64_t now_of(const struct outbound *o) {
    return loop_now_ms(o->loop);
}

static uint32_t today(void) {
    return (uint32_t)(clock_wall_ms() / 1000 / DAY_S);
}

struct pace_entry *throttle_note(struct outbound *o, const char *key) {
    struct pace_entry *e = pace_get(&o->pace, key, now_of(o), today());
    if (!e)
        metric_add(&unpaced, 1);
    return e;
}

/* -- names -- */

const char *throttle_name(struct attempt *a, const char *site) {
    const struct outbound_settings *s = &a->setup->s;
    struct throttle *t = &a->throttle;
    t->plain = site;
    if (a->route.kind != ROUTE_LMTP)
        t->pool = sources_pool(s->pools, s->pool_count, a->job->has_account ? frame_span(a->job->account) : SPAN_EMPTY,
                               frame_span(a->job->sender));
    return t->pool && site ? arena_printf(&a->mem, "%s+from:%s", site, t->pool->name) : site;
}

static bool source_key(char key[THROTTLE_PLAIN_MAX], const char *site, const struct outbound_source *s) {
    char ip[128];
    tcp_addr_ip(&s->address, ip, sizeof ip);
    int n = site ? snprintf(key, THROTTLE_PLAIN_MAX, "from %s at %s", ip, site)
                 : snprintf(key, THROTTLE_PLAIN_MAX, "from %s", ip);
    return n < THROTTLE_PLAIN_MAX;
}

/* "mx1.example+mx2.example", "smtp:mx.example:25+login:...". */
bool throttle_site_matches(const char *pattern, const char *site) {
    struct span rest = span_of(site);
    if (span_starts_nocase(rest, SPAN("smtp:")) || span_starts_nocase(rest, SPAN("lmtp:")))
        rest = span_from(rest, 5);
    while (rest.len) {
        struct span one = span_cut(rest, '+', &rest), port;
        if (rules_pattern(pattern, one) || rules_pattern(pattern, span_cut(one, ':', &port)))
            return true;
    }
    return false;
}

/* -- our addresses -- */

struct ask {
    struct outbound *o;
    const char *site;
    const struct attempt *a;
    const struct tcp_addr *to; /* NULL: any */
    bool roomy, proven;        /* only those below their window; only those that are well at this site */
    bool paused, away;         /* what stood in the way, besides the messages of today */
    uint64_t first_ms;         /* the earliest end of a pause */
};

static struct ask ask_for(const struct attempt *a, const struct tcp_addr *to) {
    return (struct ask){.o = a->o, .site = a->site->name, .a = a, .to = to};
}

static bool is_used_up(const struct outbound *o, const struct outbound_source *s) {
    char key[THROTTLE_PLAIN_MAX];
    uint32_t limit = sources_limit(s, today());
    return limit != SOURCES_UNLIMITED && source_key(key, NULL, s) &&
           pace_today(pace_find(&o->pace, key), today()) >= limit;
}

static uint64_t source_left_ms(const struct outbound *o, const char *site, const struct outbound_source *s) {
    char key[THROTTLE_PLAIN_MAX];
    return source_key(key, site, s) ? pace_pause_left_ms(pace_find(&o->pace, key), now_of(o)) : 0;
}

static bool is_usable(void *arg, const struct outbound_source *s) {
    struct ask *ask = arg;
    const struct site *site = ask->a->site;
    uint64_t left = source_left_ms(ask->o, ask->site, s), everywhere = source_left_ms(ask->o, NULL, s);
    uint64_t rest = health_left_ms(ask->o, site, s);
    left = everywhere > left ? everywhere : left;
    left = rest > left ? rest : left;
    if (left && (!ask->paused || left < ask->first_ms))
        ask->first_ms = left;
    ask->paused |= left > 0;
    if (left)
        return false;
    /* it may be on another host of a cluster now */
    bool here = s->egress.kind != EGRESS_DIRECT || tcp_addr_is_local(&s->address);
    health_note_here(ask->o, s, here);
    ask->away |= !here;
    if (!here || is_used_up(ask->o, s) || health_is_suspect(ask->a, ask->to, s))
        return false;
    return (!ask->roomy || health_has_room(ask->o, site, s)) && (!ask->proven || health_is_well(ask->o, site, s));
}

const struct outbound_source *throttle_source(struct attempt *a, const struct tcp_addr *to) {
    struct ask ask = ask_for(a, to);
    const struct outbound_source *s;
    if (!a->throttle.pool || to->storage.ss_family == AF_UNIX)
        return NULL;
    ask.roomy = true;
    ask.proven = health_is_comparing(a, to);
    s = sources_draw(a->throttle.pool, to, is_usable, &ask, &a->o->rand);
    if (s)
        return s;
    ask.roomy = ask.proven = false; /* it is better to go over a window than to stand still */
    return sources_draw(a->throttle.pool, to, is_usable, &ask, &a->o->rand);
}

bool throttle_has_source(struct attempt *a, const struct tcp_addr *to) {
    struct ask ask = ask_for(a, to);
    return sources_draw(a->throttle.pool, to, is_usable, &ask, &a->o->rand) != NULL;
}

void throttle_rest_source(struct attempt *a, const struct outbound_source *s, const char *site, uint64_t ms) {
    char key[THROTTLE_PLAIN_MAX];
    struct pace_entry *e = source_key(key, site, s) ? throttle_note(a->o, key) : NULL;
    if (e)
        pace_pause(e, now_of(a->o) + ms);
    pace_put(e);
}

static bool check_pool(struct attempt *a);

bool throttle_has_other(struct attempt *a, const struct tcp_addr *to, bool proven) {
    struct ask ask = ask_for(a, to);
    ask.proven = proven;
    return sources_draw(a->throttle.pool, to, is_usable, &ask, &a->o->rand) != NULL;
}

void throttle_rest_pool(struct attempt *a) {
    struct ask ask = ask_for(a, NULL);
    if (sources_draw(a->throttle.pool, NULL, is_usable, &ask, &a->o->rand) || !ask.paused || ask.away)
        return;
    pace_pause(a->site->pace, now_of(a->o) + ask.first_ms);
    throttle_wake(a->o, 0);
}

bool throttle_target(struct attempt *a) {
    const struct outbound_pool *p = a->throttle.pool;
    const struct tcp_addr *to = &a->target.addr;
    if (!p || to->storage.ss_family == AF_UNIX)
        return true;
    if (throttle_has_source(a, to))
        return true;
    if (!check_pool(a))
        return false;
    const struct attempt_result r = {
        .verdict = {OUTCOME_DEFERRED, SCOPE_HOST, OUTCOME_NEXT_HOST, false, "4.4.0", ""},
        .enhanced = SPAN("4.4.0"),
        .text = sources_has_family(p, to) ? SPAN("no address of ours may be used with this server now")
                                          : SPAN("no address of ours is of the family of this server's address"),
        .remote = arena_dup(&a->mem, span_of(a->target.host)),
    };
    attempt_skip_host(a, &r);
    return false;
}

/* -- coming in -- */

static void find_rates(struct attempt *a) {
    const struct outbound_settings *s = &a->setup->s;
    struct throttle *t = &a->throttle;
    char key[THROTTLE_PLAIN_MAX];
    for (size_t i = 0; i < s->rate_count; i++) {
        const struct outbound_rate *r = &s->rates[i];
        int which = r->site ? THROTTLE_SITE : THROTTLE_DOMAIN;
        const char *name = r->site ? a->secure.site : a->destination;
        bool fits = r->site ? throttle_site_matches(r->site, name) : rules_pattern(r->domain, span_of(name));
        if (t->rate[which] || !fits)
            continue;
        t->rate[which] = r;
        if (snprintf(key, sizeof key, "%s %s", r->site ? "site" : "domain", name) < (int)sizeof key)
            t->entry[which] = throttle_note(a->o, key);
    }
}

static struct pace_rate rate_of(const struct outbound_rate *r) {
    return (struct pace_rate){.messages = r->messages, .window_ms = r->window_ms};
}

/* Until it may go. ahead: with those that wait already. */
static uint64_t rate_wait_ms(const struct attempt *a, bool ahead) {
    const struct throttle *t = &a->throttle;
    uint64_t most = 0;
    for (int i = 0; i < THROTTLE_RATES; i++) {
        const struct outbound_rate *r = t->rate[i];
        if (!t->entry[i] || !r->messages)
            continue;
        struct pace_rate rate = rate_of(r);
        uint64_t wait = pace_wait_ms(t->entry[i], &rate, ahead ? t->entry[i]->held : 0, now_of(a->o));
        most = wait > most ? wait : most;
    }
    return most;
}

static bool domain_is_full(const struct attempt *a, uint32_t more) {
    const struct outbound_rate *r = a->throttle.rate[THROTTLE_DOMAIN];
    const struct pace_entry *e = a->throttle.entry[THROTTLE_DOMAIN];
    return r && e && r->connections && e->busy + more >= r->connections;
}

static void send_back(struct attempt *a, uint64_t ms, struct metric *count, const char *why) {
    a->throttle.wait_ms = ms;
    a->throttle.why = why;
    metric_add(count, 1);
    attempt_hand_back(a);
}

/* A pause, told to the scheduler: where senders differ in their addresses, only these recipients wait. */
static void tell_pause(struct attempt *a, uint64_t left) {
    if (a->throttle.pool)
        a->throttle.wait_ms = left + rand_below(&a->o->rand, left / 8 + 1);
    else
        a->throttle.pause_ms = left;
    a->throttle.why = "the site rests";
}

void throttle_hand_back(struct attempt *a) {
    uint64_t left = throttle_site_left_ms(a->site);
    if (left) {
        tell_pause(a, left);
        metric_add(&sent_back_pause, 1);
    }
    attempt_hand_back(a);
}

/* No address of the pool may be used: false, and it was handed back. */
static bool check_pool(struct attempt *a) {
    struct ask ask = ask_for(a, NULL);
    if (!a->throttle.pool || sources_draw(a->throttle.pool, NULL, is_usable, &ask, &a->o->rand))
        return true;
    uint64_t until_tomorrow = (DAY_S - clock_wall_ms() / 1000 % DAY_S) * 1000;
    uint64_t wait = until_tomorrow < PACE_PROMISE_MAX_MS ? until_tomorrow : PACE_PROMISE_MAX_MS;
    if (ask.away)
        wait = AWAY_AGAIN_MS;
    if (ask.paused && ask.first_ms < wait)
        wait = ask.first_ms;
    wait += rand_below(&a->o->rand, wait / 4 + 1);
    send_back(a, wait, &sent_back_source, "no address of this sender's pool may be used now");
    return false;
}

static bool check_rates(struct attempt *a) {
    struct throttle *t = &a->throttle;
    uint64_t wait = rate_wait_ms(a, true), promise = 0;
    for (int i = 0; i < THROTTLE_RATES && wait > THROTTLE_HOLD_MS; i++) {
        if (!t->entry[i] || !t->rate[i]->messages)
            continue;
        struct pace_rate rate = rate_of(t->rate[i]);
        uint64_t one = pace_promise_ms(t->entry[i], &rate, now_of(a->o), &a->o->rand);
        promise = one > promise ? one : promise;
    }
    if (promise) {
        send_back(a, promise, &sent_back_rate, "its rate is used up");
        return false;
    }
    const struct pace_entry *domain = t->entry[THROTTLE_DOMAIN];
    if (domain_is_full(a, 0) && domain->held > t->rate[THROTTLE_DOMAIN]->connections) {
        send_back(a, BUSY_AGAIN_MS + rand_below(&a->o->rand, BUSY_AGAIN_MS), &sent_back_rate,
                  "the connections for its domain are used up");
        return false;
    }
    return true;
}

bool throttle_join(struct attempt *a) {
    struct site *s = a->site;
    struct throttle *t = &a->throttle;
    char key[THROTTLE_PLAIN_MAX];
    if (!s->pace)
        s->pace = throttle_note(a->o, s->name);
    if (t->pool && !s->shared && !s->slots && snprintf(key, sizeof key, "all %s", t->plain) < (int)sizeof key)
        s->shared = throttle_note(a->o, key);
    if (!s->hosts && !s->slots && snprintf(key, sizeof key, "hosts %s", a->secure.site) < (int)sizeof key)
        s->hosts = throttle_note(a->o, key);
    find_rates(a);
    s->hosts_len = strlen(a->secure.site);
    s->pool = t->pool;
    if (s->setup != a->setup) {
        setup_free(s->setup);
        s->setup = setup_ref(a->setup);
    }
    s->rate_connections = t->rate[THROTTLE_SITE] ? t->rate[THROTTLE_SITE]->connections : 0;
    s->per_connection = t->rate[THROTTLE_SITE] ? t->rate[THROTTLE_SITE]->per_connection : 0;
    if (throttle_site_left_ms(s)) {
        throttle_hand_back(a);
        return false;
    }
    if (!check_pool(a) || !check_rates(a))
        return false;
    t->held = true;
    for (int i = 0; i < THROTTLE_RATES; i++) {
        if (t->entry[i])
            t->entry[i]->held++;
    }
    return true;
}

/* -- going -- */

bool throttle_may_go(struct attempt *a) {
    if (a->throttle.admitted)
        return true;
    uint64_t wait = rate_wait_ms(a, false);
    if (wait)
        throttle_wake(a->o, wait);
    return !wait && !domain_is_full(a, 0);
}

static void unhold(struct throttle *t) {
    for (int i = 0; t->held && i < THROTTLE_RATES; i++) {
        if (t->entry[i])
            t->entry[i]->held--;
    }
    t->held = false;
}

static void charge(struct attempt *a) {
    struct throttle *t = &a->throttle;
    for (int i = 0; i < THROTTLE_RATES; i++) {
        if (!t->entry[i] || !t->rate[i]->messages)
            continue;
        struct pace_rate rate = rate_of(t->rate[i]);
        pace_take(t->entry[i], &rate, now_of(a->o));
    }
}

void throttle_admit(struct attempt *a) {
    struct throttle *t = &a->throttle;
    if (t->admitted)
        return;
    unhold(t);
    t->admitted = true;
    charge(a);
    if (t->entry[THROTTLE_DOMAIN])
        t->entry[THROTTLE_DOMAIN]->busy++;
}

void throttle_end(struct attempt *a) {
    struct throttle *t = &a->throttle;
    unhold(t);
    if (t->admitted && t->entry[THROTTLE_DOMAIN]) {
        t->entry[THROTTLE_DOMAIN]->busy--;
        if (t->entry[THROTTLE_DOMAIN]->held) /* under newer settings, perhaps, at another site */
            throttle_wake(a->o, 0);
    }
    t->admitted = false;
    for (int i = 0; i < THROTTLE_RATES; i++) {
        pace_put(t->entry[i]);
        t->entry[i] = NULL;
    }
}

void throttle_count(struct attempt *a) {
    char key[THROTTLE_PLAIN_MAX];
    const struct outbound_source *s = a->conn->source;
    if (a->throttle.charged) /* recipients that had no place in the first transaction */
        charge(a);
    a->throttle.charged = true;
    if (!s || !s->warm_first || !source_key(key, NULL, s))
        return;
    struct pace_entry *e = throttle_note(a->o, key);
    pace_count(e, today());
    pace_put(e);
}

uint32_t throttle_recipients(const struct attempt *a, uint32_t max) {
    bool changed = false;
    for (int i = 0; i < THROTTLE_RATES; i++) {
        const struct outbound_rate *r = a->throttle.rate[i];
        if (!r || !r->recipients)
            continue;
        max = changed && max < r->recipients ? max : r->recipients;
        changed = true;
    }
    return max;
}

/* Newer settings do not have its address. */
static bool is_taken_out(const struct conn *c) {
    return c->source && c->site->pool && !sources_has(c->site->pool, &c->source->address);
}

bool throttle_conn_is_worn(const struct conn *c) {
    if (is_taken_out(c) || (c->site->per_connection && c->messages >= c->site->per_connection))
        return true;
    return c->source && (source_left_ms(c->o, c->site->name, c->source) || health_left_ms(c->o, c->site, c->source) ||
                         is_used_up(c->o, c->source));
}

/* -- sites -- */

uint64_t throttle_site_left_ms(const struct site *s) {
    return pace_pause_left_ms(s->pace, now_of(s->o));
}

uint32_t throttle_site_limit(const struct site *s, uint32_t allowed) {
    return pace_connections(s->pace, allowed, now_of(s->o));
}

/* -- what a reply changes -- */

static void log_rule(const char *event, const struct attempt *a, const struct conn *c, const struct rule *r,
                     const struct attempt_result *said) {
    char ip[128] = "";
    if (c->source)
        tcp_addr_ip(&c->source->address, ip, sizeof ip);
    /* events: source_paused, site_paused, site_slowed */
    LOG_WARN(event, LOG_STR("site", a->site->name), LOG_STR("source", ip), LOG_U64("for_ms", r->for_ms),
             LOG_U64("rule_line", r->line), LOG_STR("remote", c->remote), LOG_U64("code", said->code),
             LOG_SPAN("text", said->text));
}

/* The address of the connection rests at this site; when no other is left, so does the site. */
static void suspend(struct attempt *a, struct conn *c, const struct rule *r, const struct attempt_result *said) {
    char key[THROTTLE_PLAIN_MAX];
    uint64_t until = now_of(a->o) + r->for_ms;
    metric_add(&paused, 1);
    if (c->source && source_key(key, a->site->name, c->source)) {
        struct pace_entry *e = throttle_note(a->o, key);
        pace_pause(e, until);
        pace_put(e);
        struct ask ask = ask_for(a, NULL);
        if (sources_draw(a->throttle.pool, NULL, is_usable, &ask, &a->o->rand)) {
            log_rule("source_paused", a, c, r, said);
            return;
        }
        if (ask.paused)
            until = now_of(a->o) + ask.first_ms;
    }
    if (!throttle_site_left_ms(a->site))
        log_rule("site_paused", a, c, r, said);
    pace_pause(a->site->pace, until);
    uint64_t left = throttle_site_left_ms(a->site);
    if (!a->throttle.pool)
        a->throttle.pause_ms = left;
    a->throttle.why = "a reply rule";
    throttle_wake(a->o, 0);
}

static void slow(struct attempt *a, struct conn *c, const struct rule *r, const struct attempt_result *said) {
    struct pace_entry *e = a->site->pace;
    uint32_t limit = site_limit(a->site);
    uint32_t base = a->site->slots < limit ? a->site->slots : limit;
    uint32_t to = r->connections ? r->connections : base * r->percent / 100;
    uint64_t now = now_of(a->o);
    if (!e)
        return;
    if (e->slow_until_ms <= now) { /* one burst of refusals shrinks it once */
        e->slow_max = to ? to : 1;
        metric_add(&slowed, 1);
        log_rule("site_slowed", a, c, r, said);
    }
    e->slow_until_ms = now + r->for_ms > e->slow_until_ms ? now + r->for_ms : e->slow_until_ms;
}

static void rejudge(struct attempt *a, const struct rule *r, struct attempt_result *said) {
    bool permanent = r->action == RULE_PERMANENT;
    char class = permanent ? '5' : '4';
    enum outcome to = permanent ? OUTCOME_FAILED : OUTCOME_DEFERRED;
    const char *rest =
        said->enhanced.len > 2 ? arena_printf(&a->mem, "%.*s", SPAN_FMT(span_from(said->enhanced, 2))) : "0.0";
    const char *status = arena_printf(&a->mem, "%c.%s", class, *r->status ? r->status : rest ? rest : "0.0");
    if (said->verdict.outcome != to) {
        said->verdict.outcome = to;
        said->verdict.next = OUTCOME_NEXT_NONE;
        metric_add(&judged, 1);
    }
    if (!permanent)
        said->verdict.fatal_if_all = false;
    if (status)
        said->enhanced = span_of(status);
    said->has_category = r->has_category;
    said->category = r->category;
}

void throttle_judge(struct attempt *a, struct conn *c, const struct client_event *e, struct attempt_result *r) {
    health_on_result(a, c, e, r);
    bool refused = r->verdict.outcome == OUTCOME_DEFERRED || r->verdict.outcome == OUTCOME_FAILED;
    if (!e->reply || e->reply->code < 400 || !refused || r->verdict.next == OUTCOME_NEXT_AGAIN)
        return;
    const struct rules_question q = {.code = e->reply->code,
                                     .enhanced = span_of(e->reply->enhanced),
                                     .text = reply_text(e->reply),
                                     .host = c->host,
                                     .domain = a->destination,
                                     .stage = e->stage};
    const struct rule *rule = rules_match(a->o->setup->s.rules, &q);
    if (!rule)
        return;
    bool rests = rule->action == RULE_SUSPEND || rule->action == RULE_SLOW;
    if (rests && buf_len(&c->client.introduced)) /* it was said to a stranger whom we stand for, and not to us */
        return;
    if (rule->action == RULE_SUSPEND)
        suspend(a, c, rule, r);
    else if (rule->action == RULE_SLOW)
        slow(a, c, rule, r);
    else
        rejudge(a, rule, r);
}

bool throttle_goes_elsewhere(struct attempt *a, const struct conn *c) {
    struct ask ask = ask_for(a, &c->addr);
    if (!c->source || a->throttle.elsewhere == ELSEWHERE_MAX ||
        (!a->health.throttled && !source_left_ms(a->o, a->site->name, c->source)) ||
        !sources_draw(a->throttle.pool, &c->addr, is_usable, &ask, &a->o->rand))
        return false;
    a->throttle.elsewhere++;
    return true;
}

/* -- the node -- */

static void on_timer(void *arg) {
    struct outbound *o = arg;
    o->wake_ms = 0;
    sites_wake(o);
}

void throttle_wake(struct outbound *o, uint64_t ms) {
    uint64_t at = now_of(o) + ms;
    if (o->wake_ms && o->wake_ms <= at)
        return;
    o->wake_ms = at ? at : 1;
    loop_timer_set(o->pace_timer, ms);
}

int throttle_open(struct outbound *o) {
    pace_init(&o->pace);
    o->pace_timer = loop_timer_new(o->loop, on_timer, o);
    return o->pace_timer ? ERR_OK : ERR_NOMEM;
}

void throttle_tick(struct outbound *o) {
    if (++o->pace_ticks % SWEEP_EVERY == 0)
        pace_sweep(&o->pace, now_of(o), today());
}

void throttle_close(struct outbound *o) {
    if (o->pace_timer)
        loop_timer_close(o->pace_timer);
    o->pace_timer = NULL;
    pace_deinit(&o->pace);
}
