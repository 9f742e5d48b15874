/*
 * reload: see reload.h. One reading at a time; a file that changes several times within SETTLE_MS (an editor
 * at work) is read once.
 */
#include "node/reload.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "node/notify.h"

#define SETTLE_MS 200u
#define WATCHES_MAX 4096u
#define PROBLEMS_MAX 65536u

struct reload {
    struct loop *loop;
    const struct settings *in_force;
    struct parts *current;
    reload_cb cb;
    reload_told_cb told;
    void *arg;
    uint64_t begun; /* readings of all */
    struct loop_timer *timer;
    struct loop_watch **watches;
    size_t watch_count;
    bool busy, wants_all, wants_files, closed;
    /* the reading */
    bool all;
    struct settings *settings;
    struct parts *fresh;
    struct buf problems;
    int err;
};

static void on_change(void *arg) {
    reload_files(arg);
}

static void watch_files(struct reload *r) {
    for (size_t i = 0; i < r->watch_count; i++)
        loop_watch_close(r->watches[i]);
    r->watch_count = 0;
    size_t count = 0;
    while (count < WATCHES_MAX && parts_file(r->current, count))
        count++;
    struct loop_watch **grown = realloc(r->watches, (count + 1) * sizeof(struct loop_watch *));
    CHECK(grown);
    r->watches = grown;
    for (size_t i = 0; i < count; i++) {
        struct loop_watch *w = loop_watch_new(r->loop, parts_file(r->current, i), on_change, r);
        if (w)
            r->watches[r->watch_count++] = w;
        else
            LOG_WARN("file_not_watched", LOG_STR("file", parts_file(r->current, i)));
    }
}

static void work(void *arg) {
    struct reload *r = arg;
    if (!r->all) {
        r->err = parts_reload(r->current, r->in_force, &r->fresh, &r->problems);
        return;
    }
    r->err = settings_load(&r->settings, r->in_force->file, &r->problems);
    if (r->err == ERR_OK)
        r->err = parts_new(&r->fresh, r->settings, r->current, &r->problems);
}

/* "FILE: warning: what" */
static bool is_warning(struct span line) {
    return line.len && memmem(line.at, line.len, ": warning: ", strlen(": warning: "));
}

void reload_log_problems(const struct buf *problems) {
    struct span rest = buf_span(problems);
    while (rest.len) {
        struct span line = span_cut(rest, '\n', &rest);
        if (is_warning(line))
            LOG_WARN("settings_warning", LOG_SPAN("problem", line));
        else if (line.len)
            LOG_ERROR("settings_problem", LOG_SPAN("problem", line));
    }
}

static void next(struct reload *r);

static void release(struct reload *r) {
    parts_unref(r->current);
    buf_deinit(&r->problems);
    free(r->watches);
    free(r);
}

/* Nobody wants what was read. */
static void drop_reading(struct reload *r) {
    settings_free(r->settings);
    parts_unref(r->fresh);
    r->settings = NULL;
    r->fresh = NULL;
}

static void take_reading(struct reload *r) {
    struct settings *settings = r->settings;
    struct parts *fresh = r->fresh;
    r->settings = NULL;
    r->fresh = NULL;
    parts_unref(r->current);
    r->current = parts_ref(fresh);
    watch_files(r);
    if (settings)
        r->in_force = settings;
    r->cb(r->arg, settings, fresh);
    LOG_INFO("reloaded", LOG_STR("what", r->all ? "settings" : "files"));
}

static void done(void *arg) {
    struct reload *r = arg;
    r->busy = false;
    if (r->closed) {
        drop_reading(r);
        release(r);
        return;
    }
    reload_log_problems(&r->problems);
    if (r->fresh && !(r->all && r->err != ERR_OK)) {
        take_reading(r);
    } else {
        if (r->all)
            LOG_ERROR("reload_refused", LOG_STR("file", r->in_force->file), LOG_ERR("why", r->err),
                      LOG_STR("hint", "the old settings stay in force"));
        drop_reading(r);
    }
    if (r->all)
        notify_state(NOTIFY_STATE_READY);
    if (r->all && r->told)
        r->told(r->arg, r->begun, r->err, &r->problems);
    next(r);
}

static void next(struct reload *r) {
    if (r->busy || !(r->wants_all || r->wants_files))
        return;
    r->all = r->wants_all;
    r->wants_all = r->wants_files = false;
    r->settings = NULL;
    r->fresh = NULL;
    r->err = ERR_OK;
    buf_clear(&r->problems);
    r->busy = loop_work(r->loop, work, done, r) == ERR_OK;
    r->begun += r->busy && r->all;
    if (r->busy)
        return;
    LOG_ERROR("reload_refused", LOG_STR("file", r->in_force->file), LOG_STR("why", "no helper thread"));
    if (r->all)
        notify_state(NOTIFY_STATE_READY);
}

uint64_t reload_all(struct reload *r) {
    notify_state(NOTIFY_STATE_RELOADING);
    r->wants_all = true;
    next(r);
    return r->wants_all ? r->begun + 1 : r->busy ? r->begun : 0;
}

void reload_tell(struct reload *r, reload_told_cb told) {
    r->told = told;
}

void reload_files(struct reload *r) {
    r->wants_files = true;
    loop_timer_set(r->timer, SETTLE_MS);
}

static void on_timer(void *arg) {
    next(arg);
}

bool reload_is_busy(const struct reload *r) {
    return r->busy;
}

struct reload *reload_new(struct loop *l, const struct settings *settings, struct parts *current, reload_cb cb,
                          void *arg) {
    struct reload *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->loop = l;
    r->in_force = settings;
    r->current = parts_ref(current);
    r->cb = cb;
    r->arg = arg;
    r->timer = loop_timer_new(l, on_timer, r);
    buf_init(&r->problems, PROBLEMS_MAX);
    CHECK(r->timer);
    watch_files(r);
    return r;
}

void reload_free(struct reload *r) {
    if (!r)
        return;
    for (size_t i = 0; i < r->watch_count; i++)
        loop_watch_close(r->watches[i]);
    r->watch_count = 0;
    loop_timer_close(r->timer);
    r->closed = true;
    if (!r->busy)
        release(r);
}
