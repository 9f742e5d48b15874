/*
 * repeat: see repeat.h. The batch is walked once; what it has done to a key so far is kept in a table, and the store is
 * asked only for a key's first operation. Rare and not hot: it runs after a failed write.
 */
#include "store/repeat.h"

#include <stdlib.h>

#include "base/hash.h"
#include "store/backend.h"

#define VALUE_MAX (1024u * 1024u * 1024u)

struct seen {
    struct span key; /* in the batch; .at NULL: free slot */
    enum store_family family;
    bool there;
};
struct repeat {
    struct store *store;
    struct seen *table;
    size_t mask;
    struct buf value;
};

static bool is_written_once(enum store_family f) {
    return f == STORE_ENVELOPE || f == STORE_BODY || f == STORE_INFLIGHT;
}

static struct seen *slot_of(struct repeat *r, const struct batch_entry *e) {
    size_t i = hash_span(e->key, e->family) & r->mask;
    while (r->table[i].key.at && !(r->table[i].family == e->family && span_eq(r->table[i].key, e->key)))
        i = (i + 1) & r->mask;
    return &r->table[i];
}

/* Whether the key is there before this operation. */
static int look(struct repeat *r, const struct batch_entry *e, struct seen **out) {
    struct seen *slot = *out = slot_of(r, e);
    if (slot->key.at)
        return ERR_OK;
    buf_clear(&r->value);
    int err = store_get(r->store, e->family, e->key, &r->value);
    if (err != ERR_OK && err != ERR_NOT_FOUND)
        return err;
    *slot = (struct seen){e->key, e->family, err == ERR_OK};
    return ERR_OK;
}

static int repeat_one(struct repeat *r, const struct batch_entry *e, struct store_batch *to) {
    struct seen *seen;
    if (!is_written_once(e->family)) {
        store_batch_put_entry(to, e);
        return ERR_OK;
    }
    int err = look(r, e, &seen);
    if (err != ERR_OK)
        return err;
    bool puts = e->op == BATCH_PUT;
    if (seen->there != puts)
        store_batch_put_entry(to, e);
    seen->there = puts;
    return ERR_OK;
}

int repeat_batch(struct store *s, const struct store_batch *b, struct store_batch *to) {
    struct repeat r = {.store = s};
    struct batch_entry e;
    size_t slots = 16;
    while (slots < 2 * store_batch_count(b))
        slots *= 2;
    r.table = calloc(slots, sizeof *r.table);
    if (!r.table)
        return ERR_NOMEM;
    r.mask = slots - 1;
    buf_init(&r.value, VALUE_MAX);
    int err = store_batch_error(b);
    for (size_t at = 0; err == ERR_OK && store_batch_next(b, &at, &e);)
        err = repeat_one(&r, &e, to);
    buf_deinit(&r.value);
    free(r.table);
    return err == ERR_OK ? store_batch_error(to) : err;
}
