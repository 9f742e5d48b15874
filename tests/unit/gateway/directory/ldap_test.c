/* Recipients in a real slapd: what entries mean, hostile addresses, wrong settings, and a server that is frozen, killed
 * and comes back under questions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/directory/backend.h"
#include "tests/support/directory_asker.h"
#include "tests/support/real_servers.h"

static struct real_server server;
static struct asker asker;
static struct buf problems;

static const char ldif[] =
    "dn: dc=example,dc=net\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n\n"
    "dn: cn=alice,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\nsn: a\nmail: alice@example.net\n"
    "mailAlternateAddress: al@example.net\n\n"
    "dn: cn=moved,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\nsn: m\nmail: moved@example.net\n"
    "mailForwardingAddress: m@far.example\nmailForwardingAddress: m2@far.example\n\n"
    "dn: cn=keeps,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\nsn: k\nmail: keeps@example.net\n"
    "mailForwardingAddress: k@far.example\nmailForwardingAddress: Keeps@example.net\n\n"
    "dn: cn=team,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\nsn: t\nmail: team@example.net\n"
    "aliasTo: alice@example.net\n\n"
    "dn: cn=team2,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\nsn: t\nmail: team@example.net\n"
    "aliasTo: moved\n\n"
    "dn: cn=star,dc=example,dc=net\nobjectClass: person\nobjectClass: mailUser\nsn: s\nmail: *@example.net\n";

static int setup(void **state) {
    (void)state;
    buf_init(&problems, 4000);
    directory_asker_begin(&asker);
    return slapd_start(&server, ldif) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    directory_asker_end(&asker);
    real_end(&server);
    buf_deinit(&problems);
    return 0;
}

static struct directory_config usual(void) {
    return (struct directory_config){.kind = DIRECTORY_LDAP,
                                     .name = "staff",
                                     .uri = server.uri,
                                     .base = "dc=example,dc=net",
                                     .forward_attribute = "mailForwardingAddress",
                                     .alias_attribute = "aliasTo",
                                     .timeout_ms = 20000};
}

static struct directory *opened(struct directory_config c) {
    struct directory *d;
    buf_clear(&problems);
    assert_int_equal(directory_new(&d, &c, &problems), ERR_OK);
    return d;
}

static const char *ask(struct directory *d, const char *key) {
    return directory_ask(&asker, d, key, "example.net");
}

static void entries(void **state) {
    (void)state;
    struct directory *d = opened(usual());
    assert_string_equal(ask(d, "alice"), "found mailbox");
    assert_non_null(strstr(asker.why, "(mail=alice@example.net)"));
    assert_non_null(strstr(asker.why, "1 entry"));
    assert_string_equal(ask(d, "AL"), "found mailbox");
    assert_string_equal(ask(d, "nobody"), "unknown");
    assert_string_equal(ask(d, "moved"), "found forward m@far.example, m2@far.example");
    assert_string_equal(ask(d, "keeps"), "found forward_keep k@far.example");
    const char *team = ask(d, "team"); /* two entries, in the server's order */
    assert_true(strcmp(team, "found alias alice@example.net, moved") == 0 ||
                strcmp(team, "found alias moved, alice@example.net") == 0);
    /* nothing in an address is a piece of a filter */
    assert_string_equal(ask(d, "al*"), "unknown");
    assert_string_equal(ask(d, "x)(mail=alice@example.net"), "unknown");
    assert_string_equal(ask(d, "\\2a"), "unknown");
    assert_string_equal(ask(d, "*"), "found mailbox"); /* the one that is called so */
    directory_unref(d);
    struct directory_config c = usual();
    c.user = SLAPD_ADMIN;
    c.password = "secret";
    c.filter = "(&(objectClass=person)(cn=%u)(mail=%u@%d))";
    c.forward_attribute = c.alias_attribute = NULL;
    d = opened(c);
    assert_string_equal(ask(d, "alice"), "found mailbox");
    assert_string_equal(ask(d, "moved"), "found mailbox");
    assert_string_equal(ask(d, "al"), "unknown");
    directory_unref(d);
}

static void no_answers(void **state) {
    (void)state;
    struct directory_config c = usual();
    c.base = "dc=elsewhere";
    struct directory *d = opened(c);
    for (int i = 0; i < 10; i++) /* and does not count as a failing server */
        assert_string_equal(ask(d, "alice"), "tempfail");
    assert_non_null(strstr(asker.why, "o such object"));
    directory_unref(d);
    c = usual();
    c.filter = "(mail=%s";
    d = opened(c);
    assert_string_equal(ask(d, "alice"), "tempfail");
    directory_unref(d);
    c = usual();
    c.user = SLAPD_ADMIN;
    c.password = "wrong";
    d = opened(c);
    assert_string_equal(ask(d, "alice"), "tempfail");
    assert_non_null(strstr(asker.why, "nvalid credentials"));
    directory_unref(d);
    c = usual();
    c.starttls = true; /* with a certificate that nobody trusts */
    d = opened(c);
    assert_string_equal(ask(d, "alice"), "tempfail");
    directory_unref(d);
}

static void wrong_settings(void **state) {
    (void)state;
    static const struct {
        const char *uri, *base, *filter, *user, *words;
        bool starttls;
    } wrong[] = {
        {"http://x", "dc=x", NULL, NULL, "uri: takes", false},
        {NULL, "dc=x", NULL, NULL, "uri: takes", false},
        {"ldap://x", NULL, NULL, NULL, "base: missing", false},
        {"ldap://x", "dc=x", "(a=%x)", NULL, "filter: takes", false},
        {"ldap://x", "dc=x", "(a=%", NULL, "filter: takes", false},
        {"ldap://x", "dc=x", NULL, "cn=x", "password: ", false},
        {"ldaps://x", "dc=x", NULL, NULL, "starttls: ", true},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct directory_config c = {.kind = DIRECTORY_LDAP, .name = "staff"};
        struct directory *d;
        c.uri = wrong[i].uri;
        c.base = wrong[i].base;
        c.filter = wrong[i].filter;
        c.user = wrong[i].user;
        c.starttls = wrong[i].starttls;
        buf_clear(&problems);
        assert_int_equal(directory_new(&d, &c, &problems), ERR_INVALID);
        assert_non_null(strstr(buf_cstr(&problems), "directory staff: "));
        assert_non_null(strstr(buf_cstr(&problems), wrong[i].words));
    }
}

static void server_dies(void **state) {
    (void)state;
    struct directory_config c = usual();
    c.breaker_ms = 1;
    c.positive_ms = 1;
    struct directory *d = opened(c);
    assert_string_equal(ask(d, "alice"), "found mailbox");
    real_kill(&server);
    usleep(5000);
    assert_string_equal(ask(d, "alice"), "stale found mailbox");
    assert_string_equal(ask(d, "moved"), "tempfail");
    assert_true(slapd_begin(&server));
    assert_true(directory_ask_until(&asker, d, "moved", "example.net", "found forward m@far.example, m2@far.example"));
    /* a restart between two questions costs nothing: the engine asks again on a new link */
    real_kill(&server);
    assert_true(slapd_begin(&server));
    assert_string_equal(ask(d, "keeps"), "found forward_keep k@far.example");
    directory_unref(d);
}

static void server_freezes(void **state) {
    (void)state;
    struct directory_config c = usual();
    c.timeout_ms = 300;
    c.breaker_failures = 1000;
    c.breaker_ms = 1;
    struct directory *d = opened(c);
    char key[20];
    assert_string_equal(ask(d, "alice"), "found mailbox");
    real_signal(&server, SIGSTOP);
    for (int i = 0; i < 40; i++) { /* more than there are links */
        snprintf(key, sizeof key, "user%d", i);
        directory_asker_put(&asker, d, key, "example.net");
    }
    assert_string_equal(ask(d, "moved"), "tempfail"); /* the last of all is answered too */
    assert_string_equal(ask(d, "alice"), "found mailbox");
    real_signal(&server, SIGCONT);
    assert_true(directory_ask_until(&asker, d, "moved", "example.net", "found forward m@far.example, m2@far.example"));
    assert_true(directory_ask_until(&asker, d, "user1", "example.net", "unknown"));
    /* and a directory goes while its server is frozen */
    real_signal(&server, SIGSTOP);
    struct directory_answer a;
    struct directory_wait *wait;
    assert_int_equal(directory_find(d, asker.home, SPAN("team"), SPAN("example.net"), &asker.mem, &a, &wait,
                                    directory_asker_take, &asker),
                     ERR_AGAIN);
    directory_cancel(wait);
    directory_unref(d);
    directory_settle();
    real_signal(&server, SIGCONT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries),     cmocka_unit_test(no_answers),     cmocka_unit_test(wrong_settings),
        cmocka_unit_test(server_dies), cmocka_unit_test(server_freezes),
    };
    return cmocka_run_group_tests_name("directory_ldap", tests, setup, teardown);
}
