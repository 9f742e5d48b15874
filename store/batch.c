/*
 * batch: a list of operations in one growing piece of memory, in an encoding of our own, so that every backend
 * (and later a replica) applies the very same thing.
 *
 * One operation: op u8, family u8, key length u32, value length u32 (host order; it never leaves the
 * process in this form), key, value.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/backend.h"

#define BATCH_MAX (256u * 1024u * 1024u)
#define BATCH_KEEP (4u * 1024u * 1024u) /* memory that a cleared batch may keep */

struct store_batch {
    struct buf ops;
    size_t count;
};
struct head {
    uint8_t op, family;
    uint16_t zero;
    uint32_t key_len, value_len;
};

struct store_batch *store_batch_new(void) {
    struct store_batch *b = calloc(1, sizeof *b);
    if (b)
        buf_init(&b->ops, BATCH_MAX);
    return b;
}

void store_batch_free(struct store_batch *b) {
    if (!b)
        return;
    buf_deinit(&b->ops);
    free(b);
}

void store_batch_clear(struct store_batch *b) {
    if (b->ops.cap > BATCH_KEEP)
        buf_deinit(&b->ops);
    buf_clear(&b->ops);
    b->count = 0;
}

static void add(struct store_batch *b, enum batch_op op, enum store_family f, struct span key, struct span value) {
    struct head h = {
        .op = (uint8_t)op, .family = (uint8_t)f, .key_len = (uint32_t)key.len, .value_len = (uint32_t)value.len};
    CHECK(key.len > 0 && key.len < UINT16_MAX && value.len < UINT32_MAX);
    char *at = buf_reserve(&b->ops, sizeof h + key.len + value.len);
    if (!at)
        return; /* kept in ops.err */
    memcpy(at, &h, sizeof h);
    memcpy(at + sizeof h, key.at, key.len);
    if (value.len)
        memcpy(at + sizeof h + key.len, value.at, value.len);
    buf_commit(&b->ops, sizeof h + key.len + value.len);
    b->count++;
}

void store_put(struct store_batch *b, enum store_family f, struct span key, struct span value) {
    add(b, BATCH_PUT, f, key, value);
}

void store_delete(struct store_batch *b, enum store_family f, struct span key) {
    add(b, BATCH_DELETE, f, key, SPAN_EMPTY);
}

void store_single_delete(struct store_batch *b, enum store_family f, struct span key) {
    add(b, BATCH_SINGLE_DELETE, f, key, SPAN_EMPTY);
}

void store_delete_range(struct store_batch *b, enum store_family f, struct span from, struct span to) {
    add(b, BATCH_DELETE_RANGE, f, from, to);
}

void store_batch_put_entry(struct store_batch *b, const struct batch_entry *e) {
    add(b, e->op, e->family, e->key, e->value);
}

size_t store_batch_bytes(const struct store_batch *b) {
    return buf_len(&b->ops);
}

size_t store_batch_count(const struct store_batch *b) {
    return b->count;
}

void store_batch_add(struct store_batch *b, const struct store_batch *from) {
    if (from->ops.err != ERR_OK && b->ops.err == ERR_OK)
        b->ops.err = from->ops.err;
    buf_add(&b->ops, buf_span(&from->ops));
    b->count += from->count;
}

bool store_batch_next(const struct store_batch *b, size_t *at, struct batch_entry *e) {
    struct span all = buf_span(&b->ops);
    struct head h;
    if (*at >= all.len)
        return false;
    memcpy(&h, all.at + *at, sizeof h);
    const char *key = all.at + *at + sizeof h;
    *e = (struct batch_entry){h.op, h.family, {key, h.key_len}, {key + h.key_len, h.value_len}};
    *at += sizeof h + h.key_len + h.value_len;
    return true;
}

int store_batch_error(const struct store_batch *b) {
    return b->ops.err;
}
