/* The door to libldap against a real slapd: bind, search, TLS, what fails and how, a server that is frozen or dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/net/ldap.h"
#include "tests/support/real_servers.h"

static struct real_server server;
static struct buf why, seen;
static char ca[200];

static int setup(void **state) {
    struct buf ldif;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    buf_init(&why, 4000);
    buf_init(&seen, 1 << 20);
    buf_init(&ldif, 1 << 20);
    buf_add_str(&ldif, "dn: dc=example,dc=net\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n\n"
                       "dn: cn=Alice (a),dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\n"
                       "sn: a\nuserPassword: alice1\nmail: alice@example.net\nmail: al@example.net\n"
                       "mailForwardingAddress: a@far.example\n\n"
                       "dn: ou=many,dc=example,dc=net\nobjectClass: organizationalUnit\nou: many\n\n");
    for (int i = 0; i < 1001; i++)
        buf_printf(&ldif, "dn: cn=p%d,ou=many,dc=example,dc=net\nobjectClass: person\nsn: p\n\n", i);
    bool up = slapd_start(&server, buf_cstr(&ldif));
    snprintf(ca, sizeof ca, "%s/cert.pem", server.dir);
    buf_deinit(&ldif);
    return up ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    real_end(&server);
    buf_deinit(&why);
    buf_deinit(&seen);
    return 0;
}

static struct ldap_link *connected(uint64_t timeout_ms) {
    struct ldap_config c = {.uri = server.uri, .timeout_ms = timeout_ms};
    struct ldap_link *l;
    buf_clear(&why);
    assert_int_equal(ldap_link_open(&l, &c, &why), ERR_OK);
    return l;
}

static void on_value(void *arg, const char *attribute, struct span value) {
    (void)arg;
    buf_printf(&seen, "%s=", attribute ? attribute : "dn");
    buf_add(&seen, value);
    buf_add_byte(&seen, '\n');
}

static int search(struct ldap_link *l, const char *base, const char *filter) {
    static const char *const attributes[] = {"mail", "mailForwardingAddress", NULL};
    buf_clear(&seen);
    buf_clear(&why);
    return ldap_link_search(l, base, filter, attributes, on_value, NULL, &why);
}

static void searches(void **state) {
    (void)state;
    struct ldap_link *l = connected(10000);
    assert_int_equal(search(l, "dc=example,dc=net", "(mail=al@example.net)"), ERR_OK);
    assert_string_equal(buf_cstr(&seen), "dn=cn=Alice (a),dc=example,dc=net\nmail=alice@example.net\n"
                                         "mail=al@example.net\nmailForwardingAddress=a@far.example\n");
    assert_int_equal(search(l, "dc=example,dc=net", "(mail=nobody@example.net)"), ERR_OK);
    assert_int_equal(buf_len(&seen), 0);
    buf_clear(&seen);
    assert_int_equal(ldap_link_search(l, "dc=example,dc=net", "(sn=a)", NULL, on_value, NULL, NULL), ERR_OK);
    assert_string_equal(buf_cstr(&seen), "dn=cn=Alice (a),dc=example,dc=net\n"); /* no attribute wanted, none sent */
    /* the link stays good after each of these */
    assert_int_equal(search(l, "dc=example,dc=net", "(mail=al"), ERR_INVALID);
    assert_true(buf_len(&why) > 0);
    assert_int_equal(search(l, "dc=elsewhere", "(mail=*)"), ERR_INVALID);
    assert_int_equal(search(l, "not a dn", "(mail=*)"), ERR_INVALID);
    assert_int_equal(search(l, "ou=many,dc=example,dc=net", "(sn=p)"), ERR_FULL);
    assert_int_equal(search(l, "dc=example,dc=net", "(sn=a)"), ERR_OK);
    assert_true(buf_len(&seen) > 0);
    ldap_link_close(l);
    ldap_link_close(NULL);
}

static void binds(void **state) {
    (void)state;
    struct ldap_link *l = connected(10000);
    assert_int_equal(ldap_link_bind(l, SLAPD_ADMIN, SPAN("secret"), NULL), ERR_OK);
    assert_int_equal(ldap_link_bind(l, SLAPD_ADMIN, SPAN("wrong"), &why), ERR_DENIED);
    assert_non_null(strstr(buf_cstr(&why), "nvalid credentials"));
    assert_int_equal(ldap_link_bind(l, SLAPD_ADMIN, SPAN_EMPTY, &why), ERR_DENIED); /* the server would say yes */
    assert_int_equal(ldap_link_bind(l, "cn=nobody,dc=example,dc=net", SPAN("x"), &why), ERR_DENIED);
    assert_int_equal(ldap_link_bind(l, "no dn", SPAN("x"), &why), ERR_DENIED);
    assert_int_equal(ldap_link_bind(l, "cn=Alice (a),dc=example,dc=net", SPAN("alice1"), NULL), ERR_OK);
    assert_int_equal(ldap_link_bind(l, NULL, SPAN_EMPTY, NULL), ERR_OK); /* anonymous */
    ldap_link_close(l);
}

static void encrypts(void **state) {
    (void)state;
    struct ldap_config c = {.uri = server.uri, .starttls = true, .ca_file = ca, .timeout_ms = 10000};
    struct ldap_link *l;
    assert_int_equal(ldap_link_open(&l, &c, &why), ERR_OK);
    assert_int_equal(ldap_link_bind(l, SLAPD_ADMIN, SPAN("secret"), NULL), ERR_OK);
    assert_int_equal(search(l, "dc=example,dc=net", "(sn=a)"), ERR_OK);
    ldap_link_close(l);
    c.ca_file = NULL; /* not one that the system trusts */
    buf_clear(&why);
    assert_int_equal(ldap_link_open(&l, &c, &why), ERR_DENIED);
    assert_non_null(strstr(buf_cstr(&why), "certificate"));
    assert_null(l);
    c.ca_file = "/nonexistent/ca.pem";
    assert_int_equal(ldap_link_open(&l, &c, &why), ERR_INVALID);
    c = (struct ldap_config){.uri = "ldaps://localhost:1", .starttls = true, .timeout_ms = 1000};
    assert_int_equal(ldap_link_open(&l, &c, &why), ERR_INVALID);
}

static void fails(void **state) {
    (void)state;
    char uri[64];
    struct ldap_config c = {.uri = uri, .timeout_ms = 5000};
    struct ldap_link *l;
    snprintf(uri, sizeof uri, "ldap://127.0.0.1:%u", real_free_port());
    buf_clear(&why);
    assert_int_equal(ldap_link_open(&l, &c, &why), ERR_UNREACHABLE);
    assert_true(buf_len(&why) > 0 && span_find(buf_span(&why), '\n') < 0);
    snprintf(uri, sizeof uri, "gopher://x");
    assert_int_equal(ldap_link_open(&l, &c, NULL), ERR_INVALID);

    l = connected(300);
    real_signal(&server, SIGSTOP);
    assert_int_equal(search(l, "dc=example,dc=net", "(sn=a)"), ERR_TIMEOUT);
    struct ldap_link *other;
    c = (struct ldap_config){.uri = server.uri, .starttls = true, .ca_file = ca, .timeout_ms = 300};
    assert_int_equal(ldap_link_open(&other, &c, NULL), ERR_TIMEOUT); /* the kernel connects, nobody answers */
    real_signal(&server, SIGCONT);
    ldap_link_close(l);

    l = connected(10000);
    assert_int_equal(search(l, "dc=example,dc=net", "(sn=a)"), ERR_OK);
    real_kill(&server);
    assert_int_equal(search(l, "dc=example,dc=net", "(sn=a)"), ERR_CLOSED);
    assert_int_equal(ldap_link_bind(l, SLAPD_ADMIN, SPAN("secret"), NULL), ERR_CLOSED);
    ldap_link_close(l);
    assert_true(slapd_begin(&server));
    l = connected(10000);
    assert_int_equal(search(l, "dc=example,dc=net", "(sn=a)"), ERR_OK);
    ldap_link_close(l);
}

static const char *escaped(int (*escape)(struct span, struct buf *), struct span s) {
    buf_clear(&seen);
    assert_int_equal(escape(s, &seen), ERR_OK);
    return buf_cstr(&seen);
}

static void escapes(void **state) {
    (void)state;
    assert_string_equal(escaped(ldap_escape_filter, SPAN("a*(b)\\c\0d\n\xc3\xbc")),
                        "a\\2a\\28b\\29\\5cc\\00d\\0a\xc3\xbc");
    assert_string_equal(escaped(ldap_escape_dn, SPAN("# a+b,c;d<e>f=g\"h\\ ")),
                        "\\23 a\\2bb\\2cc\\3bd\\3ce\\3ef\\3dg\\22h\\5c\\20");
    assert_string_equal(escaped(ldap_escape_dn, SPAN(" ")), "\\20");
    struct buf small;
    buf_init(&small, 2);
    assert_int_equal(ldap_escape_filter(SPAN("***"), &small), ERR_FULL);
    buf_deinit(&small);
    /* what is escaped is found as it is */
    struct ldap_link *l = connected(10000);
    char filter[100];
    snprintf(filter, sizeof filter, "(cn=%s)", escaped(ldap_escape_filter, SPAN("Alice (a)")));
    assert_int_equal(search(l, "dc=example,dc=net", filter), ERR_OK);
    assert_true(buf_len(&seen) > 0);
    snprintf(filter, sizeof filter, "(mail=%s)", escaped(ldap_escape_filter, SPAN("*")));
    assert_int_equal(search(l, "dc=example,dc=net", filter), ERR_OK);
    assert_int_equal(buf_len(&seen), 0);
    ldap_link_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(searches), cmocka_unit_test(binds), cmocka_unit_test(encrypts),
        cmocka_unit_test(escapes),  cmocka_unit_test(fails),
    };
    return cmocka_run_group_tests_name("ldap", tests, setup, teardown);
}
