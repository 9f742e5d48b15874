/*
 * trace: names of the kinds of trace records, for the tool. The numbers are those of enum sched_trace_kind
 * (scheduler/core/sched.h), part of the store, never reused.
 */
#ifndef PROTO_TRACE_H
#define PROTO_TRACE_H

#include <stdint.h>

const char *trace_kind_name(uint32_t kind); /* "accepted", "deferred", ...; "?" for unknown ones */

#endif
