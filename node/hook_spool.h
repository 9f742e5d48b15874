/*
 * hook_spool: what a hook has not taken yet, on disk: lines with numbers, in segments that are only appended to. It
 * outlives the process, as far as the file system keeps what was written: nothing is synced, since the fate of mail is
 * in the store, not here.
 *
 * At most `max` octets: then the oldest segment goes, and with it what was not taken. Numbers go on from 1, never
 * come twice, and a gap in them is what was dropped. One thread.
 */
#ifndef NODE_HOOK_SPOOL_H
#define NODE_HOOK_SPOOL_H

#include "base/buf.h"
#include "base/err.h"

#define HOOK_SPOOL_MIN (256u * 1024u)
#define HOOK_LINE_MAX 4608u /* octets of one line */

struct hook_spool;
/* dir is made if need be (its parent must be there). damaged: octets that no longer hold together, a tail that a crash
 * cut among them; they are left out. ERR_IO, ERR_NO_SPACE (errno tells), ERR_NOMEM. */
int hook_spool_open(struct hook_spool **s, const char *dir, uint64_t max, uint64_t *damaged) MUST_CHECK;
/* What was not taken stays on disk. */
void hook_spool_close(struct hook_spool *s);
void hook_spool_set_max(struct hook_spool *s, uint64_t max);

/* The number that the next line gets. */
uint64_t hook_spool_next(const struct hook_spool *s);
/* Appends one line under that number. *dropped: lines that had to go for it. ERR_FULL: the line is too long; ERR_IO,
 * ERR_NO_SPACE: it is not kept, and the number is not used. */
int hook_spool_add(struct hook_spool *s, struct span line, uint64_t *dropped) MUST_CHECK;
/* Lines that wait. */
uint64_t hook_spool_count(const struct hook_spool *s);
/* The oldest lines, each followed by LF, at most max lines and what fits in `to`; *last is the number of the last one,
 * 0 when there is none. They wait on until they are taken. ERR_IO. */
int hook_spool_peek(struct hook_spool *s, size_t max, struct buf *to, uint64_t *last) MUST_CHECK;
/* All up to this number are done with. */
void hook_spool_take(struct hook_spool *s, uint64_t last);

#endif
