/*
 * backend: what stands behind a directory: ldap.c and postgres.c (threads with one connection each), http.c and
 * callout.c (a thread with a loop). The engine (directory.c) asks, and guarantees that a question lives until it is
 * answered; a backend answers each question exactly once, from any thread, within its deadline.
 */
#ifndef GATEWAY_DIRECTORY_BACKEND_H
#define GATEWAY_DIRECTORY_BACKEND_H

#include "base/list.h"
#include "gateway/directory/directory.h"

struct backend_question {
    struct list_node node;   /* for the backend's own queue */
    struct span key, domain; /* as in directory_find */
    struct span address;     /* key@domain */
    uint64_t deadline_ms;    /* clock_mono_ms */
    void *backend_data;      /* for the backend */
};
struct backend_reply {
    int err;                      /* ERR_OK: found or unknown; else the backend failed, `why` tells */
    enum directory_status status; /* FOUND, UNKNOWN; TEMPFAIL: the backend works and cannot tell */
    enum table_kind kind;
    struct span targets; /* copied by backend_answer */
    struct span why;     /* copied, cleaned */
};
/* directory.c. Any thread. q is gone afterwards. */
void backend_answer(struct backend_question *q, const struct backend_reply *r);

struct backend; /* each backend defines its own, this first: */
struct backend_ops {
    void (*ask)(struct backend *b, struct backend_question *q); /* any thread; never blocks for long */
    void (*close)(struct backend *b);                           /* no question is open; joins threads, frees */
};
struct backend {
    const struct backend_ops *ops;
};
typedef int (*backend_maker)(struct backend **b, const struct directory_config *c, struct buf *problems);
/* directory_new with a given maker instead of that of the kind. */
int directory_new_with(struct directory **d, const struct directory_config *c, backend_maker make,
                       struct buf *problems) MUST_CHECK;

/* Makers. c (with its defaults filled in) and its texts outlive the backend. problems as in directory_new. */
int backend_ldap_new(struct backend **b, const struct directory_config *c, struct buf *problems) MUST_CHECK;
int backend_postgres_new(struct backend **b, const struct directory_config *c, struct buf *problems) MUST_CHECK;
int backend_http_new(struct backend **b, const struct directory_config *c, struct buf *problems) MUST_CHECK;
int backend_callout_new(struct backend **b, const struct directory_config *c, struct buf *problems) MUST_CHECK;

#endif
