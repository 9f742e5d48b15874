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

#include "gateway/auth/password.h"
#include "gateway/auth/sasl.h"
#include "gateway/auth/state.h"

enum {
    ADMIT_EVERY_MS = 50, /* while other tries of the same network or account are under way */
    ADMIT_TRIES = 200,
    FAKE_ITERATIONS = 4096, /* as PostgreSQL makes them */
    FAKE_SALT = 16,
};

/* FIRST, NAME, PASSWORD, PROOF, LAST, PASSED: a response is awaited. BUSY: a question or the timer is. */
enum step { STEP_BUSY, STEP_FIRST, STEP_NAME, STEP_PASSWORD, STEP_PROOF, STEP_LAST, STEP_PASSED };
struct auth_exchange {
    struct auth *auth;
    const struct auth_client *client;
    auth_cb cb;
    void *arg;
    struct loop_timer *timer;
    enum auth_mechanism mechanism;
    enum step step, next; /* next: after the challenge that is being delivered */
    struct auth_question *q;
    struct scram *scram;
    size_t backend;                           /* which is asked; count: the decoy */
    bool asking;                              /* q is away */
    bool begun;                               /* PASSED: the backend holds a conversation */
    bool client_open, account_open;           /* admitted by guess, */
    struct guess_key client_key, account_key; /* under these */
    bool counted;                             /* its end is in the metrics */
    bool binding;                             /* -PLUS is offered on this connection */
    uint64_t since_ms;                        /* when the response came that is judged */
    uint32_t admit_tries;
    void (*admitted)(struct auth_exchange *x); /* what waits for admission, or NULL: the timer delivers */
    enum auth_event event;
    struct buf text;
    char name[AUTH_MECHANISM_MAX + 1];
    char asked[AUTH_ACCOUNT_MAX + 1]; /* the account whose password is checked; q->account may become another */
};

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

static void challenge(struct auth_exchange *x, struct span text, enum step next) {
    x->next = next;
    deliver(x, AUTH_CHALLENGE, text, 0);
}

static void malformed(struct auth_exchange *x) {
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

/* The try is over. Returns the failures that count for the delay. */
static uint32_t close_try(struct auth_exchange *x, bool bad) {
    uint32_t client = close_key(x, &x->client_open, x->client_key, bad);
    uint32_t account = close_key(x, &x->account_open, x->account_key, bad);
    return client > account ? client : account;
}

static void over_cap(struct auth_exchange *x) {
    log_failed(x, "too many failures");
    count(x, AUTH_RESULT_REFUSED);
    deliver(x, AUTH_TEMPFAIL, SPAN_EMPTY, 0);
}

static enum guess_verdict open_key(struct auth_exchange *x, bool *open, struct guess_key key, uint32_t cap) {
    enum guess_verdict verdict =
        guess_admit(x->auth->guess, key, cap, x->auth->config.failure_window_ms, clock_mono_ms());
    *open = verdict == GUESS_GO;
    return verdict;
}

static void try_admit(struct auth_exchange *x) {
    const struct auth_config *c = &x->auth->config;
    enum guess_verdict verdict = open_key(x, &x->client_open, x->client_key, c->client_failures);
    if (verdict == GUESS_GO && x->q->account[0]) {
        x->account_key = guess_key_account(x->auth->guess, span_of(x->q->account));
        verdict = open_key(x, &x->account_open, x->account_key, c->account_failures);
    }
    if (verdict == GUESS_GO) {
        void (*go)(struct auth_exchange *) = x->admitted;
        x->admitted = NULL;
        go(x);
        return;
    }
    close_try(x, false);
    if (verdict == GUESS_REFUSED || ++x->admit_tries >= ADMIT_TRIES)
        over_cap(x);
    else
        loop_timer_set(x->timer, ADMIT_EVERY_MS);
}

/* The response that came now is a try: go(x) when it may be judged. */
static void admit(struct auth_exchange *x, void (*go)(struct auth_exchange *x)) {
    x->step = STEP_BUSY;
    x->since_ms = clock_mono_ms();
    x->admit_tries = 0;
    x->admitted = go;
    try_admit(x);
}

static bool is_over(struct auth_exchange *x) {
    const struct auth_config *c = &x->auth->config;
    struct guess *g = x->auth->guess;
    uint64_t now = clock_mono_ms();
    return guess_is_over(g, x->client_key, c->client_failures, c->failure_window_ms, now) ||
           (x->q->account[0] && guess_is_over(g, guess_key_account(g, span_of(x->q->account)), c->account_failures,
                                              c->failure_window_ms, now));
}

/* -- ends -- */
static void fail(struct auth_exchange *x, const char *why) {
    uint64_t delay = guess_delay_ms(close_try(x, true), x->auth->config.fail_delay_ms);
    uint64_t spent = clock_mono_ms() - x->since_ms;
    log_failed(x, why);
    count(x, AUTH_RESULT_FAILED);
    deliver(x, AUTH_FAILURE, SPAN_EMPTY, delay > spent ? delay - spent : 0);
}

static void succeed(struct auth_exchange *x) {
    close_try(x, false);
    LOG_DEBUG("auth_ok", LOG_SPAN("client", x->client->client_ip), LOG_STR("mechanism", x->name),
              LOG_STR("account", x->q->account));
    count(x, AUTH_RESULT_OK);
    deliver(x, AUTH_SUCCESS, span_of(x->q->account), 0);
}

static void cannot_tell(struct auth_exchange *x, const char *why) {
    close_try(x, false);
    log_failed(x, why);
    count(x, AUTH_RESULT_TEMPFAIL);
    deliver(x, AUTH_TEMPFAIL, SPAN_EMPTY, 0);
}

/* -- questions -- */
static void ask(struct auth_exchange *x, enum auth_ask ask, struct auth_backend *b) {
    x->step = STEP_BUSY;
    x->asking = true;
    x->q->ask = ask;
    auth_question_send(x->q, b);
}

static void verify_hash(struct auth_exchange *x) {
    x->asking = true;
    x->q->backend = x->auth->backends[x->backend < x->auth->count ? x->backend : 0];
    auth_question_verify(x->q);
}

static bool find_decoy(struct auth_exchange *x, bool verifier) {
    for (size_t i = 0; i < x->auth->count; i++) {
        struct auth_backend *b = x->auth->backends[i];
        if (b->ops->decoy && b->ops->decoy(b, span_of(x->q->account), verifier, x->q->hash))
            return true;
    }
    return false;
}

/* Nobody knows the account: it costs as much as if somebody did. */
static void verify_decoy(struct auth_exchange *x) {
    bool hashes = false;
    for (size_t i = 0; i < x->auth->count; i++)
        hashes |= x->auth->backends[i]->gives_hashes;
    if (!hashes) {
        fail(x, "no such account");
        return;
    }
    if (!find_decoy(x, false))
        span_copy(span_of(x->auth->decoy), x->q->hash, sizeof x->q->hash);
    verify_hash(x);
}

/* Asks the next backend that can serve this mechanism. */
static void ask_next(struct auth_exchange *x) {
    bool scram = x->mechanism == AUTH_SCRAM || x->mechanism == AUTH_SCRAM_PLUS;
    const struct auth *a = x->auth;
    while (x->backend < a->count && scram && !a->backends[x->backend]->gives_hashes)
        x->backend++;
    if (x->backend < a->count)
        ask(x, a->backends[x->backend]->gives_hashes ? AUTH_ASK_HASH : AUTH_ASK_PASSWORD, a->backends[x->backend]);
}

/* -- passwords: PLAIN, LOGIN -- */
static void check_password(struct auth_exchange *x) {
    struct auth_question *q = x->q;
    struct span account = span_of(q->account), password = span_of(q->password);
    if (password.len == 0) {
        fail(x, "empty password");
        return;
    }
    if (x->auth->good && remember_has(x->auth->good, account, password, q->account, clock_mono_ms())) {
        succeed(x);
        return;
    }
    span_copy(account, x->asked, sizeof x->asked);
    x->backend = 0;
    ask_next(x);
}

static void password_good(struct auth_exchange *x) {
    struct auth_question *q = x->q;
    char account[AUTH_ACCOUNT_MAX + 1];
    if (sasl_account(span_of(q->account), x->auth->config.realm, account) != ERR_OK) {
        cannot_tell(x, "the backend named no good account");
        return;
    }
    span_copy(span_of(account), q->account, sizeof q->account);
    if (x->auth->good)
        remember_add(x->auth->good, span_of(x->asked), span_of(q->password), span_of(account), clock_mono_ms());
    succeed(x);
}

static void on_plain(struct auth_exchange *x, struct span response) {
    struct sasl_plain p;
    char other[AUTH_ACCOUNT_MAX + 1];
    struct auth_question *q = x->q;
    const char *realm = x->auth->config.realm;
    if (sasl_parse_plain(&p, response) != ERR_OK || sasl_account(p.account, realm, q->account) != ERR_OK) {
        malformed(x);
        return;
    }
    bool self = p.authorization.len == 0 ||
                (sasl_account(p.authorization, realm, other) == ERR_OK && span_eq(span_of(other), span_of(q->account)));
    /* Nobody may act for another; an empty password is refused where the try is counted. */
    span_copy(self ? p.password : SPAN_EMPTY, q->password, sizeof q->password);
    admit(x, check_password);
}

static void on_name(struct auth_exchange *x, struct span response) {
    if (sasl_account(response, x->auth->config.realm, x->q->account) != ERR_OK)
        malformed(x);
    else
        challenge(x, SPAN("Password:"), STEP_PASSWORD);
}

static void on_password(struct auth_exchange *x, struct span response) {
    if (response.len > AUTH_PASSWORD_MAX || span_find(response, '\0') >= 0) {
        malformed(x);
        return;
    }
    span_copy(response, x->q->password, sizeof x->q->password);
    admit(x, check_password);
}

/* -- SCRAM -- */
static void begin_scram(struct auth_exchange *x, bool known) {
    struct verifier v, like;
    struct auth_question *q = x->q;
    if (!known || !verifier_parse(&v, span_of(q->hash))) {
        bool found = find_decoy(x, true) && verifier_parse(&like, span_of(q->hash));
        size_t salt = found ? strlen(like.salt) / 4 * 3 - (strchr(like.salt, '=') ? strlen(strchr(like.salt, '=')) : 0)
                            : FAKE_SALT;
        scram_fake(&v, span_make(x->auth->fake, sizeof x->auth->fake), span_of(q->account),
                   found ? like.iterations : FAKE_ITERATIONS, salt);
    }
    const char *type = x->binding ? x->client->binding_type : NULL;
    struct buf out;
    buf_init(&out, AUTH_RESPONSE_MAX);
    int err = scram_new(&x->scram, x->auth->scram, x->mechanism == AUTH_SCRAM_PLUS, &v, type,
                        span_make(x->client->binding, x->client->binding_len));
    err = err ? err : scram_step(x->scram, buf_span(&q->in), &out);
    if (err == ERR_AGAIN)
        challenge(x, buf_span(&out), STEP_PROOF);
    else if (err == ERR_INVALID)
        malformed(x);
    else if (err == ERR_DENIED)
        fail(x, "wrong channel binding");
    else
        cannot_tell(x, err_text(err));
    secret_wipe(&v, sizeof v);
    buf_deinit(&out);
}

static void on_scram(struct auth_exchange *x, struct span response) {
    struct sasl_scram s;
    char other[AUTH_ACCOUNT_MAX + 1];
    struct auth_question *q = x->q;
    const char *realm = x->auth->config.realm;
    x->since_ms = clock_mono_ms();
    if (sasl_parse_scram(&s, response) != ERR_OK || sasl_account(span_of(s.account), realm, q->account) != ERR_OK ||
        buf_add(&q->in, response) != ERR_OK) {
        malformed(x);
        return;
    }
    if (is_over(x)) {
        over_cap(x);
        return;
    }
    bool self = s.authorization[0] == '\0' || (sasl_account(span_of(s.authorization), realm, other) == ERR_OK &&
                                               span_eq(span_of(other), span_of(q->account)));
    x->backend = self ? 0 : x->auth->count;
    ask_next(x);
    if (!x->asking) /* who would act for another goes on as an account that does not exist */
        begin_scram(x, false);
}

static void check_proof(struct auth_exchange *x) {
    struct buf out;
    buf_init(&out, AUTH_RESPONSE_MAX);
    int err = scram_step(x->scram, buf_span(&x->q->in), &out);
    if (err == ERR_OK) {
        close_try(x, false);
        challenge(x, buf_span(&out), STEP_LAST);
    } else if (err == ERR_INVALID) {
        close_try(x, false);
        malformed(x);
    } else if (err == ERR_NOMEM) {
        cannot_tell(x, err_text(err));
    } else {
        fail(x, "wrong proof");
    }
    buf_deinit(&out);
}

static void on_proof(struct auth_exchange *x, struct span response) {
    buf_clear(&x->q->in);
    if (response.len == 0 || buf_add(&x->q->in, response) != ERR_OK)
        malformed(x);
    else
        admit(x, check_proof);
}

/* -- mechanisms that a backend runs -- */
static void pass_on(struct auth_exchange *x) {
    ask(x, x->begun ? AUTH_ASK_CONTINUE : AUTH_ASK_START, x->q->backend);
    x->begun = true;
}

static void on_passed(struct auth_exchange *x, struct span response) {
    buf_clear(&x->q->in);
    x->q->has_in = response.at != NULL || x->begun;
    if (buf_add(&x->q->in, response) != ERR_OK)
        malformed(x);
    else
        admit(x, pass_on);
}

/* The account is known only now. */
static void passed_answered(struct auth_exchange *x) {
    struct auth_question *q = x->q;
    char account[AUTH_ACCOUNT_MAX + 1];
    if (q->reply == AUTH_REPLY_MORE) {
        close_try(x, false);
        q->account[0] = '\0';
        challenge(x, buf_span(&q->out), STEP_PASSED);
        return;
    }
    x->begun = false;
    bool named = sasl_account(span_of(q->account), x->auth->config.realm, account) == ERR_OK;
    span_copy(named ? span_of(account) : SPAN_EMPTY, q->account, sizeof q->account);
    if (q->reply == AUTH_REPLY_CANNOT || (q->reply == AUTH_REPLY_YES && !named)) {
        cannot_tell(x, named || q->reply == AUTH_REPLY_CANNOT ? q->why : "the backend named no account");
        return;
    }
    bool over = named && is_over(x);
    x->account_key = guess_key_account(x->auth->guess, span_of(q->account));
    if (named)
        (void)open_key(x, &x->account_open, x->account_key, UINT32_MAX);
    if (over) {
        close_try(x, q->reply != AUTH_REPLY_YES);
        over_cap(x);
        return;
    }
    if (q->reply == AUTH_REPLY_YES)
        succeed(x);
    else
        fail(x, "refused by the backend");
}

/* -- answers -- */
static void password_answered(struct auth_exchange *x) {
    struct auth_question *q = x->q;
    bool decoy = x->backend >= x->auth->count;
    switch (q->reply) {
    case AUTH_REPLY_HASH:
        verify_hash(x);
        return;
    case AUTH_REPLY_UNKNOWN:
        x->backend++;
        if (x->backend < x->auth->count)
            ask_next(x);
        else
            verify_decoy(x);
        return;
    case AUTH_REPLY_YES:
        if (decoy)
            break;
        password_good(x);
        return;
    case AUTH_REPLY_CANNOT:
        cannot_tell(x, q->why);
        return;
    default:
        break;
    }
    fail(x, decoy ? "no such account" : "wrong password");
}

static void scram_answered(struct auth_exchange *x) {
    switch (x->q->reply) {
    case AUTH_REPLY_HASH:
        begin_scram(x, true);
        return;
    case AUTH_REPLY_UNKNOWN:
        x->backend++;
        ask_next(x);
        if (!x->asking)
            begin_scram(x, false);
        return;
    default:
        cannot_tell(x, x->q->why);
    }
}

void exchange_answered(struct auth_exchange *x) {
    x->asking = false;
    if (x->mechanism == AUTH_PASSED)
        passed_answered(x);
    else if (x->mechanism == AUTH_PLAIN || x->mechanism == AUTH_LOGIN)
        password_answered(x);
    else
        scram_answered(x);
}

/* -- from the session -- */
static void take(struct auth_exchange *x, struct span response) {
    switch (x->step) {
    case STEP_FIRST:
        x->mechanism == AUTH_PLAIN ? on_plain(x, response) : on_scram(x, response);
        break;
    case STEP_NAME:
        on_name(x, response);
        break;
    case STEP_PASSWORD:
        on_password(x, response);
        break;
    case STEP_PROOF:
        on_proof(x, response);
        break;
    case STEP_LAST:
        if (response.len)
            malformed(x);
        else
            succeed(x);
        break;
    case STEP_PASSED:
        on_passed(x, response);
        break;
    case STEP_BUSY:
        CHECK_UNREACHABLE();
    }
}

static struct auth_exchange *x_new(struct auth *a, struct post *home, const struct auth_client *client) {
    struct auth_exchange *x = calloc(1, sizeof *x);
    struct auth_question *q = auth_question_new();
    if (x)
        x->timer = loop_timer_new(client->loop, on_timer, x);
    if (!x || !q || !x->timer) {
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
    if (is_over(x))
        over_cap(x);
    else if (initial.at || x->mechanism == AUTH_PASSED)
        take(x, initial);
    else
        challenge(x, x->mechanism == AUTH_LOGIN ? SPAN("Username:") : SPAN_EMPTY, x->step);
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
    take(x, response);
}

void auth_cancel(struct auth_exchange *x) {
    count(x, AUTH_RESULT_CANCELED);
    close_try(x, false);
    if (x->asking) { /* who brings it home frees it */
        pthread_mutex_lock(&x->auth->lock);
        atomic_store(&x->q->canceled, true);
        pthread_mutex_unlock(&x->auth->lock);
        x->q = NULL;
    }
    x_free(x);
}
