/*
 * auth: see auth.h. Makes the backends, threads and counters out of the configuration, and ends them when nobody holds
 * them any more; carries questions to backends and home again.
 *
 * A question is owned by its exchange while it lies at home, and by the backend while it is asked. When the exchange is
 * canceled meanwhile, whoever brings the question home frees it: the lock decides whether the letter was sent before
 * the cancel, so that no letter ever goes to a loop that may be gone.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/net/password.h"
#include "base/net/secret.h"
#include "base/rand.h"

#include "gateway/auth/exchange.h"
#include "gateway/auth/state.h"

enum {
    CLIENT_FAILURES = 20,
    ACCOUNT_FAILURES = 50,
    WINDOW_MS = 15 * 60 * 1000,
    ENTRIES = 100000,
    HASH_THREADS = 2,
    HASH_WAITING = 1000,
    TIMEOUT_MS = 5000,
    CONNECTIONS = 4,
    CONFIG_MAX = 1 << 20,
};

METRIC_COUNTER_L(ok, "posthouse_auth_total", "result=\"ok\"", "AUTH exchanges by their end.");
METRIC_COUNTER_L(failed, "posthouse_auth_total", "result=\"failed\"", "AUTH exchanges by their end.");
METRIC_COUNTER_L(tempfail, "posthouse_auth_total", "result=\"tempfail\"", "AUTH exchanges by their end.");
METRIC_COUNTER_L(refused, "posthouse_auth_total", "result=\"refused\"", "AUTH exchanges by their end.");
METRIC_COUNTER_L(malformed, "posthouse_auth_total", "result=\"malformed\"", "AUTH exchanges by their end.");
METRIC_COUNTER_L(canceled, "posthouse_auth_total", "result=\"canceled\"", "AUTH exchanges by their end.");
METRIC_COUNTER(backend_failures, "posthouse_auth_backend_failures_total",
               "Questions that a credential backend could not answer.");

void auth_count(enum auth_result result) {
    static struct metric *const metrics[] = {&ok, &failed, &tempfail, &refused, &malformed, &canceled};
    metric_add(metrics[result], 1);
}

void auth_backend_failed(const struct auth_backend *b, const char *why) {
    metric_add(&backend_failures, 1);
    LOG_WARN("auth_backend_failed", LOG_STR("backend", b->name), LOG_STR("why", why));
}

/* -- questions -- */
struct auth_question *auth_question_new(void) {
    struct auth_question *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    buf_init(&q->in, AUTH_RESPONSE_MAX);
    buf_init(&q->out, AUTH_RESPONSE_MAX);
    return q;
}

static void wipe_buf(struct buf *b) {
    if (b->mem)
        secret_wipe(b->mem, b->cap);
    buf_deinit(b);
}

void auth_question_free(struct auth_question *q) {
    if (!q)
        return;
    wipe_buf(&q->in);
    wipe_buf(&q->out);
    secret_wipe(q, sizeof *q);
    free(q);
}

static void on_home(struct post_letter *letter) {
    struct auth_question *q = CONTAINER_OF(letter, struct auth_question, letter);
    if (atomic_load(&q->canceled))
        auth_question_free(q);
    else
        mechanism_answered(q->exchange);
}

void auth_question_done(struct auth_question *q, enum auth_reply reply) {
    struct auth *a = q->auth;
    q->reply = reply;
    pthread_mutex_lock(&a->lock);
    bool lost = atomic_load(&q->canceled);
    if (!lost) {
        q->letter.open = on_home;
        post_send(q->home, &q->letter);
    }
    pthread_mutex_unlock(&a->lock);
    if (lost)
        auth_question_free(q);
    atomic_fetch_sub(&a->in_flight, 1);
}

void auth_question_cannot(struct auth_question *q, struct span why) {
    struct buf clean;
    buf_init(&clean, 4 * sizeof q->why);
    buf_add_escaped(&clean, span_first(why, sizeof q->why - 1));
    span_copy(buf_span(&clean), q->why, sizeof q->why);
    buf_deinit(&clean);
    if (!atomic_load(&q->canceled))
        auth_backend_failed(q->backend, q->why);
    auth_question_done(q, AUTH_REPLY_CANNOT);
}

void auth_question_send(struct auth_question *q, struct auth_backend *b) {
    atomic_fetch_add(&q->auth->in_flight, 1);
    q->backend = b;
    q->deadline_ms = clock_mono_ms() + b->timeout_ms;
    q->why[0] = '\0';
    b->ops->ask(b, q);
}

static void verify(struct pool_job *job, void *scratch) {
    struct auth_question *q = CONTAINER_OF(job, struct auth_question, job);
    if (atomic_load(&q->canceled)) {
        auth_question_done(q, AUTH_REPLY_CANNOT);
        return;
    }
    int err = password_verify(q->hash, q->password, scratch);
    if (err == ERR_OK || err == ERR_DENIED)
        auth_question_done(q, err == ERR_OK ? AUTH_REPLY_YES : AUTH_REPLY_NO);
    else
        auth_question_cannot(q, err == ERR_NOMEM ? SPAN("no memory for the hash") : SPAN("a stored hash is no hash"));
}

void auth_question_verify(struct auth_question *q) {
    atomic_fetch_add(&q->auth->in_flight, 1);
    q->job.run = verify;
    if (pool_send(q->auth->hashes, &q->job) != ERR_OK)
        auth_question_cannot(q, SPAN("too many passwords wait to be checked"));
}

/* -- life -- */
static void close_backends(struct auth *a, bool on_io) {
    for (size_t i = 0; i < a->count; i++) {
        struct auth_backend *b = a->backends[i];
        if (!b || b->on_io != on_io)
            continue;
        a->backends[i] = NULL;
        b->ops->close(b);
    }
}

static void close_on_io(void *arg) {
    close_backends(arg, true);
}

static void *end(void *arg) {
    struct auth *a = arg;
    auth_io_free(a->io, close_on_io, a);
    close_backends(a, false);
    pool_free(a->hashes);
    while (a->offers) {
        struct auth_offer *next = a->offers->next;
        free(a->offers);
        a->offers = next;
    }
    guess_unref(a->guess);
    remember_free(a->good);
    sender_login_free(a->senders);
    scram_context_free(a->scram);
    pthread_mutex_destroy(&a->lock);
    arena_deinit(&a->mem);
    secret_wipe(a, sizeof *a);
    free(a);
    return NULL;
}

struct auth *auth_ref(struct auth *a) {
    atomic_fetch_add(&a->refs, 1);
    return a;
}

void auth_unref(struct auth *a) {
    if (!a || atomic_fetch_sub(&a->refs, 1) != 1)
        return;
    /* Canceled questions may keep a thread busy for a while; a loop must not wait for them. */
    pthread_t thread;
    if (atomic_load(&a->in_flight) > 0 && pthread_create(&thread, NULL, end, a) == 0)
        pthread_detach(thread);
    else
        end(a);
}

void auth_inherit(struct auth *fresh, struct auth *old) {
    struct guess *mine = fresh->guess;
    fresh->guess = guess_ref(old->guess);
    guess_unref(mine);
    memcpy(fresh->fake, old->fake, sizeof fresh->fake); /* a fake salt that changes would tell that it is one */
}

bool auth_is_stale(const struct auth *a) {
    for (size_t i = 0; i < a->count; i++) {
        const struct auth_backend *b = a->backends[i];
        if (b->ops->is_stale && b->ops->is_stale(b))
            return true;
    }
    return a->senders && sender_login_is_stale(a->senders);
}

bool auth_may_send(const struct auth *a, struct span account, struct span sender) {
    return sender_login_may(a->senders, account, sender);
}

/* -- making -- */
static void set_default(uint32_t *n, uint32_t value) {
    if (*n == 0)
        *n = value;
}

static int copy_text(struct auth *a, const char **text) {
    if (!*text)
        return ERR_OK;
    *text = arena_strdup(&a->mem, *text);
    return *text ? ERR_OK : ERR_NOMEM;
}

static int copy_config(struct auth *a, const struct auth_config *c) {
    a->config = *c;
    struct auth_config *m = &a->config;
    const char **texts[] = {&m->mechanisms, &m->realm, &m->hostname, &m->sender_login};
    int err = ERR_OK;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !err; i++)
        err = copy_text(a, texts[i]);
    if (m->failure_window_ms == 0)
        m->failure_window_ms = WINDOW_MS;
    set_default(&m->client_failures, CLIENT_FAILURES);
    set_default(&m->account_failures, ACCOUNT_FAILURES);
    set_default(&m->entries, ENTRIES);
    set_default(&m->hash_threads, HASH_THREADS);
    set_default(&m->hash_waiting, HASH_WAITING);
    m->backends = NULL;
    return err;
}

static int copy_backend(struct auth *a, const struct auth_backend_config *c, struct auth_backend_config **out) {
    struct auth_backend_config *m = arena_alloc(&a->mem, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    *m = *c;
    const char **texts[] = {&m->name,    &m->file,    &m->uri,  &m->user,   &m->password,
                            &m->ca_file, &m->bind_dn, &m->base, &m->filter, &m->query};
    int err = ERR_OK;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !err; i++)
        err = copy_text(a, texts[i]);
    if (!m->name)
        m->name = "auth";
    if (m->timeout_ms == 0)
        m->timeout_ms = TIMEOUT_MS;
    set_default(&m->connections, CONNECTIONS);
    *out = m;
    return err;
}

static int make_backend(struct auth *a, const struct auth_backend_config *c, struct buf *problems) {
    struct auth_backend_config *m = NULL;
    struct auth_backend *b = NULL;
    int err = copy_backend(a, c, &m);
    if (!err && !a->io && (c->kind == AUTH_HTTP || c->kind == AUTH_DOVECOT))
        err = auth_io_new(&a->io);
    if (err)
        return err;
    switch (c->kind) {
    case AUTH_FILE:
        err = auth_file_new(&b, m, a->config.realm, problems);
        break;
    case AUTH_LDAP:
        err = auth_ldap_new(&b, m, problems);
        break;
    case AUTH_POSTGRES:
        err = auth_postgres_new(&b, m, a->scram_named, problems);
        break;
    case AUTH_HTTP:
        err = auth_http_new(&b, m, a->io, problems);
        break;
    case AUTH_DOVECOT:
        err = auth_dovecot_new(&b, m, a->io, problems);
        break;
    }
    if (err)
        return err;
    b->name = m->name;
    b->kind = m->kind;
    b->timeout_ms = m->timeout_ms;
    a->backends[a->count++] = b;
    return ERR_OK;
}

static void *open_scratch(void *arg) {
    (void)arg;
    return password_scratch_new();
}

static void close_scratch(void *scratch, void *arg) {
    (void)arg;
    password_scratch_free(scratch);
}

static int make_parts(struct auth *a, struct buf *problems) {
    const struct auth_config *c = &a->config;
    struct pool_config pool = {.threads = c->hash_threads,
                               .waiting = c->hash_waiting,
                               .open = open_scratch,
                               .close = close_scratch,
                               .name = "auth-hash"};
    a->guess = guess_new(c->entries);
    a->good = c->cache_ms ? remember_new(c->entries, c->cache_ms) : NULL;
    if (!a->guess || (c->cache_ms && !a->good) || !password_decoy(a->decoy, sizeof a->decoy))
        return ERR_NOMEM;
    int err = pool_new(&a->hashes, &pool);
    err = err ? err : scram_context_new(&a->scram);
    if (!err && c->sender_login)
        err = sender_login_new(&a->senders, c->sender_login, c->realm, problems);
    return err;
}

static int make(struct auth *a, const struct auth_config *c, struct buf *problems) {
    int err = copy_config(a, c), first = ERR_OK;
    err = err ? err : make_parts(a, problems);
    if (c->count > AUTH_BACKENDS_MAX) {
        buf_printf(problems, "auth: more than %d backends\n", AUTH_BACKENDS_MAX);
        return ERR_INVALID;
    }
    a->scram_named = c->mechanisms && strstr(c->mechanisms, "SCRAM-SHA-256");
    for (size_t i = 0; i < c->count && !err; i++) { /* all problems at once */
        int bad = make_backend(a, &c->backends[i], problems);
        first = first ? first : bad;
    }
    err = err ? err : first;
    err = err ? err : auth_offer_check(a, problems);
    return !err && a->io ? auth_io_start(a->io) : err;
}

int auth_new(struct auth **out, const struct auth_config *c, struct buf *problems) {
    struct auth *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NOMEM;
    atomic_init(&a->refs, 1);
    CHECK(pthread_mutex_init(&a->lock, NULL) == 0);
    arena_init(&a->mem, 4096, CONFIG_MAX);
    rand_secure(a->fake, sizeof a->fake);
    int err = make(a, c, problems);
    if (err)
        end(a);
    else
        *out = a;
    return err;
}
