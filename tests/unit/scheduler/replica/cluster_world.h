/*
 * cluster_world: the memory of the world of cluster.h, its events in time, and what a batch does to the data.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_WORLD_H
#define TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_WORLD_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rand.h"
#include "scheduler/replica/replica.h"

#define NODES_MAX 5u
#define BATCHES 1500u
#define SHARED 24u
#define KEYS (BATCHES + SHARED)
#define CHUNK_KEYS 220u
#define NUMBERS 2048u
#define EPOCHS_PER_NUMBER 12u
#define EPOCHS 1024u
#define TTL_MS 800u
#define CHAOS_MS 12000u
#define HEAL_MS 9000u

struct disk {
    struct replica_mark mark;
    uint64_t kv[KEYS];
    struct replica_operation *kept[NUMBERS]; /* when the owner keeps operations */
};
struct wwrite { /* on its way to the disk */
    enum replica_action_kind kind;
    uint64_t write;
    struct replica_mark mark;
    bool with_history, copying;
    struct replica_operation *operation;
    char *octets;
    uint32_t len;
};
struct wnode {
    struct replica *r;
    uint32_t id;
    bool up;
    uint64_t life, frozen_until, up_at;
    struct disk disk;
    uint32_t copied_to; /* keys below it were copied: the owner leaves out those behind */
    struct wwrite writes[REPLICA_WRITES_MAX];
    uint32_t first_write, write_count;
    uint64_t disk_free_at, disk_slow_ms;
    bool accepting;
    /* agreement */
    uint64_t session_until;          /* at the service */
    uint64_t session, session_known; /* number of the session; as the node knows it */
    uint64_t lease_asked_ms;
    bool proposing, sent;
    struct replica_record proposal;
    uint64_t proposed_ms, losses;
    uint64_t unfit_version;
    bool intact; /* as a member of the set, its disk has all that is committed */
};
enum wkind {
    W_MESSAGE,
    W_DISK,
    W_READ,
    W_FETCH,
    W_TICK,
    W_CAS,
    W_RECORD,
    W_LEASE_ASK,
    W_LEASE,
    W_CHAOS,
    W_CLIENT,
    W_CONTROL
};
struct wevent {
    uint64_t at, order;
    enum wkind kind;
    uint32_t node, from;
    uint64_t life, number;
    struct replica_message message;
    struct replica_history *history;
    char *octets;
    uint32_t len;
    struct replica_record record;
    uint64_t copy;
    uint32_t chunk;
    bool answer;
};
struct cluster {
    struct rand rand;
    uint64_t seed, now, order;
    uint32_t count;
    struct wnode node[NODES_MAX + 1];
    struct replica_record record;
    bool away; /* the agreement service */
    uint64_t away_until;
    bool parted[NODES_MAX + 1][NODES_MAX + 1];   /* 0: the agreement service */
    uint32_t drop, doubled, delay_ms;            /* per cent */
    uint64_t link[NODES_MAX + 1][NODES_MAX + 1]; /* when the last message of each arrives */
    bool in_order, healed, quiet, keeps, fetches_kept, skips, failed;
    char why[256];
    struct replica_config config;
    struct wevent **heap;
    uint32_t heap_count, heap_cap;
    /* books */
    struct {
        uint64_t epoch;
        uint32_t batch;
    } made[NUMBERS][EPOCHS_PER_NUMBER];
    uint32_t committed_batch[NUMBERS]; /* by number */
    uint64_t committed;
    uint32_t epoch_leader[EPOCHS];
    uint64_t newest_epoch;
    uint32_t batches;
    bool told[BATCHES]; /* a client was told that it is committed */
    uint64_t hash;
    uint64_t commits, leads, wipes, chunks, sets, fulls, refused, lost_disks, fetches, step_downs, handed;
};

static void cluster_fail(struct cluster *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void cluster_fail(struct cluster *w, const char *format, ...) {
    if (w->failed)
        return;
    w->failed = true;
    va_list args;
    va_start(args, format);
    vsnprintf(w->why, sizeof w->why, format, args);
    va_end(args);
}

static uint64_t dice(struct cluster *w, uint64_t n) {
    return rand_below(&w->rand, n);
}
static bool chance(struct cluster *w, uint32_t per_cent) {
    return rand_below(&w->rand, 100) < per_cent;
}

/* -- events in time -- */

static bool sooner(const struct wevent *a, const struct wevent *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_put(struct cluster *w, struct wevent *e) {
    if (w->heap_count == w->heap_cap) {
        w->heap_cap = w->heap_cap ? w->heap_cap * 2 : 256;
        w->heap = realloc(w->heap, w->heap_cap * sizeof *w->heap);
        if (!w->heap)
            abort();
    }
    uint32_t i = w->heap_count++;
    while (i && sooner(e, w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = e;
}

static struct wevent *heap_take(struct cluster *w) {
    struct wevent *first = w->heap[0], *e = w->heap[--w->heap_count];
    uint32_t i = 0, n = w->heap_count;
    while (2 * i + 1 < n) {
        uint32_t c = 2 * i + 1;
        if (c + 1 < n && sooner(w->heap[c + 1], w->heap[c]))
            c++;
        if (!sooner(w->heap[c], e))
            break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    w->heap[i] = e;
    return first;
}

static struct wevent *event_new(struct cluster *w, enum wkind kind, uint32_t node, uint64_t after_ms) {
    struct wevent *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->kind = kind;
    e->node = node;
    e->at = w->now + after_ms;
    e->order = ++w->order;
    e->life = w->node[node].life;
    return e;
}

static void event_free(struct wevent *e) {
    if (e->message.operation)
        replica_operation_release(e->message.operation);
    free(e->history);
    free(e->octets);
    free(e);
}

static void *copy_of(const void *at, size_t len) {
    char *to = malloc(len + 1);
    if (!to)
        abort();
    if (len)
        memcpy(to, at, len);
    return to;
}

/* -- what a batch does to the data -- */

static uint64_t batch_hash(uint32_t batch, uint64_t n) {
    return hash_bytes(&batch, sizeof batch, n) | 1;
}

static void batch_apply(uint64_t *kv, uint32_t batch, uint32_t below_key) {
    if (batch < below_key)
        kv[batch] = batch_hash(batch, 0);
    for (uint64_t i = 1; i < 4; i++) {
        uint64_t h = batch_hash(batch, i);
        uint32_t key = BATCHES + (uint32_t)(h >> 8) % SHARED;
        if (key < below_key)
            kv[key] = (h >> 32) % 4 ? h : 0; /* or deleted */
    }
}

static uint32_t batch_of(const struct replica_operation *o) {
    uint32_t batch = 0;
    if (o->len >= sizeof batch)
        memcpy(&batch, o->octets, sizeof batch);
    return batch < BATCHES ? batch : 0;
}

#endif
