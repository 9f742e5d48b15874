/*
 * report: what the node has found and the scheduler has not yet acknowledged. A report is kept
 * in its packed form and sent again every five seconds, and when the scheduler comes back.
 */
#ifndef GATEWAY_OUTBOUND_REPORT_H
#define GATEWAY_OUTBOUND_REPORT_H

#include "base/list.h"
#include "base/map.h"
#include "base/span.h"

#define REPORT_REPEAT_MS 5000u

struct outbound;
struct reports {
    struct map by_attempt;
    struct list waiting; /* oldest sending first */
};
void reports_init(struct reports *r);
void reports_deinit(struct reports *r);
/* Keeps and sends the packed report of this attempt. False: no memory; it was sent once, unkept. */
bool reports_add(struct outbound *o, uint64_t attempt, struct span packed);
/* True: it was waiting. */
bool reports_ack(struct reports *r, uint64_t attempt);
bool reports_has(const struct reports *r, uint64_t attempt);
/* Sends those that were sent more than age_ms ago. */
void reports_repeat(struct outbound *o, uint64_t age_ms);
/* When the oldest that waits was made (milliseconds of the loop); UINT64_MAX: none waits. */
uint64_t reports_oldest_ms(const struct reports *r);
/* Writes the attempts to `to` (room for reports_count). */
size_t reports_count(const struct reports *r);
void reports_list(const struct reports *r, uint64_t *to);

#endif
