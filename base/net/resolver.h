/*
 * resolver: the door to the C library's resolver: a DNS question that blocks, with a deadline, for helper threads
 * whose libraries want answers and cannot wait on a loop (SPF, DKIM, DMARC). Loops use dns.h.
 *
 * Answers are parsed strictly: only records of the asked type and class whose owner is the name asked for (or what
 * its aliases lead to) count; a malformed message is a temporary failure. UDP first; when cut, TCP.
 */
#ifndef BASE_NET_RESOLVER_H
#define BASE_NET_RESOLVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

#define RESOLVER_RECORDS_MAX 100 /* more are left out */
#define RESOLVER_SERVERS_MAX 3   /* more are not used */

enum resolver_type { RESOLVER_A = 1, RESOLVER_PTR = 12, RESOLVER_MX = 15, RESOLVER_TXT = 16, RESOLVER_AAAA = 28 };
enum resolver_status {
    RESOLVER_FOUND,   /* count >= 1 */
    RESOLVER_NO_DATA, /* the name exists, no such record */
    RESOLVER_NXDOMAIN,
    RESOLVER_TEMPORARY, /* no answer in time, SERVFAIL, malformed, no memory */
};
struct resolver_record {
    struct span text;    /* TXT: its strings joined, any octets; MX, PTR: the name, no final dot; a NUL follows */
    uint16_t preference; /* MX */
    uint8_t addr[16];    /* A: 4, AAAA: 16 */
};
struct resolver_answer {
    enum resolver_status status;
    size_t count;
    struct resolver_record *records; /* in the caller's arena */
};

struct resolver;
/* One for each thread. servers: "127.0.0.1:5302,[::1]:53" (port 53 when it is left out); NULL: the
 * system's. ERR_INVALID, ERR_NOMEM. */
int resolver_new(struct resolver **r, const char *servers) MUST_CHECK;
void resolver_free(struct resolver *r);
/* name: presentation form, with or without a final dot; one that no DNS can hold (empty or long labels, blanks,
 * backslashes) is RESOLVER_NXDOMAIN without a question. Answers until deadline_ms (clock_mono_ms), rounded up to a
 * whole second. */
enum resolver_status resolver_ask(struct resolver *r, const char *name, enum resolver_type type, uint64_t deadline_ms,
                                  struct arena *mem, struct resolver_answer *a);

#endif
