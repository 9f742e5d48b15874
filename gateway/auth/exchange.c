/*
 * exchange: see exchange.h and auth.h. One exchange is a small state machine on the session's loop: it waits for the
 * client, for a question, or for its timer, never for two of them. All events to the session come from the timer, so
 * that none comes inside a call of the session's.
 *
 * Every try is admitted by guess.c before anything is asked, and its end is counted. The answer to a failure is held
 * back from the moment the response came, so that it leaves at the same time whatever the check has cost.
 */
#include "gateway/auth/exchange.h"

#include <ctype.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/net/secret.h"

#include "gateway/auth/sasl.h"

enum { ADMIT_EVERY_MS = 50, /* while other tries of the same network or account are under way */ ADMIT_TRIES = 200 };

/* q is at home: it goes with the exchange, unless a backend has to be told to forget the conversation. */
static void q_free(struct auth_exchange *x) {
    struct auth_question *q = x->q;
    x->q = NULL;
    if (!q || !x->begun) {
        auth_question_free(q);
        return;
    }
    atomic_store(&q->canceled, true);
    q->ask = AUTH_ASK_FORGET;
    auth_question_send(q, q->backend);
}

static void x_free(struct auth_exchange *x) {
    loop_timer_close(x->timer);
    scram_free(x->scram);
    q_free(x);
    if (x->text.mem)
        secret_wipe(x->text.mem, x->text.cap);
    buf_deinit(&x->text);
    auth_unref(x->auth);
    free(x);
}

/* -- events -- */
static void count(struct auth_exchange *x, enum auth_result result) {
    if (!x->counted)
        auth_count(result);
    x->counted = true;
}

static void deliver(struct auth_exchange *x, enum auth_event event, struct span text, uint64_t delay_ms) {
    x->step = STEP_BUSY;
    x->admitted = NULL;
    x->event = event;
    buf_clear(&x->text);
    buf_add(&x->text, text);
    if (x->text.err)
        x->event = AUTH_TEMPFAIL;
    loop_timer_set(x->timer, delay_ms);
}

void exchange_challenge(struct auth_exchange *x, struct span text, enum step next) {
    x->next = next;
    deliver(x, AUTH_CHALLENGE, text, 0);
}

void exchange_malformed(struct auth_exchange *x) {
    count(x, AUTH_RESULT_MALFORMED);
    deliver(x, AUTH_MALFORMED, SPAN_EMPTY, 0);
}

static void log_failed(const struct auth_exchange *x, const char *why) {
    LOG_INFO("auth_failed", LOG_SPAN("client", x->client->client_ip), LOG_STR("mechanism", x->name),
             LOG_STR("account", x->q->account), LOG_STR("why", why));
}

static void try_admit(struct auth_exchange *x);

static void on_timer(void *arg) {
    struct auth_exchange *x = arg;
    if (x->admitted) {
        try_admit(x);
        return;
    }
    bool last = x->event != AUTH_CHALLENGE;
    if (!last)
        x->step = x->next;
    x->cb(x->arg, x->event, buf_span(&x->text));
    if (last)
        x_free(x);
}

/* -- the price of guessing -- */
static uint32_t close_key(struct auth_exchange *x, bool *open, struct guess_key key, bool bad) {
    if (!*open)
        return 0;
    *open = false;
    return guess_end(x->auth->guess, key, bad, x->auth->config.failure_window_ms, clock_mono_ms());
}

uint32_t exchange_close_try(struct auth_exchange *x, bool bad) {
    uint32_t client = close_key(x, &x->client_open, x->client_key, bad);
    uint32_t account = close_key(x, &x->account_open, x->account_key, bad);
    return client > account ? client : account;
}

void exchange_over_cap(struct auth_exchange *x) {
    log_failed(x, "too many failures");
    count(x, AUTH_RESULT_REFUSED);
    deliver(x, AUTH_TEMPFAIL, SPAN_EMPTY, 0);
}

enum guess_verdict exchange_open_key(struct auth_exchange *x, bool *open, struct guess_key key, uint32_t cap) {
    enum guess_verdict verdict =
        guess_admit(x->auth->guess, key, cap, x->auth->config.failure_window_ms, clock_mono_ms());
    *open = verdict == GUESS_GO;
    return verdict;
}

static void try_admit(struct auth_exchange *x) {
    const struct auth_config *c = &x->auth->config;
    enum guess_verdict verdict = GUESS_GO;
    if (!x->client->trusted)
        verdict = exchange_open_key(x, &x->client_open, x->client_key, c->client_failures);
    if (verdict == GUESS_GO && x->q->account[0]) {
        x->account_key = guess_key_account(x->auth->guess, span_of(x->q->account));
        verdict = exchange_open_key(x, &x->account_open, x->account_key, c->account_failures);
    }
    if (verdict == GUESS_GO) {
        void (*go)(struct auth_exchange *) = x->admitted;
        x->admitted = NULL;
        go(x);
        return;
    }
    exchange_close_try(x, false);
    if (verdict == GUESS_REFUSED || ++x->admit_tries >= ADMIT_TRIES)
        exchange_over_cap(x);
    else
        loop_timer_set(x->timer, ADMIT_EVERY_MS);
}

void exchange_admit(struct auth_exchange *x, void (*go)(struct auth_exchange *x)) {
    x->step = STEP_BUSY;
    x->since_ms = clock_mono_ms();
    x->admit_tries = 0;
    x->admitted = go;
    try_admit(x);
}

bool exchange_is_over(struct auth_exchange *x) {
    const struct auth_config *c = &x->auth->config;
    struct guess *g = x->auth->guess;
    uint64_t now = clock_mono_ms();
    if (!x->client->trusted && guess_is_over(g, x->client_key, c->client_failures, c->failure_window_ms, now))
        return true;
    return x->q->account[0] && guess_is_over(g, guess_key_account(g, span_of(x->q->account)), c->account_failures,
                                             c->failure_window_ms, now);
}

/* -- ends -- */
void exchange_fail(struct auth_exchange *x, const char *why) {
    uint64_t delay = guess_delay_ms(exchange_close_try(x, true), x->auth->config.fail_delay_ms);
    uint64_t spent = clock_mono_ms() - x->since_ms;
    log_failed(x, why);
    count(x, AUTH_RESULT_FAILED);
    deliver(x, AUTH_FAILURE, SPAN_EMPTY, delay > spent ? delay - spent : 0);
}

void exchange_succeed(struct auth_exchange *x) {
    exchange_close_try(x, false);
    LOG_DEBUG("auth_ok", LOG_SPAN("client", x->client->client_ip), LOG_STR("mechanism", x->name),
              LOG_STR("account", x->q->account));
    count(x, AUTH_RESULT_OK);
    deliver(x, AUTH_SUCCESS, span_of(x->q->account), 0);
}

void exchange_cannot_tell(struct auth_exchange *x, const char *why) {
    exchange_close_try(x, false);
    log_failed(x, why);
    count(x, AUTH_RESULT_TEMPFAIL);
    deliver(x, AUTH_TEMPFAIL, SPAN_EMPTY, 0);
}

/* -- from the session -- */
static struct auth_exchange *x_new(struct auth *a, struct post *home, const struct auth_client *client) {
    struct auth_exchange *x = calloc(1, sizeof *x);
    struct auth_question *q = auth_question_new();
    if (x)
        x->timer = loop_timer_new(client->loop, on_timer, x);
    if (!x || !q || !x->timer) {
        if (x && x->timer)
            loop_timer_close(x->timer);
        auth_question_free(q);
        free(x);
        return NULL;
    }
    buf_init(&x->text, AUTH_RESPONSE_MAX);
    x->auth = auth_ref(a);
    x->client = client;
    x->client_key = guess_key_client(a->guess, client->client);
    x->q = q;
    q->auth = a;
    q->home = home;
    q->exchange = x;
    q->tls = client->tls;
    tcp_addr_ip(client->client, q->client_ip, sizeof q->client_ip);
    q->client_port = tcp_addr_port(client->client);
    if (client->local) {
        tcp_addr_ip(client->local, q->local_ip, sizeof q->local_ip);
        q->local_port = tcp_addr_port(client->local);
    }
    return x;
}

static void start(struct auth_exchange *x, struct span initial) {
    static const enum step first[] = {[AUTH_PLAIN] = STEP_FIRST,
                                      [AUTH_LOGIN] = STEP_NAME,
                                      [AUTH_SCRAM] = STEP_FIRST,
                                      [AUTH_SCRAM_PLUS] = STEP_FIRST,
                                      [AUTH_PASSED] = STEP_PASSED};
    x->step = first[x->mechanism];
    if (exchange_is_over(x))
        exchange_over_cap(x);
    else if (initial.at || x->mechanism == AUTH_PASSED)
        mechanism_take(x, initial);
    else
        exchange_challenge(x, x->mechanism == AUTH_LOGIN ? SPAN("Username:") : SPAN_EMPTY, x->step);
}

int auth_begin(struct auth_exchange **out, struct auth *a, struct post *home, const struct auth_client *client,
               struct span mechanism, struct span initial, auth_cb cb, void *arg) {
    char name[AUTH_MECHANISM_MAX + 1];
    struct auth_way way, plus;
    if (mechanism.len > AUTH_MECHANISM_MAX || span_find(mechanism, '\0') >= 0)
        return ERR_UNSUPPORTED;
    span_copy(mechanism, name, sizeof name);
    for (char *c = name; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    bool binding = client->binding_type != NULL;
    if (auth_way_find(a, span_of(name), client->tls, binding, &way) != ERR_OK)
        return ERR_UNSUPPORTED;
    if (way.needs_tls)
        return ERR_DENIED;
    struct auth_exchange *x = x_new(a, home, client);
    if (!x)
        return ERR_NOMEM;
    x->mechanism = way.mechanism;
    x->q->backend = way.backend;
    x->binding = auth_way_find(a, SPAN("SCRAM-SHA-256-PLUS"), client->tls, binding, &plus) == ERR_OK;
    x->cb = cb;
    x->arg = arg;
    span_copy(span_of(name), x->name, sizeof x->name);
    span_copy(span_of(name), x->q->mechanism, sizeof x->q->mechanism);
    *out = x;
    start(x, initial);
    return ERR_OK;
}

void auth_answer(struct auth_exchange *x, struct span response) {
    CHECK(x->step != STEP_BUSY);
    mechanism_take(x, response);
}

void auth_cancel(struct auth_exchange *x) {
    count(x, AUTH_RESULT_CANCELED);
    exchange_close_try(x, false);
    if (x->asking) { /* who brings it home frees it */
        pthread_mutex_lock(&x->auth->lock);
        atomic_store(&x->q->canceled, true);
        pthread_mutex_unlock(&x->auth->lock);
        x->q = NULL;
    }
    x_free(x);
}
