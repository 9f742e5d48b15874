/*
 * postgres: the backend that gives the hash of an account from a PostgreSQL query. The hash is verified elsewhere, as
 * one of a file is; no password goes to the database.
 *
 * Each thread of the pool has one connection, kept between questions, and replaced once within a question when it broke
 * since its last use. The last hash that was seen stands for accounts that do not exist.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/password.h"
#include "base/net/pg.h"
#include "base/net/secret.h"

#include "gateway/auth/backend.h"

enum { WHY_MAX = 256 };

struct postgres {
    struct auth_backend base;
    const struct auth_backend_config *config;
    struct pool *pool;
    bool scram;
    pthread_mutex_t lock;
    char last[AUTH_HASH_MAX + 1], last_verifier[AUTH_HASH_MAX + 1]; /* "": none yet */
};
struct seat { /* of a thread */
    struct postgres *b;
    struct pg_link *link;
    bool used;
    struct buf why;
};

static void *seat_open(void *arg) {
    struct seat *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->b = arg;
    buf_init(&s->why, WHY_MAX);
    return s;
}

static void drop_link(struct seat *s) {
    if (s->link)
        pg_link_close(s->link);
    s->link = NULL;
    s->used = false;
}

static void seat_close(void *state, void *arg) {
    struct seat *s = state;
    (void)arg;
    if (!s)
        return;
    drop_link(s);
    buf_deinit(&s->why);
    free(s);
}

struct rows {
    char *hash;
    size_t count;
    bool too_long, no_column;
};

static void on_row(void *arg, const struct span *columns, size_t count) {
    struct rows *r = arg;
    if (r->count++ > 0)
        return;
    r->no_column = count == 0;
    struct span hash = count && columns[0].at ? columns[0] : SPAN("*"); /* NULL: no password, so none fits */
    if (hash.len == 0)
        hash = SPAN("*");
    r->too_long = hash.len > AUTH_HASH_MAX;
    if (!r->too_long)
        span_copy(hash, r->hash, AUTH_HASH_MAX + 1);
}

static int ask_once(struct seat *s, struct auth_question *q, struct rows *r) {
    const struct auth_backend_config *c = s->b->config;
    *r = (struct rows){.hash = q->hash};
    buf_clear(&s->why);
    if (!s->link && pg_link_open(&s->link, c->uri, c->timeout_ms, &s->why) != ERR_OK) {
        s->link = NULL;
        return ERR_UNREACHABLE;
    }
    struct span account = span_of(q->account);
    int err = pg_link_query(s->link, c->query, &account, 1, on_row, r, c->timeout_ms, &s->why);
    if (!err && (r->count > 1 || r->too_long || r->no_column)) {
        buf_add_str(&s->why, r->count > 1 ? "more than one row for the account" : "the first column is no hash");
        err = ERR_INVALID;
    }
    return err;
}

static void learn(struct postgres *b, const char *hash) {
    enum password_kind kind = password_kind(hash);
    if (kind == PASSWORD_LOCKED || kind == PASSWORD_BAD)
        return;
    pthread_mutex_lock(&b->lock);
    span_copy(span_of(hash), b->last, sizeof b->last);
    if (kind == PASSWORD_SCRAM)
        span_copy(span_of(hash), b->last_verifier, sizeof b->last_verifier);
    pthread_mutex_unlock(&b->lock);
}

static void run(struct pool_job *job, void *state) {
    struct auth_question *q = CONTAINER_OF(job, struct auth_question, job);
    struct seat *s = state;
    struct rows r;
    if (!s || atomic_load(&q->canceled) || clock_mono_ms() >= q->deadline_ms) {
        auth_question_cannot(q, s ? SPAN("waited too long for a connection") : SPAN("no memory"));
        return;
    }
    bool kept = s->used;
    int err = ask_once(s, q, &r);
    if (err == ERR_CLOSED && kept) {
        drop_link(s);
        err = ask_once(s, q, &r);
    }
    if (err == ERR_CLOSED || err == ERR_TIMEOUT || err == ERR_IO)
        drop_link(s);
    s->used = s->link != NULL;
    if (err) {
        auth_question_cannot(q, buf_len(&s->why) ? buf_span(&s->why) : span_of(err_text(err)));
        return;
    }
    if (r.count)
        learn(s->b, q->hash);
    auth_question_done(q, r.count ? AUTH_REPLY_HASH : AUTH_REPLY_UNKNOWN);
}

static void ask(struct auth_backend *base, struct auth_question *q) {
    struct postgres *b = CONTAINER_OF(base, struct postgres, base);
    CHECK(q->ask == AUTH_ASK_HASH);
    q->job.run = run;
    if (pool_send(b->pool, &q->job) != ERR_OK)
        auth_question_cannot(q, SPAN("too many questions wait"));
}

static void close_postgres(struct auth_backend *base) {
    struct postgres *b = CONTAINER_OF(base, struct postgres, base);
    pool_free(b->pool);
    pthread_mutex_destroy(&b->lock);
    secret_wipe(b, sizeof *b);
    free(b);
}

static bool has_verifiers(const struct auth_backend *base) {
    return CONTAINER_OF(base, struct postgres, base)->scram;
}

static bool decoy(struct auth_backend *base, struct span account, bool verifier, char to[AUTH_HASH_MAX + 1]) {
    struct postgres *b = CONTAINER_OF(base, struct postgres, base);
    (void)account;
    pthread_mutex_lock(&b->lock);
    span_copy(span_of(verifier ? b->last_verifier : b->last), to, AUTH_HASH_MAX + 1);
    pthread_mutex_unlock(&b->lock);
    return to[0] != '\0';
}

static const struct auth_backend_ops ops = {
    .ask = ask, .close = close_postgres, .has_verifiers = has_verifiers, .decoy = decoy};

int auth_postgres_new(struct auth_backend **out, const struct auth_backend_config *c, bool scram,
                      struct buf *problems) {
    if (!c->uri || !c->query || !strstr(c->query, "$1")) {
        buf_printf(problems, "auth %s: needs an uri, and a query with $1 for the account\n", c->name);
        return ERR_INVALID;
    }
    struct postgres *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    b->base = (struct auth_backend){.ops = &ops, .gives_hashes = true};
    b->config = c;
    b->scram = scram;
    CHECK(pthread_mutex_init(&b->lock, NULL) == 0);
    struct pool_config pool = {.threads = c->connections,
                               .waiting = AUTH_WAITING_MAX,
                               .open = seat_open,
                               .close = seat_close,
                               .arg = b,
                               .name = "auth-postgres"};
    int err = pool_new(&b->pool, &pool);
    if (err) {
        pthread_mutex_destroy(&b->lock);
        free(b);
    } else {
        *out = &b->base;
    }
    return err;
}
