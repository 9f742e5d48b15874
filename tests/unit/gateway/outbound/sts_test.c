/* sts: policies from a real HTTPS server, announced by a scripted DNS, through good and bad times and restarts. */
#include "tests/unit/gateway/outbound/policy_world.h"

#include "gateway/outbound/sts.h"

#define POLICY(mode, age) "version: STSv1\nmode: " mode "\nmx: mx.good.test\nmx: *.mx.test\nmax_age: " age "\n"
#define START_MS 1000000000000u
#define DAY_MS (24u * 3600000u)
enum { MINUTE_MS = 60000 };

struct asker {
    struct sts_wait wait;
    struct policy_world *w;
    struct sts *again; /* ask once more inside the callback */
    unsigned told;
    struct sts_policy *policy; /* a reference */
    char why[100];
};
static struct {
    unsigned count;
    enum sts_failure kind;
    char domain[100], why[400];
} failures;

static void on_failed(void *arg, const char *domain, enum sts_failure kind, const char *why) {
    assert_null(arg);
    failures.count++;
    failures.kind = kind;
    snprintf(failures.domain, sizeof failures.domain, "%s", domain);
    snprintf(failures.why, sizeof failures.why, "%s", why);
}

static struct sts *open_sts(struct policy_world *w, const char *file, uint64_t wall_ms) {
    struct sts *s;
    const struct sts_config c = {.file = file,
                                 .connect_to = policy_connect,
                                 .query = dns_script,
                                 .dns = w,
                                 .failed = on_failed,
                                 .fetch_timeout_ms = 20000};
    memset(&failures, 0, sizeof failures);
    assert_int_equal(sts_new(&s, w->loop, w->http, &c, wall_ms), ERR_OK);
    return s;
}

static void on_told(void *arg, struct sts_policy *policy, const char *why) {
    struct asker *a = arg;
    a->told++;
    sts_policy_unref(a->policy);
    a->policy = sts_policy_ref(policy);
    snprintf(a->why, sizeof a->why, "%s", why);
    if (a->again) {
        struct sts *s = a->again;
        a->again = NULL;
        sts_ask(s, &a->wait, "good.test", START_MS, on_told, a);
        return;
    }
    if (a->w->running)
        loop_stop(a->w->loop);
}

/* Asks and waits; the policy is borrowed until the next ask. */
static struct sts_policy *ask(struct policy_world *w, struct sts *s, const char *domain, uint64_t wall_ms,
                              const char **why) {
    static struct sts_policy *kept;
    static char words[100];
    struct asker a = {.w = w};
    sts_policy_unref(kept);
    kept = NULL;
    if (!domain)
        return NULL;
    sts_ask(s, &a.wait, domain, wall_ms, on_told, &a);
    w->running = true;
    if (!a.told)
        loop_run(w->loop);
    w->running = false;
    assert_false(w->timed_out);
    assert_int_equal(a.told, 1);
    kept = a.policy;
    snprintf(words, sizeof words, "%s", a.why);
    if (why)
        *why = words;
    return kept;
}

static void forget(void) {
    ask(NULL, NULL, NULL, 0, NULL);
}

static uint64_t fetches(void) {
    return metric_now("posthouse_sts_fetches_total");
}

static void test_modes(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    for (int later = 0; later < 2; later++) { /* the DNS may answer before it returns, or not */
        w.dns_later = later;
        const char *domain = later ? "two.test" : "good.test";
        uint64_t before = fetches();
        dns_say(&w, "_mta-sts", domain, DNS_OK, "v=STSv1; id=one;");
        put_file(domain, POLICY("enforce", "604800"));
        assert_null(sts_peek(s, domain, START_MS));
        struct sts_policy *p = ask(&w, s, domain, START_MS, &why);
        assert_non_null(p);
        assert_string_equal(why, "");
        assert_int_equal(p->mode, STS_ENFORCE);
        assert_string_equal(p->id, "one");
        assert_true(sts_allows(p, "a.mx.test"));
        assert_false(sts_allows(p, "a.b.mx.test"));
        unsigned asked = w.queries;
        p = ask(&w, s, later ? "TWO.test" : "GOOD.test", START_MS + 1000, &why); /* at hand */
        assert_non_null(p);
        assert_ptr_equal(sts_peek(s, domain, START_MS + 1000), p);
        assert_int_equal(fetches(), before + 1);
        assert_int_equal(w.queries, asked);
    }
    w.dns_later = false;
    dns_say(&w, "_mta-sts", "three.test", DNS_OK, "v=STSv1; id=t;")->text[1] = "v=spf1 -all";
    put_file("three.test", "!bare\n" POLICY("testing", "604800"));
    assert_int_equal(ask(&w, s, "three.test", START_MS, &why)->mode, STS_TESTING);
    dns_say(&w, "_mta-sts", "four.test", DNS_OK, "v=STSv1; id=n;");
    put_file("four.test", POLICY("none", "604800"));
    uint64_t before = fetches();
    for (int i = 0; i < 3; i++) {
        assert_null(ask(&w, s, "four.test", START_MS, &why));
        assert_string_equal(why, "");
    }
    assert_int_equal(fetches(), before + 1); /* that there is none is remembered, too */
    assert_int_equal(failures.count, 0);
    forget();
    sts_free(s);
    world_stop(&w);
}

static void test_no_records(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    uint64_t before = fetches();
    put_file("good.test", POLICY("enforce", "604800"));
    assert_null(ask(&w, s, "good.test", START_MS, &why));
    assert_string_equal(why, "");
    assert_int_equal(w.queries, 1);
    assert_null(ask(&w, s, "good.test", START_MS + MINUTE_MS, &why)); /* its negative time is 5 minutes */
    assert_int_equal(w.queries, 1);
    uint64_t now = START_MS;
    static const struct {
        enum dns_status status;
        const char *one, *two, *why;
    } cases[] = {
        {DNS_OK, "v=STSv1; id=a;", "v=STSv1; id=b;", "several MTA-STS records"},
        {DNS_OK, "v=STSv1; id=a;", "v=STSv1; id=a;", "several MTA-STS records"},
        {DNS_OK, "v=STSv1; id=a;", "v=STSv1; junk", "several MTA-STS records"},
        {DNS_OK, "v=STSv1; id=a b;", NULL, "a malformed MTA-STS record"},
        {DNS_OK, "v=STSv2; id=a;", "else", ""},
        {DNS_NODATA, NULL, NULL, ""},
        {DNS_TEMPFAIL, NULL, NULL, "the DNS did not say whether there is an MTA-STS policy"},
        {DNS_LOOP, NULL, NULL, "the DNS did not say whether there is an MTA-STS policy"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        now += DAY_MS;
        dns_say(&w, "_mta-sts", "good.test", cases[i].status, cases[i].one)->text[1] = cases[i].two;
        assert_null(ask(&w, s, "good.test", now, &why));
        assert_string_equal(why, cases[i].why);
    }
    /* names that no policy host can have are not asked for */
    static const char *const odd[] = {"[127.0.0.1]", "", "a/b.test", ".test", "good.test.", "b\xc3\xbc.test"};
    unsigned asked = w.queries;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_null(ask(&w, s, odd[i], now, &why));
    assert_int_equal(w.queries, asked);
    assert_int_equal(fetches(), before);
    assert_int_equal(failures.count, 0);
    sts_free(s);
    world_stop(&w);
}

static void test_failed_fetches(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    static const struct {
        const char *domain, *file;
        enum sts_failure kind;
        const char *detail, *why;
    } cases[] = {
        {"good.test", "!404\n" POLICY("enforce", "9"), STS_FETCH_ERROR, "HTTP status 404",
         "the MTA-STS policy cannot be fetched"},
        {"good.test", "!302\n" POLICY("enforce", "9"), STS_FETCH_ERROR, "HTTP status 302",
         "the MTA-STS policy cannot be fetched"},
        {"good.test", "!500\n", STS_FETCH_ERROR, "HTTP status 500", "the MTA-STS policy cannot be fetched"},
        {"good.test", "!206\n" POLICY("enforce", "9"), STS_FETCH_ERROR, "HTTP status 206",
         "the MTA-STS policy cannot be fetched"},
        {"good.test", "!html\n" POLICY("enforce", "9"), STS_POLICY_BAD, "not text/plain",
         "the MTA-STS policy is invalid"},
        {"good.test", "!huge\n" POLICY("enforce", "9"), STS_POLICY_BAD, "the answer is too long",
         "the MTA-STS policy is invalid"},
        {"good.test", POLICY("enforced", "9"), STS_POLICY_BAD, "a bad mode", "the MTA-STS policy is invalid"},
        {"good.test", "", STS_POLICY_BAD, "no version", "the MTA-STS policy is invalid"},
        {"wrong.test", POLICY("enforce", "9"), STS_WEBPKI, NULL, "the MTA-STS host's certificate is not valid"},
    };
    uint64_t now = START_MS;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *domain = cases[i].domain;
        dns_say(&w, "_mta-sts", domain, DNS_OK, "v=STSv1; id=x;");
        put_file(domain, cases[i].file);
        uint64_t before = fetches();
        now += 6 * MINUTE_MS; /* a failure was 5 minutes ago */
        assert_null(ask(&w, s, domain, now, &why));
        assert_string_equal(why, cases[i].why);
        assert_int_equal(failures.count, i + 1);
        assert_int_equal(failures.kind, cases[i].kind);
        assert_string_equal(failures.domain, domain);
        if (cases[i].detail)
            assert_string_equal(failures.why, cases[i].detail);
        assert_null(ask(&w, s, domain, now + MINUTE_MS, &why)); /* remembered */
        assert_string_equal(why, cases[i].why);
        assert_int_equal(fetches(), before + 1);
    }
    /* a new id does not make it more urgent; time does */
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=y;")->ttl_s = 0;
    put_file("good.test", POLICY("enforce", "604800"));
    now += 6 * MINUTE_MS;
    assert_non_null(ask(&w, s, "good.test", now, &why));
    forget();
    sts_free(s);
    world_stop(&w);
    world_start(&w, NULL); /* signed by nobody that the system knows */
    s = open_sts(&w, NULL, START_MS);
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=x;");
    assert_null(ask(&w, s, "good.test", START_MS, &why));
    assert_int_equal(failures.kind, STS_WEBPKI);
    sts_free(s);
    world_stop(&w);
}

static void test_slow(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    struct sts *s;
    world_start(&w, policy_ca);
    const struct sts_config c = {
        .connect_to = policy_connect, .query = dns_script, .dns = &w, .fetch_timeout_ms = 100, .failed = on_failed};
    assert_int_equal(sts_new(&s, w.loop, w.http, &c, START_MS), ERR_OK);
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=x;");
    put_file("good.test", "!slow 1.5\n" POLICY("enforce", "604800"));
    uint64_t before = fetches();
    for (int i = 0; i < 2; i++) { /* the second does not wait at all */
        assert_null(ask(&w, s, "good.test", START_MS, &why));
        assert_string_equal(why, "the MTA-STS policy did not come in time");
    }
    for (int i = 0; i < 400 && !sts_peek(s, "good.test", START_MS); i++)
        world_pause(&w, 50);
    assert_non_null(ask(&w, s, "good.test", START_MS, &why)); /* it came for those that follow */
    assert_int_equal(fetches(), before + 1);
    /* the end while one is under way, and somebody waits */
    struct asker a = {.w = &w};
    dns_say(&w, "_mta-sts", "two.test", DNS_OK, "v=STSv1; id=x;");
    put_file("two.test", "!slow 5\n" POLICY("enforce", "604800"));
    sts_ask(s, &a.wait, "two.test", START_MS, on_told, &a);
    assert_int_equal(a.told, 0);
    forget();
    sts_free(s);
    world_stop(&w);
    assert_int_equal(a.told, 0);
}

static void test_shared(void **state) {
    (void)state;
    struct policy_world w;
    struct asker a[5];
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    w.dns_later = true;
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=x;");
    put_file("good.test", POLICY("enforce", "604800"));
    uint64_t before = fetches();
    for (int i = 0; i < 5; i++) {
        a[i] = (struct asker){.w = &w};
        sts_ask(s, &a[i].wait, "good.test", START_MS, on_told, &a[i]);
        assert_int_equal(a[i].told, 0);
    }
    a[0].again = s;
    sts_cancel(&a[1].wait);
    sts_cancel(&a[1].wait);
    while (!a[4].told)
        world_pause(&w, 20);
    static const unsigned told[] = {2, 0, 1, 1, 1};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(a[i].told, told[i]);
        assert_true(i == 1 || a[i].policy);
        sts_policy_unref(a[i].policy);
    }
    assert_int_equal(fetches(), before + 1);
    assert_int_equal(w.queries, 1);
    sts_free(s);
    world_stop(&w);
}

/* What was learnt outlives the DNS and the host, and nothing else but time and a new policy ends it. */
static void test_cached(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=one;");
    put_file("good.test", POLICY("enforce", "604800"));
    assert_non_null(ask(&w, s, "good.test", START_MS, &why));
    uint64_t now = START_MS + DAY_MS, before = fetches();
    static const enum dns_status lost[] = {DNS_TEMPFAIL, DNS_NXDOMAIN, DNS_NODATA};
    for (size_t i = 0; i < 3; i++, now += 7200000) {
        dns_say(&w, "_mta-sts", "good.test", lost[i], NULL);
        assert_non_null(ask(&w, s, "good.test", now, &why));
    }
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=one;")->text[1] = "v=STSv1; id=two;";
    assert_non_null(ask(&w, s, "good.test", now, &why));
    assert_int_equal(fetches(), before);
    /* a new id, and the host is dead */
    put_file("good.test", "!404\n");
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=two;");
    now += 7200000;
    assert_string_equal(ask(&w, s, "good.test", now, &why)->id, "one");
    while (failures.count == 0)
        world_pause(&w, 20);
    assert_string_equal(ask(&w, s, "good.test", now, &why)->id, "one");
    /* it is back: the next to ask still hears the old one, the one after that the new one */
    put_file("good.test", POLICY("testing", "3600"));
    now += 6 * MINUTE_MS;
    assert_string_equal(ask(&w, s, "good.test", now, &why)->id, "one");
    for (int i = 0; i < 500 && strcmp(sts_peek(s, "good.test", now)->id, "two") != 0; i++)
        world_pause(&w, 20);
    struct sts_policy *p = ask(&w, s, "good.test", now, &why);
    assert_string_equal(p->id, "two");
    assert_int_equal(p->mode, STS_TESTING);
    /* and its time ends it */
    dns_say(&w, "_mta-sts", "good.test", DNS_NXDOMAIN, NULL);
    assert_non_null(ask(&w, s, "good.test", now + 3590000, &why));
    assert_null(ask(&w, s, "good.test", now + 3610000, &why));
    assert_null(sts_peek(s, "good.test", now + 3610000));
    forget();
    sts_free(s);
    world_stop(&w);
}

static void test_expired_is_fetched_anew(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=one;")->ttl_s = 86400;
    put_file("good.test", POLICY("enforce", "600"));
    assert_non_null(ask(&w, s, "good.test", START_MS, &why));
    uint64_t before = fetches();
    struct sts_policy *p = ask(&w, s, "good.test", START_MS + 601000, &why); /* the record is still fresh */
    assert_non_null(p);
    assert_true(p->fetched_ms >= START_MS + 601000);
    assert_int_equal(fetches(), before + 1);
    assert_int_equal(w.queries, 1);
    /* one that is over at once is not fetched for every mail */
    dns_say(&w, "_mta-sts", "two.test", DNS_OK, "v=STSv1; id=one;");
    put_file("two.test", POLICY("enforce", "0"));
    before = fetches();
    for (int i = 0; i < 3; i++)
        assert_null(ask(&w, s, "two.test", START_MS + i * (uint64_t)MINUTE_MS, &why));
    assert_int_equal(fetches(), before + 1);
    forget();
    sts_free(s);
    world_stop(&w);
}

static void test_refresh(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    world_start(&w, policy_ca);
    struct sts *s = open_sts(&w, NULL, START_MS);
    static const char *const domains[] = {"good.test", "two.test"};
    for (int i = 0; i < 2; i++) {
        dns_say(&w, "_mta-sts", domains[i], DNS_OK, "v=STSv1; id=one;");
        put_file(domains[i], i ? POLICY("enforce", "7200") : POLICY("enforce", "31557600"));
        assert_non_null(ask(&w, s, domains[i], START_MS, &why));
    }
    uint64_t before = fetches();
    sts_tick(s, START_MS + MINUTE_MS);
    world_pause(&w, 50);
    assert_int_equal(fetches(), before);
    sts_tick(s, START_MS + 3700000); /* half of the second's time is over */
    for (int i = 0; i < 500 && sts_peek(s, "two.test", START_MS)->fetched_ms < START_MS + 3700000; i++)
        world_pause(&w, 20);
    assert_int_equal(fetches(), before + 1);
    assert_true(sts_peek(s, "two.test", START_MS)->fetched_ms >= START_MS + 3700000);
    sts_tick(s, START_MS + DAY_MS + MINUTE_MS); /* the first's day is over, and the second is over */
    for (int i = 0; i < 500 && sts_peek(s, "good.test", START_MS)->fetched_ms < START_MS + DAY_MS; i++)
        world_pause(&w, 20);
    assert_int_equal(fetches(), before + 2);
    assert_null(sts_peek(s, "two.test", START_MS));
    sts_tick(s, START_MS + 9 * (uint64_t)DAY_MS); /* nobody asked for a week */
    world_pause(&w, 50);
    assert_int_equal(fetches(), before + 2);
    assert_non_null(sts_peek(s, "good.test", START_MS + 9 * (uint64_t)DAY_MS));
    assert_int_equal(sts_count(s), 1); /* the other is forgotten */
    forget();
    sts_free(s);
    world_stop(&w);
}

static void test_bounded(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    struct sts *s;
    world_start(&w, policy_ca);
    const struct sts_config c = {.connect_to = policy_connect, .query = dns_script, .dns = &w, .entries = 3};
    assert_int_equal(sts_new(&s, w.loop, w.http, &c, START_MS), ERR_OK);
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=one;");
    put_file("good.test", POLICY("enforce", "86400"));
    assert_non_null(ask(&w, s, "good.test", START_MS, &why));
    for (int i = 0; i < 20; i++) {
        char domain[40];
        snprintf(domain, sizeof domain, "d%d.test", i);
        assert_null(ask(&w, s, domain, START_MS, &why));
        assert_true(sts_count(s) <= 3);
        if (i < 10)
            assert_non_null(ask(&w, s, "good.test", START_MS, &why)); /* used, and so kept */
    }
    assert_null(sts_peek(s, "good.test", START_MS));
    /* all are looked up: the next goes on without */
    struct asker a[3];
    w.dns_later = true;
    for (int i = 0; i < 3; i++) {
        char domain[40];
        snprintf(domain, sizeof domain, "e%d.test", i);
        a[i] = (struct asker){.w = &w};
        sts_ask(s, &a[i].wait, domain, START_MS, on_told, &a[i]);
        assert_int_equal(a[i].told, 0);
    }
    assert_null(ask(&w, s, "f.test", START_MS, &why));
    assert_string_equal(why, "no room to look for an MTA-STS policy");
    world_pause(&w, 50);
    for (int i = 0; i < 3; i++)
        assert_int_equal(a[i].told, 1);
    forget();
    sts_free(s);
    world_stop(&w);
}

static void test_file(void **state) {
    (void)state;
    struct policy_world w;
    const char *why;
    char file[200], octets[4000];
    world_start(&w, policy_ca);
    snprintf(file, sizeof file, "%s", in_dir("sts.keep"));
    struct sts *s = open_sts(&w, file, START_MS);
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=one;");
    put_file("good.test", POLICY("enforce", "604800"));
    dns_say(&w, "_mta-sts", "two.test", DNS_OK, "v=STSv1; id=zwei;");
    put_file("two.test", POLICY("testing", "600"));
    assert_non_null(ask(&w, s, "good.test", START_MS, &why));
    sts_tick(s, START_MS + 61000); /* written behind our back */
    for (int i = 0; i < 500 && !has_file("sts.keep"); i++)
        world_pause(&w, 20);
    struct sts *other = open_sts(&w, file, START_MS + 62000);
    assert_int_equal(sts_count(other), 1);
    sts_free(other);
    assert_non_null(ask(&w, s, "two.test", START_MS + 62000, &why));
    forget();
    sts_free(s); /* written at the end */
    /* a restart, the host dead, the DNS lost */
    put_file("good.test", "!404\n");
    dns_say(&w, "_mta-sts", "good.test", DNS_TEMPFAIL, NULL);
    dns_say(&w, "_mta-sts", "two.test", DNS_TEMPFAIL, NULL);
    s = open_sts(&w, file, START_MS + 500000);
    assert_int_equal(sts_count(s), 2);
    struct sts_policy *p = ask(&w, s, "good.test", START_MS + 500000, &why);
    assert_non_null(p);
    assert_string_equal(p->id, "one");
    assert_int_equal(p->expires_ms - p->fetched_ms, 604800000);
    assert_int_equal(p->mx_count, 2);
    assert_string_equal(p->lines[4], "max_age: 604800");
    assert_int_equal(ask(&w, s, "two.test", START_MS + 500000, &why)->mode, STS_TESTING);
    forget();
    sts_free(s);
    s = open_sts(&w, file, START_MS + DAY_MS); /* the second is over */
    assert_int_equal(sts_count(s), 1);
    sts_free(s);
    s = open_sts(&w, file, START_MS - DAY_MS); /* fetched tomorrow? */
    assert_int_equal(sts_count(s), 0);
    sts_free(s);
    /* damage: any octet, any length */
    size_t len = get_file("sts.keep", octets, sizeof octets);
    assert_true(len > 100 && len < sizeof octets - 1);
    for (size_t i = 0; i < len; i += 3) {
        FILE *f = fopen(file, "w");
        octets[i] ^= 1;
        assert_int_equal(fwrite(octets, 1, len, f), len);
        fclose(f);
        octets[i] ^= 1;
        s = open_sts(&w, file, START_MS + 500000);
        assert_int_equal(sts_count(s), 0);
        sts_free(s);
        assert_int_equal(truncate(file, (off_t)i), 0);
        s = open_sts(&w, file, START_MS + 500000);
        assert_int_equal(sts_count(s), 0);
        sts_free(s);
    }
    unlink(file);
    s = open_sts(&w, "/nonexistent/folder/file", START_MS); /* works, and cannot remember */
    put_file("good.test", POLICY("enforce", "604800"));
    dns_say(&w, "_mta-sts", "good.test", DNS_OK, "v=STSv1; id=one;");
    assert_non_null(ask(&w, s, "good.test", START_MS, &why));
    sts_tick(s, START_MS + 61000);
    world_pause(&w, 50);
    assert_non_null(ask(&w, s, "good.test", START_MS + 62000, &why));
    forget();
    sts_free(s);
    world_stop(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_no_records),
        cmocka_unit_test(test_failed_fetches),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_cached),
        cmocka_unit_test(test_expired_is_fetched_anew),
        cmocka_unit_test(test_refresh),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
