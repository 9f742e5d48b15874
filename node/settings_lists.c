/*
 * settings_lists: the settings that are lists: roles, listeners, networks, domains, routes, DNS servers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
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

/* A scalar child of a map by name; complains of other kinds, and where the child is missing. section is for complaints.
 */
static const struct yaml *child(struct settings_reading *r, const struct yaml *map, const char *section,
                                const char *name) {
    for (const struct yaml *c = map->first; c; c = c->next) {
        if (!span_eq(c->key, span_of(name)))
            continue;
        if (c->kind == YAML_SCALAR && c->text.len)
            return c;
        settings_complain(r, c, "%s.%s: takes one value", section, name);
        return NULL;
    }
    settings_complain(r, map, "%s.%s: missing", section, name);
    return NULL;
}

/* Complains of keys that are not in `known` ("a|b"); those in `future` are named as such. */
static void check_keys(struct settings_reading *r, const struct yaml *map, const char *section, const char *known,
                       const char *future) {
    for (const struct yaml *c = map->first; c; c = c->next) {
        bool found = false, comes = false;
        for (struct span rest = span_of(known); rest.len;)
            found |= span_eq(span_cut(rest, '|', &rest), c->key);
        for (struct span rest = span_of(future); rest.len;)
            comes |= span_eq(span_cut(rest, '|', &rest), c->key);
        if (found)
            continue;
        struct buf name;
        buf_init(&name, 400);
        buf_add_escaped(&name, span_first(c->key, 80));
        settings_complain(r, c, "%s.%s: %s", section, buf_cstr(&name),
                          comes ? "not supported by this version" : "unknown key");
        buf_deinit(&name);
    }
}

/* What stands in a list already. */
struct listed {
    struct map_node node;
    const char *name;
    unsigned line;
};

static bool same_name(const struct map_node *n, const void *key) {
    return strcmp(((const struct listed *)n)->name, key) == 0; /* node is the first member */
}

/* Notes a name; false after a complaint: it stands in an earlier line. */
static bool note(struct settings_reading *r, struct map *m, const struct yaml *y, const char *section,
                 const char *name) {
    uint64_t hash = hash_span(span_of(name), 0);
    const struct listed *first = (const struct listed *)map_find(m, hash, same_name, name);
    if (first) {
        settings_complain(r, y, "%s: %s stands already in line %u", section, name, first->line);
        return false;
    }
    struct listed *l = arena_calloc(&r->s->mem, 1, sizeof *l);
    if (!l || map_insert(m, &l->node, hash) != ERR_OK) {
        settings_complain(r, y, "%s: %s", section, err_text(ERR_NOMEM));
        return false;
    }
    l->name = name;
    l->line = y->line;
    return true;
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

static void add_listen(struct settings_reading *r, const struct yaml *y) {
    struct settings *s = r->s;
    struct tcp_addr a;
    if (span_starts_nocase(y->text, SPAN("unix:")) || tcp_addr_parse_port(&a, y->text) != ERR_OK ||
        tcp_addr_port(&a) == 0) {
        settings_complain(r, y,
                          "gateway.listen.address: takes ADDRESS:PORT with numbers, such as 0.0.0.0:25 or [::]:25");
        return;
    }
    for (uint32_t i = 0; i < s->listen_count; i++) {
        if (tcp_addr_same_ip(&s->listen[i], &a) && tcp_addr_port(&s->listen[i]) == tcp_addr_port(&a)) {
            settings_complain(r, y, "gateway.listen.address: listed twice");
            return;
        }
    }
    s->listen[s->listen_count++] = a;
}

void settings_read_listen(struct settings_reading *r, const struct yaml *y) {
    size_t n = count_items(r, y, "gateway.listen", SETTINGS_LISTEN_MAX);
    if (n == SIZE_MAX)
        return;
    if (n == 0)
        settings_complain(r, y, "gateway.listen: takes at least one address");
    r->s->listen_count = 0;
    memset(r->s->listen, 0, sizeof r->s->listen);
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_MAP) {
            settings_complain(r, c, "gateway.listen: takes {address: \"ADDRESS:PORT\"}");
            continue;
        }
        check_keys(r, c, "gateway.listen", "address", "tls|auth|submission|proxy");
        const struct yaml *address = child(r, c, "gateway.listen", "address");
        if (address)
            add_listen(r, address);
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
static const char *read_domain(struct settings_reading *r, const struct yaml *y, const char *section, bool dotted) {
    struct span name = y->text, out;
    bool below = dotted && name.len > 1 && name.at[0] == '.';
    if (address_parse_domain(&out, below ? span_from(name, 1) : name, &r->s->mem) == ERR_OK)
        return arena_printf(&r->s->mem, "%s%.*s", below ? "." : "", SPAN_FMT(out));
    struct buf shown;
    buf_init(&shown, 1200);
    buf_add_escaped(&shown, span_first(name, 256));
    settings_complain(r, y, "%s: not a domain name: %s", section, buf_cstr(&shown));
    buf_deinit(&shown);
    return NULL;
}

/* The route of a domain, into the room that more_routes made. */
static void read_route(struct settings_reading *r, const struct yaml *map, const char *section, const char *domain) {
    char what[32];
    const struct yaml *y = child(r, map, section, "route");
    struct outbound_route *routes = (struct outbound_route *)(uintptr_t)r->s->outbound.routes;
    struct outbound_route *to = &routes[r->s->outbound.route_count];
    if (!y)
        return;
    snprintf(what, sizeof what, "%s.route", section);
    if (route_parse(&to->route, y->text) != ERR_OK) {
        settings_complain(r, y, "%s: takes mx, mx:DOMAIN, smtp:HOST[:PORT], lmtp:HOST[:PORT] or lmtp:unix:/PATH", what);
        return;
    }
    if (!domain || !note(r, &r->routes, map, what, domain))
        return;
    to->domain = domain;
    r->s->outbound.route_count++;
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

/* The path of a table, relative to the settings file; the file must be there. */
static const char *read_table(struct settings_reading *r, const struct yaml *y) {
    const char *path = y->text.at, *slash = strrchr(r->s->file, '/');
    struct stat st;
    if (path[0] != '/' && slash)
        path = arena_printf(&r->s->mem, "%.*s/%s", (int)(slash - r->s->file), r->s->file, path);
    if (!path)
        settings_complain(r, y, "domains.recipients.table: %s", err_text(ERR_NOMEM));
    else if (stat(path, &st) != 0)
        settings_complain(r, y, "domains.recipients.table: %s: %s", path, strerror(errno));
    return path;
}

static void read_recipients(struct settings_reading *r, const struct yaml *domain,
                            struct recipients_domain_config *to) {
    static const char section[] = "domains.recipients";
    const struct yaml *c = domain->first;
    while (c && !span_eq(c->key, SPAN("recipients")))
        c = c->next;
    to->directory = RECIPIENTS_TABLE;
    if (!c) {
        settings_complain(r, domain, "%s: missing: any or {table: FILE}", section);
    } else if (c->kind == YAML_SCALAR && span_eq(c->text, SPAN("any"))) {
        to->directory = RECIPIENTS_ANY;
    } else if (c->kind != YAML_MAP) {
        settings_complain(r, c, "%s: takes any or {table: FILE}", section);
    } else {
        bool before = r->failed;
        r->failed = false;
        check_keys(r, c, section, "table", "ldap|postgres|http|callout");
        /* A directory of a later version has been named already; the table is then not missed as well. */
        const struct yaml *table = r->failed ? NULL : child(r, c, section, "table");
        r->failed |= before;
        if (table)
            to->table = read_table(r, table);
    }
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
        check_keys(r, c, "domains", "name|recipients|route", "limits|tls|quarantine");
        const struct yaml *name = child(r, c, "domains", "name");
        const char *canonical = name ? read_domain(r, name, "domains.name", false) : NULL;
        bool fresh = canonical && note(r, &r->domains, name, "domains.name", canonical);
        read_recipients(r, c, &d[i]);
        /* Where mail for an own domain goes must be said: its MX is we ourselves. */
        read_route(r, c, "domains", fresh ? canonical : NULL);
        if (fresh)
            d[i++].name = canonical;
    }
    r->s->recipients.domains = d;
    r->s->recipients.count = i;
}

void settings_read_routes(struct settings_reading *r, const struct yaml *y) {
    size_t n = count_items(r, y, "routes", DOMAINS_MAX);
    if (n == SIZE_MAX || !more_routes(r, n))
        return;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_MAP) {
            settings_complain(r, c, "routes: takes {domain: DOMAIN, route: ...}");
            continue;
        }
        check_keys(r, c, "routes", "domain|route", "tls|source|limits|credentials");
        const struct yaml *domain = child(r, c, "routes", "domain");
        const char *name = !domain                            ? NULL
                           : span_eq(domain->text, SPAN("*")) ? "*"
                                                              : read_domain(r, domain, "routes.domain", true);
        read_route(r, c, "routes", name);
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
