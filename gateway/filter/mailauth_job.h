/*
 * mailauth_job: the inside of mailauth (mailauth.c, mailauth_job.c); nobody else includes it.
 */
#ifndef GATEWAY_FILTER_MAILAUTH_JOB_H
#define GATEWAY_FILTER_MAILAUTH_JOB_H

#include <stdatomic.h>

#include "base/pool.h"
#include "gateway/filter/dkimauth.h"
#include "gateway/filter/dmarc.h"
#include "gateway/filter/mailauth.h"
#include "gateway/filter/spf.h"

#define DKIM_FIELD SPAN("DKIM-Signature")

struct mailauth {
    atomic_uint owners;
    atomic_bool stopping;
    char *authserv_id, *dns;
    bool use_spf, use_dkim, spf_reject, must_sign;
    enum mailauth_mode mode;
    uint64_t timeout_ms;
    struct dkimauth *dkim; /* NULL: not verified */
    struct dkimkeys *keys;
    struct dmarc *dmarc; /* NULL: not judged */
    struct pool *pool;   /* NULL: stopped */
};
/* What each thread of the pool has; a member is NULL when there was no memory. */
struct mailauth_thread {
    struct resolver *resolver;
    struct spf *spf;
};

#endif
