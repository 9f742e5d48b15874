/* walks: a few at once and no more, one more for the house, and an end that is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "scheduler/walks.h"

struct world {
    struct loop *loop;
    struct walks *walks;
    atomic_bool go;
    atomic_uint working;
    unsigned done;
    int beyond, house;
    struct loop_timer *timer;
};

static void nap(void) {
    struct timespec wait = {.tv_nsec = 1000000};
    nanosleep(&wait, NULL);
}

static void work(void *arg) {
    struct world *w = arg;
    atomic_fetch_add(&w->working, 1);
    while (!atomic_load(&w->go) && !walks_is_stopped(w->walks))
        nap();
}

static void done(void *arg) {
    struct world *w = arg;
    w->done++;
    if (walks_count(w->walks) == 0)
        loop_stop(w->loop);
}

/* All places are taken by now: one more is refused, one of the house is not. */
static void let_go(void *arg) {
    struct world *w = arg;
    if (atomic_load(&w->working) < WALKS_MAX) {
        loop_timer_set(w->timer, 1);
        return;
    }
    w->beyond = walks_start(w->walks, false, work, done, w);
    w->house = walks_start(w->walks, true, work, done, w);
    atomic_store(&w->go, true);
}

static void ask_to_stop(void *arg) {
    struct world *w = arg;
    walks_stop(w->walks);
}

static void open_world(struct world *w, void (*on_timer)(void *arg)) {
    *w = (struct world){.loop = loop_new()};
    assert_non_null(w->loop);
    w->walks = walks_new(w->loop);
    assert_non_null(w->walks);
    w->timer = loop_timer_new(w->loop, on_timer, w);
    assert_non_null(w->timer);
    for (unsigned i = 0; i < WALKS_MAX; i++)
        assert_int_equal(walks_start(w->walks, false, work, done, w), ERR_OK);
    loop_timer_set(w->timer, 1);
    loop_run(w->loop);
}

static void close_world(struct world *w) {
    assert_int_equal(walks_count(w->walks), 0);
    loop_timer_close(w->timer);
    walks_free(w->walks);
    loop_free(w->loop);
}

static void a_few_at_once(void **state) {
    struct world w;
    (void)state;
    open_world(&w, let_go);
    assert_int_equal(w.beyond, ERR_AGAIN);
    assert_int_equal(w.house, ERR_OK);
    assert_int_equal(w.done, WALKS_MAX + 1);
    /* and there is room again */
    assert_int_equal(walks_start(w.walks, false, work, done, &w), ERR_OK);
    loop_run(w.loop);
    assert_int_equal(w.done, WALKS_MAX + 2);
    close_world(&w);
}

static void they_end_when_asked_to(void **state) {
    struct world w;
    (void)state;
    open_world(&w, ask_to_stop);
    assert_int_equal(w.done, WALKS_MAX);
    assert_false(atomic_load(&w.go));
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_few_at_once),
        cmocka_unit_test(they_end_when_asked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
