/*
 * oplog: the ring of kept operations, and the operation itself: counted octets with a checksum that covers its
 * position too, so that one that was damaged on its way, or that is taken for another, is never written.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/replica/oplog.h"

uint64_t replica_checksum(uint64_t epoch, uint64_t number, uint64_t previous_epoch, struct span octets) {
    uint64_t head[3] = {epoch, number, previous_epoch};
    return hash_bytes(octets.at, octets.len, hash_bytes(head, sizeof head, octets.len));
}

struct replica_operation *replica_operation_new(uint64_t epoch, uint64_t number, uint64_t previous_epoch,
                                                uint64_t checksum, struct span octets) {
    if (octets.len > REPLICA_OPERATION_MAX)
        return NULL;
    struct replica_operation *o = malloc(sizeof *o + octets.len);
    if (!o)
        return NULL;
    *o = (struct replica_operation){.references = 1,
                                    .len = (uint32_t)octets.len,
                                    .epoch = epoch,
                                    .number = number,
                                    .previous_epoch = previous_epoch,
                                    .checksum = checksum};
    if (octets.len)
        memcpy(o->octets, octets.at, octets.len);
    return o;
}

struct replica_operation *replica_operation_hold(struct replica_operation *o) {
    o->references++;
    return o;
}

void replica_operation_release(struct replica_operation *o) {
    CHECK(o->references > 0);
    if (--o->references == 0)
        free(o);
}

int oplog_init(struct oplog *l, uint32_t cap, uint32_t keep_count, uint64_t keep_bytes) {
    *l = (struct oplog){.cap = cap, .keep_count = keep_count, .keep_bytes = keep_bytes};
    l->ring = calloc(cap, sizeof *l->ring);
    return l->ring ? ERR_OK : ERR_NOMEM;
}

static void drop_first(struct oplog *l) {
    struct replica_operation *o = l->ring[l->start];
    l->bytes -= o->len;
    l->start = (l->start + 1) % l->cap;
    l->count--;
    replica_operation_release(o);
}

void oplog_clear(struct oplog *l) {
    while (l->count)
        drop_first(l);
}

void oplog_deinit(struct oplog *l) {
    if (l->ring)
        oplog_clear(l);
    free(l->ring);
    *l = (struct oplog){0};
}

void oplog_trim(struct oplog *l, uint64_t committed) {
    while (l->count && (l->count > l->keep_count || l->bytes > l->keep_bytes) && l->ring[l->start]->number <= committed)
        drop_first(l);
}

void oplog_push(struct oplog *l, struct replica_operation *o, uint64_t committed) {
    CHECK(l->count == 0 || l->ring[(l->start + l->count - 1) % l->cap]->number + 1 == o->number);
    if (l->count == l->cap)
        drop_first(l);
    l->ring[(l->start + l->count) % l->cap] = replica_operation_hold(o);
    l->count++;
    l->bytes += o->len;
    oplog_trim(l, committed);
}

struct replica_operation *oplog_get(const struct oplog *l, uint64_t number) {
    if (l->count == 0 || number < l->ring[l->start]->number || number - l->ring[l->start]->number >= l->count)
        return NULL;
    return l->ring[(l->start + (number - l->ring[l->start]->number)) % l->cap];
}
