/*
 * mx: the list of hosts. Ordering of their addresses is in mx_order.c.
 *
 * MX records that exist are final: when they lead nowhere the domain's own address is not
 * tried (RFC 5321 section 5.1). Our own name in the list ends it there, so that mail between a primary and a
 * backup server only ever moves towards the primary.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/net/secret.h"

#include "gateway/outbound/mx.h"

bool mx_is_own_name(const struct mx_policy *p, const char *name) {
    for (size_t i = 0; i < p->own_name_count; i++) {
        if (span_eq_nocase(span_of(name), span_of(p->own_names[i])))
            return true;
    }
    return false;
}

static bool is_any(const struct tcp_addr *a) {
    if (a->storage.ss_family == AF_UNIX)
        return false;
    char ip[128];
    size_t len = tcp_addr_ip(a, ip, sizeof ip);
    return span_eq(span_make(ip, len), SPAN("0.0.0.0")) || span_eq(span_make(ip, len), SPAN("::"));
}

enum mx_address mx_judge_address(const struct mx_policy *p, const struct tcp_addr *a) {
    if (tcp_addr_is_unusable(a))
        return MX_ADDRESS_UNUSABLE;
    if (tcp_addr_is_loopback(a) && !p->loopback_targets)
        return MX_ADDRESS_LOOPBACK;
    for (size_t i = 0; i < p->own_listen_count; i++) {
        const struct tcp_addr *own = &p->own_listen[i];
        if (p->loopback_targets && tcp_addr_port(own) != tcp_addr_port(a))
            continue;
        if (is_any(own) ? p->is_local(a) : tcp_addr_same_ip(own, a))
            return MX_ADDRESS_OWN;
    }
    return MX_ADDRESS_GOOD;
}

static int alloc_hosts(struct mx_list *l, uint32_t count) {
    l->hosts = calloc(count ? count : 1, sizeof *l->hosts);
    return l->hosts ? ERR_OK : ERR_NOMEM;
}

int mx_list_single(struct mx_list *l, const char *host) {
    *l = (struct mx_list){.count = 1};
    int err = alloc_hosts(l, 1);
    if (err == ERR_OK)
        l->hosts[0] = (struct mx_host){.name = host};
    else
        l->count = 0;
    return err;
}

void mx_list_deinit(struct mx_list *l) {
    mxset_free(l->set);
    free(l->hosts);
    *l = (struct mx_list){0};
}

static bool is_listed(const struct mx_list *l, uint32_t count, const char *name) {
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(l->hosts[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Copies the records that name a host, each host once, at its best preference. */
static uint32_t gather(struct mx_list *l, const struct mxset *set) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        const struct mxrecord *r = &set->records[i];
        if (r->name[0] && !is_listed(l, n, r->name))
            l->hosts[n++] = (struct mx_host){.name = r->name, .preference = r->preference};
    }
    return n;
}

/* Line 37, by name. */
static void drop_own(struct mx_list *l, const struct mx_policy *p) {
    for (uint32_t i = 0; i < l->count; i++) {
        if (!mx_is_own_name(p, l->hosts[i].name))
            continue;
        uint32_t keep = i;
        while (keep > 0 && l->hosts[keep - 1].preference == l->hosts[i].preference)
            keep--;
        l->own = true;
        l->dropped = l->count - keep;
        l->count = keep;
        return;
    }
}

static enum outcome_local failure(enum dns_status status) {
    switch (status) {
    case DNS_NXDOMAIN:
        return OUTCOME_NXDOMAIN;
    case DNS_LOOP:
        return OUTCOME_CNAME_LOOP;
    default:
        return OUTCOME_DNS_TEMPFAIL;
    }
}

int mx_list_init(struct mx_list *l, struct mxset *set, const char *name, const struct mx_policy *p,
                 enum outcome_local *what) {
    *l = (struct mx_list){0};
    *what = OUTCOME_NO_MEMORY;
    if (!set)
        return ERR_NOMEM;
    if (set->status != DNS_OK && set->status != DNS_NODATA) {
        *what = failure(set->status);
        return ERR_NOT_FOUND;
    }
    if (set->status == DNS_OK && set->count == 1 && !set->records[0].name[0]) {
        *what = OUTCOME_NULL_MX;
        return ERR_NOT_FOUND;
    }
    if (alloc_hosts(l, set->count) != ERR_OK)
        return ERR_NOMEM;
    l->set = mxset_ref(set);
    l->implicit = set->status == DNS_NODATA;
    if (l->implicit) {
        l->hosts[0] = (struct mx_host){.name = name};
        l->count = 1;
    } else {
        l->count = gather(l, set);
        *what = OUTCOME_MX_NOWHERE; /* only roots */
    }
    drop_own(l, p);
    if (l->own)
        *what = OUTCOME_OWN_HOST;
    return l->count ? ERR_OK : ERR_NOT_FOUND;
}

int mx_list_weighted(struct mx_list *l, const char *const *names, const uint32_t *weights, size_t count,
                     struct rand *r) {
    *l = (struct mx_list){0};
    if (count > MX_HOSTS_MAX || alloc_hosts(l, (uint32_t)count) != ERR_OK)
        return ERR_NOMEM;
    uint64_t left = 0;
    for (size_t i = 0; i < count; i++) {
        l->hosts[i] = (struct mx_host){.name = names[i], .preference = (uint16_t)weights[i]};
        left += weights[i];
    }
    for (size_t i = 0; i < count; i++) { /* draws the next one of those that are left */
        uint64_t lot = left ? rand_below(r, left) : 0;
        size_t k = i;
        while (k + 1 < count && lot >= l->hosts[k].preference)
            lot -= l->hosts[k++].preference;
        struct mx_host drawn = l->hosts[k];
        l->hosts[k] = l->hosts[i];
        l->hosts[i] = drawn;
        left -= drawn.preference;
        l->hosts[i].preference = (uint16_t)i;
    }
    l->count = (uint32_t)count;
    return ERR_OK;
}

uint32_t mx_group(const struct mx_list *l, uint32_t from, struct rand *r, uint32_t out[MX_GROUP_LOOKED_AT],
                  uint32_t *looked_at) {
    uint32_t count = 0;
    *looked_at = 0;
    for (uint32_t i = from; i < l->count && l->hosts[i].preference == l->hosts[from].preference; i++, count++) {
        /* reservoir: each host of a large group has the same chance */
        if (*looked_at < MX_GROUP_LOOKED_AT) {
            out[(*looked_at)++] = i;
        } else {
            uint64_t at = rand_below(r, count + 1);
            if (at < MX_GROUP_LOOKED_AT)
                out[at] = i;
        }
    }
    return count;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct mx_host *)a)->name, ((const struct mx_host *)b)->name);
}

size_t mx_site_name(const struct mx_list *l, char to[MX_SITE_MAX + 1]) {
    enum { HASHED = 18 }; /* "#" and 16 digits, and a NUL */
    struct mx_host sorted[MX_HOSTS_MAX];
    uint32_t count = l->count < MX_HOSTS_MAX ? l->count : MX_HOSTS_MAX;
    memcpy(sorted, l->hosts, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_name);
    uint8_t hash[64] = {0}; /* of cryptography: strangers choose the names, and must not get into another's site */
    size_t len = 0, whole = 0;
    for (uint32_t i = 0; i < count; i++) {
        secret_sha256(span_of(sorted[i].name), hash + 32);
        secret_sha256(span_make((const char *)hash, sizeof hash), hash);
        whole += strlen(sorted[i].name) + (i > 0);
    }
    size_t room = whole <= MX_SITE_MAX ? MX_SITE_MAX : MX_SITE_MAX - HASHED;
    for (uint32_t i = 0; i < count && len < room; i++) {
        if (i > 0)
            to[len++] = '+';
        len += span_copy(span_first(span_of(sorted[i].name), room - len), to + len, room - len + 1);
    }
    if (whole > MX_SITE_MAX) {
        static const char digits[] = "0123456789abcdef";
        to[len++] = '#';
        for (size_t i = 0; i < (HASHED - 2) / 2; i++) {
            to[len++] = digits[hash[i] >> 4];
            to[len++] = digits[hash[i] & 15];
        }
    }
    to[len] = '\0';
    return len;
}
