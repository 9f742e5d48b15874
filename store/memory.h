/*
 * memory: the store in memory, for simulation and tests. It keeps apart what is synced and what is not, and can lose
 * the latter, fail and fill up at the test's wish. Thread-safe as the contract says; the knobs below belong to the
 * test.
 */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "store/store.h"

int store_memory_open(struct store **s) MUST_CHECK;
/* The machine dies and comes back: of the batches written since the last sync only the first `keep` remain (in order,
 * each whole). Open iterators must be closed before. Returns how many unsynced batches there were. */
size_t store_memory_crash(struct store *s, size_t keep);
/* The same with a random number of kept batches, drawn by this seed. Returns how many were lost. */
size_t store_memory_crash_seeded(struct store *s, uint64_t seed);
/* Unsynced batches now. */
size_t store_memory_unsynced(const struct store *s);
/* The next `count` writes fail with err. When applied, the operations were written before the sync failed, and are
 * found (unsynced) after store_reopen; else nothing of them is. After a failed write everything but reopen and crash is
 * ERR_IO; but ERR_NOMEM writes nothing and breaks nothing. */
void store_memory_fail(struct store *s, unsigned count, int err, bool applied);
/* Also the next `count` calls of store_reopen fail. */
void store_memory_fail_reopen(struct store *s, unsigned count);
/* Answer of store_has_room from now on. */
void store_memory_set_room(struct store *s, bool room);
/* Keys in a family. */
size_t store_memory_count(const struct store *s, enum store_family f);
/* Puts over a key that was there, in families whose keys are written once: RocksDB would bring the older one back after
 * a single delete. 0 in a correct program. */
size_t store_memory_rewrites(const struct store *s);

#endif
