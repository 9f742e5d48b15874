/*
 * etcd_ask: one question to etcd with its repetitions. It waits for a token if one is needed, goes to the current
 * endpoint, and judges what comes back: a failure of the endpoint, a fault of the token, a refusal, or an answer.
 *
 * A question that failed goes to the next endpoint at once, and when all have failed, again after a growing pause,
 * until its time is over. One that must not be done twice ends in doubt instead, unless it certainly was not done:
 * nothing was sent, or etcd says why it refused.
 *
 * Few gets and transactions are on their way at a time; the others queue here, in their order, so that the time in
 * which an endpoint must answer does not begin before the endpoint was asked.
 *
 * The timer of an ask runs only while nothing is on its way: libcurl's door keeps the time of what is.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"

#include "base/net/etcd_in.h"
#include "base/net/secret.h"

enum { PAUSE_MS = 50, PAUSE_MAX_MS = 1000, TOKENS_MAX = 3 };

struct etcd_ask {
    struct list_node node;
    struct etcd *e;
    struct etcd_ask_config config;
    struct buf body;
    struct loop_timer *timer;
    struct http_request *request;
    uint64_t deadline_ms; /* loop_now_ms */
    uint64_t sent_ms;     /* clock_boot_ms */
    uint64_t floor;       /* revision that the store had come to when it was sent */
    size_t endpoint;
    unsigned failures, tokens;
    uint64_t token_number;
    bool waiting; /* for a token */
    bool queued;  /* behind those on their way */
    bool short_;  /* was given less time than an endpoint should have */
    int end_err;  /* ends in the next turn */
    int last_err; /* of the repetition before */
    char why[ETCD_WHY_MAX];
    etcd_ask_cb cb;
    void *arg;
};

/* The next in the queue may go, in a later turn. One too many does not matter: it queues again. */
static void pump(struct etcd *e) {
    if (e->under_way >= ETCD_UNDER_WAY_MAX)
        return;
    LIST_FOREACH(n, next, &e->asks) {
        struct etcd_ask *other = LIST_ENTRY(n, struct etcd_ask, node);
        if (other->queued) {
            other->queued = false;
            loop_timer_set(other->timer, 0);
            return;
        }
    }
}

/* Nothing of it is on its way any more. */
static void land(struct etcd_ask *a) {
    if (a->request && !a->config.vital)
        a->e->under_way--;
    a->request = NULL;
}

/* It leaves the client, which may be closed after that. */
static void leave(struct etcd_ask *a) {
    if (!list_is_linked(&a->node))
        return;
    list_remove(&a->e->asks, &a->node);
    if (a->request) {
        http_cancel(a->request);
        land(a);
    }
    pump(a->e);
}

static void ask_free(struct etcd_ask *a) {
    leave(a);
    if (a->timer)
        loop_timer_close(a->timer);
    if (a->config.login && a->body.mem)
        secret_wipe(a->body.mem, a->body.cap);
    buf_deinit(&a->body);
    free(a);
}

void etcd_ask_cancel(struct etcd_ask *a) {
    if (a)
        ask_free(a);
}

void etcd_asks_drop(struct etcd *e) {
    struct list_node *n;
    while ((n = list_first(&e->asks)))
        ask_free(LIST_ENTRY(n, struct etcd_ask, node));
}

static void finish(struct etcd_ask *a, const struct etcd_ask_result *r) {
    leave(a); /* the callback may close the client */
    a->cb(a->arg, r);
    ask_free(a);
}

static void fail(struct etcd_ask *a, int err, const char *why, bool in_doubt) {
    finish(a, &(struct etcd_ask_result){.err = err, .why = *why ? why : err_text(err), .in_doubt = in_doubt});
}

static void go(struct etcd_ask *a);

static uint64_t left_ms(const struct etcd_ask *a) {
    uint64_t now = loop_now_ms(a->e->loop);
    return a->deadline_ms > now ? a->deadline_ms - now : 0;
}

/* -- what comes back -- */

static void again(struct etcd_ask *a, int err, const char *why, bool in_doubt) {
    size_t all = a->e->endpoints_count;
    uint64_t pause = 1;
    a->failures++;
    if (a->failures >= all) {
        size_t rounds = a->failures - all;
        pause = rounds < 5 ? (uint64_t)PAUSE_MS << rounds : PAUSE_MAX_MS;
    }
    if (in_doubt || pause >= left_ms(a)) {
        if (err == ERR_TIMEOUT && !in_doubt && a->last_err) /* tells more than that time ran out */
            fail(a, a->last_err, a->why, false);
        else
            fail(a, err, why, in_doubt);
        return;
    }
    a->last_err = err;
    snprintf(a->why, sizeof a->why, "%s", why);
    loop_timer_set(a->timer, pause);
}

static void on_fault(struct etcd_ask *a, const struct etcd_reply *reply) {
    int err = reply->fault;
    const char *why = reply->why.at ? reply->why.at : "";
    if (!a->config.login && etcd_words_is_token_fault(reply->why)) {
        etcd_endpoint_heard(a->e, a->endpoint);
        if (!a->e->user || a->tokens++ >= TOKENS_MAX) {
            fail(a, ERR_DENIED, why, false);
            return;
        }
        etcd_token_failed(a->e, a->token_number);
        loop_timer_set(a->timer, 1);
        return;
    }
    bool passes = err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_AGAIN || err == ERR_IO;
    if (err == ERR_UNREACHABLE || err == ERR_TIMEOUT)
        etcd_endpoint_failed(a->e, a->endpoint, why);
    else
        etcd_endpoint_heard(a->e, a->endpoint);
    if (passes)
        again(a, err, why, a->config.once && !etcd_words_is_undone(err, reply->why));
    else
        fail(a, err, why, false);
}

static void on_words(struct etcd_ask *a, const struct http_answer *h, struct arena *arena) {
    struct etcd_reply reply;
    char why[64] = "the answer is not as agreed";
    int err = etcd_words_read(h->body, a->config.kind, arena, &reply);
    if (err == ERR_FULL) {
        fail(a, err, "the answer is too long", a->config.once);
        return;
    }
    if (h->status != 200 && (err || !reply.fault)) {
        err = ERR_IO;
        snprintf(why, sizeof why, "status %u", h->status);
    } else if (!err && !etcd_is_our_cluster(a->e, reply.cluster)) {
        err = ERR_CORRUPT;
        snprintf(why, sizeof why, "the answer is from another cluster");
    }
    if (err) {
        etcd_endpoint_failed(a->e, a->endpoint, why);
        again(a, err, why, a->config.once);
        return;
    }
    if (reply.fault) {
        on_fault(a, &reply);
        return;
    }
    etcd_endpoint_heard(a->e, a->endpoint);
    if (a->config.kind == ETCD_KIND_RANGE || a->config.kind == ETCD_KIND_TXN)
        etcd_revision_heard(a->e, reply.revision, a->floor);
    finish(a, &(struct etcd_ask_result){.why = "", .sent_ms = a->sent_ms, .reply = &reply});
}

static void on_http(void *arg, const struct http_answer *h) {
    struct etcd_ask *a = arg;
    struct arena arena;
    land(a);
    pump(a->e);
    if (h->err == ERR_FULL || h->err == ERR_NOMEM) {
        fail(a, h->err, h->why, a->config.once && h->sent);
        return;
    }
    if (h->err) {
        if (h->err != ERR_TIMEOUT || !a->short_)
            etcd_endpoint_failed(a->e, a->endpoint, h->why);
        again(a, h->err, h->why, a->config.once && h->sent);
        return;
    }
    arena_init(&arena, ETCD_BLOCK, ETCD_ARENA_MAX);
    on_words(a, h, &arena);
    arena_deinit(&arena);
}

/* -- going out -- */

static void end_later(struct etcd_ask *a, int err, const char *why) {
    a->end_err = err;
    snprintf(a->why, sizeof a->why, "%s", why);
    loop_timer_set(a->timer, 0);
}

static void send_now(struct etcd_ask *a) {
    struct etcd *e = a->e;
    char url[ETCD_URL_MAX + 64];
    const char *headers[5];
    uint64_t left = left_ms(a), attempt = a->config.attempt_ms ? a->config.attempt_ms : e->attempt_ms;
    a->endpoint = e->current;
    a->token_number = e->token_number;
    a->sent_ms = clock_boot_ms();
    a->floor = e->revision_seen;
    a->short_ = left < attempt - attempt / 4;
    etcd_set_url(e, a->endpoint, a->config.path, url, sizeof url);
    etcd_set_headers(e, !a->config.login, headers);
    struct http_question q = {.method = "POST",
                              .url = url,
                              .headers = headers,
                              .body = buf_span(&a->body),
                              .timeout_ms = a->config.once || attempt > left ? left : attempt,
                              .connect_ms = attempt,
                              .answer_max = ETCD_ANSWER_MAX,
                              .once = a->config.once};
    a->request = http_ask(a->config.vital ? e->vital : e->calls, &q, on_http, a);
    if (!a->request)
        end_later(a, ERR_NOMEM, "the question could not be sent");
    else if (!a->config.vital)
        e->under_way++;
}

static void go(struct etcd_ask *a) {
    if (!a->config.login && !etcd_may_ask(a->e)) {
        a->waiting = true;
        loop_timer_set(a->timer, left_ms(a));
    } else if (!a->config.vital && a->e->under_way >= ETCD_UNDER_WAY_MAX) {
        a->queued = true;
        loop_timer_set(a->timer, left_ms(a));
    } else {
        send_now(a);
    }
}

static void on_timer(void *arg) {
    struct etcd_ask *a = arg;
    a->waiting = a->queued = false;
    if (a->end_err)
        fail(a, a->end_err, a->why, false);
    else if (!left_ms(a))
        fail(a, a->last_err ? a->last_err : ERR_TIMEOUT, a->why[0] ? a->why : a->e->trouble, false);
    else
        go(a);
}

void etcd_ask_wake(struct etcd *e, int err, const char *why) {
    LIST_FOREACH(n, next, &e->asks) {
        struct etcd_ask *a = LIST_ENTRY(n, struct etcd_ask, node);
        if (!a->waiting)
            continue;
        a->waiting = false;
        if (err)
            end_later(a, err, why);
        else
            loop_timer_set(a->timer, 0);
    }
}

struct etcd_ask *etcd_ask_new(struct etcd *e, const struct etcd_ask_config *c, struct buf *body, etcd_ask_cb cb,
                              void *arg) {
    struct etcd_ask *a = body->err ? NULL : calloc(1, sizeof *a);
    if (!a) {
        buf_deinit(body);
        return NULL;
    }
    *a = (struct etcd_ask){.e = e, .config = *c, .body = *body, .cb = cb, .arg = arg};
    buf_init(body, 0);
    list_push_back(&e->asks, &a->node);
    a->timer = loop_timer_new(e->loop, on_timer, a);
    if (!a->timer) {
        ask_free(a);
        return NULL;
    }
    a->deadline_ms = loop_now_ms(e->loop) + (c->timeout_ms ? c->timeout_ms : e->timeout_ms);
    go(a);
    return a;
}
