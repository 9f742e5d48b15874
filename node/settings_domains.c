/*
 * settings_domains: the settings of domains: our own with their sources of recipients and their route, routes
 * elsewhere, and SRS.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "node/settings_schema.h"

#define DOMAINS_MAX 100000u
#define MS_DAY 86400000u
#define BATV_DOMAINS_MAX 1000u
enum { SECRETS_MAX = 16, SECRET_LEN_MIN = 16 };

/* A scalar child of a map by name; complains of other kinds, and where the child is missing. section is for complaints.
 */
static const struct yaml *scalar_child(struct settings_reading *r, const struct yaml *map, const char *section,
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

const char *settings_domain(struct settings_reading *r, const struct yaml *y, const char *section, bool dotted) {
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

#define AT(member) offsetof(struct outbound_login, member)
static void read_login_password(struct settings_reading *r, const struct yaml *y, void *object) {
    settings_read_password(r, y, "credentials.password_file", &((struct outbound_login *)object)->password);
}

static const struct schema_key login_keys[] = {
    {"user", SCHEMA_TEXT, AT(user), 1, 500, NULL, NULL, NULL, "Who we log in as."},
    {"password", SCHEMA_TEXT, AT(password), 1, 4000, NULL, NULL, NULL, "The password; for XOAUTH2 the token."},
    {"password_file", SCHEMA_CUSTOM, 0, 0, 0, NULL, "file", read_login_password, "Or a file whose first line it is."},
    {"mechanisms", SCHEMA_TEXT, AT(mechanisms), 1, 200, NULL, NULL, NULL,
     "Of `SCRAM-SHA-256 XOAUTH2 PLAIN LOGIN`, those that may be used. Default: all but XOAUTH2. Passwords go inside "
     "TLS "
     "only."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static void read_login(struct settings_reading *r, const struct yaml *map, const char *section,
                       struct outbound_route *to) {
    char what[40];
    const struct yaml *y = schema_child(map, "credentials");
    struct outbound_login *l = y ? arena_calloc(&r->s->mem, 1, sizeof *l) : NULL;
    if (!l)
        return;
    snprintf(what, sizeof what, "%s.credentials", section);
    if (!schema_object(r, y, what, login_keys, l))
        return;
    if (!l->user || !l->password)
        settings_complain(r, y, "%s: takes user and password", what);
    else if (to->route.kind == ROUTE_MX)
        settings_complain(r, y, "%s: only for smtp: and lmtp: routes", what);
    else
        to->login = l;
}

/* Whether its servers are told of clients. */
static void read_flag(struct settings_reading *r, const struct yaml *map, const char *section, const char *name,
                      const struct route *route, bool *to) {
    const struct yaml *y = schema_child(map, name);
    if (!y)
        return;
    bool yes = y->kind == YAML_SCALAR && span_eq(y->text, SPAN("true"));
    if (!yes && (y->kind != YAML_SCALAR || !span_eq(y->text, SPAN("false"))))
        settings_complain(r, y, "%s.%s: takes true or false", section, name);
    else if (yes && route->kind == ROUTE_MX)
        settings_complain(r, y, "%s.%s: only for smtp: and lmtp: routes", section, name);
    else
        *to = yes;
}

/* The route of a domain, into the room that more_routes made. */
static void read_route(struct settings_reading *r, const struct yaml *map, const char *section, const char *domain) {
    char what[32];
    const struct yaml *y = scalar_child(r, map, section, "route");
    struct outbound_route *routes = (struct outbound_route *)(uintptr_t)r->s->outbound.routes;
    struct outbound_route *to = &routes[r->s->outbound.route_count];
    struct outbound_target targets[OUTBOUND_TARGETS_MAX];
    if (!y)
        return;
    snprintf(what, sizeof what, "%s.route", section);
    if (route_parse_targets(&to->route, y->text, targets, &to->target_count) != ERR_OK) {
        settings_complain(r, y, "%s: takes mx, mx:DOMAIN, smtp:HOST[:PORT], lmtp:HOST[:PORT] or lmtp:unix:/PATH", what);
        return;
    }
    struct outbound_target *all = arena_calloc(&r->s->mem, to->target_count + 1, sizeof *all);
    if (!all)
        return;
    memcpy(all, targets, to->target_count * sizeof *all);
    to->targets = all;
    read_login(r, map, section, to);
    read_flag(r, map, section, "xclient", &to->route, &to->xclient);
    read_flag(r, map, section, "xforward", &to->route, &to->xforward);
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

/* -- where recipients are looked up -- */

#define AT(member) offsetof(struct directory_config, member)
static void read_password(struct settings_reading *r, const struct yaml *y, void *object) {
    struct directory_config *d = object;
    settings_read_password(r, y, "domains.recipients.password_file", &d->password);
}

static const struct schema_key directory_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, 64, NULL, NULL, NULL,
     "For logs and metrics; the same name in several domains is one directory. Default: made of what follows."},
    {"uri", SCHEMA_TEXT, AT(uri), 1, 1000, NULL, NULL, NULL,
     "`ldap://HOST`, `ldaps://`, `ldapi://`; a libpq connection string; an HTTP URL; for callout "
     "`smtp:HOST:PORT`, `lmtp:HOST:PORT` or `lmtp:unix:/PATH`."},
    {"user", SCHEMA_TEXT, AT(user), 1, 500, NULL, NULL, NULL, "ldap: DN to bind as; http: user name."},
    {"password", SCHEMA_TEXT, AT(password), 1, 500, NULL, NULL, NULL, "Its password."},
    {"password_file", SCHEMA_CUSTOM, 0, 0, 0, NULL, "file", read_password,
     "Or a file whose first line is the password."},
    {"starttls", SCHEMA_BOOL, AT(starttls), 0, 0, "false", NULL, NULL, "ldap: StartTLS; the certificate is checked."},
    {"ca_file", SCHEMA_FILE, AT(ca_file), 0, 0, NULL, NULL, NULL, "ldap, http: authorities. Default: the system's."},
    {"base", SCHEMA_TEXT, AT(base), 1, 500, NULL, NULL, NULL, "ldap: where to search."},
    {"filter", SCHEMA_TEXT, AT(filter), 1, 1000, NULL, NULL, NULL,
     "ldap: `%s` address, `%u` local part, `%d` domain, all escaped. Default `(|(mail=%s)(mailAlternateAddress=%s))`."},
    {"alias_attribute", SCHEMA_TEXT, AT(alias_attribute), 1, 100, NULL, NULL, NULL,
     "ldap: its values are the addresses that this one becomes."},
    {"forward_attribute", SCHEMA_TEXT, AT(forward_attribute), 1, 100, NULL, NULL, NULL,
     "ldap: its values are where this address is forwarded to."},
    {"query", SCHEMA_TEXT, AT(query), 1, 4000, NULL, NULL, NULL,
     "postgres: `$1` address, `$2` local part, `$3` domain. See recipients.md for the columns."},
    {"catch_all", SCHEMA_BOOL, AT(catch_all), 0, 0, "false", NULL, NULL,
     "It knows catch-alls: what is unknown is asked again with an empty local part."},
    {"sender_postmaster", SCHEMA_BOOL, AT(sender_postmaster), 0, 0, "false", NULL, NULL,
     "callout: MAIL FROM:<postmaster@HOSTNAME> where the null sender is refused."},
    {"timeout", SCHEMA_DURATION, AT(timeout_ms), 100, 120000, "5s", NULL, NULL, "For one question with its retry."},
    {"positive", SCHEMA_DURATION, AT(positive_ms), 1, MS_DAY, "5m", NULL, NULL, "How long a yes is remembered."},
    {"negative", SCHEMA_DURATION, AT(negative_ms), 1, MS_DAY, "1m", NULL, NULL, "How long a no is remembered."},
    {"stale", SCHEMA_DURATION, AT(stale_ms), 1, 30ull * MS_DAY, "1h", NULL, NULL,
     "For so long after its time a yes still holds while the directory does not answer."},
    {"cache_entries", SCHEMA_COUNT, AT(cache_entries), 1, 100000000, "100000", NULL, NULL, "Answers remembered."},
    {"connections", SCHEMA_COUNT, AT(connections), 1, 256, "4", NULL, NULL, "Connections to it at once."},
    {"waiting", SCHEMA_COUNT, AT(waiting), 1, 1000000, "10000", NULL, NULL,
     "Questions that wait at most; more are 451."},
    {"breaker_failures", SCHEMA_COUNT, AT(breaker_failures), 1, 1000000, "5", NULL, NULL,
     "Failures in a row after which it is left alone."},
    {"breaker", SCHEMA_DURATION, AT(breaker_ms), 100, 3600000, "5s", NULL, NULL,
     "For so long; then one question tries."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static const struct {
    const char *key;
    enum recipients_directory kind;
    enum directory_kind directory;
} source_kinds[] = {
    {"table", RECIPIENTS_TABLE, 0},
    {"cdb", RECIPIENTS_CDB, 0},
    {"ldap", RECIPIENTS_DIRECTORY, DIRECTORY_LDAP},
    {"postgres", RECIPIENTS_DIRECTORY, DIRECTORY_POSTGRES},
    {"http", RECIPIENTS_DIRECTORY, DIRECTORY_HTTP},
    {"callout", RECIPIENTS_DIRECTORY, DIRECTORY_CALLOUT},
};
#define SOURCE_KINDS (sizeof source_kinds / sizeof *source_kinds)
#define SOURCE_WORDS "any, {table: FILE}, {cdb: FILE}, {ldap: ...}, {postgres: ...}, {http: ...} or {callout: ...}"

static void read_directory(struct settings_reading *r, const struct yaml *y, size_t kind,
                           struct recipients_source *to) {
    char section[64];
    struct directory_config *d = arena_calloc(&r->s->mem, 1, sizeof *d);
    snprintf(section, sizeof section, "domains.recipients.%s", source_kinds[kind].key);
    if (!d || !schema_object(r, y, section, directory_keys, d))
        return;
    d->kind = source_kinds[kind].directory;
    if (!d->uri)
        settings_complain(r, y, "%s.uri: missing", section);
    else if (d->kind == DIRECTORY_LDAP && !d->base)
        settings_complain(r, y, "%s.base: missing", section);
    else if (d->kind == DIRECTORY_POSTGRES && !d->query)
        settings_complain(r, y, "%s.query: missing", section);
    if (!d->name && d->uri) /* a connection string may hold a password: it is not for logs */
        d->name = d->kind == DIRECTORY_POSTGRES ? arena_printf(&r->s->mem, "postgres-line-%u", y->line)
                                                : arena_printf(&r->s->mem, "%s %.50s", source_kinds[kind].key, d->uri);
    to->directory = d;
}

/* One source; the arena holds it. */
static void read_source(struct settings_reading *r, const struct yaml *y, struct recipients_source *to) {
    static const char section[] = "domains.recipients";
    size_t kind = 0;
    if (y->kind == YAML_SCALAR && span_eq(y->text, SPAN("any"))) {
        to->kind = RECIPIENTS_ANY;
        return;
    }
    const struct yaml *c = y->kind == YAML_MAP ? y->first : NULL;
    while (c && kind < SOURCE_KINDS && !span_eq(c->key, span_of(source_kinds[kind].key)))
        kind++;
    if (!c || c->next || kind == SOURCE_KINDS) {
        settings_complain(r, y, "%s: takes %s", section, SOURCE_WORDS);
        return;
    }
    to->kind = source_kinds[kind].kind;
    if (to->kind == RECIPIENTS_DIRECTORY) {
        read_directory(r, c, kind, to);
        return;
    }
    struct schema_key file[] = {
        {source_kinds[kind].key, SCHEMA_FILE, offsetof(struct recipients_source, table), 0, 0, NULL, NULL, NULL, NULL},
        {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL}};
    schema_object(r, y, section, file, to);
}

static void read_sources(struct settings_reading *r, const struct yaml *y, void *object) {
    struct recipients_domain_config *d = object;
    bool list = y->kind == YAML_LIST;
    size_t n = list ? settings_count_items(r, y, "domains.recipients", RECIPIENTS_SOURCES_MAX) : 1;
    struct recipients_source *all = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *all);
    if (!all)
        return;
    if (n == 0)
        settings_complain(r, y, "domains.recipients: takes %s", SOURCE_WORDS);
    size_t i = 0;
    for (const struct yaml *c = list ? y->first : y; c; c = list ? c->next : NULL)
        read_source(r, c, &all[i++]);
    d->sources = all;
    d->source_count = n;
}

static void skip(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)r; /* read by hand: the route goes elsewhere, the name is checked first */
    (void)y;
    (void)object;
}

#define TOLD_KEYS                                                                                                      \
    {"xclient",                                                                                                        \
     SCHEMA_CUSTOM,                                                                                                    \
     0,                                                                                                                \
     0,                                                                                                                \
     0,                                                                                                                \
     "false",                                                                                                          \
     "true or false",                                                                                                  \
     skip,                                                                                                             \
     "Its servers are told of the client of each message by XCLIENT, where they announce it."},                        \
    {                                                                                                                  \
        "xforward", SCHEMA_CUSTOM, 0, 0, 0, "false", "true or false", skip, "The same by XFORWARD."                    \
    }

#define AT(member) offsetof(struct recipients_domain_config, member)
static const struct schema_key domain_keys[] = {
    {"name", SCHEMA_CUSTOM, 0, 0, 0, NULL, "domain name", skip, "The domain; U-labels may be written."},
    {"recipients", SCHEMA_CUSTOM, 0, 0, 0, NULL, "source, or list of sources", read_sources,
     "Who is a recipient: " SOURCE_WORDS "; several are asked in order."},
    {"route", SCHEMA_CUSTOM, 0, 0, 0, NULL, "route", skip, "Where its mail goes."},
    {"credentials", SCHEMA_CUSTOM, 0, 0, 0, NULL, "map", skip, "How we log in there; see below."},
    TOLD_KEYS,
    {"tag", SCHEMA_TEXT, AT(tag), 0, 8, NULL, NULL, NULL,
     "Characters that separate a local part from its tag, as in user+tag. Default `+`; empty: no tags."},
    {"case_sensitive", SCHEMA_BOOL, AT(case_sensitive), 0, 0, "false", NULL, NULL,
     "Directories get local parts as given, not in lower case."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

/* -- the lists -- */

void settings_read_domains(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    size_t n = settings_count_items(r, y, "domains", DOMAINS_MAX), i = 0;
    struct recipients_domain_config *d = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *d);
    if (!d || !more_routes(r, n))
        return;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_MAP) {
            settings_complain(r, c, "domains: takes {name: DOMAIN, recipients: ..., route: ...}");
            continue;
        }
        memset(&d[i], 0, sizeof d[i]);
        schema_object(r, c, "domains", domain_keys, &d[i]);
        const struct yaml *name = scalar_child(r, c, "domains", "name");
        const char *canonical = name ? settings_domain(r, name, "domains.name", false) : NULL;
        bool fresh = canonical && note(r, &r->domains, name, "domains.name", canonical);
        if (!schema_child(c, "recipients"))
            settings_complain(r, c, "domains.recipients: missing: %s", SOURCE_WORDS);
        /* Where mail for an own domain goes must be said: its MX is we ourselves. */
        read_route(r, c, "domains", fresh ? canonical : NULL);
        if (fresh)
            d[i++].name = canonical;
    }
    r->s->recipients.domains = d;
    r->s->recipients.count = i;
}

static const struct schema_key route_keys[] = {
    {"domain", SCHEMA_CUSTOM, 0, 0, 0, NULL, "domain name, .NAME or *", skip, "`.NAME`: it and all below it."},
    {"route", SCHEMA_CUSTOM, 0, 0, 0, NULL, "route", skip, "Where its mail goes."},
    {"credentials", SCHEMA_CUSTOM, 0, 0, 0, NULL, "map", skip, "How we log in there; see below."},
    TOLD_KEYS,
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};

void settings_read_routes(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    size_t n = settings_count_items(r, y, "routes", DOMAINS_MAX);
    if (n == SIZE_MAX || !more_routes(r, n))
        return;
    for (const struct yaml *c = y->first; c; c = c->next) {
        if (c->kind != YAML_MAP) {
            settings_complain(r, c, "routes: takes {domain: DOMAIN, route: ...}");
            continue;
        }
        schema_object(r, c, "routes", route_keys, NULL);
        const struct yaml *domain = scalar_child(r, c, "routes", "domain");
        const char *name = !domain                            ? NULL
                           : span_eq(domain->text, SPAN("*")) ? "*"
                                                              : settings_domain(r, domain, "routes.domain", true);
        read_route(r, c, "routes", name);
    }
}

static const char *const *read_secrets(struct settings_reading *r, const struct yaml *y, const char *what,
                                       size_t *count) {
    const char *const *all = settings_texts(r, y, what, SECRETS_MAX, count);
    for (size_t i = 0; all && i < *count; i++) {
        if (strlen(all[i]) < SECRET_LEN_MIN)
            settings_complain(r, y, "%s: takes texts of at least %d characters", what, SECRET_LEN_MIN);
    }
    return all;
}

void settings_read_secrets(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    r->s->srs.secrets = read_secrets(r, y, "srs.secrets", &r->s->srs.secret_count);
}

void settings_read_batv_secrets(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    r->s->batv.secrets = read_secrets(r, y, "batv.secrets", &r->s->batv.secret_count);
}

void settings_read_batv_domains(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    size_t n = settings_count_items(r, y, "batv.domains", BATV_DOMAINS_MAX), i = 0;
    const char **all = n == SIZE_MAX ? NULL : arena_calloc(&r->s->mem, n + 1, sizeof *all);
    for (const struct yaml *c = all ? y->first : NULL; c; c = c->next) {
        if (c->kind != YAML_SCALAR)
            settings_complain(r, c, "batv.domains: takes domain names");
        else if ((all[i] = settings_domain(r, c, "batv.domains", false)))
            i++;
    }
    r->s->batv.domains = all;
    r->s->batv.domain_count = i;
}

void settings_finish_domains(struct settings *s) {
    for (size_t i = 0; i < s->recipients.count; i++) {
        const struct recipients_domain_config *d = &s->recipients.domains[i];
        for (size_t k = 0; k < d->source_count; k++) {
            struct directory_config *dir = (struct directory_config *)(uintptr_t)d->sources[k].directory;
            if (!dir)
                continue;
            dir->hostname = s->hostname;
            dir->dns = s->outbound.dns;
        }
    }
}

int settings_domains_reference(struct buf *to) {
    schema_object_reference(to, "## Each of `domains`", domain_keys);
    schema_object_reference(to, "## `credentials` of `domains` and `routes`", login_keys);
    return schema_object_reference(to, "## A directory (`ldap`, `postgres`, `http`, `callout`)", directory_keys);
}
