/*
 * figures: the node's own part of ADMIN_STATUS: how long it runs, and all counters and gauges of the process.
 */
#ifndef ADMIN_FIGURES_H
#define ADMIN_FIGURES_H

#include "base/arena.h"
#include "proto/admin.pb-c.h"

#define FIGURES_REPLY_MAX (1024u * 1024u) /* octets of memory for one */

/* Fills the reply with memory of mem; what does not fit is left out. */
void figures_answer(Words__AdminReply *r, const char *name, const char *version, uint64_t uptime_ms, struct arena *mem);

#endif
