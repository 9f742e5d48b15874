/*
 * near: see near.h. A plain binary min-heap over an array of at most NEAR_MAX entries, made at the
 * first use.
 */
#include "scheduler/near.h"

#include <stdlib.h>

#include "base/check.h"

void near_init(struct near *n) {
    *n = (struct near){0};
}

void near_deinit(struct near *n) {
    free(n->entries);
    *n = (struct near){0};
}

static void swap(struct near *n, size_t a, size_t b) {
    struct near_entry e = n->entries[a];
    n->entries[a] = n->entries[b];
    n->entries[b] = e;
}

bool near_add(struct near *n, uint64_t due_ms, uint64_t id) {
    if (n->count == NEAR_MAX)
        return false;
    if (!n->entries) {
        n->entries = malloc(NEAR_MAX * sizeof *n->entries);
        if (!n->entries)
            return false;
    }
    size_t i = n->count++;
    n->entries[i] = (struct near_entry){due_ms, id};
    for (; i > 0 && n->entries[(i - 1) / 2].due_ms > n->entries[i].due_ms; i = (i - 1) / 2)
        swap(n, i, (i - 1) / 2);
    return true;
}

uint64_t near_next_ms(const struct near *n) {
    return n->count ? n->entries[0].due_ms : UINT64_MAX;
}

uint64_t near_pop(struct near *n) {
    CHECK(n->count > 0);
    uint64_t id = n->entries[0].id;
    n->entries[0] = n->entries[--n->count];
    for (size_t i = 0, child; (child = 2 * i + 1) < n->count; i = child) {
        if (child + 1 < n->count && n->entries[child + 1].due_ms < n->entries[child].due_ms)
            child++;
        if (n->entries[i].due_ms <= n->entries[child].due_ms)
            break;
        swap(n, i, child);
    }
    return id;
}
