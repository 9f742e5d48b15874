/*
 * milter: the filters of one session, asked one after the other. A stage goes to the first filter, and when that one
 * has nothing against it to the next; the first refusal ends it. At the end of the message each filter has been read
 * all of the message, and its changes made, before the next one hears a word, so each sees what those before it made.
 *
 * One filter is spoken with at a time, so one timer and one buffer serve the session.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metrics.h"

#include "gateway/filter/milter_inner.h"

enum { OUT_MAX = 256 * 1024 };

METRIC_COUNTER_L(passed, "posthouse_milter_stages_total", "result=\"passed\"", "Stages that milters were asked about");
METRIC_COUNTER_L(refused, "posthouse_milter_stages_total", "result=\"refused\"",
                 "Stages that milters were asked about");
METRIC_COUNTER_L(discarded, "posthouse_milter_stages_total", "result=\"discarded\"",
                 "Stages that milters were asked about");
METRIC_COUNTER(failures, "posthouse_milter_failures_total", "Milters that were lost to a session by a failure");

static void on_cancel(struct check_wait *w);
static void on_timer(void *arg);

struct milters *milters_new(struct loop *l, const struct milter_config *configs, size_t count) {
    CHECK(count <= MILTERS_MAX);
    struct milters *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->loop = l;
    m->timer = loop_timer_new(l, on_timer, m);
    if (!m->timer) {
        free(m);
        return NULL;
    }
    m->wait.cancel = on_cancel;
    m->count = count;
    buf_init(&m->out, OUT_MAX);
    milter_changes_init(&m->changes);
    for (size_t i = 0; i < count; i++) {
        m->conns[i].owner = m;
        m->conns[i].config = &configs[i];
    }
    return m;
}

void milters_free(struct milters *m) {
    if (!m)
        return;
    for (size_t i = 0; i < m->count; i++)
        milter_conn_free(&m->conns[i]);
    loop_timer_close(m->timer);
    buf_deinit(&m->out);
    milter_changes_deinit(&m->changes);
    free(m);
}

bool milters_want_message(const struct milters *m) {
    for (size_t i = 0; i < m->count; i++) {
        const struct milter_conn *f = &m->conns[i];
        bool out = f->skipped || f->message_done || f->state == MILTER_LEFT ||
                   (f->state == MILTER_FAILED && f->config->failure == MILTER_ACCEPT);
        if (!out)
            return true;
    }
    return false;
}

void milters_count_failure(void) {
    metric_add(&failures, 1);
}

void milters_refuse(struct milter_conn *f, uint16_t code, const char *enhanced, const char *text) {
    struct milters *m = f->owner;
    struct check_verdict *v = &m->verdict;
    if (!m->busy || f != &m->conns[m->at])
        return;
    v->action = CHECK_REFUSE;
    v->close = code == 421;
    v->reply = (struct server_reply){.code = code, .enhanced = span_of(enhanced), .text = span_of(text)};
}

/* -- a check -- */

static void count(const struct check_verdict *v) {
    metric_add(v->action == CHECK_PASS ? &passed : v->action == CHECK_REFUSE ? &refused : &discarded, 1);
}

/* The stage is over. */
static void settle(struct milters *m) {
    struct check_verdict *v = &m->verdict;
    loop_timer_stop(m->timer);
    if (v->action != CHECK_PASS) {
        int len = snprintf(m->by, sizeof m->by, "milter %s", m->conns[m->at].config->name);
        v->by = span_make(m->by, len < 0 ? 0 : (size_t)len < sizeof m->by ? (size_t)len : sizeof m->by - 1);
        if (m->stage == CHECK_END)
            milters_abort(m);
    }
    m->busy = false;
    m->held = NULL;
    milter_changes_deinit(&m->changes);
    buf_deinit(&m->out);
    count(v);
}

/* From the filter m->at on, of which this is the turn, until one waits or all have passed. True: settled. */
static bool walk(struct milters *m, enum milter_turn turn) {
    for (;;) {
        if (turn == TURN_AGAIN)
            return false;
        loop_timer_stop(m->timer);
        if (turn == TURN_JUDGED || m->at + 1 >= m->count) {
            settle(m);
            return true;
        }
        m->at++;
        milter_changes_deinit(&m->changes);
        milter_conn_begin(&m->conns[m->at]);
        turn = milter_conn_go(&m->conns[m->at]);
    }
}

void milters_resume(struct milters *m, enum milter_turn turn) {
    if (walk(m, turn))
        m->cb(m->arg, &m->verdict);
}

static void on_timer(void *arg) {
    struct milters *m = arg;
    if (m->busy)
        milters_resume(m, milter_conn_timed_out(&m->conns[m->at]));
}

static struct check_verdict not_held(void) {
    struct check_verdict v = {.action = CHECK_REFUSE, .by = SPAN("milters")};
    v.reply = (struct server_reply){.code = 451,
                                    .enhanced = SPAN("4.3.0"),
                                    .text = SPAN("Message filters could not see the message, try again later")};
    return v;
}

int milters_check(struct milters *m, enum check_stage stage, const struct check_facts *f, struct held *held,
                  struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) {
    CHECK(!m->busy);
    *v = m->verdict = (struct check_verdict){.action = CHECK_PASS};
    if (!m->count)
        return ERR_OK;
    if (stage == CHECK_END && !held) { /* it was not held, since nobody wanted it */
        if (milters_want_message(m))
            *v = not_held();
        return ERR_OK;
    }
    m->stage = stage;
    m->facts = f;
    m->held = held;
    m->cb = cb;
    m->arg = arg;
    m->at = 0;
    m->busy = true;
    for (size_t i = 0; i < m->count; i++) {
        struct milter_conn *c = &m->conns[i];
        c->skipped = (c->config->skip_trusted && f->trusted) || (c->config->skip_authenticated && f->account.len);
    }
    milter_conn_begin(&m->conns[0]);
    if (walk(m, milter_conn_go(&m->conns[0]))) {
        *v = m->verdict;
        return ERR_OK;
    }
    *wait = &m->wait;
    return ERR_AGAIN;
}

/* The conversation with the filter under way is cut: its reply would belong to nothing. */
static void on_cancel(struct check_wait *w) {
    struct milters *m = CONTAINER_OF(w, struct milters, wait);
    if (!m->busy)
        return;
    loop_timer_stop(m->timer);
    m->busy = false;
    m->held = NULL;
    milter_conn_drop(&m->conns[m->at]);
    milter_changes_deinit(&m->changes);
    buf_clear(&m->out);
}

void milters_abort(struct milters *m) {
    for (size_t i = 0; i < m->count; i++)
        milter_conn_abort(&m->conns[i]);
}

void milters_reset(struct milters *m) {
    for (size_t i = 0; i < m->count; i++) {
        struct milter_conn *f = &m->conns[i];
        milter_conn_abort(f);
        if (f->told > TOLD_CONNECT)
            f->told = TOLD_CONNECT;
    }
}
