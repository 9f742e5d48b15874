/* rates: windows and their boundaries, networks, accounts, bounds; a model with a seed; threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "base/rand.h"
#include "gateway/guard/guard.h"
#include "gateway/guard/rates.h"

static struct guard *g;
static struct check_verdict v;

struct client {
    struct tcp_addr addr;
    struct check_facts f;
    char ip[128];
};

static struct client *client(const char *ip, const char *account) {
    static struct client c;
    c = (struct client){.f = {.client = &c.addr}};
    assert_int_equal(tcp_addr_parse(&c.addr, span_of(ip), 1234), ERR_OK);
    c.f.client_ip = span_make(c.ip, tcp_addr_ip(&c.addr, c.ip, sizeof c.ip));
    c.f.account = span_of(account);
    return &c;
}

static bool connects(const char *ip, uint64_t now_ms) {
    guard_count_connection(g, &client(ip, NULL)->f, now_ms, &v);
    return v.action == CHECK_PASS;
}

static bool mails(const char *ip, const char *account, uint64_t now_ms) {
    guard_count_mail(g, &client(ip, account)->f, now_ms, &v);
    return v.action == CHECK_PASS;
}

static void open_with(const struct guard_config *c) {
    assert_int_equal(guard_new(&g, c), ERR_OK);
}

static void a_window_has_two_halves(void **state) {
    (void)state;
    struct guard_config c = {.rate_mode = GUARD_ENFORCE, .per_client = {.connections = 3, .window_ms = 1000}};
    open_with(&c);
    assert_true(connects("192.0.2.1", 0));
    assert_true(connects("192.0.2.1", 499));
    assert_true(connects("192.0.2.1", 500));
    assert_false(connects("192.0.2.1", 501));
    assert_int_equal(v.reply.code, 421);
    assert_true(span_eq(v.reply.enhanced, SPAN("4.7.0")));
    assert_true(v.reply.text.len > 0 && v.by.len > 0);
    assert_true(v.close);
    assert_false(connects("192.0.2.1", 999));
    assert_true(connects("192.0.2.1", 1000)); /* the first half is forgotten; what was refused had not counted */
    assert_true(connects("192.0.2.1", 1000));
    assert_false(connects("192.0.2.1", 1499));
    assert_true(connects("192.0.2.1", 1500));
    assert_true(connects("192.0.2.2", 1500)); /* a neighbour */
    for (int i = 0; i < 3; i++)               /* a long pause forgets all */
        assert_true(connects("192.0.2.1", 1000000));
    assert_false(connects("192.0.2.1", 1000000));
    guard_free(g);
}

static void networks_are_counted_as_one(void **state) {
    (void)state;
    struct guard_config c = {.rate_mode = GUARD_ENFORCE, .per_client = {.messages = 1}};
    open_with(&c);
    assert_true(mails("2001:db8:0:1::1", NULL, 5));
    assert_false(mails("2001:db8:0:1:ffff::2", NULL, 5)); /* the same /64 */
    assert_int_equal(v.reply.code, 450);
    assert_true(span_eq(v.reply.enhanced, SPAN("4.7.1")));
    assert_false(v.close);
    assert_true(mails("2001:db8:0:2::1", NULL, 5));
    assert_true(mails("192.0.2.1", NULL, 5));
    assert_false(mails("::ffff:192.0.2.1", NULL, 5)); /* the same client over a socket of both families */
    assert_true(mails("192.0.2.2", NULL, 5));
    assert_true(mails("0.0.65.1", NULL, 5)); /* addresses are no text: 'A' and 'a' differ */
    assert_true(mails("0.0.97.1", NULL, 5));
    assert_true(mails("unix:/x", NULL, 5));
    assert_true(mails("unix:/x", NULL, 5));
    c.v4_bits = 24;
    c.v6_bits = 48;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_true(mails("192.0.2.1", NULL, 5));
    assert_false(mails("192.0.2.255", NULL, 5));
    assert_true(mails("192.0.3.1", NULL, 5));
    assert_true(mails("2001:db8:0:1::1", NULL, 5));
    assert_false(mails("2001:db8:0:2::1", NULL, 5));
    c.v4_bits = 20;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_true(mails("192.0.32.1", NULL, 5));
    assert_false(mails("192.0.47.1", NULL, 5));
    assert_true(mails("192.0.48.1", NULL, 5));
    guard_free(g);
}

static void accounts_are_counted_apart(void **state) {
    (void)state;
    struct guard_config c = {.rate_mode = GUARD_ENFORCE, .per_client = {.messages = 4}, .per_account = {.messages = 2}};
    open_with(&c);
    assert_true(mails("192.0.2.1", "joe", 5));
    assert_true(mails("192.0.2.2", "JOE", 5));
    assert_false(mails("192.0.2.3", "joe", 5));
    assert_true(span_eq(v.by, SPAN("rate of account")));
    assert_int_equal(v.reply.code, 450);
    for (int i = 0; i < 3; i++) /* what the account refuses is not counted for the network */
        assert_false(mails("192.0.2.1", "joe", 5));
    for (int i = 0; i < 3; i++)
        assert_true(mails("192.0.2.1", NULL, 5));
    assert_false(mails("192.0.2.1", "jim", 5));
    assert_true(span_eq(v.by, SPAN("rate of client")));
    assert_true(mails("192.0.2.4", "jim", 5)); /* and the other way round */
    assert_true(mails("192.0.2.4", "jim", 5));
    assert_false(mails("192.0.2.4", "jim", 5));
    guard_free(g);
}

static void recipients_and_octets_have_limits(void **state) {
    (void)state;
    struct guard_config c = {
        .rate_mode = GUARD_ENFORCE, .per_client = {.recipients = 2}, .per_account = {.octets = 1000}};
    struct client *cl = client("192.0.2.1", "joe");
    open_with(&c);
    guard_count_recipient(g, &cl->f, 1, &v);
    guard_count_recipient(g, &cl->f, 1, &v);
    assert_int_equal(v.action, CHECK_PASS);
    guard_count_recipient(g, &cl->f, 1, &v);
    assert_int_equal(v.action, CHECK_REFUSE);
    cl->f.size = 600;
    guard_count_octets(g, &cl->f, 1, &v);
    assert_int_equal(v.action, CHECK_PASS);
    guard_count_octets(g, &cl->f, 1, &v);
    assert_int_equal(v.action, CHECK_REFUSE);
    cl->f.size = 400;
    guard_count_octets(g, &cl->f, 1, &v);
    assert_int_equal(v.action, CHECK_PASS);
    cl->f.size = UINT64_MAX; /* no sum wraps */
    guard_count_octets(g, &cl->f, 1, &v);
    assert_int_equal(v.action, CHECK_REFUSE);
    for (int i = 0; i < 100; i++) /* no limit of messages */
        assert_true(mails("192.0.2.1", "joe", 1));
    guard_free(g);
}

static void modes_and_trust(void **state) {
    (void)state;
    struct guard_config c = {.rate_mode = GUARD_LOG, .per_client = {.messages = 1}, .per_account = {.messages = 2}};
    open_with(&c);
    for (int i = 0; i < 5; i++)
        assert_true(mails("192.0.2.1", NULL, 5));
    c.rate_mode = GUARD_OFF;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_true(mails("192.0.2.1", NULL, 5));
    c.rate_mode = GUARD_ENFORCE;
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_false(mails("192.0.2.1", NULL, 5)); /* counted while it was only logged */
    struct client *cl = client("192.0.2.1", "joe");
    cl->f.trusted = true; /* no limit by network, but by account */
    for (int i = 0; i < 3; i++)
        guard_count_mail(g, &cl->f, 5, &v);
    assert_int_equal(v.action, CHECK_REFUSE);
    assert_true(span_eq(v.by, SPAN("rate of account")));
    c.per_client.window_ms = 10; /* another window: all begins anew */
    assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
    assert_true(mails("192.0.2.1", NULL, 27));
    assert_false(mails("192.0.2.1", NULL, 28));
    guard_free(g);
}

static void the_oldest_network_is_forgotten(void **state) {
    (void)state;
    struct guard_config c = {.rate_mode = GUARD_ENFORCE, .per_client = {.connections = 1}, .rate_entries = 400};
    char ip[32];
    open_with(&c);
    assert_true(connects("192.0.2.1", 5));
    assert_false(connects("192.0.2.1", 5));
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(ip, sizeof ip, "10.0.%u.%u", i / 256, i % 256);
        assert_true(connects(ip, 5));
    }
    assert_false(connects(ip, 5));
    assert_true(connects("192.0.2.1", 5));
    guard_free(g);
}

static void it_is_told_once_a_window(void **state) {
    (void)state;
    struct shelf *s;
    struct shelf_key k = {{1, 2}};
    assert_int_equal(shelf_new(&s, 100, sizeof(struct rate_cell)), ERR_OK);
    for (uint64_t now = 0; now < 5000; now += 100) {
        enum rate_answer a = rate_charge(s, k, RATE_MESSAGES, 2, 1, 1000, true, now);
        assert_int_equal(a, now % 1000 == 0 ? RATE_OVER : RATE_OVER_TOLD);
    }
    shelf_free(s);
}

/* A list of all events says what must be known: those of this half and the one before. */
static void it_agrees_with_a_list_of_events(void **state) {
    (void)state;
    enum { KEYS = 5, EVENTS = 20000, HALF = 500, LIMIT = 30 };
    static struct {
        uint64_t now, n;
        unsigned key;
    } events[EVENTS];
    size_t count = 0, first[KEYS] = {0};
    uint64_t now = 0, refused = 0;
    struct shelf *s;
    struct rand r;
    rand_init(&r, 7);
    assert_int_equal(shelf_new(&s, 64 * KEYS, sizeof(struct rate_cell)), ERR_OK);
    for (unsigned step = 0; step < EVENTS; step++) {
        unsigned key = (unsigned)rand_below(&r, KEYS);
        uint64_t n = rand_below(&r, 4) + 1, sum = 0;
        struct shelf_key k = {{key, 1}};
        now += rand_below(&r, 1000) ? rand_below(&r, 20) : rand_below(&r, 5000);
        for (size_t i = first[key]; i < count; i++) {
            if (events[i].key == key && events[i].now / HALF + 1 >= now / HALF)
                sum += events[i].n;
            else if (events[i].key == key)
                first[key] = i;
        }
        bool fits = sum + n <= LIMIT;
        enum rate_answer a = rate_charge(s, k, RATE_RECIPIENTS, n, LIMIT, 2 * HALF, true, now);
        assert_int_equal(a == RATE_UNDER, fits);
        refused += !fits;
        if (fits && rand_below(&r, 10) == 0) {
            rate_refund(s, k, RATE_RECIPIENTS, n);
        } else if (fits) {
            events[count].now = now;
            events[count].n = n;
            events[count++].key = key;
        }
    }
    assert_true(refused > 1000 && count > 1000);
    shelf_free(s);
}

static void *work(void *arg) {
    unsigned *passed = arg;
    struct client c = {.f = {.client = &c.addr}};
    struct check_verdict mine;
    assert_int_equal(tcp_addr_parse(&c.addr, SPAN("192.0.2.1"), 1), ERR_OK);
    c.f.client_ip = SPAN("192.0.2.1");
    for (int i = 0; i < 2000; i++) {
        guard_count_mail(g, &c.f, 5, &mine);
        *passed += mine.action == CHECK_PASS;
    }
    return NULL;
}

static void threads_count_together(void **state) {
    (void)state;
    struct guard_config c = {.rate_mode = GUARD_ENFORCE, .per_client = {.messages = 3000}};
    pthread_t threads[4];
    unsigned passed[4] = {0}, sum = 0;
    open_with(&c);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &passed[i]), 0);
    for (int i = 0; i < 50; i++) { /* reloads meanwhile */
        assert_int_equal(guard_reconfigure(g, &c), ERR_OK);
        guard_tick(g, 1000);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        sum += passed[i];
    }
    assert_int_equal(sum, 3000);
    guard_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_has_two_halves),
        cmocka_unit_test(networks_are_counted_as_one),
        cmocka_unit_test(accounts_are_counted_apart),
        cmocka_unit_test(recipients_and_octets_have_limits),
        cmocka_unit_test(modes_and_trust),
        cmocka_unit_test(the_oldest_network_is_forgotten),
        cmocka_unit_test(it_is_told_once_a_window),
        cmocka_unit_test(it_agrees_with_a_list_of_events),
        cmocka_unit_test(threads_count_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
