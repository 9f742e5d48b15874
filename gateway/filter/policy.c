/*
 * policy: asks policy services. Each service has a few kept connections on the loop, one question at a time on each;
 * what finds none free waits in a bounded line. A question has one timer for all of it: waiting, connecting, answer.
 *
 * A kept connection may have been closed by the service just when it is used again, so a question that dies on one is
 * asked once more on a fresh one. All other ends are failures, answered by the operator's choice. A failure found
 * inside a call waits for its timer, so no callback ever comes inside a call.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/filter/held.h"
#include "gateway/filter/policy.h"
#include "gateway/filter/policy_words.h"

enum { LINKS_MAX = 16, WAITING_MAX = 1000, TIMEOUT_MS = 10000 };

METRIC_COUNTER_L(passed, "posthouse_policy_answers_total", "result=\"passed\"", "Answers of policy services");
METRIC_COUNTER_L(refused, "posthouse_policy_answers_total", "result=\"refused\"", "Answers of policy services");
METRIC_COUNTER_L(discarded, "posthouse_policy_answers_total", "result=\"discarded\"", "Answers of policy services");
METRIC_COUNTER_L(failures, "posthouse_policy_answers_total", "result=\"failed\"", "Answers of policy services");

struct ask;
struct service;
struct link { /* a connection; free slot: tcp NULL */
    struct service *service;
    struct tcp *tcp;
    struct ask *ask; /* its question; NULL: idle */
    bool kept;       /* it has answered before */
};
struct service {
    struct policies *owner;
    const struct policy_config *config;
    struct link links[LINKS_MAX];
    struct list waiting;
    char by[80];
};
struct policies {
    struct loop *loop;
    size_t count;
    struct service services[POLICIES_MAX];
    struct list asks;
};
struct ask {
    struct check_wait wait; /* first */
    struct policies *owner;
    struct service *service;
    struct link *link;
    struct list_node node, turn; /* of all; of those that wait for a link */
    struct loop_timer *timer;
    enum check_stage stage;
    struct buf question;
    const char *why; /* a failure that the timer will tell */
    bool retried;
    const struct check_facts *facts;
    struct buf *prepend;
    check_cb cb;
    void *arg;
    char enhanced[12], text[POLICY_TEXT_MAX];
};

struct policies *policies_new(struct loop *l, const struct policy_config *configs, size_t count) {
    CHECK(count <= POLICIES_MAX);
    struct policies *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->loop = l;
    p->count = count;
    list_init(&p->asks);
    for (size_t i = 0; i < count; i++) {
        struct service *s = &p->services[i];
        s->owner = p;
        s->config = &configs[i];
        list_init(&s->waiting);
        snprintf(s->by, sizeof s->by, "policy %s", configs[i].name);
        for (size_t n = 0; n < LINKS_MAX; n++)
            s->links[n].service = s;
    }
    return p;
}

/* -- questions -- */

static void detach(struct ask *a) {
    if (list_is_linked(&a->turn))
        list_remove(&a->service->waiting, &a->turn);
    if (a->link)
        a->link->ask = NULL;
    a->link = NULL;
}

static void forget(struct ask *a) {
    detach(a);
    list_remove(&a->owner->asks, &a->node);
    if (a->timer)
        loop_timer_close(a->timer);
    buf_deinit(&a->question);
    free(a);
}

void policies_free(struct policies *p) {
    if (!p)
        return;
    LIST_FOREACH(node, next, &p->asks)
    forget(LIST_ENTRY(node, struct ask, node));
    for (size_t i = 0; i < p->count; i++) {
        for (size_t n = 0; n < LINKS_MAX; n++) {
            if (p->services[i].links[n].tcp)
                tcp_close(p->services[i].links[n].tcp);
        }
    }
    free(p);
}

static void conclude(struct ask *a, const struct check_verdict *v) {
    loop_timer_stop(a->timer);
    a->cb(a->arg, v);
    forget(a);
}

/* A failure is told by the timer in the next turn. */
static void fail_soon(struct ask *a, const char *why) {
    a->why = why;
    loop_timer_set(a->timer, 0);
}

/* -- connections -- */

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err);
static void serve_waiting(struct service *s);

static void close_link(struct link *k) {
    if (k->tcp)
        tcp_close(k->tcp);
    if (k->ask)
        k->ask->link = NULL;
    k->tcp = NULL;
    k->ask = NULL;
    k->kept = false;
}

static struct link *find_link(struct service *s) {
    struct link *empty = NULL;
    for (size_t n = 0; n < LINKS_MAX; n++) {
        struct link *k = &s->links[n];
        if (k->tcp && !k->ask)
            return k;
        if (!k->tcp && !empty)
            empty = k;
    }
    return empty;
}

/* Asks on this link, which is idle or empty. */
static void send_on(struct link *k, struct ask *a) {
    a->link = k;
    k->ask = a;
    if (!k->tcp) {
        k->kept = false;
        k->tcp = tcp_connect(a->owner->loop, &k->service->config->address, NULL, POLICY_ANSWER_MAX, POLICY_QUESTION_MAX,
                             on_event, k);
    }
    int err = !k->tcp ? ERR_NOMEM : tcp_write(k->tcp, buf_span(&a->question).at, buf_len(&a->question));
    if (!err)
        return;
    bool again = k->tcp && k->kept && !a->retried;
    close_link(k);
    a->retried = true;
    if (again)
        send_on(k, a);
    else
        fail_soon(a, err_text(err));
}

static void begin(struct ask *a) {
    struct service *s = a->service;
    loop_timer_set(a->timer, s->config->timeout_ms ? s->config->timeout_ms : TIMEOUT_MS);
    a->retried = false;
    a->why = NULL;
    buf_clear(&a->question);
    policy_ask(&a->question, a->stage, a->facts);
    struct link *k = find_link(s);
    if (a->question.err)
        fail_soon(a, err_text(a->question.err));
    else if (k)
        send_on(k, a);
    else if (s->waiting.count < WAITING_MAX)
        list_push_back(&s->waiting, &a->turn);
    else
        fail_soon(a, "too many questions wait");
}

static void serve_waiting(struct service *s) {
    struct link *k;
    while (!list_is_empty(&s->waiting) && (k = find_link(s))) {
        struct ask *a = LIST_ENTRY(list_pop_front(&s->waiting), struct ask, turn);
        send_on(k, a);
    }
}

/* -- answers -- */

/* The first service of the stage from index `from` on, or NULL. */
static struct service *service_of(struct policies *p, size_t from, enum check_stage stage) {
    for (size_t i = from; i < p->count; i++) {
        if (p->services[i].config->stage == stage)
            return &p->services[i];
    }
    return NULL;
}

static void go_on(struct ask *a) {
    struct service *next = service_of(a->owner, (size_t)(a->service - a->owner->services) + 1, a->stage);
    if (next) {
        a->service = next;
        begin(a);
        return;
    }
    struct check_verdict v = {.action = CHECK_PASS};
    conclude(a, &v);
}

static struct check_verdict by_choice(const struct service *s) {
    bool later = s->config->failure == MILTER_TEMPFAIL;
    struct check_verdict v = {.action = s->config->failure == MILTER_ACCEPT ? CHECK_PASS : CHECK_REFUSE,
                              .by = span_of(s->by)};
    v.reply = (struct server_reply){
        .code = later ? 451 : 550,
        .enhanced = later ? SPAN("4.7.1") : SPAN("5.7.1"),
        .text =
            later ? SPAN("Policy service is not available, try again later") : SPAN("Policy service is not available"),
    };
    return v;
}

static void fail(struct ask *a, const char *why) {
    struct service *s = a->service;
    LOG_WARN("policy_failed", LOG_STR("name", s->config->name), LOG_STR("why", why));
    metric_add(&failures, 1);
    if (list_is_linked(&a->turn))
        list_remove(&s->waiting, &a->turn);
    if (a->link)
        close_link(a->link);
    serve_waiting(s);
    struct check_verdict v = by_choice(s);
    if (v.action == CHECK_PASS)
        go_on(a);
    else
        conclude(a, &v);
}

static void on_timer(void *arg) {
    struct ask *a = arg;
    fail(a, a->why ? a->why : "no answer in time");
}

/* "Name: value" to the fields that will stand in front. NULL, or what is wrong. */
static const char *prepend(struct ask *a, struct span field) {
    struct span value, name = span_cut(field, ':', &value);
    value = span_trim(value);
    if (span_find(field, ':') < 0 || !held_is_field(name, value))
        return "PREPEND of what is no header field";
    if (!a->prepend)
        return NULL;
    size_t before = buf_len(a->prepend);
    buf_add(a->prepend, name);
    buf_add(a->prepend, SPAN(": "));
    buf_add(a->prepend, value);
    buf_add(a->prepend, SPAN("\r\n"));
    if (!a->prepend->err)
        return NULL;
    buf_truncate(a->prepend, before);
    return "PREPEND of too much";
}

static void refuse(struct ask *a, const struct policy_action *action) {
    struct check_verdict v = {.action = CHECK_REFUSE, .by = span_of(a->service->by)};
    v.close = action->code == 421 || action->code == 521;
    v.reply = (struct server_reply){.code = action->code, .enhanced = action->enhanced, .text = action->text};
    metric_add(&refused, 1);
    conclude(a, &v);
}

static void discard(struct ask *a) {
    struct check_verdict v = {.action = CHECK_DISCARD, .by = span_of(a->service->by)};
    metric_add(&discarded, 1);
    conclude(a, &v);
}

/* action's texts belong to the ask. */
static void act(struct ask *a, const struct policy_action *action) {
    const char *why = NULL, *name = a->service->config->name;
    switch (action->kind) {
    case POLICY_REFUSE:
        refuse(a, action);
        return;
    case POLICY_DISCARD:
        discard(a);
        return;
    case POLICY_WARN:
        LOG_WARN("policy_says", LOG_STR("name", name), LOG_SPAN("id", a->facts->id), LOG_SPAN("text", action->text));
        break;
    case POLICY_INFO:
        LOG_INFO("policy_says", LOG_STR("name", name), LOG_SPAN("id", a->facts->id), LOG_SPAN("text", action->text));
        break;
    case POLICY_PREPEND:
        why = prepend(a, action->text);
        break;
    case POLICY_PASS:
        break;
    }
    if (why) {
        fail(a, why);
        return;
    }
    metric_add(&passed, 1);
    go_on(a);
}

static void keep_texts(struct ask *a, struct policy_action *action) {
    action->text = span_make(a->text, span_copy(action->text, a->text, sizeof a->text));
    action->enhanced = span_make(a->enhanced, span_copy(action->enhanced, a->enhanced, sizeof a->enhanced));
}

static void on_octets(struct link *k) {
    struct buf *in = tcp_in(k->tcp);
    struct ask *a = k->ask;
    struct policy_action action;
    size_t used;
    if (!a) { /* speaks unasked */
        close_link(k);
        serve_waiting(k->service);
        return;
    }
    int err = policy_answer(buf_span(in), &action, &used);
    if (err == ERR_AGAIN)
        return;
    if (err) {
        fail(a, "an answer that is none");
        return;
    }
    keep_texts(a, &action);
    buf_consume(in, used);
    detach(a);
    k->kept = true;
    if (buf_len(in))
        close_link(k);
    serve_waiting(k->service);
    act(a, &action);
}

static void on_lost(struct link *k, const char *why) {
    struct ask *a = k->ask;
    bool again = a && k->kept && !a->retried && buf_len(tcp_in(k->tcp)) == 0;
    close_link(k);
    if (again) {
        a->retried = true;
        send_on(k, a);
    } else if (a) {
        fail(a, why);
    } else {
        serve_waiting(k->service);
    }
}

static void on_event(void *arg, struct tcp *c, enum tcp_event event, int err) {
    (void)c;
    if (event == TCP_READ)
        on_octets(arg);
    else if (event == TCP_EOF)
        on_lost(arg, "connection closed");
    else if (event == TCP_FAILED)
        on_lost(arg, err_text(err));
}

/* -- a check -- */

static void on_cancel(struct check_wait *w) {
    struct ask *a = CONTAINER_OF(w, struct ask, wait);
    struct service *s = a->service;
    if (a->link)
        close_link(a->link); /* its answer would come for the next question */
    forget(a);
    serve_waiting(s);
}

int policies_check(struct policies *p, enum check_stage stage, const struct check_facts *f, struct buf *prepend_to,
                   struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) {
    struct service *s = service_of(p, 0, stage);
    *v = (struct check_verdict){.action = CHECK_PASS};
    if (!s)
        return ERR_OK;
    struct ask *a = calloc(1, sizeof *a);
    if (a)
        a->timer = loop_timer_new(p->loop, on_timer, a);
    if (!a || !a->timer) {
        free(a);
        *v = by_choice(s);
        return ERR_OK;
    }
    a->wait.cancel = on_cancel;
    a->owner = p;
    a->service = s;
    a->stage = stage;
    a->facts = f;
    a->prepend = prepend_to;
    a->cb = cb;
    a->arg = arg;
    buf_init(&a->question, POLICY_QUESTION_MAX);
    list_push_back(&p->asks, &a->node);
    begin(a);
    *wait = &a->wait;
    return ERR_AGAIN;
}
