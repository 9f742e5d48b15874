/*
 * rates: how much a client network or an account has done within a window. The window is two halves, the one under way
 * and the one before: an event is forgotten after at least half a window and at most a whole one. So nobody waits
 * longer than a window, and what is counted never jumps to nothing at one moment for all.
 */
#ifndef GATEWAY_GUARD_RATES_H
#define GATEWAY_GUARD_RATES_H

#include "gateway/guard/guard.h"
#include "gateway/guard/shelf.h"

enum rate_kind { RATE_CONNECTIONS, RATE_MESSAGES, RATE_RECIPIENTS, RATE_OCTETS, RATE_KINDS };
struct rate_cell {
    uint64_t half;                 /* number of the half under way */
    uint64_t told;                 /* the half in which it was last told, and 1 */
    uint64_t count[RATE_KINDS][2]; /* this half, the one before */
};
enum rate_answer { RATE_UNDER, RATE_OVER, RATE_OVER_TOLD /* and told within this window */ };

/* Adds n unless that is over the limit; enforce false: adds in any case. limit > 0. shelf: of struct rate_cell. */
enum rate_answer rate_charge(struct shelf *s, struct shelf_key k, enum rate_kind kind, uint64_t n, uint64_t limit,
                             uint64_t window_ms, bool enforce, uint64_t now_ms);
/* Takes back what was just charged. */
void rate_refund(struct shelf *s, struct shelf_key k, enum rate_kind kind, uint64_t n);

#endif
