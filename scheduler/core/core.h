/*
 * core: what the files of the scheduler core share: its structures and the calls between them.
 *
 * Who holds whom: a message holds its recipients inline; each recipient holds a destination; a
 * destination belongs to one site (its own until a delivery node has named the real one); a site has
 * one home, a delivery node (or nobody). READY recipients stand in lanes (destination, class,
 * sender), lanes in turns (destination, class), turns in the line of the home or, while the site
 * takes no more, in the line of those that wait for the site.
 *
 * Memory: new work can be refused with ERR_NOMEM. Bookkeeping for work that was accepted cannot:
 * there the process stops (core_must_alloc) and recovers from the store.
 */
#ifndef SCHEDULER_CORE_CORE_H
#define SCHEDULER_CORE_CORE_H

#include "base/arena.h"
#include "base/check.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/rand.h"
#include "scheduler/core/sched.h"

#define CORE_CLASSES 3
#define CORE_QUANTUM 10          /* recipients that a turn or a lane may send before the next one */
#define CORE_COST_MAX 110        /* most that one job is charged with */
#define CORE_SMALL_SENDER 50u    /* READY recipients up to which a sender counts as small */
#define CORE_KEEP_DEST 100u      /* READY recipients kept per destination of a suspended site, */
#define CORE_KEEP_SITE 1000u     /* and in all of it; */
#define CORE_KEEP_PRESSED 2u     /* for both when the hot set is more than half full */
#define CORE_AGE_EVERY_MS 60000u /* READY recipients that are suspended are looked at */
#define CORE_SPILL_STEP 512u     /* recipients put to disk for suspended sites in one step */
#define CORE_DEADLINES_STEP 512u /* messages whose DELIVERBY time is acted on in one step */
#define CORE_WORKERS_MAX 64u
#define CORE_RECIPIENTS_MAX 100000u
#define CORE_NAME_MAX 320u /* of a destination */
#define CORE_SITE_NAME_MAX 1024u
#define CORE_IDLE_MAX 20000u /* destinations remembered without recipients */
#define CORE_IDLE_MS 3600000u

/* -- results -- */
struct result { /* what the last attempt said, kept for reports and for the curious */
    uint32_t code;
    uint16_t text_len, remote_len;
    uint8_t outcome, scope, hop, enhanced_len;
    char bytes[]; /* enhanced, text, remote */
};

/* -- who stands in line -- */
struct fair { /* a sender's share */
    struct map_node by_name;
    uint32_t refs;  /* messages in memory */
    uint32_t ready; /* READY recipients */
    uint64_t serial;
    uint32_t len;
    char name[];
};
struct lane { /* READY recipients of one sender in one turn; exists while there are some */
    struct map_node by_key;
    struct list_node ring; /* turn.lanes */
    struct list fifo;      /* recipient.queue */
    struct dest *dest;
    struct fair *fair;
    int32_t deficit;
    uint8_t class;
    bool small; /* its sender had few READY recipients when the lane opened */
};
enum turn_place { TURN_NONE, TURN_RING, TURN_WAIT };
struct turn {              /* the READY recipients of one class at one destination */
    struct list_node node; /* in a ring of the home's line, or of the site's waiting line */
    struct list lanes;
    uint32_t ready;
    uint32_t express; /* lanes of small senders */
    int32_t deficit;
    uint8_t class, place, fast; /* fast: in the ring of small senders */
};
struct line { /* turns in order: rings per class, small senders apart */
    struct list ring[CORE_CLASSES][2];
    int32_t credit[CORE_CLASSES];
    uint8_t row[CORE_CLASSES]; /* picks from the fast ring in a row */
    uint32_t count;
};

/* -- where mail goes -- */
struct suspension { /* by an operator */
    struct map_node by_name;
    struct list_node link;
    uint64_t until_ms; /* 0: until it is resumed */
    uint32_t ready;    /* READY recipients of the destinations that it stops */
    uint32_t scope, len;
    char name[];
};
struct dest {
    struct map_node by_name;
    struct site *site;
    struct suspension *stop; /* why its turns stand in no line; or NULL */
    struct list_node of_site, idle;
    struct list_node stock; /* site.stocked, while it has READY recipients */
    struct turn turn[CORE_CLASSES];
    uint64_t serial;
    uint64_t site_until_ms; /* the name of the site is fresh until then */
    uint64_t idle_since_ms;
    uint64_t wait_ms, assigned_ms; /* how long the last assigned one had been READY, and when it was assigned */
    uint32_t refs;                 /* recipients in memory */
    uint32_t ready;
    uint32_t spilled; /* put to disk since it was last under half of its share */
    uint32_t len;
    char name[];
};
struct site {
    struct map_node by_name; /* named sites only */
    struct list_node all, spill;
    struct heap_node resume;
    struct list dests;
    struct list stocked; /* those with READY recipients: a site may have very many without */
    struct line wait;
    struct worker *home;
    uint64_t serial;
    uint64_t resume_ms; /* paused until then; 0: not paused */
    uint64_t pause_ms;  /* length of the pause that runs or ran */
    uint32_t failures;  /* in a row, of the whole site; over 0: suspended, then probed */
    uint32_t concurrency, successes;
    uint32_t busy;   /* attempts under way */
    uint32_t ready;  /* READY recipients of its destinations */
    uint32_t ringed; /* turns in the home's line */
    bool rehome;     /* its home moves when nothing is under way */
    bool held;       /* rests for a time that was asked for: what still succeeds does not end it */
    bool own;        /* stands for one destination whose site is not known */
    uint32_t len;
    char name[];
};
struct worker {
    struct list_node all;
    struct list attempts; /* oldest first */
    struct line line;
    uint32_t number, jobs, jobs_max;
    uint64_t bytes, bytes_max, hash;
};
struct attempt {
    struct map_node by_id;
    struct list_node of_worker;
    uint64_t id, batch;
    struct message *message;
    struct dest *dest;
    struct site *site;
    struct worker *worker;
    uint32_t count;
    uint32_t indexes[];
};

/* -- messages -- */
struct order {         /* an operator's, about one recipient: while it is HELD, or until its attempt has ended */
    struct dest *dest; /* takes the place of its destination then (with a reference); or NULL */
    bool routed;       /* dest is not the envelope's */
    uint8_t wish;      /* HOLD, BOUNCE, DELETE: done then; 0: nothing */
    uint16_t len;
    char note[];
};
struct recipient {
    struct list_node queue; /* READY: lane.fifo */
    struct dest *dest;
    union {
        struct lane *lane;       /* READY */
        struct attempt *attempt; /* ASSIGNED */
    };
    uint64_t due_ms; /* DEFERRED: next attempt; READY, HELD: since when */
    struct result *last;
    struct order *order;
    uint32_t index;
    uint16_t attempts;
    uint16_t state : 3, notify : 4, delay_notified : 1, delay_wanted : 1, reporting : 1, returned : 1, dirty : 1,
        routed : 1;
};
struct news { /* reports that a message waits for */
    struct list_node timer;
    struct message *message;
    uint64_t since_ms;
    uint64_t compose; /* under way: its number; 0: none */
    enum sched_report_kind kind;
    uint32_t delays; /* recipients whose delay is to be reported */
};
struct message {
    struct map_node by_id;
    struct list_node pin; /* linked until the batch of its submission has ended */
    struct fair *fair;
    struct news *news;
    struct heap_node deadline; /* while by_ms has not come */
    uint64_t id, size, batch;
    uint64_t from_ms; /* the retry settings count from then: received, or released */
    uint64_t by_ms;   /* DELIVERBY; 0: none */
    uint32_t count;
    uint32_t work;    /* READY, ASSIGNED */
    uint32_t waiting; /* FAILED, DELIVERED */
    uint32_t settled;
    uint8_t priority;
    bool report, null_sender;
    bool held;      /* until from_ms, as the sender asked */
    bool by_notify; /* at by_ms the sender is told, and delivery goes on */
    bool states;    /* state records may be in the store */
    bool late;      /* some were written after the submission's own step, while it was pinned */
    struct recipient at[];
};

struct sched {
    struct sched_config config;
    struct rand rand;
    uint64_t now;
    uint64_t last_id, last_attempt, last_serial, last_compose;
    uint64_t aged_ms;     /* when what is suspended was looked at last */
    uint64_t batch, done; /* current one; last one that ended */
    struct map messages, attempts, dests, sites, fairs, lanes, suspensions;
    struct list workers, all_sites, idle, pins, timers, spills, suspension_list;
    struct heap resumes;
    struct heap deadlines;   /* messages by by_ms */
    struct worker nobody;    /* home of sites when there is no delivery node */
    struct message *visitor; /* loaded last: stays for one step, for the operator */
    uint32_t active;         /* recipients in memory */
    struct sched_counts counts;
    /* of the step that runs */
    struct arena arena;
    struct sched_action *actions;
    uint32_t action_count, action_cap;
    uint32_t trace_cap; /* room in the index array of the last trace */
    uint32_t changed;   /* recipients that an operator's change took hold of */
    struct recipient **dirty;
    uint32_t dirty_count, dirty_cap;
};

/* -- sched.c -- */
void *core_must_alloc(size_t size); /* zeroed; aborts without memory */
static inline uint64_t core_mix(uint64_t x) {
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}
/* The next action of this step, in the current batch; zeroed but for kind and batch. */
struct sched_action *core_act(struct sched *s, enum sched_action_kind kind);
void *core_arena(struct sched *s, size_t size);                /* lives until the next step */
struct span core_keep_span(struct sched *s, struct span from); /* a copy in the arena */
struct sched_result core_copy_result(struct sched *s, const struct sched_result *r);
/* Traces one recipient; goes into the trace just before when all but the index is the same.
 * index UINT32_MAX: the whole message. result may be NULL; the spans are copied. */
void core_trace(struct sched *s, const struct message *m, enum sched_trace_kind kind, uint32_t index, uint64_t attempt,
                uint64_t next_ms, struct span text, const struct sched_result *result);

/* -- message.c -- */
/* Makes a message without destinations and puts it into the map. NULL: no memory. */
struct message *core_message_new(struct sched *s, uint64_t id, struct span fair, uint32_t count);
/* Removes it from wherever its recipients stand, and frees it. */
void core_message_free(struct sched *s, struct message *m);
struct message *core_message_find(const struct sched *s, uint64_t id);
/* The one place where a recipient changes its state. The caller has taken it out of lane or attempt. */
void core_set_state(struct sched *s, struct message *m, struct recipient *r, enum sched_state to);
static inline struct message *core_message_of(struct recipient *r) {
    return CONTAINER_OF(r - r->index, struct message, at);
}
void core_set_result(struct recipient *r, const struct sched_result *from); /* keeps a copy, cut to the limits */
bool core_view_result(const struct recipient *r, struct sched_result *to);  /* false: none; spans borrow */
/* Its state record is to be written when the message is checked. */
void core_mark_dirty(struct sched *s, struct recipient *r);
/* After changes to m: writes dirty records or drops the message, asks for reports, lets it leave memory.
 * m may be gone afterwards. */
void core_message_check(struct sched *s, struct message *m);
/* Takes over when it came and what the sender wishes. False: no memory. */
bool core_message_set_times(struct sched *s, struct message *m, uint64_t received_ms, const struct sched_wish *wish);
/* Its DELIVERBY time has come, and what is not delivered fails. */
static inline bool core_message_is_overdue(const struct sched *s, const struct message *m) {
    return m->by_ms && !m->by_notify && m->by_ms <= s->now;
}
/* READY, or FAILED when it is overdue, or DEFERRED when it is held, or must wait on disk (full: the hot set takes no
 * more; forced: whatever comes). */
enum core_admission { CORE_ADMIT, CORE_ADMIT_FULL, CORE_ADMIT_FORCED };
void core_admit(struct sched *s, struct message *m, struct recipient *r, enum core_admission how);
/* Events (message.c, loaded.c). */
int core_on_submit(struct sched *s, const struct sched_submit *e);
int core_on_load(struct sched *s, const struct sched_load *e);
void core_on_rejected(struct sched *s);
void core_on_durable(struct sched *s);
/* Enqueues a submission, or a report that was composed for us, which the disk does not reject. ERR_OK, ERR_INVALID,
 * ERR_NOMEM (and nothing was changed). */
int core_enqueue_message(struct sched *s, const struct sched_submit *e, bool composed, uint64_t *id);

/* -- change.c -- */
int core_on_operator(struct sched *s, const struct sched_operator *e);
bool core_change_is_valid(const struct sched_operator *e, uint64_t id, uint32_t count);
/* The next index that the change names, from *at on (which counts named ones): whether it is i. */
bool core_change_names(const struct sched_operator *e, uint32_t *at, uint32_t i);
/* Does it to the recipients of m that it names; the caller checks the message afterwards. */
void core_change(struct sched *s, struct message *m, const struct sched_operator *e);
/* r comes back from an attempt undelivered, or from the store: does what an operator wished meanwhile. True: r is HELD,
 * FAILED or SETTLED now. r is in no lane, and ASSIGNED or DEFERRED. */
bool core_order_apply(struct sched *s, struct message *m, struct recipient *r);
void core_order_drop(struct sched *s, struct recipient *r); /* forgets it */
/* wish 0: the note of a HELD one. */
void core_order_set(struct recipient *r, uint32_t wish, struct span note);
static inline struct span core_order_note(const struct recipient *r) {
    return r->order ? (struct span){r->order->note, r->order->len} : SPAN_EMPTY;
}

/* -- suspension.c -- */
int core_on_suspend(struct sched *s, const struct sched_suspension *e);
int core_on_resume(struct sched *s, const struct sched_suspension *e);
/* Finds what stops d, now that it is new or has another site. Its turns stand in no line, and the caller puts them
 * there. */
void core_suspension_choose(struct sched *s, struct dest *d);
/* Gives up, and tells senders of, what is READY and suspended: nothing else would look at it. A step's worth. */
void core_suspension_age(struct sched *s);
void core_suspension_free_all(struct sched *s);

/* -- ready.c -- */
struct fair *core_fair_take(struct sched *s, struct span name); /* NULL: no memory */
void core_fair_drop(struct sched *s, struct fair *f);
void core_line_init(struct line *l);
/* The turn whose turn it is; it stays in its place. NULL: empty. */
struct turn *core_line_pick(struct line *l);
void core_turn_place(struct sched *s, struct turn *t);
void core_turn_unplace(struct turn *t);
void core_turn_rotate(struct turn *t); /* to the end of its ring */
struct dest *core_turn_dest(const struct turn *t);
struct lane *core_turn_lane(struct turn *t); /* the lane whose turn it is */
void core_turn_charge(struct sched *s, struct turn *t, struct lane *l, uint32_t cost);
void core_ready_put(struct sched *s, struct message *m, struct recipient *r, bool front);
void core_ready_take(struct sched *s, struct recipient *r); /* out of its lane, which may be freed */

/* -- site.c -- */
struct dest *core_dest_take(struct sched *s, struct span name); /* with one reference; NULL: no memory */
void core_dest_drop(struct sched *s, struct dest *d);
void core_dest_evict(struct sched *s); /* forgets idle ones that are too many or too old */
void core_dest_free_all(struct sched *s);
static inline struct span core_dest_name(const struct dest *d) {
    return (struct span){d->name, d->len};
}
uint32_t core_site_free_slots(const struct sched *s, const struct site *site);
bool core_site_is_suspended(const struct sched *s, const struct site *site);
/* d or its site is suspended and holds as many READY recipients as it may; or (over) more than that. */
bool core_site_is_stuffed(const struct sched *s, const struct dest *d, bool over);
uint64_t core_site_back_ms(struct sched *s, const struct dest *d); /* when to come back then, with jitter */
void core_site_lift(struct dest *d);                               /* takes its turns out of their lines */
void core_site_lay(struct sched *s, struct dest *d);
/* A suspended site whose name is no longer fresh may no longer be the right one: d is resolved anew. */
void core_site_refresh(struct sched *s, struct dest *d);
void core_site_wake(struct sched *s,
                    struct site *site); /* lets turns that wait into the line, as far as it takes them */
void core_site_leave(struct sched *s, struct site *site); /* one attempt less under way */
void core_site_name(struct sched *s, struct dest *d, struct span name, uint64_t ttl_ms);
void core_site_success(struct sched *s, struct site *site);
void core_site_shrink(struct sched *s, struct site *site);
void core_site_fail(struct sched *s, struct site *site); /* the whole site could not be reached */
/* Rests for exactly ms from now, unless it rests longer already; then it is probed. */
void core_site_suspend(struct sched *s, struct site *site, uint64_t ms);
void core_site_pause(struct sched *s, struct site *site, uint64_t ms);
void core_site_probe_now(struct sched *s, struct site *site);
void core_site_resume_due(struct sched *s);
void core_site_spill_soon(struct sched *s, struct site *site);
void core_site_spill(struct sched *s); /* READY ones of suspended sites to disk, a step's worth */
void core_site_rehome(struct sched *s, struct site *site);

/* -- assign.c -- */
int core_on_worker_up(struct sched *s, const struct sched_worker *e);
int core_on_worker_down(struct sched *s, uint32_t number);
void core_assign(struct sched *s);
struct attempt *core_attempt_find(const struct sched *s, uint64_t id);
/* Ends it: frees its slot, drops its record. Its recipients were moved on before. */
void core_attempt_end(struct sched *s, struct attempt *a);
void core_worker_free_all(struct sched *s);

/* -- outcome.c -- */
int core_on_reported(struct sched *s, const struct sched_report *e);
/* An attempt whose end nobody knows. r is in no lane and no attempt any more. draw: for the jitter. */
void core_in_doubt(struct sched *s, struct message *m, struct recipient *r, uint64_t attempt, uint64_t draw);
/* No attempt may be made at due_ms any more. */
bool core_is_over(const struct sched *s, const struct message *m, uint64_t due_ms);
/* Puts off without an attempt counted: for want of room, or for its site, which is suspended (then it is
 * given up when due_ms is too late). */
enum core_want { CORE_WANT_ROOM, CORE_WANT_SITE, CORE_WANT_RELEASE };
void core_put_off(struct sched *s, struct message *m, struct recipient *r, uint64_t due_ms, enum core_want want);
/* r, in no lane and no attempt, fails since its DELIVERBY time has come. */
void core_overdue(struct sched *s, struct message *m, struct recipient *r);
void core_deadlines(struct sched *s); /* what messages wish whose DELIVERBY time has come */

/* -- reports.c -- */
/* r has FAILED for good (the result is kept in it): to be reported, or settled with the reason for none. */
void core_report_failure(struct sched *s, struct message *m, struct recipient *r);
/* r was delivered: settled, or a success report is wanted. */
void core_report_success(struct sched *s, struct message *m, struct recipient *r, uint32_t hop);
/* r was put off: says so to the sender, once, when the time has come. */
void core_report_delay(struct sched *s, struct message *m, struct recipient *r);
/* Opens the waiting for reports of a message that was loaded with FAILED or DELIVERED recipients. */
void core_report_open(struct sched *s, struct message *m);
void core_report_check(struct sched *s, struct message *m); /* composes what is due */
void core_report_timers(struct sched *s);
void core_report_close(struct sched *s, struct message *m); /* frees m->news */
int core_on_composed(struct sched *s, const struct sched_composed *e);

#endif
