/*
 * stuff: outbound dot stuffing (RFC 5321 section 4.5.2) without copying: cuts a body into
 * pieces for a vector write and puts the extra dots and missing line ends between them.
 *
 * Whatever the body holds, what comes out is lines that end in CRLF, none of which begins with a
 * lone dot: a bare CR or bare LF becomes CRLF, so that no server behind us can find an
 * end of data that is not ours, however it reads line ends.
 */
#ifndef GATEWAY_SMTP_STUFF_H
#define GATEWAY_SMTP_STUFF_H

#include <stdbool.h>

#include "base/span.h"

struct stuff {
    bool inside; /* within a line: the next octet does not begin one */
    bool cr;     /* the last octet was a CR, held back until what follows is known */
};

static inline void stuff_init(struct stuff *s) {
    *s = (struct stuff){false, false};
}
#define STUFF_PIECES_MIN 8
/* Fills pieces (max at least STUFF_PIECES_MIN) for the octets of `in`; returns how many, and in *used how many octets
 * of `in` they cover: call again with the rest. Pieces point into `in` and static memory. */
size_t stuff_next(struct stuff *s, struct span in, struct span *pieces, size_t max, size_t *used);
/* The end of the body and of the data: the missing line end, if any, and the final dot. */
struct span stuff_end(struct stuff *s);

#endif
