/*
 * hook: one hook. Each line gets a number and goes to the spool; what is sent is read from there, so that memory holds
 * one batch, whatever waits.
 *
 * A hook sends one batch at a time. It is quiet (nothing waits), gathering (less than a batch waits: the timer runs),
 * sending, or pausing after a failure (the timer runs, from 1 second on, doubled up to retry_ms). A spool that cannot
 * be opened is a pause too.
 */
#include "node/hook_in.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

#define PAUSE_FIRST_MS 1000u
#define SPOOL_RETRY_MS 10000u
#define SAY_AGAIN_MS 10000u
#define BODY_MAX (1024u * 1024u)

/* -- what is lost -- */

static void say_lost(struct hook *h) {
    uint64_t now_ms = loop_now_ms(h->all->loop);
    if (!h->unsaid || (h->said_at_ms && now_ms - h->said_at_ms < SAY_AGAIN_MS))
        return;
    LOG_WARN("hook_dropped", LOG_STR("hook", h->config->name), LOG_U64("events", h->unsaid),
             LOG_U64("waiting", h->spool ? hook_spool_count(h->spool) : 0), LOG_STR("why", h->lost_why));
    h->unsaid = 0;
    h->said_at_ms = now_ms;
}

static void count_lost(struct hook *h, uint64_t n, const char *why) {
    h->lost_why = why;
    metric_add(&h->metrics->dropped, n);
    h->unsaid += n;
}

static void show_waiting(struct hook *h) {
    metric_set(&h->metrics->waiting, h->spool ? hook_spool_count(h->spool) : 0);
}

/* -- sending -- */

static void pause_for(struct hook *h, uint64_t ms) {
    h->state = HOOK_PAUSING;
    loop_timer_set(h->timer, ms);
}

static void on_failure(struct hook *h, const char *why) {
    uint64_t max_ms = h->config->retry_ms;
    metric_add(&h->metrics->failures, 1);
    h->pause_ms = h->pause_ms ? h->pause_ms * 2 : PAUSE_FIRST_MS;
    if (h->pause_ms > max_ms)
        h->pause_ms = max_ms;
    LOG_WARN("hook_failed", LOG_STR("hook", h->config->name), LOG_STR("why", why),
             LOG_U64("waiting", hook_spool_count(h->spool)), LOG_U64("retry_ms", h->pause_ms));
    pause_for(h, h->pause_ms);
}

bool hook_is_at_rest(const struct hook *h) {
    return h->state == HOOK_QUIET || h->state == HOOK_PAUSING;
}

static void on_sent(void *arg, bool taken, const char *why) {
    struct hook *h = arg;
    h->state = HOOK_QUIET;
    if (taken) {
        metric_add(&h->metrics->delivered, h->lines);
        hook_spool_take(h->spool, h->last);
        if (h->pause_ms)
            LOG_INFO("hook_works_again", LOG_STR("hook", h->config->name),
                     LOG_U64("waiting", hook_spool_count(h->spool)));
        h->pause_ms = 0;
        hook_step(h);
    } else {
        on_failure(h, why);
    }
    if (h->all->closing)
        hooks_on_rest(h->all);
}

static void send_batch(struct hook *h) {
    int err = hook_spool_peek(h->spool, h->config->batch, &h->body, &h->last);
    if (err) {
        on_failure(h, err_text(err));
        return;
    }
    if (!h->last) {
        h->state = HOOK_QUIET;
        return;
    }
    struct span body = buf_span(&h->body);
    h->lines = 0;
    for (size_t i = 0; i < body.len; i++)
        h->lines += body.at[i] == '\n';
    h->state = HOOK_SENDING;
    loop_timer_stop(h->timer);
    hook_sink_send(h->sink, body);
}

void hook_step(struct hook *h) {
    show_waiting(h);
    say_lost(h);
    if (!h->spool || !(h->state == HOOK_QUIET || h->state == HOOK_GATHERING))
        return;
    uint64_t waiting = hook_spool_count(h->spool);
    if (waiting >= h->config->batch || (waiting && h->all->closing)) {
        send_batch(h);
    } else if (waiting && h->state == HOOK_QUIET) {
        h->state = HOOK_GATHERING;
        loop_timer_set(h->timer, h->config->wait_ms);
    }
}

/* -- the spool -- */

static void open_spool(struct hook *h) {
    char dir[4096];
    uint64_t damaged;
    snprintf(dir, sizeof dir, "%s/%s", h->all->dir, h->config->name);
    int err = hook_spool_open(&h->spool, dir, h->config->spool, &damaged);
    if (err) {
        LOG_ERROR("hook_spool_failed", LOG_STR("hook", h->config->name), LOG_STR("dir", dir), LOG_ERR("error", err),
                  LOG_STR("why", strerror(errno)));
        pause_for(h, SPOOL_RETRY_MS);
        return;
    }
    if (damaged)
        LOG_WARN("hook_spool_damaged", LOG_STR("hook", h->config->name), LOG_STR("dir", dir),
                 LOG_U64("octets", damaged));
    h->state = HOOK_QUIET;
    hook_step(h);
}

static void on_timer(void *arg) {
    struct hook *h = arg;
    if (!h->spool)
        open_spool(h);
    else if (h->state == HOOK_GATHERING || h->state == HOOK_PAUSING)
        send_batch(h);
}

/* The line with its number and the node in front. */
static struct span dress(const struct hook *h, struct span line, char mem[HOOK_LINE_MAX]) {
    int n = snprintf(mem, HOOK_LINE_MAX, "{\"seq\":%llu,\"node\":\"%s\",",
                     (unsigned long long)hook_spool_next(h->spool), h->all->node);
    CHECK(n > 0 && (size_t)n + line.len - 1 <= HOOK_LINE_MAX && line.at[0] == '{');
    memcpy(mem + n, line.at + 1, line.len - 1);
    return span_make(mem, (size_t)n + line.len - 1);
}

void hook_keep(struct hook *h, struct span line) {
    char mem[HOOK_LINE_MAX];
    uint64_t dropped = 0;
    int err = h->spool ? hook_spool_add(h->spool, dress(h, line, mem), &dropped) : ERR_OK;
    if (dropped)
        count_lost(h, dropped, "the spool is full");
    if (err || !h->spool)
        count_lost(h, 1, h->spool ? err_text(err) : "the spool cannot be opened");
}

/* -- the hooks -- */

void hook_free(struct hook *h) {
    if (!h)
        return;
    hook_sink_free(h->sink);
    hook_spool_close(h->spool);
    if (h->timer)
        loop_timer_close(h->timer);
    buf_deinit(&h->body);
    hook_set_free(h->own);
    free(h);
}

static bool set_config(struct hook *h, const struct hook_config *c) {
    struct hook_set *own = hook_set_copy(c, 1);
    struct hook_sink *sink;
    if (!own || hook_sink_new(&sink, h->all->loop, &own->hooks[0].target, on_sent, h) != ERR_OK) {
        hook_set_free(own);
        return false;
    }
    hook_sink_free(h->sink);
    hook_set_free(h->own);
    h->sink = sink;
    h->own = own;
    h->config = &own->hooks[0];
    return true;
}

struct hook *hook_new(struct hooks *all, const struct hook_config *c) {
    struct hook *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->all = all;
    h->metrics = hook_metrics_of(c->name);
    buf_init(&h->body, BODY_MAX);
    h->timer = loop_timer_new(all->loop, on_timer, h);
    if (h->timer && set_config(h, c)) {
        open_spool(h);
        return h;
    }
    hook_free(h);
    return NULL;
}

bool hook_change(struct hook *h, const struct hook_config *c) {
    if (hook_config_is_same(h->config, c))
        return true;
    if (!set_config(h, c))
        return false;
    if (h->spool) {
        hook_spool_set_max(h->spool, c->spool);
        loop_timer_stop(h->timer);
        h->pause_ms = 0;
        h->state = HOOK_QUIET;
        hook_step(h);
    }
    return true;
}
