/*
 * operator_in: a change of the queue, shared by the files that make it: operator.c asks, changes and answers on the
 * loop, operator_page.c reads a page on a helper thread meanwhile. Private to scheduler/.
 */
#ifndef SCHEDULER_OPERATOR_IN_H
#define SCHEDULER_OPERATOR_IN_H

#include "proto/filter.h"
#include "scheduler/shell.h"

#define PAGE_MESSAGES 2048u /* of one page */
#define ROUTE_MAX 300u

struct page_message {
    uint64_t id;
    Words__Envelope *envelope;
    Words__RecipientState **states;
};

struct change {
    struct list_node link;
    struct scheduler *sc;
    uint64_t correlation; /* 0: nobody is told */
    enum sched_operator_verb verb;
    struct filter *filter;
    uint64_t only; /* one message alone; or 0 */
    bool must_be;  /* then it is an error when it is not there */
    uint64_t limit;
    bool dry_run;
    char note[SCHED_NOTE_MAX + 1];
    char route[ROUTE_MAX + 1];
    uint64_t now_ms, told_ms, begun_ms; /* begun: the page */
    uint64_t done;
    /* the walk */
    uint32_t shard;
    uint64_t next_id, last_id; /* last: of the shard when its walk began; what came later is not changed */
    bool shard_over;
    uint64_t again[PAGE_MESSAGES]; /* were stale */
    size_t again_count;
    uint32_t again_rounds;
    /* the page */
    struct shard_reading reading;
    bool is_reading, is_working, waits; /* waits: for the disk */
    struct arena mem, look;             /* look: of one message that may not match */
    struct page_message page[PAGE_MESSAGES];
    size_t count, at;
    bool page_changed;
    int err;
    struct loop_timer *timer;
    void (*go_on)(struct change *c);
};

/* Work of a helper thread: fills the page (and err) with what is to be read again, or else with what comes next. */
void operator_read_page(void *change);

#endif
