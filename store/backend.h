/*
 * backend: what a backend of the store provides, and how it walks a batch. Private to store/.
 */
#ifndef STORE_BACKEND_H
#define STORE_BACKEND_H

#include <stdatomic.h>

#include "store/store.h"

struct store_ops {
    void (*close)(struct store *s);
    int (*reopen)(struct store *s, struct store_report *report);
    int (*write)(struct store *s, const struct store_batch *const *batches, size_t count, bool sync);
    int (*get)(struct store *s, enum store_family f, struct span key, struct buf *to);
    /* once: what is read is not kept in the cache. */
    int (*iter_open)(struct store_iter **it, struct store *s, enum store_family f, struct span from, struct span to,
                     bool once);
    bool (*has_room)(struct store *s, uint64_t more);
    void (*stats)(struct store *s, struct store_stats *out);
    /* The text of the last error that named a file or place, or "". */
    void (*why)(struct store *s, char *to, size_t size);
};
struct store {
    const struct store_ops *ops;
    atomic_bool damaged; /* a reading has met damage */
};

struct store_iter_ops {
    bool (*next)(struct store_iter *it, struct span *key, struct span *value);
    int (*error)(const struct store_iter *it);
    void (*seek)(struct store_iter *it, struct span key);
    void (*close)(struct store_iter *it);
};
struct store_iter {
    const struct store_iter_ops *ops;
};

enum batch_op { BATCH_PUT = 1, BATCH_DELETE = 2, BATCH_SINGLE_DELETE = 3, BATCH_DELETE_RANGE = 4 };
struct batch_entry {
    enum batch_op op;
    enum store_family family;
    struct span key;
    struct span value; /* of PUT; the end of DELETE_RANGE */
};
/* Walks the operations in order: *at starts at 0. False at the end. */
bool store_batch_next(const struct store_batch *b, size_t *at, struct batch_entry *e);
/* Appends one operation that was read from another batch. */
void store_batch_put_entry(struct store_batch *b, const struct batch_entry *e);
/* The first error of an append, ERR_OK so far. */
int store_batch_error(const struct store_batch *b) MUST_CHECK;

/* rocks.c: opens what lies there without changing it, for store_verify. Errors as store_open. */
int store_open_read_only(struct store **s, const char *path, struct store_report *report) MUST_CHECK;

#endif
