/*
 * mx_order: the addresses of the hosts of one preference, in the order in which they are tried.
 *
 * Each host's addresses alternate between the families. The places are dealt out in rounds, one
 * address of each host at a time, and the targets then go host by host: a dead host costs its
 * share of the tries and no more. When the cut would leave out a family that some host has, the last place goes to it.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "gateway/outbound/mx.h"

enum { CONSIDERED = MX_TARGETS_MAX * 2 }; /* addresses of one host that are looked at, half of each family */

struct candidate {
    const char *host;
    uint32_t count;
    struct tcp_addr addrs[CONSIDERED];
};

struct tcp_addr mx_address(const uint8_t *bytes, bool v6, uint16_t port) {
    struct tcp_addr a = {.len = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)};
    if (v6) {
        struct sockaddr_in6 *to = (struct sockaddr_in6 *)&a.storage;
        to->sin6_family = AF_INET6;
        to->sin6_port = htons(port);
        memcpy(&to->sin6_addr, bytes, 16);
    } else {
        struct sockaddr_in *to = (struct sockaddr_in *)&a.storage;
        to->sin_family = AF_INET;
        to->sin_port = htons(port);
        memcpy(&to->sin_addr, bytes, 4);
    }
    return a;
}

static uint32_t set_count(const struct mxset *s) {
    return s && s->status == DNS_OK ? s->count : 0;
}

static bool is_tempfail(const struct mxset *s) {
    return !s || s->status == DNS_TEMPFAIL || s->status == DNS_LOOP;
}

/* Judges every address of one family and takes the good ones, at most half of the room; the first is drawn by lot. */
static uint32_t take_family(const struct mxset *s, bool v6, const struct mx_policy *p, struct rand *r,
                            struct tcp_addr out[MX_TARGETS_MAX], struct mx_group_result *result) {
    uint32_t count = set_count(s), n = 0;
    uint32_t first = count > 1 ? (uint32_t)rand_below(r, count) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct tcp_addr a = mx_address(s->records[(first + i) % count].addr, v6, p->port);
        enum mx_address verdict = mx_judge_address(p, &a);
        if (verdict == MX_ADDRESS_OWN)
            result->own = true;
        else if (verdict != MX_ADDRESS_GOOD)
            result->bad = true;
        else if (n < MX_TARGETS_MAX)
            out[n++] = a;
        else
            result->cut = true;
    }
    return n;
}

static void take_host(const struct mx_found *f, const struct mx_policy *p, struct rand *r, struct candidate *c,
                      struct mx_group_result *result) {
    struct tcp_addr family[2][MX_TARGETS_MAX];
    bool first_is_v6 = !p->prefer_ipv4;
    uint32_t n[2];
    n[0] = take_family(first_is_v6 ? f->aaaa : f->a, first_is_v6, p, r, family[0], result);
    n[1] = take_family(first_is_v6 ? f->a : f->aaaa, !first_is_v6, p, r, family[1], result);
    *c = (struct candidate){.host = f->host};
    for (uint32_t i = 0; i < n[0] || i < n[1]; i++) {
        if (i < n[0])
            c->addrs[c->count++] = family[0][i];
        if (i < n[1])
            c->addrs[c->count++] = family[1][i];
    }
    if (!set_count(f->a) && !set_count(f->aaaa) && (is_tempfail(f->a) || is_tempfail(f->aaaa)))
        result->tempfail = true;
}

static void shuffle(struct mx_found *f, uint32_t count, struct rand *r) {
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)rand_below(r, i);
        struct mx_found t = f[i - 1];
        f[i - 1] = f[j];
        f[j] = t;
    }
}

/* How many addresses each host gets, dealt in rounds. */
static uint32_t deal(const struct candidate *c, uint32_t hosts, uint32_t shares[MX_GROUP_HOSTS]) {
    uint32_t dealt = 0;
    memset(shares, 0, MX_GROUP_HOSTS * sizeof *shares);
    for (uint32_t round = 0; round < CONSIDERED; round++) {
        for (uint32_t h = 0; h < hosts && dealt < MX_TARGETS_MAX; h++) {
            if (round < c[h].count) {
                shares[h]++;
                dealt++;
            }
        }
    }
    return dealt;
}

/* True when some target is of the family. */
static bool has_family(const struct mx_group_result *r, bool v6) {
    for (uint32_t i = 0; i < r->count; i++) {
        if (tcp_addr_is_v6(&r->targets[i].addr) == v6)
            return true;
    }
    return false;
}

static void save_family(const struct candidate *c, uint32_t hosts, bool v6, struct mx_group_result *result) {
    if (has_family(result, v6))
        return;
    for (uint32_t h = 0; h < hosts; h++) {
        for (uint32_t i = 0; i < c[h].count; i++) {
            if (tcp_addr_is_v6(&c[h].addrs[i]) != v6)
                continue;
            result->targets[result->count - 1] = (struct mx_target){.host = c[h].host, .addr = c[h].addrs[i]};
            return;
        }
    }
}

void mx_order(const struct mx_found *found, uint32_t count, const struct mx_policy *p, struct rand *r,
              struct mx_group_result *out) {
    struct mx_found order[MX_GROUP_LOOKED_AT];
    struct candidate chosen[MX_GROUP_HOSTS], c;
    uint32_t hosts = 0, all = 0, shares[MX_GROUP_HOSTS];
    *out = (struct mx_group_result){0};
    count = count < MX_GROUP_LOOKED_AT ? count : MX_GROUP_LOOKED_AT;
    memcpy(order, found, count * sizeof *order);
    shuffle(order, count, r);
    for (uint32_t i = 0; i < count; i++) { /* all of them: any may have an address of ours */
        take_host(&order[i], p, r, &c, out);
        if (c.count && hosts < MX_GROUP_HOSTS)
            chosen[hosts++] = c;
        else if (c.count)
            out->cut = true;
        all += c.count;
    }
    if (out->own)
        return;
    uint32_t dealt = deal(chosen, hosts, shares);
    out->cut |= dealt < all;
    for (uint32_t h = 0; h < hosts; h++) {
        for (uint32_t i = 0; i < shares[h]; i++)
            out->targets[out->count++] = (struct mx_target){.host = chosen[h].host, .addr = chosen[h].addrs[i]};
    }
    if (out->count) {
        save_family(chosen, hosts, false, out);
        save_family(chosen, hosts, true, out);
    }
}
