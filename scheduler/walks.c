/*
 * walks: see walks.h. A thread for each walk: they are few, and long beside the making of a thread.
 */
#include "scheduler/walks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"

#define NICE 4 /* of the thread: others come first, about two to one */

struct walk {
    struct walks *walks;
    struct walk *next; /* of those that are over */
    pthread_t thread;
    bool house;
    void (*work)(void *arg);
    void (*done)(void *arg);
    void *arg;
};
struct walks {
    struct loop_wake *wake;
    uint32_t count, houses;
    atomic_bool stopped;
    pthread_mutex_t lock; /* of over */
    struct walk *over;
};

static void *run(void *arg) {
    struct walk *k = arg;
    struct walks *w = k->walks;
    pthread_setname_np(pthread_self(), "walk");
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* of this thread alone; refused, it walks as others do */
    k->work(k->arg);
    pthread_mutex_lock(&w->lock);
    k->next = w->over;
    w->over = k;
    /* under the lock: the loop may free the walks as soon as it has seen the last one */
    loop_wake_send(w->wake);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void on_wake(void *arg) {
    struct walks *w = arg;
    pthread_mutex_lock(&w->lock);
    struct walk *k = w->over;
    w->over = NULL;
    pthread_mutex_unlock(&w->lock);
    for (struct walk *next; k; k = next) {
        next = k->next;
        pthread_join(k->thread, NULL);
        w->count--;
        w->houses -= k->house;
        k->done(k->arg);
        free(k);
    }
}

struct walks *walks_new(struct loop *l) {
    struct walks *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->wake = loop_wake_new(l, on_wake, w);
    if (!w->wake) {
        free(w);
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

void walks_free(struct walks *w) {
    if (!w)
        return;
    CHECK(w->count == 0);
    loop_wake_close(w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int walks_start(struct walks *w, bool house, void (*work)(void *arg), void (*done)(void *arg), void *arg) {
    if (!house && w->count - w->houses >= WALKS_MAX)
        return ERR_AGAIN;
    struct walk *k = calloc(1, sizeof *k);
    if (!k)
        return ERR_NOMEM;
    *k = (struct walk){.walks = w, .house = house, .work = work, .done = done, .arg = arg};
    /* the thread's own id is read by the loop only after the walk is over, and is set by then */
    pthread_mutex_lock(&w->lock);
    int failed = pthread_create(&k->thread, NULL, run, k);
    pthread_mutex_unlock(&w->lock);
    if (failed) {
        free(k);
        return ERR_NOMEM;
    }
    w->count++;
    w->houses += house;
    return ERR_OK;
}

uint32_t walks_count(const struct walks *w) {
    return w->count;
}

void walks_stop(struct walks *w) {
    atomic_store(&w->stopped, true);
}

bool walks_is_stopped(const struct walks *w) {
    return atomic_load(&w->stopped);
}
