/*
 * parts: see parts.h. Each part knows by itself whether its files changed (is_stale); here they are only made in order,
 * and counted together.
 */
#include "node/parts.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/metrics.h"

METRIC_GAUGE(metric_not_after, "posthouse_tls_not_after_seconds",
             "When the certificate that expires first does so, seconds since 1970 (0: no TLS)")

enum { FILES_MAX = 4096 };

struct parts {
    atomic_uint references;
    struct inbound_parts in;
    struct tls_tickets *tickets; /* NULL: no TLS */
    struct arena mem;
    const char **files; /* of TLS, AUTH and keys */
    size_t file_count;
};

static struct parts *alloc(void) {
    struct parts *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    atomic_init(&p->references, 1);
    arena_init(&p->mem, 4096, 0);
    return p;
}

struct parts *parts_ref(struct parts *p) {
    atomic_fetch_add(&p->references, 1);
    return p;
}

void parts_unref(struct parts *p) {
    if (!p || atomic_fetch_sub(&p->references, 1) != 1)
        return;
    recipients_unref(p->in.recipients);
    if (p->in.tls)
        tls_server_unref(p->in.tls);
    if (p->in.auth)
        auth_unref(p->in.auth);
    if (p->in.mailauth)
        mailauth_unref(p->in.mailauth);
    tls_tickets_unref(p->tickets);
    arena_deinit(&p->mem);
    free(p->files);
    free(p);
}

/* -- making each -- */

/* They live on, so that a reload does not end the sessions that clients may resume. */
static int make_tickets(struct parts *p, const struct settings_tls *t, struct parts *old, struct buf *problems) {
    if (!old || !old->tickets || !tls_tickets_is(old->tickets, t->ticket_keys, t->ticket_rotate_ms))
        return tls_tickets_new(&p->tickets, t->ticket_keys, t->ticket_rotate_ms, problems);
    p->tickets = tls_tickets_ref(old->tickets);
    return tls_tickets_reload(p->tickets, problems);
}

static int make_tls(struct parts *p, const struct settings *s, struct parts *old, struct buf *problems) {
    static const char *const profiles[] = {"intermediate", "modern", "old"};
    const struct settings_tls *t = &s->tls;
    bool asks = false;
    if (!t->pair_count)
        return ERR_OK;
    for (size_t i = 0; i < s->inbound.listener_count; i++)
        asks |= s->inbound.listeners[i].client_certificate;
    int err = make_tickets(p, t, old, problems);
    struct tls_server_config c = {.pairs = t->pairs,
                                  .count = t->pair_count,
                                  .profile = profiles[t->profile],
                                  .client_ca = t->client_ca,
                                  .ask_client = asks && t->client_ca,
                                  .tickets = p->tickets};
    if (!err)
        err = tls_server_new(&p->in.tls, &c, problems);
    if (!err)
        metric_set(&metric_not_after, (uint64_t)tls_server_not_after(p->in.tls));
    return err;
}

static int make_auth(struct parts *p, const struct settings *s, struct parts *old, struct buf *problems) {
    if (!s->auth.count)
        return ERR_OK;
    int err = auth_new(&p->in.auth, &s->auth, problems);
    if (!err && old && old->in.auth)
        auth_inherit(p->in.auth, old->in.auth);
    return err;
}

static int make_mailauth(struct parts *p, const struct settings *s, struct buf *problems) {
    const struct mailauth_config *m = &s->mailauth;
    if (!m->spf && !m->dkim && !m->key_count)
        return ERR_OK;
    return mailauth_new(&p->in.mailauth, m, problems);
}

/* -- files -- */

static int add_file(struct parts *p, const char *path) {
    if (!path || p->file_count == FILES_MAX)
        return ERR_OK;
    const char *copy = arena_strdup(&p->mem, path);
    const char **more = realloc(p->files, (p->file_count + 1) * sizeof *more);
    if (more)
        p->files = more;
    if (!more || !copy)
        return ERR_NOMEM;
    p->files[p->file_count++] = copy;
    return ERR_OK;
}

static int list_files(struct parts *p, const struct settings *s) {
    int err = add_file(p, s->tls.client_ca);
    if (!err)
        err = add_file(p, s->tls.ticket_keys);
    for (size_t i = 0; !err && i < s->tls.pair_count; i++) {
        err = add_file(p, s->tls.pairs[i].certificate);
        if (!err)
            err = add_file(p, s->tls.pairs[i].key);
    }
    for (size_t i = 0; !err && i < s->auth.count; i++)
        err = add_file(p, s->auth.backends[i].file);
    if (!err && s->auth.count)
        err = add_file(p, s->auth.sender_login);
    for (size_t i = 0; !err && i < s->mailauth.key_count; i++)
        err = add_file(p, s->mailauth.keys[i].key);
    return err;
}

const char *parts_file(const struct parts *p, size_t n) {
    if (n < p->file_count)
        return p->files[n];
    return recipients_file(p->in.recipients, n - p->file_count);
}

/* -- all of them -- */

/* "FILE: warning: what", as those of the certificates. */
static void add_warnings(struct parts *p, const struct settings *s, struct buf *problems) {
    struct buf lines;
    buf_init(&lines, 65536);
    recipients_warnings(p->in.recipients, &lines);
    for (struct span rest = buf_span(&lines); rest.len;) {
        struct span line = span_cut(rest, '\n', &rest);
        buf_printf(problems, "%s: warning: ", s->file);
        buf_add(problems, line);
        buf_add_byte(problems, '\n');
    }
    buf_deinit(&lines);
}

int parts_new(struct parts **out, const struct settings *s, struct parts *old, struct buf *problems) {
    struct parts *p = alloc();
    *out = NULL;
    if (!p)
        return ERR_NOMEM;
    int errs[] = {recipients_renew(&p->in.recipients, &s->recipients, old ? old->in.recipients : NULL, problems),
                  make_tls(p, s, old, problems), make_auth(p, s, old, problems), make_mailauth(p, s, problems),
                  list_files(p, s)};
    int err = ERR_OK; /* all problems are told at once */
    for (size_t i = 0; i < sizeof errs / sizeof *errs && !err; i++)
        err = errs[i];
    if (err) {
        parts_unref(p);
        return err == ERR_NOMEM ? err : ERR_INVALID;
    }
    add_warnings(p, s, problems);
    *out = p;
    return ERR_OK;
}

static bool is_stale(const struct parts *p) {
    return (p->in.tls && tls_server_is_stale(p->in.tls)) || (p->in.auth && auth_is_stale(p->in.auth)) ||
           (p->in.mailauth && mailauth_is_stale(p->in.mailauth));
}

/* The part of the old set, as one more owner. */
static void keep_tls(struct parts *p, const struct parts *old) {
    p->in.tls = old->in.tls ? tls_server_ref(old->in.tls) : NULL;
    p->tickets = old->tickets ? tls_tickets_ref(old->tickets) : NULL;
}

static void renew_tls(struct parts *p, const struct settings *s, struct parts *old, struct buf *problems) {
    if (!old->in.tls || !tls_server_is_stale(old->in.tls)) {
        keep_tls(p, old);
        return;
    }
    if (make_tls(p, s, old, problems) == ERR_OK)
        return;
    tls_tickets_unref(p->tickets);
    keep_tls(p, old);
}

static void renew_auth(struct parts *p, const struct settings *s, struct parts *old, struct buf *problems) {
    bool stale = old->in.auth && auth_is_stale(old->in.auth);
    if (old->in.auth && (!stale || make_auth(p, s, old, problems) != ERR_OK))
        p->in.auth = auth_ref(old->in.auth);
}

static void renew_mailauth(struct parts *p, const struct settings *s, struct parts *old, struct buf *problems) {
    bool stale = old->in.mailauth && mailauth_is_stale(old->in.mailauth);
    if (old->in.mailauth && (!stale || make_mailauth(p, s, problems) != ERR_OK))
        p->in.mailauth = mailauth_ref(old->in.mailauth);
}

int parts_reload(struct parts *old, const struct settings *s, struct parts **fresh, struct buf *problems) {
    struct recipients *r;
    *fresh = NULL;
    /* In place, since live contexts borrow the keys; bad ones are named, and the old ones stay. */
    int err = old->tickets ? tls_tickets_reload(old->tickets, problems) : ERR_OK;
    if (err == ERR_NOMEM)
        return err;
    err = recipients_reload(old->in.recipients, &r, problems);
    if (err || (!r && !is_stale(old)))
        return err;
    struct parts *p = alloc();
    if (!p) {
        recipients_unref(r);
        return ERR_NOMEM;
    }
    p->in.recipients = r ? r : recipients_ref(old->in.recipients);
    renew_tls(p, s, old, problems);
    renew_auth(p, s, old, problems);
    renew_mailauth(p, s, old, problems);
    err = list_files(p, s);
    if (err)
        parts_unref(p);
    else
        *fresh = p;
    return err;
}

struct inbound_parts parts_inbound(const struct parts *p) {
    return p->in;
}

struct recipients *parts_recipients(const struct parts *p) {
    return p->in.recipients;
}
