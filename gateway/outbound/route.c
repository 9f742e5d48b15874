/*
 * route: reading routes and finding the one for a destination. The table is a hash map of the rules' domains; a
 * look-up asks for the domain itself, then for it and each parent with a leading dot, then for "*".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"

#include "gateway/outbound/route.h"

/* -- reading -- */

static bool is_host(struct span s) {
    if (s.len == 0 || s.len > 253 || s.at[0] == '.' || s.at[0] == '-' || s.at[s.len - 1] == '.')
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                    c == '_' || c == '.';
        if (!fine || (c == '.' && s.at[i - 1] == '.'))
            return false;
    }
    return true;
}

static void put_host(struct route *r, struct span host) {
    span_copy(host, r->host, sizeof r->host);
    for (char *c = r->host; *c; c++) {
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    }
}

/* HOST[:PORT] or [IPv6][:PORT]; the brackets are taken off. */
static int read_target(struct route *r, struct span text) {
    struct span host, port = SPAN_EMPTY;
    bool has_port = false;
    struct tcp_addr addr;
    if (text.len && text.at[0] == '[') {
        ptrdiff_t close = span_find(text, ']');
        if (close < 0)
            return ERR_INVALID;
        host = span_first(span_from(text, 1), (size_t)close - 1);
        if (tcp_addr_parse(&addr, host, 0) != ERR_OK || !tcp_addr_is_v6(&addr))
            return ERR_INVALID;
        struct span rest = span_from(text, (size_t)close + 1);
        has_port = rest.len > 0;
        if (has_port && rest.at[0] != ':')
            return ERR_INVALID;
        port = span_from(rest, 1);
    } else {
        has_port = span_find(text, ':') >= 0;
        host = span_cut(text, ':', &port);
        if (!is_host(host))
            return ERR_INVALID;
    }
    uint64_t number = 0;
    if (has_port && (!span_u64(port, &number) || number == 0 || number > 65535))
        return ERR_INVALID;
    put_host(r, host);
    r->port = (uint16_t)number;
    return ERR_OK;
}

/* "HOST*3": the share of the first tries; 1 when it is not said. */
static int read_weight(struct span *host, uint32_t *weight) {
    struct span number;
    uint64_t n = 1;
    bool has = span_find(*host, '*') >= 0;
    *host = span_cut(*host, '*', &number);
    if (has && (!span_u64(number, &n) || n == 0 || n > 1000))
        return ERR_INVALID;
    *weight = (uint32_t)n;
    return ERR_OK;
}

int route_parse_targets(struct route *r, struct span text, struct outbound_target targets[OUTBOUND_TARGETS_MAX],
                        size_t *count) {
    struct span rest;
    struct span kind = span_cut(text, ':', &rest);
    *count = 0;
    if (span_find(text, ',') < 0 && span_find(text, '*') < 0)
        return route_parse(r, text);
    if (!span_eq(kind, SPAN("smtp")) && !span_eq(kind, SPAN("lmtp")))
        return ERR_INVALID;
    *r = (struct route){.kind = span_eq(kind, SPAN("smtp")) ? ROUTE_SMTP : ROUTE_LMTP};
    for (bool more = true; more;) {
        struct route one = {0};
        if (*count == OUTBOUND_TARGETS_MAX)
            return ERR_INVALID;
        struct outbound_target *t = &targets[*count];
        more = span_find(rest, ',') >= 0;
        struct span host = span_cut(rest, ',', &rest);
        /* The port stands behind the last one, and is for all. */
        struct span port = SPAN_EMPTY;
        ptrdiff_t colon = !more && host.len && host.at[host.len - 1] != ']' ? span_rfind(host, ':') : -1;
        if (colon >= 0) {
            port = span_from(host, (size_t)colon);
            host = span_first(host, (size_t)colon);
        }
        if (read_weight(&host, &t->weight) != ERR_OK || read_target(&one, host) != ERR_OK || one.port)
            return ERR_INVALID;
        uint64_t number = 0;
        if (port.len && (!span_u64(span_from(port, 1), &number) || number == 0 || number > 65535))
            return ERR_INVALID;
        r->port = (uint16_t)number;
        span_copy(span_of(one.host), t->host, sizeof t->host);
        ++*count;
    }
    span_copy(span_of(targets[0].host), r->host, sizeof r->host);
    return ERR_OK;
}

int route_parse(struct route *r, struct span text) {
    *r = (struct route){.kind = ROUTE_MX};
    if (span_eq(text, SPAN("mx")))
        return ERR_OK;
    struct span rest;
    struct span kind = span_cut(text, ':', &rest);
    if (span_eq(kind, SPAN("mx"))) {
        if (!is_host(rest))
            return ERR_INVALID;
        put_host(r, rest);
        return ERR_OK;
    }
    if (span_eq(kind, SPAN("smtp"))) {
        r->kind = ROUTE_SMTP;
        return read_target(r, rest);
    }
    if (!span_eq(kind, SPAN("lmtp")))
        return ERR_INVALID;
    r->kind = ROUTE_LMTP;
    if (!span_starts_nocase(rest, SPAN("unix:")))
        return read_target(r, rest);
    struct tcp_addr addr;
    if (rest.len < 6 || rest.at[5] != '/' || rest.len >= sizeof r->host || tcp_addr_parse(&addr, rest, 0) != ERR_OK)
        return ERR_INVALID;
    span_copy(rest, r->host, sizeof r->host);
    return ERR_OK;
}

size_t route_format(const struct route *r, uint16_t port, char *to, size_t size) {
    int n;
    const char *kind = r->kind == ROUTE_SMTP ? "smtp" : "lmtp";
    if (r->kind == ROUTE_MX)
        n = snprintf(to, size, r->host[0] ? "mx:%s" : "mx", r->host);
    else if (strncmp(r->host, "unix:", 5) == 0)
        n = snprintf(to, size, "%s:%s", kind, r->host);
    else
        n = snprintf(to, size, strchr(r->host, ':') ? "%s:[%s]:%u" : "%s:%s:%u", kind, r->host,
                     r->port ? r->port : port);
    return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}

/* -- the table -- */

struct rule {
    struct map_node in_map;
    struct outbound_route route;
};
struct routes {
    struct arena mem;
    struct map map;
};

static bool matches(const struct map_node *n, const void *key) {
    return span_eq_nocase(span_of(CONTAINER_OF(n, struct rule, in_map)->route.domain), *(const struct span *)key);
}

static const struct outbound_route *look_up(const struct routes *r, struct span domain) {
    struct map_node *n = map_find(&r->map, hash_span_nocase(domain, 0), matches, &domain);
    return n ? &CONTAINER_OF(n, struct rule, in_map)->route : NULL;
}

static bool copy_targets(struct arena *mem, struct outbound_route *to) {
    if (!to->target_count)
        return true;
    struct outbound_target *all = arena_alloc(mem, to->target_count * sizeof *all);
    if (all)
        memcpy(all, to->targets, to->target_count * sizeof *all);
    to->targets = all;
    return all != NULL;
}

static bool copy_login(struct arena *mem, struct outbound_route *to) {
    if (!to->login)
        return true;
    struct outbound_login *l = arena_alloc(mem, sizeof *l);
    if (!l)
        return false;
    l->user = arena_strdup(mem, to->login->user);
    l->password = arena_strdup(mem, to->login->password);
    l->mechanisms = to->login->mechanisms ? arena_strdup(mem, to->login->mechanisms) : NULL;
    bool fine = l->user && l->password && (l->mechanisms || !to->login->mechanisms);
    to->login = l;
    return fine;
}

static int add(struct routes *r, const struct outbound_route *from) {
    if (look_up(r, span_of(from->domain)))
        return ERR_OK;
    struct rule *rule = arena_calloc(&r->mem, 1, sizeof *rule);
    if (!rule)
        return ERR_NOMEM;
    rule->route = *from;
    rule->route.domain = arena_strdup(&r->mem, from->domain);
    if (!rule->route.domain || !copy_targets(&r->mem, &rule->route) || !copy_login(&r->mem, &rule->route))
        return ERR_NOMEM;
    return map_insert(&r->map, &rule->in_map, hash_span_nocase(span_of(from->domain), 0));
}

struct routes *routes_new(const struct outbound_route *at, size_t count) {
    struct routes *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    arena_init(&r->mem, 16 * 1024, 0);
    map_init(&r->map);
    for (size_t i = 0; i < count; i++) {
        if (add(r, &at[i]) != ERR_OK) {
            routes_free(r);
            return NULL;
        }
    }
    return r;
}

void routes_free(struct routes *r) {
    if (!r)
        return;
    map_deinit(&r->map);
    arena_deinit(&r->mem);
    free(r);
}

const struct outbound_route *routes_find(const struct routes *r, struct span domain) {
    if (r->map.count == 0)
        return NULL;
    const struct outbound_route *found = look_up(r, domain);
    char dotted[258] = ".";
    if (!found && domain.len < sizeof dotted - 1 && !(domain.len && domain.at[0] == '[')) {
        span_copy(domain, dotted + 1, sizeof dotted - 1);
        for (const char *at = dotted; at && !found; at = strchr(at + 1, '.'))
            found = look_up(r, span_of(at));
    }
    return found ? found : look_up(r, SPAN("*"));
}
