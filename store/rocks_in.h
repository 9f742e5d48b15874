/*
 * rocks_in: what rocks.c and rocks_options.c share. They are the door to RocksDB: no other file includes this or
 * rocksdb/c.h.
 */
#ifndef STORE_ROCKS_IN_H
#define STORE_ROCKS_IN_H

#include <pthread.h>

#include <rocksdb/c.h>

#include "store/backend.h"
#include "store/mark.h"

struct rocks {
    struct store store;
    pthread_rwlock_t lock;
    pthread_mutex_t writing;
    char *path, *node;
    uint64_t memory_bytes, reserve_bytes;
    bool read_only;
    bool loss_accepted; /* by the operator, for this opening */
    rocksdb_options_t *options, *family_options[STORE_FAMILIES + 1];
    rocksdb_cache_t *cache;
    rocksdb_t *db; /* NULL: not open after a failed reopen */
    rocksdb_column_family_handle_t *families[STORE_FAMILIES + 1];
    struct mark mark;
    rocksdb_writebatch_t *batch; /* reused, under writing */
    rocksdb_writeoptions_t *write_synced, *write_plain;
    rocksdb_readoptions_t *read;
    pthread_mutex_t why_lock;
    char why[STORE_DAMAGE_MAX]; /* under why_lock */
};

/* Makes everything that can be made before opening: cache, options, the write batch. */
int rocks_make_options(struct rocks *r) MUST_CHECK;
void rocks_free_options(struct rocks *r);
/* Takes and frees RocksDB's error text: logs it, keeps it for `why`, and gives the code. NULL: ERR_OK. */
int rocks_take_error(struct rocks *r, const char *what, char *text) MUST_CHECK;

#endif
