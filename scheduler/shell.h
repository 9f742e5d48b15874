/*
 * shell: what the files of the scheduler's shell share: the thread, its hub, its shards, and the work
 * that reads the store aside. Private to scheduler/.
 *
 *   hub.c       frames from and to gateways and delivery nodes
 *   job.c       an assigned attempt becomes a Job frame; Fetch
 *   loader.c    start-up scan and due recipients come back into the core
 *   compose.c   a report is read together, composed, and enqueued
 *   question.c  the admin RPC's questions to the queue (with question_*.c)
 *   census.c    counts the whole queue now and then, for questions and gauges
 *   operator.c  the operator's changes of the queue
 *   suspend.c   suspensions of domains and sites
 *   scheduler.c the thread: start, turn, tick, drain, stop
 */
#ifndef SCHEDULER_SHELL_H
#define SCHEDULER_SHELL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/net/loop.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/id.h"
#include "scheduler/scheduler.h"
#include "scheduler/shard.h"
#include "scheduler/verp.h"

#define HUB_PEERS_MAX 4096u
#define HUB_QUEUE_MAX (256u * 1024u * 1024u)

struct hub_peer {
    struct map_node by_name;
    char name[BUS_PEER_MAX];
    size_t name_len;
    uint32_t role;         /* enum frame_role; 0: has not said hello */
    uint32_t worker;       /* of a delivery node: its number, > 0; 0: gone */
    struct list_node link; /* of all peers */
};

struct loader;
struct walks;
struct census;
struct audit_log;

struct scheduler {
    struct scheduler_config config;
    char *endpoint, *admin_endpoint;
    /* settings: the thread's own copy, and one that waits to be taken over (under lock) */
    struct scheduler_settings settings;
    char *hostname, *postmaster;
    struct scheduler_settings next;
    char *next_hostname, *next_postmaster;
    struct dsn_texts *texts, *next_texts;
    struct verp *verp, *next_verp;
    struct batv *batv, *next_batv;
    atomic_bool has_next, wants_drain, wants_stop;
    uint64_t drain_timeout_ms, drain_deadline_ms;
    void (*drain_done)(void *arg);
    void *drain_arg;
    bool draining, drained, stopping;
    bool closed; /* the store is damaged: no new mail, and gateways have been told */

    struct store *store;
    struct commit *commit;
    pthread_t thread;
    struct loop *loop;
    struct loop_hook *hook;
    struct loop_wake *wake;
    struct loop_timer *tick;
    struct bus_hub *hub;
    struct bus_peer *admin;
    struct shard **shards;
    struct loader **loaders; /* one for each shard */

    struct map peers;
    struct list peer_list;
    struct hub_peer **workers; /* by worker number; slot 0 unused */
    uint32_t worker_count, worker_cap;

    pthread_mutex_t lock; /* of done and done_last, and of the next settings */
    struct shard_batch *done, *done_last;

    struct list changes;          /* of the queue, under way (operator.c) */
    struct list suspended;        /* by operators (suspend.c) */
    struct map suspended_by_name; /* the same */
    uint64_t suspended_serial;

    uint32_t work;          /* tasks on helper threads */
    uint32_t readings;      /* messages whose text is being read for operators */
    struct walks *walks;    /* long readings on threads of their own */
    struct census *census;
    struct audit_log *audit;
    struct arena scratch;   /* of one frame */
    struct buf pack, pack2; /* for packing frames and envelopes */
    uint64_t now_ms;        /* wall time of this turn, never going back */
    uint64_t mono_ms;       /* monotonic time then */
    uint64_t started_ms;
    uint64_t tick_at_ms;
};

/* -- scheduler.c -- */
uint64_t scheduler_now(struct scheduler *sc);
/* Time never begins before what an earlier process has read of the due index: it is not read there again, so what is
 * put off until then would never be found. */
int scheduler_begin_time(struct scheduler *sc) MUST_CHECK;
struct shard *scheduler_shard_of(struct scheduler *sc, uint64_t message); /* NULL: no such shard here */
/* Work on a helper thread that is counted, so that stop waits for it. False: no memory. */
bool scheduler_work(struct scheduler *sc, void (*work)(void *arg), void (*done)(void *arg), void *arg);

/* -- hub.c -- */
int hub_open(struct scheduler *sc) MUST_CHECK;
void hub_close(struct scheduler *sc);
void hub_on_message(void *arg, struct span peer, const struct bus_message *m);
void hub_answer(void *arg, const struct payload *l, uint32_t verdict, uint64_t id);
void hub_stop_jobs(struct scheduler *sc);     /* draining: no delivery node is given anything more */
void hub_close_to_mail(struct scheduler *sc); /* tells gateways that nothing is taken any more */
void hub_credit(void *arg, struct hub_peer *peer, uint64_t bytes);
void hub_ack(void *arg, uint32_t worker, uint64_t attempt);
struct hub_peer *hub_worker(const struct scheduler *sc, uint32_t worker); /* NULL: gone */
/* Sends to a peer; a delivery node that is gone is reported to the cores. */
int hub_send(struct scheduler *sc, struct hub_peer *peer, uint16_t kind, uint64_t correlation,
             const ProtobufCMessage *m, struct bus_bytes *body);

/* -- job.c -- */
void job_assign(void *arg, struct shard *s, const struct shard_assign *a);
bool job_is_expanded(const Words__Envelope *e, uint32_t index);
void job_fetch(struct scheduler *sc, struct hub_peer *peer, uint64_t correlation, const Words__Fetch *f);

/* -- loader.c -- */
struct loader *loader_new(struct scheduler *sc, struct shard *s) MUST_CHECK;
void loader_free(struct loader *l);
/* Once a turn or tick: goes on with the scan and with what is due, as far as there is room. */
void loader_poll(struct loader *l, uint64_t now_ms);
bool loader_is_busy(const struct loader *l);
bool loader_has_scanned(const struct loader *l); /* the start-up scan is over */
/* Into the core (shard_load) goes what somebody else has read, once loader_knows_flights. */
bool loader_knows_flights(const struct loader *l);
int loader_take(struct loader *l, const struct shard_reading *reading, uint64_t id, const Words__Envelope *e,
                Words__RecipientState *const *states, const struct sched_operator *change) MUST_CHECK;

/* -- compose.c -- */
void compose_start(void *arg, struct shard_compose *c);

/* -- question.c -- */
void question_on_message(void *arg, const struct bus_message *m);
/* A reply to the admin service; one too long for a frame becomes an error. */
void question_reply(struct scheduler *sc, uint64_t correlation, Words__AdminReply *r, bool last);
/* The last reply: -err, and text, or err's own when NULL. */
void question_error(struct scheduler *sc, uint64_t correlation, int err, const char *text);

/* -- question_audit.c -- */
int audit_log_open(struct audit_log **out, struct scheduler *sc) MUST_CHECK;
/* The commit thread has ended. */
void audit_log_close(struct audit_log *log);
/* Once a tick: removes what is too old. */
void audit_log_poll(struct audit_log *log);
bool audit_log_is_idle(const struct audit_log *log); /* nothing is being written */

/* -- operator.c -- */
/* Takes a request for a change of the queue; m lives for the call. False: it is something else. */
bool operator_on_request(struct scheduler *sc, uint64_t correlation, const Words__AdminRequest *m);
/* Makes due what matches, for nobody's request. */
void operator_retry(struct scheduler *sc, struct span filter);
/* "by ACTOR: REASON" in one line, cut to what a record keeps. Returns its length. */
size_t operator_note(struct span actor, struct span reason, char *to, size_t size);
void operator_close(struct scheduler *sc); /* once no helper thread works any more */

#endif
