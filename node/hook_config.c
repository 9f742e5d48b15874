/*
 * hook_config: what hooks are told, as copies that outlive the settings they came from; and their counts.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "node/hook.h"

/* -- copies -- */

static void copy_text(struct arena *mem, const char **text) {
    *text = *text ? arena_strdup(mem, *text) : NULL;
}

static const char *const *copy_list(struct arena *mem, const char *const *list, size_t count) {
    const char **copy = arena_calloc(mem, count + 1, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++)
        if (!(copy[i] = arena_strdup(mem, list[i])))
            return NULL;
    return copy;
}

static size_t length_of(const char *const *list) {
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

static bool copy_config(struct arena *mem, const struct hook_config *from, struct hook_config *to) {
    *to = *from;
    const char **const texts[] = {&to->name,           &to->target.url,         &to->target.socket, &to->target.bearer,
                                  &to->target.ca_file, &to->target.certificate, &to->target.key};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        bool is_set = *texts[i];
        copy_text(mem, texts[i]);
        if (is_set && !*texts[i])
            return false;
    }
    to->events = copy_list(mem, from->events, from->event_count);
    to->target.headers = copy_list(mem, from->target.headers, length_of(from->target.headers));
    return to->events && to->target.headers;
}

struct hook_set *hook_set_copy(const struct hook_config *c, size_t count) {
    struct hook_set *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    arena_init(&s->mem, 4096, 0);
    s->hooks = arena_calloc(&s->mem, count + 1, sizeof *s->hooks);
    s->count = count;
    bool fine = s->hooks;
    for (size_t i = 0; fine && i < count; i++)
        fine = copy_config(&s->mem, &c[i], &s->hooks[i]);
    if (fine)
        return s;
    hook_set_free(s);
    return NULL;
}

void hook_set_free(struct hook_set *s) {
    if (!s)
        return;
    arena_deinit(&s->mem);
    free(s);
}

/* -- comparing -- */

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_list(const char *const *a, size_t n, const char *const *b, size_t m) {
    if (n != m)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return true;
}

bool hook_config_is_same(const struct hook_config *a, const struct hook_config *b) {
    const struct hook_target *x = &a->target, *y = &b->target;
    return same_text(a->name, b->name) && same_text(x->url, y->url) && same_text(x->socket, y->socket) &&
           same_text(x->bearer, y->bearer) && same_text(x->ca_file, y->ca_file) &&
           same_text(x->certificate, y->certificate) && same_text(x->key, y->key) && x->timeout_ms == y->timeout_ms &&
           same_list(x->headers, length_of(x->headers), y->headers, length_of(y->headers)) &&
           same_list(a->events, a->event_count, b->events, b->event_count) && a->batch == b->batch &&
           a->wait_ms == b->wait_ms && a->spool == b->spool && a->retry_ms == b->retry_ms;
}

/* -- counts -- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hook_metrics all[HOOK_METRICS_MAX + 1];
static size_t named;

static void define(struct metric *m, enum metric_kind kind, const char *label, const char *name, const char *help) {
    m->name = name;
    m->help = help;
    m->labels = label;
    m->kind = kind;
    metric_register(m);
}

static void define_all(struct hook_metrics *m, const char *name) {
    snprintf(m->label, sizeof m->label, "hook=\"%.40s\"", name);
    define(&m->dropped, METRIC_KIND_COUNTER, m->label, "posthouse_hook_dropped_total",
           "Events that a hook wanted and will not get: its spool, or the way to it, was full");
    define(&m->delivered, METRIC_KIND_COUNTER, m->label, "posthouse_hook_delivered_total", "Events that a hook took");
    define(&m->failures, METRIC_KIND_COUNTER, m->label, "posthouse_hook_failures_total",
           "Batches that a hook did not take, and that come again");
    define(&m->waiting, METRIC_KIND_GAUGE, m->label, "posthouse_hook_waiting", "Events in the spool of a hook");
}

struct hook_metrics *hook_metrics_of(const char *name) {
    char label[sizeof all[0].label];
    snprintf(label, sizeof label, "hook=\"%.40s\"", name);
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < named && strcmp(all[i].label, label) != 0)
        i++;
    if (i == named && named <= HOOK_METRICS_MAX)
        define_all(&all[named++], i < HOOK_METRICS_MAX ? name : "others");
    pthread_mutex_unlock(&lock);
    return &all[i < HOOK_METRICS_MAX ? i : HOOK_METRICS_MAX];
}
