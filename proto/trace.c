/*
 * trace: see trace.h.
 */
#include "proto/trace.h"

const char *trace_kind_name(uint32_t kind) {
    static const char *const names[] = {
        "?",        "accepted",  "assigned", "delivered", "deferred", "failed", "in_doubt",
        "reported", "no_report", "put_off",  "given_up",  "retried",  "done",   "returned",
        "held", "released", "deleted", "bounced", "rerouted",
    };
    return kind < sizeof names / sizeof *names ? names[kind] : "?";
}
