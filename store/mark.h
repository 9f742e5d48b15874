/*
 * mark: remembers how far writes were acknowledged, outside of the database, so that a log that is gone or was cut is
 * noticed even where nothing else tells of it.
 *
 * The file MARK lies beside the database, mapped into memory. After each synced write the number of its last operation
 * is stored there: no call, no sync. So the mark survives the death of the process at any moment; after
 * a power cut it may lag by what the kernel had not written back (half a minute), never run ahead.
 */
#ifndef STORE_MARK_H
#define STORE_MARK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define MARK_FILE "MARK"

struct mark {
    struct mark_page *page; /* NULL: closed */
    unsigned turn;
    bool was_empty;
};

/* Opens the file in this directory; create makes a new one that says 0, and so does an empty file (was_empty): a crash
 * left it, or an operator who accepts that acknowledged mail is lost. read_only: mark_set is not called.
 * ERR_NOT_FOUND, ERR_CORRUPT (length, head, or both slots damaged), ERR_IO, ERR_NO_SPACE, ERR_EXISTS (create). */
int mark_open(struct mark *m, const char *directory, bool create, bool read_only) MUST_CHECK;
void mark_close(struct mark *m);
/* The operations acknowledged so far. */
uint64_t mark_get(const struct mark *m);
void mark_set(struct mark *m, uint64_t sequence);

#endif
