/*
 * guess: counts failed tries per client network and per account in a window of time, so that guessing has a price.
 * Shared by all loops, bounded, thread-safe; it outlives reloads. Time is an argument.
 *
 * A try is admitted while failures are under the cap. Tries under way count as if they would fail: when the cap would
 * be reached that way, one more has to wait for them, so that many connections at once cannot buy more guesses.
 */
#ifndef BASE_NET_GUESS_H
#define BASE_NET_GUESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/net/tcp.h"
#include "base/span.h"

struct guess;
struct guess *guess_new(uint32_t entries) MUST_CHECK;
struct guess *guess_ref(struct guess *g);
void guess_unref(struct guess *g);

struct guess_key { /* which counter */
    uint64_t a, b;
};
/* The network of a client: /32 of IPv4, /64 of IPv6; all unix sockets are one. */
struct guess_key guess_key_client(const struct guess *g, const struct tcp_addr *client);
/* Without regard to the case of letters. */
struct guess_key guess_key_account(const struct guess *g, struct span account);

enum guess_verdict { GUESS_GO, GUESS_WAIT, GUESS_REFUSED };
/* GO: a try is under way, guess_end must follow. WAIT: ask again soon. REFUSED: over the cap, or no room. */
enum guess_verdict guess_admit(struct guess *g, struct guess_key key, uint32_t cap, uint64_t window_ms,
                               uint64_t now_ms) MUST_CHECK;
/* The try ended; bad: it was a wrong guess. Returns the failures in the window. */
uint32_t guess_end(struct guess *g, struct guess_key key, bool bad, uint64_t window_ms, uint64_t now_ms);
/* Asks only. */
bool guess_is_over(struct guess *g, struct guess_key key, uint32_t cap, uint64_t window_ms, uint64_t now_ms);
size_t guess_count(struct guess *g); /* counters held */
/* For how long the answer to the nth failure is held back: doubles from base_ms, up to 16 s. */
uint64_t guess_delay_ms(uint32_t failures, uint64_t base_ms);

#endif
