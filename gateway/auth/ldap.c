/*
 * ldap: the backend that binds as the account. Either its DN is made from a template (then the server does not tell a
 * wrong password from an unknown account, and both end the search for one), or it is found by a search as a service
 * user, and only then bound.
 *
 * Each thread of the pool has one connection, kept between questions. A connection that broke since its last use is
 * replaced once within a question, since servers close idle ones.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/net/ldap.h"

#include "gateway/auth/backend.h"
#include "gateway/auth/template.h"

enum { TEXT_MAX = 4096, WHY_MAX = 256 };

struct ldap_backend {
    struct auth_backend base;
    const struct auth_backend_config *config;
    struct pool *pool;
};
struct seat { /* of a thread */
    const struct ldap_backend *b;
    struct ldap_link *link;
    bool used; /* the link has answered before */
    struct buf text, why;
};

static void *seat_open(void *arg) {
    struct seat *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->b = arg;
    buf_init(&s->text, TEXT_MAX);
    buf_init(&s->why, WHY_MAX);
    return s;
}

static void drop_link(struct seat *s) {
    if (s->link)
        ldap_link_close(s->link);
    s->link = NULL;
    s->used = false;
}

static void seat_close(void *state, void *arg) {
    struct seat *s = state;
    (void)arg;
    if (!s)
        return;
    drop_link(s);
    buf_deinit(&s->text);
    buf_deinit(&s->why);
    free(s);
}

static int connect_link(struct seat *s) {
    const struct auth_backend_config *c = s->b->config;
    if (s->link)
        return ERR_OK;
    struct ldap_config l = {.uri = c->uri, .starttls = c->starttls, .ca_file = c->ca_file, .timeout_ms = c->timeout_ms};
    return ldap_link_open(&s->link, &l, &s->why);
}

struct found {
    char *dn; /* the first one */
    size_t count;
    bool no_memory;
};

static void on_value(void *arg, const char *attribute, struct span value) {
    struct found *f = arg;
    if (attribute)
        return;
    if (f->count++ == 0) {
        f->dn = strndup(value.at ? value.at : "", value.len);
        f->no_memory = !f->dn;
    }
}

/* ERR_OK: *dn is to be freed; ERR_NOT_FOUND. */
static int find_dn(struct seat *s, const struct auth_question *q, char **dn) {
    const struct auth_backend_config *c = s->b->config;
    static const char *const none[] = {"1.1", NULL}; /* RFC 4511 section 4.5.1.8: no attributes */
    buf_clear(&s->text);
    if (c->bind_dn) {
        int err = template_fill(c->bind_dn, span_of(q->account), ldap_escape_dn, &s->text);
        *dn = err ? NULL : strdup(buf_cstr(&s->text));
        return err ? err : *dn ? ERR_OK : ERR_NOMEM;
    }
    int err = template_fill(c->filter, span_of(q->account), ldap_escape_filter, &s->text);
    if (err)
        return err;
    err = ldap_link_bind(s->link, c->user ? c->user : "", span_of(c->password), &s->why);
    if (err)
        return err == ERR_DENIED ? ERR_INVALID : err; /* our own password is wrong, not the client's */
    struct found f = {0};
    err = ldap_link_search(s->link, c->base, buf_cstr(&s->text), none, on_value, &f, &s->why);
    if (err == ERR_DENIED || err == ERR_NOT_FOUND) /* the service user may not search, or the base is not there */
        err = ERR_INVALID;
    if (!err && f.no_memory)
        err = ERR_NOMEM;
    if (!err && f.count > 1) {
        buf_add_str(&s->why, "more than one entry fits the account");
        err = ERR_INVALID;
    }
    if (!err && f.count == 0)
        err = ERR_NOT_FOUND;
    if (err)
        free(f.dn);
    else
        *dn = f.dn;
    return err;
}

static int check(struct seat *s, const struct auth_question *q) {
    char *dn = NULL;
    buf_clear(&s->why);
    int err = connect_link(s);
    if (err) /* ERR_DENIED here speaks of certificates */
        return ERR_UNREACHABLE;
    err = find_dn(s, q, &dn);
    if (!err)
        err = ldap_link_bind(s->link, dn, span_of(q->password), &s->why);
    free(dn);
    return err;
}

static bool is_broken(int err) {
    return err == ERR_CLOSED || err == ERR_TIMEOUT || err == ERR_IO;
}

static void run(struct pool_job *job, void *state) {
    struct auth_question *q = CONTAINER_OF(job, struct auth_question, job);
    struct seat *s = state;
    if (!s || atomic_load(&q->canceled) || clock_mono_ms() >= q->deadline_ms) {
        auth_question_cannot(q, s ? SPAN("waited too long for a connection") : SPAN("no memory"));
        return;
    }
    bool kept = s->used;
    int err = check(s, q);
    if (is_broken(err)) {
        drop_link(s);
        if (kept && err != ERR_TIMEOUT)
            err = check(s, q);
    }
    if (is_broken(err))
        drop_link(s);
    s->used = s->link != NULL;
    if (err == ERR_OK)
        auth_question_done(q, AUTH_REPLY_YES);
    else if (err == ERR_DENIED)
        auth_question_done(q, AUTH_REPLY_NO);
    else if (err == ERR_NOT_FOUND)
        auth_question_done(q, AUTH_REPLY_UNKNOWN);
    else
        auth_question_cannot(q, buf_len(&s->why) ? buf_span(&s->why) : span_of(err_text(err)));
}

static void ask(struct auth_backend *base, struct auth_question *q) {
    struct ldap_backend *b = CONTAINER_OF(base, struct ldap_backend, base);
    CHECK(q->ask == AUTH_ASK_PASSWORD);
    q->job.run = run;
    if (pool_send(b->pool, &q->job) != ERR_OK)
        auth_question_cannot(q, SPAN("too many questions wait"));
}

static void close_ldap(struct auth_backend *base) {
    struct ldap_backend *b = CONTAINER_OF(base, struct ldap_backend, base);
    pool_free(b->pool);
    free(b);
}

static const struct auth_backend_ops ops = {.ask = ask, .close = close_ldap};

static const char *problem_of(const struct auth_backend_config *c) {
    struct span uri = span_of(c->uri);
    if (!span_starts_nocase(uri, SPAN("ldap://")) && !span_starts_nocase(uri, SPAN("ldaps://")) &&
        !span_starts_nocase(uri, SPAN("ldapi://")))
        return "needs an uri ldap://, ldaps:// or ldapi://";
    if (c->bind_dn)
        return template_problem(c->bind_dn);
    if (!c->base || !c->filter)
        return "needs bind_dn, or base and filter";
    return template_problem(c->filter);
}

int auth_ldap_new(struct auth_backend **out, const struct auth_backend_config *c, struct buf *problems) {
    const char *problem = problem_of(c);
    if (problem) {
        buf_printf(problems, "auth %s: %s\n", c->name, problem);
        return ERR_INVALID;
    }
    struct ldap_backend *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    b->base.ops = &ops;
    b->config = c;
    struct pool_config pool = {.threads = c->connections,
                               .waiting = AUTH_WAITING_MAX,
                               .open = seat_open,
                               .close = seat_close,
                               .arg = b,
                               .name = "auth-ldap"};
    int err = pool_new(&b->pool, &pool);
    if (err)
        free(b);
    else
        *out = &b->base;
    return err;
}
