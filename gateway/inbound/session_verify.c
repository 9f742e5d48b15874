/*
 * session_verify: VRFY where the operator allows the truth: the verdict of RCPT TO, without a transaction. A slow
 * directory may be asked, so the answer has memory of its own.
 */
#include <stdlib.h>

#include "base/clock.h"

#include "gateway/inbound/session.h"

enum { VERIFY_MEM_MAX = 1024 * 1024 };

struct verification {
    struct arena mem;
    struct address address;
    struct recipients_wait *wait;
};

static void verification_free(struct session *s) {
    struct verification *v = s->verification;
    s->verification = NULL;
    if (!v)
        return;
    arena_deinit(&v->mem);
    free(v);
}

void session_verify_cancel(struct session *s) {
    if (s->verification && s->verification->wait)
        recipients_cancel(s->verification->wait);
    verification_free(s);
}

static void answer(struct session *s, const struct recipients_answer *a, struct buf *out) {
    struct server_reply r = {550, a->enhanced, a->text};
    if (a->verdict == RECIPIENTS_TEMPFAIL)
        r = session_reply(252, "2.0.0", "cannot tell now");
    else if (a->verdict == RECIPIENTS_LOCAL)
        r = (struct server_reply){250, SPAN("2.1.5"), s->verification->address.text};
    server_answer(&s->server, r, out);
    verification_free(s);
}

static void on_answer(void *arg, const struct recipients_answer *a) {
    struct session *s = arg;
    buf_clear(&s->worker->out);
    s->verification->wait = NULL;
    session_go_to(s, SESSION_IDLE);
    answer(s, a, &s->worker->out);
    session_run(s);
}

static int parse(struct verification *v, struct span argument) {
    size_t used = argument.len;
    bool bracketed = argument.len && argument.at[0] == '<';
    int err = bracketed ? address_parse_path(&v->address, argument, false, true, &v->mem, &used)
                        : address_parse(&v->address, argument, &v->mem);
    return err == ERR_OK && used != argument.len ? ERR_INVALID : err;
}

bool session_verify(struct session *s, struct span argument, struct buf *out) {
    struct recipients_answer a = {.verdict = RECIPIENTS_TEMPFAIL};
    struct recipients_caller who = {.wall_ms = clock_wall_ms()};
    struct verification *v = s->verification = calloc(1, sizeof *v);
    if (!v) {
        server_answer(&s->server, session_tempfail(451, "4.3.0", "out of memory"), out);
        return true;
    }
    arena_init(&v->mem, 2048, VERIFY_MEM_MAX);
    int err = parse(v, argument);
    if (err == ERR_INVALID || err == ERR_RANGE) {
        server_answer(&s->server, session_reply(501, "5.1.3", "bad address syntax"), out);
        verification_free(s);
        return true;
    }
    if (!err)
        err = recipients_ask(s->front->parts.recipients, s->worker->post, &v->address, &who, &v->mem, &a, &v->wait,
                             on_answer, s, NULL);
    if (err == ERR_AGAIN) {
        session_go_to(s, SESSION_WAITING);
        return false;
    }
    answer(s, &a, out);
    return true;
}
