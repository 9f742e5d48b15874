/*
 * cluster_books: the oracles of cluster.h and their books, and the disks, which they look at.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_BOOKS_H
#define TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_BOOKS_H

#include "tests/unit/scheduler/replica/cluster_world.h"

/* -- books -- */

static uint32_t made_batch(const struct cluster *w, uint64_t epoch, uint64_t number) {
    for (uint32_t i = 0; i < EPOCHS_PER_NUMBER; i++)
        if (w->made[number][i].epoch == epoch)
            return w->made[number][i].batch;
    return 0;
}

static void book_made(struct cluster *w, uint64_t epoch, uint64_t number, uint32_t batch) {
    if (number >= NUMBERS || epoch >= EPOCHS) {
        cluster_fail(w, "the world is too small: epoch %llu number %llu", (unsigned long long)epoch,
                     (unsigned long long)number);
        return;
    }
    if (made_batch(w, epoch, number)) {
        cluster_fail(w, "position %llu.%llu was given out twice", (unsigned long long)epoch,
                     (unsigned long long)number);
        return;
    }
    for (uint32_t i = 0; i < EPOCHS_PER_NUMBER; i++)
        if (!w->made[number][i].epoch) {
            w->made[number][i].epoch = epoch;
            w->made[number][i].batch = batch;
            return;
        }
    cluster_fail(w, "the world is too small: many epochs at number %llu", (unsigned long long)number);
}

/* The epoch that a mark's history gives to a number; 0: it has none. */
static uint64_t epoch_at(const struct replica_mark *m, uint64_t number) {
    uint64_t epoch = 0;
    if (number > m->last.number)
        return 0;
    for (uint32_t i = 0; i < m->history.count && m->history.at[i].first <= number; i++)
        epoch = m->history.at[i].epoch;
    return epoch;
}

static bool set_has(const struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node)
            return true;
    return false;
}

static void set_drop(struct replica_set *s, uint32_t node) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->nodes[i] == node)
            s->nodes[i--] = s->nodes[--s->count];
}

static void book_committed(struct cluster *w, struct wnode *x, uint64_t upto) {
    struct replica_status s;
    replica_status(x->r, w->now, &s);
    unsigned long long n = upto, e = s.epoch;
    if (s.epoch >= EPOCHS || upto >= NUMBERS)
        return cluster_fail(w, "the world is too small");
    if (w->epoch_leader[s.epoch] && w->epoch_leader[s.epoch] != x->id)
        return cluster_fail(w, "two commit in epoch %llu", e);
    w->epoch_leader[s.epoch] = x->id;
    if (s.epoch < w->newest_epoch)
        return cluster_fail(w, "%llu was committed in epoch %llu after a newer one began", n, e);
    uint64_t epoch = epoch_at(&x->disk.mark, upto);
    if (upto && !epoch)
        return cluster_fail(w, "node %u commits %llu that it has not synced", x->id, n);
    for (uint32_t i = 0; i < w->record.in_sync.count; i++) {
        struct wnode *y = &w->node[w->record.in_sync.nodes[i]];
        if (y->intact && (!y->disk.mark.complete || epoch_at(&y->disk.mark, upto) != epoch))
            return cluster_fail(w, "%llu.%llu was committed without member %u", (unsigned long long)epoch, n, y->id);
    }
    for (uint64_t i = 1; i <= upto; i++) {
        uint64_t of = epoch_at(&x->disk.mark, i);
        uint32_t batch = of ? made_batch(w, of, i) : 0; /* 0: its history is cut there */
        if (!batch)
            continue;
        if (w->committed_batch[i] && w->committed_batch[i] != batch)
            return cluster_fail(w, "number %llu was committed twice and differs", (unsigned long long)i);
        w->committed_batch[i] = batch;
        w->told[batch] = true;
        if (x->disk.kv[batch] != batch_hash(batch, 0))
            return cluster_fail(w, "batch %u is committed and not on the leader's disk", batch);
    }
    if (upto > w->committed)
        w->committed = upto;
    w->commits++;
}

static void book_lead(struct cluster *w, struct wnode *x) {
    for (uint32_t b = 1; b <= w->batches; b++)
        if (w->told[b] && x->disk.kv[b] != batch_hash(b, 0))
            return cluster_fail(w, "batch %u was committed, and node %u leads without it", b, x->id);
}

/* A replica that became leader has begun its epoch. */
static void check_leaders(struct cluster *w) {
    uint32_t leaders = 0;
    for (uint32_t i = 1; i <= w->count; i++) {
        struct replica_status s;
        if (!w->node[i].up || !replica_is_leader(w->node[i].r, w->now))
            continue;
        replica_status(w->node[i].r, w->now, &s);
        leaders++;
        if (s.epoch > w->newest_epoch)
            w->newest_epoch = s.epoch;
    }
    if (leaders > 1)
        cluster_fail(w, "%u lead at one time", leaders);
}

static void check_disks(struct cluster *w) {
    for (uint32_t i = 1; i <= w->count; i++)
        for (uint32_t k = i + 1; k <= w->count; k++) {
            struct disk *a = &w->node[i].disk, *b = &w->node[k].disk;
            if (a->mark.complete && b->mark.complete && a->mark.last.epoch == b->mark.last.epoch &&
                a->mark.last.number == b->mark.last.number && memcmp(a->kv, b->kv, sizeof a->kv) != 0)
                return cluster_fail(w, "nodes %u and %u are both at %llu.%llu and differ", i, k,
                                    (unsigned long long)a->mark.last.epoch, (unsigned long long)a->mark.last.number);
        }
}

/* -- disks -- */

static void kept_clear(struct disk *d) {
    for (uint32_t i = 0; i < NUMBERS; i++) {
        if (d->kept[i])
            replica_operation_release(d->kept[i]);
        d->kept[i] = NULL;
    }
}

static void write_free(struct wwrite *x) {
    if (x->operation)
        replica_operation_release(x->operation);
    free(x->octets);
}

static void write_apply(struct cluster *w, struct wnode *n, struct wwrite *x) {
    struct disk *d = &n->disk;
    if (x->kind == REPLICA_WIPE) {
        memset(d->kv, 0, sizeof d->kv);
        kept_clear(d);
        n->copied_to = 0;
    } else if (x->kind == REPLICA_WRITE_CHUNK) {
        uint32_t range[2];
        memcpy(range, x->octets, sizeof range);
        memcpy(&d->kv[range[0]], x->octets + sizeof range, (range[1] - range[0]) * sizeof d->kv[0]);
        n->copied_to = range[1];
    } else if (x->kind == REPLICA_WRITE) {
        batch_apply(d->kv, batch_of(x->operation), x->copying && w->skips ? n->copied_to : KEYS);
        if (w->keeps && x->operation->number < NUMBERS)
            d->kept[x->operation->number] = replica_operation_hold(x->operation);
    }
    struct replica_history history = x->with_history ? x->mark.history : d->mark.history;
    d->mark = x->mark;
    d->mark.history = history;
}

static struct wwrite *write_first(struct wnode *n) {
    return &n->writes[n->first_write % REPLICA_WRITES_MAX];
}

static void write_done(struct cluster *w, struct wnode *n, bool apply) {
    struct wwrite *x = write_first(n);
    if (apply)
        write_apply(w, n, x);
    write_free(x);
    n->first_write++;
    n->write_count--;
}

static void write_begin(struct cluster *w, struct wnode *n, const struct replica_action *a) {
    if (n->write_count == REPLICA_WRITES_MAX)
        return cluster_fail(w, "too many writes");
    struct wwrite *x = &n->writes[(n->first_write + n->write_count++) % REPLICA_WRITES_MAX];
    *x = (struct wwrite){.kind = a->kind,
                         .write = a->write.write,
                         .copying = a->write.copying,
                         .with_history = a->write.history != NULL,
                         .operation = a->write.operation ? replica_operation_hold(a->write.operation) : NULL};
    x->mark =
        (struct replica_mark){.promised = a->write.promised, .complete = a->write.complete, .last = a->write.last};
    if (a->write.history)
        x->mark.history = *a->write.history;
    if (a->kind == REPLICA_WRITE_CHUNK) {
        x->len = (uint32_t)a->write.octets.len;
        x->octets = copy_of(a->write.octets.at, x->len);
    }
    uint64_t at = w->now + 1 + dice(w, 6) + (n->disk_slow_ms ? dice(w, n->disk_slow_ms) : 0);
    n->disk_free_at = at > n->disk_free_at ? at : n->disk_free_at;
    heap_put(w, event_new(w, W_DISK, n->id, n->disk_free_at - w->now));
}

#endif
