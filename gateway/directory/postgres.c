/*
 * postgres: recipients in a PostgreSQL database: threads with one connection each, one query for each question.
 *
 * No row: unknown. A row without a target (no column, NULL, an empty string) is a mailbox; rows with targets make an
 * alias, or what the second column says; a mailbox among them means that a copy is kept. A link that broke is
 * opened again at the next question: the engine repeats the one that was lost.
 *
 * A query that the server refuses says nothing about the recipient: TEMPFAIL, never unknown.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/net/pg.h"
#include "base/pool.h"

#include "gateway/directory/backend.h"

enum { TARGETS_MAX = 512 * 1024, WHY_MAX = 1024, PARAMS = 3 };

struct pg_backend {
    struct backend base;
    const struct directory_config *config;
    struct pool *pool;
    size_t params; /* the highest $N of the query */
};
struct pg_job {
    struct pool_job job;
    struct pg_backend *b;
    struct backend_question *q;
};
struct pg_thread {
    struct pg_link *link;
};

/* -- one question -- */

struct gathering {
    struct span address;
    struct buf targets;
    size_t rows, mailboxes;
    enum table_kind kind; /* of the targets */
    bool odd;             /* a kind that is none */
};

static bool kind_of(struct span word, enum table_kind *kind) {
    static const struct {
        const char *word;
        enum table_kind kind;
    } kinds[] = {{"mailbox", TABLE_MAILBOX},
                 {"alias", TABLE_ALIAS},
                 {"forward", TABLE_FORWARD},
                 {"forward_keep", TABLE_FORWARD_KEEP}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (span_eq_nocase(word, span_of(kinds[i].word))) {
            *kind = kinds[i].kind;
            return true;
        }
    }
    return false;
}

static void on_row(void *arg, const struct span *columns, size_t count) {
    struct gathering *g = arg;
    struct span target = count ? span_trim(columns[0]) : SPAN_EMPTY;
    enum table_kind kind = target.len ? TABLE_ALIAS : TABLE_MAILBOX;
    g->rows++;
    if (count > 1 && columns[1].len && !kind_of(span_trim(columns[1]), &kind))
        g->odd = true;
    if (kind == TABLE_MAILBOX || span_eq_nocase(target, g->address)) {
        g->mailboxes++;
        return;
    }
    if (target.len == 0) {
        g->odd = true; /* an alias of nothing */
        return;
    }
    if (g->kind < kind)
        g->kind = kind;
    if (buf_len(&g->targets))
        buf_add_str(&g->targets, ", ");
    buf_add(&g->targets, target);
}

static void conclude(struct gathering *g, struct backend_reply *r, struct buf *why) {
    buf_printf(why, "%zu %s", g->rows, g->rows == 1 ? "row" : "rows");
    r->status = g->rows ? DIRECTORY_FOUND : DIRECTORY_UNKNOWN;
    r->kind = TABLE_MAILBOX;
    if (g->odd || g->targets.err) {
        r->status = DIRECTORY_TEMPFAIL;
        buf_add_str(why, g->odd ? ", one of no known kind, or without a target" : ", too many targets");
    } else if (buf_len(&g->targets)) {
        r->kind = g->mailboxes ? TABLE_FORWARD_KEEP : g->kind;
        r->targets = buf_span(&g->targets);
    }
}

static bool is_broken(int err) {
    return err == ERR_CLOSED || err == ERR_TIMEOUT || err == ERR_IO || err == ERR_NOMEM;
}

static void query(struct pg_job *j, struct pg_thread *t, struct gathering *g, struct backend_reply *r,
                  struct buf *why) {
    const struct directory_config *c = j->b->config;
    const struct span params[PARAMS] = {j->q->address, j->q->key, j->q->domain};
    uint64_t now = clock_mono_ms(), left = j->q->deadline_ms > now ? j->q->deadline_ms - now : 0;
    r->err = left ? ERR_OK : ERR_TIMEOUT;
    if (!left)
        buf_add_str(why, "no connection was free in time");
    if (!r->err && !t->link)
        r->err = pg_link_open(&t->link, c->uri, left, why);
    if (r->err)
        return;
    now = clock_mono_ms();
    left = j->q->deadline_ms > now ? j->q->deadline_ms - now : 1;
    r->err = pg_link_query(t->link, c->query, params, j->b->params, on_row, g, left, why);
    if (is_broken(r->err)) {
        pg_link_close(t->link);
        t->link = NULL;
    } else if (r->err) { /* the server works, and its answer is no answer */
        r->err = ERR_OK;
        r->status = DIRECTORY_TEMPFAIL;
    } else {
        conclude(g, r, why);
    }
}

static void run(struct pool_job *job, void *state) {
    struct pg_job *j = CONTAINER_OF(job, struct pg_job, job);
    struct gathering g = {.address = j->q->address, .kind = TABLE_ALIAS};
    struct backend_reply r = {.err = ERR_OK, .status = DIRECTORY_TEMPFAIL};
    struct pg_thread none = {NULL}, *t = state ? state : &none;
    struct buf why;
    buf_init(&why, WHY_MAX);
    buf_init(&g.targets, TARGETS_MAX);
    query(j, t, &g, &r, &why);
    r.why = buf_span(&why);
    pg_link_close(none.link);
    backend_answer(j->q, &r);
    buf_deinit(&why);
    buf_deinit(&g.targets);
    free(j);
}

/* -- the backend -- */

static void *open_thread(void *arg) {
    (void)arg;
    return calloc(1, sizeof(struct pg_thread));
}

static void close_thread(void *state, void *arg) {
    struct pg_thread *t = state;
    (void)arg;
    if (t)
        pg_link_close(t->link);
    free(t);
}

static void ask(struct backend *base, struct backend_question *q) {
    struct pg_backend *b = (struct pg_backend *)base; /* base is the first member */
    struct pg_job *j = calloc(1, sizeof *j);
    struct backend_reply r = {.err = ERR_NOMEM};
    if (j) {
        *j = (struct pg_job){.job.run = run, .b = b, .q = q};
        r.err = pool_send(b->pool, &j->job);
    }
    if (r.err) {
        free(j);
        backend_answer(q, &r);
    }
}

static void close_backend(struct backend *base) {
    struct pg_backend *b = (struct pg_backend *)base;
    pool_free(b->pool);
    free(b);
}

static int complain(const struct directory_config *c, const char *what, struct buf *problems) {
    buf_printf(problems, "directory %s: %s\n", c->name, what);
    return ERR_INVALID;
}

/* The highest parameter, since the server refuses more than the query names. 0: none; over PARAMS: a mistake. */
static size_t count_params(const char *query) {
    size_t highest = 0;
    for (const char *p = query; *p; p++) {
        if (p[0] != '$' || p[1] < '1' || p[1] > '9')
            continue;
        size_t n = p[2] >= '0' && p[2] <= '9' ? PARAMS + 1 : (size_t)(p[1] - '0');
        highest = n > highest ? n : highest;
    }
    return highest;
}

int backend_postgres_new(struct backend **out, const struct directory_config *c, struct buf *problems) {
    static const struct backend_ops ops = {ask, close_backend};
    *out = NULL;
    if (!c->uri)
        return complain(c, "uri: missing: takes a libpq connection string", problems);
    if (!c->query)
        return complain(c, "query: missing", problems);
    size_t params = count_params(c->query);
    if (params == 0 || params > PARAMS)
        return complain(c, "query: takes $1 (address), $2 (local part) and $3 (domain), at least one", problems);
    struct pg_backend *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    *b = (struct pg_backend){.base = {&ops}, .config = c, .params = params};
    const struct pool_config pc = {.threads = c->connections,
                                   .waiting = c->waiting + c->connections + 1,
                                   .open = open_thread,
                                   .close = close_thread,
                                   .name = "ph-postgres"};
    int err = pool_new(&b->pool, &pc);
    if (err) {
        free(b);
        return err;
    }
    *out = &b->base;
    return ERR_OK;
}
