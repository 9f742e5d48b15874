/* pool: every job once, states per thread, the bound, the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

struct state {
    pthread_t thread;
    int jobs;
};
struct world {
    atomic_int opened, closed, done, wrong;
    sem_t gate, begun;
    atomic_bool named;
    char name[16]; /* of the first thread that worked */
};
struct job {
    struct pool_job job;
    struct world *world;
    bool waits;
};

static void *open_state(void *arg) {
    struct world *w = arg;
    struct state *s = calloc(1, sizeof *s);
    s->thread = pthread_self();
    w->opened++;
    return s;
}

static void close_state(void *state, void *arg) {
    struct world *w = arg;
    struct state *s = state;
    if (!pthread_equal(s->thread, pthread_self()))
        w->wrong++;
    w->closed++;
    free(s);
}

static void run_job(struct pool_job *job, void *state) {
    struct job *j = (struct job *)job;
    struct world *w = j->world;
    struct state *s = state;
    if (s && !pthread_equal(s->thread, pthread_self()))
        w->wrong++;
    if (!atomic_exchange(&w->named, true))
        pthread_getname_np(pthread_self(), w->name, sizeof w->name);
    if (j->waits) {
        sem_post(&w->begun);
        sem_wait(&w->gate);
    }
    w->done++;
    free(j);
}

static struct job *job_of(struct world *w, bool waits) {
    struct job *j = calloc(1, sizeof *j);
    *j = (struct job){.job.run = run_job, .world = w, .waits = waits};
    return j;
}

static void world_init(struct world *w) {
    memset(w, 0, sizeof *w);
    sem_init(&w->gate, 0, 0);
    sem_init(&w->begun, 0, 0);
}

static struct pool *pool_of(struct world *w, uint32_t threads, uint32_t waiting) {
    struct pool *p;
    struct pool_config c = {threads, waiting, open_state, close_state, w, "tested-pool"};
    assert_int_equal(pool_new(&p, &c), ERR_OK);
    return p;
}

static void runs_every_job_once(void **state) {
    (void)state;
    struct world w;
    world_init(&w);
    struct pool *p = pool_of(&w, 3, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(pool_send(p, &job_of(&w, false)->job), ERR_OK);
    pool_free(p); /* runs what waits */
    assert_int_equal(w.done, 1000);
    assert_int_equal(w.wrong, 0);
    assert_true(w.opened >= 1 && w.opened <= 3);
    assert_int_equal(w.opened, w.closed);
}

static void threads_come_with_jobs(void **state) {
    (void)state;
    struct world w;
    world_init(&w);
    struct pool *p = pool_of(&w, 3, 100);
    assert_int_equal(w.opened, 0);
    for (int i = 1; i <= 3; i++) { /* each one blocks, so each needs a thread */
        assert_int_equal(pool_send(p, &job_of(&w, true)->job), ERR_OK);
        sem_wait(&w.begun);
        assert_int_equal(w.opened, i);
    }
    assert_string_equal(w.name, "tested-pool");
    assert_int_equal(pool_send(p, &job_of(&w, false)->job), ERR_OK);
    assert_int_equal(pool_waiting(p), 1); /* there is no fourth */
    for (int i = 0; i < 3; i++)
        sem_post(&w.gate);
    pool_free(p);
    assert_int_equal(w.done, 4);
    assert_int_equal(w.opened, 3);
    assert_int_equal(w.closed, 3);
}

static void the_queue_is_bounded(void **state) {
    (void)state;
    struct world w;
    world_init(&w);
    struct pool *p = pool_of(&w, 1, 5);
    assert_int_equal(pool_send(p, &job_of(&w, true)->job), ERR_OK);
    sem_wait(&w.begun);
    for (int i = 0; i < 5; i++)
        assert_int_equal(pool_send(p, &job_of(&w, false)->job), ERR_OK);
    struct job *refused = job_of(&w, false);
    assert_int_equal(pool_send(p, &refused->job), ERR_FULL);
    assert_int_equal(pool_waiting(p), 5);
    sem_post(&w.gate);
    while (pool_waiting(p))
        sched_yield();
    assert_int_equal(pool_send(p, &refused->job), ERR_OK);
    pool_free(p);
    assert_int_equal(w.done, 7);
}

static void needs_neither_states_nor_jobs(void **state) {
    (void)state;
    struct world w;
    struct pool *p;
    struct pool_config c = {.threads = 2, .waiting = 2};
    world_init(&w);
    assert_int_equal(pool_new(&p, &c), ERR_OK);
    pool_free(p);
    assert_int_equal(pool_new(&p, &c), ERR_OK);
    assert_int_equal(pool_send(p, &job_of(&w, false)->job), ERR_OK);
    pool_free(p);
    assert_int_equal(w.done, 1);
    pool_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_every_job_once),
        cmocka_unit_test(threads_come_with_jobs),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(needs_neither_states_nor_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
