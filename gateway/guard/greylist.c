/*
 * greylist: see greylist.h. Three tables: triplets that wait, triplets that passed, and networks with the number of
 * their passes. A lock is held for one look-up at a time; what another thread does between two of them costs at most
 * one more deferral.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "gateway/guard/greylist.h"

enum { NETWORK_PASSES = 5 };
#define TRIPLET_SEED 0x706f73746772792dull /* part of the file's format */

struct greylist {
    struct shelf *shelves[GREYLIST_KINDS];
    atomic_bool changed;
};

static size_t share_of(size_t most, unsigned kind) {
    return kind == GREYLIST_WAITING ? most / 2 : kind == GREYLIST_TRIPLET ? most / 8 * 3 : most / 8;
}

int greylist_new(struct greylist **to, size_t most) {
    struct greylist *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    for (unsigned i = 0; i < GREYLIST_KINDS; i++) {
        int err = shelf_new(&l->shelves[i], share_of(most, i), sizeof(struct greylist_cell));
        if (err) {
            greylist_free(l);
            return err;
        }
    }
    *to = l;
    return ERR_OK;
}

void greylist_free(struct greylist *l) {
    if (!l)
        return;
    for (unsigned i = 0; i < GREYLIST_KINDS; i++)
        shelf_free(l->shelves[i]);
    free(l);
}

void greylist_set_most(struct greylist *l, size_t most) {
    for (unsigned i = 0; i < GREYLIST_KINDS; i++)
        shelf_set_most(l->shelves[i], share_of(most, i));
}

size_t greylist_count(struct greylist *l) {
    size_t count = 0;
    for (unsigned i = 0; i < GREYLIST_KINDS; i++)
        count += shelf_count(l->shelves[i]);
    return count;
}

struct shelf *greylist_shelf(struct greylist *l, enum greylist_kind kind) {
    return l->shelves[kind];
}

bool greylist_is_changed(const struct greylist *l) {
    return atomic_load(&l->changed);
}

void greylist_set_changed(struct greylist *l, bool changed) {
    atomic_store(&l->changed, changed);
}

/* Not over; a clock that was set back makes nothing old. */
static bool is_fresh(uint64_t at_ms, uint64_t wall_ms, uint64_t keep_ms) {
    return wall_ms < at_ms || wall_ms - at_ms <= keep_ms;
}

/* Whether it is remembered well; then it was seen now. One that is too old is forgotten. */
static bool see_known(struct shelf *s, struct shelf_key k, uint32_t passes, uint64_t keep_ms, uint64_t wall_ms) {
    struct greylist_cell *cell = shelf_enter(s, k, false);
    bool known = false;
    if (cell && !is_fresh(cell->at_ms, wall_ms, keep_ms)) {
        shelf_remove(s, k);
    } else if (cell && cell->passes >= passes) {
        known = true;
        cell->at_ms = wall_ms;
    }
    shelf_leave(s, k);
    return known;
}

static void add_pass(struct shelf *s, struct shelf_key k, uint64_t wall_ms) {
    struct greylist_cell *cell = shelf_enter(s, k, true);
    if (cell) {
        cell->at_ms = wall_ms;
        cell->passes += cell->passes < NETWORK_PASSES;
    }
    shelf_leave(s, k);
}

static enum greylist_answer see_waiting(struct shelf *s, struct shelf_key k, const struct greylist_times *t,
                                        uint64_t wall_ms, uint64_t *wait_ms) {
    enum greylist_answer answer = GREYLIST_NEW;
    struct greylist_cell *cell = shelf_enter(s, k, true);
    *wait_ms = t->delay_ms;
    if (!cell) {
        answer = GREYLIST_KNOWN; /* what cannot be remembered must not be asked to come again */
    } else if (cell->at_ms == 0 || cell->at_ms > wall_ms || wall_ms - cell->at_ms > t->retry_ms) {
        cell->at_ms = wall_ms;
    } else if (wall_ms - cell->at_ms < t->delay_ms) {
        answer = GREYLIST_EARLY;
        *wait_ms = t->delay_ms - (wall_ms - cell->at_ms);
    } else {
        answer = GREYLIST_PASSED;
        shelf_remove(s, k);
    }
    shelf_leave(s, k);
    return answer;
}

enum greylist_answer greylist_judge(struct greylist *l, struct shelf_key network, struct span sender,
                                    struct span recipient, const struct greylist_times *t, uint64_t wall_ms,
                                    uint64_t *wait_ms) {
    struct shelf_key triplet = shelf_key_add(shelf_key_add(network, sender, TRIPLET_SEED), recipient, TRIPLET_SEED);
    *wait_ms = 0;
    greylist_set_changed(l, true);
    if (see_known(l->shelves[GREYLIST_NETWORK], network, NETWORK_PASSES, t->keep_ms, wall_ms) ||
        see_known(l->shelves[GREYLIST_TRIPLET], triplet, 1, t->keep_ms, wall_ms))
        return GREYLIST_KNOWN;
    enum greylist_answer answer = see_waiting(l->shelves[GREYLIST_WAITING], triplet, t, wall_ms, wait_ms);
    if (answer == GREYLIST_PASSED) {
        add_pass(l->shelves[GREYLIST_TRIPLET], triplet, wall_ms);
        add_pass(l->shelves[GREYLIST_NETWORK], network, wall_ms);
    }
    return answer;
}
