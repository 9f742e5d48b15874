/*
 * sources: see sources.h. The walk over a pool is short (OUTBOUND_SOURCES_MAX), so nothing is prepared.
 */
#include "gateway/outbound/sources.h"

#include "gateway/outbound/rules.h"

static bool names_sender(const struct outbound_pool *p, struct span sender) {
    ptrdiff_t at = span_rfind(sender, '@');
    struct span domain = at < 0 ? SPAN_EMPTY : span_from(sender, (size_t)at + 1);
    for (size_t i = 0; i < p->sender_count; i++) {
        bool address = span_find(span_of(p->senders[i]), '@') >= 0;
        if (address ? span_eq_nocase(span_of(p->senders[i]), sender)
                    : domain.len && rules_pattern(p->senders[i], domain))
            return true;
    }
    return false;
}

/* "@tenant.example": all accounts whose name ends in it. */
static bool names_account(const struct outbound_pool *p, struct span account) {
    ptrdiff_t at = span_rfind(account, '@');
    struct span tenant = at < 0 ? SPAN_EMPTY : span_from(account, (size_t)at);
    for (size_t i = 0; i < p->account_count; i++) {
        struct span one = span_of(p->accounts[i]);
        if (span_eq_nocase(one, account) || (*p->accounts[i] == '@' && span_eq_nocase(one, tenant)))
            return true;
    }
    return false;
}

const struct outbound_pool *sources_pool(const struct outbound_pool *pools, size_t count, struct span account,
                                         struct span sender) {
    const struct outbound_pool *rest = NULL;
    for (size_t i = 0; account.len && i < count; i++) {
        if (names_account(&pools[i], account))
            return &pools[i];
    }
    for (size_t i = 0; i < count; i++) {
        if (!pools[i].sender_count && !pools[i].account_count)
            rest = rest ? rest : &pools[i];
        else if (names_sender(&pools[i], sender))
            return &pools[i];
    }
    return rest;
}

static bool is_family(const struct outbound_source *s, const struct tcp_addr *to) {
    return !to || s->address.storage.ss_family == to->storage.ss_family;
}

bool sources_has_family(const struct outbound_pool *p, const struct tcp_addr *to) {
    for (size_t i = 0; i < p->source_count; i++) {
        if (is_family(&p->sources[i], to))
            return true;
    }
    return false;
}

bool sources_has(const struct outbound_pool *p, const struct tcp_addr *ip) {
    for (size_t i = 0; i < p->source_count; i++) {
        if (tcp_addr_same_ip(&p->sources[i].address, ip))
            return true;
    }
    return false;
}

uint32_t sources_limit(const struct outbound_source *s, uint32_t day) {
    uint64_t limit = s->warm_first;
    if (!limit)
        return SOURCES_UNLIMITED;
    if (day < s->warm_day)
        return 0;
    for (uint32_t i = s->warm_day; i < day && limit < SOURCES_GROWN; i++) {
        uint64_t more = limit * s->warm_growth / 100;
        limit += more ? more : 1;
    }
    return limit < SOURCES_GROWN ? (uint32_t)limit : SOURCES_UNLIMITED;
}

const struct outbound_source *sources_draw(const struct outbound_pool *p, const struct tcp_addr *to,
                                           sources_usable usable, void *arg, struct rand *r) {
    const struct outbound_source *at[OUTBOUND_SOURCES_MAX];
    uint64_t sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < p->source_count && count < OUTBOUND_SOURCES_MAX; i++) {
        const struct outbound_source *s = &p->sources[i];
        if (!is_family(s, to) || !s->weight || !usable(arg, s))
            continue;
        at[count++] = s;
        sum += s->weight;
    }
    if (!sum)
        return NULL;
    uint64_t draw = rand_below(r, sum);
    size_t i = 0;
    while (draw >= at[i]->weight)
        draw -= at[i++]->weight;
    return at[i];
}

/* -- days -- */

static bool is_leap(uint64_t y) {
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

int sources_read_day(struct span text, uint32_t *day) {
    static const unsigned lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    uint64_t y, m, d, days = 0;
    if (text.len != 10 || text.at[4] != '-' || text.at[7] != '-' || !span_u64(span_first(text, 4), &y) ||
        !span_u64(span_first(span_from(text, 5), 2), &m) || !span_u64(span_from(text, 8), &d))
        return ERR_INVALID;
    if (y < 1970 || m < 1 || m > 12 || d < 1 || d > lengths[m - 1] + (m == 2 && is_leap(y)))
        return ERR_INVALID;
    for (uint64_t i = 1970; i < y; i++)
        days += 365 + is_leap(i);
    for (uint64_t i = 1; i < m; i++)
        days += lengths[i - 1] + (i == 2 && is_leap(y));
    *day = (uint32_t)(days + d - 1);
    return ERR_OK;
}
