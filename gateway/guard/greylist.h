/*
 * greylist: remembers who has tried to send what to whom. A triplet of client network, sender and recipient is turned
 * away until it comes again in time; a network of which five triplets came again is trusted to try again, and let in
 * at once. Bounded; waiting and passed triplets have bounds of their own, so that a flood of new ones forgets none
 * that has passed. Thread-safe. Times are wall clock, since the memory outlives the process.
 */
#ifndef GATEWAY_GUARD_GREYLIST_H
#define GATEWAY_GUARD_GREYLIST_H

#include "base/span.h"

#include "gateway/guard/shelf.h"

struct greylist;
int greylist_new(struct greylist **l, size_t most) MUST_CHECK;
void greylist_free(struct greylist *l);
void greylist_set_most(struct greylist *l, size_t most);
size_t greylist_count(struct greylist *l); /* triplets and networks */

struct greylist_times {
    uint64_t delay_ms, retry_ms, keep_ms;
};
enum greylist_answer {
    GREYLIST_NEW,    /* first seen, or seen too long ago: come back */
    GREYLIST_EARLY,  /* come back, but not so soon */
    GREYLIST_PASSED, /* came back in time just now */
    GREYLIST_KNOWN,  /* passed before, or a network that passes */
};
/* *wait_ms: how long the client should stay away (NEW, EARLY). */
enum greylist_answer greylist_judge(struct greylist *l, struct shelf_key network, struct span sender,
                                    struct span recipient, const struct greylist_times *t, uint64_t wall_ms,
                                    uint64_t *wait_ms);
/* Whether anything was learnt since the last greylist_write began. */
bool greylist_is_changed(const struct greylist *l);

/* -- greylist_file.c -- */
/* Adds what the file holds. ERR_NOT_FOUND, ERR_CORRUPT, ERR_VERSION, ERR_IO; then nothing was added. */
int greylist_read(struct greylist *l, const char *path) MUST_CHECK;
/* Whole and synced, or not at all: the old file stays. ERR_IO, ERR_NO_SPACE, ERR_NOMEM. */
int greylist_write(struct greylist *l, const char *path) MUST_CHECK;

/* For greylist_file.c. */
enum greylist_kind { GREYLIST_WAITING, GREYLIST_TRIPLET, GREYLIST_NETWORK, GREYLIST_KINDS };
struct greylist_cell {
    uint64_t at_ms; /* WAITING: first seen; else last seen */
    uint32_t passes;
};
struct shelf *greylist_shelf(struct greylist *l, enum greylist_kind kind);
void greylist_set_changed(struct greylist *l, bool changed);

#endif
