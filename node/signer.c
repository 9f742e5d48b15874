/*
 * signer: see signer.h. The lock is held while a message is signed, a millisecond or so; a reload waits for it.
 */
#include "node/signer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"

METRIC_COUNTER_L(signed_, "posthouse_own_mail_signed_total", "result=\"signed\"",
                 "Reports that had a key to be signed with")
METRIC_COUNTER_L(failed, "posthouse_own_mail_signed_total", "result=\"failed\"",
                 "Reports that had a key to be signed with")

struct signer {
    pthread_mutex_t lock;
    struct mailauth *keys;
    char *dir;
};

struct signer *signer_new(const char *dir) {
    struct signer *s = calloc(1, sizeof *s);
    if (!s || !(s->dir = strdup(dir))) {
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void signer_free(struct signer *s) {
    if (!s)
        return;
    if (s->keys)
        mailauth_unref(s->keys);
    pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

void signer_use(struct signer *s, struct mailauth *keys) {
    pthread_mutex_lock(&s->lock);
    struct mailauth *old = s->keys;
    s->keys = keys ? mailauth_ref(keys) : NULL;
    pthread_mutex_unlock(&s->lock);
    if (old)
        mailauth_unref(old);
}

int signer_sign(void *arg, const char *from, struct span message, struct buf *to) {
    struct signer *s = arg;
    struct span address = span_of(from);
    ptrdiff_t at = span_rfind(address, '@');
    size_t before = buf_len(to);
    int err = ERR_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    if (s->keys && at >= 0)
        err = mailauth_sign_own(s->keys, span_from(address, (size_t)at + 1), message, s->dir, to);
    pthread_mutex_unlock(&s->lock);
    if (err == ERR_OK)
        metric_add(&signed_, 1);
    if (err == ERR_OK || err == ERR_NOT_FOUND)
        return ERR_OK;
    buf_truncate(to, before);
    metric_add(&failed, 1);
    LOG_WARN("own_mail_not_signed", LOG_STR("from", from), LOG_ERR("why", err));
    return ERR_OK;
}
