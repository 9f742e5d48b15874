/*
 * data: reads the octets of a message as they come from a client: finds the end, removes the stuffing
 * dots, and judges the text on its way (bare CR and LF, long lines, 8-bit octets, hops).
 *
 * Pure and without copying: the spans that it yields lie in the input (or are a constant CRLF). Only
 * CRLF.CRLF ends a message sent with DATA; in BDAT the sizes do, and dots mean nothing.
 *
 * NUL: RFC 5321 section 4.1.1.4 lets text hold all 128 codes of US-ASCII and asks a relay to change
 * nothing, so a NUL is passed on. It is counted as an 8-bit octet, so that it is encoded for a next hop
 * without 8BITMIME.
 */
#ifndef GATEWAY_SMTP_DATA_H
#define GATEWAY_SMTP_DATA_H

#include <stdint.h>

#include "base/span.h"

#define DATA_LINE_MAX 1000 /* octets of a line with its CRLF, without the stuffing dot */

enum data_mode {
    DATA_DOTS,   /* DATA: dots are stuffed, CRLF.CRLF ends it */
    DATA_OCTETS, /* BDAT */
};
enum data_fault { DATA_FAULT_BARE = 1, DATA_FAULT_LINE = 2 };
enum data_event {
    DATA_MORE,  /* what could be used was used; give what follows */
    DATA_BODY,  /* *body holds octets of the message; call again */
    DATA_AGAIN, /* nothing to yield yet; call again */
    DATA_END,   /* the end of data was consumed (DATA_DOTS only) */
};

struct data {
    enum data_mode mode;
    bool normalize;       /* a bare CR or LF becomes CRLF instead of a fault */
    bool eight_bit;       /* an octet over 127 or a NUL was seen */
    bool in_header;       /* before the first empty line */
    uint8_t faults;       /* of enum data_fault */
    bool tls_required_no; /* a field TLS-Required: no was seen */
    uint32_t received;    /* Received headers seen */
    uint64_t size;        /* octets yielded */
    /* private */
    uint32_t line_len;  /* octets of the line under way */
    bool true_start;    /* the line began behind a real CRLF (or is the first one) */
    bool unstuffed;     /* its dot has been removed */
    bool judged;        /* its first octets were looked at as a header */
    bool held_cr;       /* DATA_OCTETS: the last chunk ended in a CR that was not yielded yet */
    size_t clear_of_lf; /* so many octets from here on are known to hold no LF */
    bool owe_crlf;      /* a CRLF to yield before anything else */
};

void data_init(struct data *d, enum data_mode mode, bool normalize);
/* Looks at `in`, and consumes *used of it. Up to 17 octets may be left unconsumed because what follows decides what
 * they are; give them again with more behind them. `last`: nothing of this chunk follows `in` (DATA_OCTETS only); then
 * all is consumed. */
enum data_event data_next(struct data *d, struct span in, bool last, size_t *used, struct span *body);
/* The last chunk is over: yields the CRLF that its last line lacks, or nothing. */
struct span data_finish(struct data *d);

#endif
