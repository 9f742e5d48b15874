/* The engine in front of slow backends, against a backend that does as it is told: cache, merging, retry, breaker,
 * bounds, cancels and the end, and all of that from many threads at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/pool.h"
#include "gateway/directory/backend.h"

/* -- the backend -- */

enum mode { HOLDS, FINDS, KNOWS_NOT, CANNOT_TELL, FAILS, FAILS_ONCE, ODD, THREADS };
struct fake {
    struct backend base;
    pthread_mutex_t lock;
    struct list held;
    atomic_int asked, closed;
    _Atomic enum mode mode;
    struct pool *pool;
};
static struct fake *fake; /* of the directory made last */

static void answer(struct backend_question *q, enum mode mode) {
    struct backend_reply r = {.err = ERR_OK, .why = SPAN("said so\x1b")};
    switch (mode) {
    case FINDS:
        r.status = DIRECTORY_FOUND;
        r.kind = TABLE_ALIAS;
        r.targets = SPAN("a@x.example, b");
        break;
    case KNOWS_NOT:
        r.status = DIRECTORY_UNKNOWN;
        break;
    case ODD:
        r.status = DIRECTORY_FOUND;
        r.kind = TABLE_FORWARD;
        break;
    case CANNOT_TELL:
        r.status = DIRECTORY_TEMPFAIL;
        break;
    default:
        r.err = ERR_UNREACHABLE;
    }
    backend_answer(q, &r);
}

struct job {
    struct pool_job job;
    struct backend_question *q;
};

static void run_job(struct pool_job *job, void *state) {
    struct job *j = CONTAINER_OF(job, struct job, job);
    static atomic_uint turn;
    static const enum mode modes[] = {FINDS, KNOWS_NOT, FAILS, FINDS, CANNOT_TELL, FINDS, ODD};
    (void)state;
    struct backend_question *q = j->q;
    free(j);
    answer(q, modes[atomic_fetch_add(&turn, 1) % 7]);
}

static void fake_ask(struct backend *b, struct backend_question *q) {
    struct fake *f = (struct fake *)b;
    int n = atomic_fetch_add(&f->asked, 1);
    assert_true(q->address.len == q->key.len + 1 + q->domain.len);
    if (f->mode == HOLDS) {
        pthread_mutex_lock(&f->lock);
        list_push_back(&f->held, &q->node);
        pthread_mutex_unlock(&f->lock);
    } else if (f->mode == THREADS) {
        struct job *j = calloc(1, sizeof *j);
        *j = (struct job){.job.run = run_job, .q = q};
        if (pool_send(f->pool, &j->job) != ERR_OK) {
            free(j);
            answer(q, FAILS);
        }
    } else if (f->mode == FAILS_ONCE) {
        answer(q, n == 0 ? FAILS : FINDS);
    } else {
        answer(q, f->mode);
    }
}

static bool release_one(enum mode mode) {
    pthread_mutex_lock(&fake->lock);
    struct list_node *node = list_pop_front(&fake->held);
    pthread_mutex_unlock(&fake->lock);
    if (node)
        answer(LIST_ENTRY(node, struct backend_question, node), mode);
    return node != NULL;
}

static atomic_int closed_count;

static void fake_close(struct backend *b) {
    struct fake *f = (struct fake *)b;
    assert_true(list_is_empty(&f->held));
    pool_free(f->pool);
    pthread_mutex_destroy(&f->lock);
    free(f);
    atomic_fetch_add(&closed_count, 1);
}

static int make_fake(struct backend **b, const struct directory_config *c, struct buf *problems) {
    static const struct backend_ops ops = {fake_ask, fake_close};
    const struct pool_config pc = {.threads = 3, .waiting = 1000, .name = "fake"};
    (void)problems;
    assert_int_equal(c->timeout_ms ? 0 : 1, 0); /* the defaults are there */
    fake = calloc(1, sizeof *fake);
    fake->base.ops = &ops;
    list_init(&fake->held);
    pthread_mutex_init(&fake->lock, NULL);
    *b = &fake->base;
    return pool_new(&fake->pool, &pc);
}

static int make_none(struct backend **b, const struct directory_config *c, struct buf *problems) {
    *b = NULL;
    buf_printf(problems, "directory %s: no\n", c->name);
    return ERR_INVALID;
}

/* -- the asker -- */

static struct loop *loop;
static struct post *home;
static struct arena mem;

struct asked {
    struct directory_wait *wait;
    struct directory_answer a;
    char targets[100], why[100];
    int calls, err;
};

static void on_answer(void *arg, const struct directory_answer *a) {
    struct asked *q = arg;
    q->calls++;
    q->a = *a;
    span_copy(a->targets, q->targets, sizeof q->targets);
    span_copy(a->why, q->why, sizeof q->why);
}

static void begin(struct directory *d, struct asked *q, const char *key) {
    memset(q, 0, sizeof *q);
    q->err = directory_find(d, home, span_of(key), SPAN("example.net"), &mem, &q->a, &q->wait, on_answer, q);
    assert_int_equal(q->calls, 0);
    if (q->err == ERR_OK) {
        assert_null(q->wait);
        span_copy(q->a.targets, q->targets, sizeof q->targets);
        span_copy(q->a.why, q->why, sizeof q->why);
    }
}

static void stop(void *arg) {
    loop_stop(arg);
}

/* What was posted before comes before the timer's end. */
static void turn(void) {
    struct loop_timer *t = loop_timer_new(loop, stop, loop);
    loop_timer_set(t, 2);
    loop_run(loop);
    loop_timer_close(t);
}

/* Asks and waits. */
static const struct asked *ask(struct directory *d, const char *key) {
    static struct asked q;
    begin(d, &q, key);
    if (q.err == ERR_AGAIN) {
        turn();
        assert_int_equal(q.calls, 1);
    } else {
        assert_int_equal(q.err, ERR_OK);
    }
    return &q;
}

static struct directory *open_with(struct directory_config c, enum mode mode) {
    struct directory *d;
    struct buf problems;
    buf_init(&problems, 1000);
    c.kind = DIRECTORY_LDAP;
    c.name = "staff";
    assert_int_equal(directory_new_with(&d, &c, make_fake, &problems), ERR_OK);
    buf_deinit(&problems);
    fake->mode = mode;
    return d;
}

static int setup(void **state) {
    (void)state;
    loop = loop_new();
    home = post_new(loop);
    arena_init(&mem, 1024, 0);
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    return loop && home ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    post_free(home);
    loop_free(loop);
    arena_deinit(&mem);
    return 0;
}

static void expect(const struct asked *q, enum directory_status status, bool cached, bool stale) {
    assert_int_equal(q->a.status, status);
    assert_int_equal(q->a.cached, cached);
    assert_int_equal(q->a.stale, stale);
}

/* -- tests -- */

static void remembers(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){0}, FINDS);
    const struct asked *q = ask(d, "alice");
    expect(q, DIRECTORY_FOUND, false, false);
    assert_int_equal(q->err, ERR_AGAIN); /* also where the backend answers inside the call */
    assert_int_equal(q->a.kind, TABLE_ALIAS);
    assert_string_equal(q->targets, "a@x.example, b");
    assert_string_equal(q->why, "said so\\x1b");
    q = ask(d, "alice");
    assert_int_equal(q->err, ERR_OK);
    expect(q, DIRECTORY_FOUND, true, false);
    assert_string_equal(q->targets, "a@x.example, b");
    fake->mode = KNOWS_NOT;
    expect(ask(d, "bob"), DIRECTORY_UNKNOWN, false, false);
    expect(ask(d, "bob"), DIRECTORY_UNKNOWN, true, false);
    assert_int_equal(fake->asked, 2);
    fake->mode = CANNOT_TELL; /* never remembered, and no failure of the backend */
    for (int i = 0; i < 10; i++)
        expect(ask(d, "carol"), DIRECTORY_TEMPFAIL, false, false);
    assert_int_equal(fake->asked, 12);
    fake->mode = ODD;
    expect(ask(d, "dave"), DIRECTORY_TEMPFAIL, false, false);
    assert_string_equal(directory_name(d), "staff");
    directory_unref(d);
}

static void forgets(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){.positive_ms = 1, .negative_ms = 1}, FINDS);
    ask(d, "alice");
    fake->mode = KNOWS_NOT;
    ask(d, "bob");
    usleep(5000);
    expect(ask(d, "alice"), DIRECTORY_UNKNOWN, false, false);
    fake->mode = FINDS;
    usleep(5000);
    expect(ask(d, "bob"), DIRECTORY_FOUND, false, false);
    expect(ask(d, "alice"), DIRECTORY_FOUND, false, false);
    directory_unref(d);
}

static void merges(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){0}, HOLDS);
    struct asked q[5];
    for (int i = 0; i < 4; i++)
        begin(d, &q[i], "alice");
    begin(d, &q[4], "bob");
    assert_int_equal(fake->asked, 2);
    directory_cancel(q[1].wait); /* while it waits */
    assert_true(release_one(FINDS));
    directory_cancel(q[2].wait); /* when its answer is on the way */
    turn();
    static const int calls[] = {1, 0, 0, 1, 0};
    for (int i = 0; i < 5; i++)
        assert_int_equal(q[i].calls, calls[i]);
    assert_string_equal(q[3].targets, "a@x.example, b");
    directory_cancel(q[4].wait); /* nobody waits; the answer is remembered all the same */
    directory_cancel(NULL);
    assert_true(release_one(KNOWS_NOT));
    expect(ask(d, "bob"), DIRECTORY_UNKNOWN, true, false);
    assert_int_equal(fake->asked, 2);
    directory_unref(d);
}

static void retries(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){.breaker_failures = 2}, FAILS_ONCE);
    expect(ask(d, "alice"), DIRECTORY_FOUND, false, false);
    assert_int_equal(fake->asked, 2);
    fake->mode = FAILS;
    const struct asked *q = ask(d, "bob");
    expect(q, DIRECTORY_TEMPFAIL, false, false);
    assert_string_equal(q->why, "said so\\x1b");
    assert_int_equal(fake->asked, 4);
    directory_unref(d);
    d = open_with((struct directory_config){.timeout_ms = 1}, FAILS); /* no time is left for another try */
    expect(ask(d, "bob"), DIRECTORY_TEMPFAIL, false, false);
    assert_int_equal(fake->asked, 1);
    directory_unref(d);
}

static void rests(void **state) {
    (void)state;
    struct directory_config c = {.breaker_failures = 3, .breaker_ms = 3600 * 1000};
    struct directory *d = open_with(c, FAILS);
    ask(d, "a");
    fake->mode = FINDS;
    ask(d, "b"); /* in a row: it counts anew */
    fake->mode = FAILS;
    for (int i = 0; i < 3; i++)
        expect(ask(d, "c"), DIRECTORY_TEMPFAIL, false, false);
    int asked = fake->asked;
    fake->mode = FINDS;
    for (int i = 0; i < 3; i++) {
        const struct asked *q = ask(d, "d");
        expect(q, DIRECTORY_TEMPFAIL, false, false);
        assert_int_equal(q->err, ERR_OK);
        assert_non_null(strstr(q->why, "left alone"));
    }
    assert_int_equal(fake->asked, asked);
    expect(ask(d, "b"), DIRECTORY_FOUND, true, false); /* what is known stays known */
    directory_unref(d);
}

static void recovers(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){.breaker_failures = 1, .breaker_ms = 1}, FAILS);
    struct asked probe;
    ask(d, "a");
    usleep(5000);
    fake->mode = HOLDS;
    int asked = fake->asked;
    begin(d, &probe, "b");
    assert_int_equal(probe.err, ERR_AGAIN);
    expect(ask(d, "c"), DIRECTORY_TEMPFAIL, false, false); /* only one tries */
    assert_int_equal(fake->asked, asked + 1);
    assert_true(release_one(FAILS)); /* no retry for it */
    assert_false(release_one(FAILS));
    turn();
    assert_int_equal(probe.calls, 1);
    assert_int_equal(probe.a.status, DIRECTORY_TEMPFAIL);
    usleep(5000);
    begin(d, &probe, "b");
    assert_int_equal(probe.err, ERR_AGAIN);
    directory_cancel(probe.wait); /* the probe goes on without who asked */
    assert_true(release_one(FINDS));
    fake->mode = FINDS;
    for (int i = 0; i < 3; i++)
        expect(ask(d, i ? "d" : "e"), DIRECTORY_FOUND, i == 2, false);
    directory_unref(d);
}

static void lives_on_old_answers(void **state) {
    (void)state;
    struct directory_config c = {.positive_ms = 1, .negative_ms = 1, .breaker_failures = 2, .breaker_ms = 3600 * 1000};
    struct directory *d = open_with(c, FINDS);
    ask(d, "alice");
    fake->mode = KNOWS_NOT;
    ask(d, "bob");
    usleep(5000);
    fake->mode = FAILS;
    const struct asked *q = ask(d, "alice");
    assert_int_equal(q->err, ERR_AGAIN);
    expect(q, DIRECTORY_FOUND, true, true);
    assert_string_equal(q->targets, "a@x.example, b");
    expect(ask(d, "bob"), DIRECTORY_TEMPFAIL, false, false); /* an old "unknown" refuses nobody */
    q = ask(d, "alice");
    assert_int_equal(q->err, ERR_OK); /* at rest: at once */
    expect(q, DIRECTORY_FOUND, true, true);
    directory_unref(d);
    c.stale_ms = 1;
    d = open_with(c, FINDS);
    ask(d, "alice");
    usleep(10000);
    fake->mode = FAILS;
    expect(ask(d, "alice"), DIRECTORY_TEMPFAIL, false, false);
    directory_unref(d);
}

static void is_bounded(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){.waiting = 2}, HOLDS);
    struct asked q[4];
    begin(d, &q[0], "a");
    begin(d, &q[1], "b");
    begin(d, &q[2], "c");
    begin(d, &q[3], "a"); /* joins, and is no new question */
    assert_int_equal(q[2].err, ERR_OK);
    expect(&q[2], DIRECTORY_TEMPFAIL, false, false);
    assert_int_equal(q[3].err, ERR_AGAIN);
    while (release_one(KNOWS_NOT))
        ;
    turn();
    assert_int_equal(q[0].calls + q[1].calls + q[3].calls, 3);
    directory_unref(d);

    d = open_with((struct directory_config){.cache_entries = 64}, FINDS);
    char key[20];
    ask(d, "alice");
    fake->mode = KNOWS_NOT;
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "u%d", i);
        ask(d, key);
    }
    expect(ask(d, "alice"), DIRECTORY_FOUND, true, false); /* who tries names pushes out no known one */
    expect(ask(d, "u499"), DIRECTORY_UNKNOWN, true, false);
    int asked = fake->asked;
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "u%d", i);
        ask(d, key);
    }
    assert_true(fake->asked - asked >= 500 - 16 * 5);
    fake->mode = FINDS;
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        ask(d, key);
    }
    expect(ask(d, "alice"), DIRECTORY_FOUND, false, false);
    directory_unref(d);
}

/* A backend that hangs holds up nobody: not who asked, not who joins later. */
static void gives_up(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){.timeout_ms = 1, .positive_ms = 1}, FINDS);
    struct asked q[3];
    ask(d, "alice");
    usleep(5000);
    fake->mode = HOLDS;
    begin(d, &q[0], "alice");
    begin(d, &q[1], "bob");
    for (int i = 0; i < 5000 && q[0].calls + q[1].calls < 2; i++)
        turn();
    expect(&q[0], DIRECTORY_FOUND, true, true);
    expect(&q[1], DIRECTORY_TEMPFAIL, false, false);
    assert_string_equal(q[1].why, "no answer in time");
    begin(d, &q[2], "bob");
    assert_int_equal(q[2].err, ERR_AGAIN);
    for (int i = 0; i < 5000 && q[2].calls < 1; i++)
        turn();
    expect(&q[2], DIRECTORY_TEMPFAIL, false, false);
    assert_int_equal(fake->asked, 3); /* it is still the same question */
    assert_true(release_one(FINDS));
    assert_true(release_one(KNOWS_NOT));
    expect(ask(d, "bob"), DIRECTORY_UNKNOWN, true, false);
    assert_int_equal(q[0].calls + q[1].calls + q[2].calls, 3);
    directory_unref(d);
}

static void *release_later(void *arg) {
    usleep(20000);
    assert_true(release_one(FINDS));
    assert_true(release_one(FINDS)); /* the last one: the backend is gone now */
    return arg;
}

static void ends(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){0}, HOLDS);
    struct asked q[2];
    pthread_t thread;
    int closed = closed_count;
    begin(d, &q[0], "a");
    begin(d, &q[1], "b");
    directory_ref(d);
    directory_unref(d);
    directory_cancel(q[0].wait);
    directory_cancel(q[1].wait);
    assert_int_equal(pthread_create(&thread, NULL, release_later, NULL), 0);
    directory_unref(d); /* does not wait for the questions */
    directory_settle();
    assert_int_equal(closed_count, closed + 1);
    pthread_join(thread, NULL);
    turn();
    assert_int_equal(q[0].calls + q[1].calls, 0);
}

static void knows_its_settings(void **state) {
    (void)state;
    struct directory_config c = {.kind = DIRECTORY_LDAP, .name = "staff", .uri = "ldap://h", .base = "dc=x"};
    struct directory *d;
    struct buf problems;
    buf_init(&problems, 1000);
    assert_int_equal(directory_new_with(&d, &c, make_none, &problems), ERR_INVALID);
    assert_null(d);
    assert_string_equal(buf_cstr(&problems), "directory staff: no\n");
    assert_int_equal(directory_new_with(&d, &c, make_fake, &problems), ERR_OK);
    char uri[] = "ldap://h";
    c.uri = uri; /* texts are compared, not pointers; a default is what it stands for */
    c.timeout_ms = 5000;
    assert_true(directory_fits(d, &c));
    assert_false(directory_has_catch_all(d));
    struct directory_config other = c;
    other.base = "dc=y";
    assert_false(directory_fits(d, &other));
    other = c;
    other.filter = "(mail=%s)";
    assert_false(directory_fits(d, &other));
    other = c;
    other.negative_ms = 1;
    assert_false(directory_fits(d, &other));
    other = c;
    other.catch_all = true;
    assert_false(directory_fits(d, &other));
    directory_unref(d);
    buf_deinit(&problems);
}

/* By kind only: a hundred directories make no more series than one. */
static void counts(void **state) {
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 22);
    struct directory *d = open_with((struct directory_config){0}, FINDS);
    ask(d, "alice");
    ask(d, "alice");
    assert_int_equal(metric_expose(&text), ERR_OK);
    static const char *const series[] = {
        "posthouse_directory_answers_total{kind=\"ldap\",from=\"cache\"} ",
        "posthouse_directory_answers_total{kind=\"ldap\",from=\"backend\",result=\"found\"} ",
        "posthouse_directory_answers_total{kind=\"callout\",from=\"backend\",result=\"failed\"} 0\n",
        "posthouse_directory_retries_total{kind=\"ldap\"} ",
        "posthouse_directory_questions_open 0\n",
        "posthouse_directory_breakers_open 0\n",
    };
    for (size_t i = 0; i < sizeof series / sizeof *series; i++)
        assert_non_null(strstr(buf_cstr(&text), series[i]));
    assert_null(strstr(buf_cstr(&text), "staff"));
    assert_null(strstr(buf_cstr(&text), "posthouse_directory_answers_total{kind=\"ldap\",from=\"cache\"} 0\n"));
    directory_unref(d);
    buf_deinit(&text);
}

/* -- many threads -- */

enum { ASKERS = 4, ROUNDS = 3000 };
struct asker {
    pthread_t thread;
    struct directory *d;
    unsigned seed;
    struct loop *loop;
    struct post *home;
    int open, answered, canceled, at_once, rounds;
    struct arena mem;
};
struct ticket {
    struct asker *asker;
    struct directory_wait *wait;
    int calls;
};

static void on_ticket(void *arg, const struct directory_answer *a) {
    struct ticket *t = arg;
    assert_int_equal(t->calls++, 0);
    assert_true(a->status != DIRECTORY_FOUND || a->targets.len > 0);
    t->wait = NULL;
    t->asker->open--;
    t->asker->answered++;
}

static void ask_some(struct asker *k, struct ticket *tickets, int count) {
    char key[20];
    for (int i = 0; i < count; i++) {
        struct ticket *t = &tickets[i];
        struct directory_answer a;
        *t = (struct ticket){.asker = k};
        snprintf(key, sizeof key, "k%d", rand_r(&k->seed) % 200);
        arena_reset(&k->mem);
        int err = directory_find(k->d, k->home, span_of(key), SPAN("example.net"), &k->mem, &a, &t->wait, on_ticket, t);
        if (err == ERR_AGAIN)
            k->open++;
        else
            k->at_once++;
    }
    for (int i = 0; i < count; i++) {
        if (tickets[i].wait && rand_r(&k->seed) % 3 == 0) {
            directory_cancel(tickets[i].wait);
            tickets[i].wait = NULL;
            k->open--;
            k->canceled++;
        }
    }
}

static void *run_asker(void *arg) {
    struct asker *k = arg;
    struct ticket tickets[10];
    k->loop = loop_new();
    k->home = post_new(k->loop);
    arena_init(&k->mem, 1024, 0);
    struct loop_timer *t = loop_timer_new(k->loop, stop, k->loop);
    for (int i = 0; i < ROUNDS / 10; i++) {
        ask_some(k, tickets, 10);
        while (k->open > 0) {
            loop_timer_set(t, 1);
            loop_run(k->loop);
        }
    }
    loop_timer_close(t);
    post_free(k->home);
    loop_free(k->loop);
    arena_deinit(&k->mem);
    return NULL;
}

static void many_at_once(void **state) {
    (void)state;
    struct directory *d = open_with((struct directory_config){.positive_ms = 1,
                                                              .negative_ms = 1,
                                                              .stale_ms = 1,
                                                              .breaker_ms = 1,
                                                              .breaker_failures = 2,
                                                              .cache_entries = 64,
                                                              .waiting = 30},
                                    THREADS);
    struct asker askers[ASKERS] = {0};
    int closed = closed_count;
    for (int i = 0; i < ASKERS; i++) {
        askers[i].d = d;
        askers[i].seed = 7u + (unsigned)i;
        assert_int_equal(pthread_create(&askers[i].thread, NULL, run_asker, &askers[i]), 0);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].answered + askers[i].canceled + askers[i].at_once, ROUNDS);
        assert_true(askers[i].answered > 0 && askers[i].canceled > 0 && askers[i].at_once > 0);
    }
    directory_unref(d);
    directory_settle();
    assert_int_equal(closed_count, closed + 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remembers),
        cmocka_unit_test(forgets),
        cmocka_unit_test(merges),
        cmocka_unit_test(retries),
        cmocka_unit_test(rests),
        cmocka_unit_test(recovers),
        cmocka_unit_test(is_bounded),
        cmocka_unit_test(lives_on_old_answers),
        cmocka_unit_test(gives_up),
        cmocka_unit_test(ends),
        cmocka_unit_test(knows_its_settings),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(counts),
    };
    return cmocka_run_group_tests_name("directory", tests, setup, teardown);
}
