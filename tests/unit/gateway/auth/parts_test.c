/* The pure parts of auth: messages of clients, names, kinds of hashes, what is remembered, who may send as whom. */
#include "tests/unit/gateway/auth/rig.h"

#include "base/net/password.h"
#include "base/net/secret.h"

#include "gateway/auth/remember.h"
#include "gateway/auth/sasl.h"
#include "gateway/auth/sender.h"
#include "gateway/auth/template.h"

static char long_name[400];

static void test_plain(void **state) {
    (void)state;
    struct sasl_plain p;
    assert_int_equal(sasl_parse_plain(&p, SPAN("\0alice\0secret")), ERR_OK);
    assert_true(span_eq(p.account, SPAN("alice")) && span_eq(p.password, SPAN("secret")));
    assert_int_equal(p.authorization.len, 0);
    assert_int_equal(sasl_parse_plain(&p, SPAN("bob\0alice\0")), ERR_OK);
    assert_true(span_eq(p.authorization, SPAN("bob")));
    assert_int_equal(p.password.len, 0);
    static const struct span bad[] = {{"", 0},           {"alice", 5},     {"\0", 1},       {"\0alice", 6},
                                      {"\0\0secret", 8}, {"\0a\0b\0c", 7}, {"\0a\0b\0", 5}, {"\0\0", 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(sasl_parse_plain(&p, bad[i]), ERR_INVALID);
    char message[1100] = {0};
    memset(message + 1, 'a', 255);
    memset(message + 257, 'p', 511);
    assert_int_equal(sasl_parse_plain(&p, span_make(message, 257 + 511)), ERR_OK);
    message[257 + 511] = 'p';
    assert_int_equal(sasl_parse_plain(&p, span_make(message, 257 + 512)), ERR_RANGE);
    memset(message + 1, 'a', 256);
    message[257] = 0;
    assert_int_equal(sasl_parse_plain(&p, span_make(message, 260)), ERR_RANGE);
}

static void test_scram(void **state) {
    (void)state;
    struct sasl_scram s;
    assert_int_equal(sasl_parse_scram(&s, SPAN("n,,n=a=2Cb=3D,r=x")), ERR_OK);
    assert_string_equal(s.account, "a,b=");
    assert_string_equal(s.authorization, "");
    assert_int_equal(sasl_parse_scram(&s, SPAN("p=tls-exporter,a=bob,n=alice,r=x,e=1")), ERR_OK);
    assert_string_equal(s.authorization, "bob");
    assert_int_equal(sasl_parse_scram(&s, SPAN("y,,n=alice,r=x")), ERR_OK);
    static const char *const bad[] = {"",           "n",           "n,,",           "n,,n=,r=x",     "n,,n=alice",
                                      "n,,m=1,n=a", "x,,n=a,r=x",  "p=,,n=a,r=x",   "n,b=c,n=a,r=x", "n,,n=a=2c,r=x",
                                      "n,,n=a=,r=", "n,,n=\1,r=x", "n,,n=a\x7f,r=x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(sasl_parse_scram(&s, span_of(bad[i])), ERR_INVALID);
    assert_int_equal(sasl_parse_scram(&s, SPAN("n,,n=a\0b,r=x")), ERR_INVALID);
    char message[500];
    snprintf(message, sizeof message, "n,,n=%s,r=x", long_name);
    assert_int_equal(sasl_parse_scram(&s, span_of(message)), ERR_RANGE);
}

static void test_account(void **state) {
    (void)state;
    char to[AUTH_ACCOUNT_MAX + 1];
    assert_int_equal(sasl_account(SPAN("Alice"), "Example.net", to), ERR_OK);
    assert_string_equal(to, "alice@Example.net");
    assert_int_equal(sasl_account(SPAN("A@B"), "example.net", to), ERR_OK);
    assert_string_equal(to, "a@b");
    assert_int_equal(sasl_account(SPAN("J\xc3\xb6rg"), NULL, to), ERR_OK);
    assert_string_equal(to, "j\xc3\xb6rg");
    static const struct span bad[] = {{"", 0}, {"a\0b", 3}, {"a\nb", 3}, {"a\x7f", 2}, {"\xff", 1}, {"a\xc2\x85", 3}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(sasl_account(bad[i], NULL, to), ERR_INVALID);
        assert_string_equal(to, "");
    }
    assert_int_equal(sasl_account(span_first(span_of(long_name), 255), NULL, to), ERR_OK);
    assert_int_equal(sasl_account(span_first(span_of(long_name), 256), NULL, to), ERR_RANGE);
    assert_int_equal(sasl_account(span_first(span_of(long_name), 250), "realm", to), ERR_RANGE);
}

static void test_password(void **state) {
    (void)state;
    void *scratch = password_scratch_new();
    char hashes[7][512];
    const char *made[] = {rig_crypt("secret", "$2b$", 4)};
    snprintf(hashes[0], 512, "%s", made[0]);
    snprintf(hashes[1], 512, "%s", rig_crypt("secret", "$y$", 1));
    snprintf(hashes[2], 512, "%s", rig_crypt("secret", "$6$", 1000));
    snprintf(hashes[3], 512, "%s", rig_argon2("secret"));
    snprintf(hashes[4], 512, "%s", rig_scram("secret", 100));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(password_kind(hashes[i]), i < 3 ? PASSWORD_CRYPT : i == 3 ? PASSWORD_ARGON2 : PASSWORD_SCRAM);
        assert_int_equal(password_verify(hashes[i], "secret", scratch), ERR_OK);
        assert_int_equal(password_verify(hashes[i], "Secret", scratch), ERR_DENIED);
        assert_int_equal(password_verify(hashes[i], "", scratch), ERR_DENIED);
    }
    assert_int_equal(password_kind("!$2b$04$x"), PASSWORD_LOCKED);
    assert_int_equal(password_verify("*", "*", scratch), ERR_DENIED);
    static const char *const bad[] = {"",
                                      "secret",
                                      "$1$abcdefgh$aaaaaaaaaaaaaaaaaaaaaa",
                                      "ab0123456789A",
                                      "$2b$10$0123456789abcdefabcdef",
                                      "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ",
                                      "{SCRAM-SHA-256}x",
                                      "SCRAM-SHA-256$0:c2FsdA==$x:y",
                                      "SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:c2FsdA=="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(password_kind(bad[i]), PASSWORD_BAD);
        assert_int_equal(password_verify(bad[i], "secret", scratch), ERR_INVALID);
    }
    assert_int_equal(password_verify("$argon2id$v=19$m=64,t=1,p=1$!$!", "secret", scratch), ERR_INVALID);
    assert_true(password_decoy(hashes[5], sizeof hashes[5]));
    assert_int_equal(password_kind(hashes[5]), PASSWORD_CRYPT);
    assert_int_equal(password_verify(hashes[5], "secret", scratch), ERR_DENIED);
    assert_false(password_decoy(hashes[5], 60));
    password_scratch_free(scratch);
}

static void test_remember(void **state) {
    (void)state;
    char to[256];
    struct remember *r = remember_new(2, 100);
    assert_false(remember_has(r, SPAN("a"), SPAN("p"), to, 0));
    remember_add(r, SPAN("a"), SPAN("p"), SPAN("a@b"), 0);
    assert_true(remember_has(r, SPAN("a"), SPAN("p"), to, 99));
    assert_string_equal(to, "a@b");
    assert_false(remember_has(r, SPAN("a"), SPAN("q"), to, 99));
    assert_false(remember_has(r, SPAN(""), SPAN("ap"), to, 99));
    assert_false(remember_has(r, SPAN("ap"), SPAN(""), to, 99));
    assert_false(remember_has(r, SPAN("a"), SPAN("p"), to, 100));
    remember_add(r, SPAN("a"), SPAN("p"), SPAN("a"), 200);
    remember_add(r, SPAN("b"), SPAN("p"), SPAN("b"), 201);
    remember_add(r, SPAN("c"), SPAN("p"), SPAN("c"), 202); /* the oldest makes room */
    assert_false(remember_has(r, SPAN("a"), SPAN("p"), to, 203));
    assert_true(remember_has(r, SPAN("b"), SPAN("p"), to, 203));
    assert_true(remember_has(r, SPAN("c"), SPAN("p"), to, 203));
    remember_add(r, SPAN("b"), SPAN("p"), SPAN("b"), 250); /* again: lives anew, once */
    assert_true(remember_has(r, SPAN("b"), SPAN("p"), to, 349));
    assert_false(remember_has(r, SPAN("c"), SPAN("p"), to, 349));
    remember_free(r);
}

static int as_is(struct span s, struct buf *to) {
    buf_add_byte(to, '<');
    buf_add(to, s);
    return buf_add_byte(to, '>');
}

static void test_template(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(template_fill("s=%s u=%u d=%d %%", SPAN("a@b@c"), as_is, &b), ERR_OK);
    assert_string_equal(buf_cstr(&b), "s=<a@b@c> u=<a@b> d=<c> %");
    buf_clear(&b);
    assert_int_equal(template_fill("%u,%d", SPAN("a"), as_is, &b), ERR_OK);
    assert_string_equal(buf_cstr(&b), "<a>,<>");
    buf_clear(&b);
    assert_int_equal(template_fill("%s", span_of(long_name), as_is, &b), ERR_FULL);
    buf_deinit(&b);
    assert_null(template_problem("uid=%u,dc=x"));
    assert_non_null(template_problem("uid=x"));
    assert_non_null(template_problem("uid=%x"));
    assert_non_null(template_problem("uid=%u%"));
}

static void test_sender(void **state) {
    (void)state;
    struct rig r;
    struct sender_login *s;
    rig_open(&r);
    assert_true(sender_login_may(NULL, SPAN("a@b"), SPAN("A@b")));
    assert_true(sender_login_may(NULL, SPAN("a@b"), SPAN("")));
    assert_false(sender_login_may(NULL, SPAN("a@b"), SPAN("c@b")));
    rig_write(r.path,
              "# who may send as whom\r\nAlice: sales@example.net, @M\xc3\xbcnchen.example,@example.org\n"
              "boss@example.net: *\nnobody@example.net:\n",
              0644);
    /* an empty list is one empty word: a problem, and told with its line */
    assert_int_equal(sender_login_new(&s, r.path, "example.net", &r.problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&r.problems), "passwd:4: not an address"));
    rig_write(r.path,
              "# who may send as whom\r\nAlice: sales@example.net, @M\xc3\xbcnchen.example,@example.org\n"
              "boss@example.net: *\n",
              0644);
    assert_int_equal(sender_login_new(&s, r.path, "example.net", &r.problems), ERR_OK);
    struct span alice = SPAN("alice@example.net");
    assert_true(sender_login_may(s, alice, SPAN("Sales@example.net")));
    assert_true(sender_login_may(s, alice, SPAN("x@xn--mnchen-3ya.example")));
    assert_true(sender_login_may(s, alice, SPAN("x@example.org")));
    assert_true(sender_login_may(s, alice, SPAN("")));
    assert_false(sender_login_may(s, alice, alice)); /* has a line that does not name it */
    assert_false(sender_login_may(s, alice, SPAN("x@sub.example.org")));
    assert_false(sender_login_may(s, alice, SPAN("x@example.org@example.com")));
    assert_true(sender_login_may(s, SPAN("boss@example.net"), SPAN("any@where.example")));
    assert_true(sender_login_may(s, SPAN("new@example.net"), SPAN("new@example.net")));
    assert_false(sender_login_may(s, SPAN("new@example.net"), SPAN("sales@example.net")));
    assert_false(sender_login_is_stale(s));
    rig_write(r.path, "no colon\na: b@c\nA: d@e\n\x01: a@b\nb: not an address, @, @x y\n", 0644);
    assert_true(sender_login_is_stale(s));
    sender_login_free(s);
    buf_clear(&r.problems);
    assert_int_equal(sender_login_new(&s, r.path, NULL, &r.problems), ERR_INVALID);
    const char *p = buf_cstr(&r.problems);
    assert_non_null(strstr(p, "passwd:1: no ':'"));
    assert_non_null(strstr(p, "passwd:3: this account has a line already"));
    assert_non_null(strstr(p, "passwd:4: not a name"));
    assert_non_null(strstr(p, "passwd:5: not an address, @domain or *: @x y"));
    unlink(r.path);
    assert_int_equal(sender_login_new(&s, r.path, NULL, &r.problems), ERR_NOT_FOUND);
    assert_int_equal(sender_login_new(&s, r.dir, NULL, &r.problems), ERR_INVALID);
    rig_close(&r);
}

int main(void) {
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[300] = '\0';
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),    cmocka_unit_test(test_scram),    cmocka_unit_test(test_account),
        cmocka_unit_test(test_password), cmocka_unit_test(test_remember), cmocka_unit_test(test_template),
        cmocka_unit_test(test_sender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
