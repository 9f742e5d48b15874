/*
 * ring: octets in a circle and an index of the lines in them. A line lies in one piece: where the rest of
 * the circle is too short for it, it begins again at the start. What it overwrites, the oldest lines, leaves the
 * index first.
 *
 * One lock for each kind, held for a copy and never while anything else is called that might log: the log feeds
 * the ring. Who adds looks whether the last reader has been away for too long, and then switches it off.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/ring.h"

#define AWAY_MS 10000u

struct place {
    uint32_t at, len;
};
struct ring {
    atomic_bool on;
    pthread_mutex_t lock;
    uint64_t until_ms;    /* on until then */
    uint64_t first, next; /* numbers of the oldest line kept and of the next one; equal: empty */
    uint32_t end;         /* where the next one goes */
    struct place index[RING_LINES];
    char bytes[RING_BYTES];
};

static struct ring rings[RING_KINDS] = {
    [RING_EVENTS] = {.lock = PTHREAD_MUTEX_INITIALIZER, .first = 1, .next = 1},
    [RING_SMTP_IN] = {.lock = PTHREAD_MUTEX_INITIALIZER, .first = 1, .next = 1},
};

bool ring_is_on(enum ring_kind kind) {
    return atomic_load_explicit(&rings[kind].on, memory_order_relaxed);
}

static struct place *place_of(struct ring *r, uint64_t number) {
    return &r->index[number % RING_LINES];
}

/* Forgets the oldest lines until len octets at r->end are nobody's, and a place of the index is free. */
static void make_room(struct ring *r, uint32_t len) {
    while (r->first < r->next) {
        const struct place *p = place_of(r, r->first);
        bool hit = p->at < r->end + len && r->end < p->at + (p->len ? p->len : 1); /* an empty line has a place, too */
        if (!hit && r->next - r->first < RING_LINES)
            return;
        r->first++;
    }
}

/* Lines behind the end of the circle that is left unused are the oldest ones: they go. */
static void turn(struct ring *r) {
    while (r->first < r->next && place_of(r, r->first)->at >= r->end)
        r->first++;
    r->end = 0;
}

void ring_add(enum ring_kind kind, struct span line) {
    struct ring *r = &rings[kind];
    uint32_t len = (uint32_t)(line.len < RING_LINE_MAX ? line.len : RING_LINE_MAX);
    if (!ring_is_on(kind))
        return;
    uint64_t now_ms = clock_mono_ms();
    pthread_mutex_lock(&r->lock);
    if (now_ms >= r->until_ms) {
        atomic_store_explicit(&r->on, false, memory_order_relaxed);
    } else {
        if (r->end + len > RING_BYTES)
            turn(r);
        make_room(r, len);
        if (len)
            memcpy(r->bytes + r->end, line.at, len);
        *place_of(r, r->next++) = (struct place){r->end, len};
        r->end += len;
    }
    pthread_mutex_unlock(&r->lock);
}

/* -- reading -- */

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool holds(struct span line, struct span word) {
    for (size_t at = 0; at + word.len <= line.len; at++) {
        size_t n = 0;
        while (n < word.len && lower(line.at[at + n]) == lower(word.at[n]))
            n++;
        if (n == word.len)
            return true;
    }
    return false;
}

bool ring_matches(struct span line, struct span filter) {
    while (filter.len) {
        struct span word = span_cut(filter, ' ', &filter);
        if (!holds(line, word))
            return false;
    }
    return true;
}

/* With the lock held. */
static void keep_on(struct ring *r) {
    r->until_ms = clock_mono_ms() + AWAY_MS;
    atomic_store_explicit(&r->on, true, memory_order_relaxed);
}

uint64_t ring_newest(enum ring_kind kind) {
    struct ring *r = &rings[kind];
    pthread_mutex_lock(&r->lock);
    keep_on(r);
    uint64_t newest = r->next - 1;
    pthread_mutex_unlock(&r->lock);
    return newest;
}

int ring_read(enum ring_kind kind, uint64_t after, struct span filter, struct ring_line *to, size_t max,
              struct arena *mem, struct ring_reading *out) {
    struct ring *r = &rings[kind];
    int err = ERR_OK;
    pthread_mutex_lock(&r->lock);
    keep_on(r);
    uint64_t number = after < r->next ? after + 1 : r->first;
    *out = (struct ring_reading){.missed = number < r->first ? r->first - number : 0};
    number = number < r->first ? r->first : number;
    for (; number < r->next; number++) {
        const struct place *p = place_of(r, number);
        struct span line = span_make(r->bytes + p->at, p->len);
        if (!ring_matches(line, filter))
            continue;
        out->more = out->count == max;
        if (out->more)
            break;
        struct span copy = arena_dup(mem, line);
        if (!copy.at) {
            err = ERR_NOMEM;
            break;
        }
        to[out->count++] = (struct ring_line){number, copy};
    }
    out->last = number - 1;
    pthread_mutex_unlock(&r->lock);
    return err;
}
