/*
 * scheduler: the role that owns shards: the durable queue, its order, and the fate of each recipient.
 *
 * Owned by node/, which calls it from the main thread. One thread with one event loop runs the
 * cores of all shards of this node and binds the hub that gateways and delivery nodes connect to; a commit
 * thread writes (store/commit.h); a reader thread reads. A bus peer to the admin hub answers operators.
 */
#ifndef SCHEDULER_SCHEDULER_H
#define SCHEDULER_SCHEDULER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/net/batv.h"
#include "base/net/bus.h"
#include "scheduler/core/sched.h"
#include "scheduler/dsn_template.h"
#include "store/store.h"

struct scheduler_settings { /* may change on reload */
    const char *hostname;   /* of reports */
    const char *postmaster;
    struct sched_retry retry;
    uint32_t per_site;
    uint32_t recipients_per_transaction; /* that a job should fill; 0: the default */
    uint32_t active_max;                 /* recipients in memory, per shard */
    uint64_t trace_keep_ms;              /* default 7 days */
    struct dsn_texts_config reports;
    const char *const *verp; /* senders and domains that want return paths of their own (verp.h) */
    size_t verp_count;
    struct batv_config batv; /* senders whose return path gets a tag where it leaves us */
};
/* Appends whole header fields (a DKIM signature) that go before a report from this address, or nothing. Called on
 * helper threads. ERR_NOMEM and other errors: the report goes without. */
typedef int (*scheduler_sign)(void *arg, const char *from, struct span message, struct buf *to);
struct scheduler_config {
    struct bus *bus;
    const char *endpoint;    /* hub to bind, "inproc://scheduler" */
    const char *admin;       /* endpoint of the admin hub, or NULL */
    uint32_t shards;         /* 1..1024 */
    uint64_t gateway_credit; /* bytes on the way per gateway loop, default 16 MiB */
    uint64_t body_cache;     /* bytes of bodies kept for the first attempt, default 64 MiB */
    scheduler_sign sign;     /* NULL: reports go unsigned */
    void *sign_arg;
};
struct scheduler;
/* Takes the open store s (and does not close it). ERR_CORRUPT, ERR_IO, ERR_NOMEM... */
int scheduler_start(struct scheduler **out, const struct scheduler_config *c, const struct scheduler_settings *settings,
                    struct store *s) MUST_CHECK;
int scheduler_reconfigure(struct scheduler *sc,
                          const struct scheduler_settings *settings) MUST_CHECK; /* thread-safe; copies */
/* Stops taking submissions and assigning; done (on the scheduler's thread) when all is durable and every
 * assigned attempt has been reported, or after timeout_ms. */
void scheduler_drain(struct scheduler *sc, uint64_t timeout_ms, void (*done)(void *arg), void *arg);
/* Writes what is queued, joins the threads, frees. */
void scheduler_stop(struct scheduler *sc);

#endif
