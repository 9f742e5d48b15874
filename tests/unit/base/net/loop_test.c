/* loop: timers, wake-ups from threads, descriptors, hooks, signals, watched files, work; closing inside callbacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/net/loop.h"

struct world {
    struct loop *loop;
    struct loop_timer *timer, *guard;
    struct loop_wake *wake;
    struct loop_poll *poll;
    struct loop_hook *hook;
    struct loop_signal *signal;
    struct loop_watch *watch;
    int fds[2];
    int count, after, done;
    bool timed_out;
    atomic_int worked;
};

static void on_guard(void *arg) {
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof *w);
    w->loop = loop_new();
    assert_non_null(w->loop);
    w->guard = loop_timer_new(w->loop, on_guard, w);
    return w;
}

/* Runs until loop_stop; the guard keeps a broken test from hanging. */
static void run(struct world *w) {
    loop_timer_set(w->guard, 10000);
    loop_run(w->loop);
    assert_false(w->timed_out);
}

static void world_free(struct world *w) {
    loop_free(w->loop);
    free(w);
}

static void on_timer(void *arg) {
    struct world *w = arg;
    if (++w->count < 3) {
        loop_timer_set(w->timer, 10);
    } else {
        loop_timer_close(w->timer);
        loop_stop(w->loop);
    }
}

static void timer_may_set_and_close_itself(void **state) {
    (void)state;
    struct world *w = world_new();
    w->timer = loop_timer_new(w->loop, on_timer, w);
    uint64_t begin = loop_now_ms(w->loop);
    loop_timer_set(w->timer, 10000);
    loop_timer_set(w->timer, 10); /* moves it */
    run(w);
    assert_int_equal(w->count, 3);
    assert_in_range(loop_now_ms(w->loop) - begin, 30, 5000);
    w->timer = loop_timer_new(w->loop, on_timer, w);
    loop_timer_set(w->timer, 0);
    loop_timer_stop(w->timer);
    loop_timer_stop(w->guard);
    loop_run(w->loop); /* nothing is left to wait for */
    assert_int_equal(w->count, 3);
    world_free(w);
}

static void on_wake(void *arg) {
    struct world *w = arg;
    w->count++;
    loop_wake_close(w->wake);
    loop_stop(w->loop);
}

static void *send_wake(void *arg) {
    struct world *w = arg;
    usleep(20000);
    loop_wake_send(w->wake);
    return NULL;
}

static void wake_comes_from_another_thread(void **state) {
    (void)state;
    struct world *w = world_new();
    w->wake = loop_wake_new(w->loop, on_wake, w);
    pthread_t thread;
    pthread_create(&thread, NULL, send_wake, w);
    run(w);
    pthread_join(thread, NULL);
    assert_int_equal(w->count, 1);
    world_free(w);
}

static void on_readable(void *arg, int events, bool failed) {
    struct world *w = arg;
    char byte;
    assert_false(failed);
    assert_int_equal(events, LOOP_READABLE);
    assert_int_equal(read(w->fds[0], &byte, 1), 1);
    if (++w->count == 2) {
        loop_poll_close(w->poll);
        loop_stop(w->loop);
    }
}

static void poll_is_level_triggered(void **state) {
    (void)state;
    struct world *w = world_new();
    assert_int_equal(pipe(w->fds), 0);
    w->poll = loop_poll_new(w->loop, w->fds[0], on_readable, w);
    loop_poll_set(w->poll, LOOP_READABLE);
    assert_int_equal(write(w->fds[1], "ab", 2), 2);
    run(w);
    assert_int_equal(w->count, 2);
    close(w->fds[0]);
    close(w->fds[1]);
    world_free(w);
}

static bool before(void *arg) {
    struct world *w = arg;
    return ++w->count <= 100; /* work is pending: the loop must not block */
}

static void after(void *arg) {
    struct world *w = arg;
    if (++w->after == 100) {
        loop_hook_close(w->hook);
        loop_stop(w->loop);
    }
}

static void hook_keeps_the_loop_turning(void **state) {
    (void)state;
    struct world *w = world_new();
    w->hook = loop_hook_new(w->loop, before, after, w);
    uint64_t begin = loop_now_ms(w->loop);
    run(w);
    assert_int_equal(w->count, 100);
    assert_int_equal(w->after, 100);
    assert_true(loop_now_ms(w->loop) - begin < 5000);
    assert_non_null(loop_hook_new(w->loop, before, NULL, w)); /* left open: loop_free frees it */
    world_free(w);
}

static void on_signal(void *arg, int signum) {
    struct world *w = arg;
    assert_int_equal(signum, SIGUSR1);
    w->count++;
    loop_signal_close(w->signal);
    loop_stop(w->loop);
}

static void signals_arrive_on_the_loop(void **state) {
    (void)state;
    struct world *w = world_new();
    w->signal = loop_signal_new(w->loop, SIGUSR1, on_signal, w);
    assert_non_null(w->signal);
    assert_null(loop_signal_new(w->loop, SIGKILL, on_signal, w));
    raise(SIGUSR1);
    run(w);
    assert_int_equal(w->count, 1);
    world_free(w);
}

static char path[64], other[64];

static void put(const char *where, const char *text) {
    FILE *f = fopen(where, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void on_watch(void *arg) {
    struct world *w = arg;
    w->count++;
    loop_stop(w->loop);
}

static void watch_sees_change_replacement_and_return(void **state) {
    (void)state;
    struct world *w = world_new();
    snprintf(path, sizeof path, "/tmp/posthouse_watch_%d", (int)getpid());
    snprintf(other, sizeof other, "/tmp/posthouse_watch_%d.new", (int)getpid());
    w->watch = loop_watch_new(w->loop, path, on_watch, w);
    put(path, "one"); /* appears */
    run(w);
    put(path, "two"); /* changes, with the same size */
    run(w);
    put(other, "two");
    assert_int_equal(rename(other, path), 0); /* is replaced */
    run(w);
    unlink(path);
    w->timer = loop_timer_new(w->loop, on_guard, w);
    loop_timer_set(w->timer, 1600);
    loop_timer_stop(w->guard);
    loop_run(w->loop); /* being away is no change */
    assert_true(w->timed_out);
    w->timed_out = false;
    assert_int_equal(w->count, 3);
    put(path, "three");
    run(w);
    assert_int_equal(w->count, 4);
    unlink(path);
    loop_watch_close(w->watch);
    world_free(w);
}

static void work(void *arg) {
    struct world *w = arg;
    usleep(1000);
    atomic_fetch_add(&w->worked, 1);
}

static void on_work_done(void *arg) {
    struct world *w = arg;
    w->done++;
}

static void work_is_done_also_when_the_loop_ends(void **state) {
    (void)state;
    struct world *w = world_new();
    for (int i = 0; i < 20; i++)
        assert_int_equal(loop_work(w->loop, work, on_work_done, w), ERR_OK);
    loop_run(w->loop);
    assert_int_equal(w->worked, 20);
    assert_int_equal(w->done, 20);
    for (int i = 0; i < 20; i++)
        assert_int_equal(loop_work(w->loop, work, on_work_done, w), ERR_OK);
    loop_free(w->loop);
    assert_int_equal(w->worked, 40);
    assert_int_equal(w->done, 40);
    free(w);
}

static void frees_what_was_left_open(void **state) {
    (void)state;
    struct world *w = world_new();
    assert_int_equal(pipe(w->fds), 0);
    loop_timer_set(loop_timer_new(w->loop, on_timer, w), 1);
    loop_wake_send(loop_wake_new(w->loop, on_wake, w));
    loop_poll_set(loop_poll_new(w->loop, w->fds[1], on_readable, w), LOOP_WRITABLE);
    assert_non_null(loop_watch_new(w->loop, "/tmp", on_watch, w));
    assert_non_null(loop_signal_new(w->loop, SIGUSR2, on_signal, w));
    loop_free(w->loop);
    assert_int_equal(w->count, 0);
    close(w->fds[0]);
    close(w->fds[1]);
    free(w);
    loop_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timer_may_set_and_close_itself),
        cmocka_unit_test(wake_comes_from_another_thread),
        cmocka_unit_test(poll_is_level_triggered),
        cmocka_unit_test(hook_keeps_the_loop_turning),
        cmocka_unit_test(signals_arrive_on_the_loop),
        cmocka_unit_test(watch_sees_change_replacement_and_return),
        cmocka_unit_test(work_is_done_also_when_the_loop_ends),
        cmocka_unit_test(frees_what_was_left_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
