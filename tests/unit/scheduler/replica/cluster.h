/*
 * cluster: a world for replicas, in one thread under one seed: nodes with disks, a network, an agreement service with
 * leases, clients, and everything that can go wrong; and oracles that keep their own books.
 *
 * The network drops, delays, doubles, reorders and parts. A crash loses what was not synced, and may or may not keep
 * what was on its way to the disk. Disks are lost whole, as long as another member of the in-sync set keeps its own.
 * Nodes freeze past their lease and thaw. The agreement service can be away, and answers can be lost on their way.
 *
 * The oracles:
 *  - a position (epoch, number) is given out once;
 *  - what is committed at a number never changes, and is on the synced disk of every member of the record's set;
 *  - nobody commits in an epoch after a newer one has a leader, nor two in one; two never lead at one time;
 *  - a new leader's disk has every batch that a client was told of;
 *  - two whole disks at the same position are equal;
 *  - when all is healed: a leader accepts, all replicas are in sync, new batches are committed, all disks are equal to
 *    the replay of the committed batches.
 */
#ifndef TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_H
#define TESTS_UNIT_SCHEDULER_REPLICA_CLUSTER_H

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
enum wkind { W_MESSAGE, W_DISK, W_READ, W_TICK, W_CAS, W_RECORD, W_LEASE_ASK, W_LEASE, W_CHAOS, W_CLIENT, W_CONTROL };
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
    bool in_order, healed, quiet, keeps, skips, failed;
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
    uint64_t commits, leads, wipes, chunks, sets, fulls, refused, lost_disks, step_downs, handed;
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

/* -- the network and the agreement service -- */

static void node_step(struct cluster *w, struct wnode *n, const struct replica_event *e, int *result);

static void network_put(struct cluster *w, uint32_t from, uint32_t to, const struct replica_message *m,
                        uint64_t delay) {
    struct wevent *e = event_new(w, W_MESSAGE, to, delay);
    e->from = from;
    e->message = *m;
    if (m->operation)
        e->message.operation = replica_operation_hold(m->operation);
    if (m->history) {
        e->history = copy_of(m->history, sizeof *m->history);
        e->message.history = e->history;
    }
    if (m->octets.len) {
        e->octets = copy_of(m->octets.at, m->octets.len);
        e->message.octets.at = e->octets;
    }
    heap_put(w, e);
}

static void network_send(struct cluster *w, uint32_t from, uint32_t to, const struct replica_message *m) {
    uint32_t copies = chance(w, w->doubled) ? 2 : 1;
    if (w->parted[from][to] || to == 0 || to > w->count)
        return;
    while (copies--) {
        if (chance(w, w->drop))
            continue;
        uint64_t delay = 1 + dice(w, 5);
        if (w->delay_ms && chance(w, 10))
            delay += dice(w, w->delay_ms);
        if (w->in_order || w->healed) {
            uint64_t *last = &w->link[from][to];
            *last = w->now + delay > *last ? w->now + delay : *last;
            delay = *last - w->now;
        }
        network_put(w, from, to, m, delay);
    }
    /* The most dangerous word comes again, late. */
    if (m->kind == REPLICA_COPY_BEGIN && !w->in_order && !w->healed && chance(w, 50))
        network_put(w, from, to, m, dice(w, 3000));
}

static bool service_lost(struct cluster *w, uint32_t node) {
    return w->away || w->parted[node][0] || chance(w, w->drop / 2);
}

static void service_tell(struct cluster *w, uint32_t node, bool answer) {
    if (service_lost(w, node) && !w->healed)
        return;
    struct wevent *e = event_new(w, W_RECORD, node, 2 + dice(w, 20));
    e->record = w->record;
    e->answer = answer;
    heap_put(w, e);
}

/* Who joins has all that clients were told of, unless its disk was lost meanwhile. */
static void check_joins(struct cluster *w, struct wnode *n) {
    for (uint32_t b = 1; b <= w->batches && n->intact; b++)
        if (w->told[b] && n->disk.kv[b] != batch_hash(b, 0))
            return cluster_fail(w, "node %u joins the set without batch %u", n->id, b);
}

static void service_changed(struct cluster *w, const struct replica_set *before) {
    w->record.version++;
    w->sets++;
    for (uint32_t i = 1; i <= w->count; i++) {
        struct wnode *n = &w->node[i];
        bool in = set_has(&w->record.in_sync, i);
        if (in && !set_has(before, i)) {
            n->intact = n->disk.mark.complete;
            check_joins(w, n);
        }
        service_tell(w, i, false);
    }
}

static void service_cas(struct cluster *w, const struct wevent *e) {
    struct wnode *n = &w->node[e->node];
    if (w->away || w->parted[e->node][0] || e->number != n->losses)
        return;
    if (e->record.version == w->record.version) {
        struct replica_set before = w->record.in_sync;
        w->record.epoch = e->record.epoch;
        w->record.leader = e->record.leader;
        w->record.in_sync = e->record.in_sync;
        service_changed(w, &before);
    }
    service_tell(w, e->node, true);
}

static bool session_holds(const struct cluster *w, uint32_t node) {
    return w->now < w->node[node].session_until;
}

/* A dead or unfit leader: another member of the set takes over. */
static void service_control(struct cluster *w) {
    struct replica_record *rec = &w->record;
    if (w->away || rec->epoch == 0)
        return;
    struct wnode *leader = &w->node[rec->leader];
    bool unfit = leader->unfit_version == rec->version;
    if (session_holds(w, rec->leader) && !unfit) {
        /* Who has missed the news reads it now and then. */
        service_tell(w, 1 + (uint32_t)dice(w, w->count), false);
        for (uint32_t i = 1; i <= w->count; i++)
            if (!session_holds(w, i) && leader->up && leader->frozen_until <= w->now && chance(w, 20))
                node_step(w, leader, &(struct replica_event){.kind = REPLICA_GONE, .to = i}, NULL);
        return;
    }
    uint32_t fit = 0, chosen = 0;
    for (uint32_t i = 0; i < rec->in_sync.count; i++)
        if (session_holds(w, rec->in_sync.nodes[i]) && !(unfit && rec->in_sync.nodes[i] == rec->leader) &&
            dice(w, ++fit) == 0)
            chosen = rec->in_sync.nodes[i];
    if (!chosen)
        return;
    rec->leader = chosen;
    rec->epoch++;
    service_changed(w, &rec->in_sync);
}

/* -- nodes -- */

static void node_propose(struct cluster *w, struct wnode *n) {
    n->proposed_ms = w->now;
    if (!n->sent && chance(w, 3)) { /* it never left: certainly not done */
        n->proposing = false;
        node_step(w, n, &(struct replica_event){.kind = REPLICA_PROPOSE_FAILED}, NULL);
        return;
    }
    n->sent = true;
    if (service_lost(w, n->id))
        return;
    struct wevent *e = event_new(w, W_CAS, n->id, 2 + dice(w, 30));
    e->record = n->proposal;
    e->number = n->losses;
    heap_put(w, e);
}

static void node_act(struct cluster *w, struct wnode *n, const struct replica_action *a) {
    switch (a->kind) {
    case REPLICA_WIPE:
        w->wipes++;
        write_begin(w, n, a);
        return;
    case REPLICA_WRITE_CHUNK:
        w->chunks++;
        write_begin(w, n, a);
        return;
    case REPLICA_WRITE:
    case REPLICA_WRITE_MARK:
        write_begin(w, n, a);
        return;
    case REPLICA_SEND:
        network_send(w, n->id, a->send.to, &a->send.message);
        return;
    case REPLICA_LEAD:
        w->leads++;
        book_committed(w, n, a->number);
        book_lead(w, n);
        return;
    case REPLICA_COMMITTED:
        book_committed(w, n, a->number);
        return;
    case REPLICA_ACCEPT:
        n->accepting = true;
        return;
    case REPLICA_REFUSE:
        n->accepting = false;
        return;
    case REPLICA_STEPPED_DOWN:
        n->accepting = false;
        w->step_downs++;
        w->handed += a->why == REPLICA_WHY_HANDED_OVER;
        return;
    case REPLICA_PROPOSE:
        if (n->proposing && n->proposal.version == a->record.version && n->proposal.epoch == a->record.epoch)
            cluster_fail(w, "node %u proposes twice on one version", n->id);
        n->proposing = true;
        n->sent = false;
        n->proposal = a->record;
        n->proposed_ms = 0; /* goes with the next tick, or at once */
        return;
    case REPLICA_UNFIT:
        n->unfit_version = a->record.version;
        return;
    case REPLICA_READ_CHUNK: {
        struct wevent *e = event_new(w, W_READ, n->id, 1 + dice(w, 10));
        e->from = a->read.node;
        e->copy = a->read.copy;
        e->chunk = a->read.chunk;
        if (a->read.cursor.len == sizeof(uint32_t)) {
            uint32_t at;
            memcpy(&at, a->read.cursor.at, sizeof at);
            e->number = at;
        }
        heap_put(w, e);
        return;
    }
    }
}

static void node_step(struct cluster *w, struct wnode *n, const struct replica_event *e, int *result) {
    struct replica_actions out;
    int err = replica_step(n->r, e, w->now, &out);
    if (result)
        *result = err;
    if (e->kind == REPLICA_BATCH && err == ERR_OK) {
        uint32_t batch;
        memcpy(&batch, e->batch.octets.at, sizeof batch);
        struct replica_position p = replica_last(n->r);
        book_made(w, p.epoch, p.number, batch);
    }
    w->hash = hash_bytes(&(uint64_t[3]){w->now, out.count, (uint64_t)e->kind << 8 | n->id}, 24, w->hash);
    check_leaders(w);
    for (uint32_t i = 0; i < out.count && !w->failed; i++) {
        w->hash = hash_bytes(&out.at[i].kind, sizeof out.at[i].kind, w->hash);
        node_act(w, n, &out.at[i]);
    }
    if (n->proposing && !n->proposed_ms && !w->failed)
        node_propose(w, n);
}

static void node_start(struct cluster *w, struct wnode *n) {
    n->up = true;
    n->life++;
    n->accepting = n->proposing = false;
    n->frozen_until = n->lease_asked_ms = n->session_known = 0;
    n->disk_free_at = w->now;
    struct replica_config c = w->config;
    c.self = n->id;
    c.life = n->life;
    n->r = replica_new(&c, &n->disk.mark);
    if (!n->r)
        abort();
    uint64_t from = n->disk.mark.last.number;
    while (w->keeps && from > 0 && n->disk.kept[from])
        from--;
    for (uint64_t i = from + 1; w->keeps && i <= n->disk.mark.last.number; i++)
        if (replica_remember(n->r, n->disk.kept[i]) != ERR_OK)
            cluster_fail(w, "kept operations are refused");
    heap_put(w, event_new(w, W_TICK, n->id, dice(w, REPLICA_TICK_MS)));
    service_tell(w, n->id, false);
}

static void node_crash(struct cluster *w, struct wnode *n) {
    if (!n->up)
        return;
    uint64_t kept = dice(w, n->write_count + 1);
    while (n->write_count) {
        write_done(w, n, kept > 0);
        kept -= kept > 0;
    }
    replica_free(n->r);
    n->r = NULL;
    n->up = n->accepting = n->proposing = false;
    n->life++; /* nothing that is on its way to it counts */
    n->up_at = w->now + 10 + dice(w, chance(w, 50) ? 300 : 2500);
}

/* The disk is lost, when another member of the set keeps all that is committed. */
static void node_lose_disk(struct cluster *w, struct wnode *n) {
    bool other = !set_has(&w->record.in_sync, n->id);
    for (uint32_t i = 0; i < w->record.in_sync.count; i++)
        other = other || (w->record.in_sync.nodes[i] != n->id && w->node[w->record.in_sync.nodes[i]].intact);
    if (!other)
        return;
    node_crash(w, n);
    kept_clear(&n->disk);
    memset(&n->disk, 0, sizeof n->disk);
    n->intact = false;
    n->losses++;
    w->lost_disks++;
}

static void node_tick(struct cluster *w, struct wnode *n) {
    if (w->now >= n->lease_asked_ms + TTL_MS / 4 || !n->lease_asked_ms) {
        n->lease_asked_ms = w->now;
        if (!service_lost(w, n->id)) {
            struct wevent *e = event_new(w, W_LEASE_ASK, n->id, 1 + dice(w, 20));
            e->number = w->now;
            e->copy = n->session_known;
            heap_put(w, e);
        }
    }
    if (n->proposing && w->now >= n->proposed_ms + 200)
        node_propose(w, n);
    node_step(w, n, &(struct replica_event){.kind = REPLICA_TICK}, NULL);
    heap_put(w, event_new(w, W_TICK, n->id, REPLICA_TICK_MS / 2 + dice(w, REPLICA_TICK_MS / 2)));
}

static void node_read(struct cluster *w, struct wnode *n, const struct wevent *e) {
    uint32_t from = (uint32_t)e->number, to = from + CHUNK_KEYS < KEYS ? from + CHUNK_KEYS : KEYS;
    char chunk[8 + CHUNK_KEYS * 8];
    memcpy(chunk, &(uint32_t[2]){from, to}, 8);
    memcpy(chunk + 8, &n->disk.kv[from], (to - from) * 8);
    struct replica_event r = {.kind = REPLICA_CHUNK};
    r.read.node = e->from;
    r.read.copy = e->copy;
    r.read.chunk = e->chunk;
    r.read.octets = (struct span){chunk, 8 + (to - from) * 8};
    r.read.cursor = (struct span){(const char *)&to, sizeof to};
    r.read.last = to == KEYS;
    node_step(w, n, &r, NULL);
}

static void node_record(struct cluster *w, struct wnode *n, const struct wevent *e) {
    if (n->proposing && e->record.version > n->proposal.version)
        n->proposing = false;
    struct replica_event r = {.kind = REPLICA_RECORD, .record = e->record};
    node_step(w, n, &r, NULL);
}

static void node_disk(struct cluster *w, struct wnode *n) {
    uint64_t write = write_first(n)->write;
    write_done(w, n, true);
    struct replica_event r = {.kind = REPLICA_WRITTEN, .write = write};
    if (n->write_count == 0 || chance(w, 70)) /* else told with a later one */
        node_step(w, n, &r, NULL);
}

/* -- clients and chaos -- */

static void client_submit(struct cluster *w) {
    for (uint32_t i = 1; i <= w->count; i++) {
        struct wnode *n = &w->node[i];
        if (!n->up || n->frozen_until > w->now || (!n->accepting && !chance(w, 5)) || w->batches + 1 >= BATCHES)
            continue;
        char octets[64];
        uint32_t batch = w->batches + 1;
        memset(octets, (int)batch, sizeof octets);
        memcpy(octets, &batch, sizeof batch);
        struct replica_event e = {.kind = REPLICA_BATCH};
        e.batch.octets = (struct span){octets, sizeof batch + dice(w, sizeof octets - sizeof batch)};
        e.batch.must = chance(w, 20);
        w->batches++;
        int err;
        node_step(w, n, &e, &err);
        w->fulls += err == ERR_FULL;
        w->refused += err == ERR_AGAIN;
    }
}

static void client(struct cluster *w) {
    for (uint64_t n = chance(w, 4) ? 20 : 1; n > 0 && !w->quiet; n--)
        client_submit(w);
    heap_put(w, event_new(w, W_CLIENT, 0, 4 + dice(w, 40)));
}

static void chaos_replicas(struct cluster *w) {
    struct replica_record *rec = &w->record;
    uint32_t x = 1 + (uint32_t)dice(w, w->count);
    if (w->away || rec->epoch == 0 || x == rec->leader)
        return;
    if (!set_has(&rec->replicas, x)) {
        rec->replicas.nodes[rec->replicas.count++] = x;
    } else if (rec->replicas.count > w->config.min_in_sync + 1) {
        set_drop(&rec->replicas, x);
    } else {
        return;
    }
    service_changed(w, &rec->in_sync);
}

static void chaos_part(struct cluster *w) {
    memset(w->parted, 0, sizeof w->parted);
    if (chance(w, 50))
        return;
    uint64_t side = rand_u64(&w->rand); /* two sides; the service is on one of them */
    bool one_way = chance(w, 20);
    for (uint32_t i = 0; i <= w->count; i++)
        for (uint32_t k = 0; k <= w->count; k++)
            w->parted[i][k] = (side >> i & 1) != (side >> k & 1) && (!one_way || i < k);
}

static void chaos(struct cluster *w) {
    struct wnode *n = &w->node[1 + dice(w, w->count)];
    switch (dice(w, 14)) {
    case 0:
    case 1:
        node_crash(w, n);
        break;
    case 2:
        n->frozen_until = w->now + dice(w, 2 * TTL_MS);
        break;
    case 3:
    case 4:
        chaos_part(w);
        break;
    case 5:
        w->away = true;
        w->away_until = w->now + dice(w, 1500);
        break;
    case 6:
        if (chance(w, 60))
            node_lose_disk(w, n);
        break;
    case 7:
        for (uint32_t i = 1; i <= w->count; i++)
            if (w->node[i].up && w->node[i].frozen_until <= w->now && replica_is_leader(w->node[i].r, w->now)) {
                struct replica_event e = {.kind = REPLICA_HAND_OVER, .to = n->id};
                int ignored;
                node_step(w, &w->node[i], &e, &ignored);
            }
        break;
    case 8:
    case 9:
        chaos_replicas(w);
        break;
    case 10:
        w->drop = chance(w, 50) ? 0 : (uint32_t)dice(w, 30);
        w->doubled = chance(w, 50) ? 0 : (uint32_t)dice(w, 30);
        w->delay_ms = chance(w, 50) ? 0 : (uint32_t)dice(w, 2000);
        break;
    case 11:
        n->disk_slow_ms = chance(w, 50) ? 0 : dice(w, 200);
        break;
    case 12: /* power for all */
        if (chance(w, 20))
            for (uint32_t i = 1; i <= w->count; i++)
                node_crash(w, &w->node[i]);
        break;
    default: /* a write fails */
        if (n->up && n->frozen_until <= w->now && chance(w, 30)) {
            node_step(w, n, &(struct replica_event){.kind = REPLICA_WRITE_FAILED}, NULL);
            node_crash(w, n);
        }
        break;
    }
}

static void chaos_turn(struct cluster *w) {
    for (uint32_t i = 1; i <= w->count; i++)
        if (!w->node[i].up && (w->now >= w->node[i].up_at || w->healed))
            node_start(w, &w->node[i]);
    if (w->away && w->now >= w->away_until)
        w->away = false;
    check_disks(w);
    if (!w->healed && chance(w, 60))
        chaos(w);
    heap_put(w, event_new(w, W_CHAOS, 0, 30 + dice(w, 100)));
}

static void heal(struct cluster *w) {
    w->healed = true;
    w->away = false;
    w->drop = w->doubled = w->delay_ms = 0;
    memset(w->parted, 0, sizeof w->parted);
    for (uint32_t i = 1; i <= w->count; i++) {
        w->node[i].disk_slow_ms = 0;
        if (w->node[i].frozen_until > w->now)
            w->node[i].frozen_until = w->now;
    }
}

/* -- a run -- */

static void handle(struct cluster *w, struct wevent *e) {
    struct wnode *n = &w->node[e->node];
    int ignored;
    if (e->node && e->kind != W_CAS && e->kind != W_LEASE_ASK) {
        if (!n->up || e->life != n->life)
            if (e->kind != W_MESSAGE || !n->up) /* what was sent to its earlier life reaches the new one */
                return;
        if (n->frozen_until > w->now) {
            struct wevent *later = event_new(w, e->kind, e->node, 0);
            uint64_t order = later->order;
            *later = *e;
            later->order = order;
            later->at = n->frozen_until;
            e->message.operation = NULL;
            e->history = NULL;
            e->octets = NULL;
            heap_put(w, later);
            return;
        }
    }
    switch (e->kind) {
    case W_MESSAGE: {
        struct replica_event r = {.kind = REPLICA_MESSAGE};
        r.from = e->from;
        r.message = e->message;
        node_step(w, n, &r, &ignored);
        break;
    }
    case W_DISK:
        node_disk(w, n);
        break;
    case W_READ:
        node_read(w, n, e);
        break;
    case W_TICK:
        node_tick(w, n);
        break;
    case W_CAS:
        service_cas(w, e);
        break;
    case W_RECORD:
        node_record(w, n, e);
        break;
    case W_LEASE_ASK: {
        if (w->away || w->parted[e->node][0])
            break;
        struct wevent *answer = event_new(w, W_LEASE, e->node, 1 + dice(w, 20));
        n->session += !session_holds(w, e->node);
        answer->copy = n->session;
        if (n->session != e->copy) /* a new lease: the record is read behind it */
            answer->record = w->record;
        n->session_until = w->now + TTL_MS;
        answer->number = e->number + TTL_MS;
        heap_put(w, answer);
        break;
    }
    case W_LEASE:
        if (e->record.version)
            node_record(w, n, e);
        n->session_known = e->copy;
        node_step(w, n, &(struct replica_event){.kind = REPLICA_LEASE, .until_ms = e->number}, NULL);
        break;
    case W_CHAOS:
        chaos_turn(w);
        break;
    case W_CLIENT:
        client(w);
        break;
    case W_CONTROL:
        service_control(w);
        heap_put(w, event_new(w, W_CONTROL, 0, 50 + dice(w, 50)));
        break;
    }
}

static void run_until(struct cluster *w, uint64_t end) {
    while (!w->failed && w->heap_count && w->heap[0]->at <= end) {
        struct wevent *e = heap_take(w);
        w->now = e->at > w->now ? e->at : w->now;
        handle(w, e);
        event_free(e);
    }
    w->now = end > w->now ? end : w->now;
}

static void check_end(struct cluster *w) {
    static uint64_t expected[KEYS];
    memset(expected, 0, sizeof expected);
    for (uint64_t i = 1; i <= w->committed; i++) {
        if (!w->committed_batch[i])
            return cluster_fail(w, "what was committed at %llu is not known", (unsigned long long)i);
        batch_apply(expected, w->committed_batch[i], KEYS);
    }
    if (w->record.in_sync.count != w->record.replicas.count)
        return cluster_fail(w, "healed, and %u of %u are in sync", w->record.in_sync.count, w->record.replicas.count);
    for (uint32_t i = 0; i < w->record.in_sync.count; i++) {
        struct wnode *n = &w->node[w->record.in_sync.nodes[i]];
        if (n->disk.mark.last.number != w->committed)
            return cluster_fail(w, "node %u is at %llu of %llu", n->id, (unsigned long long)n->disk.mark.last.number,
                                (unsigned long long)w->committed);
        if (!n->disk.mark.complete || memcmp(n->disk.kv, expected, sizeof expected) != 0)
            return cluster_fail(w, "node %u is not what was committed", n->id);
    }
    for (uint32_t b = 1; b <= w->batches; b++)
        if (w->told[b] && expected[b] != batch_hash(b, 0))
            return cluster_fail(w, "batch %u was committed and is lost", b);
}

static void cluster_begin(struct cluster *w, uint64_t seed) {
    memset(w, 0, sizeof *w);
    rand_init(&w->rand, seed);
    w->seed = seed;
    w->count = 3 + (uint32_t)dice(w, NODES_MAX - 2);
    w->keeps = chance(w, 50);
    w->skips = chance(w, 50);
    w->in_order = chance(w, 50);
    w->config = (struct replica_config){.min_in_sync = 1 + (uint32_t)dice(w, 2),
                                        .window_count = 4 + (uint32_t)dice(w, 30),
                                        .window_bytes = 200 + dice(w, 2000),
                                        .keep_count = 1 + (uint32_t)dice(w, chance(w, 50) ? 20 : 300),
                                        .keep_bytes = 100 + dice(w, 20000),
                                        .heartbeat_ms = 40 + dice(w, 60),
                                        .resend_ms = 30 + dice(w, 60),
                                        .slow_ms = 200 + dice(w, 300),
                                        .copy_per_s = 20000 + dice(w, 200000),
                                        .flight_count = 8 + (uint32_t)dice(w, 30),
                                        .flight_bytes = 500 + dice(w, 2000)};
    w->record = (struct replica_record){.version = 1, .leader = 1, .in_sync = {1, {1}}};
    for (uint32_t i = 1; i <= w->count; i++) {
        w->node[i].id = i;
        if (i == 1 || i <= w->config.min_in_sync || chance(w, 80))
            w->record.replicas.nodes[w->record.replicas.count++] = i;
    }
    w->node[1].intact = true;
    for (uint32_t i = 1; i <= w->count; i++)
        node_start(w, &w->node[i]);
    heap_put(w, event_new(w, W_CHAOS, 0, 500));
    heap_put(w, event_new(w, W_CLIENT, 0, 100));
    heap_put(w, event_new(w, W_CONTROL, 0, 50));
}

static void cluster_end(struct cluster *w) {
    while (w->heap_count)
        event_free(heap_take(w));
    free(w->heap);
    for (uint32_t i = 1; i <= w->count; i++) {
        struct wnode *n = &w->node[i];
        while (n->write_count)
            write_done(w, n, false);
        replica_free(n->r);
        kept_clear(&n->disk);
    }
}

static void cluster_show(const struct cluster *w) {
    const struct replica_record *c = &w->record;
    fprintf(stderr, "record v%llu e%llu leader %u set", (unsigned long long)c->version, (unsigned long long)c->epoch,
            c->leader);
    for (uint32_t i = 0; i < c->in_sync.count; i++)
        fprintf(stderr, " %u", c->in_sync.nodes[i]);
    fprintf(stderr, " of");
    for (uint32_t i = 0; i < c->replicas.count; i++)
        fprintf(stderr, " %u", c->replicas.nodes[i]);
    fprintf(stderr, "; committed %llu, min %u\n", (unsigned long long)w->committed, w->config.min_in_sync);
    for (uint32_t i = 1; i <= w->count; i++) {
        struct replica_status s;
        if (!w->node[i].up)
            continue;
        replica_status(w->node[i].r, w->now, &s);
        fprintf(stderr,
                "node %u: leader %d ready %d accepting %d complete %d broken %d promised %llu v%llu last %llu.%llu "
                "synced %llu "
                "committed %llu proposing %d unfit %llu intact %d\n",
                i, s.leader, s.ready, s.accepting, s.complete, s.broken, (unsigned long long)s.epoch,
                (unsigned long long)s.version, (unsigned long long)s.last.epoch, (unsigned long long)s.last.number,
                (unsigned long long)s.synced, (unsigned long long)s.committed, w->node[i].proposing,
                (unsigned long long)w->node[i].unfit_version, w->node[i].intact);
        for (uint32_t k = 0; k < s.peer_count; k++)
            fprintf(stderr, "    peer %u state %d in_sync %d overdue %d acked %llu\n", s.peers[k].node,
                    (int)s.peers[k].state, s.peers[k].in_sync, s.peers[k].overdue,
                    (unsigned long long)s.peers[k].acked);
    }
}

/* False: w->why says what was found. */
static bool cluster_run(struct cluster *w, uint64_t seed) {
    cluster_begin(w, seed);
    run_until(w, CHAOS_MS);
    heal(w);
    run_until(w, CHAOS_MS + HEAL_MS);
    uint64_t before = w->committed;
    bool accepted = false;
    for (uint32_t i = 1; i <= w->count; i++)
        accepted = accepted || w->node[i].accepting;
    if (!w->failed && !accepted)
        cluster_fail(w, "healed, and nobody accepts");
    for (uint32_t i = 0; i < 3 && !w->failed; i++)
        client_submit(w);
    w->quiet = true;
    run_until(w, w->now + 2000);
    if (!w->failed && w->committed <= before && w->batches + 4 < BATCHES)
        cluster_fail(w, "healed, and nothing more is committed");
    if (!w->failed)
        check_end(w);
    bool good = !w->failed;
    if (!good && getenv("CLUSTER_SHOW"))
        cluster_show(w);
    cluster_end(w);
    return good;
}

#endif
