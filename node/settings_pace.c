/*
 * settings_pace: how fast mail goes out and from where: delivery.rates, delivery.sources, delivery.reply_rules.
 */
#include <string.h>

#include "gateway/outbound/rules.h"
#include "gateway/outbound/sources.h"
#include "gateway/smtp/socks5.h"
#include "node/settings_schema.h"

enum {
    RATES_MAX = 1000,
    POOLS_MAX = 1000,
    SENDERS_MAX = 10000,
    NAME_MAX_LEN = 40,
    ACCOUNT_MAX_LEN = 255,
    MESSAGES_MAX = 100000000
};
#define MS_DAY 86400000u

/* -- rates -- */

#define AT(member) offsetof(struct outbound_rate, member)

static void read_pattern(struct settings_reading *r, const struct yaml *y, const char *what, const char **to) {
    if (y->kind == YAML_SCALAR && span_eq(y->text, SPAN("*")))
        *to = "*";
    else if (y->kind == YAML_SCALAR)
        *to = settings_domain(r, y, what, true);
    else
        settings_complain(r, y, "%s: takes one value", what);
}

static void read_rate_site(struct settings_reading *r, const struct yaml *y, void *object) {
    read_pattern(r, y, "delivery.rates.site", &((struct outbound_rate *)object)->site);
}

static void read_rate_domain(struct settings_reading *r, const struct yaml *y, void *object) {
    read_pattern(r, y, "delivery.rates.domain", &((struct outbound_rate *)object)->domain);
}

static const struct schema_key rate_keys[] = {
    {"site", SCHEMA_CUSTOM, 0, 0, 0, NULL, "host name, .NAME or *", read_rate_site,
     "Sites with a host of this name; each site has its own count."},
    {"domain", SCHEMA_CUSTOM, 0, 0, 0, NULL, "domain name, .NAME or *", read_rate_domain,
     "Or: recipients' domains; each domain has its own count, whatever its site."},
    {"messages", SCHEMA_COUNT, AT(messages), 0, MESSAGES_MAX, "0", NULL, NULL,
     "Most messages in any window, a tenth of them at once; 0: any number."},
    {"window", SCHEMA_DURATION, AT(window_ms), 1000, MS_DAY, "1h", NULL, NULL, "The window."},
    {"connections", SCHEMA_COUNT, AT(connections), 0, 10000, "0", NULL, NULL,
     "Connections at once, at most delivery.limits.per_site; 0: as there."},
    {"per_connection", SCHEMA_COUNT, AT(per_connection), 0, 1000000, "0", NULL, NULL,
     "site: messages before a connection is closed; 0: as in delivery.limits."},
    {"recipients", SCHEMA_COUNT, AT(recipients), 0, 10000, "0", NULL, NULL,
     "Recipients of one transaction; 0: as in delivery.limits."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_rates(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char section[] = "delivery.rates";
    struct outbound_settings *o = &r->s->outbound;
    struct outbound_rate *all = schema_objects(r, y, section, rate_keys, sizeof *all, RATES_MAX, &o->rate_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < o->rate_count; i++, c = c->next) {
        if (!schema_child(c, "site") == !schema_child(c, "domain"))
            settings_complain(r, c, "%s: each takes either site or domain", section);
        if (all[i].domain && all[i].per_connection)
            settings_complain(r, c, "%s.per_connection: goes with site", section);
        if (!all[i].site && !all[i].domain)
            all[i].domain = "invalid.invalid"; /* complained of */
    }
    o->rates = all;
}

/* -- sources -- */

static void read_address(struct settings_reading *r, const struct yaml *y, void *object) {
    struct outbound_source *s = object;
    if (y->kind != YAML_SCALAR || tcp_addr_parse(&s->address, y->text, 0) != ERR_OK ||
        s->address.storage.ss_family == AF_UNIX)
        settings_complain(r, y, "delivery.sources.addresses.address: takes an IPv4 or IPv6 address");
}

static void read_ehlo(struct settings_reading *r, const struct yaml *y, void *object) {
    ((struct outbound_source *)object)->ehlo = settings_domain(r, y, "delivery.sources.addresses.ehlo", false);
}

static void read_start(struct settings_reading *r, const struct yaml *y, void *object) {
    struct outbound_source *s = object;
    if (y->kind != YAML_SCALAR || sources_read_day(y->text, &s->warm_day) != ERR_OK)
        settings_complain(r, y, "delivery.sources.addresses.warm_up.start: takes a day such as 2026-03-01");
}

#define AT(member) offsetof(struct outbound_source, member)
static const struct schema_key warm_keys[] = {
    {"start", SCHEMA_CUSTOM, 0, 0, 0, NULL, "day, such as 2026-03-01", read_start,
     "The first day (UTC); before it the address is not used."},
    {"messages_first_day", SCHEMA_COUNT, AT(warm_first), 1, SOURCES_GROWN, "50", NULL, NULL, "Messages of that day."},
    {"growth", SCHEMA_COUNT, AT(warm_growth), 1, 1000, "50", NULL, NULL,
     "Percent more each day; from a million a day on there is no limit."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};

static void read_warm_up(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char section[] = "delivery.sources.addresses.warm_up";
    schema_object(r, y, section, warm_keys, object);
    if (y->kind == YAML_MAP && !schema_child(y, "start"))
        settings_complain(r, y, "%s.start: missing", section);
}

static void read_proxy(struct settings_reading *r, const struct yaml *y, const char *what, struct outbound_egress *e,
                       enum outbound_egress_kind kind) {
    if (e->kind != EGRESS_DIRECT)
        settings_complain(r, y, "delivery.sources.addresses.egress: takes either socks5 or proxy_v2");
    e->kind = kind;
    if (y->kind != YAML_SCALAR || tcp_addr_parse_port(&e->address, y->text) != ERR_OK ||
        e->address.storage.ss_family == AF_UNIX || tcp_addr_port(&e->address) == 0)
        settings_complain(r, y, "%s: takes an IP address (no name) and a port, such as 192.0.2.5:1080 or [::1]:1080",
                          what);
}

static void read_socks5(struct settings_reading *r, const struct yaml *y, void *object) {
    read_proxy(r, y, "delivery.sources.addresses.egress.socks5", object, EGRESS_SOCKS5);
}

static void read_proxy_v2(struct settings_reading *r, const struct yaml *y, void *object) {
    read_proxy(r, y, "delivery.sources.addresses.egress.proxy_v2", object, EGRESS_PROXY_V2);
}

static void read_egress_password(struct settings_reading *r, const struct yaml *y, void *object) {
    settings_read_password(r, y, "delivery.sources.addresses.egress.password_file",
                           &((struct outbound_egress *)object)->password);
}

#define EGRESS_AT(member) offsetof(struct outbound_egress, member)
static const struct schema_key egress_keys[] = {
    {"socks5", SCHEMA_CUSTOM, 0, 0, 0, NULL, "IP address:port", read_socks5,
     "A SOCKS5 proxy that connects from the address."},
    {"user", SCHEMA_TEXT, EGRESS_AT(user), 1, SOCKS5_TEXT_MAX, NULL, NULL, NULL,
     "Of the SOCKS5 proxy; a proxy that does not ask for it is not used then."},
    {"password", SCHEMA_TEXT, EGRESS_AT(password), 1, SOCKS5_TEXT_MAX, NULL, NULL, NULL, "Its password."},
    {"password_file", SCHEMA_CUSTOM, 0, 0, 0, NULL, "file", read_egress_password,
     "Or a file whose first line is the password."},
    {"proxy_v2", SCHEMA_CUSTOM, 0, 0, 0, NULL, "IP address:port", read_proxy_v2,
     "Or a relay, such as HAProxy, that takes a PROXY header, version 2, and connects from the source in it to the "
     "destination in it."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};

static void read_egress(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char section[] = "delivery.sources.addresses.egress";
    struct outbound_egress *e = &((struct outbound_source *)object)->egress;
    schema_object(r, y, section, egress_keys, e);
    if (y->kind != YAML_MAP)
        return;
    if (e->kind == EGRESS_DIRECT)
        settings_complain(r, y, "%s: takes socks5 or proxy_v2", section);
    if (!e->user != !e->password)
        settings_complain(r, y, "%s: takes user and password together", section);
    if (e->kind == EGRESS_PROXY_V2 && e->user)
        settings_complain(r, y, "%s.user: goes with socks5", section);
    if (e->password && strlen(e->password) > SOCKS5_TEXT_MAX)
        settings_complain(r, y, "%s.password: at most %d octets", section, SOCKS5_TEXT_MAX);
}

static const struct schema_key source_keys[] = {
    {"address", SCHEMA_CUSTOM, 0, 0, 0, NULL, "IPv4 or IPv6 address", read_address,
     "One of this host's, or of the host behind `egress`."},
    {"egress", SCHEMA_CUSTOM, 0, 0, 0, NULL, "{socks5, user, password} or {proxy_v2}", read_egress,
     "The proxy on a host that has the address. Default: this host has it."},
    {"ehlo", SCHEMA_CUSTOM, 0, 0, 0, NULL, "host name", read_ehlo,
     "Name in EHLO; it should be the address's name in the DNS. Default: node.hostname."},
    {"weight", SCHEMA_COUNT, AT(weight), 1, 1000, "1", NULL, NULL, "Its share of the connections of the pool."},
    {"warm_up", SCHEMA_CUSTOM, 0, 0, 0, NULL, "{start, messages_first_day, growth}", read_warm_up,
     "For a new address: few messages a day at first."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static void read_addresses(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char section[] = "delivery.sources.addresses";
    struct outbound_pool *p = object;
    struct outbound_source *all =
        schema_objects(r, y, section, source_keys, sizeof *all, OUTBOUND_SOURCES_MAX, &p->source_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < p->source_count; i++, c = c->next) {
        if (!schema_child(c, "address"))
            settings_complain(r, c, "%s.address: missing", section);
        for (size_t k = 0; k < i; k++) {
            if (all[i].address.len && tcp_addr_same_ip(&all[i].address, &all[k].address))
                settings_complain(r, c, "%s.address: is there twice", section);
        }
    }
    p->sources = all;
}

static bool is_sender(struct span s) {
    ptrdiff_t at = span_rfind(s, '@');
    return s.len && s.len <= 320 && at != 0 && (size_t)(at + 1) < s.len && span_find(s, ' ') < 0;
}

static void read_senders(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char what[] = "delivery.sources.senders";
    struct outbound_pool *p = object;
    p->senders = settings_texts(r, y, what, SENDERS_MAX, &p->sender_count);
    for (size_t i = 0; p->senders && i < p->sender_count; i++) {
        if (!is_sender(span_of(p->senders[i])))
            settings_complain(r, y, "%s: takes addresses, domains and .DOMAIN", what);
    }
}

static bool is_account(struct span s) {
    return s.len && s.len <= ACCOUNT_MAX_LEN && span_find(s, ' ') < 0 && !span_eq(s, SPAN("@"));
}

static void read_accounts(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char what[] = "delivery.sources.accounts";
    struct outbound_pool *p = object;
    p->accounts = settings_texts(r, y, what, SENDERS_MAX, &p->account_count);
    for (size_t i = 0; p->accounts && i < p->account_count; i++) {
        if (!is_account(span_of(p->accounts[i])))
            settings_complain(r, y, "%s: takes names of accounts and @DOMAIN", what);
    }
}

#define AT(member) offsetof(struct outbound_pool, member)
static const struct schema_key pool_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, NAME_MAX_LEN, NULL, NULL, NULL, "For logs; letters, digits, - and _."},
    {"addresses", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of {address, egress, ehlo, weight, warm_up}", read_addresses,
     "The addresses of the pool, at most 64."},
    {"senders", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of addresses and domains", read_senders,
     "Whose mail goes out from them, `.NAME`: the domain and all below. With neither `senders` nor `accounts`: all "
     "mail that no other pool takes."},
    {"accounts", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of names and @DOMAIN", read_accounts,
     "Who logged in to submit it; `@NAME`: all accounts that end in it. They come before the senders of any pool."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static bool is_name(const char *name) {
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    return name && *name && strspn(name, fine) == strlen(name);
}

void settings_read_sources(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char section[] = "delivery.sources";
    struct outbound_settings *o = &r->s->outbound;
    struct outbound_pool *all = schema_objects(r, y, section, pool_keys, sizeof *all, POOLS_MAX, &o->pool_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < o->pool_count; i++, c = c->next) {
        if (!is_name(all[i].name))
            settings_complain(r, c, "%s.name: takes letters, digits, - and _", section);
        for (size_t k = 0; all[i].name && k < i; k++) {
            if (all[k].name && strcmp(all[i].name, all[k].name) == 0)
                settings_complain(r, c, "%s.name: is there twice", section);
        }
        if (!all[i].source_count)
            settings_complain(r, c, "%s.addresses: missing", section);
    }
    o->pools = all;
}

/* -- rules -- */

void settings_check_pace(struct settings_reading *r) {
    struct settings *s = r->s;
    if (s->reply_rules && rules_load(&s->outbound.rules, s->reply_rules, r->problems) != ERR_OK)
        r->failed = true;
}

int settings_pace_reference(struct buf *to) {
    schema_object_reference(to, "## Each of `delivery.rates`", rate_keys);
    schema_object_reference(to, "## Each of `delivery.sources`", pool_keys);
    schema_object_reference(to, "## Each of `delivery.sources.addresses`", source_keys);
    schema_object_reference(to, "## `egress` of such an address", egress_keys);
    return schema_object_reference(to, "## `warm_up` of such an address", warm_keys);
}
