/*
 * tlsrpt_in: what the files of tlsrpt share: the counts (tlsrpt.c), the report as text (tlsrpt_json.c), as mail
 * (tlsrpt_mail.c), its way out (tlsrpt_send.c), the counts as a file (tlsrpt_file.c).
 */
#ifndef GATEWAY_OUTBOUND_TLSRPT_IN_H
#define GATEWAY_OUTBOUND_TLSRPT_IN_H

#include "base/buf.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/rand.h"

#include "gateway/outbound/keep.h"
#include "gateway/outbound/tlsrpt.h"

#define TLSRPT_DAY_MS ((uint64_t)24 * 3600000)
#define TLSRPT_REPORT_MAX ((size_t)4 << 20)
#define TLSRPT_BUSY_MAX 16u /* reports on their way at once */

struct tlsrpt_row { /* one kind of failure; one allocation */
    struct tlsrpt_row *next;
    enum tlsrpt_result result;
    uint64_t count;
    const char *mx, *sending_ip, *receiving_ip, *reason; /* "" when not known */
};
struct tlsrpt_rules { /* one policy; one allocation but for its rows */
    struct tlsrpt_rules *next;
    enum tlsrpt_policy policy;
    const char *const *lines;
    size_t line_count;
    uint64_t good, bad;
    struct tlsrpt_row *rows, **last_row;
};
struct tlsrpt_sending;
/* One domain on one day: counted, then waiting in the heap, then on its way, then gone or waiting again. */
struct tlsrpt_domain {
    struct map_node in_map;
    struct list_node link; /* of .today, or of .busy */
    struct heap_node in_out;
    uint64_t start_ms; /* of its day */
    struct tlsrpt_rules *rules, **last_rules;
    unsigned row_count, rules_count;
    size_t bytes;
    uint64_t next_ms, give_up_ms, retry_ms;
    uint64_t told[TLSRPT_RUA_MAX]; /* hashes of those who have it */
    unsigned told_count;
    struct tlsrpt_sending *sending;
    char name[];
};
struct tlsrpt {
    struct loop *loop;
    struct http *http;
    struct tlsrpt_config c; /* its texts are ours */
    struct rand rand;
    uint64_t day_ms; /* start of the day that is counted; 0: none yet */
    struct map domains;
    struct list today, busy;
    struct heap out; /* by next_ms */
    size_t bytes;
    uint64_t wall_ms, mono_ms, saved_ms;
    struct keep *keep;
    bool changed;
};

/* -- tlsrpt.c -- */
uint64_t tlsrpt_now(const struct tlsrpt *t);
/* NULL: full, or no memory. A domain of the day under way is findable; others are not. */
struct tlsrpt_domain *tlsrpt_domain_add(struct tlsrpt *t, struct span name, uint64_t start_ms, bool is_today);
struct tlsrpt_rules *tlsrpt_rules_of(struct tlsrpt *t, struct tlsrpt_domain *d, enum tlsrpt_policy policy,
                                     const char *const *lines, size_t line_count);
void tlsrpt_add_failures(struct tlsrpt *t, struct tlsrpt_domain *d, struct tlsrpt_rules *r,
                         const struct tlsrpt_event *e, uint64_t count);
/* Of a day that is over: waits for its turn. */
void tlsrpt_domain_queue(struct tlsrpt *t, struct tlsrpt_domain *d);
void tlsrpt_domain_free(struct tlsrpt *t, struct tlsrpt_domain *d); /* in no list, map and heap any more */

/* -- tlsrpt_json.c: errors show in to->err -- */
void tlsrpt_json(const struct tlsrpt *t, const struct tlsrpt_domain *d, struct buf *to);
void tlsrpt_report_id(const struct tlsrpt *t, const struct tlsrpt_domain *d, char *to, size_t size);

/* -- tlsrpt_mail.c -- */
int tlsrpt_mail_write(const struct tlsrpt *t, const struct tlsrpt_domain *d, const char *to_address, struct span packed,
                      uint64_t wall_ms, struct buf *to) MUST_CHECK;

/* -- tlsrpt_send.c -- */
void tlsrpt_send_due(struct tlsrpt *t);
void tlsrpt_send_stop(struct tlsrpt *t, struct tlsrpt_domain *d); /* without a callback */

/* -- tlsrpt_file.c -- */
void tlsrpt_file_read(struct tlsrpt *t);
void tlsrpt_file_save(struct tlsrpt *t, bool at_end);

#endif
