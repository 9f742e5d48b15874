/*
 * tlsrpt: sessions are counted, days end, reports go by HTTPS to a real server and by mail to a scripted one, are tried
 * again and given up; what is sent is judged by an independent reader (tests/support/tlsrpt_check.py).
 */
#include "tests/unit/gateway/outbound/policy_world.h"

#include "gateway/outbound/tlsrpt.h"

#define DAY_MS ((uint64_t)24 * 3600000)
#define DAY0_MS (20000 * DAY_MS) /* 2024-10-04 */
#define NOON_MS (DAY0_MS + DAY_MS / 2)
#define NEXT_MS (DAY0_MS + DAY_MS)
enum { MINUTE_MS = 60000, HOUR_MS = 3600000 };

static const char *const policy_lines[] = {"version: STSv1", "mode: enforce", "mx: mx.good.test", "mx: *.Mail.test",
                                           "max_age: 86400"};

struct mailbox {
    struct loop_timer *timer;
    unsigned count;
    int err;     /* of the next call */
    bool refuse; /* answer false */
    char from[100], to[100];
    tlsrpt_mailed_cb cb;
    void *cb_arg;
};
static struct mailbox box;
static struct policy_world w;
static struct tlsrpt *t;
static unsigned posted; /* by now */

static void on_box_timer(void *arg) {
    (void)arg;
    box.cb(box.cb_arg, !box.refuse);
}

static int mailer(void *arg, const struct tlsrpt_mail *m, tlsrpt_mailed_cb cb, void *cb_arg) {
    assert_ptr_equal(arg, &box);
    if (box.err)
        return box.err;
    snprintf(box.from, sizeof box.from, "%s", m->from);
    snprintf(box.to, sizeof box.to, "%s", m->to);
    FILE *f = fopen(in_dir("mail"), "w");
    assert_int_equal(fwrite(m->message.at, 1, m->message.len, f), m->message.len);
    fclose(f);
    box.count++;
    box.cb = cb;
    box.cb_arg = cb_arg;
    loop_timer_set(box.timer, 1);
    return ERR_OK;
}

static void open_tlsrpt(const char *file, uint64_t jitter_ms, uint64_t wall_ms) {
    const struct tlsrpt_config c = {.organization = "Example \"Net\"",
                                    .contact = "postmaster@example.net",
                                    .hostname = "mx1.example.net",
                                    .name = "node1",
                                    .from = "tlsrpt@example.net",
                                    .file = file,
                                    .offset_ms = HOUR_MS,
                                    .jitter_ms = jitter_ms,
                                    .seed = 5,
                                    .connect_to = policy_connect,
                                    .query = dns_script,
                                    .dns = &w,
                                    .mailer = mailer,
                                    .mailer_arg = &box};
    assert_int_equal(tlsrpt_new(&t, w.loop, w.http, &c, wall_ms), ERR_OK);
}

static void start(void) {
    world_start(&w, policy_ca);
    box = (struct mailbox){.timer = loop_timer_new(w.loop, on_box_timer, NULL)};
    open_tlsrpt(NULL, 0, DAY0_MS);
}

static void stop(void) {
    tlsrpt_free(t);
    loop_timer_close(box.timer);
    world_stop(&w);
}

static void count_success(const char *domain, enum tlsrpt_policy policy, unsigned times) {
    const struct tlsrpt_event e = {
        .domain = domain, .policy = policy, .lines = policy_lines, .line_count = 5, .mx = "mx.good.test"};
    for (unsigned i = 0; i < times; i++)
        tlsrpt_count(t, NOON_MS, &e);
}

static void count_failure(const char *domain, enum tlsrpt_policy policy, enum tlsrpt_result result, const char *mx,
                          const char *reason) {
    const struct tlsrpt_event e = {.domain = domain,
                                   .policy = policy,
                                   .lines = policy_lines,
                                   .line_count = 5,
                                   .result = result,
                                   .mx = mx,
                                   .sending_ip = "192.0.2.1",
                                   .receiving_ip = "2001:db8::25",
                                   .reason = reason};
    tlsrpt_count(t, NOON_MS, &e);
}

/* Ticks at that time until the number of reports still waiting is as wanted. */
static void tick_until(uint64_t wall_ms, size_t pending) {
    for (int i = 0; i < 1000; i++) {
        tlsrpt_tick(t, wall_ms);
        world_pause(&w, 10);
        if (tlsrpt_pending(t) == pending)
            return;
    }
    fail_msg("%zu reports wait, not %zu", tlsrpt_pending(t), pending);
}

/* Lets posts and mails under way end. */
static void settle(uint64_t wall_ms) {
    tlsrpt_tick(t, wall_ms);
    world_pause(&w, 300);
}

static const char *posted_name(unsigned n, const char *suffix) {
    static char name[40];
    snprintf(name, sizeof name, "posted.%u%s", n, suffix);
    return name;
}

static unsigned posts(void) {
    while (has_file(posted_name(posted + 1, "")))
        posted++;
    return posted;
}

/* The report as the checker read it: valid, or this fails. */
static const char *judged(const char *kind, const char *file) {
    static char text[400000];
    char path[200];
    snprintf(path, sizeof path, "%s", in_dir(file));
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        if (!freopen(in_dir("judged"), "w", stdout))
            _exit(1);
        execlp("python3", "python3", SOURCE_DIR "/tests/support/tlsrpt_check.py", kind, path, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    get_file("judged", text, sizeof text);
    return text;
}

static void has(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("%s\nis not in\n%s", part, text);
}

static void test_https(void **state) {
    (void)state;
    start();
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=https://reports.test/v1/here?x=y");
    count_success("good.test", TLSRPT_STS, 3);
    count_success("GOOD.test", TLSRPT_NO_POLICY, 2);
    count_failure("good.test", TLSRPT_STS, TLSRPT_CERTIFICATE_EXPIRED, "mx.good.test",
                  "it \"ended\" \x01\xff yesterday");
    count_failure("good.test", TLSRPT_STS, TLSRPT_CERTIFICATE_EXPIRED, "mx.good.test",
                  "it \"ended\" \x01\xff yesterday");
    count_failure("good.test", TLSRPT_STS, TLSRPT_STARTTLS_NOT_SUPPORTED, "mx2.good.test", NULL);
    assert_int_equal(tlsrpt_domains(t), 1);
    settle(NEXT_MS + HOUR_MS - 1000); /* the day is over, its hour has not come */
    assert_int_equal(tlsrpt_domains(t), 0);
    assert_int_equal(tlsrpt_pending(t), 1);
    assert_int_equal(w.queries, 0);
    tick_until(NEXT_MS + HOUR_MS, 0);
    assert_int_equal(posts(), 1);
    char head[2000];
    get_file(posted_name(1, ".json"), head, sizeof head);
    has(head, "\"path\": \"/v1/here?x=y\"");
    has(head, "\"content-type\": \"application/tlsrpt+gzip\"");
    const char *r = judged("packed", posted_name(1, ""));
    has(r, "\"contact-info\":\"postmaster@example.net\"");
    has(r, "\"date-range\":{\"end-datetime\":\"2024-10-04T23:59:59Z\",\"start-datetime\":\"2024-10-04T00:00:00Z\"}");
    has(r, "\"organization-name\":\"Example \\\"Net\\\"\"");
    has(r,
        "\"policy\":{\"mx-host\":[\"mx.good.test\",\"*.Mail.test\"],\"policy-domain\":\"good.test\",\"policy-string\":["
        "\"version: STSv1\",\"mode: enforce\",\"mx: mx.good.test\",\"mx: *.Mail.test\",\"max_age: 86400\"],"
        "\"policy-type\":\"sts\"},\"summary\":{\"total-failure-session-count\":3,"
        "\"total-successful-session-count\":3}}");
    has(r, "{\"policy\":{\"policy-domain\":\"good.test\",\"policy-type\":\"no-policy-found\"},\"summary\":{"
           "\"total-failure-session-count\":0,\"total-successful-session-count\":2}}");
    has(r, "{\"failed-session-count\":2,\"failure-reason-code\":\"it \\\"ended\\\" \\u0001\\ufffd yesterday\","
           "\"receiving-ip\":\"2001:db8::25\",\"receiving-mx-hostname\":\"mx.good.test\","
           "\"result-type\":\"certificate-expired\",\"sending-mta-ip\":\"192.0.2.1\"}");
    has(r, "{\"failed-session-count\":1,\"receiving-ip\":\"2001:db8::25\",\"receiving-mx-hostname\":\"mx2.good.test\","
           "\"result-type\":\"starttls-not-supported\",\"sending-mta-ip\":\"192.0.2.1\"}");
    stop();
}

static void test_mail(void **state) {
    (void)state;
    start();
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=mailto:tls%2dreports@good.test,mailto:a@b@c");
    for (unsigned i = 0; i < 150; i++) { /* several lines of base64 */
        char mx[40];
        snprintf(mx, sizeof mx, "mx%u.good.test", i);
        count_failure("good.test", TLSRPT_TLSA, TLSRPT_VALIDATION_FAILURE, mx, "no match");
        if (i < 5)
            count_failure("good.test", TLSRPT_TLSA, TLSRPT_TLSA_INVALID, mx, NULL);
    }
    tick_until(NEXT_MS + HOUR_MS, 0);
    assert_int_equal(box.count, 1);
    assert_string_equal(box.from, "tlsrpt@example.net");
    assert_string_equal(box.to, "tls-reports@good.test");
    const char *r = judged("mail", "mail");
    has(r, "\"total-failure-session-count\":155"); /* all are counted, though only 100 in detail */
    has(r, "\"receiving-mx-hostname\":\"mx94.good.test\"");
    assert_null(strstr(r, "\"receiving-mx-hostname\":\"mx95.good.test\""));
    has(r, "{\"failed-session-count\":55,\"result-type\":\"validation-failure\"}");
    has(r, "\"policy-type\":\"tlsa\"");
    stop();
}

static void test_all_results(void **state) {
    (void)state;
    start();
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=mailto:a@good.test");
    for (int i = TLSRPT_STARTTLS_NOT_SUPPORTED; i < TLSRPT_RESULTS; i++)
        count_failure("good.test", TLSRPT_STS, (enum tlsrpt_result)i, NULL, NULL);
    tick_until(NEXT_MS + HOUR_MS, 0);
    const char *r = judged("mail", "mail");
    for (int i = TLSRPT_STARTTLS_NOT_SUPPORTED; i < TLSRPT_RESULTS; i++)
        has(r, tlsrpt_result_name((enum tlsrpt_result)i));
    stop();
}

static void test_tried_again(void **state) {
    (void)state;
    start();
    unsigned before = posts();
    put_file("post-status", "503");
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=https://reports.test/a,mailto:a@good.test");
    count_success("good.test", TLSRPT_NO_POLICY, 1);
    uint64_t now = NEXT_MS + HOUR_MS;
    settle(now);
    assert_int_equal(posts(), before + 1);
    assert_int_equal(box.count, 1);
    assert_int_equal(tlsrpt_pending(t), 1);
    settle(now + 5 * MINUTE_MS); /* not yet */
    assert_int_equal(posts(), before + 1);
    settle(now + 11 * MINUTE_MS);
    assert_int_equal(posts(), before + 2);
    assert_int_equal(box.count, 1); /* who has it is not told again */
    put_file("post-status", "201");
    tick_until(now + 40 * MINUTE_MS, 0);
    assert_int_equal(posts(), before + 3);
    assert_int_equal(box.count, 1);
    char first[100000], last[100000];
    size_t len = get_file(posted_name(before + 1, ""), first, sizeof first);
    assert_int_equal(get_file(posted_name(before + 3, ""), last, sizeof last), len);
    assert_memory_equal(first, last, len); /* the same report, the same id */
    stop();
}

static void test_given_up(void **state) {
    (void)state;
    start();
    uint64_t lost = metric_now("posthouse_tlsrpt_reports_expired_total"), now = NEXT_MS + HOUR_MS;
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=mailto:a@good.test");
    dns_say(&w, "_smtp._tls", "two.test", DNS_TEMPFAIL, NULL);
    count_success("good.test", TLSRPT_NO_POLICY, 1);
    count_success("two.test", TLSRPT_NO_POLICY, 1);
    box.refuse = true;
    unsigned tries = 0;
    for (; tries < 300 && tlsrpt_pending(t) + tlsrpt_domains(t) > 0; tries++) {
        now += 10 * MINUTE_MS;
        box.err = tries % 2 ? ERR_AGAIN : ERR_OK;
        tlsrpt_tick(t, now);
        world_pause(&w, 5);
    }
    assert_int_equal(tlsrpt_pending(t), 0);
    assert_true(now > NEXT_MS + 20 * (uint64_t)HOUR_MS && now < NEXT_MS + 27 * (uint64_t)HOUR_MS);
    assert_int_equal(metric_now("posthouse_tlsrpt_reports_expired_total"), lost + 2);
    assert_true(box.count >= 1 && box.count < 15);
    stop();
}

static void test_nobody_wants_it(void **state) {
    (void)state;
    start();
    unsigned before = posts();
    dns_say(&w, "_smtp._tls", "one.test", DNS_OK, "v=TLSRPTv1; rua=mailto:a@one.test")->text[1] =
        "v=TLSRPTv1; rua=mailto:b@one.test";
    dns_say(&w, "_smtp._tls", "two.test", DNS_OK, "v=spf1 -all");
    dns_say(&w, "_smtp._tls", "three.test", DNS_NODATA, NULL);
    dns_say(&w, "_smtp._tls", "four.test", DNS_OK, "v=TLSRPTv1; rua=mailto:not-an-address");
    dns_say(&w, "_smtp._tls", "five.test", DNS_OK, "v=TLSRPTv1; rua=https://exa%mple:99999999/");
    static const char *const domains[] = {"one.test", "two.test", "three.test", "four.test", "five.test", "six.test"};
    for (size_t i = 0; i < 6; i++)
        count_success(domains[i], TLSRPT_NO_POLICY, 1);
    count_success("[192.0.2.1]", TLSRPT_NO_POLICY, 1);
    count_success("", TLSRPT_NO_POLICY, 1);
    count_success("a b.test", TLSRPT_NO_POLICY, 1);
    assert_int_equal(tlsrpt_domains(t), 6);
    tick_until(NEXT_MS + HOUR_MS, 0);
    assert_int_equal(w.queries, 6);
    assert_int_equal(box.count, 0);
    assert_int_equal(posts(), before);
    stop();
}

static void test_bounds(void **state) {
    (void)state;
    start();
    uint64_t before = metric_now("posthouse_tlsrpt_uncounted_total");
    for (unsigned i = 0; i < TLSRPT_POLICIES + 5; i++) { /* a policy that changes all the time */
        char line[40];
        snprintf(line, sizeof line, "mx: mx%u.good.test", i);
        const char *const lines[] = {line};
        tlsrpt_count(
            t, NOON_MS,
            &(struct tlsrpt_event){.domain = "good.test", .policy = TLSRPT_STS, .lines = lines, .line_count = 1});
    }
    assert_int_equal(metric_now("posthouse_tlsrpt_uncounted_total"), before + 5);
    char long_text[2000], domain[40];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    count_failure("two.test", TLSRPT_STS, TLSRPT_TLSA_INVALID, long_text, long_text);
    count_failure("two.test", TLSRPT_STS, TLSRPT_TLSA_INVALID, long_text, long_text); /* cut, and the same again */
    dns_say(&w, "_smtp._tls", "two.test", DNS_OK, "v=TLSRPTv1; rua=mailto:a@two.test");
    for (unsigned i = 0; i < TLSRPT_DOMAINS + 100; i++) {
        snprintf(domain, sizeof domain, "d%u.test", i);
        count_success(domain, TLSRPT_NO_POLICY, 1);
    }
    assert_int_equal(tlsrpt_domains(t), TLSRPT_DOMAINS);
    assert_int_equal(metric_now("posthouse_tlsrpt_uncounted_total"), before + 5 + 102);
    for (int i = 0; i < 20000 && tlsrpt_pending(t) + tlsrpt_domains(t) > 0; i++)
        tlsrpt_tick(t, NEXT_MS + HOUR_MS);
    world_pause(&w, 50);
    assert_int_equal(tlsrpt_pending(t), 0);
    has(judged("mail", "mail"), "\"failed-session-count\":2");
    stop();
}

static void test_spread(void **state) {
    (void)state;
    start();
    tlsrpt_free(t);
    open_tlsrpt(NULL, TLSRPT_JITTER_MS, DAY0_MS);
    char domain[40];
    for (unsigned i = 0; i < 400; i++) {
        snprintf(domain, sizeof domain, "d%u.test", i);
        count_success(domain, TLSRPT_NO_POLICY, 1);
    }
    size_t left[5];
    for (int hour = 0; hour <= 4; hour++) {
        for (int i = 0; i < 100; i++)
            tlsrpt_tick(t, NEXT_MS + (uint64_t)(1 + hour) * HOUR_MS);
        left[hour] = tlsrpt_pending(t);
    }
    assert_true(left[0] >= 399);
    for (int hour = 1; hour <= 4; hour++) /* seeded: the same in every run */
        assert_in_range(left[hour - 1] - left[hour], 60, 140);
    assert_int_equal(left[4], 0);
    stop();
}

static void test_file(void **state) {
    (void)state;
    char file[200], octets[20000];
    start();
    tlsrpt_free(t);
    snprintf(file, sizeof file, "%s", in_dir("tlsrpt.keep"));
    open_tlsrpt(file, 0, DAY0_MS);
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=mailto:a@good.test,https://reports.test/b");
    count_success("good.test", TLSRPT_STS, 3);
    count_success("good.test", TLSRPT_NO_POLICY, 1);
    count_failure("good.test", TLSRPT_STS, TLSRPT_CERTIFICATE_EXPIRED, "mx.good.test", "a\nb ");
    tlsrpt_tick(t, NOON_MS + 10 * MINUTE_MS);
    for (int i = 0; i < 500 && !has_file("tlsrpt.keep"); i++)
        world_pause(&w, 20);
    assert_true(has_file("tlsrpt.keep"));
    tlsrpt_free(t);
    open_tlsrpt(file, 0, NOON_MS + HOUR_MS); /* within the day */
    assert_int_equal(tlsrpt_domains(t), 1);
    count_success("good.test", TLSRPT_STS, 1);
    count_failure("good.test", TLSRPT_STS, TLSRPT_CERTIFICATE_EXPIRED, "mx.good.test", "a\nb ");
    tlsrpt_free(t);
    size_t len = get_file("tlsrpt.keep", octets, sizeof octets);
    open_tlsrpt(file, 0, NEXT_MS + 10 * MINUTE_MS); /* the next day */
    assert_int_equal(tlsrpt_domains(t), 0);
    assert_int_equal(tlsrpt_pending(t), 1);
    put_file("post-status", "500");
    unsigned before = posts();
    settle(NEXT_MS + HOUR_MS);
    assert_int_equal(box.count, 1);
    assert_int_equal(posts(), before + 1);
    tlsrpt_free(t);
    open_tlsrpt(file, 0, NEXT_MS + HOUR_MS + MINUTE_MS); /* between two tries */
    put_file("post-status", "200");
    tick_until(NEXT_MS + HOUR_MS + 20 * MINUTE_MS, 0);
    assert_int_equal(box.count, 1); /* that one has it */
    assert_int_equal(posts(), before + 2);
    const char *r = judged("packed", posted_name(before + 2, ""));
    has(r, "\"failed-session-count\":2,\"failure-reason-code\":\"a\\nb \"");
    has(r, "\"total-failure-session-count\":2,\"total-successful-session-count\":4");
    has(r, "\"total-failure-session-count\":0,\"total-successful-session-count\":1");
    tlsrpt_free(t);
    open_tlsrpt(file, 0, NEXT_MS + 2 * HOUR_MS);
    assert_int_equal(tlsrpt_pending(t), 0);
    tlsrpt_free(t);
    for (size_t i = 0; i < len; i += 7) { /* damage: any octet, any length */
        FILE *f = fopen(file, "w");
        octets[i] ^= 1;
        assert_int_equal(fwrite(octets, 1, len, f), len);
        fclose(f);
        octets[i] ^= 1;
        open_tlsrpt(file, 0, NOON_MS);
        assert_int_equal(tlsrpt_domains(t) + tlsrpt_pending(t), 0);
        tlsrpt_free(t);
        assert_int_equal(truncate(file, (off_t)i), 0);
        open_tlsrpt(file, 0, NOON_MS);
        assert_int_equal(tlsrpt_domains(t) + tlsrpt_pending(t), 0);
        tlsrpt_free(t);
    }
    FILE *f = fopen(file, "w");
    assert_int_equal(fwrite(octets, 1, len, f), len);
    fclose(f);
    open_tlsrpt(file, 0, DAY0_MS - 30 * DAY_MS); /* counted in days to come? */
    assert_int_equal(tlsrpt_domains(t) + tlsrpt_pending(t), 0);
    tlsrpt_free(t);
    open_tlsrpt(file, 0, DAY0_MS + 30 * DAY_MS); /* long past */
    assert_int_equal(tlsrpt_domains(t) + tlsrpt_pending(t), 0);
    stop();
}

static void test_end_under_way(void **state) {
    (void)state;
    start();
    dns_say(&w, "_smtp._tls", "good.test", DNS_OK, "v=TLSRPTv1; rua=https://reports.test/b");
    count_success("good.test", TLSRPT_STS, 3);
    tlsrpt_tick(t, NEXT_MS + HOUR_MS);
    assert_int_equal(tlsrpt_pending(t), 1);
    stop(); /* and no callback comes */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_https),         cmocka_unit_test(test_mail),     cmocka_unit_test(test_all_results),
        cmocka_unit_test(test_tried_again),   cmocka_unit_test(test_given_up), cmocka_unit_test(test_nobody_wants_it),
        cmocka_unit_test(test_bounds),        cmocka_unit_test(test_spread),   cmocka_unit_test(test_file),
        cmocka_unit_test(test_end_under_way),
    };
    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
