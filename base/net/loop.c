/*
 * loop: one libuv loop with our names around it. Each handle of ours begins with the uv
 * handle, is allocated here and freed in its close callback, also when its owner never
 * closed it (loop_free walks the rest).
 *
 * Hooks share one prepare, one check and one idle handle per loop. They are unreferenced:
 * a hook does not keep the loop alive, the work that it announces does.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/net/loop.h"
#include "base/net/loop_uv.h"

/* -- the loop -- */

static void release_nothing(uv_handle_t *h) {
    (void)h;
}

/* Right for every handle that is the first member of its allocation. */
static void release_memory(uv_handle_t *h) {
    free(h);
}

struct loop *loop_new(void) {
    struct loop *l = calloc(1, sizeof *l);
    char *lent = malloc(LOOP_LENT_SIZE + 1);
    if (!l || !lent || uv_loop_init(&l->uv)) {
        free(lent);
        free(l);
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN);
    l->lent = lent;
    list_init(&l->hooks);
    list_init(&l->tcp_resumed);
    list_init(&l->tcp_full);
    uv_prepare_init(&l->uv, &l->prepare);
    uv_check_init(&l->uv, &l->check);
    uv_idle_init(&l->uv, &l->idle);
    loop_set_release((uv_handle_t *)&l->prepare, release_nothing);
    loop_set_release((uv_handle_t *)&l->check, release_nothing);
    loop_set_release((uv_handle_t *)&l->idle, release_nothing);
    uv_unref((uv_handle_t *)&l->prepare);
    uv_unref((uv_handle_t *)&l->check);
    return l;
}

void loop_run(struct loop *l) {
    uv_run(&l->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *l) {
    uv_stop(&l->uv);
}

static void close_left(uv_handle_t *h, void *arg) {
    (void)arg;
    loop_close_handle(h);
}

static void free_hooks(struct loop *l);

void loop_free(struct loop *l) {
    if (!l)
        return;
    do {
        uv_walk(&l->uv, close_left, NULL);
        uv_run(&l->uv, UV_RUN_DEFAULT);
    } while (uv_loop_close(&l->uv) == UV_EBUSY);
    free_hooks(l);
    free(l->lent);
    free(l);
}

uint64_t loop_now_ms(const struct loop *l) {
    return uv_now(&l->uv);
}

/* -- timers -- */

struct loop_timer {
    uv_timer_t uv;
    loop_timer_cb cb;
    void *arg;
};

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_cb cb, void *arg) {
    struct loop_timer *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    CHECK(uv_timer_init(&l->uv, &t->uv) == 0);
    loop_set_release((uv_handle_t *)&t->uv, release_memory);
    t->cb = cb;
    t->arg = arg;
    return t;
}

static void on_timer(uv_timer_t *uv) {
    struct loop_timer *t = CONTAINER_OF(uv, struct loop_timer, uv);
    struct loop *l = CONTAINER_OF(uv->loop, struct loop, uv);
    l->in_timer = true;
    t->cb(t->arg);
    l->in_timer = false;
}

void loop_timer_set(struct loop_timer *t, uint64_t delay_ms) {
    /* libuv runs all timers that are due before it goes on, so one that a timer makes due at once
     * again and again would keep the loop from ever polling. */
    if (delay_ms == 0 && CONTAINER_OF(t->uv.loop, struct loop, uv)->in_timer)
        delay_ms = 1;
    uv_timer_start(&t->uv, on_timer, delay_ms, 0);
}

void loop_timer_stop(struct loop_timer *t) {
    uv_timer_stop(&t->uv);
}

void loop_timer_close(struct loop_timer *t) {
    loop_close_handle((uv_handle_t *)&t->uv);
}

/* -- wake-ups -- */

struct loop_wake {
    uv_async_t uv;
    loop_wake_cb cb;
    void *arg;
};

static void on_wake(uv_async_t *uv) {
    struct loop_wake *w = CONTAINER_OF(uv, struct loop_wake, uv);
    w->cb(w->arg);
}

struct loop_wake *loop_wake_new(struct loop *l, loop_wake_cb cb, void *arg) {
    struct loop_wake *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->cb = cb;
    w->arg = arg;
    if (uv_async_init(&l->uv, &w->uv, on_wake)) {
        free(w);
        return NULL;
    }
    loop_set_release((uv_handle_t *)&w->uv, release_memory);
    return w;
}

void loop_wake_send(struct loop_wake *w) {
    uv_async_send(&w->uv);
}

void loop_wake_close(struct loop_wake *w) {
    loop_close_handle((uv_handle_t *)&w->uv);
}

/* -- descriptors -- */

struct loop_poll {
    uv_poll_t uv;
    loop_poll_cb cb;
    void *arg;
};

struct loop_poll *loop_poll_new(struct loop *l, int fd, loop_poll_cb cb, void *arg) {
    struct loop_poll *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    if (uv_poll_init(&l->uv, &p->uv, fd)) {
        free(p);
        return NULL;
    }
    loop_set_release((uv_handle_t *)&p->uv, release_memory);
    p->cb = cb;
    p->arg = arg;
    return p;
}

static void on_poll(uv_poll_t *uv, int status, int events) {
    struct loop_poll *p = CONTAINER_OF(uv, struct loop_poll, uv);
    int seen = (events & UV_READABLE ? LOOP_READABLE : 0) | (events & UV_WRITABLE ? LOOP_WRITABLE : 0);
    p->cb(p->arg, seen, status < 0);
}

void loop_poll_set(struct loop_poll *p, int events) {
    int wanted = (events & LOOP_READABLE ? UV_READABLE : 0) | (events & LOOP_WRITABLE ? UV_WRITABLE : 0);
    if (wanted)
        uv_poll_start(&p->uv, wanted, on_poll);
    else
        uv_poll_stop(&p->uv);
}

void loop_poll_close(struct loop_poll *p) {
    loop_close_handle((uv_handle_t *)&p->uv);
}

/* -- hooks -- */

struct loop_hook {
    struct list_node in_loop;
    struct loop *loop;
    loop_before_cb before;
    loop_after_cb after;
    void *arg;
    bool closed;
};

static void on_idle(uv_idle_t *uv) {
    (void)uv;
}

void loop_turn_soon(struct loop *l) {
    uv_idle_start(&l->idle, on_idle);
}

/* Hooks that were closed while the list was walked go here. */
static void sweep_hooks(struct loop *l) {
    l->in_hooks = false;
    LIST_FOREACH(node, next, &l->hooks) {
        struct loop_hook *h = LIST_ENTRY(node, struct loop_hook, in_loop);
        if (h->closed) {
            list_remove(&l->hooks, node);
            free(h);
        }
    }
    if (list_is_empty(&l->hooks)) {
        uv_prepare_stop(&l->prepare);
        uv_check_stop(&l->check);
        uv_idle_stop(&l->idle);
    }
}

static void on_prepare(uv_prepare_t *uv) {
    struct loop *l = CONTAINER_OF(uv, struct loop, prepare);
    bool pending = false;
    uv_idle_stop(&l->idle); /* a callback below may start it again through loop_turn_soon */
    l->in_hooks = true;
    LIST_FOREACH(node, next, &l->hooks) {
        struct loop_hook *h = LIST_ENTRY(node, struct loop_hook, in_loop);
        if (!h->closed && h->before && h->before(h->arg))
            pending = true;
    }
    if (pending)
        loop_turn_soon(l);
    sweep_hooks(l);
}

static void on_check(uv_check_t *uv) {
    struct loop *l = CONTAINER_OF(uv, struct loop, check);
    l->in_hooks = true;
    LIST_FOREACH(node, next, &l->hooks) {
        struct loop_hook *h = LIST_ENTRY(node, struct loop_hook, in_loop);
        if (!h->closed && h->after)
            h->after(h->arg);
    }
    sweep_hooks(l);
}

struct loop_hook *loop_hook_new(struct loop *l, loop_before_cb before, loop_after_cb after, void *arg) {
    struct loop_hook *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    *h = (struct loop_hook){.loop = l, .before = before, .after = after, .arg = arg};
    list_push_back(&l->hooks, &h->in_loop);
    uv_prepare_start(&l->prepare, on_prepare);
    uv_check_start(&l->check, on_check);
    return h;
}

void loop_hook_close(struct loop_hook *h) {
    h->closed = true;
    if (!h->loop->in_hooks)
        sweep_hooks(h->loop);
}

static void free_hooks(struct loop *l) {
    struct list_node *node;
    while ((node = list_pop_front(&l->hooks)))
        free(LIST_ENTRY(node, struct loop_hook, in_loop));
}

/* -- signals -- */

struct loop_signal {
    uv_signal_t uv;
    loop_signal_cb cb;
    void *arg;
};

static void on_signal(uv_signal_t *uv, int signum) {
    struct loop_signal *s = CONTAINER_OF(uv, struct loop_signal, uv);
    s->cb(s->arg, signum);
}

struct loop_signal *loop_signal_new(struct loop *l, int signum, loop_signal_cb cb, void *arg) {
    struct loop_signal *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->cb = cb;
    s->arg = arg;
    if (uv_signal_init(&l->uv, &s->uv)) {
        free(s);
        return NULL;
    }
    loop_set_release((uv_handle_t *)&s->uv, release_memory);
    if (uv_signal_start(&s->uv, on_signal, signum)) {
        loop_signal_close(s);
        return NULL;
    }
    return s;
}

void loop_signal_close(struct loop_signal *s) {
    loop_close_handle((uv_handle_t *)&s->uv);
}

/* -- files -- */

enum { WATCH_PERIOD_MS = 500 };

/* What tells one state of a file from another. */
struct look {
    uint64_t device, inode, size;
    int64_t changed_s, changed_ns;
};
struct loop_watch {
    uv_timer_t uv;
    loop_watch_cb cb;
    void *arg;
    struct look told, last; /* what the owner knows of, what the last look saw */
    char path[];
};

static struct look look_at(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0)
        return (struct look){0};
    return (struct look){st.st_dev, st.st_ino, (uint64_t)st.st_size, st.st_ctim.tv_sec, st.st_ctim.tv_nsec};
}

static bool same_look(const struct look *a, const struct look *b) {
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->changed_s == b->changed_s &&
           a->changed_ns == b->changed_ns;
}

static void on_watch(uv_timer_t *uv) {
    struct loop_watch *w = CONTAINER_OF(uv, struct loop_watch, uv);
    struct look now = look_at(w->path);
    bool at_rest = same_look(&now, &w->last); /* a file that is still being written is left alone */
    w->last = now;
    if (!at_rest || now.inode == 0 || same_look(&now, &w->told))
        return;
    w->told = now;
    w->cb(w->arg);
}

struct loop_watch *loop_watch_new(struct loop *l, const char *path, loop_watch_cb cb, void *arg) {
    size_t len = strlen(path);
    struct loop_watch *w = calloc(1, sizeof *w + len + 1);
    if (!w)
        return NULL;
    memcpy(w->path, path, len + 1);
    w->cb = cb;
    w->arg = arg;
    w->told = w->last = look_at(path);
    CHECK(uv_timer_init(&l->uv, &w->uv) == 0);
    loop_set_release((uv_handle_t *)&w->uv, release_memory);
    uv_timer_start(&w->uv, on_watch, WATCH_PERIOD_MS, WATCH_PERIOD_MS);
    uv_unref((uv_handle_t *)&w->uv);
    return w;
}

void loop_watch_close(struct loop_watch *w) {
    loop_close_handle((uv_handle_t *)&w->uv);
}

/* -- work -- */

struct work {
    uv_work_t uv;
    void (*work)(void *arg);
    void (*done)(void *arg);
    void *arg;
};

static void on_work(uv_work_t *uv) {
    struct work *w = CONTAINER_OF(uv, struct work, uv);
    w->work(w->arg);
}

static void on_work_done(uv_work_t *uv, int status) {
    struct work *w = CONTAINER_OF(uv, struct work, uv);
    (void)status; /* work is never canceled */
    w->done(w->arg);
    free(w);
}

int loop_work(struct loop *l, void (*work)(void *arg), void (*done)(void *arg), void *arg) {
    struct work *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NOMEM;
    w->work = work;
    w->done = done;
    w->arg = arg;
    if (uv_queue_work(&l->uv, &w->uv, on_work, on_work_done)) {
        free(w);
        return ERR_NOMEM;
    }
    return ERR_OK;
}
