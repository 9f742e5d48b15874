/*
 * settings_lists: the settings that are lists: roles, listeners, networks, domains, routes, DNS servers.
 */
#include <string.h>

#include "node/settings_schema.h"

#define NETWORKS_MAX 4096u
#define DOMAINS_MAX 100000u

/* The number of items, or SIZE_MAX after a complaint. */
static size_t count_items(struct settings_reading *r, const struct yaml *y, const char *what, size_t max) {
    size_t n = 0;
    if (y->kind != YAML_LIST) {
        settings_complain(r, y, "%s: takes a list", what);
        return SIZE_MAX;
    }
    for (const struct yaml *c = y->first; c; c = c->next)
        n++;
    if (n <= max)
        return n;
    settings_complain(r, y, "%s: at most %zu", what, max);
    return SIZE_MAX;
}

/* A scalar child of a map by name; complains of other kinds. NULL: absent. */
static const struct yaml *child(struct settings_reading *r, const struct yaml *map, const char *name) {
    for (const struct yaml *c = map->first; c; c = c->next) {
        if (!span_eq(c->key, span_of(name)))
            continue;
        if (c->kind == YAML_SCALAR && c->text.len)
            return c;
        settings_complain(r, c, "%s: takes one value", name);
        return NULL;
    }
    return NULL;
}

/* Complains of keys that are not in `known` ("a|b"); those in `future` are named as such. */
static void check_keys(struct settings_reading *r, const struct yaml *map, const char *known, const char *future) {
    for (const struct yaml *c = map->first; c; c = c->next) {
        bool found = false, comes = false;
        for (struct span rest = span_of(known); rest.len;)
            found |= span_eq(span_cut(rest, '|', &rest), c->key);
        for (struct span rest = span_of(future); rest.len;)
            comes |= span_eq(span_cut(rest, '|', &rest), c->key);
        if (!found)
            settings_complain(r, c, "%.*s: %s", SPAN_FMT(c->key),
                              comes ? "not supported by this version" : "unknown key");
    }
}

void settings_read_roles(struct settings_reading *r, const struct yaml *y) {
    static const char *const names[] = {"gateway", "scheduler", "delivery"};
    size_t n = count_items(r, y, "node.roles", 3);
    if (n == SIZE_MAX)
        return;
    r->s->roles = 0;
    for (const struct yaml *c = y->first; c; c = c->next) {
        unsigned role = 0;
        for (unsigned i = 0; i < 3 && c->kind == YAML_SCALAR; i++)
            if (span_eq(c->text, span_of(names[i])))
                role = 1u << i;
        if (!role)
            settings_complain(r, c, "node.roles: takes gateway, scheduler and delivery");
        r->s->roles |= role;
    }
    if (!r->failed && r->s->roles != (SETTINGS_GATEWAY | SETTINGS_SCHEDULER | SETTINGS_DELIVERY))
        settings_complain(r, y, "node.roles: one machine needs all three; a cluster is not supported by this version");
}

void settings_read_listen(struct settings_reading *r, const struct yaml *y) {
    if (count_items(r, y, "gateway.listen", SETTINGS_LISTEN_MAX) == SIZE_MAX)
        return;
    r->s->listen_count = 0;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_MAP) {
            settings_complain(r, c, "gateway.listen: takes {address: \"ADDRESS:PORT\"}");
            continue;
        }
        check_keys(r, c, "address", "tls|auth|submission|proxy");
        const struct yaml *address = child(r, c, "address");
        if (!address)
            settings_complain(r, c, "gateway.listen: address is missing");
        else if (tcp_addr_parse_port(&r->s->listen[r->s->listen_count], address->text) != ERR_OK)
            settings_complain(r, address,
                              "gateway.listen: takes ADDRESS:PORT with numbers, such as 0.0.0.0:25 or [::]:25");
        else
            r->s->listen_count++;
    }
}

void settings_read_trusted(struct settings_reading *r, const struct yaml *y) {
    size_t n = count_items(r, y, "gateway.trusted_networks", NETWORKS_MAX), i = 0;
    struct tcp_net *nets = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *nets);
    if (!nets)
        return;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_SCALAR || tcp_net_parse(&nets[i], c->text) != ERR_OK)
            settings_complain(r, c, "gateway.trusted_networks: takes networks such as 192.0.2.0/24 or 2001:db8::/32");
        else
            i++;
    }
    r->s->inbound.trusted = nets;
    r->s->inbound.trusted_count = i;
}

/* Canonical form of a domain in the arena, or NULL after a complaint. */
static const char *read_domain(struct settings_reading *r, const struct yaml *y, bool dotted) {
    struct span name = y->text, out;
    bool below = dotted && name.len > 1 && name.at[0] == '.';
    if (address_parse_domain(&out, below ? span_from(name, 1) : name, &r->s->mem) != ERR_OK) {
        settings_complain(r, y, "not a domain: %.*s", SPAN_FMT(name));
        return NULL;
    }
    return arena_printf(&r->s->mem, "%s%.*s", below ? "." : "", SPAN_FMT(out));
}

static bool read_route(struct settings_reading *r, const struct yaml *map, const char *domain, const char *fallback) {
    const struct yaml *y = child(r, map, "route");
    struct outbound_route *routes = (struct outbound_route *)(uintptr_t)r->s->outbound.routes;
    struct outbound_route *to = &routes[r->s->outbound.route_count];
    if (!y && !fallback) {
        settings_complain(r, map, "route is missing");
        return false;
    }
    if (route_parse(&to->route, y ? y->text : span_of(fallback)) != ERR_OK) {
        settings_complain(r, y, "route: takes mx, mx:DOMAIN, smtp:HOST[:PORT], lmtp:HOST[:PORT] or lmtp:unix:/PATH");
        return false;
    }
    to->domain = domain;
    for (size_t i = 0; i < r->s->outbound.route_count; i++) {
        if (strcmp(routes[i].domain, domain) == 0) {
            settings_complain(r, map, "%s has a route already", domain);
            return false;
        }
    }
    r->s->outbound.route_count++;
    return true;
}

/* Room for n more routes behind those that are there. */
static bool more_routes(struct settings_reading *r, size_t n) {
    struct outbound_settings *o = &r->s->outbound;
    struct outbound_route *grown = arena_calloc(&r->s->mem, o->route_count + n + 1, sizeof *grown);
    if (!grown)
        return false;
    if (o->route_count)
        memcpy(grown, o->routes, o->route_count * sizeof *grown);
    o->routes = grown;
    return true;
}

static void read_recipients(struct settings_reading *r, const struct yaml *domain,
                            struct recipients_domain_config *to) {
    for (const struct yaml *c = domain->first; c; c = c->next) {
        if (!span_eq(c->key, SPAN("recipients")))
            continue;
        if (c->kind == YAML_SCALAR && span_eq(c->text, SPAN("any"))) {
            to->directory = RECIPIENTS_ANY;
            return;
        }
        if (c->kind == YAML_MAP) {
            check_keys(r, c, "table", "ldap|postgres|http|callout");
            const struct yaml *table = child(r, c, "table");
            if (table)
                to->table = table->text.at;
        }
        to->directory = RECIPIENTS_TABLE;
        if (!to->table && !r->failed)
            settings_complain(r, c, "recipients: takes any or {table: FILE}");
        return;
    }
    settings_complain(r, domain, "recipients is missing: any or {table: FILE}");
}

void settings_read_domains(struct settings_reading *r, const struct yaml *y) {
    size_t n = count_items(r, y, "domains", DOMAINS_MAX), i = 0;
    struct recipients_domain_config *d = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *d);
    if (!d || !more_routes(r, n))
        return;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_MAP) {
            settings_complain(r, c, "domains: takes {name: DOMAIN, recipients: ..., route: ...}");
            continue;
        }
        check_keys(r, c, "name|recipients|route", "");
        const struct yaml *name = child(r, c, "name");
        if (!name) {
            settings_complain(r, c, "domains: name is missing");
            continue;
        }
        d[i].name = read_domain(r, name, false);
        read_recipients(r, c, &d[i]);
        /* Where mail for an own domain goes must be said: its MX is we ourselves. */
        if (d[i].name && read_route(r, c, d[i].name, NULL))
            i++;
    }
    r->s->recipients.domains = d;
    r->s->recipients.count = i;
}

void settings_read_routes(struct settings_reading *r, const struct yaml *y) {
    size_t n = count_items(r, y, "routes", DOMAINS_MAX);
    if (n == SIZE_MAX || !more_routes(r, n))
        return;
    for (const struct yaml *c = y->first; c; c = c->next) {
        const struct yaml *domain = c->kind == YAML_MAP ? child(r, c, "domain") : NULL;
        if (!domain) {
            settings_complain(r, c, "routes: takes {domain: DOMAIN, route: ...}");
            continue;
        }
        check_keys(r, c, "domain|route", "tls|source|limits|credentials");
        const char *name = span_eq(domain->text, SPAN("*")) ? "*" : read_domain(r, domain, true);
        if (name)
            read_route(r, c, name, NULL);
    }
}

void settings_read_dns(struct settings_reading *r, const struct yaml *y) {
    struct buf servers;
    struct tcp_addr address;
    if (count_items(r, y, "delivery.dns", 16) == SIZE_MAX)
        return;
    buf_init(&servers, 4096);
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_SCALAR || tcp_addr_parse_port(&address, c->text) != ERR_OK)
            settings_complain(r, c, "delivery.dns: takes ADDRESS:PORT with numbers, such as 127.0.0.1:53");
        else
            buf_printf(&servers, "%s%.*s", buf_len(&servers) ? "," : "", SPAN_FMT(c->text));
    }
    r->s->outbound.dns = buf_len(&servers) ? arena_strdup(&r->s->mem, buf_cstr(&servers)) : NULL;
    buf_deinit(&servers);
}

void settings_default_lists(struct settings_reading *r) {
    struct settings *s = r->s;
    struct tcp_net *nets = arena_calloc(&s->mem, 2, sizeof *nets);
    s->roles = SETTINGS_GATEWAY | SETTINGS_SCHEDULER | SETTINGS_DELIVERY;
    bool fine = nets && tcp_net_parse(&nets[0], SPAN("127.0.0.0/8")) == ERR_OK &&
                tcp_net_parse(&nets[1], SPAN("::1/128")) == ERR_OK &&
                tcp_addr_parse_port(&s->listen[0], SPAN("0.0.0.0:25")) == ERR_OK &&
                tcp_addr_parse_port(&s->listen[1], SPAN("[::]:25")) == ERR_OK;
    if (!fine)
        settings_complain(r, NULL, "no memory for the defaults");
    s->inbound.trusted = nets;
    s->inbound.trusted_count = 2;
    s->listen_count = 2;
}
