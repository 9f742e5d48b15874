/*
 * mechanism: what the mechanisms do with responses, and with what backends say: PLAIN and LOGIN check a password
 * backend by backend, SCRAM fetches a verifier and then proves, and what a backend runs as a whole is passed on.
 *
 * Each response ends in exactly one of: a challenge, an end, or a question under way, whose answer comes back here.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/password.h"
#include "base/net/secret.h"

#include "gateway/auth/exchange.h"
#include "gateway/auth/sasl.h"

enum { FAKE_ITERATIONS = 4096, FAKE_SALT = 16 }; /* as PostgreSQL makes them */

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
        exchange_fail(x, "no such account");
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
        exchange_fail(x, "empty password");
        return;
    }
    if (x->auth->good && remember_has(x->auth->good, account, password, q->account, clock_mono_ms())) {
        exchange_succeed(x);
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
        exchange_cannot_tell(x, "the backend named no good account");
        return;
    }
    span_copy(span_of(account), q->account, sizeof q->account);
    if (x->auth->good)
        remember_add(x->auth->good, span_of(x->asked), span_of(q->password), span_of(account), clock_mono_ms());
    exchange_succeed(x);
}

static void on_plain(struct auth_exchange *x, struct span response) {
    struct sasl_plain p;
    char other[AUTH_ACCOUNT_MAX + 1];
    struct auth_question *q = x->q;
    const char *realm = x->auth->config.realm;
    if (sasl_parse_plain(&p, response) != ERR_OK || sasl_account(p.account, realm, q->account) != ERR_OK) {
        exchange_malformed(x);
        return;
    }
    bool self = p.authorization.len == 0 ||
                (sasl_account(p.authorization, realm, other) == ERR_OK && span_eq(span_of(other), span_of(q->account)));
    /* Nobody may act for another; an empty password is refused where the try is counted. */
    span_copy(self ? p.password : SPAN_EMPTY, q->password, sizeof q->password);
    exchange_admit(x, check_password);
}

static void on_name(struct auth_exchange *x, struct span response) {
    if (sasl_account(response, x->auth->config.realm, x->q->account) != ERR_OK)
        exchange_malformed(x);
    else
        exchange_challenge(x, SPAN("Password:"), STEP_PASSWORD);
}

static void on_password(struct auth_exchange *x, struct span response) {
    if (response.len > AUTH_PASSWORD_MAX || span_find(response, '\0') >= 0) {
        exchange_malformed(x);
        return;
    }
    span_copy(response, x->q->password, sizeof x->q->password);
    exchange_admit(x, check_password);
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
        exchange_challenge(x, buf_span(&out), STEP_PROOF);
    else if (err == ERR_INVALID)
        exchange_malformed(x);
    else if (err == ERR_DENIED)
        exchange_fail(x, "wrong channel binding");
    else
        exchange_cannot_tell(x, err_text(err));
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
        exchange_malformed(x);
        return;
    }
    if (exchange_is_over(x)) {
        exchange_over_cap(x);
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
        exchange_close_try(x, false);
        exchange_challenge(x, buf_span(&out), STEP_LAST);
    } else if (err == ERR_INVALID) {
        exchange_close_try(x, false);
        exchange_malformed(x);
    } else if (err == ERR_NOMEM) {
        exchange_cannot_tell(x, err_text(err));
    } else {
        exchange_fail(x, "wrong proof");
    }
    buf_deinit(&out);
}

static void on_proof(struct auth_exchange *x, struct span response) {
    buf_clear(&x->q->in);
    if (response.len == 0 || buf_add(&x->q->in, response) != ERR_OK)
        exchange_malformed(x);
    else
        exchange_admit(x, check_proof);
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
        exchange_malformed(x);
    else
        exchange_admit(x, pass_on);
}

/* The account is known only now. */
static void passed_answered(struct auth_exchange *x) {
    struct auth_question *q = x->q;
    char account[AUTH_ACCOUNT_MAX + 1];
    if (q->reply == AUTH_REPLY_MORE) {
        exchange_close_try(x, false);
        q->account[0] = '\0';
        exchange_challenge(x, buf_span(&q->out), STEP_PASSED);
        return;
    }
    x->begun = false;
    bool named = sasl_account(span_of(q->account), x->auth->config.realm, account) == ERR_OK;
    span_copy(named ? span_of(account) : SPAN_EMPTY, q->account, sizeof q->account);
    if (q->reply == AUTH_REPLY_CANNOT || (q->reply == AUTH_REPLY_YES && !named)) {
        exchange_cannot_tell(x, named || q->reply == AUTH_REPLY_CANNOT ? q->why : "the backend named no account");
        return;
    }
    bool over = named && exchange_is_over(x);
    x->account_key = guess_key_account(x->auth->guess, span_of(q->account));
    if (named)
        (void)exchange_open_key(x, &x->account_open, x->account_key, UINT32_MAX);
    if (over) {
        exchange_close_try(x, q->reply != AUTH_REPLY_YES);
        exchange_over_cap(x);
        return;
    }
    if (q->reply == AUTH_REPLY_YES)
        exchange_succeed(x);
    else
        exchange_fail(x, "refused by the backend");
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
        exchange_cannot_tell(x, q->why);
        return;
    default:
        break;
    }
    exchange_fail(x, decoy ? "no such account" : "wrong password");
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
        exchange_cannot_tell(x, x->q->why);
    }
}

void mechanism_answered(struct auth_exchange *x) {
    x->asking = false;
    if (x->mechanism == AUTH_PASSED)
        passed_answered(x);
    else if (x->mechanism == AUTH_PLAIN || x->mechanism == AUTH_LOGIN)
        password_answered(x);
    else
        scram_answered(x);
}

void mechanism_take(struct auth_exchange *x, struct span response) {
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
            exchange_malformed(x);
        else
            exchange_succeed(x);
        break;
    case STEP_PASSED:
        on_passed(x, response);
        break;
    case STEP_BUSY:
        CHECK_UNREACHABLE();
    }
}
