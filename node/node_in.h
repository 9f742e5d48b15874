/*
 * node_in: the node as its own files see it. node.c starts and ends it; adopt.c takes new settings; drain.c holds the
 * end, and the pause that operators ask for; operate.c answers what operators ask of the node itself. All on the main
 * loop.
 */
#ifndef NODE_NODE_IN_H
#define NODE_NODE_IN_H

#include <stdatomic.h>

#include "admin/admin.h"
#include "admin/web.h"
#include "node/hook.h"
#include "node/node.h"
#include "node/reload.h"
#include "node/signer.h"

enum phase { PHASE_RUNNING, PHASE_DRAIN_GATEWAY, PHASE_DRAIN_DELIVERY, PHASE_STOPPED };

/* Operators that wait for the end of a reload. */
#define NODE_WAITERS_MAX 16
struct node_waiter {
    uint64_t ticket; /* of the admin service; 0: free */
    uint64_t reading;
};

struct node {
    struct settings *settings;
    struct settings *started; /* those of the start, for what a reload cannot change */
    struct bus *bus;
    struct loop *loop;
    struct loop_timer *ready; /* until readiness is announced */
    struct loop_wake *wake;   /* a part has drained */
    struct loop_signal *signals[3];
    struct admin *admin;
    struct web *web; /* NULL: no HTTP face */
    int web_fd;      /* bound, until the face takes it; -1: none */
    struct store *store;
    struct scheduler *scheduler;
    bool scheduler_draining;
    struct outbound *outbound;
    struct inbound *inbound;
    struct parts *parts;
    struct signer *signer; /* of reports */
    struct hooks *hooks;   /* NULL: none so far */
    struct reload *reload;
    int (*fds)[16]; /* of each gateway loop and listener; -1: none, or handed over */
    enum phase phase;
    atomic_uint drained; /* parts that have drained in this phase */
    int status;
    bool paused;         /* drained by an operator: nothing new is taken */
    bool restart_needed; /* the file says what only a restart can change */
    enum log_level log_level;
    uint64_t started_ms;
    struct node_waiter waiters[NODE_WAITERS_MAX];
};

/* -- adopt.c -- */
void adopt_reloaded(void *node, struct settings *s, struct parts *p);

/* Begins, changes or stops the hooks, as the settings in force say. */
int adopt_hooks(struct node *n) MUST_CHECK;

/* -- drain.c -- */
void drain_on_signal(struct node *n, int signum);
void drain_on_wake(void *node);
/* Takes nothing new until it is resumed; the process stays. False: it is ending, or so already. */
bool drain_pause(struct node *n, bool paused);

/* -- operate.c -- */
void operate_ask(void *node, uint64_t ticket, const Words__AdminRequest *q);
/* A reading of all settings has ended. */
void operate_told(void *node, uint64_t reading, int err, const struct buf *problems);

#endif
