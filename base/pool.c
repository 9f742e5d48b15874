/*
 * pool: see pool.h. One lock, one condition; threads are started as jobs come, up to the number asked for, so that an
 * unused pool costs none.
 */
#include "base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct pool {
    struct pool_config config;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list jobs;
    uint32_t started, idle;
    bool ending;
    char name[16];
    pthread_t threads[];
};

static void *run(void *arg) {
    struct pool *p = arg;
    void *state = p->config.open ? p->config.open(p->config.arg) : NULL;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct list_node *node = list_pop_front(&p->jobs);
        if (node) {
            pthread_mutex_unlock(&p->lock);
            struct pool_job *job = LIST_ENTRY(node, struct pool_job, node);
            job->run(job, state);
            pthread_mutex_lock(&p->lock);
            continue;
        }
        if (p->ending)
            break;
        p->idle++;
        pthread_cond_wait(&p->work, &p->lock);
        p->idle--;
    }
    pthread_mutex_unlock(&p->lock);
    if (p->config.close)
        p->config.close(state, p->config.arg);
    return NULL;
}

int pool_new(struct pool **out, const struct pool_config *c) {
    CHECK(c->threads > 0);
    struct pool *p = calloc(1, sizeof *p + c->threads * sizeof *p->threads);
    if (!p)
        return ERR_NOMEM;
    p->config = *c;
    strncpy(p->name, c->name ? c->name : "pool", sizeof p->name - 1);
    list_init(&p->jobs);
    CHECK(pthread_mutex_init(&p->lock, NULL) == 0);
    CHECK(pthread_cond_init(&p->work, NULL) == 0);
    *out = p;
    return ERR_OK;
}

/* With the lock. True: there is a thread for one more job. */
static bool have_thread(struct pool *p) {
    if (p->jobs.count < p->idle || p->started == p->config.threads)
        return true;
    if (pthread_create(&p->threads[p->started], NULL, run, p) != 0)
        return p->started > 0;
    (void)pthread_setname_np(p->threads[p->started], p->name);
    p->started++;
    return true;
}

int pool_send(struct pool *p, struct pool_job *job) {
    int err = ERR_OK;
    pthread_mutex_lock(&p->lock);
    CHECK(!p->ending);
    if (p->jobs.count >= p->config.waiting)
        err = ERR_FULL;
    else if (!have_thread(p))
        err = ERR_NOMEM;
    else
        list_push_back(&p->jobs, &job->node);
    if (!err)
        pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
    return err;
}

size_t pool_waiting(struct pool *p) {
    pthread_mutex_lock(&p->lock);
    size_t n = p->jobs.count;
    pthread_mutex_unlock(&p->lock);
    return n;
}

void pool_free(struct pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->started; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
