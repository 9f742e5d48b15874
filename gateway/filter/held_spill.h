/*
 * held_spill: octets that may grow long: the first HELD_MEMORY in memory, what follows in an unlinked temporary file
 * of mode 0600, never synced. The body of a held message.
 */
#ifndef GATEWAY_FILTER_HELD_SPILL_H
#define GATEWAY_FILTER_HELD_SPILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct held_spill {
    struct buf memory;
    char *dir;     /* heap, or NULL: nothing goes to a file */
    int fd;        /* -1: no file yet */
    uint64_t size; /* of all */
    bool eight_bit;
};
int held_spill_init(struct held_spill *s, const char *dir) MUST_CHECK; /* ERR_NOMEM */
void held_spill_deinit(struct held_spill *s);
/* ERR_NOMEM; ERR_FULL: no directory; ERR_NO_SPACE; ERR_IO. */
int held_spill_append(struct held_spill *s, struct span octets) MUST_CHECK;
/* Octets read, 0 at the end, or ERR_IO. */
ptrdiff_t held_spill_read(struct held_spill *s, uint64_t at, char *to, size_t max) MUST_CHECK;
/* Empties it; the file, if any, is kept for what comes. ERR_IO. */
int held_spill_clear(struct held_spill *s) MUST_CHECK;

/* -- for rooms that gather a new body before they know whether it will be taken -- */
struct held;
const char *held_dir(const struct held *h); /* or NULL */
/* The body of h becomes what s holds; s is empty afterwards, still to be deinitialised. */
void held_body_take(struct held *h, struct held_spill *s);

#endif
