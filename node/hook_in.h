/*
 * hook_in: the hooks as their own files see them: hook.c is one hook, hook_thread.c is all of them and their thread.
 */
#ifndef NODE_HOOK_IN_H
#define NODE_HOOK_IN_H

#include <pthread.h>

#include "node/hook.h"
#include "node/hook_spool.h"

enum hook_state {
    HOOK_QUIET,     /* -> GATHERING, SENDING, PAUSING */
    HOOK_GATHERING, /* -> SENDING, PAUSING */
    HOOK_SENDING,   /* -> QUIET, PAUSING */
    HOOK_PAUSING,   /* -> SENDING, QUIET */
};
struct hook {
    struct hooks *all;
    struct hook_set *own; /* holds .config */
    const struct hook_config *config;
    struct hook_metrics *metrics;
    struct hook_spool *spool; /* NULL: cannot be opened now */
    struct hook_sink *sink;
    struct loop_timer *timer;
    enum hook_state state;
    uint64_t pause_ms; /* 0: the last batch was taken */
    struct buf body;
    uint64_t last, lines;        /* of the batch under way */
    uint64_t unsaid, said_at_ms; /* dropped, and not yet told in the log */
    const char *lost_why;        /* the last time */
};
struct hooks {
    char *node, *dir;
    struct loop *loop;
    struct loop_wake *wake;
    struct loop_timer *flush;
    pthread_t thread;
    struct buf lines;
    struct hook *hooks[HOOKS_MAX];
    size_t count;
    bool closing;
    pthread_mutex_t lock;
    struct hook_set *fresh; /* behind the lock: to be taken over */
    bool close;             /* so is this */
};

/* -- hook.c -- */
/* NULL: no memory. */
struct hook *hook_new(struct hooks *all, const struct hook_config *c) MUST_CHECK;
void hook_free(struct hook *h);
/* Other settings for a hook that stays: a batch under way comes again, by the new ones. False: no memory, as before. */
bool hook_change(struct hook *h, const struct hook_config *c) MUST_CHECK;
/* Numbers the line and puts it into the spool. */
void hook_keep(struct hook *h, struct span line);
/* Does what is to be done now. */
void hook_step(struct hook *h);
/* Nothing is under way, and nothing can go. */
bool hook_is_at_rest(const struct hook *h);

/* -- hook_thread.c -- */
/* A hook has come to rest, while all end. */
void hooks_on_rest(struct hooks *all);

#endif
