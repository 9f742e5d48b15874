/*
 * audit: see audit.h. Keys hold the inverted time, so that the newest record is the first key and no reader ever walks
 * over the tombstones of old ones. The number of records is a record of its own, written with each change.
 *
 * Old ones go in lots, not one by one: finding the oldest means walking over all keys.
 */
#include "store/audit.h"

#include <string.h>

#include "proto/frame.h"
#include "store/keys.h"

#define LOT 1000u    /* removed at once when the log is full */
#define CROWDED 500u /* records that still fit when the removal begins */
#define RECORD_MAX (64u * 1024u)

static struct key range_begin(void) {
    return key_meta(KEY_NODE, KEY_TAG_AUDIT);
}
static struct key range_end(void) {
    return key_meta(KEY_NODE, (enum key_tag)(KEY_TAG_AUDIT + 1));
}

static int read_count(struct store *s, uint64_t *count) {
    struct key k = key_meta(KEY_NODE, KEY_TAG_AUDIT_COUNT);
    struct buf b;
    *count = 0;
    buf_init(&b, 64);
    int err = store_get(s, STORE_META, key_span(&k), &b);
    if (err == ERR_OK && buf_len(&b) != 8)
        err = store_corrupt(s, STORE_META, key_span(&k));
    if (err == ERR_OK)
        *count = key_get_u64(buf_span(&b), 0);
    buf_deinit(&b);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

int audit_open(struct audit *a, struct store *s) {
    struct key from = range_begin(), to = range_end();
    struct store_iter *it;
    struct span key;
    *a = (struct audit){0};
    int err = read_count(s, &a->count);
    if (err == ERR_OK)
        err = store_iter_open(&it, s, STORE_META, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    if (store_iter_next(it, &key, NULL) && !key_read_audit(key, &a->last_ms, &a->last_serial))
        err = store_corrupt(s, STORE_META, key);
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    return err;
}

static void put_count(struct store_batch *b, uint64_t count) {
    struct key k = key_meta(KEY_NODE, KEY_TAG_AUDIT_COUNT), value = {.len = 0};
    key_u64(&value, count);
    store_put(b, STORE_META, key_span(&k), key_span(&value));
}

static ProtobufCBinaryData cut(ProtobufCBinaryData text) {
    return frame_bytes(span_first(frame_span(text), AUDIT_TEXT_MAX));
}

int audit_put(struct audit *a, struct store_batch *b, const Words__AdminAudit *record, uint64_t now_ms) {
    Words__AdminAudit r = *record;
    struct buf packed;
    if (a->count >= AUDIT_RECORDS_MAX)
        return ERR_AGAIN;
    r.base.n_unknown_fields = 0; /* what we do not know has no bound */
    r.base.unknown_fields = NULL;
    r.actor = cut(r.actor);
    r.what = cut(r.what);
    r.reason = cut(r.reason);
    r.target = cut(r.target);
    r.origin = cut(r.origin);
    buf_init(&packed, RECORD_MAX);
    int err = frame_pack(&r.base, &packed);
    if (err == ERR_OK) {
        bool later = now_ms > a->last_ms;
        a->last_serial = later ? 0 : a->last_serial + 1;
        a->last_ms = later ? now_ms : a->last_ms;
        struct key k = key_audit(a->last_ms, a->last_serial);
        store_put(b, STORE_META, key_span(&k), buf_span(&packed));
        put_count(b, ++a->count);
    }
    buf_deinit(&packed);
    return err;
}

bool audit_is_crowded(const struct audit *a) {
    return a->count + CROWDED >= AUDIT_RECORDS_MAX;
}

/* Stands on the first key that is to go. False: there is none, or an error. *seen: keys before it, where they were
 * counted. */
static bool find_first_old(struct store_iter *it, bool crowded, uint64_t now_ms, struct span *key, uint64_t *seen) {
    uint64_t bound_ms = now_ms > AUDIT_KEEP_MS ? now_ms - AUDIT_KEEP_MS : 0, ms;
    uint32_t serial;
    if (!crowded) {
        struct key from = key_audit(bound_ms ? bound_ms - 1 : 0, UINT32_MAX);
        store_iter_seek(it, key_span(&from));
        return store_iter_next(it, key, NULL);
    }
    for (*seen = 0; store_iter_next(it, key, NULL); ++*seen)
        if (*seen >= AUDIT_RECORDS_MAX - CROWDED - LOT || !key_read_audit(*key, &ms, &serial) || ms < bound_ms)
            return true;
    return false;
}

int audit_find_old(struct store *s, struct store_batch *b, uint64_t have, uint64_t now_ms, uint64_t *found,
                   uint64_t *wrong) {
    struct key from = range_begin(), to = range_end();
    bool crowded = have + CROWDED >= AUDIT_RECORDS_MAX;
    struct store_iter *it;
    struct span key;
    uint64_t seen = have;
    *found = *wrong = 0;
    int err = store_iter_open(&it, s, STORE_META, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    bool more = find_first_old(it, crowded, now_ms, &key, &seen);
    bool short_of = !more && seen < have; /* such a count would keep the log full for ever */
    for (; more && *found < AUDIT_OLD_MAX; more = store_iter_next(it, &key, NULL)) {
        store_delete(b, STORE_META, key);
        ++*found;
    }
    err = store_iter_error(it);
    if (err == ERR_OK && short_of)
        *wrong = have - seen;
    store_iter_close(it);
    return err;
}

void audit_removed(struct audit *a, struct store_batch *b, uint64_t removed) {
    a->count -= removed < a->count ? removed : a->count;
    put_count(b, a->count);
}

/* The first key behind the cursor's. */
static int start_key(struct span cursor, struct key *from) {
    *from = range_begin();
    if (cursor.len && cursor.len != AUDIT_CURSOR_LEN)
        return ERR_INVALID;
    key_bytes(from, cursor);
    if (cursor.len)
        key_u8(from, 0);
    return ERR_OK;
}

int audit_read(struct store *s, struct span cursor,
               bool (*each)(void *arg, const Words__AdminAudit *record, struct span cursor), void *arg) {
    struct key from, to = range_end();
    struct store_iter *it;
    struct span key, value;
    struct arena mem;
    int err = start_key(cursor, &from);
    if (err == ERR_OK)
        err = store_iter_open(&it, s, STORE_META, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    arena_init(&mem, 4096, RECORD_MAX * 2u);
    for (bool more = true; err == ERR_OK && more && store_iter_next(it, &key, &value); arena_reset(&mem)) {
        const Words__AdminAudit *r = key.len == 15 ? frame_unpack(&words__admin_audit__descriptor, value, &mem) : NULL;
        if (r)
            more = each(arg, r, span_from(key, 3));
        else
            err = store_corrupt(s, STORE_META, key);
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    arena_deinit(&mem);
    return err;
}
