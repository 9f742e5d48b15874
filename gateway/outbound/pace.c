/*
 * pace: see pace.h. Notes in force are never dropped to make room: when the table is full of them, what is new goes
 * unpaced, and the log says so at the caller's.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#include "gateway/outbound/pace.h"

enum { BURST_SHARE = 10 };

/* -- the table -- */

static bool matches(const struct map_node *n, const void *key) {
    const struct pace_entry *e = (const struct pace_entry *)(const void *)n;
    return strcmp(e->key, key) == 0;
}

static uint64_t hash_of(const char *key) {
    return hash_bytes(key, strlen(key), 0);
}

void pace_init(struct pace *p) {
    map_init(&p->entries);
}

static void drop(struct pace *p, struct pace_entry *e) {
    map_remove(&p->entries, &e->in_map);
    free(e);
}

void pace_deinit(struct pace *p) {
    struct map_node *n;
    while ((n = map_next(&p->entries, NULL)))
        drop(p, (struct pace_entry *)(void *)n);
    map_deinit(&p->entries);
}

struct pace_entry *pace_find(const struct pace *p, const char *key) {
    return (struct pace_entry *)(void *)map_find(&p->entries, hash_of(key), matches, key);
}

static bool is_over(const struct pace_entry *e, uint64_t now_ms, uint32_t day) {
    return !e->refs && e->pause_until_ms <= now_ms && e->slow_until_ms <= now_ms && e->rest_until_ms <= now_ms &&
           e->due_us <= now_ms * 1000 && e->promised_us <= now_ms * 1000 && !(e->today && e->day >= day);
}

/* hard: also what is only good to know. */
static void sweep(struct pace *p, uint64_t now_ms, uint32_t day, bool hard) {
    struct map_node *n = map_next(&p->entries, NULL);
    while (n) {
        struct map_node *next = map_next(&p->entries, n);
        struct pace_entry *e = (struct pace_entry *)(void *)n;
        if (is_over(e, now_ms, day) && (hard || e->keep_until_ms <= now_ms))
            drop(p, e);
        n = next;
    }
}

void pace_sweep(struct pace *p, uint64_t now_ms, uint32_t day) {
    sweep(p, now_ms, day, false);
}

struct pace_entry *pace_get(struct pace *p, const char *key, uint64_t now_ms, uint32_t day) {
    struct pace_entry *e = pace_find(p, key);
    if (!e && p->entries.count >= PACE_ENTRIES_MAX)
        sweep(p, now_ms, day, true);
    if (!e && p->entries.count < PACE_ENTRIES_MAX) {
        size_t len = strlen(key);
        e = calloc(1, sizeof *e + len + 1);
        if (e) {
            memcpy(e->key, key, len + 1);
            if (map_insert(&p->entries, &e->in_map, hash_of(key)) != ERR_OK) {
                free(e);
                e = NULL;
            }
        }
    }
    if (e)
        e->refs++;
    return e;
}

void pace_put(struct pace_entry *e) {
    if (!e)
        return;
    CHECK(e->refs > 0);
    e->refs--;
}

/* -- pauses -- */

void pace_pause(struct pace_entry *e, uint64_t until_ms) {
    if (e && e->pause_until_ms < until_ms)
        e->pause_until_ms = until_ms;
}

uint64_t pace_pause_left_ms(const struct pace_entry *e, uint64_t now_ms) {
    return e && e->pause_until_ms > now_ms ? e->pause_until_ms - now_ms : 0;
}

uint32_t pace_connections(const struct pace_entry *e, uint32_t allowed, uint64_t now_ms) {
    return e && e->slow_until_ms > now_ms && e->slow_max < allowed ? e->slow_max : allowed;
}

/* -- rates -- */

static uint64_t burst_of(const struct pace_rate *r) {
    return r->messages < BURST_SHARE ? 1 : r->messages / BURST_SHARE;
}

/* Rounded up: in a window go `burst` and what becomes due in it, together never more than `messages`. */
static uint64_t step_us(const struct pace_rate *r) {
    uint64_t even = r->messages - burst_of(r) + 1;
    return (r->window_ms * 1000 + even - 1) / even;
}

uint64_t pace_wait_ms(const struct pace_entry *e, const struct pace_rate *r, uint32_t ahead, uint64_t now_ms) {
    uint64_t now_us = now_ms * 1000, step = step_us(r), room = (burst_of(r) - 1) * step;
    uint64_t due = (e->due_us > now_us ? e->due_us : now_us) + ahead * step;
    return due > now_us + room ? (due - room - now_us + 999) / 1000 : 0;
}

void pace_take(struct pace_entry *e, const struct pace_rate *r, uint64_t now_ms) {
    uint64_t now_us = now_ms * 1000;
    e->due_us = (e->due_us > now_us ? e->due_us : now_us) + step_us(r);
}

uint64_t pace_promise_ms(struct pace_entry *e, const struct pace_rate *r, uint64_t now_ms, struct rand *rand) {
    uint64_t first_us = (now_ms + pace_wait_ms(e, r, e->held, now_ms)) * 1000;
    uint64_t at = (e->promised_us > first_us ? e->promised_us : first_us);
    uint64_t wait_ms = at / 1000 - now_ms + 1;
    if (wait_ms > PACE_PROMISE_MAX_MS) /* more than fits in an hour: they come spread over its second half */
        return PACE_PROMISE_MAX_MS / 2 + rand_below(rand, PACE_PROMISE_MAX_MS / 2);
    e->promised_us = at + step_us(r);
    return wait_ms;
}

/* -- days -- */

uint32_t pace_today(const struct pace_entry *e, uint32_t day) {
    return e && e->day == day ? e->today : 0;
}

void pace_count(struct pace_entry *e, uint32_t day) {
    if (!e)
        return;
    e->today = e->day == day ? e->today + 1 : 1;
    e->day = day;
}
