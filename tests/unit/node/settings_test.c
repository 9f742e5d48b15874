/* settings: safe defaults, every kind of error with its line and key, all at once; and the reference that is kept in docs/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/settings.h"

static char path[64];

static int load(const char *text, struct settings **s, struct buf *problems) {
    strcpy(path, "/tmp/posthouse-settings-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int err = settings_load(s, path, problems);
    unlink(path);
    return err;
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
    assert_int_equal(s->listen_count, 2);
    assert_int_equal(tcp_addr_port(&s->listen[0]), 25);
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
    int err = load("node:\n  hostname: mx.example.net\n  log: {level: debug, format: json}\n"
                   "gateway:\n  listen: [{address: \"127.0.0.1:2525\"}, {address: \"[::1]:26\"}]\n"
                   "  trusted_networks: [192.0.2.0/24]\n  bare_newline: normalize\n  vrfy: true\n"
                   "  limits: {message_size: 1MiB, recipients: 200, idle: 30s}\n"
                   "domains:\n  - {name: B\xc3\xbc" "cher.example, recipients: any, route: \"lmtp:unix:/run/lmtp\"}\n"
                   "  - {name: example.net, recipients: {table: users}, route: \"smtp:store.example.net:2525\"}\n"
                   "routes:\n  - {domain: .partner.example, route: \"mx:hub.partner.example\"}\n  - {domain: \"*\", route: mx}\n"
                   "delivery:\n  dns: [\"127.0.0.1:5302\"]\n  port: 2526\n  retry: {first: 1s, max: 2m}\n"
                   "  timeouts: {dot: 1m}\n",
                   &s, &problems);
    if (err != ERR_OK)
        fail_msg("%s", buf_cstr(&problems));
    assert_int_equal(s->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(s->log_format, LOG_FORMAT_JSON);
    assert_int_equal(s->listen_count, 2);
    tcp_addr_format(&s->listen[1], ip, sizeof ip);
    assert_string_equal(ip, "[::1]:26");
    assert_int_equal(s->inbound.bare_newline, INBOUND_BARE_NORMALIZE);
    assert_true(s->inbound.vrfy);
    assert_int_equal(s->inbound.limits.idle_ms, 30000);
    assert_int_equal(s->recipients.count, 2);
    assert_string_equal(s->recipients.domains[0].name, "xn--bcher-kva.example");
    assert_int_equal(s->recipients.domains[0].directory, RECIPIENTS_ANY);
    assert_string_equal(s->recipients.domains[1].table, "/tmp/users"); /* beside the settings file */
    assert_int_equal(s->outbound.route_count, 4);
    assert_int_equal(s->outbound.routes[1].route.port, 2525);
    assert_string_equal(s->outbound.routes[2].domain, ".partner.example");
    assert_string_equal(s->outbound.dns, "127.0.0.1:5302");
    assert_int_equal(s->outbound.port, 2526);
    assert_int_equal(s->outbound.timeouts.dot_ms, 60000);
    settings_free(s);
    buf_deinit(&problems);
}

static void complains(const char *text, const char *expected) {
    struct settings *s = NULL;
    struct buf problems;
    char whole[512];
    buf_init(&problems, 65536);
    assert_int_not_equal(load(text, &s, &problems), ERR_OK);
    assert_null(s);
    snprintf(whole, sizeof whole, "%s:%s", path, expected);
    if (!strstr(buf_cstr(&problems), whole))
        fail_msg("expected \"%s\" in:\n%s", whole, buf_cstr(&problems));
    buf_deinit(&problems);
}

static void names_line_and_key(void **state) {
    (void)state;
    complains("node:\n  hostname: a.example\n  hostnme: b\n", "3: node.hostnme: unknown key");
    complains("nod:\n  hostname: a\n", "1: nod: unknown key");
    complains("node: {hostname: a.example}\ngateway:\n  limits: {message_size: big}\n",
              "3: gateway.limits.message_size: takes a size");
    complains("gateway: {limits: {recipients: 5}}\n", "1: gateway.limits.recipients: out of range, from 100 to 50000");
    complains("gateway: {limits: {recipients: -5}}\n", "1: gateway.limits.recipients: takes a whole number");
    complains("gateway: {limits: {idle: 5}}\n", "1: gateway.limits.idle: takes a duration");
    complains("gateway: {vrfy: maybe}\n", "1: gateway.vrfy: takes true or false");
    complains("gateway: {bare_newline: pass}\n", "1: gateway.bare_newline: takes one of reject|normalize");
    complains("gateway:\n  listen: [{address: \"localhost:25\"}]\n", "2: gateway.listen: takes ADDRESS:PORT");
    complains("gateway:\n  listen:\n    - {address: \"127.0.0.1:25\", tls: required}\n", "3: tls: not supported by this version");
    complains("gateway: {trusted_networks: [10.0.0.1/8]}\n", "1: gateway.trusted_networks: takes networks");
    complains("cluster: {name: west}\n", "1: cluster: not supported by this version");
    complains("admin: {http: \"127.0.0.1:8025\"}\n", "1: admin.http: not supported by this version");
    complains("node:\n  hostname: a.example\n  hostname: b.example\n", "3: the same key twice");
    complains("node: [a]\n", "1: node: takes a map");
    complains("node: {hostname: [a]}\n", "1: node.hostname: takes one value");
    complains("domains: [{name: a.example, route: mx}]\n", "1: recipients is missing");
    complains("domains: [{name: a.example, recipients: any}]\n", "1: route is missing");
    complains("domains: [{name: a.example, recipients: {ldap: x}, route: mx}]\n", "1: ldap: not supported by this version");
    complains("domains: [{name: a..example, recipients: any, route: mx}]\n", "1: not a domain");
    complains("routes: [{domain: a.example, route: \"http:x\"}]\n", "1: route: takes mx");
    complains("delivery: {dns: [resolver.example]}\n", "1: delivery.dns: takes ADDRESS:PORT");
    complains("node:\n\thostname: a\n", "2: not YAML");
    complains("node: {hostname: \"a b\"}\n", " node.hostname: not a domain name");
    complains("delivery: {retry: {first: 1h, max: 5m}}\n", " delivery.retry.max: shorter than");
    complains("node: {data_dir: here}\n", " node.data_dir: takes an absolute path");
    complains("admin: {rpc: \"tcp://127.0.0.1:1\"}\n", " admin.rpc: takes ipc");
}

static void lists_all_problems_at_once(void **state) {
    (void)state;
    struct settings *s;
    struct buf problems;
    size_t lines = 0;
    buf_init(&problems, 65536);
    assert_int_equal(load("node: {hostnme: a}\ngateway: {vrfy: 1}\ndelivery: {port: 0}\n", &s, &problems), ERR_INVALID);
    for (struct span rest = buf_span(&problems); rest.len;) {
        span_cut(rest, '\n', &rest);
        lines++;
    }
    assert_int_equal(lines, 3);
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
    assert_true(span_eq(buf_span(&text), buf_span(&kept))); /* posthoused --print-settings-reference >docs/settings.md */
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
        cmocka_unit_test(a_name_alone_is_enough),     cmocka_unit_test(reads_every_kind),
        cmocka_unit_test(names_line_and_key),         cmocka_unit_test(lists_all_problems_at_once),
        cmocka_unit_test(the_reference_is_in_the_docs), cmocka_unit_test(the_sample_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
