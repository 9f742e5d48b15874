/* hook: events of several threads reach a socket in order; what overflows is counted for those who wanted it; copies,
 * comparison and counts of hooks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "node/event_names.h"
#include "node/hook.h"
#include "node/hook_queue.h"

enum { THREADS = 4, EACH = 500 };

static char dir[64], path[128], spools[128];
static int listener = -1;

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hook_test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/socket", dir);
    snprintf(spools, sizeof spools, "%s/hooks", dir);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    return bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 5);
}

static int tear_down(void **state) {
    (void)state;
    char file[256];
    close(listener);
    unlink(path);
    static const char *const names[] = {"a/taken", "a/0000000000000001.seg", "a",
                                        "b/taken", "b/0000000000000001.seg", "b"};
    for (size_t i = 0; i < 6; i++) {
        snprintf(file, sizeof file, "%s/%s", spools, names[i]);
        if (unlink(file) != 0)
            rmdir(file);
    }
    rmdir(spools);
    return rmdir(dir);
}

static const char *const wanted[] = {"counted"};

static struct hook_config config_of(const char *name) {
    return (struct hook_config){.name = name,
                                .target = {.socket = path, .timeout_ms = 10000},
                                .events = wanted,
                                .event_count = 1,
                                .batch = 50,
                                .wait_ms = 10,
                                .spool = 16u << 20,
                                .retry_ms = 1000};
}

static void *log_many(void *arg) {
    uint64_t thread = (uint64_t)(uintptr_t)arg;
    for (uint64_t i = 0; i < EACH; i++) {
        LOG_INFO("counted", LOG_U64("thread", thread), LOG_U64("i", i));
        LOG_INFO("unwanted", LOG_U64("i", i));
    }
    return NULL;
}

static void events_of_threads_come_in_order(void **state) {
    (void)state;
    struct hooks *h;
    struct hook_config c = config_of("a");
    pthread_t threads[THREADS];
    assert_int_equal(hooks_open(&h, spools, "n1", &c, 1), ERR_OK);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, (void *)i), 0);
    FILE *f = fdopen(accept(listener, NULL, NULL), "r");
    assert_non_null(f);
    uint64_t next[THREADS] = {0};
    for (uint64_t seq = 1; seq <= THREADS * EACH; seq++) {
        char line[4096];
        unsigned long long number, thread, i;
        assert_non_null(fgets(line, sizeof line, f));
        assert_int_equal(sscanf(line, "{\"seq\":%llu,\"node\":\"n1\",", &number), 1);
        assert_int_equal(number, seq);
        const char *at = strstr(line, "\"event\":\"counted\"");
        assert_non_null(at);
        assert_int_equal(sscanf(at, "\"event\":\"counted\",\"thread\":%llu,\"i\":%llu}", &thread, &i), 2);
        assert_true(thread < THREADS);
        assert_int_equal(i, next[thread]++); /* of one thread in the order in which they happened */
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    hooks_close(h);
    assert_false(log_is_on(LOG_LEVEL_INFO)); /* nobody listens any more */
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    assert_int_equal(metric_value(&hook_metrics_of("a")->delivered), THREADS * EACH);
    assert_int_equal(metric_value(&hook_metrics_of("a")->dropped), 0);
}

static void hooks_change_while_events_come(void **state) {
    (void)state;
    struct hooks *h;
    struct hook_config c[2] = {config_of("a"), config_of("b")};
    pthread_t threads[THREADS];
    c[0].target.socket = c[1].target.socket = "/nonexistent";
    assert_int_equal(hooks_open(&h, spools, "n1", c, 1), ERR_OK);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, (void *)i), 0);
    for (uint32_t i = 0; i < 50; i++) {
        c[0].batch = 50 + i;
        assert_int_equal(hooks_reconfigure(h, c, i % 3 ? 2 : 1), ERR_OK);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(hooks_reconfigure(h, c, 2), ERR_OK);
    hooks_close(h);
    assert_int_equal(metric_value(&hook_metrics_of("a")->waiting), THREADS * EACH); /* it was there all the time */
    assert_int_equal(metric_value(&hook_metrics_of("a")->dropped), 0);
}

static unsigned woken;

static void on_wake(void *arg) {
    (void)arg;
    woken++;
}

METRIC_COUNTER(one_dropped, "posthouse_test_one_total", "Dropped.");
METRIC_COUNTER(all_dropped, "posthouse_test_all_total", "Dropped.");
METRIC_COUNTER(none_dropped, "posthouse_test_none_total", "Dropped.");

static void what_overflows_is_counted_for_those_who_wanted_it(void **state) {
    (void)state;
    static const char *const other[] = {"other"}, *const all[] = {"*"};
    const struct hook_wish wishes[] = {{wanted, 1, &one_dropped}, {all, 1, &all_dropped}, {other, 1, &none_dropped}};
    struct buf lines;
    struct span event, line;
    uint64_t logged = 0, taken = 0;
    static char big[1000];
    memset(big, 'x', sizeof big - 1);
    buf_init(&lines, HOOK_QUEUE_BYTES);
    hook_queue_open(on_wake, NULL);
    assert_int_equal(hook_queue_want(wishes, 3), ERR_OK);
    while (metric_value(&one_dropped) < 100) {
        LOG_INFO("counted", LOG_STR("big", big));
        logged++;
    }
    LOG_INFO("third", LOG_STR("big", big));
    assert_int_equal(metric_value(&all_dropped), 101);
    assert_int_equal(metric_value(&none_dropped), 0);
    assert_int_equal(woken, 1); /* only when it was empty */
    hook_queue_take(&lines);
    for (; hook_queue_next(&lines, &event, &line); taken++) {
        assert_true(span_eq(event, SPAN("counted")));
        assert_int_equal(line.at[line.len - 1], '}');
    }
    assert_int_equal(taken, logged - 100);
    assert_true(taken > HOOK_QUEUE_BYTES / 1200);
    LOG_INFO("third"); /* there is room again */
    assert_int_equal(woken, 2);
    hook_queue_take(&lines);
    assert_true(hook_queue_next(&lines, &event, &line));
    assert_true(span_eq(event, SPAN("third")));
    assert_false(hook_queue_next(&lines, &event, &line));
    hook_queue_close();
    LOG_INFO("counted");
    hook_queue_take(&lines);
    assert_int_equal(buf_len(&lines), 0);
    buf_deinit(&lines);
}

static void copies_are_the_same_and_changes_are_seen(void **state) {
    (void)state;
    static const char *const headers[] = {"X: 1", NULL}, *const more[] = {"X: 1", "Y: 2", NULL};
    struct hook_config c = config_of("a"), d;
    c.target.headers = headers;
    c.target.bearer = "token";
    struct hook_set *s = hook_set_copy(&c, 1);
    assert_non_null(s);
    assert_ptr_not_equal(s->hooks[0].name, c.name);
    assert_true(hook_config_is_same(&s->hooks[0], &c));
    d = c, d.target.headers = more;
    assert_false(hook_config_is_same(&s->hooks[0], &d));
    d = c, d.target.bearer = NULL;
    assert_false(hook_config_is_same(&s->hooks[0], &d));
    d = c, d.target.socket = NULL, d.target.url = "http://h/";
    assert_false(hook_config_is_same(&s->hooks[0], &d));
    d = c, d.batch++;
    assert_false(hook_config_is_same(&s->hooks[0], &d));
    d = c, d.event_count = 0;
    assert_false(hook_config_is_same(&s->hooks[0], &d));
    hook_set_free(s);
}

static void names_without_end_share_a_count(void **state) {
    (void)state;
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "many%d", i);
        assert_non_null(hook_metrics_of(name));
    }
    assert_ptr_equal(hook_metrics_of("many0"), hook_metrics_of("many0"));
    assert_ptr_not_equal(hook_metrics_of("many0"), hook_metrics_of("many1"));
    assert_ptr_equal(hook_metrics_of("many98"), hook_metrics_of("many99"));
    assert_string_equal(hook_metrics_of("many99")->label, "hook=\"others\"");
    struct buf text;
    buf_init(&text, 1 << 22);
    assert_int_equal(metric_expose(&text), ERR_OK);
    assert_non_null(strstr(buf_cstr(&text), "posthouse_hook_dropped_total{hook=\"many0\"} 0\n"));
    buf_deinit(&text);
}

static void knows_the_names_of_events(void **state) {
    (void)state;
    assert_true(event_is_known(SPAN("accepted")));
    assert_true(event_is_known(SPAN("delivered")));
    assert_true(event_is_known(SPAN("worker_up_refused")));
    assert_false(event_is_known(SPAN("deliver")));
    assert_false(event_is_known(SPAN("delivered2")));
    assert_false(event_is_known(SPAN("")));
    assert_false(event_is_known(SPAN("zzz")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_of_threads_come_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hooks_change_while_events_come, set_up, tear_down),
        cmocka_unit_test(what_overflows_is_counted_for_those_who_wanted_it),
        cmocka_unit_test(copies_are_the_same_and_changes_are_seen),
        cmocka_unit_test(names_without_end_share_a_count),
        cmocka_unit_test(knows_the_names_of_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
