/*
 * hook_thread: all hooks, on a thread and a loop of their own: takes lines from hook_queue and spreads them, takes over
 * settings that another thread has handed over, and ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/log.h"

#include "node/hook_in.h"
#include "node/hook_queue.h"

/* -- on the thread -- */

static void spread(struct hooks *all) {
    struct span event, line;
    hook_queue_take(&all->lines);
    if (!buf_len(&all->lines))
        return;
    while (hook_queue_next(&all->lines, &event, &line)) {
        for (size_t i = 0; i < all->count; i++) {
            const struct hook_config *c = all->hooks[i]->config;
            struct hook_wish w = {.events = c->events, .event_count = c->event_count};
            if (hook_wants(&w, event))
                hook_keep(all->hooks[i], line);
        }
    }
    for (size_t i = 0; i < all->count; i++)
        hook_step(all->hooks[i]);
}

/* Takes the hook of that name out of the list; NULL: there is none. */
static struct hook *take_hook(struct hooks *all, const char *name) {
    for (size_t i = 0; i < all->count; i++) {
        struct hook *h = all->hooks[i];
        if (h && strcmp(h->config->name, name) == 0) {
            all->hooks[i] = NULL;
            return h;
        }
    }
    return NULL;
}

static void take_over(struct hooks *all, struct hook_set *fresh) {
    struct hook *now[HOOKS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < fresh->count; i++) {
        const struct hook_config *c = &fresh->hooks[i];
        struct hook *h = take_hook(all, c->name);
        bool fine = h ? hook_change(h, c) : (h = hook_new(all, c)) != NULL;
        if (!fine)
            LOG_ERROR("hook_refused", LOG_STR("hook", c->name), LOG_ERR("why", ERR_NOMEM));
        if (h)
            now[count++] = h;
    }
    for (size_t i = 0; i < all->count; i++) /* their spools stay where they are */
        hook_free(all->hooks[i]);
    memcpy(all->hooks, now, count * sizeof *now);
    all->count = count;
    hook_set_free(fresh);
}

void hooks_on_rest(struct hooks *all) {
    for (size_t i = 0; i < all->count; i++)
        if (!hook_is_at_rest(all->hooks[i]))
            return;
    loop_stop(all->loop);
}

static void on_flushed(void *arg) {
    struct hooks *all = arg;
    loop_stop(all->loop);
}

static void on_wake(void *arg) {
    struct hooks *all = arg;
    pthread_mutex_lock(&all->lock);
    struct hook_set *fresh = all->fresh;
    bool begins_to_close = all->close && !all->closing;
    all->fresh = NULL;
    pthread_mutex_unlock(&all->lock);
    if (fresh)
        take_over(all, fresh);
    spread(all);
    if (!begins_to_close)
        return;
    all->closing = true;
    loop_timer_set(all->flush, HOOKS_FLUSH_MS);
    for (size_t i = 0; i < all->count; i++)
        hook_step(all->hooks[i]);
    hooks_on_rest(all);
}

static void *run(void *arg) {
    struct hooks *all = arg;
    loop_run(all->loop);
    for (size_t i = 0; i < all->count; i++)
        hook_free(all->hooks[i]);
    return NULL;
}

/* -- from outside -- */

static void send_wake(void *arg) {
    struct hooks *all = arg;
    loop_wake_send(all->wake);
}

static int want(const struct hook_config *c, size_t count) {
    struct hook_wish wishes[HOOKS_MAX];
    for (size_t i = 0; i < count; i++)
        wishes[i] = (struct hook_wish){
            .events = c[i].events, .event_count = c[i].event_count, .dropped = &hook_metrics_of(c[i].name)->dropped};
    return hook_queue_want(wishes, count);
}

int hooks_reconfigure(struct hooks *all, const struct hook_config *c, size_t count) {
    CHECK(count <= HOOKS_MAX);
    struct hook_set *fresh = hook_set_copy(c, count);
    if (!fresh)
        return ERR_NOMEM;
    int err = want(c, count);
    if (err) {
        hook_set_free(fresh);
        return err;
    }
    pthread_mutex_lock(&all->lock);
    struct hook_set *old = all->fresh;
    all->fresh = fresh;
    pthread_mutex_unlock(&all->lock);
    hook_set_free(old);
    loop_wake_send(all->wake);
    return ERR_OK;
}

static void release(struct hooks *all) {
    if (all->flush)
        loop_timer_close(all->flush);
    if (all->wake)
        loop_wake_close(all->wake);
    if (all->loop)
        loop_free(all->loop);
    hook_set_free(all->fresh);
    buf_deinit(&all->lines);
    pthread_mutex_destroy(&all->lock);
    free(all->node);
    free(all->dir);
    free(all);
}

int hooks_open(struct hooks **out, const char *dir, const char *node, const struct hook_config *c, size_t count) {
    *out = NULL;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return ERR_IO;
    struct hooks *all = calloc(1, sizeof *all);
    if (!all)
        return ERR_NOMEM;
    pthread_mutex_init(&all->lock, NULL);
    buf_init(&all->lines, HOOK_QUEUE_BYTES);
    all->node = strdup(node);
    all->dir = strdup(dir);
    all->loop = loop_new();
    all->wake = all->loop ? loop_wake_new(all->loop, on_wake, all) : NULL;
    all->flush = all->loop ? loop_timer_new(all->loop, on_flushed, all) : NULL;
    if (!all->node || !all->dir || !all->wake || !all->flush || pthread_create(&all->thread, NULL, run, all) != 0) {
        release(all);
        return ERR_NOMEM;
    }
    *out = all;
    hook_queue_open(send_wake, all);
    int err = hooks_reconfigure(all, c, count);
    if (err) {
        hooks_close(all);
        *out = NULL;
    }
    return err;
}

void hooks_close(struct hooks *all) {
    if (!all)
        return;
    hook_queue_close();
    pthread_mutex_lock(&all->lock);
    all->close = true;
    pthread_mutex_unlock(&all->lock);
    loop_wake_send(all->wake);
    pthread_join(all->thread, NULL);
    release(all);
}
