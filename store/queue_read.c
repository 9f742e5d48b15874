/*
 * queue_read: the reading half of the queue: records and listings, checked as they come. A record that does not decode
 * is ERR_CORRUPT and named in the log: what was acknowledged is never passed over in silence.
 */
#include "base/check.h"
#include "proto/frame.h"
#include "proto/id.h"
#include "store/keys.h"
#include "store/queue.h"

#define MINUTE_MS 60000u
#define HOUR_MS 3600000u
#define RECORD_MAX (64u * 1024u * 1024u)

int queue_get_number(struct store *s, uint32_t shard, enum queue_number n, uint64_t *value) {
    struct key k = key_number(shard, (uint8_t)n);
    struct buf b;
    buf_init(&b, 64);
    int err = store_get(s, STORE_META, key_span(&k), &b);
    if (err == ERR_OK && buf_len(&b) != 8)
        err = store_corrupt(s, STORE_META, key_span(&k));
    if (err == ERR_OK)
        *value = key_get_u64(buf_span(&b), 0);
    buf_deinit(&b);
    return err;
}

int queue_get_envelope(struct store *s, uint32_t shard, uint64_t id, struct arena *a, Words__Envelope **e) {
    struct key k = key_message(shard, id);
    struct buf b;
    buf_init(&b, RECORD_MAX);
    int err = store_get(s, STORE_ENVELOPE, key_span(&k), &b);
    if (err == ERR_OK) {
        *e = frame_unpack(&words__envelope__descriptor, buf_span(&b), a);
        if (!*e || (*e)->n_recipients == 0)
            err = store_corrupt(s, STORE_ENVELOPE, key_span(&k));
    }
    buf_deinit(&b);
    return err;
}

static struct key after_message(uint32_t shard, uint64_t id) {
    return id == UINT64_MAX ? key_shard(shard + 1) : key_message(shard, id + 1);
}

int queue_get_states(struct store *s, uint32_t shard, uint64_t id, uint32_t count, struct arena *a,
                     Words__RecipientState ***states) {
    struct key from = key_message(shard, id), to = after_message(shard, id);
    struct store_iter *it;
    struct span key, value;
    *states = arena_calloc(a, count, sizeof(Words__RecipientState *));
    if (!*states)
        return ERR_NOMEM;
    int err = store_iter_open(&it, s, STORE_RECIPIENT, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    while (err == ERR_OK && store_iter_next(it, &key, &value)) {
        uint32_t n = key.len == 14 ? key_get_u32(key, 10) : UINT32_MAX;
        Words__RecipientState *state = n < count ? frame_unpack(&words__recipient_state__descriptor, value, a) : NULL;
        if (state)
            (*states)[n] = state;
        else
            err = store_corrupt(s, STORE_RECIPIENT, key);
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    return err;
}

int queue_get_message(struct store *s, uint32_t shard, uint64_t id, struct arena *a, Words__Envelope **e,
                      Words__RecipientState ***states) {
    int err = queue_get_envelope(s, shard, id, a, e);
    return err == ERR_OK ? queue_get_states(s, shard, id, (uint32_t)(*e)->n_recipients, a, states) : err;
}

int queue_get_chunk(struct store *s, uint32_t shard, uint64_t id, uint32_t number, struct buf *to) {
    if (number > 0xffffu)
        return ERR_NOT_FOUND;
    struct key k = key_chunk(shard, id, number);
    return store_get(s, STORE_BODY, key_span(&k), to);
}

int queue_get_submission(struct store *s, uint32_t shard, struct span submission, uint64_t now_ms, uint64_t *id) {
    uint32_t hour = key_hour_of(now_ms);
    int err = ERR_NOT_FOUND;
    struct buf b;
    buf_init(&b, 64);
    for (uint32_t i = 0; i <= 48 && i <= hour && err == ERR_NOT_FOUND; i++) {
        struct key k = key_submission(shard, hour - i, submission);
        err = store_get(s, STORE_SUBMISSION, key_span(&k), &b);
        if (err == ERR_OK && buf_len(&b) != 8)
            err = store_corrupt(s, STORE_SUBMISSION, key_span(&k));
        if (err == ERR_OK)
            *id = key_get_u64(buf_span(&b), 0);
    }
    buf_deinit(&b);
    return err;
}

static int due_start(struct store *s, uint32_t shard, const struct queue_due_cursor *at, struct key *from) {
    if (at->len) {
        from->len = at->len;
        memcpy(from->at, at->key, at->len);
        return ERR_OK;
    }
    uint64_t watermark_ms = 0;
    int err = queue_get_number(s, shard, QUEUE_DUE_WATERMARK, &watermark_ms);
    *from = key_due_minute(shard, key_minute(watermark_ms));
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

int queue_read_due(struct store *s, uint32_t shard, uint64_t until_ms, struct queue_due_cursor *at,
                   struct queue_due *to, size_t max, size_t *count) {
    struct key from, end = key_due_minute(shard, key_minute(until_ms) + 1);
    struct store_iter *it;
    struct span key;
    *count = 0;
    int err = due_start(s, shard, at, &from);
    if (err == ERR_OK && span_cmp(key_span(&from), key_span(&end)) >= 0)
        return ERR_OK;
    if (err == ERR_OK)
        err = store_iter_open(&it, s, STORE_DUE, key_span(&from), key_span(&end));
    if (err != ERR_OK)
        return err;
    while (*count < max && store_iter_next(it, &key, NULL)) {
        uint32_t minute, index;
        uint64_t id;
        if (!key_read_due(key, &minute, &id, &index)) {
            err = store_corrupt(s, STORE_DUE, key);
            break;
        }
        to[(*count)++] = (struct queue_due){minute, id, index};
        /* the cursor stands just behind this key */
        memcpy(at->key, key.at, key.len);
        at->key[key.len] = 0;
        at->len = key.len + 1;
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    return err;
}

int queue_read_ids(struct store *s, uint32_t shard, uint64_t after, uint64_t upto, uint64_t *to, size_t max,
                   size_t *count) {
    struct key from = after_message(shard, after), end = after_message(shard, upto);
    struct store_iter *it;
    struct span key;
    *count = 0;
    if (after >= upto)
        return ERR_OK;
    int err = store_iter_open(&it, s, STORE_ENVELOPE, key_span(&from), key_span(&end));
    if (err != ERR_OK)
        return err;
    while (err == ERR_OK && *count < max && store_iter_next(it, &key, NULL)) {
        if (key.len != 10)
            err = store_corrupt(s, STORE_ENVELOPE, key);
        else
            to[(*count)++] = key_get_u64(key, 2);
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    return err;
}

int queue_each_inflight(struct store *s, uint32_t shard,
                        void (*each)(void *arg, uint64_t attempt, const Words__Inflight *r), void *arg) {
    struct key from = key_shard(shard), to = key_shard(shard + 1);
    struct store_iter *it;
    struct span key, value;
    struct arena mem;
    int err = store_iter_open(&it, s, STORE_INFLIGHT, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    arena_init(&mem, 4096, RECORD_MAX);
    while (err == ERR_OK && store_iter_next(it, &key, &value)) {
        Words__Inflight *r = key.len == 10 ? frame_unpack(&words__inflight__descriptor, value, &mem) : NULL;
        if (r)
            each(arg, key_get_u64(key, 2), r);
        else
            err = store_corrupt(s, STORE_INFLIGHT, key);
        arena_reset(&mem);
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    arena_deinit(&mem);
    return err;
}

int queue_each_trace(struct store *s, uint32_t shard, uint64_t id, uint64_t now_ms,
                     void (*each)(void *arg, const Words__Trace *t), void *arg) {
    struct key from = key_shard(shard), to = key_shard(shard + 1);
    struct store_iter *it;
    struct span key, value;
    struct arena mem;
    int err = store_iter_open(&it, s, STORE_TRACE, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    arena_init(&mem, 4096, RECORD_MAX);
    uint32_t hour = key_hour_of(id_ms(id)), last = key_hour_of(now_ms);
    for (hour = hour ? hour - 1 : 0; err == ERR_OK && hour <= last; hour++) {
        struct key first = key_trace(shard, hour, id, 0);
        struct span prefix = span_first(key_span(&first), 14);
        store_iter_seek(it, key_span(&first));
        bool more = store_iter_next(it, &key, &value);
        for (; more && key.len == 18 && span_eq(span_first(key, 14), prefix);
             more = store_iter_next(it, &key, &value)) {
            Words__Trace *t = frame_unpack(&words__trace__descriptor, value, &mem);
            if (!t) {
                err = store_corrupt(s, STORE_TRACE, key);
                break;
            }
            each(arg, t);
            arena_reset(&mem);
        }
        if (!more)
            break;
        uint32_t found = key.len >= 6 ? key_get_u32(key, 2) : 0; /* hours without traces are passed over */
        if (found > hour + 1)
            hour = found - 1;
    }
    if (err == ERR_OK)
        err = store_iter_error(it);
    store_iter_close(it);
    arena_deinit(&mem);
    return err;
}

int queue_clean_chunks(struct store *s, uint32_t shard, uint64_t *dropped) {
    struct key from = key_meta(shard, KEY_TAG_STAGED), to = key_meta(shard, (enum key_tag)(KEY_TAG_STAGED + 1));
    struct store_iter *it;
    struct span key, value;
    *dropped = 0;
    int err = store_iter_open(&it, s, STORE_META, key_span(&from), key_span(&to));
    if (err != ERR_OK)
        return err;
    struct store_batch *b = store_batch_new();
    while (b && err == ERR_OK && store_iter_next(it, &key, &value)) {
        if (key.len != 11 || value.len != 8) {
            err = store_corrupt(s, STORE_META, key);
            break;
        }
        uint64_t count = key_get_u64(value, 0);
        queue_drop_chunks(b, shard, key_get_u64(key, 3), count > 0xffffu ? 0xffffu : (uint32_t)count);
        ++*dropped;
    }
    if (err == ERR_OK)
        err = b ? store_iter_error(it) : ERR_NOMEM;
    store_iter_close(it);
    if (err == ERR_OK && *dropped)
        err = store_write(s, b, true);
    store_batch_free(b);
    return err;
}
