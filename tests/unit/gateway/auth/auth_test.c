/* Auth with a password file: each mechanism and kind of hash, several backends, what is malformed, cancels at each
 * step, caps, held answers, reloads. The SCRAM client is GNU SASL's. */
#include "tests/unit/gateway/auth/rig.h"

static void make(struct rig *r, const struct auth_config *c) {
    if (auth_new(&r->auth, c, &r->problems) != ERR_OK)
        fail_msg("%s", buf_cstr(&r->problems));
    assert_string_equal(buf_cstr(&r->problems), "");
}

static struct auth_backend_config file_backend(struct rig *r) {
    return (struct auth_backend_config){.kind = AUTH_FILE, .name = "file", .file = r->path};
}

static struct auth_config config_of(const struct auth_backend_config *b, size_t count) {
    return (struct auth_config){
        .backends = b, .count = count, .realm = "example.net", .hostname = "mx.example.net", .fail_delay_ms = 1};
}

/* A file with one account of each kind; all passwords are "secret". */
static void write_accounts(struct rig *r) {
    char text[4096];
    int len = snprintf(text, sizeof text, "# accounts\n\n bcrypt : %s\n", rig_crypt("secret", "$2b$", 4));
    len += snprintf(text + len, sizeof text - (size_t)len, "yes@example.net:%s\r\n", rig_crypt("secret", "$y$", 1));
    len += snprintf(text + len, sizeof text - (size_t)len, "SHA@other.example:%s\n", rig_crypt("secret", "$6$", 1000));
    len += snprintf(text + len, sizeof text - (size_t)len, "argon:%s\n", rig_argon2("secret"));
    len += snprintf(text + len, sizeof text - (size_t)len, "scram:%s\n", rig_scram("secret", 300));
    snprintf(text + len, sizeof text - (size_t)len, "locked:!%s", rig_crypt("secret", "$2b$", 4));
    rig_write(r->path, text, 0640);
}

static void open_file(struct rig *r, struct auth_config *c, struct auth_backend_config *b) {
    rig_open(r);
    write_accounts(r);
    *b = file_backend(r);
    *c = config_of(b, 1);
}

static void test_plain(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    static const char *const good[][2] = {
        {"bcrypt", "bcrypt@example.net"}, {"BCRYPT@Example.Net", "bcrypt@example.net"},
        {"yes", "yes@example.net"},       {"sha@other.example", "sha@other.example"},
        {"argon", "argon@example.net"},   {"scram", "scram@example.net"}};
    uint64_t ok = rig_metric("posthouse_auth_total", "result=\"ok\"");
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(rig_plain(&r, good[i][0], "secret"), AUTH_SUCCESS);
        assert_string_equal(r.text, good[i][1]);
    }
    assert_int_equal(rig_metric("posthouse_auth_total", "result=\"ok\""), ok + 6);
    uint64_t failed = rig_metric("posthouse_auth_total", "result=\"failed\"");
    static const char *const bad[][2] = {
        {"bcrypt", "Secret"}, {"locked", "secret"}, {"nobody", "secret"}, {"bcrypt@other.example", "secret"},
        {"scram", "x"},       {"bcrypt", ""},       {"sha", "secret"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(rig_plain(&r, bad[i][0], bad[i][1]), AUTH_FAILURE);
        assert_int_equal(r.len, 0);
    }
    assert_int_equal(rig_metric("posthouse_auth_total", "result=\"failed\""), failed + 7);
    rig_close(&r);
}

static void test_plain_forms(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    /* without an initial response */
    assert_int_equal(rig_begin(&r, "plain", SPAN_EMPTY), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
    assert_int_equal(r.len, 0);
    assert_int_equal(rig_answer(&r, SPAN("\0bcrypt\0secret")), AUTH_SUCCESS);
    /* for oneself, in another spelling; for another */
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("Bcrypt@example.net\0bcrypt\0secret")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_SUCCESS);
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("argon\0bcrypt\0secret")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_FAILURE);
    static char huge[20000];
    const struct span bad[] = {
        {"", 0},           {"\0bcrypt", 7},        {"bcrypt", 6},         {"\0bcrypt\0secret\0", 15},
        {"\0\0secret", 8}, {"\0a\nb\0secret", 11}, {"\0\xff\0secret", 9}, {huge, sizeof huge}};
    uint64_t malformed = rig_metric("posthouse_auth_total", "result=\"malformed\"");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(rig_begin(&r, "PLAIN", bad[i]), ERR_OK);
        assert_int_equal(rig_wait(&r), AUTH_MALFORMED);
    }
    assert_int_equal(rig_metric("posthouse_auth_total", "result=\"malformed\""), malformed + 8);
    /* what is not offered */
    assert_int_equal(rig_begin(&r, "CRAM-MD5", SPAN_EMPTY), ERR_UNSUPPORTED);
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256-PLUS", SPAN_EMPTY), ERR_UNSUPPORTED);
    assert_int_equal(rig_begin(&r, "", SPAN_EMPTY), ERR_UNSUPPORTED);
    assert_int_equal(rig_begin(&r, "PLAINPLAINPLAINPLAINPLAIN", SPAN_EMPTY), ERR_UNSUPPORTED);
    r.client.tls = false;
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN_EMPTY), ERR_DENIED);
    assert_int_equal(rig_begin(&r, "scram-sha-256", SPAN_EMPTY), ERR_DENIED);
    rig_close(&r);
}

static void test_login(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    assert_int_equal(rig_begin(&r, "Login", SPAN_EMPTY), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
    assert_string_equal(r.text, "Username:");
    assert_int_equal(rig_answer(&r, SPAN("bcrypt")), AUTH_CHALLENGE);
    assert_string_equal(r.text, "Password:");
    assert_int_equal(rig_answer(&r, SPAN("secret")), AUTH_SUCCESS);
    assert_string_equal(r.text, "bcrypt@example.net");
    assert_int_equal(rig_begin(&r, "LOGIN", SPAN("argon")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
    assert_int_equal(rig_answer(&r, SPAN("wrong")), AUTH_FAILURE);
    assert_int_equal(rig_begin(&r, "LOGIN", SPAN("")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_MALFORMED);
    static char huge[600];
    memset(huge, 'p', sizeof huge);
    const struct span bad[] = {{huge, sizeof huge}, {"a\0b", 3}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rig_begin(&r, "LOGIN", SPAN("argon")), ERR_OK);
        assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
        assert_int_equal(rig_answer(&r, bad[i]), AUTH_MALFORMED);
    }
    assert_int_equal(rig_begin(&r, "LOGIN", span_make(huge, 256)), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_MALFORMED);
    rig_close(&r);
}

/* -- SCRAM -- */
struct scram_client {
    Gsasl *context;
    Gsasl_session *session;
    char *text;
    size_t len;
};

static void client_open(struct scram_client *s, const char *mechanism, const char *account, const char *password,
                        const char *binding) {
    memset(s, 0, sizeof *s);
    assert_int_equal(gsasl_init(&s->context), GSASL_OK);
    assert_int_equal(gsasl_client_start(s->context, mechanism, &s->session), GSASL_OK);
    gsasl_property_set(s->session, GSASL_AUTHID, account);
    gsasl_property_set(s->session, GSASL_PASSWORD, password);
    if (binding)
        gsasl_property_set(s->session, GSASL_CB_TLS_EXPORTER, binding);
}

static int client_step(struct scram_client *s, struct rig *r) {
    gsasl_free(s->text);
    s->text = NULL;
    return gsasl_step(s->session, r->text, r->len, &s->text, &s->len);
}

static void client_close(struct scram_client *s) {
    gsasl_free(s->text);
    gsasl_finish(s->session);
    gsasl_done(s->context);
}

/* The event that ends it; the client believed the server when it is a success. */
static enum auth_event scram(struct rig *r, const char *mechanism, const char *account, const char *password,
                             const char *binding, char *salt) {
    struct scram_client s;
    client_open(&s, mechanism, account, password, binding);
    r->len = 0;
    assert_int_equal(client_step(&s, r), GSASL_NEEDS_MORE);
    assert_int_equal(rig_begin(r, mechanism, span_make(s.text, s.len)), ERR_OK);
    enum auth_event event = rig_wait(r);
    if (event == AUTH_CHALLENGE) {
        if (salt)
            snprintf(salt, 128, "%s", strstr(r->text, ",s="));
        assert_int_equal(client_step(&s, r), GSASL_NEEDS_MORE);
        event = rig_answer(r, span_make(s.text, s.len));
    }
    if (event == AUTH_CHALLENGE) {
        assert_memory_equal(r->text, "v=", 2);
        assert_int_equal(client_step(&s, r), GSASL_OK);
        event = rig_answer(r, SPAN(""));
    }
    client_close(&s);
    return event;
}

static void test_scram(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    char salt[128], again[128];
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "scram", "secret", NULL, salt), AUTH_SUCCESS);
    assert_string_equal(r.text, "scram@example.net");
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "scram", "wrong", NULL, NULL), AUTH_FAILURE);
    /* unknown, and known without a verifier: look alike, each time the same */
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "nobody", "secret", NULL, salt), AUTH_FAILURE);
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "nobody", "secret", NULL, again), AUTH_FAILURE);
    assert_string_equal(salt, again);
    assert_non_null(strstr(salt, ",i=300"));
    assert_int_equal(strlen(salt), strlen(",s=MDEyMzQ1Njc4OWFiY2RlZg==,i=300"));
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "bcrypt", "secret", NULL, again), AUTH_FAILURE);
    assert_string_not_equal(salt, again);
    assert_int_equal(strlen(salt), strlen(again));
    /* the fake salts outlive a reload */
    struct auth *old = r.auth;
    make(&r, &c);
    auth_inherit(r.auth, old);
    auth_unref(old);
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "nobody", "secret", NULL, again), AUTH_FAILURE);
    assert_string_equal(salt, again);
    rig_close(&r);
}

static void test_scram_plus(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    r.client.binding_type = "tls-exporter";
    memcpy(r.client.binding, "0123456789", 10);
    r.client.binding_len = 10;
    const char *right = "MDEyMzQ1Njc4OQ==", *wrong = "MDEyMzQ1Njc4OA==";
    assert_int_equal(scram(&r, "SCRAM-SHA-256-PLUS", "scram", "secret", right, NULL), AUTH_SUCCESS);
    assert_int_equal(scram(&r, "SCRAM-SHA-256-PLUS", "scram", "secret", wrong, NULL), AUTH_FAILURE);
    assert_int_equal(scram(&r, "SCRAM-SHA-256-PLUS", "nobody", "secret", right, NULL), AUTH_FAILURE);
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "scram", "secret", NULL, NULL), AUTH_SUCCESS);
    /* a client that could bind was told that the server cannot: somebody is between */
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN("y,,n=scram,r=abcdef")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_FAILURE);
    r.client.binding_type = NULL;
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN("y,,n=scram,r=abcdef")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
    auth_cancel(r.x);
    rig_close(&r);
}

static void test_scram_malformed(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    static char huge[20000] = "n,,n=scram,r=";
    memset(huge + 13, 'x', sizeof huge - 13);
    const struct span first[] = {{"", 0}, {"n,,", 3}, {"n,,n=scram", 10}, {"n,,n=sc\0am,r=x", 14}, {huge, sizeof huge}};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", first[i]), ERR_OK);
        assert_int_equal(rig_wait(&r), AUTH_MALFORMED);
    }
    const struct span last[] = {{"", 0}, {"x", 1}, {"c=biws\0", 7}, {huge, sizeof huge}};
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN_EMPTY), ERR_OK);
        assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
        assert_int_equal(r.len, 0);
        assert_int_equal(rig_answer(&r, SPAN("n,,n=scram,r=abcdef")), AUTH_CHALLENGE);
        assert_int_equal(rig_answer(&r, last[i]), AUTH_MALFORMED);
    }
    /* for another: as an account that does not exist */
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN("n,a=bcrypt,n=scram,r=abcdef")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_CHALLENGE);
    assert_null(strstr(r.text, "s=MDEyMzQ1Njc4OWFiY2RlZg=="));
    auth_cancel(r.x);
    rig_close(&r);
}

/* -- offers -- */
static void assert_refused(struct rig *r, const struct auth_config *c, int err, const char *why) {
    struct auth *none;
    buf_clear(&r->problems);
    assert_int_equal(auth_new(&none, c, &r->problems), err);
    if (!strstr(buf_cstr(&r->problems), why))
        fail_msg("%s", buf_cstr(&r->problems));
}

static void assert_offers(struct rig *r, bool tls, bool binding, const char *text) {
    struct span s = auth_mechanisms(r->auth, tls, binding), again = auth_mechanisms(r->auth, tls, binding);
    assert_true(span_eq(s, span_of(text)));
    assert_true(s.at == again.at);
}

static void test_offers(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    assert_offers(&r, true, true, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN");
    assert_offers(&r, true, false, "SCRAM-SHA-256 PLAIN LOGIN");
    assert_offers(&r, false, false, "");
    auth_unref(r.auth);
    c.mechanisms = "PLAIN  SCRAM-SHA-256";
    make(&r, &c);
    assert_offers(&r, true, true, "PLAIN SCRAM-SHA-256");
    assert_int_equal(rig_begin(&r, "LOGIN", SPAN_EMPTY), ERR_UNSUPPORTED);
    auth_unref(r.auth);
    rig_write(r.path, "a:!\n", 0600);
    c.mechanisms = NULL;
    make(&r, &c);
    assert_offers(&r, true, true, "PLAIN LOGIN");
    auth_unref(r.auth);
    c.count = 0;
    make(&r, &c);
    assert_offers(&r, true, true, "");
    auth_unref(r.auth);
    r.auth = NULL;
    c.count = 1;
    c.mechanisms = "PLAIN SCRAM-SHA-256 CRAM-MD5 pla\nin";
    assert_refused(&r, &c, ERR_INVALID, "mechanisms");
    assert_non_null(strstr(buf_cstr(&r.problems), "SCRAM-SHA-256: no backend has verifiers"));
    assert_non_null(strstr(buf_cstr(&r.problems), "CRAM-MD5: only a Dovecot backend"));
    assert_non_null(strstr(buf_cstr(&r.problems), "pla\\x0ain: not a name"));
    rig_close(&r);
}

/* -- the file -- */
static void test_file_problems(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    assert_int_equal(chmod(r.path, 0644), 0);
    assert_refused(&r, &c, ERR_DENIED, "is open to others");
    rig_write(r.path, "alice:secret\nbob\nalice:!\n:!\na\x01:!\nc:$1$abcdefgh$aaaaaaaaaaaaaaaaaaaaaa\n", 0600);
    assert_refused(&r, &c, ERR_INVALID, "passwd:1: not a hash");
    assert_non_null(strstr(buf_cstr(&r.problems), "passwd:2: no ':'"));
    assert_non_null(strstr(buf_cstr(&r.problems), "passwd:3: this account has a line already: alice"));
    assert_non_null(strstr(buf_cstr(&r.problems), "passwd:4: not a name"));
    assert_non_null(strstr(buf_cstr(&r.problems), "passwd:5: not a name of an account: a\\x01"));
    assert_non_null(strstr(buf_cstr(&r.problems), "passwd:6: not a hash"));
    assert_null(strstr(buf_cstr(&r.problems), "secret")); /* no part of a hash is told */
    struct buf many;
    buf_init(&many, 1 << 16);
    for (int i = 0; i < 100; i++)
        buf_add_str(&many, "x\n");
    rig_write(r.path, buf_cstr(&many), 0600);
    assert_refused(&r, &c, ERR_INVALID, "passwd:20:");
    assert_null(strstr(buf_cstr(&r.problems), "passwd:21:"));
    buf_clear(&many);
    buf_add_str(&many, "a:");
    for (int i = 0; i < 600; i++)
        buf_add_byte(&many, '!');
    rig_write(r.path, buf_cstr(&many), 0600);
    assert_refused(&r, &c, ERR_INVALID, "too long");
    buf_deinit(&many);
    unlink(r.path);
    assert_refused(&r, &c, ERR_NOT_FOUND, "No such file");
    b.file = r.dir;
    assert_refused(&r, &c, ERR_INVALID, "is not a file");
    b.file = NULL;
    assert_refused(&r, &c, ERR_INVALID, "needs a file");
    c.count = AUTH_BACKENDS_MAX + 1;
    assert_refused(&r, &c, ERR_INVALID, "more than 8");
    rig_close(&r);
}

static void test_other_problems(void **state) {
    (void)state;
    struct rig r;
    struct auth_backend_config b[] = {{.kind = AUTH_LDAP, .name = "l1", .uri = "http://x"},
                                      {.kind = AUTH_LDAP, .name = "l2", .uri = "ldap://x"},
                                      {.kind = AUTH_LDAP, .name = "l3", .uri = "ldap://x", .bind_dn = "uid=x"},
                                      {.kind = AUTH_POSTGRES, .name = "p1", .uri = "host=x", .query = "select 1"},
                                      {.kind = AUTH_HTTP, .name = "h1", .uri = "ldap://x"},
                                      {.kind = AUTH_DOVECOT, .name = "d1", .uri = "x:y"},
                                      {.kind = AUTH_DOVECOT, .name = "d2"}};
    rig_open(&r);
    struct auth_config c = config_of(b, sizeof b / sizeof *b);
    assert_refused(&r, &c, ERR_INVALID, "auth l1: needs an uri");
    static const char *const told[] = {"auth l2: needs bind_dn", "auth l3: has no %s", "auth p1: needs",
                                       "auth h1: needs",         "auth d1: needs",     "auth d2: needs"};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        assert_non_null(strstr(buf_cstr(&r.problems), told[i])); /* all at once */
    rig_close(&r);
}

static void test_stale(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    char senders[128];
    open_file(&r, &c, &b);
    snprintf(senders, sizeof senders, "%s/senders", r.dir);
    rig_write(senders, "bcrypt: sales@example.net\n", 0644);
    c.sender_login = senders;
    make(&r, &c);
    assert_false(auth_is_stale(r.auth));
    assert_true(auth_may_send(r.auth, SPAN("bcrypt@example.net"), SPAN("sales@example.net")));
    assert_false(auth_may_send(r.auth, SPAN("argon@example.net"), SPAN("sales@example.net")));
    rig_write(senders, "bcrypt: sales@example.net\n#\n", 0644);
    assert_true(auth_is_stale(r.auth));
    struct auth *old = r.auth;
    make(&r, &c);
    auth_unref(old);
    assert_false(auth_is_stale(r.auth));
    assert_int_equal(chmod(r.path, 0600), 0);
    assert_true(auth_is_stale(r.auth));
    unlink(senders);
    assert_refused(&r, &c, ERR_NOT_FOUND, "senders: No such file");
    rig_close(&r);
}

/* -- several backends -- */
static void test_order(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b[3];
    char second[128];
    open_file(&r, &c, &b[0]);
    snprintf(second, sizeof second, "%s/second", r.dir);
    char text[512];
    int len = snprintf(text, sizeof text, "bcrypt:%s\n", rig_crypt("other", "$2b$", 4));
    snprintf(text + len, sizeof text - (size_t)len, "late:%s\n", rig_scram("secret", 300));
    rig_write(second, text, 0600);
    b[1] = (struct auth_backend_config){.kind = AUTH_FILE, .name = "second", .file = second};
    b[2] = (struct auth_backend_config){
        .kind = AUTH_DOVECOT, .name = "dead", .uri = "unix:/nonexistent/posthouse", .timeout_ms = 500};
    c = config_of(b, 3);
    make(&r, &c);
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_SUCCESS);
    assert_int_equal(rig_plain(&r, "bcrypt", "other"), AUTH_FAILURE); /* the first that knows the account decides */
    assert_int_equal(rig_plain(&r, "late", "secret"), AUTH_SUCCESS);
    assert_int_equal(scram(&r, "SCRAM-SHA-256", "late", "secret", NULL, NULL), AUTH_SUCCESS);
    uint64_t failures = rig_metric("posthouse_auth_backend_failures_total", NULL);
    assert_int_equal(rig_plain(&r, "nobody", "secret"), AUTH_TEMPFAIL); /* who could tell does not answer */
    assert_int_equal(rig_metric("posthouse_auth_backend_failures_total", NULL), failures + 1);
    unlink(second);
    auth_unref(r.auth);
    /* one that cannot tell is not skipped */
    struct auth_backend_config swapped[] = {b[2], b[0]};
    c = config_of(swapped, 2);
    make(&r, &c);
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_TEMPFAIL);
    rig_close(&r);
}

/* Servers that are not there: told apart from wrong passwords, and no failure of the client's. */
static void test_unreachable(void **state) {
    (void)state;
    struct auth_backend_config b[] = {
        {.kind = AUTH_LDAP, .uri = "ldap://127.0.0.1:1", .bind_dn = "uid=%u,dc=x", .timeout_ms = 500},
        {.kind = AUTH_POSTGRES,
         .uri = "host=127.0.0.1 port=1 user=x dbname=x",
         .query = "select $1",
         .timeout_ms = 500},
        {.kind = AUTH_HTTP, .uri = "http://127.0.0.1:1/", .timeout_ms = 500},
        {.kind = AUTH_DOVECOT, .uri = "127.0.0.1:1", .timeout_ms = 500}};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) {
        struct rig r;
        rig_open(&r);
        struct auth_config c = config_of(&b[i], 1);
        c.client_failures = 1;
        make(&r, &c);
        assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_TEMPFAIL);
        assert_int_equal(rig_plain(&r, "alice", "secret"), AUTH_TEMPFAIL);
        /* and one that is left in the middle: nothing waits for it */
        assert_int_equal(rig_begin(&r, "PLAIN", SPAN("\0alice\0secret")), ERR_OK);
        auth_cancel(r.x);
        rig_close(&r);
    }
}

/* -- cancel -- */
struct one {
    struct auth_exchange *x;
    bool over, canceled;
};

static void on_one(void *arg, enum auth_event event, struct span text) {
    struct one *o = arg;
    (void)event, (void)text;
    assert_false(o->canceled);
    o->over = true;
}

enum { MANY = 20 };

/* At many moments while backends and hashes are under way; some have ended by then, and some are decided (and counted
 * as that) and not yet told. */
static void cancel_many(struct rig *r) {
    struct one all[MANY] = {0};
    for (int i = 0; i < MANY; i++)
        assert_int_equal(auth_begin(&all[i].x, r->auth, r->post, &r->client, SPAN("PLAIN"), SPAN("\0bcrypt\0secret"),
                                    on_one, &all[i]),
                         ERR_OK);
    for (int i = 0; i < MANY; i++) {
        if (i >= 5)
            rig_rest(r, 1);
        if (all[i].over)
            continue;
        auth_cancel(all[i].x);
        all[i].canceled = true;
    }
    rig_rest(r, 20);
}

static uint64_t canceled_so_far(void) {
    return rig_metric("posthouse_auth_total", "result=\"canceled\"");
}

static void test_cancel(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    c.hash_threads = 1;
    make(&r, &c);
    uint64_t canceled = canceled_so_far(), ok = rig_metric("posthouse_auth_total", "result=\"ok\"");
    /* before the challenge went out, and behind it */
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN_EMPTY), ERR_OK);
    auth_cancel(r.x);
    assert_int_equal(rig_begin(&r, "LOGIN", SPAN("bcrypt")), ERR_OK);
    rig_wait(&r);
    auth_cancel(r.x);
    assert_int_equal(canceled_so_far(), canceled += 2);
    cancel_many(&r);
    uint64_t many = canceled_so_far() - canceled;
    assert_in_range(many, 5, MANY); /* none had a turn of the loop before the first five were canceled */
    assert_int_equal(many + rig_metric("posthouse_auth_total", "result=\"ok\"") - ok, MANY);
    canceled += many;
    /* SCRAM: before and behind each of its steps */
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN("n,,n=scram,r=abcdef")), ERR_OK);
    auth_cancel(r.x);
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN("n,,n=scram,r=abcdef")), ERR_OK);
    rig_wait(&r);
    auth_cancel(r.x);
    rig_rest(&r, 20);
    /* while a failure is held back */
    auth_unref(r.auth);
    c.fail_delay_ms = 600000;
    make(&r, &c);
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_SUCCESS);
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("\0bcrypt\0")), ERR_OK);
    rig_rest(&r, 20);
    auth_cancel(r.x);
    /* the last one had failed already */
    assert_int_equal(canceled_so_far(), canceled + 2);
    rig_close(&r);
}

/* -- caps -- */
static void test_client_cap(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    c.client_failures = 3;
    make(&r, &c);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_plain(&r, i ? "bcrypt" : "nobody", "wrong"), AUTH_FAILURE);
    uint64_t refused = rig_metric("posthouse_auth_total", "result=\"refused\"");
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_TEMPFAIL); /* unseen */
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN_EMPTY), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_TEMPFAIL);
    assert_int_equal(rig_metric("posthouse_auth_total", "result=\"refused\""), refused + 2);
    r.client.trusted = true;
    for (int i = 0; i < 4; i++)
        assert_int_equal(rig_plain(&r, "argon", "wrong"), AUTH_FAILURE);
    r.client.trusted = false;
    rig_client(&r, "192.0.2.2");
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_SUCCESS);
    /* counted over a reload */
    struct auth *old = r.auth;
    make(&r, &c);
    auth_inherit(r.auth, old);
    auth_unref(old);
    rig_client(&r, "192.0.2.1");
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_TEMPFAIL);
    rig_close(&r);
}

static void test_account_cap(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    char ip[32];
    open_file(&r, &c, &b);
    c.account_failures = 4;
    make(&r, &c);
    for (int i = 0; i < 4; i++) { /* from everywhere, in any case, by any mechanism */
        snprintf(ip, sizeof ip, "192.0.2.%d", i);
        rig_client(&r, ip);
        if (i % 2)
            assert_int_equal(rig_plain(&r, i == 1 ? "scram" : "SCRAM@example.NET", "wrong"), AUTH_FAILURE);
        else
            assert_int_equal(scram(&r, "SCRAM-SHA-256", "scram", "wrong", NULL, NULL), AUTH_FAILURE);
    }
    rig_client(&r, "198.51.100.1");
    assert_int_equal(rig_plain(&r, "scram", "secret"), AUTH_TEMPFAIL);
    assert_int_equal(rig_begin(&r, "SCRAM-SHA-256", SPAN("n,,n=scram,r=abcdef")), ERR_OK);
    assert_int_equal(rig_wait(&r), AUTH_TEMPFAIL);
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_SUCCESS);
    rig_close(&r);
}

/* Many at once buy no more guesses: those over the cap wait for the others, and are then refused. */
struct many {
    struct rig *r;
    int failed, refused, left;
};

static void on_many(void *arg, enum auth_event event, struct span text) {
    struct many *m = arg;
    (void)text;
    m->failed += event == AUTH_FAILURE;
    m->refused += event == AUTH_TEMPFAIL;
    if (--m->left == 0)
        loop_stop(m->r->loop);
}

static void test_at_once(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    c.client_failures = 3;
    make(&r, &c);
    struct many m = {.r = &r, .left = 12};
    for (int i = 0; i < 12; i++) {
        struct auth_exchange *x;
        assert_int_equal(auth_begin(&x, r.auth, r.post, &r.client, SPAN("PLAIN"), SPAN("\0bcrypt\0wrong"), on_many, &m),
                         ERR_OK);
    }
    while (m.left)
        rig_turn(&r);
    assert_int_equal(m.failed, 3);
    assert_int_equal(m.refused, 9);
    rig_close(&r);
}

/* The hash threads' queue is bounded: more is 454, not a pile. */
static void test_full(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    char text[256];
    snprintf(text, sizeof text, "slow:%s\n", rig_crypt("secret", "$2b$", 9));
    rig_write(r.path, text, 0600);
    c.hash_threads = 1;
    c.hash_waiting = 1;
    c.client_failures = 1000;
    make(&r, &c);
    struct many m = {.r = &r, .left = 20};
    for (int i = 0; i < 20; i++) {
        struct auth_exchange *x;
        assert_int_equal(auth_begin(&x, r.auth, r.post, &r.client, SPAN("PLAIN"), SPAN("\0slow\0wrong"), on_many, &m),
                         ERR_OK);
    }
    while (m.left)
        rig_turn(&r);
    assert_true(m.refused > 0);
    assert_true(m.failed > 0);
    assert_int_equal(m.refused + m.failed, 20);
    rig_close(&r);
}

/* A remembered password asks nobody; a changed file is another auth and remembers nothing. */
static void test_cache(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    c.cache_ms = 600000;
    c.hash_threads = 1;
    make(&r, &c);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_SUCCESS);
        assert_string_equal(r.text, "bcrypt@example.net");
    }
    assert_int_equal(rig_plain(&r, "bcrypt", "wrong"), AUTH_FAILURE);
    rig_write(r.path, "bcrypt:!\n", 0600);
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_SUCCESS); /* until the owner reads anew */
    assert_true(auth_is_stale(r.auth));
    struct auth *old = r.auth;
    make(&r, &c);
    auth_inherit(r.auth, old);
    auth_unref(old);
    assert_int_equal(rig_plain(&r, "bcrypt", "secret"), AUTH_FAILURE);
    rig_close(&r);
}

/* An exchange keeps the auth that it began with. */
static void test_last_holder(void **state) {
    (void)state;
    struct rig r;
    struct auth_config c;
    struct auth_backend_config b;
    open_file(&r, &c, &b);
    make(&r, &c);
    assert_int_equal(rig_begin(&r, "PLAIN", SPAN("\0bcrypt\0secret")), ERR_OK);
    auth_unref(auth_ref(r.auth));
    auth_unref(r.auth);
    r.auth = NULL;
    assert_int_equal(rig_wait(&r), AUTH_SUCCESS);
    assert_string_equal(r.text, "bcrypt@example.net");
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_plain_forms),
        cmocka_unit_test(test_login),          cmocka_unit_test(test_scram),
        cmocka_unit_test(test_scram_plus),     cmocka_unit_test(test_scram_malformed),
        cmocka_unit_test(test_offers),         cmocka_unit_test(test_file_problems),
        cmocka_unit_test(test_other_problems), cmocka_unit_test(test_stale),
        cmocka_unit_test(test_order),          cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_cancel),         cmocka_unit_test(test_client_cap),
        cmocka_unit_test(test_account_cap),    cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_full),           cmocka_unit_test(test_cache),
        cmocka_unit_test(test_last_holder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
