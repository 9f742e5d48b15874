/*
 * How our addresses fare, over real sockets: one that a server refuses rests there while the others carry on, and the
 * site is not blamed; a server that refuses all of them is; one that the kernel refuses rests everywhere; a throttled
 * one keeps to few connections, the others not. And the pool of who logged in.
 */
#include "tests/unit/gateway/outbound/pace_world.h"

#include "base/metrics.h"
#include "gateway/outbound/health.h"

static const struct {
    const char *refusal;
} refusals[] = {{"554 5.7.1 127.0.0.101 is listed at blocklist.example"}, {"421 4.7.0 blocked"}, {CLOSE}};

static uint64_t counted(const char *name, const char *labels) {
    for (const struct metric *m = metric_first(); m; m = m->next) {
        if (strcmp(m->name, name) == 0 && m->labels && strcmp(m->labels, labels) == 0)
            return metric_value(m);
    }
    fail_msg("no metric %s", name);
    return 0;
}

static void test_rests_grow(void **state) {
    (void)state;
    uint64_t before = 0;
    for (uint32_t i = 0; health_rest_ms(i) < HEALTH_REST_MAX_MS; i++) {
        assert_true(health_rest_ms(i) >= 2 * before && health_rest_ms(i) >= HEALTH_REST_FIRST_MS);
        before = health_rest_ms(i);
    }
    assert_int_equal(health_rest_ms(100), HEALTH_REST_MAX_MS);
    assert_int_equal(health_rest_ms(UINT32_MAX), HEALTH_REST_MAX_MS);
}

/* It is refused once, and another address gets the same message through at once. */
static void test_bad_source(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        uint16_t port = 0;
        struct server *a =
            server_start("127.0.0.2", &port, (struct script){.refuse_from = 101, .refuse_with = refusals[i].refusal});
        struct hub *h = hub_new(port);
        const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL),
                                             source("127.0.0.103", NULL)};
        const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 3}};
        h->s.pools = pools;
        h->s.pool_count = 1;
        h->s.messages_per_connection = 1;
        hub_go(h, NULL);
        for (int k = 0; k < 30; k++)
            DELIVERED(deliver(h, k % 2 ? "one.example" : "two.example"));
        assert_int_equal(still(a)->from[101], 1);
        assert_int_equal(a->connections, 31);
        hub_stop(h);
        server_stop(a);
    }
}

/* Many at once: only those that were under way when it was found out are refused. */
static void test_bad_source_in_a_burst(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port,
                                    (struct script){.refuse_from = 101, .refuse_with = "554 5.7.1 no", .ehlo_ms = 20});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    hub_use(h, pools, 1);
    h->s.per_site = 8;
    hub_go(h, NULL);
    for (int i = 0; i < JOBS_MAX; i++)
        give(h, i % 2 ? "one.example" : "two.example");
    wait_for_all(h);
    for (int i = 0; i < JOBS_MAX; i++) {
        DELIVERED(&h->told[i]);
        assert_false(h->told[i].site_failed);
    }
    assert_in_range(still(a)->from[101], 1, 8);
    hub_stop(h);
    server_stop(a);
}

/* A server that refuses them all: two are compared, then no more for a while, and the site is what has failed. */
static void test_bad_site(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.greeting = "421 4.3.2 closed"});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    h->s.pools = pools;
    h->s.pool_count = 1;
    hub_go(h, NULL);
    struct told *t = deliver(h, "one.example");
    expect(t, OUTCOME_DEFERRED, 421, "4.3.2");
    assert_true(t->site_failed);
    assert_int_equal(t->scope, SCOPE_DESTINATION);
    assert_true(still(a)->from[101] == 1 && a->from[102] == 1);
    t = deliver(h, "one.example");
    expect(t, OUTCOME_DEFERRED, 421, "4.3.2");
    assert_true(t->site_failed);
    assert_int_equal(still(a)->connections, 3);
    hub_stop(h);
    server_stop(a);
}

/* The only address of a pool is refused where that of another pool is not: it rests, and the site does not. */
static void test_bad_pool(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start(
        "127.0.0.2", &port, (struct script){.refuse_from = 101, .refuse_with = "554 5.7.1 listed", .ehlo_ms = 20});
    struct hub *h = hub_new(port);
    static const char *const bulk[] = {"bulk.example"};
    const struct outbound_source one[] = {source("127.0.0.101", NULL)}, two[] = {source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "bulk", .sources = one, .source_count = 1, .senders = bulk, .sender_count = 1},
        {.name = "rest", .sources = two, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 2;
    hub_go(h, NULL);
    DELIVERED(deliver(h, "one.example"));
    struct told *t = give_from(h, "x@bulk.example", "one.example", 1);
    wait_for_all(h);
    assert_int_equal(t->outcome, OUTCOME_DEFERRED); /* not for good: the fault is the address's */
    assert_int_equal(t->scope, SCOPE_MESSAGE);      /* nothing that makes the scheduler go slower with the site */
    assert_false(t->site_failed);
    t = give_from(h, "x@bulk.example", "two.example", 1);
    wait_for_all(h);
    RETURNED(t);
    assert_in_range(t->wait_ms, HEALTH_REST_FIRST_MS - 5000, HEALTH_REST_FIRST_MS * 3 / 2);
    assert_int_equal(t->pause_ms, 0);
    assert_int_equal(still(a)->from[101], 1);
    DELIVERED(deliver(h, "two.example"));
    hub_stop(h);
    server_stop(a);
}

/* One host of two is down: that is no fault of the address that found it out. */
static void test_bad_host(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.greeting = CLOSE});
    struct server *b = server_start("127.0.0.3", &port, (struct script){0});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    hub_use(h, pools, 1);
    hub_go(h, NULL);
    for (int i = 0; i < 30; i++)
        DELIVERED(deliver(h, "pair.example"));
    assert_int_equal(still(b)->connections, 30);
    assert_true(b->from[101] > 0 && b->from[102] > 0); /* neither rests */
    hub_stop(h);
    server_stop(a);
    server_stop(b);
}

/* An address that looks like ours, but that the kernel does not let us use: the others carry on, at all sites, and
 * alone it lets mail wait. */
static void test_cannot_bind(void **state) {
    (void)state;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t len = sizeof here;
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 16)) {
        if (fd >= 0)
            close(fd);
        skip(); /* no IPv6 */
    }
    getsockname(fd, (struct sockaddr *)&here, &len);
    struct server *a = server_on(fd, (struct script){0});
    struct hub *h = hub_new(25);
    static const char *const lost[] = {"lost.example"};
    const struct outbound_source at[] = {source("::ffff:127.0.0.101", NULL), source("::1", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "lost", .sources = at, .source_count = 1, .senders = lost, .sender_count = 1},
        {.name = "all", .sources = at, .source_count = 2}};
    struct outbound_route routes[] = {{.domain = "one.example"}, {.domain = "two.example"}};
    char text[64];
    snprintf(text, sizeof text, "smtp:[::1]:%u", ntohs(here.sin6_port));
    for (int i = 0; i < 2; i++)
        assert_int_equal(route_parse(&routes[i].route, span_of(text)), ERR_OK);
    h->s.pools = pools;
    h->s.pool_count = 2;
    h->s.routes = routes;
    h->s.route_count = 2;
    h->s.messages_per_connection = 1;
    hub_go(h, NULL);
    for (int i = 0; i < 12; i++)
        DELIVERED(deliver(h, i % 2 ? "one.example" : "two.example"));
    assert_int_equal(still(a)->connections, 12);
    struct told *t = give_from(h, "x@lost.example", "one.example", 1);
    wait_for_all(h);
    RETURNED(t);
    assert_int_equal(counted("posthouse_delivery_source_rests_total", "why=\"bind\""), 1);
    assert_in_range(t->wait_ms, 1, HEALTH_REST_FIRST_MS * 3 / 2);
    assert_false(t->site_failed);
    hub_stop(h);
    server_stop(a);
}

/* One address may have two connections only, and says so with 421: it keeps to about so many, and the others, which
 * were not refused, carry the rest; the site is not held to be full. */
static void test_window(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.few_from = 101, .few_max = 2, .ehlo_ms = 100});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    hub_use(h, pools, 1);
    h->s.per_site = 16;
    hub_go(h, NULL);
    for (int i = 0; i < JOBS_MAX; i++)
        give(h, i % 2 ? "one.example" : "two.example");
    wait_for_all(h);
    for (int i = 0; i < JOBS_MAX; i++) {
        DELIVERED(&h->told[i]);
        assert_false(h->told[i].site_failed);
    }
    assert_in_range(still(a)->most_from[101], 1, 2);
    assert_true(a->most_from[102] > 2);
    hub_stop(h);
    server_stop(a);
}

/* 421 in a session: the message goes on from the other address, and the first one has a connection at a time; failing
 * so too it rests. */
static void test_throttled(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.slow_from = 101});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    hub_use(h, pools, 1);
    hub_go(h, NULL);
    for (int i = 0; i < 30; i++) {
        struct told *t = deliver(h, "one.example");
        DELIVERED(t);
        assert_false(t->site_failed);
    }
    assert_int_equal(still(a)->from[101], 2);
    assert_int_equal(a->from[102], 30);
    hub_stop(h);
    server_stop(a);
}

/* A connection outlives the settings that it was opened by: they are there until its end has been told. */
static void test_old_settings(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.rcpt = "250 fine|" CLOSE});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 1;
    hub_go(h, NULL);
    DELIVERED(deliver(h, "one.example"));
    assert_int_equal(outbound_reconfigure(h->out, &h->s), ERR_OK);
    expect(deliver(h, "one.example"), OUTCOME_DEFERRED, 0, "4.4.2"); /* on the old connection */
    assert_int_equal(still(a)->connections, 1);
    hub_stop(h);
    server_stop(a);
}

/* An address that is taken out of its pool is used no more, over an idle connection either. */
static void test_taken_out(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 1;
    hub_go(h, NULL);
    DELIVERED(deliver(h, "one.example"));
    DELIVERED(deliver(h, "one.example"));
    assert_int_equal(still(a)->connections, 1);
    pools[0].sources = &at[1];
    assert_int_equal(outbound_reconfigure(h->out, &h->s), ERR_OK);
    for (int i = 0; i < 2; i++)
        DELIVERED(deliver(h, "one.example"));
    assert_true(still(a)->from[101] == 1 && a->from[102] == 1 && a->connections == 2);
    hub_stop(h);
    server_stop(a);
}

static void test_accounts(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct hub *h = hub_new(port);
    static const char *const tenant[] = {"@tenant.example"}, *const bulk[] = {"bulk.example"};
    const struct outbound_source one[] = {source("127.0.0.101", NULL)}, two[] = {source("127.0.0.102", NULL)},
                                 three[] = {source("127.0.0.103", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "bulk", .sources = one, .source_count = 1, .senders = bulk, .sender_count = 1},
        {.name = "tenant", .sources = two, .source_count = 1, .accounts = tenant, .account_count = 1},
        {.name = "rest", .sources = three, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 3;
    hub_go(h, NULL);
    static const struct {
        const char *account, *sender;
        int from;
    } table[] = {{"al@tenant.example", "x@bulk.example", 102},
                 {"al@other.example", "x@bulk.example", 101},
                 {NULL, "x@bulk.example", 101},
                 {"al@tenant.example", "x@me.example", 102},
                 {"al@other.example", "x@me.example", 103},
                 {NULL, "x@me.example", 103}};
    uint32_t before[104] = {0};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct told *t = give_as(h, table[i].account, table[i].sender, "one.example", 1);
        wait_for_all(h);
        DELIVERED(t);
        before[table[i].from] = 1;
        for (int k = 101; k <= 103; k++) /* one warm connection for each pool that has had a message */
            assert_int_equal(still(a)->from[k], before[k]);
    }
    hub_stop(h);
    server_stop(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rests_grow),
        cmocka_unit_test(test_bad_source),
        cmocka_unit_test(test_bad_source_in_a_burst),
        cmocka_unit_test(test_bad_site),
        cmocka_unit_test(test_bad_pool),
        cmocka_unit_test(test_bad_host),
        cmocka_unit_test(test_cannot_bind),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_throttled),
        cmocka_unit_test(test_old_settings),
        cmocka_unit_test(test_taken_out),
        cmocka_unit_test(test_accounts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
