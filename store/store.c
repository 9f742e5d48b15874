/*
 * store: calls of the contract go to the backend that was opened.
 */
#include "base/log.h"
#include "store/backend.h"

const char *store_family_name(enum store_family f) {
    static const char *const names[STORE_FAMILIES] = {"meta", "envelope", "body",  "recipient",
                                                      "due",  "inflight", "trace", "submission"};
    return f < STORE_FAMILIES ? names[f] : "?";
}

void store_close(struct store *s) {
    if (s)
        s->ops->close(s);
}

int store_reopen(struct store *s, struct store_report *report) {
    return s->ops->reopen(s, report);
}

int store_write(struct store *s, const struct store_batch *b, bool sync) {
    return store_write_all(s, &b, 1, sync);
}

int store_write_all(struct store *s, const struct store_batch *const *batches, size_t count, bool sync) {
    for (size_t i = 0; i < count; i++)
        if (store_batch_error(batches[i]) != ERR_OK)
            return ERR_NOMEM;
    return s->ops->write(s, batches, count, sync);
}

int store_get(struct store *s, enum store_family f, struct span key, struct buf *to) {
    return s->ops->get(s, f, key, to);
}

int store_iter_open(struct store_iter **it, struct store *s, enum store_family f, struct span from, struct span to) {
    return s->ops->iter_open(it, s, f, from, to, false);
}

int store_iter_open_once(struct store_iter **it, struct store *s, enum store_family f, struct span from,
                         struct span to) {
    return s->ops->iter_open(it, s, f, from, to, true);
}

bool store_iter_next(struct store_iter *it, struct span *key, struct span *value) {
    return it->ops->next(it, key, value);
}

int store_iter_error(const struct store_iter *it) {
    return it->ops->error(it);
}

void store_iter_seek(struct store_iter *it, struct span key) {
    it->ops->seek(it, key);
}

void store_iter_close(struct store_iter *it) {
    if (it)
        it->ops->close(it);
}

bool store_is_damaged(const struct store *s) {
    return atomic_load(&s->damaged);
}

void store_note_damage(struct store *s) {
    atomic_store(&s->damaged, true);
}

int store_corrupt(struct store *s, enum store_family f, struct span key) {
    store_note_damage(s);
    LOG_ERROR("record_corrupt", LOG_STR("family", store_family_name(f)), LOG_SPAN("key", key));
    return ERR_CORRUPT;
}

bool store_has_room(struct store *s, uint64_t more) {
    return s->ops->has_room(s, more);
}

void store_stats(struct store *s, struct store_stats *out) {
    *out = (struct store_stats){0};
    s->ops->stats(s, out);
}
