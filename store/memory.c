/*
 * memory: see memory.h. Each family is a skip list of keys; each key has its versions, newest first. A batch is one
 * number; a version belongs to the batch that wrote it.
 *
 * That one mechanism serves both needs: an iterator sees the versions up to the number at which it was opened, and a
 * crash takes away all versions after the number that was synced. Versions that neither a snapshot nor a crash can ask
 * for are freed in the order in which they were written (`touched`).
 *
 * Out of memory is a CHECK here: it is a test's backend.
 */
#include "store/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/rand.h"
#include "store/backend.h"

#define LEVELS 16

struct version {
    struct version *older;
    uint64_t number;
    bool dead;
    size_t len;
    char bytes[];
};
struct node {
    struct version *now;
    char *key;
    size_t key_len;
    struct node *next[]; /* as many as the node's height */
};
struct family {
    struct node *head[LEVELS];
    size_t live;
};
struct touched {
    struct node *node;
    enum store_family family;
    uint64_t number;
};
struct memory {
    struct store store;
    pthread_mutex_t lock;
    struct family families[STORE_FAMILIES];
    struct touched *touched; /* [first, count) */
    size_t touched_first, touched_count, touched_cap;
    uint64_t number, synced; /* of the last batch, of the last synced one */
    struct memory_iter *iters;
    struct rand rand;
    size_t rewrites;
    unsigned fail_count, fail_reopen;
    int fail_err;
    bool fail_applied, broken, no_room;
};
struct memory_iter {
    struct store_iter iter;
    struct memory_iter *next, *prev;
    struct memory *m;
    enum store_family family;
    uint64_t number; /* of the snapshot */
    struct node *at; /* visible in the snapshot, so that it stays; NULL: at the end */
    bool started;    /* `at` was handed out */
    struct buf end;
};

static struct span node_key(const struct node *n) {
    return span_make(n->key, n->key_len);
}

/* The first node with a key >= key; before[i] gets the link to it on each level. */
static struct node *find(struct family *f, struct span key, struct node **before[LEVELS]) {
    struct node **links = f->head;
    for (int i = LEVELS - 1; i >= 0; i--) {
        while (links[i] && span_cmp(node_key(links[i]), key) < 0)
            links = links[i]->next;
        before[i] = &links[i];
    }
    return *before[0];
}

static struct node *lower_bound(struct family *f, struct span key) {
    struct node **before[LEVELS];
    return find(f, key, before);
}

static struct node *node_new(struct memory *m, struct span key, struct node **before[LEVELS]) {
    int height = 1;
    for (uint64_t r = rand_u64(&m->rand); height < LEVELS && (r & 3) == 0; r >>= 2)
        height++;
    struct node *n = calloc(1, sizeof *n + (size_t)height * sizeof(struct node *));
    CHECK(n);
    n->key = malloc(key.len);
    CHECK(n->key);
    memcpy(n->key, key.at, key.len);
    n->key_len = key.len;
    for (int i = 0; i < height; i++) {
        n->next[i] = *before[i];
        *before[i] = n;
    }
    return n;
}

static void unlink_node(struct family *f, struct node *n) {
    struct node **before[LEVELS];
    CHECK(find(f, node_key(n), before) == n);
    for (int i = 0; i < LEVELS && *before[i] == n; i++)
        *before[i] = n->next[i];
    free(n->key);
    free(n);
}

static void free_versions(struct version *v) {
    for (struct version *older; v; v = older) {
        older = v->older;
        free(v);
    }
}

static bool is_live(const struct node *n) {
    return n->now && !n->now->dead;
}

/* Frees what nobody can ask for any more. */
static void prune(struct memory *m) {
    uint64_t horizon = m->synced;
    for (const struct memory_iter *it = m->iters; it; it = it->next)
        if (it->number < horizon)
            horizon = it->number;
    while (m->touched_first < m->touched_count && m->touched[m->touched_first].number <= horizon) {
        struct touched *t = &m->touched[m->touched_first++];
        struct version *v = t->node->now;
        while (v->number > horizon)
            v = v->older;
        free_versions(v->older);
        v->older = NULL;
        if (v == t->node->now && v->dead && v->number == t->number) {
            unlink_node(&m->families[t->family], t->node);
            free(v);
        }
    }
    if (m->touched_first == m->touched_count) {
        m->touched_first = m->touched_count = 0;
    } else if (m->touched_first > 4096 && m->touched_first > m->touched_count / 2) {
        m->touched_count -= m->touched_first;
        memmove(m->touched, m->touched + m->touched_first, m->touched_count * sizeof *m->touched);
        m->touched_first = 0;
    }
}

static void touch(struct memory *m, enum store_family f, struct node *n) {
    if (m->touched_count == m->touched_cap) {
        m->touched_cap = m->touched_cap ? m->touched_cap * 2 : 256;
        m->touched = realloc(m->touched, m->touched_cap * sizeof *m->touched);
        CHECK(m->touched);
    }
    m->touched[m->touched_count++] = (struct touched){n, f, m->number};
}

/* Gives a key a new version; value.at NULL and dead: removed. */
static void change(struct memory *m, enum store_family f, struct node *n, struct span value, bool dead) {
    struct version *v = malloc(sizeof *v + value.len);
    CHECK(v);
    *v = (struct version){.older = n->now, .number = m->number, .dead = dead, .len = value.len};
    if (value.len)
        memcpy(v->bytes, value.at, value.len);
    m->families[f].live += (size_t)!dead - (size_t)is_live(n);
    if (n->now && n->now->number == m->number) { /* the same batch changed it before */
        v->older = n->now->older;
        free(n->now);
    } else {
        touch(m, f, n);
    }
    n->now = v;
}

static bool is_written_once(enum store_family f) {
    return f == STORE_ENVELOPE || f == STORE_BODY || f == STORE_INFLIGHT;
}

static void apply_one(struct memory *m, const struct batch_entry *e) {
    struct family *f = &m->families[e->family];
    struct node **before[LEVELS], *n = find(f, e->key, before);
    if (e->op == BATCH_DELETE_RANGE) {
        for (; n && span_cmp(node_key(n), e->value) < 0; n = n->next[0])
            if (is_live(n))
                change(m, e->family, n, SPAN_EMPTY, true);
        return;
    }
    bool there = n && span_eq(node_key(n), e->key);
    if (e->op == BATCH_PUT) {
        if (there && is_live(n) && is_written_once(e->family))
            m->rewrites++;
        change(m, e->family, there ? n : node_new(m, e->key, before), e->value, false);
    } else if (there && is_live(n)) {
        change(m, e->family, n, SPAN_EMPTY, true);
    }
}

static void apply(struct memory *m, const struct store_batch *const *batches, size_t count) {
    struct batch_entry e;
    m->number++;
    for (size_t i = 0; i < count; i++)
        for (size_t at = 0; store_batch_next(batches[i], &at, &e);)
            apply_one(m, &e);
}

static int memory_write(struct store *s, const struct store_batch *const *batches, size_t count, bool sync) {
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    bool fails = !m->broken && m->fail_count > 0;
    int err = m->broken ? ERR_IO : fails ? m->fail_err : ERR_OK;
    if (err == ERR_OK || (fails && err != ERR_NOMEM && m->fail_applied))
        apply(m, batches, count);
    if (fails) {
        m->fail_count--;
        m->broken = err != ERR_NOMEM;
    }
    if (err == ERR_OK && sync) {
        m->synced = m->number;
        prune(m);
    }
    pthread_mutex_unlock(&m->lock);
    return err;
}

static const struct version *visible(const struct node *n, uint64_t number) {
    const struct version *v = n->now;
    while (v && v->number > number)
        v = v->older;
    return v && !v->dead ? v : NULL;
}

static int memory_get(struct store *s, enum store_family f, struct span key, struct buf *to) {
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    const struct node *n = lower_bound(&m->families[f], key);
    const struct version *v = n && span_eq(node_key(n), key) ? visible(n, m->number) : NULL;
    int err = m->broken ? ERR_IO : v ? buf_append(to, v->bytes, v->len) : ERR_NOT_FOUND;
    pthread_mutex_unlock(&m->lock);
    return err;
}

static int memory_reopen(struct store *s, struct store_report *report) {
    struct memory *m = (struct memory *)s;
    *report = (struct store_report){.schema = 1};
    pthread_mutex_lock(&m->lock);
    int err = m->fail_reopen ? ERR_IO : ERR_OK;
    if (m->fail_reopen)
        m->fail_reopen--;
    else
        m->broken = false;
    pthread_mutex_unlock(&m->lock);
    return err;
}

static bool memory_has_room(struct store *s, uint64_t more) {
    struct memory *m = (struct memory *)s;
    (void)more;
    pthread_mutex_lock(&m->lock);
    bool room = !m->no_room;
    pthread_mutex_unlock(&m->lock);
    return room;
}

static void memory_stats(struct store *s, struct store_stats *out) {
    (void)s;
    (void)out;
}

static void memory_why(struct store *s, char *to, size_t size) {
    (void)s;
    if (size)
        to[0] = '\0';
}

static void memory_close(struct store *s) {
    struct memory *m = (struct memory *)s;
    CHECK(!m->iters);
    for (int f = 0; f < STORE_FAMILIES; f++)
        for (struct node *n = m->families[f].head[0], *next; n; n = next) {
            next = n->next[0];
            free_versions(n->now);
            free(n->key);
            free(n);
        }
    free(m->touched);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* -- iterators -- */

/* Stands on the first node from n on that the snapshot sees. Under the lock. */
static void stand_on(struct memory_iter *it, struct node *n) {
    while (n && span_cmp(node_key(n), buf_span(&it->end)) < 0 && !visible(n, it->number))
        n = n->next[0];
    it->at = n && span_cmp(node_key(n), buf_span(&it->end)) < 0 ? n : NULL;
}

static bool iter_next(struct store_iter *iter, struct span *key, struct span *value) {
    struct memory_iter *it = (struct memory_iter *)iter;
    pthread_mutex_lock(&it->m->lock);
    if (it->at && it->started)
        stand_on(it, it->at->next[0]);
    it->started = true;
    bool more = it->at && !it->m->broken;
    if (more) {
        const struct version *v = visible(it->at, it->number);
        *key = node_key(it->at);
        if (value)
            *value = span_make(v->bytes, v->len);
    }
    pthread_mutex_unlock(&it->m->lock);
    return more;
}

static int iter_error(const struct store_iter *iter) {
    struct memory *m = ((const struct memory_iter *)iter)->m;
    pthread_mutex_lock(&m->lock);
    int err = m->broken ? ERR_IO : ERR_OK;
    pthread_mutex_unlock(&m->lock);
    return err;
}

static void iter_seek(struct store_iter *iter, struct span key) {
    struct memory_iter *it = (struct memory_iter *)iter;
    pthread_mutex_lock(&it->m->lock);
    stand_on(it, lower_bound(&it->m->families[it->family], key));
    it->started = false;
    pthread_mutex_unlock(&it->m->lock);
}

static void iter_close(struct store_iter *iter) {
    struct memory_iter *it = (struct memory_iter *)iter;
    struct memory *m = it->m;
    pthread_mutex_lock(&m->lock);
    *(it->prev ? &it->prev->next : &m->iters) = it->next;
    if (it->next)
        it->next->prev = it->prev;
    prune(m);
    pthread_mutex_unlock(&m->lock);
    buf_deinit(&it->end);
    free(it);
}

static int memory_iter_open(struct store_iter **out, struct store *s, enum store_family f, struct span from,
                            struct span to, bool once) {
    (void)once;
    static const struct store_iter_ops ops = {iter_next, iter_error, iter_seek, iter_close};
    struct memory *m = (struct memory *)s;
    struct memory_iter *it = calloc(1, sizeof *it);
    CHECK(it);
    it->iter.ops = &ops;
    it->m = m;
    it->family = f;
    buf_init(&it->end, SIZE_MAX / 2);
    CHECK(buf_add(&it->end, to) == ERR_OK);
    pthread_mutex_lock(&m->lock);
    it->number = m->number;
    stand_on(it, lower_bound(&m->families[f], from));
    it->next = m->iters;
    if (it->next)
        it->next->prev = it;
    m->iters = it;
    pthread_mutex_unlock(&m->lock);
    *out = &it->iter;
    return ERR_OK;
}

/* -- the test's knobs -- */

int store_memory_open(struct store **s) {
    static const struct store_ops ops = {.close = memory_close,
                                         .reopen = memory_reopen,
                                         .write = memory_write,
                                         .get = memory_get,
                                         .iter_open = memory_iter_open,
                                         .has_room = memory_has_room,
                                         .stats = memory_stats,
                                         .why = memory_why};
    struct memory *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->store.ops = &ops;
    rand_init(&m->rand, 1);
    pthread_mutex_init(&m->lock, NULL);
    *s = &m->store;
    return ERR_OK;
}

/* Takes back every batch after `last`, newest first. */
static void take_back(struct memory *m, uint64_t last) {
    while (m->touched_count > m->touched_first && m->touched[m->touched_count - 1].number > last) {
        struct touched t = m->touched[--m->touched_count];
        struct version *v = t.node->now;
        struct family *f = &m->families[t.family];
        f->live -= (size_t)is_live(t.node);
        t.node->now = v->older;
        f->live += (size_t)is_live(t.node);
        free(v);
        if (!t.node->now)
            unlink_node(f, t.node);
    }
}

size_t store_memory_crash(struct store *s, size_t keep) {
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    CHECK(!m->iters);
    size_t count = (size_t)(m->number - m->synced);
    if (keep < count) {
        take_back(m, m->synced + keep);
        m->number = m->synced + keep;
    }
    m->synced = m->number; /* what the disk kept by itself is there for good */
    prune(m);
    m->broken = false;
    m->fail_count = m->fail_reopen = 0;
    pthread_mutex_unlock(&m->lock);
    return count;
}

size_t store_memory_crash_seeded(struct store *s, uint64_t seed) {
    struct rand r;
    size_t unsynced = store_memory_unsynced(s);
    rand_init(&r, seed);
    size_t keep = (size_t)rand_below(&r, unsynced + 1);
    return store_memory_crash(s, keep) - keep;
}

size_t store_memory_unsynced(const struct store *s) {
    const struct memory *m = (const struct memory *)s;
    return (size_t)(m->number - m->synced);
}

void store_memory_fail(struct store *s, unsigned count, int err, bool applied) {
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    m->fail_count = count;
    m->fail_err = err;
    m->fail_applied = applied;
    pthread_mutex_unlock(&m->lock);
}

void store_memory_fail_reopen(struct store *s, unsigned count) {
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    m->fail_reopen = count;
    pthread_mutex_unlock(&m->lock);
}

void store_memory_set_room(struct store *s, bool room) {
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    m->no_room = !room;
    pthread_mutex_unlock(&m->lock);
}

size_t store_memory_count(const struct store *s, enum store_family f) {
    return ((const struct memory *)s)->families[f].live;
}

size_t store_memory_rewrites(const struct store *s) {
    return ((const struct memory *)s)->rewrites;
}
