/*
 * sched: the scheduler core of one shard: a deterministic state machine.
 *
 *     sched_step(core, event, now) -> actions
 *
 * It holds the messages that have work now (the hot set), orders them, assigns attempts to
 * delivery nodes, settles what they report, and asks for reports to be composed. It reads no
 * clock, draws no randomness but its seeded own, never blocks, knows no store, no bus and no
 * generated type. The shell around it (scheduler/shard.c) turns frames into events and actions
 * into writes and frames. The same events at the same times give the same actions.
 *
 * Batches. Every write belongs to a numbered batch. The core fills the current batch; the shell
 * cuts it with sched_cut when its commit thread is free. An action that others can see names the
 * batch it waits for; the shell holds it until SCHED_DURABLE of that batch.
 *
 * States of a recipient, and the only transitions (docs/state-table.md):
 *
 *     (none)   -> READY | DEFERRED          submitted (DEFERRED, due now: hot set is full; due later: held)
 *     (none)   -> FAILED                    submitted, or loaded, after its DELIVERBY time
 *     READY    -> ASSIGNED                  assigned to a node
 *     READY    -> DEFERRED                  site suspended, hot set full, operator; or on its way to FAILED
 *     ASSIGNED -> DELIVERED | DEFERRED | FAILED | READY     report, or the node went away
 *     DEFERRED -> READY                     due, or operator's retry
 *     READY, DEFERRED, ASSIGNED -> HELD     operator's hold (ASSIGNED: when the attempt has ended without an end)
 *     HELD     -> READY | DEFERRED | FAILED operator's release (FAILED: its DELIVERBY time has come), or bounce
 *     READY, DEFERRED, HELD -> FAILED       operator's bounce
 *     READY, DEFERRED, HELD -> SETTLED      operator's deletion
 *     DEFERRED -> FAILED                    given up, or its DELIVERBY time has come
 *     DELIVERED -> SETTLED                  at once, or when a success report is enqueued
 *     FAILED   -> SETTLED                   in the batch that enqueues its report (or with the reason for none)
 *
 * When all recipients of a message are SETTLED the message is dropped in the same batch.
 * When none of its recipients is READY, ASSIGNED, FAILED or DELIVERED, the message leaves memory;
 * the shell loads it again when something is due (SCHED_LOADED). A HELD recipient is never due.
 */
#ifndef SCHEDULER_CORE_SCHED_H
#define SCHEDULER_CORE_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum sched_state {
    SCHED_READY = 1,
    SCHED_ASSIGNED = 2,
    SCHED_DEFERRED = 3,
    SCHED_DELIVERED = 4, /* awaits its success report */
    SCHED_FAILED = 5,    /* awaits its failure report */
    SCHED_SETTLED = 6,
    SCHED_HELD = 7, /* by an operator, until it is released; it does not expire meanwhile */
};

/* Mirrors proto/outcome.h (a test keeps the two equal). */
enum sched_outcome {
    SCHED_OUT_DELIVERED = 1,
    SCHED_OUT_DEFERRED = 2,
    SCHED_OUT_FAILED = 3,
    SCHED_OUT_IN_DOUBT = 4,
    SCHED_OUT_RETURNED = 5,
};
enum sched_scope {
    SCHED_SCOPE_RECIPIENT = 1,
    SCHED_SCOPE_MESSAGE = 2,
    SCHED_SCOPE_HOST = 3,
    SCHED_SCOPE_DESTINATION = 4
};
enum sched_notify {
    SCHED_NOTIFY_NEVER = 1,
    SCHED_NOTIFY_SUCCESS = 2,
    SCHED_NOTIFY_FAILURE = 4,
    SCHED_NOTIFY_DELAY = 8
};

enum sched_hop { /* proto/outcome.h */
                 SCHED_HOP_PLAIN = 0,
                 SCHED_HOP_REPORTS = 1,
                 SCHED_HOP_FINAL = 2,
                 SCHED_HOP_RELAYED = 3
};
struct sched_result {
    uint32_t outcome;                   /* enum sched_outcome */
    uint32_t scope;                     /* enum sched_scope */
    uint32_t code;                      /* three digits, or 0 */
    uint32_t hop;                       /* enum sched_hop, of a delivery */
    struct span enhanced, text, remote; /* at most 16, 512, 300 octets; cut when longer */
};

struct sched_retry {                                        /* smtp-rules.md line 41; milliseconds */
    uint64_t first_ms, max_ms, give_up_ms, delay_notice_ms; /* delay_notice 0: none */
};

struct sched_config {
    uint32_t shard; /* < 1024 */
    uint64_t epoch; /* of this leader; names attempts */
    uint64_t seed;
    uint32_t active_max; /* recipients in the hot set */
    struct sched_retry retry;
    uint32_t per_site;                         /* most connections to one site */
    uint32_t recipients_per_job;               /* default 100 */
    uint32_t jobs_per_connection;              /* jobs on the way for each allowed connection, default 2 */
    uint64_t report_delay_ms;                  /* longest wait to gather failures into one report, default 60 s */
    uint64_t suspend_first_ms, suspend_max_ms; /* pauses of a failed site, default 60 s, 30 min */
};

/* -- events -- */
enum sched_event_kind {
    SCHED_SUBMITTED,   /* .submit: a gateway hands over a message */
    SCHED_LOADED,      /* .load: a message read from the store: at start, due, or on the operator's request. It must not
                        * have left memory since the reading began, nor shortly before in a batch not yet durable */
    SCHED_DURABLE,     /* .batch (and all before it) is synced */
    SCHED_REJECTED,    /* .batch, the next to end: the writes of the steps of its submissions were not done and never
                        * will be; all its other writes were. Answers and assignments of these messages are void, in
                        * this batch and in later ones (sched_is_assigned) */
    SCHED_WORKER_UP,   /* .worker: a delivery node is there (or changed its capacity) */
    SCHED_WORKER_DOWN, /* .worker.worker went away: its attempts are in doubt */
    SCHED_REPORTED,    /* .report: results of one attempt */
    SCHED_COMPOSED,    /* .composed: the report asked for by SCHED_COMPOSE is ready to be enqueued */
    SCHED_RECONFIGURED, /* .config: retry, per_site and active_max may change */
    SCHED_OPERATOR,     /* .operator_: a change of recipients of a message in memory */
    SCHED_SUSPEND,      /* .suspension: nothing is assigned to it any more; or it changes its time */
    SCHED_RESUME,       /* .suspension (scope and name): is over. ERR_NOT_FOUND: there is none */
    SCHED_TICK,         /* time passed; at least one a second */
};

struct sched_wish {      /* of the sender, as to time; wall time, 0: none */
    uint64_t release_ms; /* FUTURERELEASE: not tried before; the retry settings count from then */
    uint64_t by_ms;      /* DELIVERBY: what is not delivered then has failed (mode R), */
    bool by_notify;      /* or is reported as delayed and goes on (mode N) */
};
struct sched_new_recipient {
    struct span destination; /* lower case */
    uint32_t notify;         /* enum sched_notify bits; 0: not given */
};
struct sched_submit {
    uint64_t token;     /* names the payload that the shell holds */
    uint64_t id;        /* reserved with sched_reserve_id (chunks are staged under it), or 0: make one */
    struct span sender; /* reverse-path; empty: null path */
    struct span fair;   /* whose share it uses: account, else sender's domain, else client network */
    uint32_t priority;  /* 0..2 */
    uint64_t size;
    uint64_t received_ms;
    struct sched_wish wish;
    bool report; /* a report of ours */
    const struct sched_new_recipient *recipients;
    uint32_t count;
};
struct sched_stored_recipient {
    struct span destination;
    uint32_t notify;
    uint32_t state; /* enum sched_state; fresh ones are SCHED_READY */
    uint32_t attempts;
    uint64_t due_ms;
    bool delay_notified;
    bool has_result;
    struct sched_result last;
    bool routed;      /* destination is an operator's, not the envelope's */
    uint32_t wish;    /* of an operator, remembered for the end of the attempt: enum sched_operator_verb, or 0 */
    struct span note; /* HELD, or a wish: who, and why */
};
struct sched_load {
    uint64_t id;
    struct span sender, fair;
    uint32_t priority;
    uint64_t size, received_ms;
    struct sched_wish wish;
    bool report;
    uint64_t inflight;                   /* attempt recorded as under way when the old process died, or 0 */
    const uint32_t *inflight_recipients; /* of all such attempts; they are in doubt: counted, and put off by a full
                                          * retry interval. Records of attempts but this one are the shell's to drop */
    uint32_t inflight_count;
    const struct sched_stored_recipient *recipients; /* all of the message, in order */
    uint32_t count;
    const struct sched_operator *change; /* done in this step, before anything is assigned; or NULL */
};
struct sched_worker {
    uint32_t worker; /* small number, chosen by the shell, not reused while the core knows it */
    struct span name;
    uint32_t jobs_max;
    uint64_t bytes_max;
};
struct sched_report {
    uint32_t worker;
    uint64_t attempt, message;
    struct span site; /* empty: not resolved */
    uint64_t site_ttl_ms;
    bool site_failed;  /* the whole site could not be reached: suspend it */
    uint64_t pause_ms; /* the site is to rest for exactly so long (a day at most); 0: no */
    uint64_t wait_ms;  /* recipients that are handed back come again after so long (a day at most); 0: at once */
    const uint32_t *indexes;
    const struct sched_result *results;
    uint32_t count;
};
struct sched_composed {
    uint64_t message; /* that it reports on */
    uint64_t compose; /* number of the SCHED_COMPOSE action */
    bool none;        /* could not or need not be composed; reason is traced */
    struct span reason;
    struct sched_submit submit; /* the report, unless none */
};
#define SCHED_NOTE_MAX 300u
#define SCHED_SUSPENSIONS_MAX 10000u
enum sched_operator_verb { /* HOLD, BOUNCE and DELETE are in the store */
                           SCHED_OP_RETRY = 1,
                           SCHED_OP_HOLD = 2,
                           SCHED_OP_RELEASE = 3,
                           SCHED_OP_BOUNCE = 4,
                           SCHED_OP_DELETE = 5,
                           SCHED_OP_REROUTE = 6
};
/* What is ASSIGNED keeps its attempt: hold, bounce and delete are remembered (in the store too) and done when it comes
 * back undelivered; a later wish takes the place of a hold, but not of a bounce or a deletion; release takes a hold
 * back. A reroute is done when the attempt has ended. sched_changed tells how many recipients took it. */
struct sched_operator {
    enum sched_operator_verb verb;
    uint64_t message;
    const uint32_t *indexes; /* ascending; NULL: all recipients */
    uint32_t count;
    struct span note;         /* "by NAME: WHY", no colon and blank in the name; cut to SCHED_NOTE_MAX */
    struct span destination;  /* REROUTE: the new one; empty: back to that of the envelope, */
    const struct span *homes; /* which are these, of all recipients of the message */
};
enum sched_suspension_scope { SCHED_SUSPEND_DOMAIN = 1, SCHED_SUSPEND_SITE = 2 };
struct sched_suspension {
    enum sched_suspension_scope scope;
    struct span name; /* lower case. Of a domain: the destination, or with a leading dot all below; of a site: its name,
                       * or what stands in it before a "+" */
    uint64_t until_ms; /* 0: until it is resumed. The shell resumes it then; the core plans with it */
};

struct sched_event {
    enum sched_event_kind kind;
    union {
        struct sched_submit submit;
        struct sched_load load;
        uint64_t batch;
        struct sched_worker worker;
        struct sched_report report;
        struct sched_composed composed;
        struct sched_config config;
        struct sched_operator operator_;
        struct sched_suspension suspension;
    };
};

/* -- actions -- */
enum sched_action_kind {
    /* writes, part of batch .batch, in order */
    SCHED_PUT_MESSAGE,   /* .put: envelope, body and submission of token, under this id */
    SCHED_DROP_MESSAGE,  /* .drop: octets of the body, recipients; .states: some had a state record */
    SCHED_PUT_RECIPIENT, /* .recipient: state record; when DEFERRED also a due key */
    SCHED_PUT_INFLIGHT,  /* .attempt */
    SCHED_DROP_INFLIGHT, /* .attempt (only .attempt.attempt and .attempt.id are set) */
    SCHED_TRACE,         /* .trace */
    /* visible: held until .batch is durable */
    SCHED_ANSWER,     /* .answer: stored under id */
    SCHED_ASSIGN,     /* .attempt: send the job */
    SCHED_REPORT_ACK, /* .attempt (attempt and worker only) */
    /* for the shell, at once (batch does not matter) */
    SCHED_COMPOSE, /* .compose: compose a report; answer with SCHED_COMPOSED */
    SCHED_FORGET,  /* .id: the message left memory (the shell may drop what it cached) */
};

enum sched_report_kind { SCHED_REPORT_FAILED, SCHED_REPORT_DELAYED, SCHED_REPORT_DELIVERED };

enum sched_trace_kind {
    SCHED_TRACE_ACCEPTED = 1,
    SCHED_TRACE_ASSIGNED = 2,
    SCHED_TRACE_DELIVERED = 3,
    SCHED_TRACE_DEFERRED = 4,
    SCHED_TRACE_FAILED = 5,
    SCHED_TRACE_IN_DOUBT = 6,
    SCHED_TRACE_REPORTED = 7,  /* text: id of the report */
    SCHED_TRACE_NO_REPORT = 8, /* text: why */
    SCHED_TRACE_SUSPENDED = 9, /* put off since its site is suspended */
    SCHED_TRACE_EXPIRED = 10,
    SCHED_TRACE_RETRIED = 11,  /* operator */
    SCHED_TRACE_DONE = 12,     /* all recipients settled, message dropped */
    SCHED_TRACE_RETURNED = 13, /* node handed it back unattempted */
    /* operator; text: who, and why */
    SCHED_TRACE_HELD = 14,
    SCHED_TRACE_RELEASED = 15,
    SCHED_TRACE_DELETED = 16,
    SCHED_TRACE_BOUNCED = 17,
    SCHED_TRACE_REROUTED = 18, /* text: and where to */
};

struct sched_action {
    enum sched_action_kind kind;
    uint64_t batch;
    union {
        struct {
            uint64_t id, token;
        } put;
        struct {
            uint64_t id, size;
            uint32_t count;
            bool states;
        } drop;
        struct {
            uint64_t id;
            uint32_t index;
            enum sched_state state;
            uint32_t attempts;
            uint64_t due_ms; /* HELD: since when */
            bool delay_notified;
            bool has_result;
            struct sched_result last;
            struct span destination;
            bool routed;      /* as in sched_stored_recipient */
            uint32_t wish;    /* likewise */
            struct span note; /* likewise */
        } recipient;
        struct {
            uint64_t attempt, id;
            uint32_t worker;
            const uint32_t *indexes;
            uint32_t count;
            uint32_t attempts;    /* made before */
            uint32_t concurrency; /* connections the site may have now */
            struct span destination;
        } attempt;
        struct {
            uint64_t id;
            enum sched_trace_kind kind;
            const uint32_t *indexes;
            uint32_t count;
            uint64_t attempt, next_ms;
            struct span text;
            bool has_result;
            struct sched_result result;
        } trace;
        struct {
            uint64_t token, id;
        } answer;
        struct {
            uint64_t id, compose;
            enum sched_report_kind kind;
            const uint32_t *indexes;
            const struct sched_result *results; /* one for each index */
            uint32_t count;
            uint64_t will_retry_until_ms; /* DELAYED only */
        } compose;
        uint64_t id;
    };
};

/* The actions of one step; spans and arrays live until the next sched_step or sched_actions_clear. */
struct sched_actions {
    const struct sched_action *at;
    uint32_t count;
};

struct sched;
/* last_id: the largest id ever given out in this shard, from the store. NULL: no memory. */
struct sched *sched_new(const struct sched_config *c, uint64_t last_id, uint64_t last_attempt) MUST_CHECK;
void sched_free(struct sched *s);
/* One step. now_ms is wall time and never goes back (the shell clamps it). Malformed events from
 * strangers (unknown attempt, wrong worker, index out of range) are refused without harm.
 * ERR_OK; ERR_FULL: a submission beyond what memory allows (refuse it with 451); ERR_NOMEM likewise;
 * ERR_INVALID: the event was refused. */
int sched_step(struct sched *s, const struct sched_event *e, uint64_t now_ms, struct sched_actions *out) MUST_CHECK;
/* Gives out an id before its message is complete. Never 0, never given out again. */
uint64_t sched_reserve_id(struct sched *s, uint64_t now_ms);
/* The attempt is under way. An ASSIGN is void, and must not be sent, when this is false at the time it would be
 * released: its message was rejected, or its node went away, while it was held. */
bool sched_is_assigned(const struct sched *s, uint64_t attempt);
/* Ends the current batch and returns its number (numbers start at 1). Later writes go to the next one. */
uint64_t sched_cut(struct sched *s);
/* The last id given out: later messages have larger ones. */
uint64_t sched_last_id(const struct sched *s);
/* How many more recipients the hot set would take from the store now (0 under pressure). */
uint32_t sched_room(const struct sched *s);
/* Recipients that the operator's change of the last step took hold of, those under way included. */
uint32_t sched_changed(const struct sched *s);
/* Whether the verb can change anything about a recipient in this state. */
bool sched_verb_applies(enum sched_operator_verb verb, enum sched_state state);
/* Earliest wall time at which SCHED_TICK has something to do; UINT64_MAX: nothing. */
uint64_t sched_next_ms(const struct sched *s);

/* -- looking in (read only) -- */
struct sched_counts {
    uint64_t messages, ready, assigned, deferred_here, failed_waiting;
    uint64_t in_doubt, delivered, deferrals, failed, expired, reports, no_reports; /* since start */
    uint32_t destinations, sites, workers;
};
void sched_counts(const struct sched *s, struct sched_counts *out);
struct sched_view { /* of one recipient in memory */
    uint32_t index;
    enum sched_state state;
    uint32_t attempts;
    uint64_t due_ms;
    bool site_suspended;
    uint64_t site_resume_ms;
    uint32_t site_concurrency, site_busy; /* jobs allowed and under way at its site */
    uint32_t ahead;                       /* ready recipients of the same destination before it */
    struct span site, destination;        /* valid until the next step */
    bool routed;                          /* destination is an operator's */
    uint32_t wish;                        /* of an operator, for the end of the attempt */
    struct span note;                     /* HELD, or a wish: who, and why */
    uint64_t since_ms;                    /* HELD: since when */
    uint32_t stop_scope;                  /* suspended by an operator: enum sched_suspension_scope; 0: not */
    struct span stop_name;
    bool has_result;
    struct sched_result last;
};
/* Calls each for every recipient of the message in memory; ERR_NOT_FOUND: it is not in memory. */
int sched_look(const struct sched *s, uint64_t id, void (*each)(void *arg, const struct sched_view *v),
               void *arg) MUST_CHECK;
/* The same without .ahead, which takes as long as the line is. */
int sched_glance(const struct sched *s, uint64_t id, void (*each)(void *arg, const struct sched_view *v),
                 void *arg) MUST_CHECK;
/* READY recipients of the destinations that such a suspension stops, or would; its name is not empty. */
uint64_t sched_ready_under(const struct sched *s, const struct sched_suspension *of);
/* The site of a destination as far as it is remembered, or empty; valid until the next step. */
struct span sched_site_of(const struct sched *s, struct span destination);

#endif
