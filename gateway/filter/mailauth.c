/*
 * mailauth: see mailauth.h. What is shared by the process: the library handles, the keys, the list of suffixes, the
 * pool. Each thread of the pool has a resolver and an SPF evaluator of its own.
 *
 * A check is a job (mailauth_job.c) that copies the facts it needs, holds a reference to the message and to this, and
 * comes home as a letter.
 */
#include "gateway/filter/mailauth.h"

#include <stdlib.h>

#include "base/check.h"

#include "gateway/filter/mailauth_job.h"

#define THREADS 4
#define THREADS_MAX 256
#define WAITING_EACH 32 /* jobs in the queue for each thread */
#define TIMEOUT_MS 20000
#define SUFFIXES "/usr/share/publicsuffix/public_suffix_list.dat"

static void *open_thread(void *arg) {
    struct mailauth *m = arg;
    struct mailauth_thread *t = calloc(1, sizeof *t);
    if (t && resolver_new(&t->resolver, m->dns))
        t->resolver = NULL;
    if (t && t->resolver)
        t->spf = spf_new(t->resolver);
    return t;
}

static void close_thread(void *state, void *arg) {
    struct mailauth_thread *t = state;
    (void)arg;
    if (!t)
        return;
    spf_free(t->spf);
    resolver_free(t->resolver);
    free(t);
}

static int check_config(const struct mailauth_config *c, struct buf *problems) {
    int err = ERR_OK;
    struct resolver *r = NULL;
    if (c->dmarc != MAILAUTH_OFF && !(c->spf && c->dkim)) {
        buf_add_str(problems, "DMARC needs SPF and DKIM\n");
        err = ERR_INVALID;
    }
    if (c->threads > THREADS_MAX) {
        buf_printf(problems, "at most %d threads\n", THREADS_MAX);
        err = ERR_INVALID;
    }
    if (c->dns && resolver_new(&r, c->dns) == ERR_INVALID) {
        buf_printf(problems, "not a list of DNS servers: %s\n", c->dns);
        err = ERR_INVALID;
    }
    resolver_free(r);
    return err;
}

static int open_parts(struct mailauth *m, const struct mailauth_config *c, struct buf *problems) {
    const char *suffixes = c->suffixes ? c->suffixes : SUFFIXES;
    int err = dkimkeys_new(&m->keys, c->keys, c->key_count, problems);
    if (c->dmarc != MAILAUTH_OFF) {
        int lost = dmarc_new(&m->dmarc, suffixes);
        if (lost == ERR_NOT_FOUND)
            buf_printf(problems, "no list of public suffixes in %s\n", suffixes);
        err = err ? err : lost;
    }
    if (!err && c->dkim && !(m->dkim = dkimauth_new()))
        err = ERR_NOMEM;
    uint32_t threads = c->threads ? c->threads : THREADS;
    struct pool_config p = {threads, threads * WAITING_EACH, open_thread, close_thread, m, "mailauth"};
    return err ? err : pool_new(&m->pool, &p);
}

static void destroy(struct mailauth *m) {
    if (m->pool)
        pool_free(m->pool);
    dkimauth_free(m->dkim);
    dkimkeys_free(m->keys);
    dmarc_free(m->dmarc);
    free(m->authserv_id);
    free(m->dns);
    free(m);
}

int mailauth_new(struct mailauth **out, const struct mailauth_config *c, struct buf *problems) {
    int err = check_config(c, problems);
    struct mailauth *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    atomic_init(&m->owners, 1);
    atomic_init(&m->stopping, false);
    m->authserv_id = strdup(c->authserv_id);
    m->dns = c->dns ? strdup(c->dns) : NULL;
    m->use_spf = c->spf;
    m->use_dkim = c->dkim;
    m->spf_reject = c->spf && c->spf_reject;
    m->must_sign = c->must_sign;
    m->mode = c->dmarc;
    m->timeout_ms = c->timeout_ms ? c->timeout_ms : TIMEOUT_MS;
    if (!m->authserv_id || (c->dns && !m->dns))
        err = ERR_NOMEM;
    int parts = err == ERR_NOMEM ? ERR_OK : open_parts(m, c, problems);
    err = err ? err : parts;
    if (err) {
        destroy(m);
        return err == ERR_NOT_FOUND ? ERR_INVALID : err;
    }
    *out = m;
    return ERR_OK;
}

struct mailauth *mailauth_ref(struct mailauth *m) {
    atomic_fetch_add_explicit(&m->owners, 1, memory_order_relaxed);
    return m;
}

void mailauth_unref(struct mailauth *m) {
    if (m && atomic_fetch_sub_explicit(&m->owners, 1, memory_order_acq_rel) == 1)
        destroy(m);
}

void mailauth_stop(struct mailauth *m) {
    atomic_store(&m->stopping, true);
    if (m->pool)
        pool_free(m->pool);
    m->pool = NULL;
}

bool mailauth_is_stale(const struct mailauth *m) {
    return dkimkeys_is_stale(m->keys);
}

bool mailauth_verifies(const struct mailauth *m) {
    return m->use_spf || m->use_dkim;
}

bool mailauth_signs(const struct mailauth *m, struct span domain) {
    return dkimkeys_find(m->keys, domain) >= 0;
}

/* As held_insert has made it lawful: folds are CRLF. */
static int add_signature(struct held *h, struct span value, struct buf *to) {
    struct span name;
    int err = held_insert(h, 0, DKIM_FIELD, value);
    if (err)
        return err;
    held_field(h, 0, &name, &value);
    buf_add(to, name);
    buf_add_byte(to, ':');
    buf_add(to, value);
    buf_add_str(to, "\r\n");
    return to->err;
}

int mailauth_sign_own(struct mailauth *m, struct span domain, struct span message, const char *dir, struct buf *to) {
    ptrdiff_t key = dkimkeys_find(m->keys, domain);
    if (key < 0)
        return ERR_NOT_FOUND;
    struct held *h = held_new(dir);
    if (!h)
        return ERR_NOMEM;
    struct buf value;
    buf_init(&value, DKIMAUTH_SIGNATURE_MAX);
    int err = held_append(h, message);
    if (!err)
        err = held_finish(h);
    if (!err)
        err = dkimkeys_sign(m->keys, (size_t)key, h, &value);
    if (!err)
        err = add_signature(h, buf_span(&value), to);
    buf_deinit(&value);
    held_free(h);
    return err;
}
