/*
 * rates: see rates.h; and the questions of guard.h that count. The network is charged first, then the account; what
 * the account refuses is given back to the network.
 */
#include "base/log.h"

#include "gateway/guard/guard_inner.h"
#include "gateway/guard/rates.h"

static uint64_t add_bounded(uint64_t a, uint64_t b) {
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Makes `half` the half under way. One that lies back comes from another length of the window: all begins anew. */
static void roll(struct rate_cell *c, uint64_t half) {
    if (half == c->half)
        return;
    bool next = half == c->half + 1;
    if (half < c->half)
        c->told = 0;
    for (unsigned i = 0; i < RATE_KINDS; i++) {
        c->count[i][1] = next ? c->count[i][0] : 0;
        c->count[i][0] = 0;
    }
    c->half = half;
}

static enum rate_answer charge(struct rate_cell *c, enum rate_kind kind, uint64_t n, uint64_t limit, bool enforce) {
    uint64_t *count = c->count[kind];
    bool over = add_bounded(add_bounded(count[0], count[1]), n) > limit;
    if (!over || !enforce)
        count[0] = add_bounded(count[0], n);
    if (!over)
        return RATE_UNDER;
    if (c->told && c->half + 1 - c->told < 2)
        return RATE_OVER_TOLD;
    c->told = c->half + 1;
    return RATE_OVER;
}

enum rate_answer rate_charge(struct shelf *s, struct shelf_key k, enum rate_kind kind, uint64_t n, uint64_t limit,
                             uint64_t window_ms, bool enforce, uint64_t now_ms) {
    struct rate_cell *c = shelf_enter(s, k, true);
    enum rate_answer answer = RATE_UNDER; /* what cannot be remembered is let through */
    if (c) {
        roll(c, now_ms / (window_ms > 1 ? window_ms / 2 : 1));
        answer = charge(c, kind, n, limit, enforce);
    }
    shelf_leave(s, k);
    return answer;
}

void rate_refund(struct shelf *s, struct shelf_key k, enum rate_kind kind, uint64_t n) {
    struct rate_cell *c = shelf_enter(s, k, false);
    if (c)
        c->count[kind][0] -= c->count[kind][0] < n ? c->count[kind][0] : n;
    shelf_leave(s, k);
}

/* -- the questions -- */

static const char *const kind_names[RATE_KINDS] = {"connections", "messages", "recipients", "octets"};
static const char *const client_texts[RATE_KINDS] = {
    "Too many connections from your network, try again later",
    "Too many messages from your network, try again later",
    "Too many recipients from your network, try again later",
    "Too much mail from your network, try again later",
};
static const char *const account_texts[RATE_KINDS] = {
    "Too many connections of this account, try again later",
    "Too many messages of this account, try again later",
    "Too many recipients of this account, try again later",
    "Too much mail of this account, try again later",
};

static uint64_t limit_of(const struct guard_rate *r, enum rate_kind kind) {
    switch (kind) {
    case RATE_CONNECTIONS:
        return r->connections;
    case RATE_MESSAGES:
        return r->messages;
    case RATE_RECIPIENTS:
        return r->recipients;
    default:
        return r->octets;
    }
}

struct question {
    const struct guard_rules *rules;
    const struct check_facts *f;
    enum rate_kind kind;
    uint64_t n, now_ms;
};

static void tell(const struct question *q, const struct guard_rate *r, bool account) {
    LOG_INFO("rate_exceeded", LOG_SPAN("client", q->f->client_ip), LOG_SPAN("account", q->f->account),
             LOG_STR("of", account ? "account" : "client"), LOG_STR("what", kind_names[q->kind]),
             LOG_U64("limit", limit_of(r, q->kind)), LOG_U64("window_ms", r->window_ms),
             LOG_STR("action", guard_action(q->rules->c.rate_mode)));
}

/* False: over the limit, and the rule is in force. */
static bool ask(const struct question *q, struct shelf *s, struct shelf_key k, bool account) {
    const struct guard_rate *r = account ? &q->rules->c.per_account : &q->rules->c.per_client;
    bool enforce = q->rules->c.rate_mode == GUARD_ENFORCE;
    enum rate_answer a = rate_charge(s, k, q->kind, q->n, limit_of(r, q->kind), r->window_ms, enforce, q->now_ms);
    if (a == RATE_UNDER)
        return true;
    guard_tally(account ? GUARD_BY_ACCOUNT_RATE : GUARD_BY_CLIENT_RATE, enforce);
    if (a == RATE_OVER)
        tell(q, r, account);
    return !enforce;
}

static void refuse(const struct question *q, bool account, struct check_verdict *v) {
    bool connect = q->kind == RATE_CONNECTIONS;
    v->action = CHECK_REFUSE;
    v->close = connect;
    v->reply.code = connect ? 421 : 450;
    v->reply.enhanced = connect ? SPAN("4.7.0") : SPAN("4.7.1");
    v->reply.text = span_of(account ? account_texts[q->kind] : client_texts[q->kind]);
    v->by = account ? SPAN("rate of account") : SPAN("rate of client");
}

static void judge(struct guard *g, const struct question *q, struct check_verdict *v) {
    const struct guard_config *c = &q->rules->c;
    struct shelf_key network, account;
    bool by_network = limit_of(&c->per_client, q->kind) && !q->f->trusted &&
                      guard_network(q->f->client, c->v4_bits, c->v6_bits, &network);
    bool by_account = limit_of(&c->per_account, q->kind) && q->f->account.len;
    if (by_network && !ask(q, g->clients, network, false)) {
        refuse(q, false, v);
        return;
    }
    if (!by_account)
        return;
    account = shelf_key_add((struct shelf_key){{0}}, q->f->account, 0);
    if (ask(q, g->accounts, account, true))
        return;
    if (by_network)
        rate_refund(g->clients, network, q->kind, q->n);
    refuse(q, true, v);
}

static void count(struct guard *g, const struct check_facts *f, enum rate_kind kind, uint64_t n, uint64_t now_ms,
                  struct check_verdict *v) {
    *v = (struct check_verdict){.action = CHECK_PASS};
    if (!(atomic_load_explicit(&g->on, memory_order_relaxed) & GUARD_ON_RATES))
        return;
    struct guard_rules *rules = guard_rules_take(g);
    if (rules->c.rate_mode != GUARD_OFF)
        judge(g, &(struct question){.rules = rules, .f = f, .kind = kind, .n = n, .now_ms = now_ms}, v);
    guard_rules_release(rules);
}

void guard_count_connection(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v) {
    count(g, f, RATE_CONNECTIONS, 1, now_ms, v);
}

void guard_count_mail(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v) {
    count(g, f, RATE_MESSAGES, 1, now_ms, v);
}

void guard_count_recipient(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v) {
    count(g, f, RATE_RECIPIENTS, 1, now_ms, v);
}

void guard_count_octets(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v) {
    count(g, f, RATE_OCTETS, f->size, now_ms, v);
}
