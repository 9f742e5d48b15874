/* settings: safe defaults, every kind of error with its line and key, all at once; and the reference that is kept in
 * docs/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "node/settings.h"

static char dir[64], path[128], table[128];

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/settings_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/posthouse.yaml", dir);
    snprintf(table, sizeof table, "%s/users", dir);
    FILE *f = fopen(table, "w");
    return f && fputs("alice\n", f) >= 0 && fclose(f) == 0 ? 0 : -1;
}

static int drop_dir(void **state) {
    (void)state;
    unlink(path);
    unlink(table);
    return rmdir(dir);
}

static int load(const char *text, struct settings **s, struct buf *problems) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return settings_load(s, path, problems);
}

static void a_name_alone_is_enough(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    buf_init(&problems, 65536);
    assert_int_equal(load("node: {hostname: mx1.example.net}\n", &s, &problems), ERR_OK);
    assert_int_equal(buf_len(&problems), 0);
    assert_string_equal(s->hostname, "mx1.example.net");
    assert_string_equal(s->postmaster, "postmaster@mx1.example.net");
    assert_string_equal(s->data_dir, "/var/lib/posthouse");
    assert_string_equal(s->user, "posthouse");
    assert_int_equal(s->inbound.listener_count, 2);
    assert_int_equal(tcp_addr_port(&s->inbound.listeners[0].address), 25);
    assert_int_equal(s->inbound.limits.message_size, 50u << 20);
    assert_int_equal(s->inbound.limits.recipients, 1000);
    assert_int_equal(s->inbound.bare_newline, INBOUND_BARE_REJECT);
    assert_int_equal(s->inbound.trusted_count, 2);
    assert_int_equal(s->scheduler.retry.first_ms, 300000);
    assert_int_equal(s->scheduler.retry.give_up_ms, 5ull * 86400000);
    assert_int_equal(s->outbound.port, 25);
    assert_int_equal(s->outbound.per_site, 20);
    assert_false(s->outbound.loopback_targets);
    assert_int_equal(s->recipients.count, 0);
    settings_free(s);
    buf_deinit(&problems);
}

static void reads_every_kind(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    char ip[128];
    buf_init(&problems, 65536);
    int err = load(
        "node:\n  hostname: MX.B\xc3\xbc"
        "cher.example\n  log: {level: debug, format: json}\n"
        "gateway:\n  listen: [{address: \"127.0.0.1:2525\"}, {address: \"[::1]:26\"}]\n"
        "  trusted_networks: [192.0.2.0/24]\n  bare_newline: normalize\n  vrfy: true\n"
        "  limits: {message_size: 1MiB, recipients: 200, idle: 30s}\n"
        "domains:\n  - {name: B\xc3\xbc"
        "cher.example, recipients: any, route: \"lmtp:unix:/run/lmtp\"}\n"
        "  - {name: example.net, recipients: {table: users}, route: \"smtp:store.example.net:2525\", "
        "xclient: true, xforward: false}\n"
        "batv: {domains: [example.net, B\xc3\xbc"
        "cher.example], secrets: [0123456789abcdef], require: true}\n"
        "routes:\n  - {domain: .partner.example, route: \"mx:hub.partner.example\"}\n  - {domain: \"*\", route: mx}\n"
        "delivery:\n  dns: [\"127.0.0.1:5302\"]\n  port: 2526\n  retry: {first: 1s, max: 2m}\n"
        "  timeouts: {dot: 1m}\n",
        &s, &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_string_equal(s->hostname, "mx.xn--bcher-kva.example"); /* what protocols can carry */
    assert_string_equal(s->postmaster, "postmaster@mx.xn--bcher-kva.example");
    assert_string_equal(s->outbound.own_names[0], s->hostname);
    assert_int_equal(s->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(s->log_format, LOG_FORMAT_JSON);
    assert_int_equal(s->inbound.listener_count, 2);
    tcp_addr_format(&s->inbound.listeners[1].address, ip, sizeof ip);
    assert_string_equal(ip, "[::1]:26");
    assert_int_equal(s->inbound.bare_newline, INBOUND_BARE_NORMALIZE);
    assert_true(s->inbound.vrfy);
    assert_int_equal(s->inbound.limits.idle_ms, 30000);
    assert_int_equal(s->recipients.count, 2);
    assert_string_equal(s->recipients.domains[0].name, "xn--bcher-kva.example");
    assert_int_equal(s->recipients.domains[0].sources[0].kind, RECIPIENTS_ANY);
    assert_string_equal(s->recipients.domains[1].sources[0].table, table); /* beside the settings file */
    assert_int_equal(s->outbound.route_count, 4);
    assert_int_equal(s->outbound.routes[1].route.port, 2525);
    assert_string_equal(s->outbound.routes[2].domain, ".partner.example");
    assert_true(s->outbound.routes[1].xclient && !s->outbound.routes[1].xforward && !s->outbound.routes[0].xclient);
    assert_ptr_equal(s->recipients.batv, &s->batv);
    assert_int_equal(s->scheduler.batv.domain_count, 2);
    assert_string_equal(s->scheduler.batv.domains[1], "xn--bcher-kva.example");
    assert_int_equal(s->scheduler.batv.max_age_days, 7);
    assert_true(s->scheduler.batv.require);
    assert_string_equal(s->outbound.dns, "127.0.0.1:5302");
    assert_int_equal(s->outbound.port, 2526);
    assert_int_equal(s->outbound.timeouts.dot_ms, 60000);
    settings_free(s);
    buf_deinit(&problems);
}

/* The problems must hold the text: behind the file's name when it begins with a line's number. */
static void complains(const char *text, const char *expected) {
    struct settings *s = NULL;
    struct buf problems;
    char whole[512];
    buf_init(&problems, 65536);
    assert_int_equal(load(text, &s, &problems), ERR_INVALID);
    assert_null(s);
    snprintf(whole, sizeof whole, "%s%s%s", *expected >= '0' && *expected <= '9' ? path : "",
             *expected >= '0' && *expected <= '9' ? ":" : "", expected);
    if (!strstr(buf_cstr(&problems), whole))
        fail_msg("expected \"%s\" in:\n%s", whole, buf_cstr(&problems));
    buf_deinit(&problems);
}

/* To some servers a bind without a password is one by nobody, and succeeds. */
static void wants_a_password_in_its_file(void **state) {
    char file[200], text[500];
    (void)state;
    snprintf(file, sizeof file, "%s.secret", path);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_true(fputs("\nsecond line\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    snprintf(text, sizeof text,
             "node: {hostname: a.example}\ngateway:\n  auth:\n    backends:\n      - {kind: ldap, uri: \"ldap://h\", "
             "bind_dn: \"uid=%%u\", user: u,\n         password_file: %s}\n",
             file);
    complains(text, "6: gateway.auth.backends.password_file: cannot be read, or is empty\n");
    unlink(file);
}

static void names_line_and_key(void **state) {
    (void)state;
    complains("node:\n  hostname: a.example\n  hostnme: b\n", "3: node.hostnme: unknown key\n");
    complains("nod:\n  hostname: a\n", "1: nod: unknown key\n");
    complains("\"no\\e[1md\": {}\n", "1: no\\x1b[1md: unknown key\n");
    complains("node: [a]\n", "1: node: takes a map of keys\n");
    complains("node: {hostname: [a]}\n", "1: node.hostname: takes one value\n");
    complains("node: {hostname: \"\"}\n", "1: node.hostname: takes 1 to 255 characters\n");
    complains("node:\n  hostname: \"a b\"\n", "2: node.hostname: not a domain name: a b\n");
    complains("node:\n  postmaster: nobody\n", "2: node.postmaster: not a mail address: nobody\n");
    complains("node:\n  name: \"a/b\"\n", "2: node.name: takes letters");
    complains("node:\n\n  data_dir: here\n", "3: node.data_dir: takes an absolute path\n");
    complains("node:\n  log:\n    level: loud\n", "3: node.log.level: takes one of debug|info|warn|error\n");
    complains("node: {roles: gateway}\n", "1: node.roles: takes a list\n");
    complains("node: {roles: [gateway, teller]}\n", "1: node.roles: takes gateway, scheduler and delivery\n");
    complains("node: {roles: [gateway]}\n", "1: node.roles: one machine needs all three");
    complains("node: {hostname: a.example}\ngateway:\n  limits: {message_size: big}\n",
              "3: gateway.limits.message_size: takes a size such as 64KiB or 50MiB\n");
    complains("gateway: {limits: {message_size: 1KiB}}\n",
              "1: gateway.limits.message_size: out of range, from 64.0 KiB to 4.0 GiB\n");
    complains("gateway: {limits: {recipients: 5}}\n",
              "1: gateway.limits.recipients: out of range, from 100 to 50000\n");
    complains("gateway: {limits: {recipients: -5}}\n", "1: gateway.limits.recipients: takes a whole number\n");
    complains("gateway: {limits: {idle: 5}}\n", "1: gateway.limits.idle: takes a duration such as");
    complains("gateway: {limits: {idle: 5s}}\n", "1: gateway.limits.idle: out of range, from 10s to 1d\n");
    complains("gateway: {vrfy: maybe}\n", "1: gateway.vrfy: takes true or false\n");
    complains("gateway: {bare_newline: pass}\n", "1: gateway.bare_newline: takes one of reject|normalize\n");
    complains("gateway:\n  trusted_networks: [10.0.0.1/8]\n", "2: gateway.trusted_networks: takes networks");
    complains("delivery: {dns: [resolver.example]}\n", "1: delivery.dns: takes ADDRESS:PORT");
    complains("delivery:\n  retry:\n    first: 1h\n    max: 5m\n",
              "4: delivery.retry.max: shorter than delivery.retry.first\n");
    complains("delivery:\n  retry:\n    first: 6h\n", "3: delivery.retry.first: longer than delivery.retry.max\n");
    complains("delivery:\n  retry:\n    give_up: 1m\n", "3: delivery.retry.give_up: shorter than");
    complains("admin:\n  rpc: \"tcp://127.0.0.1:1\"\n", "2: admin.rpc: tcp:// needs admin.key");
}

static void names_what_comes_later(void **state) {
    (void)state;
    complains("cluster: {name: west}\n", "1: cluster: not supported by this version\n");
    complains("delivery: {retry: {domains: []}}\n", "1: delivery.retry.domains: not supported by this version\n");
}

static void checks_what_belongs_together(void **state) {
    (void)state;
    complains("gateway:\n  tls: {certificate: users}\n", "2: gateway.tls.certificate: certificate and key belong");
    complains("gateway:\n  tls: {certificate: absent.pem}\n", "2: gateway.tls.certificate: ");
    complains("gateway:\n  tls: {certificates: [{certificate: users, key: users}]}\n",
              "2: gateway.tls.certificates: takes gateway.tls.certificate as the first one\n");
    complains("gateway:\n  tls: {profile: best}\n", "2: gateway.tls.profile: takes one of intermediate|modern|old\n");
    complains("gateway:\n  listen:\n    - {address: \"127.0.0.1:25\", tls: required}\n",
              "2: gateway.listen: tls needs gateway.tls.certificate\n");
    complains("gateway:\n  listen:\n    - {address: \"127.0.0.1:25\", tls: sometimes}\n",
              "3: gateway.listen.tls: takes one of off|offered|required|implicit\n");
    complains("gateway:\n  listen:\n    - {address: \"127.0.0.1:25\", auth: required}\n",
              "2: gateway.listen: auth needs gateway.auth.backends\n");
    complains("gateway:\n  listen:\n    - {address: \"127.0.0.1:25\", proxy: true}\n",
              "2: gateway.listen: proxy needs gateway.balancers\n");
    complains("gateway:\n  listen:\n    - {address: \"127.0.0.1:25\", with: [ETRN]}\n",
              "3: gateway.listen.with: takes PIPELINING");
    complains("gateway:\n  auth: {backends: [{kind: ldap}]}\n", "2: gateway.auth.backends.uri: missing\n");
    complains("gateway:\n  auth: {backends: [{kind: file}]}\n", "2: gateway.auth.backends.file: missing\n");
    complains("gateway:\n  auth: {backends: [{kind: postgres, uri: x}]}\n",
              "2: gateway.auth.backends.query: missing\n");
    complains("gateway:\n  milters: [{name: a}]\n", "2: gateway.milters: takes {name: NAME, address: ");
    complains("gateway:\n  milters: [{name: a, address: here}]\n", "2: gateway.milters.address: takes ADDRESS:PORT");
    complains("gateway:\n  policies: [{name: a, address: \"127.0.0.1:1\", stage: helo}]\n",
              "2: gateway.policies.stage: takes one of rcpt|data|end\n");
    complains("gateway:\n  dnslists: {lists: [{score: 1}]}\n", "2: gateway.dnslists.lists.zone: missing\n");
    complains("gateway:\n  dnslists: {lists: [{zone: a.b, score: -1001}]}\n",
              "2: gateway.dnslists.lists.score: takes a number from -1000 to 1000\n");
    complains("gateway:\n  dnslists: {lists: [{zone: a.b, answer: yes}]}\n",
              "2: gateway.dnslists.lists.answer: takes an address or a network\n");
    complains("gateway:\n  authentication: {dmarc: report}\n", "2: gateway.authentication.dmarc: needs spf and dkim\n");
    complains("gateway:\n  authentication: {keys: [{domain: a.b}]}\n",
              "2: gateway.authentication.keys: takes {domain:");
    complains("srs: {domain: a.example}\n", "srs.secrets: missing, while srs.domain is set\n");
    complains("srs:\n  secrets: [short]\n", "2: srs.secrets: takes texts of at least 16 characters\n");
    complains("batv: {domains: [a.example]}\n", "batv.secrets: missing, while batv.domains are set\n");
    complains("batv:\n  secrets: [short]\n", "2: batv.secrets: takes texts of at least 16 characters\n");
    complains("batv:\n  domains: [\"a b\"]\n", "2: batv.domains: not a domain name: a b\n");
    complains("batv:\n  domains: [{a: b}]\n", "2: batv.domains: takes domain names\n");
    complains("batv:\n  max_age: 366\n", "2: batv.max_age: ");
    complains("routes:\n - {domain: a.example, route: mx, xclient: true}\n",
              "2: routes.xclient: only for smtp: and lmtp: routes\n");
    complains("routes:\n - {domain: a.example, route: \"smtp:b\", xforward: yes}\n",
              "2: routes.xforward: takes true or false\n");
    complains("domains:\n - name: a.example\n   route: mx\n   recipients:\n     ldap: x\n",
              "5: domains.recipients.ldap: takes a map of keys\n");
    complains("domains:\n - name: a.example\n   route: mx\n   recipients: {ldap: {uri: \"ldap://x\"}}\n",
              "4: domains.recipients.ldap.base: missing\n");
    complains("domains:\n - name: a.example\n   route: mx\n   recipients: {postgres: {uri: x}}\n",
              "4: domains.recipients.postgres.query: missing\n");
    complains("domains:\n - name: a.example\n   route: mx\n   recipients: [{http: {url: x}}]\n",
              "4: domains.recipients.http.url: unknown key\n");
}

static void reads_the_front_end(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    buf_init(&problems, 65536);
    int err =
        load("node: {hostname: mx1.example.net}\n"
             "gateway:\n"
             "  listen:\n"
             "    - {address: \"127.0.0.1:2525\"}\n"
             "    - {address: \"127.0.0.1:2587\", tls: required, auth: required, submission: true, without: [BDAT]}\n",
             &s, &problems);
    assert_int_equal(err, ERR_INVALID); /* BDAT is a command, CHUNKING the extension */
    buf_clear(&problems);
    err = load(
        "node: {hostname: mx1.example.net}\n"
        "gateway:\n"
        "  balancers: [192.0.2.0/24]\n"
        "  tls: {certificate: users, key: users, profile: modern}\n"
        "  auth: {backends: [{kind: file, file: users}, {kind: dovecot, uri: \"unix:/x\"}], realm: example.net}\n"
        "  listen:\n"
        "    - {address: \"127.0.0.1:2525\", proxy: true, with: [REQUIRETLS]}\n"
        "    - {address: \"127.0.0.1:2587\", tls: required, auth: required, submission: true, without: [DSN]}\n"
        "  milters: [{name: a, address: \"127.0.0.1:9\"}, {name: b, address: \"unix:/y\", failure: accept, end: 1m}]\n"
        "  policies: [{name: p, address: \"127.0.0.1:10\"}]\n"
        "  dnslists: {lists: [{zone: a.b, answer: 127.0.0.2, score: 7}, {zone: c.d, score: -6}], refuse: 8}\n"
        "  rates: {window: 10m, account: {messages: 500}, v4_bits: 24}\n"
        "srs: {domain: example.net, secrets: [0123456789abcdef]}\n"
        "domains:\n"
        "  - name: example.net\n"
        "    route: mx\n"
        "    tag: \"-\"\n"
        "    recipients: [{table: users}, {ldap: {uri: \"ldap://x\", base: dc=x, negative: 2s}}, {cdb: users}]\n",
        &s, &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    const struct inbound_settings *in = &s->inbound;
    assert_int_equal(s->tls.pair_count, 1);
    assert_int_equal(in->listeners[0].tls, INBOUND_TLS_OFFERED);
    assert_true(in->listeners[0].proxy);
    assert_int_equal(in->listeners[0].extensions, SERVER_EXT_BASIC | SERVER_EXT_REQUIRETLS);
    assert_int_equal(in->listeners[1].auth, INBOUND_AUTH_REQUIRED);
    assert_false(in->listeners[1].extensions & SERVER_EXT_DSN);
    assert_true(in->listeners[1].extensions & SERVER_EXT_DELIVERBY);
    assert_int_equal(s->auth.count, 2);
    assert_int_equal(s->auth.backends[1].kind, AUTH_DOVECOT);
    assert_int_equal(in->milter_count, 2);
    assert_int_equal(in->milters[0].failure, MILTER_TEMPFAIL);
    assert_int_equal(in->milters[0].end_ms, 300000);
    assert_int_equal(in->milters[1].failure, MILTER_ACCEPT);
    assert_int_equal(in->milters[1].end_ms, 60000);
    assert_int_equal(in->policies[0].stage, CHECK_RCPT);
    assert_int_equal(in->guard.dnslist_count, 2);
    assert_int_equal(in->guard.dnslists[1].score, -6);
    assert_int_equal(in->guard.refuse_score, 8);
    assert_int_equal(in->guard.per_account.messages, 500);
    assert_int_equal(in->guard.per_account.window_ms, 600000);
    assert_int_equal(in->guard.v4_bits, 24);
    assert_ptr_equal(s->recipients.srs, &s->srs);
    const struct recipients_domain_config *d = &s->recipients.domains[0];
    assert_int_equal(d->source_count, 3);
    assert_int_equal(d->sources[1].kind, RECIPIENTS_DIRECTORY);
    assert_int_equal(d->sources[1].directory->kind, DIRECTORY_LDAP);
    assert_int_equal(d->sources[1].directory->negative_ms, 2000);
    assert_string_equal(d->sources[1].directory->name, "ldap ldap://x");
    assert_int_equal(d->sources[2].kind, RECIPIENTS_CDB);
    assert_string_equal(d->tag, "-");
    settings_free(s);
    buf_deinit(&problems);
}

static void checks_lists(void **state) {
    (void)state;
    complains("gateway:\n  listen: [{address: \"localhost:25\"}]\n", "2: gateway.listen.address: takes ADDRESS:PORT");
    complains("gateway:\n  listen: [{address: \"127.0.0.1:0\"}]\n", "2: gateway.listen.address: takes ADDRESS:PORT");
    complains("gateway:\n  listen: [{address: \"unix:/x\"}]\n", "2: gateway.listen.address: takes ADDRESS:PORT");
    complains("gateway:\n  listen:\n  - {address: \"127.0.0.1:25\"}\n  - {address: \"127.0.0.1:25\"}\n",
              "4: gateway.listen.address: listed twice\n");
    complains("gateway: {listen: [{}]}\n", "1: gateway.listen.address: missing\n");
    complains("gateway: {listen: []}\n", "1: gateway.listen: takes at least one address\n");
    complains("gateway: {listen: [{address: \"127.0.0.1:25\", port: 1}]}\n", "1: gateway.listen.port: unknown key\n");
    complains("domains: {name: a}\n", "1: domains: takes a list\n");
    complains("domains: [a.example]\n", "1: domains: takes {name: DOMAIN");
    complains("domains: [{recipients: any, route: mx}]\n", "1: domains.name: missing\n");
    complains("domains: [{name: a.example, route: mx}]\n", "1: domains.recipients: missing: any, {table: FILE}");
    complains("domains: [{name: a.example, recipients: any}]\n", "1: domains.route: missing\n");
    complains("domains: [{name: a.example, recipients: some, route: mx}]\n",
              "1: domains.recipients: takes any, {table");
    complains("domains: [{name: a.example, recipients: {}, route: mx}]\n",
              "1: domains.recipients: takes any, {table: FILE}");
    complains("domains: [{name: a..example, recipients: any, route: mx}]\n",
              "1: domains.name: not a domain name: a..example\n");
    complains(
        "domains:\n- {name: a.example, recipients: any, route: mx}\n- {name: A.Example, recipients: any, route: mx}\n",
        "3: domains.name: a.example stands already in line 2\n");
    complains("domains:\n - name: a.example\n   route: mx\n   recipients: {table: none}\n",
              "4: domains.recipients.table: ");
    complains("domains:\n - name: a.example\n   route: mx\n   recipients: {table: none}\n",
              ": No such file or directory\n");
    complains("routes: [{domain: a.example, route: \"http:x\"}]\n", "1: routes.route: takes mx");
    complains("routes: [{domain: a.example}]\n", "1: routes.route: missing\n");
    complains("routes: [{route: mx}]\n", "1: routes.domain: missing\n");
    complains("routes: [{domain: .a_b, route: mx}]\n", "1: routes.domain: not a domain name: .a_b\n");
    complains("domains:\n- {name: a.example, recipients: any, route: mx}\nroutes:\n- {domain: a.example, route: mx}\n",
              "4: routes.route: a.example stands already in line 2\n");
}

static void takes_no_tricks_of_yaml(void **state) {
    (void)state;
    complains("node:\n  hostname: a.example\n  hostname: b.example\n", "3: hostname: the same key twice\n");
    complains("node:\n\thostname: a\n", "2: not YAML");
    complains("node: {hostname: a.example\n", "2: not YAML");
    complains("a: &x {b: c}\nd: *x\n", "anchors and aliases are not taken\n");
    complains("node: {hostname: !host a.example}\n", "1: tags are not taken\n");
    complains("node: {hostname: a.example}\n---\nnode: {}\n", "3: a second document is not taken\n");
    complains("[1, 2]\n", "1: the file must be a map of sections\n");
    complains("? [a]\n: b\n", "1: a key must be a plain word\n");
    complains("node: {hostname: \"a\\0b\"}\n", "1: a value holds a NUL\n");
    complains("a: [[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]\n", "1: nested too deep\n");
    struct settings *s;
    struct buf problems;
    buf_init(&problems, 65536);
    assert_int_equal(settings_load(&s, dir, &problems), ERR_IO); /* a directory */
    assert_non_null(strstr(buf_cstr(&problems), "not a regular file"));
    assert_int_equal(settings_load(&s, "/nonexistent/x.yaml", &problems), ERR_NOT_FOUND);
    assert_non_null(strstr(buf_cstr(&problems), "/nonexistent/x.yaml: No such file or directory\n"));
    assert_int_equal(load("# nothing but this\n", &s, &problems), ERR_OK); /* all defaults; the host gives its name */
    settings_free(s);
    buf_deinit(&problems);
}

static void takes_many_domains_quickly(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems, text;
    buf_init(&problems, 65536);
    buf_init(&text, 8 << 20);
    buf_add_str(&text, "node: {hostname: mx.example.net}\ndomains:\n");
    for (int i = 0; i < 50000; i++)
        buf_printf(&text, "- {name: d%d.example, recipients: any, route: mx}\n", i);
    uint64_t start = clock_mono_ms();
    assert_int_equal(load(buf_cstr(&text), &s, &problems), ERR_OK);
    assert_int_equal(s->recipients.count, 50000);
    assert_true(clock_mono_ms() - start < 10000); /* by comparing each with each it takes minutes */
    settings_free(s);
    buf_deinit(&text);
    buf_deinit(&problems);
}

static void lists_all_problems_at_once(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    size_t lines = 0;
    buf_init(&problems, 65536);
    assert_int_equal(load("node: {hostnme: a}\ngateway: {vrfy: 1}\ndelivery: {port: 0, port: 1}\n", &s, &problems),
                     ERR_INVALID);
    for (struct span rest = buf_span(&problems); rest.len;) {
        span_cut(rest, '\n', &rest);
        lines++;
    }
    assert_int_equal(lines, 4);
    buf_deinit(&problems);
}

static void the_reference_is_in_the_docs(void **state) {
    (void)state;
    struct buf text, kept;
    char piece[4096];
    buf_init(&text, 1 << 20);
    buf_init(&kept, 1 << 20);
    assert_int_equal(settings_reference(&text), ERR_OK);
    FILE *f = fopen(SOURCE_DIR "/docs/settings.md", "r");
    assert_non_null(f);
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        buf_append(&kept, piece, n);
    fclose(f);
    assert_true(
        span_eq(buf_span(&text), buf_span(&kept))); /* posthoused --print-settings-reference >docs/settings.md */
    buf_deinit(&text);
    buf_deinit(&kept);
}

static void the_sample_is_fine(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    buf_init(&problems, 65536);
    int err = settings_load(&s, SOURCE_DIR "/deploy/posthouse.yaml", &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    settings_free(s);
    buf_deinit(&problems);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_alone_is_enough),       cmocka_unit_test(reads_every_kind),
        cmocka_unit_test(wants_a_password_in_its_file), cmocka_unit_test(names_line_and_key),
        cmocka_unit_test(names_what_comes_later),       cmocka_unit_test(checks_what_belongs_together),
        cmocka_unit_test(reads_the_front_end),          cmocka_unit_test(checks_lists),
        cmocka_unit_test(takes_no_tricks_of_yaml),      cmocka_unit_test(takes_many_domains_quickly),
        cmocka_unit_test(lists_all_problems_at_once),   cmocka_unit_test(the_reference_is_in_the_docs),
        cmocka_unit_test(the_sample_is_fine),
    };
    return cmocka_run_group_tests_name("settings", tests, make_dir, drop_dir);
}
