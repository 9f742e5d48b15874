/*
 * memory: see memory.h. Each family is a sorted array of entries. Every write since the last sync has an undo list, newest
 * first, so that a crash takes back exactly what was not synced.
 */
#include "store/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/backend.h"

struct entry {
    size_t key_len, value_len;
    char bytes[]; /* key, value */
};
struct family {
    struct entry **entries;
    size_t count, cap;
};
struct undo {
    struct undo *next;
    enum store_family family;
    struct entry *old; /* NULL: there was none */
    size_t key_len;
    char key[];
};
struct unsynced {
    struct undo *undo;
};
struct memory {
    struct store store;
    struct family families[STORE_FAMILIES];
    struct unsynced *unsynced; /* oldest first */
    size_t unsynced_count, unsynced_cap;
    unsigned fail_count, fail_reopen;
    int fail_err;
    bool fail_applied, broken, no_room;
};
struct memory_iter {
    struct store_iter iter;
    struct memory *m;
    enum store_family family;
    struct buf at, end; /* next key to look for, and the bound */
    struct buf key, value;
};

static struct span entry_key(const struct entry *e) {
    return span_make(e->bytes, e->key_len);
}

static struct span entry_value(const struct entry *e) {
    return span_make(e->bytes + e->key_len, e->value_len);
}

/* The first entry with a key >= key. */
static size_t lower_bound(const struct family *f, struct span key) {
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (span_cmp(entry_key(f->entries[mid]), key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct entry *entry_new(struct span key, struct span value) {
    struct entry *e = malloc(sizeof *e + key.len + value.len);
    CHECK(e);
    e->key_len = key.len;
    e->value_len = value.len;
    memcpy(e->bytes, key.at, key.len);
    if (value.len)
        memcpy(e->bytes + key.len, value.at, value.len);
    return e;
}

/* Puts e (NULL: removes) at key and returns what was there. */
static struct entry *exchange(struct family *f, struct span key, struct entry *e) {
    size_t i = lower_bound(f, key);
    bool there = i < f->count && span_eq(entry_key(f->entries[i]), key);
    struct entry *old = there ? f->entries[i] : NULL;
    if (there && e) {
        f->entries[i] = e;
    } else if (there) {
        memmove(f->entries + i, f->entries + i + 1, (--f->count - i) * sizeof(struct entry *));
    } else if (e) {
        if (f->count == f->cap) {
            f->cap = f->cap ? f->cap * 2 : 256;
            f->entries = realloc(f->entries, f->cap * sizeof(struct entry *));
            CHECK(f->entries);
        }
        memmove(f->entries + i + 1, f->entries + i, (f->count++ - i) * sizeof(struct entry *));
        f->entries[i] = e;
    }
    return old;
}

static void change(struct memory *m, struct unsynced *u, enum store_family f, struct span key, struct entry *e) {
    struct undo *n = malloc(sizeof *n + key.len);
    CHECK(n);
    n->family = f;
    n->key_len = key.len;
    memcpy(n->key, key.at, key.len);
    n->old = exchange(&m->families[f], key, e);
    n->next = u->undo;
    u->undo = n;
}

static void apply(struct memory *m, const struct store_batch *b) {
    if (m->unsynced_count == m->unsynced_cap) {
        m->unsynced_cap = m->unsynced_cap ? m->unsynced_cap * 2 : 16;
        m->unsynced = realloc(m->unsynced, m->unsynced_cap * sizeof *m->unsynced);
        CHECK(m->unsynced);
    }
    struct unsynced *u = &m->unsynced[m->unsynced_count++];
    struct batch_entry e;
    u->undo = NULL;
    for (size_t at = 0; store_batch_next(b, &at, &e);) {
        struct family *f = &m->families[e.family];
        if (e.op == BATCH_PUT) {
            change(m, u, e.family, e.key, entry_new(e.key, e.value));
        } else if (e.op != BATCH_DELETE_RANGE) {
            change(m, u, e.family, e.key, NULL);
        } else {
            for (size_t i = lower_bound(f, e.key); i < f->count && span_cmp(entry_key(f->entries[i]), e.value) < 0;)
                change(m, u, e.family, entry_key(f->entries[i]), NULL);
        }
    }
}

static void synced(struct memory *m) {
    for (size_t i = 0; i < m->unsynced_count; i++)
        for (struct undo *n = m->unsynced[i].undo, *next; n; n = next) {
            next = n->next;
            free(n->old);
            free(n);
        }
    m->unsynced_count = 0;
}

size_t store_memory_crash(struct store *s, size_t keep) {
    struct memory *m = (struct memory *)s;
    size_t count = m->unsynced_count;
    while (m->unsynced_count > keep) {
        struct unsynced *u = &m->unsynced[--m->unsynced_count];
        for (struct undo *n = u->undo, *next; n; n = next) {
            next = n->next;
            free(exchange(&m->families[n->family], span_make(n->key, n->key_len), n->old));
            free(n);
        }
    }
    synced(m); /* what the disk kept by itself is there for good */
    m->broken = false;
    return count;
}

static int memory_write(struct store *s, const struct store_batch *b, bool sync) {
    struct memory *m = (struct memory *)s;
    if (m->broken)
        return ERR_IO;
    bool fails = m->fail_count > 0;
    if (!fails || m->fail_applied)
        apply(m, b);
    if (fails) {
        m->fail_count--;
        m->broken = true;
        return m->fail_err;
    }
    if (sync)
        synced(m);
    return ERR_OK;
}

static int memory_get(struct store *s, enum store_family f, struct span key, struct buf *to) {
    struct memory *m = (struct memory *)s;
    if (m->broken)
        return ERR_IO;
    const struct family *fam = &m->families[f];
    size_t i = lower_bound(fam, key);
    if (i == fam->count || !span_eq(entry_key(fam->entries[i]), key))
        return ERR_NOT_FOUND;
    return buf_add(to, entry_value(fam->entries[i]));
}

static int memory_reopen(struct store *s, struct store_report *report) {
    struct memory *m = (struct memory *)s;
    *report = (struct store_report){.schema = 1};
    if (m->fail_reopen) {
        m->fail_reopen--;
        return ERR_IO;
    }
    m->broken = false;
    return ERR_OK;
}

static bool memory_has_room(struct store *s, uint64_t more) {
    (void)more;
    return !((struct memory *)s)->no_room;
}

static void memory_stats(struct store *s, struct store_stats *out) {
    (void)s;
    (void)out;
}

static void memory_close(struct store *s) {
    struct memory *m = (struct memory *)s;
    synced(m);
    for (int f = 0; f < STORE_FAMILIES; f++) {
        for (size_t i = 0; i < m->families[f].count; i++)
            free(m->families[f].entries[i]);
        free(m->families[f].entries);
    }
    free(m->unsynced);
    free(m);
}

/* -- iterators: positions are keys, so that writes between two steps do no harm -- */

static bool iter_next(struct store_iter *iter, struct span *key, struct span *value) {
    struct memory_iter *it = (struct memory_iter *)iter;
    struct family *f = &it->m->families[it->family];
    size_t i = lower_bound(f, buf_span(&it->at));
    if (it->m->broken || i == f->count || span_cmp(entry_key(f->entries[i]), buf_span(&it->end)) >= 0)
        return false;
    buf_clear(&it->key);
    buf_clear(&it->value);
    buf_clear(&it->at);
    buf_add(&it->key, entry_key(f->entries[i]));
    buf_add(&it->value, entry_value(f->entries[i]));
    buf_add(&it->at, entry_key(f->entries[i]));
    buf_add_byte(&it->at, 0);
    *key = buf_span(&it->key);
    if (value)
        *value = buf_span(&it->value);
    return true;
}

static int iter_error(const struct store_iter *iter) {
    return ((const struct memory_iter *)iter)->m->broken ? ERR_IO : ERR_OK;
}

static void iter_seek(struct store_iter *iter, struct span key) {
    struct memory_iter *it = (struct memory_iter *)iter;
    buf_clear(&it->at);
    buf_add(&it->at, key);
}

static void iter_close(struct store_iter *iter) {
    struct memory_iter *it = (struct memory_iter *)iter;
    buf_deinit(&it->at);
    buf_deinit(&it->end);
    buf_deinit(&it->key);
    buf_deinit(&it->value);
    free(it);
}

static int memory_iter_open(struct store_iter **out, struct store *s, enum store_family f, struct span from,
                            struct span to) {
    static const struct store_iter_ops ops = {iter_next, iter_error, iter_seek, iter_close};
    struct memory_iter *it = calloc(1, sizeof *it);
    if (!it)
        return ERR_NOMEM;
    it->iter.ops = &ops;
    it->m = (struct memory *)s;
    it->family = f;
    buf_init(&it->at, SIZE_MAX / 2);
    buf_init(&it->end, SIZE_MAX / 2);
    buf_init(&it->key, SIZE_MAX / 2);
    buf_init(&it->value, SIZE_MAX / 2);
    buf_add(&it->at, from);
    buf_add(&it->end, to);
    *out = &it->iter;
    return ERR_OK;
}

/* -- the test's knobs -- */

int store_memory_open(struct store **s) {
    static const struct store_ops ops = {.close = memory_close, .reopen = memory_reopen, .write = memory_write,
                                         .get = memory_get, .iter_open = memory_iter_open,
                                         .has_room = memory_has_room, .stats = memory_stats};
    struct memory *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->store.ops = &ops;
    *s = &m->store;
    return ERR_OK;
}

size_t store_memory_unsynced(const struct store *s) {
    return ((const struct memory *)s)->unsynced_count;
}

void store_memory_fail(struct store *s, unsigned count, int err, bool applied) {
    struct memory *m = (struct memory *)s;
    m->fail_count = count;
    m->fail_err = err;
    m->fail_applied = applied;
}

void store_memory_fail_reopen(struct store *s, unsigned count) {
    ((struct memory *)s)->fail_reopen = count;
}

void store_memory_set_room(struct store *s, bool room) {
    ((struct memory *)s)->no_room = !room;
}

size_t store_memory_count(const struct store *s, enum store_family f) {
    return ((const struct memory *)s)->families[f].count;
}
