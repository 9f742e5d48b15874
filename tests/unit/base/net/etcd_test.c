/* etcd: against a member that plays by a script (tests/support/etcd_script.py): broken, slow and lost answers, faults,
 * tokens that end, streams that break anywhere, members that fail while others work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/net/etcd.h"
#include "tests/support/child.h"

#define SCRIPT SOURCE_DIR "/tests/support/etcd_script.py"

static struct child plain, locked, leaderless, silent, foreign;

struct seen_event {
    char key[40], value[40];
    uint64_t revision;
    bool deleted;
};
struct world {
    struct loop *loop;
    struct loop_timer *guard, *pause;
    struct etcd *etcd;
    char urls[4][64];
    unsigned wanted, answered;
    bool timed_out, close_inside, again_inside;
    /* the last answer */
    int err;
    char why[400], key[100], value[100];
    bool in_doubt, succeeded;
    uint64_t revision;
    size_t count, octets;
    /* of leases */
    unsigned granted, lost;
    struct etcd_lease *lease;
    uint64_t left;
    /* of watches */
    struct etcd_watch *watch;
    struct seen_event events[40];
    size_t events_count;
    int watch_err;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static void on_pause(void *arg) {
    struct world *w = arg;
    loop_stop(w->loop);
}

static struct world world;

static void on_lease(void *arg, enum etcd_lease_event event, const char *why) {
    struct world *w = arg;
    if (event == ETCD_LEASE_GRANTED) {
        w->granted++;
        w->left = etcd_lease_left_ms(w->lease);
        assert_string_equal(why, "");
    } else {
        w->lost++;
        assert_true(why[0]);
        assert_int_equal(etcd_lease_left_ms(w->lease), 0);
        assert_int_equal(etcd_lease_id(w->lease), 0);
        if (w->close_inside) {
            etcd_lease_close(w->lease);
            w->lease = NULL;
        }
    }
}

static void start_as(const struct child *const *members, const char *user, const char *password, uint64_t timeout_ms) {
    struct world *w = &world;
    const char *endpoints[4];
    struct etcd_config c = {.endpoints = endpoints, .user = user, .password = password, .timeout_ms = timeout_ms};
    *w = (struct world){0};
    for (; members[c.endpoints_count]; c.endpoints_count++) {
        unsigned port = members[c.endpoints_count]->port;
        snprintf(w->urls[c.endpoints_count], sizeof *w->urls, "http://127.0.0.1:%u", port);
        endpoints[c.endpoints_count] = w->urls[c.endpoints_count];
    }
    c.probe_ms = 300;
    w->loop = loop_new();
    w->guard = loop_timer_new(w->loop, on_guard, w);
    w->pause = loop_timer_new(w->loop, on_pause, w);
    loop_timer_set(w->guard, 60000);
    assert_int_equal(etcd_open(&w->etcd, w->loop, &c, NULL), ERR_OK);
}

static void start(const struct child *member, uint64_t timeout_ms) {
    start_as((const struct child *[]){member, NULL}, NULL, NULL, timeout_ms);
}

static void stop(void) {
    etcd_close(world.etcd);
    loop_timer_close(world.guard);
    loop_timer_close(world.pause);
    loop_free(world.loop);
}

static void on_answer(void *arg, const struct etcd_answer *a) {
    struct world *w = arg;
    w->err = a->err;
    snprintf(w->why, sizeof w->why, "%s", a->why);
    w->in_doubt = a->in_doubt;
    w->succeeded = a->succeeded;
    w->revision = a->revision;
    w->count = a->count;
    w->octets = 0;
    w->key[0] = w->value[0] = 0;
    for (size_t i = 0; i < a->count; i++) {
        w->octets += a->kvs[i].value.len;
        span_copy(a->kvs[i].key, w->key, sizeof w->key);
        span_copy(a->kvs[i].value, w->value, sizeof w->value);
    }
    assert_true((a->err != 0) == (a->why[0] != 0));
    w->answered++;
    if (w->close_inside) {
        etcd_close(w->etcd);
        w->etcd = NULL;
    }
    if (w->again_inside) {
        w->again_inside = false;
        w->wanted++;
        assert_non_null(etcd_get(w->etcd, SPAN("again"), on_answer, w));
    }
    if (w->answered >= w->wanted)
        loop_stop(w->loop);
}

static void run(void) {
    assert_int_equal(world.answered, 0);
    loop_run(world.loop);
    assert_false(world.timed_out);
    assert_int_equal(world.answered, world.wanted);
}

static void get(const char *key) {
    world.answered = 0;
    world.wanted = 1;
    assert_non_null(etcd_get(world.etcd, span_of(key), on_answer, &world));
    run();
}

static void get_prefix(const char *prefix) {
    world.answered = 0;
    world.wanted = 1;
    assert_non_null(etcd_get_prefix(world.etcd, span_of(prefix), on_answer, &world));
    run();
}

static void put(const char *key) {
    const struct etcd_op op = {.verb = ETCD_PUT, .key = span_of(key), .value = SPAN("v")};
    world.answered = 0;
    world.wanted = 1;
    assert_non_null(etcd_txn(world.etcd, &(struct etcd_txn){.then = &op, .then_count = 1}, on_answer, &world));
    run();
}

/* How often the script was asked for it. */
static unsigned long seen(const char *what) {
    char key[100];
    snprintf(key, sizeof key, "seen/%s", what);
    get(key);
    assert_int_equal(world.err, ERR_OK);
    return strtoul(world.value, NULL, 10);
}

/* Runs until *count reaches the number. */
static void run_until(const unsigned *count, unsigned number) {
    for (int i = 0; i < 600 && *count < number; i++) {
        loop_timer_set(world.pause, 50);
        loop_run(world.loop);
    }
    assert_false(world.timed_out);
    assert_true(*count >= number);
}

/* -- settings -- */

static int open_with(struct etcd_config c, struct buf *problems) {
    struct etcd *e;
    struct loop *l = loop_new();
    buf_clear(problems);
    int err = etcd_open(&e, l, &c, problems);
    etcd_close(e);
    loop_free(l);
    return err;
}

static void test_settings(void **state) {
    (void)state;
    struct buf problems;
    static const char *many[ETCD_ENDPOINTS_MAX + 1];
    static const char *const bad[] = {
        "", "127.0.0.1:2379", "ftp://a", "http://", "http://a/path", "http://u:p@a", "http://a?x", "http://a#x"};
    const char *const good[] = {"http://127.0.0.1:1/", "http://localhost:2"}, *const mixed[] = {"http://a",
                                                                                                "https://b"};
    buf_init(&problems, 4096);
    assert_int_equal(open_with((struct etcd_config){.endpoints = good, .endpoints_count = 2, .first = 7}, &problems),
                     ERR_OK);
    assert_int_equal(buf_len(&problems), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(open_with((struct etcd_config){.endpoints = &bad[i], .endpoints_count = 1}, &problems),
                         ERR_INVALID);
        assert_non_null(strstr(buf_cstr(&problems), "no endpoint of the kind"));
    }
    for (size_t i = 0; i < ETCD_ENDPOINTS_MAX + 1; i++)
        many[i] = "http://a";
    const struct etcd_config cases[] = {
        {0},
        {.endpoints = many, .endpoints_count = ETCD_ENDPOINTS_MAX + 1},
        {.endpoints = mixed, .endpoints_count = 2},
        {.endpoints = good, .endpoints_count = 1, .ca_file = "ca.pem"},
        {.endpoints = mixed + 1, .endpoints_count = 1, .certificate = "c.pem"},
        {.endpoints = good, .endpoints_count = 1, .user = "u"},
        {.endpoints = good, .endpoints_count = 1, .user = "", .password = "x"},
        {.endpoints = good, .endpoints_count = 1, .timeout_ms = 1},
        {.endpoints = good, .endpoints_count = 1, .probe_ms = 1000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(open_with(cases[i], &problems), ERR_INVALID);
        assert_true(buf_len(&problems) > 0);
    }
    buf_deinit(&problems);
}

/* -- answers -- */

static void test_good_answers(void **state) {
    (void)state;
    start(&plain, 5000);
    get("k/1");
    assert_int_equal(world.err, ERR_OK);
    assert_true(world.count == 1 && world.revision == 100);
    assert_string_equal(world.value, "value");
    put("k/1");
    assert_true(world.err == ERR_OK && world.succeeded && !world.in_doubt && world.count == 1);
    assert_string_equal(world.key, "read");
    assert_true(etcd_is_up(world.etcd));
    assert_string_equal(etcd_trouble(world.etcd), "");
    assert_string_equal(etcd_endpoint(world.etcd), world.urls[0]);
    world.again_inside = true;
    get("k/2");
    assert_int_equal(world.answered, 2);
    assert_string_equal(world.key, "again");
    stop();
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int err;
    } cases[] = {{"denied", ERR_DENIED}, {"nospace", ERR_NO_SPACE}, {"nolease", ERR_NOT_FOUND}, {"line", ERR_INVALID}};
    start(&plain, 5000);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(cases[i].key);
        assert_int_equal(world.err, cases[i].err);
        assert_false(world.in_doubt);
        assert_null(strpbrk(world.why, "\r\n\x1b"));
        assert_int_equal(seen(cases[i].key), 1); /* asking again would not help */
        assert_true(etcd_is_up(world.etcd));
    }
    stop();
}

struct broken {
    const char *key;
    int err;
    bool undone;     /* the answer says that nothing was done */
    bool range_only; /* an answer to a transaction has this elsewhere */
    int heard;
    bool in_doubt;
};

static void on_broken(void *arg, const struct etcd_answer *a) {
    struct broken *b = arg;
    b->heard = a->err;
    b->in_doubt = a->in_doubt;
    if (++world.answered >= world.wanted)
        loop_stop(world.loop);
}

/* What is broken is asked for again within its time, then told; a transaction is not asked again, and in doubt. */
static void test_broken_answers(void **state) {
    (void)state;
    static struct broken cases[] = {
        {.key = "notjson", .err = ERR_CORRUPT},
        {.key = "nothing", .err = ERR_CORRUPT},
        {.key = "list", .err = ERR_CORRUPT},
        {.key = "text", .err = ERR_CORRUPT},
        {.key = "kvsobject", .err = ERR_CORRUPT, .range_only = true},
        {.key = "badbase64", .err = ERR_CORRUPT, .range_only = true},
        {.key = "nokey", .err = ERR_CORRUPT, .range_only = true},
        {.key = "nomod", .err = ERR_CORRUPT, .range_only = true},
        {.key = "negative", .err = ERR_CORRUPT},
        {.key = "norevision", .err = ERR_CORRUPT},
        {.key = "toolarge", .err = ERR_CORRUPT},
        {.key = "headerlist", .err = ERR_CORRUPT},
        {.key = "twice", .err = ERR_CORRUPT},
        {.key = "deep", .err = ERR_CORRUPT},
        {.key = "page503", .err = ERR_IO},
        {.key = "cut", .err = ERR_IO},
        {.key = "garbage", .err = ERR_IO},
        {.key = "hangup", .err = ERR_IO},
        {.key = "noleader", .err = ERR_UNREACHABLE, .undone = true},
        {.key = "timedout", .err = ERR_TIMEOUT},
        {.key = "stranger", .err = ERR_IO},
        {.key = "busy", .err = ERR_AGAIN, .undone = true},
    };
    const size_t count = sizeof cases / sizeof *cases;
    for (unsigned txn = 0; txn < 2; txn++) {
        char keys[sizeof cases / sizeof *cases][40];
        start(&plain, 3000);
        world.wanted = 0;
        for (size_t i = 0; i < count; i++) {
            snprintf(keys[i], sizeof *keys, "%s/%u", cases[i].key, txn);
            const struct etcd_op op = {.verb = ETCD_PUT, .key = span_of(keys[i])};
            const struct etcd_txn t = {.then = &op, .then_count = 1};
            world.wanted += !txn || !cases[i].range_only;
            if (!txn)
                assert_non_null(etcd_get(world.etcd, op.key, on_broken, &cases[i]));
            else if (!cases[i].range_only)
                assert_non_null(etcd_txn(world.etcd, &t, on_broken, &cases[i]));
        }
        run();
        for (size_t i = 0; i < count; i++) {
            bool again = !txn || cases[i].undone;
            if (txn && cases[i].range_only)
                continue;
            if (cases[i].heard != cases[i].err)
                print_error("%s\n", keys[i]);
            assert_int_equal(cases[i].heard, cases[i].err);
            assert_int_equal(cases[i].in_doubt, !again);
            assert_int_equal(seen(keys[i]) > 1, again);
        }
        stop();
    }
}

static void test_one_try_answers(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int err;
    } cases[] = {{"values", ERR_FULL}, {"huge", ERR_FULL}, {"otherkey", ERR_CORRUPT}};
    start(&plain, 20000);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        get(cases[i].key);
        assert_int_equal(world.err, cases[i].err);
        assert_int_equal(seen(cases[i].key), 1);
    }
    put("huge/txn");
    assert_int_equal(world.err, ERR_FULL);
    assert_true(world.in_doubt);
    stop();
    start(&plain, 1000);
    get_prefix("unordered");
    assert_int_equal(world.err, ERR_CORRUPT);
    get_prefix("endless");
    assert_int_equal(world.err, ERR_CORRUPT);
    get("slow");
    assert_int_equal(world.err, ERR_TIMEOUT);
    put("slow/txn");
    assert_int_equal(world.err, ERR_TIMEOUT);
    assert_true(world.in_doubt);
    assert_int_equal(seen("slow/txn"), 1);
    stop();
}

static void test_flaky(void **state) {
    (void)state;
    start(&plain, 5000);
    get("flaky/get");
    assert_int_equal(world.err, ERR_OK);
    put("flaky/txn"); /* "no leader" says that nothing was done */
    assert_int_equal(world.err, ERR_OK);
    assert_int_equal(seen("flaky/txn"), 3);
    stop();
}

/* A transaction that met a kept connection's end is not sent again by the HTTP library either; a get is. */
static void test_kept_connection_ends(void **state) {
    (void)state;
    start(&plain, 5000);
    get("warm");
    put("hangup/kept");
    assert_true(world.err == ERR_IO && world.in_doubt);
    assert_int_equal(seen("hangup/kept"), 1);
    stop();
}

static void test_prefixes(void **state) {
    (void)state;
    start(&plain, 20000);
    get_prefix("paged/plain");
    assert_int_equal(world.err, ERR_OK);
    assert_int_equal(world.count, 2500);
    assert_string_equal(world.key, "paged/plain/02499");
    get_prefix("paged/large"); /* fewer keys at a time */
    assert_int_equal(world.err, ERR_OK);
    assert_int_equal(world.count, 40);
    get_prefix("paged/back"); /* a page that begins anew would never end */
    assert_int_equal(world.err, ERR_CORRUPT);
    get_prefix("paged/heavy"); /* 9,000 octets each, without an end */
    assert_int_equal(world.err, ERR_FULL);
    stop();
    struct child own;
    assert_true(child_start(&own, (const char *const[]){"python3", SCRIPT, NULL}));
    start(&own, 20000);
    get_prefix("paged/compacted"); /* under way, then it begins anew */
    assert_int_equal(world.err, ERR_OK);
    assert_int_equal(world.count, 2500);
    stop();
    child_end(&own);
}

static void test_bounds(void **state) {
    (void)state;
    static char key[ETCD_KEY_MAX + 1];
    struct etcd_call *calls[ETCD_CALLS_MAX];
    start(&plain, 20000);
    assert_null(etcd_get(world.etcd, SPAN_EMPTY, on_answer, &world));
    assert_null(etcd_get(world.etcd, span_make(key, sizeof key), on_answer, &world));
    assert_null(etcd_get_prefix(world.etcd, SPAN_EMPTY, on_answer, &world));
    assert_null(etcd_watch_open(world.etcd, SPAN("k/"), 0, NULL, NULL));
    assert_null(etcd_watch_open(world.etcd, SPAN_EMPTY, 1, NULL, NULL));
    assert_null(etcd_lease_open(world.etcd, ETCD_TTL_MIN_S - 1, NULL, NULL));
    assert_null(etcd_lease_open(world.etcd, ETCD_TTL_MAX_S + 1, NULL, NULL));
    for (size_t i = 0; i < ETCD_CALLS_MAX; i++)
        assert_non_null(calls[i] = etcd_get(world.etcd, SPAN("k/1"), on_answer, &world));
    assert_null(etcd_get(world.etcd, SPAN("k/1"), on_answer, &world));
    for (size_t i = 0; i < 500; i++)
        etcd_cancel(calls[i]);
    world.wanted = ETCD_CALLS_MAX - 500;
    run();
    assert_int_equal(world.err, ERR_OK);
    stop();
}

static void test_close_inside(void **state) {
    (void)state;
    start(&plain, 5000);
    assert_non_null(etcd_get(world.etcd, SPAN("slow/a"), on_answer, &world));
    world.lease = etcd_lease_open(world.etcd, 5, on_lease, &world);
    assert_non_null(world.lease);
    assert_non_null(etcd_watch_open(world.etcd, SPAN("w/quiet/"), 1, NULL, NULL));
    world.close_inside = true;
    get("k/1");
    assert_null(world.etcd);
    stop();
    start(&plain, 200); /* on a failure, too */
    world.close_inside = true;
    get("slow/b");
    assert_int_equal(world.err, ERR_TIMEOUT);
    stop();
}

/* -- endpoints -- */

static void test_endpoints(void **state) {
    (void)state;
    struct child dead = {.port = 1};
    start_as((const struct child *[]){&dead, &leaderless, &plain, NULL}, NULL, NULL, 5000);
    put("k/1"); /* nothing was done at the first two, so nothing is in doubt */
    assert_int_equal(world.err, ERR_OK);
    assert_string_equal(etcd_endpoint(world.etcd), world.urls[2]);
    assert_true(etcd_is_up(world.etcd));
    stop();
    start_as((const struct child *[]){&silent, &plain, NULL}, NULL, NULL, 3000);
    get("k/1"); /* it leaves the one that does not answer within its time */
    assert_int_equal(world.err, ERR_OK);
    assert_string_equal(etcd_endpoint(world.etcd), world.urls[1]);
    stop();
    start_as((const struct child *[]){&dead, &leaderless, NULL}, NULL, NULL, 1500);
    get("k/1");
    assert_int_equal(world.err, ERR_UNREACHABLE);
    assert_false(etcd_is_up(world.etcd));
    assert_true(etcd_trouble(world.etcd)[0]);
    stop();
}

static void test_another_cluster(void **state) {
    (void)state;
    start_as((const struct child *[]){&plain, &foreign, NULL}, NULL, NULL, 5000);
    get("k/1");
    get("flaky/cluster"); /* leads to the other one and back */
    assert_int_equal(world.err, ERR_OK);
    assert_string_equal(etcd_endpoint(world.etcd), world.urls[0]);
    stop();
}

/* -- logins -- */

static void test_tokens(void **state) {
    (void)state;
    start_as((const struct child *[]){&locked, NULL}, "joe", "pw", 5000);
    for (int i = 0; i < 20; i++) { /* each token is good for three */
        put("k/1");
        assert_int_equal(world.err, ERR_OK);
    }
    world.answered = 0;
    world.wanted = 30;
    for (unsigned i = 0; i < world.wanted / 10; i++) /* together they fit one token */
        assert_non_null(etcd_get(world.etcd, SPAN("k/1"), on_answer, &world));
    world.wanted = 3;
    run();
    assert_int_equal(world.err, ERR_OK);
    stop();
    start_as((const struct child *[]){&plain, NULL}, "joe", "pw", 5000); /* it asks for none */
    get("k/1");
    assert_int_equal(world.err, ERR_OK);
    stop();
}

static void test_no_token(void **state) {
    (void)state;
    start_as((const struct child *[]){&locked, NULL}, "joe", "wrong", 5000);
    put("k/1");
    assert_int_equal(world.err, ERR_DENIED);
    assert_false(world.in_doubt);
    get("k/1"); /* a second later, it is tried again */
    assert_int_equal(world.err, ERR_DENIED);
    stop();
    start_as((const struct child *[]){&locked, NULL}, "evil", "pw", 500); /* a token with a line break */
    get("k/1");
    assert_int_equal(world.err, ERR_TIMEOUT);
    stop();
    start(&locked, 5000);
    get("k/1");
    assert_int_equal(world.err, ERR_DENIED);
    stop();
}

/* -- leases -- */

static void lease(uint32_t ttl_s) {
    world.granted = world.lost = 0;
    world.lease = etcd_lease_open(world.etcd, ttl_s, on_lease, &world);
    assert_non_null(world.lease);
    assert_int_equal(etcd_lease_left_ms(world.lease), 0);
    run_until(&world.granted, 1);
}

static void test_leases(void **state) {
    (void)state;
    start(&plain, 5000);
    lease(8);
    uint64_t begun = clock_boot_ms();
    assert_true(etcd_lease_id(world.lease) == 1008 && world.left <= 7200);
    while (clock_boot_ms() < begun + 9000) { /* longer than its time */
        loop_timer_set(world.pause, 100);
        loop_run(world.loop);
    }
    assert_int_equal(world.lost, 0);
    assert_true(etcd_lease_left_ms(world.lease) > 0);
    world.answered = 0;
    world.wanted = 1;
    assert_int_equal(etcd_lease_revoke(world.lease, on_answer, &world), ERR_OK);
    run(); /* etcd had forgotten it */
    assert_int_equal(world.err, ERR_OK);
    lease(6); /* the time counts from the sending, and the answer took a second */
    assert_true(world.left <= 4400);
    etcd_lease_close(world.lease);
    lease(7); /* broken answers at first */
    assert_int_equal(seen("grant7"), 3);
    etcd_lease_close(world.lease);
    stop();
}

static void test_leases_lost(void **state) {
    (void)state;
    start(&plain, 5000);
    lease(3); /* at the first question etcd does not know it */
    run_until(&world.lost, 1);
    etcd_lease_close(world.lease);
    lease(4); /* the answers are garbage: it ends with its time */
    world.close_inside = true;
    run_until(&world.lost, 1);
    world.close_inside = false;
    assert_true(seen("keepalive4") > 1);
    lease(5); /* the answers are about another lease */
    run_until(&world.lost, 1);
    etcd_lease_close(world.lease);
    stop();
}

/* The loop stands still as a stopped process does: the look knows before any event was handled. */
static void test_lease_after_a_stop(void **state) {
    (void)state;
    start(&plain, 5000);
    lease(2);
    assert_true(etcd_lease_left_ms(world.lease) > 0);
    sleep(2);
    assert_int_equal(etcd_lease_left_ms(world.lease), 0);
    assert_int_equal(etcd_lease_id(world.lease), 0);
    assert_int_equal(world.lost, 0);
    run_until(&world.lost, 1);
    etcd_lease_close(world.lease);
    stop();
}

/* -- watches -- */

static void on_news(void *arg, const struct etcd_news *n) {
    struct world *w = arg;
    assert_true((n->err != 0) == (n->why[0] != 0));
    w->watch_err = n->err;
    for (size_t i = 0; i < n->count; i++) {
        struct seen_event *e = &w->events[w->events_count++];
        assert_true(w->events_count < 40);
        span_copy(n->events[i].kv.key, e->key, sizeof e->key);
        span_copy(n->events[i].kv.value, e->value, sizeof e->value);
        e->revision = n->events[i].kv.mod_revision;
        e->deleted = n->events[i].deleted;
        assert_true(e->revision <= n->revision + 1);
    }
    w->answered++;
    if (w->close_inside) {
        etcd_watch_close(w->watch);
        w->watch = NULL;
    }
    if (n->err || w->events_count >= w->wanted || w->close_inside)
        loop_stop(w->loop);
}

/* Runs until so many events came, or an err. */
static void watch(const char *prefix, uint64_t revision, unsigned events) {
    world.events_count = 0;
    world.watch_err = ERR_OK;
    world.wanted = events;
    world.answered = 0;
    world.watch = etcd_watch_open(world.etcd, span_of(prefix), revision, on_news, &world);
    assert_non_null(world.watch);
    assert_int_equal(world.answered, 0);
    loop_run(world.loop);
    assert_false(world.timed_out);
}

static void test_watches(void **state) {
    (void)state;
    start(&plain, 5000);
    watch("w/plain/", 7, 1);
    assert_string_equal(world.events[0].key, "w/plain/x");
    assert_string_equal(world.events[0].value, "from 7");
    assert_true(etcd_watch_is_live(world.watch));
    etcd_watch_close(world.watch);
    watch("w/dribble/", 7, 1); /* octet by octet */
    assert_string_equal(world.events[0].value, "slowly");
    etcd_watch_close(world.watch);
    watch("w/resume/", 1, 9); /* each stream breaks within a line */
    for (size_t i = 0; i < 9; i++)
        assert_true(world.events[i].revision == i + 1 && world.events[i].deleted == ((i + 1) % 2 == 1));
    etcd_watch_close(world.watch);
    watch("w/old/", 4, 3); /* what was before, and what was told, again */
    loop_timer_set(world.pause, 200);
    loop_run(world.loop);
    assert_int_equal(world.events_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(world.events[i].revision, 4 + i);
    etcd_watch_close(world.watch);
    stop();
}

/* The events of one revision come in pieces, over three streams. */
static void test_fragments(void **state) {
    (void)state;
    static const char *const keys[] = {"4", "50", "51", "52", "53", "6"};
    start(&plain, 5000);
    watch("w/fragment/", 3, 6);
    assert_int_equal(world.events_count, 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(world.events[i].key + strlen("w/fragment/"), keys[i]);
    etcd_watch_close(world.watch);
    stop();
}

static void test_progress(void **state) {
    (void)state;
    start(&plain, 5000);
    watch("w/progress/", 3, 1); /* nothing happened up to 50: the next stream begins behind it */
    assert_string_equal(world.events[0].value, "from 51");
    etcd_watch_close(world.watch);
    stop();
}

static void test_watches_end(void **state) {
    (void)state;
    start(&plain, 5000);
    watch("w/compacted/", 7, 1);
    assert_int_equal(world.watch_err, ERR_RANGE);
    assert_int_equal(world.events_count, 0);
    assert_false(etcd_watch_is_live(world.watch));
    etcd_watch_close(world.watch);
    world.close_inside = true; /* in its last words */
    watch("w/refused/", 7, 1);
    assert_int_equal(world.watch_err, ERR_DENIED);
    assert_null(world.watch);
    watch("w/plain/", 7, 1); /* in its first */
    assert_null(world.watch);
    stop();
}

/* The owner heard of a later revision than the store has: it was restored from a copy. */
static void test_store_went_back(void **state) {
    (void)state;
    start(&plain, 5000);
    struct etcd_watch *patient = etcd_watch_open(world.etcd, SPAN("w/quiet/"), 101, on_news, &world);
    assert_non_null(patient); /* just the next one: nothing is wrong */
    watch("w/quiet/", 102, 1);
    assert_int_equal(world.watch_err, ERR_RANGE);
    etcd_watch_close(world.watch);
    loop_timer_set(world.pause, 700);
    loop_run(world.loop);
    assert_true(etcd_watch_is_live(patient));
    etcd_watch_close(patient);
    stop();
}

/* Whatever a stream says that is not as agreed, another begins, and nothing was lost. */
static void test_broken_streams(void **state) {
    (void)state;
    start_as((const struct child *[]){&plain, &plain, NULL}, NULL, NULL, 5000);
    for (char n = '0'; n < '3'; n++) { /* four broken streams each */
        char prefix[] = "w/broken/n/";
        prefix[9] = n;
        watch(prefix, 7, 1);
        assert_int_equal(world.events_count, 1);
        assert_string_equal(world.events[0].value, "from 7");
        etcd_watch_close(world.watch);
        assert_int_equal(seen(prefix), 5);
    }
    watch("w/status/", 7, 1);
    assert_string_equal(world.events[0].value, "from 7");
    etcd_watch_close(world.watch);
    stop();
    start(&plain, 300);
    watch("w/never/", 7, 1); /* it does not begin in time */
    assert_string_equal(world.events[0].value, "from 7");
    etcd_watch_close(world.watch);
    stop();
}

/* The member freezes under a watch: the look finds out, and the watch moves. */
static void test_frozen_member(void **state) {
    (void)state;
    struct child own;
    assert_true(child_start(&own, (const char *const[]){"python3", SCRIPT, NULL}));
    start_as((const struct child *[]){&own, &plain, NULL}, NULL, NULL, 600);
    watch("w/plain/", 7, 1);
    assert_string_equal(etcd_endpoint(world.etcd), world.urls[0]);
    kill(own.pid, SIGSTOP);
    world.wanted = 2;
    loop_run(world.loop);
    assert_false(world.timed_out);
    assert_string_equal(world.events[1].value, "from 8");
    assert_string_equal(etcd_endpoint(world.etcd), world.urls[1]);
    kill(own.pid, SIGCONT);
    child_end(&own);
    stop();
}

static int setup(void **state) {
    (void)state;
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT); /* members fail all the time here */
    return child_start(&plain, (const char *const[]){"python3", SCRIPT, NULL}) &&
                   child_start(&locked, (const char *const[]){"python3", SCRIPT, "--auth", NULL}) &&
                   child_start(&leaderless, (const char *const[]){"python3", SCRIPT, "--always", "noleader", NULL}) &&
                   child_start(&silent, (const char *const[]){"python3", SCRIPT, "--always", "slow", NULL}) &&
                   child_start(&foreign, (const char *const[]){"python3", SCRIPT, "--cluster", "2", NULL})
               ? 0
               : -1;
}

static int teardown(void **state) {
    (void)state;
    child_end(&plain);
    child_end(&locked);
    child_end(&leaderless);
    child_end(&silent);
    child_end(&foreign);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_good_answers),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_broken_answers),
        cmocka_unit_test(test_one_try_answers),
        cmocka_unit_test(test_flaky),
        cmocka_unit_test(test_kept_connection_ends),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_close_inside),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_another_cluster),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_no_token),
        cmocka_unit_test(test_leases),
        cmocka_unit_test(test_leases_lost),
        cmocka_unit_test(test_lease_after_a_stop),
        cmocka_unit_test(test_watches),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_watches_end),
        cmocka_unit_test(test_store_went_back),
        cmocka_unit_test(test_broken_streams),
        cmocka_unit_test(test_frozen_member),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
