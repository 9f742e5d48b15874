/*
 * suspension: see suspension.h. The key is of the node (KEY_NODE), not of a shard: a suspension holds in all of them.
 */
#include "store/suspension.h"

#include "base/arena.h"
#include "base/check.h"
#include "proto/frame.h"
#include "store/keys.h"

static struct key key_of(uint32_t scope, struct span name) {
    struct key k = key_meta(KEY_NODE, KEY_TAG_SUSPENSION);
    CHECK(name.len <= SUSPENSION_NAME_MAX);
    key_u8(&k, (uint8_t)scope);
    key_bytes(&k, name);
    return k;
}

void suspension_put(struct store_batch *b, const Words__Suspension *record) {
    struct key k = key_of(record->scope, frame_span(record->name));
    struct buf packed;
    buf_init(&packed, FRAME_META_MAX);
    CHECK(frame_pack(&record->base, &packed) == ERR_OK);
    store_put(b, STORE_META, key_span(&k), buf_span(&packed));
    buf_deinit(&packed);
}

void suspension_drop(struct store_batch *b, uint32_t scope, struct span name) {
    struct key k = key_of(scope, name);
    store_delete(b, STORE_META, key_span(&k));
}

int suspension_each(struct store *s, void (*each)(void *arg, const Words__Suspension *record), void *arg) {
    struct key from = key_meta(KEY_NODE, KEY_TAG_SUSPENSION),
               to = key_meta(KEY_NODE, (enum key_tag)(KEY_TAG_SUSPENSION + 1));
    struct store_iter *it;
    struct span key, value;
    struct arena mem;
    int err = store_iter_open(&it, s, STORE_META, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    arena_init(&mem, 4096, 1 << 20);
    while (err == ERR_OK && store_iter_next(it, &key, &value)) {
        const Words__Suspension *record = frame_unpack(&words__suspension__descriptor, value, &mem);
        if (record)
            each(arg, record);
        else
            err = ERR_CORRUPT;
        arena_reset(&mem);
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    arena_deinit(&mem);
    return err;
}
