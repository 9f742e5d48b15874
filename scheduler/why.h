/*
 * why: one paragraph on one message: why it is not delivered yet, and what happens next and when.
 * It joins what the store knows (states, history) with what the core knows now (place in the
 * queue, site, pace).
 */
#ifndef SCHEDULER_WHY_H
#define SCHEDULER_WHY_H

#include "scheduler/shell.h"

/* Puts the core's present state over the rows read from the store (a message in memory is ahead of it). The rows'
 * site spans are borrowed from the core until its next step. */
void why_overlay(struct scheduler *sc, uint64_t message, Words__AdminRow **rows, size_t count);
/* Writes the paragraph, one sentence for each recipient that is not settled (at most 20), or how the message ended. */
void why_write(struct buf *to, struct scheduler *sc, uint64_t message, const Words__AdminReply *r, uint64_t now_ms);

#endif
