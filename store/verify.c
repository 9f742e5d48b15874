/*
 * verify: an offline check of a whole store: every key and value is read (which checks the checksums of tables, blob
 * files and logs), every record is decoded, and the records are held against each other. It opens read-only, changes
 * no data, and refuses a store that a daemon has open.
 *
 * Due hints may be stale by design (the recipient was retried earlier), so they are only decoded.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/hash.h"
#include "proto/admin.pb-c.h"
#include "proto/bus.pb-c.h"
#include "proto/frame.h"
#include "proto/id.h"
#include "store/backend.h"
#include "store/blob_scan.h"
#include "store/keys.h"
#include "store/queue.h"
#include "store/verify.h"

struct verify {
    struct store *store;
    void (*found)(void *arg, const char *problem);
    void *arg;
    uint64_t messages;
    struct hash_stream *hash;
    struct arena mem;
    struct buf value;
};

static void problem(struct verify *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void problem(struct verify *v, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    v->found(v->arg, text);
}

static void id_text(uint64_t id, char to[BASE32_ID_LEN + 1]) {
    base32_encode(id, to);
}

/* Calls each for every record of a family. */
static int walk(struct verify *v, enum store_family f,
                void (*each)(struct verify *v, struct span key, struct span value)) {
    struct store_iter *it;
    struct span key, value;
    struct key from = key_shard(0), to = key_shard(KEY_NODE);
    int err = store_iter_open(&it, v->store, f, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    while (store_iter_next(it, &key, &value)) {
        each(v, key, value);
        arena_reset(&v->mem);
    }
    err = store_iter_error(it);
    store_iter_close(it);
    if (err == ERR_CORRUPT) {
        char why[STORE_DAMAGE_MAX];
        v->store->ops->why(v->store, why, sizeof why);
        problem(v, "%s: what follows cannot be read: %s", store_family_name(f), why);
        return ERR_OK;
    }
    return err;
}

static bool has_envelope(struct verify *v, uint32_t shard, uint64_t id) {
    struct key k = key_message(shard, id);
    buf_clear(&v->value);
    return store_get(v->store, STORE_ENVELOPE, key_span(&k), &v->value) == ERR_OK;
}

static void check_body(struct verify *v, uint32_t shard, uint64_t id, const Words__Envelope *e) {
    char name[BASE32_ID_LEN + 1];
    uint64_t size = 0;
    id_text(id, name);
    hash_stream_reset(v->hash);
    for (uint32_t n = 0; size < e->size; n++) {
        buf_clear(&v->value);
        int err = queue_get_chunk(v->store, shard, id, n, &v->value);
        if (err != ERR_OK) {
            problem(v, "message %s: body chunk %u: %s", name, n, err_text(err));
            return;
        }
        struct span octets = buf_span(&v->value);
        hash_stream_add(v->hash, octets.at, octets.len);
        size += octets.len;
    }
    if (size != e->size)
        problem(v, "message %s: body has %llu octets, the envelope says %llu", name, (unsigned long long)size,
                (unsigned long long)e->size);
    else if (e->has_checksum && e->checksum != hash_stream_checksum(v->hash))
        problem(v, "message %s: body does not match its checksum", name);
}

static void on_envelope(struct verify *v, struct span key, struct span value) {
    if (key.len != 10) {
        problem(v, "envelope: a key of %zu octets", key.len);
        return;
    }
    char name[BASE32_ID_LEN + 1];
    uint32_t shard = key_get_u16(key, 0);
    uint64_t id = key_get_u64(key, 2);
    id_text(id, name);
    Words__Envelope *e = frame_unpack(&words__envelope__descriptor, value, &v->mem);
    v->messages++;
    if (!e || e->n_recipients == 0)
        problem(v, "message %s: the envelope does not decode", name);
    else if (id_shard(id) != shard)
        problem(v, "message %s: lies in shard %u", name, shard);
    else
        check_body(v, shard, id, e);
}

static void on_body(struct verify *v, struct span key, struct span value) {
    (void)value;
    if (key.len != 12) {
        problem(v, "body: a key of %zu octets", key.len);
        return;
    }
    uint32_t shard = key_get_u16(key, 0);
    uint64_t id = key_get_u64(key, 2);
    struct key staged = key_staged(shard, id);
    if (has_envelope(v, shard, id))
        return;
    buf_clear(&v->value);
    if (store_get(v->store, STORE_META, key_span(&staged), &v->value) == ERR_OK)
        return; /* a submission that was not finished; the next start drops it */
    char name[BASE32_ID_LEN + 1];
    id_text(id, name);
    problem(v, "message %s: a body chunk without an envelope", name);
}

static void on_recipient(struct verify *v, struct span key, struct span value) {
    if (key.len != 14) {
        problem(v, "recipient: a key of %zu octets", key.len);
        return;
    }
    char name[BASE32_ID_LEN + 1];
    uint32_t shard = key_get_u16(key, 0), index = key_get_u32(key, 10);
    uint64_t id = key_get_u64(key, 2);
    id_text(id, name);
    if (!frame_unpack(&words__recipient_state__descriptor, value, &v->mem)) {
        problem(v, "message %s: the state of recipient %u does not decode", name, index);
    } else if (!has_envelope(v, shard, id)) {
        problem(v, "message %s: the state of recipient %u without an envelope", name, index);
    } else {
        Words__Envelope *e = frame_unpack(&words__envelope__descriptor, buf_span(&v->value), &v->mem);
        if (e && index >= e->n_recipients)
            problem(v, "message %s: a state of recipient %u of %zu", name, index, e->n_recipients);
    }
}

static void on_due(struct verify *v, struct span key, struct span value) {
    uint32_t minute, index;
    uint64_t id;
    (void)value;
    if (!key_read_due(key, &minute, &id, &index))
        problem(v, "due: a key of %zu octets does not decode", key.len);
}

static void on_inflight(struct verify *v, struct span key, struct span value) {
    Words__Inflight *r = key.len == 10 ? frame_unpack(&words__inflight__descriptor, value, &v->mem) : NULL;
    char name[BASE32_ID_LEN + 1];
    if (!r) {
        problem(v, "inflight: a record does not decode");
        return;
    }
    id_text(r->message, name);
    if (!has_envelope(v, key_get_u16(key, 0), r->message))
        problem(v, "message %s: an attempt under way without an envelope", name);
}

static void on_trace(struct verify *v, struct span key, struct span value) {
    if (key.len != 18 || !frame_unpack(&words__trace__descriptor, value, &v->mem))
        problem(v, "trace: a record does not decode");
}

static void on_submission(struct verify *v, struct span key, struct span value) {
    if (key.len != 22 || value.len != 8)
        problem(v, "submission: a record does not decode");
}

static void on_meta(struct verify *v, struct span key, struct span value) {
    bool staged = key.len == 11 && key.at[2] == KEY_TAG_STAGED && value.len == 8;
    bool number = key.len == 4 && key.at[2] == KEY_TAG_NUMBER && value.len == 8;
    if (!staged && !number)
        problem(v, "meta: a record of %zu and %zu octets is not known", key.len, value.len);
}

/* What belongs to the node itself: only the audit log is ours to look at; identity and schema were checked at open. */
static int walk_node(struct verify *v) {
    struct key from = key_meta(KEY_NODE, KEY_TAG_AUDIT), to = key_meta(KEY_NODE, (enum key_tag)(KEY_TAG_AUDIT + 1));
    struct key counter = key_meta(KEY_NODE, KEY_TAG_AUDIT_COUNT);
    struct store_iter *it;
    struct span key, value;
    uint64_t records = 0, ms, count;
    uint32_t serial;
    int err = store_iter_open(&it, v->store, STORE_META, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    for (; store_iter_next(it, &key, &value); records++, arena_reset(&v->mem))
        if (!key_read_audit(key, &ms, &serial) || !frame_unpack(&words__admin_audit__descriptor, value, &v->mem))
            problem(v, "audit: a record of %zu and %zu octets does not decode", key.len, value.len);
    err = store_iter_error(it);
    store_iter_close(it);
    buf_clear(&v->value);
    int found = store_get(v->store, STORE_META, key_span(&counter), &v->value);
    count = found == ERR_OK && buf_len(&v->value) == 8 ? key_get_u64(buf_span(&v->value), 0) : 0;
    if (err == ERR_OK && (found == ERR_OK || found == ERR_NOT_FOUND) && count != records)
        problem(v, "audit: %llu records, their count says %llu", (unsigned long long)records,
                (unsigned long long)count);
    return err;
}

static int walk_all(struct verify *v) {
    static const struct {
        enum store_family family;
        void (*each)(struct verify *v, struct span key, struct span value);
    } walks[] = {
        {STORE_META, on_meta},   {STORE_ENVELOPE, on_envelope},
        {STORE_BODY, on_body},   {STORE_RECIPIENT, on_recipient},
        {STORE_DUE, on_due},     {STORE_INFLIGHT, on_inflight},
        {STORE_TRACE, on_trace}, {STORE_SUBMISSION, on_submission},
    };
    int err = ERR_OK;
    for (size_t i = 0; i < sizeof walks / sizeof *walks && err == ERR_OK; i++)
        err = walk(v, walks[i].family, walks[i].each);
    return err == ERR_OK ? walk_node(v) : err;
}

int verify_store(struct store *s, void (*found)(void *arg, const char *problem), void *arg, uint64_t *messages) {
    struct verify v = {.store = s, .found = found, .arg = arg};
    v.hash = hash_stream_new();
    arena_init(&v.mem, 64 * 1024, 0);
    buf_init(&v.value, SIZE_MAX / 2);
    int err = v.hash ? walk_all(&v) : ERR_NOMEM;
    *messages = v.messages;
    hash_stream_free(v.hash);
    arena_deinit(&v.mem);
    buf_deinit(&v.value);
    return err;
}

int store_verify(const char *path, void (*found)(void *arg, const char *problem), void *arg, uint64_t *messages) {
    struct store_report report;
    struct store *s;
    *messages = 0;
    int err = store_open_read_only(&s, path, &report);
    if (err == ERR_CORRUPT || err == ERR_VERSION) {
        found(arg, report.damage);
        return ERR_OK;
    }
    if (err != ERR_OK)
        return err;
    err = blob_scan(path, found, arg);
    if (err == ERR_OK)
        err = verify_store(s, found, arg, messages);
    store_close(s);
    return err;
}
