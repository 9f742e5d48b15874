/*
 * mailauth: whole messages on a loop, over a real DNS server: the field that is written, forged ones that go, verdicts,
 * signing; checks that are canceled, too many, or stopped; settings that cannot be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "gateway/filter/mailauth.h"
#include "tests/unit/gateway/filter/keys.h"
#include "tests/unit/gateway/filter/nsd.h"
#include "tests/unit/gateway/filter/place.h"

struct world {
    struct nsd nsd;
    struct zone zone;
    char directory[40], records[8192], dead[32];
    int dead_fd;
    struct signing_key key;
    struct loop *loop;
    struct post *post;
    struct loop_timer *guard;
    struct buf problems;
    struct mailauth_key keys[1];
    struct mailauth_config config;
    struct tcp_addr client;
    struct check_facts facts;
    /* of a check */
    unsigned calls, wanted;
    bool timed_out;
    struct check_verdict v;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static int start(void **state) {
    struct world *w = calloc(1, sizeof *w);
    uint16_t port = 0;
    *state = w;
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    snprintf(w->directory, sizeof w->directory, "/tmp/posthouse-auth-XXXXXX");
    if (!mkdtemp(w->directory))
        return 1;
    keys_make(&w->key, w->directory, "key", 2048);
    snprintf(w->records, sizeof w->records,
             "@ TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\ns1._domainkey TXT %s\n_dmarc TXT \"v=DMARC1; p=reject\"\n"
             "helo TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\n_dmarc.q TXT \"v=DMARC1; p=quarantine\"\n",
             w->key.record);
    w->zone = (struct zone){"auth.test", w->records};
    nsd_start(&w->nsd, &w->zone, 1);
    w->dead_fd = nsd_socket(SOCK_DGRAM, &port);
    snprintf(w->dead, sizeof w->dead, "127.0.0.1:%u", port);
    w->loop = loop_new();
    w->post = post_new(w->loop);
    w->guard = loop_timer_new(w->loop, on_guard, w);
    buf_init(&w->problems, 4096);
    return w->loop && w->post && w->guard ? 0 : 1;
}

static int stop(void **state) {
    struct world *w = *state;
    post_free(w->post);
    loop_timer_close(w->guard);
    loop_free(w->loop);
    nsd_stop(&w->nsd);
    buf_deinit(&w->problems);
    close(w->dead_fd);
    unlink(w->key.path);
    rmdir(w->directory);
    free(w);
    return 0;
}

static int set_up(void **state) {
    struct world *w = *state;
    w->keys[0] = (struct mailauth_key){"auth.test", "s1", w->key.path};
    w->config = (struct mailauth_config){.authserv_id = "mx.our.test",
                                         .spf = true,
                                         .dkim = true,
                                         .dmarc = MAILAUTH_ENFORCE,
                                         .dns = w->nsd.servers,
                                         .timeout_ms = 5000,
                                         .threads = 2,
                                         .keys = w->keys,
                                         .key_count = 1};
    assert_int_equal(tcp_addr_parse(&w->client, SPAN("192.0.2.1"), 25), ERR_OK);
    w->facts = (struct check_facts){.client = &w->client,
                                    .client_ip = SPAN("192.0.2.1"),
                                    .helo = SPAN("helo.auth.test"),
                                    .hostname = SPAN("mx.our.test"),
                                    .id = SPAN("0123456789ABC"),
                                    .sender = SPAN("joe@auth.test")};
    w->calls = 0;
    w->wanted = 1;
    return 0;
}

static struct mailauth *made(struct world *w) {
    struct mailauth *m = NULL;
    buf_clear(&w->problems);
    assert_int_equal(mailauth_new(&m, &w->config, &w->problems), ERR_OK);
    return m;
}

static void on_verdict(void *arg, const struct check_verdict *v) {
    struct world *w = arg;
    w->v = *v;
    if (++w->calls == w->wanted)
        loop_stop(w->loop);
}

static void run(struct world *w) {
    w->timed_out = false;
    loop_timer_set(w->guard, 30000);
    loop_run(w->loop);
    loop_timer_stop(w->guard);
    assert_false(w->timed_out);
}

/* Verifies; the message's text as it is then, on the heap. */
static char *verified(struct world *w, struct mailauth *m, struct held *h) {
    struct check_wait *wait = NULL;
    w->calls = 0;
    assert_int_equal(mailauth_verify(m, w->post, &w->facts, h, &w->v, &wait, on_verdict, w), ERR_AGAIN);
    assert_non_null(wait);
    assert_int_equal(w->calls, 0);
    run(w);
    assert_int_equal(w->calls, 1);
    return held_text(h);
}

/* A new mailauth of w->config verifies the message; the field must begin with `field` and the rest be `rest`. */
static void check_field(struct world *w, const char *message, const char *field, const char *rest) {
    struct mailauth *m = made(w);
    struct held *h = held_of_text(message);
    char *text = verified(w, m, h), *want;
    assert_true(asprintf(&want, "Authentication-Results: mx.our.test;\r\n\t%s\r\n%s", field, rest) > 0);
    assert_string_equal(text, want);
    free(text);
    free(want);
    held_free(h);
    mailauth_unref(m);
}

static void sign(struct world *w, struct held *h) {
    struct mailauth *m = made(w);
    struct check_wait *wait;
    w->calls = 0;
    assert_int_equal(mailauth_sign(m, w->post, &w->facts, h, &w->v, &wait, on_verdict, w), ERR_AGAIN);
    run(w);
    assert_int_equal(w->v.action, CHECK_PASS);
    mailauth_unref(m);
}

#define MESSAGE "From: Joe <joe@auth.test>\r\nSubject: x\r\n\r\nhello\r\n"

static void test_pass(void **state) {
    struct world *w = *state;
    check_field(w, MESSAGE,
                "spf=pass smtp.mailfrom=joe@auth.test;\r\n\tdkim=none;\r\n\tdmarc=pass (p=reject) "
                "header.from=auth.test",
                MESSAGE);
    assert_int_equal(w->v.action, CHECK_PASS);
}

static void test_forged_results_go(void **state) {
    struct world *w = *state;
    check_field(w,
                "Authentication-Results: mx.our.test; dmarc=pass header.from=bank.test\r\n"
                "AUTHENTICATION-RESULTS: (x) MX.OUR.TEST; spf=pass\r\n"
                "Authentication-Results: list.test; spf=pass\r\n" MESSAGE,
                "spf=pass smtp.mailfrom=joe@auth.test;\r\n\tdkim=none;\r\n\tdmarc=pass (p=reject) "
                "header.from=auth.test",
                "Authentication-Results: list.test; spf=pass\r\n" MESSAGE);
    /* where nothing is verified they go all the same */
    w->config.spf = w->config.dkim = false;
    w->config.dmarc = MAILAUTH_OFF;
    struct mailauth *m = made(w);
    struct held *h = held_of_text("Authentication-Results: mx.our.test; spf=pass\r\n" MESSAGE);
    struct check_wait *wait;
    assert_false(mailauth_verifies(m));
    assert_int_equal(mailauth_verify(m, w->post, &w->facts, h, &w->v, &wait, on_verdict, w), ERR_OK);
    assert_null(wait);
    char *text = held_text(h);
    assert_string_equal(text, MESSAGE);
    free(text);
    held_free(h);
    mailauth_unref(m);
}

static void check_refused(struct world *w, const char *enhanced) {
    assert_int_equal(w->v.action, CHECK_REFUSE);
    assert_int_equal(w->v.reply.code, 550);
    assert_true(span_eq(w->v.reply.enhanced, span_of(enhanced)));
}

static void test_refusals(void **state) {
    struct world *w = *state;
    w->facts.sender = SPAN("x@else.test");
    const char *failed = "dkim=none;\r\n\tdmarc=fail (p=reject dis=reject) header.from=auth.test";
    char field[200];
    snprintf(field, sizeof field, "spf=temperror smtp.mailfrom=x@else.test;\r\n\t%s", failed);
    check_field(w, MESSAGE, field, MESSAGE);
    check_refused(w, "5.7.26");
    w->config.dmarc = MAILAUTH_REPORT;
    check_field(w, MESSAGE, field, MESSAGE);
    assert_int_equal(w->v.action, CHECK_PASS);
    w->config.dmarc = MAILAUTH_ENFORCE;
    const char *quarantined = "From: a@q.auth.test\r\n\r\n";
    check_field(w, quarantined,
                "spf=temperror smtp.mailfrom=x@else.test;\r\n\tdkim=none;\r\n\tdmarc=fail (p=quarantine "
                "dis=quarantine) header.from=q.auth.test",
                quarantined);
    assert_int_equal(w->v.action, CHECK_PASS);
    const char *two = "From: joe@auth.test\r\nFrom: bank@bank.test\r\n\r\n";
    check_field(w, two,
                "spf=temperror smtp.mailfrom=x@else.test;\r\n\tdkim=none;\r\n\tdmarc=permerror reason=\"no single "
                "author domain\" header.from=auth.test",
                two);
    check_refused(w, "5.7.26");
    const char *none = "Subject: x\r\n\r\n";
    check_field(w, none,
                "spf=temperror smtp.mailfrom=x@else.test;\r\n\tdkim=none;\r\n\tdmarc=permerror reason=\"no From "
                "field\"",
                none);
    assert_int_equal(w->v.action, CHECK_PASS);
}

static void test_spf_by_itself(void **state) {
    struct world *w = *state;
    w->config.dkim = false;
    w->config.dmarc = MAILAUTH_OFF;
    assert_int_equal(tcp_addr_parse(&w->client, SPAN("198.51.100.7"), 25), ERR_OK);
    check_field(w, MESSAGE, "spf=fail smtp.mailfrom=joe@auth.test", MESSAGE);
    assert_int_equal(w->v.action, CHECK_PASS);
    w->config.spf_reject = true;
    check_field(w, MESSAGE, "spf=fail smtp.mailfrom=joe@auth.test", MESSAGE);
    check_refused(w, "5.7.23");
    w->facts.sender = SPAN_EMPTY;
    check_field(w, MESSAGE, "spf=fail smtp.helo=helo.auth.test", MESSAGE);
    check_refused(w, "5.7.23");
}

static void test_no_dns(void **state) {
    struct world *w = *state;
    w->config.dns = w->dead;
    w->config.timeout_ms = 300;
    w->config.spf_reject = true;
    check_field(w, MESSAGE,
                "spf=temperror smtp.mailfrom=joe@auth.test;\r\n\tdkim=none;\r\n\tdmarc=temperror reason=\"no answer "
                "for the policy\" header.from=auth.test",
                MESSAGE);
    assert_int_equal(w->v.action, CHECK_PASS);
}

static void test_signed_mail_passes_dmarc(void **state) {
    struct world *w = *state;
    struct held *h = held_of_text(MESSAGE);
    sign(w, h);
    struct mailauth *m = made(w);
    w->facts.sender = SPAN("x@else.test");
    char *text = verified(w, m, h);
    assert_int_equal(w->v.action, CHECK_PASS);
    assert_non_null(strstr(text, "dkim=pass header.d=auth.test header.s=s1 header.a=rsa-sha256 header.b="));
    assert_non_null(strstr(text, "dmarc=pass (p=reject) header.from=auth.test\r\nDKIM-Signature: v=1;"));
    free(text);
    held_free(h);
    mailauth_unref(m);
}

static void test_what_is_not_signed(void **state) {
    struct world *w = *state;
    const char *foreign = "From: a@else.test\r\n\r\nx\r\n";
    w->config.must_sign = true;
    struct held *h = held_of_text(foreign);
    sign(w, h); /* none of our domains: no reason to defer */
    char *text = held_text(h);
    assert_string_equal(text, foreign);
    free(text);
    held_free(h);
    struct mailauth *m = made(w);
    assert_true(mailauth_signs(m, SPAN("mail.auth.test")));
    assert_false(mailauth_signs(m, SPAN("else.test")));
    assert_false(mailauth_is_stale(m));
    mailauth_stop(m);
    h = held_of_text(MESSAGE);
    struct check_wait *wait;
    assert_int_equal(mailauth_sign(m, w->post, &w->facts, h, &w->v, &wait, on_verdict, w), ERR_OK);
    assert_int_equal(w->v.action, CHECK_REFUSE);
    assert_int_equal(w->v.reply.code, 451);
    held_free(h);
    mailauth_unref(m);
}

static void test_canceled(void **state) {
    struct world *w = *state;
    w->config.dns = w->dead;
    w->config.timeout_ms = 300;
    struct mailauth *m = made(w);
    for (int i = 0; i < 6; i++) {
        struct held *h = held_of_text(MESSAGE);
        struct check_wait *wait = NULL;
        assert_int_equal(mailauth_verify(m, w->post, &w->facts, h, &w->v, &wait, on_verdict, w), ERR_AGAIN);
        check_cancel(wait);
        held_free(h);
    }
    mailauth_stop(m); /* waits; the letters come home with the next turn, to nobody */
    mailauth_unref(m);
    w->config.dns = w->nsd.servers;
    w->config.timeout_ms = 5000;
    check_field(w, MESSAGE,
                "spf=pass smtp.mailfrom=joe@auth.test;\r\n\tdkim=none;\r\n\tdmarc=pass (p=reject) "
                "header.from=auth.test",
                MESSAGE);
    assert_int_equal(w->calls, 1);
}

static void test_too_many(void **state) {
    struct world *w = *state;
    enum { MANY = 80 };
    struct held *h[MANY];
    unsigned at_once = 0;
    w->config.dns = w->dead;
    w->config.timeout_ms = 1500;
    w->config.threads = 1;
    struct mailauth *m = made(w);
    for (int i = 0; i < MANY; i++) {
        struct check_wait *wait = NULL;
        h[i] = held_of_text("Authentication-Results: mx.our.test; spf=pass\r\n" MESSAGE);
        int err = mailauth_verify(m, w->post, &w->facts, h[i], &w->v, &wait, on_verdict, w);
        if (err == ERR_AGAIN)
            continue;
        assert_int_equal(err, ERR_OK);
        assert_int_equal(w->v.action, CHECK_PASS);
        char *text = held_text(h[i]);
        assert_string_equal(text, "Authentication-Results: mx.our.test;\r\n\tspf=temperror "
                                  "smtp.mailfrom=joe@auth.test;\r\n\tdkim=temperror;\r\n\tdmarc=temperror\r\n" MESSAGE);
        free(text);
        at_once++;
    }
    assert_in_range(at_once, MANY - 34, MANY - 32);
    w->wanted = MANY - at_once;
    run(w);
    assert_int_equal(w->calls, MANY - at_once);
    for (int i = 0; i < MANY; i++)
        held_free(h[i]);
    mailauth_unref(m);
}

static void check_problem(struct world *w, const char *words) {
    struct mailauth *m = NULL;
    buf_clear(&w->problems);
    assert_int_equal(mailauth_new(&m, &w->config, &w->problems), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&w->problems), words));
    assert_int_equal(set_up((void *[]){w}), 0);
}

static void test_problems(void **state) {
    struct world *w = *state;
    w->config.spf = false;
    check_problem(w, "DMARC needs SPF and DKIM");
    w->config.dns = "not a server";
    check_problem(w, "not a list of DNS servers");
    w->config.suffixes = "/nonexistent";
    check_problem(w, "no list of public suffixes in /nonexistent");
    w->config.threads = 100000;
    check_problem(w, "threads");
    w->keys[0].key = "/nonexistent";
    check_problem(w, "DKIM key /nonexistent of auth.test");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_pass, set_up),
        cmocka_unit_test_setup(test_forged_results_go, set_up),
        cmocka_unit_test_setup(test_refusals, set_up),
        cmocka_unit_test_setup(test_spf_by_itself, set_up),
        cmocka_unit_test_setup(test_no_dns, set_up),
        cmocka_unit_test_setup(test_signed_mail_passes_dmarc, set_up),
        cmocka_unit_test_setup(test_what_is_not_signed, set_up),
        cmocka_unit_test_setup(test_canceled, set_up),
        cmocka_unit_test_setup(test_too_many, set_up),
        cmocka_unit_test_setup(test_problems, set_up),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
