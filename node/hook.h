/*
 * hook: events of the log for other people's programs: batches of JSON lines to HTTP endpoints and unix sockets, in
 * order, at least once (docs/events.md). Each hook has a spool in data_dir/hooks/NAME, so that an endpoint that is away
 * costs no mail and no memory: what it has missed comes when it is back, as far as the spool reaches.
 *
 * One thread for all hooks; nothing here waits for it but the end of the process. A reload changes hooks while they
 * run: a hook that keeps its name keeps its spool.
 */
#ifndef NODE_HOOK_H
#define NODE_HOOK_H

#include "base/arena.h"
#include "base/metrics.h"
#include "node/hook_sink.h"

#define HOOKS_MAX 16
struct hook_config {
    const char *name; /* [a-z0-9_-]+, also its folder */
    struct hook_target target;
    const char *const *events; /* "*": all from level info on */
    size_t event_count;
    uint32_t batch;    /* lines */
    uint64_t wait_ms;  /* a batch that is not full goes after so long */
    uint64_t spool;    /* octets */
    uint64_t retry_ms; /* longest pause after failures */
};

struct hooks;
/* dir: of all spools, made if need be. node: in every line. Begins to listen to the log. ERR_NOMEM; ERR_IO: dir (errno
 * tells). Spools that cannot be opened are told of in the log, and tried again. */
int hooks_open(struct hooks **h, const char *dir, const char *node, const struct hook_config *c,
               size_t count) MUST_CHECK;
/* The hooks from now on; copied. ERR_NOMEM: as before. */
int hooks_reconfigure(struct hooks *h, const struct hook_config *c, size_t count) MUST_CHECK;
/* Puts what was logged into the spools, gives endpoints that answer at most HOOKS_FLUSH_MS to take what waits, and
 * ends. */
void hooks_close(struct hooks *h);
#define HOOKS_FLUSH_MS 3000u

/* -- hook_config.c -- */
struct hook_set { /* what was handed over */
    struct arena mem;
    struct hook_config *hooks;
    size_t count;
};
/* A deep copy. NULL: no memory. */
struct hook_set *hook_set_copy(const struct hook_config *c, size_t count) MUST_CHECK;
void hook_set_free(struct hook_set *s);
bool hook_config_is_same(const struct hook_config *a, const struct hook_config *b);

/* Counted by the hook's name; they stay for good, so names that no longer exist are still shown. Of more than
 * HOOK_METRICS_MAX names the rest is counted together, as "others". */
#define HOOK_METRICS_MAX 64
struct hook_metrics {
    struct metric dropped, delivered, failures, waiting;
    char label[64];
};
struct hook_metrics *hook_metrics_of(const char *name);

#endif
