/*
 * ldap: recipients in an LDAP directory: threads with one connection each, a search for each question.
 *
 * An entry that the filter finds is a recipient. Values of the forward attribute make it a forward, those of the alias
 * attribute an alias; a forward that names the address itself keeps a copy. Several entries add up. A link that
 * broke is opened again at the next question: the engine repeats the one that was lost.
 *
 * A search that the server refuses (a bad filter, a base that is not there) says nothing about the recipient:
 * TEMPFAIL, never unknown.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/net/ldap.h"
#include "base/pool.h"

#include "gateway/directory/backend.h"

enum { FILTER_MAX = 4096, TARGETS_MAX = 512 * 1024, WHY_MAX = 1024 };

struct ldap_backend {
    struct backend base;
    const struct directory_config *config;
    struct pool *pool;
    const char *filter;
};
struct ldap_job {
    struct pool_job job;
    struct ldap_backend *b;
    struct backend_question *q;
};
/* A thread's state: its link, NULL while it has none. */
struct ldap_thread {
    struct ldap_link *link;
};

/* -- one question -- */

struct gathering {
    const struct directory_config *c;
    struct span address;
    struct buf forwards, aliases;
    size_t entries, self;
};

static bool is_attribute(const char *wanted, const char *attribute) {
    return wanted && *wanted && span_eq_nocase(span_of(wanted), span_of(attribute));
}

static void on_value(void *arg, const char *attribute, struct span value) {
    struct gathering *g = arg;
    if (!attribute) {
        g->entries++;
        return;
    }
    value = span_trim(value);
    bool forward = is_attribute(g->c->forward_attribute, attribute);
    if (value.len == 0 || (!forward && !is_attribute(g->c->alias_attribute, attribute)))
        return;
    if (span_eq_nocase(value, g->address)) {
        g->self++; /* its own mailbox, among the targets or alone */
        return;
    }
    struct buf *to = forward ? &g->forwards : &g->aliases;
    if (buf_len(to))
        buf_add_str(to, ", ");
    buf_add(to, value);
}

static int build_filter(const char *template, const struct backend_question *q, struct buf *to) {
    for (const char *p = template; *p; p++) {
        if (p[0] != '%' || !p[1]) {
            (void)buf_add_byte(to, *p);
            continue;
        }
        p++;
        if (*p == 's')
            (void)ldap_escape_filter(q->address, to);
        else if (*p == 'u')
            (void)ldap_escape_filter(q->key, to);
        else if (*p == 'd')
            (void)ldap_escape_filter(q->domain, to);
        else
            (void)buf_add_byte(to, *p); /* "%%"; others were refused when it was made */
    }
    return to->err;
}

/* Of what the entries said. */
static void conclude(struct gathering *g, struct backend_reply *r, struct buf *why) {
    struct buf *targets = buf_len(&g->forwards) ? &g->forwards : &g->aliases;
    buf_printf(why, ", %zu %s", g->entries, g->entries == 1 ? "entry" : "entries");
    r->status = g->entries ? DIRECTORY_FOUND : DIRECTORY_UNKNOWN;
    r->kind = TABLE_MAILBOX;
    if (targets->err) {
        r->status = DIRECTORY_TEMPFAIL;
        buf_add_str(why, ", too many targets");
    } else if (buf_len(targets)) {
        r->kind = g->self ? TABLE_FORWARD_KEEP : targets == &g->forwards ? TABLE_FORWARD : TABLE_ALIAS;
        r->targets = buf_span(targets);
    }
}

static int connect_thread(struct ldap_backend *b, struct ldap_thread *t, uint64_t timeout_ms, struct buf *why) {
    const struct directory_config *c = b->config;
    struct ldap_config lc = {.uri = c->uri, .starttls = c->starttls, .ca_file = c->ca_file, .timeout_ms = timeout_ms};
    int err = ldap_link_open(&t->link, &lc, why);
    if (err || !c->user)
        return err;
    err = ldap_link_bind(t->link, c->user, span_of(c->password), why);
    if (err) {
        ldap_link_close(t->link);
        t->link = NULL;
    }
    return err;
}

/* Whether the link is of no use any more. */
static bool is_broken(int err) {
    return err == ERR_CLOSED || err == ERR_TIMEOUT || err == ERR_IO || err == ERR_CORRUPT || err == ERR_NOMEM;
}

static void search(struct ldap_job *j, struct ldap_thread *t, struct gathering *g, struct backend_reply *r,
                   struct buf *why) {
    struct ldap_backend *b = j->b;
    const char *attributes[] = {b->config->forward_attribute, b->config->alias_attribute, NULL};
    const char *const *wanted = attributes[0] ? attributes : attributes + 1;
    uint64_t now = clock_mono_ms(), left = j->q->deadline_ms > now ? j->q->deadline_ms - now : 0;
    struct buf filter;
    buf_init(&filter, FILTER_MAX);
    r->err = left ? build_filter(b->filter, j->q, &filter) : ERR_TIMEOUT;
    if (!left)
        buf_add_str(why, "no connection was free in time");
    if (!r->err && !t->link)
        r->err = connect_thread(b, t, left, why);
    if (!r->err) {
        buf_add(why, buf_span(&filter));
        struct buf words;
        buf_init(&words, WHY_MAX);
        ldap_link_set_timeout(t->link, left);
        r->err = ldap_link_search(t->link, b->config->base, buf_cstr(&filter), wanted, on_value, g, &words);
        if (buf_len(&words)) {
            buf_add_str(why, ": ");
            buf_add(why, buf_span(&words));
        }
        buf_deinit(&words);
        if (is_broken(r->err)) {
            ldap_link_close(t->link);
            t->link = NULL;
        } else if (r->err) { /* the server works, and its answer is no answer */
            r->err = ERR_OK;
            r->status = DIRECTORY_TEMPFAIL;
        } else {
            conclude(g, r, why);
        }
    }
    buf_deinit(&filter);
}

static void run(struct pool_job *job, void *state) {
    struct ldap_job *j = CONTAINER_OF(job, struct ldap_job, job);
    struct gathering g = {.c = j->b->config, .address = j->q->address};
    struct backend_reply r = {.err = ERR_OK, .status = DIRECTORY_TEMPFAIL};
    struct ldap_thread none = {NULL}, *t = state ? state : &none;
    struct buf why;
    buf_init(&why, WHY_MAX + FILTER_MAX);
    buf_init(&g.forwards, TARGETS_MAX);
    buf_init(&g.aliases, TARGETS_MAX);
    search(j, t, &g, &r, &why);
    r.why = buf_span(&why);
    ldap_link_close(none.link);
    backend_answer(j->q, &r);
    buf_deinit(&why);
    buf_deinit(&g.forwards);
    buf_deinit(&g.aliases);
    free(j);
}

/* -- the backend -- */

static void *open_thread(void *arg) {
    (void)arg;
    return calloc(1, sizeof(struct ldap_thread));
}

static void close_thread(void *state, void *arg) {
    struct ldap_thread *t = state;
    (void)arg;
    if (t)
        ldap_link_close(t->link);
    free(t);
}

static void ask(struct backend *base, struct backend_question *q) {
    struct ldap_backend *b = (struct ldap_backend *)base; /* base is the first member */
    struct ldap_job *j = calloc(1, sizeof *j);
    struct backend_reply r = {.err = ERR_NOMEM};
    if (j) {
        *j = (struct ldap_job){.job.run = run, .b = b, .q = q};
        r.err = pool_send(b->pool, &j->job);
    }
    if (r.err) {
        free(j);
        backend_answer(q, &r);
    }
}

static void close_backend(struct backend *base) {
    struct ldap_backend *b = (struct ldap_backend *)base;
    pool_free(b->pool);
    free(b);
}

static int complain(const struct directory_config *c, const char *what, struct buf *problems) {
    buf_printf(problems, "directory %s: %s\n", c->name, what);
    return ERR_INVALID;
}

static int check_filter(const struct directory_config *c, const char *filter, struct buf *problems) {
    for (const char *p = filter; *p; p++) {
        if (*p == '%' && (!*++p || !strchr("sud%", *p)))
            return complain(c, "filter: takes %s, %u, %d and %%", problems);
    }
    return strlen(filter) < FILTER_MAX / 4 ? ERR_OK : complain(c, "filter: too long", problems);
}

int backend_ldap_new(struct backend **out, const struct directory_config *c, struct buf *problems) {
    static const struct backend_ops ops = {ask, close_backend};
    const char *filter = c->filter ? c->filter : "(|(mail=%s)(mailAlternateAddress=%s))";
    *out = NULL;
    if (!c->uri || (strncmp(c->uri, "ldap://", 7) && strncmp(c->uri, "ldaps://", 8) && strncmp(c->uri, "ldapi://", 8)))
        return complain(c, "uri: takes ldap://HOST:PORT, ldaps://HOST:PORT or ldapi://PATH", problems);
    if (!c->base)
        return complain(c, "base: missing", problems);
    if (c->starttls && strncmp(c->uri, "ldap://", 7))
        return complain(c, "starttls: is for ldap:// only", problems);
    if (c->user && *c->user && (!c->password || !*c->password))
        return complain(c, "password: an empty one with a user would be taken for an anonymous bind", problems);
    if (check_filter(c, filter, problems) != ERR_OK)
        return ERR_INVALID;
    struct ldap_backend *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    *b = (struct ldap_backend){.base = {&ops}, .config = c, .filter = filter};
    const struct pool_config pc = {.threads = c->connections,
                                   .waiting = c->waiting + c->connections + 1,
                                   .open = open_thread,
                                   .close = close_thread,
                                   .name = "ph-ldap"};
    int err = pool_new(&b->pool, &pc);
    if (err) {
        free(b);
        return err;
    }
    *out = &b->base;
    return ERR_OK;
}
