/*
 * sts_in: what the files of sts share: the cache (sts.c), the look-up (sts_fetch.c), the file (sts_file.c).
 */
#ifndef GATEWAY_OUTBOUND_STS_IN_H
#define GATEWAY_OUTBOUND_STS_IN_H

#include "base/map.h"

#include "gateway/outbound/keep.h"
#include "gateway/outbound/sts.h"

#define STS_FETCHES_MAX 200u /* at once; more wait in line */

/* STS_IDLE -> STS_TXT (-> STS_LINE -> STS_FETCH) -> STS_IDLE; also STS_IDLE -> STS_LINE when the record is known. */
enum sts_state { STS_IDLE, STS_TXT, STS_LINE, STS_FETCH };

struct sts_entry {
    struct map_node in_map;
    struct list_node link; /* STS_IDLE: .used; else .busy */
    struct list_node in_line;
    struct sts *s;
    enum sts_state state;
    struct sts_policy *policy; /* NULL, or the newest that was fetched; may be over, may be of mode none */
    struct list waiters;
    struct loop_timer *timer; /* of the waiters, made when there are some */
    struct http_request *request;
    bool overdue;             /* nobody waits for this look-up any more */
    bool anew;                /* fetch though the id is known */
    char id[STS_ID_MAX + 1];  /* that the record announces; "": none */
    uint64_t used_ms;         /* last asked for */
    uint64_t record_until_ms; /* the record's time */
    uint64_t fetch_from_ms;   /* not fetched before */
    const char *why;          /* there is no policy: static */
    char name[];
};
struct sts {
    struct loop *loop;
    struct http *http;
    mxcache_query query;
    void *dns;
    sts_failed_cb failed;
    void *failed_arg;
    uint64_t wait_ms, failure_ms;
    uint32_t entries_max;
    char *connect_to;
    struct map entries;
    struct list used; /* idle, the oldest use first */
    struct list busy; /* looked up now */
    struct list line; /* wait for a fetch */
    struct list told; /* waits that have their answer */
    size_t bytes;     /* of policies */
    unsigned fetches;
    uint64_t wall_ms, mono_ms; /* the wall clock as it was told last, and when */
    struct keep *keep;
    bool changed, serving;
    uint64_t swept_ms, saved_ms;
};

/* -- sts.c -- */
/* NULL: no memory. In .used, idle. */
struct sts_entry *sts_entry_add(struct sts *s, struct span domain);
struct sts_entry *sts_entry_find(const struct sts *s, const char *domain);
void sts_entry_set_policy(struct sts_entry *e, struct sts_policy *p); /* takes p over */
uint64_t sts_now(const struct sts *s);                                /* wall clock */
void sts_move(struct sts_entry *e, enum sts_state state);
/* The look-up is over: e is idle, its waiters are told. e may be gone afterwards. */
void sts_settle(struct sts_entry *e);

/* -- sts_fetch.c: both may settle before they return -- */
void sts_begin_txt(struct sts_entry *e);
void sts_begin_fetch(struct sts_entry *e);

/* -- sts_file.c -- */
void sts_file_read(struct sts *s);
void sts_file_save(struct sts *s); /* when it is changed and the last save is over */
void sts_file_end(struct sts *s);

#endif
