/*
 * near: due times too close for the due index, which counts whole minutes.
 *
 * A bounded heap of (time, message). What does not fit is found by the due index a minute later:
 * it is a convenience, never the truth.
 */
#ifndef SCHEDULER_NEAR_H
#define SCHEDULER_NEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NEAR_MAX 16384u
#define NEAR_HORIZON_MS 120000u
#define NEAR_SETTLE_MS 1000u

struct near {
    struct near_entry {
        uint64_t due_ms, id;
    } * entries;
    size_t count;
};

void near_init(struct near *n);
void near_deinit(struct near *n);
/* False: full, and nothing was added. */
bool near_add(struct near *n, uint64_t due_ms, uint64_t id);
uint64_t near_next_ms(const struct near *n); /* UINT64_MAX: empty */
uint64_t near_pop(struct near *n);           /* the id of the earliest; not when empty */

#endif
