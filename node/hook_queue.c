/*
 * hook_queue: see hook_queue.h. A record is the lengths of name and line, and their octets. Two buffers take turns: the
 * log fills one while the thread reads the other.
 *
 * The table of bits says "perhaps" for the events that are wanted, and by chance for few others; the exact names are
 * looked at by the thread, and here only when the queue is full and somebody has to be charged for the loss.
 */
#include "node/hook_queue.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/metrics.h"

enum { BITS = 4096, WORD_BITS = 64 };

static atomic_uint_fast64_t wanted[BITS / WORD_BITS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { /* behind the lock */
    bool open;
    struct buf lines;
    void (*wake)(void *arg);
    void *arg;
    struct arena *mem; /* holds the wishes */
    struct hook_wish *wishes;
    size_t count;
} queue;

bool hook_wants(const struct hook_wish *w, struct span event) {
    for (size_t i = 0; i < w->event_count; i++)
        if (span_eq(span_of(w->events[i]), event) || span_eq(span_of(w->events[i]), SPAN("*")))
            return true;
    return false;
}

static size_t bit_of(struct span event) {
    return hash_span(event, 0) % BITS;
}

static bool is_perhaps_wanted(struct span event) {
    size_t bit = bit_of(event);
    uint64_t word = atomic_load_explicit(&wanted[bit / WORD_BITS], memory_order_relaxed);
    return word >> (bit % WORD_BITS) & 1;
}

static void drop(struct span event) {
    for (size_t i = 0; i < queue.count; i++)
        if (hook_wants(&queue.wishes[i], event))
            metric_add(queue.wishes[i].dropped, 1);
}

static void add(struct span event, struct span line) {
    uint32_t lens[2] = {(uint32_t)event.len, (uint32_t)line.len};
    size_t before = buf_len(&queue.lines);
    buf_append(&queue.lines, lens, sizeof lens);
    buf_add(&queue.lines, event);
    if (buf_add(&queue.lines, line) == ERR_OK) {
        if (before == 0)
            queue.wake(queue.arg);
        return;
    }
    queue.lines.err = ERR_OK;
    buf_truncate(&queue.lines, before);
    drop(event);
}

static void on_event(enum log_level level, const char *event, const struct log_field *fields, size_t count) {
    char mem[LOG_LINE_MAX];
    struct span name = span_of(event);
    if (!is_perhaps_wanted(name))
        return;
    struct span line = log_compose_json(mem, level, event, fields, count);
    pthread_mutex_lock(&lock);
    if (queue.open)
        add(name, span_first(line, line.len - 1));
    pthread_mutex_unlock(&lock);
}

void hook_queue_open(void (*wake)(void *arg), void *arg) {
    pthread_mutex_lock(&lock);
    if (!queue.lines.max)
        buf_init(&queue.lines, HOOK_QUEUE_BYTES);
    buf_clear(&queue.lines);
    queue.wake = wake;
    queue.arg = arg;
    queue.open = true;
    pthread_mutex_unlock(&lock);
}

void hook_queue_close(void) {
    log_set_tap(NULL);
    pthread_mutex_lock(&lock);
    queue.open = false;
    queue.wishes = NULL;
    queue.count = 0;
    if (queue.mem)
        arena_deinit(queue.mem);
    free(queue.mem);
    queue.mem = NULL;
    pthread_mutex_unlock(&lock);
}

/* -- wishes -- */

static void set_bits(const struct hook_wish *wishes, size_t count) {
    uint64_t words[BITS / WORD_BITS] = {0};
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < wishes[i].event_count; k++) {
            struct span name = span_of(wishes[i].events[k]);
            size_t bit = bit_of(name);
            words[bit / WORD_BITS] |= 1ull << (bit % WORD_BITS);
            for (size_t j = 0; span_eq(name, SPAN("*")) && j < BITS / WORD_BITS; j++)
                words[j] = UINT64_MAX;
        }
    }
    for (size_t j = 0; j < BITS / WORD_BITS; j++)
        atomic_store_explicit(&wanted[j], words[j], memory_order_relaxed);
}

static bool copy_wish(struct arena *mem, const struct hook_wish *from, struct hook_wish *to) {
    const char **events = arena_calloc(mem, from->event_count + 1, sizeof *events);
    *to = (struct hook_wish){.events = events, .event_count = from->event_count, .dropped = from->dropped};
    for (size_t i = 0; events && i < from->event_count; i++)
        if (!(events[i] = arena_strdup(mem, from->events[i])))
            return false;
    return events;
}

int hook_queue_want(const struct hook_wish *wishes, size_t count) {
    struct arena *mem = calloc(1, sizeof *mem), *old;
    if (!mem)
        return ERR_NOMEM;
    arena_init(mem, 4096, 0);
    struct hook_wish *copy = arena_calloc(mem, count + 1, sizeof *copy);
    bool fine = copy;
    for (size_t i = 0; fine && i < count; i++)
        fine = copy_wish(mem, &wishes[i], &copy[i]);
    if (fine) {
        pthread_mutex_lock(&lock);
        old = queue.mem;
        queue.mem = mem;
        queue.wishes = copy;
        queue.count = count;
        pthread_mutex_unlock(&lock);
        set_bits(wishes, count);
        log_set_tap(count ? on_event : NULL);
    } else {
        old = mem;
    }
    if (old)
        arena_deinit(old);
    free(old);
    return fine ? ERR_OK : ERR_NOMEM;
}

/* -- taking -- */

void hook_queue_take(struct buf *lines) {
    buf_clear(lines);
    pthread_mutex_lock(&lock);
    struct buf full = queue.lines;
    queue.lines = *lines;
    pthread_mutex_unlock(&lock);
    *lines = full;
}

bool hook_queue_next(struct buf *lines, struct span *event, struct span *line) {
    struct span s = buf_span(lines);
    uint32_t lens[2];
    if (s.len < sizeof lens)
        return false;
    memcpy(lens, s.at, sizeof lens);
    *event = span_make(s.at + sizeof lens, lens[0]);
    *line = span_make(s.at + sizeof lens + lens[0], lens[1]);
    buf_consume(lines, sizeof lens + lens[0] + lens[1]);
    return true;
}
