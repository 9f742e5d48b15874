/*
 * settings_gateway: the lists of the front end: listeners, certificates, credential backends, milters, policy services,
 * DNS lists, DKIM keys.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/settings_schema.h"

enum { CERTIFICATES_MAX = 1000, KEYS_MAX = 10000, PASSWORD_MAX = 1000 };

/* -- what several lists share -- */

/* "ADDRESS:PORT" with numbers, or unix:/PATH. */
static void read_address(struct settings_reading *r, const struct yaml *y, const char *what, struct tcp_addr *to) {
    bool local = y->kind == YAML_SCALAR && span_starts_nocase(y->text, SPAN("unix:"));
    int err = y->kind != YAML_SCALAR ? ERR_INVALID
              : local                ? tcp_addr_parse(to, y->text, 0)
                                     : tcp_addr_parse_port(to, y->text);
    if (err)
        settings_complain(r, y, "%s: takes ADDRESS:PORT with numbers, or unix:/PATH", what);
}

void settings_read_password(struct settings_reading *r, const struct yaml *y, const char *what, const char **to) {
    char line[PASSWORD_MAX];
    FILE *f = y->kind == YAML_SCALAR ? fopen(y->text.at, "re") : NULL;
    bool fine = f && fgets(line, sizeof line, f);
    if (f)
        fclose(f);
    if (fine)
        line[strcspn(line, "\r\n")] = '\0';
    if (!fine || !line[0]) { /* to LDAP, no password is a question by nobody, which succeeds */
        settings_complain(r, y, "%s: cannot be read, or is empty", what);
        return;
    }
    *to = arena_strdup(&r->s->mem, line);
}

/* -- listeners -- */

static const struct {
    const char *name;
    uint32_t bit;
} extensions[] = {
    {"PIPELINING", SERVER_EXT_PIPELINING},
    {"SIZE", SERVER_EXT_SIZE},
    {"8BITMIME", SERVER_EXT_8BITMIME},
    {"SMTPUTF8", SERVER_EXT_SMTPUTF8},
    {"DSN", SERVER_EXT_DSN},
    {"CHUNKING", SERVER_EXT_CHUNKING},
    {"LIMITS", SERVER_EXT_LIMITS},
    {"REQUIRETLS", SERVER_EXT_REQUIRETLS},
    {"MT-PRIORITY", SERVER_EXT_MT_PRIORITY},
    {"DELIVERBY", SERVER_EXT_DELIVERBY},
    {"FUTURERELEASE", SERVER_EXT_FUTURERELEASE},
};

/* The extensions that a listener adds and leaves out, over what it has by nature. */
struct listener_item {
    struct inbound_listener l;
    bool has_address;
    uint32_t with, without;
};

static uint32_t read_extensions(struct settings_reading *r, const struct yaml *y, const char *what) {
    uint32_t bits = 0;
    if (settings_count_items(r, y, what, 20) == SIZE_MAX)
        return 0;
    for (const struct yaml *c = y->first; c; c = c->next) {
        uint32_t bit = 0;
        for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
            if (c->kind == YAML_SCALAR && span_eq_nocase(c->text, span_of(extensions[i].name)))
                bit = extensions[i].bit;
        }
        if (!bit)
            settings_complain(r, c,
                              "%s: takes PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN, CHUNKING, LIMITS, REQUIRETLS, "
                              "MT-PRIORITY, DELIVERBY or FUTURERELEASE",
                              what);
        bits |= bit;
    }
    return bits;
}

static void read_with(struct settings_reading *r, const struct yaml *y, void *object) {
    ((struct listener_item *)object)->with = read_extensions(r, y, "gateway.listen.with");
}

static void read_without(struct settings_reading *r, const struct yaml *y, void *object) {
    ((struct listener_item *)object)->without = read_extensions(r, y, "gateway.listen.without");
}

static void read_listen_address(struct settings_reading *r, const struct yaml *y, void *object) {
    struct listener_item *item = object;
    struct tcp_addr *a = &item->l.address;
    item->has_address = y->kind == YAML_SCALAR && !span_starts_nocase(y->text, SPAN("unix:")) &&
                        tcp_addr_parse_port(a, y->text) == ERR_OK && tcp_addr_port(a) != 0;
    if (!item->has_address)
        settings_complain(r, y,
                          "gateway.listen.address: takes ADDRESS:PORT with numbers, such as 0.0.0.0:25 or [::]:25");
}

static void read_listen_tls(struct settings_reading *r, const struct yaml *y, void *object) {
    static const char *const words[] = {"off", "offered", "required", "implicit"};
    struct listener_item *item = object;
    for (unsigned i = 0; i < 4; i++) {
        if (y->kind == YAML_SCALAR && span_eq(y->text, span_of(words[i]))) {
            item->l.tls = (enum inbound_tls)i;
            return;
        }
    }
    settings_complain(r, y, "gateway.listen.tls: takes one of off|offered|required|implicit");
}

#define AT(member) offsetof(struct listener_item, member)
static const struct schema_key listener_keys[] = {
    {"address", SCHEMA_CUSTOM, 0, 0, 0, NULL, "ADDRESS:PORT", read_listen_address, "Numbers; IPv6 in brackets."},
    {"tls", SCHEMA_CUSTOM, 0, 0, 0, NULL, "off, offered, required or implicit", read_listen_tls,
     "STARTTLS offered or required, or TLS from the first octet. Default: offered where there is a certificate."},
    {"auth", SCHEMA_WORD, AT(l.auth), 0, 0, "off", "off|offered|required", NULL, "AUTH."},
    {"submission", SCHEMA_BOOL, AT(l.submission), 0, 0, "false", NULL, NULL,
     "For our users: missing Date and Message-ID are added; MT-PRIORITY, DELIVERBY and FUTURERELEASE are offered."},
    {"sender_login", SCHEMA_BOOL, AT(l.sender_login), 0, 0, "false", NULL, NULL,
     "An account may only use its own sender addresses (gateway.auth.sender_login)."},
    {"hide_client", SCHEMA_BOOL, AT(l.hide_client), 0, 0, "false", NULL, NULL,
     "Received names neither client nor HELO of authenticated users."},
    {"client_certificate", SCHEMA_BOOL, AT(l.client_certificate), 0, 0, "false", NULL, NULL,
     "A client certificate that gateway.tls.client_ca vouches for is as good as AUTH."},
    {"proxy", SCHEMA_BOOL, AT(l.proxy), 0, 0, "false", NULL, NULL,
     "Every connection begins with a PROXY header (v1 or v2); only gateway.balancers may connect."},
    {"sign", SCHEMA_BOOL, AT(l.sign), 0, 0, "true", NULL, NULL,
     "Sign mail of authenticated and trusted clients where gateway.authentication.keys has a key."},
    {"with", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of extensions", read_with,
     "Extensions offered besides the usual ones."},
    {"without", SCHEMA_CUSTOM, 0, 0, 0, NULL, "list of extensions", read_without, "Extensions not offered."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

static bool is_listed(const struct inbound_settings *s, const struct tcp_addr *a) {
    for (size_t i = 0; i < s->listener_count; i++) {
        if (tcp_addr_same_ip(&s->listeners[i].address, a) &&
            tcp_addr_port(&s->listeners[i].address) == tcp_addr_port(a))
            return true;
    }
    return false;
}

static void add_listener(struct settings_reading *r, const struct yaml *y, struct listener_item *item) {
    static const uint32_t for_users = SERVER_EXT_MT_PRIORITY | SERVER_EXT_DELIVERBY | SERVER_EXT_FUTURERELEASE;
    struct inbound_settings *s = &r->s->inbound;
    if (!item->has_address) {
        if (!schema_child(y, "address"))
            settings_complain(r, y, "gateway.listen.address: missing");
        return;
    }
    if (is_listed(s, &item->l.address)) {
        settings_complain(r, schema_child(y, "address"), "gateway.listen.address: listed twice");
        return;
    }
    item->l.extensions = SERVER_EXT_BASIC | (item->l.submission ? for_users : 0);
    item->l.extensions = (item->l.extensions | item->with) & ~item->without;
    s->listeners[s->listener_count++] = item->l;
}

void settings_read_listen(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    size_t n = settings_count_items(r, y, "gateway.listen", INBOUND_LISTENERS_MAX);
    if (n == SIZE_MAX)
        return;
    if (n == 0)
        settings_complain(r, y, "gateway.listen: takes at least one address");
    r->s->inbound.listener_count = 0;
    memset(r->s->inbound.listeners, 0, sizeof r->s->inbound.listeners);
    for (const struct yaml *c = y->first; c; c = c->next) {
        struct listener_item item = {.l.tls = SETTINGS_TLS_UNSAID};
        if (c->kind != YAML_MAP)
            settings_complain(r, c, "gateway.listen: takes {address: \"ADDRESS:PORT\"}");
        else if (schema_object(r, c, "gateway.listen", listener_keys, &item) || !item.has_address)
            add_listener(r, c, &item);
    }
}

/* -- certificates and DKIM keys -- */

#define AT(member) offsetof(struct tls_pair, member)
static const struct schema_key pair_keys[] = {
    {"certificate", SCHEMA_FILE, AT(certificate), 0, 0, NULL, NULL, NULL,
     "PEM file with the certificate and its chain."},
    {"key", SCHEMA_FILE, AT(key), 0, 0, NULL, NULL, NULL, "PEM file with its private key."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_certificates(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char section[] = "gateway.tls.certificates";
    r->s->tls.pairs =
        schema_objects(r, y, section, pair_keys, sizeof(struct tls_pair), CERTIFICATES_MAX, &r->s->tls.pair_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < r->s->tls.pair_count; i++, c = c->next) {
        if (!r->s->tls.pairs[i].certificate || !r->s->tls.pairs[i].key)
            settings_complain(r, c, "%s: takes {certificate: FILE, key: FILE}", section);
    }
}

#define AT(member) offsetof(struct mailauth_key, member)
static const struct schema_key dkim_keys[] = {
    {"domain", SCHEMA_TEXT, AT(domain), 1, 255, NULL, NULL, NULL, "Senders of this domain, and of those below it."},
    {"selector", SCHEMA_TEXT, AT(selector), 1, 63, NULL, NULL, NULL, "SELECTOR._domainkey.DOMAIN has the public key."},
    {"key", SCHEMA_FILE, AT(key), 0, 0, NULL, NULL, NULL, "PEM file with the private key."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_keys(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char section[] = "gateway.authentication.keys";
    struct mailauth_config *m = &r->s->mailauth;
    struct mailauth_key *all = schema_objects(r, y, section, dkim_keys, sizeof *all, KEYS_MAX, &m->key_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < m->key_count; i++, c = c->next) {
        if (!all[i].domain || !all[i].selector || !all[i].key)
            settings_complain(r, c, "%s: takes {domain: DOMAIN, selector: NAME, key: FILE}", section);
    }
    m->keys = all;
}

/* -- credential backends -- */

static void read_backend_password(struct settings_reading *r, const struct yaml *y, void *object) {
    struct auth_backend_config *b = object;
    settings_read_password(r, y, "gateway.auth.backends.password_file", &b->password);
}

#define AT(member) offsetof(struct auth_backend_config, member)
static const struct schema_key backend_keys[] = {
    {"kind", SCHEMA_WORD, AT(kind), 0, 0, "file", "file|ldap|postgres|http|dovecot", NULL, "What it is."},
    {"name", SCHEMA_TEXT, AT(name), 1, 64, NULL, NULL, NULL, "For logs and metrics. Default: its kind."},
    {"file", SCHEMA_FILE, AT(file), 0, 0, NULL, NULL, NULL,
     "file: lines of `account:hash`; read again when it changes."},
    {"uri", SCHEMA_TEXT, AT(uri), 1, 1000, NULL, NULL, NULL,
     "`ldap://HOST`; a libpq connection string; an HTTP URL; dovecot: `unix:/run/dovecot/auth-client` or HOST:PORT."},
    {"user", SCHEMA_TEXT, AT(user), 1, 500, NULL, NULL, NULL, "ldap: DN to search as; http: user name."},
    {"password", SCHEMA_TEXT, AT(password), 1, 500, NULL, NULL, NULL, "Its password."},
    {"password_file", SCHEMA_CUSTOM, 0, 0, 0, NULL, "file", read_backend_password,
     "Or a file whose first line is the password."},
    {"starttls", SCHEMA_BOOL, AT(starttls), 0, 0, "false", NULL, NULL, "ldap: StartTLS; the certificate is checked."},
    {"ca_file", SCHEMA_FILE, AT(ca_file), 0, 0, NULL, NULL, NULL, "ldap, http: authorities. Default: the system's."},
    {"bind_dn", SCHEMA_TEXT, AT(bind_dn), 1, 500, NULL, NULL, NULL, "ldap: the DN of an account, `%u` is its name."},
    {"base", SCHEMA_TEXT, AT(base), 1, 500, NULL, NULL, NULL, "ldap: or where to search for it,"},
    {"filter", SCHEMA_TEXT, AT(filter), 1, 1000, NULL, NULL, NULL, "ldap: and how, `%u` is its name."},
    {"query", SCHEMA_TEXT, AT(query), 1, 4000, NULL, NULL, NULL, "postgres: `$1` is the account; gives its hash."},
    {"timeout", SCHEMA_DURATION, AT(timeout_ms), 100, 60000, "5s", NULL, NULL, "For one question."},
    {"connections", SCHEMA_COUNT, AT(connections), 1, 256, "4", NULL, NULL, "Connections to it at once."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_backends(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    static const char section[] = "gateway.auth.backends";
    static const char *const kinds[] = {"file", "ldap", "postgres", "http", "dovecot"};
    struct auth_config *a = &r->s->auth;
    struct auth_backend_config *all =
        schema_objects(r, y, section, backend_keys, sizeof *all, AUTH_BACKENDS_MAX, &a->count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < a->count; i++, c = c->next) {
        struct auth_backend_config *b = &all[i];
        if (!b->name)
            b->name = kinds[b->kind];
        if (b->kind == AUTH_FILE ? !b->file : !b->uri)
            settings_complain(r, c, "%s.%s: missing", section, b->kind == AUTH_FILE ? "file" : "uri");
        if (b->kind == AUTH_LDAP && !b->bind_dn && !b->base)
            settings_complain(r, c, "%s: ldap takes bind_dn, or base and filter", section);
        if (b->kind == AUTH_POSTGRES && !b->query)
            settings_complain(r, c, "%s.query: missing", section);
    }
    a->backends = all;
}

/* -- filters -- */

static void read_milter_address(struct settings_reading *r, const struct yaml *y, void *object) {
    read_address(r, y, "gateway.milters.address", &((struct milter_config *)object)->address);
}

static void read_policy_address(struct settings_reading *r, const struct yaml *y, void *object) {
    read_address(r, y, "gateway.policies.address", &((struct policy_config *)object)->address);
}

#define AT(member) offsetof(struct milter_config, member)
static const struct schema_key milter_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, 64, NULL, NULL, NULL, "For logs and metrics."},
    {"address", SCHEMA_CUSTOM, 0, 0, 0, NULL, "ADDRESS:PORT or unix:/PATH", read_milter_address, "Where it listens."},
    {"failure", SCHEMA_WORD, AT(failure), 0, 0, "tempfail", "tempfail|accept|reject", NULL,
     "When it does not answer: 451, go on without it, or 550."},
    {"connect", SCHEMA_DURATION, AT(connect_ms), 100, 120000, "10s", NULL, NULL, "For the connection."},
    {"command", SCHEMA_DURATION, AT(command_ms), 100, 600000, "30s", NULL, NULL, "For the answer to one command."},
    {"end", SCHEMA_DURATION, AT(end_ms), 100, 1800000, "5m", NULL, NULL, "For the answer to the end of the message."},
    {"skip_trusted", SCHEMA_BOOL, AT(skip_trusted), 0, 0, "false", NULL, NULL, "Not for trusted clients."},
    {"skip_authenticated", SCHEMA_BOOL, AT(skip_authenticated), 0, 0, "false", NULL, NULL, "Not after AUTH."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_milters(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct inbound_settings *s = &r->s->inbound;
    struct milter_config *all =
        schema_objects(r, y, "gateway.milters", milter_keys, sizeof *all, MILTERS_MAX, &s->milter_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < s->milter_count; i++, c = c->next) {
        if (!all[i].name || !schema_child(c, "address"))
            settings_complain(r, c, "gateway.milters: takes {name: NAME, address: \"ADDRESS:PORT\"}");
    }
    s->milters = all;
}

/* The stage as a word; the enum has others before. */
static void read_stage(struct settings_reading *r, const struct yaml *y, void *object) {
    struct policy_config *p = object;
    if (y->kind == YAML_SCALAR && span_eq(y->text, SPAN("rcpt")))
        p->stage = CHECK_RCPT;
    else if (y->kind == YAML_SCALAR && span_eq(y->text, SPAN("data")))
        p->stage = CHECK_DATA;
    else if (y->kind == YAML_SCALAR && span_eq(y->text, SPAN("end")))
        p->stage = CHECK_END;
    else
        settings_complain(r, y, "gateway.policies.stage: takes one of rcpt|data|end");
}

#define AT(member) offsetof(struct policy_config, member)
static const struct schema_key policy_keys[] = {
    {"name", SCHEMA_TEXT, AT(name), 1, 64, NULL, NULL, NULL, "For logs and metrics."},
    {"address", SCHEMA_CUSTOM, 0, 0, 0, NULL, "ADDRESS:PORT or unix:/PATH", read_policy_address, "Where it listens."},
    {"stage", SCHEMA_CUSTOM, 0, 0, 0, NULL, "rcpt, data or end", read_stage, "When it is asked. Default: rcpt."},
    {"failure", SCHEMA_WORD, AT(failure), 0, 0, "tempfail", "tempfail|accept|reject", NULL,
     "When it does not answer: 451, go on without it, or 550."},
    {"timeout", SCHEMA_DURATION, AT(timeout_ms), 100, 120000, "10s", NULL, NULL, "For an answer."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_policies(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct inbound_settings *s = &r->s->inbound;
    struct policy_config *all =
        schema_objects(r, y, "gateway.policies", policy_keys, sizeof *all, POLICIES_MAX, &s->policy_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < s->policy_count; i++, c = c->next) {
        if (!schema_child(c, "stage"))
            all[i].stage = CHECK_RCPT;
        if (!all[i].name || !schema_child(c, "address"))
            settings_complain(r, c, "gateway.policies: takes {name: NAME, address: \"ADDRESS:PORT\"}");
    }
    s->policies = all;
}

#define AT(member) offsetof(struct guard_dnslist, member)
static const struct schema_key dnslist_keys[] = {
    {"zone", SCHEMA_TEXT, AT(zone), 1, 200, NULL, NULL, NULL, "Its zone, such as zen.example.org."},
    {"answer", SCHEMA_TEXT, AT(answer), 1, 40, NULL, NULL, NULL,
     "The answers that count, an address or a network. Default: any of 127.0.0.0/8 but the list's error answers."},
    {"score", SCHEMA_SCORE, AT(score), 0, 0, "10", NULL, NULL, "What a hit counts: bad above 0, good below."},
    {NULL, SCHEMA_TEXT, 0, 0, 0, NULL, NULL, NULL, NULL},
};
#undef AT

void settings_read_dnslists(struct settings_reading *r, const struct yaml *y, void *object) {
    (void)object;
    struct guard_config *g = &r->s->inbound.guard;
    struct guard_dnslist *all = schema_objects(r, y, "gateway.dnslists.lists", dnslist_keys, sizeof *all,
                                               GUARD_DNSLISTS_MAX, &g->dnslist_count);
    const struct yaml *c = y->first;
    for (size_t i = 0; i < g->dnslist_count; i++, c = c->next) {
        struct tcp_net net;
        if (!all[i].zone)
            settings_complain(r, c, "gateway.dnslists.lists.zone: missing");
        if (all[i].answer && tcp_net_parse(&net, span_of(all[i].answer)) != ERR_OK) {
            char whole[64];
            snprintf(whole, sizeof whole, "%.40s/32", all[i].answer);
            if (tcp_net_parse(&net, span_of(whole)) != ERR_OK)
                settings_complain(r, c, "gateway.dnslists.lists.answer: takes an address or a network");
        }
    }
    g->dnslists = all;
}

int settings_gateway_reference(struct buf *to) {
    schema_object_reference(to, "## Each of `gateway.listen`", listener_keys);
    schema_object_reference(to, "## Each of `gateway.auth.backends`", backend_keys);
    schema_object_reference(to, "## Each of `gateway.milters`", milter_keys);
    schema_object_reference(to, "## Each of `gateway.policies`", policy_keys);
    schema_object_reference(to, "## Each of `gateway.dnslists.lists`", dnslist_keys);
    return schema_object_reference(to, "## Each of `gateway.authentication.keys`", dkim_keys);
}

/* -- what depends on several keys -- */

static void check_tls(struct settings_reading *r) {
    struct settings_tls *t = &r->s->tls;
    if ((t->certificate == NULL) != (t->key == NULL)) {
        settings_complain_key(r, t->certificate ? "gateway.tls.certificate" : "gateway.tls.key",
                              "certificate and key belong together");
        return;
    }
    if (!t->certificate) {
        if (t->pair_count)
            settings_complain_key(r, "gateway.tls.certificates", "takes gateway.tls.certificate as the first one");
        return;
    }
    struct tls_pair *all = arena_calloc(&r->s->mem, t->pair_count + 1, sizeof *all);
    if (!all)
        return;
    all[0] = (struct tls_pair){t->certificate, t->key};
    for (size_t i = 0; i < t->pair_count; i++)
        all[i + 1] = t->pairs[i];
    t->pairs = all;
    t->pair_count++;
}

static void check_listeners(struct settings_reading *r) {
    struct settings *s = r->s;
    for (size_t i = 0; i < s->inbound.listener_count; i++) {
        struct inbound_listener *l = &s->inbound.listeners[i];
        if (l->tls == SETTINGS_TLS_UNSAID)
            l->tls = s->tls.pair_count ? INBOUND_TLS_OFFERED : INBOUND_TLS_OFF;
        if (l->tls != INBOUND_TLS_OFF && !s->tls.pair_count)
            settings_complain_key(r, "gateway.listen", "tls needs gateway.tls.certificate");
        if (l->auth != INBOUND_AUTH_OFF && !s->auth.count && !(l->client_certificate && s->tls.client_ca))
            settings_complain_key(r, "gateway.listen", "auth needs gateway.auth.backends");
        if (l->client_certificate && !s->tls.client_ca)
            settings_complain_key(r, "gateway.listen", "client_certificate needs gateway.tls.client_ca");
        if (l->proxy && !s->inbound.balancer_count)
            settings_complain_key(r, "gateway.listen", "proxy needs gateway.balancers");
    }
}

void settings_check_gateway(struct settings_reading *r) {
    struct settings *s = r->s;
    check_tls(r);
    check_listeners(r);
    if (s->mailauth.dmarc != MAILAUTH_OFF && !(s->mailauth.spf && s->mailauth.dkim))
        settings_complain_key(r, "gateway.authentication.dmarc", "needs spf and dkim");
    if (s->srs.domain && !s->srs.secret_count)
        settings_complain_key(r, "srs.secrets", "missing, while srs.domain is set");
    if (s->batv.domain_count && !s->batv.secret_count)
        settings_complain_key(r, "batv.secrets", "missing, while batv.domains are set");
    s->inbound.guard.v4_bits = (uint8_t)s->v4_bits;
    s->inbound.guard.v6_bits = (uint8_t)s->v6_bits;
    s->inbound.guard.per_client.window_ms = s->inbound.guard.per_account.window_ms = s->rate_window_ms;
    const char *wrong = guard_config_is_wrong(&s->inbound.guard);
    if (wrong)
        settings_complain(r, NULL, "gateway: %s", wrong);
}
