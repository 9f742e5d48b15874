/*
 * audit: the log of what operators changed, kept in the store: records in the order in which they were written, also
 * when the clock was set back; bounded in number and age, the oldest go first.
 *
 * A struct audit belongs to one thread, which puts records into batches; reading and looking for what is to go may be
 * done on other threads (audit_read, audit_find_old), and changes nothing.
 */
#ifndef STORE_AUDIT_H
#define STORE_AUDIT_H

#include "base/arena.h"
#include "proto/admin.pb-c.h"
#include "store/store.h"

#define AUDIT_RECORDS_MAX 100000u
#define AUDIT_KEEP_MS (UINT64_C(400) * 24 * 3600 * 1000)
#define AUDIT_TEXT_MAX 2048u /* octets of each text of a record; longer ones are cut */
#define AUDIT_OLD_MAX 5000u  /* records that one audit_find_old names */
#define AUDIT_CURSOR_LEN 12u

struct audit { /* what the next record needs to know */
    uint64_t last_ms;
    uint32_t last_serial;
    uint64_t count; /* records in the store */
};
/* Reads where the log stands. ERR_IO, ERR_CORRUPT, ERR_NOMEM. */
int audit_open(struct audit *a, struct store *s) MUST_CHECK;
/* Adds a record. ERR_AGAIN: full, and the oldest have not gone yet; ERR_NOMEM. */
int audit_put(struct audit *a, struct store_batch *b, const Words__AdminAudit *record, uint64_t now_ms) MUST_CHECK;

/* Adds the removal of what is too old, or too much, to the batch, at most AUDIT_OLD_MAX records; *found says how many.
 * have: records in the store now, as they were counted; *wrong: so many fewer are there. */
int audit_find_old(struct store *s, struct store_batch *b, uint64_t have, uint64_t now_ms, uint64_t *found,
                   uint64_t *wrong) MUST_CHECK;
/* That many are removed by the batch, or were not there; the batch gets the new count. */
void audit_removed(struct audit *a, struct store_batch *b, uint64_t removed);
/* It is time for audit_find_old: the next records could find the log full. */
bool audit_is_crowded(const struct audit *a);

/* Reads newest first, from behind the cursor (AUDIT_CURSOR_LEN octets, or empty: from the newest) on. Each record is
 * given with memory valid for the call, and its cursor; false ends the reading. ERR_INVALID: no cursor of ours. */
int audit_read(struct store *s, struct span cursor,
               bool (*each)(void *arg, const Words__AdminAudit *record, struct span cursor), void *arg) MUST_CHECK;

#endif
