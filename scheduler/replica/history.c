/*
 * history: the table of epochs and their first numbers, as Raft's and Kafka's logs have it. Each epoch has written at
 * most one operation of each number, so an epoch and a number name one operation.
 */
#include <string.h>

#include "scheduler/replica/history.h"

bool history_note(struct replica_history *h, struct replica_position p) {
    if (h->count && h->at[h->count - 1].epoch == p.epoch)
        return false;
    if (h->count == REPLICA_HISTORY_MAX) {
        memmove(&h->at[0], &h->at[1], (REPLICA_HISTORY_MAX - 1) * sizeof h->at[0]);
        h->count--;
    }
    h->at[h->count].epoch = p.epoch;
    h->at[h->count].first = p.number;
    h->count++;
    return true;
}

bool history_has(const struct replica_history *h, struct replica_position last, struct replica_position p) {
    if (p.number == 0)
        return p.epoch == 0;
    if (p.number > last.number)
        return false;
    for (uint32_t i = h->count; i-- > 0;) {
        uint64_t end = i + 1 < h->count ? h->at[i + 1].first - 1 : last.number;
        if (h->at[i].epoch == p.epoch)
            return p.number >= h->at[i].first && p.number <= end;
    }
    return false;
}

void history_cut(struct replica_history *h, uint64_t number) {
    while (h->count && h->at[h->count - 1].first > number)
        h->count--;
}

bool history_is_valid(const struct replica_history *h) {
    if (h->count > REPLICA_HISTORY_MAX)
        return false;
    for (uint32_t i = 0; i < h->count; i++)
        if (h->at[i].first == 0 || h->at[i].epoch == 0 ||
            (i && (h->at[i].epoch <= h->at[i - 1].epoch || h->at[i].first <= h->at[i - 1].first)))
            return false;
    return true;
}
