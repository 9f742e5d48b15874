/*
 * Pace over real sockets: what a reply rule does to a site and to those that wait for it; rates of sites and domains;
 * our addresses: by sender, by family, by health, and a warm-up; with scripted servers that see who comes from where.
 */
#include "tests/unit/gateway/outbound/pace_world.h"

/* -- rules -- */

static void test_pause(void **state) {
    (void)state;
    static const struct script scripts[] = {
        {.greeting = "421 4.7.0 try again later"}, {.ehlo = "421 4.7.0 try again later"},
        {.mail = "421 4.7.0 try again later"},     {.rcpt = "450 4.7.0 try again later"},
        {.dot = "451 4.7.0 try again later"},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        uint16_t port = 0;
        struct server *a = server_start("127.0.0.2", &port, scripts[i]);
        struct server *b = server_start("127.0.0.3", &port, (struct script){0});
        struct hub *h = hub_new(port);
        hub_go(h, "suspend 2s /^4.. 4\\.7\\.0 try again later/");
        struct told *t = deliver(h, "one.example");
        assert_int_equal(t->outcome, OUTCOME_DEFERRED);
        assert_in_range(t->pause_ms, 1, 2000);
        assert_false(t->site_failed);
        assert_int_equal(still(a)->connections, 1);
        t = deliver(h, "two.example"); /* the same servers */
        RETURNED(t);
        assert_in_range(t->pause_ms, 1, 2000);
        assert_string_equal(t->site, "mx.host.example");
        assert_int_equal(still(a)->connections, 1);
        DELIVERED(deliver(h, "other.example"));
        run(h, 2100);
        assert_int_equal(deliver(h, "one.example")->outcome, OUTCOME_DEFERRED);
        assert_int_equal(still(a)->connections, 2);
        hub_stop(h);
        server_stop(a);
        server_stop(b);
    }
}

/* Those that wait for a connection when the site is paused go back at once. */
static void test_pause_hands_back(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.mail = "421 4.7.0 later", .ehlo_ms = 200});
    struct hub *h = hub_new(port);
    h->s.per_site = 1;
    hub_go(h, "suspend 1h /later/");
    struct told *first = give(h, "one.example");
    for (int i = 0; i < 5; i++)
        give(h, i % 2 ? "one.example" : "two.example");
    wait_for_all(h);
    expect(first, OUTCOME_DEFERRED, 421, "4.7.0");
    for (int i = 1; i < 6; i++) {
        RETURNED(&h->told[i]);
        assert_in_range(h->told[i].pause_ms, HOUR_MS - 10000, HOUR_MS);
    }
    assert_int_equal(still(a)->connections, 1);
    hub_stop(h);
    server_stop(a);
}

static void test_slow(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.rcpt = "450 4.2.1 slow down", .ehlo_ms = 50});
    struct hub *h = hub_new(port);
    h->s.messages_per_connection = 1;
    hub_go(h, "slow 2 1h /slow down/");
    expect(deliver(h, "one.example"), OUTCOME_DEFERRED, 450, "4.2.1");
    for (int i = 0; i < 12; i++)
        give(h, "one.example");
    wait_for_all(h);
    for (int i = 0; i < 13; i++)
        expect(&h->told[i], OUTCOME_DEFERRED, 450, "4.2.1");
    assert_in_range(still(a)->open_max, 1, 2);
    hub_stop(h);
    server_stop(a);
}

static void test_rejudge(void **state) {
    (void)state;
    static const struct {
        struct script script;
        const char *rules;
        enum outcome outcome;
        unsigned code;
        const char *enhanced;
    } table[] = {
        {{.rcpt = "550 5.7.28 rate"}, "temporary status=7.28 /rate/", OUTCOME_DEFERRED, 550, "4.7.28"},
        {{.rcpt = "550 5.1.1 who"}, "temporary /who/", OUTCOME_DEFERRED, 550, "4.1.1"},
        {{.rcpt = "450 4.1.1 user unknown"}, "permanent stage=rcpt /unknown/", OUTCOME_FAILED, 450, "5.1.1"},
        {{.rcpt = "450 4.1.1 user unknown"}, "permanent stage=mail /unknown/", OUTCOME_DEFERRED, 450, "4.1.1"},
        {{.mail = "451 no status"}, "permanent /^451 no/", OUTCOME_FAILED, 451, "5.0.0"},
        {{.greeting = "421 go away for good"}, "permanent status=7.1 /for good/", OUTCOME_FAILED, 421, "5.7.1"},
        {{.greeting = "554 not today"}, "temporary /not today/", OUTCOME_DEFERRED, 554, "4.3.2"},
        {{.dot = "554 5.7.1 spam"}, "temporary domain=two.example /spam/", OUTCOME_FAILED, 554, "5.7.1"},
        {{.dot = "554 5.7.1 spam"}, "temporary site=.host.example /spam/", OUTCOME_DEFERRED, 554, "4.7.1"},
        {{.dot = "250 2.0.0 spam"}, "permanent /spam/", OUTCOME_DELIVERED, 250, "2.0.0"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uint16_t port = 0;
        struct server *a = server_start("127.0.0.2", &port, table[i].script);
        struct hub *h = hub_new(port);
        hub_go(h, table[i].rules);
        expect(deliver(h, "one.example"), table[i].outcome, table[i].code, table[i].enhanced);
        hub_stop(h);
        server_stop(a);
    }
}

/* -- rates -- */

static void test_site_rate(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct server *b = server_start("127.0.0.3", &port, (struct script){0});
    struct hub *h = hub_new(port);
    static const struct outbound_rate rates[] = {{.site = ".host.example", .messages = 2, .window_ms = HOUR_MS}};
    h->s.rates = rates;
    h->s.rate_count = 1;
    hub_go(h, NULL);
    DELIVERED(deliver(h, "one.example"));
    struct told *t = deliver(h, "two.example");
    RETURNED(t);
    assert_in_range(t->wait_ms, HOUR_MS / 2 - 10000, HOUR_MS / 2 + 10);
    assert_int_equal(t->pause_ms, 0);
    uint64_t before = t->wait_ms;
    t = deliver(h, "one.example"); /* the next one is told to come after it */
    assert_in_range(t->wait_ms, before + HOUR_MS / 2 - 10000, HOUR_MS + 10);
    DELIVERED(deliver(h, "other.example"));
    DELIVERED(deliver(h, "other.example"));
    assert_int_equal(still(a)->messages, 1);
    hub_stop(h);
    server_stop(a);
    server_stop(b);
}

static void test_domain_rate(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct hub *h = hub_new(port);
    static const struct outbound_rate rates[] = {{.domain = "two.example", .messages = 1, .window_ms = HOUR_MS},
                                                 {.domain = "*", .messages = 10, .window_ms = 5000, .recipients = 2}};
    h->s.rates = rates;
    h->s.rate_count = 2;
    hub_go(h, NULL);
    DELIVERED(deliver(h, "two.example"));
    RETURNED(deliver(h, "two.example"));
    for (int i = 0; i < 4; i++) /* of the same site; one each half second: they wait here */
        give(h, "one.example");
    wait_for_all(h);
    for (int i = 2; i < 6; i++)
        DELIVERED(&h->told[i]);
    uint32_t before = still(a)->transactions;
    run(h, 600);
    struct told *many = give_from(h, "sender@me.example", "one.example", 5);
    wait_for_all(h);
    DELIVERED(many);
    assert_int_equal(still(a)->transactions, before + 3);
    hub_stop(h);
    server_stop(a);
}

static void test_domain_connections(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 50});
    struct hub *h = hub_new(port);
    static const struct outbound_rate rates[] = {{.domain = "one.example", .connections = 1}};
    h->s.rates = rates;
    h->s.rate_count = 1;
    h->s.messages_per_connection = 1;
    hub_go(h, NULL);
    for (int i = 0; i < 8; i++)
        give(h, "one.example");
    wait_for_all(h);
    uint32_t delivered = 0;
    for (int i = 0; i < 8; i++) {
        delivered += h->told[i].outcome == OUTCOME_DELIVERED;
        assert_true(h->told[i].outcome == OUTCOME_DELIVERED || h->told[i].wait_ms > 0);
    }
    assert_true(delivered >= 2);
    assert_int_equal(still(a)->messages, delivered);
    hub_stop(h);
    server_stop(a);
}

/* Waits until the server has been connected to, and what came with that job has been read. */
static void wait_for_connection(struct hub *h, struct server *a) {
    while (still(a)->connections == 0)
        run(h, 20);
    run(h, 100);
}

/* A limit that comes by new settings while mail goes that knew of none: whoever waits for it is not forgotten. */
static void test_domain_connections_come_later(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 1000});
    struct server *b = server_start("127.0.0.3", &port, (struct script){0});
    struct hub *h = hub_new(port);
    const struct outbound_rate before[] = {{.domain = "one.example", .messages = 1000, .window_ms = 1000}},
                               after[] = {{.domain = "one.example", .connections = 1}};
    struct outbound_route route = {.domain = "one.example"};
    assert_int_equal(route_parse(&route.route, SPAN("smtp:127.0.0.3")), ERR_OK);
    h->s.timeouts.idle_ms = 60000;
    h->s.rates = before;
    h->s.rate_count = 1;
    hub_go(h, NULL);
    struct told *first = give(h, "one.example");
    wait_for_connection(h, a);
    h->s.rates = after;
    h->s.routes = &route; /* to another site */
    h->s.route_count = 1;
    assert_int_equal(outbound_reconfigure(h->out, &h->s), ERR_OK);
    run(h, 100);
    struct told *second = give(h, "one.example");
    wait_for_all(h);
    DELIVERED(first);
    DELIVERED(second);
    assert_int_equal(still(b)->messages, 1);
    hub_stop(h);
    server_stop(a);
    server_stop(b);
}

static void test_site_limits(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 50});
    struct hub *h = hub_new(port);
    static const struct outbound_rate rates[] = {{.site = "mx.host.example", .connections = 2, .per_connection = 3}};
    h->s.rates = rates;
    h->s.rate_count = 1;
    hub_go(h, NULL);
    for (int i = 0; i < 12; i++)
        give(h, i % 2 ? "one.example" : "two.example");
    wait_for_all(h);
    for (int i = 0; i < 12; i++)
        DELIVERED(&h->told[i]);
    assert_in_range(still(a)->open_max, 1, 2);
    assert_in_range(still(a)->connections, 4, 6);
    hub_stop(h);
    server_stop(a);
}

/* -- our addresses -- */

static void test_sources(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct hub *h = hub_new(port);
    static const char *const bulk[] = {"bulk.example"}, *const six[] = {"six.example"};
    const struct outbound_source one[] = {source("127.0.0.101", "s101.example")}, two[] = {source("127.0.0.102", NULL)},
                                 v6[] = {source("::1", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "bulk", .sources = one, .source_count = 1, .senders = bulk, .sender_count = 1},
        {.name = "six", .sources = v6, .source_count = 1, .senders = six, .sender_count = 1},
        {.name = "rest", .sources = two, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 3;
    hub_go(h, NULL);
    struct told *t = give_from(h, "x@bulk.example", "one.example", 1);
    wait_for_all(h);
    DELIVERED(t);
    assert_string_equal(t->site, "mx.host.example"); /* the scheduler knows of no pools */
    assert_int_equal(still(a)->from[101], 1);
    assert_non_null(strstr(a->commands, "EHLO s101.example\r\n"));
    DELIVERED(deliver(h, "two.example")); /* not on the warm connection of the other pool */
    assert_int_equal(still(a)->from[102], 1);
    assert_non_null(strstr(a->commands, "EHLO me.example\r\n"));
    t = give_from(h, "y@bulk.example", "two.example", 1);
    wait_for_all(h);
    DELIVERED(t);
    assert_int_equal(still(a)->connections, 2); /* its own warm one */
    t = give_from(h, "x@six.example", "one.example", 1);
    wait_for_all(h);
    expect(t, OUTCOME_DEFERRED, 0, "4.4.0");
    assert_int_equal(still(a)->connections, 2);
    hub_stop(h);
    server_stop(a);
}

/* All pools together keep to the limit of the site, and none is shut out by idle connections of another. */
static void test_pools_share_the_limit(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 30});
    struct hub *h = hub_new(port);
    static const char *const bulk[] = {"bulk.example"};
    const struct outbound_source one[] = {source("127.0.0.101", NULL)}, two[] = {source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "bulk", .sources = one, .source_count = 1, .senders = bulk, .sender_count = 1},
        {.name = "rest", .sources = two, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 2;
    h->s.per_site = 2;
    h->s.timeouts.idle_ms = 60000;
    hub_go(h, NULL);
    for (int i = 0; i < 16; i++)
        give_from(h, i % 2 ? "x@bulk.example" : "x@me.example", "one.example", 1);
    wait_for_all(h);
    for (int i = 0; i < 16; i++)
        DELIVERED(&h->told[i]);
    assert_in_range(still(a)->open_max, 1, 3); /* one may still be saying goodbye */
    assert_true(a->from[101] > 0 && a->from[102] > 0);
    hub_stop(h);
    server_stop(a);
}

/* Domains with a demand for TLS of their own have connections of their own, inside the limit of the site. */
static void test_demands_share_the_limit(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 30});
    struct hub *h = hub_new(port);
    static const struct outbound_tls_rule rules[] = {{.domain = "two.example", .level = TLS_LEVEL_NONE}};
    h->s.tls.rules = rules;
    h->s.tls.rule_count = 1;
    h->s.per_site = 2;
    for (uint32_t worn = 0; worn < 2; worn++) { /* the connections rest, or end */
        h->s.messages_per_connection = worn ? 1 : 100;
        h->s.timeouts.idle_ms = 60000;
        if (worn == 0)
            hub_go(h, NULL);
        else
            assert_int_equal(outbound_reconfigure(h->out, &h->s), ERR_OK);
        struct told *plain = NULL, *other = NULL;
        for (int i = 0; i < 12; i++) {
            plain = i % 2 ? plain : give(h, "one.example");
            other = i % 2 ? give(h, "two.example") : other;
        }
        wait_for_all(h);
        assert_string_not_equal(plain->site, other->site);
    }
    for (int i = 0; i < 24; i++)
        DELIVERED(&h->told[i]);
    assert_in_range(still(a)->open_max, 1, 3); /* one may still be saying goodbye */
    hub_stop(h);
    server_stop(a);
}

/* Our name is that of the settings that hold the source, which the connection keeps alive: not of newer ones. */
static void test_name_of_older_settings(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 1000});
    struct hub *h = hub_new(port);
    const struct outbound_source one[] = {source("127.0.0.101", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = one, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 1;
    h->s.per_site = 1;
    h->s.messages_per_connection = 1;
    hub_go(h, NULL);
    give(h, "one.example");
    give(h, "one.example");
    wait_for_connection(h, a);
    h->s.hostname = "newer.example";
    assert_int_equal(outbound_reconfigure(h->out, &h->s), ERR_OK);
    wait_for_all(h);
    assert_int_equal(still(a)->connections, 2);
    assert_null(strstr(a->commands, "newer.example"));
    DELIVERED(deliver(h, "one.example"));
    still(a);
    assert_non_null(strstr(a->commands, "newer.example"));
    hub_stop(h);
    server_stop(a);
}

/* The only connection that the site may have belongs to one pool: the other one's turn comes all the same. */
static void test_pools_take_turns(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.ehlo_ms = 30});
    struct hub *h = hub_new(port);
    static const char *const bulk[] = {"bulk.example"};
    const struct outbound_source one[] = {source("127.0.0.101", NULL)}, two[] = {source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "bulk", .sources = one, .source_count = 1, .senders = bulk, .sender_count = 1},
        {.name = "rest", .sources = two, .source_count = 1}};
    h->s.pools = pools;
    h->s.pool_count = 2;
    h->s.per_site = 1;
    for (uint32_t worn = 0; worn < 2; worn++) { /* the connection rests, or ends */
        h->s.messages_per_connection = worn ? 1 : 100;
        h->s.timeouts.idle_ms = 60000;
        if (worn == 0)
            hub_go(h, NULL);
        else
            assert_int_equal(outbound_reconfigure(h->out, &h->s), ERR_OK);
        for (int i = 0; i < 6; i++)
            give_from(h, i % 2 ? "x@bulk.example" : "x@me.example", "one.example", 1);
        wait_for_all(h);
    }
    for (int i = 0; i < 12; i++)
        DELIVERED(&h->told[i]);
    hub_stop(h);
    server_stop(a);
}

static void test_other_source(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.refuse_from = 101});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    hub_use(h, pools, 1);
    hub_go(h, "suspend 1h /^421 4\\.7\\.0 try again later/");
    for (int i = 0; i < 20; i++)
        DELIVERED(deliver(h, "one.example"));
    assert_int_equal(still(a)->from[101], 1); /* it was refused once, and rests */
    assert_int_equal(a->from[102], 20);
    hub_stop(h);
    server_stop(a);
}

static void test_all_sources_rest(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){.greeting = "421 4.7.0 try again later"});
    struct hub *h = hub_new(port);
    const struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {{.name = "all", .sources = at, .source_count = 2}};
    h->s.pools = pools;
    h->s.pool_count = 1;
    hub_go(h, "suspend 1h /try again later/");
    expect(deliver(h, "one.example"), OUTCOME_DEFERRED, 421, "4.7.0");
    assert_true(still(a)->from[101] == 1 && a->from[102] == 1);
    struct told *t = deliver(h, "two.example");
    RETURNED(t);
    assert_int_equal(t->pause_ms, 0); /* another pool might do */
    assert_in_range(t->wait_ms, HOUR_MS - 10000, HOUR_MS + HOUR_MS / 4);
    assert_int_equal(still(a)->connections, 2);
    hub_stop(h);
    server_stop(a);
}

static void test_warm_up(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct hub *h = hub_new(port);
    struct outbound_source at[] = {source("127.0.0.101", NULL), source("127.0.0.102", NULL)};
    static const char *const young[] = {"young.example"};
    at[0].warm_first = 3;
    at[0].warm_growth = 100;
    at[0].warm_day = (uint32_t)(clock_wall_ms() / 86400000);
    const struct outbound_pool pools[] = {
        {.name = "young", .sources = at, .source_count = 1, .senders = young, .sender_count = 1},
        {.name = "all", .sources = at, .source_count = 2}};
    h->s.pools = pools;
    h->s.pool_count = 2;
    hub_go(h, NULL);
    for (int i = 0; i < 3; i++) {
        struct told *t = give_from(h, "x@young.example", "one.example", 1);
        wait_for_all(h);
        DELIVERED(t);
    }
    struct told *t = give_from(h, "x@young.example", "one.example", 1);
    wait_for_all(h);
    RETURNED(t);
    assert_in_range(t->wait_ms, 1, HOUR_MS * 5 / 4);
    for (int i = 0; i < 5; i++) /* others of the pool take the rest */
        DELIVERED(deliver(h, "two.example"));
    assert_int_equal(still(a)->from[101], 1);
    hub_stop(h);
    server_stop(a);
}

/* An address that is not this host's is passed over; alone, it lets mail wait. */
static void test_away(void **state) {
    (void)state;
    uint16_t port = 0;
    struct server *a = server_start("127.0.0.2", &port, (struct script){0});
    struct hub *h = hub_new(port);
    static const char *const lost[] = {"lost.example"};
    const struct outbound_source at[] = {source("192.0.2.77", NULL), source("127.0.0.102", NULL)};
    const struct outbound_pool pools[] = {
        {.name = "lost", .sources = at, .source_count = 1, .senders = lost, .sender_count = 1},
        {.name = "all", .sources = at, .source_count = 2}};
    h->s.pools = pools;
    h->s.pool_count = 2;
    h->s.messages_per_connection = 1;
    hub_go(h, NULL);
    for (int i = 0; i < 8; i++)
        DELIVERED(deliver(h, "one.example"));
    assert_int_equal(still(a)->from[102], 8);
    struct told *t = give_from(h, "x@lost.example", "one.example", 1);
    wait_for_all(h);
    RETURNED(t);
    assert_in_range(t->wait_ms, 60000, 75000);
    hub_stop(h);
    server_stop(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_pause_hands_back),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_rejudge),
        cmocka_unit_test(test_site_rate),
        cmocka_unit_test(test_domain_rate),
        cmocka_unit_test(test_domain_connections),
        cmocka_unit_test(test_domain_connections_come_later),
        cmocka_unit_test(test_site_limits),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_pools_share_the_limit),
        cmocka_unit_test(test_demands_share_the_limit),
        cmocka_unit_test(test_name_of_older_settings),
        cmocka_unit_test(test_pools_take_turns),
        cmocka_unit_test(test_other_source),
        cmocka_unit_test(test_all_sources_rest),
        cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
